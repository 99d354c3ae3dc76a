//! A fake kernel, so that a capsule's logic is tested natively: by `cargo test`, without WebAssembly, in microseconds.
//!
//! A [`Harness`] is one actor of a capsule and the world around it. The test plays everybody else: it asks, publishes, answers what the
//! capsule asks, moves time, sends bytes through a connection; and looks at what came of it. As in the kernel a `handle` is a
//! transaction: what a handler that gave up had recorded is gone, and so is its state. [`Harness::restart`] plays a start of the daemon: only
//! what lasts is still there.
//!
//! ```
//! use std::time::Duration;
//! use astrid_sdk::prelude::*;
//! use astrid_sdk::testing::Harness;
//!
//! /// Wakes people up.
//! #[derive(Default)]
//! struct Alarm;
//!
//! #[capsule]
//! impl Alarm {
//!     #[on("alarm.v1.set")]
//!     fn set(&mut self, ctx: &mut Context, seconds: u64) -> Result<()> {
//!         ctx.timer(Duration::from_secs(seconds)).tag("ring").set()?;
//!         Ok(())
//!     }
//!
//!     #[timer("ring")]
//!     fn ring(&mut self, ctx: &mut Context) -> Result<()> {
//!         ctx.publish("alarm.v1.rings", "wake up")?;
//!         Ok(())
//!     }
//! }
//!
//! let mut alarm = Harness::new::<Alarm>();
//! alarm.event("alarm.v1.set", 60).committed();
//! alarm.advance(Duration::from_secs(59));
//! assert_eq!(alarm.published(), []);
//! alarm.advance(Duration::from_secs(1));
//! assert_eq!(alarm.published()[0].json(), "wake up");
//! ```
//!
//! A panic of a handler is a panic of the test. Deliberately absent: other actors, queues and their limits ([`Harness::refuse_sends`] plays
//! a full one), fuel, memory and time: those are the kernel's, and tested there.

use std::marker::PhantomData;
use std::time::Duration;

use astrid_wire::describe::Direction;
use astrid_wire::manifest::Manifest;
use astrid_wire::{Pattern, Problem};

use crate::bindings::astrid::kernel::bus::PublishError;
use crate::bindings::astrid::kernel::types::{CommandId, Kind, Message, MessageId, PortId, ReplyTo, Source};
use crate::body::{Body, IntoBody};
use crate::context::Context;
use crate::dispatch::Capsule;
use crate::error::{Rollback, SendError};

mod blobs;
mod children;
mod connection;
mod files;
mod guard;
mod host;
mod kv;
mod seen;
pub(crate) mod sys;

pub use children::Child;
pub use seen::{Ask, Asked, Handled, LogLine, Said};

use host::{Host, Responder};

/// Who speaks when the test does not say.
const PRINCIPAL: &str = "default";

/// The capsule whose messages the test sends.
const SENDER: &str = "test";

/// How long an ask of the test waits, in milliseconds.
const ASK_TIMEOUT_MS: u32 = 30_000;

/// One actor of a capsule, and a fake kernel around it.
pub struct Harness<C> {
    host: Host,
    /// The instance, while there is one.
    capsule: Option<C>,
    principal: String,
    sequence: u64,
    /// What was delivered last, for [`Harness::retry`].
    last: Option<Message>,
}

impl<C> std::fmt::Debug for Harness<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness")
            .field("messages", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Names the type that [`Harness::new`] is found on.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unchosen(PhantomData<()>);

impl Harness<Unchosen> {
    /// A harness for this capsule: `Harness::new::<Hello>()`.
    #[allow(
        clippy::new_ret_no_self,
        reason = "the capsule is chosen by the call, so that its harness need not be named"
    )]
    pub fn new<C: Capsule>() -> Harness<C> {
        Harness {
            host: Host::default(),
            capsule: None,
            principal: PRINCIPAL.to_owned(),
            sequence: 0,
            last: None,
        }
    }
}

