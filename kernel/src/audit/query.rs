//! What is in the log: read from its files, beside a daemon that writes them or without one.
//!
//! Nothing here says whether it is true; that is [`verify`](super::verify)'s to say. Entries are told as far as their own hashes are right.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use astrid_wire::control::audit::Stats;
use serde::Serialize;

use super::entry::{Entry, Hash, Kind, Outcome, Stage, View};
use super::files::open_regular;
use super::segment::{HEADER_BYTES, Header, Reader, RecordKind, Step, file_name, hash};
use super::verify::{VerifyError, segments};

/// Entries that are given from the end at most.
pub const TAIL_MAX: usize = 100_000;

/// Principals that are told apart in statistics at most.
const PRINCIPALS_MAX: usize = 200_000;

/// An entry as it is shown, and exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Its number.
    pub sequence: u64,
    /// Milliseconds since 1970 by the wall clock.
    pub wall_ms: u64,
    /// What it is about: the word of a [`Kind`].
    pub kind: &'static str,
    /// `event`, `intent` or `answer`.
    pub stage: &'static str,
    /// The intent that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// How it went: the word of an [`Outcome`](super::Outcome).
    pub outcome: &'static str,
    /// How many it stands for.
    pub count: u64,
    /// Who.
    pub principal: String,
    /// Through which capsule; empty if none.
    pub capsule: String,
    /// What.
    pub action: String,
    /// On what.
    pub resource: String,
    /// Whatever else there was to say.
    pub detail: String,
    /// Hash of the last entry before it of the same principal, in hexadecimal digits.
    pub link: String,
    /// Its own hash, in hexadecimal digits.
    pub hash: String,
    /// The file it is in; empty in memory.
    pub file: String,
    /// Where it begins there.
    pub offset: u64,
}

impl Recorded {
    fn new(view: &View<'_>, hash: &[u8], file: &str, offset: u64) -> Self {
        let (stage, answers) = match view.stage {
            Stage::Event => ("event", None),
            Stage::Intent => ("intent", None),
            Stage::Answers(intent) => ("answer", Some(intent)),
        };
        Self {
            sequence: view.sequence,
            wall_ms: view.wall_ms,
            kind: view.kind.as_str(),
            stage,
            answers,
            outcome: view.outcome.as_str(),
            count: view.count,
            principal: view.principal.to_owned(),
            capsule: view.capsule.to_owned(),
            action: view.action.to_owned(),
            resource: view.resource.to_owned(),
            detail: view.detail.to_owned(),
            link: hex::encode(view.link),
            hash: hex::encode(hash),
            file: file.to_owned(),
            offset,
        }
    }

    /// One that is in no file.
    pub(super) fn unchained(sequence: u64, wall_ms: u64, entry: &Entry) -> Self {
        let view = View {
            sequence,
            wall_ms,
            kind: entry.kind,
            stage: entry.stage,
            outcome: entry.outcome,
            count: entry.count,
            link: &super::links::NONE,
            principal: &entry.principal,
            capsule: &entry.capsule,
            action: &entry.action,
            resource: &entry.resource,
            detail: &entry.detail,
        };
        Self::new(&view, &[], "", 0)
    }
}

/// Which entries.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// Not before this time, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Before this time.
    pub before_ms: Option<u64>,
}

impl Filter {
    fn wants(&self, view: &View<'_>) -> bool {
        self.principal.as_deref().is_none_or(|name| name == view.principal)
            && self
                .kind
                .is_none_or(|kind| kind == view.kind || (kind == Kind::Denial && is_denials(view)))
            && self.since_ms.is_none_or(|since| view.wall_ms >= since)
            && self.before_ms.is_none_or(|before| view.wall_ms < before)
    }
}

/// Whether it stands for many denials.
fn is_denials(view: &View<'_>) -> bool {
    view.kind == Kind::Summary && view.outcome == Outcome::Denied
}

/// Headers of all segments that have a good one, in order.
pub(super) fn headers(directory: &Path) -> Result<Vec<(PathBuf, Header)>, VerifyError> {
    let mut found = Vec::new();
    for (_, path) in segments(directory)? {
        if let Some(header) = header_of(&path)? {
            found.push((path, header));
        }
    }
    Ok(found)
}

/// The header of a segment; none when it has no good one.
pub(super) fn header_of(path: &Path) -> Result<Option<Header>, VerifyError> {
    Ok(open(path)?.map(|(header, _)| header))
}

