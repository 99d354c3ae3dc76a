//! One life of a simulated kernel: the parts that `boot` puts together, without a runtime, threads and sockets. It moves only when it is told.

use std::sync::Arc;
use std::time::Duration;

use astrid_kernel::audit::Audit;
use astrid_kernel::authority::Gate;
use astrid_kernel::blob::Blobs;
use astrid_kernel::bus::Bus;
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::bus::message::Ids;
use astrid_kernel::bus::{Saying, Subscribed};
use astrid_kernel::capsule::actor::{Actor, ActorState};
use astrid_kernel::capsule::actors::Actors;
use astrid_kernel::capsule::bundle::Bundle;
use astrid_kernel::capsule::census::Census;
use astrid_kernel::capsule::durable::{self, Durable};
use astrid_kernel::capsule::files::Files;
use astrid_kernel::capsule::guards::Guards;
use astrid_kernel::capsule::guest::Guest;
use astrid_kernel::capsule::loaded::Capsule;
use astrid_kernel::capsule::shard::Shard;
use astrid_kernel::capsule::ticker::Ticker;
use astrid_kernel::capsule::{Acting, Host, Topics, engine, host};
use astrid_kernel::clock::Clock;
use astrid_kernel::config::BlobsConfig;
use astrid_kernel::deadlines::Deadlines;
use astrid_kernel::home::Home;
use astrid_kernel::keys::BootToken;
use astrid_kernel::ledger::Ledger;
use astrid_kernel::port::child::{Children, ChildrenOptions};
use astrid_kernel::port::watch::Watches;
use astrid_kernel::store::engine::EngineError;
use astrid_kernel::store::seal::Step;
use astrid_kernel::store::{Phase, Store};
use astrid_kernel::vfs::workspaces::Workspaces;
use astrid_tests::bed::read_bundle;
use astrid_wire::manifest::Overflow;
use tokio::sync::watch;
use wasmtime::component::{Component, Linker};

use crate::disk::{Disk, poll, ready};

/// The capsules of every simulation.
const CAPSULES: [&str; 4] = ["relay-a", "relay-b", "relay-c", "ledger"];

/// What the simulated outside hears.
const HEARD: [&str; 5] = [
    "relay.v1.second",
    "relay.v1.third",
    "ledger.v1.event.>",
    "dead.v1.>",
    "astrid.v1.health.failed",
];

/// Fuel of one handling: enough for every handler that does not burn it on request.
const FUEL: u64 = 3_000_000;

/// Deadlines that pass until every actor of a dead kernel has ended.
const BURIAL_MAX: u32 = 10_000;

/// What all simulations share: compiled code, and a home that nothing is kept in.
pub(crate) struct Machine {
    pub(crate) engine: wasmtime::Engine,
    linker: Linker<Guest>,
    parts: Vec<(Bundle, Component)>,
    home: Home,
    blobs: Arc<Blobs>,
    _directory: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("astrid-sim-").tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let engine = engine::engine().unwrap();
        let mut linker = Linker::new(&engine);
        host::link(&mut linker).unwrap();
        let parts = CAPSULES.map(|name| {
            let bundle = read_bundle(name);
            let component = Component::new(&engine, &bundle.component).unwrap();
            (bundle, component)
        });
        Self {
            engine,
            linker,
            parts: parts.into(),
            blobs: Arc::new(Blobs::open(home.blobs_dir(), BlobsConfig::default().into(), 0).unwrap()),
            home,
            _directory: directory,
        }
    }
}

/// How the kernels of one simulation are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Places of durable subscriptions; none: as the manifests say.
    pub(crate) queue: Option<u32>,
    /// System actors of the ledger.
    pub(crate) instances: u32,
}

/// A seal under way.
type Sealing = std::pin::Pin<Box<dyn Future<Output = Step>>>;

/// A life.
pub(crate) struct Kernel {
    pub(crate) host: Arc<Host>,
    pub(crate) shard: Arc<Shard>,
    capsules: Vec<Arc<Actors>>,
    sealing: Option<Sealing>,
    pub(crate) ears: (Arc<Inbox>, Vec<Subscribed>),
}

