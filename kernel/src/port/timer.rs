//! Timers of one actor.
//!
//! A timer is a row and an entry among the deadlines. A firing is delivered under credit: when the last one is not
//! handled yet, a period passes without another (they do not pile up).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_wire::{Principal, Topic};
use parking_lot::Mutex;

use super::tell;
use crate::authority::Permit;
use crate::bus::inbox::{Credit, Inbox};
use crate::bus::message::{Body, Ids, PortId};
use crate::deadlines::{DeadlineKey, Deadlines};

/// Timers of one actor at most.
pub const TIMERS_PER_ACTOR_MAX: usize = 64;

/// Milliseconds until a timer fires at most: 366 days. Longer waits belong to a calendar.
pub const AFTER_MS_MAX: u64 = 366 * 24 * 3600 * 1000;

/// Milliseconds of a period at least. Shorter would be polling.
pub const EVERY_MS_MIN: u64 = 10;

/// Bytes of a tag at most.
pub const TAG_BYTES_MAX: usize = 255;

/// What a timer does.
#[derive(Clone, Debug)]
pub struct TimerSpec {
    /// Until it first fires.
    pub after: Duration,
    /// From then on.
    pub every: Option<Duration>,
    /// What its owner calls it.
    pub tag: Arc<str>,
    /// Whose it is.
    pub principal: Principal,
}

#[derive(Debug)]
struct Row {
    spec: TimerSpec,
    next: DeadlineKey,
    /// A firing waits to be handled.
    fired: bool,
}

/// The timers of one actor. They end when this is dropped.
#[derive(Debug)]
pub struct Timers {
    rows: Mutex<HashMap<PortId, Row>>,
    inbox: Arc<Inbox>,
    deadlines: Arc<Deadlines>,
    ids: Arc<Ids>,
    fired: Topic,
}

struct Handled {
    timers: std::sync::Weak<Timers>,
    id: PortId,
}

impl Credit for Handled {}

impl Drop for Handled {
    fn drop(&mut self) {
        let Some(timers) = self.timers.upgrade() else { return };
        let mut rows = timers.rows.lock();
        if let Some(row) = rows.get_mut(&self.id) {
            row.fired = false;
            if row.spec.every.is_none() {
                rows.remove(&self.id);
            }
        }
    }
}

impl Timers {
    /// None yet. `fired` is the topic that its owner hears.
    pub fn new(inbox: Arc<Inbox>, deadlines: Arc<Deadlines>, ids: Arc<Ids>, fired: Topic) -> Arc<Self> {
        Arc::new(Self {
            rows: Mutex::default(),
            inbox,
            deadlines,
            ids,
            fired,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this actor has that timer.
    pub fn has(&self, id: PortId) -> bool {
        self.rows.lock().contains_key(&id)
    }

    /// All of them, with their tags.
    pub fn all(&self) -> Vec<(PortId, Arc<str>)> {
        let rows = self.rows.lock();
        rows.iter().map(|(id, row)| (*id, Arc::clone(&row.spec.tag))).collect()
    }

    /// Starts a timer.
    pub fn set(self: &Arc<Self>, permit: Permit<PortId>, spec: TimerSpec) {
        let id = permit.into_object();
        let mut rows = self.rows.lock();
        let next = self.arm(id, self.deadlines.now() + spec.after);
        rows.insert(
            id,
            Row {
                spec,
                next,
                fired: false,
            },
        );
    }

    fn arm(self: &Arc<Self>, id: PortId, at: Instant) -> DeadlineKey {
        let timers = Arc::downgrade(self);
        self.deadlines.at(at, move || {
            if let Some(timers) = timers.upgrade() {
                timers.fire(id, at);
            }
        })
    }

    fn fire(self: &Arc<Self>, id: PortId, at: Instant) {
        let mut rows = self.rows.lock();
        let Some(row) = rows.get_mut(&id) else { return };
        if let Some(every) = row.spec.every {
            // From the instant it was due, so that it does not drift; from now, when it is more than a period late.
            let next = (at + every).max(self.deadlines.now());
            row.next = self.arm(id, next);
        }
        if std::mem::replace(&mut row.fired, true) {
            return;
        }
        let (tag, principal) = (Body::text(row.spec.tag.to_string()), row.spec.principal.clone());
        drop(rows);
        let credit = Box::new(Handled {
            timers: Arc::downgrade(self),
            id,
        });
        tell(&self.inbox, &self.ids, id, &self.fired, principal, tag, Some(credit));
    }

    /// Ends a timer.
    pub fn cancel(&self, permit: Permit<PortId>) {
        if let Some(row) = self.rows.lock().remove(permit.object()) {
            self.deadlines.cancel(row.next);
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        for row in self.rows.get_mut().values() {
            self.deadlines.cancel(row.next);
        }
    }
}
