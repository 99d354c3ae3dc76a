//! What lasts, as an operator sees it: dead letters, backup and restore, and messages that are sent twice.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use astrid_kernel::capsule::durable::record::{DeadRecord, MessageRecord, number_key};
use astrid_kernel::store::engine::Write;
use astrid_kernel::store::surreal::Disk;
use astrid_kernel::store::table::{Kind, Scope, Table};
use astrid_kernel::store::thread::StoreThread;
use astrid_kernel::store::{Batch, Level};
use astrid_tests::daemon::Astrid;
use astrid_tests::process::{PATIENCE, run, spawn};
use astrid_wire::Principal;
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::Value;

/// Writes letters into the store of a home that is at rest, as a daemon does when it gives messages up. Their ids.
fn give_up(home: &Path, letters: &[(&str, &[u8])]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let thread = StoreThread::start(Box::new(Disk::new(home.join("var/store"))))
            .await
            .unwrap();
        let store = thread.store();
        let scope = Scope::Principal(Principal::default_owner());
        let mut ids = Vec::new();
        for (capsule, body) in letters {
            let letter = DeadRecord {
                message: MessageRecord {
                    topic: "orders.v1.placed".into(),
                    principal: "default".into(),
                    capsule: "shop".into(),
                    content_type: "text/plain".into(),
                    body: Bytes::copy_from_slice(body),
                    attempts: 5,
                    ..MessageRecord::default()
                },
                code: "capsule.failed".into(),
                reason: "no\u{1b}[2J such customer".into(),
                died_at_ms: 1_700_000_000_000,
            };
            let row = store.row();
            let value = prost::Message::encode_to_vec(&letter);
            let write = Write::put(Table::of(Kind::Dead, capsule, &scope), number_key(row), value);
            let batch = Batch {
                writes: vec![write],
                once: Vec::new(),
                level: Level::Durable,
                shared: None,
                epoch: store.epoch(),
                now_ms: 0,
            };
            store.sequence(batch).unwrap();
            ids.push(format!("{capsule}:{row}"));
        }
        thread.stop().await;
        ids
    })
}

