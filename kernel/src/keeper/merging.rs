//! Launchers that merge directories for the daemon: each enters namespaces, mounts, hands over what keeps that alive, and ends.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, waitid};

use super::children::{fork, lacking, machine, refused, tell};
use super::protocol::{Connection, Failure, Launched, Layers, Order, ProtocolError};

/// At a time: each is a process, and there is one directory for a principal.
const MERGING_MAX: usize = 64;

/// What was handed over: whether a namespace of users is the first of the descriptors.
pub(super) type Handed = Result<(bool, Vec<OwnedFd>), Failure>;

/// All of them.
#[derive(Default)]
pub(super) struct Merging {
    by_pid: HashMap<Pid, (u64, Connection)>,
}

impl Merging {
    pub(super) fn includes(&self, pid: Pid) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// Starts one; where it will answer.
    pub(super) fn start(&mut self, id: u64, layers: Layers) -> Result<(Pid, &Connection), Failure> {
        if self.by_pid.len() >= MERGING_MAX {
            return Err(refused(&format!("{MERGING_MAX} directories are being merged already")));
        }
        let (control, launcher) = Connection::pair().map_err(lacking("a socket"))?;
        let keeper = getpid().as_raw_pid();
        tell(&control, &Order::Merge { keeper, layers }, &[])?;
        let pid = fork(launcher, Stdio::null(), Stdio::null())?;
        let (_, control) = self.by_pid.entry(pid).or_insert((id, control));
        Ok((pid, control))
    }

    /// What one says, if it is one and has said it. It has ended then.
    pub(super) fn look(&mut self, pid: Pid, buffer: &mut Vec<u8>) -> Option<(u64, Handed)> {
        let (id, control) = self.by_pid.get(&pid)?;
        let handed = match control.receive::<Launched>(buffer) {
            Err(ProtocolError::WouldBlock) => return None,
            Ok((Launched::Merged(user), descriptors)) => Ok((user, descriptors)),
            Ok((Launched::Failed(failure), _)) => Err(failure),
            Ok((Launched::Ready(_), _)) | Err(_) => Err(machine("it ended before anything was mounted", 0)),
        };
        let id = *id;
        // All that it had to do is done; nobody else waits for it, so this is the right process.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
        self.by_pid.remove(&pid);
        Some((id, handed))
    }
}
