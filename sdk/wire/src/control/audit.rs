//! What operators ask about the audit log while a daemon writes it (contract K13). Without one, and for single entries, its files are read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proof::PublicKey;

/// A body with nothing in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Body of `audit.prune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prune {
    /// Segments that ended more than so many days ago.
    pub older_than_days: u32,
}

/// Answer to `audit.prune`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pruned {
    /// How many segments are gone.
    pub removed_segments: u64,
}

/// Answer to `audit.rotate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rotated {
    /// The key that signs from here on.
    pub key: PublicKey,
}

/// What there is of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "AuditStats"))]
pub struct Stats {
    /// Segments.
    pub segments: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Seals.
    pub seals: u64,
    /// The first entry.
    pub first: Option<u64>,
    /// The last entry.
    pub last: Option<u64>,
    /// When the first was made, in milliseconds since 1970.
    pub first_ms: Option<u64>,
    /// When the last was made.
    pub last_ms: Option<u64>,
    /// Principals that entries are of.
    pub principals: u64,
    /// Entries by kind.
    pub kinds: BTreeMap<String, u64>,
    /// The key of the last segment.
    pub key: Option<String>,
}

/// What verifying the log found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verified {
    /// Whether it is what was written.
    pub ok: bool,
    /// Segments.
    pub segments: u64,
    /// Entries.
    pub entries: u64,
    /// Seals: signatures over all before them.
    pub seals: u64,
    /// The first entry.
    pub first: Option<u64>,
    /// The last entry.
    pub last: Option<u64>,
    /// Entries at the end that have no signature yet.
    pub unsealed_tail: u64,
    /// Bytes at the end that are the beginning of a record.
    pub torn_bytes: u64,
    /// Whether a head says where the log ended, so that a missing end is seen.
    pub anchored: bool,
    /// The key that signed last.
    pub key: Option<String>,
    /// The hash of all, in hexadecimal digits.
    pub head: String,
    /// Intents whose outcome is not known, the first of them.
    pub unknown_outcomes: Vec<u64>,
    /// How many those are.
    pub unknown_count: u64,
    /// What is wrong, the first of it.
    pub findings: Vec<Found>,
    /// How much is wrong.
    pub findings_count: u64,
}

/// Something that is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Found {
    /// In which file.
    pub file: String,
    /// At which entry, as far as it is known.
    pub entry: Option<u64>,
    /// At which byte.
    pub offset: u64,
    /// What.
    pub fault: String,
}
