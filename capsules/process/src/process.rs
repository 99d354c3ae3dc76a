//! A process of the table, and its instances.

use std::collections::VecDeque;
use std::rc::Rc;

use astrid_sdk::{PortId, ReplyTo};
use serde::{Deserialize, Serialize};

use crate::answers::WaiterId;
use crate::machine::Machine;
use crate::plan::Plan;
use crate::state::State;

/// Events that are remembered of an instance.
pub const HISTORY_MAX: usize = 20;
/// Bytes of what is remembered of one.
const EVENT_BYTES_MAX: usize = 300;

/// An instance: which process, and its index.
pub type Key = (Rc<str>, u32);

/// A process.
#[derive(Debug)]
pub struct Process {
    /// What it is to be.
    pub plan: Rc<Plan>,
    /// By index. Those beyond what the plan says are leaving.
    pub instances: Vec<Instance>,
    /// It goes once nothing of it runs; who waits for that.
    pub removing: Option<Vec<ReplyTo>>,
    /// Instances that are still to be restarted because the plan has changed; the first of them is at it.
    pub roll: VecDeque<u32>,
}

impl Process {
    /// One that does not run.
    pub fn new(plan: Rc<Plan>) -> Self {
        let instances = (0..plan.instances).map(|_| Instance::new(plan.clone())).collect();
        Self {
            plan,
            instances,
            removing: None,
            roll: VecDeque::new(),
        }
    }

    /// The instances that the plan wants, with their indices.
    pub fn wanted(&self) -> impl Iterator<Item = (u32, &Instance)> {
        (0..self.plan.instances).zip(&self.instances)
    }
}

/// An instance.
#[derive(Debug)]
pub struct Instance {
    /// Its state.
    pub machine: Machine,
    /// What its child was started by.
    pub plan: Rc<Plan>,
    /// Its child.
    pub port: Option<PortId>,
    /// Whether its child is still to be asked for.
    pub queued: bool,
    /// The check that runs.
    pub probe: Option<PortId>,
    /// What that has said.
    pub probe_said: Vec<u8>,
    /// What runs before a stop.
    pub before_stop: Option<PortId>,
    /// The deadline that the table knows.
    pub deadline: Option<u64>,
    /// Who waits until it is settled.
    pub waiters: Vec<WaiterId>,
    /// What its child used when it was last looked at.
    pub sample: Option<Sample>,
    /// What its child runs without.
    pub lacking: Vec<String>,
    /// What of it is on disk, as a number that tells whether it is the same.
    pub kept: Option<u64>,
    /// The last that happened to it, newest last.
    pub history: VecDeque<Event>,
}

/// Something that happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    #[serde(rename = "at")]
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What a child used.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When, in milliseconds since the daemon started.
    pub up_ms: u64,
    /// Processor time since its start, in milliseconds.
    pub cpu_ms: u64,
    /// Processor time, of a processor, since the sample before.
    pub cpu_percent: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Processes.
    pub processes: u32,
}

impl Instance {
    /// One that has never run.
    pub fn new(plan: Rc<Plan>) -> Self {
        Self {
            machine: Machine::default(),
            plan,
            port: None,
            queued: false,
            probe: None,
            probe_said: Vec::new(),
            before_stop: None,
            deadline: None,
            waiters: Vec::new(),
            sample: None,
            lacking: Vec::new(),
            kept: None,
            history: VecDeque::new(),
        }
    }

    /// Remembers something.
    pub fn remember(&mut self, at_ms: u64, what: &str) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        let what = what[..what.floor_char_boundary(EVENT_BYTES_MAX)].to_owned();
        self.history.push_back(Event { at_ms, what });
    }

    /// Whether a roll goes on after it: it works again, or was not meant to run. None: not yet.
    pub fn rolled(&self) -> Option<bool> {
        let settled = self.machine.is_settled() && self.machine.restart_at().is_none();
        match self.machine.state() {
            State::Running if self.machine.is_ready(&self.plan.policy) => Some(true),
            State::Stopped(_) | State::Terminated if settled => Some(true),
            State::Crashed(_) if settled => Some(false),
            _ => None,
        }
    }
}
