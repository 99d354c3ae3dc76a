//! The guard by itself, natively.

use astrid_sdk::testing::Harness;

use super::*;

fn sentry() -> Harness<Sentry> {
    Harness::new::<Sentry>().with_manifest(include_str!("../Capsule.toml"))
}

fn named(name: &str) -> Value {
    json!({ "name": name })
}

#[test]
fn it_judges_by_what_its_handlers_keep() {
    let mut sentry = sentry();
    assert_eq!(sentry.guard_ask("hello.v1.greet", named("Ada")), Verdict::Allow);
    let verdict = sentry.guard("hello.v1.greet", named("deny this"));
    assert_eq!(verdict, Verdict::deny("deny this of default"));
    sentry.event("sentry.v1.do.mark", json!({ "mark": "m" })).committed();
    let verdict = sentry.guard("hello.v1.greet", named("mark"));
    assert_eq!(verdict, Verdict::Replace(br#"{"name":"mark+m"}"#.to_vec()));
}

#[test]
fn what_it_cannot_read_or_do_is_a_denial() {
    let mut sentry = sentry();
    assert!(matches!(sentry.guard("hello.v1.greet", json!(7)), Verdict::Deny(_)));
    let verdict = sentry.guard("hello.v1.greet", named("write"));
    assert!(
        matches!(&verdict, Verdict::Deny(why) if why.contains("only reads")),
        "{verdict:?}"
    );
    assert_eq!(sentry.kv_value::<String>("mark"), None);
}

#[test]
#[should_panic(expected = "never guards `other.v1.topic`")]
fn it_is_shown_only_what_it_guards() {
    let _ = sentry().guard("other.v1.topic", named("x"));
}

/// What the kernel would refuse in the guard's name, a capsule's test can play.
#[test]
fn who_is_refused_passes_it_on() {
    let mut sentry = sentry();
    let problem = Problem::new(codes::GUARD_DENIED, "not today");
    sentry.refuse_sends("sentry.v1.event.>", SendError::Refused(problem.clone()));
    let say = json!({ "how": "publish", "topic": "sentry.v1.event.x", "name": "x" });
    assert_eq!(sentry.ask("sentry.v1.do.say", say).refused(), problem);
}
