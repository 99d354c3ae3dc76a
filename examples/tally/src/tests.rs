//! The capsule through the harness: counting, asking, reporting.

use std::time::Duration;

use astrid_sdk::error::SendError;
use astrid_sdk::prelude::*;
use astrid_sdk::testing::{Asked, Harness};

use super::Tally;

fn tally() -> Harness<Tally> {
    Harness::new::<Tally>().with_manifest(include_str!("../Capsule.toml"))
}

fn visit(tally: &mut Harness<Tally>, name: &str) -> Asked {
    tally.ask("tally.v1.visit", json!({ "name": name }))
}

#[test]
fn a_visitor_is_greeted_when_hello_answers() {
    let mut tally = tally();
    let (ada, bob) = (visit(&mut tally, "Ada"), visit(&mut tally, "Bob"));
    assert!(ada.is_pending() && bob.is_pending());

    // Answers find their way in any order.
    let asks = tally.asks();
    assert_eq!(asks[1].said.json(), json!({ "name": "Bob" }));
    tally.answer(asks[1].id, json!({ "text": "Hi Bob" })).committed();
    assert_eq!(tally.reply(ada.to), None);
    let welcome = tally
        .reply(bob.to)
        .and_then(Result::ok)
        .map(|body| body.read::<Value>());
    assert_eq!(welcome, Some(Ok(json!({ "greeting": "Hi Bob", "visits": 1 }))));
    assert_eq!(
        tally.ask("tally.v1.count", json!({})).json(),
        json!({ "visits": { "Ada": 1, "Bob": 1 } })
    );
}

#[test]
fn a_visitor_hears_why_nobody_greets() {
    let mut tally = tally();
    let unlucky = visit(&mut tally, "Ada");
    tally
        .refuse(tally.asks()[0].id, &Problem::new("hoarse", "I lost my voice"))
        .committed();
    assert!(matches!(tally.reply(unlucky.to), Some(Err(problem)) if problem.code() == "hoarse"));

    let patient = visit(&mut tally, "Ada");
    tally.advance(Duration::from_secs(5));
    assert!(matches!(tally.reply(patient.to), Some(Err(problem)) if problem.code() == codes::TIMEOUT));

    tally.refuse_sends("hello.>", SendError::NoSubscriber);
    assert_eq!(visit(&mut tally, "Ada").refused().code(), codes::NO_SUBSCRIBER);
    // Who could not be greeted did not come.
    assert_eq!(
        tally.ask("tally.v1.count", json!({})).json(),
        json!({ "visits": { "Ada": 2 } })
    );
}

#[test]
fn reports_each_minute_in_which_somebody_came() {
    let mut tally = tally();
    tally.event("tally.v1.visit", json!({ "name": "Ada" })).committed();
    tally.advance(Duration::from_secs(59));
    tally.event("tally.v1.visit", json!({ "name": "Ada" })).committed();
    assert!(tally.published().is_empty());

    tally.advance(Duration::from_secs(1));
    let reports = tally.published();
    assert_eq!(
        (reports.len(), reports[0].json()),
        (1, json!({ "visits": 2, "visitors": 1 }))
    );

    // Nobody comes: nothing is said, and no timer runs.
    assert!(tally.advance(Duration::from_secs(3600)).is_empty());
    assert!(tally.published().is_empty() && tally.timers().is_empty());
}

#[test]
fn what_was_counted_outlives_the_daemon() {
    let mut tally = tally();
    tally.event("tally.v1.visit", json!({ "name": "Ada" })).committed();
    tally.restart_after(Duration::from_secs(300));
    tally
        .event("tally.v1.visit", json!({ "name": "visits/Ada" }))
        .committed();
    assert_eq!(
        tally.ask("tally.v1.count", json!({})).json(),
        json!({ "visits": { "Ada": 1, "visits/Ada": 1 } })
    );

    // The report was due meanwhile, and comes once.
    tally.advance(Duration::from_secs(3600));
    let reports = tally.published();
    assert_eq!(
        (reports.len(), reports[0].json()),
        (1, json!({ "visits": 2, "visitors": 2 }))
    );
}

#[test]
fn counts_are_bounded() {
    let mut tally = tally();
    assert_eq!(visit(&mut tally, &"a".repeat(101)).refused().code(), codes::TOO_LARGE);
    for visitor in 0..super::VISITORS_MAX {
        tally
            .event("tally.v1.visit", json!({ "name": visitor.to_string() }))
            .committed();
    }
    assert_eq!(visit(&mut tally, "one more").refused().code(), codes::TOO_MANY);
    assert!(visit(&mut tally, "7").is_pending());
}
