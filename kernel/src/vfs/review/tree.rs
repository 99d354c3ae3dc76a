//! Whole directories, removed and copied. Never through a link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::super::layer::{self, Kind};
use super::changes::names;
use super::{DEPTH_MAX, ReviewError, joined};

/// Directories in directories that are removed in one go; what is deeper is brought up first, so that any depth ends.
const AT_ONCE: usize = 100;

/// Names of what was brought up, until it is removed.
const DEEP: &str = ".astrid-deep-";

/// Removes what has this name, with everything in it. That nothing has the name is as good.
///
/// # Errors
/// The file system's, naming the path. What is removed by then stays so.
pub fn remove(directory: impl AsFd, name: &OsStr, path: &[u8]) -> Result<(), ReviewError> {
    let mut removal = Removal {
        top: directory.as_fd(),
        deep: 0,
    };
    removal.remove(directory.as_fd(), name, path, 0)?;
    let mut done = 0;
    while done < removal.deep {
        let name = format!("{DEEP}{done}");
        removal.remove(directory.as_fd(), OsStr::new(&name), path, 0)?;
        done += 1;
    }
    Ok(())
}

struct Removal<'a> {
    top: BorrowedFd<'a>,
    deep: u64,
}

impl Removal<'_> {
    fn remove(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &[u8],
        depth: usize,
    ) -> Result<(), ReviewError> {
        let failed = |error: Errno| ReviewError::io("remove", path)(error.into());
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(failed(error)),
        }
        if depth >= AT_ONCE {
            let up = format!("{DEEP}{}", self.deep);
            self.deep += 1;
            return rustix::fs::renameat(directory, name, self.top, &*up).map_err(failed);
        }
        let below = match layer::open_directory(directory, name) {
            Ok(below) => below,
            // The overlay of the kernel makes its work directory without any permission.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty()).map_err(failed)?;
                layer::open_directory(directory, name).map_err(ReviewError::io("remove", path))?
            }
            Err(error) => return Err(ReviewError::io("remove", path)(error)),
        };
        for inner in names(&below, path)? {
            self.remove(below.as_fd(), &inner, &joined(path, &inner), depth + 1)?;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Copies a directory of an upper, whole, to a name that is free: whiteouts, marks and times too. Returns the bytes of its files.
///
/// # Errors
/// The file systems', naming the path. What is copied by then stays, for who calls to remove.
pub fn copy_upper(from: impl AsFd, to: impl AsFd, as_name: &OsStr) -> Result<u64, ReviewError> {
    copy_upper_at(from.as_fd(), to.as_fd(), as_name, &[], 0)
}

fn copy_upper_at(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    as_name: &OsStr,
    path: &[u8],
    depth: usize,
) -> Result<u64, ReviewError> {
    if depth > DEPTH_MAX {
        return Err(ReviewError::TooDeep {
            path: super::shown(path),
        });
    }
    let failed = || ReviewError::io("copy", path);
    let made = layer::copy_directory(from, to, as_name).map_err(failed())?;
    if layer::is_opaque(from).map_err(failed())? {
        layer::make_opaque(&made).map_err(failed())?;
    }
    let mut bytes = 0;
    for name in names(from, path)? {
        let path = joined(path, &name);
        let failed = || ReviewError::io("copy", &path);
        let Some(entry) = layer::look(from, &name).map_err(failed())? else {
            continue;
        };
        match entry.kind {
            Kind::Directory => {
                let below = layer::open_directory(from, &name).map_err(failed())?;
                bytes += copy_upper_at(below.as_fd(), made.as_fd(), &name, &path, depth + 1)?;
            }
            Kind::File => {
                let file = layer::open_file(from, &name).map_err(failed())?;
                let (copy, length) = layer::copy_file(&file, &made, &name).map_err(failed())?;
                if layer::has_origin(&file).map_err(failed())? {
                    layer::mark_origin(&copy).map_err(failed())?;
                }
                bytes += length;
            }
            // Nobody kept anything in it.
            Kind::Other => {}
            Kind::Symlink | Kind::Whiteout => {
                layer::copy_entry(from, &name, &made, &name).map_err(failed())?;
            }
        }
    }
    // Filling it gave it another time.
    let time = layer::look_at(from).map_err(failed())?.mtime_ns();
    layer::set_mtime(&made, time).map_err(failed())?;
    Ok(bytes)
}
