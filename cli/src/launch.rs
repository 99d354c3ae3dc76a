//! A daemon in the background: this same binary again, as `__daemon`, in a session of its own (contract A22).
//!
//! The child's stdout is a pipe. It moves that pipe out of the way first of all, points its stdio at `/dev/null`, and writes
//! one line when it is known how the start went: `ready`, or the error as JSON. So whoever starts it returns as soon as it
//! serves, can say what went wrong otherwise, and leaves nothing of itself in the daemon: neither terminal, nor pipe
//! (`astrid start | cat` ends), nor descriptor, nor directory.

#![allow(clippy::disallowed_methods, reason = "opens /dev/null")]

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use astrid_wire::control::Mode;
use rustix::event::{PollFd, PollFlags};

use crate::commands::internal::DAEMON;
use crate::daemon::Home;
use crate::failure::{Exit, Failure, Report};
use crate::process;

/// How long a start may take before this side stops waiting. A first start compiles what others installed.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Most bytes of the line that tells how the start went.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// What the daemon writes when it serves.
pub(crate) const READY: &str = "ready";

/// How long the daemon stays without clients, in seconds.
pub(crate) const IDLE_VARIABLE: &str = "ASTRID_IDLE_TIMEOUT_SECS";

/// A daemon to be started.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// Where.
    pub(crate) home: &'a Home,
    /// How long it lives.
    pub(crate) mode: Mode,
    /// Built-in capsules only.
    pub(crate) safe: bool,
    /// Ends as soon as its last client left, whatever the environment says.
    pub(crate) ends_with_client: bool,
}

impl Launch<'_> {
    /// Starts it, and returns once it serves.
    pub(crate) fn run(&self) -> anyhow::Result<Child> {
        // What this process inherited itself is nothing for a daemon; what it opened is closed on exec anyway.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        let (status, writer) = io::pipe().context("cannot make a pipe")?;
        let mut child = self.command(writer.into()).spawn().context("cannot start the daemon")?;
        match first_line(status)? {
            Some(line) if line.trim_end() == READY => Ok(child),
            Some(line) => {
                let _ = child.wait();
                let report: Report =
                    serde_json::from_str(&line).context("the daemon did not say how its start went")?;
                Err(report.into_failure().into())
            }
            None => {
                let ended = child.wait().context("cannot wait for the daemon")?;
                let failure = Failure::failed(format!("the daemon ended before it was ready ({ended})"));
                Err(failure.hint("`astrid start --foreground` shows what it says").into())
            }
        }
    }

    fn command(&self, status: Stdio) -> Command {
        // The running binary, even if the file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("astrid").arg(DAEMON).arg("--home").arg(self.home.root());
        command.arg("--mode").arg(mode_name(self.mode));
        if self.safe {
            command.arg("--safe");
        }
        if self.ends_with_client {
            command.env(IDLE_VARIABLE, "0");
        }
        // With a backtrace every trap of a guest costs milliseconds.
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(status)
            .stderr(Stdio::null());
        command
    }
}

/// The mode as `__daemon --mode` takes it.
pub(crate) fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Persistent => "persistent",
        Mode::Ephemeral => "ephemeral",
        Mode::Private => "private",
    }
}

/// The line that tells how it went; none if the daemon ended without a word.
fn first_line(mut status: PipeReader) -> anyhow::Result<Option<String>> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if process::wait(&mut [PollFd::new(&status, PollFlags::IN)], Some(deadline))? == 0 {
            let seconds = READY_TIMEOUT.as_secs();
            let failure = Failure::new(Exit::Timeout, format!("the daemon is not ready after {seconds} s"));
            return Err(failure
                .hint("it goes on starting; `astrid status` shows how far it is")
                .into());
        }
        let read = status.read(&mut buffer).context("cannot read how the start went")?;
        line.extend_from_slice(&buffer[..read]);
        let end = line.iter().position(|byte| *byte == b'\n');
        if let Some(end) = end {
            return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        if read == 0 || line.len() as u64 > REPORT_BYTES_MAX {
            return Ok(None);
        }
    }
}

/// The daemon's side: leaves the session, terminal and pipes of whoever started it. Gives the pipe for the one line.
pub(crate) fn detach() -> anyhow::Result<File> {
    let status = File::from(
        io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .context("stdout is not a pipe")?,
    );
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // Fails when it leads a process group: started by a service manager, which made a session already.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    Ok(status)
}

/// The daemon's side: it could not start. Whoever started it may be gone.
pub(crate) fn report(status: &mut File, error: &anyhow::Error) {
    let line = serde_json::to_string(&Report::of(error)).unwrap_or_default();
    let _ = status.write_all(format!("{line}\n").as_bytes());
}
