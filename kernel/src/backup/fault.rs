//! Why a backup is not put back.

use std::io;
use std::path::PathBuf;

use super::{CONTENT_BYTES_MAX, FILES_MAX, FORMAT, MANIFEST};
use crate::home::HomeError;
use crate::lock::LockError;

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no pack, or it is damaged or cut.
    #[error("it cannot be unpacked")]
    Pack(#[source] io::Error),
    /// It has no list.
    #[error("it does not begin with {MANIFEST}")]
    NoList,
    /// The list is not one.
    #[error("its {MANIFEST} cannot be read")]
    List(#[source] serde_json::Error),
    /// Made by a newer version of this program.
    #[error("it has format {found}, and this program knows format {FORMAT}: it was made by a newer one")]
    Newer {
        /// What it has.
        found: u32,
    },
    /// A name that must not be in a backup.
    #[error("it names {path:?}: {why}")]
    Name {
        /// The name.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More than can be.
    #[error("it says that it has {files} files and {bytes} bytes; {FILES_MAX} and {CONTENT_BYTES_MAX} are the limits")]
    TooMuch {
        /// Files.
        files: usize,
        /// Bytes.
        bytes: u64,
    },
    /// Something that is not a regular file.
    #[error("{path:?} in it is no regular file")]
    Kind {
        /// Its name.
        path: String,
    },
    /// Another file than the list says.
    #[error("{found:?} stands in it where {expected:?} belongs")]
    Order {
        /// What is there.
        found: String,
        /// What should be.
        expected: String,
    },
    /// Not what was saved.
    #[error("the content of {path:?} in it is not what was saved")]
    Content {
        /// Which.
        path: String,
    },
    /// It ends too early.
    #[error("it ends before {expected:?}")]
    Missing {
        /// What is missing.
        expected: String,
    },
    /// There is more than the list says.
    #[error("something follows what it lists")]
    Trailing,
}

/// Why a home was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something would be overwritten.
    #[error("{} is there already: a backup is restored only where nothing is", .0.display())]
    NotEmpty(PathBuf),
    /// What was given is no whole backup.
    #[error("{} is not a backup that can be restored", .file.display())]
    Backup {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: Fault,
    },
    /// The disk is too small.
    #[error("the backup needs {needed} bytes, and {free} are free")]
    NoRoom {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// A daemon is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The home's directories.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl RestoreError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotEmpty(path) => format!("choose another home with --home, or move {} away", path.display()),
            Self::Backup {
                source: Fault::Newer { .. },
                ..
            } => "use the version of astrid that made it, or a later one".to_owned(),
            Self::Backup { .. } => "use another copy of it; the home is as it was".to_owned(),
            Self::NoRoom { .. } => "make room on the disk".to_owned(),
            Self::Lock(error) => error.hint(),
            Self::Home(error) => error.hint(),
            Self::Io { path, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "make room on the disk".to_owned(),
                _ => format!("look at {}", path.display()),
            },
        }
    }
}
