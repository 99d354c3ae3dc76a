//! The keeper's loop.
//!
//! One epoll over everything that can happen; nothing blocks. If the daemon does not read, nothing more is read from it, so that what
//! waits to be sent is bounded by the children that there are.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, OFlags, chmod, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, getrlimit, kill_process, kill_process_group, pidfd_open,
    set_child_subreaper, setrlimit,
};
use subtle::ConstantTimeEq as _;

use super::children::{Child, Children, Common, Ended, Launching, Phase};
use super::guard::{end_everything_below, forget, ignore_signals, is_parent};
use super::protocol::{ChildId, Connection, FromKeeper, ProtocolError, Reach, SECRET_BYTES, ToKeeper, VERSION, encode};
use super::{mark, tree};
use crate::home::{Home, remove_file};

/// Within this a daemon that connects has to say who it is.
pub(super) const HELLO_MAX: Duration = Duration::from_secs(2);

/// Connections that have not said yet who they are; who comes when there are so many is turned away.
const CANDIDATES_MAX: usize = 8;

/// Packets that wait to be sent before no more requests are read.
const QUEUE_MAX: usize = 1024;

/// Programs that are being started before no more requests are read: launchers are processes, and compete for the processor.
const LAUNCHING_MAX: usize = 256;

/// Requests of one turn of the loop, so that ends of children are seen in between.
const REQUESTS_MAX: usize = 64;

/// Events of one turn of the loop.
const EVENTS_MAX: usize = 256;

/// How long children have when the daemon is gone without having ended them.
const ORPHANED_GRACE: Duration = Duration::from_secs(5);

/// The longest time that children may be given to end.
const GRACE_MAX: Duration = Duration::from_secs(600);

/// How long the end of a main process is not told because something that it left still dies.
const STRAYS_MAX: Duration = Duration::from_secs(1);

/// When something has to be looked at again that gives no sign.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

// What an event is about: these, or a child's process number with one of two kinds.
const SIGNALS: u64 = 0;
const GUARD: u64 = 1;
const DAEMON: u64 = 2;
const LISTENER: u64 = 3;
const CANDIDATE: u64 = 4;
const CONTROL: u64 = 5;
const ENDED: u64 = 6;
const KIND_BITS: u32 = 3;

fn about(kind: u64, number: u64) -> EventData {
    EventData::new_u64(number << KIND_BITS | kind)
}

fn of_child(kind: u64, pid: Pid) -> EventData {
    about(kind, u64::from(pid.as_raw_pid().unsigned_abs()))
}

/// A packet that is to be sent, with what is beside it.
struct Outgoing {
    packet: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The conversation with a daemon.
struct Daemon {
    connection: Connection,
    /// Whether it has said who it is.
    greeted: bool,
    outgoing: VecDeque<Outgoing>,
    /// What the epoll was told to watch for.
    watched: EventFlags,
}

/// Somebody who has connected and not yet said who they are.
struct Candidate {
    connection: Connection,
    until: Instant,
}

/// An end that was seen and not told yet, because something left behind still dies.
struct Exit {
    child: Child,
    ended: Ended,
    left_behind: u32,
}

struct Keeper {
    home: Home,
    epoll: OwnedFd,
    /// Readable when a child has ended: also one that is a stray.
    signals: OwnedFd,
    common: Common,
    /// What a later daemon must know.
    secret: Option<Vec<u8>>,
    daemon: Option<Daemon>,
    listener: Option<OwnedFd>,
    candidates: HashMap<u64, Candidate>,
    connections: u64,
    children: Children,
    /// Main processes whose end is told once no stray is left, or at this time.
    exits: Vec<Exit>,
    exits_until: Option<Instant>,
    /// Strays that were counted already.
    strays: HashSet<Pid>,
    strays_left: bool,
    /// Told to adopt by the next daemon: ends of adopted children that nobody has heard.
    unheard: Vec<Vec<u8>>,
    /// Since when the children that are not to be adopted are being ended: when they are killed.
    ending: Option<Instant>,
    buffer: Vec<u8>,
}

/// The keeper, from its start to its end: with the daemon's socket as standard input, and the lock as standard output.
///
/// # Errors
///
/// The system refused something, and there is no keeper any more; the guard ends what it held.
pub fn run(home: Home, guard: i32) -> io::Result<()> {
    ignore_signals()?;
    close_fds::set_fds_cloexec(3, &[]);
    set_child_subreaper(Some(getpid()))?;
    let guard = Pid::from_raw(guard).ok_or(io::ErrorKind::InvalidInput)?;
    let watched = pidfd_open(guard, PidfdFlags::empty())?;
    if !is_parent(guard) {
        return Err(io::Error::other("the guard is gone"));
    }
    // Children get the daemon's limit; the keeper itself holds descriptors of all of them.
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: hard,
            maximum: hard,
        },
    )?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    fcntl_setfl(&socket, OFlags::NONBLOCK)?;
    rustix::stdio::dup2_stdin(rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())?)?;
    let (signals, signalled) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    signal_hook::low_level::pipe::register(Signal::CHILD.as_raw(), signalled)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &signals, about(SIGNALS, 0), EventFlags::IN)?;
    epoll::add(&epoll, &watched, about(GUARD, 0), EventFlags::IN)?;
    let mut keeper = Keeper {
        common: Common {
            mark: mark::of_home(&home),
            nofile: 0,
        },
        home,
        epoll,
        signals,
        secret: None,
        daemon: None,
        listener: None,
        candidates: HashMap::new(),
        connections: 0,
        children: Children::default(),
        exits: Vec::new(),
        exits_until: None,
        strays: HashSet::new(),
        strays_left: false,
        unheard: Vec::new(),
        ending: None,
        buffer: Vec::new(),
    };
    keeper.talk_with(Connection::new(socket))?;
    let lived = keeper.run();
    // Whatever is left, also after an error, is the guard's to end; without a guard, this one's.
    if matches!(lived, Ok(End::GuardGone)) {
        end_everything_below();
        forget(&keeper.home);
    }
    lived.map(drop)
}

