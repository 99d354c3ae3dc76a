//! How much of something is held now, and how much there ever was at once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::bucket::UNLIMITED;

/// A count that goes up and down, with an upper limit.
#[derive(Debug)]
pub struct Gauge {
    now: AtomicU64,
    peak: AtomicU64,
    max: AtomicU64,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            now: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            max: AtomicU64::new(UNLIMITED),
        }
    }
}

impl Gauge {
    /// Held now.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most that was held at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// The limit, if there is one.
    pub fn max(&self) -> Option<u64> {
        let max = self.max.load(Ordering::Relaxed);
        (max != UNLIMITED).then_some(max)
    }

    /// Changes the limit. What is held stays held.
    pub fn set_max(&self, max: Option<u64>) {
        self.max.store(max.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// Takes so much, or nothing.
    ///
    /// # Errors
    /// The limit.
    pub fn take(&self, amount: u64) -> Result<(), u64> {
        let Some(max) = self.max() else {
            self.force(amount);
            return Ok(());
        };
        let more = |now: u64| now.checked_add(amount).filter(|next| *next <= max);
        let before = self
            .now
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| max)?;
        self.raise(before + amount);
        Ok(())
    }

    /// Takes so much, whatever the limit says: it is held already.
    pub fn force(&self, amount: u64) {
        let before = self.now.fetch_add(amount, Ordering::Relaxed);
        self.raise(before.saturating_add(amount));
    }

    fn raise(&self, now: u64) {
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Gives so much back.
    pub fn give_back(&self, amount: u64) {
        let less = |now: u64| Some(now.saturating_sub(amount));
        // It always has a next value.
        self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// K12, K15: exact under concurrency, never over the limit, and everything comes back.
    #[test]
    fn many_threads_hold_no_more_than_there_is() {
        let gauge = Gauge::default();
        gauge.set_max(Some(5));
        let refused: u32 = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let mut refused = 0;
                        for _ in 0..20_000 {
                            if gauge.take(1).is_err() {
                                refused += 1;
                            } else {
                                assert!(gauge.now() <= 5);
                                gauge.give_back(1);
                            }
                        }
                        refused
                    })
                })
                .collect();
            takers.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(gauge.now(), 0);
        assert!(gauge.peak() <= 5 && gauge.peak() >= 1);
        gauge.set_max(Some(0));
        assert_eq!(gauge.take(1), Err(0), "{refused} were refused before");
    }
}
