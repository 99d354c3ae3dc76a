//! The keeper's conversation with the daemon, and how a later daemon comes to have it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventFlags};
use rustix::fs::{Mode, chmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};
use rustix::process::{Signal, getpid};
use subtle::ConstantTimeEq as _;

use super::super::children::Child;
use super::super::protocol::{Connection, FromKeeper, ProtocolError, SECRET_BYTES, ToKeeper, VERSION, encode};
use super::super::tree;
use super::{CANDIDATE, DAEMON, Keeper, LISTENER, LOOK_AGAIN_AFTER, about};
use crate::home::remove_file;

/// Within this a daemon that connects has to say who it is.
const HELLO_MAX: Duration = Duration::from_secs(2);

/// Connections that have not said yet who they are; who comes when there are so many is turned away.
const CANDIDATES_MAX: usize = 8;

/// Packets that wait to be sent before no more requests are read.
const QUEUE_MAX: usize = 1024;

/// Programs that are being started before no more requests are read: launchers are processes, and compete for the processor.
const LAUNCHING_MAX: usize = 256;

/// Requests of one turn of the loop, so that ends of children are seen in between.
const REQUESTS_MAX: usize = 64;

/// How long children have when the daemon is gone without having ended them.
const ORPHANED_GRACE: Duration = Duration::from_secs(5);

/// The longest time that children may be given to end.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// A packet that is to be sent, with what is beside it.
pub(super) struct Outgoing {
    packet: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// The end of an adopted child, which the next daemon has to hear if this one does not.
    of_adopted: bool,
}

/// The conversation with a daemon.
pub(super) struct Daemon {
    connection: Connection,
    /// Whether it has said who it is.
    greeted: bool,
    pub(super) outgoing: VecDeque<Outgoing>,
    /// What the epoll was told to watch for.
    watched: EventFlags,
}

/// Somebody who has connected and not yet said who they are.
pub(super) struct Candidate {
    connection: Connection,
    pub(super) until: Instant,
}

impl Keeper {
    pub(super) fn talk_with(&mut self, connection: Connection) -> io::Result<()> {
        epoll::add(&self.epoll, &connection, about(DAEMON, 0), EventFlags::IN)?;
        self.daemon = Some(Daemon {
            connection,
            greeted: false,
            outgoing: VecDeque::new(),
            watched: EventFlags::IN,
        });
        Ok(())
    }

    pub(super) fn hang_up(&mut self) {
        // Closed, it is not watched any more.
        self.daemon = None;
    }

    /// The daemon is gone: whatever is not to be adopted ends.
    fn orphaned(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        let ends = daemon.outgoing.into_iter().filter(|outgoing| outgoing.of_adopted);
        self.unheard.extend(ends.map(|outgoing| outgoing.packet));
        // Nobody was told that these run.
        self.children.keep_only_running();
        self.ending_asked = false;
        if self.ending.is_none() {
            self.begin_end(ORPHANED_GRACE);
        }
        // Who is to be adopted is offered at once: a daemon that starts now must not start a second one beside it. If that fails, it is
        // tried again when the others have ended.
        if self.children.iter().any(|child| child.adopt) && self.listener.is_none() {
            let _ = self.listen();
        }
    }

    /// Reads what the daemon has said.
    pub(super) fn hear(&mut self, flags: EventFlags) {
        for _ in 0..REQUESTS_MAX {
            if !self.may_read() {
                // Nobody is there who would take what has to be sent first.
                if flags.contains(EventFlags::HUP) {
                    self.orphaned();
                }
                return;
            }
            let Some(daemon) = &self.daemon else { return };
            let greeted = daemon.greeted;
            let heard = match daemon.connection.receive::<ToKeeper>(&mut self.buffer) {
                Ok((request, beside)) => self.obey(request, &beside, greeted),
                Err(ProtocolError::WouldBlock) => return,
                Err(ProtocolError::Closed) => return self.orphaned(),
                Err(error) => Err(error.to_string()),
            };
            if let Err(message) = heard {
                self.tell(&FromKeeper::Refused { message }, Vec::new());
                self.send();
                return self.orphaned();
            }
        }
    }

