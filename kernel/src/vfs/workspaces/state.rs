//! Who uses a workspace, and why it cannot be used.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::super::Tree;
use super::super::review::ReviewError;
use super::Workspace;

/// What programs see of a workspace.
#[derive(Debug)]
pub enum Lent {
    /// No program sees it: its layers are ours.
    No,
    /// It is being mounted for one.
    Soon,
    /// It is mounted; its root.
    Mounted(OwnedFd),
}

/// Who has a workspace alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// An operator, who changes or looks at it as a whole.
    Operator,
    /// A program, which works on a copy of it.
    Program,
}

impl By {
    pub(super) fn error(self) -> UseError {
        match self {
            Self::Operator => UseError::Taken,
            Self::Program => UseError::Busy { users: 1 },
        }
    }
}

/// What changes about an open workspace.
#[derive(Debug)]
pub(super) struct State {
    /// Guards that live.
    pub(super) users: u64,
    /// Who has it alone.
    pub(super) alone: Option<By>,
    /// The layers were given away to be mounted, and are not known to be back.
    pub(super) lent: bool,
    /// They came back, and whoever counts what is in them has not asked yet.
    pub(super) written_by_others: bool,
    /// The root of the mount, while there is one.
    pub(super) mounted: Option<OwnedFd>,
    /// What was made of the layers, or of the mount, once it was asked for.
    pub(super) tree: Option<Arc<Tree>>,
    pub(super) since_ns: Option<i128>,
    /// When the last user left.
    pub(super) left: Option<Instant>,
    /// Why nobody can use it any more in this form.
    pub(super) broken: Option<String>,
    /// Why the copy of a program that has ended is not taken back.
    pub(super) unsaved: Option<String>,
}

impl State {
    pub(super) fn new(since_ns: Option<i128>, unsaved: Option<String>) -> Self {
        Self {
            users: 0,
            alone: None,
            lent: false,
            written_by_others: false,
            mounted: None,
            tree: None,
            since_ns,
            left: Some(Instant::now()),
            broken: None,
            unsaved,
        }
    }

    /// Whether nobody can use it now.
    pub(super) fn is_closed(&self) -> bool {
        self.broken.is_some() || self.unsaved.is_some()
    }

    /// Takes note of what programs see of it now. True when the layers are back since the last look, changed by somebody else.
    pub(super) fn settle(&mut self, lent: Lent) -> bool {
        if !self.lent {
            return false;
        }
        match lent {
            Lent::Soon => false,
            Lent::Mounted(root) => {
                if self.mounted.is_none() {
                    (self.mounted, self.tree) = (Some(root), None);
                }
                false
            }
            // Who has the tree of a mount in hand still goes through it, and it stays until they let go.
            Lent::No if self.tree.as_ref().is_some_and(|tree| Arc::strong_count(tree) > 1) => false,
            Lent::No => {
                (self.lent, self.mounted, self.tree) = (false, None, None);
                self.left = Some(Instant::now());
                true
            }
        }
    }

    /// That nobody has a guard, a mount, or the tree in hand.
    pub(super) fn is_unused(&self) -> Result<(), UseError> {
        if let Some(why) = &self.broken {
            return Err(UseError::Broken(why.clone()));
        }
        if let Some(why) = &self.unsaved {
            return Err(UseError::Unsaved(why.clone()));
        }
        if let Some(by) = self.alone {
            return Err(by.error());
        }
        let hands = self.tree.as_ref().map_or(0, |tree| Arc::strong_count(tree) as u64 - 1);
        let users = self.users.max(hands).max(u64::from(self.lent));
        if users > 0 {
            Err(UseError::Busy { users })
        } else {
            Ok(())
        }
    }
}

/// One who uses a workspace; dropped when it does no more.
#[derive(Debug)]
pub struct Guard {
    workspace: Arc<Workspace>,
}

impl Guard {
    pub(super) fn new(workspace: Arc<Workspace>) -> Self {
        Self { workspace }
    }

    /// Which.
    #[must_use]
    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.workspace.leave();
    }
}

/// Why a workspace cannot be changed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    /// Somebody uses it.
    #[error("the workspace is in use: {users} open files or programs")]
    Busy {
        /// How many.
        users: u64,
    },
    /// An operator does something with it as a whole.
    #[error("another commit, rollback, snapshot or removal of the workspace is under way")]
    Taken,
    /// A commit could not be completed, and has to be first.
    #[error("the workspace cannot be used: {0}")]
    Broken(String),
    /// A commit is half done, and would stay so.
    #[error(
        "a commit of the workspace is half done: its directory has a part of what was committed, and would keep just that"
    )]
    Torn,
    /// What a program did to its copy is not in it, and has to be first.
    #[error("what a program did to a copy of the workspace is not taken back: {0}")]
    Unsaved(String),
    /// What was done to the layers failed.
    #[error(transparent)]
    Review(#[from] ReviewError),
}
