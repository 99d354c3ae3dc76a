//! What lasting costs: durable messages beside the same rows in the same batches, recovery, and what many principals and commits leave.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_kernel::bus::Saying;
use astrid_kernel::bus::message::{Body, Kind, Message, MessageId, Source};
use astrid_kernel::capsule::durable::{self, record};
use astrid_kernel::store::engine::{Engine, EngineError, Later, Open, OpenError, Snapshot, Write};
use astrid_kernel::store::surreal::Disk;
use astrid_kernel::store::table::{Kind as TableKind, Scope, Table};
use astrid_kernel::store::thread::StoreThread;
use astrid_kernel::store::{Batch, Level};
use astrid_tests::bed::{Bed, Settings, answer, read_bundle};
use astrid_wire::Principal;
use futures_util::StreamExt as _;
use parking_lot::Mutex;

use crate::{alone, line, median, runtime};

/// Rounds of a pair: each makes its own store.
const ROUNDS: usize = 3;

pub fn run() {
    for flight in [1, 64] {
        messages(flight);
    }
    recovery(100_000);
    let commits = std::env::var("ASTRID_BENCH_COMMITS").ok().and_then(|n| n.parse().ok());
    many_commits(commits.unwrap_or(100_000));
}

/// An engine that remembers what it was given.
#[derive(Clone)]
struct Recorder {
    disk: Arc<Disk>,
    engine: Arc<Mutex<Option<Arc<dyn Engine>>>>,
    batches: Arc<Mutex<Vec<Vec<Write>>>>,
}

impl Recorder {
    fn new(directory: PathBuf) -> Self {
        Self {
            disk: Arc::new(Disk::new(directory)),
            engine: Arc::default(),
            batches: Arc::default(),
        }
    }

    fn inner(&self) -> Arc<dyn Engine> {
        self.engine.lock().clone().unwrap()
    }
}

impl Engine for Recorder {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        self.inner().snapshot(table)
    }

    fn tables(&self, kind: TableKind) -> Result<Vec<Table>, EngineError> {
        self.inner().tables(kind)
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async move {
            self.batches.lock().push(writes.clone());
            self.inner().apply(writes).await
        })
    }

    fn checkpoint(&self, into: &Path) -> Result<(), EngineError> {
        self.inner().checkpoint(into)
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async move { self.inner().close().await })
    }

    fn size(&self) -> u64 {
        self.inner().size()
    }
}

impl Open for Recorder {
    fn is_worth_trying(&self) -> bool {
        true
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        Box::pin(async move {
            *self.engine.lock() = Some(self.disk.open().await?);
            let engine: Arc<dyn Engine> = Arc::new(self.clone());
            Ok(engine)
        })
    }

    fn place(&self) -> String {
        self.disk.place()
    }

    fn sealed(&self, sequence: u64) -> Result<(), EngineError> {
        self.disk.sealed(sequence)
    }
}

fn passed(who: &Principal, number: u64) -> Saying {
    Saying {
        principal: who.clone(),
        source: Source::Capsule("bench".into()),
        body: Body::json(&serde_json::json!({ "client": "c", "number": number })),
        public: false,
    }
}

async fn settled(bed: &Bed) {
    let host = &bed.host;
    // What waits is counted by looking at every actor, so that is looked at last.
    while !host.durable.outbox.is_empty() || !host.store.is_settled() || host.durable.waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Through the store's thread: accepted on disk, handled, and its handling on disk; a message writes four rows and removes one.
fn messages(flight: usize) {
    let units: u64 = if flight == 1 { 1_000 } else { 10_000 };
    let (mut ours, mut limit) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let home = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(home.path().join("ours"));
        let batches = Arc::clone(&recorder.batches);
        runtime().block_on(async {
            let bundles = vec![read_bundle("relay-c")];
            let bed = Bed::threaded(bundles, Settings::default(), Box::new(recorder)).await;
            let who = Principal::default_owner();
            batches.lock().clear();
            let began = Instant::now();
            let all = (1..=units).map(|n| durable::submit(&bed.host, bed.say("relay.v1.third"), passed(&who, n), None));
            let mut all = futures_util::stream::iter(all).buffer_unordered(flight);
            while let Some(accepted) = all.next().await {
                assert!(accepted.unwrap());
            }
            settled(&bed).await;
            ours.push(began.elapsed().as_secs_f64() * 1e9 / units as f64);
            let report = answer(bed.ask("relay.v1.request.report", serde_json::json!({})).await);
            assert_eq!(report["clients"]["c"]["count"], units);
        });
        let batches = std::mem::take(&mut *batches.lock());
        limit.push(replay(home.path().join("limit"), batches) / units as f64);
    }
    let (ours, limit) = (median(ours), median(limit));
    line(
        &format!("durable message, accepted and handled, {flight} in flight"),
        ours,
        "the same rows, same batches, no kernel",
        limit,
        if flight == 64 {
            "<= 1.5x, >= 30,000/s"
        } else {
            "<= 1.5x"
        },
    );
}

/// Nanoseconds for all of it.
fn replay(directory: PathBuf, batches: Vec<Vec<Write>>) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let disk = Disk::new(directory);
        let engine = disk.open().await.unwrap();
        let began = Instant::now();
        for batch in batches {
            engine.apply(batch).await.unwrap();
        }
        let took = began.elapsed().as_secs_f64() * 1e9;
        engine.close().await.unwrap();
        took
    })
}

