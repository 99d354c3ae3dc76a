//! What is mounted where, as the system tells it: `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

#![allow(clippy::disallowed_methods, reason = "/proc is read, which no capsule names")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Its number, as `statx` tells it of what is in it.
    pub id: u64,
    /// The file system: `major:minor`.
    pub device: String,
    /// The directory in it that is mounted, from its root.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
}

/// Everything that this process sees mounted, in the order in which it was.
///
/// # Errors
/// The system's.
pub fn all() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// What a table of the system says; lines that are none are left out.
#[must_use]
pub fn parse(table: &[u8]) -> Vec<MountPoint> {
    let lines = table.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        Some(MountPoint {
            id: std::str::from_utf8(fields.next()?).ok()?.parse().ok()?,
            device: String::from_utf8(fields.nth(1)?.to_vec()).ok()?,
            root: unescaped(fields.next()?),
            point: unescaped(fields.next()?),
        })
    });
    mounts.collect()
}

/// A path as the system writes it into a table: blanks and the like as octal numbers.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let number = more.get(..3).filter(|_| *first == b'\\');
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = number.map_or(more, |_| &more[3..]);
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_unescaped() {
        assert_eq!(unescaped(b"/a\\134\\04"), Path::new("/a\\\\04"));
        let line = b"31 22 254:1 /r /mnt/a\\040b rw - ext4 /dev/vdb rw\nnothing\n";
        let expected = MountPoint {
            id: 31,
            device: "254:1".to_owned(),
            root: "/r".into(),
            point: "/mnt/a b".into(),
        };
        assert_eq!(parse(line), [expected]);
    }
}
