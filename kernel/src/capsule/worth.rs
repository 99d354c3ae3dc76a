//! Which messages are not worth an instance: nobody waits for what would come of them, or they could not be handled.

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use super::actor::Actor;
use super::durable;
use super::durable::record;
use super::report;
use crate::bus::inbox::{Delivery, Kept};
use crate::bus::message::{Kind, Message, Source};
use crate::store::table;

/// A body may take this part of its receiver's memory: it is copied in, parsed, worked on and answered.
const BODY_PART_OF_MEMORY: u64 = 8;

impl Actor {
    /// A timer that was cancelled after it fired, what a watch told that has ended, or an ask whose asker has gone, is not worth an instance.
    pub(super) fn is_stale(&self, delivery: &Delivery) -> bool {
        let message = &delivery.message;
        let topics = &self.host().topics;
        let fired = message.topic == topics.timer_fired;
        let changed = message.topic == topics.watch.changed;
        let cancelled = match (&delivery.kept, &message.source) {
            (Some(Kept::Timer(id)), _) => !self.host().durable.timers.has(*id),
            (None, Source::Port(id)) => (fired && !self.timers().has(*id)) || (changed && !self.watches().has(*id)),
            _ => false,
        };
        cancelled
            || message
                .deadline
                .is_some_and(|deadline| deadline <= self.host().deadlines.now())
    }

    /// Refuses an ask whose body alone would take a large part of what the actor may have in memory: to handle it would be a
    /// fault, and who sends it would take the actor from everybody else.
    pub(super) fn is_too_large(&self, message: &Message) -> bool {
        let max = self.capsule().manifest.runtime.memory.0 / BODY_PART_OF_MEMORY;
        let too_large = matches!(message.kind, Kind::Ask(_)) && message.body.bytes.len() as u64 > max;
        if too_large {
            let text = format!("{} takes bodies of at most {max} bytes", self.capsule().name);
            report::refuse(&self.host().bus, message, Problem::new(codes::TOO_LARGE, text));
        }
        too_large
    }

    /// Whether the row of a message that the store keeps is there; when that cannot be read, it is.
    pub(super) fn is_kept_still(&self, delivery: &Delivery) -> bool {
        let (Some(kept), Some(owner)) = (delivery.kept, self.owner()) else {
            return true;
        };
        let store = &self.host().store;
        let (kind, key) = match kept {
            Kept::Row(row) => (table::Kind::Inbox, record::inbox_key(row.row, row.weight as usize)),
            Kept::Ask(id) => (table::Kind::Ask, durable::ask_key(id)),
            Kept::Timer(id) => return self.host().durable.timers.has(id),
        };
        let found = store.view(&owner.table(kind)).and_then(|view| view.get(&key));
        !matches!(found, Ok(None))
    }
}
