//! How a client proves that it is a principal (contract K14): it signs a nonce of the kernel's with a key that is in the principal's
//! profile.
//!
//! What is signed names the purpose, the socket and the principal, so that a signature proves one claim on one kind of socket and
//! nothing else. Deliberately absent: the signing itself, which needs a library that guests do not.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Principal;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;

/// Bytes of an Ed25519 public key (RFC 8032).
pub const PUBLIC_KEY_BYTES: usize = 32;

/// Bytes of an Ed25519 signature (RFC 8032).
pub const SIGNATURE_BYTES: usize = 64;

/// What every signed text begins with.
const CONTEXT: &str = "astrid 2026 connection proof v1";

/// What a key's text begins with.
const PREFIX: &str = "ed25519:";

/// The bytes that prove a claim when they are signed. `socket` is `operator` or `session`.
#[must_use]
pub fn signed_bytes(socket: &str, principal: &Principal, nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CONTEXT.len() + socket.len() + principal.as_str().len() + NONCE_BYTES + 3);
    for part in [CONTEXT, socket, principal.as_str()] {
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(0);
    }
    bytes.extend_from_slice(nonce);
    bytes
}

/// A public key as profiles have it: `ed25519:` and 64 hexadecimal digits. Whether it is a point of the curve is found when it is used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; PUBLIC_KEY_BYTES]);

/// Why a text is not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is written `ed25519:` and 64 hexadecimal digits, as `astrid keypair` prints it")]
pub struct PublicKeyError;

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, PublicKeyError> {
        let digits = text.strip_prefix(PREFIX).ok_or(PublicKeyError)?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else {
            return Err(PublicKeyError);
        };
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(PublicKeyError);
        let mut key = Vec::with_capacity(PUBLIC_KEY_BYTES);
        for [high, low] in pairs {
            let byte = value(*high)? * 16 + value(*low)?;
            key.push(u8::try_from(byte).map_err(|_| PublicKeyError)?);
        }
        key.try_into().map(Self).map_err(|_| PublicKeyError)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_round_trip() {
        let key = PublicKey(std::array::from_fn(|n| u8::try_from(n * 8).unwrap()));
        let text = key.to_string();
        assert_eq!(text.len(), 8 + 64);
        assert_eq!(text.parse::<PublicKey>(), Ok(key));
        assert_eq!(
            serde_json::from_str::<PublicKey>(&serde_json::to_string(&key).unwrap()).unwrap(),
            key
        );
        for bad in [
            "",
            "ed25519:",
            &text[1..],
            &text[..71],
            &format!("{text}0"),
            &text.replace(':', "="),
            &text.replace("08", "0g"),
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(PublicKeyError), "{bad}");
        }
    }

    /// A vector, so that other languages sign the same bytes.
    #[test]
    fn what_is_signed() {
        let bytes = signed_bytes("session", &"ann".parse().unwrap(), &[7; 32]);
        let mut expected = b"astrid 2026 connection proof v1\0session\0ann\0".to_vec();
        expected.extend([7; 32]);
        assert_eq!(bytes, expected);
    }
}
