//! What was used, by whom and of which capsule, and how much may be (K12, K15).
//!
//! - [`account`]: a principal's row, with what it holds; [`bucket`]: what is counted a second; [`gauge`]: what is held;
//! - [`exceeded`]: what somebody is told who is over quota; [`bank`]: what survives a restart.
//!
//! Counting is exact under concurrency and takes no lock. Over quota is refused where something enters: when it is published, started,
//! written, accepted. What was admitted is not taken back.
//!
//! Rows of principals are bounded: when there are [`ROWS_MAX`], those that nobody acts for, that hold nothing and whose windows are full
//! are written to the store and leave; they are read again when they come back. Of principals that the policy does not know only the
//! sum stays, so that fresh names fill neither memory nor disk.
//!
//! Deliberately absent: whose quota is what. That is the policy's, which is asked through [`Quotas`].

pub mod account;
pub mod bank;
pub mod bucket;
pub mod exceeded;
pub mod gauge;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use astrid_wire::authority::WEIGHT_MAX;
use astrid_wire::control::usage;
use astrid_wire::quota::Quota;
use astrid_wire::{Principal, control};
use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

pub use self::account::{Account, Hold, Pair, Usage};
use self::bank::{Bank, Row};
pub use self::exceeded::{Exceeded, Limit};
use crate::deadlines::Deadlines;
use crate::metrics::Metrics;
use crate::store::engine::EngineError;
use crate::store::{Refused, Store};

/// Rows of principals before those that are idle leave; about 1 kB each. There are more only while more act at once, which other limits
/// bound (live actors, connections, asks).
pub const ROWS_MAX: usize = 16_384;

/// Rows that are written together.
const SETTLED_AT_ONCE: usize = 1000;

/// What a principal may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entitlement {
    /// Its limits.
    pub quota: Quota,
    /// Its share of a thread, against others': 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

impl Default for Entitlement {
    fn default() -> Self {
        Self {
            quota: Quota::default(),
            weight: 1,
        }
    }
}

/// Who knows what principals may use. Asked when a row is made and by [`Ledger::refresh`], while the ledger's table is locked: it must
/// not call the ledger.
pub trait Quotas: Send + Sync {
    /// What that principal may use; `None`: there is no such principal.
    fn of(&self, principal: &Principal) -> Option<Entitlement>;
}

/// Everybody is known, and nothing is limited.
#[derive(Debug)]
struct Everything;

impl Quotas for Everything {
    fn of(&self, _: &Principal) -> Option<Entitlement> {
        Some(Entitlement::default())
    }
}

/// Who makes and evicts rows holds this.
#[derive(Debug)]
struct Making {
    /// When there are so many, idle ones leave.
    sweep_at: usize,
    /// What those used that are not told apart any more.
    others: Arc<Usage>,
}

/// Usage and quotas by principal.
pub struct Ledger {
    bank: Arc<Bank>,
    accounts: DashMap<Principal, Arc<Account>, ahash::RandomState>,
    making: Mutex<Making>,
    quotas: RwLock<Arc<dyn Quotas>>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("rows", &self.accounts.len())
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// A ledger whose totals are kept in that store. Nothing is limited until [`Ledger::set_quotas`].
    pub fn new(store: Arc<Store>, deadlines: Arc<Deadlines>, metrics: Arc<Metrics>) -> Self {
        Self {
            bank: Arc::new(Bank::new(store, deadlines, metrics)),
            accounts: DashMap::default(),
            making: Mutex::new(Making {
                sweep_at: ROWS_MAX,
                others: Arc::default(),
            }),
            quotas: RwLock::new(Arc::new(Everything)),
        }
    }

    /// From now on this says what principals may use.
    pub fn set_quotas(&self, quotas: Arc<dyn Quotas>) {
        *self.quotas.write() = quotas;
        self.refresh();
    }

    /// Asks again what everybody may use: the policy changed. What is held stays held.
    pub fn refresh(&self) {
        let _making = self.making.lock();
        for account in &self.accounts {
            self.entitle(&account);
        }
    }

    fn entitle(&self, account: &Account) {
        if account.is_set.load(Ordering::Relaxed) {
            return;
        }
        let entitled = self.quotas.read().of(account.principal()).unwrap_or_default();
        account.set_quota(&entitled.quota);
        account.set_weight(entitled.weight);
    }

    /// Gives a principal a quota, whatever the policy says, until the daemon ends.
    pub fn set_quota(&self, principal: &Principal, quota: &Quota) {
        let account = self.account(principal);
        account.is_set.store(true, Ordering::Relaxed);
        account.set_quota(quota);
    }

    /// Gives a principal a share of the threads, whatever the policy says, until the daemon ends. 1 to [`WEIGHT_MAX`].
    pub fn set_weight(&self, principal: &Principal, weight: u32) {
        let account = self.account(principal);
        account.is_set.store(true, Ordering::Relaxed);
        account.set_weight(weight);
    }

    /// A principal's row, made when it is first needed. It stays while it is held.
    pub fn account(&self, principal: &Principal) -> Arc<Account> {
        if let Some(account) = self.accounts.get(principal) {
            return Arc::clone(&account);
        }
        // One at a time, so that nobody makes a row anew that is just being written and leaves.
        let mut making = self.making.lock();
        if let Some(account) = self.accounts.get(principal) {
            return Arc::clone(&account);
        }
        if self.accounts.len() >= making.sweep_at {
            self.sweep(&mut making);
        }
        let account = Arc::new(Account::new(principal.clone(), Arc::clone(&self.bank)));
        self.bank.open(&account);
        self.entitle(&account);
        self.accounts.insert(principal.clone(), Arc::clone(&account));
        account
    }

