//! An engine that fails when it is told to: for tests and for simulation.
//!
//! It wraps another one, and what it does is decided by whoever holds its [`Faults`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use super::engine::{Engine, EngineError, Later, Open, OpenError, Snapshot, Write};
use super::table::{Kind, Table};

/// What fails. Clones are the same.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    /// Batches until one fails; 0: none does.
    until_failure: AtomicU64,
    /// Whether that one is on disk all the same.
    lands: AtomicBool,
    full: AtomicBool,
    held: watch::Sender<bool>,
    opened: AtomicU64,
}

impl Faults {
    /// Wraps what opens an engine. Nothing fails yet.
    pub fn over(inner: impl Open + 'static) -> (Self, Box<dyn Open>) {
        let faults = Self(Arc::new(Plan {
            until_failure: AtomicU64::new(0),
            lands: AtomicBool::new(false),
            full: AtomicBool::new(false),
            held: watch::channel(false).0,
            opened: AtomicU64::new(0),
        }));
        let opener = Box::new(Opener {
            faults: faults.clone(),
            inner: Box::new(inner),
        });
        (faults, opener)
    }

    /// Lets one batch fail: 1 is the next. `lands`: it is on disk all the same, as when a disk fails to say so.
    pub fn fail_batch(&self, nth: u64, lands: bool) {
        self.0.lands.store(lands, Ordering::Relaxed);
        self.0.until_failure.store(nth, Ordering::Release);
    }

    /// Whether the disk is full: batches fail, and no attempt to open it again is worth it.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::Release);
    }

    /// Whether batches wait.
    pub fn set_held(&self, held: bool) {
        self.0.held.send_replace(held);
    }

    /// How often an engine was opened.
    pub fn opened(&self) -> u64 {
        self.0.opened.load(Ordering::Acquire)
    }

    /// What becomes of a batch: an error, and whether it is written.
    fn verdict(&self) -> (Option<EngineError>, bool) {
        if self.0.full.load(Ordering::Acquire) {
            return (Some(EngineError::NoSpace("as it was told".into())), false);
        }
        let count = |left: u64| left.checked_sub(1);
        match self
            .0
            .until_failure
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, count)
        {
            Ok(1) => (
                Some(EngineError::Io("as it was told".into())),
                self.0.lands.load(Ordering::Relaxed),
            ),
            _ => (None, true),
        }
    }
}

struct Opener {
    faults: Faults,
    inner: Box<dyn Open>,
}

impl Open for Opener {
    fn is_worth_trying(&self) -> bool {
        !self.faults.0.full.load(Ordering::Acquire) && self.inner.is_worth_trying()
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        Box::pin(async {
            let engine = self.inner.open().await?;
            self.faults.0.opened.fetch_add(1, Ordering::AcqRel);
            let engine: Arc<dyn Engine> = Arc::new(Faulty {
                faults: self.faults.clone(),
                inner: engine,
            });
            Ok(engine)
        })
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    fn sealed(&self, sequence: u64) -> Result<(), EngineError> {
        self.inner.sealed(sequence)
    }
}

struct Faulty {
    faults: Faults,
    inner: Arc<dyn Engine>,
}

impl Engine for Faulty {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        self.inner.snapshot(table)
    }

    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        self.inner.tables(kind)
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async {
            // An error would mean that nobody holds the faults; this does.
            let _ = self.faults.0.held.subscribe().wait_for(|held| !held).await;
            let (error, written) = self.faults.verdict();
            if written {
                self.inner.apply(writes).await?;
            }
            error.map_or(Ok(()), Err)
        })
    }

    fn checkpoint(&self, into: &Path) -> Result<(), EngineError> {
        self.inner.checkpoint(into)
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        self.inner.close()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }
}
