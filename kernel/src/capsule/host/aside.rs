//! What may wait for the disk, or takes long, is done by a thread of the runtime's pool, while other actors of the shard go on.

use std::sync::Arc;

use crate::capsule::guest::Guest;

/// Why nothing is known of what was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// Nobody does it.
    #[error("it was not done: the daemon stops, or failed")]
    Stopped,
    /// It takes longer than this handling may.
    #[error("the time of this handling is over; what was begun may still be done")]
    Late,
}

impl Guest {
    /// Does that on another thread, and waits for it as long as this handling may last.
    pub(crate) async fn aside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let host = Arc::clone(self.host());
        let began = host.deadlines.now();
        let left = self.meter.time_left().min(self.time_left_of_caller());
        let done = tokio::time::timeout(left, tokio::task::spawn_blocking(work)).await;
        self.meter.waited(host.deadlines.now().saturating_duration_since(began));
        self.look_at_clocks();
        match done {
            Ok(done) => done.map_err(|_| Lost::Stopped),
            Err(_) => Err(Lost::Late),
        }
    }

    /// Has all counted that the principal stores, where a quota limits that and it was not done yet.
    pub(crate) async fn measure_storage(&mut self) -> Result<(), String> {
        let account = Arc::clone(&self.payer.account);
        if !account.pays_for_storage() || account.is_measured() {
            return Ok(());
        }
        let files = Arc::clone(&self.host().files);
        let owned = files.of(account.principal());
        let measured = self.aside(move || owned.measure(&files, &account)).await;
        let measured = measured.map_err(|lost| lost.to_string())?;
        measured.map_err(|error| format!("what is stored cannot be counted: {error}"))
    }
}
