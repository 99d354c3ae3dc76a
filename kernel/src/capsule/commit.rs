//! What comes of a handling: everything that it recorded happens together, or the message is tried again, or laid aside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use astrid_wire::Problem;
use astrid_wire::problem::codes;
use bytes::Bytes;

use super::actor::{Actor, Handled, Life};
use super::commands::{self, Command};
use super::durable;
use super::durable::outbox::Outputs;
use super::durable::record::{self, MessageRecord};
use super::guest::Guest;
use super::report;
use crate::authority::{Denied, Standing};
use crate::bus::inbox::{Delivery, Kept, RowRef};
use crate::store::engine::Write;
use crate::store::{Batch, Level, Refused, table};

/// Wait before a message that the store keeps is tried again for the first time; it doubles.
pub(crate) const RETRY_MIN: Duration = Duration::from_millis(100);

/// Wait before any further attempt at most.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(30);

/// Wait before what found a full queue is tried again.
const FULL_WAIT: Duration = Duration::from_millis(250);

/// Wait before what cannot be read is tried again.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Attempts of what is kept and came by no subscription: a durable timer, the outcome of a durable ask.
const RETRIES: u32 = astrid_wire::manifest::RETRY_DURABLE;

/// A row that is not there, or is not this life's to handle.
struct Gone;

impl Actor {
    /// How often this message is tried again.
    pub(super) fn retries(&self, delivery: &Delivery) -> u32 {
        match (&delivery.kept, delivery.lane()) {
            (Some(_), None) => RETRIES,
            (_, lane) => self.capsule().retry(lane),
        }
    }

    /// Makes one batch of what a handling wrote and what is to be kept of what it said, and lets it say that: at once, or once the
    /// batch is on disk.
    pub(super) fn commit(self: &Arc<Self>, guest: &mut Guest, delivery: &Delivery, epoch: u64) -> Handled {
        let cause = delivery.message.id;
        let host = self.host();
        if let Some(denied) = self.denied_meanwhile(guest) {
            // All of it or nothing: what it wrote belongs to what it wanted to say. Handled again, it meets the policy in force.
            tracing::info!(capsule = %self.capsule_name(), %denied, "a handling is undone: what it does is not allowed any more");
            return Handled::Conflicted;
        }
        let durable =
            delivery.kept.is_some() || self.capsule().is_durable(delivery.lane()) || guest.commands.are_kept();
        if !durable && !guest.working.is_written() {
            return self.say(guest, cause, 0);
        }
        let now_ms = host.deadlines.clock().wall_ms();
        let seen = guest.working.seen_ahead().unwrap_or(0);
        let mut prepared = commands::prepare(guest.commands.take(), self, cause);
        let (mut writes, shared) = match self.table() {
            Some(table) => guest.working.take(table),
            None => (Vec::new(), None),
        };
        // Before what the handling wants: it may cancel the very timer that it handles.
        writes.extend(self.done_row(delivery, now_ms));
        writes.append(&mut prepared.writes);
        if writes.is_empty() && prepared.once.is_empty() {
            // An ask on a durable subscription that changed nothing.
            return self.say_prepared(prepared.commands, cause, seen, guest.standing());
        }
        let (once, ordinals): (Vec<_>, Vec<u32>) = prepared.once.into_iter().unzip();
        let level = if durable { Level::Durable } else { Level::Eventual };
        let sequenced = host.store.sequence(Batch {
            writes,
            once,
            level,
            shared,
            epoch,
            now_ms,
        });
        let sequenced = match sequenced {
            Ok(sequenced) => sequenced,
            Err(Refused::Conflict) => return Handled::Conflicted,
            // It is read again from the store; what the store does not keep is handled again.
            Err(Refused::Stale) if delivery.kept.is_some() => return Handled::Abandoned,
            Err(Refused::Stale) => return Handled::Unstored("the store failed meanwhile".into()),
            Err(Refused::Unavailable(why)) => return Handled::Unstored(why),
        };
        if let Some(Kept::Timer(id)) = delivery.kept {
            host.durable.timers.handled(id, now_ms);
        }
        commands::sequenced(&prepared.commands, self);
        for (ordinal, admitted) in ordinals.into_iter().zip(sequenced.admitted) {
            if !admitted {
                // It was said before.
                prepared
                    .commands
                    .retain(|(n, command)| *n != ordinal || !matches!(command, Command::Deliver { .. }));
            }
        }
        let number = if durable { sequenced.number } else { seen };
        self.say_prepared(prepared.commands, cause, number, guest.standing())
    }

    /// What a handling did that its principal may not do any more, since the policy changed while it ran.
    fn denied_meanwhile(&self, guest: &Guest) -> Option<Denied> {
        let gate = &self.host().gate;
        if guest.standing().epoch() == gate.authority().epoch() {
            return None;
        }
        let written = guest.working.is_written();
        let table = written.then(|| gate.table(guest.subject(), ()).err()).flatten();
        table.or_else(|| guest.commands.check_again(self, guest.standing()))
    }

