//! Clients and capsules that want more than they have. Each test is one thing that they try.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use astrid_kernel::authority::{Authority, Policy};
use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::message::Body;
use astrid_kernel::home::Socket;
use astrid_kernel::identity::KeyPair;
use astrid_tests::bed::{Bed, Settings, bundle_file};
use astrid_tests::chance::Chance;
use astrid_tests::daemon::Astrid;
use astrid_tests::wire::{As, Connection, publish};
use astrid_wire::Principal;
use astrid_wire::authority::{GroupsFile, Profile};
use astrid_wire::control::Verb;
use astrid_wire::control::admin::Admin;
use astrid_wire::envelope::{self, FromClient, FromServer};
use astrid_wire::problem::codes;
use serde_json::{Value, json};

/// A daemon, and its owner's connection.
struct Place {
    astrid: Astrid,
    owner: Connection,
}

impl Place {
    fn new() -> Self {
        let astrid = Astrid::started();
        let owner = Connection::open(astrid.home()).unwrap();
        Self { astrid, owner }
    }

    fn admin(&mut self, verb: &str, body: Value) -> Value {
        self.owner.ask(&format!("astrid.v1.admin.{verb}"), &body).unwrap()
    }

    /// A new principal that is like this besides its key.
    fn principal(&mut self, name: &str, mut body: Value) -> KeyPair {
        let key = KeyPair::create(&self.astrid.scratch().join(format!("{name}.key"))).unwrap();
        body["name"] = name.into();
        body["keys"] = json!([key.public()]);
        self.admin("agent.create", body);
        key
    }

    fn enter(&self, name: &str, key: &KeyPair) -> Connection {
        Connection::open_as(self.astrid.home(), Socket::Operator, As::Principal(name, key)).unwrap()
    }
}

/// The code of what is answered; empty when it was done.
fn code(answer: FromServer) -> String {
    match answer {
        FromServer::Problem(problem) => problem.code,
        FromServer::Response(_) | FromServer::Done(_) => String::new(),
        other => panic!("{other:?}"),
    }
}

fn said(connection: &mut Connection, topic: &str, id: &str) -> String {
    connection.send(&publish(1, topic, &json!({}), id.to_owned())).unwrap();
    code(connection.receive().unwrap())
}

