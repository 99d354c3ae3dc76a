//! Refusals: which rule decided, and what would have to change.

use std::sync::Arc;

use astrid_wire::authority::{Action, Capability};
use astrid_wire::{Pattern, Principal, Topic};

/// Why a principal may not do something, whatever the capsule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has no profile.
    Unknown,
    /// Its profile says `enabled = false`.
    Disabled,
    /// Its profile cannot be understood.
    Unreadable,
    /// It has shown no credential.
    Anonymous,
    /// A capsule's own principal, through another capsule.
    NotItsOwnCode,
    /// Neither it nor a group of it has a grant for that.
    NoGrant,
    /// This revoke matches.
    Revoked(Capability),
    /// What is asked for is not well-formed, so that nothing grants it.
    NoResource,
}

impl Reason {
    /// The rule, in words.
    pub fn rule(&self, principal: &Principal) -> String {
        match self {
            Self::Unknown => format!("{principal} is not known here"),
            Self::Disabled => format!("{principal} is disabled"),
            Self::Unreadable => format!("the profile of {principal} cannot be understood"),
            Self::Anonymous => "nobody has shown who this is".to_owned(),
            Self::NotItsOwnCode => format!("{principal} does that through its own code only"),
            Self::NoGrant => format!("nothing grants it to {principal}"),
            Self::Revoked(rule) => format!("`{rule}` is revoked for {principal}"),
            Self::NoResource => "it is not well-formed".to_owned(),
        }
    }

    /// What would have to change. `what` is the capability that would do.
    pub fn change(&self, principal: &Principal, what: &str) -> String {
        match self {
            Self::Unknown => format!("a profile: `astrid agent create {principal}`"),
            Self::Disabled => format!("`enabled = true`: `astrid agent enable {principal}`"),
            Self::Unreadable => format!("etc/profiles/{principal}.toml: `astrid status` says what is wrong with it"),
            Self::Anonymous => "a credential".to_owned(),
            Self::NotItsOwnCode => "a principal whom that is granted asks for it".to_owned(),
            Self::NoGrant => format!("a grant: `astrid caps grant {principal} {what}`"),
            Self::Revoked(rule) => format!(
                "somebody else than {principal} to take the revoke `{rule}` away: `astrid caps grant {principal} {rule}`"
            ),
            Self::NoResource => "names and paths without empty segments, dots and control characters".to_owned(),
        }
    }
}

/// A principal's refusal, with everything that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who tried.
    pub principal: Principal,
    /// What.
    pub action: Action,
    /// On what.
    pub object: String,
    /// Which rule decided.
    pub reason: Reason,
}

impl Refusal {
    /// The capability that would do.
    pub fn capability(&self) -> String {
        match self.object.as_str() {
            "" => self.action.to_string(),
            object => format!("{}:{object}", self.action),
        }
    }

    /// What would have to change.
    pub fn change(&self) -> String {
        self.reason.change(&self.principal, &self.capability())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { principal, .. } = self;
        // What a guest wrote is shown so that it cannot forge a line.
        write!(
            f,
            "{principal} may not {}: {}; it needs {}",
            self.capability().escape_debug(),
            self.reason.rule(principal),
            self.change().escape_debug(),
        )
    }
}

/// What would let a capsule guard something.
pub(super) fn guard_grant(capsule: &str, pattern: &dyn std::fmt::Display) -> String {
    format!("`astrid caps grant capsule:{capsule} guard:{pattern}`")
}

impl Denied {
    /// Which rule decided, without anything that whoever is refused can choose: there are few of these for each principal.
    pub fn rule(&self) -> String {
        match self {
            Self::Manifest { action, section, .. } => format!("{action}: the manifest does not declare it ({section})"),
            Self::Reserved(topic) => format!("{} belongs to the kernel", topic.domain()),
            Self::OperatorOnly(_) => "for operators".to_owned(),
            Self::Guard { .. } => "guard: nothing grants it".to_owned(),
            Self::Principal(refusal) => {
                format!("{}: {}", refusal.action, refusal.reason.rule(&refusal.principal))
            }
            Self::Anonymous { action, .. } => format!("{action}: anonymous"),
        }
    }
}

/// A refusal, in words that name what is lacking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The manifest does not declare it.
    #[error("capsule {capsule} may not {action} {}: its manifest does not declare it ({section})", .object.escape_debug())]
    Manifest {
        /// Which capsule.
        capsule: Arc<str>,
        /// What it tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Where the manifest would have to say it.
        section: &'static str,
    },
    /// Only the kernel speaks there.
    #[error("{0} belongs to the kernel: nobody else publishes there")]
    Reserved(Topic),
    /// Needs the operator socket.
    #[error("{0} is for operators: it is refused on the session socket")]
    OperatorOnly(Topic),
    /// A capsule guards only what the operator has granted it.
    #[error("capsule {capsule} may not guard {pattern}: nothing grants it; it needs {}", guard_grant(.capsule, .pattern))]
    Guard {
        /// Which capsule.
        capsule: Arc<str>,
        /// What it wants to guard.
        pattern: Pattern,
    },
    /// The principal may not.
    #[error("{0}")]
    Principal(Box<Refusal>),
    /// An anonymous connection tried to act.
    #[error("an anonymous connection may not {action} {}", .object.escape_debug())]
    Anonymous {
        /// What it tried.
        action: Action,
        /// On what.
        object: String,
    },
}
