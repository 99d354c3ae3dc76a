//! Whoever is deleted leaves nothing to whoever is made under its name; and how places and entries of the audit log are shared out between
//! those who come and go (K7, K12, K13, K14, K15).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::net::UnixStream;

use astrid_kernel::home::Socket;
use astrid_kernel::identity::KeyPair;
use astrid_tests::bed::bundle_file;
use astrid_tests::daemon::Astrid;
use astrid_tests::process::PATIENCE;
use astrid_tests::wire::{As, Connection, Gone, publish};
use astrid_wire::control::admin::Admin;
use astrid_wire::envelope::{self, FromClient, FromServer, request};
use astrid_wire::problem::codes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A daemon with these capsules.
fn with(capsules: &[&str]) -> Astrid {
    let astrid = Astrid::new();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    for name in capsules {
        let installed = astrid.home().join(format!("capsules/{name}.capsule"));
        fs::write(installed, fs::read(bundle_file(name)).unwrap()).unwrap();
    }
    let _ = astrid.run(&["start"]).ok();
    astrid
}

fn admin(astrid: &Astrid, verb: &str, body: &Value) -> Result<Value, Gone> {
    Connection::open(astrid.home())?.ask(&format!("astrid.v1.admin.{verb}"), body)
}

/// Makes a principal with a key of its own, which is new each time.
fn make(astrid: &Astrid, name: &str, mut body: Value) -> Result<KeyPair, Gone> {
    let made = tempfile::tempdir_in(astrid.scratch()).unwrap();
    let key = KeyPair::create(&made.path().join("key")).unwrap();
    body["name"] = name.into();
    body["keys"] = json!([key.public()]);
    admin(astrid, "agent.create", &body).map(|_| key)
}

fn enter(astrid: &Astrid, socket: Socket, name: &str, key: &KeyPair) -> Result<Connection, Gone> {
    Connection::open_as(astrid.home(), socket, As::Principal(name, key))
}

fn submit(connection: &mut Connection, id: &str) {
    let body = json!({ "client": "c", "number": 1 });
    connection
        .send(&publish(1, "relay.v1.submit", &body, id.to_owned()))
        .unwrap();
    let answer = connection.receive().unwrap();
    assert!(matches!(answer, FromServer::Done(_)), "{answer:?}");
}

/// Waits until a relay has handled so many of what was accepted.
fn handled(connection: &mut Connection, report: &str, count: u64) {
    let until = std::time::Instant::now() + PATIENCE;
    let topic = format!("relay.v1.request.{report}");
    while connection.ask(&topic, &json!({})).unwrap()["clients"]["c"]["count"] != count {
        assert!(std::time::Instant::now() < until, "it is not handled");
    }
}

/// What is said of a capsule that is not loaded.
fn reason(astrid: &Astrid, capsule: &str) -> String {
    let all = astrid.run(&["capsule", "list", "--format", "json"]).ok().json();
    let found = all["capsules"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["name"] == capsule);
    found.unwrap()["reason"].as_str().unwrap().to_owned()
}

