//! What programs may not do to others, and what many of them cost.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;

use astrid_tests::daemon::{Astrid, binary};
use astrid_tests::process::{ends, send};
use rustix::process::Signal;
use serde_json::Value;

/// Programs that fail at once.
const MANY: usize = 200;

fn process(astrid: &Astrid, arguments: &[&str]) -> Value {
    let all = [&["process"], arguments, &["--format", "json"]].concat();
    astrid.run(&all).ok().json()
}

fn apply(astrid: &Astrid, definitions: &str) {
    let file = astrid.scratch().join("programs.toml");
    fs::write(&file, definitions).unwrap();
    let _ = astrid.run(&["process", "apply", file.to_str().unwrap()]).ok();
}

/// A peer that descends from the keeper is never its owner: not with the token, over neither socket, whether it is kept from the home
/// or not.
#[test]
fn a_child_is_never_taken_for_its_owner() {
    let astrid = Astrid::started();
    let (own, home) = (binary(), astrid.home().display().to_string());
    // A copy of the home's sockets and token, which a child can reach whatever it is kept from.
    let copy = astrid.scratch().join("copy");
    fs::create_dir_all(copy.join("run")).unwrap();
    fs::copy(astrid.home().join("run/token"), copy.join("run/token")).unwrap();
    for socket in ["operator.sock", "session.sock"] {
        std::os::unix::fs::symlink(astrid.home().join("run").join(socket), copy.join("run").join(socket)).unwrap();
    }
    // As nobody's child the copy is as good as the home.
    let request = "request astrid.v1.request.capsules '{}'";
    let script = |home: &str| {
        format!(
            "{} --home {home} {request} && echo TAKEN || echo \"refused: $?\"",
            own.display()
        )
    };
    let outside = astrid_tests::process::run(&mut astrid.shell(&script(copy.to_str().unwrap())), b"");
    assert!(outside.stdout.contains("TAKEN"), "{outside:?}");
    // The session socket in the operator's place.
    let session = astrid.scratch().join("session");
    fs::create_dir_all(session.join("run")).unwrap();
    fs::copy(astrid.home().join("run/token"), session.join("run/token")).unwrap();
    std::os::unix::fs::symlink(
        astrid.home().join("run/session.sock"),
        session.join("run/operator.sock"),
    )
    .unwrap();
    for (n, place) in [home.as_str(), copy.to_str().unwrap(), session.to_str().unwrap()]
        .iter()
        .enumerate()
    {
        for (sandbox, options) in [("kept", &[][..]), ("open", &["--no-sandbox"][..])] {
            let name = format!("{sandbox}-{n}");
            let script = format!("{}; sleep 1000000", script(place));
            let run = [&["process", "run", &name], options, &["--", "sh", "-c", &script]].concat();
            let _ = astrid.run(&run).ok();
            let mut logs = astrid.spawn(&["process", "logs", &name, "-f"]);
            let line = logs.stdout.take().unwrap().wait_for("refused");
            assert!(!line.contains("TAKEN"), "{name}: {line}");
        }
    }
}

/// A18: a program is confined as its definition says, and status shows how; what cannot be given is said at once.
#[test]
fn a_program_is_confined_as_its_definition_says() {
    let astrid = Astrid::started();
    let place = astrid.scratch().join("place");
    fs::create_dir(&place).unwrap();
    let cwd = place.to_str().unwrap();
    let script = "echo x >made; (echo x >../outside) 2>/dev/null; echo done; sleep 1000000";
    let kept = ["--sandbox", "sealed", "--cwd", cwd];
    let run = [&["process", "run", "kept"][..], &kept, &["--", "sh", "-c", script]].concat();
    let _ = astrid.run(&run).ok();
    let mut logs = astrid.spawn(&["process", "logs", "kept", "-f"]);
    logs.stdout.take().unwrap().wait_for("done");
    assert!(place.join("made").exists() && !astrid.scratch().join("outside").exists());
    let shown = process(&astrid, &["status", "kept"])["sandbox"].clone();
    assert_eq!(shown, format!("sealed, network none, writes {cwd} tmp://"));
    let refused = astrid.run(&["process", "run", "bad", "--write", "/no/such", "--", "true"]);
    assert!(
        refused.code() == 1 && refused.stderr.contains("/no/such"),
        "{refused:?}"
    );
}

