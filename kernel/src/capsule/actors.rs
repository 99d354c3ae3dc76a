//! All actors of one capsule: found by key, made when first needed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use astrid_wire::Principal;
use astrid_wire::authority::Action;
use astrid_wire::control::ConnectionReport;
use astrid_wire::manifest::Scope;
use dashmap::DashMap;
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::Host;
use super::actor::{Actor, ActorState, ScopeKey};
use super::connection::Connection;
use super::loaded::Capsule;
use super::shard::Shard;
use crate::authority::Subject;
use crate::bus::inbox::Inbox;
use crate::bus::message::{Body, PortId, Source};
use crate::bus::{Heard, Role, Route, Subscribed};
use crate::home::Socket;
use crate::port;
use crate::port::listener::{Accept, Peer, Seat, TurnedAway};
use crate::port::stream::{Stream, StreamTopics};
use crate::port::watch::Watched;
use crate::store::table;

/// The actors of a capsule.
pub struct Actors {
    capsule: Arc<Capsule>,
    host: Arc<Host>,
    shards: Arc<[Arc<Shard>]>,
    me: Weak<Self>,
    system: Vec<Arc<Actor>>,
    principals: DashMap<Principal, Arc<Actor>, ahash::RandomState>,
    connections: DashMap<PortId, Arc<Actor>, ahash::RandomState>,
    /// What moves the bytes of this capsule's streams; it ends with them.
    streams: parking_lot::Mutex<JoinSet<()>>,
    /// What its actors hear, while it is loaded.
    subscribed: parking_lot::Mutex<Vec<Subscribed>>,
    next_shard: AtomicUsize,
}

impl std::fmt::Debug for Actors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Actors")
            .field("capsule", &self.capsule.name)
            .finish_non_exhaustive()
    }
}

impl Actors {
    /// Makes the system actors and subscribes: from now on the capsule hears.
    pub fn start(capsule: Arc<Capsule>, host: Arc<Host>, shards: Arc<[Arc<Shard>]>) -> Arc<Self> {
        let runtime = &capsule.manifest.runtime;
        let instances = if runtime.scope == Scope::System {
            runtime.instances.get()
        } else {
            0
        };
        let actors = Arc::new_cyclic(|me: &Weak<Self>| {
            let system = (0..instances)
                .map(|n| Actor::new(Arc::clone(&capsule), Arc::clone(&host), me.clone(), ScopeKey::System(n)))
                .collect();
            Self {
                capsule,
                host,
                shards,
                me: me.clone(),
                system,
                principals: DashMap::default(),
                connections: DashMap::default(),
                streams: parking_lot::Mutex::default(),
                subscribed: parking_lot::Mutex::default(),
                next_shard: AtomicUsize::new(0),
            }
        });
        for actor in &actors.system {
            actor.spawn(actors.shard());
        }
        let route: Arc<dyn Route> = Arc::new(TableRoute(Arc::downgrade(&actors)));
        let subscribed = actors.capsule.patterns().iter().zip(0..).map(|(pattern, lane)| {
            actors.host.bus.subscribe(
                actors.host.gate.declared(pattern.clone()),
                Arc::clone(&route),
                lane,
                Role::Receiver,
            )
        });
        *actors.subscribed.lock() = subscribed.collect();
        actors.host.durable.directory.add(&actors);
        actors
    }

    /// Whose they are.
    pub fn capsule(&self) -> &Arc<Capsule> {
        &self.capsule
    }

    /// Ends them all: nothing more is heard, what waits is refused.
    pub fn stop(&self) {
        self.host.durable.directory.remove(self);
        self.subscribed.lock().clear();
        for actor in self.all() {
            if let Some(connection) = actor.connection() {
                // As if the peer had said its last word: the handler answers what it still owes, and closes.
                let (ids, topic) = (self.host.bus.ids(), &self.host.topics.stream.closed);
                let body = Body::text("the daemon stops");
                let stream = connection.stream().id();
                port::tell(actor.inbox(), ids, stream, topic, connection.principal(), body, None);
            } else {
                // What waited is refused by the actor's end.
                drop(actor.inbox().close());
            }
        }
    }

    /// Waits until every stream of this capsule has ended.
    pub async fn streams_ended(&self) {
        let mut streams = std::mem::take(&mut *self.streams.lock());
        while streams.join_next().await.is_some() {}
    }

    /// Ends a principal's actor, if it is there. What it handles now goes on to its end.
    pub fn end_of(&self, principal: &Principal) -> Option<Arc<Actor>> {
        let actor = self.principals.get(principal).map(|actor| Arc::clone(&actor))?;
        actor.end();
        Some(actor)
    }

