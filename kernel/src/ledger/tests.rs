//! What the ledger promises, by a clock that stands still and on a store in memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use astrid_wire::manifest::{ByteSize, Time};
use futures_util::FutureExt as _;

use super::bank::BLOCK_FUEL_MIN;
use super::*;
use crate::clock::Clock;
use crate::store::memory::Memory;
use crate::store::table::{Kind, Scope, Table};

/// A ledger by a clock that stands still.
struct Bench {
    store: Arc<Store>,
    deadlines: Arc<Deadlines>,
    ledger: Ledger,
}

impl Bench {
    fn over(memory: &Memory) -> Self {
        let store = Store::open(Box::new(memory.clone())).now_or_never().unwrap().unwrap();
        let deadlines = Arc::new(Deadlines::new(Clock::paused(Duration::from_secs(1))));
        Self {
            ledger: Ledger::new(Arc::clone(&store), Arc::clone(&deadlines), Arc::default()),
            store,
            deadlines,
        }
    }

    fn new() -> Self {
        Self::over(&Memory::default())
    }

    fn with(quota: Quota) -> (Self, Arc<Account>) {
        let bench = Self::new();
        bench.ledger.set_quota(&who("p"), &quota);
        let account = bench.ledger.account(&who("p"));
        (bench, account)
    }

    fn advance(&self, ms: u64) {
        self.deadlines.clock().advance(Duration::from_millis(ms));
    }

    fn seal(&self) {
        self.store.seal().now_or_never().unwrap();
    }

    fn stored(&self) -> usize {
        let table = Table::of(Kind::Ledger, "", &Scope::System);
        self.store.rows(&table, &[], usize::MAX).unwrap().len()
    }
}

fn who(name: &str) -> Principal {
    Principal::stamped(name).unwrap()
}

fn use_fuel(account: &Arc<Account>, fuel: u64) {
    let pair = account.pair(&"capsule".into());
    account.handled(&pair, fuel, 0, true);
}

/// Knows principals by the beginning of their names.
struct Known(&'static str, Quota);

impl Quotas for Known {
    fn of(&self, principal: &Principal) -> Option<Entitlement> {
        principal.as_str().starts_with(self.0).then_some(Entitlement {
            quota: self.1,
            weight: 7,
        })
    }
}

/// K12: exact under concurrency, by principal and by capsule.
#[test]
fn counts_are_exact_under_concurrency() {
    let bench = Bench::new();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let ledger = &bench.ledger;
            scope.spawn(move || {
                for n in 0..10_000 {
                    let account = ledger.account(&who(&format!("p{}", n % 3)));
                    let pair = account.pair(&format!("c{}", thread % 2).into());
                    account.handled(&pair, thread + 1, 0, n % 2 == 0);
                    account.published(1, 10);
                    let hold = account.hold(Limit::Calls, 2).unwrap();
                    drop(hold);
                }
            });
        }
    });
    let page = bench.ledger.all(None, 10).unwrap();
    let sum = |of: fn(&usage::Usage) -> u64| page.principals.iter().map(of).sum::<u64>();
    assert_eq!(page.principals.len(), 3);
    assert_eq!(sum(|u| u.fuel), 10_000 * 36);
    assert_eq!(sum(|u| u.handled), 8 * 5_000);
    assert_eq!((sum(|u| u.published), sum(|u| u.published_bytes)), (80_000, 800_000));
    assert_eq!(sum(|u| u.calls.now), 0);
    assert_eq!(sum(|u| u.capsules.iter().map(|c| c.fuel).sum()), 10_000 * 36);
    assert_eq!(sum(|u| u.capsules.len() as u64), 6);
    assert_eq!(bench.ledger.fuel(), 10_000 * 36);
}

