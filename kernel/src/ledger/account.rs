//! One principal's row: what it used, what it holds, and what it may.
//!
//! Everything is an atomic: a principal without a quota pays a load and a comparison for each limit that it does not have. What is held is
//! a [`Hold`], which gives itself back; a row that something is held of, or that somebody acts for, is never evicted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use astrid_wire::authority::WEIGHT_MAX;
use astrid_wire::quota::Quota;
use astrid_wire::{Principal, control};
use parking_lot::Mutex;

use super::bank::{Bank, Book};
use super::bucket::{Bucket, Empty, UNLIMITED};
use super::exceeded::{Exceeded, Limit};
use super::gauge::Gauge;
use crate::store::engine::EngineError;

/// Which part of a limit of storage what capsules remember has for itself, and how many bytes at most: who has filled it with files can still be
/// told of its programs, and end them.
const STATE_RESERVE_PART: u64 = 8;
const STATE_RESERVE_BYTES_MAX: u64 = 256 << 10;

/// Capsules that a principal's use is told apart by; what it uses of others is counted together.
pub const PAIRS_MAX: usize = 64;

/// What somebody used.
#[derive(Debug, Default)]
pub struct Usage {
    /// Messages handled and committed.
    pub handled: AtomicU64,
    /// Fuel, whatever became of the handling.
    pub fuel: AtomicU64,
    /// Generations that ended in a fault.
    pub faults: AtomicU64,
    /// Generations started. Of capsules.
    pub generations: AtomicU64,
    /// Largest memory of one instance, in bytes. Of capsules.
    pub memory_peak: AtomicU64,
    /// Messages published, asks among them. Of principals.
    pub published: AtomicU64,
    /// Bytes of their bodies.
    pub published_bytes: AtomicU64,
    /// Programs started. Of principals.
    pub children: AtomicU64,
    /// Times that a quota refused something. Of principals.
    pub refused: AtomicU64,
}

impl Usage {
    /// As if nothing had been used.
    pub(super) fn reset(&self) {
        let Self {
            handled,
            fuel,
            faults,
            generations,
            memory_peak,
            published,
            published_bytes,
            children,
            refused,
        } = self;
        let all = [
            handled,
            fuel,
            faults,
            generations,
            memory_peak,
            published,
            published_bytes,
            children,
            refused,
        ];
        all.iter().for_each(|number| number.store(0, Ordering::Relaxed));
    }

    /// Adds the end of one handling.
    pub fn add(&self, fuel: u64, memory: usize, committed: bool) {
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.handled.fetch_add(u64::from(committed), Ordering::Relaxed);
        let memory = memory as u64;
        if memory > self.memory_peak.load(Ordering::Relaxed) {
            self.memory_peak.fetch_max(memory, Ordering::Relaxed);
        }
    }
}

/// What a principal used of one capsule, since its row was made.
#[derive(Debug, Default)]
pub struct Pair {
    /// Messages handled and committed.
    pub handled: AtomicU64,
    /// Fuel.
    pub fuel: AtomicU64,
}

/// What is held of a quota; given back by being dropped.
#[derive(Debug)]
#[must_use = "dropping a hold gives back what is held"]
pub struct Hold {
    account: Arc<Account>,
    what: Limit,
    amount: u64,
}

impl Hold {
    /// Takes more of the same.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing more is held then.
    pub fn grow(&mut self, amount: u64) -> Result<(), Exceeded> {
        self.account.take(self.what, amount)?;
        self.amount += amount;
        Ok(())
    }

    /// As [`Hold::grow`], of storage for what capsules remember: as long as that is little, files that have taken all do not stand in its way.
    ///
    /// # Errors
    /// [`Exceeded`]; what was held before stays held.
    pub fn grow_state(&mut self, amount: u64) -> Result<(), Exceeded> {
        self.account.take_state(self.amount, amount)?;
        self.amount += amount;
        Ok(())
    }

    /// This much is held from now on, whatever the limit says.
    pub fn set(&mut self, amount: u64) {
        let gauge = self.account.gauge(self.what);
        match amount.checked_sub(self.amount) {
            Some(0) => {}
            Some(more) => gauge.force(more),
            None => gauge.give_back(self.amount - amount),
        }
        self.amount = amount;
    }

    /// Somebody else holds it from now on, whatever its limit says.
    pub fn move_to(&mut self, account: &Arc<Account>) {
        account.gauge(self.what).force(self.amount);
        self.account.gauge(self.what).give_back(self.amount);
        self.account = Arc::clone(account);
    }

    /// What was held of storage is in the tables of its principal's actors now, and counted on as that.
    pub fn keep(mut self) {
        self.account.in_tables.fetch_add(self.amount, Ordering::Relaxed);
        self.amount = 0;
    }

