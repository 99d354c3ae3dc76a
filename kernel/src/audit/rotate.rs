//! Another key signs: the old one seals an entry that names the new one, and the new one signs both names (K22).

use super::entry::{Entry, Kind, View};
use astrid_wire::proof::PublicKey;

use super::key::{Signer, has_signed};
use super::segment::rotation;

/// What the entry is called.
const ACTION: &str = "audit.rotate";

/// The entry: it names the new key, and holds its signature.
pub(super) fn entry(old: &PublicKey, new: &Signer) -> Entry {
    let signature = new.sign(&rotation(old, &new.public()));
    Entry::kernel(Kind::Rotate, ACTION)
        .resource(&new.public().to_string())
        .detail(&hex::encode(signature))
}

/// The key that an entry names and that signed it; the old one seals it.
pub(super) fn named(view: &View<'_>, old: Option<&PublicKey>) -> Option<PublicKey> {
    let new: PublicKey = view.resource.parse().ok()?;
    let mut signature = [0; 64];
    hex::decode_to_slice(view.detail, &mut signature).ok()?;
    has_signed(&new, &rotation(old?, &new), &signature).then_some(new)
}
