//! Principals, groups, files and decisions, without a daemon.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use astrid_wire::Principal;
use astrid_wire::Quota;
use astrid_wire::authority::{Action, Capability, Group, Profile};
use astrid_wire::manifest::ByteSize;
use astrid_wire::manifest::Manifest;

use super::files::DEFAULT_PROFILE;
use super::*;
use crate::home::{Home, Socket};

pub(super) fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    (directory, home)
}

pub(super) fn write(home: &Home, name: &str, text: &str) {
    fs::write(home.profiles_dir().join(format!("{name}.toml")), text).unwrap();
}

pub(super) fn who(name: &str) -> Principal {
    name.parse().unwrap()
}

pub(super) fn capabilities(texts: &[&str]) -> Vec<Capability> {
    texts.iter().map(|t| t.parse().unwrap()).collect()
}

pub(super) fn allows(authority: &Authority, name: &str, action: Action, object: &str) -> bool {
    authority
        .standing(&who(name))
        .allows("any", action, Object::Name(object))
}

fn acl() -> Acl {
    let manifest = "[package]\nname = \"notes\"\nversion = \"1.0.0\"\ndescription = \"keeps notes\"\nkernel = \">=0.1, <1\"\n\
         [runtime]\nscope = \"principal\"\n[publish]\n\"notes.>\" = {}\n\
         [capabilities]\nkv = { allow = [\"*\"], reason = \"keeps them\" }\n";
    Acl::new(&Manifest::parse(manifest, "Capsule.toml").unwrap(), Vec::new())
}

/// K3: seeded once, never touching operator edits.
#[test]
fn the_default_principal_is_seeded_once() {
    let (_directory, home) = home();
    let profile = home.profiles_dir().join("default.toml");
    let authority = Authority::open(&home).unwrap();
    assert_eq!(fs::read_to_string(&profile).unwrap(), DEFAULT_PROFILE);
    assert!(allows(&authority, "default", Action::Admin, "shutdown"));
    fs::write(&profile, "groups = []\n").unwrap();
    let authority = Authority::open(&home).unwrap();
    assert_eq!(fs::read_to_string(&profile).unwrap(), "groups = []\n");
    assert!(!allows(&authority, "default", Action::Admin, "shutdown"));
    fs::remove_file(&profile).unwrap();
    let authority = Authority::open(&home).unwrap();
    assert!(!profile.exists(), "the operator took it away");
    assert_eq!(authority.standing(&who("default")).check_active(), Err(Reason::Unknown));
}

#[test]
fn a_profile_that_was_there_before_the_first_boot_stays() {
    let (_directory, home) = home();
    write(&home, "default", "");
    Authority::open(&home).unwrap();
    assert_eq!(
        fs::read_to_string(home.profiles_dir().join("default.toml")).unwrap(),
        ""
    );
}

/// K3, K7: malformed groups, or ones that redefine what is built in: refuse to boot, with the line.
#[test]
fn wrong_groups_keep_the_daemon_from_starting() {
    for (text, expected) in [
        ("[group.ops]\ngrants = [\"publish:a.b\", \"kv\"]\n", None),
        ("[group.root]\ngrants = [\"*\"]\nunsafe_admin = true\n", None),
        ("", None),
        (
            "\n[group.admin]\ngrants = []\n",
            Some("groups.toml:2:8: the group `admin` is built in"),
        ),
        ("[group.root]\ngrants = [\"*\"]\n", Some("go together")),
        (
            "[group.root]\ngrants = [\"kv\"]\nunsafe_admin = true\n",
            Some("go together"),
        ),
        (
            "[group.ops]\ngrant = []\n",
            Some("groups.toml:2:1: unknown key `grant`"),
        ),
        (
            "[groups.ops]\ngrants = []\n",
            Some("groups.toml:1:2: unknown key `groups`"),
        ),
        ("[group.\"O P\"]\ngrants = []\n", Some("not the name of a group")),
        (
            "[group.ops]\ngrants = [\"a b\"]\n",
            Some("groups.toml:2:11: `a b` is not a capability: there is no action"),
        ),
        ("[group.ops]\ngrants = [\"publish:a..b\"]\n", Some("groups.toml:2:11")),
        (
            "[group.ops]\ngrants = [\"child.spawn:/a/../b\"]\n",
            Some("never resolved"),
        ),
        ("[group.ops]\n", Some("missing field `grants`")),
        ("[group", Some("groups.toml:1:")),
    ] {
        let (_directory, home) = home();
        fs::write(home.groups_file(), text).unwrap();
        match (Authority::open(&home), expected) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{text:?}: {error}"),
            (outcome, _) => panic!("{text:?}: {outcome:?}"),
        }
    }
}

