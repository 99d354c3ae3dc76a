//! An actor: one identity of a capsule, which handles one message at a time.
//!
//! The whole life of an actor is one future, [`Actor::run`], polled by its shard. It waits for a message, makes an instance
//! if it has none, calls `handle`, and then either commits what that recorded or drops the instance. The instance is the
//! only thing that a guest can spoil, and the only thing that is thrown away.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;

use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};
use parking_lot::Mutex;
use wasmtime::Store;

use super::Host;
use super::actors::Actors;
use super::call::{classify, guest_message};
use super::connection::Connection;
use super::durable::{self, Owner};
use super::guest::Guest;
use super::health::{Fault, Health};
use super::host::bindings::Capsule as Exports;
use super::host::bindings::astrid::kernel::types;
use super::host::bus::wire_problem;
use super::loaded::Capsule;
use super::order::Order;
use super::quota::{self, Parked};
use super::report;
use super::shard::Strand;
use crate::authority::Standing;
use crate::bus::Route;
use crate::bus::asks::OpenAsks;
use crate::bus::inbox::{Delivery, Inbox, Next as Entry};
use crate::bus::message::Message;
use crate::ledger::{Account, Exceeded};
use crate::port::child::held::{self, Held};
use crate::port::timer::Timers;
use crate::port::watch;
use crate::store::engine::EngineError;
use crate::store::table::{self, Table};

/// Which actor of its capsule.
#[derive(Clone, Debug)]
pub enum ScopeKey {
    /// One of `instances`, by number.
    System(u32),
    /// That principal's.
    Principal(Principal),
    /// That connection's.
    Connection(Arc<Connection>),
}

/// What an actor is doing, for status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ActorState {
    /// Handles messages, or would.
    Up = 0,
    /// Waits for its next generation.
    Restarting = 1,
    /// Failed too often; refuses everything.
    Down = 2,
}

