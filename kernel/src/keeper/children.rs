//! The keeper's children: how one is started, and what is known of each until its end was told.
//!
//! A child is a row from the moment that its launcher was forked until its main process has been waited for. The process number in it cannot
//! be given to another process meanwhile, because only the keeper waits.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use astrid_wire::child::{Exit, MARK_VARIABLE};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, kill_process_group, pidfd_open, waitid,
};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::launcher::LAUNCHER_ARGUMENT;
use super::mark;
use super::protocol::{
    ChildId, Connection, Errors, Failure, Launch, Launched, NOTES_BYTES_MAX, ProtocolError, Spec, Stage, Streams,
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
    /// Its launcher prepares itself; `ready` once the program is next.
    Launching { control: Connection, ready: bool },
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
}

/// What came of looking at a launcher.
pub(super) enum Launching {
    /// Nothing yet.
    Waits,
    Runs,
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
                Ok((Launched::Ready, _)) => *ready = true,
                Ok((Launched::Failed(failure), _)) => return Launching::Failed(failure),
                Err(ProtocolError::WouldBlock) => return Launching::Waits,
                Err(ProtocolError::Closed) if *ready => return Launching::Runs,
                Err(_) => return Launching::Failed(machine("it ended before its program was started", 0)),
            }
        }
    }
}

/// How a main process ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
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
    by_id: BTreeMap<ChildId, Pid>,
    launching: usize,
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
    pub(super) fn spawn(&mut self, id: ChildId, spec: Box<Spec>, common: &Common) -> Result<&mut Child, Failure> {
        if self.by_id.contains_key(&id) {
            return Err(machine("its number is used already", 0));
        }
        if self.by_pid.len() >= CHILDREN_MAX {
            return Err(machine(&format!("there are {CHILDREN_MAX} children already"), 0));
        }
        if spec.notes.len() > NOTES_BYTES_MAX {
            return Err(machine(&format!("its notes have more than {NOTES_BYTES_MAX} bytes"), 0));
        }
        let child = start(id, spec, common)?;
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
    pub(super) fn reap(&mut self, pid: Pid) -> Option<(Child, Ended)> {
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
        self.by_id.remove(&child.id);
        let exit = exit(&status);
        Some((child, Ended { exit, cpu_ms }))
    }

    /// Children of this process that are none of these: left by one that has ended. The dead among them are waited for.
    pub(super) fn strays(&self) -> Vec<Pid> {
        let mut found = tree::children(getpid());
        found.retain(|pid| !self.by_pid.contains_key(pid) && !reaped(*pid));
        found
    }
}

fn reaped(stray: Pid) -> bool {
    matches!(
        waitid(WaitId::Pid(stray), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
        Ok(Some(_)) | Err(Errno::CHILD)
    )
}

fn exit(status: &WaitIdStatus) -> Exit {
    match status.terminating_signal() {
        Some(number) => Exit::Signal {
            number,
            name: signal_hook::low_level::signal_name(number).map_or_else(|| format!("SIG{number}"), str::to_owned),
            core: status.dumped(),
        },
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    }
}

fn machine(message: &str, errno: i32) -> Failure {
    Failure {
        stage: Stage::Machine,
        errno,
        message: message.to_owned(),
    }
}

fn lacking(what: &str) -> impl Fn(std::io::Error) -> Failure {
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

fn start(id: ChildId, mut spec: Box<Spec>, common: &Common) -> Result<Child, Failure> {
    let (ends, theirs) = streams(&spec).map_err(|error| lacking("its streams")(error.into()))?;
    let (control, launcher) = Connection::pair().map_err(lacking("a socket"))?;
    let (adopt, notes) = (spec.adopt, std::mem::take(&mut spec.notes));
    spec.env.retain(|(name, _)| name != MARK_VARIABLE);
    spec.env
        .push((MARK_VARIABLE.to_owned(), mark::of_child(&common.mark, id)));
    let launch = Launch {
        keeper: getpid().as_raw_pid(),
        nofile: common.nofile,
        spec,
    };
    let told = control.send(&launch, &[theirs.input.as_fd()]);
    told.map_err(|error| machine(&format!("cannot tell the launcher: {error}"), 0))?;
    fcntl_setfl(&control, OFlags::NONBLOCK).map_err(|error| lacking("a socket")(error.into()))?;
    let child = Command::new("/proc/self/exe")
        .arg(LAUNCHER_ARGUMENT)
        .env_clear()
        .stdin(Stdio::from(launcher.into_socket()))
        .stdout(Stdio::from(theirs.output))
        .stderr(Stdio::from(theirs.errors))
        .spawn()
        .map_err(lacking("a process"))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| machine("it has no process id", 0))?;
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
        phase: Phase::Launching { control, ready: false },
        ends,
    })
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
