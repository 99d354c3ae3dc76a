//! Whole directories, removed and copied. Never through a link.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags, StatxFlags};
use rustix::io::Errno;

use super::super::beneath::Beneath;
use super::super::layer::{self, Entry, Kind};
use super::super::reach;
use super::super::temporary::with_new_name;
use super::changes::{names, some_names};
use super::{DEPTH_MAX, ReviewError, as_path, joined};

/// Directories in directories that are removed in one go; what is deeper is brought up first, so that any depth ends.
const AT_ONCE: usize = 100;

/// Names that are held at once: a directory may have any number.
const NAMES_AT_ONCE: usize = 65_536;

/// Which mount something that is open is in; where the system does not tell, its device.
///
/// # Errors
/// The system's.
pub(super) fn mount_of(open: impl AsFd) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statx(
        open,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
    )?;
    if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID) {
        return Ok(stat.stx_mnt_id);
    }
    Ok(rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor))
}

/// Removes what has this name, with everything in it, but for what is mounted there: that is an error. That nothing has the name is as good.
/// Directories of our own that are closed to us are opened.
///
/// # Errors
/// The file system's, naming the path. What is removed by then stays so.
pub fn remove(directory: impl AsFd, name: &OsStr, path: &[u8]) -> Result<(), ReviewError> {
    let removal = Removal {
        mount: mount_of(&directory).map_err(|error| ReviewError::io("remove", path)(error.into()))?,
        top: None,
    };
    removal.remove(directory.as_fd(), name, path, 0)
}

struct Removal<'a> {
    mount: u64,
    /// The directory that is removed: what is too deep in it is moved there, where it is removed as well, whatever happens.
    top: Option<BorrowedFd<'a>>,
}