/// An actor.
pub struct Actor {
    capsule: Arc<Capsule>,
    host: Arc<Host>,
    siblings: Weak<Actors>,
    key: ScopeKey,
    inbox: Arc<Inbox>,
    timers: Arc<Timers>,
    children: Arc<Held>,
    watches: watch::Held,
    /// Messages whose principals are over quota.
    parked: Parked,
    open_asks: OpenAsks,
    strand: OnceLock<Weak<Strand>>,
    spent: Arc<AtomicU64>,
    /// Whose what is kept is; none of a connection's outlives it.
    owner: Option<Owner>,
    /// Its state.
    table: Option<Table>,
    pinned: AtomicBool,
    /// What the store keeps for it could not be read yet.
    unread: AtomicBool,
    /// It was read later, when messages were on their way already: some may be in the queue twice.
    copies: AtomicBool,
    /// Handlings whose outputs wait for their seal.
    in_outbox: AtomicU32,
    /// The last commit that its outputs wait for.
    last_commit: AtomicU64,
    generation: AtomicU32,
    state: AtomicU8,
    /// Milliseconds of the daemon's life when it last handled something.
    last_active: AtomicU64,
    busy: AtomicBool,
    /// On whose behalf it handles something, until all that comes of it is with the store.
    handling: Mutex<Option<Principal>>,
    /// With something that the store keeps.
    busy_with_kept: AtomicBool,
    evict: AtomicBool,
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actor")
            .field("capsule", &self.capsule.name)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

struct Instance {
    store: Store<Guest>,
    exports: Exports,
}

/// What an actor's future keeps between messages.
#[derive(Default)]
pub(super) struct Life {
    instance: Option<Instance>,
    health: Health,
    /// Faults since something was handled.
    faults_in_row: u32,
    /// How often the store had failed when the instance was made.
    pub(super) epoch: u64,
    /// On whose behalf it handled something last, and what that one may do.
    pub(super) standing: Option<Standing>,
    /// Senders that wait behind a message of theirs.
    pub(super) order: Order,
    /// Who paid for the last handling.
    pub(super) payer: Option<Arc<Account>>,
}

/// Faults at messages that the store keeps, with nothing handled in between, that are taken for the messages' fault. Each such message
/// is tried twice: beyond a handful of them it is the actor that does not work, and it backs off (K6).
const POISON_IN_ROW_MAX: u32 = 10;

/// How often a message is handled again because others changed what it read or may do, before that counts as a failure.
const CONFLICTS_MAX: u32 = 100;

/// What became of one handling.
pub(super) enum Handled {
    Committed,
    /// Others changed what it read or may do, or the store forgot what it is made of: it is done again, on a new instance.
    Conflicted,
    /// The store does not take what came of it.
    Unstored(Arc<str>),
    /// It gave up because a receiver had no place.
    Crowded,
    /// The guest gave up; its effects are forgotten. No health event.
    RolledBack(types::Rollback),
    /// Who waited for it stopped waiting.
    Abandoned,
    /// It gave up because its principal is over quota, and what the store keeps of it waits until that frees.
    OverQuota(Exceeded),
    Faulted(Fault, String),
}

impl Actor {
    /// An actor that nobody polls yet.
    pub fn new(capsule: Arc<Capsule>, host: Arc<Host>, siblings: Weak<Actors>, key: ScopeKey) -> Arc<Self> {
        let scope = match &key {
            ScopeKey::System(_) if capsule.manifest.runtime.instances.get() == 1 => Some(table::Scope::System),
            ScopeKey::System(n) => Some(table::Scope::Instance(*n)),
            ScopeKey::Principal(principal) => Some(table::Scope::Principal(principal.clone())),
            ScopeKey::Connection(_) => None,
        };
        let owner = scope.map(|scope| Owner {
            capsule: Arc::clone(&capsule.name),
            scope,
        });
        let table = owner.as_ref().map(|owner| match &owner.scope {
            // What several system actors write is one table.
            table::Scope::Instance(_) => Table::of(table::Kind::Kv, &capsule.name, &table::Scope::System),
            _ => owner.table(table::Kind::Kv),
        });
        let kept = owner
            .as_ref()
            .filter(|_| capsule.hears_durably())
            .map(|o| o.table(table::Kind::Inbox));
        let inbox = Inbox::with_table(Arc::clone(&capsule.name), capsule.lanes(), kept);
        let timers = Timers::new(
            Arc::clone(&inbox),
            Arc::clone(&host.deadlines),
            Arc::clone(host.bus.ids()),
            host.topics.timer_fired.clone(),
        );
        let children = Arc::default();
        let principal = match &key {
            ScopeKey::Principal(principal) => Some(principal.clone()),
            ScopeKey::System(_) => Some(Principal::capsule(&capsule.name)),
            ScopeKey::Connection(_) => None,
        };
        if let Some(principal) = principal {
            let owner = held::Owner {
                capsule: Arc::clone(&capsule.name),
                principal,
            };
            host.children.claim(&owner, &children, &inbox);
            let account = host.ledger.account(&owner.principal);
            children.charge_to(&account);
            if matches!(key, ScopeKey::Principal(_)) {
                inbox.charge_to(&account);
            }
        }
        let actor = Self {
            capsule,
            host,
            siblings,
            key,
            owner,
            table,
            pinned: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            copies: AtomicBool::new(false),
            in_outbox: AtomicU32::new(0),
            last_commit: AtomicU64::new(0),
            inbox,
            timers,
            children,
            watches: watch::Held::default(),
            parked: Parked::default(),
            open_asks: OpenAsks::default(),
            strand: OnceLock::new(),
            spent: Arc::default(),
            generation: AtomicU32::new(0),
            state: AtomicU8::new(ActorState::Up as u8),
            last_active: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            handling: Mutex::default(),
            busy_with_kept: AtomicBool::new(false),
            evict: AtomicBool::new(false),
        };
        // What cannot be read now is read before the first message is taken.
        let unread = actor.look_again().is_err();
        actor.unread.store(unread, Ordering::Relaxed);
        actor.copies.store(unread, Ordering::Relaxed);
        Arc::new(actor)
    }

