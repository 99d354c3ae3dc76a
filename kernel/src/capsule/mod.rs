//! Capsules: from a bundle on disk to actors that handle messages.
//!
//! In the order in which one thing leads to the next:
//!
//! - [`discover`], [`bundle`]: what there is, and whether it may be looked at;
//! - [`graph`]: in which order it starts, and what cannot;
//! - [`engine`], [`aot`]: how it is compiled, and how compiled code is trusted;
//! - [`loaded`]: a manifest with its compiled component;
//! - [`actors`], [`actor`]: identities, and the life of one; [`health`] how one that fails comes back; [`report`] who is told;
//! - [`connection`]: what a connection-scope actor serves;
//! - [`guest`], [`host`], [`commands`]: one instance, what it can call, and what it asked for;
//! - [`guards`]: who is asked before others are heard;
//! - [`shard`], [`ticker`], [`census`]: whose turn it is, for how long, and who must give way;
//! - [`manager`]: all of it together.

pub mod actor;
pub mod actors;
pub mod aot;
mod behalf;
pub mod bundle;
mod call;
pub mod census;
mod comeback;
mod commands;
mod commit;
pub mod connection;
pub mod describe;
pub mod discover;
pub mod durable;
pub mod engine;
pub mod files;
pub mod graph;
pub mod guards;
pub mod guest;
pub mod health;
pub mod host;
pub mod loaded;
pub mod manager;
mod order;
mod quota;
mod report;
pub mod shard;
pub mod ticker;
mod working;
mod worth;

use std::sync::Arc;
use std::time::Instant;

use astrid_wire::topic::TopicError;
use astrid_wire::{Principal, Topic, control};
use tokio::sync::{Notify, watch};
use wasmtime::Engine;

use self::census::Census;
use self::durable::Durable;
use self::files::Files;
use self::guards::Guards;
use crate::audit::{Audit, TurnedAway};
use crate::authority::{Denied, Gate};
use crate::blob::Blobs;
use crate::bus::Bus;
use crate::deadlines::Deadlines;
use crate::home::Home;
use crate::keys::BootToken;
use crate::ledger::{Exceeded, Ledger};
use crate::metrics::Metrics;
use crate::port::child::Children;
use crate::port::stream::StreamTopics;
use crate::port::watch::{WatchTopics, Watches};
use crate::store::Store;

/// Topics on which the kernel speaks to and about actors, parsed once.
#[derive(Debug)]
pub struct Topics {
    /// An actor begins.
    pub started: Topic,
    /// An actor begins anew.
    pub restarted: Topic,
    /// An actor failed.
    pub health_failed: Topic,
    /// A timer fired.
    pub timer_fired: Topic,
    /// What watches say.
    pub watch: Arc<WatchTopics>,
    /// What streams say.
    pub stream: Arc<StreamTopics>,
}

impl Topics {
    /// Parses them.
    ///
    /// # Errors
    /// When a constant of ours is not a topic: a test holds that they are.
    pub fn new() -> Result<Self, TopicError> {
        Ok(Self {
            started: control::LIFECYCLE_STARTED.parse()?,
            restarted: control::LIFECYCLE_RESTARTED.parse()?,
            health_failed: control::HEALTH_FAILED.parse()?,
            timer_fired: control::TIMER_FIRED.parse()?,
            watch: Arc::new(WatchTopics {
                changed: astrid_wire::fs::CHANGED.parse()?,
                ended: astrid_wire::fs::ENDED.parse()?,
            }),
            stream: Arc::new(StreamTopics {
                opened: control::STREAM_OPENED.parse()?,
                data: control::STREAM_DATA.parse()?,
                closed: control::STREAM_CLOSED.parse()?,
            }),
        })
    }
}

/// Whether actors act. A message that is said while one who hears it is not there yet, or not any more, would be lost, so none is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acting {
    /// Not everybody who hears something is there: nobody handles anything.
    NotYet,
    /// They do.
    Yes,
    /// The daemon stops: what the store keeps stays there for the next one, and nothing new is published.
    NoMore,
}

