//! `edit`: what is replaced, what is refused, and that nothing else changes.

use astrid_sdk::prelude::*;
use proptest::prelude::*;

use super::{done, files, refused};
use crate::decode::{Encoding, encode};
use crate::edit::{Edit, Edited, apply};
use crate::error::FilesError;

fn edit(old: &str, new: &str) -> Edit {
    Edit {
        old: old.to_owned(),
        new: new.to_owned(),
    }
}

fn edited(text: &str, edits: &[(&str, &str)]) -> Result<Edited, FilesError> {
    let edits: Vec<Edit> = edits.iter().map(|(old, new)| edit(old, new)).collect();
    apply("f", text, &edits)
}

/// Applies a unified diff, strictly.
fn patched(text: &str, diff: &str) -> String {
    let old: Vec<&str> = text.split_inclusive('\n').collect();
    let (mut new, mut at) = (String::new(), 0);
    let mut lines = diff.split_inclusive('\n').skip(2).peekable();
    while let Some(line) = lines.next() {
        if let Some(ranges) = line.strip_prefix("@@ -") {
            let (start, rest) = ranges.split_once(',').unwrap();
            let count = rest.split(' ').next().unwrap();
            let start: usize = start.parse().unwrap();
            let start = if count == "0" { start } else { start - 1 };
            assert!(start >= at, "hunks overlap: {diff}");
            new.extend(old[at..start].iter().copied());
            let (_, range) = rest.split_once('+').unwrap();
            let (new_start, rest) = range.split_once(',').unwrap();
            let (new_start, empty) = (new_start.parse::<usize>().unwrap(), rest.starts_with("0 "));
            let before = new.split_inclusive('\n').count();
            assert_eq!(before, new_start - usize::from(!empty), "{diff}");
            at = start;
            continue;
        }
        let mut content = line[1..].to_owned();
        if lines.peek().is_some_and(|next| next.starts_with('\\')) {
            lines.next();
            content.pop();
        }
        if !line.starts_with('+') {
            assert_eq!(old[at], content, "{diff}");
            at += 1;
        }
        if !line.starts_with('-') {
            new.push_str(&content);
        }
    }
    new.extend(old[at..].iter().copied());
    new
}

#[test]
fn a_file_is_edited_and_what_changed_is_shown() {
    let mut files = files();
    let text: String = (1..=20).map(|line| format!("line {line}\n")).collect();
    files.put_file("workspace://a", &text);
    let read = done(&mut files, "read_text", json!({ "path": "a" }));
    let edits = json!([{ "old": "line 2\n", "new": "" }, { "old": "line 15", "new": "LINE 15\nand more" }]);
    let answer = done(
        &mut files,
        "edit",
        json!({ "path": "a", "edits": edits, "expected": read["hash"] }),
    );
    assert_eq!(
        answer["diff"],
        "--- workspace://a\n+++ workspace://a\n@@ -1,5 +1,4 @@\n line 1\n-line 2\n line 3\n line 4\n line 5\n\
         @@ -12,7 +11,8 @@\n line 12\n line 13\n line 14\n-line 15\n+LINE 15\n+and more\n line 16\n line 17\n line 18\n"
    );
    assert_eq!(
        answer["hash"],
        done(&mut files, "stat", json!({ "path": "a", "hash": true }))["hash"]
    );
    let again = json!({ "path": "a", "edits": [{ "old": "line 3", "new": "x" }], "expected": read["hash"] });
    assert_eq!(refused(&mut files, "edit", again).code(), "fs.changed");
}

