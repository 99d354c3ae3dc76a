//! How things fail: what the kernel refuses to a capsule, and what a handler gives up with.
//!
//! A handler ends in one of three ways. It returns a value, which answers an ask. It returns a [`Problem`], which refuses the
//! ask and *commits*: the commands recorded before are carried out, for a refusal is an answer. Or it returns a [`Rollback`]:
//! none of the commands happen and the instance with its state is dropped. [`Failure`] is either of the two, and every error of
//! this module becomes a [`Problem`] by `?`.
//!
//! A message that nobody waits for is handled when it ends in a [`Problem`], which is then only logged. So a handler of a durable
//! subscription returns `Result<(), Rollback>`: by `?` every error undoes what was half done, and the message is tried again, or
//! laid aside where that is of no use.
//!
//! ```
//! # use astrid_sdk::prelude::*;
//! # #[derive(Default)] struct Orders;
//! # #[capsule] impl Orders {
//! #[on("shop.v1.ordered")]
//! fn ordered(&mut self, ctx: &mut Context, order: String) -> Result<(), Rollback> {
//!     ctx.kv().put(format!("order/{order}"), &true)?;
//!     ctx.publish("shop.v1.booked", order)?;
//!     Ok(())
//! }
//! # }
//! ```

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use crate::bindings::astrid::kernel::{actor, bus, child, connection, document, kv, port, timer, types};
pub use crate::blob::BlobError;
use crate::body::Unserializable;
pub use crate::fs::FsError;

/// What a handler returns that can fail: `Result<T>` fails with a [`Failure`], `Result<T, E>` with an `E` of choice.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Gives up on a message: none of the commands of this `handle` happen, and the instance is dropped with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// Try again, as often as the subscription says (`retry` in the manifest). Says why, for the log.
    Retry(String),
    /// Do not try again; who asked is refused with this problem.
    Refuse(Problem),
}

impl Rollback {
    /// [`Rollback::Retry`] for this reason.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self::Retry(reason.into())
    }
}

/// What can pass (something is full, or not available now, or took too long) is tried again; the rest is not.
impl<E: Into<Problem>> From<E> for Rollback {
    fn from(error: E) -> Self {
        let problem = error.into();
        match problem.code() {
            codes::UNAVAILABLE | codes::FULL | codes::TIMEOUT => Self::Retry(problem.to_string()),
            _ => Self::Refuse(problem),
        }
    }
}

impl From<Rollback> for types::Rollback {
    fn from(rollback: Rollback) -> Self {
        match rollback {
            Rollback::Retry(reason) => Self::Retry(reason),
            Rollback::Refuse(problem) => Self::Refuse((&problem).into()),
        }
    }
}

/// How a handler gives up: by a refusal that commits, or by a rollback that does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The ask is refused; what was recorded happens.
    Refuse(Problem),
    /// Nothing happened.
    Rollback(Rollback),
}

impl<E: Into<Problem>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Refuse(error.into())
    }
}

impl From<Rollback> for Failure {
    fn from(rollback: Rollback) -> Self {
        Self::Rollback(rollback)
    }
}

impl From<&Problem> for types::Problem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code().to_owned(),
            message: problem.message().to_owned(),
            hint: problem.hint().map(str::to_owned),
        }
    }
}

