//! The engine on disk against its twin in memory; copies, formats, the witness.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests look at the store's files, and change them"
)]

use proptest::prelude::*;

use super::*;
use crate::store::engine::{Open, OpenError};
use crate::store::memory::Memory;
use crate::store::table::Scope;
use crate::store::{Batch, Level, Phase, Store};
use astrid_wire::Principal;

mod damage;
mod faults;

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

fn disk(home: &tempfile::TempDir) -> Disk {
    Disk::new(home.path().join("store"))
}

pub(super) fn table(capsule: &str) -> Table {
    Table::of(Kind::Kv, capsule, &Scope::System)
}

pub(super) fn put(capsule: &str, key: &[u8], value: &[u8]) -> Write {
    Write::put(table(capsule), Bytes::copy_from_slice(key), value.to_vec())
}

pub(super) fn batch(writes: Vec<Write>) -> Batch {
    Batch {
        writes,
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch: 0,
        now_ms: 0,
    }
}

fn rows(engine: &dyn Engine, table: &Table, span: Span<'_>) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let mut keys = Vec::new();
    let snapshot = engine.snapshot(table).unwrap();
    snapshot
        .scan(span, &mut |k, v| {
            rows.push((Bytes::copy_from_slice(k), v));
            true
        })
        .unwrap();
    snapshot
        .keys(span, &mut |k| {
            keys.push(Bytes::copy_from_slice(k));
            true
        })
        .unwrap();
    assert_eq!(keys, rows.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>());
    rows
}

fn tables() -> Vec<Table> {
    let ada = Scope::Principal(Principal::stamped("ada").unwrap());
    vec![
        Table::of(Kind::Kv, "a", &Scope::System),
        Table::of(Kind::Kv, "a", &ada),
        Table::of(Kind::Kv, "a", &Scope::Instance(1)),
        Table::of(Kind::Kv, "ab", &Scope::System),
        Table::of(Kind::Inbox, "a", &Scope::System),
        Table::meta(),
    ]
}

#[derive(Clone, Debug)]
struct Op {
    table: usize,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

fn ops() -> impl Strategy<Value = Vec<Vec<Op>>> {
    let key = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), 0x61..0x64u8], 0..3);
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    let op = (0..6usize, key, value).prop_map(|(table, key, value)| Op { table, key, value });
    proptest::collection::vec(proptest::collection::vec(op, 0..8), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The engine on disk and its twin in memory tell the same, in every table, direction and span; also after it was closed and opened.
    #[test]
    fn the_disk_is_as_the_memory(
        batches in ops(),
        start in proptest::collection::vec(0x60..0x65u8, 0..2),
        end in proptest::option::of(proptest::collection::vec(0x60..0x65u8, 0..2)),
        backwards: bool,
    ) {
        let home = tempfile::tempdir().unwrap();
        let all = tables();
        runtime().block_on(async {
            let (disk, memory) = (disk(&home), Memory::default());
            let mut engine = disk.open().await.unwrap();
            for (n, ops) in batches.iter().enumerate() {
                let write = |op: &Op| Write {
                    table: all[op.table].clone(),
                    key: op.key.clone().into(),
                    value: op.value.clone().map(Bytes::from),
                };
                let writes: Vec<Write> = ops.iter().map(write).collect();
                memory.write(writes.clone());
                engine.apply(writes).await.unwrap();
                if n == 5 {
                    engine.close().await.unwrap();
                    engine = disk.open().await.unwrap();
                }
            }
            let span = Span { start: &start, end: end.as_deref(), backwards };
            for table in &all {
                assert_eq!(rows(&*engine, table, span), rows(&memory, table, span), "{table:?}");
                let (ours, twin) = (engine.snapshot(table).unwrap(), memory.snapshot(table).unwrap());
                for op in batches.iter().flatten() {
                    assert_eq!(ours.get(&op.key).unwrap(), twin.get(&op.key).unwrap());
                }
            }
            for kind in [Kind::Kv, Kind::Inbox, Kind::Meta, Kind::Timer] {
                assert_eq!(engine.tables(kind).unwrap(), memory.tables(kind).unwrap());
            }
            engine.close().await.unwrap();
        });
    }
}

/// A snapshot is read from any thread, stays as it was, and a scan ends when it is told to.
#[test]
fn snapshots_stay() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let engine = disk(&home).open().await.unwrap();
        engine
            .apply(vec![put("a", b"1", b"x"), put("a", b"2", b"y")])
            .await
            .unwrap();
        let snapshot = engine.snapshot(&table("a")).unwrap();
        engine
            .apply(vec![
                put("a", b"1", b"z"),
                Write::delete(table("a"), Bytes::from_static(b"2")),
            ])
            .await
            .unwrap();
        let seen = std::thread::spawn(move || {
            let mut seen = Vec::new();
            snapshot
                .scan(Span::ALL, &mut |_, v| {
                    seen.push(v);
                    false
                })
                .unwrap();
            (
                snapshot.get(b"1").unwrap().unwrap(),
                snapshot.get(b"2").unwrap().unwrap(),
                seen,
            )
        });
        assert_eq!(seen.join().unwrap(), ("x".into(), "y".into(), vec!["x".into()]));
        let now = engine.snapshot(&table("a")).unwrap();
        assert_eq!(
            (now.get(b"1").unwrap().unwrap(), now.get(b"2").unwrap()),
            ("z".into(), None)
        );
        engine.close().await.unwrap();
        assert!(engine.apply(vec![put("a", b"1", b"w")]).await.is_err());
    });
}

