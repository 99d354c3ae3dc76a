//! The gate: every effect and every receipt is decided here.
//!
//! A decision is about *(principal, capsule, action, object)*, and its proof is a [`Permit`], which only this module can
//! make and which the effect consumes. An acting function takes a permit instead of an object, so a missing check
//! does not compile. What no rule allows is denied.
//!
//! An action is allowed when the capsule's manifest declares it AND the principal may: a grant of its own or of one of its groups
//! is about it, and no revoke is (K7). Whoever is disabled, or not known, is denied everything. A capsule that acts for nobody else
//! acts within its manifest, which the operator approved; an anonymous connection may be there, and that is all.
//!
//! - `rules`: lists of capabilities, compiled;
//! - `policy`: principals and groups, an immutable snapshot;
//! - `files`, `handle`, `watch`: where the snapshot comes from, how it is replaced, and edits by hand;
//! - `standing`: who somebody is at one epoch, looked up once;
//! - `gate`, `denied`, `explain`: decisions, and their reasons;
//! - `change`: who may change what of whom (K9).
//!
//! Whatever is kept past the moment of its decision carries the epoch of the policy that decided. When that has moved, it is
//! decided again: at the commit of a handling for all that it recorded, after the commit for each command. So what is taken
//! from somebody is gone for whatever they begin after that, and for what they had begun and not committed.
//!
//! A message that waits in a queue is decided on by the policy of the moment in which it is handled. On behalf of somebody who is
//! disabled or unknown by then it is not handled: an ask is refused, and what the store keeps becomes a dead letter, which an
//! operator can retry once its principal may act again.
//!
//! Deliberately absent: tokens and allowances.

mod change;
mod denied;
mod explain;
#[cfg(test)]
mod file_tests;
mod files;
mod gate;
mod handle;
mod policy;
mod rules;
mod standing;
#[cfg(test)]
mod tests;
mod watch;

pub use change::{Forbidden, may_change, may_change_group, may_give};
pub use denied::{Denied, Reason, Refusal};
pub use explain::Check;
pub use files::{PROFILE_BYTES_MAX, PolicyError};
pub use gate::{Acl, FileScope, Gate, Say, Subject};
pub use handle::{Authority, EditError, Edited};
pub use policy::{GROUPS_MAX, Known, PRINCIPALS_MAX, Policy, Wrong};
pub use rules::{Entry, Object};
pub use standing::Standing;

/// Proof that the gate allowed one action on this object. Consumed by the effect.
#[derive(Debug)]
#[must_use = "a permit that is not used means that an effect was checked but not done"]
pub struct Permit<T> {
    object: T,
    /// Of the policy that allowed it.
    epoch: u64,
}

/// The epoch of what is never decided again: what the kernel does itself, and what follows from holding the object.
const FOR_EVER: u64 = u64::MAX;

impl<T> Permit<T> {
    /// What is permitted.
    pub fn object(&self) -> &T {
        &self.object
    }

    /// Consumes the proof for the effect.
    pub fn into_object(self) -> T {
        self.object
    }
}
