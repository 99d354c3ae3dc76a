//! `astrid audit`: what happened, and the proof (K13), by the built binary.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;

use astrid_tests::daemon::Astrid;
use serde_json::Value;

/// A home whose daemon has come and gone.
fn used() -> Astrid {
    let astrid = Astrid::started();
    let _ = astrid.run(&["status"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    astrid
}

/// K13: boots, loads, connections and the end are recorded, in a log that is verified without a daemon and without the home.
#[test]
fn a_daemon_leaves_a_log_that_can_be_verified() {
    let astrid = used();
    let verified = astrid.run(&["audit", "verify", "--format", "json"]).ok().json();
    assert_eq!(
        (&verified["ok"], &verified["unsealed_tail"]),
        (&Value::Bool(true), &0.into())
    );
    let entries = astrid
        .run(&["audit", "tail", "-n", "1000", "--format", "json"])
        .ok()
        .json();
    let entries = entries["entries"].as_array().unwrap().clone();
    let kinds: Vec<&str> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("boot", "stop"));
    assert!(kinds.contains(&"load") && kinds.contains(&"connection"), "{kinds:?}");
    let shown = astrid.run(&["audit", "show", "1", "--format", "json"]).ok().json();
    assert_eq!(shown, entries[0]);
    let boots = astrid.run(&["audit", "tail", "--kind", "boot"]).ok().stdout;
    assert_eq!(boots.lines().count(), 1);
    let exported = astrid.run(&["audit", "export"]).ok().stdout;
    let lines: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines, entries);
    let stats = astrid.run(&["audit", "stats", "--format", "json"]).ok().json();
    assert_eq!(stats["entries"], entries.len());
    let copy = astrid.scratch().join("copy").display().to_string();
    let _ = astrid.run(&["audit", "export", "--to", &copy]).ok();
    let key = fs::read_to_string(astrid.home().join("var/audit/key.pub")).unwrap();
    let elsewhere = Astrid::new();
    let _ = elsewhere
        .run(&["audit", "verify", "--dir", &copy, "--key", key.trim()])
        .ok();
    let file = astrid.home().join("var/audit/key.pub").display().to_string();
    let _ = elsewhere.run(&["audit", "verify", "--dir", &copy, "--key", &file]).ok();
    let other = format!("ed25519:{}", "0a".repeat(32));
    let wrong = elsewhere.run(&["audit", "verify", "--dir", &copy, "--key", &other]);
    assert_eq!(wrong.code(), 1, "{wrong:?}");
    assert_eq!(elsewhere.run(&["audit", "verify"]).code(), 1);
    assert_eq!(elsewhere.run(&["audit", "verify", "--key", "x"]).code(), 2);
}

