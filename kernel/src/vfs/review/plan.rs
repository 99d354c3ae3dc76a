//! What a commit will do to the lower, step by step, and what is in its way.
//!
//! A path conflicts when the lower changed there since the workspace was first written to, and has not become what would be written anyway. What
//! the lower is at each path is remembered, and looked at once more before the first thing is changed; of a directory that is removed, everything
//! in it. That something was made in a directory is no conflict with what is made beside it.
//!
//! Set-id bits, and the sticky bit of a file, are not committed unless the lower has them there already, or it is forced: a file of the daemon's
//! user in a directory of somebody else would act as that user. So the plan has the mode without them, and which they are.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;

use astrid_wire::control::workspace::{Conflict, Counts, How, escape};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::super::layer::{self, Entry, Kind};
use super::super::reach;
use super::changes::{Change, Which, names, tally, walk};
use super::{Choice, DEPTH_MAX, Layers, ReviewError, as_path, brief, is_within, joined, order, parted, shown, tree};

/// Steps of a plan at most: some hundred bytes each are held in memory.
pub const STEPS_MAX: usize = 1_000_000;

/// Conflicts that are named at most; all are counted.
pub const CONFLICTS_SHOWN_MAX: usize = 1000;

/// Paths that are named as left out, or as not committed as they are, at most.
const LEFT_OUT_SHOWN_MAX: usize = 100;

/// Why a directory whose mode differs is in the way.
const OTHER_MODE: &str = "it has another mode, and something about it, or in it, changed meanwhile";

/// What happens at once has the same time, but for the tick of a clock.
const AT_ONCE_NS: i128 = 20_000_000;

/// Why a file that is not there is in the way.
const GONE: &str = "it was removed meanwhile";

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;

/// Why a directory that would be removed is in the way. A commit of something in it is a reason, too.
pub const IN_DIRECTORY: &str = "something was made or removed in it meanwhile";

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A staged file or link takes its place.
    Put,
    /// A directory is made.
    MakeDirectory,
    /// A directory gets another mode.
    SetMode,
    /// It is removed, with what is in it.
    Remove,
    /// A directory of our own that is closed to us is opened for what the others do in it, and closed again.
    Open,
}

/// What the lower had at a path when the plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    device: u64,
    inode: u64,
    ctime_ns: i128,
    directory: bool,
}

impl Stamp {
    fn of(entry: &Entry) -> Self {
        let (device, inode) = entry.identity();
        let directory = entry.kind == Kind::Directory;
        Self {
            device,
            inode,
            ctime_ns: entry.ctime_ns(),
            directory,
        }
    }

    /// Whether an entry is the same, unchanged. Of a directory only that it is the same one.
    #[must_use]
    pub fn is_of(&self, entry: &Entry) -> bool {
        let mut now = Self::of(entry);
        if self.directory {
            now.ctime_ns = self.ctime_ns;
        }
        *self == now
    }
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where, escaped.
    pub path: String,
    /// What is done.
    pub what: What,
    /// Permission bits of a file or directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Bits that the workspace has besides, and that are only committed when it is forced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bits: u32,
    /// Who gets what is put, user and group; absent where it is who commits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Hash over what was in a directory that is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<String>,
    /// When a directory that is made changed last, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime_ns: Option<i128>,
    /// The directory of the lower, escaped, that what is put waits in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// What the lower had there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Stamp>,
    /// Whether the upper's entry has to stay when only some paths are committed: a directory above hides the lower.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

impl Step {
    /// Opens a directory of our own that is closed to us; its mode is what it has again afterwards.
    pub(super) fn opening(path: String, entry: &Entry) -> Self {
        Self {
            path,
            what: What::Open,
            mode: Some(entry.mode()),
            bits: 0,
            owner: None,
            tree: None,
            mtime_ns: None,
            beside: None,
            before: Some(Stamp::of(entry)),
            hidden: false,
        }
    }
}

fn is_zero(bits: &u32) -> bool {
    *bits == 0
}

/// A commit that has not begun.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of a walk.
    pub steps: Vec<Step>,
    /// Changes, counted.
    pub changes: Counts,
    /// What is in the way; the first of them.
    pub conflicts: Vec<Conflict>,
    /// How many are.
    pub conflicts_total: u64,
    /// What cannot be committed: devices, fifos, sockets, what is too deep; the first of them.
    pub left_out: Vec<String>,
    /// Why; the first of them.
    pub remarks: Vec<Conflict>,
    /// Bits of modes that are only committed when it is forced; the first of them.
    pub kept_back: Vec<Conflict>,
    /// Those of the paths that were chosen at which there are changes.
    chosen: HashSet<Vec<u8>>,
}

