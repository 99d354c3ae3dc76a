//! Files as capsules reach them: what is read and written, who may, what it takes, and what is recorded of it. The test guest `clerk` does one
//! call after another.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use astrid_kernel::authority::{Authority, Policy};
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::bus::message::Body;
use astrid_tests::bed::{Bed, PATIENCE, Settings, answer, refusal};
use astrid_wire::authority::{GroupsFile, Profile};
use astrid_wire::{Principal, Quota};
use serde_json::{Value, json};

/// A kernel, and a directory that is attached for everybody who is in the policy.
struct Office {
    bed: Bed,
    project: tempfile::TempDir,
}

fn profile(grants: &[&str], revokes: &[&str]) -> Profile {
    let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Profile {
        groups: vec!["agent".to_owned()],
        grants: all(grants),
        revokes: all(revokes),
        ..Profile::default()
    }
}

fn everything() -> Profile {
    profile(
        &[
            "fs.read:/workspace/>",
            "fs.write:/workspace/>",
            "fs.read:/home/>",
            "fs.write:/home/>",
            "fs.read:/tmp/>",
            "fs.write:/tmp/>",
        ],
        &[],
    )
}

fn policy(profiles: &[(&str, Profile)]) -> Arc<Authority> {
    let mut policy = Policy::with_groups(&GroupsFile::default()).unwrap();
    for (name, profile) in profiles {
        policy
            .insert(Principal::stamped(name).unwrap(), profile.clone())
            .unwrap();
    }
    Authority::fixed(policy)
}

impl Office {
    async fn open(profiles: &[(&str, Profile)]) -> Self {
        let project = tempfile::tempdir().unwrap();
        fs::create_dir_all(project.path().join("src/deep")).unwrap();
        fs::write(project.path().join("README"), "read me\n").unwrap();
        fs::write(project.path().join("src/main.rs"), "fn main() {}\n").unwrap();
        fs::set_permissions(project.path().join("src/main.rs"), fs::Permissions::from_mode(0o755)).unwrap();
        let settings = Settings {
            authority: policy(profiles),
            workspace: Some(fs::canonicalize(project.path()).unwrap()),
            ..Settings::default()
        };
        Self {
            bed: Bed::with(&["clerk"], settings).await,
            project,
        }
    }

    async fn usual() -> Self {
        Self::open(&[("ada", everything())]).await
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.project.path().join(path)
    }

    /// What becomes of each step.
    async fn steps(&self, who: &str, steps: Value) -> Vec<Value> {
        let done = self.bed.ask_as(who, "clerk.v1.do.steps", Body::json(&steps)).await;
        answer(done).as_array().unwrap().clone()
    }

    async fn step(&self, who: &str, step: Value) -> Value {
        self.steps(who, json!([step])).await.remove(0)
    }

    fn home_of(&self, who: &str) -> PathBuf {
        self.bed.host.home.principal_dir(&Principal::stamped(who).unwrap())
    }

    /// Details of what was recorded of that action.
    fn recorded(&self, action: &str) -> Vec<(String, String)> {
        let all = self.bed.host.audit.recorded();
        let of = all
            .iter()
            .filter(|entry| entry.kind == "file-write" && &*entry.action == action);
        of.map(|entry| (entry.resource.to_string(), entry.detail.to_string()))
            .collect()
    }
}

#[track_caller]
fn error(value: &Value) -> &str {
    value["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error, but {value}"))
}