/// K13: what was changed is found with its place; the next boot goes on, loudly degraded.
#[test]
fn a_changed_log_is_found_and_told() {
    let astrid = used();
    let path = astrid.home().join("var/audit/00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    // In the first entry.
    bytes[300] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = astrid.run(&["audit", "verify"]);
    assert_eq!(found.code(), 1);
    assert!(found.stdout.contains("00000001.seg, entry 1, byte 196: "), "{found:?}");
    fs::remove_file(astrid.home().join("var/audit/checkpoint")).unwrap();
    let config = astrid.home().join("etc/astrid.toml");
    let before = fs::read_to_string(&config).unwrap_or_default();
    fs::write(&config, format!("{before}\n[audit]\ntampered = \"refuse\"\n")).unwrap();
    let refused = astrid.run(&["start"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(
        refused.stderr.contains("00000001.seg") && refused.stderr.contains("audit verify"),
        "{refused:?}"
    );
    fs::write(&config, before).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(status["state"], "degraded");
    assert!(status["reasons"].to_string().contains("audit log"), "{status}");
    let _ = astrid.run(&["stop"]).ok();
}

/// K22: prune and rotation, while a daemon runs and while none does; either key shows that all is genuine.
#[test]
fn a_log_is_pruned_and_its_key_rotated() {
    let astrid = Astrid::started();
    let prune = ["audit", "prune", "--older-than", "30", "--format", "json"];
    let key = || fs::read_to_string(astrid.home().join("var/audit/key.pub")).unwrap();
    let mut keys = vec![key()];
    for running in [true, false] {
        assert_eq!(astrid.run(&prune).ok().json()["removed_segments"], 0);
        keys.push(astrid.run(&["audit", "rotate"]).ok().stdout);
        assert_eq!(keys.last(), Some(&key()));
        for key in &keys {
            let _ = astrid.run(&["audit", "verify", "--key", key.trim()]).ok();
        }
        if running {
            let _ = astrid.run(&["stop"]).ok();
        }
    }
    let _ = astrid.run(&["start"]).ok();
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(status["state"], "ready");
    let _ = astrid.run(&["stop"]).ok();
    let _ = astrid.run(&["audit", "verify", "--key", keys[2].trim()]).ok();
}

/// K13: what operators change is recorded before it happens, with who and what, and what came of it; what is refused, as well.
#[test]
fn what_operators_do_is_recorded() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["agent", "create", "ann"]).ok();
    assert_eq!(astrid.run(&["agent", "create", "ann"]).code(), 1);
    let _ = astrid.run(&["caps", "revoke", "ann", "publish:orders.>"]).ok();
    let _ = astrid.run(&["agent", "list"]).ok();
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    let _ = astrid.run(&["agent", "modify", "ann", "--add-key", key.trim()]).ok();
    let denied = astrid.run(&["--principal", "ann", "publish", "orders.v1.placed", "x"]);
    assert_eq!(denied.code(), 4, "{denied:?}");
    let _ = astrid.run(&["stop"]).ok();
    let tail = |more: &[&str]| {
        let arguments = [&["audit", "tail", "-n", "1000", "--format", "json"], more].concat();
        let entries = astrid.run(&arguments).ok().json()["entries"].clone();
        entries.as_array().unwrap().clone()
    };
    let told = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text("action"), text("resource"), text("outcome"))
    };
    let admin: Vec<String> = tail(&["--kind", "admin"]).iter().map(told).collect();
    assert_eq!(
        admin,
        [
            "admin:agent.create ann pending",
            "admin:agent.create ann pending",
            "admin:caps.revoke ann pending",
            "admin:agent.modify ann pending",
        ]
    );
    let outcomes: Vec<String> = tail(&["--kind", "outcome", "--of", "default"])
        .iter()
        .map(told)
        .collect();
    let outcomes: Vec<&str> = outcomes.iter().map(|o| o.rsplit(' ').next().unwrap()).collect();
    assert_eq!(outcomes, ["done", "failed", "done", "done"]);
    let denials = tail(&["--kind", "denial", "--of", "ann"]);
    assert!(
        denials[0]["detail"].to_string().contains("publish:orders.>"),
        "{denials:?}"
    );
    assert_eq!(denials[0]["capsule"], "uplink-local");
}

/// K13: what somebody was allowed and did is in the log too, as its number: by whom, through what, and what.
#[test]
fn what_was_done_is_counted() {
    let astrid = Astrid::started();
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    let _ = astrid.run(&["agent", "create", "ann", "--key-of", key.trim()]).ok();
    for _ in 0..3 {
        let _ = astrid
            .run(&["--principal", "ann", "publish", "orders.v1.placed", "x"])
            .ok();
    }
    let _ = astrid.run(&["stop"]).ok();
    let tail = ["audit", "tail", "--of", "ann", "--kind", "summary", "--format", "json"];
    let entries = astrid.run(&tail).ok().json()["entries"].clone();
    let done: Vec<&Value> = entries
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "allowed")
        .collect();
    assert_eq!(done.len(), 1, "{entries}");
    assert_eq!(
        (&done[0]["capsule"], &done[0]["detail"]),
        (&"uplink-local".into(), &"publish".into())
    );
    assert_eq!(done[0]["count"], 3, "{entries}");
}

