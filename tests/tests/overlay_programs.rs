//! Real programs in a workspace: they work as in any directory, the directory that is attached stays as it is until it is committed, and what
//! they did is then in it. Where a machine has no such program, that is said.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use astrid_tests::daemon::Astrid;
use astrid_tests::herd::kill;
use astrid_tests::process::Outcome;
use astrid_tests::programs::becomes;

/// A daemon, and a directory that is attached for the owner.
struct Desk {
    astrid: Astrid,
    project: PathBuf,
}

/// All files, links and directories below one, but what git keeps for itself.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let content = if kind.is_dir() {
                pending.push(path.clone());
                Vec::new()
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), content);
        }
    }
    found
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let there = found.is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("not tried: this machine has no {program}");
    }
    there
}

impl Desk {
    fn new() -> Self {
        let astrid = Astrid::started();
        let project = astrid.scratch().canonicalize().unwrap().join("project");
        fs::create_dir(&project).unwrap();
        let desk = Self { astrid, project };
        let _ = desk.workspace(&["attach", desk.project.to_str().unwrap()]).ok();
        desk
    }

    fn workspace(&self, arguments: &[&str]) -> Outcome {
        self.astrid.run(&[&["workspace"], arguments].concat())
    }

    fn run(&self, name: &str, options: &[&str], script: &str) -> Outcome {
        let head = ["process", "run", name, "--restart", "never"];
        self.astrid
            .run(&[&head[..], options, &["--", "sh", "-euc", script]].concat())
    }

    /// Runs a script in the workspace to its end. Its code, and what it wrote.
    #[track_caller]
    fn does(&self, name: &str, options: &[&str], script: &str) -> (i64, String) {
        let overlay: &[&str] = if options.contains(&"--workspace") {
            &[]
        } else {
            &["--workspace", "overlay"]
        };
        let _ = self.run(name, &[overlay, options].concat(), script).ok();
        let ended = becomes(&self.astrid, name, |instance| instance["pid"].is_null());
        let log = self.log(name);
        (ended["code"].as_i64().unwrap_or_else(|| panic!("{ended}\n{log}")), log)
    }

    #[track_caller]
    fn works(&self, name: &str, options: &[&str], script: &str) -> String {
        let (code, log) = self.does(name, options, script);
        assert_eq!(code, 0, "{log}");
        log
    }

    /// What a program wrote, without its name before each line.
    fn log(&self, name: &str) -> String {
        let log = self.astrid.run(&["process", "logs", name, "-n", "1000"]).ok().stdout;
        let lines = log
            .lines()
            .map(|line| line.split_once(" | ").map_or(line, |(_, said)| said));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// `git`, `sqlite3`, `cargo` and `npm` work, nothing of it is in the directory before it is committed, and then all of it is.
#[test]
fn programs_that_people_run() {
    let desk = Desk::new();
    fs::write(desk.project.join("seed.txt"), "seed\n").unwrap();
    let before = tree(&desk.project);
    let git = "export HOME=/tmp GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n";
    if is_there("git") {
        let script = format!(
            "{git} git init -q -b main origin; cd origin; echo one > a; git add a; git commit -qm one; git checkout -qb side; echo two > b; git add b; \
             git commit -qm two; git checkout -q main; echo three >> a; git commit -qam three; cd ..; git clone -q origin copy; cd copy; \
             git checkout -q side; git rebase -q origin/main; git log --oneline | wc -l; git status --porcelain; git gc -q"
        );
        assert_eq!(desk.works("git", &["--sandbox", "project"], &script).trim(), "3");
    }
    if is_there("sqlite3") {
        let script = "for n in 1 2 3; do sqlite3 data.db 'pragma journal_mode=wal; create table if not exists t(n); insert into t values('$n');' ; done; \
                      sqlite3 data.db 'select count(*) from t; pragma integrity_check;'";
        let log = desk.works("sqlite", &["--sandbox", "sealed"], script);
        assert!(log.trim_end().ends_with("3\nok"), "{log}");
    }
    if is_there("cargo") {
        let cargo = std::env::var("CARGO_HOME").unwrap_or_default();
        let rustup = std::env::var("RUSTUP_HOME").unwrap_or_default();
        let script = "cargo new -q --vcs none made; cd made; CARGO_TARGET_DIR=target cargo build -q --offline; ./target/debug/made";
        let environment = [format!("CARGO_HOME={cargo}"), format!("RUSTUP_HOME={rustup}")];
        let mut options = vec!["--sandbox", "project", "--network", "none"];
        for (variable, value) in environment.iter().zip([&cargo, &rustup]) {
            if !value.is_empty() {
                options.extend(["--env", variable]);
            }
        }
        // What cargo keeps for itself goes where it may write.
        options.extend(["--write", "/tmp"]);
        let log = desk.works("cargo", &options, script);
        assert!(log.contains("Hello, world!"), "{log}");
    }
    if is_there("npm") {
        let script = "export HOME=/tmp npm_config_cache=/tmp/npm npm_config_update_notifier=false; mkdir -p dep app; echo '{\"name\":\"dep\",\"version\":\"1.0.0\",\"main\":\"i.js\"}' > dep/package.json; \
                      echo 'module.exports = 42' > dep/i.js; cd app; echo '{\"name\":\"app\",\"version\":\"1.0.0\"}' > package.json; \
                      npm install --offline --no-audit --no-fund ../dep >/dev/null; node -p 'require(\"dep\")'";
        let log = desk.works("npm", &["--sandbox", "project"], script);
        assert_eq!(log.trim(), "42");
    }
    assert_eq!(tree(&desk.project), before, "the directory stays as it is");
    let _ = desk.workspace(&["commit", "--yes"]).ok();
    assert_ne!(tree(&desk.project), before);
    if is_there("git") {
        let log = Command::new("git")
            .args(["-C"])
            .arg(desk.project.join("copy"))
            .args(["fsck", "--strict"])
            .output()
            .unwrap();
        assert!(log.status.success(), "{log:?}");
    }
    if is_there("sqlite3") {
        let checked = Command::new("sqlite3")
            .arg(desk.project.join("data.db"))
            .arg("select count(*) from t")
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&checked.stdout).trim(), "3");
    }
    let after = desk.workspace(&["list", "--format", "json"]).ok().json();
    assert!(after.to_string().contains("\"added\":0"), "{after}");
}

