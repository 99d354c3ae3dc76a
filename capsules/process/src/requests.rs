//! What can be asked, and what is done about it. Refusals have a code, a sentence and a hint.

use std::collections::BTreeSet;
use std::rc::Rc;

use astrid_sdk::child::Reach;
use astrid_sdk::prelude::*;
use astrid_sdk::{Context, Problem};

use crate::ProcessCapsule;
use crate::answers::WAITERS_MAX;
use crate::answers::Waiter;
use crate::definition::Definition;
use crate::document::{self, Editing};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::policy::Policy;
use crate::process::Key;
use crate::report::{ProblemView, ProcessList, ProcessView};
use crate::rules;
use crate::signals;
use crate::state::Now;
use crate::table::{Effect, Which};
use crate::why::{InstanceWhy, Why};

/// Characters of a name or origin of a request that are shown in a refusal.
const SHOWN_CHARS_MAX: usize = 80;
/// Lines of errors that are shown when the request does not say.
const LINES: u32 = 10;

/// Definitions to merge.
#[body]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The definitions, as in `processes.toml`.
    pub text: String,
    /// What the text is called in what is said about it.
    #[serde(default)]
    pub origin: Option<String>,
    /// Whether processes that it does not name are removed.
    #[serde(default)]
    pub prune: bool,
}

/// What became of definitions: names.
#[body]
pub struct Applied {
    /// New ones.
    pub added: Vec<String>,
    /// Others than before; their instances are restarted one after the other.
    pub changed: Vec<String>,
    /// The same as before.
    pub unchanged: Vec<String>,
    /// Gone.
    pub removed: Vec<String>,
}

/// A definition to add.
#[body]
#[serde(deny_unknown_fields)]
pub struct Define {
    /// The definition.
    pub process: Definition,
    /// Whether one of this name is replaced.
    #[serde(default)]
    pub replace: bool,
}

/// Nothing in particular.
#[body]
#[derive(Default)]
pub struct Listed {}

/// A process.
#[body]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its name.
    pub name: String,
}

/// Instances, and whether to wait for them.
#[body]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Which process; all when not said.
    #[serde(default)]
    pub name: Option<String>,
    /// Which instance; all when not said.
    #[serde(default)]
    pub instance: Option<u32>,
    /// Whether the answer waits until it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// A process to remove.
#[body]
#[serde(deny_unknown_fields)]
pub struct Remove {
    /// Its name.
    pub name: String,
    /// Whether the answer waits until it has ended.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// It is done.
#[body]
pub struct Done {}

/// Why is it as it is?
#[body]
#[serde(deny_unknown_fields)]
pub struct WhyAsked {
    /// Which process.
    pub name: String,
    /// Which instance; all when not said.
    #[serde(default)]
    pub instance: Option<u32>,
    /// Lines of its errors, at most 200; 10 when not said.
    #[serde(default)]
    pub lines: Option<u32>,
}

/// A signal to send to main processes.
#[body]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// Which process.
    pub name: String,
    /// Which instance; all when not said.
    #[serde(default)]
    pub instance: Option<u32>,
    /// As `SIGHUP`.
    pub signal: String,
}

/// To how many it was sent.
#[body]
pub struct Sent {
    /// Instances.
    pub sent: u32,
}

/// Log files of a process.
#[body]
pub struct LogFiles {
    /// By instance.
    pub files: Vec<LogFile>,
}

/// A log file.
#[body]
pub struct LogFile {
    /// Whose.
    pub instance: u32,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where it is.
    pub path: String,
}

fn yes() -> bool {
    true
}

fn shown(text: &str) -> String {
    let visible = text.chars().filter(|c| !c.is_control());
    visible.take(SHOWN_CHARS_MAX).collect()
}

fn no_process(name: &str) -> Problem {
    let what = format!("there is no process `{}`", shown(name));
    Problem::new(codes::NOT_FOUND, what).with_hint("`astrid process list` shows those there are")
}

fn is_stopping(what: &str) -> Problem {
    Problem::new("stopping", format!("{what} is stopping")).with_hint("try again when it has stopped")
}