    /// Takes from the store what waits for it, in place of what it had of that, and whether it is pinned. Fails when that cannot be read.
    pub fn look_again(&self) -> Result<(), EngineError> {
        let Some(owner) = &self.owner else { return Ok(()) };
        if self.capsule.manifest.capabilities.pin.is_some() {
            self.set_pinned(durable::is_pinned(&self.host.store, owner)?);
        }
        // Also of a capsule that keeps nothing now: what was kept for an earlier version of it is laid aside, and not forgotten.
        let rows = durable::recover::waiting_rows(&self.host.store, &owner.table(table::Kind::Inbox))?;
        self.inbox.restore(rows);
        Ok(())
    }

    /// The store had failed and is open again. What its next instance reads may be older than the ports that it holds, so it is told of those.
    pub fn hear_again(&self) {
        self.hear_about_itself(&self.host.topics.restarted);
    }

    /// Gives it to a shard.
    pub fn spawn(self: &Arc<Self>, shard: &Arc<super::shard::Shard>) {
        let payer = self.host.ledger.account(&self.own_principal());
        let strand = shard.spawn(&payer, Arc::clone(&self.spent), Arc::clone(self).run());
        // Set once, here; a second spawn would be a mistake of ours and is ignored.
        self.strand.set(Arc::downgrade(&strand)).ok();
    }

    /// What code it runs.
    pub fn capsule(&self) -> &Arc<Capsule> {
        &self.capsule
    }

    /// The name of that.
    pub fn capsule_name(&self) -> &Arc<str> {
        &self.capsule.name
    }

    /// The kernel, as far as guests reach it.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Which of its capsule's actors.
    pub fn key(&self) -> &ScopeKey {
        &self.key
    }

    /// Its queue.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Whose what is kept is; `None` for a connection's.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    /// Its state; `None` for a connection's.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Whether other actors write the same table.
    pub fn shares_table(&self) -> bool {
        matches!(self.key, ScopeKey::System(_)) && self.capsule.manifest.runtime.instances.get() > 1
    }

    /// Keeps it from being evicted, or not any more.
    pub fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// A handling of it has outputs that wait.
    pub fn entered_outbox(&self) {
        self.in_outbox.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it handles something now.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Whether it handles something on behalf of that principal, and something may come of it still.
    pub fn handles_for(&self, principal: &Principal) -> bool {
        self.handling.lock().as_ref() == Some(principal)
    }

    /// Nothing more comes of what it handled.
    pub(super) fn is_done_handling(&self) {
        *self.handling.lock() = None;
    }

    /// Ends it: it takes no more messages, and those that wait and that the store does not keep are refused.
    pub fn end(&self) {
        for delivery in self.inbox.close().into_iter().filter(|d| d.kept.is_none()) {
            let text = format!("{} ended before it answered", self.capsule.name);
            report::refuse(
                &self.host.bus,
                &delivery.message,
                Problem::new(codes::UNAVAILABLE, text),
            );
        }
    }

    /// How many messages that the store keeps wait for it, with the one that it handles.
    pub fn waiting(&self) -> u64 {
        self.inbox.len_durable() as u64 + u64::from(self.busy_with_kept.load(Ordering::Relaxed))
    }

    /// Whether outputs of it wait.
    pub fn is_in_outbox(&self) -> bool {
        self.in_outbox.load(Ordering::Relaxed) > 0
    }

    /// The last commit that its outputs wait for.
    pub(super) fn last_commit(&self) -> &AtomicU64 {
        &self.last_commit
    }

    /// They left, or will not.
    pub fn left_outbox(&self) {
        if self.in_outbox.fetch_sub(1, Ordering::Relaxed) == 1 && self.evict.load(Ordering::Relaxed) {
            self.inbox.nudge();
        }
    }

    /// Its timers.
    pub fn timers(&self) -> &Arc<Timers> {
        &self.timers
    }

    /// Its programs.
    pub fn children(&self) -> &Arc<Held> {
        &self.children
    }

    /// What it has watched.
    pub fn watches(&self) -> &watch::Held {
        &self.watches
    }

    /// Messages whose principals are over quota.
    pub(super) fn parked(&self) -> &Parked {
        &self.parked
    }

    /// Its questions.
    pub fn open_asks(&self) -> &OpenAsks {
        &self.open_asks
    }

    /// Where the fuel of its turns is counted for its shard.
    pub fn spent(&self) -> &AtomicU64 {
        &self.spent
    }

    /// How many instances it had.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// What it is doing.
    pub fn state(&self) -> ActorState {
        match self.state.load(Ordering::Relaxed) {
            0 => ActorState::Up,
            1 => ActorState::Restarting,
            _ => ActorState::Down,
        }
    }

    /// Its connection, when it serves one.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.key {
            ScopeKey::Connection(connection) => Some(connection),
            _ => None,
        }
    }

