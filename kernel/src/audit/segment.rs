//! Segment files: the log as it lies on disk.
//!
//! A file is a header and then records, each an entry or a *seal*. Every record, and the header, is followed by its hash, which covers the hash
//! before it: so the bytes that a record's hash is made of are the 32 bytes before the record and the record, as they lie in the file. A
//! seal is a signature over the hash before it, and with that over everything before it. `docs/audit.md` has the layout.
//!
//! Reading trusts nothing: a length is checked before anything is read, and memory is one buffer of fixed size whatever the file says.

use std::fs::File;
use std::io::{self, Read as _};

use super::entry::{ENTRY_BYTES_MAX, ENTRY_BYTES_MIN, Hash};
use astrid_wire::proof::PublicKey;

use super::key::{Signer, has_signed};

/// What a segment begins with.
const MAGIC: [u8; 8] = *b"ASTRIDAU";

/// The form of segments. Another one is refused.
pub const FORMAT: u32 = 1;

/// Bytes of a header that are signed.
const SIGNED_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 32 + 32;

/// Bytes of a header, with its signature and hash.
pub const HEADER_BYTES: usize = SIGNED_BYTES + 64 + 32;

/// Bytes of a seal.
pub const SEAL_BYTES: usize = 8 + 8 + 8 + 64;

/// Bytes before a record's body: its length, and which kind it is.
const FRAME_BYTES: usize = 5;

/// Bytes of a record beside its body.
pub const AROUND_BYTES: usize = FRAME_BYTES + 32;

/// Bytes that are read at once; at least two of the largest record.
const BUFFER_BYTES: usize = 256 << 10;

/// What the hashes of this log are made with, so that they are no hashes of anything else.
static HASH_KEY: std::sync::LazyLock<Hash> =
    std::sync::LazyLock::new(|| blake3::derive_key("astrid 2026 audit chain v1", b""));

/// Before what is signed, so that one signature is never taken for another.
const HEADER_DOMAIN: &[u8] = b"astrid audit header v1";
const SEAL_DOMAIN: &[u8] = b"astrid audit seal v1";
const ROTATE_DOMAIN: &[u8] = b"astrid audit rotate v1";

/// Hash of a record: of the hash before it and its bytes, which lie behind each other.
pub(super) fn hash(previous_and_record: &[u8]) -> Hash {
    *blake3::keyed_hash(&HASH_KEY, previous_and_record).as_bytes()
}

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.seg")
}

/// The number of a segment by its file's name; none when that is no name of one.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// What a new key signs to take over, and the old one seals.
pub(super) fn rotation(old: &PublicKey, new: &PublicKey) -> Vec<u8> {
    [ROTATE_DOMAIN, &old.0, &new.0].concat()
}

/// The beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which segment, from 1.
    pub number: u64,
    /// Sequence number of its first entry.
    pub first: u64,
    /// When it was begun, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Who signs it, all of it.
    pub key: PublicKey,
    /// The last hash of the segment before it; zero in the first.
    pub previous: Hash,
}

/// Why a segment cannot be begun to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It is not one.
    #[error("it does not begin like a segment")]
    Magic,
    /// Of another version.
    #[error("it has format {0}, this reads {FORMAT}")]
    Format(u32),
    /// Its bytes are not those that were written.
    #[error("its header was changed")]
    Hash,
    /// The key it names did not sign it.
    #[error("its header is not signed by the key that it names")]
    Signature,
}

impl Header {
    /// The whole header, signed and with its hash.
    pub(super) fn encode(&self, signer: &Signer) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        for number in [self.number, self.first, self.wall_ms] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.previous);
        let signature = signer.sign(&[HEADER_DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&signature);
        let hash = hash(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// Reads a header, and the hash behind it.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, Hash), HeaderError> {
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let array = |at: usize| {
            let mut array = [0; 32];
            array.copy_from_slice(&bytes[at..at + 32]);
            array
        };
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let format = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if format != FORMAT {
            return Err(HeaderError::Format(format));
        }
        let (content, stored) = bytes.split_at(SIGNED_BYTES + 64);
        let hash = hash(content);
        if hash != stored {
            return Err(HeaderError::Hash);
        }
        let header = Header {
            number: number(12),
            first: number(20),
            wall_ms: number(28),
            key: PublicKey(array(36)),
            previous: array(68),
        };
        let mut signature = [0; 64];
        signature.copy_from_slice(&bytes[SIGNED_BYTES..SIGNED_BYTES + 64]);
        let signed = [HEADER_DOMAIN, &bytes[..SIGNED_BYTES]].concat();
        if !has_signed(&header.key, &signed, &signature) {
            return Err(HeaderError::Signature);
        }
        Ok((header, hash))
    }
}

/// A signature over everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The last entry that it seals.
    pub sequence: u64,
    /// How many entries there are since the seal before it.
    pub count: u64,
    /// When, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Over the hash before it, and the three numbers.
    pub signature: [u8; 64],
}

impl Seal {
    fn message(&self, head: &Hash) -> Vec<u8> {
        let mut message = Vec::with_capacity(SEAL_DOMAIN.len() + 56);
        message.extend_from_slice(SEAL_DOMAIN);
        message.extend_from_slice(head);
        for number in [self.sequence, self.count, self.wall_ms] {
            message.extend_from_slice(&number.to_le_bytes());
        }
        message
    }

