//! Good manifests, and a table of bad ones with the exact words and places.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const FULL: &str = r#"
[package]
name = "uplink-local"
version = "1.2.0"
description = "Serves clients"
kernel = ">=0.1, <1"

[runtime]
scope = "connection"
memory = "96MiB"
fuel = 200_000_000
timeout = "30s"
drain = true

[exports]
uplink = "1.0"

[imports]
store = "^1"
notes = { version = "^1.2", optional = true, many = true }

[publish]
">" = {}

[subscribe]
"process.v1.request.*" = { queue = 10, overflow = "drop-oldest", retry = 3 }
"process.v1.event.>" = {}

[capabilities]
listen = { allow = ["operator", "session"], reason = "serves clients" }
subscribe = { allow = [">"], reason = "clients choose" }
timer = { allow = ["*"], reason = "times out" }
"#;

const MINIMAL: &str = "[package]\nname = \"a\"\nversion = \"0.1.0\"\ndescription = \"A\"\nkernel = \"*\"\n";

#[test]
fn everything_is_read() {
    let manifest = Manifest::parse(FULL, "Capsule.toml").unwrap();
    assert_eq!(manifest.name(), "uplink-local");
    assert_eq!(manifest.runtime.scope, Scope::Connection);
    assert_eq!(manifest.runtime.memory, ByteSize(96 << 20));
    assert_eq!(manifest.runtime.timeout.0, Duration::from_secs(30));
    assert!(manifest.runtime.drain);
    assert!(manifest.exports["uplink"].satisfies(&"^1".parse().unwrap()));
    assert!(!manifest.exports["uplink"].satisfies(&"^1.1".parse().unwrap()));
    assert_eq!(
        manifest.imports["store"],
        Import {
            version: "^1".parse().unwrap(),
            optional: false,
            many: false
        }
    );
    assert_eq!(
        manifest.imports["notes"],
        Import {
            version: "^1.2".parse().unwrap(),
            optional: true,
            many: true
        }
    );
    assert_eq!(
        manifest.subscribe["process.v1.request.*"],
        SubscribeOptions {
            queue: 10,
            overflow: Overflow::DropOldest,
            retry: 3,
            durable: false,
            ordered: false
        }
    );
    assert_eq!(manifest.subscribe["process.v1.event.>"], SubscribeOptions::default());
    let listen = manifest.capabilities.listen.unwrap();
    assert_eq!(
        listen.allow.into_iter().collect::<Vec<_>>(),
        [Listener::Operator, Listener::Session]
    );
}

#[test]
fn defaults() {
    let manifest = Manifest::parse(MINIMAL, "").unwrap();
    assert_eq!(manifest.runtime, Runtime::default());
    assert_eq!(manifest.runtime.idle_time(), None);
    let principal = Manifest::parse(&format!("{MINIMAL}[runtime]\nscope = \"principal\"\n"), "").unwrap();
    assert_eq!(principal.runtime.idle_time(), Some(Duration::from_secs(600)));
    assert_eq!(principal.runtime.memory.to_string(), "16MiB");
}

#[test]
fn survives_toml_and_json() {
    for text in [FULL, MINIMAL] {
        let manifest = Manifest::parse(text, "").unwrap();
        assert_eq!(
            Manifest::parse(&toml::to_string(&manifest).unwrap(), "").unwrap(),
            manifest
        );
        let json = serde_json::to_value(&manifest).unwrap();
        assert_eq!(serde_json::from_value::<Manifest>(json).unwrap(), manifest);
    }
}

