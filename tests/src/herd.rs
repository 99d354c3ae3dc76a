//! Programs that a daemon runs, seen from outside: found by a mark in their environment, and held by pidfds.

#![allow(clippy::disallowed_methods, reason = "reads /proc")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::process::PATIENCE;

/// The variable that marks them.
pub const MARK: &str = "ASTRID_TEST_HERD";

/// One of them.
#[derive(Debug)]
pub struct Member {
    /// Its process id.
    pub pid: u32,
    pidfd: OwnedFd,
}

/// All that carry a mark.
#[derive(Debug, Clone)]
pub struct Herd {
    needle: Vec<u8>,
}

impl Herd {
    /// Those with this value of [`MARK`].
    #[must_use]
    pub fn of(mark: &str) -> Self {
        Self {
            needle: format!("{MARK}={mark}").into_bytes(),
        }
    }

    /// Those that live now.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| self.member(pid)).collect()
    }

    fn member(&self, pid: u32) -> Option<Member> {
        // Held before it is looked at: what was read is about this one.
        let pidfd = pidfd_open(raw(pid)?, PidfdFlags::empty()).ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == self.needle);
        marked.then_some(Member { pid, pidfd })
    }

    /// Waits until none lives.
    ///
    /// # Panics
    /// Some still do after a long time.
    #[track_caller]
    pub fn wait_until_gone(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.members();
            let Some(first) = left.first() else { return };
            assert!(
                Instant::now() < deadline && first.wait(PATIENCE),
                "{} programs are left: {:?}",
                left.len(),
                left.iter().map(|member| describe(member.pid)).collect::<Vec<_>>()
            );
        }
    }
}

impl Member {
    /// Waits for its end. False when it still lives after that time.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Kills a process, if it is there.
pub fn kill(pid: u32) {
    if let Some(pid) = raw(pid) {
        // Gone already is what was wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The parent of a process.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// What a process is, for a failure.
#[must_use]
pub fn describe(pid: u32) -> String {
    let directory = Path::new("/proc").join(pid.to_string());
    let command = std::fs::read(directory.join("cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    format!("{pid} (parent {:?}): {command}", parent(pid))
}