    /// How a connection's own subscriptions reach it: the route, and the lane.
    pub fn connection_route(self: &Arc<Self>) -> (Arc<dyn Route>, u16) {
        let lane = u16::try_from(self.capsule.lanes().len().saturating_sub(1)).unwrap_or(u16::MAX);
        (Arc::new(super::actors::ConnectionRoute::new(self)), lane)
    }

    /// Who it is when nobody speaks through it.
    pub fn own_principal(&self) -> Principal {
        match &self.key {
            ScopeKey::System(_) => Principal::capsule(&self.capsule.name),
            ScopeKey::Principal(principal) => principal.clone(),
            ScopeKey::Connection(connection) => connection.principal(),
        }
    }

    /// Somebody else pays from now on.
    pub fn charge_to(&self, payer: &Arc<Account>) {
        if let Some(strand) = self.strand.get().and_then(Weak::upgrade) {
            strand.charge_to(payer);
        }
    }

    /// Milliseconds of the daemon's life when it last did something; `None` while it does, or holds something of the world.
    pub fn idle_since(&self) -> Option<u64> {
        (!self.is_in_outbox() && self.holds_nothing()).then(|| self.last_active.load(Ordering::Relaxed))
    }

    /// Whether it has nothing to do, and nothing of the world in its hands.
    fn holds_nothing(&self) -> bool {
        let ports = !self.timers.is_empty() || !self.children.is_empty() || !self.watches.is_empty();
        let pinned = self.pinned.load(Ordering::Relaxed) || self.open_asks.count() > 0;
        let held = self.connection().is_some() || ports || pinned;
        let busy = self.busy.load(Ordering::Relaxed) || self.state() != ActorState::Up;
        !held && !busy && self.inbox.is_empty()
    }

    /// As [`Actor::idle_since`], of one that only its outputs hold: those leave by themselves.
    pub fn could_leave_since(&self) -> Option<u64> {
        let unread = self.unread.load(Ordering::Relaxed);
        (!unread && self.holds_nothing()).then(|| self.last_active.load(Ordering::Relaxed))
    }

    /// Asks it to end as soon as it is idle. What it is told before that is a reason to stay.
    pub fn evict(&self) {
        self.evict.store(true, Ordering::Relaxed);
        self.inbox.nudge();
    }

    /// What comes next, and how often the store had failed before that was taken.
    async fn next(&self) -> Option<(Entry, u64)> {
        std::future::poll_fn(|cx| {
            let epoch = self.host.store.epoch();
            // What the store keeps waits there for a store that takes what comes of it, for an actor that handles, and for the next daemon.
            let kept = self.state() == ActorState::Up && self.host.store.is_open() && !self.host.is_stopping();
            match self.inbox.poll_entry(cx, kept) {
                Poll::Pending
                    if self.evict.load(Ordering::Relaxed)
                        && self.idle_since().is_some()
                        && self.inbox.close_if_idle() =>
                {
                    Poll::Ready(None)
                }
                other => other.map(|next| next.map(|next| (next, epoch))),
            }
        })
        .await
    }