/// All of a change is recorded, whatever its length and form; and what is changed by hand as well.
#[test]
fn what_changes_is_recorded_whole() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["agent", "create", "ann"]).ok();
    let many: Vec<String> = (0..60).map(|n| format!("observe:filler.number.{n}.>")).collect();
    let capabilities = [many.clone(), vec!["admin:quota.get".to_owned()]].concat();
    let body = format!(
        "{{{}\"name\": \"ann\", \"capabilities\": {}}}",
        " ".repeat(1100),
        serde_json::to_string(&capabilities).unwrap()
    );
    let request = [
        "request",
        "astrid.v1.admin.caps.grant",
        &body,
        "--content-type",
        "application/json",
    ];
    let _ = astrid.run(&request).ok();
    fs::write(astrid.home().join("etc/profiles/eve.toml"), "groups = [\"admin\"]\n").unwrap();
    // Taken when it is known.
    while astrid.run(&["usage", "eve"]).code() != 0 && astrid.run(&["caps", "check", "eve", "-", "kv", "x"]).code() != 0
    {
    }
    let _ = astrid.run(&["stop"]).ok();
    let entries = astrid
        .run(&["audit", "tail", "-n", "1000", "--format", "json"])
        .ok()
        .json()["entries"]
        .clone();
    let entries: Vec<&Value> = entries.as_array().unwrap().iter().collect();
    let details = |action: &str| -> Vec<&str> {
        let of = entries
            .iter()
            .filter(|entry| entry["action"] == action && entry["kind"] != "outcome");
        of.map(|entry| entry["detail"].as_str().unwrap()).collect()
    };
    let parts = details("admin:caps.grant");
    let count = parts.len();
    assert!(count > 1, "{parts:?}");
    let whole: String = (1..=count)
        .map(|n| {
            let part = parts[n - 1].strip_prefix(&format!("part {n} of {count}: "));
            part.unwrap_or_else(|| panic!("{parts:?}"))
        })
        .collect();
    let expected = serde_json::json!({ "name": "ann", "capabilities": capabilities }).to_string();
    assert_eq!(whole, expected);
    assert!(
        details("edited").iter().any(|detail| detail.contains("\"admin\"")),
        "{entries:?}"
    );
    let digests: Vec<&str> = [details("boot"), details("stop")].concat();
    assert!(
        digests.len() == 2 && digests.iter().all(|detail| detail.contains("policy=")),
        "{digests:?}"
    );
    assert_ne!(digests[0].rsplit('=').next(), digests[1].rsplit('=').next());
}

/// What comes is told as it comes, and only what was asked for.
#[test]
fn a_log_is_followed() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["audit", "verify"]).ok();
    let follower = astrid.spawn(&["audit", "tail", "-f", "-n", "1", "--kind", "admin"]);
    for name in ["ann", "ben"] {
        let _ = astrid.run(&["agent", "create", name]).ok();
        follower
            .stdout
            .as_ref()
            .unwrap()
            .wait_for(&format!("admin:agent.create  {name}"));
    }
    // Into the next segment.
    let _ = astrid.run(&["audit", "rotate"]).ok();
    let _ = astrid.run(&["agent", "create", "cem"]).ok();
    follower.stdout.as_ref().unwrap().wait_for("admin:agent.create  cem");
}

fn entries(astrid: &Astrid, more: &[&str]) -> Vec<Value> {
    let arguments = [&["audit", "tail", "-n", "1000", "--format", "json"], more].concat();
    let entries = astrid.run(&arguments).ok().json()["entries"].clone();
    entries.as_array().unwrap().clone()
}

