//! `astrid workspace`: a copy of a directory is worked on, looked at, and committed or thrown away, by the built binary.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use astrid_tests::chance::Chance;
use astrid_tests::daemon::Astrid;
use astrid_tests::process::Outcome;
use serde_json::Value;

/// A daemon, and a directory that the owner's workspace is a copy of.
struct Place {
    astrid: Astrid,
    project: PathBuf,
}

type Tree = BTreeMap<PathBuf, String>;

fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let content = fs::read_to_string(&path).unwrap();
                tree.insert(path.strip_prefix(root).unwrap().to_owned(), content);
            }
        }
    }
    tree
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let astrid = Astrid::started();
        let project = astrid.scratch().canonicalize().unwrap().join("project");
        fs::create_dir(&project).unwrap();
        let place = Self { astrid, project };
        for (path, content) in files {
            place.below(path, content);
        }
        place.ok(&["attach", place.project.to_str().unwrap()]);
        place
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.astrid.run(&[&["workspace"], arguments].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok().stdout
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--format", "json"]].concat()).ok().json()
    }

    fn below(&self, path: &str, content: &str) {
        let path = self.project.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn overlay(&self) -> PathBuf {
        self.astrid.home().join("var/overlays/default")
    }

    /// What a program wrote in the workspace.
    fn above(&self, path: &str, content: &str) {
        let path = self.overlay().join("upper").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn gone(&self, path: &str) {
        let path = self.overlay().join("upper").join(path);
        let made = Command::new("mknod").arg(&path).args(["c", "0", "0"]).status().unwrap();
        assert!(made.success() && fs::symlink_metadata(path).unwrap().file_type().is_char_device());
    }

    /// As if it had been used from now on.
    fn used(&self) {
        let path = self.overlay().join("overlay.json");
        let mut meta: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let clock = self.astrid.scratch().join("clock");
        fs::write(&clock, "").unwrap();
        let stat = fs::metadata(&clock).unwrap();
        let since = stat.ctime() * 1_000_000_000 + stat.ctime_nsec();
        meta["since_ns"] = since.into();
        fs::write(path, meta.to_string()).unwrap();
        // What is written from here on is later.
        while fs::metadata(&clock).unwrap().ctime_nsec() == stat.ctime_nsec() {
            fs::write(&clock, "").unwrap();
        }
        let _ = self.astrid.run(&["restart"]).ok();
    }

    fn names(&self) -> Vec<String> {
        self.ok(&["diff", "--names"]).lines().map(str::to_owned).collect()
    }
}

/// The directory stays as it is until what was written over it is committed; the diff is a patch that git takes.
#[test]
fn a_copy_is_looked_at_and_committed() {
    let place = Place::new(&[("a.txt", "one\ntwo\nthree\n"), ("dir/b", "b\n"), ("old", "old\n")]);
    let old = tree(&place.project);
    place.above("a.txt", "one\n2\nthree\n");
    place.above("dir/new", "new\n");
    place.above("bin", "a\0b");
    place.gone("old");
    assert_eq!(place.names(), ["M a.txt", "A bin", "A dir/new", "R old"]);
    assert_eq!(tree(&place.project), old);
    let patch = place.ok(&["diff", "default", "a.txt", "dir", "old"]);
    assert!(patch.contains("@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"), "{patch}");
    let copy = place.astrid.scratch().join("copy");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(&place.project)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    fs::write(place.astrid.scratch().join("patch"), &patch).unwrap();
    let git = Command::new("git")
        .current_dir(&copy)
        .args(["apply", "../patch"])
        .output()
        .unwrap();
    assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
    let stat = place.ok(&["diff", "--stat"]);
    assert!(
        stat.ends_with("4 paths, +2 -2 lines\n") && stat.contains("bin | binary, 0 -> 3 bytes\n"),
        "{stat}"
    );
    let lines = place.ok(&["diff", "--format", "json"]);
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["path"], &first["how"]), (&"a.txt".into(), &"modified".into()));
    assert_eq!(
        first["after"]["hash"],
        blake3::hash(b"one\n2\nthree\n").to_hex().as_str()
    );
    let committed = place.json(&["commit", "--yes", "default", "a.txt", "dir", "old"]);
    assert_eq!(
        committed["changes"],
        serde_json::json!({ "added": 1, "modified": 1, "removed": 1 })
    );
    assert_eq!(tree(&place.project), tree(&copy));
    assert_eq!(place.names(), ["A bin"]);
    place.ok(&["commit", "--yes"]);
    assert_eq!(place.names(), Vec::<String>::new());
    assert_eq!(fs::read(place.project.join("bin")).unwrap(), b"a\0b");
}