/// K7: a profile that cannot be understood denies its principal everything and is named with its line; the rest boots.
#[test]
fn a_wrong_profile_denies_one() {
    for (text, expected) in [
        (
            "grops = []\n",
            "bad.toml:1:1: unknown key `grops` (did you mean `groups`?)",
        ),
        (
            "groups = [\"wizards\"]\n",
            "bad.toml:1:11: there is no group \"wizards\" (there is admin",
        ),
        (
            "groups = []\ngrants = [\"fly\"]\n",
            "bad.toml:2:11: `fly` is not a capability: there is no action `fly`",
        ),
        ("grants = [\"*\"]\n", "bad.toml:1:11: `*` is granted by a group only"),
        ("weight = 0\n", "weight is 0; it is 1 to"),
        ("keys = [\"ed25519:x\"]\n", "bad.toml:1:8: a key is written `ed25519:`"),
        ("[quota]\nfuel = 1\n", "bad.toml:2:1: unknown key `fuel`"),
        ("[quota]\ncalls = -1\n", "bad.toml:2:9"),
    ] {
        let (_directory, home) = home();
        write(&home, "bad", text);
        write(&home, "good", "groups = [\"agent\"]\n");
        let authority = Authority::open(&home).unwrap();
        let problems = authority.problems();
        assert!(
            problems.len() == 1 && problems[0].contains(expected),
            "{text:?}: {problems:?}"
        );
        assert_eq!(authority.standing(&who("bad")).check_active(), Err(Reason::Unreadable));
        assert!(allows(&authority, "good", Action::Publish, "a.b"));
    }
    let (_directory, home) = home();
    write(&home, "large", &"#".repeat(PROFILE_BYTES_MAX + 1));
    write(&home, "No Name", "");
    write(&home, "anonymous", "groups = [\"admin\"]\n");
    let problems = Authority::open(&home).unwrap().problems().join("\n");
    assert!(
        problems.contains("large.toml") && problems.contains("No Name") && problems.contains("nobody"),
        "{problems}"
    );
}

/// K7: revoke beats grant; disabled and unknown are denied.
#[test]
fn revokes_win() {
    let (_directory, home) = home();
    write(&home, "a", "groups = [\"agent\"]\nrevokes = [\"publish:secret.>\"]\n");
    write(
        &home,
        "b",
        "groups = [\"admin\"]\nrevokes = [\"admin:shutdown\", \"child.spawn:/bin/*\"]\n",
    );
    write(&home, "c", "enabled = false\ngroups = [\"admin\"]\n");
    let authority = Authority::open(&home).unwrap();
    for (name, action, object, expected) in [
        ("a", Action::Publish, "open.x", true),
        ("a", Action::Publish, "secret.x", false),
        ("a", Action::ChildSpawn, "/bin/sh", false),
        ("a", Action::Kv, "notes", true),
        ("b", Action::Admin, "backup", true),
        ("b", Action::Admin, "shutdown", false),
        ("b", Action::ChildSpawn, "/bin/sh", false),
        ("b", Action::ChildSpawn, "/usr/bin/env", true),
        ("b", Action::ChildSpawn, "/usr/../bin/sh", false),
        ("c", Action::Publish, "open.x", false),
        ("d", Action::Publish, "open.x", false),
    ] {
        assert_eq!(
            allows(&authority, name, action, object),
            expected,
            "{name} {action} {object}"
        );
    }
    // What overlaps a revoke cannot be subscribed to as a whole.
    let hears = |pattern: &str| {
        let pattern = pattern.parse().unwrap();
        let standing = authority.standing(&who("a"));
        standing.allows("any", Action::Publish, Object::Pattern(&pattern))
    };
    assert!(hears("open.>") && !hears(">") && !hears("*.x") && !hears("secret.a"));
}

