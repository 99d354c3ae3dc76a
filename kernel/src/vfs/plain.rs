//! A tree that is one directory: a home, what is temporary, or an overlay while the kernel has it mounted.
//!
//! Links are followed inside the root, by us; where no link is on the way, which is nearly always, the system is asked once and says so.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::beneath::{Beneath, ENTRY_BYTES, FileType, Moment, Stat, extent_of, open_in, stat_of};
use super::error::{At as _, Fault, FsError};
use super::listing::{Gathering, Page};
use super::opened::{Access, OpenFile, Replacing};
use super::path::{Follow, Place, VirtualPath};
use super::space::{self, DIRECTORY_BYTES, Room};
use super::temporary::Temporary;
use super::walk::{self, Directories, Step};
use super::{Info, Removal, only_modified};

/// Bits of a mode that a guest may set.
pub(super) const MODE_BITS: u32 = 0o777;

/// What `rename(2)` says to this.
pub(super) const INTO_ITSELF: Fault = Fault::Invalid("a directory cannot be moved into itself");

/// A directory, as a tree.
#[derive(Debug)]
pub struct Plain {
    root: Beneath,
    /// While an overlay is mounted here: its upper layer, which says what was written. It is only asked for names.
    upper: Option<Beneath>,
}

impl Directories for Plain {
    type Dir = OwnedFd;

    fn root(&self) -> Result<OwnedFd, Fault> {
        Ok(self.root.handle(Path::new(""))?)
    }

    fn step(&self, dir: &OwnedFd, name: &OsStr) -> Result<Step<OwnedFd>, Fault> {
        let found = match open_in(dir, name, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Step::Nothing),
            found => found?,
        };
        Ok(match stat_of(&found)?.kind {
            FileType::Directory => Step::Dir(found),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                Step::Link(std::os::unix::ffi::OsStringExt::from_vec(target.into_bytes()))
            }
            _ => Step::Leaf,
        })
    }
}

impl Plain {
    /// A tree of a directory that is open.
    #[must_use]
    pub fn new(root: Beneath) -> Self {
        Self { root, upper: None }
    }

    /// A tree of the root of an overlay that the kernel has mounted, with its upper layer.
    #[must_use]
    pub fn mounted(root: Beneath, upper: Beneath) -> Self {
        Self {
            root,
            upper: Some(upper),
        }
    }

    pub(super) fn has_layers(&self) -> bool {
        self.upper.is_some()
    }

    /// Whether an upper layer has something under a path; where there is none, always.
    fn written(&self, relative: &Path) -> bool {
        self.upper.as_ref().is_none_or(|upper| upper.stat(relative).is_ok())
    }

    pub(super) fn watched(&self, place: &Place) -> Result<Vec<OwnedFd>, FsError> {
        Ok(vec![self.root.handle(place.path().relative()).at(place.path())?])
    }

    /// The directory.
    #[must_use]
    pub fn root_dir(&self) -> &Beneath {
        &self.root
    }

    pub(super) fn resolve(&self, path: &VirtualPath, follow: Follow) -> Result<Place, FsError> {
        match self.root.stat(path.relative()) {
            Ok(stat) if stat.kind != FileType::Symlink || follow == Follow::No => Ok(Place::new(path.clone())),
            _ => walk::place(self, path, follow),
        }
    }

    pub(super) fn stat(&self, place: &Place) -> Result<Info, FsError> {
        let stat = self.root.stat(place.path().relative()).at(place.path())?;
        let written = self.written(place.path().relative());
        Ok(Info { stat, written })
    }

    pub(super) fn open(&self, place: &Place, access: &Access, room: &mut Room) -> Result<OpenFile, FsError> {
        let path = place.path();
        let file = self.open_or_make(path, access, room).at(path)?;
        drop_set_id(&file, access).at(path)?;
        if access.truncate {
            cut(&file, room).at(path)?;
        }
        Ok(OpenFile::new(path, file, access.append))
    }

