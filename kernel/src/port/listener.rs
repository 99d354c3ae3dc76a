//! Unix sockets that accept connections (A1, A3, A6, K14).
//!
//! The listener takes the peer's credentials from the operating system, enforces the caps before anything else is spent on a peer,
//! and hands the stream to its owner. Which socket accepted a connection is all the privilege that it will ever have (A2).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::home::Socket;
use crate::metrics::Metrics;

/// Who is on the other end, as the operating system tells it when the connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Process; 0 when it is not visible from here.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// On one socket, operators' reserve included.
    pub per_socket: usize,
    /// By one user on one socket.
    pub per_uid: usize,
    /// Of those on the operator socket, kept for the daemon's own user.
    pub operator_reserve: usize,
}

/// Counts of one socket. A [`Seat`] is a connection's place in them and cannot leak: it is given back by being dropped.
#[derive(Debug)]
pub struct Seats {
    caps: Caps,
    kind: Socket,
    own_uid: u32,
    taken: Mutex<HashMap<u32, usize>>,
    /// Failures that connections of a user caused, and when the last was.
    faults: Mutex<HashMap<u32, (u32, Instant)>>,
    metrics: Arc<Metrics>,
    /// When somebody was last said to be turned away, and how many were since: a flood of peers must not be a flood of lines.
    turned_away: Mutex<(Option<Instant>, u64)>,
    /// Connections of all sockets, for whoever waits for them to end.
    open: watch::Sender<usize>,
}

/// Failures that a user's connections may cause before the user is turned away for [`FAULT_PENALTY`].
const FAULTS_MAX: u32 = 5;

/// How long after its last failure a user who caused too many is turned away.
const FAULT_PENALTY: Duration = Duration::from_secs(60);

/// How often the log has a line about peers that are turned away.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// A connection's place.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seat {
    /// As [`Seats::turn_away`].
    pub fn turn_away(&self) -> Option<u64> {
        self.seats.turn_away()
    }

    /// The connection's handler failed on what its peer sent.
    pub fn count_fault(&self) {
        let mut faults = self.seats.faults.lock();
        faults.retain(|_, (_, last)| last.elapsed() < FAULT_PENALTY);
        let (count, last) = faults.entry(self.uid).or_insert((0, Instant::now()));
        (*count, *last) = (*count + 1, Instant::now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
        self.seats.metrics.connections_open.decrement();
        self.seats.open.send_modify(|open| *open -= 1);
    }
}

/// Why a peer is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// The socket has as many connections as it may.
    #[error("the socket has as many connections as it may")]
    SocketFull,
    /// This user has as many connections as one may.
    #[error("this user has as many connections as one may")]
    UserFull,
    /// This user's connections made their handler fail too often.
    #[error("connections of this user made their handler fail too often; it may come back in a minute")]
    Faulty,
    /// Only the daemon's own user may use the operator socket.
    #[error("only the daemon's own user may use the operator socket")]
    NotOperator,
}

impl Seats {
    /// All free.
    pub fn new(kind: Socket, caps: Caps, own_uid: u32, metrics: Arc<Metrics>, open: watch::Sender<usize>) -> Arc<Self> {
        Arc::new(Self {
            caps,
            kind,
            own_uid,
            taken: Mutex::default(),
            faults: Mutex::default(),
            metrics,
            turned_away: Mutex::default(),
            open,
        })
    }

