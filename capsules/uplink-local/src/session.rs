//! The protocol of one connection: bytes and messages in, calls to the kernel and frames out.
//!
//! [`Session`] is told what happens ([`Session::data`], [`Session::event`], [`Session::outcome`], [`Session::ended`]) and acts through
//! [`Kernel`], so it knows neither WebAssembly nor the SDK and is tested without them. The rules, in the order in which a connection
//! meets them:
//!
//! 1. Frames (A3) and one envelope in each (A5); anything else ends the connection.
//! 2. Hello first (A4): version, then credential, or a claim and its proof (K14). Privilege is the socket's (A2), the principal the kernel's.
//! 3. Then requests, publications, subscriptions and uploads, each bounded, each answered once.
//!
//! Deliberately absent: any decision about who may do what. The kernel refuses, and the session puts it into the client's words.

use astrid_wire::Problem;
use astrid_wire::envelope::{self, FromClient, FromServer, Socket, Version, codes, publish, request};
use astrid_wire::frame::{FrameDecoder, PAYLOAD_BYTES_MAX};
use astrid_wire::problem::codes as problems;
use bytes::Bytes;

use crate::subscriptions::Subscriptions;
use crate::uploads::{Standing, Uploads};

/// Requests that wait for an answer at most.
pub const REQUESTS_MAX: usize = 64;

/// Messages said for one piece of the stream at most. The kernel takes 1,024 commands of one handling; this leaves some for
/// writing.
pub const SAID_MAX: usize = 1000;

/// Frames are collected up to here before they are written, so that a piece with many small messages costs one write.
const WRITE_BYTES: usize = 256 << 10;

/// How long a request may wait at most, as the kernel has it.
const TIMEOUT_MS_MAX: u32 = 600_000;

/// What the session calls itself.
pub const SERVER: &str = concat!("uplink-local/", env!("CARGO_PKG_VERSION"));

/// Identity of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AskId {
    /// Boot of the daemon.
    pub boot: u64,
    /// Number of the message whose handling asked.
    pub sequence: u64,
    /// Place among the commands of that handling.
    pub ordinal: u32,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Where.
    pub topic: &'a str,
    /// Media type of the body.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// A message that a subscription of the connection brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its identity.
    pub id: String,
    /// Where it was published.
    pub topic: String,
    /// On whose behalf.
    pub principal: String,
    /// Media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// Messages that were dropped from the queue before this one.
    pub lost: u32,
}

/// What came of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answer {
        /// Media type of the body.
        content_type: String,
        /// The body.
        body: Bytes,
    },
    /// It was refused.
    Refused(Problem),
    /// No answer in time.
    TimedOut,
}

/// The client does not take what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What a session needs of the kernel. Refusals come as problems; one of the gate has the code `denied`.
pub trait Kernel {
    /// The peer claims to be somebody: what it must sign.
    fn challenge(&mut self, claim: &str) -> Option<Vec<u8>>;
    /// Presents the credential; the principal on success.
    ///
    /// # Errors
    /// It is not accepted, or it is and there is no place for whom it shows: why.
    fn authenticate(&mut self, credential: &[u8]) -> Result<String, Option<Problem>>;
    /// Publishes.
    ///
    /// # Errors
    /// Refused.
    fn publish(&mut self, said: Said<'_>) -> Result<(), Problem>;
    /// Publishes, if this principal has published nothing under that id lately; else this does nothing, and succeeds.
    ///
    /// # Errors
    /// Refused.
    fn publish_once(&mut self, id: &str, said: Said<'_>) -> Result<(), Problem>;
    /// Asks. The outcome comes to [`Session::outcome`].
    ///
    /// # Errors
    /// Refused.
    fn ask(&mut self, said: Said<'_>, timeout_ms: Option<u32>) -> Result<AskId, Problem>;
    /// Subscribes the connection. Once for each pattern.
    ///
    /// # Errors
    /// Refused.
    fn subscribe(&mut self, pattern: &str) -> Result<(), Problem>;
    /// Ends that.
    fn unsubscribe(&mut self, pattern: &str);
    /// Writes to the client.
    ///
    /// # Errors
    /// The client does not read.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Full>;
    /// Closes the connection once what was written has left.
    fn close(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing but Hello.
    Hello,
    /// Nothing but the proof of what Hello claimed.
    Proof,
    /// Everything.
    Open,
    /// The client sends no more; it is closed when the last request is answered.
    Draining,
    /// Nothing any more.
    Closed,
}

/// Why a conversation ends: a code of [`codes`], or of a problem of the kernel's, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    code: String,
    message: String,
}

impl End {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn protocol(message: impl Into<String>) -> Self {
        Self::new(codes::PROTOCOL, message)
    }
}

/// The conversation with one client.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    phase: Phase,
    decoder: FrameDecoder,
    /// Asks of the client that wait, with its ids.
    waiting: Vec<(AskId, u64)>,
    subscriptions: Subscriptions,
    uploads: Uploads,
    /// Frames to be written at the end of this handling.
    out: Vec<u8>,
    /// Messages said in this handling.
    said: usize,
    /// Events that were dropped since the last one that was written.
    lost: u64,
}

impl Session {
    /// A conversation that has not begun, on a connection of this socket.
    #[must_use]
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            phase: Phase::Hello,
            decoder: FrameDecoder::new(),
            waiting: Vec::new(),
            subscriptions: Subscriptions::default(),
            uploads: Uploads::default(),
            out: Vec::new(),
            said: 0,
            lost: 0,
        }
    }

