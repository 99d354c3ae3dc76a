//! Capabilities: what somebody may do, as people write it down. One grammar, one matcher.
//!
//! ```text
//! capability = "*" | action [ ":" resource ]
//! action     = "publish" | "subscribe" | "observe" | "kv" | "timer" | "pin" | "document" | "child.spawn" | "child.sandbox" | "guard"
//!            | "act_as" | "admin" | "fs.read" | "fs.write" | "net.connect" | "secret"
//! resource   = name | path
//! name       = segment *( "." segment )          segment: "*", or visible ASCII but . / * > " ' ` \
//! path       = 1*( "/" part )                    part: "*", or any text but / * > and control characters
//! ```
//!
//! The last segment or part may also be `>`. As in patterns of topics, `*` is exactly one segment and a final `>` one or more.
//! A resource that begins with `/` is a path, every other is a name, and neither ever matches the other kind. An action
//! without a resource means any resource of it; `*` alone means everything. Segments and parts that are empty, `.` or `..` are
//! refused, in a capability as in what is asked for: a resource is compared as it is written, and is never resolved.
//!
//! What the resource is depends on the action:
//!
//! | Action | Resource | Means |
//! |---|---|---|
//! | `publish` | topic | saying something there |
//! | `subscribe` | topic | hearing what one's own principal, and everybody publicly, says there |
//! | `observe` | topic | hearing what others say there |
//! | `kv`, `timer`, `pin` | capsule | keeping state, being woken, staying, through that capsule |
//! | `document` | name | reading and replacing that document of its own |
//! | `child.spawn` | path | running that program |
//! | `child.sandbox` | `none`, `home` or `write` | running programs in a sandbox that is as loose |
//! | `guard` | topic | deciding about others' messages there |
//! | `act_as` | principal | acting for that principal |
//! | `admin` | verb | asking that of the kernel, as in `admin:shutdown` |
//! | `fs.read`, `fs.write` | path | reading, changing that file: `/workspace/...`, `/home/...` or `/tmp/...`, links resolved |
//! | `net.connect`, `secret` | name | reserved |
//!
//! Deliberately absent: decisions. Which grants and revokes somebody has, and that a revoke wins, is the kernel's gate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Pattern;
use crate::text::is_harmful;

#[cfg(feature = "manifest")]
mod profile;

#[cfg(feature = "manifest")]
pub use profile::{BUILT_IN_GROUPS, BuiltInGroup, CapsuleGrants, Group, GroupsFile, Profile, WEIGHT_MAX};

/// Most bytes of a capability: an action, and a path as long as people write them.
pub const CAPABILITY_BYTES_MAX: usize = 512;

/// The capability of everything.
pub const EVERYTHING: &str = "*";

/// What can be done. A closed set: an unknown action is an error, never a capability that matches nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Action {
    /// Says something.
    Publish,
    /// Hears its own and what is public.
    Subscribe,
    /// Hears others.
    Observe,
    /// Keeps state in the store.
    Kv,
    /// Is woken later.
    Timer,
    /// Stays when it is idle.
    Pin,
    /// Reads and replaces a document.
    Document,
    /// Runs a program.
    ChildSpawn,
    /// Decides about messages of others.
    Guard,
    /// Acts for another.
    ActAs,
    /// Asks the kernel for what operators ask.
    Admin,
    /// Reads files.
    FsRead,
    /// Changes files.
    FsWrite,
    /// Reserved: connects to a host.
    NetConnect,
    /// Reserved: uses a secret.
    Secret,
    /// Runs programs in a looser sandbox than one in which they write their workspace and a `/tmp` of their own: [`SANDBOX_NONE`],
    /// [`SANDBOX_HOME`], [`SANDBOX_WRITE`].
    ChildSandbox,
}

/// What [`Action::ChildSandbox`] is on: no sandbox at all.
pub const SANDBOX_NONE: &str = "none";

/// What [`Action::ChildSandbox`] is on: one that keeps a program from the daemon's files only, or that may be left out in part.
pub const SANDBOX_HOME: &str = "home";

/// What [`Action::ChildSandbox`] is on: one in which a program writes other paths as well.
pub const SANDBOX_WRITE: &str = "write";

impl Action {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Publish,
        Self::Subscribe,
        Self::Observe,
        Self::Kv,
        Self::Timer,
        Self::Pin,
        Self::Document,
        Self::ChildSpawn,
        Self::Guard,
        Self::ActAs,
        Self::Admin,
        Self::FsRead,
        Self::FsWrite,
        Self::NetConnect,
        Self::Secret,
        Self::ChildSandbox,
    ];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Observe => "observe",
            Self::Kv => "kv",
            Self::Timer => "timer",
            Self::Pin => "pin",
            Self::Document => "document",
            Self::ChildSpawn => "child.spawn",
            Self::Guard => "guard",
            Self::ActAs => "act_as",
            Self::Admin => "admin",
            Self::FsRead => "fs.read",
            Self::FsWrite => "fs.write",
            Self::NetConnect => "net.connect",
            Self::Secret => "secret",
            Self::ChildSandbox => "child.sandbox",
        }
    }

    /// Whether its resource is a path; otherwise it is a name.
    #[must_use]
    pub const fn takes_path(self) -> bool {
        matches!(self, Self::ChildSpawn | Self::FsRead | Self::FsWrite)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Action {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl FromStr for Action {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| CapabilityError::Action(crate::text::cut(text, SHOWN_BYTES_MAX).escape_debug().to_string()))
    }
}

