//! What comes to a daemon when keeper and guard are both gone: it is the next that inherits what they leave.
//!
//! A main process dies with the keeper because it asked for that, and root's programs can take that back; what it has started asked for
//! nothing. Those clear their environment and leave their session at will, and are found here all the same, because nobody leaves those
//! that it descends from. What is inherited is told from what this process has started itself by its session: a program is in none that
//! was there before it.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, WaitId, WaitIdOptions, getpid, getsid, set_child_subreaper, waitid};

use super::tree;

/// How long their end is tried for; what is in a call that cannot be interrupted ends when that does, being killed already.
const END_MAX: Duration = Duration::from_secs(10);

/// Between looks at those that neither ended nor could be killed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Guards that this process has started, one for each home that it is the daemon of.
static GUARDS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a guard, and inherits from then on what is left of it.
pub(super) fn start(mut guard: Command) -> io::Result<Child> {
    let mut guards = GUARDS.lock();
    set_child_subreaper(Some(getpid()))?;
    let guard = guard.spawn()?;
    guards.insert(guard.id());
    Ok(guard)
}

/// Kills what a keeper and this guard of its have left to this process, and waits for it, at most ten seconds. How many are still there.
/// For a daemon that has waited for the guard, or has given that up.
#[must_use]
pub fn end_inherited(guard: Option<u32>) -> usize {
    if let Some(guard) = guard {
        GUARDS.lock().remove(&guard);
    }
    let until = Instant::now() + END_MAX;
    loop {
        let left = inherited().len();
        if left == 0 || Instant::now() >= until {
            return left;
        }
        let killed = tree::kill(inherited);
        if killed.is_empty() {
            tree::pause(LOOK_AGAIN_AFTER);
        }
        tree::gone(&killed);
    }
}

/// Children of this process that it has not started; those that have ended are waited for, and what they leave comes to this process as well.
fn inherited() -> Vec<Pid> {
    let own = getsid(None).map_or(0, Pid::as_raw_pid);
    let ended = |pid: Pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    loop {
        let guards = GUARDS.lock();
        let mut found = tree::stable_children(getpid());
        found.retain(|pid| {
            let is_guard = guards.contains(&pid.as_raw_pid().cast_unsigned());
            !is_guard && tree::stat(*pid).is_some_and(|stat| stat.session != own)
        });
        drop(guards);
        let all = found.len();
        found.retain(|pid| matches!(ended(*pid), Ok(None)));
        // One that ended since they were looked at may have left others: not all were seen.
        if found.len() == all {
            return found;
        }
    }
}
