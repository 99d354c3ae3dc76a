//! The capsule with a fake kernel: that a session's calls reach it, and its messages the session.
#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::testing::Harness;
use astrid_wire::envelope::{FromClient, FromServer, Hello, Publish, Request, Subscribe, codes, publish, request};
use astrid_wire::frame::FrameDecoder;
use astrid_wire::manifest::{Manifest, Scope};

use super::*;

fn connect(socket: Socket) -> Harness<Uplink> {
    let mut harness = Harness::new::<Uplink>().with_manifest(include_str!("../Capsule.toml"));
    harness.connect(socket).committed();
    harness.accept_credential(b"token", "default");
    harness
}

fn say(harness: &mut Harness<Uplink>, message: FromClient) -> Vec<FromServer> {
    harness.receive(&message.into_frame()).committed();
    heard(harness)
}

fn heard(harness: &mut Harness<Uplink>) -> Vec<FromServer> {
    let mut decoder = FrameDecoder::new();
    decoder.push(&harness.written());
    std::iter::from_fn(|| decoder.next().unwrap())
        .map(|payload| envelope::decode_server(payload).unwrap())
        .collect()
}

fn hello() -> FromClient {
    FromClient::Hello(Hello {
        major: 1,
        minor: 0,
        credential: b"token"[..].into(),
        client: "test".into(),
        principal: None,
    })
}

#[test]
fn a_conversation() {
    let mut harness = connect(Socket::Operator);
    let ack = say(&mut harness, hello());
    assert!(matches!(&ack[..], [FromServer::HelloAck(ack)] if ack.principal == "default" && ack.socket == 1));

    let content = Some(publish::Content::Body("b".into()));
    let said = Publish {
        id: 1,
        topic: "a.b".into(),
        content_type: "text/plain".into(),
        content,
        message_id: None,
    };
    assert!(matches!(
        say(&mut harness, FromClient::Publish(said))[..],
        [FromServer::Done(_)]
    ));
    let published = harness.published();
    assert_eq!(
        (published[0].topic.as_str(), &published[0].body.bytes[..]),
        ("a.b", &b"b"[..])
    );

    let content = Some(request::Content::Body("q".into()));
    let asked = Request {
        id: 2,
        topic: "a.c".into(),
        content_type: "text/plain".into(),
        content,
        timeout_ms: 1500,
    };
    assert!(say(&mut harness, FromClient::Request(asked)).is_empty());
    let ask = harness.asks().remove(0);
    harness.answer(ask.id, Body::text("yes")).committed();
    let heard_back = heard(&mut harness);
    assert!(matches!(&heard_back[..], [FromServer::Response(response)] if response.id == 2 && response.body == "yes"));

    let subscribe = FromClient::Subscribe(Subscribe {
        id: 3,
        pattern: "x.>".into(),
    });
    assert!(matches!(say(&mut harness, subscribe)[..], [FromServer::Done(_)]));
    assert_eq!(harness.subscriptions(), ["x.>"]);
    harness.event("x.y", Body::text("news")).committed();
    let news = heard(&mut harness);
    assert!(matches!(&news[..], [FromServer::Event(event)] if event.subscription == 3 && event.body == "news"));

    harness.hang_up().committed();
    assert!(harness.is_closed());
}

/// A4: HelloNack, then the stream is closed.
#[test]
fn a_stranger_is_turned_away() {
    let mut harness = connect(Socket::Session);
    let hello = Hello {
        major: 1,
        minor: 0,
        credential: b"guess"[..].into(),
        client: String::new(),
        principal: None,
    };
    let answers = say(&mut harness, FromClient::Hello(hello));
    assert!(matches!(&answers[..], [FromServer::HelloNack(nack)] if nack.code == codes::CREDENTIAL));
    assert!(harness.is_closed());
}

/// What a client sends twice under one id is published once, and both are told that it is done.
#[test]
fn what_is_sent_twice_happens_once() {
    let mut harness = connect(Socket::Operator);
    say(&mut harness, hello());
    for id in [1, 2] {
        let said = Publish {
            id,
            topic: "a.b".into(),
            content_type: "text/plain".into(),
            content: None,
            message_id: Some("order-7".into()),
        };
        let answers = say(&mut harness, FromClient::Publish(said));
        assert!(matches!(&answers[..], [FromServer::Done(done)] if done.id == id));
    }
    assert_eq!(harness.published().len(), 1);
}

/// A client that does not read: events are dropped, an answer ends the connection.
#[test]
fn a_client_that_does_not_read() {
    let mut harness = connect(Socket::Operator);
    say(&mut harness, hello());
    say(
        &mut harness,
        FromClient::Subscribe(Subscribe {
            id: 3,
            pattern: ">".into(),
        }),
    );
    harness.set_room(5);
    harness.event("x.y", Body::text("news")).committed();
    assert!(!harness.is_closed());
    let said = Publish {
        id: 1,
        topic: "a".into(),
        content_type: "text/plain".into(),
        content: None,
        message_id: None,
    };
    harness.receive(&FromClient::Publish(said).into_frame()).committed();
    assert!(harness.is_closed());
}

#[test]
fn the_manifest_is_valid() {
    let manifest = Manifest::parse(include_str!("../Capsule.toml"), "Capsule.toml").unwrap();
    assert_eq!(manifest.runtime.scope, Scope::Connection);
    assert_eq!(manifest.package.version.to_string(), env!("CARGO_PKG_VERSION"));
}
