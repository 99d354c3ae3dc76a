//! What must hold when a world has come to rest.

use std::collections::BTreeSet;

use astrid_kernel::store::table::{Scope, Table};
use astrid_wire::Principal;
use serde_json::Value;

use super::{Sum, World, kv, number};
use crate::client::Stream;
use crate::disk::{Dead, Disk};

/// Times that a message of a relay is tried again.
const RETRIES: u32 = 3;

impl World<'_> {
    pub(super) fn check(&mut self) {
        self.report.accepted = self.streams.iter().map(Stream::accepted).sum();
        for stream in self.streams.iter().filter(|s| s.is_relay()) {
            self.check_chain(stream);
        }
        for stream in &self.streams {
            if !stream.is_done() {
                self.violated(format!(
                    "{} was not heard to the end: {} of {}",
                    stream.client,
                    stream.accepted(),
                    stream.len()
                ));
            }
        }
        self.check_ledger();
        self.check_timers();
        let state = self.disk.state.lock();
        if let Some(((table, row), _)) = state.waiting.iter().next() {
            self.violated(format!("row {row} of {table:?} waits for ever"));
        }
        drop(state);
        let kernel = self.kernel.as_ref().unwrap();
        if !kernel.host.store.is_settled() || !kernel.host.durable.outbox.is_empty() {
            self.violated("the store or the outbox has something left".to_owned());
        }
        for actor in kernel.actors() {
            let inbox = actor.inbox();
            if !inbox.is_at_rest() {
                self.violated(format!(
                    "{actor:?} has {} and {} left, or places taken",
                    inbox.len(),
                    inbox.len_durable()
                ));
            }
        }
    }

    /// Every number had its effect at each stage, or was given up at one.
    fn check_chain(&self, stream: &Stream) {
        let stages = ["relay-a", "relay-b", "relay-c"];
        for n in 1..=stream.len() {
            let ended = |(place, stage): (usize, &str)| self.check_stage(stream, n, place, stage);
            stages.into_iter().enumerate().any(ended);
        }
        let known: BTreeSet<String> = (1..=stream.len()).map(|n| effect_key(stream, n)).collect();
        let tables = stages.map(|stage| kv(stage, &scope(stream)));
        for (table, key, _) in self.disk.memory.entries() {
            let key = String::from_utf8_lossy(&key).into_owned();
            if tables.contains(&table) && key.starts_with("effect/") && !known.contains(&key) {
                self.violated(format!("{table:?} has {key}, which nobody submitted"));
            }
        }
    }

    /// Whether a number ended at that stage.
    fn check_stage(&self, stream: &Stream, n: u64, place: usize, stage: &str) -> bool {
        let state = self.disk.state.lock();
        let is_it = |dead: &&Dead| {
            let body: Value = serde_json::from_slice(&dead.message.body).unwrap_or_default();
            dead.capsule == stage && body["client"] == *stream.client && body["number"] == n
        };
        let dead = state.dead.iter().find(is_it);
        let plan = stream.planned.get(&n);
        let effect = number(self.disk.value(&kv(stage, &scope(stream)), &effect_key(stream, n)));
        let what = format!(
            "{stage} of {} number {n} ({plan:?}): effect {effect}, {dead:?}",
            stream.client
        );
        match (effect, dead) {
            (1, None) | (0, Some(_)) => {}
            (0, None) => self.violated(format!("lost: {what}")),
            _ => self.violated(format!("doubled: {what}")),
        }
        // The next stage being full costs attempts as well.
        let full = self.weather.full;
        let planned = plan.filter(|p| p.stage == place);
        match (dead, planned.is_some_and(|p| p.kills(RETRIES))) {
            (None, true) if !full => self.violated(format!("should be dead: {what}")),
            (Some(dead), false) if !(full && (planned.is_some() || dead.reason.contains("full"))) => {
                self.violated(format!("should not be dead: {what}"));
            }
            _ => {}
        }
        dead.is_some()
    }

    fn check_ledger(&self) {
        let table = kv("ledger", &Scope::System);
        let sum = |key: &str| number(self.disk.value(&table, &format!("sum/{key}")));
        let submitted: u64 = self
            .streams
            .iter()
            .filter(|s| !s.is_relay())
            .map(Stream::accepted)
            .sum();
        if sum("submitted") != submitted {
            self.violated(format!(
                "{submitted} were submitted to the ledger, and it has {}",
                sum("submitted")
            ));
        }
        for (key, Sum { asked, answered }) in &self.sums {
            let sum = sum(key);
            if sum < *answered || sum > *asked {
                self.violated(format!(
                    "{key} was asked {asked} times, answered {answered}, and is {sum}"
                ));
            }
        }
    }

    fn check_timers(&self) {
        let state = self.disk.state.lock();
        for (tag, timer) in &self.timers {
            let fired = state.fired.get(tag).map_or(&[][..], |f| f);
            let what = format!("{tag} {timer:?} fired at {fired:?}");
            let due = timer.set_ms + timer.after_ms;
            if fired.first().is_some_and(|first| *first < due) {
                self.violated(format!("too early: {what}"));
            }
            match timer.every_ms {
                None if fired.len() > 1 => self.violated(format!("doubled: {what}")),
                None if fired.is_empty() && timer.accepted && !timer.asked_to_end => {
                    self.violated(format!("lost: {what}"))
                }
                Some(every) => {
                    for (n, at) in (0..).zip(fired) {
                        if due + n * every > *at {
                            self.violated(format!("too early, number {n}: {what}"));
                        }
                    }
                }
                None => {}
            }
        }
    }

    /// Nothing more happens in another life.
    pub(super) fn check_restart(&mut self) {
        let entries = |disk: &Disk| {
            let mut entries = disk.memory.entries();
            entries.retain(|(table, ..)| *table != Table::meta());
            entries
        };
        let before = entries(&self.disk);
        self.crash();
        self.settle();
        if entries(&self.disk) != before {
            self.violated("a restart when all was done changed what is on disk".to_owned());
        }
    }
}

fn scope(stream: &Stream) -> Scope {
    Scope::Principal(Principal::stamped(&stream.client).unwrap())
}

fn effect_key(stream: &Stream, n: u64) -> String {
    format!("effect/{}/{n:020}", stream.client)
}