    fn open_or_make(&self, path: &VirtualPath, access: &Access, room: &mut Room) -> Result<File, Fault> {
        if path.is_root() {
            return Err(Fault::IsADirectory);
        }
        let flags = flags_of(access);
        let open = || self.root.file(path.relative(), flags, 0);
        if !access.create {
            return Ok(open()?);
        }
        if !access.exclusive {
            match open() {
                Err(Errno::NOENT) => {}
                answer => return Ok(answer?),
            }
        }
        room.need(ENTRY_BYTES)?;
        // What is made is ours to set the mode of, whatever the process masks.
        let made = self
            .root
            .file(path.relative(), flags | OFlags::CREATE | OFlags::EXCL, 0o600);
        match made {
            Err(Errno::EXIST) if !access.exclusive => Ok(open()?),
            Err(error) => Err(error.into()),
            Ok(file) => {
                room.changed(0, ENTRY_BYTES);
                rustix::fs::fchmod(&file, Mode::from_raw_mode(access.mode & MODE_BITS))?;
                Ok(file)
            }
        }
    }

    pub(super) fn begin_replace(&self, place: &Place, mode: u32) -> Result<Replacing, FsError> {
        let path = place.path();
        if path.is_root() {
            return Err(Fault::IsADirectory).at(path);
        }
        let temporary = self.root.temporary_beside(path.relative()).at(path)?;
        Ok(Replacing::new(place, temporary, mode))
    }

    pub(super) fn publish(&self, replacing: Replacing, room: &mut Room) -> Result<(), FsError> {
        let Replacing {
            place, temporary, mode, ..
        } = replacing;
        let path = place.path();
        let before = match self.root.stat(path.relative()) {
            Err(Errno::NOENT) => None,
            stat => Some(stat.at(path)?),
        };
        ready(&temporary, before.as_ref(), mode).at(path)?;
        if before.is_none() {
            room.need(ENTRY_BYTES).at(path)?;
        }
        let Some((dir, name)) = path.split() else {
            return Err(Fault::IsADirectory).at(path);
        };
        let dir = self.root.handle(Path::new(dir)).at(path)?;
        temporary
            .publish(dir, OsStr::new(name), RenameFlags::empty())
            .at(path)?;
        room.changed(0, ENTRY_BYTES);
        if let Some(before) = before {
            room.removed(&before);
        }
        Ok(())
    }

    pub(super) fn list(&self, place: &Place, after: Option<&str>, entries_max: usize) -> Result<Page, FsError> {
        let mut page = Gathering::new(after, entries_max);
        let mut gather = || {
            let dir = self.root.dir(place.path().relative())?;
            for entry in dir.names()? {
                let (name, kind) = entry?;
                if page.wants(&name) {
                    page.add(
                        &name,
                        told(&dir, &name, kind)?,
                        self.written(&place.path().relative().join(&name)),
                    );
                }
            }
            Ok::<(), Fault>(())
        };
        gather().at(place.path())?;
        Ok(page.page())
    }

    pub(super) fn make_dir(&self, place: &Place, mode: u32, room: &mut Room) -> Result<(), FsError> {
        let path = place.path();
        if path.is_root() {
            return Err(Fault::Exists).at(path);
        }
        room.need(DIRECTORY_BYTES).at(path)?;
        self.root.make_dir(path.relative(), mode & MODE_BITS).at(path)?;
        room.changed(0, self.root.stat(path.relative()).at(path)?.taken);
        Ok(())
    }

    pub(super) fn remove(&self, place: &Place, removal: Removal, room: &mut Room) -> Result<(), FsError> {
        let path = place.path();
        if path.is_root() {
            return Err(Fault::Busy).at(path);
        }
        let relative = path.relative();
        let stat = self.root.stat(relative).at(path)?;
        match removal {
            Removal::File => self.root.remove(relative).at(path)?,
            Removal::Dir => self.root.remove_dir(relative).at(path)?,
            Removal::Tree { entries_max } => {
                if stat.kind == FileType::Directory {
                    let dir = self.root.dir(relative).at(path)?;
                    space::at_most(&dir, entries_max).at(path)?;
                }
                return space::remove_all(&self.root, relative, room).at(path);
            }
        }
        room.removed(&stat);
        Ok(())
    }

