//! The store against plain models, in memory: order, visibility, conflicts, failures, closing.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::memory::Memory;
use super::seal::Step;
use super::table::{Kind, Scope};
use super::*;

fn open(memory: &Memory) -> Arc<Store> {
    Store::open(Box::new(memory.clone())).now_or_never().unwrap().unwrap()
}

fn table() -> Table {
    Table::of(Kind::Kv, "c", &Scope::System)
}

fn put(key: &str, value: &str) -> Write {
    Write::put(table(), Bytes::copy_from_slice(key.as_bytes()), value.to_owned())
}

fn batch(writes: Vec<Write>) -> Batch {
    Batch {
        writes,
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch: 0,
        now_ms: 0,
    }
}

fn seal(store: &Store) -> Step {
    store.seal().now_or_never().unwrap()
}

/// What is sequenced is seen at once by who looks later, and not by who looked before; sealed, it is on disk.
#[test]
fn sequence_then_seal() {
    let memory = Memory::default();
    let store = open(&memory);
    let before = store.view(&table()).unwrap();
    let number = store.sequence(batch(vec![put("a", "1")])).unwrap().number;
    let after = store.view(&table()).unwrap();
    assert_eq!(before.get(b"a").unwrap(), None);
    assert_eq!(after.get(b"a").unwrap().unwrap(), "1");
    assert!(store.sealed() < number && memory.entries().is_empty());
    assert!(matches!(seal(&store), Step::Sealed(n) if n == number));
    assert_eq!(store.sealed(), number);
    assert_eq!(after.get(b"a").unwrap().unwrap(), "1", "an older view stays as it was");
    assert_eq!(open(&memory).view(&table()).unwrap().get(b"a").unwrap().unwrap(), "1");
    assert!(matches!(seal(&store), Step::Idle));
}

/// A crash keeps what was sealed and nothing else, and numbers are never given twice.
#[test]
fn a_crash_keeps_what_was_sealed() {
    let memory = Memory::default();
    let store = open(&memory);
    let row = store.row();
    store.sequence(batch(vec![put("a", "1")])).unwrap();
    seal(&store);
    let lost = store
        .sequence(batch(vec![put("a", "2"), put("b", "2")]))
        .unwrap()
        .number;
    let store = open(&memory);
    let view = store.view(&table()).unwrap();
    assert_eq!(
        (view.get(b"a").unwrap().unwrap(), view.get(b"b").unwrap()),
        ("1".into(), None)
    );
    assert_eq!(
        store.sequence(batch(vec![put("c", "3")])).unwrap().number,
        lost,
        "it was never seen outside"
    );
    assert!(store.row() > row);
}

/// A failed seal forgets what is not on disk, refuses until everybody knows, and numbers go on.
#[test]
fn fail_stop() {
    let memory = Memory::default();
    let store = open(&memory);
    store.sequence(batch(vec![put("a", "1")])).unwrap();
    seal(&store);
    let lost = store.sequence(batch(vec![put("a", "2")])).unwrap().number;
    store.fail(&EngineError::NoSpace("test".into()));
    assert_eq!(store.epoch(), 1);
    assert_eq!(
        store.view(&table()).unwrap().get(b"a").unwrap().unwrap(),
        "1",
        "readers go on"
    );
    let refused = store.sequence(batch(vec![put("a", "3")])).unwrap_err();
    assert!(refused.to_string().contains("no space left"), "{refused}");
    store.reopen().now_or_never().unwrap().unwrap();
    assert!(
        store.sequence(batch(vec![])).is_err(),
        "not before everybody has dropped what was forgotten"
    );
    store.recovered();
    let made_before = store.sequence(batch(vec![put("a", "4")])).unwrap_err();
    assert!(
        matches!(made_before, Refused::Stale),
        "what was read before may be forgotten"
    );
    let after = Batch {
        epoch: store.epoch(),
        ..batch(vec![put("a", "4")])
    };
    assert!(store.sequence(after).unwrap().number > lost);
    seal(&store);
    assert_eq!(store.view(&table()).unwrap().get(b"a").unwrap().unwrap(), "4");
}

