//! Who descends from whom, and the end of all of them (A14).
//!
//! Everything is read from `/proc`, which the system keeps whatever a process does to hide: it can leave its group and its session, it
//! cannot leave its parents. What is found is stopped before it is killed, again and again until nothing new appears: what is
//! stopped cannot fork, so that not even a program that forks without end gets away. A process is signalled through a pidfd, and
//! only after its parent was seen once more, so that a number that was given to somebody else meanwhile harms nobody.

#![allow(clippy::disallowed_methods, reason = "/proc is read, which no capsule names")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Times that a tree is looked at for what is new. One that still grows then is killed as far as it is known; what
/// it leaves comes to the keeper, which begins again.
const ROUNDS_MAX: usize = 64;

/// Times that a list of children is read, if it changes each time.
const LOOKS_MAX: usize = 8;

/// Processes that are looked at: more than the system's own limit usually is.
const PROCESSES_MAX: usize = 1 << 20;

/// Open files of one process that are looked at.
const DESCRIPTORS_MAX: usize = 1 << 20;

/// What `statfs` says of a file system in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Generations that are gone up.
const ANCESTORS_MAX: usize = 4096;

/// How long what was killed is waited for: one in a call that cannot be interrupted holds up nobody.
const DYING_MAX: Duration = Duration::from_secs(1);

/// Ticks of the clock that `/proc` counts in: the same on every machine that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// What a process and everything that it has started use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many there are.
    pub processes: u32,
    /// Processor time of them, and of those that ended and that they have waited for.
    pub cpu_ms: u64,
    /// Resident memory; pages that are shared count for each.
    pub memory_bytes: u64,
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) parent: i32,
    pub(super) session: i32,
    /// Its processor time, and that of those that it has waited for.
    pub(super) cpu_ms: u64,
    /// Whether it has ended, and was not waited for. (One whose first thread has ended and that goes on in others has not.)
    pub(super) ended: bool,
}

/// None when there is no such process.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may hold anything.
    let (_, after_name) = line.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().take(18).collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let all = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat {
        ended: matches!(fields.first(), Some(&("Z" | "X"))) && number(17)? <= 1,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        cpu_ms: all * (1000 / TICKS_PER_SECOND),
    })
}

/// The children of a process, those included that have ended and were not waited for.
pub(super) fn children(of: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{of}/task")) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(parse_pid)),
            // A thread that has ended, or a system that does not list children.
            Err(_) if thread.path().exists() => return children_by_parent(of),
            Err(_) => {}
        }
    }
    found
}

/// The same, looked at until nothing changes: the system's list may leave out some while others come and go.
pub(super) fn stable_children(of: Pid) -> Vec<Pid> {
    let mut found = children(of);
    for _ in 0..LOOKS_MAX {
        let again = children(of);
        if again == found {
            break;
        }
        found = again;
    }
    found
}

fn children_by_parent(of: Pid) -> Vec<Pid> {
    let is_child = |pid: &Pid| stat(*pid).is_some_and(|stat| stat.parent == of.as_raw_pid());
    all().into_iter().filter(is_child).collect()
}

/// All processes.
pub(super) fn all() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| parse_pid(name.to_str()?))
        .take(PROCESSES_MAX)
        .collect()
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().filter(|pid| *pid > 0).and_then(Pid::from_raw)
}

/// Those and everything below them, each with the parent that it was found by.
fn below(roots: &[Pid]) -> Vec<(Pid, Option<Pid>)> {
    let mut found: Vec<(Pid, Option<Pid>)> = roots.iter().map(|root| (*root, None)).collect();
    let mut at = 0;
    while at < found.len() && found.len() < PROCESSES_MAX {
        let parent = found[at].0;
        found.extend(children(parent).into_iter().map(|child| (child, Some(parent))));
        at += 1;
    }
    found
}

/// How many processes live below one, itself included.
pub(super) fn size(root: Pid) -> u32 {
    let all = below(&[root]).into_iter();
    let living = all
        .filter(|(pid, _)| stat(*pid).is_some_and(|stat| !stat.ended))
        .count();
    u32::try_from(living).unwrap_or(u32::MAX)
}

/// Sends a signal to everything that descends from the roots and to these. Who cannot be reached (set to another user) is left.
pub(super) fn signal(roots: &[Pid], signal: Signal) {
    for (pid, parent) in below(roots) {
        if let Some(process) = open(pid, parent) {
            let _ = pidfd_send_signal(process, signal);
        }
    }
}