impl Plan {
    /// That each path that was named is one of a change, or has changes below it.
    ///
    /// # Errors
    /// [`ReviewError::NoChange`].
    pub fn has_all(&self, choice: &Choice) -> Result<(), ReviewError> {
        match choice.paths().iter().find(|path| !self.chosen.contains(*path)) {
            Some(path) => Err(ReviewError::NoChange(brief(path))),
            None => Ok(()),
        }
    }
}

/// Makes a plan.
///
/// # Errors
/// The file systems', naming the path.
pub fn make(layers: &Layers, choice: &Choice, since_ns: Option<i128>) -> Result<Plan, ReviewError> {
    let mut maker = Maker {
        layers,
        choice,
        since_ns: since_ns.unwrap_or(i128::MAX),
        plan: Plan::default(),
        removed: None,
        parents: Vec::new(),
        known: HashSet::new(),
        hidden: HashSet::new(),
        gone_ns: BTreeSet::new(),
        moved: Vec::new(),
    };
    // Also what was not chosen: a directory that has to be made for something that was.
    walk(layers, &Which::default(), &mut |change| {
        maker.add(change)?;
        Ok(ControlFlow::Continue(()))
    })?;
    maker.tell_moved()?;
    Ok(maker.plan)
}

struct Maker<'a> {
    layers: &'a Layers,
    choice: &'a Choice,
    since_ns: i128,
    plan: Plan,
    /// The directory that a step removes as a whole.
    removed: Option<Vec<u8>>,
    /// Directories on the way that are made only if something in them is committed.
    parents: Vec<Change>,
    /// Inodes of the lower where the workspace has something else, or nothing.
    known: HashSet<u64>,
    /// Sizes and times of what the workspace has not.
    hidden: HashSet<(u64, i128)>,
    /// When whiteouts were made.
    gone_ns: BTreeSet<i128>,
    /// Files that were copied from one of the lower, which may be one of those; and as which inodes, where that is known.
    moved: Vec<(Vec<u8>, Entry, Option<Vec<u64>>)>,
}

/// Which bits of a mode are not committed: those that make who runs a file somebody else, where the lower has them not.
fn special_bits(after: &Entry, before: Option<&Entry>, nearest: &Entry) -> u32 {
    let (special, had) = match after.kind {
        Kind::File => (SET_UID | SET_GID | STICKY, before.map_or(0, Entry::mode)),
        // A directory is made with the set-group-id of the one that it is made in.
        Kind::Directory => (SET_UID | SET_GID, before.map_or(nearest.mode() & SET_GID, Entry::mode)),
        _ => return 0,
    };
    after.mode() & special & !had
}

/// Notes something about a path, if there is room.
fn note(remarks: &mut Vec<Conflict>, path: &[u8], why: String) {
    if remarks.len() < LEFT_OUT_SHOWN_MAX {
        let path = brief(path);
        remarks.push(Conflict { path, why });
    }
}

