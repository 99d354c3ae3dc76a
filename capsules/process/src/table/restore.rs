//! What was kept, and what children there are: an instance of the actor begins with both, whatever message it begins at.
//!
//! In the same daemon everything goes on as it was, by the ports that were kept. In another daemon only children that were adopted live:
//! they are told of with their tags, and find their instances by those. What an actor is told that it holds is right; what was kept of
//! the last moments may not be, when the store or the daemon failed. So a child that is told of and not known is its instance's when it
//! was started later than the one that is known, and one that is known and not told of is waited for a little, and is lost then.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use astrid_sdk::PortId;
use astrid_sdk::child::{Exit, HeldPort};

use super::{Effect, Role, Table, main_of};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::process::{Instance, Key, Process};
use crate::rows::{Kept, Memory};
use crate::state::Now;

/// How long a child that is not held is waited for, in milliseconds: the word of its end may be on its way, and so may be its start,
/// which waits for the disk.
const MISSING_MS: u64 = 2000;

/// What a new instance of the actor begins with.
#[derive(Debug)]
pub struct Beginning {
    /// What was kept.
    pub memory: Memory,
    /// The daemon that runs.
    pub boot: u64,
    /// What it was told that it holds.
    pub held: Vec<HeldPort>,
    /// Whether it was told.
    pub told: bool,
    /// Children that have ended before anything could be done about it.
    pub ended: BTreeSet<PortId>,
}

impl Table {
    /// Begins, with these plans.
    pub fn restore(&mut self, plans: BTreeMap<Rc<str>, Plan>, beginning: Beginning, now: Now) {
        for (name, plan) in plans {
            self.processes.insert(name, Process::new(Rc::new(plan)));
        }
        let Memory { instances, rolls } = beginning.memory;
        let (mut later, mut leaving) = (Vec::new(), Vec::new());
        let mut known = BTreeSet::new();
        for ((name, index), kept) in instances {
            let key = (Rc::from(name), index);
            let same_daemon = kept.boot == beginning.boot;
            if self.is_wanted(&key) {
                self.recall(&key, kept, same_daemon, now);
                if !same_daemon {
                    later.push(key.clone());
                }
                known.insert(key);
            } else if same_daemon && self.processes.contains_key(&key.0) {
                self.make_room(&key);
                self.recall(&key, kept, true, now);
                leaving.push(key);
            } else {
                self.forget(key, kept.port.filter(|_| same_daemon), now);
            }
        }
        for key in leaving {
            self.step(&key, now, Machine::leave);
        }
        for (name, roll) in rolls {
            self.recall_roll(&name, roll.into_iter().collect());
        }
        let lost: Vec<PortId> = beginning
            .ended
            .into_iter()
            .filter(|port| self.ports.contains_key(port))
            .collect();
        self.hold(beginning.held, beginning.told, now);
        let rolling: BTreeSet<Rc<str>> = later.iter().map(|(name, _)| name.clone()).collect();
        for key in later {
            self.resume(&key, now);
        }
        for name in rolling {
            self.begin_roll(&name, now);
        }
        for port in lost {
            self.exited(port, &Exit::Lost, now);
        }
        self.begin_new(&known, now);
    }

    fn is_wanted(&self, key: &Key) -> bool {
        let process = self.processes.get(&key.0);
        process.is_some_and(|process| key.1 < process.plan.instances)
    }

    /// What was kept of an instance that is not defined any more goes; its child too.
    fn forget(&mut self, key: Key, port: Option<PortId>, now: Now) {
        if let Some(port) = port {
            self.disown(port, true, now);
        }
        self.unwritten.insert(key);
    }

    /// An instance is as it was kept. Its ports mean something in the same daemon only.
    fn recall(&mut self, key: &Key, kept: Kept, same_daemon: bool, now: Now) {
        let Some(instance) = self.instance_mut(key) else { return };
        instance.machine = kept.machine;
        instance.history = kept.events;
        if !same_daemon {
            return;
        }
        let policy = instance.plan.policy.clone();
        instance.machine.reread(&policy, now);
        instance.port = kept.port;
        instance.probe = kept.probe;
        instance.before_stop = kept.before_stop;
        instance.queued = instance.machine.has_child() && instance.port.is_none();
        let queued = instance.queued.then(|| Effect::Spawn(key.clone()));
        let unchecked = instance.machine.wants_check() && instance.probe.is_none();
        let check = unchecked.then(|| Effect::Check(key.clone()));
        let unprepared = instance.machine.wants_before_stop() && instance.before_stop.is_none();
        let before_stop = unprepared.then(|| Effect::BeforeStop(key.clone()));
        // What was asked for, and not done yet.
        self.effects.extend([queued, check, before_stop].into_iter().flatten());
        let roles = [
            (kept.port, Role::Main(key.clone())),
            (kept.probe, Role::Probe(key.clone())),
            (kept.before_stop, Role::BeforeStop(key.clone())),
        ];
        let roles = roles.into_iter().filter_map(|(port, role)| Some((port?, role)));
        self.ports.extend(roles);
        self.note_deadline(key);
    }

