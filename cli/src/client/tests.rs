//! The client against a server that says what a test tells it to.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use astrid_wire::envelope::{Done, Event, Goodbye, HelloAck, HelloNack, Problem, Response, UploadState, decode_client};

use super::*;
use crate::failure::Report;

/// A home in which something listens. Dropping it waits for the server, so that its assertions count.
struct Served {
    home: Home,
    _directory: tempfile::TempDir,
    server: Option<JoinHandle<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && let Err(panic) = server.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The server's side of a conversation.
struct Server {
    stream: UnixStream,
    decoder: FrameDecoder,
}

impl Server {
    fn hear(&mut self) -> FromClient {
        let mut buffer = [0; 4096];
        loop {
            if let Some(payload) = self.decoder.next().unwrap() {
                return decode_client(payload).unwrap();
            }
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the client left");
            self.decoder.push(&buffer[..read]);
        }
    }

    fn say(&mut self, frame: FromServer) {
        self.stream.write_all(&frame.into_frame()).unwrap();
    }

    /// Takes the greeting.
    fn greet(&mut self) {
        let FromClient::Hello(hello) = self.hear() else {
            panic!("no greeting")
        };
        assert_eq!(hello.credential.as_ref(), b"token");
        self.decoder.set_limit(PAYLOAD_BYTES_MAX);
        let envelope::Version { major, minor } = VERSION;
        self.say(FromServer::HelloAck(HelloAck {
            major,
            minor,
            server: "test".into(),
            principal: "default".into(),
            socket: 1,
        }));
    }
}

fn serve(script: impl FnOnce(&mut Server) + Send + 'static) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let home = daemon::home(Some(directory.path())).unwrap();
    std::fs::create_dir(directory.path().join("run")).unwrap();
    std::fs::write(home.token_file(), "token").unwrap();
    let listener = UnixListener::bind(daemon::operator_socket(&home)).unwrap();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        script(&mut Server {
            stream,
            decoder: FrameDecoder::new(),
        });
    });
    Served {
        home,
        _directory: directory,
        server: Some(server),
    }
}

fn topic() -> Topic {
    "a.v1.b".parse().unwrap()
}

fn body(bytes: &[u8]) -> Body {
    Body {
        bytes: bytes.to_vec(),
        content_type: "text/plain".into(),
    }
}

