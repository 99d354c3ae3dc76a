//! Whether a program that an earlier daemon started still sees a workspace.
//!
//! Programs that are not to outlive their daemon are ended when it goes, but not in the same instant: the next daemon may be there first. What is
//! mounted for them must not be changed by it meanwhile, so it looks at the mounts of all processes before it uses a workspace for the first time.

#![allow(clippy::disallowed_methods, reason = "looks at the mounts of processes")]

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Bytes of the list of one process's mounts that are looked at, at most.
const MOUNTS_BYTES_MAX: u64 = 16 << 20;

/// A path as lists of mounts have it.
fn escaped(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b',' | b'=' | b' ' | b'\t' | b'\n' | b'\\' => text.extend(format!("\\{byte:03o}").bytes()),
            _ => text.push(byte),
        }
    }
    text
}

/// Whether one of these mounts is an overlay that writes there.
fn has(mounts: &[u8], upper: &[u8]) -> bool {
    let mut options = mounts.split(|byte| matches!(byte, b'\n' | b' ' | b','));
    options.any(|option| option.strip_prefix(b"upperdir=") == Some(upper))
}

/// Whether some process has an overlay mounted that writes into this directory.
///
/// # Errors
/// The processes cannot be listed.
pub(super) fn is_mounted(upper: &Path) -> io::Result<bool> {
    let upper = escaped(upper);
    for process in fs::read_dir("/proc")? {
        let process = process?;
        if !process.file_name().as_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that has ended meanwhile, or is somebody else's, has none of ours mounted.
        let Ok(file) = fs::File::open(process.path().join("mountinfo")) else {
            continue;
        };
        let mut mounts = Vec::new();
        if io::Read::read_to_end(&mut io::Read::take(file, MOUNTS_BYTES_MAX), &mut mounts).is_ok()
            && has(&mounts, &upper)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart() {
        let line = |upper: &str| {
            format!("36 35 0:40 / /p rw - overlay overlay rw,lowerdir=/p,upperdir={upper},workdir=/w,userxattr\n")
        };
        let upper = escaped(Path::new("/h/var/a b,c/upper"));
        assert!(has(line("/h/var/a\\040b\\054c/upper").as_bytes(), &upper));
        let upper = escaped(Path::new("/h/var/a b/upper"));
        assert!(has(line("/h/var/a\\040b/upper").as_bytes(), &upper));
        assert!(!has(line("/h/var/a\\040b/upper2").as_bytes(), &upper));
        assert!(!has(line("/h/var/a").as_bytes(), &upper));
    }

    #[test]
    fn nobody_has_what_is_not_there() {
        assert!(!is_mounted(Path::new("/nonexistent/upper")).unwrap_or(true));
    }
}
