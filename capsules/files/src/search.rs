//! `search`: lines of files that match a pattern.
//!
//! It reads files one after the other and stops, with a cursor, when it has found, read or worked enough: what is too much for one request is
//! several. Files that are no text are passed over and counted.

use astrid_sdk::body;
use astrid_sdk::error::FsError;
use astrid_sdk::fs::{Fs, Kind};

use crate::decode::{Encoding, decode, is_binary};
use crate::error::{FilesError, within};
use crate::list::is_zero;
use crate::pattern::{Case, Pattern};
use crate::walk::{Plan, Step, Walk};
use crate::{limits, path, rules};

/// What to search for, and where.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    /// A regular expression (the syntax of Rust's `regex`), searched for in each line.
    pattern: String,
    /// Whether the pattern is searched for as it is written.
    #[serde(default)]
    literal: bool,
    /// How letters are compared.
    #[serde(default)]
    case: Case,
    /// A directory, with all that is in it, or a file. Not said: the workspace.
    #[serde(default)]
    path: String,
    /// In which files, relative to the directory: `*.rs` anywhere, `src/**/*.rs`, and with `!` in front in which not.
    #[serde(default)]
    glob: Vec<String>,
    /// Whether files are searched, too, that `.gitignore` files name, and those in `.git`.
    #[serde(default)]
    ignored: bool,
    /// How many lines before and after a match are shown, at most 20.
    #[serde(default)]
    context: Option<u32>,
    /// How many matches, 1 to 2,000. Not said: 200.
    #[serde(default)]
    limit: Option<u32>,
    /// The `cursor` of the answer to go on from.
    #[serde(default)]
    cursor: Option<String>,
}

/// What was found.
#[body]
pub(crate) struct Searched {
    /// The directory or file that was searched, with its root.
    pub(crate) path: String,
    /// The lines that match, in the order of the files.
    pub(crate) matches: Vec<Match>,
    /// Whether there is more to search: not everything was.
    pub(crate) truncated: bool,
    /// Where it goes on, if there is more: for the next request, which is otherwise the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// Files that were searched.
    pub(crate) files: u32,
    /// Files that are no text, which were passed over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) binary: u32,
    /// Files above 16 MiB, which were passed over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) large: u32,
    /// Files and directories that the principal may not read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) denied: u32,
    /// Lines of which only the first 64 KiB were searched, or fewer where the pattern is large.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) long_lines: u32,
    /// Names that no path can say, and directories that are too deep, which were passed over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) passed_over: u32,
}

/// A line that matches.
#[body]
pub(crate) struct Match {
    /// The file, with its root.
    pub(crate) path: String,
    /// The line, from 1.
    pub(crate) line: u32,
    /// Where in it the match begins: characters from 1.
    pub(crate) column: u32,
    /// The line without its end; what is no UTF-8 in it is replaced. Of a long one 512 bytes.
    pub(crate) text: String,
    /// The lines before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<String>,
    /// The lines after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<String>,
}

/// Where a search goes on: after this line of this file. Line 0 of a file: with the next one; of no file: with the first.
struct Place<'a> {
    line: u32,
    file: &'a str,
}

impl<'a> Place<'a> {
    fn read(cursor: Option<&'a str>) -> Result<Option<Self>, FilesError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let wrong = || FilesError::Invalid("cursor: it is not one that an answer told".to_owned());
        let (line, file) = cursor.split_once(':').ok_or_else(wrong)?;
        let line = line.parse().map_err(|_| wrong())?;
        Ok(Some(Self { line, file }))
    }

    fn write(line: u32, file: &str) -> String {
        format!("{line}:{file}")
    }
}

