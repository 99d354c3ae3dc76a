//! Which capsules there are, in which state, and how they start and stop.
//!
//! Start: uplinks first, then level by level, each level in parallel (K3). A capsule that cannot be loaded keeps its row, with the
//! reason; what needs it is kept out with it, and the rest starts. Stop: in the reverse order (K4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use astrid_wire::control::{CapsuleReport, CapsuleState};
use astrid_wire::describe::{Description, Direction, TopicDescription};
use astrid_wire::manifest::{Capabilities, Listener as SocketName, Manifest};
use astrid_wire::{Pattern, Principal, control};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use wasmtime::component::Linker;

use super::actors::{AcceptInto, Actors};
use super::aot::Aot;
use super::bundle::{Bundle, Origin};
use super::graph::Plan;
use super::guest::Guest;
use super::host;
use super::loaded::Capsule;
use super::shard::Shard;
use super::{Acting, Host};
use crate::audit::{self, Entry};
use crate::authority::Gate;
use crate::bus::inbox::RowRef;
use crate::home::{Home, Socket};
use crate::port::listener::{Accept, Caps, Inherited, Listener, Seats};
use crate::store::table::Scope;

/// The interface of what administrators ask the kernel (K8).
const ADMIN_INTERFACE: &str = "astrid-admin";

/// How long the start waits for each uplink before it goes on with what does not depend on it (K3).
const UPLINK_WAIT: Duration = Duration::from_millis(500);

/// How long written streams may take to leave when capsules stop.
const STREAMS_WAIT: Duration = Duration::from_secs(2);

/// One capsule's row.
struct Row {
    manifest: Manifest,
    description: Description,
    origin: Origin,
    stage: Stage,
}

enum Stage {
    Loading,
    Running(Arc<Actors>),
    Refused(String),
}

/// All capsules.
pub struct Manager {
    host: Arc<Host>,
    shards: Arc<[Arc<Shard>]>,
    aot: Aot,
    linker: Linker<Guest>,
    home: Home,
    /// Connection counts, by socket.
    seats: BTreeMap<Socket, Arc<Seats>>,
    rows: Mutex<BTreeMap<String, Row>>,
    /// Names in the order in which they started.
    order: Mutex<Vec<String>>,
    listeners: Mutex<JoinSet<()>>,
    /// Sockets that the service manager has bound.
    inherited: Inherited,
    /// Sockets that somebody listens on.
    bound: Mutex<BTreeSet<Socket>>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("capsules", &self.rows.lock().len())
            .finish_non_exhaustive()
    }
}

/// Why one capsule is not loaded, in words.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Compile(#[from] super::aot::CompileError),
    #[error(transparent)]
    Load(#[from] super::loaded::LoadError),
    #[error(transparent)]
    Bind(#[from] crate::port::listener::BindError),
    #[error("a capsule of this name runs already")]
    Twice,
}

/// An error and what caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join("; ")
}

impl Manager {
    /// No capsules yet.
    ///
    /// # Errors
    /// Wasmtime's, when `wit/` and the host functions do not agree: a mistake of ours.
    pub fn new(
        host: Arc<Host>,
        shards: Arc<[Arc<Shard>]>,
        aot: Aot,
        home: Home,
        caps: Caps,
    ) -> wasmtime::Result<Arc<Self>> {
        let mut linker = Linker::new(&host.engine);
        host::link(&mut linker)?;
        let seats = [Socket::Operator, Socket::Session].map(|s| {
            (
                s,
                Seats::new(
                    s,
                    caps,
                    host.own_uid,
                    Arc::clone(&host.metrics),
                    host.connections.clone(),
                ),
            )
        });
        Ok(Arc::new(Self {
            host,
            shards,
            aot,
            linker,
            home,
            seats: seats.into(),
            rows: Mutex::default(),
            order: Mutex::default(),
            listeners: Mutex::default(),
            inherited: Inherited::take(),
            bound: Mutex::default(),
        }))
    }

