//! A kernel in this process, for what a black box cannot show: who was told what, and in which order; and for benchmarks, without a
//! socket in between.
//!
//! It is the same kernel that `boot` makes, without the parts that belong to a process: lock, signals, log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use astrid_kernel::audit::Audit;
use astrid_kernel::authority::{Authority, Gate, Permit, Policy, Say};
use astrid_kernel::blob::Blobs;
use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::bus::message::{Body, Ids, Source};
use astrid_kernel::bus::{Bus, Saying, Subscribed};
use astrid_kernel::capsule::aot::{Aot, Compiler};
use astrid_kernel::capsule::bundle::{Bundle, Origin};
use astrid_kernel::capsule::census::Census;
use astrid_kernel::capsule::durable::{self, Durable};
use astrid_kernel::capsule::files::Files;
use astrid_kernel::capsule::guards::Guards;
use astrid_kernel::capsule::manager::Manager;
use astrid_kernel::capsule::shard::Shard;
use astrid_kernel::capsule::ticker::Ticker;
use astrid_kernel::capsule::{Acting, Host, Topics, engine, graph};
use astrid_kernel::config::BlobsConfig;
use astrid_kernel::deadlines::Deadlines;
use astrid_kernel::home::Home;
use astrid_kernel::keys::{BootToken, RuntimeKey};
use astrid_kernel::ledger::Ledger;
use astrid_kernel::port::child::{Children, ChildrenOptions};
use astrid_kernel::port::listener::Caps;
use astrid_kernel::port::watch::Watches;
use astrid_kernel::store::Store;
use astrid_kernel::store::engine::Open;
use astrid_kernel::store::memory::Memory;
use astrid_kernel::store::thread::StoreThread;
use astrid_kernel::vfs::workspaces::Workspaces;
use astrid_wire::manifest::Overflow;
use astrid_wire::{Pattern, Principal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::daemon::binary;

/// How long a test waits for what must happen. Long: a busy machine is slow, and a test that passes does not wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// No two kernels of a process number their messages alike.
static BOOTS: AtomicU64 = AtomicU64::new(1);

/// How the kernel is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that run actors.
    pub shards: usize,
    /// Actors with an instance at most.
    pub live_actors: usize,
    /// What the store keeps, over the lives of several beds.
    pub memory: Memory,
    /// Who may do what. By default everybody, so that tests can make up principals.
    pub authority: Arc<Authority>,
    /// A directory that is attached for everybody.
    pub workspace: Option<PathBuf>,
    /// The home, which stays; without one, it is a directory that goes with the bed.
    pub home: Option<PathBuf>,
    /// What the content store keeps.
    pub blobs: BlobsConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: 1,
            live_actors: 4000,
            memory: Memory::default(),
            authority: Authority::fixed(Policy::open_to_all_for_tests()),
            workspace: None,
            home: None,
            blobs: BlobsConfig::default(),
        }
    }
}

/// A kernel. Lives in the current-thread runtime that made it.
#[derive(Debug)]
pub struct Bed {
    /// Its services.
    pub host: Arc<Host>,
    /// Its capsules.
    pub manager: Arc<Manager>,
    running: JoinSet<()>,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    store_thread: Option<StoreThread>,
    _home: tempfile::TempDir,
}

/// Where `make capsules` puts a bundle.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn bundle_file(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let places = [target.join("examples"), target.join("capsules")].map(|d| d.join(format!("{name}.capsule")));
    let found = places.into_iter().find(|p| p.exists());
    found.unwrap_or_else(|| panic!("there is no bundle of {name}; `make capsules` makes it"))
}

