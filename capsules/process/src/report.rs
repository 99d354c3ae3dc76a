//! What is told of processes: answers and events, as JSON.

use std::collections::BTreeMap;
use std::rc::Rc;

use astrid_sdk::{Context, PortId, body};

use crate::definition::{HealthKind, Restart};
use crate::process::{Instance, Process, Sample};
use crate::state::{Now, Verdict};
use crate::table::{Table, Told};

/// A measurement that is younger than this, in milliseconds, is told again instead of another one: over less, a share of a processor says nothing.
const SAMPLE_MS: u64 = 500;

/// Processes.
#[body]
#[derive(Debug)]
pub struct ProcessList {
    /// By name.
    pub processes: Vec<ProcessView>,
    /// What is wrong with the document, if it cannot be read: what runs is what it said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemView>,
}

/// What is wrong, as a problem document.
#[body]
#[derive(Debug)]
pub struct ProblemView {
    /// For programs.
    pub code: String,
    /// For people.
    pub message: String,
    /// What could be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A process.
#[body]
#[derive(Debug)]
pub struct ProcessView {
    /// Its name.
    pub name: String,
    /// Its program.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Its environment, secrets hidden.
    pub env: BTreeMap<String, String>,
    /// When it is restarted.
    pub restart: Restart,
    /// How many are to run.
    pub instances_wanted: u32,
    /// Whether it is started with the daemon.
    pub autostart: bool,
    /// What it is kept from, for people: `home`, `none`, `project`, `sealed` or `confined`, and what that says.
    pub sandbox: String,
    /// How its health is told.
    pub health_kind: HealthKind,
    /// Each of them, by index.
    pub instances: Vec<InstanceView>,
}

/// An instance.
#[body]
#[derive(Debug)]
pub struct InstanceView {
    /// Which.
    pub index: u32,
    /// Its state (A10).
    pub state: String,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// The exit code of its state.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// Since when it is in its state, in milliseconds since 1970.
    pub since_ms: u64,
    /// How long it runs.
    pub uptime_ms: Option<u64>,
    /// Restarts that nobody asked for.
    pub restarts: u32,
    /// Those that count for the circuit now.
    pub restarts_in_window: u32,
    /// Whether it is not restarted any more.
    pub circuit_open: bool,
    /// When it is restarted, in milliseconds since 1970.
    pub restart_at_ms: Option<u64>,
    /// `unknown`, `healthy` or `unhealthy`, where that is told.
    pub health: Option<String>,
    /// What the last failed check said.
    pub health_detail: Option<String>,
    /// How it ended last.
    pub last_exit: Option<ExitView>,
    /// Its share of a processor since it was last looked at; at first, since it started.
    pub cpu_percent: Option<f64>,
    /// Its resident memory.
    pub memory_bytes: Option<u64>,
    /// How many processes it is.
    pub processes: Option<u32>,
    /// What of its sandbox could not be had, and it runs without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// How an instance ended.
#[body]
#[derive(Debug)]
pub struct ExitView {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// With this code.
    pub code: Option<i32>,
    /// By this signal.
    pub signal: Option<String>,
    /// For people.
    pub text: String,
}

/// An instance has another state.
#[body]
#[derive(Debug)]
pub struct ChangedEvent {
    /// Its process.
    pub name: String,
    /// Which.
    pub instance: u32,
    /// The state.
    pub state: String,
    /// Its process id, while it runs.
    pub pid: Option<u32>,
    /// Why.
    pub text: String,
}

/// An instance is not restarted any more.
#[body]
#[derive(Debug)]
pub struct CircuitEvent {
    /// Its process.
    pub name: String,
    /// Which.
    pub instance: u32,
    /// Restarts so far.
    pub restarts: u32,
    /// Why.
    pub text: String,
}

impl From<Told> for ChangedEvent {
    fn from(told: Told) -> Self {
        Self {
            name: told.key.0.to_string(),
            instance: told.key.1,
            state: told.state.to_owned(),
            pid: told.pid,
            text: told.text,
        }
    }
}

impl From<Told> for CircuitEvent {
    fn from(told: Told) -> Self {
        Self {
            name: told.key.0.to_string(),
            instance: told.key.1,
            restarts: told.restarts,
            text: told.text,
        }
    }
}

impl ProcessList {
    /// Processes of these names, those that are gone left out.
    pub fn of(table: &mut Table, ctx: &Context, names: &[Rc<str>], now: Now) -> Self {
        let processes = names.iter().filter_map(|name| ProcessView::of(table, ctx, name, now));
        Self {
            processes: processes.collect(),
            problem: None,
        }
    }
}

impl ProcessView {
    /// A process, with what it uses now.
    pub fn of(table: &mut Table, ctx: &Context, name: &str, now: Now) -> Option<Self> {
        let process = table.processes.get_mut(name)?;
        for instance in &mut process.instances {
            measure(instance, |port| ctx.measure(port).ok(), now);
        }
        Some(Self::shown(process, now))
    }

