//! `Capsule.toml`: what a capsule is, what it needs, what it may say and hear, and what it asks for beyond messages.
//!
//! The types are the document: serde reads them, and the JSON Schema is generated from them. What types cannot say (limits,
//! and rules between fields) is in `rules`. Every error carries origin, line and column, and a hint where there is one.
//!
//! Deliberately absent: any decision. Whether a component's imports are covered, whether imports can be served, and what an
//! operator grants is the kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use semver::VersionReq;
use serde::{Deserialize, Serialize};

use crate::topic::Pattern;

mod error;
mod names;
mod rules;
#[cfg(feature = "schema")]
mod schema;
mod units;

pub use error::ManifestError;
pub use names::{CapsuleName, DocumentName, FilePath, InterfaceVersion, NameError, Program, ResourceError, VersionError};
pub use rules::{
    DESCRIPTION_BYTES_MAX, DOCUMENT_BYTES_MAX, ENTRIES_MAX, FUEL_MAX, IDLE_MAX, INSTANCES_MAX, MEMORY_MAX, MEMORY_MIN,
    QUEUE_DURABLE_MAX, QUEUE_MAX, REASON_BYTES_MAX, RETRY_MAX, TIMEOUT_MAX, TIMEOUT_MIN,
};
#[cfg(feature = "schema")]
pub use schema::manifest_schema;
pub use units::{ByteSize, Time, UnitError};

/// A capsule's manifest, as written. Defaults are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(title = "Capsule.toml"))]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it is.
    pub package: Package,
    /// How it runs.
    #[serde(default)]
    pub runtime: Runtime,
    /// Interfaces it serves, with their versions (`process = "1.0"`).
    #[serde(default)]
    pub exports: BTreeMap<CapsuleName, InterfaceVersion>,
    /// Interfaces it needs. It is loaded after who serves them, and may send blocking requests to them.
    #[serde(default)]
    pub imports: BTreeMap<CapsuleName, Import>,
    /// What it may say. Empty means nothing.
    #[serde(default)]
    pub publish: BTreeMap<Pattern, PublishOptions>,
    /// What it hears.
    #[serde(default)]
    pub subscribe: BTreeMap<Pattern, SubscribeOptions>,
    /// What it asks for beyond messages.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// What a capsule is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name: 1 to 64 of a-z, 0-9 and `-`.
    pub name: CapsuleName,
    /// Its version (semver).
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub version: semver::Version,
    /// A sentence for people.
    pub description: String,
    /// Kernels it works with (`>=0.1, <1`).
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub kernel: VersionReq,
}

/// Of whom there is an actor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One in the daemon, or as many as `instances` says.
    #[default]
    System,
    /// One per principal.
    Principal,
    /// One per accepted stream.
    Connection,
}

impl Scope {
    /// As in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Principal => "principal",
            Self::Connection => "connection",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a capsule runs. Memory is per actor; fuel and time are per message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Of whom there is an actor.
    pub scope: Scope,
    /// How many actors share the work, partitioned by sender. Only for `scope = "system"`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = INSTANCES_MAX)))]
    pub instances: NonZeroU32,
    /// The most memory of an actor (`"16MiB"`).
    pub memory: ByteSize,
    /// The most fuel for one message; about a unit an instruction.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = FUEL_MAX)))]
    pub fuel: u64,
    /// The most time for one message (`"5s"`).
    pub timeout: Time,
    /// How long an actor that hears nothing is kept (`"10m"`). Not said: forever for `system`, 10 minutes for `principal`; a
    /// connection's lives as long as its stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Time>,
    /// Whether a stopping daemon waits for its `shutdown.done`.
    pub drain: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            scope: Scope::System,
            instances: NonZeroU32::MIN,
            memory: ByteSize(16 << 20),
            fuel: 100_000_000,
            timeout: Time(Duration::from_secs(5)),
            idle: None,
            drain: false,
        }
    }
}

/// How long an actor of `scope = "principal"` is kept when the manifest does not say.
pub const PRINCIPAL_IDLE: Duration = Duration::from_secs(600);

impl Runtime {
    /// After how long without a message an actor is evicted; none: never.
    #[must_use]
    pub fn idle_time(&self) -> Option<Duration> {
        match self.scope {
            Scope::System => self.idle.map(|idle| idle.0),
            Scope::Principal => Some(self.idle.map_or(PRINCIPAL_IDLE, |idle| idle.0)),
            Scope::Connection => None,
        }
    }
}

/// An interface that a capsule needs: a version (`"^1"`), or a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Import {
    /// What versions will do.
    pub version: VersionReq,
    /// Whether it runs without.
    pub optional: bool,
    /// Whether it takes every exporter, instead of the one.
    pub many: bool,
}

/// How a capsule says something. Nothing can be chosen yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PublishOptions {}

/// What happens to a message that finds a receiver's queue full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// It is not sent, and its sender is told.
    #[default]
    Reject,
    /// The oldest one in the queue makes room, and is counted as lost.
    DropOldest,
}

/// How a capsule hears something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(from = "WrittenOptions")]
pub struct SubscribeOptions {
    /// Messages that wait for one actor, at most.
    pub queue: u32,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// How often a message is tried again after a rollback.
    pub retry: u32,
    /// Whether messages are kept on disk until they were handled.
    pub durable: bool,
    /// Whether what one sender says later waits while an earlier message of it is tried again.
    pub ordered: bool,
}

