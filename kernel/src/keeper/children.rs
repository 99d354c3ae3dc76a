//! The keeper's children: how one is started, and what is known of each until its end was told.
//!
//! A child is a row from the moment that its launcher was forked until its main process has been waited for. The process number in it cannot
//! be given to another process meanwhile, because only the keeper waits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use astrid_wire::child::{self, MARK_VARIABLE};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process_group, pidfd_open, waitid,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::cgroup::{self, Group, Groups, TreeLimits};
use super::launcher::LAUNCHER_ARGUMENT;
use super::mark;
use super::merging::Merging;
use super::protocol::{
    ChildId, Connection, Errors, Failure, Launch, Launched, NOTES_BYTES_MAX, Order, ProtocolError, Spec, Stage,
    Streams, TreeLimit,
};
use super::tree;

/// Children at a time. Each costs the keeper up to six descriptors and a kilobyte.
pub(super) const CHILDREN_MAX: usize = 16_384;

/// The lowest number of a descriptor that is made by copying: not one of the three that have a meaning.
const FIRST_FREE: i32 = 3;

/// The daemon's ends of a child's streams.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) input: Option<OwnedFd>,
    pub(super) output: Option<OwnedFd>,
    pub(super) errors: Option<OwnedFd>,
}

impl Ends {
    pub(super) fn streams(&self) -> Streams {
        Streams {
            input: self.input.is_some(),
            output: self.output.is_some(),
            errors: self.errors.is_some(),
        }
    }

    /// In the order of [`Streams`].
    pub(super) fn into_descriptors(self) -> Vec<OwnedFd> {
        [self.input, self.output, self.errors].into_iter().flatten().collect()
    }

    pub(super) fn try_clone(&self) -> Result<Ends, Errno> {
        let copy = |end: &Option<OwnedFd>| end.as_ref().map(|end| fcntl_dupfd_cloexec(end, FIRST_FREE)).transpose();
        Ok(Ends {
            input: copy(&self.input)?,
            output: copy(&self.output)?,
            errors: copy(&self.errors)?,
        })
    }
}

/// How far a child has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Its launcher prepares itself; `ready` once the program is next, with what it lacks.
    Launching {
        control: Connection,
        ready: Option<Vec<String>>,
    },
    /// Its program runs.
    Running,
    /// It was told to have failed; its launcher ends.
    Failed,
}

/// A child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) pid: Pid,
    /// Readable once it has ended.
    pub(super) pidfd: OwnedFd,
    pub(super) adopt: bool,
    pub(super) notes: String,
    pub(super) started_at_ms: u64,
    pub(super) phase: Phase,
    /// Until they were handed over; those of a child that is to be adopted for as long as it lives, so that it can go on
    /// writing when the daemon is gone.
    pub(super) ends: Ends,
    /// Processes that it left when it ended.
    pub(super) left_behind: u32,
    /// Its control group, if it has limits of its whole tree.
    pub(super) group: Option<Group>,
}

impl Child {
    /// Of the limits of its whole tree those that something was ended or refused for.
    pub(super) fn exceeded(&self) -> Vec<TreeLimit> {
        let Some(group) = &self.group else { return Vec::new() };
        let memory = (group.killed_for_memory() > 0).then_some(TreeLimit::Memory);
        let processes = (group.refused_processes() > 0).then_some(TreeLimit::Processes);
        memory.into_iter().chain(processes).collect()
    }
}

/// What came of looking at a launcher.
pub(super) enum Launching {
    /// Nothing yet.
    Waits,
    Runs(Vec<String>),
    Failed(Failure),
}