    fn shown(process: &Process, now: Now) -> Self {
        let plan = &process.plan;
        let env = plan.shown_env();
        Self {
            name: plan.name.to_string(),
            command: plan.command().to_owned(),
            args: plan.args().to_vec(),
            cwd: plan.cwd().to_owned(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            restart: plan.policy.restart,
            instances_wanted: plan.instances,
            autostart: plan.autostart,
            sandbox: plan.sandbox(),
            health_kind: plan.health,
            instances: process
                .wanted()
                .map(|(index, instance)| InstanceView::of(index, instance, now))
                .collect(),
        }
    }
}

impl InstanceView {
    fn of(index: u32, instance: &Instance, now: Now) -> Self {
        let machine = &instance.machine;
        let policy = &instance.plan.policy;
        let last = machine.last_exit();
        let ended = !machine.has_child();
        let sample = instance.sample.filter(|_| machine.pid().is_some());
        Self {
            index,
            state: machine.state().as_str().to_owned(),
            pid: machine.pid(),
            code: machine.state().code(),
            signal: last.filter(|_| ended).and_then(|last| last.signal.clone()),
            since_ms: machine.since_ms(),
            uptime_ms: machine.uptime_ms(now),
            restarts: machine.restarts(),
            restarts_in_window: machine.restarts_in_window(policy, now),
            circuit_open: machine.circuit_open(),
            restart_at_ms: machine
                .restart_at()
                .map(|at| now.wall_ms + at.saturating_sub(now.up_ms)),
            health: health(instance).map(str::to_owned),
            health_detail: machine.health().detail.clone(),
            last_exit: last.map(|last| ExitView {
                at_ms: last.at_ms,
                code: last.code,
                signal: last.signal.clone(),
                text: last.text.clone(),
            }),
            cpu_percent: sample.map(|sample| sample.cpu_percent),
            memory_bytes: sample.map(|sample| sample.memory_bytes),
            processes: sample.map(|sample| sample.processes),
            lacking: machine.pid().map(|_| instance.lacking.clone()).unwrap_or_default(),
        }
    }
}

fn health(instance: &Instance) -> Option<&'static str> {
    let verdict = match instance.plan.health {
        HealthKind::None => return None,
        HealthKind::Liveness if instance.machine.pid().is_some() => Verdict::Healthy,
        HealthKind::Liveness => Verdict::Unknown,
        HealthKind::Tcp | HealthKind::Http | HealthKind::Script => instance.machine.health().verdict,
    };
    Some(match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Healthy => "healthy",
        Verdict::Unhealthy => "unhealthy",
    })
}

/// Looks at what the child of an instance uses, unless that was done a moment ago.
fn measure(instance: &mut Instance, usage: impl FnOnce(PortId) -> Option<astrid_sdk::child::Usage>, now: Now) {
    let (Some(port), Some(uptime_ms)) = (instance.port, instance.machine.uptime_ms(now)) else {
        return;
    };
    let last = instance.sample;
    if last.is_some_and(|last| now.up_ms.saturating_sub(last.up_ms) < SAMPLE_MS) {
        return;
    }
    let Some(usage) = usage(port) else { return };
    // Processes that ended unwaited take their time with them, so it can go back.
    let (used_ms, over_ms) = match last {
        Some(last) => (usage.cpu_ms.saturating_sub(last.cpu_ms), now.up_ms - last.up_ms),
        None => (usage.cpu_ms, uptime_ms),
    };
    let tenths = used_ms.saturating_mul(1000) / over_ms.max(1);
    instance.sample = Some(Sample {
        up_ms: now.up_ms,
        cpu_ms: usage.cpu_ms,
        cpu_percent: u32::try_from(tenths).map_or(f64::from(u32::MAX), f64::from) / 10.0,
        memory_bytes: usage.memory_bytes,
        processes: usage.processes,
    });
}
