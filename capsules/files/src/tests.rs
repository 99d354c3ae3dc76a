//! The capsule over the fake kernel: each topic, what it refuses, and what hostile requests and trees get.

#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::error::FsError;
use astrid_sdk::testing::{Asked, Harness};

use super::*;

mod editing;
mod trees;

pub(crate) type Files = Harness<FilesCapsule>;

pub(crate) fn files() -> Files {
    Harness::new::<FilesCapsule>().with_manifest(include_str!("../Capsule.toml"))
}

pub(crate) fn ask(files: &mut Files, verb: &str, request: Value) -> Asked {
    files.ask(&format!("tool.v1.files.{verb}"), request)
}

pub(crate) fn done(files: &mut Files, verb: &str, request: Value) -> Value {
    ask(files, verb, request).json()
}

#[track_caller]
pub(crate) fn refused(files: &mut Files, verb: &str, request: Value) -> Problem {
    ask(files, verb, request).refused()
}

#[test]
fn lines_are_read_in_parts() {
    let mut files = files();
    let text: String = (1..=10).map(|line| format!("line {line}\n")).collect();
    files.put_file("workspace://a.txt", &text);
    let read = done(&mut files, "read_text", json!({ "path": "a.txt" }));
    assert_eq!(read["text"], text);
    assert_eq!((&read["truncated"], &read["lines"]), (&json!(false), &json!(10)));
    assert_eq!(
        (&read["encoding"], &read["line_endings"]),
        (&json!("utf-8"), &json!("lf"))
    );
    assert_eq!(read["hash"].as_str().unwrap().len(), 64);
    let read = done(
        &mut files,
        "read_text",
        json!({ "path": "workspace://a.txt", "offset": 2, "limit": 3 }),
    );
    assert_eq!(read["text"], "line 3\nline 4\nline 5\n");
    assert_eq!((&read["truncated"], &read["next_offset"]), (&json!(true), &json!(5)));
    let read = done(
        &mut files,
        "read_text",
        json!({ "path": "a.txt", "offset": 7, "limit": 3 }),
    );
    assert_eq!((&read["truncated"], &read["lines"]), (&json!(false), &json!(3)));
    let read = done(&mut files, "read_text", json!({ "path": "a.txt", "bytes_max": 20 }));
    assert_eq!(
        (&read["text"], &read["next_offset"]),
        (&json!("line 1\nline 2\n"), &json!(2))
    );
    let read = done(&mut files, "read_text", json!({ "path": "a.txt", "offset": 99 }));
    assert_eq!((&read["text"], &read["lines"]), (&json!(""), &json!(0)));
}

