//! Making and removing, in the upper layer.

use std::ffi::OsStr;
use std::fs::File;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::beneath::{ENTRY_BYTES, Moment, file_in, open_in, open_unmounted, set_mode_of, stat_in};
use super::super::error::{At as _, Fault, FsError};
use super::super::layer::{self, Kind};
use super::super::opened::{Access, Replacing};
use super::super::path::{Place, VirtualPath};
use super::super::plain::{MODE_BITS, flags_of, ready};
use super::super::space::{self, DIRECTORY_BYTES, Room};
use super::super::temporary::Temporary;
use super::super::{Removal, only_modified};
use super::raise::Made;
use super::{Level, Overlay, Seen, Spot, not_mounted};

impl Seen {
    /// Whether a whiteout is in the way of what is to be made.
    pub(super) fn whiteout(&self) -> bool {
        self.upper.is_some_and(|entry| entry.kind == Kind::Whiteout)
    }
}

impl Overlay {
    /// Makes a file where nothing is shown.
    pub(super) fn make_file(
        &self,
        path: &VirtualPath,
        spot: &Spot<'_, '_>,
        access: &Access,
        room: &mut Room,
    ) -> Result<File, Fault> {
        room.need(ENTRY_BYTES)?;
        let level = self.raise_parent(path, room)?;
        let upper = level.upper()?;
        let flags = flags_of(access) | OFlags::CREATE | OFlags::EXCL;
        let mut file = None;
        let mode = Mode::from_raw_mode(access.mode & MODE_BITS);
        if spot.seen.whiteout() {
            let made = Made::new(self, |work, name| {
                let new = file_in(work, name, flags, 0o600)?;
                rustix::fs::fchmod(&new, mode)?;
                file = Some(new);
                Ok(())
            })?;
            made.put(upper, spot.name, RenameFlags::empty())?;
        } else {
            let new = file_in(upper, spot.name, flags, 0o600)?;
            rustix::fs::fchmod(&new, mode)?;
            file = Some(new);
        }
        room.changed(0, ENTRY_BYTES);
        file.ok_or(Fault::Changed)
    }

    pub(in super::super) fn begin_replace(&self, place: &Place, mode: u32) -> Result<Replacing, FsError> {
        let begin = || {
            let spot = self.spot(place.path()).map_err(not_the_root)?;
            if spot.seen.kind() == Some(Kind::Directory) {
                return Err(Fault::IsADirectory);
            }
            Ok(Temporary::new(self.work.handle(std::path::Path::new(""))?)?)
        };
        Ok(Replacing::new(place, begin().at(place.path())?, mode))
    }

    pub(in super::super) fn publish(&self, replacing: Replacing, room: &mut Room) -> Result<(), FsError> {
        let Replacing {
            place, temporary, mode, ..
        } = replacing;
        let publish = || {
            let _turn = self.change.lock();
            let spot = self.spot(place.path())?;
            let before = match spot.seen.kind() {
                None => None,
                Some(_) => Some(stat_in(spot.level.holder(&spot.seen)?, spot.name)?),
            };
            ready(&temporary, before.as_ref(), mode)?;
            let replaced = before.filter(|_| spot.seen.upper.is_some());
            if replaced.is_none() {
                room.need(ENTRY_BYTES)?;
            }
            let level = self.raise_parent(place.path(), room)?;
            if spot.seen.lower.is_some() {
                layer::mark_origin(temporary.file())?;
            }
            temporary.publish(level.upper()?, spot.name, RenameFlags::empty())?;
            room.changed(0, ENTRY_BYTES);
            if let Some(replaced) = replaced {
                room.removed(&replaced);
            }
            Ok::<(), Fault>(())
        };
        publish().at(place.path())
    }

    pub(in super::super) fn make_dir(&self, place: &Place, mode: u32, room: &mut Room) -> Result<(), FsError> {
        let mut make = || {
            let _turn = self.change.lock();
            let spot = self.free(place.path())?;
            room.need(DIRECTORY_BYTES)?;
            let level = self.raise_parent(place.path(), room)?;
            let upper = level.upper()?;
            if spot.seen.whiteout() {
                // Opaque before it is seen: what the whiteout hid stays hidden.
                let made = Made::new(self, |work, name| {
                    rustix::fs::mkdirat(work, name, Mode::RWXU)?;
                    layer::make_opaque(layer::open_directory(work, name)?)
                })?;
                made.put(upper, spot.name, RenameFlags::EXCHANGE)?;
            } else {
                rustix::fs::mkdirat(upper, spot.name, Mode::RWXU)?;
            }
            rustix::fs::fchmod(
                layer::open_directory(upper, spot.name)?,
                Mode::from_raw_mode(mode & MODE_BITS),
            )?;
            room.changed(0, stat_in(upper, spot.name)?.taken);
            Ok::<(), Fault>(())
        };
        make().at(place.path())
    }

