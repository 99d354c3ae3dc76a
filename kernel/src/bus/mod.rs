//! The bus: who hears what is said, and who waits for an answer.
//!
//! - [`message`]: what travels;
//! - [`trie`]: which subscriptions hear a topic;
//! - [`inbox`]: the bounded queue of one receiver;
//! - [`asks`]: return addresses.
//!
//! Saying something has two halves, so that it can be part of a transaction. [`Bus::reserve`] finds the receivers and
//! takes a place in the queue of each, or fails with who is full. [`Bus::send`] fills the places and cannot fail.
//! Both need a [`Permit`]: what was not decided by the gate does not compile.
//!
//! Deliberately absent: any knowledge of capsules. A receiver is a [`Route`], which finds or makes the queue.

pub mod asks;
pub mod inbox;
pub mod message;
#[cfg(test)]
mod tests;
pub mod trie;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_wire::manifest::Overflow;
use astrid_wire::problem::codes;
use astrid_wire::{Pattern, Principal, Problem, Topic};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use self::asks::{Asks, Outcome, Waiter};
use self::inbox::{Inbox, LanePolicy, NoPlace, Slot};
use self::message::{Body, Ids, Kind, Message, MessageId, ReplyTo, Source};
use self::trie::Trie;
use crate::authority::{Permit, Say};
use crate::deadlines::Deadlines;
use crate::metrics::Metrics;

/// What decides who hears a message.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Where it is said.
    pub topic: &'a Topic,
    /// On whose behalf it is said.
    pub principal: &'a Principal,
    /// Who says it.
    pub source: &'a Source,
    /// Whether everybody may hear it.
    pub public: bool,
}

/// Finds the queues that a message goes to, making their owners if need be.
pub trait Route: Send + Sync {
    /// Calls `found` for each place where this receiver hears that.
    fn inboxes(&self, heard: &Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>));
}

/// What a subscription is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Handles what it hears, and answers what is asked.
    Receiver,
    /// Watches: it hears an ask as an event, without the address for the answer, and does not count as somebody who could
    /// answer.
    Observer,
    /// The kernel itself: as a receiver, and the only one for what is asked of the kernel.
    Kernel,
}

/// One pattern that somebody hears.
pub struct Subscription {
    route: Arc<dyn Route>,
    lane: u16,
    role: Role,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// The domain of the kernel's own requests and announcements.
pub const KERNEL_DOMAIN: &str = "astrid";

/// Hearers up to which a list is searched for one that was found before.
const SEARCHED_LIST_MAX: usize = 32;

/// How often receivers are looked up for one message, when some end meanwhile.
const LOOKUPS_MAX: u32 = 4;

/// Places reserved for one message.
#[derive(Debug, Default)]
pub struct Slots {
    receivers: SmallVec<[Slot; 2]>,
    observers: Vec<Slot>,
}

impl Slots {
    /// Whether somebody's copy is kept in the store.
    pub fn is_kept(&self) -> bool {
        self.receivers.iter().any(|slot| slot.table().is_some())
    }

    /// The places whose message is kept in the store.
    pub fn kept(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.receivers.iter_mut().filter(|slot| slot.table().is_some())
    }

    /// Whether nobody is there who could answer.
    pub fn is_unheard(&self) -> bool {
        self.receivers.iter().all(|slot| slot.inbox().is_absent())
    }

    fn push(&mut self, slot: Slot, role: Role) {
        match role {
            Role::Receiver | Role::Kernel => self.receivers.push(slot),
            Role::Observer => self.observers.push(slot),
        }
    }
}

/// Somebody who hears a message.
struct Hearer {
    inbox: Arc<Inbox>,
    lane: u16,
    role: Role,
}

/// What is said, but for what the bus adds.
#[derive(Clone, Debug)]
pub struct Saying {
    /// On whose behalf.
    pub principal: Principal,
    /// Who says it.
    pub source: Source,
    /// What.
    pub body: Body,
    /// Whether every principal may hear it.
    pub public: bool,
}

impl Saying {
    /// Something that the kernel announces to everybody.
    pub fn announcement(body: Body) -> Self {
        Self {
            principal: Principal::capsule("kernel"),
            source: Source::Kernel,
            body,
            public: true,
        }
    }
}

/// Removes its subscription when it is dropped.
#[derive(Debug)]
pub struct Subscribed {
    bus: Arc<Bus>,
    pattern: Pattern,
    id: u64,
}

impl Subscribed {
    /// What is heard.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.bus.subscriptions.remove(&self.pattern, self.id);
    }
}

/// The bus.
#[derive(Debug)]
pub struct Bus {
    subscriptions: Trie<Subscription>,
    asks: Arc<Asks>,
    ids: Arc<Ids>,
    deadlines: Arc<Deadlines>,
    metrics: Arc<Metrics>,
}