/// Whatever can be done, in each root; the attached directory stays as it is.
#[tokio::test]
async fn all_that_can_be_done() {
    let office = Office::usual().await;
    for root in ["workspace://", "home://", "tmp://"] {
        let at = |path: &str| format!("{root}{path}");
        let done = office
            .steps(
                "ada",
                json!([
                    { "make-dir": { "path": at("a/b/c"), "parents": true } },
                    { "replace": { "path": at("a/one"), "text": "first" } },
                    { "replace": { "path": at("a/one"), "text": "second", "expected": blake3::hash(b"first").to_hex().as_str() } },
                    { "replace": { "path": at("a/one"), "text": "third", "expected": blake3::hash(b"first").to_hex().as_str() } },
                    { "replace": { "path": at("a/one"), "text": "fourth", "absent": true } },
                    { "read": { "path": at("a/one") } },
                    { "write": { "path": at("a/one"), "offset": 6, "text": "-more" } },
                    { "write": { "path": at("a/new"), "offset": 3, "text": "x" } },
                    { "read": { "path": at("a/one") } },
                    { "cut": { "path": at("a/one"), "length": 3 } },
                    { "hash": { "path": at("a/one") } },
                    { "make-link": { "path": at("a/link"), "to": "../a/one" } },
                    { "read-link": { "path": at("a/link") } },
                    { "read": { "path": at("a/link") } },
                    { "rename": { "path": at("a/one"), "to": at("a/b/two"), "overwrite": false } },
                    { "rename": { "path": at("a/b"), "to": at("b"), "overwrite": false } },
                    { "set-mode": { "path": at("b/two"), "mode": 0o700 } },
                    { "set-modified": { "path": at("b/two"), "ms": 1_234_567_890_123_u64 } },
                    { "stat": { "path": at("b/two"), "follow": true } },
                    { "stat": { "path": at("a/link"), "follow": false } },
                    { "stat": { "path": at("a/link"), "follow": true } },
                    { "remove": { "path": at("b"), "recursive": false } },
                    { "remove": { "path": at("b"), "recursive": true } },
                    { "remove": { "path": at("a/link"), "recursive": false } },
                    { "list": { "path": at("a") } },
                ]),
            )
            .await;
        let is = |index: usize, wanted: Value| assert_eq!(done[index], wanted, "{root} step {index}: {done:#?}");
        let fails = |index: usize, wanted: &str| assert_eq!(error(&done[index]), wanted, "{root} step {index}");
        is(0, Value::Null);
        is(1, json!(blake3::hash(b"first").to_hex().as_str()));
        is(2, json!(blake3::hash(b"second").to_hex().as_str()));
        fails(3, "Changed");
        fails(4, "Exists");
        is(5, json!("second"));
        is(8, json!("second-more"));
        is(10, json!(blake3::hash(b"sec").to_hex().as_str()));
        is(12, json!("../a/one"));
        is(13, json!("sec"));
        is(15, Value::Null);
        assert_eq!(done[18]["mode"], 0o700, "{root}: {done:#?}");
        assert_eq!(done[18]["modified_ms"], 1_234_567_890_123_u64, "{root}");
        assert_eq!(done[19]["kind"], "link");
        fails(20, "NotFound");
        fails(21, "NotEmpty");
        is(22, Value::Null);
        assert_eq!(done[24].as_array().unwrap().len(), 1, "{root}: {}", done[24]);
        assert_eq!(done[24][0][0], "new");
    }
    assert!(!office.lower("a").exists() && !office.lower("b").exists());
    let names = office.step("ada", json!({ "list": { "path": "workspace://" } })).await;
    let names: Vec<(&str, bool)> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e[0].as_str().unwrap(), e[1]["changed"].as_bool().unwrap()))
        .collect();
    assert_eq!(names, [("README", false), ("a", true), ("src", false)]);
    // A file of the directory is written, in the overlay, with what it was else.
    let written = office
        .steps(
            "ada",
            json!([
                { "write": { "path": "workspace://src/main.rs", "offset": 0, "text": "FN" } },
                { "read": { "path": "workspace://src/main.rs" } },
                { "stat": { "path": "workspace://src/main.rs", "follow": true } },
                { "remove": { "path": "workspace://README", "recursive": false } },
                { "read": { "path": "workspace://README" } },
            ]),
        )
        .await;
    assert_eq!(written[1], "FN main() {}\n");
    assert_eq!(
        (&written[2]["mode"], &written[2]["changed"]),
        (&json!(0o755), &json!(true))
    );
    assert_eq!(error(&written[4]), "NotFound");
    assert_eq!(
        fs::read_to_string(office.lower("src/main.rs")).unwrap(),
        "fn main() {}\n"
    );
    assert!(office.lower("README").exists());
}