    /// What it is held for begins: a program.
    pub fn count_start(&self) {
        self.account.usage.children.fetch_add(1, Ordering::Relaxed);
    }

    /// How much is held.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.account.gauge(self.what).give_back(self.amount);
        }
    }
}

/// A principal's row.
#[derive(Debug)]
pub struct Account {
    principal: Principal,
    bank: Arc<Bank>,
    /// What was used, earlier lives of the daemon included.
    pub usage: Usage,
    pub(super) book: Book,
    fuel: Bucket,
    fuel_max: AtomicU64,
    messages: Bucket,
    bytes: Bucket,
    memory: Gauge,
    storage: Gauge,
    /// What of that is in the tables of its actors, as far as it was counted.
    in_tables: AtomicU64,
    children: Gauge,
    connections: Gauge,
    calls: Gauge,
    timeout_ms: AtomicU64,
    weight: AtomicU32,
    /// Its quota was set by hand, and is known here only.
    pub(super) is_set: AtomicBool,
    /// The storage that it uses is counted.
    pub(super) is_measured: AtomicBool,
    pairs: Mutex<HashMap<Arc<str>, Arc<Pair>, ahash::RandomState>>,
}

impl Account {
    pub(super) fn new(principal: Principal, bank: Arc<Bank>) -> Self {
        Self {
            principal,
            bank,
            usage: Usage::default(),
            book: Book::default(),
            fuel: Bucket::default(),
            fuel_max: AtomicU64::new(UNLIMITED),
            messages: Bucket::default(),
            bytes: Bucket::default(),
            memory: Gauge::default(),
            storage: Gauge::default(),
            in_tables: AtomicU64::new(0),
            children: Gauge::default(),
            connections: Gauge::default(),
            calls: Gauge::default(),
            timeout_ms: AtomicU64::new(UNLIMITED),
            weight: AtomicU32::new(1),
            is_set: AtomicBool::new(false),
            is_measured: AtomicBool::new(false),
            pairs: Mutex::default(),
        }
    }

    /// What was used is forgotten; what is held is not.
    pub(super) fn begin_again(&self) {
        self.usage.reset();
        self.is_set.store(false, Ordering::Relaxed);
        [&self.fuel, &self.messages, &self.bytes]
            .iter()
            .for_each(|b| b.refill());
        self.measure_again();
        let mut pairs = self.pairs.lock();
        pairs.retain(|_, pair| Arc::strong_count(pair) > 1);
        for pair in pairs.values() {
            pair.handled.store(0, Ordering::Relaxed);
            pair.fuel.store(0, Ordering::Relaxed);
        }
    }

