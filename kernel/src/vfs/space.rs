//! What a tree takes on the disk, and what an operation may still take.
//!
//! Bytes are those that are allocated, as file systems round them up, and something for each file, directory and link, so that nobody fills a
//! disk with empty ones; a file with two names counts once.
//!
//! Deliberately absent: who may take how much. An operation gets a [`Room`], takes nothing that would not fit into it, and leaves in it what it
//! grew by.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::beneath::{Beneath, ENTRY_BYTES, Extent, FileType, Stat, names_in, stat_in};
use super::error::Fault;
use super::reach;

/// Directories that are remembered to be looked into, at most: what bounds the memory of a walk.
const PENDING_MAX: usize = 1 << 20;

/// Files with more than one name that are remembered, at most: more are counted by their names.
const LINKED_MAX: usize = 1 << 16;

/// Directories in directories that are counted, at most: each one on the way is an open file.
const DEPTH_MAX: usize = 500;

/// What every file system that we know allocates at once, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// What a new directory takes at once.
pub(super) const DIRECTORY_BYTES: u64 = BLOCK_BYTES + ENTRY_BYTES;

/// Bytes that may still be taken, and what was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    left: u64,
    grown: i64,
}

impl Room {
    /// So many bytes may be taken.
    #[must_use]
    pub fn of(left: u64) -> Self {
        Self { left, grown: 0 }
    }

    /// As many as there are.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::of(u64::MAX)
    }

    /// What was taken on the whole; less than nothing when more was freed.
    #[must_use]
    pub fn grown(&self) -> i64 {
        self.grown
    }

    /// Bytes that may still be taken.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// So many that were taken are free again: of a new content that was dropped.
    pub fn gave_up(&mut self, bytes: u64) {
        self.changed(bytes, 0);
    }

    /// Asks whether so many would fit.
    pub(super) fn need(&self, needed: u64) -> Result<(), Fault> {
        if needed > self.left {
            return Err(Fault::NoSpace {
                needed,
                left: self.left,
            });
        }
        Ok(())
    }

    /// Something has now another size.
    pub(super) fn changed(&mut self, before: u64, after: u64) {
        let by = i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(i64::MAX);
        self.grown = self.grown.saturating_add(by);
        self.left = if self.left == u64::MAX {
            u64::MAX
        } else {
            self.left.saturating_add_signed(-by)
        };
    }

    /// What has this name no more is gone, if it was its only one.
    pub(super) fn removed(&mut self, stat: &Stat) {
        if stat.kind == FileType::Directory || stat.links <= 1 {
            self.changed(stat.taken, 0);
        }
    }
}

/// What a write of so many bytes at a place may allocate, at most.
#[must_use]
pub fn write_grows(file: Extent, offset: u64, bytes: u64) -> u64 {
    let blocks = |bytes: u64| bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES);
    if bytes == 0 {
        return 0;
    }
    let touched = blocks((offset % BLOCK_BYTES).saturating_add(bytes));
    let dense = blocks(file.size.max(offset.saturating_add(bytes)));
    touched.min(dense.saturating_sub(file.allocated))
}

/// What is below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that they take.
    pub bytes: u64,
    /// Files, directories and whatever else has a name.
    pub entries: u64,
}

/// What a directory and everything below it take. What vanishes meanwhile is not counted; what is closed to us is opened to be counted, unless it is
/// somebody else's: then it counts alone.
///
/// # Errors
/// [`Fault::TooMany`] above `entries_max`, [`Fault::Unsupported`] when directories are nested too deep, and the system's.
pub fn usage(root: &Beneath, entries_max: u64) -> Result<Usage, Fault> {
    let mut count = Count {
        usage: Usage {
            bytes: root.stat(Path::new(""))?.taken,
            entries: 0,
        },
        linked: HashSet::new(),
        entries_max,
    };
    let root = reach::way(root, b"", reach::READ)?;
    count.below(&root, 0)?;
    Ok(count.usage)
}

