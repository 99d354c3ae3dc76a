//! Quotas end to end (K12, K15): what is over is refused where it enters, with a typed refusal, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use astrid_kernel::bus::Saying;
use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::message::{Body, Source};
use astrid_kernel::capsule::durable::{self, SubmitError};
use astrid_tests::bed::{Bed, PATIENCE, answer, refusal};
use astrid_tests::wire::Connection;
use astrid_wire::manifest::{ByteSize, Time};
use astrid_wire::problem::codes;
use astrid_wire::{Principal, Quota};
use serde_json::{Value, json};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test takes too long")
    });
}

fn limit(bed: &Bed, name: &str, quota: Quota) {
    bed.host.ledger.set_quota(&Principal::stamped(name).unwrap(), &quota);
}

async fn ask(bed: &Bed, name: &str, topic: &str, body: Value) -> Outcome {
    bed.ask_as(name, topic, Body::json(&body)).await
}

fn usage(bed: &Bed, name: &str) -> astrid_wire::control::usage::Usage {
    bed.host
        .ledger
        .usage(&Principal::stamped(name).unwrap(), || 0)
        .unwrap()
        .unwrap()
}

const NONE: Quota = Quota {
    fuel_per_second: None,
    fuel_total: None,
    memory: None,
    messages_per_second: None,
    bytes_per_second: None,
    storage: None,
    children: None,
    connections: None,
    calls: None,
    timeout: None,
};

/// Fuel a second and in total: what would be handled is refused to who asks, with the limit and when it frees; others go on.
#[test]
fn fuel() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        for who in ["a", "b"] {
            let _ = answer(ask(&bed, who, "probe.v1.do.state", json!({})).await);
            let window = Quota {
                fuel_per_second: Some(10),
                ..NONE
            };
            let total = Quota {
                fuel_total: Some(usage(&bed, who).fuel + 1),
                ..NONE
            };
            limit(&bed, who, if who == "a" { window } else { total });
            // It has fuel left, and may use more than that.
            let _ = answer(ask(&bed, who, "probe.v1.do.state", json!({})).await);
            let Outcome::Refusal(problem) = ask(&bed, who, "probe.v1.do.state", json!({})).await else {
                panic!("it was not refused")
            };
            assert_eq!(problem.code(), codes::QUOTA_EXCEEDED);
            let says = if who == "a" {
                "free again in"
            } else {
                "when the quota is raised"
            };
            assert!(problem.message().contains(says), "{problem}");
            let used = usage(&bed, who);
            assert_eq!((used.refused, used.capsules[0].capsule.as_str()), (1, "probe"));
            // A raised quota counts at once.
            limit(&bed, who, NONE);
            let _ = answer(ask(&bed, who, "probe.v1.do.state", json!({})).await);
        }
        let _ = answer(ask(&bed, "c", "probe.v1.do.state", json!({})).await);
    });
}

/// Messages and bytes a second: what is over is not said, and who asked is told of the quota.
#[test]
fn messages_and_bytes() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (said, _s) = bed.hear("probe.v1.event.said");
        let quotas = [
            Quota {
                messages_per_second: Some(3),
                ..NONE
            },
            Quota {
                bytes_per_second: Some(ByteSize(30)),
                ..NONE
            },
        ];
        for (who, quota) in ["a", "b"].into_iter().zip(quotas) {
            limit(&bed, who, quota);
            let _ = answer(ask(&bed, who, "probe.v1.do.say", json!({"n": 2})).await);
            assert_eq!(
                refusal(ask(&bed, who, "probe.v1.do.say", json!({"n": 9})).await),
                codes::QUOTA_EXCEEDED
            );
            let used = usage(&bed, who);
            assert!((2..11).contains(&used.published), "{used:?}");
            assert_eq!(used.published_bytes, 7 * used.published);
        }
        let published = usage(&bed, "a").published + usage(&bed, "b").published;
        assert_eq!(said.len() as u64, published, "what was refused was not said");
        let _ = answer(ask(&bed, "c", "probe.v1.do.say", json!({"n": 9})).await);
    });
}

