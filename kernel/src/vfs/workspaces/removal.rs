//! Dropping a workspace: put aside at once, then removed, while nobody waits for it.
//!
//! ```text
//! var/overlays/.removed-NAME   what nobody uses any more, until it is gone
//! ```
//!
//! What cannot be removed from the disk is in nobody's way there, and is tried again when the daemon starts.

#![allow(clippy::disallowed_methods, reason = "this module owns the directories of overlays")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use astrid_wire::Principal;

use super::super::review::journal::{self, Journal};
use super::super::review::{self, ReviewError, commit, snapshot, tree};
use super::state::UseError;
use super::{Workspaces, lower_of, working};

/// How the names of what is being removed begin. No principal's does.
const ASIDE: &str = ".removed-";

/// What became of a workspace that was dropped.
#[derive(Debug, Default)]
pub struct Removed {
    /// A commit of it had passed its point of no return and was not complete: the directory has a part of it, and keeps that.
    pub torn: bool,
    /// Why something of it is still on the disk, where nobody uses it.
    pub left: Option<ReviewError>,
}

impl Workspaces {
    /// Drops what was written to a principal's workspace, with its snapshots. The directory that it was a copy of is not touched. A commit that is
    /// half done is dropped only with `force`.
    ///
    /// # Errors
    /// [`UseError::Busy`], [`UseError::Torn`], and the system's; nothing is dropped then.
    pub fn remove(&self, principal: &Principal, force: bool) -> Result<Removed, UseError> {
        let overlay = self.place(principal);
        let slot = self.slot(principal);
        let mut open = slot.lock();
        let torn = is_torn(&overlay);
        if torn && !force {
            return Err(UseError::Torn);
        }
        if let Some(workspace) = &*open {
            // Nobody comes in from here on, and whoever has it finds it gone.
            workspace.close()?;
        }
        *open = None;
        if overlay.symlink_metadata().is_err() {
            return Ok(Removed::default());
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| ReviewError::Journal(error.to_string()))?;
        let aside = format!("{ASIDE}{}", hex::encode(random));
        let moved = fs::rename(&overlay, self.directory.join(&aside));
        moved.map_err(ReviewError::io("remove", principal.as_str().as_bytes()))?;
        drop(open);
        let left = review::root(&self.directory)
            .and_then(|parent| tree::remove(&parent, OsStr::new(&aside), principal.as_str().as_bytes()))
            .err();
        Ok(Removed { torn, left })
    }

    /// Whether something of somebody's would be lost: for a workspace that cannot be used, whose changes cannot be looked at.
    #[must_use]
    pub fn has_something(&self, principal: &Principal) -> bool {
        let overlay = self.place(principal);
        let is_empty = |name: &str| match fs::read_dir(overlay.join(name)) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        let nothing = is_empty(commit::UPPER)
            && snapshot::list(&overlay).is_ok_and(|list| list.is_empty())
            && overlay.join(journal::DIRECTORY).symlink_metadata().is_err()
            && !working::is_left(&overlay);
        !nothing
    }

    /// Whether what is kept of somebody's is over that directory, as far as it says so itself.
    #[must_use]
    pub fn is_over(&self, principal: &Principal, lower: &Path) -> bool {
        lower_of(&self.place(principal)).is_ok_and(|(path, _)| path == lower)
    }

    /// Removes what earlier removals have left.
    pub(super) fn clear_removed(&self) {
        let (Ok(entries), Ok(parent)) = (fs::read_dir(&self.directory), review::root(&self.directory)) else {
            return;
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            if name.as_bytes().starts_with(ASIDE.as_bytes())
                && let Err(error) = tree::remove(&parent, &name, name.as_bytes())
            {
                tracing::warn!(%error, "a workspace that was dropped is still on the disk");
            }
        }
    }
}

/// Whether a commit has passed its point of no return, and is not complete.
fn is_torn(overlay: &Path) -> bool {
    match Journal::find(overlay) {
        Ok(found) => found.is_some_and(|found| found.committed),
        Err(_) => true,
    }
}
