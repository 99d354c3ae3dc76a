//! Topics and patterns: one grammar, one matcher.
//!
//! A topic is 1 to [`SEGMENTS_MAX`] segments of `[a-z0-9_-]`, joined by `.`, at most [`BYTES_MAX`] bytes. In a pattern a segment may
//! also be `*` (exactly one segment), and the last one `>` (one or more). Both are validated once, when they are made, and
//! then only compared: matching is a single pass over the bytes and allocates nothing.
//!
//! Deliberately absent: wildcards inside a segment, and any meaning of a name. Which domains are reserved is the kernel's.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most segments of a topic or pattern. Bounds the depth of whatever is indexed by topic.
pub const SEGMENTS_MAX: usize = 12;

/// Most bytes of a topic or pattern. It fits a length byte, and names that people read are shorter.
pub const BYTES_MAX: usize = 255;

/// Why a string is not a topic or not a pattern. Segments are counted from 1, positions are bytes from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No characters at all.
    #[error("it is empty")]
    Empty,
    /// Longer than [`BYTES_MAX`].
    #[error("it has {bytes} bytes, the limit is {BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// More than [`SEGMENTS_MAX`] segments.
    #[error("it has more than {SEGMENTS_MAX} segments")]
    TooManySegments,
    /// Nothing between two dots, before the first or after the last.
    #[error("segment {segment} is empty, at byte {position}")]
    EmptySegment {
        /// Which one, from 1.
        segment: usize,
        /// Where it would begin.
        position: usize,
    },
    /// A character outside `[a-z0-9_-]`.
    #[error(
        "segment {segment} `{text}` contains {found:?} at byte {position}; segments are made of a-z, 0-9, `_` and `-`"
    )]
    Character {
        /// Which segment, from 1.
        segment: usize,
        /// The segment.
        text: String,
        /// The character.
        found: char,
        /// Its place in the whole string.
        position: usize,
    },
    /// `*` or `>` in a topic.
    #[error("segment {segment} is the wildcard `{wildcard}`, at byte {position}; a topic has none, only a pattern may")]
    Wildcard {
        /// Which segment, from 1.
        segment: usize,
        /// `*` or `>`.
        wildcard: char,
        /// Its place in the whole string.
        position: usize,
    },
    /// `>` before the end.
    #[error("segment {segment} is `>`, at byte {position}; it may only be the last one")]
    RestNotLast {
        /// Which segment, from 1.
        segment: usize,
        /// Its place in the whole string.
        position: usize,
    },
}

const fn is_name_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')
}

/// The good case in one pass without a branch per error; what is wrong is found by [`explain`], off the hot path.
fn is_valid(text: &str, wildcards: bool) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > BYTES_MAX {
        return false;
    }
    let mut segments = 1;
    let mut start = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'.' => {
                if at == start {
                    return false;
                }
                segments += 1;
                start = at + 1;
            }
            byte if is_name_byte(byte) => {}
            b'*' if wildcards && at == start && bytes.get(at + 1).is_none_or(|next| *next == b'.') => {}
            b'>' if wildcards && at == start && at + 1 == bytes.len() => {}
            _ => return false,
        }
        at += 1;
    }
    start < bytes.len() && segments <= SEGMENTS_MAX
}

fn explain(text: &str, wildcards: bool) -> TopicError {
    if text.is_empty() {
        return TopicError::Empty;
    }
    if text.len() > BYTES_MAX {
        return TopicError::TooLong { bytes: text.len() };
    }
    let count = text.split('.').count();
    let mut position = 0;
    for (index, name) in text.split('.').enumerate() {
        let segment = index + 1;
        if name.is_empty() {
            return TopicError::EmptySegment { segment, position };
        }
        if let "*" | ">" = name {
            if !wildcards {
                let wildcard = if name == "*" { '*' } else { '>' };
                return TopicError::Wildcard {
                    segment,
                    wildcard,
                    position,
                };
            }
            if name == ">" && segment != count {
                return TopicError::RestNotLast { segment, position };
            }
        } else if let Some((offset, found)) = name
            .char_indices()
            .find(|(_, c)| !u8::try_from(*c).is_ok_and(is_name_byte))
        {
            return TopicError::Character {
                segment,
                text: name.to_owned(),
                found,
                position: position + offset,
            };
        }
        position += name.len() + 1;
    }
    TopicError::TooManySegments
}

fn check(text: &str, wildcards: bool) -> Result<(), TopicError> {
    if is_valid(text, wildcards) {
        Ok(())
    } else {
        Err(explain(text, wildcards))
    }
}

