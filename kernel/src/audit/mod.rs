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
//! - `links`, `head`, `checkpoint`, `rotate`, `prune`: what those need.
//!
//! Deliberately absent: an index, because files are read from end to end faster than anybody reads entries; and deciding what is worth an entry,
//! which is for those who do it.

#![allow(clippy::disallowed_methods, reason = "this module owns the audit log's files")]

mod checkpoint;
pub mod entry;
mod head;
pub mod key;
mod links;
mod prune;
pub mod query;
mod queue;
mod rotate;
pub mod segment;
#[cfg(test)]
mod tests;
pub mod verify;
mod writer;

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub use self::entry::{Entry, Kind, Outcome};
pub use self::queue::{COUNTED_MAX, QUEUE_MAX, Reason, Refused, WINDOW};
pub use self::verify::{Finding, Report};
pub use astrid_wire::proof::PublicKey;

use self::key::Signer;
use self::query::{Recorded, headers};
use self::queue::{Order, Pending, Shared};
use self::verify::VerifyError;
use self::writer::Writer;
use crate::home::{Durability, Home, PRIVATE_FILE, replace_file};
use crate::keys::{AuditSeed, KeyError};
use crate::metrics::Metrics;

/// Bytes of a segment, roughly: seconds to verify, and little to keep when older ones are pruned.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Entries that the log of a home that is thrown away keeps at most.
const MEMORY_MAX: usize = 16 << 10;

/// What is in a log's directory beside its segments.
pub const NOT_SEGMENTS: [&str; 3] = [checkpoint::FILE, head::FILE, KEY_FILE];

/// Where the public key is for others.
const KEY_FILE: &str = "key.pub";

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] VerifyError),
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
            Self::Io { .. } => None,
        }
    }
}

/// How a log is opened.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// Bytes of a segment, roughly, when the next one is begun.
    pub segment_bytes: u64,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Told when it begins or ceases to fail.
    pub changed: Arc<Notify>,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
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
    /// log goes on all the same, in a segment of its own. Needs the lock.
    ///
    /// # Errors
    /// [`AuditError`]: nothing can be read. That nothing can be written is no error here, but for each entry.
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
        publish(directory, &public);
        let from = checkpoint::read(directory, &public);
        let resumed = from.is_some();
        let (mut report, mut state) = verify::verify_from(directory, Some(&public), from)?;
        if !report.is_ok() && resumed {
            // Something is wrong since: all that is wrong is to be known.
            (report, state) = verify::verify_from(directory, Some(&public), None)?;
        }
        let last = verify::segments(directory)?.last().map_or(0, |(number, _)| *number);
        let next = (!report.is_ok()).then_some(last + 1);
        let unknown: Vec<u64> = state.open.iter().copied().collect();
        // What an earlier boot was told is not told again.
        report.unknown_count = unknown.len() as u64;
        report.unknown_outcomes = unknown.iter().copied().take(verify::UNKNOWN_MAX).collect();
        let shared = Shared::new(options.metrics, options.changed);
        let writer = Writer::new(
            directory.to_path_buf(),
            signer,
            (state, next),
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
        for intent in unknown {
            // Told once: from here on it has an outcome.
            let entry = Entry::outcome_of(intent, entry::KERNEL, "audit.boot", Outcome::Unknown);
            if audit
                .write(entry.detail("the daemon ended before it was known"))
                .is_err()
            {
                break;
            }
        }
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

    /// Records what happens now: in its place among the others at once, on disk within 50 ms.
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
            shared.count([principal, capsule, action, rule], 1);
        }
    }

    /// Counts something whose first in a minute is told in full. Whether this is that.
    fn is_first(&self, parts: [&str; 4]) -> bool {
        match &self.0 {
            Inner::Disk(shared) => shared.count(parts, 0),
            Inner::Memory(_) => true,
        }
    }

    /// Records that something was refused: the first of a minute in full, repeats by their number. So nobody can fill the log by asking.
    pub fn denied(&self, principal: &str, capsule: &str, rule: &str) {
        const ACTION: &str = "denied";
        if self.is_first([principal, capsule, ACTION, rule]) {
            let entry = Entry::new(Kind::Denial, principal, ACTION)
                .capsule(capsule)
                .detail(rule);
            // It is refused all the same; that the log takes nothing, it says itself.
            drop(self.write(entry.outcome(Outcome::Denied)));
        }
    }

    /// Records something that is routine for whoever does it again and again: the first of a minute in full, repeats by who, through which
    /// capsule, what and of which resource, as their number. That the log takes nothing, it says itself.
    pub fn routine(&self, entry: Entry) {
        if self.is_first([&entry.principal, &entry.capsule, &entry.action, &entry.resource]) {
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
        let next = AuditSeed::make_next(home)?;
        let seed = zeroize::Zeroizing::new(*next.as_bytes());
        self.ask(|done| Order::Rotate(seed, done), Ok(())).await??;
        AuditSeed::promote_next(home)?;
        let public = key::public_of(next.as_bytes());
        publish(&home.audit_dir(), &public);
        Ok(public)
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

/// Leaves the public key for others. Without it they need to be told it, as they should be anyway.
fn publish(directory: &Path, key: &PublicKey) {
    let path: PathBuf = directory.join(KEY_FILE);
    let text = format!("{key}\n");
    if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return;
    }
    if let Err(error) = replace_file(&path, &[text.as_bytes()], PRIVATE_FILE, Durability::Synced) {
        tracing::warn!(%error, "cannot write the public key of the audit log");
    }
}

/// The key that lies beside a log: enough to see that it fits together, and not who signed it.
#[must_use]
pub fn key_beside(directory: &Path) -> Option<PublicKey> {
    let text = std::fs::read_to_string(directory.join(KEY_FILE)).ok()?;
    text.trim().parse().ok()
}