pub(crate) fn problem_of(problem: types::Problem) -> Problem {
    let made = Problem::new(&problem.code, problem.message);
    match problem.hint {
        Some(hint) => made.with_hint(hint),
        None => made,
    }
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not a topic; says why.
    #[error("not a topic: {0}")]
    InvalidTopic(String),
    /// The gate refused; names what is lacking. Often a line of `[publish]` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// The queue of this capsule is full, and rejects.
    #[error("the queue of {0} is full")]
    Full(String),
    /// The body is larger than this many bytes.
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    /// This `handle` has recorded this many commands, the limit.
    #[error("more than {0} commands for one message")]
    TooMany(u32),
    /// Nobody would hear it (asks and requests only).
    #[error("nobody hears this topic")]
    NoSubscriber,
    /// Not a media type, or longer than 255 bytes.
    #[error("not a content type")]
    InvalidContentType,
    /// A receiver keeps its messages on disk, and the store cannot take any now; says why.
    #[error("a receiver cannot keep it: {0}")]
    Unavailable(String),
    /// The id of [`Context::publish_once`](crate::Context::publish_once) is empty, or longer than this many bytes.
    #[error("an id has 1 to {0} bytes")]
    InvalidId(u32),
    /// A guard of the topic refused it, or could not be asked; or whom it is said for is over quota. Whoever wants it said is to be told in
    /// these words.
    #[error(transparent)]
    Refused(Problem),
    /// The body could not be written.
    #[error(transparent)]
    Unserializable(#[from] Unserializable),
}

impl From<bus::PublishError> for SendError {
    fn from(error: bus::PublishError) -> Self {
        match error {
            bus::PublishError::InvalidTopic(why) => Self::InvalidTopic(why),
            bus::PublishError::Denied(why) => Self::Denied(why),
            bus::PublishError::Full(subscriber) => Self::Full(subscriber),
            bus::PublishError::TooLarge(limit) => Self::TooLarge(limit),
            bus::PublishError::TooMany(limit) => Self::TooMany(limit),
            bus::PublishError::NoSubscriber => Self::NoSubscriber,
            bus::PublishError::InvalidContentType => Self::InvalidContentType,
            bus::PublishError::Unavailable(why) => Self::Unavailable(why),
            bus::PublishError::InvalidId(limit) => Self::InvalidId(limit),
            bus::PublishError::Refused(problem) => Self::Refused(problem_of(problem)),
        }
    }
}

impl SendError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) | Self::Refused(_) => codes::DENIED,
            Self::Full(_) => codes::FULL,
            Self::TooLarge(_) => codes::TOO_LARGE,
            Self::TooMany(_) => codes::TOO_MANY,
            Self::NoSubscriber => codes::NO_SUBSCRIBER,
            Self::Unavailable(_) => codes::UNAVAILABLE,
            // An id comes from whoever wants something said only once.
            Self::InvalidId(_) => codes::INVALID,
            // The capsule's own mistakes: who asked cannot mend them.
            Self::InvalidTopic(_) | Self::InvalidContentType | Self::Unserializable(_) => codes::CAPSULE_FAILED,
        }
    }
}

/// Why an answer was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Nobody waits there: answered before, timed out, or never issued.
    #[error("nobody waits for this answer")]
    NotWaiting,
    /// The body is larger than this many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// This `handle` has recorded this many commands, the limit.
    #[error("more than {0} commands for one message")]
    TooMany(u32),
    /// Not a media type, or longer than 255 bytes.
    #[error("not a content type")]
    InvalidContentType,
    /// The body could not be written.
    #[error(transparent)]
    Unserializable(#[from] Unserializable),
}

impl From<bus::ReplyError> for ReplyError {
    fn from(error: bus::ReplyError) -> Self {
        match error {
            bus::ReplyError::NotWaiting => Self::NotWaiting,
            bus::ReplyError::TooLarge(limit) => Self::TooLarge(limit),
            bus::ReplyError::TooMany(limit) => Self::TooMany(limit),
            bus::ReplyError::InvalidContentType => Self::InvalidContentType,
        }
    }
}

impl ReplyError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotWaiting => codes::TIMEOUT,
            Self::TooLarge(_) => codes::TOO_LARGE,
            Self::TooMany(_) => codes::TOO_MANY,
            Self::InvalidContentType | Self::Unserializable(_) => codes::CAPSULE_FAILED,
        }
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    Unsent(#[from] SendError),
    /// It was refused.
    #[error(transparent)]
    Refused(Problem),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer does not fit its type; says where.
    #[error("the answer does not fit: {}", .0.message())]
    Unreadable(Problem),
}

impl From<bus::RequestError> for RequestError {
    fn from(error: bus::RequestError) -> Self {
        match error {
            bus::RequestError::Unsent(error) => Self::Unsent(error.into()),
            bus::RequestError::Refused(problem) => Self::Refused(problem_of(problem)),
            bus::RequestError::Timeout => Self::TimedOut,
        }
    }
}

