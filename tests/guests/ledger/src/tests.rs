//! What is driven by the kernel's tests, through the harness.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use astrid_sdk::prelude::*;
use astrid_sdk::testing::Harness;

use super::Ledger;

fn ledger() -> Harness<Ledger> {
    Harness::new::<Ledger>().with_manifest(include_str!("../Capsule.toml"))
}

#[test]
fn sums_last() {
    let mut ledger = ledger();
    for sum in [5, 10] {
        let added = ledger
            .ask("ledger.v1.add", json!({ "key": "a", "amount": 5, "idle": 10 }))
            .json();
        assert_eq!(added, json!({ "sum": sum, "attempt": 1, "handled": 1 }));
        ledger.restart();
    }
    assert_eq!(ledger.ask("ledger.v1.sum", json!({ "key": "a" })).json(), 10);
    assert_eq!(ledger.ask("ledger.v1.sum", json!({ "key": "b" })).json(), 0);
}

#[test]
fn operations_see_each_other_and_happen_together() {
    let mut ledger = ledger();
    let ops = json!([
        { "op": "put", "key": "a", "value": "1" },
        { "op": "get", "key": "a" },
        { "op": "cas", "key": "a", "expected": "1", "value": "2" },
        { "op": "cas", "key": "a", "expected": null, "value": "3" },
        { "op": "put", "key": "", "value": "1" },
        { "op": "fill", "prefix": "f/", "count": 3, "bytes": 2 },
        { "op": "scan", "start": "f/", "limit": 1, "backwards": true },
        { "op": "scan", "end": "f/00000000" },
        { "op": "delete", "key": "f/00000001" },
    ]);
    let expected = json!([
        { "done": null },
        { "value": "1" },
        { "swapped": true },
        { "swapped": false },
        { "error": "kv.invalid-key" },
        { "taken": 3 },
        { "entries": [["f/00000002", "xx"]], "next": "f/00000001\0" },
        { "entries": [["a", "2"]], "next": null },
        { "done": null },
    ]);
    let refused = ledger
        .ask("ledger.v1.kv", json!({ "ops": ops, "then": "refuse" }))
        .refused();
    assert_eq!(refused.code(), "ledger.refused");
    assert!(ledger.kv().is_empty());
    assert_eq!(ledger.ask("ledger.v1.kv", json!({ "ops": ops })).json(), expected);
    let keys: Vec<String> = ledger
        .kv()
        .iter()
        .map(|entry| entry.key_text().unwrap().to_owned())
        .collect();
    assert_eq!(keys, ["a", "f/00000000", "f/00000002"]);
}

#[test]
fn timers_are_counted() {
    let mut ledger = ledger();
    for (tag, durable) in [("lasts", true), ("ends", false), ("cancelled", true)] {
        let set = json!({ "after_ms": 1000, "tag": tag, "durable": durable });
        assert!(ledger.ask("ledger.v1.timer", set).json().is_u64());
    }
    assert_eq!(ledger.ask("ledger.v1.pin", true).json(), true);
    ledger.restart_after(Duration::from_secs(60));
    assert_eq!(ledger.ask("ledger.v1.cancel", "cancelled").json(), 1);
    let armed = ledger.ask("ledger.v1.timers", ()).json();
    assert_eq!(
        (armed.as_array().unwrap().len(), &armed[0]["tag"]),
        (1, &json!("lasts"))
    );
    ledger.advance(Duration::ZERO);
    assert_eq!((ledger.kv_value("fired/lasts"), ledger.kv().len()), (Some(1), 1));
    assert!(ledger.pinned());
    assert_eq!(ledger.published()[0].json(), json!({ "tag": "lasts", "fired": 1 }));
}
