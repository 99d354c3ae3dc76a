//! An open directory, and nothing that is not below it: the one place that opens what a path names.
//!
//! A path here is relative, has no empty, `.` or `..` segment, and goes through no symbolic link: whoever resolves links does it name by name
//! and asks again (`plain`, `overlay`). The system is told so each time, with `openat2` (`RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`,
//! `RESOLVE_NO_MAGICLINKS`); so what is swapped while it is used is an error, never another file. Where the system has no `openat2`, the way is
//! walked: one directory after the other is opened by its name, itself and not what it may link to.
//!
//! Names are bytes. Errors are the system's, as numbers; who knows which path of a guest it was about makes a [`super::error::FsError`] of it.
//!
//! Deliberately absent: a way out of it. Only [`Beneath::open`] takes a path of the host, which an operator gave.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::OnceLock;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rustix::fs::{
    AtFlags, CWD, Dir as Entries, Mode, OFlags, RenameFlags, ResolveFlags, Statx, StatxFlags, Timestamps,
};
use rustix::io::Errno;

pub use rustix::fs::FileType;

use super::temporary::Temporary;

/// What the system said.
pub type Answer<T> = Result<T, Errno>;

/// How a way is resolved: below the start, and through nothing that is a link.
const STRICT: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// What every opening has: it waits for nothing, takes no terminal, and is not handed to programs that are started.
const ALWAYS: OFlags = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What is asked for, with what every opening has. Who only asks for a place waits for nothing anyhow, and `openat2` would refuse it.
fn always(flags: OFlags) -> OFlags {
    if flags.contains(OFlags::PATH) {
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC
    } else {
        flags | ALWAYS
    }
}

/// File systems whose files are views of the running system, the daemon's own memory among them: proc, sysfs, cgroups, debugfs, tracefs, securityfs,
/// devpts.
const SYSTEMS_OWN: [i64; 8] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x1cd1,
];

/// Whether nothing on such a file system is handed out: who reads there reads the running system, with the daemon's eyes.
pub(super) fn is_systems_own(system: &rustix::fs::StatFs) -> bool {
    SYSTEMS_OWN.contains(&system.f_type)
}

/// A moment, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds in the second.
    pub nanoseconds: u32,
}

/// What anything with a name takes in bytes for being there, also an empty one: an inode and a name, as file systems that we know store
/// them, rounded up.
pub const ENTRY_BYTES: u64 = 1024;

/// What is known about a file or directory, itself.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// What it is.
    pub kind: FileType,
    /// Bytes of its content.
    pub size: u64,
    /// Bytes that it takes on the disk, with [`ENTRY_BYTES`] for being there.
    pub taken: u64,
    /// Permission bits, set-id and sticky.
    pub mode: u32,
    /// Names that it has.
    pub links: u32,
    /// Who owns it: user and group.
    pub owner: (u32, u32),
    /// The file system that it is on, and its number there: equal for two names of one file.
    pub identity: (u64, u64),
    /// When its content was changed last.
    pub modified: Moment,
    /// When anything about it was changed last. Nobody can set it.
    pub changed: Moment,
    /// When it was made, where the file system keeps that.
    pub born: Option<Moment>,
}

/// How large a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of its content.
    pub size: u64,
    /// Bytes that are allocated for its content.
    pub allocated: u64,
}

impl From<Statx> for Stat {
    fn from(stat: Statx) -> Self {
        let moment = |at: &rustix::fs::StatxTimestamp| Moment {
            seconds: at.tv_sec,
            nanoseconds: at.tv_nsec,
        };
        let known = StatxFlags::from_bits_retain(stat.stx_mask);
        let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
        // A whiteout only stands where something is below.
        let there = if kind == FileType::CharacterDevice {
            0
        } else {
            ENTRY_BYTES
        };
        Self {
            kind,
            size: stat.stx_size,
            taken: stat.stx_blocks.saturating_mul(512).saturating_add(there),
            mode: u32::from(stat.stx_mode) & 0o7777,
            links: stat.stx_nlink,
            owner: (stat.stx_uid, stat.stx_gid),
            identity: (
                rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
                stat.stx_ino,
            ),
            modified: moment(&stat.stx_mtime),
            changed: moment(&stat.stx_ctime),
            born: known.contains(StatxFlags::BTIME).then(|| moment(&stat.stx_btime)),
        }
    }
}

/// What is known about an open file.
///
/// # Errors
/// The system's.
pub fn stat_of(file: impl AsFd) -> Answer<Stat> {
    let all = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, all)?.into())
}

