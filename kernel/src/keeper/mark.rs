//! The mark in the environment of a child and of everything that it starts, by which a home finds its own when nobody is left who held
//! them.
//!
//! A program can clear its environment, so this is the last resort: the keeper and its guard know their children by descent, and
//! a child's main process dies with the keeper whatever happens.

#![allow(clippy::disallowed_methods, reason = "/proc is read, which no capsule names")]

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use astrid_wire::child::MARK_VARIABLE;
use rustix::process::{Pid, getpid, getppid};

use super::protocol::ChildId;
use super::tree;
use crate::home::Home;

/// Hexadecimal digits of a home in the mark.
const HOME_DIGITS: usize = 16;

/// Bytes of an environment that are read: the system's own limit for arguments and environment is usually 2 MiB.
const ENVIRONMENT_BYTES_MAX: u64 = 4 << 20;

/// Times that the machine is searched. Each time everything that is found is killed with what it has started.
const ROUNDS_MAX: usize = 16;

/// What the marks of all children of a home begin with.
#[must_use]
pub fn of_home(home: &Home) -> String {
    let hash = blake3::hash(home.root().as_os_str().as_bytes()).to_hex();
    format!("{}/", &hash[..HOME_DIGITS])
}

/// The mark of a child.
pub(super) fn of_child(of_home: &str, id: ChildId) -> String {
    format!("{of_home}{}.{}", id.boot, id.port)
}

/// Which child of that home a process belongs to, by its mark.
pub(super) fn read(pid: Pid, of_home: &str) -> Option<ChildId> {
    let mark = variable(pid, of_home)?;
    let (boot, port) = mark.split_once('.')?;
    Some(ChildId {
        boot: boot.parse().ok()?,
        port: port.parse().ok()?,
    })
}

/// The mark of a process without its home's part, if it has one of that home.
fn variable(pid: Pid, of_home: &str) -> Option<String> {
    let mut environment = Vec::new();
    let file = File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment).ok()?;
    let wanted = format!("{MARK_VARIABLE}={of_home}");
    let mut variables = environment.split(|byte| *byte == 0);
    let found = variables.find_map(|variable| variable.strip_prefix(wanted.as_bytes()))?;
    Some(String::from_utf8_lossy(found).into_owned())
}

/// Kills every process with the home's mark, and what descends from it; but not this one, nor those that it descends from. How many.
pub(super) fn sweep(home: &Home) -> usize {
    let mark = of_home(home);
    let spared = ancestors();
    let mut killed = 0;
    for _ in 0..ROUNDS_MAX {
        let marked = || -> Vec<Pid> {
            let all = tree::all().into_iter();
            all.filter(|pid| !spared.contains(pid) && variable(*pid, &mark).is_some())
                .collect()
        };
        let ended = tree::kill(marked);
        if ended.is_empty() {
            break;
        }
        killed += ended.len();
        tree::gone(&ended);
    }
    killed
}

fn ancestors() -> HashSet<Pid> {
    let mut found = HashSet::from([getpid()]);
    let mut at = getppid();
    while let Some(pid) = at
        && found.insert(pid)
    {
        at = tree::stat(pid).and_then(|stat| Pid::from_raw(stat.parent));
    }
    found
}
