//! Every change that the content store makes on disk, one step each: what tests interrupt, one after the other.

#![allow(
    clippy::disallowed_methods,
    reason = "the content store owns the files below its directory"
)]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Modes of what nobody else may read.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Steps until it fails, and goes on failing: as after a crash, as far as the disk can tell.
    #[cfg(test)]
    pub(super) fuse: std::sync::Mutex<Option<usize>>,
}

impl Disk {
    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the one of tests needs it")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        let mut fuse = self.fuse.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match fuse.as_mut() {
            Some(0) => Err(io::Error::other("the fuse has blown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Makes a directory and those above it; they may be there.
    pub(super) fn make_dirs(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    /// Makes a directory that must not be there.
    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    /// Writes a small file whole, and syncs it. It may be there.
    pub(super) fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let file = self.open(path)?;
        self.write_at(&file, bytes, 0)?;
        self.sync(&file)
    }

    /// Opens a file to read and write, and makes it if it is not there.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.step()?;
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE);
        options.open(path)
    }

    pub(super) fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.step()?;
        file.write_all_at(bytes, offset)
    }

    pub(super) fn set_length(&self, file: &File, length: u64) -> io::Result<()> {
        self.step()?;
        file.set_len(length)
    }

    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        self.step()?;
        file.sync_all()
    }

    /// Syncs the names of a directory.
    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        File::open(path)?.sync_all()
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        gone(fs::remove_file(path))
    }

    /// Removes a directory with all that is in it, if it is there.
    pub(super) fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        gone(fs::remove_dir_all(path))
    }
}

/// That it is not there is as good.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Reads from a file until the buffer is full, or the file ends: how much it was.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// The names in a directory that are UTF-8, in order, if it is there; and whether each is a directory.
pub(super) fn names(path: &Path) -> io::Result<Vec<(String, bool)>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.file_type()?.is_dir()));
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a file to read it.
pub(super) fn reading(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// A small file, whole, if it has at most so many bytes.
pub(super) fn small(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = vec![0; bytes_max + 1];
    let read = read_at(&file, &mut bytes, 0)?;
    if read > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    bytes.truncate(read);
    Ok(bytes)
}