/// How large an open file is, and nothing else of it: a file system that is asked for times as well has to make every later write tell itself
/// from those before.
///
/// # Errors
/// The system's.
pub fn extent_of(file: impl AsFd) -> Answer<Extent> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE | StatxFlags::BLOCKS)?;
    Ok(Extent {
        size: stat.stx_size,
        allocated: stat.stx_blocks.saturating_mul(512),
    })
}

/// What is known about a name in a directory that is open; of a link, the link.
///
/// # Errors
/// The system's.
pub(super) fn stat_in(dir: impl AsFd, name: &OsStr) -> Answer<Stat> {
    let all = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    Ok(rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, all)?.into())
}

/// The names in a directory that is open, as [`Beneath::names`] gives them.
///
/// # Errors
/// The system's.
pub(super) fn names_in(dir: BorrowedFd<'_>) -> Answer<impl Iterator<Item = Answer<(OsString, FileType)>> + use<>> {
    let entries = Entries::read_from(dir)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => {
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            Some(Ok((name, entry.file_type())))
        }
        Err(error) => Some(Err(error)),
    }))
}

/// A directory that is open, and everything below it.
#[derive(Debug)]
pub struct Beneath {
    dir: Dir,
    /// The way is walked, as on a system without `openat2`.
    walks: bool,
}

impl AsFd for Beneath {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A directory that something is in: a root, or one that was opened for this.
#[derive(Debug)]
pub(super) enum Parent<'a> {
    /// It is open anyhow.
    Root(BorrowedFd<'a>),
    /// It was opened.
    Below(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => *root,
            Self::Below(dir) => dir.as_fd(),
        }
    }
}