/// The kernel as far as actors reach it. Made in `boot`, shared by all of them.
#[derive(Debug)]
pub struct Host {
    /// Runs compiled code.
    pub engine: Engine,
    /// Carries messages.
    pub bus: Arc<Bus>,
    /// Decides.
    pub gate: Gate,
    /// Are asked before others are heard.
    pub guards: Guards,
    /// Records.
    pub audit: Audit,
    /// Does things later.
    pub deadlines: Arc<Deadlines>,
    /// Counts what is used.
    pub ledger: Arc<Ledger>,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Knows who is live.
    pub census: Arc<Census>,
    /// Where files are.
    pub home: Home,
    /// What a client of the daemon's own user shows.
    pub token: BootToken,
    /// The daemon's own user.
    pub own_uid: u32,
    /// When the daemon started, on the monotonic clock.
    pub started: Instant,
    /// Topics of the kernel's own.
    pub topics: Topics,
    /// Told when something that status shows has changed.
    pub changed: Arc<Notify>,
    /// What survives.
    pub store: Arc<Store>,
    /// What of actors is kept there.
    pub durable: Durable,
    /// Bytes by their hash.
    pub blobs: Arc<Blobs>,
    /// Programs outside of the daemon.
    pub children: Arc<Children>,
    /// Files of principals.
    pub files: Arc<Files>,
    /// Watches files.
    pub watches: Arc<Watches>,
    /// How many connections are open.
    pub connections: watch::Sender<usize>,
    /// Whether actors act.
    pub acting: watch::Sender<Acting>,
}

impl Host {
    /// Returns when everybody who hears something is there.
    pub async fn begun(&self) {
        // It is there as long as this.
        drop(
            self.acting
                .subscribe()
                .wait_for(|acting| *acting != Acting::NotYet)
                .await,
        );
    }

    /// Whether the daemon stops.
    pub fn is_stopping(&self) -> bool {
        *self.acting.borrow() == Acting::NoMore
    }

    /// Counts and records that the gate refused somebody something.
    pub fn refused(&self, principal: &Principal, capsule: &str, denied: &Denied) {
        self.metrics.authority_denied.increment();
        self.audit
            .denied(principal.as_str(), capsule, &denied.rule(), &denied.to_string());
    }

    /// Records that a quota refused somebody something. `peer`: who that is on a socket.
    pub fn over_quota(&self, capsule: &str, exceeded: &Exceeded, peer: &str) {
        let limit = exceeded.what.as_str();
        self.audit.turned_away(&TurnedAway {
            principal: exceeded.principal.as_str(),
            capsule,
            action: "quota.exceeded",
            resource: limit,
            rule: limit,
            detail: format!("{exceeded} {peer}").trim_end(),
            ..TurnedAway::default()
        });
    }

    /// Has a change of the policy felt: everybody's limits, connections of whoever is disabled or unknown, what connections hear and may
    /// not, and programs of whoever is disabled or unknown.
    pub fn enforce(&self) {
        self.ledger.refresh();
        for actors in self.durable.directory.all() {
            actors.narrow_connections();
            actors.narrow_watches();
        }
        let authority = self.gate.authority();
        let ended = self
            .children
            .end_of(|principal| authority.standing(principal).check_active().is_err());
        if ended > 0 {
            tracing::warn!(
                children = ended,
                "programs were ended: their principal may not act any more"
            );
        }
        self.changed.notify_one();
    }

    /// [`Host::enforce`] after each change, for as long as the daemon lives.
    pub async fn keep_enforcing(self: Arc<Self>) {
        let mut changed = self.gate.authority().changed();
        while changed.changed().await.is_ok() {
            self.enforce();
        }
    }

    /// Milliseconds since the daemon started.
    pub fn uptime_ms(&self) -> u64 {
        let uptime = self.deadlines.now().saturating_duration_since(self.started);
        u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
    }
}
