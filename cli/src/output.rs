//! Where a command's data goes: stdout, in one of two formats. Words for people go to stderr.
//!
//! Text that came from elsewhere (a capsule, a document, another client) is made printable before it reaches a terminal, so
//! that it cannot move the cursor or set the title. What goes into a pipe or file is left as it is.

use std::io::{self, IsTerminal, Write};

use astrid_wire::text::is_harmful;
use clap::ValueEnum;
use serde::Serialize;

/// How results and errors are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    // Not documentation comments: they would be printed with every command's options.
    // For people; may change between versions.
    #[default]
    Human,
    // For programs: keys are added, never changed or removed.
    Json,
}

/// Whoever read stdout has left, as in `astrid watch '>' | head -1`.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the output any more")]
pub(crate) struct Closed;

/// Colours, or none: a terminal, and `NO_COLOR` not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    colour: bool,
}

impl Style {
    /// Without colours.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colour: false };

    /// With colours.
    #[cfg(test)]
    pub(crate) const COLOURED: Self = Self { colour: true };

    /// What this stream can show.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            colour: stream.is_terminal() && !no_colour && !dumb,
        }
    }

    /// Whether there are any.
    pub(crate) fn is_coloured(self) -> bool {
        self.colour
    }

    /// Good news.
    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Neither good nor bad yet.
    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Bad news.
    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// Less important.
    pub(crate) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// stdout, and how to write to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// What `--format` said.
    pub(crate) format: Format,
}

impl Output {
    /// Whether a person reads stdout directly.
    pub(crate) fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// Colours for stdout.
    pub(crate) fn style() -> Style {
        Style::of(&io::stdout())
    }

    /// Whether programs read it.
    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Writes bytes, at once.
    pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Closed.into()),
            Err(error) => Err(anyhow::Error::new(error).context("cannot write to stdout")),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a document for programs: indented, with a final newline.
    pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        Self::bytes(&text)
    }

    /// Writes a document for programs on one line.
    pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        Self::bytes(&text)
    }

    /// Tells a person something that is not data. Programs are not told.
    pub(crate) fn say(self, words: &str) {
        if !self.is_json() {
            let _ = writeln!(io::stderr().lock(), "{}", printable(words));
        }
    }
}

/// The text with every control character replaced: safe to show on one line of a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if is_harmful(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// The same, but lines and tabs stay.
pub(crate) fn printable_lines(text: &str) -> String {
    text.chars()
        .map(|c| {
            if is_harmful(c) && c != '\n' && c != '\t' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// A table for people: columns as wide as their widest cell, numbers to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: &'static [usize],
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these headings; the columns of these indices are aligned to the right.
    pub(crate) fn new(headings: &[&str], right: &'static [usize]) -> Self {
        Self {
            rows: vec![headings.iter().map(ToString::to_string).collect()],
            right,
        }
    }

    /// Adds a row of as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The whole, each line ended. `paint` may colour a cell, after its width was counted.
    pub(crate) fn render(&self, paint: impl Fn(usize, &str) -> String) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                if column > 0 {
                    line.push_str(GAP);
                }
                let pad = " ".repeat(widths[column] - cell.chars().count());
                let shown = if index == 0 { cell.clone() } else { paint(column, cell) };
                let (before, after) = if self.right.contains(&column) {
                    (pad.as_str(), "")
                } else {
                    ("", pad.as_str())
                };
                line.push_str(before);
                line.push_str(&shown);
                line.push_str(after);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let mut table = Table::new(&["NAME", "N"], &[1]);
        table.row(["text".into(), "7".into()]);
        table.row(["uplink-local".into(), "1200".into()]);
        assert_eq!(
            table.render(|_, cell| cell.into()),
            "NAME             N\ntext             7\nuplink-local  1200\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_terminals() {
        assert_eq!(printable("a\n\u{9b}31mb\u{202e}c"), "a\u{fffd}\u{fffd}31mb\u{fffd}c");
        assert_eq!(
            printable("a\u{61c}\u{200b}\u{200f}\u{feff}\u{e0041}b"),
            "a\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}b"
        );
        assert_eq!(printable_lines("a\n\tb\u{7}"), "a\n\tb\u{fffd}");
    }
}
