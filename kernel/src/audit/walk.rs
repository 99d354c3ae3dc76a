//! One way through the log's files: every hash, number, link and count, and the signatures.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::checkpoint;
use super::entry::{Hash, Kind, Outcome, Stage, View};
use super::files::open_regular;
use super::head::{self, Head};
use super::key::KEY_FILE;
use super::report::{Fault, Report, VerifyError};
use super::segment::{self, HEADER_BYTES, Header, Raw, Reader, RecordKind, Seal, Step};
use super::verify::{OPEN_INTENTS_MAX, State, Walked, segments};
use astrid_wire::proof::PublicKey;

/// Keys that one log is known to have been signed with at most: the last ones.
const KEYS_MAX: usize = 4096;

/// What beside the segments says how much there must be.
pub(super) struct Anchors {
    pub(super) head: Option<Head>,
    pub(super) checkpoint: Option<State>,
    /// Whether there is a file with the log's key.
    pub(super) key_file: bool,
}

/// Segments before the first are gone, and a receipt must say why.
struct Pruned {
    /// The first file.
    file: String,
    /// The hash before it.
    head: Hash,
    /// The entry that is a receipt for that.
    receipt: Option<u64>,
}

/// One way through the log.
pub(super) struct Run<'a> {
    directory: &'a Path,
    trusted: Option<&'a PublicKey>,
    /// A segment, and the byte of it behind which nothing is looked at.
    until: Option<(u64, u64)>,
    /// Looks at each signature, and not only at the last of a segment.
    pub(super) every_signature: bool,
    /// A signature that stands for many is wrong.
    pub(super) recheck: bool,
    report: Report,
    state: State,
    /// The last hash is not known: what was read before it cannot be compared with.
    lost: bool,
    /// The hash that the last record has, when its file says another one.
    other_head: Option<Hash>,
    /// The number that the last entry says, when another one belongs there.
    other_sequence: Option<u64>,
    /// Who signed segments, in their order.
    keys: Vec<PublicKey>,
    trusted_seen: bool,
    /// The key that a rotation named.
    next_key: Option<PublicKey>,
    pruned: Option<Pruned>,
    first_of_file: u64,
    /// The last file, when it ends before its header does, and its bytes.
    torn_header: Option<(String, u64)>,
    last_seal: Option<(u64, Hash, Seal)>,
    /// Where the last seal ends, or the header, and its hash.
    sealed: (u64, Hash),
    /// What was found before this segment, or only about what was before it.
    found_before: u64,
    claimed: (u64, u64),
}

impl<'a> Run<'a> {
    pub(super) fn new(
        directory: &'a Path,
        trusted: Option<&'a PublicKey>,
        from: Option<State>,
        until: Option<(u64, u64)>,
    ) -> Self {
        let state = from.unwrap_or_default();
        let report = Report {
            trusted_before: state.sequence,
            ..Report::default()
        };
        Self {
            directory,
            trusted,
            until,
            every_signature: false,
            recheck: false,
            report,
            keys: state.key.into_iter().collect(),
            trusted_seen: trusted.is_some() && state.key.as_ref() == trusted,
            sealed: (state.offset, state.head),
            claimed: (state.segment, state.sequence),
            state,
            lost: false,
            other_head: None,
            other_sequence: None,
            next_key: None,
            pruned: None,
            first_of_file: 1,
            torn_header: None,
            last_seal: None,
            found_before: 0,
        }
    }

    pub(super) fn walked(self) -> Walked {
        Walked {
            end_is_wrong: self.lost || self.report.findings_count > self.found_before,
            report: self.report,
            state: self.state,
            sealed_to: self.sealed.0,
            claimed: self.claimed,
        }
    }

    /// Says what is wrong about what was before the segment that is begun: that is no reason not to continue the segment itself.
    fn find_before(&mut self, name: &str, fault: Fault) {
        self.report.find(name, None, 0, fault);
        self.found_before += 1;
    }

    pub(super) fn all(&mut self, anchors: &Anchors) -> Result<(), VerifyError> {
        let mut files = segments(self.directory)?;
        let resumed = self.state.segment;
        files.retain(|(number, _)| *number >= resumed);
        if resumed > 0 && files.first().is_none_or(|(number, _)| *number != resumed) {
            let name = segment::file_name(resumed);
            let next = files.first().map_or(resumed, |(number, _)| number - 1);
            self.report.find(&name, None, 0, Fault::Segments(resumed, next));
            self.lost = true;
        }
        // What is shorter than a header was begun and nothing was in it: the one before is still the last.
        let is_begun =
            |path: &Path| fs::metadata(path).is_ok_and(|found| !found.is_file() || found.len() >= HEADER_BYTES as u64);
        let last = files.iter().rposition(|(_, path)| is_begun(path)).unwrap_or_default();
        for (index, (number, path)) in files.iter().enumerate() {
            self.file(*number, path, index >= last)?;
            self.report.segments += 1;
        }
        self.finish(anchors);
        Ok(())
    }