/// Denials name the rule that decided, and what would have to change; names cannot forge lines.
#[test]
fn refusals_explain_themselves() {
    let (_directory, home) = home();
    write(
        &home,
        "a",
        "groups = [\"restricted\"]\ngrants = [\"publish:notes.>\"]\nrevokes = [\"publish:notes.x\"]\n",
    );
    write(&home, "off", "enabled = false\n");
    let gate = Gate::new(Authority::open(&home).unwrap());
    let acl = acl();
    let ask = |name: &str, action, resource: &str| {
        let principal = Principal::stamped(name).unwrap();
        gate.explain(&Check {
            principal: &principal,
            acl: Some(&acl),
            action,
            resource: Some(resource),
        })
    };
    for (name, action, resource, allowed, rule, change) in [
        (
            "a",
            Action::Publish,
            "notes.y",
            true,
            "`publish:notes.>` in etc/profiles/a.toml",
            "caps revoke a publish:notes.y",
        ),
        (
            "a",
            Action::Publish,
            "notes.x",
            false,
            "`publish:notes.x` is revoked for a",
            "to take the revoke `publish:notes.x` away",
        ),
        (
            "a",
            Action::Publish,
            "other.x",
            false,
            "the manifest of notes does not declare it",
            "[publish] in its Capsule.toml",
        ),
        (
            "a",
            Action::Kv,
            "notes",
            false,
            "nothing grants it to a",
            "astrid caps grant a kv:notes",
        ),
        (
            "off",
            Action::Publish,
            "notes.y",
            false,
            "off is disabled",
            "agent enable off",
        ),
        (
            "who",
            Action::Publish,
            "notes.y",
            false,
            "who is not known",
            "agent create who",
        ),
        (
            "default",
            Action::Publish,
            "notes.y",
            true,
            "granted by `*` of the group admin",
            "caps revoke",
        ),
        (
            "capsule:notes",
            Action::Publish,
            "notes.y",
            true,
            "for itself",
            "revoke",
        ),
        (
            "anonymous",
            Action::Publish,
            "notes.y",
            false,
            "nobody has shown",
            "a credential",
        ),
    ] {
        let found = ask(name, action, resource);
        assert_eq!(found.allowed, allowed, "{name} {action}:{resource}: {found:?}");
        assert!(
            found.rule.contains(rule) && found.change.contains(change),
            "{name} {action}:{resource}: {found:?}"
        );
    }
    let standing = gate.authority().standing(&who("default"));
    let subject = Subject {
        acl: &acl,
        standing: &standing,
        socket: None,
    };
    let denied = gate.document(subject, "a\nFAKE line").unwrap_err().to_string();
    assert!(!denied.contains('\n') && denied.contains("a\\nFAKE"), "{denied}");
    assert!(!ask("a", Action::ChildSpawn, "/x\nFAKE").change.contains('\n'));
}

/// An explanation decides as the gate does.
#[test]
fn explanations_and_decisions_agree() {
    let (_directory, home) = home();
    write(
        &home,
        "a",
        "groups = [\"restricted\"]\ngrants = [\"publish:notes.*\", \"kv:notes\"]\nrevokes = [\"publish:notes.x\"]\n",
    );
    write(&home, "off", "enabled = false\n");
    let gate = Gate::new(Authority::open(&home).unwrap());
    let acl = acl();
    for name in [
        "a",
        "off",
        "who",
        "default",
        "anonymous",
        "capsule:notes",
        "capsule:other",
    ] {
        let principal = Principal::stamped(name).unwrap();
        let standing = gate.authority().standing(&principal);
        let subject = Subject {
            acl: &acl,
            standing: &standing,
            socket: None,
        };
        for topic in ["notes.x", "notes.y", "notes.a.b", "other.y"] {
            let decided = gate.say(subject, topic.parse().unwrap()).is_ok();
            let check = Check {
                principal: &principal,
                acl: Some(&acl),
                action: Action::Publish,
                resource: Some(topic),
            };
            assert_eq!(gate.check(&check), decided, "{name} {topic}");
        }
        let check = Check {
            principal: &principal,
            acl: Some(&acl),
            action: Action::Kv,
            resource: Some("notes"),
        };
        assert_eq!(gate.check(&check), gate.table(subject, ()).is_ok(), "{name} kv");
    }
}

