//! Why a plan could not be carried out to its end: looked for before anything is written, because after the point of no return it is too late.
//!
//! What may not be changed (`chattr +i`, `+a`), where something is mounted, what is read-only, and what belongs to somebody else who does not let
//! us. A directory of our own that is closed to us is opened meanwhile: it becomes a step of its own. What the file system only says when it is
//! asked to write (no space, a disk that fails) is not foreseen.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use astrid_wire::control::workspace::{Conflict, escape, unescape};
use rustix::fs::{Access, AtFlags, StatVfsMountFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::super::beneath::Beneath;
use super::super::layer::{self, Kind};
use super::super::reach;
use super::changes::names;
use super::plan::{Step, What};
use super::tree::mount_of;
use super::{DEPTH_MAX, ReviewError, as_path, brief, joined, order, parted};

/// Paths that are named at most, so that they fit into the text of a problem; all are counted.
const NAMED_MAX: usize = 4;

const FIXED: &str = "it may not be changed (`lsattr` shows why)";
const MOUNTED: &str = "something is mounted there";
const READ_ONLY: &str = "its file system is read-only";
const THEIRS: &str = "it belongs to somebody else, and we may not write in it";
const CLOSED: &str = "it is closed to us";
const STICKY: &str = "it belongs to somebody else, in a directory where only owners replace what is theirs";
const MODE: &str = "it belongs to somebody else, who alone sets its mode";
const DEEP: &str = "it has more directories in directories than are looked into, and would be removed";

/// The steps of a plan, with those that open directories.
///
/// # Errors
/// [`ReviewError::Refused`], and the file system's.
pub(super) fn look_for(lower: &Beneath, steps: &[Step]) -> Result<Vec<Step>, ReviewError> {
    let failed = |error: Errno| ReviewError::io("look at", b"")(error.into());
    let mut look = Look {
        lower,
        mount: mount_of(lower).map_err(failed)?,
        named: Vec::new(),
        total: 0,
        seen: HashSet::new(),
        open: BTreeMap::new(),
    };
    for step in steps {
        look.step(step)?;
    }
    if look.total > 0 {
        return Err(ReviewError::Refused {
            paths: look.named,
            total: look.total,
        });
    }
    let mut all = steps.to_vec();
    if !look.open.is_empty() {
        all.extend(look.open.into_values());
        // A directory is opened after the step that sets its mode: steps are ended in reverse.
        all.sort_by_cached_key(|step| Sorted(unescape(&step.path).unwrap_or_default(), step.what == What::Open));
    }
    Ok(all)
}

#[derive(PartialEq, Eq)]
struct Sorted(Vec<u8>, bool);

impl Ord for Sorted {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        order(&self.0, &other.0).then(self.1.cmp(&other.1))
    }
}