impl Beneath {
    /// Opens a directory of the host by a path that somebody trusted gave. Links in that path are followed, this once.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> Answer<Self> {
        let found = Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        // It may be open for nothing but paths; here it is also asked for attributes and names.
        Self::from_fd(OwnedFd::from(found.into_std_file())).dir(Path::new(""))
    }

    /// A directory that is open already.
    #[must_use]
    pub fn from_fd(dir: OwnedFd) -> Self {
        Self {
            dir: Dir::from_std_file(File::from(dir)),
            walks: !has_openat2(),
        }
    }

    /// The same, but walking, whatever the system has.
    #[cfg(test)]
    #[must_use]
    pub fn walking(self) -> Self {
        Self { walks: true, ..self }
    }

    /// A directory below; the empty path is this one, opened again.
    ///
    /// # Errors
    /// `ELOOP` or `ENOTDIR` for a link, and the system's.
    pub fn dir(&self, path: &Path) -> Answer<Self> {
        let fd = match self.fd(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
            // So it is told of a last name that is a link, too.
            Err(Errno::NOTDIR) if self.stat(path).is_ok_and(|stat| stat.kind == FileType::Symlink) => {
                return Err(Errno::LOOP);
            }
            answer => answer?,
        };
        Ok(Self {
            dir: Dir::from_std_file(File::from(fd)),
            walks: self.walks,
        })
    }

    /// What is at a path, open for nothing but to ask about it. The last name may be a link: then it is the link.
    ///
    /// # Errors
    /// The system's.
    pub fn handle(&self, path: &Path) -> Answer<OwnedFd> {
        self.fd(path, OFlags::PATH, Mode::empty())
    }

    /// Opens a regular file; what else is there is `EISDIR`, or `ENOTSUP`.
    ///
    /// # Errors
    /// `ELOOP` for a link, and the system's.
    pub fn file(&self, path: &Path, flags: OFlags, mode: u32) -> Answer<File> {
        regular(self.fd(path, flags, Mode::from_raw_mode(mode))?)
    }

    /// What is known about what is at a path; a link itself.
    ///
    /// # Errors
    /// The system's.
    pub fn stat(&self, path: &Path) -> Answer<Stat> {
        if path.as_os_str().is_empty() {
            return stat_of(self);
        }
        let (parent, name) = self.parent(path)?;
        stat_in(parent, name)
    }

    /// Where a link says that it leads.
    ///
    /// # Errors
    /// `EINVAL` when it is none, and the system's.
    pub fn read_link(&self, path: &Path) -> Answer<OsString> {
        let (parent, name) = self.parent(path)?;
        let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// The names in this directory, in no order, with what they are where the file system says so; without `.` and `..`.
    ///
    /// # Errors
    /// The system's.
    pub fn names(&self) -> Answer<impl Iterator<Item = Answer<(OsString, FileType)>> + use<>> {
        names_in(self.as_fd())
    }

    /// Makes a directory, with this mode whatever the process masks.
    ///
    /// # Errors
    /// The system's.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        let made = open_in(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        rustix::fs::fchmod(made, Mode::from_raw_mode(mode))
    }

    /// Makes a link with this text.
    ///
    /// # Errors
    /// The system's.
    pub fn make_link(&self, target: &OsStr, path: &Path) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::symlinkat(target, parent, name)
    }

    /// Removes what is not a directory.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, path: &Path) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
    }

    /// Removes a directory with nothing in it.
    ///
    /// # Errors
    /// The system's.
    pub fn remove_dir(&self, path: &Path) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    /// Renames, as `renameat2`: with `NOREPLACE`, `EXCHANGE`, or neither.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, from: &Path, to: &Path, flags: RenameFlags) -> Answer<()> {
        let (old, from) = self.parent(from)?;
        let (new, to) = self.parent(to)?;
        rustix::fs::renameat_with(old, from, new, to, flags)
    }

    /// Sets permission bits. A link has none (`ELOOP`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_mode(&self, path: &Path, mode: u32) -> Answer<()> {
        set_mode_of(self.handle(path)?, mode)
    }

    /// Sets times; of a link its own.
    ///
    /// # Errors
    /// The system's.
    pub fn set_times(&self, path: &Path, times: &Timestamps) -> Answer<()> {
        if path.as_os_str().is_empty() {
            return rustix::fs::futimens(self.dir(path)?, times);
        }
        let (parent, name) = self.parent(path)?;
        rustix::fs::utimensat(parent, name, times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// A file with a new name beside `path`, open for reading and writing, that will take its place ([`Temporary::publish`]).
    ///
    /// # Errors
    /// The system's.
    pub fn temporary_beside(&self, path: &Path) -> Answer<Temporary> {
        let (parent, _) = self.parent(path)?;
        let parent = match parent {
            Parent::Below(dir) => dir,
            Parent::Root(_) => self.handle(Path::new(""))?,
        };
        Temporary::new(parent)
    }

    fn parent<'p>(&self, path: &'p Path) -> Answer<(Parent<'_>, &'p OsStr)> {
        let bytes = path.as_os_str().as_bytes();
        check(bytes)?;
        Ok(match bytes.iter().rposition(|byte| *byte == b'/') {
            None if bytes.is_empty() => return Err(Errno::INVAL),
            None => (Parent::Root(self.as_fd()), path.as_os_str()),
            Some(slash) => {
                let dir = Path::new(OsStr::from_bytes(&bytes[..slash]));
                let dir = self.fd(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
                (Parent::Below(dir), OsStr::from_bytes(&bytes[slash + 1..]))
            }
        })
    }

    /// The one opening.
    fn fd(&self, path: &Path, flags: OFlags, mode: Mode) -> Answer<OwnedFd> {
        let bytes = path.as_os_str().as_bytes();
        check(bytes)?;
        if bytes.is_empty() {
            return rustix::fs::openat(self, ".", always(flags), mode);
        }
        if !self.walks {
            return retried(|| rustix::fs::openat2(self, path, always(flags), mode, STRICT));
        }
        let mut at = Parent::Root(self.as_fd());
        let mut names = bytes.split(|byte| *byte == b'/').map(OsStr::from_bytes).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                return open_walking(&at, name, flags, mode);
            }
            let below = open_walking(&at, name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
            at = Parent::Below(below);
        }
        Err(Errno::INVAL)
    }
}

/// Sets the permission bits of what a handle is of. Handles that are open for nothing cannot be asked to, but by their name under `/proc`,
/// which leads to just that file.
pub(super) fn set_mode_of(handle: OwnedFd, mode: u32) -> Answer<()> {
    use std::os::fd::AsRawFd;
    match FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) {
        FileType::Symlink => return Err(Errno::LOOP),
        FileType::RegularFile | FileType::Directory => {}
        _ => return Err(Errno::NOTSUP),
    }
    let name = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::chmod(name, Mode::from_raw_mode(mode))
}

/// Only regular files are handed out, and none that is a view of the system, which may be mounted below a root.
fn regular(fd: OwnedFd) -> Answer<File> {
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile if is_systems_own(&rustix::fs::fstatfs(&fd)?) => Err(Errno::NOTSUP),
        FileType::RegularFile => Ok(File::from(fd)),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::NOTSUP),
    }
}