/// Searches.
pub(crate) fn search(fs: &Fs<'_>, request: &Search) -> Result<Searched, FilesError> {
    let path = path::full(&request.path)?;
    let mut run = Run {
        fs,
        pattern: Pattern::new(&request.pattern, request.literal, request.case)?,
        context: within("context", request.context, 0, (0, limits::CONTEXT_MAX))? as usize,
        limit: within("limit", request.limit, limits::MATCHES, (1, limits::MATCHES_MAX))? as usize,
        shown: 0,
        bytes: 0,
        found: Searched {
            path: path.clone(),
            matches: Vec::new(),
            truncated: false,
            cursor: None,
            files: 0,
            binary: 0,
            large: 0,
            denied: 0,
            long_lines: 0,
            passed_over: 0,
        },
    };
    let globs = rules::globs(&request.glob)?;
    let place = Place::read(request.cursor.as_deref())?;
    let meta = fs.stat(&path).map_err(FilesError::reading(&path))?;
    run.found.cursor = match meta.kind {
        Kind::Directory => {
            let plan = Plan {
                directory: path,
                depth: limits::DEPTH_MAX,
                globs,
                ignoring: !request.ignored,
            };
            run.directory(plan, place)?
        }
        _ => {
            let from = place.map_or(0, |place| place.line);
            let size = meta.size;
            run.file(&path, size, from, true)?.map(|line| Place::write(line, ""))
        }
    };
    run.found.truncated = run.found.cursor.is_some();
    Ok(run.found)
}

/// A search that is under way.
struct Run<'a> {
    fs: &'a Fs<'a>,
    pattern: Pattern,
    context: usize,
    limit: usize,
    /// Bytes of lines in the answer.
    shown: usize,
    /// Bytes of files that were read.
    bytes: u64,
    found: Searched,
}