impl Maker<'_> {
    fn add(&mut self, change: Change) -> Result<(), ReviewError> {
        if let Some(before) = change.before.filter(|before| before.kind != Kind::Directory) {
            self.known.insert(before.identity().1);
            if change.how == How::Removed {
                self.hidden.insert((before.size(), before.mtime_ns()));
            }
        }
        self.gone_ns.extend(change.gone_ns);
        self.parents.retain(|parent| is_within(&change.path, &parent.path));
        if !self.choice.has(&change.path) {
            let directory = |entry: &Entry| entry.kind == Kind::Directory;
            let made = change.after.as_ref().is_some_and(directory) && !change.before.as_ref().is_some_and(directory);
            if made && self.choice.may_have_below(&change.path) {
                self.parents.push(change);
            }
            return Ok(());
        }
        for path in self.choice.paths() {
            if is_within(&change.path, path) && !self.plan.chosen.contains(path) {
                self.plan.chosen.insert(path.clone());
            }
        }
        let why = match &change.after {
            Some(after) if after.kind == Kind::Other => {
                "it is no file, directory or link, and stays in the workspace".to_owned()
            }
            Some(_) if change.deep => {
                format!("it is more than {DEPTH_MAX} directories deep, and stays in the workspace")
            }
            _ => String::new(),
        };
        if !why.is_empty() {
            if self.plan.left_out.len() < LEFT_OUT_SHOWN_MAX {
                self.plan.left_out.push(shown(&change.path));
            }
            note(&mut self.plan.remarks, &change.path, why);
            return Ok(());
        }
        for parent in std::mem::take(&mut self.parents) {
            self.step(&parent)?;
        }
        self.step(&change)
    }

    fn step(&mut self, change: &Change) -> Result<(), ReviewError> {
        tally(&mut self.plan.changes, change.how);
        self.check(change)?;
        if self
            .removed
            .as_ref()
            .is_some_and(|removed| is_within(&change.path, removed))
            && change.how == How::Removed
        {
            return Ok(());
        }
        let mut step = self.make(change)?;
        if step.bits != 0 {
            let mut names = Vec::new();
            for (bit, name) in [(SET_UID, "set-user-id"), (SET_GID, "set-group-id"), (STICKY, "sticky")] {
                names.extend((step.bits & bit != 0).then_some(name));
            }
            let why = format!("its bits are committed only with --force: {}", names.join(", "));
            note(&mut self.plan.kept_back, &change.path, why);
        }
        if matches!(step.what, What::Remove | What::Put) && step.before.is_some_and(|stamp| stamp.directory) {
            self.removed = Some(change.path.clone());
            // Before what is in it is looked at one by one: what comes later is noticed there, or by this.
            step.tree = Some(tree::seen(&self.layers.lower, &change.path)?);
        }
        if self.plan.steps.len() >= STEPS_MAX {
            return Err(ReviewError::TooManySteps);
        }
        self.plan.steps.push(step);
        Ok(())
    }

    fn make(&self, change: &Change) -> Result<Step, ReviewError> {
        let mut step = Step {
            path: escape(&change.path),
            what: What::Remove,
            mode: None,
            bits: 0,
            owner: None,
            tree: None,
            mtime_ns: None,
            beside: None,
            before: change.before.as_ref().map(Stamp::of),
            hidden: change.hidden,
        };
        let Some(after) = &change.after else { return Ok(step) };
        let before = change.before.as_ref().filter(|before| before.kind == after.kind);
        let (beside, nearest) = self.nearest(&change.path)?;
        let as_root = rustix::process::geteuid().is_root();
        step.owner = before.map(Entry::owner).or(as_root.then(|| nearest.owner()));
        step.bits = special_bits(after, before, &nearest);
        step.mode = Some(after.mode() & !step.bits).filter(|_| after.kind != Kind::Symlink);
        if after.kind == Kind::Directory {
            if before.is_some() {
                step.what = What::SetMode;
            } else {
                step.what = What::MakeDirectory;
                step.mtime_ns = Some(after.mtime_ns());
            }
        } else {
            step.what = What::Put;
            step.beside = Some(escape(&beside));
        }
        Ok(step)
    }

    /// The directory of the lower that a path is in, or the one that is nearest above; and what it is.
    fn nearest(&self, path: &[u8]) -> Result<(Vec<u8>, Entry), ReviewError> {
        let mut directory = parted(path).0;
        loop {
            match self.layers.lower.dir(as_path(directory)) {
                Ok(open) => {
                    let entry = layer::look_at(&open).map_err(ReviewError::io("look at", directory))?;
                    return Ok((directory.to_vec(), entry));
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !directory.is_empty() => {
                    directory = parted(directory).0;
                }
                Err(error) => return Err(ReviewError::io("open", directory)(error.into())),
            }
        }
    }

    fn check(&mut self, change: &Change) -> Result<(), ReviewError> {
        let why = match (&change.before, &change.after) {
            // What made them differ cannot be told: somebody here, or the workspace. It is not as it was, and so it is asked.
            (Some(before), Some(after)) if before.kind == Kind::Directory && after.kind == Kind::Directory => {
                (before.changed_after(self.since_ns)).then_some(OTHER_MODE)
            }
            (Some(_), _) if change.turned_ns > self.since_ns => {
                Some("a directory that it is in was replaced, or got another mode, meanwhile")
            }
            (Some(before), after) if before.changed_after(self.since_ns) => Some(match (before.kind, after) {
                (Kind::Directory, None) => IN_DIRECTORY,
                (_, None) => "it was changed meanwhile, and would be removed",
                (_, Some(after)) if after.kind != before.kind => "it became something else meanwhile",
                _ => "it was changed meanwhile",
            }),
            (None, Some(after)) if after.kind == Kind::File => match self.was_removed(change)? {
                Removed::No => None,
                Removed::Unless(inodes) => {
                    self.moved.push((change.path.clone(), *after, inodes));
                    None
                }
            },
            _ => None,
        };
        if let Some(why) = why {
            self.conflict(&change.path, why);
        }
        Ok(())
    }

    fn conflict(&mut self, path: &[u8], why: &str) {
        self.plan.conflicts_total += 1;
        if self.plan.conflicts.len() < CONFLICTS_SHOWN_MAX {
            let (path, why) = (shown(path), why.to_owned());
            self.plan.conflicts.push(Conflict { path, why });
        }
    }

    /// Files that were copied from one that is not at their place: what the workspace moved is still in the lower, at a place that differs.
    fn tell_moved(&mut self) -> Result<(), ReviewError> {
        let mut told = false;
        let mut still: Option<Still> = None;
        for (path, file, inodes) in std::mem::take(&mut self.moved) {
            let elsewhere = match &inodes {
                Some(inodes) => inodes.iter().any(|inode| self.known.contains(inode)),
                // It was moved as it was; or moving it was the last that happened to it: that left a whiteout in the same moment.
                None => {
                    let moment = file.ctime_ns() - AT_ONCE_NS..=file.ctime_ns() + AT_ONCE_NS;
                    self.hidden.contains(&(file.size(), file.mtime_ns())) || self.gone_ns.range(moment).next().is_some()
                }
            };
            if elsewhere {
                continue;
            }
            // Or it was copied in the workspace, or has a second name: then the lower has it where it was, and nothing differs there.
            let still = match &mut still {
                Some(still) => still,
                none => none.insert(Still::look(self.layers, self.since_ns)?),
            };
            if !still.has(&file, inodes.as_deref()) {
                self.conflict(&path, GONE);
                told = true;
            }
        }
        if told {
            self.plan
                .conflicts
                .sort_by(|one, other| order(one.path.as_bytes(), other.path.as_bytes()));
        }
        Ok(())
    }

    /// Whether a file of the upper was copied from one that the lower has not any more.
    fn was_removed(&self, change: &Change) -> Result<Removed, ReviewError> {
        let (directory, name) = parted(&change.path);
        let failed = || ReviewError::io("look at", &change.path);
        let directory = reach::way(&self.layers.upper, directory, reach::READ);
        let directory = directory.map_err(|error| failed()(error.into()))?;
        let file = reach::file(directory, name).map_err(failed())?;
        let Some(origin) = layer::origin(&*file).map_err(failed())? else {
            return Ok(Removed::No);
        };
        if !self.nearest(&change.path)?.1.changed_after(self.since_ns) {
            return Ok(Removed::No);
        }
        Ok(Removed::Unless(origin.inodes()))
    }
}

