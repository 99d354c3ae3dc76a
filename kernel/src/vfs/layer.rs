//! One layer of an overlay, as it is on disk: the format of the Linux overlay file system mounted with `userxattr`, so that the kernel's own
//! mount of the same directories shows the same files.
//!
//! - A *whiteout* says that a name of the layer below is gone: a character device 0:0, or, only read and never written here, an empty file with
//!   [`WHITEOUT`] in a directory whose [`OPAQUE`] is `x`.
//! - An *opaque* directory hides what the layer below has at its place: [`OPAQUE`] is `y`.
//! - A file that was copied from the layer below carries [`ORIGIN`].
//!
//! Everything works on an open directory and one name in it, and follows no symbolic link. Paths are for who opened the directory. Redirects and
//! metadata-only copies (`redirect_dir`, `metacopy`) are never written; a mount that we make has them off.

#![allow(
    clippy::disallowed_methods,
    reason = "files of layers, which were opened beneath their roots"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, makedev};
use rustix::io::Errno;

use super::beneath;

/// Names that are the overlay's own, and are not copied from one layer to another.
const OURS: &[u8] = b"user.overlay.";

/// Names of the attributes that are copied.
const USERS: &[u8] = b"user.";

/// Lists of who may do what with a file, and with what is made in a directory.
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Attribute of a directory that hides what is below it: `y`; `x` says that whiteouts of the form [`WHITEOUT`] are in it.
pub const OPAQUE: &str = "user.overlay.opaque";

/// Attribute of a file that was copied from the layer below.
pub const ORIGIN: &str = "user.overlay.origin";

/// Bytes of [`ORIGIN`] before the handle, as the kernel writes it.
const ORIGIN_HEAD_BYTES: usize = 21;

/// Types of handles that have the number of the inode in them: of ext4, tmpfs and most others, of XFS, of Btrfs.
const ORIGIN_TYPES: [u8; 7] = [0x01, 0x02, 0x81, 0x82, 0x4d, 0x4e, 0x4f];

/// Attribute of an empty file that stands for a whiteout.
pub const WHITEOUT: &str = "user.overlay.whiteout";

/// Bytes of a list of attributes, or of one value, at most: what the kernel allows.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// Attributes of two files that are compared at most: each may be as long.
const COMPARED_MAX: usize = 64;

/// Bytes that are copied at once where nothing better is there.
const CHUNK_BYTES: usize = 128 << 10;

/// Bytes that are asked of `copy_file_range` at once: it can be interrupted in between.
const RANGE_BYTES: u64 = 64 << 20;

/// What stands in a layer under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// The name is gone.
    Whiteout,
    /// A device, a fifo, a socket: nothing that is handed out.
    Other,
}

/// What a layer has under a name.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// All of what the file system says.
    pub stat: Stat,
}

/// The coarsest clock of a file system, in nanoseconds.
const COARSE_NS: i128 = 2_000_000_000;

impl Entry {
    /// Permission bits, with set-id and sticky.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.stat.st_mode & 0o7777
    }

    /// Who owns it: user and group.
    #[must_use]
    pub fn owner(&self) -> (u32, u32) {
        (self.stat.st_uid, self.stat.st_gid)
    }

    /// Bytes of its content.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// When its content changed last, in nanoseconds since 1970.
    #[must_use]
    pub fn mtime_ns(&self) -> i128 {
        i128::from(self.stat.st_mtime) * 1_000_000_000 + i128::from(self.stat.st_mtime_nsec)
    }

    /// When anything about it changed last, in nanoseconds since 1970. No program can set it.
    #[must_use]
    pub fn ctime_ns(&self) -> i128 {
        i128::from(self.stat.st_ctime) * 1_000_000_000 + i128::from(self.stat.st_ctime_nsec)
    }

    /// Whether anything about it changed after a moment, in nanoseconds since 1970, or may have: a file system that keeps seconds does not tell
    /// what was before and what was after in one of them. Some keep only every second one.
    #[must_use]
    pub fn changed_after(&self, moment_ns: i128) -> bool {
        self.changed_at_most_ns() > moment_ns
    }

    /// The last moment at which anything about it may have changed, in nanoseconds since 1970.
    #[must_use]
    pub fn changed_at_most_ns(&self) -> i128 {
        let changed = self.ctime_ns();
        let coarse = changed % 1_000_000_000 == 0;
        if coarse { changed + COARSE_NS - 1 } else { changed }
    }

    /// Which inode it is, of which file system.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }
}

fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice if stat.st_rdev == makedev(0, 0) => Kind::Whiteout,
        _ => Kind::Other,
    }
}

/// What a directory has under a name, itself: a link is not followed. `None` when there is nothing. An empty file that stands for a whiteout is
/// told by [`stands_for_whiteout`], which costs opening it.
///
/// # Errors
/// The file system's.
pub fn look(directory: impl AsFd, name: &OsStr) -> io::Result<Option<Entry>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Entry {
            kind: kind(&stat),
            stat,
        })),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What an open file is.
///
/// # Errors
/// The file system's.
pub fn look_at(file: impl AsFd) -> io::Result<Entry> {
    let stat = rustix::fs::fstat(file)?;
    Ok(Entry {
        kind: kind(&stat),
        stat,
    })
}

/// Opens a directory in a directory; a link is an error (`ELOOP` or `ENOTDIR`).
///
/// # Errors
/// The file system's.
pub fn open_directory(directory: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    open(directory, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Opens a regular file in a directory for reading; anything else is an error.
///
/// # Errors
/// The file system's; `InvalidInput` when it is no regular file.
pub fn open_file(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    let file = File::from(open(directory, name, OFlags::RDONLY, Mode::empty())?);
    match look_at(&file)?.kind {
        Kind::File => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Makes a file in a directory, for reading and writing, which must not be there yet. Only its owner may use it.
///
/// # Errors
/// The file system's.
pub fn create_file(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    Ok(File::from(open(directory, name, flags, Mode::RUSR | Mode::WUSR)?))
}

fn open(directory: impl AsFd, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    Ok(beneath::open_in(directory, name, flags, mode)?)
}

/// Makes a whiteout under a name that is free.
///
/// # Errors
/// The file system's; one that cannot hold devices is no place for an overlay.
pub fn make_whiteout(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mknodat(
        directory,
        name,
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )?)
}

/// Whether an empty file is the other form of a whiteout.
///
/// # Errors
/// The file system's.
pub fn stands_for_whiteout(directory: impl AsFd, name: &OsStr, entry: &Entry) -> io::Result<bool> {
    if entry.kind != Kind::File || entry.size() > 0 {
        return Ok(false);
    }
    Ok(attribute(open_file(directory, name)?, WHITEOUT)?.is_some())
}

/// Whether a directory hides what is below it.
///
/// # Errors
/// The file system's.
pub fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    Ok(attribute(directory, OPAQUE)?.is_some_and(|value| value == b"y"))
}

/// Whether whiteouts in a directory may be empty files.
///
/// # Errors
/// The file system's.
pub fn has_whiteout_files(directory: impl AsFd) -> io::Result<bool> {
    Ok(attribute(directory, OPAQUE)?.is_some_and(|value| value == b"x"))
}

/// From now on a directory hides what is below it.
///
/// # Errors
/// The file system's.
pub fn make_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

/// From now on a directory shows what is below it.
///
/// # Errors
/// The file system's.
pub fn make_transparent(directory: impl AsFd) -> io::Result<()> {
    match rustix::fs::fremovexattr(directory, OPAQUE) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file was copied from the layer below.
///
/// # Errors
/// The file system's.
pub fn has_origin(file: impl AsFd) -> io::Result<bool> {
    Ok(attribute(file, ORIGIN)?.is_some())
}

/// What a file or directory was copied from, as far as it says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin(Vec<u8>);

impl Origin {
    /// The numbers that may be that of its inode: the kernel writes a handle of it, whose form the file system of the layer below has chosen.
    /// `None` where it has a form that we do not know, or none was written.
    #[must_use]
    pub fn inodes(&self) -> Option<Vec<u64>> {
        // Version, magic, length, flags, type, and the file system's 16 bytes.
        let handle = self
            .0
            .get(ORIGIN_HEAD_BYTES..)
            .filter(|_| ORIGIN_TYPES.contains(&self.0[4]))?;
        let words: Vec<u64> = handle
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .collect();
        let long = words.windows(2).map(|pair| pair[0] | pair[1] << 32);
        Some(long.chain(words.iter().copied()).collect())
    }
}

/// What a file or directory was copied from; `None` when it does not say that it was.
///
/// # Errors
/// The file system's.
pub fn origin(file: impl AsFd) -> io::Result<Option<Origin>> {
    Ok(attribute(file, ORIGIN)?.map(Origin))
}

/// Says that a file was copied from the layer below.
///
/// # Errors
/// The file system's.
pub fn mark_origin(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, ORIGIN, b"", XattrFlags::empty())?)
}

/// Says that a file or directory was copied from what another one was copied from, if that says so.
///
/// # Errors
/// The file systems'.
pub fn copy_origin(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    match origin(from)? {
        Some(Origin(handle)) => Ok(rustix::fs::fsetxattr(to, ORIGIN, &handle, XattrFlags::empty())?),
        None => Ok(()),
    }
}

fn attribute(file: impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    // What is asked here is a letter or an opaque handle: longer values are cut by nobody, they are an error.
    let mut value = [0; 256];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Copies the content of one file into another, which is empty: shares its blocks where the file system can, copies inside the kernel where
/// that can, keeps holes. Returns the bytes of it.
///
/// # Errors
/// The file systems'.
pub fn copy_content(from: &File, to: &File) -> io::Result<u64> {
    let size = look_at(from)?.size();
    if size == 0 {
        return Ok(0);
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(size);
    }
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let (data, end) = extent(from, at, size)?;
        if data >= size {
            break;
        }
        copy_range(from, to, data, end)?;
        at = end;
    }
    Ok(size)
}

/// The next run of data from `at` on. All of it is one where holes are not told.
///
/// # Errors
/// The file system's.
pub fn extent(from: &File, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let data = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(Errno::NXIO) => return Ok((size, size)),
        Err(_) => return Ok((at, size)),
    };
    let end = rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(data)).unwrap_or(size);
    Ok((data, end.min(size)))
}