/// Memory of a principal's own instances, at their start and when they grow. It is the principal's limit, so nobody's health suffers.
#[test]
fn memory() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        limit(
            &bed,
            "a",
            Quota {
                memory: Some(ByteSize(1000)),
                ..NONE
            },
        );
        limit(
            &bed,
            "b",
            Quota {
                memory: Some(ByteSize(4 << 20)),
                ..NONE
            },
        );
        assert_eq!(
            refusal(ask(&bed, "a", "probe.v1.do.state", json!({})).await),
            codes::QUOTA_EXCEEDED
        );
        let _ = answer(ask(&bed, "b", "probe.v1.do.state", json!({})).await);
        assert!(usage(&bed, "b").memory.now > 0);
        assert_eq!(
            refusal(ask(&bed, "b", "probe.v1.do.hog", json!({})).await),
            codes::QUOTA_EXCEEDED
        );
        assert_eq!(
            usage(&bed, "b").memory.now,
            0,
            "the instance is gone, and its memory given back"
        );
        let _ = answer(ask(&bed, "b", "probe.v1.do.state", json!({})).await);
        assert!(health.is_empty());
        assert_eq!(usage(&bed, "b").faults, 0);
    });
}

/// Calls in flight, and how long they may take.
#[test]
fn calls_and_timeout() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        limit(&bed, "a", Quota { calls: Some(0), ..NONE });
        limit(
            &bed,
            "b",
            Quota {
                calls: Some(1),
                timeout: Some(Time(Duration::ZERO)),
                ..NONE
            },
        );
        assert_eq!(
            refusal(ask(&bed, "a", "probe.v1.do.request", json!({})).await),
            codes::QUOTA_EXCEEDED
        );
        assert_eq!(
            refusal(ask(&bed, "b", "probe.v1.do.request", json!({})).await),
            codes::TIMEOUT
        );
        limit(&bed, "b", Quota { calls: Some(1), ..NONE });
        let _ = answer(ask(&bed, "b", "probe.v1.do.request", json!({})).await);
        assert_eq!((usage(&bed, "b").calls.now, usage(&bed, "b").calls.peak), (0, 1));
    });
}

/// Bytes in the store: state of a principal's own actors, what was there before the quota among it.
#[test]
fn storage() {
    run(async {
        let bed = Bed::new(&["hello", "tally"]).await;
        let _ = answer(ask(&bed, "a", "tally.v1.visit", json!({"name": "x"})).await);
        let before = usage(&bed, "a").storage_bytes.unwrap();
        assert!(before > 0);
        limit(
            &bed,
            "a",
            Quota {
                storage: Some(ByteSize(before + 60)),
                ..NONE
            },
        );
        // It counts the same visitor again, in about as many bytes.
        let _ = answer(ask(&bed, "a", "tally.v1.visit", json!({"name": "x"})).await);
        assert_eq!(
            refusal(ask(&bed, "a", "tally.v1.visit", json!({"name": "y".repeat(61)})).await),
            codes::QUOTA_EXCEEDED
        );
        let after = usage(&bed, "a").storage_bytes;
        limit(&bed, "a", NONE);
        let measured = bed
            .host
            .ledger
            .account(&Principal::stamped("a").unwrap())
            .stored_bytes()
            .unwrap();
        assert_eq!(after, Some(measured), "what is counted is what is there");
        let _ = answer(ask(&bed, "b", "tally.v1.visit", json!({"name": "y".repeat(61)})).await);
    });
}

async fn submit(bed: &Bed, who: &str, number: u64) -> Result<bool, SubmitError> {
    let saying = Saying {
        principal: Principal::stamped(who).unwrap(),
        source: Source::Capsule("test".into()),
        body: Body::json(&json!({ "client": "c", "number": number })),
        public: false,
    };
    durable::submit(&bed.host, bed.say("relay.v1.submit"), saying, None).await
}

