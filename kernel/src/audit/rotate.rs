//! Another key signs: the old one seals an entry that names the new one, and the new one signs both names (K22).

use super::entry::{Entry, Kind, View};
use astrid_wire::proof::PublicKey;

use super::key::{Signer, has_signed};
use super::queue::{Pending, Reason, Refused};
use super::segment::rotation;
use super::writer::Writer;

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

impl Writer {
    /// Signs with another key from here on. After an error the old one does.
    pub(super) fn rotate(&mut self, new: Signer) -> Result<(), Refused> {
        let entry = entry(&self.signer.public(), &new);
        self.append_own(&[Pending::now(entry)])?;
        let old = std::mem::replace(&mut self.signer, new);
        if let Err(error) = self.begin(self.state.segment + 1) {
            // Nothing was signed with the new one that is still there.
            self.signer = old;
            let reason = Reason::of(&error);
            self.shared.failed(reason.clone(), Vec::new(), 0);
            return Err(Refused::Failing(reason));
        }
        // A seal by the new key, so that the head is its own. Without it the next entry brings one.
        self.told = false;
        if let Err(error) = self.append(&[]) {
            tracing::warn!(%error, "the new key of the audit log has not sealed yet");
        }
        self.checkpoint();
        Ok(())
    }
}
