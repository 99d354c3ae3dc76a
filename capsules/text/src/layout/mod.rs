//! Lays text out: the one place that knows what plain text looks like.
//!
//! Markdown and HTML both tell a [`Writer`] what they meet, in document order; it writes lines at once and keeps only the
//! present paragraph, and the present table, whose columns cannot be known before it ends. So a document is laid out in
//! one pass, and its size is bounded by what is checked here: nesting, cells, bytes of output.
//!
//! Deliberately absent: emphasis, colours and other marks that plain text has no words for. Control characters do not
//! pass, so that text from a hostile document cannot steer a terminal.
//!
//! Methods do not return errors one by one: a writer that met a limit ignores what follows and says so in
//! [`Writer::finish`]; long loops ask [`Writer::is_done_for`].

mod cells;
mod table;
mod wrap;

use std::collections::HashMap;

use crate::error::TextError;
use crate::limits;
use crate::options::{Links, Options};
use table::Table;
pub use wrap::{display_width, wrap};

/// Space between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// The next block starts on a line of its own.
    Line,
    /// An empty line is between them.
    Blank,
}

/// What a container does to the lines in it.
#[derive(Debug)]
enum Frame {
    /// Lines get a prefix; its length before this frame.
    Prefix { outer: usize },
    /// A list, with the number of its next item when it counts.
    List { next: Option<u64> },
    /// Nothing: a list item or quote within a table cell.
    Inert,
}

/// A link that is open.
#[derive(Debug)]
struct Link {
    target: String,
    /// Where its text starts in the paragraph.
    start: usize,
    /// Whether a part of its text was written already.
    is_told: bool,
}

/// Where a table stands.
#[derive(Debug)]
enum TableState {
    /// Its cells are collected.
    Collected(Table),
    /// It is page layout: its cells are paragraphs.
    Flowing,
}

/// Makes plain text from what it is told.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    out: String,
    /// The present paragraph, or the present cell: collapsed white space, `\n` for a forced break.
    inline: String,
    /// Level of the heading that the present paragraph is.
    heading: Option<u8>,
    preformatted: bool,
    frames: Vec<Frame>,
    /// What continuing lines start with.
    prefix: String,
    /// What the next line starts with instead, when a marker has not been written yet.
    lead: Option<String>,
    gap: Option<Gap>,
    /// What empty lines between blocks start with: the part of the prefix that both sides share.
    shared_prefix: usize,
    link: Option<Link>,
    footnotes: Vec<String>,
    footnote_numbers: HashMap<String, usize>,
    tables: Vec<TableState>,
    in_cell: bool,
    failure: Option<TextError>,
}

impl Writer {
    /// A writer for one document. `size_hint` is the document's size in bytes.
    pub fn new(options: Options, size_hint: usize) -> Self {
        Self {
            options,
            out: String::with_capacity(size_hint.min(limits::OUTPUT_BYTES) / 2),
            inline: String::new(),
            heading: None,
            preformatted: false,
            frames: Vec::new(),
            prefix: String::new(),
            lead: None,
            gap: None,
            shared_prefix: 0,
            link: None,
            footnotes: Vec::new(),
            footnote_numbers: HashMap::new(),
            tables: Vec::new(),
            in_cell: false,
            failure: None,
        }
    }

    /// Whether a limit was met, so that going on is of no use.
    pub fn is_done_for(&self) -> bool {
        self.failure.is_some()
    }

