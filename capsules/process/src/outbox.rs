//! Carries out what the table wants done, as commands of the message at hand.
//!
//! A message may record a bounded number of commands, and starting is the most expensive of them for the machine, so what is left is done with the
//! next message, which is a timer that fires at once.

use astrid_sdk::child::Spec;
use astrid_sdk::error::SpawnError;
use astrid_sdk::prelude::*;

use crate::process::Key;
use crate::report::{ChangedEvent, CircuitEvent, ProcessList};
use crate::state::Now;
use crate::table::{Effect, Role, Table, Told, main_tag};

/// Effects that are carried out for one message: below the commands that one may record, with room for its own answer and a timer.
const EFFECTS_MAX: usize = 800;
/// Programs that are started for one message, so that others are heard in between.
const SPAWNS_MAX: usize = 200;

/// Where changes of state are told.
pub const CHANGED: &str = "process.v1.event.changed";
/// Where circuits that open are told.
pub const CIRCUIT: &str = "process.v1.event.circuit";
/// Where the daemon is told that all has ended.
const DONE: &str = "astrid.v1.shutdown.done";

/// Carries out effects. Whether any are left.
pub fn flush(table: &mut Table, ctx: &mut Context, now: Now) -> bool {
    let mut spawns = 0;
    for _ in 0..EFFECTS_MAX {
        if spawns >= SPAWNS_MAX {
            break;
        }
        let Some(effect) = table.effects.pop_front() else { break };
        if matches!(effect, Effect::Spawn(_) | Effect::Check(_) | Effect::BeforeStop(_)) {
            spawns += 1;
        }
        carry_out(table, ctx, effect, now);
    }
    !table.effects.is_empty()
}

fn carry_out(table: &mut Table, ctx: &mut Context, effect: Effect, now: Now) {
    match effect {
        Effect::Spawn(key) => spawn(table, ctx, &key, now),
        Effect::Check(key) => check(table, ctx, &key, now),
        Effect::BeforeStop(key) => before_stop(table, ctx, &key, now),
        Effect::Signal(port, signal, reach) => {
            if let Err(error) = ctx.signal(port, signal, reach) {
                // It has ended meanwhile, which is told by a message that is on its way.
                debug!("a signal was not sent", error = error);
            }
        }
        Effect::Changed(told) => say(ctx, CHANGED, ChangedEvent::from(told)),
        Effect::Circuit(told) => {
            let Told { key, text, .. } = &told;
            warn!("a circuit has opened", process = key.0, instance = key.1, why = text);
            say(ctx, CIRCUIT, CircuitEvent::from(told));
        }
        Effect::Answer(waiter) => {
            let answered = match waiter.problem {
                Some(problem) => ctx.refuse(waiter.to, &problem),
                None => {
                    let report = ProcessList::of(table, ctx, &waiter.names, now);
                    ctx.reply(waiter.to, report)
                }
            };
            gone(answered);
        }
        Effect::Removed(to) => gone(ctx.reply(to, json!({}))),
        Effect::Drained => say(ctx, DONE, json!({})),
    }
}

/// An asker that is gone needs no answer.
fn gone(answered: Result<CommandId, astrid_sdk::error::ReplyError>) {
    if let Err(error) = answered {
        debug!("somebody did not wait", error = error);
    }
}

fn say(ctx: &mut Context, topic: &str, body: impl astrid_sdk::IntoBody) {
    if let Err(error) = ctx.publish(topic, body) {
        debug!("an event was not told", topic = topic, error = error);
    }
}

fn spawn(table: &mut Table, ctx: &mut Context, key: &Key, now: Now) {
    let draining = table.is_draining();
    let Some(instance) = table.instance_mut(key) else {
        return;
    };
    if !instance.queued || draining {
        return;
    }
    instance.queued = false;
    let spec = instance
        .plan
        .main_spec(key.1, main_tag(key, instance.machine.restarts()));
    match ctx.spawn(&spec) {
        Ok(port) => {
            instance.port = Some(port);
            table.ports.insert(port, Role::Main(key.clone()));
        }
        Err(error) => {
            let lasting = !matches!(error, SpawnError::TooMany(_));
            table.step(key, now, |machine, policy, now| {
                machine.failed(policy, error.into(), lasting, now);
            });
        }
    }
}

fn check(table: &mut Table, ctx: &mut Context, key: &Key, now: Now) {
    let Some(instance) = table.instance_mut(key) else {
        return;
    };
    if !instance.machine.wants_check() {
        return;
    }
    let Some(spec) = instance.plan.probe_spec(key.1, format!("h/{}/{}", key.0, key.1)) else {
        return;
    };
    match ctx.spawn(&spec) {
        Ok(port) => {
            instance.probe = Some(port);
            table.ports.insert(port, Role::Probe(key.clone()));
        }
        Err(error) => {
            let what = format!("the check could not be started: {error}");
            table.step(key, now, |machine, policy, now| machine.checked(policy, Err(what), now));
        }
    }
}

fn before_stop(table: &mut Table, ctx: &mut Context, key: &Key, now: Now) {
    let Some(instance) = table.instance_mut(key) else {
        return;
    };
    let tag = format!("s/{}/{}", key.0, key.1);
    let spec: Option<Spec> = instance.plan.before_stop_spec(key.1, instance.machine.pid(), tag);
    let Some(spec) = spec else { return };
    match ctx.spawn(&spec) {
        Ok(port) => {
            instance.before_stop = Some(port);
            table.ports.insert(port, Role::BeforeStop(key.clone()));
        }
        Err(error) => {
            let what = format!("the command before the stop could not be started: {error}");
            instance.remember(now.wall_ms, &what);
            table.step(key, now, |machine, policy, now| {
                machine.before_stop_ended(policy, now);
            });
        }
    }
}