/// Definitions.
impl ProcessCapsule {
    /// The document as it is now.
    fn ledger(&mut self, ctx: &mut Context) -> Result<Ledger, Problem> {
        match Ledger::read(ctx) {
            Ok(ledger) => {
                if self.problem.is_some() {
                    self.take_over(ctx, &ledger)?;
                }
                Ok(ledger)
            }
            Err(problem) => {
                self.problem = Some(problem.clone());
                Err(problem)
            }
        }
    }

    /// What changes definitions waits until what goes by the same name is gone, and until nobody stops the daemon.
    fn check_free<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<(), Problem> {
        if self.table.is_draining() {
            return Err(Problem::new("stopping", "the daemon is stopping"));
        }
        let going = |name: &&str| {
            let process = self.table.processes.get(*name);
            process.is_some_and(|process| process.removing.is_some())
        };
        match names.into_iter().find(going) {
            Some(name) => Err(is_stopping(&format!("`{name}` is being removed: it"))),
            None => Ok(()),
        }
    }

    pub(crate) fn do_apply(&mut self, ctx: &mut Context, request: &Apply) -> Result<Applied, Problem> {
        let origin = request.origin.as_deref().map_or_else(|| "the text".to_owned(), shown);
        let applied = document::parse(&request.text, &origin)?;
        self.check_free(applied.keys().map(String::as_str))?;
        let mut ledger = self.ledger(ctx)?;
        let tables = Editing::tables(&request.text)?;
        let new = |name: &str| ledger.definitions.get(name) != applied.get(name);
        let tables: Vec<_> = tables.into_iter().filter(|(name, _)| new(name)).collect();
        let gone = ledger.definitions.keys();
        let gone: Vec<String> = gone
            .filter(|name| request.prune && !applied.contains_key(*name))
            .cloned()
            .collect();
        ledger.change(ctx, |editing| {
            for name in &gone {
                editing.remove(name);
            }
            for (name, table) in tables {
                editing.put(&name, table);
            }
        })?;
        let now = self.now(ctx);
        let difference = self.table.sync(ledger.plans(), Which::Everything, now);
        let unchanged = difference.unchanged.into_iter();
        Ok(Applied {
            added: difference.added,
            changed: difference.changed,
            unchanged: unchanged.filter(|name| applied.contains_key(name)).collect(),
            removed: difference.removed,
        })
    }

    pub(crate) fn do_define(&mut self, ctx: &mut Context, request: &Define) -> Result<ProcessView, Problem> {
        let definition = &request.process;
        if let Err(broken) = rules::check(definition) {
            let problem = Problem::new(codes::INVALID, format!("{}: {}", broken.path.join("."), broken.what));
            return Err(match broken.hint {
                Some(hint) => problem.with_hint(hint),
                None => problem,
            });
        }
        let name = definition.name.as_str();
        self.check_free([name])?;
        let mut ledger = self.ledger(ctx)?;
        let there = ledger.definitions.get(name);
        if there.is_some_and(|there| there != definition) && !request.replace {
            let what = format!("there is a process `{name}` already, and it is defined otherwise");
            return Err(Problem::new("conflict", what).with_hint("choose another name, or replace it (--replace)"));
        }
        if there != Some(definition) {
            let table = Editing::table(definition)?;
            ledger.change(ctx, |editing| editing.put(name, table))?;
        }
        let now = self.now(ctx);
        self.table.sync(ledger.plans(), Which::Named(name), now);
        ProcessView::of(&mut self.table, ctx, name, now).ok_or_else(|| no_process(name))
    }

    pub(crate) fn do_remove(&mut self, ctx: &mut Context, request: &Remove) -> Result<(), Problem> {
        let mut ledger = self.ledger(ctx)?;
        let known = self.table.processes.get_key_value(request.name.as_str());
        let known: Option<Rc<str>> = known.map(|(name, _)| name.clone());
        if known.is_none() && !ledger.definitions.contains_key(&request.name) {
            return Err(no_process(&request.name));
        }
        ledger.change(ctx, |editing| editing.remove(&request.name))?;
        let waiter = ctx.reply_to();
        let now = self.now(ctx);
        match known {
            Some(name) if request.wait => self.table.remove(&name, waiter, now),
            Some(name) => {
                self.table.remove(&name, None, now);
                self.table.effects.extend(waiter.map(Effect::Removed));
            }
            None => self.table.effects.extend(waiter.map(Effect::Removed)),
        }
        Ok(())
    }
}

