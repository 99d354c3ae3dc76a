//! [`Context`]: the message being handled, and what a handler can do about it.
//!
//! What it does is of two kinds, and each method says which. A *command* is checked at once, recorded, and carried out after
//! the handler returned, in order; a rollback drops it. What acts *at once* is done whatever becomes of the handler.

use std::time::Duration;

use astrid_wire::Problem;

use crate::bindings::astrid::kernel::connection::PeerInfo;
use crate::bindings::astrid::kernel::timer::Armed;
use crate::bindings::astrid::kernel::types::{self, CommandId, Kind, MessageId, PortId, ReplyTo, Source};
use crate::blob::Blobs;
use crate::body::{Body, IntoBody};
use crate::child::{Reach, Signal, Spec, Usage};
use crate::error::{
    ChildError, ConnectionError, DocumentError, PinError, PortError, ReplyError, SendError, SpawnError, SubscribeError,
    TailError,
};
use crate::fs::Fs;
use crate::kv::Kv;
use crate::send::{Ask, Request, Timer};
use crate::sys;

/// Most random bytes that the kernel gives at once.
const RANDOM_BYTES_MAX: u32 = 65_536;

/// The message being handled, and the kernel.
///
/// A handler gets one for the message at hand; it cannot be kept.
#[derive(Debug)]
pub struct Context {
    /// The message, without its body and content type: those are the handler's.
    message: types::Message,
}

/// The message.
impl Context {
    /// The context of a message, and its body.
    pub(crate) fn of(mut message: types::Message) -> (Self, Body) {
        let body = Body::new(
            std::mem::take(&mut message.content_type),
            std::mem::take(&mut message.body),
        );
        (Self { message }, body)
    }

    /// Its identity.
    pub fn id(&self) -> MessageId {
        self.message.id
    }

    /// What it is to this capsule: an event, an ask, or the outcome of an ask of its own.
    pub fn kind(&self) -> Kind {
        self.message.kind
    }

    /// The topic it was published on.
    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// On whose behalf it was sent. Stamped by the kernel.
    pub fn principal(&self) -> &str {
        &self.message.principal
    }

    /// Where it comes from. Stamped by the kernel.
    pub fn source(&self) -> &Source {
        &self.message.source
    }

    /// The port that sent it: a stream or timer of this actor.
    pub fn port(&self) -> Option<PortId> {
        match self.message.source {
            Source::Port(port) => Some(port),
            Source::Kernel | Source::Capsule(_) => None,
        }
    }

    /// Where the answer goes, when it is an ask. Plain data: keep it to answer later with [`Context::reply`], from a handler
    /// that itself returns `()`.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        self.message.reply_to
    }

    /// Which ask of this capsule it answers, when it is an outcome.
    pub fn answers(&self) -> Option<CommandId> {
        self.message.answers
    }

    /// How long the sender still waits, when it is an ask.
    pub fn time_left(&self) -> Option<Duration> {
        self.message.time_left_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// 1 for the first delivery, counting up over retries.
    pub fn attempt(&self) -> u32 {
        self.message.attempt
    }

    /// How many messages were dropped from this capsule's queue since the one before.
    pub fn lost(&self) -> u32 {
        self.message.lost
    }

    /// Whether the store keeps it until it was handled: it came by a durable subscription or timer, or is the outcome of an ask of such.
    pub fn is_durable(&self) -> bool {
        self.message.durable
    }

    fn command(&self, ordinal: u32) -> CommandId {
        CommandId {
            cause: self.message.id,
            ordinal,
        }
    }
}

