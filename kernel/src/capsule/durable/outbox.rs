//! What handlings want done outside, while their commits are not on disk yet.
//!
//! An actor goes on as soon as its commit is sequenced; what it said leaves when that is sealed, in the order in which it was said. A
//! handling that wrote nothing still waits behind an earlier one of the same actor, so one actor's outputs never overtake each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::authority::Standing;
use crate::bus::message::{Message, MessageId};
use crate::bus::{Bus, Slots};
use crate::capsule::actor::Actor;
use crate::capsule::commands::{self, Command};

/// What one handling wants done.
pub struct Outputs {
    /// Whose.
    pub actor: Arc<Actor>,
    /// The message that was handled.
    pub cause: MessageId,
    /// What, in order, with the places that it was recorded at.
    pub commands: Vec<(u32, Command)>,
    /// On whose behalf, as it was when it was committed.
    pub standing: Standing,
}

impl Outputs {
    fn carry_out(self) {
        let Self {
            actor,
            cause,
            commands,
            standing,
        } = self;
        commands::carry_out(commands.into_iter(), &actor, cause, &standing);
        actor.left_outbox();
    }

    /// The commit was forgotten: whoever waits for something of this is told.
    fn forget(self) {
        let Self { actor, commands, .. } = self;
        commands::forget(commands, &actor);
        if let Some(connection) = actor.connection() {
            // Its peer cannot know what happened, and asks again over a new one.
            connection.end();
        }
        actor.left_outbox();
    }
}

/// What waits for one seal.
enum Held {
    /// What a handling said.
    Handling(Outputs),
    /// Something that was said by no handling.
    Said {
        bus: Arc<Bus>,
        message: Arc<Message>,
        slots: Slots,
    },
}

impl Held {
    fn carry_out(self) {
        match self {
            Self::Handling(outputs) => outputs.carry_out(),
            Self::Said { bus, message, slots } => bus.deliver(message, slots),
        }
    }
}

#[derive(Default)]
struct Waiting {
    outputs: BTreeMap<(u64, u64), Held>,
    count: u64,
}

/// Outputs that wait for their seal.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("waiting", &self.len())
            .finish_non_exhaustive()
    }
}

impl Outbox {
    /// Keeps outputs until the commit of that number is sealed.
    pub fn push(&self, number: u64, sealed: u64, outputs: Outputs) {
        outputs.actor.entered_outbox();
        self.hold(number, sealed, Held::Handling(outputs));
    }

    /// Keeps a message until the commit of that number is sealed: it is heard then, whoever waits for that or not.
    pub fn push_said(&self, number: u64, sealed: u64, bus: &Arc<Bus>, message: Arc<Message>, slots: Slots) {
        let bus = Arc::clone(bus);
        self.hold(number, sealed, Held::Said { bus, message, slots });
    }

    fn hold(&self, number: u64, sealed: u64, held: Held) {
        let mut waiting = self.waiting.lock();
        waiting.count += 1;
        let place = (number, waiting.count);
        waiting.outputs.insert(place, held);
        drop(waiting);
        if number <= sealed {
            self.more.notify_one();
        }
    }

    /// How many handlings wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().outputs.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until something was added that need not wait.
    pub async fn more(&self) {
        self.more.notified().await;
    }

    /// Does what waited for commits up to that number. Returns whether there was something.
    pub fn release(&self, sealed: u64) -> bool {
        let mut any = false;
        loop {
            let mut waiting = self.waiting.lock();
            let Some(first) = waiting.outputs.first_entry().filter(|e| e.key().0 <= sealed) else {
                return any;
            };
            let outputs = first.remove();
            drop(waiting);
            outputs.carry_out();
            any = true;
        }
    }

    /// The store failed: what waits for commits beyond that number will not happen.
    pub fn forget(&self, sealed: u64) {
        let mut waiting = self.waiting.lock();
        let forgotten = waiting.outputs.split_off(&(sealed + 1, 0));
        drop(waiting);
        for held in forgotten.into_values() {
            if let Held::Handling(outputs) = held {
                outputs.forget();
            }
        }
    }
}