/// Why a connection was not subscribed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Not a pattern; says why.
    #[error("not a pattern: {0}")]
    InvalidPattern(String),
    /// The gate refused; names what is lacking.
    #[error("denied: {0}")]
    Denied(String),
    /// This many subscriptions are held, the limit.
    #[error("more than {0} subscriptions")]
    TooMany(u32),
}

impl From<bus::SubscribeError> for SubscribeError {
    fn from(error: bus::SubscribeError) -> Self {
        match error {
            bus::SubscribeError::InvalidPattern(why) => Self::InvalidPattern(why),
            bus::SubscribeError::Denied(why) => Self::Denied(why),
            bus::SubscribeError::TooMany(limit) => Self::TooMany(limit),
        }
    }
}

impl SubscribeError {
    fn code(&self) -> &'static str {
        match self {
            Self::InvalidPattern(_) => codes::INVALID,
            Self::Denied(_) => codes::DENIED,
            Self::TooMany(_) => codes::TOO_MANY,
        }
    }
}

/// Why a timer was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimerError {
    /// The gate refused; names what is lacking. Often `[capabilities] timer` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// This actor holds this many timers, the limit.
    #[error("more than {0} timers")]
    TooMany(u32),
    /// The delay is longer, or the period shorter, than this many milliseconds, the limit.
    #[error("the limit of a timer is {0} ms")]
    OutOfRange(u64),
    /// The tag is longer than 255 bytes.
    #[error("the tag is longer than 255 bytes")]
    TagTooLong,
}

impl From<timer::TimerError> for TimerError {
    fn from(error: timer::TimerError) -> Self {
        match error {
            timer::TimerError::Denied(why) => Self::Denied(why),
            timer::TimerError::TooMany(limit) => Self::TooMany(limit),
            timer::TimerError::OutOfRange(limit_ms) => Self::OutOfRange(limit_ms),
            timer::TimerError::TagTooLong => Self::TagTooLong,
        }
    }
}

impl TimerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::TooMany(_) => codes::TOO_MANY,
            Self::OutOfRange(_) | Self::TagTooLong => codes::CAPSULE_FAILED,
        }
    }
}

/// Why a stream refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// This actor has no such port, or it is closed.
    #[error("no such port")]
    Unknown,
    /// The peer has not taken what was written before; this many bytes are free.
    #[error("{0} bytes are free")]
    Full(u64),
    /// The gate refused; names what is lacking.
    #[error("denied: {0}")]
    Denied(String),
    /// This `handle` has recorded this many commands, the limit.
    #[error("more than {0} commands for one message")]
    TooMany(u32),
}

impl From<port::PortError> for PortError {
    fn from(error: port::PortError) -> Self {
        match error {
            port::PortError::Unknown => Self::Unknown,
            port::PortError::Full(free) => Self::Full(free),
            port::PortError::Denied(why) => Self::Denied(why),
            port::PortError::TooMany(limit) => Self::TooMany(limit),
        }
    }
}

impl PortError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown => codes::NOT_FOUND,
            Self::Full(_) => codes::FULL,
            Self::Denied(_) => codes::DENIED,
            Self::TooMany(_) => codes::TOO_MANY,
        }
    }
}

/// Why the connection's peer is not known, or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// This actor's scope is not `connection`.
    #[error("this actor serves no connection")]
    NoConnection,
    /// The credential is wrong, or this peer may not use this socket.
    #[error("refused")]
    Refused,
    /// The connection is authenticated, or was refused before. One attempt only.
    #[error("the connection has had its attempt")]
    Again,
    /// The credential is right, and there is no place for whom it shows.
    #[error("{0}")]
    NoPlace(Problem),
}

impl From<connection::PeerError> for ConnectionError {
    fn from(error: connection::PeerError) -> Self {
        match error {
            connection::PeerError::NoConnection => Self::NoConnection,
        }
    }
}

impl From<connection::AuthenticateError> for ConnectionError {
    fn from(error: connection::AuthenticateError) -> Self {
        match error {
            connection::AuthenticateError::NoConnection => Self::NoConnection,
            connection::AuthenticateError::Refused => Self::Refused,
            connection::AuthenticateError::Again => Self::Again,
            connection::AuthenticateError::NoPlace(problem) => Self::NoPlace(problem_of(problem)),
        }
    }
}