impl Child {
    /// What the launcher says, as far as it has said it.
    pub(super) fn look(&mut self, buffer: &mut Vec<u8>) -> Launching {
        let Phase::Launching { control, ready } = &mut self.phase else {
            return Launching::Waits;
        };
        loop {
            match control.receive::<Launched>(buffer) {
                Ok((Launched::Ready(lacking), _)) => *ready = Some(lacking),
                Ok((Launched::Failed(failure), _)) => return Launching::Failed(failure),
                Err(ProtocolError::WouldBlock) => return Launching::Waits,
                Err(ProtocolError::Closed) if ready.is_some() => {
                    return Launching::Runs(ready.take().unwrap_or_default());
                }
                Ok((Launched::Merged(_), _)) | Err(_) => {
                    return Launching::Failed(machine("it ended before its program was started", 0));
                }
            }
        }
    }
}

/// An end that was seen and is told once nothing is left of what it left behind.
pub(super) struct Exit {
    pub(super) child: Child,
    pub(super) how: child::Exit,
    pub(super) cpu_ms: u64,
}

/// What every child is given besides its own.
pub(super) struct Common {
    /// The mark of the home.
    pub(super) mark: String,
    /// Soft limit of open files.
    pub(super) nofile: u64,
}

/// All of them.
#[derive(Default)]
pub(super) struct Children {
    by_pid: HashMap<Pid, Child>,
    /// Launchers that merge directories.
    pub(super) merging: Merging,
    by_id: BTreeMap<ChildId, Pid>,
    launching: usize,
    /// Strays that were counted for who left them, until they are gone.
    counted: HashSet<Pid>,
}

impl Children {
    pub(super) fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    /// How many are not yet started.
    pub(super) fn launching(&self) -> usize {
        self.launching
    }

    pub(super) fn get(&mut self, pid: Pid) -> Option<&mut Child> {
        self.by_pid.get_mut(&pid)
    }

