//! The content store in a backup.
//!
//! Each blob that somebody has is in it under the name that it has in the home, the list of its parts beside it, and for each who has it an empty
//! file: the form that the store has on disk, without its uploads. A blob's hash in the list of the backup is its address, so nothing has to be
//! trusted to say what it should be.
//!
//! While the daemon runs, all that was there when the backup began stays until it is packed ([`Pinned`]): blobs are read where they are, and not
//! copied. What is spoilt on disk is left out, with who has it, and told: one rotten blob must not cost the backup of everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::create::{BackupError, Found, Gathered, io_at};
use super::fault::Fault;
use super::{Entry, bad_name};
use crate::blob::pin::{self, Named, Pinned, Saved};
use crate::blob::{Address, BlobError, Held};
use crate::home::PRIVATE_FILE;

/// Where the content store is in a home, and in a backup.
pub(super) const BLOBS: &str = "var/blobs";

/// BLAKE3 of nothing: what a reference contains.
fn nothing() -> String {
    blake3::hash(b"").to_hex().to_string()
}

/// Who knows which blobs there are.
pub(super) enum Shelf<'a> {
    /// A store in use.
    Online(&'a Pinned<'a>),
    /// The directory of one that nobody uses.
    AtRest(PathBuf),
}

impl Shelf<'_> {
    fn list(&self) -> Result<Vec<Saved>, BackupError> {
        match self {
            Self::Online(pinned) => Ok(pinned.list()),
            Self::AtRest(root) => pin::at_rest(root).map_err(io_at("list", root)),
        }
    }

    fn verify(&self, held: Held) -> Result<(), String> {
        match self {
            Self::Online(pinned) => match pinned.verify(held) {
                Err(BlobError::Corrupted { what, .. }) => Err(what),
                verified => verified.map_err(|error| error.to_string()),
            },
            Self::AtRest(root) => pin::verify_at_rest(root, held),
        }
    }
}

/// What of the content store is not in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Which blob.
    pub address: Address,
    /// What is wrong with it.
    pub what: String,
}

impl Gathered<'_> {
    /// Finds all blobs, each of them read and verified.
    pub(super) fn blobs(&mut self, shelf: &Shelf<'_>) -> Result<(u64, Vec<LeftOut>), BackupError> {
        let (mut count, mut left_out) = (0, Vec::new());
        for Saved { held, holders } in shelf.list()? {
            if let Err(what) = shelf.verify(held) {
                let address = held.address;
                tracing::error!(%address, what, "a blob is corrupted on disk, and not in the backup");
                left_out.push(LeftOut { address, what });
                continue;
            }
            let object = Named::Object(held.address);
            let entry = self.entry(&object, held.size, held.address.to_string());
            let at = self.root.join(BLOBS).join(object.path());
            self.push(Found { entry, at })?;
            if pin::has_parts(held.size) {
                let parts = Named::Parts(held.address);
                let at = self.root.join(BLOBS).join(parts.path());
                self.add(at, self.name(&parts), true)?;
            }
            for holder in holders {
                let entry = self.entry(&Named::Reference(holder, held.address), 0, nothing());
                self.push(Found {
                    entry,
                    at: "/dev/null".into(),
                })?;
            }
            count += 1;
        }
        Ok((count, left_out))
    }

    fn name(&self, named: &Named) -> String {
        format!("{BLOBS}/{}", named.path().display())
    }

    fn entry(&self, named: &Named, bytes: u64, blake3: String) -> Entry {
        Entry {
            path: self.name(named),
            mode: PRIVATE_FILE,
            bytes,
            blake3,
        }
    }
}

/// What a list says of the content store.
#[derive(Debug, Default)]
pub(super) struct Listed {
    objects: BTreeMap<Address, u64>,
    parts: BTreeSet<Address>,
    references: BTreeSet<Address>,
}

impl Listed {
    /// Takes in one file, if it is one of the content store.
    pub(super) fn add(&mut self, entry: &Entry) -> Result<(), Fault> {
        let below = entry.path.strip_prefix(BLOBS).and_then(|rest| rest.strip_prefix('/'));
        let Some(name) = below else { return Ok(()) };
        match Named::of(name).ok_or_else(|| bad_name(&entry.path, "that is no file of the content store"))? {
            Named::Object(address) if entry.blake3 != address.to_string() => {
                return Err(bad_name(&entry.path, "its content would be another blob"));
            }
            Named::Object(address) => _ = self.objects.insert(address, entry.bytes),
            Named::Parts(address) => _ = self.parts.insert(address),
            Named::Reference(..) if entry.bytes != 0 => {
                return Err(bad_name(&entry.path, "a reference is an empty file"));
            }
            Named::Reference(_, address) => _ = self.references.insert(address),
        }
        Ok(())
    }

    /// That nobody has what is not there, and that what is there is whole.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let missing = |address: &Address, what| {
            let name = Named::Object(*address).path();
            bad_name(&format!("{BLOBS}/{}", name.display()), what)
        };
        if let Some(address) = self.references.iter().find(|one| !self.objects.contains_key(one)) {
            return Err(missing(address, "somebody has that blob, and it is not in it"));
        }
        for (address, size) in &self.objects {
            if pin::has_parts(*size) != self.parts.contains(address) {
                return Err(missing(address, "it and the list of its parts do not belong together"));
            }
        }
        match self.parts.iter().find(|one| !self.objects.contains_key(one)) {
            Some(address) => Err(missing(address, "there is only the list of its parts")),
            None => Ok(()),
        }
    }

    /// The blob whose list of parts that file is.
    pub(super) fn parts_of(&self, path: &str) -> Option<Held> {
        let name = path.strip_prefix(BLOBS)?.strip_prefix('/')?;
        match Named::of(name)? {
            Named::Parts(address) => self.objects.get(&address).map(|size| Held { address, size: *size }),
            _ => None,
        }
    }
}
