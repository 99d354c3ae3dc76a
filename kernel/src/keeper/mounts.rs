//! What is mounted where, and which other paths lead to the same.
//!
//! A directory can be mounted at a second place: then what is kept from a program at one path is there at another, and what is allowed at the other
//! is allowed here, for rules are about inodes. So whatever is kept is kept at every path that leads to it.

#![allow(clippy::disallowed_methods, reason = "/proc is read, which no capsule names")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    /// The file system.
    device: String,
    /// The directory in it that is mounted.
    root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
}

/// Everything that this process sees mounted, in the order in which it was.
///
/// # Errors
/// The system's.
pub(super) fn all() -> io::Result<Vec<MountPoint>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

fn parse(table: &[u8]) -> Vec<MountPoint> {
    let lines = table.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        Some(MountPoint {
            device: String::from_utf8(fields.next()?.to_vec()).ok()?,
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

/// The other paths that lead to a directory (resolved), or to something in it.
pub(super) fn other_ways(directory: &Path, mounts: &[MountPoint]) -> Vec<PathBuf> {
    // The last that was mounted is seen.
    let longest = |one: &&MountPoint| one.point.components().count();
    let Some(own) = mounts
        .iter()
        .filter(|mount| directory.starts_with(&mount.point))
        .max_by_key(longest)
    else {
        return Vec::new();
    };
    let inside = |path: &Path, of: &Path| path.strip_prefix(of).map(Path::to_owned).ok();
    let Some(real) = inside(directory, &own.point).map(|below| own.root.join(below)) else {
        return Vec::new();
    };
    let others = mounts.iter().filter(|mount| mount.device == own.device);
    let ways = others.filter_map(|mount| match inside(&real, &mount.root) {
        // More than it is mounted there.
        Some(below) => Some(mount.point.join(below)),
        // A part of it is.
        None => mount.root.starts_with(&real).then(|| mount.point.clone()),
    });
    let ways = ways.map(|way| way.components().collect::<PathBuf>());
    ways.filter(|way| !way.starts_with(directory)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A18: what contains what is kept, or is contained in it, is kept where else it is mounted.
    #[test]
    fn every_way_is_found() {
        let table = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 254:1 / /data rw - ext4 /dev/vdb rw\n\
            31 22 254:1 / /mnt/a\\040b rw - ext4 /dev/vdb rw\n\
            32 22 254:1 /home /srv/h rw - ext4 /dev/vdb rw\n\
            33 22 254:1 /home/me/astrid/keys /k rw - ext4 /dev/vdb rw\n\
            34 22 254:1 /other /o rw - ext4 /dev/vdb rw\n\
            35 22 0:5 / /home rw - tmpfs tmpfs rw\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 7);
        let ways = |path: &str| other_ways(Path::new(path), &mounts);
        let found = ["/mnt/a b/home/me/astrid", "/srv/h/me/astrid", "/k"].map(PathBuf::from);
        assert_eq!(ways("/data/home/me/astrid"), found);
        assert_eq!(ways("/srv/h/me/astrid")[0], PathBuf::from("/data/home/me/astrid"));
        assert_eq!(unescaped(b"/a\\134\\04"), Path::new("/a\\\\04"));
        assert!(ways("/root/.astrid").is_empty() && ways("/home/me").is_empty());
        assert!(
            ways("/data/home/me/astrid/run")
                .iter()
                .all(|way| way.ends_with("me/astrid/run"))
        );
    }
}
