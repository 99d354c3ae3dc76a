//! The workspaces of principals: which directory of the host each is a copy of, who uses it, and that nobody does while it is committed, rolled
//! back or attached elsewhere.
//!
//! ```text
//! var/overlays/PRINCIPAL/   0700
//! ├── overlay.json   which directory it is over, and since when it is used
//! ├── upper/         what was written
//! ├── staging/       what is being written
//! ├── work/          the kernel's, while the overlay is mounted
//! ├── snapshots/     kept states
//! ├── journal/       while a commit runs
//! └── checkout/      while a program works on a copy
//! ```
//!
//! Which directory somebody's workspace is of is told by who makes this: it is a part of the principal's profile. An overlay that was made over
//! another directory, or over another one at the same place, is not used: what was written there would mean something else here.

#![allow(clippy::disallowed_methods, reason = "this module owns the directories of overlays")]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use astrid_wire::control::workspace::{escape, unescape};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use serde::{Deserialize, Serialize};

use super::Tree;
use super::beneath::Beneath;
use super::checkout::Imported;
use super::error::{Fault, FsError};
use super::overlay::Overlay;
use super::plain::Plain;
use super::review::commit::{self, Recovered};
use super::review::{self, Layers, ReviewError};
use super::space;

pub mod directory;
mod earlier;
mod lower;
mod removal;
mod state;
mod working;

use directory::DirectoryError;
use lower::Identity;
pub use lower::Unusable;
pub use removal::Removed;
use state::{By, State};
pub use state::{Guard, Lent, UseError};
pub use working::WorkingCopy;

/// After so long without anybody who uses it a workspace in which nothing was written counts as one that was never used.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// After so long no program of an earlier daemon is left: they are killed within seconds of its end.
const EARLIER_ENDED_AFTER: Duration = Duration::from_secs(120);

/// Entries of an upper that are counted at most.
const ENTRIES_MAX: u64 = 10_000_000;

/// Bytes of `overlay.json` at most: a path, escaped.
const META_BYTES_MAX: u64 = 64 << 10;

const META: &str = "overlay.json";
const STAGING: &str = "staging";
const WORK: &str = "work";

/// The form of `overlay.json` that is written.
const VERSION: u32 = 1;

/// What `overlay.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    version: u32,
    /// The path of the lower, escaped.
    lower: String,
    /// Its device and inode.
    identity: Identity,
    /// Since when it is used, in nanoseconds since 1970, as the file system has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ns: Option<i128>,
}

/// Says which directory somebody's workspace is of.
pub type Resolver = dyn Fn(&Principal) -> Result<Option<PathBuf>, DirectoryError> + Send + Sync;

/// What became of something that was cut short: by the end of a daemon, or by a disk.
#[derive(Debug)]
pub enum Late {
    /// A commit.
    Commit(Result<Recovered, ReviewError>),
    /// A copy that a program worked on was taken back.
    Copy(Result<Imported, ReviewError>),
    /// A copy was dropped, with what was done to it.
    Dropped,
}

/// Hears of what ends late.
pub type Listener = dyn Fn(&Principal, &Late) + Send + Sync;

/// Says what programs see of somebody's workspace.
pub type Probe = dyn Fn(&Principal) -> Lent + Send + Sync;

/// All of them.
pub struct Workspaces {
    /// `var/overlays/`.
    directory: PathBuf,
    resolver: Box<Resolver>,
    probe: Arc<Probe>,
    listener: Arc<OnceLock<Box<Listener>>>,
    made: Instant,
    open: Mutex<HashMap<Principal, Arc<Slot>>>,
}

/// Where somebody's open workspace is. Held while it is opened or removed, which may take long: by one principal, and nobody else waits.
type Slot = Mutex<Option<Arc<Workspace>>>;

