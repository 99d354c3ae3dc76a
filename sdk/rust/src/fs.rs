//! [`Fs`]: files of the principal that a message is handled for.
//!
//! A path is text: `workspace://src/main.rs`, `home://notes.txt`, `tmp://x`. `workspace://` is the directory that the operator attached for
//! that principal, under an overlay: what is changed there changes nothing of the directory before the operator commits it. The manifest
//! asks for files (`[capabilities] fs = { read = ["/workspace/>"], write = ["/workspace/>"], reason = "..." }`), and grants of the
//! principal decide besides: nobody reads or writes anything by default.
//!
//! ```
//! use astrid_sdk::prelude::*;
//! use astrid_sdk::testing::Harness;
//!
//! #[derive(Default)]
//! struct Stamp;
//!
//! #[capsule]
//! impl Stamp {
//!     /// Puts a line in front of a file, unless somebody else changes it meanwhile.
//!     #[on("stamp.v1.sign")]
//!     fn sign(&mut self, ctx: &mut Context, path: String) -> Result<usize> {
//!         let by = ctx.principal().to_owned();
//!         ctx.fs().edit(&path, 64 << 10, |text| format!("signed by {by}\n{text}"))?;
//!         let mut files = 0;
//!         for entry in ctx.fs().list("workspace://") {
//!             files += usize::from(entry?.is_file());
//!         }
//!         Ok(files)
//!     }
//! }
//!
//! let mut stamp = Harness::new::<Stamp>();
//! stamp.put_file("workspace://letter.txt", "Dear all");
//! assert_eq!(stamp.ask("stamp.v1.sign", "workspace://letter.txt").json(), json!(1));
//! assert_eq!(stamp.file("workspace://letter.txt").unwrap(), b"signed by default\nDear all");
//! ```
//!
//! Everything but [`Fs::watch`] acts at once, whatever becomes of the handler: a rollback does not undo it. A file is replaced whole or not at
//! all. Deliberately absent: paths as a type (they are compared and joined as text, and the kernel checks them), and anything that waits.

use std::marker::PhantomData;
use std::vec;

pub use astrid_wire::fs::{CHANGED, Changed, ENDED, Root, parse};

pub use crate::bindings::astrid::kernel::fs::{Creation, Entry, Expected, Kind, Meta, OpenOptions};
use crate::bindings::astrid::kernel::types::PortId;
use crate::sys;

mod error;

pub use error::FsError;

/// Most bytes of one read or write by offset.
pub const PART_BYTES_MAX: u32 = 1 << 20;

/// Most bytes of a file that [`Fs::write`] puts there.
pub const WHOLE_BYTES_MAX: u64 = 32 << 20;

/// Names that are fetched at once: the kernel's own limit.
const PAGE_MAX: u32 = 1_000;

/// Names of the first page of a [`List`], for whoever wants only a few.
const PAGE_FIRST: u32 = 64;

/// Files of the principal; see the [module](self) and [`Context::fs`](crate::Context::fs).
#[derive(Debug)]
pub struct Fs<'a> {
    context: PhantomData<&'a mut ()>,
}