impl Bed {
    /// A kernel with these capsules.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn with(capsules: &[&str], settings: Settings) -> Self {
        Self::of(capsules.iter().map(|name| read_bundle(name)).collect(), settings).await
    }

    /// As [`Bed::with`], one shard.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn new(capsules: &[&str]) -> Self {
        Self::with(capsules, Settings::default()).await
    }

    /// A kernel with these bundles.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn of(bundles: Vec<Bundle>, settings: Settings) -> Self {
        let memory = Box::new(settings.memory.clone());
        Self::on(bundles, settings, memory).await
    }

    /// As [`Bed::of`], with a store on that.
    ///
    /// # Panics
    /// It cannot be made.
    #[expect(clippy::unwrap_used, reason = "a test bed that cannot be made is a failed test")]
    pub async fn on(bundles: Vec<Bundle>, settings: Settings, disk: Box<dyn Open>) -> Self {
        let store = Store::open(disk).await.unwrap();
        Self::made(bundles, settings, store, None).await
    }

    /// As [`Bed::on`], with the store on a thread of its own, as in a daemon.
    ///
    /// # Panics
    /// It cannot be made.
    #[expect(clippy::unwrap_used, reason = "a test bed that cannot be made is a failed test")]
    pub async fn threaded(bundles: Vec<Bundle>, settings: Settings, disk: Box<dyn Open>) -> Self {
        let thread = StoreThread::start(disk).await.unwrap();
        let store = Arc::clone(thread.store());
        Self::made(bundles, settings, store, Some(thread)).await
    }

    #[expect(clippy::unwrap_used, reason = "a test bed that cannot be made is a failed test")]
    async fn made(
        bundles: Vec<Bundle>,
        settings: Settings,
        store: Arc<Store>,
        store_thread: Option<StoreThread>,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("astrid-bed-").tempdir().unwrap();
        let kept = settings.home.clone().unwrap_or_else(|| directory.path().join("h"));
        let home = Home::resolve(Some(&kept)).unwrap();
        home.create().unwrap();
        let blobs = Arc::new(Blobs::open(home.blobs_dir(), settings.blobs.into(), 0).unwrap());
        let metrics: Arc<astrid_kernel::metrics::Metrics> = Arc::default();
        let deadlines = Arc::new(Deadlines::default());
        let boot = BOOTS.fetch_add(1, Ordering::Relaxed);
        let ids = Arc::new(Ids::new(boot));
        let changed = Arc::default();
        let audit = Audit::memory();
        let children = ChildrenOptions {
            home: home.clone(),
            own_program: binary(),
            secret: [7; 32],
            open_files: 1024,
            audit: audit.clone(),
        };
        let children = Children::new(children, boot, Arc::clone(&ids), &metrics, Arc::clone(&changed)).unwrap();
        let topics = Topics::new().unwrap();
        let ledger = Arc::new(Ledger::new(
            Arc::clone(&store),
            Arc::clone(&deadlines),
            Arc::clone(&metrics),
        ));
        let attached = settings.workspace.clone();
        let workspaces = Workspaces::new(home.overlays_dir(), Box::new(move |_| Ok(attached.clone())));
        let host = Arc::new(Host {
            engine: engine::engine().unwrap(),
            durable: Durable::new(&deadlines, &ids, topics.timer_fired.clone()),
            store,
            files: Arc::new(Files::new(&home, Arc::new(workspaces), Arc::clone(&blobs))),
            watches: Arc::new(Watches::new(Arc::clone(&ids), Arc::clone(&topics.watch))),
            bus: Bus::new(ids, Arc::clone(&deadlines), Arc::clone(&metrics)),
            gate: Gate::new(settings.authority.clone()),
            guards: Guards::default(),
            audit,
            deadlines,
            ledger,
            census: Arc::new(Census::new(settings.live_actors, Arc::clone(&metrics))),
            metrics,
            home: home.clone(),
            token: BootToken::create(&home).unwrap(),
            own_uid: rustix::process::geteuid().as_raw(),
            started: Instant::now(),
            topics,
            changed,
            blobs,
            children,
            connections: watch::channel(0).0,
            acting: watch::channel(Acting::NotYet).0,
        });
        let ticker = Arc::new(Ticker::start(&host.engine).unwrap());
        let shards: Arc<[Arc<Shard>]> = (0..settings.shards).map(|_| Shard::new(Arc::clone(&ticker))).collect();
        let key = RuntimeKey::open(&home).unwrap();
        let compiler = Compiler::new(binary(), vec!["__compile".into()]);
        let aot = Aot::open(host.engine.clone(), &home, &key, compiler);
        let caps = Caps {
            per_socket: 100,
            per_uid: 100,
            operator_reserve: 8,
        };
        let manager = Manager::new(Arc::clone(&host), Arc::clone(&shards), aot, home, caps).unwrap();
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&shards[0]).run());
        running.spawn(Arc::clone(&host.deadlines).run());
        running.spawn(Arc::clone(&host.children).run());
        running.spawn(Arc::clone(&host.watches).run());
        running.spawn(durable::recover::run(Arc::clone(&host)));
        running.spawn(Arc::clone(&host).keep_enforcing());
        if store_thread.is_none() {
            let sealing = Arc::clone(&host.store);
            running.spawn(async move { sealing.run().await });
        }
        durable::recover::before_start(&host).unwrap();
        let (stop, stopped) = watch::channel(false);
        let threads = shards[1..].iter().map(|shard| thread(shard, stopped.clone())).collect();
        manager.start(graph::plan(bundles)).await;
        durable::recover::at_start(&host).unwrap();
        Self {
            host,
            manager,
            running,
            stop,
            threads,
            store_thread,
            _home: directory,
        }
    }

    /// Permission to say something, as the kernel has it.
    ///
    /// # Panics
    /// It is not a topic.
    #[expect(clippy::unwrap_used, reason = "the topics of tests are constants")]
    pub fn say(&self, topic: &str) -> Permit<Say> {
        self.host.gate.kernel_says(topic.parse().unwrap())
    }

    /// Asks on behalf of a principal and waits for what comes of it.
    ///
    /// # Panics
    /// A receiver's queue is full.
    #[expect(
        clippy::unwrap_used,
        reason = "a test that fills a queue does it on purpose, elsewhere"
    )]
    pub async fn ask_as(&self, principal: &str, topic: &str, body: Body) -> Outcome {
        let saying = Saying {
            principal: Principal::stamped(principal).unwrap(),
            source: Source::Capsule("test".into()),
            body,
            public: false,
        };
        self.host.bus.request(self.say(topic), saying, PATIENCE).await.unwrap()
    }

    /// As [`Bed::ask_as`], for `default`, with a JSON body.
    ///
    /// # Panics
    /// A receiver's queue is full.
    pub async fn ask(&self, topic: &str, body: serde_json::Value) -> Outcome {
        self.ask_as("default", topic, Body::json(&body)).await
    }

    /// Hears what is said.
    ///
    /// # Panics
    /// It is not a pattern.
    #[expect(clippy::unwrap_used, reason = "the patterns of tests are constants")]
    pub fn hear(&self, pattern: &str) -> (Arc<Inbox>, Vec<Subscribed>) {
        let permit = self.host.gate.declared(pattern.parse::<Pattern>().unwrap());
        self.host.bus.listen("test", vec![permit], 100_000, Overflow::Reject)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.running.abort_all();
        self.stop.send_replace(true);
        if let Some(thread) = &self.store_thread {
            // Nobody waits for its end.
            thread.store().close();
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// Reads a bundle that `make capsules` made.
///
/// # Panics
/// It is not there, or no bundle.
#[must_use]
#[expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test without its capsule has failed"
)]
pub fn read_bundle(name: &str) -> Bundle {
    let path = bundle_file(name);
    Bundle::parse(std::fs::read(&path).unwrap().into(), Origin::Directory(path)).unwrap()
}

#[expect(clippy::unwrap_used, reason = "a test bed that cannot be made is a failed test")]
fn thread(shard: &Arc<Shard>, mut stopped: watch::Receiver<bool>) -> std::thread::JoinHandle<()> {
    let shard = Arc::clone(shard);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async move {
            tokio::select! {
                () = shard.run() => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
    })
}

/// The answer as JSON.
///
/// # Panics
/// It is a refusal, a timeout, or not JSON.
#[must_use]
#[track_caller]
pub fn answer(outcome: Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Answer(body) => {
            serde_json::from_slice(&body.bytes).unwrap_or_else(|e| panic!("the answer is not JSON: {e}"))
        }
        other => panic!("no answer, but {other:?}"),
    }
}

/// The code of a refusal.
///
/// # Panics
/// It is none.
#[must_use]
#[track_caller]
pub fn refusal(outcome: Outcome) -> String {
    match outcome {
        Outcome::Refusal(problem) => problem.code().to_owned(),
        other => panic!("no refusal, but {other:?}"),
    }
}
