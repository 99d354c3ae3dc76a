//! Tables: what belongs to whom in the store.
//!
//! A table is a prefix of keys: what kind of thing it holds, of which capsule, of which of its actors. Everything of one actor is
//! found by its prefix, in the order in which it was written, and nothing of another can be named from it.

use std::fmt;

use astrid_wire::Principal;
use bytes::{BufMut, Bytes, BytesMut};

/// What a table holds. The byte is part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Messages that were given up.
    Dead = b'd',
    /// Messages that wait to be handled.
    Inbox = b'i',
    /// State that capsules keep.
    Kv = b'k',
    /// What principals used.
    Ledger = b'l',
    /// The kernel's own: format, last sequence.
    Meta = b'm',
    /// Asks of durable handlings that are not settled.
    Ask = b'o',
    /// Actors that are never evicted.
    Pin = b'p',
    /// What capsules hear durably.
    Subscriptions = b's',
    /// Durable timers.
    Timer = b't',
    /// Ids that clients gave their messages.
    Once = b'w',
}

/// Which actor of a capsule, in a form that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The capsule's only system actor, or what all of them share.
    System,
    /// One of several system actors, by number.
    Instance(u32),
    /// That principal's.
    Principal(Principal),
}

impl Scope {
    fn write(&self) -> String {
        match self {
            Self::System => String::new(),
            Self::Instance(n) => format!("#{n}"),
            Self::Principal(principal) => format!("@{principal}"),
        }
    }

    fn read(text: &str) -> Option<Self> {
        match text.chars().next() {
            None => Some(Self::System),
            Some('#') => text[1..].parse().ok().map(Self::Instance),
            Some('@') => Principal::stamped(&text[1..]).ok().map(Self::Principal),
            Some(_) => None,
        }
    }
}

/// The end of a name in a prefix: no name contains it.
const END: u8 = 0;

/// A table.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table(Bytes);

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl Table {
    /// The table of that kind of one actor of a capsule.
    pub fn of(kind: Kind, capsule: &str, scope: &Scope) -> Self {
        let scope = scope.write();
        let mut bytes = BytesMut::with_capacity(3 + capsule.len() + scope.len());
        bytes.put_u8(kind as u8);
        bytes.put(capsule.as_bytes());
        bytes.put_u8(END);
        bytes.put(scope.as_bytes());
        bytes.put_u8(END);
        Self(bytes.freeze())
    }

    /// The kernel's own.
    pub fn meta() -> Self {
        Self::of(Kind::Meta, "", &Scope::System)
    }

    /// The ids that messages of a principal had.
    pub fn once(principal: &Principal) -> Self {
        Self::of(Kind::Once, "", &Scope::Principal(principal.clone()))
    }

    /// The prefix.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The table that a key on disk is in, and the rest of that key. `None` for what this never wrote.
    pub fn split(key: &[u8]) -> Option<(Self, &[u8])> {
        let first = 1 + key.get(1..)?.iter().position(|b| *b == END)?;
        let second = first + 1 + key.get(first + 1..)?.iter().position(|b| *b == END)?;
        let (table, rest) = key.split_at(second + 1);
        Some((Self(Bytes::copy_from_slice(table)), rest))
    }

    /// The name of the capsule, and which of its actors.
    pub fn owner(&self) -> Option<(&str, Scope)> {
        let mut parts = self.0.get(1..)?.split(|b| *b == END);
        let capsule = std::str::from_utf8(parts.next()?).ok()?;
        let scope = std::str::from_utf8(parts.next()?).ok()?;
        Some((capsule, Scope::read(scope)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_key_tells_its_table_and_the_table_its_owner() {
        for scope in [
            Scope::System,
            Scope::Instance(17),
            Scope::Principal(Principal::default_owner()),
        ] {
            let table = Table::of(Kind::Kv, "notes", &scope);
            let mut key = table.as_bytes().to_vec();
            key.extend(b"a\0b");
            let (found, rest) = Table::split(&key).unwrap();
            assert_eq!((&found, rest), (&table, &b"a\0b"[..]));
            assert_eq!(found.owner(), Some(("notes", scope)));
        }
        assert_eq!(Table::split(b"kx"), None);
        assert_eq!(Table::split(b""), None);
    }

    /// No table's keys lie among another's.
    #[test]
    fn prefixes_are_free_of_each_other() {
        let one = Table::of(Kind::Kv, "a", &Scope::Principal(Principal::stamped("b").unwrap()));
        let other = Table::of(Kind::Kv, "a", &Scope::Principal(Principal::stamped("b-c").unwrap()));
        assert!(!other.as_bytes().starts_with(one.as_bytes()) && !one.as_bytes().starts_with(other.as_bytes()));
    }
}
