//! What time it is: one place to ask, so that a simulation can say.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A clock: the machine's, or one that stands still until it is moved.
#[derive(Debug, Default)]
pub struct Clock(Option<Mutex<Paused>>);

#[derive(Debug)]
struct Paused {
    now: Instant,
    wall: Duration,
}

impl Clock {
    /// The machine's.
    pub const fn real() -> Self {
        Self(None)
    }

    /// One that stands still, at this time since 1970.
    pub fn paused(wall: Duration) -> Self {
        Self(Some(Mutex::new(Paused {
            now: Instant::now(),
            wall,
        })))
    }

    /// Now, on the monotonic clock.
    pub fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |paused| paused.lock().now)
    }

    /// Milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        let wall = match &self.0 {
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            Some(paused) => paused.lock().wall,
        };
        u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// Moves a clock that stands still; the machine's is not moved.
    pub fn advance(&self, by: Duration) {
        if let Some(paused) = &self.0 {
            let mut paused = paused.lock();
            paused.now += by;
            paused.wall += by;
        }
    }
}