impl PartialOrd for Sorted {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Look<'a> {
    lower: &'a Beneath,
    mount: u64,
    named: Vec<Conflict>,
    total: u64,
    /// Directories that were looked at.
    seen: HashSet<Vec<u8>>,
    open: BTreeMap<Vec<u8>, Step>,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_fixed(stat: &Statx) -> bool {
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    stat.stx_attributes.intersects(fixed)
}

fn stat(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Statx>, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    match rustix::fs::statx(directory, name, flags, StatxFlags::BASIC_STATS) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Look<'_> {
    fn refuse(&mut self, path: &[u8], why: &str) {
        self.total += 1;
        if self.named.len() < NAMED_MAX {
            let (path, why) = (brief(path), why.to_owned());
            self.named.push(Conflict { path, why });
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), ReviewError> {
        let failed = || ReviewError::Journal(format!("{} is no path", step.path));
        let path = unescape(&step.path).ok_or_else(failed)?;
        let (directory, name) = parted(&path);
        if step.what != What::SetMode {
            self.directory(directory)?;
        }
        if let Some(beside) = &step.beside {
            self.directory(&unescape(beside).ok_or_else(failed)?)?;
        }
        let Ok(open) = self.lower.dir(as_path(directory)) else {
            // It is made first; or it is closed, and was refused.
            return Ok(());
        };
        let look = ReviewError::io("look at", &path);
        let Some(stat) = stat(open.as_fd(), name).map_err(|error| look(error.into()))? else {
            return Ok(());
        };
        let euid = rustix::process::geteuid().as_raw();
        let above = layer::look_at(&open).map_err(ReviewError::io("look at", directory))?;
        let theirs = stat.stx_uid != euid && !is_root();
        if is_fixed(&stat) {
            self.refuse(&path, FIXED);
        } else if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            self.refuse(&path, MOUNTED);
        } else if step.what == What::SetMode {
            if theirs {
                self.refuse(&path, MODE);
            }
        } else if theirs && above.mode() & 0o1000 != 0 && above.owner().0 != euid {
            self.refuse(&path, STICKY);
        } else if step.tree.is_some() {
            let below = self.lower.dir(as_path(&path));
            match below {
                Ok(below) => self.removed(below.as_fd(), &path, 0)?,
                Err(Errno::ACCESS) if !theirs => self.closed_below(&path, open.as_fd(), name, 0)?,
                Err(_) => self.refuse(&path, CLOSED),
            }
        }
        Ok(())
    }

    /// A directory that something is made, replaced or removed in.
    fn directory(&mut self, path: &[u8]) -> Result<(), ReviewError> {
        if !self.seen.insert(path.to_vec()) {
            return Ok(());
        }
        let open = match self.lower.dir(as_path(path)) {
            Ok(open) => open,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(Errno::ACCESS) => {
                self.refuse(path, CLOSED);
                return Ok(());
            }
            Err(error) => return Err(ReviewError::io("open", path)(error.into())),
        };
        let failed = |error: Errno| ReviewError::io("look at", path)(error.into());
        let fixed = stat(open.as_fd(), OsStr::new(""))
            .map_err(failed)?
            .is_some_and(|stat| is_fixed(&stat));
        let read_only = rustix::fs::fstatvfs(&open)
            .map_err(failed)?
            .f_flag
            .contains(StatVfsMountFlags::RDONLY);
        if fixed {
            self.refuse(path, FIXED);
        } else if mount_of(&open).map_err(failed)? != self.mount {
            self.refuse(path, MOUNTED);
        } else if read_only {
            self.refuse(path, READ_ONLY);
        } else if !may_write(open.as_fd()) {
            let entry = layer::look_at(&open).map_err(ReviewError::io("look at", path))?;
            if reach::is_ours(&entry) {
                self.open.insert(path.to_vec(), Step::opening(escape(path), &entry));
            } else {
                self.refuse(path, THEIRS);
            }
        }
        Ok(())
    }

    /// Everything in a directory that is removed.
    fn removed(&mut self, directory: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), ReviewError> {
        let failed = |error: Errno| ReviewError::io("look at", path)(error.into());
        if mount_of(directory).map_err(failed)? != self.mount {
            self.refuse(path, MOUNTED);
            return Ok(());
        }
        if depth > DEPTH_MAX {
            self.refuse(path, DEEP);
            return Ok(());
        }
        let names = names(directory, path)?;
        let entry = layer::look_at(directory).map_err(ReviewError::io("look at", path))?;
        if !names.is_empty() && !reach::is_ours(&entry) && !may_write(directory) {
            self.refuse(path, THEIRS);
            return Ok(());
        }
        for name in names {
            let path = joined(path, &name);
            let failed = |error: Errno| ReviewError::io("look at", &path)(error.into());
            let Some(stat) = stat(directory, &name).map_err(failed)? else {
                continue;
            };
            if is_fixed(&stat) {
                self.refuse(&path, FIXED);
            } else if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
                self.refuse(&path, MOUNTED);
            } else if rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) == rustix::fs::FileType::Directory {
                self.closed_below(&path, directory, &name, depth)?;
            }
        }
        Ok(())
    }

    /// A directory in one that is removed. Of our own one that is closed is not looked into: it is opened when it is removed.
    fn closed_below(
        &mut self,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &OsStr,
        depth: usize,
    ) -> Result<(), ReviewError> {
        match layer::open_directory(parent, name) {
            Ok(open) => {
                let entry = layer::look_at(&open).map_err(ReviewError::io("look at", path))?;
                if entry.mode() & reach::READ != reach::READ && reach::is_ours(&entry) && !is_root() {
                    return Ok(());
                }
                self.removed(open.as_fd(), path, depth + 1)
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let entry = layer::look(parent, name).map_err(ReviewError::io("look at", path))?;
                if !entry.is_some_and(|entry| reach::is_ours(&entry) && entry.kind == Kind::Directory) {
                    self.refuse(path, CLOSED);
                }
                Ok(())
            }
            Err(error) => Err(ReviewError::io("open", path)(error)),
        }
    }
}

fn may_write(directory: BorrowedFd<'_>) -> bool {
    let asked = rustix::fs::accessat(directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    !matches!(asked, Err(Errno::ACCESS))
}
