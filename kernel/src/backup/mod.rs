//! Everything that must not be lost in one file, and back from it (K22).
//!
//! A backup is a tar, compressed with gzip: first `backup.json`, which says what follows ([`Manifest`]), then the store (`var/store/`), the
//! audit log (`var/audit/`), the content store (`var/blobs/`), what the operator wrote (`etc/`), the keys (`keys/`) and the operator's capsules
//! (`capsules/`), as regular files in the order in which they are listed. Directories follow from names. Nothing of it is in memory as a whole but
//! the list.
//!
//! - [`create`]: of a store that is open, a checkpoint of the engine; of one at rest, its files. Readers and writers go on meanwhile.
//! - [`restore`]: into a home with nothing in it. What is read is somebody's file: everything is bounded, named and hashed before it counts.
//!
//! Deliberately absent from a backup: `run/` and `cache/`, which are made again, `log/`, and `home/`, which belongs to the principals and
//! may be any size. Whoever has the file has the keys: it is 0600, and not encrypted.

#![allow(
    clippy::disallowed_methods,
    reason = "this module copies what the others own, and puts it back"
)]

mod blobs;
mod create;
mod fault;
mod restore;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::blobs::LeftOut;
pub use self::create::{BackupError, Made, Source, create, create_at_rest};
pub use self::restore::{Fault, RestoreError, Restored, restore};
use crate::config::BLOBS_MAX;
use crate::home::{Home, HomeError};

/// The form of a backup. A later one is refused.
pub const FORMAT: u32 = 1;

/// The name of the list.
const MANIFEST: &str = "backup.json";

/// Bytes of the list at most: as many files as there may be, each with a long name.
const MANIFEST_BYTES_MAX: u64 = 200 << 20;

/// Files of a backup at most, without blobs, of which each takes up to three.
const OTHER_FILES_MAX: usize = 100_000;

/// Files of a backup at most.
pub const FILES_MAX: usize = OTHER_FILES_MAX + 3 * BLOBS_MAX;

/// Bytes of a name in a backup at most: what every tar can hold.
pub const PATH_BYTES_MAX: usize = 250;

/// Directories in each other at most.
const DEPTH_MAX: usize = 16;

/// Bytes of a backup's files together at most. A size, not an allocation: no disk of today holds more.
const CONTENT_BYTES_MAX: u64 = 1 << 46;

/// What is saved. Everything else in a backup is refused.
const SAVED: [&str; 6] = ["capsules", "etc", "keys", "var/audit", "var/store", blobs::BLOBS];

/// Where a copy is made before it is packed.
const COPY: &str = "var/.backup";

/// Where a backup is unpacked before it is put in place.
const STAGING: &str = "var/.restore";

/// Exists while a home is being restored.
const MARKER: &str = "var/restoring";

/// What is in a backup: its first file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    /// [`FORMAT`].
    format: u32,
    /// Version of the program that made it.
    version: String,
    /// When, in milliseconds since 1970.
    made_at_ms: u64,
    /// The last commit of the store that is certainly in it, where the store was open.
    sequence: Option<u64>,
    /// What follows, in this order.
    files: Vec<Entry>,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its name, below the home.
    path: String,
    /// Its permission bits.
    mode: u32,
    /// Its size.
    bytes: u64,
    /// BLAKE3 of its content, in hexadecimal.
    blake3: String,
}

/// A home is half of what a backup was.
#[derive(Debug, thiserror::Error)]
#[error("{} is half restored: restoring it from a backup was begun and not finished", .home.display())]
pub struct Unfinished {
    /// Which.
    pub home: PathBuf,
}

impl Unfinished {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        format!(
            "`astrid restore FILE` begins again; or remove {}, and start with an empty home",
            self.home.display()
        )
    }
}

/// That a home is not half restored. To be asked under its lock, before anything of it is used.
///
/// # Errors
/// It is.
pub fn check(home: &Home) -> Result<(), Unfinished> {
    // What cannot be looked at is not taken for absent.
    match fs::symlink_metadata(home.root().join(MARKER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Unfinished {
            home: home.root().to_owned(),
        }),
    }
}

/// Removes what a backup that was interrupted left. To be asked under the lock.
///
/// # Errors
/// It cannot be removed.
pub fn clear(home: &Home) -> Result<(), HomeError> {
    let path = home.root().join(COPY);
    remove_tree(&path).map_err(|source| HomeError::Io {
        action: "remove",
        path,
        source,
    })
}

/// Removes a directory with everything in it. That it is not there is what was wanted.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes sure that what was done to the names in a directory lasts.
fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// A name that a backup must not have.
fn bad_name(path: &str, why: &'static str) -> Fault {
    Fault::Name {
        path: path.chars().take(PATH_BYTES_MAX).collect(),
        why,
    }
}

/// Whether a file of this name belongs to what is saved.
fn is_saved(path: &str) -> bool {
    let below = |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    SAVED.into_iter().any(below)
}