impl std::fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspaces")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Workspaces {
    /// Those whose overlays are in this directory (`var/overlays/`).
    #[must_use]
    pub fn new(directory: PathBuf, resolver: Box<Resolver>) -> Self {
        Self {
            directory,
            resolver,
            probe: Arc::new(|_| Lent::No),
            listener: Arc::default(),
            made: Instant::now(),
            open: Mutex::default(),
        }
    }

    /// The same, where programs may see workspaces: `probe` says which do.
    #[must_use]
    pub fn lent_by(self, probe: Arc<Probe>) -> Self {
        Self { probe, ..self }
    }

    /// Tells from now on what ends late. Only the first listener hears.
    pub fn listen(&self, listener: Box<Listener>) {
        self.listener.set(listener).ok();
    }

    /// Completes or undoes the commits that a crash cut short, and takes back the copies of programs that ended with an earlier daemon, of
    /// everybody. What cannot be is tried again when the workspace is used. Who listens does not hear of these.
    pub fn end_all(&self) -> Vec<(Principal, Late)> {
        self.clear_removed();
        let mut ended = Vec::new();
        for principal in self.kept() {
            let overlay = self.place(&principal);
            let commit = recover(&overlay);
            if !matches!(commit, Ok(Recovered::Nothing)) {
                ended.push((principal.clone(), Late::Commit(commit)));
            }
            if let Some(copy) = working::take_back_left(&overlay).transpose() {
                ended.push((principal, Late::Copy(copy)));
            }
        }
        ended
    }

    /// Whose overlays are on the disk.
    fn kept(&self) -> Vec<Principal> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let names = entries.flatten().map(|entry| entry.file_name());
        names
            .filter_map(|name| Principal::stamped(name.to_str()?).ok())
            .collect()
    }

    /// Somebody's, which is made when it is first asked for.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn of(&self, principal: &Principal) -> Result<Arc<Workspace>, Unusable> {
        let lower = (self.resolver)(principal)?.ok_or(Unusable::None)?;
        let slot = self.slot(principal);
        let mut open = slot.lock();
        if let Some(workspace) = &*open
            && workspace.lower == lower
            && workspace.is_sound()
        {
            lower::open_same(&lower, workspace.identity)?;
            return Ok(Arc::clone(workspace));
        }
        let lent = (principal.clone(), Arc::clone(&self.probe), Arc::clone(&self.listener));
        let earlier = self.made.elapsed() < EARLIER_ENDED_AFTER;
        let workspace = Arc::new(Workspace::open(self.place(principal), lower, lent, earlier)?);
        *open = Some(Arc::clone(&workspace));
        Ok(workspace)
    }

    fn slot(&self, principal: &Principal) -> Arc<Slot> {
        Arc::clone(self.open.lock().entry(principal.clone()).or_default())
    }

    /// The directory of somebody's overlay. No principal's name is a path.
    fn place(&self, principal: &Principal) -> PathBuf {
        self.directory.join(principal.as_str())
    }

    /// Bytes that somebody's workspace takes on the disk: what was written, and what is kept. 0 without one.
    ///
    /// # Errors
    /// The system's.
    pub fn stored_bytes(&self, principal: &Principal) -> Result<u64, FsError> {
        stored_bytes(&self.place(principal))
    }

    /// Whether there is something of somebody's on the disk.
    #[must_use]
    pub fn is_kept(&self, principal: &Principal) -> bool {
        self.place(principal).symlink_metadata().is_ok()
    }

    /// Lets go of a principal's workspace: whoever still has it finds it closed. What is on the disk stays.
    pub fn forget(&self, principal: &Principal) {
        // The slot stays: whoever has it in hand would open a second one beside the next.
        let slot = self.open.lock().get(principal).cloned();
        if let Some(workspace) = slot.and_then(|slot| slot.lock().take()) {
            workspace.state.lock().broken = Some("it is gone".to_owned());
        }
    }
}

/// One principal's workspace.
pub struct Workspace {
    principal: Principal,
    probe: Arc<Probe>,
    listener: Arc<OnceLock<Box<Listener>>>,
    overlay: PathBuf,
    lower: PathBuf,
    identity: Identity,
    state: Mutex<State>,
    /// Held for reading by who only looks, for writing by who changes the layers otherwise than through the tree.
    turn: RwLock<()>,
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace")
            .field("lower", &self.lower)
            .finish_non_exhaustive()
    }
}

/// Nobody else uses a workspace while this lives.
#[derive(Debug)]
pub struct Alone<'a> {
    workspace: &'a Workspace,
    _turn: RwLockWriteGuard<'a, ()>,
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut state = self.workspace.state.lock();
        state.alone = None;
        // What it had open may have been put aside.
        state.tree = None;
    }
}

