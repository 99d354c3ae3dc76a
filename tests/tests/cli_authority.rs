//! Principals, groups and capabilities, as an operator and an agent meet them: through the binary, with keys.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::time::Instant;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{Outcome, PATIENCE};

/// A daemon, and a principal `ann` with a key, in the group `agent`.
fn with_ann() -> Astrid {
    let astrid = Astrid::started();
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    let _ = astrid.run(&["agent", "create", "ann", "--key-of", key.trim()]).ok();
    astrid
}

fn as_ann(astrid: &Astrid, arguments: &[&str]) -> Outcome {
    astrid.run(&[&["--principal", "ann"], arguments].concat())
}

/// K14: who has the key is the principal, and nobody else is; K7: what it may do follows from its groups.
#[test]
fn an_agent_proves_itself_and_does_what_it_may() {
    let astrid = with_ann();
    let _ = as_ann(&astrid, &["publish", "orders.v1.placed", "x"]).ok();
    let text = as_ann(&astrid, &["request", "tool.v1.text.markdown", "# Title"]).ok();
    assert!(text.stdout.contains("Title"));
    // Not what is for administrators, although it is the operator's socket.
    for denied in [
        &["agent", "list"][..],
        &["caps", "grant", "ann", "*"],
        &["quota", "set", "ann", "children=1"],
        &["dead", "list"],
        &["who"],
    ] {
        let outcome = as_ann(&astrid, denied);
        assert_eq!(outcome.code(), 4, "{denied:?}: {outcome:?}");
        assert!(outcome.stderr.contains("admin:"), "{outcome:?}");
    }
    // Another key proves nothing, and neither does none.
    let other = astrid.home().join("other.key");
    let _ = astrid.run(&["keypair", "ann", "--file", other.to_str().unwrap()]).ok();
    let outcome = astrid.run(&["--principal", "ann", "--identity", other.to_str().unwrap(), "status"]);
    assert_eq!(outcome.code(), 4, "{outcome:?}");
    assert_eq!(astrid.run(&["--principal", "bob", "publish", "a.v1.b", "x"]).code(), 4);
    assert_eq!(astrid.run(&["--identity", "x", "status"]).code(), 2);
    // A private key that others can read is not used.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&other, mode).unwrap();
    let outcome = astrid.run(&["--principal", "ann", "--identity", other.to_str().unwrap(), "status"]);
    assert!(outcome.stderr.contains("0644"), "{outcome:?}");
}

/// K12: whoever is over quota is told so, with what and how much, whatever it is that ran out.
#[test]
fn who_is_over_quota_is_told() {
    let astrid = with_ann();
    for (limit, publish) in [
        ("messages_per_second=0", true),
        ("bytes_per_second=1B", true),
        ("fuel_per_second=0", true),
        ("fuel_total=0", true),
        ("calls=0", false),
    ] {
        let (name, _) = limit.split_once('=').unwrap();
        let _ = astrid.run(&["quota", "set", "ann", limit]).ok();
        let command = if publish { "publish" } else { "request" };
        let refused = as_ann(&astrid, &["--format", "json", command, "hello.v1.greet", "hello"]);
        let error = refused.json_error();
        assert_eq!(error["error"]["problem"], "quota.exceeded", "{limit}: {refused:?}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("ann is over its quota {name}")),
            "{limit}: {refused:?}"
        );
        let _ = astrid.run(&["quota", "set", "ann", &format!("{name}=")]).ok();
    }
    let _ = as_ann(&astrid, &["publish", "hello.v1.greet", "hello"]).ok();
    // What is the user's own is nobody else's to be.
    for command in ["start", "doctor"] {
        assert_eq!(as_ann(&astrid, &[command]).code(), 2);
    }
    // What can be asked of the daemon is asked in its name.
    for command in ["stop", "restart"] {
        let denied = as_ann(&astrid, &[command]);
        assert_eq!(denied.code(), 4, "{denied:?}");
        assert!(
            denied.stderr.contains("astrid caps grant ann admin:shutdown"),
            "{denied:?}"
        );
    }
    let _ = astrid.run(&["caps", "grant", "ann", "admin:shutdown"]).ok();
    let stopped = as_ann(&astrid, &["stop"]).ok();
    assert!(
        stopped.stdout.contains("stopped (pid ") || stopped.stderr.contains("stopped (pid "),
        "{stopped:?}"
    );
}

