//! The audit log of a real daemon: on a disk that is full or read-only, and through `kill -9` (K13).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::print_stderr, reason = "what was left out is read by people")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use astrid_tests::chance::{Chance, from_environment};
use astrid_tests::daemon::Astrid;
use astrid_tests::herd::kill;
use astrid_tests::process::{PATIENCE, ends, send};
use astrid_tests::programs::becomes;
use rustix::process::Signal;
use serde_json::Value;

/// Says to this test's own program that it runs in a mount namespace of its own.
const INNER: &str = "ASTRID_TEST_INNER";

/// Whether this is the inner part of a test, which may mount what it wants. Otherwise runs that, if this user can.
fn in_own_namespace(test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let may = Command::new("unshare").args(["--mount", "true"]).output();
    if !may.is_ok_and(|may| may.status.success()) {
        eprintln!("skipped: this user cannot mount a file system");
        return false;
    }
    let inner = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(INNER, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn mount(options: &str, at: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(at)
        .output()
        .unwrap();
    assert!(mounted.status.success(), "{mounted:?}");
}

/// A home that a daemon made, and where its log is.
fn home() -> (Astrid, PathBuf) {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    let log = astrid.home().join("var/audit");
    (astrid, log)
}

fn spawn(astrid: &Astrid, name: &str) -> astrid_tests::process::Outcome {
    astrid.run(&["process", "run", name, "--", "true"])
}

/// What is refused while the log takes nothing, with the reason; and what goes on.
#[track_caller]
fn fails_closed(astrid: &Astrid, reason: &str) {
    let refused = astrid.run(&["agent", "create", "late"]);
    assert_ne!(refused.code(), 0, "{refused:?}");
    assert!(refused.stderr.contains(reason), "{refused:?}");
    let _ = spawn(astrid, "late");
    let late = astrid.run(&["process", "status", "late", "--format", "json"]).ok();
    assert!(late.stdout.contains(reason), "it did not start, and says why: {late:?}");
    assert!(late.json()["instances"][0]["pid"].is_null(), "{late:?}");
    let _ = astrid.run(&["process", "remove", "late"]).ok();
    // Reads go on, and so do messages.
    let _ = astrid.run(&["agent", "list"]).ok();
    let _ = astrid.run(&["process", "list"]).ok();
    let _ = astrid.run(&["publish", "notes.v1.add", "x"]).ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(status["state"], "degraded");
    assert!(status["reasons"].to_string().contains(reason), "{status}");
    assert!(
        !astrid.run(&["agent", "list"]).ok().stdout.contains("late"),
        "it was not made"
    );
}

/// Waits until changes are made again, without anybody's doing.
#[track_caller]
fn recovers(astrid: &Astrid, name: &str) {
    let until = Instant::now() + PATIENCE;
    loop {
        let made = astrid.run(&["agent", "create", name]);
        if made.code() == 0 {
            break;
        }
        assert!(Instant::now() < until, "{made:?}");
    }
    let _ = spawn(astrid, name).ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(status["state"], "ready", "{status}");
    let _ = astrid.run(&["audit", "verify"]).ok();
}

/// K13: a disk that is full: effects are denied with that reason, reads go on, and room is enough to go on.
#[test]
fn a_full_disk_stops_effects_and_nothing_else() {
    if !in_own_namespace("a_full_disk_stops_effects_and_nothing_else") {
        return;
    }
    let (astrid, log) = home();
    fs::remove_dir_all(&log).unwrap();
    fs::create_dir(&log).unwrap();
    mount("size=1m,mode=700", &log);
    let _ = astrid.run(&["start"]).ok();
    let _ = spawn(&astrid, "early").ok();
    let ballast = log.join("ballast");
    for name in ["first", "second"] {
        // What is free, to the last byte: the last part of a page may still be.
        let filled = Command::new("sh")
            .args(["-c", "cat /dev/zero > \"$0\""])
            .arg(&ballast)
            .output()
            .unwrap();
        assert!(!filled.status.success(), "it is not full");
        // Entries as large as those that must not fit then; one that is there already is recorded as well.
        while !astrid.run(&["agent", "create", "fill"]).stderr.contains("no space") {
            let _ = astrid.run(&["agent", "delete", "fill", "--yes"]);
        }
        fails_closed(&astrid, "no space");
        fs::remove_file(&ballast).unwrap();
        recovers(&astrid, name);
    }
    let _ = astrid.run(&["stop"]).ok();
    let _ = astrid.run(&["audit", "verify"]).ok();
}

/// A disk that an agent filled: what it wrote is thrown away, which makes room, and that is recorded in the room that is kept for it.
#[test]
fn a_full_disk_is_emptied_by_a_rollback() {
    if !in_own_namespace("a_full_disk_is_emptied_by_a_rollback") {
        return;
    }
    let astrid = Astrid::new();
    fs::create_dir(astrid.home()).unwrap();
    mount("size=64m,mode=700", astrid.home());
    let _ = astrid.run(&["start"]).ok();
    let project = astrid.scratch().canonicalize().unwrap().join("project");
    fs::create_dir(&project).unwrap();
    let _ = astrid.run(&["workspace", "attach", project.to_str().unwrap()]).ok();
    let _ = astrid.run(&["workspace", "snapshot", "empty"]).ok();
    let filler = ["sh", "-c", "echo more > new; cat /dev/zero > big"];
    let run = [
        "process",
        "run",
        "filler",
        "--restart",
        "never",
        "--workspace",
        "overlay",
        "--",
    ];
    let _ = astrid.run(&[&run[..], &filler].concat()).ok();
    let _ = becomes(&astrid, "filler", |instance| instance["pid"].is_null());
    // The last part of a page of the log may still be free.
    let full = |n: u32| {
        astrid
            .run(&["agent", "create", &format!("fill{n}")])
            .stderr
            .contains("recorded in the audit log: no space")
    };
    let _ = (0..).find(|n| full(*n));
    let refused = astrid.run(&["workspace", "commit", "--yes"]);
    let why = refused.stderr.to_lowercase();
    assert!(refused.code() != 0 && why.contains("no space"), "{refused:?}");
    let _ = astrid.run(&["workspace", "snapshot", "empty", "--remove"]).ok();
    let _ = (0..).find(|n| full(*n));
    let _ = astrid.run(&["workspace", "rollback", "--yes"]).ok();
    recovers(&astrid, "first");
    let done = tail(&astrid, &["--kind", "admin"]);
    for (verb, times) in [("snapshot", 2), ("rollback", 1)] {
        let verb = format!("admin:workspace.{verb}");
        let told = done
            .iter()
            .filter(|entry| entry["action"] == *verb && entry["stage"] == "intent");
        assert_eq!(told.count(), times, "{done:?}");
    }
    let outcome = tail(&astrid, &["--kind", "outcome"]);
    let dropped = |entry: &&Value| entry["detail"] == "dropped: 2 added, 0 modified, 0 removed";
    assert!(outcome.iter().any(|entry| dropped(&entry)), "{outcome:?}");
    assert!(fs::read_dir(&project).unwrap().next().is_none());
    let _ = astrid.run(&["stop"]).ok();
    let _ = astrid.run(&["audit", "verify"]).ok();
}

/// K13: a directory that cannot be written: the daemon starts, denies what it cannot record, and does it once it can.
#[test]
fn a_read_only_directory_stops_effects_and_nothing_else() {
    if !in_own_namespace("a_read_only_directory_stops_effects_and_nothing_else") {
        return;
    }
    let (astrid, log) = home();
    fs::remove_dir_all(&log).unwrap();
    fs::create_dir(&log).unwrap();
    mount("ro,size=1m,mode=700", &log);
    let _ = astrid.run(&["start"]).ok();
    fails_closed(&astrid, "cannot be written");
    mount("remount,rw", &log);
    recovers(&astrid, "first");
    let _ = astrid.run(&["stop"]).ok();
    let _ = astrid.run(&["audit", "verify"]).ok();
}

fn tail(astrid: &Astrid, more: &[&str]) -> Vec<Value> {
    let arguments = [&["audit", "tail", "-n", "100000", "--format", "json"], more].concat();
    let entries = astrid.run(&arguments).ok().json()["entries"].clone();
    entries.as_array().unwrap().clone()
}

/// K13: `kill -9` between an intent and its outcome: the next daemon says that it does not know, and so does the log from then on.
#[test]
fn a_spawn_that_was_cut_off_is_unknown() {
    let astrid = Astrid::started();
    let _ = spawn(&astrid, "first").ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    let keeper = u32::try_from(status["children"]["keeper_pid"].as_u64().unwrap()).unwrap();
    let daemon = astrid.pid();
    // What forks does nothing for a while: the intent is on disk, and no outcome can be.
    send(keeper, Signal::STOP);
    let waiting = astrid.spawn(&["process", "run", "second", "--", "true"]);
    let until = Instant::now() + PATIENCE;
    let open = loop {
        let spawns = tail(&astrid, &["--kind", "spawn"]);
        let open: Vec<u64> = spawns
            .iter()
            .filter(|entry| entry["stage"] == "intent")
            .map(|entry| entry["sequence"].as_u64().unwrap())
            .collect();
        if open.len() == 2 {
            break open[1];
        }
        assert!(Instant::now() < until, "{spawns:?}");
    };
    kill(daemon);
    assert!(ends(daemon));
    send(keeper, Signal::CONT);
    drop(waiting);
    let verified = astrid.run(&["audit", "verify", "--format", "json"]).ok().json();
    assert_eq!(verified["ok"], true, "{verified}");
    let _ = astrid.run(&["start"]).ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    let reasons = status["reasons"].to_string();
    assert!(
        reasons.contains("may have happened or not") && reasons.contains(&format!("entry {open} ")),
        "{status}"
    );
    for running in [true, false] {
        let verified = astrid.run(&["audit", "verify", "--format", "json"]).ok().json();
        let unknown = verified["unknown_outcomes"].as_array().unwrap();
        assert!(unknown.contains(&open.into()), "{verified}");
        let answered = tail(&astrid, &["--kind", "outcome"]);
        let answer = answered.iter().find(|entry| entry["answers"] == open).unwrap();
        assert_eq!(answer["outcome"], "unknown", "{answer}");
        if running {
            let _ = astrid.run(&["stop"]).ok();
        }
    }
}

/// K13: `kill -9` at any moment of a daemon that starts programs: the log is whole each time, every intent has one outcome in the end, and
/// no entry that was there is gone.
#[test]
fn a_log_survives_kills_at_random() {
    const ROUNDS: u64 = 10;
    let seed = from_environment("ASTRID_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut chance = Chance(seed);
    let astrid = Astrid::new();
    let mut before: Vec<Value> = Vec::new();
    for round in 0..ROUNDS {
        let _ = astrid.run(&["start"]).ok();
        let daemon = astrid.pid();
        let name = format!("p{round}");
        let busy = [
            astrid.spawn(&["process", "run", &name, "--", "true"]),
            astrid.spawn(&["agent", "create", &name]),
        ];
        // The moment is the point.
        std::thread::sleep(Duration::from_micros(chance.below(60_000)));
        kill(daemon);
        assert!(ends(daemon));
        for client in busy {
            let _ = client.wait();
        }
        let verified = astrid.run(&["audit", "verify", "--format", "json"]);
        assert_eq!(verified.code(), 0, "round {round}, seed {seed}: {verified:?}");
        let entries = tail(&astrid, &[]);
        let sealed = entries.len().min(before.len());
        assert!(
            entries.len() >= before.len(),
            "round {round}, seed {seed}: entries are gone"
        );
        assert_eq!(entries[..sealed], before[..], "round {round}, seed {seed}");
        before = entries;
    }
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let verified = astrid.run(&["audit", "verify", "--format", "json"]).ok().json();
    let entries = tail(&astrid, &[]);
    let intents = entries.iter().filter(|entry| entry["stage"] == "intent");
    let mut count = 0;
    for intent in intents {
        let answers = entries
            .iter()
            .filter(|entry| entry["answers"] == intent["sequence"])
            .count();
        assert_eq!(answers, 1, "seed {seed}: {intent}");
        count += 1;
    }
    assert!(count > 0, "nothing was ever started");
    let unknown = entries
        .iter()
        .filter(|entry| entry["stage"] == "answer" && entry["outcome"] == "unknown")
        .count();
    assert_eq!(verified["unknown_count"], unknown);
}
