//! What a child is between its fork and its program: this program once more, which restricts itself and then gives way.
//!
//! A process can do to itself, in safe and ordinary code, what otherwise would have to be done between fork and exec. It is told what
//! to become by a packet on its standard input, answers there, and is replaced: when that conversation ends without a failure, the
//! program runs.

#![allow(clippy::disallowed_methods, reason = "the program is looked at once more")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::unistd::execve;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{
    Resource, Rlimit, Signal, chdir, getpid, getppid, getrlimit, ioctl_tiocsctty, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::confine::Lacking;
use super::namespaces::{self, Layers, NamespaceError};
use super::protocol::{
    Connection, Failure, Launch, Launched, Limits, MEMORY_BYTES_MIN, Order, ProtocolError, Spec, Stage,
};
use super::views::{Views, views};
use super::{landlock, mounts, seccomp};
use crate::vfs::mountinfo;

/// The argument that makes this program a launcher.
pub const LAUNCHER_ARGUMENT: &str = "__child";

/// Descriptors from this on are not the child's.
const FIRST_FOREIGN: i32 = 3;

/// Seconds that a process goes on after it was told that its processor time is over, before it is killed.
const CPU_GRACE_SECONDS: u64 = 1;

/// How a program is opened that is only looked at.
const READ_PROGRAM: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// What is said of a path that leads to another file now than when it was decided on.
const REPLACED: &str = "it is another file than a moment ago";

/// The highest number of a signal.
const SIGNAL_MAX: u32 = 64;

/// Becomes the program that it is told to. Returns only when it does not, after having told why.
///
/// # Errors
///
/// Nobody is there to be told.
pub fn run() -> Result<(), ProtocolError> {
    let control = io::stdin().as_fd().try_clone_to_owned().map_err(ProtocolError::Io)?;
    let control = Connection::new(control);
    let (order, descriptors) = control.receive::<Order>(&mut Vec::new())?;
    let launch = match order {
        Order::Launch(launch) => launch,
        Order::Merge { keeper, layers } => return merge(&control, keeper, &layers),
    };
    let failure = match prepare(&launch, descriptors) {
        Ok((program, lacking)) => {
            control.send(&Launched::Ready(lacking), &[])?;
            match limit_memory(launch.spec.limits) {
                Ok(()) => program.become_it(&launch.spec),
                Err(failure) => failure,
            }
        }
        Err(failure) => failure,
    };
    control.send(&Launched::Failed(failure), &[])
}

/// Merges directories, and hands over what keeps them so.
fn merge(control: &Connection, keeper: i32, layers: &Layers) -> Result<(), ProtocolError> {
    let merged = bind_to(keeper).and_then(|()| namespaces::merge(layers).map_err(not_had));
    match merged {
        Ok(merged) => {
            let user = merged.user.as_ref().map(|user| user.as_fd());
            let descriptors: Vec<_> = user
                .into_iter()
                .chain([merged.mounts.as_fd(), merged.root.as_fd()])
                .collect();
            control.send(&Launched::Merged(merged.user.is_some()), &descriptors)
        }
        Err(failure) => control.send(&Launched::Failed(failure), &[]),
    }
}

fn not_had(error: NamespaceError) -> Failure {
    Failure {
        stage: Stage::Sandbox,
        errno: error.errno(),
        message: format!("{error}; `astrid doctor` says what this machine can do"),
    }
}

fn failed(stage: Stage, doing: &str) -> impl FnOnce(rustix::io::Errno) -> Failure + use<> {
    let doing = doing.to_owned();
    move |error| Failure {
        stage,
        errno: error.raw_os_error(),
        message: format!("{doing}: {}", io::Error::from(error)),
    }
}

/// A program, its arguments and its environment, as the system takes them.
struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The file itself, for who has to name it to Landlock.
    opened: File,
}

