//! Which actors have an instance, and which of those must give theirs up.
//!
//! An instance costs memory maps, of which a process has about 65,000, so there is a limit on live ones: the least recently
//! used gives way, and whoever comes waits for its place. And an actor that was idle for as long as its manifest says is evicted. Both only ask: the actor ends
//! itself when it sees that it is still idle, so nothing is taken from under a message.

use std::collections::{HashMap, HashSet};
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
    state: Mutex<State>,
    max: usize,
    joined: Notify,
    /// Told, one waiting actor at a time, that it may look again.
    room: Notify,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    live: HashMap<usize, Weak<Actor>, ahash::RandomState>,
    /// Those that were asked to make room, and have neither gone nor been given something to do.
    leaving: HashSet<usize, ahash::RandomState>,
    /// So many may enter beyond the limit before it is worth asking again: nobody could leave.
    grace: usize,
}

/// What became of an attempt to enter.
enum Entry {
    /// It is in.
    In,
    /// Others were asked to leave, or are about to.
    Wait,
}

fn key(actor: &Arc<Actor>) -> usize {
    Arc::as_ptr(actor) as usize
}

impl Census {
    /// Nobody yet; this many at most.
    pub fn new(max: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            max: max.max(1),
            joined: Notify::new(),
            room: Notify::new(),
            metrics,
        }
    }

    /// An actor is about to get an instance. Waits while the house is full and somebody is on the way out; where nobody could leave,
    /// the limit gives way. O(1) but for one search of all in [`EVICT_PART`] of the limit.
    pub async fn enter(&self, actor: &Arc<Actor>) {
        while let Entry::Wait = self.try_enter(actor) {
            self.room.notified().await;
        }
    }

    fn try_enter(&self, actor: &Arc<Actor>) -> Entry {
        let mut victims = Vec::new();
        let mut state = self.state.lock();
        if !state.live.contains_key(&key(actor)) && state.live.len() >= self.max && state.grace == 0 {
            if state.leaving.is_empty() {
                victims = self.longest_idle(&state);
                state.leaving.extend(victims.iter().map(key));
            }
            if !state.leaving.is_empty() {
                drop(state);
                for victim in victims {
                    self.metrics.actors_evicted.increment();
                    victim.evict();
                }
                return Entry::Wait;
            }
            state.grace = self.part();
        }
        let first = state.live.is_empty();
        if state.live.insert(key(actor), Arc::downgrade(actor)).is_none() {
            self.metrics.actors_live.increment();
            if state.live.len() > self.max {
                state.grace = state.grace.saturating_sub(1);
            }
        }
        // Of those that wait, one is told at a time: there is room, or somebody must ask for it.
        let more = state.live.len() < self.max || state.leaving.is_empty();
        drop(state);
        if more {
            self.room.notify_one();
        }
        if first {
            self.joined.notify_one();
        }
        Entry::In
    }

    /// How many are asked to leave at once.
    fn part(&self) -> usize {
        (self.max / EVICT_PART).max(1)
    }

    /// Those that have done nothing for longest, among those that could go. O(live).
    fn longest_idle(&self, state: &State) -> Vec<Arc<Actor>> {
        let live = state.live.values().filter_map(Weak::upgrade);
        let evictable = live.filter(|actor| actor.capsule().idle().is_some());
        let mut idle: Vec<(u64, Arc<Actor>)> = evictable
            .filter_map(|actor| Some((actor.could_leave_since()?, actor)))
            .collect();
        let part = self.part();
        if idle.len() > part {
            idle.select_nth_unstable_by_key(part, |(since, _)| *since);
            idle.truncate(part);
        }
        idle.into_iter().map(|(_, actor)| actor).collect()
    }

    /// An actor that was asked to leave has something to do, and stays.
    pub fn stays(&self, actor: &Arc<Actor>) {
        let mut state = self.state.lock();
        let last = state.leaving.remove(&key(actor)) && state.leaving.is_empty();
        drop(state);
        if last {
            self.room.notify_one();
        }
    }

    /// An actor has no instance any more, and will have none.
    pub fn left(&self, actor: &Arc<Actor>) {
        let mut state = self.state.lock();
        let was_in = state.live.remove(&key(actor)).is_some();
        state.leaving.remove(&key(actor));
        drop(state);
        if was_in {
            self.metrics.actors_live.decrement();
            self.room.notify_one();
        }
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.state.lock().live.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts what is idle for long, as of that instant of the daemon's life. Returns whether anybody could be, later.
    fn sweep(&self, now_ms: u64) -> bool {
        let live: Vec<Arc<Actor>> = self.state.lock().live.values().filter_map(Weak::upgrade).collect();
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
