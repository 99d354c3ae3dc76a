//! The sockets of the built binary, spoken to byte by byte: what a client may say, when, and on which of them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use astrid_tests::daemon::Astrid;
use astrid_wire::envelope::{self, FromClient, FromServer, VERSION, publish, request};
use astrid_wire::frame::{self, FrameDecoder};

/// How long a socket may be silent before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Client {
    fn connect(astrid: &Astrid, socket: &str) -> Self {
        let stream = UnixStream::connect(astrid.home().join("run").join(socket)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            decoder: FrameDecoder::new(),
        }
    }

    fn open(astrid: &Astrid, socket: &str) -> Self {
        let mut client = Self::connect(astrid, socket);
        let ack = client.hello(1, 0, token(astrid).as_bytes());
        assert!(matches!(ack, Some(FromServer::HelloAck(_))), "{ack:?}");
        client
    }

    fn hello(&mut self, major: u32, minor: u32, credential: &[u8]) -> Option<FromServer> {
        self.say(FromClient::Hello(envelope::Hello {
            major,
            minor,
            credential: credential.to_vec().into(),
            client: "test".into(),
            principal: None,
        }))
    }

    fn say(&mut self, what: FromClient) -> Option<FromServer> {
        self.stream.write_all(&what.into_frame()).unwrap();
        self.hear()
    }

    /// The next frame; none when the daemon closed the connection.
    fn hear(&mut self) -> Option<FromServer> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(payload) = self.decoder.next().unwrap() {
                return Some(envelope::decode_server(payload).unwrap());
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                n => self.decoder.push(&chunk[..n.unwrap()]),
            }
        }
    }

    fn publish(&mut self, topic: &str) -> Option<FromServer> {
        self.say(FromClient::Publish(envelope::Publish {
            id: 7,
            topic: topic.into(),
            content_type: "text/plain".into(),
            content: Some(publish::Content::Body("x".into())),
            message_id: None,
        }))
    }
}

fn token(astrid: &Astrid) -> String {
    let token = fs::read_to_string(astrid.home().join("run/token")).unwrap();
    token.trim().to_owned()
}

#[track_caller]
fn problem(answer: Option<FromServer>) -> String {
    match answer {
        Some(FromServer::Problem(problem)) => problem.code,
        other => panic!("no problem, but {other:?}"),
    }
}

/// A1, K14: modes of the sockets, their directory and the token.
#[test]
fn modes() {
    let astrid = Astrid::started();
    let mode = |path: &str| fs::metadata(astrid.home().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        ["run", "run/operator.sock", "run/session.sock", "run/token"].map(mode),
        [0o700, 0o600, 0o660, 0o600]
    );
    let _ = astrid.run(&["stop"]).ok();
    for left in ["operator.sock", "session.sock", "token", "pid", "ready", "status.json"] {
        assert!(!astrid.home().join("run").join(left).exists(), "{left} is left");
    }
}

/// A4: Hello first, the same major, a minor that the server has, JSON refused. Each ends the connection.
#[test]
fn hello_comes_first() {
    let astrid = Astrid::started();
    let mut early = Client::connect(&astrid, "operator.sock");
    let answer = early.publish("a.v1.b");
    assert!(
        matches!(answer, None | Some(FromServer::HelloNack(_) | FromServer::Goodbye(_))),
        "{answer:?}"
    );
    for (major, minor) in [(2, 0), (0, 0), (1, VERSION.minor + 1)] {
        let mut client = Client::connect(&astrid, "operator.sock");
        let nack = client.hello(major, minor, token(&astrid).as_bytes());
        assert!(matches!(nack, Some(FromServer::HelloNack(_))), "{nack:?}");
        assert!(client.hear().is_none(), "and the connection is closed");
    }
    let mut json = Client::connect(&astrid, "operator.sock");
    json.stream.write_all(b"{\"hello\": 1}\n").unwrap();
    while let Some(answer) = json.hear() {
        assert!(!matches!(answer, FromServer::HelloAck(_)), "{answer:?}");
    }
}

/// K14: a wrong credential is refused on both sockets; none at all is refused on the operator socket, and anonymous on the
/// other, where it may do nothing.
#[test]
fn credentials() {
    let astrid = Astrid::started();
    let mut wrong = token(&astrid).into_bytes();
    wrong[0] ^= 1;
    for (socket, credential) in [
        ("operator.sock", &wrong[..]),
        ("session.sock", &wrong),
        ("operator.sock", b""),
    ] {
        let nack = Client::connect(&astrid, socket).hello(1, 0, credential);
        assert!(matches!(nack, Some(FromServer::HelloNack(_))), "{socket}: {nack:?}");
    }
    let mut anonymous = Client::connect(&astrid, "session.sock");
    match anonymous.hello(1, 0, b"") {
        Some(FromServer::HelloAck(ack)) => assert_eq!(ack.principal, "anonymous"),
        other => panic!("{other:?}"),
    }
    let refused = problem(anonymous.publish("a.v1.b"));
    assert!(["denied", "PERMISSION_DENIED"].contains(&refused.as_str()), "{refused}");
}