/// K8: a change is in force when its writer returns; comments stay; a wrong one changes nothing.
#[test]
fn edits() {
    let (_directory, home) = home();
    let text = "# Ann, of the second floor\ngroups = [ # why these\n  \"agent\",\n] # and no more\nweight = 2 # twice\n\n[quota]\n# small\ncalls = 3\n";
    write(&home, "ann", text);
    let authority = Authority::open(&home).unwrap();
    let epoch = authority.epoch();
    let edit = |edit: &dyn Fn(&mut Profile)| {
        authority.edit_profile(&who("ann"), |_, old| {
            let mut profile = old.unwrap();
            edit(&mut profile);
            Ok::<_, String>(Some(profile))
        })
    };
    edit(&|p| p.revokes = capabilities(&["publish:a.>"])).unwrap();
    assert!(authority.epoch() > epoch && !allows(&authority, "ann", Action::Publish, "a.b"));
    edit(&|p| (p.weight, p.quota.calls, p.quota.memory) = (1, Some(9), Some(ByteSize(4096)))).unwrap();
    let file = || fs::read_to_string(home.profiles_dir().join("ann.toml")).unwrap();
    for comment in ["# Ann, of the second floor", "# why these", "# and no more", "# small"] {
        assert!(file().contains(comment), "{}", file());
    }
    assert!(
        file().contains("revokes = [\"publish:a.>\"]") && file().contains("calls = 9"),
        "{}",
        file()
    );
    let (before, epoch) = (file(), authority.epoch());
    let error = edit(&|p| p.groups = vec!["wizards".to_owned()])
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no group \"wizards\""), "{error}");
    let refused = authority.edit_profile(&who("ann"), |_, _| Err("not now")).unwrap_err();
    assert_eq!(refused.to_string(), "not now");
    assert_eq!((file(), authority.epoch()), (before, epoch));
    // Made, found by the next daemon, and removed.
    let make = |_: &Policy, _| {
        Ok::<_, String>(Some(Profile {
            groups: vec!["agent".into()],
            ..Profile::default()
        }))
    };
    authority.edit_profile(&who("bob"), make).unwrap();
    assert!(allows(&Authority::open(&home).unwrap(), "bob", Action::Publish, "a.b"));
    authority
        .edit_profile(&who("bob"), |_, _| Ok::<_, String>(None))
        .unwrap();
    assert_eq!(authority.standing(&who("bob")).check_active(), Err(Reason::Unknown));
    assert!(
        authority
            .edit_profile(&who("bob"), |_, _| Ok::<_, String>(None))
            .is_err()
    );
}

#[test]
fn groups_are_edited() {
    let (_directory, home) = home();
    fs::write(home.groups_file(), "# Ours\n[group.ops]\ngrants = [\"kv\"] # state\n").unwrap();
    write(&home, "ann", "groups = [\"ops\"]\n");
    let authority = Authority::open(&home).unwrap();
    authority
        .edit_groups(|_, file| {
            file.group.get_mut("ops").unwrap().grants = capabilities(&["kv", "publish:a.>"]);
            file.group.insert(
                "more".into(),
                Group {
                    grants: capabilities(&["pin"]),
                    unsafe_admin: false,
                },
            );
            Ok::<_, String>(())
        })
        .unwrap();
    assert!(allows(&authority, "ann", Action::Publish, "a.b"));
    assert!(fs::read_to_string(home.groups_file()).unwrap().starts_with("# Ours\n"));
    let error = authority
        .edit_groups(|_, file| file.group.remove("ops").map(drop).ok_or(()))
        .unwrap_err();
    assert!(
        matches!(&error, EditError::Policy(e) if e.to_string().contains("ann needs")),
        "{error:?}"
    );
    assert!(allows(&authority, "ann", Action::Publish, "a.b"));
    let opened = Authority::open(&home).unwrap();
    assert_eq!(opened.policy().group("more"), Some(capabilities(&["pin"])));
}

