//! Where a daemon goes on in a log that is there: looked at first, and only then written.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use astrid_wire::proof::PublicKey;

use super::entry::{Entry, Kind, Outcome};
use super::files::{open_regular, read_bounded};
use super::report::{Report, UNKNOWN_MAX, VerifyError};
use super::verify::{State, segments, walk};
use super::{RESTORED, checkpoint, segment};
use crate::home::PRIVATE_FILE;

/// Bytes behind the last seal that are kept at most: more than one write has.
const ASIDE_BYTES_MAX: u64 = 64 << 20;

/// Files with what was behind the last seal of one segment at most; further ones are not kept.
const ASIDE_FILES_MAX: u32 = 100;

/// Bytes of what a restore left, at most.
const RESTORED_BYTES_MAX: u64 = 2048;

/// What was found, and how to go on.
pub(super) struct Found {
    pub(super) report: Report,
    pub(super) state: State,
    /// The log goes on in a new segment of this number.
    pub(super) next: Option<u64>,
    /// What is told in the log once it goes on.
    unsealed: Option<(u64, u64)>,
}

/// Looks at what came since the checkpoint, or at all of it when something is wrong. Writes nothing.
pub(super) fn look(directory: &Path, key: &PublicKey) -> Result<Found, VerifyError> {
    let from = checkpoint::read(directory).filter(|state| state.key.as_ref() == Some(key));
    let mut from = from.as_ref();
    let mut walked = walk(directory, Some(key), from, None)?;
    if !walked.report.is_ok() && from.is_some() {
        // Something is wrong since: all that is wrong is to be known, and nothing of it forgotten.
        from = None;
        let whole = walk(directory, Some(key), None, None)?;
        let first = std::mem::replace(&mut walked, whole);
        walked.end_is_wrong |= first.end_is_wrong;
        walked.claimed = (
            walked.claimed.0.max(first.claimed.0),
            walked.claimed.1.max(first.claimed.1),
        );
        walked.report.also(first.report);
    }
    let mut unsealed = None;
    if walked.report.unsealed_tail > 0 && !walked.end_is_wrong {
        // Nobody was promised these, and no seal may ever cover them: it goes on before them.
        unsealed = Some((walked.state.segment, walked.sealed_to));
        walked.state = walk(directory, Some(key), from, unsealed)?.state;
    }
    let mut state = walked.state;
    let is_anothers = state.key.is_some_and(|signed| signed != *key);
    let last = segments(directory)?.last().map_or(0, |(number, _)| *number);
    let last = last.max(state.segment).max(walked.claimed.0);
    let next = (walked.end_is_wrong || is_anothers).then_some(last + 1);
    // The numbers of entries that are missing stay missing, so that it is seen for ever.
    state.sequence = state.sequence.max(walked.claimed.1);
    let mut report = walked.report;
    // What an earlier boot was told is not told again.
    report.unknown_count = state.open.len() as u64;
    report.unknown_outcomes = state.open.iter().copied().take(UNKNOWN_MAX).collect();
    Ok(Found {
        report,
        state,
        next,
        unsealed,
    })
}

impl Found {
    /// What the log is to say about itself before anything else; and sets aside what is behind the last seal.
    pub(super) fn tell(&self, directory: &Path) -> Vec<Entry> {
        let mut told = Vec::new();
        if let Ok(restored) = read_bounded(&directory.join(RESTORED), RESTORED_BYTES_MAX) {
            let entry = Entry::kernel(Kind::Integrity, "backup.restore");
            told.push(entry.detail(String::from_utf8_lossy(&restored).trim()));
        }
        if let Some(first) = self.report.findings.first() {
            let entry = Entry::kernel(Kind::Integrity, "audit.damaged").resource(&first.file);
            told.push(
                entry
                    .detail(&first.to_string())
                    .count(self.report.findings_count)
                    .outcome(Outcome::Failed),
            );
        }
        if let Some((number, from)) = self.unsealed {
            let name = segment::file_name(number);
            let detail = match set_aside(directory, &name, from) {
                Ok(kept) => kept,
                Err(error) => format!("from byte {from}, not kept: {error}"),
            };
            let entry = Entry::kernel(Kind::Integrity, "audit.unsealed").resource(&name);
            told.push(entry.detail(&detail).count(self.report.unsealed_tail));
        }
        // Told once: from here on these have an outcome.
        told.extend(self.state.open.iter().map(|intent| {
            Entry::outcome_of(*intent, super::entry::KERNEL, "audit.boot", Outcome::Unknown)
                .detail("the daemon ended before it was known")
        }));
        told
    }
}

/// Keeps a copy of what is behind that byte of a segment. The writer cuts it off before it writes. Says what there was and where it is.
fn set_aside(directory: &Path, name: &str, from: u64) -> io::Result<String> {
    let mut segment = open_regular(&directory.join(name))?;
    segment.seek(SeekFrom::Start(from))?;
    let kept = (0..ASIDE_FILES_MAX).map(|n| match n {
        0 => format!("{name}.unsealed"),
        n => format!("{name}.unsealed-{n}"),
    });
    for kept in kept {
        let path = directory.join(&kept);
        let mut options = OpenOptions::new();
        let mut file = match options.write(true).create_new(true).mode(PRIVATE_FILE).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        let mut hasher = blake3::Hasher::new();
        let copied = copy(segment.take(ASIDE_BYTES_MAX), &mut hasher, &mut file).and_then(|bytes| {
            file.sync_all()?;
            Ok(bytes)
        });
        let bytes = copied.inspect_err(|_| {
            // Half of it is no evidence, and its room is needed.
            let _ = fs::remove_file(&path);
        })?;
        let hash = hasher.finalize();
        return Ok(format!(
            "from byte {from}, {bytes} bytes, kept in {kept}, blake3={hash}"
        ));
    }
    Err(io::Error::other("too many such files are kept already"))
}

fn copy(mut from: impl io::Read, hasher: &mut blake3::Hasher, to: &mut fs::File) -> io::Result<u64> {
    let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(bytes);
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}
