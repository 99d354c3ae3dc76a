//! An engine that keeps everything in memory: for homes that are thrown away, for tests and for simulation.
//!
//! It can be opened again as it was, which is what a crash leaves of a disk: what was applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use super::engine::{Engine, EngineError, Later, Open, OpenError, Snapshot, Span, Write};
use super::table::{Kind, Table};

type Rows = BTreeMap<Bytes, Bytes>;

/// The engine, and what opens it. Clones share what they hold.
#[derive(Clone, Default)]
pub struct Memory {
    tables: Arc<RwLock<BTreeMap<Table, Arc<Rows>>>>,
    bytes: Arc<AtomicU64>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("bytes", &self.size())
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// Writes at once.
    pub fn write(&self, writes: Vec<Write>) {
        let mut tables = self.tables.write();
        let (mut more, mut less) = (0, 0);
        for Write { table, key, value } in writes {
            let rows = tables.entry(table.clone()).or_default();
            // Copied only while a snapshot looks at it.
            let rows = Arc::make_mut(rows);
            let length = key.len();
            let old = match value {
                Some(value) => {
                    more += length + value.len();
                    rows.insert(key, value)
                }
                None => rows.remove(&key),
            };
            less += old.map_or(0, |old| length + old.len());
            if rows.is_empty() {
                tables.remove(&table);
            }
        }
        self.bytes.fetch_add(more as u64, Ordering::Relaxed);
        self.bytes.fetch_sub(less as u64, Ordering::Relaxed);
    }

    /// Everything in it, in order: for tests that compare.
    pub fn entries(&self) -> Vec<(Table, Bytes, Bytes)> {
        let tables = self.tables.read();
        let rows = tables
            .iter()
            .flat_map(|(t, rows)| rows.iter().map(move |(k, v)| (t.clone(), k.clone(), v.clone())));
        rows.collect()
    }
}

struct View(Arc<Rows>);

impl Snapshot for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8], Bytes) -> bool) -> Result<(), EngineError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if span.end.is_some_and(|end| end <= span.start) {
            return Ok(());
        }
        let range = self
            .0
            .range::<[u8], _>((Included(span.start), span.end.map_or(Unbounded, Excluded)));
        let mut go_on = |(key, value): (&Bytes, &Bytes)| each(key, value.clone());
        if span.backwards {
            range.rev().all(&mut go_on);
        } else {
            let mut range = range;
            range.all(&mut go_on);
        }
        Ok(())
    }

    fn keys(&self, span: Span<'_>, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), EngineError> {
        self.scan(span, &mut |key, _| each(key))
    }
}

impl Engine for Memory {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        let rows = self.tables.read().get(table).cloned().unwrap_or_default();
        Ok(Box::new(View(rows)))
    }

    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        let tables = self.tables.read();
        let of_kind = tables.keys().filter(|t| t.as_bytes().first() == Some(&(kind as u8)));
        Ok(of_kind.cloned().collect())
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        self.write(writes);
        Box::pin(std::future::ready(Ok(())))
    }

    fn checkpoint(&self, _: &Path) -> Result<(), EngineError> {
        Err(EngineError::Io("a store in memory has no files to copy".into()))
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Open for Memory {
    fn is_worth_trying(&self) -> bool {
        true
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        let engine: Arc<dyn Engine> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(engine)))
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn sealed(&self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}
