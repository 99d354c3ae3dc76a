//! Files of guests: what `workspace://`, `home://` and `tmp://` name, and nothing beside it.
//!
//! - [`path`]: what a guest may write for a path; [`error`]: what it is told;
//! - [`beneath`]: an open directory, and the one place that opens what is below it;
//! - [`layer`]: one layer of an overlay on disk, in the format of the Linux overlay file system;
//! - `walk`: symbolic links, which are followed by us, inside the root;
//! - [`mountinfo`]: what is mounted where;
//! - `reach`: what programs closed to everybody;
//! - [`opened`]: a file that is open; [`temporary`]: one that is not there yet; [`listing`]: what is in a directory; [`space`]: what it all takes on the disk;
//! - [`plain`]: a tree that is one directory; [`overlay`]: a tree that is two, of which only one is written.
//!
//! A [`Tree`] is used in two steps: [`Tree::resolve`] follows the links of a path and gives a [`Place`], which says what authority it needs; and
//! everything else takes places. Nothing here asks whether somebody may. Nothing here knows guests, messages or the engine, and everything waits
//! for the disk: it is for threads that may.

pub mod beneath;
pub mod checkout;
pub mod error;
pub mod layer;
pub mod listing;
pub mod mountinfo;
pub mod opened;
pub mod overlay;
pub mod path;
pub mod plain;
mod reach;
pub mod review;
pub mod space;
pub mod temporary;
mod walk;
pub mod workspaces;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use beneath::{Moment, Stat};
use error::{At as _, Fault, FsError};
use listing::Page;
use opened::{Access, OpenFile, Replacing};
use overlay::Overlay;
use path::{Follow, Place, VirtualPath};
use plain::Plain;
use space::Room;

/// Bytes of the text of a link, at most: what the system takes.
pub const LINK_BYTES_MAX: usize = 4095;

/// Removes a directory of the daemon's that others wrote to, whatever they made there, and however deep. That nothing is there is as good.
///
/// # Errors
/// The system's.
pub fn remove_directory(parent: &std::path::Path, name: &std::ffi::OsStr) -> std::io::Result<()> {
    let parent = match layer::open_root(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    review::tree::remove(parent, name, name.as_encoded_bytes()).map_err(|error| match error {
        review::ReviewError::Io { source, .. } => source,
        error => std::io::Error::other(error),
    })
}

/// What is known about a place.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// What the file system says.
    pub stat: Stat,
    /// In an overlay: it is in the layer that is written, so it is not as it is below, or has something in it that is not. Elsewhere always.
    pub written: bool,
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// What is not a directory.
    File,
    /// A directory with nothing in it.
    Dir,
    /// Anything, with everything that is below it.
    Tree {
        /// Entries that may be below it.
        entries_max: u64,
    },
}

/// What a rename may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renaming {
    /// What is there already is replaced, as `rename(2)` does.
    pub replace: bool,
    /// Bytes that may be copied, where a directory of the lower layer has to be.
    pub bytes_max: u64,
    /// Entries that may be.
    pub entries_max: u64,
}

/// A tree of files.
#[derive(Debug)]
pub enum Tree {
    /// One directory.
    Plain(Plain),
    /// Two, of which only one is written.
    Overlay(Overlay),
}

/// Calls the same operation of whichever it is.
macro_rules! either {
    ($tree:expr, $name:ident ( $($argument:expr),* )) => {
        match $tree {
            Tree::Plain(tree) => tree.$name($($argument),*),
            Tree::Overlay(tree) => tree.$name($($argument),*),
        }
    };
}

impl Tree {
    /// The place that a path leads to, which need not be there; the directory that it is in must be.
    ///
    /// # Errors
    /// [`Fault::Escapes`] when a link leads out, [`Fault::NotFound`] and [`Fault::NotADirectory`] when the way is not there.
    pub fn resolve(&self, path: &VirtualPath, follow: Follow) -> Result<Place, FsError> {
        either!(self, resolve(path, follow))
    }

    /// The place of what was listed in a directory. It is not followed when it is a link.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when it is no name.
    pub fn child(&self, directory: &Place, name: &str) -> Result<Place, FsError> {
        directory.path().join(name).map(Place::new)
    }

    /// Whether [`Info::written`] and [`listing::Listed::written`] mean something here.
    #[must_use]
    pub fn has_layers(&self) -> bool {
        match self {
            Self::Plain(tree) => tree.has_layers(),
            Self::Overlay(_) => true,
        }
    }

    /// What is to be watched to see changes there: of an overlay, what both layers have. They are open for nothing but that.
    ///
    /// # Errors
    /// The system's.
    pub fn watched(&self, place: &Place) -> Result<Vec<OwnedFd>, FsError> {
        either!(self, watched(place))
    }

