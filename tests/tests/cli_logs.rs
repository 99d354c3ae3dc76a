//! `astrid logs`: the end of the log, and what is added to it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::ends;
use serde_json::Value;

/// A home whose log has these lines, with no daemon that writes more.
fn with_log(text: &str) -> Astrid {
    let astrid = Astrid::new();
    fs::create_dir_all(astrid.home().join("log")).unwrap();
    fs::write(astrid.home().join("log/astrid.log"), text).unwrap();
    astrid
}

fn append(astrid: &Astrid, text: &str) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(astrid.home().join("log/astrid.log"))
        .unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

#[test]
fn the_last_lines() {
    let astrid = with_log("one\ntwo\nthree\n");
    assert_eq!(astrid.run(&["logs", "-n", "2"]).ok().stdout, "two\nthree\n");
    assert_eq!(astrid.run(&["logs", "-n", "0"]).ok().stdout, "");
    assert_eq!(astrid.run(&["logs"]).ok().stdout, "one\ntwo\nthree\n");
    let json = astrid.run(&["logs", "-n", "1", "--format", "json"]).ok();
    assert_eq!(json.json()["line"], "three");
}

/// A daemon writes its log where `logs` reads it, and each line is a document in JSON.
#[test]
fn of_a_daemon() {
    let astrid = Astrid::started();
    let human = astrid.run(&["logs"]).ok();
    assert!(human.stdout.contains("ready"), "{human:?}");
    let json = astrid.run(&["logs", "--format", "json"]).ok();
    assert!(json.stdout.lines().count() > 0);
    for line in json.stdout.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

/// What is added comes without polling, across rotation and truncation.
#[test]
fn following() {
    let astrid = with_log("one\ntwo\n");
    let follow = astrid.spawn(&["logs", "-f", "-n", "1"]);
    let lines = follow.stdout.as_ref().unwrap();
    assert_eq!(lines.next_line().as_deref(), Some("two"));
    append(&astrid, "three\nfo");
    assert_eq!(lines.next_line().as_deref(), Some("three"));
    append(&astrid, "ur\n");
    assert_eq!(lines.next_line().as_deref(), Some("four"));
    // Rotated: the last words of the old file, then the new one from its start.
    let log = astrid.home().join("log/astrid.log");
    append(&astrid, "last");
    fs::rename(&log, log.with_extension("log.1")).unwrap();
    append(&astrid, "first\n");
    assert_eq!(lines.next_line().as_deref(), Some("last"));
    assert_eq!(lines.next_line().as_deref(), Some("first"));
    // Truncated: noticed by its being shorter than it was.
    fs::write(&log, "").unwrap();
    append(&astrid, "x\n");
    assert_eq!(lines.next_line().as_deref(), Some("x"));
}

/// Following can begin before there is a log, and ends when nobody reads.
#[test]
fn following_from_nothing() {
    let astrid = Astrid::new();
    fs::create_dir_all(astrid.home().join("log")).unwrap();
    let mut follow = astrid
        .command(&["logs", "-f"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(follow.stdout.take());
    assert!(ends(follow.id()));
    assert_eq!(follow.wait().unwrap().code(), Some(0));
    let follow = astrid.spawn(&["logs", "-f"]);
    append(&astrid, "one\n");
    assert_eq!(follow.stdout.as_ref().unwrap().next_line().as_deref(), Some("one"));
}

/// What was logged cannot steer a terminal.
#[test]
fn control_characters() {
    let astrid = with_log("a\u{1b}[2Jb\n");
    assert_eq!(astrid.run(&["logs"]).ok().stdout, "a\u{fffd}[2Jb\n");
}