/// Nobody reads or writes what nothing grants, by whatever name; and who may not is not told what is there.
#[tokio::test]
async fn who_may_what() {
    let office = Office::open(&[
        ("nobody", profile(&[], &[])),
        (
            "reader",
            profile(&["fs.read:/workspace/>"], &["fs.read:/workspace/secret/>"]),
        ),
        (
            "writer",
            profile(&["fs.read:/workspace/>", "fs.write:/workspace/src/>"], &[]),
        ),
        (
            "mover",
            profile(
                &["fs.read:/workspace/>", "fs.write:/workspace/>"],
                &["fs.read:/workspace/secret/key"],
            ),
        ),
        ("ada", everything()),
    ])
    .await;
    fs::create_dir(office.lower("secret")).unwrap();
    fs::write(office.lower("secret/key"), "hidden").unwrap();
    symlink("secret/key", office.lower("alias")).unwrap();
    for (step, who, may) in [
        (json!({ "read": { "path": "workspace://README" } }), "nobody", false),
        (json!({ "read": { "path": "workspace://missing" } }), "nobody", false),
        (json!({ "list": { "path": "workspace://" } }), "nobody", false),
        (
            json!({ "replace": { "path": "home://x", "text": "" } }),
            "nobody",
            false,
        ),
        (json!({ "watch": { "path": "workspace://" } }), "nobody", false),
        (json!({ "read": { "path": "workspace://README" } }), "reader", true),
        (json!({ "list": { "path": "workspace://" } }), "reader", true),
        (json!({ "list": { "path": "workspace://secret" } }), "reader", false),
        (json!({ "read": { "path": "workspace://secret/key" } }), "reader", false),
        (
            json!({ "read": { "path": "workspace://secret/missing" } }),
            "reader",
            false,
        ),
        // By another name it is the same.
        (json!({ "read": { "path": "workspace://alias" } }), "reader", false),
        (json!({ "hash": { "path": "workspace://alias" } }), "reader", false),
        (json!({ "read-link": { "path": "workspace://alias" } }), "reader", true),
        (
            json!({ "replace": { "path": "workspace://README", "text": "" } }),
            "reader",
            false,
        ),
        (json!({ "read": { "path": "home://x" } }), "reader", false),
        (
            json!({ "replace": { "path": "workspace://src/x", "text": "" } }),
            "writer",
            true,
        ),
        (
            json!({ "replace": { "path": "workspace://alias", "text": "" } }),
            "writer",
            false,
        ),
        (
            json!({ "rename": { "path": "workspace://src/x", "to": "workspace://x", "overwrite": true } }),
            "writer",
            false,
        ),
        (
            json!({ "rename": { "path": "workspace://src/x", "to": "workspace://src/y", "overwrite": true } }),
            "writer",
            true,
        ),
        // Under another name it would be readable: of what may not be read, no other name is given. Below a directory as well.
        (
            json!({ "rename": { "path": "workspace://secret/key", "to": "workspace://open", "overwrite": false } }),
            "mover",
            false,
        ),
        (
            json!({ "rename": { "path": "workspace://secret", "to": "workspace://open", "overwrite": false } }),
            "mover",
            false,
        ),
        (
            json!({ "rename": { "path": "workspace://alias", "to": "workspace://other", "overwrite": false } }),
            "mover",
            true,
        ),
        (json!({ "read": { "path": "workspace://other" } }), "mover", false),
        (
            json!({ "remove": { "path": "workspace://src", "recursive": true } }),
            "writer",
            false,
        ),
        (
            json!({ "remove": { "path": "workspace://src/deep", "recursive": true } }),
            "writer",
            true,
        ),
        (
            json!({ "make-dir": { "path": "workspace://src/a/b", "parents": true } }),
            "writer",
            true,
        ),
        (
            json!({ "make-dir": { "path": "workspace://a", "parents": true } }),
            "writer",
            false,
        ),
    ] {
        let done = office.step(who, step.clone()).await;
        let denied = done["error"].as_str().is_some_and(|error| error.starts_with("Denied"));
        assert_eq!(denied, !may, "{step} by {who}: {done}");
        if denied {
            let text = done["text"].as_str().unwrap();
            assert!(text.contains("may not fs.") && text.contains(who), "{text}");
        }
    }
    // Roots are one's own.
    let _ = office
        .step("ada", json!({ "replace": { "path": "home://mine", "text": "m" } }))
        .await;
    assert!(office.home_of("ada").join("mine").exists() && !office.home_of("reader").join("mine").exists());
}