/// A11: many that fail at once are given up, each says why, and others do not notice.
#[test]
fn many_that_fail_are_given_up_and_others_go_on() {
    let astrid = Astrid::started();
    let definitions = format!(
        "[[processes]]\nname = \"good\"\ncommand = \"sleep\"\nargs = [\"1000000\"]\n\n\
         [[processes]]\nname = \"bad\"\ncommand = \"false\"\ninstances = {MANY}\nbackoff = {{ policy = \"fixed\", base = \"0s\" }}\n"
    );
    // Heard before anything can have happened.
    let watch = astrid.spawn(&["watch", "process.v1.event.circuit", "--count", &MANY.to_string()]);
    watch.stderr.as_ref().unwrap().wait_for("process.v1.event.circuit");
    apply(&astrid, &definitions);
    // One after the other, each with the patience of its own: a slow machine starts 1,200 programs slowly.
    while watch.stdout.as_ref().unwrap().next_line().is_some() {}
    assert!(watch.wait().success());
    let bad = process(&astrid, &["status", "bad"]);
    let given_up = |instance: &&Value| instance["circuit_open"] == true && instance["pid"].is_null();
    assert_eq!(
        bad["instances"].as_array().unwrap().iter().filter(given_up).count(),
        MANY
    );
    let why = process(&astrid, &["why", "bad", "--instance", "199"]);
    assert!(why.to_string().contains("not restarted any more"), "{why}");
    let good = &process(&astrid, &["status", "good"])["instances"][0];
    assert_eq!((&good["state"], &good["restarts"]), (&"running".into(), &0.into()));
    // And goes on: it comes back when it ends.
    let pid = u32::try_from(good["pid"].as_u64().unwrap()).unwrap();
    send(pid, Signal::KILL);
    assert!(ends(pid));
    let _ = astrid.run(&["process", "start", "good"]).ok();
}

/// What is missing when the daemon starts is tried again: a file system that is mounted late is no reason to stay down.
#[test]
fn what_is_missing_at_the_start_is_tried_again() {
    let astrid = Astrid::started();
    let program = astrid.scratch().join("program");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let _ = astrid
        .run(&["process", "run", "late", "--", program.to_str().unwrap(), "1000000"])
        .ok();
    let _ = astrid.run(&["stop"]).ok();
    fs::remove_file(&program).unwrap();
    let _ = astrid.run(&["start"]).ok();
    let late = &process(&astrid, &["status", "late"])["instances"][0];
    assert!(!late["restart_at_ms"].is_null(), "{late}");
    let watch = astrid.spawn(&["watch", "process.v1.event.changed", "--count", "2"]);
    watch.stderr.as_ref().unwrap().wait_for("process.v1.event.changed");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    assert!(watch.wait().success());
    let _ = astrid.run(&["process", "start", "late"]).ok();
}

/// Root's programs do not read what other programs were told in confidence: a filter of system calls and Landlock would not keep them
/// from that, so they lack the capability.
#[test]
fn a_program_of_root_reads_no_other_environment() {
    let astrid = Astrid::started();
    let _ = astrid
        .run(&[
            "process",
            "run",
            "one",
            "--secret",
            "DB_KEY=hunter22",
            "--",
            "sleep",
            "1000000",
        ])
        .ok();
    let one = process(&astrid, &["status", "one"])["instances"][0]["pid"]
        .as_u64()
        .unwrap();
    let look = format!("tr '\\0' '\\n' </proc/{one}/environ | grep DB_KEY; echo looked; exec sleep 1000000");
    let _ = astrid.run(&["process", "run", "two", "--", "sh", "-c", &look]).ok();
    let mut logs = astrid.spawn(&["process", "logs", "two", "-f"]);
    let lines = logs.stdout.take().unwrap();
    loop {
        let line = lines.next_line().unwrap();
        assert!(!line.contains("hunter22"), "{line}");
        if line.contains("looked") {
            return;
        }
    }
}