impl Program {
    fn of(spec: &Spec) -> io::Result<Self> {
        let text = |text: &str| CString::new(text).map_err(io::Error::other);
        let arguments = std::iter::once(&spec.arg0).chain(&spec.args);
        let variables = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
        let opened = match open(&spec.program, READ_PROGRAM, Mode::empty()) {
            // Reading is more than running needs.
            Err(rustix::io::Errno::ACCESS) => open(&spec.program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
            opened => opened?,
        };
        let opened = File::from(opened);
        is_the_one(spec, &opened)?;
        Ok(Self {
            opened,
            path: CString::new(spec.program.as_os_str().as_bytes())?,
            arguments: arguments.map(|argument| text(argument)).collect::<Result<_, _>>()?,
            environment: variables.map(|variable| text(&variable)).collect::<Result<_, _>>()?,
        })
    }

    /// Returns only when it does not, and why. Not by way of a shell, as the C library and `std` do with what is no program.
    fn become_it(&self, spec: &Spec) -> Failure {
        let Err(error) = execve(&self.path, &self.arguments, &self.environment);
        let told = match error {
            Errno::ENOEXEC => io::Error::other("it is no program that this machine runs, and no script with `#!`"),
            Errno::ENOENT => io::Error::other("its interpreter (`#!`), or the loader that it names, is not there"),
            other => other.into(),
        };
        Failure {
            errno: error as i32,
            ..failed_program(&told, spec)
        }
    }
}

fn failed_program(error: &io::Error, spec: &Spec) -> Failure {
    Failure {
        stage: Stage::Program,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot run {}: {error}", spec.program.display()),
    }
}

/// Ends with the keeper.
fn bind_to(keeper: i32) -> Result<(), Failure> {
    let machine = |doing: &str| failed(Stage::Machine, doing);
    // The keeper may have died before this was set; then nobody is there who would end the program.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(machine("cannot be bound to the keeper"))?;
    if getppid().map(rustix::process::Pid::as_raw_pid) != Some(keeper) {
        return Err(machine("the keeper is gone")(rustix::io::Errno::SRCH));
    }
    Ok(())
}

/// All that can be done before the program is started, in an order in which nothing takes away what comes after it; and what of it
/// could not be had.
fn prepare(launch: &Launch, descriptors: Vec<OwnedFd>) -> Result<(Program, Vec<String>), Failure> {
    let spec = &launch.spec;
    let machine = |doing: &str| failed(Stage::Machine, doing);
    let mut descriptors = descriptors.into_iter();
    bind_to(launch.keeper)?;
    if let Some(group) = &launch.group {
        // Itself.
        std::fs::write(group, "0").map_err(|error| Failure {
            stage: Stage::Limit("tree".to_owned()),
            errno: error.raw_os_error().unwrap_or(0),
            message: format!("cannot enter {}: {error}", group.display()),
        })?;
    }
    // Until then standard input is the conversation, and must not be the program's.
    let input = descriptors.next().ok_or(rustix::io::Errno::BADF);
    input
        .and_then(rustix::stdio::dup2_stdin)
        .map_err(machine("cannot set standard input"))?;
    setsid().map_err(machine("cannot lead a session"))?;
    if spec.terminal {
        ioctl_tiocsctty(io::stdin()).map_err(machine("cannot take the terminal"))?;
    }
    // Whatever it starts stays below it, also what is left by its own parent.
    set_child_subreaper(Some(getpid())).map_err(machine("cannot become its tree's root"))?;
    if let Some(within) = spec.within {
        let user = if within.user { descriptors.next() } else { None };
        let mounts = descriptors.next().ok_or(rustix::io::Errno::BADF);
        let mounts = mounts.map_err(machine("the workspace is not there"))?;
        namespaces::join(user, mounts).map_err(not_had)?;
    }
    let mut lacking = Lacking::of(&launch.lacking);
    let kept = resolved(spec)?;
    let views = views(spec, &kept, &mut lacking)?;
    // Whoever changes who it is may be unbound by that.
    bind_to(launch.keeper)?;
    chdir(&spec.cwd).map_err(failed(
        Stage::Directory,
        &format!("cannot enter {}", spec.cwd.display()),
    ))?;
    if let Some(device) = spec.within.and_then(|within| within.device) {
        namespaces::check_on(device, &spec.cwd).map_err(not_had)?;
    }
    rustix::thread::set_no_new_privs(true).map_err(machine("cannot give up privileges"))?;
    let program = Program::of(spec).map_err(|error| failed_program(&error, spec))?;
    paths(spec, &kept, &views, &program, &mut lacking)?;
    default_signals().map_err(|error| Failure {
        stage: Stage::Machine,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot reset signals: {error}"),
    })?;
    close_fds::set_fds_cloexec(FIRST_FOREIGN, &[]);
    let same = std::fs::metadata(&spec.program).and_then(|found| Ok((found, program.opened.metadata()?)));
    let (found, opened) = same.map_err(|error| failed_program(&error, spec))?;
    if (found.dev(), found.ino()) != (opened.dev(), opened.ino()) {
        return Err(failed_program(&io::Error::other(REPLACED), spec));
    }
    limit(launch.nofile, spec.limits)?;
    if spec.protect.is_some() {
        drop_capabilities(spec.confined.is_some()).map_err(machine("cannot give up capabilities"))?;
        let filtered = match &spec.confined {
            None => seccomp::keep_others(),
            Some(confined) => seccomp::confine(confined.network),
        };
        // Also with best effort: without it the daemon itself is within reach.
        filtered.map_err(|error| not_kept(format!("system calls cannot be filtered: {error}")))?;
    }
    Ok((program, lacking.into_names()))
}

/// That what was opened is the file that was decided on; or, in a workspace, that no link leads from its path elsewhere.
fn is_the_one(spec: &Spec, opened: &File) -> io::Result<()> {
    let found = opened.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other(match spec.workspace {
            Some(_) => "it is no file",
            None => REPLACED,
        }));
    }
    let Some(workspace) = &spec.workspace else {
        let same = (found.dev(), found.ino()) == (spec.device, spec.inode);
        return same.then_some(()).ok_or_else(|| io::Error::other(REPLACED));
    };
    let below = spec.program.strip_prefix(workspace).map_err(io::Error::other)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    if real != std::fs::canonicalize(workspace)?.join(below) {
        return Err(io::Error::other("in a workspace, a program is not run over a link"));
    }
    Ok(())
}

