//! What survives, in a kernel in this process: a crash is the end of the kernel and a new one over what was on disk.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use astrid_kernel::bus::Saying;
use astrid_kernel::bus::message::{Body, Source};
use astrid_kernel::capsule::Acting;
use astrid_kernel::capsule::bundle::Bundle;
use astrid_kernel::capsule::durable::absent::ForgetError;
use astrid_kernel::capsule::durable::{self, SubmitError, record};
use astrid_kernel::store::engine::{Engine, EngineError, Later, Open, OpenError, Snapshot, Write};
use astrid_kernel::store::memory::Memory;
use astrid_kernel::store::table::{Kind, Scope, Table};
use astrid_tests::bed::{Bed, PATIENCE, Settings, answer, read_bundle, refusal};
use astrid_wire::Principal;
use serde_json::{Value, json};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

fn over(memory: &Memory) -> Settings {
    Settings {
        memory: memory.clone(),
        ..Settings::default()
    }
}

const CHAIN: [&str; 3] = ["relay-a", "relay-b", "relay-c"];

async fn submit(bed: &Bed, topic: &str, body: Value, id: Option<&str>) -> Result<bool, SubmitError> {
    let saying = Saying {
        principal: Principal::default_owner(),
        source: Source::Capsule("test".into()),
        body: Body::json(&body),
        public: false,
    };
    let id = id.map(|id| id.to_owned().into());
    durable::submit(&bed.host, bed.say(topic), saying, id).await
}

async fn number(bed: &Bed, number: u64) {
    number_to(bed, "relay.v1.submit", number).await;
}

async fn number_to(bed: &Bed, topic: &str, number: u64) {
    let body = json!({ "client": "c", "number": number });
    assert!(submit(bed, topic, body, None).await.unwrap());
}

/// Waits until nothing waits any more, anywhere.
async fn settled(bed: &Bed) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(
            std::time::Instant::now() < until,
            "it does not come to rest: {}",
            unrest(bed)
        );
        let busy = bed.host.durable.directory.all().iter().any(|actors| {
            actors
                .present()
                .iter()
                .any(|a| !a.inbox().is_empty() || a.is_in_outbox() || a.is_busy())
        });
        if !busy && bed.host.durable.outbox.is_empty() {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What is not at rest, for a failure's message.
fn unrest(bed: &Bed) -> String {
    let mut text = format!("{:?}, {} in the outbox", bed.host.store, bed.host.durable.outbox.len());
    for actors in bed.host.durable.directory.all() {
        for actor in actors.present() {
            let inbox = actor.inbox();
            let (waiting, kept) = (inbox.len(), inbox.len_durable());
            let state = (actor.is_busy(), actor.is_in_outbox(), actor.state());
            text += &format!("\n{actor:?}: {waiting} wait, {kept} kept, busy, in outbox, state {state:?}");
        }
    }
    text
}

async fn report(bed: &Bed) -> Value {
    answer(bed.ask("relay.v1.request.report", json!({})).await)["clients"]["c"].clone()
}

/// The sentence that authors rely on, without a crash: through a chain of three every message has one effect, in order, and nothing is
/// left behind in the store but that.
#[test]
fn a_chain_of_three() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::with(&CHAIN, over(&memory)).await;
        for n in 1..=100 {
            number(&bed, n).await;
        }
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["last"]),
            (&json!(100), &json!(100)),
            "{report}"
        );
        for wrong in ["doubled", "missing", "out_of_order"] {
            assert_eq!(report[wrong], json!([]), "{wrong}");
        }
        let kinds = [Kind::Inbox, Kind::Dead, Kind::Ask, Kind::Timer];
        let left = |kind: Kind| {
            memory
                .entries()
                .into_iter()
                .filter(move |(t, ..)| t.as_bytes()[0] == kind as u8)
                .count()
        };
        assert_eq!(kinds.map(left), [0; 4]);
    });
}

