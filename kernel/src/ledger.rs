//! What was used, by capsule and by principal (K12's measure; its limits come with quotas).
//!
//! Counters are added to with relaxed atomics at the end of each handling: exact under concurrency, no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use astrid_wire::Principal;
use dashmap::DashMap;

/// What somebody used since the daemon started.
#[derive(Debug, Default)]
pub struct Usage {
    /// Messages handled and committed.
    pub handled: AtomicU64,
    /// Fuel, whatever became of the handling.
    pub fuel: AtomicU64,
    /// Generations that ended in a fault.
    pub faults: AtomicU64,
    /// Generations started.
    pub generations: AtomicU64,
    /// Largest memory of one instance, in bytes.
    pub memory_peak: AtomicU64,
}

impl Usage {
    /// Adds the end of one handling.
    pub fn add(&self, fuel: u64, memory: usize, committed: bool) {
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.handled.fetch_add(u64::from(committed), Ordering::Relaxed);
        let memory = memory as u64;
        if memory > self.memory_peak.load(Ordering::Relaxed) {
            self.memory_peak.fetch_max(memory, Ordering::Relaxed);
        }
    }
}

/// Usage by principal. Rows of principals stay: usage is what they are asked about afterwards.
#[derive(Debug, Default)]
pub struct Ledger {
    principals: DashMap<Principal, Arc<Usage>, ahash::RandomState>,
}

impl Ledger {
    /// A principal's row, made when it is first needed.
    pub fn principal(&self, principal: &Principal) -> Arc<Usage> {
        if let Some(usage) = self.principals.get(principal) {
            return Arc::clone(&usage);
        }
        Arc::clone(&self.principals.entry(principal.clone()).or_default())
    }

    /// All fuel used.
    pub fn fuel(&self) -> u64 {
        self.principals.iter().map(|row| row.fuel.load(Ordering::Relaxed)).sum()
    }
}
