//! What guests are told: errors, and what is known of a file.

use super::super::bindings::astrid::kernel::fs::{FsError, Kind, Meta};
use crate::audit;
use crate::authority::Denied;
use crate::port::watch::WatchError;
use crate::vfs::beneath::{FileType, Moment, Stat};
use crate::vfs::error::{Fault, FsError as Failed};
use crate::vfs::{Info, Tree};

impl From<Denied> for FsError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

impl From<audit::Refused> for FsError {
    fn from(refused: audit::Refused) -> Self {
        Self::Failed(format!("it cannot be recorded: {refused}"))
    }
}

impl From<WatchError> for FsError {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::TooMany => Self::TooMany(u32::MAX),
            WatchError::Missing(_) => Self::Unsupported(error.to_string()),
            WatchError::Io(error) => Failed::new("", error.into()).into(),
        }
    }
}

impl From<Failed> for FsError {
    fn from(failed: Failed) -> Self {
        // Which path it was about, and of which kind it is, is said by who shows it.
        let text = || {
            let why = match failed.fault {
                Fault::Invalid(why) | Fault::Unsupported(why) => why.to_owned(),
                Fault::NoSpace { needed, left } => format!("it needs {needed} bytes, {left} are left"),
                fault => fault.to_string(),
            };
            match failed.fault.hint() {
                Some(hint) => format!("{why}; {hint}"),
                None => why,
            }
        };
        match failed.fault {
            Fault::Invalid(_) => Self::Invalid(text()),
            Fault::NotFound => Self::NotFound,
            Fault::Exists => Self::Exists,
            Fault::NotADirectory => Self::NotADirectory,
            Fault::IsADirectory => Self::IsADirectory,
            Fault::NotEmpty => Self::NotEmpty,
            Fault::Escapes => Self::Escapes,
            Fault::Unsupported(_) => Self::Unsupported(text()),
            Fault::NoSpace { .. } | Fault::DiskFull => Self::NoSpace(text()),
            Fault::TooLarge(limit) => Self::TooLarge(limit),
            Fault::TooMany(limit) => Self::TooMany(u32::try_from(limit).unwrap_or(u32::MAX)),
            Fault::Changed => Self::Changed,
            Fault::Busy => Self::Busy,
            Fault::NoWorkspace => Self::NoWorkspace,
            Fault::Denied | Fault::Unavailable(_) | Fault::Io(_) => Self::Failed(text()),
        }
    }
}

fn kind(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link,
        _ => Kind::Other,
    }
}

pub(super) fn meta(stat: &Stat, changed: bool) -> Meta {
    let Moment { seconds, nanoseconds } = stat.modified;
    Meta {
        kind: kind(stat.kind),
        size: match stat.kind {
            FileType::RegularFile | FileType::Symlink => stat.size,
            _ => 0,
        },
        modified_ms: seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(nanoseconds / 1_000_000)),
        mode: stat.mode & 0o777,
        changed,
    }
}

/// What is said of a place: whether it is not as in the attached directory is said only where there is one.
pub(super) fn meta_in(tree: &Tree, info: &Info) -> Meta {
    meta(&info.stat, info.written && tree.has_layers())
}