    /// Its life.
    async fn run(self: Arc<Self>) {
        let end = End(Arc::clone(&self));
        let mut life = Life::default();
        self.hear_about_itself(&self.host.topics.started);
        self.host.begun().await;
        loop {
            if let Some(connection) = self.connection() {
                connection.stream().drained().await;
            }
            if self.host.store.is_crowded() {
                self.host.store.room().await;
            }
            while self.unread.load(Ordering::Relaxed) && !self.inbox.is_closed() {
                match self.look_again() {
                    Ok(()) => self.unread.store(false, Ordering::Relaxed),
                    Err(error) => self.wait_to_read(&error).await,
                }
            }
            let Some((next, epoch)) = self.next().await else { break };
            if self.evict.swap(false, Ordering::Relaxed) {
                self.host.census.stays(&self);
            }
            if life.epoch != epoch {
                // Its memory may hold what never happened.
                life = Life {
                    epoch,
                    health: life.health,
                    ..Life::default()
                };
            }
            let delivery = match next {
                Entry::Message(delivery) => delivery,
                Entry::Row(row) => match self.read_row(row, epoch).await {
                    Some(delivery) => delivery,
                    None => continue,
                },
            };
            self.busy.store(true, Ordering::Relaxed);
            self.busy_with_kept.store(delivery.kept.is_some(), Ordering::Relaxed);
            *self.handling.lock() = Some(self.acts_as(&delivery.message));
            let goes_on = if self.state() == ActorState::Down {
                self.turn_away(&delivery.message);
                true
            } else if let Some(refusal) = self.look_up(&mut life, &delivery.message) {
                self.refuse_to_act(&mut life, delivery, &refusal);
                true
            } else if self.is_stale(&delivery)
                || self.is_too_large(&delivery.message)
                || self.is_gone(&delivery, epoch).await
            {
                true
            } else if let Some(row) = life.order.holds_back(&self.capsule, &delivery) {
                self.inbox.park(row);
                true
            } else {
                match self.admit(&mut life, delivery).await {
                    Some(delivery) => self.take(&mut life, delivery).await,
                    None => true,
                }
            };
            self.last_active.store(self.host.uptime_ms(), Ordering::Relaxed);
            self.busy.store(false, Ordering::Relaxed);
            self.busy_with_kept.store(false, Ordering::Relaxed);
            self.is_done_handling();
            if !goes_on {
                break;
            }
        }
        drop(life);
        drop(end);
    }

    /// Whether a message may be in its queue twice.
    pub(super) fn has_copies(&self) -> bool {
        self.copies.load(Ordering::Relaxed)
    }

