//! All processes of this principal: what the world tells goes to the machine it is for, and what that wants done is queued.
//!
//! Nothing here calls the kernel: [`Effect`]s are carried out by [`crate::outbox`], a bounded number for each message, so that a thousand
//! instances are started by several. Deadlines are in one ordered set, for which one timer is enough. Every step is O(log n).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use astrid_sdk::child::{Exit, Reach, Signal};
use astrid_sdk::{PortId, Problem, ReplyTo};

use crate::answers::{Answers, Waiter};
use crate::machine::Machine;
use crate::policy::Policy;
use crate::process::{Instance, Key, Process};
use crate::state::{Action, Now};

mod definitions;
mod restore;

pub use definitions::{Difference, Which};
pub use restore::Beginning;

/// What a child that nobody wants may take to end, in milliseconds, until it is killed.
const ORPHAN_MS: u64 = 10_000;
/// What everything may take to end when the daemon stops, in milliseconds, until it is killed: less than the daemon waits.
const DRAIN_MS: u64 = 8000;

/// Something for the kernel to do.
#[derive(Debug)]
pub enum Effect {
    /// Start an instance's program.
    Spawn(Key),
    /// Start a check of it.
    Check(Key),
    /// Run what is run before its stop.
    BeforeStop(Key),
    /// Send a child a signal.
    Signal(PortId, Signal, Reach),
    /// Tell everybody of a new state.
    Changed(Told),
    /// Tell everybody that a circuit has opened.
    Circuit(Told),
    /// Answer somebody who waited.
    Answer(Waiter),
    /// Answer somebody who waited for the end of a process.
    Removed(ReplyTo),
    /// Tell the daemon that all has ended.
    Drained,
}

/// What is told of an instance.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which.
    pub key: Key,
    /// Its state.
    pub state: &'static str,
    /// The process id of its child.
    pub pid: Option<u32>,
    /// Restarts that were not asked for.
    pub restarts: u32,
    /// Why.
    pub text: String,
}

/// What a child is to us.
#[derive(Debug, Clone)]
pub enum Role {
    /// The program of an instance.
    Main(Key),
    /// A check of it.
    Probe(Key),
    /// What is run before its stop.
    BeforeStop(Key),
    /// What nobody wants; killed at this time.
    Orphan(Option<u64>),
}

/// All processes.
#[derive(Debug, Default)]
pub struct Table {
    pub(crate) processes: BTreeMap<Rc<str>, Process>,
    pub(crate) ports: BTreeMap<PortId, Role>,
    deadlines: BTreeSet<(u64, Key)>,
    /// When orphans are killed.
    orphans: BTreeSet<(u64, PortId)>,
    pub(crate) effects: VecDeque<Effect>,
    pub(crate) answers: Answers,
    /// Children that are not held any more, though their ends were not heard of, and until when that is waited for.
    missing: BTreeSet<(u64, PortId)>,
    /// Instances that may not be on disk as they are here.
    unwritten: BTreeSet<Key>,
    /// Rolls as they are on disk.
    pub(crate) kept_rolls: BTreeMap<Rc<str>, VecDeque<u32>>,
    /// Once the daemon stops: the children that are waited for.
    draining: Option<BTreeSet<PortId>>,
    drained: bool,
}

/// Looking.
impl Table {
    /// A process that is not about to go.
    pub fn process(&self, name: &str) -> Option<&Process> {
        self.processes.get(name).filter(|process| process.removing.is_none())
    }

    /// An instance.
    pub fn instance(&self, key: &Key) -> Option<&Instance> {
        self.processes.get(&key.0)?.instances.get(key.1 as usize)
    }

    /// An instance, which is to be written then.
    pub(crate) fn instance_mut(&mut self, key: &Key) -> Option<&mut Instance> {
        if !self.unwritten.contains(key) {
            self.unwritten.insert(key.clone());
        }
        self.looked_at(key)
    }

    /// An instance, of which nothing is changed that is written.
    pub(crate) fn looked_at(&mut self, key: &Key) -> Option<&mut Instance> {
        self.processes.get_mut(&key.0)?.instances.get_mut(key.1 as usize)
    }

    /// An instance that may not be on disk as it is here, if there is one.
    pub(crate) fn take_unwritten(&mut self) -> Option<Key> {
        self.unwritten.pop_first()
    }

