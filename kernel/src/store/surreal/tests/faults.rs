//! Failures while the store works: K6, K22 (restart and failure never lose what was acknowledged).

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::process::{Command, Stdio};

use super::*;
use crate::store::faults::Faults;
use crate::store::thread::StoreThread;

/// Waits until a commit is on disk; an error if it was forgotten.
async fn sealed(store: &Store, number: u64, epoch: u64) -> Result<(), ()> {
    while store.sealed() < number {
        if store.epoch() != epoch {
            return Err(());
        }
        store.progress().await;
    }
    Ok(())
}

async fn commit(store: &Store, key: &[u8], value: &[u8]) -> Result<(), ()> {
    let epoch = store.epoch();
    let number = store
        .sequence(now(store, vec![put("a", key, value)]))
        .map_err(drop)?
        .number;
    sealed(store, number, epoch).await
}

fn now(store: &Store, writes: Vec<Write>) -> Batch {
    Batch {
        epoch: store.epoch(),
        ..batch(writes)
    }
}

async fn until(store: &Store, wanted: fn(&Phase) -> bool) {
    store.phase().wait_for(wanted).await.unwrap();
}

fn value(store: &Store, key: &[u8]) -> Option<Bytes> {
    store.view(&table("a")).unwrap().get(key).unwrap()
}

/// The engine ends under the store: the store fails, opens it again by itself, lacks nothing that was sealed, and goes on.
#[test]
fn an_engine_that_ended_is_opened_again() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let thread = StoreThread::start(Box::new(disk(&home))).await.unwrap();
        let store = Arc::clone(thread.store());
        for round in 0..3u8 {
            commit(&store, &[round], b"sealed").await.unwrap();
            let slow_reader = store.view(&table("a")).unwrap();
            store.engine().unwrap().close().await.unwrap();
            commit(&store, b"lost", b"x").await.unwrap_err();
            until(&store, |phase| *phase == Phase::Recovering).await;
            assert!(store.sequence(now(&store, vec![])).is_err());
            store.recovered();
            for earlier in 0..=round {
                assert_eq!(value(&store, &[earlier]).unwrap(), "sealed");
            }
            assert_eq!(value(&store, b"lost"), None);
            commit(&store, b"next", &[round]).await.unwrap();
            assert_eq!(slow_reader.get(&[round]).unwrap().unwrap(), "sealed");
        }
        assert_eq!(store.epoch(), 3);
        thread.stop().await;
    });
}

/// A batch whose failure is not its absence: what reached the disk is there after, and its number is not given again.
#[test]
fn what_failed_and_landed_is_found() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (faults, opener) = Faults::over(disk(&home));
        let thread = StoreThread::start(opener).await.unwrap();
        let store = Arc::clone(thread.store());
        for lands in [true, false] {
            faults.fail_batch(1, lands);
            let before = store.sealed();
            commit(&store, b"k", &[u8::from(lands)]).await.unwrap_err();
            until(&store, |phase| *phase == Phase::Recovering).await;
            store.recovered();
            assert_eq!(value(&store, b"k").unwrap(), [1][..]);
            assert_eq!(store.sealed(), before + u64::from(lands));
            let next = store.sequence(now(&store, vec![])).unwrap().number;
            assert!(next > before + 1);
            sealed(&store, next, store.epoch()).await.unwrap();
        }
        thread.stop().await;
    });
}

/// No space: commits are refused and say why, readers go on, the engine is not touched; with space it works again.
#[test]
fn a_full_disk_is_waited_out() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (faults, opener) = Faults::over(disk(&home));
        let thread = StoreThread::start(opener).await.unwrap();
        let store = Arc::clone(thread.store());
        commit(&store, b"k", b"v").await.unwrap();
        faults.set_full(true);
        commit(&store, b"k", b"w").await.unwrap_err();
        until(&store, |phase| matches!(phase, Phase::Failed(_))).await;
        let refused = store.sequence(now(&store, vec![])).unwrap_err().to_string();
        assert!(refused.contains("no space left"), "{refused}");
        assert_eq!(value(&store, b"k").unwrap(), "v");
        assert_eq!(faults.opened(), 1);
        faults.set_full(false);
        until(&store, |phase| *phase == Phase::Recovering).await;
        store.recovered();
        commit(&store, b"k", b"x").await.unwrap();
        thread.stop().await;
    });
}

