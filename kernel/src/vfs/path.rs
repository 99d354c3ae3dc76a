//! What a guest may write for a path, and what it is once links in it are followed.
//!
//! A path is a scheme and names: `workspace://src/main.rs`; the rule for them is `astrid_wire`'s. What is validated here cannot mean anything but a place in that tree: there is no
//! `..`, no second spelling of a place, and nothing that a terminal or a log would take for something else. What links and mounts make of it on
//! the disk is for `walk` and `beneath`.
//!
//! A [`Place`] is a path of which a tree has followed the links. It says what authority it needs ([`Place::resource`]), and it is what
//! operations take: so what was allowed is what is used. Who swaps a name of it for a link meanwhile makes the operation fail.
//!
//! Guests see names that are UTF-8 and nothing else. Below here names are bytes.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use astrid_wire::fs::PathError;

pub use astrid_wire::fs::Root as Scheme;

use super::error::{Fault, FsError};
use super::temporary::TEMPORARY;

/// Names of a path, at most. To follow links, the directories on the way are held open, and files that a process has open are few.
pub const NAMES_MAX: usize = 128;

/// A path of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VirtualPath {
    scheme: Scheme,
    /// Names with a slash between; empty for the root.
    names: String,
}

impl VirtualPath {
    /// The root of a tree.
    #[must_use]
    pub fn root(scheme: Scheme) -> Self {
        Self {
            scheme,
            names: String::new(),
        }
    }

    /// Reads a path as a guest writes it.
    ///
    /// # Errors
    /// [`Fault::Invalid`], with what is wrong.
    pub fn parse(text: &str) -> Result<Self, FsError> {
        let wrong = |fault| FsError::new(text, fault);
        let (scheme, names) = astrid_wire::fs::parse(text).map_err(|error| wrong(error.into()))?;
        check_names(names).map_err(wrong)?;
        Ok(Self {
            scheme,
            names: names.to_owned(),
        })
    }

    /// A path of names, from somewhere on the disk.
    fn of(scheme: Scheme, names: String) -> Result<Self, Fault> {
        let path = Self { scheme, names };
        astrid_wire::fs::parse(&path.to_string())?;
        check_names(&path.names)?;
        Ok(path)
    }

    /// A path of names that were found on the disk.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when a guest could not write it.
    pub(super) fn of_names<'n>(scheme: Scheme, found: impl Iterator<Item = &'n OsStr>) -> Result<Self, Fault> {
        let mut names = String::new();
        for name in found {
            if !names.is_empty() {
                names.push('/');
            }
            names.push_str(name.to_str().ok_or(Fault::Invalid("a name in it is not UTF-8"))?);
        }
        Self::of(scheme, names)
    }

    /// Which tree it is in.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether it is the root of its tree.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// The path from the root, for the disk; empty for the root.
    #[must_use]
    pub fn relative(&self) -> &Path {
        Path::new(&self.names)
    }

    /// Its names, from the root on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.split('/').filter(|name| !name.is_empty())
    }

    /// The path of the directory that it is in, and its last name. The root has neither.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        if self.is_root() {
            return None;
        }
        Some(self.names.rsplit_once('/').unwrap_or(("", &self.names)))
    }

    /// Something in the directory that this is.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when it is no name, or the path would be too long.
    pub fn join(&self, name: &str) -> Result<Self, FsError> {
        let names = if self.is_root() {
            name.to_owned()
        } else {
            format!("{}/{name}", self.names)
        };
        let shown = || format!("{}://{names}", self.scheme.as_str());
        if name.is_empty() || name.contains('/') {
            return Err(FsError::new(
                &shown(),
                Fault::Invalid("a name is not empty and has no slash"),
            ));
        }
        Self::of(self.scheme, names.clone()).map_err(|fault| FsError::new(&shown(), fault))
    }

    /// Whether it is below another, or the same.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && match self.names.strip_prefix(&other.names) {
                Some(rest) => rest.is_empty() || other.is_root() || rest.starts_with('/'),
                None => false,
            }
    }

    /// How authority names it: `/workspace/src/main.rs`.
    #[must_use]
    pub fn resource(&self) -> String {
        if self.is_root() {
            return format!("/{}", self.scheme.as_str());
        }
        format!("/{}/{}", self.scheme.as_str(), self.names)
    }
}

impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.names)
    }
}

/// Whether a text may be one name of a path.
pub(super) fn is_name(name: &str) -> bool {
    // Nearly all names are plain, and large directories have many.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match name.as_bytes() {
        [first, rest @ ..] if plain(*first) && rest.len() < 255 && rest.iter().all(|b| plain(*b) || *b == b'.') => true,
        name if name.is_empty() || name.contains(&b'/') => false,
        _ => VirtualPath::of(Scheme::Tmp, name.to_owned()).is_ok(),
    }
}

