//! The envelope: what a client and an uplink say to each other, in protobuf, one message a frame (contract A5).
//!
//! The types are generated from `proto/envelope.proto`, which is the documentation for other languages. This module adds what
//! protobuf leaves open: a bounded decode, and which versions get along (A4).
//!
//! A payload from outside is judged twice: before anything is decoded that it is *one* known message (so that no part of it
//! is decoded only to be overwritten by a later one), and after that every field against its limit. Bodies are not copied:
//! they share the memory of the payload, which the frame's limit bounds.

use bytes::Bytes;
use prost::Message;

use crate::{frame, proof, topic};

#[allow(
    clippy::all,
    missing_docs,
    unreachable_pub,
    rustdoc::all,
    reason = "written by prost-build from proto/envelope.proto; tests/generated.rs keeps it current"
)]
#[rustfmt::skip]
mod generated;

pub use generated::{
    Challenge, ClientFrame, Done, Event, Goodbye, Hello, HelloAck, HelloNack, Problem, Proof, Publish, Request,
    Response, ServerFrame, SessionCall, SessionVerb, Socket, Subscribe, Unsubscribe, UploadAbort, UploadBegin,
    UploadChunk, UploadState, publish, request,
};

/// What a client says.
pub use generated::client_frame::Kind as FromClient;
/// What a server says.
pub use generated::server_frame::Kind as FromServer;

/// Most bytes of a credential: a token, a signature and their framing.
pub const CREDENTIAL_BYTES_MAX: usize = 4096;

/// Most bytes of a session token (A7: two ids of 256 bytes, two times, a hash).
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Most bytes of a name that a client or server gives itself.
pub const NAME_BYTES_MAX: usize = 128;

/// Most bytes of a content type, as the kernel has it.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// Most bytes of an upload's name.
pub const UPLOAD_NAME_BYTES_MAX: usize = 64;

/// Bytes of a BLAKE3 hash.
pub const BLAKE3_BYTES: usize = 32;

/// Most bytes of the id that a client gives a message.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// Most bytes of a message's identity as text.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;

/// Room that an envelope takes around a body, at most: every other field at its limit, and their keys and lengths. A body within
/// [`BODY_BYTES_MAX`] always fits a frame.
pub const OVERHEAD_BYTES_MAX: usize = 8 * 1024;

/// Most bytes of a body that always fits a frame.
pub const BODY_BYTES_MAX: usize = frame::PAYLOAD_BYTES_MAX as usize - OVERHEAD_BYTES_MAX;

/// Codes of refusals that belong to the protocol itself; others are those of [`crate::problem::codes`].
pub mod codes {
    /// A verb or topic of the operators, on the session socket (A2).
    pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
    /// A session verb on the operator socket (A2).
    pub const SESSION_ERROR_PERMISSION_DENIED: &str = "SESSION_ERROR_PERMISSION_DENIED";
    /// A session token that is invalid or expired (A7).
    pub const SESSION_ERROR_INVALID: &str = "SESSION_ERROR_INVALID";
    /// The versions do not get along (A4).
    pub const VERSION: &str = "VERSION";
    /// The credential was not accepted (A4).
    pub const CREDENTIAL: &str = "CREDENTIAL";
    /// Framing or envelope is broken, or out of turn (A3, A4).
    pub const PROTOCOL: &str = "PROTOCOL";
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Changes when old clients cannot be served any more.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
}

/// What this code speaks.
pub const VERSION: Version = Version { major: 1, minor: 2 };

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Whether a server of one version serves a client of another: same major, and a minor the server knows (A4).
#[must_use]
pub const fn serves(server: Version, client: Version) -> bool {
    server.major == client.major && client.minor <= server.minor
}

/// Why a payload is not an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// No member is set.
    #[error("the envelope is empty")]
    Empty,
    /// More than one member is set, or something follows it.
    #[error("the envelope holds more than one message")]
    Crowded,
    /// A member that this version does not have.
    #[error("the envelope holds message {0}, which this version of the protocol does not have")]
    Unknown(u32),
    /// Not protobuf.
    #[error("the envelope is not valid protobuf: {0}")]
    Malformed(String),
    /// A field over its limit.
    #[error("`{field}` has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its name in the `.proto`.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The most it may have.
        limit: usize,
    },
    /// A hash of another length.
    #[error("`blake3` has {0} bytes, a BLAKE3 hash has {BLAKE3_BYTES}")]
    HashLength(usize),
    /// A part of a challenge or a proof of another length.
    #[error("`{field}` has {bytes} bytes, it is made of {expected}")]
    Length {
        /// Its name in the `.proto`.
        field: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// What it must be.
        expected: usize,
    },
    /// A value that this version does not have.
    #[error("`{field}` is {value}, which this version of the protocol does not have")]
    UnknownValue {
        /// Its name in the `.proto`.
        field: &'static str,
        /// As sent.
        value: i32,
    },
}