fn copy_range(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    while at < end {
        let length = usize::try_from((end - at).min(RANGE_BYTES)).unwrap_or(CHUNK_BYTES);
        let (mut read, mut written) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), length) {
            // It was cut meanwhile.
            Ok(0) => return Ok(()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::NOTSUP | Errno::BADF | Errno::PERM) => {
                return copy_by_hand(from, to, at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(mut from: &File, mut to: &File, at: u64, end: u64) -> io::Result<()> {
    from.seek(SeekFrom::Start(at))?;
    to.seek(SeekFrom::Start(at))?;
    let mut left = end - at;
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let length = match from.read(&mut chunk[..most]) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// Gives a file or directory the attributes of another: `user.*` but for the overlay's own, lists of who may do what, the owner where that is
/// allowed, the mode, and last the times.
///
/// # Errors
/// The file systems'. A file system without attributes takes none, and that is none.
pub fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    copy_user_attributes(&from, &to)?;
    copy_acls(&from, &to)?;
    let entry = look_at(&from)?;
    give_to(&to, entry.owner())?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(entry.mode()))?;
    set_mtime(&to, entry.mtime_ns())
}

/// Gives an open file or directory a time.
///
/// # Errors
/// The file system's.
pub fn set_mtime(file: impl AsFd, mtime_ns: i128) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &only_mtime(mtime_ns))?)
}

fn only_mtime(mtime_ns: i128) -> Timestamps {
    let seconds = mtime_ns.div_euclid(1_000_000_000);
    let nanoseconds = mtime_ns.rem_euclid(1_000_000_000);
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
        },
    }
}