impl From<ConnectionError> for Problem {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::NoPlace(problem) => problem,
            ConnectionError::NoConnection => Self::new(codes::CAPSULE_FAILED, error.to_string()),
            ConnectionError::Refused | ConnectionError::Again => Self::new(codes::DENIED, error.to_string()),
        }
    }
}

/// Why a program is not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The gate refused; names what is lacking. Often `[capabilities] child` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// There is no such program; says where it was looked for.
    #[error("no such program: {0}")]
    NotFound(String),
    /// It may not be executed.
    #[error("not executable: {0}")]
    NotExecutable(String),
    /// The working directory is none, or cannot be entered.
    #[error("no such directory: {0}")]
    NoDirectory(String),
    /// A part of the spec is not valid; names it.
    #[error("not valid: {0}")]
    Invalid(String),
    /// This machine cannot do what is asked.
    #[error("not supported here: {0}")]
    Unsupported(String),
    /// This many children are held, or commands recorded: the limit.
    #[error("more than {0} children")]
    TooMany(u32),
}

impl From<child::SpawnError> for SpawnError {
    fn from(error: child::SpawnError) -> Self {
        match error {
            child::SpawnError::Denied(why) => Self::Denied(why),
            child::SpawnError::NotFound(what) => Self::NotFound(what),
            child::SpawnError::NotExecutable(what) => Self::NotExecutable(what),
            child::SpawnError::NoDirectory(what) => Self::NoDirectory(what),
            child::SpawnError::Invalid(what) => Self::Invalid(what),
            child::SpawnError::Unsupported(what) => Self::Unsupported(what),
            child::SpawnError::TooMany(limit) => Self::TooMany(limit),
        }
    }
}

impl SpawnError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::NotFound(_) => "child.not-found",
            Self::NotExecutable(_) => "child.not-executable",
            Self::NoDirectory(_) => "child.no-directory",
            Self::Invalid(_) => codes::INVALID,
            Self::Unsupported(_) => "child.unsupported",
            Self::TooMany(_) => codes::TOO_MANY,
        }
    }
}

/// Why a child could not be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChildError {
    /// This actor has no such child.
    #[error("no such child")]
    Unknown,
    /// It has no input that could be written to.
    #[error("it has no input")]
    NoInput,
    /// It has not read what was written before; this many bytes are free.
    #[error("{0} bytes are free")]
    Full(u64),
    /// This `handle` has recorded this many commands, the limit.
    #[error("more than {0} commands for one message")]
    TooMany(u32),
}

impl From<child::ChildError> for ChildError {
    fn from(error: child::ChildError) -> Self {
        match error {
            child::ChildError::Unknown => Self::Unknown,
            child::ChildError::NoInput => Self::NoInput,
            child::ChildError::Full(free) => Self::Full(free),
            child::ChildError::TooMany(limit) => Self::TooMany(limit),
        }
    }
}

impl ChildError {
    fn code(&self) -> &'static str {
        match self {
            Self::Unknown => codes::NOT_FOUND,
            Self::NoInput => codes::UNSUPPORTED,
            Self::Full(_) => codes::FULL,
            Self::TooMany(_) => codes::TOO_MANY,
        }
    }
}

/// Why a log file was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// Not a name of a log file.
    #[error("not a name of a log file")]
    InvalidName,
    /// There is none of that name.
    #[error("no such log file")]
    NotFound,
    /// Reading failed; says how.
    #[error("{0}")]
    Failed(String),
}

impl From<child::TailError> for TailError {
    fn from(error: child::TailError) -> Self {
        match error {
            child::TailError::InvalidName => Self::InvalidName,
            child::TailError::NotFound => Self::NotFound,
            child::TailError::Failed(why) => Self::Failed(why),
        }
    }
}

impl TailError {
    fn code(&self) -> &'static str {
        match self {
            Self::InvalidName => codes::INVALID,
            Self::NotFound => codes::NOT_FOUND,
            Self::Failed(_) => codes::UNAVAILABLE,
        }
    }
}