    pub(in super::super) fn make_link(&self, place: &Place, target: &str, room: &mut Room) -> Result<(), FsError> {
        let mut make = || {
            let _turn = self.change.lock();
            let spot = self.free(place.path())?;
            room.need(ENTRY_BYTES)?;
            let level = self.raise_parent(place.path(), room)?;
            let upper = level.upper()?;
            if spot.seen.whiteout() {
                let made = Made::new(self, |work, name| Ok(rustix::fs::symlinkat(target, work, name)?))?;
                made.put(upper, spot.name, RenameFlags::empty())?;
            } else {
                rustix::fs::symlinkat(target, upper, spot.name)?;
            }
            room.changed(0, stat_in(upper, spot.name)?.taken);
            Ok::<(), Fault>(())
        };
        make().at(place.path())
    }

    /// A name under which nothing is shown.
    fn free<'p>(&self, path: &'p VirtualPath) -> Result<Spot<'_, 'p>, Fault> {
        if path.is_root() {
            return Err(Fault::Exists);
        }
        let spot = self.spot(path)?;
        match spot.seen.kind() {
            None => Ok(spot),
            Some(_) => Err(Fault::Exists),
        }
    }

    pub(in super::super) fn remove(&self, place: &Place, removal: Removal, room: &mut Room) -> Result<(), FsError> {
        let mut remove = || {
            let _turn = self.change.lock();
            let spot = self.spot(place.path())?;
            let directory = match spot.seen.kind() {
                None => return Err(Fault::NotFound),
                Some(kind) => kind == Kind::Directory,
            };
            match removal {
                Removal::File if directory => return Err(Fault::IsADirectory),
                Removal::Dir if !directory => return Err(Fault::NotADirectory),
                Removal::Dir if !spot.level.enter(spot.name, &spot.seen)?.is_empty()? => return Err(Fault::NotEmpty),
                Removal::Tree { entries_max } if directory && spot.seen.upper.is_some() => {
                    let above = super::Beneath::from_fd(layer::open_directory(spot.level.upper()?, spot.name)?);
                    space::at_most(&above, entries_max)?;
                }
                _ => {}
            }
            if directory && spot.seen.lower.is_some() {
                drop(open_unmounted(spot.level.lower()?, spot.name, OFlags::PATH).map_err(not_mounted)?);
            }
            let level = self.raise_parent(place.path(), room)?;
            self.vanish(&level, spot.name, &spot.seen, room)
        };
        remove().at(place.path())
    }

    /// Makes it so that nothing is shown under a name. The directory has an upper part.
    pub(super) fn vanish(&self, level: &Level<'_>, name: &OsStr, seen: &Seen, room: &mut Room) -> Result<(), Fault> {
        let upper = level.upper()?;
        let above = match seen.upper {
            None => None,
            Some(entry) => Some((entry.kind == Kind::Directory, stat_in(upper, name)?)),
        };
        match (above, seen.lower.is_some()) {
            (None, _) => layer::make_whiteout(upper, name)?,
            (Some((false, stat)), false) => {
                rustix::fs::unlinkat(upper, name, AtFlags::empty())?;
                room.removed(&stat);
            }
            (Some((false, stat)), true) => {
                Made::whiteout(self)?.put(upper, name, RenameFlags::empty())?;
                room.removed(&stat);
            }
            (Some((true, _)), below) => {
                // What goes is moved away first, at once, and then removed bit by bit where nobody looks. To be moved, it must be open.
                set_mode_of(open_in(upper, name, OFlags::PATH, Mode::empty())?, 0o700)?;
                let made = Made::whiteout(self)?;
                made.put(upper, name, RenameFlags::EXCHANGE)?;
                if !below {
                    rustix::fs::unlinkat(upper, name, AtFlags::empty())?;
                }
                made.clear(room);
            }
        }
        Ok(())
    }

    pub(in super::super) fn set_mode(&self, place: &Place, mode: u32, room: &mut Room) -> Result<(), FsError> {
        let mut set = || {
            let _turn = self.change.lock();
            if place.path().is_root() {
                return Ok(self.upper.set_mode(std::path::Path::new(""), mode & MODE_BITS)?);
            }
            let spot = self.spot(place.path())?;
            match spot.seen.kind() {
                Some(Kind::Symlink) => return Err(Fault::Changed),
                Some(Kind::File | Kind::Directory) => {}
                Some(_) => return Err(Errno::NOTSUP.into()),
                None => return Err(Fault::NotFound),
            }
            let level = self.raise(place.path(), room)?;
            Ok(set_mode_of(
                open_in(level.upper()?, spot.name, OFlags::PATH, Mode::empty())?,
                mode & MODE_BITS,
            )?)
        };
        set().at(place.path())
    }

    pub(in super::super) fn set_modified(&self, place: &Place, at: Moment, room: &mut Room) -> Result<(), FsError> {
        let mut set = || {
            let times = only_modified(at)?;
            let _turn = self.change.lock();
            let Some((_, name)) = place.path().split() else {
                return Ok::<(), Fault>(rustix::fs::futimens(&self.upper, &times)?);
            };
            let level = self.raise(place.path(), room)?;
            Ok(rustix::fs::utimensat(
                level.upper()?,
                name,
                &times,
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        };
        set().at(place.path())
    }
}

/// What is asked of the root as if it were a file.
fn not_the_root(fault: Fault) -> Fault {
    if fault == Fault::Busy {
        Fault::IsADirectory
    } else {
        fault
    }
}
