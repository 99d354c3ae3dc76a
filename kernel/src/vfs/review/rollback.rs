//! Drops what was written over the lower: all of it, or at some paths, so that the workspace shows the lower there again. The lower is only read.
//!
//! Each path goes in one rename; a crash leaves some paths rolled back and others not, and doing it again does the rest.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;

use super::super::layer::{self, Kind};
use super::super::reach;
use super::changes::names;
use super::commit::{Fault, empty_upper};
use super::{Layers, ReviewError, as_path, parted, tree};

/// Where something waits to be removed, or to be put in place, beside the upper.
pub(super) const ASIDE: &str = "aside";

/// Drops everything.
///
/// # Errors
/// The file system's.
pub fn all(overlay: &Path, layers: &Layers) -> Result<(), ReviewError> {
    let mode = layer::look_at(&layers.lower)
        .map_err(ReviewError::io("look at", b""))?
        .mode();
    empty_upper(overlay, mode, &mut Fault::default())
}

/// Drops what was written at a path, and below it.
///
/// # Errors
/// The file systems', naming the path; a path whose directory has become something else has to be rolled back with that.
pub fn path(overlay: &Path, layers: &Layers, path: &[u8]) -> Result<(), ReviewError> {
    let aside = layer::open_root(overlay).map_err(ReviewError::io("open", b""))?;
    tree::remove(&aside, OsStr::new(ASIDE), ASIDE.as_bytes())?;
    let hidden = match way(layers, path)? {
        Way::Open { hidden } => hidden,
        Way::Unwritten => return Ok(()),
        Way::Gone(above) => {
            show(&aside, layers, &above)?;
            return self::path(overlay, layers, path);
        }
        Way::Other(above) => {
            let above = super::shown(&above);
            return Err(ReviewError::Path(format!(
                "{}: {above} is no directory any more; it",
                super::shown(path)
            )));
        }
    };
    let (directory, name) = parted(path);
    let failed = |error: Errno| ReviewError::io("roll back", path)(error.into());
    let directory = reach::way(&layers.upper, directory, reach::WRITE).map_err(failed)?;
    if hidden {
        copy_lower(&aside, layers, path)?;
    }
    let there = layer::look(&aside, OsStr::new(ASIDE))
        .map_err(ReviewError::io("roll back", path))?
        .is_some();
    let here = layer::look(&directory, name).map_err(ReviewError::io("roll back", path))?;
    // A directory that is closed cannot be moved.
    let _open = match here.filter(|here| here.kind == Kind::Directory) {
        Some(_) => Some(reach::directory(&directory, name, reach::WRITE).map_err(ReviewError::io("roll back", path))?),
        None => None,
    };
    let here = here.is_some();
    match (there, here) {
        (true, true) => rustix::fs::renameat_with(&aside, ASIDE, &directory, name, RenameFlags::EXCHANGE),
        (true, false) => rustix::fs::renameat(&aside, ASIDE, &directory, name),
        (false, true) => rustix::fs::renameat(&directory, name, &aside, ASIDE),
        (false, false) => Ok(()),
    }
    .map_err(failed)?;
    tree::remove(&aside, OsStr::new(ASIDE), ASIDE.as_bytes())
}

/// What is on the way to a path in the upper.
enum Way {
    /// The directory that it is in is there; whether it, or one above, hides the lower.
    Open { hidden: bool },
    /// Nothing was written there.
    Unwritten,
    /// This directory above it is gone from the workspace, and is one of the lower.
    Gone(Vec<u8>),
    /// This directory above it is something else.
    Other(Vec<u8>),
}

fn way(layers: &Layers, path: &[u8]) -> Result<Way, ReviewError> {
    let mut hidden = layer::is_opaque(&layers.upper).map_err(ReviewError::io("read", b""))?;
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    for (slash, _) in slashes {
        let above = &path[..slash];
        let (directory, name) = parted(above);
        let failed = || ReviewError::io("look at", above);
        let open = reach::way(&layers.upper, directory, reach::READ).map_err(|error| failed()(error.into()))?;
        match layer::look(&open, name).map_err(failed())?.map(|entry| entry.kind) {
            Some(Kind::Directory) => {
                let open = reach::directory(&open, name, reach::READ).map_err(failed())?;
                hidden |= layer::is_opaque(open).map_err(failed())?;
            }
            None if !hidden => return Ok(Way::Unwritten),
            // In a directory that hides the lower, what is missing is gone.
            None | Some(Kind::Whiteout) => {
                let lower = layers.lower.dir(as_path(above));
                return Ok(if lower.is_ok() {
                    Way::Gone(above.to_vec())
                } else {
                    Way::Unwritten
                });
            }
            Some(_) => return Ok(Way::Other(above.to_vec())),
        }
    }
    Ok(Way::Open { hidden })
}

/// Shows a directory of the lower again that is gone, with nothing in it.
fn show(aside: &std::os::fd::OwnedFd, layers: &Layers, path: &[u8]) -> Result<(), ReviewError> {
    let failed = |error: Errno| ReviewError::io("roll back", path)(error.into());
    let lower = layers.lower.dir(as_path(path)).map_err(failed)?;
    let name = OsStr::new(ASIDE);
    let made = layer::copy_directory(&lower, aside, name).map_err(ReviewError::io("roll back", path))?;
    for inner in names(&lower, path)? {
        layer::make_whiteout(&made, &inner).map_err(ReviewError::io("roll back", path))?;
    }
    let (directory, place) = parted(path);
    let directory = reach::way(&layers.upper, directory, reach::WRITE).map_err(failed)?;
    let there = layer::look(&directory, place)
        .map_err(ReviewError::io("roll back", path))?
        .is_some();
    let flags = if there {
        RenameFlags::EXCHANGE
    } else {
        RenameFlags::NOREPLACE
    };
    rustix::fs::renameat_with(aside, name, &directory, place, flags).map_err(failed)?;
    tree::remove(aside, name, ASIDE.as_bytes())
}

/// Copies what the lower has at a path to the place beside the upper, if it has something.
fn copy_lower(aside: &std::os::fd::OwnedFd, layers: &Layers, path: &[u8]) -> Result<(), ReviewError> {
    let (directory, name) = parted(path);
    let lower = match layers.lower.dir(as_path(directory)) {
        Ok(lower) => lower,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(ReviewError::io("open", directory)(error.into())),
    };
    let failed = || ReviewError::io("roll back", path);
    match layer::look(&lower, name).map_err(failed())?.map(|entry| entry.kind) {
        None => Ok(()),
        Some(Kind::Directory) => {
            let from = layer::open_directory(&lower, name).map_err(failed())?;
            tree::copy_upper(from, aside, OsStr::new(ASIDE)).map(drop)
        }
        Some(Kind::File) => {
            let file = layer::open_file(&lower, name).map_err(failed())?;
            let (copy, _) = layer::copy_file(&file, aside, OsStr::new(ASIDE)).map_err(failed())?;
            layer::mark_origin(copy).map_err(failed())
        }
        Some(_) => layer::copy_entry(&lower, name, aside, OsStr::new(ASIDE))
            .map(drop)
            .map_err(failed()),
    }
}

/// A directory that belongs to the daemon alone.
pub(super) fn private_directory(parent: impl std::os::fd::AsFd, name: &OsStr) -> Result<(), ReviewError> {
    match rustix::fs::mkdirat(parent.as_fd(), name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(ReviewError::io("make", name.as_encoded_bytes())(error.into())),
    }
}
