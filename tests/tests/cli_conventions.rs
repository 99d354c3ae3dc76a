//! What every command keeps to: exit codes, where data and words go, and documents whose keys stay.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;

use astrid_tests::daemon::Astrid;
use serde_json::Value;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const DENIED: i32 = 4;

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
        .keys()
        .map(String::as_str)
        .collect()
}

/// That these keys are there. More may come; none may go.
#[track_caller]
fn has(value: &Value, wanted: &[&str]) {
    let found: BTreeSet<&str> = keys(value).into_iter().collect();
    let missing: Vec<_> = wanted.iter().filter(|key| !found.contains(*key)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {value:#}");
}

/// 2: what was typed makes no sense; words on stderr, nothing on stdout.
#[test]
fn usage_errors() {
    let astrid = Astrid::new();
    for line in [
        &["statsu"][..],
        &[],
        &["publish"],
        &["publish", "Not/A.Topic", "x"],
        &["publish", "a.v1.*", "x"],
        &["watch", "a.>.b"],
        &["watch", "a.v1.b", "--count", "0"],
        &["request", "a.v1.b", "--timeout", "soon"],
        &["request", "a.v1.b", "--timeout", "11m"],
        &["logs", "-n", "-1"],
        &["--format", "yaml", "status"],
        &["--ephemeral", "stop"],
        &["--private", "--home", "/tmp/x", "status"],
        &["completions", "cmd"],
        &["__nothing"],
    ] {
        let outcome = astrid.run(line);
        let expected = if line == ["__nothing"] { FAILED } else { USAGE };
        assert_eq!(outcome.code(), expected, "{line:?}: {outcome:?}");
        assert!(
            outcome.stdout.is_empty() && !outcome.stderr.is_empty(),
            "{line:?}: {outcome:?}"
        );
    }
    assert!(!astrid.home().exists(), "a usage error made the home");
}

/// 3: no daemon; with one hint, and nothing made.
#[test]
fn nothing_running() {
    let astrid = Astrid::new();
    for line in [
        &["status"][..],
        &["publish", "a.v1.b", "x"],
        &["request", "a.v1.b"],
        &["watch", "a.v1.b"],
        &["capsule", "list"],
        &["capsule", "show", "text"],
    ] {
        let outcome = astrid.run(line);
        assert_eq!(outcome.code(), UNREACHABLE, "{line:?}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{line:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("error: "), "{line:?}: {outcome:?}");
        assert_eq!(outcome.stderr.matches("hint: ").count(), 1, "{line:?}: {outcome:?}");
    }
    assert!(!astrid.home().exists(), "asking made the home");
}

/// Errors are JSON when results are, also those that are found before the options are known.
#[test]
fn errors_as_json() {
    let astrid = Astrid::new();
    for (line, kind, exit) in [
        (&["status", "--format", "json"][..], "unreachable", UNREACHABLE),
        (&["statsu", "--format", "json"], "usage", USAGE),
        (&["logs", "--format=json"], "failed", FAILED),
        (&["--format", "json", "--ephemeral", "stop"], "usage", USAGE),
    ] {
        let outcome = astrid.run(line);
        assert_eq!(
            (outcome.code(), outcome.stdout.as_str()),
            (exit, ""),
            "{line:?}: {outcome:?}"
        );
        assert_eq!(outcome.stderr.lines().count(), 1, "{line:?}: {outcome:?}");
        let error = &outcome.json_error()["error"];
        has(error, &["kind", "exit", "message", "causes", "hint", "problem"]);
        assert_eq!(
            (error["kind"].as_str(), error["exit"].as_i64()),
            (Some(kind), Some(exit.into())),
            "{line:?}"
        );
    }
}

/// An error says what caused it.
#[test]
fn errors_have_a_chain() {
    let astrid = Astrid::new();
    let outcome = astrid.run(&["publish", "a.v1.b", "@/nonexistent/file"]);
    assert_eq!(outcome.code(), FAILED);
    assert!(outcome.stderr.contains("cannot open /nonexistent/file"), "{outcome:?}");
    assert!(outcome.stderr.contains("because No such file"), "{outcome:?}");
}

/// Without a terminal there are no colours to begin with.
#[test]
fn no_colours_in_pipes() {
    let astrid = Astrid::started();
    for line in [
        &["status"][..],
        &["--help"],
        &["statsu"],
        &["capsule", "list"],
        &["doctor"],
        &["logs"],
    ] {
        let outcome = astrid.run(line);
        assert!(
            !outcome.stdout.contains('\u{1b}') && !outcome.stderr.contains('\u{1b}'),
            "{line:?}: {outcome:?}"
        );
    }
}

/// Documents for programs: keys are added, never changed or removed.
#[test]
fn documents_keep_their_keys() {
    let astrid = Astrid::new();
    let json = |line: &[&str]| astrid.run(&[line, &["--format", "json"]].concat()).ok().json();

    has(&json(&["stop"]), &["stopped", "pid"]);
    has(&json(&["start"]), &["pid", "home", "mode", "ready_in_ms", "reasons"]);
    let status = json(&["status"]);
    has(
        &status,
        &[
            "state",
            "pid",
            "version",
            "mode",
            "home",
            "started_at_ms",
            "uptime_ms",
            "sockets",
            "connections",
        ],
    );
    has(&status, &["messages", "fuel_used", "capsules", "reasons", "live"]);
    has(&status["messages"], &["published", "delivered", "refused"]);
    has(&status["sockets"], &["operator", "session"]);
    let list = json(&["capsule", "list"]);
    let report = [
        "name",
        "version",
        "description",
        "scope",
        "origin",
        "state",
        "actors",
        "generations",
        "faults",
        "handled",
        "fuel_used",
        "memory_peak_bytes",
        "exports",
        "imports",
        "publish",
        "subscribe",
        "capabilities",
    ];
    has(&list["capsules"][0], &report);
    let name = list["capsules"][0]["name"].as_str().unwrap().to_owned();
    let detail = json(&["capsule", "show", &name]);
    has(&detail, &report);
    has(&detail, &["manifest", "topics"]);
    has(
        &json(&["publish", "probe.v1.said", "x"]),
        &["topic", "content_type", "bytes"],
    );
    let answer = json(&["request", "astrid.v1.request.status", "{}"]);
    has(&answer, &["topic", "content_type", "encoding", "body"]);
    assert_eq!(answer["encoding"], "json");
    let diagnosis = json(&["doctor"]);
    has(&diagnosis, &["ok", "checks"]);
    has(&diagnosis["checks"][0], &["name", "verdict", "detail", "hint"]);
    has(&json(&["restart"]), &["pid", "home", "mode", "ready_in_ms", "reasons"]);
    has(&json(&["stop"]), &["stopped", "pid"]);
}

/// 4: not allowed. 1: refused for another reason, with the code of the refusal.
#[test]
fn refusals() {
    let astrid = Astrid::started();
    let denied = astrid.run(&["publish", "lifecycle.v1.started", "x", "--format", "json"]);
    assert_eq!(denied.code(), DENIED, "{denied:?}");
    let nobody = astrid.run(&["request", "nobody.v1.hears.this", "x", "--format", "json"]);
    assert_eq!(nobody.code(), FAILED, "{nobody:?}");
    assert_eq!(nobody.json_error()["error"]["problem"], "no-subscriber");
    let unknown = astrid.run(&["capsule", "show", "nonexistent", "--format", "json"]);
    assert_eq!(unknown.code(), FAILED, "{unknown:?}");
    assert_eq!(unknown.json_error()["error"]["problem"], "not-found");
}

/// A home that cannot be one is a clear error.
#[test]
fn unusable_homes() {
    let astrid = Astrid::new();
    std::fs::write(astrid.home(), "a file").unwrap();
    let outcome = astrid.run(&["start"]);
    assert_eq!(outcome.code(), FAILED, "{outcome:?}");
    assert!(
        outcome.stderr.contains(&astrid.home().display().to_string()),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("hint: "), "{outcome:?}");
    let outcome = astrid.run(&["doctor"]);
    assert_eq!(outcome.code(), FAILED, "{outcome:?}");

    let long = astrid.scratch().join("x".repeat(120));
    let outcome = astrid.run(&["start", "--home", long.to_str().unwrap()]);
    assert_eq!(outcome.code(), USAGE, "{outcome:?}");

    let nowhere = &mut astrid.command(&["status"]);
    let outcome = astrid_tests::process::run(nowhere.env_remove("ASTRID_HOME").env_remove("HOME"), b"");
    assert_eq!(outcome.code(), USAGE, "{outcome:?}");
}

/// A configuration that is wrong keeps the daemon from starting, and says where.
#[test]
fn a_wrong_configuration() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    std::fs::write(astrid.home().join("etc/astrid.toml"), "[daemon]\nnonsense = 1\n").unwrap();
    for command in ["start", "doctor"] {
        let outcome = astrid.run(&[command]);
        assert_eq!(outcome.code(), FAILED, "{command}: {outcome:?}");
        let text = outcome.stdout + &outcome.stderr;
        assert!(text.contains("astrid.toml:2"), "{command}: {text}");
    }
}