    pub(super) fn named(&mut self, id: ChildId) -> Option<&mut Child> {
        self.by_pid.get_mut(self.by_id.get(&id)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.by_pid.values()
    }

    /// Starts a program; the row of its child.
    pub(super) fn spawn(
        &mut self,
        id: ChildId,
        spec: Box<Spec>,
        within: &[OwnedFd],
        common: &Common,
    ) -> Result<&mut Child, Failure> {
        if self.by_id.contains_key(&id) {
            return Err(refused("its number is used already"));
        }
        if self.by_pid.len() >= CHILDREN_MAX {
            return Err(refused(&format!("there are {CHILDREN_MAX} children already")));
        }
        if spec.notes.len() > NOTES_BYTES_MAX {
            return Err(refused(&format!("its notes have more than {NOTES_BYTES_MAX} bytes")));
        }
        let child = start(id, spec, within, common)?;
        let pid = child.pid;
        self.by_id.insert(id, pid);
        self.launching += 1;
        Ok(self.by_pid.entry(pid).or_insert(child))
    }

    /// A child is not launching any more.
    pub(super) fn launched(&mut self, pid: Pid, phase: Phase) {
        if let Some(child) = self.by_pid.get_mut(&pid)
            && matches!(child.phase, Phase::Launching { .. })
        {
            child.phase = phase;
            self.launching -= 1;
        }
    }

    /// Waits for a child that has ended, and kills what is left of its process group before its number is free.
    pub(super) fn reap(&mut self, pid: Pid) -> Option<Exit> {
        let status = waitid(
            WaitId::Pid(pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT,
        );
        let Ok(Some(status)) = status else { return None };
        let cpu_ms = tree::stat(pid).map_or(0, |stat| stat.cpu_ms);
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        self.launched(pid, Phase::Failed);
        let child = self.by_pid.remove(&pid)?;
        if let Some(group) = &child.group {
            group.kill();
        }
        self.by_id.remove(&child.id);
        let how = how(&status);
        Some(Exit { child, how, cpu_ms })
    }

    /// Children that are not yet started are not for a later daemon, which could not know of them.
    pub(super) fn keep_only_running(&mut self) {
        for child in self.by_pid.values_mut() {
            child.adopt &= matches!(child.phase, Phase::Running);
        }
    }

    /// Forgets a child, which makes it a stray.
    pub(super) fn abandon(&mut self, id: ChildId) {
        if let Some(pid) = self.by_id.remove(&id) {
            self.launched(pid, Phase::Failed);
            self.by_pid.remove(&pid);
        }
    }

    /// Children of this process that are none of these: left by a main process that has ended. New ones are counted for it, or for
    /// `ended` if they hide whose they are; the dead are waited for. How each of the `exits` ended is not told yet.
    pub(super) fn strays(&mut self, ended: Option<Pid>, exits: &mut [Exit], mark: &str) -> Vec<Pid> {
        let mut found = tree::stable_children(getpid());
        found.retain(|pid| !self.by_pid.contains_key(pid) && !self.merging.includes(*pid));
        self.counted.retain(|stray| found.contains(stray));
        for stray in &found {
            let Some(stat) = tree::stat(*stray).filter(|stat| !stat.ended && !self.counted.contains(stray)) else {
                continue;
            };
            self.counted.insert(*stray);
            let left = tree::size(*stray);
            let mark = mark::read(*stray, mark);
            let session = Pid::from_raw(stat.session);
            let is_of = |child: &Child| Some(child.pid) == session || Some(child.id) == mark;
            let known = session.filter(|pid| self.by_pid.contains_key(pid));
            let known = known.or_else(|| self.by_id.get(&mark?).copied());
            if let Some(exit) = exits.iter_mut().find(|exit| is_of(&exit.child)) {
                exit.child.left_behind += left;
            } else if let Some(child) = known.or(ended).and_then(|pid| self.by_pid.get_mut(&pid)) {
                child.left_behind += left;
            } else if let Some(exit) = exits.first_mut() {
                exit.child.left_behind += left;
            }
        }
        found.retain(|stray| !reaped(*stray));
        found
    }
}

fn reaped(stray: Pid) -> bool {
    matches!(
        waitid(WaitId::Pid(stray), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
        Ok(Some(_)) | Err(Errno::CHILD)
    )
}

fn how(status: &WaitIdStatus) -> child::Exit {
    match status.terminating_signal() {
        Some(number) => child::Exit::Signal {
            number,
            name: signal_hook::low_level::signal_name(number).map_or_else(|| format!("SIG{number}"), str::to_owned),
            core: status.dumped(),
        },
        None => child::Exit::Code(status.exit_status().unwrap_or(0)),
    }
}

pub(super) fn refused(message: &str) -> Failure {
    Failure {
        stage: Stage::Request,
        errno: 0,
        message: message.to_owned(),
    }
}

pub(super) fn machine(message: &str, errno: i32) -> Failure {
    Failure {
        stage: Stage::Machine,
        errno,
        message: message.to_owned(),
    }
}

pub(super) fn lacking(what: &str) -> impl Fn(std::io::Error) -> Failure {
    move |error| {
        machine(
            &format!("cannot make {what}: {error}"),
            error.raw_os_error().unwrap_or(0),
        )
    }
}

/// The child's ends of its streams.
struct Theirs {
    input: OwnedFd,
    output: OwnedFd,
    errors: OwnedFd,
}

fn start(id: ChildId, mut spec: Box<Spec>, within: &[OwnedFd], common: &Common) -> Result<Child, Failure> {
    let (ends, theirs) = streams(&spec).map_err(|error| lacking("its streams")(error.into()))?;
    let (group, without) = match group(id, &spec) {
        Ok(group) => (group, Vec::new()),
        Err(failure) if spec.confined.as_ref().is_some_and(|confined| confined.best_effort) => {
            (None, vec![failure.message])
        }
        Err(failure) => return Err(failure),
    };
    let (control, launcher) = Connection::pair().map_err(lacking("a socket"))?;
    let (adopt, notes) = (spec.adopt, std::mem::take(&mut spec.notes));
    spec.env.retain(|(name, _)| name != MARK_VARIABLE);
    spec.env
        .push((MARK_VARIABLE.to_owned(), mark::of_child(&common.mark, id)));
    let launch = Launch {
        keeper: getpid().as_raw_pid(),
        nofile: common.nofile,
        group: group.as_ref().map(Group::procs),
        lacking: without,
        spec,
    };
    let beside: Vec<BorrowedFd<'_>> = std::iter::once(&theirs.input)
        .chain(within)
        .map(|fd| fd.as_fd())
        .collect();
    tell(&control, &Order::Launch(launch), &beside)?;
    let pid = fork(launcher, Stdio::from(theirs.output), Stdio::from(theirs.errors))?;
    // Its end frees its number only when it is waited for, so this is the right process.
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| {
        // Not known to be a child, it is killed as a stray.
        lacking("a descriptor of its process")(error.into())
    })?;
    Ok(Child {
        id,
        pid,
        pidfd,
        adopt,
        notes,
        started_at_ms: now_ms(),
        phase: Phase::Launching { control, ready: None },
        ends,
        left_behind: 0,
        group,
    })
}

/// The control group of a program, if it has limits of its whole tree.
fn group(id: ChildId, spec: &Spec) -> Result<Option<Group>, Failure> {
    let limits = TreeLimits {
        memory_bytes: spec.limits.tree_memory_bytes,
        processes: spec.limits.tree_processes,
    };
    if limits == TreeLimits::default() {
        return Ok(None);
    }
    let made = Groups::find(Path::new(cgroup::MOUNTED), Path::new(cgroup::OWN)).and_then(|groups| {
        groups.divide()?;
        groups.group(&format!("{}.{}", id.boot, id.port), limits)
    });
    made.map(Some).map_err(|error| Failure {
        stage: Stage::Limit("tree".to_owned()),
        errno: 0,
        message: format!(
            "a limit of its whole tree: {error}; a service of systemd has what is needed with Delegate=yes in its unit"
        ),
    })
}

/// Tells a launcher that is not there yet; what it answers does not block.
pub(super) fn tell(control: &Connection, order: &Order, beside: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let told = control.send(order, beside);
    told.map_err(|error| machine(&format!("cannot tell the launcher: {error}"), 0))?;
    fcntl_setfl(control, OFlags::NONBLOCK).map_err(|error| lacking("a socket")(error.into()))
}

/// A launcher.
pub(super) fn fork(control: Connection, output: Stdio, errors: Stdio) -> Result<Pid, Failure> {
    let child = Command::new("/proc/self/exe")
        .arg(LAUNCHER_ARGUMENT)
        .env_clear()
        .stdin(Stdio::from(control.into_socket()))
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(lacking("a process"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| machine("it has no process id", 0))
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Both ends of the streams that a spec asks for. Those of the daemon do not block.
fn streams(spec: &Spec) -> Result<(Ends, Theirs), Errno> {
    if spec.terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let input = ioctl_tiocgptpeer(&ours, flags)?;
        fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK)?;
        let theirs = Theirs {
            output: copy(input.as_fd())?,
            errors: copy(input.as_fd())?,
            input,
        };
        let output = Some(ours);
        return Ok((
            Ends {
                output,
                ..Ends::default()
            },
            theirs,
        ));
    }
    let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let (theirs, input) = if spec.input {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        (reader, Some(writer))
    } else {
        (null()?, None)
    };
    let (output, reader) = if spec.stdout { outward()? } else { (null()?, None) };
    let (errors, error_reader) = match spec.stderr {
        Errors::Null => (null()?, None),
        Errors::Pipe => outward()?,
        Errors::Merge => (copy(output.as_fd())?, None),
    };
    let ends = Ends {
        input,
        output: reader,
        errors: error_reader,
    };
    let theirs = Theirs {
        input: theirs,
        output,
        errors,
    };
    Ok((ends, theirs))
}

/// A pipe that the child writes and the daemon reads.
fn outward() -> Result<(OwnedFd, Option<OwnedFd>), Errno> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    Ok((writer, Some(reader)))
}

fn copy(descriptor: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    fcntl_dupfd_cloexec(descriptor, FIRST_FREE)
}