    fn finish(&mut self, anchors: &Anchors) {
        let unsealed = self.state.unsealed;
        let sealed = self.state.sequence.saturating_sub(unsealed);
        self.report.unsealed_tail = unsealed;
        self.report.entries = self.report.entries.saturating_sub(unsealed);
        self.report.last = (sealed > 0).then_some(sealed);
        self.report.key = self.state.key;
        self.report.head = self.sealed.1;
        // A receipt that nobody signed is none.
        if let Some(pruned) = self.pruned.take()
            && pruned.receipt.is_none_or(|receipt| receipt > sealed)
        {
            self.find_before(&pruned.file, Fault::NotPruned);
        }
        let name = segment::file_name(self.state.segment);
        if let Some(key) = self.trusted
            && !self.trusted_seen
            && self.report.segments > 0
        {
            self.find_before(&name, Fault::WrongKey(*key));
        }
        // Those of this boot may yet be carried out.
        let before: Vec<u64> = self.state.open.range(..self.state.boot).copied().collect();
        before.into_iter().for_each(|intent| self.report.unknown(intent));
        self.compare(anchors, sealed);
    }

    /// Compares the end with what is said to have been there.
    fn compare(&mut self, anchors: &Anchors, sealed: u64) {
        let is_known = |key: &PublicKey| self.trusted == Some(key) || self.keys.contains(key);
        match &anchors.head {
            None if self.state.segment > 0 => {
                self.report.find(head::FILE, None, 0, Fault::NoHead);
            }
            None => {}
            // Of a log that was begun and has no segment yet, nothing but itself says whose it is.
            Some(head) if head.holds(None) && (is_known(&head.key) || self.report.segments == 0) => {
                self.report.anchored = head.holds(self.state.key.as_ref().or(self.trusted));
                // An older key's, from before a rotation, does not say where the log ends, but how long it is at least.
                self.claimed.1 = self.claimed.1.max(head.seal.sequence);
            }
            Some(_) => self.report.find(head::FILE, None, 0, Fault::Head),
        }
        if let Some(checkpoint) = &anchors.checkpoint
            && (checkpoint.key.as_ref().is_some_and(is_known) || self.report.segments == 0)
        {
            self.claimed.0 = self.claimed.0.max(checkpoint.segment);
            self.claimed.1 = self.claimed.1.max(checkpoint.sequence);
        }
        let name = match self.state.segment {
            0 if self.torn_header.is_none() => KEY_FILE.to_owned(),
            segment => segment::file_name(segment),
        };
        if self.claimed.1 > sealed {
            let (file, offset) = self.torn_header.take().unwrap_or((name, self.state.offset));
            let fault = Fault::CutOff(self.claimed.1);
            // The same was seen where reading was to go on.
            let known = |found: &super::report::Finding| found.file == file && found.fault == fault;
            if !self.report.findings.iter().any(known) {
                let entry = (self.state.sequence > 0).then_some(self.state.sequence);
                self.report.find(&file, entry, offset, fault);
            }
        } else if self.report.segments == 0 && (anchors.key_file || anchors.checkpoint.is_some()) {
            let file = if anchors.key_file { KEY_FILE } else { checkpoint::FILE };
            self.report.find(file, None, 0, Fault::Gone);
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
        let mut file = match open_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                self.report.find(&name, None, 0, Fault::NoFile);
                (self.state.segment, self.state.offset, self.lost) = (number, 0, true);
                return Ok(());
            }
            other => other.map_err(io("open"))?,
        };
        let mut length = file.metadata().map_err(io("look at"))?.len();
        if let Some((_, until)) = self.until.filter(|(segment, _)| *segment == number) {
            length = length.min(until);
        }
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
            if length < HEADER_BYTES as u64 && last {
                // The daemon ended when it began the file: nothing was in it.
                self.report.torn_bytes += length;
                self.torn_header = Some((name, length));
                return Ok(());
            }
            if self.state.unsealed > 0 {
                let before = segment::file_name(self.state.segment);
                let (entry, offset) = (Some(self.state.sequence), self.state.offset);
                self.report.find(&before, entry, offset, Fault::Unsealed);
            }
            self.found_before = self.report.findings_count;
            let mut header = [0; HEADER_BYTES];
            if length < HEADER_BYTES as u64 {
                self.report.find(&name, None, length, Fault::Torn);
                self.lost = true;
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
                self.pruned = Some(Pruned {
                    file: name.to_owned(),
                    head: header.previous,
                    receipt: None,
                });
            }
            if number == 1 && header.first > 1 {
                faults.push(Fault::Missing(1, header.first - 1));
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
        if self.keys.last() != Some(&header.key) {
            if self.keys.len() >= KEYS_MAX {
                self.keys.remove(0);
            }
            self.keys.push(header.key);
        }
        self.sealed = (HEADER_BYTES as u64, hash);
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
            match fault {
                Fault::Name(_) => self.report.find(name, None, 0, fault),
                before => self.find_before(name, before),
            }
        }
    }

    fn records(&mut self, name: &str, file: File, length: u64, last: bool) -> io::Result<()> {
        let mut reader = Reader::new(file, self.state.offset, &self.state.head).until(length);
        loop {
            match reader.step()? {
                Step::Record(raw) => self.record(name, &raw),
                Step::End => break,
                Step::Torn if last => {
                    self.report.torn_bytes += length.saturating_sub(self.state.offset);
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
                if let Some(pruned) = &mut self.pruned
                    && pruned.receipt.is_none()
                    && named == Some(pruned.head)
                {
                    pruned.receipt = Some(view.sequence);
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
        self.sealed = (raw.end(), *raw.stored);
        self.last_seal = Some((raw.offset, before, seal));
    }
}
