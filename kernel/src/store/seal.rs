//! Sealing: what was sequenced goes to disk, in groups, and what happens when that fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::engine::{EngineError, OpenError, Write};
use super::table::Table;
use super::{Level, META_PROGRESS, Phase, Store, UNSEALED_BYTES_MAX, Waiting, read_progress};

/// How long a commit that is not urgent waits for others, so that they share an fsync.
pub const EVENTUAL_WAIT: Duration = Duration::from_millis(50);

/// Bytes of one group at most: it is in memory several times while it is written.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Commits of one group at most.
const GROUP_COMMITS_MAX: usize = 4096;

/// Wait before the first attempt to open a failed engine again.
const REOPEN_MIN: Duration = Duration::from_millis(100);

/// Wait before any attempt at most.
const REOPEN_MAX: Duration = Duration::from_secs(5);

/// What one step of sealing came to.
#[derive(Debug)]
pub enum Step {
    /// There was nothing.
    Idle,
    /// Everything up to this number is on disk.
    Sealed(u64),
    /// It failed; see [`Store::fail`].
    Failed(EngineError),
}

impl Store {
    fn take_group(&self) -> (Vec<Waiting>, usize) {
        let mut state = self.state.lock();
        let (mut bytes, mut count) = (0, 0);
        for waiting in &state.queue {
            // One that is larger than a group goes alone.
            if count > 0 && (bytes + waiting.bytes > GROUP_BYTES_MAX || count >= GROUP_COMMITS_MAX) {
                break;
            }
            bytes += waiting.bytes;
            count += 1;
        }
        (state.queue.drain(..count).collect(), bytes)
    }

