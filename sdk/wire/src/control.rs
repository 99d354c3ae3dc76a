//! Topics and JSON bodies of what the kernel itself answers and announces, shared by the kernel and whoever asks it.
//!
//! Every body is JSON ([`JSON_CONTENT_TYPE`]). Readers ignore fields they do not know; fields are added, never changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::describe::TopicDescription;

#[cfg(feature = "manifest")]
pub mod admin;
pub mod audit;
pub mod backup;
pub mod dead;
#[cfg(feature = "schema")]
pub mod schema;
pub mod usage;
pub mod workspace;

/// Media type of every body here.
pub const JSON_CONTENT_TYPE: &str = "application/json";

/// Request: the daemon's [`Status`].
pub const REQUEST_STATUS: &str = "astrid.v1.request.status";
/// Request: [`Capsules`].
pub const REQUEST_CAPSULES: &str = "astrid.v1.request.capsules";
/// Request with a [`CapsuleRequest`]: [`CapsuleDetail`].
pub const REQUEST_CAPSULE: &str = "astrid.v1.request.capsule";
/// Request with a [`CapsuleRequest`]: what is kept for a capsule that does not run is forgotten; [`Forgotten`]. From the operator
/// socket only.
pub const REQUEST_CAPSULE_FORGET: &str = "astrid.v1.request.capsule.forget";
/// Request: [`Connections`]. From the operator socket only.
pub const REQUEST_WHO: &str = "astrid.v1.request.who";
/// Request: [`Interfaces`].
pub const REQUEST_INTERFACES: &str = "astrid.v1.request.interfaces";
/// Request: the daemon stops. From the operator socket only.
pub const REQUEST_SHUTDOWN: &str = "astrid.v1.request.shutdown";

/// What may be asked of the kernel: the one table from a topic to who may say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// [`REQUEST_STATUS`].
    Status,
    /// [`REQUEST_CAPSULES`].
    Capsules,
    /// [`REQUEST_CAPSULE`].
    Capsule,
    /// [`REQUEST_CAPSULE_FORGET`].
    CapsuleForget,
    /// [`REQUEST_WHO`].
    Who,
    /// [`REQUEST_INTERFACES`].
    Interfaces,
    /// [`REQUEST_SHUTDOWN`].
    Shutdown,
    /// [`dead::REQUEST_LIST`].
    DeadList,
    /// [`dead::REQUEST_SHOW`].
    DeadShow,
    /// [`dead::REQUEST_RETRY`].
    DeadRetry,
    /// [`dead::REQUEST_DROP`].
    DeadDrop,
    /// [`backup::REQUEST`].
    Backup,
    /// One of [`admin::Admin`].
    #[cfg(feature = "manifest")]
    Admin(admin::Admin),
}

impl Verb {
    /// All of them, but for [`admin::Admin::ALL`].
    pub const ALL: [Self; 12] = [
        Self::Status,
        Self::Capsules,
        Self::Capsule,
        Self::CapsuleForget,
        Self::Who,
        Self::Interfaces,
        Self::Shutdown,
        Self::DeadList,
        Self::DeadShow,
        Self::DeadRetry,
        Self::DeadDrop,
        Self::Backup,
    ];

    /// What a message on this topic asks for; `None` when the kernel answers nothing there.
    #[must_use]
    pub fn of(topic: &crate::Topic) -> Option<Self> {
        Self::all().find(|verb| verb.topic() == topic.as_str())
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let all = Self::ALL.into_iter();
        #[cfg(feature = "manifest")]
        let all = all.chain(admin::Admin::ALL.iter().copied().map(Self::Admin));
        all
    }

    /// Where it is asked.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Status => REQUEST_STATUS,
            Self::Capsules => REQUEST_CAPSULES,
            Self::Capsule => REQUEST_CAPSULE,
            Self::CapsuleForget => REQUEST_CAPSULE_FORGET,
            Self::Who => REQUEST_WHO,
            Self::Interfaces => REQUEST_INTERFACES,
            Self::Shutdown => REQUEST_SHUTDOWN,
            Self::DeadList => dead::REQUEST_LIST,
            Self::DeadShow => dead::REQUEST_SHOW,
            Self::DeadRetry => dead::REQUEST_RETRY,
            Self::DeadDrop => dead::REQUEST_DROP,
            Self::Backup => backup::REQUEST,
            #[cfg(feature = "manifest")]
            Self::Admin(admin) => admin.topic(),
        }
    }

    /// Its name, as capabilities have it: `admin:<name>`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let topic = self.topic();
        topic
            .strip_prefix("astrid.v1.request.")
            .or_else(|| topic.strip_prefix("astrid.v1.admin."))
            .unwrap_or(topic)
    }

    /// Whether only a connection of the operator socket may ask it (A2). It then needs the capability `admin:<name>` too.
    #[must_use]
    pub const fn operator_only(self) -> bool {
        match self {
            Self::Status | Self::Capsules | Self::Capsule | Self::Interfaces => false,
            // Letters are others' messages; a backup has the keys in it.
            Self::CapsuleForget
            | Self::Who
            | Self::Shutdown
            | Self::DeadList
            | Self::DeadShow
            | Self::DeadRetry
            | Self::DeadDrop
            | Self::Backup => true,
            #[cfg(feature = "manifest")]
            Self::Admin(_) => true,
        }
    }
}

