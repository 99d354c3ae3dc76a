//! PDF to text.
//!
//! hayro-syntax reads the file: objects, cross-references (repairing broken ones), encryption with an empty password,
//! content streams. What the text is, where it stands and what it may cost is decided here. Nothing is drawn, and neither images nor
//! font programs are decoded, which is where most of a PDF reader's attack surface is.
//!
//! Lines are kept as they are in the document; a width only breaks those that are longer. Weak: text that is written from
//! right to left comes out in the order of the file, and scanned pages have no text.

mod content;
mod font;
mod glyphs;
mod guard;
mod lines;
mod stream;

use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};

use crate::error::TextError;
use crate::layout;
use crate::limits;
use crate::options::Options;
use content::{Interpreter, Session};

/// A converted PDF file.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// The text of all pages, an empty line between two.
    pub text: String,
    /// What the file says its title is.
    pub title: Option<String>,
    /// How many pages there are.
    pub pages: usize,
}

/// Converts a PDF file.
///
/// # Errors
/// `text.malformed`, `text.encrypted`, `text.unsupported`, and `text.too-large` or `text.too-deep` past the limits.
pub fn convert(data: Vec<u8>, options: Options) -> Result<Document, TextError> {
    guard::check(&data)?;
    let pdf = Pdf::new(data).map_err(|error| match error {
        LoadPdfError::Decryption(DecryptionError::PasswordProtected) => TextError::Encrypted,
        LoadPdfError::Decryption(DecryptionError::UnsupportedAlgorithm) => {
            TextError::Unsupported(String::from("the document is encrypted in an unknown way"))
        }
        LoadPdfError::Decryption(_) => TextError::Malformed(String::from("its encryption is broken")),
        LoadPdfError::Invalid => TextError::Malformed(String::from("no page can be found")),
    })?;
    let pages = pdf.pages();
    if pages.is_empty() {
        return Err(TextError::Malformed(String::from("it has no pages")));
    }
    if pages.len() > limits::PDF_PAGES {
        return Err(TextError::too_large("the file", limits::PDF_PAGES, "pages"));
    }
    let mut session = Session::new();
    let mut text = String::new();
    for (index, page) in pages.iter().enumerate() {
        let interpreter = Interpreter::new(&mut session, format!("page {}", index + 1));
        let page = interpreter.page(page.raw(), page.resources())?;
        add_page(&mut text, &page, options)?;
    }
    Ok(Document {
        title: title(&pdf),
        pages: pages.len(),
        text,
    })
}

fn add_page(text: &mut String, page: &str, options: Options) -> Result<(), TextError> {
    if page.is_empty() {
        return Ok(());
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let columns = (options.width != 0).then_some(options.width);
    layout::wrap(page.trim_end_matches('\n'), columns, |line| {
        if text.len() <= limits::OUTPUT_BYTES {
            text.push_str(line);
            text.push('\n');
        }
    });
    if text.len() > limits::OUTPUT_BYTES {
        return Err(TextError::output());
    }
    Ok(())
}

/// The title in the document information: UTF-16 or UTF-8 when marked so, else close to Latin-1.
fn title(pdf: &Pdf) -> Option<String> {
    let bytes = pdf.metadata().title.as_deref()?;
    let bytes = bytes.get(..limits::TITLE_BYTES).unwrap_or(bytes);
    let encoding = encoding_rs::Encoding::for_bom(bytes).map_or(encoding_rs::WINDOWS_1252, |(encoding, _)| encoding);
    let (title, _, _) = encoding.decode(bytes);
    let title: String = title.chars().filter(|c| !c.is_control()).collect();
    Some(title.trim().to_owned()).filter(|title| !title.is_empty())
}
