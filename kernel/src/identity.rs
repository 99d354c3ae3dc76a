//! Who somebody is, proven by a key (K14): pairs of keys of principals, and the proof of a claim.
//!
//! The public half is in the principal's profile; the private half stays with whoever is that principal. By default that is a file
//! of the home, `keys/principals/NAME.key`: 32 raw bytes, which nobody but their user may read. The daemon never reads it.

#![allow(clippy::disallowed_methods, reason = "this module owns the key files of principals")]

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use astrid_wire::Principal;
use astrid_wire::proof::{NONCE_BYTES, PUBLIC_KEY_BYTES, PublicKey, SIGNATURE_BYTES, signed_bytes};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::home::{Home, PRIVATE_FILE, Socket};
use crate::keys::{self, KeyError};

/// Mode of the directory that private keys are in.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// A private key. Wiped from memory when dropped; never shown.
pub struct KeyPair(SigningKey);

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyPair").field(&self.public()).finish()
    }
}

/// Where a home keeps the private key of a principal, unless it is kept elsewhere.
#[must_use]
pub fn key_file(home: &Home, principal: &Principal) -> PathBuf {
    home.keys_dir().join("principals").join(format!("{principal}.key"))
}

impl KeyPair {
    /// Makes one and writes its private half to a file that must not exist. Missing parents of a home's own key files are made, too.
    ///
    /// # Errors
    /// [`KeyError::Random`] and [`KeyError::Io`].
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let secret = keys::random()?;
        let failed = |action: &'static str| {
            move |source: io::Error| KeyError::Io {
                action,
                path: path.to_path_buf(),
                source,
            }
        };
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(PRIVATE_DIRECTORY)
                .create(parent)
                .map_err(failed("make the directory of"))?;
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(path);
        let written = file.map_err(failed("make"))?;
        let kept = (&written).write_all(&*secret).and_then(|()| written.sync_all());
        if let Err(source) = kept {
            // Half a key is worse than none.
            fs::remove_file(path).map_err(failed("remove"))?;
            return Err(failed("write")(source));
        }
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// Reads one.
    ///
    /// # Errors
    /// No file, or one that is not a private key of this user alone.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let secret = keys::read_secret(path)?.ok_or_else(|| KeyError::Io {
            action: "open",
            path: path.to_path_buf(),
            source: ErrorKind::NotFound.into(),
        })?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// The half that everybody may know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Proves to a daemon that this is that principal.
    #[must_use]
    pub fn prove(&self, socket: Socket, principal: &Principal, nonce: &[u8; NONCE_BYTES]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(&signed_bytes(socket.as_str(), principal, nonce)).to_bytes()
    }
}

/// A claim that is to be proven.
#[derive(Debug)]
pub struct Claim {
    /// To be whom.
    pub principal: Principal,
    /// What must be signed, with what surrounds it.
    pub nonce: [u8; NONCE_BYTES],
}

impl Claim {
    /// A claim with a nonce of its own.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(principal: Principal) -> Result<Self, KeyError> {
        Ok(Self {
            principal,
            nonce: *keys::random()?,
        })
    }

    /// Whether a credential (public key, signature) proves it, on that socket, with one of these keys. Small-order keys and signatures
    /// that are not canonical prove nothing.
    #[must_use]
    pub fn is_proven_by(&self, credential: &[u8], socket: Socket, keys: &[PublicKey]) -> bool {
        let Some((key, signature)) = credential.split_at_checked(PUBLIC_KEY_BYTES) else {
            return false;
        };
        let (Ok(key), Ok(signature)) = (
            <[u8; PUBLIC_KEY_BYTES]>::try_from(key),
            Signature::from_slice(signature),
        ) else {
            return false;
        };
        keys.contains(&PublicKey(key))
            && VerifyingKey::from_bytes(&key).is_ok_and(|key| {
                let signed = signed_bytes(socket.as_str(), &self.principal, &self.nonce);
                key.verify_strict(&signed, &signature).is_ok()
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// K14: a proof is for one principal, one socket, one nonce, by a key of the profile.
    #[test]
    fn what_proves_a_claim() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/ann.key");
        let pair = KeyPair::create(&path).unwrap();
        assert!(KeyPair::create(&path).is_err(), "it is not overwritten");
        assert_eq!(KeyPair::open(&path).unwrap().public(), pair.public());
        assert!(!format!("{pair:?}").contains(&hex::encode(fs::read(&path).unwrap())));
        let ann: Principal = "ann".parse().unwrap();
        let claim = Claim::new(ann.clone()).unwrap();
        assert_ne!(claim.nonce, Claim::new(ann.clone()).unwrap().nonce);
        let keys = [PublicKey([9; 32]), pair.public()];
        let sign = |socket, who: &str, nonce: &[u8; 32]| {
            let signature = pair.prove(socket, &who.parse().unwrap(), nonce);
            [&pair.public().0[..], &signature[..]].concat()
        };
        let good = sign(Socket::Session, "ann", &claim.nonce);
        assert!(claim.is_proven_by(&good, Socket::Session, &keys));
        assert!(!claim.is_proven_by(&good, Socket::Operator, &keys));
        assert!(
            !claim.is_proven_by(&good, Socket::Session, &keys[..1]),
            "not a key of the profile"
        );
        assert!(!claim.is_proven_by(&good, Socket::Session, &[]));
        for wrong in [
            sign(Socket::Session, "bob", &claim.nonce),
            sign(Socket::Session, "ann", &[0; 32]),
            good[..95].to_vec(),
            [&good[..], b"x"].concat(),
            Vec::new(),
            vec![0; 96],
        ] {
            assert!(!claim.is_proven_by(&wrong, Socket::Session, &keys));
        }
        for position in 0..good.len() {
            let mut bent = good.clone();
            bent[position] ^= 1;
            assert!(!claim.is_proven_by(&bent, Socket::Session, &keys), "byte {position}");
        }
    }

    /// The neutral element "signs" everything: a profile that has it proves nothing.
    #[test]
    fn a_weak_key_proves_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let claim = Claim::new("ann".parse().unwrap()).unwrap();
        let credential = [&neutral[..], &neutral[..], &[0; 32]].concat();
        assert!(!claim.is_proven_by(&credential, Socket::Session, &[PublicKey(neutral)]));
    }
}
