//! Watches: what changes in a directory, or of a file, is told to whoever asked.
//!
//! The system tells (inotify), so nothing is looked at again and again (K19). What changes is gathered: one message is on its way to an
//! owner, and what changes until that was consumed by a commit is in the next. So a build that writes a thousand files is a handful of
//! messages, and an owner that does not handle costs a bounded list of names.
//!
//! A watch begins when it is asked for, and is told from the commit on: nothing between the two is missed. Where a view moves (a workspace
//! that a program mounts), its watches look for their places again and say that more may have changed than is named.
//!
//! Deliberately absent: what is below a directory. Who wants that watches it as well.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Weak};

use astrid_wire::fs::{CHANGED_PATHS_MAX, Changed};
use astrid_wire::{Principal, Topic};
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::tell;
use crate::authority::{FileScope, Permit};
use crate::bus::inbox::{Credit, Inbox};
use crate::bus::message::{Body, Ids, PortId};

/// Watches of one actor at most.
pub const WATCHES_PER_ACTOR_MAX: usize = 16;

/// Bytes of events that are taken at once: some hundred.
const EVENTS_BYTES: usize = 16 << 10;

/// What is told of a place.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// What ends a watch.
const GONE: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT);

/// Finds what is to be watched: each directory, or file, that changes when the view of it does.
pub type Places = Box<dyn Fn() -> io::Result<Vec<OwnedFd>> + Send + Sync>;

/// Why something is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// This system does not tell.
    #[error("this system tells of no changes (inotify): {0}")]
    Missing(Errno),
    /// The system has no place for another watch.
    #[error("this system takes no more watches (fs.inotify.max_user_watches)")]
    TooMany,
    /// What is to be watched cannot be.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What owners hear.
#[derive(Debug)]
pub struct WatchTopics {
    /// Something changed.
    pub changed: Topic,
    /// Nothing more is told.
    pub ended: Topic,
}

/// Who is told.
#[derive(Debug)]
struct Owner {
    id: PortId,
    principal: Principal,
    inbox: Arc<Inbox>,
    /// Where it is held.
    rows: Weak<Rows>,
}

type Rows = Mutex<HashMap<PortId, Arc<Watching>>>;

#[derive(Debug, Default)]
struct State {
    /// Watched places, as the system numbers them.
    numbers: Vec<i32>,
    owner: Option<Owner>,
    names: BTreeSet<String>,
    more: bool,
    gone: bool,
    /// Something waits to be told.
    pending: bool,
    /// A message is on its way.
    told: bool,
}

/// What is watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// As its owner calls it.
    pub path: String,
    /// As the gate knows it, and whether that is a directory.
    pub resource: (String, bool),
    /// Whose view it is.
    pub of: Principal,
}

impl Watched {
    /// What the gate is asked.
    #[must_use]
    pub fn scope(&self) -> FileScope<'_> {
        match &self.resource {
            (path, true) => FileScope::Names(path),
            (path, false) => FileScope::One(path),
        }
    }
}

/// Something that is watched. Dropping it ends that.
pub struct Watching {
    registry: Arc<Registry>,
    what: Watched,
    places: Places,
    state: Mutex<State>,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Registry {
    descriptor: OwnedFd,
    ids: Arc<Ids>,
    topics: Arc<WatchTopics>,
    by_number: Mutex<HashMap<i32, Vec<Weak<Watching>>>>,
}

/// All watches of a daemon.
#[derive(Debug)]
pub struct Watches(Result<Arc<Registry>, Errno>);

impl Watches {
    /// None yet.
    #[must_use]
    pub fn new(ids: Arc<Ids>, topics: Arc<WatchTopics>) -> Self {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        Self(made.map(|descriptor| {
            Arc::new(Registry {
                descriptor,
                ids,
                topics,
                by_number: Mutex::default(),
            })
        }))
    }

    /// Watches from now on what `places` finds, and remembers what changes. Told is nothing before [`Watching::start`].
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn watch(&self, what: Watched, places: Places) -> Result<Arc<Watching>, WatchError> {
        let registry = self.0.as_ref().map_err(|errno| WatchError::Missing(*errno))?;
        let watching = Arc::new(Watching {
            registry: Arc::clone(registry),
            what,
            places,
            state: Mutex::default(),
        });
        watching.look()?;
        Ok(watching)
    }

