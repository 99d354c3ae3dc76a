//! The store's own threads.
//!
//! Sealing waits for the disk, and the engine's background work reads and writes files: both happen in a runtime of its own, in which the
//! engine is opened, written to and closed. It has two threads, because a compaction takes one for as long as it takes, and commits must
//! not wait for that. Everybody else only sequences, reads, and is told.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Store;
use super::engine::{EngineError, Open, OpenError};

/// Threads of the store.
const WORKERS: usize = 2;

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
    /// There are no threads for it.
    #[error("cannot start the store's threads")]
    Thread(#[source] std::io::Error),
    /// It ended before it was open.
    #[error("the store panicked when it was opened")]
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

/// An open store at work. It is ended with [`StoreThread::stop`]; dropped, it ends without sealing what is not, as in a crash.
#[derive(Debug)]
pub struct StoreThread {
    store: Arc<Store>,
    lived: JoinHandle<()>,
    /// Present until it ends.
    runtime: Option<Runtime>,
}

/// Tells that the store is gone if what drives it panics.
struct Guard(Arc<Store>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&EngineError::Stopped("it panicked".into()));
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
    store.run().await;
    drop(guard);
}

impl StoreThread {
    /// Opens a store on threads of its own, which then seal what is sequenced.
    ///
    /// # Errors
    /// [`StartError`]; there are no threads then.
    pub async fn start(opener: Box<dyn Open>) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("store")
            .enable_time()
            .build()
            .map_err(StartError::Thread)?;
        let (tell, opened) = oneshot::channel();
        let lived = runtime.spawn(live(opener, tell));
        let opened = opened.await.unwrap_or(Err(StartError::Panicked));
        match opened {
            Ok(store) => Ok(Self {
                store,
                lived,
                runtime: Some(runtime),
            }),
            Err(error) => {
                // Not where it would be waited for: this may be the only thread of another runtime.
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes no more commits, seals what there is, closes the engine, and ends the threads.
    pub async fn stop(mut self) {
        self.store.close();
        if let Err(error) = (&mut self.lived).await {
            tracing::error!(%error, "the store panicked");
        }
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        self.store.close();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