    /// The client sent bytes.
    pub fn data(&mut self, kernel: &mut impl Kernel, bytes: &[u8]) {
        if matches!(self.phase, Phase::Draining | Phase::Closed) {
            return;
        }
        self.said = 0;
        self.decoder.push(bytes);
        if let Err(end) = self.frames(kernel) {
            self.end(kernel, end);
        }
        self.flush(kernel);
    }

    /// The client sends no more. What it asked is still answered.
    pub fn ended(&mut self, kernel: &mut impl Kernel) {
        if self.phase == Phase::Open && !self.decoder.is_mid_frame() && !self.waiting.is_empty() {
            self.phase = Phase::Draining;
            return;
        }
        self.close(kernel);
    }

    /// A subscription brought a message.
    pub fn event(&mut self, kernel: &mut impl Kernel, event: Event) {
        if self.phase != Phase::Open {
            return;
        }
        self.lost += u64::from(event.lost);
        if event.body.len() > envelope::BODY_BYTES_MAX {
            self.lost += 1;
            return;
        }
        for subscription in self.subscriptions.matching(&event.topic) {
            let frame = FromServer::Event(envelope::Event {
                subscription,
                topic: event.topic.clone(),
                principal: event.principal.clone(),
                content_type: event.content_type.clone(),
                body: event.body.clone(),
                lost: self.lost,
                message_id: event.id.clone(),
            });
            match kernel.write(&frame.into_frame()) {
                Ok(()) => self.lost = 0,
                Err(Full) => self.lost += 1,
            }
        }
    }

    /// An ask has come to its end.
    pub fn outcome(&mut self, kernel: &mut impl Kernel, ask: AskId, outcome: Outcome) {
        let Some(place) = self.waiting.iter().position(|(waiting, _)| *waiting == ask) else {
            return;
        };
        let (_, id) = self.waiting.swap_remove(place);
        match outcome {
            Outcome::Answer { body, .. } if body.len() > envelope::BODY_BYTES_MAX => {
                let text = format!(
                    "an answer of {} bytes; a frame holds {}",
                    body.len(),
                    envelope::BODY_BYTES_MAX
                );
                self.refuse(kernel, id, &Problem::new(problems::TOO_LARGE, text));
            }
            Outcome::Answer { content_type, body } => {
                self.send(
                    kernel,
                    FromServer::Response(envelope::Response { id, content_type, body }),
                );
            }
            Outcome::Refused(problem) => self.send(kernel, envelope::Problem::of(id, &problem).into()),
            Outcome::TimedOut => self.refuse(kernel, id, &Problem::new(problems::TIMEOUT, "no answer in time")),
        }
        self.flush(kernel);
        if self.phase == Phase::Draining && self.waiting.is_empty() {
            self.close(kernel);
        }
    }

    fn frames(&mut self, kernel: &mut impl Kernel) -> Result<(), End> {
        while let Some(payload) = self.decoder.next().map_err(|error| End::protocol(error.to_string()))? {
            let message = envelope::decode_client(payload).map_err(|error| End::protocol(error.to_string()))?;
            match self.phase {
                Phase::Hello => self.hello(kernel, message)?,
                Phase::Proof => self.proof(kernel, message)?,
                Phase::Open => self.message(kernel, message)?,
                Phase::Draining | Phase::Closed => break,
            }
        }
        Ok(())
    }

    /// A4: nothing before Hello, a version that is served, and a credential that the kernel takes.
    fn hello(&mut self, kernel: &mut impl Kernel, message: FromClient) -> Result<(), End> {
        let FromClient::Hello(hello) = message else {
            return Err(End::protocol("the first message is not a hello"));
        };
        let (server, client) = (
            envelope::VERSION,
            Version {
                major: hello.major,
                minor: hello.minor,
            },
        );
        if !envelope::serves(server, client) {
            return Err(End::new(
                codes::VERSION,
                format!("this server speaks {server}, the client {client}"),
            ));
        }
        if let Some(claim) = &hello.principal {
            let nonce = kernel
                .challenge(claim)
                .ok_or_else(|| End::new(codes::CREDENTIAL, "no claim is accepted on this socket"))?;
            self.phase = Phase::Proof;
            self.send(
                kernel,
                FromServer::Challenge(envelope::Challenge { nonce: nonce.into() }),
            );
            return Ok(());
        }
        self.open(kernel, &hello.credential)
    }

