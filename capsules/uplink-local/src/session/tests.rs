//! Conversations with a kernel that records, natively.
#![allow(clippy::unwrap_used, reason = "tests")]

mod greeting;

use astrid_wire::envelope::{
    Hello, Publish, Request, SessionCall, SessionVerb, Subscribe, Unsubscribe, UploadAbort, UploadBegin, UploadChunk,
};
use astrid_wire::frame;
use proptest::prelude::*;

use super::*;
use crate::uploads::CREDIT_BYTES;

/// What the kernel was told, but for what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Published(String, Vec<u8>),
    /// Under this id.
    Once(String, String, Vec<u8>),
    Asked(String, Vec<u8>, Option<u32>),
    Subscribed(String),
    Unsubscribed(String),
}

#[derive(Debug, Default)]
struct Fake {
    told: Vec<Told>,
    written: Vec<u8>,
    closed: bool,
    authenticated: u32,
    claims: Vec<String>,
    /// What every effect is refused with.
    refusal: Option<Problem>,
    /// The client does not read.
    full: bool,
    asks: u32,
}

const TOKEN: &[u8] = b"token";

impl Fake {
    fn check(&self) -> Result<(), Problem> {
        assert!(!self.closed, "something is done for a closed connection");
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// Takes what was written since the last time.
    fn frames(&mut self) -> Vec<FromServer> {
        let mut decoder = FrameDecoder::new();
        decoder.set_limit(PAYLOAD_BYTES_MAX);
        decoder.push(&std::mem::take(&mut self.written));
        let mut frames = Vec::new();
        while let Some(payload) = decoder.next().unwrap() {
            frames.push(envelope::decode_server(payload).unwrap());
        }
        assert!(!decoder.is_mid_frame());
        frames
    }
}

impl Kernel for Fake {
    fn challenge(&mut self, claim: &str) -> Option<Vec<u8>> {
        self.claims.push(claim.to_owned());
        (claim != "nobody").then(|| vec![7; 32])
    }

    fn authenticate(&mut self, credential: &[u8]) -> Result<String, Option<Problem>> {
        self.authenticated += 1;
        match credential {
            [1, .., 2] if credential.len() == 96 => Ok(self.claims[0].clone()),
            [1, .., 4] if credential.len() == 96 => Err(Some(Problem::new(problems::QUOTA_EXCEEDED, "1 allowed"))),
            TOKEN => Ok("default".into()),
            [] => Ok("anonymous".into()),
            _ => Err(None),
        }
    }

    fn publish(&mut self, said: Said<'_>) -> Result<(), Problem> {
        self.check()?;
        self.told.push(Told::Published(said.topic.into(), said.body.into()));
        Ok(())
    }

    fn publish_once(&mut self, id: &str, said: Said<'_>) -> Result<(), Problem> {
        self.check()?;
        self.told
            .push(Told::Once(id.into(), said.topic.into(), said.body.into()));
        Ok(())
    }

    fn ask(&mut self, said: Said<'_>, timeout_ms: Option<u32>) -> Result<AskId, Problem> {
        self.check()?;
        self.told
            .push(Told::Asked(said.topic.into(), said.body.into(), timeout_ms));
        self.asks += 1;
        Ok(ask(self.asks))
    }

    fn subscribe(&mut self, pattern: &str) -> Result<(), Problem> {
        self.check()?;
        self.told.push(Told::Subscribed(pattern.into()));
        Ok(())
    }

