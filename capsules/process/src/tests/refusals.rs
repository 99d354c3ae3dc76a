//! Hostile and mistaken definitions: each gets a typed refusal that names the place.

use super::*;
use crate::document::{DOCUMENT_BYTES_MAX, parse};

#[track_caller]
fn refused(body: &str, place: (usize, usize), what: &str) {
    let text = format!("[[processes]]\n{body}");
    let error = parse(&text, "f.toml").expect_err(body);
    assert_eq!(error.place, Some(place), "{error}");
    assert!(error.to_string().contains(what), "{error}\nexpected: {what}");
}

/// A9: names unique; contradictions are errors naming the line.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    let base = "name = \"w\"\ncommand = \"c\"\n";
    for (keys, place, what) in [
        ("instances = 0", (4, 1), "0 is outside 1 to 1000"),
        ("instances = 1001", (4, 1), "1001 is outside"),
        ("instances = -1", (4, 13), "invalid value"),
        ("window = \"99999999999999999999h\"", (4, 10), "too large"),
        ("window = \"169h\"", (4, 1), "longer than a week"),
        ("min_uptime = \"5 minutes\"", (4, 14), "no known unit"),
        ("cwd = \"srv\"", (4, 1), "not an absolute path"),
        ("secrets = [\"X\"]", (4, 1), "not in `env`"),
        ("env = { ASTRID_INSTANCE = \"1\" }", (4, 1), "is set for each instance"),
        ("env = { \"A=B\" = \"1\" }", (4, 1), "without `=`"),
        ("restart = \"never\"\nmax_restarts = 3", (5, 1), "says not to"),
        ("restart = \"sometimes\"", (4, 11), "unknown value `sometimes`"),
        (
            "backoff = { policy = \"fixed\", factor = 2 }",
            (4, 31),
            "only an exponential",
        ),
        (
            "backoff = { base = \"10s\", cap = \"1s\" }",
            (4, 13),
            "longer than `cap`",
        ),
        (
            "cwd = \"/srv\"\nsandbox = { profile = \"sealed\", network = \"full\" }",
            (5, 33),
            "`sealed` speaks to nobody, and `full`",
        ),
        ("sandbox = { netwrk = \"none\" }", (4, 13), "netwrk"),
        ("sandbox = { network = \"NONE\" }", (4, 23), "NONE"),
        ("sandbox = { read = \"/srv\" }", (4, 20), "invalid type"),
        ("sandbox = \"open\"", (4, 11), "open"),
        ("sandbox = 1", (4, 11), "home, none, project, sealed, or a table"),
        ("health = { kind = \"http\" }", (4, 12), "needs `url`"),
        (
            "[processes.health]\nkind = \"tcp\"\nurl = \"http://x\"",
            (6, 1),
            "does not use it",
        ),
        ("health = { interval = \"5s\" }", (4, 12), "does not use it"),
        (
            "health = { kind = \"tcp\", address = \"localhost\" }",
            (4, 26),
            "not a host and a port",
        ),
        (
            "health = { kind = \"http\", url = \"https://x\" }",
            (4, 27),
            "not an `http://`",
        ),
        (
            "health = { kind = \"http\", url = \"http://x\", status = 99 }",
            (4, 45),
            "100 to 599",
        ),
        ("stop = { signal = \"SIGSEGV\" }", (4, 10), "not a signal"),
        ("stop = { args = [\"x\"] }", (4, 10), "without a `command`"),
        ("limits = { memory = \"0B\" }", (4, 12), "nothing can run"),
        ("limits = { memory = \"12 parsecs\" }", (4, 21), "no known unit"),
        ("limits = { cpu_time = \"1500ms\" }", (4, 12), "whole seconds"),
        ("log = { size = \"1KiB\" }", (4, 9), "outside 4KiB"),
        ("log = { keep = 1001 }", (4, 9), "outside 0 to 1000"),
        ("nmae = 1", (4, 1), "unknown key `nmae`"),
    ] {
        refused(&format!("{base}{keys}\n"), place, what);
    }
    refused(
        "name = \"w\"\ncommand = \"bin/c\"\n",
        (3, 1),
        "neither an absolute path",
    );
    for name in ["", "W", "../../x", ".x", "-x", "a b", "a\\u001b[31m", &"a".repeat(49)] {
        refused(
            &format!("name = \"{name}\"\ncommand = \"c\"\n"),
            (2, 1),
            "a name has 1 to 48",
        );
    }
    refused(
        &format!("{base}[[processes]]\n{base}"),
        (5, 1),
        "there is a process `w` already",
    );
}

