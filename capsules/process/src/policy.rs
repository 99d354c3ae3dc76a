//! How an instance is kept running: the values of a definition that its machine goes by.

use astrid_sdk::child::Signal;

use crate::definition::{Growth, Restart};

/// How an instance is kept running. Times in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// What is waited before that.
    pub backoff: Backoff,
    /// Restarts within the window, after which the circuit opens.
    pub max_restarts: u32,
    /// The window.
    pub window_ms: u64,
    /// Who ran this long begins with a clean record.
    pub min_uptime_ms: u64,
    /// When health is checked, if it is.
    pub checks: Option<Cadence>,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// What it may take then.
    pub stop_timeout_ms: u64,
    /// Whether something is run before.
    pub before_stop: bool,
}

/// What is waited before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// How waits grow.
    pub growth: Growth,
    /// The first.
    pub base_ms: u64,
    /// By what they grow exponentially.
    pub factor: u32,
    /// The longest.
    pub cap_ms: u64,
    /// Whether each is between half of it and all of it.
    pub jitter: bool,
}

impl Backoff {
    /// No wait is longer.
    pub fn longest_ms(&self) -> u64 {
        self.base_ms.max(self.cap_ms)
    }

    /// The wait before this restart in a row, counted from 0.
    pub fn delay_ms(&self, attempt: u32, chance: u64) -> u64 {
        let full = match self.growth {
            Growth::Fixed => self.base_ms,
            Growth::Linear => self.base_ms.saturating_mul(u64::from(attempt) + 1).min(self.cap_ms),
            Growth::Exponential => {
                let grown = u64::from(self.factor).checked_pow(attempt).unwrap_or(u64::MAX);
                self.base_ms.saturating_mul(grown).min(self.cap_ms)
            }
        };
        if self.jitter && full > 1 {
            full / 2 + chance % (full - full / 2 + 1)
        } else {
            full
        }
    }
}

/// When health is checked, and what is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Between two checks.
    pub interval_ms: u64,
    /// What a check may take.
    pub timeout_ms: u64,
    /// Failures in a row that mean that it does not work.
    pub unhealthy_after: u32,
    /// Successes in a row that mean that it works.
    pub healthy_after: u32,
    /// For this long after a start failures do not count.
    pub start_period_ms: u64,
}
