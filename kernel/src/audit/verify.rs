//! Is the log what was written? From its files and the public key, and nothing else.
//!
//! The chain is followed from its beginning, or from a [checkpoint](super::checkpoint) on. A signature stands for everything before it, so
//! as long as every hash is right the last one of each segment is enough; only when one is wrong are all looked at, to say where.
//! After something wrong reading goes on as well as it can, so that one change is one finding.
//!
//! What cannot be seen from the files: that the end was cut off at a seal, together with the file `head`. Whoever must see that keeps the last
//! head that was told, and compares.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::entry::{Hash, Kind, Outcome, Stage, View};
use super::head::{Head, read_head};
use super::links::Links;
use super::segment::{self, HEADER_BYTES, Header, HeaderError, Raw, Reader, RecordKind, Seal, Step};
use astrid_wire::control::audit::{Found, Verified};
use astrid_wire::proof::PublicKey;

/// Findings that are listed at most; further ones are counted.
pub const FINDINGS_MAX: usize = 100;

/// Intents without an outcome that are known at once at most; those beyond, the oldest, are taken for unknown at once.
pub const OPEN_INTENTS_MAX: usize = 16 << 10;

/// Intents that are listed as unknown at most; further ones are counted.
pub const UNKNOWN_MAX: usize = 1000;

/// Segments of a log at most: 4 TiB of them.
pub const SEGMENTS_MAX: usize = 1 << 16;

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
    /// The file `head` is no head of this log.
    #[error("it is not signed by the log's key")]
    Head,
    /// The file `head` names more than there is.
    #[error("the log went on to entry {0}: its end was cut off")]
    CutOff(u64),
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
    /// Entries looked at.
    pub entries: u64,
    /// Seals looked at.
    pub seals: u64,
    /// The first entry looked at.
    pub first: Option<u64>,
    /// The last entry.
    pub last: Option<u64>,
    /// Whole entries at the end that no seal covers.
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
    /// The hash of the last record.
    pub head: Hash,
}

impl Report {
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

    fn find(&mut self, file: &str, entry: Option<u64>, offset: u64, fault: Fault) {
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

    fn unknown(&mut self, intent: u64) {
        self.unknown_count += 1;
        if self.unknown_outcomes.len() < UNKNOWN_MAX {
            self.unknown_outcomes.push(intent);
        }
    }
}

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

/// Looks at a whole log. `key` is the one that is trusted: any that signs a part of it.
///
/// # Errors
/// [`VerifyError`], when files cannot be read. Everything else is in the report.
pub fn verify(directory: &Path, key: Option<&PublicKey>) -> Result<Report, VerifyError> {
    verify_from(directory, key, None).map(|(report, _)| report)
}

/// The same, from a checkpoint on, and where it ended.
pub(super) fn verify_from(
    directory: &Path,
    key: Option<&PublicKey>,
    from: Option<State>,
) -> Result<(Report, State), VerifyError> {
    // Before the segments: what is written meanwhile is then only in them.
    let head = read_head(directory);
    let mut run = Run::new(directory, key, from.clone(), false);
    run.all(head.as_ref())?;
    if run.recheck {
        run = Run::new(directory, key, from, true);
        run.all(head.as_ref())?;
    }
    Ok((run.report, run.state))
}

/// One way through the log.
struct Run<'a> {
    directory: &'a Path,
    trusted: Option<&'a PublicKey>,
    /// Looks at each signature, and not only at the last of a segment.
    every_signature: bool,
    /// A signature that stands for many is wrong.
    recheck: bool,
    report: Report,
    state: State,
    /// The last hash is not known: what was read before it cannot be compared with.
    lost: bool,
    /// The hash that the last record has, when its file says another one.
    other_head: Option<Hash>,
    /// The number that the last entry says, when another one belongs there.
    other_sequence: Option<u64>,
    trusted_seen: bool,
    /// The key that a rotation named.
    next_key: Option<PublicKey>,
    /// Segments were removed before this hash; a receipt names it.
    pruned: Option<(String, Hash)>,
    first_of_file: u64,
    /// The last file, when it ends before its header does.
    torn_header: Option<String>,
    last_seal: Option<(u64, Hash, Seal)>,
}

