//! Text that strangers write and people read: cut to a limit, and which characters in it would deceive who reads it.

/// Whether a character changes how a line of a log or a terminal looks, or is not seen at all: control characters, separators of lines and
/// paragraphs, what reorders text, what has no width, and tags. One list for whatever shows, records or compares text.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}'
            // No width, and marks of direction.
            | '\u{200b}'..='\u{200f}'
            // Separators, embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Joiners, invisible operators, isolates.
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The longest prefix of `text` that is at most `limit` bytes and ends between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// [`cut`] in place.
pub(crate) fn truncate(mut text: String, limit: usize) -> String {
    let end = cut(&text, limit).len();
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is not seen, or moves what is seen, is known; what people write is not taken for it.
    #[test]
    fn harmful_characters() {
        for c in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
        ] {
            assert!(is_harmful(c), "{c:?}");
        }
        for c in [
            'a', ' ', 'é', '…', 'ß', '日', 'ا', 'א', '🦀', '\u{fffd}', '\u{2027}', '\u{202f}',
        ] {
            assert!(!is_harmful(c), "{c:?}");
        }
    }
}
