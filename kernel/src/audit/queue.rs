//! What waits to be written, between everybody and the one thread that writes.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};
use zeroize::Zeroizing;

use super::entry::{Entry, Kind, Outcome};
use super::writer::wall_ms;
use crate::metrics::Metrics;

/// Entries that wait at most: some 40 MiB of the largest. More are refused, and with them what they were to allow.
pub const QUEUE_MAX: usize = 16 << 10;

/// Entries that make room, and wait beside those at most.
const MAKES_ROOM_MAX: usize = 64;

/// How long an entry that nobody waits for may stay in memory: with the wait for the disk less than the 50 ms of the contract (K13).
const WRITTEN_AFTER: Duration = Duration::from_millis(35);

/// How long routine repeats are counted before they are one entry.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Rows of what was allowed at most, in one window: about 120 bytes each.
const ALLOWED_MAX: usize = 16 << 10;

/// Different things that are counted in one window at most; beyond that each has one row for the rest of its own.
pub const COUNTED_MAX: usize = 4096;

/// Of those, of one principal: nobody fills the rows of others.
pub const COUNTED_OF_ONE_MAX: u32 = 64;

/// Refusals of one principal that are told in full in one window at most; further ones are counted.
pub const FULL_OF_ONE_MAX: u32 = 16;

/// Whose rows are told apart in one window at most.
const OWNERS_MAX: usize = 4096;

/// Orders that wait at most: they come from operators and the end of the daemon.
const ORDERS_MAX: usize = 64;

/// Between the parts of what is counted: in no harmless text.
const BETWEEN: char = '\0';

/// Why the disk does not take entries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No room.
    #[error("no space is left on its disk")]
    Full,
    /// Nothing may be written.
    #[error("its directory cannot be written")]
    ReadOnly,
    /// The files that are written are not there any more.
    #[error("its files are gone, or others are in their place")]
    Gone,
    /// Anything else.
    #[error("{0}")]
    Other(Arc<str>),
}

impl Reason {
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => Self::Full,
            ReadOnlyFilesystem | PermissionDenied => Self::ReadOnly,
            NotFound => Self::Gone,
            _ => Self::Other(error.to_string().into()),
        }
    }

    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full => "make room on the disk of var/audit; it goes on by itself",
            Self::ReadOnly => "make var/audit writable; it goes on by itself",
            Self::Gone => "put var/audit back as it was; without it the next daemon begins a log anew",
            Self::Other(_) => "look at the disk of var/audit; it goes on by itself",
        }
    }
}

/// What is not recorded must not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The disk does not take it.
    #[error("it cannot be recorded in the audit log: {0}")]
    Failing(Reason),
    /// More comes than the disk takes.
    #[error("it cannot be recorded in the audit log: {QUEUE_MAX} entries wait for the disk")]
    Busy,
    /// The daemon ends.
    #[error("it cannot be recorded in the audit log: it is closed")]
    Closed,
}

/// An entry on its way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) entry: Entry,
    pub(super) wall_ms: u64,
    /// Who waits until it is sealed.
    pub(super) answer: Option<oneshot::Sender<Result<u64, Refused>>>,
}

impl Pending {
    pub(super) fn now(entry: Entry) -> Self {
        Self {
            entry,
            wall_ms: wall_ms(),
            answer: None,
        }
    }
}

/// An entry that is not taken: why, and who is to be told.
pub(super) type Unpushed = (Refused, Option<oneshot::Sender<Result<u64, Refused>>>);

/// What is wanted of the writer beside entries, once those before it are written.
#[derive(Debug)]
pub(super) enum Order {
    /// Only that. Answered with what it fails for.
    Flush(oneshot::Sender<Option<Reason>>),
    /// Segments from before a time in milliseconds since 1970 are removed.
    Prune(u64, oneshot::Sender<Result<u64, Refused>>),
    /// Another key.
    Rotate(Zeroizing<[u8; 32]>, oneshot::Sender<Result<(), Refused>>),
    /// It ends.
    Stop(oneshot::Sender<()>),
}

/// What is counted together.
#[derive(Debug)]
struct Row {
    outcome: Outcome,
    count: u64,
}

/// What one has used of this window.
#[derive(Debug, Default)]
struct Owner {
    rows: u32,
    full: u32,
}

/// Something to count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Countable<'a> {
    /// Whose rows these are.
    pub(super) owner: &'a str,
    /// Principal, capsule, action and rule.
    pub(super) parts: [&'a str; 4],
    pub(super) outcome: Outcome,
    /// The first is told in full, if there is room for that, and counted nowhere.
    pub(super) in_full: bool,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) pending: Vec<Pending>,
    /// Somebody waits for what is in it, or it is full.
    pub(super) urgent: bool,
    /// When the first of those came for whom nobody waits.
    pub(super) written_since: Option<Instant>,
    pub(super) orders: Vec<Order>,
    counted: HashMap<Box<str>, Row, ahash::RandomState>,
    owners: HashMap<Box<str>, Owner, ahash::RandomState>,
    /// How often what was allowed was done, by principal, capsule and action.
    allowed: HashMap<Box<str>, u64, ahash::RandomState>,
    /// When the window began.
    counted_since: Option<Instant>,
    failing: Option<(Reason, Instant)>,
    /// Refused since it fails.
    refused: u64,
    closed: bool,
    /// For a key that is looked up.
    key: String,
}