/// Saying things.
impl Context {
    /// Command: publishes a message.
    ///
    /// ```
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// ctx.publish("tally.v1.counted", json!({ "words": 3 }))?;
    /// ctx.publish("notes.v1.added", Body::text("remember the milk"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn publish(&mut self, topic: &str, body: impl IntoBody) -> Result<CommandId, SendError> {
        self.publish_body(topic, &body.into_body()?)
    }

    fn publish_body(&mut self, topic: &str, body: &Body) -> Result<CommandId, SendError> {
        let ordinal = sys::bus::publish(topic, &body.content_type, &body.bytes)?;
        Ok(self.command(ordinal))
    }

    /// Command: as [`Context::publish`], but only if no message with this id (1 to 128 bytes) was published on
    /// behalf of this principal in the last 24 hours, or among its last 100,000 with an id. Otherwise nothing is said, and this succeeds.
    ///
    /// ```
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context, order: String) -> Result<()> {
    /// // Whoever ordered says it again when it has not heard whether it was taken.
    /// ctx.publish_once(&order, "shop.v1.ordered", json!({ "order": order }))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn publish_once(&mut self, id: &str, topic: &str, body: impl IntoBody) -> Result<CommandId, SendError> {
        let body = body.into_body()?;
        let ordinal = sys::bus::publish_once(id, topic, &body.content_type, &body.bytes)?;
        Ok(self.command(ordinal))
    }

    /// At once, unacknowledged: publishes progress or telemetry. A receiver without room misses it.
    ///
    /// # Errors
    /// Refused when checked.
    pub fn emit(&mut self, topic: &str, body: impl IntoBody) -> Result<(), SendError> {
        let body = body.into_body()?;
        Ok(sys::bus::emit(topic, &body.content_type, &body.bytes)?)
    }

    /// Command: publishes a message that wants an answer, which arrives at an `#[answer]` handler.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// let asked = ctx.ask("hello.v1.greet", json!({ "name": "Ada" })).timeout(Duration::from_secs(5)).send()?;
    /// # Ok(()) }
    /// ```
    pub fn ask<'a>(&'a mut self, topic: &'a str, body: impl IntoBody) -> Ask<'a> {
        Ask::new(self.id(), topic, body.into_body())
    }

    /// Command: answers an ask whose [`Context::reply_to`] was kept. The first answer counts.
    ///
    /// # Errors
    /// Refused when checked. [`ReplyError::NotWaiting`] is the ordinary fate of an answer that took too long.
    pub fn reply(&mut self, to: ReplyTo, body: impl IntoBody) -> Result<CommandId, ReplyError> {
        let body = body.into_body()?;
        let ordinal = sys::bus::reply(to, &body.content_type, &body.bytes)?;
        Ok(self.command(ordinal))
    }

    /// Command: refuses an ask whose [`Context::reply_to`] was kept.
    ///
    /// # Errors
    /// As [`Context::reply`].
    pub fn refuse(&mut self, to: ReplyTo, problem: &Problem) -> Result<CommandId, ReplyError> {
        let ordinal = sys::bus::refuse(to, &problem.into())?;
        Ok(self.command(ordinal))
    }

    /// At once: sends a message and waits for its answer, outside this handler's transaction. Only towards topics of
    /// interfaces that the manifest imports. It holds this actor up; [`Context::ask`] does not.
    ///
    /// ```
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// let greeting: Value = ctx.request("hello.v1.greet", json!({ "name": "Ada" })).send()?;
    /// # Ok(()) }
    /// ```
    pub fn request<'a>(&'a mut self, topic: &'a str, body: impl IntoBody) -> Request<'a> {
        Request::new(topic, body.into_body())
    }
}

/// Time and chance.
impl Context {
    /// Time since 1970-01-01T00:00:00Z, to the millisecond. Stands still within a handler; may jump between two.
    pub fn unix_time(&self) -> Duration {
        Duration::from_millis(sys::clock::wall_ms())
    }

    /// Time since the daemon started. Stands still within a handler; never goes backwards.
    pub fn uptime(&self) -> Duration {
        Duration::from_nanos(sys::clock::monotonic_ns())
    }

    /// Random bytes fit for keys and nonces.
    pub fn random_bytes(&self, count: usize) -> Vec<u8> {
        random_bytes(count)
    }

    /// A random number, all values equally likely.
    pub fn random_number(&self) -> u64 {
        sys::random::number()
    }

