//! The bus as its users see it: who hears, who is answered, who is told no.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use astrid_wire::manifest::Overflow;
use astrid_wire::problem::codes;
use astrid_wire::{Pattern, Principal};

use super::asks::{OpenAsks, Outcome, Waiter};
use super::inbox::{Inbox, LanePolicy, NoPlace};
use super::message::{Body, CommandId, Ids, Kind, MessageId, Source};
use super::{Bus, Saying, Subscribed};
use crate::authority::{Gate, Permit, Say};
use crate::deadlines::Deadlines;

fn bus() -> (Arc<Bus>, Arc<Deadlines>) {
    let deadlines = Arc::new(Deadlines::default());
    (
        Bus::new(Arc::new(Ids::new(1)), Arc::clone(&deadlines), Arc::default()),
        deadlines,
    )
}

fn say(topic: &str) -> Permit<Say> {
    Gate::default().kernel_says(topic.parse().unwrap())
}

fn hear(bus: &Arc<Bus>, patterns: &[&str], capacity: u32) -> (Arc<Inbox>, Vec<Subscribed>) {
    let permits = patterns
        .iter()
        .map(|p| Gate::default().declared(p.parse::<Pattern>().unwrap()))
        .collect();
    bus.listen(patterns[0], permits, capacity, Overflow::Reject)
}

fn saying(text: &str) -> Saying {
    Saying {
        principal: Principal::default_owner(),
        source: Source::Kernel,
        body: Body::text(text),
        public: false,
    }
}

/// However many of a receiver's patterns match, it hears a message once; and no longer, once it unsubscribed.
#[test]
fn hears_once() {
    let (bus, _) = bus();
    let (inbox, subscribed) = hear(&bus, &["a.v1.*", "a.>", "a.v1.b"], 10);
    bus.publish(say("a.v1.b"), saying("x")).unwrap();
    bus.publish(say("b.v1.b"), saying("x")).unwrap();
    assert_eq!(inbox.len(), 1);
    drop(subscribed);
    bus.publish(say("a.v1.b"), saying("x")).unwrap();
    assert_eq!(inbox.len(), 1);
}

/// One full receiver refuses the whole publish, and the others keep their places.
#[test]
fn full_is_said() {
    let (bus, _) = bus();
    let (slow, _s) = hear(&bus, &["a.v1.b"], 1);
    let (fast, _f) = hear(&bus, &["a.>"], 2);
    bus.publish(say("a.v1.b"), saying("1")).unwrap();
    assert_eq!(
        bus.publish(say("a.v1.b"), saying("2")).unwrap_err(),
        NoPlace::Full("a.v1.b".into())
    );
    assert_eq!((slow.len(), fast.len()), (1, 1));
    bus.publish(say("a.v1.c"), saying("3")).unwrap();
    assert_eq!(fast.len(), 2, "the refused message kept no place");
    bus.emit(say("a.v1.b"), saying("4"));
    assert_eq!((slow.len(), fast.len()), (1, 2), "an emit misses who has no room");
}

/// Order holds per sender and receiver, over several topics.
#[test]
fn order() {
    let (bus, _) = bus();
    let (inbox, _s) = hear(&bus, &["a.>"], 100);
    for n in 0..50 {
        bus.publish(say(["a.v1.x", "a.v1.y", "a.z"][n % 3]), saying(&n.to_string()))
            .unwrap();
    }
    let heard: Vec<String> = std::iter::from_fn(|| inbox.try_next())
        .map(|d| String::from_utf8(d.message.body.bytes.to_vec()).unwrap())
        .collect();
    assert_eq!(heard, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn asks_are_settled_once() {
    let (bus, deadlines) = bus();
    let driver = tokio::spawn(deadlines.run());
    let (answerer, _s) = hear(&bus, &["q.v1.ask"], 10);
    let (asker, _) = hear(&bus, &["nothing.here"], 10);
    let open = OpenAsks::default();
    let ask = |ordinal| {
        let command = CommandId {
            cause: MessageId { boot: 1, sequence: 9 },
            ordinal,
        };
        let until = std::time::Instant::now() + Duration::from_millis(300);
        let waiter = Waiter::Actor {
            inbox: Arc::clone(&asker),
            command,
            open: open.clone(),
            kept: false,
        };
        let say = say("q.v1.ask");
        let saying = saying("?");
        let slots = bus.reserve(&say, &saying).unwrap();
        let address = bus
            .asks()
            .open(&say.object().topic, (&saying.principal, None), until, waiter);
        bus.send(say, saying, Kind::Ask(address), Some(until), slots);
        (address, command)
    };
    let (first, first_command) = ask(0);
    let (_, second_command) = ask(1);
    assert_eq!((answerer.len(), open.count()), (2, 2));
    assert!(
        bus.asks()
            .settle(first, Outcome::Answer(Body::text("!")), Source::Kernel)
    );
    assert!(
        !bus.asks()
            .settle(first, Outcome::Answer(Body::text("again")), Source::Kernel),
        "the first answer counts"
    );
    assert_eq!(asker.next().await.unwrap().message.kind, Kind::Answer(first_command));
    // The second runs out of time.
    assert_eq!(asker.next().await.unwrap().message.kind, Kind::Timeout(second_command));
    assert_eq!(open.count(), 0);
    driver.abort();
}

#[tokio::test]
async fn a_request_that_nobody_hears_is_refused_at_once() {
    let (bus, _) = bus();
    let outcome = bus
        .request(say("q.v1.ask"), saying("?"), Duration::from_secs(5))
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Refusal(p) if p.code() == codes::NO_SUBSCRIBER));
}