/// What was accepted is handled by the next daemon; what was handled is not handled again.
#[test]
fn a_crash_in_the_middle() {
    run(async {
        let memory = Memory::default();
        let mut accepted = 0;
        for round in 0..8 {
            let bed = Bed::with(&CHAIN, over(&memory)).await;
            for _ in 0..round {
                accepted += 1;
                number(&bed, accepted).await;
            }
            // Wherever it is: the chain works on what was accepted.
        }
        let bed = Bed::with(&CHAIN, over(&memory)).await;
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(report["count"], json!(accepted), "{report}");
        for wrong in ["doubled", "missing", "out_of_order"] {
            assert_eq!(report[wrong], json!([]), "{wrong}");
        }
    });
}

/// While the daemon stops, nothing that the store keeps is begun: who hears what would be said may have ended already. And nothing more is
/// published, which is said to who tries.
#[test]
fn a_stop_leaves_the_rest_to_the_next() {
    run(async {
        let memory = Memory::default();
        let bundles = CHAIN.iter().chain(&["ledger"]).map(|name| read_bundle(name)).collect();
        let bed = Bed::of(bundles, over(&memory)).await;
        number(&bed, 1).await;
        settled(&bed).await;
        bed.host.acting.send_replace(Acting::NoMore);
        number(&bed, 2).await;
        let refused = bed.ask("ledger.v1.once", json!({ "id": "one", "text": "x" })).await;
        assert!(format!("{refused:?}").contains("the daemon stops"), "{refused:?}");
        assert_eq!(report(&bed).await["count"], json!(1));
        drop(bed);
        let bed = Bed::with(&CHAIN, over(&memory)).await;
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["doubled"]),
            (&json!(2), &json!([])),
            "{report}"
        );
    });
}

/// A message that fails stops nothing but itself: it is tried again as the subscription says, then laid aside with its reason, and the
/// others have their effect.
#[test]
fn a_poison_message() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::with(&CHAIN, over(&memory)).await;
        let (dead, _heard) = bed.hear("dead.v1.>");
        for n in 1..=5 {
            let mut body = json!({ "client": "c", "number": n });
            if n == 3 {
                body["fault"] = json!("retry");
                body["stage"] = json!("c");
                body["times"] = json!(100);
            }
            submit(&bed, "relay.v1.submit", body, None).await.unwrap();
        }
        let obituary = dead.next().await.unwrap();
        let obituary: Value = serde_json::from_slice(&obituary.message.body.bytes).unwrap();
        assert_eq!(
            (&obituary["capsule"], &obituary["attempts"]),
            (&json!("relay-c"), &json!(4))
        );
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["missing"]),
            (&json!(4), &json!([3])),
            "{report}"
        );
        let table = Table::of(Kind::Dead, "relay-c", &Scope::Principal(Principal::default_owner()));
        let rows = bed.host.store.rows(&table, &[], 10).unwrap();
        assert_eq!(rows.len(), 1);
        let letter = <record::DeadRecord as prost::Message>::decode(rows[0].1.clone()).unwrap();
        assert_eq!((letter.code.as_str(), letter.message.attempts), ("capsule.failed", 4));
    });
}

/// A trap undoes everything, is tried once more, and then laid aside.
#[test]
fn a_poison_that_traps() {
    run(async {
        let bed = Bed::with(&CHAIN, Settings::default()).await;
        let (dead, _heard) = bed.hear("dead.v1.>");
        let body = json!({ "client": "c", "number": 1, "fault": "trap", "stage": "a", "times": 100 });
        submit(&bed, "relay.v1.submit", body, None).await.unwrap();
        number(&bed, 2).await;
        dead.next().await.unwrap();
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["missing"]),
            (&json!(1), &json!([1])),
            "{report}"
        );
    });
}

/// Many that trap, among good ones, do not take the actor from these: it neither waits nor goes down.
#[test]
fn poison_among_good_messages() {
    run(async {
        let bed = Bed::with(&CHAIN, Settings::default()).await;
        let (dead, _heard) = bed.hear("dead.v1.>");
        let bad = (1..=60).filter(|n| n % 6 == 0).count();
        for n in 1..=60 {
            let mut body = json!({ "client": "c", "number": n });
            if n % 6 == 0 {
                body["fault"] = json!("trap");
                body["stage"] = json!("b");
                body["times"] = json!(100);
            }
            submit(&bed, "relay.v1.submit", body, None).await.unwrap();
        }
        for _ in 0..bad {
            dead.next().await.unwrap();
        }
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(report["count"], json!(60 - bad), "{report}");
        let down = bed
            .manager
            .reports()
            .into_iter()
            .any(|r| r.state != astrid_wire::control::CapsuleState::Ready);
        assert!(!down);
    });
}

