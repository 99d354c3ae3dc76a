//! Starting and stopping: one daemon for each home (K1), in the background (A22), and found without any of its sockets.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{ends, run, send};
use rustix::process::Signal;

fn read_link(path: impl AsRef<Path>) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

/// A22: in a session of its own, with cwd `/`, and nothing of whoever started it: no terminal, pipe or descriptor.
#[test]
fn a_daemon_is_detached() {
    let astrid = Astrid::new();
    let script = "exec 7>inherited 8<&0; astrid start";
    let outcome = run(&mut astrid.shell(script), b"").ok();
    assert!(
        outcome.stdout.is_empty() && outcome.stderr.contains("ready (pid "),
        "{outcome:?}"
    );

    let pid = astrid.pid();
    let process = Path::new("/proc").join(pid.to_string());
    assert_eq!(read_link(process.join("cwd")), "/");
    let stat = fs::read_to_string(process.join("stat")).unwrap();
    let session = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(session, pid.to_string());
    for stdio in ["0", "1", "2"] {
        assert_eq!(read_link(process.join("fd").join(stdio)), "/dev/null");
    }
    for fd in fs::read_dir(process.join("fd")).unwrap() {
        // One that was closed meanwhile is not held.
        let target = fs::read_link(fd.unwrap().path())
            .unwrap_or_default()
            .display()
            .to_string();
        assert!(!target.contains("inherited"), "the daemon holds {target}");
    }
    let environment = fs::read(process.join("environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("RUST_BACKTRACE"));
}

/// A22: whoever reads the output of `start` sees its end although the daemon goes on.
#[test]
fn a_pipe_after_start_ends() {
    let astrid = Astrid::new();
    let outcome = run(&mut astrid.shell("astrid start 2>&1 | cat"), b"").ok();
    assert!(outcome.stdout.contains("ready"), "{outcome:?}");
    let _ = astrid.pid();
}

/// A22: the pid file is there when `start` returns, and gone after `stop`, like everything else in `run/` but the lock.
#[test]
fn a_running_daemon_leaves_marks_and_takes_them_away() {
    let astrid = Astrid::started();
    let there = |name: &str| astrid.home().join("run").join(name);
    assert_eq!(
        fs::read_to_string(there("pid")).unwrap().trim(),
        astrid.pid().to_string()
    );
    for name in ["ready", "token", "status.json", "operator.sock", "session.sock"] {
        assert!(there(name).exists(), "{name} is missing");
    }
    assert_eq!(fs::metadata(there("operator.sock")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(there("token")).unwrap().mode() & 0o777, 0o600);
    let _ = astrid.run(&["stop"]).ok();
    for name in ["pid", "ready", "token", "status.json", "operator.sock", "session.sock"] {
        assert!(!there(name).exists(), "{name} is left");
    }
}

/// K1: a second start says who holds the home, and exits 1.
#[test]
fn a_second_start_names_the_holder() {
    let astrid = Astrid::started();
    let pid = astrid.pid();
    for line in [&["start"][..], &["start", "--foreground"], &["start", "--safe"]] {
        let outcome = astrid.run(line);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains(&pid.to_string()), "{outcome:?}");
    }
    let outcome = astrid.run(&["start", "--format", "json"]);
    assert!(
        outcome.json_error()["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&pid.to_string()),
        "{outcome:?}"
    );
    assert_eq!(astrid.pid(), pid);
}

/// K1: of starts at the same time exactly one daemon comes, and the others name it.
#[test]
fn starts_at_once() {
    let astrid = Astrid::new();
    let starts: Vec<_> = (0..4).map(|_| astrid.spawn(&["start"])).collect();
    let words: Vec<String> = starts
        .iter()
        .map(|start| start.stderr.as_ref().unwrap().wait_for("(pid "))
        .collect();
    let codes: Vec<_> = starts.into_iter().map(|start| start.wait().code()).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Some(0)).count(),
        1,
        "{codes:?} {words:?}"
    );
    assert_eq!(
        codes.iter().filter(|code| **code == Some(1)).count(),
        3,
        "{codes:?} {words:?}"
    );
    let pid = astrid.pid().to_string();
    assert!(words.iter().all(|line| line.contains(&pid)), "{pid}: {words:?}");
}

/// K1: an unlinked socket with a live holder never yields a second daemon.
#[test]
fn an_unlinked_socket_is_not_a_free_home() {
    let astrid = Astrid::started();
    let pid = astrid.pid();
    fs::remove_file(astrid.home().join("run/operator.sock")).unwrap();
    assert_eq!(astrid.run(&["start"]).code(), 1);
    assert_eq!(astrid.pid(), pid);
    // Neither status nor stop needs the socket.
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(
        (status["state"].as_str(), status["live"].as_bool()),
        (Some("ready"), Some(false)),
        "{status}"
    );
    assert_eq!(astrid.run(&["stop", "--format", "json"]).ok().json()["pid"], pid);
}

/// K1: a killed holder frees the home, whatever it left there.
#[test]
fn after_a_kill_the_start_is_clean() {
    let astrid = Astrid::started();
    let pid = astrid.pid();
    send(pid, Signal::KILL);
    assert!(ends(pid));
    assert!(
        astrid.home().join("run/operator.sock").exists(),
        "a killed daemon cleans nothing"
    );
    assert_eq!(astrid.run(&["status"]).code(), 3);
    let outcome = astrid.run(&["publish", "a.v1.b", "x"]);
    assert_eq!(outcome.code(), 3, "{outcome:?}");
    let doctor = astrid.run(&["doctor"]).ok();
    assert!(doctor.stdout.contains("left over"), "{doctor:?}");

    let _ = astrid.run(&["start"]).ok();
    assert_ne!(astrid.pid(), pid);
    let _ = astrid.run(&["publish", "a.v1.b", "x"]).ok();
}

/// A1: stale files are removed before binding, whoever left them.
#[test]
fn stale_sockets_are_replaced() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    let socket = astrid.home().join("run/operator.sock");
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(astrid.home().join("run/session.sock"), "not a socket").unwrap();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["publish", "a.v1.b", "x"]).ok();
}

