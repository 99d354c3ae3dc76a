//! What is in a directory, by names in order, a page at a time.
//!
//! The cursor is a name: what comes after it. So nothing is kept between two pages, and what is made or removed meanwhile disturbs nothing else.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::beneath::FileType;
use super::path::is_name;
use super::temporary::TEMPORARY;

/// Entries of one page, at most, however many are asked for.
pub const PAGE_ENTRIES_MAX: usize = 10_000;

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: FileType,
    /// In an overlay: it is not as it is in the lower layer, or has something below it that is not.
    pub written: bool,
}

/// Some of what is in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their names' bytes.
    pub entries: Vec<Listed>,
    /// Whether more comes after the last.
    pub more: bool,
    /// Things in the whole directory whose names are not UTF-8, or nothing that a path may hold: they cannot be named here.
    pub unnamed: u64,
}

/// Whether a guest can name it.
pub(super) fn can_be_told(name: &OsStr) -> bool {
    name.to_str().is_some_and(is_name)
}

/// A page while it is gathered: the first names after the cursor, of all that are offered.
pub(super) struct Gathering<'c> {
    after: Option<&'c str>,
    entries_max: usize,
    found: BTreeMap<String, (FileType, bool)>,
    more: bool,
    unnamed: u64,
}

impl<'c> Gathering<'c> {
    pub(super) fn new(after: Option<&'c str>, entries_max: usize) -> Self {
        let entries_max = entries_max.clamp(1, PAGE_ENTRIES_MAX);
        Self {
            after,
            entries_max,
            found: BTreeMap::new(),
            more: false,
            unnamed: 0,
        }
    }

    /// Whether what has this name can still be on the page. A name that cannot be told is counted; what is being written is not there yet.
    pub(super) fn wants(&mut self, name: &OsStr) -> bool {
        if name.as_bytes().starts_with(TEMPORARY.as_bytes()) {
            return false;
        }
        let Some(name) = name.to_str().filter(|name| is_name(name)) else {
            self.unnamed += 1;
            return false;
        };
        if self.after.is_some_and(|after| name <= after) {
            return false;
        }
        let beyond = |(last, _): (&String, _)| name > last.as_str();
        if self.found.len() == self.entries_max && self.found.last_key_value().is_some_and(beyond) {
            self.more = true;
            return false;
        }
        true
    }

    pub(super) fn add(&mut self, name: &OsStr, kind: FileType, written: bool) {
        let Some(name) = name.to_str() else { return };
        self.found.insert(name.to_owned(), (kind, written));
        if self.found.len() > self.entries_max {
            self.found.pop_last();
            self.more = true;
        }
    }

    pub(super) fn page(self) -> Page {
        let listed = |(name, (kind, written))| Listed { name, kind, written };
        Page {
            entries: self.found.into_iter().map(listed).collect(),
            more: self.more,
            unnamed: self.unnamed,
        }
    }
}
