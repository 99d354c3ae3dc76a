//! Unix sockets that accept connections (A1, A3, A6, K14).
//!
//! The listener takes the peer's credentials from the operating system, enforces the caps before anything else is spent on a peer,
//! and hands the stream to its owner. Which socket accepted a connection is all the privilege that it will ever have (A2).

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use parking_lot::Mutex;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::home::Socket;
use crate::metrics::Metrics;
use crate::port::stream::Stream;

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
    /// By one user on one socket. The daemon's own user is bounded by principals instead: most of them connect as that user.
    pub per_uid: usize,
    /// Of those on the operator socket, kept for the owner.
    pub operator_reserve: usize,
}

/// Of a socket's places, one in so many is what one principal may have at most.
const OF_ONE: usize = 2;

/// Of a socket's places, one in so many is what those may have together who did not show who they are.
const OF_NOBODY: usize = 4;

/// A place that is taken.
#[derive(Debug)]
struct Held {
    peer: Peer,
    /// Who has it; nobody knows yet while it is in its handshake.
    who: Option<Principal>,
    /// What is closed when it gives way.
    stream: Weak<Stream>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    /// In the order in which they were taken.
    held: BTreeMap<u64, Held>,
}

/// The places of one socket. A [`Seat`] is a connection's place in them and cannot leak: it is given back by being dropped.
///
/// Who has how many is decided twice. A peer that comes takes a place while there is any; where there is none, somebody who is in the
/// handshake gives way, one of the process that has most of those. When it is known who it is ([`Seat::settle`]), its principal must
/// have room: half of all for one, a quarter for all who did not show who they are, none of the reserve; no bound for the owner.
#[derive(Debug)]
pub struct Seats {
    caps: Caps,
    kind: Socket,
    own_uid: u32,
    places: Mutex<Places>,
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
    id: u64,
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

    /// What is closed when this gives way.
    pub fn serves(&self, stream: &Arc<Stream>) {
        if let Some(held) = self.seats.places.lock().held.get_mut(&self.id) {
            held.stream = Arc::downgrade(stream);
        }
    }

    /// It is known who has this place.
    ///
    /// # Errors
    /// [`NoPlace`]: there is none for that principal. It keeps this until it is dropped.
    pub fn settle(&self, principal: &Principal) -> Result<(), NoPlace> {
        let caps = self.seats.caps;
        let mut places = self.seats.places.lock();
        let known = || places.held.values().filter_map(|held| held.who.as_ref());
        let theirs = known().filter(|who| *who == principal).count();
        if *principal != Principal::default_owner() {
            let part = if principal.is_anonymous() { OF_NOBODY } else { OF_ONE };
            let max = (caps.per_socket / part).max(1);
            if theirs >= max {
                return Err(NoPlace::OfOne(principal.clone(), max));
            }
            if known().count() + self.seats.reserve() >= caps.per_socket {
                return Err(NoPlace::Reserved);
            }
        }
        let held = places.held.get_mut(&self.id).ok_or(NoPlace::GaveWay)?;
        held.who = Some(principal.clone());
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Who gave way has lost it already.
        self.seats.places.lock().held.remove(&self.id);
        self.seats.metrics.connections_open.decrement();
        self.seats.open.send_modify(|open| *open -= 1);
    }
}

/// Why a peer is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// The socket has as many connections as it may, and each has shown who it is.
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
    /// It was in its handshake when somebody else needed a place.
    #[error("it had not shown who it is when somebody else needed a place")]
    GaveWay,
}

/// Why somebody who has shown who it is has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// One principal may have so many.
    #[error(
        "{0} has {1} connections on this socket, which is all that it may have; a place frees when one of them closes"
    )]
    OfOne(Principal, usize),
    /// What is left is kept for the owner.
    #[error(
        "every place on this socket is taken but those kept for the owner of the daemon; one frees when a connection closes"
    )]
    Reserved,
    /// Somebody else got it.
    #[error("the socket has as many connections as it may, and this one gave way to another")]
    GaveWay,
}

impl Places {
    /// Frees a place of somebody who is in the handshake, if there is one among those: of the process that has most of them, the oldest.
    fn displace(&mut self, among: impl Fn(&Held) -> bool) -> bool {
        let mut of: HashMap<u32, (usize, u64)> = HashMap::new();
        for (id, held) in &self.held {
            if held.who.is_none() && among(held) {
                of.entry(held.peer.pid).or_insert((0, *id)).0 += 1;
            }
        }
        let most = of
            .into_values()
            .max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
        let Some(held) = most.and_then(|(_, oldest)| self.held.remove(&oldest)) else {
            return false;
        };
        if let Some(stream) = held.stream.upgrade() {
            stream.abort();
        }
        true
    }
}

