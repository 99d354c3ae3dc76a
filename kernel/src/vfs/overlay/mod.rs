//! A tree that is two directories: a *lower* one, which is only read, and an *upper* one, which has what is different. While no child has it
//! mounted, we make the union ourselves, as the kernel's overlay file system would of the same directories.
//!
//! - What the upper layer has under a name is what there is; a whiteout there says that there is nothing.
//! - Where both have a directory, what is in them is merged, unless the upper one is opaque.
//! - What is below and is to be changed is copied up first (`raise`); a whole new content only takes its place.
//! - A directory that has a part below is renamed after all of that part was copied up (`rename`): there are no redirects.
//!
//! New things are made in the work directory, which is on the same file system, and moved to their place by one rename; so at every moment, and
//! after a crash, what is shown is as before or as after. Changes of the structure take turns, by a lock; reading and writing open files takes
//! none, nor does looking. What a crash leaves in the work directory is removed when the overlay is opened.
//!
//! What is mounted below the lower directory is not a part of it: the kernel's overlay does not see it either, and an operator attached one directory.
//! A directory on which something is mounted is shown as empty, and nothing can be written there; a file on which something is cannot be opened.
//!
//! Deliberately absent: the lower layer's change. Bringing changes down is for `review`; and mounting is for who starts children, during which
//! this view must not be used.

mod change;
mod list;
mod raise;
mod rename;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Info;
use super::beneath::{Beneath, Parent, dir_below, file_in, file_unmounted, open_in, open_unmounted, stat_in};
use super::error::{At as _, Fault, FsError};
use super::layer::{self, Entry, Kind};
use super::opened::{Access, OpenFile};
use super::path::{Follow, Place, VirtualPath};
use super::plain::{cut, drop_set_id, flags_of};
use super::space::{self, Room};
use super::temporary::TEMPORARY;
use super::walk::{self, Directories, Step};

/// A lower and an upper directory.
#[derive(Debug)]
pub struct Overlay {
    lower: Beneath,
    upper: Beneath,
    /// Where new things are made. On the upper layer's file system.
    work: Beneath,
    /// Held while the structure is changed.
    change: Mutex<()>,
}

/// A directory of the merged view: what each layer has of it. One of them is there.
#[derive(Debug)]
pub(super) struct Level<'o> {
    upper: Option<Parent<'o>>,
    lower: Option<Parent<'o>>,
    /// An empty file in the upper one may stand for a whiteout.
    whiteout_files: bool,
}

/// What the layers have under a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// In the upper one; it may be a whiteout.
    upper: Option<Entry>,
    /// In the lower one, if the directory there is a part of the view. Whatever is above does not matter.
    lower: Option<Entry>,
}

impl Seen {
    /// What there is in the view.
    fn shown(&self) -> Option<&Entry> {
        match &self.upper {
            Some(entry) => Some(entry).filter(|entry| entry.kind != Kind::Whiteout),
            None => self.lower.as_ref(),
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.shown().map(|entry| entry.kind)
    }
}

impl Level<'_> {
    fn look(&self, name: &OsStr) -> Result<Seen, Fault> {
        let mut upper = match &self.upper {
            Some(dir) => layer::look(dir, name)?,
            None => None,
        };
        if self.whiteout_files
            && let (Some(entry), Some(dir)) = (&mut upper, &self.upper)
            && layer::stands_for_whiteout(dir, name, entry)?
        {
            entry.kind = Kind::Whiteout;
        }
        let lower = match &self.lower {
            Some(dir) => layer::look(dir, name)?.filter(|entry| entry.kind != Kind::Whiteout),
            None => None,
        };
        Ok(Seen { upper, lower })
    }