fn kept(number: u64) -> record::MessageRecord {
    record::MessageRecord::of(&Message {
        id: MessageId {
            boot: 7,
            sequence: number,
        },
        kind: Kind::Event,
        topic: "relay.v1.third".parse().unwrap(),
        principal: Principal::default_owner(),
        source: Source::Capsule("bench".into()),
        body: passed(&Principal::default_owner(), number).body,
        deadline: None,
        public: false,
    })
}

/// A store with many messages waiting for one actor: until it is open, until the capsule runs, until all are handled.
fn recovery(waiting: u64) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let table = Table::of(
        TableKind::Inbox,
        "relay-c",
        &Scope::Principal(Principal::default_owner()),
    );
    runtime().block_on(async {
        let thread = StoreThread::start(Box::new(Disk::new(directory.clone())))
            .await
            .unwrap();
        let store = thread.store();
        for first in (1..=waiting).step_by(500) {
            let rows = (first..first + 500).map(|n| {
                let record = kept(n);
                Write::put(
                    table.clone(),
                    record::inbox_key(store.row(), record.body.len()),
                    record.to_bytes(),
                )
            });
            let batch = Batch {
                writes: rows.collect(),
                once: Vec::new(),
                level: Level::Durable,
                shared: None,
                epoch: 0,
                now_ms: 0,
            };
            let number = store.sequence(batch).unwrap().number;
            store.settled(number, 0).await.unwrap();
        }
        thread.stop().await;
    });
    runtime().block_on(async {
        let began = Instant::now();
        let disk = Box::new(Disk::new(directory.clone()));
        let bed = Bed::threaded(vec![read_bundle("relay-c")], Settings::default(), disk).await;
        let ready = began.elapsed();
        settled(&bed).await;
        let handled = began.elapsed();
        let report = answer(bed.ask("relay.v1.request.report", serde_json::json!({})).await);
        assert_eq!(report["clients"]["c"]["count"], waiting);
        alone(
            &format!("recovery with {waiting} messages waiting: ready"),
            &format!("{:.0} ms", ready.as_secs_f64() * 1e3),
            "",
        );
        let rate = waiting as f64 / (handled - ready).as_secs_f64();
        alone(
            "  and until all are handled",
            &format!("{:.2} s", handled.as_secs_f64()),
            &format!("{rate:.0}/s"),
        );
    });
}

fn rss_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// As [`rss_bytes`], with each page once however often it is mapped: all instances of a capsule map one image of its memory.
fn pss_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// As many principals, each with state of its own, of which few are live at once; `ASTRID_BENCH_PRINCIPALS` says how many.
pub fn principals() {
    let count = std::env::var("ASTRID_BENCH_PRINCIPALS")
        .ok()
        .and_then(|n| n.parse().ok());
    let count: u64 = count.unwrap_or(100_000);
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let disk = Box::new(Disk::new(home.path().join("store")));
        let before = rss_bytes();
        let bed = Bed::threaded(vec![read_bundle("relay-c")], Settings::default(), disk).await;
        let began = Instant::now();
        // Known is who was here before: a message of each at once would be a queue of so many.
        for first in (0..count).step_by(1000) {
            let all = (first..count.min(first + 1000)).map(|n| {
                let who = Principal::stamped(&format!("p{n}")).unwrap();
                durable::submit(&bed.host, bed.say("relay.v1.third"), passed(&who, 1), None)
            });
            let mut all = futures_util::stream::iter(all).buffer_unordered(256);
            while let Some(accepted) = all.next().await {
                assert!(accepted.unwrap());
            }
            settled(&bed).await;
        }
        let took = began.elapsed();
        let live = bed.host.census.len();
        alone(
            &format!("{count} principals, {live} live: memory of the process"),
            &mib(rss_bytes()),
            "<= 300 MB",
        );
        alone(
            "  the same, pages that are mapped often counted once",
            &mib(pss_bytes()),
            "",
        );
        let grown = rss_bytes().saturating_sub(before);
        alone(
            "  of the first, since before the first principal",
            &mib(grown),
            &format!("{:.1} s for all", took.as_secs_f64()),
        );
    });
}

/// What many small commits to the same state leave; `ASTRID_BENCH_COMMITS` says how many.
fn many_commits(count: u64) {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let table = Table::of(TableKind::Kv, "bench", &Scope::System);
    runtime().block_on(async {
        let thread = StoreThread::start(Box::new(Disk::new(directory.clone())))
            .await
            .unwrap();
        let store = thread.store();
        let began = Instant::now();
        let mut last = 0;
        for n in 0..count {
            let key = (n % 10_000).to_be_bytes().to_vec();
            let batch = Batch {
                writes: vec![Write::put(table.clone(), key.into(), vec![7; 256])],
                once: Vec::new(),
                level: Level::Durable,
                shared: None,
                epoch: 0,
                now_ms: 0,
            };
            last = store.sequence(batch).unwrap().number;
            if n % 64 == 63 {
                store.settled(last, 0).await.unwrap();
            }
        }
        store.settled(last, 0).await.unwrap();
        let took = began.elapsed();
        let size = store.engine().unwrap().size();
        alone(
            &format!("{count} commits, 64 in flight: size on disk"),
            &mib(size),
            &format!(
                "{:.0}/s, memory {}",
                count as f64 / took.as_secs_f64(),
                mib(rss_bytes())
            ),
        );
        thread.stop().await;
        let began = Instant::now();
        let thread = StoreThread::start(Box::new(Disk::new(directory))).await.unwrap();
        alone(
            "  open after a clean end",
            &crate::time(began.elapsed().as_secs_f64() * 1e9),
            "",
        );
        thread.stop().await;
    });
}
