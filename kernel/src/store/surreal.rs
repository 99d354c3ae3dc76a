//! The engine on disk: SurrealKV, in a directory of its own ([`Disk`]).
//!
//! A key on disk is the prefix of its table and the key within that. One transaction takes a whole batch and is synced before it
//! counts. Values lie beside their keys and not in a log of their own: they are bounded to a mebibyte, and one place less can fail.
//!
//! SurrealKV is opened, written to and closed within one runtime, which its background work runs on; reads come from any thread. Its tree
//! is never cloned: the end of any clone would close it. What panics in there, over damaged files above all, is an error here.
//!
//! Deliberately absent: trying again. A commit that failed may be on disk or not, and only opening it again tells.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use surrealkv::{Durability, LSMIterator, Mode, Options, ReadOptions, Transaction, Tree, TreeBuilder, WalRecoveryMode};
use tokio::time::timeout;

use super::engine::{Engine, EngineError, Later, Snapshot, Span, Write};
use super::table::{Kind, Table};

mod disk;
mod error;
mod format;
mod head;

pub use disk::Disk;
pub use format::Migration;

use error::translate;

/// Bytes that are kept in memory before they become a table file. A reader pays for few table files, an idle daemon for what is here. It
/// must hold a group of the store, of which SurrealKV reckons each entry with 2 KiB at worst: a larger one becomes a file at once.
const MEMTABLE_BYTES: usize = 4 << 20;

/// Bytes of blocks of table files that are kept in memory at most.
const CACHE_BYTES: u64 = 8 << 20;

/// Bytes of a block of a table file: what reading one key reads.
const BLOCK_BYTES: usize = 16 << 10;

/// Bytes of the first level of table files, and of each file: they bound what one compaction reads, writes and holds.
const LEVEL_BYTES: u64 = 16 << 20;
const FILE_BYTES: u64 = 4 << 20;

/// Levels of table files, with the first, whose files overlap. Few: what is deleted is passed over by every scan until a compaction has
/// carried that to the last level, and most of what is written here is a message that is deleted soon.
const LEVELS: u8 = 3;

/// How many times larger the last level may be than the one before it. Beyond that it is compacted within itself.
const LEVEL_RATIO: f64 = 64.0;

/// How long a commit may take: a group is small, so beyond this something that it waits for has ended.
const APPLY_TIME_MAX: Duration = Duration::from_secs(20);

/// How long the end may take before it is left to the next start to put things in order.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(10);

/// How late SurrealKV's clock may be woken, in nanoseconds.
const CLOCK_SLACK_NS: u64 = 3600 * 1_000_000_000;

/// How late a thread is woken if nothing else was asked for.
const DEFAULT_SLACK_NS: u64 = 50_000;

/// Runs what may panic over damaged files.
fn guarded<T>(what: impl FnOnce() -> Result<T, surrealkv::Error>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(result) => result.map_err(|error| translate(&error)),
        Err(_) => Err(panicked()),
    }
}

fn panicked() -> EngineError {
    EngineError::Damaged("SurrealKV panicked over its files".into())
}

/// Runs what starts SurrealKV's clock: a thread that wakes each second to set itself, for times that nothing here looks at, and that nobody
/// can keep from it. It inherits how late it may be woken, so it never wakes a machine that is at rest.
fn patiently<T>(what: impl FnOnce() -> T) -> T {
    let own = rustix::thread::current_timer_slack();
    let set = |slack: u64| {
        if let Err(error) =
            NonZeroU64::new(slack).map_or(Ok(()), |slack| rustix::thread::set_current_timer_slack(Some(slack)))
        {
            tracing::debug!(%error, "cannot set how late a thread may be woken");
        }
    };
    set(CLOCK_SLACK_NS);
    let result = what();
    set(own.unwrap_or(DEFAULT_SLACK_NS));
    result
}

fn options(path: PathBuf) -> Options {
    let mut options = Options::new()
        .with_path(path)
        .with_max_memtable_size(MEMTABLE_BYTES)
        .with_block_cache_capacity(CACHE_BYTES)
        .with_block_size(BLOCK_BYTES)
        .with_target_file_size(FILE_BYTES)
        .with_enable_vlog(false);
    options.level_count = LEVELS;
    options.max_bytes_for_level = LEVEL_BYTES;
    options.level_multiplier = LEVEL_RATIO;
    // A torn end of the log was never acknowledged. Anything else is damage, and nothing is thrown away to get over it.
    options.wal_recovery_mode = WalRecoveryMode::TolerateTornTail;
    options
}

/// The engine on disk. Made by [`Disk`].
pub struct Surreal {
    tree: Tree,
    path: PathBuf,
    /// The version of what is in it, for copies.
    format: u32,
    /// Told when there is no space.
    full: Arc<AtomicBool>,
}

