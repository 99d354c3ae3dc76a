//! Kept states of an upper: copies that share their blocks where the file system can.
//!
//! `snapshots/NAME/` has the copy (`upper/`) and what is known of it (`snapshot.json`). A name that begins with a dot is one that is being made.

#![allow(clippy::disallowed_methods, reason = "the overlay's own directory")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use astrid_wire::control::workspace::{SNAPSHOT_NAME_BYTES_MAX, SnapshotReport};
use rustix::fs::RenameFlags;
use serde::{Deserialize, Serialize};

use super::super::layer;
use super::commit::UPPER;
use super::rollback::{ASIDE, private_directory};
use super::{ReviewError, tree};

/// The directory, beside the upper.
pub const DIRECTORY: &str = "snapshots";

/// Snapshots of one overlay at most: each is a whole copy, where blocks are not shared.
pub const SNAPSHOTS_MAX: usize = 64;

const NEW: &str = ".new";
const META: &str = "snapshot.json";

/// Removes half a snapshot that a crash left.
///
/// # Errors
/// The file system's.
pub(super) fn clear(overlay: &Path) -> Result<(), ReviewError> {
    let parent = overlay.join(DIRECTORY);
    if parent.join(NEW).symlink_metadata().is_err() {
        return Ok(());
    }
    let snapshots = layer::open_root(&parent).map_err(io_error("open", &parent))?;
    tree::remove(&snapshots, OsStr::new(NEW), NEW.as_bytes())
}

/// What is known of a snapshot beside its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// Since when the workspace had been used then, in nanoseconds since 1970.
    pub since_ns: Option<i128>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Whether this is a name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=SNAPSHOT_NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits)
}

fn place(overlay: &Path, name: &str) -> Result<PathBuf, ReviewError> {
    if !is_name(name) {
        let text = format!(
            "{name:?} is no name of a snapshot: 1 to {SNAPSHOT_NAME_BYTES_MAX} of [a-z0-9._-], not with a dot first"
        );
        return Err(ReviewError::Snapshot(text));
    }
    Ok(overlay.join(DIRECTORY).join(name))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ReviewError {
    let path = path.display().to_string();
    move |source| ReviewError::Io { action, path, source }
}

/// Keeps the state of an upper.
///
/// # Errors
/// The file system's; a name that is none, or taken; too many.
pub fn make(overlay: &Path, name: &str, made_ms: u64, since_ns: Option<i128>) -> Result<SnapshotReport, ReviewError> {
    let path = place(overlay, name)?;
    if path.exists() {
        return Err(ReviewError::Snapshot(format!("there is a snapshot {name} already")));
    }
    if list(overlay)?.len() >= SNAPSHOTS_MAX {
        return Err(ReviewError::Snapshot(format!(
            "there are {SNAPSHOTS_MAX} snapshots; remove one first"
        )));
    }
    let root = layer::open_root(overlay).map_err(io_error("open", overlay))?;
    private_directory(&root, OsStr::new(DIRECTORY))?;
    let parent = overlay.join(DIRECTORY);
    let snapshots = layer::open_root(&parent).map_err(io_error("open", &parent))?;
    tree::remove(&snapshots, OsStr::new(NEW), NEW.as_bytes())?;
    private_directory(&snapshots, OsStr::new(NEW))?;
    let new = layer::open_directory(&snapshots, OsStr::new(NEW)).map_err(io_error("open", &parent))?;
    let upper = layer::open_directory(&root, OsStr::new(UPPER)).map_err(io_error("open", overlay))?;
    let copied = tree::copy_upper(&upper, &new, OsStr::new(UPPER));
    let kept = copied.and_then(|bytes| {
        let meta = Meta {
            made_ms,
            since_ns,
            bytes,
        };
        let text = serde_json::to_vec(&meta).map_err(|error| ReviewError::Snapshot(error.to_string()))?;
        fs::write(parent.join(NEW).join(META), text).map_err(io_error("write", &path))?;
        rustix::fs::syncfs(&new).map_err(|error| io_error("write", &path)(error.into()))?;
        fs::rename(parent.join(NEW), &path).map_err(io_error("write", &path))?;
        Ok(SnapshotReport {
            name: name.to_owned(),
            made_ms,
            bytes,
        })
    });
    if kept.is_err() {
        tree::remove(&snapshots, OsStr::new(NEW), NEW.as_bytes())?;
    }
    kept
}

/// All of them, by name.
///
/// # Errors
/// The file system's.
pub fn list(overlay: &Path) -> Result<Vec<SnapshotReport>, ReviewError> {
    let parent = overlay.join(DIRECTORY);
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list", &parent)(error)),
    };
    let mut found = Vec::new();
    for entry in entries.take(SNAPSHOTS_MAX * 2) {
        let entry = entry.map_err(io_error("list", &parent))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (true, Ok(meta)) = (is_name(&name), meta(&entry.path())) {
            found.push(SnapshotReport {
                name,
                made_ms: meta.made_ms,
                bytes: meta.bytes,
            });
        }
    }
    found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn meta(path: &Path) -> Result<Meta, ReviewError> {
    let text = fs::read(path.join(META)).map_err(io_error("read", path))?;
    serde_json::from_slice(&text).map_err(|error| ReviewError::Snapshot(error.to_string()))
}

/// What is known of one.
///
/// # Errors
/// That there is none.
pub fn find(overlay: &Path, name: &str) -> Result<Meta, ReviewError> {
    let missing = |_| ReviewError::Snapshot(format!("there is no snapshot {name}"));
    meta(&place(overlay, name)?).map_err(missing)
}

/// The upper becomes what it was; the snapshot stays.
///
/// # Errors
/// The file system's, and that there is no such snapshot. Until the last rename the upper is what it was.
pub fn restore(overlay: &Path, name: &str) -> Result<(), ReviewError> {
    find(overlay, name)?;
    let from = place(overlay, name)?.join(UPPER);
    let from = layer::open_root(&from).map_err(io_error("open", &from))?;
    let root = layer::open_root(overlay).map_err(io_error("open", overlay))?;
    let aside = OsStr::new(ASIDE);
    tree::remove(&root, aside, ASIDE.as_bytes())?;
    let restore = || {
        tree::copy_upper(&from, &root, aside)?;
        rustix::fs::syncfs(&root).map_err(|error| io_error("write", overlay)(error.into()))?;
        rustix::fs::renameat_with(&root, aside, &root, UPPER, RenameFlags::EXCHANGE)
            .map_err(|error| io_error("restore", overlay)(error.into()))
    };
    let restored = restore();
    tree::remove(&root, aside, ASIDE.as_bytes())?;
    restored
}

/// Removes one.
///
/// # Errors
/// The file system's, and that there is no such snapshot.
pub fn remove(overlay: &Path, name: &str) -> Result<SnapshotReport, ReviewError> {
    let meta = find(overlay, name)?;
    let parent = overlay.join(DIRECTORY);
    let snapshots = layer::open_root(&parent).map_err(io_error("open", &parent))?;
    let gone = OsStr::new(NEW);
    tree::remove(&snapshots, gone, NEW.as_bytes())?;
    fs::rename(place(overlay, name)?, parent.join(NEW)).map_err(io_error("remove", &parent))?;
    tree::remove(&snapshots, gone, NEW.as_bytes())?;
    Ok(SnapshotReport {
        name: name.to_owned(),
        made_ms: meta.made_ms,
        bytes: meta.bytes,
    })
}
