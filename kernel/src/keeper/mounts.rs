//! Which other paths lead to a directory, because it is mounted at several places.
//!
//! A directory can be mounted at a second place: then what is kept from a program at one path is there at another, and what is allowed at the other
//! is allowed here, for rules are about inodes. So whatever is kept is kept at every path that leads to it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};

use crate::vfs::mountinfo::MountPoint;

/// The other paths that lead to a directory (resolved), or to something in it, and that can be seen.
///
/// # Errors
/// The system's, about that directory.
pub(super) fn other_ways(directory: &Path, mounts: &[MountPoint]) -> io::Result<Vec<PathBuf>> {
    let own = seen(directory)?;
    let ways = ways(directory, own.mount, mounts).into_iter();
    Ok(ways
        .filter(|way| match (seen(&way.path), way.of) {
            // What another mount covers leads elsewhere.
            (Ok(there), Expected::Same) => there.file == own.file,
            (Ok(there), Expected::In(mount)) => there.mount == mount,
            (Err(_), _) => false,
        })
        .map(|way| way.path)
        .collect())
}

/// What a path leads to: which file, of which mount.
struct Seen {
    file: (u32, u32, u64),
    mount: u64,
}

fn seen(path: &Path) -> io::Result<Seen> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, flags)?;
    Ok(Seen {
        file: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
        mount: stat.stx_mnt_id,
    })
}

/// What is to be found at the end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The directory itself.
    Same,
    /// Something that is in this mount.
    In(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    path: PathBuf,
    of: Expected,
}

/// The ways to a directory of that mount: to itself, and to what is mounted in it.
fn ways(directory: &Path, mount: u64, mounts: &[MountPoint]) -> Vec<Way> {
    let below = |path: &Path, of: &Path| path.strip_prefix(of).map(Path::to_owned).ok();
    // What it is, and what is mounted in it, each as a directory of its file system.
    let own = mounts.iter().find(|one| one.id == mount);
    let own = own.and_then(|own| Some((own, own.root.join(below(directory, &own.point)?), true)));
    let inside = mounts.iter().filter(|one| one.point.starts_with(directory));
    let inside = inside.map(|one| (one, one.root.clone(), false));
    let mut ways = Vec::new();
    for (what, real, is_own) in own.into_iter().chain(inside) {
        for other in mounts.iter().filter(|other| other.device == what.device) {
            let (path, same) = match below(&real, &other.root) {
                // More than it is mounted there.
                Some(rest) => (other.point.join(rest), is_own),
                // A part of it is.
                None if other.root.starts_with(&real) => (other.point.clone(), false),
                None => continue,
            };
            let path: PathBuf = path.components().collect();
            if !path.starts_with(directory) {
                let of = if same { Expected::Same } else { Expected::In(other.id) };
                ways.push(Way { path, of });
            }
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::mountinfo::parse;

    /// A18: what contains what is kept, or is contained in it, is kept where else it is mounted.
    #[test]
    fn every_way_is_found() {
        let table = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 254:1 / /data rw - ext4 /dev/vdb rw\n\
            31 22 254:1 / /mnt/a\\040b rw - ext4 /dev/vdb rw\n\
            32 22 254:1 /home /srv/h rw - ext4 /dev/vdb rw\n\
            33 22 254:1 /home/me/astrid/keys /k rw - ext4 /dev/vdb rw\n\
            34 22 254:1 /other /o rw - ext4 /dev/vdb rw\n\
            35 22 0:5 / /home rw - tmpfs tmpfs rw\n\
            36 22 254:2 /av /data/home/me/astrid/var rw - ext4 /dev/vdc rw\n\
            37 22 254:2 / /elsewhere rw - ext4 /dev/vdc rw\n";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 9);
        let ways = |path: &str, mount| -> Vec<_> {
            let ways = ways(Path::new(path), mount, &mounts).into_iter();
            ways.map(|way| way.path.display().to_string()).collect()
        };
        let expected = ["/mnt/a b/home/me/astrid", "/srv/h/me/astrid", "/k", "/elsewhere/av"];
        assert_eq!(ways("/data/home/me/astrid", 30), expected);
        assert_eq!(ways("/srv/h/me/astrid", 32)[0], "/data/home/me/astrid");
        assert!(ways("/root/.astrid", 22).is_empty() && ways("/home/me", 35).is_empty());
        let all = ways("/data/home/me/astrid/run", 30);
        assert!(
            all.len() == 2 && all.iter().all(|way| way.ends_with("me/astrid/run")),
            "{all:?}"
        );
    }
}