/// Reading.
impl Fs<'_> {
    pub(crate) fn new() -> Self {
        Self { context: PhantomData }
    }

    /// A whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// Refused, or [`FsError::TooLarge`] with `limit`: nothing more than that was read.
    pub fn read(&self, path: impl AsRef<str>, limit: u64) -> Result<Vec<u8>, FsError> {
        let file = self.open(path, &OpenOptions::reading())?;
        let mut bytes = Vec::new();
        loop {
            // One more than the limit is asked for: what comes then is too much.
            let left = (limit + 1).saturating_sub(bytes.len() as u64);
            let part = file.read(bytes.len() as u64, part_of(left))?;
            if part.is_empty() {
                return Ok(bytes);
            }
            bytes.extend(part);
            if bytes.len() as u64 > limit {
                return Err(FsError::TooLarge(limit));
            }
        }
    }

    /// A whole file of at most `limit` bytes, as text.
    ///
    /// # Errors
    /// As [`Fs::read`], and [`FsError::NotText`]: it is not UTF-8.
    pub fn read_to_string(&self, path: impl AsRef<str>, limit: u64) -> Result<String, FsError> {
        let bytes = self.read(path, limit)?;
        String::from_utf8(bytes).map_err(|error| FsError::NotText(error.utf8_error().valid_up_to() as u64))
    }

    /// Opens a file, for what is too large to be held, or written in parts.
    ///
    /// # Errors
    /// Refused.
    pub fn open(&self, path: impl AsRef<str>, options: &OpenOptions) -> Result<File, FsError> {
        let file = sys::fs::open(path.as_ref(), *options)?;
        Ok(File(file))
    }

    /// What is there, links followed.
    ///
    /// # Errors
    /// Refused.
    pub fn stat(&self, path: impl AsRef<str>) -> Result<Meta, FsError> {
        Ok(sys::fs::stat(path.as_ref(), true)?)
    }

    /// What is there: a link, and not what it leads to.
    ///
    /// # Errors
    /// Refused.
    pub fn stat_link(&self, path: impl AsRef<str>) -> Result<Meta, FsError> {
        Ok(sys::fs::stat(path.as_ref(), false)?)
    }

    /// Whether there is something, links followed.
    ///
    /// # Errors
    /// Refused, but for [`FsError::NotFound`].
    pub fn exists(&self, path: impl AsRef<str>) -> Result<bool, FsError> {
        match self.stat(path) {
            Ok(_) => Ok(true),
            Err(FsError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The BLAKE3 hash of a file, as 64 hexadecimal digits: for [`Expected::Content`].
    ///
    /// # Errors
    /// Refused.
    pub fn hash(&self, path: impl AsRef<str>) -> Result<String, FsError> {
        Ok(sys::fs::hash(path.as_ref())?)
    }

    /// The names of a directory, in their order.
    pub fn list(&self, path: impl AsRef<str>) -> List {
        List::new(path.as_ref(), None)
    }

    /// The names of a directory that come after this one, in their order.
    pub fn list_after(&self, path: impl AsRef<str>, after: &str) -> List {
        List::new(path.as_ref(), Some(after))
    }

    /// Where a link leads, as it is written.
    ///
    /// # Errors
    /// Refused.
    pub fn read_link(&self, path: impl AsRef<str>) -> Result<String, FsError> {
        Ok(sys::fs::read_link(path.as_ref())?)
    }
}

/// Changing. All of it at once.
impl Fs<'_> {
    /// Puts a whole file there, whatever is there now. Returns its hash.
    ///
    /// # Errors
    /// Refused; what was there is as it was.
    pub fn write(&mut self, path: impl AsRef<str>, bytes: impl AsRef<[u8]>) -> Result<String, FsError> {
        self.replace(path, bytes, &Expected::Anything)
    }

    /// Puts a whole file there, if what is there is what is expected. Returns its hash.
    ///
    /// # Errors
    /// Refused, [`FsError::Changed`] and [`FsError::Exists`] where it is not; what was there is as it was.
    pub fn replace(
        &mut self,
        path: impl AsRef<str>,
        bytes: impl AsRef<[u8]>,
        expected: &Expected,
    ) -> Result<String, FsError> {
        Ok(sys::fs::replace(path.as_ref(), bytes.as_ref(), expected)?)
    }

    /// Reads a text of at most `limit` bytes, and puts what is made of it in its place, if nobody has changed it meanwhile. Returns the
    /// new hash.
    ///
    /// # Errors
    /// As [`Fs::read_to_string`] and [`Fs::replace`]; what was there is as it was.
    pub fn edit(
        &mut self,
        path: impl AsRef<str>,
        limit: u64,
        edit: impl FnOnce(&str) -> String,
    ) -> Result<String, FsError> {
        let path = path.as_ref();
        // The hash first: what is changed between the two is noticed, and not lost.
        let hash = self.hash(path)?;
        let text = self.read_to_string(path, limit)?;
        self.replace(path, edit(&text), &Expected::Content(hash))
    }

    /// Makes a directory in one that is there.
    ///
    /// # Errors
    /// Refused, [`FsError::Exists`] among them.
    pub fn make_dir(&mut self, path: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::make_dir(path.as_ref(), false)?)
    }

    /// Makes a directory and those above it, where they are not there.
    ///
    /// # Errors
    /// Refused.
    pub fn make_dirs(&mut self, path: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::make_dir(path.as_ref(), true)?)
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    /// Refused.
    pub fn remove(&mut self, path: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::remove(path.as_ref(), false)?)
    }

    /// Removes something, a directory with all that is in it.
    ///
    /// # Errors
    /// Refused. What was removed before it failed is gone.
    pub fn remove_all(&mut self, path: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::remove(path.as_ref(), true)?)
    }

    /// Gives something another path in the same root, where nothing is.
    ///
    /// # Errors
    /// Refused, [`FsError::Exists`] among them.
    pub fn rename(&mut self, source: impl AsRef<str>, target: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::rename(source.as_ref(), target.as_ref(), false)?)
    }

    /// As [`Fs::rename`]; a file, a link or an empty directory that is there gives way.
    ///
    /// # Errors
    /// Refused.
    pub fn rename_over(&mut self, source: impl AsRef<str>, target: impl AsRef<str>) -> Result<(), FsError> {
        Ok(sys::fs::rename(source.as_ref(), target.as_ref(), true)?)
    }

    /// Makes a link to a path that is relative to the directory that the link is in.
    ///
    /// # Errors
    /// Refused, [`FsError::Escapes`] where it would lead out of its root.
    pub fn make_link(&mut self, path: impl AsRef<str>, target: &str) -> Result<(), FsError> {
        Ok(sys::fs::make_link(path.as_ref(), target)?)
    }

    /// Sets when the content last changed, in milliseconds since 1970.
    ///
    /// # Errors
    /// Refused.
    pub fn set_modified(&mut self, path: impl AsRef<str>, modified_ms: i64) -> Result<(), FsError> {
        Ok(sys::fs::set_modified(path.as_ref(), modified_ms)?)
    }

    /// Sets permission bits, as `0o755`.
    ///
    /// # Errors
    /// Refused.
    pub fn set_mode(&mut self, path: impl AsRef<str>, mode: u32) -> Result<(), FsError> {
        Ok(sys::fs::set_mode(path.as_ref(), mode)?)
    }

    /// Command: tells this capsule what changes there from now on, at a handler of [`CHANGED`] that takes a [`Changed`].
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn watch(&mut self, path: impl AsRef<str>) -> Result<PortId, FsError> {
        Ok(sys::fs::watch(path.as_ref())?)
    }

    /// Has changes not told any more, from the commit on. False if this actor has no such watch.
    pub fn unwatch(&mut self, watch: PortId) -> bool {
        sys::fs::unwatch(watch)
    }
}

