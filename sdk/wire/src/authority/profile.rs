//! Groups and profiles, as they are written in `etc/groups.toml` and `etc/profiles/NAME.toml` (K7).
//!
//! Plain data: which groups exist, whether `*` is meant, and what comes of it all is checked by the kernel when it compiles them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Capability;

/// A group that always exists and cannot be redefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltInGroup {
    /// Its name.
    pub name: &'static str,
    /// What its members may do.
    pub grants: &'static [&'static str],
}

/// Who owns the daemon; what a program of somebody needs; and what may only be used.
pub const BUILT_IN_GROUPS: [BuiltInGroup; 3] = [
    BuiltInGroup {
        name: "admin",
        grants: &["*"],
    },
    BuiltInGroup {
        name: "agent",
        grants: &["publish:>", "subscribe:>", "kv", "timer", "pin"],
    },
    BuiltInGroup {
        name: "restricted",
        grants: &["subscribe:>", "publish:tool.>"],
    },
];

/// `etc/groups.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsFile {
    /// `[group.NAME]`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub group: BTreeMap<String, Group>,
}

/// A group of the operator's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What its members may do.
    pub grants: Vec<Capability>,
    /// Said by who means it when `grants` has `*`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unsafe_admin: bool,
}

/// A principal, as `etc/profiles/NAME.toml` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Whether it may do anything at all.
    #[serde(skip_serializing_if = "is_true")]
    pub enabled: bool,
    /// Groups that it is in.
    pub groups: Vec<String>,
    /// What it may do besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Capability>,
    /// What it may not do, whatever grants it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revokes: Vec<Capability>,
    /// Public keys by which it shows who it is: `ed25519:` and the key in base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Its part of the machine beside others that are busy.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
    /// How much it may use.
    #[serde(skip_serializing_if = "Quota::is_unlimited")]
    pub quota: Quota,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            enabled: true,
            groups: Vec::new(),
            grants: Vec::new(),
            revokes: Vec::new(),
            keys: Vec::new(),
            weight: 1,
            quota: Quota::default(),
        }
    }
}

/// How much a principal may use (K12). What is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Units of fuel in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_per_second: Option<u64>,
    /// Units of fuel for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_total: Option<u64>,
    /// Bytes of memory of its actors together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Messages that it says in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// Bytes of bodies that it says in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Bytes in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<u64>,
    /// Programs at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children: Option<u64>,
    /// Open connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Messages that are handled or wait for it at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Milliseconds that one handling may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl Quota {
    /// Its limits with their names, in a fixed order.
    #[must_use]
    pub const fn limits(&self) -> [(&'static str, Option<u64>); 10] {
        [
            ("fuel_per_second", self.fuel_per_second),
            ("fuel_total", self.fuel_total),
            ("memory", self.memory),
            ("messages_per_second", self.messages_per_second),
            ("bytes_per_second", self.bytes_per_second),
            ("storage", self.storage),
            ("children", self.children),
            ("connections", self.connections),
            ("calls", self.calls),
            ("timeout", self.timeout),
        ]
    }

    /// Whether it limits nothing.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.limits().iter().all(|(_, limit)| limit.is_none())
    }

    /// The first limit that is higher here than in `other`, where no limit is the highest.
    #[must_use]
    pub fn raised_from(&self, other: &Self) -> Option<&'static str> {
        self.limits()
            .into_iter()
            .zip(other.limits())
            .find(|((_, new), (_, old))| new.unwrap_or(u64::MAX) > old.unwrap_or(u64::MAX))
            .map(|((name, _), _)| name)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(value: &bool) -> bool {
    *value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_one(value: &u32) -> bool {
    *value == 1
}