    fn unsubscribe(&mut self, pattern: &str) {
        self.told.push(Told::Unsubscribed(pattern.into()));
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Full> {
        assert!(!self.closed, "something is written to a closed connection");
        if self.full {
            return Err(Full);
        }
        self.written.extend_from_slice(bytes);
        Ok(())
    }

    fn close(&mut self) {
        assert!(!self.closed, "closed twice");
        self.closed = true;
    }
}

/// The ask that was the n-th, from 1.
fn ask(n: u32) -> AskId {
    AskId {
        boot: 1,
        sequence: 2,
        ordinal: n,
    }
}

fn hello() -> FromClient {
    FromClient::Hello(Hello {
        major: 1,
        minor: 0,
        credential: TOKEN.into(),
        client: "test".into(),
        principal: None,
    })
}

fn publish(id: u64, topic: &str, body: &'static str) -> FromClient {
    let content = Some(publish::Content::Body(body.into()));
    FromClient::Publish(Publish {
        id,
        topic: topic.into(),
        content_type: "text/plain".into(),
        content,
        message_id: None,
    })
}

/// The same, under an id of the client's.
fn publish_once(id: u64, name: &str) -> FromClient {
    FromClient::Publish(Publish {
        id,
        topic: "a".into(),
        message_id: Some(name.into()),
        ..Publish::default()
    })
}

fn request(id: u64, topic: &str) -> FromClient {
    let content = Some(request::Content::Body("q".into()));
    FromClient::Request(Request {
        id,
        topic: topic.into(),
        content_type: "text/plain".into(),
        content,
        timeout_ms: 0,
    })
}

fn subscribe(id: u64, pattern: &str) -> FromClient {
    FromClient::Subscribe(Subscribe {
        id,
        pattern: pattern.into(),
    })
}

fn answer(body: &'static str) -> Outcome {
    Outcome::Answer {
        content_type: "text/plain".into(),
        body: body.into(),
    }
}

/// A conversation: a session and its kernel.
struct Talk {
    session: Session,
    kernel: Fake,
}

impl Talk {
    fn new(socket: Socket) -> Self {
        Self {
            session: Session::new(socket),
            kernel: Fake::default(),
        }
    }

    /// After Hello.
    fn open(socket: Socket) -> Self {
        let mut talk = Self::new(socket);
        talk.say([hello()]);
        talk.kernel.frames();
        talk
    }

    /// Says something and gives the answers.
    fn say(&mut self, messages: impl IntoIterator<Item = FromClient>) -> Vec<FromServer> {
        let bytes: Vec<u8> = messages.into_iter().flat_map(FromClient::into_frame).collect();
        self.bytes(&bytes)
    }

    /// The same for raw bytes, in pieces as the kernel has them.
    fn bytes(&mut self, bytes: &[u8]) -> Vec<FromServer> {
        for piece in bytes.chunks(64 << 10) {
            self.session.data(&mut self.kernel, piece);
        }
        self.kernel.frames()
    }

    fn outcome(&mut self, n: u32, outcome: Outcome) -> Vec<FromServer> {
        self.session.outcome(&mut self.kernel, ask(n), outcome);
        self.kernel.frames()
    }

