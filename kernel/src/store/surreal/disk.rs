//! The directory of a store, and what is around the engine in it.
//!
//! ```text
//! store/     0700
//! ├── format  one line: the version of the layout
//! ├── head    how far it was: see `head`
//! └── tree/   SurrealKV's own
//! store.made   beside it: there was a store here, so that one that is gone is not taken for one that never was
//! ```

#![allow(clippy::disallowed_methods, reason = "this module owns the store's directory")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::head::{Head, Noted};
use super::{Surreal, format};
use crate::home::{Durability, PRIVATE_FILE, replace_file};
use crate::store::engine::{Engine, EngineError, Later, Open, OpenError};
use crate::store::read_progress;

/// Where SurrealKV's files are.
const TREE: &str = "tree";

/// What the name of the directory is followed by, in the name of the file that says that there was a store.
const MADE: &str = ".made";

/// A file that is written to see whether one can be.
const PROBE: &str = "probe";

/// Bytes that are written for that: more than what a file system sets aside for itself and gives to anybody.
const PROBE_BYTES: usize = 256 << 10;

/// Bytes that must be free before a store that ran out of space is opened again, beside what a compaction takes: for the log, and for what
/// was in memory.
const SPARE_BYTES: u64 = 32 << 20;

/// Bytes that a compaction writes at most before it removes what it read. It begins when the store is opened, and would take what was
/// freed from the commits.
const COMPACTION_BYTES_MAX: u64 = 192 << 20;

/// Mode of the directory.
const PRIVATE: u32 = 0o700;

/// Directories within each other that are counted for a size: SurrealKV has one level.
const DEPTH_MAX: u32 = 3;

/// A store in a directory.
#[derive(Debug)]
pub struct Disk {
    directory: PathBuf,
    migrations: &'static [format::Migration],
    head: Mutex<Option<Head>>,
    /// It failed for want of space.
    full: Arc<AtomicBool>,
    /// It was open in this process: what is not there any more is gone, and is not made anew.
    opened: AtomicBool,
}

/// What the file system said, in the store's words.
pub(super) fn io_error(what: &str, error: &io::Error) -> EngineError {
    let words = format!("{what}: {error}").into();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => EngineError::NoSpace(words),
        _ => EngineError::Io(words),
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(PRIVATE).create(directory)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

impl Disk {
    /// The store in that directory, which is made when it is opened. Its parent must exist.
    pub fn new(directory: PathBuf) -> Self {
        Self::with(directory, format::MIGRATIONS)
    }

    pub(super) fn with(directory: PathBuf, migrations: &'static [format::Migration]) -> Self {
        Self {
            directory,
            migrations,
            head: Mutex::new(None),
            full: Arc::default(),
            opened: AtomicBool::new(false),
        }
    }

    /// The version that is there, which this program knows; a new store gets the newest.
    fn prepare(&self) -> Result<u32, OpenError> {
        let known = format::newest(self.migrations);
        if !self.directory.join(TREE).exists() && self.made().exists() {
            return Err(OpenError::Gone);
        }
        match make_private(&self.directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(io_error("the store's directory", &error).into());
            }
            _ => {}
        }
        match format::read(&self.directory)? {
            Some(found) if found > known => Err(OpenError::Newer { found, known }),
            Some(found) => Ok(found),
            None if self.directory.join(TREE).exists() => {
                Err(EngineError::Damaged("its file `format` is missing".into()).into())
            }
            None => {
                format::write(&self.directory, known)?;
                Ok(known)
            }
        }
    }

    /// Whether there is no store here, and never was one.
    #[must_use]
    pub fn was_never_made(&self) -> bool {
        !self.directory.exists() && !self.made().exists()
    }

    /// The file that says that there was a store.
    fn made(&self) -> PathBuf {
        let mut name = self.directory.clone().into_os_string();
        name.push(MADE);
        name.into()
    }

    /// Lets that file be there; on disk when this returns.
    fn note_made(&self) -> Result<(), EngineError> {
        let path = self.made();
        if path.exists() {
            return Ok(());
        }
        replace_file(&path, &[], PRIVATE_FILE, Durability::Synced).map_err(|error| io_error("store.made", &error))
    }

    /// That nothing is missing which was acknowledged; then makes it what this version expects.
    async fn settle(&self, engine: &Surreal, version: u32) -> Result<(), OpenError> {
        let (found, _) = read_progress(engine)?;
        let (mut head, noted) = Head::open(&self.directory).map_err(|error| io_error("head", &error))?;
        match noted {
            Noted::Upto(sealed) if sealed > found => return Err(OpenError::Lost { found, sealed }),
            Noted::Upto(_) => {}
            Noted::Unreadable => {
                return Err(EngineError::Damaged("its file `head` is not what was written".into()).into());
            }
        }
        for (n, migration) in (1..).zip(self.migrations).skip_while(|(n, _)| *n < version) {
            migration(engine).await?;
            format::write(&self.directory, n + 1)?;
            tracing::info!(version = n + 1, "the store was brought to a newer format");
        }
        head.note(found).map_err(|error| io_error("head", &error))?;
        self.note_made()?;
        *self.head.lock() = Some(head);
        Ok(())
    }

    async fn open_here(&self) -> Result<Arc<dyn Engine>, OpenError> {
        if self.opened.load(Ordering::Acquire) && !self.directory.join(TREE).exists() {
            let gone = "its directory was moved or removed while it was in use";
            return Err(EngineError::Damaged(gone.into()).into());
        }
        let version = self.prepare()?;
        let engine = Surreal::open(
            self.directory.join(TREE),
            format::newest(self.migrations),
            Arc::clone(&self.full),
        )?;
        if let Err(error) = self.settle(&engine, version).await {
            // So that the next attempt does not find it in use.
            if let Err(error) = engine.close().await {
                tracing::debug!(%error, "a store that is not used did not end well");
            }
            return Err(error);
        }
        self.opened.store(true, Ordering::Release);
        Ok(Arc::new(engine))
    }

    /// Whether files can be written again.
    fn has_room(&self) -> io::Result<bool> {
        let free = rustix::fs::statvfs(&self.directory)?;
        let needed = size(&self.directory).min(COMPACTION_BYTES_MAX) + SPARE_BYTES;
        if free.f_bavail.saturating_mul(free.f_frsize) < needed {
            return Ok(false);
        }
        let path = self.directory.join(PROBE);
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PRIVATE_FILE)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(&[0xa5; PROBE_BYTES])?;
                file.sync_all()
            });
        // A quota that the caller is over may also be one of files.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        written.map(|()| true)
    }
}

