//! Breaks paragraphs into lines.
//!
//! Lines break at spaces, and beside wide characters, since Chinese and Japanese are written without spaces. Longer
//! words, such as addresses, are not broken: a line of one of them may be too long.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that this text takes on a terminal.
pub fn display_width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Calls `line` with each line of this text: `\n` breaks always, and so does a space or wide character as needed to keep a
/// line within so many columns.
pub fn wrap<'t>(text: &'t str, columns: Option<usize>, mut line: impl FnMut(&'t str)) {
    for part in text.split('\n') {
        let part = part.trim_matches(' ');
        match columns {
            Some(columns) if part.len() > columns => fill(part, columns, &mut line),
            _ => line(part),
        }
    }
}

/// Fills lines greedily with the pieces of one part.
fn fill<'t>(part: &'t str, columns: usize, line: &mut impl FnMut(&'t str)) {
    let mut start = 0;
    let mut end = 0;
    let mut used = 0;
    for (from, to) in pieces(part) {
        let gap = from - end;
        let width = display_width(&part[from..to]);
        if end > start && used + gap + width > columns {
            line(&part[start..end]);
            start = from;
            used = width;
        } else {
            used += if end > start { gap + width } else { width };
            if end <= start {
                start = from;
            }
        }
        end = to;
    }
    if end > start {
        line(&part[start..end]);
    }
}

/// Byte ranges that are not broken.
fn pieces(part: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = &part[at..];
        let from = at + (rest.len() - rest.trim_start_matches(' ').len());
        let rest = &part[from..];
        if rest.is_empty() {
            return None;
        }
        let word = rest
            .as_bytes()
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(rest.len());
        let length = if rest.as_bytes()[..word].is_ascii() {
            word
        } else {
            unbroken(&rest[..word])
        };
        at = from + length;
        Some((from, at))
    })
}

/// How many bytes of this word stay together.
fn unbroken(word: &str) -> usize {
    let mut chars = word.char_indices().peekable();
    while let Some((at, present)) = chars.next() {
        let Some((_, next)) = chars.peek() else { break };
        if (is_wide(present) || is_wide(*next)) && !is_closing(*next) && !is_opening(present) {
            return at + present.len_utf8();
        }
    }
    word.len()
}

fn is_wide(c: char) -> bool {
    // Emoji are wide as well, but belong to words and are joined by what is not.
    c.width() == Some(2) && ('\u{2e80}'..='\u{3fffd}').contains(&c) && !('\u{1f000}'..='\u{1ffff}').contains(&c)
}

/// Punctuation that does not start a line.
fn is_closing(c: char) -> bool {
    "、。，．・：；？！）」』】〕〉》］｝ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ,.:;?!)]}\u{200d}\u{fe0f}".contains(c)
        || c.width() == Some(0)
}

/// Punctuation that does not end a line.
fn is_opening(c: char) -> bool {
    "（「『【〔〈《［｛([{".contains(c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn lines(text: &str, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        wrap(text, Some(columns), |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn breaks_at_spaces() {
        assert_eq!(lines("one two three", 20), ["one two three"]);
        assert_eq!(lines("one two three", 8), ["one two", "three"]);
        assert_eq!(lines("one  two", 3), ["one", "two"]);
        assert_eq!(lines("a\nb c", 20), ["a", "b c"]);
    }

    #[test]
    fn leaves_long_words_whole() {
        assert_eq!(
            lines("see https://example.org/a/long/path for more", 12),
            ["see", "https://example.org/a/long/path", "for more"]
        );
    }

    #[test]
    fn counts_columns_not_bytes() {
        assert_eq!(lines("äöü äöü äöü", 7), ["äöü äöü", "äöü"]);
        assert_eq!(lines("日本語日本語", 4), ["日本", "語日", "本語"]);
        assert_eq!(lines("日本語。日本", 6), ["日本", "語。日", "本"]);
    }

    #[test]
    fn text_without_width_makes_progress() {
        let text = "\u{200b}".repeat(10_000);
        assert_eq!(lines(&text, 5).concat(), text);
    }

    proptest::proptest! {
        /// Wrapping changes white space only, and every line that could be broken is within its columns.
        #[test]
        fn loses_nothing(text in "[a-z\u{e4}\u{65e5}\u{1f600} \n]{0,200}", columns in 4_usize..40) {
            let lines = lines(&text, columns);
            let strip = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            proptest::prop_assert_eq!(strip(&text), strip(&lines.concat()));
            for line in &lines {
                proptest::prop_assert!(display_width(line) <= columns || pieces(line).count() == 1, "{:?}", line);
            }
        }
    }
}
