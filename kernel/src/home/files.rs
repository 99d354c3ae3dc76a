//! How the daemon's own files are written, read and removed.

#![allow(clippy::disallowed_methods, reason = "this module writes for those that own files")]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{HomeError, check_owner};

/// Mode of a file that nobody else may read.
pub(crate) const PRIVATE_FILE: u32 = 0o600;

/// Most bytes of a file that people write.
pub(crate) const OPERATORS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether a file that replaced another must survive the machine's crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// File and directory are synced before this returns.
    Synced,
    /// A crash of the machine may lose it; a crash of the program not.
    Cached,
}

/// Replaces a file in one step: a reader sees the old one or the new one, whole, whatever kills this process when.
/// One writer a path at a time.
pub(crate) fn replace_file(path: &Path, parts: &[&[u8]], mode: u32, durability: Durability) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = directory.join(name);
    let written = write_new(&temporary, parts, mode, durability).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // What was written of it is of no use to anybody; the reason is what the caller needs.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    if durability == Durability::Synced {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn write_new(path: &Path, parts: &[&[u8]], mode: u32, durability: Durability) -> io::Result<()> {
    remove_file(path)?; // Left by a process that was killed: the name is always the same, so there is at most one.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    if durability == Durability::Synced {
        file.sync_all()?;
    }
    Ok(())
}

/// Writes a file of `run/`, which tells others about this process while it lives. Replaced in one step, 0600.
pub(crate) fn write_run_file(path: &Path, content: &str) -> io::Result<()> {
    replace_file(path, &[content.as_bytes()], PRIVATE_FILE, Durability::Cached)
}

/// The text of a file under `etc/`, which decides something: so it must be ours, and nobody else may write to it.
/// Nothing when there is none.
pub(crate) fn read_operators_file(path: &Path) -> Result<Option<String>, HomeError> {
    let io = |action| {
        move |source| HomeError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    };
    // Waiting for the writer of a pipe would be waiting for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    let found = file.metadata().map_err(io("look at"))?;
    if !found.is_file() {
        return Err(io("read")(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a file",
        )));
    }
    check_owner(path, &found, 0o022, false)?;
    if found.len() > OPERATORS_FILE_BYTES_MAX {
        return Err(HomeError::TooLarge {
            path: path.to_path_buf(),
            limit: OPERATORS_FILE_BYTES_MAX,
        });
    }
    let mut text = String::new();
    Read::take(&mut file, OPERATORS_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(io("read"))?;
    Ok(Some(text))
}

/// Removes a file. That it is not there is what was wanted.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_that_decides_something_is_read_only_if_nobody_else_could_write_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(matches!(read_operators_file(&path), Ok(None)));
        fs::write(&path, "text").unwrap();
        chmod(&path, 0o644);
        assert_eq!(read_operators_file(&path).unwrap().as_deref(), Some("text"));
        chmod(&path, 0o664);
        assert!(matches!(
            read_operators_file(&path),
            Err(HomeError::Mode { mode: 0o664, .. })
        ));
        chmod(&path, 0o600);
        fs::write(&path, vec![b' '; 2 << 20]).unwrap();
        assert!(matches!(read_operators_file(&path), Err(HomeError::TooLarge { .. })));
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(
            read_operators_file(&path),
            Err(HomeError::Io { action: "read", .. })
        ));
        assert!(matches!(
            read_operators_file(directory.path()),
            Err(HomeError::Io { action: "read", .. })
        ));
    }

    #[test]
    fn a_file_is_replaced_whole_and_with_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(directory.path().join(".file.tmp"), "left by a killed process").unwrap();
        for content in ["first", "second"] {
            replace_file(&path, &[content.as_bytes(), b"!"], PRIVATE_FILE, Durability::Synced).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{content}!"));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, PRIVATE_FILE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