    /// All that are there.
    pub fn all(&self) -> Vec<Arc<Actor>> {
        let mut all = self.system.clone();
        all.extend(self.principals.iter().map(|a| Arc::clone(&a)));
        all.extend(self.connections.iter().map(|a| Arc::clone(&a)));
        all
    }

    /// After a change of what principals may do: connections whose principal may not be here any more are closed, and others hear only what
    /// they still may.
    pub fn narrow_connections(&self) {
        let connections: Vec<_> = self.connections.iter().map(|a| Arc::clone(&a)).collect();
        for actor in connections {
            if let Some(connection) = actor.connection()
                && !connection.narrow(&self.host.gate)
            {
                tracing::warn!(principal = %connection.principal(), "a connection is closed: its principal may not act any more");
                connection.end();
            }
        }
    }

    /// Ends watches of files that may not be read any more.
    pub fn narrow_watches(&self) {
        for actor in self.all() {
            if actor.watches().is_empty() {
                continue;
            }
            let gate = &self.host.gate;
            let may = |watched: &Watched| {
                let standing = gate.authority().standing(&watched.of);
                let subject = Subject {
                    acl: &self.capsule.acl,
                    standing: &standing,
                    socket: None,
                };
                gate.may_touch(subject, Action::FsRead, &watched.scope()).is_ok()
            };
            actor.watches().narrow(may);
        }
    }

    /// How many there are, and how many of those restart or are down.
    pub fn count(&self) -> (u64, u64, u64) {
        let all = self.all();
        let count = |state| all.iter().filter(|a| a.state() == state).count() as u64;
        (all.len() as u64, count(ActorState::Restarting), count(ActorState::Down))
    }

    /// What operators see of its connections.
    pub fn connections(&self) -> Vec<ConnectionReport> {
        let connections = self.connections.iter();
        let reports = connections.filter_map(|actor| Some(actor.connection()?.report(&self.capsule.name, &self.host)));
        reports.collect()
    }

    /// An actor's future has ended.
    pub(super) fn ended(&self, actor: &Arc<Actor>) {
        match actor.key() {
            ScopeKey::System(_) => {}
            ScopeKey::Principal(principal) => {
                self.principals
                    .remove_if(principal, |_, present| Arc::ptr_eq(present, actor));
            }
            ScopeKey::Connection(connection) => {
                self.connections.remove(&connection.stream().id());
            }
        }
        self.host.changed.notify_one();
    }

    /// Actors are dealt to shards in turn.
    fn shard(&self) -> &Arc<Shard> {
        &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()]
    }

    /// Makes a principal's actor, which then hears that it begins.
    pub fn wake(&self, principal: &Principal) {
        if self.capsule.manifest.runtime.scope == Scope::Principal {
            self.of_principal(principal);
        }
    }

    /// Which of them, made if it is a principal's and not there.
    pub fn of_scope(&self, scope: &table::Scope) -> Option<Arc<Actor>> {
        match scope {
            table::Scope::System if self.system.len() == 1 => self.system.first().cloned(),
            table::Scope::Instance(n) if self.system.len() > 1 => self.system.get(usize::try_from(*n).ok()?).cloned(),
            table::Scope::Principal(principal) if self.capsule.manifest.runtime.scope == Scope::Principal => {
                Some(self.of_principal(principal))
            }
            _ => None,
        }
    }

    /// Which of them, if it is there.
    pub fn present_of(&self, scope: &table::Scope) -> Option<Arc<Actor>> {
        match scope {
            table::Scope::Principal(principal) => {
                let actor = self.principals.get(principal)?;
                (!actor.inbox().is_closed()).then(|| Arc::clone(&actor))
            }
            table::Scope::System | table::Scope::Instance(_) => self.of_scope(scope),
        }
    }

    /// Who takes over what is kept for an actor that this capsule does not have any more.
    pub fn heir(&self, scope: &table::Scope) -> Option<&Arc<Actor>> {
        match scope {
            table::Scope::System | table::Scope::Instance(_) => self.system.first(),
            table::Scope::Principal(_) => None,
        }
    }

    /// Those that are there and have something kept, in the order of their keys.
    pub fn present(&self) -> Vec<Arc<Actor>> {
        let mut kept: Vec<_> = self
            .principals
            .iter()
            .map(|a| (a.key().clone(), Arc::clone(&a)))
            .collect();
        kept.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.system
            .iter()
            .cloned()
            .chain(kept.into_iter().map(|(_, a)| a))
            .collect()
    }

    fn of_principal(&self, principal: &Principal) -> Arc<Actor> {
        if let Some(actor) = self.principals.get(principal)
            && !actor.inbox().is_closed()
        {
            return Arc::clone(&actor);
        }
        // One that has ended and is about to leave the table is not waited for.
        self.principals
            .remove_if(principal, |_, present| present.inbox().is_closed());
        let entry = self.principals.entry(principal.clone()).or_insert_with(|| {
            let key = ScopeKey::Principal(principal.clone());
            let actor = Actor::new(Arc::clone(&self.capsule), Arc::clone(&self.host), self.me.clone(), key);
            actor.spawn(self.shard());
            actor
        });
        Arc::clone(&entry)
    }

    /// One sender's messages go to one instance, so that they stay in order.
    fn of_sender(&self, heard: &Heard<'_>) -> Option<&Arc<Actor>> {
        match self.system.len() {
            0 | 1 => self.system.first(),
            instances => self.system.get(instance_of(heard, instances)),
        }
    }
}

