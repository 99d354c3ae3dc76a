//! What of the ledger survives: totals, in the store.
//!
//! A total that bounds something must not be forgotten by a crash, and must not cost a write for each message. So fuel is *reserved* in
//! blocks: before the first of a block is used, the store has a row that says that all of it was. What is used then is counted in memory,
//! and the row is right again at the next block, at a clean stop, or when the row is evicted. A crash counts the rest of the block as used:
//! that is the safe direction. The write is eventual (on disk within 50 ms) and made half a block ahead.
//!
//! Where no total is limited nothing is reserved: the row is written a block later, so that what is told about use is mostly there.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use astrid_wire::Principal;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::account::{Account, Usage};
use crate::deadlines::Deadlines;
use crate::metrics::Metrics;
use crate::store::engine::{EngineError, Span, Write};
use crate::store::table::{Kind, Scope, Table};
use crate::store::{Batch, Level, Refused, Store};

/// Fuel of a block at most: about a second of a thread.
pub const BLOCK_FUEL_MAX: u64 = 1_000_000_000;

/// Fuel of a block at least, so that a small total does not become a write a message.
pub const BLOCK_FUEL_MIN: u64 = 1_000_000;

/// A limited total is made of this many blocks, between those two: a crash costs a small part of it.
const BLOCKS_PER_TOTAL: u64 = 64;

/// Wait before what could not be reserved is tried again.
pub(super) const RESERVE_AGAIN_NS: u64 = 500_000_000;

/// Version of a row.
const FORMAT: u8 = 1;

/// Numbers of a row.
const NUMBERS: usize = 7;

/// How far a row in the store is good.
#[derive(Debug)]
pub(super) struct Book {
    /// The fuel at which the store is to be told next.
    due: AtomicU64,
    /// The fuel that the store counts as used.
    reserved: AtomicU64,
    /// How often the store had failed when it was told last: what it was told then may be forgotten.
    epoch: AtomicU64,
    /// The row as the store has it, as far as is known. Writes of one row happen one after another.
    written: Mutex<Option<Row>>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            due: AtomicU64::new(BLOCK_FUEL_MAX),
            reserved: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            written: Mutex::new(None),
        }
    }
}

impl Book {
    /// Whether the store is to be told.
    pub(super) fn is_due(&self, fuel: u64) -> bool {
        fuel >= self.due.load(Ordering::Relaxed)
    }

    /// The limits changed.
    pub(super) fn look_again(&self) {
        self.due.store(0, Ordering::Relaxed);
    }
}

/// Clock and store of all rows.
pub(super) struct Bank {
    store: Arc<Store>,
    deadlines: Arc<Deadlines>,
    /// Where nanoseconds are counted from: a window before the start, so that a full one is representable.
    origin: Instant,
    table: Table,
    /// Fuel used since the start.
    spent: AtomicU64,
    /// Whether somebody waits for `used`.
    watched: AtomicBool,
    used: Notify,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank").finish_non_exhaustive()
    }
}

/// A row as it is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row([u64; NUMBERS]);

impl Row {
    /// What a row would say now.
    pub(super) fn of(usage: &Usage) -> Self {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Self([
            read(&usage.fuel),
            read(&usage.handled),
            read(&usage.faults),
            read(&usage.published),
            read(&usage.published_bytes),
            read(&usage.children),
            read(&usage.refused),
        ])
    }

    /// The fuel that it counts as used.
    fn fuel(&self) -> u64 {
        self.0[0]
    }

    /// The same with all of a block counted as used.
    fn with_fuel(mut self, fuel: u64) -> Self {
        self.0[0] = fuel;
        self
    }

    pub(super) fn add_to(&self, usage: &Usage) {
        let fields = [
            &usage.fuel,
            &usage.handled,
            &usage.faults,
            &usage.published,
            &usage.published_bytes,
            &usage.children,
            &usage.refused,
        ];
        for (field, number) in fields.into_iter().zip(self.0) {
            field.fetch_add(number, Ordering::Relaxed);
        }
    }

    fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(1 + 8 * NUMBERS);
        bytes.push(FORMAT);
        self.0.iter().for_each(|n| bytes.extend(n.to_be_bytes()));
        bytes.into()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let numbers = bytes.strip_prefix(&[FORMAT])?;
        let mut row = Self::default();
        if numbers.len() != 8 * NUMBERS {
            return None;
        }
        for (n, eight) in row.0.iter_mut().zip(numbers.chunks_exact(8)) {
            *n = u64::from_be_bytes(eight.try_into().ok()?);
        }
        Some(row)
    }
}

