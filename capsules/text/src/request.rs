//! The two forms of a request.
//!
//! *Raw*: the document as it is, with its media type, whose parameters are the options; answered with `text/plain`. *JSON*: an object
//! with the document and the options; answered with an object. The first is for people and pipes, the second for programs, which
//! get the title and the number of pages, too.

use std::borrow::Cow;

use astrid_sdk::prelude::*;
use astrid_sdk::serde::de::DeserializeOwned;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::encoding::{self, Kind};
use crate::error::TextError;
use crate::limits;
use crate::options::{Links, Options, Tables};

/// Base64 with or without padding at its end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A Markdown document to convert.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct MarkdownDocument {
    /// The document.
    document: String,
    /// Columns a line may have, 20 to 1000; 0 leaves each paragraph on one line.
    #[serde(default)]
    width: u32,
    /// What becomes of links.
    #[serde(default)]
    links: Links,
    /// What becomes of tables.
    #[serde(default)]
    tables: Tables,
}

/// An HTML page to convert.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct HtmlDocument {
    /// The page.
    document: String,
    /// Columns a line may have, 20 to 1000; 0 leaves each paragraph on one line.
    #[serde(default)]
    width: u32,
    /// What becomes of links.
    #[serde(default)]
    links: Links,
    /// What becomes of tables.
    #[serde(default)]
    tables: Tables,
}

/// A PDF file to convert.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct PdfDocument {
    /// The file, in base64.
    document: String,
    /// Columns a line may have, 20 to 1000; 0 leaves lines as they are in the file.
    #[serde(default)]
    width: u32,
}

/// The text of a document. Raw requests are answered with `text` alone, as `text/plain; charset=utf-8`.
#[body]
pub(crate) struct Text {
    /// The text, in UTF-8, without control characters but line feeds and tabs.
    pub(crate) text: String,
    /// What the document says its title is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    /// How many pages it has (PDF).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pages: Option<u32>,
}

/// What the JSON forms have in common.
pub(crate) trait JsonForm: DeserializeOwned {
    /// The document and its options.
    fn into_parts(self) -> Result<(Document, Options), TextError>;
}

macro_rules! text_form {
    ($type:ty) => {
        impl JsonForm for $type {
            fn into_parts(self) -> Result<(Document, Options), TextError> {
                let mut options = Options {
                    links: self.links,
                    tables: self.tables,
                    ..Options::default()
                };
                options.set_width(self.width)?;
                Ok((Document::Text(self.document), options))
            }
        }
    };
}

text_form!(MarkdownDocument);
text_form!(HtmlDocument);

impl JsonForm for PdfDocument {
    fn into_parts(self) -> Result<(Document, Options), TextError> {
        let mut options = Options::default();
        options.set_width(self.width)?;
        // Line breaks are common in base64, and mean nothing.
        let mut document = self.document.into_bytes();
        document.retain(|byte| !byte.is_ascii_whitespace());
        let bytes = BASE64
            .decode(&document)
            .map_err(|error| TextError::Invalid(format!("document: it is not base64: {error}")))?;
        Ok((Document::Bytes { bytes, charset: None }, options))
    }
}

/// What is to be converted.
pub(crate) enum Document {
    /// Characters.
    Text(String),
    /// Bytes, and the charset that their media type names.
    Bytes { bytes: Vec<u8>, charset: Option<String> },
}

/// A request, of either form.
pub(crate) struct Request {
    pub(crate) document: Document,
    pub(crate) options: Options,
    is_json: bool,
}

impl Request {
    /// Reads a request. `media_types` are those of the raw form.
    ///
    /// # Errors
    /// `unsupported` when the content type is none of these, `invalid` for options and fields that are wrong, `text.too-large`.
    pub(crate) fn read<T: JsonForm>(body: Body, media_types: &[&str]) -> Result<Self, Problem> {
        let media_type = body.media_type();
        let is_raw = media_types.iter().any(|known| known.eq_ignore_ascii_case(media_type));
        if !is_raw && (!body.is_json() || body.bytes.is_empty()) {
            let shown = if media_type.is_empty() { "none" } else { media_type };
            return Err(
                Problem::new(codes::UNSUPPORTED, format!("the content type is {shown}")).with_hint(format!(
                    "send the document as {}, or a JSON object as application/json",
                    media_types[0]
                )),
            );
        }
        let (document, options) = if is_raw {
            raw(body)?
        } else {
            body.read::<T>()?.into_parts()?
        };
        let length = match &document {
            Document::Text(text) => text.len(),
            Document::Bytes { bytes, .. } => bytes.len(),
        };
        if length > limits::DOCUMENT_BYTES {
            return Err(TextError::too_large("the document", limits::DOCUMENT_BYTES, "bytes").into());
        }
        Ok(Self {
            document,
            options,
            is_json: !is_raw,
        })
    }

    /// The document as text.
    pub(crate) fn text(&self, kind: Kind) -> Result<Cow<'_, str>, TextError> {
        match &self.document {
            Document::Text(text) => Ok(Cow::Borrowed(text)),
            Document::Bytes { bytes, charset } => encoding::decode(bytes, charset.as_deref(), kind),
        }
    }

    /// The answer, in the form of the request.
    pub(crate) fn reply(&self, text: Text) -> Result<Body, Problem> {
        let body = if self.is_json {
            Body::json(&text)?
        } else {
            Body::new("text/plain; charset=utf-8", text.text)
        };
        // Escapes can make JSON longer than the text in it.
        if body.bytes.len() > limits::OUTPUT_BYTES {
            return Err(TextError::output().into());
        }
        Ok(body)
    }
}

/// The raw form. Parameters that are not options belong to the media type, and are passed over.
fn raw(body: Body) -> Result<(Document, Options), TextError> {
    let mut options = Options::default();
    for name in ["width", "links", "tables"] {
        if let Some(value) = body.parameter(name) {
            options.set(name, &value)?;
        }
    }
    let charset = body.parameter("charset").map(Cow::into_owned);
    Ok((
        Document::Bytes {
            bytes: body.bytes,
            charset,
        },
        options,
    ))
}

impl From<TextError> for Problem {
    fn from(error: TextError) -> Self {
        Self::new(error.code(), error.to_string()).with_hint(error.hint())
    }
}