/// A store that is closed while it has failed, or while a seal waits, ends all the same.
#[test]
fn a_failed_store_can_be_closed() {
    let home = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let (faults, opener) = Faults::over(disk(&home));
        let thread = StoreThread::start(opener).await.unwrap();
        faults.set_full(true);
        commit(thread.store(), b"k", b"w").await.unwrap_err();
        thread.stop().await;

        let (faults, opener) = Faults::over(disk(&home));
        let thread = StoreThread::start(opener).await.unwrap();
        let store = Arc::clone(thread.store());
        faults.set_held(true);
        let number = store.sequence(batch(vec![put("a", b"k", b"v")])).unwrap().number;
        store
            .sequence(Batch {
                level: Level::Eventual,
                ..batch(vec![put("a", b"l", b"v")])
            })
            .unwrap();
        store.close();
        assert!(store.sealed() < number);
        faults.set_held(false);
        thread.stop().await;
        assert_eq!(store.sealed(), number + 1, "what was taken before the close is sealed");
        assert_eq!(*store.phase().borrow(), Phase::Closed);
    });
}

/// Bytes of the file system of the next test.
const SMALL_DISK: &str = "size=200m";

/// Says to this test's own program that it is to be the inner part of a test, and where.
const INNER: &str = "ASTRID_STORE_TEST_INNER";

/// A disk that is really full, in a mount namespace of its own; only root can make one.
#[test]
fn a_disk_that_is_really_full() {
    if let Some(directory) = std::env::var_os(INNER) {
        runtime().block_on(fill(PathBuf::from(directory)));
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let script =
        format!("mount -t tmpfs -o {SMALL_DISK},mode=700 tmpfs \"$1\" && exec \"$0\" --exact --nocapture \"$2\"");
    let probe = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(home.path())
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: this user cannot mount a file system");
        return;
    }
    let inner = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .arg(home.path())
        .arg("store::surreal::tests::faults::a_disk_that_is_really_full")
        .env(INNER, home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
}

async fn fill(directory: PathBuf) {
    let disk = Disk::new(directory.join("store"));
    let thread = StoreThread::start(Box::new(disk)).await.unwrap();
    let store = Arc::clone(thread.store());
    let ballast = directory.join("ballast");
    let mut acknowledged = Vec::new();
    for ballast_bytes in [150 << 20, 120 << 20] {
        // Others fill the disk too.
        std::fs::write(&ballast, vec![1; ballast_bytes]).unwrap();
        let refused = loop {
            let key = (acknowledged.len() as u32).to_be_bytes();
            let value = [&key[..], &[0x5a; 50 << 10]].concat();
            let epoch = store.epoch();
            match store.sequence(now(&store, vec![put("a", &key, &value)])) {
                Err(refused) => break refused,
                Ok(sequenced) => {
                    if sealed(&store, sequenced.number, epoch).await.is_ok() {
                        acknowledged.push(value);
                    }
                }
            }
            assert!(acknowledged.len() < 4000, "the disk does not get full");
        };
        assert!(refused.to_string().contains("no space left"), "{refused}");
        check(&store, &acknowledged);
        std::fs::remove_file(&ballast).unwrap();
        until(&store, |phase| *phase == Phase::Recovering).await;
        store.recovered();
        check(&store, &acknowledged);
        let next = commit(&store, b"round", b"next").await;
        assert!(
            next.is_ok(),
            "{ballast_bytes} {:?} {}",
            store.phase().borrow(),
            acknowledged.len()
        );
    }
    thread.stop().await;
}

fn check(store: &Store, acknowledged: &[Vec<u8>]) {
    for (n, expected) in acknowledged.iter().enumerate() {
        assert!(value(store, &(n as u32).to_be_bytes()).unwrap() == expected[..], "{n}");
    }
}
