//! Talking through a daemon: bodies in and out, events as they come, and the ends of both.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{ends, run};
use serde_json::Value;

/// An event is one line, and everything about it in JSON.
#[test]
fn watch_and_publish() {
    let astrid = Astrid::started();
    let human = astrid.spawn(&["watch", "probe.v1.>", "--count", "3"]);
    human.stderr.as_ref().unwrap().wait_for("watching probe.v1.>");
    let mut command = astrid.command(&["watch", "probe.v1.*", "--count", "3", "--format", "json"]);
    let json = astrid_tests::process::spawn(&mut command);

    let _ = astrid.run(&["publish", "probe.v1.text", "two\nlines"]).ok();
    let _ = astrid.run(&["publish", "probe.v1.json", "{\"a\": [1, 2]}"]).ok();
    let _ = run(
        &mut astrid.command(&["publish", "probe.v1.bytes", "-"]),
        &[0xff, 0, 0x1b],
    )
    .ok();

    let stdout = human.stdout.as_ref().unwrap();
    let lines: Vec<String> = std::iter::from_fn(|| stdout.next_line()).collect();
    assert_eq!(
        lines,
        [
            "probe.v1.text default two\\nlines",
            "probe.v1.json default {\"a\":[1,2]}",
            "probe.v1.bytes default (3 bytes)"
        ]
    );
    assert_eq!(human.wait().code(), Some(0));

    // This one may have subscribed after the first were said: more are said until it has enough.
    let stdout = json.stdout.as_ref().unwrap();
    let mut events = Vec::new();
    for _ in 0..3 {
        let _ = astrid.run(&["publish", "probe.v1.more", "{\"n\": 1}"]).ok();
        let event: Value = serde_json::from_str(&stdout.next_line().unwrap()).unwrap();
        events.push(event);
    }
    for event in &events {
        let keys: Vec<_> = event.as_object().unwrap().keys().cloned().collect();
        for key in [
            "topic",
            "principal",
            "message_id",
            "content_type",
            "encoding",
            "body",
            "lost",
        ] {
            assert!(keys.iter().any(|found| found == key), "{key} is not in {event}");
        }
        assert_eq!(
            (event["principal"].as_str(), event["lost"].as_u64()),
            (Some("default"), Some(0)),
            "{event}"
        );
    }
    assert_eq!(json.wait().code(), Some(0));
}

/// `astrid watch ... | head -1` ends when `head` has, without a word, and without waiting for another event.
#[test]
fn a_reader_that_leaves_ends_a_watch() {
    let astrid = Astrid::started();
    let mut command = astrid.command(&["watch", ">"]);
    let mut watch = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut words = BufReader::new(watch.stderr.take().unwrap());
    let mut line = String::new();
    words.read_line(&mut line).unwrap();
    assert_eq!(line, "watching >\n");
    let _ = astrid.run(&["publish", "probe.v1.said", "x"]).ok();
    let mut reader = BufReader::new(watch.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    assert!(ends(watch.id()));
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    words.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

/// The same for what is written once.
#[test]
fn a_reader_that_is_gone_is_no_error() {
    let astrid = Astrid::started();
    for command in [
        "completions bash",
        "status",
        "capsule list",
        "request astrid.v1.request.status",
    ] {
        // The left side starts once the right side has closed the pipe.
        let script = format!("(read go <fifo; astrid {command}; echo $? >code) | (exec 0<&-; echo >fifo); cat code");
        let fifo = format!("rm -f fifo; mkfifo fifo; {script}");
        let outcome = run(&mut astrid.shell(&fifo), b"").ok();
        assert_eq!((outcome.stdout.trim(), outcome.stderr.as_str()), ("0", ""), "{command}");
    }
}

/// An answer is printed as it is; a document is typed by its file's name.
#[test]
fn documents_become_text() {
    let astrid = Astrid::started();
    let file = astrid.scratch().join("page.md");
    std::fs::write(&file, "# Title\n\nSome *words*.\n").unwrap();
    let at = format!("@{}", file.display());
    let outcome = astrid.run(&["request", "tool.v1.text.markdown", &at]).ok();
    assert!(
        outcome.stdout.contains("Title") && outcome.stdout.contains("words"),
        "{outcome:?}"
    );
    assert!(
        !outcome.stdout.contains('*') && outcome.stderr.is_empty(),
        "{outcome:?}"
    );

    let stdin = &mut astrid.command(&["request", "tool.v1.text.html", "-", "--content-type", "text/html"]);
    let outcome = run(stdin, b"<p>Some <b>words</b></p>").ok();
    assert!(
        outcome.stdout.contains("words") && !outcome.stdout.contains("<p>"),
        "{outcome:?}"
    );
}

/// A3: a body larger than a frame arrives.
#[test]
fn large_documents() {
    let astrid = Astrid::started();
    let file = astrid.scratch().join("large.md");
    std::fs::write(&file, "word word word word\n\n".repeat(15 * 1024 * 1024 / 21 + 10_000)).unwrap();
    let at = format!("@{}", file.display());
    let outcome = astrid
        .run(&["publish", "probe.v1.large", &at, "--format", "json"])
        .ok()
        .json();
    assert_eq!(outcome["bytes"].as_u64(), Some(std::fs::metadata(&file).unwrap().len()));
    assert_eq!(outcome["content_type"], "text/markdown");
}

/// A body that begins like an option is one.
#[test]
fn bodies_may_begin_with_a_hyphen() {
    let astrid = Astrid::started();
    let outcome = astrid
        .run(&["publish", "probe.v1.said", "-1", "--format", "json"])
        .ok()
        .json();
    assert_eq!(
        (outcome["bytes"].as_u64(), outcome["content_type"].as_str()),
        (Some(2), Some("application/json"))
    );
}

/// A daemon that stops ends the conversations with it, and they say so.
#[test]
fn a_watch_ends_with_the_daemon() {
    let astrid = Astrid::started();
    let watch = astrid.spawn(&["watch", "probe.v1.>"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    let _ = astrid.run(&["stop"]).ok();
    watch.stderr.as_ref().unwrap().wait_for("error: ");
    assert_eq!(watch.wait().code(), Some(3));
}
