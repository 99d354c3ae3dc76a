//! The binary under test in a home of its own, which goes with everything in it when the test ends, however it ends.

#![allow(clippy::disallowed_methods, reason = "tests own the files of their homes")]

use std::ffi::OsStr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{self, Outcome, PATIENCE, Running};

/// Names the binary, if it is not where cargo puts it.
const BINARY_VARIABLE: &str = "ASTRID_BIN";

/// The built binary.
///
/// # Panics
/// There is none.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/astrid");
    let binary = std::env::var_os(BINARY_VARIABLE).map_or_else(built, PathBuf::from);
    assert!(
        binary.exists(),
        "{} is not there; `make build` makes it",
        binary.display()
    );
    std::path::absolute(&binary).unwrap_or(binary)
}

/// A home, and the commands that are run for it.
#[derive(Debug)]
pub struct Astrid {
    directory: TempDir,
    home: PathBuf,
}

impl Default for Astrid {
    fn default() -> Self {
        Self::new()
    }
}

impl Astrid {
    /// A home in which nothing runs, not made yet.
    ///
    /// # Panics
    /// There is no room for one.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("astrid-test-").tempdir();
        let directory = directory.unwrap_or_else(|error| panic!("no temporary directory: {error}"));
        let home = directory.path().join("home");
        Self { directory, home }
    }

    /// The same, with a daemon that is ready.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    #[track_caller]
    pub fn started() -> Self {
        let astrid = Self::new();
        let _ = astrid.run(&["start"]).ok();
        astrid
    }

    /// The home.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Leaves the home where it is when the test ends, for who looks for what went wrong.
    pub fn keep(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// A place for files of the test, beside the home.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The binary with these arguments, for this home. Nothing of the environment of the tests changes what it does.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.any(binary());
        command.args(arguments);
        command
    }

    /// A script that calls `astrid`.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = self.any("/bin/sh".into());
        let binary = binary();
        let directory = binary.parent().unwrap_or(Path::new("/")).display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(["-euc", script])
            .env("PATH", format!("{directory}:{path}"));
        command
    }

    fn any(&self, program: PathBuf) -> Command {
        let mut command = Command::new(program);
        for name in [
            "NO_COLOR",
            "ASTRID_IDLE_TIMEOUT_SECS",
            "NOTIFY_SOCKET",
            "RUST_BACKTRACE",
            "RUST_LOG",
            "COLUMNS",
        ] {
            command.env_remove(name);
        }
        command
            .env("ASTRID_HOME", &self.home)
            .current_dir(self.directory.path());
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        process::run(&mut self.command(arguments), b"")
    }

    /// Starts the binary and lets it run.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        process::spawn(&mut self.command(arguments))
    }

    /// Starts a daemon in the foreground and waits until it says, as to a service manager, that it is ready.
    ///
    /// # Panics
    /// It does not say so.
    #[track_caller]
    pub fn foreground(&self, arguments: &[&str]) -> Running {
        let path = self.directory.path().join("notify");
        let _ = std::fs::remove_file(&path);
        let bound = UnixDatagram::bind(&path).and_then(|socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        });
        let socket = bound.unwrap_or_else(|error| panic!("no notification socket: {error}"));
        let running = process::spawn(self.command(arguments).env("NOTIFY_SOCKET", &path));
        let mut buffer = [0; 4096];
        loop {
            match socket.recv(&mut buffer) {
                Ok(length)
                    if String::from_utf8_lossy(&buffer[..length])
                        .lines()
                        .any(|line| line == "READY=1") =>
                {
                    return running;
                }
                Ok(_) => {}
                Err(error) => panic!("the daemon is not ready: {error}"),
            }
        }
    }

    /// The daemon's process id, as `status` gives it.
    ///
    /// # Panics
    /// Nothing is running.
    #[must_use]
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let status = self.run(&["status", "--format", "json"]).ok().json();
        status["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .unwrap_or_else(|| panic!("no pid in {status}"))
    }
}

impl Drop for Astrid {
    fn drop(&mut self) {
        // Whoever holds the lock now is this home's daemon; `stop` finds it without any of its sockets.
        let stopped = process::run(&mut self.command(&["stop"]), b"");
        if !stopped.status.success() && !std::thread::panicking() {
            panic!("the daemon does not stop: {stopped:#?}");
        }
    }
}