impl Queue {
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent || !self.orders.is_empty()
    }

    /// When something must be written although nobody waits for it.
    pub(super) fn due(&self, try_again_after: Duration) -> Option<Instant> {
        let written = match &self.failing {
            Some((_, since)) if !self.pending.is_empty() => Some(*since + try_again_after),
            _ => self.written_since.map(|since| since + WRITTEN_AFTER),
        };
        let counted = self.counted_since.map(|since| since + WINDOW);
        [written, counted].into_iter().flatten().min()
    }

    /// All of it. Bounded, as what waits is.
    pub(super) fn take(&mut self, now: Instant) -> (Vec<Pending>, Vec<Order>) {
        self.close_window(now);
        self.written_since = None;
        self.urgent = false;
        (std::mem::take(&mut self.pending), std::mem::take(&mut self.orders))
    }

    /// Counts what has no row in this window, `key`.
    fn count_new(&mut self, what: Countable<'_>) -> bool {
        let Countable { outcome, in_full, .. } = what;
        let owner = &what.owner[..what.owner.floor_char_boundary(256)];
        if !self.owners.contains_key(owner) && self.owners.len() < OWNERS_MAX {
            self.owners.insert(owner.into(), Owner::default());
        }
        let [principal, _, action, _] = what.parts;
        let Some(owner) = self.owners.get_mut(owner) else {
            let rest = format!("\0\0{action}\0others: more than {OWNERS_MAX} principals in this time");
            self.add(rest, outcome);
            return false;
        };
        if owner.rows >= COUNTED_OF_ONE_MAX || self.counted.len() >= COUNTED_MAX {
            // The actions are the kernel's own words: there are few.
            let principal: String = principal.chars().filter(|c| *c != BETWEEN).take(128).collect();
            let rest = format!("{principal}\0\0{action}\0others: more different ones than are told apart in this time");
            self.add(rest, outcome);
            return false;
        }
        owner.rows += 1;
        let full = in_full && owner.full < FULL_OF_ONE_MAX;
        owner.full += u32::from(full);
        let row = Row {
            outcome,
            count: u64::from(!full),
        };
        self.counted.insert(self.key.as_str().into(), row);
        full
    }

    fn add(&mut self, key: String, outcome: Outcome) {
        let row = self.counted.entry(key.into());
        row.or_insert(Row { outcome, count: 0 }).count += 1;
    }

    /// Makes entries of what was counted, when its time is over or the end is near.
    fn close_window(&mut self, now: Instant) {
        let ends = self
            .orders
            .iter()
            .any(|order| matches!(order, Order::Stop(_) | Order::Flush(_)));
        if !ends && self.counted_since.is_none_or(|since| now < since + WINDOW) {
            return;
        }
        self.counted_since = None;
        let mut told = Vec::new();
        self.owners.clear();
        for (key, count) in self.allowed.drain() {
            let mut parts = key.split(BETWEEN);
            let mut part = || parts.next().unwrap_or_default();
            let entry = Entry::new(Kind::Summary, part(), "allowed");
            let entry = entry.capsule(part()).detail(part()).count(count);
            told.push(entry);
        }
        for (key, Row { outcome, count }) in self.counted.drain().filter(|(_, row)| row.count > 0) {
            let mut parts = key.split(BETWEEN);
            let mut part = || parts.next().unwrap_or_default();
            let (principal, capsule, action, rule) = (part(), part(), part(), part());
            let entry = Entry::new(Kind::Summary, principal, action)
                .capsule(capsule)
                .detail(rule)
                .outcome(outcome)
                .count(count);
            told.push(entry);
        }
        // A disk that takes nothing does not make this grow for ever.
        let room = QUEUE_MAX.saturating_sub(self.pending.len());
        self.refused += told.len().saturating_sub(room) as u64;
        self.pending.extend(told.into_iter().take(room).map(Pending::now));
    }
}

/// Between everybody and the writer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Mutex<Queue>,
    pub(super) wake: Condvar,
    metrics: Arc<Metrics>,
    /// Told when it begins or ceases to fail.
    changed: Arc<Notify>,
}

