//! What a child is between its fork and its program: this program once more, which restricts itself and then gives way.
//!
//! A process can do to itself, in safe and ordinary code, what otherwise would have to be done between fork and exec. It is told what
//! to become by a packet on its standard input, answers there, and is replaced: when that conversation ends without a failure, the
//! program runs.

#![allow(clippy::disallowed_methods, reason = "the program is looked at once more")]

use std::ffi::{CString, NulError};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::execve;
use rustix::process::{
    Resource, Rlimit, Signal, chdir, getpid, getppid, getrlimit, ioctl_tiocsctty, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::confine::{Lacking, Network};
use super::namespaces::{self, Layers, NamespaceError};
use super::protocol::{
    Connection, Failure, Launch, Launched, Limits, MEMORY_BYTES_MIN, Order, ProtocolError, Spec, Stage,
};
use super::{landlock, seccomp};

/// The argument that makes this program a launcher.
pub const LAUNCHER_ARGUMENT: &str = "__child";

/// Descriptors from this on are not the child's.
const FIRST_FOREIGN: i32 = 3;

/// Seconds that a process goes on after it was told that its processor time is over, before it is killed.
const CPU_GRACE_SECONDS: u64 = 1;

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
}

impl Program {
    fn of(spec: &Spec) -> Result<Self, NulError> {
        let text = |text: &str| CString::new(text);
        let arguments = std::iter::once(&spec.arg0).chain(&spec.args);
        let variables = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
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
    views(spec, &mut lacking)?;
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
    paths(spec, &mut lacking)?;
    default_signals().map_err(|error| Failure {
        stage: Stage::Machine,
        errno: error.raw_os_error().unwrap_or(0),
        message: format!("cannot reset signals: {error}"),
    })?;
    close_fds::set_fds_cloexec(FIRST_FOREIGN, &[]);
    let found = std::fs::metadata(&spec.program).map_err(|error| failed_program(&error, spec))?;
    if (found.dev(), found.ino()) != (spec.device, spec.inode) {
        let replaced = io::Error::other("it is another file than a moment ago");
        return Err(failed_program(&replaced, spec));
    }
    let program = Program::of(spec).map_err(|error| failed_program(&io::Error::other(error), spec))?;
    limit(launch.nofile, spec.limits)?;
    if spec.protect.is_some() {
        drop_capabilities(spec.confined.is_some()).map_err(machine("cannot give up capabilities"))?;
        let filtered = match &spec.confined {
            None => seccomp::keep_limits_of_others(),
            Some(confined) => seccomp::confine(confined.network),
        };
        filtered.or_else(|error| {
            let best_effort = spec.confined.as_ref().is_some_and(|confined| confined.best_effort);
            lacking.without(best_effort, 0, format!("system calls cannot be filtered: {error}"))
        })?;
    }
    Ok((program, lacking.into_names()))
}

/// Mounts, network and IPC of its own.
fn views(spec: &Spec, lacking: &mut Lacking) -> Result<(), Failure> {
    let Some(protect) = &spec.protect else { return Ok(()) };
    let without = |lacking: &mut Lacking, error: NamespaceError, what: &str| {
        let failure = not_had(error);
        // To who is not confined this is more than was promised.
        let best_effort = spec.confined.as_ref().is_none_or(|confined| confined.best_effort);
        lacking.without(best_effort, failure.errno, format!("{what}: {}", failure.message))
    };
    let mut kinds = CloneFlags::CLONE_NEWNS;
    match &spec.confined {
        // It would be in a user namespace, where files of others seem to be nobody's: programs that look at that refuse them.
        None if !rustix::process::geteuid().is_root() => return Ok(()),
        None => {}
        Some(_) => kinds |= CloneFlags::CLONE_NEWIPC,
    }
    // First: to enter a user namespace needs files of /proc that may be read-only afterwards.
    if matches!(&spec.confined, Some(confined) if confined.network == Network::Loopback) {
        let network = namespaces::enter(CloneFlags::CLONE_NEWNET).and_then(|_| namespaces::loopback_up());
        network.or_else(|error| without(lacking, error, "a network of its own"))?;
    }
    let mounted = namespaces::enter(kinds)
        .and_then(|_| namespaces::own_mounts())
        .and_then(|()| give_tmp(spec))
        .and_then(|()| narrow(spec))
        .and_then(|()| {
            // What its own /tmp hides is out of reach already.
            let there = protect.iter().map(PathBuf::as_path).filter(|path| path.exists());
            let there: Vec<&Path> = there.collect();
            namespaces::read_only_around(&there, spec.given.as_deref())
        });
    mounted.or_else(|error| {
        let what = "mounts of its own, by which it has its own /tmp and leaves the modes of the daemon's files";
        without(lacking, error, what)
    })?;
    Ok(())
}

fn give_tmp(spec: &Spec) -> Result<(), NamespaceError> {
    let Some(confined) = &spec.confined else { return Ok(()) };
    let Some(tmp) = &confined.tmp else { return Ok(()) };
    let given = confined.read.iter().chain(&confined.write).flatten();
    let given: Vec<&Path> = given.chain([&spec.cwd, &spec.program]).map(AsRef::as_ref).collect();
    namespaces::own_tmp(tmp, &given)?;
    namespaces::own_shared_memory()
}

/// Where it does not write, it changes no modes either, which Landlock does not know.
fn narrow(spec: &Spec) -> Result<(), NamespaceError> {
    let Some(confined) = &spec.confined else { return Ok(()) };
    let Some(write) = &confined.write else { return Ok(()) };
    let own = [Path::new("/tmp"), Path::new("/dev/shm")];
    let own = own.iter().copied().filter(|_| confined.tmp.is_some());
    let kept: Vec<&Path> = write.iter().map(AsRef::as_ref).chain(own).collect();
    namespaces::read_only_but(&kept)
}

/// What it reads and writes.
fn paths(spec: &Spec, lacking: &mut Lacking) -> Result<(), Failure> {
    let Some(directories) = &spec.protect else {
        return Ok(());
    };
    let refused = |error: landlock::SandboxError| Failure {
        stage: Stage::Sandbox,
        errno: 0,
        message: error.to_string(),
    };
    let Some(confined) = &spec.confined else {
        return landlock::protect(directories, spec.given.as_deref()).map_err(refused);
    };
    for what in landlock::too_old_for(confined) {
        lacking.without(confined.best_effort, 0, what)?;
    }
    match landlock::confine(directories, spec.given.as_deref(), confined, &spec.program) {
        Err(landlock::SandboxError::Missing) => {
            let what = landlock::SandboxError::Missing.to_string();
            lacking.without(confined.best_effort, 0, what)
        }
        done => done.map_err(refused),
    }
}

/// Takes from root what would reach past all of this: mounting, looking into other processes, loading code into the system. Who is not
/// root has none of it.
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
        | CapabilitySet::SYS_BOOT;
    if confined {
        // What is root's beside files and its own processes.
        all |= CapabilitySet::MKNOD
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::NET_ADMIN
            | CapabilitySet::NET_RAW
            | CapabilitySet::NET_BROADCAST
            | CapabilitySet::SYS_CHROOT
            | CapabilitySet::SYS_RESOURCE
            | CapabilitySet::SYS_TIME
            | CapabilitySet::SYS_TTY_CONFIG
            | CapabilitySet::SYS_PACCT
            | CapabilitySet::SYSLOG
            | CapabilitySet::IPC_OWNER
            | CapabilitySet::IPC_LOCK
            | CapabilitySet::LINUX_IMMUTABLE
            | CapabilitySet::LEASE
            | CapabilitySet::AUDIT_CONTROL
            | CapabilitySet::AUDIT_READ
            | CapabilitySet::AUDIT_WRITE
            | CapabilitySet::MAC_ADMIN
            | CapabilitySet::MAC_OVERRIDE
            | CapabilitySet::SETFCAP
            | CapabilitySet::WAKE_ALARM
            | CapabilitySet::BLOCK_SUSPEND;
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
