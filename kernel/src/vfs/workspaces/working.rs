//! A workspace as a copy that one program works on: made before it starts, taken back when it has ended.
//!
//! ```text
//! var/overlays/PRINCIPAL/
//! ├── checkout/   the copy
//! └── made        what was copied, and when: there once the copy is complete
//! ```
//!
//! Nobody else uses the workspace meanwhile. What a program did is not lost with the daemon: as long as there is `made`, the copy is taken back
//! before anything else, by the next daemon if need be; where that fails, the workspace is used by nobody until it succeeds or the copy is dropped.

#![allow(clippy::disallowed_methods, reason = "this module owns the directories of copies")]

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::super::checkout::{self, CheckoutError, Imported, Made};
use super::super::layer;
use super::super::review::{Layers, ReviewError, tree};
use super::state::{By, UseError};
use super::{Late, Workspace, layers, lower_of, tell};

const CHECKOUT: &str = "checkout";
const MADE: &str = "made";

fn failed(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> ReviewError {
    ReviewError::io(action, name.as_bytes())
}

/// Whether a complete copy is there that was not taken back.
pub(super) fn is_left(overlay: &Path) -> bool {
    overlay.join(MADE).symlink_metadata().is_ok()
}

/// Takes back what a program did to a copy, if one is left, and removes it.
pub(super) fn take_back_left(overlay: &Path) -> Result<Option<Imported>, ReviewError> {
    let imported = if is_left(overlay) {
        let (lower, identity) = lower_of(overlay)?;
        let layers = layers(overlay, &lower, identity)?;
        Some(take_back(overlay, &layers)?)
    } else {
        None
    };
    drop_left(overlay)?;
    Ok(imported)
}

fn take_back(overlay: &Path, layers: &Layers) -> Result<Imported, ReviewError> {
    let directory = layer::open_root(overlay).map_err(failed("open", ""))?;
    let (made, since_ns) = Made::load(&directory, OsStr::new(MADE)).map_err(failed("read", MADE))?;
    let copy = layer::open_directory(&directory, OsStr::new(CHECKOUT)).map_err(failed("open", CHECKOUT))?;
    checkout::import(overlay, layers, copy, (&made, since_ns))
}

/// Removes a copy. Without `made` it is no copy any more, so that goes first.
pub(super) fn drop_left(overlay: &Path) -> Result<(), ReviewError> {
    let directory = match layer::open_root(overlay) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("open", ""))?,
    };
    for name in [MADE, CHECKOUT] {
        tree::remove(&directory, OsStr::new(name), name.as_bytes())?;
    }
    Ok(())
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is copied.
    New,
    /// A program may work on it.
    Made,
    /// It is gone, or left to be taken back by somebody else.
    Over,
}

/// A copy of a workspace for one program. Nobody else uses the workspace until it is [taken back](Self::take_back).
pub struct WorkingCopy {
    workspace: Arc<Workspace>,
    place: PathBuf,
    bytes_max: u64,
    given_up: AtomicBool,
    phase: Mutex<Phase>,
}