    fn may_read(&self) -> bool {
        // What an earlier daemon left ends before anything is started for the next one.
        if self.ending.is_some() && !self.ending_asked {
            return false;
        }
        let room = |daemon: &Daemon| daemon.outgoing.len() < QUEUE_MAX;
        self.children.launching() < LAUNCHING_MAX && self.daemon.as_ref().is_some_and(room)
    }

    fn obey(&mut self, request: ToKeeper, beside: &[OwnedFd], greeted: bool) -> Result<(), String> {
        match request {
            ToKeeper::Hello {
                version,
                secret,
                nofile,
            } if !greeted => {
                self.secret = Some(known(version, &secret)?);
                self.greet(nofile);
                Ok(())
            }
            _ if !greeted => Err("a greeting comes first".to_owned()),
            ToKeeper::Hello { .. } => Err("it was greeted already".to_owned()),
            ToKeeper::Spawn { id, spec } => {
                self.spawn(id, spec, beside);
                Ok(())
            }
            ToKeeper::Mount { id, layers } => {
                self.merge(id, layers);
                Ok(())
            }
            ToKeeper::Signal { id, signal, reach } => {
                let signal = Signal::from_named_raw(signal).ok_or_else(|| format!("{signal} is no signal"))?;
                self.signal(id, signal, reach);
                Ok(())
            }
            ToKeeper::CloseInput { id } => {
                if let Some(child) = self.children.named(id) {
                    child.ends.input = None;
                }
                Ok(())
            }
            ToKeeper::End { grace_ms } => {
                self.ending_asked = true;
                self.begin_end(Duration::from_millis(grace_ms).min(GRACE_MAX));
                Ok(())
            }
        }
    }

    /// Greets a daemon and gives it what an earlier one left.
    fn greet(&mut self, nofile: u64) {
        self.common.nofile = nofile;
        if let Some(daemon) = &mut self.daemon {
            daemon.greeted = true;
        }
        let kept: Vec<_> = self.children.iter().filter(|child| child.adopt).map(kept).collect();
        let greeting = FromKeeper::Hello {
            version: VERSION,
            pid: getpid().as_raw_pid(),
            kept: u32::try_from(kept.len()).unwrap_or(u32::MAX),
        };
        self.tell(&greeting, Vec::new());
        for (kept, descriptors) in kept {
            self.tell(&kept, descriptors);
        }
        for packet in std::mem::take(&mut self.unheard) {
            self.push(packet, Vec::new(), true);
        }
    }

    pub(super) fn tell(&mut self, message: &FromKeeper, descriptors: Vec<OwnedFd>) {
        // Everything that is told is far shorter than a packet may be.
        if let Ok(packet) = encode(message) {
            self.push(packet, descriptors, false);
        }
    }

    /// Tells how a child ended: if it was adopted and nobody listens, the next daemon.
    pub(super) fn tell_end(&mut self, message: &FromKeeper, of_adopted: bool) {
        if let Ok(packet) = encode(message) {
            match &self.daemon {
                Some(_) => self.push(packet, Vec::new(), of_adopted),
                None if of_adopted => self.unheard.push(packet),
                None => {}
            }
        }
    }

    fn push(&mut self, packet: Vec<u8>, descriptors: Vec<OwnedFd>, of_adopted: bool) {
        if let Some(daemon) = &mut self.daemon {
            daemon.outgoing.push_back(Outgoing {
                packet,
                descriptors,
                of_adopted,
            });
        }
    }

    /// Sends what there is room for.
    pub(super) fn send(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        while let Some(next) = daemon.outgoing.front() {
            let descriptors: Vec<BorrowedFd<'_>> = next.descriptors.iter().map(|end| end.as_fd()).collect();
            match daemon.connection.send_packet(&next.packet, &descriptors) {
                Ok(()) => drop(daemon.outgoing.pop_front()),
                Err(ProtocolError::WouldBlock) => return,
                Err(_) => return self.orphaned(),
            }
        }
    }