    /// What that principal's watches look at is elsewhere from now on.
    pub fn moved(&self, of: &Principal) {
        let Ok(registry) = &self.0 else { return };
        // Let go of outside of the lock: the last to let go takes it.
        let mut all: Vec<Arc<Watching>> = {
            let by_number = registry.by_number.lock();
            by_number.values().flatten().filter_map(Weak::upgrade).collect()
        };
        all.retain(|watching| watching.what.of == *of);
        all.sort_unstable_by_key(Arc::as_ptr);
        all.dedup_by(|one, other| Arc::ptr_eq(one, other));
        for watching in all {
            let found = watching.look();
            let mut state = watching.state.lock();
            state.pending = true;
            state.more = true;
            state.gone |= found.is_err();
            drop(state);
            watching.tell();
        }
    }

    /// Tells owners what changes, for as long as the daemon lives.
    pub async fn run(self: Arc<Self>) {
        let Ok(registry) = &self.0 else { return };
        if let Err(error) = registry.read_all().await {
            tracing::error!(%error, "changes of files are not told any more");
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe, because of descriptors that close while they are registered; this one owns its own"
)]
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

impl Registry {
    async fn read_all(&self) -> io::Result<()> {
        let events = readable(self.descriptor.try_clone()?)?;
        loop {
            let mut ready = events.readable().await?;
            if let Ok(result) = ready.try_io(|descriptor| self.read(descriptor.get_ref())) {
                result?;
            }
        }
    }

    fn read(&self, descriptor: &OwnedFd) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(descriptor, &mut buffer);
        let mut touched: Vec<Arc<Watching>> = Vec::new();
        let result = loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(error) => break error,
            };
            let concerned: Vec<Arc<Watching>> = {
                let mut by_number = self.by_number.lock();
                let of = |rows: &Vec<Weak<Watching>>| rows.iter().filter_map(Weak::upgrade).collect();
                if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                    by_number.values().flat_map(of).collect::<Vec<_>>()
                } else {
                    let found = by_number.get(&event.wd()).map_or_else(Vec::new, of);
                    if event.events().contains(ReadFlags::IGNORED) {
                        by_number.remove(&event.wd());
                    }
                    found
                }
            };
            for watching in concerned {
                watching.note(&event);
                if !touched.iter().any(|known| Arc::ptr_eq(known, &watching)) {
                    touched.push(watching);
                }
            }
            if reader.is_buffer_empty() && !touched.is_empty() {
                touched.drain(..).for_each(|watching| watching.tell());
            }
        };
        touched.iter().for_each(Watching::tell);
        Err(result.into())
    }

    fn forget(&self, numbers: &[i32]) {
        let mut by_number = self.by_number.lock();
        for number in numbers {
            let Some(rows) = by_number.get_mut(number) else {
                continue;
            };
            rows.retain(|row| row.strong_count() > 0);
            if rows.is_empty() {
                by_number.remove(number);
                // One that the system has ended already is not watched any more.
                let _ = inotify::remove_watch(&self.descriptor, *number);
            }
        }
    }
}

/// Lets a watch tell what changed meanwhile.
struct Handled(Weak<Watching>);

impl Credit for Handled {}

impl Drop for Handled {
    fn drop(&mut self) {
        if let Some(watching) = self.0.upgrade() {
            watching.state.lock().told = false;
            watching.tell();
        }
    }
}

impl Watching {
    /// What is watched.
    #[must_use]
    pub fn what(&self) -> &Watched {
        &self.what
    }