/// Programs of one principal see one workspace, and what they write is seen while they run; it is not committed under their hands.
#[test]
fn one_workspace_for_all_of_a_principal() {
    let desk = Desk::new();
    fs::write(desk.project.join("shared"), "from below\n").unwrap();
    let talk = "cat shared; echo first > ready; until [ -e answer ]; do sleep 0.05; done; cat answer";
    let _ = desk
        .run("one", &["--workspace", "overlay", "--sandbox", "project"], talk)
        .ok();
    let (code, log) = desk.does(
        "two",
        &["--sandbox", "project"],
        "until [ -e ready ]; do sleep 0.05; done; cat ready; echo second > answer; rm shared",
    );
    assert_eq!((code, log.trim()), (0, "first"), "{log}");
    let ended = becomes(&desk.astrid, "one", |instance| instance["pid"].is_null());
    assert_eq!(ended["code"], 0);
    let log = desk.log("one");
    assert!(log.contains("from below") && log.contains("second"), "{log}");
    assert!(desk.project.join("shared").exists() && !desk.project.join("answer").exists());
    let busy = ["--workspace", "overlay", "--sandbox", "project"];
    let _ = desk
        .run(
            "three",
            &busy,
            "echo more > more; until [ -e stop ]; do sleep 0.05; done",
        )
        .ok();
    let refused = desk.workspace(&["commit", "--yes"]);
    assert_ne!(refused.code(), 0, "{}", refused.stdout);
    let _ = desk.astrid.run(&["process", "stop", "three"]).ok();
    let _ = desk.workspace(&["commit", "--yes"]).ok();
    assert!(!desk.project.join("shared").exists());
    assert_eq!(fs::read_to_string(desk.project.join("answer")).unwrap(), "second\n");
}

/// What a program wrote before it was thrown away is not there any more for the next.
#[test]
fn thrown_away() {
    let desk = Desk::new();
    fs::write(desk.project.join("keep"), "kept\n").unwrap();
    let _ = desk.works(
        "one",
        &["--sandbox", "project"],
        "echo gone > keep; mkdir new; echo x > new/x",
    );
    let diff = desk.workspace(&["diff"]).ok().stdout;
    assert!(diff.contains("+gone") && diff.contains("b/new/x"), "{diff}");
    let _ = desk.workspace(&["rollback", "--yes"]).ok();
    let log = desk.works("two", &["--sandbox", "project"], "cat keep; ls");
    assert_eq!(log.split_whitespace().collect::<Vec<_>>(), ["kept", "keep"]);
    assert_eq!(fs::read_to_string(desk.project.join("keep")).unwrap(), "kept\n");
}