/// K7: when `agent.delete` is answered, everything that the store kept for the principal is gone: tables, timers and messages, of capsules
/// that are not loaded and of system actors too, and ids of its messages. Whoever is made under the name begins with nothing.
#[test]
fn who_is_made_anew_begins_with_nothing() {
    let astrid = with(&["hello", "tally", "ledger", "relay-a"]);
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    spy.ask("tally.v1.visit", &json!({ "name": "secret" })).unwrap();
    let timer = json!({ "after_ms": 3_600_000, "tag": "secret", "durable": true });
    spy.ask("ledger.v1.timer", &timer).unwrap();
    submit(&mut spy, "a-1");
    handled(&mut spy, "report_a", 1);
    // It waits for nobody any more when this has begun anew.
    let _ = astrid.run(&["stop"]).ok();
    fs::remove_file(astrid.home().join("capsules/relay-a.capsule")).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    submit(&mut spy, "a-2");
    assert!(reason(&astrid, "relay-a").contains("(1 waiting)"));
    fs::create_dir_all(astrid.home().join("home/spy/notes")).unwrap();

    let deleted = astrid
        .run(&["agent", "delete", "spy", "--yes", "--format", "json"])
        .ok()
        .json();
    let dropped = &deleted["dropped"];
    assert!(dropped["keys"].as_u64() >= Some(2), "{deleted}");
    assert_eq!(
        (&dropped["messages"], &dropped["timers"]),
        (&json!(1), &json!(2)),
        "{deleted}"
    );
    assert!(!astrid.home().join("home/spy").exists());
    assert!(
        spy.ask("tally.v1.count", &json!({})).is_err(),
        "its connection is closed"
    );

    let old = key;
    let key = make(&astrid, "spy", json!({})).unwrap();
    assert!(enter(&astrid, Socket::Operator, "spy", &old).is_err());
    for restarted in [false, true] {
        if restarted {
            let _ = astrid.run(&["restart"]).ok();
        }
        let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
        assert_eq!(spy.ask("tally.v1.count", &json!({})).unwrap(), json!({ "visits": {} }));
        assert_eq!(spy.ask("ledger.v1.timers", &json!(null)).unwrap(), json!([]));
        if restarted {
            continue;
        }
        assert!(reason(&astrid, "relay-a").contains("(0 waiting)"));
        // Under ids that the other had used.
        submit(&mut spy, "a-1");
        submit(&mut spy, "a-2");
        assert!(reason(&astrid, "relay-a").contains("(2 waiting)"));
    }
}