/// A capsule that cannot handle anything backs off and goes down, and what waits for it waits.
#[test]
fn a_capsule_that_only_traps_goes_down() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::with(&["relay-c"], over(&memory)).await;
        for n in 1..=30 {
            let body = json!({ "client": "c", "number": n, "fault": "trap", "stage": "c", "times": 100 });
            submit(&bed, "relay.v1.third", body, None).await.unwrap();
        }
        let (health, _heard) = bed.hear("astrid.v1.health.failed");
        loop {
            let failed = health.next().await.unwrap();
            let failed: Value = serde_json::from_slice(&failed.message.body.bytes).unwrap();
            if failed["restart_in_ms"].is_u64() {
                break;
            }
        }
        assert!(bed.host.durable.waiting() > 10, "most of them wait");
    });
}

fn with_queue(name: &str, queue: u32) -> Bundle {
    let mut bundle = read_bundle(name);
    for options in bundle.manifest.subscribe.values_mut() {
        options.queue = queue;
    }
    bundle
}

/// What is said to a capsule that was here and is not loaded now is kept for it, within its limit, and nobody waits for its answer;
/// until an operator says that it is gone.
#[test]
fn a_capsule_that_is_not_there() {
    run(async {
        let memory = Memory::default();
        let load = |bundles: Vec<Bundle>| Bed::of(bundles, over(&memory));
        let bed = load(vec![read_bundle("relay-b"), with_queue("relay-c", 3)]).await;
        while !bed.host.store.is_settled() {
            tokio::task::yield_now().await;
        }
        drop(bed);
        // Twice: who is stood in for stays so over starts.
        for n in 1..=2 {
            let bed = load(vec![read_bundle("relay-b")]).await;
            let reports = bed.manager.reports();
            let report = reports.iter().find(|r| r.name == "relay-c").unwrap();
            assert_eq!(report.state, astrid_wire::control::CapsuleState::Absent);
            let expected = format!("({} waiting)", n - 1);
            assert!(report.reason.as_ref().unwrap().contains(&expected), "{report:?}");
            // Through a capsule that runs: its commit writes into an inbox that nobody reads.
            let body = json!({ "client": "c", "number": n });
            assert!(submit(&bed, "relay.v1.second", body, None).await.unwrap());
            settled(&bed).await;
        }
        let bed = load(vec![]).await;
        let asked = bed.ask("relay.v1.third", json!({})).await;
        assert_eq!(refusal(asked), "no-subscriber");
        let body = json!({ "client": "c", "number": 3 });
        assert!(
            submit(&bed, "relay.v1.third", body.clone(), Some("three"))
                .await
                .unwrap()
        );
        let full = submit(&bed, "relay.v1.third", body, None).await.unwrap_err();
        assert!(
            full.to_string()
                .contains("relay-c (which is not loaded: see `astrid capsule list`) is full"),
            "{full}"
        );
        drop(bed);

        let bed = load(CHAIN.iter().map(|name| read_bundle(name)).collect()).await;
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["out_of_order"]),
            (&json!(3), &json!([])),
            "{report}"
        );
        drop(bed);

        let bed = load(vec![]).await;
        for n in 4..=6 {
            let body = json!({ "client": "c", "number": n });
            assert!(submit(&bed, "relay.v1.third", body, None).await.unwrap());
        }
        let forgotten = durable::absent::forget(&bed.host, "relay-c").await.unwrap();
        assert_eq!((forgotten.subscriptions, forgotten.messages), (true, 3));
        assert!(bed.manager.reports().iter().all(|r| r.name != "relay-c"));
        let again = durable::absent::forget(&bed.host, "relay-c").await.unwrap_err();
        assert!(matches!(again, ForgetError::Nothing(_)));
        drop(bed);
        let bed = load(CHAIN.iter().map(|name| read_bundle(name)).collect()).await;
        let runs = durable::absent::forget(&bed.host, "relay-c").await.unwrap_err();
        assert!(matches!(runs, ForgetError::Runs(_)));
        settled(&bed).await;
        assert_eq!(
            self::report(&bed).await["count"],
            3,
            "what was forgotten did not come back, its state did"
        );
    });
}

