//! The content store of the fake kernel: in memory, with the limits and the errors of `wit/blob.wit`.

use std::collections::BTreeMap;

use super::Harness;
use super::host::Host;
use crate::bindings::astrid::kernel::blob::{BlobError, Progress};
use crate::dispatch::Capsule;

/// Limits of the contract: bytes of a blob and of a part, uploads of a principal.
const BLOB_BYTES_MAX: u64 = 100_000_000;
const PART_BYTES_MAX: usize = 1 << 20;
const UPLOADS_MAX: usize = 16;

/// Bytes of an address.
const ADDRESS_BYTES: usize = 64;

#[derive(Debug)]
struct Upload {
    principal: String,
    size: u64,
    expected: Option<String>,
    bytes: Vec<u8>,
}

/// What is kept, by principal and address, and what is being written.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    kept: BTreeMap<(String, String), Vec<u8>>,
    corrupted: Vec<String>,
    uploads: BTreeMap<u64, Upload>,
    last: u64,
}

fn address(text: &str) -> Result<(), BlobError> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match digits && text.len() == ADDRESS_BYTES {
        true => Ok(()),
        false => Err(BlobError::Invalid(
            "address: an address is 64 hexadecimal digits in lower case".to_owned(),
        )),
    }
}

/// The functions of the contract.
impl Host {
    fn check_blobs(&self) -> Result<String, BlobError> {
        match self.lacks(|manifest| manifest.capabilities.kv.is_some()) {
            true => Err(BlobError::Denied("kv: [capabilities] kv is not asked for".to_owned())),
            false => Ok(self.principal().to_owned()),
        }
    }

    fn blob_upload(&mut self, id: u64) -> Result<&mut Upload, BlobError> {
        let who = self.check_blobs()?;
        let upload = self.blobs.uploads.get_mut(&id).filter(|upload| upload.principal == who);
        upload.ok_or(BlobError::NotFound)
    }

    pub(super) fn blob_begin(&mut self, size: u64, expected: Option<&str>) -> Result<u64, BlobError> {
        expected.map_or(Ok(()), address)?;
        let principal = self.check_blobs()?;
        if size > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(BLOB_BYTES_MAX));
        }
        let open = self
            .blobs
            .uploads
            .values()
            .filter(|upload| upload.principal == principal);
        if open.count() >= UPLOADS_MAX {
            return Err(BlobError::TooMany(UPLOADS_MAX as u32));
        }
        self.blobs.last += 1;
        let upload = Upload {
            principal,
            size,
            expected: expected.map(str::to_owned),
            bytes: Vec::new(),
        };
        self.blobs.uploads.insert(self.blobs.last, upload);
        Ok(self.blobs.last)
    }

    pub(super) fn blob_append(&mut self, id: u64, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        if bytes.len() > PART_BYTES_MAX {
            return Err(BlobError::TooLarge(PART_BYTES_MAX as u64));
        }
        let upload = self.blob_upload(id)?;
        let next = upload.bytes.len() as u64;
        if offset != next {
            return Err(BlobError::WrongOffset(next));
        }
        if upload.size - next < bytes.len() as u64 {
            return Err(BlobError::TooLarge(upload.size));
        }
        upload.bytes.extend_from_slice(bytes);
        Ok(upload.bytes.len() as u64)
    }

    pub(super) fn blob_status(&mut self, id: u64) -> Result<Progress, BlobError> {
        let upload = self.blob_upload(id)?;
        Ok(Progress {
            size: upload.size,
            next: upload.bytes.len() as u64,
        })
    }

    pub(super) fn blob_finish(&mut self, id: u64) -> Result<String, BlobError> {
        let upload = self.blob_upload(id)?;
        let has = upload.bytes.len() as u64;
        if has < upload.size {
            return Err(BlobError::Incomplete(has));
        }
        let Some(upload) = self.blobs.uploads.remove(&id) else {
            return Err(BlobError::NotFound);
        };
        let is = blake3::hash(&upload.bytes).to_hex().to_string();
        if upload.expected.as_ref().is_some_and(|expected| *expected != is) {
            return Err(BlobError::Mismatch(is));
        }
        self.blobs.corrupted.retain(|other| *other != is);
        self.blobs.kept.insert((upload.principal, is.clone()), upload.bytes);
        Ok(is)
    }

    pub(super) fn blob_abort(&mut self, id: u64) -> Result<(), BlobError> {
        self.blob_upload(id)?;
        self.blobs.uploads.remove(&id);
        Ok(())
    }

    fn blob(&self, text: &str) -> Result<&Vec<u8>, BlobError> {
        address(text)?;
        let key = (self.check_blobs()?, text.to_owned());
        self.blobs.kept.get(&key).ok_or(BlobError::NotFound)
    }

    pub(super) fn blob_size(&self, text: &str) -> Result<u64, BlobError> {
        Ok(self.blob(text)?.len() as u64)
    }

    pub(super) fn blob_read(&self, text: &str, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        if length as usize > PART_BYTES_MAX {
            return Err(BlobError::TooLarge(PART_BYTES_MAX as u64));
        }
        let bytes = self.blob(text)?;
        if self.blobs.corrupted.iter().any(|other| other == text) {
            return Err(BlobError::Corrupted(format!("the blob {text} is corrupted on disk")));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(length as usize).min(bytes.len());
        Ok(bytes[start..end].to_vec())
    }

    pub(super) fn blob_release(&mut self, text: &str) -> Result<(), BlobError> {
        self.blob(text)?;
        let key = (self.check_blobs()?, text.to_owned());
        self.blobs.kept.remove(&key);
        Ok(())
    }
}

/// The content store.
impl<C: Capsule> Harness<C> {
    /// The addresses of what a principal has, in order.
    pub fn blobs(&self, principal: &str) -> Vec<String> {
        let kept = self.host.blobs.kept.keys().filter(|(whose, _)| whose == principal);
        kept.map(|(_, address)| address.clone()).collect()
    }

    /// From now on a blob is corrupted on disk, until it is written anew.
    pub fn corrupt_blob(&mut self, address: &str) {
        self.host.blobs.corrupted.push(address.to_owned());
    }
}