/// A profile that was removed by hand deletes nothing, and nobody is given what it left; deleting it again does.
#[test]
fn leftovers_are_nobodys() {
    let astrid = with(&["hello", "tally"]);
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    spy.ask("tally.v1.visit", &json!({ "name": "secret" })).unwrap();
    fs::remove_file(astrid.home().join("etc/profiles/spy.toml")).unwrap();
    while astrid.run(&["agent", "list"]).ok().stdout.contains("spy") {}
    let refused = astrid.run(&["agent", "create", "spy"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert!(refused.stderr.contains("astrid agent delete spy"), "{refused:?}");
    let asked = astrid.run(&["agent", "delete", "spy"]);
    assert_eq!(asked.code(), 2, "nobody is there to be asked: {asked:?}");
    let deleted = astrid.run(&["agent", "delete", "spy", "--yes"]).ok();
    assert!(
        deleted.stderr.contains("key") && deleted.stderr.contains("1 timer"),
        "{deleted:?}"
    );
    assert_eq!(
        astrid.run(&["agent", "delete", "spy", "--yes"]).code(),
        1,
        "there is nothing left"
    );
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    assert_eq!(spy.ask("tally.v1.count", &json!({})).unwrap(), json!({ "visits": {} }));
}

/// A daemon that is killed while it deletes leaves no name that can be given away: it is there, disabled, and is deleted again.
#[test]
fn a_deletion_that_is_cut_short_is_repeated() {
    let astrid = with(&["hello", "tally"]);
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    for n in 0..200 {
        spy.ask("tally.v1.visit", &json!({ "name": format!("secret-{n}") }))
            .unwrap();
    }
    let profile = astrid.home().join("etc/profiles/spy.toml");
    let pid = Pid::from_raw(i32::try_from(astrid.pid()).unwrap()).unwrap();
    let deleting = astrid.spawn(&["agent", "delete", "spy", "--yes"]);
    // The first that it does, and the last, is seen there.
    while fs::read_to_string(&profile).is_ok_and(|text| !text.contains("enabled = false")) {}
    kill_process(pid, Signal::KILL).unwrap();
    let _ = deleting.wait();
    let _ = astrid.run(&["start"]).ok();
    if profile.exists() {
        assert_eq!(astrid.run(&["agent", "create", "spy"]).code(), 1, "it is there");
        assert!(enter(&astrid, Socket::Operator, "spy", &key).is_err(), "it is disabled");
        let _ = astrid.run(&["agent", "delete", "spy", "--yes"]).ok();
    }
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    assert_eq!(spy.ask("tally.v1.count", &json!({})).unwrap(), json!({ "visits": {} }));
}

/// K12: what whoever is made anew uses is seen, in a system actor that was there all the time, and its limits count there.
#[test]
fn a_live_actor_pays_from_the_new_row() {
    let astrid = with(&["ledger"]);
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    spy.ask("ledger.v1.sum", &json!({ "key": "a" })).unwrap();
    admin(&astrid, "agent.delete", &json!({ "name": "spy" })).unwrap();
    let key = make(&astrid, "spy", json!({})).unwrap();
    let mut spy = enter(&astrid, Socket::Operator, "spy", &key).unwrap();
    // An answer may arrive a moment before what it cost is counted.
    let seen = (0..50).any(|_| {
        spy.ask("ledger.v1.sum", &json!({ "key": "a" })).unwrap();
        let usage = admin(&astrid, "usage.get", &json!({ "name": "spy" })).unwrap();
        let capsules = usage["principals"][0]["capsules"].as_array().unwrap();
        let ledger = capsules.iter().find(|of| of["capsule"] == "ledger");
        ledger.is_some_and(|of| of["fuel"].as_u64() > Some(0))
    });
    assert!(seen, "what it uses of the actor is counted for nobody");
    admin(
        &astrid,
        "quota.set",
        &json!({ "name": "spy", "limits": { "fuel_total": 1 } }),
    )
    .unwrap();
    match spy.ask_bytes("ledger.v1.sum", b"{\"key\":\"a\"}".to_vec()).unwrap() {
        FromServer::Problem(problem) => assert!(problem.message.contains("fuel_total"), "{problem:?}"),
        other => panic!("{other:?}"),
    }
}

/// K8: one who may only wait for usage does not keep others from what they may ask, nor from waiting too.
#[test]
fn a_watcher_keeps_nobody_out() {
    let astrid = Astrid::started();
    let grants = json!(["admin:usage.watch", "publish:astrid.v1.admin.>"]);
    let key = make(&astrid, "eve", json!({ "groups": [], "grants": grants })).unwrap();
    let mut owner = Connection::open(astrid.home()).unwrap();
    let mut eve = enter(&astrid, Socket::Operator, "eve", &key).unwrap();
    let ask = |id: u64| {
        let request = envelope::Request {
            id,
            topic: Admin::UsageWatch.topic().into(),
            content_type: "application/json".into(),
            timeout_ms: 60_000,
            content: Some(request::Content::Body("{}".into())),
        };
        FromClient::Request(request).into_frame()
    };
    let frames: Vec<u8> = (1..=60).flat_map(ask).collect();
    eve.send(&frames).unwrap();
    let mut refused = 0;
    while refused < 50 {
        match eve.receive().unwrap() {
            FromServer::Problem(problem) if problem.code == codes::TOO_MANY => refused += 1,
            FromServer::Response(_) => {}
            other => panic!("{other:?}"),
        }
        if refused == 1 {
            owner.ask("astrid.v1.admin.agent.list", &json!({})).unwrap();
        }
    }
    // What it waits for does not come in its time, but it may wait.
    let request = FromClient::Request(envelope::Request {
        id: 1_000,
        topic: Admin::UsageWatch.topic().into(),
        content_type: "application/json".into(),
        timeout_ms: 1,
        content: Some(request::Content::Body("{}".into())),
    });
    owner.send(&request.into_frame()).unwrap();
    let answer = owner.receive().unwrap();
    assert!(
        !matches!(&answer, FromServer::Problem(problem) if problem.code == codes::TOO_MANY),
        "{answer:?}"
    );
}

fn code(refused: Result<Connection, Gone>) -> String {
    refused.map(drop).unwrap_err().0
}

/// K14, K15, A3: one agent has half of a socket's places, all agents together none of the owner's, and each is told so.
#[test]
fn agents_leave_room_for_the_owner() {
    let astrid = Astrid::started();
    let ann = make(&astrid, "ann", json!({})).unwrap();
    let ben = make(&astrid, "ben", json!({})).unwrap();
    let mut held: Vec<Connection> = (0..50)
        .map(|_| enter(&astrid, Socket::Operator, "ann", &ann).unwrap())
        .collect();
    let told = code(enter(&astrid, Socket::Operator, "ann", &ann));
    assert!(
        told.contains(codes::TOO_MANY) && told.contains("50 connections"),
        "{told}"
    );
    held.extend((0..42).map(|_| enter(&astrid, Socket::Operator, "ben", &ben).unwrap()));
    let told = code(enter(&astrid, Socket::Operator, "ben", &ben));
    assert!(told.contains(codes::TOO_MANY) && told.contains("owner"), "{told}");
    // Whoever says nothing gives way, also if it came first.
    let silent: Vec<UnixStream> = (0..200)
        .map(|_| UnixStream::connect(astrid.home().join("run/operator.sock")).unwrap())
        .collect();
    let _own: Vec<Connection> = (0..7).map(|_| Connection::open(astrid.home()).unwrap()).collect();
    let _ = astrid.run(&["who"]).ok();
    drop((silent, held));
}

/// K14: whoever shows nothing has a quarter of the places, and keeps out nobody who shows something.
#[test]
fn strangers_leave_room_for_whoever_has_a_key() {
    let astrid = Astrid::started();
    let ann = make(&astrid, "ann", json!({})).unwrap();
    let nobody = || Connection::open_as(astrid.home(), Socket::Session, As::Nobody);
    let _held: Vec<Connection> = (0..25).map(|_| nobody().unwrap()).collect();
    let told = code(nobody());
    assert!(told.contains(codes::TOO_MANY), "{told}");
    let _ann = enter(&astrid, Socket::Session, "ann", &ann).unwrap();
}

/// K12: whoever is over its quota of connections has proven who it is, and is told of what, how much, and when it frees.
#[test]
fn over_the_quota_of_connections_is_told() {
    let astrid = Astrid::started();
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    let body = json!({ "name": "ann", "keys": [key.trim()], "quota": { "connections": 0 } });
    admin(&astrid, "agent.create", &body).unwrap();
    let refused = astrid.run(&["--principal", "ann", "--format", "json", "publish", "a.v1.b", "x"]);
    let told = &serde_json::from_str::<Value>(&refused.stderr).unwrap()["error"];
    assert_eq!(told["problem"], codes::QUOTA_EXCEEDED, "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(message.contains("connections: 0 allowed, it frees when"), "{message}");
    assert!(
        !told["hint"].to_string().contains("keypair"),
        "its key is right: {told}"
    );
}

/// K13: connections that come and go again and again are counted, and do not fill the audit log.
#[test]
fn routine_connections_are_counted() {
    const TIMES: u64 = 40;
    let astrid = Astrid::started();
    let ann = make(&astrid, "ann", json!({})).unwrap();
    for _ in 0..TIMES {
        drop(enter(&astrid, Socket::Operator, "ann", &ann).unwrap());
    }
    let _ = astrid.run(&["stop"]).ok();
    let log = astrid
        .run(&["audit", "tail", "-n", "1000", "--format", "json"])
        .ok()
        .json();
    let entries = log["entries"].as_array().unwrap();
    for action in ["connection.accepted", "connection.ended"] {
        let of_ann: Vec<&Value> = entries
            .iter()
            .filter(|entry| entry["principal"] == "ann" && entry["action"] == action)
            .collect();
        let full = of_ann.iter().filter(|entry| entry["kind"] == "connection").count();
        let all: u64 = of_ann.iter().map(|entry| entry["count"].as_u64().unwrap()).sum();
        // A minute may have ended in between.
        assert!((1..=2).contains(&full) && of_ann.len() <= 4, "{of_ann:?}");
        assert_eq!(all, TIMES, "{action}: {of_ann:?}");
        assert!(
            of_ann[0]["resource"] == "operator" && of_ann[0]["capsule"] == "uplink-local",
            "{of_ann:?}"
        );
    }
}
