//! Why an instance is in its state, in sentences (A21).

use astrid_sdk::{Context, body};

use crate::definition::Restart;
use crate::machine::Machine;
use crate::plan::Stream;
use crate::process::{Instance, Process};
use crate::state::{LastExit, Now, State};
use crate::words::Lasting;

/// Lines of its errors that are shown at most.
pub const LINES_MAX: u32 = 200;
/// Bytes of them: the end of what is longer.
const TAIL_BYTES_MAX: usize = 16 * 1024;

/// Why the instances of a process are in their states.
#[body]
#[derive(Debug)]
pub struct Why {
    /// Its name.
    pub name: String,
    /// Each that was asked for.
    pub instances: Vec<InstanceWhy>,
}

/// Why an instance is in its state.
#[body]
#[derive(Debug)]
pub struct InstanceWhy {
    /// Which.
    pub index: u32,
    /// Its state.
    pub state: String,
    /// Why.
    pub sentences: Vec<String>,
    /// What happened, newest last.
    pub events: Vec<EventView>,
    /// The last lines of its errors.
    pub stderr_tail: String,
}

/// Something that happened.
#[body]
#[derive(Debug)]
pub struct EventView {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

impl InstanceWhy {
    /// Why this instance is in its state.
    pub fn of(ctx: &Context, process: &Process, index: u32, instance: &Instance, lines: u32, now: Now) -> Self {
        let stream = process.plan.streams().last().copied().unwrap_or(Stream::Output);
        let tail = ctx.tail(&process.plan.log_name(index, stream), lines.min(LINES_MAX));
        let events = instance.history.iter().map(|event| EventView {
            at_ms: event.at_ms,
            what: event.what.clone(),
        });
        Self {
            index,
            state: instance.machine.state().as_str().to_owned(),
            sentences: sentences(&process.plan.name, instance, now),
            events: events.collect(),
            stderr_tail: shown(&tail.unwrap_or_default()),
        }
    }
}

fn shown(tail: &[u8]) -> String {
    let from = tail.len().saturating_sub(TAIL_BYTES_MAX);
    String::from_utf8_lossy(&tail[from..]).into_owned()
}

fn ago(at_ms: u64, now: Now) -> String {
    format!("{} ago", Lasting(now.wall_ms.saturating_sub(at_ms)))
}

fn sentences(name: &str, instance: &Instance, now: Now) -> Vec<String> {
    let machine = &instance.machine;
    let policy = &instance.plan.policy;
    let last = machine.last_exit();
    let mut said = Vec::new();
    match machine.state() {
        State::Starting => said.push("It was asked to start and does not run yet.".to_owned()),
        State::Running | State::Unhealthy => {
            let uptime = Lasting(machine.uptime_ms(now).unwrap_or_default());
            let pid = machine.pid().unwrap_or_default();
            said.push(format!("It has run for {uptime} as process {pid}."));
            said.extend(restarts(machine, last, now));
        }
        State::Stopping if machine.is_stuck() => said.push(
            "It was killed and does not end: it waits for a device or a file system, which only those can end."
                .to_owned(),
        ),
        State::Stopping => {
            let since = Lasting(now.wall_ms.saturating_sub(machine.since_ms()));
            said.push(format!("It was asked to end {since} ago, and has not ended yet."));
        }
        State::Stopped(_) => said.push(match last {
            None if machine.since_ms() == 0 && !instance.plan.autostart => {
                format!("It was never started: it says `autostart = false`. `astrid process start {name}` starts it.")
            }
            None => "It was stopped before it ran.".to_owned(),
            Some(last) => format!("It ended {}: {}.", ago(last.at_ms, now), last.text),
        }),
        State::Terminated => said.push(format!(
            "It was killed, because it did not end within {} of being asked to.",
            Lasting(policy.stop_timeout_ms)
        )),
        State::Crashed(_) => said.extend(last.map(|last| crashed(last, now))),
    }
    if machine.circuit_open() {
        said.push(format!(
            "It was restarted {} times within {} before that, which is as often as it may be: the circuit is open.",
            policy.max_restarts,
            Lasting(policy.window_ms)
        ));
        said.push(format!("It stays down until `astrid process start {name}`."));
    } else if let Some(at) = machine.restart_at() {
        said.push(format!(
            "It is restarted in {}, which is restart {} of at most {} within {}.",
            Lasting(at.saturating_sub(now.up_ms)),
            machine.restarts_in_window(policy, now),
            policy.max_restarts,
            Lasting(policy.window_ms)
        ));
    } else if let State::Stopped(Some(0)) = machine.state()
        && policy.restart == Restart::OnFailure
    {
        said.push("It is not restarted, because exit code 0 is no failure.".to_owned());
    } else if let State::Crashed(_) = machine.state() {
        said.push(if policy.restart == Restart::Never {
            "It is not restarted, because it says `restart = \"never\"`.".to_owned()
        } else {
            format!(
                "Trying again would fail as well. When the cause is removed, `astrid process start {name}` starts it."
            )
        });
    }
    if let Some(detail) = &machine.health().detail {
        said.push(format!("The last health check failed: {detail}."));
    }
    said
}

fn crashed(last: &LastExit, now: Now) -> String {
    let ended = match (last.code, &last.signal) {
        (Some(_), _) => "ended with ",
        (None, Some(_)) => "was ",
        (None, None) => "",
    };
    format!("It {ended}{}, {}.", last.text, ago(last.at_ms, now))
}

fn restarts(machine: &Machine, last: Option<&LastExit>, now: Now) -> Option<String> {
    let times = match machine.restarts() {
        0 => return None,
        1 => "once".to_owned(),
        restarts => format!("{restarts} times"),
    };
    let why = last.map(|last| format!(", the last time because of: {}, {}", last.text, ago(last.at_ms, now)));
    Some(format!("It was restarted {times}{}.", why.unwrap_or_default()))
}
