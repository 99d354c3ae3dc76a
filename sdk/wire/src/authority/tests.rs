//! The grammar and the matcher, against vectors and a naive matcher.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::quota::Quota;

fn capability(text: &str) -> Capability {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Matching by its definition: recursion over segments.
fn naive(pattern: &[&str], resource: &[&str]) -> bool {
    match (pattern, resource) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", pattern @ ..], [_, resource @ ..]) => naive(pattern, resource),
        ([mine, pattern @ ..], [theirs, resource @ ..]) => mine == theirs && naive(pattern, resource),
        _ => false,
    }
}

fn naive_segments(text: &str) -> Vec<&str> {
    match text.strip_prefix('/') {
        Some(rest) => rest.split('/').collect(),
        None => text.split('.').collect(),
    }
}

fn naive_matches(pattern: &str, resource: &str) -> bool {
    pattern.starts_with('/') == resource.starts_with('/') && naive(&naive_segments(pattern), &naive_segments(resource))
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("*")];
    (any::<bool>(), prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(path, mut segments, rest)| {
        if rest || segments.is_empty() {
            segments.push(">");
        }
        if path {
            format!("/{}", segments.join("/"))
        } else {
            segments.join(".")
        }
    })
}

fn resource() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b")];
    (any::<bool>(), prop::collection::vec(segment, 1..5)).prop_map(|(path, segments)| {
        if path {
            format!("/{}", segments.join("/"))
        } else {
            segments.join(".")
        }
    })
}

proptest! {
    #[test]
    fn it_matches_as_the_naive_one(pattern in pattern(), resource in resource()) {
        let set: Resource = pattern.parse().unwrap();
        prop_assert_eq!(set.matches(&resource), naive_matches(&pattern, &resource));
    }

    /// What narrows (K10): all that the narrower one is about is in the wider one.
    #[test]
    fn what_is_covered_is_allowed(wide in pattern(), narrow in pattern(), resource in resource()) {
        let (wide, narrow): (Resource, Resource) = (wide.parse().unwrap(), narrow.parse().unwrap());
        if wide.covers(&narrow) && narrow.matches(&resource) {
            prop_assert!(wide.matches(&resource));
        }
        if wide.matches(&resource) && narrow.matches(&resource) {
            prop_assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide));
        }
        if wide.covers(&narrow) {
            prop_assert!(wide.overlaps(&narrow));
        }
    }

    /// A pattern that covers itself, and is written as it was read.
    #[test]
    fn it_is_written_as_it_was_read(pattern in pattern()) {
        let action = if pattern.starts_with('/') { "child.spawn" } else { "publish" };
        let text = format!("{action}:{pattern}");
        let read = capability(&text);
        prop_assert_eq!(read.to_string(), text);
        prop_assert!(read.covers(&read));
    }

    /// Whatever is read: an error or a capability that allows only what is a resource, never a panic.
    #[test]
    fn any_text_is_survived(text in ".{0,80}", asked in ".{0,40}") {
        if let Ok(read) = text.parse::<Capability>() {
            prop_assert_eq!(&read.to_string(), &text);
            for action in Action::ALL {
                if read.allows(action, Some(&asked)) {
                    prop_assert!(check_resource(&asked, false).is_ok());
                }
            }
        }
    }
}

/// capability, action, resource, whether it is about that.
const VECTORS: &[(&str, Action, Option<&str>, bool)] = &[
    ("*", Action::Publish, Some("a.b"), true),
    ("*", Action::Secret, None, true),
    ("*", Action::ChildSpawn, Some("/usr/../bin/sh"), false),
    ("publish", Action::Publish, Some("a"), true),
    ("publish", Action::Publish, None, true),
    ("publish", Action::Subscribe, Some("a"), false),
    ("publish:>", Action::Publish, Some("a.b.c"), true),
    ("publish:>", Action::Publish, None, false),
    ("publish:a.>", Action::Publish, Some("a"), false),
    ("publish:a.*", Action::Publish, Some("a.b"), true),
    ("publish:a.*", Action::Publish, Some("a.b.c"), false),
    ("publish:a.*", Action::Publish, Some("a."), false),
    ("publish:a.*.c", Action::Publish, Some("a.b.c"), true),
    ("publish:a", Action::Publish, Some("a.b"), false),
    ("child.spawn:/usr/bin/*", Action::ChildSpawn, Some("/usr/bin/git"), true),
    (
        "child.spawn:/usr/bin/*",
        Action::ChildSpawn,
        Some("/usr/bin/a/b"),
        false,
    ),
    ("child.spawn:/usr/bin/*", Action::ChildSpawn, Some("/usr/bin/.."), false),
    (
        "child.spawn:/usr/>",
        Action::ChildSpawn,
        Some("/usr/bin/../../bin/sh"),
        false,
    ),
    ("child.spawn:/usr/>", Action::ChildSpawn, Some("/usr//bin"), false),
    ("child.spawn:/usr/>", Action::ChildSpawn, Some("usr.bin"), false),
    (
        "child.spawn:/opt/my program/run",
        Action::ChildSpawn,
        Some("/opt/my program/run"),
        true,
    ),
    (
        "document:ecosystem.toml",
        Action::Document,
        Some("ecosystem.toml"),
        true,
    ),
    ("admin:agent.*", Action::Admin, Some("agent.create"), true),
    ("admin:agent.*", Action::Admin, Some("quota.set"), false),
    ("act_as:bob", Action::ActAs, Some("bobby"), false),
    (
        "net.connect:*.example.com",
        Action::NetConnect,
        Some("www.example.com"),
        true,
    ),
    (
        "net.connect:*.example.com",
        Action::NetConnect,
        Some("example.com"),
        false,
    ),
    ("fs.read:/>", Action::FsRead, Some("/a"), true),
    ("fs.read:/>", Action::FsRead, Some("/"), false),
    ("kv", Action::Kv, Some("notes"), true),
    ("kv:notes", Action::Kv, Some("other"), false),
];

