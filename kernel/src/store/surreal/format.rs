//! Which version of this program's layout a store has, and how an older one becomes a newer one.

#![allow(clippy::disallowed_methods, reason = "this module owns the store's file `format`")]

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use crate::home::{Durability, PRIVATE_FILE, replace_file};
use crate::store::engine::{Engine, EngineError, Later};

/// Makes of a store of one version one of the next. It may be done a second time, if the first was interrupted, and then finds some of it
/// done.
pub type Migration = for<'a> fn(&'a dyn Engine) -> Later<'a, Result<(), EngineError>>;

/// The n-th makes version n + 1 of version n, counted from 1.
pub(super) const MIGRATIONS: &[Migration] = &[];

const NAME: &str = "format";

/// What the text starts with; the version follows.
const WORDS: &str = "astrid store ";

/// Bytes of the file that are read: it is one short line.
const BYTES_MAX: u64 = 64;

/// The version that a list of migrations leads to.
pub(super) fn newest(migrations: &[Migration]) -> u32 {
    u32::try_from(migrations.len()).map_or(u32::MAX, |n| n.saturating_add(1))
}

/// The version of the store in a directory; `None`: it does not say.
pub(super) fn read(directory: &Path) -> Result<Option<u32>, EngineError> {
    let io = |error: std::io::Error| EngineError::Io(format!("{NAME}: {error}").into());
    let file = match File::open(directory.join(NAME)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let version = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim_end().strip_prefix(WORDS));
    match version.and_then(|version| version.parse().ok()) {
        Some(version) if version > 0 => Ok(Some(version)),
        _ => Err(EngineError::Damaged(
            format!("its file `{NAME}` is not a line `{WORDS}` with a version").into(),
        )),
    }
}

/// Writes the version; on disk when this returns.
pub(super) fn write(directory: &Path, version: u32) -> Result<(), EngineError> {
    let line = format!("{WORDS}{version}\n");
    replace_file(
        &directory.join(NAME),
        &[line.as_bytes()],
        PRIVATE_FILE,
        Durability::Synced,
    )
    .map_err(|error| super::disk::io_error(NAME, &error))
}