/// What was asked for cannot be, or not safely.
pub(super) fn not_kept(message: impl ToString) -> Failure {
    Failure {
        stage: Stage::Sandbox,
        errno: 0,
        message: message.to_string(),
    }
}

/// What it reads and writes. That the daemon's home is kept is never left out.
fn paths(
    spec: &Spec,
    kept: &[PathBuf],
    views: &Views,
    program: &Program,
    lacking: &mut Lacking,
) -> Result<(), Failure> {
    if spec.protect.is_none() {
        return Ok(());
    }
    let given = spec.given.as_deref();
    let Some(confined) = &spec.confined else {
        return landlock::protect(kept, given).map_err(not_kept);
    };
    for what in landlock::too_old_for(confined) {
        lacking.without(confined.best_effort, 0, what)?;
    }
    let seen = views.seen(kept);
    let own = views.own.as_deref().map(|given| landlock::Own { given });
    landlock::confine((&seen, given), confined, own, &program.opened).map_err(not_kept)
}

/// The directories that are kept from it, as their paths lead there, and at every other path that does.
fn resolved(spec: &Spec) -> Result<Vec<PathBuf>, Failure> {
    let directories = spec.protect.iter().flatten();
    let resolved = directories.map(|path| {
        std::fs::canonicalize(path).map_err(|error| not_kept(format!("cannot look into {}: {error}", path.display())))
    });
    let resolved: Vec<PathBuf> = resolved.collect::<Result<_, _>>()?;
    if resolved.is_empty() {
        return Ok(resolved);
    }
    let mounts = mountinfo::all().map_err(|error| not_kept(format!("what is mounted cannot be told: {error}")))?;
    let mut all = resolved.clone();
    for path in &resolved {
        let others = mounts::other_ways(path, &mounts);
        all.extend(others.map_err(|error| not_kept(format!("cannot look at {}: {error}", path.display())))?);
    }
    Ok(all)
}

