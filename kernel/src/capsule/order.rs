//! Order over retries: while a message of a sender waits to be tried again, what that sender says later waits behind it, and nobody
//! else does. For subscriptions that ask for it.

use std::collections::HashMap;
use std::sync::Arc;

use astrid_wire::Principal;

use super::loaded::Capsule;
use crate::bus::inbox::{Delivery, Kept, RowRef};
use crate::bus::message::Source;

/// Who says something, as far as order goes.
type Sender = (Principal, Option<Arc<str>>);

#[derive(Debug)]
struct Lane {
    /// The message that is tried again.
    head: u64,
    /// What came after it, in order.
    behind: Vec<RowRef>,
}

/// The senders that wait.
#[derive(Debug, Default)]
pub(crate) struct Order(HashMap<Sender, Lane>);

fn sender(delivery: &Delivery) -> Sender {
    let capsule = match &delivery.message.source {
        Source::Capsule(name) => Some(Arc::clone(name)),
        Source::Kernel | Source::Port(_) => None,
    };
    (delivery.message.principal.clone(), capsule)
}

/// The row of a message whose order is to be kept.
fn ordered_row(capsule: &Capsule, delivery: &Delivery) -> Option<RowRef> {
    match delivery.kept {
        Some(Kept::Row(row)) if capsule.is_ordered(delivery.lane()) => Some(row),
        _ => None,
    }
}

impl Order {
    /// The row of a message that has to wait behind another of its sender; it is remembered here.
    pub(crate) fn holds_back(&mut self, capsule: &Capsule, delivery: &Delivery) -> Option<RowRef> {
        if self.0.is_empty() {
            return None;
        }
        let row = ordered_row(capsule, delivery)?;
        let lane = self.0.get_mut(&sender(delivery))?;
        if lane.head == row.row {
            return None;
        }
        lane.behind.push(row);
        Some(row)
    }

    /// A message will be tried again: its sender waits, if its order is to be kept.
    pub(crate) fn wait_behind(&mut self, capsule: &Capsule, delivery: &Delivery) {
        if let Some(row) = ordered_row(capsule, delivery) {
            let lane = self.0.entry(sender(delivery)).or_insert(Lane {
                head: row.row,
                behind: Vec::new(),
            });
            lane.head = row.row;
        }
    }

    /// A message is done with: what waited behind it, in order.
    pub(crate) fn done(&mut self, delivery: &Delivery) -> Vec<RowRef> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let Some(Kept::Row(row)) = delivery.kept else {
            return Vec::new();
        };
        let sender = sender(delivery);
        match self.0.get(&sender) {
            Some(lane) if lane.head == row.row => self.0.remove(&sender).map_or_else(Vec::new, |lane| lane.behind),
            _ => Vec::new(),
        }
    }
}
