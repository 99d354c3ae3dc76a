//! From what processes are to be to what they are: definitions that come, change and go, and restarts one instance after the other (A15).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use astrid_sdk::ReplyTo;

use super::{Effect, Table};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::process::{Instance, Key, Process};
use crate::state::{Now, State};

/// Which processes are made what their plans say.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// All, and those without a plan are removed.
    Everything,
    /// All that have a plan.
    Present,
    /// This one.
    Named(&'a str),
}

/// What became of definitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// New ones.
    pub added: Vec<String>,
    /// Others than before.
    pub changed: Vec<String>,
    /// The same.
    pub unchanged: Vec<String>,
    /// Gone.
    pub removed: Vec<String>,
}

impl Table {
    /// Makes what runs what these plans say.
    pub fn sync(&mut self, plans: BTreeMap<Rc<str>, Plan>, which: Which<'_>, now: Now) -> Difference {
        let mut difference = Difference::default();
        if let Which::Everything = which {
            let known = self.processes.iter().filter(|(_, process)| process.removing.is_none());
            let gone = known.map(|(name, _)| name).filter(|name| !plans.contains_key(*name));
            for name in gone.cloned().collect::<Vec<_>>() {
                difference.removed.push(name.to_string());
                self.remove(&name, None, now);
            }
        }
        let mut added = Vec::new();
        for (name, plan) in plans {
            match (self.processes.get(&name), which) {
                (_, Which::Named(only)) if *only != *name => {}
                // What is going comes back by being defined anew once it is gone.
                (Some(process), _) if process.removing.is_some() => {}
                (Some(process), _) if *process.plan == plan => difference.unchanged.push(name.to_string()),
                (Some(_), _) => {
                    difference.changed.push(name.to_string());
                    self.change(&name, Rc::new(plan), now);
                }
                (None, _) => {
                    difference.added.push(name.to_string());
                    self.processes.insert(name.clone(), Process::new(Rc::new(plan)));
                    added.push(name);
                }
            }
        }
        for name in added {
            self.autostart(&name, now);
        }
        difference
    }

    fn autostart(&mut self, name: &Rc<str>, now: Now) {
        let Some(process) = self.processes.get(name) else {
            return;
        };
        if process.plan.autostart {
            for index in 0..process.plan.instances {
                self.step(&(name.clone(), index), now, |machine, _, now| machine.begin(now));
            }
        }
    }

    /// A process is to be something else: more or fewer instances at once, and anything else one instance after the other.
    fn change(&mut self, name: &Rc<str>, plan: Rc<Plan>, now: Now) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        let rolls = !process.plan.differs_in_instances_only(&plan);
        let before = process.plan.instances;
        process.plan = plan.clone();
        let there = process.instances.len();
        for _ in there..plan.instances as usize {
            process.instances.push(Instance::new(plan.clone()));
        }
        for instance in process
            .instances
            .iter_mut()
            .filter(|instance| !instance.machine.has_child())
        {
            instance.plan = plan.clone();
        }
        process.roll = if rolls {
            (0..before.min(plan.instances)).collect()
        } else {
            VecDeque::new()
        };
        let everywhere = process.instances.len() as u32;
        for index in plan.instances..everywhere {
            self.step(&(name.clone(), index), now, |machine, policy, now| {
                machine.stop(policy, now);
            });
        }
        for index in before..plan.instances {
            if plan.autostart {
                self.step(&(name.clone(), index), now, Machine::restart);
            }
        }
        self.shrink(name);
        self.begin_roll(name, now);
    }

    /// Restarts the first instance of a roll; those that were stopped stay so.
    pub(super) fn begin_roll(&mut self, name: &Rc<str>, now: Now) {
        loop {
            let Some(process) = self.processes.get(name) else {
                return;
            };
            let Some(index) = process.roll.front().copied() else {
                return;
            };
            let machine = process.instances.get(index as usize).map(|instance| &instance.machine);
            // A new definition is also how a person answers a crash.
            let failed = |machine: &Machine| matches!(machine.state(), State::Crashed(_));
            if machine.is_some_and(|machine| machine.has_child() || failed(machine)) {
                self.step(&(name.clone(), index), now, Machine::restart);
                return;
            }
            if let Some(process) = self.processes.get_mut(name) {
                process.roll.pop_front();
            }
        }
    }

    /// Goes on with a roll when the instance that is at it is ready, and ends it when that has failed.
    pub(super) fn go_on_with_roll(&mut self, key: &Key, now: Now) {
        let Some(process) = self.processes.get_mut(&key.0) else {
            return;
        };
        if process.roll.front() != Some(&key.1) {
            return;
        }
        match process.instances.get(key.1 as usize).and_then(Instance::rolled) {
            Some(true) => {
                process.roll.pop_front();
                self.begin_roll(&key.0, now);
            }
            Some(false) => {
                let waiting: Vec<u32> = process.roll.drain(..).skip(1).collect();
                let what = format!(
                    "not restarted for the changed definition, because instance {} failed with it",
                    key.1
                );
                for index in waiting {
                    if let Some(instance) = self.instance_mut(&(key.0.clone(), index)) {
                        instance.remember(now.wall_ms, &what);
                    }
                }
            }
            None => {}
        }
    }

    /// Stops a process, and forgets it then.
    pub fn remove(&mut self, name: &Rc<str>, waiter: Option<ReplyTo>, now: Now) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        process.removing.get_or_insert_default().extend(waiter);
        process.roll.clear();
        for index in 0..process.instances.len() as u32 {
            self.step(&(name.clone(), index), now, |machine, policy, now| {
                machine.stop(policy, now);
            });
        }
        self.shrink(name);
    }

    /// Lets instances go that nobody wants and that have ended, and the process when that was its end.
    pub(super) fn shrink(&mut self, name: &Rc<str>) {
        let Some(process) = self.processes.get_mut(name) else {
            return;
        };
        let wanted = if process.removing.is_some() {
            0
        } else {
            process.plan.instances as usize
        };
        while process.instances.len() > wanted && process.instances.last().is_some_and(|last| !last.machine.has_child())
        {
            process.instances.pop();
            // Its row goes.
            self.unwritten.insert((name.clone(), process.instances.len() as u32));
        }
        if process.instances.is_empty()
            && let Some(waiters) = process.removing.take()
        {
            self.effects.extend(waiters.into_iter().map(Effect::Removed));
            self.processes.remove(name);
        }
    }
}