fn io_at<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> VerifyError + 'a {
    move |source| VerifyError::Io {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// The header of a segment and what is behind it; none when it has no good one, or was pruned meanwhile.
fn open(path: &Path) -> Result<Option<(Header, Reader)>, VerifyError> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        // Pruned meanwhile; or nothing that was ever written here.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => return Ok(None),
        Err(error) => return Err(io_at("open", path)(error)),
    };
    let mut header = [0; HEADER_BYTES];
    match file.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(io_at("read", path)(error)),
    }
    Ok(Header::decode(&header)
        .ok()
        .map(|(header, hash)| (header, Reader::new(file, HEADER_BYTES as u64, &hash))))
}

/// What is in a segment, each entry with its hash and place; `each` says whether to go on.
fn read(path: &Path, name: &str, each: &mut dyn FnMut(Item<'_>) -> bool) -> Result<bool, VerifyError> {
    let Some((_, mut reader)) = open(path)? else {
        return Ok(true);
    };
    loop {
        let raw = match reader.step().map_err(io_at("read", path))? {
            Step::Record(raw) => raw,
            Step::Torn | Step::Garbage | Step::End => return Ok(true),
        };
        let go_on = match raw.kind {
            RecordKind::Seal => each(Item::Seal),
            RecordKind::Entry if hash(raw.hashed) != *raw.stored => true,
            RecordKind::Entry => match View::decode(raw.body()) {
                Ok(view) => each(Item::Entry(&view, raw.stored, name, raw.offset)),
                Err(_) => true,
            },
        };
        if !go_on {
            return Ok(false);
        }
    }
}

enum Item<'a> {
    Entry(&'a View<'a>, &'a [u8; 32], &'a str, u64),
    Seal,
}

/// The last entries that the filter wants, at most so many, the oldest first.
///
/// # Errors
/// [`VerifyError`], when files cannot be read.
pub fn tail(directory: &Path, count: usize, filter: &Filter) -> Result<Vec<Recorded>, VerifyError> {
    let count = count.min(TAIL_MAX);
    let mut found: VecDeque<Recorded> = VecDeque::new();
    for (number, path) in segments(directory)?.into_iter().rev() {
        let wanted = count - found.len();
        if wanted == 0 {
            break;
        }
        let mut here: VecDeque<Recorded> = VecDeque::new();
        read(&path, &file_name(number), &mut |item| {
            if let Item::Entry(view, hash, name, offset) = item
                && filter.wants(view)
            {
                if here.len() == wanted {
                    here.pop_front();
                }
                here.push_back(Recorded::new(view, hash, name, offset));
            }
            true
        })?;
        here.append(&mut found);
        found = here;
    }
    Ok(found.into())
}

/// The entry with that number.
///
/// # Errors
/// [`VerifyError`], when files cannot be read.
pub fn show(directory: &Path, sequence: u64) -> Result<Option<Recorded>, VerifyError> {
    let all = headers(directory)?;
    let mut found = None;
    // The last segment that begins before it has it, if one has.
    if let Some((path, header)) = all.iter().rev().find(|(_, header)| header.first <= sequence) {
        read(path, &file_name(header.number), &mut |item| {
            if let Item::Entry(view, hash, name, offset) = item
                && view.sequence == sequence
            {
                found = Some(Recorded::new(view, hash, name, offset));
            }
            found.is_none()
        })?;
    }
    Ok(found)
}

