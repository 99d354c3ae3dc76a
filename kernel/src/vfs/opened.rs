//! A file that is open, and one that is being written to take another's place.
//!
//! Both know what a write may grow by before it is made, and what it did afterwards: so a quota is asked first.
//!
//! A file that is open for reading stays what it was when it was opened, as with any file that is replaced by a new one: in an overlay, who writes
//! a file of the lower layer for the first time makes a copy of it, and later readers read the copy.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::beneath::{Extent, Stat, extent_of, stat_of};
use super::error::{At as _, Fault, FsError};
use super::path::{Place, VirtualPath};
use super::space::{Room, write_grows};
use super::temporary::Temporary;

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// To read it.
    pub read: bool,
    /// To write it.
    pub write: bool,
    /// Every write goes to its end, wherever it is said to go.
    pub append: bool,
    /// It is emptied.
    pub truncate: bool,
    /// It is made when there is nothing.
    pub create: bool,
    /// With `create`: it is an error when there is something.
    pub exclusive: bool,
    /// Permission bits of a file that is made.
    pub mode: u32,
}

impl Access {
    /// To read what is there.
    #[must_use]
    pub fn reading() -> Self {
        Self {
            read: true,
            ..Self::default()
        }
    }

    /// To read and write what is there.
    #[must_use]
    pub fn writing() -> Self {
        Self {
            read: true,
            write: true,
            ..Self::default()
        }
    }

    /// To read and write what is there, or a new file.
    #[must_use]
    pub fn creating(mode: u32) -> Self {
        Self {
            create: true,
            mode,
            ..Self::writing()
        }
    }

    /// Whether a file that is there may become different by it.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.write || self.append || self.truncate
    }

    /// Whether anything may become different by it.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.writes() || self.create
    }
}

/// A regular file that is open.
#[derive(Debug)]
pub struct OpenFile {
    path: VirtualPath,
    file: File,
    append: bool,
}

impl OpenFile {
    pub(super) fn new(path: &VirtualPath, file: File, append: bool) -> Self {
        Self {
            path: path.clone(),
            file,
            append,
        }
    }

    /// The path that it was opened by.
    #[must_use]
    pub fn path(&self) -> &VirtualPath {
        &self.path
    }

    /// What is known about it.
    ///
    /// # Errors
    /// The system's.
    pub fn stat(&self) -> Result<Stat, FsError> {
        stat_of(&self.file).at(&self.path)
    }

    /// Bytes of it.
    ///
    /// # Errors
    /// The system's.
    pub fn len(&self) -> Result<u64, FsError> {
        Ok(self.extent()?.size)
    }

    fn extent(&self) -> Result<Extent, FsError> {
        extent_of(&self.file).at(&self.path)
    }

    /// Whether there is nothing in it.
    ///
    /// # Errors
    /// The system's.
    pub fn is_empty(&self) -> Result<bool, FsError> {
        Ok(self.len()? == 0)
    }

    /// Reads from a place on, until the buffer is full or the file ends. Returns how many bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FsError> {
        let mut done = 0;
        while done < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[done..], offset.saturating_add(done as u64))
            {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).at(&self.path),
            }
        }
        Ok(done)
    }

    /// Writes all of it, if what it may grow by fits; nothing otherwise.
    ///
    /// # Errors
    /// [`Fault::NoSpace`], and the system's, which may come when some of it is written.
    pub fn write_at(&self, bytes: &[u8], offset: u64, room: &mut Room) -> Result<(), FsError> {
        let before = self.extent()?;
        let offset = if self.append { before.size } else { offset };
        if offset
            .checked_add(bytes.len() as u64)
            .is_none_or(|end| i64::try_from(end).is_err())
        {
            return Err(Fault::TooLarge(i64::MAX.unsigned_abs())).at(&self.path);
        }
        room.need(write_grows(before, offset, bytes.len() as u64))
            .at(&self.path)?;
        let written = self.file.write_all_at(bytes, offset);
        room.changed(before.allocated, self.extent()?.allocated);
        written.at(&self.path)
    }

    /// Cuts it, or makes it longer by a hole, which takes no room.
    ///
    /// # Errors
    /// The system's.
    pub fn set_len(&self, bytes: u64, room: &mut Room) -> Result<(), FsError> {
        let before = self.extent()?;
        let cut = i64::try_from(bytes)
            .map_err(|_| Fault::TooLarge(i64::MAX.unsigned_abs()))
            .at(&self.path);
        cut.and_then(|_| self.file.set_len(bytes).at(&self.path))?;
        room.changed(before.allocated, self.extent()?.allocated);
        Ok(())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> Result<(), FsError> {
        self.file.sync_all().at(&self.path)
    }
}

/// A whole new content for a file, which takes its place at once when all of it is there. Dropped before, it is gone, and so is the room that it
/// took: who counts asks [`Replacing::allocated`] first, and tells [`Room::gave_up`].
#[derive(Debug)]
pub struct Replacing {
    pub(super) place: Place,
    pub(super) temporary: Temporary,
    pub(super) mode: u32,
    written: u64,
}

impl Replacing {
    pub(super) fn new(place: &Place, temporary: Temporary, mode: u32) -> Self {
        Self {
            place: place.clone(),
            temporary,
            mode,
            written: 0,
        }
    }

    /// Bytes until now.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes more of it, if it fits; nothing otherwise.
    ///
    /// # Errors
    /// [`Fault::NoSpace`], and the system's.
    pub fn write(&mut self, bytes: &[u8], room: &mut Room) -> Result<(), FsError> {
        let before = extent_of(self.temporary.file()).at(self.place.path())?;
        room.need(write_grows(before, self.written, bytes.len() as u64))
            .at(self.place.path())?;
        let written = self.temporary.file().write_all_at(bytes, self.written);
        room.changed(before.allocated, self.allocated()?);
        written.at(self.place.path())?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> Result<(), FsError> {
        self.temporary.file().sync_data().at(self.place.path())
    }

    /// Bytes that it takes on the disk until now.
    ///
    /// # Errors
    /// The system's.
    pub fn allocated(&self) -> Result<u64, FsError> {
        Ok(extent_of(self.temporary.file()).at(self.place.path())?.allocated)
    }
}