    /// Handles one message, and lives with what comes of it. False when the actor ends.
    async fn take(self: &Arc<Self>, life: &mut Life, mut delivery: Delivery) -> bool {
        let mut conflicts = 0;
        let handled = loop {
            let handled = self.handle(life, &delivery).await;
            if let Handled::Committed = handled {
                life.faults_in_row = 0;
                self.in_order_again(life, &delivery);
                return true;
            }
            // Whatever happened, this instance's memory is not to be trusted.
            life.instance = None;
            if !matches!(handled, Handled::Conflicted) || self.connection().is_some() {
                break handled;
            }
            // Whoever may not act any more is not acted for again.
            if let Some(refusal) = self.look_up(life, &delivery.message) {
                self.refuse_to_act(life, delivery, &refusal);
                return true;
            }
            conflicts += 1;
            if conflicts > CONFLICTS_MAX {
                let reason = "what it read or may do was changed by others, again and again".to_owned();
                break Handled::RolledBack(types::Rollback::Retry(reason));
            }
        };
        if self.connection().is_some() {
            self.lose_connection(&handled, &delivery.message);
            return false;
        }
        if delivery.kept.is_some() && self.host.is_stopping() {
            // It may have failed for that. The next daemon handles it as if nothing had been.
            return true;
        }
        match handled {
            Handled::Committed | Handled::Conflicted | Handled::Abandoned => {}
            Handled::Unstored(why) => {
                if delivery.kept.is_some() && self.host.store.is_open() {
                    self.wait_to_read(&why).await;
                }
                self.put_off(delivery, &why);
            }
            Handled::Crowded => self.wait_for_place(life, delivery),
            Handled::OverQuota(exceeded) => self.put_aside(life, delivery, &exceeded),
            Handled::RolledBack(types::Rollback::Refuse(problem)) if delivery.kept.is_none() => {
                report::refuse(&self.host.bus, &delivery.message, wire_problem(problem));
            }
            Handled::RolledBack(types::Rollback::Refuse(problem)) => {
                let problem = wire_problem(problem);
                self.give_up(life, delivery, problem.code(), problem.message());
            }
            Handled::RolledBack(types::Rollback::Retry(reason)) => {
                if delivery.attempt <= self.retries(&delivery) {
                    self.try_again(life, delivery);
                } else {
                    self.give_up(life, delivery, codes::CAPSULE_FAILED, &reason);
                }
            }
            Handled::Faulted(fault, reason) => {
                delivery.faults += 1;
                life.faults_in_row += 1;
                let first = delivery.faults < 2;
                // A message that is kept is laid aside if it is to blame; only where one after the other fails, the actor is.
                let counts = first && (delivery.kept.is_none() || life.faults_in_row > POISON_IN_ROW_MAX);
                let again = first && delivery.attempt <= self.retries(&delivery);
                self.capsule.usage.faults.fetch_add(1, Ordering::Relaxed);
                let payer = self.payer(life, &delivery.message);
                payer.usage.faults.fetch_add(1, Ordering::Relaxed);
                let next = counts.then(|| life.health.fault(self.host.deadlines.now()));
                self.falls(next);
                report::fault(&self.host, self, &delivery.message, fault, &reason, next);
                if again {
                    self.try_again(life, delivery);
                } else {
                    self.give_up(life, delivery, report::problem_code(fault), &reason);
                }
                self.come_back(next).await;
            }
        }
        true
    }

    pub(super) fn set_state(&self, state: ActorState) {
        self.state.store(state as u8, Ordering::Relaxed);
        self.host.changed.notify_one();
    }

    /// A connection does not come back: its trap, or its roll-back, costs one connection and counts against the peer.
    fn lose_connection(&self, handled: &Handled, message: &Message) {
        let Some(connection) = self.connection() else { return };
        match handled {
            Handled::Faulted(fault, reason) => {
                self.capsule.usage.faults.fetch_add(1, Ordering::Relaxed);
                report::fault(&self.host, self, message, *fault, reason, None);
                connection.count_fault();
            }
            Handled::RolledBack(why) => {
                tracing::warn!(capsule = %self.capsule.name, ?why, "a connection is closed: its handler gave up");
            }
            Handled::Unstored(why) => {
                tracing::warn!(capsule = %self.capsule.name, %why, "a connection is closed: what it did cannot be stored");
            }
            Handled::OverQuota(exceeded) => {
                tracing::warn!(capsule = %self.capsule_name(), %exceeded, "a connection is closed");
            }
            Handled::Committed | Handled::Conflicted | Handled::Crowded | Handled::Abandoned => {}
        }
        connection.end();
    }

    /// Tells the actor about its own life, ahead of what waits, if it wants to hear that.
    pub(super) fn hear_about_itself(&self, topic: &astrid_wire::Topic) {
        if self.capsule.wants_lifecycle(topic.as_str()) {
            // An inbox that is closed has nobody to tell.
            self.inbox.push_first(report::lifecycle(&self.host, self, topic));
        }
    }

