//! The machine under random sequences of what can happen, the ends of its actor and of its daemon among it.

use astrid_sdk::child::Exit;
use astrid_sdk::serde_json;
use proptest::prelude::*;

use super::*;
use crate::definition::{Growth, Restart};
use crate::machine::{Machine, STUCK_AFTER_MS};
use crate::policy::{Backoff, Cadence, Policy};
use crate::state::{Action, Now, State};

fn policies() -> impl Strategy<Value = Policy> {
    let restart = prop_oneof![Just(Restart::OnFailure), Just(Restart::Always), Just(Restart::Never)];
    let growth = prop_oneof![Just(Growth::Exponential), Just(Growth::Fixed), Just(Growth::Linear)];
    let backoff =
        (growth, 0_u64..3000, 1_u32..4, any::<bool>()).prop_map(|(growth, base_ms, factor, jitter)| Backoff {
            growth,
            base_ms,
            factor,
            cap_ms: 10_000,
            jitter,
        });
    let checks =
        proptest::option::of((100_u64..2000, 1_u64..2000, 1_u32..4, 1_u32..3, 0_u64..3000)).prop_map(|checks| {
            checks.map(
                |(interval_ms, timeout_ms, unhealthy_after, healthy_after, start_period_ms)| Cadence {
                    interval_ms,
                    timeout_ms,
                    unhealthy_after,
                    healthy_after,
                    start_period_ms,
                },
            )
        });
    (
        restart,
        backoff,
        1_u32..5,
        1000_u64..60_000,
        checks,
        0_u64..3000,
        any::<bool>(),
    )
        .prop_map(
            |(restart, backoff, max_restarts, window_ms, checks, stop_timeout_ms, before_stop)| Policy {
                restart,
                backoff,
                max_restarts,
                window_ms,
                min_uptime_ms: 5000,
                checks,
                stop_signal: Signal::Terminate,
                stop_timeout_ms,
                before_stop,
            },
        )
}

#[derive(Debug, Clone)]
enum Step {
    Start,
    Stop,
    Restart,
    /// What the program does, if there is one.
    Runs,
    Fails(bool),
    Exits(i32),
    Check(bool),
    BeforeStopEnds,
    Pass(u64),
    /// The daemon stops: what follows until the next one are ends.
    Drain,
    /// Another daemon, which holds no child.
    Daemon,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => Just(Step::Start),
        1 => Just(Step::Stop),
        1 => Just(Step::Restart),
        4 => Just(Step::Runs),
        1 => any::<bool>().prop_map(Step::Fails),
        3 => (0..3).prop_map(Step::Exits),
        3 => any::<bool>().prop_map(Step::Check),
        1 => Just(Step::BeforeStopEnds),
        5 => (0_u64..4000).prop_map(Step::Pass),
        1 => Just(Step::Drain),
        1 => Just(Step::Daemon),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The world of a machine: what it asked for, and whether that may be.
struct World {
    machine: Machine,
    policy: Policy,
    now: Now,
    /// There is a child, and whether it runs.
    child: Option<bool>,
    check: bool,
    before_stop: bool,
    draining: bool,
    autostart: bool,
    restarts: Vec<u64>,
}

impl World {
    /// The instance of the actor ends, at a moment when all is written: the next one reads what it wrote.
    fn evict(&mut self) -> Result<(), TestCaseError> {
        let written = serde_json::to_string(&self.machine).unwrap();
        let mut read: Machine = serde_json::from_str(&written).unwrap();
        read.reread(&self.policy, self.now);
        prop_assert_eq!(&read, &self.machine, "it goes on as if nothing had happened");
        self.machine = read;
        Ok(())
    }