    /// Watches for what can be dealt with.
    pub(super) fn watch_daemon(&mut self) -> io::Result<()> {
        let may_read = self.may_read();
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, may_read);
        wanted.set(EventFlags::OUT, !daemon.outgoing.is_empty());
        if wanted != daemon.watched {
            epoll::modify(&self.epoll, &daemon.connection, about(DAEMON, 0), wanted)?;
            daemon.watched = wanted;
        }
        Ok(())
    }

    pub(super) fn listen(&mut self) -> io::Result<()> {
        let path = self.home.keeper_socket();
        remove_file(&path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        // Nobody else comes into the directory before this.
        chmod(&path, Mode::RUSR | Mode::WUSR)?;
        listen(&socket, i32::try_from(CANDIDATES_MAX).unwrap_or(1))?;
        epoll::add(&self.epoll, &socket, about(LISTENER, 0), EventFlags::IN)?;
        self.listener = Some(socket);
        Ok(())
    }

    pub(super) fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
            // No descriptor is left, perhaps, and the connection still waits: not the whole time is spent on that.
            return tree::pause(LOOK_AGAIN_AFTER);
        };
        let ours = sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
        if !ours || self.candidates.len() >= CANDIDATES_MAX {
            return;
        }
        self.connections += 1;
        let connection = Connection::new(socket);
        if epoll::add(
            &self.epoll,
            &connection,
            about(CANDIDATE, self.connections),
            EventFlags::IN,
        )
        .is_ok()
        {
            let until = Instant::now() + HELLO_MAX;
            self.candidates
                .insert(self.connections, Candidate { connection, until });
        }
    }

    /// Hears who has connected: the one who knows the secret is the daemon, and nobody else is any more.
    pub(super) fn consider(&mut self, number: u64) -> io::Result<()> {
        let Some(candidate) = self.candidates.remove(&number) else {
            return Ok(());
        };
        let (nofile, said) = match candidate.connection.receive::<ToKeeper>(&mut self.buffer) {
            Ok((
                ToKeeper::Hello {
                    version,
                    secret,
                    nofile,
                },
                _,
            )) => (nofile, known(version, &secret)),
            Ok(_) => (0, Err("a greeting comes first".to_owned())),
            Err(error) => (0, Err(error.to_string())),
        };
        let is_right = |secret: &Vec<u8>| self.secret.as_ref().is_some_and(|known| known.ct_eq(secret).into());
        let refused = match said {
            Ok(secret) if is_right(&secret) => None,
            Ok(_) => Some("it is not of this home".to_owned()),
            Err(message) => Some(message),
        };
        if let Some(message) = refused {
            let _ = candidate.connection.send(&FromKeeper::Refused { message }, &[]);
            return Ok(());
        }
        self.candidates.clear();
        self.listener = None;
        remove_file(&self.home.keeper_socket())?;
        epoll::delete(&self.epoll, &candidate.connection)?;
        self.talk_with(candidate.connection)?;
        self.greet(nofile);
        // It waits for the end of what another one left: that has had its time.
        self.ending = self.ending.map(|_| Instant::now());
        Ok(())
    }

    pub(super) fn forget_candidates(&mut self) {
        let now = Instant::now();
        self.candidates.retain(|_, candidate| candidate.until > now);
    }
}

/// What a later daemon is told of a child. Without a descriptor left its streams cannot be given, and it goes on without anybody who reads.
fn kept(child: &Child) -> (FromKeeper, Vec<OwnedFd>) {
    let ends = child.ends.try_clone().unwrap_or_default();
    let kept = FromKeeper::Kept {
        id: child.id,
        pid: child.pid.as_raw_pid(),
        started_at_ms: child.started_at_ms,
        notes: child.notes.clone(),
        streams: ends.streams(),
    };
    (kept, ends.into_descriptors())
}

/// The secret in a greeting, if it is one that is understood.
fn known(version: u32, secret: &str) -> Result<Vec<u8>, String> {
    if version != VERSION {
        return Err(format!("it speaks version {version}, this keeper speaks {VERSION}"));
    }
    let secret = hex::decode(secret).map_err(|_| "its secret is not in hex".to_owned())?;
    if secret.len() != SECRET_BYTES {
        return Err(format!("its secret does not have {SECRET_BYTES} bytes"));
    }
    Ok(secret)
}
