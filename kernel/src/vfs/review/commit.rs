//! Carries out a plan so that a crash at any moment leaves the lower as it was, or as it shall be, once it was recovered.
//!
//! 1. What could stop it half way is looked for (`obstacles`); directories of our own that are closed to us are opened meanwhile.
//! 2. The plan is written ([`Journal::begin`]).
//! 3. Every new content is staged: a temporary beside its place in the lower, with everything but its name.
//! 4. What the lower was when the plan was made is looked at again, and who listens is told what will be done.
//! 5. The mark is set ([`Journal::commit`]).
//! 6. Each step is applied; all of them can be applied again.
//! 7. The upper is emptied; the journal goes.
//!
//! An error before the mark undoes. After it the commit stays open, and is completed by [`recover`]: nobody may use the overlay until then. What
//! was removed or replaced in the lower between 4. and 6., in microseconds, is lost: file systems have no way to prevent that.

#![allow(clippy::disallowed_methods, reason = "the overlay's own directory")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use astrid_wire::control::workspace::unescape;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::super::beneath::Beneath;
use super::super::layer::{self, Kind};
use super::super::reach;
use super::journal::{Found, Head, Journal};
use super::plan::{Plan, Step, What};
use super::{Layers, ReviewError, as_path, obstacles, parted, rollback, snapshot, tree};

/// Files that are each waited for until they are on disk; of more the whole file system is.
pub(super) const SYNCED_ONE_BY_ONE_MAX: usize = 32;

/// The upper in the directory of an overlay.
pub const UPPER: &str = "upper";

/// The end of the name of a temporary that is made again.
const AGAIN: &str = "-again";

/// What is left of an upper that was committed, until it is removed.
const SPENT: &str = "spent";

/// Where a test stops a commit, as a crash would.
#[derive(Debug, Default)]
pub struct Fault {
    left: Option<u64>,
    taken: u64,
}

impl Fault {
    /// Before the step of this number, from 0 on, the commit stops.
    #[must_use]
    pub const fn after(steps: u64) -> Self {
        Self {
            left: Some(steps),
            taken: 0,
        }
    }

    /// How many were taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn step(&mut self) -> Result<(), ReviewError> {
        if self.left.is_some_and(|left| self.taken >= left) {
            return Err(ReviewError::Stopped);
        }
        self.taken += 1;
        Ok(())
    }
}

/// Hears what will be done, once all of it is staged and before any of it is done: a path, and the BLAKE3 of a file; none of a link, and of a
/// file that is mostly holes. An error of it stops the commit.
pub type Told<'a> = dyn FnMut(&[u8], What, Option<&blake3::Hash>) -> Result<(), ReviewError> + 'a;

/// A commit that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Bytes that were written.
    pub bytes: u64,
    /// BLAKE3 over each path, what was done there, and the content's hash.
    pub digest: blake3::Hash,
}

/// What became of a commit that a crash had cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// There was none.
    Nothing,
    /// It is done now.
    Completed,
    /// It never happened.
    Undone,
}

/// How a commit is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// Whether nothing of the upper is left afterwards: all of it is committed.
    pub whole: bool,
    /// Whether what changed since the plan was made is written over.
    pub force: bool,
}

/// Commits. `overlay` is the directory that the upper is in.
///
/// # Errors
/// The file systems', naming the path. Nothing was committed then, unless a journal is left: [`recover`] completes it.
pub fn commit(
    overlay: &Path,
    layers: &Layers,
    plan: &Plan,
    how: How,
    fault: &mut Fault,
    told: &mut Told<'_>,
) -> Result<Done, ReviewError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| ReviewError::Journal(error.to_string()))?;
    let lower = layer::look_at(&layers.lower).map_err(ReviewError::io("look at", b""))?;
    let head = Head::new(hex::encode(random), lower.identity(), how.whole, how.force);
    let steps = obstacles::look_for(&layers.lower, &plan.steps)?;
    fault.step()?;
    let journal = Journal::begin(overlay, &head, &steps)?;
    let mut work = Work {
        overlay,
        lower: &layers.lower,
        head: &head,
        steps: &steps,
        fault,
    };
    let staged = work.stage(layers).and_then(|(done, hashes)| {
        if !how.force {
            work.unchanged()?;
        }
        for (step, hash) in steps.iter().zip(&hashes).filter(|(step, _)| step.what != What::Open) {
            told(&bytes(&step.path)?, step.what, hash.as_ref())?;
        }
        work.fault.step()?;
        journal.commit(&done.digest.to_hex())?;
        Ok(done)
    });
    match staged {
        Err(ReviewError::Stopped) => Err(ReviewError::Stopped),
        Err(error) => {
            work.undo()?;
            journal.end()?;
            Err(error)
        }
        Ok(done) => {
            work.complete().map_err(|error| match error {
                ReviewError::Stopped => error,
                error => ReviewError::Unfinished(Box::new(error)),
            })?;
            work.fault.step()?;
            journal.end()?;
            Ok(done)
        }
    }
}