/// K12: over quota is denied with what and when it frees, and that is when it frees.
#[test]
fn windows_free_when_they_say() {
    let (bench, account) = Bench::with(Quota {
        messages_per_second: Some(2),
        bytes_per_second: Some(ByteSize(100)),
        fuel_per_second: Some(1000),
        timeout: Some(Time(Duration::from_secs(3))),
        ..Quota::default()
    });
    account.say(10).unwrap();
    account.say(10).unwrap();
    let no = account.say(10).unwrap_err();
    assert_eq!(
        (no.what, no.limit, no.retry_after_ms),
        (Limit::MessagesPerSecond, 2, Some(500))
    );
    bench.advance(499);
    assert!(account.say(10).is_err());
    bench.advance(1);
    // What was refused for its number did not use bytes.
    account.say(100).unwrap();
    bench.advance(500);
    let no = account.say(90).unwrap_err();
    assert_eq!((no.what, no.retry_after_ms), (Limit::BytesPerSecond, Some(400)));
    let no = account.say(101).unwrap_err();
    assert_eq!((no.what, no.retry_after_ms), (Limit::BytesPerSecond, None));

    account.check_fuel().unwrap();
    use_fuel(&account, 5000);
    let no = account.check_fuel().unwrap_err();
    assert_eq!(
        (no.what, no.limit, no.retry_after_ms),
        (Limit::FuelPerSecond, 1000, Some(4001))
    );
    bench.advance(4001);
    account.check_fuel().unwrap();
    assert_eq!(account.timeout_max(), Duration::from_secs(3));
    assert_eq!(account.usage.refused.load(Ordering::Relaxed), 5);
}

/// K15: what is held is given back, however it ends, and never over the limit.
#[test]
fn holds_give_back() {
    let (bench, account) = Bench::with(Quota {
        children: Some(2),
        memory: Some(ByteSize(100)),
        ..Quota::default()
    });
    let one = account.hold(Limit::Children, 1).unwrap();
    let two = account.hold(Limit::Children, 1).unwrap();
    let no = account.hold(Limit::Children, 1).unwrap_err();
    assert_eq!((no.what, no.limit, no.retry_after_ms), (Limit::Children, 2, None));
    drop(one);
    let mut memory = account.hold(Limit::Memory, 60).unwrap();
    assert_eq!(memory.grow(41).unwrap_err().what, Limit::Memory);
    memory.grow(40).unwrap();
    let other = bench.ledger.account(&who("other"));
    memory.move_to(&other);
    assert_eq!((account.report().memory.now, other.report().memory.now), (0, 100));
    memory.set(30);
    assert_eq!(other.report().memory, usage::Held { now: 30, peak: 100 });
    drop((two, memory));
    let report = account.report();
    assert_eq!(
        (report.children.now, report.children.peak, report.memory.now),
        (0, 2, 0)
    );
    assert_eq!(other.report().memory.now, 0);
}

/// K12: a total bounds over restarts. A crash counts at most what was left of a block, and never less than was used.
#[test]
fn totals_survive_crashes() {
    let memory = Memory::default();
    let quota = Quota {
        fuel_total: Some(100 * BLOCK_FUEL_MIN),
        ..Quota::default()
    };
    let (mut used, mut lives) = (0, 0);
    loop {
        let bench = Bench::over(&memory);
        bench.ledger.set_quotas(Arc::new(Known("p", quota)));
        let account = bench.ledger.account(&who("p"));
        let counted = account.usage.fuel.load(Ordering::Relaxed);
        assert!(counted >= used, "{counted} are counted of {used}");
        let block = 100 * BLOCK_FUEL_MIN / 64;
        assert!(
            counted <= used + lives * block + BLOCK_FUEL_MIN,
            "{counted} are counted of {used} in {lives} lives"
        );
        lives += 1;
        let mut n = 0;
        while n < 30 && account.check_fuel().is_ok() {
            use_fuel(&account, BLOCK_FUEL_MIN / 3);
            used += BLOCK_FUEL_MIN / 3;
            n += 1;
            bench.seal();
        }
        if n < 30 {
            break;
        }
    }
    assert!(used <= 100 * BLOCK_FUEL_MIN + BLOCK_FUEL_MIN / 3);
    assert!(lives > 5, "{lives}");
}