    pub(super) fn rename(&self, from: &Place, to: &Place, replace: bool, room: &mut Room) -> Result<(), FsError> {
        let flags = if replace {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        let (from, to) = (from.path(), to.path());
        if from.is_root() || to.is_root() {
            return Err(Fault::Busy).at(if from.is_root() { from } else { to });
        }
        let before = match self.root.stat(to.relative()) {
            Err(Errno::NOENT) => None,
            stat => Some(stat.at(to)?),
        };
        let same = before.is_some()
            && before.map(|stat| stat.identity) == self.root.stat(from.relative()).ok().map(|stat| stat.identity);
        match self.root.rename(from.relative(), to.relative(), flags) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Err(INTO_ITSELF).at(from),
            Err(Errno::NOENT) => return Err(Fault::NotFound).at(from),
            Err(error) => return Err(error).at(to),
        }
        if let Some(before) = before.filter(|_| !same) {
            room.removed(&before);
        }
        Ok(())
    }

    pub(super) fn read_link(&self, place: &Place) -> Result<String, FsError> {
        let path = place.path();
        let target = self.root.read_link(path.relative()).at(path)?;
        target
            .into_string()
            .map_err(|_| Fault::Invalid("it leads to a name that is not UTF-8"))
            .at(path)
    }

    pub(super) fn make_link(&self, place: &Place, target: &str, room: &mut Room) -> Result<(), FsError> {
        let path = place.path();
        if path.is_root() {
            return Err(Fault::Exists).at(path);
        }
        room.need(ENTRY_BYTES).at(path)?;
        self.root.make_link(OsStr::new(target), path.relative()).at(path)?;
        room.changed(0, self.root.stat(path.relative()).at(path)?.taken);
        Ok(())
    }

    pub(super) fn set_mode(&self, place: &Place, mode: u32) -> Result<(), FsError> {
        self.root
            .set_mode(place.path().relative(), mode & MODE_BITS)
            .at(place.path())
    }

    pub(super) fn set_modified(&self, place: &Place, at: Moment) -> Result<(), FsError> {
        let times = only_modified(at).at(place.path())?;
        self.root.set_times(place.path().relative(), &times).at(place.path())
    }
}

/// How the system is asked for it. What is made or emptied is so in steps of its own, when it is known to be a regular file.
pub(super) fn flags_of(access: &Access) -> OFlags {
    let flags = match (access.read, access.writes()) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    if access.append { flags | OFlags::APPEND } else { flags }
}

/// What may be written runs as nobody else: the system sees to that when an ordinary user writes a file, and here also when root does.
pub(super) fn drop_set_id(file: &File, access: &Access) -> Result<(), Fault> {
    if !access.writes() {
        return Ok(());
    }
    let mode = rustix::fs::fstat(file)?.st_mode & 0o7777;
    if mode & 0o6000 != 0 {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o1777))?;
    }
    Ok(())
}

/// Empties a file.
pub(super) fn cut(file: &File, room: &mut Room) -> Result<(), Fault> {
    let before = extent_of(file)?.allocated;
    rustix::fs::ftruncate(file, 0)?;
    room.changed(before, extent_of(file)?.allocated);
    Ok(())
}

/// A new content gets the mode and the owner of the old one, if there is one.
pub(super) fn ready(temporary: &Temporary, before: Option<&Stat>, mode: u32) -> Result<(), Fault> {
    let mode = match before {
        Some(stat) if stat.kind == FileType::Directory => return Err(Fault::IsADirectory),
        Some(stat) if stat.kind == FileType::Symlink => return Err(Fault::Changed),
        Some(stat) if stat.kind != FileType::RegularFile => return Err(Errno::NOTSUP.into()),
        Some(stat) => {
            give(temporary.file(), stat.owner);
            stat.mode
        }
        None => mode,
    };
    Ok(rustix::fs::fchmod(
        temporary.file(),
        Mode::from_raw_mode(mode & MODE_BITS),
    )?)
}

/// Gives a file to its owner, where that is allowed: only root may.
fn give(file: &File, owner: (u32, u32)) {
    let owned = stat_of(file).is_ok_and(|stat| stat.owner == owner);
    if !owned {
        let (user, group) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::fchown(file, Some(user), Some(group)).ok();
    }
}

/// What a name is, where the directory does not say it.
pub(super) fn told(dir: &Beneath, name: &OsStr, kind: FileType) -> Result<FileType, Fault> {
    if kind != FileType::Unknown {
        return Ok(kind);
    }
    match super::beneath::stat_in(dir, name) {
        // It vanished after it was read.
        Err(Errno::NOENT) => Ok(FileType::Unknown),
        stat => Ok(stat?.kind),
    }
}
