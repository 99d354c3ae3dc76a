//! The connection of a connection-scope actor: what the fake kernel keeps of it, and how a test plays the peer.

use astrid_wire::Pattern;

use super::host::{Command, Host};
use super::{Handled, Harness};
use crate::bindings::astrid::kernel::bus::SubscribeError;
use crate::bindings::astrid::kernel::connection::{AuthenticateError, PeerError, PeerInfo, Socket};
use crate::bindings::astrid::kernel::port::PortError;
use crate::bindings::astrid::kernel::types::{Kind, PortId, Source};
use crate::body::Body;
use crate::dispatch::Capsule;

/// Subscriptions of one connection, at most.
const SUBSCRIPTIONS_MAX: u32 = 16;

/// The challenge of every connection.
const NONCE: [u8; 32] = [7; 32];

/// A connection and its stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: PeerInfo,
    /// Whether the one attempt was made.
    attempted: bool,
    /// Whether a challenge was given.
    challenged: bool,
    /// What is accepted, and as whom.
    pub(super) credentials: Vec<(Vec<u8>, String)>,
    pub(super) subscriptions: Vec<Pattern>,
    /// What was written and the test has not taken.
    pub(super) written: Vec<u8>,
    /// How many bytes the peer has room for; not said: any number.
    pub(super) free: Option<u64>,
    pub(super) closed: bool,
}

impl Connection {
    pub(super) fn new(peer: PeerInfo) -> Self {
        Self {
            peer,
            attempted: false,
            challenged: false,
            credentials: Vec::new(),
            subscriptions: Vec::new(),
            written: Vec::new(),
            free: None,
            closed: false,
        }
    }

    pub(super) fn wrote(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        self.free = self.free.map(|free| free.saturating_sub(bytes.len() as u64));
    }

    pub(super) fn subscribe(&mut self, pattern: Pattern) -> Result<(), SubscribeError> {
        if self.subscriptions.contains(&pattern) {
            return Ok(());
        }
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX as usize {
            return Err(SubscribeError::TooMany(SUBSCRIPTIONS_MAX));
        }
        self.subscriptions.push(pattern);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, pattern: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|held| held != pattern);
        self.subscriptions.len() < before
    }

    pub(super) fn challenge(&mut self) -> Result<Vec<u8>, AuthenticateError> {
        if self.attempted || std::mem::replace(&mut self.challenged, true) {
            return Err(AuthenticateError::Again);
        }
        Ok(NONCE.to_vec())
    }

    pub(super) fn authenticate(&mut self, credential: &[u8]) -> Result<String, AuthenticateError> {
        if std::mem::replace(&mut self.attempted, true) {
            return Err(AuthenticateError::Again);
        }
        let accepted = self.credentials.iter().find(|(accepted, _)| accepted == credential);
        let principal = accepted
            .map(|(_, principal)| principal.clone())
            .ok_or(AuthenticateError::Refused)?;
        self.peer.principal.clone_from(&principal);
        Ok(principal)
    }
}

/// The functions of the contract.
impl Host {
    fn open_connection(&self, port: PortId) -> Result<&Connection, PortError> {
        let closing = self.commands.iter().any(|command| matches!(command, Command::Close));
        self.connection
            .as_ref()
            .filter(|connection| connection.peer.stream == port && !connection.closed && !closing)
            .ok_or(PortError::Unknown)
    }

    pub(super) fn write(&mut self, port: PortId, bytes: &[u8]) -> Result<u32, PortError> {
        let recorded = self.commands.iter().map(|command| match command {
            Command::Write(bytes) => bytes.len() as u64,
            _ => 0,
        });
        let recorded = recorded.sum();
        let free = self
            .open_connection(port)?
            .free
            .map(|free| free.saturating_sub(recorded));
        match free {
            Some(free) if free < bytes.len() as u64 => return Err(PortError::Full(free)),
            _ => {}
        }
        let ordinal = self.room().map_err(PortError::TooMany)?;
        self.commands.push(Command::Write(bytes.to_owned()));
        Ok(ordinal)
    }

    pub(super) fn close(&mut self, port: PortId) -> Result<u32, PortError> {
        let watched = self.files.watches.contains_key(&port);
        if !watched {
            self.open_connection(port)?;
        }
        let ordinal = self.room().map_err(PortError::TooMany)?;
        self.commands.push(if watched {
            Command::EndWatch(port)
        } else {
            Command::Close
        });
        Ok(ordinal)
    }

    pub(super) fn peer(&self) -> Result<PeerInfo, PeerError> {
        self.connection
            .as_ref()
            .map(|connection| connection.peer.clone())
            .ok_or(PeerError::NoConnection)
    }

    /// Every claim gets the same challenge: what proves it is what the test accepts.
    pub(super) fn challenge(&mut self, _claim: &str) -> Result<Vec<u8>, AuthenticateError> {
        self.connection
            .as_mut()
            .ok_or(AuthenticateError::NoConnection)?
            .challenge()
    }

    pub(super) fn authenticate(&mut self, credential: &[u8]) -> Result<String, AuthenticateError> {
        self.connection
            .as_mut()
            .ok_or(AuthenticateError::NoConnection)?
            .authenticate(credential)
    }
}

/// The connection of a connection-scope actor.
impl<C: Capsule> Harness<C> {
    /// A peer connects to this socket: the actor's first message is `port.v1.stream.opened`.
    pub fn connect(&mut self, socket: Socket) -> Handled {
        let stream = self.host.new_port();
        let peer = PeerInfo {
            stream,
            socket,
            pid: 1234,
            uid: 1000,
            gid: 1000,
            principal: "anonymous".to_owned(),
        };
        self.host.connection = Some(Connection::new(peer));
        self.stream("opened", Body::text(""))
    }

    /// The peer sends bytes.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn receive(&mut self, bytes: &[u8]) -> Handled {
        self.stream("data", Body::new("application/octet-stream", bytes))
    }

    /// The peer will send no more.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn hang_up(&mut self) -> Handled {
        self.stream("closed", Body::text("the peer sends no more"))
    }

    /// This credential is accepted, as this principal.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn accept_credential(&mut self, credential: &[u8], principal: &str) {
        self.connection()
            .credentials
            .push((credential.to_owned(), principal.to_owned()));
    }

    /// From now on the peer has room for this many bytes; at first for any number.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn set_room(&mut self, bytes: u64) {
        self.connection().free = Some(bytes);
    }

    /// Takes the bytes that the capsule wrote since the last call.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.connection().written)
    }

    /// Whether the capsule closed the stream.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn is_closed(&mut self) -> bool {
        self.connection().closed
    }

    /// The patterns that the connection is subscribed to, in the order of subscribing.
    ///
    /// # Panics
    /// Nobody is connected.
    #[track_caller]
    pub fn subscriptions(&mut self) -> Vec<String> {
        self.connection()
            .subscriptions
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[track_caller]
    fn connection(&mut self) -> &mut Connection {
        match &mut self.host.connection {
            Some(connection) => connection,
            None => panic!("nobody is connected: call `connect` first"),
        }
    }

    #[track_caller]
    fn stream(&mut self, what: &str, body: Body) -> Handled {
        let port = self.connection().peer.stream;
        let mut message = self.message(Kind::Event, &format!("port.v1.stream.{what}"), body);
        message.source = Source::Port(port);
        message.principal.clone_from(&self.connection().peer.principal);
        self.deliver(message)
    }
}
