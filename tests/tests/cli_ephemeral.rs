//! K5: a daemon that lives as long as it is used.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{ends, run};
use rustix::process::Signal;
use serde_json::Value;

/// It is there for the command, and gone at once after.
#[test]
fn around_a_command() {
    let astrid = Astrid::new();
    let status = astrid.run(&["--ephemeral", "status", "--format", "json"]).ok().json();
    assert_eq!(
        (status["mode"].as_str(), status["live"].as_bool()),
        (Some("ephemeral"), Some(true)),
        "{status}"
    );
    assert_eq!(status["home"], astrid.home().display().to_string());
    assert_eq!(astrid.run(&["status"]).code(), 3);
    assert!(!astrid.home().join("run/operator.sock").exists());
}

/// The command's failure is the whole's.
#[test]
fn around_a_command_that_fails() {
    let astrid = Astrid::new();
    let outcome = astrid.run(&["--ephemeral", "request", "nobody.v1.hears", "--format", "json"]);
    assert_eq!(outcome.code(), 1);
    assert_eq!(outcome.json_error()["error"]["problem"], "no-subscriber");
    assert_eq!(astrid.run(&["status"]).code(), 3);
}

/// With a daemon running it joins that, and leaves it running.
#[test]
fn joins_a_running_daemon() {
    let astrid = Astrid::started();
    let pid = astrid.pid();
    let status = astrid.run(&["--ephemeral", "status", "--format", "json"]).ok().json();
    assert_eq!(
        (status["pid"].as_u64(), status["mode"].as_str()),
        (Some(pid.into()), Some("persistent")),
        "{status}"
    );
    assert_eq!(astrid.pid(), pid);
    let outcome = astrid.run(&["--ephemeral"]).ok();
    assert!(outcome.stderr.contains(&pid.to_string()), "{outcome:?}");
}

/// Two at once share one, which ends when both are done, whichever of them started it.
#[test]
fn two_at_once() {
    let astrid = Astrid::new();
    let first = astrid.spawn(&["--ephemeral", "watch", "probe.v1.>", "--count", "1"]);
    first.stderr.as_ref().unwrap().wait_for("watching");
    let pid = astrid.pid();
    let second = astrid.spawn(&["--ephemeral", "watch", "probe.v1.other", "--count", "1"]);
    second.stderr.as_ref().unwrap().wait_for("watching");
    let _ = astrid.run(&["publish", "probe.v1.one", "x"]).ok();
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(astrid.pid(), pid);
    let _ = astrid.run(&["publish", "probe.v1.other", "x"]).ok();
    assert_eq!(second.wait().code(), Some(0));
    assert!(ends(pid));
}

/// A command that is killed takes its daemon with it.
#[test]
fn a_killed_command_leaves_nothing() {
    let astrid = Astrid::new();
    let watch = astrid.spawn(&["--ephemeral", "watch", "probe.v1.>"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    let pid = astrid.pid();
    watch.signal(Signal::KILL);
    watch.wait();
    assert!(ends(pid));
}

/// Several starts at once: all commands are served.
#[test]
fn commands_at_once() {
    let astrid = Astrid::new();
    let all: Vec<_> = (0..4)
        .map(|_| astrid.spawn(&["--ephemeral", "request", "astrid.v1.request.status", "{}"]))
        .collect();
    let mut daemons = BTreeSet::new();
    for one in all {
        let line = one.stdout.as_ref().unwrap().next_line();
        let line = line.unwrap_or_else(|| panic!("no answer: {:?}", one.stderr.as_ref().unwrap().wait_for("error")));
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["mode"], "ephemeral");
        assert_eq!(one.wait().code(), Some(0));
        daemons.insert(u32::try_from(answer["pid"].as_u64().unwrap()).unwrap());
    }
    // Who joined does not wait for the end of what it joined.
    assert!(daemons.into_iter().all(ends));
    assert_eq!(astrid.run(&["status"]).code(), 3);
}

/// Without a command: in the foreground, until nobody has been connected for as long as the environment says.
#[test]
fn in_the_foreground() {
    let astrid = Astrid::new();
    let daemon = astrid.foreground(&["--ephemeral"]);
    assert_eq!(astrid.pid(), daemon.pid());
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// The environment sets the time without clients; what is no time is an error.
#[test]
fn the_idle_timeout() {
    let astrid = Astrid::new();
    let daemon = astrid_tests::process::spawn(astrid.command(&["--ephemeral"]).env("ASTRID_IDLE_TIMEOUT_SECS", "1"));
    daemon.stderr.as_ref().unwrap().wait_for("ready");
    // The time counts from when the first client has left; until then there is more of it.
    let _ = astrid.run(&["status"]).ok();
    assert_eq!(daemon.wait().code(), Some(0));
    for command in [&["--ephemeral"][..], &["start"]] {
        let outcome = run(astrid.command(command).env("ASTRID_IDLE_TIMEOUT_SECS", "soon"), b"");
        assert_eq!(outcome.code(), 2, "{outcome:?}");
        assert!(outcome.stderr.contains("ASTRID_IDLE_TIMEOUT_SECS"), "{outcome:?}");
    }
    // A persistent daemon ends when idle only if the variable is set.
    let started = run(
        astrid
            .command(&["start", "--format", "json"])
            .env("ASTRID_IDLE_TIMEOUT_SECS", "1"),
        b"",
    )
    .ok()
    .json();
    let _ = astrid.run(&["status"]).ok();
    assert!(ends(u32::try_from(started["pid"].as_u64().unwrap()).unwrap()));
}

/// A private home is thrown away, with a command and without.
#[test]
fn private() {
    let astrid = Astrid::new();
    let tmp = astrid.scratch().join("tmp");
    fs::create_dir(&tmp).unwrap();
    let outcome = run(
        astrid
            .command(&["--private", "status", "--format", "json"])
            .env("TMPDIR", &tmp),
        b"",
    )
    .ok();
    let status = outcome.json();
    assert_eq!(status["mode"], "private");
    assert!(
        status["home"].as_str().unwrap().starts_with(tmp.to_str().unwrap()),
        "{status}"
    );
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);

    let mut command = astrid.command(&["--private"]);
    let daemon = astrid_tests::process::spawn(command.env("TMPDIR", &tmp).env("ASTRID_IDLE_TIMEOUT_SECS", "1"));
    let words = daemon.stderr.as_ref().unwrap();
    let home = words.wait_for("home ").trim_start_matches("home ").to_owned();
    words.wait_for("ready");
    let _ = astrid.run(&["status", "--home", &home]).ok();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    assert!(!astrid.home().exists());
}