/// What is kept for a principal's actor counts as its storage, and is refused to who says it.
#[test]
fn what_waits_counts_as_storage() {
    run(async {
        let bed = Bed::new(&["relay-a", "relay-b", "relay-c"]).await;
        limit(
            &bed,
            "a",
            Quota {
                storage: Some(ByteSize(10)),
                ..NONE
            },
        );
        let no = submit(&bed, "a", 1).await.unwrap_err();
        assert!(no.to_string().contains("storage"), "{no}");
        assert!(submit(&bed, "b", 1).await.unwrap());
    });
}

/// What the store keeps for a principal that is over its fuel a second waits until that frees, in order, and is handled then.
#[test]
fn kept_messages_wait_for_their_window() {
    run(async {
        let bed = Bed::new(&["relay-a", "relay-b", "relay-c"]).await;
        let handled = async |count: u64| {
            while bed.host.durable.waiting() > 0 || usage(&bed, "a").handled < count {
                tokio::task::yield_now().await;
            }
            usage(&bed, "a").fuel
        };
        assert!(submit(&bed, "a", 1).await.unwrap());
        let first = handled(3).await;
        assert!(submit(&bed, "a", 2).await.unwrap());
        let chain = handled(6).await - first;
        // Two at once, and then two a second.
        limit(
            &bed,
            "a",
            Quota {
                fuel_per_second: Some(2 * chain),
                ..NONE
            },
        );
        let begun = Instant::now();
        for n in 3..=7 {
            assert!(submit(&bed, "a", n).await.unwrap());
        }
        handled(21).await;
        assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
        assert!(usage(&bed, "a").refused > 0);
        limit(&bed, "a", NONE);
        let report = answer(ask(&bed, "a", "relay.v1.request.report", json!({})).await)["clients"]["c"].clone();
        assert_eq!((&report["count"], &report["last"]), (&json!(7), &json!(7)), "{report}");
    });
}

/// Programs at a time.
#[test]
fn children() {
    run(async {
        let bed = Bed::new(&["runner"]).await;
        let (started, _s) = bed.hear("runner.v1.event.started");
        let (exited, _e) = bed.hear("runner.v1.event.exited");
        limit(
            &bed,
            "default",
            Quota {
                children: Some(1),
                ..NONE
            },
        );
        let program = json!({"program": "/bin/sleep", "args": ["1000"]});
        let port = answer(bed.ask("runner.v1.do.run", program.clone()).await)["port"].clone();
        assert_eq!(
            refusal(bed.ask("runner.v1.do.run", program.clone()).await),
            codes::QUOTA_EXCEEDED
        );
        assert_eq!(
            (
                usage(&bed, "default").children.now,
                usage(&bed, "default").children_started
            ),
            (1, 1)
        );
        let _ = started.next().await.unwrap();
        let _ = answer(bed.ask("runner.v1.do.kill", json!({"port": port, "tree": true})).await);
        let _ = exited.next().await.unwrap();
        while usage(&bed, "default").children.now > 0 {
            tokio::task::yield_now().await;
        }
        let port = answer(bed.ask("runner.v1.do.run", program).await)["port"].clone();
        let _ = started.next().await.unwrap();
        let _ = answer(bed.ask("runner.v1.do.kill", json!({"port": port, "tree": true})).await);
        let _ = exited.next().await.unwrap();
    });
}

/// Connections at a time, once they showed who they are; a place comes back with its connection's end.
#[test]
fn connections() {
    run(async {
        let bed = Bed::new(&["uplink-local"]).await;
        let home = bed.host.home.root().to_owned();
        let open = async || {
            let home = home.clone();
            tokio::task::spawn_blocking(move || Connection::open(&home))
                .await
                .unwrap()
        };
        limit(
            &bed,
            "default",
            Quota {
                connections: Some(1),
                ..NONE
            },
        );
        let first = open().await.unwrap();
        assert!(open().await.is_err());
        assert_eq!(usage(&bed, "default").connections.now, 1);
        drop(first);
        while usage(&bed, "default").connections.now > 0 {
            tokio::task::yield_now().await;
        }
        let _second = open().await.unwrap();
    });
}
