//! Figures for people; run by hand.
#![allow(clippy::print_stdout, reason = "figures for people")]
use super::*;
use crate::store::thread::StoreThread;
use std::time::Instant;

fn rss() -> (u64, u64) {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    let f = |n: &str| {
        s.lines()
            .find(|l| l.starts_with(n))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    (f("VmRSS:"), f("RssAnon:"))
}
fn switches() -> u64 {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|t| {
            let s = std::fs::read_to_string(t.unwrap().path().join("status")).unwrap();
            s.lines()
                .filter(|l| l.contains("ctxt_switches"))
                .map(|l| l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
                .sum::<u64>()
        })
        .sum()
}
fn three(n: u64) -> Vec<Write> {
    (0..3u8)
        .map(|i| {
            let mut k = n.to_be_bytes().to_vec();
            k.push(i);
            Write::put(table("a"), k.into(), vec![i; 256])
        })
        .collect()
}
#[test]
#[ignore = "figures"]
fn figures() {
    let home = tempfile::tempdir_in(std::env::var("FIG_DIR").unwrap_or("/tmp".into())).unwrap();
    println!("rss before {:?} kB", rss());
    runtime().block_on(async {
        let t = Instant::now();
        let thread = StoreThread::start(Box::new(Disk::new(home.path().join("s"))))
            .await
            .unwrap();
        println!("first open {:?}; rss {:?}", t.elapsed(), rss());
        let before = switches();
        tokio::time::sleep(Duration::from_secs(10)).await;
        println!("switches in 10 s idle: {}", switches() - before);
        let store = Arc::clone(thread.store());
        let commits = 2000u64;
        for round in 0..3 {
            let t = Instant::now();
            for n in 0..commits {
                let number = store.sequence(batch(three(n))).unwrap().number;
                while store.sealed() < number {
                    store.progress().await;
                }
            }
            println!(
                "{round}: store, 1 in flight: {:.1} us",
                t.elapsed().as_secs_f64() * 1e6 / commits as f64
            );
            for flight in [64u64] {
                let t = Instant::now();
                let total = 20_000 / flight * flight;
                let mut n = 0;
                let mut last = store.sealed();
                let first = last;
                while last < first + total {
                    while n < total && first + n < store.sealed() + flight {
                        last = store.sequence(batch(three(n))).unwrap().number;
                        n += 1;
                    }
                    let s = store.sealed();
                    if s >= first + total {
                        break;
                    }
                    while store.sealed() == s {
                        store.progress().await;
                    }
                }
                while store.sealed() < last {
                    store.progress().await;
                }
                println!(
                    "{round}: store, {flight} in flight: {:.1} us",
                    t.elapsed().as_secs_f64() * 1e6 / total as f64
                );
            }
            // the same, directly
            for group in [1u64, 64] {
                let dir = home.path().join(format!("d{round}-{group}"));
                std::fs::create_dir(&dir).unwrap();
                let tree = TreeBuilder::with_options(options(dir)).build().unwrap();
                let total = if group == 1 { 2000 } else { 20_000 / group * group };
                let t = Instant::now();
                for g in 0..total / group {
                    let mut tx = tree.begin_with_mode(Mode::WriteOnly).unwrap();
                    tx.set_durability(Durability::Immediate);
                    for n in g * group..(g + 1) * group {
                        for w in three(n) {
                            tx.set(full_key(&w.table, &w.key), Vec::from(w.value.unwrap())).unwrap();
                        }
                    }
                    tx.commit().await.unwrap();
                }
                println!(
                    "{round}: direct, groups of {group}: {:.1} us",
                    t.elapsed().as_secs_f64() * 1e6 / total as f64
                );
                tree.close().await.unwrap();
            }
        }
        // reads
        let t = Instant::now();
        for n in 0..100_000u64 {
            let v = store.view(&table("a")).unwrap();
            let mut k = (n % 2000).to_be_bytes().to_vec();
            k.push(1);
            assert!(v.get(&k).unwrap().is_some());
        }
        println!("view + get: {:.2} us", t.elapsed().as_secs_f64() * 1e6 / 1e5);
        let t = Instant::now();
        for _ in 0..100_000u64 {
            let _v = store.view(&table("a")).unwrap();
        }
        println!("view: {:.2} us", t.elapsed().as_secs_f64() * 1e6 / 1e5);
        let mut cnt = 0;
        let t = Instant::now();
        store
            .view(&table("a"))
            .unwrap()
            .keys(&mut |_| {
                cnt += 1;
                true
            })
            .unwrap();
        println!("keys of {cnt}: {:?}", t.elapsed());
        println!("size {} rss {:?}", store.engine().unwrap().size(), rss());
        thread.stop().await;
        // tombstones
        let thread = StoreThread::start(Box::new(Disk::new(home.path().join("t"))))
            .await
            .unwrap();
        let store = Arc::clone(thread.store());
        for n in 0..50_000u64 {
            store
                .sequence(Batch {
                    level: Level::Eventual,
                    ..batch(vec![Write::put(
                        table("i"),
                        Bytes::copy_from_slice(&n.to_be_bytes()),
                        vec![1; 200],
                    )])
                })
                .unwrap();
            store
                .sequence(Batch {
                    level: Level::Eventual,
                    ..batch(vec![Write::delete(
                        table("i"),
                        Bytes::copy_from_slice(&n.to_be_bytes()),
                    )])
                })
                .unwrap();
            if n % 1000 == 0 {
                let last = store.sequence(batch(vec![])).unwrap().number;
                while store.sealed() < last {
                    store.progress().await;
                }
            }
        }
        let last = store.sequence(batch(vec![])).unwrap().number;
        while store.sealed() < last {
            store.progress().await;
        }
        let t = Instant::now();
        assert!(store.rows(&table("i"), b"", 10).unwrap().is_empty());
        println!("scan over 50k tombstones: {:?}", t.elapsed());
        let t = Instant::now();
        println!(
            "tables: {:?} in {:?}",
            store.engine().unwrap().tables(Kind::Kv).unwrap().len(),
            t.elapsed()
        );
        thread.stop().await;
        // open times
        for clean in [true, false] {
            let dir = home.path().join(format!("o{clean}"));
            let disk = Disk::new(dir.clone());
            let store = Store::open(Box::new(disk)).await.unwrap();
            for n in 0..100_000u64 {
                store
                    .sequence(batch(vec![Write::put(
                        table("a"),
                        Bytes::copy_from_slice(&n.to_be_bytes()),
                        vec![1; 256],
                    )]))
                    .unwrap();
                if n % 500 == 499 {
                    while let crate::store::seal::Step::Sealed(_) = store.seal().await {}
                }
            }
            let dir2 = home.path().join(format!("p{clean}"));
            if clean {
                store.close();
                store.run().await;
            }
            std::process::Command::new("cp")
                .arg("-r")
                .arg(&dir)
                .arg(&dir2)
                .status()
                .unwrap();
            let t = Instant::now();
            let e = Disk::new(dir2).open().await.unwrap();
            println!("open 100k keys, clean {clean}: {:?}; rss {:?}", t.elapsed(), rss());
            e.close().await.unwrap();
        }
    });
}

#[test]
#[ignore = "figures"]
fn many() {
    let home = tempfile::tempdir_in(std::env::var("FIG_DIR").unwrap_or("/tmp".into())).unwrap();
    let total: u64 = std::env::var("FIG_N")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    runtime().block_on(async {
        let thread = StoreThread::start(Box::new(Disk::new(home.path().join("s"))))
            .await
            .unwrap();
        let store = Arc::clone(thread.store());
        let start = Instant::now();
        let mut worst = Duration::ZERO;
        let mut x = 1u64;
        for n in 0..total {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            // an inbox row comes and goes, and one of 100k keys of state changes
            let k = (x % 100_000).to_be_bytes();
            let mut w = vec![
                Write::put(table("a"), Bytes::copy_from_slice(&k), vec![1; 100]),
                Write::put(table("i"), Bytes::copy_from_slice(&n.to_be_bytes()), vec![1; 100]),
            ];
            if n > 10 {
                w.push(Write::delete(
                    table("i"),
                    Bytes::copy_from_slice(&(n - 10).to_be_bytes()),
                ));
            }
            let number = store.sequence(batch(w)).unwrap().number;
            let t = Instant::now();
            while store.sealed() + 256 < number {
                store.progress().await;
            }
            worst = worst.max(t.elapsed());
            if n % 500_000 == 0 {
                println!(
                    "{n}: {:?}, size {} MB, rss {:?}, worst wait {worst:?}",
                    start.elapsed(),
                    store.engine().unwrap().size() >> 20,
                    rss()
                );
                worst = Duration::ZERO;
                let t = Instant::now();
                let c = store.rows(&table("i"), b"", 100).unwrap().len();
                println!("   scan of an inbox with {c}: {:?}", t.elapsed());
            }
        }
        println!(
            "end: {:?}, size {} MB, rss {:?}",
            start.elapsed(),
            store.engine().unwrap().size() >> 20,
            rss()
        );
        let t = Instant::now();
        thread.stop().await;
        println!("stop {:?} rss {:?}", t.elapsed(), rss());
        let t = Instant::now();
        let thread = StoreThread::start(Box::new(Disk::new(home.path().join("s"))))
            .await
            .unwrap();
        println!(
            "open {:?} rss {:?} size {}",
            t.elapsed(),
            rss(),
            thread.store().engine().unwrap().size() >> 20
        );
        let t = Instant::now();
        println!(
            "{} {:?}",
            thread.store().rows(&table("i"), b"", 100).unwrap().len(),
            t.elapsed()
        );
        thread.stop().await;
    });
}
