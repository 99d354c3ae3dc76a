//! Which actors have an instance, and which of those must give theirs up.
//!
//! An instance costs memory maps, of which a process has about 65,000, so there is a limit on live ones: the least recently
//! used gives way. And an actor that was idle for as long as its manifest says is evicted. Both only ask: the actor ends
//! itself when it sees that it is still idle, so nothing is taken from under a message.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::actor::Actor;
use crate::metrics::Metrics;

/// How often idle actors are looked for, while there are any that could be evicted. None means no wake-up at all (K19).
const SWEEP: Duration = Duration::from_secs(30);

/// The part of the live actors that gives way at once when the limit is reached, so that the search is amortised.
const EVICT_PART: usize = 16;

/// Live actors.
#[derive(Debug)]
pub struct Census {
    live: Mutex<HashMap<usize, Weak<Actor>, ahash::RandomState>>,
    max: usize,
    joined: Notify,
    metrics: Arc<Metrics>,
}

fn key(actor: &Arc<Actor>) -> usize {
    Arc::as_ptr(actor) as usize
}

impl Census {
    /// Nobody yet; this many at most.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            live: Mutex::default(),
            max: max.max(1),
            joined: Notify::new(),
            metrics,
        }
    }

    /// An actor gets an instance.
    pub fn joined(&self, actor: &Arc<Actor>) {
        let mut live = self.live.lock();
        let crowded = live.len() >= self.max;
        let first = live.is_empty();
        if live.insert(key(actor), Arc::downgrade(actor)).is_none() {
            self.metrics.actors_live.increment();
        }
        let candidates = if crowded {
            live.values().filter_map(Weak::upgrade).collect()
        } else {
            Vec::new()
        };
        drop(live);
        if first {
            self.joined.notify_one();
        }
        if crowded {
            self.make_room(candidates);
        }
    }

    fn make_room(&self, candidates: Vec<Arc<Actor>>) {
        let mut idle: Vec<(u64, Arc<Actor>)> = candidates
            .into_iter()
            .filter(|a| a.capsule().idle().is_some())
            .filter_map(|a| a.idle_since().map(|since| (since, a)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        for (_, actor) in idle.into_iter().take((self.max / EVICT_PART).max(1)) {
            self.metrics.actors_evicted.increment();
            actor.evict();
        }
    }

    /// An actor has no instance any more.
    pub fn left(&self, actor: &Arc<Actor>) {
        if self.live.lock().remove(&key(actor)).is_some() {
            self.metrics.actors_live.decrement();
        }
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.live.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts what is idle for long, as of that instant of the daemon's life. Returns whether anybody could be, later.
    fn sweep(&self, now_ms: u64) -> bool {
        let live: Vec<Arc<Actor>> = self.live.lock().values().filter_map(Weak::upgrade).collect();
        let mut could_be = false;
        for actor in live {
            let Some(limit) = actor.capsule().idle() else { continue };
            could_be = true;
            if let Some(since) = actor.idle_since()
                && u128::from(now_ms.saturating_sub(since)) >= limit.as_millis()
            {
                self.metrics.actors_evicted.increment();
                actor.evict();
            }
        }
        could_be
    }

    /// Sweeps for as long as the future of this lives. `uptime_ms` is the clock of [`Actor::idle_since`].
    pub async fn run(self: Arc<Self>, uptime_ms: impl Fn() -> u64) {
        loop {
            self.joined.notified().await;
            loop {
                tokio::time::sleep(SWEEP).await;
                if !self.sweep(uptime_ms()) {
                    break;
                }
            }
        }
    }
}
