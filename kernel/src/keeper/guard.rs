//! The keeper's own keeper: it does nothing but wait, and ends what is left when the keeper is gone.
//!
//! Whatever a keeper has started descends from the guard as well, which is the next to inherit it. So there is no moment at which killing one of
//! the two leaves anything behind; if both are killed at once, every child's main process dies with the keeper (it asked the system for that), and
//! the daemon that started them inherits the rest; if that is killed as well, the next one finds it by its mark.

#![allow(clippy::disallowed_methods, reason = "this module owns the keeper's files")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions, getpid, set_child_subreaper, set_dumpable_behavior, setsid,
    waitid,
};

use super::protocol::{Connection, FromKeeper};
use super::{KEEPER_ARGUMENT, tree};
use crate::home::{Home, PRIVATE_FILE, remove_file, write_run_file};

/// Asks a guard to be the keeper of the guard whose process id follows.
pub const INNER_ARGUMENT: &str = "--inner";

/// How long the end of everything is tried for: what is in a call that cannot be interrupted ends when that does, being killed already.
const END_MAX: Duration = Duration::from_secs(10);

/// Between looks at children that neither ended nor could be killed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Signals that come to a whole session or service, and that are the daemon's to answer: it ends its keeper in order.
const NOT_OURS: [Signal; 6] = [
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];

/// What guard and keeper do first: they take no notice of signals that are meant for the daemon (programs that are started do: a handler
/// ends with exec), have only their three descriptors, inherit what descends from them, and cannot be looked into by those.
pub(super) fn prepare() -> io::Result<()> {
    let nobody = Arc::new(AtomicBool::new(false));
    for signal in NOT_OURS {
        signal_hook::flag::register(signal.as_raw(), Arc::clone(&nobody))?;
    }
    close_fds::set_fds_cloexec(3, &[]);
    set_child_subreaper(Some(getpid()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The guard, from its start to its end: with the keeper's socket as standard input.
///
/// # Errors
///
/// The system refused something at the start, and there is no keeper. The daemon has been told.
pub fn run(home: &Home) -> io::Result<()> {
    prepare()?;
    // Fails only for one that leads a group already, as when it is started by hand.
    let _ = setsid();
    let started = lock(home).and_then(|lock| start(home, lock));
    let (mut keeper, _lock) = match started {
        Ok(started) => started,
        Err(error) => {
            refuse(&error);
            return Err(error);
        }
    };
    // Only the keeper's end of the daemon's socket is left, so that its end is seen.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let ended = keeper.wait();
    end_everything_below();
    forget(home);
    ended.map(drop)
}

fn start(home: &Home, lock: File) -> io::Result<(std::process::Child, File)> {
    let keeper = Command::new("/proc/self/exe")
        .arg(KEEPER_ARGUMENT)
        .arg("--home")
        .arg(home.root())
        .arg(INNER_ARGUMENT)
        .arg(getpid().to_string())
        .env_clear()
        .stdin(Stdio::inherit())
        // It says nothing there; but it holds the lock for as long as it lives.
        .stdout(Stdio::from(lock.try_clone()?))
        .stderr(Stdio::null())
        .spawn()?;
    let pids = format!("{{\"guard\":{},\"keeper\":{}}}\n", std::process::id(), keeper.id());
    write_run_file(&home.keeper_file(), &pids)?;
    Ok((keeper, lock))
}

fn lock(home: &Home) -> io::Result<File> {
    let file = open_lock(&home.keeper_lock_file(), true)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(io::Error::other("another keeper still holds children of this home")),
        Err(error) => Err(error.into()),
    }
}

fn open_lock(path: &Path, make: bool) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(make)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

/// Whether a keeper or its guard lives, and may hold children of this home.
#[must_use]
pub fn held(home: &Home) -> bool {
    let Ok(file) = open_lock(&home.keeper_lock_file(), false) else {
        return false;
    };
    let taken = flock(&file, FlockOperation::NonBlockingLockShared);
    matches!(taken, Err(rustix::io::Errno::WOULDBLOCK))
}

/// Whether a process is the guard, the keeper, or descends from one of them. When that cannot be told (it has ended, or they are about to),
/// it counts as one; when no keeper lives, it does not.
#[must_use]
pub fn includes(home: &Home, pid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(home.keeper_file()) else {
        return false;
    };
    if !held(home) {
        return false;
    }
    let Ok(pids) = serde_json::from_str::<Pids>(&text) else {
        return true;
    };
    let below = |of| tree::is_descendant(pid.cast_signed(), of).unwrap_or(true);
    below(pids.guard) || below(pids.keeper)
}

/// What `var/keeper` says.
#[derive(serde::Deserialize)]
struct Pids {
    guard: i32,
    keeper: i32,
}

/// Tells the daemon, who waits for a greeting on the socket that is standard input.
fn refuse(error: &io::Error) {
    use std::os::fd::AsFd as _;
    if let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() {
        let message = error.to_string();
        let _ = Connection::new(socket).send(&FromKeeper::Refused { message }, &[]);
    }
}

/// Removes what names the keeper, when it is certain that nobody is left.
pub(super) fn forget(home: &Home) {
    let _ = remove_file(&home.keeper_socket());
    let _ = remove_file(&home.keeper_file());
}

/// Kills and waits for all that descends from this process.
pub(super) fn end_everything_below() {
    let own = getpid();
    let until = Instant::now() + END_MAX;
    while reap() && Instant::now() < until {
        let killed = tree::kill(|| tree::children(own));
        if killed.is_empty() {
            tree::pause(LOOK_AGAIN_AFTER);
        }
        tree::gone(&killed);
    }
}

/// Waits for all that have ended. Whether any child is left.
fn reap() -> bool {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Whether a process is the one that started this one, and lives.
pub(super) fn is_parent(pid: Pid) -> bool {
    rustix::process::getppid() == Some(pid)
}

/// Whether the last keeper of this home and its guard ended without having looked that nobody is left.
pub(super) fn ended_badly(home: &Home) -> bool {
    home.keeper_file().exists()
}