impl Workspace {
    fn open(
        overlay: PathBuf,
        lower: PathBuf,
        (principal, probe, listener): (Principal, Arc<Probe>, Arc<OnceLock<Box<Listener>>>),
        earlier: bool,
    ) -> Result<Self, Unusable> {
        let found = lower::open(&lower)?;
        let found = rustix::fs::fstat(&found).map_err(io::Error::from)?;
        let identity = (found.st_dev, found.st_ino);
        for directory in [&*overlay, &overlay.join(STAGING), &overlay.join(WORK)] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        if earlier && earlier::is_mounted(&overlay.join(commit::UPPER))? {
            return Err(Unusable::Earlier);
        }
        match recover(&overlay).map_err(Unusable::Unfinished)? {
            Recovered::Nothing => {}
            late => tell(&listener, &principal, &Late::Commit(Ok(late))),
        }
        let text = escape(lower.as_os_str().as_bytes());
        let meta = match read_meta(&overlay)? {
            Some(meta) if meta.lower == text && meta.identity == identity => meta,
            Some(_) => return Err(Unusable::Moved(lower)),
            None => {
                let meta = Meta {
                    version: VERSION,
                    lower: text,
                    identity,
                    since_ns: None,
                };
                write_meta(&overlay, &meta)?;
                meta
            }
        };
        if overlay.join(commit::UPPER).symlink_metadata().is_err() {
            let root = review::root(&overlay).map_err(io::Error::other)?;
            commit::make_upper(&root, found.st_mode & 0o7777).map_err(io::Error::other)?;
        }
        let unsaved = working::is_left(&overlay).then(|| "it could not be taken back so far".to_owned());
        let state = State::new(meta.since_ns, unsaved);
        Ok(Self {
            principal,
            probe,
            listener,
            overlay,
            lower,
            identity,
            state: Mutex::new(state),
            turn: RwLock::new(()),
        })
    }

    fn is_sound(&self) -> bool {
        self.state.lock().broken.is_none()
    }

    /// The directory of the host that it is a copy of.
    #[must_use]
    pub fn lower(&self) -> &Path {
        &self.lower
    }

    /// The directory that its overlay is in.
    #[must_use]
    pub fn overlay(&self) -> &Path {
        &self.overlay
    }

    /// Which one that is: device and inode.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// What a mount of it needs besides the lower: upper and work directory.
    #[must_use]
    pub fn layers(&self) -> (PathBuf, PathBuf) {
        (self.overlay.join(commit::UPPER), self.overlay.join(WORK))
    }

    /// Both layers, for the review.
    ///
    /// # Errors
    /// [`ReviewError::Moved`] when another directory is in the place of the lower; the system's.
    pub fn open_layers(&self) -> Result<Layers, ReviewError> {
        layers(&self.overlay, &self.lower, self.identity)
    }

    /// Bytes that it takes on the disk: what was written, and what is kept.
    ///
    /// # Errors
    /// The system's.
    pub fn stored_bytes(&self) -> Result<u64, FsError> {
        stored_bytes(&self.overlay)
    }

    /// Since when it is used, in nanoseconds since 1970.
    #[must_use]
    pub fn since_ns(&self) -> Option<i128> {
        self.state.lock().since_ns
    }

    /// How many use it.
    #[must_use]
    pub fn users(&self) -> u64 {
        match self.settled().is_unused() {
            Err(UseError::Busy { users }) => users,
            Err(UseError::Taken) => 1,
            _ => 0,
        }
    }

