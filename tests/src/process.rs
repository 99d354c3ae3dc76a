//! Processes under test: started, watched to their end, and never left behind.
//!
//! Every wait has an end, far above what anything takes, at which the test fails; nothing waits for time to pass.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

/// Longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a process that has ended left.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

impl Outcome {
    /// Its exit code.
    ///
    /// # Panics
    /// A signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("ended by signal {:?}: {self:?}", self.status.signal()))
    }

    /// The same, where it should have gone well.
    ///
    /// # Panics
    /// It did not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "it failed: {self:#?}");
        self
    }

    /// Its stdout as a JSON document.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON on stdout ({error}): {self:#?}"))
    }

    /// The last line of its stderr as a JSON document.
    ///
    /// # Panics
    /// It is none.
    #[must_use]
    #[track_caller]
    pub fn json_error(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON on stderr ({error}): {self:#?}"))
    }
}

/// A process that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Whole lines of its stdout, as they come.
    pub stdout: Option<Lines<ChildStdout>>,
    /// The same of its stderr.
    pub stderr: Option<Lines<ChildStderr>>,
}

/// Lines of a stream, each waited for.
#[derive(Debug)]
pub struct Lines<R> {
    lines: Receiver<String>,
    stream: std::marker::PhantomData<R>,
}

impl<R: Read + Send + 'static> Lines<R> {
    fn new(stream: R) -> Self {
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            lines,
            stream: std::marker::PhantomData,
        }
    }

    /// The next line; none at the end.
    pub fn next_line(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// Reads until a line holds this text.
    ///
    /// # Panics
    /// There is no such line.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {text:?} came, but {seen:#?}");
    }
}

/// Starts a program with both outputs in pipes.
///
/// # Panics
/// It cannot be started.
pub fn spawn(command: &mut Command) -> Running {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stdout = child.stdout.take().map(Lines::new);
    let stderr = child.stderr.take().map(Lines::new);
    Running { child, stdout, stderr }
}

/// Runs a program to its end, with this on its stdin.
///
/// # Panics
/// It cannot be started, or does not end.
#[track_caller]
pub fn run(command: &mut Command, stdin: &[u8]) -> Outcome {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let feeder = child.stdin.take().map(|mut pipe| {
        let stdin = stdin.to_vec();
        // It may not want to hear all of it.
        thread::spawn(move || drop(pipe.write_all(&stdin)))
    });
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    if !ends(child.id()) {
        let _ = child.kill();
        panic!("{command:?} does not end");
    }
    let Ok(status) = child.wait() else {
        panic!("{command:?} cannot be waited for")
    };
    // A pipe that is still open has gone to a process that outlives this one.
    let text = |stream: Receiver<Vec<u8>>| match stream.recv_timeout(PATIENCE) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => panic!("{command:?} ended, and something else keeps its output open"),
    };
    let outcome = Outcome {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    };
    if let Some(feeder) = feeder {
        let _ = feeder.join();
    }
    outcome
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its stdin, if that was asked for, once.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end.
    #[track_caller]
    pub fn wait(mut self) -> ExitStatus {
        assert!(ends(self.pid()), "the process does not end");
        self.child
            .wait()
            .unwrap_or_else(|error| panic!("it cannot be waited for: {error}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process, if it is there.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pidfd) = open(pid) {
        let _ = pidfd_send_signal(pidfd, signal);
    }
}

/// Waits for the end of a process, whoever's child it is. Whether it came; at once for one that is not there.
#[must_use]
pub fn ends(pid: u32) -> bool {
    let Some(pidfd) = open(pid) else { return true };
    let timeout = Timespec {
        tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn open(pid: u32) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}
