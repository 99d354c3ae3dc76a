//! [`Kv`]: the table in which a capsule keeps what must outlive its instance.
//!
//! An ordered table of keys and values, one per actor: per principal, or one for all instances of a `system` capsule. What a handler
//! writes is kept when it returns, together with everything else that it recorded, and forgotten when it gives up. A handler sees its
//! own writes.
//!
//! ```
//! use astrid_sdk::prelude::*;
//! use astrid_sdk::testing::Harness;
//!
//! #[derive(Default)]
//! struct Notes;
//!
//! /// A note and its title.
//! #[body]
//! struct Note { title: String, text: String }
//!
//! #[capsule]
//! impl Notes {
//!     #[on("notes.v1.keep")]
//!     fn keep(&mut self, ctx: &mut Context, note: Note) -> Result<()> {
//!         Ok(ctx.kv().put(format!("note/{}", note.title), &note)?)
//!     }
//!
//!     #[on("notes.v1.titles")]
//!     fn titles(&mut self, ctx: &mut Context) -> Result<Vec<String>> {
//!         let mut titles = Vec::new();
//!         for entry in ctx.kv().prefix("note/") {
//!             titles.push(entry?.key_after("note/")?.to_owned());
//!         }
//!         Ok(titles)
//!     }
//! }
//!
//! let mut notes = Harness::new::<Notes>();
//! for title in ["milk", "bread"] {
//!     notes.event("notes.v1.keep", json!({ "title": title, "text": "..." })).committed();
//! }
//! notes.restart();
//! assert_eq!(notes.ask("notes.v1.titles", ()).json(), json!(["bread", "milk"]));
//! ```
//!
//! Values are JSON, or bytes where that is said. Deliberately absent: any other encoding (write bytes), and tables of others: what another
//! capsule keeps is had by asking it.

use std::marker::PhantomData;
use std::ops::Range;
use std::vec;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::bindings::astrid::kernel::kv::{Entry, Page};
use crate::body::{Body, JSON, Unserializable};
use crate::error::KvError;
use crate::sys;

/// Entries of the first page of a [`Scan`], for whoever wants only a few; each page after it is [`PAGE_GROWTH`] times as long.
const PAGE_FIRST: u32 = 16;

/// How much longer the next page is than the last.
const PAGE_GROWTH: u32 = 8;

/// Entries of a page, at most: the kernel's own limit.
const PAGE_MAX: u32 = 1_000;

/// The actor's own table; see the [module](self) and [`Context::kv`](crate::Context::kv).
///
/// Keys are text or bytes, 1 to 1,024 of them, ordered as bytes. Values have at most 1 MiB.
#[derive(Debug)]
pub struct Kv<'a> {
    context: PhantomData<&'a mut ()>,
}

impl Kv<'_> {
    pub(crate) fn new() -> Self {
        Self { context: PhantomData }
    }

    /// The value of a key, read from JSON. Not there: `None`.
    ///
    /// # Errors
    /// Refused, or [`KvError::Unreadable`]: there is something else than a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, KvError> {
        let key = key.as_ref();
        let value = self.get_bytes(key)?;
        value.map(|value| read(key, value)).transpose()
    }

    /// The value of a key, as it was written. Not there: `None`.
    ///
    /// # Errors
    /// Refused.
    pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, KvError> {
        Ok(sys::kv::get(key.as_ref())?)
    }

    /// Command: gives a key a value, as JSON.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: &(impl Serialize + ?Sized)) -> Result<(), KvError> {
        let value = serde_json::to_vec(value).map_err(|error| Unserializable(error.to_string()))?;
        self.put_bytes(key, value)
    }

    /// Command: gives a key a value, as it is.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn put_bytes(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), KvError> {
        Ok(sys::kv::put(key.as_ref(), value.as_ref())?)
    }

    /// Command: removes a key, if it is there.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) -> Result<(), KvError> {
        Ok(sys::kv::delete(key.as_ref())?)
    }

    /// Command, if the key has the expected value (`None`: is not there) in what this handler sees: gives it the new value, or removes
    /// it when that is `None`. False, and nothing changes, otherwise.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn compare_and_swap(
        &mut self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, KvError> {
        Ok(sys::kv::compare_and_swap(key.as_ref(), expected, value)?)
    }

    /// One page of the entries from one key to before another (`None`: to the last), backwards if that is said: for who answers in parts.
    /// At most `limit` entries, 1,000 and, but for a single larger entry, 1 MiB. [`Kv::range`] goes through all.
    ///
    /// # Errors
    /// Refused.
    pub fn page(
        &self,
        start: impl AsRef<[u8]>,
        end: Option<&[u8]>,
        limit: u32,
        backwards: bool,
    ) -> Result<Page, KvError> {
        Ok(sys::kv::scan(start.as_ref(), end, limit, backwards)?)
    }

    /// All entries, in order.
    pub fn all(&self) -> Scan {
        Scan::new(Vec::new(), None)
    }

    /// The entries whose keys begin with this, in order.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Scan {
        let prefix = prefix.as_ref();
        Scan::new(prefix.to_owned(), after_prefix(prefix))
    }

    /// The entries from one key to before another, in order.
    pub fn range<K: AsRef<[u8]>>(&self, keys: Range<K>) -> Scan {
        Scan::new(keys.start.as_ref().to_owned(), Some(keys.end.as_ref().to_owned()))
    }
}

