//! What a person does with an overlay: looks at what differs, commits it, throws it away, keeps states of it.
//!
//! All of it works on two directories: the *lower*, which belongs to somebody, and the *upper*, which holds what was written over it. Nothing here
//! runs while anybody else uses the upper; who calls sees to that.
//!
//! - [`changes`]: what differs, path by path;
//! - [`diff`]: the same as text and hashes;
//! - [`plan`]: what a commit will do, and what is in its way;
//! - [`journal`]: the plan on disk, and the point after which a crash completes it;
//! - [`commit`]: carries a plan out, and completes or undoes one that was cut short;
//! - `obstacles`: why a plan could not be carried out to its end;
//! - [`rollback`]: drops differences;
//! - [`snapshot`]: keeps states, and goes back to them;
//! - `stage`: new contents beside their places;
//! - [`tree`]: whole directories, removed and copied.

pub mod changes;
pub mod commit;
pub mod diff;
pub mod journal;
mod obstacles;
pub mod plan;
pub mod rollback;
pub mod snapshot;
mod stage;
pub mod tree;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use astrid_wire::control::workspace::{Conflict, escape};

use super::beneath::Beneath;
use super::layer;

/// Names of one directory that are looked at at most: more would not fit into memory beside everything else.
pub const NAMES_MAX: usize = 1 << 20;

/// Directories in directories at most: each one that is being looked at is an open file.
pub const DEPTH_MAX: usize = 200;

/// Bytes of a path at most that is looked at: longer ones no system call takes.
pub const PATH_BYTES_MAX: usize = 4000;

/// Characters of a path in a sentence at most.
const BRIEF_MAX: usize = 160;

/// Why an overlay cannot be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where, in the workspace.
        path: String,
        /// What it said.
        source: io::Error,
    },
    /// A directory has more names than are looked at.
    #[error("{path} has more than {NAMES_MAX} names")]
    TooMany {
        /// Which.
        path: String,
    },
    /// Directories are nested deeper than is looked at.
    #[error("{path} is more than {DEPTH_MAX} directories deep")]
    TooDeep {
        /// Which.
        path: String,
    },
    /// A plan would have more steps than one has.
    #[error("more than {} changes at once; commit some paths first", plan::STEPS_MAX)]
    TooManySteps,
    /// A path that was named is none.
    #[error("{0} is no path in a workspace")]
    Path(String),
    /// The directory that is worked on a copy of is another than it was.
    #[error("{path} is not the directory that this workspace was made of")]
    Moved {
        /// Where it was.
        path: String,
    },
    /// A journal is not what was written.
    #[error("the journal of a commit is damaged: {0}")]
    Journal(String),
    /// A path changed while it was being committed.
    #[error("{path} changed just now; nothing was committed")]
    Raced {
        /// Which.
        path: String,
    },
    /// Nothing was written, because not all of it could have been.
    #[error("{}", refused(paths, *total))]
    Refused {
        /// Which paths, and why; the first of them.
        paths: Vec<Conflict>,
        /// How many there are.
        total: u64,
    },
    /// A commit passed its point of no return and was stopped by the file system.
    #[error(
        "{0}; the commit is past its point of no return: it goes on when the workspace is used next, or the daemon starts"
    )]
    Unfinished(Box<ReviewError>),
    /// There is no such change.
    #[error("{0} is no change")]
    NoChange(String),
    /// There is no such snapshot, or there is one already, or its name is none.
    #[error("{0}")]
    Snapshot(String),
    /// It cannot be recorded, and so it does not happen.
    #[error("{0}")]
    NotRecorded(String),
    /// A test stops here, as a crash would.
    #[error("stopped on purpose")]
    Stopped,
}

impl ReviewError {
    /// Makes one of what a file system said about a path.
    pub(crate) fn io(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = brief(path);
        move |source| Self::Io { action, path, source }
    }

    /// Whether there is no room on a disk.
    pub(super) fn is_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// What could be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io { .. } if self.is_full() => Some("make room on that disk"),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("let the user who runs the daemon read and write there")
                }
                _ => None,
            },
            Self::Moved { .. } => Some("put it back, or attach the directory again"),
            Self::Refused { .. } => Some("make them writable, or commit other paths, or roll these back"),
            Self::Unfinished(error) => error.hint(),
            Self::NoChange(_) => Some("`astrid workspace diff --names` lists them"),
            Self::Raced { .. } => Some("try again when nothing else writes there"),
            _ => None,
        }
    }
}