/// That a directory has not more than so many entries; as far as that can be counted, for what cannot be can be removed.
pub(super) fn at_most(root: &Beneath, entries_max: u64) -> Result<(), Fault> {
    match usage(root, entries_max) {
        Ok(_) | Err(Fault::Unsupported(_)) => Ok(()),
        Err(fault) => Err(fault),
    }
}

struct Count {
    usage: Usage,
    linked: HashSet<(u64, u64)>,
    entries_max: u64,
}

impl Count {
    fn below(&mut self, dir: impl AsFd, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::Unsupported("directories are nested more than 500 deep"));
        }
        let mut directories = Vec::new();
        for entry in names_in(dir.as_fd())? {
            let (name, _) = entry?;
            let stat = match stat_in(&dir, &name) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            self.usage.entries += 1;
            if self.usage.entries > self.entries_max {
                return Err(Fault::TooMany(self.entries_max));
            }
            if stat.kind == FileType::Directory {
                directories.push(name);
            }
            let several = stat.kind != FileType::Directory && stat.links > 1;
            if !several || self.linked.len() >= LINKED_MAX || self.linked.insert(stat.identity) {
                self.usage.bytes = self.usage.bytes.saturating_add(stat.taken);
            }
        }
        for name in directories {
            match reach::directory(&dir, &name, reach::READ) {
                Ok(below) => self.below(&below, depth + 1)?,
                Err(error) => match Errno::from_io_error(&error) {
                    // It vanished, or is something else now; or it is somebody else's.
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }
}

/// Removes a directory and everything below it, or a file. Returns nothing: what was freed is in the room.
///
/// # Errors
/// The system's. What was removed until then is gone.
pub(super) fn remove_all(root: &Beneath, path: &Path, room: &mut Room) -> Result<(), Fault> {
    let stat = root.stat(path)?;
    if stat.kind != FileType::Directory {
        root.remove(path)?;
        room.removed(&stat);
        return Ok(());
    }
    // It is on its way out: what a directory's mode says about what is in it is over.
    let open = |path: &Path, stat: &Stat| match stat.mode & 0o700 {
        0o700 => Ok(()),
        _ => root.set_mode(path, 0o700),
    };
    open(path, &stat)?;
    each_below(root, path, |visit| {
        match visit {
            Visit::Entry(path, stat) if stat.kind != FileType::Directory => {
                root.remove(path)?;
                room.removed(stat);
            }
            Visit::Entry(path, stat) => open(path, stat)?,
            Visit::Left(path) => {
                let stat = root.stat(path)?;
                root.remove_dir(path)?;
                room.removed(&stat);
            }
        }
        Ok(())
    })
}

/// What a walk comes to.
pub(super) enum Visit<'p> {
    /// Something in a directory.
    Entry(&'p Path, &'p Stat),
    /// A directory, of which everything was visited. The one that was begun with comes last.
    Left(&'p Path),
}

/// Visits everything below a directory, and no directory is left before what is in it is. Holds one directory open. One that is closed to us, or
/// vanished, has nothing in it.
pub(super) fn each_below(
    root: &Beneath,
    path: &Path,
    mut visit: impl FnMut(Visit<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut pending: Vec<(PathBuf, bool)> = vec![(path.to_owned(), false)];
    while let Some((path, entered)) = pending.pop() {
        if entered {
            visit(Visit::Left(&path))?;
            continue;
        }
        let dir = match root.dir(&path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::ACCESS) => continue,
            Err(error) => return Err(error.into()),
        };
        pending.push((path.clone(), true));
        // The names first: who visits may remove them.
        let names: Vec<OsString> = dir
            .names()?
            .map(|entry| entry.map(|(name, _)| name))
            .collect::<Result<_, _>>()?;
        for name in names {
            let stat = match stat_in(&dir, &name) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let path = path.join(&name);
            visit(Visit::Entry(&path, &stat))?;
            if stat.kind == FileType::Directory {
                if pending.len() >= PENDING_MAX {
                    return Err(Fault::TooMany(PENDING_MAX as u64));
                }
                pending.push((path, false));
            }
        }
    }
    Ok(())
}