/// A clean stop writes what was used as it is, and a principal without limits costs no write before.
#[test]
fn a_clean_stop_is_exact() {
    let memory = Memory::default();
    {
        let bench = Bench::over(&memory);
        let account = bench.ledger.account(&who("p"));
        use_fuel(&account, 12_345);
        account.published(3, 300);
        assert_eq!(bench.stored(), 0);
        bench.ledger.settle();
        bench.seal();
        assert_eq!(bench.stored(), 1);
    }
    let bench = Bench::over(&memory);
    let told = bench.ledger.usage(&who("p"), || 0).unwrap().unwrap();
    assert_eq!(
        (told.fuel, told.handled, told.published, told.published_bytes),
        (12_345, 1, 3, 300)
    );
    assert_eq!(told.storage_bytes, Some(0));
    assert_eq!(bench.ledger.rows(), 0, "to be told needs no row");
    assert_eq!(
        bench.ledger.account(&who("p")).usage.fuel.load(Ordering::Relaxed),
        12_345
    );
    assert_eq!(bench.ledger.fuel(), 0, "since the start");
    assert!(bench.ledger.usage(&who("q"), || 0).unwrap().is_none());
    bench.ledger.forget(&who("p")).unwrap();
    assert!(bench.ledger.usage(&who("p"), || 0).unwrap().is_none());
}

/// K12: what capsules remember has a little of a limit that files cannot take, and no more.
#[test]
fn files_leave_room_for_what_is_remembered() {
    let (_bench, account) = Bench::with(Quota {
        storage: Some(ByteSize(8_000)),
        ..Quota::default()
    });
    account.measure_storage().unwrap();
    let files = account.hold_anyway(Limit::Storage, 9_000);
    assert!(account.stores_too_much() && account.storage_room() == 0);
    account.hold(Limit::Storage, 1).unwrap_err();
    let mut state = account.hold_state(900).unwrap();
    state.grow_state(100).unwrap();
    state.grow_state(1).unwrap_err();
    state.keep();
    account.hold_state(1).unwrap_err();
    drop(files);
    assert!(!account.stores_too_much());
    drop(account.hold_state(7_000).unwrap());
    account.hold_state(7_001).unwrap_err();
}

/// K12: who is deleted and made anew has one row, also for whoever held it all the time (an actor that has it as its payer, a connection):
/// the new limits count there, what is used is seen, and nothing of the old row is written over the new one.
#[test]
fn a_row_that_is_held_begins_again() {
    let bench = Bench::new();
    let limited = Quota {
        fuel_total: Some(2 * BLOCK_FUEL_MIN),
        messages_per_second: Some(1),
        ..Quota::default()
    };
    bench.ledger.set_quotas(Arc::new(Known("p", limited)));
    let held = bench.ledger.account(&who("p"));
    let pair = held.pair(&"capsule".into());
    let connection = held.hold(Limit::Connections, 1).unwrap();
    held.check_fuel().unwrap();
    held.handled(&pair, 3 * BLOCK_FUEL_MIN, 0, true);
    held.check_fuel().unwrap_err();
    held.say(1).unwrap();
    bench.seal();
    bench.ledger.forget(&who("p")).unwrap();
    bench.seal();
    assert_eq!(bench.stored(), 0);
    // Nobody of that name is known now: nothing is limited.
    bench.ledger.set_quotas(Arc::new(Known("q", limited)));
    (0..3).for_each(|_| held.say(1).unwrap());
    bench.ledger.set_quotas(Arc::new(Known("p", limited)));
    assert!(Arc::ptr_eq(&held, &bench.ledger.account(&who("p"))));
    held.check_fuel().unwrap();
    held.handled(&pair, 5, 0, true);
    held.say(1).unwrap();
    held.say(1).unwrap_err();
    let told = bench.ledger.usage(&who("p"), || 0).unwrap().unwrap();
    assert_eq!((told.fuel, told.handled, told.connections.now), (5, 1, 1));
    assert_eq!((told.capsules.len(), told.capsules[0].fuel), (1, 5));
    drop(connection);
    assert_eq!(bench.ledger.usage(&who("p"), || 0).unwrap().unwrap().connections.now, 0);
    bench.ledger.settle();
    bench.seal();
    drop(held);
    assert_eq!(
        bench.ledger.bank.load(&who("p")).unwrap(),
        Row::of(&bench.ledger.account(&who("p")).usage)
    );
}

