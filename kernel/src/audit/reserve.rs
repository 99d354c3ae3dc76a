//! Room that is kept on the disk for what makes room: with it the receipts of a prune, and the last entries of a daemon, can be written when
//! nothing else can.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;

use crate::home::PRIVATE_FILE;

/// Its name.
pub(super) const FILE: &str = "reserve";

/// Its bytes: twice what the receipts for as many segments as are removed at once need.
const BYTES: u64 = 64 << 10;

/// Takes the room, if it is not taken. After an error it is not.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE);
    if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() >= BYTES) {
        return Ok(());
    }
    fill(&path).inspect_err(|_| {
        // Half of it is of no use, and the error is what is told.
        let _ = fs::remove_file(&path);
    })
}

fn fill(path: &Path) -> io::Result<()> {
    crate::home::remove_file(path)?;
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            file.write_all(&vec![0; usize::try_from(BYTES).unwrap_or_default()])?;
        }
        other => other?,
    }
    file.sync_all()
}

/// Gives the room back. Whether there was any.
pub(super) fn release(directory: &Path) -> bool {
    fs::remove_file(directory.join(FILE)).is_ok()
}
