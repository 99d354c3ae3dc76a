//! The capsule `text`: Markdown, HTML and PDF documents to plain text (interface `text@1`).
//!
//! Reading order: `request` (the two forms of a request), then [`layout`], the one place that knows what plain text looks like,
//! and what feeds it: [`markdown`] and [`html`]; [`pdf`] stands for itself. [`limits`] says what a document may cost and
//! [`error`] how it is refused. All of it is plain Rust that runs natively; only this file knows that it is a capsule.
//!
//! Documents come from anywhere, so every parser here is chosen for what it does to hostile ones: none builds a tree by recursion, and
//! every unpacking, nesting and count has a limit below those of the manifest. What still slips through is ended by the kernel.
//!
//! Deliberately absent: state, and everything that would need another file, such as images, styles or fonts.

pub mod encoding;
pub mod error;
pub mod html;
pub mod layout;
pub mod limits;
pub mod markdown;
pub mod options;
pub mod pdf;
mod request;

use astrid_sdk::prelude::*;

use encoding::Kind;
use request::{Document, HtmlDocument, MarkdownDocument, PdfDocument, Request, Text};

#[derive(Default)]
struct TextCapsule;

#[capsule]
impl TextCapsule {
    /// Converts a Markdown document (CommonMark, with tables, task lists and footnotes) to plain text. Options are parameters of
    /// the content type (`text/markdown; width=72; links=footnote`), or fields of the JSON form.
    #[on(
        "tool.v1.text.markdown",
        accepts("text/markdown", "text/x-markdown", "text/plain", "application/json"),
        request = MarkdownDocument,
        reply = Text
    )]
    fn markdown(&self, body: Body) -> Result<Body, Problem> {
        let request = Request::read::<MarkdownDocument>(body, &["text/markdown", "text/x-markdown", "text/plain"])?;
        let source = request.text(Kind::Plain)?;
        request.reply(Text {
            text: markdown::convert(&source, request.options)?,
            title: None,
            pages: None,
        })
    }

    /// Converts an HTML page to plain text. Options are parameters of the content type
    /// (`text/html; width=72; links=footnote`), or fields of the JSON form.
    #[on(
        "tool.v1.text.html",
        accepts("text/html", "application/xhtml+xml", "application/json"),
        request = HtmlDocument,
        reply = Text
    )]
    fn html(&self, body: Body) -> Result<Body, Problem> {
        let request = Request::read::<HtmlDocument>(body, &["text/html", "application/xhtml+xml"])?;
        let source = request.text(Kind::Html)?;
        let page = html::convert(&source, request.options)?;
        request.reply(Text {
            text: page.text,
            title: page.title,
            pages: None,
        })
    }

    /// Converts the text of a PDF file to plain text, line by line. The width is a parameter of the content type
    /// (`application/pdf; width=72`), or a field of the JSON form, whose document is base64.
    #[on(
        "tool.v1.text.pdf",
        accepts("application/pdf", "application/x-pdf", "application/json"),
        request = PdfDocument,
        reply = Text
    )]
    fn pdf(&self, body: Body) -> Result<Body, Problem> {
        let mut request = Request::read::<PdfDocument>(body, &["application/pdf", "application/x-pdf"])?;
        let Document::Bytes { bytes, .. } = std::mem::replace(&mut request.document, Document::Text(String::new()))
        else {
            return Err(Problem::new(codes::CAPSULE_FAILED, "a PDF file that is text"));
        };
        let pdf = pdf::convert(bytes, request.options)?;
        request.reply(Text {
            text: pdf.text,
            title: pdf.title,
            pages: u32::try_from(pdf.pages).ok(),
        })
    }
}

#[cfg(test)]
mod tests;
