//! Files of principals, as their actors reach them: whose trees are where, and what those, and blobs, take of a quota.
//!
//! A tree is opened when it is first used. What is stored is one account, whether it is in tables, files or blobs, and is counted for whoever has
//! a limit on that: once all that is there, when the first of it is written; then each write of a file by what it grows, and blobs by what the
//! content store says that there is. One such write at a time of such a principal is decided and counted, so that two of them do not both take the
//! last room; for everybody else nothing is counted and nothing waits. Who writes to tables does not wait for files: what a handling commits
//! while a file is written may come on top of the last room, once.
//!
//! Deliberately absent: what is allowed, which is the gate's; and what a path means, which is the tree's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use astrid_wire::{Principal, Problem};
use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};

use crate::audit::{Audit, Entry, Kind, Outcome};
use crate::blob::{BlobError, Blobs};
use crate::home::Home;
use crate::keeper::protocol::Layers;
use crate::ledger::{Account, Exceeded, Hold, Ledger, Limit};
use crate::port::child::mount::{self, Mounts, Taken, Uncounted};
use crate::vfs::beneath::Beneath;
use crate::vfs::checkout::{CheckoutError, Imported};
use crate::vfs::error::{Fault, FsError};
use crate::vfs::path::{Scheme, VirtualPath};
use crate::vfs::plain::Plain;
use crate::vfs::review::commit::Recovered;
use crate::vfs::space::{self, Room};
use crate::vfs::workspaces::{Late, Lent, WorkingCopy, Workspaces};
use crate::vfs::{self, Tree};

/// Files and directories of a principal that are counted, at most: more than that is not served to who has a limit.
const COUNTED_MAX: u64 = 10_000_000;

/// The files of everybody.
#[derive(Debug)]
pub struct Files {
    home: Home,
    /// Directories that operators attached.
    pub workspaces: Arc<Workspaces>,
    /// Bytes by their hash, which count with the files.
    pub blobs: Arc<Blobs>,
    owned: DashMap<Principal, Arc<Owned>, ahash::RandomState>,
}

/// What one principal has.
#[derive(Debug, Default)]
pub struct Owned {
    /// What it takes of a quota, once that was counted.
    stored: Mutex<Option<Stored>>,
    /// Somebody else has written its files since.
    is_stale: AtomicBool,
    /// Held while a file is compared with what is expected and replaced.
    replacing: Mutex<()>,
}

/// What a principal takes of its quota beside the tables of its actors.
#[derive(Debug)]
struct Stored {
    files: Hold,
    blobs: Hold,
}