/// Announced when boot has loaded what it could: [`Capsules`].
pub const CAPSULES_LOADED: &str = "astrid.v1.capsules_loaded";
/// Announced when the daemon begins to stop.
pub const SHUTDOWN: &str = "astrid.v1.shutdown";
/// Said by a capsule with `drain = true` when it has finished what it had to before the daemon stops (K4).
pub const SHUTDOWN_DONE: &str = "astrid.v1.shutdown.done";
/// Announced when a generation of an actor failed: [`HealthFailed`] (K6).
pub const HEALTH_FAILED: &str = "astrid.v1.health.failed";
/// `dead.v1.<capsule>`: a message that was given up.
pub const DEAD_PREFIX: &str = "dead.v1.";

/// A stream was accepted: the first message of a connection-scope actor.
pub const STREAM_OPENED: &str = "port.v1.stream.opened";
/// Bytes that the peer sent.
pub const STREAM_DATA: &str = "port.v1.stream.data";
/// The peer will send no more.
pub const STREAM_CLOSED: &str = "port.v1.stream.closed";
/// A timer fired; the body is its tag.
pub const TIMER_FIRED: &str = "port.v1.timer.fired";

/// An actor's first message, if it subscribes to it.
pub const LIFECYCLE_STARTED: &str = "lifecycle.v1.started";
/// A new generation's first message after a failure, if it subscribes to it.
pub const LIFECYCLE_RESTARTED: &str = "lifecycle.v1.restarted";

/// First segments of topics that only the kernel publishes on.
pub const RESERVED_DOMAINS: [&str; 4] = ["port", "lifecycle", "dead", "reply"];

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Boot is not complete.
    Starting,
    /// Everything that should run does.
    Ready,
    /// It serves, but not all of it; [`Status::reasons`] says what is missing.
    Degraded,
    /// It accepts nothing any more.
    Stopping,
}

/// How long the daemon lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Until it is stopped.
    Persistent,
    /// Until the last client leaves (K5).
    Ephemeral,
    /// The same, in a home that is thrown away.
    Private,
}

/// Where clients connect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sockets {
    /// Path of the operator socket.
    pub operator: String,
    /// Path of the session socket.
    pub session: String,
}

/// Messages since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// Said by anybody.
    pub published: u64,
    /// Put into a receiver's queue; one published message counts once for each.
    pub delivered: u64,
    /// Not let through: by the gate, a limit or a full queue.
    pub refused: u64,
}

/// Programs that the daemon runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCount {
    /// All of them.
    pub all: u64,
    /// Started with `sandbox = "none"`: they could reach the daemon's home.
    pub unprotected: u64,
    /// The process that keeps them, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper_pid: Option<u32>,
}

/// What survives the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Why it takes no commits now, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Commits on disk since the store was made.
    pub commits: u64,
    /// Bytes that it takes, on disk or, in a home that is thrown away, in memory.
    pub bytes: u64,
    /// Messages in it that wait for actors that are there, or are being handled.
    pub waiting: u64,
}

/// The daemon, as `run/status.json` and [`REQUEST_STATUS`] give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How far it is.
    pub state: State,
    /// Process id.
    pub pid: u32,
    /// Of the binary.
    pub version: String,
    /// How long it lives.
    pub mode: Mode,
    /// Path of its home.
    pub home: String,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// Milliseconds of the monotonic clock.
    pub uptime_ms: u64,
    /// Where clients connect.
    pub sockets: Sockets,
    /// Open now.
    pub connections: u64,
    /// Counted since the start.
    pub messages: Messages,
    /// Units of fuel that all capsules used together.
    pub fuel_used: u64,
    /// Programs outside of the daemon.
    #[serde(default)]
    pub children: ChildCount,
    /// What survives.
    #[serde(default)]
    pub store: StoreReport,
    /// Every capsule that was found.
    pub capsules: Vec<CapsuleReport>,
    /// Why it is degraded.
    #[serde(default)]
    pub reasons: Vec<String>,
}

