//! Why nothing was read or written, and how that is told.

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use crate::bindings::astrid::kernel::fs;

/// Why nothing was read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// The gate refused; names what is lacking.
    #[error("denied: {0}")]
    Denied(String),
    /// A path or another argument is not valid; names it.
    #[error("not valid: {0}")]
    Invalid(String),
    /// There is nothing of that name.
    #[error("there is no such file or directory")]
    NotFound,
    /// There is something of that name already.
    #[error("there is something of that name already")]
    Exists,
    /// A part of the path, or what it names, is no directory.
    #[error("it, or a part of the path, is no directory")]
    NotADirectory,
    /// It is a directory.
    #[error("it is a directory")]
    IsADirectory,
    /// The directory is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A link leads out of the root, or in a circle.
    #[error("a link leads out of the root, or in a circle")]
    Escapes,
    /// This cannot be done here, or with what is there; says what.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The disk, or what the principal may store, is full; says which.
    #[error("no space: {0}")]
    NoSpace(String),
    /// More bytes than this, the limit.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// More handles, watches or parts than this, the limit.
    #[error("more than {0} at a time")]
    TooMany(u32),
    /// It is not what was expected: somebody else has changed it.
    #[error("somebody else has changed it meanwhile")]
    Changed,
    /// Something else is under way there.
    #[error("something else is under way there")]
    Busy,
    /// No directory is attached for this principal.
    #[error("no directory is attached as the workspace")]
    NoWorkspace,
    /// The handle is of a handling that is over.
    #[error("it is closed: what is opened is good until the handler returns")]
    Closed,
    /// The operating system refused; says why.
    #[error("{0}")]
    Failed(String),
    /// It is not UTF-8 from this byte on. By [`Fs::read_to_string`](super::Fs::read_to_string), never by the kernel.
    #[error("it is not UTF-8 text from byte {0} on")]
    NotText(u64),
}

impl From<fs::FsError> for FsError {
    fn from(error: fs::FsError) -> Self {
        match error {
            fs::FsError::Denied(why) => Self::Denied(why),
            fs::FsError::Invalid(what) => Self::Invalid(what),
            fs::FsError::NotFound => Self::NotFound,
            fs::FsError::Exists => Self::Exists,
            fs::FsError::NotADirectory => Self::NotADirectory,
            fs::FsError::IsADirectory => Self::IsADirectory,
            fs::FsError::NotEmpty => Self::NotEmpty,
            fs::FsError::Escapes => Self::Escapes,
            fs::FsError::Unsupported(what) => Self::Unsupported(what),
            fs::FsError::NoSpace(which) => Self::NoSpace(which),
            fs::FsError::TooLarge(limit) => Self::TooLarge(limit),
            fs::FsError::TooMany(limit) => Self::TooMany(limit),
            fs::FsError::Changed => Self::Changed,
            fs::FsError::Busy => Self::Busy,
            fs::FsError::NoWorkspace => Self::NoWorkspace,
            fs::FsError::Closed => Self::Closed,
            fs::FsError::Failed(why) => Self::Failed(why),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl FsError {
    /// As the kernel tells it, for the fake one.
    ///
    /// # Panics
    /// The kernel does not tell it.
    #[track_caller]
    pub(crate) fn into_kernel(self) -> fs::FsError {
        match self {
            Self::Denied(why) => fs::FsError::Denied(why),
            Self::Invalid(what) => fs::FsError::Invalid(what),
            Self::NotFound => fs::FsError::NotFound,
            Self::Exists => fs::FsError::Exists,
            Self::NotADirectory => fs::FsError::NotADirectory,
            Self::IsADirectory => fs::FsError::IsADirectory,
            Self::NotEmpty => fs::FsError::NotEmpty,
            Self::Escapes => fs::FsError::Escapes,
            Self::Unsupported(what) => fs::FsError::Unsupported(what),
            Self::NoSpace(which) => fs::FsError::NoSpace(which),
            Self::TooLarge(limit) => fs::FsError::TooLarge(limit),
            Self::TooMany(limit) => fs::FsError::TooMany(limit),
            Self::Changed => fs::FsError::Changed,
            Self::Busy => fs::FsError::Busy,
            Self::NoWorkspace => fs::FsError::NoWorkspace,
            Self::Closed => fs::FsError::Closed,
            Self::Failed(why) => fs::FsError::Failed(why),
            Self::NotText(_) => panic!("the kernel does not read text"),
        }
    }
}

impl FsError {
    /// The code of the problem that it becomes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::Invalid(_) => codes::INVALID,
            Self::NotFound => "fs.not-found",
            Self::Exists => "fs.exists",
            Self::NotADirectory => "fs.not-a-directory",
            Self::IsADirectory => "fs.is-a-directory",
            Self::NotEmpty => "fs.not-empty",
            Self::Escapes => "fs.escapes",
            Self::Unsupported(_) => codes::UNSUPPORTED,
            Self::NoSpace(_) => "fs.no-space",
            Self::TooLarge(_) => codes::TOO_LARGE,
            Self::TooMany(_) => codes::TOO_MANY,
            Self::Changed => "fs.changed",
            Self::Busy => "fs.busy",
            Self::NoWorkspace => "fs.no-workspace",
            Self::Closed => codes::CAPSULE_FAILED,
            Self::Failed(_) => codes::UNAVAILABLE,
            Self::NotText(_) => "fs.not-text",
        }
    }
}

impl From<FsError> for Problem {
    fn from(error: FsError) -> Self {
        let problem = Self::new(error.code(), error.to_string());
        match error {
            FsError::NoWorkspace => {
                problem.with_hint("the operator attaches one: astrid workspace attach DIR PRINCIPAL")
            }
            _ => problem,
        }
    }
}