    /// K14: a claim is proven before anything else.
    fn proof(&mut self, kernel: &mut impl Kernel, message: FromClient) -> Result<(), End> {
        let FromClient::Proof(proof) = message else {
            return Err(End::protocol("the challenge is not answered by a proof"));
        };
        self.open(kernel, &[proof.public_key, proof.signature].concat())
    }

    fn open(&mut self, kernel: &mut impl Kernel, credential: &[u8]) -> Result<(), End> {
        let server = envelope::VERSION;
        let principal = kernel.authenticate(credential).map_err(|why| match why {
            Some(problem) => End::new(problem.code(), problem.message()),
            None => End::new(codes::CREDENTIAL, "the credential is not accepted on this socket"),
        })?;
        self.phase = Phase::Open;
        self.decoder.set_limit(PAYLOAD_BYTES_MAX);
        let ack = envelope::HelloAck {
            major: server.major,
            minor: server.minor,
            server: SERVER.to_owned(),
            principal,
            socket: self.socket.into(),
        };
        self.send(kernel, FromServer::HelloAck(ack));
        Ok(())
    }

    fn message(&mut self, kernel: &mut impl Kernel, message: FromClient) -> Result<(), End> {
        match message {
            FromClient::Hello(_) => return Err(End::protocol("a second hello")),
            FromClient::Proof(_) => return Err(End::protocol("a proof that nobody asked for")),
            FromClient::Publish(publish) => self.publish(kernel, publish)?,
            FromClient::Request(request) => self.request(kernel, request)?,
            FromClient::Subscribe(subscribe) => self.subscribe(kernel, &subscribe)?,
            FromClient::Unsubscribe(envelope::Unsubscribe { id }) => {
                self.check_id(id)?;
                if let Some(pattern) = self.subscriptions.remove(id) {
                    kernel.unsubscribe(pattern.as_str());
                }
                self.send(kernel, done(id));
            }
            FromClient::SessionCall(call) => self.session_call(kernel, &call)?,
            FromClient::UploadBegin(begin) => {
                let standing = self.uploads.begin(&begin.upload, begin.size, &begin.blake3);
                self.tell_standing(kernel, begin.upload, standing);
            }
            FromClient::UploadChunk(chunk) => {
                let standing = self.uploads.chunk(&chunk.upload, chunk.offset, &chunk.data);
                self.tell_standing(kernel, chunk.upload, standing);
            }
            FromClient::UploadAbort(abort) => self.uploads.remove(&abort.upload),
        }
        Ok(())
    }

    fn publish(&mut self, kernel: &mut impl Kernel, publish: envelope::Publish) -> Result<(), End> {
        self.check_id(publish.id)?;
        let (body, upload) = match publish.content {
            None => (Bytes::new(), None),
            Some(publish::Content::Body(body)) => (body, None),
            Some(publish::Content::Upload(upload)) => (Bytes::new(), Some(upload)),
        };
        if publish.message_id.as_deref() == Some("") {
            let problem = Problem::new(problems::INVALID, "the id of a message is empty")
                .with_hint("give it 1 to 128 bytes, or none");
            self.refuse(kernel, publish.id, &problem);
            return Ok(());
        }
        let published = self.say(upload.as_deref(), &body, |body| {
            let said = Said {
                topic: &publish.topic,
                content_type: &publish.content_type,
                body,
            };
            match &publish.message_id {
                Some(id) => kernel.publish_once(id, said),
                None => kernel.publish(said),
            }
        });
        match published {
            Ok(()) => self.send(kernel, done(publish.id)),
            Err(problem) => self.refuse(kernel, publish.id, &problem),
        }
        Ok(())
    }

    fn request(&mut self, kernel: &mut impl Kernel, request: envelope::Request) -> Result<(), End> {
        self.check_id(request.id)?;
        if self.waiting.len() >= REQUESTS_MAX {
            let problem = Problem::new(
                problems::TOO_MANY,
                format!("{REQUESTS_MAX} requests wait for an answer, the limit"),
            );
            self.refuse(kernel, request.id, &problem);
            return Ok(());
        }
        let (body, upload) = match request.content {
            None => (Bytes::new(), None),
            Some(request::Content::Body(body)) => (body, None),
            Some(request::Content::Upload(upload)) => (Bytes::new(), Some(upload)),
        };
        let timeout_ms = (request.timeout_ms > 0).then(|| request.timeout_ms.min(TIMEOUT_MS_MAX));
        let asked = self.say(upload.as_deref(), &body, |body| {
            kernel.ask(
                Said {
                    topic: &request.topic,
                    content_type: &request.content_type,
                    body,
                },
                timeout_ms,
            )
        });
        match asked {
            Ok(ask) => self.waiting.push((ask, request.id)),
            Err(problem) => self.refuse(kernel, request.id, &problem),
        }
        Ok(())
    }