/// Setting the scene.
impl<C: Capsule> Harness<C> {
    /// Lets the fake gate decide by this manifest, and checks that manifest and handlers agree: every topic that is handled is
    /// subscribed to, and every one that is said may be.
    ///
    /// ```no_run
    /// # use astrid_sdk::prelude::*;
    /// # #[derive(Default)] struct Hello;
    /// # #[capsule] impl Hello { #[on("hello.v1.greet")] fn greet(&mut self) {} }
    /// # macro_rules! include_str { ($path:literal) => { "" } }
    /// let mut harness = astrid_sdk::testing::Harness::new::<Hello>().with_manifest(include_str!("../Capsule.toml"));
    /// ```
    ///
    /// # Panics
    /// It is not a manifest, or they do not agree.
    #[track_caller]
    #[must_use]
    pub fn with_manifest(mut self, text: &str) -> Self {
        let manifest = Manifest::parse(text, "Capsule.toml").unwrap_or_else(|error| panic!("{error}"));
        for described in C::describe().topics {
            let topic = described.topic;
            let allowed = match described.direction {
                Direction::Hears => {
                    let while_running = manifest.capabilities.subscribe.iter().flat_map(|asked| &asked.allow);
                    let mut heard = manifest.subscribe.keys().chain(while_running);
                    heard.any(|pattern| pattern.covers(&topic) || topic.covers(pattern))
                }
                Direction::Says => manifest.publish.keys().any(|pattern| pattern.covers(&topic)),
            };
            let (verb, table) = match described.direction {
                Direction::Hears => ("handles", "subscribe"),
                Direction::Says => ("says", "publish"),
            };
            assert!(
                allowed,
                "the capsule {verb} `{topic}`, and [{table}] of its manifest does not name it"
            );
        }
        self.host.manifest = Some(manifest);
        self
    }

    /// From now on messages are sent on behalf of this principal.
    pub fn speak_as(&mut self, principal: &str) {
        principal.clone_into(&mut self.principal);
    }

    /// Answers what the capsule requests on these topics. The latest that takes a topic answers.
    ///
    /// # Panics
    /// It is not a pattern.
    #[track_caller]
    pub fn on_request<R: IntoBody>(
        &mut self,
        pattern: &str,
        mut answer: impl FnMut(&Body) -> Result<R, Problem> + 'static,
    ) {
        let answer = Box::new(move |body: &Body| Ok(answer(body)?.into_body()?));
        self.host.responders.insert(
            0,
            Responder {
                pattern: checked(pattern),
                answer,
            },
        );
    }

    /// Refuses what the capsule sends on these topics (publish, ask, emit and request) with this error.
    ///
    /// # Panics
    /// It is not a pattern, or not an error of the kernel's.
    #[track_caller]
    pub fn refuse_sends(&mut self, pattern: &str, error: SendError) {
        let error = match error {
            SendError::InvalidTopic(why) => PublishError::InvalidTopic(why),
            SendError::Denied(why) => PublishError::Denied(why),
            SendError::Full(subscriber) => PublishError::Full(subscriber),
            SendError::TooLarge(limit) => PublishError::TooLarge(limit),
            SendError::TooMany(limit) => PublishError::TooMany(limit),
            SendError::NoSubscriber => PublishError::NoSubscriber,
            SendError::InvalidContentType => PublishError::InvalidContentType,
            SendError::Unavailable(why) => PublishError::Unavailable(why),
            SendError::InvalidId(limit) => PublishError::InvalidId(limit),
            SendError::Refused(problem) => PublishError::Refused((&problem).into()),
            SendError::Unserializable(error) => panic!("the kernel sees bodies only when they are written: {error}"),
        };
        self.host.refusals.push((checked(pattern), error));
    }

    /// The state, once there was a message and if it was not rolled back.
    pub fn capsule(&self) -> Option<&C> {
        self.capsule.as_ref()
    }
}