    /// Whether all is on disk as it is here, once the message at hand is.
    pub fn is_written(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// When something is to be done next, in milliseconds since the daemon started.
    pub fn deadline(&self) -> Option<u64> {
        let instance = self.deadlines.first().map(|(at, _)| *at);
        let orphan = self.orphans.first().map(|(at, _)| *at);
        let missing = self.missing.first().map(|(at, _)| *at);
        [instance, orphan, missing].into_iter().flatten().min()
    }

    /// Whether the daemon stops.
    pub fn is_draining(&self) -> bool {
        self.draining.is_some()
    }
}

/// What the world tells.
impl Table {
    /// Ends a child that nobody wants: a program with time to end, a check at once.
    fn disown(&mut self, port: PortId, is_program: bool, now: Now) {
        let (signal, reach) = if is_program {
            (Signal::Terminate, Reach::Group)
        } else {
            (Signal::Kill, Reach::Tree)
        };
        self.effects.push_back(Effect::Signal(port, signal, reach));
        let kill_at = is_program.then(|| now.up_ms.saturating_add(ORPHAN_MS));
        self.orphans.extend(kill_at.map(|at| (at, port)));
        self.ports.insert(port, Role::Orphan(kill_at));
    }

    /// A child runs.
    pub fn started(&mut self, port: PortId, pid: u32, now: Now) {
        self.missing.retain(|(_, missing)| *missing != port);
        if let Some(Role::Main(key)) = self.ports.get(&port).cloned() {
            if let Some(instance) = self.instance_mut(&key) {
                instance.sample = None;
            }
            self.step(&key, now, |machine, policy, now| machine.started(policy, pid, now));
        }
    }

    /// A child could not be started.
    pub fn failed(&mut self, port: PortId, problem: Problem, now: Now) {
        match self.ports.remove(&port) {
            Some(Role::Main(key)) => {
                if let Some(instance) = self.instance_mut(&key) {
                    instance.port = None;
                }
                self.drained(port);
                let lasting = crate::probe::is_lasting(problem.code());
                self.step(&key, now, |machine, policy, now| {
                    machine.failed(policy, problem, lasting, now);
                });
            }
            Some(Role::Probe(key)) => {
                let what = format!("the check could not be started: {}", problem.message());
                self.probe_ended(&key, port, Err(what), now);
            }
            Some(Role::BeforeStop(key)) => self.before_stop_ended(&key, port, problem.message(), now),
            Some(Role::Orphan(kill_at)) => self.orphan_ended(port, kill_at),
            None => {}
        }
    }

    /// A child runs without that.
    pub fn lacks(&mut self, port: PortId, lacking: Vec<String>, now: Now) {
        if let Some(Role::Main(key)) = self.ports.get(&port).cloned()
            && let Some(instance) = self.instance_mut(&key)
        {
            for what in &lacking {
                instance.remember(now.wall_ms, &format!("runs without: {what}"));
            }
            instance.lacking = lacking;
        }
    }

    /// A child that has ended was ended for that.
    pub fn violated(&mut self, port: PortId, violation: Option<&str>, now: Now) {
        if let Some(violation) = violation
            && let Some(Role::Main(key)) = self.ports.get(&port).cloned()
            && let Some(instance) = self.instance_mut(&key)
        {
            instance.remember(now.wall_ms, &format!("the system ended it: {violation}"));
        }
    }

    /// What a child that has ended did to its copy of the workspace is not in the workspace.
    pub fn unsaved(&mut self, port: PortId, why: Option<&str>, now: Now) {
        if let Some(why) = why
            && let Some(Role::Main(key)) = self.ports.get(&port).cloned()
            && let Some(instance) = self.instance_mut(&key)
        {
            let what = "what it did to its copy of the workspace is not in the workspace yet";
            instance.remember(now.wall_ms, &format!("{what}: {why}"));
        }
    }

    /// A child that has ended had started others and left them; they were ended with it.
    pub fn left_behind(&mut self, port: PortId, count: u32, now: Now) {
        let Some(Role::Main(key)) = self.ports.get(&port) else {
            return;
        };
        let key = key.clone();
        if count > 0
            && let Some(instance) = self.instance_mut(&key)
        {
            let what = if count == 1 {
                "1 process that it"
            } else {
                &format!("{count} processes that it")
            };
            instance.remember(now.wall_ms, &format!("{what} had left behind ended with it"));
        }
    }

