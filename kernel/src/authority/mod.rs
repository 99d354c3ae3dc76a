//! The gate: every effect and every receipt is decided here.
//!
//! A decision is about *(principal, capsule, action, object)*, and its proof is a [`Permit`], which only this module can
//! make and which the effect consumes. An acting function takes a permit instead of an object, so a missing check
//! does not compile. What no rule allows is denied.
//!
//! The rules of today: a capsule says and hears what its manifest declares; topics that belong to the kernel are said by
//! nobody else; requests of operators are made over the operator socket. Groups, grants, tokens and allowances
//! are deliberately not consulted yet: there is one principal with authority, `default`, who owns the daemon.

mod gate;

pub use gate::{Acl, Denied, Gate, Say, Subject};

/// Proof that the gate allowed one action on this object. Consumed by the effect.
#[derive(Debug)]
#[must_use = "a permit that is not used means that an effect was checked but not done"]
pub struct Permit<T> {
    object: T,
}

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
