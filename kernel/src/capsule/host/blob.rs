//! `astrid:kernel/blob`: the content store, for the principal that a message is handled for.
//!
//! What looks only is done where it is called; what waits for the disk or for an upload, or hashes more than a little, by a thread of the runtime's
//! pool ([`Guest::aside`]). A change is recorded there before it happens, and counted there when it has, so that both are right also where a handling
//! does not wait for its end.

mod told;

use std::sync::Arc;

use self::told::Teller;
use super::bindings::astrid::kernel::blob::{BlobError, Host, Progress};
use crate::blob::{Address, BlobError as Fault, Blobs, Held, PART_BYTES, UploadId};
use crate::capsule::files::{Files, NotAnnounced, Owned};
use crate::capsule::guest::Guest;
use crate::ledger::Account;

/// Bytes of a blob that is read where it is asked for, at most: reading and hashing them takes less than going to another thread and back.
const QUICK_BYTES_MAX: usize = 64 << 10;

fn address(text: &str) -> Result<Address, BlobError> {
    text.parse()
        .map_err(|error: crate::blob::AddressError| BlobError::Invalid(format!("address: {error}")))
}

/// Who does something with blobs: all that a thread of the pool needs.
#[derive(Clone)]
struct Shelf {
    blobs: Arc<Blobs>,
    files: Arc<Files>,
    owned: Arc<Owned>,
    account: Arc<Account>,
    teller: Teller,
}

impl Shelf {
    /// What there is has changed.
    fn recount(&self) {
        self.owned.recount_blobs(&self.files, &self.account);
    }

    fn begin(&self, size: u64, expected: Option<Address>, now_ms: u64) -> Result<UploadId, NotAnnounced> {
        let who = self.account.principal();
        let begin = |room| self.blobs.begin(who, size, expected, room, now_ms);
        self.owned.announce_blob(&self.files, &self.account, size, begin)
    }

    fn finish(&self, upload: UploadId) -> Result<Address, Fault> {
        let who = self.account.principal();
        let mut recorded = None;
        let finished = self.blobs.finish(who, upload, |held| {
            self.teller.happens("blob.keep", held)?;
            recorded = Some(held);
            Ok(())
        });
        self.recount();
        match (&finished, recorded) {
            (Err(fault), Some(held)) => self.teller.not_done("blob.keep", held, fault),
            (Err(fault), None) => self.teller.refused(fault),
            (Ok(held), _) => self.teller.kept(*held),
        }
        finished.map(|held| held.address)
    }

    fn release(&self, address: Address) -> Result<(), Fault> {
        let who = self.account.principal();
        let size = self.blobs.size(who, address)?;
        let held = Held { address, size };
        self.teller.happens("blob.release", held).map_err(Fault::Unrecorded)?;
        let released = self.blobs.release(who, address);
        self.recount();
        released
            .inspect(|()| self.teller.released())
            .inspect_err(|fault| self.teller.not_done("blob.release", held, fault))
    }

    fn read(&self, address: Address, offset: u64, length: usize) -> Result<Vec<u8>, Fault> {
        let read = self.blobs.read(self.account.principal(), address, offset, length);
        read.inspect_err(|fault| self.teller.spoilt(fault))
    }
}

impl Guest {
    /// The store, if this may keep state.
    fn blobs(&self) -> Result<Arc<Blobs>, BlobError> {
        let host = self.host();
        let permit = host.gate.table(self.subject(), Arc::clone(&host.blobs));
        let permit = permit.map_err(|denied| BlobError::Denied(self.refused(denied).to_string()))?;
        Ok(permit.into_object())
    }

    fn shelf(&self) -> Result<Shelf, BlobError> {
        let files = Arc::clone(&self.host().files);
        Ok(Shelf {
            blobs: self.blobs()?,
            owned: files.of(&self.principal),
            files,
            account: Arc::clone(&self.payer.account),
            teller: Teller::of(self),
        })
    }
}

impl Host for Guest {
    async fn begin(&mut self, size: u64, expected: Option<String>) -> Result<u64, BlobError> {
        let expected = expected.as_deref().map(address).transpose()?;
        let (shelf, now_ms) = (self.shelf()?, self.now.wall_ms);
        let teller = shelf.teller.clone();
        let begun = self.aside(move || shelf.begin(size, expected, now_ms)).await?;
        match &begun {
            // Told as a quota's, also to who asked for all of this.
            Err(NotAnnounced::Quota(exceeded)) => drop(self.over(exceeded.clone())),
            Err(NotAnnounced::Blob(fault)) => teller.refused(fault),
            _ => {}
        }
        Ok(begun?.0)
    }

    async fn append(&mut self, upload: u64, offset: u64, bytes: Vec<u8>) -> Result<u64, BlobError> {
        if bytes.len() > PART_BYTES {
            return Err(BlobError::TooLarge(PART_BYTES as u64));
        }
        let (blobs, who) = (self.blobs()?, self.principal.clone());
        let append = move || blobs.append(&who, UploadId(upload), offset, &bytes);
        Ok(self.aside(append).await??)
    }

    async fn status(&mut self, upload: u64) -> Result<Progress, BlobError> {
        let (blobs, who) = (self.blobs()?, self.principal.clone());
        // What an earlier handling did not wait for may still write to it.
        let progress = self.aside(move || blobs.progress(&who, UploadId(upload))).await??;
        Ok(Progress {
            size: progress.size,
            next: progress.next,
        })
    }

    async fn finish(&mut self, upload: u64) -> Result<String, BlobError> {
        let shelf = self.shelf()?;
        let address = self.aside(move || shelf.finish(UploadId(upload))).await??;
        Ok(address.to_string())
    }

    async fn abort(&mut self, upload: u64) -> Result<(), BlobError> {
        let shelf = self.shelf()?;
        let abort = move || {
            let aborted = shelf.blobs.abort(shelf.account.principal(), UploadId(upload));
            shelf.recount();
            aborted
        };
        Ok(self.aside(abort).await??)
    }

    async fn size(&mut self, text: String) -> Result<u64, BlobError> {
        let address = address(&text)?;
        Ok(self.blobs()?.size(&self.principal, address)?)
    }

    async fn read(&mut self, text: String, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        let address = address(&text)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let shelf = self.shelf()?;
        // However little is asked for, a whole part is read and hashed.
        let quick = shelf.blobs.size(&self.principal, address)? <= QUICK_BYTES_MAX as u64;
        let read = move || shelf.read(address, offset, length);
        Ok(if quick { read() } else { self.aside(read).await? }?)
    }

    async fn release(&mut self, text: String) -> Result<(), BlobError> {
        let address = address(&text)?;
        let shelf = self.shelf()?;
        Ok(self.aside(move || shelf.release(address)).await??)
    }
}