impl From<prost::DecodeError> for EnvelopeError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// Wire type of protobuf's length-delimited fields.
const LENGTH_DELIMITED: u64 = 2;

/// Reads the key and length of the only member of a payload, and that nothing follows it.
fn single_member(payload: &[u8], last: u32) -> Result<(), EnvelopeError> {
    let mut rest = payload;
    if rest.is_empty() {
        return Err(EnvelopeError::Empty);
    }
    let key = prost::encoding::decode_varint(&mut rest)?;
    if key & 7 != LENGTH_DELIMITED {
        return Err(EnvelopeError::Malformed("a member is not a message".into()));
    }
    let member = u32::try_from(key >> 3).unwrap_or(u32::MAX);
    if member == 0 || member > last {
        return Err(EnvelopeError::Unknown(member));
    }
    let length = prost::encoding::decode_varint(&mut rest)?;
    match length.cmp(&(rest.len() as u64)) {
        std::cmp::Ordering::Less => Err(EnvelopeError::Crowded),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(EnvelopeError::Malformed("it ends early".into())),
    }
}

fn limit(field: &'static str, bytes: usize, limit: usize) -> Result<(), EnvelopeError> {
    if bytes > limit {
        Err(EnvelopeError::TooLong { field, bytes, limit })
    } else {
        Ok(())
    }
}

fn exactly(field: &'static str, bytes: usize, expected: usize) -> Result<(), EnvelopeError> {
    if bytes == expected {
        Ok(())
    } else {
        Err(EnvelopeError::Length { field, bytes, expected })
    }
}

fn limit_topic(topic: &str) -> Result<(), EnvelopeError> {
    limit("topic", topic.len(), topic::BYTES_MAX)
}

fn limit_content_type(content_type: &str) -> Result<(), EnvelopeError> {
    limit("content_type", content_type.len(), CONTENT_TYPE_BYTES_MAX)
}

fn limit_upload(upload: &str) -> Result<(), EnvelopeError> {
    limit("upload", upload.len(), UPLOAD_NAME_BYTES_MAX)
}

fn limit_problem(code: &str, message: &str, hint: &str) -> Result<(), EnvelopeError> {
    limit("code", code.len(), crate::problem::CODE_BYTES_MAX)?;
    limit("message", message.len(), crate::problem::TEXT_BYTES_MAX)?;
    limit("hint", hint.len(), crate::problem::TEXT_BYTES_MAX)
}

/// Number of the last member of `ClientFrame`.
const CLIENT_MEMBERS: u32 = 10;

/// Number of the last member of `ServerFrame`.
const SERVER_MEMBERS: u32 = 9;