impl<'a> Run<'a> {
    fn new(directory: &'a Path, trusted: Option<&'a PublicKey>, from: Option<State>, every_signature: bool) -> Self {
        let state = from.unwrap_or_default();
        let report = Report {
            trusted_before: state.sequence,
            ..Report::default()
        };
        Self {
            directory,
            trusted,
            every_signature,
            recheck: false,
            report,
            trusted_seen: trusted.is_some() && state.key.as_ref() == trusted,
            state,
            lost: false,
            other_head: None,
            other_sequence: None,
            next_key: None,
            pruned: None,
            first_of_file: 1,
            torn_header: None,
            last_seal: None,
        }
    }

    fn all(&mut self, head: Option<&Head>) -> Result<(), VerifyError> {
        let mut files = segments(self.directory)?;
        let resumed = self.state.segment;
        files.retain(|(number, _)| *number >= resumed);
        if resumed > 0 && files.first().is_none_or(|(number, _)| *number != resumed) {
            let name = segment::file_name(resumed);
            let next = files.first().map_or(resumed, |(number, _)| number - 1);
            self.report.find(&name, None, 0, Fault::Segments(resumed, next));
            self.lost = true;
        }
        let last = files.last().map(|(number, _)| *number);
        for (number, path) in &files {
            self.file(*number, path, Some(*number) == last)?;
            self.report.segments += 1;
        }
        self.finish(head);
        Ok(())
    }

    fn finish(&mut self, head: Option<&Head>) {
        self.report.unsealed_tail = self.state.unsealed;
        self.report.last = (self.state.sequence > 0).then_some(self.state.sequence);
        self.report.key = self.state.key;
        self.report.head = self.state.head;
        if let Some((file, _)) = self.pruned.take() {
            self.report.find(&file, None, 0, Fault::NotPruned);
        }
        let name = segment::file_name(self.state.segment);
        if let Some(key) = self.trusted
            && !self.trusted_seen
            && self.report.segments > 0
        {
            self.report.find(&name, None, 0, Fault::WrongKey(*key));
        }
        // Those of this boot may yet be carried out.
        let before: Vec<u64> = self.state.open.range(..self.state.boot).copied().collect();
        before.into_iter().for_each(|intent| self.report.unknown(intent));
        let Some(head) = head else { return };
        self.report.anchored = head.holds(self.state.key.as_ref().or(self.trusted));
        // An older key's, from before a rotation, does not say where the log ends, but how long it is at least.
        if !head.holds(None) {
            self.report.find(super::head::FILE, None, 0, Fault::Head);
        } else if (self.report.anchored || self.trusted == Some(&head.key))
            && head.seal.sequence > self.state.sequence.saturating_sub(self.state.unsealed)
        {
            let fault = Fault::CutOff(head.seal.sequence);
            let (file, offset) = match self.torn_header.take() {
                Some(torn) => (torn, self.report.torn_bytes),
                None => (name, self.state.offset),
            };
            self.report.find(&file, Some(self.state.sequence), offset, fault);
        }
    }

    fn file(&mut self, number: u64, path: &Path, last: bool) -> Result<(), VerifyError> {
        let name = segment::file_name(number);
        let io = |action| {
            move |source| VerifyError::Io {
                action,
                path: path.to_path_buf(),
                source,
            }
        };
        let mut file = File::open(path).map_err(io("open"))?;
        let length = file.metadata().map_err(io("look at"))?.len();
        if number == self.state.segment {
            if length < self.state.offset {
                let (entry, offset) = (Some(self.state.sequence), length);
                self.report
                    .find(&name, entry, offset, Fault::CutOff(self.state.sequence));
                self.lost = true;
                return Ok(());
            }
            use std::io::Seek as _;
            file.seek(io::SeekFrom::Start(self.state.offset)).map_err(io("read"))?;
        } else {
            if self.state.unsealed > 0 {
                let before = segment::file_name(self.state.segment);
                let (entry, offset) = (Some(self.state.sequence), self.state.offset);
                self.report.find(&before, entry, offset, Fault::Unsealed);
            }
            let mut header = [0; HEADER_BYTES];
            if length < HEADER_BYTES as u64 {
                if last {
                    // The daemon ended when it began the file: nothing was in it.
                    self.report.torn_bytes = length;
                    self.torn_header = Some(name);
                } else {
                    self.report.find(&name, None, length, Fault::Torn);
                    self.lost = true;
                }
                return Ok(());
            }
            file.read_exact(&mut header).map_err(io("read"))?;
            match Header::decode(&header) {
                Ok((header, hash)) => self.begin(&name, number, &header, hash),
                Err(error) => {
                    self.report.find(&name, None, 0, error.into());
                    (self.state.segment, self.state.offset, self.lost) = (number, 0, true);
                    return Ok(());
                }
            }
        }
        self.first_of_file = self.state.sequence + 1;
        self.last_seal = None;
        self.records(&name, file, length, last).map_err(io("read"))
    }