/// Kills the roots and everything that descends from them. `roots` is asked again in each round, for what lost its parent comes
/// to somebody else. Those that were killed; each is ended soon, unless it is in a call that cannot be interrupted.
pub(super) fn kill(mut roots: impl FnMut() -> Vec<Pid>) -> Vec<OwnedFd> {
    let mut stopped: HashMap<Pid, OwnedFd> = HashMap::new();
    for _ in 0..ROUNDS_MAX {
        let mut new = false;
        for (pid, parent) in below(&roots()) {
            if stopped.contains_key(&pid) || stat(pid).is_none_or(|stat| stat.ended) {
                continue;
            }
            if let Some(process) = open(pid, parent)
                && pidfd_send_signal(&process, Signal::STOP).is_ok()
            {
                new = true;
                stopped.insert(pid, process);
            }
        }
        if !new {
            break;
        }
    }
    for process in stopped.values() {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    stopped.into_values().collect()
}

/// Waits for the end of processes that were killed, at most [`DYING_MAX`] for all.
pub(super) fn gone(processes: &[OwnedFd]) {
    let deadline = Instant::now() + DYING_MAX;
    for process in processes {
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&left));
    }
}

/// Lets a moment pass, or less if a signal comes.
pub(super) fn pause(moment: Duration) {
    let _ = poll(&mut [], Some(&timespec(moment)));
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Takes hold of a process, if it is still the child of that parent or of one that it was left to.
fn open(pid: Pid, parent: Option<Pid>) -> Option<OwnedFd> {
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    if let Some(parent) = parent {
        let now = stat(pid)?.parent;
        let left_to_another = || stat(parent).is_none_or(|parent| parent.ended);
        if now != parent.as_raw_pid() && !left_to_another() {
            return None;
        }
    }
    Some(process)
}

/// Whether a process descends from another, or is it. Nothing where that cannot be told, because one of them has ended.
#[must_use]
pub fn is_descendant(pid: i32, of: i32) -> Option<bool> {
    let mut at = pid;
    for _ in 0..ANCESTORS_MAX {
        if at == of {
            return Some(true);
        }
        if at <= 1 {
            return Some(false);
        }
        at = stat(Pid::from_raw(at)?)?.parent;
    }
    None
}

/// What a process and everything that it has started use now. Nothing of one that is gone.
#[must_use]
pub fn usage(pid: i32) -> Usage {
    let mut usage = Usage::default();
    let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_pid() > 0) else {
        return usage;
    };
    for (pid, _) in below(&[pid]) {
        let Some(stat) = stat(pid) else { continue };
        usage.cpu_ms += stat.cpu_ms;
        if !stat.ended {
            usage.processes += 1;
            usage.memory_bytes += resident_bytes(pid);
        }
    }
    usage
}

/// Bytes of files on disks that processes, and those below them, have open and that have no name any more. Of those who cannot be looked at, nothing.
#[must_use]
pub fn unnamed_bytes(pids: &[u32]) -> u64 {
    let roots: Vec<Pid> = pids.iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).collect();
    let mut seen = HashSet::new();
    let mut bytes = 0_u64;
    for (pid, _) in below(&roots) {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in open.flatten().take(DESCRIPTORS_MAX) {
            let path = descriptor.path();
            // What it leads to, whatever its name says.
            let Ok(stat) = rustix::fs::stat(&path) else { continue };
            let unnamed = stat.st_nlink == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if !unnamed || !seen.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            // Memory has a limit of its own.
            let in_memory = rustix::fs::statfs(&path).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
            if !in_memory {
                bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
            }
        }
    }
    bytes
}

fn resident_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_name_does_not_confuse() {
        let line = "7 (a) Z (b) R 1) S 5 7 9 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 99 1 1";
        let expected = Stat {
            parent: 5,
            session: 9,
            cpu_ms: 1000,
            ended: false,
        };
        assert_eq!(parse_stat(line), Some(expected));
        for bad in ["", "7 (a", "7 (a) S", "7 (a) S 1 1 1 0 0 0 0 0 0 0 x 0 0 0 0 0 1"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
    }

    /// A file without a name takes room as long as somebody has it open.
    #[test]
    fn unnamed_files_count() {
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let script = "exec 3>x; head -c 100000 /dev/zero >&3; echo named; read _; rm x; echo unnamed; read _";
        let mut shell = std::process::Command::new("sh")
            .current_dir(place.path())
            .args(["-c", script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(shell.stdout.take().unwrap());
        let mut stdin = shell.stdin.take().unwrap();
        let pid = [shell.id()];
        let mut hear = || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        };
        hear();
        assert_eq!(unnamed_bytes(&pid), 0);
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        hear();
        let on_disk = rustix::fs::statfs(place.path()).unwrap().f_type != TMPFS_MAGIC;
        assert_eq!(unnamed_bytes(&pid) >= 100_000, on_disk);
        drop(stdin);
        shell.wait().unwrap();
        assert_eq!(unnamed_bytes(&pid), 0);
    }

    #[test]
    fn descent_is_told() {
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = rustix::process::getppid().unwrap().as_raw_pid();
        assert_eq!(is_descendant(own, own), Some(true));
        assert_eq!(is_descendant(own, parent), Some(true));
        assert_eq!(is_descendant(parent, own), Some(false));
        assert_eq!(is_descendant(i32::MAX, own), None);
        assert!(usage(own).processes >= 1 && usage(own).memory_bytes > 0);
        assert_eq!(usage(i32::MAX), Usage::default());
    }
}
