//! What operators ask about what is kept: dead letters, and a backup.
//!
//! These wait for the disk, so each runs beside the control loop; what changes something is sequenced before it first waits, so no two
//! of them are ever half done at once.

use std::path::Path;
use std::sync::Arc;

use astrid_wire::Problem;
use astrid_wire::control::dead::{ListRequest, Selection, ShowRequest};
use astrid_wire::control::{CapsuleRequest, CapsuleState, Mode, backup as backups};
use astrid_wire::problem::codes;
use serde::de::DeserializeOwned;

use super::Control;
use crate::audit::{self, Entry, Kind};
use crate::backup::{self, BackupError, LeftOut, Made, Source};
use crate::bus::message::{Body, Message};
use crate::capsule::durable::absent::{self, ForgetError};
use crate::capsule::durable::dead::{self, Changed, DeadError};

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Self {
        let problem = |code: &str| Problem::new(code, error.to_string());
        match &error {
            ForgetError::Runs(_) => {
                problem("exists").with_hint("only what is kept for a capsule that is not loaded can be forgotten")
            }
            ForgetError::Nothing(_) => problem(codes::NOT_FOUND).with_hint("see `astrid capsule list`"),
            ForgetError::Unreadable(_) | ForgetError::Refused(_) => problem(codes::UNAVAILABLE),
        }
    }
}

impl From<DeadError> for Problem {
    fn from(error: DeadError) -> Self {
        Problem::new(error.code(), error.to_string()).with_hint(error.hint())
    }
}

fn refused(error: &BackupError) -> Problem {
    let code = match error {
        BackupError::Relative(_) | BackupError::Inside(_) | BackupError::Odd(_) | BackupError::Name(_) => {
            codes::INVALID
        }
        BackupError::Exists(_) => "exists",
        BackupError::Nothing(_) => codes::NOT_FOUND,
        BackupError::TooMany | BackupError::TooLarge => codes::TOO_LARGE,
        BackupError::Busy => codes::TOO_MANY,
        _ => codes::UNAVAILABLE,
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Problem::new(code, text).with_hint(error.hint())
}

/// A request's body.
pub(super) fn read<T: DeserializeOwned>(message: &Message, example: &str) -> Result<T, Problem> {
    // Nothing is as good as nothing in particular.
    let bytes: &[u8] = if message.body.bytes.is_empty() {
        b"{}"
    } else {
        &message.body.bytes
    };
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::new(codes::INVALID, format!("the body is not what is asked here: {error}"))
            .with_hint(format!("send {example}"))
    })
}

impl Control {
    pub(super) fn dead_list(&self, message: &Message) -> Result<Body, Problem> {
        let request: ListRequest = read(message, r#"{"capsule": "..."} or nothing"#)?;
        Ok(Body::json(&dead::list(&self.host.store, &request)?))
    }

    pub(super) fn dead_show(&self, message: &Message) -> Result<Body, Problem> {
        let request: ShowRequest = read(message, r#"{"id": "..."}"#)?;
        Ok(Body::json(&dead::show(&self.host.store, &request.id)?))
    }

    pub(super) async fn dead_drop(&self, message: &Message) -> Result<Body, Problem> {
        let selection: Selection = read(message, r#"{"ids": ["..."]}"#)?;
        self.host.store.room().await;
        let changed = dead::drop_letters(&self.host.store, &selection, self.host.deadlines.clock().wall_ms())?;
        tracing::info!(principal = %message.principal, letters = changed.done.ids.len(), "dead letters are dropped");
        self.settle(changed).await
    }

    pub(super) async fn dead_retry(&self, message: &Message) -> Result<Body, Problem> {
        let selection: Selection = read(message, r#"{"ids": ["..."]}"#)?;
        self.host.store.room().await;
        // What nobody handles stays where it is seen.
        let running = |capsule: &str| {
            let reports = self.manager.reports();
            let found = reports.iter().find(|report| report.name == capsule);
            found.is_some_and(|report| !matches!(report.state, CapsuleState::Refused | CapsuleState::Absent))
        };
        let changed = dead::retry(
            &self.host.store,
            &selection,
            self.host.deadlines.clock().wall_ms(),
            &running,
        )?;
        tracing::info!(principal = %message.principal, letters = changed.done.ids.len(), "dead letters are tried again");
        self.settle(changed).await
    }

    /// Waits until it is on disk, and tells those whom it concerns.
    async fn settle(&self, changed: Changed) -> Result<Body, Problem> {
        if let Some((number, epoch)) = changed.commit {
            let settled = self.host.store.settled(number, epoch).await;
            settled.map_err(DeadError::Refused)?;
        }
        for again in &changed.requeued {
            self.manager
                .requeued(&again.capsule, &again.scope, again.row, again.weight);
        }
        Ok(Body::json(&changed.done))
    }

    /// Forgets what is kept for a capsule that does not run.
    pub(super) async fn forget(&self, message: &Message) -> Result<Body, Problem> {
        let request: CapsuleRequest = read(message, r#"{"name": "..."}"#)?;
        let forgotten = absent::forget(&self.host, &request.name).await?;
        tracing::warn!(principal = %message.principal, capsule = request.name, ?forgotten, "what was kept for a capsule is forgotten");
        Ok(Body::json(&forgotten))
    }

    /// Makes a backup, on a thread of its own.
    pub(super) async fn backup(&self, message: &Message) -> Result<Body, Problem> {
        let request: backups::Request = read(message, r#"{"path": "/..."}"#)?;
        if self.mode == Mode::Private {
            let problem = Problem::new(
                codes::UNSUPPORTED,
                "a private home is thrown away, and has no files of a store",
            );
            return Err(problem.with_hint("back up a home that stays"));
        }
        let one = Arc::clone(&self.backing_up).try_acquire_owned().map_err(|_| {
            Problem::new(codes::TOO_MANY, "a backup is being made already").with_hint("wait until it is done")
        })?;
        let store = Arc::clone(&self.host.store);
        let (home, blobs) = (self.home.clone(), Arc::clone(&self.host.blobs));
        let path = request.path.clone();
        tracing::info!(principal = %message.principal, path, "a backup begins");
        let made = tokio::task::spawn_blocking(move || {
            let _one = one;
            let (engine, sequence) = store.source().map_err(BackupError::from)?;
            let source = Source::Online {
                engine: &*engine,
                sequence,
                blobs: &blobs,
            };
            backup::create(&home, source, Path::new(&request.path), request.force)
        });
        match made.await {
            Ok(Ok(Made { written, left_out })) => {
                for LeftOut { address, what } in left_out {
                    let entry = Entry::kernel(Kind::Integrity, "blob.corrupted").outcome(audit::Outcome::Failed);
                    let entry = entry.resource(&address.to_string());
                    // That the log takes nothing, it says itself.
                    drop(self.host.audit.write(entry.detail(&format!("not in a backup: {what}"))));
                }
                tracing::info!(path, bytes = written.bytes, files = written.files, "a backup is made");
                Ok(Body::json(&written))
            }
            Ok(Err(error)) => {
                let problem = refused(&error);
                tracing::error!(path, error = problem.message(), "no backup was made");
                Err(problem)
            }
            Err(_) => Err(Problem::new(codes::UNAVAILABLE, "the daemon stops")),
        }
    }
}
