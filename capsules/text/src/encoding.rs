//! From bytes to text.
//!
//! A byte order mark counts most, then the `charset` of the media type, then (HTML) what the document says of itself.
//! Without any of them text is UTF-8; HTML that is not is taken for windows-1252, as browsers do.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::error::TextError;
use crate::limits;

/// What is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTML: may name its encoding; wrong bytes become U+FFFD.
    Html,
    /// Other text: without a `charset`, wrong bytes are an error.
    Plain,
}

/// The text of a document.
///
/// # Errors
/// `text.unsupported` when the charset is not known, `text.malformed` when plain text without charset is not UTF-8.
pub fn decode<'b>(bytes: &'b [u8], charset: Option<&str>, kind: Kind) -> Result<Cow<'b, str>, TextError> {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return Ok(encoding.decode_without_bom_handling(&bytes[length..]).0);
    }
    if let Some(label) = charset {
        let encoding = Encoding::for_label(label.as_bytes())
            .ok_or_else(|| TextError::Unsupported(format!("the charset {label:?} is not known")))?;
        return Ok(encoding.decode_without_bom_handling(bytes).0);
    }
    if kind == Kind::Html
        && let Some(encoding) = declared(bytes)
    {
        return Ok(encoding.decode_without_bom_handling(bytes).0);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if kind == Kind::Html => Ok(WINDOWS_1252.decode_without_bom_handling(bytes).0),
        Err(error) => Err(TextError::Malformed(format!(
            "byte {} is not UTF-8",
            error.valid_up_to()
        ))),
    }
}

/// The encoding that a `meta` element at the start of an HTML document declares.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.get(..limits::META_BYTES).unwrap_or(bytes).to_ascii_lowercase();
    let mut rest = head.as_slice();
    while let Some(at) = find(rest, b"<meta") {
        let element = &rest[at..];
        let element = &element[..find(element, b">").unwrap_or(element.len())];
        if let Some(encoding) = find(element, b"charset").and_then(|at| label(&element[at + b"charset".len()..])) {
            // A document in UTF-16 could not have been read up to here.
            return Some(if encoding == UTF_16LE || encoding == UTF_16BE {
                UTF_8
            } else {
                encoding
            });
        }
        rest = &rest[at + 1..];
    }
    None
}

/// The encoding named after `charset`: `=`, perhaps a quote, a label.
fn label(rest: &[u8]) -> Option<&'static Encoding> {
    let rest = rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let rest = rest
        .strip_prefix(b"\"")
        .or_else(|| rest.strip_prefix(b"'"))
        .unwrap_or(rest);
    let end = rest
        .iter()
        .position(|byte| b"\"' \t\r\n;/>".contains(byte))
        .unwrap_or(rest.len());
    Encoding::for_label(&rest[..end])
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn utf8_is_borrowed() {
        assert!(matches!(
            decode("grün".as_bytes(), None, Kind::Plain),
            Ok(Cow::Borrowed("grün"))
        ));
    }

    #[test]
    fn byte_order_marks_win() {
        assert_eq!(decode(b"\xef\xbb\xbfa", Some("latin1"), Kind::Plain).unwrap(), "a");
        assert_eq!(decode(b"\xff\xfea\0\xfc\0", None, Kind::Plain).unwrap(), "aü");
        assert_eq!(decode(b"\xfe\xff\0a\0\xfc", None, Kind::Html).unwrap(), "aü");
    }

    #[test]
    fn charset_then_meta_then_guess() {
        assert_eq!(decode(b"gr\xfcn", Some("iso-8859-1"), Kind::Plain).unwrap(), "grün");
        assert_eq!(
            decode(b"<META charset='koi8-r'>\xc1", None, Kind::Html).unwrap(),
            "<META charset='koi8-r'>а"
        );
        let old = b"<meta http-equiv=Content-Type content=\"text/html; charset=Shift_JIS\">\x93\xfa";
        assert!(decode(old, None, Kind::Html).unwrap().ends_with('日'));
        assert!(decode(old, Some("windows-1252"), Kind::Html).unwrap().ends_with('ú'));
        assert_eq!(decode(b"gr\xfcn", None, Kind::Html).unwrap(), "grün");
        assert_eq!(
            decode(b"<meta charset=utf-16>\xc3\xbc", None, Kind::Html).unwrap(),
            "<meta charset=utf-16>ü"
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_named() {
        assert_eq!(
            decode(b"abc\xff", None, Kind::Plain),
            Err(TextError::Malformed(String::from("byte 3 is not UTF-8")))
        );
        assert_eq!(
            decode(b"", Some("utf-9"), Kind::Html).unwrap_err().code(),
            "text.unsupported"
        );
    }
}