/// K13: a commit is in the log, with each path, its hash, and a digest over all of it.
#[test]
fn a_commit_is_recorded() {
    let place = Place::new(&[]);
    place.above("a", "content\n");
    let committed = place.json(&["commit", "--yes"]);
    // What is sealed has what was said before it on disk as well.
    let _ = place.astrid.run(&["agent", "create", "later"]).ok();
    let entries = |kind| {
        let entries = place
            .astrid
            .run(&["audit", "tail", "--kind", kind, "--format", "json"])
            .ok()
            .json();
        entries["entries"].as_array().unwrap().clone()
    };
    let written = entries("file-write");
    assert_eq!(written[0]["resource"], "default: a");
    let hash = blake3::hash(b"content\n").to_hex();
    assert_eq!(written[0]["detail"], format!("BLAKE3 {hash}"));
    let digest = committed["digest"].as_str().unwrap();
    let told = |entry: &Value| entry["detail"].as_str().unwrap().contains(digest);
    assert!(entries("outcome").iter().any(told));
    assert!(
        entries("admin")
            .iter()
            .any(|entry| entry["action"] == "admin:workspace.commit")
    );
}

/// What changed meanwhile is named, all of it, and nothing is written until that is forced.
#[test]
fn conflicts_stop_a_commit() {
    let place = Place::new(&[("a", "a\n"), ("b", "b\n"), ("c", "c\n")]);
    place.used();
    for path in ["a", "b", "c", "d"] {
        place.above(path, "mine\n");
    }
    place.below("a", "theirs\n");
    place.below("d", "theirs\n");
    // The same as what would be written.
    place.below("c", "mine\n");
    let old = tree(&place.project);
    let refused = place.run(&["commit", "--yes"]);
    assert_eq!(refused.code(), 1, "{refused:?}");
    assert_eq!(
        refused.stdout,
        "a: it was changed meanwhile\nd: it was changed meanwhile\n"
    );
    assert!(
        refused.stderr.contains("2 paths changed") && refused.stderr.contains("hint: "),
        "{refused:?}"
    );
    let refused = place.run(&["commit", "--yes", "--format", "json"]);
    assert_eq!(refused.json()["conflicts"].as_array().unwrap().len(), 2);
    assert_eq!(refused.json_error()["error"]["problem"], "conflict");
    assert_eq!(tree(&place.project), old);
    place.ok(&["commit", "--yes", "default", "b"]);
    assert_eq!(fs::read_to_string(place.project.join("b")).unwrap(), "mine\n");
    assert_eq!(place.run(&["commit", "--yes"]).code(), 1);
    place.ok(&["commit", "--yes", "--force"]);
    assert!(tree(&place.project).values().all(|content| content == "mine\n"));
}

/// What was written is thrown away, all or in part, and states are kept and gone back to.
#[test]
fn changes_are_thrown_away() {
    let place = Place::new(&[("a", "a\n"), ("d/b", "b\n")]);
    let old = tree(&place.project);
    place.above("a", "mine\n");
    place.above("d/b", "mine\n");
    place.above("new", "mine\n");
    place.ok(&["snapshot", "one"]);
    place.ok(&["rollback", "--yes", "default", "d/b", "new"]);
    assert_eq!(place.names(), ["M a"]);
    place.ok(&["rollback", "--yes"]);
    assert_eq!(place.names(), Vec::<String>::new());
    place.ok(&["rollback", "--yes", "--to", "one"]);
    assert_eq!(place.names(), ["M a", "M d/b", "A new"]);
    let list = place.json(&["list"]);
    let workspace = &list["workspaces"][0];
    assert_eq!(workspace["directory"], place.project.to_str().unwrap());
    assert_eq!(
        workspace["changes"],
        serde_json::json!({ "added": 1, "modified": 2, "removed": 0 })
    );
    assert_eq!(workspace["snapshots"][0]["name"], "one");
    assert!(place.ok(&["list"]).contains("snapshot of default: one"));
    place.ok(&["snapshot", "--remove", "one"]);
    assert_eq!(place.run(&["rollback", "--yes", "--to", "one"]).code(), 1);
    assert_eq!(tree(&place.project), old);
    // Without a terminal nobody is asked.
    assert_eq!(place.run(&["rollback"]).code(), 2);
    assert_eq!(place.run(&["commit"]).code(), 2);
    for path in ["../x", "/etc/passwd", "a//b"] {
        assert_eq!(place.run(&["diff", "default", path]).code(), 1, "{path}");
    }
}

