//! Transactions, faults and limits of actors, with a guest that misbehaves on request.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::bus::message::{Body, Source};
use astrid_kernel::bus::{Bus, Saying};
use astrid_tests::bed::{Bed, PATIENCE, Settings, answer, read_bundle, refusal};
use astrid_wire::Principal;
use astrid_wire::problem::codes;
use serde_json::{Value, json};

/// Runs a test in the runtime that a kernel lives in.
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

async fn next(inbox: &Inbox) -> Value {
    serde_json::from_slice(&inbox.next().await.unwrap().message.body.bytes).unwrap()
}

/// Idea 2: a panic after a publish leaves nothing said, and who asked is told what happened. K6: health is told.
#[test]
fn a_fault_undoes_everything() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (said, _s) = bed.hear("probe.v1.event.said");
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        let (dead, _d) = bed.hear("dead.v1.probe");
        assert_eq!(answer(bed.ask("probe.v1.do.state", json!({})).await)["handled"], 1);
        assert_eq!(
            refusal(bed.ask("probe.v1.do.panic", json!({})).await),
            codes::FAULT_TRAP
        );
        let failed = next(&health).await;
        assert_eq!(
            (&failed["capsule"], &failed["cause"], &failed["restart_in_ms"]),
            (&json!("probe"), &json!("trap"), &json!(2000))
        );
        assert_eq!(next(&dead).await["topic"], "probe.v1.do.panic");
        assert!(said.is_empty(), "what was recorded before the panic must not happen");
        // The next generation starts after its back-off, with nothing of the old one's memory.
        assert_eq!(answer(bed.ask("probe.v1.do.state", json!({})).await)["handled"], 1);
    });
}

/// Fuel, memory and time are limits of one handling, and each is named.
#[test]
fn limits_are_named() {
    let little_fuel = 10_000_000;
    let limits = [
        ("probe.v1.do.hog", None, codes::FAULT_MEMORY),
        ("probe.v1.do.spin", Some(little_fuel), codes::FAULT_FUEL),
        ("probe.v1.do.spin", None, codes::FAULT_TIME),
    ];
    for (topic, fuel, code) in limits {
        run(async {
            let mut probe = read_bundle("probe");
            probe.manifest.runtime.fuel = fuel.unwrap_or(probe.manifest.runtime.fuel);
            let bed = Bed::of(vec![read_bundle("hello"), probe], Settings::default()).await;
            let (said, _s) = bed.hear("probe.v1.event.said");
            assert_eq!(refusal(bed.ask(topic, json!({})).await), code, "{topic}");
            assert!(said.is_empty());
        });
    }
}

/// A guest that never ends does not keep the thread: another principal's actor answers meanwhile (1 ms epochs, fair turns).
#[test]
fn a_spinning_guest_does_not_block_others() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        // Instances first, so that what is measured is the sharing.
        let _ = answer(bed.ask_as("other", "probe.v1.do.state", Body::json(&json!({}))).await);
        let spin = bed.ask("probe.v1.do.spin", json!({}));
        let mut spin = std::pin::pin!(spin);
        let mut answers = 0;
        loop {
            tokio::select! {
                biased;
                outcome = &mut spin => {
                    assert_eq!(refusal(outcome), codes::FAULT_TIME);
                    break;
                }
                outcome = bed.ask_as("other", "probe.v1.do.state", Body::json(&json!({}))) => {
                    let _ = answer(outcome);
                    answers += 1;
                }
            }
        }
        assert!(
            answers > 20,
            "only {answers} answers while another guest ran for 300 ms"
        );
    });
}

/// A rollback is not a fault: nothing is said, nobody restarts, the next message finds a new instance at once.
#[test]
fn a_rollback_is_no_fault() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (said, _s) = bed.hear("probe.v1.event.said");
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        let _ = answer(bed.ask("probe.v1.do.state", json!({})).await);
        assert_eq!(refusal(bed.ask("probe.v1.do.refuse", json!({})).await), "probe.refused");
        assert_eq!(
            answer(bed.ask("probe.v1.do.state", json!({})).await)["handled"],
            1,
            "a new instance"
        );
        assert!(said.is_empty() && health.is_empty());
    });
}

