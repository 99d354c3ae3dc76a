//! `list_dir` and `search`: order, globs, ignore files, cursors, and what they cost.

use astrid_sdk::error::FsError;
use astrid_sdk::prelude::*;

use super::{Files, done, files, refused};
use crate::limits;
use crate::pattern::{Case, Pattern};

fn project() -> Files {
    let mut files = files();
    for (path, text) in [
        (".gitignore", "target/\n*.log\n!keep.log\n/top.txt\n"),
        (".git/config", "[core]\n"),
        ("Cargo.toml", "[package]\n"),
        ("a.log", "needle\n"),
        ("keep.log", "needle\n"),
        ("src/.gitignore", "gen/\n!b.log\n"),
        ("src/b.log", "x\n"),
        ("src/gen/out.rs", "needle\n"),
        ("src/lib.rs", "//! Needle\nfn needle() {}\n"),
        ("src/top.txt", "x\n"),
        ("target/debug/x.rs", "needle\n"),
        ("top.txt", "needle\n"),
    ] {
        files.put_file(&format!("workspace://{path}"), text);
    }
    files
}

fn names(answer: &Value) -> Vec<&str> {
    let entries = answer["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["path"].as_str().unwrap()).collect()
}

#[test]
fn a_directory_is_listed_without_what_git_ignores() {
    let mut files = project();
    let listed = done(&mut files, "list_dir", json!({}));
    assert_eq!(names(&listed), [".gitignore", "Cargo.toml", "keep.log", "src"]);
    assert_eq!((&listed["truncated"], listed.get("cursor")), (&json!(false), None));
    let listed = done(&mut files, "list_dir", json!({ "depth": 50 }));
    let all = [
        ".gitignore",
        "Cargo.toml",
        "keep.log",
        "src",
        "src/.gitignore",
        "src/b.log",
        "src/lib.rs",
        "src/top.txt",
    ];
    assert_eq!(names(&listed), all);
    // Rules of the directories above hold, too; what is asked for by name is shown.
    assert_eq!(
        names(&done(&mut files, "list_dir", json!({ "path": "src" }))),
        [".gitignore", "b.log", "lib.rs", "top.txt"]
    );
    assert_eq!(
        names(&done(&mut files, "list_dir", json!({ "path": "target/debug" }))),
        ["x.rs"]
    );
    let listed = done(&mut files, "list_dir", json!({ "ignored": true }));
    assert_eq!(names(&listed).len(), 8);
}

#[test]
fn globs_choose_what_is_listed() {
    let mut files = project();
    let mut list = |globs: Value| {
        let listed = done(
            &mut files,
            "list_dir",
            json!({ "depth": 9, "glob": globs, "ignored": true }),
        );
        names(&listed).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        list(json!(["*.rs"])),
        ["src/gen/out.rs", "src/lib.rs", "target/debug/x.rs"]
    );
    assert_eq!(list(json!(["src/*.rs"])), ["src/lib.rs"]);
    assert_eq!(list(json!(["*.rs", "!target"])), ["src/gen/out.rs", "src/lib.rs"]);
    assert_eq!(
        list(json!(["!src", "!target", "!.git", "!*.log"])),
        [".gitignore", "Cargo.toml", "top.txt"]
    );
    assert_eq!(list(json!(["src"])).first().map(String::as_str), Some("src"));
}

/// Pages of any size are the whole, in the same order.
#[test]
fn cursors_go_on_where_it_stopped() {
    let mut files = project();
    for directory in 0..3 {
        for file in 0..80 {
            files.put_file(&format!("workspace://many/d{directory}/f{file:02}"), "needle\n");
        }
    }
    let all = done(&mut files, "list_dir", json!({ "depth": 9, "limit": 10_000 }));
    let all: Vec<String> = names(&all).into_iter().map(str::to_owned).collect();
    assert!(all.is_sorted_by_key(|path| path.split('/').map(str::to_owned).collect::<Vec<_>>()));
    for limit in [1, 2, 7, 100] {
        let (mut listed, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = done(
                &mut files,
                "list_dir",
                json!({ "depth": 9, "limit": limit, "cursor": cursor }),
            );
            assert!(names(&page).len() <= limit);
            listed.extend(names(&page).into_iter().map(str::to_owned));
            match page.get("cursor") {
                Some(next) => cursor = next.clone(),
                None => break,
            }
        }
        assert_eq!(listed, all, "pages of {limit}");
    }
    let places = |answer: &Value| -> Vec<String> {
        let matches = answer["matches"].as_array().unwrap();
        matches
            .iter()
            .map(|found| format!("{}:{}", found["path"].as_str().unwrap(), found["line"]))
            .collect()
    };
    let all = places(&done(
        &mut files,
        "search",
        json!({ "pattern": "needle|Needle", "limit": 2_000 }),
    ));
    assert_eq!(all.len(), 243);
    for limit in [1, 7, 100] {
        let (mut found, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = done(
                &mut files,
                "search",
                json!({ "pattern": "needle|Needle", "limit": limit, "cursor": cursor }),
            );
            found.extend(places(&page));
            match page.get("cursor") {
                Some(next) => cursor = next.clone(),
                None => break,
            }
        }
        assert_eq!(found, all, "pages of {limit}");
    }
}

#[test]
fn what_may_not_be_read_and_what_is_odd_is_passed_over() {
    let mut files = project();
    files.put_link("workspace://loop", ".");
    files.put_device("workspace://tty");
    files.put_file("workspace://odd\nname", "needle");
    files.put_file("workspace://bin", b"needle\0");
    files.grant_files(&["fs.read:/workspace/*", "fs.read:/workspace/src/lib.rs"]);
    let listed = done(&mut files, "list_dir", json!({ "depth": 9 }));
    // The directory `src` may be read and its `.gitignore` not, so that `gen` is there, which may not be read.
    let shown = [
        ".gitignore",
        "Cargo.toml",
        "bin",
        "keep.log",
        "loop",
        "src",
        "src/.gitignore",
        "src/gen",
        "src/lib.rs",
        "src/top.txt",
        "tty",
    ];
    assert_eq!(names(&listed), shown);
    assert_eq!((&listed["denied"], &listed["passed_over"]), (&json!(1), &json!(1)));
    let found = done(&mut files, "search", json!({ "pattern": "needle" }));
    assert_eq!(found["matches"].as_array().unwrap().len(), 2);
    assert_eq!((&found["denied"], &found["binary"]), (&json!(3), &json!(1)));
}

/// What the system does not let the daemon read, who may be another user than whoever made it, ends no walk; asked for itself it is told.
#[test]
fn what_the_daemon_cannot_read_is_passed_over() {
    let mut files = project();
    let closed = || FsError::Failed("the system denies it".to_owned());
    files.refuse_file("workspace://src", closed());
    files.refuse_file("workspace://Cargo.toml", closed());
    let listed = done(&mut files, "list_dir", json!({ "depth": 9 }));
    assert_eq!(listed["denied"], json!(1));
    let found = done(&mut files, "search", json!({ "pattern": "needle" }));
    assert_eq!(found["denied"], json!(2));
    assert_eq!(
        refused(&mut files, "list_dir", json!({ "path": "src" })).code(),
        "unavailable"
    );
}

#[test]
fn very_deep_trees_are_gone_into_as_far_as_handles_last() {
    let mut files = files();
    files.put_file(&format!("workspace://{}f", "d/".repeat(70)), "needle");
    files.put_file(&format!("workspace://{}f", "d/".repeat(50)), "needle");
    let found = done(&mut files, "search", json!({ "pattern": "needle" }));
    assert_eq!(found["matches"].as_array().unwrap().len(), 1);
    assert_eq!(found["passed_over"], 1);
}

#[test]
fn lines_are_found_with_their_places_and_context() {
    let mut files = project();
    files.put_file(
        "workspace://src/c.rs",
        "one\r\ntwo\r\nthe ünd needle\r\nfour\r\nneedle\r\n",
    );
    let request = json!({ "pattern": "needle", "path": "src", "glob": ["*.rs"], "context": 1 });
    let found = done(&mut files, "search", request);
    let first = &found["matches"][0];
    assert_eq!(
        (&first["path"], &first["line"]),
        (&json!("workspace://src/c.rs"), &json!(3))
    );
    assert_eq!(
        (&first["column"], &first["text"]),
        (&json!(9), &json!("the ünd needle"))
    );
    assert_eq!((&first["before"], &first["after"]), (&json!(["two"]), &json!(["four"])));
    assert_eq!(found["matches"][1]["before"], json!(["four"]));
    assert_eq!(found["matches"][1].get("after"), None);
    assert_eq!((&found["files"], &found["matches"][2]["line"]), (&json!(2), &json!(2)));
    let count = |files: &mut Files, request: Value| done(files, "search", request)["matches"].as_array().unwrap().len();
    assert_eq!(
        count(
            &mut files,
            json!({ "pattern": "Needle", "path": "src/lib.rs", "case": "insensitive" })
        ),
        2
    );
    assert_eq!(
        count(
            &mut files,
            json!({ "pattern": "needle", "path": "src/lib.rs", "case": "smart" })
        ),
        2
    );
    assert_eq!(
        count(
            &mut files,
            json!({ "pattern": "Needle", "path": "src/lib.rs", "case": "smart" })
        ),
        1
    );
    assert_eq!(
        count(
            &mut files,
            json!({ "pattern": "le() {", "path": "src/lib.rs", "literal": true })
        ),
        1
    );
    assert_eq!(
        count(&mut files, json!({ "pattern": "^fn .*\\}$", "path": "src/lib.rs" })),
        1
    );
    assert_eq!(
        count(&mut files, json!({ "pattern": "\\bünd\\b", "path": "src/c.rs" })),
        1
    );
    let wide: Vec<u8> = "\u{feff}a needle".encode_utf16().flat_map(u16::to_be_bytes).collect();
    files.put_file("workspace://wide", wide);
    assert_eq!(count(&mut files, json!({ "pattern": "a needle", "path": "wide" })), 1);
}

#[test]
fn patterns_that_cannot_be_searched_for_are_refused() {
    let mut files = project();
    for pattern in [
        "",
        "(",
        "a\\nb",
        "a\nb",
        "(?=x)",
        "(a)\\1",
        "\\w{1000}",
        "((((a{100}){100}){100}){100})",
    ] {
        let problem = refused(&mut files, "search", json!({ "pattern": pattern }));
        assert_eq!(problem.code(), "files.pattern", "{pattern:?}");
    }
    let deep = format!("{}a{}", "(".repeat(1_000), ")".repeat(1_000));
    assert_eq!(
        refused(&mut files, "search", json!({ "pattern": deep })).code(),
        "files.pattern"
    );
    files.put_file("workspace://bin", [0]);
    let problem = refused(&mut files, "search", json!({ "pattern": "x", "path": "bin" }));
    assert_eq!(problem.code(), "files.not-text");
}

/// A search over more than one request may cost answers with a part, and the parts find everything.
#[test]
fn a_large_tree_is_searched_in_parts() {
    let mut files = files();
    let text = format!("{}needle\n", "some other line of ordinary length\n".repeat(120_000));
    for file in 0..20 {
        files.put_file(&format!("workspace://f{file:02}"), &text);
    }
    let (mut found, mut cursor, mut requests) = (0, Value::Null, 0);
    loop {
        let before = files.read_bytes();
        let page = done(&mut files, "search", json!({ "pattern": "nee.le", "cursor": cursor }));
        assert!(files.read_bytes() - before < limits::SEARCHED_BYTES + limits::FILE_BYTES);
        found += page["matches"].as_array().unwrap().len();
        requests += 1;
        match page.get("cursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    assert_eq!(found, 20);
    assert!(requests > 1, "it was all done in one");
}

/// What is dear is counted as dear: with a pattern that makes a state for nearly each byte a search pauses after some of the text, and one
/// line alone never costs more than all of a search.
#[test]
fn a_dear_pattern_pauses_early() {
    let mut pattern = Pattern::new("[ab]*a[ab]{400}c", false, Case::Sensitive).unwrap();
    let mut state = 1u32;
    let line: Vec<u8> = (0..limits::SEARCHED_LINE_BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 31 == 0 { b'a' } else { b'b' }
        })
        .collect();
    let line = &line[..line.len().min(pattern.line_bytes_max())];
    pattern.find(line);
    let dear = pattern.work();
    assert!(dear > 100 * line.len() as u64, "{dear} for {} bytes", line.len());
    let mut pattern = Pattern::new("fn \\w+", false, Case::Sensitive).unwrap();
    for _ in 0..1_000 {
        pattern.find(b"    let some = other(line, of, code);");
    }
    assert!(pattern.work() < 20_000_000, "{}", pattern.work());
}
