//! Changes as text and hashes, in pages that fit into an answer.
//!
//! A file is shown as text when both sides are UTF-8 without NUL and not too long; else its sizes and hashes are told. A diff that takes too
//! long to find becomes a coarser one, which is as true.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::ControlFlow;
use std::time::Duration;

use astrid_wire::control::workspace::{Differences, EntryKind, FileDiff, Side, escape};
use similar::{ChangeTag, DiffOp, TextDiff};

use super::super::beneath::Beneath;
use super::super::layer::{self, Entry, Kind};
use super::super::reach;
use super::changes::{self, Change, Which, fill};
use super::{Choice, DEPTH_MAX, Layers, ReviewError, as_path, parted};

/// Bytes of a file that is shown as text at most. Two of them, with every byte escaped, are less than a frame.
pub const TEXT_BYTES_MAX: u64 = 512 << 10;

/// Bytes of text after which a page ends.
const PAGE_BYTES: usize = 2 << 20;

/// Paths of a page at most.
const PAGE_PATHS_MAX: usize = 2000;

/// What a path costs of a page beside its text: sizes, hashes, names of fields.
const ROW_BYTES: usize = 400;

/// Bytes of a file that is read and hashed at most; of a larger one the size is told.
const HASHED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a page that are read and hashed at most, but for one file: an answer does not take minutes.
const PAGE_READ_BYTES_MAX: u64 = 256 << 20;

/// Lines around each change.
const CONTEXT: usize = 3;

/// How long the best diff of one file is looked for, if it has many lines.
const EFFORT: Duration = Duration::from_millis(250);

/// Lines of both sides whose best diff is found in any case: some milliseconds. What is told of them is the same on every machine.
const LINES_FEW: usize = 2000;

/// Attributes of a file that are named at most.
const ATTRIBUTES_NAMED_MAX: usize = 8;

/// Bytes of such a name that are shown.
const ATTRIBUTE_NAME_SHOWN: usize = 40;

/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Only these.
    pub choice: Choice,
    /// Only what comes after this path.
    pub after: Option<Vec<u8>>,
    /// Without hashes and text.
    pub names_only: bool,
}

