//! Replacing pieces of a text, each of which must be there exactly once. All of them or none.
//!
//! All replacements are of the text as it is before, so their order does not matter and none can match what another has made. Where all lines
//! of the file end in CR LF, line feeds in a replacement without carriage returns mean that, too: who asks need not know how the file ends
//! its lines.

use std::borrow::Cow;

use astrid_sdk::body;

use crate::decode::LineEndings;
use crate::diff::{self, Change, Diff};
use crate::error::FilesError;
use crate::limits;

/// Lines of a replacement that are looked for with other white space, and places where they are.
const NEAR_LINES: usize = 200;
const NEAR_PLACES: usize = 1_000;

/// A piece of text, and what is to be there instead.
#[body]
#[derive(Debug, Clone)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// What is there now, exactly once, white space and all.
    pub old: String,
    /// What is to be there instead.
    pub new: String,
}

/// A text that was edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// What changed.
    pub diff: Diff,
}

/// Makes all replacements in a text. `path` is for words.
///
/// # Errors
/// One does not match, or more than once, or two overlap, or nothing would change.
pub fn apply(path: &str, text: &str, edits: &[Edit]) -> Result<Edited, FilesError> {
    if edits.is_empty() || edits.len() > limits::EDITS {
        let count = edits.len();
        return Err(FilesError::Invalid(format!(
            "edits: {count} of them; 1 to {} are made",
            limits::EDITS
        )));
    }
    let crlf = LineEndings::of(text.as_bytes()) == LineEndings::Crlf;
    let adapted: Vec<(Cow<'_, str>, Cow<'_, str>)> = edits
        .iter()
        .map(|edit| (adapt(&edit.old, crlf), adapt(&edit.new, crlf)))
        .collect();
    let mut changes = Vec::with_capacity(edits.len());
    for (index, (old, new)) in adapted.iter().enumerate() {
        if old.is_empty() {
            return Err(FilesError::Invalid(format!(
                "edits[{index}].old is empty; tool.v1.files.write_text writes whole files"
            )));
        }
        if old == new {
            return Err(FilesError::Invalid(format!("edits[{index}]: old and new are the same")));
        }
        let start = only_place(path, text, old, index)?;
        let end = start + old.len();
        changes.push((index, Change { start, end, new }));
    }
    changes.sort_by_key(|(_, change)| change.start);
    for pair in changes.windows(2) {
        if let [(a, before), (b, after)] = pair
            && before.end > after.start
        {
            return Err(FilesError::Overlap {
                path: path.to_owned(),
                first: *a.min(b),
                second: *a.max(b),
                line: line_of(text, after.start),
            });
        }
    }
    let changes: Vec<Change<'_>> = changes.into_iter().map(|(_, change)| change).collect();
    let new_text = replaced(text, &changes);
    if new_text.len() > limits::TEXT_BYTES {
        return Err(crate::error::too_large(path, new_text.len() as u64, "written"));
    }
    let diff = diff::unified(path, text, &new_text, &changes, limits::DIFF_BYTES);
    Ok(Edited { text: new_text, diff })
}

fn replaced(text: &str, changes: &[Change<'_>]) -> String {
    let mut new_text = String::with_capacity(text.len());
    let mut at = 0;
    for change in changes {
        new_text.push_str(&text[at..change.start]);
        new_text.push_str(change.new);
        at = change.end;
    }
    new_text.push_str(&text[at..]);
    new_text
}

/// With the line endings of the file.
fn adapt(text: &str, crlf: bool) -> Cow<'_, str> {
    match crlf && !text.contains('\r') {
        true => Cow::Owned(text.replace('\n', "\r\n")),
        false => Cow::Borrowed(text),
    }
}

/// The line of a byte, from 1.
fn line_of(text: &str, byte: usize) -> usize {
    memchr::memchr_iter(b'\n', &text.as_bytes()[..byte]).count() + 1
}

/// Where it is, if it is there once. Places that overlap are two.
fn only_place(path: &str, text: &str, old: &str, edit: usize) -> Result<usize, FilesError> {
    let finder = memchr::memmem::Finder::new(old);
    let mut places = Vec::new();
    let mut from = 0;
    let step = old.chars().next().map_or(1, char::len_utf8);
    while let Some(found) = finder.find(&text.as_bytes()[from..]) {
        places.push(from + found);
        if places.len() > limits::PLACES {
            break;
        }
        from += found + step;
    }
    match places.as_slice() {
        [place] => Ok(*place),
        [] => Err(FilesError::NoMatch {
            path: path.to_owned(),
            edit,
            near: near(text, old),
        }),
        places => {
            let shown = &places[..places.len().min(limits::PLACES)];
            let lines: Vec<String> = shown.iter().map(|place| line_of(text, *place).to_string()).collect();
            let (count, more) = match places.len() > limits::PLACES {
                true => (format!("more than {}", limits::PLACES), " and more"),
                false => (places.len().to_string(), ""),
            };
            Err(FilesError::ManyMatches {
                path: path.to_owned(),
                edit,
                count,
                lines: format!("{}{more}", lines.join(", ")),
            })
        }
    }
}

/// Where the same lines are but for white space at their ends, in words; or nothing.
fn near(text: &str, old: &str) -> String {
    let wanted: Vec<&str> = old.trim().lines().take(NEAR_LINES + 1).map(str::trim).collect();
    let Some(first) = wanted
        .first()
        .filter(|first| !first.is_empty() && wanted.len() <= NEAR_LINES)
    else {
        return String::new();
    };
    let mut first_line = None;
    let mut at = 0;
    let lines = text.split_inclusive('\n').enumerate().map(|(index, line)| {
        at += line.len();
        (index + 1, at - line.len(), line)
    });
    for (number, start, _) in lines.filter(|(_, _, line)| line.trim() == *first).take(NEAR_PLACES) {
        let mut here = text[start..].lines().map(str::trim);
        if wanted.iter().all(|line| here.next() == Some(*line)) {
            return format!(", but with other white space in line {number}");
        }
        first_line.get_or_insert(number);
    }
    match first_line {
        Some(line) => format!(", but its first line is line {line}"),
        None => String::new(),
    }
}
