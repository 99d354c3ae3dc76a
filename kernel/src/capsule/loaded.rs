//! A capsule that is ready to have actors: its manifest, its compiled component, and what follows from both.

use std::sync::Arc;

use astrid_wire::describe::Description;
use astrid_wire::manifest::{Manifest, Overflow, Scope};
use astrid_wire::{Pattern, control};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use super::actor::Actor;
use super::bundle::{Bundle, Origin};
use super::guards::{self, Watch};
use super::guest::{Guest, at_tick};
use super::host::bindings::{Capsule as Exports, CapsulePre, GuardingPre};
use crate::authority::Acl;
use crate::bus::inbox::LanePolicy;
use crate::ledger::Usage;

/// Messages of a connection's own subscriptions waiting at most (A8).
const CONNECTION_QUEUE: u32 = 256;

/// Why a capsule that is well-formed cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The component does not fit the kernel's interfaces.
    #[error("the component does not fit astrid:kernel@0.1.0: {0:#}")]
    Interface(wasmtime::Error),
    /// A connection hears what it subscribes to itself.
    #[error(
        "[subscribe] of a connection-scope capsule may only name lifecycle topics, not {0}: a connection subscribes while it runs"
    )]
    ConnectionSubscribes(Pattern),
}

/// A loaded capsule.
pub struct Capsule {
    /// Its name, shared by everything that names it.
    pub name: Arc<str>,
    /// What it declares.
    pub manifest: Manifest,
    /// What it says about its topics.
    pub description: Description,
    /// Where it came from.
    pub origin: Origin,
    /// What it may do.
    pub acl: Acl,
    /// What its actors used, together.
    pub usage: Usage,
    /// Fuel of one handling.
    pub fuel: u64,
    lanes: Vec<LanePolicy>,
    patterns: Vec<Pattern>,
    lifecycle: Vec<Pattern>,
    ready: CapsulePre<Guest>,
    guard: Option<GuardingPre<Watch>>,
}

impl std::fmt::Debug for Capsule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capsule")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Capsule {
    /// Puts a compiled component behind its manifest. `imports` are the topics of the interfaces that it imports.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn new(
        bundle: Bundle,
        component: &Component,
        linker: &Linker<Guest>,
        imports: Vec<Pattern>,
    ) -> Result<Arc<Self>, LoadError> {
        let ready = linker
            .instantiate_pre(component)
            .and_then(CapsulePre::new)
            .map_err(LoadError::Interface)?;
        let manifest = bundle.manifest;
        let guard = match manifest.capabilities.guard {
            Some(_) => Some(guards::link(component).map_err(LoadError::Interface)?),
            None => None,
        };
        let acl = Acl::new(&manifest, imports);
        let private = |p: &Pattern| p.as_str().starts_with("lifecycle.");
        let (lifecycle, heard): (Vec<_>, Vec<_>) = manifest.subscribe.iter().partition(|(p, _)| private(p));
        let connection = manifest.runtime.scope == Scope::Connection;
        if let (true, Some((pattern, _))) = (connection, heard.first()) {
            return Err(LoadError::ConnectionSubscribes((*pattern).clone()));
        }
        let mut lanes: Vec<LanePolicy> = heard
            .iter()
            .map(|(_, o)| LanePolicy {
                capacity: o.queue,
                overflow: o.overflow,
                retry: o.retry,
                durable: o.durable,
                ordered: o.ordered,
            })
            .collect();
        if connection {
            lanes.push(LanePolicy {
                capacity: CONNECTION_QUEUE,
                overflow: Overflow::DropOldest,
                retry: 0,
                durable: false,
                ordered: false,
            });
        }
        Ok(Arc::new(Self {
            name: manifest.package.name.as_str().into(),
            acl,
            usage: Usage::default(),
            fuel: manifest.runtime.fuel,
            lanes,
            patterns: heard.into_iter().map(|(p, _)| p.clone()).collect(),
            lifecycle: lifecycle.into_iter().map(|(p, _)| p.clone()).collect(),
            description: bundle.description,
            origin: bundle.origin,
            manifest,
            ready,
            guard,
        }))
    }

    /// What is asked before others say something on its guarded topics.
    pub fn guard(&self) -> Option<&GuardingPre<Watch>> {
        self.guard.as_ref()
    }

    /// The queue limits of its actors, a lane for each of [`Capsule::patterns`]; one more for a connection's own subscriptions.
    pub fn lanes(&self) -> &[LanePolicy] {
        &self.lanes
    }

    /// What its actors hear, in the order of the lanes.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// The durable lane that hears a topic.
    pub fn durable_lane(&self, topic: &astrid_wire::Topic) -> Option<u16> {
        let durable = |(lane, pattern): &(usize, &Pattern)| self.lanes[*lane].durable && pattern.matches(topic);
        let (lane, _) = self.patterns.iter().enumerate().find(durable)?;
        u16::try_from(lane).ok()
    }

    /// Whether what is heard by that lane is kept in the store.
    pub fn is_durable(&self, lane: Option<usize>) -> bool {
        lane.and_then(|lane| self.lanes.get(lane))
            .is_some_and(|policy| policy.durable)
    }

    /// Whether what one sender says to that lane stays in order over retries.
    pub fn is_ordered(&self, lane: Option<usize>) -> bool {
        lane.and_then(|lane| self.lanes.get(lane))
            .is_some_and(|policy| policy.ordered)
    }

    /// Whether it has durable lanes.
    pub fn hears_durably(&self) -> bool {
        self.lanes.iter().any(|policy| policy.durable)
    }

    /// How often a message of that lane is tried again; what needs no place is not.
    pub fn retry(&self, lane: Option<usize>) -> u32 {
        lane.and_then(|lane| self.lanes.get(lane))
            .map_or(0, |policy| policy.retry)
    }

    /// Whether its actors want to hear this about themselves.
    pub fn wants_lifecycle(&self, topic: &str) -> bool {
        self.lifecycle.iter().any(|p| p.matches_str(topic))
    }

    /// How long an actor is idle before it is evicted; `None`: never.
    pub fn idle(&self) -> Option<std::time::Duration> {
        self.manifest.runtime.idle_time()
    }

    /// Whether it is told of the daemon's end and finishes something first.
    pub fn drains(&self) -> bool {
        self.manifest.runtime.drain && self.patterns.iter().any(|p| p.matches_str(control::SHUTDOWN))
    }

    /// A new instance for an actor.
    ///
    /// # Errors
    /// Wasmtime's: a trap in its start code, or more memory than it may have.
    pub async fn instantiate(&self, engine: &Engine, actor: Arc<Actor>) -> wasmtime::Result<(Store<Guest>, Exports)> {
        let mut store = Store::new(engine, Guest::new(actor));
        store.limiter(|guest| &mut guest.limits);
        store.set_fuel(self.fuel)?;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(at_tick);
        let exports = self.ready.instantiate_async(&mut store).await?;
        Ok((store, exports))
    }
}