/// One page of differences.
///
/// # Errors
/// The file systems', naming the path.
pub fn page(layers: &Layers, asked: &Asked) -> Result<Differences, ReviewError> {
    let which = Which {
        choice: asked.choice.clone(),
        after: asked.after.as_deref(),
    };
    let mut page = Differences::default();
    let (mut bytes, mut read) = (0, 0);
    changes::walk(layers, &which, &mut |change| {
        let file = if asked.names_only {
            bare(&change)
        } else {
            read += sizes(&change);
            full(layers, &change)?
        };
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let cost = ROW_BYTES + file.path.len() + length(&file.hunks) + length(&file.remark);
        let full_up = page.files.len() >= PAGE_PATHS_MAX || bytes + cost > PAGE_BYTES || read > PAGE_READ_BYTES_MAX;
        if let (true, Some(last)) = (full_up, page.files.last()) {
            page.next = Some(last.path.clone());
            return Ok(ControlFlow::Break(()));
        }
        bytes += cost;
        page.files.push(file);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

fn sizes(change: &Change) -> u64 {
    let size = |entry: &Option<Entry>| entry.as_ref().map_or(0, Entry::size);
    let size = |entry| Some(size(entry)).filter(|size| *size <= HASHED_BYTES_MAX).unwrap_or(0);
    size(&change.before).saturating_add(size(&change.after))
}

fn kind(kind: Kind) -> EntryKind {
    match kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        Kind::Whiteout | Kind::Other => EntryKind::Other,
    }
}

fn side(entry: &Entry) -> Side {
    Side {
        kind: kind(entry.kind),
        mode: entry.mode(),
        size: (entry.kind == Kind::File).then(|| entry.size()),
        hash: None,
        target: None,
    }
}

fn bare(change: &Change) -> FileDiff {
    FileDiff {
        path: escape(&change.path),
        how: change.how,
        before: change.before.as_ref().map(side),
        after: change.after.as_ref().map(side),
        binary: false,
        lines_added: None,
        lines_removed: None,
        hunks: None,
        remark: change
            .deep
            .then(|| format!("more than {DEPTH_MAX} directories deep: what is in it is neither shown nor committed")),
    }
}

/// A file, as it is shown.
enum Content {
    /// There is none, or it is no file.
    None,
    Text(String),
    Binary,
}

/// A change with hashes and text.
///
/// # Errors
/// The file systems', naming the path.
pub fn full(layers: &Layers, change: &Change) -> Result<FileDiff, ReviewError> {
    let mut file = bare(change);
    let (old, old_file) = content(&Layer::Lower(&layers.lower), change, file.before.as_mut())?;
    let (new, new_file) = content(&Layer::Upper(&layers.upper), change, file.after.as_mut())?;
    // Of one that is closed to us they cannot be compared.
    let closed = old_file.is_none() && file.before.as_ref().is_some_and(|old| old.kind == EntryKind::File);
    if let (Some(new_file), false) = (new_file, closed) {
        file.remark = file.remark.or_else(|| attributes(&new_file, old_file.as_deref()));
    }
    let (old, new) = match (old, new) {
        (Content::Binary, _) | (_, Content::Binary) => {
            file.binary = true;
            return Ok(file);
        }
        (Content::None, Content::None) => return Ok(file),
        (old, new) => (text(old), text(new)),
    };
    let hunks = unified(&old, &new);
    file.lines_added = Some(hunks.added);
    file.lines_removed = Some(hunks.removed);
    file.hunks = Some(hunks.text);
    Ok(file)
}

/// What is to be said of people's attributes, which are committed with a file, and are in no patch.
fn attributes(new: &File, old: Option<&File>) -> Option<String> {
    let (names, more) = match layer::differing_attributes(new, old, ATTRIBUTES_NAMED_MAX) {
        Ok(differing) => differing,
        Err(error) => return Some(format!("its attributes cannot be told ({error})")),
    };
    let named = names
        .iter()
        .map(|name| plain(name))
        .chain(more.then(|| "more".to_owned()));
    let named: Vec<_> = named.collect();
    (!named.is_empty()).then(|| format!("other attributes ({})", named.join(", ")))
}

/// A name that somebody chose, so that it cannot be taken for a part of the sentence; the beginning of a long one.
fn plain(name: &[u8]) -> String {
    let byte = |byte: &u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    let cut = if name.len() > ATTRIBUTE_NAME_SHOWN { ".." } else { "" };
    let begin = name.iter().take(ATTRIBUTE_NAME_SHOWN).map(byte).collect::<String>();
    begin + cut
}

fn text(content: Content) -> String {
    match content {
        Content::Text(text) => text,
        Content::None | Content::Binary => String::new(),
    }
}

/// Where a side is from: what is closed to us in the upper is opened.
enum Layer<'a> {
    Lower(&'a Beneath),
    Upper(&'a Beneath),
}

impl Layer<'_> {
    fn file(&self, directory: &[u8], name: &OsStr) -> std::io::Result<reach::OpenedFile> {
        match self {
            Self::Lower(layer) => layer::open_file(layer.dir(as_path(directory))?, name).map(Into::into),
            Self::Upper(layer) => reach::file(reach::way(layer, directory, reach::READ)?, name),
        }
    }

    fn target(&self, directory: &[u8], name: &OsStr) -> std::io::Result<Vec<u8>> {
        let target = match self {
            Self::Lower(layer) => rustix::fs::readlinkat(layer.dir(as_path(directory))?, name, Vec::new()),
            Self::Upper(layer) => rustix::fs::readlinkat(reach::way(layer, directory, reach::READ)?, name, Vec::new()),
        };
        Ok(target?.into_bytes())
    }
}

/// What a side has; and the file, if it is one that can be read.
fn content(
    layer: &Layer<'_>,
    change: &Change,
    side: Option<&mut Side>,
) -> Result<(Content, Option<reach::OpenedFile>), ReviewError> {
    let none = || Ok((Content::None, None));
    let Some(side) = side else { return none() };
    let failed = || ReviewError::io("read", &change.path);
    let (directory, name) = parted(&change.path);
    match side.kind {
        EntryKind::Directory | EntryKind::Other => none(),
        EntryKind::Symlink => {
            side.target = Some(escape(&layer.target(directory, name).map_err(failed())?));
            none()
        }
        EntryKind::File => {
            let file = match layer.file(directory, name) {
                // Somebody else's, who lets us see that it is there.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Ok((Content::Binary, None));
                }
                file => file.map_err(failed())?,
            };
            let size = side.size.unwrap_or(u64::MAX);
            if size > HASHED_BYTES_MAX {
                return Ok((Content::Binary, Some(file)));
            }
            let (hash, text) = read(&file, size).map_err(failed())?;
            side.hash = Some(hash);
            Ok((text.map_or(Content::Binary, Content::Text), Some(file)))
        }
    }
}

/// A file's hash, and its text if it is one.
fn read(file: &File, size: u64) -> std::io::Result<(String, Option<String>)> {
    let mut hasher = blake3::Hasher::new();
    let mut text = (size <= TEXT_BYTES_MAX).then(Vec::new);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = fill(file, &mut chunk)?;
        hasher.update(&chunk[..length]);
        let room = |text: &Vec<u8>| text.len() as u64 + length as u64 <= TEXT_BYTES_MAX;
        text = text.filter(|text| room(text) && !chunk[..length].contains(&0));
        if let Some(text) = &mut text {
            text.extend_from_slice(&chunk[..length]);
        }
        if length < CHUNK_BYTES {
            break;
        }
    }
    let text = text.and_then(|text| String::from_utf8(text).ok());
    Ok((hasher.finalize().to_hex().to_string(), text))
}

/// The hunks of a unified diff.
struct Hunks {
    text: String,
    added: u64,
    removed: u64,
}

fn unified(old: &str, new: &str) -> Hunks {
    // Lines end with a line feed and nothing else, as git has them.
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let mut config = TextDiff::configure();
    config.newline_terminated(true);
    if old.len() + new.len() > LINES_FEW {
        config.timeout(EFFORT);
    }
    let diff = config.diff_slices(&old, &new);
    let mut hunks = Hunks {
        text: String::new(),
        added: 0,
        removed: 0,
    };
    for group in diff.grouped_ops(CONTEXT) {
        hunks.text.push_str(&header(&group));
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            hunks.added += u64::from(sign == '+');
            hunks.removed += u64::from(sign == '-');
            hunks.text.push(sign);
            hunks.text.push_str(change.value());
            if !change.value().ends_with('\n') {
                hunks.text.push_str("\n\\ No newline at end of file\n");
            }
        }
    }
    hunks
}

fn header(group: &[DiffOp]) -> String {
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return String::new();
    };
    let range = |start: usize, end: usize| match end - start {
        // A side that is empty is told by the line before it.
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    };
    let old = range(first.old_range().start, last.old_range().end);
    let new = range(first.new_range().start, last.new_range().end);
    format!("@@ -{old} +{new} @@\n")
}