/// Starting and stopping.
impl ProcessCapsule {
    /// The instances that a request is about.
    fn targets(&self, name: Option<&str>, instance: Option<u32>) -> Result<Vec<Key>, Problem> {
        let processes = self.table.processes.values();
        let processes = processes.filter(|process| process.removing.is_none());
        let chosen: Vec<_> = processes
            .filter(|process| name.is_none_or(|name| *process.plan.name == *name))
            .collect();
        if let Some(name) = name
            && chosen.is_empty()
        {
            return Err(no_process(name));
        }
        let keys: Vec<Key> = chosen
            .iter()
            .flat_map(|process| (0..process.plan.instances).map(|index| (process.plan.name.clone(), index)))
            .filter(|(_, index)| instance.is_none_or(|instance| instance == *index))
            .collect();
        match (name, instance) {
            (Some(name), Some(instance)) if keys.is_empty() => {
                let there = chosen.first().map_or(0, |process| process.plan.instances);
                let what = format!("`{}` has no instance {instance}", shown(name));
                Err(Problem::new(codes::NOT_FOUND, what).with_hint(format!("its instances are 0 to {}", there - 1)))
            }
            _ => Ok(keys),
        }
    }

    /// Takes what a person has written into the document since, and says which instances are meant.
    fn told(&mut self, ctx: &mut Context, request: &Told) -> Result<Vec<Key>, Problem> {
        self.check_free(request.name.as_deref())?;
        let ledger = self.ledger(ctx)?;
        let which = request.name.as_deref().map_or(Which::Present, Which::Named);
        let now = self.now(ctx);
        self.table.sync(ledger.plans(), which, now);
        self.targets(request.name.as_deref(), request.instance)
    }

    /// Does something with each instance, and answers now or when all are settled.
    fn each(
        &mut self,
        ctx: &mut Context,
        request: &Told,
        keys: &[Key],
        tell: impl Fn(&mut Machine, &Policy, Now),
    ) -> Result<(), Problem> {
        if request.wait && !self.table.answers.has_room() {
            let what = format!("{WAITERS_MAX} others wait already");
            return Err(Problem::new(codes::TOO_MANY, what).with_hint("do not wait, and look at its status"));
        }
        let now = self.now(ctx);
        for key in keys {
            if let Some(process) = self.table.processes.get_mut(&key.0) {
                process.roll.clear();
            }
            self.table.step(key, now, &tell);
        }
        let Some(to) = ctx.reply_to() else { return Ok(()) };
        let names: BTreeSet<Rc<str>> = keys.iter().map(|(name, _)| name.clone()).collect();
        let names: Vec<_> = names.into_iter().collect();
        let busy = |key: &&Key| {
            let instance = self.table.instance(key);
            instance.is_some_and(|instance| !instance.machine.is_settled())
        };
        let busy: Vec<&Key> = keys.iter().filter(busy).collect();
        if request.wait && !busy.is_empty() {
            let id = self.table.answers.wait(to, names, busy.len());
            for key in busy {
                if let Some(instance) = self.table.instance_mut(key) {
                    instance.waiters.push(id);
                }
            }
        } else {
            self.table.effects.push_back(Effect::Answer(Waiter::now(to, names)));
        }
        Ok(())
    }

    pub(crate) fn do_start(&mut self, ctx: &mut Context, request: &Told) -> Result<(), Problem> {
        let keys = self.told(ctx, request)?;
        let stopping = |key: &&Key| {
            let instance = self.table.instance(key);
            instance.is_some_and(|instance| instance.machine.ends_for_good())
        };
        if let Some((name, index)) = keys.iter().find(stopping)
            && request.name.is_some()
        {
            return Err(is_stopping(&format!("instance {index} of `{name}`")));
        }
        self.each(ctx, request, &keys, |machine, _, now| machine.start(now))
    }