    /// Lets idle rows leave, what they say written.
    fn sweep(&self, making: &mut Making) {
        let mut idle = Vec::new();
        self.accounts.retain(|_, account| {
            // Nobody can take another reference meanwhile: the table's lock is held.
            let leaves = Arc::strong_count(account) == 1 && account.is_at_rest();
            if leaves {
                idle.push(Arc::clone(account));
            }
            !leaves
        });
        let quotas = Arc::clone(&self.quotas.read());
        let (known, unknown): (Vec<_>, Vec<_>) = idle
            .into_iter()
            .partition(|account| quotas.of(account.principal()).is_some());
        unknown
            .iter()
            .for_each(|account| Row::of(&account.usage).add_to(&making.others));
        for some in known.chunks(SETTLED_AT_ONCE) {
            if let Err(error) = self.bank.settle(some) {
                tracing::warn!(%error, "what idle principals used cannot be written");
                for account in some {
                    if account.has_total() {
                        self.accounts.insert(account.principal().clone(), Arc::clone(account));
                    } else {
                        Row::of(&account.usage).add_to(&making.others);
                    }
                }
            }
        }
        // So that a table that is full of busy rows is not searched for each new one.
        making.sweep_at = ROWS_MAX.max(2 * self.accounts.len());
    }

    /// A principal is deleted, or made anew: what was used under its name is forgotten, on disk as well once the commit of that number is
    /// sealed. A row that somebody still holds stays that principal's only one, and begins again: whoever kept it at hand is limited and
    /// seen by it, and nobody writes an older one over it. What is held stays held.
    ///
    /// # Errors
    /// The store does not take it; nothing is forgotten then.
    pub fn forget(&self, principal: &Principal) -> Result<u64, Refused> {
        let _making = self.making.lock();
        let present = self.accounts.get(principal).map(|account| Arc::clone(&account));
        let number = self.bank.forget(principal, present.as_deref())?;
        if let Some(account) = present {
            account.begin_again();
            self.entitle(&account);
            drop(account);
            self.accounts
                .remove_if(principal, |_, account| Arc::strong_count(account) == 1);
        }
        Ok(number)
    }

    /// Writes all totals as they are: the daemon stops. Nothing is used after this.
    pub fn settle(&self) {
        let _making = self.making.lock();
        let all: Vec<_> = self.accounts.iter().map(|account| Arc::clone(&account)).collect();
        for some in all.chunks(SETTLED_AT_ONCE) {
            if let Err(error) = self.bank.settle(some) {
                tracing::warn!(%error, "what was used cannot be written; after the next start it is told by blocks");
                return;
            }
        }
    }

    /// Returns when something is handled, for whomever: what is shown of usage is old then.
    pub async fn used(&self) {
        self.bank.used().await;
    }

    /// All fuel used since the daemon started.
    pub fn fuel(&self) -> u64 {
        self.bank.spent()
    }

    /// How many principals have a row in memory.
    pub fn rows(&self) -> usize {
        self.accounts.len()
    }

    /// What a principal used, holds and may. `None`: nobody of that name ever used anything. `besides`: bytes that it keeps elsewhere than in
    /// the store; asked where nobody counts them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(
        &self,
        principal: &Principal,
        besides: impl FnOnce() -> u64,
    ) -> Result<Option<usage::Usage>, EngineError> {
        let present = self.accounts.get(principal).map(|account| Arc::clone(&account));
        let report = match present {
            Some(account) => Some(account.report()),
            None => {
                let row = self.bank.load(principal)?;
                (row != Row::default()).then(|| self.report_absent(principal, row))
            }
        };
        let Some(mut report) = report else { return Ok(None) };
        if report.storage_bytes.is_none() {
            report.storage_bytes = Some(self.bank.stored_bytes(principal)?.saturating_add(besides()));
        }
        Ok(Some(report))
    }

    /// What is to be told of somebody who never used anything.
    pub fn unused(&self, principal: &Principal) -> usage::Usage {
        self.report_absent(principal, Row::default())
    }

    fn report_absent(&self, principal: &Principal, row: Row) -> usage::Usage {
        let account = Account::new(principal.clone(), Arc::clone(&self.bank));
        row.add_to(&account.usage);
        self.entitle(&account);
        account.report()
    }

    /// What principals after that name used, in the order of their names, `max` at most and never more than a page. Storage is told
    /// where it is counted anyway.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn all(&self, after: Option<&str>, max: usize) -> Result<usage::Page, EngineError> {
        let max = max.clamp(1, control::usage::PAGE_MAX);
        let mut found: BTreeMap<Principal, Option<Row>> = BTreeMap::new();
        // One more than a page shows whether there are more.
        for (principal, row) in self.bank.rows(after, max + 1)? {
            found.insert(principal, Some(row));
        }
        for account in &self.accounts {
            if after.is_none_or(|after| account.principal().as_str() > after) {
                found.insert(account.principal().clone(), None);
                if found.len() > max + 1 {
                    found.pop_last();
                }
            }
        }
        let more = found.len() > max;
        let page: Vec<_> = found.into_iter().take(max).collect();
        let next = if more {
            page.last().map(|(p, _)| p.to_string())
        } else {
            None
        };
        let principals = page.into_iter().map(|(principal, row)| {
            let present = self.accounts.get(&principal).map(|account| Arc::clone(&account));
            match present {
                Some(account) => account.report(),
                None => self.report_absent(&principal, row.unwrap_or_default()),
            }
        });
        Ok(usage::Page {
            principals: principals.collect(),
            next,
        })
    }

    /// What principals used that are not told apart any more.
    pub fn others(&self) -> Arc<Usage> {
        Arc::clone(&self.making.lock().others)
    }
}

#[cfg(test)]
mod tests;