/// Where nothing can be mounted a program works on a copy: it sees what was changed and not yet committed, nobody else uses the workspace
/// meanwhile, and what it did is in the workspace afterwards; also when the daemon was killed under it.
#[test]
fn in_a_copy() {
    let desk = Desk::new();
    fs::write(desk.project.join("keep"), "kept\n").unwrap();
    fs::write(desk.project.join("gone"), "gone\n").unwrap();
    let _ = desk.works("before", &["--sandbox", "project"], "echo overlay > before");
    for (sandbox, number) in [("none", "1"), ("home", "2"), ("project", "3"), ("sealed", "4")] {
        let options = ["--workspace", "checkout=1MiB", "--sandbox", sandbox];
        let script = format!(
            "cat before; rm -f gone; echo {sandbox} >> keep; mkdir -p d; chmod 750 d; echo {sandbox} > d/{sandbox}; ls d | wc -l"
        );
        let log = desk.works(sandbox, &options, &script);
        assert_eq!(
            log.split_whitespace().collect::<Vec<_>>(),
            ["overlay", number],
            "{sandbox}"
        );
    }
    if is_there("git") {
        let script = "export HOME=$PWD/d GIT_CONFIG_GLOBAL=/dev/null; git init -q .; git add -A; git -c user.name=a -c user.email=a@b commit -qm x; git status --porcelain";
        let options = ["--workspace", "checkout=16MiB", "--sandbox", "project"];
        assert_eq!(desk.works("git", &options, script).trim(), "");
    }
    assert_eq!(
        fs::read_dir(&desk.project).unwrap().count(),
        2,
        "the directory stays as it is"
    );

    let options = ["--workspace", "checkout=10", "--sandbox", "home"];
    let _ = desk.run("small", &options, "true");
    let failed = becomes(&desk.astrid, "small", |instance| instance["state"] == "crashed");
    assert!(failed.to_string().contains("more than 10 bytes"), "{failed}");

    let waits = "echo late > late; echo ready; until [ -e stop ]; do sleep 0.05; done";
    let options = ["--workspace", "checkout=1MiB", "--sandbox", "home"];
    let _ = desk.run("alone", &options, waits).ok();
    let busy = desk.workspace(&["commit", "--yes"]);
    assert!(busy.code() != 0 && busy.stderr.contains("in use"), "{}", busy.stderr);
    for seen in ["checkout=1MiB", "overlay"] {
        let name = &seen[..4];
        let _ = desk.run(name, &["--workspace", seen, "--sandbox", "home"], "true");
        let refused = becomes(&desk.astrid, name, |instance| instance["state"] == "crashed");
        assert!(refused.to_string().contains("in use"), "{refused}");
    }
    let _ = desk.astrid.run(&["process", "stop", "alone"]).ok();
    let diff = desk.workspace(&["diff"]).ok().stdout;
    assert!(diff.contains("+late"), "{diff}");

    let _ = desk.run("killed", &options, &waits.replace("late", "killed")).ok();
    let follow = desk.astrid.spawn(&["process", "logs", "killed", "--follow"]);
    follow.stdout.as_ref().unwrap().wait_for("ready");
    kill(desk.astrid.pid());
    let _ = desk.astrid.run(&["start"]).ok();
    let diff = desk.workspace(&["diff"]).ok().stdout;
    assert!(diff.contains("+killed") && diff.contains("+late"), "{diff}");
    // What was to run runs again.
    let _ = desk.astrid.run(&["process", "stop", "--all"]).ok();
    let _ = desk.workspace(&["commit", "--yes"]).ok();
    let expected = "kept\nnone\nhome\nproject\nsealed\n";
    assert_eq!(fs::read_to_string(desk.project.join("keep")).unwrap(), expected);
    assert!(desk.project.join("d/sealed").exists() && !desk.project.join("gone").exists());
}

