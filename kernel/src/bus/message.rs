//! What travels on the bus.
//!
//! A [`Message`] is immutable and shared: a fan-out to a thousand receivers copies no body. Everything in it that says
//! who and when is stamped by the kernel; a guest supplies the topic, the content type and the body.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use astrid_wire::{Principal, Topic};
use bytes::Bytes;

/// Bytes of one body at most. Above the 16 MiB of a frame, so that an uploaded document of 16 MiB fits with its answer.
pub const BODY_BYTES_MAX: usize = 32 << 20;

/// Bytes of a content type at most: RFC 6838 allows 127 for each of type and subtype.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Identity of a message: the boot that made it and its number within that boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    /// Differs between two starts of a daemon.
    pub boot: u64,
    /// Counts up within one boot.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.boot, self.sequence)
    }
}

/// Identity of a command: its cause and its place among the commands of that cause. An idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId {
    /// The message whose handling issued the command.
    pub cause: MessageId,
    /// Its place among the commands of that handling, from 0.
    pub ordinal: u32,
}

/// Where an answer goes: 128 bits, half of them random, so that only who received the ask can name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The ask's number.
    pub high: u64,
    /// A secret.
    pub low: u64,
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The low half is the secret: it must not reach a log.
        write!(f, "ReplyTo({})", self.high)
    }
}

/// Identity of a port. Numbers are never used twice within a boot.
pub type PortId = u64;

/// Where a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel itself.
    Kernel,
    /// The capsule of this name.
    Capsule(Arc<str>),
    /// A port of the receiver.
    Port(PortId),
}

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody waits.
    Event,
    /// An answer is wanted.
    Ask(ReplyTo),
    /// Answers this command of the receiver.
    Answer(CommandId),
    /// Refuses this command of the receiver; the body is a problem document.
    Refusal(CommandId),
    /// This command of the receiver was not answered in time.
    Timeout(CommandId),
}

/// A media type, as a guest or client named it. Common ones cost no allocation.
#[derive(Clone, PartialEq, Eq)]
pub enum ContentType {
    /// One of the common ones.
    Known(&'static str),
    /// Any other.
    Named(Arc<str>),
}

impl ContentType {
    /// `application/json`.
    pub const JSON: Self = Self::Known("application/json");
    /// `text/plain`, in UTF-8.
    pub const TEXT: Self = Self::Known("text/plain");
    /// `application/octet-stream`.
    pub const BYTES: Self = Self::Known("application/octet-stream");
    /// A problem document.
    pub const PROBLEM: Self = Self::Known(astrid_wire::problem::PROBLEM_CONTENT_TYPE);

    /// Takes a media type: visible ASCII and spaces, one `/` in front of any parameter, at most 255 bytes. `None` when it
    /// is not one. The check keeps control characters out of logs and terminals; it is not a full RFC 9110 parser.
    pub fn parse(text: &str) -> Option<Self> {
        for known in [Self::JSON, Self::TEXT, Self::BYTES, Self::PROBLEM] {
            if known.as_str() == text {
                return Some(known);
            }
        }
        let essence = text.split(';').next().unwrap_or_default().trim_end();
        let token = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        let (kind, subtype) = essence.split_once('/')?;
        let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
        (text.len() <= CONTENT_TYPE_BYTES_MAX && printable && token(kind) && token(subtype))
            .then(|| Self::Named(Arc::from(text)))
    }

    /// The media type with its parameters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(text) => text,
            Self::Named(text) => text,
        }
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A body and what it is.
#[derive(Clone)]
pub struct Body {
    /// Its media type.
    pub content_type: ContentType,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Body {
    /// No bytes, `text/plain`.
    pub const EMPTY: Self = Self {
        content_type: ContentType::TEXT,
        bytes: Bytes::new(),
    };

    /// A JSON body of something whose serialisation cannot fail: our own structs with string keys.
    pub fn json<T: serde::Serialize>(value: &T) -> Self {
        let bytes = serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec());
        Self {
            content_type: ContentType::JSON,
            bytes: bytes.into(),
        }
    }

    /// A problem document.
    pub fn problem(problem: &astrid_wire::Problem) -> Self {
        Self {
            content_type: ContentType::PROBLEM,
            ..Self::json(problem)
        }
    }

    /// A text body.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            content_type: ContentType::TEXT,
            bytes: text.into().into(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies are somebody's data: their size is ours to print, their content is not.
        write!(f, "{:?}[{} B]", self.content_type, self.bytes.len())
    }
}

/// A message, complete.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// What it is to its receiver.
    pub kind: Kind,
    /// Where it was published; the ask's topic for answers.
    pub topic: Topic,
    /// On whose behalf.
    pub principal: Principal,
    /// Who sent it.
    pub source: Source,
    /// What it says.
    pub body: Body,
    /// When the asker stops waiting.
    pub deadline: Option<Instant>,
    /// Whether every principal may hear it, not only its own.
    pub public: bool,
}

/// Numbers messages and ports of one boot.
#[derive(Debug)]
pub struct Ids {
    boot: u64,
    message: AtomicU64,
    port: AtomicU64,
}

impl Ids {
    /// Starts counting for the boot of this number.
    pub fn new(boot: u64) -> Self {
        Self {
            boot,
            message: AtomicU64::new(1),
            port: AtomicU64::new(1),
        }
    }

    /// The next message id.
    pub fn message(&self) -> MessageId {
        MessageId {
            boot: self.boot,
            sequence: self.message.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Ports before this are others'.
    pub fn skip_ports_before(&self, first: PortId) {
        self.port.fetch_max(first, Ordering::Relaxed);
    }

    /// The next port id.
    pub fn port(&self) -> PortId {
        self.port.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for good in [
            "text/html; charset=utf-8",
            "application/vnd.x+json",
            "a/b",
            "text/html ;width=72",
        ] {
            assert_eq!(
                ContentType::parse(good).map(|c| c.as_str().to_owned()).as_deref(),
                Some(good)
            );
        }
        assert!(matches!(
            ContentType::parse("application/json"),
            Some(ContentType::Known(_))
        ));
        for bad in [
            "",
            "text",
            "/x",
            "text/",
            "text/a\nb",
            "text/ä",
            "te xt/plain",
            &format!("a/{}", "b".repeat(300)),
        ] {
            assert_eq!(ContentType::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!(
            "{:?} {:?}",
            ReplyTo {
                high: 7,
                low: 123_456_789
            },
            Body::text("hunter2")
        );
        assert!(!text.contains("123456789") && !text.contains("hunter2"), "{text}");
    }
}
