//! Workspaces while children see them: one merged directory for each principal, shared by all of its children; or a copy, for one of them.
//!
//! While a merged directory is mounted, its layers must not be changed by anybody else. Whoever wants to look at a workspace asks here
//! first: what is mounted is reached by [`Mount::root`] only. It is mounted for the first child, and not any more when the last one and
//! whoever else holds it is gone; nobody has to unmount it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use astrid_wire::{Principal, Problem};
use parking_lot::Mutex;

use crate::keeper::Merged;
use crate::keeper::protocol::{Layers, Within};

/// Who knows where the workspaces of principals are.
pub trait Workspaces: Send + Sync {
    /// What the workspace of a principal is made of. All of it exists.
    ///
    /// # Errors
    /// There is none, or it cannot be seen by children now; says why.
    fn layers(&self, principal: &Principal) -> Result<Layers, String>;

    /// A copy of it of at most so many bytes, for one child; nothing is copied yet.
    ///
    /// # Errors
    /// There is none, or it cannot be copied now; says why.
    fn check_out(&self, principal: &Principal, bytes_max: u64) -> Result<Arc<dyn Checkout>, String>;

    /// Counts what a principal stores, with so many bytes besides that have no name; blocks for as long.
    ///
    /// # Errors
    /// Says why it is not counted.
    fn room(&self, principal: &Principal, besides: u64) -> Result<Room, Uncounted>;

    /// What is free where the programs of a principal write; none where that is not told. Does not count anything.
    fn free(&self, principal: &Principal) -> Option<Free>;
}

/// Why it is not known what somebody stores.
#[derive(Debug, thiserror::Error)]
pub enum Uncounted {
    /// Somebody made it so.
    #[error("{0}")]
    Hidden(String),
    /// The system failed.
    #[error("{0}")]
    Failed(String),
}

/// Blocks and inodes that are free, for each file system.
pub type Free = Vec<(u64, u64)>;

/// What room a principal has for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is some.
    Left,
    /// There is none.
    None,
    /// It stores more than it may.
    Over,
}

/// A copy of a workspace, for one child. Nobody else uses the workspace until it is taken back.
pub trait Checkout: fmt::Debug + Send + Sync {
    /// Where it is, once it is made.
    fn place(&self) -> &Path;

    /// The directory that the workspace is of.
    fn lower(&self) -> &Path;

    /// Copies; blocks for as long.
    ///
    /// # Errors
    /// Says why there is no copy.
    fn make(&self) -> Result<(), Problem>;

    /// It is not wanted any more: [`Self::make`] ends soon, with an error.
    fn give_up(&self);

    /// Takes over what was changed, and removes the copy; blocks for as long. The second time there is nothing to take over.
    ///
    /// # Errors
    /// Says why it is not taken over yet.
    fn take_back(&self) -> Result<Taken, String>;
}

/// What was taken over from a copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Paths that were written.
    pub written: u64,
    /// Paths that are gone.
    pub removed: u64,
    /// Directories that are nested too deep, and were not taken over.
    pub left_out: u64,
}

/// As the audit log has it.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "written={} removed={}", self.written, self.removed)?;
        if self.left_out > 0 {
            write!(f, " left-out={}", self.left_out)?;
        }
        Ok(())
    }
}

/// How a child sees the workspace of its principal.
#[derive(Debug, Clone)]
pub enum Seen {
    /// In its own place, as all others do.
    Mounted(Arc<Mount>),
    /// As a copy.
    Copied(Arc<dyn Checkout>),
}

impl Seen {
    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Path {
        match self {
            Self::Mounted(mount) => &mount.layers.lower,
            Self::Copied(copy) => copy.place(),
        }
    }

    /// The directory that it is of.
    #[must_use]
    pub fn lower(&self) -> &Path {
        match self {
            Self::Mounted(mount) => &mount.layers.lower,
            Self::Copied(copy) => copy.lower(),
        }
    }
}

/// As the audit log has it.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounted(_) => "overlay",
            Self::Copied(_) => "checkout",
        })
    }
}

/// A workspace that is mounted, or about to be.
#[derive(Debug)]
pub struct Mount {
    /// Which of the keeper's answers is about it.
    pub(super) id: u64,
    layers: Layers,
    /// Whether the keeper was asked for it.
    asked: AtomicBool,
    merged: OnceLock<Merged>,
}

