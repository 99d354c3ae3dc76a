//! A unified diff of what an edit did. The changes are known, so nothing has to be guessed: it takes time in proportion to the text, and memory
//! in proportion to what is shown.

use std::fmt::Write;
use std::ops::Range;

/// Lines around a change.
const CONTEXT: usize = 3;

/// What is put in the place of these bytes of the old text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Where it begins, in bytes of the old text.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What is there instead.
    pub new: &'a str,
}

/// Whole lines of the old text, and those that are there instead, in bytes.
#[derive(Debug, Clone)]
struct Piece {
    old: Range<usize>,
    new: Range<usize>,
}

/// A diff, as far as it was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The diff.
    pub text: String,
    /// Whether its end is missing.
    pub cut: bool,
}

/// The first `bytes_max` bytes of the diff of a text after changes, which are in order and do not overlap. `new_text` is the text with them.
pub fn unified(path: &str, text: &str, new_text: &str, changes: &[Change<'_>], bytes_max: usize) -> Diff {
    let mut diff = format!("--- {path}\n+++ {path}\n");
    let pieces = pieces(text, new_text, changes);
    if pieces.is_empty() {
        diff.clear();
    }
    let mut hunks = Hunks {
        text,
        new_text,
        at: 0,
        line: 0,
        grown: 0,
    };
    let mut rest = pieces.as_slice();
    while !rest.is_empty() && diff.len() <= bytes_max {
        let near = |pair: &[Piece]| lines(&text[pair[0].old.end..pair[1].old.start]) <= 2 * CONTEXT;
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (hunk, others) = rest.split_at(count);
        hunks.write(&mut diff, hunk, bytes_max);
        rest = others;
    }
    let cut = diff.len() > bytes_max;
    if cut {
        let end = memchr::memrchr(b'\n', &diff.as_bytes()[..bytes_max]).map_or(0, |end| end + 1);
        diff.truncate(end);
    }
    Diff { text: diff, cut }
}

/// How many lines these are.
fn lines(text: &str) -> usize {
    let ended = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    ended + usize::from(!text.is_empty() && !text.ends_with('\n'))
}

/// Where the line of this byte begins.
fn line_start(text: &str, byte: usize) -> usize {
    memchr::memrchr(b'\n', &text.as_bytes()[..byte]).map_or(0, |at| at + 1)
}

/// Where the line of this byte ends, its line feed included.
fn line_end(text: &str, byte: usize) -> usize {
    memchr::memchr(b'\n', &text.as_bytes()[byte..]).map_or(text.len(), |at| byte + at + 1)
}

/// Changes as whole lines; those that share a line are one.
fn pieces(text: &str, new_text: &str, changes: &[Change<'_>]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut ahead = 0isize;
    for change in changes {
        let start = line_start(text, change.start);
        let before = ahead;
        ahead += change.new.len() as isize - (change.end - change.start) as isize;
        // Where lines begin there in both texts, the line after the change is not touched.
        let begins_line = |text: &str, at: usize| at == 0 || text.as_bytes()[at - 1] == b'\n';
        let new_end = change.end.saturating_add_signed(ahead);
        let end = match begins_line(text, change.end) && begins_line(new_text, new_end) {
            true => change.end,
            false => line_end(text, change.end),
        };
        let new_end = end.saturating_add_signed(ahead);
        match pieces.last_mut() {
            Some(piece) if piece.old.end > start => (piece.old.end, piece.new.end) = (end, new_end),
            _ => pieces.push(Piece {
                old: start..end,
                new: start.saturating_add_signed(before)..new_end,
            }),
        }
    }
    for piece in &mut pieces {
        trim(piece, text, new_text);
    }
    pieces.retain(|piece| !piece.old.is_empty() || !piece.new.is_empty());
    pieces
}

/// Leaves out lines that are the same at both ends.
fn trim(piece: &mut Piece, text: &str, new_text: &str) {
    let Piece { old, new } = piece;
    while old.start < old.end && new.start < new.end {
        let old_line = line_end(&text[..old.end], old.start);
        let new_line = line_end(&new_text[..new.end], new.start);
        if text[old.start..old_line] != new_text[new.start..new_line] {
            break;
        }
        (old.start, new.start) = (old_line, new_line);
    }
    while old.start < old.end && new.start < new.end {
        let old_line = line_start(text, old.end - 1).max(old.start);
        let new_line = line_start(new_text, new.end - 1).max(new.start);
        if text[old_line..old.end] != new_text[new_line..new.end] {
            break;
        }
        (old.end, new.end) = (old_line, new_line);
    }
}

/// Writes hunk after hunk.
struct Hunks<'a> {
    text: &'a str,
    new_text: &'a str,
    /// A byte of the old text, and how many lines are before it.
    at: usize,
    line: usize,
    /// How much further down lines are in the new text.
    grown: isize,
}

impl Hunks<'_> {
    fn write(&mut self, diff: &mut String, pieces: &[Piece], bytes_max: usize) {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return;
        };
        let (mut start, mut end) = (first.old.start, last.old.end);
        for _ in 0..CONTEXT {
            start = if start == 0 {
                0
            } else {
                line_start(self.text, start - 1)
            };
            end = if end == self.text.len() {
                end
            } else {
                line_end(self.text, end)
            };
        }
        self.line += lines(&self.text[self.at..start]);
        self.at = start;
        let (old_line, new_line) = (self.line, self.line.saturating_add_signed(self.grown));
        let old_count = lines(&self.text[start..end]);
        let grown = pieces.iter().map(|piece| {
            lines(&self.new_text[piece.new.clone()]) as isize - lines(&self.text[piece.old.clone()]) as isize
        });
        let grown: isize = grown.sum();
        let new_count = old_count.saturating_add_signed(grown);
        self.grown += grown;
        // An empty range is named by the line before it.
        let place = |line: usize, count: usize| format!("{},{count}", line + usize::from(count > 0));
        _ = writeln!(
            diff,
            "@@ -{} +{} @@",
            place(old_line, old_count),
            place(new_line, new_count)
        );
        let mut at = start;
        for piece in pieces {
            write_lines(diff, ' ', &self.text[at..piece.old.start], bytes_max);
            write_lines(diff, '-', &self.text[piece.old.clone()], bytes_max);
            write_lines(diff, '+', &self.new_text[piece.new.clone()], bytes_max);
            at = piece.old.end;
        }
        write_lines(diff, ' ', &self.text[at..end], bytes_max);
    }
}

fn write_lines(diff: &mut String, mark: char, text: &str, bytes_max: usize) {
    for line in text.split_inclusive('\n') {
        if diff.len() > bytes_max {
            return;
        }
        diff.push(mark);
        diff.push_str(line);
        if !line.ends_with('\n') {
            diff.push_str("\n\\ No newline at end of file\n");
        }
    }
}