/// K13: what helps a daemon whose log takes nothing is recorded with what came of it, as everything else that operators do.
#[test]
fn what_fails_is_not_recorded_as_done() {
    let astrid = Astrid::started();
    let there = astrid.scratch().join("there");
    fs::write(&there, "x").unwrap();
    let there = there.display().to_string();
    assert_ne!(astrid.run(&["backup", &there]).code(), 0);
    assert_ne!(astrid.run(&["dead", "drop", "nosuch:1", "--yes"]).code(), 0);
    assert_ne!(astrid.run(&["capsule", "forget", "nosuch", "--yes"]).code(), 0);
    let _ = astrid.run(&["audit", "prune", "--older-than", "30"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let intents = entries(&astrid, &["--kind", "admin"]);
    let outcomes = entries(&astrid, &["--kind", "outcome"]);
    let came_of = |action: &str| {
        let intent = intents.iter().find(|e| e["action"] == action && e["stage"] == "intent");
        let intent = intent.unwrap_or_else(|| panic!("{action}: {intents:?}"));
        let outcome = outcomes.iter().find(|e| e["answers"] == intent["sequence"]).unwrap();
        outcome["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(came_of("admin:backup"), "failed");
    assert_eq!(came_of("admin:capsule.forget"), "failed");
    assert_eq!(came_of("admin:dead.drop"), "failed");
    assert_eq!(came_of("admin:audit.prune"), "done");
}

/// K13: a credential that is refused is recorded with what was claimed and by whom; and so is what a quota refuses.
#[test]
fn who_is_turned_away_is_recorded() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["agent", "create", "ann"]).ok();
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    assert_ne!(
        astrid.run(&["--principal", "ann", "status"]).code(),
        0,
        "no key of it is known"
    );
    let _ = astrid.run(&["agent", "modify", "ann", "--add-key", key.trim()]).ok();
    let _ = astrid.run(&["caps", "revoke", "ann", "publish:orders.>"]).ok();
    for topic in ["orders.v1.placed", "orders.v1.paid", "orders.v1.sent"] {
        assert_eq!(astrid.run(&["--principal", "ann", "publish", topic, "x"]).code(), 4);
    }
    let _ = astrid.run(&["quota", "set", "ann", "messages_per_second=0"]).ok();
    assert_ne!(
        astrid
            .run(&["--principal", "ann", "publish", "notes.v1.add", "x"])
            .code(),
        0
    );
    let _ = astrid.run(&["stop"]).ok();
    let denials = entries(&astrid, &["--kind", "denial"]);
    let of = |action: &str| {
        let found = denials.iter().find(|e| e["action"] == action);
        found.unwrap_or_else(|| panic!("{action}: {denials:?}")).clone()
    };
    // By the rule that decided, whatever the topics: one in full, and how often again.
    let denied: Vec<_> = denials.iter().filter(|e| e["action"] == "denied").collect();
    let told: Vec<_> = denied
        .iter()
        .map(|e| (e["kind"].as_str().unwrap(), &e["count"]))
        .collect();
    assert_eq!(told, [("denial", &1.into()), ("summary", &2.into())], "{denied:?}");
    let refused = of("connection.refused");
    let said = refused["detail"].as_str().unwrap();
    assert!(
        said.contains("uid=") && said.contains("pid=") && said.contains("ann"),
        "{said}"
    );
    assert_eq!(
        (&refused["outcome"], &refused["principal"]),
        (&"denied".into(), &"".into())
    );
    let quota = of("quota.exceeded");
    assert_eq!(
        (&quota["principal"], &quota["resource"]),
        (&"ann".into(), &"messages_per_second".into())
    );
}

/// K13: a log that came from a backup says so, and when.
#[test]
fn a_restore_is_recorded() {
    let astrid = Astrid::started();
    let file = astrid.scratch().join("backup").display().to_string();
    let _ = astrid.run(&["backup", &file]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let elsewhere = Astrid::new();
    let _ = elsewhere.run(&["restore", &file]).ok();
    for _ in 0..2 {
        let _ = elsewhere.run(&["start"]).ok();
        let status = elsewhere.run(&["status", "--format", "json"]).ok().json();
        assert!(!status["reasons"].to_string().contains("audit log is not"), "{status}");
        let _ = elsewhere.run(&["stop"]).ok();
    }
    let _ = elsewhere.run(&["audit", "verify"]).ok();
    let told = entries(&elsewhere, &["--kind", "integrity"]);
    let told: Vec<&Value> = told.iter().filter(|e| e["action"] == "backup.restore").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0]["detail"].as_str().unwrap().contains(&file), "{told:?}");
}
