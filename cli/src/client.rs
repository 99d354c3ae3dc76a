//! A conversation with a running daemon: its operator socket, the boot token, frames and the envelope (contracts A3-A5).
//!
//! One thing at a time, blocking: a command asks and waits. Every wait has an end, or is what the command is for
//! (`watch`), and then it also ends when nobody reads its output any more.

#![allow(clippy::disallowed_methods, reason = "reads the boot token")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use astrid_kernel::home::Socket;
use astrid_kernel::identity::{KeyPair, key_file};
use astrid_wire::envelope::{self, FromClient, FromServer, VERSION};
use astrid_wire::frame::{FrameDecoder, PAYLOAD_BYTES_MAX};
use astrid_wire::proof::NONCE_BYTES;
use astrid_wire::{Pattern, Principal, Topic};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::daemon::{self, Home};
use crate::failure::{Exit, Failure};
use crate::output::Closed;
use crate::process;

/// How long to wait for a place in the listener's queue, and for what needs no capsule to answer.
pub(crate) const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may take when nothing else was said.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How much longer than the daemon this side waits, so that the daemon's own word on the timeout arrives.
const GRACE: Duration = Duration::from_secs(2);

/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Bodies above this are uploaded: a frame must hold the rest of the envelope too.
const INLINE_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Most bytes of a chunk.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// The name of an upload; there is one at a time.
const UPLOAD: &str = "body";

/// An open, authenticated connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
    last_id: u64,
}

/// Who is at this end, if it is not the owner of the daemon.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Who.
    pub(crate) principal: Principal,
    /// Where its private key is, if that is not where the home keeps it.
    pub(crate) key: Option<PathBuf>,
}

impl Identity {
    fn key(&self, home: &Home) -> anyhow::Result<KeyPair> {
        let path = self.key.clone().unwrap_or_else(|| key_file(home, &self.principal));
        KeyPair::open(&path).map_err(|error| {
            let hint = error.hint();
            let failure = Failure::new(Exit::Denied, format!("there is no private key of {}", self.principal));
            failure.source(error).hint(hint).into()
        })
    }
}

/// What the owner of a daemon shows.
fn boot_token(home: &Home) -> anyhow::Result<Vec<u8>> {
    std::fs::read(home.token_file()).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Failure::new(Exit::Denied, format!("cannot read {}", home.token_file().display()))
                .source(error)
                .into()
        }
        _ => {
            let socket = daemon::operator_socket(home);
            let message = format!("{} answers, but there is no token for it", socket.display());
            Failure::unreachable(message).source(error).into()
        }
    })
}

/// An answer's body.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its media type.
    pub(crate) content_type: String,
    /// Its bytes.
    pub(crate) body: Vec<u8>,
}

/// How a wait ended.
enum Arrived {
    Frame(Box<FromServer>),
    TimedOut,
}

impl Client {
    /// Connects as the owner of this home's daemon, or as who that is.
    pub(crate) fn connect(home: &Home, identity: Option<&Identity>) -> anyhow::Result<Self> {
        Self::connect_within(home, identity, SERVER_TIMEOUT)
    }