/// The files that the lower has in those directories that the workspace has a copy of: what was copied into the upper came out of one of them.
#[derive(Default)]
struct Still {
    inodes: HashSet<u64>,
    /// Their sizes and times.
    like: HashSet<(u64, i128)>,
}

impl Still {
    fn look(layers: &Layers, since_ns: i128) -> Result<Self, ReviewError> {
        let mut still = Self::default();
        let mut waiting = vec![(Vec::new(), 0)];
        while let Some((path, depth)) = waiting.pop() {
            let failed = |error: Errno| ReviewError::io("look at", &path)(error.into());
            let upper = reach::way(&layers.upper, &path, reach::READ).map_err(failed)?;
            for name in names(&upper, &path)? {
                let entry = layer::look(&upper, &name).map_err(ReviewError::io("look at", &path))?;
                if entry.is_some_and(|entry| entry.kind == Kind::Directory) && depth < DEPTH_MAX {
                    waiting.push((joined(&path, &name), depth + 1));
                }
            }
            let lower = match layers.lower.dir(as_path(&path)) {
                Ok(lower) => lower,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS | Errno::XDEV) => continue,
                Err(error) => return Err(failed(error)),
            };
            // What cannot be looked at does not say that anything is still there.
            for name in names(&lower, &path).unwrap_or_default() {
                let Ok(Some(entry)) = layer::look(&lower, &name) else {
                    continue;
                };
                // What was given another name has changed.
                if entry.kind == Kind::File && !entry.changed_after(since_ns) {
                    still.inodes.insert(entry.identity().1);
                    still.like.insert((entry.size(), entry.mtime_ns()));
                }
            }
        }
        Ok(still)
    }

    fn has(&self, file: &Entry, inodes: Option<&[u64]>) -> bool {
        match inodes {
            Some(inodes) => inodes.iter().any(|inode| self.inodes.contains(inode)),
            None => self.like.contains(&(file.size(), file.mtime_ns())),
        }
    }
}

/// Whether the lower had a file.
enum Removed {
    No,
    /// It is elsewhere in the lower, as one of these inodes where they are known.
    Unless(Option<Vec<u64>>),
}