/// K22: a copy is made while others write, is a store that opens, and holds all that was sealed before it was begun and none in part.
#[test]
fn a_copy_is_a_store() {
    let home = tempfile::tempdir().unwrap();
    let (from, into) = (home.path().join("store"), home.path().join("copy"));
    runtime().block_on(async {
        let store = Store::open(Box::new(Disk::new(from.clone()))).await.unwrap();
        let write = async |n: u32| {
            let number = n.to_be_bytes();
            store
                .sequence(batch(vec![put("a", &number, b"x"), put("b", &number, b"x")]))
                .unwrap();
            store.seal().await;
        };
        for n in 0..50 {
            write(n).await;
        }
        let engine = store.engine().unwrap();
        let copying = {
            let (engine, into) = (Arc::clone(&engine), into.clone());
            std::thread::spawn(move || engine.checkpoint(&into))
        };
        for n in 50..100 {
            write(n).await;
        }
        copying.join().unwrap().unwrap();
        assert!(engine.checkpoint(&into).is_err(), "nothing is written over");
        store.close();
        store.run().await;
        let copy = Disk::new(into.clone()).open().await.unwrap();
        let (a, b) = (
            rows(&*copy, &table("a"), Span::ALL),
            rows(&*copy, &table("b"), Span::ALL),
        );
        assert!(a == b && a.len() >= 50, "{} and {}", a.len(), b.len());
        assert!(copy.size() > 0);
        copy.close().await.unwrap();
    });
    assert_eq!(
        std::fs::read_to_string(into.join("format")).unwrap(),
        "astrid store 1\n"
    );
}

fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// What a newer version made is refused and left alone; what says nothing of its version, too.
#[test]
fn what_is_newer_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let open = || runtime().block_on(Disk::new(directory.clone()).open());
    runtime().block_on(async {
        let engine = disk(&home).open().await.unwrap();
        engine.apply(vec![put("a", b"1", b"x")]).await.unwrap();
        engine.close().await.unwrap();
    });
    std::fs::write(directory.join("format"), "astrid store 2\n").unwrap();
    let before = content(&directory);
    let error = open().err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1 }), "{error}");
    assert_eq!(content(&directory), before);
    for text in ["astrid store 0\n", "astrid store", "", "something else"] {
        std::fs::write(directory.join("format"), text).unwrap();
        assert!(
            matches!(open().err().unwrap(), OpenError::Engine(EngineError::Damaged(_))),
            "{text:?}"
        );
    }
    std::fs::remove_file(directory.join("format")).unwrap();
    assert!(matches!(
        open().err().unwrap(),
        OpenError::Engine(EngineError::Damaged(_))
    ));
}

fn rename(engine: &dyn Engine) -> Later<'_, Result<(), EngineError>> {
    Box::pin(async move {
        let Some(value) = engine.snapshot(&table("a"))?.get(b"old")? else {
            return Ok(());
        };
        let old = Write::delete(table("a"), Bytes::from_static(b"old"));
        engine.apply(vec![put("a", b"new", &value), old]).await
    })
}

fn refuse(_: &dyn Engine) -> Later<'_, Result<(), EngineError>> {
    Box::pin(std::future::ready(Err(EngineError::Damaged("test".into()))))
}

/// An older store is brought to this version once, in steps; a step that fails is done again, and those before it are not.
#[test]
fn what_is_older_is_migrated() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let with = |migrations: &'static [Migration]| Disk::with(directory.clone(), migrations);
    runtime().block_on(async {
        let engine = with(&[]).open().await.unwrap();
        engine.apply(vec![put("a", b"old", b"x")]).await.unwrap();
        engine.close().await.unwrap();
        assert!(with(&[rename, refuse]).open().await.is_err());
        assert_eq!(format::read(&directory).unwrap(), Some(2), "the first step is done");
        assert!(matches!(
            with(&[]).open().await,
            Err(OpenError::Newer { found: 2, known: 1 })
        ));
        let engine = with(&[refuse, rename]).open().await.unwrap();
        assert_eq!(format::read(&directory).unwrap(), Some(3));
        let now = engine.snapshot(&table("a")).unwrap();
        assert_eq!(
            (now.get(b"new").unwrap().unwrap(), now.get(b"old").unwrap()),
            ("x".into(), None)
        );
        engine.close().await.unwrap();
        assert!(with(&[refuse, refuse]).open().await.is_ok(), "nothing is left to do");
    });
}