impl Shared {
    pub(super) fn new(metrics: Arc<Metrics>, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            metrics,
            changed,
        })
    }

    /// Puts an entry behind the others.
    pub(super) fn push(&self, pending: Pending) -> Result<(), Unpushed> {
        let (awaited, makes_room) = (pending.answer.is_some(), pending.entry.makes_room);
        // What waits for a full disk does not keep those out who would make room.
        let room = QUEUE_MAX + if makes_room { MAKES_ROOM_MAX } else { 0 };
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err((Refused::Closed, pending.answer));
        }
        if queue.pending.len() >= room {
            queue.refused += 1;
            self.metrics.audit_refused.increment();
            let refused = match &queue.failing {
                Some((reason, _)) => Refused::Failing(reason.clone()),
                None => Refused::Busy,
            };
            return Err((refused, pending.answer));
        }
        queue.pending.push(pending);
        // The first wakes it, and the one that can wait no longer.
        let wake = if awaited || makes_room {
            !std::mem::replace(&mut queue.urgent, true)
        } else if queue.written_since.is_none() {
            queue.written_since = Some(Instant::now());
            true
        } else {
            false
        };
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Counts something. Whether it is to be told in full instead.
    pub(super) fn count(&self, what: Countable<'_>) -> bool {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        if queue.closed {
            return false;
        }
        queue.key.clear();
        for part in what.parts {
            // Each part is cut again when it becomes an entry; here it only must not be long.
            let part = &part[..part.floor_char_boundary(256)];
            queue.key.extend(part.chars().filter(|c| *c != BETWEEN));
            queue.key.push(BETWEEN);
        }
        if let Some(row) = queue.counted.get_mut(queue.key.as_str()) {
            row.count += 1;
            return false;
        }
        let is_first = queue.counted_since.is_none();
        let full = queue.count_new(what);
        if is_first {
            queue.counted_since = Some(Instant::now());
            drop(guard);
            self.wake.notify_one();
        }
        full
    }

    /// Counts what was allowed and done. Apart from what is refused, which no number of these keeps from being told.
    pub(super) fn allowed(&self, principal: &str, capsule: &str, action: &str, count: u64) {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        if queue.closed {
            return;
        }
        queue.key.clear();
        for part in [principal, capsule, action] {
            queue.key.push_str(part);
            queue.key.push(BETWEEN);
        }
        if let Some(row) = queue.allowed.get_mut(queue.key.as_str()) {
            *row += count;
            return;
        }
        let key = match queue.allowed.len() < ALLOWED_MAX {
            true => queue.key.as_str().into(),
            false => format!("{BETWEEN}{BETWEEN}others: more than {ALLOWED_MAX} different ones in this time").into(),
        };
        *queue.allowed.entry(key).or_default() += count;
        if queue.counted_since.is_none() {
            queue.counted_since = Some(Instant::now());
            drop(guard);
            self.wake.notify_one();
        }
    }

    /// Something for the writer to do after what waits.
    pub(super) fn order(&self, order: Order) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        if queue.orders.len() >= ORDERS_MAX {
            return Err(Refused::Busy);
        }
        queue.orders.push(order);
        drop(queue);
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn failing(&self) -> Option<Reason> {
        self.queue.lock().failing.as_ref().map(|(reason, _)| reason.clone())
    }

    /// So many are on disk, under one seal.
    pub(super) fn written(&self, entries: u64) {
        self.metrics.audit_entries.add(entries);
        self.metrics.audit_seals.increment();
    }

    /// A batch of so many is on disk, and nothing keeps the next from it.
    pub(super) fn worked(&self, entries: u64) {
        self.written(entries);
        let mut queue = self.queue.lock();
        if queue.failing.take().is_none() {
            return;
        }
        let refused = std::mem::take(&mut queue.refused);
        drop(queue);
        tracing::info!(refused, "the audit log works again");
        self.changed.notify_one();
        if refused > 0 {
            let entry = Entry::kernel(Kind::Summary, "audit.refused")
                .detail("while the audit log could not be written")
                .count(refused);
            // What cannot wait any more is counted the next time.
            let _ = self.push(Pending::now(entry));
        }
    }

    /// A batch is not on disk; these wait for the next one.
    pub(super) fn failed(&self, reason: Reason, mut kept: Vec<Pending>, refused: u64) {
        let mut queue = self.queue.lock();
        // What came meanwhile, and was not tried.
        let urgent = |pending: &Pending| pending.answer.is_some() || pending.entry.makes_room;
        queue.urgent = queue.pending.iter().any(urgent);
        kept.append(&mut queue.pending);
        queue.pending = kept;
        queue.refused += refused;
        self.metrics.audit_refused.add(refused);
        let first = queue.failing.replace((reason.clone(), Instant::now())).is_none();
        drop(queue);
        if first {
            tracing::error!(%reason, "the audit log cannot be written: what must be recorded before it happens is refused");
            self.changed.notify_one();
        }
    }

    /// What could not be written, to be tried once more; nothing when the disk takes entries.
    pub(super) fn left(&self) -> Vec<Pending> {
        let mut queue = self.queue.lock();
        match queue.failing {
            Some(_) => std::mem::take(&mut queue.pending),
            None => Vec::new(),
        }
    }

    /// Nothing more is taken; who waits is told.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.orders.clear();
        let left: Vec<Pending> = queue.pending.drain(..).collect();
        let why = queue.failing.take().map(|(reason, _)| reason.to_string());
        let refused = std::mem::take(&mut queue.refused);
        drop(queue);
        if !left.is_empty() || refused > 0 {
            let (why, lost) = (why.unwrap_or_default(), left.len());
            tracing::error!(lost, refused, why, "the audit log ends without these entries");
        }
        for pending in left.into_iter().filter_map(|pending| pending.answer) {
            // Whoever asked may have gone.
            let _ = pending.send(Err(Refused::Closed));
        }
    }
}