/// Completes or undoes what a crash left. `lower` is opened only if something was. `emptied` is called when everything of the upper was committed,
/// before that is forgotten.
///
/// # Errors
/// The file systems', naming the path; a lower that is not the one that was being committed to.
pub fn recover(
    overlay: &Path,
    lower: impl FnOnce() -> Result<Beneath, ReviewError>,
    emptied: impl FnOnce() -> Result<(), ReviewError>,
    fault: &mut Fault,
) -> Result<Recovered, ReviewError> {
    let spent = layer::open_root(overlay).map_err(ReviewError::io("open", b""))?;
    let Some(Found {
        journal,
        plan,
        committed,
    }) = Journal::find(overlay)?
    else {
        // And of other changes: what waited beside the upper, and half a snapshot.
        for left in [SPENT, rollback::ASIDE] {
            tree::remove(&spent, OsStr::new(left), left.as_bytes())?;
        }
        snapshot::clear(overlay)?;
        return Ok(Recovered::Nothing);
    };
    let Some((head, steps)) = plan else {
        fault.step()?;
        journal.end()?;
        return Ok(Recovered::Undone);
    };
    let lower = lower()?;
    let root = layer::look_at(&lower).map_err(ReviewError::io("look at", b""))?;
    if root.identity() != head.lower {
        return Err(ReviewError::Moved {
            path: "what it was committed to".to_owned(),
        });
    }
    let mut work = Work {
        overlay,
        lower: &lower,
        head: &head,
        steps: &steps,
        fault,
    };
    work.open()?;
    if committed {
        work.complete()?;
    } else {
        work.undo()?;
    }
    if committed && head.whole {
        emptied()?;
    }
    work.fault.step()?;
    journal.end()?;
    Ok(if committed {
        Recovered::Completed
    } else {
        Recovered::Undone
    })
}

pub(super) struct Work<'a> {
    pub(super) overlay: &'a Path,
    pub(super) lower: &'a Beneath,
    pub(super) head: &'a Head,
    pub(super) steps: &'a [Step],
    pub(super) fault: &'a mut Fault,
}

pub(super) fn bytes(text: &str) -> Result<Vec<u8>, ReviewError> {
    unescape(text).ok_or_else(|| ReviewError::Journal(format!("{text} is no path")))
}

pub(super) fn failed(action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> ReviewError {
    let made = ReviewError::io(action, path);
    move |error| made(error.into())
}

fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR)
}