/// Messages to the capsule.
impl<C: Capsule> Harness<C> {
    /// Publishes an event on a topic that the capsule hears, `lifecycle.v1.*` among them.
    ///
    /// # Panics
    /// The body has no JSON form, or the manifest does not subscribe to the topic.
    #[track_caller]
    pub fn event(&mut self, topic: &str, body: impl IntoBody) -> Handled {
        self.check_heard(topic);
        let message = self.message(Kind::Event, topic, written(body));
        self.deliver(message)
    }

    /// Asks the capsule.
    ///
    /// # Panics
    /// As [`Harness::event`].
    #[track_caller]
    pub fn ask(&mut self, topic: &str, body: impl IntoBody) -> Asked {
        self.check_heard(topic);
        let to = ReplyTo {
            high: self.host.random(),
            low: self.host.random(),
        };
        self.host.replies.insert(to, None);
        let mut message = self.message(Kind::Ask, topic, written(body));
        message.reply_to = Some(to);
        message.time_left_ms = Some(ASK_TIMEOUT_MS);
        let handled = self.deliver(message);
        Asked {
            handled,
            to,
            reply: self.reply(to),
        }
    }

    /// What came of an ask since.
    pub fn reply(&self, to: ReplyTo) -> Option<Result<Body, Problem>> {
        self.host.replies.get(&to).cloned().flatten()
    }

    /// Delivers the last message once more, as after a rollback that wants it: to a new instance, counted as another attempt.
    ///
    /// # Panics
    /// There was none.
    #[track_caller]
    pub fn retry(&mut self) -> Handled {
        let Some(mut message) = self.last.take() else {
            panic!("no message to try again")
        };
        message.attempt += 1;
        self.deliver(message)
    }

    /// Moves time. Timers fire and asks of the capsule time out on the way, in their order; what became of each is returned.
    pub fn advance(&mut self, time: Duration) -> Vec<Handled> {
        let until = self.host.now + time;
        let mut handled = Vec::new();
        loop {
            let timer = self.host.timers.iter().map(|(port, timer)| (timer.at, *port)).min();
            let ask = self.host.asks.iter().map(|(id, waiting)| (waiting.until, *id)).min();
            match (timer, ask) {
                (Some((at, port)), ask) if at <= until && ask.is_none_or(|(other, _)| at <= other) => {
                    self.host.now = self.host.now.max(at);
                    handled.push(self.fire(port));
                }
                (_, Some((at, id))) if at <= until => {
                    self.host.now = self.host.now.max(at);
                    handled.push(self.time_out(id));
                }
                _ => break,
            }
        }
        self.host.now = until;
        handled
    }

    fn fire(&mut self, port: PortId) -> Handled {
        let Some(mut timer) = self.host.timers.remove(&port) else {
            return Handled::Committed;
        };
        let tag = Body::text(timer.tag.clone());
        self.host.durable_next = timer.durable;
        if let Some(every) = timer.every {
            // One that was due while no daemon ran fires once, and goes on from then.
            timer.at = self.host.now + every;
            self.host.timers.insert(port, timer);
        }
        let mut message = self.message(Kind::Event, "port.v1.timer.fired", tag);
        message.source = Source::Port(port);
        self.deliver(message)
    }
}

/// Outcomes of the capsule's asks.
impl<C: Capsule> Harness<C> {
    /// The asks that wait, first to last.
    pub fn asks(&self) -> Vec<Ask> {
        self.host.asks.values().map(|waiting| waiting.ask.clone()).collect()
    }

    /// Answers an ask of the capsule.
    ///
    /// # Panics
    /// No ask of this identity waits, or the body has no JSON form.
    #[track_caller]
    pub fn answer(&mut self, id: CommandId, body: impl IntoBody) -> Handled {
        self.outcome(id, Kind::Answer, written(body))
    }

    /// Refuses an ask of the capsule.
    ///
    /// # Panics
    /// No ask of this identity waits.
    #[track_caller]
    pub fn refuse(&mut self, id: CommandId, problem: &Problem) -> Handled {
        let body = Body::new(astrid_wire::problem::PROBLEM_CONTENT_TYPE, problem.to_json());
        self.outcome(id, Kind::Refusal, body)
    }