/// Nothing leads out of a root, and what is no file is not opened.
#[tokio::test]
async fn nothing_leads_out() {
    let office = Office::usual().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let home = office.home_of("ada");
    // The home is there once something was done in it.
    let _ = office
        .step("ada", json!({ "replace": { "path": "home://x", "text": "x" } }))
        .await;
    for place in [office.project.path(), &home] {
        symlink(outside.path(), place.join("out")).unwrap();
        symlink(outside.path().join("secret"), place.join("file-out")).unwrap();
        symlink("../../../../../../../../etc", place.join("up")).unwrap();
        symlink("loop", place.join("loop")).unwrap();
        symlink("/proc/self/root", place.join("proc")).unwrap();
        symlink("out", place.join("twice")).unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(place.join("fifo"))
            .status()
            .unwrap();
        assert!(made.success() && fs::metadata(place.join("fifo")).unwrap().file_type().is_fifo());
        drop(std::os::unix::net::UnixListener::bind(place.join("socket")).unwrap());
    }
    for root in ["workspace://", "home://"] {
        for path in [
            "out/secret",
            "file-out",
            "up/passwd",
            "loop",
            "proc/etc/passwd",
            "twice/secret",
            "out",
            "up",
            "fifo",
            "socket",
            "../x",
            "..",
            "./x",
            "/etc/passwd",
            "a//b",
            "a\u{0}b",
            "a\nb",
            "con/../../etc",
            "x/passwd",
            "~/x",
            "%2e%2e/x",
        ] {
            let at = format!("{root}{path}");
            let steps = json!([
                { "read": { "path": at } },
                { "hash": { "path": at } },
                { "list": { "path": at } },
                { "write": { "path": at, "offset": 0, "text": "evil" } },
                { "cut": { "path": at, "length": 0 } },
            ]);
            for (index, done) in office.steps("ada", steps).await.iter().enumerate() {
                // A name that is only odd is made when it is written.
                let made = index >= 3 && matches!(path, "~/x" | "%2e%2e/x");
                assert!(done["error"].is_string() || made, "{at}, step {index}: {done}");
            }
        }
        let long = format!("{root}{}", "a/".repeat(2000) + "b");
        let name = format!("{root}{}", "n".repeat(256));
        for path in [long, name] {
            let done = office.step("ada", json!({ "read": { "path": path } })).await;
            assert!(error(&done).starts_with("Invalid"), "{done}");
        }
    }
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "outside");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // What is a link, a fifo or a socket can be seen and removed.
    for (name, kind) in [("out", "link"), ("fifo", "other"), ("socket", "other")] {
        let at = format!("home://{name}");
        let done = office
            .steps(
                "ada",
                json!([{ "stat": { "path": at, "follow": false } }, { "remove": { "path": at, "recursive": false } }]),
            )
            .await;
        assert_eq!((&done[0]["kind"], &done[1]), (&json!(kind), &Value::Null), "{name}");
    }
    assert!(outside.path().join("secret").exists());
}

/// Handles are few, end with the handling, and are never another file's afterwards.
#[tokio::test]
async fn handles_end_with_the_handling() {
    let office = Office::usual().await;
    let done = office
        .steps(
            "ada",
            json!([
                { "open-many": { "path": "workspace://README", "count": 64 } },
                { "open-many": { "path": "workspace://README", "count": 65 } },
                { "keep": { "path": "workspace://README" } },
                "use-kept",
            ]),
        )
        .await;
    assert_eq!(done[0], 64);
    assert_eq!(error(&done[1]), "TooMany(64)");
    assert_eq!(done[3], 8);
    let done = office
        .steps(
            "ada",
            json!([{ "open-many": { "path": "workspace://src/main.rs", "count": 10 } }, "use-kept"]),
        )
        .await;
    assert_eq!(error(&done[1]), "Closed");
}