/// A program that lies in the workspace is run from it, as it is there; over a link it is not.
#[test]
fn programs_of_the_workspace() {
    let desk = Desk::new();
    fs::write(desk.project.join("tool.sh"), "#!/bin/sh\necho below\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(desk.project.join("tool.sh"), executable).unwrap();
    let script = "sed -i s/below/above/ tool.sh; printf '#!/bin/sh\\necho from inside\\n' > made.sh; chmod 755 made.sh; ln -s /bin/echo link";
    let _ = desk.works("before", &["--sandbox", "project"], script);
    let tool = desk.project.join("tool.sh").display().to_string();
    let link = desk.project.join("link").display().to_string();
    let cases = [
        ("one", "overlay", "workspace://made.sh", "from inside"),
        ("two", "overlay", &tool, "above"),
        ("three", "checkout=1MiB", "workspace://made.sh", "from inside"),
        ("four", "checkout=1MiB", &tool, "above"),
        ("five", "overlay", &link, "over a link"),
        ("six", "overlay", "workspace://../x", "no path within"),
    ];
    for (name, seen, program, says) in cases {
        let options = ["process", "run", name, "--restart", "never", "--sandbox", "project"];
        let outcome = desk
            .astrid
            .run(&[&options[..], &["--workspace", seen, "--", program]].concat());
        let ended = becomes(&desk.astrid, name, |instance| {
            instance["pid"].is_null() && instance["state"] != "starting"
        });
        let said = format!("{} {ended} {}", outcome.stderr, desk.log(name));
        assert!(said.contains(says), "{name}: {said}");
    }
}

/// K12: programs do not store more for their principal than that may, and who is over can still look and stop.
#[test]
fn programs_do_not_store_too_much() {
    let desk = Desk::new();
    let astrid = &desk.astrid;
    let key = astrid.run(&["keypair", "ann"]).ok().stdout;
    let _ = astrid.run(&["agent", "create", "ann", "--key-of", key.trim()]).ok();
    for granted in [
        "child.spawn:/usr/bin/*",
        "child.spawn:/bin/*",
        "document:processes.toml",
    ] {
        let _ = astrid.run(&["caps", "grant", "ann", granted]).ok();
    }
    let project = desk.project.to_str().unwrap();
    let _ = desk.workspace(&["attach", project, "ann"]).ok();
    let _ = astrid.run(&["quota", "set", "ann", "storage=1MiB"]).ok();
    let ann = |arguments: &[&str]| astrid.run(&[&["--principal", "ann"], arguments].concat());
    let fill = "i=0; while :; do head -c 65536 /dev/zero > $i; i=$((i+1)); sleep 0.01; done";
    let run = |name: &str, script: &str, sandbox: &str| {
        let options = ["process", "run", name, "--restart", "never", "--workspace", "overlay"];
        ann(&[&options[..], &["--sandbox", sandbox, "--", "/bin/sh", "-c", script]].concat())
    };
    // A18: how loose a sandbox is, is granted.
    let loose = run("loose", "true", "none");
    let why = format!("{} {}", loose.stderr, ann(&["process", "why", "loose"]).stdout);
    assert!(why.contains("child.sandbox"), "{why}");
    let _ = run("filler", fill, "project").ok();
    let wait = ann(&["process", "why", "filler"]).ok();
    drop(wait);
    let follow = ["watch", "process.v1.event.>"];
    let watch = astrid.spawn(&[&["--principal", "ann"], &follow[..]].concat());
    watch.stderr.as_ref().unwrap().wait_for("watching");
    let ended_for = |name: &str, what: &str| {
        loop {
            let why = ann(&["process", "why", name]).ok().stdout;
            if why.contains(what) {
                break;
            }
            assert!(watch.stdout.as_ref().unwrap().next_line().is_some(), "{why}");
        }
    };
    ended_for("filler", "quota storage");
    let _ = run("again", "true", "project");
    let refused = ann(&["process", "why", "again"]).stdout;
    assert!(refused.contains("stores as much as it may"), "{refused}");
    let listed = ann(&["process", "list"]).ok().stdout;
    assert!(listed.contains("filler"), "{listed}");
    let _ = ann(&["process", "remove", "again"]).ok();
    let others = astrid.run(&["process", "list"]).ok().stdout;
    assert!(
        !others.contains("filler"),
        "definitions are each principal's own: {others}"
    );
    let _ = desk.workspace(&["rollback", "ann", "--yes"]).ok();
    let _ = run("after", "true", "project").ok();
    // Nor by hiding it: in a file without a name, or where it cannot be counted.
    let unnamed = "exec 3>x; rm x; while :; do head -c 65536 /dev/zero >&3; sleep 0.01; done";
    let _ = run("unnamed", unnamed, "project").ok();
    ended_for("unnamed", "more than it may");
    let deep =
        "i=0; while [ $i -lt 600 ]; do mkdir d && cd -P d; i=$((i+1)); done; while :; do echo >> x; sleep 0.1; done";
    let _ = run("deep", deep, "project").ok();
    ended_for("deep", "cannot be counted");
    let _ = desk.workspace(&["rollback", "ann", "--yes"]).ok();
    // What somebody left does not keep it from being deleted, nor end the daemon.
    let left = desk.astrid.home().join("var/tmp/ann");
    fs::create_dir_all(&left).unwrap();
    // Deeper than a stack is, were it gone down by calls.
    let mut at = std::os::fd::OwnedFd::from(fs::File::open(&left).unwrap());
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(at);
    let _ = astrid.run(&["agent", "delete", "ann", "--yes"]).ok();
    assert!(!left.exists());
}