/// Reading on from `next_offset` gives the whole text, whatever the limits and however the file ends.
#[test]
fn parts_make_the_whole() {
    let mut files = files();
    for text in ["", "a", "a\n", "\n\n\n", "a\nbb\r\n\nccc", "ä\nöö\nüüü\n"] {
        files.put_file("workspace://a", text);
        for (limit, bytes_max) in [(1, 100), (2, 100), (100, 7), (100, 9)] {
            let (mut whole, mut offset) = (String::new(), 0);
            loop {
                let request = json!({ "path": "a", "offset": offset, "limit": limit, "bytes_max": bytes_max });
                let read = done(&mut files, "read_text", request);
                assert_eq!(read.get("cut"), None);
                whole.push_str(read["text"].as_str().unwrap());
                let Some(next) = read.get("next_offset") else { break };
                assert!(next.as_u64() > Some(offset));
                offset = next.as_u64().unwrap();
            }
            assert_eq!(whole, text, "{limit} lines, {bytes_max} bytes");
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_cut_between_characters() {
    let mut files = files();
    files.put_file("workspace://a", format!("{}\nnext\n", "ä".repeat(2 << 20)));
    let read = done(&mut files, "read_text", json!({ "path": "a", "bytes_max": 11 }));
    assert_eq!((&read["text"], &read["cut"]), (&json!("äääää"), &json!(true)));
    let next = json!({ "path": "a", "offset": read["next_offset"], "bytes_max": 11 });
    assert_eq!(done(&mut files, "read_text", next)["text"], "next\n");
}

#[test]
fn encodings_are_told_and_what_is_no_text_is_refused() {
    let mut files = files();
    let wide: Vec<u8> = "a\r\nü".encode_utf16().flat_map(u16::to_le_bytes).collect();
    files.put_file("workspace://wide", [&[0xff, 0xfe], wide.as_slice()].concat());
    let read = done(&mut files, "read_text", json!({ "path": "wide" }));
    assert_eq!(
        (&read["text"], &read["encoding"]),
        (&json!("a\r\nü"), &json!("utf-16le"))
    );
    assert_eq!(read["line_endings"], "crlf");
    files.put_file("workspace://marked", b"\xef\xbb\xbfa");
    let read = done(&mut files, "read_text", json!({ "path": "marked" }));
    assert_eq!((&read["text"], &read["encoding"]), (&json!("a"), &json!("utf-8-bom")));
    for bytes in [b"a\0b".as_slice(), b"\xff", b"a\xc3", b"\xff\xfea"] {
        files.put_file("workspace://bad", bytes);
        let problem = refused(&mut files, "read_text", json!({ "path": "bad" }));
        assert_eq!(problem.code(), "files.not-text", "{bytes:?}");
        assert!(problem.hint().unwrap().contains("read_bin"));
    }
}

#[test]
fn bytes_are_read_in_parts_as_base64_or_as_they_are() {
    let mut files = files();
    files.put_file("tmp://a", [0, 1, 2, 3, 4, 5]);
    let read = done(
        &mut files,
        "read_bin",
        json!({ "path": "tmp://a", "offset": 1, "length": 3 }),
    );
    assert_eq!((&read["base64"], &read["truncated"]), (&json!("AQID"), &json!(true)));
    assert_eq!((&read["size"], &read["length"]), (&json!(6), &json!(3)));
    let raw = ask(
        &mut files,
        "read_bin",
        json!({ "path": "tmp://a", "offset": 4, "format": "raw" }),
    )
    .body();
    assert_eq!(raw.content_type, "application/octet-stream; offset=4; size=6");
    assert_eq!(raw.bytes, [4, 5]);
    let read = done(&mut files, "read_bin", json!({ "path": "tmp://a", "offset": u64::MAX }));
    assert_eq!((&read["base64"], &read["truncated"]), (&json!(""), &json!(false)));
}

#[test]
fn texts_are_written_under_conditions() {
    let mut files = files();
    let written = done(&mut files, "write_text", json!({ "path": "a", "text": "one" }));
    let problem = refused(
        &mut files,
        "write_text",
        json!({ "path": "a", "text": "x", "existing": "keep" }),
    );
    assert_eq!(problem.code(), "fs.exists");
    let problem = refused(
        &mut files,
        "write_text",
        json!({ "path": "b", "text": "x", "existing": "require" }),
    );
    assert_eq!(problem.code(), "fs.not-found");
    let request = json!({ "path": "a", "text": "two", "expected": written["hash"] });
    done(&mut files, "write_text", request.clone());
    let problem = refused(&mut files, "write_text", request);
    assert_eq!(problem.code(), "fs.changed");
    assert_eq!(files.file("workspace://a").unwrap(), b"two");
    let problem = refused(&mut files, "write_text", json!({ "path": "d/e/f", "text": "x" }));
    assert_eq!(problem.code(), "fs.not-found");
    assert!(problem.hint().unwrap().contains("parents"));
    done(
        &mut files,
        "write_text",
        json!({ "path": "d/e/f", "text": "x", "parents": true }),
    );
    done(
        &mut files,
        "write_text",
        json!({ "path": "top", "text": "x", "parents": true }),
    );
    let problem = refused(
        &mut files,
        "write_text",
        json!({ "path": "a", "text": "x", "expected": "abc" }),
    );
    assert_eq!(problem.code(), "invalid");
}

#[test]
fn names_are_looked_at_made_moved_and_removed() {
    let mut files = files();
    done(&mut files, "make_dir", json!({ "path": "a/b", "parents": true }));
    done(&mut files, "write_text", json!({ "path": "a/b/c", "text": "x" }));
    let known = done(&mut files, "stat", json!({ "path": "a/b/c", "hash": true }));
    assert_eq!((&known["kind"], &known["size"]), (&json!("file"), &json!(1)));
    assert!(known["hash"].is_string() && known["changed"] == true);
    files.put_link("workspace://l", "a/b/c");
    let known = done(&mut files, "stat", json!({ "path": "l", "link": true }));
    assert_eq!((&known["kind"], &known["target"]), (&json!("link"), &json!("a/b/c")));
    done(&mut files, "rename", json!({ "from": "a/b", "to": "x" }));
    assert_eq!(
        refused(&mut files, "remove", json!({ "path": "x" })).code(),
        "fs.not-empty"
    );
    done(&mut files, "remove", json!({ "path": "x", "recursive": true }));
    assert_eq!(files.paths(), ["workspace://a", "workspace://l"]);
}

#[test]
fn a_denial_names_the_grant_that_is_missing() {
    let mut files = files();
    files.put_file("workspace://a", "a");
    files.speak_as("ada");
    files.grant_files(&["fs.read:/workspace/>"]);
    done(&mut files, "read_text", json!({ "path": "a" }));
    let problem = refused(&mut files, "write_text", json!({ "path": "a", "text": "b" }));
    assert_eq!(problem.code(), "denied");
    assert!(
        problem
            .hint()
            .unwrap()
            .ends_with("astrid caps grant ada fs.write:/workspace/a`"),
        "{problem:?}"
    );
    let problem = refused(&mut files, "read_text", json!({ "path": "home://x" }));
    assert!(
        problem
            .hint()
            .unwrap()
            .ends_with("astrid caps grant ada fs.read:/home/x`"),
        "{problem:?}"
    );
    let why = FsError::Denied("ada may not fs.read:/tmp/x: it is revoked; it needs no such revoke".to_owned());
    let problem = FilesError::reading("tmp://x")(why).told_to("ada");
    assert_eq!(
        (problem.message(), problem.hint()),
        (
            "tmp://x: denied: ada may not fs.read:/tmp/x: it is revoked",
            Some("it needs no such revoke")
        )
    );
    files.detach_workspace();
    let problem = refused(&mut files, "list_dir", json!({}));
    assert_eq!(problem.code(), "fs.no-workspace");
    assert!(problem.hint().unwrap().contains("astrid workspace attach"));
}

/// K-wide: hostile input is a typed refusal.
#[test]
fn hostile_requests_are_refused() {
    let mut files = files();
    files.put_file("workspace://a", "a");
    files.put_link("workspace://out", "../../etc/passwd");
    files.put_device("workspace://tty");
    let long = "x".repeat(5_000);
    for path in [
        "..",
        "a/../..",
        "/etc/passwd",
        "workspace:///etc",
        "a\0b",
        "file:///etc/passwd",
        "a//b",
        &long,
    ] {
        for verb in [
            "read_text",
            "read_bin",
            "list_dir",
            "search",
            "stat",
            "make_dir",
            "remove",
        ] {
            let mut request = json!({ "path": path });
            if verb == "search" {
                request["pattern"] = "x".into();
            }
            assert_eq!(refused(&mut files, verb, request).code(), "invalid", "{verb} {path:?}");
        }
    }
    assert_eq!(
        refused(&mut files, "read_text", json!({ "path": "out" })).code(),
        "fs.escapes"
    );
    assert_eq!(
        refused(&mut files, "read_text", json!({ "path": "tty" })).code(),
        "unsupported"
    );
    assert_eq!(
        refused(&mut files, "read_text", json!({ "path": "a", "line": 1 })).code(),
        "invalid"
    );
    for (verb, request) in [
        ("read_text", json!({ "path": "a", "limit": 0 })),
        ("read_text", json!({ "path": "a", "bytes_max": 5 << 20 })),
        ("read_bin", json!({ "path": "a", "length": 9 << 20 })),
        ("list_dir", json!({ "depth": 51 })),
        ("list_dir", json!({ "limit": 10_001 })),
        ("list_dir", json!({ "glob": ["{"] })),
        ("list_dir", json!({ "glob": vec!["x"; 65] })),
        ("search", json!({ "pattern": "x", "context": 21 })),
        ("search", json!({ "pattern": "x", "cursor": "nonsense" })),
    ] {
        assert_eq!(
            refused(&mut files, verb, request.clone()).code(),
            "invalid",
            "{verb} {request}"
        );
    }
    files.refuse_file("workspace://a", FsError::Busy);
    assert_eq!(
        refused(&mut files, "read_text", json!({ "path": "a" })).code(),
        "fs.busy"
    );
}