    /// The daemon ends, however that happens, and all children with it; the next one goes on.
    fn next_daemon(&mut self) -> Result<(), TestCaseError> {
        self.evict()?;
        let before = self.machine.clone();
        let (was_there, waits) = (self.child.is_some(), before.restart_at());
        self.child = None;
        (self.check, self.before_stop, self.draining) = (false, false, false);
        self.machine.resume(&self.policy, self.autostart, self.now);
        let machine = &self.machine;
        prop_assert_eq!(
            machine.restarts(),
            before.restarts(),
            "an end of the daemon is no crash"
        );
        prop_assert_eq!(machine.is_held_down(), before.is_held_down());
        if before.is_held_down() || before.circuit_open() {
            prop_assert!(!machine.has_child() && machine.restart_at().is_none(), "it stays down");
            prop_assert_eq!(machine.circuit_open(), before.circuit_open());
        } else if let Some(at) = waits {
            prop_assert_eq!(machine.has_child(), at <= self.now.up_ms, "it waits on");
            prop_assert_eq!(
                machine.restarts_in_window(&self.policy, self.now),
                before.restarts_in_window(&self.policy, self.now)
            );
        } else if was_there || self.autostart {
            prop_assert!(machine.has_child(), "what ran is started again");
        }
        Ok(())
    }

