//! Guards as an operator and a client meet them: through the binary.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;

use astrid_tests::bed::bundle_file;
use astrid_tests::daemon::Astrid;
use astrid_tests::process::Outcome;

const GRANT: &str = "[capsule.sentry]\ngrants = [\"guard:hello.v1.*\"]\n";

/// A daemon with `hello`, perhaps a guard before it, and these groups.
fn with(capsules: &[&str], groups: &str) -> Astrid {
    let astrid = Astrid::new();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    for name in capsules {
        let installed = astrid.home().join(format!("capsules/{name}.capsule"));
        fs::write(installed, fs::read(bundle_file(name)).unwrap()).unwrap();
    }
    fs::write(astrid.home().join("etc/groups.toml"), groups).unwrap();
    let _ = astrid.run(&["start"]).ok();
    astrid
}

fn greet(astrid: &Astrid, verb: &str, name: &str) -> Outcome {
    let body = format!("{{\"name\": \"{name}\"}}");
    astrid.run(&[verb, "hello.v1.greet", &body, "--content-type", "application/json"])
}

/// A client is told by whom it was refused and why, with a code for programs, and the exit code of what is denied.
#[test]
fn a_client_is_refused_by_a_guard() {
    let astrid = with(&["hello", "sentry"], GRANT);
    let answer = greet(&astrid, "request", "Ada").ok();
    assert!(answer.stdout.contains("Hello, Ada!"), "{answer:?}");
    let _ = greet(&astrid, "publish", "Ada").ok();
    for verb in ["publish", "request"] {
        let denied = greet(&astrid, verb, "deny this");
        assert_eq!(denied.code(), 4, "{denied:?}");
        assert!(
            denied
                .stderr
                .contains("sentry refused hello.v1.greet: deny this of default"),
            "{denied:?}"
        );
        let failed = greet(&astrid, verb, "spin");
        assert_eq!(failed.code(), 4, "{failed:?}");
        assert!(failed.stderr.contains("units of fuel"), "{failed:?}");
    }
    let body = "{\"name\": \"deny\"}";
    let typed = astrid.run(&[
        "--format",
        "json",
        "publish",
        "hello.v1.greet",
        body,
        "--content-type",
        "application/json",
    ]);
    assert_eq!(typed.json_error()["error"]["problem"], "guard.denied", "{typed:?}");
    // Requests of the kernel are nobody's to refuse.
    let show = astrid.run(&["capsule", "show", "sentry"]).ok();
    assert!(show.stdout.contains("guard: guards are what is tested"), "{show:?}");
}

/// Not granted: it is loaded, guards nothing, and says what it lacks.
#[test]
fn a_guard_without_a_grant() {
    let astrid = with(&["hello", "sentry"], "");
    let _ = greet(&astrid, "publish", "deny this").ok();
    for arguments in [&["capsule", "show", "sentry"][..], &["status"], &["capsule", "list"]] {
        let told = astrid.run(arguments).ok();
        let grant = "astrid caps grant capsule:sentry guard:hello.v1.*";
        assert!(told.stdout.contains(grant), "{told:?}");
    }
}

/// What it lacks is a command that can be pasted; it counts with the next message, and so does its end.
#[test]
fn a_guard_is_granted_and_taken_back() {
    let astrid = with(&["hello", "sentry"], "# mine\n");
    let question = ["capsule:sentry", "sentry", "guard", "hello.v1.*"];
    let asked = |verb: &str| astrid.run(&[&["caps", verb][..], &question].concat());
    assert_eq!(asked("check").code(), 4);
    let why = asked("explain").ok();
    let grant = ["caps", "grant", "capsule:sentry", "guard:hello.v1.*"];
    assert!(why.stdout.contains(&format!("`astrid {}`", grant.join(" "))), "{why:?}");

    let granted = astrid.run(&grant).ok();
    assert!(granted.stdout.contains("guard:hello.v1.*"), "{granted:?}");
    assert_eq!(greet(&astrid, "publish", "deny this").code(), 4);
    assert_eq!(asked("check").code(), 0);
    // Closed to everybody once it is gone from the files too, by whoever may say so.
    let file = fs::read_to_string(astrid.home().join("etc/groups.toml")).unwrap();
    assert!(
        file.starts_with("# mine\n") && file.contains("[capsule.sentry]"),
        "{file}"
    );

    let revoke = ["caps", "revoke", "capsule:sentry", "guard:hello.v1.*"];
    assert!(
        asked("explain")
            .ok()
            .stdout
            .contains(&format!("`astrid {}`", revoke.join(" ")))
    );
    let _ = astrid.run(&revoke).ok();
    let _ = greet(&astrid, "publish", "deny this").ok();
    let file = fs::read_to_string(astrid.home().join("etc/groups.toml")).unwrap();
    assert!(!file.contains("sentry"), "{file}");

    let again = astrid.run(&revoke);
    assert_eq!(again.code(), 1, "{again:?}");
    assert!(again.stderr.contains("it is not granted guard:hello.v1.*"), "{again:?}");
    let other = astrid.run(&["caps", "grant", "capsule:sentry", "kv"]);
    assert_eq!(other.code(), 1, "{other:?}");
    assert!(other.stderr.contains("only guards are"), "{other:?}");
}

/// Granted and not there: closed, and shown.
#[test]
fn a_guard_that_is_not_there() {
    let astrid = with(&["hello"], GRANT);
    let failed = greet(&astrid, "publish", "Ada");
    assert_eq!(failed.code(), 4, "{failed:?}");
    assert!(failed.stderr.contains("does not run"), "{failed:?}");
    let status = astrid.run(&["status"]);
    assert!(
        status.stdout.contains("nothing can be said on hello.v1.*"),
        "{status:?}"
    );
}

/// Only guards are granted to capsules, and a wrong line is named.
#[test]
fn what_is_granted_to_no_capsule() {
    let astrid = Astrid::new();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let groups = astrid.home().join("etc/groups.toml");
    for wrong in ["kv", "guard", "*", "publish:notes.>"] {
        fs::write(&groups, format!("[capsule.sentry]\ngrants = [\"{wrong}\"]\n")).unwrap();
        let refused = astrid.run(&["start"]);
        assert_ne!(refused.code(), 0, "{wrong}");
        assert!(refused.stderr.contains("groups.toml:2"), "{wrong}: {refused:?}");
        assert!(refused.stderr.contains("guard:files.v1.>"), "{wrong}: {refused:?}");
    }
}