/// The first key after all that begin with this one, if there is any such key.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut after = prefix[..=last].to_owned();
    after[last] += 1;
    Some(after)
}

fn read<T: DeserializeOwned>(key: &[u8], value: Vec<u8>) -> Result<T, KvError> {
    Body::new(JSON, value).read().map_err(|problem| KvError::Unreadable {
        key: String::from_utf8_lossy(key).into_owned(),
        why: problem.message().to_owned(),
    })
}

impl Entry {
    /// The key as text.
    ///
    /// # Errors
    /// [`KvError::Unreadable`]: it is not UTF-8.
    pub fn key_text(&self) -> Result<&str, KvError> {
        std::str::from_utf8(&self.key).map_err(|error| KvError::Unreadable {
            key: String::from_utf8_lossy(&self.key).into_owned(),
            why: format!("the key is not text: {error}"),
        })
    }

    /// What follows this prefix in the key, as text.
    ///
    /// # Errors
    /// [`KvError::Unreadable`]: it is not UTF-8, or begins with something else.
    pub fn key_after(&self, prefix: &str) -> Result<&str, KvError> {
        let key = self.key_text()?;
        key.strip_prefix(prefix).ok_or_else(|| KvError::Unreadable {
            key: key.to_owned(),
            why: format!("the key does not begin with `{prefix}`"),
        })
    }

    /// The value, read from JSON.
    ///
    /// # Errors
    /// [`KvError::Unreadable`]: it is something else than a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, KvError> {
        read(&self.key, self.value.clone())
    }
}

/// Entries of the table, read in pages while they are taken; ends after an error.
///
/// Nothing is borrowed: the handler may write while it goes through them. What it writes behind the page at hand is met, what it
/// writes into that page is not.
#[derive(Debug)]
#[must_use = "entries are read when they are taken"]
pub struct Scan {
    /// Where the next page begins and ends, while there is one.
    rest: Option<(Vec<u8>, Option<Vec<u8>>)>,
    backwards: bool,
    /// Entries of the next page, at most.
    limit: u32,
    page: vec::IntoIter<Entry>,
}

impl Scan {
    fn new(start: Vec<u8>, end: Option<Vec<u8>>) -> Self {
        Self {
            rest: Some((start, end)),
            backwards: false,
            limit: PAGE_FIRST,
            page: Vec::new().into_iter(),
        }
    }

    /// The same from the last to the first. Said before the first is taken.
    pub fn backwards(mut self) -> Self {
        self.backwards = true;
        self
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, KvError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let (start, end) = self.rest.take()?;
            let page = match sys::kv::scan(&start, end.as_deref(), self.limit, self.backwards) {
                Ok(page) => page,
                Err(error) => return Some(Err(error.into())),
            };
            self.limit = (self.limit * PAGE_GROWTH).min(PAGE_MAX);
            self.page = page.entries.into_iter();
            self.rest = page.next.map(|next| match self.backwards {
                false => (next, end),
                true => (start, Some(next)),
            });
        }
    }
}

impl std::iter::FusedIterator for Scan {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix() {
        assert_eq!(after_prefix(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }
}