impl std::fmt::Debug for Surreal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surreal")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Surreal {
    /// Opens what is in a directory, or makes it. Reads all of what was not in table files yet.
    fn open(path: PathBuf, format: u32, full: Arc<AtomicBool>) -> Result<Self, EngineError> {
        let tree = patiently(|| guarded(|| TreeBuilder::with_options(options(path.clone())).build()))?;
        Ok(Self {
            tree,
            path,
            format,
            full,
        })
    }

    fn begin(&self) -> Result<Transaction, EngineError> {
        guarded(|| self.tree.begin_with_mode(Mode::ReadOnly))
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), surrealkv::Error> {
        let mut transaction = self.tree.begin_with_mode(Mode::WriteOnly)?;
        transaction.set_durability(Durability::Immediate);
        for Write { table, key, value } in writes {
            let key = full_key(&table, &key);
            match value {
                Some(value) => transaction.set(key, Vec::from(value))?,
                None => transaction.delete(key)?,
            }
        }
        transaction.commit().await
    }

    /// What a commit's error comes from, if its own words do not say that.
    fn cause(&self, error: &surrealkv::Error) -> EngineError {
        let own = translate(error);
        match (own, self.tree.background_error()) {
            (EngineError::Stopped(_), Some(background)) => translate(&background.error),
            (own, _) => own,
        }
    }

    fn note(&self, error: EngineError) -> EngineError {
        if matches!(error, EngineError::NoSpace(_)) {
            self.full.store(true, Ordering::Release);
        }
        error
    }
}

fn full_key(table: &Table, key: &[u8]) -> Vec<u8> {
    [table.as_bytes(), key].concat()
}

/// The first key behind all of a table: its prefix ends with a byte that is the least.
fn table_end(table: &Table) -> Vec<u8> {
    let mut end = table.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Told a key within its table, and where its value is; tells whether to go on.
type Step<'a> = dyn FnMut(&[u8], &dyn LSMIterator) -> Result<bool, surrealkv::Error> + 'a;

struct TableSnapshot {
    transaction: Transaction,
    table: Table,
}

impl TableSnapshot {
    /// Walks over a span until it is told `false`.
    fn walk(&self, span: Span<'_>, each: &mut Step<'_>) -> Result<(), EngineError> {
        if span.end.is_some_and(|end| end <= span.start) {
            return Ok(());
        }
        let prefix = self.table.as_bytes().len();
        let mut bounds = ReadOptions::new();
        bounds.set_iterate_lower_bound(Some(full_key(&self.table, span.start)));
        let end = span
            .end
            .map_or_else(|| table_end(&self.table), |end| full_key(&self.table, end));
        bounds.set_iterate_upper_bound(Some(end));
        guarded(|| {
            let mut rows = self.transaction.range_with_options(&bounds)?;
            let mut valid = if span.backwards {
                rows.seek_last()?
            } else {
                rows.seek_first()?
            };
            while valid {
                let key = rows.key().user_key();
                if !each(key.get(prefix..).unwrap_or_default(), &rows)? {
                    break;
                }
                valid = if span.backwards { rows.prev()? } else { rows.next()? };
            }
            Ok(())
        })
    }
}

impl Snapshot for TableSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = guarded(|| self.transaction.get(full_key(&self.table, key)))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8], Bytes) -> bool) -> Result<(), EngineError> {
        self.walk(span, &mut |key, rows| Ok(each(key, Bytes::from(rows.value()?))))
    }

    fn keys(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), EngineError> {
        self.walk(span, &mut |key, _| Ok(each(key)))
    }
}

impl Engine for Surreal {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        Ok(Box::new(TableSnapshot {
            transaction: self.begin()?,
            table: table.clone(),
        }))
    }

    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        let transaction = self.begin()?;
        let mut bounds = ReadOptions::new();
        bounds.set_iterate_lower_bound(Some(vec![kind as u8]));
        bounds.set_iterate_upper_bound(Some(vec![kind as u8 + 1]));
        let mut tables = Vec::new();
        guarded(|| {
            let mut rows = transaction.range_with_options(&bounds)?;
            let mut valid = rows.seek_first()?;
            while valid {
                let Some((table, _)) = Table::split(rows.key().user_key()) else {
                    // Nothing of ours; the next key is.
                    valid = rows.next()?;
                    continue;
                };
                let end = table_end(&table);
                tables.push(table);
                valid = rows.seek(&end)?;
            }
            Ok(())
        })?;
        Ok(tables)
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let commit = AssertUnwindSafe(self.commit(writes)).catch_unwind();
            let result = match timeout(APPLY_TIME_MAX, commit).await {
                Ok(Ok(result)) => result.map_err(|error| self.cause(&error)),
                Ok(Err(_)) => Err(panicked()),
                Err(_) => Err(EngineError::Stopped(
                    format!("a commit took longer than {} s", APPLY_TIME_MAX.as_secs()).into(),
                )),
            };
            result.map_err(|error| self.note(error))
        })
    }

    fn checkpoint(&self, into: &Path) -> Result<(), EngineError> {
        // Before the copy: what is in it is at least this.
        let (sequence, _) = super::read_progress(self)?;
        disk::copy(into, self.format, sequence, &|tree| {
            guarded(|| self.tree.create_checkpoint(tree)).map(drop)
        })
        .map_err(|error| self.note(error))
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async move {
            let close = AssertUnwindSafe(self.tree.close()).catch_unwind();
            let result = match timeout(CLOSE_TIME_MAX, close).await {
                Ok(Ok(result)) => result.map_err(|error| translate(&error)),
                Ok(Err(_)) => Err(panicked()),
                Err(_) => Err(EngineError::Stopped("it does not end".into())),
            };
            if result.is_err() {
                // Nothing that it holds may keep the next one out, snapshots of slow readers least of all.
                self.tree.abandon();
            }
            result.map_err(|error| self.note(error))
        })
    }

    fn size(&self) -> u64 {
        disk::size(&self.path)
    }
}

#[cfg(test)]
mod tests;