/// A store that lacks what was acknowledged is refused until somebody accepts the loss; a witness that lost a slot still speaks.
#[test]
fn what_is_lost_is_noticed() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let earlier = home.path().join("earlier");
    runtime().block_on(async {
        let store = Store::open(Box::new(disk(&home))).await.unwrap();
        for n in 0..3 {
            store.sequence(batch(vec![put("a", b"k", &[n])])).unwrap();
            store.seal().await;
            if n == 1 {
                store.engine().unwrap().checkpoint(&earlier).unwrap();
            }
        }
        store.close();
        store.run().await;
        drop(store);
        // As if the end of the log were gone.
        std::fs::remove_dir_all(directory.join("tree")).unwrap();
        std::fs::rename(earlier.join("tree"), directory.join("tree")).unwrap();
        for _ in 0..2 {
            let error = disk(&home).open().await.err().unwrap();
            assert!(matches!(error, OpenError::Lost { found: 2, sealed: 3 }), "{error}");
            assert!(error.hint("there").contains("there/head"));
        }
        std::fs::remove_file(directory.join("head")).unwrap();
        let store = Store::open(Box::new(disk(&home))).await.unwrap();
        assert_eq!(store.sealed(), 2);
        assert_eq!(store.view(&table("a")).unwrap().get(b"k").unwrap().unwrap(), [1][..]);
        store.close();
        store.run().await;
        drop(store);
        // As if nothing had ever been there: all of it, or all but a file.
        for gone in ["tree", ""] {
            std::fs::remove_dir_all(directory.join(gone)).unwrap();
            std::fs::remove_file(directory.join("head")).ok();
            for _ in 0..2 {
                let error = disk(&home).open().await.err().unwrap();
                assert!(matches!(error, OpenError::Gone), "{error}");
                assert!(error.hint("there").contains("there.made"));
            }
        }
        std::fs::remove_file(directory.with_extension("made")).unwrap();
        let store = Store::open(Box::new(disk(&home))).await.unwrap();
        assert_eq!(store.sealed(), 0);
    });
}

/// The whole on its thread: what is sequenced before the stop is on disk after it.
#[test]
fn the_thread_seals_and_stops() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let thread = crate::store::thread::StoreThread::start(Box::new(disk(&home)))
            .await
            .unwrap();
        let store = Arc::clone(thread.store());
        let number = store.sequence(batch(vec![put("a", b"1", b"x")])).unwrap().number;
        while store.sealed() < number {
            store.progress().await;
        }
        let eventual = Batch {
            level: Level::Eventual,
            ..batch(vec![put("a", b"2", b"y")])
        };
        store.sequence(eventual).unwrap();
        thread.stop().await;
        assert_eq!(*store.phase().borrow(), Phase::Closed);
        assert!(store.sequence(batch(vec![])).is_err());
        let again = crate::store::thread::StoreThread::start(Box::new(disk(&home)))
            .await
            .unwrap();
        assert_eq!(
            again.store().view(&table("a")).unwrap().get(b"2").unwrap().unwrap(),
            "y"
        );
        let error = crate::store::thread::StoreThread::start(Box::new(disk(&home)))
            .await
            .unwrap_err();
        assert!(
            matches!(error, crate::store::thread::StartError::Open { .. }),
            "{error}"
        );
        again.stop().await;
    });
}

/// K19: what an open store leaves running wakes nobody: its threads sleep until they are told, or may be woken at any later time.
#[test]
fn an_open_store_is_at_rest() {
    const NAME: &str = "at-rest";
    let home = tempfile::tempdir().unwrap();
    let disk = disk(&home);
    let look = move || {
        runtime().block_on(async {
            let own = rustix::thread::current_timer_slack().unwrap();
            let engine = disk.open().await.unwrap();
            assert_eq!(rustix::thread::current_timer_slack().unwrap(), own);
            let threads = std::fs::read_dir("/proc/thread-self/..")
                .unwrap()
                .map(|thread| thread.unwrap());
            let named = |thread: &std::fs::DirEntry| {
                std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim_end() == NAME)
            };
            let slack = |thread: std::fs::DirEntry| {
                let path = Path::new("/proc").join(thread.file_name()).join("timerslack_ns");
                std::fs::read_to_string(path)
                    .unwrap()
                    .trim_end()
                    .parse::<u64>()
                    .unwrap()
            };
            // A thread that nobody named has the name of the one that started it.
            let mut found: Vec<u64> = threads.filter(named).map(slack).collect();
            found.sort_unstable();
            assert_eq!(found, [own, CLOCK_SLACK_NS]);
            engine.close().await.unwrap();
        });
    };
    std::thread::Builder::new()
        .name(NAME.to_owned())
        .spawn(look)
        .unwrap()
        .join()
        .unwrap();
}