    /// Its state, with what programs see of it now.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if state.lent {
            let back = state.settle((self.probe)(&self.principal));
            state.written_by_others |= back;
        }
        state
    }

    /// Whether programs have written to it since this was asked last, and do no more.
    #[must_use]
    pub fn was_written_by_others(&self) -> bool {
        std::mem::take(&mut self.settled().written_by_others)
    }

    /// Gives the layers away to be mounted for a program. Until they are back, the tree is what is mounted.
    ///
    /// # Errors
    /// [`UseError::Busy`] while somebody else uses it, and the system's.
    pub fn lend(&self) -> Result<(), UseError> {
        let mut state = self.settled();
        if state.lent && state.broken.is_none() && !matches!((self.probe)(&self.principal), Lent::No) {
            return Ok(());
        }
        state.is_unused()?;
        self.begin_using(&mut state)?;
        (state.lent, state.tree) = (true, None);
        Ok(())
    }

    fn begin_using(&self, state: &mut State) -> Result<(), UseError> {
        self.begin(state).map_err(|source| {
            UseError::Review(ReviewError::Io {
                action: "write",
                path: META.to_owned(),
                source,
            })
        })
    }

    /// Begins to use it. What changes in the lower from the first use on is a conflict when it is committed.
    ///
    /// # Errors
    /// [`Fault::Busy`] while it is committed or rolled back, and the system's.
    pub fn enter(self: &Arc<Self>) -> Result<Guard, FsError> {
        let at = |fault| FsError::new("workspace://", fault);
        let mut state = self.state.lock();
        if state.alone.is_some() || state.is_closed() {
            return Err(at(Fault::Busy));
        }
        self.begin(&mut state).map_err(|error| at(error.into()))?;
        state.users += 1;
        Ok(Guard::new(Arc::clone(self)))
    }

    /// From the first use on, what changes in the lower is a conflict.
    fn begin(&self, state: &mut State) -> io::Result<()> {
        let unused = state.users == 0 && !state.lent && state.alone.is_none();
        let stale = unused && state.left.is_some_and(|left| left.elapsed() >= FORGOTTEN_AFTER);
        if state.since_ns.is_none() || stale && self.is_unwritten() {
            let now = self.now_ns()?;
            self.keep_since(state, Some(now))?;
        }
        Ok(())
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        state.users = state.users.saturating_sub(1);
        if state.users == 0 {
            state.left = Some(Instant::now());
        }
    }

    fn is_unwritten(&self) -> bool {
        fs::read_dir(self.overlay.join(commit::UPPER)).is_ok_and(|mut entries| entries.next().is_none())
    }

    /// The tree that guests see: our own view of the layers, or what is mounted.
    ///
    /// # Errors
    /// [`Fault::Busy`] while it is committed or rolled back, and the system's.
    pub fn tree(&self) -> Result<Arc<Tree>, FsError> {
        let at = |fault| FsError::new("workspace://", fault);
        let mut state = self.settled();
        // What is about to be mounted is nobody's to write.
        if state.alone.is_some() || state.is_closed() || state.lent && state.mounted.is_none() {
            return Err(at(Fault::Busy));
        }
        if let Some(tree) = &state.tree {
            return Ok(Arc::clone(tree));
        }
        self.begin(&mut state).map_err(|error| at(error.into()))?;
        let tree = Arc::new(match &state.mounted {
            Some(root) => {
                let root = root.try_clone().map_err(|error| at(error.into()))?;
                let upper = upper(&self.overlay).map_err(|_| at(Fault::Io(rustix::io::Errno::IO)))?;
                Tree::Plain(Plain::mounted(Beneath::from_fd(root), upper))
            }
            None => Tree::Overlay(self.direct().map_err(at)?),
        });
        state.tree = Some(Arc::clone(&tree));
        Ok(tree)
    }

    fn direct(&self) -> Result<Overlay, Fault> {
        let failed = |_| Fault::Io(rustix::io::Errno::IO);
        let lower = lower::open_same(&self.lower, self.identity).map_err(|error| error.fault())?;
        let upper = upper(&self.overlay).map_err(failed)?;
        Overlay::new(lower, upper, review::root(&self.overlay.join(STAGING)).map_err(failed)?)
    }

    /// While somebody looks at the layers nobody changes them otherwise than through the tree. Waits for a commit.
    pub fn look(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read()
    }

    /// The same, if nobody commits or rolls back now.
    pub fn look_now(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.turn.try_read()
    }

    /// Why the copy of a program that has ended is not taken back, if one is left.
    #[must_use]
    pub fn unsaved(&self) -> Option<String> {
        self.state.lock().unsaved.clone()
    }

    /// Nobody else uses it until this is dropped.
    ///
    /// # Errors
    /// [`UseError::Busy`] while somebody does; [`UseError::Broken`] after a commit that could not be completed.
    pub fn alone(&self) -> Result<Alone<'_>, UseError> {
        let mut state = self.settled();
        state.is_unused()?;
        state.alone = Some(By::Operator);
        state.tree = None;
        drop(state);
        Ok(Alone {
            workspace: self,
            _turn: self.turn.write(),
        })
    }

    /// Nobody uses it any more, ever.
    fn close(&self) -> Result<(), UseError> {
        let mut state = self.settled();
        match state.is_unused() {
            // What is broken is removed as well.
            Ok(()) | Err(UseError::Broken(_) | UseError::Unsaved(_)) => {}
            Err(error) => return Err(error),
        }
        state.broken = Some("it is gone".to_owned());
        state.tree = None;
        Ok(())
    }

    fn keep_since(&self, state: &mut State, since_ns: Option<i128>) -> io::Result<()> {
        let mut meta = read_meta(&self.overlay)?.ok_or(io::ErrorKind::NotFound)?;
        meta.since_ns = since_ns;
        write_meta(&self.overlay, &meta)?;
        state.since_ns = since_ns;
        Ok(())
    }

    /// The present moment, as the file system has it that changes of the lower are measured by.
    ///
    /// # Errors
    /// The system's.
    pub fn now_ns(&self) -> io::Result<i128> {
        let path = self.overlay.join(".clock");
        fs::write(&path, b"")?;
        let stat = fs::metadata(&path)?;
        fs::remove_file(&path)?;
        Ok(i128::from(stat.ctime()) * 1_000_000_000 + i128::from(stat.ctime_nsec()))
    }
}