/// Takes from root what would reach past all of this: mounting, looking into other processes, loading code into the system, setting it up.
/// What programs of root's that are only kept from the home need of others stays: networks, other roots, owners. Who is not root has none of it.
fn drop_capabilities(confined: bool) -> Result<(), rustix::io::Errno> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut all = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::PERFMON
        | CapabilitySet::BPF
        | CapabilitySet::CHECKPOINT_RESTORE
        | CapabilitySet::SYS_MODULE
        | CapabilitySet::SYS_RAWIO
        | CapabilitySet::SYS_BOOT
        // Files by another way than their names, devices by any name, and the whole machine's clock, accounts and rules.
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::MKNOD
        | CapabilitySet::SYS_TIME
        | CapabilitySet::SYS_PACCT
        | CapabilitySet::SYSLOG
        | CapabilitySet::AUDIT_CONTROL
        | CapabilitySet::AUDIT_READ
        | CapabilitySet::MAC_ADMIN
        | CapabilitySet::MAC_OVERRIDE
        | CapabilitySet::WAKE_ALARM
        | CapabilitySet::BLOCK_SUSPEND;
    if confined {
        // What is root's beside files and its own processes.
        all |= CapabilitySet::NET_ADMIN
            | CapabilitySet::NET_RAW
            | CapabilitySet::NET_BROADCAST
            | CapabilitySet::SYS_CHROOT
            | CapabilitySet::SYS_NICE
            | CapabilitySet::SYS_RESOURCE
            | CapabilitySet::SYS_TTY_CONFIG
            | CapabilitySet::IPC_OWNER
            | CapabilitySet::IPC_LOCK
            | CapabilitySet::LINUX_IMMUTABLE
            | CapabilitySet::LEASE
            | CapabilitySet::AUDIT_WRITE
            | CapabilitySet::SETFCAP;
    }
    for capability in all.iter() {
        match remove_capability_from_bounding_set(capability) {
            // One that this system does not know, or that root does not have here and cannot give up.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives signals their default that whoever started the daemon has ignored: an ignored one stays so over exec, a handled one does not.
fn default_signals() -> io::Result<()> {
    let nobody = Arc::new(AtomicBool::new(false));
    let status = std::fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    for number in (1..=SIGNAL_MAX).filter(|number| ignored >> (number - 1) & 1 == 1) {
        // The C library keeps two for itself, and lets nobody change them.
        let _ = signal_hook::flag::register(number.cast_signed(), Arc::clone(&nobody));
    }
    Ok(())
}

fn limit(nofile: u64, limits: Limits) -> Result<(), Failure> {
    let given = [
        ("cpu-seconds", Resource::Cpu, limits.cpu_seconds, CPU_GRACE_SECONDS),
        ("processes", Resource::Nproc, limits.processes, 0),
        ("file-bytes", Resource::Fsize, limits.file_bytes, 0),
        ("core-bytes", Resource::Core, limits.core_bytes.or(Some(0)), 0),
        ("open-files", Resource::Nofile, limits.open_files, 0),
    ];
    for (name, resource, limit, grace) in given {
        if let Some(limit) = limit {
            set(name, resource, limit, grace)?;
        }
    }
    if limits.open_files.is_none() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: Some(hard.map_or(nofile, |hard| hard.min(nofile))),
            maximum: hard,
        };
        let name = Stage::Limit("open-files".to_owned());
        setrlimit(Resource::Nofile, limit).map_err(failed(name, "cannot restore the limit open-files"))?;
    }
    Ok(())
}

/// The last of all: from here on this program itself gets no more memory than that.
fn limit_memory(limits: Limits) -> Result<(), Failure> {
    let name = "memory-bytes";
    match limits.memory_bytes {
        Some(bytes) if bytes < MEMORY_BYTES_MIN => Err(Failure {
            stage: Stage::Limit(name.to_owned()),
            errno: 0,
            message: format!("the limit {name} is at least {MEMORY_BYTES_MIN}"),
        }),
        Some(bytes) => set(name, Resource::Data, bytes, 0),
        None => Ok(()),
    }
}

fn set(name: &str, resource: Resource, limit: u64, grace: u64) -> Result<(), Failure> {
    let hard = getrlimit(resource).maximum;
    let wanted = limit.saturating_add(grace);
    // More than this process may have itself is refused by the system, and not quietly made less.
    let maximum = hard
        .filter(|hard| limit <= *hard)
        .map_or(wanted, |hard| hard.min(wanted));
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(maximum),
    };
    let stage = Stage::Limit(name.to_owned());
    setrlimit(resource, limit).map_err(failed(stage, &format!("cannot apply the limit {name}")))
}
