//! The keeper: a small process of its own that starts programs, holds them, and ends them (A14).
//!
//! The daemon never forks a program. It starts a *guard*, which starts the *keeper*, which starts each program by way of a *launcher*; all are
//! this binary. The keeper is single-threaded and does little, so that it goes on when the daemon is killed, and then ends every child that is
//! not to be adopted by the next daemon. Every process here is the one that inherits what its children leave:
//!
//! ```text
//! daemon ── guard ── keeper ─┬─ main process of a child ── whatever it starts
//!                            └─ ...
//! ```
//!
//! - the daemon ends: the keeper sees its socket close, and ends the children;
//! - the keeper ends: the system kills each main process, and the guard, which inherits the rest, kills that;
//! - the guard ends: the keeper sees it, and kills everything;
//! - keeper and guard at once: the daemon that started them inherits the rest, and kills that ([`end_inherited`]);
//! - all three, or the two that an earlier daemon started: the main processes are killed by the system, and [`sweep`] finds the rest by
//!   its mark.
//!
//! A main process inherits what its descendants leave, so a child of the keeper that it does not know was left by a main process
//! that has ended: it is killed as soon as it is seen, and nothing has to be guessed.
//!
//! # Layout
//!
//! [`protocol`] what is said; `tree` and `mark` who belongs to whom; `landlock`, `seccomp`, `namespaces`, `mounts`, `own`, `views`, `cgroup`, `confine` and [`launcher`] how a process becomes a
//! program; [`machine`] what of that can be had; `children` the keeper's table; `serve` its loop; [`guard`] who watches it; `inherited` what is the daemon's after both. Here is what a daemon needs.
//!
//! Deliberately absent: any policy. What is started, and whether again, is not decided here; nor is output read.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::home::Home;

mod cgroup;
mod children;
mod confine;
pub mod guard;
mod inherited;
mod landlock;
pub mod launcher;
pub mod machine;
mod mark;
mod merging;
mod mounts;
mod namespaces;
mod own;
pub mod protocol;
mod seccomp;
mod serve;
mod system;
mod tree;
mod views;

pub use guard::{INNER_ARGUMENT, held, includes};
pub use inherited::end_inherited;
pub use launcher::LAUNCHER_ARGUMENT;
pub use mark::of_home as home_mark;
pub use namespaces::Merged;
pub use serve::run as serve;
pub use tree::{Usage, is_descendant, unnamed_bytes, usage};

/// The argument that makes this program a guard, or with [`INNER_ARGUMENT`] a keeper.
pub const KEEPER_ARGUMENT: &str = "__keeper";

/// Starts a guard and with it a keeper: the daemon's end of their socket (`SOCK_SEQPACKET`, does not block), and the guard, which is to be
/// waited for. The daemon says [`protocol::ToKeeper::Hello`] first. When the socket ends nothing more is told; when the guard has ended too,
/// and [`end_inherited`] has found nobody, nothing more lives.
///
/// # Errors
///
/// No process or descriptor is left.
pub fn start(home: &Home, program: &Path) -> io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = protocol::Connection::pair()?;
    let mut guard = Command::new(program);
    guard
        .arg(KEEPER_ARGUMENT)
        .arg("--home")
        .arg(home.root())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs.into_socket()))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let guard = inherited::start(guard)?;
    let ours = ours.into_socket();
    rustix::fs::fcntl_setfl(&ours, rustix::fs::OFlags::NONBLOCK)?;
    Ok((ours, guard))
}

/// Connects to the keeper that an earlier daemon of this home left with children that are to be adopted. As after [`start`],
/// [`protocol::ToKeeper::Hello`] is said first, within two seconds, with the same secret.
///
/// # Errors
///
/// `NotFound` or `ConnectionRefused`: there is none.
pub fn reconnect(home: &Home) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(home.keeper_socket())?)?;
    Ok(protocol::Connection::new(socket).into_socket())
}

/// Kills what a keeper left whose guard did not live either, found by its mark; nothing if they ended in order, or if one lives. How many
/// processes. For a daemon that has just started, and for one whose keeper and guard are gone.
pub fn sweep(home: &Home) -> usize {
    if held(home) || !guard::ended_badly(home) {
        return 0;
    }
    let killed = mark::sweep(home);
    guard::forget(home);
    killed
}
