//! The chain through three harnesses: what is handled, in order or not, once or more often, and what the reports say of it.
#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::prelude::*;
use astrid_sdk::testing::Handled;

mod a {
    crate::stage!(
        A,
        hears = "relay.v1.submit",
        says = "relay.v1.second",
        reports = "relay.v1.request.report_a"
    );
    pub(super) fn harness() -> astrid_sdk::testing::Harness<impl astrid_sdk::Capsule> {
        let manifest = include_str!("../../relay-a/Capsule.toml");
        astrid_sdk::testing::Harness::new::<Relay>().with_manifest(manifest)
    }
}

mod b {
    crate::stage!(
        B,
        hears = "relay.v1.second",
        says = "relay.v1.third",
        reports = "relay.v1.request.report_b"
    );
    pub(super) fn harness() -> astrid_sdk::testing::Harness<impl astrid_sdk::Capsule> {
        let manifest = include_str!("../../relay-b/Capsule.toml");
        astrid_sdk::testing::Harness::new::<Relay>().with_manifest(manifest)
    }
}

mod c {
    crate::stage!(C, hears = "relay.v1.third", reports = "relay.v1.request.report");
    pub(super) fn harness() -> astrid_sdk::testing::Harness<impl astrid_sdk::Capsule> {
        let manifest = include_str!("../../relay-c/Capsule.toml");
        astrid_sdk::testing::Harness::new::<Relay>().with_manifest(manifest)
    }
}

fn clean(count: u64) -> Value {
    json!({ "last": count, "count": count, "doubled": [], "missing": [], "out_of_order": [] })
}

fn third(number: u64) -> Value {
    json!({ "client": "ada", "number": number })
}

/// What is submitted comes out at the end, once and in order, and stays counted over restarts.
#[test]
fn every_message_has_its_effect() {
    let (mut a, mut b, mut c) = (a::harness(), b::harness(), c::harness());
    for number in 1..=3 {
        for client in ["ada", "bob/1"] {
            a.event("relay.v1.submit", json!({ "client": client, "number": number }))
                .committed();
        }
        for said in a.published() {
            assert_eq!(
                (said.topic.as_str(), &said.json()["seen"]),
                ("relay.v1.second", &json!(number))
            );
            b.event(&said.topic, said.body).committed();
        }
        for said in b.published() {
            c.event(&said.topic, said.body).committed();
        }
        a.restart();
        c.evict();
    }
    let expected = json!({ "clients": { "ada": clean(3), "bob/1": clean(3) } });
    assert_eq!(a.ask("relay.v1.request.report_a", json!({})).json(), expected);
    assert_eq!(b.ask("relay.v1.request.report_b", json!({})).json(), expected);
    assert_eq!(c.ask("relay.v1.request.report", json!({})).json(), expected);
}

/// What comes twice, too early, too late or never is told.
#[test]
fn what_is_wrong_is_told() {
    let mut c = c::harness();
    for number in [1, 1, 4, 3, 5] {
        c.event("relay.v1.third", third(number)).committed();
    }
    let told = c.ask("relay.v1.request.report", json!({})).json();
    assert_eq!(
        told["clients"]["ada"],
        json!({ "last": 5, "count": 4, "doubled": [1], "missing": [2], "out_of_order": [1, 4, 3] })
    );
    // Numbers count from one, and a report names a part of what is beyond measure.
    for number in [0, u64::MAX - 1] {
        c.event("relay.v1.third", json!({ "client": "eve", "number": number }))
            .committed();
    }
    let told = c.ask("relay.v1.request.report", json!({})).json();
    assert_eq!(
        told["clients"]["eve"]["missing"].as_array().unwrap().len(),
        crate::NAMED_MAX
    );
}

/// A stage fails as it is told, at the attempts that it is told, and nothing of these is kept.
#[test]
fn a_stage_fails_on_request() {
    let fails = |fault: &str| json!({ "client": "ada", "number": 1, "fault": fault, "stage": "b", "times": 2 });
    let mut b = b::harness();
    let refused = b.event("relay.v1.second", fails("refuse")).rolled_back();
    assert!(matches!(refused, Rollback::Refuse(problem) if problem.code() == "relay.refused"));
    assert!(matches!(
        b.event("relay.v1.second", fails("retry")),
        Handled::RolledBack(Rollback::Retry(_))
    ));
    assert!(matches!(b.retry(), Handled::RolledBack(Rollback::Retry(_))));
    assert!(b.kv().is_empty() && b.published().is_empty());
    b.retry().committed();
    assert_eq!(b.published().len(), 1);
    assert_eq!(
        b.ask("relay.v1.request.report_b", json!({})).json()["clients"]["ada"],
        clean(1)
    );

    let mut c = c::harness();
    c.event("relay.v1.third", fails("retry")).committed();
}

/// A table that cannot be read is waited for.
#[test]
fn nothing_is_lost_while_the_table_is_away() {
    let mut c = c::harness();
    c.set_kv_unavailable(Some("on request"));
    assert!(matches!(
        c.event("relay.v1.third", third(1)),
        Handled::RolledBack(Rollback::Retry(_))
    ));
    c.set_kv_unavailable(None);
    c.retry().committed();
    assert_eq!(
        c.ask("relay.v1.request.report", json!({})).json()["clients"]["ada"],
        clean(1)
    );
}