/// Which of several instances one sender's messages go to: the same after a restart.
pub(super) fn instance_of(heard: &Heard<'_>, instances: usize) -> usize {
    let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
    let sender = match heard.source {
        Source::Capsule(name) => hasher.hash_one((heard.principal, name)),
        Source::Kernel | Source::Port(_) => hasher.hash_one(heard.principal),
    };
    usize::try_from(sender).unwrap_or(0) % instances.max(1)
}

/// A capsule hears through its table.
struct TableRoute(Weak<Actors>);

impl Route for TableRoute {
    fn inboxes(&self, heard: &Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
        let Some(actors) = self.0.upgrade() else { return };
        match actors.capsule.manifest.runtime.scope {
            Scope::System => actors
                .of_sender(heard)
                .into_iter()
                .for_each(|a| found(Arc::clone(a.inbox()))),
            // What everybody may hear goes to those that are there; it is no reason to wake the others.
            Scope::Principal if heard.public => {
                for actor in &actors.principals {
                    found(Arc::clone(actor.inbox()));
                }
            }
            Scope::Principal => found(Arc::clone(actors.of_principal(heard.principal).inbox())),
            Scope::Connection => {}
        }
    }
}

/// A connection hears what it subscribed to, if it may hear who says it.
pub(super) struct ConnectionRoute(Weak<Actor>);

impl ConnectionRoute {
    pub(super) fn new(actor: &Arc<Actor>) -> Self {
        Self(Arc::downgrade(actor))
    }
}

impl Route for ConnectionRoute {
    fn inboxes(&self, heard: &Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
        if let Some(actor) = self.0.upgrade()
            && actor.connection().is_some_and(|c| c.hears(heard, &actor.host().gate))
        {
            found(Arc::clone(actor.inbox()));
        }
    }
}

/// Accepted streams become actors of this capsule.
pub(super) struct AcceptInto {
    actors: Weak<Actors>,
    topics: Arc<StreamTopics>,
}

impl AcceptInto {
    pub(super) fn new(actors: &Arc<Actors>, topics: Arc<StreamTopics>) -> Self {
        Self {
            actors: Arc::downgrade(actors),
            topics,
        }
    }
}

impl Accept for AcceptInto {
    fn turned_away(&self, kind: Socket, reason: &TurnedAway) {
        let Some(actors) = self.actors.upgrade() else { return };
        let rule = format!("{}: {reason}", kind.as_str());
        actors
            .host
            .audit
            .count("", &actors.capsule.acl.capsule, "connection.refused", &rule);
    }

    fn accept(&self, socket: UnixStream, peer: Peer, kind: Socket, seat: Seat) {
        let Some(actors) = self.actors.upgrade() else { return };
        // A program that this daemon runs is never taken for who runs it.
        let child = actors.host.children.includes(peer.pid);
        if child && kind == Socket::Operator {
            actors.host.metrics.connections_refused.increment();
            actors
                .host
                .audit
                .count("", &actors.capsule.acl.capsule, "connection.refused", "a child");
            if let Some(peers) = seat.turn_away() {
                tracing::warn!(peers, peer.pid, "a child is turned away from the operator socket");
            }
            return;
        }
        let ids = Arc::clone(actors.host.bus.ids());
        let stream = Stream::new(ids.port(), socket);
        seat.serves(&stream);
        let connection = Connection::new(Arc::clone(&stream), (peer, child), kind, seat, &actors.host.deadlines);
        let id = stream.id();
        let key = ScopeKey::Connection(connection);
        let actor = Actor::new(
            Arc::clone(&actors.capsule),
            Arc::clone(&actors.host),
            actors.me.clone(),
            key,
        );
        actors.connections.insert(id, Arc::clone(&actor));
        // The listener, its streams and their actors share a thread: bytes do not cross one on their way to a guest.
        actor.spawn(&actors.shards[0]);
        let (inbox, topics) = (Arc::clone(actor.inbox()), Arc::clone(&self.topics));
        let mut streams = actors.streams.lock();
        streams.spawn(async move {
            let reason = stream.drive(inbox, ids, topics).await;
            tracing::debug!(stream = id, reason, "a connection ended");
        });
        // Forget those that ended.
        while streams.try_join_next().is_some() {}
    }
}
