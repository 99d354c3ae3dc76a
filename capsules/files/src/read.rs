//! `read_text` and `read_bin`: parts of files.

use astrid_sdk::fs::{File, Fs, Kind, Meta, OpenOptions, PART_BYTES_MAX};
use astrid_sdk::{Body, Problem, body};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decode::{Encoding, LineEndings, decode, is_binary, not_utf8};
use crate::error::{FilesError, too_large, within};
use crate::{limits, path};

/// Lines of a text file to read.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadText {
    /// Which file: relative to the workspace, or with `workspace://`, `home://` or `tmp://`.
    path: String,
    /// How many lines to leave out first.
    #[serde(default)]
    offset: u64,
    /// How many lines to read, 1 to 100,000. Not said: 2,000.
    #[serde(default)]
    limit: Option<u32>,
    /// How many bytes of text to read, 1 to 4 MiB: whole lines, unless the first alone is longer. Not said: 256 KiB.
    #[serde(default)]
    bytes_max: Option<u32>,
}

/// Lines of a text file.
#[body]
pub(crate) struct TextRead {
    /// The file, with its root.
    pub(crate) path: String,
    /// The lines, in UTF-8, with their ends as they are in the file.
    pub(crate) text: String,
    /// How many lines were left out first.
    pub(crate) offset: u64,
    /// How many lines these are.
    pub(crate) lines: u32,
    /// Whether there is more after them.
    pub(crate) truncated: bool,
    /// The `offset` to go on from, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_offset: Option<u64>,
    /// Whether the end of the one line is missing, which is longer than `bytes_max`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cut: bool,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// How the text is kept in the file.
    pub(crate) encoding: Encoding,
    /// How these lines end.
    pub(crate) line_endings: LineEndings,
    /// BLAKE3 of the whole file: for `expected` of `write_text` and `edit`. Not told for files above 256 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
}

/// How bytes are answered.
#[body]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// As base64, in JSON.
    #[default]
    Base64,
    /// As they are, as `application/octet-stream` with the parameters `offset` and `size`.
    Raw,
}

/// Bytes of a file to read.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadBin {
    /// Which file.
    path: String,
    /// How many bytes to leave out first.
    #[serde(default)]
    offset: u64,
    /// How many bytes to read, 1 to 8 MiB. Not said: 1 MiB.
    #[serde(default)]
    length: Option<u32>,
    /// How they are answered.
    #[serde(default)]
    format: Format,
}

/// Bytes of a file, in base64. With `format = raw` they are the answer themselves.
#[body]
pub(crate) struct BinRead {
    /// The file, with its root.
    pub(crate) path: String,
    /// The bytes, in base64.
    pub(crate) base64: String,
    /// How many bytes were left out first.
    pub(crate) offset: u64,
    /// How many bytes these are.
    pub(crate) length: u32,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Whether there is more after them.
    pub(crate) truncated: bool,
    /// BLAKE3 of the whole file. Not told for files above 256 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
}

/// An open file, what is known of it, and the hash that it had before it was opened.
fn opened(fs: &Fs<'_>, path: &str) -> Result<(File, Meta, Option<String>), FilesError> {
    let reading = |error| FilesError::reading(path)(error);
    // The hash first: what is changed meanwhile is then noticed by whoever writes with it.
    let known = fs.stat(path).map_err(reading)?;
    let hash = match known.kind == Kind::File && known.size <= limits::HASH_BYTES {
        true => Some(fs.hash(path).map_err(reading)?),
        false => None,
    };
    let file = fs.open(path, &OpenOptions::reading()).map_err(reading)?;
    let meta = file.stat().map_err(reading)?;
    Ok((file, meta, hash))
}

/// Lines of a text, picked out of its bytes as they come.
struct Picker {
    skip: u64,
    lines_max: u32,
    bytes_max: usize,
    picked: Vec<u8>,
    lines: u32,
    /// Where the line at hand begins in `picked`.
    line_start: usize,
    more: bool,
    cut: bool,
}

impl Picker {
    /// Takes the next bytes. False: it needs no more.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map(|at| at + 1);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            bytes = rest;
            if self.skip > 0 {
                self.skip -= u64::from(end.is_some());
                continue;
            }
            let full = self.lines == self.lines_max;
            if full || self.picked.len() + line.len() > self.bytes_max {
                self.stop(line, full);
                return false;
            }
            self.picked.extend_from_slice(line);
            if end.is_some() {
                self.lines += 1;
                self.line_start = self.picked.len();
            }
        }
        true
    }

    /// There is more than is wanted. A line that alone is too long is cut, any other left for the next time.
    fn stop(&mut self, line: &[u8], full: bool) {
        self.more = true;
        if full || self.lines > 0 {
            return self.picked.truncate(self.line_start);
        }
        let room = self.bytes_max - self.picked.len();
        self.picked.extend_from_slice(&line[..room.min(line.len())]);
        let whole = match std::str::from_utf8(&self.picked) {
            // A character that is cut in two.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.picked.len(),
        };
        self.picked.truncate(whole);
        self.cut = true;
    }

    fn finish(&mut self) {
        if self.picked.len() > self.line_start {
            self.lines += 1;
        }
    }
}