/// K9: whoever may ask for every change, or holds everything, cannot make more of itself: not directly, not by its group, and not by somebody
/// else that it makes, takes over or wakes up.
#[test]
fn nobody_makes_more_of_itself() {
    let mut place = Place::new();
    place.principal("victim", json!({}));
    // By what its group grants: all of the requests, or everything.
    for (name, all, own) in [("eve", "kv", vec!["admin"]), ("mallory", "*", vec![])] {
        let (mine, twin) = (format!("{name}-group"), format!("{name}-twin"));
        let group = json!({ "name": mine, "grants": [all, "kv"], "unsafe_admin": all == "*" });
        place.admin("group.create", group);
        let made = json!({ "groups": ["agent", mine], "grants": own, "quota": { "calls": 2, "children": 1 } });
        let key = place.principal(name, made);
        place.admin(
            "caps.revoke",
            json!({ "name": name, "capabilities": ["publish:secret.>"] }),
        );
        if name == "eve" {
            place.principal("boss", json!({ "groups": ["admin"] }));
            place.principal("sleeper", json!({ "groups": ["admin"] }));
            place.admin("agent.disable", json!({ "name": "sleeper" }));
        }
        let before = place.admin("agent.list", json!({}));
        let mut thief = place.enter(name, &key);
        let mut tries = |tries: Vec<(&str, Value)>, expected: &str| {
            for (verb, body) in tries {
                let sent = body.to_string().into_bytes();
                let found = code(thief.ask_bytes(&format!("astrid.v1.admin.{verb}"), sent).unwrap());
                assert_eq!(found, expected, "{name}: {verb} {body}");
            }
        };
        tries(
            vec![
                ("quota.set", json!({ "name": name, "limits": { "calls": 3 } })),
                ("quota.set", json!({ "name": name, "limits": { "calls": null } })),
                (
                    "quota.set",
                    json!({ "name": name, "limits": { "children": 0, "calls": null } }),
                ),
                ("agent.modify", json!({ "name": name, "weight": 100 })),
                ("agent.modify", json!({ "name": name, "add_groups": ["admin"] })),
                (
                    "agent.modify",
                    json!({ "name": name, "remove_groups": ["agent"], "add_groups": ["restricted"] }),
                ),
                (
                    "caps.grant",
                    json!({ "name": name, "capabilities": ["publish:secret.>"] }),
                ),
                ("agent.delete", json!({ "name": name })),
                // By another one, which it could be.
                (
                    "agent.create",
                    json!({ "name": twin, "groups": ["admin"], "keys": [key.public()] }),
                ),
                (
                    "agent.create",
                    json!({ "name": twin, "grants": ["publish:secret.x"], "quota": { "calls": 2, "children": 1 } }),
                ),
                (
                    "agent.create",
                    json!({ "name": twin, "groups": [], "keys": [key.public()] }),
                ),
                // However little the other one has: it would be as much again.
                (
                    "agent.create",
                    json!({ "name": twin, "groups": [], "quota": { "calls": 1, "children": 1 } }),
                ),
                ("agent.modify", json!({ "name": "victim", "add_keys": [key.public()] })),
            ],
            codes::DENIED,
        );
        if name == "eve" {
            tries(
                vec![
                    ("caps.grant", json!({ "name": name, "capabilities": ["child.spawn"] })),
                    (
                        "agent.create",
                        json!({ "name": twin, "grants": ["child.spawn"], "quota": { "calls": 1, "children": 1 } }),
                    ),
                    ("group.modify", json!({ "name": mine, "add_grants": ["child.spawn"] })),
                    (
                        "group.modify",
                        json!({ "name": mine, "add_grants": ["*"], "unsafe_admin": true }),
                    ),
                    // By one that is there and has more.
                    ("agent.modify", json!({ "name": "default", "add_keys": [key.public()] })),
                    ("agent.modify", json!({ "name": "boss", "add_keys": [key.public()] })),
                    ("agent.enable", json!({ "name": "sleeper" })),
                    // By taking it from those who could take it back.
                    ("agent.delete", json!({ "name": "default" })),
                    ("agent.disable", json!({ "name": "default" })),
                    ("caps.revoke", json!({ "name": "default", "capabilities": ["admin"] })),
                    ("quota.set", json!({ "name": "default", "limits": { "calls": 0 } })),
                    ("agent.modify", json!({ "name": "boss", "remove_groups": ["admin"] })),
                    ("group.create", json!({ "name": "more", "grants": ["child.spawn"] })),
                    // By a capsule before everybody's messages, or by a louder voice of another.
                    (
                        "caps.grant",
                        json!({ "name": "capsule:sentry", "capabilities": ["guard:>"] }),
                    ),
                    ("agent.modify", json!({ "name": "sleeper", "weight": 100 })),
                ],
                codes::DENIED,
            );
        }
        assert_eq!(place.admin("agent.list", json!({})), before, "nothing of it happened");
        // What is no more than its own it may do: this is not a test that everything is refused.
        let mut thief = place.enter(name, &key);
        for (verb, body) in [
            ("quota.set", json!({ "name": "victim", "limits": { "calls": 1 } })),
            ("quota.set", json!({ "name": name, "limits": { "calls": 1 } })),
            ("group.modify", json!({ "name": mine, "remove_grants": ["kv"] })),
        ] {
            thief.ask(&format!("astrid.v1.admin.{verb}"), &body).unwrap();
        }
    }
}