/// Why a blob was not announced.
#[derive(Debug, thiserror::Error)]
pub enum NotAnnounced {
    /// The principal stores as much as it may.
    #[error(transparent)]
    Quota(#[from] Exceeded),
    /// What it stores cannot be counted.
    #[error("what is stored cannot be counted: {0}")]
    Count(#[from] FsError),
    /// The content store refused.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

impl Files {
    /// The files of a home. Nothing is opened.
    #[must_use]
    pub fn new(home: &Home, workspaces: Arc<Workspaces>, blobs: Arc<Blobs>) -> Self {
        Self {
            home: home.clone(),
            workspaces,
            blobs,
            owned: DashMap::default(),
        }
    }

    /// Empties what was temporary, and ends commits of workspaces that were cut short: a daemon begins. What cannot be ended now is when somebody
    /// uses the workspace, and is recorded then.
    pub fn begin(&self, audit: &Audit) {
        self.empty_tmp();
        let recorder = audit.clone();
        self.workspaces
            .listen(Box::new(move |principal, late| record(&recorder, principal, late)));
        for (principal, late) in self.workspaces.end_all() {
            record(audit, &principal, &late);
        }
    }

    /// One that cannot be emptied is in nobody else's way.
    fn empty_tmp(&self) {
        let root = self.home.tmp_root();
        for name in self.home.tmp_names() {
            if let Err(error) = vfs::remove_directory(&root, &name) {
                tracing::error!(%error, ?name, "in var/tmp something cannot be removed: what earlier daemons left there is found again");
            }
        }
    }

    /// Removes what a principal has of directories: it is deleted.
    ///
    /// # Errors
    /// The system's. The others are removed all the same.
    pub fn remove_directories(&self, principal: &Principal) -> std::io::Result<()> {
        let directories = self.home.directories_of(principal).into_iter();
        let removed: Vec<_> = directories
            .map(|(parent, name)| vfs::remove_directory(&parent, &name))
            .collect();
        removed.into_iter().collect()
    }

    /// What that principal has.
    #[must_use]
    pub fn of(&self, principal: &Principal) -> Arc<Owned> {
        if let Some(owned) = self.owned.get(principal) {
            return Arc::clone(&owned);
        }
        Arc::clone(&self.owned.entry(principal.clone()).or_default())
    }

    /// Lets go of what that principal had: it is deleted.
    pub fn forget(&self, principal: &Principal) {
        self.owned.remove(principal);
        self.workspaces.forget(principal);
    }

    /// What a principal's files take is counted anew with the next write: somebody else has written them.
    pub fn count_again(&self, principal: &Principal) {
        if let Some(owned) = self.owned.get(principal) {
            owned.is_stale.store(true, Ordering::Release);
        }
    }

    fn directory(&self, principal: &Principal, scheme: Scheme) -> PathBuf {
        match scheme {
            Scheme::Tmp => self.home.tmp_dir(principal),
            Scheme::Home | Scheme::Workspace => self.home.principal_dir(principal),
        }
    }

    /// One of that principal's trees.
    ///
    /// # Errors
    /// [`Fault::NoWorkspace`], and the system's.
    pub fn tree(&self, principal: &Principal, scheme: Scheme) -> Result<Arc<Tree>, FsError> {
        if scheme == Scheme::Workspace {
            let workspace = self.workspaces.of(principal)?;
            if workspace.was_written_by_others() {
                self.count_again(principal);
            }
            // While somebody has it, nothing is committed or rolled back.
            return workspace.tree();
        }
        let opened = self.home.make_principal_dir(&self.directory(principal, scheme));
        let opened = opened.map_err(Fault::from).and_then(|path| Ok(Beneath::open(&path)?));
        let root = opened.map_err(|fault| FsError::new(&VirtualPath::root(scheme).to_string(), fault))?;
        Ok(Arc::new(Tree::Plain(Plain::new(root))))
    }

    /// Bytes that a principal keeps beside the tables of its actors.
    ///
    /// # Errors
    /// The system's; [`Fault::TooMany`].
    pub fn stored_bytes(&self, principal: &Principal) -> Result<u64, FsError> {
        Ok(self.file_bytes(principal)?.saturating_add(self.blobs.usage(principal)))
    }

    /// Bytes that a principal's files take on the disk.
    fn file_bytes(&self, principal: &Principal) -> Result<u64, FsError> {
        let mut bytes = self.workspaces.stored_bytes(principal)?;
        for scheme in [Scheme::Home, Scheme::Tmp] {
            let counted = match Beneath::open(&self.directory(principal, scheme)) {
                Err(rustix::io::Errno::NOENT) => continue,
                opened => opened
                    .map_err(Fault::from)
                    .and_then(|root| space::usage(&root, COUNTED_MAX)),
            };
            let counted = counted.map_err(|fault| FsError::new(&VirtualPath::root(scheme).to_string(), fault))?;
            bytes = bytes.saturating_add(counted.bytes);
        }
        Ok(bytes)
    }
}

fn taken(imported: Imported) -> Taken {
    Taken {
        written: imported.written,
        removed: imported.removed,
        left_out: imported.left_out,
    }
}

/// Records what became of what was cut short. That the log takes nothing, it says itself.
fn record(audit: &Audit, principal: &Principal, late: &Late) {
    let (action, outcome, became) = match late {
        Late::Commit(Ok(Recovered::Completed)) => ("workspace.commit", Outcome::Done, "completed".to_owned()),
        Late::Commit(Ok(_)) => ("workspace.commit", Outcome::Failed, "undone".to_owned()),
        Late::Commit(Err(error)) => ("workspace.commit", Outcome::Failed, format!("left: {error}")),
        Late::Copy(Ok(imported)) => ("workspace.checkout", Outcome::Done, taken(*imported).to_string()),
        Late::Copy(Err(error)) => ("workspace.checkout", Outcome::Failed, format!("unsaved={error}")),
        Late::Dropped => (
            "workspace.checkout",
            Outcome::Done,
            "dropped, as was asked for".to_owned(),
        ),
    };
    tracing::warn!(%principal, action, became, "what was cut short in a workspace");
    let entry = Entry::new(Kind::Outcome, principal.as_str(), action).outcome(outcome);
    drop(audit.write(entry.detail(&format!("cut short earlier: {became}"))));
}

/// Gives workspaces to programs.
#[derive(Debug)]
pub struct Lender {
    /// The files of everybody.
    pub files: Arc<Files>,
    /// What everybody may store.
    pub ledger: Arc<Ledger>,
}

impl mount::Workspaces for Lender {
    fn layers(&self, principal: &Principal) -> Result<Layers, String> {
        let workspace = self.files.workspaces.of(principal).map_err(|error| error.to_string())?;
        workspace.lend().map_err(|error| error.to_string())?;
        let (upper, work) = workspace.layers();
        Ok(Layers {
            lower: workspace.lower().to_owned(),
            identity: workspace.identity(),
            upper,
            work,
        })
    }

    fn check_out(&self, principal: &Principal, bytes_max: u64) -> Result<Arc<dyn mount::Checkout>, String> {
        let workspace = self.files.workspaces.of(principal).map_err(|error| error.to_string())?;
        Ok(Arc::new(
            workspace.check_out(bytes_max).map_err(|error| error.to_string())?,
        ))
    }

    fn room(&self, principal: &Principal, besides: u64) -> Result<mount::Room, Uncounted> {
        let account = self.ledger.account(principal);
        if !account.pays_for_storage() {
            return Ok(mount::Room::Left);
        }
        self.files.count_again(principal);
        let owned = self.files.of(principal);
        owned
            .measure(&self.files, &account)
            .map_err(|error| match error.fault {
                Fault::TooMany(_) | Fault::Unsupported(_) | Fault::Denied => Uncounted::Hidden(error.to_string()),
                _ => Uncounted::Failed(error.to_string()),
            })?;
        Ok(match account.storage_room() {
            left if account.stores_too_much() || besides > left => mount::Room::Over,
            0 => mount::Room::None,
            _ => mount::Room::Left,
        })
    }

    fn free(&self, principal: &Principal) -> Option<mount::Free> {
        let home = &self.files.home;
        let places = [home.overlays_dir().join(principal.as_str()), home.tmp_dir(principal)];
        let mut all = mount::Free::new();
        for place in places {
            match rustix::fs::statvfs(&place) {
                // Some file systems do not say.
                Ok(stat) if stat.f_blocks > 0 => all.push((stat.f_bfree, stat.f_ffree)),
                Err(rustix::io::Errno::NOENT) => {}
                _ => return None,
            }
        }
        (!all.is_empty()).then_some(all)
    }
}

impl mount::Checkout for WorkingCopy {
    fn place(&self) -> &Path {
        self.place()
    }

    fn lower(&self) -> &Path {
        self.lower()
    }

    fn make(&self) -> Result<(), Problem> {
        self.make().map_err(|error| {
            let problem = Problem::new("child.no-copy", format!("workspace: {error}"));
            match error {
                CheckoutError::TooLarge(_) => problem.with_hint("allow more: `checkout = SIZE`"),
                _ => problem,
            }
        })
    }

    fn give_up(&self) {
        self.give_up();
    }

    fn take_back(&self) -> Result<Taken, String> {
        self.take_back().map(taken).map_err(|error| error.to_string())
    }
}

/// What programs see of a principal's workspace.
#[must_use]
pub fn lent(mounts: &Mounts, principal: &Principal) -> Lent {
    match mounts.of(principal).map(|mount| mount.root()) {
        None => Lent::No,
        Some(Ok(Some(root))) => Lent::Mounted(root),
        Some(_) => Lent::Soon,
    }
}

/// A write that is being made: what it may take, and afterwards what it took.
pub struct Spending<'a> {
    /// What it may take.
    pub room: Room,
    stored: Option<MutexGuard<'a, Option<Stored>>>,
}

impl std::fmt::Debug for Spending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spending")
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl Owned {
    /// Begins a write. Waits for another one of the same principal, if that has a limit.
    ///
    /// # Errors
    /// What is there cannot be counted.
    pub fn spend(&self, files: &Files, account: &Arc<Account>) -> Result<Spending<'_>, FsError> {
        if !account.pays_for_storage() {
            return Ok(Spending {
                room: Room::unlimited(),
                stored: None,
            });
        }
        let stored = self.counted(files, account)?;
        Ok(Spending {
            room: Room::of(account.storage_room()),
            stored: Some(stored),
        })
    }

    /// Counts all that a principal stores, if that was not done: after that its account says what room there is.
    ///
    /// # Errors
    /// What is there cannot be counted.
    pub fn measure(&self, files: &Files, account: &Arc<Account>) -> Result<(), FsError> {
        self.counted(files, account).map(drop)
    }

    fn counted(&self, files: &Files, account: &Arc<Account>) -> Result<MutexGuard<'_, Option<Stored>>, FsError> {
        let mut stored = self.stored.lock();
        let stale = self.is_stale.swap(false, Ordering::AcqRel);
        if stored.is_some() && !stale && account.is_measured() {
            return Ok(stored);
        }
        let who = account.principal();
        let in_files = files
            .file_bytes(who)
            .inspect_err(|_| self.is_stale.store(stale, Ordering::Release))?;
        let in_blobs = files.blobs.usage(who);
        match stored.as_mut() {
            Some(stored) => {
                stored.files.set(in_files);
                stored.blobs.set(in_blobs);
            }
            None => {
                *stored = Some(Stored {
                    files: account.hold_anyway(Limit::Storage, in_files),
                    blobs: account.hold_anyway(Limit::Storage, in_blobs),
                });
            }
        }
        // Last: then all is counted.
        let measured = account.measure_storage().map_err(std::io::Error::other);
        measured.map_err(|error| FsError::new("", error.into()))?;
        Ok(stored)
    }

