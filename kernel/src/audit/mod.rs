//! The audit log: what happened, in a form that a third party can check (K13).
//!
//! One chain of hashes runs through all entries, over all segment files; an entry also names the last one of its principal, so that there
//! is a chain for each, and one for the kernel. A signature over the head seals everything before it, and one wait for the
//! disk is shared by everybody who waits.
//!
//! What must be recorded before it happens waits for [`Audit::seal`]: when the disk does not take it, it does not happen. [`Audit::write`]
//! puts an entry in its place at once and on disk soon; [`Audit::count`] makes one entry of many routine ones.
//!
//! - [`entry`]: what is recorded, and its one form in bytes; [`segment`]: files; [`key`]: who signs;
//! - `queue`, `writer`: from everybody to the disk;
//! - [`verify`]: is it what was written; [`query`]: what is in it;
//! - `resume`: where a daemon goes on in a log that is there;
//! - `walk`, `report`, `links`, `head`, `checkpoint`, `rotate`, `prune`, `reserve`, `files`: what those need.
//!
//! Deliberately absent: an index, because files are read from end to end faster than anybody reads entries; and deciding what is worth an entry,
//! which is for those who do it.

#![allow(clippy::disallowed_methods, reason = "this module owns the audit log's files")]

mod checkpoint;
pub mod entry;
mod files;
mod head;
pub mod key;
mod links;
mod prune;
pub mod query;
mod queue;
mod report;
mod reserve;
mod resume;
mod rotate;
pub mod segment;
#[cfg(test)]
mod tests;
pub mod verify;
mod walk;
mod writer;

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use self::entry::{Entry, Kind, Outcome};
pub use self::key::key_beside;
pub use self::queue::{COUNTED_MAX, COUNTED_OF_ONE_MAX, FULL_OF_ONE_MAX, QUEUE_MAX, Reason, Refused, WINDOW};
pub use self::report::{Finding, Report};
pub use astrid_wire::proof::PublicKey;

use self::key::{KEY_FILE, Signer, publish};
use self::query::{Recorded, headers};
use self::queue::{Countable, Order, Pending, Shared};
use self::verify::VerifyError;
use self::writer::Writer;
use crate::home::Home;
use crate::keys::{AuditSeed, KeyError};
use crate::metrics::Metrics;

/// Bytes of a segment, roughly: seconds to verify, and little to keep when older ones are pruned.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Entries that the log of a home that is thrown away keeps at most.
const MEMORY_MAX: usize = 16 << 10;

/// What is in a log's directory beside its segments.
pub const NOT_SEGMENTS: [&str; 3] = [checkpoint::FILE, head::FILE, KEY_FILE];

/// What of a log's directory is of no use anywhere else: room that is kept, and what the last restore left.
pub const NOT_SAVED: [&str; 2] = [reserve::FILE, RESTORED];

/// What a restore leaves for the next daemon to record: the words of the entry.
pub const RESTORED: &str = "restored";

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
    /// It is not what was written, and that is to be refused: how much is wrong, and what first. Nothing was written.
    #[error("the audit log is not what was written, {0} findings: {1}")]
    Tampered(u64, String),
    /// There is no thread or no directory for it.
    #[error("cannot {what} for the audit log")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl AuditError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Key(error) => Some(error.hint()),
            Self::Read(_) => Some("see that var/audit can be read; a log that is moved away is begun anew".to_owned()),
            Self::Tampered(..) | Self::Io { .. } => None,
        }
    }
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Bytes of a segment, roughly, when the next one is begun.
    pub segment_bytes: u64,
    /// Whether a log in which something is wrong is not gone on with. Nothing is written then.
    pub refuse_tampered: bool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Told when it begins or ceases to fail.
    pub changed: Arc<Notify>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            refuse_tampered: false,
            metrics: Arc::default(),
            changed: Arc::default(),
        }
    }
}

/// The log, for whoever records something. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Inner);

#[derive(Debug, Clone)]
enum Inner {
    Disk(Arc<Shared>),
    Memory(Arc<Mutex<VecDeque<Recorded>>>),
}