    /// A child has ended.
    pub fn exited(&mut self, port: PortId, exit: &Exit, now: Now) {
        match self.ports.remove(&port) {
            Some(Role::Main(key)) => {
                if let Some(instance) = self.instance_mut(&key) {
                    instance.port = None;
                    instance.sample = None;
                }
                self.drained(port);
                self.step(&key, now, |machine, policy, now| machine.exited(policy, exit, now));
            }
            Some(Role::Probe(key)) => {
                let said = self.instance(&key).map(|instance| instance.probe_said.as_slice());
                let found = crate::probe::found(exit, said.unwrap_or_default());
                self.probe_ended(&key, port, found, now);
            }
            Some(Role::BeforeStop(key)) => self.before_stop_ended(&key, port, "", now),
            Some(Role::Orphan(kill_at)) => self.orphan_ended(port, kill_at),
            None => {}
        }
    }

    fn probe_ended(&mut self, key: &Key, port: PortId, found: Result<(), String>, now: Now) {
        let Some(instance) = self.instance_mut(key) else { return };
        // A check of the child before has nothing to say about this one.
        if instance.probe == Some(port) {
            instance.probe = None;
            self.step(key, now, |machine, policy, now| machine.checked(policy, found, now));
        }
    }

    fn before_stop_ended(&mut self, key: &Key, port: PortId, trouble: &str, now: Now) {
        let Some(instance) = self.instance_mut(key) else { return };
        if instance.before_stop == Some(port) {
            instance.before_stop = None;
            if !trouble.is_empty() {
                let what = format!("the command before the stop could not be started: {trouble}");
                instance.remember(now.wall_ms, &what);
            }
            self.step(key, now, Machine::before_stop_ended);
        }
    }

    fn orphan_ended(&mut self, port: PortId, kill_at: Option<u64>) {
        if let Some(at) = kill_at {
            self.orphans.remove(&(at, port));
        }
        self.drained(port);
    }

