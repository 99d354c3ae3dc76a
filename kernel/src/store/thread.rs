//! The store's thread.
//!
//! Sealing waits for the disk, and the engine's background work reads and writes files: both happen on a thread of their own with a
//! runtime of its own, in which the engine is opened, written to and closed. Everybody else only sequences, reads, and is told.

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::Store;
use super::engine::{EngineError, Open, OpenError};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be opened.
    #[error("cannot open the store in {place}: {source}")]
    Open {
        /// Where it is.
        place: String,
        /// Why not.
        source: OpenError,
    },
    /// There is no thread or runtime for it.
    #[error("cannot start the store's thread")]
    Thread(#[source] std::io::Error),
    /// The thread ended before it had opened it.
    #[error("the store's thread panicked")]
    Panicked,
}

impl StartError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Open { place, source } => source.hint(place),
            Self::Thread(_) => "look at the limits of this user: threads and memory".to_owned(),
            Self::Panicked => "look at the log".to_owned(),
        }
    }
}

/// The thread of an open store. It must be ended with [`StoreThread::stop`]; one that is dropped is left to itself.
#[derive(Debug)]
pub struct StoreThread {
    store: Arc<Store>,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Tells that the store is gone when its thread ends in a way that it should not.
struct Guard(Arc<Store>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&EngineError::Stopped("its thread panicked".into()));
        }
    }
}

async fn live(opener: Box<dyn Open>, opened: oneshot::Sender<Result<Arc<Store>, StartError>>) {
    let place = opener.place();
    let store = match Store::open(opener).await {
        Ok(store) => store,
        Err(source) => {
            // Whoever asked may be gone.
            let _ = opened.send(Err(StartError::Open { place, source }));
            return;
        }
    };
    let guard = Guard(Arc::clone(&store));
    if opened.send(Ok(Arc::clone(&store))).is_err() {
        store.close();
    }
    drop(store);
    guard.0.run().await;
}

impl StoreThread {
    /// Opens a store on a thread of its own, which then seals what is sequenced.
    ///
    /// # Errors
    /// [`StartError`]; there is no thread then.
    pub async fn start(opener: Box<dyn Open>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(StartError::Thread)?;
        let (tell, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                runtime.block_on(live(opener, tell));
                // Nothing of the engine's is left to wait for.
                runtime.shutdown_background();
                // Nobody may wait.
                let _ = end.send(());
            })
            .map_err(StartError::Thread)?;
        match opened.await {
            Ok(Ok(store)) => Ok(Self { store, ended, thread }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Panicked),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes no more commits, seals what there is, and ends the thread.
    pub async fn stop(self) {
        self.store.close();
        // An error means that it panicked, which the join tells.
        let _ = self.ended.await;
        if self.thread.join().is_err() {
            tracing::error!("the store's thread panicked");
        }
    }
}