    /// The same, with other patience.
    pub(crate) fn connect_within(home: &Home, identity: Option<&Identity>, timeout: Duration) -> anyhow::Result<Self> {
        // Before the daemon is bothered.
        let key = identity.map(|identity| identity.key(home)).transpose()?;
        let stream = dial(home, timeout)?;
        let credential = match identity {
            Some(_) => Vec::new(),
            None => boot_token(home)?,
        };
        let mut client = Self {
            stream,
            decoder: FrameDecoder::new(),
            last_id: 0,
        };
        client.send(FromClient::Hello(envelope::Hello {
            major: VERSION.major,
            minor: VERSION.minor,
            credential: credential.into(),
            client: concat!("astrid ", env!("CARGO_PKG_VERSION")).to_owned(),
            principal: identity.map(|identity| identity.principal.to_string()),
        }))?;
        let mut answer = client.receive_within(timeout)?;
        if let (FromServer::Challenge(challenge), Some((identity, key))) = (&answer, identity.zip(key)) {
            let nonce: [u8; NONCE_BYTES] = challenge.nonce[..].try_into().context("the challenge is not one")?;
            client.send(FromClient::Proof(envelope::Proof {
                public_key: key.public().0.to_vec().into(),
                signature: key.prove(Socket::Operator, &identity.principal, &nonce).to_vec().into(),
            }))?;
            answer = client.receive_within(timeout)?;
        }
        match answer {
            FromServer::HelloAck(_) => {
                client.decoder.set_limit(PAYLOAD_BYTES_MAX);
                Ok(client)
            }
            FromServer::HelloNack(nack) => {
                let failure = Failure::problem(&nack.code, &nack.message, "");
                Err(match identity {
                    // Any other code says itself what is the matter.
                    Some(identity) if nack.code == envelope::codes::CREDENTIAL => failure.hint(format!(
                        "see that the profile of {} has the key that `astrid keypair {}` prints",
                        identity.principal, identity.principal
                    )),
                    _ => failure,
                }
                .into())
            }
            _ => Err(Failure::failed("the daemon did not answer the greeting").into()),
        }
    }

    /// Publishes; returns once it was accepted. With an id, what was published under it lately is accepted and does not happen again.
    pub(crate) fn publish(&mut self, topic: &Topic, body: Body, message_id: Option<String>) -> anyhow::Result<()> {
        let content = match self.deposit(&body.bytes)? {
            true => envelope::publish::Content::Upload(UPLOAD.to_owned()),
            false => envelope::publish::Content::Body(body.bytes.into()),
        };
        let id = self.new_id();
        self.send(FromClient::Publish(envelope::Publish {
            id,
            topic: topic.to_string(),
            content_type: body.content_type,
            content: Some(content),
            message_id,
        }))?;
        self.done(id)
    }

    /// Says something without waiting for what comes of it. The number that [`Client::accepted`] gives then.
    pub(crate) fn publish_ahead(
        &mut self,
        topic: &Topic,
        body: Body,
        message_id: Option<String>,
    ) -> anyhow::Result<u64> {
        let id = self.new_id();
        self.send(FromClient::Publish(envelope::Publish {
            id,
            topic: topic.to_string(),
            content_type: body.content_type,
            content: Some(envelope::publish::Content::Body(body.bytes.into())),
            message_id,
        }))?;
        Ok(id)
    }

    /// What came of something that was published ahead: its number, and why it was refused if it was. None when there is nothing yet;
    /// with a deadline, that is waited for.
    pub(crate) fn accepted(&mut self, deadline: Option<Instant>) -> anyhow::Result<Option<(u64, Option<Failure>)>> {
        loop {
            match self.receive(Some(deadline.unwrap_or_else(Instant::now)), false)? {
                Arrived::TimedOut if deadline.is_some() => return Err(silent().into()),
                Arrived::TimedOut => return Ok(None),
                Arrived::Frame(frame) => match *frame {
                    FromServer::Done(done) => return Ok(Some((done.id, None))),
                    FromServer::Problem(problem) if problem.id > 0 => {
                        return Ok(Some((problem.id, Some(refusal(&problem)))));
                    }
                    _ => {}
                },
            }
        }
    }

    /// Waits until something can be read from the daemon or from another file.
    pub(crate) fn wait_for(&self, other: impl std::os::fd::AsFd) -> anyhow::Result<()> {
        let mut fds = [
            PollFd::new(&self.stream, PollFlags::IN),
            PollFd::new(&other, PollFlags::IN),
        ];
        process::wait(&mut fds, None).map(drop)
    }

