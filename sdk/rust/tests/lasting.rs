//! What outlives the instance: the table, durable timers, the pin, what is said once; and what does not.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use astrid_sdk::error::{KvError, PinError, SendError, TimerError};
use astrid_sdk::kv::Entry;
use astrid_sdk::prelude::*;
use astrid_sdk::testing::Harness;

const SECOND: Duration = Duration::from_secs(1);

const MANIFEST: &str = r#"
[package]
name = "keeper"
version = "0.1.0"
description = "Keeps things"
kernel = "*"
[runtime]
scope = "principal"
[publish]
"keeper.v1.said" = {}
"other.v1.ask" = {}
[subscribe]
"keeper.v1.*" = {}
"keeper.v1.lasting" = { durable = true }
[capabilities]
timer = { allow = ["*"], reason = "tested" }
kv = { allow = ["*"], reason = "tested" }
pin = { allow = ["*"], reason = "tested" }
"#;

#[derive(Default)]
struct Keeper {
    handled: u32,
}

/// A key and what it is to be; nothing removes it.
#[body]
struct Write {
    key: String,
    value: Option<u64>,
}

#[capsule]
impl Keeper {
    #[on("keeper.v1.write")]
    fn write(&mut self, ctx: &mut Context, writes: Vec<Write>) -> Result<u32> {
        for Write { key, value } in writes {
            match value {
                Some(value) => ctx.kv().put(&key, &value)?,
                None => ctx.kv().delete(&key)?,
            }
            assert_eq!(ctx.kv().get::<u64>(&key)?, value);
        }
        self.handled += 1;
        Ok(self.handled)
    }

    #[on("keeper.v1.give_up")]
    fn give_up(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.kv().put("a", &2)?;
        ctx.kv().delete("b")?;
        ctx.kv().put("c", &3)?;
        ctx.pin()?;
        ctx.timer(SECOND).tag("alarm").durable().set()?;
        ctx.publish_once("1", "keeper.v1.said", 1)?;
        Err(Rollback::retry("on second thoughts").into())
    }

    #[on("keeper.v1.swap")]
    fn swap(&mut self, ctx: &mut Context) -> Result<()> {
        let mut kv = ctx.kv();
        assert!(!kv.compare_and_swap("s", Some(b"1"), Some(b"2"))?);
        assert!(kv.compare_and_swap("s", None, Some(b"1"))?);
        assert!(!kv.compare_and_swap("s", None, None)?);
        assert!(kv.compare_and_swap("s", Some(b"1"), Some(b"2"))?);
        assert_eq!(kv.get_bytes("s")?.as_deref(), Some(b"2".as_slice()));
        assert!(kv.compare_and_swap("s", Some(b"2"), None)?);
        assert_eq!(kv.get_bytes("s")?, None);
        Ok(())
    }

    #[on("keeper.v1.limits")]
    fn limits(&mut self, ctx: &mut Context) {
        let mut kv = ctx.kv();
        for key in ["".to_owned(), "k".repeat(1_025)] {
            assert_eq!(kv.get_bytes(&key), Err(KvError::InvalidKey(1_024)));
            assert_eq!(kv.put(&key, &1), Err(KvError::InvalidKey(1_024)));
            assert_eq!(kv.delete(&key), Err(KvError::InvalidKey(1_024)));
        }
        let megabyte = vec![0; 1 << 20];
        assert_eq!(kv.put_bytes("k".repeat(1_024), &megabyte), Ok(()));
        assert_eq!(
            kv.put_bytes("k", [&megabyte[..], &[0]].concat()),
            Err(KvError::TooLarge(1 << 20))
        );
        let refused = (0..1_000).find_map(|_| kv.put_bytes("k", &megabyte).err());
        assert!(matches!(refused, Some(KvError::TooMuch(_))), "{refused:?}");
    }

    #[on("keeper.v1.many")]
    fn many(&mut self, ctx: &mut Context) {
        let refused = (0_u32..1_000_000).find_map(|n| ctx.kv().put(n.to_be_bytes(), &n).err());
        assert_eq!(refused, Some(KvError::TooMuch(10_000)));
        // What is written already can be written again.
        assert_eq!(ctx.kv().put(0_u32.to_be_bytes(), &1), Ok(()));
    }

    #[on("keeper.v1.forget")]
    fn forget(&mut self, ctx: &mut Context, prefix: String) -> Result<u32> {
        let mut forgotten = 0;
        for entry in ctx.kv().prefix(prefix) {
            ctx.kv().delete(entry?.key)?;
            forgotten += 1;
        }
        Ok(forgotten)
    }