/// Text that follows a good `[package]` (5 lines), and what is said about it.
#[test]
fn errors_have_place_words_and_hint() {
    let cases: &[(&str, &str)] = &[
        ("[runtim]", "6:2: unknown key `runtim`\nhint: did you mean `runtime`?"),
        (
            "[runtime]\nfule = 1",
            "7:1: unknown key `fule`\nhint: did you mean `fuel`?",
        ),
        (
            "[runtime]\nzebra = 1",
            "7:1: unknown key `zebra`\nhint: there is `scope`, `instances`, `memory`, `fuel`, `timeout`, `idle`, `drain`",
        ),
        (
            "[runtime]\nscope = \"sytem\"",
            "7:9: unknown value `sytem`\nhint: did you mean `system`?",
        ),
        (
            "[runtime]\nmemory = \"32MB\"",
            "7:10: `32MB` has no known unit; write one of B, KiB, MiB, GiB (as in \"32MiB\")",
        ),
        (
            "[runtime]\nmemory = 32",
            "7:10: invalid type: integer `32`, expected a string",
        ),
        (
            "[runtime]\nmemory = \"2GiB\"",
            "7:1: runtime.memory: 2GiB is outside 128KiB to 1GiB",
        ),
        (
            "[runtime]\nmemory = \"1KiB\"",
            "7:1: runtime.memory: 1KiB is outside 128KiB to 1GiB",
        ),
        (
            "[runtime]\ntimeout = \"11m\"",
            "7:1: runtime.timeout: 11m is outside 10ms to 10m",
        ),
        (
            "[runtime]\nfuel = 0",
            "7:1: runtime.fuel: 0 is outside 1 to 1000000000000",
        ),
        ("[runtime]\nfuel = -1", "7:8: invalid value: integer `-1`, expected u64"),
        (
            "[runtime]\nidle = \"0s\"",
            "7:1: runtime.idle: 0ms is outside 1ms to 168h",
        ),
        (
            "[runtime]\ninstances = 0",
            "7:13: invalid value: integer `0`, expected a nonzero u32",
        ),
        ("[runtime]\ninstances = 300", "7:1: runtime.instances: at most 256"),
        (
            "[runtime]\nscope = \"principal\"\ninstances = 2",
            "8:1: runtime.instances: scope \"principal\" has one actor for each principal\n\
             hint: `instances` is for scope = \"system\"",
        ),
        (
            "[runtime]\nscope = \"connection\"",
            "7:1: runtime.scope: scope \"connection\" without anything to listen on\n\
             hint: add listen = { allow = [\"session\"], reason = \"...\" } under [capabilities]",
        ),
        (
            "[capabilities]\nlisten = { allow = [\"session\"], reason = \"r\" }",
            "7:1: capabilities.listen: scope \"system\" serves no connections\n\
             hint: set scope = \"connection\" under [runtime]",
        ),
        (
            "[capabilities]\nsubscribe = { allow = [\"a\"], reason = \"r\" }",
            "7:1: capabilities.subscribe: scope \"system\" does not subscribe while it runs\n\
             hint: name the patterns under [subscribe]",
        ),
        (
            "[capabilities]\ntimer = { allow = [\"*\"], reason = \"\" }",
            "7:26: capabilities.timer.reason: it is empty\nhint: one sentence; people read it before they decide",
        ),
        (
            "[capabilities]\ntimer = { allow = [\"*\"] }",
            "7:9: missing field `reason`",
        ),
        (
            "[capabilities]\ntimer = { allow = [\"all\"], reason = \"r\" }",
            "7:20: unknown value `all`\nhint: there is `*`",
        ),
        (
            "[capabilities]\ntimer = { allow = [], reason = \"r\" }",
            "7:11: capabilities.timer.allow: 0 entries; 1 to 256 make sense",
        ),
        (
            "[capabilities]\nlisten = { allow = [\"sesion\"], reason = \"r\" }",
            "7:21: unknown value `sesion`\nhint: did you mean `session`?",
        ),
        (
            "[capabilities]\nnet = {}",
            "7:1: unknown key `net`\nhint: there is `listen`, `timer`, `subscribe`, `child`, `document`, `fs`, `kv`, `pin`, `guard`",
        ),
        (
            "[capabilities]\nfs = { reason = \"r\" }",
            "7:1: capabilities.fs: neither `read` nor `write` names any files\n\
             hint: write read = [\"/workspace/>\"] for everything in the workspace, or take this line out",
        ),
        (
            "[capabilities]\nfs = { read = [\"/workspace/>\"], reason = \"\" }",
            "7:33: capabilities.fs.reason: it is empty\nhint: one sentence; people read it before they decide",
        ),
        (
            "[capabilities]\nfs = { read = [\"/etc/passwd\"], reason = \"r\" }",
            "7:15: `/etc/passwd` is not a path of files: write /workspace/..., /home/... or /tmp/..., where `*` is one segment \
             and a final `>` all that follow",
        ),
        (
            "[capabilities]\nfs = { write = [\"/workspace/../etc\"], reason = \"r\" }",
            "7:16: `/workspace/../etc` is not a path of files: write /workspace/..., /home/... or /tmp/..., where `*` is one \
             segment and a final `>` all that follow",
        ),
        (
            "[capabilities]\nfs = { allow = [\"/tmp/>\"], reason = \"r\" }",
            "7:8: unknown key `allow`\nhint: there is `read`, `write`, `reason`",
        ),
        (
            "[capabilities]\nguard = { allow = [\"notes.v1.>\", \"astrid.v1.>\"], reason = \"r\" }",
            "7:11: capabilities.guard.allow: `astrid.v1.>` cannot be guarded: `astrid.` is the kernel's\n\
             hint: what is asked of the kernel is decided by grants and revokes",
        ),
        (
            "[capabilities]\nguard = { allow = [\"port.v1.>\"], reason = \"r\" }",
            "7:11: capabilities.guard.allow: `port.v1.>` cannot be guarded: `port.` is the kernel's\n\
             hint: what is asked of the kernel is decided by grants and revokes",
        ),
        (
            "[capabilities]\nguard = { allow = [\"a.>.b\"], reason = \"r\" }",
            "7:20: `a.>.b` is not a pattern: segment 2 is `>`, at byte 2; it may only be the last one",
        ),
        (
            "[runtime]\nscope = \"principal\"\n[capabilities]\nguard = { allow = [\"notes.v1.>\"], reason = \"r\" }",
            "9:1: capabilities.guard: a guard reads the one table of its capsule, and scope \"principal\" has one for each principal\n\
             hint: set scope = \"system\" under [runtime], or guard from a capsule of its own",
        ),
        (
            "[publish]\n\"a.>.b\" = {}",
            "7:1: `a.>.b` is not a pattern: segment 2 is `>`, at byte 2; it may only be the last one",
        ),
        (
            "[publish]\n\"a.b\" = { durable = true }",
            "7:11: unknown key `durable`\nhint: nothing can be set here",
        ),
        (
            "[publish]\n\"port.v1.x\" = {}",
            "7:1: publish.port.v1.x: only the kernel publishes on `port.`\nhint: take this line out; replies need no entry",
        ),
        (
            "[publish]\nreply = {}",
            "7:1: publish.reply: only the kernel publishes on `reply.`\nhint: take this line out; replies need no entry",
        ),
        (
            "[subscribe]\n\"a\" = { queue = 0 }",
            "7:9: subscribe.a.queue: a queue holds 1 to 65536 messages",
        ),
        (
            "[subscribe]\n\"a\" = { retry = 101 }",
            "7:9: subscribe.a.retry: a message is retried at most 100 times",
        ),
        (
            "[subscribe]\n\"a\" = { overflow = \"drop-oldst\" }",
            "7:20: unknown value `drop-oldst`\nhint: did you mean `drop-oldest`?",
        ),
        (
            "[exports]\na = \"1\"",
            "7:5: `1` is not the version of an interface: two numbers, as in \"1.0\"",
        ),
        (
            "[exports]\na = \"1.01\"",
            "7:5: `1.01` is not the version of an interface: two numbers, as in \"1.0\"",
        ),
        (
            "[exports]\na = 1.0",
            "7:5: invalid type: floating point `1.0`, expected a string",
        ),
        (
            "[exports]\na_b = \"1.0\"",
            "7:1: `a_b` contains '_'; names are made of a-z, 0-9 and `-`",
        ),
        (
            "[exports]\nx = \"1.0\"\n[imports]\nx = \"^1\"",
            "9:1: imports.x: it exports `x` itself\nhint: a capsule cannot wait for itself",
        ),
        (
            "[imports]\nx = 1",
            "7:5: invalid type: integer `1`, expected a version (`\"^1\"`) or a table (`{ version = \"^1\", optional = true }`)",
        ),
        (
            "[imports]\nx = { version = \"1\", optionel = true }",
            "7:22: unknown key `optionel`\nhint: did you mean `optional`?",
        ),
        (
            "[imports]\nx = \"one\"",
            "7:5: unexpected character 'o' while parsing major version number",
        ),
        ("[runtime]\nfuel = 1\nfuel = 2", "8:1: duplicate key"),
        ("# äöü\n\"é\" ö = 1", "7:5: key with no value, expected `=`"),
    ];
    for (text, expected) in cases {
        let error = Manifest::parse(&format!("{MINIMAL}{text}\n"), "x.toml").unwrap_err();
        assert_eq!(error.to_string(), format!("x.toml:{expected}"), "for:\n{text}");
    }
}