    /// The directory that is in this one.
    fn enter(&self, name: &OsStr, seen: &Seen) -> Result<Level<'static>, Fault> {
        let dir = |entry: &Option<Entry>| entry.is_some_and(|entry| entry.kind == Kind::Directory);
        let open = |dir: &Parent<'_>| layer::open_directory(dir, name).map(Parent::Below);
        let mut mounted = false;
        let upper = match &self.upper {
            Some(above) if dir(&seen.upper) => Some(open(above)?),
            _ => None,
        };
        let hidden = match &upper {
            Some(upper) => layer::is_opaque(upper)?,
            None => seen.upper.is_some(),
        };
        let lower = match &self.lower {
            Some(below) if dir(&seen.lower) && !hidden => {
                match open_unmounted(below, name, OFlags::RDONLY | OFlags::DIRECTORY) {
                    Err(Errno::XDEV) => {
                        mounted = true;
                        None
                    }
                    opened => Some(Parent::Below(opened?)),
                }
            }
            _ => None,
        };
        let whiteout_files = match &upper {
            Some(upper) => layer::has_whiteout_files(upper)?,
            None => false,
        };
        if upper.is_none() && lower.is_none() && !mounted {
            return Err(Fault::Changed);
        }
        Ok(Level {
            upper,
            lower,
            whiteout_files,
        })
    }

    /// A directory that is only in the upper layer.
    fn above(upper: Parent<'_>) -> Result<Level<'_>, Fault> {
        let whiteout_files = layer::has_whiteout_files(&upper)?;
        Ok(Level {
            upper: Some(upper),
            lower: None,
            whiteout_files,
        })
    }

    /// A directory that is only in the lower layer.
    fn below(lower: Parent<'_>) -> Level<'_> {
        Level {
            upper: None,
            lower: Some(lower),
            whiteout_files: false,
        }
    }

    /// The directory that is in this one, of which both layers have a part, if it can be told without asking what it is.
    fn quick(&self, name: &OsStr) -> Option<Level<'static>> {
        let open = |dir: &Option<Parent<'_>>| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            open_unmounted(dir.as_ref().ok_or(Errno::NOENT)?, name, flags).map(Parent::Below)
        };
        let upper = match open(&self.upper) {
            Ok(upper) => Some(upper),
            Err(Errno::NOENT) => None,
            Err(_) => return None,
        };
        let (hides, whiteout_files) = match &upper {
            Some(upper) => (layer::is_opaque(upper).ok()?, layer::has_whiteout_files(upper).ok()?),
            None => (false, false),
        };
        let lower = match &self.lower {
            below if !hides && below.is_some() => match open(below) {
                Ok(lower) => Some(lower),
                // Anything but a directory is hidden by the upper one, or is the error that it is.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if upper.is_some() => None,
                Err(_) => return None,
            },
            _ => None,
        };
        Some(Level {
            upper,
            lower,
            whiteout_files,
        })
    }

    /// The layer's directory in which something that is shown is.
    fn holder(&self, seen: &Seen) -> Result<BorrowedFd<'_>, Fault> {
        let holder = if seen.upper.is_some() { &self.upper } else { &self.lower };
        holder.as_ref().map(AsFd::as_fd).ok_or(Fault::Changed)
    }

    /// The upper directory, where it must have been made before.
    fn upper(&self) -> Result<BorrowedFd<'_>, Fault> {
        self.upper.as_ref().map(AsFd::as_fd).ok_or(Fault::Changed)
    }

    fn lower(&self) -> Result<BorrowedFd<'_>, Fault> {
        self.lower.as_ref().map(AsFd::as_fd).ok_or(Fault::Changed)
    }
}

/// A name in a directory, and what there is under it.
struct Spot<'o, 'p> {
    level: Level<'o>,
    name: &'p OsStr,
    seen: Seen,
}

impl<'o> Directories for &'o Overlay {
    type Dir = Level<'o>;

    fn root(&self) -> Result<Level<'o>, Fault> {
        Ok(Level {
            whiteout_files: layer::has_whiteout_files(&self.upper)?,
            upper: Some(Parent::Root(self.upper.as_fd())),
            lower: Some(Parent::Root(self.lower.as_fd())),
        })
    }

    fn step(&self, dir: &Level<'o>, name: &OsStr) -> Result<Step<Level<'o>>, Fault> {
        let seen = dir.look(name)?;
        Ok(match seen.kind() {
            None => Step::Nothing,
            Some(Kind::Directory) => Step::Dir(dir.enter(name, &seen)?),
            Some(Kind::Symlink) => {
                let target = rustix::fs::readlinkat(dir.holder(&seen)?, name, Vec::new())?;
                Step::Link(std::ffi::OsString::from_vec(target.into_bytes()))
            }
            Some(_) => Step::Leaf,
        })
    }
}