#[test]
fn what_does_not_match_once_is_refused_with_its_places() {
    let text = "fn a() {\n    one();\n}\nfn b() {\n    one();\n}\n";
    let error = edited(text, &[("two();", "x")]).unwrap_err();
    assert_eq!(error.to_string(), "f: edits[0].old is not in the file");
    let error = edited(text, &[("fn a", "fn c"), ("one();", "x")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "f: edits[1].old is in the file 2 times, in lines 2, 5"
    );
    let error = edited(text, &[("fn b() {\n\tone();", "x")]).unwrap_err();
    assert!(
        error.to_string().ends_with("but with other white space in line 4"),
        "{error}"
    );
    let error = edited(text, &[("fn b() {\n    two();", "x")]).unwrap_err();
    assert!(error.to_string().ends_with("but its first line is line 4"), "{error}");
    let error = edited("aaa", &[("aa", "x")]).unwrap_err();
    assert!(
        matches!(error, FilesError::ManyMatches { .. }),
        "places that overlap are two"
    );
    let error = edited(&"x\n".repeat(100), &[("x", "y")]).unwrap_err();
    assert!(error.to_string().contains("more than 20 times"), "{error}");
    let error = edited("abc\n", &[("ab", "x"), ("bc", "y")]).unwrap_err();
    assert_eq!(error.to_string(), "f: edits[0] and edits[1] overlap in line 1");
    for edits in [vec![], vec![("", "x")], vec![("a", "a")], vec![("a", "b"); 101]] {
        assert!(matches!(edited("a", &edits), Err(FilesError::Invalid(_))), "{edits:?}");
    }
}

#[test]
fn nothing_is_written_when_one_replacement_is_refused() {
    let mut files = files();
    files.put_file("workspace://a", "one\n");
    let edits = json!([{ "old": "one", "new": "two" }, { "old": "three", "new": "x" }]);
    assert_eq!(
        refused(&mut files, "edit", json!({ "path": "a", "edits": edits })).code(),
        "files.no-match"
    );
    assert_eq!(files.file("workspace://a").unwrap(), b"one\n");
    files.put_file("workspace://bin", [0, 1]);
    let edits = json!([{ "old": "one", "new": "two" }]);
    assert_eq!(
        refused(&mut files, "edit", json!({ "path": "bin", "edits": edits })).code(),
        "files.not-text"
    );
    files.put_file("workspace://big", vec![b'x'; (16 << 20) + 1]);
    assert_eq!(
        refused(&mut files, "edit", json!({ "path": "big", "edits": edits })).code(),
        "too-large"
    );
}

#[test]
fn line_endings_and_encodings_stay() {
    let mut files = files();
    for encoding in [Encoding::Utf8, Encoding::Utf8Bom, Encoding::Utf16Le, Encoding::Utf16Be] {
        files.put_file("workspace://a", encode("one\r\ntwo\r\nthree\r\n".to_owned(), encoding));
        let edits = json!([{ "old": "one\ntwo\n", "new": "1\n2\n3\n" }]);
        done(&mut files, "edit", json!({ "path": "a", "edits": edits }));
        let expected = encode("1\r\n2\r\n3\r\nthree\r\n".to_owned(), encoding);
        assert_eq!(files.file("workspace://a").unwrap(), expected, "{encoding:?}");
    }
    // Where lines end in both ways, only what is written matches.
    assert!(edited("a\r\nb\n", &[("a\nb", "x")]).is_err());
    assert_eq!(edited("a\r\nb\n", &[("a\r\nb", "x")]).unwrap().text, "x\n");
}

#[test]
fn diffs_at_the_ends_of_a_file() {
    for (text, edits) in [
        ("a", vec![("a", "b")]),
        ("a", vec![("a", "")]),
        ("a\n", vec![("a\n", "")]),
        ("a\nb", vec![("b", "b\n")]),
        ("a\nb\n", vec![("b\n", "b")]),
        ("a\nb\nc\n", vec![("a\n", ""), ("c\n", "d\nc\n")]),
        ("a\nb\nc\n", vec![("a\nb", "x"), ("\nc", "y")]),
        ("a\nb\nc\n", vec![("a\n", "x"), ("c", "z")]),
    ] {
        let result = edited(text, &edits).unwrap();
        assert_eq!(
            patched(text, &result.diff.text),
            result.text,
            "{text:?} {edits:?}\n{}",
            result.diff.text
        );
    }
}

#[test]
fn a_long_diff_is_cut() {
    let result = edited(
        &format!("{}a\n", "x\n".repeat(1 << 20)),
        &[("a", &"y\n".repeat(100_000))],
    )
    .unwrap();
    assert!(result.diff.cut && result.diff.text.len() <= crate::limits::DIFF_BYTES);
    assert!(result.diff.text.ends_with("+y\n"));
}

prop_compose! {
    /// A text of distinct lines, and replacements of some of their spans.
    fn case()(
        lines in proptest::collection::vec(("[a-c ]{0,3}", prop::bool::ANY), 1..30),
        crlf in prop::bool::ANY,
        spans in proptest::collection::btree_map(0..2_000usize, (1..25usize, "[xy\n]{0,6}"), 1..6),
        ended in prop::bool::ANY,
    ) -> (String, Vec<(String, String)>) {
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text: String = lines
            .iter()
            .enumerate()
            .map(|(index, (words, marked))| match marked {
                true => format!("{words}#{index};{end}"),
                false => format!("{words}{end}"),
            })
            .collect();
        if !ended {
            text.truncate(text.len() - end.len());
        }
        let mut edits = Vec::new();
        let mut free = 0;
        for (start, (length, new)) in spans {
            let start = free.max(start % text.len().max(1));
            let end = (start + length).min(text.len());
            if start < end && text.is_char_boundary(start) && text.is_char_boundary(end) {
                edits.push((text[start..end].to_owned(), new));
                free = end;
            }
        }
        (text, edits)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is unique is replaced and nothing else, in any order; what is not is refused; and the diff leads from one text to the other.
    #[test]
    fn edits_do_what_replacing_does((text, mut edits) in case(), reversed in prop::bool::ANY) {
        if reversed {
            edits.reverse();
        }
        let list: Vec<Edit> = edits.iter().map(|(old, new)| edit(old, new)).collect();
        let crlf = text.contains("\r\n") && !text.replace("\r\n", "").contains('\n');
        let adapted = |text: &str| match crlf && !text.contains('\r') {
            true => text.replace('\n', "\r\n"),
            false => text.to_owned(),
        };
        let places = |old: &str| (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(old.as_bytes())).count();
        let unique = list.iter().all(|edit| places(&adapted(&edit.old)) == 1);
        match apply("f", &text, &list) {
            Ok(result) => {
                prop_assert!(unique);
                let mut expected = text.clone();
                let mut spans: Vec<_> = list.iter().map(|edit| (text.find(&adapted(&edit.old)).unwrap(), edit)).collect();
                spans.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
                for (at, edit) in spans {
                    let old = adapted(&edit.old);
                    expected.replace_range(at..at + old.len(), &adapted(&edit.new));
                }
                prop_assert_eq!(&result.text, &expected);
                prop_assert_eq!(patched(&text, &result.diff.text), expected, "{}", result.diff.text);
            }
            Err(FilesError::NoMatch { .. } | FilesError::ManyMatches { .. }) => prop_assert!(!unique),
            Err(FilesError::Overlap { .. } | FilesError::Invalid(_)) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// No text and no replacement makes it panic.
    #[test]
    fn nothing_makes_it_panic(text in "[ab\r\n€]{0,30}", edits in proptest::collection::vec(("[ab\r\n€]{0,3}", "[ab\n€]{0,3}"), 0..4)) {
        let list: Vec<Edit> = edits.iter().map(|(old, new)| edit(old, new)).collect();
        if let Ok(result) = apply("f", &text, &list) {
            prop_assert_eq!(patched(&text, &result.diff.text), result.text);
        }
    }
}