impl Bank {
    pub(super) fn new(store: Arc<Store>, deadlines: Arc<Deadlines>, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            origin: deadlines.now(),
            store,
            deadlines,
            table: Table::of(Kind::Ledger, "", &Scope::System),
            spent: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            used: Notify::new(),
        }
    }

    /// A quota refused something.
    pub(super) fn count_refusal(&self) {
        self.metrics.quota_refused.increment();
    }

    /// The monotonic clock.
    pub(super) fn now_ns(&self) -> u64 {
        let since = self.deadlines.now().saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn key(principal: &Principal) -> Bytes {
        Bytes::copy_from_slice(principal.as_str().as_bytes())
    }

    /// What the store says of a principal.
    pub(super) fn load(&self, principal: &Principal) -> Result<Row, EngineError> {
        let found = self.store.view(&self.table)?.get(&Self::key(principal))?;
        let Some(bytes) = found else { return Ok(Row::default()) };
        Row::read(&bytes).ok_or_else(|| EngineError::Damaged(format!("what {principal} used cannot be read").into()))
    }

    /// Rows of the store after a principal, in the order of their names.
    pub(super) fn rows(&self, after: Option<&str>, max: usize) -> Result<Vec<(Principal, Row)>, EngineError> {
        let mut start = after.unwrap_or_default().as_bytes().to_vec();
        if after.is_some() {
            start.push(0);
        }
        let rows = self.store.rows(&self.table, &start, max)?;
        let named = rows.into_iter().filter_map(|(key, value)| {
            let principal = Principal::stamped(std::str::from_utf8(&key).ok()?).ok()?;
            Some((principal, Row::read(&value)?))
        });
        Ok(named.collect())
    }

    fn write(&self, writes: Vec<Write>, level: Level) -> Result<u64, Refused> {
        let sequenced = self.store.sequence(Batch {
            writes,
            once: Vec::new(),
            level,
            shared: None,
            epoch: self.store.epoch(),
            now_ms: self.deadlines.clock().wall_ms(),
        });
        sequenced.map(|sequenced| sequenced.number)
    }

    /// Fuel was used.
    pub(super) fn spend(&self, fuel: u64) {
        self.spent.fetch_add(fuel, Ordering::Relaxed);
        if self.watched.load(Ordering::Relaxed) && self.watched.swap(false, Ordering::AcqRel) {
            self.used.notify_waiters();
        }
    }

    /// Returns when something is handled, for whomever.
    pub(super) async fn used(&self) {
        let mut used = pin!(self.used.notified());
        used.as_mut().enable();
        self.watched.store(true, Ordering::Release);
        used.await;
    }

    /// Fuel used since the start.
    pub(super) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Adds to a new row what the store says. If the store cannot be read, that is done before anything is written.
    pub(super) fn open(&self, account: &Account) {
        let mut written = account.book.written.lock();
        if let Err(error) = self.read_into(account, &mut written) {
            tracing::error!(principal = %account.principal(), %error, "what a principal used cannot be read now");
            account.book.look_again();
        }
    }

    fn read_into(&self, account: &Account, written: &mut Option<Row>) -> Result<Row, EngineError> {
        if let Some(row) = *written {
            return Ok(row);
        }
        let row = self.load(account.principal())?;
        row.add_to(&account.usage);
        *written = Some(row);
        let fuel = account.usage.fuel.load(Ordering::Relaxed);
        account.book.reserved.store(row.fuel(), Ordering::Relaxed);
        account
            .book
            .due
            .store(fuel.saturating_add(BLOCK_FUEL_MAX), Ordering::Relaxed);
        Ok(row)
    }

    /// Writes rows as they are.
    pub(super) fn settle(&self, accounts: &[Arc<Account>]) -> Result<(), Refused> {
        let mut writes = Vec::new();
        let mut rows = Vec::new();
        for account in accounts {
            let mut written = account.book.written.lock();
            let before = self.read_into(account, &mut written);
            let before = before.map_err(|error| Refused::Unavailable(error.to_string().into()))?;
            let row = Row::of(&account.usage);
            if row != before {
                writes.push(Write::put(
                    self.table.clone(),
                    Self::key(account.principal()),
                    row.to_bytes(),
                ));
                rows.push((account, row));
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        self.write(writes, Level::Eventual)?;
        for (account, row) in rows {
            *account.book.written.lock() = Some(row);
            account.book.reserved.store(row.fuel(), Ordering::Relaxed);
            account.book.look_again();
        }
        Ok(())
    }

    /// Forgets a principal, whose row in memory this is if there is one. The number of the commit.
    pub(super) fn forget(&self, principal: &Principal, account: Option<&Account>) -> Result<u64, Refused> {
        let delete = vec![Write::delete(self.table.clone(), Self::key(principal))];
        let Some(book) = account.map(|account| &account.book) else {
            return self.write(delete, Level::Durable);
        };
        // Nobody writes the row meanwhile.
        let mut written = book.written.lock();
        let number = self.write(delete, Level::Durable)?;
        *written = Some(Row::default());
        book.reserved.store(0, Ordering::Relaxed);
        book.look_again();
        Ok(number)
    }

    /// Whether the store counts that much fuel as used, now at the latest.
    pub(super) fn is_reserved(&self, account: &Account, fuel: u64) -> bool {
        let book = &account.book;
        if book.epoch.load(Ordering::Relaxed) != self.store.epoch() {
            book.reserved.store(0, Ordering::Relaxed);
            book.look_again();
        }
        if book.is_due(fuel) {
            self.note(account);
        }
        fuel < book.reserved.load(Ordering::Relaxed)
    }

    /// Tells the store, and reserves the next block if a total is limited.
    pub(super) fn note(&self, account: &Account) {
        let book = &account.book;
        let mut written = book.written.lock();
        if let Err(error) = self.read_into(account, &mut written) {
            tracing::debug!(principal = %account.principal(), %error, "what a principal used cannot be read now");
            return;
        }
        let fuel = account.usage.fuel.load(Ordering::Relaxed);
        if !book.is_due(fuel) {
            return;
        }
        let limited = account.fuel_max();
        let block = limited.map_or(BLOCK_FUEL_MAX, |max| {
            (max / BLOCKS_PER_TOTAL).clamp(BLOCK_FUEL_MIN, BLOCK_FUEL_MAX)
        });
        if limited.is_none() && fuel < book.reserved.load(Ordering::Relaxed).saturating_add(block) {
            // Nothing bounds it and the row is not old: only the next time to look had to be found.
            book.due.store(fuel.saturating_add(block), Ordering::Relaxed);
            return;
        }
        let reserved = if limited.is_some() {
            fuel.saturating_add(block)
        } else {
            fuel
        };
        // Before it is told: a failure in between makes this be done again.
        book.epoch.store(self.store.epoch(), Ordering::Relaxed);
        let row = Row::of(&account.usage).with_fuel(reserved);
        let put = Write::put(self.table.clone(), Self::key(account.principal()), row.to_bytes());
        if let Err(error) = self.write(vec![put], Level::Eventual) {
            tracing::debug!(principal = %account.principal(), %error, "what a principal used cannot be noted now");
            // Where a total is limited nothing goes on without: it is tried again at once.
            let later = if limited.is_some() { 0 } else { block / 16 };
            book.due.store(fuel.saturating_add(later), Ordering::Relaxed);
            return;
        }
        *written = Some(row);
        book.reserved.store(reserved, Ordering::Relaxed);
        let next = if limited.is_some() { block / 2 } else { block };
        book.due.store(fuel.saturating_add(next), Ordering::Relaxed);
    }

    /// Bytes of keys and values that a principal's actors keep. Looks for its tables among all, and reads them.
    pub(super) fn stored_bytes(&self, principal: &Principal) -> Result<u64, EngineError> {
        let mut bytes = 0;
        for table in self.store.tables(Kind::Kv)? {
            let of_it = table
                .owner()
                .is_some_and(|(_, scope)| scope == Scope::Principal(principal.clone()));
            if of_it {
                let none = std::collections::BTreeMap::new();
                self.store.view(&table)?.scan(Span::ALL, &none, &mut |key, value| {
                    bytes += (key.len() + value.len()) as u64;
                    true
                })?;
            }
        }
        Ok(bytes)
    }
}
