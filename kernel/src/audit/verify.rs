//! Is the log what was written? From its files and the public key, and nothing else.
//!
//! The chain is followed from its beginning, or from a [checkpoint](super::checkpoint) on. A signature stands for everything before it, so
//! as long as every hash is right the last one of each segment is enough; only when one is wrong are all looked at, to say where.
//! After something wrong reading goes on as well as it can, so that one changed byte in an entry is one finding; what is moved, a changed
//! length, or a rotation can be two or three.
//!
//! Entries behind the last seal prove nothing: anybody who can write the file can have put them there. They are told, and neither counted nor
//! believed.
//!
//! What cannot be seen from the files: that the end was cut off at a seal, and older copies of `head` and `checkpoint` put beside it. Whoever
//! must see that keeps the last head that was told, and compares.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::entry::Hash;
use super::head::read_head;
use super::links::Links;
pub use super::report::{FINDINGS_MAX, Fault, Finding, Report, UNKNOWN_MAX, VerifyError};
use super::segment;
use super::walk::{Anchors, Run};
use astrid_wire::proof::PublicKey;

/// Intents without an outcome that are known at once at most; those beyond, the oldest, are taken for unknown at once.
pub const OPEN_INTENTS_MAX: usize = 16 << 10;

/// Segments of a log at most: 4 TiB of them.
pub const SEGMENTS_MAX: usize = 1 << 16;

/// Where the log is: what its next record depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// The segment that was read last; 0 before the first.
    pub(super) segment: u64,
    /// Where its last whole record ends.
    pub(super) offset: u64,
    /// Hash of that.
    pub(super) head: Hash,
    /// Number of the last entry.
    pub(super) sequence: u64,
    /// Entries since the last seal.
    pub(super) unsealed: u64,
    /// Who signs.
    pub(super) key: Option<PublicKey>,
    /// The last entry of each principal.
    pub(super) links: Links,
    /// Intents without outcome.
    pub(super) open: BTreeSet<u64>,
    /// Number of the last entry of a boot.
    pub(super) boot: u64,
}

/// Segments of a directory, in order.
pub(super) fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, VerifyError> {
    let io = |source| VerifyError::Io {
        action: "list",
        path: directory.to_path_buf(),
        source,
    };
    let mut found = Vec::new();
    for file in fs::read_dir(directory).map_err(io)? {
        let file = file.map_err(io)?;
        if let Some(number) = file.file_name().to_str().and_then(segment::number_of) {
            found.push((number, file.path()));
        }
        if found.len() > SEGMENTS_MAX {
            return Err(VerifyError::TooMany(directory.to_path_buf()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// How often a log is listed again at most, when a segment is pruned while it is read.
const LISTED_MAX: usize = 16;

/// Looks at a whole log. `key` is the one that is trusted: any that signs a part of it.
///
/// # Errors
/// [`VerifyError`], when files cannot be read. Everything else is in the report.
pub fn verify(directory: &Path, key: Option<&PublicKey>) -> Result<Report, VerifyError> {
    walk(directory, key, None, None).map(|walked| walked.report)
}

/// What one look at the log found, and where it ended.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) report: Report,
    pub(super) state: State,
    /// Where the last seal of the last segment ends, or its header.
    pub(super) sealed_to: u64,
    /// The last segment is not to be continued.
    pub(super) end_is_wrong: bool,
    /// The last segment and entry that the log's own key says there were.
    pub(super) claimed: (u64, u64),
}

/// Looks from a checkpoint on. `until`: a segment, and the byte of it behind which nothing is looked at.
pub(super) fn walk(
    directory: &Path,
    key: Option<&PublicKey>,
    from: Option<&State>,
    until: Option<(u64, u64)>,
) -> Result<Walked, VerifyError> {
    for _ in 1..LISTED_MAX {
        match walk_once(directory, key, from, until) {
            // Pruned meanwhile; what is there now is listed again.
            Err(VerifyError::Io { source, path, .. })
                if source.kind() == io::ErrorKind::NotFound && path != directory => {}
            other => return other,
        }
    }
    walk_once(directory, key, from, until)
}

fn walk_once(
    directory: &Path,
    key: Option<&PublicKey>,
    from: Option<&State>,
    until: Option<(u64, u64)>,
) -> Result<Walked, VerifyError> {
    // Before the segments: what is written meanwhile is then only in them.
    let anchors = Anchors {
        head: read_head(directory),
        checkpoint: checkpoint::read(directory),
        key_file: fs::symlink_metadata(directory.join(super::key::KEY_FILE)).is_ok(),
    };
    let mut run = Run::new(directory, key, from.cloned(), until);
    run.all(&anchors)?;
    if run.recheck {
        run = Run::new(directory, key, from.cloned(), until);
        run.every_signature = true;
        run.all(&anchors)?;
    }
    Ok(run.walked())
}