#[test]
fn vectors() {
    for (text, action, resource, expected) in VECTORS {
        let found = capability(text).allows(*action, *resource);
        assert_eq!(found, *expected, "{text} about {action} {resource:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    use CapabilityError as E;
    let long = format!("publish:{}", "a".repeat(CAPABILITY_BYTES_MAX));
    for (text, expected) in [
        ("", E::Empty),
        (&*long, E::TooLong { bytes: long.len() }),
        ("publsh:a", E::Action("publsh".into())),
        ("Publish", E::Action("Publish".into())),
        ("publish:", E::EmptySegment { segment: 1 }),
        ("publish:a..b", E::EmptySegment { segment: 2 }),
        ("publish:a.b.", E::EmptySegment { segment: 3 }),
        ("child.spawn:/", E::EmptySegment { segment: 1 }),
        ("child.spawn:/a/../b", E::Dots { segment: 2, text: ".." }),
        ("child.spawn:/a/.", E::Dots { segment: 2, text: "." }),
        ("publish:a.>.b", E::Wildcard { segment: 2 }),
        ("publish:a*", E::Wildcard { segment: 1 }),
        ("child.spawn:/usr/*.sh", E::Wildcard { segment: 2 }),
        (
            "publish:a\nb",
            E::Character {
                segment: 1,
                found: '\n',
            },
        ),
        ("publish:a b", E::Character { segment: 1, found: ' ' }),
        (
            "child.spawn:/a\u{1b}[2J",
            E::Character {
                segment: 1,
                found: '\u{1b}',
            },
        ),
        (
            "child.spawn:/a\u{202e}b",
            E::Character {
                segment: 1,
                found: '\u{202e}',
            },
        ),
    ] {
        assert_eq!(text.parse::<Capability>(), Err(expected), "{text:?}");
    }
    for text in ["publish:/a", "child.spawn:git", "document:/etc/passwd"] {
        assert!(matches!(text.parse::<Capability>(), Err(E::Kind { .. })), "{text}");
    }
    // A line of a log cannot be forged by a wrong action.
    assert!(!"a\nb".parse::<Capability>().unwrap_err().to_string().contains('\n'));
}

#[test]
fn narrowing() {
    for (wide, narrow, expected) in [
        ("*", "*", true),
        ("*", "publish:a", true),
        ("publish", "*", false),
        ("publish", "publish:a.>", true),
        ("publish:>", "publish", false),
        ("publish:a.>", "publish:a.b", true),
        ("publish:a.>", "publish:a.*", true),
        ("publish:a.*", "publish:a.>", false),
        ("publish:*.b", "publish:a.b", true),
        ("publish:a.b", "publish:*.b", false),
        ("publish:a.>", "subscribe:a.b", false),
        ("child.spawn:/usr/>", "child.spawn:/usr/bin/*", true),
    ] {
        assert_eq!(
            capability(wide).covers(&capability(narrow)),
            expected,
            "{wide} covers {narrow}"
        );
    }
}

#[test]
fn documents_hold_them_as_strings() {
    let profile: Profile = serde_json::from_str(r#"{"groups": ["agent"], "revokes": ["publish:a.>"]}"#).unwrap();
    assert!(profile.enabled && profile.weight == 1 && profile.quota.is_unlimited());
    assert_eq!(
        serde_json::to_string(&profile).unwrap(),
        r#"{"groups":["agent"],"revokes":["publish:a.>"]}"#
    );
    let error = serde_json::from_str::<Profile>(r#"{"grants": ["spawn:x"]}"#).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`spawn:x` is not a capability: there is no action"),
        "{error}"
    );
}

#[test]
fn what_is_built_in_is_well_formed() {
    for group in BUILT_IN_GROUPS {
        for grant in group.grants {
            capability(grant);
        }
    }
}

/// K9's measure of a raised quota: no limit is the highest.
#[test]
fn raising() {
    let limited = Quota {
        calls: Some(5),
        ..Quota::default()
    };
    assert_eq!(Quota::default().raised_from(&limited), Some("calls"));
    assert_eq!(limited.raised_from(&Quota::default()), None);
    assert_eq!(limited.raised_from(&limited), None);
}
