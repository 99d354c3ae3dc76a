//! One handling's view of its actor's table: what it has read, and what it wants to write.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::authority::Permit;
use crate::store::engine::{EngineError, Span, Write};
use crate::store::table::Table;
use crate::store::view::View;
use crate::store::{Reads, Store};

/// Keys that one handling may write.
pub(crate) const WRITES_MAX: usize = 10_000;

/// Bytes that one handling may write: they are in memory until they are on disk.
pub(crate) const WRITE_BYTES_MAX: usize = 8 << 20;

/// Bytes that one page of a scan holds at most, but for a single larger entry.
pub(crate) const PAGE_BYTES_MAX: usize = 1 << 20;

/// Entries that one page of a scan holds at most.
pub(crate) const PAGE_ENTRIES_MAX: u32 = 1000;

/// Keys and spans that are remembered of one handling, where others write the same table; beyond, all of the table is taken as read.
const READS_MAX: usize = 1024;

/// This many keys, or bytes, were written, the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch(pub u64);

/// A page of a scan: its entries, and where the next begins.
pub(crate) type Page = (Vec<(Bytes, Bytes)>, Option<Bytes>);

/// The table of one handling.
#[derive(Debug, Default)]
pub(crate) struct Working {
    view: Option<View>,
    writes: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
    /// Kept where several actors share the table.
    reads: Option<Reads>,
    /// Why something could not be read.
    unreadable: Option<EngineError>,
}

impl Working {
    /// Begins another handling.
    pub(crate) fn begin(&mut self, shared: bool) {
        self.view = None;
        self.writes.clear();
        self.bytes = 0;
        self.reads = shared.then(Reads::default);
        self.unreadable = None;
    }

    /// Why something could not be read, if that is so. The message is not to blame for what comes of that.
    pub(crate) fn unreadable(&mut self) -> Option<EngineError> {
        self.unreadable.take()
    }

    fn noting<T>(&mut self, read: Result<T, EngineError>) -> Result<T, EngineError> {
        read.inspect_err(|error| self.unreadable = Some(error.clone()))
    }

    /// Whether something was written.
    pub(crate) fn is_written(&self) -> bool {
        !self.writes.is_empty()
    }

    /// The last commit that was seen of a table that others write, if not all of what was seen is on disk.
    pub(crate) fn seen_ahead(&self) -> Option<u64> {
        let view = self.view.as_ref()?;
        (self.reads.is_some() && view.is_ahead()).then(|| view.sequence())
    }

    fn view(&mut self, store: &Store, table: &Permit<Table>) -> Result<&View, EngineError> {
        let view = match self.view.take() {
            Some(view) => view,
            None => {
                let view = store.view(table.object())?;
                if let Some(reads) = &mut self.reads {
                    reads.at = view.sequence();
                }
                view
            }
        };
        Ok(self.view.insert(view))
    }

    fn note(&mut self, span: (Bytes, Option<Bytes>)) {
        let Some(reads) = &mut self.reads else { return };
        if reads.spans.len() >= READS_MAX {
            reads.spans = vec![(Bytes::new(), None)];
        } else {
            reads.spans.push(span);
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn get(
        &mut self,
        store: &Store,
        table: &Permit<Table>,
        key: &[u8],
    ) -> Result<Option<Bytes>, EngineError> {
        if let Some(written) = self.writes.get(key) {
            return Ok(written.clone());
        }
        let value = self.view(store, table).and_then(|view| view.get(key));
        let value = self.noting(value)?;
        if let Some(reads) = &mut self.reads {
            if reads.keys.len() < READS_MAX {
                reads.keys.push(Bytes::copy_from_slice(key));
            } else {
                self.note((Bytes::new(), None));
            }
        }
        Ok(value)
    }

    /// Gives a key a value, or removes it.
    ///
    /// # Errors
    /// [`TooMuch`] was written.
    pub(crate) fn write(&mut self, _: Permit<Table>, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), TooMuch> {
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        if self.bytes + bytes > WRITE_BYTES_MAX {
            return Err(TooMuch(WRITE_BYTES_MAX as u64));
        }
        let key = Bytes::from(key);
        if self.writes.len() >= WRITES_MAX && !self.writes.contains_key(&key) {
            return Err(TooMuch(WRITES_MAX as u64));
        }
        self.bytes += bytes;
        let length = key.len();
        if let Some(old) = self.writes.insert(key, value.map(Bytes::from)) {
            self.bytes -= length + old.map_or(0, |v| v.len());
        }
        Ok(())
    }

    /// A page of a span.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn scan(
        &mut self,
        store: &Store,
        table: &Permit<Table>,
        span: Span<'_>,
        limit: u32,
    ) -> Result<Page, EngineError> {
        let limit = usize::try_from(limit.min(PAGE_ENTRIES_MAX)).unwrap_or(1);
        let viewed = self.view(store, table).map(|_| ());
        self.noting(viewed)?;
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, None);
        if let Some(view) = &self.view {
            let scanned = view.scan(span, &self.writes, &mut |key, value| {
                let weight = key.len() + value.len();
                if entries.len() >= limit || (bytes + weight > PAGE_BYTES_MAX && !entries.is_empty()) {
                    next = Some(match span.backwards {
                        false => Bytes::copy_from_slice(key),
                        // The end of a span is not in it: the key after this one.
                        true => [key, &[0]].concat().into(),
                    });
                    return false;
                }
                bytes += weight;
                entries.push((Bytes::copy_from_slice(key), value));
                true
            });
            self.noting(scanned)?;
        }
        let (start, end) = match (&next, span.backwards) {
            (Some(next), false) => (Bytes::copy_from_slice(span.start), Some(next.clone())),
            (Some(next), true) => (next.clone(), span.end.map(Bytes::copy_from_slice)),
            (None, _) => (Bytes::copy_from_slice(span.start), span.end.map(Bytes::copy_from_slice)),
        };
        self.note((start, end));
        Ok((entries, next))
    }

    /// What is to be written, and what was read of a table that others write.
    pub(crate) fn take(&mut self, table: &Table) -> (Vec<Write>, Option<(Table, Reads)>) {
        self.view = None;
        self.bytes = 0;
        let writes = std::mem::take(&mut self.writes).into_iter();
        let writes = writes.map(|(key, value)| Write {
            table: table.clone(),
            key,
            value,
        });
        (writes.collect(), self.reads.take().map(|reads| (table.clone(), reads)))
    }
}