macro_rules! name_type {
    ($name:ident, $wildcards:literal, $expecting:literal) => {
        impl $name {
            /// Says whether `text` is one, without making it.
            ///
            /// # Errors
            /// What is wrong and where.
            pub fn validate(text: &str) -> Result<(), TopicError> {
                check(text, $wildcards)
            }

            /// The whole of it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TopicError;

            fn from_str(text: &str) -> Result<Self, TopicError> {
                check(text, $wildcards)?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = TopicError;

            fn try_from(text: &str) -> Result<Self, TopicError> {
                text.parse()
            }
        }

        impl TryFrom<String> for $name {
            type Error = TopicError;

            fn try_from(text: String) -> Result<Self, TopicError> {
                check(&text, $wildcards)?;
                Ok(Self(Arc::from(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|error| {
                            let shown = crate::text::cut(text, BYTES_MAX);
                            E::custom(format_args!("`{shown}` is not {}: {error}", $expecting))
                        })
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}

/// What a message is published on: a valid name without wildcards. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

name_type!(Topic, false, "a topic");

impl Topic {
    /// Its segments, first to last.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('.')
    }

    /// Its first segment, which says whose it is.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(domain, _)| domain)
    }
}

/// A set of topics: a name whose segments may be wildcards. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Arc<str>);

name_type!(Pattern, true, "a pattern");

/// One segment of a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment<'a> {
    /// Exactly this one.
    Literal(&'a str),
    /// `*`: any one.
    Any,
    /// `>`: one or more, up to the end. Always the last.
    Rest,
}

impl Pattern {
    /// Its segments, first to last.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = Segment<'_>> + Clone {
        self.0.split('.').map(|name| match name {
            "*" => Segment::Any,
            ">" => Segment::Rest,
            name => Segment::Literal(name),
        })
    }

    /// Whether it has no wildcard, so that it matches exactly the topic of the same name.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.0.bytes().any(|byte| matches!(byte, b'*' | b'>'))
    }

    /// The topic it names, if it has no wildcard.
    #[must_use]
    pub fn as_topic(&self) -> Option<Topic> {
        self.is_literal().then(|| Topic(Arc::clone(&self.0)))
    }

    /// Whether the topic is in this set.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        self.matches_str(&topic.0)
    }

    /// [`Pattern::matches`] for a string that is known to be a topic, as those a capsule hears are. For one that is not,
    /// the answer means nothing.
    #[must_use]
    pub fn matches_str(&self, topic: &str) -> bool {
        matches(&self.0, topic)
    }

    /// Whether every topic of `other` is also a topic of this pattern. Decides by the wildcards alone: where only the limits of
    /// length would make it true (`>` as the twelfth segment is one segment after all) it says no.
    #[must_use]
    pub fn covers(&self, other: &Pattern) -> bool {
        let mut theirs = other.segments();
        for mine in self.segments() {
            match (mine, theirs.next()) {
                (_, None) => return false,
                (Segment::Rest, Some(_)) => return true,
                (Segment::Any, Some(Segment::Rest)) => return false,
                (Segment::Any, Some(_)) => {}
                (Segment::Literal(mine), Some(Segment::Literal(theirs))) if mine == theirs => {}
                (Segment::Literal(_), Some(_)) => return false,
            }
        }
        theirs.next().is_none()
    }
}

/// The one matcher, on strings that are known to be a pattern and a topic: for code that holds patterns as literals which were
/// checked when it was compiled. For strings that are not, the answer means nothing.
#[must_use]
pub fn matches(pattern: &str, topic: &str) -> bool {
    // Wildcards are whole segments (that was checked when the pattern was made), so bytes can be compared one by one.
    let (pattern, topic) = (pattern.as_bytes(), topic.as_bytes());
    let mut at = 0;
    for &byte in pattern {
        match byte {
            b'>' => return at < topic.len(),
            b'*' => {
                let start = at;
                while topic.get(at).is_some_and(|byte| *byte != b'.') {
                    at += 1;
                }
                if at == start {
                    return false;
                }
            }
            byte => {
                if topic.get(at) != Some(&byte) {
                    return false;
                }
                at += 1;
            }
        }
    }
    at == topic.len()
}

impl From<Topic> for Pattern {
    fn from(topic: Topic) -> Self {
        Self(topic.0)
    }
}

impl From<&Topic> for Pattern {
    fn from(topic: &Topic) -> Self {
        Self(Arc::clone(&topic.0))
    }
}

#[cfg(test)]
mod tests;
