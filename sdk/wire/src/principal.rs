//! Who: the name that authority, accounting and records hang on.
//!
//! An *id* (`[a-z0-9._-]{1,64}`, contract K7; it does not begin with a dot or a dash) names a person or an agent; `capsule:<name>` is the kernel's own name for a capsule
//! that acts for nobody else. Only the kernel makes the second kind: no text from outside parses as one.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of an id, and of a capsule's name (K7).
pub const ID_BYTES_MAX: usize = 64;

/// The owner of the daemon.
pub const DEFAULT: &str = "default";

/// Whoever has not shown who they are.
pub const ANONYMOUS: &str = "anonymous";

const CAPSULE_PREFIX: &str = "capsule:";

/// Why a string does not name a principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrincipalError {
    /// No characters at all.
    #[error("a principal's id is empty")]
    Empty,
    /// Longer than [`ID_BYTES_MAX`].
    #[error("a principal's id has {bytes} bytes, the limit is {ID_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It begins with a dot or a dash.
    #[error("a principal's id begins with a letter, a digit or `_`, and not with {found:?}")]
    Start {
        /// The character.
        found: char,
    },
    /// A character outside `[a-z0-9._-]`.
    #[error("a principal's id contains {found:?} at byte {position}; it is made of a-z, 0-9, `.`, `_` and `-`")]
    Character {
        /// The character.
        found: char,
        /// Its place.
        position: usize,
    },
}

/// A principal. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// [`DEFAULT`].
    #[must_use]
    pub fn default_owner() -> Self {
        Self(Arc::from(DEFAULT))
    }

    /// [`ANONYMOUS`].
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Arc::from(ANONYMOUS))
    }

    /// The capsule of this name, acting for nobody else. For the kernel: nothing that a client or guest says becomes one.
    #[must_use]
    pub fn capsule(name: &str) -> Self {
        Self(Arc::from(format!("{CAPSULE_PREFIX}{name}")))
    }

    /// Reads what the kernel stamped on a message: an id, or the name of a capsule.
    ///
    /// # Errors
    /// Neither of the two.
    pub fn stamped(text: &str) -> Result<Self, PrincipalError> {
        match text.strip_prefix(CAPSULE_PREFIX) {
            Some(name) => check(name)?,
            None => return text.parse(),
        }
        Ok(Self(Arc::from(text)))
    }

    /// The capsule's name, if it is one.
    #[must_use]
    pub fn as_capsule(&self) -> Option<&str> {
        self.0.strip_prefix(CAPSULE_PREFIX)
    }

    /// Whether it is [`ANONYMOUS`].
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == ANONYMOUS
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(id: &str) -> Result<(), PrincipalError> {
    if id.is_empty() {
        return Err(PrincipalError::Empty);
    }
    if id.len() > ID_BYTES_MAX {
        return Err(PrincipalError::TooLong { bytes: id.len() });
    }
    match id
        .char_indices()
        .find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    {
        Some((position, found)) => Err(PrincipalError::Character { found, position }),
        None => Ok(()),
    }
}

impl FromStr for Principal {
    type Err = PrincipalError;

    fn from_str(id: &str) -> Result<Self, PrincipalError> {
        check(id)?;
        // It names files and directories, and stands where options do.
        if let Some(found) = id.chars().next().filter(|c| matches!(c, '.' | '-')) {
            return Err(PrincipalError::Start { found });
        }
        Ok(Self(Arc::from(id)))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl AsRef<str> for Principal {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Principal {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Ids only: a document never names a capsule's own principal.
impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        id.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// K7: ids are `[a-z0-9._-]{1,64}`. They name files, so none is hidden, a way up, or an option.
    #[test]
    fn ids() {
        for found in [".", "..", ".ann", "-x", "--help"] {
            let start = found.chars().next().unwrap();
            assert_eq!(found.parse::<Principal>(), Err(PrincipalError::Start { found: start }));
            assert!(Principal::stamped(found).is_err());
        }
        for good in ["default", "a", "a.b_c-9", &"x".repeat(64)] {
            assert_eq!(good.parse::<Principal>().unwrap().as_str(), good);
        }
        assert_eq!("".parse::<Principal>(), Err(PrincipalError::Empty));
        assert_eq!(
            "x".repeat(65).parse::<Principal>(),
            Err(PrincipalError::TooLong { bytes: 65 })
        );
        for (bad, found, position) in [
            ("aB", 'B', 1),
            ("a b", ' ', 1),
            ("ä", 'ä', 0),
            ("a/../b", '/', 1),
            ("a\0", '\0', 1),
        ] {
            assert_eq!(
                bad.parse::<Principal>(),
                Err(PrincipalError::Character { found, position }),
                "{bad}"
            );
        }
    }

    /// Only the kernel makes `capsule:` principals: neither parsing nor a document does.
    #[test]
    fn capsules_are_not_parsed() {
        assert!("capsule:hello".parse::<Principal>().is_err());
        assert!(serde_json::from_str::<Principal>("\"capsule:hello\"").is_err());
        let capsule = Principal::stamped("capsule:hello").unwrap();
        assert_eq!(capsule, Principal::capsule("hello"));
        assert_eq!(capsule.as_capsule(), Some("hello"));
        assert!(Principal::stamped("capsule:").is_err());
        assert!(Principal::stamped("capsule:capsule:x").is_err());
    }
}
