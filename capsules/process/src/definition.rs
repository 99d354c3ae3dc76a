//! A definition as it is written: by a person in `processes.toml`, or as JSON by a program; the keys are the same.
//!
//! What is not said stays unsaid here, so that a definition goes back into the document as short as it was, and so that what contradicts can be
//! told from what is the default. [`crate::plan`] has the values that follow. What types cannot say is in `rules`.
//!
//! Deliberately absent: versions of the form. Keys only come.

use std::collections::BTreeMap;
use std::fmt;

use astrid_sdk::body;
use astrid_wire::manifest::{ByteSize, Time};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize as _, Deserializer, IntoDeserializer as _, MapAccess, Visitor};

/// A process: a program that is supervised (A9).
#[body]
#[derive(Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What it is called: 1 to 48 of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: String,
    /// The program: an absolute path, or a name that is looked for in `PATH`.
    pub command: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its working directory, an absolute path; when not said the workspace, if it has one, or `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Its environment, in addition to the daemon's few.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names in `env` whose values are never shown. Those that end in `_TOKEN`, `_KEY`, `_SECRET` or `_PASSWORD` need not be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How many of it run, 1 to 1000. Each gets its index as `ASTRID_INSTANCE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Whether it is started with the daemon, unless somebody has stopped it, and when it is defined. True when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// Whether it goes on when the daemon goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<bool>,
    /// Whether it runs on a terminal of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    /// What it is kept from; the daemon's home when not said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "confinement")]
    pub sandbox: Option<Confinement>,
    /// How it sees the workspace of its principal; not at all when not said. The sandbox is `project` then, when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// When it is started again; on failure when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How long is waited before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Restarts within `window`, after which the circuit opens. 5 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restarts: Option<u32>,
    /// 60 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub window: Option<Time>,
    /// Who ran this long begins with a clean record. 30 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub min_uptime: Option<Time>,
    /// How it is told whether it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// What each of its processes may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Where its output goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
}

/// What a process is kept from: a name, or what it is given.
#[body]
#[derive(Debug, Clone, PartialEq, Eq)]
#[serde(untagged)]
pub enum Confinement {
    /// By name.
    Named(Profile),
    /// By what it is given.
    Given(Given),
}

/// Either, by what it is, so that what is wrong in a table is named by its key.
fn confinement<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Confinement>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Option<Confinement>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("home, none, project, sealed, or a table of profile, network, read, write and best_effort")
        }

        fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
            Profile::deserialize(name.into_deserializer()).map(|profile| Some(Confinement::Named(profile)))
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Given::deserialize(MapAccessDeserializer::new(map)).map(|given| Some(Confinement::Given(given)))
        }

        // As JSON has it that is not said.
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Either)
}

/// A sandbox by its name.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// It is kept from the daemon's home.
    Home,
    /// From nothing.
    None,
    /// It writes only its workspace or working directory, and a `/tmp` of its own.
    Project,
    /// As `project`, and it speaks to nobody.
    Sealed,
}

impl Profile {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::None => "none",
            Self::Project => "project",
            Self::Sealed => "sealed",
        }
    }
}

/// A sandbox by what a process is given.
#[body]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// What it begins with: `home`, `project` or `sealed`; `home` when not said. The rest adds to it, or replaces what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Whom it speaks to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Reachable>,
    /// Absolute paths that it reads, besides what it writes and what any program needs; everything when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Vec<String>>,
    /// Absolute paths that it writes, besides those of the profile; `tmp://` is a `/tmp` of its own. Everything when neither says some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Vec<String>>,
    /// Whether it is started although something of this cannot be had on this machine. The daemon's home is kept from it in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_effort: Option<bool>,
}

/// Whom a process speaks to over sockets.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Reachable {
    /// Nobody.
    None,
    /// Sockets of this machine that have a path.
    Local,
    /// A network of its own, in which nobody else is: no socket with a path either.
    Loopback,
    /// Everybody.
    Full,
}

