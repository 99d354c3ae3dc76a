//! What a guest asks for while it handles a message, kept until that commits.
//!
//! Each command holds what it needs to be carried out without failing: the permit, and the places or room reserved
//! for it. Dropping the buffer is the rollback: it gives everything back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use astrid_wire::Problem;
use astrid_wire::authority::Action;
use astrid_wire::problem::codes;
use bytes::Bytes;

use super::actor::Actor;
use super::durable;
use crate::authority::{Denied, Permit, Say, Standing, Subject};
use crate::bus::Saying;
use crate::bus::Slots;
use crate::bus::asks::{Outcome, Waiter};
use crate::bus::message::{CommandId, Kind, Message, MessageId, PortId, ReplyTo, Source};
use crate::keeper::protocol::Reach;
use crate::ledger::Hold;
use crate::port::child::held::{Child, Owner};
use crate::port::child::input::InputRoom;
use crate::port::child::program::Program;
use crate::port::child::{Children, Launch};
use crate::port::stream::{Stream, WriteRoom};
use crate::port::timer::TimerSpec;
use crate::port::watch::Watching;
use crate::store::Once;
use crate::store::engine::Write;

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
        /// Only if this id is new.
        once: Option<Bytes>,
    },
    /// Says what is on disk, or not kept at all. Made of [`Command::Publish`] when the handling commits.
    Deliver {
        /// What.
        message: Arc<Message>,
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
        /// Whether the store keeps it until its outcome was handled.
        kept: bool,
        /// Its place among the asks of its principal.
        hold: Hold,
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
    /// Starts a durable timer.
    KeepTimer {
        /// That it may.
        timer: Permit<PortId>,
        /// When, and what it is called.
        spec: TimerSpec,
        /// Whose.
        owner: durable::Owner,
        /// The wall clock when it was set.
        now_ms: u64,
    },
    /// Ends a durable timer.
    ForgetTimer {
        /// Which.
        timer: Permit<PortId>,
        /// Whose.
        owner: durable::Owner,
    },
    /// Keeps the actor from being evicted, or not any more.
    Pin {
        /// Which.
        owner: Permit<durable::Owner>,
        /// Whether.
        pinned: bool,
    },
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
    /// Tells of changes of files.
    Watch {
        /// That it may, and what is watched already.
        watching: Permit<Arc<Watching>>,
        /// The port it will be.
        id: PortId,
    },
    /// Ends a watch.
    EndWatch(Permit<PortId>),
}

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This many are recorded, the limit.
    TooMany(u32),
    /// The bodies weigh more than this together, the limit.
    TooLarge(u64),
}

/// How often a handling did what a principal needs authority for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Actions([u32; Action::ALL.len()]);

impl Actions {
    /// Once more.
    pub fn add(&mut self, action: Action) {
        self.0[action as usize] += 1;
    }

    /// Which, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (Action, u32)> {
        Action::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
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