impl Removal<'_> {
    fn remove(&self, directory: BorrowedFd<'_>, name: &OsStr, path: &[u8], depth: usize) -> Result<(), ReviewError> {
        let failed = |error: Errno| ReviewError::io("remove", path)(error.into());
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(Errno::PERM) if is_directory(directory, name) => {}
            Err(error) => return Err(failed(error)),
        }
        // A directory that is closed cannot be moved either.
        let below = reach::directory(directory, name, reach::WRITE).map_err(ReviewError::io("remove", path))?;
        if mount_of(&below).map_err(failed)? != self.mount {
            return Err(failed(Errno::BUSY));
        }
        if let Some(top) = self.top.filter(|_| depth >= AT_ONCE) {
            let moved = with_new_name(|up| rustix::fs::renameat_with(directory, name, top, up, RenameFlags::NOREPLACE));
            return moved.map(drop).map_err(failed);
        }
        let within = Removal {
            mount: self.mount,
            top: self.top.or(Some(below.as_fd())),
        };
        loop {
            let names = some_names(&below, NAMES_AT_ONCE).map_err(failed)?;
            if names.is_empty() {
                break;
            }
            for inner in names {
                within.remove(below.as_fd(), &inner, &joined(path, &inner), depth + 1)?;
            }
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

/// A hash over what is in a directory: every name, with which inode it is and when that changed last. What is too deep, or closed to us, is
/// not looked into.
///
/// # Errors
/// The file system's, naming the path. That nothing is there is none.
pub(super) fn seen(root: &Beneath, path: &[u8]) -> Result<String, ReviewError> {
    let mut hasher = blake3::Hasher::new();
    match root.dir(as_path(path)) {
        Ok(open) => seen_in(open.as_fd(), path, 0, &mut hasher)?,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
        Err(error) => return Err(ReviewError::io("open", path)(error.into())),
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn seen_in(
    directory: BorrowedFd<'_>,
    path: &[u8],
    depth: usize,
    hasher: &mut blake3::Hasher,
) -> Result<(), ReviewError> {
    let mut note = |entry: &Entry, name: &[u8]| {
        let (device, inode) = entry.identity();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&device.to_le_bytes());
        hasher.update(&inode.to_le_bytes());
        hasher.update(&entry.ctime_ns().to_le_bytes());
    };
    note(
        &layer::look_at(directory).map_err(ReviewError::io("look at", path))?,
        b"",
    );
    let names = names(directory, path)?;
    let mut below = Vec::new();
    for name in names {
        let entry = layer::look(directory, &name).map_err(ReviewError::io("look at", path))?;
        let Some(entry) = entry else { continue };
        note(&entry, name.as_encoded_bytes());
        if entry.kind == Kind::Directory && depth < DEPTH_MAX {
            below.push(name);
        }
    }
    for name in below {
        let path = joined(path, &name);
        match layer::open_directory(directory, &name) {
            Ok(open) => seen_in(open.as_fd(), &path, depth + 1, hasher)?,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(ReviewError::io("open", &path)(error)),
        }
    }
    Ok(())
}

fn is_directory(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    matches!(layer::look(directory, name), Ok(Some(entry)) if entry.kind == Kind::Directory)
}

/// Copies a directory of an upper, whole, to a name that is free: whiteouts, marks and times too. Returns the bytes of its files.
///
/// # Errors
/// The file systems', naming the path. What is copied by then stays, for who calls to remove.
pub fn copy_upper(from: impl AsFd, to: impl AsFd, as_name: &OsStr) -> Result<u64, ReviewError> {
    let like = layer::look_at(&from).map_err(ReviewError::io("copy", b""))?;
    copy_upper_at((from.as_fd(), &like), to.as_fd(), as_name, &[], 0)
}

fn copy_upper_at(
    (from, like): (BorrowedFd<'_>, &Entry),
    to: BorrowedFd<'_>,
    as_name: &OsStr,
    path: &[u8],
    depth: usize,
) -> Result<u64, ReviewError> {
    if depth > DEPTH_MAX {
        return Err(ReviewError::TooDeep {
            path: super::brief(path),
        });
    }
    let failed = || ReviewError::io("copy", path);
    let made = layer::copy_directory(from, to, as_name).map_err(failed())?;
    // It may be closed: not before it is filled.
    rustix::fs::fchmod(&made, Mode::RWXU).map_err(|error| failed()(error.into()))?;
    if layer::is_opaque(from).map_err(failed())? {
        layer::make_opaque(&made).map_err(failed())?;
    }
    layer::copy_origin(from, &made).map_err(failed())?;
    let mut bytes = 0;
    for name in names(from, path)? {
        let path = joined(path, &name);
        let failed = || ReviewError::io("copy", &path);
        let Some(entry) = layer::look(from, &name).map_err(failed())? else {
            continue;
        };
        match entry.kind {
            Kind::Directory => {
                let below = reach::directory(from, &name, reach::READ).map_err(failed())?;
                bytes += copy_upper_at((below.as_fd(), &entry), made.as_fd(), &name, &path, depth + 1)?;
            }
            Kind::File => {
                let file = reach::file(from, &name).map_err(failed())?;
                let copied = layer::copy_file_with(&file, &made, &name, |copy| {
                    layer::copy_attributes(&*file, copy)?;
                    layer::copy_origin(&*file, copy)?;
                    rustix::fs::fchmod(copy, Mode::from_raw_mode(entry.mode()))?;
                    layer::set_mtime(copy, entry.mtime_ns())
                });
                let (_, length) = copied.map_err(failed())?;
                bytes += length;
            }
            // Nobody kept anything in it.
            Kind::Other => {}
            Kind::Symlink | Kind::Whiteout => {
                layer::copy_entry(from, &name, &made, &name).map_err(failed())?;
            }
        }
    }
    rustix::fs::fchmod(&made, Mode::from_raw_mode(like.mode())).map_err(|error| failed()(error.into()))?;
    // Filling it gave it another time.
    layer::set_mtime(&made, like.mtime_ns()).map_err(failed())?;
    Ok(bytes)
}