/// What somebody was refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct TurnedAway<'a> {
    /// Against whose share of a minute it counts, where that is not the principal.
    pub owner: &'a str,
    /// Who; empty when nobody knows.
    pub principal: &'a str,
    /// Through which capsule.
    pub capsule: &'a str,
    /// What: a word of the kernel's own.
    pub action: &'static str,
    /// On what.
    pub resource: &'a str,
    /// Which rule decided: what it is counted by. Nothing that a guest or a peer can choose freely.
    pub rule: &'a str,
    /// All of it, for the first.
    pub detail: &'a str,
}

/// Resolves to the sequence number of an entry once it is signed and on disk.
#[derive(Debug)]
#[must_use = "what must be recorded before it happens waits for this"]
pub struct Receipt(oneshot::Receiver<Result<u64, Refused>>);

impl Future for Receipt {
    type Output = Result<u64, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or(Err(Refused::Closed)))
    }
}

impl Receipt {
    /// The answer, if it is there.
    pub fn now(&mut self) -> Option<Result<u64, Refused>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(Refused::Closed)),
        }
    }

    /// Waits on this thread.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn wait(self) -> Result<u64, Refused> {
        self.0.blocking_recv().unwrap_or(Err(Refused::Closed))
    }
}

impl Audit {
    /// Opens the log of a home: verifies what came since the last checkpoint, and goes on behind it. What is wrong is in the report, and the
    /// log goes on all the same, behind it, unless that is to be refused. Needs the lock.
    ///
    /// # Errors
    /// [`AuditError`]: nothing can be read, or it is refused. That nothing can be written is no error here, but for each entry.
    pub fn open(home: &Home, options: AuditOptions) -> Result<(Self, Report), AuditError> {
        let directory = home.audit_dir();
        let seed = current_seed(home, &directory)?;
        Self::open_in(&directory, &seed, options)
    }

