//! Who may do what: every request of the kernel and every host function that acts, against tables that a person can read; and
//! what happens to whoever may not act any more (K7, K9, A2).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use astrid_kernel::authority::{Acl, Authority, Denied, FileScope, Gate, Policy, Reason, Subject};
use astrid_kernel::bus::message::Body;
use astrid_kernel::home::Socket;
use astrid_kernel::identity::KeyPair;
use astrid_tests::bed::{Bed, Settings, answer, refusal};
use astrid_tests::daemon::Astrid;
use astrid_tests::wire::{As, Connection, Gone};
use astrid_wire::Principal;
use astrid_wire::authority::{Action, Capability, GroupsFile, Profile};
use astrid_wire::control::Verb;
use astrid_wire::control::admin::Admin;
use astrid_wire::envelope::{self, FromClient, FromServer};
use astrid_wire::manifest::Manifest;
use astrid_wire::problem::codes;
use serde_json::json;

/// The columns of the matrix: principals, and what is in their profiles.
const WHO: [&str; 6] = ["admin", "agent", "restricted", "disabled", "unknown", "anonymous"];

/// What each may ask of the kernel over the operator socket, in the order of [`WHO`]. Over the session socket the same, but what is
/// `operator` is refused to everybody.
#[rustfmt::skip]
const REQUESTS: &[(Verb, &str, [bool; 6])] = &[
    //                                admin  agent  restr. disab. unkn.  anon.
    (Verb::Status,        "anybody",  [true, true,  false, false, false, false]),
    (Verb::Capsules,      "anybody",  [true, true,  false, false, false, false]),
    (Verb::Capsule,       "anybody",  [true, true,  false, false, false, false]),
    (Verb::Interfaces,    "anybody",  [true, true,  false, false, false, false]),
    (Verb::CapsuleForget, "operator", [true, false, false, false, false, false]),
    (Verb::Shutdown,      "operator", [true, false, false, false, false, false]),
    (Verb::DeadList,      "operator", [true, false, false, false, false, false]),
    (Verb::DeadShow,      "operator", [true, false, false, false, false, false]),
    (Verb::DeadRetry,     "operator", [true, false, false, false, false, false]),
    (Verb::DeadDrop,      "operator", [true, false, false, false, false, false]),
    (Verb::Backup,        "operator", [true, false, false, false, false, false]),
    (Verb::Who,           "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentCreate),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentDelete),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentEnable),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentDisable), "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentModify),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AgentList),    "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::GroupCreate),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::GroupDelete),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::GroupModify),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::GroupList),    "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::CapsGrant),    "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::CapsRevoke),   "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::CapsCheck),    "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::CapsExplain),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::QuotaGet),     "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::QuotaSet),     "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::UsageGet),     "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::UsageWatch),   "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AuditStats),   "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AuditVerify),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AuditPrune),   "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::AuditRotate),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceAttach),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceDetach),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceList),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceDiff),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceCommit),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceRollback),  "operator", [true, false, false, false, false, false]),
    (Verb::Admin(Admin::WorkspaceSnapshot),  "operator", [true, false, false, false, false, false]),
];

