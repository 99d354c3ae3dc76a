//! Letters over a store in memory: their order, their bounds, and that none is ever lost or doubled.

#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_wire::Principal;

use super::*;
use crate::capsule::durable::record::{MessageRecord, read_inbox_key};
use crate::store::memory::Memory;
use crate::store::seal::Step;

fn open(memory: &Memory) -> Arc<Store> {
    futures_util::FutureExt::now_or_never(Store::open(Box::new(memory.clone())))
        .unwrap()
        .unwrap()
}

fn seal(store: &Store) {
    while let Step::Sealed(_) = futures_util::FutureExt::now_or_never(store.seal()).unwrap() {}
}

fn sequence(store: &Store, writes: Vec<Write>) {
    let batch = Batch {
        writes,
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch: store.epoch(),
        now_ms: 0,
    };
    store.sequence(batch).unwrap();
}

fn of(principal: &str) -> Scope {
    Scope::Principal(Principal::stamped(principal).unwrap())
}

/// Gives a message up, as a commit of an actor does. The letter's id.
fn give_up(store: &Store, capsule: &str, scope: &Scope, principal: &str, body: &[u8]) -> String {
    let record = DeadRecord {
        message: MessageRecord {
            topic: "notes.v1.add".into(),
            principal: principal.into(),
            content_type: "text/plain".into(),
            body: Bytes::copy_from_slice(body),
            attempts: 5,
            faults: 2,
            ..MessageRecord::default()
        },
        code: codes::FAULT_TRAP.into(),
        reason: "unreachable".into(),
        died_at_ms: 17,
    };
    let row = store.row();
    let value = prost::Message::encode_to_vec(&record);
    sequence(
        store,
        vec![Write::put(
            Table::of(Kind::Dead, capsule, scope),
            number_key(row),
            value,
        )],
    );
    format!("{capsule}:{row}")
}

fn everything(store: &Store) -> Vec<String> {
    let page = list(store, &ListRequest::default()).unwrap();
    assert_eq!(page.next, None);
    page.letters.into_iter().map(|letter| letter.id).collect()
}

fn these(ids: &[&str]) -> Selection {
    Selection {
        ids: ids.iter().map(ToString::to_string).collect(),
        ..Selection::default()
    }
}

const RUNS: &dyn Fn(&str) -> bool = &|_| true;

#[test]
fn ids_are_written_in_one_way() {
    let id: LetterId = "notes:17".parse().unwrap();
    assert_eq!(
        (id.capsule.as_str(), id.row, id.to_string().as_str()),
        ("notes", 17, "notes:17")
    );
    for bad in [
        "",
        "notes",
        ":1",
        "notes:",
        "notes:x",
        "notes:+1",
        "notes:01",
        "notes:-1",
        "a:99999999999999999999",
    ] {
        assert!(matches!(bad.parse::<LetterId>(), Err(DeadError::NotAnId(_))), "{bad}");
    }
    assert!("x".repeat(1000).parse::<LetterId>().unwrap_err().to_string().len() < 200);
}

/// By capsule, and by age across the actors of one, in pages; sealed or not.
#[test]
fn letters_are_listed_in_their_order() {
    let memory = Memory::default();
    let store = open(&memory);
    let mut ids = Vec::new();
    for n in 0..5 {
        let principal = if n % 2 == 0 { "ann" } else { "bob" };
        ids.push(give_up(&store, "notes", &of(principal), principal, b"x"));
        if n == 2 {
            seal(&store);
        }
    }
    ids.push(give_up(&store, "zebra", &Scope::System, "ann", b"x"));
    ids.insert(0, give_up(&store, "able", &Scope::Instance(3), "ann", b"x"));
    assert_eq!(everything(&store), ids);

    let mut request = ListRequest {
        max: Some(2),
        ..ListRequest::default()
    };
    let mut paged = Vec::new();
    loop {
        let page = list(&store, &request).unwrap();
        assert!(page.letters.len() <= 2);
        paged.extend(page.letters.into_iter().map(|letter| letter.id));
        request.after = page.next;
        if request.after.is_none() {
            break;
        }
    }
    assert_eq!(paged, ids);

    let of_bob = ListRequest {
        principal: Some("bob".into()),
        ..ListRequest::default()
    };
    let letters = list(&store, &of_bob).unwrap().letters;
    assert_eq!(letters.len(), 2);
    assert_eq!(
        (letters[0].actor.as_str(), letters[0].principal.as_str()),
        ("bob", "bob")
    );
    assert_eq!(
        (letters[0].attempts, letters[0].died_at_ms, letters[0].body_bytes),
        (5, 17, 1)
    );
    let none = ListRequest {
        capsule: Some("note".into()),
        ..ListRequest::default()
    };
    assert!(list(&store, &none).unwrap().letters.is_empty());
}