    /// Says something with the body it came with or an upload, which is used up if that succeeds.
    fn say<T>(
        &mut self,
        upload: Option<&str>,
        body: &[u8],
        say: impl FnOnce(&[u8]) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.said >= SAID_MAX {
            let text = format!("more than {SAID_MAX} messages at once");
            return Err(Problem::new(problems::TOO_MANY, text).with_hint("wait for answers before sending more"));
        }
        let said = match upload {
            None => say(body)?,
            Some(upload) => say(self.uploads.body(upload)?)?,
        };
        self.said += 1;
        if let Some(upload) = upload {
            self.uploads.remove(upload);
        }
        Ok(said)
    }

    fn subscribe(&mut self, kernel: &mut impl Kernel, subscribe: &envelope::Subscribe) -> Result<(), End> {
        self.check_id(subscribe.id)?;
        let subscribed = self
            .subscriptions
            .add(subscribe.id, &subscribe.pattern, |pattern| kernel.subscribe(pattern));
        match subscribed {
            Ok(()) => self.send(kernel, done(subscribe.id)),
            Err(problem) => self.refuse(kernel, subscribe.id, &problem),
        }
        Ok(())
    }

    /// A2 and A7: not here for operators, and never with a token, as nothing gives any out.
    fn session_call(&mut self, kernel: &mut impl Kernel, call: &envelope::SessionCall) -> Result<(), End> {
        self.check_id(call.id)?;
        let (code, message) = if self.socket == Socket::Operator {
            (
                codes::SESSION_ERROR_PERMISSION_DENIED,
                "session verbs are refused on the operator socket",
            )
        } else {
            (codes::SESSION_ERROR_INVALID, "the session token is not valid")
        };
        let problem = envelope::Problem {
            id: call.id,
            code: code.into(),
            message: message.into(),
            ..Default::default()
        };
        self.send(kernel, problem.into());
        Ok(())
    }

    fn tell_standing(&mut self, kernel: &mut impl Kernel, upload: String, standing: Result<Standing, Problem>) {
        let frame = match standing {
            Ok(Standing { received, credit }) => FromServer::UploadState(envelope::UploadState {
                upload,
                received,
                credit,
            }),
            Err(problem) => envelope::Problem {
                upload,
                ..envelope::Problem::of(0, &problem)
            }
            .into(),
        };
        self.send(kernel, frame);
    }

    /// An id names one thing at a time, or an answer could not be told from another.
    fn check_id(&self, id: u64) -> Result<(), End> {
        if id == 0 {
            return Err(End::protocol("ids are 1 and up"));
        }
        if self.waiting.iter().any(|(_, waiting)| *waiting == id) {
            return Err(End::protocol(format!("id {id} waits for its answer and is used again")));
        }
        Ok(())
    }

    /// Refuses what had this id. A refusal of the gate on the session socket is the protocol's own (A2).
    fn refuse(&mut self, kernel: &mut impl Kernel, id: u64, problem: &Problem) {
        let mut frame = envelope::Problem::of(id, problem);
        if problem.code() == problems::DENIED && self.socket == Socket::Session {
            codes::PERMISSION_DENIED.clone_into(&mut frame.code);
        }
        self.send(kernel, frame.into());
    }

    fn send(&mut self, kernel: &mut impl Kernel, frame: FromServer) {
        if self.phase == Phase::Closed {
            return;
        }
        self.out.append(&mut frame.into_frame());
        if self.out.len() >= WRITE_BYTES {
            self.flush(kernel);
        }
    }

    /// Writes what was collected. An answer that cannot be written ends the connection: the client would wait for it.
    fn flush(&mut self, kernel: &mut impl Kernel) {
        let out = std::mem::take(&mut self.out);
        if !out.is_empty() && kernel.write(&out).is_err() {
            self.close(kernel);
        }
    }

    fn end(&mut self, kernel: &mut impl Kernel, End { code, message }: End) {
        let frame = if matches!(self.phase, Phase::Hello | Phase::Proof) {
            FromServer::HelloNack(envelope::HelloNack { code, message })
        } else {
            FromServer::Goodbye(envelope::Goodbye { code, message })
        };
        self.send(kernel, frame);
        self.flush(kernel);
        self.close(kernel);
    }

    fn close(&mut self, kernel: &mut impl Kernel) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            kernel.close();
        }
    }
}

fn done(id: u64) -> FromServer {
    FromServer::Done(envelope::Done { id })
}

#[cfg(test)]
mod tests;
