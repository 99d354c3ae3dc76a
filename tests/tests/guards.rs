//! Guards, in a kernel of this process: what each way of speaking comes to when somebody stands before the topic, and that nothing passes
//! a guard that cannot be asked.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use astrid_kernel::authority::{Acl, Authority, Check, Policy};
use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::capsule::bundle::Bundle;
use astrid_tests::bed::{Bed, PATIENCE, Settings, answer, read_bundle, refusal};
use astrid_wire::authority::{Action, GroupsFile, Profile};
use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};
use serde_json::{Value, json};

/// Where everything of these tests is said.
const GUARDED: &str = "hello.v1.greet";

/// The host functions that say something.
const WAYS: [&str; 5] = ["publish", "publish-once", "ask", "emit", "request"];

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

/// A guard of that name, which hears the last segments of these topics.
fn guard(name: &str, hears: &[&str]) -> Bundle {
    let mut bundle = named(name, hears);
    let guards = bundle.manifest.capabilities.guard.as_mut().unwrap();
    guards.allow = BTreeSet::from(["hello.v1.*".parse().unwrap(), GUARDED.parse().unwrap()]);
    bundle
}

/// The same code as somebody who speaks, and guards nothing.
fn speaker() -> Bundle {
    let mut bundle = named("speaker", &["say", "try"]);
    bundle.manifest.capabilities.guard = None;
    bundle
}

fn named(name: &str, hears: &[&str]) -> Bundle {
    let mut bundle = read_bundle("sentry");
    bundle.manifest.package.name = name.parse().unwrap();
    let wanted = |pattern: &str| hears.contains(&pattern.rsplit('.').next().unwrap());
    let all = bundle.manifest.subscribe.remove("sentry.v1.do.*").unwrap();
    for topic in ["say", "try", "mark", "crash"].map(|last| format!("sentry.v1.do.{last}")) {
        if wanted(&topic) {
            bundle.manifest.subscribe.insert(topic.parse().unwrap(), all);
        }
    }
    bundle
}

async fn bed(guards: Vec<Bundle>) -> Bed {
    let bundles = [guards, vec![read_bundle("hello"), speaker()]].concat();
    Bed::of(bundles, Settings::default()).await
}

/// Says something on the guarded topic, in one of the [`WAYS`].
async fn say(bed: &Bed, how: &str, name: &str) -> Outcome {
    let body = json!({ "how": how, "topic": GUARDED, "name": name });
    bed.ask("sentry.v1.do.say", body).await
}

#[track_caller]
fn problem(outcome: Outcome) -> Problem {
    match outcome {
        Outcome::Refusal(problem) => problem,
        other => panic!("no refusal, but {other:?}"),
    }
}

async fn next(inbox: &Inbox) -> Value {
    serde_json::from_slice(&inbox.next().await.unwrap().message.body.bytes).unwrap()
}

/// What a guard allows is said, what it replaces is said in its words, and what it denies is not: whoever speaks is told by whom and why.
#[test]
fn every_way_of_speaking_passes_the_guard() {
    run(async {
        let bed = bed(vec![guard("sentry", &["mark"])]).await;
        let (said, _s) = bed.hear(GUARDED);
        let _ = answer(bed.ask("sentry.v1.do.mark", json!({ "mark": "m" })).await);
        for how in WAYS {
            let denied = problem(say(&bed, how, "deny this").await);
            assert_eq!(denied.code(), codes::GUARD_DENIED, "{how}");
            assert_eq!(
                denied.message(),
                "sentry refused hello.v1.greet: deny this of default",
                "{how}"
            );
            let text = answer(say(&bed, how, "mark").await)["text"].clone();
            assert_eq!(next(&said).await, json!({ "name": "mark+m" }), "{how}");
            if how == "request" {
                assert_eq!(text, "Hello, mark+m!");
            }
        }
        let _ = answer(say(&bed, "publish", "Ada").await);
        assert_eq!(next(&said).await["name"], "Ada");
        assert!(said.is_empty(), "what was denied is not said");
    });
}

/// A refusal is the speaker's to deal with: it undoes nothing that the speaker does not give up.
#[test]
fn who_is_refused_may_go_on() {
    run(async {
        let bed = bed(vec![guard("sentry", &[])]).await;
        let (said, _s) = bed.hear(GUARDED);
        let (after, _a) = bed.hear("sentry.v1.event.after");
        let body = json!({ "topic": GUARDED, "name": "deny", "how": "" });
        let tried = answer(bed.ask("sentry.v1.do.try", body).await);
        assert_eq!(tried["text"], codes::GUARD_DENIED);
        assert_eq!(next(&after).await["name"], "after");
        assert!(said.is_empty());
    });
}