/// Who read what another wrote meanwhile is told; who did not is not.
#[test]
fn conflicts() {
    let store = open(&Memory::default());
    let at = store
        .sequence(batch(vec![put("a", "1"), put("b", "1")]))
        .unwrap()
        .number;
    let shared = |keys: &[&'static str], spans: &[(&'static str, Option<&'static str>)], write: &str| Batch {
        shared: Some((
            table(),
            Reads {
                at,
                keys: keys.iter().map(|k| Bytes::from_static(k.as_bytes())).collect(),
                spans: spans
                    .iter()
                    .map(|(s, e)| {
                        (
                            Bytes::from_static(s.as_bytes()),
                            e.map(|e| Bytes::from_static(e.as_bytes())),
                        )
                    })
                    .collect(),
            },
        )),
        ..batch(vec![put(write, "x")])
    };
    store.sequence(shared(&["a"], &[], "a")).unwrap();
    assert!(matches!(
        store.sequence(shared(&["a"], &[], "c")),
        Err(Refused::Conflict)
    ));
    assert!(matches!(
        store.sequence(shared(&[], &[("", Some("b"))], "c")),
        Err(Refused::Conflict)
    ));
    assert!(matches!(
        store.sequence(shared(&[], &[("", None)], "c")),
        Err(Refused::Conflict)
    ));
    store.sequence(shared(&["b"], &[("b", None)], "b")).unwrap();
    store.sequence(shared(&[], &[], "a")).unwrap();
}

/// An id is taken once, by principal, until it leaves its window; over restarts.
#[test]
fn ids_are_taken_once() {
    let memory = Memory::default();
    let mut store = open(&memory);
    let send = |store: &Store, who: &str, id: &str, now_ms: u64| {
        let once = Once {
            principal: Principal::stamped(who).unwrap(),
            id: Bytes::copy_from_slice(id.as_bytes()),
            writes: vec![put(id, who)],
        };
        let once = vec![once];
        store
            .sequence(Batch {
                once,
                now_ms,
                ..batch(vec![])
            })
            .unwrap()
            .admitted
            == [true]
    };
    assert!(send(&store, "ada", "1", 0) && send(&store, "bob", "1", 0));
    assert!(!send(&store, "ada", "1", 1));
    seal(&store);
    store = open(&memory);
    assert!(!send(&store, "ada", "1", once::WINDOW_MS - 1));
    assert!(
        send(&store, "ada", "1", once::WINDOW_MS),
        "a day later it is another message"
    );
    assert!(!send(&store, "ada", "1", once::WINDOW_MS + 1));
}

/// The window holds its number of ids, and its rows do not grow beyond.
#[test]
fn the_window_is_bounded() {
    let memory = Memory::default();
    let store = open(&memory);
    let total = once::WINDOW_IDS_MAX + 50;
    let send = |n: u64| {
        let once = vec![Once {
            principal: Principal::default_owner(),
            id: Bytes::from(n.to_string()),
            writes: Vec::new(),
        }];
        store.sequence(Batch { once, ..batch(vec![]) }).unwrap().admitted == [true]
    };
    for n in 0..total {
        assert!(send(n));
        if n % 1000 == 0 {
            while let Step::Sealed(_) = seal(&store) {}
        }
    }
    assert!(!send(total - 1) && !send(50), "the last hundred thousand are known");
    assert!(send(0), "older ones are not");
    while let Step::Sealed(_) = seal(&store) {}
    let rows = memory.entries().len() as u64;
    assert_eq!(rows, 2 * once::WINDOW_IDS_MAX + 2);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    Seal,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => (0..20u8, any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        2 => (0..20u8).prop_map(Op::Delete),
        1 => Just(Op::Seal),
    ];
    proptest::collection::vec(op, 0..60)
}

proptest! {
    /// A view is what a plain map would be, whatever is sealed and whatever is on top; in both directions, in any span.
    #[test]
    fn a_view_is_a_map(ops in ops(), over in ops(), start in 0..20u8, end in proptest::option::of(0..20u8), backwards: bool) {
        let store = open(&Memory::default());
        let mut model = BTreeMap::new();
        let key = |k: u8| Bytes::from(vec![k]);
        for op in ops {
            match op {
                Op::Put(k, v) => {
                    model.insert(key(k), Bytes::from(vec![v]));
                    store.sequence(batch(vec![Write::put(table(), key(k), vec![v])])).unwrap();
                }
                Op::Delete(k) => {
                    model.remove(&key(k));
                    store.sequence(batch(vec![Write::delete(table(), key(k))])).unwrap();
                }
                Op::Seal => drop(seal(&store)),
            }
        }
        let mut changes = BTreeMap::new();
        for op in over {
            match op {
                Op::Put(k, v) => {
                    model.insert(key(k), Bytes::from(vec![v]));
                    changes.insert(key(k), Some(Bytes::from(vec![v])));
                }
                Op::Delete(k) => {
                    model.remove(&key(k));
                    changes.insert(key(k), None);
                }
                Op::Seal => {}
            }
        }
        let view = store.view(&table()).unwrap();
        let (start, end) = ([start], end.map(|e| [e]));
        let span = Span { start: &start, end: end.as_ref().map(|e| &e[..]), backwards };
        let mut found = Vec::new();
        view.scan(span, &changes, &mut |k, v| { found.push((Bytes::copy_from_slice(k), v)); true }).unwrap();
        let mut expected: Vec<_> = model
            .into_iter()
            .filter(|(k, _)| k[..] >= start[..] && end.is_none_or(|e| k[..] < e[..]))
            .collect();
        if backwards {
            expected.reverse();
        }
        prop_assert_eq!(&found, &expected);
        let mut first = Vec::new();
        view.scan(span, &changes, &mut |k, v| { first.push((Bytes::copy_from_slice(k), v)); first.len() < 2 }).unwrap();
        prop_assert_eq!(&first[..], &expected[..expected.len().min(2)]);
    }
}

