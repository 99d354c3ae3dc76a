//! What a guest asks for while it handles a message, kept until that commits.
//!
//! Each command holds what it needs to be carried out without failing: the permit, and the places or room reserved
//! for it. Dropping the buffer is the rollback: it gives everything back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::actor::Actor;
use crate::authority::{Permit, Say};
use crate::bus::Saying;
use crate::bus::asks::{Outcome, Waiter};
use crate::bus::message::{CommandId, Kind, MessageId, PortId, ReplyTo, Source};
use crate::bus::{Bus, Slots};
use crate::keeper::protocol::Reach;
use crate::port::child::held::{Child, Owner};
use crate::port::child::input::InputRoom;
use crate::port::child::program::Program;
use crate::port::child::{Children, Launch};
use crate::port::stream::{Stream, WriteRoom};
use crate::port::timer::TimerSpec;

/// Commands of one handling at most.
pub(super) const COMMANDS_MAX: u32 = 1024;

/// Bytes of bodies in the commands of one handling at most: a guest's memory is bounded, the kernel's copy is bounded by this.
pub(super) const COMMAND_BYTES_MAX: usize = 64 << 20;

/// One effect to come.
#[derive(Debug)]
pub enum Command {
    /// Says something.
    Publish {
        /// That it may.
        say: Permit<Say>,
        /// What.
        saying: Saying,
        /// To whom.
        slots: Slots,
    },
    /// Says something and wants an answer.
    Ask {
        /// That it may.
        say: Permit<Say>,
        /// What.
        saying: Saying,
        /// To whom.
        slots: Slots,
        /// How long it waits, from the commit on.
        timeout: Duration,
    },
    /// Answers or refuses an ask.
    Settle {
        /// Whose.
        to: ReplyTo,
        /// What.
        outcome: Outcome,
    },
    /// Starts a timer.
    SetTimer {
        /// That it may.
        timer: Permit<PortId>,
        /// When, and what it is called.
        spec: TimerSpec,
    },
    /// Ends a timer.
    CancelTimer(Permit<PortId>),
    /// Writes to a stream.
    Write {
        /// That it may, and the room for it.
        room: Permit<WriteRoom>,
        /// What.
        bytes: Bytes,
    },
    /// Closes a stream.
    Close(Permit<Arc<Stream>>),
    /// Starts a program.
    Spawn {
        /// That it may, and what.
        program: Permit<Program>,
        /// The port it will be.
        id: PortId,
        /// How.
        launch: Box<Launch>,
        /// Whose.
        owner: Owner,
    },
    /// Sends a child a signal.
    Signal {
        /// That it may.
        child: Permit<Arc<Child>>,
        /// Its number.
        signal: i32,
        /// Whom it reaches.
        reach: Reach,
    },
    /// Writes to a child's input.
    WriteInput {
        /// That it may, and the room for it.
        room: Permit<InputRoom>,
        /// What.
        bytes: Bytes,
    },
    /// Closes a child's input.
    CloseInput(Permit<Arc<Child>>),
}

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This many are recorded, the limit.
    TooMany(u32),
    /// The bodies weigh more than this together, the limit.
    TooLarge(u64),
}

/// The commands of one handling, in order.
#[derive(Debug, Default)]
pub struct Commands {
    recorded: Vec<Command>,
    bytes: usize,
}

impl Commands {
    /// Whether one more with a body of that size would be taken. Asked before anything is reserved for it.
    ///
    /// # Errors
    /// [`Refused`] names the limit.
    pub fn room(&self, bytes: usize) -> Result<(), Refused> {
        if self.recorded.len() >= COMMANDS_MAX as usize {
            return Err(Refused::TooMany(COMMANDS_MAX));
        }
        if self.bytes + bytes > COMMAND_BYTES_MAX {
            return Err(Refused::TooLarge(COMMAND_BYTES_MAX as u64));
        }
        Ok(())
    }

    /// Records a command and returns its ordinal.
    pub fn push(&mut self, command: Command, bytes: usize) -> u32 {
        let ordinal = self.recorded.len();
        self.bytes += bytes;
        self.recorded.push(command);
        u32::try_from(ordinal).unwrap_or(u32::MAX)
    }

    /// Commits: carries everything out, in order. Nothing here can fail.
    pub fn carry_out(&mut self, bus: &Bus, actor: &Actor, cause: MessageId) {
        self.bytes = 0;
        for (ordinal, command) in self.recorded.drain(..).enumerate() {
            let id = CommandId {
                cause,
                ordinal: u32::try_from(ordinal).unwrap_or(u32::MAX),
            };
            match command {
                Command::Publish { say, saying, slots } => {
                    bus.send(say, saying, Kind::Event, None, slots);
                }
                Command::Ask {
                    say,
                    saying,
                    slots,
                    timeout,
                } => {
                    let until = Instant::now() + timeout;
                    let waiter = Waiter::Actor {
                        inbox: Arc::clone(actor.inbox()),
                        command: id,
                        open: actor.open_asks().clone(),
                    };
                    let address = bus.asks().open(&say.object().topic, &saying.principal, until, waiter);
                    bus.send(say, saying, Kind::Ask(address), Some(until), slots);
                }
                Command::Settle { to, outcome } => {
                    // Nobody waiting any more is no error: it may have timed out since the command was recorded.
                    bus.asks()
                        .settle(to, outcome, Source::Capsule(Arc::clone(actor.capsule_name())));
                }
                Command::SetTimer { timer, spec } => actor.timers().set(timer, spec),
                Command::CancelTimer(timer) => actor.timers().cancel(timer),
                Command::Write { room, bytes } => Stream::write(room, bytes),
                Command::Close(stream) => Stream::close(stream),
                Command::Spawn {
                    program,
                    id,
                    launch,
                    owner,
                } => {
                    let end = (actor.children(), actor.inbox());
                    actor.host().children.spawn(program, id, *launch, owner, end);
                }
                Command::Signal { child, signal, reach } => actor.host().children.signal(child, signal, reach),
                Command::WriteInput { room, bytes } => Children::write(room, bytes),
                Command::CloseInput(child) => actor.host().children.close_input(child),
            }
        }
    }

    /// Rolls back: forgets everything.
    pub fn discard(&mut self) {
        self.recorded.clear();
        self.bytes = 0;
    }

    /// Whether a timer of that number is set by a command that is not carried out yet.
    pub fn sets_timer(&self, id: PortId) -> bool {
        self.recorded
            .iter()
            .any(|c| matches!(c, Command::SetTimer { timer, .. } if *timer.object() == id))
    }

    /// How many timers are set and cancelled by commands that are not carried out yet.
    pub fn timers_set(&self) -> usize {
        self.recorded
            .iter()
            .filter(|c| matches!(c, Command::SetTimer { .. }))
            .count()
    }

    /// How many programs are started by commands that are not carried out yet.
    pub fn spawns(&self) -> usize {
        self.recorded
            .iter()
            .filter(|c| matches!(c, Command::Spawn { .. }))
            .count()
    }

    /// Whether one of those writes to that log file.
    pub fn writes_log(&self, path: &Path) -> bool {
        self.recorded.iter().any(|command| match command {
            Command::Spawn { launch, .. } => launch.writes_log(path),
            _ => false,
        })
    }

    /// How many asks are not carried out yet.
    pub fn asks(&self) -> u32 {
        let asks = self
            .recorded
            .iter()
            .filter(|c| matches!(c, Command::Ask { .. }))
            .count();
        u32::try_from(asks).unwrap_or(u32::MAX)
    }
}