impl Kernel {
    /// Starts on what is on the disk.
    pub(crate) fn boot(
        machine: &Machine,
        disk: Disk,
        boot: u64,
        wall: Duration,
        shape: Shape,
    ) -> Result<Self, EngineError> {
        let metrics: Arc<astrid_kernel::metrics::Metrics> = Arc::default();
        let deadlines = Arc::new(Deadlines::new(Clock::paused(wall)));
        let ids = Arc::new(Ids::new(boot));
        let changed = Arc::default();
        let audit = Audit::memory();
        let children = ChildrenOptions {
            home: machine.home.clone(),
            own_program: "astrid".into(),
            secret: [7; 32],
            open_files: 1024,
            audit: audit.clone(),
        };
        let children = Children::new(children, boot, Arc::clone(&ids), &metrics, Arc::clone(&changed)).unwrap();
        let topics = Topics::new().unwrap();
        let store = ready(Store::open(Box::new(disk))).map_err(|error| EngineError::Io(error.to_string().into()))?;
        let ledger = Arc::new(Ledger::new(
            Arc::clone(&store),
            Arc::clone(&deadlines),
            Arc::clone(&metrics),
        ));
        let host = Arc::new(Host {
            engine: machine.engine.clone(),
            durable: Durable::new(&deadlines, &ids, topics.timer_fired.clone()),
            store,
            files: Arc::new(Files::new(
                &machine.home,
                Arc::new(Workspaces::new("/nonexistent".into(), Box::new(|_| Ok(None)))),
                Arc::clone(&machine.blobs),
            )),
            watches: Arc::new(Watches::new(Arc::clone(&ids), Arc::clone(&topics.watch))),
            bus: Bus::new(ids, Arc::clone(&deadlines), Arc::clone(&metrics)),
            gate: Gate::new(astrid_kernel::authority::Authority::fixed(
                astrid_kernel::authority::Policy::open_to_all_for_tests(),
            )),
            guards: Guards::default(),
            audit,
            started: deadlines.now(),
            deadlines,
            ledger,
            census: Arc::new(Census::new(4000, Arc::clone(&metrics))),
            metrics,
            home: machine.home.clone(),
            token: BootToken::create(&machine.home).unwrap(),
            own_uid: 0,
            topics,
            changed,
            blobs: Arc::clone(&machine.blobs),
            children,
            connections: watch::channel(0).0,
            acting: watch::channel(Acting::NotYet).0,
        });
        let shard = Shard::new(Arc::new(Ticker::still()));
        let patterns = HEARD.map(|pattern| host.gate.declared(pattern.parse().unwrap()));
        let ears = host.bus.listen("outside", patterns.into(), 100_000, Overflow::Reject);
        let mut kernel = Self {
            host,
            shard,
            capsules: Vec::new(),
            sealing: None,
            ears,
        };
        if let Err(error) = kernel.start(machine, shape) {
            kernel.bury();
            return Err(error);
        }
        Ok(kernel)
    }

    fn start(&mut self, machine: &Machine, shape: Shape) -> Result<(), EngineError> {
        durable::recover::before_start(&self.host)?;
        for (bundle, component) in &machine.parts {
            let mut bundle = bundle.clone();
            bundle.manifest.runtime.fuel = FUEL;
            if bundle.manifest.package.name.as_str() == "ledger" {
                bundle.manifest.runtime.instances = shape.instances.try_into().unwrap();
            }
            for options in bundle.manifest.subscribe.values_mut().filter(|o| o.durable) {
                options.queue = shape.queue.unwrap_or(options.queue);
            }
            let capsule = Capsule::new(bundle, component, &machine.linker, Vec::new()).unwrap();
            let shards: Arc<[Arc<Shard>]> = [Arc::clone(&self.shard)].into();
            self.capsules
                .push(Actors::start(capsule, Arc::clone(&self.host), shards));
        }
        durable::recover::at_start(&self.host)
    }

    /// Everything in memory goes. What actors do while they end is done by nobody: nothing of it is sealed.
    pub(crate) fn bury(self) {
        drop(self.sealing);
        for actors in &self.capsules {
            actors.stop();
        }
        for _ in 0..BURIAL_MAX {
            while self.shard.step(|_| 0) {}
            let Some(next) = self.host.deadlines.next() else { return };
            let clock = self.host.deadlines.clock();
            clock.advance(next.saturating_duration_since(clock.now()));
            self.host.deadlines.fire();
        }
        panic!("an actor does not end");
    }

    /// Actors with something kept that are there, in order.
    pub(crate) fn actors(&self) -> Vec<Arc<Actor>> {
        self.capsules.iter().flat_map(|actors| actors.present()).collect()
    }

    pub(crate) fn anybody_is(&self, state: ActorState) -> bool {
        self.actors().iter().any(|actor| actor.state() == state)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.host.store.phase().borrow().clone()
    }

    /// What the store's thread would do next. False when there is nothing.
    pub(crate) fn seal(&mut self) -> bool {
        let store = &self.host.store;
        if let Phase::Failed(_) = self.phase() {
            // The rest of what the thread does is in `reopen`.
            return false;
        }
        let sealing = self.sealing.get_or_insert_with(|| {
            let store = Arc::clone(store);
            Box::pin(async move { store.seal().await })
        });
        let Some(step) = poll(sealing.as_mut()) else {
            return true;
        };
        self.sealing = None;
        match step {
            Step::Idle => false,
            Step::Sealed(_) => true,
            Step::Failed(error) => {
                store.fail(&error);
                true
            }
        }
    }

    /// Opens a store that failed again. False when it has not.
    pub(crate) fn reopen(&self) -> bool {
        let failed = matches!(self.phase(), Phase::Failed(_));
        if failed {
            // It may fail again, and is tried again.
            ready(self.host.store.reopen()).ok();
        }
        failed
    }

    /// Lets outputs leave, and brings everybody back after a failure.
    pub(crate) fn release(&self) {
        durable::recover::step(&self.host, &self.phase());
    }

    /// Moves to the next deadline, but not further than that. How far, and what happened.
    pub(crate) fn advance(&self, most: Duration) -> (Duration, usize) {
        let deadlines = &self.host.deadlines;
        let next = deadlines
            .next()
            .map_or(most, |next| next.saturating_duration_since(deadlines.now()));
        let by = next.min(most);
        deadlines.clock().advance(by);
        (by, deadlines.fire())
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        self.host.deadlines.clock().wall_ms()
    }

    pub(crate) fn saying(principal: &str, body: &serde_json::Value) -> Saying {
        Saying {
            principal: astrid_wire::Principal::stamped(principal).unwrap(),
            source: astrid_kernel::bus::message::Source::Capsule("client".into()),
            body: astrid_kernel::bus::message::Body::json(body),
            public: false,
        }
    }
}