/// K9: nobody raises their own quota or widens what they may do, and nobody gives what they do not hold.
#[test]
fn nobody_widens_their_own() {
    let mut policy = Policy::with_groups(&Default::default()).unwrap();
    let profile = |groups: &[&str], grants: &[&str], revokes: &[&str]| Profile {
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        grants: capabilities(grants),
        revokes: capabilities(revokes),
        ..Profile::default()
    };
    policy
        .insert(who("root"), profile(&["admin"], &[], &["publish:x.>"]))
        .unwrap();
    policy
        .insert(
            who("clerk"),
            profile(&["agent"], &["admin:caps.*", "admin:agent.*"], &[]),
        )
        .unwrap();
    let old = Profile {
        quota: Quota {
            calls: Some(5),
            ..Quota::default()
        },
        ..profile(&["agent"], &["document:a.b"], &["publish:x.>"])
    };
    let change = |actor: &str, target: &str, edit: &dyn Fn(&mut Profile)| {
        let mut new = old.clone();
        edit(&mut new);
        may_change(&policy, &who(actor), &who(target), Some(&old), Some(&new)).is_ok()
    };
    type Edit = fn(&mut Profile);
    // What, whether to oneself as admin, whether to another as admin, and as one who may only use the requests.
    let edits: [(&str, Edit, [bool; 3]); 12] = [
        ("raise a quota", |p| p.quota.calls = Some(6), [false, true, true]),
        ("lift a quota", |p| p.quota.calls = None, [false, true, true]),
        ("lower a quota", |p| p.quota.calls = Some(1), [true, true, true]),
        ("more weight", |p| p.weight = 2, [false, true, false]),
        ("join a group", |p| p.groups.push("admin".into()), [false, false, false]),
        (
            "join a small group",
            |p| p.groups.push("restricted".into()),
            [false, true, true],
        ),
        ("leave a group", |p| p.groups.clear(), [true, true, true]),
        (
            "a grant",
            |p| p.grants.push("child.spawn".parse().unwrap()),
            [false, true, false],
        ),
        (
            "a narrower grant",
            |p| p.grants.push("document:a.b".parse().unwrap()),
            [true, true, true],
        ),
        ("no revoke any more", |p| p.revokes.clear(), [false, false, true]),
        (
            "a wider revoke",
            |p| p.revokes = vec!["publish".parse().unwrap()],
            [true, true, true],
        ),
        ("disable", |p| p.enabled = false, [true, true, true]),
    ];
    for (what, edit, expected) in edits {
        let found = [
            change("root", "root", &edit),
            change("root", "bob", &edit),
            change("clerk", "bob", &edit),
        ];
        assert_eq!(found, expected, "{what}");
    }
    // Whoever can prove to be another, or makes one out of nobody, has what that one has.
    let key = |p: &mut Profile| p.keys.push(astrid_wire::proof::PublicKey([7; 32]));
    assert!(!change("clerk", "bob", &key) && change("root", "root", &key));
    let small = Profile {
        groups: vec!["agent".into()],
        ..Profile::default()
    };
    let off = Profile {
        enabled: false,
        ..old.clone()
    };
    for (was, is, allowed) in [(&off, &old, false), (&off, &small, true), (&small, &old, false)] {
        let mut was = was.clone();
        was.revokes.clear();
        let found = may_change(&policy, &who("clerk"), &who("bob"), Some(&was), Some(is));
        assert_eq!(found.is_ok(), allowed, "{found:?}");
    }
    // Nor by another that has more of a quota than oneself.
    let calls = |calls| Profile {
        quota: Quota {
            calls,
            ..Quota::default()
        },
        ..small.clone()
    };
    let mut limited = policy.copy();
    let four = Profile {
        grants: capabilities(&["admin"]),
        ..calls(Some(4))
    };
    limited.insert(who("four"), four).unwrap();
    for (was, is, allowed) in [
        // Nor by making as much again, whoever that is.
        (None, Some(4), false),
        (None, Some(1), false),
        (None, None, false),
        (Some(Some(1)), Some(4), true),
        (Some(Some(1)), Some(5), false),
        (Some(Some(6)), Some(5), true),
        (Some(None), None, true),
    ] {
        let was = was.map(calls);
        let found = may_change(&limited, &who("four"), &who("bob"), was.as_ref(), Some(&calls(is)));
        assert_eq!(found.is_ok(), allowed, "{is:?}: {found:?}");
    }
    // Whoever holds everything is beyond those who do not: they neither take nor give.
    for (actor, allowed) in [("clerk", false), ("root", true)] {
        let boss = Profile {
            groups: vec!["admin".into()],
            ..Profile::default()
        };
        let mut ruled = policy.copy();
        ruled.insert(who("boss"), boss.clone()).unwrap();
        let mut weaker = boss.clone();
        weaker.enabled = false;
        for new in [None, Some(&weaker)] {
            let found = may_change(&ruled, &who(actor), &who("boss"), Some(&boss), new);
            assert_eq!(found.is_ok(), allowed, "{actor}: {found:?}");
        }
    }
    // A weight is somebody's share: more than one's own is given by whoever rules.
    for (actor, allowed) in [("clerk", false), ("root", true)] {
        let heavy = Profile {
            weight: 50,
            ..small.clone()
        };
        let found = may_change(&policy, &who(actor), &who("bob"), Some(&small), Some(&heavy));
        assert_eq!(found.is_ok(), allowed, "{actor}: {found:?}");
    }
    let group = |grants: &[&str]| Group {
        grants: capabilities(grants),
        unsafe_admin: false,
    };
    let may =
        |actor: &str, name: &str, new: &Group| may_change_group(&policy, &who(actor), name, None, Some(new)).is_ok();
    assert!(!may("clerk", "agent", &group(&["kv"])), "its own group");
    assert!(may("clerk", "new", &group(&["kv"])) && !may("clerk", "new", &group(&["child.spawn"])));
}

