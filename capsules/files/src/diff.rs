//! A unified diff of what an edit did. The changes are known, so nothing has to be guessed: it takes time in proportion to the lines.

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

/// Lines of the old text, and the lines that are there instead.
struct Piece<'a> {
    /// Numbers of the old lines, from 0.
    old: Range<usize>,
    new: Vec<&'a str>,
}

/// The diff of a text after changes, which are in order and do not overlap. `new_text` is the text with them.
pub fn unified(path: &str, text: &str, new_text: &str, changes: &[Change<'_>]) -> String {
    let old: Vec<&str> = text.split_inclusive('\n').collect();
    let mut starts = Vec::with_capacity(old.len());
    let mut at = 0;
    for line in &old {
        starts.push(at);
        at += line.len();
    }
    let pieces = pieces(text, new_text, &old, &starts, changes);
    let mut diff = String::new();
    let mut rest = pieces.as_slice();
    // How much further down lines are in the new text.
    let mut shift = 0isize;
    while let Some(first) = rest.first() {
        let near = |pair: &[Piece<'_>]| pair[1].old.start - pair[0].old.end <= 2 * CONTEXT;
        let count = 1 + rest.windows(2).take_while(|pair| near(pair)).count();
        let (hunk, others) = rest.split_at(count);
        if diff.is_empty() {
            _ = write!(diff, "--- {path}\n+++ {path}\n");
        }
        write_hunk(&mut diff, &old, hunk, first.old.start.saturating_sub(CONTEXT), &mut shift);
        rest = others;
    }
    diff
}

/// Changes as whole lines; those that share a line are one.
fn pieces<'a>(
    text: &str,
    new_text: &'a str,
    old: &[&str],
    starts: &[usize],
    changes: &[Change<'_>],
) -> Vec<Piece<'a>> {
    let line_of = |byte: usize| starts.partition_point(|start| *start <= byte).saturating_sub(1);
    let line_end = |line: usize| starts.get(line + 1).copied().unwrap_or(text.len());
    // Old lines that are touched, with how far the new text is ahead after them.
    let mut touched: Vec<(Range<usize>, isize)> = Vec::new();
    let mut ahead = 0isize;
    for change in changes {
        ahead += change.new.len() as isize - (change.end - change.start) as isize;
        let first = line_of(change.start);
        // A change that takes whole lines and leaves whole lines, or none, does not touch the line after it.
        let begins_line = starts.get(first).is_none_or(|start| *start == change.start);
        let whole = change.new.ends_with('\n') || (change.new.is_empty() && begins_line);
        let ends_line = change.end > 0 && text.as_bytes()[change.end - 1] == b'\n';
        let last = match ends_line && whole {
            true => line_of(change.end - 1),
            false => line_of(change.end),
        };
        let lines = first..(last + 1).min(old.len());
        match touched.last_mut() {
            Some((before, told)) if before.end > lines.start => (before.end, *told) = (lines.end, ahead),
            _ => touched.push((lines, ahead)),
        }
    }
    let mut before = 0isize;
    let mut pieces = Vec::new();
    for (lines, after) in touched {
        let start = starts.get(lines.start).copied().unwrap_or(text.len());
        let end = if lines.end == 0 { 0 } else { line_end(lines.end - 1) };
        let new = &new_text[start.saturating_add_signed(before)..end.saturating_add_signed(after)];
        before = after;
        pieces.push(trimmed(lines, old, new.split_inclusive('\n').collect()));
    }
    pieces.retain(|piece| !piece.old.is_empty() || !piece.new.is_empty());
    pieces
}

/// Without lines that are the same at both ends.
fn trimmed<'a>(mut lines: Range<usize>, old: &[&str], mut new: Vec<&'a str>) -> Piece<'a> {
    let same = old[lines.clone()].iter().zip(&new).take_while(|(a, b)| a == b).count();
    lines.start += same;
    new.drain(..same);
    let same = old[lines.clone()].iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    lines.end -= same;
    new.truncate(new.len() - same);
    Piece { old: lines, new }
}

fn write_hunk(diff: &mut String, old: &[&str], pieces: &[Piece<'_>], start: usize, shift: &mut isize) {
    let end = pieces.last().map_or(start, |piece| piece.old.end + CONTEXT).min(old.len());
    let grown: isize = pieces.iter().map(|piece| piece.new.len() as isize - piece.old.len() as isize).sum();
    let new_count = (end - start).saturating_add_signed(grown);
    let new_start = start.saturating_add_signed(*shift);
    *shift += grown;
    // An empty range is named by the line before it.
    let place = |start: usize, count: usize| format!("{},{count}", if count == 0 { start } else { start + 1 });
    _ = writeln!(diff, "@@ -{} +{} @@", place(start, end - start), place(new_start, new_count));
    let mut at = start;
    for piece in pieces {
        write_lines(diff, ' ', &old[at..piece.old.start]);
        write_lines(diff, '-', &old[piece.old.clone()]);
        write_lines(diff, '+', &piece.new);
        at = piece.old.end;
    }
    write_lines(diff, ' ', &old[at..end]);
}

fn write_lines(diff: &mut String, mark: char, lines: &[&str]) {
    for line in lines {
        diff.push(mark);
        diff.push_str(line);
        if !line.ends_with('\n') {
            diff.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// A diff of at most so many bytes, cut off after a whole line; and whether it was cut.
pub fn cut(mut diff: String, bytes_max: usize) -> (String, bool) {
    if diff.len() <= bytes_max {
        return (diff, false);
    }
    let end = diff.as_bytes()[..bytes_max].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    diff.truncate(end);
    (diff, true)
}
