//! From the codes in a string to text and widths.
//!
//! In order: the font's own character map (`ToUnicode`), then its encoding: a code page, the names of its glyphs, or, for
//! composite fonts, Unicode or an East Asian charset. Font programs are not read: what only they know stays unknown and
//! becomes U+FFFD.

use std::cell::RefCell;
use std::collections::HashMap;

use encoding_rs::{BIG5, EUC_KR, Encoding, GBK, MACINTOSH, SHIFT_JIS, UTF_16BE, WINDOWS_1252};
use hayro_cmap::{BfString, CMap};
use hayro_syntax::object::{Array, Dict, MaybeRef, Name, Number, Object, Stream};

use super::glyphs;
use crate::limits;

/// What stands for glyphs without known text.
const UNKNOWN: char = '\u{fffd}';

/// Width of glyphs whose font does not tell, in thousandths of the font size.
const WIDTH_GUESS: f32 = 500.0;

/// A piece of text with the width of its glyphs.
pub(super) struct Decoded<'f> {
    pub(super) text: &'f str,
    /// In thousandths of the font size.
    pub(super) width: f32,
    /// Whether word spacing applies: the single byte 32.
    pub(super) is_space: bool,
}

/// A font, as far as text needs it.
pub(super) enum Font {
    /// One byte a glyph.
    Simple(Box<Simple>),
    /// Two bytes a glyph.
    Composite(Box<Composite>),
    /// Strings are in a charset.
    Charset(&'static Encoding),
}

/// A font of 256 glyphs.
pub(super) struct Simple {
    /// The texts of all codes, one after another.
    text: String,
    /// Where each code's text ends.
    ends: [u32; 256],
    widths: [f32; 256],
}

/// A font whose codes have two bytes.
pub(super) struct Composite {
    map: Option<CMap>,
    widths: HashMap<u16, f32>,
    default_width: f32,
    /// Texts looked up before: at most one for each code.
    known: RefCell<HashMap<u16, Box<str>>>,
}

impl Font {
    /// Reads a font's dictionary. `to_unicode` is its character map, unpacked.
    pub(super) fn read(dict: &Dict<'_>, to_unicode: Option<&[u8]>) -> Self {
        let map = to_unicode.and_then(|data| CMap::parse(data, |_| None));
        if dict.get::<Name<'_>>("Subtype").as_deref() == Some(b"Type0") {
            return Self::composite(dict, map);
        }
        Self::Simple(Box::new(Simple::read(dict, map.as_ref())))
    }