impl Overlay {
    /// An overlay of directories that are open. `work` is on the file system of `upper`, and nobody else's; what is left in it from a crash is
    /// removed.
    ///
    /// # Errors
    /// The system's.
    pub fn new(lower: Beneath, upper: Beneath, work: Beneath) -> Result<Self, Fault> {
        let left: Vec<_> = work.names()?.collect::<Result<_, _>>()?;
        for (name, _) in left {
            if name.as_bytes().starts_with(TEMPORARY.as_bytes()) {
                // What cannot be removed is in nobody's way.
                space::remove_all(&work, Path::new(&name), &mut Room::unlimited()).ok();
            }
        }
        Ok(Self {
            lower,
            upper,
            work,
            change: Mutex::new(()),
        })
    }

    /// Runs something while nothing here changes the structure: for who reads both layers, or changes them as `review` does.
    pub fn quiet<T>(&self, act: impl FnOnce(&Beneath, &Beneath) -> T) -> T {
        let _turn = self.change.lock();
        act(&self.lower, &self.upper)
    }

    /// What it takes on the disk: the upper layer.
    ///
    /// # Errors
    /// [`Fault::TooMany`] above `entries_max`, and the system's.
    pub fn usage(&self, entries_max: u64) -> Result<space::Usage, Fault> {
        space::usage(&self.upper, entries_max)
    }

    pub(super) fn resolve(&self, path: &VirtualPath, follow: Follow) -> Result<Place, FsError> {
        // Nearly always no link is on the way, and then it is the place.
        match self.spot(path).map(|spot| spot.seen.kind()) {
            Ok(kind) if kind != Some(Kind::Symlink) || follow == Follow::No => Ok(Place::new(path.clone())),
            _ => walk::place(&self, path, follow),
        }
    }

