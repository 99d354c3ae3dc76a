//! What the names of glyphs mean.
//!
//! Fonts without a character map name their glyphs as the Adobe Glyph List does. Names that compose, such as `eacute`, are
//! composed; the rest of what occurs in text is listed. Unknown names mean nothing.

use unicode_normalization::char::compose;

/// Adds the text of the glyph of this name. False when it is not known.
pub(super) fn push(name: &str, text: &mut String) -> bool {
    // A variant, such as `a.sc`, reads as what it is a variant of.
    let name = match name.find('.') {
        Some(0) | None => name,
        Some(dot) => &name[..dot],
    };
    if name.contains('_') && name.len() < 64 {
        let length = text.len();
        let is_known = name.split('_').all(|part| push_one(part, text));
        if !is_known {
            text.truncate(length);
        }
        return is_known;
    }
    push_one(name, text)
}

fn push_one(name: &str, text: &mut String) -> bool {
    if let Some((_, meaning)) = LIGATURES.iter().find(|(ligature, _)| *ligature == name) {
        text.push_str(meaning);
        return true;
    }
    match single(name) {
        Some(c) => {
            text.push(c);
            true
        }
        None => false,
    }
}

/// The character of the glyph of this name.
fn single(name: &str) -> Option<char> {
    let mut chars = name.chars();
    if let (Some(only), None) = (chars.next(), chars.next()) {
        return only.is_ascii_alphabetic().then_some(only);
    }
    if let Ok(index) = NAMES.binary_search_by_key(&name, |(name, _)| name) {
        return Some(NAMES[index].1);
    }
    greek(name).or_else(|| numbered(name)).or_else(|| composed(name))
}

/// `uni0041`, `u1F600`, and the Cyrillic letters, which have numbers.
fn numbered(name: &str) -> Option<char> {
    if let Some(digits) = name.strip_prefix("uni").and_then(|digits| digits.get(..4)) {
        return char::from_u32(u32::from_str_radix(digits, 16).ok()?).filter(|c| !c.is_control());
    }
    if let Some(digits) = name.strip_prefix('u').filter(|digits| (4..=6).contains(&digits.len())) {
        return char::from_u32(u32::from_str_radix(digits, 16).ok()?).filter(|c| !c.is_control());
    }
    let number: u32 = name.strip_prefix("afii")?.parse().ok()?;
    let code = match number {
        10017..=10022 => 0x410 + number - 10017,
        10023 => 0x401,
        10024..=10049 => 0x416 + number - 10024,
        10065..=10070 => 0x430 + number - 10065,
        10071 => 0x451,
        10072..=10097 => 0x436 + number - 10072,
        61352 => 0x2116,
        _ => return None,
    };
    char::from_u32(code)
}

fn greek(name: &str) -> Option<char> {
    let is_upper = name.starts_with(|c: char| c.is_ascii_uppercase());
    let index = GREEK.iter().position(|letter| letter.eq_ignore_ascii_case(name))?;
    // The letters are in order, with the final sigma between rho and sigma.
    let offset = index as u32 + u32::from(index >= 17);
    char::from_u32(if is_upper { 0x391 } else { 0x3b1 } + offset)
}

/// A letter with an accent: `eacute`.
fn composed(name: &str) -> Option<char> {
    let (base, accent) = ACCENTS
        .iter()
        .find_map(|(accent, mark)| name.strip_suffix(accent).map(|base| (base, *mark)))?;
    let base = match base {
        "dotlessi" => 'i',
        _ => single_letter(base)?,
    };
    compose(base, accent)
}

fn single_letter(name: &str) -> Option<char> {
    let mut chars = name.chars();
    match (chars.next(), chars.next()) {
        (Some(only), None) if only.is_ascii_alphabetic() => Some(only),
        _ => None,
    }
}

const LIGATURES: &[(&str, &str)] = &[
    ("ff", "ff"),
    ("ffi", "ffi"),
    ("ffl", "ffl"),
    ("fi", "fi"),
    ("fl", "fl"),
    ("IJ", "IJ"),
    ("ij", "ij"),
];

const ACCENTS: &[(&str, char)] = &[
    ("hungarumlaut", '\u{30b}'),
    ("circumflex", '\u{302}'),
    ("commaaccent", '\u{327}'),
    ("dotaccent", '\u{307}'),
    ("dieresis", '\u{308}'),
    ("cedilla", '\u{327}'),
    ("macron", '\u{304}'),
    ("ogonek", '\u{328}'),
    ("acute", '\u{301}'),
    ("breve", '\u{306}'),
    ("caron", '\u{30c}'),
    ("grave", '\u{300}'),
    ("tilde", '\u{303}'),
    ("ring", '\u{30a}'),
];

const GREEK: &[&str] = &[
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "omicron", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega",
];

