//! How an instance goes on after its actor began anew: in the same daemon, where its child may live, or in the next one, where it has ended
//! unless it is found running.
//!
//! Whatever the daemon did to a program is not held against it: it is started again if it was to run, and that does not count for its
//! circuit. What was stopped by a person, or given up, stays so.

use astrid_sdk::Problem;
use serde::{Deserialize, Deserializer};

use super::{Child, Machine, Phase};
use crate::policy::Policy;
use crate::state::{LastExit, Now, State};

/// The end of a child whose daemon was stopped, of one whose daemon was killed, and of one that never began.
const STOPPED: &str = "ended with the daemon, which was stopped";
const KILLED: &str = "ended with the daemon, which was killed";
const NOT_STARTED: &str = "not started before the daemon ended";

impl Machine {
    /// It was written down and is read again. A clock that was set back meanwhile must not make anything wait longer than it would.
    pub fn reread(&mut self, policy: &Policy, now: Now) {
        let clamp = |at: &mut u64, longest_ms: u64| *at = (*at).min(now.up_ms.saturating_add(longest_ms));
        for at in &mut self.restarts {
            clamp(at, 0);
        }
        if let Some(at) = &mut self.restart_at {
            clamp(at, policy.backoff.longest_ms());
        }
        if let Child::Runs { since_up_ms, .. } = &mut self.child {
            clamp(since_up_ms, 0);
        }
        if let Some(stopping) = &mut self.stopping
            && let Phase::Before(at) | Phase::Asked(at) | Phase::Killed(at) = &mut stopping.phase
        {
            clamp(at, stopping.timeout_ms.max(super::STUCK_AFTER_MS));
        }
        self.reread_check(policy, now);
    }

    /// Another daemon runs than the one that this was written in, and holds no child of it.
    pub fn resume(&mut self, policy: &Policy, autostart: bool, now: Now) {
        let was_there = self.forget_child(now);
        let was_to_run = was_there || self.interrupted;
        self.interrupted = false;
        if self.held_down || self.circuit_open {
            return;
        }
        // Over a pause of the daemon the time that it waits for goes on.
        if self.restart_at.is_some() {
            self.due(policy, now);
        } else if was_to_run {
            self.asked = false;
            self.failure = None;
            self.spawn("started again with the daemon", now);
        } else if autostart {
            self.begin(now);
        }
    }

    /// Its definition has no place for it any more: what is left of it ends.
    pub fn leave(&mut self, policy: &Policy, now: Now) {
        if self.child != Child::None {
            self.stop(policy, now);
        }
    }

    /// Its child ended with an earlier daemon. Whether there was one.
    fn forget_child(&mut self, now: Now) -> bool {
        let child = std::mem::take(&mut self.child);
        self.stopping = None;
        self.health = super::Checked::default();
        let text = match child {
            Child::None => return false,
            Child::Asked => NOT_STARTED,
            Child::Runs { .. } if self.interrupted => STOPPED,
            Child::Runs { .. } => KILLED,
        };
        if let Child::Runs { .. } = child {
            self.last_exit = Some(LastExit {
                at_ms: now.wall_ms,
                code: None,
                signal: None,
                text: text.to_owned(),
            });
        }
        self.set_state(State::Stopped(None), text, now);
        true
    }

    /// A child that this machine did not see start is this instance's: it outlived its actor, or its daemon.
    pub fn adopt(&mut self, policy: &Policy, held: Option<(u32, u64)>, restarts: u32, now: Now) {
        self.restarts_total = self.restarts_total.max(restarts);
        self.restart_at = None;
        self.circuit_open = false;
        self.interrupted = false;
        self.health = super::Checked::default();
        let child = match held {
            Some((pid, started_at_ms)) => Child::Runs {
                pid,
                since_up_ms: now.up_ms,
                before_ms: now.wall_ms.saturating_sub(started_at_ms),
            },
            None => Child::Asked,
        };
        if self.stopping.is_some() {
            // It was asked to end, and whether it heard that is not known.
            self.child = child;
            self.ask_to_end(policy, now);
            return;
        }
        match child {
            Child::Runs { pid, before_ms, .. } => {
                self.runs(policy, pid, before_ms, format!("found running, pid {pid}"), now);
            }
            Child::None | Child::Asked => {
                self.child = Child::Asked;
                self.set_state(State::Starting, "found starting", now);
            }
        }
    }
}

/// A problem as it is written.
pub(super) fn read_problem<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Problem>, D::Error> {
    #[derive(Deserialize)]
    struct Document {
        code: String,
        message: String,
        hint: Option<String>,
    }
    let document = Option::<Document>::deserialize(from)?;
    Ok(document.map(|document| {
        let problem = Problem::new(&document.code, document.message);
        match document.hint {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }))
}

/// What is so is left out of what is written.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