/// What was granted works, what was revoked does not, whatever grants it; and it is said why.
#[test]
fn grants_and_revokes() {
    let astrid = with_ann();
    let check = |arguments: &[&str]| astrid.run(&[&["caps", "check"], arguments].concat()).code();
    assert_eq!(check(&["ann", "-", "child.spawn", "/usr/bin/git"]), 4);
    let _ = astrid.run(&["caps", "grant", "ann", "child.spawn:/usr/bin/*"]).ok();
    assert_eq!(check(&["ann", "-", "child.spawn", "/usr/bin/git"]), 0);
    let _ = astrid.run(&["caps", "revoke", "ann", "publish:orders.>"]).ok();
    let outcome = as_ann(&astrid, &["publish", "orders.v1.placed", "x"]);
    assert_eq!(outcome.code(), 4, "{outcome:?}");
    let why = astrid
        .run(&["caps", "explain", "ann", "uplink-local", "publish", "orders.v1.placed"])
        .ok();
    assert!(
        why.stdout.contains("may not") && why.stdout.contains("publish:orders.>"),
        "{why:?}"
    );
    let _ = as_ann(&astrid, &["publish", "notes.v1.placed", "x"]).ok();
    // K9: nobody widens its own, whatever it holds.
    let _ = astrid.run(&["quota", "set", "ann", "children=10"]).ok();
    let _ = astrid.run(&["agent", "modify", "ann", "--add-group", "admin"]).ok();
    let _ = as_ann(&astrid, &["agent", "list"]).ok();
    for denied in [
        &["caps", "grant", "ann", "publish:x.>"][..],
        &["quota", "set", "ann", "children=100"],
        &["agent", "modify", "ann", "--add-group", "restricted"],
    ] {
        let outcome = as_ann(&astrid, denied);
        assert_eq!(outcome.code(), 4, "{denied:?}: {outcome:?}");
    }
    let _ = as_ann(&astrid, &["quota", "set", "ann", "children=5"]).ok();
    assert_eq!(
        astrid.run(&["caps", "grant", "default", "publish:x.>"]).code(),
        4,
        "nor the owner by request"
    );
    for wrong in ["publish:..", "fly", "publish:a b", "", "child.spawn:/usr/../bin"] {
        assert_eq!(astrid.run(&["caps", "grant", "ann", wrong]).code(), 2, "{wrong:?}");
    }
}

/// K7: disabled is denied, at once, also on what is open already.
#[test]
fn who_is_disabled_is_out() {
    let astrid = with_ann();
    let watch = astrid.spawn(&["--principal", "ann", "watch", "orders.v1.>"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    let who = astrid.run(&["who"]).ok();
    assert!(who.stdout.contains("ann"), "{who:?}");
    let _ = astrid.run(&["agent", "disable", "ann"]).ok();
    assert_ne!(watch.wait().code(), Some(0), "its connection is closed");
    assert_eq!(as_ann(&astrid, &["status"]).code(), 4);
    let _ = astrid.run(&["agent", "enable", "ann"]).ok();
    let _ = as_ann(&astrid, &["publish", "orders.v1.placed", "x"]).ok();
    let _ = astrid.run(&["agent", "delete", "ann", "--yes"]).ok();
    assert_eq!(as_ann(&astrid, &["status"]).code(), 4);
    assert!(!astrid.home().join("etc/profiles/ann.toml").exists());
    assert_eq!(astrid.run(&["agent", "delete", "ann", "--yes"]).code(), 1);
}

/// Files under `etc/` are a person's to edit while the daemon runs: what is right counts at once, what is wrong changes nothing and is
/// said.
#[test]
fn edited_by_hand() {
    let astrid = with_ann();
    let profile = astrid.home().join("etc/profiles/ann.toml");
    let denied = |expected: bool, why: &str| {
        let until = Instant::now() + PATIENCE;
        loop {
            let code = as_ann(&astrid, &["publish", "orders.v1.placed", "x"]).code();
            if (code == 4) == expected {
                return;
            }
            assert!(Instant::now() < until, "{why}");
        }
    };
    denied(false, "at first");
    let good = fs::read_to_string(&profile).unwrap();
    fs::write(&profile, good.replace("\"agent\"", "\"restricted\"")).unwrap();
    denied(true, "in another group");
    fs::write(&profile, format!("{good}\nnonsense = 1\n")).unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let status = astrid.run(&["status"]).stdout;
        if status.contains("ann.toml") && status.contains("nonsense") {
            break;
        }
        assert!(Instant::now() < until, "{status}");
    }
    denied(true, "the old state stays");
    fs::write(&profile, &good).unwrap();
    denied(false, "repaired");
}
