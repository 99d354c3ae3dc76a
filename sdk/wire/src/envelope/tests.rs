//! Bounded decode (A5) and versions (A4).
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn payload(frame: Vec<u8>) -> Bytes {
    Bytes::from(frame).split_off(frame::HEADER_BYTES)
}

fn refuse_client(kind: FromClient) -> EnvelopeError {
    decode_client(payload(kind.into_frame())).unwrap_err()
}

fn publish() -> Publish {
    Publish {
        id: 7,
        topic: "a.b".into(),
        content_type: "text/plain".into(),
        content: Some(publish::Content::Body(Bytes::from_static(b"hello"))),
        message_id: Some("order-7".into()),
    }
}

/// A5: bodies are opaque bytes with a content type, and arrive as they were sent.
#[test]
fn round_trips() {
    let client = [
        FromClient::Hello(Hello {
            major: 1,
            minor: 0,
            credential: Bytes::from_static(&[0, 255]),
            client: "test".into(),
            principal: None,
        }),
        FromClient::Publish(publish()),
        FromClient::Unsubscribe(Unsubscribe { id: 0 }),
        FromClient::UploadBegin(UploadBegin {
            upload: "u".into(),
            size: u64::MAX,
            blake3: vec![3; 32].into(),
        }),
    ];
    for kind in client {
        let frame = kind.clone().into_frame();
        assert_eq!(
            u32::from_be_bytes(*frame.first_chunk().unwrap()) as usize,
            frame.len() - 4
        );
        assert_eq!(decode_client(payload(frame)), Ok(kind));
    }
    let server = [
        FromServer::Done(Done { id: u64::MAX }),
        FromServer::from(crate::Problem::new("x", "y").with_hint("z")),
        FromServer::Event(Event {
            subscription: 1,
            topic: "a".into(),
            lost: 3,
            ..Event::default()
        }),
    ];
    for kind in server {
        assert_eq!(decode_server(payload(kind.clone().into_frame())), Ok(kind));
    }
}

/// A body that is sent shares the memory of the frame it came in.
#[test]
fn bodies_are_not_copied() {
    let payload = payload(FromClient::Publish(publish()).into_frame());
    let range = payload.as_ptr_range();
    let FromClient::Publish(decoded) = decode_client(payload).unwrap() else {
        panic!("another message")
    };
    let Some(publish::Content::Body(body)) = decoded.content else {
        panic!("no body")
    };
    assert!(range.contains(&body.as_ptr()));
}

#[test]
fn exactly_one_message() {
    assert_eq!(decode_client(Bytes::new()), Err(EnvelopeError::Empty));
    let one = payload(FromClient::Publish(publish()).into_frame());
    let two = Bytes::from([one.as_ref(), one.as_ref()].concat());
    assert_eq!(decode_client(two), Err(EnvelopeError::Crowded));
    assert_eq!(
        decode_client(one.slice(..one.len() - 1)),
        Err(EnvelopeError::Malformed("it ends early".into()))
    );
    // Member 11 of wire type 2, and member 1 of wire type 0.
    assert_eq!(
        decode_client(Bytes::from_static(&[0x5a, 0])),
        Err(EnvelopeError::Unknown(11))
    );
    assert!(matches!(
        decode_client(Bytes::from_static(&[0x08, 0])),
        Err(EnvelopeError::Malformed(_))
    ));
    // Groups nested deeper than any decoder should follow, inside a `hello`.
    let groups = vec![0x7b; 60_000];
    let mut deep = vec![0x0a];
    prost::encoding::encode_varint(groups.len() as u64, &mut deep);
    deep.extend_from_slice(&groups);
    assert!(matches!(decode_client(deep.into()), Err(EnvelopeError::Malformed(_))));
}

#[test]
fn member_numbers_are_the_last_ones() {
    let proof = payload(FromClient::Proof(Proof::default()).into_frame());
    assert_eq!(u32::from(proof[0] >> 3), CLIENT_MEMBERS);
    let challenge = payload(FromServer::Challenge(Challenge::default()).into_frame());
    assert_eq!(u32::from(challenge[0] >> 3), SERVER_MEMBERS);
}

