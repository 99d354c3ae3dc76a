//! One instance: its states (A10), when it is restarted (A11), whether it works (A12), how it is stopped (A14).
//!
//! Pure: what happens goes in with the time, what is to be done comes out. There is no clock, no timer and no port here; who owns the machine
//! calls [`Machine::due`] when [`Machine::deadline`] has come. So all of it is tested natively, by random sequences too.
//!
//! What always holds: there is never a second child; a process id is known exactly while the child runs; a stop is followed by an end or
//! by the word that it is stuck; at rest there is no deadline unless health is checked.

use std::collections::VecDeque;

use astrid_sdk::Problem;
use astrid_sdk::child::Exit;
use serde::{Deserialize, Serialize};

use crate::definition::Restart;
use crate::policy::Policy;
use crate::state::{Action, LastExit, Now, State, Verdict};
use crate::words::Lasting;
use comeback::is_default;

mod comeback;
mod steps;

/// How long a killed process may take to end, in milliseconds, until it is called stuck (A14).
pub const STUCK_AFTER_MS: u64 = 5000;

/// Health of the child that runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checked {
    /// What is known.
    #[serde(skip_serializing_if = "is_default")]
    pub verdict: Verdict,
    /// What the last failed check said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Failures and successes in a row.
    #[serde(skip_serializing_if = "is_default")]
    failures: u32,
    #[serde(skip_serializing_if = "is_default")]
    successes: u32,
    #[serde(skip_serializing_if = "is_default")]
    check: Check,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Check {
    #[default]
    Off,
    /// The next begins then.
    At(u64),
    /// One runs, and may until then.
    Running(u64),
    /// One was ended, and is not gone yet.
    Ending,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Child {
    #[default]
    None,
    Asked,
    Runs {
        pid: u32,
        /// When this machine heard of it, and how long it had run by then.
        since_up_ms: u64,
        before_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// What is run before runs, and may until then.
    Before(u64),
    /// It was asked to end, and is killed then.
    Asked(u64),
    /// It was killed, and is called stuck then.
    Killed(u64),
    Stuck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stopping {
    phase: Phase,
    /// Because it does not work; otherwise because it was told to.
    unhealthy: bool,
    then_start: bool,
    /// What it may take from the signal to the kill.
    timeout_ms: u64,
}

/// One instance. What is written of it (`rows`) is all of it; what is as in a new one is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    state: State,
    #[serde(skip_serializing_if = "is_default")]
    since_wall_ms: u64,
    #[serde(skip_serializing_if = "is_default")]
    child: Child,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopping: Option<Stopping>,
    /// Whether somebody has stopped it: it stays down until somebody starts it, whichever daemon runs.
    #[serde(skip_serializing_if = "is_default")]
    held_down: bool,
    /// Whether it was stopped only because the daemon stopped: the next one starts it again.
    #[serde(skip_serializing_if = "is_default")]
    interrupted: bool,
    /// When the restarts were that count, at most as many as open the circuit.
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    restarts: VecDeque<u64>,
    #[serde(skip_serializing_if = "is_default")]
    restarts_total: u32,
    /// Restarts in a row, for the wait.
    #[serde(skip_serializing_if = "is_default")]
    attempt: u32,
    /// Whether somebody asked for the present start, who is told at once what came of it.
    #[serde(skip_serializing_if = "is_default")]
    asked: bool,
    #[serde(skip_serializing_if = "is_default")]
    circuit_open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_at: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    health: Checked,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_exit: Option<LastExit>,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "comeback::read_problem")]
    failure: Option<Problem>,
    #[serde(skip)]
    actions: Vec<Action>,
}

/// What is known of it.
impl Machine {
    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when, in milliseconds since 1970.
    pub fn since_ms(&self) -> u64 {
        self.since_wall_ms
    }

