//! Who signs: an ed25519 key of this log alone.

use std::fmt;

use astrid_wire::proof::PublicKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// The secret half.
pub(super) struct Signer(SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl Signer {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// The public half of the key of that seed.
#[must_use]
pub fn public_of(seed: &[u8; 32]) -> PublicKey {
    Signer::new(seed).public()
}

/// Whether a key signed that. One that is no point of the curve signed nothing.
pub(super) fn has_signed(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}