/// Whatever the bodies weigh, an answer is bounded, and says that there is more.
#[test]
fn an_answer_is_bounded() {
    let store = open(&Memory::default());
    let body = vec![7; READ_BYTES_MAX / 2 + 1];
    for _ in 0..3 {
        give_up(&store, "notes", &Scope::System, "ann", &body);
    }
    let page = list(&store, &ListRequest::default()).unwrap();
    assert_eq!((page.letters.len(), page.next.is_some()), (2, true));
    let all = Selection {
        all: true,
        ..Selection::default()
    };
    let changed = retry(&store, &all, 0, RUNS).unwrap();
    assert_eq!((changed.done.ids.len(), changed.done.next.is_some()), (2, true));
}

/// K6: a message that was given up is tried again as if for the first time; the letter and the message change places in one commit.
#[test]
fn a_retried_letter_is_in_its_inbox() {
    let memory = Memory::default();
    let store = open(&memory);
    let id = give_up(&store, "notes", &of("ann"), "ann", b"hello");
    let other = give_up(&store, "notes", &of("bob"), "bob", b"x");
    seal(&store);
    let changed = retry(&store, &these(&[&id, "notes:999", "nonsense"]), 0, RUNS).unwrap();
    assert_eq!(changed.done.ids, std::slice::from_ref(&id));
    let failed: Vec<_> = changed
        .done
        .failed
        .iter()
        .map(|f| (f.id.as_str(), f.code.as_str()))
        .collect();
    assert_eq!(failed, [("notes:999", codes::NOT_FOUND), ("nonsense", codes::INVALID)]);
    let again = changed.requeued.first().unwrap();
    assert_eq!(
        (again.capsule.as_str(), &again.scope, again.weight),
        ("notes", &of("ann"), 5)
    );
    // Seen at once, and on disk together or not at all: before the seal a crash leaves the letter, after it the message.
    assert_eq!(everything(&store), std::slice::from_ref(&other));
    assert_eq!(everything(&open(&memory)), [id.clone(), other.clone()]);
    assert!(
        retry(&store, &these(&[&id]), 0, RUNS).unwrap().requeued.is_empty(),
        "it is tried again once"
    );
    seal(&store);
    let reopened = open(&memory);
    assert_eq!(everything(&reopened), [other]);
    let rows = reopened
        .rows(&Table::of(Kind::Inbox, "notes", &of("ann")), &[], 10)
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(read_inbox_key(&rows[0].0), Ok((again.row, 5)));
    let message = MessageRecord::read(rows[0].1.clone()).unwrap();
    assert_eq!(
        (&message.body[..], message.attempts, message.faults),
        (&b"hello"[..], 0, 0)
    );
    assert!(changed.commit.unwrap().0 <= reopened.sealed());
}

#[test]
fn what_nobody_would_handle_stays() {
    let store = open(&Memory::default());
    let id = give_up(&store, "gone", &Scope::System, "ann", b"x");
    let kept = give_up(&store, "notes", &Scope::System, "ann", b"x");
    let all = Selection {
        all: true,
        ..Selection::default()
    };
    let changed = retry(&store, &all, 0, &|capsule| capsule == "notes").unwrap();
    assert_eq!(
        (changed.done.ids, changed.done.failed[0].code.as_str()),
        (vec![kept], codes::UNAVAILABLE)
    );
    assert_eq!(everything(&store), [id]);
}