/// Every entry that the filter wants, in order; `each` says whether to go on.
///
/// # Errors
/// [`VerifyError`], when files cannot be read.
pub fn export(directory: &Path, filter: &Filter, each: &mut dyn FnMut(Recorded) -> bool) -> Result<(), VerifyError> {
    for (number, path) in segments(directory)? {
        let go_on = read(&path, &file_name(number), &mut |item| match item {
            Item::Entry(view, hash, name, offset) if filter.wants(view) => {
                each(Recorded::new(view, hash, name, offset))
            }
            _ => true,
        })?;
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// Who may read what is copied: it is for others, and the directory is the caller's.
const COPY_MODE: u32 = 0o644;

/// Copies what a third party needs to verify the log into a directory that is made for it. Returns how many segments there are.
///
/// # Errors
/// [`VerifyError`], when files cannot be read or written. There is no directory then.
pub fn copy(directory: &Path, to: &Path) -> Result<u64, VerifyError> {
    fs::create_dir(to).map_err(io_at("make", to))?;
    copy_into(directory, to).inspect_err(|_| {
        // Half of it would be taken for all, and stand in the way of the next try.
        if let Err(error) = fs::remove_dir_all(to) {
            tracing::warn!(%error, "cannot remove what was copied");
        }
    })
}

fn copy_into(directory: &Path, to: &Path) -> Result<u64, VerifyError> {
    // The head first: what is written meanwhile is then only in the segments.
    for name in [super::head::FILE, super::key::KEY_FILE] {
        copy_file(&directory.join(name), &to.join(name))?;
    }
    let mut copied = 0;
    // Those that were pruned meanwhile are before all others.
    for (number, path) in segments(directory)? {
        copied += u64::from(copy_file(&path, &to.join(file_name(number)))?);
    }
    Ok(copied)
}

/// Copies a file; false when there is none.
fn copy_file(from: &Path, to: &Path) -> Result<bool, VerifyError> {
    let mut file = match open_regular(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(io_at("open", from))?,
    };
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(COPY_MODE).open(to);
    let mut copy = made.map_err(io_at("make", to))?;
    io::copy(&mut file, &mut copy).map_err(io_at("copy", from))?;
    Ok(true)
}

/// Reads on where it stopped, through segments that are begun meanwhile.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    /// The last segment that was read.
    number: u64,
    /// Where its next record begins, and the hash before that.
    at: Option<(u64, Hash)>,
    /// The last entry that was given.
    last: u64,
}

impl Follower {
    /// Begins behind that entry.
    #[must_use]
    pub fn after(directory: &Path, last: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            number: 0,
            at: None,
            last,
        }
    }

    /// What came since, in order. What ends in the middle of a record is read again the next time.
    ///
    /// # Errors
    /// [`VerifyError`], when files cannot be read.
    pub fn read(&mut self, filter: &Filter, each: &mut dyn FnMut(Recorded)) -> Result<(), VerifyError> {
        for (number, path) in segments(&self.directory)? {
            if number < self.number {
                continue;
            }
            let Some((header, mut reader)) = open(&path)? else {
                continue;
            };
            if number == self.number
                && let Some((offset, head)) = self.at
            {
                let mut file = open_regular(&path).map_err(io_at("open", &path))?;
                if file.metadata().map_err(io_at("look at", &path))?.len() >= offset {
                    file.seek(SeekFrom::Start(offset)).map_err(io_at("read", &path))?;
                    reader = Reader::new(file, offset, &head);
                }
            } else if number > self.number {
                self.number = header.number;
                self.at = None;
            }
            self.segment(&path, &file_name(number), reader, filter, each)?;
        }
        Ok(())
    }

    fn segment(
        &mut self,
        path: &Path,
        name: &str,
        mut reader: Reader,
        filter: &Filter,
        each: &mut dyn FnMut(Recorded),
    ) -> Result<(), VerifyError> {
        loop {
            let head = match reader.step().map_err(io_at("read", path))? {
                // What was read last was cut off again, because the disk did not take it: from the beginning, without what was given.
                Step::Garbage => {
                    self.at = None;
                    return Ok(());
                }
                Step::Record(raw) => {
                    let right = hash(raw.hashed) == *raw.stored;
                    if !right && self.at.is_some_and(|(at, _)| at == raw.offset) {
                        self.at = None;
                        return Ok(());
                    }
                    if raw.kind == RecordKind::Entry
                        && right
                        && let Ok(view) = View::decode(raw.body())
                        && view.sequence > self.last
                    {
                        self.last = view.sequence;
                        if filter.wants(&view) {
                            each(Recorded::new(&view, raw.stored, name, raw.offset));
                        }
                    }
                    *raw.stored
                }
                Step::Torn | Step::End => return Ok(()),
            };
            self.at = Some((reader.offset(), head));
        }
    }
}

/// Counts what there is.
///
/// # Errors
/// [`VerifyError`], when files cannot be read.
pub fn stats(directory: &Path) -> Result<Stats, VerifyError> {
    let mut stats = Stats::default();
    let mut principals: HashSet<Box<str>, ahash::RandomState> = HashSet::default();
    for (number, path) in segments(directory)? {
        stats.segments += 1;
        stats.bytes += fs::metadata(&path).map_or(0, |found| found.len());
        read(&path, &file_name(number), &mut |item| {
            let Item::Entry(view, ..) = item else {
                stats.seals += 1;
                return true;
            };
            stats.entries += 1;
            stats.first.get_or_insert(view.sequence);
            stats.first_ms.get_or_insert(view.wall_ms);
            (stats.last, stats.last_ms) = (Some(view.sequence), Some(view.wall_ms));
            *stats.kinds.entry(view.kind.as_str().to_owned()).or_default() += 1;
            if principals.len() < PRINCIPALS_MAX && !principals.contains(view.principal) {
                principals.insert(view.principal.into());
            }
            true
        })?;
    }
    stats.principals = principals.len() as u64;
    stats.key = headers(directory)?.pop().map(|(_, header)| header.key.to_string());
    Ok(stats)
}
