//! A client of a daemon that may be killed at any time: it speaks the envelope itself, and whatever ends the connection is one answer.

#![allow(clippy::disallowed_methods, reason = "reads the boot token")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use astrid_kernel::home::Socket;
use astrid_kernel::identity::KeyPair;
use astrid_wire::Principal;
use astrid_wire::envelope::{self, FromClient, FromServer, VERSION, publish, request};
use astrid_wire::frame::{FrameDecoder, PAYLOAD_BYTES_MAX};
use serde_json::Value;

use crate::process::PATIENCE;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// The connection is no more, or was never made: why.
#[derive(Debug, Clone)]
pub struct Gone(pub String);

fn gone(error: impl std::fmt::Display) -> Gone {
    Gone(error.to_string())
}

/// A connection of the operator's.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    decoder: FrameDecoder,
    /// Decoded and not given out.
    ahead: Option<FromServer>,
    last_id: u64,
}

/// How a connection shows who it is.
#[derive(Debug, Clone, Copy)]
pub enum As<'a> {
    /// By the boot token: the owner.
    Owner,
    /// Not at all.
    Nobody,
    /// As that principal, by that key.
    Principal(&'a str, &'a KeyPair),
}

impl Connection {
    /// Connects to the daemon of this home, if one serves, as its owner.
    ///
    /// # Errors
    /// None does, or it ended meanwhile.
    pub fn open(home: &Path) -> Result<Self, Gone> {
        Self::open_as(home, Socket::Operator, As::Owner)
    }

    /// Connects to a socket of the daemon of this home, and shows who it is.
    ///
    /// # Errors
    /// None serves, or it was not believed.
    ///
    /// # Panics
    /// It is no principal's name.
    pub fn open_as(home: &Path, socket: Socket, who: As<'_>) -> Result<Self, Gone> {
        let (credential, claim) = match who {
            As::Owner => {
                let token = std::fs::read_to_string(home.join("run/token")).map_err(gone)?;
                (token.trim().as_bytes().to_vec(), None)
            }
            As::Nobody => (Vec::new(), None),
            As::Principal(name, _) => (Vec::new(), Some(name)),
        };
        let (mut connection, mut answer) = Self::hello(home, socket, credential, claim)?;
        if let (FromServer::Challenge(challenge), As::Principal(name, key)) = (&answer, who) {
            let name: Principal = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            let nonce = challenge.nonce[..].try_into().map_err(gone)?;
            answer = connection.prove(key, &key.prove(socket, &name, &nonce))?;
        }
        match answer {
            FromServer::HelloAck(_) => {
                connection.decoder.set_limit(PAYLOAD_BYTES_MAX);
                Ok(connection)
            }
            other => Err(Gone(format!("{other:?}"))),
        }
    }

    /// Connects, and says Hello with that; and what is answered.
    ///
    /// # Errors
    /// None serves, or it ended.
    pub fn hello(
        home: &Path,
        socket: Socket,
        credential: Vec<u8>,
        claim: Option<&str>,
    ) -> Result<(Self, FromServer), Gone> {
        let path = home.join("run").join(format!("{}.sock", socket.as_str()));
        let stream = UnixStream::connect(path).map_err(gone)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(gone)?;
        let mut connection = Self {
            stream,
            decoder: FrameDecoder::new(),
            ahead: None,
            last_id: 0,
        };
        let hello = envelope::Hello {
            major: VERSION.major,
            minor: VERSION.minor,
            credential: credential.into(),
            client: "test".into(),
            principal: claim.map(str::to_owned),
        };
        connection.send(&FromClient::Hello(hello).into_frame())?;
        let answer = connection.receive()?;
        Ok((connection, answer))
    }

    /// Sends a proof; and what is answered.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn prove(&mut self, key: &KeyPair, signature: &[u8]) -> Result<FromServer, Gone> {
        let proof = envelope::Proof {
            public_key: key.public().0.to_vec().into(),
            signature: signature.to_vec().into(),
        };
        self.send(&FromClient::Proof(proof).into_frame())?;
        self.receive()
    }

    /// Sends bytes of frames.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, frames: &[u8]) -> Result<(), Gone> {
        self.stream.write_all(frames).map_err(gone)
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection is gone.
    ///
    /// # Panics
    /// What comes is not the protocol, or nothing comes for a long time.
    pub fn receive(&mut self) -> Result<FromServer, Gone> {
        let mut chunk = [0; READ_BYTES];
        loop {
            if let Some(frame) = self.decoded() {
                return Ok(frame);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Gone("the connection ended".into())),
                Ok(read) => self.decoder.push(&chunk[..read]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("the daemon is silent"),
                Err(error) => return Err(gone(error)),
            }
        }
    }

    /// Whether the next frame is here already.
    ///
    /// # Panics
    /// What came is not the protocol.
    #[must_use]
    pub fn has_more(&mut self) -> bool {
        self.ahead = self.decoded();
        self.ahead.is_some()
    }

    fn decoded(&mut self) -> Option<FromServer> {
        if let Some(frame) = self.ahead.take() {
            return Some(frame);
        }
        let payload = self.decoder.next();
        let payload = payload.unwrap_or_else(|error| panic!("no frame: {error}"))?;
        Some(envelope::decode_server(payload).unwrap_or_else(|error| panic!("no envelope: {error}")))
    }

    /// Asks with a JSON body, and waits for the JSON that is answered.
    ///
    /// # Errors
    /// The connection is gone, or the answer is none: a refusal, or too late.
    ///
    /// # Panics
    /// The answer is not JSON.
    pub fn ask(&mut self, topic: &str, body: &Value) -> Result<Value, Gone> {
        match self.ask_bytes(topic, body.to_string().into_bytes())? {
            FromServer::Response(answer) => {
                Ok(serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("no JSON: {error}")))
            }
            other => Err(Gone(format!("{topic}: {other:?}"))),
        }
    }

    /// Asks with any body; and what is answered, whatever that is.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ask_bytes(&mut self, topic: &str, body: Vec<u8>) -> Result<FromServer, Gone> {
        self.last_id += 1;
        let request = envelope::Request {
            id: self.last_id,
            topic: topic.into(),
            content_type: "application/json".into(),
            timeout_ms: u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX),
            content: Some(request::Content::Body(body.into())),
        };
        self.send(&FromClient::Request(request).into_frame())?;
        self.receive()
    }
}

/// The frame that publishes JSON under an id of the message; the number comes back when it was accepted.
#[must_use]
pub fn publish(number: u64, topic: &str, body: &Value, id: String) -> Vec<u8> {
    FromClient::Publish(envelope::Publish {
        id: number,
        topic: topic.into(),
        content_type: "application/json".into(),
        content: Some(publish::Content::Body(body.to_string().into())),
        message_id: Some(id),
    })
    .into_frame()
}