    /// Publishes, and waits for the answer.
    pub(crate) fn request(&mut self, topic: &Topic, body: Body, timeout: Duration) -> anyhow::Result<Answer> {
        let content = match self.deposit(&body.bytes)? {
            true => envelope::request::Content::Upload(UPLOAD.to_owned()),
            false => envelope::request::Content::Body(body.bytes.into()),
        };
        let id = self.new_id();
        self.send(FromClient::Request(envelope::Request {
            id,
            topic: topic.to_string(),
            content_type: body.content_type,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            content: Some(content),
        }))?;
        let deadline = Instant::now() + timeout + GRACE;
        loop {
            match self.receive(Some(deadline), false)? {
                Arrived::TimedOut => {
                    let failure = Failure::new(Exit::Timeout, format!("no answer from `{topic}` in time"));
                    return Err(failure.hint("wait longer with --timeout").into());
                }
                Arrived::Frame(frame) => match *frame {
                    FromServer::Response(response) if response.id == id => {
                        return Ok(Answer {
                            content_type: response.content_type,
                            body: response.body.into(),
                        });
                    }
                    FromServer::Problem(problem) if problem.id == id => return Err(refusal(&problem).into()),
                    _ => {}
                },
            }
        }
    }

    /// Asks the kernel itself, in JSON.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self, topic: &str, body: &serde_json::Value) -> anyhow::Result<T> {
        self.ask_within(topic, body, REQUEST_TIMEOUT)
    }

    /// The same, with less patience.
    pub(crate) fn ask_within<T: DeserializeOwned>(
        &mut self,
        topic: &str,
        body: &serde_json::Value,
        timeout: Duration,
    ) -> anyhow::Result<T> {
        let topic: Topic = topic.parse()?;
        let answer = self.request(&topic, Body::json(body)?, timeout)?;
        serde_json::from_slice(&answer.body)
            .with_context(|| format!("the answer to `{topic}` is not what this version expects"))
    }

    /// Subscribes; returns once the subscription stands.
    pub(crate) fn subscribe(&mut self, pattern: &Pattern) -> anyhow::Result<()> {
        let id = self.new_id();
        self.send(FromClient::Subscribe(envelope::Subscribe {
            id,
            pattern: pattern.to_string(),
        }))?;
        self.done(id)
    }

    /// Waits for the next event, as long as it takes or until nobody reads stdout any more.
    pub(crate) fn event(&mut self) -> anyhow::Result<envelope::Event> {
        loop {
            if let Arrived::Frame(frame) = self.receive(None, true)?
                && let FromServer::Event(event) = *frame
            {
                return Ok(event);
            }
        }
    }

    /// Uploads a body that is too large for a frame. Whether it was.
    fn deposit(&mut self, body: &[u8]) -> anyhow::Result<bool> {
        if body.len() <= INLINE_BYTES_MAX {
            return Ok(false);
        }
        self.send(FromClient::UploadBegin(envelope::UploadBegin {
            upload: UPLOAD.to_owned(),
            size: body.len() as u64,
            blake3: blake3::hash(body).as_bytes().to_vec().into(),
        }))?;
        loop {
            let state = self.upload_state()?;
            let received = usize::try_from(state.received).unwrap_or(usize::MAX);
            let Some(rest) = body.get(received..).filter(|rest| !rest.is_empty()) else {
                return Ok(true);
            };
            let credit = usize::try_from(state.credit).unwrap_or(usize::MAX);
            let chunk = &rest[..rest.len().min(credit).min(CHUNK_BYTES_MAX)];
            if chunk.is_empty() {
                // Without credit the next state says when there is room.
                continue;
            }
            self.send(FromClient::UploadChunk(envelope::UploadChunk {
                upload: UPLOAD.to_owned(),
                offset: state.received,
                data: chunk.to_vec().into(),
            }))?;
        }
    }

    fn upload_state(&mut self) -> anyhow::Result<envelope::UploadState> {
        loop {
            match self.receive_within(REQUEST_TIMEOUT)? {
                FromServer::UploadState(state) if state.upload == UPLOAD => return Ok(state),
                FromServer::Problem(problem) if problem.id == 0 => return Err(refusal(&problem).into()),
                _ => {}
            }
        }
    }

    fn done(&mut self, id: u64) -> anyhow::Result<()> {
        loop {
            match self.receive_within(REQUEST_TIMEOUT)? {
                FromServer::Done(done) if done.id == id => return Ok(()),
                FromServer::Problem(problem) if problem.id == id => return Err(refusal(&problem).into()),
                _ => {}
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn send(&mut self, frame: FromClient) -> anyhow::Result<()> {
        match self.stream.write_all(&frame.into_frame()) {
            Ok(()) => Ok(()),
            // What the daemon said before it closed is the better reason.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.receive_within(SERVER_TIMEOUT).map(drop)?;
                Err(closed().source(error).into())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(silent().into()),
            Err(error) => Err(error).context("cannot write to the daemon"),
        }
    }

    fn receive_within(&mut self, timeout: Duration) -> anyhow::Result<FromServer> {
        match self.receive(Some(Instant::now() + timeout), false)? {
            Arrived::Frame(frame) => Ok(*frame),
            Arrived::TimedOut => Err(silent().into()),
        }
    }

    fn receive(&mut self, deadline: Option<Instant>, while_read: bool) -> anyhow::Result<Arrived> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(payload) = self.decoder.next().context("the daemon's frames are broken")? {
                return match envelope::decode_server(payload).context("the daemon's envelope is broken")? {
                    FromServer::Goodbye(goodbye) => Err(Failure::problem(&goodbye.code, &goodbye.message, "").into()),
                    frame => Ok(Arrived::Frame(Box::new(frame))),
                };
            }
            if !self.wait(deadline, while_read)? {
                return Ok(Arrived::TimedOut);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(closed().into()),
                Ok(read) => self.decoder.push(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(closed().source(error).into()),
                Err(error) => return Err(error).context("cannot read from the daemon"),
            }
        }
    }

    /// Waits for bytes. False when time is up.
    fn wait(&self, deadline: Option<Instant>, while_read: bool) -> anyhow::Result<bool> {
        let stdout = std::io::stdout();
        let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
        if while_read {
            // Nothing is asked for, so only a reader that left is reported.
            fds.push(PollFd::new(&stdout, PollFlags::empty()));
        }
        if process::wait(&mut fds, deadline)? == 0 {
            return Ok(false);
        }
        if fds
            .get(1)
            .is_some_and(|stdout| stdout.revents().intersects(PollFlags::ERR | PollFlags::HUP))
        {
            return Err(Closed.into());
        }
        Ok(true)
    }
}

/// Connects to the operator socket; says what it means when that fails.
fn dial(home: &Home, timeout: Duration) -> anyhow::Result<UnixStream> {
    let path = daemon::operator_socket(home);
    let address =
        SocketAddrUnix::new(&path).with_context(|| format!("the socket's path is too long: {}", path.display()))?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Also bounds `connect`, which waits while the listener's queue is full.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(error @ (Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR)) => {
            let message = format!("no daemon answers for {}", home.root().display());
            Err(Failure::unreachable(message).source(error).into())
        }
        Err(error @ (Errno::ACCESS | Errno::PERM)) => Err(Failure::new(
            Exit::Denied,
            format!("{} is not open to this user", path.display()),
        )
        .source(error)
        .into()),
        Err(Errno::AGAIN) => Err(silent().into()),
        Err(error) => Err(error).with_context(|| format!("cannot connect to {}", path.display())),
    }
}

/// Whether something listens on the operator socket.
pub(crate) fn listens(home: &Home, timeout: Duration) -> anyhow::Result<()> {
    dial(home, timeout).map(drop)
}

fn refusal(problem: &envelope::Problem) -> Failure {
    Failure::problem(&problem.code, &problem.message, &problem.hint)
}

fn closed() -> Failure {
    Failure::new(Exit::Unreachable, "the daemon closed the connection").hint("`astrid logs` may say why")
}

fn silent() -> Failure {
    Failure::new(Exit::Timeout, "the daemon does not answer").hint("`astrid status` and `astrid logs` work without it")
}

#[cfg(test)]
mod tests;