fn listed(astrid: &Astrid, more: &[&str]) -> Vec<String> {
    let arguments = [&["dead", "list", "--format", "json"], more].concat();
    let list = astrid.run(&arguments).ok().json();
    let letters = list["letters"].as_array().unwrap();
    letters
        .iter()
        .map(|letter| letter["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Letters are seen, read, tried again and dropped; and what became of them lasts.
#[test]
fn dead_letters() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    let bodies: [(&str, &[u8]); 5] = [
        ("text", b"one"),
        ("text", b"\x00\xff"),
        ("text", b"three"),
        ("gone", b"four"),
        ("gone", b"five"),
    ];
    let ids = give_up(astrid.home(), &bodies);
    let by_age: Vec<&str> = ids.iter().map(String::as_str).collect();
    let _ = astrid.run(&["start"]).ok();

    assert_eq!(listed(&astrid, &[]), [&by_age[3..], &by_age[..3]].concat());
    assert_eq!(listed(&astrid, &["--capsule", "gone"]), by_age[3..]);
    assert!(listed(&astrid, &["--of", "nobody"]).is_empty());
    let table = astrid.run(&["dead", "list"]).ok().stdout;
    assert!(
        table.contains("orders.v1.placed") && table.contains("5 dead letters") && !table.contains('\u{1b}'),
        "{table}"
    );

    let shown = astrid.run(&["dead", "show", by_age[0]]).ok().stdout;
    assert!(
        shown.contains("no\u{fffd}[2J such customer (capsule.failed)") && shown.ends_with("\none\n"),
        "{shown}"
    );
    let shown = astrid.run(&["dead", "show", by_age[1]]).ok().stdout;
    assert!(shown.contains("00000000  00 ff"), "{shown}");
    let json = astrid.run(&["dead", "show", by_age[1], "--format", "json"]).ok().json();
    assert_eq!(
        (json["encoding"].as_str(), json["body"].as_str()),
        (Some("base64"), Some("AP8="))
    );
    assert_eq!(astrid.run(&["dead", "show", by_age[2], "--raw"]).ok().stdout, "three");
    let missing = astrid.run(&["dead", "show", "text:999999", "--format", "json"]);
    assert_eq!(
        (missing.code(), missing.json_error()["error"]["problem"].as_str()),
        (1, Some("not-found"))
    );

    // Nobody is there to handle these, so they stay; and nobody is asked for them to be forgotten.
    let refused = astrid.run(&["dead", "retry", "--all", "--capsule", "gone"]);
    assert!(
        refused.code() == 1 && refused.stderr.contains("gone does not run here"),
        "{refused:?}"
    );
    assert_eq!(astrid.run(&["dead", "drop", by_age[3]]).code(), 2);
    let dropped = astrid
        .run(&["dead", "drop", by_age[3], "--yes", "--format", "json"])
        .ok()
        .json();
    assert_eq!(dropped["ids"][0], by_age[3]);
    // Its capsule does not subscribe to that, so each of the two that are tried again becomes another letter.
    let _ = astrid.run(&["dead", "retry", by_age[0], by_age[1]]).ok();
    let deadline = Instant::now() + PATIENCE;
    let left = loop {
        // Each look is a request, and the two are on their way.
        let left = listed(&astrid, &[]);
        if left.len() >= 4 {
            break left;
        }
        assert!(Instant::now() < deadline, "only {left:?}");
    };
    assert_eq!(
        (left.len(), left[0].as_str(), left[1].as_str()),
        (4, by_age[4], by_age[2])
    );
    let shown = astrid.run(&["dead", "show", &left[2]]).ok().stdout;
    assert!(shown.contains("unsubscribed"), "{shown}");

    let pid = astrid.pid();
    astrid_tests::process::send(pid, Signal::KILL);
    assert!(astrid_tests::process::ends(pid));
    let _ = astrid.run(&["start"]).ok();
    assert_eq!(listed(&astrid, &[]), left, "what was answered is on disk");
    let _ = astrid.run(&["dead", "drop", "--all", "--yes"]).ok();
    assert!(listed(&astrid, &[]).is_empty());
}

/// The same id is the same message, also for another connection and another life of the daemon.
#[test]
fn what_is_sent_twice_happens_once() {
    let astrid = Astrid::started();
    let watch = astrid.spawn(&["watch", "orders.v1.>", "--count", "3"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    for _ in 0..3 {
        let _ = astrid
            .run(&["publish", "orders.v1.placed", "first", "--id", "order-1"])
            .ok();
    }
    let _ = astrid
        .run(&["publish", "orders.v1.placed", "second", "--id", "order-2"])
        .ok();
    let _ = astrid.run(&["publish", "orders.v1.placed", "third"]).ok();
    let stdout = watch.stdout.as_ref().unwrap();
    let lines: Vec<String> = std::iter::from_fn(|| stdout.next_line()).collect();
    let bodies: Vec<_> = lines.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(bodies, ["first", "second", "third"]);
    assert_eq!(watch.wait().code(), Some(0));

    let pid = astrid.pid();
    astrid_tests::process::send(pid, Signal::KILL);
    assert!(astrid_tests::process::ends(pid));
    let _ = astrid.run(&["start"]).ok();
    let watch = astrid.spawn(&["watch", "orders.v1.>", "--count", "1"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    let _ = astrid
        .run(&["publish", "orders.v1.placed", "first", "--id", "order-1"])
        .ok();
    let _ = astrid.run(&["publish", "orders.v1.placed", "last"]).ok();
    let line = watch.stdout.as_ref().unwrap().next_line().unwrap();
    assert!(line.ends_with("last"), "{line}");

    for bad in ["", &"x".repeat(129)] {
        assert_eq!(astrid.run(&["publish", "a.v1.b", "--id", bad]).code(), 2);
    }
}

/// Each line is a message, and is reported when it was accepted, while others are still to be typed.
#[test]
fn lines_are_messages() {
    let astrid = Astrid::started();
    let mut command = astrid.command(&["publish", "lines.v1.said", "--lines", "--id-prefix", "t"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    for number in 1..=3 {
        writeln!(stdin, "line {number}").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        assert_eq!(line, format!("accepted {number}\n"));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());

    let many: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    let mut command = astrid.command(&["publish", "lines.v1.said", "--lines"]);
    let outcome = run(&mut command, many.as_bytes()).ok();
    assert_eq!(outcome.stdout.lines().count(), 1000);
    assert_eq!(outcome.stdout.lines().last(), Some("accepted 1000"));

    let mut command = astrid.command(&["publish", "port.v1.said", "--lines", "--format", "json"]);
    let outcome = run(&mut command, b"x\ny");
    assert_eq!(outcome.code(), 1);
    let refused: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (refused[0]["refused"].as_u64(), refused[1]["refused"].as_u64()),
        (Some(1), Some(2)),
        "{outcome:?}"
    );
}

/// A bundle that breaks, is taken away, or is not looked at in safe mode loses nothing of what is said to it.
#[test]
fn a_bundle_that_breaks() {
    let astrid = Astrid::new();
    let installed = astrid.home().join("capsules/relay-c.capsule");
    let good = fs::read(astrid_tests::bed::bundle_file("relay-c")).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    fs::write(&installed, &good).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let states = || {
        let list = astrid.run(&["capsule", "list", "--format", "json"]).ok().json();
        let mut found = list["capsules"].as_array().unwrap().iter();
        let relay = found.find(|c| c["name"] == "relay-c").cloned().unwrap_or_default();
        relay["state"].as_str().unwrap_or("none").to_owned()
    };
    let say = |number: u64| {
        let body = format!("{{\"client\": \"c\", \"number\": {number}}}");
        let _ = astrid
            .run(&["publish", "relay.v1.third", &body, "--content-type", "application/json"])
            .ok();
    };
    let report = || astrid.run(&["request", "relay.v1.request.report", "{}"]).ok().json()["clients"]["c"].clone();
    let handled = |count: u64| {
        let until = Instant::now() + PATIENCE;
        while report()["count"] != count {
            assert!(Instant::now() < until, "{}", report());
        }
    };
    assert_eq!(states(), "ready");
    say(1);
    handled(1);
    let _ = astrid.run(&["stop"]).ok();
    fs::write(&installed, &good[..good.len() / 2]).unwrap();
    let _ = astrid.run(&["start"]).ok();
    assert_eq!(states(), "absent");
    say(2);
    let status = astrid.run(&["status"]);
    assert!(
        status
            .stdout
            .contains("relay-c: it is not loaded; what is said to it is kept (1 waiting)"),
        "{status:?}"
    );
    let _ = astrid.run(&["stop"]).ok();
    fs::remove_file(&installed).unwrap();
    let _ = astrid.run(&["start", "--safe"]).ok();
    say(3);
    let pid = astrid.pid();
    astrid_tests::process::send(pid, Signal::KILL);
    assert!(astrid_tests::process::ends(pid));
    fs::write(&installed, &good).unwrap();
    let _ = astrid.run(&["start"]).ok();
    handled(3);
    assert_eq!(report()["out_of_order"], serde_json::json!([]));

    assert_eq!(
        astrid.run(&["capsule", "forget", "relay-c", "--yes"]).code(),
        1,
        "it runs"
    );
    let _ = astrid.run(&["stop"]).ok();
    fs::remove_file(&installed).unwrap();
    let _ = astrid.run(&["start"]).ok();
    say(4);
    assert_eq!(
        astrid.run(&["capsule", "forget", "relay-c"]).code(),
        2,
        "nobody was asked"
    );
    let said = astrid.run(&["capsule", "forget", "relay-c", "--yes"]).ok();
    assert_eq!(
        said.stdout,
        "relay-c is forgotten, with 1 message and 0 timers that waited for it\n"
    );
    assert_eq!(states(), "none");
    assert_eq!(
        astrid.run(&["capsule", "forget", "relay-c", "--yes"]).code(),
        1,
        "nothing is left of it"
    );
}

/// A home whose store is gone or cannot be opened is not started, not backed up over what was good, and `doctor` says what `start` would.
#[test]
fn a_store_that_is_lost() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    let (store, away) = (astrid.home().join("var/store"), astrid.home().join("away"));
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("good.tgz");
    let backup = ["backup", file.to_str().unwrap(), "--force"];
    let _ = astrid.run(&backup).ok();
    assert_eq!(astrid.run(&["doctor"]).code(), 0);
    let good = fs::read(&file).unwrap();
    fs::rename(&store, &away).unwrap();
    for arguments in [&["start"][..], &["doctor"], &backup] {
        let outcome = astrid.run(arguments);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("is gone") && said.contains("store.made"), "{outcome:?}");
    }
    assert!(!store.exists(), "nothing takes its place");
    fs::rename(&away, &store).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    fs::write(store.join("format"), "garbage").unwrap();
    for arguments in [&["start"][..], &["doctor"], &backup] {
        assert_eq!(astrid.run(arguments).code(), 1);
    }
    assert_eq!(fs::read(&file).unwrap(), good, "the last good backup stays");
}

/// K22: online, while messages are accepted; into a fresh home; and everything is there.
#[test]
fn backup_and_restore() {
    let astrid = Astrid::started();
    let _ = astrid
        .run(&["process", "run", "sleeper", "--", "sleep", "1000000"])
        .ok();
    fs::write(astrid.home().join("etc/notes.txt"), "of the operator").unwrap();
    let _ = astrid.run(&["publish", "orders.v1.placed", "x", "--id", "before"]).ok();

    let mut command = astrid.command(&["publish", "orders.v1.placed", "--lines", "--id-prefix", "t"]);
    let mut busy = spawn(command.stdin(Stdio::piped()));
    let mut stdin = busy.stdin().unwrap();
    let accepted = busy.stdout.take().unwrap();
    let feeder = std::thread::spawn(move || {
        for n in 0..2000 {
            if writeln!(stdin, "{n}").is_err() {
                return;
            }
        }
    });
    accepted.wait_for("accepted 10");
    let file = astrid.scratch().join("backup.tar.gz");
    let path = file.display().to_string();
    let written = astrid.run(&["backup", &path, "--format", "json"]).ok().json();
    assert!(
        written["sequence"].as_u64().unwrap() > 0 && written["files"].as_u64().unwrap() > 5,
        "{written}"
    );
    assert_eq!(written["bytes"].as_u64().unwrap(), fs::metadata(&file).unwrap().len());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    accepted.wait_for("accepted 2000");
    feeder.join().unwrap();
    let again = astrid.run(&["backup", &path, "--format", "json"]);
    assert_eq!(again.json_error()["error"]["problem"], "exists");
    let inside = astrid.home().join("x.tar.gz").display().to_string();
    assert_eq!(astrid.run(&["backup", &inside]).code(), 1);

    let restored = Astrid::new();
    let _ = restored.run(&["restore", &path]).ok();
    assert_eq!(
        fs::read(restored.home().join("etc/notes.txt")).unwrap(),
        b"of the operator"
    );
    assert_eq!(
        fs::read(restored.home().join("keys/runtime.key")).unwrap(),
        fs::read(astrid.home().join("keys/runtime.key")).unwrap()
    );
    let twice = restored.run(&["restore", &path]);
    assert!(
        twice.code() == 1 && twice.stderr.contains("is there already"),
        "{twice:?}"
    );
    let _ = restored.run(&["start"]).ok();
    let processes = restored.run(&["process", "list", "--format", "json"]).ok().json();
    assert_eq!(processes["processes"][0]["name"], "sleeper");
    // The ids that were accepted before the backup began are known.
    let watch = restored.spawn(&["watch", "orders.v1.>", "--count", "1"]);
    watch.stderr.as_ref().unwrap().wait_for("watching");
    for id in ["before", "t-1", "t-10"] {
        let _ = restored.run(&["publish", "orders.v1.placed", "again", "--id", id]).ok();
    }
    let _ = restored
        .run(&["publish", "orders.v1.placed", "new", "--id", "after"])
        .ok();
    let line = watch.stdout.as_ref().unwrap().next_line().unwrap();
    assert!(line.ends_with("new"), "{line}");

    // At rest, without a daemon; and a home that serves is not restored into.
    let _ = restored.run(&["stop"]).ok();
    let at_rest = astrid.scratch().join("at-rest.tar.gz").display().to_string();
    let _ = restored.run(&["backup", &at_rest]).ok();
    let third = Astrid::new();
    let _ = third.run(&["restore", &at_rest]).ok();
    let _ = third.run(&["start"]).ok();
    assert_eq!(third.run(&["restore", &at_rest]).code(), 1);
}

/// K22: a restore that is killed leaves a home that is not started, until a restore into it has succeeded.
#[test]
fn a_restore_that_is_killed() {
    let astrid = Astrid::started();
    let mut noise = vec![0u8; 24 << 20];
    let mut state = 1u64;
    for chunk in noise.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    fs::write(astrid.home().join("etc/large"), &noise).unwrap();
    let file = astrid.scratch().join("backup.tar.gz").display().to_string();
    let _ = astrid.run(&["backup", &file]).ok();

    let restored = Astrid::new();
    let restore = restored.spawn(&["restore", &file]);
    let marker = restored.home().join("var/restoring");
    // It may also be faster than this test is looked after: the marker is there before any key, until all is.
    let is_over = || restored.home().join("keys/runtime.key").exists() && !marker.exists();
    while !marker.exists() && !is_over() {
        std::thread::yield_now();
    }
    restore.signal(Signal::KILL);
    let _ = restore.wait();
    let key = restored.home().join("keys/runtime.key");
    if marker.exists() {
        // Nearly all of it may be there.
        let had = key.exists();
        let refused = restored.run(&["start"]);
        assert!(
            refused.code() == 1 && refused.stderr.contains("half restored"),
            "{refused:?}"
        );
        assert!(refused.stderr.contains("astrid restore FILE"), "{refused:?}");
        assert_eq!(key.exists(), had, "a start would have made one");
        let _ = restored.run(&["restore", &file]).ok();
    }
    assert!(fs::read(restored.home().join("etc/large")).unwrap() == noise);
    assert!(!restored.home().join("var/.restore").exists());
    let _ = restored.run(&["start"]).ok();
}

/// What is thrown away has no files to save.
#[test]
fn a_private_home_has_no_backup() {
    let astrid = Astrid::new();
    let private = astrid.spawn(&["--private"]);
    let words = private.stderr.as_ref().unwrap();
    let home = words.wait_for("home ").trim_start_matches("home ").to_owned();
    words.wait_for("ready");
    let outcome = astrid.run(&["--home", &home, "backup", "x.tar.gz", "--format", "json"]);
    assert_eq!(outcome.json_error()["error"]["problem"], "unsupported", "{outcome:?}");
    assert!(!astrid.scratch().join("x.tar.gz").exists());
    private.signal(Signal::TERM);
    let _ = private.wait();
}
