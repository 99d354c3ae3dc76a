//! Handlers: which gets a message, and what becomes of what it returns.
#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::answer::{UNHANDLED, UNREADABLE};
use astrid_sdk::error::{ReplyError, RequestError, SendError};
use astrid_sdk::prelude::*;
use astrid_sdk::testing::{Handled, Harness};
use astrid_sdk::{Kind, Level, Source};

/// Says which handler took a message.
#[derive(Default)]
struct Router;

#[capsule]
impl Router {
    #[on("a.>")]
    fn rest(&mut self) -> &'static str {
        "a.>"
    }

    #[on("a.*")]
    fn any(&mut self) -> &'static str {
        "a.*"
    }

    #[on("*.x")]
    fn any_x(&mut self) -> &'static str {
        "*.x"
    }

    #[on("a.b.*", "a.*.c")]
    fn deep(&mut self, ctx: &mut Context) -> String {
        format!("deep {}", ctx.topic())
    }

    #[on("a.b")]
    fn literal(&self) -> &'static str {
        "a.b"
    }

    #[on("b.first")]
    fn body_first(&mut self, body: String, ctx: &mut Context) -> String {
        format!("{body} by {}", ctx.principal())
    }
}

#[test]
fn the_most_specific_handler_gets_the_message() {
    let mut router = Harness::new::<Router>();
    for (topic, taken) in [
        ("a.b", "a.b"),
        ("a.x", "a.*"),
        ("b.x", "*.x"),
        ("a.b.c", "deep a.b.c"),
        ("a.d.c", "deep a.d.c"),
        ("a.d.d", "a.>"),
        ("a.b.c.d", "a.>"),
    ] {
        assert_eq!(router.ask(topic, ()).json(), taken, "{topic}");
    }
    router.speak_as("ada");
    assert_eq!(router.ask("b.first", "said").json(), "said by ada");
    let refused = router.ask("c.d", ()).refused();
    assert_eq!(
        (refused.code(), refused.message()),
        (UNHANDLED, "nothing here handles c.d")
    );
    router.event("c.d", ()).committed();
    assert_eq!(router.logged()[0].level, Level::Warn);
    router.event("lifecycle.v1.started", ()).committed();
    assert_eq!(router.logged()[0].level, Level::Debug);
}

/// Ends in every way there is.
#[derive(Default)]
struct Endings {
    handled: u32,
    kept: Vec<ReplyTo>,
}

/// A map whose keys have no JSON form.
#[derive(serde::Serialize, schemars::JsonSchema)]
struct Unwritable(std::collections::BTreeMap<Option<bool>, u8>);

#[capsule]
impl Endings {
    #[on("e.value")]
    fn value(&mut self, number: u32) -> u32 {
        self.handled += 1;
        number + 1
    }

    #[on("e.raw")]
    fn raw(&mut self, mut body: Body) -> Body {
        body.bytes.reverse();
        body
    }

    #[on("e.refuse")]
    fn refuse(&mut self, ctx: &mut Context) -> Result<u32, Problem> {
        self.handled += 1;
        ctx.publish("e.happened", ()).unwrap();
        Err(Problem::new("no", "not today"))
    }

    #[on("e.rollback")]
    fn rollback(&mut self, ctx: &mut Context) -> Result<(), Rollback> {
        self.handled += 1;
        ctx.publish("e.happened", ()).unwrap();
        ctx.emit("e.emitted", ()).unwrap();
        if ctx.attempt() > 1 {
            return Ok(());
        }
        Err(Rollback::retry("not yet"))
    }

    #[on("e.withdraw")]
    fn withdraw(&mut self, ctx: &mut Context) -> Result<u32> {
        ctx.publish("e.happened", ())?;
        Err(Rollback::Refuse(Problem::new("no", "not at all")).into())
    }

    #[on("e.keep")]
    fn keep(&mut self, ctx: &mut Context) {
        self.kept.extend(ctx.reply_to());
    }

    #[on("e.answer")]
    fn answer(&mut self, ctx: &mut Context) -> Result<usize> {
        let mut answered = 0;
        for to in self.kept.drain(..) {
            ctx.reply(to, "late")?;
            assert_eq!(ctx.reply(to, "later"), Err(ReplyError::NotWaiting));
            answered += 1;
        }
        Ok(answered)
    }

    #[on("e.unwritable")]
    fn unwritable(&mut self) -> Unwritable {
        Unwritable([(None, 1)].into())
    }

    #[on("e.full")]
    fn full(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.publish("full", ())?;
        Ok(())
    }

