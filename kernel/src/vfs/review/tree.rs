//! Whole directories: removed, copied, measured. Never through a link, and never deeper than is looked at.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::super::layer::{self, Kind};
use super::changes::names;
use super::{DEPTH_MAX, ReviewError, joined};

/// Removes what has this name, with everything in it. That nothing has the name is as good.
///
/// # Errors
/// The file system's, naming the path. What is removed by then stays so.
pub fn remove(directory: impl AsFd, name: &OsStr, path: &[u8]) -> Result<(), ReviewError> {
    remove_at(directory.as_fd(), name, path, 0)
}

fn remove_at(
    directory: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    path: &[u8],
    depth: usize,
) -> Result<(), ReviewError> {
    if depth > DEPTH_MAX {
        return Err(ReviewError::TooDeep {
            path: super::shown(path),
        });
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(ReviewError::io("remove", path)(error.into())),
    }
    let below = match layer::open_directory(directory, name) {
        Ok(below) => below,
        // The overlay of the kernel makes its work directory without any permission.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())
                .map_err(|error| ReviewError::io("remove", path)(error.into()))?;
            layer::open_directory(directory, name).map_err(ReviewError::io("remove", path))?
        }
        Err(error) => return Err(ReviewError::io("remove", path)(error)),
    };
    for inner in names(&below, path)? {
        remove_at(below.as_fd(), &inner, &joined(path, &inner), depth + 1)?;
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(ReviewError::io("remove", path)(error.into())),
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
    from: std::os::fd::BorrowedFd<'_>,
    to: std::os::fd::BorrowedFd<'_>,
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

/// Bytes that a directory takes on disk, with everything in it.
///
/// # Errors
/// The file system's, naming the path.
pub fn allocated(directory: impl AsFd) -> Result<u64, ReviewError> {
    allocated_at(directory.as_fd(), &[], 0)
}

fn allocated_at(directory: std::os::fd::BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<u64, ReviewError> {
    if depth > DEPTH_MAX {
        return Err(ReviewError::TooDeep {
            path: super::shown(path),
        });
    }
    let mut bytes = 0;
    for name in names(directory, path)? {
        let path = joined(path, &name);
        let failed = || ReviewError::io("look at", &path);
        let Some(entry) = layer::look(directory, &name).map_err(failed())? else {
            continue;
        };
        bytes += u64::try_from(entry.stat.st_blocks).unwrap_or(0) * 512;
        if entry.kind == Kind::Directory {
            let below = layer::open_directory(directory, &name).map_err(failed())?;
            bytes += allocated_at(below.as_fd(), &path, depth + 1)?;
        }
    }
    Ok(bytes)
}