impl Alone<'_> {
    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> &Workspace {
        self.workspace
    }

    /// Since when it is used from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn set_since(&self, since_ns: Option<i128>) -> Result<(), UseError> {
        let mut state = self.workspace.state.lock();
        self.workspace.keep_since(&mut state, since_ns).map_err(|source| {
            UseError::Review(ReviewError::Io {
                action: "write",
                path: META.to_owned(),
                source,
            })
        })
    }

    /// A commit that passed its point of no return could not be completed: nobody uses the workspace until it is.
    pub fn must_recover(&self, why: &ReviewError) {
        if self.workspace.overlay.join(review::journal::DIRECTORY).exists() {
            self.workspace.state.lock().broken = Some(why.to_string());
        }
    }
}

fn stored_bytes(overlay: &Path) -> Result<u64, FsError> {
    let at = |fault| FsError::new("workspace://", fault);
    match Beneath::open(overlay) {
        Err(rustix::io::Errno::NOENT) => Ok(0),
        Err(error) => Err(at(error.into())),
        Ok(root) => Ok(space::usage(&root, ENTRIES_MAX).map_err(at)?.bytes),
    }
}

fn tell(listener: &OnceLock<Box<Listener>>, principal: &Principal, late: &Late) {
    if let Some(listener) = listener.get() {
        listener(principal, late);
    }
}

/// Completes or undoes what a crash left in the directory of an overlay.
fn recover(overlay: &Path) -> Result<Recovered, ReviewError> {
    let lower = || {
        let (path, identity) = lower_of(overlay)?;
        Ok(lower::open_same(&path, identity)?)
    };
    // What the commit itself changed in the lower is no conflict with what is written next.
    let unused = || {
        let unwritable = |source| ReviewError::Io {
            action: "write",
            path: META.to_owned(),
            source,
        };
        let Some(mut meta) = read_meta(overlay).map_err(unwritable)? else {
            return Ok(());
        };
        meta.since_ns = None;
        write_meta(overlay, &meta).map_err(unwritable)
    };
    commit::recover(overlay, lower, unused, &mut commit::Fault::default())
}

/// The upper of an overlay, itself.
fn upper(overlay: &Path) -> Result<Beneath, ReviewError> {
    let upper = Path::new(commit::UPPER);
    let opened = review::root(overlay)?.dir(upper);
    opened.map_err(|error| ReviewError::io("open", commit::UPPER.as_bytes())(error.into()))
}

fn layers(overlay: &Path, lower: &Path, identity: Identity) -> Result<Layers, ReviewError> {
    Ok(Layers {
        lower: lower::open_same(lower, identity)?,
        upper: upper(overlay)?,
    })
}

/// The directory that an overlay is over, as it says itself.
fn lower_of(overlay: &Path) -> Result<(PathBuf, Identity), ReviewError> {
    let unreadable = |source| ReviewError::Io {
        action: "read",
        path: META.to_owned(),
        source,
    };
    let meta = read_meta(overlay).map_err(unreadable)?;
    let meta = meta.ok_or_else(|| ReviewError::Journal(format!("{META} is missing")))?;
    let path = unescape(&meta.lower).ok_or_else(|| ReviewError::Journal(format!("{META} names no path")))?;
    Ok((PathBuf::from(OsStr::from_bytes(&path)), meta.identity))
}

fn read_meta(overlay: &Path) -> io::Result<Option<Meta>> {
    let path = overlay.join(META);
    let size = match path.symlink_metadata() {
        Ok(stat) => stat.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > META_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let meta: Meta = serde_json::from_slice(&fs::read(path)?)?;
    if meta.version == VERSION {
        Ok(Some(meta))
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

fn write_meta(overlay: &Path, meta: &Meta) -> io::Result<()> {
    let new = overlay.join("overlay.json.new");
    fs::write(&new, serde_json::to_vec(meta)?)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, overlay.join(META))?;
    fs::File::open(overlay)?.sync_all()
}

#[cfg(test)]
mod tests;
