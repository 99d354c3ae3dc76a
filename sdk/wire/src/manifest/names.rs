//! Names and versions in a manifest.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use semver::{Version, VersionReq};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Import;
use crate::authority::Resource;
use crate::fs::Root;

/// Most bytes of a capsule's or interface's name.
const NAME_BYTES_MAX: usize = 64;

/// Why a text is not the name of a capsule or interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No characters, or more than 64.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A character outside `[a-z0-9-]`.
    #[error("`{name}` contains {found:?}; names are made of a-z, 0-9 and `-`")]
    Character {
        /// The name.
        name: String,
        /// The character.
        found: char,
    },
}

/// The name of a capsule or of an interface: `[a-z0-9-]{1,64}`. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapsuleName(Arc<str>);

impl CapsuleName {
    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CapsuleName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(NameError::Length(name.len()));
        }
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            Some(found) => Err(NameError::Character {
                name: name.to_owned(),
                found,
            }),
            None => Ok(Self(Arc::from(name))),
        }
    }
}

impl fmt::Display for CapsuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CapsuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for CapsuleName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for CapsuleName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Serialize for CapsuleName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for CapsuleName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not a program of a capability, or not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Neither `*` nor an absolute path.
    #[error("`{0}` is not a program: write an absolute path, or \"*\" for every program")]
    Program(String),
    /// Not a file name of the operator's `etc/`.
    #[error(
        "`{0}` is not a document: a name of a-z, 0-9 and `-` that ends in \".toml\", and none that the daemon reads itself"
    )]
    Document(String),
    /// Not a path below one of the roots of files.
    #[error(
        "`{0}` is not a path of files: write /workspace/..., /home/... or /tmp/..., where `*` is one segment and a final `>` all that follow"
    )]
    File(String),
}

/// Most bytes of a program's path in a manifest.
const PROGRAM_BYTES_MAX: usize = 1024;

/// Documents in `etc/` that are the daemon's own.
const RESERVED_DOCUMENTS: [&str; 2] = ["astrid.toml", "groups.toml"];

/// A program that may be run: `*` for every one, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program(String);

impl Program {
    /// Whether it stands for the program at that absolute path.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        self.0 == "*" || self.0 == path
    }
}

impl FromStr for Program {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let path = text.starts_with('/') && text.len() <= PROGRAM_BYTES_MAX && !text.contains('\0');
        if path || text == "*" {
            Ok(Self(text.to_owned()))
        } else {
            Err(ResourceError::Program(
                crate::text::cut(text, NAME_BYTES_MAX).to_owned(),
            ))
        }
    }
}

/// A document of the operator: a file name in the home's `etc/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentName(String);

impl DocumentName {
    /// The file's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DocumentName {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let stem = text.strip_suffix(".toml").unwrap_or_default();
        let plain = stem
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if stem.is_empty() || !plain || text.len() > NAME_BYTES_MAX || RESERVED_DOCUMENTS.contains(&text) {
            return Err(ResourceError::Document(
                crate::text::cut(text, NAME_BYTES_MAX).to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Files by their paths, as in `fs.read:/workspace/src/>`: a resource below `/workspace`, `/home` or `/tmp`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilePath(Resource);

impl FilePath {
    /// The set of paths.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let known = |root: Root| {
            let rest = text.strip_prefix('/').and_then(|rest| rest.strip_prefix(root.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let resource = Root::ALL.into_iter().any(known).then(|| text.parse().ok()).flatten();
        let wrong = || ResourceError::File(crate::text::cut(text, NAME_BYTES_MAX).to_owned());
        resource.map(Self).ok_or_else(wrong)
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

serde_as_text!(Program);
serde_as_text!(DocumentName);

/// Why a text is not the version of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the version of an interface: two numbers, as in \"1.0\"")]
pub struct VersionError(String);

/// Version of an interface: two numbers, for what breaks and what is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceVersion {
    /// Changes when an importer would break.
    pub major: u32,
    /// Changes when something is added.
    pub minor: u32,
}

impl InterfaceVersion {
    /// Whether an import that asks for `wanted` is served by this.
    #[must_use]
    pub fn satisfies(self, wanted: &VersionReq) -> bool {
        wanted.matches(&Version::new(self.major.into(), self.minor.into(), 0))
    }
}

impl FromStr for InterfaceVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError(crate::text::cut(text, NAME_BYTES_MAX).to_owned());
        let number = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            part.parse().ok().filter(|_| plain)
        };
        let (major, minor) = text.split_once('.').ok_or_else(wrong)?;
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for InterfaceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for InterfaceVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InterfaceVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Import {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            version: VersionReq,
            #[serde(default)]
            optional: bool,
            #[serde(default)]
            many: bool,
        }

        // A visitor and not an untagged enum: the errors of that one say neither what is wrong nor where.
        struct StringOrTable;

        impl<'de> Visitor<'de> for StringOrTable {
            type Value = Import;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version (`\"^1\"`) or a table (`{ version = \"^1\", optional = true }`)")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Import, E> {
                let version = text.parse().map_err(E::custom)?;
                Ok(Import {
                    version,
                    optional: false,
                    many: false,
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Import, A::Error> {
                let Table {
                    version,
                    optional,
                    many,
                } = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Import {
                    version,
                    optional,
                    many,
                })
            }
        }

        deserializer.deserialize_any(StringOrTable)
    }
}
