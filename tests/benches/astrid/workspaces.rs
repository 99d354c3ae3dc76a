//! Programs in a workspace: what people wait for there, against the same program in the directory itself, with the same sandbox. And what a review
//! of many changes costs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use astrid_tests::daemon::Astrid;
use astrid_tests::programs::becomes;

use crate::{ROUNDS, alone, line, median};

/// Files of the project that git looks at.
const FILES: usize = 2_000;

/// Sources that are compiled.
const SOURCES: usize = 40;

/// Changes that are reviewed.
const CHANGES: usize = 10_000;

/// Prints how many nanoseconds a command took, after a run that warms it up.
const TIMED: &str = "timed() { \"$@\" >/dev/null 2>&1; a=$(date +%s%N); \"$@\" >/dev/null 2>&1; b=$(date +%s%N); echo took $((b - a)); }\n";

pub fn run() {
    let astrid = Astrid::started();
    let project = astrid.scratch().canonicalize().unwrap().join("project");
    lay_out(&project);
    let _ = astrid.run(&["workspace", "attach", project.to_str().unwrap()]).ok();
    let build = "build() { rm -rf out; mkdir out; for f in src/*.c; do cc -O1 -c $f -o out/$(basename $f).o; done; cc out/*.o -o out/all; }\n";
    let status = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null; git config --global --add safe.directory '*' 2>/dev/null;\n";
    let works = [
        (
            "git status of 2,000 files",
            "git",
            format!("{status}{TIMED}timed git status --porcelain"),
        ),
        ("build of 40 C files", "cc", format!("{TIMED}{build}timed build")),
    ];
    for (what, program, script) in works {
        if !is_there(program) {
            alone(what, "not tried", &format!("this machine has no {program}"));
            continue;
        }
        let (mut overlay, mut plain) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            overlay.push(took(
                &astrid,
                &format!("o{round}"),
                &["--workspace", "overlay"],
                &script,
            ));
            let cwd = project.to_str().unwrap();
            plain.push(took(&astrid, &format!("p{round}"), &["--cwd", cwd], &script));
        }
        line(
            &format!("in a workspace: {what}"),
            median(overlay),
            "in the directory",
            median(plain),
            "",
        );
    }
    review(&astrid, &project);
}

/// A repository with files, and with sources that say something.
fn lay_out(project: &Path) {
    for directory in ["src", "files"] {
        fs::create_dir_all(project.join(directory)).unwrap();
    }
    for n in 0..FILES {
        let directory = project.join(format!("files/{}", n / 100));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{n}")), format!("{n}\n")).unwrap();
    }
    for n in 0..SOURCES {
        let body = format!("#include <stdio.h>\nint f{n}(int x) {{ printf(\"%d\", x); return x * {n}; }}\n");
        fs::write(project.join(format!("src/f{n}.c")), body).unwrap();
    }
    fs::write(project.join("src/main.c"), "int main(void) { return 0; }\n").unwrap();
    if is_there("git") {
        let script = "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -qm x";
        let done = Command::new("sh").current_dir(project).args(["-c", script]).status();
        assert!(done.unwrap().success());
    }
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// Nanoseconds that a script says that it took.
fn took(astrid: &Astrid, name: &str, options: &[&str], script: &str) -> f64 {
    let head = [
        "process",
        "run",
        name,
        "--replace",
        "--restart",
        "never",
        "--sandbox",
        "project",
    ];
    let _ = astrid
        .run(&[&head[..], options, &["--", "sh", "-c", script]].concat())
        .ok();
    let _ = becomes(astrid, name, |instance| {
        instance["pid"].is_null() && instance["state"] != "starting"
    });
    let log = astrid.run(&["process", "logs", name, "-n", "5"]).ok().stdout;
    let took = log.lines().filter_map(|line| line.rsplit_once("took ")).next_back();
    took.unwrap_or_else(|| panic!("{log}")).1.trim().parse().unwrap()
}

/// What a program changed in many files, told and committed: new ones first, then the same ones again.
fn review(astrid: &Astrid, project: &Path) {
    for (what, content) in [("new", "$i"), ("changed", "again $i")] {
        let script = format!(
            "mkdir -p many; i=0; while [ $i -lt {CHANGES} ]; do echo {content} > many/$i; i=$((i+1)); done; echo took 1"
        );
        let _ = took(astrid, "many", &["--workspace", "overlay"], &script);
        let nanoseconds = |arguments: &[&str]| {
            let began = Instant::now();
            let _ = astrid.run(&[&["workspace"], arguments].concat()).ok();
            began.elapsed().as_secs_f64() * 1e9
        };
        let diff = nanoseconds(&["diff"]);
        let commit = nanoseconds(&["commit", "--yes"]);
        let many = project.join("many");
        assert_eq!(fs::read_dir(&many).unwrap().count(), CHANGES);
        let scratch = astrid.scratch().join("peer");
        let (read, write) = by_hand(&many, &scratch);
        line(
            &format!("in a workspace: diff of 10,000 {what} files"),
            diff,
            "all of them read",
            read,
            "",
        );
        line(
            &format!("in a workspace: commit of 10,000 {what} files"),
            commit,
            "copied, synced, removed",
            write,
            "what a commit does with each, by std::fs",
        );
    }
}

/// Nanoseconds that it takes to read all files of a directory, and to copy them, wait for the disk, and remove the copies.
fn by_hand(directory: &Path, scratch: &Path) -> (f64, f64) {
    let began = Instant::now();
    let names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    for name in &names {
        drop(fs::read(directory.join(name)).unwrap());
    }
    let read = began.elapsed().as_secs_f64() * 1e9;
    let began = Instant::now();
    fs::create_dir(scratch).unwrap();
    for name in &names {
        fs::copy(directory.join(name), scratch.join(name)).unwrap();
    }
    rustix::fs::syncfs(fs::File::open(scratch).unwrap()).unwrap();
    fs::remove_dir_all(scratch).unwrap();
    (read, began.elapsed().as_secs_f64() * 1e9)
}