    /// Command: a timer that fires this much later, at a `#[timer]` handler. Needs `[capabilities] timer`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// ctx.timer(Duration::from_secs(60)).tag("report").every(Duration::from_secs(60)).set()?;
    /// # Ok(()) }
    /// ```
    pub fn timer(&mut self, after: Duration) -> Timer<'_> {
        Timer::new(after)
    }

    /// The timers of this actor, as they were before this handler. How a new instance finds the durable ones.
    pub fn timers(&self) -> Vec<Armed> {
        sys::timer::list_set()
    }

    /// Command: ends a timer; a firing that is queued is withdrawn. False when this actor has no such timer.
    pub fn cancel(&mut self, timer: PortId) -> bool {
        sys::timer::cancel(timer)
    }
}

/// What outlives the instance.
impl Context {
    /// The actor's own table. Needs `[capabilities] kv`; see [`mod@crate::kv`].
    ///
    /// ```
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// let visits: u64 = ctx.kv().get("visits")?.unwrap_or_default();
    /// ctx.kv().put("visits", &(visits + 1))?;
    /// for entry in ctx.kv().prefix("draft/") {
    ///     ctx.kv().delete(entry?.key)?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn kv(&mut self) -> Kv<'_> {
        Kv::new()
    }

    /// Command: keeps this actor from being evicted, and activates it at every start of the daemon, until [`Context::unpin`]. Needs
    /// `[capabilities] pin`.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn pin(&mut self) -> Result<(), PinError> {
        Ok(sys::actor::pin()?)
    }

    /// Command: undoes [`Context::pin`].
    ///
    /// # Errors
    /// As [`Context::pin`].
    pub fn unpin(&mut self) -> Result<(), PinError> {
        Ok(sys::actor::unpin()?)
    }
}

/// Streams and the connection. Need `scope = "connection"` and `[capabilities] listen`.
impl Context {
    /// Command: writes to a stream. Bytes leave in the order of the commands.
    ///
    /// # Errors
    /// Refused when checked. [`PortError::Full`] says how much would fit.
    pub fn write(&mut self, port: PortId, bytes: &[u8]) -> Result<CommandId, PortError> {
        let ordinal = sys::port::write(port, bytes)?;
        Ok(self.command(ordinal))
    }

    /// Command: closes a stream once what was written has left. Ends a connection-scope actor.
    ///
    /// # Errors
    /// Refused when checked.
    pub fn close(&mut self, port: PortId) -> Result<CommandId, PortError> {
        let ordinal = sys::port::close(port)?;
        Ok(self.command(ordinal))
    }

    /// Who is at the other end of this connection.
    ///
    /// # Errors
    /// [`ConnectionError::NoConnection`].
    pub fn peer(&self) -> Result<PeerInfo, ConnectionError> {
        Ok(sys::connection::peer()?)
    }

    /// At once: the peer claims to be this principal. The bytes that it must sign; the credential is then its public key and the signature.
    ///
    /// # Errors
    /// There is one attempt.
    pub fn challenge(&mut self, claim: &str) -> Result<Vec<u8>, ConnectionError> {
        Ok(sys::connection::challenge(claim)?)
    }

    /// At once: presents the peer's credential. On success the connection acts as the principal that is returned.
    ///
    /// # Errors
    /// Not accepted. There is one attempt.
    pub fn authenticate(&mut self, credential: &[u8]) -> Result<String, ConnectionError> {
        Ok(sys::connection::authenticate(credential)?)
    }

    /// At once: subscribes this connection to a pattern, until it ends.
    ///
    /// # Errors
    /// Refused.
    pub fn subscribe(&mut self, pattern: &str) -> Result<(), SubscribeError> {
        Ok(sys::bus::subscribe(pattern)?)
    }

    /// At once: ends a subscription of this connection. False when there was none.
    pub fn unsubscribe(&mut self, pattern: &str) -> bool {
        sys::bus::unsubscribe(pattern)
    }
}

/// Programs outside of the daemon. Need `[capabilities] child`; see [`crate::child`].
impl Context {
    /// Command: starts a program. What can be checked is checked now; `port.v1.child.started` or `.failed` says what became of it.
    ///
    /// # Errors
    /// Refused when checked; nothing was recorded.
    pub fn spawn(&mut self, spec: &Spec) -> Result<PortId, SpawnError> {
        Ok(sys::child::spawn(spec)?)
    }

