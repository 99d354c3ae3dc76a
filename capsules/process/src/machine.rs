//! One instance: its states (A10), when it is restarted (A11), whether it works (A12), how it is stopped (A14).
//!
//! Pure: what happens goes in with the time, what is to be done comes out. There is no clock, no timer and no port here; who owns the machine
//! calls [`Machine::due`] when [`Machine::deadline`] has come. So all of it is tested natively, by random sequences too.
//!
//! What always holds: there is never a second child; a process id is known exactly while the child runs; a stop is followed by an end or
//! by the word that it is stuck; at rest there is no deadline unless health is checked.

use std::collections::VecDeque;

use astrid_sdk::Problem;
use astrid_sdk::child::{Exit, Reach, Signal};

use crate::definition::{Growth, Restart};
use crate::signals;
use crate::words::Lasting;

/// How long a killed process may take to end, in milliseconds, until it is called stuck (A14).
pub const STUCK_AFTER_MS: u64 = 5000;
/// The first check comes this soon after a start at the latest, in milliseconds, so that who waits for health need not wait for a whole interval.
const FIRST_CHECK_MS: u64 = 1000;

/// How an instance is kept running. Times in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// What is waited before that.
    pub backoff: Backoff,
    /// Restarts within the window, after which the circuit opens.
    pub max_restarts: u32,
    /// The window.
    pub window_ms: u64,
    /// Who ran this long begins with a clean record.
    pub min_uptime_ms: u64,
    /// When health is checked, if it is.
    pub checks: Option<Cadence>,
    /// What asks it to end.
    pub stop_signal: Signal,
    /// What it may take then.
    pub stop_timeout_ms: u64,
    /// Whether something is run before.
    pub before_stop: bool,
}

/// What is waited before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// How waits grow.
    pub growth: Growth,
    /// The first.
    pub base_ms: u64,
    /// By what they grow exponentially.
    pub factor: u32,
    /// The longest.
    pub cap_ms: u64,
    /// Whether each is between half of it and all of it.
    pub jitter: bool,
}

impl Backoff {
    /// The wait before this restart in a row, counted from 0.
    pub fn delay_ms(&self, attempt: u32, chance: u64) -> u64 {
        let full = match self.growth {
            Growth::Fixed => self.base_ms,
            Growth::Linear => self.base_ms.saturating_mul(u64::from(attempt) + 1).min(self.cap_ms),
            Growth::Exponential => {
                let grown = u64::from(self.factor).checked_pow(attempt).unwrap_or(u64::MAX);
                self.base_ms.saturating_mul(grown).min(self.cap_ms)
            }
        };
        if self.jitter && full > 1 {
            full / 2 + chance % (full - full / 2 + 1)
        } else {
            full
        }
    }
}

/// When health is checked, and what is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cadence {
    /// Between two checks.
    pub interval_ms: u64,
    /// What a check may take.
    pub timeout_ms: u64,
    /// Failures in a row that mean that it does not work.
    pub unhealthy_after: u32,
    /// Successes in a row that mean that it works.
    pub healthy_after: u32,
    /// For this long after a start failures do not count.
    pub start_period_ms: u64,
}

/// When something happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since the daemon started; never goes back.
    pub up_ms: u64,
    /// Milliseconds since 1970, for people.
    pub wall_ms: u64,
    /// Any number, for waits that are spread.
    pub chance: u64,
}

/// The states of A10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was asked for and does not run yet.
    Starting,
    /// It runs.
    Running,
    /// It runs and does not work.
    Unhealthy,
    /// It was asked to end.
    Stopping,
    /// It ended as it should, or never began.
    Stopped(Option<i32>),
    /// It ended as it should not, or could not begin.
    Crashed(Option<i32>),
    /// It was killed, because it did not stop.
    Terminated,
}