/// What is taken is gone once the writer has returned: no thread that asks after that is allowed, whatever it had looked up.
#[test]
fn a_revoke_races_its_use() {
    let (_directory, home) = home();
    write(&home, "ann", "groups = [\"agent\"]\n");
    let authority = Authority::open(&home).unwrap();
    let gate = Gate::new(Arc::clone(&authority));
    let (acl, topic) = (acl(), "notes.y".parse::<astrid_wire::Topic>().unwrap());
    // Odd while it is revoked.
    let (turn, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let used = std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            let standing = authority.standing(&who("ann"));
            let subject = Subject {
                acl: &acl,
                standing: &standing,
                socket: Some(Socket::Session),
            };
            let revoked = |from: u64| from % 2 == 1 && turn.load(Ordering::SeqCst) == from;
            let mut decisions = 0_u64;
            while !over.load(Ordering::SeqCst) {
                let began = turn.load(Ordering::SeqCst);
                let permit = gate.say(subject, topic.clone());
                decisions += 1;
                assert!(!(permit.is_ok() && revoked(began)), "allowed after the revoke");
                let later = turn.load(Ordering::SeqCst);
                if let Ok(permit) = permit {
                    // Allowed before, and the effect would come after: it is decided again.
                    let still = gate.still(&permit);
                    assert!(
                        !(still && revoked(later)),
                        "a permit of an earlier epoch is not in force"
                    );
                }
            }
            decisions
        });
        let set = |revokes: Vec<Capability>| {
            let edit = |_: &Policy, old: Option<Profile>| {
                Ok::<_, String>(old.map(|p| Profile {
                    revokes: revokes.clone(),
                    ..p
                }))
            };
            authority.edit_profile(&who("ann"), edit).unwrap();
        };
        for _ in 0..50 {
            set(capabilities(&["publish:notes.>"]));
            turn.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            turn.fetch_add(1, Ordering::SeqCst);
            set(Vec::new());
        }
        over.store(true, Ordering::SeqCst);
        user.join().unwrap()
    });
    assert!(used > 0);
}

