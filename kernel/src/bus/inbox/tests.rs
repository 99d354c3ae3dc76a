//! Tests of the queue: places, bytes, what gives way, and what is kept in the store.

#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::bus::message::{Body, ContentType, Kind, MessageId, Source};

fn message(n: u64, bytes: usize) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId { boot: 0, sequence: n },
        kind: Kind::Event,
        topic: "a.v1.b".parse().unwrap(),
        principal: astrid_wire::Principal::default_owner(),
        source: Source::Kernel,
        body: Body {
            content_type: ContentType::BYTES,
            bytes: vec![0; bytes].into(),
        },
        deadline: None,
        public: false,
    })
}

fn inbox(capacity: u32, overflow: Overflow) -> Arc<Inbox> {
    Inbox::new(
        "r".into(),
        &[LanePolicy {
            capacity,
            overflow,
            retry: 0,
            durable: false,
            ordered: false,
        }],
    )
}

fn sequences(inbox: &Inbox) -> Vec<u64> {
    std::iter::from_fn(|| inbox.try_next())
        .map(|d| d.message.id.sequence)
        .collect()
}

fn full() -> NoPlace {
    NoPlace::Full("r".into())
}

/// A promised place is counted, comes back when it is dropped, and is found when it is filled.
#[test]
fn reservations() {
    let inbox = inbox(2, Overflow::Reject);
    let (one, two) = (inbox.reserve(0, 10).unwrap(), inbox.reserve(0, 10).unwrap());
    assert_eq!(inbox.reserve(0, 10).unwrap_err(), full());
    drop(one);
    let three = inbox.reserve(0, 10).unwrap();
    assert!(!inbox.close_if_idle(), "a promise keeps it open");
    assert!(three.fill(message(3, 10)) && two.fill(message(2, 10)));
    assert_eq!(inbox.reserve(0, 10).unwrap_err(), full());
    assert!(inbox.push(message(4, 10), None), "what needs no place finds room");
    assert_eq!(sequences(&inbox), [3, 2, 4]);
    assert!(inbox.close_if_idle());
    assert_eq!(inbox.reserve(0, 1).unwrap_err(), NoPlace::Closed("r".into()));
}

/// The oldest gives way, is counted, and what is only promised does not give way.
#[test]
fn drop_oldest() {
    let inbox = inbox(2, Overflow::DropOldest);
    for n in 0..5 {
        assert!(inbox.reserve(0, 1).unwrap().fill(message(n, 1)));
    }
    let next = inbox.try_next().unwrap();
    assert_eq!((next.message.id.sequence, next.lost), (3, 3));
    assert_eq!(inbox.try_next().unwrap().lost, 0);
    let _promised = [inbox.reserve(0, 1).unwrap(), inbox.reserve(0, 1).unwrap()];
    assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
}

/// Bytes are limited as well as places, and every way out gives them back.
#[test]
fn bytes() {
    let inbox = inbox(1000, Overflow::Reject);
    let most = inbox.reserve(0, INBOX_BYTES_MAX).unwrap();
    assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
    assert!(most.fill(message(1, 5)), "weighs what it is, not what was promised");
    drop(inbox.reserve(0, INBOX_BYTES_MAX - 5).unwrap());
    assert_eq!(sequences(&inbox), [1]);
    assert!(inbox.reserve(0, INBOX_BYTES_MAX).is_ok());
}

/// A message that is tried again steps aside for what waits, keeps its place and knows its attempt.
#[test]
fn retries() {
    let inbox = inbox(2, Overflow::Reject);
    assert!(inbox.reserve(0, 1).unwrap().fill(message(1, 1)));
    let first = inbox.try_next().unwrap();
    assert!(inbox.reserve(0, 1).unwrap().fill(message(2, 1)));
    assert!(inbox.retry(first));
    assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
    assert_eq!(inbox.try_next().unwrap().attempt, 1);
    assert_eq!(inbox.try_next().unwrap().attempt, 2);
}

fn durable(capacity: u32) -> Arc<Inbox> {
    let lane = LanePolicy {
        capacity,
        overflow: Overflow::Reject,
        retry: 3,
        durable: true,
        ordered: false,
    };
    let table = Table::of(
        crate::store::table::Kind::Inbox,
        "r",
        &crate::store::table::Scope::System,
    );
    Inbox::with_table("r".into(), &[lane], Some(table))
}

fn fill(inbox: &Arc<Inbox>, row: u64) {
    let mut slot = inbox.reserve(0, 10).unwrap();
    slot.keep_as(row);
    assert!(slot.fill(message(row, 10)));
}

/// The rows that come, in order; whether each came with its message.
fn entries(inbox: &Inbox) -> Vec<(u64, bool)> {
    let mut found = Vec::new();
    while let Poll::Ready(Some(next)) = inbox.poll_entry(&Context::from_waker(Waker::noop()), true) {
        found.push(match next {
            Next::Message(delivery) => match delivery.kept {
                Some(Kept::Row(row)) => (row.row, true),
                _ => (0, true),
            },
            Next::Row(row) => (row.row, false),
        });
    }
    found
}

/// Of a long queue only the first messages are in memory; all come in order, and a full one says so.
#[test]
fn a_durable_lane_spills() {
    let inbox = durable(1000);
    for row in 1..=1000 {
        fill(&inbox, row);
    }
    assert_eq!(inbox.reserve(0, 10).unwrap_err(), full());
    assert_eq!(
        inbox.reserve(0, DURABLE_BODY_BYTES_MAX + 1).unwrap_err(),
        NoPlace::TooLarge("r".into())
    );
    assert_eq!((inbox.len(), inbox.len_durable()), (1000, 1000));
    let found = entries(&inbox);
    let loaded = found.iter().filter(|(_, loaded)| *loaded).count();
    assert_eq!(
        found.iter().map(|(row, _)| *row).collect::<Vec<_>>(),
        (1..=1000).collect::<Vec<_>>()
    );
    assert_eq!(loaded, LOADED_MAX as usize);
    assert!(inbox.close_if_idle());
}

/// After a failure of the store its rows are what counts: what was in memory is void, wherever it is.
#[test]
fn rows_take_the_place_of_what_was_there() {
    let inbox = durable(10);
    fill(&inbox, 1);
    fill(&inbox, 2);
    assert!(inbox.push(message(9, 5), None));
    let Poll::Ready(Some(Next::Message(taken))) = inbox.poll_entry(&Context::from_waker(Waker::noop()), true) else {
        panic!("nothing there");
    };
    let promised = inbox.reserve(0, 10).unwrap();
    let row = |row| RowRef { row, weight: 10 };
    inbox.restore([row(1), row(2)].into());
    assert!(!inbox.retry(taken), "it came from the queue as it was");
    assert_eq!(entries(&inbox), [(0, true), (1, false), (2, false)]);
    drop(promised);
    assert!(inbox.close_if_idle());
}

/// What the store keeps waits while nobody can take it; the rest does not.
#[test]
fn what_is_kept_can_wait() {
    let inbox = durable(10);
    fill(&inbox, 1);
    assert!(inbox.push(message(9, 5), None));
    assert_eq!(sequences(&inbox), [9]);
    assert_eq!(inbox.len_durable(), 1);
    assert_eq!(entries(&inbox), [(1, true)]);
}
