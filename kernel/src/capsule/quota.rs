//! What becomes of a message whose principal is over quota.
//!
//! It is looked at where a handling would start, for fuel, and where a handling gave up because it was refused something:
//!
//! - an ask is refused, with the limit and when it frees; an event that the store does not keep is not handled, and counted;
//! - what the store keeps waits until the window frees, as a row number, all of a principal's together and in their order; where waiting
//!   does not help (a total is used up) it is laid aside with the dead letters, from where an operator brings it back;
//! - what was paid for already, answers and events of ports and timers, is handled. A principal's own actors wait with that until the
//!   window frees, so that a stream's peer waits too; a system actor does not, as others would wait with it.
//!
//! A connection's actor runs also where a total is used up, or its rate is zero: it is how its client is told. What it says is refused instead.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use astrid_wire::Principal;
use astrid_wire::manifest::Scope;
use astrid_wire::problem::codes;
use parking_lot::Mutex;

use super::actor::{Actor, Handled, Life};
use super::host::bindings::astrid::kernel::types;
use super::host::bus::guest_problem;
use super::report;
use crate::bus::inbox::{Delivery, Kept, RowRef};
use crate::bus::message::{Kind, Message};
use crate::ledger::{Account, Exceeded};

/// Waits at most before looking again: a quota may have been raised meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Rows of messages whose principals are over quota. Bounded by the places of the queue that they came from.
#[derive(Debug, Default)]
pub(super) struct Parked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    rows: HashMap<Principal, VecDeque<RowRef>, ahash::RandomState>,
    /// How often the store had failed: what was parked before is found again.
    epoch: u64,
}

impl Parked {
    /// Adds a row to those of its principal that wait already. False when none does.
    fn join(&self, principal: &Principal, row: RowRef, epoch: u64) -> bool {
        let mut state = self.0.lock();
        if state.epoch != epoch {
            return false;
        }
        let Some(rows) = state.rows.get_mut(principal) else {
            return false;
        };
        rows.push_back(row);
        true
    }

    fn begin(&self, principal: &Principal, row: RowRef, epoch: u64) {
        let mut state = self.0.lock();
        if state.epoch != epoch {
            state.rows.clear();
            state.epoch = epoch;
        }
        state.rows.insert(principal.clone(), [row].into());
    }

    fn end(&self, principal: &Principal, epoch: u64) -> Vec<RowRef> {
        let mut state = self.0.lock();
        if state.epoch != epoch {
            return Vec::new();
        }
        state.rows.remove(principal).map(Vec::from).unwrap_or_default()
    }
}

/// A handling that gave up because it was refused something.
pub(super) fn handled(exceeded: Exceeded, kept: bool) -> Handled {
    if kept && exceeded.retry_after_ms.is_some() {
        return Handled::OverQuota(exceeded);
    }
    Handled::RolledBack(types::Rollback::Refuse(guest_problem(&exceeded.problem())))
}

impl Actor {
    /// Who pays for handling a message; the row of the last one is kept at hand.
    pub(super) fn payer(&self, life: &mut Life, message: &Message) -> Arc<Account> {
        let principal = self.acts_as(message);
        match &life.payer {
            Some(account) if *account.principal() == principal => Arc::clone(account),
            _ => {
                let account = self.host().ledger.account(&principal);
                Arc::clone(life.payer.insert(account))
            }
        }
    }

    /// The message, if it is to be handled now.
    pub(super) async fn admit(self: &Arc<Self>, life: &mut Life, delivery: Delivery) -> Option<Delivery> {
        let account = self.payer(life, &delivery.message);
        if delivery.lane().is_none() || self.connection().is_some() {
            self.wait_for_window(&account).await;
            return Some(delivery);
        }
        if let Some(Kept::Row(row)) = delivery.kept
            && self.parked().join(account.principal(), row, life.epoch)
        {
            self.inbox().park(row);
            return None;
        }
        match account.check_fuel() {
            Ok(()) => Some(delivery),
            Err(exceeded) => {
                self.put_aside(life, delivery, &exceeded);
                None
            }
        }
    }

    /// A message whose principal is over quota is not handled now.
    pub(super) fn put_aside(self: &Arc<Self>, life: &mut Life, delivery: Delivery, exceeded: &Exceeded) {
        match (delivery.kept, exceeded.retry_after()) {
            (None, _) if matches!(delivery.message.kind, Kind::Ask(_)) => {
                report::refuse(&self.host().bus, &delivery.message, exceeded.problem());
            }
            (None, _) => {
                tracing::debug!(capsule = %self.capsule_name(), topic = %delivery.message.topic, %exceeded, "a message is not handled");
            }
            (Some(Kept::Row(row)), Some(wait)) => {
                life.order.wait_behind(self.capsule(), &delivery);
                self.park(row, &exceeded.principal, life.epoch, wait.min(LOOK_AGAIN));
            }
            (Some(_), Some(wait)) => self.come_again(delivery, wait.min(LOOK_AGAIN), false),
            (Some(_), None) => self.give_up(life, delivery, codes::QUOTA_EXCEEDED, &exceeded.to_string()),
        }
    }

    fn park(self: &Arc<Self>, row: RowRef, principal: &Principal, epoch: u64, wait: Duration) {
        self.inbox().park(row);
        if self.parked().join(principal, row, epoch) {
            return;
        }
        self.parked().begin(principal, row, epoch);
        self.inbox().hold();
        let (actor, principal) = (Arc::clone(self), principal.clone());
        let deadlines = &self.host().deadlines;
        deadlines.at(deadlines.now() + wait, move || {
            actor.inbox().unhold();
            let rows = actor.parked().end(&principal, actor.host().store.epoch());
            actor.inbox().put_rows_back(rows);
        });
    }

    /// Waits until a principal whose own actor this is has fuel again, or the actor ends.
    async fn wait_for_window(&self, account: &Account) {
        let own = self.connection().is_some() || self.capsule().manifest.runtime.scope == Scope::Principal;
        while own
            && !self.inbox().is_closed()
            && !self.host().is_stopping()
            && let Err(exceeded) = account.check_fuel_window()
        {
            if exceeded.retry_after().is_none() && self.connection().is_some() {
                // It never frees: its client is told so.
                return;
            }
            let wait = exceeded.retry_after().unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
            let deadlines = &self.host().deadlines;
            let mut sleep = std::pin::pin!(deadlines.until(deadlines.now() + wait));
            std::future::poll_fn(|cx| {
                // Woken by what arrives, the end of the queue among it.
                drop(self.inbox().poll_chosen(cx, |_| false));
                if self.inbox().is_closed() {
                    return Poll::Ready(());
                }
                sleep.as_mut().poll(cx)
            })
            .await;
        }
    }
}