    /// Lets an ask of the capsule time out, now.
    ///
    /// # Panics
    /// No ask of this identity waits.
    #[track_caller]
    pub fn time_out(&mut self, id: CommandId) -> Handled {
        self.outcome(id, Kind::Timeout, Body::text(""))
    }

    #[track_caller]
    fn outcome(&mut self, id: CommandId, kind: Kind, body: Body) -> Handled {
        let Some(waiting) = self.host.asks.remove(&id) else {
            panic!("no ask {id:?} waits: {:?}", self.asks())
        };
        let mut message = self.message(kind, &waiting.ask.said.topic, body);
        message.answers = Some(id);
        self.host.durable_next = waiting.durable;
        self.deliver(message)
    }
}

/// What the capsule did.
impl<C: Capsule> Harness<C> {
    /// Takes what was published since the last call, first to last.
    pub fn published(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.host.published)
    }

    /// Takes what was emitted since the last call, first to last.
    pub fn emitted(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.host.emitted)
    }

    /// Takes the lines logged since the last call, first to last.
    pub fn logged(&mut self) -> Vec<LogLine> {
        std::mem::take(&mut self.host.logged)
    }

    /// The tags of the timers that run and how long each still takes, soonest first.
    pub fn timers(&self) -> Vec<(String, Duration)> {
        let mut timers: Vec<_> = self
            .host
            .timers
            .values()
            .map(|timer| (timer.tag.clone(), timer.at.saturating_sub(self.host.now)))
            .collect();
        timers.sort_by_key(|(_, left)| *left);
        timers
    }
}

impl<C: Capsule> Harness<C> {
    #[track_caller]
    fn check_heard(&self, topic: &str) {
        let while_running = self
            .host
            .connection
            .iter()
            .flat_map(|connection| &connection.subscriptions);
        let mut patterns =
            while_running.chain(self.host.manifest.iter().flat_map(|manifest| manifest.subscribe.keys()));
        let mut heard = || patterns.any(|pattern| pattern.matches_str(topic));
        if self.host.manifest.is_some() && !heard() {
            panic!("the capsule never hears `{topic}`: no pattern of [subscribe] takes it");
        }
    }

    fn message(&mut self, kind: Kind, topic: &str, body: Body) -> Message {
        self.sequence += 1;
        Message {
            id: MessageId {
                boot: self.host.boot + 1,
                sequence: self.sequence,
            },
            kind,
            topic: topic.to_owned(),
            principal: self.principal.clone(),
            source: Source::Capsule(SENDER.to_owned()),
            content_type: body.content_type.into_owned(),
            body: body.bytes,
            reply_to: None,
            answers: None,
            time_left_ms: None,
            attempt: 1,
            lost: 0,
            durable: false,
        }
    }

    fn deliver(&mut self, message: Message) -> Handled {
        self.last = Some(message.clone());
        let reply_to = message.reply_to;
        self.host.begin(&message);
        let entered = sys::Entered::new(&mut self.host);
        let (mut ctx, body) = Context::of(message);
        let outcome = self.capsule.get_or_insert_default().handle(&mut ctx, body);
        drop(entered);
        let Err(rollback) = outcome else {
            self.host.commit();
            return Handled::Committed;
        };
        self.host.roll_back();
        self.capsule = None;
        if let (Some(to), Rollback::Refuse(problem)) = (reply_to, &rollback) {
            self.host.replies.insert(to, Some(Err(problem.clone())));
        }
        Handled::RolledBack(rollback)
    }
}

#[track_caller]
fn checked(pattern: &str) -> Pattern {
    pattern
        .parse()
        .unwrap_or_else(|error| panic!("`{pattern}` is not a pattern: {error}"))
}

#[track_caller]
fn written(body: impl IntoBody) -> Body {
    body.into_body().unwrap_or_else(|error| panic!("{error}"))
}
