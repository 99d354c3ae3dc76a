//! What principals have: reading it, verified, sharing it, and giving it up.

use astrid_wire::Principal;

use super::error::BlobError;
use super::object::{Place, Reader};
use super::parts::{Address, PART_BYTES};
use super::store::{Blobs, locked};
use super::upload::UploadId;

/// A blob that a principal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its address.
    pub address: Address,
    /// Its bytes.
    pub size: u64,
}

/// Reading, and giving up.
impl Blobs {
    fn size_of(&self, principal: &Principal, address: Address) -> Result<u64, BlobError> {
        let state = locked(&self.state);
        let kept = state.kept.get(&address).filter(|kept| kept.holders.contains(principal));
        kept.map(|kept| kept.size).ok_or(BlobError::NotFound)
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn size(&self, principal: &Principal, address: Address) -> Result<u64, BlobError> {
        self.size_of(principal, address)
    }

    /// At most [`PART_BYTES`] of a blob, verified. Fewer only at its end.
    ///
    /// # Errors
    /// Not there, or [`BlobError::Corrupted`].
    pub fn read(
        &self,
        principal: &Principal,
        address: Address,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, BlobError> {
        if length > PART_BYTES {
            return Err(BlobError::TooLarge(PART_BYTES as u64));
        }
        let size = self.size_of(principal, address)?;
        let place = Place::of(&self.objects(), address);
        let read = Reader::open(&place, address, size).and_then(|reader| reader.range(offset, length));
        read.map_err(|what| self.corrupted(address, what))
    }

    /// Remembers what is wrong with a blob, so that whoever writes it anew repairs it.
    fn corrupted(&self, address: Address, what: String) -> BlobError {
        match locked(&self.state).kept.get_mut(&address) {
            Some(kept) => {
                let first = kept.wrong.replace(what.clone()).is_none();
                BlobError::Corrupted { address, what, first }
            }
            // It was given up meanwhile.
            None => BlobError::NotFound,
        }
    }

    /// Reads all of a blob, whoever has it.
    ///
    /// # Errors
    /// [`BlobError::Corrupted`]; [`BlobError::NotFound`] if nobody has it any more.
    pub(super) fn verify(&self, address: Address, size: u64) -> Result<(), BlobError> {
        let place = Place::of(&self.objects(), address);
        let verified = Reader::open(&place, address, size).and_then(|reader| reader.verify());
        verified.map_err(|what| self.corrupted(address, what))
    }

    /// Reads everything that is kept, and tells what is corrupted.
    pub fn verify_all(&self) -> Vec<BlobError> {
        let all: Vec<(Address, u64)> = locked(&self.state)
            .kept
            .iter()
            .map(|(a, kept)| (*a, kept.size))
            .collect();
        let verified = all
            .into_iter()
            .filter_map(|(address, size)| self.verify(address, size).err());
        verified.filter(|error| !matches!(error, BlobError::NotFound)).collect()
    }

    /// Lets another have a blob, too.
    ///
    /// # Errors
    /// The first does not have it, the second has no room for it, or the disk refused.
    pub fn share(&self, from: &Principal, to: &Principal, address: Address, room: u64) -> Result<(), BlobError> {
        let _changing = locked(&self.changing);
        let size = self.size_of(from, address)?;
        if size > room && self.size_of(to, address).is_err() {
            let whose = format!("for {to}");
            return Err(BlobError::NoSpace { free: room, whose });
        }
        self.refer(to, address).map_err(BlobError::file("sharing a blob"))?;
        if let Some(kept) = locked(&self.state).kept.get_mut(&address) {
            kept.holders.insert(to.clone());
        }
        Ok(())
    }

    /// A principal gives a blob up; when nobody has it any more, it is removed.
    ///
    /// # Errors
    /// Not there, or the disk refused.
    pub fn release(&self, principal: &Principal, address: Address) -> Result<(), BlobError> {
        let _changing = locked(&self.changing);
        let size = self.size_of(principal, address)?;
        let directory = self.references().join(principal.as_str());
        let removed = self.disk.remove(&directory.join(address.to_string()));
        let removed = removed.and_then(|()| self.disk.sync_dir(&directory));
        removed.map_err(BlobError::file("giving a blob up"))?;
        if self.give_up(principal, Held { address, size }) {
            // What stays is nobody's, and is removed at the next start.
            self.remove_object(address)
                .map_err(BlobError::file("removing a blob"))?;
        }
        Ok(())
    }

    /// Notes that a principal does not have a blob any more. Whether it is to be removed now.
    fn give_up(&self, principal: &Principal, held: Held) -> bool {
        let mut state = locked(&self.state);
        let Some(kept) = state.kept.get_mut(&held.address) else {
            return false;
        };
        kept.holders.remove(principal);
        let nobodys = kept.holders.is_empty();
        if nobodys {
            state.kept.remove(&held.address);
        }
        let stays = state
            .pin
            .as_mut()
            .is_some_and(|pin| pin.gives_up(principal, held, nobodys));
        nobodys && !stays
    }

    /// A principal gives up everything, its uploads too.
    ///
    /// # Errors
    /// The disk refused; what is left can be given up again.
    pub fn release_all(&self, principal: &Principal) -> Result<(), BlobError> {
        for held in self.list(principal, None, usize::MAX) {
            self.release(principal, held.address)?;
        }
        let uploads: Vec<UploadId> = locked(&self.state)
            .uploads
            .iter()
            .filter(|(_, (whose, _, _))| whose == principal)
            .map(|(id, _)| *id)
            .collect();
        for id in uploads {
            self.abort(principal, id)?;
        }
        let removed = self.disk.remove_dir(&self.references().join(principal.as_str()));
        removed.map_err(BlobError::file("giving everything up"))
    }

    /// What a principal has, in the order of the addresses, after that one.
    pub fn list(&self, principal: &Principal, after: Option<Address>, max: usize) -> Vec<Held> {
        let state = locked(&self.state);
        let beyond = state
            .kept
            .iter()
            .filter(|(address, _)| after.is_none_or(|after| **address > after));
        let held = beyond.filter(|(_, kept)| kept.holders.contains(principal));
        held.take(max)
            .map(|(address, kept)| Held {
                address: *address,
                size: kept.size,
            })
            .collect()
    }

    /// Bytes that a principal has, and has announced: what its quota counts. What several have counts for each.
    pub fn usage(&self, principal: &Principal) -> u64 {
        let state = locked(&self.state);
        let held = state.kept.values().filter(|kept| kept.holders.contains(principal));
        let coming = state.uploads.values().filter(|(whose, _, _)| whose == principal);
        held.map(|kept| kept.size).sum::<u64>() + coming.map(|(_, size, _)| size).sum::<u64>()
    }
}