/// Who may do less is named, so that what they hold is closed.
#[test]
fn who_lost_something_is_named() {
    let (_directory, home) = home();
    for name in ["ann", "bob", "eve"] {
        write(&home, name, "groups = [\"agent\"]\n");
    }
    let authority = Authority::open(&home).unwrap();
    let before = authority.policy();
    let set = |name: &str, new: Option<Profile>| {
        drop(authority.edit_profile(&who(name), |_, _| Ok::<_, String>(new)).unwrap())
    };
    set(
        "ann",
        Some(Profile {
            groups: vec!["admin".into()],
            ..Profile::default()
        }),
    );
    set(
        "bob",
        Some(Profile {
            groups: vec!["restricted".into()],
            ..Profile::default()
        }),
    );
    set("eve", None);
    let mut less = authority.policy().less_than(&before);
    less.sort();
    assert_eq!(less, [who("bob"), who("eve")]);
}

/// A capsule acts for itself, and another cannot be made to run programs for it.
#[test]
fn a_capsules_own_principal_is_bound_to_its_code() {
    let authority = Authority::fixed(Policy::default());
    let allows = |principal: &str, action| {
        let standing = authority.standing(&Principal::capsule(principal));
        standing.allows("runner", action, Object::Name("/bin/sh"))
    };
    assert!(allows("runner", Action::ChildSpawn) && !allows("other", Action::ChildSpawn));
    assert!(allows("other", Action::Publish));
}

/// A18: a capsule's programs are never started with a looser sandbox than its manifest says.
#[test]
fn a_manifest_bounds_the_sandbox() {
    use astrid_wire::manifest::Floor;
    let gate = Gate::new(Authority::fixed(Policy::default()));
    let standing = gate.authority().standing(&Principal::capsule("notes"));
    let decide = |said: &str, sandbox| {
        let manifest = format!(
            "[package]\nname = \"notes\"\nversion = \"1.0.0\"\ndescription = \"runs\"\nkernel = \">=0.1, <1\"\n\
             [runtime]\nscope = \"principal\"\n\
             [capabilities]\nchild = {{ allow = [\"*\"], reason = \"runs\"{said} }}\n"
        );
        let acl = Acl::new(&Manifest::parse(&manifest, "Capsule.toml").unwrap(), Vec::new());
        let subject = Subject {
            acl: &acl,
            standing: &standing,
            socket: None,
        };
        gate.loosens(subject, "/bin/sh", sandbox, None)
            .map_err(|denied| denied.to_string())
    };
    assert!(decide("", Floor::None).is_ok());
    assert!(
        decide(", sandbox = \"home\"", Floor::Home).is_ok() && decide(", sandbox = \"home\"", Floor::Sealed).is_ok()
    );
    let denied = decide(", sandbox = \"project\"", Floor::Home).unwrap_err();
    assert!(
        denied.contains("child.sandbox") && denied.contains("/bin/sh"),
        "{denied}"
    );
    assert!(decide(", sandbox = \"sealed\"", Floor::Project).is_err());
}

/// A18: who may run a program may not choose how loose its sandbox is: that is a grant of its own.
#[test]
fn a_loose_sandbox_is_granted() {
    let (_directory, home) = home();
    write(
        &home,
        "ann",
        "groups = [\"agent\"]\ngrants = [\"child.spawn:/bin/*\"]\n",
    );
    write(
        &home,
        "bob",
        "groups = [\"agent\"]\ngrants = [\"child.spawn:/bin/*\", \"child.sandbox:write\"]\n",
    );
    write(
        &home,
        "eve",
        "groups = [\"admin\"]\nrevokes = [\"child.sandbox:none\"]\n",
    );
    let authority = Authority::open(&home).unwrap();
    for (name, loose) in [
        ("ann", [false; 3]),
        ("bob", [false, false, true]),
        ("eve", [false, true, true]),
    ] {
        let allowed = ["none", "home", "write"].map(|loose| allows(&authority, name, Action::ChildSandbox, loose));
        assert_eq!(allowed, loose, "{name}");
    }
}