/// Decodes what a client sent, within limits (A5).
///
/// # Errors
/// Not exactly one message of this version with every field within its limit.
pub fn decode_client(payload: Bytes) -> Result<FromClient, EnvelopeError> {
    single_member(&payload, CLIENT_MEMBERS)?;
    let kind = ClientFrame::decode(payload)?.kind.ok_or(EnvelopeError::Empty)?;
    match &kind {
        FromClient::Hello(hello) => {
            limit("credential", hello.credential.len(), CREDENTIAL_BYTES_MAX)?;
            limit("client", hello.client.len(), NAME_BYTES_MAX)?;
            limit("principal", hello.principal().len(), NAME_BYTES_MAX)?;
        }
        FromClient::Publish(publish) => {
            limit_topic(&publish.topic)?;
            limit_content_type(&publish.content_type)?;
            if let Some(publish::Content::Upload(upload)) = &publish.content {
                limit_upload(upload)?;
            }
            if let Some(id) = &publish.message_id {
                limit("message_id", id.len(), CLIENT_ID_BYTES_MAX)?;
            }
        }
        FromClient::Request(request) => {
            limit_topic(&request.topic)?;
            limit_content_type(&request.content_type)?;
            if let Some(request::Content::Upload(upload)) = &request.content {
                limit_upload(upload)?;
            }
        }
        FromClient::Subscribe(subscribe) => limit("pattern", subscribe.pattern.len(), topic::BYTES_MAX)?,
        FromClient::Unsubscribe(_) => {}
        FromClient::SessionCall(call) => {
            limit("token", call.token.len(), TOKEN_BYTES_MAX)?;
            limit_content_type(&call.content_type)?;
            if matches!(SessionVerb::try_from(call.verb), Err(_) | Ok(SessionVerb::Unspecified)) {
                return Err(EnvelopeError::UnknownValue {
                    field: "verb",
                    value: call.verb,
                });
            }
        }
        FromClient::UploadBegin(begin) => {
            limit_upload(&begin.upload)?;
            if begin.blake3.len() != BLAKE3_BYTES {
                return Err(EnvelopeError::HashLength(begin.blake3.len()));
            }
        }
        FromClient::UploadChunk(chunk) => limit_upload(&chunk.upload)?,
        FromClient::UploadAbort(abort) => limit_upload(&abort.upload)?,
        FromClient::Proof(proof) => {
            exactly("public_key", proof.public_key.len(), proof::PUBLIC_KEY_BYTES)?;
            exactly("signature", proof.signature.len(), proof::SIGNATURE_BYTES)?;
        }
    }
    Ok(kind)
}

/// Decodes what a server sent, within limits.
///
/// # Errors
/// Not exactly one message of this version with every field within its limit.
pub fn decode_server(payload: Bytes) -> Result<FromServer, EnvelopeError> {
    single_member(&payload, SERVER_MEMBERS)?;
    let kind = ServerFrame::decode(payload)?.kind.ok_or(EnvelopeError::Empty)?;
    match &kind {
        FromServer::HelloAck(ack) => {
            limit("server", ack.server.len(), NAME_BYTES_MAX)?;
            limit("principal", ack.principal.len(), NAME_BYTES_MAX)?;
            if matches!(Socket::try_from(ack.socket), Err(_) | Ok(Socket::Unspecified)) {
                return Err(EnvelopeError::UnknownValue {
                    field: "socket",
                    value: ack.socket,
                });
            }
        }
        FromServer::HelloNack(nack) => limit_problem(&nack.code, &nack.message, "")?,
        FromServer::Done(_) => {}
        FromServer::Response(response) => limit_content_type(&response.content_type)?,
        FromServer::Problem(problem) => {
            limit_problem(&problem.code, &problem.message, &problem.hint)?;
            limit_upload(&problem.upload)?;
        }
        FromServer::Event(event) => {
            limit_topic(&event.topic)?;
            limit("principal", event.principal.len(), NAME_BYTES_MAX)?;
            limit_content_type(&event.content_type)?;
            limit("message_id", event.message_id.len(), MESSAGE_ID_BYTES_MAX)?;
        }
        FromServer::UploadState(state) => limit_upload(&state.upload)?,
        FromServer::Challenge(challenge) => exactly("nonce", challenge.nonce.len(), proof::NONCE_BYTES)?,
        FromServer::Goodbye(goodbye) => limit_problem(&goodbye.code, &goodbye.message, "")?,
    }
    Ok(kind)
}

fn to_frame(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(frame::HEADER_BYTES + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // Fails only for want of room, and a vector grows.
    let _always_room = message.encode(&mut bytes);
    bytes
}

impl FromClient {
    /// The frame that says this, length first.
    #[must_use]
    pub fn into_frame(self) -> Vec<u8> {
        to_frame(&ClientFrame { kind: Some(self) })
    }
}

impl FromServer {
    /// The frame that says this, length first.
    #[must_use]
    pub fn into_frame(self) -> Vec<u8> {
        to_frame(&ServerFrame { kind: Some(self) })
    }
}

impl From<crate::Problem> for FromServer {
    /// A problem of an upload or of nothing in particular: id 0.
    fn from(problem: crate::Problem) -> Self {
        Problem::of(0, &problem).into()
    }
}

impl From<Problem> for FromServer {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Problem {
    /// The envelope of a problem with what had this id.
    #[must_use]
    pub fn of(id: u64, problem: &crate::Problem) -> Self {
        Self {
            id,
            code: problem.code().to_owned(),
            message: problem.message().to_owned(),
            hint: problem.hint().unwrap_or_default().to_owned(),
            upload: String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
