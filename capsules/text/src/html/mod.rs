//! HTML to text.
//!
//! A tokenizer (html5gum, which implements the standard's state machine) and a stack of the few elements that matter to text;
//! no tree is built. So a page takes time linear in its size, however its elements are nested, and memory for the present
//! paragraph only. What a tree builder would do to misnested elements is approximated: end tags close up to the innermost
//! element of their name, within the present table cell.
//!
//! Deliberately absent: styles (but `hidden` and `display:none`), scripts, and everything that would need another file.

mod element;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};

use crate::error::TextError;
use crate::layout::{Gap, Writer};
use crate::limits;
use crate::options::Options;
use element::{Element, element};

/// A converted page.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Its text.
    pub text: String,
    /// What its `title` element says.
    pub title: Option<String>,
}

/// Converts an HTML document.
///
/// # Errors
/// `text.too-large` and `text.too-deep` for documents past the limits.
pub fn convert(source: &str, options: Options) -> Result<Page, TextError> {
    let mut writer = Writer::new(options, source.len());
    let title = run(source, &mut writer);
    Ok(Page {
        text: writer.finish()?,
        title,
    })
}

/// Converts a piece of HTML within another document. Elements that are left open end with it.
pub(crate) fn fragment(source: &str, writer: &mut Writer) {
    run(source, writer);
}

/// One tag within a line of another document: only what stays within a line has an effect.
pub(crate) fn inline_tag(tag: &str, writer: &mut Writer) {
    let Some(inner) = tag.strip_prefix('<') else { return };
    let inner = inner.strip_suffix('>').unwrap_or(inner);
    let name = inner
        .split(|c: char| c.is_ascii_whitespace() || c == '/')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let is_end = inner.starts_with('/');
    match element(name.to_ascii_lowercase().as_bytes()) {
        Element::Break => writer.line_break(),
        Element::Link if is_end => writer.link_end(),
        Element::Link | Element::Image => fragment(tag, writer),
        _ => {}
    }
}

fn run(source: &str, writer: &mut Writer) -> Option<String> {
    let mut reader = Reader::new(writer);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| reader.event(event));
    emitter.naively_switch_states(true);
    // The tokenizer pauses at the first token it is given: the reader gives one when it met a limit, and none before.
    let _ = Tokenizer::new_with_emitter(source, emitter).next();
    reader.end()
}

/// An element that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Item,
    Definitions,
    Definition,
    Quote,
    Table,
    Cell,
}

/// Attributes that matter, of the tag that is being read.
#[derive(Debug, Default)]
struct Attributes {
    /// `href` or `src`.
    address: String,
    alt: Option<String>,
    number: Option<u64>,
    is_hidden: bool,
}

/// Which attribute's value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attribute {
    Href,
    Alt,
    Number,
    AriaHidden,
    Style,
    Other,
}

/// An element whose content is left out.
#[derive(Debug)]
struct Skipped {
    name: Vec<u8>,
    depth: u32,
}

/// Reads tokens, and tells a writer what they mean.
struct Reader<'w> {
    writer: &'w mut Writer,
    open: Vec<Open>,
    /// The tag that is being read.
    name: Vec<u8>,
    attributes: Attributes,
    attribute: Attribute,
    skipped: Option<Skipped>,
    title: Option<String>,
    in_title: bool,
    in_preformatted: bool,
    /// Preformatted text has just started: a line feed here is not a part of it.
    at_start: bool,
}

/// A limit was met.
struct Stop;