/// Most bytes of a wrong text that an error repeats.
const SHOWN_BYTES_MAX: usize = 64;

/// Why a text is not a capability, or not a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No characters at all.
    #[error("a capability is empty")]
    Empty,
    /// Longer than [`CAPABILITY_BYTES_MAX`].
    #[error("a capability has {bytes} bytes, the limit is {CAPABILITY_BYTES_MAX}")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Not one of [`Action::ALL`].
    #[error(
        "there is no action `{0}`; there is publish, subscribe, observe, kv, timer, pin, document, child.spawn, child.sandbox, fs.read, fs.write, guard, act_as and admin, and `*` for everything"
    )]
    Action(String),
    /// A path where a name belongs, or the reverse.
    #[error("a resource of `{action}` is {wanted}, and `{resource}` is not")]
    Kind {
        /// The action.
        action: Action,
        /// `a path, which begins with /` or `a name`.
        wanted: &'static str,
        /// What was written, escaped.
        resource: String,
    },
    /// Nothing between two separators, before the first or after the last.
    #[error("segment {segment} of the resource is empty")]
    EmptySegment {
        /// Which one, from 1.
        segment: usize,
    },
    /// `.` or `..`.
    #[error(
        "segment {segment} of the resource is `{text}`: resources are compared as they are written, never resolved"
    )]
    Dots {
        /// Which one, from 1.
        segment: usize,
        /// It.
        text: &'static str,
    },
    /// A character that does not belong there.
    #[error("segment {segment} of the resource contains {found:?}")]
    Character {
        /// Which one, from 1.
        segment: usize,
        /// The character.
        found: char,
    },
    /// `*` or `>` inside a segment, or `>` before the last.
    #[error("segment {segment} of the resource: `*` is a whole segment, and `>` is the whole last one")]
    Wildcard {
        /// Which one, from 1.
        segment: usize,
    },
}

/// A set of resources: see the module's grammar. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(Arc<str>);

fn is_name_char(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '/' | '"' | '\'' | '`' | '\\')
}

/// The segments of a resource, or of what is asked for.
fn segments(text: &str) -> (bool, impl Iterator<Item = &str> + Clone) {
    let path = text.starts_with('/');
    let (rest, separator) = if path { (&text[1..], '/') } else { (text, '.') };
    (path, rest.split(separator))
}

fn check_resource(text: &str, wildcards: bool) -> Result<(), CapabilityError> {
    let (path, names) = segments(text);
    let count = names.clone().count();
    for (index, name) in names.enumerate() {
        let segment = index + 1;
        match name {
            "" => return Err(CapabilityError::EmptySegment { segment }),
            "." => return Err(CapabilityError::Dots { segment, text: "." }),
            ".." => return Err(CapabilityError::Dots { segment, text: ".." }),
            "*" if wildcards => continue,
            ">" if wildcards && segment == count => continue,
            _ => {}
        }
        for found in name.chars() {
            if matches!(found, '*' | '>') && wildcards {
                return Err(CapabilityError::Wildcard { segment });
            }
            if if path { is_harmful(found) } else { !is_name_char(found) } {
                return Err(CapabilityError::Character { segment, found });
            }
        }
    }
    Ok(())
}

/// Whether a text can be asked for: a name or a path without empty segments, dots and control characters.
#[must_use]
pub fn is_resource(text: &str) -> bool {
    text.len() <= RESOURCE_ASKED_BYTES_MAX && check_resource(text, false).is_ok()
}

/// Most bytes of what is asked for: the longest path of the system.
const RESOURCE_ASKED_BYTES_MAX: usize = 4096;

