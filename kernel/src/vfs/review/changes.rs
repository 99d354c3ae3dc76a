//! What differs between the lower and what a workspace shows, path by path: a walk of the upper, and of the lower only where the upper hides
//! something of it.
//!
//! A path is a change when its kind, its mode or its content is another; times and owners alone are none. Content is compared byte by byte, and
//! only where sizes are equal; what neither file has on the disk (holes) is not read. What is held in memory is the names of the directories on the
//! way to where the walk is. Directories that are too deep are told and not looked into.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;

use astrid_wire::control::workspace::{Counts, How};
use rustix::fs::Dir as Entries;

use super::super::layer::{self, Entry, Kind};
use super::super::reach;
use super::{Choice, DEPTH_MAX, Layers, NAMES_MAX, PATH_BYTES_MAX, ReviewError, is_within, joined, order};

/// Bytes of two files that are compared at once.
const COMPARED_BYTES: usize = 64 << 10;

/// A path that differs.
#[derive(Debug)]
pub struct Change {
    /// Which, relative to the workspace.
    pub path: Vec<u8>,
    /// What became of it.
    pub how: How,
    /// What the lower has.
    pub before: Option<Entry>,
    /// What the workspace has.
    pub after: Option<Entry>,
    /// Whether the upper hides the lower here as a whole: a directory above is opaque.
    pub hidden: bool,
    /// Whether it is a directory of the upper that is too deep to be looked into.
    pub deep: bool,
    /// When one of the directories of the lower on the way became another one, or changed otherwise than by what is in it, in nanoseconds since
    /// 1970; [`i128::MIN`] for never, and [`i128::MAX`] when the workspace has a copy of another one.
    pub turned_ns: i128,
    /// When the whiteout was made that hides it, if one does that moving something may have left, in nanoseconds since 1970.
    pub gone_ns: Option<i128>,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Which<'a> {
    /// Only these.
    pub choice: Choice,
    /// Only what comes after this path.
    pub after: Option<&'a [u8]>,
}

/// Who hears of changes, and may end the walk.
pub type Visit<'a> = dyn FnMut(Change) -> Result<ControlFlow<()>, ReviewError> + 'a;

/// Walks the changes in order: a directory, then what is in it, names as bytes.
///
/// # Errors
/// The file systems', naming the path; and the visitor's.
pub fn walk(layers: &Layers, which: &Which<'_>, visit: &mut Visit<'_>) -> Result<(), ReviewError> {
    let open = |beneath: &super::Beneath| beneath.dir(std::path::Path::new(""));
    let upper = reach::way(&layers.upper, b"", reach::READ);
    let upper = upper.map_err(|error| ReviewError::io("open", b"")(error.into()))?;
    let lower = open(&layers.lower).map_err(|error| ReviewError::io("open", b"")(error.into()))?;
    let mut walk = Walk {
        which,
        visit,
        depth: 0,
        turned_ns: i128::MIN,
    };
    walk.directory(&[], upper.as_fd(), Some(lower.as_fd()), false).map(drop)
}

/// Counts changes that were chosen; at most so many.
///
/// # Errors
/// As [`walk`].
pub fn count(layers: &Layers, choice: &Choice, max: u64) -> Result<Counts, ReviewError> {
    let mut counts = Counts::default();
    let which = Which {
        choice: choice.clone(),
        after: None,
    };
    walk(layers, &which, &mut |change| {
        tally(&mut counts, change.how);
        let enough = counts.all() >= max;
        Ok(if enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(counts)
}

/// Counts one.
pub(super) fn tally(counts: &mut Counts, how: How) {
    match how {
        How::Added => counts.added += 1,
        How::Modified => counts.modified += 1,
        How::Removed => counts.removed += 1,
    }
}

/// The first names in a directory, as it gives them: at most so many.
///
/// # Errors
/// The file system's.
pub(super) fn some_names(directory: impl AsFd, max: usize) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Entries::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(OsString::from_vec(name.to_vec()));
        }
        if names.len() >= max {
            break;
        }
    }
    Ok(names)
}

/// The names in a directory, in order.
///
/// # Errors
/// The file system's, and too many names.
pub(in super::super) fn names(directory: impl AsFd, path: &[u8]) -> Result<Vec<OsString>, ReviewError> {
    let read = some_names(directory, NAMES_MAX + 1);
    let mut names = read.map_err(|error| ReviewError::io("list", path)(error.into()))?;
    if names.len() > NAMES_MAX {
        return Err(ReviewError::TooMany {
            path: super::shown(path),
        });
    }
    names.sort_unstable();
    Ok(names)
}

type Borrowed<'a> = std::os::fd::BorrowedFd<'a>;

struct Walk<'a, 'b> {
    which: &'a Which<'a>,
    visit: &'a mut Visit<'b>,
    depth: usize,
    turned_ns: i128,
}

/// After a change of what is in a directory both of its times are the same, but for the tick of a clock; after another change they are not.
const SAME_CHANGE_NS: i128 = 100_000_000;