/// Where a capsule was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// In the binary.
    Embedded,
    /// In a directory named for development.
    Directory,
    /// In the home's `capsules/`.
    Home,
    /// Loaded from nowhere now; something is kept for it.
    Gone,
}

/// How a capsule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapsuleState {
    /// Being compiled or linked.
    Loading,
    /// Handles messages.
    Ready,
    /// Failed, and waits for its next attempt.
    Restarting,
    /// Failed too often; stays so until told.
    Down,
    /// Was not let in; the reason says why.
    Refused,
    /// Was here, and is not; what is said to its durable topics is kept for it.
    Absent,
}

/// One capsule: what it is, how it is, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleReport {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// A sentence for people.
    pub description: String,
    /// `system`, `principal` or `connection`.
    pub scope: String,
    /// Where it was found.
    pub origin: Origin,
    /// How it is.
    pub state: CapsuleState,
    /// Why it is not ready, or what failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Live now.
    pub actors: u64,
    /// Instances made since the start.
    pub generations: u64,
    /// Traps, and exhaustion of fuel, memory or time.
    pub faults: u64,
    /// Messages handled, whatever came of it.
    pub handled: u64,
    /// Units of fuel.
    pub fuel_used: u64,
    /// The most that one of its actors held, in bytes.
    pub memory_peak_bytes: u64,
    /// Interfaces it serves, with their versions.
    pub exports: BTreeMap<String, String>,
    /// Interfaces it needs, with what versions will do.
    pub imports: BTreeMap<String, String>,
    /// Patterns it may publish on.
    pub publish: Vec<String>,
    /// Patterns it hears.
    pub subscribe: Vec<String>,
    /// What it may do beyond messages, with the reason it gives.
    pub capabilities: BTreeMap<String, String>,
}

/// Answer to [`REQUEST_CAPSULES`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capsules {
    /// By name.
    pub capsules: Vec<CapsuleReport>,
}

/// Body of [`REQUEST_CAPSULE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapsuleRequest {
    /// Which.
    pub name: String,
}

/// Answer to [`REQUEST_WHO`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The oldest first.
    pub connections: Vec<ConnectionReport>,
}

/// An open connection (K15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Its stream's number, in this life of the daemon.
    pub id: u64,
    /// The capsule that serves it.
    pub capsule: String,
    /// Whom it acts as; `anonymous` until it has shown who it is.
    pub principal: String,
    /// `operator` or `session`.
    pub socket: String,
    /// Process at the other end, by the operating system.
    pub pid: u32,
    /// User of that.
    pub uid: u32,
    /// Whether that is a program that this daemon runs.
    pub child: bool,
    /// Milliseconds of the daemon's life when it was accepted.
    pub since_ms: u64,
    /// What it hears.
    pub subscriptions: Vec<String>,
}

/// Answer to [`REQUEST_CAPSULE_FORGET`]: what was kept, and is not any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Whether it had durable subscriptions.
    pub subscriptions: bool,
    /// Messages that waited for it.
    pub messages: u64,
    /// Its durable timers.
    pub timers: u64,
    /// Its open asks, and what kept its actors alive.
    pub others: u64,
}

/// Answer to [`REQUEST_CAPSULE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapsuleDetail {
    /// As in the status.
    #[serde(flatten)]
    pub report: CapsuleReport,
    /// Its manifest, all defaults filled in.
    pub manifest: serde_json::Value,
    /// Its topics and their schemas.
    pub topics: Vec<TopicDescription>,
}

/// One exporter of an interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exporter {
    /// The capsule.
    pub capsule: String,
    /// Version of the interface.
    pub version: String,
    /// The capsule's topics and their schemas.
    pub topics: Vec<TopicDescription>,
}

/// Answer to [`REQUEST_INTERFACES`]: by name of the interface, who serves it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Interfaces {
    /// Exporters by interface.
    pub interfaces: BTreeMap<String, Vec<Exporter>>,
}

/// Body of [`HEALTH_FAILED`] (K6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthFailed {
    /// Which capsule.
    pub capsule: String,
    /// Which of its actors: the principal that it acts as.
    pub actor: String,
    /// Which generation ended.
    pub generation: u64,
    /// `trap`, `fuel`, `memory`, `time` or `start`.
    pub cause: String,
    /// The message that it was handling.
    pub message_id: String,
    /// When the next generation starts; none: at once, or never when the actor stays down.
    pub restart_in_ms: Option<u64>,
    /// Whether it stays down.
    pub down: bool,
}
