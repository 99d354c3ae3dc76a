//! Cutting strings to a limit, for text that strangers write and people read.

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