impl fmt::Debug for WorkingCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkingCopy")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Workspace {
    /// Reserves the workspace for a copy of at most so many bytes. Nothing is copied yet.
    ///
    /// # Errors
    /// [`UseError::Busy`] while somebody uses it, and the system's.
    pub fn check_out(self: &Arc<Self>, bytes_max: u64) -> Result<WorkingCopy, UseError> {
        let mut state = self.settled();
        state.is_unused()?;
        self.begin_using(&mut state)?;
        (state.alone, state.tree) = (Some(By::Program), None);
        Ok(WorkingCopy {
            place: self.overlay.join(CHECKOUT),
            workspace: Arc::clone(self),
            bytes_max,
            given_up: AtomicBool::new(false),
            phase: Mutex::new(Phase::New),
        })
    }

    /// Takes back the copy of a program that could not be taken back when that had ended, if there is one.
    ///
    /// # Errors
    /// [`UseError::Unsaved`] says why it cannot be.
    pub fn take_back_left(&self) -> Result<(), UseError> {
        self.settle_left(|overlay| {
            let taken = take_back_left(overlay)?;
            Ok(taken.map_or(Late::Dropped, |taken| Late::Copy(Ok(taken))))
        })
        .map(drop)
    }

    /// Drops that copy, and what was done to it. Whether there was one.
    ///
    /// # Errors
    /// [`UseError::Unsaved`] says why it cannot be.
    pub fn drop_left(&self) -> Result<bool, UseError> {
        self.settle_left(|overlay| drop_left(overlay).map(|()| Late::Dropped))
    }

    fn settle_left(&self, settle: impl FnOnce(&Path) -> Result<Late, ReviewError>) -> Result<bool, UseError> {
        let _turn = {
            let mut state = self.state.lock();
            if state.unsaved.is_none() {
                return Ok(false);
            }
            if let Some(by) = state.alone {
                return Err(by.error());
            }
            state.alone = Some(By::Operator);
            drop(state);
            self.turn.write()
        };
        let settled = settle(&self.overlay).map_err(|error| error.to_string());
        if let Ok(late) = &settled {
            tell(&self.listener, &self.principal, late);
        }
        let mut state = self.state.lock();
        (state.alone, state.written_by_others) = (None, true);
        state.unsaved = settled.err();
        match &state.unsaved {
            Some(why) => Err(UseError::Unsaved(why.clone())),
            None => Ok(true),
        }
    }
}

impl WorkingCopy {
    /// Where it is, once it is made.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The directory that the workspace is of.
    #[must_use]
    pub fn lower(&self) -> &Path {
        self.workspace.lower()
    }

    /// It is not wanted any more: a copy that is being made ends after the file that it is at.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Copies. Takes as long as that takes.
    ///
    /// # Errors
    /// [`CheckoutError`]; nothing is there then. It is one as well when it was given up, or the copy was taken back before.
    pub fn make(&self) -> Result<(), CheckoutError> {
        let mut phase = self.phase.lock();
        if *phase != Phase::New {
            return Err(CheckoutError::Over);
        }
        let made = self.copy();
        match &made {
            Ok(()) => *phase = Phase::Made,
            Err(_) => drop_left(&self.workspace.overlay)?,
        }
        made
    }

    fn copy(&self) -> Result<(), CheckoutError> {
        let overlay = &self.workspace.overlay;
        drop_left(overlay)?;
        let layers = self.workspace.open_layers()?;
        let made = fs::DirBuilder::new().mode(0o700).create(&self.place);
        made.map_err(failed("make", CHECKOUT))?;
        let copy = layer::open_root(&self.place).map_err(failed("open", CHECKOUT))?;
        let made = checkout::make(&layers, &copy, self.bytes_max, &self.given_up)?;
        let directory = layer::open_root(overlay).map_err(failed("open", ""))?;
        made.save(directory, OsStr::new(MADE)).map_err(failed("write", MADE))?;
        Ok(())
    }

    /// Takes over what was changed, and removes the copy. Whoever wants the workspace has it afterwards, unless this fails: then nobody has until it
    /// succeeds. The second time there is nothing to take over.
    ///
    /// # Errors
    /// The file systems'; the copy stays.
    pub fn take_back(&self) -> Result<Imported, ReviewError> {
        let mut phase = self.phase.lock();
        let before = std::mem::replace(&mut *phase, Phase::Over);
        if before == Phase::Over {
            return Ok(Imported::default());
        }
        let turn = self.workspace.turn.write();
        let taken = match before {
            Phase::Made => take_back_left(&self.workspace.overlay).map(Option::unwrap_or_default),
            _ => Ok(Imported::default()),
        };
        drop(turn);
        self.release(taken.as_ref().err().map(ToString::to_string));
        taken
    }

    fn release(&self, unsaved: Option<String>) {
        let mut state = self.workspace.state.lock();
        (state.alone, state.written_by_others) = (None, true);
        state.left = Some(Instant::now());
        state.unsaved = unsaved;
    }
}

impl Drop for WorkingCopy {
    fn drop(&mut self) {
        match *self.phase.lock() {
            Phase::Over => {}
            Phase::New => self.release(None),
            Phase::Made => self.release(Some("the copy that a program worked on was not taken back".to_owned())),
        }
    }
}
