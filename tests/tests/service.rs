//! Under a service manager: sockets that it has bound, readiness, and a watchdog that hears from the daemon for as long as its bus
//! answers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener};

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{PATIENCE, Running, spawn};
use rustix::io::FdFlags;
use rustix::process::Signal;

/// Waits until the service manager was told this.
#[track_caller]
fn told(manager: &UnixDatagram, word: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {word}: {error}"));
        if String::from_utf8_lossy(&buffer[..length])
            .lines()
            .any(|line| line == word)
        {
            return;
        }
    }
}

fn manager(astrid: &Astrid) -> UnixDatagram {
    let socket = UnixDatagram::bind(astrid.scratch().join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A daemon in the foreground with a bound socket as its descriptor 3.
fn activated(astrid: &Astrid, socket: &UnixListener) -> Running {
    let number = socket.as_raw_fd();
    let script = format!("exec 3<&{number}; LISTEN_FDS=1 LISTEN_PID=$$ exec astrid start --foreground");
    let mut command = astrid.shell(&script);
    command.env("NOTIFY_SOCKET", astrid.scratch().join("notify"));
    rustix::io::fcntl_setfd(socket, FdFlags::empty()).unwrap();
    let running = spawn(&mut command);
    rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC).unwrap();
    running
}

/// A client that comes before the daemon is served by it, and the socket's file stays the manager's.
#[test]
fn a_socket_of_the_service_manager_is_served_and_left() {
    let astrid = Astrid::new();
    let run = astrid.home().join("run");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&run).unwrap();
    let path = run.join("operator.sock");
    let socket = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    let manager = manager(&astrid);
    let daemon = activated(&astrid, &socket);
    told(&manager, "READY=1");
    let status = astrid.run(&["status", "--format", "json"]).ok().json();
    assert_eq!(
        (&status["state"], &status["reasons"]),
        (&"ready".into(), &serde_json::json!([]))
    );
    let _ = astrid.run(&["stop"]).ok();
    assert!(daemon.wait().success());
    assert_eq!(
        fs::symlink_metadata(&path).unwrap().ino(),
        inode,
        "the file is the manager's"
    );
    assert!(!run.join("session.sock").exists(), "this one was the daemon's");
}

/// K14: a socket that is open to more than it may be is not served.
#[test]
fn a_socket_that_is_too_open_is_not_served() {
    let astrid = Astrid::new();
    let run = astrid.home().join("run");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&run).unwrap();
    let path = run.join("operator.sock");
    let socket = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let manager = manager(&astrid);
    let daemon = activated(&astrid, &socket);
    told(&manager, "READY=1");
    let status = fs::read_to_string(run.join("status.json")).unwrap();
    assert!(status.contains("degraded") && status.contains("0666"), "{status}");
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}

/// The watchdog hears from the daemon again and again, after a message has gone through its bus.
#[test]
fn a_watchdog_hears_from_the_daemon() {
    let astrid = Astrid::new();
    let manager = manager(&astrid);
    let mut command = astrid.command(&["start", "--foreground"]);
    command
        .env("NOTIFY_SOCKET", astrid.scratch().join("notify"))
        .env("WATCHDOG_USEC", "100000");
    let daemon = spawn(&mut command);
    for word in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        told(&manager, word);
    }
    let _ = astrid.run(&["stop"]).ok();
    assert!(daemon.wait().success());
}