    /// Announces a blob of that size, for which `announce` is called with the room that there is for it.
    ///
    /// # Errors
    /// [`NotAnnounced`]; nothing is held for it then.
    pub fn announce_blob<T>(
        &self,
        files: &Files,
        account: &Arc<Account>,
        size: u64,
        announce: impl FnOnce(u64) -> Result<T, BlobError>,
    ) -> Result<T, NotAnnounced> {
        if !account.pays_for_storage() {
            return Ok(announce(u64::MAX)?);
        }
        let mut stored = self.counted(files, account)?;
        if let Some(stored) = stored.as_mut() {
            stored.blobs.grow(size)?;
        }
        let announced = announce(size);
        if let Some(stored) = stored.as_mut() {
            stored.blobs.set(files.blobs.usage(account.principal()));
        }
        Ok(announced?)
    }

    /// What a principal has of blobs has changed.
    pub fn recount_blobs(&self, files: &Files, account: &Arc<Account>) {
        if let Some(stored) = self.stored.lock().as_mut() {
            stored.blobs.set(files.blobs.usage(account.principal()));
        }
    }

    /// Held while a file is compared with what is expected and replaced.
    pub fn replace_alone(&self) -> MutexGuard<'_, ()> {
        self.replacing.lock()
    }
}

impl Drop for Spending<'_> {
    fn drop(&mut self) {
        if let Some(stored) = self.stored.as_mut().and_then(|stored| stored.as_mut()) {
            let files = &mut stored.files;
            files.set(files.amount().saturating_add_signed(self.room.grown()));
        }
    }
}
