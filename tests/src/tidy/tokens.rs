//! Rust's tokens, as far as the rules need them: words and signs with their line, comments and literals apart.
//!
//! Not a parser: it knows just enough to tell code from what only looks like it.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Word,
    /// `::`, or one other sign.
    Sign,
    /// A string, character, number or lifetime.
    Literal,
    /// A comment of any kind, with its signs.
    Comment,
}

/// A piece of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// Counted from 1.
    pub(super) line: usize,
}

/// Cuts a source into tokens.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while !rest.is_empty() {
        let (kind, length) = next(rest);
        let text = &rest[..length];
        if let Some(kind) = kind {
            found.push(Token { kind, text, line });
        }
        line += text.matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The tokens that are code.
pub(super) fn code(source: &str) -> Vec<Token<'_>> {
    let mut found = tokens(source);
    found.retain(|token| matches!(token.kind, Kind::Word | Kind::Sign));
    found
}

/// The kind and the length in bytes of what comes first; no kind for blanks.
fn next(rest: &str) -> (Option<Kind>, usize) {
    let first = rest.chars().next().unwrap_or(' ');
    if first.is_whitespace() {
        return (None, rest.len() - rest.trim_start().len());
    }
    if rest.starts_with("//") {
        return (Some(Kind::Comment), rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), block_comment(rest));
    }
    for prefix in ["r", "br", "cr"] {
        if let Some(length) = rest.strip_prefix(prefix).and_then(raw_string) {
            return (Some(Kind::Literal), prefix.len() + length);
        }
    }
    for prefix in ["\"", "b\"", "c\""] {
        if let Some(after) = rest.strip_prefix(prefix) {
            return (Some(Kind::Literal), prefix.len() + until_quote(after, '"'));
        }
    }
    if let Some(after) = rest.strip_prefix("b'") {
        return (Some(Kind::Literal), 2 + until_quote(after, '\''));
    }
    if let Some(after) = rest.strip_prefix('\'') {
        // A lifetime has no closing quote after its first character.
        let mut chars = after.chars();
        let (one, two) = (chars.next(), chars.next());
        let is_character = one == Some('\\') || two == Some('\'');
        let length = if is_character {
            until_quote(after, '\'')
        } else {
            word(after)
        };
        return (Some(Kind::Literal), 1 + length);
    }
    if first.is_ascii_digit() {
        return (Some(Kind::Literal), word(rest));
    }
    if first.is_alphanumeric() || first == '_' {
        return (Some(Kind::Word), word(rest));
    }
    let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
    (Some(Kind::Sign), length)
}

fn word(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len())
}

/// The length up to and with the closing quote; a backslash hides what follows it.
fn until_quote(rest: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, c) in rest.char_indices() {
        if !hidden && c == quote {
            return at + 1;
        }
        hidden = !hidden && c == '\\';
    }
    rest.len()
}

/// The length of `#"..."#` with any number of `#`, or nothing when it is no such thing.
fn raw_string(rest: &str) -> Option<usize> {
    let signs = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[signs..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(signs));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(signs + 1 + length)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &str) {
        let texts: Vec<&str> = code(source).iter().map(|token| token.text).collect();
        assert_eq!(texts.join(" "), expected);
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("use a::b; // use c::d", "use a :: b ;");
        check("a /* b /* c */ d */ e", "a e");
        check(
            r##"f("use \" x", r#"a " b"#, b"y", 'z', '\'', 1_000u32) g"##,
            "f ( , , , , , ) g",
        );
        check("fn f<'a>(x: &'a str) {}", "fn f < > ( x : & str ) { }");
        check("r#type r", "r # type r");
        check("\"unclosed", "");
    }

    #[test]
    fn lines_are_counted_through_literals() {
        let found = tokens("a\n\"x\ny\"\nb /*\n*/ c");
        let lines: Vec<(&str, usize)> = found.iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(lines, [("a", 1), ("\"x\ny\"", 2), ("b", 4), ("/*\n*/", 4), ("c", 5)]);
    }
}