/// Host functions that act, by what the gate is asked, and the capability that grants it.
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str)] = &[
    ("bus.publish",        "publish:notes.v1.add"),
    ("bus.publish-once",   "publish:notes.v1.add"),
    ("bus.ask",            "publish:notes.v1.add"),
    ("bus.emit",           "publish:notes.v1.add"),
    ("bus.request",        "publish:notes.v1.add"),
    ("bus.subscribe",      "subscribe:notes.v1.add"),
    ("actor.pin",          "pin:tester"),
    ("child.spawn",        "child.spawn:/bin/true"),
    ("document.read",      "document:tester.toml"),
    ("document.replace",   "document:tester.toml"),
    ("fs.open",            "fs.read:/home/a"),
    ("fs.open-dir",        "fs.read:/home/*"),
    ("fs.stat",            "fs.read:/home/*"),
    ("fs.hash",            "fs.read:/home/a"),
    ("fs.read-link",       "fs.read:/home/a"),
    ("fs.watch",           "fs.read:/home/*"),
    ("fs.replace",         "fs.write:/home/a"),
    ("fs.make-dir",        "fs.write:/home/a"),
    ("fs.remove",          "fs.write:/home/>"),
    ("fs.rename",          "fs.write:/home/>"),
    ("fs.make-link",       "fs.write:/home/a"),
    ("fs.set-modified",    "fs.write:/home/a"),
    ("fs.set-mode",        "fs.write:/home/a"),
    ("blob.begin",         "kv:tester"),
    ("blob.append",        "kv:tester"),
    ("blob.status",        "kv:tester"),
    ("blob.finish",        "kv:tester"),
    ("blob.abort",         "kv:tester"),
    ("blob.size",          "kv:tester"),
    ("blob.read",          "kv:tester"),
    ("blob.release",       "kv:tester"),
    ("kv.get",             "kv:tester"),
    ("kv.put",             "kv:tester"),
    ("kv.delete",          "kv:tester"),
    ("kv.compare-and-swap","kv:tester"),
    ("kv.scan",            "kv:tester"),
    ("timer.set",          "timer:tester"),
    ("timer.set-durable",  "timer:tester"),
];

/// Host functions that need nobody's leave: they act on what the actor holds already, tell it something, or take something away.
const FREE: [&str; 31] = [
    "actor.unpin",
    "bus.reply",
    "bus.refuse",
    "bus.unsubscribe",
    "child.send-signal",
    "child.write",
    "child.close-input",
    "child.measure",
    "child.tail",
    "child.log-path",
    "clock.wall-ms",
    "clock.monotonic-ns",
    "connection.peer",
    "connection.authenticate",
    "connection.challenge",
    "fs.next",
    "fs.passed-over",
    "fs.read",
    "fs.set-length",
    "fs.sync",
    "fs.unwatch",
    "fs.write",
    "log.write",
    "port.write",
    "port.close",
    "random.bytes",
    "random.number",
    "timer.cancel",
    "timer.list-set",
    "world.guard",
    "world.handle",
];

fn capability(text: &str) -> Capability {
    text.parse().unwrap()
}

fn member(group: &str) -> Profile {
    Profile {
        groups: vec![group.to_owned()],
        ..Profile::default()
    }
}

fn principal(name: &str) -> Principal {
    Principal::stamped(name).unwrap()
}

fn policy(profiles: &[(&str, Profile)]) -> Policy {
    let mut policy = Policy::with_groups(&GroupsFile::default()).unwrap();
    for (name, profile) in profiles {
        policy.insert(principal(name), profile.clone()).unwrap();
    }
    policy
}

fn everybody() -> Policy {
    let disabled = Profile {
        enabled: false,
        ..member("admin")
    };
    policy(&[
        ("admin", member("admin")),
        ("agent", member("agent")),
        ("restricted", member("restricted")),
        ("disabled", disabled),
    ])
}

fn uplink() -> Acl {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capsules/uplink-local/Capsule.toml");
    let manifest = Manifest::parse(&fs::read_to_string(path).unwrap(), "Capsule.toml").unwrap();
    Acl::new(&manifest, Vec::new())
}