impl Work<'_> {
    fn directory_of(&self, path: &[u8]) -> Result<Beneath, ReviewError> {
        let directory = parted(path).0;
        self.lower.dir(as_path(directory)).map_err(failed("open", directory))
    }

    pub(super) fn puts(&self) -> impl Iterator<Item = (usize, &Step)> {
        self.steps.iter().enumerate().filter(|(_, step)| step.what == What::Put)
    }

    /// Opens directories of our own that are closed to us.
    pub(super) fn open(&mut self) -> Result<(), ReviewError> {
        for step in self.steps.iter().filter(|step| step.what == What::Open) {
            self.fault.step()?;
            self.set_mode(step, step.mode.unwrap_or_default() | reach::WRITE)?;
        }
        Ok(())
    }

    /// Gives a directory another mode, if it is there.
    fn set_mode(&self, step: &Step, mode: u32) -> Result<(), ReviewError> {
        let path = bytes(&step.path)?;
        let directory = match self.lower.dir(as_path(&path)) {
            Ok(directory) => directory,
            Err(error) if is_gone(error) || error == Errno::LOOP => return Ok(()),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", &path))
    }

    /// That the lower is what it was when the plan was made.
    fn unchanged(&self) -> Result<(), ReviewError> {
        for step in self.steps {
            let path = bytes(&step.path)?;
            let (directory, name) = parted(&path);
            let now = match self.lower.dir(as_path(directory)) {
                Ok(directory) => layer::look(&directory, name).map_err(ReviewError::io("look at", &path))?,
                // A link in the way is a step of its own, or was put there meanwhile: then nothing is where something was.
                Err(error) if is_gone(error) || error == Errno::LOOP => None,
                Err(error) => return Err(failed("open", directory)(error)),
            };
            let same = match (&step.before, &now) {
                (None, None) => true,
                (Some(stamp), Some(entry)) => stamp.is_of(entry),
                _ => false,
            };
            let same = same
                && match &step.tree {
                    Some(seen) => *seen == tree::seen(self.lower, &path)?,
                    None => true,
                };
            if !same {
                return Err(ReviewError::Raced {
                    path: step.path.clone(),
                });
            }
        }
        Ok(())
    }

    /// Removes every temporary.
    fn undo(&mut self) -> Result<(), ReviewError> {
        for (number, step) in self.steps.iter().enumerate().filter(|(_, step)| step.what == What::Put) {
            let beside = bytes(step.beside.as_deref().unwrap_or_default())?;
            let lower = match self.lower.dir(as_path(&beside)) {
                Ok(lower) => lower,
                // Somebody removed it, with what was in it.
                Err(error) if is_gone(error) || error == Errno::LOOP => continue,
                Err(error) => return Err(failed("open", &beside)(error)),
            };
            self.fault.step()?;
            let temporary = self.head.temporary(number);
            // What is not there cannot be removed from a file system that is read-only: so it says that, and not that nothing is there.
            if layer::look(&lower, OsStr::new(&temporary))
                .map_err(ReviewError::io("look at", &beside))?
                .is_none()
            {
                continue;
            }
            match rustix::fs::unlinkat(lower, &temporary, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("remove a temporary of", &bytes(&step.path)?)(error)),
            }
        }
        for step in self.steps.iter().rev().filter(|step| step.what == What::Open) {
            self.fault.step()?;
            self.set_mode(step, step.mode.unwrap_or_default())?;
        }
        Ok(())
    }

    /// All that comes after the mark.
    fn complete(&mut self) -> Result<(), ReviewError> {
        self.open_up()?;
        for (number, step) in self.steps.iter().enumerate() {
            self.fault.step()?;
            self.apply(number, step)?;
        }
        for step in self.steps.iter().rev() {
            if let (Some(mode), What::MakeDirectory | What::SetMode | What::Open) = (step.mode, step.what) {
                self.fault.step()?;
                self.finish_directory(step, mode)?;
            }
        }
        self.sync()?;
        if self.head.whole {
            self.empty_upper()
        } else {
            self.take_from_upper()
        }
    }

    /// Directories whose modes come last may have got them already, before a crash: then we might get no further.
    fn open_up(&self) -> Result<(), ReviewError> {
        if rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let given = |step: &&Step| matches!(step.what, What::MakeDirectory | What::SetMode);
        for step in self.steps.iter().filter(given) {
            let path = bytes(&step.path)?;
            let (directory, name) = parted(&path);
            match self.lower.dir(as_path(directory)) {
                Ok(directory) => reach::open_up(directory, name).map_err(ReviewError::io("open", &path))?,
                Err(error) if is_gone(error) || error == Errno::LOOP => {}
                Err(error) => return Err(failed("open", directory)(error)),
            }
        }
        Ok(())
    }

    fn apply(&mut self, number: usize, step: &Step) -> Result<(), ReviewError> {
        let path = bytes(&step.path)?;
        let name = parted(&path).1;
        match step.what {
            What::SetMode | What::Open => Ok(()),
            What::Remove => match self.lower.dir(as_path(parted(&path).0)) {
                Ok(directory) => tree::remove(directory, name, &path),
                Err(error) if is_gone(error) => Ok(()),
                Err(error) => Err(failed("remove", &path)(error)),
            },
            What::MakeDirectory => {
                let directory = self.directory_of(&path)?;
                match layer::look(&directory, name).map_err(ReviewError::io("look at", &path))? {
                    Some(entry) if entry.kind == Kind::Directory => return Ok(()),
                    Some(_) => tree::remove(&directory, name, &path)?,
                    None => {}
                }
                rustix::fs::mkdirat(&directory, name, Mode::RWXU).map_err(failed("make", &path))
            }
            What::Put => self.put(number, step, &path),
        }
    }

    fn put(&mut self, number: usize, step: &Step, path: &[u8]) -> Result<(), ReviewError> {
        let name = parted(path).1;
        let beside = bytes(step.beside.as_deref().unwrap_or_default())?;
        let from = self.lower.dir(as_path(&beside)).map_err(failed("open", &beside))?;
        let temporary = self.head.temporary(number);
        if layer::look(&from, OsStr::new(&temporary))
            .map_err(ReviewError::io("look at", path))?
            .is_none()
            && !self.stage_again(&temporary, step, path)?
        {
            // It has its name already.
            return Ok(());
        }
        let to = self.directory_of(path)?;
        let directory = layer::look(&to, name).map_err(ReviewError::io("look at", path))?;
        if directory.is_some_and(|entry| entry.kind == Kind::Directory) {
            tree::remove(&to, name, path)?;
            self.fault.step()?;
        }
        rustix::fs::renameat(from, &*temporary, to, name).map_err(failed("put in place", path))
    }

    /// Makes a temporary anew that somebody removed after the mark, of what is still in the upper. False when it has its name already: then its place is
    /// not what it was before.
    fn stage_again(&self, temporary: &str, step: &Step, path: &[u8]) -> Result<bool, ReviewError> {
        let (directory, name) = parted(path);
        let now = match self.lower.dir(as_path(directory)) {
            Ok(directory) => layer::look(&directory, name).map_err(ReviewError::io("look at", path))?,
            Err(error) if is_gone(error) || error == Errno::LOOP => None,
            Err(error) => return Err(failed("open", directory)(error)),
        };
        let beside = bytes(step.beside.as_deref().unwrap_or_default())?;
        let lower = self.lower.dir(as_path(&beside)).map_err(failed("open", &beside))?;
        // Under another name first: a crash must not leave half of it under this one.
        let half = format!("{temporary}{AGAIN}");
        tree::remove(&lower, OsStr::new(&half), &beside)?;
        let is_waiting = match (&step.before, &now) {
            // What it replaces may have been removed for it.
            (_, None) => true,
            (Some(stamp), Some(entry)) => stamp.is_of(entry),
            (None, Some(_)) => false,
        };
        let upper = match super::root(&self.overlay.join(UPPER)) {
            // Everything had its place: the upper is being emptied.
            Err(ReviewError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
            upper => upper?,
        };
        if !is_waiting || !is_in(&upper, path)? {
            return Ok(false);
        }
        if let Some((file, _)) = self.stage_one(&upper, (step, path), &half)? {
            file.sync_all().map_err(ReviewError::io("write", path))?;
        }
        rustix::fs::renameat(&lower, &*half, &lower, temporary).map_err(failed("write", path))?;
        Ok(true)
    }

    fn finish_directory(&self, step: &Step, mode: u32) -> Result<(), ReviewError> {
        let path = bytes(&step.path)?;
        let directory = match self.lower.dir(as_path(&path)) {
            // It was removed by another step.
            Err(error) if is_gone(error) && step.what == What::Open => return Ok(()),
            directory => directory.map_err(failed("open", &path))?,
        };
        if let (What::MakeDirectory, Some(owner)) = (step.what, step.owner) {
            layer::give_to(&directory, owner).map_err(ReviewError::io("set the owner of", &path))?;
        }
        let mode = if self.head.force { mode | step.bits } else { mode };
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode)).map_err(failed("set the mode of", &path))?;
        match step.mtime_ns {
            Some(time) => layer::set_mtime(&directory, time).map_err(ReviewError::io("set the time of", &path)),
            None => Ok(()),
        }
    }

    /// Waits until every directory that a step changed is on disk.
    fn sync(&mut self) -> Result<(), ReviewError> {
        self.fault.step()?;
        let mut directories = BTreeSet::new();
        for step in self.steps {
            directories.insert(parted(&bytes(&step.path)?).0.to_vec());
            if directories.len() > SYNCED_ONE_BY_ONE_MAX {
                rustix::fs::syncfs(self.lower).map_err(failed("write", b""))?;
                return Ok(());
            }
        }
        for path in &directories {
            match self.lower.dir(as_path(path)) {
                Ok(directory) => rustix::fs::fsync(directory).map_err(failed("write", path))?,
                Err(error) if is_gone(error) => {}
                // It was committed as one that is closed.
                Err(Errno::ACCESS) => rustix::fs::syncfs(self.lower).map_err(failed("write", path))?,
                Err(error) => return Err(failed("open", path)(error)),
            }
        }
        Ok(())
    }

    /// Everything of the upper is in the lower now.
    fn empty_upper(&mut self) -> Result<(), ReviewError> {
        let mode = layer::look_at(self.lower)
            .map_err(ReviewError::io("look at", b""))?
            .mode();
        empty_upper(self.overlay, mode, self.fault)
    }

    /// Of the upper goes what was committed. Where a directory hides the lower it stays: without it the name would be gone.
    fn take_from_upper(&mut self) -> Result<(), ReviewError> {
        let upper = super::root(&self.overlay.join(UPPER))?;
        let own = |step: &&Step| !step.hidden && step.what != What::Open;
        for step in self.steps.iter().rev().filter(own) {
            self.fault.step()?;
            let path = bytes(&step.path)?;
            let (directory, name) = parted(&path);
            let directory = match reach::way(&upper, directory, reach::WRITE) {
                Ok(directory) => directory,
                Err(error) if is_gone(error) => continue,
                Err(error) => return Err(failed("open", directory)(error)),
            };
            take(&directory, name, step).map_err(failed("remove", &path))?;
        }
        Ok(())
    }
}