fn part_of(left: u64) -> u32 {
    u32::try_from(left).unwrap_or(PART_BYTES_MAX).min(PART_BYTES_MAX)
}

/// An open file, until the handler returns.
#[derive(Debug)]
pub struct File(sys::fs::File);

impl File {
    /// Bytes from there on, at most `length`, which is at most [`PART_BYTES_MAX`]. None: the file ends before.
    ///
    /// # Errors
    /// Refused.
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>, FsError> {
        Ok(self.0.read(offset, length)?)
    }

    /// Writes there, in parts where it is much. What was written before an error stays.
    ///
    /// # Errors
    /// Refused.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        let mut at = offset;
        for part in bytes.chunks(PART_BYTES_MAX as usize) {
            self.0.write(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// What it is now.
    ///
    /// # Errors
    /// Refused.
    pub fn stat(&self) -> Result<Meta, FsError> {
        Ok(self.0.stat()?)
    }

    /// Cuts it off there, or makes it longer with zeros.
    ///
    /// # Errors
    /// Refused.
    pub fn set_length(&mut self, length: u64) -> Result<(), FsError> {
        Ok(self.0.set_length(length)?)
    }

    /// Returns when what was written is on disk.
    ///
    /// # Errors
    /// The disk refused.
    pub fn sync(&mut self) -> Result<(), FsError> {
        Ok(self.0.sync()?)
    }
}

impl OpenOptions {
    /// To read a file that is there.
    #[must_use]
    pub fn reading() -> Self {
        Self {
            read: true,
            write: false,
            create: Creation::Never,
            truncate: false,
        }
    }

    /// To read and write a file that is there, or is made.
    #[must_use]
    pub fn writing() -> Self {
        Self {
            read: true,
            write: true,
            create: Creation::IfMissing,
            truncate: false,
        }
    }
}

impl Entry {
    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.meta.kind == Kind::File
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.meta.kind == Kind::Directory
    }
}

/// The names of a directory, fetched in pages while they are taken; ends after an error.
#[derive(Debug)]
#[must_use = "names are read when they are taken"]
pub struct List {
    path: String,
    after: Option<String>,
    dir: Option<sys::fs::Dir>,
    passed_over: u64,
    /// Names of the next page; 0: that was all.
    limit: u32,
    page: vec::IntoIter<Entry>,
}

impl List {
    fn new(path: &str, after: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            after: after.map(str::to_owned),
            dir: None,
            passed_over: 0,
            limit: PAGE_FIRST,
            page: Vec::new().into_iter(),
        }
    }

    /// How many names were passed over so far that no path can say: not UTF-8, or with control characters.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    fn turn(&mut self) -> Result<(), FsError> {
        let dir = match &self.dir {
            Some(dir) => dir,
            None => self.dir.insert(sys::fs::open_dir(&self.path, self.after.as_deref())?),
        };
        let entries = dir.next(self.limit)?;
        self.passed_over = dir.passed_over();
        if entries.len() < self.limit as usize {
            // That was all: the handle is one of few.
            (self.dir, self.limit) = (None, 0);
        } else {
            self.limit = PAGE_MAX;
        }
        self.page = entries.into_iter();
        Ok(())
    }
}

impl Iterator for List {
    type Item = Result<Entry, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            if self.limit == 0 {
                return None;
            }
            if let Err(error) = self.turn() {
                self.limit = 0;
                return Some(Err(error));
            }
        }
    }
}

impl std::iter::FusedIterator for List {}