/// A2: privilege is the accepting socket's, whatever the credential.
#[test]
fn privilege() {
    let astrid = Astrid::started();
    let ask = |client: &mut Client, topic: &str| {
        client.say(FromClient::Request(envelope::Request {
            id: 9,
            topic: topic.into(),
            content_type: "application/json".into(),
            timeout_ms: 5_000,
            content: Some(request::Content::Body("{}".into())),
        }))
    };
    let mut session = Client::open(&astrid, "session.sock");
    for verb in [
        "shutdown",
        "backup",
        "dead.list",
        "dead.show",
        "dead.retry",
        "dead.drop",
    ] {
        let answer = ask(&mut session, &format!("astrid.v1.request.{verb}"));
        assert_eq!(problem(answer), envelope::codes::PERMISSION_DENIED, "{verb}");
    }
    for topic in [
        "port.v1.stream.data",
        "lifecycle.v1.started",
        "dead.v1.x",
        "astrid.v1.shutdown",
    ] {
        let code = problem(session.publish(topic));
        assert!(
            ["denied", "PERMISSION_DENIED"].contains(&code.as_str()),
            "{topic}: {code}"
        );
    }
    let call = |client: &mut Client| {
        client.say(FromClient::SessionCall(envelope::SessionCall {
            id: 3,
            verb: envelope::SessionVerb::EmitEvent.into(),
            ..Default::default()
        }))
    };
    assert_eq!(problem(call(&mut session)), envelope::codes::SESSION_ERROR_INVALID);
    let mut operator = Client::open(&astrid, "operator.sock");
    assert_eq!(
        problem(call(&mut operator)),
        envelope::codes::SESSION_ERROR_PERMISSION_DENIED
    );
    let shutdown = ask(&mut operator, "astrid.v1.request.shutdown");
    assert!(matches!(shutdown, Some(FromServer::Response(_))), "{shutdown:?}");
}

/// A3: a length over the limit ends the connection before anything is allocated for it; so does a frame of no bytes.
#[test]
fn framing() {
    let astrid = Astrid::started();
    for hostile in [u32::MAX, frame::PAYLOAD_BYTES_MAX + 1, 0] {
        let mut client = Client::open(&astrid, "operator.sock");
        client.stream.write_all(&hostile.to_be_bytes()).unwrap();
        while let Some(answer) = client.hear() {
            assert!(matches!(answer, FromServer::Goodbye(_)), "{answer:?}");
        }
    }
    // Before Hello the limit is 64 KiB.
    let mut stranger = Client::connect(&astrid, "session.sock");
    stranger
        .stream
        .write_all(&(frame::HANDSHAKE_BYTES_MAX + 1).to_be_bytes())
        .unwrap();
    while let Some(answer) = stranger.hear() {
        assert!(!matches!(answer, FromServer::HelloAck(_)), "{answer:?}");
    }
    // One byte at a time is as good as all at once.
    let mut slow = Client::connect(&astrid, "operator.sock");
    let hello = envelope::Hello {
        major: 1,
        minor: 0,
        credential: token(&astrid).into_bytes().into(),
        client: String::new(),
        principal: None,
    };
    for byte in FromClient::Hello(hello).into_frame() {
        slow.stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(slow.hear(), Some(FromServer::HelloAck(_))));
}

/// K14: who does not complete the handshake in five seconds is closed, whether it says nothing or half of something.
#[test]
fn handshake_timer() {
    let astrid = Astrid::started();
    let began = Instant::now();
    let mut silent = Client::connect(&astrid, "session.sock");
    let mut halting = Client::connect(&astrid, "operator.sock");
    halting.stream.write_all(&[0, 0, 0]).unwrap();
    assert!(silent.hear().is_none() && halting.hear().is_none());
    assert!(
        began.elapsed() >= Duration::from_secs(4),
        "too early: {:?}",
        began.elapsed()
    );
    // Who completed it stays.
    let mut open = Client::open(&astrid, "operator.sock");
    assert!(open.publish("a.v1.b").is_some());
}

/// A3: a hundred connections a socket; one that goes gives its place back.
#[test]
fn caps() {
    let astrid = Astrid::started();
    let mut open: Vec<Client> = (0..100).map(|_| Client::open(&astrid, "operator.sock")).collect();
    let mut over = Client::connect(&astrid, "operator.sock");
    assert!(over.hear().is_none(), "the hundred and first is turned away");
    // The other socket has places of its own.
    let _session = Client::open(&astrid, "session.sock");
    open.clear();
    let ended = Instant::now();
    while astrid.run(&["publish", "a.v1.b", "x"]).code() != 0 {
        assert!(ended.elapsed() < PATIENCE, "no place comes back");
    }
}