impl Mount {
    /// What it is made of.
    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// The merged directory (`O_PATH`); none as long as it is about to be mounted.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn root(&self) -> io::Result<Option<OwnedFd>> {
        self.merged.get().map(|merged| merged.root.try_clone()).transpose()
    }

    /// Whether it is there.
    pub(super) fn is_there(&self) -> bool {
        self.merged.get().is_some()
    }

    /// Whether the keeper has to be asked for it: true once.
    pub(super) fn ask(&self) -> bool {
        !self.asked.swap(true, Ordering::Relaxed)
    }

    /// The namespaces that a child joins which begins in this directory; none as long as it is about to be mounted.
    pub(super) fn within(&self, cwd: &Path) -> Option<(Within, Vec<BorrowedFd<'_>>)> {
        let merged = self.merged.get()?;
        // What the system does not tell is no directory's, and no child begins there.
        let device = || rustix::fs::fstat(&merged.root).map_or(0, |root| root.st_dev);
        let within = Within {
            user: merged.user.is_some(),
            device: cwd.starts_with(&self.layers.lower).then(device),
        };
        let user = merged.user.as_ref().map(|user| user.as_fd());
        Some((within, user.into_iter().chain([merged.mounts.as_fd()]).collect()))
    }

    /// It is mounted now. False when what came is not all.
    pub(super) fn mounted(&self, user: bool, descriptors: Vec<OwnedFd>) -> bool {
        let mut descriptors = descriptors.into_iter();
        let user = if user { descriptors.next() } else { None };
        let (Some(mounts), Some(root)) = (descriptors.next(), descriptors.next()) else {
            return false;
        };
        self.merged.set(Merged { user, mounts, root }).is_ok()
    }
}

/// All workspaces that are mounted.
#[derive(Debug, Default)]
pub struct Mounts {
    live: Mutex<HashMap<Principal, Weak<Mount>>>,
    last: AtomicU64,
}

impl Mounts {
    /// The workspace of a principal, if children see it. Holding it keeps it mounted.
    #[must_use]
    pub fn of(&self, principal: &Principal) -> Option<Arc<Mount>> {
        self.live.lock().get(principal).and_then(Weak::upgrade)
    }

    /// The workspace of a principal for another child; none while another one is mounted.
    pub(super) fn hold(&self, principal: &Principal, layers: &Layers) -> Option<Arc<Mount>> {
        let mut live = self.live.lock();
        live.retain(|_, mount| mount.strong_count() > 0);
        if let Some(mount) = live.get(principal).and_then(Weak::upgrade) {
            return (mount.layers == *layers).then_some(mount);
        }
        let mount = Arc::new(Mount {
            id: self.last.fetch_add(1, Ordering::Relaxed) + 1,
            layers: layers.clone(),
            asked: AtomicBool::new(false),
            merged: OnceLock::new(),
        });
        live.insert(principal.clone(), Arc::downgrade(&mount));
        Some(mount)
    }

    /// The one of that number, if anybody still wants it.
    pub(super) fn numbered(&self, id: u64) -> Option<Arc<Mount>> {
        let live = self.live.lock();
        live.values().filter_map(Weak::upgrade).find(|mount| mount.id == id)
    }

    /// Nobody will answer for those that are not mounted yet: the next child asks again.
    pub(super) fn ask_again(&self) {
        for mount in self.live.lock().values().filter_map(Weak::upgrade) {
            if mount.merged.get().is_none() {
                mount.asked.store(false, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use super::*;

    /// One mount for a principal, for as long as somebody holds it.
    #[test]
    fn one_for_each_principal() {
        let mounts = Mounts::default();
        let (me, you): (Principal, Principal) = ("me".parse().unwrap(), "you".parse().unwrap());
        let layers = |lower: &str| Layers {
            lower: lower.into(),
            identity: (1, 1),
            upper: "/u".into(),
            work: "/w".into(),
        };
        let first = mounts.hold(&me, &layers("/a")).unwrap();
        assert!(first.ask() && !first.ask() && first.root().unwrap().is_none() && !first.is_there());
        let second = mounts.hold(&me, &layers("/a")).unwrap();
        assert!(Arc::ptr_eq(&first, &second) && !second.ask());
        assert!(mounts.hold(&me, &layers("/b")).is_none());
        assert!(mounts.hold(&you, &layers("/a")).is_some() && mounts.of(&you).is_none());
        mounts.ask_again();
        assert!(second.ask());
        let fd = || OwnedFd::from(std::fs::File::open("/").unwrap());
        assert!(!second.mounted(true, vec![fd(), fd()]) && second.mounted(false, vec![fd(), fd()]));
        assert!(mounts.of(&me).unwrap().root().unwrap().is_some());
        let begins = |cwd: &str| second.within(Path::new(cwd)).unwrap().0.device;
        assert!(begins("/a/b").is_some() && begins("/ab").is_none());
        assert!(mounts.numbered(first.id).is_some());
        mounts.ask_again();
        assert!(!first.ask());
        drop((first, second));
        assert!(mounts.of(&me).is_none() && mounts.hold(&me, &layers("/b")).is_some());
    }
}
