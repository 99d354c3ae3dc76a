//! The composition root: makes every part, gives each what it uses, and takes them apart in the reverse order (K1-K5).
//!
//! [`run`] is the daemon's whole life. It blocks, and returns when the daemon has stopped.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_wire::control::{self, Capsules, Mode, State};
use astrid_wire::manifest::Overflow;
use astrid_wire::topic::TopicError;
use astrid_wire::{Principal, Topic};
use rustix::process::{DumpableBehavior, Resource};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::audit::{self, Audit, AuditOptions, Entry, Report};
use crate::authority::{Authority, Edited, Gate, PolicyError};
use crate::backup;
use crate::blob::{BlobError, BlobLimits, Blobs};
use crate::bus::asks::Outcome;
use crate::bus::message::{Body, Ids, Source};
use crate::bus::{Bus, Saying};
use crate::capsule::aot::{Aot, Compiler};
use crate::capsule::census::Census;
use crate::capsule::discover::{self, Embedded};
use crate::capsule::durable::{self, Durable};
use crate::capsule::files::{Files, Lender, lent};
use crate::capsule::graph;
use crate::capsule::guards::Guards;
use crate::capsule::manager::Manager;
use crate::capsule::shard::Shard;
use crate::capsule::ticker::Ticker;
use crate::capsule::{Acting, Host, Topics, engine};
use crate::config::{AuditConfig, BlobsConfig, Config, Tampered};
use crate::control::{Control, record_edit};
use crate::deadlines::Deadlines;
use crate::home::{self, Home};
use crate::keys::{BootToken, RuntimeKey};
use crate::ledger::{Entitlement, Ledger, Quotas};
use crate::lock::Lock;
use crate::logging;
use crate::metrics::{self, Metrics};
use crate::notify;
use crate::port::child::{Children, ChildrenOptions};
use crate::port::listener::Caps;
use crate::port::watch::Watches;
use crate::status::StatusFile;
use crate::store::engine::{EngineError, Open};
use crate::store::memory::Memory;
use crate::store::surreal::Disk;
use crate::store::thread::StoreThread;
use crate::store::{self, Store};
use crate::vfs::workspaces::{Workspaces, directory};

/// How long the whole stop may take (K4).
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

/// How long capsules with `drain = true` may take to finish.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long children that their owners did not end may take to end by themselves.
const CHILDREN_GRACE: Duration = Duration::from_secs(2);

/// How long a daemon that would end, but has durable work, waits before it looks again.
const WORK_LOOK_MIN: Duration = Duration::from_secs(1);

