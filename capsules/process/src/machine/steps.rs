//! The steps of the machine from one state to another.

use astrid_sdk::child::{Reach, Signal};

use super::{Check, Checked, Child, Machine, Phase, STUCK_AFTER_MS, Stopping, is_within};
use crate::definition::Restart;
use crate::policy::{Cadence, Policy};
use crate::signals;
use crate::state::{Action, Now, State, Verdict};
use crate::words::Lasting;

/// The first check comes this soon after a start at the latest, in milliseconds, so that who waits for health need not wait for a whole interval.
const FIRST_CHECK_MS: u64 = 1000;

impl Machine {
    pub(super) fn set_state(&mut self, state: State, why: &str, now: Now) {
        self.state = state;
        self.since_wall_ms = now.wall_ms;
        self.actions.push(Action::Changed(state, why.to_owned()));
    }

    pub(super) fn note(&mut self, what: &str) {
        self.actions.push(Action::Note(what.to_owned()));
    }

    pub(super) fn clean_record(&mut self) {
        self.restarts.clear();
        self.attempt = 0;
        self.circuit_open = false;
        self.failure = None;
    }

    pub(super) fn spawn(&mut self, why: &str, now: Now) {
        self.restart_at = None;
        self.interrupted = false;
        self.child = Child::Asked;
        self.health = Checked::default();
        self.set_state(State::Starting, why, now);
        self.actions.push(Action::Spawn);
    }

    pub(super) fn runs(&mut self, policy: &Policy, pid: u32, before_ms: u64, text: String, now: Now) {
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

    pub(super) fn begin_stop(&mut self, policy: &Policy, timeout_ms: u64, why: &str, now: Now) {
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

    pub(super) fn set_phase(&mut self, phase: Phase) {
        if let Some(stopping) = &mut self.stopping {
            stopping.phase = phase;
        }
    }

    pub(super) fn ask_to_end(&mut self, policy: &Policy, now: Now) {
        let Some(stopping) = self.stopping else { return };
        if policy.stop_signal == Signal::Kill || stopping.timeout_ms == 0 {
            self.kill(now);
            return;
        }
        self.note(&format!("sent {}", signals::name(policy.stop_signal)));
        self.actions.push(Action::Signal(policy.stop_signal, Reach::Group));
        self.set_phase(Phase::Asked(now.up_ms.saturating_add(stopping.timeout_ms)));
    }

    pub(super) fn kill(&mut self, now: Now) {
        self.actions.push(Action::Signal(Signal::Kill, Reach::Tree));
        self.set_phase(Phase::Killed(now.up_ms.saturating_add(STUCK_AFTER_MS)));
    }

    /// The child ended while it was stopping.
    pub(super) fn ended_in_stop(&mut self, policy: &Policy, ended: State, text: &str, now: Now) {
        let Some(stopping) = self.stopping.take() else { return };
        if stopping.unhealthy {
            self.again(policy, State::Crashed(ended.code()), text, now);
            return;
        }
        self.set_state(ended, text, now);
        if stopping.then_start {
            self.clean_record();
            self.asked = true;
            self.spawn("restarted by request", now);
        }
    }

    /// It is to be started again, if that has not happened too often.
    pub(super) fn again(&mut self, policy: &Policy, ended: State, text: &str, now: Now) {
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

    pub(super) fn end_check(&mut self) {
        if matches!(self.health.check, Check::Running(_)) {
            self.actions.push(Action::EndCheck);
        }
        self.health.check = Check::Off;
    }

    /// A check that was written down is read again.
    pub(super) fn reread_check(&mut self, policy: &Policy, now: Now) {
        let Some(cadence) = policy.checks else {
            // The definition checks no more.
            self.health = Checked::default();
            return;
        };
        let works = self.child_works();
        match &mut self.health.check {
            Check::At(at) => *at = (*at).min(now.up_ms.saturating_add(cadence.interval_ms)),
            Check::Running(at) => *at = (*at).min(now.up_ms.saturating_add(cadence.timeout_ms)),
            Check::Off if works => {
                // The definition checks now.
                self.health.check = Check::At(now.up_ms.saturating_add(cadence.interval_ms.min(FIRST_CHECK_MS)));
            }
            Check::Off | Check::Ending => {}
        }
    }

    fn child_works(&self) -> bool {
        self.stopping.is_none() && matches!(self.child, Child::Runs { .. })
    }

    /// Counts what a check found.
    pub(super) fn count(&mut self, policy: &Policy, cadence: Cadence, found: Result<(), String>, now: Now) {
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