impl State {
    /// As answers and events call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped(_) => "stopped",
            Self::Crashed(_) => "crashed",
            Self::Terminated => "terminated",
        }
    }

    /// The exit code that it ended with.
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Stopped(code) | Self::Crashed(code) => code,
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start the program.
    Spawn,
    /// Send the child a signal.
    Signal(Signal, Reach),
    /// Start a check.
    Check,
    /// End the check that runs.
    EndCheck,
    /// Run what is run before a stop.
    BeforeStop,
    /// End that.
    EndBeforeStop,
    /// The state is another; says why.
    Changed(State, String),
    /// Something worth remembering.
    Note(String),
    /// The circuit has opened; says why.
    CircuitOpened(String),
}

/// What is known of health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// Health of the child that runs.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// What is known.
    pub verdict: Verdict,
    /// What the last failed check said.
    pub detail: Option<String>,
    /// Failures and successes in a row.
    failures: u32,
    successes: u32,
    check: Check,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// How it ended last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastExit {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// With this code.
    pub code: Option<i32>,
    /// By this signal.
    pub signal: Option<String>,
    /// For people.
    pub text: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// What is run before runs, and may until then.
    Before(u64),
    /// It was asked to end, and is killed then.
    Asked(u64),
    /// It was killed, and is called stuck then.
    Killed(u64),
    Stuck,
}

