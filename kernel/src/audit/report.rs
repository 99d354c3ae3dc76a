//! What verifying a log finds: what is wrong, where, and what is to be known beside that.

use std::fmt;
use std::io;
use std::path::PathBuf;

use astrid_wire::control::audit::{Found, Verified};
use astrid_wire::proof::PublicKey;

use super::entry::Hash;
use super::segment::HeaderError;
use super::verify::SEGMENTS_MAX;

/// Findings that are listed at most; further ones are counted.
pub const FINDINGS_MAX: usize = 100;

/// Intents that are listed as unknown at most; further ones are counted.
pub const UNKNOWN_MAX: usize = 1000;

/// Why the log cannot be looked at. What is wrong *in* it is a [`Finding`].
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// More files than a log has.
    #[error("{} has more than {SEGMENTS_MAX} segments", .0.display())]
    TooMany(PathBuf),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The beginning of a segment.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// A file that is called otherwise than it was.
    #[error("it is segment {0} under another name")]
    Name(u64),
    /// Files that are not there.
    #[error("segments {0} to {1} are missing before it")]
    Segments(u64, u64),
    /// The first file is not the first, and no receipt says why.
    #[error("what was before it is missing, and no receipt says that it was pruned")]
    NotPruned,
    /// It does not continue the one before it.
    #[error("it does not continue the segment before it")]
    Discontinued,
    /// Another key than before, without a rotation.
    #[error("it is signed by {0}, which the key before it did not name")]
    KeyChanged(PublicKey),
    /// Nothing is signed by the key that is trusted.
    #[error("nothing here is signed by {0}")]
    WrongKey(PublicKey),
    /// A hash is not that of what it stands for.
    #[error("it was changed, or what was before it was changed, moved, removed or put in")]
    Hash,
    /// Entries are not there.
    #[error("entries {0} to {1} are missing before it")]
    Missing(u64, u64),
    /// An entry is where another one was.
    #[error("it is entry {found}, where entry {expected} belongs: moved, or put in")]
    Moved {
        /// The number that it has.
        found: u64,
        /// The number that it should have.
        expected: u64,
    },
    /// Not an entry, although its hash is right.
    #[error("it is no entry: {0}")]
    NoEntry(#[from] super::entry::DecodeError),
    /// The chain of its principal is another.
    #[error("it does not name the entry of its principal before it")]
    Link,
    /// A seal does not count what is before it.
    #[error("the seal stands for other entries than those before it")]
    Count,
    /// A signature is wrong.
    #[error("entries {0} to {1} are not what was signed")]
    Signature(u64, u64),
    /// No record begins like that.
    #[error("no record begins here; the rest of the file cannot be read")]
    Garbage,
    /// The file ends in the middle of a record, where more was.
    #[error("it ends in the middle of a record")]
    Torn,
    /// The file ends without a seal, and there is another one behind it.
    #[error("its last entries have no seal")]
    Unsealed,
    /// The file `head` is no head of this log: no key of the log signed it.
    #[error("it is not signed by the log's key")]
    Head,
    /// There are seals, and no file `head`.
    #[error(
        "it is missing: a daemon writes it with the first segment, and without it the end of the log can be cut off unseen"
    )]
    NoHead,
    /// `head` or `checkpoint`, which the log's own key signed, names more than there is.
    #[error("the log went on to entry {0}: its end was cut off")]
    CutOff(u64),
    /// A log was here, and no segment of it is.
    #[error("a log with this key was here, and no segment of it is left")]
    Gone,
    /// A pipe, a directory or a device.
    #[error("it is no regular file")]
    NoFile,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the file.
    pub file: String,
    /// Number of the entry, as far as it is known.
    pub entry: Option<u64>,
    /// Byte in the file.
    pub offset: u64,
    /// What.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry}")?;
        }
        write!(f, ", byte {}: {}", self.offset, self.fault)
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Segments looked at.
    pub segments: u64,
    /// Entries that are sealed. What no seal covers proves nothing, and is not counted.
    pub entries: u64,
    /// Seals looked at.
    pub seals: u64,
    /// The first entry looked at.
    pub first: Option<u64>,
    /// The last sealed entry.
    pub last: Option<u64>,
    /// Whole entries at the end that no seal covers: nobody was promised them, anybody can have written them.
    pub unsealed_tail: u64,
    /// Bytes at the end that are no whole record: what was written when the machine or the daemon ended.
    pub torn_bytes: u64,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// How many findings there are, also those that are not listed.
    pub findings_count: u64,
    /// Intents of which nobody knows whether they were carried out.
    pub unknown_outcomes: Vec<u64>,
    /// How many of those there are.
    pub unknown_count: u64,
    /// Entries that a checkpoint stands for.
    pub trusted_before: u64,
    /// Whether the file `head` says where the log ended.
    pub anchored: bool,
    /// Who signed the end.
    pub key: Option<PublicKey>,
    /// The hash of the last seal.
    pub head: Hash,
}

impl Report {
    /// Takes over what another look at the same log found and this one did not.
    pub(super) fn also(&mut self, other: Self) {
        for finding in other.findings {
            let known = |found: &Finding| found.file == finding.file && found.fault == finding.fault;
            if !self.findings.iter().any(known) {
                self.find(&finding.file, finding.entry, finding.offset, finding.fault);
            }
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.findings_count == 0
    }

    /// The hash of the last record, in hexadecimal digits.
    #[must_use]
    pub fn head_hex(&self) -> String {
        hex::encode(self.head)
    }

    /// As others are told.
    #[must_use]
    pub fn to_wire(&self) -> Verified {
        Verified {
            ok: self.is_ok(),
            segments: self.segments,
            entries: self.entries,
            seals: self.seals,
            first: self.first,
            last: self.last,
            unsealed_tail: self.unsealed_tail,
            torn_bytes: self.torn_bytes,
            anchored: self.anchored,
            key: self.key.map(|key| key.to_string()),
            head: self.head_hex(),
            unknown_outcomes: self.unknown_outcomes.clone(),
            unknown_count: self.unknown_count,
            findings: self
                .findings
                .iter()
                .map(|finding| Found {
                    file: finding.file.clone(),
                    entry: finding.entry,
                    offset: finding.offset,
                    fault: finding.fault.to_string(),
                })
                .collect(),
            findings_count: self.findings_count,
        }
    }

    pub(super) fn find(&mut self, file: &str, entry: Option<u64>, offset: u64, fault: Fault) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding {
                file: file.to_owned(),
                entry,
                offset,
                fault,
            });
        }
    }

    pub(super) fn unknown(&mut self, intent: u64) {
        self.unknown_count += 1;
        if self.unknown_outcomes.len() < UNKNOWN_MAX {
            self.unknown_outcomes.push(intent);
        }
    }
}
