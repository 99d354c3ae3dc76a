//! A typed refusal: what went wrong, for programs (`code`) and for people (`message`, `hint`).
//!
//! A problem is what an ask is refused with, and what a client gets instead of a response. It is part of the interface of
//! whoever sends it. The parts are cut and cleaned when it is made, so that a problem that exists can be sent.

use serde::{Deserialize, Deserializer, Serialize};

use crate::text;

/// Media type of a problem's JSON document.
pub const PROBLEM_CONTENT_TYPE: &str = "application/vnd.astrid.problem+json";

/// Most bytes of a code: a few words.
pub const CODE_BYTES_MAX: usize = 64;

/// Most bytes of a message, and of a hint: a sentence or two. Longer text is cut.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Codes that the kernel and the uplinks send, and that capsules should use where they fit.
pub mod codes {
    /// No answer in time.
    pub const TIMEOUT: &str = "timeout";
    /// Nobody hears the topic.
    pub const NO_SUBSCRIBER: &str = "no-subscriber";
    /// The gate refused: somebody lacks the authority.
    pub const DENIED: &str = "denied";
    /// A guard of the topic refused what was to be said there.
    pub const GUARD_DENIED: &str = "guard.denied";
    /// A guard of the topic could not be asked, or gave no answer: nothing is said there.
    pub const GUARD_FAILED: &str = "guard.failed";
    /// The receiver's queue is full and rejects.
    pub const FULL: &str = "full";
    /// A body or a document is over its limit.
    pub const TOO_LARGE: &str = "too-large";
    /// Too many of something are held or under way.
    pub const TOO_MANY: &str = "too-many";
    /// A principal used as much as its quota allows; the message says of what, and when it frees.
    pub const QUOTA_EXCEEDED: &str = "quota.exceeded";
    /// What was said is not well-formed, or not allowed by the receiver's schema.
    pub const INVALID: &str = "invalid";
    /// What was asked for does not exist.
    pub const NOT_FOUND: &str = "not-found";
    /// The content type is none the receiver takes.
    pub const UNSUPPORTED: &str = "unsupported";
    /// The receiver is not running: restarting, or down.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The store takes nothing now.
    pub const STORE_UNAVAILABLE: &str = "store.unavailable";
    /// The store failed while this was written: it may or may not have happened.
    pub const STORE_FAILED: &str = "store.failed";
    /// Others changed what was read, again and again.
    pub const CONFLICT: &str = "conflict";
    /// The message was kept for a subscription that is not there any more.
    pub const UNSUBSCRIBED: &str = "unsubscribed";
    /// The capsule gave up on the message without saying more.
    pub const CAPSULE_FAILED: &str = "capsule.failed";
    /// The capsule trapped on the message.
    pub const FAULT_TRAP: &str = "capsule.fault.trap";
    /// The capsule used up its fuel on the message.
    pub const FAULT_FUEL: &str = "capsule.fault.fuel";
    /// The capsule used up its memory.
    pub const FAULT_MEMORY: &str = "capsule.fault.memory";
    /// The capsule used up its time on the message.
    pub const FAULT_TIME: &str = "capsule.fault.time";
}

/// A typed refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Problem {
    code: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Why bytes are not a problem.
#[derive(Debug, thiserror::Error)]
pub enum ProblemError {
    /// Longer than any problem.
    #[error("a problem document of {bytes} bytes; the limit is {DOCUMENT_BYTES_MAX}")]
    TooLarge {
        /// The length in bytes.
        bytes: usize,
    },
    /// Not the JSON of a problem.
    #[error("not a problem document")]
    Json(#[from] serde_json::Error),
}

/// Most bytes of a problem's JSON: every byte of its texts escaped (six bytes for one), and the keys.
pub const DOCUMENT_BYTES_MAX: usize = 6 * (2 * TEXT_BYTES_MAX + CODE_BYTES_MAX) + 64;

impl Problem {
    /// A problem without a hint. The code is cut to [`CODE_BYTES_MAX`] and what does not belong in one becomes `-`; the message is
    /// cut to [`TEXT_BYTES_MAX`].
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: clean_code(code),
            message: text::truncate(message.into(), TEXT_BYTES_MAX),
            hint: None,
        }
    }

    /// The same with a hint, cut to [`TEXT_BYTES_MAX`].
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(text::truncate(hint.into(), TEXT_BYTES_MAX));
        self
    }

    /// For programs: lower-case words joined by `-` or `.`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// For people: what went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// For people: what could be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The document, of type [`PROBLEM_CONTENT_TYPE`].
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Three strings always serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a document. Parts over their limits are cut, as when a problem is made.
    ///
    /// # Errors
    /// Over [`DOCUMENT_BYTES_MAX`], or not the JSON of a problem.
    pub fn from_json(document: &[u8]) -> Result<Self, ProblemError> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(ProblemError::TooLarge { bytes: document.len() });
        }
        Ok(serde_json::from_slice(document)?)
    }
}

fn clean_code(code: &str) -> String {
    let clean: String = text::cut(code, CODE_BYTES_MAX)
        .chars()
        .map(|c| {
            if matches!(c, 'a'..='z' | '0'..='9' | '.' | '-') {
                c
            } else {
                '-'
            }
        })
        .collect();
    if clean.is_empty() {
        codes::INVALID.to_owned()
    } else {
        clean
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Document {
            code: String,
            message: String,
            hint: Option<String>,
        }
        let document = Document::deserialize(deserializer)?;
        let problem = Self::new(&document.code, document.message);
        Ok(match document.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cuts_between_characters() {
        let problem = Problem::new("x", "ä".repeat(600)).with_hint("€".repeat(600));
        assert_eq!(problem.message().len(), 1024);
        assert_eq!(problem.hint().unwrap().len(), 1023);
    }

    #[test]
    fn codes_are_cleaned() {
        assert_eq!(Problem::new("Not OK\n", "").code(), "-ot----");
        assert_eq!(Problem::new("", "").code(), codes::INVALID);
        assert_eq!(Problem::new(&"a".repeat(100), "").code().len(), CODE_BYTES_MAX);
        assert_eq!(Problem::new(codes::FAULT_FUEL, "").code(), "capsule.fault.fuel");
    }

    #[test]
    fn survives_json() {
        for problem in [
            Problem::new("a-b.c", "m"),
            Problem::new("x", "\u{1}".repeat(1024)).with_hint("\u{1}".repeat(1024)),
        ] {
            let document = problem.to_json();
            assert!(document.len() <= DOCUMENT_BYTES_MAX);
            assert_eq!(Problem::from_json(&document).unwrap(), problem);
        }
        assert!(matches!(
            Problem::from_json(&vec![b' '; DOCUMENT_BYTES_MAX + 1]),
            Err(ProblemError::TooLarge { .. })
        ));
        assert!(matches!(
            Problem::from_json(b"{\"code\": 3}"),
            Err(ProblemError::Json(_))
        ));
    }
}
