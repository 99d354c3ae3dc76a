//! Waiting for a seal, and which tables there are: for requests of operators, which are few and not in a hurry.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::engine::EngineError;
use super::table::{Kind, Table};
use super::{Refused, Store};

impl Store {
    /// Waits until a commit is on disk. `epoch` is what [`Store::epoch`] was before it was sequenced, so that a failure between the
    /// two is noticed.
    ///
    /// # Errors
    /// The store failed meanwhile; whether the commit is on disk is not known here.
    pub async fn settled(&self, number: u64, epoch: u64) -> Result<(), Refused> {
        loop {
            let turned = self.turned.notified();
            let mut turned = std::pin::pin!(turned);
            // Registered before looking, so that what happens between is not missed.
            turned.as_mut().enable();
            // In this order: what is sealed before a failure is, and a store that was opened again counts on from elsewhere.
            let reached = self.sealed() >= number;
            if self.epoch() != epoch {
                return Err(Refused::Stale);
            }
            if reached {
                return Ok(());
            }
            turned.await;
        }
    }

    /// The tables of a kind that have a row, sealed or not, in order. May name one whose rows are about to go.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        let engine = self.engine()?;
        let of_kind = |table: &&Table| table.as_bytes().first() == Some(&(kind as u8));
        // Before the engine is asked: what is sealed in between is in both, and not in neither.
        let mut tables: BTreeSet<Table> = self.state.lock().pending.keys().filter(of_kind).cloned().collect();
        tables.extend(engine.tables(kind)?);
        Ok(tables.into_iter().collect())
    }

    /// The engine and how far it is, for a copy of everything up to there.
    ///
    /// # Errors
    /// It is being opened again.
    pub fn source(&self) -> Result<(Arc<dyn super::engine::Engine>, u64), EngineError> {
        // The number first: the copy has at least that much.
        let sealed = self.sealed();
        Ok((self.engine()?, sealed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;

    use super::super::engine::{EngineError, Write};
    use super::super::memory::Memory;
    use super::super::table::Scope;
    use super::super::{Batch, Level, Sequenced};
    use super::*;

    fn put(store: &Store, table: &Table) -> Sequenced {
        let writes = vec![Write::put(table.clone(), Bytes::from_static(b"k"), &b"v"[..])];
        let batch = Batch {
            writes,
            once: Vec::new(),
            level: Level::Durable,
            shared: None,
            epoch: store.epoch(),
            now_ms: 0,
        };
        store.sequence(batch).unwrap()
    }

    /// It returns once the number is sealed, and not before; a store that fails meanwhile is an error, also after it was opened again.
    #[tokio::test]
    async fn a_commit_settles_or_is_lost() {
        let store = Store::open(Box::new(Memory::default())).await.unwrap();
        let table = Table::of(Kind::Dead, "a", &Scope::System);
        let (epoch, number) = (store.epoch(), put(&store, &table).number);
        assert_eq!(store.tables(Kind::Dead).unwrap(), std::slice::from_ref(&table));
        assert!(store.tables(Kind::Inbox).unwrap().is_empty());
        {
            let settled = store.settled(number, epoch);
            let mut settled = std::pin::pin!(settled);
            assert!(futures_util::FutureExt::now_or_never(settled.as_mut()).is_none());
            store.seal().await;
            settled.await.unwrap();
        }
        assert_eq!(store.tables(Kind::Dead).unwrap(), std::slice::from_ref(&table));

        let (epoch, number) = (store.epoch(), put(&store, &table).number);
        let settled = store.settled(number, epoch);
        let mut settled = std::pin::pin!(settled);
        assert!(futures_util::FutureExt::now_or_never(settled.as_mut()).is_none());
        store.fail(&EngineError::Io("gone".into()));
        store.reopen().await.unwrap();
        store.recovered();
        put(&store, &table);
        store.seal().await;
        assert!(matches!(settled.await, Err(Refused::Stale)));
    }
}
