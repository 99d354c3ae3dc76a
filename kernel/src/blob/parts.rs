//! Addresses, and the tree between them and the parts of a blob.

use std::fmt;
use std::str::FromStr;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of a part: of what is hashed to verify a single byte, and of one read or write. A power of two of BLAKE3's own chunks, so that a part is
/// a subtree.
pub const PART_BYTES: usize = 1 << 20;

/// Bytes of a part's hash.
pub(super) const HASH_BYTES: usize = 32;

/// The BLAKE3 hash of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address(blake3::Hash);

impl Address {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes))
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is not an address: 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address is 64 hexadecimal digits in lower case")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let hash = blake3::Hash::from_hex(text).ok().filter(|_| plain);
        hash.map(Self).ok_or(AddressError)
    }
}

/// How many parts a blob has that its address is not computed from directly: none if there is only one.
pub(super) fn part_count(size: u64) -> u64 {
    match size <= PART_BYTES as u64 {
        true => 0,
        false => size.div_ceil(PART_BYTES as u64),
    }
}

/// Begins a part.
pub(super) fn part_hasher(index: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index * PART_BYTES as u64);
    hasher
}

/// The hash of a whole part.
pub(super) fn part_hash(index: u64, bytes: &[u8]) -> ChainingValue {
    part_hasher(index).update(bytes).finalize_non_root()
}

/// The address of a blob, by the hashes of its parts, of which there are more than one.
pub(super) fn root(parts: &[ChainingValue], size: u64) -> Address {
    let (left, right, left_size) = split(parts, size);
    let (left, right) = (subtree(left, left_size), subtree(right, size - left_size));
    Address(merge_subtrees_root(&left, &right, Mode::Hash))
}

/// The address of a blob that is a single part, by its hasher.
pub(super) fn single(hasher: &Hasher) -> Address {
    Address(hasher.finalize())
}

fn split(parts: &[ChainingValue], size: u64) -> (&[ChainingValue], &[ChainingValue], u64) {
    let left_size = left_subtree_len(size);
    let count = usize::try_from(left_size / PART_BYTES as u64).unwrap_or(usize::MAX);
    let (left, right) = parts.split_at(count.min(parts.len()));
    (left, right, left_size)
}

/// As deep as the tree: 20 for a terabyte.
fn subtree(parts: &[ChainingValue], size: u64) -> ChainingValue {
    match parts {
        [part] => *part,
        [] => [0; HASH_BYTES],
        parts => {
            let (left, right, left_size) = split(parts, size);
            merge_subtrees_non_root(&subtree(left, left_size), &subtree(right, size - left_size), Mode::Hash)
        }
    }
}