/// Why the loop ended.
enum End {
    /// There is no daemon and no child.
    Done,
    GuardGone,
}

impl Keeper {
    fn run(&mut self) -> io::Result<End> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.end_children();
            self.end_strays();
            self.send();
            self.watch_daemon()?;
            if self.is_done()? {
                return Ok(End::Done);
            }
            events.clear();
            let timeout = self.timeout().map(tree::timespec);
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                let number = data >> KIND_BITS;
                let pid = || i32::try_from(number).ok().and_then(Pid::from_raw);
                match data & ((1 << KIND_BITS) - 1) {
                    SIGNALS => self.signalled(),
                    GUARD => return Ok(End::GuardGone),
                    DAEMON => self.hear(flags),
                    LISTENER => self.accept(),
                    CANDIDATE => self.consider(number)?,
                    CONTROL => pid().into_iter().for_each(|pid| self.launching(pid)),
                    _ => pid().into_iter().for_each(|pid| self.ended(pid)),
                }
            }
            self.forget_candidates();
        }
    }

    /// When the loop has to go on although nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let again = |wanted: bool| wanted.then_some(now + LOOK_AGAIN_AFTER);
        let candidates = self.candidates.values().map(|candidate| candidate.until);
        // A packet that does not go although there is room waits for descriptors to be taken, which nothing tells.
        let stuck = self.daemon.as_ref().is_some_and(|daemon| !daemon.outgoing.is_empty());
        let times = [
            self.exits_until,
            self.ending.filter(|_| !self.children.is_empty()),
            again(self.strays_left),
            again(stuck),
        ];
        let next = times.into_iter().flatten().chain(candidates).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Whether nobody is left to be kept, nor to talk with.
    fn is_done(&mut self) -> io::Result<bool> {
        if self.ending.is_some() && self.exits.is_empty() && self.children.iter().all(|child| child.adopt) {
            let unsent = self.daemon.as_ref().is_some_and(|daemon| !daemon.outgoing.is_empty());
            if unsent {
                return Ok(false);
            }
            self.hang_up();
            self.ending = None;
        }
        if self.daemon.is_some() || self.ending.is_some() {
            return Ok(false);
        }
        if self.children.is_empty() && self.exits.is_empty() {
            return Ok(!self.strays_left);
        }
        if self.listener.is_none() && self.children.iter().all(|child| child.adopt) {
            self.listen()?;
        }
        Ok(false)
    }

    // ---- The daemon ----

    fn talk_with(&mut self, connection: Connection) -> io::Result<()> {
        epoll::add(&self.epoll, &connection, about(DAEMON, 0), EventFlags::IN)?;
        self.daemon = Some(Daemon {
            connection,
            greeted: false,
            outgoing: VecDeque::new(),
            watched: EventFlags::IN,
        });
        Ok(())
    }

    fn hang_up(&mut self) {
        // Closed, it is not watched any more.
        self.daemon = None;
    }

    /// The daemon is gone: whatever is not to be adopted ends.
    fn orphaned(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        // The next one hears how adopted children ended; it knows nothing of others.
        for outgoing in daemon.outgoing {
            let end = serde_json::from_slice(&outgoing.packet);
            if let Ok(FromKeeper::Exited { .. }) = end {
                self.unheard.push(outgoing.packet);
            }
        }
        if self.ending.is_none() {
            self.begin_end(ORPHANED_GRACE);
        }
    }

    /// Reads what the daemon has said.
    fn hear(&mut self, flags: EventFlags) {
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
                Ok((request, _)) => self.obey(request, greeted),
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
        let room = |daemon: &Daemon| daemon.outgoing.len() < QUEUE_MAX;
        self.children.launching() < LAUNCHING_MAX && self.daemon.as_ref().is_some_and(room)
    }

    fn obey(&mut self, request: ToKeeper, greeted: bool) -> Result<(), String> {
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
                self.spawn(id, spec);
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
        let kept: Vec<_> = self
            .children
            .iter()
            .filter(|child| child.adopt && matches!(child.phase, Phase::Running))
            .map(|child| {
                let kept = FromKeeper::Kept {
                    id: child.id,
                    pid: child.pid.as_raw_pid(),
                    started_at_ms: child.started_at_ms,
                    notes: child.notes.clone(),
                    streams: child.ends.streams(),
                };
                (kept, child.ends.try_clone())
            })
            .collect();
        self.tell(
            &FromKeeper::Hello {
                version: VERSION,
                pid: getpid().as_raw_pid(),
                kept: u32::try_from(kept.len()).unwrap_or(u32::MAX),
            },
            Vec::new(),
        );
        for (kept, ends) in kept {
            // Without a descriptor left its streams cannot be given, and it goes on without anybody who reads.
            let ends = ends.unwrap_or_default();
            let kept = match kept {
                FromKeeper::Kept {
                    id,
                    pid,
                    started_at_ms,
                    notes,
                    ..
                } => FromKeeper::Kept {
                    id,
                    pid,
                    started_at_ms,
                    notes,
                    streams: ends.streams(),
                },
                other => other,
            };
            self.tell(&kept, ends.into_descriptors());
        }
        for packet in std::mem::take(&mut self.unheard) {
            self.push(packet, Vec::new());
        }
    }

    fn tell(&mut self, message: &FromKeeper, descriptors: Vec<OwnedFd>) {
        // Everything that is told is far shorter than a packet may be.
        if let Ok(packet) = encode(message) {
            self.push(packet, descriptors);
        }
    }

    fn push(&mut self, packet: Vec<u8>, descriptors: Vec<OwnedFd>) {
        if let Some(daemon) = &mut self.daemon {
            daemon.outgoing.push_back(Outgoing { packet, descriptors });
        }
    }

    /// Sends what there is room for.
    fn send(&mut self) {
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
    fn watch_daemon(&mut self) -> io::Result<()> {
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

    // ---- A later daemon ----

    fn listen(&mut self) -> io::Result<()> {
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

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else {
            return;
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
    fn consider(&mut self, number: u64) -> io::Result<()> {
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
        Ok(())
    }

    fn forget_candidates(&mut self) {
        let now = Instant::now();
        self.candidates.retain(|_, candidate| candidate.until > now);
    }

    // ---- Children ----

    fn spawn(&mut self, id: ChildId, spec: Box<super::protocol::Spec>) {
        let refusal = if self.ending.is_some() {
            Err(super::protocol::Failure {
                stage: super::protocol::Stage::Machine,
                errno: 0,
                message: "everything is being ended".to_owned(),
            })
        } else {
            self.children.spawn(id, spec, &self.common).map(|child| {
                let control = match &child.phase {
                    Phase::Launching { control, .. } => {
                        epoll::add(&self.epoll, control, of_child(CONTROL, child.pid), EventFlags::IN)
                    }
                    _ => Ok(()),
                };
                control.and_then(|()| epoll::add(&self.epoll, &child.pidfd, of_child(ENDED, child.pid), EventFlags::IN))
            })
        };
        match refusal {
            Ok(Ok(())) => {}
            // It is not watched, so it cannot be kept: its end is seen with those of strays.
            Ok(Err(error)) => {
                self.strays_left = true;
                if let Some(child) = self.children.named(id) {
                    let _ = kill_process(child.pid, Signal::KILL);
                }
                let _ = error;
            }
            Err(failure) => {
                self.strays_left = true;
                self.tell(&FromKeeper::Failed { id, failure }, Vec::new());
            }
        }
    }

    /// A launcher has said something.
    fn launching(&mut self, pid: Pid) {
        let Some(child) = self.children.get(pid) else { return };
        let id = child.id;
        match child.look(&mut self.buffer) {
            Launching::Waits => {}
            Launching::Runs => {
                child.started_at_ms = super::children::now_ms();
                let ends = if child.adopt {
                    child.ends.try_clone().unwrap_or_default()
                } else {
                    std::mem::take(&mut child.ends)
                };
                let started = FromKeeper::Started {
                    id,
                    pid: pid.as_raw_pid(),
                    started_at_ms: child.started_at_ms,
                    streams: ends.streams(),
                };
                self.children.launched(pid, Phase::Running);
                self.tell(&started, ends.into_descriptors());
            }
            Launching::Failed(failure) => {
                // It ends by itself; or what is left of it is not wanted.
                let _ = kill_process(pid, Signal::KILL);
                self.children.launched(pid, Phase::Failed);
                self.tell(&FromKeeper::Failed { id, failure }, Vec::new());
            }
        }
    }

    /// A main process has ended.
    fn ended(&mut self, pid: Pid) {
        // What its launcher said last comes first.
        self.launching(pid);
        let Some((child, ended)) = self.children.reap(pid) else {
            return;
        };
        if matches!(child.phase, Phase::Running) {
            self.exits.push(Exit {
                child,
                ended,
                left_behind: 0,
            });
            self.exits_until.get_or_insert_with(|| Instant::now() + STRAYS_MAX);
        }
        self.strays_left = true;
    }

    fn signalled(&mut self) {
        let mut bytes = [0; 256];
        while rustix::io::read(&self.signals, &mut bytes).is_ok_and(|length| length == bytes.len()) {}
        self.strays_left = true;
    }

    fn signal(&mut self, id: ChildId, signal: Signal, reach: Reach) {
        let Some(child) = self.children.named(id) else { return };
        let pid = child.pid;
        match (reach, signal) {
            (Reach::Tree, Signal::KILL) => drop(tree::kill(|| vec![pid])),
            (Reach::Tree, _) => tree::signal(&[pid], signal),
            (Reach::Group, _) => to_group(pid, signal),
            (Reach::Main, _) => drop(kill_process(pid, signal)),
        }
        // One that is stopped would hear of its end only when it goes on.
        if matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT | Signal::HUP) {
            match reach {
                Reach::Tree => tree::signal(&[pid], Signal::CONT),
                Reach::Group => to_group(pid, Signal::CONT),
                Reach::Main => drop(kill_process(pid, Signal::CONT)),
            }
        }
    }

    /// Kills what main processes that ended have left, and tells of these ends once it is gone.
    fn end_strays(&mut self) {
        if self.strays_left {
            let strays = self.children.strays();
            self.strays.retain(|stray| strays.contains(stray));
            self.count(&strays);
            if !strays.is_empty() {
                let children = &self.children;
                drop(tree::kill(|| children.strays()));
            }
            self.strays_left = !strays.is_empty();
        }
        let late = self.exits_until.is_some_and(|until| until <= Instant::now());
        if self.strays_left && !late {
            return;
        }
        self.exits_until = None;
        for exit in std::mem::take(&mut self.exits) {
            let told = FromKeeper::Exited {
                id: exit.child.id,
                exit: exit.ended.exit,
                cpu_ms: exit.ended.cpu_ms,
                left_behind: exit.left_behind,
            };
            match &self.daemon {
                Some(_) => self.tell(&told, Vec::new()),
                None if exit.child.adopt => self.unheard.extend(encode(&told).ok()),
                None => {}
            }
        }
    }

    /// Counts strays that are new, each for the main process that left it: known by its session, or by its mark.
    fn count(&mut self, strays: &[Pid]) {
        for stray in strays {
            if !self.strays.insert(*stray) {
                continue;
            }
            let left = u32::try_from(tree::size(*stray)).unwrap_or(u32::MAX);
            let session = tree::stat(*stray).map(|stat| stat.session);
            let mark = mark::read(*stray, &self.common.mark);
            let is_of = |exit: &&mut Exit| {
                let id = exit.child.id;
                Some(exit.child.pid.as_raw_pid()) == session || mark == Some(format!("{}.{}", id.boot, id.port))
            };
            let found = self.exits.iter_mut().find(is_of);
            // One that left its session and cleared its environment is counted for somebody.
            let at = match found {
                Some(exit) => Some(exit),
                None => self.exits.first_mut(),
            };
            if let Some(exit) = at {
                exit.left_behind = exit.left_behind.saturating_add(left);
            }
        }
    }

    // ---- The end ----

    /// Asks every child that is not to be adopted to end, and says until when.
    fn begin_end(&mut self, grace: Duration) {
        self.ending = Some(Instant::now() + grace);
        for child in self.children.iter().filter(|child| !child.adopt) {
            to_group(child.pid, Signal::TERM);
            to_group(child.pid, Signal::CONT);
        }
    }

    /// Kills those that had the time.
    fn end_children(&mut self) {
        let Some(until) = self.ending.filter(|until| *until <= Instant::now()) else {
            return;
        };
        let stubborn: Vec<Pid> = self
            .children
            .iter()
            .filter(|child| !child.adopt)
            .map(|child| child.pid)
            .collect();
        if !stubborn.is_empty() {
            drop(tree::kill(|| stubborn.clone()));
            // Until they are seen to have ended.
            self.ending = Some(until.max(Instant::now()) + LOOK_AGAIN_AFTER);
        }
    }
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

/// To a main process and its group, which a launcher does not lead yet.
fn to_group(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}
