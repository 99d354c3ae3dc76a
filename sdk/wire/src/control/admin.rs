//! What operators ask about principals, groups, authority and quotas (contract K8): `astrid.v1.admin.*`, on the operator socket.
//!
//! One table, [`Admin`]: a topic, the capability that it needs (`admin:agent.create`, ...), and the body. Every body may carry a
//! `request_id`, which the answer has again. An *agent* is a principal that is not a person; everything here is for both.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::authority::{Action, Capability};
use crate::proof::PublicKey;
use crate::{Principal, Quota};

/// The field of bodies and answers by which a client finds its answer.
pub const REQUEST_ID: &str = "request_id";

/// Bytes of a `request_id` at most.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// Rows of one answer at most.
pub const PAGE_MAX: u32 = 1000;

macro_rules! admin {
    ($($(#[doc = $doc:literal])* $name:ident = $verb:literal: $request:ty => $answer:ty,)*) => {
        /// A request of an administrator.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Admin {
            $($(#[doc = $doc])* $name,)*
        }

        impl Admin {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name: the resource of the capability `admin:` that it needs.
            #[must_use]
            pub const fn verb(self) -> &'static str {
                match self {
                    $(Self::$name => $verb,)*
                }
            }

            /// Where it is asked.
            #[must_use]
            pub const fn topic(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("astrid.v1.admin.", $verb),)*
                }
            }

            /// What it is for, as documentation has it.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),*),)*
                }
            }

            /// The JSON Schemas (2020-12) of its body and of its answer.
            #[cfg(feature = "schema")]
            #[must_use]
            pub fn schemas(self) -> (serde_json::Value, serde_json::Value) {
                match self {
                    $(Self::$name => (
                        schemars::schema_for!($request).to_value(),
                        schemars::schema_for!($answer).to_value(),
                    ),)*
                }
            }
        }
    };
}

admin! {
    /// [`AgentCreate`]: a new principal; an [`AgentReport`].
    AgentCreate = "agent.create": AgentCreate => AgentReport,
    /// [`Named`]: the principal is gone, with everything that was kept for it, also where it has no profile any more; an [`AgentDeleted`].
    AgentDelete = "agent.delete": Named => AgentDeleted,
    /// [`Named`]: it may act again; an [`AgentReport`].
    AgentEnable = "agent.enable": Named => AgentReport,
    /// [`Named`]: it may do nothing from now on, and what it has open is closed; an [`AgentReport`].
    AgentDisable = "agent.disable": Named => AgentReport,
    /// [`AgentModify`]: groups, keys, weight; an [`AgentReport`].
    AgentModify = "agent.modify": AgentModify => AgentReport,
    /// [`Page`]: [`Agents`].
    AgentList = "agent.list": Page => Agents,
    /// [`GroupCreate`]: a new group; a [`GroupReport`].
    GroupCreate = "group.create": GroupCreate => GroupReport,
    /// [`NamedGroup`]: the group is gone; a [`GroupReport`] of what it was. Refused while somebody is in it.
    GroupDelete = "group.delete": NamedGroup => GroupReport,
    /// [`GroupModify`]: what its members may do; a [`GroupReport`].
    GroupModify = "group.modify": GroupModify => GroupReport,
    /// [`Page`]: [`Groups`].
    GroupList = "group.list": Page => Groups,
    /// [`Change`]: the principal may do this, unless something revokes it, or the capsule may guard that; an [`AgentReport`].
    CapsGrant = "caps.grant": Change => AgentReport,
    /// [`Change`]: the principal may not do this any more, whatever grants it, or the capsule may not guard that any more; an [`AgentReport`].
    CapsRevoke = "caps.revoke": Change => AgentReport,
    /// [`Question`]: a [`Checked`].
    CapsCheck = "caps.check": Question => Checked,
    /// [`Question`]: an [`Explanation`](crate::authority::Explanation).
    CapsExplain = "caps.explain": Question => crate::authority::Explanation,
    /// [`Named`]: a [`QuotaReport`].
    QuotaGet = "quota.get": Named => QuotaReport,
    /// [`QuotaSet`]: a [`QuotaReport`].
    QuotaSet = "quota.set": QuotaSet => QuotaReport,
    /// [`UsageGet`]: a [`usage::Page`](super::usage::Page).
    UsageGet = "usage.get": UsageGet => super::usage::Page,
    /// [`Nothing`](super::audit::Nothing): answered, with nothing, once something is used. So nobody who shows usage has to ask again and again.
    UsageWatch = "usage.watch": super::audit::Nothing => super::audit::Nothing,
    /// [`Nothing`](super::audit::Nothing): [`Stats`](super::audit::Stats).
    AuditStats = "audit.stats": super::audit::Nothing => super::audit::Stats,
    /// [`Nothing`](super::audit::Nothing): all of the log is verified; [`Verified`](super::audit::Verified).
    AuditVerify = "audit.verify": super::audit::Nothing => super::audit::Verified,
    /// [`Prune`](super::audit::Prune): old segments are gone, with receipts; [`Pruned`](super::audit::Pruned).
    AuditPrune = "audit.prune": super::audit::Prune => super::audit::Pruned,
    /// [`Nothing`](super::audit::Nothing): another key signs from here on (K22); [`Rotated`](super::audit::Rotated).
    AuditRotate = "audit.rotate": super::audit::Nothing => super::audit::Rotated,
    /// [`Attach`](super::workspace::Attach): the principal works on a copy of a directory; a [`WorkspaceReport`](super::workspace::WorkspaceReport).
    WorkspaceAttach = "workspace.attach": super::workspace::Attach => super::workspace::WorkspaceReport,
    /// [`Detach`](super::workspace::Detach): it does no more; a [`WorkspaceReport`](super::workspace::WorkspaceReport) of what it was.
    WorkspaceDetach = "workspace.detach": super::workspace::Detach => super::workspace::WorkspaceReport,
    /// [`List`](super::workspace::List): [`Workspaces`](super::workspace::Workspaces).
    WorkspaceList = "workspace.list": super::workspace::List => super::workspace::Workspaces,
    /// [`Diff`](super::workspace::Diff): a page of [`Differences`](super::workspace::Differences).
    WorkspaceDiff = "workspace.diff": super::workspace::Diff => super::workspace::Differences,
    /// [`Commit`](super::workspace::Commit): what differs is in the directory; [`Committed`](super::workspace::Committed).
    WorkspaceCommit = "workspace.commit": super::workspace::Commit => super::workspace::Committed,
    /// [`Rollback`](super::workspace::Rollback): what differs is gone; [`RolledBack`](super::workspace::RolledBack).
    WorkspaceRollback = "workspace.rollback": super::workspace::Rollback => super::workspace::RolledBack,
    /// [`Snapshot`](super::workspace::Snapshot): the state is kept, or is no more; a [`SnapshotReport`](super::workspace::SnapshotReport).
    WorkspaceSnapshot = "workspace.snapshot": super::workspace::Snapshot => super::workspace::SnapshotReport,
}