    fn composite(dict: &Dict<'_>, map: Option<CMap>) -> Self {
        let descendant = dict
            .get::<Array<'_>>("DescendantFonts")
            .and_then(|fonts| fonts.iter::<Dict<'_>>().next());
        if map.is_none()
            && let Some(encoding) = dict.get::<Name<'_>>("Encoding").and_then(|name| charset(&name))
        {
            return Self::Charset(encoding);
        }
        let descendant = descendant.unwrap_or_default();
        Self::Composite(Box::new(Composite {
            map,
            widths: composite_widths(&descendant),
            default_width: descendant.get::<Number>("DW").map_or(1000.0, |width| width.as_f32()),
            known: RefCell::default(),
        }))
    }

    /// Calls `each` with the glyphs of a string.
    pub(super) fn decode(&self, string: &[u8], mut each: impl FnMut(Decoded<'_>)) {
        match self {
            Self::Simple(font) => {
                for code in string {
                    let index = usize::from(*code);
                    let start = if index == 0 { 0 } else { font.ends[index - 1] as usize };
                    let text = &font.text[start..font.ends[index] as usize];
                    each(Decoded {
                        text,
                        width: font.widths[index],
                        is_space: *code == b' ',
                    });
                }
            }
            Self::Composite(font) => {
                let mut known = font.known.borrow_mut();
                for code in string.chunks(2) {
                    let code = code.iter().fold(0, |code, byte| code << 8 | u16::from(*byte));
                    let text = known.entry(code).or_insert_with(|| font.text(code));
                    let width = font.widths.get(&code).copied().unwrap_or(font.default_width);
                    each(Decoded {
                        text,
                        width,
                        is_space: false,
                    });
                }
            }
            Self::Charset(encoding) => {
                let (text, _) = encoding.decode_without_bom_handling(string);
                let width = text
                    .chars()
                    .map(|c| if c.is_ascii() { WIDTH_GUESS } else { 1000.0 })
                    .sum();
                each(Decoded {
                    text: &text,
                    width,
                    is_space: false,
                });
            }
        }
    }
}

impl Composite {
    fn text(&self, code: u16) -> Box<str> {
        match self.map.as_ref().and_then(|map| map.lookup_bf_string(u32::from(code))) {
            Some(BfString::Char(c)) => c.to_string().into(),
            Some(BfString::String(text)) => shortened(&text).into(),
            None => UNKNOWN.to_string().into(),
        }
    }
}

impl Simple {
    fn read(dict: &Dict<'_>, map: Option<&CMap>) -> Self {
        let mut names: [Option<Name<'_>>; 256] = [const { None }; 256];
        let base = encoding(dict, &mut names);
        let mut font = Self {
            text: String::new(),
            ends: [0; 256],
            widths: widths(dict),
        };
        for code in 0..=255_u8 {
            let index = usize::from(code);
            match map.and_then(|map| map.lookup_bf_string(u32::from(code))) {
                Some(BfString::Char(c)) => font.text.push(c),
                Some(BfString::String(text)) => font.text.push_str(shortened(&text)),
                None => match &names[index] {
                    Some(name) if glyphs::push(name.as_str(), &mut font.text) => {}
                    Some(_) => font.text.push(UNKNOWN),
                    None => base.push(code, &mut font.text),
                },
            }
            font.ends[index] = font.text.len() as u32;
        }
        font
    }
}

/// As much of a code's text as is believed.
fn shortened(text: &str) -> &str {
    &text[..text
        .char_indices()
        .nth(limits::PDF_CODE_CHARS)
        .map_or(text.len(), |(at, _)| at)]
}

/// What codes mean that have no name.
enum Base {
    CodePage(&'static Encoding),
    Standard,
    Symbol,
}

impl Base {
    fn push(&self, code: u8, text: &mut String) {
        match self {
            Self::CodePage(encoding) => {
                let code = [code];
                text.push_str(&encoding.decode_without_bom_handling(&code).0);
            }
            Self::Standard => text.extend(standard(code)),
            Self::Symbol => text.extend(symbol(code)),
        }
    }
}

/// Reads a simple font's encoding: what it starts from, and the names of the codes that differ.
fn encoding<'a>(dict: &Dict<'a>, names: &mut [Option<Name<'a>>; 256]) -> Base {
    let family = dict.get::<Name<'_>>("BaseFont");
    let family = family.as_ref().map(|name| name.as_str()).unwrap_or_default();
    let built_in = if family.ends_with("Symbol") {
        Base::Symbol
    } else if dict.get::<Name<'_>>("Subtype").as_deref() == Some(b"TrueType") {
        Base::CodePage(WINDOWS_1252)
    } else {
        Base::Standard
    };
    let named = |name: &Name<'_>| match name.as_str() {
        "WinAnsiEncoding" => Some(Base::CodePage(WINDOWS_1252)),
        "MacRomanEncoding" => Some(Base::CodePage(MACINTOSH)),
        "StandardEncoding" => Some(Base::Standard),
        _ => None,
    };
    match dict.get::<Object<'_>>("Encoding") {
        Some(Object::Name(name)) => named(&name).unwrap_or(built_in),
        Some(Object::Dict(encoding)) => {
            if let Some(differences) = encoding.get::<Array<'_>>("Differences") {
                let mut code = 0_i64;
                for object in differences.iter::<Object<'_>>().take(2 * 256) {
                    match object {
                        Object::Number(number) => code = number.as_i64(),
                        Object::Name(name) => {
                            if let Some(slot) = usize::try_from(code).ok().and_then(|code| names.get_mut(code)) {
                                *slot = Some(name);
                            }
                            code = code.saturating_add(1);
                        }
                        _ => {}
                    }
                }
            }
            encoding
                .get::<Name<'_>>("BaseEncoding")
                .as_ref()
                .and_then(named)
                .unwrap_or(built_in)
        }
        _ => built_in,
    }
}