    async fn instance<'a>(self: &Arc<Self>, slot: &'a mut Option<Instance>) -> wasmtime::Result<&'a mut Instance> {
        let fresh = match slot.take() {
            Some(instance) => instance,
            None => {
                self.host.census.enter(self).await;
                let made = self.capsule.instantiate(&self.host.engine, Arc::clone(self)).await;
                let (store, exports) = made?;
                self.generation.fetch_add(1, Ordering::Relaxed);
                self.capsule.usage.generations.fetch_add(1, Ordering::Relaxed);
                Instance { store, exports }
            }
        };
        Ok(slot.insert(fresh))
    }

    async fn handle(self: &Arc<Self>, life: &mut Life, delivery: &Delivery) -> Handled {
        let epoch = life.epoch;
        let payer = self.payer(life, &delivery.message);
        let standing = self.standing_for(life, &delivery.message);
        let Instance { store, exports } = match self.instance(&mut life.instance).await {
            Ok(instance) => instance,
            Err(error) => {
                return match error.downcast_ref::<Exceeded>() {
                    Some(exceeded) => quota::handled(exceeded.clone(), delivery.kept.is_some()),
                    None => Handled::Faulted(Fault::Start, format!("{error:#}")),
                };
            }
        };
        let message = &delivery.message;
        // A connection acts as its own principal, and hears what others say.
        let principal = match self.connection() {
            Some(_) => message.principal.clone(),
            None => standing.principal().clone(),
        };
        store
            .data_mut()
            .begin(message, &standing, &payer, delivery.kept.is_some());
        let prepared = store.set_fuel(self.capsule.fuel);
        store.set_epoch_deadline(1);
        let now = self.host.deadlines.now();
        let result = match prepared {
            Ok(()) => {
                exports
                    .call_handle(&mut *store, guest_message(delivery, &principal, now))
                    .await
            }
            Err(error) => Err(error),
        };
        // A store that has fuel configured always tells it.
        let left = store.get_fuel().unwrap_or(0);
        let guest = store.data_mut();
        let fuel = self.capsule.fuel.saturating_sub(left);
        guest.charge(fuel);
        let memory = guest.limits.used();
        guest.close_files();
        let handled = match result {
            Ok(Ok(())) => {
                let recorded = guest.recorded();
                let handled = self.commit(guest, delivery, epoch);
                if matches!(handled, Handled::Committed) {
                    guest.tell_allowed(&recorded);
                }
                handled
            }
            Ok(Err(rollback)) => match (guest.working.unreadable(), guest.exceeded.take()) {
                (Some(error), _) => Handled::Unstored(error.to_string().into()),
                (None, Some(exceeded)) => quota::handled(exceeded, delivery.kept.is_some()),
                (None, None)
                    if guest.found_full && delivery.kept.is_some() && matches!(rollback, types::Rollback::Retry(_)) =>
                {
                    Handled::Crowded
                }
                (None, None) => Handled::RolledBack(rollback),
            },
            Err(error) => match error.downcast_ref::<Exceeded>() {
                Some(exceeded) => quota::handled(exceeded.clone(), delivery.kept.is_some()),
                None => classify(&error, guest.limits.refused),
            },
        };
        let committed = matches!(handled, Handled::Committed);
        guest.account(fuel, memory, committed);
        guest.tell_allowed(&guest.at_once);
        self.capsule.usage.add(fuel, memory, committed);
        self.host.metrics.capsule_fuel.add(fuel);
        match handled {
            Handled::Committed => self.host.metrics.capsule_handled.increment(),
            Handled::RolledBack(_) => self.host.metrics.capsule_rolled_back.increment(),
            _ => {}
        }
        if !committed {
            guest.commands.discard();
        }
        handled
    }
}

/// Runs when an actor's future ends, however that happens: nothing waits for an actor that is gone.
struct End(Arc<Actor>);

impl Drop for End {
    fn drop(&mut self) {
        let actor = &self.0;
        // What the store keeps waits there.
        actor.end();
        actor.is_done_handling();
        if let Some(connection) = actor.connection() {
            connection.end();
            connection.record_end(&actor.capsule.name, &actor.host);
        }
        actor.host.children.abandon(&actor.children);
        actor.host.census.left(actor);
        if let Some(table) = actor.siblings.upgrade() {
            table.ended(actor);
        }
    }
}