    /// Starts what a plan says can start.
    pub async fn start(&self, plan: Plan) {
        {
            let mut rows = self.rows.lock();
            let refused = plan.refused.iter().map(|refused| &refused.bundle);
            let all = plan.levels.iter().flatten().chain(refused);
            self.host.guards.declare(all.map(|bundle| &bundle.manifest));
            for bundle in plan.levels.iter().flatten() {
                rows.insert(bundle.name().to_owned(), Row::new(bundle, Stage::Loading));
            }
            for refused in plan.refused {
                tracing::warn!(capsule = refused.bundle.name(), reason = %refused.reason, "a capsule is kept out");
                let reason = refused.reason.to_string();
                rows.insert(
                    refused.bundle.name().to_owned(),
                    Row::new(&refused.bundle, Stage::Refused(reason)),
                );
            }
        }
        let mut levels = plan.levels.into_iter();
        let uplinks = join_all(levels.next().unwrap_or_default().into_iter().map(|b| self.start_one(b)));
        let mut uplinks = std::pin::pin!(uplinks);
        let late = tokio::time::timeout(UPLINK_WAIT, &mut uplinks).await.is_err();
        if late {
            tracing::warn!("an uplink is not ready yet; the other capsules start meanwhile");
        }
        for level in levels {
            join_all(level.into_iter().map(|b| self.start_one(b))).await;
        }
        if late {
            uplinks.await;
        }
    }

    /// Whether operators can connect.
    pub fn operators_can_connect(&self) -> bool {
        self.bound.lock().contains(&Socket::Operator)
    }

    /// Starts a built-in uplink in the place of what replaced it and does not listen.
    pub async fn rescue(&self, uplink: Bundle) {
        let present = match self.rows.lock().get(uplink.name()) {
            Some(Row {
                stage: Stage::Running(actors),
                ..
            }) => Some(Arc::clone(actors)),
            _ => None,
        };
        if let Some(actors) = present {
            actors.stop();
        }
        self.order.lock().retain(|name| name != uplink.name());
        self.rows
            .lock()
            .insert(uplink.name().to_owned(), Row::new(&uplink, Stage::Loading));
        self.start_one(uplink).await;
    }

    async fn start_one(&self, bundle: Bundle) {
        let name = bundle.name().to_owned();
        let began = std::time::Instant::now();
        let stage = match self.try_start(bundle).await {
            Ok(actors) => {
                tracing::info!(capsule = name, ms = began.elapsed().as_millis(), "a capsule is ready");
                self.record_load(&name, None);
                self.order.lock().push(name.clone());
                Stage::Running(actors)
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(capsule = name, reason, "a capsule cannot be started");
                self.record_load(&name, Some(&reason));
                Stage::Refused(reason)
            }
        };
        if let Some(row) = self.rows.lock().get_mut(&name) {
            row.stage = stage;
        }
        self.host.changed.notify_one();
    }

    fn record_load(&self, name: &str, failed: Option<&str>) {
        let entry = Entry::kernel(audit::Kind::Load, "capsule.load")
            .capsule(name)
            .resource(name);
        let entry = match failed {
            None => entry,
            Some(reason) => entry.outcome(audit::Outcome::Failed).detail(reason),
        };
        // A log that takes nothing says so itself.
        drop(self.host.audit.write(entry));
    }

