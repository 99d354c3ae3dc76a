//! `astrid:kernel/blob`: the content store, for the principal that a message is handled for.

use std::sync::Arc;

use super::bindings::astrid::kernel::blob::{BlobError, Host, Progress};
use crate::blob::{Address, BlobError as Fault, Blobs, PART_BYTES, UploadId};
use crate::capsule::guest::Guest;

impl From<Fault> for BlobError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotFound | Fault::NoUpload => Self::NotFound,
            Fault::Corrupted { .. } => Self::Corrupted(fault.to_string()),
            Fault::TooLarge(limit) => Self::TooLarge(limit),
            Fault::NoSpace { .. } => Self::NoSpace(fault.to_string()),
            Fault::WrongOffset(next) => Self::WrongOffset(next),
            Fault::Incomplete { has, .. } => Self::Incomplete(has),
            Fault::Mismatch { is, .. } => Self::Mismatch(is.to_string()),
            Fault::TooMany(limit) => Self::TooMany(limit),
            Fault::File { .. } => Self::Failed(fault.to_string()),
        }
    }
}

fn address(text: &str) -> Result<Address, BlobError> {
    text.parse()
        .map_err(|error: crate::blob::AddressError| BlobError::Invalid(format!("address: {error}")))
}

impl Guest {
    /// The store, if this may keep state.
    fn blobs(&self) -> Result<Arc<Blobs>, BlobError> {
        let host = self.host();
        let permit = host.gate.table(self.subject(), Arc::clone(&host.blobs));
        let permit = permit.map_err(|denied| BlobError::Denied(self.refused(denied).to_string()))?;
        Ok(permit.into_object())
    }

    /// Bytes that the principal may still keep.
    fn room(&self, blobs: &Blobs) -> Result<u64, BlobError> {
        let account = &self.payer.account;
        if !account.pays_for_storage() {
            return Ok(u64::MAX);
        }
        account
            .measure_storage()
            .map_err(|error| BlobError::Failed(error.to_string()))?;
        Ok(account.storage_room().saturating_sub(blobs.usage(&self.principal)))
    }
}

impl Host for Guest {
    fn begin(&mut self, size: u64, expected: Option<String>) -> Result<u64, BlobError> {
        let expected = expected.as_deref().map(address).transpose()?;
        let blobs = self.blobs()?;
        let room = self.room(&blobs)?;
        let UploadId(id) = blobs.begin(&self.principal, size, expected, room, self.now.wall_ms)?;
        Ok(id)
    }

    fn append(&mut self, upload: u64, offset: u64, bytes: Vec<u8>) -> Result<u64, BlobError> {
        if bytes.len() > PART_BYTES {
            return Err(BlobError::TooLarge(PART_BYTES as u64));
        }
        Ok(self
            .blobs()?
            .append(&self.principal, UploadId(upload), offset, &bytes)?)
    }

    fn status(&mut self, upload: u64) -> Result<Progress, BlobError> {
        let progress = self.blobs()?.progress(&self.principal, UploadId(upload))?;
        Ok(Progress {
            size: progress.size,
            next: progress.next,
        })
    }

    fn finish(&mut self, upload: u64) -> Result<String, BlobError> {
        let address = self.blobs()?.finish(&self.principal, UploadId(upload))?;
        Ok(address.to_string())
    }

    fn abort(&mut self, upload: u64) -> Result<(), BlobError> {
        Ok(self.blobs()?.abort(&self.principal, UploadId(upload))?)
    }

    fn size(&mut self, text: String) -> Result<u64, BlobError> {
        let address = address(&text)?;
        Ok(self.blobs()?.size(&self.principal, address)?)
    }

    fn read(&mut self, text: String, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        let address = address(&text)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(self.blobs()?.read(&self.principal, address, offset, length)?)
    }

    fn release(&mut self, text: String) -> Result<(), BlobError> {
        let address = address(&text)?;
        Ok(self.blobs()?.release(&self.principal, address)?)
    }
}