/// The widths of a simple font's glyphs, in thousandths of the font size.
fn widths(dict: &Dict<'_>) -> [f32; 256] {
    let mut widths = [WIDTH_GUESS; 256];
    let Some(given) = dict.get::<Array<'_>>("Widths") else {
        let family = dict.get::<Name<'_>>("BaseFont");
        let is_mono = family.as_ref().is_some_and(|name| name.as_str().starts_with("Courier"));
        for (code, width) in widths.iter_mut().enumerate() {
            *width = if is_mono { 600.0 } else { guessed_width(code as u8) };
        }
        return widths;
    };
    // The glyphs of a Type 3 font have a scale of their own.
    let scale = match dict
        .get::<Array<'_>>("FontMatrix")
        .and_then(|matrix| matrix.iter::<Number>().next())
    {
        Some(scale) => scale.as_f32().abs() * 1000.0,
        None => 1.0,
    };
    let first = dict
        .get::<i32>("FirstChar")
        .and_then(|first| usize::try_from(first).ok())
        .unwrap_or(0);
    for (slot, width) in widths.iter_mut().skip(first).zip(given.iter::<Number>()) {
        *slot = width.as_f32() * scale;
    }
    widths
}

/// Widths of the standard fonts, whose files do not tell them: roughly those of Helvetica.
fn guessed_width(code: u8) -> f32 {
    match code {
        b'i' | b'j' | b'l' | b'\'' => 222.0,
        b' ' | b'!' | b',' | b'.' | b'/' | b':' | b';' | b'I' | b'[' | b']' | b'f' | b't' | b'|' => 278.0,
        b'(' | b')' | b'-' | b'`' | b'r' => 333.0,
        b'*' | b'"' => 370.0,
        b'c' | b'k' | b's' | b'v' | b'x' | b'y' | b'z' | b'J' => 500.0,
        b'A' | b'B' | b'E' | b'K' | b'P' | b'S' | b'V' | b'X' | b'Y' | b'&' => 667.0,
        b'C' | b'D' | b'H' | b'N' | b'R' | b'U' | b'w' => 722.0,
        b'G' | b'O' | b'Q' => 778.0,
        b'M' | b'm' => 833.0,
        b'W' | b'@' | b'%' => 950.0,
        _ => 556.0,
    }
}

/// The width table of a composite font: `first [w w ...]` and `first last w`.
fn composite_widths(dict: &Dict<'_>) -> HashMap<u16, f32> {
    let mut widths = HashMap::new();
    let Some(table) = dict.get::<Array<'_>>("W") else {
        return widths;
    };
    let mut room = limits::PDF_WIDTHS;
    let mut objects = table.raw_iter().take(limits::PDF_WIDTHS).map_while(|item| match item {
        MaybeRef::NotRef(object) => Some(object),
        // Only lists of widths are kept outside in practice; following references here could go in circles.
        MaybeRef::Ref(_) => None,
    });
    while let (Some(Object::Number(first)), Some(next)) = (objects.next(), objects.next()) {
        let Ok(first) = u16::try_from(first.as_i64()) else {
            return widths;
        };
        match next {
            Object::Array(list) => {
                for (code, width) in (first..=u16::MAX).zip(list.iter::<Number>()).take(room) {
                    widths.insert(code, width.as_f32());
                    room -= 1;
                }
            }
            Object::Number(last) => {
                let Some(Object::Number(width)) = objects.next() else {
                    return widths;
                };
                let last = u16::try_from(last.as_i64()).unwrap_or(u16::MAX);
                for code in (first..=last).take(room) {
                    widths.entry(code).or_insert(width.as_f32());
                    room -= 1;
                }
            }
            _ => return widths,
        }
    }
    widths
}

