//! What guests are told, and what is recorded: what becomes a blob and what is given up, before it happens; what a limit refuses; and what is
//! found spoilt, which is the kernel's fault, or its disk's.

use std::sync::Arc;

use super::super::bindings::astrid::kernel::blob::BlobError;
use crate::audit::{Audit, Entry, Kind, Outcome, TurnedAway};
use crate::blob::{BlobError as Fault, Held};
use crate::capsule::files::NotAnnounced;
use crate::capsule::guest::Guest;
use crate::capsule::host::aside::Lost;
use crate::metrics::Metrics;

impl From<Fault> for BlobError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotFound | Fault::NoUpload => Self::NotFound,
            Fault::Corrupted { .. } => Self::Corrupted(fault.to_string()),
            Fault::TooLarge(limit) => Self::TooLarge(limit),
            Fault::NoSpace { .. } | Fault::Full(_) => Self::NoSpace(fault.to_string()),
            Fault::WrongOffset(next) => Self::WrongOffset(next),
            Fault::Incomplete { has, .. } => Self::Incomplete(has),
            Fault::Mismatch { is, .. } => Self::Mismatch(is.to_string()),
            Fault::TooMany(limit) => Self::TooMany(limit),
            Fault::File { .. } | Fault::Unrecorded(_) => Self::Failed(fault.to_string()),
        }
    }
}

impl From<NotAnnounced> for BlobError {
    fn from(error: NotAnnounced) -> Self {
        match error {
            NotAnnounced::Blob(fault) => fault.into(),
            NotAnnounced::Quota(exceeded) => Self::NoSpace(exceeded.to_string()),
            NotAnnounced::Count(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<Lost> for BlobError {
    fn from(lost: Lost) -> Self {
        Self::Failed(lost.to_string())
    }
}

/// The limit that refused, by its name in the configuration; nothing, where it was none.
fn rule(fault: &Fault) -> Option<&'static str> {
    match fault {
        Fault::TooLarge(_) => Some("blobs.max_size"),
        // That of the principal's quota is told by that.
        Fault::NoSpace { whose, .. } if whose == "in the store" => Some("blobs.max_total"),
        Fault::Full(_) => Some("blobs.max_count"),
        Fault::TooMany(_) => Some("blobs.max_uploads"),
        Fault::Mismatch { .. } => Some("blob.mismatch"),
        _ => None,
    }
}

/// Writes down what one principal does with blobs, through one capsule; on whatever thread that is.
#[derive(Clone)]
pub(super) struct Teller {
    audit: Audit,
    principal: String,
    capsule: String,
    metrics: Arc<Metrics>,
}

impl Teller {
    pub(super) fn of(guest: &Guest) -> Self {
        Self {
            audit: guest.host().audit.clone(),
            principal: guest.principal.to_string(),
            capsule: guest.actor.capsule_name().to_string(),
            metrics: Arc::clone(&guest.host().metrics),
        }
    }

    fn entry(&self, action: &str, Held { address, size }: Held) -> Entry {
        Entry::new(Kind::Store, &self.principal, action)
            .capsule(&self.capsule)
            .resource(&address.to_string())
            .detail(&format!("bytes={size}"))
    }

    /// Records what is about to happen. What cannot be recorded does not happen.
    pub(super) fn happens(&self, action: &str, held: Held) -> Result<(), String> {
        let written = self.audit.write(self.entry(action, held));
        written.map_err(|refused| refused.to_string())
    }

    /// Counts what is kept now.
    pub(super) fn kept(&self, held: Held) {
        self.metrics.blobs_kept.increment();
        self.metrics.blobs_kept_bytes.add(held.size);
    }

    /// Counts what was given up.
    pub(super) fn released(&self) {
        self.metrics.blobs_released.increment();
    }

    /// Records that what was recorded did not happen.
    pub(super) fn not_done(&self, action: &str, held: Held, why: &Fault) {
        let entry = self.entry(action, held).outcome(Outcome::Failed);
        // It has not happened; that the log takes nothing, it says itself.
        drop(self.audit.write(entry.detail(&format!("not done: {why}"))));
    }

    /// Records what a limit refused.
    pub(super) fn refused(&self, fault: &Fault) {
        if let Some(rule) = rule(fault) {
            self.audit.turned_away(&TurnedAway {
                principal: &self.principal,
                capsule: &self.capsule,
                action: "blob.refused",
                rule,
                detail: &format!("{rule}: {fault}"),
                ..TurnedAway::default()
            });
        }
    }

    /// Records what is spoilt, when that is noticed.
    pub(super) fn spoilt(&self, fault: &Fault) {
        if let Fault::Corrupted {
            address,
            what,
            first: true,
        } = fault
        {
            self.metrics.blobs_corrupted.increment();
            tracing::error!(%address, what, "a blob is corrupted on disk; it is not served, and whoever writes it anew repairs it");
            let entry = Entry::kernel(Kind::Integrity, "blob.corrupted").outcome(Outcome::Failed);
            // That the log takes nothing, it says itself.
            drop(self.audit.write(entry.resource(&address.to_string()).detail(what)));
        }
    }
}