    fn carry_out(&mut self) -> Result<(), TestCaseError> {
        for action in self.machine.take_actions() {
            match action {
                Action::Spawn => {
                    prop_assert!(!self.draining, "started while the daemon stops");
                    prop_assert_eq!(self.child, None, "a second child");
                    self.child = Some(false);
                }
                Action::Signal(..) => prop_assert!(self.child.is_some(), "a signal to nobody"),
                Action::Check => {
                    prop_assert!(!self.check, "a second check");
                    prop_assert_eq!(self.child, Some(true));
                    self.check = true;
                }
                // A check that was ended is gone at once here; the machine hears of it as the table would tell.
                Action::EndCheck => {
                    prop_assert!(self.check);
                    self.check = false;
                    self.machine.checked(&self.policy, Err(String::new()), self.now);
                }
                Action::BeforeStop => {
                    prop_assert!(!self.before_stop);
                    self.before_stop = true;
                }
                Action::EndBeforeStop => self.before_stop = false,
                Action::CircuitOpened(_) => {
                    let within = |at: &&u64| self.now.up_ms - **at < self.policy.window_ms;
                    let recent = self.restarts.iter().filter(within).count();
                    prop_assert_eq!(
                        recent,
                        self.policy.max_restarts as usize,
                        "the circuit opens at exactly its limit"
                    );
                }
                Action::Changed(State::Starting, why)
                    if why.starts_with("restarted by request")
                        || why.starts_with("started by")
                        || why.starts_with("started as") =>
                {
                    self.restarts.clear();
                }
                Action::Changed(..) | Action::Note(_) => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let before = self.machine.restarts();
        let (policy, now) = (self.policy.clone(), self.now);
        let lived = self.machine.uptime_ms(now);
        let machine = &mut self.machine;
        match *step {
            Step::Start | Step::Restart if self.draining => {}
            Step::Start if machine.state() != State::Stopping => machine.start(now),
            Step::Stop => machine.stop(&policy, now),
            Step::Restart => machine.restart(&policy, now),
            Step::Runs if self.child == Some(false) => {
                self.child = Some(true);
                machine.started(&policy, 7, now);
            }
            Step::Fails(lasting) if self.child == Some(false) => {
                self.child = None;
                machine.failed(&policy, Problem::new("x", "y"), lasting, now);
            }
            Step::Exits(code) if self.child == Some(true) => {
                self.child = None;
                if lived.is_some_and(|lived| lived >= policy.min_uptime_ms) {
                    self.restarts.clear();
                }
                machine.exited(&policy, &Exit::Code(code), now);
            }
            Step::Check(well) if self.check => {
                self.check = false;
                machine.checked(&policy, if well { Ok(()) } else { Err("sick".to_owned()) }, now);
            }
            Step::BeforeStopEnds if self.before_stop => {
                self.before_stop = false;
                machine.before_stop_ended(&policy, now);
            }
            Step::Pass(ms) => {
                self.now.up_ms += ms;
                self.now.wall_ms += ms;
                if !self.draining || machine.has_child() {
                    machine.due(&policy, self.now);
                }
            }
            Step::Drain => {
                self.draining = true;
                machine.drain(&policy, 500, now);
            }
            Step::Daemon => self.next_daemon()?,
            _ => {}
        }
        if self.machine.restarts() > before {
            self.restarts.push(self.now.up_ms);
        }
        self.carry_out()?;
        self.carry_out()
    }

    fn holds(&self) -> Result<(), TestCaseError> {
        let machine = &self.machine;
        let alive = matches!(machine.state(), State::Running | State::Unhealthy);
        prop_assert_eq!(machine.has_child(), self.child.is_some());
        prop_assert_eq!(
            machine.pid().is_some(),
            self.child == Some(true),
            "a pid is present iff it runs"
        );
        prop_assert!(!alive || self.child == Some(true));
        prop_assert_eq!(machine.is_settled() && !alive, self.child.is_none());
        prop_assert!(!(machine.circuit_open() && machine.restart_at().is_some()));
        prop_assert!(machine.restarts_in_window(&self.policy, self.now) <= self.policy.max_restarts);
        if self.child.is_none() && machine.restart_at().is_none() {
            prop_assert_eq!(machine.deadline(), None, "down means at rest");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// A10, A11, A12, A14: what the machine's documentation says always holds.
    #[test]
    fn what_always_holds(policy in policies(), steps in steps(), chance: u64, autostart: bool) {
        let mut world = World {
            machine: Machine::default(),
            policy,
            now: Now { up_ms: 0, wall_ms: 1000, chance },
            child: None,
            check: false,
            before_stop: false,
            draining: false,
            autostart,
            restarts: Vec::new(),
        };
        for step in &steps {
            world.step(step)?;
            world.evict()?;
            world.holds()?;
        }
        // Whatever was before: a stop ends, or says that it is stuck, by its deadline.
        world.step(&Step::Stop)?;
        let bound = world.now.up_ms + 2 * world.policy.stop_timeout_ms + STUCK_AFTER_MS + 1;
        while let Some(at) = world.machine.deadline() {
            prop_assert!(at <= bound);
            let pass = at.saturating_sub(world.now.up_ms);
            world.step(&Step::Pass(pass))?;
        }
        prop_assert!(world.child.is_none() || world.machine.is_stuck());
        if world.child == Some(true) {
            world.step(&Step::Exits(0))?;
        }
        if world.child.is_none() {
            prop_assert!(matches!(world.machine.state(), State::Stopped(_) | State::Terminated));
        }
        world.holds()?;
    }

    /// A11: waits grow as the policy says and never beyond the cap, however often.
    #[test]
    fn waits_grow_to_the_cap(base_ms in 0_u64..100_000, factor in 1_u32..100, attempt: u32, chance: u64) {
        let backoff = |growth, jitter| Backoff { growth, base_ms, factor, cap_ms: 300_000, jitter };
        for growth in [Growth::Exponential, Growth::Linear] {
            let wait = backoff(growth, false).delay_ms(attempt, chance);
            let later = backoff(growth, false).delay_ms(attempt.saturating_add(1), chance);
            prop_assert!(wait <= later && later <= 300_000);
            let spread = backoff(growth, true).delay_ms(attempt, chance);
            prop_assert!(wait / 2 <= spread && spread <= wait);
        }
        prop_assert_eq!(backoff(Growth::Fixed, false).delay_ms(attempt, chance), base_ms);
    }
}

#[test]
fn waits_double_by_default() {
    let definition = crate::document::parse("[[processes]]\nname = \"w\"\ncommand = \"c\"\n", "f").unwrap();
    let policy = crate::plan::Plan::of(&definition["w"]).policy;
    let waits: Vec<_> = (0..10)
        .map(|attempt| policy.backoff.delay_ms(attempt, 0) / 1000)
        .collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(
        (policy.max_restarts, policy.window_ms, policy.min_uptime_ms),
        (5, 60_000, 30_000)
    );
}