    /// Who.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn set_quota(&self, quota: &Quota) {
        let now = self.bank.now_ns();
        let unless = |max: Option<u64>| max.unwrap_or(UNLIMITED);
        self.fuel.set_rate(quota.fuel_per_second, now);
        self.fuel_max.store(unless(quota.fuel_total), Ordering::Relaxed);
        self.messages.set_rate(quota.messages_per_second, now);
        self.bytes.set_rate(quota.bytes_per_second.map(|b| b.0), now);
        self.memory.set_max(quota.memory.map(|b| b.0));
        self.storage.set_max(quota.storage.map(|b| b.0));
        if quota.storage.is_none() {
            // Nothing is counted while there is no limit.
            self.measure_again();
        }
        self.children.set_max(quota.children);
        self.connections.set_max(quota.connections);
        self.calls.set_max(quota.calls);
        let ms = quota
            .timeout
            .map(|t| u64::try_from(t.0.as_millis()).unwrap_or(UNLIMITED));
        self.timeout_ms.store(unless(ms), Ordering::Relaxed);
        self.book.look_again();
    }

    /// Its share of a thread, against others': 1 to [`WEIGHT_MAX`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight.clamp(1, WEIGHT_MAX), Ordering::Relaxed);
    }

    /// The longest that an ask of it may wait.
    pub fn timeout_max(&self) -> Duration {
        match self.timeout_ms.load(Ordering::Relaxed) {
            UNLIMITED => Duration::MAX,
            ms => Duration::from_millis(ms),
        }
    }

    /// The fuel that it may use in total, if that is limited.
    pub(super) fn fuel_max(&self) -> Option<u64> {
        let max = self.fuel_max.load(Ordering::Relaxed);
        (max != UNLIMITED).then_some(max)
    }

    /// Whether a total is limited.
    pub(super) fn has_total(&self) -> bool {
        self.fuel_max().is_some()
    }

    fn gauge(&self, what: Limit) -> &Gauge {
        match what {
            Limit::Memory => &self.memory,
            Limit::Storage => &self.storage,
            Limit::Children => &self.children,
            Limit::Connections => &self.connections,
            // What is counted a second or in total is not held.
            Limit::Calls
            | Limit::FuelPerSecond
            | Limit::FuelTotal
            | Limit::MessagesPerSecond
            | Limit::BytesPerSecond => &self.calls,
        }
    }

    fn exceeded(&self, what: Limit, limit: u64, frees_in_ns: Option<u64>) -> Exceeded {
        self.usage.refused.fetch_add(1, Ordering::Relaxed);
        self.bank.count_refusal();
        Exceeded {
            principal: self.principal.clone(),
            what,
            limit,
            retry_after_ms: frees_in_ns.map(|ns| ns.div_ceil(1_000_000)),
        }
    }

    fn take(&self, what: Limit, amount: u64) -> Result<(), Exceeded> {
        self.gauge(what)
            .take(amount)
            .map_err(|limit| self.exceeded(what, limit, None))
    }

    /// Holds so much of what is held: memory, storage, children, connections, calls.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is held then.
    pub fn hold(self: &Arc<Self>, what: Limit, amount: u64) -> Result<Hold, Exceeded> {
        self.take(what, amount)?;
        Ok(Hold {
            account: Arc::clone(self),
            what,
            amount,
        })
    }

    /// Holds storage for what capsules remember, as [`Hold::grow_state`] does.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn hold_state(self: &Arc<Self>, amount: u64) -> Result<Hold, Exceeded> {
        self.take_state(0, amount)?;
        Ok(Hold {
            account: Arc::clone(self),
            what: Limit::Storage,
            amount,
        })
    }

    fn take_state(&self, held: u64, amount: u64) -> Result<(), Exceeded> {
        self.take(Limit::Storage, amount).or_else(|exceeded| {
            let max = self.storage.max().unwrap_or(u64::MAX);
            let reserve = (max / STATE_RESERVE_PART).min(STATE_RESERVE_BYTES_MAX);
            let there = self.in_tables.load(Ordering::Relaxed).saturating_add(held);
            if there.saturating_add(amount) > reserve {
                return Err(exceeded);
            }
            self.storage.force(amount);
            Ok(())
        })
    }

    /// Whether it stores more than it may: its files were written by somebody whom nobody could ask before.
    pub fn stores_too_much(&self) -> bool {
        self.storage.max().is_some_and(|max| self.storage.now() > max)
    }

    /// Holds so much, whatever the limit says: it is there already.
    pub fn hold_anyway(self: &Arc<Self>, what: Limit, amount: u64) -> Hold {
        self.gauge(what).force(amount);
        Hold {
            account: Arc::clone(self),
            what,
            amount,
        }
    }

    /// Takes a message out of the windows of messages and bytes. It is counted by [`Account::published`], once it was said.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing is taken then.
    pub fn say(&self, bytes: usize) -> Result<(), Exceeded> {
        let bytes = bytes as u64;
        let empty = |what, bucket: &Bucket, Empty { frees_in_ns }: Empty| {
            self.exceeded(what, bucket.rate().unwrap_or(UNLIMITED), frees_in_ns)
        };
        self.bytes
            .take(bytes, || self.bank.now_ns())
            .map_err(|e| empty(Limit::BytesPerSecond, &self.bytes, e))?;
        self.messages.take(1, || self.bank.now_ns()).map_err(|e| {
            self.bytes.give_back(bytes);
            empty(Limit::MessagesPerSecond, &self.messages, e)
        })
    }

    /// Counts messages that were said.
    pub fn published(&self, messages: u64, bytes: u64) {
        self.usage.published.fetch_add(messages, Ordering::Relaxed);
        self.usage.published_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether anything may be handled for it now: whether it has fuel.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn check_fuel(&self) -> Result<(), Exceeded> {
        if let Some(max) = self.fuel_max() {
            let used = self.usage.fuel.load(Ordering::Relaxed);
            if used >= max {
                return Err(self.exceeded(Limit::FuelTotal, max, None));
            }
            if !self.bank.is_reserved(self, used) {
                // What cannot be counted over a crash does not happen: the store takes nothing now.
                return Err(self.exceeded(Limit::FuelTotal, max, Some(super::bank::RESERVE_AGAIN_NS)));
            }
        }
        self.check_fuel_window()
    }

    /// As [`Account::check_fuel`], for what may be used up in total and must run all the same.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub fn check_fuel_window(&self) -> Result<(), Exceeded> {
        self.fuel
            .check(|| self.bank.now_ns())
            .map_err(|e| self.exceeded(Limit::FuelPerSecond, self.fuel.rate().unwrap_or(0), e.frees_in_ns))
    }

    /// Counts the end of one handling.
    pub fn handled(&self, pair: &Pair, fuel: u64, memory: usize, committed: bool) {
        self.usage.add(fuel, memory, committed);
        pair.fuel.fetch_add(fuel, Ordering::Relaxed);
        pair.handled.fetch_add(u64::from(committed), Ordering::Relaxed);
        self.bank.spend(fuel);
        self.fuel.charge(fuel, || self.bank.now_ns());
        let used = self.usage.fuel.load(Ordering::Relaxed);
        if self.book.is_due(used) {
            self.bank.note(self);
        }
    }

    /// Where its use of a capsule is counted.
    pub fn pair(&self, capsule: &Arc<str>) -> Arc<Pair> {
        let mut pairs = self.pairs.lock();
        if let Some(pair) = pairs.get(capsule) {
            return Arc::clone(pair);
        }
        let name = if pairs.len() < PAIRS_MAX {
            Arc::clone(capsule)
        } else {
            Arc::from(control::usage::OTHERS)
        };
        Arc::clone(pairs.entry(name).or_default())
    }

    /// Whether what it stores is to be counted.
    pub fn pays_for_storage(&self) -> bool {
        self.storage.max().is_some()
    }

    /// Bytes that it may store besides what it does.
    pub fn storage_room(&self) -> u64 {
        let max = self.storage.max().unwrap_or(u64::MAX);
        max.saturating_sub(self.storage.now())
    }

    /// Its actors' tables hold less.
    pub fn stores_less(&self, bytes: u64) {
        let less = |now: u64| Some(now.saturating_sub(bytes));
        // It always has a next value.
        self.in_tables
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok();
        self.storage.give_back(bytes);
    }

    /// Whether what it stores is counted, all of it: from then on it is kept up by who writes.
    pub fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Acquire)
    }

    /// Counts what its actors' tables hold, once. What else it stores is counted before this, by who knows of it.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn measure_storage(&self) -> Result<(), EngineError> {
        if !self.is_measured() {
            let bytes = self.bank.stored_bytes(&self.principal)?;
            if !self.is_measured.swap(true, Ordering::AcqRel) {
                let before = self.in_tables.swap(bytes, Ordering::Relaxed);
                self.storage.force(bytes);
                self.storage.give_back(before);
            }
        }
        Ok(())
    }

    /// What it stores is counted anew when it is needed. What is held stays held.
    fn measure_again(&self) {
        if self.is_measured.swap(false, Ordering::AcqRel) {
            self.storage.give_back(self.in_tables.swap(0, Ordering::Relaxed));
        }
    }

    /// What its actors' tables hold, read anew.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn stored_bytes(&self) -> Result<u64, EngineError> {
        self.bank.stored_bytes(&self.principal)
    }

    /// Whether nothing would be lost without this row but what is written: no window is in use.
    pub(super) fn is_at_rest(&self) -> bool {
        let now = self.bank.now_ns();
        let full = self.fuel.is_full(now) && self.messages.is_full(now) && self.bytes.is_full(now);
        full && !self.is_set.load(Ordering::Relaxed)
    }

    /// What is told of it.
    pub(super) fn report(&self) -> control::usage::Usage {
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let held = |gauge: &Gauge| control::usage::Held {
            now: gauge.now(),
            peak: gauge.peak(),
        };
        let storage = self.is_measured.load(Ordering::Relaxed);
        let pairs = self.pairs.lock();
        let mut capsules: Vec<_> = pairs
            .iter()
            .map(|(name, pair)| control::usage::OfCapsule {
                capsule: name.to_string(),
                fuel: read(&pair.fuel),
                handled: read(&pair.handled),
            })
            .collect();
        drop(pairs);
        capsules.sort_unstable_by(|a, b| b.fuel.cmp(&a.fuel).then_with(|| a.capsule.cmp(&b.capsule)));
        let timeout = self.timeout_ms.load(Ordering::Relaxed);
        control::usage::Usage {
            principal: self.principal.to_string(),
            fuel: read(&self.usage.fuel),
            handled: read(&self.usage.handled),
            faults: read(&self.usage.faults),
            published: read(&self.usage.published),
            published_bytes: read(&self.usage.published_bytes),
            children_started: read(&self.usage.children),
            refused: read(&self.usage.refused),
            memory: held(&self.memory),
            children: held(&self.children),
            connections: held(&self.connections),
            calls: held(&self.calls),
            storage_bytes: storage.then(|| self.storage.now()),
            weight: self.weight(),
            limits: control::usage::Limits {
                fuel_per_second: self.fuel.rate(),
                fuel_total: self.fuel_max(),
                memory_bytes: self.memory.max(),
                messages_per_second: self.messages.rate(),
                bytes_per_second: self.bytes.rate(),
                storage_bytes: self.storage.max(),
                children: self.children.max(),
                connections: self.connections.max(),
                calls: self.calls.max(),
                timeout_ms: (timeout != UNLIMITED).then_some(timeout),
            },
            capsules,
        }
    }
}