/// The charset of a predefined character map's codes (ISO 32000-2, table 116). Vertical and horizontal are the same here.
fn charset(name: &Name<'_>) -> Option<&'static Encoding> {
    let name = name.as_str();
    let name = name
        .strip_suffix("-H")
        .or_else(|| name.strip_suffix("-V"))
        .unwrap_or(name);
    if name.starts_with("Uni") && (name.contains("UCS2") || name.contains("UTF16")) {
        return Some(UTF_16BE);
    }
    match name {
        "GB-EUC" | "GBpc-EUC" | "GBK-EUC" | "GBKp-EUC" | "GBK2K" => Some(GBK),
        "B5pc" | "ETen-B5" | "ETenms-B5" | "HKscs-B5" => Some(BIG5),
        "83pv-RKSJ" | "90ms-RKSJ" | "90msp-RKSJ" | "90pv-RKSJ" | "Ext-RKSJ" => Some(SHIFT_JIS),
        "KSC-EUC" | "KSCms-UHC" | "KSCms-UHC-HW" | "KSCpc-EUC" => Some(EUC_KR),
        _ => None,
    }
}

/// Adobe's standard encoding.
fn standard(code: u8) -> Option<char> {
    const HIGH: [(u8, &str); 8] = [
        (0xa1, "¡¢£⁄¥ƒ§¤'“«‹›ﬁﬂ"),
        (0xb1, "–†‡·"),
        (0xb6, "¶•‚„”»…‰"),
        (0xbf, "¿"),
        (0xc1, "`´ˆ˜¯˘˙¨"),
        (0xca, "˚¸"),
        (0xcd, "˝˛ˇ—"),
        (0xf8, "łøœß"),
    ];
    match code {
        b'\'' => Some('’'),
        b'`' => Some('‘'),
        b' '..=b'~' => Some(char::from(code)),
        0xe1 => Some('Æ'),
        0xe3 => Some('ª'),
        0xe8 => Some('Ł'),
        0xe9 => Some('Ø'),
        0xea => Some('Œ'),
        0xeb => Some('º'),
        0xf1 => Some('æ'),
        0xf5 => Some('ı'),
        _ => {
            let (start, chars) = HIGH.iter().rev().find(|(start, _)| *start <= code)?;
            chars.chars().nth(usize::from(code - start))
        }
    }
}

/// The letters of the Symbol font, and what it shares with ASCII.
fn symbol(code: u8) -> Option<char> {
    match code {
        b'A'..=b'Z' => "ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ".chars().nth(usize::from(code - b'A')),
        b'a'..=b'z' => "αβχδεφγηιϕκλμνοπθρστυϖωξψζ".chars().nth(usize::from(code - b'a')),
        b' '..=b'?' | b'[' | b']' | b'_' | b'{'..=b'}' => Some(char::from(code)),
        0xa3 => Some('≤'),
        0xb1 => Some('±'),
        0xb3 => Some('≥'),
        0xb4 => Some('×'),
        0xb7 => Some('•'),
        0xb9 => Some('≠'),
        0xbb => Some('≈'),
        0xae => Some('→'),
        0xa5 => Some('∞'),
        0xe5 => Some('∑'),
        0xd6 => Some('√'),
        0xf2 => Some('∫'),
        _ => Some(UNKNOWN),
    }
}

/// The stream of a font's character map.
pub(super) fn to_unicode<'a>(dict: &Dict<'a>) -> Option<Stream<'a>> {
    dict.get::<Stream<'a>>("ToUnicode")
}
