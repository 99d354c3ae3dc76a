//! Renaming, as `rename(2)`: files, links and directories, also over something.
//!
//! Below, nothing can be renamed. So what is only there is copied up first, all of it, and a whiteout stays where it was. A directory that is
//! moved over a place that has something below becomes opaque.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::super::Renaming;
use super::super::beneath::{names_in, stat_in};
use super::super::error::{At as _, Fault, FsError};
use super::super::layer::{self, Kind};
use super::super::path::{NAMES_MAX, Place, VirtualPath};
use super::super::plain::INTO_ITSELF;
use super::super::space::{DIRECTORY_BYTES, Room};
use super::raise::{Made, copy_dir, only_below, unseen};
use super::{Level, Overlay, Seen};

/// What would have to be copied.
#[derive(Default)]
struct Tally {
    bytes: u64,
    entries: u64,
}

impl Overlay {
    pub(in super::super) fn rename(
        &self,
        from: &Place,
        to: &Place,
        how: &Renaming,
        room: &mut Room,
    ) -> Result<(), FsError> {
        let (from, to) = (from.path(), to.path());
        if to.is_root() {
            return Err(Fault::Busy).at(to);
        }
        let _turn = self.change.lock();
        self.check(from, to, how).at(from)?.at(to).and_then(|goes| {
            if goes {
                self.go(from, to, how, room).at(from)
            } else {
                Ok(())
            }
        })
    }

    /// Whether there is anything to do; the outer error is about `from`, the inner one about `to`.
    fn check(&self, from: &VirtualPath, to: &VirtualPath, how: &Renaming) -> Result<Result<bool, Fault>, Fault> {
        let source = self.spot(from)?;
        let directory = source.seen.kind().ok_or(Fault::NotFound)? == Kind::Directory;
        if to.is_within(from) && to != from {
            return match directory {
                true => Err(INTO_ITSELF),
                false => Err(Fault::NotADirectory),
            };
        }
        let target = match self.spot(to) {
            Ok(target) => target,
            Err(fault) => return Ok(Err(fault)),
        };
        let Some(kind) = target.seen.kind() else {
            return Ok(Ok(true));
        };
        Ok(match (directory, kind == Kind::Directory) {
            _ if !how.replace => Err(Fault::Exists),
            _ if from == to => Ok(false),
            _ if from.is_within(to) => Err(Fault::NotEmpty),
            (true, false) => Err(Fault::NotADirectory),
            (false, true) => Err(Fault::IsADirectory),
            (false, false) => Ok(true),
            (true, true) => match target.level.enter(target.name, &target.seen)?.is_empty() {
                Ok(false) => Err(Fault::NotEmpty),
                empty => empty,
            },
        })
    }

    fn go(&self, from: &VirtualPath, to: &VirtualPath, how: &Renaming, room: &mut Room) -> Result<(), Fault> {
        self.raise_parent(to, room)?;
        if self.spot(from)?.seen.kind() == Some(Kind::Directory) {
            self.lift(from, how, room)?;
        } else {
            self.raise(from, room)?;
        }
        let (source, target) = (self.spot(from)?, self.spot(to)?);
        let (old, new) = (source.level.upper()?, target.level.upper()?);
        let stays = source.seen.lower.is_some();
        if source.seen.kind() != Some(Kind::Directory) {
            self.note_origin(old, source.name, &source.seen, &target.seen)?;
            let replaced = match target.seen.upper {
                Some(entry) if entry.kind != Kind::Whiteout && entry.identity() != identity(&source.seen) => {
                    Some(stat_in(new, target.name)?)
                }
                _ => None,
            };
            move_file(old, source.name, new, target.name, stays)?;
            if let Some(stat) = replaced {
                room.removed(&stat);
            }
            return Ok(());
        }
        if target.seen.lower.is_some() {
            layer::make_opaque(layer::open_directory(old, source.name)?)?;
        }
        self.move_dir(
            (old, source.name),
            (&target.level, target.name),
            &target.seen,
            stays,
            room,
        )
    }