    fn event(&mut self, topic: &str, lost: u32) -> Vec<FromServer> {
        let event = Event {
            id: "1-2".into(),
            topic: topic.into(),
            lost,
            body: "e".into(),
            ..Event::default()
        };
        self.session.event(&mut self.kernel, event);
        self.kernel.frames()
    }
}

/// The codes of refusals, with their ids; 0 for those that end the conversation.
fn codes_of(frames: &[FromServer]) -> Vec<(u64, &str)> {
    fn code(frame: &FromServer) -> (u64, &str) {
        match frame {
            FromServer::Problem(problem) => (problem.id, &problem.code),
            FromServer::HelloNack(nack) => (0, &nack.code),
            FromServer::Goodbye(goodbye) => (0, &goodbye.code),
            other => panic!("not a refusal: {other:?}"),
        }
    }
    frames.iter().map(code).collect()
}

#[test]
fn requests_are_answered_by_id() {
    let mut talk = Talk::open(Socket::Operator);
    assert!(
        talk.say([request(10, "a"), request(11, "b"), request(12, "c"), request(13, "d")])
            .is_empty()
    );
    let response = |id, body: &'static str| {
        FromServer::Response(envelope::Response {
            id,
            content_type: "text/plain".into(),
            body: body.into(),
        })
    };
    assert_eq!(talk.outcome(3, answer("three")), [response(12, "three")]);
    assert_eq!(talk.outcome(1, answer("one")), [response(10, "one")]);
    let problem = Problem::new("no-luck", "today").with_hint("tomorrow");
    let refused = talk.outcome(2, Outcome::Refused(problem));
    assert!(matches!(&refused[..], [FromServer::Problem(problem)]
        if (problem.id, &*problem.code, &*problem.message, &*problem.hint) == (11, "no-luck", "today", "tomorrow")));
    assert_eq!(codes_of(&talk.outcome(4, Outcome::TimedOut)), [(13, problems::TIMEOUT)]);
    // Answered once: a second outcome, or one of nobody's ask, says nothing.
    assert!(talk.outcome(3, answer("again")).is_empty());
    assert!(talk.outcome(99, answer("whose")).is_empty());
    // Now the ids are free.
    assert!(talk.say([request(10, "a")]).is_empty());
    assert_eq!(talk.outcome(5, answer("five")), [response(10, "five")]);
}

#[test]
fn timeouts_are_passed_on_within_the_limit() {
    let mut talk = Talk::open(Socket::Operator);
    for (id, timeout_ms) in [(1, 0), (2, 5), (3, u32::MAX)] {
        let FromClient::Request(request) = request(id, "a") else {
            panic!()
        };
        talk.say([FromClient::Request(Request { timeout_ms, ..request })]);
    }
    let timeouts: Vec<_> = talk
        .kernel
        .told
        .iter()
        .map(|told| matches!(told, Told::Asked(_, _, ms) if ms.is_none()))
        .collect();
    assert_eq!(timeouts, [true, false, false]);
    assert_eq!(talk.kernel.told[1], Told::Asked("a".into(), b"q".into(), Some(5)));
    assert_eq!(
        talk.kernel.told[2],
        Told::Asked("a".into(), b"q".into(), Some(TIMEOUT_MS_MAX))
    );
}

/// At most 64 requests in flight, and no id twice among them.
#[test]
fn requests_are_bounded() {
    let mut talk = Talk::open(Socket::Operator);
    talk.say((1..=64).map(|id| request(id, "a")));
    assert_eq!(codes_of(&talk.say([request(65, "a")])), [(65, problems::TOO_MANY)]);
    talk.outcome(1, answer("x"));
    assert!(talk.say([request(65, "a")]).is_empty());
    assert_eq!(codes_of(&talk.say([publish(2, "a", "")])), [(0, codes::PROTOCOL)]);
    assert!(talk.kernel.closed);
    let mut talk = Talk::open(Socket::Operator);
    assert_eq!(codes_of(&talk.say([request(0, "a")])), [(0, codes::PROTOCOL)]);
}

/// What the kernel takes of one handling is not exceeded; the next piece starts anew.
#[test]
fn what_is_said_at_once_is_bounded() {
    let mut talk = Talk::open(Socket::Operator);
    let many = SAID_MAX as u64 + 3;
    let answers = talk.say((1..=many).map(|id| publish(id, "a", "")));
    assert_eq!(talk.kernel.told.len(), SAID_MAX);
    assert_eq!(answers.len() as u64, many);
    assert_eq!(
        codes_of(&answers[SAID_MAX..]),
        [
            (many - 2, problems::TOO_MANY),
            (many - 1, problems::TOO_MANY),
            (many, problems::TOO_MANY)
        ]
    );
    assert_eq!(talk.say([publish(1, "a", "")]), [done(1)]);
}

/// A2: what the gate denies is PERMISSION_DENIED on the session socket. Other refusals keep their code everywhere.
#[test]
fn refusals_of_the_kernel() {
    for (socket, code, seen) in [
        (Socket::Session, problems::DENIED, codes::PERMISSION_DENIED),
        (Socket::Operator, problems::DENIED, problems::DENIED),
        (Socket::Session, problems::FULL, problems::FULL),
        (Socket::Operator, problems::NO_SUBSCRIBER, problems::NO_SUBSCRIBER),
    ] {
        let mut talk = Talk::open(socket);
        talk.kernel.refusal = Some(Problem::new(code, "because"));
        let answers = talk.say([publish(1, "a", ""), request(2, "a"), subscribe(3, "a")]);
        assert_eq!(codes_of(&answers), [(1, seen), (2, seen), (3, seen)]);
        assert!(!talk.kernel.closed && talk.kernel.told.is_empty());
    }
}

/// A2, A7: session verbs are refused by socket on the one, by token on the other.
#[test]
fn session_verbs() {
    for verb in [
        SessionVerb::RequestTool,
        SessionVerb::EmitEvent,
        SessionVerb::PublishEvidence,
        SessionVerb::StreamTelemetry,
    ] {
        for (socket, code) in [
            (Socket::Operator, codes::SESSION_ERROR_PERMISSION_DENIED),
            (Socket::Session, codes::SESSION_ERROR_INVALID),
        ] {
            let mut talk = Talk::open(socket);
            let call = SessionCall {
                id: 5,
                verb: verb.into(),
                token: TOKEN.into(),
                ..SessionCall::default()
            };
            assert_eq!(codes_of(&talk.say([FromClient::SessionCall(call)])), [(5, code)]);
            assert!(!talk.kernel.closed && talk.kernel.told.is_empty());
        }
    }
}

#[test]
fn events_go_to_every_subscription_that_matches() {
    let mut talk = Talk::open(Socket::Operator);
    let answers = talk.say([
        subscribe(1, "a.>"),
        subscribe(2, "a.*"),
        subscribe(3, "a.>"),
        subscribe(4, "b"),
    ]);
    assert_eq!(answers, [done(1), done(2), done(3), done(4)]);
    let ids = |frames: Vec<FromServer>| -> Vec<(u64, u64)> {
        let event = |frame| match frame {
            FromServer::Event(event) => (event.subscription, event.lost),
            other => panic!("not an event: {other:?}"),
        };
        frames.into_iter().map(event).collect()
    };
    assert_eq!(ids(talk.event("a.b", 0)), [(1, 0), (2, 0), (3, 0)]);
    assert_eq!(talk.say([FromClient::Unsubscribe(Unsubscribe { id: 1 })]), [done(1)]);
    assert_eq!(ids(talk.event("a.b.c", 7)), [(3, 7)]);
    assert_eq!(talk.say([FromClient::Unsubscribe(Unsubscribe { id: 3 })]), [done(3)]);
    assert!(talk.event("a.b.c", 0).is_empty());
    // Of what is not there any more, or never was, nothing is told to the kernel.
    assert_eq!(talk.say([FromClient::Unsubscribe(Unsubscribe { id: 3 })]), [done(3)]);
    let told = |told: &str| Told::Subscribed(told.into());
    assert_eq!(
        talk.kernel.told,
        [told("a.>"), told("a.*"), told("b"), Told::Unsubscribed("a.>".into())]
    );
}

/// Bounded queues drop and say so: what the kernel dropped, what the client did not read, and what no frame holds.
#[test]
fn lost_events_are_counted() {
    let mut talk = Talk::open(Socket::Operator);
    talk.say([subscribe(1, ">")]);
    talk.kernel.full = true;
    assert!(talk.event("a", 2).is_empty());
    assert!(!talk.kernel.closed);
    talk.kernel.full = false;
    let large = Event {
        topic: "a".into(),
        body: vec![0; envelope::BODY_BYTES_MAX + 1].into(),
        ..Event::default()
    };
    talk.session.event(&mut talk.kernel, large);
    let frames = talk.event("a", 1);
    assert!(
        matches!(&frames[..], [FromServer::Event(event)] if event.lost == 5),
        "{frames:?}"
    );
    let frames = talk.event("a", 0);
    assert!(matches!(&frames[..], [FromServer::Event(event)] if event.lost == 0));
}

/// An answer that the client does not read ends the connection: it would wait for it.
#[test]
fn unread_answers_end_it() {
    let mut talk = Talk::open(Socket::Operator);
    talk.say([request(1, "a")]);
    talk.kernel.full = true;
    assert!(talk.outcome(1, answer("x")).is_empty());
    assert!(talk.kernel.closed);
    assert!(talk.say([publish(1, "a", "")]).is_empty());
}

#[test]
fn an_answer_that_no_frame_holds_is_a_problem() {
    let mut talk = Talk::open(Socket::Operator);
    talk.say([request(1, "a"), request(2, "a")]);
    let outcome = |bytes: usize| Outcome::Answer {
        content_type: "a/b".into(),
        body: vec![1; bytes].into(),
    };
    assert_eq!(
        codes_of(&talk.outcome(1, outcome(envelope::BODY_BYTES_MAX + 1))),
        [(1, problems::TOO_LARGE)]
    );
    let frames = talk.outcome(2, outcome(envelope::BODY_BYTES_MAX));
    assert!(matches!(&frames[..], [FromServer::Response(response)] if response.body.len() == envelope::BODY_BYTES_MAX));
}

/// A3: larger bodies in chunks; used by name, once, when the message is accepted.
#[test]
fn uploads_are_used_by_name() {
    let body: Vec<u8> = (0..CREDIT_BYTES + 1000).map(|n| (n % 253) as u8).collect();
    let hash = blake3::hash(&body).as_bytes().to_vec();
    let begin = FromClient::UploadBegin(UploadBegin {
        upload: "u".into(),
        size: body.len() as u64,
        blake3: hash.into(),
    });
    let chunk = |range: std::ops::Range<usize>| {
        let (offset, data) = (range.start as u64, body[range].to_vec().into());
        FromClient::UploadChunk(UploadChunk {
            upload: "u".into(),
            offset,
            data,
        })
    };
    let state = |received: usize, credit| {
        FromServer::UploadState(envelope::UploadState {
            upload: "u".into(),
            received: received as u64,
            credit,
        })
    };
    let by_name = |id| {
        let content = Some(publish::Content::Upload("u".into()));
        FromClient::Publish(Publish {
            id,
            topic: "a".into(),
            content_type: "text/plain".into(),
            content,
            message_id: None,
        })
    };
    let mut talk = Talk::open(Socket::Operator);
    assert_eq!(talk.say([begin.clone()]), [state(0, CREDIT_BYTES)]);
    assert_eq!(talk.say([chunk(0..500)]), [state(500, CREDIT_BYTES)]);
    // Not complete yet, from the wrong place, too much: refused, and it stands where it stood.
    assert_eq!(codes_of(&talk.say([by_name(1)])), [(1, problems::INVALID)]);
    assert_eq!(codes_of(&talk.say([chunk(400..500)])), [(0, problems::INVALID)]);
    assert_eq!(
        codes_of(&talk.say([chunk(500..body.len())])),
        [(0, problems::TOO_LARGE)]
    );
    // Resumed by asking, within the connection.
    assert_eq!(talk.say([begin]), [state(500, CREDIT_BYTES)]);
    assert_eq!(
        talk.say([chunk(500..1000), chunk(1000..body.len())]),
        [state(1000, CREDIT_BYTES), state(body.len(), 0)]
    );
    // Refused messages leave it, an accepted one uses it up.
    talk.kernel.refusal = Some(Problem::new(problems::FULL, "busy"));
    assert_eq!(codes_of(&talk.say([by_name(2)])), [(2, problems::FULL)]);
    talk.kernel.refusal = None;
    assert_eq!(talk.say([by_name(3)]), [done(3)]);
    assert_eq!(talk.kernel.told, [Told::Published("a".into(), body.clone())]);
    assert_eq!(codes_of(&talk.say([by_name(4)])), [(4, problems::NOT_FOUND)]);
}

#[test]
fn requests_use_uploads_too() {
    let mut talk = Talk::open(Socket::Operator);
    let begin = UploadBegin {
        upload: "u".into(),
        size: 2,
        blake3: blake3::hash(b"hi").as_bytes().to_vec().into(),
    };
    talk.say([
        FromClient::UploadBegin(begin.clone()),
        FromClient::UploadChunk(UploadChunk {
            upload: "u".into(),
            offset: 0,
            data: "hi".into(),
        }),
    ]);
    let content = Some(request::Content::Upload("u".into()));
    let asked = Request {
        id: 1,
        topic: "a".into(),
        content_type: "text/plain".into(),
        content,
        timeout_ms: 0,
    };
    assert!(talk.say([FromClient::Request(asked)]).is_empty());
    assert_eq!(talk.kernel.told, [Told::Asked("a".into(), b"hi".into(), None)]);
    // Given up before it is complete: its place is free, nothing is said.
    talk.say([FromClient::UploadBegin(begin)]);
    assert!(
        talk.say([FromClient::UploadAbort(UploadAbort { upload: "u".into() })])
            .is_empty()
    );
    let chunk = UploadChunk {
        upload: "u".into(),
        offset: 0,
        data: "hi".into(),
    };
    let answers = talk.say([FromClient::UploadChunk(chunk)]);
    assert!(matches!(&answers[..], [FromServer::Problem(problem)]
        if (problem.id, &*problem.code, &*problem.upload) == (0, problems::NOT_FOUND, "u")));
}

/// A client that sends no more still gets what it asked for.
#[test]
fn half_closed_connections_are_served_to_the_end() {
    let mut talk = Talk::open(Socket::Operator);
    talk.say([request(1, "a"), request(2, "a"), subscribe(3, ">")]);
    talk.session.ended(&mut talk.kernel);
    assert!(!talk.kernel.closed);
    assert!(talk.event("a", 0).is_empty());
    assert_eq!(talk.outcome(1, answer("x")).len(), 1);
    assert!(!talk.kernel.closed);
    assert_eq!(talk.outcome(2, answer("x")).len(), 1);
    assert!(talk.kernel.closed);

    for said in [vec![], vec![publish(1, "a", "")], vec![subscribe(1, ">")]] {
        let mut talk = Talk::open(Socket::Operator);
        talk.say(said);
        talk.session.ended(&mut talk.kernel);
        assert!(talk.kernel.closed);
    }
    let mut talk = Talk::open(Socket::Operator);
    talk.say([request(1, "a")]);
    talk.bytes(&[0, 0]);
    talk.session.ended(&mut talk.kernel);
    assert!(talk.kernel.closed, "an end within a frame is no orderly one");
    let mut stranger = Talk::new(Socket::Session);
    stranger.session.ended(&mut stranger.kernel);
    assert!(stranger.kernel.closed);
}

fn any_message() -> impl Strategy<Value = FromClient> {
    let id = 0u64..6;
    let name = prop_oneof![Just("a"), Just("b"), Just("")];
    prop_oneof![
        1 => Just(hello()),
        3 => id.clone().prop_map(|id| publish(id, "a", "x")),
        3 => id.clone().prop_map(|id| request(id, "a")),
        3 => id.clone().prop_map(|id| subscribe(id, "a.>")),
        2 => id.clone().prop_map(|id| FromClient::Unsubscribe(Unsubscribe { id })),
        1 => id.prop_map(|id| FromClient::SessionCall(SessionCall { id, verb: 1, ..SessionCall::default() })),
        2 => (name.clone(), prop_oneof![0u64..4, Just(u64::MAX)]).prop_map(|(name, size)| {
            let blake3 = blake3::hash(&vec![0; size.min(4) as usize]).as_bytes().to_vec().into();
            FromClient::UploadBegin(UploadBegin { upload: name.into(), size, blake3 })
        }),
        3 => (name.clone(), 0u64..3, 0usize..3).prop_map(|(name, offset, length)| {
            FromClient::UploadChunk(UploadChunk { upload: name.into(), offset, data: vec![0; length].into() })
        }),
        1 => name.clone().prop_map(|name| FromClient::UploadAbort(UploadAbort { upload: name.into() })),
        2 => (1u64..6, name).prop_map(|(id, name)| {
            let content = Some(publish::Content::Upload(name.into()));
            FromClient::Publish(Publish { id, topic: "a".into(), content_type: "a/b".into(), content, message_id: None })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever comes, in whatever pieces: no panic, nothing before authentication, nothing after the close, whole frames out (all
    /// asserted by the fake), and an answer to each message that wants one at once.
    #[test]
    fn any_conversation_is_orderly(
        greets in any::<bool>(),
        messages in proptest::collection::vec(any_message(), 0..40),
        tail in proptest::collection::vec(any::<u8>(), 0..20),
        pieces in proptest::collection::vec(1usize..200, 1..10),
        ends in any::<bool>(),
    ) {
        let mut talk = Talk::new(Socket::Session);
        let mut bytes: Vec<u8> = if greets { hello().into_frame() } else { Vec::new() };
        bytes.extend(messages.into_iter().flat_map(FromClient::into_frame));
        bytes.extend(tail);
        let mut sizes = pieces.iter().copied().cycle();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            talk.session.data(&mut talk.kernel, piece);
            rest = after;
            prop_assert!(talk.session.waiting.len() <= REQUESTS_MAX);
            if let Some(n) = talk.kernel.asks.checked_sub(2) {
                talk.session.outcome(&mut talk.kernel, ask(n), answer("x"));
            }
            talk.session.event(&mut talk.kernel, Event { topic: "a.b".into(), ..Event::default() });
        }
        if ends {
            talk.session.ended(&mut talk.kernel);
        }
        prop_assert!(talk.kernel.authenticated <= 1);
        prop_assert!(talk.kernel.told.is_empty() || talk.kernel.authenticated == 1);
        talk.kernel.frames();
    }
}
