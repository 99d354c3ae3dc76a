//! Who signs: an ed25519 key of this log alone; and the file with its public half, for others.

use std::fmt;
use std::path::Path;

use astrid_wire::proof::PublicKey;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use super::files::read_bounded;
use crate::home::{Durability, PRIVATE_FILE, replace_file};

/// Where the public key is for others.
pub(super) const KEY_FILE: &str = "key.pub";

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

/// Bytes of a file with a public key at most.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Leaves the public key for others. Without it they need to be told it, as they should be anyway.
pub(super) fn publish(directory: &Path, key: &PublicKey) {
    if key_beside(directory) == Some(*key) {
        return;
    }
    let path = directory.join(KEY_FILE);
    let text = format!("{key}\n");
    if let Err(error) = replace_file(&path, &[text.as_bytes()], PRIVATE_FILE, Durability::Synced) {
        tracing::warn!(%error, "cannot write the public key of the audit log");
    }
}

/// The key that lies beside a log: enough to see that it fits together, and not who signed it.
#[must_use]
pub fn key_beside(directory: &Path) -> Option<PublicKey> {
    let bytes = read_bounded(&directory.join(KEY_FILE), KEY_FILE_BYTES_MAX).ok()?;
    String::from_utf8(bytes).ok()?.trim().parse().ok()
}