    /// A check has said something.
    pub fn probe_said(&mut self, port: PortId, bytes: &[u8]) {
        if let Some(Role::Probe(key)) = self.ports.get(&port).cloned()
            && let Some(instance) = self.looked_at(&key)
            && instance.probe == Some(port)
        {
            let room = crate::probe::SAID_BYTES_MAX.saturating_sub(instance.probe_said.len());
            instance.probe_said.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Time has passed.
    pub fn due(&mut self, now: Now) {
        while let Some((at, key)) = self.deadlines.first().cloned()
            && at <= now.up_ms
        {
            self.deadlines.pop_first();
            let Some(instance) = self.looked_at(&key) else { continue };
            instance.deadline = None;
            if !instance.machine.has_child() && self.is_draining() {
                // Its restart is the next daemon's.
                continue;
            }
            self.step(&key, now, Machine::due);
        }
        while let Some((at, port)) = self.orphans.first().copied()
            && at <= now.up_ms
        {
            self.orphans.pop_first();
            self.ports.insert(port, Role::Orphan(None));
            self.effects.push_back(Effect::Signal(port, Signal::Kill, Reach::Tree));
        }
        while let Some((at, port)) = self.missing.first().copied()
            && at <= now.up_ms
        {
            self.missing.pop_first();
            self.exited(port, &Exit::Lost, now);
        }
    }

    /// The daemon stops: everything that does not stay ends.
    pub fn drain(&mut self, now: Now) {
        let mut waited = BTreeSet::new();
        let mut keys = Vec::new();
        for (name, process) in &self.processes {
            for (index, instance) in (0..).zip(&process.instances) {
                if !instance.plan.stays() {
                    waited.extend(instance.port);
                    keys.push((name.clone(), index));
                }
            }
        }
        waited.extend(self.orphans.iter().map(|(_, port)| *port));
        self.draining = Some(waited);
        for key in keys {
            self.step(&key, now, |machine, policy, now| {
                machine.drain(policy, DRAIN_MS, now);
            });
        }
        self.check_drained();
    }

    fn drained(&mut self, port: PortId) {
        if let Some(waited) = &mut self.draining {
            waited.remove(&port);
            self.check_drained();
        }
    }

    fn check_drained(&mut self) {
        if !self.drained && self.draining.as_ref().is_some_and(BTreeSet::is_empty) {
            self.drained = true;
            self.effects.push_back(Effect::Drained);
        }
    }
}

/// One step of one machine.
impl Table {
    /// Tells a machine something, and queues what it wants done.
    pub fn step(&mut self, key: &Key, now: Now, tell: impl FnOnce(&mut Machine, &Policy, Now)) {
        let Some(instance) = self.instance_mut(key) else { return };
        let plan = instance.plan.clone();
        tell(&mut instance.machine, &plan.policy, now);
        loop {
            let Some(instance) = self.instance_mut(key) else { return };
            let actions = instance.machine.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act(key, action, now);
            }
        }
        self.note_deadline(key);
        self.tell_waiters(key);
        self.go_on_with_roll(key, now);
        let leaving =
            |process: &Process| process.removing.is_some() || process.instances.len() as u32 > process.plan.instances;
        if self.processes.get(&key.0).is_some_and(leaving) {
            self.shrink(&key.0);
        }
    }

    fn act(&mut self, key: &Key, action: Action, now: Now) {
        let Some(process) = self.processes.get_mut(&key.0) else {
            return;
        };
        let Some(instance) = process.instances.get_mut(key.1 as usize) else {
            return;
        };
        let told = |instance: &Instance, state, text| Told {
            key: key.clone(),
            state,
            pid: instance.machine.pid(),
            restarts: instance.machine.restarts(),
            text,
        };
        match action {
            Action::Spawn => {
                instance.plan = process.plan.clone();
                instance.queued = true;
                self.effects.push_back(Effect::Spawn(key.clone()));
            }
            Action::Signal(signal, reach) => match instance.port {
                Some(port) => self.effects.push_back(Effect::Signal(port, signal, reach)),
                None => {
                    instance.queued = false;
                    let plan = instance.plan.clone();
                    instance.machine.withdrawn(&plan.policy, now);
                }
            },
            Action::Check => {
                instance.probe_said.clear();
                self.effects.push_back(Effect::Check(key.clone()));
            }
            Action::EndCheck => match instance.probe {
                Some(port) => self.effects.push_back(Effect::Signal(port, Signal::Kill, Reach::Tree)),
                None => {
                    let plan = instance.plan.clone();
                    instance.machine.checked(&plan.policy, Err(String::new()), now);
                }
            },
            Action::BeforeStop => self.effects.push_back(Effect::BeforeStop(key.clone())),
            Action::EndBeforeStop => {
                let kill = |port| Effect::Signal(port, Signal::Kill, Reach::Tree);
                self.effects.extend(instance.before_stop.take().map(kill));
            }
            Action::Changed(state, text) => {
                instance.remember(now.wall_ms, &text);
                self.effects
                    .push_back(Effect::Changed(told(instance, state.as_str(), text)));
            }
            Action::Note(text) => instance.remember(now.wall_ms, &text),
            Action::CircuitOpened(text) => {
                instance.remember(now.wall_ms, &text);
                let state = instance.machine.state().as_str();
                self.effects.push_back(Effect::Circuit(told(instance, state, text)));
            }
        }
    }

    fn note_deadline(&mut self, key: &Key) {
        let Some(instance) = self.instance_mut(key) else { return };
        let (was, is) = (instance.deadline, instance.machine.deadline());
        if was == is {
            return;
        }
        instance.deadline = is;
        if let Some(at) = was {
            self.deadlines.remove(&(at, key.clone()));
        }
        self.deadlines.extend(is.map(|at| (at, key.clone())));
    }

    /// Who waits for an instance is told when it is settled, or stuck.
    fn tell_waiters(&mut self, key: &Key) {
        let Some(instance) = self.instance_mut(key) else { return };
        if instance.machine.is_stuck() {
            let port = instance.port;
            if let Some(port) = port {
                self.drained(port);
            }
        }
        let Some(instance) = self.instance_mut(key) else { return };
        let stuck = instance.machine.is_stuck();
        if instance.waiters.is_empty() || !(instance.machine.is_settled() || stuck) {
            return;
        }
        let problem = if stuck {
            let what = format!("{} {} was killed and does not end", key.0, key.1);
            Some(
                Problem::new("stuck", what)
                    .with_hint("it waits for a device or a file system, which only those can end"),
            )
        } else {
            instance.machine.failure().cloned()
        };
        for waiter in std::mem::take(&mut instance.waiters) {
            let answered = self.answers.settled(waiter, problem.clone());
            self.effects.extend(answered.map(Effect::Answer));
        }
    }
}

/// The tag of an instance's child.
pub fn main_tag(key: &Key, restarts: u32) -> String {
    format!("p/{}/{}/{restarts}", key.0, key.1)
}

/// Name, index and restarts in the tag of an instance's child.
fn main_of(tag: &str) -> Option<(&str, u32, u32)> {
    let mut parts = tag.strip_prefix("p/")?.split('/');
    let main = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(main)
}