/// `retry` of a subscription: rolled back twice, committed at the third attempt. A message that faults twice is given up, and
/// counts for health once.
#[test]
fn retries() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        let (dead, _d) = bed.hear("dead.v1.probe");
        assert_eq!(answer(bed.ask("probe.v1.stubborn.try", json!({})).await)["n"], 3);
        assert_eq!(
            refusal(bed.ask("probe.v1.stubborn.panic", json!({})).await),
            codes::FAULT_TRAP
        );
        assert_eq!(next(&health).await["restart_in_ms"], 2000);
        assert_eq!(
            next(&health).await["restart_in_ms"],
            Value::Null,
            "the second fault of one message does not count"
        );
        assert_eq!(next(&dead).await["attempts"], 2);
        assert!(dead.is_empty() && health.is_empty());
    });
}

/// Effects happen in their order, after the commit.
#[test]
fn effects_in_order() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (said, _s) = bed.hear("probe.v1.event.said");
        let _ = answer(bed.ask("probe.v1.do.say", json!({"n": 100})).await);
        let heard: Vec<Value> = std::iter::from_fn(|| said.try_next())
            .map(|d| serde_json::from_slice::<Value>(&d.message.body.bytes).unwrap()["n"].clone())
            .collect();
        assert_eq!(heard, (0..100).map(Value::from).collect::<Vec<_>>());
    });
}

/// A capsule says what its manifest declares and nothing else; each refusal names why.
#[test]
fn the_gate_refuses() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let (all, _a) = bed.hear(">");
        let said = answer(bed.ask("probe.v1.do.trespass", json!({})).await);
        let lines: Vec<&str> = said["text"].as_str().unwrap().lines().collect();
        assert!(
            lines[0].contains("its manifest does not declare it ([publish])"),
            "{lines:?}"
        );
        assert!(lines[1].contains("belongs to the kernel"), "{lines:?}");
        assert!(lines[2].contains("for operators"), "{lines:?}");
        assert_eq!(lines.len(), 4);
        let topics: Vec<String> = std::iter::from_fn(|| all.try_next())
            .map(|d| d.message.topic.to_string())
            .collect();
        assert_eq!(topics, ["probe.v1.do.trespass"]);
    });
}

/// `request` waits in place, towards what is imported.
#[test]
fn a_nested_request() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        assert_eq!(
            answer(bed.ask("probe.v1.do.request", json!({})).await)["text"],
            "Hello, probe!"
        );
    });
}

/// K3: a missing import keeps a capsule out, with the reason.
#[test]
fn a_missing_import_is_named() {
    run(async {
        let bed = Bed::new(&["probe"]).await;
        let reports = bed.manager.reports();
        assert_eq!(reports[0].state, astrid_wire::control::CapsuleState::Refused);
        assert!(reports[0].reason.as_deref().unwrap().contains("hello"), "{reports:?}");
        assert_eq!(
            refusal(bed.ask("probe.v1.do.state", json!({})).await),
            codes::NO_SUBSCRIBER
        );
    });
}

/// An answer can be given later, from a timer's handler.
#[test]
fn an_answer_given_later() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let began = std::time::Instant::now();
        assert_eq!(
            answer(bed.ask("probe.v1.do.later", json!({"n": 40})).await)["text"],
            "later"
        );
        assert!(began.elapsed() >= Duration::from_millis(40));
    });
}

/// Principal scope: each principal has an actor of its own, which acts as that principal.
#[test]
fn actors_of_principals() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        for handled in 1..=2 {
            for principal in ["ann", "bob"] {
                let state = answer(bed.ask_as(principal, "probe.v1.do.state", Body::json(&json!({}))).await);
                assert_eq!(state, json!({"handled": handled, "principal": principal}));
            }
        }
    });
}

/// The limit on live actors: the least recently used ends, and comes back, new, with its next message. Nothing is lost.
#[test]
fn eviction_under_pressure() {
    run(async {
        let bed = Bed::with(
            &["hello", "probe"],
            Settings {
                shards: 1,
                live_actors: 16,
                ..Settings::default()
            },
        )
        .await;
        for n in 0..200 {
            let state = bed
                .ask_as(&format!("p{n}"), "probe.v1.do.state", Body::json(&json!({})))
                .await;
            assert_eq!(answer(state)["handled"], 1);
            assert!(bed.host.census.len() <= 18, "{} live", bed.host.census.len());
        }
        let again = bed.ask_as("p0", "probe.v1.do.state", Body::json(&json!({}))).await;
        assert_eq!(answer(again)["handled"], 1, "it was evicted meanwhile");
    });
}