    async fn try_start(&self, bundle: Bundle) -> Result<Arc<Actors>, StartError> {
        // A missing provider of what it needs keeps a capsule out, also when the provider failed only now.
        let compiled = self.aot.load(&bundle).await?;
        self.host.metrics.capsule_loads(compiled.source.as_str()).increment();
        let imports = self.topics_of_imports(&bundle.manifest);
        let capsule = Capsule::new(bundle, &compiled.component, &self.linker, imports)?;
        let sockets: Vec<SocketName> = capsule
            .manifest
            .capabilities
            .listen
            .iter()
            .flat_map(|c| c.allow.iter().copied())
            .collect();
        if matches!(
            self.rows.lock().get(&*capsule.name),
            Some(Row {
                stage: Stage::Running(_),
                ..
            })
        ) {
            return Err(StartError::Twice);
        }
        let bound = sockets
            .into_iter()
            .map(|name| self.bind(name))
            .collect::<Result<Vec<_>, _>>()?;
        let actors = Actors::start(capsule, Arc::clone(&self.host), Arc::clone(&self.shards));
        let accept: Arc<dyn Accept> = Arc::new(AcceptInto::new(&actors, Arc::clone(&self.host.topics.stream)));
        for (listener, seats) in bound {
            self.bound.lock().insert(listener.kind());
            let (accept, metrics) = (Arc::clone(&accept), Arc::clone(&self.host.metrics));
            let host = Arc::clone(&self.host);
            self.listeners.lock().spawn(async move {
                // Who comes early waits to be let in, and not for an answer that has its time.
                host.begun().await;
                listener.run(seats, accept, metrics).await;
            });
        }
        Ok(actors)
    }

    fn bind(&self, name: SocketName) -> Result<(Listener, Arc<Seats>), StartError> {
        let socket = match name {
            SocketName::Operator => Socket::Operator,
            SocketName::Session => Socket::Session,
        };
        let path = self.home.socket(socket);
        let listener = match self.inherited.at(&path) {
            Some(bound) => Listener::inherit(socket, &path, bound)?,
            None => Listener::bind(socket, &path)?,
        };
        // Both kinds are in the table from the start.
        Ok((listener, Arc::clone(&self.seats[&socket])))
    }

    /// The topics that exporters of what this capsule imports hear.
    fn topics_of_imports(&self, manifest: &Manifest) -> Vec<Pattern> {
        let rows = self.rows.lock();
        let exporters = rows
            .values()
            .filter(|row| row.manifest.exports.keys().any(|i| manifest.imports.contains_key(i)));
        let topics = exporters
            .flat_map(|row| &row.description.topics)
            .filter(|t| t.direction == Direction::Hears);
        topics.filter_map(|t| t.topic.as_str().parse().ok()).collect()
    }

    /// Stops accepting connections: sockets close and their files go.
    pub fn stop_listening(&self) {
        self.listeners.lock().abort_all();
    }

    /// Activates who has something to look after without having been told: owners of children of an earlier daemon, and actors whose
    /// document a person has written.
    pub fn wake_owners(&self) {
        let rows = self.rows.lock();
        let running = |name: &str| match rows.get(name).map(|row| &row.stage) {
            Some(Stage::Running(actors)) => Some(Arc::clone(actors)),
            _ => None,
        };
        for owner in self.host.children.owners_to_wake() {
            match running(&owner.capsule) {
                Some(actors) => actors.wake(&owner.principal),
                None => tracing::error!(
                    capsule = %owner.capsule,
                    "children of an earlier daemon belong to a capsule that does not run"
                ),
            }
        }
        for (name, row) in rows.iter() {
            let documents = row.manifest.capabilities.document.iter().flat_map(|c| &c.allow);
            let owners: BTreeSet<Principal> = documents.flat_map(|d| self.host.home.document_owners(d)).collect();
            if let Some(actors) = running(name) {
                owners.iter().for_each(|whose| actors.wake(whose));
            }
        }
    }

    /// There is a message in the inbox of an actor that it did not hear of: a dead letter that is tried again.
    pub fn requeued(&self, capsule: &str, scope: &Scope, row: u64, weight: u32) {
        let Some(actors) = self.host.durable.directory.actors(capsule) else {
            // It is found when the capsule runs.
            return;
        };
        match actors.present_of(scope) {
            Some(actor) => actor.inbox().add_row(RowRef { row, weight }),
            // One that is made now finds it.
            None => drop(actors.of_scope(scope)),
        }
    }

    /// Names of capsules that finish something before the daemon stops.
    pub fn draining(&self) -> Vec<Arc<str>> {
        let rows = self.rows.lock();
        let running = rows.values().filter_map(|row| match &row.stage {
            // Without an actor nobody is there who could have something to finish, or say so.
            Stage::Running(actors) if actors.count().0 > 0 => Some(actors.capsule()),
            _ => None,
        });
        running.filter(|c| c.drains()).map(|c| Arc::clone(&c.name)).collect()
    }