/// Whoever may make itself smaller cannot make itself so that nobody can: not by a profile that has no room left, nor by a number that no
/// file can hold.
#[test]
fn nobody_is_beyond_reach() {
    let mut place = Place::new();
    let grants = json!(["admin:caps.revoke", "admin:quota.set"]);
    let mal = place.principal("mal", json!({ "grants": grants }));
    let mut client = place.enter("mal", &mal);
    let mut refused = String::new();
    for n in 0..10 {
        let long: Vec<String> = (0..25)
            .map(|m| format!("observe:n{n}.m{m}.{}", "x".repeat(470)))
            .collect();
        let body = json!({ "name": "mal", "capabilities": long });
        refused = code(
            client
                .ask_bytes("astrid.v1.admin.caps.revoke", body.to_string().into())
                .unwrap(),
        );
        if !refused.is_empty() {
            break;
        }
    }
    assert_eq!(refused, codes::INVALID, "there is a limit");
    let limits = json!({ "fuel_total": u64::MAX });
    let body = json!({ "name": "mal", "limits": limits }).to_string();
    let large = client.ask_bytes("astrid.v1.admin.quota.set", body.into()).unwrap();
    assert_eq!(code(large), codes::INVALID);
    place.admin("quota.set", json!({ "name": "mal", "limits": { "calls": 1 } }));
    place.admin("agent.disable", json!({ "name": "mal" }));
    while client.receive().is_ok() {}
    place.admin("agent.delete", json!({ "name": "mal" }));
}