/// Messages that wait on a subscription that is not durable, when the manifest does not say.
pub const QUEUE: u32 = 256;

/// Messages that wait on a durable subscription, when the manifest does not say. They wait on disk.
pub const QUEUE_DURABLE: u32 = 65_536;

/// How often a message of a durable subscription is tried again, when the manifest does not say.
pub const RETRY_DURABLE: u32 = 3;

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            queue: QUEUE,
            overflow: Overflow::Reject,
            retry: 0,
            durable: false,
            ordered: false,
        }
    }
}

/// How a capsule hears something, as written: before what was not said is filled in.
#[derive(Default, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "SubscribeOptions")
)]
#[serde(deny_unknown_fields, default)]
struct WrittenOptions {
    /// Messages that wait for one actor, at most. Not said: 65,536 on disk when `durable` (where up to 1,000,000 may), else 256.
    #[cfg_attr(feature = "schema", schemars(with = "u32", range(min = 1, max = QUEUE_DURABLE_MAX)))]
    queue: Option<u32>,
    /// What happens when it is full.
    overflow: Overflow,
    /// How often a message is tried again after a rollback. Not said: 3 times when `durable`, else never.
    #[cfg_attr(feature = "schema", schemars(with = "u32", range(max = RETRY_MAX)))]
    retry: Option<u32>,
    /// Whether messages are kept on disk until they were handled: what was accepted is handled though the daemon is killed, once,
    /// and what cannot be handled is laid aside (`astrid dead`).
    durable: bool,
    /// Whether what one sender says later waits while an earlier message of it is tried again. Only with `durable`.
    ordered: bool,
}

impl From<WrittenOptions> for SubscribeOptions {
    fn from(written: WrittenOptions) -> Self {
        let (queue, retry) = match written.durable {
            true => (QUEUE_DURABLE, RETRY_DURABLE),
            false => (QUEUE, 0),
        };
        Self {
            queue: written.queue.unwrap_or(queue),
            overflow: written.overflow,
            retry: written.retry.unwrap_or(retry),
            durable: written.durable,
            ordered: written.ordered,
        }
    }
}

/// What a capsule asks for beyond messages. What it does not ask for, it cannot do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Serves connections of these sockets. Only, and always, for `scope = "connection"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Capability<Listener>>,
    /// Sets timers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<Capability<Everything>>,
    /// Subscribes its connection, while it runs, to patterns that these cover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<Capability<Pattern>>,
    /// Runs programs outside of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<Programs>,
    /// Reads and replaces these documents of the operator, in the home's `etc/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<Capability<DocumentName>>,
    /// Reads and changes files. Whose they are and which, a principal's grants say besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs: Option<Files>,
    /// Keeps state of its own in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv: Option<Capability<Everything>>,
    /// Keeps its actors from being evicted, and has them activated at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Capability<Everything>>,
    /// Is asked before anything is said on the topics of these patterns. The component exports `guard`, and the operator grants
    /// `guard:<pattern>` besides. Only for `scope = "system"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<Capability<Pattern>>,
}

/// One thing that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Capability<T: Ord> {
    /// What exactly.
    pub allow: BTreeSet<T>,
    /// Why; shown to whoever decides.
    pub reason: String,
}

/// Files that are asked for. One of the two is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// What it reads: paths as in grants of `fs.read`.
    #[serde(default)]
    pub read: BTreeSet<FilePath>,
    /// What it changes: paths as in grants of `fs.write`.
    #[serde(default)]
    pub write: BTreeSet<FilePath>,
    /// Why; shown to whoever decides.
    pub reason: String,
}

/// Programs that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Programs {
    /// Which.
    pub allow: BTreeSet<Program>,
    /// Why; shown to whoever decides.
    pub reason: String,
    /// The loosest sandbox that one is ever started with.
    #[serde(default, skip_serializing_if = "Floor::is_none")]
    pub sandbox: Floor,
}

/// How loose the sandbox of a program may be. Each is stricter than the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// There need not be one.
    #[default]
    None,
    /// It is kept from the daemon's home.
    Home,
    /// It writes only what it is given, and nothing of that is done without.
    Project,
    /// Besides, it speaks to nobody.
    Sealed,
}

impl Floor {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Home => "home",
            Self::Project => "project",
            Self::Sealed => "sealed",
        }
    }
}

/// A socket of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// `operator.sock`.
    Operator,
    /// `session.sock`.
    Session,
}

impl Listener {
    /// As in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Session => "session",
        }
    }
}

/// All there is to a capability that has no parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Everything {
    /// `"*"`.
    #[serde(rename = "*")]
    Everything,
}

impl Manifest {
    /// Reads a manifest. `origin` names it in errors: a path, or the capsule it is in.
    ///
    /// # Errors
    /// Not TOML, not of this form, or against a rule; with its place.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ManifestError> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(ManifestError::whole(
                origin,
                format!("it has {} bytes, the limit is {DOCUMENT_BYTES_MAX}", text.len()),
            ));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestError::from_toml(text, origin, &error))?;
        rules::check(&manifest).map_err(|broken| ManifestError::from_rule(text, origin, broken))?;
        Ok(manifest)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.package.name.as_str()
    }
}

#[cfg(test)]
mod tests;