    #[on("keeper.v1.keys")]
    fn keys(&mut self, ctx: &mut Context, (first, end): (String, String)) -> Result<[Vec<String>; 2]> {
        let text = |entry: Result<Entry, KvError>| entry?.key_text().map(str::to_owned);
        let kv = ctx.kv();
        let forwards: Result<_, _> = kv.range(&first..&end).map(text).collect();
        let backwards: Result<_, _> = kv.range(&first..&end).backwards().map(text).collect();
        Ok([forwards?, backwards?])
    }

    /// As a durable subscription is heard: what fails is undone.
    #[on("keeper.v1.sure")]
    fn sure(&mut self, ctx: &mut Context, key: String) -> Result<(), Rollback> {
        ctx.kv().put("half", &1)?;
        ctx.kv().get::<u64>(key)?;
        Ok(())
    }

    #[on("keeper.v1.pages")]
    fn pages(&mut self, ctx: &mut Context) -> Result<()> {
        let mut page = |start: &str, end: Option<&[u8]>, limit, backwards| {
            let page = ctx.kv().page(start, end, limit, backwards)?;
            let keys: Vec<u8> = page.entries.iter().map(|entry| entry.key[0]).collect();
            Ok::<_, KvError>((String::from_utf8_lossy(&keys).into_owned(), page.next))
        };
        assert_eq!(page("", None, 2, false)?, ("ab".to_owned(), Some(b"c".to_vec())));
        assert_eq!(page("c", None, 2, false)?, ("c".to_owned(), None));
        assert_eq!(page("", None, 3, false)?, ("abc".to_owned(), None));
        let (keys, next) = page("", None, 2, true)?;
        assert_eq!(keys, "cb");
        assert_eq!(page("", next.as_deref(), 2, true)?, ("a".to_owned(), None));
        // Nothing is wanted, and what there is stays ahead.
        let (keys, next) = page("b", None, 0, false)?;
        assert_eq!((keys.as_str(), next.as_deref()), ("", Some(b"b".as_slice())));
        Ok(())
    }

    #[on("keeper.v1.arm")]
    fn arm(&mut self, ctx: &mut Context, every: Option<u64>) -> Result<()> {
        ctx.timer(10 * SECOND).tag("short").set()?;
        let mut timer = ctx.timer(10 * SECOND).tag("alarm").durable();
        if let Some(every) = every {
            timer = timer.every(Duration::from_secs(every));
        }
        timer.set()?;
        Ok(ctx.pin()?)
    }

    #[on("keeper.v1.disarm")]
    fn disarm(&mut self, ctx: &mut Context) -> Result<()> {
        for armed in ctx.timers() {
            assert!(armed.durable && ctx.cancel(armed.timer));
        }
        Ok(ctx.unpin()?)
    }

    #[timer("short", "alarm")]
    fn ring(&mut self, ctx: &mut Context, tag: String) -> Result<()> {
        let rung = ctx.kv().get::<u64>(&tag)?.unwrap_or_default();
        ctx.kv().put(&tag, &(rung + 1))?;
        if tag == "alarm" {
            ctx.ask("other.v1.ask", "alarm").send()?;
        }
        Ok(())
    }

    #[on("keeper.v1.lasting", "keeper.v1.fleeting")]
    fn asks(&mut self, ctx: &mut Context, what: String) -> Result<()> {
        ctx.ask("other.v1.ask", what).send()?;
        Ok(())
    }

    #[answer("other.v1.ask")]
    fn answered(&mut self, ctx: &mut Context, answer: Answer<String>) -> Result<()> {
        Ok(ctx.kv().put("answer", &answer.into_result()?)?)
    }

    #[on("keeper.v1.once")]
    fn once(&mut self, ctx: &mut Context, id: String) -> Result<()> {
        for attempt in 1..=2 {
            ctx.publish_once(&id, "keeper.v1.said", attempt)?;
        }
        Ok(())
    }
}

fn keeper() -> Harness<Keeper> {
    Harness::new::<Keeper>().with_manifest(MANIFEST)
}

fn write(keeper: &mut Harness<Keeper>, key: &str, value: Option<u64>) -> u32 {
    keeper
        .ask("keeper.v1.write", json!([{ "key": key, "value": value }]))
        .read()
}

/// A key in the table as it is after an eviction and a restart, and none of the instance's own state.
#[test]
fn the_table_outlives_the_instance() {
    let mut keeper = keeper();
    assert_eq!(write(&mut keeper, "a", Some(1)), 1);
    assert_eq!(write(&mut keeper, "b", Some(2)), 2);
    keeper.evict();
    assert_eq!(write(&mut keeper, "b", None), 1);
    keeper.restart();
    assert_eq!(write(&mut keeper, "c", Some(3)), 1);
    let kept: Vec<_> = keeper.kv().into_iter().map(|entry| entry.key).collect();
    assert_eq!(kept, [b"a", b"c"]);
    assert_eq!((keeper.kv_value("a"), keeper.kv_value::<u64>("b")), (Some(1), None));
}

