//! A blob on disk: where it is, and how bytes of it are verified.

use std::fs::File;
use std::path::{Path, PathBuf};

use blake3::hazmat::ChainingValue;

use super::disk;
use super::parts::{Address, HASH_BYTES, PART_BYTES, part_count, part_hash, root};

/// What follows the address in the name of the list of parts.
pub(super) const PARTS_SUFFIX: &str = ".parts";

/// Where blobs are.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) object: PathBuf,
    pub(super) parts: PathBuf,
}

impl Place {
    pub(super) fn of(objects: &Path, address: Address) -> Self {
        let name = address.to_string();
        let directory = objects.join(&name[..2]);
        Self {
            object: directory.join(&name),
            parts: directory.join(name + PARTS_SUFFIX),
            directory,
        }
    }
}

/// What is wrong with a blob on disk, in words.
type Wrong = String;

/// A blob that is being read.
pub(super) struct Reader {
    file: File,
    address: Address,
    size: u64,
    /// The hashes of its parts, which merge to the address; none if it is one part.
    parts: Vec<ChainingValue>,
}

impl Reader {
    /// Opens a blob of that size, and verifies the list of its parts.
    pub(super) fn open(place: &Place, address: Address, size: u64) -> Result<Self, Wrong> {
        let file = disk::reading(&place.object).map_err(|error| format!("it cannot be opened: {error}"))?;
        let is = file.metadata().map_err(|error| error.to_string())?.len();
        if is != size {
            return Err(format!("it has {is} bytes instead of {size}"));
        }
        let count = usize::try_from(part_count(size)).map_err(|_| "it is too large".to_owned())?;
        let mut parts = Vec::new();
        if count > 0 {
            let list = disk::small(&place.parts, count * HASH_BYTES)
                .map_err(|error| format!("the list of its parts cannot be read: {error}"))?;
            parts = list.as_chunks::<HASH_BYTES>().0.to_vec();
            if parts.len() != count || root(&parts, size) != address {
                return Err("the list of its parts is not that of this address".to_owned());
            }
        }
        Ok(Self {
            file,
            address,
            size,
            parts,
        })
    }

    /// A part, verified.
    fn part(&self, index: u64) -> Result<Vec<u8>, Wrong> {
        let start = index * PART_BYTES as u64;
        let length = self.size.saturating_sub(start).min(PART_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(PART_BYTES)];
        let read = disk::read_at(&self.file, &mut bytes, start).map_err(|error| format!("part {index}: {error}"))?;
        let expected = usize::try_from(index).ok().and_then(|index| self.parts.get(index));
        let fits = match expected {
            Some(expected) => *expected == part_hash(index, &bytes),
            None => Address::of(&bytes) == self.address,
        };
        match read == bytes.len() && fits {
            true => Ok(bytes),
            false => Err(format!("the bytes from {start} on are not those that were kept")),
        }
    }

    /// Bytes from there on, fewer only at the end.
    pub(super) fn range(&self, offset: u64, length: usize) -> Result<Vec<u8>, Wrong> {
        let end = offset.saturating_add(length as u64).min(self.size);
        let mut bytes = Vec::with_capacity(length);
        let mut at = offset;
        while at < end {
            let index = at / PART_BYTES as u64;
            let start = index * PART_BYTES as u64;
            let part = self.part(index)?;
            let from = usize::try_from(at - start).unwrap_or(PART_BYTES);
            let to = usize::try_from(end - start).unwrap_or(PART_BYTES).min(part.len());
            bytes.extend_from_slice(&part[from..to]);
            at = start + to as u64;
        }
        Ok(bytes)
    }

    /// All of it.
    pub(super) fn verify(&self) -> Result<(), Wrong> {
        for index in 0..part_count(self.size).max(1) {
            self.part(index)?;
        }
        Ok(())
    }
}
