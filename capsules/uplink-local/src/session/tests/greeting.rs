//! Who is there, and what may be said before that is known (A1, A2, K14).

use super::*;

/// A4: the versions are the server's, the principal the kernel's, the socket the one that accepted.
#[test]
fn hello_is_acknowledged() {
    for socket in [Socket::Operator, Socket::Session] {
        let mut talk = Talk::new(socket);
        let ack = envelope::HelloAck {
            major: 1,
            minor: envelope::VERSION.minor,
            server: SERVER.into(),
            principal: "default".into(),
            socket: socket.into(),
        };
        assert_eq!(talk.say([hello()]), [FromServer::HelloAck(ack)]);
        assert!(!talk.kernel.closed);
    }
}

/// A4: else HelloNack and close; the kernel is not even asked when the version is wrong.
#[test]
fn hello_is_refused() {
    let with = |major, minor, credential: &'static [u8]| {
        FromClient::Hello(Hello {
            major,
            minor,
            credential: credential.into(),
            client: String::new(),
            principal: None,
        })
    };
    for (hello, code, asked) in [
        (with(2, 0, TOKEN), codes::VERSION, 0),
        (with(0, 0, TOKEN), codes::VERSION, 0),
        (with(1, envelope::VERSION.minor + 1, TOKEN), codes::VERSION, 0),
        (with(1, 0, b"wrong"), codes::CREDENTIAL, 1),
    ] {
        let mut talk = Talk::new(Socket::Operator);
        let answers = talk.say([hello, publish(1, "a", "")]);
        assert!(matches!(answers[..], [FromServer::HelloNack(_)]));
        assert_eq!(codes_of(&answers), [(0, code)]);
        assert!(talk.kernel.closed && talk.kernel.told.is_empty());
        assert_eq!(talk.kernel.authenticated, asked);
        // Whatever comes now is not looked at.
        assert!(talk.say([self::hello()]).is_empty());
        assert!(talk.event("a", 0).is_empty());
        talk.session.ended(&mut talk.kernel);
    }
}

/// K14: a claim is answered by a challenge and proven before anything is done; what was sent early waits for that. One attempt.
#[test]
fn a_claim_is_proven() {
    let claim = |who: &str| {
        FromClient::Hello(Hello {
            major: 1,
            minor: 2,
            principal: Some(who.into()),
            credential: TOKEN.into(),
            ..Hello::default()
        })
    };
    let proof = |last: u8| {
        let mut signature = vec![0; 64];
        signature[63] = last;
        FromClient::Proof(envelope::Proof {
            public_key: [vec![1], vec![0; 31]].concat().into(),
            signature: signature.into(),
        })
    };
    let mut talk = Talk::new(Socket::Session);
    let answers = talk.say([claim("ann")]);
    assert!(matches!(&answers[..], [FromServer::Challenge(challenge)] if challenge.nonce == vec![7; 32]));
    assert_eq!(
        talk.kernel.authenticated, 0,
        "the token that came along is not looked at"
    );
    let answers = talk.say([proof(2), publish(1, "a", "")]);
    assert!(matches!(&answers[..], [FromServer::HelloAck(ack), FromServer::Done(_)] if ack.principal == "ann"));

    for (messages, code, asked) in [
        (vec![claim("ann"), proof(3), publish(1, "a", "")], codes::CREDENTIAL, 1),
        // Who has proven it is told why there is no place.
        (
            vec![claim("ann"), proof(4), publish(1, "a", "")],
            problems::QUOTA_EXCEEDED,
            1,
        ),
        (vec![claim("nobody"), proof(2)], codes::CREDENTIAL, 0),
        (vec![claim("ann"), publish(1, "a", "")], codes::PROTOCOL, 0),
        (vec![claim("ann"), self::hello()], codes::PROTOCOL, 0),
        (vec![proof(2)], codes::PROTOCOL, 0),
    ] {
        let mut talk = Talk::new(Socket::Session);
        let answers = talk.say(messages);
        assert_eq!(codes_of(&answers[answers.len() - 1..]), [(0, code)], "{answers:?}");
        assert!(talk.kernel.closed && talk.kernel.told.is_empty());
        assert_eq!(talk.kernel.authenticated, asked);
    }
    let mut talk = Talk::open(Socket::Session);
    let _ = talk.say([proof(2)]);
    assert!(talk.kernel.closed, "nobody asked for it");
}