/// What a handler wrote, pinned, armed and said is forgotten with it.
#[test]
fn a_rollback_keeps_nothing() {
    let mut keeper = keeper();
    keeper.put_kv("a", &1);
    keeper.put_kv("b", &1);
    let before = keeper.kv();
    keeper.event("keeper.v1.give_up", ()).rolled_back();
    assert_eq!(keeper.kv(), before);
    assert!(!keeper.pinned() && keeper.timers().is_empty() && keeper.published().is_empty());
    // Neither is the id that it would have said something with.
    keeper.event("keeper.v1.once", "1").committed();
    assert_eq!(keeper.published().len(), 1);
}

#[test]
fn a_swap_compares_with_what_the_handler_sees() {
    let mut keeper = keeper();
    keeper.event("keeper.v1.swap", ()).committed();
    assert_eq!(keeper.logged(), []);
}

#[test]
fn keys_values_and_writes_are_bounded() {
    let mut keeper = keeper();
    keeper.event("keeper.v1.limits", ()).committed();
    keeper.event("keeper.v1.many", ()).committed();
    // The next handler may write as much again.
    keeper.event("keeper.v1.limits", ()).committed();
}

/// Pages are joined without a gap in both directions, by number and by size, and entries can be removed on the way.
#[test]
fn scans_go_through_pages() {
    let mut keeper = keeper();
    let mut names: Vec<String> = (0..2_500).map(|n| format!("n/{n:04}")).collect();
    for name in &names {
        keeper.put_kv(name, &0);
    }
    let large = "x".repeat(700_000);
    for name in ["n/9998", "n/9999"] {
        keeper.put_kv(name, &large);
        names.push(name.to_owned());
    }
    keeper.put_kv("m", &0);
    keeper.put_kv("n0", &0);
    let [forwards, mut backwards]: [Vec<String>; 2] = keeper.ask("keeper.v1.keys", json!(["n/", "n/99999"])).read();
    backwards.reverse();
    assert_eq!(forwards, names);
    assert_eq!(backwards, names);
    let [some, _]: [Vec<String>; 2] = keeper.ask("keeper.v1.keys", json!(["n/0001", "n/0003"])).read();
    assert_eq!(some, ["n/0001", "n/0002"]);
    let [none, _]: [Vec<String>; 2] = keeper.ask("keeper.v1.keys", json!(["n/2", "n/1"])).read();
    assert!(none.is_empty());

    assert_eq!(keeper.ask("keeper.v1.forget", "n/").read::<usize>(), names.len());
    let kept: Vec<_> = keeper.kv().into_iter().map(|entry| entry.key).collect();
    assert_eq!(kept, [b"m".to_vec(), b"n0".to_vec()]);
    assert_eq!(keeper.ask("keeper.v1.forget", "").read::<usize>(), 2);
}

#[test]
fn a_page_says_where_the_next_begins() {
    let mut keeper = keeper();
    for key in ["a", "b", "c"] {
        keeper.put_kv(key, &0);
    }
    keeper.event("keeper.v1.pages", ()).committed();
    assert_eq!(keeper.logged(), []);
}

/// A handler whose error is a rollback is undone by every error, and tried again if that may be of use.
#[test]
fn what_fails_can_be_undone() {
    let mut keeper = keeper();
    keeper.put_kv("text", "text");
    let refused = keeper.event("keeper.v1.sure", "text").rolled_back();
    assert!(matches!(&refused, Rollback::Refuse(problem) if problem.code() == "kv.unreadable"));
    keeper.set_kv_unavailable(Some("the disk is full"));
    let tried_again = keeper.event("keeper.v1.sure", "a").rolled_back();
    assert!(matches!(&tried_again, Rollback::Retry(why) if why.contains("the disk is full")));
    assert_eq!(keeper.kv().len(), 1);
    keeper.set_kv_unavailable(None);
    keeper.retry().committed();
    assert_eq!(keeper.kv_value("half"), Some(1));
}