/// Reads lines.
pub(crate) fn text(fs: &Fs<'_>, request: &ReadText) -> Result<TextRead, FilesError> {
    let path = path::full(&request.path)?;
    let lines_max = within("limit", request.limit, limits::LINES, (1, limits::LINES_MAX))?;
    let bytes_max = within(
        "bytes_max",
        request.bytes_max,
        limits::READ_BYTES,
        (1, limits::READ_BYTES_MAX),
    )?;
    let (file, meta, hash) = opened(fs, &path)?;
    let mut picker = Picker {
        skip: request.offset,
        lines_max,
        // Room for one character, however long that is.
        bytes_max: (bytes_max as usize).max(4),
        picked: Vec::new(),
        lines: 0,
        line_start: 0,
        more: false,
        cut: false,
    };
    let encoding = pick(&file, meta.size, &path, &mut picker)?;
    picker.finish();
    let line_endings = LineEndings::of(&picker.picked);
    let text = String::from_utf8(picker.picked).map_err(|error| FilesError::NotText {
        path: path.clone(),
        why: not_utf8(error.utf8_error().valid_up_to()) + ", counted from the first of these lines",
    })?;
    Ok(TextRead {
        path,
        text,
        offset: request.offset,
        lines: picker.lines,
        truncated: picker.more,
        next_offset: picker.more.then(|| request.offset + u64::from(picker.lines)),
        cut: picker.cut,
        size: meta.size,
        encoding,
        line_endings,
        hash,
    })
}

/// Goes through a file until the picker has enough.
fn pick(file: &File, size: u64, path: &str, picker: &mut Picker) -> Result<Encoding, FilesError> {
    let not_text = |why: String| FilesError::NotText {
        path: path.to_owned(),
        why,
    };
    let read = |at| file.read(at, PART_BYTES_MAX).map_err(FilesError::reading(path));
    let first = read(0)?;
    let (encoding, mark) = Encoding::of(&first);
    if is_binary(&first) {
        return Err(not_text("there is a zero byte in it".to_owned()));
    }
    let mut at = first.len() as u64;
    if encoding.is_wide() {
        let mut whole = first;
        while whole.len() as u64 <= limits::FILE_BYTES {
            let part = read(whole.len() as u64)?;
            if part.is_empty() {
                let (text, encoding) = decode(whole).map_err(not_text)?;
                picker.take(text.as_bytes());
                return Ok(encoding);
            }
            whole.extend(part);
        }
        return Err(too_large(path, size, "read as UTF-16"));
    }
    let mut wanted = picker.take(&first[mark..]);
    while wanted {
        let part = read(at)?;
        if part.is_empty() {
            break;
        }
        at += part.len() as u64;
        if at > limits::SCAN_BYTES {
            return Err(FilesError::TooLarge {
                path: path.to_owned(),
                size,
                limit: limits::SCAN_BYTES,
                done: "gone through to find a line",
            });
        }
        wanted = picker.take(&part);
    }
    if memchr::memchr(0, &picker.picked).is_some() {
        return Err(not_text("there is a zero byte in these lines".to_owned()));
    }
    Ok(encoding)
}

/// Reads bytes.
pub(crate) fn binary(fs: &Fs<'_>, request: &ReadBin, principal: &str) -> Result<Body, Problem> {
    let (read, bytes) = bytes_of(fs, request).map_err(|error| error.told_to(principal))?;
    match request.format {
        Format::Base64 => Ok(Body::json(&BinRead {
            base64: STANDARD.encode(&bytes),
            ..read
        })?),
        Format::Raw => {
            let (offset, size) = (read.offset, read.size);
            Ok(Body::new(
                format!("application/octet-stream; offset={offset}; size={size}"),
                bytes,
            ))
        }
    }
}

fn bytes_of(fs: &Fs<'_>, request: &ReadBin) -> Result<(BinRead, Vec<u8>), FilesError> {
    let path = path::full(&request.path)?;
    let length = within(
        "length",
        request.length,
        limits::BINARY_BYTES,
        (1, limits::BINARY_BYTES_MAX),
    )?;
    let (file, meta, hash) = opened(fs, &path)?;
    let mut bytes = Vec::new();
    while bytes.len() < length as usize {
        let left = (length - bytes.len() as u32).min(PART_BYTES_MAX);
        let at = request.offset.saturating_add(bytes.len() as u64);
        let part = file.read(at, left).map_err(FilesError::reading(&path))?;
        if part.is_empty() {
            break;
        }
        bytes.extend(part);
    }
    let read = BinRead {
        path,
        base64: String::new(),
        offset: request.offset,
        length: bytes.len() as u32,
        size: meta.size,
        truncated: request.offset.saturating_add(bytes.len() as u64) < meta.size,
        hash,
    };
    Ok((read, bytes))
}