/// K13: each change is in the log, with the hash of what was written, also when the handling gives up afterwards; for those are not undone.
#[tokio::test]
async fn changes_are_recorded() {
    let office = Office::usual().await;
    let hash = blake3::hash(b"text").to_hex().to_string();
    let steps = json!([
        { "replace": { "path": "workspace://a", "text": "text" } },
        { "write": { "path": "workspace://README", "offset": 2, "text": "xyz" } },
        { "remove": { "path": "workspace://src", "recursive": true } },
        { "remove": { "path": "workspace://nothing", "recursive": false } },
        { "rename": { "path": "workspace://a", "to": "workspace://b", "overwrite": false } },
        { "rename": { "path": "workspace://missing", "to": "workspace://c", "overwrite": false } },
    ]);
    let mut steps = steps.as_array().unwrap().clone();
    let _ = office.steps("ada", json!(steps)).await;
    assert_eq!(
        office.recorded("fs.replace"),
        [("/workspace/a".into(), format!("bytes=4 blake3={hash}"))]
    );
    let mut writes = blake3::Hasher::new();
    writes
        .update(&2_u64.to_le_bytes())
        .update(&3_u64.to_le_bytes())
        .update(b"xyz");
    let detail = format!("writes=1 bytes=3 blake3-of-writes={}", writes.finalize().to_hex());
    assert_eq!(office.recorded("fs.written"), [("/workspace/README".into(), detail)]);
    assert_eq!(
        office.recorded("fs.remove"),
        [("/workspace/src".into(), "recursive".into())]
    );
    assert_eq!(
        office.recorded("fs.rename"),
        [("/workspace/a".into(), "to /workspace/b".into())]
    );
    steps = vec![
        json!({ "replace": { "path": "workspace://z", "text": "text" } }),
        json!("panic"),
    ];
    let done = office
        .bed
        .ask_as("ada", "clerk.v1.do.steps", Body::json(&json!(steps)))
        .await;
    assert!(refusal(done).starts_with("capsule.fault"));
    assert_eq!(office.recorded("fs.replace").len(), 2);
    assert_eq!(
        office.step("ada", json!({ "read": { "path": "workspace://z" } })).await,
        "text"
    );
}

/// K12: what files take counts, what does not fit is not written, and what is removed makes room.
#[tokio::test]
async fn storage_is_limited() {
    let office = Office::open(&[("ada", everything()), ("bob", everything())]).await;
    let quota = Quota {
        storage: Some("1MiB".parse().unwrap()),
        ..Quota::default()
    };
    office
        .bed
        .host
        .ledger
        .set_quota(&Principal::stamped("ada").unwrap(), &quota);
    let fill = |path: &str, bytes: u64| json!([{ "fill": { "path": path, "bytes": bytes } }]);
    for root in ["home://", "tmp://", "workspace://"] {
        let first = office.steps("ada", fill(&format!("{root}half"), 600 << 10)).await;
        assert_eq!(first[0], 600 << 10, "{root}");
        let second = office.steps("ada", fill(&format!("{root}more"), 600 << 10)).await;
        assert!(error(&second[0]).starts_with("NoSpace"), "{root}: {}", second[0]);
        let removed = json!([
            { "remove": { "path": format!("{root}half"), "recursive": false } },
            { "remove": { "path": format!("{root}more"), "recursive": false } },
        ]);
        let _ = office.steps("ada", removed).await;
    }
    // All three count together, and so does what is copied.
    fs::write(office.lower("large"), vec![7; 2 << 20]).unwrap();
    let copied = office
        .step(
            "ada",
            json!({ "write": { "path": "workspace://large", "offset": 0, "text": "x" } }),
        )
        .await;
    assert!(error(&copied).starts_with("NoSpace"), "{copied}");
    let replaced = office
        .step(
            "ada",
            json!({ "replace": { "path": "workspace://large", "text": "small" } }),
        )
        .await;
    assert!(replaced.is_string(), "{replaced}");
    let others = office.steps("bob", fill("home://x", 3 << 20)).await;
    assert_eq!(others[0], 3 << 20);
}