    /// Compares a header with what was before it.
    fn begin(&mut self, name: &str, number: u64, header: &Header, hash: Hash) {
        let state = &mut self.state;
        let mut faults = Vec::new();
        if header.number != number {
            faults.push(Fault::Name(header.number));
        }
        if state.segment == 0 {
            if number > 1 && header.number == number {
                self.pruned = Some((name.to_owned(), header.previous));
            }
            state.links.begin_anywhere(number > 1);
        } else {
            if number != state.segment + 1 {
                faults.push(Fault::Segments(state.segment + 1, number - 1));
                state.links.begin_anywhere(true);
            } else if !self.lost && (header.previous != state.head && Some(header.previous) != self.other_head) {
                faults.push(Fault::Discontinued);
            } else if !self.lost && header.first != state.sequence + 1 {
                faults.push(Fault::Missing(state.sequence + 1, header.first.saturating_sub(1)));
            }
            let named = self.next_key.take().is_some_and(|key| key == header.key);
            if state.key.is_some_and(|key| key != header.key) && !named && !self.lost {
                faults.push(Fault::KeyChanged(header.key));
            }
            if self.lost {
                state.links.begin_anywhere(true);
            }
        }
        self.trusted_seen |= self.trusted == Some(&header.key);
        *state = State {
            segment: number,
            offset: HEADER_BYTES as u64,
            head: hash,
            sequence: header.first.saturating_sub(1),
            unsealed: 0,
            key: Some(header.key),
            ..std::mem::take(state)
        };
        (self.lost, self.other_head, self.other_sequence) = (false, None, None);
        for fault in faults {
            self.report.find(name, None, 0, fault);
        }
    }

    fn records(&mut self, name: &str, file: File, length: u64, last: bool) -> io::Result<()> {
        let mut reader = Reader::new(file, self.state.offset, &self.state.head);
        loop {
            match reader.step()? {
                Step::Record(raw) => self.record(name, &raw),
                Step::End => break,
                Step::Torn if last => {
                    self.report.torn_bytes = length.saturating_sub(self.state.offset);
                    break;
                }
                wrong => {
                    let fault = if matches!(wrong, Step::Torn) {
                        Fault::Torn
                    } else {
                        Fault::Garbage
                    };
                    let entry = Some(self.state.sequence + 1);
                    self.report.find(name, entry, self.state.offset, fault);
                    self.lost = true;
                    break;
                }
            }
            self.state.offset = reader.offset();
        }
        // It stands for everything in the file before it.
        if let Some((offset, head, seal)) = self.last_seal.take()
            && !self.every_signature
            && !self.state.key.is_some_and(|key| seal.holds(&key, &head))
        {
            self.recheck = true;
            let fault = Fault::Signature(self.first_of_file, seal.sequence);
            self.report.find(name, Some(self.first_of_file), offset, fault);
        }
        Ok(())
    }