    /// The process id of its child, while that runs.
    pub fn pid(&self) -> Option<u32> {
        match self.child {
            Child::Runs { pid, .. } => Some(pid),
            Child::None | Child::Asked => None,
        }
    }

    /// How long its child has run.
    pub fn uptime_ms(&self, now: Now) -> Option<u64> {
        match self.child {
            Child::Runs {
                since_up_ms, before_ms, ..
            } => Some(before_ms + now.up_ms.saturating_sub(since_up_ms)),
            Child::None | Child::Asked => None,
        }
    }

    /// Whether there is a child, or one was asked for.
    pub fn has_child(&self) -> bool {
        self.child != Child::None
    }

    /// Whether nothing is under way: it neither starts nor stops.
    pub fn is_settled(&self) -> bool {
        !matches!(self.state, State::Starting | State::Stopping)
    }

    /// Whether it was killed and did not end.
    pub fn is_stuck(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.phase == Phase::Stuck)
    }

    /// Whether it runs, and is known to work where that is checked.
    pub fn is_ready(&self, policy: &Policy) -> bool {
        self.state == State::Running && (policy.checks.is_none() || self.health.verdict == Verdict::Healthy)
    }

    /// Restarts that were not asked for.
    pub fn restarts(&self) -> u32 {
        self.restarts_total
    }

    /// Those that count for the circuit now.
    pub fn restarts_in_window(&self, policy: &Policy, now: Now) -> u32 {
        let recent = self.restarts.iter().filter(|at| is_within(**at, policy, now)).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// Whether the circuit is open: it is not restarted until somebody says so.
    pub fn circuit_open(&self) -> bool {
        self.circuit_open
    }

    /// Whether somebody has stopped it, and nobody started it since.
    pub fn is_held_down(&self) -> bool {
        self.held_down
    }

    /// When it is started again, on the clock of [`Now::up_ms`].
    pub fn restart_at(&self) -> Option<u64> {
        self.restart_at
    }

    /// What is known of its health.
    pub fn health(&self) -> &Checked {
        &self.health
    }

    /// Whether a check is under way.
    pub fn wants_check(&self) -> bool {
        matches!(self.health.check, Check::Running(_))
    }

    /// Whether what is run before a stop is under way.
    pub fn wants_before_stop(&self) -> bool {
        matches!(self.stopping.map(|stopping| stopping.phase), Some(Phase::Before(_)))
    }

    /// How it ended last.
    pub fn last_exit(&self) -> Option<&LastExit> {
        self.last_exit.as_ref()
    }

    /// Why it could not be started the last time.
    pub fn failure(&self) -> Option<&Problem> {
        self.failure.as_ref()
    }

    /// When [`Machine::due`] is to be called next.
    pub fn deadline(&self) -> Option<u64> {
        let stop = self.stopping.and_then(|stopping| match stopping.phase {
            Phase::Before(at) | Phase::Asked(at) | Phase::Killed(at) => Some(at),
            Phase::Stuck => None,
        });
        let check = match self.health.check {
            Check::At(at) | Check::Running(at) => Some(at),
            Check::Off | Check::Ending => None,
        };
        [self.restart_at, stop, check].into_iter().flatten().min()
    }

    /// Takes what is to be done, first to last.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

/// What it is told.
impl Machine {
    /// Whether it is being stopped, and not to be started again.
    pub fn ends_for_good(&self) -> bool {
        let stopping = self.stopping.as_ref();
        stopping.is_some_and(|stopping| !stopping.then_start && !stopping.unhealthy)
    }

    /// Start, with a clean record. Nothing when there is a child; not while that is stopping.
    pub fn start(&mut self, now: Now) {
        if self.child != Child::None {
            return;
        }
        self.held_down = false;
        self.clean_record();
        self.asked = true;
        self.spawn("started by request", now);
    }

    /// Start with the daemon, or with its definition: what is missing now may be there in a moment.
    pub fn begin(&mut self, now: Now) {
        if self.child == Child::None {
            self.clean_record();
            self.asked = false;
            self.spawn("started as its definition says", now);
        }
    }

    /// Stop, and stay down until somebody says otherwise.
    pub fn stop(&mut self, policy: &Policy, now: Now) {
        self.held_down = true;
        self.interrupted = false;
        if self.child == Child::None {
            self.restart_at = None;
            if !matches!(self.state, State::Stopped(_) | State::Terminated) {
                self.set_state(State::Stopped(self.state.code()), "stopped by request", now);
            }
        } else {
            self.end_child(policy, policy.stop_timeout_ms, "stopping by request", now);
        }
    }

    /// The daemon stops: what runs ends, within this time, and is the next daemon's to start. What waits for its restart waits on.
    pub fn drain(&mut self, policy: &Policy, at_most_ms: u64, now: Now) {
        if self.child != Child::None {
            self.interrupted = !self.held_down;
            let timeout_ms = policy.stop_timeout_ms.min(at_most_ms);
            self.end_child(policy, timeout_ms, "stopping with the daemon", now);
        }
    }

    fn end_child(&mut self, policy: &Policy, timeout_ms: u64, why: &str, now: Now) {
        let Some(stopping) = &mut self.stopping else {
            self.begin_stop(policy, timeout_ms, why, now);
            return;
        };
        stopping.then_start = false;
        stopping.unhealthy = false;
        stopping.timeout_ms = stopping.timeout_ms.min(timeout_ms);
        if let Phase::Before(at) | Phase::Asked(at) = &mut stopping.phase {
            *at = (*at).min(now.up_ms.saturating_add(timeout_ms));
        }
    }

    /// Stop, and start with a clean record.
    pub fn restart(&mut self, policy: &Policy, now: Now) {
        if self.child == Child::None {
            self.start(now);
            return;
        }
        self.held_down = false;
        if self.stopping.is_none() {
            self.begin_stop(policy, policy.stop_timeout_ms, "stopping for a restart by request", now);
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.unhealthy = false;
            stopping.then_start = true;
        }
    }
}

/// What it hears of its child.
impl Machine {
    /// It runs.
    pub fn started(&mut self, policy: &Policy, pid: u32, now: Now) {
        if self.child != Child::Asked {
            return;
        }
        if self.stopping.is_some() {
            self.child = Child::Runs {
                pid,
                since_up_ms: now.up_ms,
                before_ms: 0,
            };
        } else {
            self.runs(policy, pid, 0, format!("started, pid {pid}"), now);
        }
    }

    /// It could not be started. `lasting`: another attempt would fail as well.
    pub fn failed(&mut self, policy: &Policy, problem: Problem, lasting: bool, now: Now) {
        if self.child != Child::Asked {
            return;
        }
        self.child = Child::None;
        let text = format!("could not be started: {}", problem.message());
        // Who stopped it wanted it not to run.
        self.failure = self.stopping.is_none().then_some(problem);
        self.last_exit = Some(LastExit {
            at_ms: now.wall_ms,
            code: None,
            signal: None,
            text: text.clone(),
        });
        if self.stopping.is_some() {
            self.ended_in_stop(policy, State::Stopped(None), &text, now);
        } else if lasting && self.asked && self.attempt == 0 || policy.restart == Restart::Never {
            self.set_state(State::Crashed(None), &text, now);
        } else {
            self.again(policy, State::Crashed(None), &text, now);
        }
    }

    /// It was not started, because it was stopped before that.
    pub fn withdrawn(&mut self, policy: &Policy, now: Now) {
        if self.child == Child::Asked && self.stopping.is_some() {
            self.child = Child::None;
            self.ended_in_stop(policy, State::Stopped(None), "stopped before it was started", now);
        }
    }

    /// It ended.
    pub fn exited(&mut self, policy: &Policy, exit: &Exit, now: Now) {
        if self.child == Child::None {
            return;
        }
        if self.uptime_ms(now).is_some_and(|uptime| uptime >= policy.min_uptime_ms) {
            self.restarts.clear();
            self.attempt = 0;
        }
        self.child = Child::None;
        self.end_check();
        let last = LastExit::of(exit, now);
        let (code, text) = (last.code, last.text.clone());
        self.last_exit = Some(last);
        let ended = match code {
            Some(0) => State::Stopped(code),
            _ => State::Crashed(code),
        };
        if let Some(stopping) = self.stopping {
            let killed = matches!(stopping.phase, Phase::Killed(_) | Phase::Stuck);
            let ended = if killed {
                State::Terminated
            } else {
                State::Stopped(code)
            };
            if let Phase::Before(_) = stopping.phase {
                self.actions.push(Action::EndBeforeStop);
            }
            self.ended_in_stop(policy, ended, &text, now);
        } else if *exit == Exit::Lost && policy.restart != Restart::Never {
            // Not its own doing: it does not count.
            self.set_state(ended, &text, now);
            self.restarts_total = self.restarts_total.saturating_add(1);
            self.spawn("started again, for it did not end by itself", now);
        } else if policy.restart == Restart::Always || (policy.restart == Restart::OnFailure && code != Some(0)) {
            self.again(policy, ended, &text, now);
        } else {
            self.set_state(ended, &text, now);
        }
    }

    /// What is run before a stop has ended.
    pub fn before_stop_ended(&mut self, policy: &Policy, now: Now) {
        if let Some(Stopping {
            phase: Phase::Before(_),
            ..
        }) = self.stopping
        {
            self.ask_to_end(policy, now);
        }
    }

    /// What a check found: nothing wrong, or what.
    pub fn checked(&mut self, policy: &Policy, found: Result<(), String>, now: Now) {
        let Some(cadence) = policy.checks else { return };
        match self.health.check {
            Check::Running(_) => {
                self.health.check = Check::At(now.up_ms.saturating_add(cadence.interval_ms));
                self.count(policy, cadence, found, now);
            }
            // It was counted when its time was over.
            Check::Ending => self.health.check = Check::At(now.up_ms.saturating_add(cadence.interval_ms)),
            Check::Off | Check::At(_) => {}
        }
    }

    /// A deadline may have come.
    pub fn due(&mut self, policy: &Policy, now: Now) {
        if self.restart_at.is_some_and(|at| at <= now.up_ms) {
            self.spawn("restarted", now);
        }
        if let Some(stopping) = self.stopping {
            match stopping.phase {
                Phase::Before(at) if at <= now.up_ms => {
                    self.actions.push(Action::EndBeforeStop);
                    self.note("the command before the stop took too long, and was ended");
                    self.ask_to_end(policy, now);
                }
                Phase::Asked(at) if at <= now.up_ms => {
                    let took = Lasting(stopping.timeout_ms);
                    self.note(&format!("it did not end within {took}, and is killed"));
                    self.kill(now);
                }
                Phase::Killed(at) if at <= now.up_ms => {
                    self.set_phase(Phase::Stuck);
                    self.note("it was killed and did not end: it is stuck");
                }
                _ => {}
            }
        }
        let Some(cadence) = policy.checks else { return };
        match self.health.check {
            Check::At(at) if at <= now.up_ms => {
                self.health.check = Check::Running(now.up_ms.saturating_add(cadence.timeout_ms));
                self.actions.push(Action::Check);
            }
            Check::Running(at) if at <= now.up_ms => {
                self.health.check = Check::Ending;
                self.actions.push(Action::EndCheck);
                let took = Lasting(cadence.timeout_ms);
                self.count(policy, cadence, Err(format!("no answer within {took}")), now);
            }
            _ => {}
        }
    }
}

fn is_within(at: u64, policy: &Policy, now: Now) -> bool {
    now.up_ms.saturating_sub(at) < policy.window_ms
}