/// Many more than there is room for, all at once: they wait for a place, each is answered, and the house is not overfull meanwhile.
#[test]
fn a_crowd_at_once() {
    run(async {
        let settings = Settings {
            live_actors: 16,
            ..Settings::default()
        };
        let bed = Bed::with(&["hello", "probe"], settings).await;
        let names: Vec<String> = (0..500).map(|n| format!("p{n}")).collect();
        let asks = names.iter().map(|name| async {
            let state = bed.ask_as(name, "probe.v1.do.state", Body::json(&json!({}))).await;
            (answer(state)["handled"].clone(), bed.host.census.len())
        });
        let answers = futures_util::future::join_all(asks).await;
        assert!(answers.iter().all(|(handled, _)| *handled == 1));
        let most = answers.iter().map(|(_, live)| *live).max().unwrap();
        assert!(most <= 18, "{most} live");
    });
}

fn saying(body: &Value) -> Saying {
    Saying {
        principal: Principal::default_owner(),
        source: Source::Capsule("test".into()),
        body: Body::json(body),
        public: false,
    }
}

/// A full queue says so: nothing is dropped in silence.
#[test]
fn a_full_queue_rejects() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let _ = answer(bed.ask("probe.v1.do.state", json!({})).await);
        let bus: &Arc<Bus> = &bed.host.bus;
        // Nobody runs between these publishes: this is the only thread.
        let results: Vec<bool> = (0..12)
            .map(|_| bus.publish(bed.say("probe.v1.do.state"), saying(&json!({}))).is_ok())
            .collect();
        assert_eq!(
            results.iter().filter(|ok| **ok).count(),
            8,
            "the manifest says queue = 8: {results:?}"
        );
        // While somebody else is answered, what waits is handled.
        let _ = answer(bed.ask_as("other", "probe.v1.do.state", Body::json(&json!({}))).await);
        assert!(
            matches!(bed.ask("probe.v1.do.state", json!({})).await, Outcome::Answer(_)),
            "and there is room again"
        );
    });
}

/// The same, with two shards: actors on different threads, messages between them.
#[test]
fn two_shards() {
    run(async {
        let bed = Bed::with(
            &["hello", "probe"],
            Settings {
                shards: 2,
                live_actors: 64,
                ..Settings::default()
            },
        )
        .await;
        let asks = (0..64).map(|n| {
            let bed = &bed;
            async move {
                let principal = format!("p{}", n % 16);
                bed.ask_as(&principal, "probe.v1.do.request", Body::json(&json!({})))
                    .await
            }
        });
        for outcome in futures_util::future::join_all(asks).await {
            assert_eq!(answer(outcome)["text"], "Hello, probe!");
        }
    });
}

/// Who would stop waiting before the restart is told at once, and a body that the actor could not hold is refused, not tried.
#[test]
fn refusals_without_an_instance() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let big = Body::text("x".repeat(2 << 20));
        assert_eq!(
            refusal(bed.ask_as("default", "probe.v1.do.state", big).await),
            codes::TOO_LARGE
        );
        assert_eq!(
            refusal(bed.ask("probe.v1.do.panic", json!({})).await),
            codes::FAULT_TRAP
        );
        let impatient = bed.host.bus.request(
            bed.say("probe.v1.do.state"),
            saying(&json!({})),
            Duration::from_millis(500),
        );
        assert_eq!(
            refusal(impatient.await.unwrap()),
            codes::UNAVAILABLE,
            "at once: it need not wait"
        );
        let patient = bed.ask("probe.v1.do.state", json!({})).await;
        assert_eq!(answer(patient)["handled"], 1);
    });
}

/// K6: one principal's failing actor restarts, and status says so; another's does not notice.
#[test]
fn others_do_not_notice() {
    run(async {
        let bed = Bed::new(&["hello", "probe"]).await;
        let _ = refusal(bed.ask_as("bad", "probe.v1.do.panic", Body::json(&json!({}))).await);
        let good = bed.ask_as("good", "probe.v1.do.state", Body::json(&json!({}))).await;
        assert_eq!(answer(good)["handled"], 1);
        let report = bed.manager.reports().into_iter().find(|r| r.name == "probe").unwrap();
        assert_eq!(report.state, astrid_wire::control::CapsuleState::Restarting);
    });
}
