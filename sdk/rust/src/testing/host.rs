//! The fake kernel's side of the contract: what it checks, records and keeps.
//!
//! It enforces what the contract states (limits, one attempt to authenticate, the first answer counts) and, with a manifest, what
//! the gate would deny. Chance is a fixed sequence and time stands still until the test moves it, so that a test that passes once
//! passes always.

use std::collections::BTreeMap;
use std::time::Duration;

use astrid_wire::manifest::Manifest;
use astrid_wire::{Pattern, Problem, Topic};

use super::blobs::Blobs;
use super::children::Children;
use super::connection::Connection;
use super::files::Files;
use super::kv::{Once, Table};
use super::seen::{Ask, LogLine, Said};
use crate::bindings::astrid::kernel::bus::{PublishError, ReplyError, RequestError, SubscribeError};
use crate::bindings::astrid::kernel::log::Level;
use crate::bindings::astrid::kernel::random::RandomError;
use crate::bindings::astrid::kernel::timer::{Armed, TimerError};
use crate::bindings::astrid::kernel::types::{self, CommandId, Message, MessageId, PortId, ReplyTo};
use crate::body::Body;
use crate::error::problem_of;

/// What the wall clock says at first: 2026-01-01T00:00:00Z, in milliseconds.
const WALL_START_MS: u64 = 1_767_225_600_000;

/// Commands that one `handle` may record, as in the kernel.
const COMMANDS_MAX: u32 = 1024;

/// Bytes of a body, as in the kernel.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Timers that an actor may hold, as in the kernel.
const TIMERS_MAX: u32 = 64;

/// Limits of the contract: the longest wait of a timer, its shortest period, its longest tag, and bytes of chance at once.
const AFTER_MS_MAX: u64 = 366 * 24 * 3600 * 1000;
const EVERY_MS_MIN: u64 = 10;
const TAG_BYTES_MAX: usize = 255;
const RANDOM_BYTES_MAX: u32 = 65_536;

/// How long an ask waits: when it does not say, and at most.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
const ASK_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// Bytes of the id of what is published once.
const ONCE_ID_BYTES_MAX: usize = 128;

/// What a handler recorded.
#[derive(Debug)]
pub(super) enum Command {
    Publish(Said),
    PublishOnce(String, Said),
    Ask(Ask),
    Reply(ReplyTo, Reply),
    SetTimer(PortId, SetTimer),
    CancelTimer(PortId),
    Write(Vec<u8>),
    Close,
    Child(PortId, super::children::Command),
    Pin(bool),
    Watch(PortId, String),
    EndWatch(PortId),
}

/// A timer that runs.
#[derive(Debug, Clone)]
pub(super) struct SetTimer {
    pub(super) at: Duration,
    pub(super) every: Option<Duration>,
    pub(super) tag: String,
    pub(super) durable: bool,
}

/// What came of an ask or request.
pub(super) type Reply = Result<Body, Problem>;

/// What the test answers requests with.
pub(super) struct Responder {
    pub(super) pattern: Pattern,
    pub(super) answer: Box<dyn FnMut(&Body) -> Reply>,
}

/// An ask of the capsule, with when it ends.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ask: Ask,
    pub(super) until: Duration,
    /// Whether it was asked while a durable message was handled.
    pub(super) durable: bool,
}

/// The fake kernel.
#[derive(Default)]
pub(super) struct Host {
    /// How often the daemon was started again.
    pub(super) boot: u64,
    /// The message whose handling records commands, on whose behalf it is, and whether it is durable.
    handling: Option<MessageId>,
    principal: String,
    durable: bool,
    /// Whether the next message is durable for another reason than its subscription: by its timer, or by the ask that it answers.
    pub(super) durable_next: bool,
    pub(super) commands: Vec<Command>,
    /// Time since the test began, and what it was when the daemon last started.
    pub(super) now: Duration,
    pub(super) booted_at: Duration,
    chance: u64,
    ports: PortId,
    /// What the gate decides by, if the test gave one.
    pub(super) manifest: Option<Manifest>,
    /// Sends that the test wants refused.
    pub(super) refusals: Vec<(Pattern, PublishError)>,
    pub(super) responders: Vec<Responder>,
    pub(super) connection: Option<Connection>,
    pub(super) published: Vec<Said>,
    pub(super) emitted: Vec<Said>,
    pub(super) logged: Vec<LogLine>,
    pub(super) asks: BTreeMap<CommandId, Waiting>,
    /// Asks of the test, and their answers.
    pub(super) replies: BTreeMap<ReplyTo, Option<Reply>>,
    pub(super) timers: BTreeMap<PortId, SetTimer>,
    pub(super) children: Children,
    /// Documents of the operator.
    pub(super) documents: BTreeMap<String, String>,
    pub(super) files: Files,
    pub(super) blobs: Blobs,
    pub(super) table: Table,
    once: Once,
    pub(super) pinned: bool,
    /// Whether a guard runs: it only reads.
    pub(super) guarding: bool,
}