/// A capsule is only forgotten when that is on disk: one whose forgetting the store refuses is stood in for as before.
#[test]
fn a_forgetting_that_fails() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::of(vec![read_bundle("relay-c")], over(&memory)).await;
        number_to(&bed, "relay.v1.third", 1).await;
        settled(&bed).await;
        drop(bed);
        let disk = Faulty::over(&memory);
        let bed = Bed::on(vec![], over(&memory), Box::new(disk.clone())).await;
        number_to(&bed, "relay.v1.third", 2).await;
        disk.full.store(true, Ordering::SeqCst);
        durable::absent::forget(&bed.host, "relay-c").await.unwrap_err();
        assert!(bed.host.durable.absent.has("relay-c"));
        disk.full.store(false, Ordering::SeqCst);
        let mut phase = bed.host.store.phase();
        let open = |p: &astrid_kernel::store::Phase| *p == astrid_kernel::store::Phase::Open;
        phase.wait_for(open).await.unwrap();
        number_to(&bed, "relay.v1.third", 3).await;
        assert!(bed.host.durable.absent.keeps("relay-c").unwrap().contains("2 waiting"));
        drop(bed);
        let bed = Bed::of(CHAIN.iter().map(|name| read_bundle(name)).collect(), over(&memory)).await;
        settled(&bed).await;
        assert_eq!(report(&bed).await["count"], 3);
    });
}

/// A full inbox pushes back on who sends, with a typed error, and takes messages again when there is room.
#[test]
fn a_full_inbox() {
    run(async {
        let memory = Memory::default();
        let disk = Faulty::over(&memory);
        let bundles = vec![with_queue("relay-a", 3), read_bundle("relay-b"), read_bundle("relay-c")];
        let bed = Bed::on(bundles, Settings::default(), Box::new(disk.clone())).await;
        disk.stall.store(true, Ordering::SeqCst);
        // Four at once: the store does not seal, so nobody handles any.
        let mut sent = Vec::new();
        for n in 1..=4 {
            let body = json!({ "client": "c", "number": n });
            let saying = Saying {
                principal: Principal::default_owner(),
                source: Source::Capsule("test".into()),
                body: Body::json(&body),
                public: false,
            };
            sent.push(durable::submit(&bed.host, bed.say("relay.v1.submit"), saying, None));
        }
        let all = futures_util::future::join_all(sent);
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            disk.stall.store(false, Ordering::SeqCst);
        };
        let (results, ()) = tokio::join!(all, release);
        let refused: Vec<String> = results
            .iter()
            .filter_map(|r| r.as_ref().err().map(ToString::to_string))
            .collect();
        assert_eq!(refused, ["the queue of relay-a is full"]);
        settled(&bed).await;
        number(&bed, 4).await;
        settled(&bed).await;
        assert_eq!(report(&bed).await["count"], json!(4));
    });
}

/// A message is said once for each id, over a crash, whatever the connection it comes by.
#[test]
fn ids_of_clients() {
    run(async {
        let memory = Memory::default();
        for round in 0..3 {
            let bed = Bed::with(&CHAIN, over(&memory)).await;
            for n in 1..=3 {
                let body = json!({ "client": "c", "number": n });
                let id = format!("id-{n}");
                let new = submit(&bed, "relay.v1.submit", body, Some(&id)).await.unwrap();
                assert_eq!(new, round == 0);
            }
            settled(&bed).await;
            assert_eq!(report(&bed).await["count"], json!(3));
        }
    });
}

async fn kv(bed: &Bed, who: &str, ops: Value) -> Value {
    let body = Body::json(&json!({ "ops": ops }));
    answer(bed.ask_as(who, "ledger.v1.kv", body).await)
}

