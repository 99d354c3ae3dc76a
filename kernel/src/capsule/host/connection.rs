//! `astrid:kernel/connection`: who is on the other end of this actor's stream.

use super::bindings::astrid::kernel::connection::{
    AuthenticateError, Host, PeerError, PeerInfo, Socket as GuestSocket,
};
use crate::capsule::guest::Guest;
use crate::home::Socket;

impl Host for Guest {
    fn peer(&mut self) -> Result<PeerInfo, PeerError> {
        let connection = self.actor.connection().ok_or(PeerError::NoConnection)?;
        let peer = connection.peer();
        Ok(PeerInfo {
            stream: connection.stream().id(),
            socket: match connection.socket() {
                Socket::Operator => GuestSocket::Operator,
                Socket::Session => GuestSocket::Session,
            },
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            principal: connection.principal().as_str().to_owned(),
        })
    }

    fn challenge(&mut self, claim: String) -> Result<Vec<u8>, AuthenticateError> {
        let connection = self.actor.connection().ok_or(AuthenticateError::NoConnection)?;
        Ok(connection.challenge(&claim, self.host())?.to_vec())
    }

    fn authenticate(&mut self, credential: Vec<u8>) -> Result<String, AuthenticateError> {
        let connection = self.actor.connection().ok_or(AuthenticateError::NoConnection)?;
        let principal = connection.authenticate(&credential, self.actor.capsule_name(), self.host())?;
        let standing = self.host().gate.authority().standing(&principal);
        let account = self.host().ledger.account(&principal);
        self.act_for(standing, &account);
        self.limits.charge_to(&account);
        self.actor.charge_to(&account);
        Ok(principal.as_str().to_owned())
    }
}
