//! What went wrong with a path of a guest. Every error names that path, never one of the host.

use rustix::io::Errno;
use thiserror::Error;

/// Bytes of a path in an error, at most: what was wrong may be that it was long.
const SHOWN_BYTES_MAX: usize = 255;

/// What went wrong, and where.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{at}: {fault}")]
pub struct FsError {
    /// The path, as the guest wrote it or as its links lead; cut when it is very long.
    pub at: String,
    /// What went wrong.
    pub fault: Fault,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// What was asked for has no meaning.
    #[error("not valid: {0}")]
    Invalid(&'static str),
    /// Nothing has this name.
    #[error("there is nothing")]
    NotFound,
    /// Something has this name.
    #[error("it is there already")]
    Exists,
    /// A directory is needed.
    #[error("not a directory")]
    NotADirectory,
    /// A file is needed.
    #[error("a directory")]
    IsADirectory,
    /// The directory has something in it.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A link leads out of the tree, or in a circle.
    #[error("a symbolic link leads out of the tree, or in a circle")]
    Escapes,
    /// What is not a file, directory or link; or what the file system cannot do.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// It would not fit: `needed` more bytes, of which `left` are left.
    #[error("no space: it needs {needed} bytes, {left} are left")]
    NoSpace {
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that may still be taken.
        left: u64,
    },
    /// The disk of the host is full.
    #[error("the disk is full")]
    DiskFull,
    /// More bytes than a limit of this one operation.
    #[error("too large: more than {0} bytes")]
    TooLarge(u64),
    /// More files than a limit of this one operation.
    #[error("too many: more than {0} entries")]
    TooMany(u64),
    /// Somebody changed it meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// The system does not let the daemon.
    #[error("the system denies it")]
    Denied,
    /// It is in use.
    #[error("it is in use")]
    Busy,
    /// The principal has no workspace.
    #[error("there is no workspace")]
    NoWorkspace,
    /// It is there, but cannot be used now.
    #[error("it cannot be used now: {0}")]
    Unavailable(&'static str),
    /// The disk, or what holds it, failed.
    #[error("input or output failed: {0}")]
    Io(Errno),
}

impl FsError {
    /// An error at a path.
    #[must_use]
    pub fn new(at: &str, fault: Fault) -> Self {
        let end = at.floor_char_boundary(SHOWN_BYTES_MAX);
        let mut at: String = at[..end].chars().flat_map(char::escape_debug).collect();
        if at.len() > end {
            at.truncate(at.floor_char_boundary(SHOWN_BYTES_MAX));
        }
        Self { at, fault }
    }
}

impl Fault {
    /// What may be done about it, where that is not plain.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Invalid(_) => "a path is a scheme and names: workspace://src/main.rs",
            Self::NotEmpty => "remove what is in it first, or all of it at once",
            Self::Escapes => "only links to below the root of their tree are followed; copy what is needed into it",
            Self::Unsupported(_) => "only regular files, directories and symbolic links are handed out",
            Self::NoSpace { .. } => {
                "remove something, commit or roll back the workspace, or ask for a larger storage quota"
            }
            Self::TooLarge(_) | Self::TooMany(_) => "do it in smaller parts",
            Self::Changed => "look again, and repeat it",
            Self::Denied => "the user that the daemon runs as may not do this to that file",
            Self::Unavailable(_) => "an operator sees why: astrid workspace list",
            Self::NoWorkspace => "an operator attaches one: astrid workspace attach DIRECTORY",
            _ => return None,
        })
    }
}

impl From<Errno> for Fault {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::NotFound,
            Errno::EXIST => Self::Exists,
            Errno::NOTDIR => Self::NotADirectory,
            Errno::ISDIR => Self::IsADirectory,
            Errno::NOTEMPTY => Self::NotEmpty,
            // Links are followed before a path is used.
            Errno::LOOP | Errno::STALE => Self::Changed,
            Errno::XDEV => {
                Self::Unsupported("it is on another file system, or a directory that a mounted overlay cannot rename")
            }
            Errno::NOTSUP | Errno::NXIO | Errno::NODEV => {
                Self::Unsupported("neither a file, nor a directory, nor a link")
            }
            Errno::OVERFLOW => Self::Unsupported("the file has an owner that is not known here"),
            Errno::NOSPC | Errno::DQUOT => Self::DiskFull,
            Errno::FBIG => Self::TooLarge(i64::MAX.unsigned_abs()),
            Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BADF => Self::Denied,
            Errno::BUSY | Errno::TXTBSY => Self::Busy,
            Errno::INVAL => Self::Invalid("the system refuses it"),
            Errno::NAMETOOLONG => Self::Invalid("a name or the path is too long"),
            other => Self::Io(other),
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(number) => number.into(),
            None if error.kind() == std::io::ErrorKind::NotFound => Self::NotFound,
            None if error.kind() == std::io::ErrorKind::InvalidInput => Self::Changed,
            None if error.kind() == std::io::ErrorKind::Unsupported => Errno::NOTSUP.into(),
            None => Self::Io(Errno::IO),
        }
    }
}

/// Says where it went wrong.
pub(super) trait At<T> {
    fn at(self, path: &super::path::VirtualPath) -> Result<T, FsError>;
}

impl<T, E: Into<Fault>> At<T> for Result<T, E> {
    fn at(self, path: &super::path::VirtualPath) -> Result<T, FsError> {
        self.map_err(|error| FsError::new(&path.to_string(), error.into()))
    }
}