    /// The same, in a directory, signed with the key of that seed.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open_in(directory: &Path, seed: &AuditSeed, options: AuditOptions) -> Result<(Self, Report), AuditError> {
        make(directory)?;
        let signer = Signer::new(seed.as_bytes());
        let public = signer.public();
        let found = resume::look(directory, &public)?;
        if let (Some(first), true) = (found.report.findings.first(), options.refuse_tampered) {
            return Err(AuditError::Tampered(found.report.findings_count, first.to_string()));
        }
        let shared = Shared::new(options.metrics, options.changed);
        for entry in found.tell(directory) {
            // One that has no place any more is told by the next boot.
            drop(shared.push(Pending::now(entry)));
        }
        if found.state.key == Some(public) {
            publish(directory, &public);
        }
        let report = found.report;
        let damaged = !report.is_ok();
        let writer = Writer::new(
            directory.to_path_buf(),
            signer,
            (found.state, found.next, damaged),
            options.segment_bytes,
            Arc::clone(&shared),
        );
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| AuditError::Io {
                what: "start a thread",
                source,
            })?;
        let audit = Self(Inner::Disk(shared));
        Ok((audit, report))
    }

    /// A log that is gone with the process: for homes that are thrown away, and tests.
    #[must_use]
    pub fn memory() -> Self {
        Self(Inner::Memory(Arc::default()))
    }

    /// What a log in memory has; of one on disk see [`query`].
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        match &self.0 {
            Inner::Disk(_) => Vec::new(),
            Inner::Memory(entries) => entries.lock().iter().cloned().collect(),
        }
    }

    /// Records what must be on disk, signed, before it happens. The receipt resolves to its sequence number, which the outcome names.
    pub fn seal(&self, entry: Entry) -> Receipt {
        let (answer, receipt) = oneshot::channel();
        match &self.0 {
            Inner::Disk(shared) => {
                let pending = Pending {
                    answer: Some(answer),
                    ..Pending::now(entry)
                };
                if let Err((refused, Some(answer))) = shared.push(pending) {
                    let _ = answer.send(Err(refused));
                }
            }
            // The receipt is here.
            Inner::Memory(entries) => drop(answer.send(Ok(remember(entries, &entry)))),
        }
        Receipt(receipt)
    }

    /// Records what happens now: in its place among the others at once (what makes room on a full disk may overtake it), on disk within 50 ms.
    ///
    /// # Errors
    /// [`Refused`]: too many wait already, because the disk takes none. It must not happen then.
    pub fn write(&self, entry: Entry) -> Result<(), Refused> {
        match &self.0 {
            Inner::Disk(shared) => shared.push(Pending::now(entry)).map_err(|(refused, _)| refused),
            Inner::Memory(entries) => {
                remember(entries, &entry);
                Ok(())
            }
        }
    }

    /// As [`Audit::seal`], with a text of any length for its detail: in several entries if need be, the last of which is this one.
    pub fn seal_whole(&self, entry: &Entry, text: &str) -> Receipt {
        let mut parts = entry.parts(text);
        let last = parts.pop().unwrap_or_else(|| entry.clone());
        for part in parts {
            if let Err(refused) = self.write(part) {
                let (answer, receipt) = oneshot::channel();
                let _ = answer.send(Err(refused));
                return Receipt(receipt);
            }
        }
        self.seal(last)
    }

    /// As [`Audit::write`], with a text of any length for its detail.
    ///
    /// # Errors
    /// As there.
    pub fn write_whole(&self, entry: &Entry, text: &str) -> Result<(), Refused> {
        entry.parts(text).into_iter().try_for_each(|part| self.write(part))
    }

    /// Counts something routine: one entry for all of a minute, by who, through which capsule, what, and by which rule.
    pub fn count(&self, principal: &str, capsule: &str, action: &str, rule: &str) {
        if let Inner::Disk(shared) = &self.0 {
            shared.count(Countable {
                owner: principal,
                parts: [principal, capsule, action, rule],
                outcome: Outcome::Done,
                in_full: false,
            });
        }
    }

    /// Counts what somebody was allowed and did, through which capsule: one entry for all of a minute by action.
    pub fn allowed(&self, principal: &str, capsule: &str, action: &str, count: u64) {
        if let Inner::Disk(shared) = &self.0 {
            shared.allowed(principal, capsule, action, count);
        }
    }

    /// Records that the gate or a guard refused something. `rule`: which rule decided, without what a guest can choose; `detail`: all of it.
    pub fn denied(&self, principal: &str, capsule: &str, rule: &str, detail: &str) {
        self.turned_away(&TurnedAway {
            principal,
            capsule,
            action: "denied",
            rule,
            detail,
            ..TurnedAway::default()
        });
    }

    /// Records that something was refused: the first of a minute by each rule in full, repeats by their number; and of one principal not more
    /// than so many. So nobody can fill the log by asking, nor hide what others are refused.
    pub fn turned_away(&self, what: &TurnedAway<'_>) {
        let first = match &self.0 {
            Inner::Disk(shared) => shared.count(Countable {
                owner: if what.owner.is_empty() {
                    what.principal
                } else {
                    what.owner
                },
                parts: [what.principal, what.capsule, what.action, what.rule],
                outcome: Outcome::Denied,
                in_full: true,
            }),
            Inner::Memory(_) => true,
        };
        if first {
            let entry = Entry::new(Kind::Denial, what.principal, what.action)
                .capsule(what.capsule)
                .resource(what.resource)
                .detail(what.detail);
            // It is refused all the same; that the log takes nothing, it says itself.
            drop(self.write(entry.outcome(Outcome::Denied)));
        }
    }

    /// Records something that is routine for whoever does it again and again: the first of a minute in full, repeats by who, through which
    /// capsule, what and of which resource, as their number. That the log takes nothing, it says itself.
    pub fn routine(&self, entry: Entry) {
        let first = match &self.0 {
            Inner::Disk(shared) => shared.count(Countable {
                owner: &entry.principal,
                parts: [&entry.principal, &entry.capsule, &entry.action, &entry.resource],
                outcome: Outcome::Done,
                in_full: true,
            }),
            Inner::Memory(_) => true,
        };
        if first {
            drop(self.write(entry));
        }
    }

    /// Whether it has files, or is gone with the process.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        matches!(self.0, Inner::Disk(_))
    }

    /// Why entries cannot be written now, if they cannot.
    #[must_use]
    pub fn failing(&self) -> Option<Reason> {
        match &self.0 {
            Inner::Disk(shared) => shared.failing(),
            Inner::Memory(_) => None,
        }
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order, memory: T) -> Result<T, Refused> {
        let Inner::Disk(shared) = &self.0 else {
            return Ok(memory);
        };
        let (done, answer) = oneshot::channel();
        shared.order(order(done))?;
        answer.await.map_err(|_| Refused::Closed)
    }

    /// Returns when everything that was recorded before is on disk, also what was counted.
    ///
    /// # Errors
    /// [`Refused`], when it is not.
    pub async fn flush(&self) -> Result<(), Refused> {
        match self.ask(Order::Flush, None).await? {
            Some(reason) => Err(Refused::Failing(reason)),
            None => Ok(()),
        }
    }

    /// Removes segments that ended before that time, in milliseconds since 1970, and leaves receipts. Returns how many.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn prune(&self, before_ms: u64) -> Result<u64, Refused> {
        self.ask(|done| Order::Prune(before_ms, done), Ok(0)).await?
    }

    /// Signs with a new key of this home from here on (K22).
    ///
    /// # Errors
    /// [`RotateError`]; the old key goes on then.
    pub async fn rotate(&self, home: &Home) -> Result<PublicKey, RotateError> {
        // A rotation whose new key signs already and is not in its place is ended first.
        drop(current_seed(home, &home.audit_dir()).map_err(|error| match error {
            AuditError::Key(error) => RotateError::Key(error),
            error => RotateError::Refused(Refused::Failing(Reason::Other(error.to_string().into()))),
        })?);
        let next = AuditSeed::make_next(home)?;
        let seed = zeroize::Zeroizing::new(*next.as_bytes());
        self.ask(|done| Order::Rotate(seed, done), Ok(())).await??;
        if let Err(error) = AuditSeed::promote_next(home) {
            // The log is signed with it already: whoever opens it next ends this.
            tracing::warn!(%error, "the new key of the audit log is in keys/audit.key.next and stays there until the next start");
        }
        Ok(key::public_of(next.as_bytes()))
    }

    /// Writes what there is, leaves a checkpoint, and takes no more.
    pub async fn stop(&self) {
        // A log that is closed already has stopped.
        let _ = self.ask(Order::Stop, ()).await;
    }
}

/// Why the key stays.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The log cannot be written.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The new key cannot.
    #[error(transparent)]
    Key(#[from] KeyError),
}

fn remember(entries: &Mutex<VecDeque<Recorded>>, entry: &Entry) -> u64 {
    let mut entries = entries.lock();
    let sequence = entries.back().map_or(1, |last| last.sequence + 1);
    if entries.len() >= MEMORY_MAX {
        entries.pop_front();
    }
    entries.push_back(Recorded::unchained(sequence, writer::wall_ms(), entry));
    sequence
}

fn make(directory: &Path) -> Result<(), AuditError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| AuditError::Io {
            what: "make a directory",
            source,
        }),
    }
}

/// The seed that signs; a rotation that was cut short is ended first.
fn current_seed(home: &Home, directory: &Path) -> Result<AuditSeed, AuditError> {
    make(directory)?;
    if let Some(next) = AuditSeed::next(home)? {
        // The last segment is begun with the new key, or it is not: that is when it counts.
        let last = headers(directory)?.pop();
        if last.is_some_and(|(_, header)| header.key == key::public_of(next.as_bytes())) {
            AuditSeed::promote_next(home)?;
        }
    }
    Ok(AuditSeed::open(home)?)
}
