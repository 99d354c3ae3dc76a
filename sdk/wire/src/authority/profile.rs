//! Groups and profiles, as they are written in `etc/groups.toml` and `etc/profiles/NAME.toml` (K7).
//!
//! Plain data: which groups exist, whether `*` is meant, and what comes of it all is checked by the kernel when it compiles them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Capability;
use crate::manifest::CapsuleName;
use crate::proof::PublicKey;
use crate::quota::Quota;

/// The largest weight of a profile: its share of a thread, as a multiple of the smallest.
pub const WEIGHT_MAX: u32 = 100;

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
    /// `[capsule.NAME]`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capsule: BTreeMap<CapsuleName, CapsuleGrants>,
}

/// What the operator grants a capsule itself, beyond its manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapsuleGrants {
    /// `guard:<pattern>` only: what else it does is in its manifest, which was approved when it was installed.
    pub grants: Vec<Capability>,
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
    /// Public keys by which it proves who it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PublicKey>,
    /// Its part of the machine beside others that are busy.
    #[serde(skip_serializing_if = "is_one")]
    pub weight: u32,
    /// The directory of the host that its workspace is a copy of: an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// How much it may use.
    #[serde(skip_serializing_if = "Quota::is_unlimited")]
    pub quota: Quota,
}

impl Profile {
    /// Of whoever may do nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }
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
            workspace: None,
            quota: Quota::default(),
        }
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
