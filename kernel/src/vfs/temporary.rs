//! What is being written, and has a name that nobody looks for until it takes its place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath::{Answer, open_in};

/// How such names begin. Guests cannot name them, and are not shown them.
pub const TEMPORARY: &str = ".astrid-new-";

/// Tries to find a name that nothing has. Names are random, so that a second try is rare.
const NAMES_TRIED_MAX: usize = 16;

/// A file that is being written, and that nobody looks for yet. Dropped before it has its name, it is gone.
#[derive(Debug)]
pub struct Temporary {
    dir: OwnedFd,
    name: OsString,
    file: File,
    published: bool,
}

impl Temporary {
    /// A new file in a directory.
    ///
    /// # Errors
    /// The system's.
    pub fn new(dir: OwnedFd) -> Answer<Self> {
        let (file, name) = with_new_name(|name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            open_in(&dir, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(Self {
            dir,
            name,
            file: File::from(file),
            published: false,
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it a name in a directory on the same file system, in place of what had it; with `NOREPLACE`, only if nothing has.
    ///
    /// # Errors
    /// The system's.
    pub fn publish(mut self, dir: impl AsFd, name: &OsStr, flags: RenameFlags) -> Answer<()> {
        rustix::fs::renameat_with(&self.dir, &self.name, dir, name, flags)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()).ok();
        }
    }
}

/// Does something with a random name, with another one when something has that.
///
/// # Errors
/// `EEXIST` when none was free, and what `act` gives.
pub(super) fn with_new_name<T>(mut act: impl FnMut(&OsStr) -> Answer<T>) -> Answer<(T, OsString)> {
    for _ in 0..NAMES_TRIED_MAX {
        let random = getrandom::u64().map_err(|_| Errno::IO)?;
        let name = OsString::from(format!("{TEMPORARY}{random:016x}"));
        match act(&name) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
            Ok(made) => return Ok((made, name)),
        }
    }
    Err(Errno::EXIST)
}