#[test]
fn letters_are_dropped() {
    let store = open(&Memory::default());
    let one = give_up(&store, "notes", &of("ann"), "ann", b"x");
    let two = give_up(&store, "notes", &of("bob"), "bob", b"x");
    let other = give_up(&store, "other", &Scope::System, "bob", b"x");
    assert_eq!(drop_letters(&store, &these(&[&one]), 0).unwrap().done.ids, [one]);
    let of_notes = Selection {
        all: true,
        capsule: Some("notes".into()),
        ..Selection::default()
    };
    let changed = drop_letters(&store, &of_notes, 0).unwrap();
    assert_eq!((changed.done.ids, changed.done.next), (vec![two], None));
    assert_eq!(everything(&store), std::slice::from_ref(&other));
    let both = Selection {
        all: true,
        ..these(&[&other])
    };
    assert!(matches!(
        drop_letters(&store, &both, 0),
        Err(DeadError::Selection("both"))
    ));
    assert!(matches!(
        drop_letters(&store, &these(&[]), 0),
        Err(DeadError::Selection("neither"))
    ));
    let many = Selection {
        ids: vec![other.clone(); IDS_MAX + 1],
        ..Selection::default()
    };
    assert!(matches!(drop_letters(&store, &many, 0), Err(DeadError::TooMany(_))));
    assert_eq!(everything(&store), [other]);
}

/// A row of another program, or a damaged one, is shown as such, and can be dropped.
#[test]
fn an_unreadable_row_is_no_obstacle() {
    let store = open(&Memory::default());
    let table = Table::of(Kind::Dead, "notes", &Scope::System);
    sequence(
        &store,
        vec![
            Write::put(table.clone(), number_key(3), &b"\xff\xff"[..]),
            Write::put(table, Bytes::from_static(b"odd"), &b"x"[..]),
        ],
    );
    let good = give_up(&store, "notes", &Scope::System, "ann", b"x");
    let mut listed = everything(&store);
    listed.sort();
    assert_eq!(listed, [good.clone(), "notes:3".to_owned()]);
    assert!(matches!(show(&store, "notes:3"), Err(DeadError::Unreadable(_))));
    let all = Selection {
        all: true,
        ..Selection::default()
    };
    let changed = retry(&store, &all, 0, RUNS).unwrap();
    assert_eq!((changed.done.ids, changed.done.failed.len()), (vec![good], 1));
    assert_eq!(
        drop_letters(&store, &these(&["notes:3"]), 0).unwrap().done.ids,
        ["notes:3"]
    );
    assert!(everything(&store).is_empty());
}

#[test]
fn a_body_is_shown_up_to_a_bound() {
    let store = open(&Memory::default());
    let id = give_up(&store, "notes", &Scope::System, "ann", b"\x00\xffhi");
    let shown = show(&store, &id).unwrap();
    assert_eq!(
        (BASE64.decode(shown.body_base64).unwrap(), shown.letter.code),
        (b"\x00\xffhi".to_vec(), codes::FAULT_TRAP.to_owned())
    );
    let id = give_up(&store, "notes", &Scope::System, "ann", &vec![0; SHOWN_BYTES_MAX + 1]);
    let shown = show(&store, &id).unwrap();
    assert_eq!(shown.letter.body_bytes, SHOWN_BYTES_MAX as u64 + 1);
    assert_eq!(BASE64.decode(shown.body_base64).unwrap().len(), SHOWN_BYTES_MAX);
}

/// The oldest go when there are too many; counting all of them is rare.
#[test]
fn the_oldest_make_room() {
    let store = open(&Memory::default());
    let counts = Counts::default();
    let capsule: Arc<str> = "notes".into();
    let mut evicted = 0;
    for n in 0..LETTERS_MAX + 2 * EVICTED_AT_ONCE + 1 {
        let mut writes = make_room(&store, &counts, &capsule).unwrap();
        evicted += writes.len();
        let scope = if n % 2 == 0 {
            Scope::Instance(1)
        } else {
            Scope::Instance(2)
        };
        writes.push(Write::put(
            Table::of(Kind::Dead, "notes", &scope),
            number_key(store.row()),
            &b"x"[..],
        ));
        sequence(&store, writes);
    }
    assert_eq!(evicted, 3 * EVICTED_AT_ONCE);
    let tables = tables(&store, None).unwrap().remove("notes").unwrap();
    let left = places(&store, "notes", tables, None).unwrap();
    assert_eq!(left.len(), LETTERS_MAX - EVICTED_AT_ONCE + 1);
    assert_eq!(left[0].id.row, 3 * EVICTED_AT_ONCE as u64 + 1, "the oldest went");
    assert!(make_room(&store, &counts, &"other".into()).unwrap().is_empty());
}