#[test]
fn errors_in_the_package() {
    let cases = [
        (
            "name = \"a\"",
            "name = \"A\"",
            "2:8: `A` contains 'A'; names are made of a-z, 0-9 and `-`",
        ),
        (
            "name = \"a\"",
            "name = \"\"",
            "2:8: a name has 1 to 64 bytes, this one has 0",
        ),
        (
            "version = \"0.1.0\"",
            "version = \"1.0\"",
            "3:11: unexpected end of input while parsing minor version number",
        ),
        (
            "description = \"A\"",
            "description = \" \"",
            "4:1: package.description: it is empty",
        ),
        (
            "description = \"A\"",
            "description = \"a\\nb\"",
            "4:1: package.description: it contains the control character '\\n'",
        ),
        ("kernel = \"*\"", "", "1:1: missing field `kernel`"),
    ];
    for (good, bad, expected) in cases {
        let error = Manifest::parse(&MINIMAL.replace(good, bad), "x.toml")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("x.toml:{expected}")), "{error}");
    }
    let error = Manifest::parse("", "x.toml").unwrap_err();
    assert_eq!(error.what(), "missing field `package`");
}

/// What a durable subscription is when only that is said, and what it cannot be.
#[test]
fn durable_subscriptions() {
    let with = |runtime: &str, options: &str| {
        let text = format!(
            "[package]\nname = \"a\"\nversion = \"1.0.0\"\ndescription = \"d\"\nkernel = \"*\"\n{runtime}\n[subscribe]\n\"x.v1.y\" = {{ {options} }}\n"
        );
        Manifest::parse(&text, "t").map(|m| m.subscribe.values().copied().next().unwrap())
    };
    let durable = with("", "durable = true").unwrap();
    assert_eq!((durable.queue, durable.retry), (65_536, 3));
    let chosen = with("", "durable = true, ordered = true, queue = 1000000, retry = 0").unwrap();
    assert_eq!((chosen.queue, chosen.retry, chosen.ordered), (1_000_000, 0, true));
    for (options, error) in [
        ("durable = true, overflow = \"drop-oldest\"", "never drops"),
        ("ordered = true", "order over retries"),
        ("queue = 65537", "a queue holds"),
        ("durable = true, queue = 1000001", "a queue holds"),
        ("durable = true, lasting = 1", "unknown key"),
    ] {
        let refused = with("", options).unwrap_err().to_string();
        assert!(refused.contains(error), "{options}: {refused}");
    }
}

