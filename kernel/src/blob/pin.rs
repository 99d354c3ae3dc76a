//! What a backup needs: everything that was there at one moment, for as long as it takes to read it.
//!
//! A backup first takes a [`Pinned`], then a checkpoint of the store, then [`Pinned::list`]: so each address that the checkpoint knows is in the list,
//! whoever gives up a blob meanwhile. What is given up stays on disk until the backup has it, and counts as kept for so long. Blobs do not
//! change, so nothing is copied for this. Uploads are no part of it.
//!
//! A store at rest is listed by [`at_rest`], which changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use astrid_wire::Principal;

use super::disk;
use super::error::BlobError;
use super::held::Held;
use super::object::{PARTS_SUFFIX, Place, Reader};
use super::parts::{Address, HASH_BYTES, part_count, root};
use super::store::{Blobs, locked};

/// What must stay although it is given up.
#[derive(Debug, Default)]
pub(super) struct Pin {
    /// What a backup reads; all that there is, as long as that is not decided.
    listed: Option<BTreeSet<Address>>,
    /// References that were given up before it was.
    given_up: Vec<(Principal, Held)>,
    /// Blobs that nobody has any more, and that stay until the end.
    leaving: BTreeMap<Address, u64>,
}

impl Pin {
    /// Somebody gives up a blob. Whether that stays on the disk.
    pub(super) fn gives_up(&mut self, principal: &Principal, held: Held, nobodys: bool) -> bool {
        let stays = self.listed.as_ref().is_none_or(|listed| listed.contains(&held.address));
        if self.listed.is_none() {
            self.given_up.push((principal.clone(), held));
        }
        if stays && nobodys {
            self.leaving.insert(held.address, held.size);
        }
        stays
    }

    pub(super) fn leaving_bytes(&self) -> u64 {
        self.leaving.values().sum()
    }

    pub(super) fn given_up(&self) -> usize {
        self.given_up.len()
    }
}

/// A blob that is to be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Which.
    pub held: Held,
    /// Who has it.
    pub holders: BTreeSet<Principal>,
}

/// A store of which nothing goes.
#[derive(Debug)]
#[must_use = "what is given up goes when this does"]
pub struct Pinned<'a>(&'a Blobs);

impl Blobs {
    /// From now on nothing goes from the disk. `None`: that is so already, for another backup.
    pub fn pin(&self) -> Option<Pinned<'_>> {
        let mut state = locked(&self.state);
        if state.pin.is_some() {
            return None;
        }
        state.pin = Some(Pin::default());
        Some(Pinned(self))
    }
}

impl Pinned<'_> {
    /// What there is, and was since it was pinned. What comes later may go again.
    #[must_use]
    pub fn list(&self) -> Vec<Saved> {
        let mut state = locked(&self.0.state);
        let mut all: BTreeMap<Address, Saved> = BTreeMap::new();
        for (address, kept) in &state.kept {
            let held = Held {
                address: *address,
                size: kept.size,
            };
            let holders = kept.holders.clone();
            all.insert(*address, Saved { held, holders });
        }
        if let Some(pin) = &mut state.pin {
            for (principal, held) in pin.given_up.drain(..) {
                let holders = BTreeSet::new();
                let saved = all.entry(held.address).or_insert(Saved { held, holders });
                saved.holders.insert(principal);
            }
            pin.listed = Some(all.keys().copied().collect());
        }
        all.into_values().collect()
    }

    /// Reads all of a blob.
    ///
    /// # Errors
    /// [`BlobError::Corrupted`].
    pub fn verify(&self, held: Held) -> Result<(), BlobError> {
        match self.0.verify(held.address, held.size) {
            // Nobody has it any more, and it is wrong.
            Err(BlobError::NotFound) => Err(BlobError::Corrupted {
                address: held.address,
                what: "it was spoilt when it was given up".to_owned(),
                first: true,
            }),
            verified => verified,
        }
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let _changing = locked(&self.0.changing);
        let mut state = locked(&self.0.state);
        let leaving = state.pin.take().map(|pin| pin.leaving).unwrap_or_default();
        // Somebody may have written it anew.
        let gone = leaving.into_keys().filter(|address| !state.kept.contains_key(address));
        let gone: Vec<Address> = gone.collect();
        drop(state);
        for address in gone {
            if let Err(error) = self.0.remove_object(address) {
                tracing::warn!(%address, %error, "a blob that nobody has stays until the next start");
            }
        }
    }
}

/// What is in the store in that directory, which nobody uses: blobs with a reference, in the order of their addresses.
///
/// # Errors
/// The disk refused.
pub fn at_rest(root: &Path) -> io::Result<Vec<Saved>> {
    let references = root.join("references");
    let mut all: BTreeMap<Address, Saved> = BTreeMap::new();
    for (name, _) in disk::names(&references)? {
        let Ok(principal) = Principal::stamped(&name) else {
            continue;
        };
        for (name, _) in disk::names(&references.join(&name))? {
            let Ok(address) = name.parse::<Address>() else { continue };
            if let Some(saved) = all.get_mut(&address) {
                saved.holders.insert(principal.clone());
                continue;
            }
            let size = match disk::reading(&Place::of(&root.join("objects"), address).object) {
                Ok(object) => object.metadata()?.len(),
                // The reference comes first: its upload was not finished.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let saved = Saved {
                held: Held { address, size },
                holders: BTreeSet::from([principal.clone()]),
            };
            all.insert(address, saved);
        }
    }
    Ok(all.into_values().collect())
}

/// Reads all of a blob of a store that nobody uses.
///
/// # Errors
/// What is wrong with it.
pub fn verify_at_rest(root: &Path, Held { address, size }: Held) -> Result<(), String> {
    let place = Place::of(&root.join("objects"), address);
    Reader::open(&place, address, size).and_then(|reader| reader.verify())
}

/// What a file of the store is, by its name below the store's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A blob.
    Object(Address),
    /// The list of its parts.
    Parts(Address),
    /// That somebody has it: an empty file.
    Reference(Principal, Address),
}

impl Named {
    /// Its name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Object(address) => Place::of(Path::new("objects"), *address).object,
            Self::Parts(address) => Place::of(Path::new("objects"), *address).parts,
            Self::Reference(principal, address) => ["references", principal.as_str(), &address.to_string()]
                .iter()
                .collect(),
        }
    }

    /// What has that name, if it is one that a store has.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let (first, last) = name.rsplit_once('/')?;
        let named = match first.strip_prefix("references/") {
            Some(principal) => Self::Reference(Principal::stamped(principal).ok()?, last.parse().ok()?),
            None => match last.strip_suffix(PARTS_SUFFIX) {
                Some(address) => Self::Parts(address.parse().ok()?),
                None => Self::Object(last.parse().ok()?),
            },
        };
        (named.path().to_str() == Some(name)).then_some(named)
    }
}

/// Whether a blob has a list of parts.
#[must_use]
pub fn has_parts(size: u64) -> bool {
    part_count(size) > 0
}

/// Whether these bytes are the list of the parts of that blob.
#[must_use]
pub fn are_parts(list: &[u8], Held { address, size }: Held) -> bool {
    let (parts, rest) = list.as_chunks::<HASH_BYTES>();
    rest.is_empty() && has_parts(size) && parts.len() as u64 == part_count(size) && root(parts, size) == address
}