    /// Seals one group of what was sequenced.
    pub async fn seal(&self) -> Step {
        let (group, bytes) = self.take_group();
        let Some(last) = group.last().map(|w| w.number) else {
            return Step::Idle;
        };
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return Step::Failed(error),
        };
        let progress = [last.to_be_bytes(), self.rows.load(Ordering::Relaxed).to_be_bytes()].concat();
        let count = group.iter().map(|w| w.writes.len()).sum::<usize>() + 1;
        let mut writes = Vec::with_capacity(count);
        let mut keys: Vec<(Table, Bytes, u64)> = Vec::with_capacity(count);
        for waiting in group {
            for write in waiting.writes {
                keys.push((write.table.clone(), write.key.clone(), waiting.number));
                writes.push(write);
            }
        }
        writes.push(Write::put(Table::meta(), Bytes::from_static(META_PROGRESS), progress));
        if let Err(error) = engine.apply(writes).await {
            return Step::Failed(error);
        }
        self.sealed_up_to(last, keys, bytes);
        if let Err(error) = self.opener.sealed(last) {
            // It is on disk; only the note of it is missing, which then promises less.
            tracing::warn!(%error, "cannot note how far the store is");
        }
        Step::Sealed(last)
    }

    fn sealed_up_to(&self, last: u64, keys: Vec<(Table, Bytes, u64)>, bytes: usize) {
        let mut state = self.state.lock();
        for (table, key, number) in keys {
            let Some(pending) = state.pending.get_mut(&table) else { continue };
            // A later commit of the same key stays.
            if pending.get(&key).is_some_and(|(n, _)| *n == number) {
                Arc::make_mut(pending).remove(&key);
            }
            if pending.is_empty() {
                state.pending.remove(&table);
            }
        }
        state.bytes -= bytes;
        if state.bytes < UNSEALED_BYTES_MAX {
            self.crowded.store(false, Ordering::Relaxed);
        }
        drop(state);
        self.sealed.store(last, Ordering::Release);
        self.progress.notify_one();
        self.turned.notify_waiters();
        self.room.notify_waiters();
    }

    /// Stops the store: everything that is not sealed is forgotten.
    pub fn fail(&self, error: &EngineError) {
        let mut state = self.state.lock();
        self.phase.send_replace(Phase::Failed(error.to_string().into()));
        self.epoch.fetch_add(1, Ordering::AcqRel);
        state.queue.clear();
        state.pending = HashMap::default();
        state.bytes = 0;
        self.crowded.store(false, Ordering::Relaxed);
        state.windows.forget();
        state.recent.commits.clear();
        state.recent.floor = state.sequence;
        drop(state);
        self.progress.notify_one();
        self.turned.notify_waiters();
        self.room.notify_waiters();
    }

    /// What was opened again cannot be read: it failed once more. The thread that seals opens it again at the next commit.
    pub fn fail_again(&self, error: &EngineError) {
        self.phase.send_replace(Phase::Failed(error.to_string().into()));
        self.urgent.notify_one();
        self.work.notify_one();
    }

    /// Opens the engine again after a failure, and hands over to whoever calls [`Store::recovered`].
    ///
    /// # Errors
    /// It cannot be opened, or lacks what was acknowledged; the store stays failed.
    pub async fn reopen(&self) -> Result<(), OpenError> {
        let old = self.engine.write().take();
        if let Some(old) = old {
            // A failed engine may also fail to end; what counts is on disk.
            if let Err(error) = old.close().await {
                tracing::debug!(%error, "a failed engine did not end well");
            }
        }
        let engine = self.opener.open().await?;
        let (found, rows) = read_progress(&*engine)?;
        let sealed = self.sealed();
        if found < sealed {
            return Err(OpenError::Lost { found, sealed });
        }
        self.rows.fetch_max(rows, Ordering::Relaxed);
        // What was in the failed group and reached the disk all the same is sealed; its number is never given again.
        self.sealed.store(found, Ordering::Release);
        *self.engine.write() = Some(engine);
        self.phase.send_replace(Phase::Recovering);
        self.progress.notify_one();
        Ok(())
    }

    async fn recover(&self, error: EngineError) {
        tracing::error!(%error, place = self.opener.place(), "the store has failed and takes no commits");
        self.fail(&error);
        let mut wait = REOPEN_MIN;
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REOPEN_MAX);
            if *self.phase.borrow() == Phase::Closed {
                return;
            }
            if !self.opener.is_worth_trying() {
                continue;
            }
            match self.reopen().await {
                Ok(()) => {
                    tracing::warn!(sealed = self.sealed(), "the store is open again");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the store cannot be opened again");
                    self.phase.send_replace(Phase::Failed(error.to_string().into()));
                }
            }
        }
    }

    /// Whether something waits, and whether some of that is urgent.
    fn waiting(&self) -> (bool, bool) {
        let state = self.state.lock();
        let urgent = state.queue.iter().any(|w| w.level == Level::Durable);
        (!state.queue.is_empty(), urgent || state.bytes >= GROUP_BYTES_MAX)
    }

    /// Seals what is sequenced, for as long as this is driven; returns once the store was closed and everything is sealed. The
    /// engine needs the runtime that drives this.
    pub async fn run(&self) {
        let mut phase = self.phase.subscribe();
        loop {
            let failed = match &*phase.borrow() {
                Phase::Failed(why) => Some(EngineError::Stopped(Arc::clone(why))),
                _ => None,
            };
            if let Some(error) = failed {
                self.recover(error).await;
                continue;
            }
            match self.waiting() {
                (false, _) => {
                    if *phase.borrow() == Phase::Closed {
                        break;
                    }
                    tokio::select! {
                        () = self.work.notified() => {}
                        _ = phase.wait_for(|p| *p == Phase::Closed) => {}
                    }
                    continue;
                }
                (true, false) => {
                    tokio::select! {
                        () = tokio::time::sleep(EVENTUAL_WAIT) => {}
                        () = self.urgent.notified() => {}
                        _ = phase.wait_for(|p| *p == Phase::Closed) => {}
                    }
                }
                (true, true) => {}
            }
            if let Step::Failed(error) = self.seal().await {
                if *phase.borrow() == Phase::Closed {
                    tracing::error!(%error, "the store fails while it is closed");
                    break;
                }
                self.phase.send_replace(Phase::Failed(error.to_string().into()));
            }
        }
        let engine = self.engine.write().take();
        if let Some(engine) = engine
            && let Err(error) = engine.close().await
        {
            tracing::error!(%error, "the store does not end well");
        }
    }

    /// Takes no more commits. [`Store::run`] seals what there is, and returns.
    pub fn close(&self) {
        // Under the lock: what is sequenced before this is sealed.
        let state = self.state.lock();
        self.phase.send_replace(Phase::Closed);
        drop(state);
        self.work.notify_one();
        self.urgent.notify_one();
    }
}