#[test]
fn totals_are_bounded() {
    let many = |n: usize, instances: u32| {
        let one = |i| format!("[[processes]]\nname = \"p{i}\"\ncommand = \"c\"\ninstances = {instances}\n");
        (0..n).map(one).collect::<String>()
    };
    assert!(parse(&many(1000, 2), "f").is_ok());
    let error = parse(&many(3, 1000), "f").unwrap_err().to_string();
    assert_eq!(
        error,
        "f:12:1: instances: more than 2000 instances of all processes together"
    );
    assert!(
        parse(&many(1001, 1), "f")
            .unwrap_err()
            .to_string()
            .contains("1001 definitions")
    );
}

/// A mebibyte of anything is refused at once, and so is what is nested without end.
#[test]
fn junk_is_refused() {
    for junk in ["[[processes]]\n", "[", "a.", "\u{0}", "a = [[[[", "# x\n"] {
        let mut text = junk.repeat((1 << 20) / junk.len());
        let error = parse(&text, "junk").unwrap_err().to_string();
        assert!(error.contains("the limit is"), "{error}");
        text.truncate(text.floor_char_boundary(DOCUMENT_BYTES_MAX));
        let outcome = parse(&text, "junk");
        assert_eq!(outcome.is_ok(), junk.starts_with('#'));
    }
    let mut bed = bed("");
    let refused = ask(
        &mut bed,
        "apply",
        json!({ "text": "x".repeat(1 << 20), "origin": "a\nb" }),
    )
    .refused();
    assert!(refused.message().starts_with("ab: it has 1048576 bytes"), "{refused}");
}

/// A document that somebody changes in between is not overwritten.
#[test]
fn requests_that_make_no_sense_are_refused() {
    let mut bed = bed("[[processes]]\nname = \"w\"\ncommand = \"c\"\n");
    run(&mut bed, "w");
    for (verb, body, code) in [
        ("status", json!({ "name": "nobody\u{1b}[31m" }), "not-found"),
        ("stop", json!({ "name": "nobody" }), "not-found"),
        ("stop", json!({ "name": "w", "instance": 1 }), "not-found"),
        ("signal", json!({ "name": "w", "signal": "SIGNONSENSE" }), "invalid"),
        ("remove", json!({ "name": "nobody" }), "not-found"),
        ("why", json!({ "name": "nobody" }), "not-found"),
        ("logs", json!({ "name": "nobody" }), "not-found"),
        (
            "define",
            json!({ "process": { "name": "x", "command": "c", "instances": 1001 } }),
            "invalid",
        ),
        (
            "define",
            json!({ "process": { "name": "x", "command": "c", "what": 1 } }),
            "invalid",
        ),
        ("start", json!({ "nmae": "w" }), "invalid"),
    ] {
        let refused = ask(&mut bed, verb, body).refused();
        assert_eq!(refused.code(), code, "{verb}: {refused}");
        assert!(!refused.message().contains('\u{1b}'));
    }
    let sent = ask(&mut bed, "signal", json!({ "name": "w", "signal": "HUP" })).json();
    assert_eq!(sent, json!({ "sent": 1 }));
    assert_eq!(child(&bed, "w").signals, [(Signal::Hangup, Reach::Main)]);
    let logs = ask(&mut bed, "logs", json!({ "name": "w" })).json();
    assert_eq!(
        logs["files"][1],
        json!({ "instance": 0, "stream": "stderr", "path": "/home/log/w-0.err.log" })
    );
    bed.set_log("w-0.err.log", "one\ntwo\n");
    let why = ask(&mut bed, "why", json!({ "name": "w", "lines": 1 })).json();
    assert_eq!(why["instances"][0]["stderr_tail"], "two\n");
}