    /// Says what was recorded, where nothing was written.
    fn say(self: &Arc<Self>, guest: &mut Guest, cause: crate::bus::message::MessageId, number: u64) -> Handled {
        let number = number.max(guest.working.seen_ahead().unwrap_or(0));
        if self.goes_at_once(number) {
            let standing = guest.standing().clone();
            commands::carry_out(guest.commands.take(), self, cause, &standing);
            return Handled::Committed;
        }
        let commands = guest.commands.take().collect();
        self.say_prepared(commands, cause, number, guest.standing())
    }

    /// Whether nothing that was said before, and nothing that was seen, waits for the disk.
    fn goes_at_once(&self, number: u64) -> bool {
        !self.is_in_outbox() && number <= self.host().store.sealed()
    }

    fn say_prepared(
        self: &Arc<Self>,
        commands: Vec<(u32, Command)>,
        cause: crate::bus::message::MessageId,
        number: u64,
        standing: &Standing,
    ) -> Handled {
        if self.goes_at_once(number) {
            commands::carry_out(commands.into_iter(), self, cause, standing);
            return Handled::Committed;
        }
        // Never before what was said earlier.
        let number = self.last_commit().fetch_max(number, Ordering::Relaxed).max(number);
        let outputs = Outputs {
            actor: Arc::clone(self),
            cause,
            commands,
            standing: standing.clone(),
        };
        let host = self.host();
        host.durable.outbox.push(number, host.store.sealed(), outputs);
        Handled::Committed
    }

    /// What says in the store that a message is done with.
    fn done_row(&self, delivery: &Delivery, now_ms: u64) -> Option<Write> {
        let owner = self.owner()?;
        match delivery.kept? {
            Kept::Row(RowRef { row, weight }) => Some(Write::delete(
                owner.table(table::Kind::Inbox),
                record::inbox_key(row, weight as usize),
            )),
            Kept::Timer(id) => self.host().durable.timers.handled_row(id, now_ms),
            Kept::Ask(id) => Some(Write::delete(owner.table(table::Kind::Ask), durable::ask_key(id))),
        }
    }

    /// Reads a message that waits in the store, for as long as that takes: nothing overtakes it. `None` when it is gone, or cannot be
    /// handled, or the store failed after that `epoch`: then it is found again.
    pub(super) async fn read_row(self: &Arc<Self>, row: RowRef, epoch: u64) -> Option<Delivery> {
        let found = self.find_row(self.owner()?, row, epoch).await.ok()?;
        let read = MessageRecord::read(found).and_then(|record| Ok((record.message()?, record)));
        let Ok((message, record)) = read else {
            tracing::error!(capsule = %self.capsule_name(), row = row.row, "a message that waits is damaged; it is left where it is");
            return None;
        };
        let lane = self.capsule().durable_lane(&message.topic);
        let mut delivery = Delivery::read(Arc::new(message), lane.unwrap_or(0), row);
        delivery.attempt = record.attempts + 1;
        delivery.faults = record.faults;
        self.inbox().adopt(&mut delivery);
        if lane.is_none() {
            let reason = "the capsule does not subscribe to this topic any more";
            drop(self.lay_aside(delivery, codes::UNSUBSCRIBED, reason));
            return None;
        }
        Some(delivery)
    }

    /// What the store keeps for this actor cannot be read now.
    pub(super) async fn wait_to_read(&self, why: &(dyn std::fmt::Display + Sync)) {
        tracing::error!(%why, capsule = %self.capsule_name(), "the store cannot be read; what needs it waits");
        let deadlines = &self.host().deadlines;
        deadlines.until(deadlines.now() + READ_AGAIN).await;
    }

    /// Whether a message that is tried again was dropped meanwhile, or handled by way of another copy; or is void, because the store
    /// failed after that `epoch`.
    pub(super) async fn is_gone(&self, delivery: &Delivery, epoch: u64) -> bool {
        let may_be = delivery.attempt > 1 || self.has_copies();
        let (Some(Kept::Row(row)), Some(owner), true) = (delivery.kept, self.owner(), may_be) else {
            return false;
        };
        matches!(self.find_row(owner, row, epoch).await, Err(Gone))
    }

    /// A row of the inbox, read for as long as that takes: nothing overtakes it.
    async fn find_row(&self, owner: &durable::Owner, row: RowRef, epoch: u64) -> Result<Bytes, Gone> {
        let store = &self.host().store;
        let table = owner.table(table::Kind::Inbox);
        let key = record::inbox_key(row.row, row.weight as usize);
        loop {
            // After a failure it is found again; an actor that ends leaves it where it is.
            if store.epoch() != epoch || self.inbox().is_closed() {
                return Err(Gone);
            }
            match store.view(&table).and_then(|view| view.get(&key)) {
                Ok(found) => return found.ok_or(Gone),
                Err(error) => self.wait_to_read(&error).await,
            }
        }
    }

