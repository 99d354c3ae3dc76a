//! The epoch: what makes a running guest yield.
//!
//! A thread advances the engine's epoch once a millisecond, and every running guest yields at the next back edge or call.
//! When no guest has run for 100 ms the thread parks, and the next one that runs unparks it, so an idle daemon
//! has no ticker (K19). A shard announces each turn with [`Ticker::running`]: one increment and one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// One epoch: how long a guest runs before others get their turn.
pub const TICK: Duration = Duration::from_millis(1);

/// Ticks without any guest before the thread parks: long enough not to park between two bursts of one conversation.
const IDLE_TICKS_MAX: u32 = 100;

#[derive(Debug, Default)]
struct Shared {
    turns: AtomicU64,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Owns the thread; ends it when dropped.
#[derive(Debug)]
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's, when it has no thread to give.
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (mine, engine) = (Arc::clone(&shared), engine.clone());
        let join = std::thread::Builder::new()
            .name("epoch".into())
            .spawn(move || mine.tick(&engine))?;
        Ok(Self {
            shared,
            thread: join.thread().clone(),
            join: Some(join),
        })
    }

    /// One without a thread: no guest yields, but where whoever drives the engine by hand moves its epoch.
    pub fn still() -> Self {
        Self {
            shared: Arc::default(),
            thread: std::thread::current(),
            join: None,
        }
    }

    /// A guest is about to run.
    pub fn running(&self) {
        // Sequentially consistent with `park`: either this sees the thread parked, or the thread sees this turn.
        self.shared.turns.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) && self.shared.parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("the epoch thread panicked");
        }
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let (mut seen, mut idle) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            // A timeout, not a wait for work: `unpark` only shortens it.
            std::thread::park_timeout(TICK);
            engine.increment_epoch();
            let turns = self.turns.load(Ordering::SeqCst);
            idle = if turns == seen { idle + 1 } else { 0 };
            seen = turns;
            if idle >= IDLE_TICKS_MAX {
                self.park(seen);
                idle = 0;
            }
        }
    }

    fn park(&self, seen: u64) {
        self.parked.store(true, Ordering::SeqCst);
        if self.turns.load(Ordering::SeqCst) != seen {
            self.parked.store(false, Ordering::SeqCst);
            return;
        }
        while self.parked.load(Ordering::SeqCst) && !self.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }
}