/// Fails closed: a guard that traps, does not end, takes too much, or reaches for anything but its table and the log refuses the message,
/// in bounded time; none of that is a fault of anybody's actor, and the next message finds the guard as it was.
#[test]
fn a_guard_that_misbehaves_refuses() {
    run(async {
        let bed = bed(vec![guard("sentry", &["mark"])]).await;
        let (greeted, _g) = bed.hear(GUARDED);
        let (said, _s) = bed.hear("sentry.v1.event.>");
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        // Long, so that reading it takes time.
        let _ = answer(
            bed.ask("sentry.v1.do.mark", json!({ "mark": "m".repeat(900_000) }))
                .await,
        );
        for (what, why) in [
            ("trap", "trapped"),
            ("spin", "units of fuel"),
            ("slow", "more than 250 ms"),
            ("hog", "more memory"),
            ("publish", "called astrid:kernel/bus@0.1.0#publish"),
            ("emit", "called astrid:kernel/bus@0.1.0#emit"),
            ("request", "called astrid:kernel/bus@0.1.0#request"),
        ] {
            let failed = problem(say(&bed, "publish", what).await);
            assert_eq!(failed.code(), codes::GUARD_FAILED, "{what}: {failed}");
            assert!(failed.message().starts_with("sentry guards hello.v1.greet"), "{failed}");
            assert!(failed.message().contains(why), "{what}: {failed}");
            assert!(
                failed
                    .hint()
                    .unwrap()
                    .contains("astrid caps revoke capsule:sentry guard:"),
                "{failed:?}"
            );
        }
        let _ = answer(bed.ask("sentry.v1.do.mark", json!({ "mark": "m" })).await);
        // A write is refused to the guard, which denies for that; the table is as it was.
        let denied = problem(say(&bed, "publish", "write").await);
        assert_eq!(denied.code(), codes::GUARD_DENIED);
        assert!(denied.message().contains("only reads"), "{denied}");
        let _ = answer(say(&bed, "publish", "mark").await);
        assert_eq!(next(&greeted).await["name"], "mark+m", "it judges as before");
        assert!(greeted.is_empty() && said.is_empty() && health.is_empty());
    });
}

/// Fuel of a guard is paid by whoever speaks, and counted for the guard's capsule.
#[test]
fn who_speaks_pays() {
    run(async {
        let bed = bed(vec![guard("sentry", &[])]).await;
        let account = bed.host.ledger.account(&Principal::stamped("default").unwrap());
        let used = || account.usage.fuel.load(Ordering::Relaxed);
        let before = used();
        assert_eq!(refusal(say(&bed, "publish", "spin").await), codes::GUARD_FAILED);
        assert!(used() - before >= 10_000_000, "{}", used() - before);
        let reports = bed.manager.reports();
        let sentry = reports.iter().find(|report| report.name == "sentry").unwrap();
        assert!(sentry.fuel_used >= 10_000_000, "{}", sentry.fuel_used);
    });
}

/// Several guards are asked in the order of loading, each sees what the one before made, and the first refusal is the answer.
#[test]
fn guards_stand_in_order() {
    for (marks, expected) in [("one", "mark x+m+"), ("two", "mark x++m")] {
        run(async {
            let hears = |name: &str| if name == marks { &["mark"][..] } else { &[] };
            let guards = ["one", "two"].map(|name| guard(name, hears(name)));
            let bed = bed(guards.into()).await;
            let (said, _s) = bed.hear(GUARDED);
            let _ = answer(bed.ask("sentry.v1.do.mark", json!({ "mark": "m" })).await);
            let _ = answer(say(&bed, "publish", "mark x").await);
            assert_eq!(next(&said).await["name"], expected);
            let denied = problem(say(&bed, "publish", "deny").await);
            assert!(denied.message().starts_with("one refused"), "{denied}");
        });
    }
}

/// A capsule is not judged by its own guard, which has no say over it anyway; it is by others'.
#[test]
fn nobody_guards_itself() {
    run(async {
        let both = |name| {
            let mut bundle = guard(name, &["say"]);
            bundle.manifest.imports.clear();
            bundle
        };
        let bundles = vec![both("one"), read_bundle("hello")];
        let alone = Bed::of(bundles, Settings::default()).await;
        let _ = answer(say(&alone, "publish", "deny").await);
        let bundles = vec![both("one"), guard("two", &[]), read_bundle("hello")];
        let watched = Bed::of(bundles, Settings::default()).await;
        let denied = problem(say(&watched, "publish", "deny").await);
        assert!(denied.message().starts_with("two refused"), "{denied}");
    });
}