impl Bus {
    /// A bus that nobody hears yet.
    pub fn new(ids: Arc<Ids>, deadlines: Arc<Deadlines>, metrics: Arc<Metrics>) -> Arc<Self> {
        let asks = Asks::new(Arc::clone(&deadlines), Arc::clone(&ids));
        Arc::new(Self {
            subscriptions: Trie::default(),
            asks,
            ids,
            deadlines,
            metrics,
        })
    }

    /// Return addresses.
    pub fn asks(&self) -> &Arc<Asks> {
        &self.asks
    }

    /// Message and port numbers.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.ids
    }

    /// Lets a route hear a pattern, in that lane of its queue. The caller has the gate's permission.
    pub fn subscribe(
        self: &Arc<Self>,
        permit: Permit<Pattern>,
        route: Arc<dyn Route>,
        lane: u16,
        role: Role,
    ) -> Subscribed {
        let pattern = permit.into_object();
        let id = self
            .subscriptions
            .insert(&pattern, Arc::new(Subscription { route, lane, role }));
        Subscribed {
            bus: Arc::clone(self),
            pattern,
            id,
        }
    }

    /// Who hears a topic, each once, however many of its patterns match; first pattern first.
    fn hearers(&self, topic: &Topic, saying: &Saying) -> SmallVec<[Hearer; 4]> {
        let heard = Heard {
            topic,
            principal: &saying.principal,
            source: &saying.source,
            public: saying.public,
        };
        let mut found: SmallVec<[Hearer; 4]> = SmallVec::new();
        // A list is searched faster than a set while it is short.
        let mut seen: HashSet<*const Inbox, ahash::RandomState> = HashSet::default();
        self.subscriptions.matches(topic, |subscription| {
            subscription.route.inboxes(&heard, &mut |inbox| {
                let known = if found.len() < SEARCHED_LIST_MAX {
                    found.iter().any(|other| Arc::ptr_eq(&other.inbox, &inbox))
                } else {
                    if seen.is_empty() {
                        seen.extend(found.iter().map(|h| Arc::as_ptr(&h.inbox)));
                    }
                    !seen.insert(Arc::as_ptr(&inbox))
                };
                if !known {
                    // What is asked of the kernel is answered by nobody in its place.
                    let role = match subscription.role {
                        Role::Receiver if topic.domain() == KERNEL_DOMAIN => Role::Observer,
                        role => role,
                    };
                    found.push(Hearer {
                        inbox,
                        lane: subscription.lane,
                        role,
                    });
                }
            });
        });
        found
    }

    /// Takes a place in the queue of everybody who hears the topic.
    ///
    /// # Errors
    /// [`NoPlace::Full`] names the first receiver whose queue is full and rejects; no place is kept then.
    pub fn reserve(&self, say: &Permit<Say>, saying: &Saying) -> Result<Slots, NoPlace> {
        // A receiver that ended between the look-up and now may have a successor already: look again, a few times.
        for _ in 0..LOOKUPS_MAX {
            let mut slots = Slots::default();
            let mut ended = false;
            for Hearer { inbox, lane, role } in self.hearers(&say.object().topic, saying) {
                match inbox.reserve(lane, saying.body.bytes.len()) {
                    Ok(slot) => slots.push(slot, role),
                    // Who only watches does not hold up anybody: it misses this.
                    Err(NoPlace::Full(_) | NoPlace::TooLarge(_) | NoPlace::OverQuota(_)) if role == Role::Observer => {
                        self.metrics.bus_refused.increment();
                    }
                    // One that has left has no successor, and is forgotten in a moment.
                    Err(NoPlace::Closed(_)) if role == Role::Observer => {}
                    Err(NoPlace::Closed(_)) => ended = true,
                    Err(full) => {
                        self.metrics.bus_refused.increment();
                        return Err(full);
                    }
                }
            }
            if !ended {
                return Ok(slots);
            }
        }
        Err(NoPlace::Closed(say.object().topic.as_str().into()))
    }

    /// Says it to the places that were reserved for it. An ask that no receiver takes any more is refused.
    pub fn send(
        &self,
        say: Permit<Say>,
        saying: Saying,
        kind: Kind,
        deadline: Option<Instant>,
        slots: Slots,
    ) -> MessageId {
        let message = self.compose(say, saying, kind, deadline);
        let id = message.id;
        self.deliver(message, slots);
        id
    }

    /// Makes a message of what is said. It has its identity from here on, and has been heard by nobody.
    pub fn compose(&self, say: Permit<Say>, saying: Saying, kind: Kind, deadline: Option<Instant>) -> Arc<Message> {
        Arc::new(Message {
            id: self.ids.message(),
            kind,
            topic: say.into_object().topic,
            principal: saying.principal,
            source: saying.source,
            body: saying.body,
            deadline,
            public: saying.public,
        })
    }

    /// Puts a message into the places that were reserved for it.
    pub fn deliver(&self, message: Arc<Message>, slots: Slots) {
        let kind = message.kind;
        self.metrics.bus_published.increment();
        let Slots { receivers, observers } = slots;
        let mut delivered = 0;
        if !observers.is_empty() {
            let watched = match kind {
                Kind::Ask(_) => Arc::new(Message {
                    kind: Kind::Event,
                    deadline: None,
                    ..Message::clone(&message)
                }),
                _ => Arc::clone(&message),
            };
            delivered += observers
                .into_iter()
                .map(|slot| u64::from(slot.fill(Arc::clone(&watched))))
                .sum::<u64>();
        }
        let heard = receivers
            .into_iter()
            .map(|slot| u64::from(slot.fill(Arc::clone(&message))))
            .sum::<u64>();
        self.metrics.bus_delivered.add(delivered + heard);
        if let (Kind::Ask(address), 0) = (kind, heard) {
            self.refuse_unheard(address, &message.topic);
        }
    }

    fn refuse_unheard(&self, address: ReplyTo, topic: &Topic) {
        let problem = Problem::new(codes::NO_SUBSCRIBER, format!("nobody answers {topic}"));
        self.asks.settle(address, Outcome::Refusal(problem), Source::Kernel);
    }

    /// Publishes at once. What the kernel itself says, and what is outside of any transaction.
    ///
    /// # Errors
    /// As [`Bus::reserve`].
    pub fn publish(&self, say: Permit<Say>, saying: Saying) -> Result<MessageId, NoPlace> {
        let slots = self.reserve(&say, &saying)?;
        Ok(self.send(say, saying, Kind::Event, None, slots))
    }

    /// Publishes at once to whoever has room; who has none misses it, counted.
    pub fn emit(&self, say: Permit<Say>, saying: Saying) -> MessageId {
        let slots = self.reserve_some(&say, &saying);
        self.send(say, saying, Kind::Event, None, slots)
    }

    /// Takes a place in the queue of everybody who hears the topic and has room; who has none misses it, counted.
    pub fn reserve_some(&self, say: &Permit<Say>, saying: &Saying) -> Slots {
        let mut slots = Slots::default();
        for Hearer { inbox, lane, role } in self.hearers(&say.object().topic, saying) {
            match inbox.reserve(lane, saying.body.bytes.len()) {
                Ok(slot) => slots.push(slot, role),
                Err(_) => self.metrics.bus_refused.increment(),
            }
        }
        slots
    }

    /// Asks at once, and waits for the answer.
    ///
    /// # Errors
    /// As [`Bus::reserve`]. Nobody there is a refusal, not an error.
    pub async fn request(&self, say: Permit<Say>, saying: Saying, timeout: Duration) -> Result<Outcome, NoPlace> {
        let slots = self.reserve(&say, &saying)?;
        let (tell, told) = oneshot::channel();
        let until = self.deadlines.now() + timeout;
        let address = self.asks.open(
            &say.object().topic,
            (&saying.principal, None),
            until,
            Waiter::InPlace(tell),
        );
        let open = OpenRequest {
            asks: &self.asks,
            address,
        };
        self.send(say, saying, Kind::Ask(address), Some(until), slots);
        let outcome = told.await.map_or(Outcome::Timeout, |(outcome, _)| outcome);
        drop(open);
        Ok(outcome)
    }

    /// A queue of the kernel's own that hears these patterns: for its request handler, tests and benchmarks.
    pub fn listen(
        self: &Arc<Self>,
        name: &str,
        patterns: Vec<Permit<Pattern>>,
        capacity: u32,
        overflow: Overflow,
    ) -> (Arc<Inbox>, Vec<Subscribed>) {
        let inbox = Inbox::new(
            name.into(),
            &[LanePolicy {
                capacity,
                overflow,
                retry: 0,
                durable: false,
                ordered: false,
            }],
        );
        let route: Arc<dyn Route> = Arc::new(Direct(Arc::clone(&inbox)));
        let subscribed = patterns
            .into_iter()
            .map(|p| self.subscribe(p, Arc::clone(&route), 0, Role::Kernel))
            .collect();
        (inbox, subscribed)
    }
}

/// Forgets a request whose waiter was dropped.
struct OpenRequest<'a> {
    asks: &'a Asks,
    address: ReplyTo,
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.asks.forget(self.address);
    }
}

/// A route to one queue that hears everybody.
struct Direct(Arc<Inbox>);

impl Route for Direct {
    fn inboxes(&self, _: &Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
        found(Arc::clone(&self.0));
    }
}