/// Paths are named as people and shells write them; one that is no change is told, and what a mode gives as well.
#[test]
fn paths_and_modes_are_told() {
    let place = Place::new(&[("dir/a", "a\n"), ("b", "b\n")]);
    place.above("dir/a", "mine\n");
    place.above("run", "#!/bin/sh\n");
    let run = place.overlay().join("upper/run");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    set_mode(&run, 0o4755);
    for path in ["dir", "dir/", "./dir", "./dir/"] {
        assert_eq!(place.ok(&["diff", "--names", "default", path]), "M dir/a\n", "{path}");
    }
    let missing = place.run(&["commit", "--yes", "default", "dir/a", "typo"]);
    assert!(
        missing.code() == 1 && missing.stderr.contains("typo is no change"),
        "{missing:?}"
    );
    assert_eq!(fs::read_to_string(place.project.join("dir/a")).unwrap(), "a\n");
    assert!(place.ok(&["diff", "--names"]).contains("A run  (set-user-id)\n"));
    assert!(place.ok(&["diff"]).contains("# mode 4755 (set-user-id): run\n"));
    let committed = place.run(&["commit", "--yes"]).ok();
    assert!(
        committed
            .stderr
            .contains("run: its bits are committed only with --force: set-user-id"),
        "{committed:?}"
    );
    assert_eq!(fs::metadata(place.project.join("run")).unwrap().mode() & 0o7777, 0o755);
    // A program's way to be in the way: what it closes, and what it nests.
    let mut deep = place.overlay().join("upper");
    for _ in 0..300 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    place.above("b", "mine\n");
    set_mode(&place.overlay().join("upper/b"), 0);
    place.ok(&["commit", "--yes", "default", "b"]);
    assert_eq!(fs::metadata(place.project.join("b")).unwrap().mode() & 0o7777, 0);
    let committed = place.json(&["commit", "--yes"]);
    assert_eq!(committed["left_out"].as_array().unwrap().len(), 1);
    place.ok(&["rollback", "--yes"]);
    assert_eq!(place.names(), Vec::<String>::new());
}

/// K9: a directory of the host is given by who holds everything, and neither all of the host nor the daemon's own.
#[test]
fn a_directory_is_given_by_who_holds_everything() {
    let place = Place::new(&[]);
    let astrid = &place.astrid;
    let _ = astrid
        .run(&["agent", "create", "ann", "--grant", "admin:workspace.attach"])
        .ok();
    let home = astrid.home().to_str().unwrap();
    let around = astrid.home().parent().unwrap().to_str().unwrap();
    for directory in ["/", home, around, "/etc/passwd", "/nonexistent", &format!("{home}/etc")] {
        let refused = place.run(&["attach", directory, "ann"]);
        assert_eq!(refused.code(), 1, "{directory}: {refused:?}");
    }
    let missing = place.run(&["diff", "ann"]);
    assert!(
        missing.code() == 1 && missing.stderr.contains("ann has no workspace"),
        "{missing:?}"
    );
    place.ok(&["attach", place.project.to_str().unwrap(), "ann"]);
    assert_eq!(
        place.run(&["attach", place.project.to_str().unwrap(), "nobody"]).code(),
        1
    );
    let shown = astrid.run(&["agent", "list", "--format", "json"]).ok().json();
    let ann = &shown["agents"][0];
    assert_eq!(
        (&ann["name"], &ann["workspace"]),
        (&"ann".into(), &place.project.to_str().unwrap().into())
    );
    let profile = fs::read_to_string(astrid.home().join("etc/profiles/ann.toml")).unwrap();
    assert!(
        profile.contains(&format!("workspace = \"{}\"", place.project.display())),
        "{profile}"
    );
    // What was not committed is not lost by accident.
    fs::write(astrid.home().join("var/overlays/ann/upper/x"), "x").unwrap();
    assert_eq!(place.run(&["detach", "ann"]).code(), 1);
    place.ok(&["detach", "--force", "ann"]);
    assert!(!astrid.home().join("var/overlays/ann").exists());
    // Who is deleted leaves nothing, and the directory is as it was.
    place.ok(&["attach", place.project.to_str().unwrap(), "ann"]);
    let _ = astrid.run(&["agent", "delete", "ann", "--yes"]).ok();
    assert!(!astrid.home().join("var/overlays/ann").exists() && place.project.is_dir());
}