impl Run<'_> {
    fn is_full(&self) -> bool {
        self.found.matches.len() >= self.limit || self.shown >= limits::SHOWN_BYTES
    }

    fn work_left(&self) -> u64 {
        limits::SEARCH_WORK.saturating_sub(self.pattern.work())
    }

    /// Whether another file may be read.
    fn has_room(&self) -> bool {
        !self.is_full()
            && self.work_left() > 0
            && self.bytes < limits::SEARCHED_BYTES
            && self.found.files + self.found.binary < limits::SEARCHED_FILES
    }

    /// Searches all files of a directory. Where it goes on, if it is not done.
    fn directory(&mut self, plan: Plan, place: Option<Place<'_>>) -> Result<Option<String>, FilesError> {
        let directory = plan.directory.clone();
        let full = |file: &str| path::join(&directory, file);
        // The file that was begun, on from the line.
        if let Some(Place { line, file }) = place.as_ref().filter(|place| place.line > 0) {
            let size = self.fs.stat(full(file)).map_or(0, |meta| meta.size);
            if let Some(line) = self.file(&full(file), size, *line, false)? {
                return Ok(Some(Place::write(line, file)));
            }
        }
        let mut last = place.map(|place| place.file.to_owned());
        let fs = self.fs;
        let mut walk = Walk::new(fs, plan, last.as_deref())?;
        let cursor = loop {
            let found = match walk.step()? {
                Step::Done => break None,
                Step::Paused(at) => break Some(Place::write(0, &at)),
                Step::Found(found) => found,
            };
            if found.entry.is_file() {
                if !self.has_room() {
                    break Some(Place::write(0, last.as_deref().unwrap_or_default()));
                }
                if let Some(line) = self.file(&full(&found.path), found.entry.meta.size, 0, false)? {
                    break Some(Place::write(line, &found.path));
                }
            }
            last = Some(found.path);
        };
        self.found.denied += walk.passed.denied;
        self.found.passed_over = u32::try_from(walk.passed.unnamed).unwrap_or(u32::MAX);
        Ok(cursor)
    }

    /// Searches a file, on from after that line. Where it goes on, if it is not done. `asked`: it is what was asked for, so that what is wrong
    /// with it is told.
    fn file(&mut self, path: &str, size: u64, from: u32, asked: bool) -> Result<Option<u32>, FilesError> {
        let bytes = match self.fs.read(path, limits::FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(FsError::TooLarge(_)) if asked => return Err(crate::error::too_large(path, size, "searched")),
            Err(FsError::TooLarge(_)) => {
                self.found.large += 1;
                return Ok(None);
            }
            Err(FsError::Denied(_) | FsError::Failed(_)) if !asked => {
                self.found.denied += 1;
                return Ok(None);
            }
            // It went away meanwhile, or became something else.
            Err(FsError::NotFound | FsError::IsADirectory | FsError::Unsupported(_)) if !asked => return Ok(None),
            Err(error) => return Err(FilesError::reading(path)(error)),
        };
        self.bytes += bytes.len() as u64;
        let bytes = match Encoding::of(&bytes).0.is_wide() {
            true => decode(bytes).ok().map(|(text, _)| text.into_bytes()),
            false => (!is_binary(&bytes)).then_some(bytes),
        };
        match bytes {
            Some(bytes) => {
                self.found.files += 1;
                Ok(self.lines(path, &bytes, from))
            }
            None if asked => Err(FilesError::NotText {
                path: path.to_owned(),
                why: "there is a zero byte in it".to_owned(),
            }),
            None => {
                self.found.binary += 1;
                Ok(None)
            }
        }
    }

    fn lines(&mut self, path: &str, bytes: &[u8], from: u32) -> Option<u32> {
        let mark = Encoding::of(bytes).1;
        let text = &bytes[mark..];
        let (mut at, mut number) = (0, 0u32);
        while at < text.len() {
            let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |end| at + end);
            number += 1;
            if number > from {
                let line = without_return(&text[at..end]);
                let searched = &line[..line.len().min(self.pattern.line_bytes_max())];
                self.found.long_lines += u32::from(searched.len() < line.len());
                if let Some(span) = self.pattern.find(searched) {
                    self.add(path, text, at..end, number, span.start);
                }
                let is_last = end + 1 >= text.len();
                if !is_last && (self.is_full() || self.work_left() == 0) {
                    return Some(number);
                }
            }
            at = end + 1;
        }
        None
    }

    fn add(&mut self, path: &str, text: &[u8], line: std::ops::Range<usize>, number: u32, start: usize) {
        let whole = without_return(&text[line.clone()]);
        let column = String::from_utf8_lossy(&whole[..start]).chars().count() + 1;
        let before = before(text, line.start, self.context);
        let after = after(text, line.end, self.context);
        let text = shown(whole);
        let lines = before.iter().chain(&after);
        self.shown += text.len() + path.len() + lines.map(String::len).sum::<usize>();
        self.found.matches.push(Match {
            path: path.to_owned(),
            line: number,
            column: u32::try_from(column).unwrap_or(u32::MAX),
            text,
            before,
            after,
        });
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A line as it is shown.
fn shown(line: &[u8]) -> String {
    let cut = &line[..line.len().min(limits::SHOWN_LINE_BYTES)];
    let mut text = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < line.len() {
        // Of a character that is cut in two nothing is left.
        let whole = text.trim_end_matches('\u{fffd}').len();
        text.truncate(whole);
        text.push('…');
    }
    text
}

/// So many lines before the one that begins there.
fn before(text: &[u8], start: usize, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut end = start;
    while lines.len() < count && end > 0 {
        let line = end - 1;
        let begin = memchr::memrchr(b'\n', &text[..line]).map_or(0, |at| at + 1);
        lines.push(shown(without_return(&text[begin..line])));
        end = begin;
    }
    lines.reverse();
    lines
}

/// So many lines after the one that ends there.
fn after(text: &[u8], end: usize, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut start = end + 1;
    while lines.len() < count && start < text.len() {
        let end = memchr::memchr(b'\n', &text[start..]).map_or(text.len(), |at| start + at);
        lines.push(shown(without_return(&text[start..end])));
        start = end + 1;
    }
    lines
}
