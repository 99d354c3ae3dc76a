//! What principals used, hold, and may: what `astrid usage` and `astrid top` show. Plain numbers, so that programs need no units.

use serde::{Deserialize, Serialize};

/// Principals of one answer at most.
pub const PAGE_MAX: usize = 1000;

/// The capsule under which a principal's use is counted that is told apart no further.
pub const OTHERS: &str = "(others)";

/// How much of something is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Held {
    /// Now.
    pub now: u64,
    /// The most at once, since the daemon started.
    pub peak: u64,
}

/// The limits of a principal's quota. What is left out is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Limits {
    /// Fuel a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_per_second: Option<u64>,
    /// Fuel in total.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_total: Option<u64>,
    /// Bytes of instances' memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Messages published a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// Bytes of their bodies a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Bytes in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// Programs at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children: Option<u64>,
    /// Connections at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Asks that wait at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Milliseconds that an ask may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What a principal used of one capsule since the daemon started or, when the principal was idle for long, since it came back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OfCapsule {
    /// Which; or [`OTHERS`].
    pub capsule: String,
    /// Fuel.
    pub fuel: u64,
    /// Messages handled and committed.
    pub handled: u64,
}

/// What a principal used, holds, and may. Totals are over restarts of the daemon; after a crash fuel may be told too high by what was
/// reserved of a limited total, and everything too low by about a second of work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Who.
    pub principal: String,
    /// Fuel; about a unit an instruction.
    pub fuel: u64,
    /// Messages handled for it and committed.
    pub handled: u64,
    /// Handlings for it that ended in a fault.
    pub faults: u64,
    /// Messages published for it.
    pub published: u64,
    /// Bytes of their bodies.
    pub published_bytes: u64,
    /// Programs started for it.
    pub children_started: u64,
    /// Times that its quota refused something.
    pub refused: u64,
    /// Bytes of its own instances' memory.
    pub memory: Held,
    /// Programs.
    pub children: Held,
    /// Connections.
    pub connections: Held,
    /// Asks that wait for an answer.
    pub calls: Held,
    /// Bytes in the store; left out where it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// Its share of a thread, against others'.
    pub weight: u32,
    /// What it may.
    pub limits: Limits,
    /// What it used of which capsule, most fuel first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capsules: Vec<OfCapsule>,
}

/// Some of all principals, in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "UsagePage"))]
pub struct Page {
    /// They.
    pub principals: Vec<Usage>,
    /// The last of them, when there are more: where to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
