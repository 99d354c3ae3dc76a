//! What follows from a definition: all values, defaults filled in, and what is told to the kernel to start something.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use astrid_sdk::child::{self, LogFile, OWN_PROGRAM, Period, Sandbox, Signal, Sink, Spec, Workspace};

use crate::confined::Confined;
use crate::definition::{Definition, Every, Growth, Health, HealthKind, Restart};
use crate::policy::{Backoff, Cadence, Policy};
use crate::signals;

/// Milliseconds.
const SECOND: u64 = 1000;
/// Bytes of a log file before it is rotated (A16).
const LOG_BYTES: u64 = 10 << 20;
/// Rotated files that are kept (A16).
const LOG_KEEP: u32 = 10;
/// A check, a little longer than which its program is given: it says itself that its time is over, which tells more than a kill.
const CHECK_SPARE_MS: u64 = 200;
/// Names of variables that are secret without being called so: by their ends, and whole.
const SECRET_ENDS: [&str; 4] = ["_TOKEN", "_KEY", "_SECRET", "_PASSWORD"];
const SECRET_NAMES: [&str; 2] = ["PASSWORD", "TOKEN"];
/// What a secret is shown as.
const HIDDEN: &str = "***";

/// A definition with everything decided. Two that are equal run alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its name.
    pub name: Rc<str>,
    /// How many run.
    pub instances: u32,
    /// Whether it runs without being told.
    pub autostart: bool,
    /// How it is kept running.
    pub policy: Policy,
    /// How its health is told.
    pub health: HealthKind,
    /// The program that tells it, with its arguments.
    probe: Option<(String, Vec<String>)>,
    /// What is run before it is stopped.
    before_stop: Option<(String, Vec<String>)>,
    command: String,
    args: Vec<String>,
    cwd: Option<String>,
    env: Vec<(String, String)>,
    secrets: BTreeSet<String>,
    adopt: bool,
    terminal: bool,
    confined: Confined,
    limits: LimitValues,
    log: LogValues,
}

/// As [`child::Limits`], which cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct LimitValues {
    memory_bytes: Option<u64>,
    cpu_seconds: Option<u64>,
    open_files: Option<u64>,
    processes: Option<u64>,
    file_bytes: Option<u64>,
    core_bytes: Option<u64>,
    tree_memory_bytes: Option<u64>,
    tree_processes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct LogValues {
    bytes_max: u64,
    keep: u32,
    every: Option<Every>,
    compress: bool,
    merge: bool,
}

/// A stream of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

impl Stream {
    /// As answers call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}

fn ms(time: Option<astrid_wire::manifest::Time>, default_ms: u64) -> u64 {
    time.map_or(default_ms, |time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX))
}

impl Plan {
    /// What follows from a definition that keeps to the rules.
    pub fn of(definition: &Definition) -> Self {
        let stop = definition.stop.clone().unwrap_or_default();
        let health = definition.health.clone().unwrap_or_default();
        let mut secrets: BTreeSet<String> = definition.secrets.iter().cloned().collect();
        secrets.extend(definition.env.keys().filter(|name| is_secret(name)).cloned());
        Self {
            name: definition.name.as_str().into(),
            instances: definition.instances.unwrap_or(1),
            autostart: definition.autostart.unwrap_or(true),
            policy: policy(definition, &health),
            health: health.kind,
            probe: probe(&health),
            before_stop: stop.command.map(|command| (command, stop.args)),
            command: definition.command.clone(),
            args: definition.args.clone(),
            cwd: definition.cwd.clone(),
            env: definition.env.clone().into_iter().collect(),
            secrets,
            adopt: definition.adopt.unwrap_or(false),
            terminal: definition.terminal.unwrap_or(false),
            confined: Confined::of(definition),
            limits: limits(definition),
            log: log(definition),
        }
    }

    /// Whether it stays when the daemon goes.
    pub fn stays(&self) -> bool {
        self.adopt
    }

    /// The program, for people.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Its arguments.
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Its working directory.
    pub fn cwd(&self) -> &str {
        match &self.cwd {
            Some(cwd) => cwd,
            None if self.confined.has_workspace() => child::WORKSPACE,
            None => "/",
        }
    }