/// A path for people: `.` is the workspace itself.
#[must_use]
pub fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { escape(path) }
}

/// A path in a sentence: of a long one the beginning and the end.
#[must_use]
pub fn brief(path: &[u8]) -> String {
    let text = shown(path);
    let length = text.chars().count();
    if length <= BRIEF_MAX {
        return text;
    }
    let begin: String = text.chars().take(BRIEF_MAX / 2).collect();
    let end: String = text.chars().skip(length - BRIEF_MAX / 2).collect();
    format!("{begin}...{end}")
}

/// The first of the paths that were refused, and how many there are.
fn refused(paths: &[Conflict], total: u64) -> String {
    let said: Vec<String> = paths
        .iter()
        .map(|path| format!("{}: {}", path.path, path.why))
        .collect();
    let more = total.saturating_sub(paths.len() as u64);
    let more = if more > 0 {
        format!("; and {more} more")
    } else {
        String::new()
    };
    format!("nothing was committed: {}{more}", said.join("; "))
}

/// `directory/name`.
pub(super) fn joined(directory: &[u8], name: &OsStr) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

/// The directory that a path is in, and its name in it.
fn parted(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (&[], OsStr::from_bytes(path)),
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Whether a path is another, or below it.
fn is_within(path: &[u8], other: &[u8]) -> bool {
    other.is_empty()
        || path
            .strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The order of a walk: name by name.
fn order(one: &[u8], other: &[u8]) -> std::cmp::Ordering {
    one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/'))
}

/// Which paths somebody chose.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    paths: Vec<Vec<u8>>,
}

impl Choice {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// These and what is below them; all when there are none. As people write them: `./src/` is `src`, and `.` is all.
    ///
    /// # Errors
    /// [`ReviewError::Path`] for what is empty, absolute, or has another `.` or `..` in it.
    pub fn of(mut paths: Vec<Vec<u8>>) -> Result<Self, ReviewError> {
        for path in &mut paths {
            let mut plain = &**path;
            while let Some(rest) = plain.strip_prefix(b"./") {
                plain = rest;
            }
            let plain = plain.strip_suffix(b"/").unwrap_or(plain);
            if matches!(&**path, b"." | b"./") {
                return Ok(Self::all());
            }
            let wrong = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
            if plain.split(|byte| *byte == b'/').any(wrong) {
                return Err(ReviewError::Path(shown(path)));
            }
            *path = plain.to_vec();
        }
        Ok(Self { paths })
    }

    /// Whether that is everything.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.paths.is_empty()
    }

    /// Those that were named.
    #[must_use]
    pub fn paths(&self) -> &[Vec<u8>] {
        &self.paths
    }

    /// Whether a path was chosen.
    #[must_use]
    pub fn has(&self, path: &[u8]) -> bool {
        self.is_all() || self.paths.iter().any(|chosen| is_within(path, chosen))
    }

    /// Whether something below a directory may have been chosen.
    fn may_have_below(&self, directory: &[u8]) -> bool {
        self.has(directory) || self.paths.iter().any(|chosen| is_within(chosen, directory))
    }
}

/// The two directories of an overlay.
#[derive(Debug)]
pub struct Layers {
    /// What belongs to somebody.
    pub lower: Beneath,
    /// What was written over it.
    pub upper: Beneath,
}

impl Layers {
    /// Opens both: a directory of the host, and the upper in the directory of an overlay.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(lower: &Path, overlay: &Path) -> Result<Self, ReviewError> {
        Ok(Self {
            lower: root(lower)?,
            upper: root(&overlay.join(commit::UPPER))?,
        })
    }
}

/// A directory of the host, open for reading: of one that is open for nothing but going on, attributes cannot be asked.
///
/// # Errors
/// The file system's.
pub fn root(path: &Path) -> Result<Beneath, ReviewError> {
    let open = layer::open_root(path).map_err(|source| ReviewError::Io {
        action: "open",
        path: path.display().to_string(),
        source,
    })?;
    Ok(Beneath::from_fd(open))
}

#[cfg(test)]
mod tests;