    /// For an instance that the definition has no place for any more: it is there until it has ended.
    fn make_room(&mut self, key: &Key) {
        if let Some(process) = self.processes.get_mut(&key.0) {
            let room = process.instances.len().max(key.1 as usize + 1);
            process
                .instances
                .resize_with(room, || Instance::new(process.plan.clone()));
        }
    }

    fn recall_roll(&mut self, name: &str, roll: std::collections::VecDeque<u32>) {
        self.kept_rolls.insert(name.into(), roll.clone());
        match self.processes.get_mut(name) {
            Some(process) => {
                let wanted = process.plan.instances;
                process.roll = roll.into_iter().filter(|index| *index < wanted).collect();
            }
            // Its row goes with that of any of its instances.
            None => drop(self.unwritten.insert((name.into(), 0))),
        }
    }

    /// The daemon is another one than before. An instance that found its child goes on with it, and with a roll; the others begin with
    /// the definition as it is.
    fn resume(&mut self, key: &Key, now: Now) {
        let Some(instance) = self.instance_mut(key) else { return };
        if instance.port.is_some() {
            return;
        }
        let autostart = instance.plan.autostart;
        if let Some(process) = self.processes.get_mut(&key.0) {
            process.roll.retain(|index| *index != key.1);
        }
        self.step(key, now, |machine, policy, now| {
            machine.reread(policy, now);
            machine.resume(policy, autostart, now);
        });
    }

    /// Instances that nothing is known of.
    fn begin_new(&mut self, known: &BTreeSet<Key>, now: Now) {
        let all = self.processes.values().filter(|process| process.plan.autostart);
        let all = all.flat_map(|process| (0..process.plan.instances).map(|index| (process.plan.name.clone(), index)));
        let new: Vec<Key> = all.filter(|key| !known.contains(key)).collect();
        for key in new {
            if self.instance(&key).is_some_and(|instance| instance.port.is_none()) {
                self.step(&key, now, |machine, _, now| machine.begin(now));
            }
        }
    }

    /// The actor is told of children that it holds; `all`: it holds no others.
    pub fn hold(&mut self, held: Vec<HeldPort>, all: bool, now: Now) {
        let there: BTreeSet<PortId> = held.iter().map(|held| held.port).collect();
        for held in held {
            match (self.ports.contains_key(&held.port), held.pid) {
                (true, Some(pid)) => self.started(held.port, pid, now),
                (true, None) => {}
                (false, _) => self.attach(&held, now),
            }
        }
        if !all {
            return;
        }
        let until = now.up_ms.saturating_add(MISSING_MS);
        let missing = self.ports.keys().filter(|port| !there.contains(port));
        self.missing.extend(missing.map(|port| (until, *port)));
    }

    /// A child that is not known: it is its instance's, or nobody's.
    fn attach(&mut self, held: &HeldPort, now: Now) {
        let Some((key, restarts)) = self.claimed(held) else {
            self.disown(held.port, main_of(&held.tag).is_some(), now);
            return;
        };
        let Some(instance) = self.instance_mut(&key) else {
            return;
        };
        let before = instance.port.replace(held.port);
        instance.queued = false;
        instance.sample = None;
        if let Some(before) = before {
            self.ports.remove(&before);
        }
        self.ports.insert(held.port, Role::Main(key.clone()));
        let since = held.pid.zip(held.started_at_ms);
        self.step(&key, now, |machine, policy, now| {
            machine.reread(policy, now);
            machine.adopt(policy, since, restarts, now);
        });
    }

    /// A child has ended that may not be known: then the one that is known has ended before.
    pub fn ended(&mut self, held: &HeldPort, exit: &Exit, now: Now) {
        if !self.ports.contains_key(&held.port)
            && let Some((key, _)) = self.claimed(held)
            && self.instance(&key).is_some_and(|instance| instance.port.is_some())
        {
            self.attach(held, now);
        }
        self.exited(held.port, exit, now);
    }

    /// Whose child that is, and its restarts. One that was started after the one that is known: there are never two, so that one has ended.
    fn claimed(&self, held: &HeldPort) -> Option<(Key, u32)> {
        let (name, index, restarts) = main_of(&held.tag)?;
        let process = self.process(name)?;
        let key = (process.plan.name.clone(), index);
        let instance = process.instances.get(index as usize).filter(|_| self.is_wanted(&key))?;
        let later = instance.port.is_none_or(|own| own < held.port);
        let stays_down = instance.machine.is_held_down() && !instance.machine.has_child();
        (later && !stays_down).then_some((key, restarts))
    }
}
