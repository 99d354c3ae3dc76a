//! The directory of the host that a workspace is a copy of: whether what is there is still it, and why it cannot be used.
//!
//! A path says little about what will be there when it is used: whoever may write in the directory above can put another one in its place at any
//! moment, or a link. So it is opened each time by its own name, through no link, and what is open is compared with what was attached. Nothing else
//! is ever done by the path.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::super::beneath::{self, Beneath};
use super::super::error::{Fault, FsError};
use super::super::review::ReviewError;
use super::directory::DirectoryError;

/// Device and inode.
pub(super) type Identity = (u64, u64);

/// Why somebody has no workspace, or cannot use it now.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is none.
    #[error("there is no workspace")]
    None,
    /// Its directory is not there, or cannot be one.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its directory is not the one that it was made of.
    #[error("{} is not the directory that was attached", .0.display())]
    Moved(PathBuf),
    /// Programs that an earlier daemon started still see it.
    #[error("programs that an earlier daemon started still see it")]
    Earlier,
    /// A commit that was cut short could be neither completed nor undone.
    #[error("a commit that was cut short is not complete: {0}")]
    Unfinished(#[source] ReviewError),
    /// The directory of its overlay cannot be used.
    #[error("its overlay cannot be used: {0}")]
    Overlay(#[from] io::Error),
}

impl Unusable {
    /// What a guest is told, who is to know nothing of the host.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::None => Fault::NoWorkspace,
            Self::Directory(_) | Self::Moved(_) => Fault::Unavailable("its directory is not there as it was attached"),
            Self::Earlier => Fault::Busy,
            Self::Unfinished(_) => Fault::Unavailable("a commit of it is not complete"),
            Self::Overlay(error) => match Errno::from_io_error(error) {
                Some(number) => number.into(),
                None => Fault::Io(Errno::IO),
            },
        }
    }
}

impl From<Unusable> for FsError {
    fn from(error: Unusable) -> Self {
        Self::new("workspace://", error.fault())
    }
}

impl From<Unusable> for ReviewError {
    fn from(error: Unusable) -> Self {
        let text = error.to_string();
        let (path, source) = match error {
            Unusable::Moved(path) => {
                return Self::Moved {
                    path: path.display().to_string(),
                };
            }
            Unusable::Unfinished(error) => return error,
            Unusable::Directory(DirectoryError::Io { path, source }) => (path.display().to_string(), source),
            Unusable::Overlay(source) => ("its overlay".to_owned(), source),
            _ => ("it".to_owned(), io::Error::other(text)),
        };
        Self::Io {
            action: "open",
            path,
            source,
        }
    }
}

/// Opens what is at a path, itself.
pub(super) fn open(path: &Path) -> Result<Beneath, Unusable> {
    match beneath::open_itself(path, OFlags::RDONLY) {
        Ok(fd) => Ok(Beneath::from_fd(fd)),
        // It was by its own name when it was attached.
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Unusable::Moved(path.to_owned())),
        Err(error) => Err(Unusable::Directory(DirectoryError::Io {
            path: path.to_owned(),
            source: error.into(),
        })),
    }
}

/// Opens what is at a path if it is the directory that was attached.
pub(super) fn open_same(path: &Path, attached: Identity) -> Result<Beneath, Unusable> {
    let opened = open(path)?;
    let found = rustix::fs::fstat(&opened).map_err(io::Error::from)?;
    if (found.st_dev, found.st_ino) == attached {
        Ok(opened)
    } else {
        Err(Unusable::Moved(path.to_owned()))
    }
}