    /// A file says that it was copied from below if there is something below where it is.
    fn note_origin(&self, dir: BorrowedFd<'_>, name: &OsStr, source: &Seen, target: &Seen) -> Result<(), Fault> {
        if source.kind() != Some(Kind::File) {
            return Ok(());
        }
        let file = layer::open_file(dir, name)?;
        if target.lower.is_some() {
            return Ok(layer::mark_origin(&file)?);
        }
        match rustix::fs::fremovexattr(&file, layer::ORIGIN) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a directory that is only in the upper layer. A directory cannot take the place of a whiteout, but the two can change places.
    fn move_dir(
        &self,
        (old, name): (BorrowedFd<'_>, &OsStr),
        (level, as_name): (&Level<'_>, &OsStr),
        seen: &Seen,
        stays: bool,
        room: &mut Room,
    ) -> Result<(), Fault> {
        let new = level.upper()?;
        match seen.upper {
            None if !stays => {
                rustix::fs::renameat_with(old, name, new, as_name, RenameFlags::NOREPLACE)?;
                return Ok(());
            }
            None => layer::make_whiteout(new, as_name)?,
            Some(entry) if entry.kind == Kind::Whiteout => {}
            Some(_) => {
                let made = Made::whiteout(self)?;
                made.put(new, as_name, RenameFlags::EXCHANGE)?;
                made.clear(room);
            }
        }
        rustix::fs::renameat_with(old, name, new, as_name, RenameFlags::EXCHANGE)?;
        if !stays {
            rustix::fs::unlinkat(old, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Copies all of a directory up that is below, so that nothing of it is merged any more. What is shown stays the same all the while.
    fn lift(&self, path: &VirtualPath, how: &Renaming, room: &mut Room) -> Result<(), Fault> {
        let level = self.level(path)?;
        if level.lower.is_none() {
            return Ok(());
        }
        let mut tally = Tally::default();
        count(&level, how, &mut tally, 0)?;
        room.need(tally.bytes)?;
        let level = self.raise_dir(path.names(), room)?;
        self.lift_all(&level, room)
    }

    fn lift_all(&self, level: &Level<'_>, room: &mut Room) -> Result<(), Fault> {
        let upper = level.upper()?;
        unseen(upper, || {
            for name in level.all_names()? {
                let mut seen = level.look(&name)?;
                if seen.kind() != Some(Kind::Directory) {
                    if only_below(&seen) {
                        self.copy(level, &name, true, room)?;
                    }
                    continue;
                }
                if seen.upper.is_none() {
                    copy_dir(level, &name, room)?;
                    seen = level.look(&name)?;
                }
                let inner = level.enter(&name, &seen)?;
                if inner.lower.is_some() {
                    self.lift_all(&inner, room)?;
                }
            }
            layer::make_opaque(upper)?;
            let names: Vec<_> = names_in(upper)?.collect::<Result<_, _>>()?;
            for (name, _) in names {
                if level.look(&name)?.whiteout() {
                    rustix::fs::unlinkat(upper, &name, AtFlags::empty())?;
                }
            }
            Ok(())
        })
    }
}

/// What is to be copied of a directory, if it is not more than allowed, and nothing in it that cannot be.
fn count(level: &Level<'_>, how: &Renaming, tally: &mut Tally, depth: usize) -> Result<(), Fault> {
    if depth > NAMES_MAX {
        return Err(Fault::Unsupported("it is more than 128 directories deep"));
    }
    for name in level.all_names()? {
        let seen = level.look(&name)?;
        if only_below(&seen) {
            tally.entries += 1;
            tally.bytes = tally.bytes.saturating_add(match seen.kind() {
                Some(Kind::File | Kind::Symlink) => stat_in(level.lower()?, &name)?.taken,
                Some(Kind::Directory) => DIRECTORY_BYTES,
                _ => {
                    return Err(Fault::Unsupported(
                        "a device, fifo or socket of the lower layer is in it",
                    ));
                }
            });
        }
        if tally.entries > how.entries_max {
            return Err(Fault::TooMany(how.entries_max));
        }
        if tally.bytes > how.bytes_max {
            return Err(Fault::TooLarge(how.bytes_max));
        }
        if seen.kind() == Some(Kind::Directory) {
            let inner = level.enter(&name, &seen)?;
            if inner.lower.is_some() {
                count(&inner, how, tally, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn identity(seen: &Seen) -> (u64, u64) {
    seen.upper.map_or((0, 0), |entry| entry.identity())
}

/// Moves what is not a directory; with a whiteout in its old place, at once where the file system can.
fn move_file(
    old: BorrowedFd<'_>,
    name: &OsStr,
    new: BorrowedFd<'_>,
    as_name: &OsStr,
    whiteout: bool,
) -> Result<(), Fault> {
    if !whiteout {
        return Ok(rustix::fs::renameat_with(
            old,
            name,
            new,
            as_name,
            RenameFlags::empty(),
        )?);
    }
    match rustix::fs::renameat_with(old, name, new, as_name, RenameFlags::WHITEOUT) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {
            rustix::fs::renameat_with(old, name, new, as_name, RenameFlags::empty())?;
            Ok(layer::make_whiteout(old, name)?)
        }
        answer => Ok(answer?),
    }
}