impl Admin {
    /// Whether it changes something: it is then recorded before it happens (K13).
    #[must_use]
    pub const fn changes(self) -> bool {
        !matches!(
            self,
            Self::AgentList
                | Self::GroupList
                | Self::CapsCheck
                | Self::CapsExplain
                | Self::QuotaGet
                | Self::UsageGet
                | Self::UsageWatch
                | Self::AuditStats
                | Self::AuditVerify
                | Self::WorkspaceList
                | Self::WorkspaceDiff
        )
    }

    /// What a message on this topic asks for.
    #[must_use]
    pub fn of(topic: &crate::Topic) -> Option<Self> {
        Self::ALL.iter().copied().find(|admin| admin.topic() == topic.as_str())
    }
}

/// For the fields of requests that name whom something is asked *about*, a capsule's own principal among them (`#[serde(deserialize_with)]`).
/// Nobody speaks as what stands there.
fn of_anybody<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Principal, D::Error> {
    Principal::stamped(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Body that names a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Whom.
    pub name: Principal,
}

/// Body that names a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct NamedGroup {
    /// Which.
    pub name: String,
}

/// Body of lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// Names after this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// So many at most; 100 when left out, never more than [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// Body of [`Admin::AgentCreate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentCreate {
    /// Its id: 1 to 64 of `[a-z0-9._-]`.
    pub name: Principal,
    /// Groups that it is in; `agent` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// What it may do besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Capability>,
    /// Keys by which it proves itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<PublicKey>,
    /// How much it may use.
    #[serde(default, skip_serializing_if = "Quota::is_unlimited")]
    pub quota: Quota,
}