    #[on("e.badly")]
    fn badly(&mut self) -> Body {
        Body::new("not a media type", "x")
    }
}

#[test]
fn what_is_returned_is_the_answer() {
    let mut endings = Harness::new::<Endings>();
    assert_eq!(endings.ask("e.value", 1).read::<u32>(), 2);
    assert_eq!(endings.ask("e.raw", Body::text("abc")).body(), Body::text("cba"));
    endings.event("e.value", 1).committed();
    assert_eq!(endings.capsule().unwrap().handled, 2);
    let refused = endings.ask("e.unwritable", ()).refused();
    assert_eq!(
        (refused.code(), refused.message()),
        (codes::CAPSULE_FAILED, "it has no JSON form: key must be a string")
    );
    assert_eq!(endings.ask("e.badly", ()).refused().code(), codes::CAPSULE_FAILED);
}

#[test]
fn a_body_that_does_not_fit_never_reaches_the_handler() {
    let mut endings = Harness::new::<Endings>();
    assert_eq!(endings.ask("e.value", "one").refused().code(), codes::INVALID);
    assert_eq!(
        endings.ask("e.value", Body::text("1")).refused().code(),
        codes::UNSUPPORTED
    );
    endings.event("e.value", "one").committed();
    let line = &endings.logged()[0];
    assert_eq!((line.level, line.fields[1].1.as_str()), (Level::Warn, codes::INVALID));
    assert_eq!(endings.capsule().unwrap().handled, 0);
}

#[test]
fn a_refusal_commits_and_a_rollback_does_not() {
    let mut endings = Harness::new::<Endings>();
    assert_eq!(endings.ask("e.refuse", ()).refused(), Problem::new("no", "not today"));
    assert_eq!(endings.published().len(), 1);
    assert_eq!(endings.capsule().unwrap().handled, 1);

    assert_eq!(
        endings.event("e.rollback", ()).rolled_back(),
        Rollback::retry("not yet")
    );
    assert!(endings.published().is_empty(), "commands are dropped");
    assert_eq!(endings.emitted().len(), 1, "what acts at once stays");
    assert!(endings.capsule().is_none(), "the state is dropped");
    endings.retry().committed();
    assert_eq!(endings.published().len(), 1);
    assert_eq!(endings.capsule().unwrap().handled, 1);

    let withdrawn = endings.ask("e.withdraw", ());
    assert!(matches!(withdrawn.handled, Handled::RolledBack(Rollback::Refuse(_))));
    assert_eq!(withdrawn.refused().message(), "not at all");
    assert!(endings.published().is_empty());
}

#[test]
fn answers_can_be_given_later_and_once() {
    let mut endings = Harness::new::<Endings>();
    let first = endings.ask("e.keep", ());
    let second = endings.ask("e.keep", ());
    assert!(first.is_pending() && second.is_pending());
    assert_eq!(endings.ask("e.answer", ()).json(), 2);
    assert_eq!(
        endings.reply(second.to).unwrap().unwrap().read::<String>().unwrap(),
        "late"
    );
    // Plain data: it survives being written down.
    let written = serde_json::to_string(&first.to).unwrap();
    assert_eq!(serde_json::from_str::<ReplyTo>(&written).unwrap(), first.to);
}

#[test]
fn an_error_of_the_kernel_becomes_a_refusal() {
    let mut endings = Harness::new::<Endings>();
    endings.refuse_sends("full", SendError::Full("slow".into()));
    let refused = endings.ask("e.full", ()).refused();
    assert_eq!(
        (refused.code(), refused.message()),
        (codes::FULL, "the queue of slow is full")
    );
}

/// Asks others and hears what comes of it.
#[derive(Default)]
struct Asker {
    outcomes: Vec<(CommandId, Outcome<u32>)>,
    raw: Vec<Body>,
}

#[capsule]
impl Asker {
    #[on("ask.numbers")]
    fn ask(&mut self, ctx: &mut Context) -> Result<()> {
        let first = ctx.ask("number.v1.one", ()).send()?;
        let second = ctx.ask("number.v1.two", ()).send()?;
        assert!(first < second && first.cause == ctx.id());
        ctx.ask("raw.v1.get", Body::text("please")).send()?;
        Ok(())
    }

    #[on("ask.request")]
    fn request(&mut self, ctx: &mut Context) -> Result<u32> {
        Ok(ctx.request("number.v1.one", ()).send()?)
    }

    #[on("number.v1.one")]
    fn not_an_answer(&mut self) {
        panic!("answers go to `#[answer]` only");
    }

