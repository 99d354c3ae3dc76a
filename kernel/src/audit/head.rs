//! `head`: the last seal once more, beside the segments. It is written after the seal itself is on disk, so it never names more than there is;
//! when the end of the log is cut off, it does.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::entry::Hash;
use super::segment::{SEAL_BYTES, Seal};
use astrid_wire::proof::PublicKey;

/// Its name.
pub(super) const FILE: &str = "head";

/// What it begins with.
const MAGIC: [u8; 8] = *b"ASTRIDAH";

/// Its bytes: magic, the key, the hash that was signed, the seal. Less than a sector, so that it is never half written.
const BYTES: usize = 8 + 32 + 32 + SEAL_BYTES;

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
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.hash);
        self.seal.encode(&mut bytes);
        file.write_all_at(&bytes, 0)
    }
}

/// Reads it; none when there is none. One that is no head is one that nobody signed.
pub(super) fn read_head(directory: &Path) -> Option<Head> {
    let mut file = match File::open(directory.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => return Some(nobodys()),
    };
    if file.metadata().is_ok_and(|found| found.len() == 0) {
        // The daemon ended when it made the file.
        return None;
    }
    let mut bytes = [0; BYTES];
    if file.read_exact(&mut bytes).is_err() || bytes[..8] != MAGIC {
        return Some(nobodys());
    }
    let array = |at: usize| {
        let mut array = [0; 32];
        array.copy_from_slice(&bytes[at..at + 32]);
        array
    };
    let Some(seal) = Seal::decode(&bytes[72..]) else {
        return Some(nobodys());
    };
    Some(Head::new(PublicKey(array(8)), array(40), seal))
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