/// What is refused beside what the rule for paths refuses: what cannot be walked, and what is being written.
fn check_names(names: &str) -> Result<(), Fault> {
    if names.split('/').count() > NAMES_MAX {
        return Err(Fault::Invalid("it has more than 128 names"));
    }
    if names.split('/').any(|name| name.starts_with(TEMPORARY)) {
        return Err(Fault::Invalid(
            "names that begin with .astrid-new- are for files that are being written",
        ));
    }
    Ok(())
}

impl From<PathError> for Fault {
    fn from(error: PathError) -> Self {
        Self::Invalid(match error {
            PathError::Root => "a path begins with workspace://, home:// or tmp://",
            PathError::TooLong(_) => "it is longer than 4096 bytes",
            PathError::Empty(_) => "a name in it is empty",
            PathError::Dots(_) => "`.` and `..` are no names: paths are written without them",
            PathError::LongSegment(_) => "a name in it is longer than 255 bytes",
            PathError::Control(_) => "a name in it has a control character",
        })
    }
}

/// A path in which a tree has followed the links: what authority is asked about, and what operations take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(VirtualPath);

impl Place {
    /// Only who followed the links makes one.
    pub(super) fn new(path: VirtualPath) -> Self {
        Self(path)
    }

    /// The path, without links but for a last name that was not followed.
    #[must_use]
    pub fn path(&self) -> &VirtualPath {
        &self.0
    }

    /// How authority names it.
    #[must_use]
    pub fn resource(&self) -> String {
        self.0.resource()
    }
}

/// Whether the last name is followed when it is a link. Those before it always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The place is what the link leads to, which need not be there.
    Yes,
    /// The place is the link.
    No,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What cannot be misread is read.
    #[test]
    fn good_paths_are_read() {
        for (text, resource, names) in [
            ("workspace://", "/workspace", 0),
            ("workspace://src/main.rs", "/workspace/src/main.rs", 2),
            ("home://...", "/home/...", 1),
            ("tmp://ä b/\u{1F980}", "/tmp/ä b/\u{1F980}", 2),
            ("tmp://a\\..\\b", "/tmp/a\\..\\b", 1),
        ] {
            let path = VirtualPath::parse(text).unwrap();
            assert_eq!(path.resource(), resource);
            assert_eq!(path.names().count(), names);
            assert_eq!(path.to_string(), text);
        }
    }

    /// Everything else is refused, and the error names it.
    #[test]
    fn bad_paths_are_refused() {
        let long_name = format!("home://{}", "n".repeat(256));
        let long_path = format!("home://{}", "n".repeat(200).as_str()) + &format!("/{}", "n".repeat(200)).repeat(20);
        let deep_path = format!("home://{}", "n/".repeat(128) + "n");
        for text in [
            "",
            "src",
            "/etc/passwd",
            "file:///etc/passwd",
            "WORKSPACE://a",
            "workspace:///a",
            "workspace://a//b",
            "workspace://a/",
            "workspace://.",
            "workspace://..",
            "workspace://../x",
            "workspace://a/../b",
            "workspace://a/./b",
            "workspace://a\0b",
            "workspace://a\nb",
            "workspace://a\u{9b}b",
            &long_name,
            &long_path,
            &deep_path,
            "home://.astrid-new-1",
        ] {
            let error = VirtualPath::parse(text).unwrap_err();
            assert!(matches!(error.fault, Fault::Invalid(_)), "{text:?}: {error}");
            assert!(error.at.len() < 300);
        }
    }

    /// What is quickly known to be a name is one.
    #[test]
    fn names_are_known() {
        for (name, is) in [
            ("a", true),
            ("a.b-c_9", true),
            (&"n".repeat(255), true),
            ("ä b", true),
            ("..a", true),
            (&"n".repeat(256), false),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a\n", false),
            (".astrid-new-1", false),
        ] {
            assert_eq!(is_name(name), is, "{name:?}");
            assert_eq!(
                VirtualPath::parse(&format!("home://x/{name}")).is_ok() && !name.contains('/'),
                is,
                "{name:?}"
            );
        }
    }

    /// Names are compared whole.
    #[test]
    fn what_is_within_is_told() {
        let path = |text| VirtualPath::parse(text).unwrap();
        assert!(path("home://a/b").is_within(&path("home://a")));
        assert!(path("home://a").is_within(&path("home://a")));
        assert!(path("home://a").is_within(&path("home://")));
        assert!(!path("home://ab").is_within(&path("home://a")));
        assert!(!path("tmp://a/b").is_within(&path("home://a")));
        assert_eq!(
            path("home://").join("a").unwrap().join("b").unwrap(),
            path("home://a/b")
        );
        for name in ["", ".", "..", "a/b", "a\0"] {
            path("home://a").join(name).unwrap_err();
        }
    }
}