    /// Somebody is turned away. Returns how many were since the last line about it, when it is time for another.
    pub fn turn_away(&self) -> Option<u64> {
        let mut state = self.turned_away.lock();
        state.1 += 1;
        if state.0.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return None;
        }
        state.0 = Some(Instant::now());
        Some(std::mem::take(&mut state.1))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().values().sum()
    }

    /// A place for a peer of that user.
    ///
    /// # Errors
    /// [`TurnedAway`] says which cap is reached.
    pub fn take(self: &Arc<Self>, uid: u32) -> Result<Seat, TurnedAway> {
        if self.kind == Socket::Operator && uid != self.own_uid && uid != 0 {
            return Err(TurnedAway::NotOperator);
        }
        let faulty = |(count, last): &(u32, Instant)| *count >= FAULTS_MAX && last.elapsed() < FAULT_PENALTY;
        // The daemon's own user is not locked out of it.
        if uid != self.own_uid && self.faults.lock().get(&uid).is_some_and(faulty) {
            return Err(TurnedAway::Faulty);
        }
        let mut taken = self.taken.lock();
        let all: usize = taken.values().sum();
        let reserve = if self.kind == Socket::Operator && uid != self.own_uid {
            self.caps.operator_reserve
        } else {
            0
        };
        if all + reserve >= self.caps.per_socket {
            return Err(TurnedAway::SocketFull);
        }
        let mine = taken.entry(uid).or_insert(0);
        // On the operator socket there is nobody but the owner to keep places for.
        let owner = self.kind == Socket::Operator && uid == self.own_uid;
        if !owner && *mine >= self.caps.per_uid {
            return Err(TurnedAway::UserFull);
        }
        *mine += 1;
        drop(taken);
        self.metrics.connections_open.increment();
        self.open.send_modify(|open| *open += 1);
        Ok(Seat {
            seats: Arc::clone(self),
            uid,
        })
    }
}

/// Takes accepted connections on.
pub trait Accept: Send + Sync {
    /// A peer is connected. Dropping the stream turns it away.
    fn accept(&self, stream: UnixStream, peer: Peer, kind: Socket, seat: Seat);

    /// A peer was turned away.
    fn turned_away(&self, kind: Socket, reason: &TurnedAway);
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A directory is in the way.
    #[error("{0} is a directory; move it away")]
    InTheWay(PathBuf),
    /// What the service manager has bound is open to more than it may be.
    #[error("the service manager made {path} with mode {mode:04o}, it may have {allowed:04o} at most")]
    TooOpen {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they may be.
        allowed: u32,
    },
    /// The operating system refuses.
    #[error("cannot bind {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A bound socket; its file is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
    kind: Socket,
    /// Bound by the service manager, whose file it is.
    inherited: bool,
}

/// Sockets that the service manager has bound for this process (`LISTEN_FDS`), by path.
#[derive(Debug, Default)]
pub struct Inherited(Mutex<HashMap<PathBuf, std::os::unix::net::UnixListener>>);

impl Inherited {
    /// Takes them from the environment. One that has no path is none of ours, and is closed.
    pub fn take() -> Self {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = HashMap::new();
        for n in 0..passed.len() {
            let Ok(Some(socket)) = passed.take_unix_listener(n) else {
                continue;
            };
            let address = socket.local_addr().ok();
            match address.as_ref().and_then(|address| address.as_pathname()) {
                Some(path) => drop(sockets.insert(path.to_owned(), socket)),
                None => tracing::warn!(n, "the service manager passed a socket without a path"),
            }
        }
        Self(Mutex::new(sockets))
    }

    /// The one that is bound there, if there is one.
    pub fn at(&self, path: &Path) -> Option<std::os::unix::net::UnixListener> {
        self.0.lock().remove(path)
    }
}

/// Permissions of a socket's file (A1).
fn mode(kind: Socket) -> u32 {
    match kind {
        Socket::Operator => 0o600,
        Socket::Session => 0o660,
    }
}