/// Whether the upper has something at a path.
fn is_in(upper: &Beneath, path: &[u8]) -> Result<bool, ReviewError> {
    let (directory, name) = parted(path);
    match reach::way(upper, directory, reach::READ) {
        Ok(directory) => Ok(layer::look(&directory, name)
            .map_err(ReviewError::io("look at", path))?
            .is_some()),
        Err(error) if is_gone(error) => Ok(false),
        Err(error) => Err(failed("open", directory)(error)),
    }
}

fn take(directory: &reach::Way, name: &OsStr, step: &Step) -> Result<(), Errno> {
    let result = match step.what {
        What::Open => return Ok(()),
        What::Put | What::Remove => rustix::fs::unlinkat(directory, name, AtFlags::empty()),
        What::MakeDirectory | What::SetMode => {
            let open = match reach::directory(directory, name, reach::READ) {
                Ok(open) => open,
                Err(error) => {
                    let error = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    return if is_gone(error) { Ok(()) } else { Err(error) };
                }
            };
            if layer::is_opaque(&open).unwrap_or(true) {
                return Ok(());
            }
            rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
        }
    };
    match result {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts an empty upper in the place of one, and removes that. A crash in between leaves one or the other, or none, which is the same.
///
/// # Errors
/// The file system's.
pub(super) fn empty_upper(overlay: &Path, mode: u32, fault: &mut Fault) -> Result<(), ReviewError> {
    let directory = layer::open_root(overlay).map_err(ReviewError::io("open", b""))?;
    let (upper, spent) = (OsStr::new(UPPER), OsStr::new(SPENT));
    fault.step()?;
    tree::remove(&directory, spent, SPENT.as_bytes())?;
    fault.step()?;
    match rustix::fs::renameat(&directory, upper, &directory, spent) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed("empty", UPPER.as_bytes())(error)),
    }
    fault.step()?;
    match make_upper(&directory, mode) {
        // Also an empty directory takes a block: there is one when the old one is gone.
        Err(error) if error.is_full() => {
            tree::remove(&directory, spent, SPENT.as_bytes())?;
            make_upper(&directory, mode)?;
        }
        made => made?,
    }
    rustix::fs::fsync(&directory).map_err(failed("write", b""))?;
    fault.step()?;
    tree::remove(&directory, spent, SPENT.as_bytes())
}

/// Makes an empty upper, whose mode the root of the workspace then has.
///
/// # Errors
/// The file system's.
pub fn make_upper(overlay: impl AsFd, mode: u32) -> Result<(), ReviewError> {
    let upper = OsStr::new(UPPER);
    match rustix::fs::mkdirat(&overlay, upper, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed("make", UPPER.as_bytes())(error)),
    }
    let made = layer::open_directory(&overlay, upper).map_err(ReviewError::io("make", UPPER.as_bytes()))?;
    rustix::fs::fchmod(made, Mode::from_raw_mode(mode)).map_err(failed("make", UPPER.as_bytes()))
}
