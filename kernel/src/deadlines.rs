//! Things to do at an instant: answer timeouts, timers, handshakes, restarts.
//!
//! One ordered map and one future that sleeps until its first entry; an empty map sleeps for good, so waiting costs nothing
//! (K19). Setting and cancelling are O(log n). Most entries are cancelled long before they are due (an ask is answered),
//! so the sleeper is not re-armed on a cancellation: at worst it wakes once for an entry that is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock::Clock;

/// Names an entry, to cancel it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadlineKey {
    at: Instant,
    number: u64,
}

type Action = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    due: BTreeMap<DeadlineKey, Action>,
    number: u64,
    /// What the sleeper sleeps until.
    armed: Option<Instant>,
}

/// The map. Shared by whoever sets deadlines; [`Deadlines::run`] is its only driver.
#[derive(Default)]
pub struct Deadlines {
    state: Mutex<State>,
    earlier: Notify,
    clock: Clock,
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines")
            .field("entries", &self.state.lock().due.len())
            .finish_non_exhaustive()
    }
}

impl Deadlines {
    /// None yet, by that clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// What time it is, for everything that has deadlines.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns at that instant or soon after.
    pub async fn until(&self, at: Instant) {
        let due = Arc::new(Notify::new());
        let told = Arc::clone(&due);
        let key = self.at(at, move || told.notify_one());
        // Whoever stops waiting leaves nothing behind.
        let _cancel = Cancel(self, key);
        due.notified().await;
    }

    /// The first entry's instant: for who drives this by hand.
    pub fn next(&self) -> Option<Instant> {
        self.state.lock().due.first_key_value().map(|(key, _)| key.at)
    }

    /// Does what is due now: for who drives this by hand. How much that was.
    pub fn fire(&self) -> usize {
        let due = self.take_due(self.now());
        let count = due.len();
        for action in due {
            action();
        }
        count
    }

    /// Does this once, at that instant or soon after, on the driver's thread. It must be short and must not block.
    pub fn at(&self, at: Instant, action: impl FnOnce() + Send + 'static) -> DeadlineKey {
        let mut state = self.state.lock();
        state.number += 1;
        let key = DeadlineKey {
            at,
            number: state.number,
        };
        state.due.insert(key, Box::new(action));
        let earlier = state.armed.is_none_or(|armed| at < armed);
        if earlier {
            state.armed = Some(at);
        }
        drop(state);
        if earlier {
            self.earlier.notify_one();
        }
        key
    }

    /// Forgets an entry. False when it was done or cancelled before.
    pub fn cancel(&self, key: DeadlineKey) -> bool {
        self.state.lock().due.remove(&key).is_some()
    }

    /// Takes what is due now, and arms for what comes next.
    fn take_due(&self, now: Instant) -> Vec<Action> {
        let mut state = self.state.lock();
        let later = state.due.split_off(&DeadlineKey {
            at: now,
            number: u64::MAX,
        });
        let due = std::mem::replace(&mut state.due, later);
        state.armed = state.due.first_key_value().map(|(key, _)| key.at);
        due.into_values().collect()
    }

    /// Drives the map, until the future of this is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let armed = self.state.lock().armed;
            let earlier = self.earlier.notified();
            match armed {
                None => earlier.await,
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {
                            for action in self.take_due(tokio::time::Instant::now().into_std()) {
                                action();
                            }
                        }
                        () = earlier => {}
                    }
                }
            }
        }
    }
}

struct Cancel<'a>(&'a Deadlines, DeadlineKey);

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.0.cancel(self.1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn fires_in_order_and_not_when_cancelled() {
        let deadlines = Arc::new(Deadlines::default());
        let driver = tokio::spawn(Arc::clone(&deadlines).run());
        let (say, mut heard) = mpsc::unbounded_channel();
        let start = Instant::now();
        let set = |ms: u64| {
            let say = say.clone();
            deadlines.at(start + Duration::from_millis(ms), move || say.send(ms).unwrap())
        };
        // As late as it may be that anything fires.
        set(3_600_000);
        let cancelled = set(200);
        set(100);
        assert!(deadlines.cancel(cancelled));
        assert!(!deadlines.cancel(cancelled));
        assert_eq!(heard.recv().await, Some(100));
        set(150);
        assert_eq!(heard.recv().await, Some(150));
        assert!(heard.try_recv().is_err());
        driver.abort();
    }
}
