//! `astrid:kernel/kv`: the actor's own table.

use std::sync::Arc;

use super::bindings::astrid::kernel::kv::{Entry, Host, KvError, Page};
use crate::authority::{Denied, Permit};
use crate::capsule::actor::ScopeKey;
use crate::capsule::guest::Guest;
use crate::capsule::working::{self, TooMuch};
use crate::store::engine::{EngineError, Span};
use crate::store::table::Table;
use crate::store::{KEY_BYTES_MAX, Store, VALUE_BYTES_MAX};

impl From<EngineError> for KvError {
    fn from(error: EngineError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<Denied> for KvError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

impl From<TooMuch> for KvError {
    fn from(TooMuch(limit): TooMuch) -> Self {
        Self::TooMuch(limit)
    }
}

/// Whether it can be a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KvError::InvalidKey(u32::try_from(KEY_BYTES_MAX).unwrap_or(u32::MAX)));
    }
    Ok(())
}

fn check_value(value: Option<&Vec<u8>>) -> Result<(), KvError> {
    if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(KvError::TooLarge(VALUE_BYTES_MAX as u64));
    }
    Ok(())
}

/// A page as its guest sees it.
pub(crate) fn guest_page((entries, next): working::Page) -> Page {
    let entries = entries.into_iter().map(|(key, value)| Entry {
        key: key.to_vec(),
        value: value.to_vec(),
    });
    Page {
        entries: entries.collect(),
        next: next.map(|next| next.to_vec()),
    }
}

/// Bytes that an entry takes, by the quota's count.
fn weight(key: &[u8], value: Option<usize>) -> u64 {
    value.map_or(0, |value| (key.len() + value) as u64)
}

impl Guest {
    /// Writes, and counts what that takes where a quota limits it: in a principal's own table.
    async fn write(
        &mut self,
        store: &Store,
        table: Permit<Table>,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), KvError> {
        let own = matches!(self.actor.key(), ScopeKey::Principal(_));
        if own && self.payer.account.pays_for_storage() {
            self.measure_storage().await.map_err(KvError::Unavailable)?;
            let before = self.working.get(store, &table, &key)?;
            let (before, after) = (
                weight(&key, before.map(|v| v.len())),
                weight(&key, value.as_ref().map(Vec::len)),
            );
            if after > before {
                let paid = match &mut self.stored.0 {
                    Some(hold) => hold.grow_state(after - before),
                    none => {
                        let held = self.payer.account.hold_state(after - before);
                        held.map(|hold| *none = Some(hold))
                    }
                };
                paid.map_err(|e| KvError::Unavailable(self.over(e).to_string()))?;
            } else {
                self.stored.1 += before - after;
            }
        }
        Ok(self.working.write(table, key, value)?)
    }

    fn table(&self) -> Result<(Arc<Store>, Permit<Table>), KvError> {
        let Some(table) = self.actor.table() else {
            return Err(KvError::Denied("nothing of a connection outlives it".into()));
        };
        let host = self.host();
        let permit = host.gate.table(self.subject(), table.clone());
        let permit = permit.map_err(|denied| self.refused(denied))?;
        Ok((Arc::clone(&host.store), permit))
    }
}

impl Host for Guest {
    fn get(&mut self, key: Vec<u8>) -> Result<Option<Vec<u8>>, KvError> {
        check_key(&key)?;
        let (store, table) = self.table()?;
        let value = self.working.get(&store, &table, &key)?;
        Ok(value.map(|value| value.to_vec()))
    }

    async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), KvError> {
        check_key(&key)?;
        check_value(Some(&value))?;
        let (store, table) = self.table()?;
        self.write(&store, table, key, Some(value)).await
    }

    async fn delete(&mut self, key: Vec<u8>) -> Result<(), KvError> {
        check_key(&key)?;
        let (store, table) = self.table()?;
        self.write(&store, table, key, None).await
    }

    async fn compare_and_swap(
        &mut self,
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, KvError> {
        check_key(&key)?;
        check_value(value.as_ref())?;
        let (store, table) = self.table()?;
        let present = self.working.get(&store, &table, &key)?;
        if present.as_deref() != expected.as_deref() {
            return Ok(false);
        }
        self.write(&store, table, key, value).await?;
        Ok(true)
    }

    fn scan(&mut self, start: Vec<u8>, end: Option<Vec<u8>>, limit: u32, backwards: bool) -> Result<Page, KvError> {
        let (store, table) = self.table()?;
        let span = Span {
            start: &start,
            end: end.as_deref(),
            backwards,
        };
        Ok(guest_page(self.working.scan(&store, &table, span, limit)?))
    }
}
