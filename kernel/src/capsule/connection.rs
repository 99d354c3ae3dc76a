//! A connection: the stream that a connection-scope actor serves, and who is on its other end.
//!
//! It carries its principal. That changes once, by [`Connection::authenticate`], and nothing else can change it: a capsule that
//! parses what a client says cannot make it somebody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_wire::control::ConnectionReport;
use astrid_wire::problem::codes;
use astrid_wire::proof::NONCE_BYTES;
use astrid_wire::{Pattern, Principal, Problem};
use parking_lot::Mutex;

use super::Host;
use super::host::bindings::astrid::kernel::connection::AuthenticateError;
use super::host::bus::guest_problem;
use crate::audit::{Entry, Kind, TurnedAway};
use crate::authority::{Gate, Permit, Standing};
use crate::bus::{Bus, Heard, Role, Route, Subscribed};
use crate::deadlines::{DeadlineKey, Deadlines};
use crate::home::Socket;
use crate::identity::Claim;
use crate::ledger::{Hold, Limit};
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
    /// What that one may do, as it was looked up last.
    standing: Option<Standing>,
    handshake: Handshake,
    subscribed: Vec<Subscribed>,
    /// Who it says it is, until it has proven that.
    claim: Option<Claim>,
    /// Its place among the connections of its principal, once that is known.
    counted: Option<Hold>,
    /// It is known who it is, and was recorded.
    recorded: bool,
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
    /// When it was accepted.
    since: Instant,
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
            standing: None,
            handshake: Handshake::Pending(key),
            subscribed: Vec::new(),
            claim: None,
            counted: None,
            recorded: false,
        };
        Arc::new(Self {
            stream,
            peer,
            child,
            socket,
            state: Mutex::new(state),
            deadlines: Arc::clone(deadlines),
            seat,
            since: deadlines.now(),
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

    /// What operators see of it.
    pub fn report(&self, capsule: &str, host: &Host) -> ConnectionReport {
        let state = self.state.lock();
        let since = self.since.saturating_duration_since(host.started);
        ConnectionReport {
            id: self.stream.id(),
            capsule: capsule.to_owned(),
            principal: state.principal.as_str().to_owned(),
            socket: self.socket.as_str().to_owned(),
            pid: self.peer.pid,
            uid: self.peer.uid,
            child: self.child,
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            subscriptions: state.subscribed.iter().map(|s| s.pattern().to_string()).collect(),
        }
    }

    /// Its handler failed, which counts against the peer.
    pub fn count_fault(&self) {
        self.seat.count_fault();
    }

    /// On whose behalf it acts.
    pub fn principal(&self) -> Principal {
        self.state.lock().principal.clone()
    }

    /// The peer claims to be somebody: what it must sign to prove that, whether or not there is one of that name. One claim.
    ///
    /// # Errors
    /// What a stranger may know: refused, or tried before.
    pub fn challenge(&self, claim: &str, host: &Host) -> Result<[u8; NONCE_BYTES], AuthenticateError> {
        let mut state = self.state.lock();
        if !matches!(state.handshake, Handshake::Pending(_)) || state.claim.is_some() {
            return Err(AuthenticateError::Again);
        }
        let known = claim.parse().ok().and_then(|principal| Claim::new(principal).ok());
        let Some(claim) = known else {
            return Err(self.refuse(&mut state, host, claim));
        };
        let nonce = claim.nonce;
        state.claim = Some(claim);
        Ok(nonce)
    }

    /// Who is on the other side, as the system says it.
    fn peer_words(&self) -> String {
        format!("uid={} pid={}", self.peer.uid, self.peer.pid)
    }

    /// The attempt has failed.
    fn refuse(&self, state: &mut State, host: &Host, claimed: &str) -> AuthenticateError {
        state.handshake = Handshake::Refused;
        host.metrics.connections_unauthenticated.increment();
        let (socket, uid) = (self.socket.as_str(), self.peer.uid);
        let claimed = if claimed.is_empty() { "nobody" } else { claimed };
        host.audit.turned_away(&TurnedAway {
            // What a peer claims it chooses: it counts against its user.
            owner: &format!("uid={uid}"),
            action: "connection.refused",
            resource: socket,
            rule: &format!("{socket} uid={uid} claimed to be {claimed}"),
            detail: &format!("{} claimed to be {claimed}", self.peer_words()),
            ..TurnedAway::default()
        });
        if let Some(peers) = self.seat.turn_away() {
            tracing::warn!(
                peers,
                peer.uid = self.peer.uid,
                peer.pid = self.peer.pid,
                socket = self.socket.as_str(),
                "a credential is refused"
            );
        }
        AuthenticateError::Refused
    }

    /// Shows a credential. The boot token makes a peer of the daemon's own user `default`; no credential makes a peer of the session
    /// socket `anonymous`; the proof of a claim makes it that principal, if there is one. One attempt.
    ///
    /// # Errors
    /// What a stranger may know: refused, or tried before. Who has proven who it is, or need not, is told why there is no place for it.
    pub fn authenticate(&self, credential: &[u8], capsule: &str, host: &Host) -> Result<Principal, AuthenticateError> {
        let mut state = self.state.lock();
        let Handshake::Pending(timer) = state.handshake else {
            return Err(AuthenticateError::Again);
        };
        self.deadlines.cancel(timer);
        // A child is never its owner, whatever it has got hold of.
        let own = (self.peer.uid == host.own_uid || self.peer.uid == 0) && !self.child;
        let claim = state.claim.as_ref().map(|claim| claim.principal.clone());
        let claimed = match state.claim.take() {
            Some(claim) => {
                let policy = host.gate.authority().policy();
                let keys = policy
                    .profile(&claim.principal)
                    .map_or(&[][..], |profile| &profile.keys);
                claim
                    .is_proven_by(credential, self.socket, keys)
                    .then_some(claim.principal)
            }
            None if own && host.token.matches(credential) => Some(Principal::default_owner()),
            None => (credential.is_empty() && self.socket == Socket::Session).then(Principal::anonymous),
        };
        let standing = claimed.map(|principal| host.gate.authority().standing(&principal));
        // Whoever is disabled, or not known, is told no more than who shows a wrong credential.
        let Some(standing) = standing.filter(|standing| standing.check_active().is_ok()) else {
            return Err(self.refuse(&mut state, host, claim.as_ref().map_or("", Principal::as_str)));
        };
        let principal = standing.principal().clone();
        let counted = self.find_place(&principal, host);
        state.counted =
            Some(counted.map_err(|problem| self.turn_away(&mut state, &principal, problem, (capsule, host)))?);
        state.handshake = Handshake::Accepted;
        state.principal = principal;
        state.standing = Some(standing);
        state.recorded = true;
        let peer = self.peer_words();
        host.audit
            .routine(self.entry(&state, "connection.accepted", capsule).detail(&peer));
        Ok(state.principal.clone())
    }

    /// A place among the connections of its principal, and among those of its socket.
    fn find_place(&self, principal: &Principal, host: &Host) -> Result<Hold, Problem> {
        let counted = host.ledger.account(principal).hold(Limit::Connections, 1);
        let counted = counted.map_err(|exceeded| exceeded.problem())?;
        self.seat.settle(principal).map_err(|no| {
            Problem::new(codes::TOO_MANY, no.to_string()).with_hint("`astrid who` shows the connections to the owner")
        })?;
        Ok(counted)
    }

    /// It is known who it is, and there is no place for it: it may know why.
    fn turn_away(
        &self,
        state: &mut State,
        principal: &Principal,
        problem: Problem,
        (capsule, host): (&str, &Host),
    ) -> AuthenticateError {
        state.handshake = Handshake::Refused;
        host.metrics.connections_refused.increment();
        let socket = self.socket.as_str();
        host.audit.turned_away(&TurnedAway {
            principal: principal.as_str(),
            capsule,
            action: "connection.refused",
            resource: socket,
            rule: &format!("{socket}: {}", problem.code()),
            detail: &format!("{}: {}", self.peer_words(), problem.message()),
            ..TurnedAway::default()
        });
        if let Some(peers) = self.seat.turn_away() {
            tracing::warn!(peers, peer.uid = self.peer.uid, peer.pid = self.peer.pid, %problem, "a connection is turned away");
        }
        AuthenticateError::NoPlace(guest_problem(&problem))
    }

    fn entry(&self, state: &State, action: &str, capsule: &str) -> Entry {
        Entry::new(Kind::Connection, state.principal.as_str(), action)
            .capsule(capsule)
            .resource(self.socket.as_str())
    }

    /// Records that it has ended, if it was recorded who it was.
    pub fn record_end(&self, capsule: &str, host: &Host) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.recorded) {
            host.audit.routine(self.entry(&state, "connection.ended", capsule));
        }
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

    /// Whether it hears what that principal says there: its own, what is public, and of others' what it may observe.
    pub fn hears(&self, heard: &Heard<'_>, gate: &Gate) -> bool {
        let mut state = self.state.lock();
        let Some(standing) = &mut state.standing else {
            return false;
        };
        gate.refresh(standing);
        gate.hears(standing, heard.topic, heard.principal, heard.public)
    }

    /// After a change of what somebody may do: hears nothing any more that its principal may not subscribe to. False when that one may not
    /// be here at all any more.
    pub fn narrow(&self, gate: &Gate) -> bool {
        let mut state = self.state.lock();
        let State {
            standing: Some(standing),
            subscribed,
            ..
        } = &mut *state
        else {
            return true;
        };
        gate.refresh(standing);
        subscribed.retain(|subscribed| gate.may_keep_hearing(standing, subscribed.pattern()));
        standing.check_active().is_ok()
    }

    /// Ends it: nothing is heard any more, and the stream closes now.
    pub fn end(&self) {
        let (subscribed, handshake) = {
            let mut state = self.state.lock();
            let handshake = std::mem::replace(&mut state.handshake, Handshake::Refused);
            state.counted = None;
            (std::mem::take(&mut state.subscribed), handshake)
        };
        if let Handshake::Pending(key) = handshake {
            self.deadlines.cancel(key);
        }
        drop(subscribed);
        self.stream.abort();
    }
}
