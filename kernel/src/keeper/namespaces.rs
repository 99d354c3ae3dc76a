//! Views of the system that only some processes have: mounts, a network, IPC.
//!
//! Who is not root enters a user namespace first, in which it is who it was and nobody else is anybody: files of other users look as if
//! they were of `nobody`. Root needs none, so that files stay whose they are. Where root may not mount, as in a container, it
//! enters one as well.
//!
//! What keeps a namespace alive are its processes, or descriptors of it: a mount that several programs share is made by a process that
//! ends, and held by the daemon.

#![allow(
    clippy::disallowed_methods,
    reason = "namespaces are files in /proc, and mounts have paths"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, Stat, StatVfsMountFlags, fstat, open, stat, statvfs};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::vfs::beneath;
use crate::vfs::mountinfo::{self, MountPoint};

/// The message that sets the flags of a network device, and that one is asked for an answer.
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;

/// The loopback device of every network is its first; what is set of it is that it is up.
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;

/// Bytes of the header of a message, and of the answer that carries an error.
const NETLINK_HEADER_BYTES: usize = 16;
const NETLINK_ANSWER_BYTES_MAX: usize = 4096;

/// What of `/proc` is about the whole machine, and where its devices and control groups are.
const SETTINGS: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];
const DEVICES: &str = "/sys";

/// Why there is no such view.
#[derive(Debug, thiserror::Error)]
pub(super) enum NamespaceError {
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
    #[error("{} belongs to user {uid}, group {gid}: only the daemon's own ({own_uid}, {own_gid}) can be mounted without root",
        .path.display())]
    NotOwn {
        path: PathBuf,
        uid: u32,
        gid: u32,
        own_uid: u32,
        own_gid: u32,
    },
    #[error("{} is not the directory that was attached", .0.display())]
    Moved(PathBuf),
}

impl NamespaceError {
    pub(super) fn errno(&self) -> i32 {
        match self {
            Self::System { source, .. } => source.raw_os_error().unwrap_or(0),
            Self::NotOwn { .. } | Self::Moved(_) => 0,
        }
    }
}

fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> NamespaceError {
    move |source| NamespaceError::System {
        doing: doing.into(),
        source: source.into(),
    }
}

/// What a merged directory is made of. All are absolute, and resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// What is never changed. The merged directory stands in its place.
    pub lower: PathBuf,
    /// Device and inode of that: another one that is there now is not mounted.
    pub identity: (u64, u64),
    /// What has been changed.
    pub upper: PathBuf,
    /// For the system; on the same file system as `upper`, and empty.
    pub work: PathBuf,
}

impl Layers {
    /// Of directories that are there. The path of the lowest has no links in it.
    ///
    /// # Errors
    /// The lowest is not there.
    pub fn of(lower: PathBuf, upper: PathBuf, work: PathBuf) -> io::Result<Self> {
        let found = stat(&lower)?;
        Ok(Self {
            identity: (found.st_dev, found.st_ino),
            lower,
            upper,
            work,
        })
    }
}

/// A merged directory: alive for as long as one of these is.
#[derive(Debug)]
pub struct Merged {
    /// The user namespace that it is of; none when root has made it.
    pub user: Option<OwnedFd>,
    /// The mount namespace that it is in.
    pub mounts: OwnedFd,
    /// Its root (`O_PATH`).
    pub root: OwnedFd,
}

/// Enters namespaces of these kinds, and what they need; whether with a user namespace.
pub(super) fn enter(kinds: CloneFlags) -> Result<bool, NamespaceError> {
    let doing = "cannot enter namespaces";
    if geteuid().is_root() {
        match unshare(kinds) {
            Ok(()) => return Ok(false),
            // In a container, root may be root of little.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(system(doing)(error)),
        }
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(kinds | CloneFlags::CLONE_NEWUSER).map_err(system(doing))?;
    map(uid, gid)?;
    Ok(true)
}

/// Enters a user namespace, which root does as well.
pub(super) fn enter_user() -> Result<(), NamespaceError> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(system("cannot enter a user namespace"))?;
    map(uid, gid)
}