/// How long the store may take to end.
const STORE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the audit log may take to end.
const AUDIT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long whoever starts a daemon for itself may take to connect, however short its idle time (K5).
const STARTUP_GRACE: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Debug)]
pub struct BootOptions {
    /// Where.
    pub home: Home,
    /// For how long.
    pub mode: Mode,
    /// Embedded capsules only.
    pub safe: bool,
    /// Log to standard error too.
    pub foreground: bool,
    /// The capsules inside this binary.
    pub embedded: &'static [Embedded],
    /// A directory of capsules instead of the embedded ones, for development.
    pub capsules_dir: Option<std::path::PathBuf>,
    /// Ends the daemon when nobody was connected for this long.
    pub idle_timeout: Option<Duration>,
    /// Told one line when the daemon is ready.
    pub ready: Option<std::fs::File>,
    /// Compiles components in a child process.
    pub compiler: Compiler,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The home's folders.
    #[error(transparent)]
    Home(#[from] home::HomeError),
    /// Another daemon.
    #[error(transparent)]
    Lock(#[from] crate::lock::LockError),
    /// It is half of what it should be.
    #[error(transparent)]
    Unfinished(#[from] backup::Unfinished),
    /// The runtime key or the boot token.
    #[error(transparent)]
    Key(#[from] crate::keys::KeyError),
    /// etc/astrid.toml.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// etc/groups.toml, or etc/profiles/ as a whole.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The log.
    #[error(transparent)]
    Logging(#[from] logging::LoggingError),
    /// The metrics exporter.
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
    /// The audit log cannot be read.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// The audit log is not what was written, and the configuration says that nothing goes on then.
    #[error("the audit log is not what was written, {0} findings: {1}")]
    Tampered(u64, String),
    /// The content store does not open.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] store::thread::StartError),
    /// The store opens, and cannot be read.
    #[error("the store cannot be read")]
    Unreadable(#[from] EngineError),
    /// The engine does not support this machine.
    #[error("the WebAssembly engine cannot start: {0:#}")]
    Engine(wasmtime::Error),
    /// A thread, a signal handler or a file in run/.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A constant of ours is no topic; a test holds that they are.
    #[error("a topic of the kernel's own")]
    Topic(#[from] TopicError),
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> BootError {
    move |source| BootError::Io { what, source }
}

/// What the host is made of.
struct Parts<'a> {
    home: &'a Home,
    config: &'a Config,
    key: &'a RuntimeKey,
    authority: Arc<Authority>,
    /// Soft limit of open files before this process raised its own.
    open_files: u64,
    audit: Audit,
    metrics: Arc<Metrics>,
    changed: Arc<Notify>,
}

/// Context of the key by which a keeper knows the next daemon of its home.
const KEEPER_CONTEXT: &str = "astrid 2026 keeper reconnect v1";

/// Takes as many descriptors as the process may have: each child and each client needs some. Returns what the soft limit was.
fn raise_open_files() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    limit.current.unwrap_or(u64::MAX)
}

/// Starts the daemon, runs it until it is asked to stop, and stops it.
///
/// # Errors
/// [`BootError`], when it cannot start. A failure after that is logged, and shown in status.
pub fn run(options: BootOptions) -> Result<(), BootError> {
    let started = Instant::now();
    // Whatever runs as the same user, a child above all, must not read this process's environment and memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| io("cannot keep the daemon's memory private")(error.into()))?;
    // A limit on the size of files is then an error of who writes, and not the end of the daemon.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default())
        .map_err(io("cannot take the signal for files that are too large"))?;
    options.home.create()?;
    let lock = Lock::acquire(&options.home)?;
    backup::check(&options.home)?;
    backup::clear(&options.home)?;
    let key = RuntimeKey::open(&options.home)?;
    let config = Config::load(&options.home)?;
    logging::start(&options.home, &config.log, options.foreground)?;
    let authority = Authority::open(&options.home)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("cannot start the runtime"))?;
    let result = runtime.block_on(live(options, config, key, authority, started));
    // Threads that still read a file for somebody are not waited for.
    runtime.shutdown_background();
    drop(lock);
    result
}

/// Shards beyond the first, on threads of their own. They end when this is dropped.
struct ShardThreads {
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl ShardThreads {
    fn start(shards: &[Arc<Shard>]) -> Result<Self, BootError> {
        let (stop, stopped) = watch::channel(false);
        let mut all = Self {
            stop,
            threads: Vec::new(),
        };
        for (n, shard) in shards.iter().enumerate() {
            let (shard, mut stopped) = (Arc::clone(shard), stopped.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(io("cannot start a shard's runtime"))?;
            let thread = std::thread::Builder::new()
                .name(format!("shard-{}", n + 1))
                .spawn(move || {
                    runtime.block_on(async move {
                        tokio::select! {
                            () = shard.run() => {}
                            // An error means that the sender is gone: stop as well.
                            _ = stopped.wait_for(|stop| *stop) => {}
                        }
                    });
                })
                .map_err(io("cannot start a shard's thread"))?;
            all.threads.push(thread);
        }
        Ok(all)
    }
}

impl Drop for ShardThreads {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard's thread panicked");
            }
        }
    }
}

impl From<BlobsConfig> for BlobLimits {
    fn from(config: BlobsConfig) -> Self {
        Self {
            blob_bytes_max: config.max_size.0,
            total_bytes_max: config.max_total.0,
            count_max: config.max_count,
            uploads_max: config.max_uploads,
            upload_age_ms_max: u64::try_from(config.upload_age.0.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What the profiles say that principals may use.
struct Entitlements(Arc<Authority>);

impl Quotas for Entitlements {
    fn of(&self, principal: &Principal) -> Option<Entitlement> {
        let policy = self.0.policy();
        let profile = policy.profile(principal);
        let entitled = profile.map(|profile| Entitlement {
            quota: profile.quota,
            weight: profile.weight,
        });
        // A capsule has no profile; and whoever has one that cannot be read may do nothing that could be limited.
        entitled.or_else(|| (policy.knows(principal) || principal.as_capsule().is_some()).then(Entitlement::default))
    }
}

/// Whose workspace is of which directory, as the profiles say it.
fn workspaces(home: &Home, authority: &Arc<Authority>) -> Workspaces {
    let (authority, root) = (Arc::clone(authority), home.root().to_owned());
    let resolver = move |principal: &Principal| {
        let policy = authority.policy();
        let path = policy
            .profile(principal)
            .and_then(|profile| profile.workspace.as_deref());
        path.map(|path| directory::check(Path::new(path), &root)).transpose()
    };
    Workspaces::new(home.overlays_dir(), Box::new(resolver))
}

fn make_host(parts: Parts<'_>, token: BootToken, store: Arc<Store>, started: Instant) -> Result<Arc<Host>, BootError> {
    let Parts {
        home,
        config,
        key,
        authority,
        open_files,
        audit,
        metrics,
        changed,
    } = parts;
    let boot = rand::random();
    let ids = Arc::new(Ids::new(boot));
    let children = ChildrenOptions {
        home: home.clone(),
        // Not by its path: what is put there later is another program.
        own_program: "/proc/self/exe".into(),
        secret: *key.derive(KEEPER_CONTEXT),
        open_files,
        audit: audit.clone(),
    };
    let children = Children::new(children, boot, Arc::clone(&ids), &metrics, Arc::clone(&changed))?;
    let deadlines = Arc::new(Deadlines::default());
    let topics = Topics::new()?;
    let blobs = Blobs::open(home.blobs_dir(), config.blobs.into(), deadlines.clock().wall_ms())?;
    let blobs = Arc::new(blobs);
    let ledger = Arc::new(Ledger::new(
        Arc::clone(&store),
        Arc::clone(&deadlines),
        Arc::clone(&metrics),
    ));
    ledger.set_quotas(Arc::new(Entitlements(Arc::clone(&authority))));
    let seen = Arc::clone(&children);
    let workspaces = workspaces(home, &authority).lent_by(Arc::new(move |principal| lent(seen.mounts(), principal)));
    let files = Arc::new(Files::new(home, Arc::new(workspaces), Arc::clone(&blobs)));
    children.set_workspaces(Arc::new(Lender {
        files: Arc::clone(&files),
        ledger: Arc::clone(&ledger),
    }));
    Ok(Arc::new(Host {
        engine: engine::engine().map_err(BootError::Engine)?,
        durable: Durable::new(&deadlines, &ids, topics.timer_fired.clone()),
        store,
        files,
        watches: Arc::new(Watches::new(Arc::clone(&ids), Arc::clone(&topics.watch))),
        bus: Bus::new(ids, Arc::clone(&deadlines), Arc::clone(&metrics)),
        gate: Gate::new(authority),
        guards: Guards::default(),
        audit,
        deadlines,
        ledger,
        census: Arc::new(Census::new(config.limits.live_actors, Arc::clone(&metrics))),
        metrics,
        home: home.clone(),
        token,
        own_uid: rustix::process::geteuid().as_raw(),
        started,
        topics,
        changed,
        blobs,
        children,
        connections: watch::channel(0).0,
        acting: watch::channel(Acting::NotYet).0,
    }))
}

async fn live(
    options: BootOptions,
    config: Config,
    key: RuntimeKey,
    authority: Arc<Authority>,
    started: Instant,
) -> Result<(), BootError> {
    // Signals are caught before anything exists that a default action would leave behind.
    let mut terminate = signal(SignalKind::terminate()).map_err(io("cannot watch for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("cannot watch for SIGINT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(io("cannot watch for SIGHUP"))?;
    let home = options.home.clone();
    let (metrics, changed) = (Arc::<Metrics>::default(), Arc::<Notify>::default());
    let (audit, verified) = open_audit(&options, &config.audit, &authority, &metrics, &changed)?;
    let parts = Parts {
        home: &home,
        config: &config,
        key: &key,
        authority,
        open_files: raise_open_files(),
        audit,
        metrics,
        changed,
    };
    // A home that is thrown away needs no disk.
    let opener: Box<dyn Open> = match options.mode {
        Mode::Private => Box::new(Memory::default()),
        Mode::Persistent | Mode::Ephemeral => Box::new(Disk::new(home.store_dir())),
    };
    let store = StoreThread::start(opener).await?;
    let host = make_host(parts, BootToken::create(&home)?, Arc::clone(store.store()), started)?;
    durable::recover::before_start(&host)?;
    host.files.begin(&host.audit);
    let _exporter = metrics::export(&config.metrics, &host.metrics)?;
    let ticker = Arc::new(Ticker::start(&host.engine).map_err(io("cannot start the epoch thread"))?);
    let shards: Arc<[Arc<Shard>]> = (0..config.daemon.shards.get())
        .map(|_| Shard::new(Arc::clone(&ticker)))
        .collect();
    let aot = Aot::open(host.engine.clone(), &home, &key, options.compiler.clone());
    let caps = Caps {
        per_socket: config.daemon.max_connections,
        per_uid: config.daemon.max_connections_per_uid,
        operator_reserve: config.daemon.operator_reserve,
    };
    let manager =
        Manager::new(Arc::clone(&host), Arc::clone(&shards), aot, home.clone(), caps).map_err(BootError::Engine)?;
    let control = Control::new(Arc::clone(&host), Arc::clone(&manager), home.clone(), options.mode);
    tell_verified(&verified, &control);

    let mut jobs = JoinSet::new();
    let threads = ShardThreads::start(&shards[1..])?;
    jobs.spawn(Arc::clone(&shards[0]).run());
    jobs.spawn(Arc::clone(&host.deadlines).run());
    let clock = Arc::clone(&host);
    jobs.spawn(Arc::clone(&host.census).run(move || clock.uptime_ms()));
    jobs.spawn(Arc::clone(&host.children).run());
    jobs.spawn(Arc::clone(&host.watches).run());
    jobs.spawn(durable::recover::run(Arc::clone(&host)));
    follow_policy(&host, &mut jobs);
    let (requests, _heard) = control.listen()?;
    jobs.spawn(Arc::clone(&control).run(requests));
    jobs.spawn(keep_status(
        Arc::clone(&control),
        Arc::clone(&host),
        StatusFile::new(&home),
    ));

    let asked = async {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            // The terminal of a daemon in the foreground was closed.
            _ = hangup.recv() => "SIGHUP",
            () = control.stop.notified() => "a request",
        }
    };
    let mut asked = std::pin::pin!(asked);
    let starting = start(&options, &config, &host, &manager, &control);
    let began = tokio::select! {
        started = starting => Some(started),
        why = &mut asked => {
            tracing::info!(why, "stopping before the start is complete");
            None
        }
    };
    if let Some(began) = began {
        began?;
        // Whoever looks at the log of a daemon that is ready finds how it began. A disk that takes nothing is told by status.
        drop(tokio::time::timeout(AUDIT_TIME_MAX, host.audit.flush()).await);
        become_ready(options.ready, &home, &control, started)?;
        if let Some(every) = notify::watchdog() {
            jobs.spawn(keep_alive(Arc::clone(&host), every));
        }
        tokio::select! {
            why = &mut asked => tracing::info!(why, "stopping"),
            () = idle(&host, options.idle_timeout) => {
                tracing::info!("stopping: nobody was connected, and no program ran, for long enough");
            }
        }
    }
    if tokio::time::timeout(STOP_TIME_MAX, stop(&host, &manager, &control))
        .await
        .is_err()
    {
        tracing::warn!("the stop took too long and is cut short");
    }
    drop(threads);
    finish_store(&host, store).await;
    finish_audit(&host.audit, host.gate.authority()).await;
    jobs.shutdown().await;
    clean_up(&home);
    tracing::info!(ms = started.elapsed().as_millis(), "stopped");
    Ok(())
}

/// Takes edits of `etc/` by hand, and closes what is taken from somebody.
fn follow_policy(host: &Arc<Host>, jobs: &mut JoinSet<()>) {
    jobs.spawn(Arc::clone(host).keep_enforcing());
    let authority = host.gate.authority();
    match authority.watch() {
        Ok(Some(watch)) => {
            let audit = host.audit.clone();
            let record = move |edited: &Edited| record_edit(&audit, edited);
            jobs.spawn(Arc::clone(authority).follow(watch, record));
        }
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "etc/ is not watched: edits by hand wait for the next daemon"),
    }
}

/// Opens the audit log, and records that a daemon begins.
fn open_audit(
    options: &BootOptions,
    config: &AuditConfig,
    authority: &Authority,
    metrics: &Arc<Metrics>,
    changed: &Arc<Notify>,
) -> Result<(Audit, Report), BootError> {
    // A home that is thrown away needs no proof.
    let (audit, report) = match options.mode {
        Mode::Private => (Audit::memory(), Report::default()),
        Mode::Persistent | Mode::Ephemeral => {
            let with = AuditOptions {
                refuse_tampered: config.tampered == Tampered::Refuse,
                metrics: Arc::clone(metrics),
                changed: Arc::clone(changed),
                ..AuditOptions::default()
            };
            Audit::open(&options.home, with).map_err(|error| match error {
                audit::AuditError::Tampered(count, first) => BootError::Tampered(count, first),
                error => error.into(),
            })?
        }
    };
    let detail = format!(
        "version={} pid={} mode={:?} safe={} unsealed={} policy={}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        options.mode,
        options.safe,
        report.unsealed_tail,
        authority.policy().digest()
    );
    // A log that takes nothing says so itself.
    drop(audit.write(Entry::kernel(audit::Kind::Boot, "boot").detail(&detail)));
    Ok((audit, report))
}

/// Says what is wrong with the audit log, loudly, and goes on (K13).
fn tell_verified(report: &Report, control: &Control) {
    for finding in &report.findings {
        tracing::error!(%finding, "the audit log is not what was written");
    }
    if let Some(first) = report.findings.first() {
        let count = report.findings_count;
        control.missing(&format!(
            "the audit log is not what was written, {count} findings: {first}; `astrid audit verify` tells all"
        ));
    }
    if report.unknown_count > 0 {
        let (count, first) = (
            report.unknown_count,
            report.unknown_outcomes.first().copied().unwrap_or_default(),
        );
        tracing::warn!(
            count,
            first,
            "what was begun before the last daemon ended may have happened or not"
        );
        control.missing(&format!(
            "{count} things that the last daemon began may have happened or not, the first is entry {first} of the audit log"
        ));
    }
}

/// Records the end, and has everything on disk.
async fn finish_audit(audit: &Audit, authority: &Authority) {
    // What was counted until now comes before the end. What cannot be written now is tried again by the stop itself.
    drop(tokio::time::timeout(AUDIT_TIME_MAX, audit.flush()).await);
    let detail = format!("policy={}", authority.policy().digest());
    drop(audit.write(Entry::kernel(audit::Kind::Stop, "stop").detail(&detail)));
    if tokio::time::timeout(AUDIT_TIME_MAX, audit.stop()).await.is_err() {
        tracing::error!("the audit log does not end in time: what was not sealed is lost, as in a crash");
    }
}

/// Finds, orders and loads the capsules.
async fn start(
    options: &BootOptions,
    config: &Config,
    host: &Arc<Host>,
    manager: &Manager,
    control: &Control,
) -> Result<(), BootError> {
    let directory = options.capsules_dir.as_deref().or(config.capsules.directory.as_deref());
    let found = discover::discover(&options.home, options.embedded, directory, options.safe);
    for broken in found.broken {
        tracing::error!(origin = %broken.origin, error = %broken.error, "a bundle cannot be used");
        control.missing(&broken.to_string());
    }
    control.set_state(State::Starting);
    // Before anybody could start a second one beside what still runs.
    if let Err(error) = host.children.reclaim().await {
        tracing::error!(%error, "cannot take over children of an earlier daemon");
        control.missing(&format!("children of an earlier daemon may still run: {error}"));
    }
    manager.start(graph::plan(found.bundles)).await;
    if !manager.operators_can_connect() {
        rescue(options, manager, control).await;
    }
    manager.wake_owners();
    durable::recover::at_start(host)?;
    let loaded = Body::json(&Capsules {
        capsules: manager.reports(),
    });
    host.bus.emit(
        host.gate.kernel_says(control::CAPSULES_LOADED.parse()?),
        Saying::announcement(loaded),
    );
    Ok(())
}

/// Nobody listens for operators: something replaced the built-in uplinks, or one of them failed. They are started all the same, so that
/// there is a way in.
async fn rescue(options: &BootOptions, manager: &Manager, control: &Control) {
    let embedded = discover::discover(&options.home, options.embedded, None, true);
    for uplink in embedded
        .bundles
        .into_iter()
        .filter(|b| b.manifest.capabilities.listen.is_some())
    {
        let name = uplink.name().to_owned();
        tracing::warn!(
            capsule = name,
            "nobody listens for operators: the built-in uplink is started"
        );
        let present = manager.reports().into_iter().find(|report| report.name == name);
        let why = present
            .and_then(|report| report.reason)
            .unwrap_or_else(|| "what is installed in its place does not listen for operators".to_owned());
        control.missing(&format!("{name}: {why}; so the built-in one runs"));
        manager.rescue(uplink).await;
    }
}

/// Says to everybody who waits for it that the daemon is ready (K3, A22).
fn become_ready(
    ready: Option<std::fs::File>,
    home: &Home,
    control: &Control,
    started: Instant,
) -> Result<(), BootError> {
    home::write_run_file(&home.pid_file(), &format!("{}\n", std::process::id())).map_err(io("cannot write run/pid"))?;
    control.set_state(State::Ready);
    // The files first: who hears that the daemon is ready may read them at once.
    if let Err(error) = StatusFile::new(home).write(&control.status()) {
        tracing::warn!(%error, "cannot write run/status.json");
    }
    home::write_run_file(&home.ready_file(), "ready\n").map_err(io("cannot write run/ready"))?;
    tracing::info!(ms = started.elapsed().as_millis(), "ready");
    notify::ready();
    if let Some(mut pipe) = ready
        && let Err(error) = pipe.write_all(b"ready\n")
    {
        // Who started the daemon has stopped waiting; that is no reason not to run.
        tracing::debug!(%error, "nobody waits for the daemon to be ready");
    }
    Ok(())
}

/// Rewrites `run/status.json` when something that it shows has changed.
async fn keep_status(control: Arc<Control>, host: Arc<Host>, file: StatusFile) {
    loop {
        host.changed.notified().await;
        let status = control.status();
        notify::status(&status);
        if let Err(error) = file.write(&status) {
            tracing::warn!(%error, "cannot write run/status.json");
        }
    }
}

/// Tells the service manager that the daemon is alive, for as long as a message goes through the bus and is answered. The only thing here
/// that is done again and again, and only where a watchdog is asked for.
async fn keep_alive(host: Arc<Host>, every: Duration) {
    let Ok(topic) = control::REQUEST_INTERFACES.parse::<Topic>() else {
        return;
    };
    loop {
        let say = host.gate.kernel_says(topic.clone());
        let answer = host.bus.request(say, Saying::announcement(Body::EMPTY), every).await;
        match answer {
            Ok(Outcome::Answer(_)) => notify::alive(),
            _ => tracing::error!("the bus does not answer: the service manager is not told that the daemon is alive"),
        }
        tokio::time::sleep(every).await;
    }
}

/// Returns when nobody was connected, no child ran, and no durable message waited, for that long (K5); never, without a time.
async fn idle(host: &Host, timeout: Option<Duration>) {
    let Some(timeout) = timeout else {
        return std::future::pending().await;
    };
    let (mut connections, mut children) = (host.connections.subscribe(), host.children.running());
    if timeout < STARTUP_GRACE {
        // Any change: the first client may have come and gone before this is looked at.
        let _ = tokio::time::timeout(STARTUP_GRACE, connections.changed()).await;
    }
    loop {
        let quiet = async {
            let nobody = async {
                connections.wait_for(|open| *open == 0).await.is_err()
                    || children.wait_for(|running| *running == 0).await.is_err()
            };
            if nobody.await {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(timeout) => {}
                _ = connections.wait_for(|open| *open > 0) => {}
                _ = children.wait_for(|running| *running > 0) => {}
            }
        };
        quiet.await;
        if *connections.borrow() > 0 || *children.borrow() > 0 {
            continue;
        }
        if host.durable.waiting() == 0 && host.durable.outbox.is_empty() {
            return;
        }
        // What waits is being handled, or will be tried again; it is not told when that is over.
        tokio::time::sleep(timeout.max(WORK_LOOK_MIN)).await;
    }
}

/// Stops in order (K4).
async fn stop(host: &Arc<Host>, manager: &Manager, control: &Control) {
    control.set_state(State::Stopping);
    notify::stopping();
    manager.stop_listening();
    // Who did not begin has nothing to finish.
    let begun = *host.acting.borrow() != Acting::NotYet;
    if begun && let Err(error) = drain(host, manager).await {
        tracing::error!(%error, "cannot tell capsules of the stop");
    }
    // Before their owners: who ends has children that are ended, and nobody starts them again.
    host.children.end(CHILDREN_GRACE).await;
    manager.stop().await;
}

/// Seals what was done last, lets what waits for that leave, and closes the store.
async fn finish_store(host: &Arc<Host>, store: StoreThread) {
    host.ledger.settle();
    if tokio::time::timeout(STORE_TIME_MAX, store.stop()).await.is_err() {
        tracing::error!("the store does not end in time: what was not sealed is lost, as in a crash");
    }
    host.durable.outbox.release(host.store.sealed());
}

/// Tells everybody of the stop, and waits for those that have something to finish.
async fn drain(host: &Arc<Host>, manager: &Manager) -> Result<(), TopicError> {
    let mut waiting = manager.draining();
    let done = host.gate.declared(control::SHUTDOWN_DONE.parse()?);
    let (inbox, _heard) = host.bus.listen("kernel", vec![done], 64, Overflow::DropOldest);
    let say = host.gate.kernel_says(control::SHUTDOWN.parse()?);
    host.bus
        .emit(say, Saying::announcement(Body::json(&serde_json::json!({}))));
    let finish = async {
        while !waiting.is_empty() {
            let Some(delivery) = inbox.next().await else { return };
            if let Source::Capsule(name) = &delivery.message.source {
                waiting.retain(|w| w != name);
            }
        }
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, finish).await.is_err() {
        tracing::warn!(?waiting, "these capsules did not finish in time");
    }
    Ok(())
}

/// Removes what a running daemon leaves in `run/`; the sockets went with their listeners.
fn clean_up(home: &Home) {
    for path in [
        home.token_file(),
        home.ready_file(),
        home.pid_file(),
        home.status_file(),
    ] {
        if let Err(error) = home::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove");
        }
    }
}
