//! The connection of a connection-scope actor, as the fake kernel keeps it.

use astrid_wire::Pattern;

use crate::bindings::astrid::kernel::bus::SubscribeError;
use crate::bindings::astrid::kernel::connection::{AuthenticateError, PeerInfo};

/// Subscriptions of one connection, at most.
const SUBSCRIPTIONS_MAX: u32 = 16;

/// A connection and its stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: PeerInfo,
    /// Whether the one attempt was made.
    attempted: bool,
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