impl Resource {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a path; otherwise it is a name.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.0.starts_with('/')
    }

    /// Everything below that path, itself not; `None` for what is no path.
    #[must_use]
    pub fn below(path: &str) -> Option<Self> {
        let fits = path.starts_with('/') && is_resource(path) && !path.contains(['*', '>']);
        fits.then(|| Self(format!("{path}/>").into()))
    }

    /// Whether that resource is in this set. What is no resource (empty segments, `..`, control characters) is in none.
    #[must_use]
    pub fn matches(&self, resource: &str) -> bool {
        is_resource(resource) && self.matches_valid(resource)
    }

    /// [`Resource::matches`] for what is known to be a resource, as every topic is. For anything else the answer means nothing.
    #[must_use]
    pub fn matches_valid(&self, resource: &str) -> bool {
        if !self.is_path() {
            // The separator, the wildcards and what they mean are those of topics.
            return !resource.starts_with('/') && crate::topic::matches(&self.0, resource);
        }
        let Some(rest) = resource.strip_prefix('/') else {
            return false;
        };
        let mut theirs = rest.split('/');
        for mine in self.0[1..].split('/') {
            match (mine, theirs.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (mine, Some(theirs)) if mine == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether every resource of `other` is also one of this set.
    #[must_use]
    pub fn covers(&self, other: &Resource) -> bool {
        self.compare(other.as_str(), true)
    }

    /// Whether some resource is in both sets.
    #[must_use]
    pub fn overlaps(&self, other: &Resource) -> bool {
        self.compare(other.as_str(), false)
    }

    /// [`Resource::covers`] for a pattern of topics.
    #[must_use]
    pub fn covers_pattern(&self, pattern: &Pattern) -> bool {
        self.compare(pattern.as_str(), true)
    }

    /// [`Resource::overlaps`] for a pattern of topics.
    #[must_use]
    pub fn overlaps_pattern(&self, pattern: &Pattern) -> bool {
        self.compare(pattern.as_str(), false)
    }

    fn compare(&self, other: &str, cover: bool) -> bool {
        let ((path, mine), (other_path, mut theirs)) = (segments(&self.0), segments(other));
        if path != other_path {
            return false;
        }
        for mine in mine {
            match (mine, theirs.next()) {
                (_, None) => return false,
                (">", Some(_)) => return true,
                // Whatever they have there, and whatever comes after: at least one more of ours is in it.
                (_, Some(">")) => return !cover,
                ("*", Some(_)) => {}
                (_, Some("*")) if !cover => {}
                (mine, Some(theirs)) if mine == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

impl FromStr for Resource {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.len() > CAPABILITY_BYTES_MAX {
            return Err(CapabilityError::TooLong { bytes: text.len() });
        }
        check_resource(text, true)?;
        Ok(Self(Arc::from(text)))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why somebody may or may not do something: what `explain` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// The decision.
    pub allowed: bool,
    /// Who.
    pub principal: String,
    /// Through which capsule.
    pub capsule: String,
    /// What.
    pub action: Action,
    /// On what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The rule that decided, in words that name where it is written.
    pub rule: String,
    /// What would have to change for another decision.
    pub change: String,
}

/// What somebody may do, or may not. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// `*`.
    Everything,
    /// An action, on these resources or, without one, on any.
    Of(Action, Option<Resource>),
}

impl Capability {
    /// Whether it is about that action on that resource. Without a resource the question is whether it is about the action on any.
    #[must_use]
    pub fn allows(&self, action: Action, resource: Option<&str>) -> bool {
        match (self, resource) {
            (Self::Everything, Some(resource)) => check_resource(resource, false).is_ok(),
            (Self::Everything, None) => true,
            (Self::Of(mine, _), _) if *mine != action => false,
            (Self::Of(_, None), Some(resource)) => check_resource(resource, false).is_ok(),
            (Self::Of(_, Some(set)), Some(resource)) => set.matches(resource),
            (Self::Of(_, set), None) => set.is_none(),
        }
    }

    /// Whether everything that `other` is about is also in this: what narrowing must keep.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Of(..), Self::Everything) => false,
            (Self::Of(mine, set), Self::Of(theirs, other)) => {
                mine == theirs
                    && match (set, other) {
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(set), Some(other)) => set.covers(other),
                    }
            }
        }
    }

    /// Whether it is `*`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    /// The action; `None` when it is all of them.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        match self {
            Self::Everything => None,
            Self::Of(action, _) => Some(*action),
        }
    }

    /// The resources; `None` when it is any.
    #[must_use]
    pub fn resource(&self) -> Option<&Resource> {
        match self {
            Self::Everything => None,
            Self::Of(_, resource) => resource.as_ref(),
        }
    }
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        if text.is_empty() {
            return Err(CapabilityError::Empty);
        }
        if text.len() > CAPABILITY_BYTES_MAX {
            return Err(CapabilityError::TooLong { bytes: text.len() });
        }
        if text == EVERYTHING {
            return Ok(Self::Everything);
        }
        let (action, resource) = match text.split_once(':') {
            Some((action, resource)) => (action, Some(resource)),
            None => (text, None),
        };
        let action: Action = action.parse()?;
        let resource = resource.map(str::parse::<Resource>).transpose()?;
        match resource {
            Some(resource) if resource.is_path() != action.takes_path() => Err(CapabilityError::Kind {
                action,
                wanted: if action.takes_path() {
                    "a path, which begins with /"
                } else {
                    "a name"
                },
                resource: crate::text::cut(resource.as_str(), SHOWN_BYTES_MAX).to_owned(),
            }),
            resource => Ok(Self::Of(action, resource)),
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str(EVERYTHING),
            Self::Of(action, None) => f.write_str(action.as_str()),
            Self::Of(action, Some(resource)) => write!(f, "{action}:{resource}"),
        }
    }
}

impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Capability;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a capability, as in \"publish:notes.>\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Capability, E> {
                text.parse().map_err(|error| {
                    let shown = crate::text::cut(text, SHOWN_BYTES_MAX).escape_debug();
                    E::custom(format_args!("`{shown}` is not a capability: {error}"))
                })
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests;