    /// The text, ending in one line feed unless it is empty.
    ///
    /// # Errors
    /// `text.too-large` or `text.too-deep` when a limit was met.
    pub fn finish(mut self) -> Result<String, TextError> {
        while let Some(state) = self.tables.pop() {
            self.end_collected(state);
        }
        while self.close() {}
        self.flush();
        if !self.footnotes.is_empty() {
            self.gap = Some(Gap::Blank);
            for (index, target) in std::mem::take(&mut self.footnotes).iter().enumerate() {
                self.line(&format!("[{}]: {target}", index + 1));
            }
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.out),
        }
    }

    // --- text -------------------------------------------------------------------------------------------------------

    /// Text of the present paragraph. White space collapses unless the paragraph is preformatted.
    pub fn text(&mut self, text: &str) {
        if self.failure.is_some() {
            return;
        }
        if self.inline.len() + text.len() > limits::OUTPUT_BYTES {
            self.fail(TextError::output());
            return;
        }
        let bytes = text.as_bytes();
        let mut start = 0;
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            let is_plain = byte > b' ' && byte != 0x7f && byte != 0xc2;
            if is_plain {
                at += 1;
                continue;
            }
            // 0xC2 leads U+0080 to U+00BF: the C1 controls are its first half.
            let length = if byte == 0xc2 { 2 } else { 1 };
            let is_text = byte == 0xc2 && bytes.get(at + 1).is_some_and(|second| *second >= 0xa0);
            if is_text || (self.preformatted && (byte == b' ' || byte == b'\t' || byte == b'\n')) {
                at += length;
                continue;
            }
            self.inline.push_str(&text[start..at]);
            if !self.preformatted && matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c) {
                self.space();
            }
            at += length;
            start = at;
        }
        self.inline.push_str(&text[start..]);
    }

    /// A place where words may be separated: one space, unless a line starts here.
    fn space(&mut self) {
        if !matches!(self.inline.as_bytes().last(), None | Some(b' ' | b'\n')) {
            self.inline.push(' ');
        }
    }

    /// A forced line break.
    pub fn line_break(&mut self) {
        if self.inline.ends_with(' ') {
            self.inline.pop();
        }
        // A row of them is a gap between paragraphs, not as many empty lines.
        if !self.inline.ends_with("\n\n") {
            self.inline.push('\n');
        }
    }

    /// A link starts; a link that is open ends.
    pub fn link_start(&mut self, target: &str) {
        self.link_end();
        if self.options.links == Links::Omit || !is_address(target) {
            return;
        }
        let target = target
            .chars()
            .filter(|c| !c.is_control() && !c.is_whitespace())
            .collect();
        self.link = Some(Link {
            target,
            start: self.inline.len(),
            is_told: false,
        });
    }

    /// The open link ends.
    pub fn link_end(&mut self) {
        let Some(link) = self.link.take() else { return };
        let shown = self.inline.get(link.start..).unwrap_or_default().trim();
        let address = link.target.strip_prefix("mailto:").unwrap_or(&link.target);
        if (shown.is_empty() && !link.is_told) || shown == link.target || shown == address {
            return;
        }
        let shown_before = shown.is_empty();
        let spaced = self.inline.ends_with(' ');
        if spaced {
            self.inline.pop();
        }
        if self.options.links == Links::Footnote {
            let number = match self.footnote_numbers.get(&link.target) {
                Some(number) => *number,
                None => {
                    self.footnotes.push(link.target.clone());
                    self.footnote_numbers.insert(link.target, self.footnotes.len());
                    self.footnotes.len()
                }
            };
            self.inline.push_str(&format!("[{number}]"));
        } else {
            self.inline.push_str(if self.inline.is_empty() { "(" } else { " (" });
            self.inline.push_str(address);
            self.inline.push(')');
        }
        if shown_before {
            self.block(Gap::Line);
        } else if spaced {
            self.inline.push(' ');
        }
    }

    /// An image, told by its description.
    pub fn image(&mut self, description: &str) {
        let description = description.trim();
        if !description.is_empty() {
            self.text("[image: ");
            self.text(description);
            self.text("]");
        }
    }

    // --- blocks -----------------------------------------------------------------------------------------------------

    /// Ends the present paragraph; at least this gap is before the next.
    pub fn block(&mut self, gap: Gap) {
        self.flush();
        // Right after a marker there is no gap: the first paragraph of an item stands beside it.
        if self.lead.is_none() && !self.in_cell {
            self.gap = self.gap.max(Some(gap));
        }
    }

    /// A heading starts, of level 1 to 6.
    pub fn heading_start(&mut self, level: u8) {
        if self.in_cell {
            self.flow();
        }
        self.block(Gap::Blank);
        self.heading = Some(level);
    }

    /// The heading ends.
    pub fn heading_end(&mut self) {
        self.block(Gap::Blank);
        self.heading = None;
    }

    /// Preformatted text starts: white space and line breaks stay as they are.
    pub fn preformatted_start(&mut self) {
        self.block(Gap::Blank);
        self.preformatted = true;
    }

    /// Preformatted text ends.
    pub fn preformatted_end(&mut self) {
        self.block(Gap::Blank);
        self.preformatted = false;
    }

    /// A thematic break.
    pub fn rule(&mut self) {
        self.block(Gap::Blank);
        if !self.in_cell {
            self.line("---");
            self.block(Gap::Blank);
        }
    }

    /// A quotation starts. Ends with [`Writer::close`], as all containers.
    pub fn quote(&mut self) {
        self.block(Gap::Blank);
        self.open_prefix("> ", "> ");
    }

    /// A list starts; numbered from `first` when that is given.
    pub fn list(&mut self, first: Option<u64>) {
        let nested = self.frames.iter().any(|frame| matches!(frame, Frame::List { .. }));
        self.block(if nested { Gap::Line } else { Gap::Blank });
        self.push(Frame::List { next: first });
    }

    /// An item of the innermost list starts. `number` overrides the count.
    pub fn item(&mut self, number: Option<u64>) {
        self.block(Gap::Line);
        let marker = match self.frames.last_mut() {
            Some(Frame::List { next: Some(next) }) => {
                let present = number.unwrap_or(*next);
                *next = present.saturating_add(1);
                format!("{present}. ")
            }
            _ => String::from("- "),
        };
        self.open_prefix(&marker, &" ".repeat(marker.len()));
    }

    /// An indented block starts.
    pub fn indent(&mut self) {
        self.block(Gap::Line);
        self.open_prefix("  ", "  ");
    }

    /// An indented block that a label starts.
    pub fn labelled(&mut self, label: &str) {
        self.block(Gap::Blank);
        self.open_prefix(label, "  ");
    }

    /// The innermost container ends. False when none is open.
    pub fn close(&mut self) -> bool {
        let Some(frame) = self.frames.last() else { return false };
        let gap = match frame {
            Frame::List { .. } if self.frames.iter().filter(|f| matches!(f, Frame::List { .. })).count() > 1 => {
                Gap::Line
            }
            Frame::List { .. } => Gap::Blank,
            Frame::Prefix { .. } | Frame::Inert => Gap::Line,
        };
        let is_quote = self.prefix.ends_with("> ");
        self.flush();
        if let Some(Frame::Prefix { outer }) = self.frames.pop() {
            if self.lead.is_some() {
                // An empty item still has its marker.
                self.line("");
            }
            self.prefix.truncate(outer);
            self.shared_prefix = self.shared_prefix.min(outer);
            self.block(if is_quote { Gap::Blank } else { gap });
        } else {
            self.block(gap);
        }
        true
    }

    fn open_prefix(&mut self, first: &str, rest: &str) {
        if self.in_cell {
            self.inline.push_str(if first == "> " { "" } else { first });
            self.push(Frame::Inert);
            return;
        }
        let mut lead = self.lead.take().unwrap_or_else(|| self.prefix.clone());
        lead.push_str(first);
        self.lead = (first != rest).then_some(lead);
        let outer = self.prefix.len();
        self.prefix.push_str(rest);
        self.push(Frame::Prefix { outer });
    }

    fn push(&mut self, frame: Frame) {
        if self.frames.len() + self.tables.len() >= limits::NESTING {
            self.fail(TextError::TooDeep {
                what: "lists, quotes and tables",
                limit: limits::NESTING,
            });
            return;
        }
        self.frames.push(frame);
    }

    // --- lines ------------------------------------------------------------------------------------------------------

    /// Columns that a line has for text here; `None` when lines are not wrapped.
    fn columns(&self) -> Option<usize> {
        let width = self.options.width;
        (width != 0).then(|| {
            width
                .saturating_sub(self.prefix.len())
                .max(limits::TEXT_COLUMNS_MIN.min(width))
        })
    }

    /// Writes the present paragraph.
    fn flush(&mut self) {
        if self.in_cell {
            let kept = self.inline.trim_end_matches(' ').len();
            self.inline.truncate(kept);
            if !self.inline.is_empty() && !self.inline.ends_with('\n') {
                self.inline.push('\n');
            }
            return;
        }
        if let Some(link) = &mut self.link {
            // Its text goes on in the next paragraph: the target is told there.
            link.is_told |= !self.inline.trim().is_empty();
            link.start = 0;
        }
        let inline = std::mem::take(&mut self.inline);
        if self.preformatted {
            let text = inline.trim_end_matches('\n');
            if !text.is_empty() {
                text.split('\n').for_each(|line| self.verbatim(line));
            }
        } else {
            let text = inline.trim_matches([' ', '\n']);
            // Spaces that do not break are often all there is: they hold a place on a screen.
            if !text.trim().is_empty() {
                self.paragraph(text);
            }
        }
        // Its memory is used again.
        self.inline = inline;
        self.inline.clear();
    }

    fn paragraph(&mut self, text: &str) {
        let columns = self.columns();
        let mut longest = 0;
        let underline = match self.heading.take() {
            Some(1) => Some("="),
            Some(2) => Some("-"),
            _ => None,
        };
        wrap(text, columns, |line| {
            if underline.is_some() {
                longest = longest.max(display_width(line));
            }
            self.line(line);
        });
        if let Some(underline) = underline {
            self.line(&underline.repeat(longest.min(limits::WIDTH_MAX)));
        }
    }

    /// Writes one line of text, without white space at its end.
    fn line(&mut self, text: &str) {
        self.start_line(text.len());
        if self.failure.is_some() {
            return;
        }
        if text.contains('\u{a0}') {
            self.out
                .extend(text.chars().map(|c| if c == '\u{a0}' { ' ' } else { c }));
        } else {
            self.out.push_str(text);
        }
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        self.out.push('\n');
    }

    /// Writes one line as it is.
    fn verbatim(&mut self, text: &str) {
        self.start_line(text.len());
        if self.failure.is_some() {
            return;
        }
        self.out.push_str(text);
        if text.is_empty() {
            let kept = self.out.trim_end_matches(' ').len();
            self.out.truncate(kept);
        }
        self.out.push('\n');
    }

    /// Writes what stands before a line of this many bytes.
    fn start_line(&mut self, bytes: usize) {
        let is_apart = self.gap.take() == Some(Gap::Blank) && !self.out.is_empty();
        let shared = if is_apart {
            self.prefix[..self.shared_prefix.min(self.prefix.len())].trim_end()
        } else {
            ""
        };
        let before = self.lead.as_ref().unwrap_or(&self.prefix);
        let ends = 1 + usize::from(is_apart);
        if self.out.len() + shared.len() + before.len() + bytes + ends > limits::OUTPUT_BYTES {
            self.fail(TextError::output());
            return;
        }
        self.out.push_str(shared);
        if is_apart {
            self.out.push('\n');
        }
        self.out.push_str(before);
        self.lead = None;
        self.shared_prefix = self.prefix.len();
    }

    fn fail(&mut self, failure: TextError) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
    }
}

/// Whether a link's target is an address that a reader could follow.
fn is_address(target: &str) -> bool {
    let target = target.trim();
    if target.is_empty() || target.starts_with('#') || target.len() > limits::LINK_BYTES {
        return false;
    }
    let is = |scheme: &str| {
        target
            .get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    !(is("javascript:") || is("vbscript:") || is("data:"))
}