/// The table: what a handling wrote it sees; what failed never was; in order; within its limits; and all of it is there after a crash.
#[test]
fn the_table() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::with(&["ledger"], over(&memory)).await;
        let done = kv(
            &bed,
            "ada",
            json!([
                { "op": "put", "key": "b", "value": "2" },
                { "op": "put", "key": "a", "value": "1" },
                { "op": "get", "key": "a" },
                { "op": "delete", "key": "b" },
                { "op": "get", "key": "b" },
                { "op": "put", "key": "c", "value": "3" },
                { "op": "cas", "key": "c", "expected": "0", "value": "4" },
                { "op": "cas", "key": "c", "expected": "3", "value": "4" },
                { "op": "scan" },
                { "op": "scan", "backwards": true, "limit": 1 },
                { "op": "put", "key": "", "value": "" },
                { "op": "put", "key": "k".repeat(1025), "value": "" },
                { "op": "put", "key": "v", "value": "v".repeat((1 << 20) + 1) },
            ]),
        )
        .await;
        let text = done.to_string();
        assert!(
            text.contains("kv.invalid-key") && text.contains("kv.too-large"),
            "{text}"
        );
        for then in ["trap", "retry", "refuse"] {
            let body = json!({ "ops": [{ "op": "put", "key": "lost", "value": "x" }], "then": then });
            let _: String = refusal(bed.ask_as("ada", "ledger.v1.kv", Body::json(&body)).await);
        }
        drop(kv(&bed, "ada", json!([{ "op": "get", "key": "c" }])).await);
        // What is not durable is on disk within 50 ms.
        let sealed = bed.host.store.view(&ledger_table()).unwrap().sequence();
        bed.host.store.settled(sealed, 0).await.unwrap();
        drop(bed);
        let bed = Bed::with(&["ledger"], over(&memory)).await;
        let rows = bed.host.store.rows(&ledger_table(), &[], 100).unwrap();
        let rows: Vec<_> = rows.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        assert_eq!(rows, [(&b"a"[..], &b"1"[..]), (b"c", b"4")]);
    });
}

fn ledger_table() -> Table {
    Table::of(Kind::Kv, "ledger", &Scope::System)
}

/// Four instances that read and write one sum at the same time, on two threads: whoever was too late is handled again, and nothing is
/// lost.
#[test]
fn conflicts_are_handled_again() {
    run(async {
        let settings = Settings {
            shards: 2,
            ..Settings::default()
        };
        let bed = Bed::with(&["ledger"], settings).await;
        let adds = (0..200).map(|n| {
            let bed = &bed;
            async move {
                let body = Body::json(&json!({ "key": "k", "amount": 1, "idle": 20_000 }));
                answer(bed.ask_as(&format!("p{}", n % 16), "ledger.v1.add", body).await)
            }
        });
        futures_util::future::join_all(adds).await;
        let sum = answer(bed.ask("ledger.v1.sum", json!({ "key": "k" })).await);
        assert_eq!(sum, json!(200));
    });
}

/// A durable timer fires once after a restart if it was due meanwhile; an ordinary one is gone.
#[test]
fn timers_that_last() {
    run(async {
        let memory = Memory::default();
        let bed = Bed::with(&["ledger"], over(&memory)).await;
        for (tag, durable) in [("kept", true), ("gone", false)] {
            let body = json!({ "after_ms": 2000, "tag": tag, "durable": durable });
            drop(bed.ask("ledger.v1.timer", body).await);
        }
        let sequence = bed.host.store.view(&ledger_table()).unwrap().sequence();
        bed.host.store.settled(sequence, 0).await.unwrap();
        drop(bed);
        tokio::time::sleep(Duration::from_millis(2100)).await;
        for _ in 0..2 {
            let bed = Bed::with(&["ledger"], over(&memory)).await;
            settled(&bed).await;
            // Whatever fires is answered for after what was asked.
            drop(bed.ask("ledger.v1.state", json!({})).await);
            settled(&bed).await;
            let fired = kv(
                &bed,
                "default",
                json!([{ "op": "scan", "start": "fired/", "end": "fired0" }]),
            )
            .await;
            let text = fired.to_string();
            assert!(text.contains("fired/kept") && !text.contains("fired/gone"), "{text}");
            let rows = bed.host.store.rows(&ledger_table(), b"fired/", 10).unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(&rows[0].1[..], b"1", "once");
            let sequence = bed.host.store.view(&ledger_table()).unwrap().sequence();
            bed.host.store.settled(sequence, 0).await.unwrap();
        }
    });
}

