//! What survives: one transactional key-value store for the state of capsules, messages that wait, timers, and what was given up.
//!
//! - [`table`]: what belongs to whom; [`engine`]: what keeps the bytes; [`surreal`]: on disk; [`memory`]: the twin without one;
//! - [`view`]: a table as a reader sees it; `once`: ids that clients give their messages; [`seal`]: how it gets to disk, on the store's
//!   own [`thread`]; [`faults`]: failures at will.
//!
//! A commit has two moments. [`Store::sequence`] gives it a number, in memory: from then on it is ordered and later readers see it. The
//! store's thread then *seals* what was sequenced, in groups: one transaction of the engine and one fsync for all of them. What must not
//! be seen outside before it is safe waits until [`Store::sealed`] has reached its number.
//!
//! A failed seal stops the store (*fail-stop*): whether that group reached the disk is not known, so everything that was sequenced
//! and not sealed is forgotten, `sequence` refuses, the engine is opened again, and whoever holds state made of forgotten commits drops
//! it ([`Phase::Recovering`]) before new ones are taken.
//!
//! Deliberately absent: what the bytes mean. That is known where they are made.

pub mod engine;
pub mod faults;
pub mod memory;
pub mod once;
pub mod seal;
pub mod surreal;
pub mod table;
pub mod thread;
pub mod view;
mod wait;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use astrid_wire::Principal;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use self::engine::{Engine, EngineError, Open, OpenError, Span, Write};
use self::table::Table;
use self::view::{Pending, View};

/// Bytes of a key at most. Keys are copied into every level of the engine's tree.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of a value at most: compaction holds values in memory. Larger things belong into files.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// Bytes that may be sequenced and not sealed, before whoever could add more is held up.
pub const UNSEALED_BYTES_MAX: usize = 64 << 20;

/// Bytes that a write takes in the queue and the overlay beside its key and value.
const WRITE_OVERHEAD_BYTES: usize = 256;

/// Commits that are remembered to find conflicts. A reader that is older than all of them conflicts.
const RECENT_MAX: usize = 4096;

/// The row of the kernel's own table that says how far the store is.
pub const META_PROGRESS: &[u8] = b"progress";

/// What a commit asks of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is on disk within 50 ms.
    Eventual,
    /// Nothing of it is seen outside before it is on disk.
    Durable,
}

/// What a handling read, where others write the same table.
#[derive(Debug, Default)]
pub struct Reads {
    /// The last commit that it saw.
    pub at: u64,
    /// Keys that it looked at.
    pub keys: Vec<Bytes>,
    /// Spans that it scanned: start, and end if there was one.
    pub spans: Vec<(Bytes, Option<Bytes>)>,
}

impl Reads {
    fn includes(&self, key: &[u8]) -> bool {
        let spanned =
            |(start, end): &(Bytes, Option<Bytes>)| key >= &start[..] && end.as_ref().is_none_or(|e| key < &e[..]);
        self.keys.iter().any(|k| k == key) || self.spans.iter().any(spanned)
    }
}

/// Writes that happen only if an id is new.
#[derive(Debug)]
pub struct Once {
    /// Whose id.
    pub principal: Principal,
    /// The id.
    pub id: Bytes,
    /// What happens then.
    pub writes: Vec<Write>,
}

/// What is to happen together.
#[derive(Debug)]
pub struct Batch {
    /// Changes.
    pub writes: Vec<Write>,
    /// Changes under a condition each.
    pub once: Vec<Once>,
    /// How soon it must be on disk.
    pub level: Level,
    /// The table that several actors share and what was read of it, if that is so.
    pub shared: Option<(Table, Reads)>,
    /// [`Store::epoch`] before anything was read that led to this.
    pub epoch: u64,
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// A commit that has its number.
#[derive(Debug)]
pub struct Sequenced {
    /// The number; on disk when [`Store::sealed`] has reached it.
    pub number: u64,
    /// For each [`Once`]: whether its id was new.
    pub admitted: Vec<bool>,
}

/// Why a commit was not taken. Nothing of it happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Somebody else changed what it read. It can be done again.
    #[error("another actor changed what this one read")]
    Conflict,
    /// The store failed since, and forgot what this may be made of.
    #[error("the store failed meanwhile")]
    Stale,
    /// The store takes nothing now.
    #[error("{0}")]
    Unavailable(Arc<str>),
}

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It works.
    Open,
    /// It takes nothing, and says why; what is sealed can be read, mostly. It will be opened again.
    Failed(Arc<str>),
    /// The engine works again; whoever holds state of what was forgotten drops it now. See [`Store::recovered`].
    Recovering,
    /// It was closed.
    Closed,
}

/// A commit that waits for its seal.
struct Waiting {
    number: u64,
    writes: Vec<Write>,
    bytes: usize,
}