impl Reachable {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Loopback => "loopback",
            Self::Full => "full",
        }
    }
}

/// How a process sees the workspace of its principal.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Workspace {
    /// In its own place, with what was changed and not yet committed.
    Overlay,
    /// In a copy of at most this size.
    #[schemars(with = "String")]
    Checkout(ByteSize),
}

/// When a process that ended is started again (A11).
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// When it failed: it did not end with exit code 0.
    OnFailure,
    /// Whenever it ends.
    Always,
    /// Never.
    Never,
}

/// How waits grow.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Growth {
    /// By a factor.
    Exponential,
    /// Not at all.
    Fixed,
    /// By the first wait.
    Linear,
}

/// How long is waited before a restart.
#[body]
#[derive(Debug, Clone, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    /// How waits grow; exponentially when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Growth>,
    /// The first wait. 1 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub base: Option<Time>,
    /// By what an exponential wait grows, 1 to 100. 2 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<u32>,
    /// The longest wait. 300 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cap: Option<Time>,
    /// Whether waits are spread: each is between half of it and all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<bool>,
}

/// How health is told.
#[body]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum HealthKind {
    /// It is not.
    #[default]
    None,
    /// It accepts connections.
    Tcp,
    /// It answers a request.
    Http,
    /// A command ends with exit code 0.
    Script,
    /// It runs.
    Liveness,
}

impl HealthKind {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Script => "script",
            Self::Liveness => "liveness",
        }
    }
}

/// HTTP statuses that mean health: one, or several.
#[body]
#[derive(Debug, Clone, PartialEq, Eq)]
#[serde(untagged)]
pub enum Statuses {
    /// One.
    One(u16),
    /// Several.
    Several(Vec<u16>),
}

impl Statuses {
    /// All of them.
    pub fn all(&self) -> &[u16] {
        match self {
            Self::One(status) => std::slice::from_ref(status),
            Self::Several(statuses) => statuses,
        }
    }
}

/// How it is told whether a process works (A12).
#[body]
#[derive(Debug, Clone, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// How; it is not when not said.
    #[serde(default)]
    pub kind: HealthKind,
    /// For `tcp`: host and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// For `http`: where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// For `http`: statuses that mean health; 200 to 299 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Statuses>,
    /// For `http`: what the answer must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// For `script`: the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// For `script`: its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Between two checks. 30 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub interval: Option<Time>,
    /// What a check may take. 5 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Time>,
    /// Failures in a row that mean that it does not work. 3 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_after: Option<u32>,
    /// Successes in a row that mean that it works. 1 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_after: Option<u32>,
    /// After a start, failures do not count for this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub start_period: Option<Time>,
}

/// How a process is stopped (A14).
#[body]
#[derive(Debug, Clone, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The signal that asks it to end, as `SIGTERM`, which it is when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// What it may take until it is killed. 30 s when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub timeout: Option<Time>,
    /// A program that is run before the signal is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// What each process of a process may have.
#[body]
#[derive(Debug, Clone, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Private memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub memory: Option<ByteSize>,
    /// Processor time, in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cpu_time: Option<Time>,
    /// Open files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes of the daemon's user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes of a file that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub file_size: Option<ByteSize>,
    /// Bytes of a core file; none when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub core: Option<ByteSize>,
    /// Memory of it and all that it starts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub tree_memory: Option<ByteSize>,
    /// Processes of it and all that it starts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree_processes: Option<u64>,
}

/// When a log file is rotated besides by size.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Every {
    /// Each hour.
    Hour,
    /// Each day (UTC).
    Day,
}

/// Where output goes (A16).
#[body]
#[derive(Debug, Clone, Default, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A file is rotated when it would grow beyond this: 4 KiB to 1 GiB. 10 MiB when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub size: Option<ByteSize>,
    /// Rotated files that are kept, 0 to 1000. 10 when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// Rotated as well each hour or day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Every>,
    /// Whether rotated files are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
    /// Whether errors go where output goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<bool>,
}