/// Names that do not compose, in order.
const NAMES: &[(&str, char)] = &[
    ("AE", 'Æ'),
    ("Dcroat", 'Đ'),
    ("Eth", 'Ð'),
    ("Euro", '€'),
    ("Lslash", 'Ł'),
    ("OE", 'Œ'),
    ("Oslash", 'Ø'),
    ("Thorn", 'Þ'),
    ("acute", '´'),
    ("ae", 'æ'),
    ("ampersand", '&'),
    ("angleleft", '⟨'),
    ("angleright", '⟩'),
    ("approxequal", '≈'),
    ("arrowdown", '↓'),
    ("arrowleft", '←'),
    ("arrowright", '→'),
    ("arrowup", '↑'),
    ("asciicircum", '^'),
    ("asciitilde", '~'),
    ("asterisk", '*'),
    ("asteriskmath", '∗'),
    ("at", '@'),
    ("backslash", '\\'),
    ("bar", '|'),
    ("braceleft", '{'),
    ("braceright", '}'),
    ("bracketleft", '['),
    ("bracketright", ']'),
    ("brokenbar", '¦'),
    ("bullet", '•'),
    ("cent", '¢'),
    ("checkmark", '✓'),
    ("circumflex", 'ˆ'),
    ("colon", ':'),
    ("comma", ','),
    ("copyright", '©'),
    ("currency", '¤'),
    ("dagger", '†'),
    ("daggerdbl", '‡'),
    ("dcroat", 'đ'),
    ("degree", '°'),
    ("dieresis", '¨'),
    ("divide", '÷'),
    ("dollar", '$'),
    ("dotaccent", '˙'),
    ("dotlessi", 'ı'),
    ("dotmath", '⋅'),
    ("eight", '8'),
    ("element", '∈'),
    ("ellipsis", '…'),
    ("emdash", '—'),
    ("endash", '–'),
    ("equal", '='),
    ("equivalence", '≡'),
    ("eth", 'ð'),
    ("exclam", '!'),
    ("exclamdown", '¡'),
    ("five", '5'),
    ("florin", 'ƒ'),
    ("four", '4'),
    ("fraction", '⁄'),
    ("germandbls", 'ß'),
    ("grave", '`'),
    ("greater", '>'),
    ("greaterequal", '≥'),
    ("guillemotleft", '«'),
    ("guillemotright", '»'),
    ("guilsinglleft", '‹'),
    ("guilsinglright", '›'),
    ("hungarumlaut", '˝'),
    ("hyphen", '-'),
    ("infinity", '∞'),
    ("integral", '∫'),
    ("less", '<'),
    ("lessequal", '≤'),
    ("logicalnot", '¬'),
    ("lslash", 'ł'),
    ("macron", '¯'),
    ("middot", '·'),
    ("minus", '−'),
    ("mu", 'µ'),
    ("multiply", '×'),
    ("nbspace", ' '),
    ("nine", '9'),
    ("notequal", '≠'),
    ("numbersign", '#'),
    ("oe", 'œ'),
    ("ogonek", '˛'),
    ("one", '1'),
    ("onehalf", '½'),
    ("onequarter", '¼'),
    ("onesuperior", '¹'),
    ("ordfeminine", 'ª'),
    ("ordmasculine", 'º'),
    ("oslash", 'ø'),
    ("paragraph", '¶'),
    ("parenleft", '('),
    ("parenright", ')'),
    ("partialdiff", '∂'),
    ("percent", '%'),
    ("period", '.'),
    ("periodcentered", '·'),
    ("perthousand", '‰'),
    ("plus", '+'),
    ("plusminus", '±'),
    ("product", '∏'),
    ("question", '?'),
    ("questiondown", '¿'),
    ("quotedbl", '"'),
    ("quotedblbase", '„'),
    ("quotedblleft", '“'),
    ("quotedblright", '”'),
    ("quoteleft", '‘'),
    ("quoteright", '’'),
    ("quotesinglbase", '‚'),
    ("quotesingle", '\''),
    ("radical", '√'),
    ("registered", '®'),
    ("ring", '˚'),
    ("section", '§'),
    ("semicolon", ';'),
    ("seven", '7'),
    ("similar", '∼'),
    ("six", '6'),
    ("slash", '/'),
    ("softhyphen", '\u{ad}'),
    ("space", ' '),
    ("sterling", '£'),
    ("summation", '∑'),
    ("thorn", 'þ'),
    ("three", '3'),
    ("threequarters", '¾'),
    ("threesuperior", '³'),
    ("tilde", '˜'),
    ("trademark", '™'),
    ("two", '2'),
    ("twosuperior", '²'),
    ("underscore", '_'),
    ("yen", '¥'),
    ("zero", '0'),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn meaning(name: &str) -> Option<String> {
        let mut text = String::new();
        push(name, &mut text).then_some(text)
    }

    #[test]
    fn names_are_in_order() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn names_mean_what_the_list_says() {
        for (name, expected) in [
            ("A", "A"),
            ("eacute", "é"),
            ("Scaron", "Š"),
            ("ohungarumlaut", "ő"),
            ("germandbls", "ß"),
            ("alpha", "α"),
            ("Omega", "Ω"),
            ("sigma", "σ"),
            ("rho", "ρ"),
            ("uni20AC", "€"),
            ("u1F600", "😀"),
            ("afii10017", "А"),
            ("afii10097", "я"),
            ("fi", "fi"),
            ("f_f_i", "ffi"),
            ("a.sc", "a"),
            ("seven.oldstyle", "7"),
        ] {
            assert_eq!(meaning(name).as_deref(), Some(expected), "{name}");
        }
        for name in ["", ".notdef", "g17", "cid4711", "uni12", "uni0007", "uD800", "f_x1"] {
            assert_eq!(meaning(name), None, "{name}");
        }
    }
}