fn policy(grants: &[&str]) -> Policy {
    let groups = match grants {
        [] => json!({}),
        grants => json!({ "capsule": { "sentry": { "grants": grants } } }),
    };
    let mut policy = Policy::with_groups(&serde_json::from_value::<GroupsFile>(groups).unwrap()).unwrap();
    let admin = Profile {
        groups: vec!["admin".to_owned()],
        ..Profile::default()
    };
    policy.insert(Principal::default_owner(), admin).unwrap();
    policy
}

fn under(authority: &Arc<Authority>) -> Settings {
    Settings {
        authority: Arc::clone(authority),
        ..Settings::default()
    }
}

const GRANT: &[&str] = &["guard:hello.v1.*"];

/// A manifest is not enough to stand before others: without the operator's grant a guard is none, and it is told where the grant goes. A
/// grant counts with the next message, and so does its end.
#[test]
fn who_is_not_granted_guards_nothing() {
    run(async {
        let authority = Authority::fixed(policy(&[]));
        let bundles = vec![guard("sentry", &[]), read_bundle("hello"), speaker()];
        let bed = Bed::of(bundles, under(&authority)).await;
        let reason = || {
            let reports = bed.manager.reports();
            reports
                .iter()
                .find(|report| report.name == "sentry")
                .unwrap()
                .reason
                .clone()
        };
        let _ = answer(say(&bed, "publish", "deny").await);
        let told = reason().unwrap();
        assert!(
            told.contains("astrid caps grant capsule:sentry guard:hello.v1.*"),
            "{told}"
        );
        authority.replace(policy(GRANT));
        assert_eq!(refusal(say(&bed, "publish", "deny").await), codes::GUARD_DENIED);
        assert_eq!(reason(), None);
        let acl = Acl::new(&guard("sentry", &[]).manifest, Vec::new());
        let may = |pattern| {
            bed.host.gate.check(&Check {
                principal: &Principal::capsule("sentry"),
                acl: Some(&acl),
                action: Action::Guard,
                resource: Some(pattern),
            })
        };
        assert!(may("hello.v1.*") && may(GUARDED) && !may("hello.>") && !may("other.v1.x"));
        authority.replace(policy(&[]));
        let _ = answer(say(&bed, "publish", "deny").await);
    });
}

/// Fails closed: what the operator has put under a guard stays closed while that guard is not there, and status says so.
#[test]
fn where_the_guard_is_missing_nothing_is_said() {
    run(async {
        let authority = Authority::fixed(policy(GRANT));
        let bed = Bed::of(vec![read_bundle("hello"), speaker()], under(&authority)).await;
        for how in WAYS {
            let failed = problem(say(&bed, how, "Ada").await);
            assert_eq!(failed.code(), codes::GUARD_FAILED, "{how}");
            assert!(failed.message().contains("does not run"), "{failed}");
        }
        let missing = bed.host.guards.missing(&bed.host.gate);
        assert!(
            missing[0].contains("hello.v1.*") && missing[0].contains("sentry"),
            "{missing:?}"
        );
        // Not on its list: another topic is open.
        let (after, _a) = bed.hear("sentry.v1.event.after");
        let body = json!({ "topic": "sentry.v1.event.x", "name": "x", "how": "" });
        let _ = answer(bed.ask("sentry.v1.do.try", body).await);
        assert_eq!(next(&after).await["name"], "after");
    });
}

/// Fails closed: while the guard's capsule is ill nothing passes, and when it is back the guard is.
#[test]
fn a_guard_that_crashed_refuses_until_it_is_back() {
    run(async {
        let bed = bed(vec![guard("sentry", &["crash", "mark"])]).await;
        let (health, _h) = bed.hear("astrid.v1.health.failed");
        let crashed = bed.ask("sentry.v1.do.crash", json!({})).await;
        assert_eq!(refusal(crashed), codes::FAULT_TRAP);
        assert_eq!(next(&health).await["capsule"], "sentry");
        let failed = problem(say(&bed, "publish", "Ada").await);
        assert_eq!(failed.code(), codes::GUARD_FAILED);
        assert!(failed.message().contains("not back yet"), "{failed}");
        // It waits in the queue until then.
        let _ = answer(bed.ask("sentry.v1.do.mark", json!({ "mark": "m" })).await);
        let _ = answer(say(&bed, "publish", "Ada").await);
    });
}