    fn record(&mut self, name: &str, raw: &Raw<'_>) {
        let computed = segment::hash(raw.hashed);
        let mut right = computed == *raw.stored;
        let mut before = self.state.head;
        if !right && let Some(other) = self.other_head {
            // The hash before it is what was changed, and not what that stands for.
            right = raw.hash_after(&other) == *raw.stored;
            before = if right { other } else { before };
        }
        self.other_head = (!right).then_some(computed);
        self.state.head = *raw.stored;
        match raw.kind {
            RecordKind::Entry => self.entry(name, raw, right),
            RecordKind::Seal => self.seal(name, raw, right, before),
        }
    }

    fn entry(&mut self, name: &str, raw: &Raw<'_>, right: bool) {
        let mut expected = self.state.sequence.saturating_add(1);
        let other = self.other_sequence.take().map(|other| other.saturating_add(1));
        self.state.unsealed += 1;
        self.report.entries += 1;
        self.report.first.get_or_insert(expected);
        let view = match View::decode(raw.body()) {
            Ok(view) => view,
            Err(error) => {
                let fault = if right { error.into() } else { Fault::Hash };
                self.report.find(name, Some(expected), raw.offset, fault);
                self.state.sequence = expected;
                self.state.links.begin_anywhere(true);
                return;
            }
        };
        if Some(view.sequence) == other {
            expected = view.sequence;
        }
        let fault = match view.sequence {
            found if found == expected && right => None,
            found if found == expected => Some(Fault::Hash),
            // Far more than there can be is a changed number.
            found if found > expected && found - expected < u64::from(u32::MAX) => {
                Some(Fault::Missing(expected, found - 1))
            }
            found => Some(Fault::Moved { found, expected }),
        };
        let linked = self.state.links.follow(view.principal, view.link, raw.stored);
        if let Some(fault) = fault {
            // Either number may be the wrong one. What is missing may have been of any principal.
            (self.state.sequence, self.other_sequence) = (expected, Some(view.sequence));
            self.state.links.begin_anywhere(true);
            return self.report.find(name, Some(expected), raw.offset, fault);
        }
        self.state.sequence = expected;
        if !linked {
            self.report.find(name, Some(expected), raw.offset, Fault::Link);
        }
        self.follow(&view);
    }

    /// What an entry means for others.
    fn follow(&mut self, view: &View<'_>) {
        match view.kind {
            Kind::Boot => self.state.boot = view.sequence,
            Kind::Rotate => self.next_key = super::rotate::named(view, self.state.key.as_ref()),
            Kind::Prune => {
                let named = super::prune::named(view);
                if self.pruned.as_ref().is_some_and(|(_, head)| Some(*head) == named) {
                    self.pruned = None;
                }
            }
            _ => {}
        }
        match view.stage {
            Stage::Event => {}
            Stage::Intent => {
                self.state.open.insert(view.sequence);
                if self.state.open.len() > OPEN_INTENTS_MAX
                    && let Some(oldest) = self.state.open.pop_first()
                {
                    self.report.unknown(oldest);
                }
            }
            Stage::Answers(intent) => {
                self.state.open.remove(&intent);
                if view.outcome == Outcome::Unknown {
                    self.report.unknown(intent);
                }
            }
        }
    }

    fn seal(&mut self, name: &str, raw: &Raw<'_>, right: bool, before: Hash) {
        self.report.seals += 1;
        let count = std::mem::take(&mut self.state.unsealed);
        let entry = Some(self.state.sequence);
        let Some(seal) = Seal::decode(raw.body()) else {
            // A length of its own is checked before it is read.
            return self.report.find(name, entry, raw.offset, Fault::Hash);
        };
        if !right {
            self.report.find(name, entry, raw.offset, Fault::Hash);
        } else if self.other_sequence.is_none()
            && (seal.sequence != self.state.sequence || (seal.count != count && self.report.is_ok()))
        {
            self.report.find(name, entry, raw.offset, Fault::Count);
        } else if self.every_signature && !self.state.key.is_some_and(|key| seal.holds(&key, &before)) {
            let fault = Fault::Signature((seal.sequence + 1).saturating_sub(count), seal.sequence);
            self.report.find(name, entry, raw.offset, fault);
        }
        if right {
            (self.state.sequence, self.other_sequence) = (seal.sequence, None);
        }
        self.last_seal = Some((raw.offset, before, seal));
    }
}
