//! Room that is kept on the disk for what makes room: with it what operators do for that, the receipts of a prune, and the last entries of a daemon
//! can be written when nothing else can.
//!
//! What operators do takes the pages that it needs, up to a part; the rest is for the others, which take all that is left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags};

use crate::home::PRIVATE_FILE;

/// Its name.
pub(super) const FILE: &str = "reserve";

/// Its bytes.
const BYTES: u64 = 256 << 10;

/// Of those, the bytes that operators leave: twice what the receipts for as many segments as are removed at once need.
const LAST_BYTES: u64 = 64 << 10;

/// Takes the room, as far as it is not taken. After an error there is as much as before.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE);
    let kept = fs::symlink_metadata(&path).ok().filter(is_ours);
    // One that was copied may be a hole.
    if kept
        .as_ref()
        .is_some_and(|kept| kept.len() >= BYTES && kept.blocks() * 512 >= BYTES)
    {
        return Ok(());
    }
    let was = kept.map_or(0, |kept| kept.len());
    if was == 0 {
        crate::home::remove_file(&path)?;
    }
    let mut file = open(&path, was == 0)?;
    grow(&mut file).inspect_err(|_| {
        // The error is what is told.
        let _ = match was {
            0 => fs::remove_file(&path),
            was => file.set_len(was),
        };
    })
}

/// Whether it is a file, and nothing else.
fn is_ours(found: &fs::Metadata) -> bool {
    found.is_file() && found.nlink() == 1
}

fn open(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(new)
        .mode(PRIVATE_FILE)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
}

fn grow(file: &mut File) -> io::Result<()> {
    match rustix::fs::fallocate(&*file, FallocateFlags::empty(), 0, BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.write_all(&vec![0; usize::try_from(BYTES).unwrap_or_default()])?;
        }
        other => other?,
    }
    file.sync_all()
}

/// Gives so many bytes back, for what operators do. Whether they may have that many.
pub(super) fn spend(directory: &Path, bytes: u64) -> bool {
    let Ok(file) = open(&directory.join(FILE), false) else {
        return false;
    };
    let found = file.metadata().ok().filter(is_ours);
    let length = found.map_or(0, |found| found.len());
    let left = length.checked_sub(bytes).filter(|left| *left >= LAST_BYTES);
    left.is_some_and(|left| file.set_len(left).is_ok())
}

/// Gives all of it back. Whether there was any.
pub(super) fn release(directory: &Path) -> bool {
    fs::remove_file(directory.join(FILE)).is_ok()
}