#[derive(Debug, Clone, Copy)]
struct Stopping {
    phase: Phase,
    /// Because it does not work; otherwise because it was told to.
    unhealthy: bool,
    then_start: bool,
    /// What it may take from the signal to the kill.
    timeout_ms: u64,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    since_wall_ms: u64,
    child: Child,
    stopping: Option<Stopping>,
    /// When the restarts were that count, at most as many as open the circuit.
    restarts: VecDeque<u64>,
    restarts_total: u32,
    /// Restarts in a row, for the wait.
    attempt: u32,
    circuit_open: bool,
    restart_at: Option<u64>,
    health: Checked,
    last_exit: Option<LastExit>,
    /// Why it could not be started.
    failure: Option<Problem>,
    actions: Vec<Action>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            state: State::Stopped(None),
            since_wall_ms: 0,
            child: Child::None,
            stopping: None,
            restarts: VecDeque::new(),
            restarts_total: 0,
            attempt: 0,
            circuit_open: false,
            restart_at: None,
            health: Checked::default(),
            last_exit: None,
            failure: None,
            actions: Vec::new(),
        }
    }
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
    /// Start, with a clean record. Nothing when there is a child; not while that is stopping.
    pub fn start(&mut self, now: Now) {
        if self.child != Child::None {
            return;
        }
        self.clean_record();
        self.spawn("started by request", now);
    }

    /// Stop. `at_most_ms` bounds what it may take until it is killed.
    pub fn stop(&mut self, policy: &Policy, at_most_ms: Option<u64>, now: Now) {
        let timeout_ms = policy.stop_timeout_ms.min(at_most_ms.unwrap_or(u64::MAX));
        if self.child == Child::None {
            self.restart_at = None;
            if !matches!(self.state, State::Stopped(_) | State::Terminated) {
                self.set_state(State::Stopped(self.state.code()), "stopped by request", now);
            }
        } else if let Some(stopping) = &mut self.stopping {
            stopping.then_start = false;
            stopping.unhealthy = false;
            stopping.timeout_ms = stopping.timeout_ms.min(timeout_ms);
            if let Phase::Before(at) | Phase::Asked(at) = &mut stopping.phase {
                *at = (*at).min(now.up_ms.saturating_add(timeout_ms));
            }
        } else {
            self.begin_stop(policy, timeout_ms, "stopping by request", now);
        }
    }

    /// Stop, and start with a clean record.
    pub fn restart(&mut self, policy: &Policy, now: Now) {
        if self.child == Child::None {
            self.start(now);
            return;
        }
        if self.stopping.is_none() {
            self.begin_stop(policy, policy.stop_timeout_ms, "stopping for a restart by request", now);
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.unhealthy = false;
            stopping.then_start = true;
        }
    }

    /// A child of an earlier generation of this actor is this instance's.
    pub fn adopt(&mut self, policy: &Policy, held: Option<(u32, u64)>, restarts: u32, now: Now) {
        self.restarts_total = restarts;
        match held {
            Some((pid, started_at_ms)) => {
                let before_ms = now.wall_ms.saturating_sub(started_at_ms);
                self.runs(policy, pid, before_ms, format!("found running, pid {pid}"), now);
            }
            None => {
                self.child = Child::Asked;
                self.set_state(State::Starting, "found starting", now);
            }
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
        self.failure = Some(problem);
        self.last_exit = Some(LastExit {
            at_ms: now.wall_ms,
            code: None,
            signal: None,
            text: text.clone(),
        });
        if self.stopping.is_some() {
            self.ended_in_stop(policy, State::Stopped(None), &text, now);
        } else if lasting && self.attempt == 0 || policy.restart == Restart::Never {
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

/// How it does that.
impl Machine {
    fn set_state(&mut self, state: State, why: &str, now: Now) {
        self.state = state;
        self.since_wall_ms = now.wall_ms;
        self.actions.push(Action::Changed(state, why.to_owned()));
    }

    fn note(&mut self, what: &str) {
        self.actions.push(Action::Note(what.to_owned()));
    }

    fn clean_record(&mut self) {
        self.restarts.clear();
        self.attempt = 0;
        self.circuit_open = false;
        self.failure = None;
    }

    fn spawn(&mut self, why: &str, now: Now) {
        self.restart_at = None;
        self.child = Child::Asked;
        self.health = Checked::default();
        self.set_state(State::Starting, why, now);
        self.actions.push(Action::Spawn);
    }

    fn runs(&mut self, policy: &Policy, pid: u32, before_ms: u64, text: String, now: Now) {
        self.child = Child::Runs {
            pid,
            since_up_ms: now.up_ms,
            before_ms,
        };
        self.failure = None;
        if let Some(cadence) = policy.checks {
            let first = cadence.interval_ms.min(FIRST_CHECK_MS);
            self.health.check = Check::At(now.up_ms.saturating_add(first));
        }
        self.set_state(State::Running, &text, now);
    }

    fn begin_stop(&mut self, policy: &Policy, timeout_ms: u64, why: &str, now: Now) {
        self.end_check();
        self.set_state(State::Stopping, why, now);
        let until = now.up_ms.saturating_add(timeout_ms);
        self.stopping = Some(Stopping {
            phase: Phase::Before(until),
            unhealthy: false,
            then_start: false,
            timeout_ms,
        });
        if policy.before_stop && self.pid().is_some() {
            self.actions.push(Action::BeforeStop);
        } else {
            self.ask_to_end(policy, now);
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(stopping) = &mut self.stopping {
            stopping.phase = phase;
        }
    }

    fn ask_to_end(&mut self, policy: &Policy, now: Now) {
        let Some(stopping) = self.stopping else { return };
        if policy.stop_signal == Signal::Kill || stopping.timeout_ms == 0 {
            self.kill(now);
            return;
        }
        self.note(&format!("sent {}", signals::name(policy.stop_signal)));
        self.actions.push(Action::Signal(policy.stop_signal, Reach::Group));
        self.set_phase(Phase::Asked(now.up_ms.saturating_add(stopping.timeout_ms)));
    }

    fn kill(&mut self, now: Now) {
        self.actions.push(Action::Signal(Signal::Kill, Reach::Tree));
        self.set_phase(Phase::Killed(now.up_ms.saturating_add(STUCK_AFTER_MS)));
    }

    /// The child ended while it was stopping.
    fn ended_in_stop(&mut self, policy: &Policy, ended: State, text: &str, now: Now) {
        let Some(stopping) = self.stopping.take() else { return };
        if stopping.unhealthy {
            self.again(policy, State::Crashed(ended.code()), text, now);
            return;
        }
        self.set_state(ended, text, now);
        if stopping.then_start {
            self.clean_record();
            self.spawn("restarted by request", now);
        }
    }

    /// It is to be started again, if that has not happened too often.
    fn again(&mut self, policy: &Policy, ended: State, text: &str, now: Now) {
        self.restarts.retain(|at| is_within(*at, policy, now));
        self.set_state(ended, text, now);
        if self.restarts.len() >= policy.max_restarts as usize {
            self.circuit_open = true;
            let window = Lasting(policy.window_ms);
            self.actions.push(Action::CircuitOpened(format!(
                "restarted {} times within {window}, and {text} again: it is not restarted any more",
                self.restarts.len()
            )));
            return;
        }
        self.restarts.push_back(now.up_ms);
        self.restarts_total = self.restarts_total.saturating_add(1);
        let delay_ms = policy.backoff.delay_ms(self.attempt, now.chance);
        self.attempt = self.attempt.saturating_add(1);
        if delay_ms == 0 {
            self.spawn("restarted at once", now);
        } else {
            self.note(&format!("restarts in {}", Lasting(delay_ms)));
            self.restart_at = Some(now.up_ms.saturating_add(delay_ms));
        }
    }

    fn end_check(&mut self) {
        if matches!(self.health.check, Check::Running(_)) {
            self.actions.push(Action::EndCheck);
        }
        self.health.check = Check::Off;
    }

    /// Counts what a check found.
    fn count(&mut self, policy: &Policy, cadence: Cadence, found: Result<(), String>, now: Now) {
        let Err(detail) = found else {
            self.health.failures = 0;
            self.health.detail = None;
            self.health.successes = self.health.successes.saturating_add(1);
            if self.health.successes >= cadence.healthy_after && self.health.verdict != Verdict::Healthy {
                self.health.verdict = Verdict::Healthy;
                self.note("healthy");
                if self.state == State::Unhealthy {
                    self.set_state(State::Running, "healthy again", now);
                }
            }
            return;
        };
        self.health.successes = 0;
        self.health.detail = Some(detail.clone());
        let young = self
            .uptime_ms(now)
            .is_some_and(|uptime| uptime < cadence.start_period_ms);
        if young && self.health.verdict == Verdict::Unknown {
            return;
        }
        self.health.failures = self.health.failures.saturating_add(1);
        self.note(&format!(
            "health check failed ({} of {}): {detail}",
            self.health.failures, cadence.unhealthy_after
        ));
        if self.health.failures < cadence.unhealthy_after || self.health.verdict == Verdict::Unhealthy {
            return;
        }
        self.health.verdict = Verdict::Unhealthy;
        self.set_state(State::Unhealthy, &format!("unhealthy: {detail}"), now);
        if policy.restart != Restart::Never {
            self.begin_stop(
                policy,
                policy.stop_timeout_ms,
                "stopping for a restart: it is unhealthy",
                now,
            );
            if let Some(stopping) = &mut self.stopping {
                stopping.unhealthy = true;
            }
        }
    }
}

fn is_within(at: u64, policy: &Policy, now: Now) -> bool {
    now.up_ms.saturating_sub(at) < policy.window_ms
}

impl LastExit {
    fn of(exit: &Exit, now: Now) -> Self {
        let (code, signal, text) = match exit {
            Exit::Code(code) => (Some(*code), None, format!("exit code {code}")),
            Exit::Signal { name, core, .. } => {
                let core = if *core { " (core dumped)" } else { "" };
                (None, Some(name.clone()), format!("killed by {name}{core}"))
            }
            Exit::Lost => (
                None,
                None,
                "ended with the daemon's keeper, nobody knows how".to_owned(),
            ),
        };
        Self {
            at_ms: now.wall_ms,
            code,
            signal,
            text,
        }
    }
}
