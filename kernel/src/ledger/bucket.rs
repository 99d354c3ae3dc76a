//! A window: so much a second, with a second's worth at once after a pause.
//!
//! The state is one instant, the one at which everything that was taken will have been paid for (GCRA, as in ATM networks). Nothing has to
//! run for a window to free, taking is one compare-and-swap, and what is left is exact to a nanosecond. Costs are rounded up: in any stretch
//! of time at most rate x time + a second's worth is given.
//!
//! Deliberately absent: a clock. Whoever takes says what time it is.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far ahead of its rate one may be: the burst, in nanoseconds of the rate.
pub const WINDOW_NS: u64 = 1_000_000_000;

/// No limit.
pub const UNLIMITED: u64 = u64::MAX;

/// It is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {
    /// Nanoseconds until what was asked for is there; `None`: it is more than ever is.
    pub frees_in_ns: Option<u64>,
}

/// A window. Nanoseconds are counted from any fixed instant.
#[derive(Debug)]
pub struct Bucket {
    /// Units a second.
    rate: AtomicU64,
    /// When everything that was taken is paid for, in nanoseconds.
    paid_at: AtomicU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            rate: AtomicU64::new(UNLIMITED),
            paid_at: AtomicU64::new(0),
        }
    }
}

/// Nanoseconds that it takes to pay for so much, rounded up.
fn cost(rate: u64, amount: u64) -> u64 {
    let ns = (u128::from(amount) * u128::from(WINDOW_NS)).div_ceil(u128::from(rate.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

impl Bucket {
    /// The rate, if there is one.
    pub fn rate(&self) -> Option<u64> {
        let rate = self.rate.load(Ordering::Relaxed);
        (rate != UNLIMITED).then_some(rate)
    }

    /// Changes the rate. Of what the old one owed, no more than a second is kept.
    pub fn set_rate(&self, rate: Option<u64>, now_ns: u64) {
        let rate = rate.unwrap_or(UNLIMITED);
        if self.rate.swap(rate, Ordering::Relaxed) != rate {
            self.paid_at
                .fetch_min(now_ns.saturating_add(WINDOW_NS), Ordering::Relaxed);
        }
    }

    /// Takes so much, or nothing.
    ///
    /// # Errors
    /// [`Empty`].
    pub fn take(&self, amount: u64, now_ns: impl FnOnce() -> u64) -> Result<(), Empty> {
        let Some(rate) = self.rate() else { return Ok(()) };
        let cost = cost(rate, amount);
        if rate == 0 || cost > WINDOW_NS {
            return Err(Empty { frees_in_ns: None });
        }
        let now = now_ns();
        let end = now.saturating_add(WINDOW_NS);
        let taken = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid_at| {
                let next = paid_at.max(now).saturating_add(cost);
                (next <= end).then_some(next)
            });
        taken.map(|_| ()).map_err(|paid_at| Empty {
            frees_in_ns: Some(paid_at.max(now).saturating_add(cost).saturating_sub(end)),
        })
    }

    /// As if nothing had been taken.
    pub fn refill(&self) {
        self.paid_at.store(0, Ordering::Relaxed);
    }

    /// Gives back what was taken for something that did not happen after all.
    pub fn give_back(&self, amount: u64) {
        if let Some(rate) = self.rate() {
            let cost = cost(rate, amount);
            let less = |paid_at: u64| Some(paid_at.saturating_sub(cost));
            // It always has a next value.
            self.paid_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .ok();
        }
    }

    /// Takes what was used already, also if there is not so much: whoever comes next waits for that.
    pub fn charge(&self, amount: u64, now_ns: impl FnOnce() -> u64) {
        let Some(rate) = self.rate() else { return };
        let (cost, now) = (cost(rate, amount), now_ns());
        let more = |paid_at: u64| Some(paid_at.max(now).saturating_add(cost));
        // It always has a next value.
        self.paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok();
    }

    /// Whether anything is left.
    ///
    /// # Errors
    /// [`Empty`].
    pub fn check(&self, now_ns: impl FnOnce() -> u64) -> Result<(), Empty> {
        let Some(rate) = self.rate() else { return Ok(()) };
        if rate == 0 {
            return Err(Empty { frees_in_ns: None });
        }
        let end = now_ns().saturating_add(WINDOW_NS);
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        if paid_at < end {
            return Ok(());
        }
        Err(Empty {
            frees_in_ns: Some(paid_at - end + 1),
        })
    }

    /// Whether it is as full as one that was never used.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.rate().is_none() || self.paid_at.load(Ordering::Relaxed) <= now_ns
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn bucket(rate: u64) -> Bucket {
        let bucket = Bucket::default();
        bucket.set_rate(Some(rate), 0);
        bucket
    }

    proptest! {
        /// K12: from any moment on, a window gives at most rate x time + one second's worth, whatever is asked for and when.
        #[test]
        fn never_more_than_rate_and_burst(
            rate in 1_u64..5_000_000_000,
            asks in proptest::collection::vec((0_u64..400_000_000, 0_u64..3_000_000), 1..200),
        ) {
            let bucket = bucket(rate);
            let (mut now, mut given) = (7_u64, Vec::<(u64, u64)>::new());
            for (wait, amount) in asks {
                now += wait;
                let before = bucket.paid_at.load(Ordering::Relaxed);
                match bucket.take(amount, || now) {
                    Ok(()) => given.push((now, amount)),
                    Err(Empty { frees_in_ns: Some(ns) }) => {
                        // It says when: not a nanosecond earlier, and then it does.
                        prop_assert_eq!(bucket.paid_at.load(Ordering::Relaxed), before);
                        prop_assert!(ns > 0);
                        prop_assert!(bucket.take(amount, || now + ns - 1).is_err());
                    }
                    Err(Empty { frees_in_ns: None }) => prop_assert!(amount >= rate),
                }
            }
            for (n, (from, _)) in given.iter().enumerate() {
                let mut sum = 0_u128;
                for (at, amount) in &given[n..] {
                    sum += u128::from(*amount);
                    let most = u128::from(rate) * u128::from(at - from + WINDOW_NS);
                    prop_assert!(sum * u128::from(WINDOW_NS) <= most, "{sum} in {} ns at {rate}/s", at - from);
                }
            }
        }

        /// What is charged after the fact is waited for: over a long time no more than the rate, one second's worth and the last charge.
        #[test]
        fn debts_are_paid(rate in 1_000_u64..1_000_000_000, charges in proptest::collection::vec(1_u64..3_000_000, 1..100)) {
            let bucket = bucket(rate);
            let (mut now, mut sum) = (0_u64, 0_u128);
            for charge in charges {
                if let Err(Empty { frees_in_ns }) = bucket.check(|| now) {
                    now += frees_in_ns.unwrap();
                }
                prop_assert!(bucket.check(|| now).is_ok());
                let most = u128::from(rate) * u128::from(now + WINDOW_NS);
                prop_assert!(sum * u128::from(WINDOW_NS) <= most);
                bucket.charge(charge, || now);
                sum += u128::from(charge);
            }
        }
    }

    #[test]
    fn what_never_fits_says_so() {
        assert_eq!(bucket(0).take(1, || 0), Err(Empty { frees_in_ns: None }));
        assert_eq!(bucket(0).check(|| 0), Err(Empty { frees_in_ns: None }));
        assert_eq!(bucket(10).take(11, || 0), Err(Empty { frees_in_ns: None }));
        assert_eq!(Bucket::default().take(u64::MAX, || 0), Ok(()));
    }

    #[test]
    fn given_back_and_changed() {
        let bucket = bucket(10);
        bucket.take(10, || 0).unwrap();
        assert_eq!(
            bucket.take(1, || 0),
            Err(Empty {
                frees_in_ns: Some(100_000_000)
            })
        );
        bucket.give_back(1);
        bucket.take(1, || 0).unwrap();
        bucket.charge(1000, || 0);
        assert_eq!(bucket.check(|| 0).unwrap_err().frees_in_ns, Some(100_000_000_001));
        bucket.set_rate(Some(20), 0);
        assert_eq!(bucket.check(|| 0).unwrap_err().frees_in_ns, Some(1));
        assert!(!bucket.is_full(0) && bucket.is_full(WINDOW_NS));
    }

    /// K12: exact under concurrency.
    #[test]
    fn many_threads_take_what_there_is() {
        let bucket = bucket(100_000);
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..50_000).filter(|_| bucket.take(1, || 0).is_ok()).count()))
                .collect();
            takers.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 100_000);
    }
}