/// Every request of the kernel, by everybody, over both sockets. A new request without a row fails.
#[test]
fn requests_of_the_kernel() {
    let gate = Gate::new(Authority::fixed(everybody()));
    let acl = uplink();
    let mut wrong = Vec::new();
    for verb in Verb::all() {
        let row = REQUESTS.iter().find(|(v, ..)| *v == verb);
        let Some((_, socket, expected)) = row else {
            panic!("{verb:?} has no row in the table of who may ask it");
        };
        assert_eq!(*socket == "operator", verb.operator_only(), "{verb:?}");
        for (who, expected) in WHO.into_iter().zip(*expected) {
            let standing = gate.authority().standing(&principal(who));
            for socket in [Socket::Operator, Socket::Session] {
                let subject = Subject {
                    acl: &acl,
                    standing: &standing,
                    socket: Some(socket),
                };
                let found = gate.say(subject, verb.topic().parse().unwrap()).is_ok();
                let expected = expected && (socket == Socket::Operator || !verb.operator_only());
                if found != expected {
                    wrong.push(format!(
                        "{verb:?} by {who} over {socket:?}: {found}, and not {expected}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        REQUESTS.len(),
        Verb::all().count(),
        "a row of a request that is not there"
    );
}

/// The same table, asked of a daemon over its sockets, by whoever has a key. Bodies are wrong, so that nothing changes: what counts is whether
/// it came so far.
#[test]
fn requests_over_the_sockets() {
    let astrid = Astrid::started();
    let key = KeyPair::create(&astrid.scratch().join("key")).unwrap();
    let mut owner = Connection::open(astrid.home()).unwrap();
    let mut make = |who: &str, group: &str| {
        let body = json!({ "name": who, "groups": [group], "keys": [key.public()] });
        owner.ask("astrid.v1.admin.agent.create", &body).unwrap();
    };
    for group in ["admin", "agent", "restricted"] {
        make(group, group);
    }
    make("disabled", "admin");
    owner
        .ask("astrid.v1.admin.agent.disable", &json!({ "name": "disabled" }))
        .unwrap();
    let mut wrong = Vec::new();
    for (column, who) in WHO.into_iter().enumerate() {
        for socket in [Socket::Operator, Socket::Session] {
            let shown = match who {
                "anonymous" => As::Nobody,
                _ => As::Principal(who, &key),
            };
            let comes_in = match who {
                "disabled" | "unknown" => false,
                "anonymous" => socket == Socket::Session,
                _ => true,
            };
            let mut connection = match Connection::open_as(astrid.home(), socket, shown) {
                Ok(connection) if comes_in => connection,
                Err(_) if !comes_in => continue,
                other => panic!("{who} over {socket:?}: {other:?}"),
            };
            for (verb, _, expected) in REQUESTS {
                let expected = expected[column] && (socket == Socket::Operator || !verb.operator_only());
                if *verb == Verb::Shutdown && expected {
                    continue;
                }
                let found = match connection.ask_bytes(verb.topic(), b"[]".to_vec()).unwrap() {
                    FromServer::Problem(problem) => {
                        ![codes::DENIED, envelope::codes::PERMISSION_DENIED].contains(&problem.code.as_str())
                    }
                    FromServer::Response(_) => true,
                    other => panic!("{verb:?} by {who}: {other:?}"),
                };
                if found != expected {
                    wrong.push(format!("{verb:?} by {who} over {socket:?}: {found}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut last = Connection::open_as(astrid.home(), Socket::Operator, As::Principal("admin", &key)).unwrap();
    let stopped = last.ask_bytes(Verb::Shutdown.topic(), b"{}".to_vec()).unwrap();
    assert!(matches!(stopped, FromServer::Response(_)), "{stopped:?}");
}

/// What only some of the operators' requests need can be given, and only that: nothing else is needed to ask.
#[test]
fn one_request_can_be_granted() {
    let clerk = Profile {
        grants: vec![capability("admin:dead.*")],
        ..Profile::default()
    };
    let gate = Gate::new(Authority::fixed(policy(&[("clerk", clerk)])));
    let (acl, standing) = (uplink(), gate.authority().standing(&principal("clerk")));
    for verb in Verb::all().filter(|verb| verb.operator_only()) {
        let subject = Subject {
            acl: &acl,
            standing: &standing,
            socket: Some(Socket::Operator),
        };
        let found = gate.say(subject, verb.topic().parse().unwrap()).is_ok();
        assert_eq!(found, verb.topic().contains(".dead."), "{verb:?}");
    }
}

/// A capsule that declares all that it may, or nothing. `scope`: which decides what it can declare at all.
fn tester(scope: &str, declares: bool) -> Acl {
    let mut manifest = format!(
        "[package]\nname = \"tester\"\nversion = \"1.0.0\"\ndescription = \"asks for all of it\"\nkernel = \">=0.1, <1\"\n\
         [runtime]\nscope = \"{scope}\"\n"
    );
    if declares {
        manifest.push_str("[publish]\n\"notes.>\" = {}\n");
    }
    let capabilities: &[(&str, &str)] = match (scope, declares) {
        ("connection", false) => &[("listen", "session")],
        ("connection", true) => &[("listen", "session"), ("subscribe", "notes.>")],
        (_, false) => &[],
        (_, true) => &[
            ("child", "*"),
            ("document", "tester.toml"),
            ("kv", "*"),
            ("pin", "*"),
            ("timer", "*"),
        ],
    };
    manifest.push_str("[capabilities]\n");
    for (what, allow) in capabilities {
        manifest.push_str(&format!(
            "{what} = {{ allow = [\"{allow}\"], reason = \"is tested\" }}\n"
        ));
    }
    if declares && scope == "principal" {
        manifest.push_str("fs = { read = [\"/home/>\"], write = [\"/home/>\"], reason = \"is tested\" }\n");
    }
    let imports = if declares {
        vec!["notes.>".parse().unwrap()]
    } else {
        Vec::new()
    };
    Acl::new(&Manifest::parse(&manifest, "Capsule.toml").unwrap(), imports)
}

/// What the gate is asked by a host function.
fn decide(gate: &Gate, subject: Subject<'_>, function: &str) -> Result<(), Denied> {
    let topic = "notes.v1.add";
    match function {
        "bus.publish" | "bus.publish-once" | "bus.ask" | "bus.emit" => {
            gate.say(subject, topic.parse().unwrap()).map(drop)
        }
        "bus.request" => gate.request(subject, topic.parse().unwrap()).map(drop),
        "bus.subscribe" => gate.hear(subject, topic.parse().unwrap()).map(drop),
        "actor.pin" => gate.pin(subject, ()).map(drop),
        "child.spawn" => gate
            .may_run(subject, "/bin/true")
            .and_then(|()| gate.run(subject, "/bin/true", ()).map(drop)),
        "document.read" | "document.replace" => gate.document(subject, "tester.toml").map(drop),
        "timer.set" | "timer.set-durable" => gate.timer(subject, 7).map(drop),
        "fs.open" | "fs.hash" | "fs.read-link" => gate.may_touch(subject, Action::FsRead, &FileScope::One("/home/a")),
        "fs.open-dir" | "fs.stat" | "fs.watch" => gate.may_touch(subject, Action::FsRead, &FileScope::Names("/home")),
        // Of a directory, with all that is in it.
        "fs.remove" | "fs.rename" => gate.may_touch(subject, Action::FsWrite, &FileScope::All("/home/a")),
        fs if fs.starts_with("fs.") => gate.may_touch(subject, Action::FsWrite, &FileScope::One("/home/a")),
        kv if kv.starts_with("kv.") || kv.starts_with("blob.") => gate.table(subject, ()).map(drop),
        other => panic!("nobody has said what the gate is asked by {other}"),
    }
}

/// Every host function that acts: undeclared, declared but not granted, declared and granted, and revoked. A new function that is in
/// neither list fails.
#[test]
fn host_functions() {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut there = BTreeSet::new();
    for file in fs::read_dir(wit).unwrap() {
        let path = file.unwrap().path();
        let interface = path.file_stem().unwrap().to_string_lossy().into_owned();
        for line in fs::read_to_string(&path).unwrap().lines() {
            if let Some((name, _)) = line.trim().split_once(": func(")
                && !name.starts_with("export describe")
            {
                let name = name.trim_start_matches("export ").trim_start_matches('%');
                there.insert(format!("{interface}.{name}"));
            }
        }
    }
    let listed = FUNCTIONS.iter().map(|(name, _)| *name).chain(FREE);
    assert_eq!(
        there,
        listed.map(str::to_owned).collect(),
        "a host function is in no list, or in one too many"
    );

    for (function, needs) in FUNCTIONS {
        // Only connections subscribe while they run.
        let scope = if *function == "bus.subscribe" {
            "connection"
        } else {
            "principal"
        };
        let (declared, undeclared) = (tester(scope, true), tester(scope, false));
        let granted = Profile {
            grants: vec![capability(needs)],
            ..Profile::default()
        };
        let revoked = Profile {
            revokes: vec![capability(needs)],
            ..member("admin")
        };
        let gate = Gate::new(Authority::fixed(policy(&[
            ("nothing", Profile::default()),
            ("granted", granted),
            ("revoked", revoked),
            ("admin", member("admin")),
        ])));
        let ask = |acl: &Acl, who: &str| {
            let standing = gate.authority().standing(&principal(who));
            let subject = Subject {
                acl,
                standing: &standing,
                socket: None,
            };
            decide(&gate, subject, function)
        };
        for who in ["nothing", "granted", "revoked", "admin"] {
            let found = ask(&undeclared, who);
            assert!(
                matches!(found, Err(Denied::Manifest { .. })),
                "{function}, undeclared, by {who}: {found:?}"
            );
        }
        let reason = |who: &str| match ask(&declared, who) {
            Ok(()) => None,
            Err(Denied::Principal(refusal)) => Some(refusal.reason),
            Err(other) => panic!("{function} by {who}: {other}"),
        };
        assert_eq!(reason("nothing"), Some(Reason::NoGrant), "{function}");
        assert_eq!(reason("granted"), None, "{function}");
        assert_eq!(reason("admin"), None, "{function}");
        assert_eq!(
            reason("revoked"),
            Some(Reason::Revoked(capability(needs))),
            "{function}"
        );
        assert_eq!(reason("who"), Some(Reason::Unknown), "{function}");
    }
}

/// What others say is heard by whoever may observe it, and by nobody else.
#[test]
fn observing() {
    let watcher = Profile {
        grants: vec![capability("observe:notes.>")],
        revokes: vec![capability("observe:notes.secret")],
        ..member("agent")
    };
    let gate = Gate::new(Authority::fixed(policy(&[
        ("agent", member("agent")),
        ("watcher", watcher),
        ("admin", member("admin")),
    ])));
    let hears = |who: &str, topic: &str, speaker: &str, public: bool| {
        let standing = gate.authority().standing(&principal(who));
        gate.hears(&standing, &topic.parse().unwrap(), &principal(speaker), public)
    };
    for (who, topic, speaker, public, expected) in [
        ("agent", "notes.a", "agent", false, true),
        ("agent", "notes.a", "admin", false, false),
        ("agent", "notes.a", "admin", true, true),
        ("watcher", "notes.a", "admin", false, true),
        ("watcher", "notes.secret", "admin", false, false),
        ("watcher", "notes.secret", "watcher", false, true),
        ("watcher", "other.a", "admin", false, false),
        ("admin", "other.a", "agent", false, true),
        ("anonymous", "notes.a", "agent", true, false),
        ("unknown", "notes.a", "unknown", false, false),
    ] {
        let found = hears(who, topic, speaker, public);
        assert_eq!(found, expected, "{who} hears {speaker} on {topic}");
    }
}

/// A message is decided on by the policy of the moment in which it is handled: whoever is disabled or unknown then is not served.
#[test]
fn nothing_is_handled_for_whoever_may_not_act() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let authority = Authority::fixed(policy(&[("ann", member("agent"))]));
        let settings = Settings {
            authority: Arc::clone(&authority),
            ..Settings::default()
        };
        let bed = Bed::with(&["hello", "probe"], settings).await;
        let ask = |who: &'static str| bed.ask_as(who, "probe.v1.do.state", Body::json(&json!({})));
        let _ = answer(ask("ann").await);
        assert_eq!(refusal(ask("ghost").await), "denied");
        let off = Profile {
            enabled: false,
            ..member("agent")
        };
        authority.replace(policy(&[("ann", off)]));
        assert_eq!(refusal(ask("ann").await), "denied");
        authority.replace(policy(&[("ann", member("agent"))]));
        let _ = answer(ask("ann").await);
    });
}

fn profile(astrid: &Astrid, text: &str) {
    // As editors do it.
    let path = astrid.home().join("etc/profiles/default.toml");
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

/// Waits until the daemon has closed the connection.
fn until_closed(connection: &mut Connection) {
    while connection.receive().is_ok() {}
}

/// A principal that is disabled by hand under a running daemon loses its connections at once, and cannot come back until that is undone.
#[test]
fn a_disabled_principal_is_shown_out() {
    let astrid = Astrid::started();
    let mut connection = Connection::open(astrid.home()).unwrap();
    connection.ask("astrid.v1.request.status", &json!({})).unwrap();
    profile(&astrid, "enabled = false\ngroups = [\"admin\"]\n");
    until_closed(&mut connection);
    assert!(Connection::open(astrid.home()).is_err());
    // A way back: files are the operator's, whatever they say.
    profile(&astrid, "groups = [\"admin\"]\n");
    let mut back = loop {
        if let Ok(connection) = Connection::open(astrid.home()) {
            break connection;
        }
    };
    back.ask("astrid.v1.request.status", &json!({})).unwrap();
}

/// A wrong profile changes nothing, and status says which line is wrong until it is repaired; a revoke is in force without a restart.
#[test]
fn a_wrong_edit_is_shown_and_a_revoke_is_felt() {
    let astrid = Astrid::started();
    let mut connection = Connection::open(astrid.home()).unwrap();
    let is_refusal = |gone: &Gone| gone.0.starts_with("astrid.v1.request.status: ");
    let mut reasons = || {
        let asked = connection.ask("astrid.v1.request.status", &json!({}));
        asked.map(|s| s["reasons"].to_string())
    };
    profile(&astrid, "groups = [\"admin\"]\nrevoke = []\n");
    while !reasons().unwrap().contains("default.toml:2:1: unknown key `revoke`") {}
    profile(
        &astrid,
        "groups = [\"admin\"]\nrevokes = [\"publish:astrid.v1.request.status\"]\n",
    );
    // Whenever that comes, the connection stays: what was asked meanwhile is answered, or refused in words.
    let error = loop {
        if let Err(error) = reasons() {
            assert!(is_refusal(&error), "{error:?}");
            break error.0;
        }
    };
    assert!(
        error.contains("`publish:astrid.v1.request.status` is revoked for default"),
        "{error}"
    );
}

/// Nobody speaks as the kernel or as a port: it is the kernel that stamps who speaks.
#[test]
fn a_client_cannot_choose_who_it_is() {
    let astrid = Astrid::started();
    let mut connection = Connection::open(astrid.home()).unwrap();
    let body = json!({ "principal": "root", "name": "x" });
    for topic in [
        "port.v1.stream.data",
        "lifecycle.v1.started",
        "dead.v1.hello",
        "astrid.v1.health.failed",
    ] {
        let request = FromClient::Request(envelope::Request {
            id: 1,
            topic: topic.into(),
            content_type: "application/json".into(),
            timeout_ms: 1000,
            content: Some(envelope::request::Content::Body(body.to_string().into())),
        });
        connection.send(&request.into_frame()).unwrap();
        let told = format!("{:?}", connection.receive().unwrap());
        assert!(told.contains("belongs to the kernel"), "{topic}: {told}");
    }
}