/// What is read in parts and as a whole is the same, whatever its size.
#[tokio::test]
async fn files_of_any_size() {
    let office = Office::usual().await;
    let bytes: u64 = 40 << 20;
    let done = office
        .steps(
            "ada",
            json!([
                { "fill": { "path": "workspace://large", "bytes": bytes } },
                { "pour": { "path": "workspace://large", "part": 1 << 20 } },
                { "pour": { "path": "workspace://large", "part": 10_000 } },
                { "pour": { "path": "workspace://large", "part": (1 << 20) + 1 } },
                { "read": { "path": "workspace://large" } },
            ]),
        )
        .await;
    assert_eq!(
        (&done[0], &done[1], &done[2]),
        (&json!(bytes), &json!(bytes), &json!(bytes))
    );
    assert_eq!(error(&done[3]), "TooLarge(1048576)");
    assert!(error(&done[4]).starts_with("TooLarge"));
}

async fn next(inbox: &Arc<Inbox>) -> (String, Value) {
    let delivery = tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().unwrap();
    let body = serde_json::from_slice(&delivery.message.body.bytes).unwrap();
    (
        delivery.message.topic.as_str().rsplit('.').next().unwrap().to_owned(),
        body,
    )
}

/// What changes is told, whoever changes it; not when it is not watched any more.
#[tokio::test]
async fn changes_are_told() {
    let office = Office::usual().await;
    let (events, _heard) = office.bed.hear("clerk.v1.event.>");
    let port = office
        .step("ada", json!({ "watch": { "path": "workspace://src" } }))
        .await;
    let port = port.as_u64().unwrap();
    // In the overlay, and in the directory itself.
    let _ = office
        .step(
            "ada",
            json!({ "replace": { "path": "workspace://src/new", "text": "x" } }),
        )
        .await;
    let (kind, body) = next(&events).await;
    assert_eq!(
        (kind.as_str(), &body["paths"]),
        ("changed", &json!(["workspace://src/new"]))
    );
    fs::write(office.lower("src/other"), "y").unwrap();
    loop {
        let (kind, body) = next(&events).await;
        assert_eq!(kind, "changed");
        if body["paths"]
            .as_array()
            .unwrap()
            .contains(&json!("workspace://src/other"))
        {
            break;
        }
    }
    let done = office
        .steps(
            "ada",
            json!([{ "unwatch": { "port": port } }, { "unwatch": { "port": port + 1000 } }]),
        )
        .await;
    assert_eq!(done, [json!(true), json!(false)]);
    // Another watch hears of its end.
    let _ = office.step("ada", json!({ "watch": { "path": "home://" } })).await;
    let _ = office
        .step(
            "ada",
            json!({ "replace": { "path": "workspace://src/third", "text": "x" } }),
        )
        .await;
    fs::remove_dir_all(office.home_of("ada")).unwrap();
    let (kind, _) = next(&events).await;
    assert_eq!(kind, "ended");
    let too_many: Vec<Value> = (0..17)
        .map(|_| json!({ "watch": { "path": "workspace://" } }))
        .collect();
    let done = office.steps("ada", json!(too_many)).await;
    assert_eq!(error(&done[16]), "TooMany(16)");
    assert!(done[15].is_u64());
}

/// A directory with many names is read page by page, and odd names are passed over.
#[tokio::test]
async fn large_directories() {
    let office = Office::usual().await;
    let many = office.lower("many");
    fs::create_dir(&many).unwrap();
    for n in 0..2_500 {
        fs::write(many.join(format!("{n:04}")), "").unwrap();
    }
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    fs::write(many.join(odd), "").unwrap();
    let listed = office
        .step("ada", json!({ "list": { "path": "workspace://many" } }))
        .await;
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry[0].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), 2_500);
    assert!(names.is_sorted());
    assert!(Path::new(&many).exists());
}
