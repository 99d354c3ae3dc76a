//! Questions that wait for an answer.
//!
//! An ask is a message with a return address. The address names a row here that says who waits, until when; the first
//! answer, refusal or timeout takes the row, later ones find nothing. Whoever received the address may answer, now or
//! later, so an address is half random: it cannot be guessed by a capsule that was not asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use astrid_wire::{Principal, Problem, Topic};
use dashmap::DashMap;
use tokio::sync::oneshot;

use super::inbox::{Inbox, Kept};
use super::message::{Body, CommandId, Ids, Kind, Message, ReplyTo, Source};
use crate::deadlines::{DeadlineKey, Deadlines};
use crate::ledger::Hold;

/// What became of an ask.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Somebody answered.
    Answer(Body),
    /// Somebody refused, or the kernel did on behalf of an actor that failed.
    Refusal(Problem),
    /// Nobody answered in time.
    Timeout,
}

/// Counts the asks of one actor that are not settled; one actor may have [`ASKS_PER_ACTOR_MAX`].
#[derive(Clone, Debug, Default)]
pub struct OpenAsks(Arc<AtomicU32>);

/// Unsettled asks of one actor at most; each holds a row and, when it is settled, a place in the asker's queue.
pub const ASKS_PER_ACTOR_MAX: u32 = 1024;

impl OpenAsks {
    /// How many are open.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who is told.
#[derive(Debug)]
pub enum Waiter {
    /// An actor, by a message.
    Actor {
        /// Its queue.
        inbox: Arc<Inbox>,
        /// The command that asked.
        command: CommandId,
        /// Its count of open asks.
        open: OpenAsks,
        /// Whether the store keeps the ask until its outcome was handled.
        kept: bool,
    },
    /// A future that waits in place.
    InPlace(oneshot::Sender<(Outcome, Source)>),
}

#[derive(Debug)]
struct Row {
    waiter: Waiter,
    topic: Topic,
    principal: Principal,
    deadline: DeadlineKey,
    /// Its place among the asks of its principal; given back with the row.
    _hold: Option<Hold>,
}

/// All open asks.
#[derive(Debug)]
pub struct Asks {
    rows: DashMap<ReplyTo, Row, ahash::RandomState>,
    deadlines: Arc<Deadlines>,
    ids: Arc<Ids>,
}

impl Asks {
    /// None open.
    pub fn new(deadlines: Arc<Deadlines>, ids: Arc<Ids>) -> Arc<Self> {
        Arc::new(Self {
            rows: DashMap::default(),
            deadlines,
            ids,
        })
    }

    /// Opens an ask on a topic, for a principal with what is held of its quota, until an instant. The address is to be sent with the
    /// message.
    pub fn open(
        self: &Arc<Self>,
        topic: &Topic,
        (principal, hold): (&Principal, Option<Hold>),
        until: Instant,
        waiter: Waiter,
    ) -> ReplyTo {
        let address = ReplyTo {
            high: self.ids.message().sequence,
            low: rand::random(),
        };
        if let Waiter::Actor { open, .. } = &waiter {
            open.0.fetch_add(1, Ordering::Relaxed);
        }
        let asks = Arc::clone(self);
        let deadline = self.deadlines.at(until, move || {
            asks.settle(address, Outcome::Timeout, Source::Kernel);
        });
        self.rows.insert(
            address,
            Row {
                waiter,
                topic: topic.clone(),
                principal: principal.clone(),
                deadline,
                _hold: hold,
            },
        );
        // On another thread the deadline may have come before the row did.
        if until <= self.deadlines.now() {
            self.settle(address, Outcome::Timeout, Source::Kernel);
        }
        address
    }

    /// Whether an ask that the store keeps waits for its outcome.
    pub fn is_kept_open(&self, command: CommandId) -> bool {
        self.rows
            .iter()
            .any(|row| matches!(&row.waiter, Waiter::Actor { command: c, kept: true, .. } if *c == command))
    }

    /// Whether somebody still waits there.
    pub fn waits(&self, address: ReplyTo) -> bool {
        self.rows.contains_key(&address)
    }

    /// Tells whoever waits. False when nobody does (any more).
    pub fn settle(&self, address: ReplyTo, outcome: Outcome, by: Source) -> bool {
        let Some((_, row)) = self.rows.remove(&address) else {
            return false;
        };
        self.deadlines.cancel(row.deadline);
        match row.waiter {
            // A future that stopped waiting has dropped its end: nobody is left to tell.
            Waiter::InPlace(waiting) => waiting.send((outcome, by)).is_ok(),
            Waiter::Actor {
                inbox,
                command,
                open,
                kept,
            } => {
                open.0.fetch_sub(1, Ordering::Relaxed);
                let (kind, body) = match outcome {
                    Outcome::Answer(body) => (Kind::Answer(command), body),
                    Outcome::Refusal(problem) => (Kind::Refusal(command), Body::problem(&problem)),
                    Outcome::Timeout => (Kind::Timeout(command), Body::EMPTY),
                };
                let message = Message {
                    id: self.ids.message(),
                    kind,
                    topic: row.topic,
                    principal: row.principal,
                    source: by,
                    body,
                    deadline: None,
                    public: false,
                };
                if kept {
                    inbox.push_kept(Arc::new(message), Kept::Ask(command))
                } else {
                    inbox.push(Arc::new(message), None)
                }
            }
        }
    }

    /// Forgets an ask whose asker gave up.
    pub fn forget(&self, address: ReplyTo) {
        if let Some((_, row)) = self.rows.remove(&address) {
            self.deadlines.cancel(row.deadline);
            if let Waiter::Actor { open, .. } = row.waiter {
                open.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