/// Gives a file or directory to an owner and group, where we may give it away; elsewhere it stays ours, without set-id.
///
/// # Errors
/// The file system's.
pub fn give_to(to: impl AsFd, (owner, group): (u32, u32)) -> io::Result<()> {
    if look_at(&to)?.owner() == (owner, group) {
        return Ok(());
    }
    match rustix::fs::fchown(to, Some(Uid::from_raw(owner)), Some(Gid::from_raw(group))) {
        Ok(()) | Err(Errno::PERM | Errno::INVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file or directory the lists of another that say who may do what. What they say about the group is in the mode until a mode is set,
/// so that comes after it.
///
/// # Errors
/// The file systems'. One without such lists takes none, and that is none.
pub fn copy_acls(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for name in ACLS {
        let Some(value) = whole_attribute(&from, name.as_bytes())? else {
            continue;
        };
        match rustix::fs::fsetxattr(&to, name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Names of people's attributes: `user.*`, but for the overlay's own. A file system without attributes has none.
fn user_names(of: impl AsFd) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut names = Vec::with_capacity(256);
    loop {
        names.clear();
        match rustix::fs::flistxattr(&of, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if names.capacity() < ATTRIBUTE_BYTES_MAX => names.reserve(ATTRIBUTE_BYTES_MAX),
            Err(Errno::NOTSUP) => return Ok(BTreeSet::new()),
            Err(error) => return Err(error.into()),
        }
    }
    let ours = |name: &&[u8]| name.starts_with(USERS) && !name.starts_with(OURS);
    Ok(names
        .split(|byte| *byte == 0)
        .filter(ours)
        .map(<[u8]>::to_vec)
        .collect())
}

/// The whole of an attribute, if it is there.
fn whole_attribute(of: impl AsFd, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
    match rustix::fs::fgetxattr(&of, name, rustix::buffer::spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file or directory the attributes of another that are people's: `user.*`, but for the overlay's own.
///
/// # Errors
/// The file systems'. One without attributes takes none, and that is none.
pub fn copy_user_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for name in user_names(&from)? {
        let Some(value) = whole_attribute(&from, &name)? else {
            continue;
        };
        match rustix::fs::fsetxattr(&to, &*name, &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Names of people's attributes that one file has otherwise than another, or only one of them has: so many at most. And whether there may be more.
///
/// # Errors
/// The file systems'; more than a list of them may be.
pub fn differing_attributes(
    one: impl AsFd,
    other: Option<impl AsFd>,
    names_max: usize,
) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut names = user_names(&one)?;
    if let Some(other) = &other {
        names.append(&mut user_names(other)?);
    }
    let mut more = names.len() > COMPARED_MAX;
    let mut differing = Vec::new();
    for name in names.into_iter().take(COMPARED_MAX) {
        let same = match &other {
            Some(other) => whole_attribute(&one, &name)? == whole_attribute(other, &name)?,
            None => false,
        };
        if !same && differing.len() == names_max {
            more = true;
            break;
        }
        if !same {
            differing.push(name);
        }
    }
    Ok((differing, more))
}

/// Copies a regular file to a name that is free: content, attributes, mode, owner and time. Returns the copy, and the bytes of it.
///
/// # Errors
/// The file systems'. What was begun is removed.
pub fn copy_file(from: &File, directory: impl AsFd, name: &OsStr) -> io::Result<(File, u64)> {
    copy_file_with(from, directory, name, |to| copy_attributes(from, to))
}

/// Copies the content of a regular file to a name that is free; everything else it gets from who calls. Returns the copy, and the bytes of it.
///
/// # Errors
/// The file systems'. What was begun is removed.
pub fn copy_file_with(
    from: &File,
    directory: impl AsFd,
    name: &OsStr,
    attributes: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<(File, u64)> {
    let to = create_file(&directory, name)?;
    let copied = copy_content(from, &to).and_then(|bytes| attributes(&to).map(|()| bytes));
    match copied {
        Ok(bytes) => Ok((to, bytes)),
        Err(error) => {
            rustix::fs::unlinkat(&directory, name, AtFlags::empty()).ok();
            Err(error)
        }
    }
}

/// Copies a symbolic link, with its time, to a name that is free.
///
/// # Errors
/// The file systems'.
pub fn copy_symlink(from: impl AsFd, name: &OsStr, to: impl AsFd, as_name: &OsStr) -> io::Result<()> {
    let target = rustix::fs::readlinkat(&from, name, Vec::new())?;
    let entry = look(&from, name)?.ok_or(io::ErrorKind::NotFound)?;
    rustix::fs::symlinkat(&*target, &to, as_name)?;
    give_link_to(&to, as_name, entry.owner());
    let time = only_mtime(entry.mtime_ns());
    rustix::fs::utimensat(&to, as_name, &time, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Gives a link to an owner and group, if we may.
pub fn give_link_to(directory: impl AsFd, name: &OsStr, (owner, group): (u32, u32)) {
    let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
    rustix::fs::chownat(directory, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW).ok();
}

/// Makes a directory that is like another, without what is in that: attributes, mode, owner and time. Making something in it changes the time
/// again.
///
/// # Errors
/// The file systems'.
pub fn copy_directory(from: impl AsFd, to: impl AsFd, as_name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&to, as_name, Mode::RWXU)?;
    let made = open_directory(&to, as_name)?;
    copy_attributes(&from, &made)?;
    Ok(made)
}

/// Copies whatever has this name to a name that is free: a file, a link, a whiteout, or a directory without what is in it. An overlay's own
/// marks are not copied, but for whiteouts.
///
/// # Errors
/// The file systems'; `Unsupported` for a device, a fifo or a socket.
pub fn copy_entry(from: impl AsFd, name: &OsStr, to: impl AsFd, as_name: &OsStr) -> io::Result<Kind> {
    let entry = look(&from, name)?.ok_or(io::ErrorKind::NotFound)?;
    match entry.kind {
        Kind::File => drop(copy_file(&open_file(&from, name)?, &to, as_name)?),
        Kind::Symlink => copy_symlink(&from, name, &to, as_name)?,
        Kind::Directory => drop(copy_directory(open_directory(&from, name)?, &to, as_name)?),
        Kind::Whiteout => make_whiteout(&to, as_name)?,
        Kind::Other => return Err(io::ErrorKind::Unsupported.into()),
    }
    Ok(entry.kind)
}

/// Opens a directory of the host by its path, as a root. Who gives the path is trusted: links in it are followed, once.
///
/// # Errors
/// The file system's.
pub fn open_root(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn name(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    /// A copy has the content, the mode, the time and the attributes of people, and none of the overlay's.
    #[test]
    fn a_copy_is_like_what_it_is_of() {
        let temporary = tempfile::tempdir().unwrap();
        let root = open_root(temporary.path()).unwrap();
        let path = temporary.path().join("a");
        fs::write(&path, b"content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let file = open_file(&root, name("a")).unwrap();
        rustix::fs::fsetxattr(&file, "user.colour", b"blue", XattrFlags::empty()).unwrap();
        mark_origin(&file).unwrap();
        set_mtime(&file, 1_000_000_007_000_000_009).unwrap();
        assert_eq!(copy_entry(&root, name("a"), &root, name("b")).unwrap(), Kind::File);
        let copy = open_file(&root, name("b")).unwrap();
        let entry = look_at(&copy).unwrap();
        assert_eq!((entry.mode(), entry.mtime_ns()), (0o750, 1_000_000_007_000_000_009));
        assert_eq!(fs::read(temporary.path().join("b")).unwrap(), b"content");
        assert_eq!(attribute(&copy, "user.colour").unwrap().unwrap(), b"blue");
        assert!(has_origin(&file).unwrap() && !has_origin(&copy).unwrap());
        let again = copy_entry(&root, name("a"), &root, name("b")).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    /// Where a file system keeps seconds only, what happened in the second of a moment may have happened after it.
    #[test]
    fn coarse_times_are_not_trusted() {
        let root = open_root(&std::env::temp_dir()).unwrap();
        let mut entry = look_at(root).unwrap();
        (entry.stat.st_ctime, entry.stat.st_ctime_nsec) = (1000, 5);
        let moment = 1_000_000_000_000;
        assert!(entry.changed_after(moment + 4) && !entry.changed_after(moment + 5));
        entry.stat.st_ctime_nsec = 0;
        assert!(entry.changed_after(moment + 1_999_999_998) && !entry.changed_after(moment + 2_000_000_000));
        assert!(!entry.changed_after(i128::MAX));
    }

    /// What marks a layer is what the kernel's overlay reads: a device 0:0, and an attribute.
    #[test]
    fn marks_are_those_of_the_kernel() {
        let temporary = tempfile::tempdir().unwrap();
        let root = open_root(temporary.path()).unwrap();
        make_whiteout(&root, name("gone")).unwrap();
        assert_eq!(look(&root, name("gone")).unwrap().unwrap().kind, Kind::Whiteout);
        assert_eq!(look(&root, name("never")).unwrap().map(|entry| entry.kind), None);
        fs::create_dir(temporary.path().join("d")).unwrap();
        let directory = open_directory(&root, name("d")).unwrap();
        assert!(!is_opaque(&directory).unwrap());
        make_opaque(&directory).unwrap();
        assert!(is_opaque(&directory).unwrap() && !has_whiteout_files(&directory).unwrap());
        make_transparent(&directory).unwrap();
        make_transparent(&directory).unwrap();
        assert!(!is_opaque(&directory).unwrap());
    }

    /// The other form of a whiteout is read.
    #[test]
    fn an_empty_file_may_stand_for_a_whiteout() {
        let temporary = tempfile::tempdir().unwrap();
        let root = open_root(temporary.path()).unwrap();
        let file = create_file(&root, name("gone")).unwrap();
        let stands = || {
            let entry = look(&root, name("gone")).unwrap().unwrap();
            stands_for_whiteout(&root, name("gone"), &entry).unwrap()
        };
        assert!(!stands());
        rustix::fs::fsetxattr(&file, WHITEOUT, b"y", XattrFlags::empty()).unwrap();
        assert!(stands());
    }

    /// Holes stay holes, and the content is the same.
    #[test]
    fn holes_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let root = open_root(temporary.path()).unwrap();
        let path = temporary.path().join("sparse");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"head").unwrap();
        file.seek(SeekFrom::Start(8 << 20)).unwrap();
        file.write_all(b"tail").unwrap();
        file.set_len(16 << 20).unwrap();
        file.sync_all().unwrap();
        copy_entry(&root, name("sparse"), &root, name("copy")).unwrap();
        let copy = temporary.path().join("copy");
        assert_eq!(fs::read(&copy).unwrap(), fs::read(&path).unwrap());
        assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 1 << 20);
        let (from, to) = (
            open_file(&root, name("sparse")).unwrap(),
            create_file(&root, name("c")).unwrap(),
        );
        copy_by_hand(&from, &to, 0, 16 << 20).unwrap();
        assert_eq!(fs::read(temporary.path().join("c")).unwrap(), fs::read(&path).unwrap());
    }

    /// A link is copied as a link; nothing is opened through one.
    #[test]
    fn links_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let root = open_root(temporary.path()).unwrap();
        fs::create_dir(temporary.path().join("d")).unwrap();
        symlink("/etc/passwd", temporary.path().join("l")).unwrap();
        symlink("d", temporary.path().join("ld")).unwrap();
        assert_eq!(copy_entry(&root, name("l"), &root, name("m")).unwrap(), Kind::Symlink);
        assert_eq!(
            fs::read_link(temporary.path().join("m")).unwrap().to_str(),
            Some("/etc/passwd")
        );
        open_file(&root, name("l")).unwrap_err();
        open_directory(&root, name("ld")).unwrap_err();
        open_directory(&root, name("..")).unwrap_err();
        rustix::fs::mkfifoat(&root, "fifo", Mode::RUSR | Mode::WUSR).unwrap();
        open_file(&root, name("fifo")).unwrap_err();
        copy_entry(&root, name("fifo"), &root, name("x")).unwrap_err();
    }
}
