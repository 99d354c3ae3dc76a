//! Bytes of a file to text and back, without loss: UTF-8 with and without a byte order mark, UTF-16 with one.
//!
//! Deliberately absent: guessing. What has no mark is UTF-8 or no text, because an edit must be able to write back what it read.

use astrid_sdk::body;

use crate::limits::BINARY_PROBE_BYTES;

const UTF8_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const UTF16_LE_MARK: [u8; 2] = [0xff, 0xfe];
const UTF16_BE_MARK: [u8; 2] = [0xfe, 0xff];

/// How a text is kept in a file.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// UTF-8.
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-8 after a byte order mark.
    #[serde(rename = "utf-8-bom")]
    Utf8Bom,
    /// UTF-16 in little endian order, after a byte order mark.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16 in big endian order, after a byte order mark.
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

impl Encoding {
    /// What a file that begins so is, and how many of these bytes are the mark.
    pub fn of(bytes: &[u8]) -> (Self, usize) {
        match bytes {
            _ if bytes.starts_with(&UTF8_MARK) => (Self::Utf8Bom, UTF8_MARK.len()),
            _ if bytes.starts_with(&UTF16_LE_MARK) => (Self::Utf16Le, UTF16_LE_MARK.len()),
            _ if bytes.starts_with(&UTF16_BE_MARK) => (Self::Utf16Be, UTF16_BE_MARK.len()),
            _ => (Self::Utf8, 0),
        }
    }

    /// Whether it is one of those of two bytes a unit.
    pub fn is_wide(self) -> bool {
        matches!(self, Self::Utf16Le | Self::Utf16Be)
    }
}

/// Whether the beginning of a file shows that it is no text.
pub fn is_binary(bytes: &[u8]) -> bool {
    let probe = &bytes[..bytes.len().min(BINARY_PROBE_BYTES)];
    !Encoding::of(bytes).0.is_wide() && memchr::memchr(0, probe).is_some()
}

/// The text of a whole file, without its mark.
///
/// # Errors
/// It is no text; why.
pub fn decode(bytes: Vec<u8>) -> Result<(String, Encoding), String> {
    if is_binary(&bytes) {
        return Err("there is a zero byte in it".to_owned());
    }
    let (encoding, mark) = Encoding::of(&bytes);
    let text = match encoding {
        Encoding::Utf8 => String::from_utf8(bytes).map_err(|error| not_utf8(error.utf8_error().valid_up_to()))?,
        Encoding::Utf8Bom => std::str::from_utf8(&bytes[mark..])
            .map(str::to_owned)
            .map_err(|error| not_utf8(mark + error.valid_up_to()))?,
        Encoding::Utf16Le => wide(&bytes[mark..], u16::from_le_bytes)?,
        Encoding::Utf16Be => wide(&bytes[mark..], u16::from_be_bytes)?,
    };
    Ok((text, encoding))
}

/// What is said of bytes that are not UTF-8.
pub(crate) fn not_utf8(byte: usize) -> String {
    format!("it is not UTF-8 from byte {byte} on, and has no mark of UTF-16")
}

fn wide(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (units, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("it is marked as UTF-16, and has an odd number of bytes".to_owned());
    }
    let mut text = String::with_capacity(bytes.len());
    let mut at = 2;
    for decoded in char::decode_utf16(units.iter().map(|pair| unit(*pair))) {
        let character = decoded.map_err(|_| format!("it is marked as UTF-16, and is not from byte {at} on"))?;
        at += 2 * character.len_utf16();
        text.push(character);
    }
    Ok(text)
}

/// The bytes of a file with this text.
pub fn encode(text: String, encoding: Encoding) -> Vec<u8> {
    let wide = |mark: [u8; 2], bytes: fn(u16) -> [u8; 2]| {
        let units = text.encode_utf16().flat_map(bytes);
        mark.into_iter().chain(units).collect()
    };
    match encoding {
        Encoding::Utf8 => text.into_bytes(),
        Encoding::Utf8Bom => [&UTF8_MARK, text.as_bytes()].concat(),
        Encoding::Utf16Le => wide(UTF16_LE_MARK, u16::to_le_bytes),
        Encoding::Utf16Be => wide(UTF16_BE_MARK, u16::to_be_bytes),
    }
}

/// How the lines of a text end.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LineEndings {
    /// There is one line at most.
    None,
    /// By line feeds.
    Lf,
    /// By carriage returns and line feeds.
    Crlf,
    /// By one or the other.
    Mixed,
}

impl LineEndings {
    /// Of this text.
    pub fn of(text: &[u8]) -> Self {
        let (mut lf, mut crlf) = (false, false);
        for at in memchr::memchr_iter(b'\n', text) {
            match at > 0 && text[at - 1] == b'\r' {
                true => crlf = true,
                false => lf = true,
            }
            if lf && crlf {
                return Self::Mixed;
            }
        }
        match (lf, crlf) {
            (true, _) => Self::Lf,
            (_, true) => Self::Crlf,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_text_survives_in_every_encoding(text in "\\PC{0,40}[\r\n\t]{0,3}\\PC{0,5}") {
            for encoding in [Encoding::Utf8Bom, Encoding::Utf16Le, Encoding::Utf16Be] {
                let bytes = encode(text.clone(), encoding);
                prop_assert_eq!(decode(bytes).unwrap(), (text.clone(), encoding));
            }
            prop_assume!(!text.starts_with('\u{feff}'));
            prop_assert_eq!(decode(encode(text.clone(), Encoding::Utf8)).unwrap(), (text, Encoding::Utf8));
        }

        #[test]
        fn what_is_decoded_is_encoded_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..40), mark in 0..3usize) {
            let marks: [&[u8]; 3] = [b"", &UTF16_LE_MARK, &UTF16_BE_MARK];
            let bytes = [marks[mark], &bytes].concat();
            if let Ok((text, encoding)) = decode(bytes.clone()) {
                prop_assert_eq!(encode(text, encoding), bytes);
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        assert!(decode(b"ab\0c".to_vec()).unwrap_err().contains("zero byte"));
        assert!(decode(b"ab\xff".to_vec()).unwrap_err().contains("byte 2"));
        assert!(decode(b"\xef\xbb\xbfa\xff".to_vec()).unwrap_err().contains("byte 4"));
        assert!(decode(b"\xff\xfea".to_vec()).unwrap_err().contains("odd"));
        assert!(decode(b"\xff\xfea\0\x00\xd8".to_vec()).unwrap_err().contains("byte 4"));
    }

    #[test]
    fn line_endings() {
        for (text, expected) in [
            ("", LineEndings::None),
            ("a", LineEndings::None),
            ("a\rb", LineEndings::None),
            ("a\n", LineEndings::Lf),
            ("\n\n", LineEndings::Lf),
            ("a\r\nb\r\n", LineEndings::Crlf),
            ("a\r\nb\n", LineEndings::Mixed),
        ] {
            assert_eq!(LineEndings::of(text.as_bytes()), expected, "{text:?}");
        }
    }
}