    /// A name, and what there is under it; the directory that it is in must be there. The root is in none.
    fn spot<'p>(&self, path: &'p VirtualPath) -> Result<Spot<'_, 'p>, Fault> {
        let (dir, name) = path.split().ok_or(Fault::Busy)?;
        let level = self.directory(dir)?;
        let name = OsStr::new(name);
        let seen = level.look(name)?;
        Ok(Spot { level, name, seen })
    }

    fn level(&self, path: &VirtualPath) -> Result<Level<'_>, Fault> {
        self.directory(&path.relative().to_string_lossy())
    }

    /// The directory that these names lead to, where none of them may be a link: they were followed before.
    fn directory(&self, names: &str) -> Result<Level<'_>, Fault> {
        match self.quick(names) {
            Some(level) => Ok(level),
            // Something is not as usual: name by name it is told what.
            None => walk::directory(&self, names.split('/').filter(|name| !name.is_empty())),
        }
    }

    /// The same, where all of them are directories that can be opened: without asking first what they are, and from where only one layer is
    /// left, all at once.
    fn quick(&self, names: &str) -> Option<Level<'_>> {
        let mut level = (&self).root().ok()?;
        let mut ahead = names;
        while !ahead.is_empty() {
            if let (None, Some(only)) | (Some(only), None) = (&level.upper, &level.lower) {
                let found = Parent::Below(dir_below(only.as_fd(), Path::new(ahead)).ok()?);
                return if level.upper.is_some() {
                    Level::above(found).ok()
                } else {
                    Some(Level::below(found))
                };
            }
            let (name, rest) = ahead.split_once('/').unwrap_or((ahead, ""));
            level = level.quick(OsStr::new(name))?;
            ahead = rest;
        }
        Some(level)
    }

    pub(super) fn stat(&self, place: &Place) -> Result<Info, FsError> {
        let stat = || {
            if place.path().is_root() {
                return Ok(Info {
                    stat: self.upper.stat(Path::new(""))?,
                    written: true,
                });
            }
            let spot = self.spot(place.path())?;
            if spot.seen.kind().is_none() {
                return Err(Fault::NotFound);
            }
            let stat = stat_in(spot.level.holder(&spot.seen)?, spot.name)?;
            Ok(Info {
                stat,
                written: spot.seen.upper.is_some(),
            })
        };
        stat().at(place.path())
    }

    /// Both layers' of what is there. A directory gets an upper part first, so that what is written into it later is seen.
    pub(super) fn watched(&self, place: &Place) -> Result<Vec<OwnedFd>, FsError> {
        let watched = || {
            let path = place.path();
            if !path.is_root() && self.spot(path)?.seen.kind() != Some(Kind::Directory) {
                let spot = self.spot(path)?;
                let holders = [
                    (spot.seen.upper, &spot.level.upper),
                    (spot.seen.lower, &spot.level.lower),
                ];
                let there = holders.iter().filter(|(entry, _)| entry.is_some());
                let open = |dir: &Parent<'_>| open_in(dir, spot.name, OFlags::PATH, Mode::empty());
                let found: Vec<_> = there
                    .filter_map(|(_, dir)| dir.as_ref().map(open))
                    .collect::<Result<_, _>>()?;
                return if spot.seen.kind().is_some() {
                    Ok(found)
                } else {
                    Err(Fault::NotFound)
                };
            }
            let _turn = self.change.lock();
            let level = self.raise_dir(path.names(), &mut Room::unlimited())?;
            let again = |dir: &Parent<'_>| rustix::fs::openat(dir, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let found: Result<Vec<_>, _> = [&level.upper, &level.lower].into_iter().flatten().map(again).collect();
            Ok::<_, Fault>(found?)
        };
        watched().at(place.path())
    }

    pub(super) fn read_link(&self, place: &Place) -> Result<String, FsError> {
        let read = || {
            let spot = self.spot(place.path())?;
            if spot.seen.kind().is_none() {
                return Err(Fault::NotFound);
            }
            let target = rustix::fs::readlinkat(spot.level.holder(&spot.seen)?, spot.name, Vec::new())?;
            target
                .into_string()
                .map_err(|_| Fault::Invalid("it leads to a name that is not UTF-8"))
        };
        read().at(place.path())
    }

    pub(super) fn open(&self, place: &Place, access: &Access, room: &mut Room) -> Result<OpenFile, FsError> {
        let path = place.path();
        let mut open = || {
            if path.is_root() {
                return Err(Fault::IsADirectory);
            }
            if access.changes() {
                return self.open_changing(path, access, room);
            }
            let spot = self.spot(path)?;
            regular(&spot.seen)?;
            let holder = spot.level.holder(&spot.seen)?;
            file_unmounted(holder, spot.name, flags_of(access)).map_err(not_mounted)
        };
        Ok(OpenFile::new(path, open().at(path)?, access.append))
    }

    fn open_changing(&self, path: &VirtualPath, access: &Access, room: &mut Room) -> Result<std::fs::File, Fault> {
        let _turn = self.change.lock();
        let spot = self.spot(path)?;
        if spot.seen.kind().is_none() {
            return if access.create {
                self.make_file(path, &spot, access, room)
            } else {
                Err(Fault::NotFound)
            };
        }
        if access.create && access.exclusive {
            return Err(Fault::Exists);
        }
        regular(&spot.seen)?;
        let raised;
        let level = if spot.seen.upper.is_none() && access.writes() {
            raised = self.raise_file(path, &spot, !access.truncate, room)?;
            &raised
        } else {
            &spot.level
        };
        let seen = level.look(spot.name)?;
        let file = file_in(level.holder(&seen)?, spot.name, flags_of(access), 0)?;
        drop_set_id(&file, access)?;
        if access.truncate {
            cut(&file, room)?;
        }
        Ok(file)
    }
}

/// What is said of a place where something is mounted.
pub(super) fn not_mounted(error: Errno) -> Fault {
    match error {
        Errno::XDEV => Fault::Unsupported("something else is mounted there, which is no part of the workspace"),
        error => error.into(),
    }
}

/// Only regular files are opened.
fn regular(seen: &Seen) -> Result<(), Fault> {
    match seen.kind() {
        Some(Kind::File) => Ok(()),
        Some(Kind::Directory) => Err(Fault::IsADirectory),
        Some(Kind::Symlink) => Err(Fault::Changed),
        Some(_) => Err(Errno::NOTSUP.into()),
        None => Err(Fault::NotFound),
    }
}
