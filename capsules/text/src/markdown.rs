//! Markdown (CommonMark with tables, task lists, strikethrough and footnotes) to text.
//!
//! pulldown-cmark parses without recursion, in one pass for blocks and one for each paragraph; what it keeps is a node for each
//! mark, which is why marks are counted first. Raw HTML in Markdown goes through [`crate::html`].

use pulldown_cmark::{Event, Options as Extensions, Parser, Tag, TagEnd};

use crate::error::TextError;
use crate::html;
use crate::layout::{Gap, Writer};
use crate::limits;
use crate::options::Options;

/// Converts a Markdown document.
///
/// # Errors
/// `text.too-large` and `text.too-deep` for documents past the limits.
pub fn convert(source: &str, options: Options) -> Result<String, TextError> {
    check(source)?;
    let extensions = Extensions::ENABLE_TABLES
        | Extensions::ENABLE_TASKLISTS
        | Extensions::ENABLE_STRIKETHROUGH
        | Extensions::ENABLE_FOOTNOTES
        | Extensions::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut renderer = Renderer {
        writer: Writer::new(options, source.len()),
        html: None,
        image: None,
        is_metadata: false,
        in_head: false,
    };
    for event in Parser::new_ext(source, extensions) {
        renderer.event(event);
        if renderer.writer.is_done_for() {
            break;
        }
    }
    renderer.writer.finish()
}

/// Counts what the parser would keep, before it does.
fn check(source: &str) -> Result<(), TextError> {
    let mut nodes = 0;
    for line in source.as_bytes().split(|byte| *byte == b'\n') {
        nodes += 2 + line.iter().map(|byte| NODES[usize::from(*byte)]).sum::<usize>();
        let containers = line
            .iter()
            .take_while(|byte| b" \t>-+*0123456789.)".contains(byte))
            .filter(|byte| b">-+*.)".contains(byte))
            .count();
        if containers > limits::MARKDOWN_LINE_CONTAINERS && !is_break(line) {
            return Err(TextError::TooDeep {
                what: "lists and quotes in one line",
                limit: limits::MARKDOWN_LINE_CONTAINERS,
            });
        }
    }
    if nodes > limits::MARKDOWN_NODES {
        return Err(TextError::too_large(
            "the number of marks and lines",
            limits::MARKDOWN_NODES,
            "of them",
        ));
    }
    Ok(())
}

/// Whether this line is a thematic break, such as `* * *`, rather than lists in lists.
fn is_break(line: &[u8]) -> bool {
    line.first()
        .is_some_and(|mark| *mark != b'>' && line.iter().all(|byte| byte == mark || byte.is_ascii_whitespace()))
}

/// How many nodes a byte can become, with what the parser remembers of it: marks that pair up cost twice.
const NODES: [usize; 256] = {
    let mut nodes = [0; 256];
    let mut index = 0;
    let (single, paired) = (b"<>&\\!|\"'", b"*_~[]");
    while index < single.len() {
        nodes[single[index] as usize] = 1;
        index += 1;
    }
    index = 0;
    while index < paired.len() {
        nodes[paired[index] as usize] = 2;
        index += 1;
    }
    nodes[b'`' as usize] = 3;
    nodes
};

struct Renderer {
    writer: Writer,
    /// The HTML block that is being collected.
    html: Option<String>,
    /// The description of the image that is being collected.
    image: Option<String>,
    is_metadata: bool,
    in_head: bool,
}

impl Renderer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Code(text) => self.text(&text),
            Event::Html(text) => match &mut self.html {
                Some(html) => html.push_str(&text),
                None => html::fragment(&text, &mut self.writer),
            },
            Event::InlineHtml(tag) => html::inline_tag(&tag, &mut self.writer),
            Event::SoftBreak => self.text(" "),
            Event::HardBreak => self.writer.line_break(),
            Event::Rule => self.writer.rule(),
            Event::FootnoteReference(name) => self.text(&format!("[^{name}]")),
            Event::TaskListMarker(is_done) => self.text(if is_done { "[x] " } else { "[ ] " }),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
        }
    }

    fn text(&mut self, text: &str) {
        match &mut self.image {
            _ if self.is_metadata => {}
            Some(description) => description.push_str(text),
            None => self.writer.text(text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.writer.block(Gap::Blank),
            Tag::Heading { level, .. } => self.writer.heading_start(level as u8),
            Tag::BlockQuote(_) => self.writer.quote(),
            Tag::CodeBlock(_) => self.writer.preformatted_start(),
            Tag::HtmlBlock => self.html = Some(String::new()),
            Tag::List(first) => self.writer.list(first),
            Tag::Item => self.writer.item(None),
            Tag::FootnoteDefinition(name) => self.writer.labelled(&format!("[^{name}]: ")),
            Tag::Table(_) => self.writer.table_start(),
            Tag::TableHead => {
                self.writer.row_start();
                self.in_head = true;
            }
            Tag::TableRow => self.writer.row_start(),
            Tag::TableCell => self.writer.cell_start(self.in_head),
            Tag::Link { dest_url, .. } => self.writer.link_start(&dest_url),
            Tag::Image { .. } => self.image = Some(self.image.take().unwrap_or_default()),
            Tag::MetadataBlock(_) => self.is_metadata = true,
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.writer.block(Gap::Blank),
            TagEnd::Heading(_) => self.writer.heading_end(),
            TagEnd::CodeBlock => self.writer.preformatted_end(),
            TagEnd::HtmlBlock => {
                if let Some(html) = self.html.take() {
                    html::fragment(&html, &mut self.writer);
                }
            }
            TagEnd::BlockQuote(_) | TagEnd::List(_) | TagEnd::Item | TagEnd::FootnoteDefinition => {
                self.writer.close();
            }
            TagEnd::Table => self.writer.table_end(),
            TagEnd::TableHead => {
                self.writer.cell_end();
                self.in_head = false;
            }
            TagEnd::TableRow | TagEnd::TableCell => self.writer.cell_end(),
            TagEnd::Link => self.writer.link_end(),
            TagEnd::Image => {
                if let Some(description) = self.image.take() {
                    self.writer.image(&description);
                }
            }
            TagEnd::MetadataBlock(_) => self.is_metadata = false,
            _ => {}
        }
    }
}
