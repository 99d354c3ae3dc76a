//! Another process, held by a pidfd: it cannot be mistaken for a later one with the same number, and its end is an event.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::{Exit, Failure};

/// A process that exists, or did when it was opened.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes hold of a process; none if there is no such process any more.
    pub(crate) fn open(pid: u32) -> anyhow::Result<Option<Self>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Some(Self { pid, pidfd })),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot observe process {}", pid.as_raw_pid())),
        }
    }

    /// Asks it to end (SIGTERM). One that has ended already is no error.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        match pidfd_send_signal(&self.pidfd, Signal::TERM) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::PERM) => {
                let pid = self.pid.as_raw_pid();
                Err(Failure::new(Exit::Denied, format!("process {pid} belongs to another user")).into())
            }
            Err(error) => Err(error).context("cannot send SIGTERM"),
        }
    }

    /// Waits until it has ended, at most so long. Whether it has.
    pub(crate) fn wait(&self, timeout: Duration) -> anyhow::Result<bool> {
        let ready = wait(
            &mut [PollFd::new(&self.pidfd, PollFlags::IN)],
            Some(Instant::now() + timeout),
        )?;
        Ok(ready > 0)
    }

    /// Readable once it has ended.
    pub(crate) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }
}

/// `poll(2)` until a point in time, across signals. How many are ready.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> anyhow::Result<usize> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(fds, left.as_ref()) {
            Ok(ready) => return Ok(ready),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
    }
}