/// What was written lately to tables that several actors share.
#[derive(Default)]
struct Recent {
    commits: VecDeque<(u64, Table, Vec<Bytes>)>,
    /// What was written up to here is not remembered.
    floor: u64,
}

struct State {
    /// The last number given.
    sequence: u64,
    pending: HashMap<Table, Arc<Pending>, ahash::RandomState>,
    queue: VecDeque<Waiting>,
    /// The last number given to a commit that somebody waits for.
    durable: u64,
    bytes: usize,
    recent: Recent,
    windows: once::Windows,
}

/// The store.
pub struct Store {
    state: Mutex<State>,
    engine: RwLock<Option<Arc<dyn Engine>>>,
    opener: Box<dyn Open>,
    phase: watch::Sender<Phase>,
    sealed: AtomicU64,
    rows: AtomicU64,
    /// Counts failures: what was sequenced in another one was forgotten.
    epoch: AtomicU64,
    /// There is something to seal.
    work: Notify,
    /// That should not wait.
    urgent: Notify,
    /// Something was sealed, or forgotten: for the one who lets outputs leave.
    progress: Notify,
    /// The same, for everybody else.
    turned: Notify,
    /// So much is not sealed that others wait.
    crowded: AtomicBool,
    /// There is room again.
    room: Notify,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("sealed", &self.sealed())
            .field("phase", &*self.phase.borrow())
            .finish_non_exhaustive()
    }
}

/// How far a store is: the last commit, and the last number of a row.
fn read_progress(engine: &dyn Engine) -> Result<(u64, u64), EngineError> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    match engine.snapshot(&Table::meta())?.get(META_PROGRESS)? {
        None => Ok((0, 0)),
        Some(row) => row
            .split_at_checked(8)
            .and_then(|(sequence, rows)| Some((number(sequence)?, number(rows)?)))
            .ok_or_else(|| EngineError::Damaged("its progress is not two numbers".into())),
    }
}

impl Store {
    /// Opens a store. Nothing is sealed until [`Store::run`] is driven, or [`Store::seal`] is called.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed.
    pub async fn open(opener: Box<dyn Open>) -> Result<Arc<Self>, OpenError> {
        let engine = opener.open().await?;
        let (sequence, rows) = read_progress(&*engine)?;
        Ok(Arc::new(Self {
            state: Mutex::new(State {
                sequence,
                pending: HashMap::default(),
                queue: VecDeque::new(),
                durable: 0,
                bytes: 0,
                recent: Recent {
                    floor: sequence,
                    ..Recent::default()
                },
                windows: once::Windows::default(),
            }),
            engine: RwLock::new(Some(engine)),
            opener,
            phase: watch::channel(Phase::Open).0,
            sealed: AtomicU64::new(sequence),
            rows: AtomicU64::new(rows),
            epoch: AtomicU64::new(0),
            work: Notify::new(),
            urgent: Notify::new(),
            progress: Notify::new(),
            turned: Notify::new(),
            crowded: AtomicBool::new(false),
            room: Notify::new(),
        }))
    }

