//! `head`: the last seal once more, beside the segments. It is there before the first of them, and written after the seal itself is on disk, so it
//! never names more than there is; when the end of the log is cut off, it does, and when it is missing somebody took it away.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::entry::Hash;
use super::files::read_bounded;
use super::segment::{SEAL_BYTES, Seal};
use astrid_wire::proof::PublicKey;

/// Its name.
pub(super) const FILE: &str = "head";

/// What it begins with.
const MAGIC: [u8; 8] = *b"ASTRIDAH";

/// Its bytes: magic, the key, the hash that was signed, the seal. Less than a sector, so that it is never half written.
pub(super) const BYTES: usize = 8 + 32 + 32 + SEAL_BYTES;

/// The last seal.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) key: PublicKey,
    hash: Hash,
    pub(super) seal: Seal,
}

impl Head {
    pub(super) fn new(key: PublicKey, hash: Hash, seal: Seal) -> Self {
        Self { key, hash, seal }
    }

    /// Whether it is signed by that key, or without one by the one that it names.
    pub(super) fn holds(&self, key: Option<&PublicKey>) -> bool {
        key.is_none_or(|key| *key == self.key) && self.seal.holds(&self.key, &self.hash)
    }

    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.encode(), 0)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.hash);
        self.seal.encode(&mut bytes);
        bytes
    }
}

/// How often it is read at most, when a daemon writes it at the same time.
const READ_MAX: usize = 3;

/// Reads it; none when there is none. One that is no head is one that nobody signed.
pub(super) fn read_head(directory: &Path) -> Option<Head> {
    let mut head = read_once(directory);
    for _ in 1..READ_MAX {
        if head.as_ref().is_none_or(|head| head.holds(None)) {
            break;
        }
        head = read_once(directory);
    }
    head
}

fn read_once(directory: &Path) -> Option<Head> {
    let bytes = match read_bounded(&directory.join(FILE), BYTES as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => return Some(nobodys()),
    };
    let Ok(bytes) = <[u8; BYTES]>::try_from(bytes) else {
        return Some(nobodys());
    };
    let array = |at: usize| {
        let mut array = [0; 32];
        array.copy_from_slice(&bytes[at..at + 32]);
        array
    };
    match Seal::decode(&bytes[72..]) {
        Some(seal) if bytes[..8] == MAGIC => Some(Head::new(PublicKey(array(8)), array(40), seal)),
        _ => Some(nobodys()),
    }
}

fn nobodys() -> Head {
    let seal = Seal {
        sequence: 0,
        count: 0,
        wall_ms: 0,
        signature: [0; 64],
    };
    Head::new(PublicKey([0; 32]), [0; 32], seal)
}
