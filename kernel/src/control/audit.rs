//! What operators ask about the audit log while this daemon writes it. Reading it walks its files, beside everything else.

use astrid_wire::Problem;
use astrid_wire::control::audit::{Prune, Pruned, Rotated, Stats, Verified};
use astrid_wire::problem::codes;

use super::Control;
use crate::audit::{RotateError, key_beside, query, verify};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn unreadable(error: &verify::VerifyError) -> Problem {
    Problem::new(codes::UNAVAILABLE, error.to_string())
}

impl Control {
    pub(super) async fn audit_stats(&self) -> Result<Stats, Problem> {
        self.read_log(query::stats).await
    }

    pub(super) async fn audit_verify(&self) -> Result<Verified, Problem> {
        // What was recorded before this was asked is verified too; a log that takes nothing is verified as it is.
        drop(self.host.audit.flush().await);
        let report = self.read_log(|directory| verify::verify(directory, key_beside(directory).as_ref()));
        Ok(report.await?.to_wire())
    }

    async fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&std::path::Path) -> Result<T, verify::VerifyError> + Send + 'static,
    ) -> Result<T, Problem> {
        self.has_log()?;
        let directory = self.home.audit_dir();
        match tokio::task::spawn_blocking(move || read(&directory)).await {
            Ok(found) => found.map_err(|error| unreadable(&error)),
            Err(_) => Err(Problem::new(codes::UNAVAILABLE, "the daemon stops")),
        }
    }

    fn has_log(&self) -> Result<(), Problem> {
        if self.host.audit.is_on_disk() {
            return Ok(());
        }
        Err(Problem::new(
            codes::UNSUPPORTED,
            "a private home is thrown away, and has no files of an audit log",
        ))
    }

    pub(super) async fn audit_prune(&self, prune: Prune) -> Result<Pruned, Problem> {
        self.has_log()?;
        let before_ms = self
            .host
            .deadlines
            .clock()
            .wall_ms()
            .saturating_sub(u64::from(prune.older_than_days) * DAY_MS);
        let removed_segments = self.host.audit.prune(before_ms).await?;
        Ok(Pruned { removed_segments })
    }

    pub(super) async fn audit_rotate(&self) -> Result<Rotated, Problem> {
        self.has_log()?;
        match self.host.audit.rotate(&self.home).await {
            Ok(key) => Ok(Rotated { key }),
            Err(RotateError::Refused(refused)) => Err(refused.into()),
            Err(RotateError::Key(error)) => {
                Err(Problem::new(codes::UNAVAILABLE, error.to_string()).with_hint(error.hint()))
            }
        }
    }
}
