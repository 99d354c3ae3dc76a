//! Directories and files of our own that are closed to us: a program may take every permission from what it made, and we look at it all the same.
//!
//! What is closed is opened for its owner as long as it is used, and then as it was. Of somebody else's nothing is changed. A crash meanwhile
//! leaves it open to its owner.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::beneath::{self, Beneath};
use super::layer::{self, Entry};

/// What it takes to look at what is in a directory.
pub(super) const READ: u32 = 0o500;

/// What it takes to change what is in a directory.
pub(super) const WRITE: u32 = 0o700;

/// Whether we own something.
pub(super) fn is_ours(entry: &Entry) -> bool {
    entry.stat.st_uid == rustix::process::geteuid().as_raw()
}

/// A directory that is open, and has the mode that it had when this is dropped.
#[derive(Debug)]
pub(super) struct Opened {
    fd: OwnedFd,
    /// The mode that it had, and the one that it was given.
    was: Option<(u32, u32)>,
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some((mode, set)) = self.was {
            close(&self.fd, mode, set);
        }
    }
}

/// Gives something the mode back that it had, unless somebody set another one meanwhile.
fn close(file: impl AsFd, mode: u32, set: u32) {
    if layer::look_at(&file).is_ok_and(|entry| entry.mode() == set) {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).ok();
    }
}

impl Opened {
    /// One that is open already.
    fn of(fd: OwnedFd, needs: u32) -> io::Result<Self> {
        let entry = layer::look_at(&fd)?;
        let closed = entry.mode() & needs != needs && is_ours(&entry) && !rustix::process::geteuid().is_root();
        if closed {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(entry.mode() | needs))?;
        }
        let was = closed.then(|| (entry.mode(), entry.mode() | needs));
        Ok(Self { fd, was })
    }
}

/// What a name is, open for nothing but to ask about it and to set its mode.
fn handle(parent: impl AsFd, name: &OsStr, flags: OFlags) -> io::Result<(OwnedFd, Entry)> {
    let handle = beneath::open_in(parent, name, OFlags::PATH | flags, Mode::empty())?;
    let entry = layer::look_at(&handle)?;
    Ok((handle, entry))
}

/// Sets the mode of what a handle is of: a link that has its name meanwhile is not followed.
fn set_mode(handle: &OwnedFd, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::chmodat(
        CWD,
        path,
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )?)
}

/// A directory in a directory; a link is an error.
///
/// # Errors
/// The file system's.
pub(super) fn directory(parent: impl AsFd, name: &OsStr, needs: u32) -> io::Result<Opened> {
    match layer::open_directory(&parent, name) {
        Ok(fd) => Opened::of(fd, needs),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let (handle, entry) = handle(&parent, name, OFlags::DIRECTORY)?;
            if !is_ours(&entry) {
                return Err(error);
            }
            set_mode(&handle, entry.mode() | needs)?;
            let opened = layer::open_directory(parent, name);
            if opened.is_err() {
                set_mode(&handle, entry.mode()).ok();
            }
            let was = Some((entry.mode(), entry.mode() | needs));
            Ok(Opened { fd: opened?, was })
        }
        Err(error) => Err(error),
    }
}

/// Opens a directory of our own to us, for good. What is nobody's directory, or somebody else's, is left as it is.
///
/// # Errors
/// The file system's.
pub(super) fn open_up(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let Some(entry) = layer::look(&parent, name)? else {
        return Ok(());
    };
    if entry.kind != layer::Kind::Directory || entry.mode() & WRITE == WRITE || !is_ours(&entry) {
        return Ok(());
    }
    let (handle, entry) = handle(parent, name, OFlags::DIRECTORY)?;
    set_mode(&handle, entry.mode() | WRITE)
}

/// A regular file that is open for reading, and has the mode that it had when this is dropped.
#[derive(Debug)]
pub(super) struct OpenedFile {
    file: File,
    was: Option<u32>,
}

impl Deref for OpenedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for OpenedFile {
    fn drop(&mut self) {
        if let Some(mode) = self.was {
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode)).ok();
        }
    }
}

impl From<File> for OpenedFile {
    fn from(file: File) -> Self {
        Self { file, was: None }
    }
}

/// A regular file in a directory, for reading. Who asks for its mode meanwhile may be told another.
///
/// # Errors
/// The file system's; `InvalidInput` when it is none.
pub(super) fn file(parent: impl AsFd, name: &OsStr) -> io::Result<OpenedFile> {
    match layer::open_file(&parent, name) {
        Ok(file) => Ok(file.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let (handle, entry) = handle(&parent, name, OFlags::empty())?;
            if !is_ours(&entry) || entry.kind != layer::Kind::File {
                return Err(error);
            }
            set_mode(&handle, entry.mode() | 0o400)?;
            let opened = layer::open_file(parent, name);
            if opened.is_err() {
                set_mode(&handle, entry.mode()).ok();
            }
            let (file, was) = (opened?, Some(entry.mode()));
            Ok(OpenedFile { file, was })
        }
        Err(error) => Err(error),
    }
}

/// A directory, and those that lead to it.
#[derive(Debug)]
pub(super) struct Way {
    last: Opened,
    above: Vec<Opened>,
}

impl AsFd for Way {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.last.as_fd()
    }
}

/// A directory below a root of ours, name by name.
///
/// # Errors
/// `ENOTDIR` or `ELOOP` when something on the way is no directory, and the file system's.
pub(super) fn way(root: &Beneath, path: &[u8], needs: u32) -> rustix::io::Result<Way> {
    let number = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let root_is_open = rustix::process::geteuid().is_root();
    let start = if root_is_open {
        root.dir(Path::new(OsStr::from_bytes(path)))?
    } else {
        root.dir(Path::new(""))?
    };
    let fd = start.as_fd().try_clone_to_owned().map_err(number)?;
    let last = Opened::of(fd, needs).map_err(number)?;
    let mut way = Way {
        last,
        above: Vec::new(),
    };
    if root_is_open {
        // Nothing is closed to root.
        return Ok(way);
    }
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let below = directory(&way.last, OsStr::from_bytes(name), needs).map_err(number)?;
        way.above.push(std::mem::replace(&mut way.last, below));
    }
    Ok(way)
}
