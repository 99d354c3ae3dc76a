//! What the store needs of whatever keeps its bytes: atomic, durable batches and reads of what was applied.
//!
//! Small on purpose: order, visibility before the disk, conflicts and retries are the store's. An engine is used by one writer at a time
//! and any number of readers. Futures of `apply` are driven by the store's own thread.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::table::{Kind, Table};

/// Something that takes a while.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A key that gets a value, or loses it.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Which, within that.
    pub key: Bytes,
    /// What it becomes; `None`: gone.
    pub value: Option<Bytes>,
}

impl Write {
    /// Gives a key a value.
    pub fn put(table: Table, key: Bytes, value: impl Into<Bytes>) -> Self {
        Self {
            table,
            key,
            value: Some(value.into()),
        }
    }

    /// Removes a key.
    pub fn delete(table: Table, key: Bytes) -> Self {
        Self {
            table,
            key,
            value: None,
        }
    }

    /// Bytes that it holds.
    pub fn weight(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Why the engine did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk has no room. It may have later.
    #[error(
        "there is no space left for the store, which goes on when as much as it takes and 32 MiB more are free: {0}"
    )]
    NoSpace(Arc<str>),
    /// Reading or writing failed.
    #[error("the store's files cannot be read or written: {0}")]
    Io(Arc<str>),
    /// What is on disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(Arc<str>),
    /// The engine stopped, and has to be opened again.
    #[error("the store's engine has stopped: {0}")]
    Stopped(Arc<str>),
}

/// Which keys of a table, in which order.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// From here on.
    pub start: &'a [u8],
    /// Up to, and without, this; `None`: to the end of the table.
    pub end: Option<&'a [u8]>,
    /// The last first.
    pub backwards: bool,
}

impl Span<'_> {
    /// The whole table.
    pub const ALL: Self = Self {
        start: &[],
        end: None,
        backwards: false,
    };
}

/// One table as it was at one time.
pub trait Snapshot: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Tells the entries of a span in order, until it is told `false`.
    ///
    /// # Errors
    /// They cannot be read.
    fn scan(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8], Bytes) -> bool) -> Result<(), EngineError>;

    /// As [`Snapshot::scan`], without the values.
    ///
    /// # Errors
    /// They cannot be read.
    fn keys(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), EngineError>;
}

/// Keeps bytes.
pub trait Engine: Send + Sync {
    /// A table as it is now. Anything that was applied before is in it.
    ///
    /// # Errors
    /// It cannot be read.
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError>;

    /// The tables of a kind that have a key, in order. Costs a search for each, whatever they hold.
    ///
    /// # Errors
    /// They cannot be read.
    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError>;

    /// Writes all of it or nothing, and returns when it is on disk. The last write of a key counts. After an error it is not known
    /// which of the two happened, and the engine must be opened again.
    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>>;

    /// Writes a consistent copy of everything that was applied into a directory that does not exist, while others read and write.
    ///
    /// # Errors
    /// It cannot be written, or this engine has nothing to copy.
    fn checkpoint(&self, into: &Path) -> Result<(), EngineError>;

    /// Ends it. What was applied stays.
    fn close(&self) -> Later<'_, Result<(), EngineError>>;

    /// Bytes that it takes, on disk or, where it has none, in memory.
    fn size(&self) -> u64;
}

/// Opens an engine: at the start, and again after it failed.
pub trait Open: Send + Sync {
    /// Whether another attempt makes sense: there is space, say. Cheap; asked before the failed engine is closed, so that it can
    /// still be read from meanwhile.
    fn is_worth_trying(&self) -> bool;

    /// Opens it.
    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>>;

    /// Where it is, for people.
    fn place(&self) -> String;

    /// Notes durably enough to survive the end of this process that everything up to this sequence number was sealed, so that a
    /// store that lost some of it is not taken for a whole one. Called after each seal.
    ///
    /// # Errors
    /// It cannot be noted.
    fn sealed(&self, sequence: u64) -> Result<(), EngineError>;
}

/// Why there is no engine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// Made by a newer version of this program.
    #[error("the store has format {found}, and this program knows formats up to {known}: it was used by a newer one")]
    Newer {
        /// What is there.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// Commits that were acknowledged are not in it.
    #[error("the store ends at commit {found}, but commits up to {sealed} were acknowledged: some of it is lost")]
    Lost {
        /// The last that is there.
        found: u64,
        /// The last that was acknowledged.
        sealed: u64,
    },
    /// There was a store, and it is not there.
    #[error("the store that was here is gone")]
    Gone,
    /// The engine does not open it.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl OpenError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self, place: &str) -> String {
        match self {
            Self::Newer { .. } => "run the newer version again, or restore a backup that this one made".to_owned(),
            Self::Lost { .. } => {
                format!("move the home away and restore a backup; or remove {place}/head to go on without what is lost")
            }
            Self::Gone => format!(
                "put it back; or move the home away and restore a backup; or remove {place}.made to begin with an empty one"
            ),
            Self::Engine(EngineError::NoSpace(_)) => "make room on the disk".to_owned(),
            Self::Engine(EngineError::Damaged(_)) => {
                format!("move the home away and restore a backup; {place} is left as it was found")
            }
            Self::Engine(_) => format!("look at {place}: it must be writable, and used by nobody else"),
        }
    }
}