/// An id makes of a publication one that happens once; the kernel knows which were there. An empty one is refused, and costs nothing else.
#[test]
fn an_id_goes_along() {
    let mut talk = Talk::open(Socket::Operator);
    let answers = talk.say([publish_once(1, "order-7"), publish_once(2, ""), publish(3, "b", "x")]);
    assert!(
        matches!(&answers[..], [FromServer::Done(one), FromServer::Problem(two), FromServer::Done(three)]
        if one.id == 1 && two.id == 2 && two.code == problems::INVALID && three.id == 3)
    );
    let told = [
        Told::Once("order-7".into(), "a".into(), Vec::new()),
        Told::Published("b".into(), b"x".to_vec()),
    ];
    assert_eq!(talk.kernel.told, told);
    // 1 to 128 bytes; more is no envelope.
    let mut talk = Talk::open(Socket::Operator);
    talk.say([publish_once(1, &"x".repeat(128))]);
    assert!(!talk.kernel.closed);
    talk.say([publish_once(1, &"x".repeat(129))]);
    assert!(talk.kernel.closed);
}

/// A4: nothing before Hello, and newline JSON is refused. A3: handshake frames are small, lengths are judged first.
#[test]
fn anything_else_before_hello_ends_it() {
    let large = FromClient::Hello(Hello {
        client: "x".repeat(70_000),
        ..Hello::default()
    })
    .into_frame();
    let cases: [Vec<u8>; 8] = [
        publish(1, "a", "b").into_frame(),
        FromClient::UploadBegin(UploadBegin {
            upload: "u".into(),
            size: 1,
            blake3: vec![0; 32].into(),
        })
        .into_frame(),
        b"{\"type\":\"hello\",\"major\":1}\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0, 0, 0, 0],
        vec![0xff; 4],
        frame::encode(b"\xff\xff\xff\xff"),
        large,
    ];
    for bytes in cases {
        let mut talk = Talk::new(Socket::Session);
        assert_eq!(codes_of(&talk.bytes(&bytes)), [(0, codes::PROTOCOL)]);
        assert!(talk.kernel.closed && talk.kernel.told.is_empty());
        assert_eq!(talk.kernel.authenticated, 0);
    }
}

/// A3, A5: any framing or parse error closes, after Hello as well; what came before it was done.
#[test]
fn broken_frames_end_it() {
    let long = publish(1, &"a".repeat(256), "").into_frame();
    let cases: [Vec<u8>; 6] = [
        vec![0, 0, 0, 0],
        (16 * 1024 * 1024 + 1u32).to_be_bytes().to_vec(),
        u32::MAX.to_be_bytes().to_vec(),
        frame::encode(b"\x07garbage"),
        long,
        hello().into_frame(),
    ];
    for bytes in cases {
        let mut talk = Talk::open(Socket::Operator);
        let answers = talk.bytes(
            &[
                publish(7, "a", "b").into_frame(),
                bytes,
                publish(8, "a", "b").into_frame(),
            ]
            .concat(),
        );
        assert_eq!(answers[0], done(7));
        assert!(matches!(answers[1], FromServer::Goodbye(_)));
        assert_eq!(codes_of(&answers[1..]), [(0, codes::PROTOCOL)]);
        assert!(talk.kernel.closed);
        assert_eq!(talk.kernel.told.len(), 1);
    }
}

/// A client may send on without waiting; frames after Hello may be large, also in the piece that brought it.
#[test]
fn what_follows_hello_is_taken() {
    let mut talk = Talk::new(Socket::Operator);
    let body: &'static str = "x".repeat(1 << 20).leak();
    let answers = talk.say([hello(), publish(1, "a.b", body)]);
    assert!(matches!(answers[0], FromServer::HelloAck(_)));
    assert_eq!(answers[1..], [done(1)]);
    assert_eq!(talk.kernel.told, [Told::Published("a.b".into(), body.into())]);
}