/// How long to wait after an error of `accept` that will not go away by itself at once (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Binds a socket of that kind there, replacing a stale file. The caller holds the home's lock, so a socket file that
    /// exists belongs to nobody (K1).
    ///
    /// # Errors
    /// [`BindError`] names the path.
    #[expect(clippy::disallowed_methods, reason = "this module owns the socket files")]
    pub fn bind(kind: Socket, path: &Path) -> Result<Self, BindError> {
        let io = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::symlink_metadata(path) {
            // `run/` is the daemon's own, and nothing in it is worth keeping over a start (A1).
            Ok(found) if !found.is_dir() => std::fs::remove_file(path).map_err(io)?,
            Ok(_) => return Err(BindError::InTheWay(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io(e)),
        }
        let socket = UnixListener::bind(path).map_err(io)?;
        // The directory is 0700, so nobody can connect between these two lines.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode(kind))).map_err(io)?;
        let inode = std::fs::symlink_metadata(path).map_err(io)?.ino();
        Ok(Self {
            socket,
            path: path.to_owned(),
            inode,
            kind,
            inherited: false,
        })
    }

    /// Takes a socket that the service manager has bound there.
    ///
    /// # Errors
    /// [`BindError`] names the path.
    pub fn inherit(kind: Socket, path: &Path, socket: std::os::unix::net::UnixListener) -> Result<Self, BindError> {
        let io = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        let found = std::fs::symlink_metadata(path).map_err(io)?;
        let (bits, allowed) = (found.mode() & 0o777, mode(kind));
        if bits & !allowed != 0 {
            return Err(BindError::TooOpen {
                path: path.to_owned(),
                mode: bits,
                allowed,
            });
        }
        socket.set_nonblocking(true).map_err(io)?;
        Ok(Self {
            socket: UnixListener::from_std(socket).map_err(io)?,
            path: path.to_owned(),
            inode: found.ino(),
            kind,
            inherited: true,
        })
    }

    /// Which socket it is.
    pub fn kind(&self) -> Socket {
        self.kind
    }

    /// Accepts until the future of this is dropped.
    pub async fn run(self, seats: Arc<Seats>, accept: Arc<dyn Accept>, metrics: Arc<Metrics>) {
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Tried again and again while no descriptor is left, which must not fill the log.
                    if let Some(times) = seats.turn_away() {
                        tracing::warn!(%error, times, socket = %self.path.display(), "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = match stream.peer_cred() {
                Ok(cred) => Peer {
                    pid: cred.pid().and_then(|p| u32::try_from(p).ok()).unwrap_or(0),
                    uid: cred.uid(),
                    gid: cred.gid(),
                },
                Err(error) => {
                    tracing::warn!(%error, "a peer without credentials is turned away");
                    continue;
                }
            };
            match seats.take(peer.uid) {
                Ok(seat) => accept.accept(stream, peer, self.kind, seat),
                Err(reason) => {
                    metrics.connections_refused.increment();
                    accept.turned_away(self.kind, &reason);
                    let Some(peers) = seats.turn_away() else { continue };
                    tracing::warn!(
                        peers, %reason, peer.uid, peer.pid, socket = self.kind.as_str(), "a connection is turned away");
                }
            }
        }
    }
}

impl Drop for Listener {
    #[expect(clippy::disallowed_methods, reason = "this module owns the socket files")]
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode);
        if ours
            && !self.inherited
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, socket = %self.path.display(), "cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A3, K15: caps hold, and places come back.
    #[test]
    fn seats() {
        let caps = Caps {
            per_socket: 4,
            per_uid: 3,
            operator_reserve: 2,
        };
        let session = Seats::new(Socket::Session, caps, 1000, Arc::default(), watch::channel(0).0);
        let mut held: Vec<Seat> = (0..3).map(|_| session.take(7).unwrap()).collect();
        assert_eq!(session.take(7).unwrap_err(), TurnedAway::UserFull);
        held.push(session.take(1000).unwrap());
        assert_eq!(session.take(8).unwrap_err(), TurnedAway::SocketFull);
        held.clear();
        assert_eq!(session.taken(), 0);

        let other = session.take(7).unwrap();
        (0..FAULTS_MAX).for_each(|_| other.count_fault());
        assert_eq!(session.take(7).unwrap_err(), TurnedAway::Faulty);
        assert!(session.take(8).is_ok());

        let operator = Seats::new(Socket::Operator, caps, 1000, Arc::default(), watch::channel(0).0);
        assert_eq!(operator.take(7).unwrap_err(), TurnedAway::NotOperator);
        let _root = [operator.take(0).unwrap(), operator.take(0).unwrap()];
        assert_eq!(
            operator.take(0).unwrap_err(),
            TurnedAway::SocketFull,
            "the reserve is the owner's"
        );
        let _own = [operator.take(1000).unwrap(), operator.take(1000).unwrap()];
    }
}