/// A5: every field that is kept has a limit.
#[test]
fn fields_are_bounded() {
    let too_long = |field, bytes: usize, limit| EnvelopeError::TooLong { field, bytes, limit };
    let long = |bytes: usize| "a".repeat(bytes);
    let cases = [
        (
            FromClient::Hello(Hello {
                credential: vec![0; 4097].into(),
                ..Hello::default()
            }),
            too_long("credential", 4097, 4096),
        ),
        (
            FromClient::Hello(Hello {
                client: long(129),
                ..Hello::default()
            }),
            too_long("client", 129, 128),
        ),
        (
            FromClient::Publish(Publish {
                topic: long(256),
                ..publish()
            }),
            too_long("topic", 256, 255),
        ),
        (
            FromClient::Publish(Publish {
                content_type: long(256),
                ..publish()
            }),
            too_long("content_type", 256, 255),
        ),
        (
            FromClient::Publish(Publish {
                content: Some(publish::Content::Upload(long(65))),
                ..publish()
            }),
            too_long("upload", 65, 64),
        ),
        (
            FromClient::Publish(Publish {
                message_id: Some(long(129)),
                ..publish()
            }),
            too_long("message_id", 129, 128),
        ),
        (
            FromClient::Request(Request {
                content: Some(request::Content::Upload(long(65))),
                ..Request::default()
            }),
            too_long("upload", 65, 64),
        ),
        (
            FromClient::Subscribe(Subscribe {
                id: 1,
                pattern: long(256),
            }),
            too_long("pattern", 256, 255),
        ),
        (
            FromClient::SessionCall(SessionCall {
                verb: 1,
                token: vec![0; 1025].into(),
                ..SessionCall::default()
            }),
            too_long("token", 1025, 1024),
        ),
        (
            FromClient::SessionCall(SessionCall {
                verb: 5,
                ..SessionCall::default()
            }),
            EnvelopeError::UnknownValue {
                field: "verb",
                value: 5,
            },
        ),
        (
            FromClient::SessionCall(SessionCall::default()),
            EnvelopeError::UnknownValue {
                field: "verb",
                value: 0,
            },
        ),
        (
            FromClient::UploadBegin(UploadBegin {
                upload: "u".into(),
                size: 1,
                blake3: vec![0; 31].into(),
            }),
            EnvelopeError::HashLength(31),
        ),
        (
            FromClient::UploadChunk(UploadChunk {
                upload: long(65),
                ..UploadChunk::default()
            }),
            too_long("upload", 65, 64),
        ),
        (
            FromClient::UploadAbort(UploadAbort { upload: long(65) }),
            too_long("upload", 65, 64),
        ),
    ];
    for (kind, error) in cases {
        assert_eq!(refuse_client(kind), error);
    }
}

/// What always fits: a body of the stated size, and every other field at its limit.
#[test]
fn overhead_is_enough() {
    let event = FromServer::Event(Event {
        subscription: u64::MAX,
        topic: "a".repeat(topic::BYTES_MAX),
        principal: "a".repeat(NAME_BYTES_MAX),
        content_type: "a".repeat(CONTENT_TYPE_BYTES_MAX),
        body: vec![0; BODY_BYTES_MAX].into(),
        lost: u64::MAX,
        message_id: "a".repeat(MESSAGE_ID_BYTES_MAX),
    });
    assert!(event.into_frame().len() - frame::HEADER_BYTES <= frame::PAYLOAD_BYTES_MAX as usize);
    let session = FromClient::SessionCall(SessionCall {
        id: u64::MAX,
        verb: 4,
        token: vec![0; TOKEN_BYTES_MAX].into(),
        content_type: "a".repeat(CONTENT_TYPE_BYTES_MAX),
        body: vec![0; BODY_BYTES_MAX].into(),
    });
    assert!(session.into_frame().len() - frame::HEADER_BYTES <= frame::PAYLOAD_BYTES_MAX as usize);
}

/// A4: same major, and a client's minor that the server knows.
#[test]
fn versions() {
    let version = |major, minor| Version { major, minor };
    for (server, client, serve) in [
        (version(1, 0), version(1, 0), true),
        (version(1, 2), version(1, 1), true),
        (version(1, 1), version(1, 2), false),
        (version(2, 0), version(1, 0), false),
        (version(1, 0), version(2, 0), false),
        (version(1, 0), version(0, 0), false),
    ] {
        assert_eq!(serves(server, client), serve, "{server} for {client}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever is decoded is within the limits, and can be said again.
    #[test]
    fn garbage_is_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        if let Ok(kind) = decode_client(bytes.clone()) {
            prop_assert_eq!(decode_client(payload(kind.clone().into_frame())), Ok(kind));
        }
        if let Ok(kind) = decode_server(bytes) {
            prop_assert_eq!(decode_server(payload(kind.clone().into_frame())), Ok(kind));
        }
    }

    /// The same with a good start, so that the decoder gets further.
    #[test]
    fn broken_messages_are_judged(member in 1u8..=9, inside in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = vec![member << 3 | 2, u8::try_from(inside.len()).unwrap()];
        bytes.extend_from_slice(&inside);
        if let Ok(kind) = decode_client(bytes.into()) {
            prop_assert_eq!(decode_client(payload(kind.clone().into_frame())), Ok(kind));
        }
    }
}