/// In a new user namespace: who it was, and nobody else.
fn map(uid: u32, gid: u32) -> Result<(), NamespaceError> {
    let write = |name: &str, text: String| {
        let path = format!("/proc/self/{name}");
        fs::write(&path, text).map_err(system(format!("cannot write {path}")))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{uid} {uid} 1"))?;
    write("gid_map", format!("{gid} {gid} 1"))
}

/// Goes where a merged directory is mounted.
pub(super) fn join(user: Option<OwnedFd>, mounts: OwnedFd) -> Result<(), NamespaceError> {
    if let Some(user) = user {
        setns(user, CloneFlags::CLONE_NEWUSER).map_err(system("cannot enter the user namespace of the workspace"))?;
    }
    setns(mounts, CloneFlags::CLONE_NEWNS).map_err(system("cannot enter the mounts of the workspace"))
}

/// That this process is on that file system: the path that it went by may lead elsewhere by now, if somebody else may write above it.
pub(super) fn check_on(device: u64, cwd: &Path) -> Result<(), NamespaceError> {
    let found = stat(".").map_err(system(format!("cannot look at {}", cwd.display())))?;
    if found.st_dev == device {
        Ok(())
    } else {
        Err(NamespaceError::Moved(cwd.to_owned()))
    }
}

/// What is mounted from here on is this process's alone; what the system mounts is still seen.
pub(super) fn own_mounts() -> Result<(), NamespaceError> {
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(system("cannot keep mounts to itself"))
}

/// Shows what is at one path at another as well.
pub(super) fn bind(from: &Path, to: &Path) -> Result<(), NamespaceError> {
    let doing = || format!("cannot mount {} on {}", from.display(), to.display());
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(system(doing()))
}

/// Makes everything that is mounted read-only, modes, owners and times included, but these paths and all below.
pub(super) fn read_only_but(paths: &[&Path]) -> Result<(), NamespaceError> {
    let doing = || "cannot make the rest read-only".to_owned();
    let mut kept = Vec::new();
    for path in paths {
        // What is not there is said by who allows it.
        let Ok(path) = fs::canonicalize(path) else { continue };
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&path), &path, None::<&str>, flags, None::<&str>).map_err(system(doing()))?;
        kept.push(path);
    }
    remount_where(|point| !kept.iter().any(|path| point.starts_with(path)))
}

/// Makes the files read-only by which root sets up the whole machine: one of them names a program that the system starts, with nothing
/// kept from it, for everybody.
pub(super) fn read_only_settings() -> Result<(), NamespaceError> {
    for path in SETTINGS.iter().map(Path::new).filter(|path| path.exists()) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let doing = || format!("cannot make {} read-only", path.display());
        mount(Some(path), path, None::<&str>, flags, None::<&str>).map_err(system(doing()))?;
    }
    remount_where(|point| point.starts_with(DEVICES) || SETTINGS.iter().any(|path| point.starts_with(path)))
}

/// Makes the mounts at these points read-only.
fn remount_where(wanted: impl Fn(&Path) -> bool) -> Result<(), NamespaceError> {
    let doing = || "cannot make mounts read-only".to_owned();
    for MountPoint { point, .. } in mountinfo::all().map_err(system(doing()))? {
        if !wanted(&point) {
            continue;
        }
        match remount_read_only(&point) {
            // Another mount hides it, or nobody may go there.
            Err(NamespaceError::System { source, .. })
                if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::EACCES | libc::EINVAL))
                    && point != Path::new("/") => {}
            done => done?,
        }
    }
    Ok(())
}

/// Makes directories read-only, modes, owners and times included; one that is given in one of them stays what it is.
pub(super) fn read_only_around(directories: &[&Path], given: Option<&Path>) -> Result<(), NamespaceError> {
    // By a descriptor: its path leads to what is read-only in a moment.
    let opened = given.map(|given| {
        let opened = open(given, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        Ok((
            given,
            opened.map_err(system(format!("cannot open {}", given.display())))?,
        ))
    });
    let opened = opened.transpose()?;
    for directory in directories {
        bind(directory, directory)?;
        remount_read_only(directory)?;
    }
    match opened {
        Some((given, file)) => bind(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), given),
        None => Ok(()),
    }
}

/// No link on that file system is followed (statfs(2), mount(2); neither crate names them).
const ST_NOSYMFOLLOW: u64 = 0x2000;
const MS_NOSYMFOLLOW: u64 = 256;

/// Makes a mount read-only, and leaves what else was set of it.
pub(super) fn remount_read_only(directory: &Path) -> Result<(), NamespaceError> {
    let doing = || format!("cannot make {} read-only", directory.display());
    let present = statvfs(directory).map_err(system(doing()))?.f_flag;
    // What was set before must not be taken back.
    let kept = [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::NODIRATIME, MsFlags::MS_NODIRATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
        (
            StatVfsMountFlags::from_bits_retain(ST_NOSYMFOLLOW),
            MsFlags::from_bits_retain(MS_NOSYMFOLLOW),
        ),
    ];
    let kept = kept.iter().filter(|(flag, _)| present.contains(*flag));
    let flags = kept.fold(
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
        |flags, (_, flag)| flags | *flag,
    );
    mount(None::<&str>, directory, None::<&str>, flags, None::<&str>).map_err(system(doing()))
}