    /// Its environment, as it may be shown.
    pub fn shown_env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| {
            let secret = self.secrets.contains(name);
            (name.as_str(), if secret { HIDDEN } else { value.as_str() })
        })
    }

    /// What it is kept from, for people.
    pub fn sandbox(&self) -> String {
        self.confined.shown()
    }

    /// Whether only the number of instances differs.
    pub fn differs_in_instances_only(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.instances = self.instances;
        *self == other
    }

    /// The streams that have a log file.
    pub fn streams(&self) -> &'static [Stream] {
        if self.terminal || self.log.merge {
            &[Stream::Output]
        } else {
            &[Stream::Output, Stream::Errors]
        }
    }

    /// What a program of this process has in common with the others: where and as what it runs.
    fn spec(&self, program: &str, args: &[String], index: u32, tag: String) -> Spec {
        let mut spec = Spec::new(program);
        spec.tag = tag;
        spec.args = args.to_vec();
        spec.env.clone_from(&self.env);
        spec.env.push(("ASTRID_INSTANCE".to_owned(), index.to_string()));
        spec.secrets = self.secrets.iter().cloned().collect();
        spec.cwd.clone_from(&self.cwd);
        spec.sandbox = self.confined.sandbox();
        spec.workspace = self.confined.workspace();
        spec
    }

    /// An instance.
    pub fn main_spec(&self, index: u32, tag: String) -> Spec {
        let mut spec = self.spec(&self.command, &self.args, index, tag);
        spec.terminal = self.terminal;
        spec.adopt = self.adopt;
        spec.stdout = self.sink(index, Stream::Output);
        spec.stderr = self
            .streams()
            .contains(&Stream::Errors)
            .then(|| self.sink(index, Stream::Errors));
        spec.limits = child::Limits {
            memory_bytes: self.limits.memory_bytes,
            cpu_seconds: self.limits.cpu_seconds,
            open_files: self.limits.open_files,
            processes: self.limits.processes,
            file_bytes: self.limits.file_bytes,
            core_bytes: self.limits.core_bytes,
            tree_memory_bytes: self.limits.tree_memory_bytes,
            tree_processes: self.limits.tree_processes,
        };
        spec
    }

    /// A check of an instance, when there are any.
    pub fn probe_spec(&self, index: u32, tag: String) -> Option<Spec> {
        let (program, args) = self.probe.as_ref()?;
        let mut spec = self.spec(program, args, index, tag);
        if program == OWN_PROGRAM {
            // The variables are the program's; ours needs none of them.
            spec.env.clear();
            spec.secrets.clear();
            spec.cwd = None;
            // It speaks to the program from outside, and is to be trusted with that.
            spec.sandbox = match spec.sandbox {
                Sandbox::None => Sandbox::None,
                Sandbox::Home | Sandbox::Confined(_) => Sandbox::Home,
            };
            spec.workspace = Workspace::None;
        }
        spec.stdout.messages = true;
        Some(spec)
    }

    /// What is run before an instance is stopped, if there is something.
    pub fn before_stop_spec(&self, index: u32, pid: Option<u32>, tag: String) -> Option<Spec> {
        let (program, args) = self.before_stop.as_ref()?;
        let mut spec = self.spec(program, args, index, tag);
        if let Some(pid) = pid {
            spec.env.push(("ASTRID_PID".to_owned(), pid.to_string()));
        }
        Some(spec)
    }

    /// The log file of a stream of an instance.
    pub fn log_name(&self, index: u32, stream: Stream) -> String {
        let short = match stream {
            Stream::Output => "out",
            Stream::Errors => "err",
        };
        format!("{}-{index}.{short}.log", self.name)
    }

    fn sink(&self, index: u32, stream: Stream) -> Sink {
        let file = LogFile {
            name: self.log_name(index, stream),
            bytes_max: self.log.bytes_max,
            keep: self.log.keep,
            every: self.log.every.map(|every| match every {
                Every::Hour => Period::Hour,
                Every::Day => Period::Day,
            }),
            compress: self.log.compress,
        };
        Sink {
            file: Some(file),
            messages: false,
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET_ENDS.iter().any(|end| name.ends_with(end)) || SECRET_NAMES.contains(&name.as_str())
}

fn policy(definition: &Definition, health: &Health) -> Policy {
    let backoff = definition.backoff.as_ref();
    let growth = backoff
        .and_then(|backoff| backoff.policy)
        .unwrap_or(Growth::Exponential);
    let base_ms = ms(backoff.and_then(|backoff| backoff.base), SECOND);
    let stop = definition.stop.as_ref();
    Policy {
        restart: definition.restart.unwrap_or(Restart::OnFailure),
        backoff: Backoff {
            growth,
            base_ms,
            factor: backoff.and_then(|backoff| backoff.factor).unwrap_or(2),
            // A first wait that is longer than the usual cap was meant.
            cap_ms: ms(backoff.and_then(|backoff| backoff.cap), (300 * SECOND).max(base_ms)),
            jitter: backoff.and_then(|backoff| backoff.jitter).unwrap_or(false),
        },
        max_restarts: definition.max_restarts.unwrap_or(5),
        window_ms: ms(definition.window, 60 * SECOND),
        min_uptime_ms: ms(definition.min_uptime, 30 * SECOND),
        checks: matches!(health.kind, HealthKind::Tcp | HealthKind::Http | HealthKind::Script).then(|| Cadence {
            interval_ms: ms(health.interval, 30 * SECOND),
            timeout_ms: ms(health.timeout, 5 * SECOND),
            unhealthy_after: health.unhealthy_after.unwrap_or(3),
            healthy_after: health.healthy_after.unwrap_or(1),
            start_period_ms: ms(health.start_period, 0),
        }),
        stop_signal: stop
            .and_then(|stop| signals::by_name(stop.signal.as_deref()?))
            .unwrap_or(Signal::Terminate),
        stop_timeout_ms: ms(stop.and_then(|stop| stop.timeout), 30 * SECOND),
        before_stop: stop.is_some_and(|stop| stop.command.is_some()),
    }
}

fn probe(health: &Health) -> Option<(String, Vec<String>)> {
    let timeout_ms = ms(health.timeout, 5 * SECOND);
    let own = |kind: &str, target: &str| {
        let limit_ms = timeout_ms.saturating_sub(CHECK_SPARE_MS).max(timeout_ms.div_ceil(2));
        vec![
            "__probe".to_owned(),
            kind.to_owned(),
            target.to_owned(),
            "--timeout-ms".to_owned(),
            limit_ms.to_string(),
        ]
    };
    match health.kind {
        HealthKind::None | HealthKind::Liveness => None,
        HealthKind::Tcp => Some((OWN_PROGRAM.to_owned(), own("tcp", health.address.as_deref()?))),
        HealthKind::Http => {
            let mut args = own("http", health.url.as_deref()?);
            if let Some(statuses) = &health.status {
                let statuses: Vec<_> = statuses.all().iter().map(u16::to_string).collect();
                args.extend(["--status".to_owned(), statuses.join(",")]);
            }
            if let Some(body) = &health.body {
                // In one piece: it may begin with a dash.
                args.push(format!("--body={body}"));
            }
            Some((OWN_PROGRAM.to_owned(), args))
        }
        HealthKind::Script => Some((health.command.clone()?, health.args.clone())),
    }
}

fn limits(definition: &Definition) -> LimitValues {
    let limits = definition.limits.clone().unwrap_or_default();
    LimitValues {
        memory_bytes: limits.memory.map(|size| size.0),
        cpu_seconds: limits.cpu_time.map(|time| Duration::as_secs(&time.0)),
        open_files: limits.open_files,
        processes: limits.processes,
        file_bytes: limits.file_size.map(|size| size.0),
        core_bytes: limits.core.map(|size| size.0),
        tree_memory_bytes: limits.tree_memory.map(|size| size.0),
        tree_processes: limits.tree_processes,
    }
}

fn log(definition: &Definition) -> LogValues {
    let log = definition.log.clone().unwrap_or_default();
    LogValues {
        bytes_max: log.size.map_or(LOG_BYTES, |size| size.0),
        keep: log.keep.unwrap_or(LOG_KEEP),
        every: log.every,
        compress: log.compress.unwrap_or(false),
        merge: log.merge.unwrap_or(false),
    }
}
