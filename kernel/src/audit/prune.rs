//! Old segments are removed, and leave receipts: an entry for each, which names the last hash before the first segment that is left. The header of
//! that segment names the same, so the chain goes on from there.
//!
//! Only the beginning of the log goes, up to the first segment that is not old enough, whatever the clock said in between: never one from the
//! middle. A segment that is damaged goes with those around it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::entry::{Entry, Hash, Kind, View};
use super::query::header_of;
use super::queue::{Pending, Reason, Refused};
use super::segment::{Header, file_name};
use super::verify::{VerifyError, segments};
use super::writer::Writer;

/// What the entry is called.
const ACTION: &str = "audit.prune";

/// Before the hash in the detail.
const HEAD: &str = "head=";

/// Segments that are removed by one prune at most; the next one goes on.
const PRUNE_MAX: usize = 1024;

/// Segments that are removed at once: their receipts fit into half of what operators leave of what is reserved.
const ONCE_MAX: usize = 64;

/// A segment that goes, and what is left of it.
struct Old {
    path: PathBuf,
    receipt: Entry,
}

/// The receipt for a segment. `next`: the first one behind it whose header can be read.
fn receipt(number: u64, removed: Option<&Header>, next: &Header) -> Entry {
    let entry = Entry::kernel(Kind::Prune, ACTION).resource(&file_name(number));
    let head = hex::encode(next.previous);
    match removed {
        Some(removed) => entry
            .detail(&format!(
                "{HEAD}{head} first={} last={}",
                removed.first,
                next.first.saturating_sub(1)
            ))
            .count(next.first.saturating_sub(removed.first)),
        None => entry.detail(&format!("{HEAD}{head} its header was damaged")),
    }
}

/// The hash that a receipt names.
pub(super) fn named(view: &View<'_>) -> Option<Hash> {
    let mut head = [0; 32];
    let digits = view.detail.strip_prefix(HEAD)?.split(' ').next()?;
    hex::decode_to_slice(digits, &mut head).ok()?;
    Some(head)
}

/// What can go: segments from the first on, as long as what is behind them was begun before that time.
fn old(directory: &Path, before_ms: u64, current: u64) -> Result<Vec<Old>, VerifyError> {
    let mut old: Vec<Old> = Vec::new();
    // Those before the next one whose header can be read.
    let mut group: Vec<(u64, PathBuf, Option<Header>)> = Vec::new();
    for (number, path) in segments(directory)? {
        let header = header_of(&path)?.filter(|header| header.number == number);
        if let (Some(next), false) = (&header, group.is_empty()) {
            if next.wall_ms > before_ms || old.len() + group.len() > PRUNE_MAX {
                break;
            }
            old.extend(group.drain(..).map(|(number, path, removed)| Old {
                path,
                receipt: receipt(number, removed.as_ref(), next),
            }));
        }
        if number >= current {
            break;
        }
        group.push((number, path, header));
    }
    Ok(old)
}

impl Writer {
    /// Removes segments that were ended before that time, and leaves receipts. Returns how many. On a disk that is full the receipts go into
    /// the room that is kept for that.
    pub(super) fn prune(&mut self, before_ms: u64) -> Result<u64, Refused> {
        let unreadable = |error: VerifyError| Refused::Failing(Reason::Other(error.to_string().into()));
        let old = old(&self.directory, before_ms, self.state.segment).map_err(unreadable)?;
        let mut removed = 0;
        for once in old.chunks(ONCE_MAX) {
            let receipts: Vec<Pending> = once.iter().map(|old| Pending::now(old.receipt.clone())).collect();
            match self.append_own(&receipts) {
                Err(Refused::Failing(Reason::Full)) if self.release() => self.append_own(&receipts)?,
                other => other?,
            }
            // One that names a segment that is gone would be taken for a sign that it was stolen.
            let refused = |error: std::io::Error| Refused::Failing(Reason::of(&error));
            if !self.checkpoint() {
                crate::home::remove_file(&self.directory.join(checkpoint::FILE)).map_err(refused)?;
            }
            for old in once {
                fs::remove_file(&old.path).map_err(refused)?;
                removed += 1;
            }
            File::open(&self.directory)
                .and_then(|directory| directory.sync_all())
                .map_err(refused)?;
        }
        self.reserve();
        Ok(removed)
    }
}