/// Stopping what does not run is no error, and makes nothing.
#[test]
fn stop_is_idempotent() {
    let astrid = Astrid::new();
    let outcome = astrid.run(&["stop"]).ok();
    assert!(
        outcome.stdout.is_empty() && outcome.stderr.contains("nothing is running"),
        "{outcome:?}"
    );
    assert!(!astrid.home().exists());
    let _ = astrid.run(&["start"]).ok();
    let pid = astrid.pid();
    assert_eq!(astrid.run(&["stop", "--format", "json"]).ok().json()["pid"], pid);
    assert_eq!(astrid.run(&["stop", "--format", "json"]).ok().json()["stopped"], false);
    assert_eq!(astrid.run(&["status"]).code(), 3);
}

/// A restart is another daemon, also when none ran.
#[test]
fn restart() {
    let astrid = Astrid::new();
    let _ = astrid.run(&["restart"]).ok();
    let first = astrid.pid();
    let _ = astrid.run(&["restart"]).ok();
    assert_ne!(astrid.pid(), first);
    assert!(ends(first));
}

/// K4, A22: in the foreground it says to the service manager that it is ready, and SIGTERM ends it with 0.
#[test]
fn foreground() {
    for signal in [Signal::TERM, Signal::INT] {
        let astrid = Astrid::new();
        let daemon = astrid.foreground(&["start", "--foreground"]);
        assert_eq!(astrid.pid(), daemon.pid());
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{signal:?}");
        assert!(!astrid.home().join("run/operator.sock").exists());
    }
}

/// Rescue: built-in capsules only.
#[test]
fn safe() {
    let astrid = Astrid::started();
    let _ = astrid.run(&["stop"]).ok();
    fs::write(astrid.home().join("capsules/broken.capsule"), "not a capsule").unwrap();
    let _ = astrid.run(&["start"]).ok();
    assert_eq!(
        astrid.run(&["status", "--format", "json"]).ok().json()["state"],
        "degraded"
    );
    let _ = astrid.run(&["stop"]).ok();
    let _ = astrid.run(&["start", "--safe"]).ok();
    assert_eq!(
        astrid.run(&["status", "--format", "json"]).ok().json()["state"],
        "ready"
    );
}

/// `--home` names the home for every command, relative to where it is typed.
#[test]
fn a_named_home() {
    let astrid = Astrid::new();
    let mut start = astrid.command(&["start", "--home", "other", "--format", "json"]);
    let started = run(start.env_remove("ASTRID_HOME"), b"").ok().json();
    let home = astrid.scratch().join("other");
    assert_eq!(started["home"], home.display().to_string());
    assert_eq!(astrid.run(&["status"]).code(), 3);
    assert_eq!(astrid.run(&["--home", home.to_str().unwrap(), "status"]).code(), 0);
    let _ = astrid.run(&["--home", home.to_str().unwrap(), "stop"]).ok();
}