/// A request that is dropped leaves no row behind.
#[tokio::test]
async fn a_dropped_request_is_forgotten() {
    let (bus, _) = bus();
    let (answerer, _s) = hear(&bus, &["q.v1.ask"], 10);
    let asking = bus.request(say("q.v1.ask"), saying("?"), Duration::from_secs(5));
    assert!(tokio::time::timeout(Duration::from_millis(1), asking).await.is_err());
    let Kind::Ask(address) = answerer.try_next().unwrap().message.kind else {
        panic!("not an ask")
    };
    assert!(!bus.asks().waits(address));
}

/// A closed receiver is not heard of: nothing is kept for it.
#[test]
fn ended_receivers() {
    let inbox = Inbox::new(
        "r".into(),
        &[LanePolicy {
            capacity: 1,
            overflow: Overflow::Reject,
            retry: 0,
            durable: false,
            ordered: false,
        }],
    );
    let slot = inbox.reserve(0, 3).unwrap();
    drop(inbox.close());
    assert!(matches!(inbox.reserve(0, 1), Err(NoPlace::Closed(_))));
    drop(slot);
}

/// Who watches hears an ask as an event: it cannot answer in somebody's place, and is not taken for somebody who will.
#[tokio::test]
async fn observers_do_not_answer() {
    struct Watch(Arc<Inbox>);
    impl super::Route for Watch {
        fn inboxes(&self, _: &super::Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
            found(Arc::clone(&self.0));
        }
    }
    let (bus, _) = bus();
    let inbox = Inbox::new(
        "w".into(),
        &[LanePolicy {
            capacity: 1,
            overflow: Overflow::Reject,
            retry: 0,
            durable: false,
            ordered: false,
        }],
    );
    let pattern = Gate::default().declared("q.>".parse().unwrap());
    let _watch = bus.subscribe(pattern, Arc::new(Watch(Arc::clone(&inbox))), 0, super::Role::Observer);
    let outcome = bus
        .request(say("q.v1.ask"), saying("?"), Duration::from_secs(5))
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Refusal(p) if p.code() == codes::NO_SUBSCRIBER));
    let watched = inbox.try_next().unwrap();
    assert_eq!((watched.message.kind, watched.message.deadline), (Kind::Event, None));
    // A watcher whose queue is full refuses nobody.
    for _ in 0..3 {
        bus.publish(say("q.v1.other"), saying("!")).unwrap();
    }
    assert_eq!(inbox.len(), 1);
    // Nor does one that has left, and is not forgotten yet.
    drop(inbox.close());
    bus.publish(say("q.v1.other"), saying("!")).unwrap();
}

/// A capsule that subscribes to the kernel's own requests only watches them: it cannot answer in the kernel's place.
#[tokio::test]
async fn nobody_answers_for_the_kernel() {
    struct Everything(Arc<Inbox>);
    impl super::Route for Everything {
        fn inboxes(&self, _: &super::Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
            found(Arc::clone(&self.0));
        }
    }
    let (bus, _) = bus();
    let lane = LanePolicy {
        capacity: 9,
        overflow: Overflow::Reject,
        retry: 0,
        durable: false,
        ordered: false,
    };
    let capsule = Inbox::new("capsule".into(), &[lane]);
    let pattern = Gate::default().declared(">".parse().unwrap());
    let _capsule = bus.subscribe(
        pattern,
        Arc::new(Everything(Arc::clone(&capsule))),
        0,
        super::Role::Receiver,
    );
    let (kernel, _k) = hear(&bus, &["astrid.v1.request.status"], 9);
    let asking = bus.request(say("astrid.v1.request.status"), saying("?"), Duration::from_secs(9));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), asking).await.is_err(),
        "nobody answered"
    );
    assert!(matches!(kernel.try_next().unwrap().message.kind, Kind::Ask(_)));
    assert_eq!(capsule.try_next().unwrap().message.kind, Kind::Event);
}