/// Between two handlers.
impl Host {
    /// A message is about to be handled.
    pub(super) fn begin(&mut self, message: &Message) {
        self.roll_back();
        self.handling = Some(message.id);
        self.principal.clone_from(&message.principal);
        self.durable = std::mem::take(&mut self.durable_next) || self.hears_durably(&message.topic);
    }

    fn hears_durably(&self, topic: &str) -> bool {
        let mut heard = self.manifest.iter().flat_map(|manifest| &manifest.subscribe);
        heard.any(|(pattern, options)| options.durable && pattern.matches_str(topic))
    }

    /// Carries out what was recorded.
    pub(super) fn commit(&mut self) {
        self.table.commit();
        self.files.close_all();
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Publish(said) => self.published.push(said),
                Command::PublishOnce(id, said) => {
                    if self.once.is_first(&self.principal, &id, self.now) {
                        self.published.push(said);
                    }
                }
                Command::Pin(pin) => self.pinned = pin,
                Command::Ask(ask) => {
                    let until = self.now + ask.timeout;
                    let durable = self.durable;
                    self.asks.insert(ask.id, Waiting { ask, until, durable });
                }
                Command::Reply(to, reply) => {
                    self.replies.insert(to, Some(reply));
                }
                Command::SetTimer(port, timer) => {
                    self.timers.insert(port, timer);
                }
                Command::CancelTimer(port) => {
                    self.timers.remove(&port);
                }
                Command::Write(bytes) => self
                    .connection
                    .iter_mut()
                    .for_each(|connection| connection.wrote(&bytes)),
                Command::Close => self
                    .connection
                    .iter_mut()
                    .for_each(|connection| connection.closed = true),
                Command::Watch(port, path) => {
                    self.files.watches.insert(port, path);
                }
                Command::EndWatch(port) => {
                    self.files.watches.remove(&port);
                }
                Command::Child(port, command) => self.children.carry_out(port, command),
            }
        }
    }

    /// Drops what was recorded.
    pub(super) fn roll_back(&mut self) {
        self.commands.clear();
        self.table.roll_back();
        self.files.close_all();
    }

    /// On whose behalf the message is.
    pub(super) fn principal(&self) -> &str {
        &self.principal
    }

    /// Records a command.
    pub(super) fn record(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// A port that was not there before.
    pub(super) fn new_port(&mut self) -> PortId {
        self.ports += 1;
        self.ports
    }

    /// The next number of a fixed sequence (splitmix64).
    pub(super) fn random(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Records something about a child.
    pub(super) fn push_child(&mut self, port: PortId, command: super::children::Command) {
        self.commands.push(Command::Child(port, command));
    }

    /// Children that are recorded and not carried out.
    pub(super) fn recorded_children(&self) -> impl Iterator<Item = (PortId, &super::children::Command)> {
        self.commands.iter().filter_map(|command| match command {
            Command::Child(port, command) => Some((*port, command)),
            _ => None,
        })
    }

    /// The ordinal of the command that is about to be recorded.
    pub(super) fn room(&self) -> Result<u32, u32> {
        let recorded = u32::try_from(self.commands.len()).unwrap_or(u32::MAX);
        if recorded < COMMANDS_MAX {
            Ok(recorded)
        } else {
            Err(COMMANDS_MAX)
        }
    }

    fn check_send(&self, topic: &str, body: &Body) -> Result<(), PublishError> {
        let topic = Topic::try_from(topic).map_err(|error| PublishError::InvalidTopic(error.to_string()))?;
        let allowed = |manifest: &Manifest| manifest.publish.keys().any(|pattern| pattern.matches(&topic));
        if self.manifest.as_ref().is_some_and(|manifest| !allowed(manifest)) {
            return Err(PublishError::Denied(format!(
                "publish {topic}: no pattern of [publish] allows it"
            )));
        }
        if !is_content_type(&body.content_type) {
            return Err(PublishError::InvalidContentType);
        }
        if body.bytes.len() > BODY_BYTES_MAX {
            return Err(PublishError::TooLarge(BODY_BYTES_MAX as u64));
        }
        match self.refusals.iter().find(|(pattern, _)| pattern.matches(&topic)) {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn check_reply(&self, to: ReplyTo) -> Result<u32, ReplyError> {
        let answered = |command: &Command| matches!(command, Command::Reply(other, _) if *other == to);
        if !matches!(self.replies.get(&to), Some(None)) || self.commands.iter().any(answered) {
            return Err(ReplyError::NotWaiting);
        }
        self.room().map_err(ReplyError::TooMany)
    }

    fn holds_timer(&self, port: PortId) -> bool {
        let recorded = self.commands.iter().rev().find_map(|command| match command {
            Command::SetTimer(set, _) if *set == port => Some(true),
            Command::CancelTimer(cancelled) if *cancelled == port => Some(false),
            _ => None,
        });
        recorded.unwrap_or_else(|| self.timers.contains_key(&port))
    }
}

/// The kernel's rule for a content type: printable, one `/`, not longer than its length byte says.
fn is_content_type(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default();
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let halves = essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.trim().is_empty());
    printable && halves && text.len() <= 255
}

/// The functions of the contract.
impl Host {
    pub(super) fn publish(&mut self, topic: &str, body: Body) -> Result<u32, PublishError> {
        self.check_send(topic, &body)?;
        let ordinal = self.room().map_err(PublishError::TooMany)?;
        self.commands.push(Command::Publish(Said {
            topic: topic.to_owned(),
            body,
        }));
        Ok(ordinal)
    }

    pub(super) fn publish_once(&mut self, id: &str, topic: &str, body: Body) -> Result<u32, PublishError> {
        if id.is_empty() || id.len() > ONCE_ID_BYTES_MAX {
            return Err(PublishError::InvalidId(ONCE_ID_BYTES_MAX as u32));
        }
        self.check_send(topic, &body)?;
        let ordinal = self.room().map_err(PublishError::TooMany)?;
        self.commands.push(Command::PublishOnce(
            id.to_owned(),
            Said {
                topic: topic.to_owned(),
                body,
            },
        ));
        Ok(ordinal)
    }

    pub(super) fn ask(&mut self, topic: &str, body: Body, timeout_ms: Option<u32>) -> Result<u32, PublishError> {
        self.check_send(topic, &body)?;
        let ordinal = self.room().map_err(PublishError::TooMany)?;
        let timeout = timeout_ms
            .map_or(ASK_TIMEOUT, |ms| Duration::from_millis(ms.into()))
            .min(ASK_TIMEOUT_MAX);
        let cause = self.handling.unwrap_or(MessageId { boot: 0, sequence: 0 });
        let id = CommandId { cause, ordinal };
        self.commands.push(Command::Ask(Ask {
            id,
            said: Said {
                topic: topic.to_owned(),
                body,
            },
            timeout,
        }));
        Ok(ordinal)
    }

    pub(super) fn reply(&mut self, to: ReplyTo, body: Body) -> Result<u32, ReplyError> {
        let ordinal = self.check_reply(to)?;
        if !is_content_type(&body.content_type) {
            return Err(ReplyError::InvalidContentType);
        }
        if body.bytes.len() > BODY_BYTES_MAX {
            return Err(ReplyError::TooLarge(BODY_BYTES_MAX as u64));
        }
        self.commands.push(Command::Reply(to, Ok(body)));
        Ok(ordinal)
    }

    pub(super) fn refuse(&mut self, to: ReplyTo, problem: types::Problem) -> Result<u32, ReplyError> {
        let ordinal = self.check_reply(to)?;
        self.commands.push(Command::Reply(to, Err(problem_of(problem))));
        Ok(ordinal)
    }

    /// Takes out what answers requests on this topic; goes back by [`Host::return_responder`].
    pub(super) fn responder(&mut self, topic: &str, body: &Body) -> Result<Responder, RequestError> {
        self.check_send(topic, body).map_err(RequestError::Unsent)?;
        let found = self
            .responders
            .iter()
            .position(|responder| responder.pattern.matches_str(topic));
        match found {
            Some(index) => Ok(self.responders.remove(index)),
            None => Err(RequestError::Unsent(PublishError::NoSubscriber)),
        }
    }

    pub(super) fn return_responder(&mut self, responder: Responder) {
        self.responders.insert(0, responder);
    }

    pub(super) fn emit(&mut self, topic: &str, body: Body) -> Result<(), PublishError> {
        self.check_send(topic, &body)?;
        self.emitted.push(Said {
            topic: topic.to_owned(),
            body,
        });
        Ok(())
    }

    pub(super) fn subscribe(&mut self, pattern: &str) -> Result<(), SubscribeError> {
        let pattern = Pattern::try_from(pattern).map_err(|error| SubscribeError::InvalidPattern(error.to_string()))?;
        if let Some(manifest) = &self.manifest {
            let granted = manifest.capabilities.subscribe.as_ref();
            if !granted.is_some_and(|granted| granted.allow.iter().any(|allowed| allowed.covers(&pattern))) {
                return Err(SubscribeError::Denied(format!(
                    "subscribe {pattern}: [capabilities] subscribe does not allow it"
                )));
            }
        }
        match &mut self.connection {
            Some(connection) => connection.subscribe(pattern),
            None => Err(SubscribeError::Denied("this actor serves no connection".to_owned())),
        }
    }

    pub(super) fn unsubscribe(&mut self, pattern: &str) -> bool {
        self.connection
            .as_mut()
            .is_some_and(|connection| connection.unsubscribe(pattern))
    }

    pub(super) fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        self.logged.push(LogLine {
            level,
            message: message.to_owned(),
            fields: fields.to_vec(),
        });
    }

    pub(super) fn wall_ms(&self) -> u64 {
        WALL_START_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX - WALL_START_MS)
    }

    pub(super) fn monotonic_ns(&self) -> u64 {
        u64::try_from((self.now - self.booted_at).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn random_bytes(&mut self, count: u32) -> Result<Vec<u8>, RandomError> {
        if count > RANDOM_BYTES_MAX {
            return Err(RandomError::TooMany(RANDOM_BYTES_MAX));
        }
        let numbers = std::iter::repeat_with(|| self.random().to_le_bytes());
        Ok(numbers.flatten().take(count as usize).collect())
    }

    pub(super) fn set_timer(
        &mut self,
        after_ms: u64,
        every_ms: Option<u64>,
        tag: &str,
        durable: bool,
    ) -> Result<PortId, TimerError> {
        if self.lacks(|manifest| manifest.capabilities.timer.is_some()) {
            return Err(TimerError::Denied(
                "timer: [capabilities] timer is not asked for".to_owned(),
            ));
        }
        if durable && self.connection.is_some() {
            return Err(TimerError::Denied(
                "timer: what an actor of a connection sets ends with it".to_owned(),
            ));
        }
        if after_ms > AFTER_MS_MAX {
            return Err(TimerError::OutOfRange(AFTER_MS_MAX));
        }
        if every_ms.is_some_and(|every_ms| every_ms < EVERY_MS_MIN) {
            return Err(TimerError::OutOfRange(EVERY_MS_MIN));
        }
        if tag.len() > TAG_BYTES_MAX {
            return Err(TimerError::TagTooLong);
        }
        let recorded = self
            .commands
            .iter()
            .filter(|command| matches!(command, Command::SetTimer(..)))
            .count();
        if self.timers.len() + recorded >= TIMERS_MAX as usize {
            return Err(TimerError::TooMany(TIMERS_MAX));
        }
        self.room().map_err(TimerError::TooMany)?;
        let port = self.new_port();
        let at = self.now + Duration::from_millis(after_ms);
        let every = every_ms.map(Duration::from_millis);
        self.commands.push(Command::SetTimer(
            port,
            SetTimer {
                at,
                every,
                tag: tag.to_owned(),
                durable,
            },
        ));
        Ok(port)
    }

    pub(super) fn list_timers(&self) -> Vec<Armed> {
        let armed = self.timers.iter().map(|(port, timer)| Armed {
            timer: *port,
            tag: timer.tag.clone(),
            durable: timer.durable,
        });
        armed.collect()
    }

    pub(super) fn cancel_timer(&mut self, port: PortId) -> bool {
        let held = self.holds_timer(port);
        if held {
            self.commands.push(Command::CancelTimer(port));
        }
        held
    }
}
