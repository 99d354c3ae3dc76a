//! Why a document was not converted.
//!
//! All of these are the caller's: the capsule stays healthy and answers with a typed refusal. Codes are part of the
//! interface `text@1`; what is wrong with the request rather than the document has the code that all capsules use.

use astrid_sdk::codes;

use crate::limits;

/// Why a document was not converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Something about the document exceeds a limit (`text.too-large`).
    #[error("{what} is too much: at most {limit} {unit} are converted")]
    TooLarge {
        /// What is too much, with the place when there is one.
        what: String,
        /// The limit.
        limit: usize,
        /// What the limit counts.
        unit: &'static str,
    },
    /// Elements are nested too deeply (`text.too-deep`).
    #[error("{what} are nested more than {limit} deep")]
    TooDeep {
        /// What is nested.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The document is not what its media type says (`text.malformed`).
    #[error("the document is malformed: {0}")]
    Malformed(String),
    /// The document cannot be read without a password (`text.encrypted`).
    #[error("the document is encrypted and asks for a password")]
    Encrypted,
    /// The document uses what this capsule does not read (`text.unsupported`).
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The request itself is wrong (`invalid`).
    #[error("{0}")]
    Invalid(String),
}

impl TextError {
    /// The document or the text made from it is larger than a limit of so many `unit`s.
    pub(crate) fn too_large(what: impl Into<String>, limit: usize, unit: &'static str) -> Self {
        Self::TooLarge {
            what: what.into(),
            limit,
            unit,
        }
    }

    /// The text is larger than what a reply carries.
    pub(crate) fn output() -> Self {
        Self::too_large("the text of this document", limits::OUTPUT_BYTES, "bytes")
    }

    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "text.too-large",
            Self::TooDeep { .. } => "text.too-deep",
            Self::Malformed(_) => "text.malformed",
            Self::Encrypted => "text.encrypted",
            Self::Unsupported(_) => "text.unsupported",
            Self::Invalid(_) => codes::INVALID,
        }
    }

    /// What the caller could do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "split the document and convert its parts",
            Self::TooDeep { .. } => "such nesting is rarely meant; look for elements that are never closed",
            Self::Malformed(_) => "check that the file is complete and that its media type and charset are right",
            Self::Encrypted => "save a copy without protection and convert that",
            Self::Unsupported(_) => "convert the document to HTML, Markdown or a plain PDF first",
            Self::Invalid(_) => "see the request's schema: astrid capsule show text",
        }
    }
}
