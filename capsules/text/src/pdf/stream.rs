//! Unpacks streams within limits.
//!
//! hayro-syntax unpacks streams, too, but as far as they go; here every step is bounded, so that a few kilobytes cannot become
//! gigabytes. A stream that breaks off gives what was read until then, as PDF readers do.

use std::borrow::Cow;

use hayro_syntax::Filter;
use hayro_syntax::object::{Dict, Number, Object, Stream};
use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit, decompress_to_vec_zlib_with_limit};
use weezl::{BitOrder, LzwStatus};

use crate::error::TextError;
use crate::limits;

/// Components of a pixel: 32 is the most that PDF knows.
const MAX_COLORS: i64 = 32;

/// Pixels of a row. Data has rows of a few bytes, images of some thousand pixels.
const MAX_COLUMNS: i64 = 1 << 20;

/// The bytes of a stream, at most so many; `what` is its part in the error.
///
/// # Errors
/// `text.too-large` past the limit, `text.unsupported` for image filters and for too many of them.
pub(super) fn unpack<'a>(stream: &Stream<'a>, limit: usize, what: &str) -> Result<Cow<'a, [u8]>, TextError> {
    let filters = stream.filters();
    if filters.len() > limits::PDF_FILTERS {
        return Err(TextError::too_large(
            format!("filters of {what}"),
            limits::PDF_FILTERS,
            "filters",
        ));
    }
    let is_predicted = has_predictor(stream.dict())?;
    let mut data = stream.raw_data();
    for (index, filter) in filters.iter().enumerate() {
        let unpacked = match filter {
            Filter::FlateDecode => inflate(&data, limit),
            Filter::LzwDecode => lzw(&data, early_change(stream.dict(), index), limit),
            Filter::AsciiHexDecode => Some(ascii_hex(&data)),
            Filter::Ascii85Decode => ascii_85(&data, limit),
            Filter::RunLengthDecode => run_length(&data, limit),
            Filter::Crypt if index == 0 => continue,
            _ => return Err(TextError::Unsupported(format!("{what} is packed as {filter:?}"))),
        };
        data = Cow::Owned(unpacked.ok_or_else(|| TextError::too_large(what, limit, "bytes unpacked"))?);
    }
    if data.len() > limit {
        return Err(TextError::too_large(what, limit, "bytes"));
    }
    if is_predicted {
        // Differences to the row above: rare outside of images and cross-references. The size is known to be harmless now.
        return stream
            .decoded_data()
            .map_err(|_| TextError::Malformed(format!("{what} cannot be unpacked")));
    }
    Ok(data)
}

/// The parameters of the filter at this index.
fn parameters<'a>(dict: &Dict<'a>, index: usize) -> Option<Dict<'a>> {
    let single = ["DecodeParms", "DP"]
        .iter()
        .find_map(|key| dict.get::<Object<'_>>(key))?;
    match single {
        Object::Dict(dict) => (index == 0).then_some(dict),
        Object::Array(array) => array.iter::<Object<'_>>().nth(index)?.into_dict(),
        _ => None,
    }
}

fn early_change(dict: &Dict<'_>, index: usize) -> bool {
    parameters(dict, index).and_then(|parameters| parameters.get::<i32>("EarlyChange")) != Some(0)
}

/// Whether differences to the row above are to be undone.
///
/// # Errors
/// `text.malformed` when the rows that the parameters tell cannot be: hayro-syntax computes with them as they are.
pub(super) fn has_predictor(dict: &Dict<'_>) -> Result<bool, TextError> {
    let mut found = false;
    for index in 0..limits::PDF_FILTERS {
        let Some(parameters) = parameters(dict, index) else {
            continue;
        };
        if parameters
            .get::<i32>("Predictor")
            .is_none_or(|predictor| predictor <= 1)
        {
            continue;
        }
        found = true;
        let value = |key: &str, default: i64| parameters.get::<Number>(key).map_or(default, |number| number.as_i64());
        let (colors, bits, columns) = (value("Colors", 1), value("BitsPerComponent", 8), value("Columns", 1));
        let is_sound = (1..=MAX_COLORS).contains(&colors)
            && [1, 2, 4, 8, 16].contains(&bits)
            && colors * bits <= i64::from(u8::MAX)
            && (1..=MAX_COLUMNS).contains(&columns);
        if !is_sound {
            return Err(TextError::Malformed(format!(
                "a stream with rows of {columns} times {colors} times {bits} bits"
            )));
        }
    }
    Ok(found)
}

