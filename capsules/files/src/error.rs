//! Why a request was not carried out.
//!
//! All of these are the caller's or the operator's: the capsule stays healthy and answers with a typed refusal. Codes are part of the
//! interface `files@1`; those of the kernel's files begin with `fs.`, or are the ones that all capsules use.

use astrid_sdk::error::FsError;
use astrid_sdk::{Problem, codes};

use crate::limits;

/// Between what the kernel denies, and what would have to change.
const CHANGE: &str = "; it needs ";

/// What was about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading: `fs.read`.
    Read,
    /// Changing: `fs.write`.
    Write,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilesError {
    /// The kernel refused.
    #[error("{path}: {error}")]
    Fs {
        /// Which file.
        path: String,
        /// What was about to be done.
        access: Access,
        /// Why not.
        error: FsError,
    },
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The file is no text (`files.not-text`).
    #[error("{path}: it is no text: {why}")]
    NotText {
        /// Which file.
        path: String,
        /// What is not text in it.
        why: String,
    },
    /// The file is larger than what is read whole (`too-large`).
    #[error("{path}: it has {size} bytes; at most {limit} are {done}")]
    TooLarge {
        /// Which file.
        path: String,
        /// Its bytes.
        size: u64,
        /// The limit.
        limit: u64,
        /// What is done with at most so many.
        done: &'static str,
    },
    /// What is to be replaced is not there (`files.no-match`).
    #[error("{path}: edits[{edit}].old is not in the file{near}")]
    NoMatch {
        /// Which file.
        path: String,
        /// Which replacement, from 0.
        edit: usize,
        /// Where something like it is, or nothing.
        near: String,
    },
    /// What is to be replaced is there more than once (`files.many-matches`).
    #[error("{path}: edits[{edit}].old is in the file {count} times, in lines {lines}")]
    ManyMatches {
        /// Which file.
        path: String,
        /// Which replacement, from 0.
        edit: usize,
        /// How often, or `more than` that.
        count: String,
        /// Where.
        lines: String,
    },
    /// Two replacements want the same characters (`files.overlap`).
    #[error("{path}: edits[{first}] and edits[{second}] overlap in line {line}")]
    Overlap {
        /// Which file.
        path: String,
        /// One, from 0.
        first: usize,
        /// The other.
        second: usize,
        /// Where.
        line: usize,
    },
    /// What is searched for cannot be understood, or is too large (`files.pattern`).
    #[error("pattern: {0}")]
    Pattern(String),
}

impl FilesError {
    /// A refusal of the kernel.
    pub(crate) fn of(path: &str, access: Access) -> impl FnOnce(FsError) -> Self {
        move |error| Self::Fs {
            path: path.to_owned(),
            access,
            error,
        }
    }

    /// A refusal to read.
    pub(crate) fn reading(path: &str) -> impl FnOnce(FsError) -> Self {
        Self::of(path, Access::Read)
    }

    /// A refusal to write.
    pub(crate) fn writing(path: &str) -> impl FnOnce(FsError) -> Self {
        Self::of(path, Access::Write)
    }

    /// The stable code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fs { error, .. } => error.code(),
            Self::Invalid(_) => codes::INVALID,
            Self::NotText { .. } => "files.not-text",
            Self::TooLarge { .. } => codes::TOO_LARGE,
            Self::NoMatch { .. } => "files.no-match",
            Self::ManyMatches { .. } => "files.many-matches",
            Self::Overlap { .. } => "files.overlap",
            Self::Pattern(_) => "files.pattern",
        }
    }

    /// What could be done about it, by this principal or for it.
    fn hint(&self, principal: &str) -> Option<String> {
        let text = match self {
            Self::Fs { access, error, .. } => return fs_hint(*access, error, principal),
            Self::Invalid(_) => "see the request's schema: astrid capsule show files",
            Self::NotText { .. } => "read its bytes with tool.v1.files.read_bin",
            Self::TooLarge { .. } => "read a part of it with tool.v1.files.read_bin",
            Self::NoMatch { .. } => "read the file again, and copy what is to be replaced from it, white space and all",
            Self::ManyMatches { .. } => "take in lines before or after it, until it is there once",
            Self::Overlap { .. } => "make one replacement of the two",
            Self::Pattern(_) => "with `literal` the pattern is searched for as it is written",
        };
        Some(text.to_owned())
    }

    /// The refusal, for whom the request was made.
    pub fn told_to(&self, principal: &str) -> Problem {
        let text = self.to_string();
        if let Self::Fs {
            error: FsError::Denied(_),
            ..
        } = self
            && let Some((text, change)) = text.split_once(CHANGE)
        {
            // The kernel has said which grant or revoke it is about.
            return Problem::new(self.code(), text).with_hint(format!("it needs {change}"));
        }
        let problem = Problem::new(self.code(), text);
        match self.hint(principal) {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

fn fs_hint(access: Access, error: &FsError, principal: &str) -> Option<String> {
    Some(match error {
        FsError::NoWorkspace => format!("the operator attaches one: astrid workspace attach DIR {principal}"),
        FsError::Changed => "read the file again, and begin from its new hash".to_owned(),
        FsError::NotFound if access == Access::Write => {
            "the directory must be there: tool.v1.files.make_dir, or `parents`".to_owned()
        }
        FsError::NotEmpty => "with `recursive` all that is in it is removed, too".to_owned(),
        FsError::Exists => "with `overwrite` it would be replaced".to_owned(),
        FsError::TooLarge(limit) => format!("at most {limit} bytes at a time"),
        _ => return None,
    })
}

/// One limit, in the words that all of them are told in.
pub(crate) fn within<T: PartialOrd + std::fmt::Display + Copy>(
    name: &str,
    value: Option<T>,
    default: T,
    (min, max): (T, T),
) -> Result<T, FilesError> {
    match value {
        None => Ok(default),
        Some(value) if value < min || value > max => Err(FilesError::Invalid(format!(
            "{name} {value} is out of range: {min} to {max}"
        ))),
        Some(value) => Ok(value),
    }
}

/// A file that is larger than what is read whole.
pub(crate) fn too_large(path: &str, size: u64, done: &'static str) -> FilesError {
    FilesError::TooLarge {
        path: path.to_owned(),
        size,
        limit: limits::FILE_BYTES,
        done,
    }
}
