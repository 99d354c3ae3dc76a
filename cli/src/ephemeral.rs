//! `--ephemeral` and `--private` (contract K5): a daemon that lives as long as it is used.
//!
//! Around a command, this process holds a connection of its own. A daemon that was started for the command is told to end
//! when its last client leaves, so it ends even if this process is killed, and it does not end under another client that
//! joined meanwhile.

#![allow(clippy::disallowed_methods, reason = "throws away the private homes that it made")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use astrid_wire::control::{self, Mode, State, Status};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::cli::Context;
use crate::client::Client;
use crate::commands::{self, Command};
use crate::daemon::{self, Home};
use crate::failure::{Exit, Failure};
use crate::launch::Launch;
use crate::process::{self, Process};

/// How long another's daemon may take to become ready, and ours to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How often a daemon may turn out to be on its way out just when it was joined.
const ATTEMPTS: u32 = 3;

/// Begins the name of a throwaway home. What is named otherwise is never thrown away.
const PRIVATE_PREFIX: &str = "astrid-private-";

/// Runs a command with a daemon around it, or a daemon in the foreground.
pub(crate) fn run(context: &Context, private: bool, command: Option<Command>) -> anyhow::Result<()> {
    if let Some(command) = &command
        && !command.talks_to_the_daemon()
    {
        let flag = if private { "--private" } else { "--ephemeral" };
        return Err(Failure::usage(format!(
            "{flag} is for commands that talk to the daemon; this one does not"
        ))
        .into());
    }
    let (home, mode) = if private {
        (new_private_home()?, Mode::Private)
    } else {
        (context.home()?, Mode::Ephemeral)
    };
    match command {
        Some(command) => {
            let session = Session::open(home, mode)?;
            let result = commands::run(&context.with_home(&session.home), command);
            let closed = session.close();
            // Why the command failed matters more than how the daemon ended.
            result.and(closed)
        }
        None => foreground(context, &home, mode),
    }
}

fn foreground(context: &Context, home: &Home, mode: Mode) -> anyhow::Result<()> {
    if let Some(pid) = daemon::holder_pid(home)? {
        context.output.say(&format!("a daemon is running already (pid {pid})"));
        return Ok(());
    }
    if mode == Mode::Private {
        context.output.say(&format!("home {}", home.root().display()));
    }
    let result = daemon::run(home, mode, false, None);
    discard_private(home, mode).and(result)
}

/// Makes a home that nobody else has.
fn new_private_home() -> anyhow::Result<Home> {
    let path = tempfile::Builder::new()
        .prefix(PRIVATE_PREFIX)
        .permissions(PermissionsExt::from_mode(0o700))
        .tempdir()
        .context("cannot make a private home")?;
    daemon::home(Some(&path.keep()))
}

/// Throws a private home away, once its daemon has ended. Any other home is left alone.
pub(crate) fn discard_private(home: &Home, mode: Mode) -> anyhow::Result<()> {
    let name = home
        .root()
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if mode != Mode::Private || !name.starts_with(PRIVATE_PREFIX) {
        return Ok(());
    }
    match std::fs::remove_dir_all(home.root()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", home.root().display()))
        }
        _ => Ok(()),
    }
}

/// A daemon that stays while this is held.
struct Session {
    home: Home,
    mode: Mode,
    client: Client,
    started: Option<Child>,
}

impl Session {
    fn open(home: Home, mode: Mode) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            let opened = Self::try_open(&home, mode);
            match opened {
                Ok((client, started)) => {
                    return Ok(Self {
                        home,
                        mode,
                        client,
                        started,
                    });
                }
                // It was held by a daemon that ended just now, or there were two starts at once.
                Err(error) if attempt < ATTEMPTS && is_passing(&home)? => {
                    drop(error);
                    attempt += 1;
                }
                Err(error) => {
                    discard_private(&home, mode)?;
                    return Err(error);
                }
            }
        }
    }

    fn try_open(home: &Home, mode: Mode) -> anyhow::Result<(Client, Option<Child>)> {
        if let Some(pid) = daemon::holder_pid(home)? {
            wait_until_ready(home, pid)?;
            return Ok((Client::connect(home)?, None));
        }
        let mut child = Launch {
            home,
            mode,
            safe: false,
            ends_with_client: true,
        }
        .run()?;
        match Client::connect(home) {
            Ok(client) => Ok((client, Some(child))),
            Err(error) => {
                end(&mut child)?;
                Err(error)
            }
        }
    }

    /// Stops the daemon if it was started here and nobody else has joined.
    fn close(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.started.take() else {
            return Ok(());
        };
        let status: Option<Status> = self.client.ask(control::REQUEST_STATUS, &serde_json::json!({})).ok();
        if status.is_some_and(|status| status.connections > 1) {
            return Ok(());
        }
        drop(self.client);
        end(&mut child)?;
        discard_private(&self.home, self.mode)
    }
}

/// Ends a daemon that this process started.
fn end(child: &mut Child) -> anyhow::Result<()> {
    if let Some(process) = Process::open(child.id())? {
        process.terminate()?;
        if !process.wait(TIMEOUT)? {
            let failure = Failure::new(Exit::Timeout, format!("the daemon (pid {}) does not end", child.id()));
            return Err(failure.hint(format!("`kill -9 {}` ends it", child.id())).into());
        }
    }
    child.wait().context("cannot wait for the daemon")?;
    Ok(())
}

/// After a failed attempt: whether another has a chance. Waits for a daemon that is on its way out.
fn is_passing(home: &Home) -> anyhow::Result<bool> {
    let Some(pid) = daemon::holder_pid(home)? else {
        return Ok(true);
    };
    let Some(process) = Process::open(pid)? else {
        return Ok(true);
    };
    match daemon::saved_status(home)?.map(|status| status.state) {
        Some(State::Stopping) => process.wait(TIMEOUT),
        Some(State::Starting) | None => Ok(true),
        Some(State::Ready | State::Degraded) => Ok(false),
    }
}

/// Waits until another process's daemon serves.
fn wait_until_ready(home: &Home, pid: u32) -> anyhow::Result<()> {
    let ready = home.ready_file();
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let directory: &Path = ready.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(
        &watch,
        directory,
        inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
    )
    .with_context(|| format!("cannot watch {}", directory.display()))?;
    let Some(process) = Process::open(pid)? else {
        return Err(gone(&ready).into());
    };
    let deadline = Instant::now() + TIMEOUT;
    while !ready.exists() {
        let mut fds = [
            PollFd::new(&watch, PollFlags::IN),
            PollFd::new(process.pidfd(), PollFlags::IN),
        ];
        if process::wait(&mut fds, Some(deadline))? == 0 {
            return Err(Failure::new(Exit::Timeout, format!("the daemon (pid {pid}) does not become ready")).into());
        }
        if !fds[1].revents().is_empty() {
            return Err(gone(&ready).into());
        }
        drain(&watch)?;
    }
    Ok(())
}

fn gone(ready: &Path) -> Failure {
    Failure::unreachable(format!("the daemon ended before {} was there", ready.display()))
}

/// Reads events away; that there were some is all that matters.
fn drain(watch: &std::os::fd::OwnedFd) -> anyhow::Result<()> {
    let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    loop {
        match events.next() {
            Ok(_) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error).context("cannot watch"),
        }
    }
}