impl<'w> Reader<'w> {
    fn new(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            open: Vec::new(),
            name: Vec::new(),
            attributes: Attributes::default(),
            attribute: Attribute::Other,
            skipped: None,
            title: None,
            in_title: false,
            in_preformatted: false,
            at_start: false,
        }
    }

    fn end(&mut self) -> Option<String> {
        self.close_preformatted();
        self.writer.link_end();
        while let Some(open) = self.open.pop() {
            self.close(open);
        }
        self.writer.block(Gap::Line);
        self.title
            .take()
            .map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|t| !t.is_empty())
    }

    fn event(&mut self, event: CallbackEvent<'_>) -> Option<Stop> {
        match event {
            CallbackEvent::OpenStartTag { name } => {
                self.name.clear();
                self.name.extend_from_slice(name);
                self.attributes = Attributes::default();
                self.attribute = Attribute::Other;
            }
            CallbackEvent::AttributeName { name } => {
                self.attribute = match name {
                    b"href" => Attribute::Href,
                    b"alt" => Attribute::Alt,
                    b"start" | b"value" => Attribute::Number,
                    b"aria-hidden" => Attribute::AriaHidden,
                    b"style" => Attribute::Style,
                    b"hidden" => {
                        self.attributes.is_hidden = true;
                        Attribute::Other
                    }
                    _ => Attribute::Other,
                };
            }
            CallbackEvent::AttributeValue { value } => self.attribute_value(value),
            CallbackEvent::CloseStartTag { self_closing } => self.start_tag(self_closing),
            CallbackEvent::EndTag { name } => self.end_tag(name),
            CallbackEvent::String { value } => self.text(value),
            CallbackEvent::Comment { .. } | CallbackEvent::Doctype { .. } | CallbackEvent::Error(_) => {}
        }
        self.writer.is_done_for().then_some(Stop)
    }

    // --- tokens -----------------------------------------------------------------------------------------------------

    fn text(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        if self.in_title {
            let title = self.title.get_or_insert_default();
            let room = limits::TITLE_BYTES.saturating_sub(title.len());
            title.push_str(&text[..text.floor_char_boundary(room)]);
        } else if self.skipped.is_none() {
            let is_start = std::mem::take(&mut self.at_start);
            self.writer.text(if is_start {
                text.strip_prefix('\n').unwrap_or(&text)
            } else {
                &text
            });
        }
    }

    fn attribute_value(&mut self, value: &[u8]) {
        match self.attribute {
            Attribute::Href => {
                if value.len() <= limits::LINK_BYTES {
                    self.attributes.address = String::from_utf8_lossy(value).into_owned();
                }
            }
            Attribute::Alt => self.attributes.alt = Some(String::from_utf8_lossy(value).into_owned()),
            Attribute::Number => {
                self.attributes.number = std::str::from_utf8(value)
                    .ok()
                    .and_then(|value| value.trim().parse().ok());
            }
            Attribute::AriaHidden => self.attributes.is_hidden |= value.eq_ignore_ascii_case(b"true"),
            Attribute::Style => {
                let style: Vec<u8> = value
                    .iter()
                    .filter(|byte| !byte.is_ascii_whitespace())
                    .map(u8::to_ascii_lowercase)
                    .take(limits::LINK_BYTES)
                    .collect();
                self.attributes.is_hidden |= style.windows(12).any(|window| window == b"display:none");
            }
            Attribute::Other => {}
        }
    }

    fn start_tag(&mut self, self_closing: bool) {
        let element = element(&self.name);
        if let Some(skipped) = &mut self.skipped {
            if skipped.name == self.name && !self_closing {
                skipped.depth += 1;
            }
            return;
        }
        let is_skipped = element == Element::Skipped || (self.attributes.is_hidden && element.has_end());
        if is_skipped {
            if !self_closing || element != Element::Skipped {
                self.skipped = Some(Skipped {
                    name: self.name.clone(),
                    depth: 1,
                });
            }
            return;
        }
        self.at_start = false;
        match element {
            Element::Inline | Element::Skipped => {}
            Element::Title => self.in_title = self.title.is_none(),
            Element::Block => self.writer.block(Gap::Line),
            Element::Paragraph => self.writer.block(Gap::Blank),
            Element::Heading(level) => self.writer.heading_start(level),
            Element::Break => self.writer.line_break(),
            Element::Rule => self.writer.rule(),
            Element::Quotation => self.writer.text("“"),
            Element::Preformatted => {
                self.close_preformatted();
                self.writer.preformatted_start();
                self.in_preformatted = true;
                self.at_start = true;
            }
            Element::Link => {
                let address = std::mem::take(&mut self.attributes.address);
                self.writer.link_start(&address);
            }
            Element::Image => {
                if let Some(alt) = self.attributes.alt.take() {
                    self.writer.image(&alt);
                }
            }
            Element::Quote => {
                self.writer.quote();
                self.open.push(Open::Quote);
            }
            Element::List | Element::NumberedList => {
                let first = self.attributes.number.unwrap_or(1);
                self.writer.list((element == Element::NumberedList).then_some(first));
                self.open.push(Open::List);
            }
            Element::Item => {
                self.close_either(Open::Item, Open::List);
                if self.scope().all(|open| open != Open::List) {
                    self.writer.list(None);
                    self.open.push(Open::List);
                }
                self.writer.item(self.attributes.number);
                self.open.push(Open::Item);
            }
            Element::Definitions => {
                self.writer.block(Gap::Blank);
                self.open.push(Open::Definitions);
            }
            Element::Term => {
                self.close_either(Open::Definition, Open::Definitions);
                self.writer.block(Gap::Line);
            }
            Element::Definition => {
                self.close_either(Open::Definition, Open::Definitions);
                self.writer.indent();
                self.open.push(Open::Definition);
            }
            Element::Table => {
                self.writer.table_start();
                self.open.push(Open::Table);
            }
            Element::Row => {
                if self.close_cell() {
                    self.writer.row_start();
                }
            }
            Element::Cell | Element::HeaderCell => {
                if self.close_cell() {
                    self.writer.cell_start(element == Element::HeaderCell);
                    self.open.push(Open::Cell);
                } else {
                    self.writer.block(Gap::Line);
                }
            }
        }
    }

    fn end_tag(&mut self, name: &[u8]) {
        if self.in_title && name == b"title" {
            self.in_title = false;
        }
        if let Some(skipped) = &mut self.skipped {
            if skipped.name == name {
                skipped.depth -= 1;
                if skipped.depth == 0 {
                    self.skipped = None;
                }
            }
            return;
        }
        self.at_start = false;
        match element(name) {
            Element::Block => self.writer.block(Gap::Line),
            Element::Paragraph => self.writer.block(Gap::Blank),
            Element::Heading(_) => self.writer.heading_end(),
            Element::Break => self.writer.line_break(),
            Element::Quotation => self.writer.text("”"),
            Element::Preformatted => self.close_preformatted(),
            Element::Link => self.writer.link_end(),
            Element::Quote => self.close_innermost(Open::Quote),
            Element::List | Element::NumberedList => self.close_innermost(Open::List),
            Element::Item => self.close_either(Open::Item, Open::List),
            Element::Definitions => self.close_innermost(Open::Definitions),
            Element::Definition => self.close_either(Open::Definition, Open::Definitions),
            Element::Cell | Element::HeaderCell => {
                self.close_cell();
            }
            Element::Row => {
                self.close_cell();
            }
            Element::Table => {
                self.close_cell();
                self.close_innermost(Open::Table);
            }
            _ => {}
        }
    }

    // --- the stack --------------------------------------------------------------------------------------------------

    /// The elements that are open within the present table cell, innermost first.
    fn scope(&self) -> impl Iterator<Item = Open> {
        self.open.iter().rev().copied().take_while(|open| *open != Open::Cell)
    }

    /// Closes everything up to and including the innermost element of this kind, if there is one in scope.
    fn close_innermost(&mut self, kind: Open) {
        let found = self.scope().position(|open| open == kind);
        if let Some(count) = found {
            for open in self.open.split_off(self.open.len() - count - 1).into_iter().rev() {
                self.close(open);
            }
        }
    }

    /// Closes the element of this kind that is open in the innermost container of that kind.
    fn close_either(&mut self, kind: Open, container: Open) {
        if self.scope().find(|open| *open == kind || *open == container) == Some(kind) {
            self.close_innermost(kind);
        }
    }

    /// Closes the cell that is open in the innermost table, with all in it, so that the table is what is open. False when
    /// there is no table.
    fn close_cell(&mut self) -> bool {
        let Some(table) = self.open.iter().rposition(|open| *open == Open::Table) else {
            return false;
        };
        for open in self.open.split_off(table + 1).into_iter().rev() {
            self.close(open);
        }
        true
    }

    fn close(&mut self, open: Open) {
        match open {
            Open::List | Open::Item | Open::Definition | Open::Quote => {
                self.writer.close();
            }
            Open::Definitions => self.writer.block(Gap::Blank),
            Open::Table => self.writer.table_end(),
            Open::Cell => self.writer.cell_end(),
        }
    }

    fn close_preformatted(&mut self) {
        if std::mem::take(&mut self.in_preformatted) {
            self.writer.preformatted_end();
        }
    }
}