    /// Signs a head.
    pub(super) fn new(signer: &Signer, head: &Hash, sequence: u64, count: u64, wall_ms: u64) -> Self {
        let mut seal = Seal {
            sequence,
            count,
            wall_ms,
            signature: [0; 64],
        };
        seal.signature = signer.sign(&seal.message(head));
        seal
    }

    /// Whether that key signed that head.
    pub(super) fn holds(&self, key: &PublicKey, head: &Hash) -> bool {
        has_signed(key, &self.message(head), &self.signature)
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        for number in [self.sequence, self.count, self.wall_ms] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        to.extend_from_slice(&self.signature);
    }

    /// Reads a seal; none when the length is another.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEAL_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let mut signature = [0; 64];
        signature.copy_from_slice(&bytes[24..]);
        Some(Seal {
            sequence: number(0),
            count: number(8),
            wall_ms: number(16),
            signature,
        })
    }
}

/// Which record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Entry,
    Seal,
}

/// Appends a record behind the hash that `to` ends with, and its own hash. Returns that.
pub(super) fn append(to: &mut Vec<u8>, kind: RecordKind, body: impl FnOnce(&mut Vec<u8>)) -> Hash {
    let start = to.len();
    to.extend_from_slice(&[0; 4]);
    to.push(match kind {
        RecordKind::Entry => 1,
        RecordKind::Seal => 2,
    });
    body(to);
    // Within the limit of a body, which four bytes hold.
    let length = (to.len() - start - FRAME_BYTES) as u32;
    to[start..start + 4].copy_from_slice(&length.to_le_bytes());
    let hash = hash(&to[start - 32..]);
    to.extend_from_slice(&hash);
    hash
}

/// A record as it lies in the file.
#[derive(Debug)]
pub(super) struct Raw<'a> {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Which.
    pub(super) kind: RecordKind,
    /// The 32 bytes before it, and it, without its own hash.
    pub(super) hashed: &'a [u8],
    /// What its hash is said to be.
    pub(super) stored: &'a Hash,
}

impl<'a> Raw<'a> {
    pub(super) fn body(&self) -> &'a [u8] {
        &self.hashed[32 + FRAME_BYTES..]
    }

    /// Where it ends in the file: `hashed` has the hash before it, and not its own, which is as long.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.hashed.len() as u64
    }

    /// Its hash behind another one than that before it in the file.
    pub(super) fn hash_after(&self, previous: &Hash) -> Hash {
        hash(&[previous, &self.hashed[32..]].concat())
    }
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A record, whatever its hash says.
    Record(Raw<'a>),
    /// The file ends in the middle of one.
    Torn,
    /// No record begins like this.
    Garbage,
    /// The file ends.
    End,
}

/// Reads a segment from somewhere to its end.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    buffer: Box<[u8]>,
    /// What of the buffer is read from the file and not given out; before `start` there are always the 32 bytes before it.
    start: usize,
    end: usize,
    /// Where `start` is in the file.
    offset: u64,
    /// Bytes that may still be read from the file.
    left: u64,
    over: bool,
}

impl Reader {
    /// Reads from a place where a record begins, with the hash before that. The file stands there.
    pub(super) fn new(file: File, offset: u64, previous: &Hash) -> Self {
        let mut buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        buffer[..32].copy_from_slice(previous);
        Self {
            file,
            buffer,
            start: 32,
            end: 32,
            offset,
            left: u64::MAX,
            over: false,
        }
    }

    /// Reads no further than to that byte of the file.
    pub(super) fn until(self, end: u64) -> Self {
        Self {
            left: end.saturating_sub(self.offset),
            ..self
        }
    }

    /// Where the next record begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads until there are that many bytes; false when the file ends before.
    fn want(&mut self, bytes: usize) -> io::Result<bool> {
        while self.end - self.start < bytes {
            if self.over {
                return Ok(false);
            }
            if self.start > BUFFER_BYTES / 2 {
                let keep = self.start - 32;
                self.buffer.copy_within(keep..self.end, 0);
                (self.start, self.end) = (32, self.end - keep);
            }
            let room = self.buffer.len() - self.end;
            let may = usize::try_from(self.left).unwrap_or(room).min(room);
            match self.file.read(&mut self.buffer[self.end..self.end + may]) {
                Ok(0) => self.over = true,
                Ok(read) => {
                    self.end += read;
                    self.left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next record. After anything else there is none.
    pub(super) fn step(&mut self) -> io::Result<Step<'_>> {
        if !self.want(FRAME_BYTES)? {
            return Ok(if self.end == self.start { Step::End } else { Step::Torn });
        }
        let frame = &self.buffer[self.start..];
        let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        let kind = match (frame[4], length) {
            (1, ENTRY_BYTES_MIN..=ENTRY_BYTES_MAX) => RecordKind::Entry,
            (2, SEAL_BYTES) => RecordKind::Seal,
            _ => return Ok(Step::Garbage),
        };
        if !self.want(FRAME_BYTES + length + 32)? {
            return Ok(Step::Torn);
        }
        let (from, hash_at) = (self.start - 32, self.start + FRAME_BYTES + length);
        let offset = self.offset;
        self.start = hash_at + 32;
        self.offset += (AROUND_BYTES + length) as u64;
        let hashed = &self.buffer[from..hash_at];
        let Some(stored) = self.buffer[hash_at..].first_chunk() else {
            return Ok(Step::Torn);
        };
        Ok(Step::Record(Raw {
            offset,
            kind,
            hashed,
            stored,
        }))
    }
}