    /// Finds the places, and watches those.
    fn look(self: &Arc<Self>) -> Result<(), WatchError> {
        let places = (self.places)()?;
        let mut numbers = Vec::with_capacity(places.len());
        // Under this lock no number can be given back between being found here and being entered.
        let mut by_number = self.registry.by_number.lock();
        for place in &places {
            // What was opened is watched, whatever its name leads to by now.
            let path = format!("/proc/self/fd/{}", place.as_raw_fd());
            let number = match inotify::add_watch(&self.registry.descriptor, path.as_str(), EVENTS) {
                Ok(number) => number,
                Err(Errno::NOSPC) => return Err(WatchError::TooMany),
                Err(error) => return Err(io::Error::from(error).into()),
            };
            if !numbers.contains(&number) {
                numbers.push(number);
                by_number.entry(number).or_default().push(Arc::downgrade(self));
            }
        }
        let old = std::mem::replace(&mut self.state.lock().numbers, numbers.clone());
        for number in old.iter().filter(|old| !numbers.contains(old)) {
            if let Some(rows) = by_number.get_mut(number) {
                rows.retain(|row| !std::ptr::eq(row.as_ptr(), Arc::as_ptr(self)));
            }
        }
        drop(by_number);
        self.registry.forget(&old);
        Ok(())
    }

    fn note(&self, event: &inotify::Event<'_>) {
        let mut state = self.state.lock();
        let what = event.events();
        if what.contains(ReadFlags::IGNORED) {
            return;
        }
        state.pending = true;
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            state.more = true;
        } else if what.intersects(GONE) {
            state.gone = true;
        } else if let Some(name) = event.file_name() {
            match name.to_str() {
                Ok(name) if state.names.len() < CHANGED_PATHS_MAX => drop(state.names.insert(name.to_owned())),
                Ok(name) if state.names.contains(name) => {}
                _ => state.more = true,
            }
        }
    }

    /// Tells what has changed, unless the owner has something of it already.
    fn tell(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if !state.pending || state.told {
            return;
        }
        let Some(owner) = &state.owner else { return };
        let (inbox, principal, id) = (Arc::clone(&owner.inbox), owner.principal.clone(), owner.id);
        let rows = state.gone.then(|| Weak::clone(&owner.rows));
        let path = &self.what.path;
        let at = |name: &String| match path.ends_with("://") {
            true => format!("{path}{name}"),
            false => format!("{path}/{name}"),
        };
        let changed = Changed {
            paths: std::mem::take(&mut state.names).iter().map(at).collect(),
            more: std::mem::take(&mut state.more),
        };
        (state.pending, state.told) = (false, true);
        drop(state);
        let Registry { ids, topics, .. } = &*self.registry;
        if let Some(rows) = rows {
            let reason = Body::text(format!("{path} is not there any more, or may not be read"));
            tell(&inbox, ids, id, &topics.ended, principal, reason, None);
            // Outside of the lock: the last one of its place tells the system.
            let ended = rows.upgrade().and_then(|rows| rows.lock().remove(&id));
            drop(ended);
            return;
        }
        let credit = Box::new(Handled(Arc::downgrade(self)));
        let body = Body::json(&changed);
        tell(&inbox, ids, id, &topics.changed, principal, body, Some(credit));
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.registry.forget(&self.state.get_mut().numbers);
    }
}

/// The watches of one actor. They end when this is dropped.
#[derive(Debug, Default)]
pub struct Held(Arc<Rows>);

impl Held {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this actor has that watch.
    pub fn has(&self, id: PortId) -> bool {
        self.0.lock().contains_key(&id)
    }

    /// Has an owner told from now on.
    pub fn start(&self, permit: Permit<Arc<Watching>>, id: PortId, principal: Principal, inbox: &Arc<Inbox>) {
        let watching = permit.into_object();
        watching.state.lock().owner = Some(Owner {
            id,
            principal,
            inbox: Arc::clone(inbox),
            rows: Arc::downgrade(&self.0),
        });
        self.0.lock().insert(id, Arc::clone(&watching));
        watching.tell();
    }

    /// Ends one.
    pub fn end(&self, permit: Permit<PortId>) {
        // Outside of the lock: the last one of its place tells the system.
        let ended = self.0.lock().remove(permit.object());
        drop(ended);
    }

    /// Ends those that may not be watched any more, and tells their owner.
    pub fn narrow(&self, may: impl Fn(&Watched) -> bool) {
        let all: Vec<Arc<Watching>> = self.0.lock().values().map(Arc::clone).collect();
        for watching in all.iter().filter(|watching| !may(&watching.what)) {
            let mut state = watching.state.lock();
            (state.gone, state.pending, state.told) = (true, true, false);
            drop(state);
            watching.tell();
        }
    }
}
