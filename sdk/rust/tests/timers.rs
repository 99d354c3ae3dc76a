//! Timers, time, chance and the log.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use astrid_sdk::error::TimerError;
use astrid_sdk::prelude::*;
use astrid_sdk::testing::Harness;
use astrid_sdk::{Level, PortId};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Clockwork {
    ticks: Option<PortId>,
    fired: Vec<(Duration, String)>,
}

#[capsule]
impl Clockwork {
    #[on("clock.start")]
    fn start(&mut self, ctx: &mut Context) -> Result<()> {
        self.ticks = Some(ctx.timer(SECOND).tag("tick").every(2 * SECOND).set()?);
        ctx.timer(4 * SECOND).tag("once").set()?;
        ctx.timer(SECOND / 2).set()?;
        let cancelled = ctx.timer(SECOND).tag("never").set()?;
        assert!(ctx.cancel(cancelled) && !ctx.cancel(cancelled));
        Ok(())
    }

    #[on("clock.give_up")]
    fn give_up(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.timer(SECOND).set()?;
        Err(Rollback::retry("on second thoughts").into())
    }

    #[on("clock.limits")]
    fn limits(&mut self, ctx: &mut Context) {
        assert_eq!(
            ctx.timer(SECOND).tag(&"t".repeat(256)).set(),
            Err(TimerError::TagTooLong)
        );
        assert_eq!(
            ctx.timer(SECOND).every(SECOND / 1000).set(),
            Err(TimerError::OutOfRange(10))
        );
        assert!(matches!(ctx.timer(Duration::MAX).set(), Err(TimerError::OutOfRange(_))));
        while ctx.timer(SECOND).set().is_ok() {}
        assert_eq!(ctx.timer(SECOND).set(), Err(TimerError::TooMany(64)));
    }

    #[timer("tick", "tock")]
    fn tick(&mut self, ctx: &mut Context, tag: String) {
        assert_eq!(ctx.port(), self.ticks);
        self.fired.push((ctx.uptime(), tag));
    }

    #[timer("once")]
    fn once(&mut self, ctx: &mut Context) {
        self.fired.push((ctx.uptime(), "last".to_owned()));
        assert!(ctx.cancel(self.ticks.unwrap()));
    }

    #[timer]
    fn other(&mut self, tag: String) {
        self.fired.push((Duration::ZERO, tag));
    }
}

#[test]
fn timers_fire_in_order_until_they_are_cancelled() {
    let mut clock = Harness::new::<Clockwork>();
    clock.event("clock.start", ()).committed();
    assert_eq!(
        clock.timers(),
        [
            (String::new(), SECOND / 2),
            ("tick".into(), SECOND),
            ("once".into(), 4 * SECOND)
        ]
    );
    assert_eq!(clock.advance(60 * SECOND).len(), 4);
    let tick = |at: u64| (Duration::from_secs(at), "tick".to_owned());
    let other = (Duration::ZERO, String::new());
    assert_eq!(
        clock.capsule().unwrap().fired,
        [other, tick(1), tick(3), (4 * SECOND, "last".to_owned())]
    );
    assert!(clock.timers().is_empty());
}

#[test]
fn a_rollback_sets_no_timer() {
    let mut clock = Harness::new::<Clockwork>();
    clock.event("clock.give_up", ()).rolled_back();
    assert!(clock.timers().is_empty());
    clock.event("clock.limits", ()).committed();
}

#[test]
#[should_panic(expected = "the capsule handles `clock.start`, and [subscribe] of its manifest does not name it")]
fn a_manifest_that_does_not_fit_is_noticed() {
    let manifest = "[package]\nname = \"clock\"\nversion = \"0.1.0\"\ndescription = \"Ticks\"\nkernel = \"*\"\n";
    let _ = Harness::new::<Clockwork>().with_manifest(manifest);
}

#[derive(Default)]
struct Senses;

#[capsule]
impl Senses {
    #[on("senses.v1.now")]
    fn now(&mut self, ctx: &mut Context) -> (u64, u64) {
        (ctx.unix_time().as_secs(), ctx.uptime().as_secs())
    }

    #[on("senses.v1.chance")]
    fn chance(&mut self, ctx: &mut Context) -> (usize, u64) {
        let error = "nothing";
        warn!("chance", bytes = 100_000, error = ?error);
        trace!("done",);
        (ctx.random_bytes(100_000).len(), ctx.random_number())
    }
}

#[test]
fn time_and_chance_are_the_same_in_every_run() {
    let run = || {
        let mut senses = Harness::new::<Senses>();
        let before = senses.ask("senses.v1.now", ()).read::<(u64, u64)>();
        senses.advance(60 * SECOND);
        let after = senses.ask("senses.v1.now", ()).read::<(u64, u64)>();
        assert_eq!((after.0 - before.0, after.1 - before.1), (60, 60));
        let chance = senses.ask("senses.v1.chance", ()).read::<(usize, u64)>();
        (after, chance, senses.logged())
    };
    let first = run();
    assert_eq!(first, run());
    let (_, (bytes, _), lines) = first;
    assert_eq!(bytes, 100_000);
    assert_eq!((lines[0].level, lines[0].message.as_str()), (Level::Warn, "chance"));
    assert_eq!(
        lines[0].fields,
        [
            ("bytes".into(), "100000".into()),
            ("error".into(), "\"nothing\"".into())
        ]
    );
    assert_eq!(lines[1].fields, []);
}