/// Body of [`Admin::AgentModify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentModify {
    /// Whom.
    pub name: Principal,
    /// Groups that it is in from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_groups: Vec<String>,
    /// Groups that it leaves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_groups: Vec<String>,
    /// Keys that prove it from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_keys: Vec<PublicKey>,
    /// Keys that prove nothing any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_keys: Vec<PublicKey>,
    /// Its share beside others that are busy, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A principal, as its profile has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentReport {
    /// Its id; `capsule:NAME` of a capsule.
    #[serde(deserialize_with = "of_anybody")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Anybody"))]
    pub name: Principal,
    /// Whether it may act.
    pub enabled: bool,
    /// Groups that it is in.
    pub groups: Vec<String>,
    /// What it may do besides.
    pub grants: Vec<Capability>,
    /// What it may not do, whatever grants it.
    pub revokes: Vec<Capability>,
    /// Keys by which it proves itself.
    pub keys: Vec<PublicKey>,
    /// Its share beside others that are busy.
    pub weight: u32,
    /// The directory of the host that its workspace is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// How much it may use.
    pub quota: Quota,
}

/// Answer to [`Admin::AgentDelete`]: what it was, and what went with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentDeleted {
    /// What it was; disabled and empty where it had no profile.
    #[serde(flatten)]
    pub agent: AgentReport,
    /// What was kept for it.
    pub dropped: Dropped,
}

/// What was kept for a principal, and is not any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dropped {
    /// Keys in tables that capsules had for it.
    pub keys: u64,
    /// Messages that waited to be handled.
    pub messages: u64,
    /// Durable timers.
    pub timers: u64,
    /// Dead letters.
    pub letters: u64,
    /// Open asks, ids of messages, and what kept its actors alive.
    pub others: u64,
}

/// Answer to [`Admin::AgentList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Agents {
    /// By name.
    pub agents: Vec<AgentReport>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of [`Admin::GroupCreate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupCreate {
    /// Its name: 1 to 64 of `[a-z0-9._-]`.
    pub name: String,
    /// What its members may do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Capability>,
    /// Said by who means it when `grants` has `*`.
    #[serde(default)]
    pub unsafe_admin: bool,
}

/// Body of [`Admin::GroupModify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupModify {
    /// Which.
    pub name: String,
    /// What its members may do from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_grants: Vec<Capability>,
    /// What it grants no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_grants: Vec<Capability>,
    /// Said by who means it when it has `*` afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsafe_admin: Option<bool>,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// Whether it always exists and cannot be changed.
    pub built_in: bool,
    /// What its members may do.
    pub grants: Vec<Capability>,
    /// How many principals are in it.
    pub members: u64,
}

/// Answer to [`Admin::GroupList`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Groups {
    /// By name.
    pub groups: Vec<GroupReport>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of [`Admin::CapsGrant`] and [`Admin::CapsRevoke`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whose; `capsule:NAME` is a capsule, to which only `guard:<pattern>` is granted.
    #[serde(deserialize_with = "of_anybody")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Anybody"))]
    pub name: Principal,
    /// What.
    pub capabilities: Vec<Capability>,
}

/// Body of [`Admin::CapsCheck`] and [`Admin::CapsExplain`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who acts; `capsule:NAME` is a capsule that acts for nobody else.
    #[serde(deserialize_with = "of_anybody")]
    #[cfg_attr(feature = "schema", schemars(with = "super::schema::Anybody"))]
    pub principal: Principal,
    /// Through which capsule; without one only the principal's part is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capsule: Option<String>,
    /// What it does.
    pub action: Action,
    /// To what.
    pub resource: String,
}

/// Answer to [`Admin::CapsCheck`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Checked {
    /// Whether it may.
    pub allowed: bool,
}

/// Body of [`Admin::QuotaSet`]: limits that are named change; `null` takes one away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct QuotaSet {
    /// Whose.
    pub name: Principal,
    /// By the names of [`Quota`].
    pub limits: BTreeMap<String, serde_json::Value>,
}

/// Body of [`Admin::UsageGet`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UsageGet {
    /// Only this principal's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Principal>,
    /// Names after this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Answer to [`Admin::QuotaGet`] and [`Admin::QuotaSet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct QuotaReport {
    /// Whose.
    pub name: Principal,
    /// Its limits; what is absent is not limited.
    pub quota: Quota,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_request_has_its_topic() {
        for admin in Admin::ALL {
            let topic: crate::Topic = admin.topic().parse().unwrap();
            assert_eq!(Admin::of(&topic), Some(*admin));
            assert_eq!(super::super::Verb::of(&topic), Some(super::super::Verb::Admin(*admin)));
            let capability: Capability = format!("admin:{}", admin.verb()).parse().unwrap();
            assert!(capability.allows(Action::Admin, Some(admin.verb())));
        }
        assert_eq!(Admin::of(&"astrid.v1.admin.agent".parse().unwrap()), None);
    }
}
