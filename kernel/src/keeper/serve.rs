//! The keeper's loop.
//!
//! One epoll over everything that can happen; nothing blocks. If the daemon does not read, nothing more is read from it, so that what
//! waits to be sent is bounded by the children that there are.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, kill_process_group, pidfd_open, setrlimit,
};

use super::children::{Children, Common, Exit, Launching, Phase};
use super::guard::{end_everything_below, forget, is_parent, prepare};
use super::merging::Handed;
use super::protocol::{ChildId, Connection, Failure, FromKeeper, Layers, Reach, Spec, Stage};
use super::{mark, tree};
use crate::home::Home;

mod talk;

use talk::{Candidate, Daemon};

/// Events of one turn of the loop.
const EVENTS_MAX: usize = 256;

/// How long the end of a main process is not told because something that it left still dies.
const STRAYS_MAX: Duration = Duration::from_secs(1);

/// When those that were killed and are still there are killed again.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    /// Main processes that have ended and were not waited for.
    ended: Vec<Pid>,
    /// Ends that are told once no stray is left, or at this time.
    exits: Vec<Exit>,
    exits_until: Option<Instant>,
    /// Whether there may be strays.
    strays_left: bool,
    /// Ends of adopted children that are for the next daemon to hear.
    unheard: Vec<Vec<u8>>,
    /// Since when the children that are not to be adopted are being ended: when they are killed.
    ending: Option<Instant>,
    /// Whether the daemon has asked for that, and not just gone.
    ending_asked: bool,
    buffer: Vec<u8>,
}

/// The keeper, from its start to its end: with the daemon's socket as standard input, and the lock as standard output.
///
/// # Errors
///
/// The system refused something, and there is no keeper any more; the guard ends what it held.
pub fn run(home: Home, guard: i32) -> io::Result<()> {
    prepare()?;
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
        ended: Vec::new(),
        exits: Vec::new(),
        exits_until: None,
        strays_left: false,
        unheard: Vec::new(),
        ending: None,
        ending_asked: false,
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
            self.bury();
            self.end_strays();
            self.tell_exits();
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
                    _ => self.ended.extend(pid()),
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
            again(self.strays_left && !self.exits.is_empty()),
            again(stuck),
        ];
        let next = times.into_iter().flatten().chain(candidates).min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Whether nobody is left to be kept, nor to talk with.
    fn is_done(&mut self) -> io::Result<bool> {
        let others = self.children.launching() > 0 || self.children.iter().any(|child| !child.adopt);
        if self.ending.is_some() && self.exits.is_empty() && !others {
            let unsent = self.daemon.as_ref().is_some_and(|daemon| !daemon.outgoing.is_empty());
            if unsent {
                return Ok(false);
            }
            self.ending = None;
            if self.ending_asked {
                self.hang_up();
            } else {
                // The next daemon may be there already, and is heard from now on.
                self.watch_daemon()?;
            }
        }
        if self.daemon.is_some() || self.ending.is_some() {
            return Ok(false);
        }
        if self.children.is_empty() && self.exits.is_empty() {
            return Ok(!self.strays_left);
        }
        if self.listener.is_none() && !others {
            self.listen()?;
        }
        Ok(false)
    }

    // ---- Children ----

    fn spawn(&mut self, id: ChildId, spec: Box<Spec>, within: &[OwnedFd]) {
        let spawned = if self.ending.is_some() {
            Err(machine("everything is being ended".to_owned()))
        } else {
            self.children.spawn(id, spec, within, &self.common).and_then(|child| {
                let Phase::Launching { control, .. } = &child.phase else {
                    return Ok(());
                };
                epoll::add(&self.epoll, control, of_child(CONTROL, child.pid), EventFlags::IN)
                    .and_then(|()| epoll::add(&self.epoll, &child.pidfd, of_child(ENDED, child.pid), EventFlags::IN))
                    .map_err(|error| machine(format!("it cannot be watched: {error}")))
            })
        };
        if let Err(failure) = spawned {
            // What was forked nevertheless is a stray now.
            if failure.stage == Stage::Machine {
                self.children.abandon(id);
                self.strays_left = true;
            }
            self.tell(&FromKeeper::Failed { id, failure }, Vec::new());
        }
    }

    fn merge(&mut self, id: u64, layers: Layers) {
        let started = self.children.merging.start(id, layers).and_then(|(pid, control)| {
            epoll::add(&self.epoll, control, of_child(CONTROL, pid), EventFlags::IN)
                .map_err(|error| machine(format!("it cannot be watched: {error}")))
        });
        if let Err(failure) = started {
            self.merged(id, Err(failure));
        }
    }

    fn merged(&mut self, id: u64, handed: Handed) {
        let (result, descriptors) = match handed {
            Ok((user, descriptors)) => (Ok(user), descriptors),
            Err(failure) => (Err(failure), Vec::new()),
        };
        self.tell(&FromKeeper::Merged { id, result }, descriptors);
    }

    /// A launcher has said something.
    fn launching(&mut self, pid: Pid) {
        if let Some((id, handed)) = self.children.merging.look(pid, &mut self.buffer) {
            return self.merged(id, handed);
        }
        let Some(child) = self.children.get(pid) else { return };
        let id = child.id;
        match child.look(&mut self.buffer) {
            Launching::Waits => {}
            Launching::Runs(lacking) => {
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
                    lacking,
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

    /// Waits for the main processes that have ended, having counted what each has left.
    fn bury(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        if ended.is_empty() {
            return;
        }
        // What a launcher said last comes first.
        ended.iter().for_each(|pid| self.launching(*pid));
        // Counted before they are killed with its group, or as its strays.
        self.children
            .strays(ended.first().copied(), &mut self.exits, &self.common.mark);
        for pid in ended {
            if let Some(exit) = self.children.reap(pid)
                && matches!(exit.child.phase, Phase::Running)
            {
                self.exits.push(exit);
                self.exits_until.get_or_insert_with(|| Instant::now() + STRAYS_MAX);
            }
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

    /// Kills what main processes that ended have left.
    fn end_strays(&mut self) {
        if self.strays_left {
            let mut strays = || self.children.strays(None, &mut self.exits, &self.common.mark);
            let killed = tree::kill(&mut strays);
            // Those that are killed are seen to be gone in a later turn.
            self.strays_left = !killed.is_empty() || !strays().is_empty();
        }
    }

    /// Tells of main processes that ended, once what they left is gone.
    fn tell_exits(&mut self) {
        let late = self.exits_until.is_some_and(|until| until <= Instant::now());
        if self.strays_left && !late {
            return;
        }
        self.exits_until = None;
        for exit in std::mem::take(&mut self.exits) {
            let told = FromKeeper::Exited {
                id: exit.child.id,
                exit: exit.how,
                cpu_ms: exit.cpu_ms,
                left_behind: exit.child.left_behind,
                exceeded: exit.child.exceeded(),
            };
            self.tell_end(&told, exit.child.adopt);
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
            // Seen to have ended before that, but for one in a call that cannot be interrupted.
            self.ending = Some(until.max(Instant::now()) + KILL_AGAIN_AFTER);
        }
    }
}

/// To a main process and its group, which a launcher does not lead yet.
fn to_group(pid: Pid, signal: Signal) {
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

fn machine(message: String) -> Failure {
    Failure {
        stage: Stage::Machine,
        errno: 0,
        message,
    }
}