/// What cannot be read is a refusal that names the key.
#[test]
fn what_does_not_fit_is_named() {
    let mut keeper = keeper();
    keeper.put_kv("a", "text");
    keeper.set_kv_unavailable(Some("the disk is full"));
    let refused = keeper
        .ask("keeper.v1.write", json!([{ "key": "a", "value": 1 }]))
        .refused();
    assert_eq!(refused.code(), codes::UNAVAILABLE);
    keeper.set_kv_unavailable(None);
    keeper.put_kv("alarm", "text");
    keeper.event("keeper.v1.arm", json!(null)).committed();
    keeper.advance(10 * SECOND);
    let said = keeper.logged();
    let told = said[0]
        .fields
        .iter()
        .any(|(_, told)| told.starts_with("`alarm`: invalid type"));
    assert!(told, "{said:?}");
}

/// A durable timer fires after a restart, once though it was due more often; another does not.
#[test]
fn durable_timers_outlive_the_daemon() {
    let mut keeper = keeper();
    keeper.event("keeper.v1.arm", 1).committed();
    assert_eq!(keeper.timers().len(), 2);
    keeper.restart_after(60 * SECOND);
    assert_eq!(keeper.timers(), [("alarm".to_owned(), Duration::ZERO)]);
    assert!(keeper.pinned());
    keeper.advance(Duration::ZERO);
    assert_eq!(keeper.kv_value("alarm"), Some(1));
    keeper.advance(2 * SECOND);
    assert_eq!(keeper.kv_value("alarm"), Some(3));
    assert_eq!(keeper.kv_value::<u64>("short"), None);
    keeper.evict();
    keeper.event("keeper.v1.disarm", ()).committed();
    assert!(keeper.timers().is_empty() && !keeper.pinned());
}

/// An ask that was made for something durable is answered after a restart; another is forgotten.
#[test]
fn asks_for_something_durable_outlive_the_daemon() {
    let mut keeper = keeper();
    keeper.event("keeper.v1.fleeting", "a").committed();
    keeper.event("keeper.v1.lasting", "b").committed();
    keeper.event("keeper.v1.arm", json!(null)).committed();
    keeper.advance(10 * SECOND);
    keeper.restart();
    let asked: Vec<_> = keeper.asks().iter().map(|ask| ask.said.json()).collect();
    assert_eq!(asked, ["b", "alarm"]);
    keeper.answer(keeper.asks()[0].id, "yes").committed();
    assert_eq!(keeper.kv_value("answer"), Some("yes".to_owned()));
}

/// An id says something once for a principal: within 24 hours, among its last 100,000, and over a restart.
#[test]
fn what_is_published_once_is() {
    let mut keeper = keeper();
    let says = |keeper: &mut Harness<Keeper>, id: &str| {
        keeper.event("keeper.v1.once", id).committed();
        keeper.published().len()
    };
    assert_eq!(says(&mut keeper, "1"), 1);
    keeper.restart();
    assert_eq!(says(&mut keeper, "1"), 0);
    keeper.speak_as("ada");
    assert_eq!(says(&mut keeper, "1"), 1);
    keeper.advance(24 * 3600 * SECOND);
    assert_eq!(says(&mut keeper, "1"), 1);
    for id in 2..=100_000 {
        assert_eq!(says(&mut keeper, &id.to_string()), 1);
    }
    assert_eq!(says(&mut keeper, "1"), 0);
    assert_eq!(says(&mut keeper, "one more"), 1);
    assert_eq!(says(&mut keeper, "1"), 1);

    for id in ["".to_owned(), "i".repeat(129)] {
        let asked = keeper.ask("keeper.v1.once", id);
        assert_eq!(asked.refused().code(), codes::INVALID);
    }
    assert_eq!(SendError::InvalidId(128).to_string(), "an id has 1 to 128 bytes");
}

#[derive(Default)]
struct Bare;

#[capsule]
impl Bare {
    #[on("bare.v1.try")]
    fn everything(&mut self, ctx: &mut Context) {
        assert!(matches!(ctx.kv().get_bytes("a"), Err(KvError::Denied(_))));
        assert!(matches!(ctx.kv().put("a", &1), Err(KvError::Denied(_))));
        assert!(matches!(ctx.kv().all().next(), Some(Err(KvError::Denied(_)))));
        assert!(matches!(ctx.pin(), Err(PinError::Denied(_))));
        let timer = ctx.timer(SECOND).durable().set();
        assert!(matches!(timer, Err(TimerError::Denied(_))));
    }
}

/// What the manifest does not ask for is denied.
#[test]
fn what_is_not_asked_for_is_denied() {
    let manifest = "[package]\nname = \"bare\"\nversion = \"0.1.0\"\ndescription = \"Asks for nothing\"\nkernel = \"*\"\n\
        [subscribe]\n\"bare.v1.try\" = {}\n";
    let mut bare = Harness::new::<Bare>().with_manifest(manifest);
    bare.event("bare.v1.try", ()).committed();
    assert!(bare.kv().is_empty() && !bare.pinned());
}
