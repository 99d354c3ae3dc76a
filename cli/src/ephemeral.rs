//! `--ephemeral` and `--private` (contract K5): a daemon that lives as long as it is used.
//!
//! Around a command, this process holds the connection that the command uses. A daemon that was started for the command is told to end
//! when its last client leaves, so it ends even if this process is killed, and it does not end under another client that
//! joined meanwhile.

#![allow(clippy::disallowed_methods, reason = "throws away the private homes that it made")]

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use astrid_wire::control::{self, Mode, Status};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::cli::Context;
use crate::client::{Client, Identity};
use crate::commands::{self, Command};
use crate::daemon::{self, Home};
use crate::failure::{Exit, Failure, Report};
use crate::launch::Launch;
use crate::output::Output;
use crate::process::{self, Process};

/// How long another's daemon may take to become ready, and ours to end.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long a daemon may take to end once nobody uses it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a daemon may turn out to be on its way out just when it was joined, or another start to be faster.
const ATTEMPTS_MAX: u32 = 10;

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
            let session = Session::open(home, context.identity(), mode)?;
            let result = commands::run(&context.within(&session.home, Rc::clone(&session.client)), command);
            let closed = session.close(context.output);
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
    /// Lent to the command, so that there is one connection and the daemon need not be asked whose the others are.
    client: Rc<RefCell<Client>>,
    started: Option<Child>,
}

impl Session {
    fn open(home: Home, identity: Option<&Identity>, mode: Mode) -> anyhow::Result<Self> {
        let opened = Self::try_open(&home, identity, mode);
        if opened.is_err() {
            discard_private(&home, mode)?;
        }
        let (client, started) = opened?;
        let client = Rc::new(RefCell::new(client));
        Ok(Self {
            home,
            mode,
            client,
            started,
        })
    }

    /// Joins the daemon that is there, or starts one. Others may do the same at this moment, or the daemon may be just leaving.
    fn try_open(home: &Home, identity: Option<&Identity>, mode: Mode) -> anyhow::Result<(Client, Option<Child>)> {
        let mut attempts = 1;
        loop {
            let error = match daemon::holder_pid(home)? {
                Some(pid) => match join(home, identity, pid) {
                    Ok(client) => return Ok((client, None)),
                    Err(error) if is_passing(&error) && is_leaving(pid)? => error,
                    Err(error) => return Err(error),
                },
                None => match start(home, identity, mode) {
                    Ok((client, child)) => return Ok((client, Some(child))),
                    Err(error) if is_passing(&error) => error,
                    Err(error) => return Err(error),
                },
            };
            if attempts == ATTEMPTS_MAX {
                return Err(error);
            }
            attempts += 1;
        }
    }

    /// Leaves, and waits for the end of a daemon that was started here, unless others use it.
    ///
    /// Whether it ends is the daemon's decision: only it knows who joins at this moment.
    fn close(mut self, output: Output) -> anyhow::Result<()> {
        let Some(mut child) = self.started.take() else {
            return Ok(());
        };
        let ask = |client: &mut Client| client.ask(control::REQUEST_STATUS, &serde_json::json!({}));
        let status: Option<Status> = ask(&mut self.client.borrow_mut()).ok();
        drop(self.client);
        if status.as_ref().is_some_and(|status| status.connections > 1) {
            return Ok(());
        }
        let programs = status.map_or(0, |status| status.children.all);
        if programs > 0 {
            output.say(&format!(
                "the daemon (pid {}) stays until its programs have ended; {programs} run",
                child.id()
            ));
            return Ok(());
        }
        let Some(process) = Process::open(child.id())? else {
            child.wait().context("cannot wait for the daemon")?;
            return discard_private(&self.home, self.mode);
        };
        match self.mode {
            // Nobody else can have joined it, and its home goes with it.
            Mode::Private if !process.wait(TIMEOUT)? => {
                let text = format!(
                    "the daemon (pid {}) does not end; its home stays: {}",
                    child.id(),
                    self.home.root().display()
                );
                return Err(Failure::new(Exit::Timeout, text).into());
            }
            Mode::Private => {}
            _ if !process.wait(LEAVE_TIMEOUT)? => return Ok(()),
            _ => {}
        }
        child.wait().context("cannot wait for the daemon")?;
        discard_private(&self.home, self.mode)
    }
}

fn join(home: &Home, identity: Option<&Identity>, pid: u32) -> anyhow::Result<Client> {
    wait_until_ready(home, pid)?;
    Client::connect(home, identity)
}

fn start(home: &Home, identity: Option<&Identity>, mode: Mode) -> anyhow::Result<(Client, Child)> {
    let mut child = Launch {
        home,
        mode,
        safe: false,
        ends_with_client: true,
    }
    .run()?;
    match Client::connect(home, identity) {
        Ok(client) => Ok((client, child)),
        Err(error) => {
            end(&mut child)?;
            Err(error)
        }
    }
}

/// Whether another attempt may go better: somebody else's start was faster, or the daemon has served another client meanwhile and
/// was just leaving.
fn is_passing(error: &anyhow::Error) -> bool {
    let report = Report::of(error);
    report.kind == Exit::Unreachable || report.problem.as_deref() == Some(daemon::HELD)
}

/// Whether a daemon that could not be joined is on its way out; waits for its end.
fn is_leaving(pid: u32) -> anyhow::Result<bool> {
    Process::open(pid)?.map_or(Ok(true), |process| process.wait(LEAVE_TIMEOUT))
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
