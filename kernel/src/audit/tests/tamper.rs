//! What was changed in a copy is found, and the place named: K13, over all positions.

use std::fs;

use super::*;
use crate::audit::segment::{AROUND_BYTES, HEADER_BYTES};
use crate::audit::verify::Fault;

/// Where records of a segment begin, and where the last one ends.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut at = HEADER_BYTES;
    let mut all = vec![at];
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        at += AROUND_BYTES + length;
        all.push(at);
    }
    all
}

struct Copy {
    directory: tempfile::TempDir,
    key: PublicKey,
    /// Files, and what is in them.
    segments: Vec<(String, Vec<u8>)>,
}

impl Copy {
    fn new() -> Self {
        let log = filled(1200, 9);
        assert!(log.verify().is_ok());
        let directory = copy_of(&log.dir());
        let names = verify::segments(directory.path()).unwrap();
        let segments: Vec<(String, Vec<u8>)> = names
            .into_iter()
            .map(|(number, path)| (segment::file_name(number), fs::read(path).unwrap()))
            .collect();
        assert!(segments.len() >= 3);
        Self {
            directory,
            key: log.key(),
            segments,
        }
    }

    /// What is found when that is in a file instead.
    fn with(&self, segment: usize, bytes: &[u8]) -> Report {
        let (name, original) = &self.segments[segment];
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let report = verify(self.directory.path(), Some(&self.key)).unwrap();
        fs::write(&path, original).unwrap();
        report
    }

    /// That it is found where it is: in this file between these bytes, or at the beginning of the next.
    #[track_caller]
    fn found(&self, segment: usize, at: std::ops::RangeInclusive<usize>, report: &Report, what: &str) {
        let here = &self.segments[segment].0;
        let next = self.segments.get(segment + 1).map(|(name, _)| name);
        let placed = report.findings.iter().any(|finding| {
            let offset = finding.offset as usize;
            (finding.file == *here && at.contains(&offset)) || (Some(&finding.file) == next && offset == 0)
        });
        assert!(placed, "{here} {at:?} {what}: {:?}", report.findings);
    }
}

/// Any byte of any segment.
#[test]
fn a_changed_byte_is_found() {
    let copy = Copy::new();
    for (segment, (_, original)) in copy.segments.iter().enumerate() {
        let starts = records(original);
        for at in 0..original.len() {
            let mut bytes = original.clone();
            bytes[at] ^= 1 << (at % 8);
            let report = copy.with(segment, &bytes);
            let start = starts.iter().copied().rfind(|start| *start <= at).unwrap_or(0);
            copy.found(segment, start..=start, &report, &format!("changed byte {at}"));
            let in_length = at >= HEADER_BYTES && at - start < 5;
            assert!(
                in_length || report.findings_count == 1 || start == 0,
                "{at}: {:?}",
                report.findings
            );
        }
    }
}

/// Each record removed, doubled, put in elsewhere, changed for its neighbour.
#[test]
fn a_moved_record_is_found() {
    let copy = Copy::new();
    for (segment, (_, original)) in copy.segments.iter().enumerate() {
        let starts = records(original);
        let record = |n: usize| &original[starts[n]..starts[n + 1]];
        let count = starts.len() - 1;
        for n in 0..count {
            let (before, after) = (&original[..starts[n]], &original[starts[n + 1]..]);
            let removed = copy.with(segment, &[before, after].concat());
            copy.found(segment, starts[n]..=starts[n], &removed, "removed");
            for other in 0..count {
                let inserted = copy.with(segment, &[before, record(other), record(n), after].concat());
                copy.found(segment, starts[n]..=starts[n + 1], &inserted, "put in");
            }
            if n + 1 < count {
                let rest = &original[starts[n + 2]..];
                let swapped = copy.with(segment, &[before, record(n + 1), record(n), rest].concat());
                copy.found(segment, starts[n]..=starts[n], &swapped, "swapped");
            }
        }
    }
}

/// Cut off at any byte, also between two records; in the last segment too, because `head` says how far it went.
#[test]
fn a_cut_is_found() {
    let copy = Copy::new();
    for (segment, (_, original)) in copy.segments.iter().enumerate() {
        for end in 0..original.len() {
            let report = copy.with(segment, &original[..end]);
            copy.found(segment, 0..=end, &report, "cut");
        }
    }
}

/// A whole file that is gone, or called otherwise.
#[test]
fn a_missing_segment_is_found() {
    let copy = Copy::new();
    for (n, (name, _)) in copy.segments.iter().enumerate() {
        let (path, aside) = (copy.directory.path().join(name), copy.directory.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let report = verify(copy.directory.path(), Some(&copy.key)).unwrap();
        let expected = match n {
            0 => Fault::NotPruned,
            n if n + 1 == copy.segments.len() => report.findings[0].fault.clone(),
            n => Fault::Segments(n as u64 + 1, n as u64 + 1),
        };
        assert_eq!(report.findings[0].fault, expected);
        fs::rename(&aside, &path).unwrap();
    }
    let (last, _) = copy.segments.last().unwrap();
    let other = segment::file_name(copy.segments.len() as u64 + 1);
    fs::rename(copy.directory.path().join(last), copy.directory.path().join(other)).unwrap();
    let report = verify(copy.directory.path(), Some(&copy.key)).unwrap();
    let renamed = |finding: &Finding| finding.fault == Fault::Name(copy.segments.len() as u64);
    assert!(report.findings.iter().any(renamed), "{:?}", report.findings);
}

/// Who can compute hashes and has another key: every hash fits, and the signature does not.
#[test]
fn a_log_that_somebody_else_signed_is_found() {
    let (log, theirs) = (filled(1 << 20, 3), filled(1 << 20, 3));
    let report = verify(&theirs.dir(), Some(&log.key())).unwrap();
    assert!(
        report.findings.iter().any(|f| f.fault == Fault::WrongKey(log.key())),
        "{:?}",
        report.findings
    );
    // Their entries behind ours.
    let stolen = copy_of(&log.dir());
    fs::copy(theirs.dir().join("00000001.seg"), stolen.path().join("00000002.seg")).unwrap();
    let report = verify(stolen.path(), Some(&log.key())).unwrap();
    assert!(
        report
            .findings
            .iter()
            .any(|f| f.fault == Fault::KeyChanged(theirs.key()))
    );
}

/// An entry that was changed, and every hash behind it made right again: the seals tell, and which.
#[test]
fn a_chain_that_was_made_right_is_found() {
    let log = filled(1 << 20, 6);
    let path = log.dir().join("00000001.seg");
    let original = fs::read(&path).unwrap();
    let starts = records(&original);
    for n in 0..starts.len() - 1 {
        if original[starts[n] + 4] != 1 {
            continue;
        }
        let mut bytes = original.clone();
        // Its wall clock.
        bytes[starts[n] + 5 + 8] ^= 1;
        for pair in starts.windows(2).skip(n) {
            let hash = segment::hash(&bytes[pair[0] - 32..pair[1] - 32]);
            bytes[pair[1] - 32..pair[1]].copy_from_slice(&hash);
        }
        fs::write(&path, &bytes).unwrap();
        let report = log.verify();
        let seal = (n..).find(|n| original[starts[*n] + 4] == 2).unwrap();
        let first = report.findings.first().unwrap();
        // What names the entry's hash is wrong too, if it comes before the seal.
        let places: Vec<u64> = report.findings.iter().map(|finding| finding.offset).collect();
        assert!(places.contains(&(starts[seal] as u64)), "{n}: {first} {places:?}");
        assert!(report.findings.iter().any(|f| matches!(f.fault, Fault::Signature(..))));
    }
}