    #[answer("number.v1.*")]
    fn number(&mut self, ctx: &mut Context, answer: Answer<u32>) {
        assert!(matches!(ctx.kind(), Kind::Answer | Kind::Refusal | Kind::Timeout));
        self.outcomes.push((answer.id, answer.outcome));
    }

    #[answer("raw.v1.get")]
    fn raw(&mut self, answer: Answer<Body>) -> Result<()> {
        self.raw.push(answer.into_result()?);
        Ok(())
    }
}

#[test]
fn every_outcome_of_an_ask_arrives() {
    let mut asker = Harness::new::<Asker>();
    asker.event("ask.numbers", ()).committed();
    asker.event("ask.numbers", ()).committed();
    let asks = asker.asks();
    asker.answer(asks[1].id, 2).committed();
    asker
        .refuse(asks[0].id, &Problem::new("none", "no numbers"))
        .committed();
    asker.answer(asks[3].id, "three").committed();
    asker.answer(asks[2].id, Body::new("a/b", "raw")).committed();
    asker.advance(std::time::Duration::from_secs(30));
    let capsule = asker.capsule().unwrap();
    assert_eq!(capsule.outcomes[0], (asks[1].id, Outcome::Ok(2)));
    assert_eq!(
        capsule.outcomes[1],
        (asks[0].id, Outcome::Refused(Problem::new("none", "no numbers")))
    );
    assert!(matches!(&capsule.outcomes[2].1, Outcome::Refused(problem) if problem.code() == UNREADABLE));
    assert_eq!(capsule.outcomes[3], (asks[4].id, Outcome::TimedOut));
    assert_eq!(capsule.raw, [Body::new("a/b", "raw")]);
    // The last raw one timed out, which its handler made an error of: nobody waits, so it is logged.
    assert_eq!(asker.logged()[0].fields[1].1, codes::TIMEOUT);
}

#[test]
fn a_request_is_answered_at_once() {
    let mut asker = Harness::new::<Asker>();
    assert_eq!(asker.ask("ask.request", ()).refused().code(), codes::NO_SUBSCRIBER);
    asker.on_request("number.v1.>", |_| Ok(7));
    assert_eq!(asker.ask("ask.request", ()).json(), 7);
    asker.on_request("number.v1.>", |_| Ok("seven"));
    assert_eq!(asker.ask("ask.request", ()).refused().code(), codes::CAPSULE_FAILED);
    asker.on_request("number.v1.>", |_| Err::<(), _>(Problem::new("busy", "later")));
    assert_eq!(asker.ask("ask.request", ()).refused().code(), "busy");
    assert_eq!(Problem::from(RequestError::TimedOut).code(), codes::TIMEOUT);
}

/// Serves a connection: a line is a credential, `x` ends it.
#[derive(Default)]
struct Line;

#[capsule]
impl Line {
    #[on("port.v1.stream.opened")]
    fn opened(&mut self, ctx: &mut Context) -> Result<()> {
        let peer = ctx.peer()?;
        assert_eq!(ctx.source(), &Source::Port(peer.stream));
        ctx.write(peer.stream, b"who?")?;
        Ok(())
    }

    #[on("port.v1.stream.data")]
    fn data(&mut self, ctx: &mut Context, body: Body) -> Result<()> {
        let Some(stream) = ctx.port() else { return Ok(()) };
        if body.bytes == b"x" {
            ctx.close(stream)?;
            return Ok(());
        }
        let principal = ctx.authenticate(&body.bytes)?;
        ctx.subscribe("news.>")?;
        ctx.write(stream, principal.as_bytes())?;
        Ok(())
    }
}

#[test]
fn a_connection_is_served() {
    let mut line = Harness::new::<Line>();
    line.connect(astrid_sdk::Socket::Session).committed();
    line.accept_credential(b"token", "ada");
    assert_eq!(line.written(), b"who?");
    line.receive(b"token").committed();
    assert_eq!(line.written(), b"ada");
    assert_eq!(line.subscriptions(), ["news.>"]);
    // One attempt: the second is refused, which nobody waits for.
    line.receive(b"token").committed();
    assert_eq!(line.logged()[0].fields[1].1, codes::DENIED);
    line.receive(b"x").committed();
    assert!(line.is_closed());

    line.connect(astrid_sdk::Socket::Operator).committed();
    line.accept_credential(b"token", "ada");
    line.set_room(2);
    line.receive(b"token").committed();
    assert_eq!(line.written(), b"who?", "what does not fit is not written");
    assert_eq!(line.logged()[0].fields[2].1, "2 bytes are free");
}