impl Open for Disk {
    fn is_worth_trying(&self) -> bool {
        if !self.full.load(Ordering::Acquire) {
            return true;
        }
        let room = match self.has_room() {
            Ok(room) => room,
            Err(error) => {
                tracing::debug!(%error, "the store's directory cannot be written to");
                false
            }
        };
        if room {
            self.full.store(false, Ordering::Release);
        }
        room
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        Box::pin(async move {
            let opened = self.open_here().await;
            if let Err(OpenError::Engine(EngineError::NoSpace(_))) = opened {
                self.full.store(true, Ordering::Release);
            }
            opened
        })
    }

    fn place(&self) -> String {
        self.directory.display().to_string()
    }

    fn sealed(&self, sequence: u64) -> Result<(), EngineError> {
        let mut head = self.head.lock();
        let Some(head) = head.as_mut() else {
            return Err(EngineError::Stopped("it is not open".into()));
        };
        head.note(sequence).map_err(|error| io_error("head", &error))
    }
}

/// Makes a directory that is a store, of a copy of the tree that `copy` makes. What is there of it after an error is removed.
pub(super) fn copy(
    into: &Path,
    version: u32,
    sequence: u64,
    copy: &dyn Fn(&Path) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    make_private(into).map_err(|error| io_error("the copy's directory", &error))?;
    let made = copy(&into.join(TREE)).and_then(|()| {
        let (mut head, _) = Head::open(into).map_err(|error| io_error("head", &error))?;
        head.note(sequence)
            .and_then(|()| head.sync())
            .map_err(|error| io_error("head", &error))?;
        // The last: without it nothing takes this for a store.
        format::write(into, version)?;
        let parent = into
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        sync_directory(parent).map_err(|error| io_error("the copy's directory", &error))
    });
    if made.is_err()
        && let Err(error) = fs::remove_dir_all(into)
    {
        tracing::warn!(%error, path = %into.display(), "cannot remove a copy that was not finished");
    }
    made
}

/// Bytes of all files in a directory; what cannot be read counts as nothing.
pub(super) fn size(directory: &Path) -> u64 {
    size_to(directory, DEPTH_MAX)
}

fn size_to(directory: &Path, depth: u32) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() && depth > 0 => size_to(&entry.path(), depth - 1),
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    sizes.sum()
}