    /// What is known about it; of a link, about the link.
    ///
    /// # Errors
    /// See [`Fault`]; so everywhere below.
    pub fn stat(&self, place: &Place) -> Result<Info, FsError> {
        either!(self, stat(place))
    }

    /// Opens a regular file. What is below and is to be changed is copied first, if that fits.
    ///
    /// # Errors
    /// [`Fault::IsADirectory`], [`Fault::Unsupported`] for a device, [`Fault::Changed`] for a link.
    pub fn open(&self, place: &Place, access: &Access, room: &mut Room) -> Result<OpenFile, FsError> {
        either!(self, open(place, access, room))
    }

    /// Begins to write a whole new content for a file that may be there. A new file gets this mode; another keeps its own.
    ///
    /// # Errors
    /// [`Fault::IsADirectory`], and the system's.
    pub fn begin_replace(&self, place: &Place, mode: u32) -> Result<Replacing, FsError> {
        either!(self, begin_replace(place, mode))
    }

    /// Puts a whole new content in its place.
    ///
    /// # Errors
    /// [`Fault::IsADirectory`], [`Fault::Changed`] when there is a link now. The new content is gone then.
    pub fn publish(&self, replacing: Replacing, room: &mut Room) -> Result<(), FsError> {
        either!(self, publish(replacing, room))
    }

    /// The entries of a directory whose names come after one, at most so many.
    ///
    /// # Errors
    /// [`Fault::NotADirectory`].
    pub fn list(&self, place: &Place, after: Option<&str>, entries_max: usize) -> Result<Page, FsError> {
        either!(self, list(place, after, entries_max))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`Fault::Exists`].
    pub fn make_dir(&self, place: &Place, mode: u32, room: &mut Room) -> Result<(), FsError> {
        either!(self, make_dir(place, mode, room))
    }

    /// Removes what is there.
    ///
    /// # Errors
    /// [`Fault::NotEmpty`], [`Fault::TooMany`]; [`Fault::Busy`] for the root.
    pub fn remove(&self, place: &Place, removal: Removal, room: &mut Room) -> Result<(), FsError> {
        either!(self, remove(place, removal, room))
    }

    /// Gives what is there another place in the same tree, as `rename(2)` does.
    ///
    /// # Errors
    /// Those of `rename(2)`; [`Fault::TooLarge`] and [`Fault::TooMany`] when more of the lower layer would have to be copied than is allowed.
    pub fn rename(&self, from: &Place, to: &Place, how: &Renaming, room: &mut Room) -> Result<(), FsError> {
        match self {
            Self::Plain(tree) => tree.rename(from, to, how.replace, room),
            Self::Overlay(tree) => tree.rename(from, to, how, room),
        }
    }

    /// The text of a link.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when it is none.
    pub fn read_link(&self, place: &Place) -> Result<String, FsError> {
        either!(self, read_link(place))
    }

    /// Makes a link with any text. Where it leads is looked at when it is followed.
    ///
    /// # Errors
    /// [`Fault::Exists`]; [`Fault::Invalid`] for a text that no link can have.
    pub fn make_link(&self, place: &Place, target: &str, room: &mut Room) -> Result<(), FsError> {
        if target.is_empty() || target.len() > LINK_BYTES_MAX || target.contains('\0') {
            return Err(Fault::Invalid(
                "the text of a link has 1 to 4095 bytes, and no zero byte",
            ))
            .at(place.path());
        }
        either!(self, make_link(place, target, room))
    }

    /// Sets the permission bits of a file or directory. Set-id and sticky bits are never set.
    ///
    /// # Errors
    /// [`Fault::Changed`] for a link.
    pub fn set_mode(&self, place: &Place, mode: u32, room: &mut Room) -> Result<(), FsError> {
        match self {
            Self::Plain(tree) => tree.set_mode(place, mode),
            Self::Overlay(tree) => tree.set_mode(place, mode, room),
        }
    }

    /// Sets when the content was changed last; of a link, its own.
    ///
    /// # Errors
    /// [`Fault::Invalid`] for a moment that file systems cannot keep.
    pub fn set_modified(&self, place: &Place, at: Moment, room: &mut Room) -> Result<(), FsError> {
        match self {
            Self::Plain(tree) => tree.set_modified(place, at),
            Self::Overlay(tree) => tree.set_modified(place, at, room),
        }
    }
}

/// A change of the one time, and not of the other.
fn only_modified(at: Moment) -> Result<Timestamps, Fault> {
    if at.nanoseconds >= 1_000_000_000 {
        return Err(Fault::Invalid("a second has 1,000,000,000 nanoseconds"));
    }
    Ok(Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: at.seconds,
            tv_nsec: i64::from(at.nanoseconds),
        },
    })
}
