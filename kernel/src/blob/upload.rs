//! Bytes that are being written, until they are a blob.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use astrid_wire::Principal;
use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt as _};

use super::disk::{self, Disk};
use super::error::BlobError;
use super::parts::{Address, HASH_BYTES, PART_BYTES, part_count, part_hash, part_hasher, root, single};

/// Bytes of what is written down about an upload.
const ABOUT_BYTES_MAX: usize = 1024;

/// What an upload's description begins with.
const ABOUT_MAGIC: &str = "astrid-upload 1";

/// Which upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub u64);

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
        number.map(Self).ok_or(())
    }
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that it will have.
    pub size: u64,
    /// The next byte that is to be written.
    pub next: u64,
}

/// What is known of an upload from its beginning.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) principal: Principal,
    pub(super) size: u64,
    pub(super) expected: Option<Address>,
    pub(super) begun_ms: u64,
}

impl About {
    fn write(&self) -> String {
        let expected = self
            .expected
            .map_or_else(|| "-".to_owned(), |address| address.to_string());
        let (principal, size, begun) = (&self.principal, self.size, self.begun_ms);
        format!("{ABOUT_MAGIC}\n{principal}\n{size}\n{expected}\n{begun}\n")
    }

    fn read(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != ABOUT_MAGIC {
            return None;
        }
        let about = Self {
            principal: Principal::stamped(lines.next()?).ok()?,
            size: lines.next()?.parse().ok()?,
            expected: match lines.next()? {
                "-" => None,
                address => Some(address.parse().ok()?),
            },
            begun_ms: lines.next()?.parse().ok()?,
        };
        lines.next().is_none().then_some(about)
    }
}

/// An upload.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) about: About,
    pub(super) directory: PathBuf,
    data: File,
    list: File,
    next: u64,
    /// The hashes of the whole parts, and the one that is begun.
    parts: Vec<ChainingValue>,
    part: Hasher,
    /// It is a blob, or was given up.
    pub(super) over: bool,
}

impl Upload {
    pub(super) fn data_path(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn list_path(&self) -> PathBuf {
        self.directory.join("parts")
    }

    /// Begins one. What is written about it comes last: a directory without that is rubbish.
    pub(super) fn begin(disk: &Disk, directory: PathBuf, about: About) -> io::Result<Self> {
        disk.make_dir(&directory)?;
        let data = disk.open(&directory.join("data"))?;
        let list = disk.open(&directory.join("parts"))?;
        disk.put(&directory.join("about"), about.write().as_bytes())?;
        disk.sync_dir(&directory)?;
        Ok(Self {
            about,
            directory,
            data,
            list,
            next: 0,
            parts: Vec::new(),
            part: part_hasher(0),
            over: false,
        })
    }

    /// Goes on with one that an earlier daemon began, if it is not too old: after the last whole part that verifies.
    pub(super) fn resume(disk: &Disk, directory: &Path, (now_ms, age_ms_max): (u64, u64)) -> io::Result<Option<Self>> {
        let about = disk::small(&directory.join("about"), ABOUT_BYTES_MAX)?;
        let Some(about) = std::str::from_utf8(&about).ok().and_then(About::read) else {
            return Ok(None);
        };
        let too_old = now_ms.saturating_sub(about.begun_ms) > age_ms_max;
        // Without its data it has become a blob.
        if too_old || disk::reading(&directory.join("data")).is_err() {
            return Ok(None);
        }
        let data = disk.open(&directory.join("data"))?;
        let list = disk.open(&directory.join("parts"))?;
        let mut parts = Vec::new();
        let mut bytes = vec![0; PART_BYTES];
        for index in 0..about.size / PART_BYTES as u64 {
            let mut hash = [0; HASH_BYTES];
            let told = disk::read_at(&list, &mut hash, index * HASH_BYTES as u64)?;
            let read = disk::read_at(&data, &mut bytes, index * PART_BYTES as u64)?;
            if told < HASH_BYTES || read < PART_BYTES || hash != part_hash(index, &bytes) {
                break;
            }
            parts.push(hash);
        }
        let index = parts.len() as u64;
        let next = index * PART_BYTES as u64;
        disk.set_length(&data, next)?;
        disk.set_length(&list, index * HASH_BYTES as u64)?;
        Ok(Some(Self {
            about,
            directory: directory.to_owned(),
            data,
            list,
            next,
            parts,
            part: part_hasher(index),
            over: false,
        }))
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            size: self.about.size,
            next: self.next,
        }
    }

    /// Writes at most a part's bytes where the last ones ended. After an error it is as it was before.
    pub(super) fn append(&mut self, disk: &Disk, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        if bytes.len() > PART_BYTES {
            return Err(BlobError::TooLarge(PART_BYTES as u64));
        }
        if offset != self.next {
            return Err(BlobError::WrongOffset(self.next));
        }
        if self.about.size - self.next < bytes.len() as u64 {
            return Err(BlobError::TooLarge(self.about.size));
        }
        let written = |error| wrote(error, "writing an upload");
        disk.write_at(&self.data, bytes, offset).map_err(written)?;
        let in_part = usize::try_from(self.next % PART_BYTES as u64).unwrap_or(0);
        let (first, second) = bytes.split_at(bytes.len().min(PART_BYTES - in_part));
        let mut part = self.part.clone();
        part.update(first);
        if in_part + first.len() == PART_BYTES && self.about.size > PART_BYTES as u64 {
            let index = self.parts.len() as u64;
            let hash = part.finalize_non_root();
            disk.write_at(&self.list, &hash, index * HASH_BYTES as u64)
                .map_err(written)?;
            self.parts.push(hash);
            part = part_hasher(index + 1);
            part.update(second);
        }
        self.part = part;
        self.next += bytes.len() as u64;
        Ok(self.next)
    }

    /// The address of what was written, all of which is on disk then, the list of its parts with it.
    pub(super) fn complete(&mut self, disk: &Disk) -> Result<Address, BlobError> {
        let size = self.about.size;
        if self.next < size {
            return Err(BlobError::Incomplete { has: self.next, size });
        }
        let written = |error| wrote(error, "finishing an upload");
        let count = part_count(size);
        let address = match count {
            0 => single(&self.part),
            _ => {
                if (self.parts.len() as u64) < count {
                    let hash = self.part.finalize_non_root();
                    let index = self.parts.len() as u64;
                    disk.write_at(&self.list, &hash, index * HASH_BYTES as u64)
                        .map_err(written)?;
                    self.parts.push(hash);
                }
                root(&self.parts, size)
            }
        };
        disk.sync(&self.data).map_err(written)?;
        disk.sync(&self.list).map_err(written)?;
        Ok(address)
    }
}

/// What is told of a write that failed.
pub(super) fn wrote(error: io::Error, what: &'static str) -> BlobError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => BlobError::NoSpace {
            free: 0,
            whose: "on the disk".to_owned(),
        },
        _ => BlobError::File { what, source: error },
    }
}
