//! Receipts of segments that were removed: an entry for each, which names the last hash of it. The header of the segment behind it names the
//! same, so the chain goes on from there.

use super::entry::{Entry, Hash, Kind, View};
use super::segment::{Header, file_name};

/// What the entry is called.
const ACTION: &str = "audit.prune";

/// Before the hash in the detail.
const HEAD: &str = "head=";

/// The receipt for a segment, by its header and that of the one behind it.
pub(super) fn receipt(removed: &Header, next: &Header) -> Entry {
    let last = next.first.saturating_sub(1);
    Entry::kernel(Kind::Prune, ACTION)
        .resource(&file_name(removed.number))
        .detail(&format!(
            "{HEAD}{} first={} last={last}",
            hex::encode(next.previous),
            removed.first
        ))
        .count(next.first.saturating_sub(removed.first))
}

/// The hash that a receipt names.
pub(super) fn named(view: &View<'_>) -> Option<Hash> {
    let mut head = [0; 32];
    let digits = view.detail.strip_prefix(HEAD)?.split(' ').next()?;
    hex::decode_to_slice(digits, &mut head).ok()?;
    Some(head)
}
