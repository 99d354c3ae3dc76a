//! A thousand instances: spread over messages, each at a small and constant cost.

use super::*;

const MANY: &str = "[[processes]]\nname = \"many\"\ncommand = \"m\"\ninstances = 1000\nbackoff = { base = \"0s\" }\n";

fn start(bed: &mut Bed) {
    advance(bed, SECOND);
    let ports: Vec<_> = bed
        .children()
        .iter()
        .filter(|child| child.pid.is_none())
        .map(|child| child.port)
        .collect();
    for port in ports {
        bed.child_started(port).committed();
    }
}

/// Commands of a message are bounded: a thousand are started by several, and stopped as well.
#[test]
fn a_thousand_start_and_stop() {
    let mut bed = bed(MANY);
    assert_eq!(bed.children().len(), 200, "as many as one message starts");
    start(&mut bed);
    assert_eq!(bed.children().len(), 1000);
    let list = ask(&mut bed, "list", json!({})).json();
    let running = |value: &Value| value["state"] == "running";
    assert!(
        list["processes"][0]["instances"]
            .as_array()
            .unwrap()
            .iter()
            .all(running)
    );
    assert_eq!(bed.timers(), []);

    let asked = ask(&mut bed, "stop", json!({}));
    advance(&mut bed, SECOND);
    for child in bed.children() {
        assert_eq!(child.signals.len(), 1);
        bed.child_exited(child.port, killed("SIGTERM")).committed();
    }
    assert_eq!(
        answer(&bed, &asked)["processes"][0]["instances"][999]["state"],
        "stopped"
    );
    assert_eq!(bed.timers(), []);
}

/// A thousand that end at once: every circuit opens, and `why` explains each.
#[test]
fn a_thousand_that_crash() {
    let mut bed = bed(MANY);
    for _ in 0..6 {
        start(&mut bed);
        for child in bed.children() {
            bed.child_exited(child.port, Exit::Code(1)).committed();
        }
        advance(&mut bed, Duration::from_millis(10));
    }
    assert!(bed.children().is_empty());
    assert_eq!(bed.timers(), [], "at rest");
    let circuits = bed
        .published()
        .into_iter()
        .filter(|said| said.topic == "process.v1.event.circuit");
    assert_eq!(circuits.count(), 1000);
    let why = ask(&mut bed, "why", json!({ "name": "many" })).json();
    for instance in why["instances"].as_array().unwrap() {
        assert!(
            instance["sentences"][1]
                .as_str()
                .unwrap()
                .contains("restarted 5 times within 1m"),
            "{instance}"
        );
        assert!(instance["events"].as_array().unwrap().len() <= 20);
    }
}

/// A thousand that wait and a thousand that are stopped: the next daemon has them as they were, and what is at rest stays at rest.
#[test]
fn a_thousand_come_back() {
    let mut bed = bed(MANY);
    for _ in 0..5 {
        start(&mut bed);
    }
    // Killed before most of them were even sent a signal.
    let _ = ask(&mut bed, "stop", json!({ "name": "many", "wait": false }));
    bed.restart();
    bed.event("lifecycle.v1.started", json!({ "capsule": "process", "generation": 1 }))
        .committed();
    advance(&mut bed, SECOND);
    assert!(bed.children().is_empty() && bed.timers().is_empty());
    let list = ask(&mut bed, "list", json!({})).json();
    let instances = list["processes"][0]["instances"].as_array().unwrap();
    assert!(instances.iter().all(|instance| instance["state"] == "stopped"));
    let longest = bed.kv().iter().map(|entry| entry.value.len()).max();
    assert!(longest < Some(2000), "{longest:?} bytes for an instance");
}

/// Stopped while most are not started yet: those are never started.
#[test]
fn what_waits_to_be_started_can_be_stopped() {
    let mut bed = bed(MANY);
    let started = bed.children().len();
    let asked = ask(&mut bed, "stop", json!({ "name": "many" }));
    advance(&mut bed, SECOND);
    assert_eq!(bed.children().len(), started);
    for child in bed.children() {
        bed.child_exited(child.port, killed("SIGTERM")).committed();
    }
    advance(&mut bed, SECOND);
    assert_eq!(
        answer(&bed, &asked)["processes"][0]["instances"][999]["state"],
        "stopped"
    );
    assert!(bed.children().is_empty());
}
