//! Looks a PDF file over before it is opened.
//!
//! hayro-syntax reads objects when they are asked for, but unpacks cross-reference and object streams and lists the pages at once,
//! without limits of size, and takes long over deep nesting. So these are found and measured first. Whoever hides them well
//! enough from this meets the kernel's limits instead; nothing else depends on this look.

use hayro_syntax::object::{Dict, FromBytes, Name, Stream};
use memchr::memmem;

use super::stream::{has_predictor, unpack};
use crate::error::TextError;
use crate::limits;

/// What was counted so far.
#[derive(Default)]
struct Counts {
    objects: usize,
    pages: usize,
    /// Bytes of object and cross-reference streams, unpacked.
    unpacked: usize,
    /// Bytes looked at.
    looked_at: usize,
}

impl Counts {
    fn check(&self, length: usize) -> Result<(), TextError> {
        if self.objects > limits::PDF_OBJECTS {
            return Err(TextError::too_large("the file", limits::PDF_OBJECTS, "objects"));
        }
        if self.pages > limits::PDF_PAGES {
            return Err(TextError::too_large("the file", limits::PDF_PAGES, "pages"));
        }
        // Objects do not overlap in a file that was meant to be read.
        if self.looked_at > 2 * length {
            return Err(TextError::Malformed(String::from("its objects lie within one another")));
        }
        Ok(())
    }
}

/// Whether this file can be opened.
///
/// # Errors
/// `text.malformed` when it is no PDF, `text.too-large` or `text.too-deep` when opening it would take too much.
pub(super) fn check(data: &[u8]) -> Result<(), TextError> {
    if memmem::find(&data[..data.len().min(1024)], b"%PDF-").is_none() {
        return Err(TextError::Malformed(String::from("there is no %PDF- in its first KiB")));
    }
    // Object streams of encrypted files are encrypted as well, and can only be measured unpacked.
    let is_encrypted = memmem::find(data, b"/Encrypt").is_some();
    let mut counts = Counts::default();
    for at in memmem::find_iter(data, b"obj") {
        if !data[..at]
            .last()
            .is_some_and(|byte| byte.is_ascii_whitespace() || byte.is_ascii_digit())
        {
            continue;
        }
        counts.objects += 1;
        object(&data[at + 3..], is_encrypted, &mut counts)?;
        counts.check(data.len())?;
    }
    check_kids(data)
}

/// Looks at one object: what follows its `obj`.
fn object(rest: &[u8], is_encrypted: bool, counts: &mut Counts) -> Result<(), TextError> {
    let length = scan(rest)?;
    counts.looked_at += length;
    let Some(dict) = Dict::from_bytes(rest[..length].trim_ascii_start()) else {
        return Ok(());
    };
    let kind = dict.get::<Name<'_>>("Type");
    let kind = kind.as_deref().unwrap_or_default();
    if kind == b"Page" {
        counts.pages += 1;
    }
    let is_table = kind == b"XRef" || dict.contains_key("W");
    let is_container = kind == b"ObjStm" || (dict.contains_key("N") && dict.contains_key("First"));
    if rest[length..].starts_with(b"stream") && (is_table || is_container) {
        has_predictor(&dict)?;
        if is_table || !is_encrypted {
            measure(rest, is_table, counts)?;
        }
    }
    Ok(())
}

/// How long an object is: up to its `endobj` or `stream`, which do not count as such in strings and comments.
///
/// # Errors
/// `text.too-deep` when its arrays and dictionaries are nested too deeply.
fn scan(object: &[u8]) -> Result<usize, TextError> {
    let mut at = 0;
    let mut depth = 0_usize;
    while let Some(byte) = object.get(at) {
        match byte {
            b'(' => at = string_end(object, at),
            b'%' => at += memchr::memchr2(b'\n', b'\r', &object[at..]).unwrap_or(object.len() - at),
            b'[' => depth += 1,
            b'<' if object.get(at + 1) == Some(&b'<') => {
                depth += 1;
                at += 1;
            }
            b']' => depth = depth.saturating_sub(1),
            b'>' if object.get(at + 1) == Some(&b'>') => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'e' if object[at..].starts_with(b"endobj") => break,
            b's' if object[at..].starts_with(b"stream") => break,
            _ => {}
        }
        if depth > limits::PDF_NESTING {
            return Err(TextError::TooDeep {
                what: "arrays and dictionaries",
                limit: limits::PDF_NESTING,
            });
        }
        at += 1;
    }
    Ok(at.min(object.len()))
}

