//! How an actor that fails comes back (K6).
//!
//! Pure: it is told of faults and says what follows. A fault ends the generation; the next one starts after 2 s, then 4, 8 ... up
//! to 2 min; after five restarts without a healthy minute in between the actor stays down.

use std::time::{Duration, Instant};

/// Wait before the first restart.
pub const BACKOFF_MIN: Duration = Duration::from_secs(2);

/// Wait before any restart at most.
pub const BACKOFF_MAX: Duration = Duration::from_secs(120);

/// Restarts without a healthy time in between, at most.
pub const RESTARTS_MAX: u32 = 5;

/// How long a generation has to go without a fault for earlier ones to be forgotten.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest trapped: a panic, an access out of bounds, a broken ABI.
    Trap,
    /// It used up its fuel.
    Fuel,
    /// It asked for more memory than it may have.
    Memory,
    /// It ran, or waited for the host, longer than it may.
    Time,
    /// It could not be instantiated.
    Start,
}

impl Fault {
    /// The word for it in health messages, metrics and problem codes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Memory => "memory",
            Self::Time => "time",
            Self::Start => "start",
        }
    }
}

/// What follows a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A new generation, after this long.
    Restart(Duration),
    /// Nothing: it stays down.
    Down,
}

/// An actor's record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Health {
    restarts: u32,
    /// When the last fault was.
    last: Option<Instant>,
}

impl Health {
    /// A fault that counts.
    pub fn fault(&mut self, now: Instant) -> Next {
        let wait = |restarts: u32| BACKOFF_MIN.saturating_mul(1 << restarts.min(16)).min(BACKOFF_MAX);
        if let Some(last) = self.last {
            // The time it spent waiting for its restart was not healthy.
            let waited = wait(self.restarts.saturating_sub(1));
            if now.saturating_duration_since(last) >= HEALTHY_AFTER + waited {
                self.restarts = 0;
            }
        }
        self.last = Some(now);
        if self.restarts >= RESTARTS_MAX {
            return Next::Down;
        }
        let next = Next::Restart(wait(self.restarts));
        self.restarts += 1;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// K6: 2 s doubling to 2 min, 5 attempts, then down.
    #[test]
    fn backs_off_and_gives_up() {
        let (mut health, now) = (Health::default(), Instant::now());
        let waits: Vec<Next> = (0..7).map(|_| health.fault(now)).collect();
        let secs = |s| Next::Restart(Duration::from_secs(s));
        assert_eq!(
            waits,
            [secs(2), secs(4), secs(8), secs(16), secs(32), Next::Down, Next::Down]
        );
    }

    /// K6: 60 s healthy resets; the wait itself is not healthy time.
    #[test]
    fn a_healthy_minute_resets() {
        let (mut health, start) = (Health::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(health.fault(at(0)), Next::Restart(Duration::from_secs(2)));
        assert_eq!(
            health.fault(at(61)),
            Next::Restart(Duration::from_secs(4)),
            "only 59 s since the restart"
        );
        assert_eq!(health.fault(at(61 + 64)), Next::Restart(Duration::from_secs(2)));
    }
}