/// What a total bounds does not go on while the store takes nothing, and is told again after it failed.
#[test]
fn what_cannot_be_counted_does_not_happen() {
    let (bench, account) = Bench::with(Quota {
        fuel_total: Some(1 << 40),
        ..Quota::default()
    });
    account.check_fuel().unwrap();
    bench.store.fail(&EngineError::Io("gone".into()));
    let no = account.check_fuel().unwrap_err();
    assert_eq!((no.what, no.retry_after_ms), (Limit::FuelTotal, Some(500)));
    bench.store.reopen().now_or_never().unwrap().unwrap();
    bench.store.recovered();
    account.check_fuel().unwrap();
    bench.seal();
    assert_eq!(bench.stored(), 1);
}

/// Fresh principals fill neither memory nor disk, and nothing that is counted is lost.
#[test]
fn a_hundred_thousand_fresh_principals() {
    let bench = Bench::new();
    bench.ledger.set_quotas(Arc::new(Known("known", Quota::default())));
    let held = bench.ledger.account(&who("held"));
    for n in 0..100_000 {
        let name = if n % 100 == 0 {
            format!("known-{n}")
        } else {
            format!("x{n}")
        };
        use_fuel(&bench.ledger.account(&who(&name)), 3);
        assert!(bench.ledger.rows() <= ROWS_MAX);
    }
    bench.ledger.settle();
    let mut fuel = bench.ledger.others().fuel.load(Ordering::Relaxed);
    let (mut after, mut known) = (None, 0);
    loop {
        let page = bench.ledger.all(after.as_deref(), 500).unwrap();
        assert!(page.principals.len() <= 500);
        fuel += page.principals.iter().map(|u| u.fuel).sum::<u64>();
        known += page.principals.iter().filter(|u| u.weight == 7).count();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((fuel, known), (300_000, 1000));
    // Of those that nobody knows only the present rows may have been written.
    assert!(bench.stored() <= ROWS_MAX, "{}", bench.stored());
    assert!(Arc::ptr_eq(&held, &bench.ledger.account(&who("held"))));
    // One that left comes back with what it used.
    assert_eq!(
        bench.ledger.account(&who("known-0")).usage.fuel.load(Ordering::Relaxed),
        3
    );
}

/// A window that is in use cannot be made fresh by filling the table.
#[test]
fn a_used_window_stays() {
    let quota = Quota {
        messages_per_second: Some(1),
        ..Quota::default()
    };
    let bench = Bench::new();
    bench.ledger.set_quotas(Arc::new(Known("p", quota)));
    bench.ledger.account(&who("p")).say(1).unwrap();
    for n in 0..=ROWS_MAX {
        bench.ledger.account(&who(&format!("x{n}")));
    }
    assert!(bench.ledger.rows() < 100);
    assert!(bench.ledger.account(&who("p")).say(1).is_err());
}

/// A changed policy counts for rows that are there; what was set by hand stays.
#[test]
fn a_changed_policy_counts_at_once() {
    let bench = Bench::new();
    let (p, q) = (bench.ledger.account(&who("p")), bench.ledger.account(&who("q")));
    p.say(1).unwrap();
    bench.ledger.set_weight(&who("q"), 1000);
    let quota = Quota {
        messages_per_second: Some(0),
        ..Quota::default()
    };
    bench.ledger.set_quotas(Arc::new(Known("p", quota)));
    assert_eq!(p.say(1).unwrap_err().retry_after_ms, None);
    assert_eq!((p.weight(), q.weight()), (7, WEIGHT_MAX));
    bench.ledger.set_quotas(Arc::new(Known("p", Quota::default())));
    p.say(1).unwrap();
}
