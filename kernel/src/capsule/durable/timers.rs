//! Timers that outlive the instance, an eviction and the daemon.
//!
//! Here because their owner may not be there: one that fires activates its owner. While a daemon runs they keep to the monotonic
//! clock; over a restart the wall clock says what is due, so a clock that was set meanwhile moves them by as much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use astrid_wire::{Principal, Topic};
use parking_lot::Mutex;
use prost::Message as _;

use super::directory::{Directory, Owner};
use super::record::{self, TimerRecord, number_key};
use crate::bus::inbox::Kept;
use crate::bus::message::{Body, Ids, Kind, Message, PortId, Source};
use crate::deadlines::{DeadlineKey, Deadlines};
use crate::port::timer::TimerSpec;
use crate::store::Store;
use crate::store::engine::{EngineError, Write};
use crate::store::table;

#[derive(Debug)]
struct Row {
    owner: Owner,
    tag: Arc<str>,
    principal: Principal,
    every: Option<Duration>,
    due: Instant,
    due_ms: u64,
    next: Option<DeadlineKey>,
    /// A firing waits to be handled.
    fired: bool,
}

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<PortId, Row>,
    owners: HashMap<Owner, BTreeSet<PortId>, ahash::RandomState>,
}

/// All durable timers.
#[derive(Debug)]
pub struct DurableTimers {
    state: Mutex<State>,
    directory: Arc<Directory>,
    deadlines: Arc<Deadlines>,
    ids: Arc<Ids>,
    fired: Topic,
    me: Weak<Self>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The row of a timer that was set now.
pub fn set_row(owner: &Owner, id: PortId, spec: &TimerSpec, now_ms: u64) -> Write {
    let record = TimerRecord {
        due_ms: now_ms.saturating_add(ms(spec.after)),
        every_ms: spec.every.map_or(0, ms),
        tag: spec.tag.to_string(),
        principal: spec.principal.as_str().to_owned(),
    };
    Write::put(owner.table(table::Kind::Timer), number_key(id), record.encode_to_vec())
}

/// Removes the row of a timer.
pub fn cancel_row(owner: &Owner, id: PortId) -> Write {
    Write::delete(owner.table(table::Kind::Timer), number_key(id))
}

impl DurableTimers {
    /// None yet.
    pub fn new(directory: Arc<Directory>, deadlines: Arc<Deadlines>, ids: Arc<Ids>, fired: Topic) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            state: Mutex::default(),
            directory,
            deadlines,
            ids,
            fired,
            me: me.clone(),
        })
    }

    /// Reads all of them from the store, in place of what was here. The first port number that none of them has, and what could
    /// not be read.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(&self, store: &Store, now_ms: u64) -> Result<(PortId, u32), EngineError> {
        let mut state = self.state.lock();
        for row in std::mem::take(&mut *state).rows.into_values() {
            row.next.map(|next| self.deadlines.cancel(next));
        }
        let (mut free, mut unreadable) = (1, 0);
        for table in store.engine()?.tables(table::Kind::Timer)? {
            let Some(owner) = Owner::of(&table) else { continue };
            store
                .engine()?
                .snapshot(&table)?
                .scan(crate::store::engine::Span::ALL, &mut |key, value| {
                    let read = record::read_number_key(key).ok().zip(TimerRecord::decode(value).ok());
                    let read = read.and_then(|(id, r)| Some((id, record::principal(&r.principal).ok()?, r)));
                    let Some((id, principal, record)) = read else {
                        unreadable += 1;
                        return true;
                    };
                    free = free.max(id + 1);
                    let left = Duration::from_millis(record.due_ms.saturating_sub(now_ms));
                    let row = Row {
                        owner: owner.clone(),
                        tag: record.tag.into(),
                        principal,
                        every: (record.every_ms > 0).then(|| Duration::from_millis(record.every_ms)),
                        due: self.deadlines.now() + left,
                        due_ms: record.due_ms,
                        next: None,
                        fired: false,
                    };
                    self.insert(&mut state, id, row);
                    true
                })?;
        }
        Ok((free, unreadable))
    }

    /// Lets what is in the table fire from now on: its owners are there.
    pub fn arm_all(&self) {
        let mut state = self.state.lock();
        for (id, row) in &mut state.rows {
            if row.next.is_none() && !row.fired {
                row.next = Some(self.arm(*id, row.due));
            }
        }
    }

    fn insert(&self, state: &mut State, id: PortId, row: Row) {
        state.owners.entry(row.owner.clone()).or_default().insert(id);
        state.rows.insert(id, row);
    }

    fn arm(&self, id: PortId, at: Instant) -> DeadlineKey {
        let timers = self.me.clone();
        self.deadlines.at(at, move || {
            if let Some(timers) = timers.upgrade() {
                timers.fire(id);
            }
        })
    }

    /// Takes a timer whose row is sequenced: it can be seen and cancelled, and fires once it was started.
    pub fn set(&self, owner: &Owner, id: PortId, spec: &TimerSpec, now_ms: u64) {
        let due = self.deadlines.now() + spec.after;
        let mut state = self.state.lock();
        let row = Row {
            owner: owner.clone(),
            tag: Arc::clone(&spec.tag),
            principal: spec.principal.clone(),
            every: spec.every,
            due,
            due_ms: now_ms.saturating_add(ms(spec.after)),
            next: None,
            fired: false,
        };
        self.insert(&mut state, id, row);
    }

    /// Lets a timer fire whose row is on disk.
    pub fn start(&self, id: PortId) {
        let mut state = self.state.lock();
        if let Some(row) = state.rows.get_mut(&id)
            && row.next.is_none()
            && !row.fired
        {
            row.next = Some(self.arm(id, row.due));
        }
    }

    fn fire(&self, id: PortId) {
        let mut state = self.state.lock();
        let Some(row) = state.rows.get_mut(&id) else { return };
        row.next = None;
        row.fired = true;
        let message = Message {
            id: self.ids.message(),
            kind: Kind::Event,
            topic: self.fired.clone(),
            principal: row.principal.clone(),
            source: Source::Port(id),
            body: Body::text(row.tag.to_string()),
            deadline: None,
            public: false,
        };
        let owner = row.owner.clone();
        drop(state);
        let told = self
            .directory
            .actor(&owner)
            .is_some_and(|actor| actor.inbox().push_kept(Arc::new(message), Kept::Timer(id)));
        if !told {
            // Its capsule does not run: the timer waits in the store for a daemon in which it does.
            tracing::warn!(capsule = %owner.capsule, timer = id, "a durable timer fires, and its owner does not run");
        }
    }

    /// What was one owner's is another's, on disk as well.
    pub fn inherit(&self, from: &Owner, to: &Owner) {
        let mut state = self.state.lock();
        for id in state.owners.remove(from).unwrap_or_default() {
            if let Some(row) = state.rows.get_mut(&id) {
                row.owner = to.clone();
                state.owners.entry(to.clone()).or_default().insert(id);
            }
        }
    }

    /// What was an owner's is nobody's: its rows are gone.
    pub fn forget(&self, owner: &Owner) {
        for (id, _) in self.of(owner) {
            self.cancel(id);
        }
    }

    /// Whether there is that timer.
    pub fn has(&self, id: PortId) -> bool {
        self.state.lock().rows.contains_key(&id)
    }

    /// Whether it is that owner's.
    pub fn is_of(&self, id: PortId, owner: &Owner) -> bool {
        self.state.lock().rows.get(&id).is_some_and(|row| row.owner == *owner)
    }

    /// The timers of an owner, with their tags.
    pub fn of(&self, owner: &Owner) -> Vec<(PortId, Arc<str>)> {
        let state = self.state.lock();
        let ids = state.owners.get(owner).into_iter().flatten();
        ids.filter_map(|id| Some((*id, Arc::clone(&state.rows.get(id)?.tag))))
            .collect()
    }

    /// How many an owner has.
    pub fn count_of(&self, owner: &Owner) -> usize {
        self.state.lock().owners.get(owner).map_or(0, BTreeSet::len)
    }

    /// What the commit of a firing's handling changes: the row goes, or has its next time.
    pub fn handled_row(&self, id: PortId, now_ms: u64) -> Option<Write> {
        let state = self.state.lock();
        let row = state.rows.get(&id)?;
        let table = row.owner.table(table::Kind::Timer);
        Some(match row.every {
            None => Write::delete(table, number_key(id)),
            Some(every) => {
                let record = TimerRecord {
                    due_ms: (row.due_ms + ms(every)).max(now_ms),
                    every_ms: ms(every),
                    tag: row.tag.to_string(),
                    principal: row.principal.as_str().to_owned(),
                };
                Write::put(table, number_key(id), record.encode_to_vec())
            }
        })
    }

    /// A firing was handled: the timer goes, or waits for its next time.
    pub fn handled(&self, id: PortId, now_ms: u64) {
        let mut state = self.state.lock();
        let Some(row) = state.rows.get_mut(&id) else { return };
        let Some(every) = row.every else {
            self.remove(&mut state, id);
            return;
        };
        row.fired = false;
        // From the instant it was due, so that it does not drift; from now, when it is more than a period late.
        row.due = (row.due + every).max(self.deadlines.now());
        row.due_ms = (row.due_ms + ms(every)).max(now_ms);
        row.next = Some(self.arm(id, row.due));
    }

    fn remove(&self, state: &mut State, id: PortId) {
        let Some(row) = state.rows.remove(&id) else { return };
        row.next.map(|next| self.deadlines.cancel(next));
        if let Some(ids) = state.owners.get_mut(&row.owner) {
            ids.remove(&id);
            if ids.is_empty() {
                state.owners.remove(&row.owner);
            }
        }
    }

    /// Ends a timer whose row is gone.
    pub fn cancel(&self, id: PortId) {
        self.remove(&mut self.state.lock(), id);
    }
}