    pub(crate) fn do_stop(&mut self, ctx: &mut Context, request: &Told) -> Result<(), Problem> {
        let keys = self.targets(request.name.as_deref(), request.instance)?;
        self.each(ctx, request, &keys, |machine, policy, now| machine.stop(policy, now))
    }

    pub(crate) fn do_restart(&mut self, ctx: &mut Context, request: &Told) -> Result<(), Problem> {
        let keys = self.told(ctx, request)?;
        self.each(ctx, request, &keys, Machine::restart)
    }

    pub(crate) fn do_signal(&mut self, ctx: &mut Context, request: &SendSignal) -> Result<Sent, Problem> {
        let Some(signal) = signals::by_name(&request.signal) else {
            let what = format!("`{}` is not a signal that can be sent", shown(&request.signal));
            return Err(Problem::new(codes::INVALID, what).with_hint(signals::known()));
        };
        let now = self.now(ctx);
        let mut sent = 0;
        for key in self.targets(Some(&request.name), request.instance)? {
            let Some(instance) = self.table.instance_mut(&key) else {
                continue;
            };
            // Also to one that is being started: what ends a program then keeps it from being one.
            if let Some(port) = instance.port {
                instance.remember(now.wall_ms, &format!("sent {} by request", signals::name(signal)));
                self.table.effects.push_back(Effect::Signal(port, signal, Reach::Main));
                sent += 1;
            }
        }
        Ok(Sent { sent })
    }
}

/// Looking.
impl ProcessCapsule {
    pub(crate) fn do_list(&mut self, ctx: &mut Context) -> Result<ProcessList, Problem> {
        if self.problem.is_some()
            && let Err(problem) = self.ledger(ctx)
            && self.table.processes.is_empty()
        {
            return Err(problem);
        }
        let names: Vec<Rc<str>> = self.table.processes.keys().cloned().collect();
        let now = self.now(ctx);
        let mut list = ProcessList::of(&mut self.table, ctx, &names, now);
        list.problem = self.problem.as_ref().map(|problem| ProblemView {
            code: problem.code().to_owned(),
            message: problem.message().to_owned(),
            hint: problem.hint().map(str::to_owned),
        });
        Ok(list)
    }

    pub(crate) fn do_status(&mut self, ctx: &mut Context, request: &Named) -> Result<ProcessView, Problem> {
        let now = self.now(ctx);
        let view = ProcessView::of(&mut self.table, ctx, &request.name, now);
        view.ok_or_else(|| self.problem.clone().unwrap_or_else(|| no_process(&request.name)))
    }

    pub(crate) fn do_why(&mut self, ctx: &mut Context, request: &WhyAsked) -> Result<Why, Problem> {
        let keys = self.targets(Some(&request.name), request.instance)?;
        let process = self
            .table
            .process(&request.name)
            .ok_or_else(|| no_process(&request.name))?;
        let lines = request.lines.unwrap_or(LINES);
        let now = self.now(ctx);
        let instances = keys.iter().filter_map(|(_, index)| {
            let instance = process.instances.get(*index as usize)?;
            Some(InstanceWhy::of(ctx, process, *index, instance, lines, now))
        });
        Ok(Why {
            name: process.plan.name.to_string(),
            instances: instances.collect(),
        })
    }

    pub(crate) fn do_logs(&mut self, ctx: &mut Context, request: &Named) -> Result<LogFiles, Problem> {
        let process = self
            .table
            .process(&request.name)
            .ok_or_else(|| no_process(&request.name))?;
        let plan = &process.plan;
        let mut files = Vec::new();
        for index in 0..plan.instances {
            for stream in plan.streams() {
                files.push(LogFile {
                    instance: index,
                    stream: stream.as_str().to_owned(),
                    path: ctx.log_path(&plan.log_name(index, *stream))?,
                });
            }
        }
        Ok(LogFiles { files })
    }
}