    /// Stops all capsules, the last started first.
    pub async fn stop(&self) {
        self.host.acting.send_replace(Acting::NoMore);
        let order: Vec<String> = self.order.lock().drain(..).rev().collect();
        for name in order {
            let actors = match self.rows.lock().get(&name) {
                Some(Row {
                    stage: Stage::Running(actors),
                    ..
                }) => Arc::clone(actors),
                _ => continue,
            };
            actors.stop();
            if tokio::time::timeout(STREAMS_WAIT, actors.streams_ended())
                .await
                .is_err()
            {
                tracing::warn!(
                    capsule = name,
                    "streams were cut: their peers did not take what was written"
                );
            }
        }
    }

    /// Connections open now.
    pub fn connections(&self) -> u64 {
        self.seats.values().map(|s| s.taken() as u64).sum()
    }

    /// Every open connection, the oldest first.
    pub fn who(&self) -> control::Connections {
        let all = self.host.durable.directory.all();
        let mut connections: Vec<_> = all.iter().flat_map(|actors| actors.connections()).collect();
        connections.sort_unstable_by_key(|connection| connection.id);
        control::Connections { connections }
    }

    /// Every capsule's row, by name.
    pub fn reports(&self) -> Vec<CapsuleReport> {
        let rows = self.rows.lock();
        let mut reports: Vec<_> = rows.values().map(|row| row.report(&self.host.gate)).collect();
        for report in &mut reports {
            if let (Some(keeps), Some(reason)) = (self.host.durable.absent.keeps(&report.name), &mut report.reason) {
                *reason = format!("{reason}; {keeps}");
            }
        }
        reports.extend(self.host.durable.absent.reports(|name| rows.contains_key(name)));
        reports.sort_by(|a, b| a.name.cmp(&b.name));
        reports
    }

    /// One capsule in full.
    pub fn detail(&self, name: &str) -> Option<control::CapsuleDetail> {
        let report = self.reports().into_iter().find(|report| report.name == name)?;
        let rows = self.rows.lock();
        let row = rows.get(name);
        Some(control::CapsuleDetail {
            report,
            manifest: row.map_or_else(Default::default, |row| {
                serde_json::to_value(&row.manifest).unwrap_or_default()
            }),
            topics: row.map_or_else(Vec::new, |row| row.description.topics.clone()),
        })
    }

    /// Who serves which interface.
    pub fn interfaces(&self) -> control::Interfaces {
        let mut interfaces = control::Interfaces::default();
        for row in self
            .rows
            .lock()
            .values()
            .filter(|row| matches!(row.stage, Stage::Running(_)))
        {
            for (interface, version) in &row.manifest.exports {
                interfaces
                    .interfaces
                    .entry(interface.to_string())
                    .or_default()
                    .push(control::Exporter {
                        capsule: row.manifest.name().to_owned(),
                        version: version.to_string(),
                        topics: row.description.topics.clone(),
                    });
            }
        }
        interfaces.interfaces.insert(
            ADMIN_INTERFACE.to_owned(),
            vec![control::Exporter {
                capsule: "kernel".to_owned(),
                version: "1.0".to_owned(),
                topics: admin_topics(),
            }],
        );
        interfaces
    }
}

/// What administrators ask, as it was made from the types.
fn admin_topics() -> Vec<TopicDescription> {
    let described = Description::parse(include_bytes!("../../../etc/schema/admin.json"));
    described.map(|described| described.topics).unwrap_or_else(|error| {
        tracing::error!(%error, "the kernel's own description cannot be read");
        Vec::new()
    })
}

impl Row {
    fn new(bundle: &Bundle, stage: Stage) -> Self {
        Self {
            manifest: bundle.manifest.clone(),
            description: bundle.description.clone(),
            origin: bundle.origin.clone(),
            stage,
        }
    }