/// What was not committed is not lost while the directory is elsewhere, or something else is in its place; and that is not touched.
#[test]
fn a_directory_that_is_gone_loses_nothing() {
    let place = Place::new(&[("notes", "one\n")]);
    place.above("notes", "two\n");
    place.ok(&["snapshot", "keep"]);
    let project = &place.project;
    let beside = |name: &str| project.with_file_name(name);
    let (moved, other) = (beside("moved"), beside("other"));
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "theirs\n").unwrap();
    let nothing_happens = |what: &str| {
        let attach = ["attach", other.to_str().unwrap()];
        for arguments in [&["diff"][..], &["commit", "--yes"], &["detach"], &attach] {
            let told = place.run(arguments);
            let named = told.stderr.contains(project.to_str().unwrap()) && !told.stderr.contains("no workspace");
            assert!(told.code() == 1 && named, "{what}: {arguments:?}: {told:?}");
        }
        assert_eq!(fs::read_to_string(other.join("notes")).unwrap(), "theirs\n", "{what}");
    };
    fs::rename(project, &moved).unwrap();
    nothing_happens("gone");
    std::os::unix::fs::symlink(&other, project).unwrap();
    nothing_happens("a link");
    fs::remove_file(project).unwrap();
    fs::create_dir(project).unwrap();
    nothing_happens("another directory");
    assert_eq!(tree(project), Tree::new());
    fs::remove_dir(project).unwrap();
    fs::rename(&moved, project).unwrap();
    assert!(place.ok(&["list"]).contains("keep"));
    place.ok(&["commit", "--yes"]);
    assert_eq!(fs::read_to_string(project.join("notes")).unwrap(), "two\n");
}

/// Killed while it commits, at random moments: after the next start the directory is as it was, or as it should be, and nothing is left over.
#[test]
fn a_commit_that_is_killed_is_whole_or_never_was() {
    const FILES: usize = 150;
    let mut chance = Chance(11);
    let place = Place::new(&[]);
    let mut content = BTreeMap::new();
    for number in 0..FILES {
        place.below(&format!("d{}/{number}", number % 7), "0\n");
    }
    let (mut whole, mut never) = (0, 0);
    for round in 1..=8 {
        for number in 0..FILES {
            let path = format!("d{}/{number}", number % 7);
            place.above(&path, &format!("{round}\n"));
            content.insert(PathBuf::from(path), format!("{round}\n"));
        }
        let old = tree(&place.project);
        let pid = rustix::process::Pid::from_raw(place.astrid.pid().cast_signed()).unwrap();
        let mut commit = place.astrid.command(&["workspace", "commit", "--yes"]);
        let mut commit = commit
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let plan = place.overlay().join("journal/plan");
        while !plan.exists() && commit.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        for _ in 0..chance.below(3000) {
            let _ = plan.exists();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let _ = commit.wait().unwrap();
        let _ = place.astrid.run(&["start"]).ok();
        let now = tree(&place.project);
        if now == old {
            never += 1;
            assert_eq!(place.names().len(), FILES);
        } else {
            whole += 1;
            assert_eq!(now, content, "round {round}");
            assert_eq!(place.names(), Vec::<String>::new());
        }
        assert!(!place.overlay().join("journal").exists());
    }
    assert!(whole + never == 8, "{whole} whole, {never} never");
}