impl Seats {
    /// All free.
    pub fn new(kind: Socket, caps: Caps, own_uid: u32, metrics: Arc<Metrics>, open: watch::Sender<usize>) -> Arc<Self> {
        Arc::new(Self {
            caps,
            kind,
            own_uid,
            places: Mutex::default(),
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
        self.places.lock().held.len()
    }

    /// Places that are the owner's.
    fn reserve(&self) -> usize {
        match self.kind {
            Socket::Operator => self.caps.operator_reserve,
            Socket::Session => 0,
        }
    }

    /// A place for that peer, and whether somebody gave way for it.
    ///
    /// # Errors
    /// [`TurnedAway`] says which cap is reached.
    pub fn take(self: &Arc<Self>, peer: Peer) -> Result<(Seat, bool), TurnedAway> {
        let own = peer.uid == self.own_uid;
        if self.kind == Socket::Operator && !own && peer.uid != 0 {
            return Err(TurnedAway::NotOperator);
        }
        let faulty = |(count, last): &(u32, Instant)| *count >= FAULTS_MAX && last.elapsed() < FAULT_PENALTY;
        // The daemon's own user is not locked out of it.
        if !own && self.faults.lock().get(&peer.uid).is_some_and(faulty) {
            return Err(TurnedAway::Faulty);
        }
        let mut places = self.places.lock();
        let mut gave_way = false;
        let theirs = |held: &Held| held.peer.uid == peer.uid;
        if !own && places.held.values().filter(|held| theirs(held)).count() >= self.caps.per_uid {
            gave_way = places.displace(theirs);
            if !gave_way {
                return Err(TurnedAway::UserFull);
            }
        }
        if places.held.len() >= self.caps.per_socket {
            gave_way = places.displace(|_| true);
            if !gave_way {
                return Err(TurnedAway::SocketFull);
            }
        }
        places.last += 1;
        let id = places.last;
        let (who, stream) = (None, Weak::new());
        places.held.insert(id, Held { peer, who, stream });
        drop(places);
        self.metrics.connections_open.increment();
        self.open.send_modify(|open| *open += 1);
        let seat = Seat {
            seats: Arc::clone(self),
            id,
            uid: peer.uid,
        };
        Ok((seat, gave_way))
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
            let turned_away = |reason: TurnedAway| {
                metrics.connections_refused.increment();
                accept.turned_away(self.kind, &reason);
                if let Some(peers) = seats.turn_away() {
                    tracing::warn!(
                        peers, %reason, peer.uid, peer.pid, socket = self.kind.as_str(), "a connection is turned away");
                }
            };
            match seats.take(peer) {
                Ok((seat, gave_way)) => {
                    if gave_way {
                        turned_away(TurnedAway::GaveWay);
                    }
                    accept.accept(stream, peer, self.kind, seat);
                }
                Err(reason) => turned_away(reason),
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

    const CAPS: Caps = Caps {
        per_socket: 8,
        per_uid: 3,
        operator_reserve: 2,
    };

    fn seats(kind: Socket) -> Arc<Seats> {
        Seats::new(kind, CAPS, 1000, Arc::default(), watch::channel(0).0)
    }

    fn peer(uid: u32, pid: u32) -> Peer {
        Peer { pid, uid, gid: uid }
    }

    fn who(name: &str) -> Principal {
        Principal::stamped(name).unwrap()
    }

    /// A place of the daemon's own user, for that principal.
    fn settled(seats: &Arc<Seats>, name: &str) -> Result<Seat, NoPlace> {
        let (seat, _) = seats.take(peer(1000, 1)).unwrap();
        seat.settle(&who(name)).map(|()| seat)
    }

    /// A3, K15: caps hold, and places come back.
    #[test]
    fn caps_of_users() {
        let session = seats(Socket::Session);
        let take = |uid| session.take(peer(uid, uid)).map(|(seat, _)| seat);
        let held: Vec<Seat> = (0..3).map(|_| take(7).unwrap()).collect();
        held.iter().for_each(|seat| seat.settle(&who("ann")).unwrap());
        assert_eq!(take(7).unwrap_err(), TurnedAway::UserFull);
        let own: Vec<Seat> = (0..5).map(|_| settled(&session, "default").unwrap()).collect();
        assert_eq!(take(8).unwrap_err(), TurnedAway::SocketFull);
        drop((own, held));
        assert_eq!(session.taken(), 0);

        let other = take(7).unwrap();
        (0..FAULTS_MAX).for_each(|_| other.count_fault());
        assert_eq!(take(7).unwrap_err(), TurnedAway::Faulty);
        assert!(take(8).is_ok());
        assert_eq!(
            seats(Socket::Operator).take(peer(7, 7)).unwrap_err(),
            TurnedAway::NotOperator
        );
    }

    /// K14, K15: one principal has half of a socket's places at most, whoever shows nothing a quarter, and the reserve is the owner's.
    #[test]
    fn caps_of_principals() {
        let session = seats(Socket::Session);
        let _nobodies: Vec<Seat> = (0..2).map(|_| settled(&session, "anonymous").unwrap()).collect();
        let anonymous = settled(&session, "anonymous").unwrap_err();
        assert_eq!(anonymous, NoPlace::OfOne(Principal::anonymous(), 2));
        let _keyed = settled(&session, "ann").unwrap();

        let operator = seats(Socket::Operator);
        let mut ann: Vec<Seat> = (0..4).map(|_| settled(&operator, "ann").unwrap()).collect();
        assert_eq!(settled(&operator, "ann").unwrap_err(), NoPlace::OfOne(who("ann"), 4));
        let _ben = [settled(&operator, "ben").unwrap(), settled(&operator, "ben").unwrap()];
        assert_eq!(settled(&operator, "cid").unwrap_err(), NoPlace::Reserved);
        let _own = [
            settled(&operator, "default").unwrap(),
            settled(&operator, "default").unwrap(),
        ];
        ann.pop();
        let _own = settled(&operator, "default").unwrap();
    }

    /// K14: who is in the handshake gives way, the process first that has most of those; who has shown who it is does not.
    #[test]
    fn strangers_give_way() {
        let operator = seats(Socket::Operator);
        let _own = settled(&operator, "default").unwrap();
        let (honest, _) = operator.take(peer(1000, 2)).unwrap();
        let flood: Vec<Seat> = (0..20).map(|_| operator.take(peer(1000, 3)).unwrap().0).collect();
        assert_eq!(operator.taken(), 8);
        honest.settle(&who("default")).unwrap();
        assert_eq!(flood[0].settle(&who("ann")).unwrap_err(), NoPlace::GaveWay);
        flood[19].settle(&who("ann")).unwrap();
        drop(flood);
        assert_eq!(operator.taken(), 2, "who gave way gives nothing back twice");
    }
}