/// Why a document was not read or replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The gate refused; names what is lacking. Often `[capabilities] document` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// It has more bytes than this, the limit.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Somebody has changed it meanwhile.
    #[error("somebody else has changed it meanwhile")]
    Changed,
    /// The operating system refused; says why.
    #[error("{0}")]
    Failed(String),
}

impl From<document::DocumentError> for DocumentError {
    fn from(error: document::DocumentError) -> Self {
        match error {
            document::DocumentError::Denied(why) => Self::Denied(why),
            document::DocumentError::TooLarge(limit) => Self::TooLarge(limit),
            document::DocumentError::NotText => Self::NotText,
            document::DocumentError::Changed => Self::Changed,
            document::DocumentError::Failed(why) => Self::Failed(why),
        }
    }
}

impl DocumentError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::TooLarge(_) => codes::TOO_LARGE,
            Self::NotText => codes::INVALID,
            Self::Changed => "document.changed",
            Self::Failed(_) => codes::UNAVAILABLE,
        }
    }
}

/// Why the table was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// The gate refused; names what is lacking. Often `[capabilities] kv` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// A key is empty, or longer than this many bytes.
    #[error("a key has 1 to {0} bytes")]
    InvalidKey(u32),
    /// The value is longer than this many bytes.
    #[error("the value is longer than {0} bytes")]
    TooLarge(u64),
    /// This `handle` has written this many keys, or this many bytes, the limit.
    #[error("more than {0} keys or bytes are written for one message")]
    TooMuch(u64),
    /// The store cannot be read now; says why.
    #[error("the store cannot be read: {0}")]
    Unavailable(String),
    /// A key or value is not what is read.
    #[error("`{key}`: {why}")]
    Unreadable {
        /// The key.
        key: String,
        /// What does not fit, and where.
        why: String,
    },
    /// The value could not be written.
    #[error(transparent)]
    Unserializable(#[from] Unserializable),
}

impl From<kv::KvError> for KvError {
    fn from(error: kv::KvError) -> Self {
        match error {
            kv::KvError::Denied(why) => Self::Denied(why),
            kv::KvError::InvalidKey(limit) => Self::InvalidKey(limit),
            kv::KvError::TooLarge(limit) => Self::TooLarge(limit),
            kv::KvError::TooMuch(limit) => Self::TooMuch(limit),
            kv::KvError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl KvError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::InvalidKey(_) => "kv.invalid-key",
            Self::TooLarge(_) => "kv.too-large",
            Self::TooMuch(_) => "kv.too-much",
            Self::Unavailable(_) => codes::UNAVAILABLE,
            Self::Unreadable { .. } => "kv.unreadable",
            Self::Unserializable(_) => codes::CAPSULE_FAILED,
        }
    }
}

/// Why an actor was not pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The gate refused; names what is lacking. Often `[capabilities] pin` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// This actor's scope is `connection`: it ends with its stream.
    #[error("an actor of a connection ends with it")]
    Connection,
    /// This `handle` has recorded this many commands, the limit.
    #[error("more than {0} commands for one message")]
    TooMany(u32),
}

impl From<actor::ActorError> for PinError {
    fn from(error: actor::ActorError) -> Self {
        match error {
            actor::ActorError::Denied(why) => Self::Denied(why),
            actor::ActorError::Connection => Self::Connection,
            actor::ActorError::TooMany(limit) => Self::TooMany(limit),
        }
    }
}

impl PinError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::Connection => codes::CAPSULE_FAILED,
            Self::TooMany(_) => codes::TOO_MANY,
        }
    }
}

macro_rules! problem_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                Self::new(error.code(), error.to_string())
            }
        }
    )*};
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(problem) => problem,
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

problem_from!(
    ReplyError,
    SubscribeError,
    TimerError,
    PortError,
    SpawnError,
    ChildError,
    TailError,
    DocumentError,
    KvError,
    PinError
);

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Unsent(error) => error.into(),
            RequestError::Refused(problem) => problem,
            RequestError::TimedOut => Self::new(codes::TIMEOUT, error.to_string()),
            RequestError::Unreadable(_) => Self::new(codes::CAPSULE_FAILED, error.to_string()),
        }
    }
}