/// Hostile documents: bounded, and a typed error.
#[test]
fn hostile_documents() {
    let large = format!("{MINIMAL}# {}", "x".repeat(DOCUMENT_BYTES_MAX));
    assert_eq!(
        Manifest::parse(&large, "x").unwrap_err().to_string(),
        format!("x: it has {} bytes, the limit is 65536", large.len())
    );
    for deep in [
        "[".repeat(60_000),
        format!("a = {}", "[".repeat(60_000)),
        format!("a = {}", "{a=".repeat(20_000)),
    ] {
        assert!(Manifest::parse(&deep, "x").is_err());
    }
    let dotted = format!("{} = 1", vec!["a"; 30_000].join("."));
    assert!(Manifest::parse(&dotted, "x").is_err());
    let many: String = (0..257).map(|n| format!("a{n} = {{}}\n")).collect();
    let error = Manifest::parse(&format!("{MINIMAL}[publish]\n{many}"), "x").unwrap_err();
    assert_eq!(error.to_string(), "x:6:2: publish: 257 entries, the limit is 256");
    let control = Manifest::parse("\u{0}", "x").unwrap_err();
    assert!(control.place().is_some());
}

/// Whether an unknown key is refused in every table there is.
#[test]
fn unknown_keys_are_errors_everywhere() {
    for table in [
        "package",
        "runtime",
        "capabilities",
        "capabilities.timer",
        "publish.a",
        "subscribe.a",
        "imports.a",
        "imports.a.version",
    ] {
        let text = format!("{MINIMAL}[{table}]\nunheard-of = 1\n").replacen(
            "[package]\n",
            "",
            usize::from(table == "package"),
        );
        assert!(Manifest::parse(&text, "x").is_err(), "{table}");
    }
    assert!(Manifest::parse(&format!("unheard-of = 1\n{MINIMAL}"), "x").is_err());
}

#[cfg(feature = "schema")]
mod schema {
    use super::*;

    /// The committed schema is the generated one. Run with `ASTRID_BLESS=1` to write it anew.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "reads and writes the source tree")]
    fn schema_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/schema/capsule-manifest.json");
        let generated = manifest_schema();
        if std::env::var_os("ASTRID_BLESS").is_some() {
            std::fs::write(&path, format!("{generated:#}\n")).unwrap();
        }
        let committed: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(
            committed, generated,
            "run this test with --features schema and ASTRID_BLESS=1 to write the schema anew"
        );
    }
}
