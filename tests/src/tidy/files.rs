//! What every file looks like.

use super::tokens::{Kind, tokens};
use super::{report, rust_sources, sources};

/// Lines of a source file. Past that it holds two things, and a reader who looks for one of them reads both.
const LINES_MAX: usize = 800;

/// Words that put off what is not done. In pieces, so that this file obeys its own rule.
const MARKERS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

/// Words that tell history, which is git's to tell.
const HISTORY: [&str; 2] = [concat!("previ", "ously"), concat!("form", "erly")];

#[test]
fn files_are_short() {
    let places: Vec<String> = sources(&[".rs", ".sh", ".wit"])
        .iter()
        .filter(|source| !source.path.ends_with("/generated.rs"))
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    report(
        "a file has at most 800 lines; split it by what its parts are for",
        &places,
    );
}

#[test]
fn every_module_says_what_it_is_for() {
    let places: Vec<String> = rust_sources("")
        .iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| format!("{}:1", source.path))
        .collect();
    report(
        "a module begins with `//!`: what it is for, why so, and what is deliberately not in it",
        &places,
    );
}

#[test]
fn nothing_is_put_off() {
    let mut places = Vec::new();
    for source in sources(&[".rs", ".sh", ".wit", ".toml", ".md", ".proto", "Makefile"]) {
        for (number, line) in source.text.lines().enumerate() {
            for word in words(line).filter(|word| MARKERS.contains(word)) {
                places.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    report(
        "what is not done is not announced in the source; do it, or leave it out",
        &places,
    );
}

#[test]
fn comments_give_todays_reason() {
    let mut places = Vec::new();
    for source in rust_sources("") {
        for token in tokens(&source.text).iter().filter(|token| token.kind == Kind::Comment) {
            places.extend(past(token.text).map(|what| format!("{}:{}: {what}", source.path, token.line)));
        }
    }
    for source in sources(&[".sh", ".wit", ".toml", "Makefile"]) {
        for (number, line) in source.text.lines().enumerate() {
            places.extend(past(line).map(|what| format!("{}:{}: {what}", source.path, number + 1)));
        }
    }
    report(
        "a comment gives the reason of today: no numbers of issues, no history",
        &places,
    );
}

/// What in a comment points at the past: a number of an issue, or a word of history.
fn past(text: &str) -> Option<String> {
    if let Some(word) = words(text).find(|word| HISTORY.contains(&word.to_lowercase().as_str())) {
        return Some(word.to_owned());
    }
    let mut all = words(text).peekable();
    while let Some(word) = all.next() {
        if word.eq_ignore_ascii_case("issue")
            && let Some(number) = all.peek().filter(|next| next.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Some(format!("{word} {number}"));
        }
    }
    // `#12` as a word of its own; `r#1`, `$#` and colours are something else.
    text.split(|c: char| c.is_whitespace() || "(),.;:".contains(c))
        .find(|piece| {
            piece
                .strip_prefix('#')
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(str::to_owned)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

#[test]
fn crates_share_the_lints_and_the_licence() {
    let mut places = Vec::new();
    for manifest in sources(&["Cargo.toml"]) {
        if !manifest.text.contains("[package]") {
            continue;
        }
        for (needed, what) in [
            ("[lints]\nworkspace = true", "lints"),
            ("license.workspace = true", "licence"),
        ] {
            if !manifest.text.contains(needed) {
                places.push(format!("{}: has no {what} from the workspace", manifest.path));
            }
        }
    }
    report("a crate takes lints and licence from its workspace", &places);
}

#[test]
fn what_points_at_the_past_is_found() {
    for (text, expected) in [
        ("// see #12", Some("#12")),
        ("// Issue 3 wants it", Some("Issue 3")),
        (concat!("// was previ", "ously a map"), Some(concat!("previ", "ously"))),
        ("// the issue is that 3 are too many", None),
        ("x = \"#fff\" $# r#1 a#2", None),
    ] {
        assert_eq!(past(text).as_deref(), expected, "{text}");
    }
}