    /// Command: sends a child a signal.
    ///
    /// # Errors
    /// Refused when checked.
    pub fn signal(&mut self, child: PortId, signal: Signal, reach: Reach) -> Result<CommandId, ChildError> {
        let ordinal = sys::child::send_signal(child, signal, reach)?;
        Ok(self.command(ordinal))
    }

    /// Command: writes to a child's standard input.
    ///
    /// # Errors
    /// Refused when checked. [`ChildError::Full`] says how much would fit.
    pub fn write_input(&mut self, child: PortId, bytes: &[u8]) -> Result<CommandId, ChildError> {
        let ordinal = sys::child::write(child, bytes)?;
        Ok(self.command(ordinal))
    }

    /// Command: closes a child's standard input once what was written has arrived.
    ///
    /// # Errors
    /// Refused when checked.
    pub fn close_input(&mut self, child: PortId) -> Result<CommandId, ChildError> {
        let ordinal = sys::child::close_input(child)?;
        Ok(self.command(ordinal))
    }

    /// At once: what a child and everything that it has started use.
    ///
    /// # Errors
    /// [`ChildError::Unknown`].
    pub fn measure(&self, child: PortId) -> Result<Usage, ChildError> {
        Ok(sys::child::measure(child)?)
    }

    /// At once: the last lines of a log file that a child's output goes to; at most 10,000 and 1 MiB.
    ///
    /// # Errors
    /// Not there, or not readable.
    pub fn tail(&self, name: &str, lines: u32) -> Result<Vec<u8>, TailError> {
        Ok(sys::child::tail(name, lines)?)
    }

    /// At once: where a log file is, for whoever reads it on this machine.
    ///
    /// # Errors
    /// [`TailError::InvalidName`].
    pub fn log_path(&self, name: &str) -> Result<String, TailError> {
        Ok(sys::child::log_path(name)?)
    }
}

/// Documents of the operator. Need `[capabilities] document`.
impl Context {
    /// At once: a document's text, if it exists.
    ///
    /// # Errors
    /// Denied, or not readable.
    pub fn read_document(&self, name: &str) -> Result<Option<String>, DocumentError> {
        Ok(sys::document::read(name)?)
    }

    /// At once, whatever becomes of this handler: replaces a document, whole and durably, if it still is what was read.
    ///
    /// # Errors
    /// Denied, changed by somebody else, or not writable; the document is as it was.
    pub fn replace_document(&mut self, name: &str, was: Option<&str>, text: &str) -> Result<(), DocumentError> {
        Ok(sys::document::replace(name, was, text)?)
    }
}

/// Files. Need `[capabilities] fs`.
impl Context {
    /// Files of the principal that this is handled for; see [`mod@crate::fs`].
    ///
    /// ```
    /// # use astrid_sdk::prelude::*;
    /// # fn handler(ctx: &mut Context) -> Result<()> {
    /// let readme = ctx.fs().read_to_string("workspace://README.md", 1 << 20)?;
    /// ctx.fs().write("workspace://COPY.md", readme)?;
    /// # Ok(()) }
    /// ```
    pub fn fs(&mut self) -> Fs<'_> {
        Fs::new()
    }
}

/// The content store. Needs `[capabilities] kv`.
impl Context {
    /// Bytes by their hash, of the principal that this is handled for; see [`mod@crate::blob`].
    pub fn blobs(&mut self) -> Blobs<'_> {
        Blobs::new()
    }
}

/// As many random bytes as are wanted, in pieces that the kernel gives.
pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let piece = u32::try_from(count - bytes.len())
            .unwrap_or(u32::MAX)
            .min(RANDOM_BYTES_MAX);
        match sys::random::bytes(piece) {
            Ok(given) => bytes.extend(given),
            // The limit is part of the contract, and nothing may be made of chance that is none.
            Err(error) => panic!("no random bytes: {error:?}"),
        }
    }
    bytes
}
