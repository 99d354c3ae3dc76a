//! The last entry of each principal, which its next one names: a chain for each.

use std::collections::HashMap;

use super::entry::Hash;

/// Principals whose last entry is known at most, some 100 bytes each. The chain of one that comes when there are so many begins anew with
/// each of its entries; the log's own chain covers those as it covers all.
pub(super) const PRINCIPALS_MAX: usize = 200_000;

/// Before the first entry of a principal.
pub(super) const NONE: Hash = [0; 32];

/// The last entry of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Links {
    last: HashMap<Box<str>, Hash, ahash::RandomState>,
    /// What is before the first entry of this is not there to look at.
    anywhere: bool,
}

impl Links {
    /// What the next entry of this principal names.
    pub(super) fn of(&self, principal: &str) -> Hash {
        self.last.get(principal).copied().unwrap_or(NONE)
    }

    /// This is the last entry now.
    pub(super) fn set(&mut self, principal: &str, hash: &Hash) {
        if let Some(last) = self.last.get_mut(principal) {
            *last = *hash;
        } else if self.last.len() < PRINCIPALS_MAX {
            self.last.insert(principal.into(), *hash);
        }
    }

    /// From here on the first entry of a principal may name one that is not there.
    pub(super) fn begin_anywhere(&mut self, anywhere: bool) {
        if anywhere {
            self.last.clear();
        }
        self.anywhere = anywhere;
    }

    /// Whether this is what the next entry of the principal names; and that is the last one then.
    pub(super) fn follow(&mut self, principal: &str, link: &Hash, hash: &Hash) -> bool {
        let full = self.last.len() >= PRINCIPALS_MAX;
        match self.last.get_mut(principal) {
            Some(last) => std::mem::replace(last, *hash) == *link,
            None => {
                if !full {
                    self.last.insert(principal.into(), *hash);
                }
                self.anywhere || *link == NONE
            }
        }
    }

    pub(super) fn is_anywhere(&self) -> bool {
        self.anywhere
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Hash)> {
        self.last.iter().map(|(principal, hash)| (&**principal, hash))
    }
}