fn exit<T>(result: anyhow::Result<T>) -> u8 {
    Report::of(&result.err().unwrap()).exit
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_answer_is_told_from_events_and_other_answers() {
    let served = serve(|server| {
        server.greet();
        let FromClient::Request(request) = server.hear() else {
            panic!("no request")
        };
        assert_eq!((request.topic.as_str(), request.timeout_ms), ("a.v1.b", 1000));
        server.say(FromServer::Event(Event {
            topic: "x".into(),
            ..Event::default()
        }));
        server.say(FromServer::Response(Response {
            id: request.id + 1,
            body: b"other".as_slice().into(),
            ..Response::default()
        }));
        server.say(FromServer::Response(Response {
            id: request.id,
            content_type: "text/plain".into(),
            body: b"mine".as_slice().into(),
        }));
    });
    let answer = Client::connect(&served.home, None)
        .unwrap()
        .request(&topic(), body(b"hi"), SECOND)
        .unwrap();
    assert_eq!(answer.body, b"mine");
}

/// A refusal's code decides the exit code, and its hint is kept.
#[test]
fn refusals_are_failures() {
    let served = serve(|server| {
        server.greet();
        let FromClient::Publish(publish) = server.hear() else {
            panic!("nothing published")
        };
        server.say(FromServer::Problem(Problem {
            id: publish.id,
            code: "denied".into(),
            message: "no".into(),
            hint: "ask".into(),
            upload: String::new(),
        }));
    });
    let error = Client::connect(&served.home, None)
        .unwrap()
        .publish(&topic(), body(b""), None)
        .unwrap_err();
    let report = Report::of(&error);
    assert_eq!(
        (report.exit, report.hint.as_deref(), report.problem.as_deref()),
        (4, Some("ask"), Some("denied"))
    );
}

#[test]
fn a_refused_greeting_is_denied() {
    let served = serve(|server| {
        server.hear();
        server.say(FromServer::HelloNack(HelloNack {
            code: "CREDENTIAL".into(),
            message: "no".into(),
        }));
    });
    assert_eq!(exit(Client::connect(&served.home, None)), 4);
}

#[test]
fn the_end_of_a_conversation_has_a_reason() {
    let served = serve(|server| {
        server.greet();
        server.hear();
        server.say(FromServer::Goodbye(Goodbye {
            code: "PROTOCOL".into(),
            message: "not now".into(),
        }));
    });
    let mut client = Client::connect(&served.home, None).unwrap();
    let error = client.request(&topic(), body(b""), SECOND).unwrap_err();
    assert_eq!((Report::of(&error).exit, error.to_string().as_str()), (1, "not now"));

    let served = serve(Server::greet);
    let mut client = Client::connect(&served.home, None).unwrap();
    assert_eq!(exit(client.request(&topic(), body(b""), SECOND)), 3);
}

#[test]
fn what_does_not_answer_times_out() {
    let served = serve(|server| {
        server.greet();
        server.hear();
        // Silent until the client leaves.
        assert_eq!(server.stream.read(&mut [0; 1]).unwrap(), 0);
    });
    let mut client = Client::connect(&served.home, None).unwrap();
    assert_eq!(exit(client.request(&topic(), body(b""), Duration::ZERO)), 124);
}

#[test]
fn broken_frames_are_an_error() {
    let served = serve(|server| {
        server.greet();
        server.hear();
        server.stream.write_all(&[0xff; 8]).unwrap();
    });
    let mut client = Client::connect(&served.home, None).unwrap();
    assert_eq!(exit(client.request(&topic(), body(b""), SECOND)), 1);
}

/// A3: what does not fit a frame is uploaded in chunks, as far as there is credit, and goes on where the server is.
#[test]
fn large_bodies_are_uploaded() {
    let large: Vec<u8> = (0..INLINE_BYTES_MAX + 1)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect();
    let expected = large.clone();
    let served = serve(move |server| {
        server.greet();
        let FromClient::UploadBegin(begin) = server.hear() else {
            panic!("no upload")
        };
        assert_eq!(begin.blake3.as_ref(), blake3::hash(&expected).as_bytes());
        let upload = begin.upload;
        let mut got = Vec::new();
        // Once there is no credit at all.
        server.say(FromServer::UploadState(UploadState {
            upload: upload.clone(),
            received: 0,
            credit: 0,
        }));
        while got.len() as u64 != begin.size {
            let credit = (begin.size - got.len() as u64).min(5 << 20);
            let received = got.len() as u64;
            server.say(FromServer::UploadState(UploadState {
                upload: upload.clone(),
                received,
                credit,
            }));
            let FromClient::UploadChunk(chunk) = server.hear() else {
                panic!("no chunk")
            };
            assert_eq!(chunk.offset, received);
            assert!(chunk.data.len() <= CHUNK_BYTES_MAX && chunk.data.len() as u64 <= credit);
            got.extend_from_slice(&chunk.data);
        }
        assert_eq!(got, expected);
        server.say(FromServer::UploadState(UploadState {
            upload: upload.clone(),
            received: begin.size,
            credit: 0,
        }));
        let FromClient::Publish(publish) = server.hear() else {
            panic!("nothing published")
        };
        assert_eq!(publish.content, Some(envelope::publish::Content::Upload(upload)));
        server.say(FromServer::Done(Done { id: publish.id }));
    });
    Client::connect(&served.home, None)
        .unwrap()
        .publish(&topic(), body(&large), None)
        .unwrap();
}

/// 3: nothing there; a socket that nobody serves; a socket without a token.
#[test]
fn what_is_not_there_is_not_reachable() {
    let directory = tempfile::tempdir().unwrap();
    let home = daemon::home(Some(directory.path())).unwrap();
    assert_eq!(exit(Client::connect(&home, None)), 3);
    std::fs::create_dir(directory.path().join("run")).unwrap();
    let listener = UnixListener::bind(daemon::operator_socket(&home)).unwrap();
    assert_eq!(exit(Client::connect(&home, None)), 3);
    drop(listener);
    assert_eq!(exit(Client::connect(&home, None)), 3);
}