/// K14: a claim is proven by the claimed one's key, for this connection, this socket and this name; and nothing of a message says who sent it.
#[test]
fn a_sender_cannot_be_forged() {
    let mut place = Place::new();
    let ann = place.principal("ann", json!({}));
    let bob = place.principal("bob", json!({}));
    let home = place.astrid.home().to_owned();
    let principal = |name: &str| name.parse::<Principal>().unwrap();
    let challenged = |socket, claim: &str| match Connection::hello(&home, socket, Vec::new(), Some(claim)) {
        Ok((connection, FromServer::Challenge(challenge))) => {
            (connection, <[u8; 32]>::try_from(&challenge.nonce[..]).unwrap())
        }
        other => panic!("{other:?}"),
    };
    let believed = |answer: Result<FromServer, _>| matches!(answer, Ok(FromServer::HelloAck(_)));
    for socket in [Socket::Operator, Socket::Session] {
        let other_socket = match socket {
            Socket::Operator => Socket::Session,
            Socket::Session => Socket::Operator,
        };
        let (mut honest, nonce) = challenged(socket, "ann");
        let replayed = ann.prove(socket, &principal("ann"), &nonce);
        assert!(believed(honest.prove(&ann, &replayed)));
        type Forge<'a> = &'a dyn Fn([u8; 32]) -> [u8; 64];
        let forged: [(&str, &KeyPair, Forge<'_>); 7] = [
            ("with its own key", &bob, &|nonce| {
                bob.prove(socket, &principal("ann"), &nonce)
            }),
            ("as itself", &bob, &|nonce| bob.prove(socket, &principal("bob"), &nonce)),
            ("as itself with her key's name", &ann, &|nonce| {
                bob.prove(socket, &principal("ann"), &nonce)
            }),
            ("with what proved her before", &ann, &|_| replayed),
            ("with what proves her on the other socket", &ann, &|nonce| {
                ann.prove(other_socket, &principal("ann"), &nonce)
            }),
            ("with what proves her as another", &ann, &|nonce| {
                ann.prove(socket, &principal("bob"), &nonce)
            }),
            ("with nothing", &ann, &|_| [0; 64]),
        ];
        for (how, key, forge) in forged {
            let (mut thief, nonce) = challenged(socket, "ann");
            assert!(!believed(thief.prove(key, &forge(nonce))), "{how} on {socket:?}");
            // One attempt.
            let right = ann.prove(socket, &principal("ann"), &nonce);
            assert!(!believed(thief.prove(&ann, &right)), "again after {how}");
        }
        // Whoever has no key: by nobody's, also for the kernel's own names.
        for claim in [
            "default",
            "unknown",
            "anonymous",
            "capsule:process",
            "ann\n",
            "ANN",
            "../ann",
        ] {
            let answer = match Connection::hello(&home, socket, Vec::new(), Some(claim)) {
                Ok((mut thief, FromServer::Challenge(challenge))) => {
                    let nonce = challenge.nonce[..].try_into().unwrap();
                    let name = Principal::stamped(claim).unwrap();
                    thief.prove(&bob, &bob.prove(socket, &name, &nonce))
                }
                other => other.map(|(_, answer)| answer),
            };
            assert!(!believed(answer), "{claim:?} on {socket:?}");
        }
        // The boot token is the owner's and proves no other claim.
        let token = fs::read_to_string(home.join("run/token")).unwrap();
        let (mut thief, answer) = Connection::hello(&home, socket, token.trim().into(), Some("ann")).unwrap();
        let then = match answer {
            FromServer::Challenge(_) => thief.prove(&bob, &[0; 64]),
            other => Ok(other),
        };
        assert!(!believed(then), "{socket:?}");
    }
    // Who is in cannot become another, and what it says about itself is only said.
    let mut listener = Connection::open(&home).unwrap();
    let subscribe = envelope::Subscribe {
        id: 9,
        pattern: "notes.>".into(),
    };
    listener.send(&FromClient::Subscribe(subscribe).into_frame()).unwrap();
    assert!(matches!(listener.receive(), Ok(FromServer::Done(_))));
    let mut inside = place.enter("bob", &bob);
    let body = json!({ "principal": "ann", "source": "kernel" });
    inside.send(&publish(1, "notes.v1.add", &body, "x".into())).unwrap();
    assert_eq!(code(inside.receive().unwrap()), "");
    match listener.receive().unwrap() {
        FromServer::Event(event) => assert_eq!(event.principal, "bob"),
        other => panic!("{other:?}"),
    }
    let hello = envelope::Hello {
        major: envelope::VERSION.major,
        minor: envelope::VERSION.minor,
        credential: Vec::new().into(),
        client: "x".into(),
        principal: Some("ann".into()),
    };
    inside.send(&FromClient::Hello(hello).into_frame()).unwrap();
    while let Ok(answer) = inside.receive() {
        assert!(
            !matches!(answer, FromServer::Challenge(_) | FromServer::HelloAck(_)),
            "{answer:?}"
        );
    }
}

/// What another says is not heard without `observe:`, on whatever pattern; whoever has it hears that, and no more.
#[test]
fn nobody_listens_in() {
    let mut place = Place::new();
    let bob = place.principal("bob", json!({}));
    let ann = place.principal("ann", json!({}));
    let watcher = place.principal("watcher", json!({ "grants": ["observe:notes.>"] }));
    let subscribe = |connection: &mut Connection, pattern: &str| {
        let subscribe = envelope::Subscribe {
            id: 9,
            pattern: pattern.into(),
        };
        connection.send(&FromClient::Subscribe(subscribe).into_frame()).unwrap();
        assert!(matches!(connection.receive(), Ok(FromServer::Done(_))));
    };
    let mut speaker = place.enter("bob", &bob);
    let home = place.astrid.home().to_owned();
    // What comes first is what it hears: its own, although it is said last.
    for pattern in [">", "notes.>", "notes.v1.secret", "*.v1.*"] {
        let mut spy = Connection::open_as(&home, Socket::Session, As::Principal("ann", &ann)).unwrap();
        subscribe(&mut spy, pattern);
        let mut allowed = Connection::open_as(&home, Socket::Session, As::Principal("watcher", &watcher)).unwrap();
        subscribe(&mut allowed, pattern);
        assert_eq!(said(&mut speaker, "other.v1.secret", &format!("a{pattern}")), "");
        assert_eq!(said(&mut speaker, "notes.v1.secret", &format!("b{pattern}")), "");
        let mut own = Connection::open_as(&home, Socket::Session, As::Principal("ann", &ann)).unwrap();
        assert_eq!(said(&mut own, "notes.v1.secret", &format!("c{pattern}")), "");
        for (connection, expected) in [
            (&mut spy, ("ann", "notes.v1.secret")),
            (&mut allowed, ("bob", "notes.v1.secret")),
        ] {
            match connection.receive().unwrap() {
                FromServer::Event(event) => {
                    assert_eq!((event.principal.as_str(), event.topic.as_str()), expected, "{pattern}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// K12, K15: names that nobody knows, of principals and of clients, leave no rows behind.
#[test]
fn fresh_names_fill_no_table() {
    let place = Place::new();
    let key = KeyPair::create(&place.astrid.scratch().join("key")).unwrap();
    for n in 0..300 {
        let name = format!("fresh-{n}");
        let refused = Connection::open_as(place.astrid.home(), Socket::Session, As::Principal(&name, &key));
        assert!(refused.is_err(), "{name}");
        let mut nobody = Connection::open_as(place.astrid.home(), Socket::Session, As::Nobody).unwrap();
        let refused = said(&mut nobody, "notes.v1.add", &name);
        assert!(
            [codes::DENIED, envelope::codes::PERMISSION_DENIED].contains(&refused.as_str()),
            "{refused}"
        );
    }
    let mut owner = place.owner;
    let usage = owner.ask("astrid.v1.admin.usage.get", &json!({})).unwrap();
    let rows = usage["principals"].as_array().unwrap();
    assert!(rows.len() < 20 && !usage.to_string().contains("fresh-"), "{usage}");
    let who = owner.ask("astrid.v1.request.who", &json!({})).unwrap();
    let open = who["connections"].as_array().unwrap().len();
    assert!(open < 50, "{open} connections");
    // In the kernel itself, also of whoever said something.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bed = Bed::new(&[]).await;
        let before = bed.host.ledger.rows();
        for n in 0..3 * astrid_kernel::ledger::ROWS_MAX {
            let account = bed
                .host
                .ledger
                .account(&Principal::stamped(&format!("fresh-{n}")).unwrap());
            account.say(1).unwrap();
        }
        let after = bed.host.ledger.rows();
        assert!(before <= after && after <= astrid_kernel::ledger::ROWS_MAX, "{after}");
    });
}

/// What tries to look like another line, or to speak to a terminal.
const FORGED: &str = "x\n2026-01-01T00:00:00Z ERROR forged\r\u{1b}[2J\u{1b}]0;t\u{7}\u{202e}\u{85}\u{2028}forged";

/// Text that a person reads, line by line, is made of lines that we wrote.
#[track_caller]
fn harmless(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} is empty");
    for line in text.lines() {
        let hidden = |c: char| c.is_control() && c != '\t' || ('\u{2028}'..='\u{202e}').contains(&c);
        assert!(!line.contains(hidden), "{what}: {line:?}");
        assert!(!line.starts_with("2026-01-01T00:00:00Z"), "{what}: {line:?}");
        assert!(!line.starts_with("forged"), "{what}: {line:?}");
    }
}

/// K13, K18: what clients and capsules say reaches the log, the audit log and the terminal as values, never as lines.
#[test]
fn no_log_line_is_forged() {
    let astrid = Astrid::new();
    let capsules = astrid.home().join("capsules");
    fs::create_dir_all(&capsules).unwrap();
    for folder in [astrid.home(), &capsules] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
    }
    for name in ["probe", "hello"] {
        fs::copy(bundle_file(name), capsules.join(format!("{name}.capsule"))).unwrap();
    }
    let _ = astrid.run(&["start"]).ok();
    let mut owner = Connection::open(astrid.home()).unwrap();
    // By a capsule, with what its client said.
    owner.ask("probe.v1.do.log", &json!({ "text": FORGED })).unwrap();
    // By a stranger: who it is, and what it calls itself.
    let hello = |principal: Option<String>| envelope::Hello {
        major: envelope::VERSION.major,
        minor: envelope::VERSION.minor,
        credential: FORGED.as_bytes().to_vec().into(),
        client: FORGED.into(),
        principal,
    };
    for claim in [None, Some(FORGED.to_owned())] {
        let (mut stranger, _) = Connection::hello(astrid.home(), Socket::Session, Vec::new(), None).unwrap();
        let _ = stranger.send(&FromClient::Hello(hello(claim.clone())).into_frame());
        while stranger.receive().is_ok() {}
        let (_, answer) = Connection::hello(astrid.home(), Socket::Session, FORGED.into(), claim.as_deref()).unwrap();
        assert!(!matches!(answer, FromServer::HelloAck(_)));
    }
    // Topics, and names in requests, also where they become part of the audit log.
    let _ = said(&mut owner, FORGED, FORGED);
    for admin in Admin::ALL.iter().filter(|admin| admin.changes()) {
        let body = json!({ "name": FORGED, "path": FORGED, "request_id": FORGED, "capabilities": [FORGED], "limits": { FORGED: FORGED } });
        for body in [body.to_string(), FORGED.to_owned()] {
            let refused = code(owner.ask_bytes(admin.topic(), body.into_bytes()).unwrap());
            assert_eq!(refused, codes::INVALID, "{admin:?}");
        }
    }
    let limits = json!({ "name": "default", "limits": { "memory": FORGED } });
    assert!(owner.ask("astrid.v1.admin.quota.set", &limits).is_err());
    let named = json!({ "name": FORGED });
    assert!(owner.ask(Verb::Capsule.topic(), &named).is_err());
    let outcome = astrid.run(&["agent", "create", FORGED]);
    assert_ne!(outcome.code(), 0);
    let refused = astrid.run(&["caps", "check", "default", "-", "publish", FORGED]);
    harmless("what a command says", &format!("{}{}", refused.stdout, refused.stderr));
    let _ = astrid.run(&["stop"]).ok();

    let log = fs::read_to_string(astrid.home().join("log/astrid.log")).unwrap();
    assert!(log.contains("forged"), "it did get there");
    harmless("the log", &log);
    harmless("logs", &astrid.run(&["logs"]).ok().stdout);
    let tail = astrid.run(&["audit", "tail", "-n", "1000"]).ok().stdout;
    assert!(tail.contains("forged"), "it did get there");
    harmless("audit tail", &tail);
    let entries = astrid.run(&["audit", "tail", "-n", "1000", "--format", "json"]).ok();
    let entries = entries.json()["entries"].as_array().unwrap().clone();
    for entry in &entries {
        for (field, value) in entry.as_object().unwrap() {
            let text = value.as_str().unwrap_or("-");
            harmless(field, if text.is_empty() { "-" } else { text });
        }
    }
    let forged = entries
        .iter()
        .find(|entry| entry.to_string().contains("forged"))
        .unwrap();
    let number = forged["sequence"].to_string();
    harmless("audit show", &astrid.run(&["audit", "show", &number]).ok().stdout);
    harmless("audit export", &astrid.run(&["audit", "export"]).ok().stdout);
    let _ = astrid.run(&["audit", "verify"]).ok();
}

/// K8: bodies of every administrator's request, cut and changed at random: each is answered, and the daemon is as it was.
#[test]
fn hostile_bodies_are_answered() {
    let mut place = Place::new();
    let before = place.admin("agent.list", json!({}));
    let good = json!({ "name": "nobody-here", "capabilities": ["kv"], "limits": { "calls": 1 }, "groups": ["agent"], "request_id": "1" });
    let mut chance = Chance(7);
    for round in 0..20 {
        for verb in Admin::ALL {
            // It needs no body, or makes what it names.
            if matches!(verb, Admin::AuditRotate | Admin::AgentCreate) {
                continue;
            }
            let mut body = good.to_string().into_bytes();
            for _ in 0..=round {
                let at = chance.below(body.len() as u64) as usize;
                match chance.below(3) {
                    0 => body[at] = chance.next() as u8,
                    1 => body.truncate(at.max(1)),
                    _ => body.insert(at, b"{}[]\",:\\"[chance.below(8) as usize]),
                }
            }
            let shown = body.escape_ascii().to_string();
            match place.owner.ask_bytes(verb.topic(), body) {
                Ok(FromServer::Problem(problem)) => assert!(!problem.message.is_empty()),
                Ok(FromServer::Response(_)) => {}
                other => panic!("{verb:?} b\"{shown}\": {other:?}"),
            }
        }
    }
    assert_eq!(place.admin("agent.list", json!({})), before);
}

/// K7: a client that publishes without a pause while the right to it is revoked: nothing that it sends after the revoke was answered is
/// accepted, in any of many rounds.
#[test]
fn a_revoke_overtakes_its_use() {
    const ROUNDS: u64 = 30;
    let mut place = Place::new();
    let ann = place.principal("ann", json!({}));
    // Odd from the answer to a revoke until the grant after it is asked for.
    let turn = AtomicU64::new(0);
    let (felt, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut client = place.enter("ann", &ann);
    let home = place.astrid.home().to_owned();
    let change = json!({ "name": "ann", "capabilities": ["publish:race.>"] });
    let accepted = std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            let (mut accepted, mut number) = (0, 0_u64);
            while !over.load(Ordering::SeqCst) {
                let before = turn.load(Ordering::SeqCst);
                number += 1;
                let frame = publish(1, "race.v1.run", &json!({}), number.to_string());
                let found = match client.send(&frame).and_then(|()| client.receive()) {
                    Ok(answer) => code(answer),
                    // What it said was undone at its commit, and with it the conversation.
                    Err(_) => {
                        client = Connection::open_as(&home, Socket::Operator, As::Principal("ann", &ann)).unwrap();
                        codes::DENIED.to_owned()
                    }
                };
                let revoked = before % 2 == 1 && turn.load(Ordering::SeqCst) == before;
                if found.is_empty() {
                    accepted += 1;
                    assert!(!revoked, "accepted after the revoke was answered");
                } else {
                    assert_eq!(found, codes::DENIED);
                    felt.store(before, Ordering::SeqCst);
                }
            }
            accepted
        });
        for round in 0..ROUNDS {
            place.owner.ask("astrid.v1.admin.caps.revoke", &change).unwrap();
            turn.store(2 * round + 1, Ordering::SeqCst);
            // The writer goes on once it was felt.
            while felt.load(Ordering::SeqCst) <= 2 * round && !user.is_finished() {
                std::thread::yield_now();
            }
            turn.store(2 * round + 2, Ordering::SeqCst);
            place.owner.ask("astrid.v1.admin.caps.grant", &change).unwrap();
        }
        over.store(true, Ordering::SeqCst);
        user.join().unwrap()
    });
    assert!(accepted > 0, "it was never allowed");
}

