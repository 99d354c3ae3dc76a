//! Who somebody is at one epoch: looked up once, and used until the policy changes.

use std::sync::Arc;

use astrid_wire::Principal;
use astrid_wire::authority::Action;

use super::denied::Reason;
use super::policy::{Known, Policy};
use super::rules::{Entry, Object, Verdict};

/// What a principal is.
#[derive(Clone, Debug)]
enum Is {
    /// One of the policy's, and enabled.
    Known(Arc<Entry>),
    /// Of a policy that is open to all.
    Everybody,
    /// A capsule that acts for nobody else.
    Capsule,
    /// Nobody.
    Anonymous,
    Disabled,
    Unreadable,
    Unknown,
}

/// Who somebody is at one epoch.
#[derive(Clone, Debug)]
pub struct Standing {
    epoch: u64,
    principal: Principal,
    is: Is,
}

/// Actions of a capsule's own principal that stay on the bus and in its own table: the manifest of whoever handles its message bounds
/// them. What reaches further it may do through its own code only, whose manifest the operator approved for that.
const HARMLESS: [Action; 5] = [
    Action::Publish,
    Action::Subscribe,
    Action::Kv,
    Action::Timer,
    Action::Pin,
];

impl Standing {
    pub(super) fn of(policy: &Policy, principal: &Principal, epoch: u64) -> Self {
        let is = match policy.find(principal) {
            _ if principal.as_capsule().is_some() => Is::Capsule,
            _ if principal.is_anonymous() => Is::Anonymous,
            Some(Known::Entry(entry)) if entry.profile.enabled => Is::Known(Arc::clone(entry)),
            Some(Known::Entry(_)) => Is::Disabled,
            Some(Known::Unreadable) => Is::Unreadable,
            None if policy.is_open() => Is::Everybody,
            None => Is::Unknown,
        };
        Self {
            epoch,
            principal: principal.clone(),
            is,
        }
    }

    /// When it was found out.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether it may do anything at all; an anonymous one may be there, and that is all.
    ///
    /// # Errors
    /// Why not.
    pub fn check_active(&self) -> Result<(), Reason> {
        match self.is {
            Is::Known(_) | Is::Everybody | Is::Capsule | Is::Anonymous => Ok(()),
            Is::Disabled => Err(Reason::Disabled),
            Is::Unreadable => Err(Reason::Unreadable),
            Is::Unknown => Err(Reason::Unknown),
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.is, Is::Anonymous)
    }

    /// Whether it may do that through this capsule. The hot path.
    pub(super) fn allows(&self, capsule: &str, action: Action, object: Object<'_>) -> bool {
        match &self.is {
            Is::Known(entry) => entry.allows(action, object),
            Is::Everybody => true,
            // To stand before others it needs more than its manifest: `Gate::guard`.
            Is::Capsule if action == Action::Guard => false,
            Is::Capsule => HARMLESS.contains(&action) || self.principal.as_capsule() == Some(capsule),
            Is::Anonymous | Is::Disabled | Is::Unreadable | Is::Unknown => false,
        }
    }

    /// As [`Standing::allows`], with the rule: what allows it, or why not.
    pub(super) fn why(&self, capsule: &str, action: Action, object: Object<'_>) -> Result<String, Reason> {
        let entry = match &self.is {
            Is::Known(entry) => entry,
            Is::Everybody => return Ok("this policy is open to all".to_owned()),
            Is::Capsule if self.allows(capsule, action, object) => {
                return Ok("a capsule acts for itself as its manifest says".to_owned());
            }
            Is::Capsule => return Err(Reason::NotItsOwnCode),
            Is::Anonymous => return Err(Reason::Anonymous),
            Is::Disabled => return Err(Reason::Disabled),
            Is::Unreadable => return Err(Reason::Unreadable),
            Is::Unknown => return Err(Reason::Unknown),
        };
        match entry.why(action, object) {
            Verdict::Granted(rule, Some(group)) => Ok(format!("granted by `{rule}` of the group {group}")),
            Verdict::Granted(rule, None) => Ok(format!("granted by `{rule}` in etc/profiles/{}.toml", self.principal)),
            Verdict::Revoked(rule) => Err(Reason::Revoked(rule)),
            Verdict::NoGrant => Err(Reason::NoGrant),
            Verdict::NoResource => Err(Reason::NoResource),
        }
    }
}