/// A store that fails stops everything that depends on it, says why, and comes back by itself; what was accepted is there.
#[test]
fn a_store_that_fails() {
    run(async {
        let memory = Memory::default();
        let disk = Faulty::over(&memory);
        let bundles = CHAIN.iter().chain(&["ledger"]).map(|name| read_bundle(name)).collect();
        let bed = Bed::on(bundles, Settings::default(), Box::new(disk.clone())).await;
        number(&bed, 1).await;
        settled(&bed).await;
        drop(answer(
            bed.ask("ledger.v1.lasting", json!({ "key": "k", "amount": 1 })).await,
        ));
        disk.full.store(true, Ordering::SeqCst);
        let lost = submit(&bed, "relay.v1.submit", json!({ "client": "c", "number": 2 }), None).await;
        assert!(matches!(lost, Err(SubmitError::Store(_))), "{lost:?}");
        // Writers get a clear error, readers go on.
        let refused = bed.ask("ledger.v1.lasting", json!({ "key": "k", "amount": 1 })).await;
        let text = format!("{refused:?}");
        assert!(
            text.contains("store.unavailable") && text.contains("no space"),
            "{text}"
        );
        assert_eq!(answer(bed.ask("ledger.v1.sum", json!({ "key": "k" })).await), json!(1));
        disk.full.store(false, Ordering::SeqCst);
        let mut phase = bed.host.store.phase();
        phase
            .wait_for(|p| *p == astrid_kernel::store::Phase::Open)
            .await
            .unwrap();
        number(&bed, 2).await;
        settled(&bed).await;
        let report = report(&bed).await;
        assert_eq!(
            (&report["count"], &report["doubled"]),
            (&json!(2), &json!([])),
            "{report}"
        );
        assert_eq!(answer(bed.ask("ledger.v1.sum", json!({ "key": "k" })).await), json!(1));
    });
}

/// A slow disk delays, and loses nothing.
#[test]
fn a_slow_disk() {
    run(async {
        let memory = Memory::default();
        let disk = Faulty::over(&memory);
        disk.slow_ms.store(5, Ordering::SeqCst);
        let bundles = CHAIN.iter().map(|name| read_bundle(name)).collect();
        let bed = Bed::on(bundles, Settings::default(), Box::new(disk.clone())).await;
        let all = (1..=50).map(|n| number(&bed, n));
        for one in all {
            one.await;
        }
        settled(&bed).await;
        assert_eq!(report(&bed).await["count"], json!(50));
    });
}

/// An engine over memory that can be slow, stand still, or be full.
#[derive(Clone)]
struct Faulty {
    memory: Memory,
    full: Arc<AtomicBool>,
    stall: Arc<AtomicBool>,
    slow_ms: Arc<AtomicU64>,
}

impl Faulty {
    fn over(memory: &Memory) -> Self {
        Self {
            memory: memory.clone(),
            full: Arc::default(),
            stall: Arc::default(),
            slow_ms: Arc::default(),
        }
    }
}

impl Engine for Faulty {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        self.memory.snapshot(table)
    }

    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        self.memory.tables(kind)
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        Box::pin(async move {
            while self.stall.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(self.slow_ms.load(Ordering::SeqCst))).await;
            if self.full.load(Ordering::SeqCst) {
                return Err(EngineError::NoSpace("test".into()));
            }
            self.memory.write(writes);
            Ok(())
        })
    }

    fn checkpoint(&self, into: &std::path::Path) -> Result<(), EngineError> {
        self.memory.checkpoint(into)
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        self.memory.close()
    }

    fn size(&self) -> u64 {
        self.memory.size()
    }
}

impl Open for Faulty {
    fn is_worth_trying(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        let engine: Arc<dyn Engine> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(engine)))
    }

    fn place(&self) -> String {
        "a test".to_owned()
    }

    fn sealed(&self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}