/// Inflates at most `limit` bytes; `None` when there are more.
fn inflate(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let partial = |result: Result<Vec<u8>, miniz_oxide::inflate::DecompressError>| match result {
        Ok(output) => Some(output),
        Err(error) if error.status == TINFLStatus::HasMoreOutput => None,
        Err(error) => Some(error.output),
    };
    // Some writers leave the zlib header out.
    match data {
        [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0 => {
            partial(decompress_to_vec_zlib_with_limit(data, limit))
        }
        _ => partial(decompress_to_vec_with_limit(data, limit)),
    }
}

fn lzw(mut data: &[u8], early_change: bool, limit: usize) -> Option<Vec<u8>> {
    let mut decoder = if early_change {
        weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8)
    } else {
        weezl::decode::Decoder::new(BitOrder::Msb, 8)
    };
    let mut output = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let step = decoder.decode_bytes(data, &mut chunk);
        output.extend_from_slice(&chunk[..step.consumed_out]);
        if output.len() > limit {
            return None;
        }
        data = &data[step.consumed_in..];
        let is_stuck = step.consumed_in == 0 && step.consumed_out == 0;
        if !matches!(step.status, Ok(LzwStatus::Ok)) || is_stuck {
            return Some(output);
        }
    }
}

fn ascii_hex(data: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(data.len() / 2);
    let mut high = None;
    for byte in data.iter().take_while(|byte| **byte != b'>') {
        let Some(digit) = char::from(*byte).to_digit(16) else {
            continue;
        };
        match high.take() {
            None => high = Some(digit as u8),
            Some(high) => output.push(high << 4 | digit as u8),
        }
    }
    output.extend(high.map(|high| high << 4));
    output
}

fn ascii_85(data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(data.len() / 5 * 4);
    let mut group = 0_u32;
    let mut digits = 0;
    for byte in data.iter().take_while(|byte| **byte != b'~') {
        match byte {
            b'z' if digits == 0 => output.extend_from_slice(&[0; 4]),
            b'!'..=b'u' => {
                group = group.wrapping_mul(85).wrapping_add(u32::from(byte - b'!'));
                digits += 1;
                if digits == 5 {
                    output.extend_from_slice(&group.to_be_bytes());
                    (group, digits) = (0, 0);
                }
            }
            _ => {}
        }
        if output.len() > limit {
            return None;
        }
    }
    if digits > 1 {
        for _ in digits..5 {
            group = group.wrapping_mul(85).wrapping_add(84);
        }
        output.extend_from_slice(&group.to_be_bytes()[..digits - 1]);
    }
    Some(output)
}

fn run_length(mut data: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut output = Vec::new();
    while let [length, rest @ ..] = data {
        match *length {
            128 => break,
            literal @ 0..128 => {
                let count = (usize::from(literal) + 1).min(rest.len());
                output.extend_from_slice(&rest[..count]);
                data = &rest[count..];
            }
            repeated => {
                let [byte, rest @ ..] = rest else { break };
                output.extend(std::iter::repeat_n(*byte, 257 - usize::from(repeated)));
                data = rest;
            }
        }
        if output.len() > limit {
            return None;
        }
    }
    Some(output)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn text_filters() {
        assert_eq!(ascii_hex(b"48 65 6C6c 6F 7>"), b"Hello\x70");
        assert_eq!(ascii_85(b"87cURD]i,\"Ebo80~>", 100).unwrap(), b"Hello World!");
        assert_eq!(ascii_85(b"z~>", 100).unwrap(), [0; 4]);
        assert_eq!(run_length(b"\x02abc\xfed\x80x", 100).unwrap(), b"abcddd");
    }

    #[test]
    fn limits_hold() {
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(&[0; 100_000], 9);
        assert_eq!(inflate(&packed, 99_999), None);
        assert_eq!(inflate(&packed, 100_000).unwrap().len(), 100_000);
        assert_eq!(inflate(&packed[2..], 100_000).unwrap().len(), 100_000, "without header");
        assert_eq!(ascii_85(&[b'z'; 100], 200), None);
        assert_eq!(run_length(&[129, 0, 129, 0], 200), None);
        let packed = weezl::encode::Encoder::with_tiff_size_switch(BitOrder::Msb, 8)
            .encode(&[7; 50_000])
            .unwrap();
        assert_eq!(lzw(&packed, true, 49_999), None);
        assert_eq!(lzw(&packed, true, 50_000).unwrap(), [7; 50_000]);
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_survived(data: Vec<u8>) {
            for result in [inflate(&data, 10_000), lzw(&data, true, 10_000), lzw(&data, false, 10_000),
                ascii_85(&data, 10_000), run_length(&data, 10_000), Some(ascii_hex(&data))] {
                proptest::prop_assert!(result.is_none_or(|output| output.len() <= 10_000 + 4096));
            }
        }
    }
}