/// What a handling recorded before the policy changed is decided again at its commit: whoever is refused said nothing, and an ask that began
/// after the revoke is refused.
#[test]
fn a_revoke_undoes_what_is_not_committed() {
    let policy = |revokes: &[&str]| {
        let mut policy = Policy::with_groups(&GroupsFile::default()).unwrap();
        let ann = Profile {
            groups: vec!["agent".into()],
            revokes: revokes.iter().map(|revoke| revoke.parse().unwrap()).collect(),
            ..Profile::default()
        };
        policy.insert(Principal::stamped("ann").unwrap(), ann).unwrap();
        policy
    };
    let authority = Authority::fixed(policy(&[]));
    let over = Arc::new(AtomicBool::new(false));
    let writer = {
        let (authority, over) = (Arc::clone(&authority), Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                authority.replace(policy(&["publish:probe.v1.event.>"]));
                std::thread::yield_now();
                authority.replace(policy(&[]));
                for _ in 0..200 {
                    std::thread::yield_now();
                }
            }
            authority.replace(policy(&["publish:probe.v1.event.>"]));
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let settings = Settings {
            authority: Arc::clone(&authority),
            ..Settings::default()
        };
        let bed = Bed::with(&["hello", "probe"], settings).await;
        let (inbox, _subscribed) = bed.hear("probe.v1.event.said");
        let ask = || bed.ask_as("ann", "probe.v1.do.say", Body::json(&json!({ "n": 1 })));
        let (mut done, mut undone) = (0_usize, 0_usize);
        while (done == 0 || undone == 0 || done + undone < 3000) && done + undone < 100_000 {
            let before = inbox.len();
            match ask().await {
                Outcome::Answer(_) => {
                    done += 1;
                    assert!(inbox.len() <= before + 1);
                }
                Outcome::Refusal(_) => {
                    undone += 1;
                    assert_eq!(inbox.len(), before, "it was refused, and said all the same");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(done > 0 && undone > 0, "{done} done, {undone} undone");
        over.store(true, Ordering::SeqCst);
        writer.join().unwrap();
        let count = inbox.len();
        assert!(matches!(ask().await, Outcome::Refusal(_)));
        assert_eq!(inbox.len(), count);
    });
}