    fn report(&self, gate: &Gate) -> CapsuleReport {
        let manifest = &self.manifest;
        let mut report = CapsuleReport {
            name: manifest.name().to_owned(),
            version: manifest.package.version.to_string(),
            description: manifest.package.description.clone(),
            scope: manifest.runtime.scope.as_str().to_owned(),
            origin: self.origin.kind(),
            state: CapsuleState::Loading,
            reason: None,
            actors: 0,
            generations: 0,
            faults: 0,
            handled: 0,
            fuel_used: 0,
            memory_peak_bytes: 0,
            exports: manifest
                .exports
                .iter()
                .map(|(n, v)| (n.to_string(), v.to_string()))
                .collect(),
            imports: manifest
                .imports
                .iter()
                .map(|(n, i)| (n.to_string(), i.version.to_string()))
                .collect(),
            publish: manifest.publish.keys().map(ToString::to_string).collect(),
            subscribe: manifest.subscribe.keys().map(ToString::to_string).collect(),
            capabilities: reasons(&manifest.capabilities),
        };
        match &self.stage {
            Stage::Loading => {}
            Stage::Refused(reason) => {
                report.state = CapsuleState::Refused;
                report.reason = Some(reason.clone());
            }
            Stage::Running(actors) => fill(&mut report, actors),
        }
        if let Some(idle) = self.guards_nothing(gate) {
            report.reason = Some(match report.reason {
                Some(reason) => format!("{reason}; {idle}"),
                None => idle,
            });
        }
        report
    }

    /// Why it does not guard what it would, where that is so.
    fn guards_nothing(&self, gate: &Gate) -> Option<String> {
        let asked = &self.manifest.capabilities.guard.as_ref()?.allow;
        let name = self.manifest.name().into();
        let mut denied = asked.iter().filter_map(|pattern| gate.guard(&name, pattern).err());
        let first = denied.next()?;
        Some(match denied.count() {
            0 => first.to_string(),
            others => format!("{first} (and so with {others} more)"),
        })
    }
}

/// What a capsule may do beyond messages, and why it says it must.
fn reasons(capabilities: &Capabilities) -> BTreeMap<String, String> {
    let Capabilities {
        listen,
        timer,
        subscribe,
        child,
        document,
        fs,
        kv,
        pin,
        guard,
    } = capabilities;
    let mut reasons = BTreeMap::new();
    let mut add = |name: &str, reason: Option<&String>| reasons.extend(reason.map(|r| (name.to_owned(), r.clone())));
    add("listen", listen.as_ref().map(|c| &c.reason));
    add("timer", timer.as_ref().map(|c| &c.reason));
    add("subscribe", subscribe.as_ref().map(|c| &c.reason));
    add("child", child.as_ref().map(|c| &c.reason));
    add("document", document.as_ref().map(|c| &c.reason));
    add("fs", fs.as_ref().map(|c| &c.reason));
    add("kv", kv.as_ref().map(|c| &c.reason));
    add("pin", pin.as_ref().map(|c| &c.reason));
    add("guard", guard.as_ref().map(|c| &c.reason));
    reasons
}

fn fill(report: &mut CapsuleReport, actors: &Actors) {
    let usage = &actors.capsule().usage;
    let (all, restarting, down) = actors.count();
    report.actors = all;
    report.generations = usage.generations.load(Ordering::Relaxed);
    report.faults = usage.faults.load(Ordering::Relaxed);
    report.handled = usage.handled.load(Ordering::Relaxed);
    report.fuel_used = usage.fuel.load(Ordering::Relaxed);
    report.memory_peak_bytes = usage.memory_peak.load(Ordering::Relaxed);
    (report.state, report.reason) = match (restarting, down) {
        (0, 0) => (CapsuleState::Ready, None),
        (_, 0) => (
            CapsuleState::Restarting,
            Some(format!("{restarting} of {all} actors failed and will restart")),
        ),
        _ => (
            CapsuleState::Down,
            Some(format!("{down} of {all} actors failed too often and stay down")),
        ),
    };
}