/// Opens a regular file in a directory that is open; what else is there is `EISDIR`, or `ENOTSUP`.
///
/// # Errors
/// `ELOOP` for a link, and the system's.
pub(super) fn file_in(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: u32) -> Answer<File> {
    regular(open_in(dir, name, flags, Mode::from_raw_mode(mode))?)
}

/// The same of one that is there, if nothing is mounted on it.
///
/// # Errors
/// `EXDEV` when something is, `ELOOP` for a link, and the system's.
pub(super) fn file_unmounted(dir: impl AsFd, name: &OsStr, flags: OFlags) -> Answer<File> {
    regular(open_unmounted(dir, name, flags)?)
}

/// Opens one name in a directory that is open.
///
/// # Errors
/// `ELOOP` for a link, and the system's.
pub(super) fn open_in(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> Answer<OwnedFd> {
    if name.as_bytes().contains(&b'/') || matches!(name.as_bytes(), b"" | b"." | b"..") {
        return Err(Errno::INVAL);
    }
    retried(|| rustix::fs::openat(&dir, name, always(flags), mode))
}

/// Opens a directory of the host by an absolute path, through no link at all: what has that path itself, or an error.
///
/// # Errors
/// `ELOOP` or `ENOTDIR` for a link on the way, and the system's.
pub fn open_itself(path: &Path, flags: OFlags) -> Answer<OwnedFd> {
    let names = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
    let root = rustix::fs::openat(CWD, "/", always(OFlags::PATH | OFlags::DIRECTORY), Mode::empty())?;
    Beneath::from_fd(root).fd(names, flags | OFlags::DIRECTORY, Mode::empty())
}

/// Opens one name in a directory that is open, if nothing is mounted there.
///
/// # Errors
/// `EXDEV` when something is, `ELOOP` for a link, and the system's.
pub(super) fn open_unmounted(dir: impl AsFd, name: &OsStr, flags: OFlags) -> Answer<OwnedFd> {
    check(name.as_bytes())?;
    if has_openat2() {
        let strict = STRICT | ResolveFlags::NO_XDEV;
        return match retried(|| rustix::fs::openat2(&dir, name, always(flags), Mode::empty(), strict)) {
            // The last name is told as it is told everywhere else.
            Err(Errno::LOOP) => open_walking(&dir, name, flags, Mode::empty()),
            answer => answer,
        };
    }
    let opened = open_walking(&dir, name, flags, Mode::empty())?;
    if rustix::fs::fstat(&dir)?.st_dev == rustix::fs::fstat(&opened)?.st_dev {
        Ok(opened)
    } else {
        Err(Errno::XDEV)
    }
}

/// Opens a directory some names below one that is open, at once, if nothing is mounted on the way.
///
/// # Errors
/// `ENOSYS` where the system cannot, `EXDEV` when something is mounted, and the system's.
pub(super) fn dir_below(dir: BorrowedFd<'_>, path: &Path) -> Answer<OwnedFd> {
    check(path.as_os_str().as_bytes())?;
    if !has_openat2() {
        return Err(Errno::NOSYS);
    }
    let flags = always(OFlags::RDONLY | OFlags::DIRECTORY);
    retried(|| rustix::fs::openat2(dir, path, flags, Mode::empty(), STRICT | ResolveFlags::NO_XDEV))
}

/// One name, itself. A link that is asked for as a directory is told as `openat2` tells it.
fn open_walking(dir: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> Answer<OwnedFd> {
    match open_in(&dir, name, flags, mode) {
        Err(Errno::NOTDIR) => match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        },
        answer => answer,
    }
}

fn retried<T>(mut ask: impl FnMut() -> Answer<T>) -> Answer<T> {
    loop {
        match ask() {
            Err(Errno::INTR | Errno::AGAIN) => {}
            answer => return answer,
        }
    }
}

/// Only a path that stays below: the system is not even asked about others.
fn check(path: &[u8]) -> Answer<()> {
    let wrong = |name: &[u8]| matches!(name, b"" | b"." | b"..");
    if path.is_empty() {
        return Ok(());
    }
    if path.split(|byte| *byte == b'/').any(wrong) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Whether the system has `openat2`. A filter of a container may answer with another error than a kernel that is too old.
#[must_use]
pub fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        retried(|| rustix::fs::openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)).is_ok()
    })
}