/// Where the string that starts here ends: parentheses in it are balanced or escaped.
fn string_end(object: &[u8], start: usize) -> usize {
    let mut at = start;
    let mut open = 0_usize;
    while let Some(byte) = object.get(at) {
        match byte {
            b'\\' => at += 1,
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
        at += 1;
    }
    object.len()
}

/// Unpacks a cross-reference or object stream to see how large it is.
fn measure(rest: &[u8], is_table: bool, counts: &mut Counts) -> Result<(), TextError> {
    let Some(stream) = Stream::from_bytes(rest.trim_ascii_start()) else {
        // Its end was looked for everywhere.
        counts.looked_at += rest.len();
        return Ok(());
    };
    counts.looked_at += stream.raw_data().len();
    let limit = limits::PDF_OBJECT_STREAM_BYTES - counts.unpacked;
    let unpacked = match unpack(&stream, limit, "the list of objects") {
        Ok(unpacked) => unpacked,
        Err(TextError::TooLarge { what, unit, .. }) => {
            return Err(TextError::too_large(what, limits::PDF_OBJECT_STREAM_BYTES, unit));
        }
        // What cannot be unpacked does not take memory, either.
        Err(_) => return Ok(()),
    };
    counts.unpacked += unpacked.len();
    if is_table {
        let widths = stream.dict().get::<[u8; 3]>("W").unwrap_or_default();
        let entry: usize = widths.iter().map(|width| usize::from(*width)).sum();
        counts.objects += unpacked.len() / entry.max(1);
        return Ok(());
    }
    counts.objects += stream
        .dict()
        .get::<u32>("N")
        .map_or(0, |n| (n as usize).min(unpacked.len() / 4));
    counts.pages += memmem::find_iter(&unpacked, b"/Page")
        .filter(|at| unpacked.get(at + 5).is_none_or(|byte| !byte.is_ascii_alphabetic()))
        .count();
    let mut at = 0;
    while at < unpacked.len() {
        at += scan(&unpacked[at..])? + 1;
    }
    check_kids(&unpacked)
}

/// Page trees refer to their pages. One that holds them itself could hold millions in no space.
fn check_kids(data: &[u8]) -> Result<(), TextError> {
    for at in memmem::find_iter(data, b"/Kids") {
        let Some(kids) = data[at + 5..].trim_ascii_start().strip_prefix(b"[") else {
            continue;
        };
        let end = memchr::memchr3(b']', b'<', b'/', kids);
        if end.is_some_and(|end| kids[end] == b'<') {
            return Err(TextError::Malformed(String::from(
                "its page tree is not made of references",
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn objects_end_where_they_end() {
        assert_eq!(scan(b"<</A (endobj \\) (stream))>> endobj").unwrap(), 28);
        assert_eq!(scan(b"[1 % endobj\n2]endobj").unwrap(), 14);
        assert_eq!(scan(b"(open").unwrap(), 5);
        assert_eq!(scan(b"(open\\").unwrap(), 6);
        assert_eq!(scan(b"<</Length 3>>stream\nabc").unwrap(), 13);
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(scan(nested(limits::PDF_NESTING).as_bytes()).is_ok());
        assert_eq!(
            scan(nested(limits::PDF_NESTING + 1).as_bytes()).unwrap_err().code(),
            "text.too-deep"
        );
        assert_eq!(scan("<</A".repeat(200).as_bytes()).unwrap_err().code(), "text.too-deep");
    }
}