/// When a directory of the lower became another than the workspace has a copy of; see [`Change::turned_ns`].
fn turned_ns(upper: Borrowed<'_>, lower: Borrowed<'_>) -> std::io::Result<i128> {
    let entry = layer::look_at(lower)?;
    if let Some(inodes) = layer::origin(upper)?.and_then(|origin| origin.inodes()) {
        let same = inodes.contains(&entry.stat.st_ino);
        return Ok(if same { i128::MIN } else { i128::MAX });
    }
    let apart = entry.ctime_ns() - entry.mtime_ns() > SAME_CHANGE_NS;
    Ok(if apart { entry.changed_at_most_ns() } else { i128::MIN })
}

impl Walk<'_, '_> {
    /// Whether a path, or something below it, is asked for.
    fn concerns(&self, path: &[u8]) -> bool {
        let later = self
            .which
            .after
            .is_none_or(|after| order(path, after).is_gt() || is_within(after, path));
        later && self.which.choice.may_have_below(path)
    }

    fn tell(&mut self, change: Change) -> Result<ControlFlow<()>, ReviewError> {
        let later = self.which.after.is_none_or(|after| order(&change.path, after).is_gt());
        if later && self.which.choice.has(&change.path) {
            return (self.visit)(change);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn directory(
        &mut self,
        path: &[u8],
        upper: Borrowed<'_>,
        lower: Option<Borrowed<'_>>,
        hidden: bool,
    ) -> Result<ControlFlow<()>, ReviewError> {
        self.depth += 1;
        let above_ns = self.turned_ns;
        // What happens to the root itself is looked for elsewhere: it is known by its inode.
        if let (Some(lower), false) = (lower, path.is_empty()) {
            let turned = turned_ns(upper, lower).map_err(ReviewError::io("look at", path))?;
            self.turned_ns = above_ns.max(turned);
        }
        let hidden = hidden || layer::is_opaque(upper).map_err(ReviewError::io("read", path))?;
        let mut names_here = names(upper, path)?;
        if let (true, Some(lower)) = (hidden, lower) {
            names_here.extend(names(lower, path)?);
            names_here.sort_unstable();
            names_here.dedup();
        }
        let files_too = layer::has_whiteout_files(upper).map_err(ReviewError::io("read", path))?;
        for name in names_here {
            let path = joined(path, &name);
            if !self.concerns(&path) {
                continue;
            }
            if self.entry(path, &name, (upper, files_too), lower, hidden)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.depth -= 1;
        self.turned_ns = above_ns;
        Ok(ControlFlow::Continue(()))
    }

    /// Whether a directory is too deep to be looked into: it would be one too many that is open, or have names that nothing takes.
    fn is_deep(&self, path: &[u8]) -> bool {
        self.depth >= DEPTH_MAX || path.len() >= PATH_BYTES_MAX
    }

    fn entry(
        &mut self,
        path: Vec<u8>,
        name: &OsString,
        (upper, files_too): (Borrowed<'_>, bool),
        lower: Option<Borrowed<'_>>,
        hidden: bool,
    ) -> Result<ControlFlow<()>, ReviewError> {
        let mut after = layer::look(upper, name).map_err(ReviewError::io("look at", &path))?;
        let whiteout = after.filter(|entry| entry.kind == Kind::Whiteout);
        if let Some(entry) = &after {
            let gone = entry.kind == Kind::Whiteout
                || files_too
                    && layer::stands_for_whiteout(upper, name, entry).map_err(ReviewError::io("look at", &path))?;
            after = after.filter(|_| !gone);
        }
        let before = match lower {
            Some(lower) => layer::look(lower, name).map_err(ReviewError::io("look at", &path))?,
            None => None,
        };
        let how = match (&before, &after) {
            (None, None) => return Ok(ControlFlow::Continue(())),
            (None, Some(_)) => Some(How::Added),
            (Some(_), None) => Some(How::Removed),
            (Some(old), Some(new)) => differ(old, new, || open_both(lower, upper, name))
                .map_err(ReviewError::io("compare", &path))?
                .then_some(How::Modified),
        };
        let deep = after.is_some_and(|after| after.kind == Kind::Directory) && self.is_deep(&path);
        if let Some(how) = how.or(deep.then_some(How::Modified)) {
            let change = Change {
                path: path.clone(),
                how,
                before,
                after,
                hidden,
                deep,
                turned_ns: self.turned_ns,
                // Whiteouts of what was removed share one inode, as the kernel makes them.
                gone_ns: whiteout
                    .filter(|entry| entry.stat.st_nlink == 1)
                    .as_ref()
                    .map(Entry::mtime_ns),
            };
            if self.tell(change)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.below(&path, name, (upper, after), (lower, before), hidden)
    }

    /// What is in a directory follows it.
    fn below(
        &mut self,
        path: &[u8],
        name: &OsString,
        (upper, after): (Borrowed<'_>, Option<Entry>),
        (lower, before): (Option<Borrowed<'_>>, Option<Entry>),
        hidden: bool,
    ) -> Result<ControlFlow<()>, ReviewError> {
        let is_directory = |entry: Option<Entry>| entry.is_some_and(|entry| entry.kind == Kind::Directory);
        if self.is_deep(path) {
            return Ok(ControlFlow::Continue(()));
        }
        let old = match lower {
            Some(lower) if is_directory(before) => open_lower(lower, name, path)?,
            _ => None,
        };
        if is_directory(after) {
            let new = reach::directory(upper, name, reach::READ).map_err(ReviewError::io("open", path))?;
            return self.directory(path, new.as_fd(), old.as_ref().map(AsFd::as_fd), hidden);
        }
        match old {
            Some(old) => self.removed(path, &old, hidden),
            None => Ok(ControlFlow::Continue(())),
        }
    }

    /// Everything in a directory of the lower that is gone.
    fn removed(&mut self, path: &[u8], lower: &OwnedFd, hidden: bool) -> Result<ControlFlow<()>, ReviewError> {
        self.depth += 1;
        for name in names(lower, path)? {
            let path = joined(path, &name);
            if !self.concerns(&path) {
                continue;
            }
            let before = layer::look(lower, &name).map_err(ReviewError::io("look at", &path))?;
            let Some(entry) = before else { continue };
            let change = Change {
                path: path.clone(),
                how: How::Removed,
                before,
                after: None,
                hidden,
                deep: false,
                turned_ns: self.turned_ns,
                gone_ns: None,
            };
            if self.tell(change)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if entry.kind == Kind::Directory
                && !self.is_deep(&path)
                && let Some(below) = open_lower(lower.as_fd(), &name, &path)?
                && self.removed(&path, &below, hidden)?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        self.depth -= 1;
        Ok(ControlFlow::Continue(()))
    }
}

/// A directory of the lower; `None` when it is closed to us: then what is in it cannot be told.
fn open_lower(lower: Borrowed<'_>, name: &OsString, path: &[u8]) -> Result<Option<OwnedFd>, ReviewError> {
    match layer::open_directory(lower, name) {
        Ok(open) => Ok(Some(open)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(ReviewError::io("open", path)(error)),
    }
}

/// The same name in both layers.
enum Both {
    Files(File, reach::OpenedFile),
    /// The lower's file is closed to us.
    Unknown,
    Targets(Vec<u8>, Vec<u8>),
}

fn open_both(lower: Option<Borrowed<'_>>, upper: Borrowed<'_>, name: &OsString) -> std::io::Result<Both> {
    let lower = lower.ok_or(std::io::ErrorKind::NotFound)?;
    let target = |layer| rustix::fs::readlinkat(layer, name, Vec::new()).map(std::ffi::CString::into_bytes);
    if layer::look(upper, name)?.is_some_and(|entry| entry.kind == Kind::Symlink) {
        return Ok(Both::Targets(target(lower)?, target(upper)?));
    }
    match layer::open_file(lower, name) {
        Ok(old) => Ok(Both::Files(old, reach::file(upper, name)?)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(Both::Unknown),
        Err(error) => Err(error),
    }
}

fn differ(old: &Entry, new: &Entry, both: impl FnOnce() -> std::io::Result<Both>) -> std::io::Result<bool> {
    if old.kind != new.kind {
        return Ok(true);
    }
    match new.kind {
        Kind::Directory => Ok(old.mode() != new.mode()),
        Kind::File if old.mode() != new.mode() || old.size() != new.size() => Ok(true),
        Kind::File | Kind::Symlink => match both()? {
            Both::Targets(old, new) => Ok(old != new),
            Both::Unknown => Ok(true),
            Both::Files(old, new) => Ok(!same_content(&old, &new)?),
        },
        Kind::Whiteout | Kind::Other => Ok(old.stat.st_rdev != new.stat.st_rdev),
    }
}

/// Whether two files have the same bytes. Where both have holes nothing is read.
///
/// # Errors
/// The file systems'.
pub fn same_content(one: &File, other: &File) -> std::io::Result<bool> {
    let size = layer::look_at(one)?.size();
    if size != layer::look_at(other)?.size() {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
    let mut at = 0;
    let (mut runs, mut their_runs) = ((0, 0), (0, 0));
    while at < size {
        for (file, run) in [(one, &mut runs), (other, &mut their_runs)] {
            if run.1 <= at {
                *run = layer::extent(file, at, size)?;
            }
        }
        let data = runs.0.min(their_runs.0);
        if data > at {
            at = data;
            continue;
        }
        let most = usize::try_from(size - at).unwrap_or(COMPARED_BYTES).min(COMPARED_BYTES);
        let length = fill_at(one, &mut here[..most], at)?;
        if length != fill_at(other, &mut there[..most], at)? || here[..length] != there[..length] {
            return Ok(false);
        }
        if length < most {
            // Both were cut meanwhile.
            return Ok(true);
        }
        at += length as u64;
    }
    Ok(true)
}

/// Reads from a place in a file until a buffer is full or the file ends.
fn fill_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], at + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Reads until a buffer is full or the file ends.
pub(super) fn fill(mut file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