/// Makes the loopback device of a new network work.
pub(super) fn loopback_up() -> Result<(), NamespaceError> {
    let doing = "cannot set up the loopback device";
    let asked = (|| {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        send(&socket, &link_up(), SendFlags::empty())?;
        let mut answer = [0; NETLINK_ANSWER_BYTES_MAX];
        let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
        let error = answer[..length].get(NETLINK_HEADER_BYTES..NETLINK_HEADER_BYTES + 4);
        let error = error.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match error {
            Some(0) => Ok(()),
            Some(number) => Err(io::Error::from_raw_os_error(-number)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    })();
    asked.map_err(system::<io::Error>(doing))
}

/// A header (length, kind, flags, number, from whom), and a device (family, kind, number, flags, which of them count).
fn link_up() -> Vec<u8> {
    let mut device = vec![0; 4];
    device.extend(LOOPBACK.to_ne_bytes());
    device.extend(IFF_UP.to_ne_bytes());
    device.extend(IFF_UP.to_ne_bytes());
    let length = u32::try_from(NETLINK_HEADER_BYTES + device.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(device);
    message
}

/// Mounts layers in the place of the lowest, in namespaces that this process enters for it.
///
/// Whoever may write in the directory above can put something else there at any moment. So the lowest is opened once, itself, and everything is
/// done by that descriptor. What is mounted is put on the work directory first, where only the daemon writes, opened there, and moved.
pub(super) fn merge(layers: &Layers) -> Result<Merged, NamespaceError> {
    let Layers { lower, upper, work, .. } = layers;
    // Whose it is can only be told here: in a user namespace nobody else is anybody.
    let (_, found) = open_attached(layers)?;
    let (own_uid, own_gid) = (geteuid().as_raw(), getegid().as_raw());
    let with_user = enter(CloneFlags::CLONE_NEWNS)?;
    if with_user && (found.st_uid, found.st_gid) != (own_uid, own_gid) {
        return Err(NamespaceError::NotOwn {
            path: lower.clone(),
            uid: found.st_uid,
            gid: found.st_gid,
            own_uid,
            own_gid,
        });
    }
    own_mounts()?;
    let doing = || format!("cannot mount the workspace on {}", lower.display());
    // And again, for a descriptor of another mount namespace is no place to mount on.
    let (opened, _) = open_attached(layers)?;
    let place = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        place.display(),
        escaped(upper)?,
        escaped(work)?
    );
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some("overlay"), work, Some("overlay"), flags, Some(options.as_str())).map_err(system(doing()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(work, flags, Mode::empty()).map_err(system(doing()))?;
    mount(Some(work), &place, None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(system(doing()))?;
    let namespace = |name: &str| {
        let path = format!("/proc/self/ns/{name}");
        File::open(&path)
            .map(OwnedFd::from)
            .map_err(system(format!("cannot open {path}")))
    };
    Ok(Merged {
        user: if with_user { Some(namespace("user")?) } else { None },
        mounts: namespace("mnt")?,
        root,
    })
}

/// The lowest layer, if it is the one that was attached.
fn open_attached(layers: &Layers) -> Result<(OwnedFd, Stat), NamespaceError> {
    let path = &layers.lower;
    let opened = beneath::open_itself(path, OFlags::PATH).map_err(system(format!("cannot open {}", path.display())))?;
    let found = fstat(&opened).map_err(system(format!("cannot look at {}", path.display())))?;
    if (found.st_dev, found.st_ino) == layers.identity {
        Ok((opened, found))
    } else {
        Err(NamespaceError::Moved(path.clone()))
    }
}

/// A path as an option of a mount: what separates options and layers is escaped.
fn escaped(path: &Path) -> Result<String, NamespaceError> {
    let Some(text) = path.to_str() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8");
        return Err(system(format!("cannot mount {}", path.display()))(source));
    };
    Ok(text.chars().fold(String::new(), |mut text, sign| {
        if matches!(sign, '\\' | ',' | ':') {
            text.push('\\');
        }
        text.push(sign);
        text
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped(Path::new("/a,b:c\\d")).unwrap(), "/a\\,b\\:c\\\\d");
        assert_eq!(link_up().len(), 32);
    }
}