    /// The last commit that is on disk.
    pub fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Acquire)
    }

    /// How often the store failed since it was opened.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How the store is, and how that changes.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether commits are taken.
    pub fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    /// Why no commits are taken, if so.
    ///
    /// # Errors
    /// In words for people.
    pub fn check_open(&self) -> Result<(), Refused> {
        match &*self.phase.borrow() {
            Phase::Open => Ok(()),
            Phase::Failed(why) => Err(Refused::Unavailable(Arc::clone(why))),
            Phase::Recovering => Err(Refused::Unavailable("the store is opened again".into())),
            Phase::Closed => Err(Refused::Unavailable("the store is closed".into())),
        }
    }

    /// Whether nothing waits for its seal, and nothing of what waited is left.
    pub fn is_settled(&self) -> bool {
        let state = self.state.lock();
        state.queue.is_empty() && state.pending.is_empty() && state.bytes == 0
    }

    /// A number for a row that is unique in this store, later than all before.
    pub fn row(&self) -> u64 {
        self.rows.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Waits until something more is sealed, or was forgotten.
    pub async fn progress(&self) {
        self.progress.notified().await;
    }

    /// Whether so much is not sealed yet that whoever would add more should wait for [`Store::room`].
    pub fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        loop {
            let room = self.room.notified();
            let mut room = std::pin::pin!(room);
            // Registered before looking, so that what happens between is not missed.
            room.as_mut().enable();
            if !self.is_crowded() {
                return;
            }
            room.await;
        }
    }

    /// A table as it is now, with what is sequenced and not sealed.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn view(&self, table: &Table) -> Result<View, EngineError> {
        // Under one lock, so that nothing moves from one to the other in between, and no engine is taken that ended since.
        let state = self.state.lock();
        let engine = self.engine()?;
        Ok(View {
            pending: state.pending.get(table).cloned(),
            sealed: engine.snapshot(table)?,
            sequence: state.sequence,
        })
    }

    /// The engine, while there is one.
    ///
    /// # Errors
    /// It is being opened again.
    pub fn engine(&self) -> Result<Arc<dyn Engine>, EngineError> {
        let engine = self.engine.read().clone();
        engine.ok_or_else(|| EngineError::Stopped("it is not open".into()))
    }

    /// Gives a commit its number: it is ordered, and seen by later readers of this process.
    ///
    /// # Errors
    /// [`Refused`]; nothing happened.
    pub fn sequence(&self, batch: Batch) -> Result<Sequenced, Refused> {
        let mut guard = self.state.lock();
        // Looked at under the lock: a store that fails forgets under it.
        self.check_open()?;
        if batch.epoch != self.epoch() {
            return Err(Refused::Stale);
        }
        let state = &mut *guard;
        if let Some((table, reads)) = &batch.shared
            && state.recent.conflicts(table, reads)
        {
            return Err(Refused::Conflict);
        }
        let mut writes = batch.writes;
        let mut admitted = Vec::with_capacity(batch.once.len());
        for once in batch.once {
            let new = match self.admit(state, &once, batch.now_ms, &mut writes) {
                Ok(new) => new,
                Err(error) => {
                    // Those before it in this batch have moved their windows, and nothing of it happens.
                    state.windows.forget();
                    return Err(Refused::Unavailable(error.to_string().into()));
                }
            };
            admitted.push(new);
            if new {
                writes.extend(once.writes);
            }
        }
        state.sequence += 1;
        let number = state.sequence;
        if let Some((table, _)) = batch.shared {
            let keys = writes
                .iter()
                .filter(|w| w.table == table)
                .map(|w| w.key.clone())
                .collect();
            state.recent.remember(number, table, keys);
        }
        for write in &writes {
            let pending = state.pending.entry(write.table.clone()).or_default();
            Arc::make_mut(pending).insert(write.key.clone(), (number, write.value.clone()));
        }
        let bytes = writes.iter().map(|write| write.weight() + WRITE_OVERHEAD_BYTES).sum();
        let was_much = state.bytes >= seal::GROUP_BYTES_MAX;
        state.bytes += bytes;
        if state.bytes >= UNSEALED_BYTES_MAX {
            self.crowded.store(true, Ordering::Relaxed);
        }
        state.queue.push_back(Waiting { number, writes, bytes });
        let first = state.queue.len() == 1;
        let urgent = batch.level == Level::Durable || (!was_much && state.bytes >= seal::GROUP_BYTES_MAX);
        if batch.level == Level::Durable {
            state.durable = number;
        }
        drop(guard);
        if first {
            self.work.notify_one();
        }
        if urgent {
            self.urgent.notify_one();
        }
        Ok(Sequenced { number, admitted })
    }

    /// Ids of messages are looked up again: rows of them were deleted.
    pub fn forget_ids(&self) {
        self.state.lock().windows.forget();
    }

    /// After a failure: everybody has dropped what was forgotten, and commits are taken again.
    pub fn recovered(&self) {
        self.phase.send_if_modified(|phase| {
            let recovering = *phase == Phase::Recovering;
            if recovering {
                *phase = Phase::Open;
            }
            recovering
        });
    }

    /// All rows of a table, for administrators' requests and tests; at most this many.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn rows(&self, table: &Table, start: &[u8], max: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let mut rows = Vec::new();
        let span = Span { start, ..Span::ALL };
        self.view(table)?
            .scan(span, &std::collections::BTreeMap::new(), &mut |key, value| {
                if rows.len() < max {
                    rows.push((Bytes::copy_from_slice(key), value));
                }
                rows.len() < max
            })?;
        Ok(rows)
    }
}

impl Recent {
    fn conflicts(&self, table: &Table, reads: &Reads) -> bool {
        if reads.keys.is_empty() && reads.spans.is_empty() {
            return false;
        }
        if reads.at < self.floor {
            return true;
        }
        let later = self.commits.iter().rev().take_while(|(number, ..)| *number > reads.at);
        later
            .filter(|(_, t, _)| t == table)
            .any(|(_, _, keys)| keys.iter().any(|k| reads.includes(k)))
    }

    fn remember(&mut self, number: u64, table: Table, keys: Vec<Bytes>) {
        if keys.is_empty() {
            return;
        }
        if self.commits.len() >= RECENT_MAX
            && let Some((oldest, ..)) = self.commits.pop_front()
        {
            self.floor = oldest;
        }
        self.commits.push_back((number, table, keys));
    }
}

#[cfg(test)]
mod tests;