    /// Takes everything that was recorded, in order.
    pub fn take(&mut self) -> impl Iterator<Item = (u32, Command)> + '_ {
        self.bytes = 0;
        (0..).zip(self.recorded.drain(..))
    }

    /// Whether something of this is to be on disk before anybody sees it.
    pub fn are_kept(&self) -> bool {
        self.recorded.iter().any(|command| match command {
            Command::Publish { slots, once, .. } => once.is_some() || slots.is_kept(),
            Command::KeepTimer { .. } | Command::ForgetTimer { .. } | Command::Pin { .. } => true,
            Command::Ask { kept, .. } => *kept,
            _ => false,
        })
    }

    /// How often each action of a principal is among them.
    pub fn add_actions(&self, to: &mut Actions) {
        for command in &self.recorded {
            match command {
                Command::Publish { .. } | Command::Ask { .. } => to.add(Action::Publish),
                Command::SetTimer { .. } | Command::KeepTimer { .. } => to.add(Action::Timer),
                Command::Pin { .. } => to.add(Action::Pin),
                // Starts of programs are recorded one by one; the rest follows from holding what it is done to.
                _ => {}
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

    /// Whether a durable timer of that number is set by a command that is not carried out yet.
    pub fn keeps_timer(&self, id: PortId) -> bool {
        self.recorded
            .iter()
            .any(|c| matches!(c, Command::KeepTimer { timer, .. } if *timer.object() == id))
    }

    /// How many timers are set and cancelled by commands that are not carried out yet.
    pub fn timers_set(&self) -> usize {
        self.recorded
            .iter()
            .filter(|c| matches!(c, Command::SetTimer { .. } | Command::KeepTimer { .. }))
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

    /// Whether a watch of that number begins by a command that is not carried out yet.
    pub fn begins_watch(&self, of: PortId) -> bool {
        let begins = |command: &Command| matches!(command, Command::Watch { id, .. } if *id == of);
        self.recorded.iter().any(begins)
    }

    /// How many watches begin by commands that are not carried out yet.
    pub fn watches(&self) -> usize {
        let begins = |command: &&Command| matches!(command, Command::Watch { .. });
        self.recorded.iter().filter(begins).count()
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

/// What a commit writes besides the actor's own table, and what is done once that is on disk.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Rows.
    pub writes: Vec<Write>,
    /// Rows under a condition, with the commands that depend on it.
    pub once: Vec<(Once, u32)>,
    /// What is done then.
    pub commands: Vec<(u32, Command)>,
}

impl Commands {
    /// What is not allowed any more of what was recorded, because the policy has changed since. A connection, which cannot be handled
    /// again, is told of each of its asks by itself when that is carried out.
    pub fn check_again(&self, actor: &Actor, standing: &Standing) -> Option<Denied> {
        let told = |command: &Command| matches!(command, Command::Ask { .. }) && actor.connection().is_some();
        self.recorded
            .iter()
            .filter(|command| !told(command))
            .find_map(|command| decide_again(command, actor, standing).err())
    }
}

/// Decides about a command anew, if the policy has changed since it was allowed.
fn decide_again(command: &Command, actor: &Actor, standing: &Standing) -> Result<(), Denied> {
    let gate = &actor.host().gate;
    let subject = Subject {
        acl: &actor.capsule().acl,
        standing,
        socket: actor.connection().map(|c| c.socket()),
    };
    match command {
        Command::Publish { say, .. } | Command::Ask { say, .. } if !gate.still(say) => {
            gate.say(subject, say.object().topic.clone()).map(drop)
        }
        Command::SetTimer { timer, .. } | Command::KeepTimer { timer, .. } if !gate.still(timer) => {
            gate.timer(subject, *timer.object()).map(drop)
        }
        Command::Pin { owner, pinned: true } if !gate.still(owner) => gate.pin(subject, ()).map(drop),
        Command::Spawn { program, .. } if !gate.still(program) => {
            let path = program.object().path.display().to_string();
            gate.run(subject, &path, ()).map(drop)
        }
        Command::Watch { watching, .. } if !gate.still(watching) => {
            gate.may_touch(subject, Action::FsRead, &watching.object().what().scope())
        }
        _ => Ok(()),
    }
}

/// A command that was recorded and committed is not carried out: it was taken from its principal before it could leave.
fn refuse(command: Command, actor: &Actor, id: CommandId, standing: &Standing, denied: &Denied) {
    tracing::warn!(capsule = %actor.capsule_name(), %denied, "a command is not carried out: it is not allowed any more");
    let host = actor.host();
    host.metrics.bus_refused.increment();
    host.refused(standing.principal(), actor.capsule_name(), denied);
    match command {
        Command::Ask {
            say,
            saying,
            timeout,
            kept,
            hold,
            ..
        } => {
            let until = host.deadlines.now() + timeout;
            let waiter = Waiter::Actor {
                inbox: Arc::clone(actor.inbox()),
                command: id,
                open: actor.open_asks().clone(),
                kept,
            };
            let asks = host.bus.asks();
            let asker = (&saying.principal, Some(hold));
            let address = asks.open(&say.object().topic, asker, until, waiter);
            let problem = Problem::new(codes::DENIED, denied.to_string());
            asks.settle(address, Outcome::Refusal(problem), Source::Kernel);
        }
        Command::Spawn {
            program,
            id,
            launch,
            owner,
        } => {
            let end = (actor.children(), actor.inbox());
            let problem = Problem::new(codes::DENIED, denied.to_string());
            host.children.spawn(program, id, *launch, owner, end, Some(&problem));
        }
        _ => {}
    }
}

/// Makes rows of what is to be kept.
pub(crate) fn prepare(commands: impl Iterator<Item = (u32, Command)>, actor: &Actor, cause: MessageId) -> Prepared {
    let host = actor.host();
    let mut prepared = Prepared::default();
    for (ordinal, command) in commands {
        let command = match command {
            Command::Publish {
                say,
                saying,
                mut slots,
                once,
            } if once.is_some() || slots.is_kept() => {
                let principal = saying.principal.clone();
                let message = host.bus.compose(say, saying, Kind::Event, None);
                let rows = durable::rows(&host.store, &message, &mut slots);
                match once {
                    None => prepared.writes.extend(rows),
                    Some(id) => {
                        let once = Once {
                            principal,
                            id,
                            writes: rows,
                        };
                        prepared.once.push((once, ordinal));
                    }
                }
                Command::Deliver { message, slots }
            }
            other => {
                let row = match &other {
                    Command::Ask {
                        say,
                        saying,
                        timeout,
                        kept: true,
                        ..
                    } => actor.owner().map(|owner| {
                        durable::ask_row(owner, CommandId { cause, ordinal }, say.object(), saying, *timeout)
                    }),
                    Command::KeepTimer {
                        timer,
                        spec,
                        owner,
                        now_ms,
                    } => Some(durable::timers::set_row(owner, *timer.object(), spec, *now_ms)),
                    Command::ForgetTimer { timer, owner } => Some(durable::timers::cancel_row(owner, *timer.object())),
                    Command::Pin { owner, pinned } => Some(durable::pin_row(owner.object(), *pinned)),
                    _ => None,
                };
                prepared.writes.extend(row);
                other
            }
        };
        prepared.commands.push((ordinal, command));
    }
    prepared
}

/// What later handlings of the actor must see of a commit that has its number, and is not on disk yet.
pub(crate) fn sequenced(commands: &[(u32, Command)], actor: &Actor) {
    let timers = &actor.host().durable.timers;
    for (_, command) in commands {
        match command {
            Command::KeepTimer {
                timer,
                spec,
                owner,
                now_ms,
            } => timers.set(owner, *timer.object(), spec, *now_ms),
            Command::ForgetTimer { timer, .. } => timers.cancel(*timer.object()),
            _ => {}
        }
    }
}

/// Commits: does it, in order. Nothing here can fail.
pub(crate) fn carry_out(
    commands: impl Iterator<Item = (u32, Command)>,
    actor: &Actor,
    cause: MessageId,
    standing: &Standing,
) {
    let host = actor.host();
    let bus = &host.bus;
    for (ordinal, command) in commands {
        let id = CommandId { cause, ordinal };
        if let Err(denied) = decide_again(&command, actor, standing) {
            refuse(command, actor, id, standing, &denied);
            continue;
        }
        match command {
            Command::Publish { say, saying, slots, .. } => {
                bus.send(say, saying, Kind::Event, None, slots);
            }
            Command::Deliver { message, slots } => bus.deliver(message, slots),
            Command::Ask {
                say,
                saying,
                slots,
                timeout,
                kept,
                hold,
            } => {
                let until = host.deadlines.now() + timeout;
                let waiter = Waiter::Actor {
                    inbox: Arc::clone(actor.inbox()),
                    command: id,
                    open: actor.open_asks().clone(),
                    kept,
                };
                let asker = (&saying.principal, Some(hold));
                let address = bus.asks().open(&say.object().topic, asker, until, waiter);
                bus.send(say, saying, Kind::Ask(address), Some(until), slots);
            }
            Command::Settle { to, outcome } => {
                // Nobody waiting any more is no error: it may have timed out since the command was recorded.
                bus.asks()
                    .settle(to, outcome, Source::Capsule(Arc::clone(actor.capsule_name())));
            }
            Command::SetTimer { timer, spec } => actor.timers().set(timer, spec),
            Command::CancelTimer(timer) => actor.timers().cancel(timer),
            Command::KeepTimer { timer, .. } => host.durable.timers.start(timer.into_object()),
            // When it was sequenced.
            Command::ForgetTimer { .. } => {}
            Command::Pin { pinned, .. } => actor.set_pinned(pinned),
            Command::Write { room, bytes } => Stream::write(room, bytes),
            Command::Close(stream) => Stream::close(stream),
            Command::Spawn {
                program,
                id,
                launch,
                owner,
            } => {
                let end = (actor.children(), actor.inbox());
                host.children.spawn(program, id, *launch, owner, end, None);
            }
            Command::Signal { child, signal, reach } => host.children.signal(child, signal, reach),
            Command::WriteInput { room, bytes } => Children::write(room, bytes),
            Command::CloseInput(child) => host.children.close_input(child),
            Command::Watch { watching, id } => {
                let principal = standing.principal().clone();
                actor.watches().start(watching, id, principal, actor.inbox());
            }
            Command::EndWatch(watch) => actor.watches().end(watch),
        }
    }
}

/// A commit was forgotten after all, because the store failed: who waits for an answer is told that nobody knows what happened.
pub(crate) fn forget(commands: Vec<(u32, Command)>, actor: &Actor) {
    for (_, command) in commands {
        if let Command::Settle { to, .. } = command {
            let problem = Problem::new(codes::STORE_FAILED, "the store failed while this was written")
                .with_hint("it may or may not have happened; `astrid status` says how the store is");
            let bus = &actor.host().bus;
            bus.asks().settle(to, Outcome::Refusal(problem), Source::Kernel);
        }
    }
}