/// Drives a store in the background of a test.
fn driven<T>(memory: &Memory, test: impl AsyncFnOnce(Arc<Store>, faults::Faults) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (faults, opener) = faults::Faults::over(memory.clone());
        let store = Store::open(opener).await.unwrap();
        let driver = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.run().await }
        });
        let result = test(Arc::clone(&store), faults).await;
        store.close();
        driver.await.unwrap();
        result
    })
}

fn eventual(key: &str) -> Batch {
    Batch {
        level: Level::Eventual,
        ..batch(vec![put(key, "1")])
    }
}

async fn sealed(store: &Store, number: u64) {
    while store.sealed() < number {
        store.progress().await;
    }
}

/// What nobody waits for shares a seal with what comes soon after; and waits for it also when something urgent was sealed just before.
#[test]
fn eventual_commits_wait_for_each_other() {
    driven(&Memory::default(), async |store, _| {
        for round in 0..3 {
            let durable = store.sequence(batch(vec![put("d", "1")])).unwrap().number;
            sealed(&store, durable).await;
            let began = tokio::time::Instant::now();
            let first = store.sequence(eventual("a")).unwrap().number;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let alone = store.sealed() >= first;
            if began.elapsed() >= seal::EVENTUAL_WAIT {
                // This test was kept waiting itself, and says nothing then.
                sealed(&store, first).await;
                continue;
            }
            assert!(!alone, "round {round}");
            let second = store.sequence(eventual("b")).unwrap().number;
            let in_time = began.elapsed() < seal::EVENTUAL_WAIT;
            sealed(&store, first).await;
            assert!(!in_time || store.sealed() == second, "one seal for both");
            sealed(&store, second).await;
        }
        // Of several, since a busy machine may keep this test itself waiting.
        let mut fastest = std::time::Duration::MAX;
        for _ in 0..20 {
            store.sequence(eventual("a")).unwrap();
            let durable = store.sequence(batch(vec![put("d", "1")])).unwrap().number;
            let began = tokio::time::Instant::now();
            sealed(&store, durable).await;
            fastest = fastest.min(began.elapsed());
        }
        assert!(fastest < seal::EVENTUAL_WAIT, "who waits is not kept waiting");
    });
}

/// Much is sealed before its time, and whoever waits for room gets it.
#[test]
fn much_is_sealed_at_once() {
    driven(&Memory::default(), async |store, faults| {
        faults.set_held(true);
        let large = || Batch {
            level: Level::Eventual,
            ..batch(vec![Write::put(table(), Bytes::from_static(b"a"), vec![0; 1 << 20])])
        };
        while !store.is_crowded() {
            store.sequence(large()).unwrap();
            tokio::task::yield_now().await;
        }
        let room = store.room();
        let mut room = std::pin::pin!(room);
        assert!(room.as_mut().now_or_never().is_none());
        faults.set_held(false);
        room.await;
        assert!(!store.is_crowded());
    });
}

/// Closed while it fails, while it waits to be opened again, or before it was told that everybody has recovered: it ends.
#[test]
fn a_close_is_never_forgotten() {
    for moment in 0..3 {
        let memory = Memory::default();
        driven(&memory, async |store, faults| {
            faults.set_full(moment == 1);
            faults.fail_batch(1, false);
            faults.set_held(true);
            store.sequence(batch(vec![put("a", "1")])).unwrap();
            // The seal has begun.
            while !store.state.lock().queue.is_empty() {
                tokio::task::yield_now().await;
            }
            if moment == 0 {
                store.close();
            }
            faults.set_held(false);
            if moment == 1 {
                store.phase().wait_for(|p| matches!(p, Phase::Failed(_))).await.unwrap();
            }
            if moment == 2 {
                store.phase().wait_for(|p| *p == Phase::Recovering).await.unwrap();
            }
        });
        assert!(memory.entries().is_empty());
    }
}
