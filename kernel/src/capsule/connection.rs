//! A connection: the stream that a connection-scope actor serves, and who is on its other end.
//!
//! It carries its principal. That changes once, by [`Connection::authenticate`], and nothing else can change it: a capsule that
//! parses what a client says cannot make it somebody else.

use std::sync::Arc;
use std::time::Duration;

use astrid_wire::{Pattern, Principal};
use parking_lot::Mutex;

use super::Host;
use super::host::bindings::astrid::kernel::connection::AuthenticateError;
use crate::audit::{Entry, Kind};
use crate::authority::Permit;
use crate::bus::{Bus, Heard, Role, Route, Subscribed};
use crate::deadlines::{DeadlineKey, Deadlines};
use crate::home::Socket;
use crate::port::listener::{Peer, Seat};
use crate::port::stream::Stream;

/// How long a peer may take to show its credential (K14).
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Handshake {
    /// Runs out then.
    Pending(DeadlineKey),
    Accepted,
    Refused,
}

#[derive(Debug)]
struct State {
    principal: Principal,
    handshake: Handshake,
    subscribed: Vec<Subscribed>,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: Arc<Stream>,
    peer: Peer,
    /// A program that this daemon runs, or something that one started.
    child: bool,
    socket: Socket,
    state: Mutex<State>,
    deadlines: Arc<Deadlines>,
    /// Its place among the connections of its socket; given back with it.
    seat: Seat,
}

impl Connection {
    /// A stranger, for [`HANDSHAKE_TIME_MAX`]; and whether it is a child of this daemon.
    pub fn new(
        stream: Arc<Stream>,
        (peer, child): (Peer, bool),
        socket: Socket,
        seat: Seat,
        deadlines: &Arc<Deadlines>,
    ) -> Arc<Self> {
        let late = Arc::downgrade(&stream);
        let key = deadlines.at(deadlines.now() + HANDSHAKE_TIME_MAX, move || {
            if let Some(stream) = late.upgrade() {
                tracing::warn!(
                    peer.uid,
                    peer.pid,
                    "a connection did not complete its handshake in time"
                );
                stream.abort();
            }
        });
        let state = State {
            principal: Principal::anonymous(),
            handshake: Handshake::Pending(key),
            subscribed: Vec::new(),
        };
        Arc::new(Self {
            stream,
            peer,
            child,
            socket,
            state: Mutex::new(state),
            deadlines: Arc::clone(deadlines),
            seat,
        })
    }

    /// Its stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Who, by the operating system.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Which socket accepted it.
    pub fn socket(&self) -> Socket {
        self.socket
    }

    /// Its handler failed, which counts against the peer.
    pub fn count_fault(&self) {
        self.seat.count_fault();
    }

    /// On whose behalf it acts.
    pub fn principal(&self) -> Principal {
        self.state.lock().principal.clone()
    }

    /// Shows a credential. The boot token makes a peer of the daemon's own user `default`; no credential makes a peer of the session
    /// socket `anonymous`. One attempt.
    ///
    /// # Errors
    /// What a stranger may know: refused, or tried before.
    pub fn authenticate(&self, credential: &[u8], host: &Host) -> Result<Principal, AuthenticateError> {
        let mut state = self.state.lock();
        let Handshake::Pending(timer) = state.handshake else {
            return Err(AuthenticateError::Again);
        };
        self.deadlines.cancel(timer);
        // A child is never its owner, whatever it has got hold of.
        let own = (self.peer.uid == host.own_uid || self.peer.uid == 0) && !self.child;
        let principal = if own && host.token.matches(credential) {
            Principal::default_owner()
        } else if credential.is_empty() && self.socket == Socket::Session {
            Principal::anonymous()
        } else {
            state.handshake = Handshake::Refused;
            host.metrics.connections_unauthenticated.increment();
            host.audit.count("", "", "connection.refused", self.socket.as_str());
            if let Some(peers) = self.seat.turn_away() {
                tracing::warn!(
                    peers,
                    peer.uid = self.peer.uid,
                    peer.pid = self.peer.pid,
                    socket = self.socket.as_str(),
                    "a credential is refused"
                );
            }
            return Err(AuthenticateError::Refused);
        };
        state.handshake = Handshake::Accepted;
        state.principal = principal.clone();
        let entry =
            Entry::new(Kind::Connection, principal.as_str(), "connection.accepted").resource(self.socket.as_str());
        let peer = format!("uid={} pid={}", self.peer.uid, self.peer.pid);
        // A log that takes nothing must not keep out who could repair it.
        drop(host.audit.write(entry.detail(&peer)));
        Ok(principal)
    }

    /// Hears one more pattern.
    ///
    /// # Errors
    /// The limit, when it is reached.
    pub fn subscribe(
        &self,
        permit: Permit<Pattern>,
        bus: &Arc<Bus>,
        route: (Arc<dyn Route>, u16),
        max: usize,
    ) -> Result<(), u32> {
        let mut state = self.state.lock();
        if state.subscribed.iter().any(|s| s.pattern() == permit.object()) {
            return Ok(());
        }
        if state.subscribed.len() >= max {
            return Err(u32::try_from(max).unwrap_or(u32::MAX));
        }
        let (route, lane) = route;
        state
            .subscribed
            .push(bus.subscribe(permit, route, lane, Role::Observer));
        Ok(())
    }

    /// Hears it no longer. False when it did not.
    pub fn unsubscribe(&self, pattern: &Pattern) -> bool {
        let mut state = self.state.lock();
        let before = state.subscribed.len();
        state.subscribed.retain(|s| s.pattern() != pattern);
        state.subscribed.len() < before
    }

    /// Whether it hears what that principal says: its own, what is public, and everything for an authenticated operator.
    pub fn hears(&self, heard: &Heard<'_>) -> bool {
        let state = self.state.lock();
        if state.principal.is_anonymous() {
            return false;
        }
        heard.public || self.socket == Socket::Operator || *heard.principal == state.principal
    }

    /// Ends it: nothing is heard any more, and the stream closes now.
    pub fn end(&self) {
        let (subscribed, handshake) = {
            let mut state = self.state.lock();
            let handshake = std::mem::replace(&mut state.handshake, Handshake::Refused);
            (std::mem::take(&mut state.subscribed), handshake)
        };
        if let Handshake::Pending(key) = handshake {
            self.deadlines.cancel(key);
        }
        drop(subscribed);
        self.stream.abort();
    }
}
