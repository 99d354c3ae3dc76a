//! Copying up: what is only below gets a place in the upper layer, before it is changed there.
//!
//! The view is the same before and after: a copy has the content, the mode, the owner, the times and the attributes of what it is of, and the
//! directory that it is put into keeps its time. A copy is made in the work directory and gets its place at once.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::super::beneath::{ENTRY_BYTES, open_unmounted, stat_in};
use super::super::error::Fault;
use super::super::layer::{self, Kind};
use super::super::path::VirtualPath;
use super::super::space::{DIRECTORY_BYTES, Room};
use super::super::temporary::with_new_name;
use super::super::walk::Directories as _;
use super::{Level, Overlay, Seen, Spot, not_mounted};

/// Something in the work directory that has no place yet. Dropped before, it is removed.
pub(super) struct Made<'o> {
    overlay: &'o Overlay,
    name: OsString,
}

impl<'o> Made<'o> {
    /// Makes something under a new name.
    pub(super) fn new(
        overlay: &'o Overlay,
        mut make: impl FnMut(BorrowedFd<'_>, &OsStr) -> std::io::Result<()>,
    ) -> Result<Self, Fault> {
        let mut failed = None;
        let made = with_new_name(|name| {
            make(overlay.work.as_fd(), name).map_err(|error| match Errno::from_io_error(&error) {
                Some(number) => number,
                None => {
                    failed = Some(Fault::from(error));
                    Errno::IO
                }
            })
        });
        match made {
            Ok(((), name)) => Ok(Self { overlay, name }),
            Err(error) => Err(failed.unwrap_or(error.into())),
        }
    }

    pub(super) fn whiteout(overlay: &'o Overlay) -> Result<Self, Fault> {
        Self::new(overlay, |work, name| layer::make_whiteout(work, name))
    }

    /// Gives it its place: in place of what is there, or with `NOREPLACE` or `EXCHANGE`.
    pub(super) fn put(&self, dir: BorrowedFd<'_>, name: &OsStr, flags: RenameFlags) -> Result<(), Fault> {
        Ok(rustix::fs::renameat_with(
            &self.overlay.work,
            &self.name,
            dir,
            name,
            flags,
        )?)
    }

    /// Removes whatever has its name now, with all that is below. What cannot be removed now is when the overlay is opened again.
    pub(super) fn clear(self, room: &mut Room) {
        super::space::remove_all(&self.overlay.work, Path::new(&self.name), room).ok();
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        // Mostly there is nothing: it got its place.
        let removed = rustix::fs::unlinkat(&self.overlay.work, &self.name, AtFlags::empty());
        if removed == Err(Errno::ISDIR) {
            let nobody = &mut Room::unlimited();
            super::space::remove_all(&self.overlay.work, Path::new(&self.name), nobody).ok();
        }
    }
}

/// Does something in a directory that keeps its time: what is made there was there, for who looks at the view. For the same reason it does not
/// matter whether we may make something in it.
pub(super) fn unseen<T>(dir: BorrowedFd<'_>, mut act: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let before = layer::look_at(dir)?;
    let closed = before.mode() & 0o300 != 0o300;
    let done = match act() {
        Err(Fault::Denied) if closed => {
            rustix::fs::fchmod(dir, Mode::from_raw_mode(before.mode() | 0o300))?;
            let done = act();
            rustix::fs::fchmod(dir, Mode::from_raw_mode(before.mode()))?;
            done?
        }
        done => done?,
    };
    layer::set_mtime(dir, before.mtime_ns())?;
    Ok(done)
}

impl Overlay {
    /// The directory that these names lead to, with an upper part.
    pub(super) fn raise_dir<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
        room: &mut Room,
    ) -> Result<Level<'_>, Fault> {
        let tree = &self;
        let mut level = tree.root()?;
        for name in names.map(OsStr::new) {
            let mut seen = level.look(name)?;
            match seen.kind() {
                Some(Kind::Directory) => {}
                None => return Err(Fault::NotFound),
                Some(Kind::Symlink) => return Err(Fault::Changed),
                Some(_) => return Err(Fault::NotADirectory),
            }
            if seen.upper.is_none() {
                copy_dir(&level, name, room)?;
                seen = level.look(name)?;
            }
            level = level.enter(name, &seen)?;
        }
        Ok(level)
    }

    /// The directory that a path is in, with an upper part.
    pub(super) fn raise_parent(&self, path: &VirtualPath, room: &mut Room) -> Result<Level<'_>, Fault> {
        let (dir, _) = path.split().ok_or(Fault::Busy)?;
        self.raise_dir(dir.split('/').filter(|name| !name.is_empty()), room)
    }

    /// Copies a regular file up, with its content or without. Returns the directory that it is in now.
    pub(super) fn raise_file(
        &self,
        path: &VirtualPath,
        spot: &Spot<'_, '_>,
        content: bool,
        room: &mut Room,
    ) -> Result<Level<'_>, Fault> {
        if content {
            room.need(stat_in(spot.level.lower()?, spot.name)?.taken)?;
        }
        let level = self.raise_parent(path, room)?;
        self.copy(&level, spot.name, content, room)?;
        Ok(level)
    }

    /// Copies up whatever is there. Returns the directory that it is in.
    pub(super) fn raise(&self, path: &VirtualPath, room: &mut Room) -> Result<Level<'_>, Fault> {
        let spot = self.spot(path)?;
        match (spot.seen.kind(), spot.seen.upper) {
            (None, _) => Err(Fault::NotFound),
            (Some(_), Some(_)) => Ok(spot.level),
            (Some(Kind::Directory), None) => {
                self.raise_dir(path.names(), room)?;
                self.raise_parent(path, room)
            }
            (Some(Kind::File), None) => self.raise_file(path, &spot, true, room),
            (Some(_), None) => {
                let level = self.raise_parent(path, room)?;
                self.copy(&level, spot.name, true, room)?;
                Ok(level)
            }
        }
    }

    /// Copies a file or link from the lower part of a directory to the upper part, which is there.
    pub(super) fn copy(&self, level: &Level<'_>, name: &OsStr, content: bool, room: &mut Room) -> Result<(), Fault> {
        let (lower, upper) = (level.lower()?, level.upper()?);
        // Of what is mounted on it nothing is copied, whatever it is.
        drop(open_unmounted(lower, name, OFlags::PATH).map_err(not_mounted)?);
        let stat = stat_in(lower, name)?;
        room.need(if content { stat.taken } else { ENTRY_BYTES })?;
        let made = Made::new(self, |work, as_name| {
            let file = match layer::look(lower, name)?.map(|entry| entry.kind) {
                Some(Kind::File) if content => layer::copy_file(&layer::open_file(lower, name)?, work, as_name)?.0,
                Some(Kind::File) => {
                    let to = layer::create_file(work, as_name)?;
                    layer::copy_attributes(layer::open_file(lower, name)?, &to)?;
                    to
                }
                Some(Kind::Symlink) => return layer::copy_symlink(lower, name, work, as_name),
                _ => return Err(std::io::ErrorKind::Unsupported.into()),
            };
            layer::mark_origin(&file)
        })?;
        unseen(upper, || made.put(upper, name, RenameFlags::NOREPLACE))?;
        room.changed(0, stat_in(upper, name)?.taken);
        Ok(())
    }
}

/// Makes the upper part of a directory. It is made in its place, where it is like what it is of but for an instant: a directory that its mode
/// closes could not be moved there by everybody.
pub(super) fn copy_dir(level: &Level<'_>, name: &OsStr, room: &mut Room) -> Result<(), Fault> {
    let (lower, upper) = (level.lower()?, level.upper()?);
    room.need(DIRECTORY_BYTES)?;
    let from = open_unmounted(lower, name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(not_mounted)?;
    unseen(upper, || Ok(layer::copy_directory(&from, upper, name)?))?;
    room.changed(0, stat_in(upper, name)?.taken);
    Ok(())
}

/// What a name in a merged directory is, for who copies all of it.
pub(super) fn only_below(seen: &Seen) -> bool {
    seen.upper.is_none() && seen.lower.is_some()
}