    /// A message failed and is tried again: at once behind what waits or, if the store keeps it, after a while.
    pub(super) fn try_again(self: &Arc<Self>, life: &mut Life, delivery: Delivery) {
        let Some(kept) = delivery.kept else {
            self.inbox().retry(delivery);
            return;
        };
        life.order.wait_behind(self.capsule(), &delivery);
        if let (Kept::Row(row), Some(owner)) = (kept, self.owner()) {
            // So that a message that fails is not tried for ever by daemons that are restarted.
            let mut record = MessageRecord::of(&delivery.message);
            (record.attempts, record.faults) = (delivery.attempt, delivery.faults);
            let key = record::inbox_key(row.row, row.weight as usize);
            let write = Write::put(owner.table(table::Kind::Inbox), key, record.to_bytes());
            if let Err(error) = self.write(vec![write], Level::Eventual) {
                tracing::debug!(%error, "the attempts of a message are not counted");
            }
        }
        let wait = RETRY_MIN
            .saturating_mul(1 << delivery.attempt.saturating_sub(1).min(16))
            .min(RETRY_MAX);
        self.come_again(delivery, wait, true);
    }

    /// Somebody whom it wanted to tell has no place: not the message's fault, so it waits and is not counted, however long that takes.
    /// Its sender waits with it, if order is to be kept.
    pub(super) fn wait_for_place(self: &Arc<Self>, life: &mut Life, delivery: Delivery) {
        life.order.wait_behind(self.capsule(), &delivery);
        self.come_again(delivery, FULL_WAIT, false);
    }

    /// The store does not take what came of a message.
    pub(super) fn put_off(self: &Arc<Self>, delivery: Delivery, why: &str) {
        if delivery.kept.is_some() {
            // It is not the message's fault: it waits for the store, as it was.
            self.inbox().put_back(delivery);
            return;
        }
        let problem = Problem::new(
            codes::STORE_UNAVAILABLE,
            format!("{} cannot store this: {why}", self.capsule_name()),
        )
        .with_hint("nothing of it happened; `astrid status` says how the store is");
        if delivery.attempt <= self.retries(&delivery) {
            self.come_again(delivery, RETRY_MIN, true);
        } else {
            report::refuse(&self.host().bus, &delivery.message, problem);
            tracing::warn!(capsule = %self.capsule_name(), topic = %delivery.message.topic, why, "a message is lost: what came of it cannot be stored");
        }
    }

    pub(super) fn come_again(self: &Arc<Self>, delivery: Delivery, wait: Duration, counts: bool) {
        let inbox = Arc::clone(self.inbox());
        inbox.hold();
        let deadlines = &self.host().deadlines;
        deadlines.at(deadlines.now() + wait, move || {
            inbox.unhold();
            if counts {
                inbox.retry(delivery);
            } else {
                inbox.put_back(delivery);
            }
        });
    }

    /// A message is not tried again: who asked is told, and it is laid aside.
    pub(super) fn give_up(self: &Arc<Self>, life: &mut Life, delivery: Delivery, code: &str, reason: &str) {
        if let Some(delivery) = self.lay_aside(delivery, code, reason) {
            self.inbox().put_rows_back(life.order.done(&delivery));
        }
    }

    /// The message, unless it could not be laid aside: then it comes again, and its sender waits on.
    fn lay_aside(self: &Arc<Self>, delivery: Delivery, code: &str, reason: &str) -> Option<Delivery> {
        let now_ms = self.host().deadlines.clock().wall_ms();
        let mut after = None;
        if let (Some(kept), Some(owner)) = (delivery.kept, self.owner()) {
            let mut message = MessageRecord::of(&delivery.message);
            (message.attempts, message.faults) = (delivery.attempt, delivery.faults);
            let mut writes = vec![durable::dead_row(
                &self.host().store,
                owner,
                message,
                code,
                reason,
                now_ms,
            )];
            writes.extend(self.done_row(&delivery, now_ms));
            let host = self.host();
            match durable::dead::make_room(&host.store, &host.durable.letters, self.capsule_name()) {
                Ok(leaving) => writes.extend(leaving),
                Err(error) => tracing::error!(%error, "cannot count the messages that were given up"),
            }
            after = match self.write(writes, Level::Durable) {
                Ok(number) => Some(number),
                Err(error) => {
                    tracing::error!(%error, capsule = %self.capsule_name(), "a message that is given up cannot be laid aside; it is tried again");
                    self.come_again(delivery, RETRY_MAX, false);
                    return None;
                }
            };
            if let Kept::Timer(id) = kept {
                self.host().durable.timers.handled(id, now_ms);
            }
        }
        report::give_up(self.host(), self, &delivery, code, reason, after);
        Some(delivery)
    }

    fn write(&self, writes: Vec<Write>, level: Level) -> Result<u64, Refused> {
        let host = self.host();
        let sequenced = host.store.sequence(Batch {
            writes,
            once: Vec::new(),
            level,
            shared: None,
            epoch: host.store.epoch(),
            now_ms: host.deadlines.clock().wall_ms(),
        })?;
        Ok(sequenced.number)
    }

    /// A message was handled: what waited behind it comes next.
    pub(super) fn in_order_again(&self, life: &mut Life, delivery: &Delivery) {
        self.inbox().put_rows_back(life.order.done(delivery));
    }
}
