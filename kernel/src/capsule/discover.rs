//! Which capsules there are (K21): those in the binary, or a directory's in their place; and those that the operator
//! put into the home's `capsules/`, of which one replaces a built-in one of its name. In safe mode only those in the
//! binary.
//!
//! A bundle that cannot be used is reported with its reason and never ends boot: a broken replacement leaves the
//! built-in capsule in place.
//!
//! A file decides what code runs, so it is only taken from who may decide that: it must be this user's (or root's),
//! not a link, and nobody else may write to it. It is called as its capsule is, so that what an operator sees in the
//! directory is what runs.
//!
//! Deliberately absent: capsules of principals.

#![allow(clippy::disallowed_methods, reason = "this module owns the finding of bundle files")]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::bundle::{BUNDLE_BYTES_MAX, Bundle, BundleError, Origin};
use crate::home::Home;

/// The end of a bundle's file name.
const EXTENSION: &str = "capsule";

/// Most bundles of a directory; far more than anybody installs.
const BUNDLES_MAX: usize = 1000;

/// A capsule in this binary.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Its name.
    pub name: &'static str,
    /// Its bundle.
    pub bundle: &'static [u8],
    /// What [`super::aot::precompile`] made of that.
    pub precompiled: Option<&'static [u8]>,
}

/// Why a bundle is not used. Whoever put it there is to blame.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The file is not a usable bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It is called otherwise than its capsule.
    #[error("it holds the capsule `{0}`, and is not called that")]
    Name(String),
    /// A link, a pipe or a directory.
    #[error("it is not a plain file")]
    NotAFile,
    /// Somebody else's.
    #[error("it belongs to user {0}")]
    Owner(u32),
    /// Others could write to it.
    #[error("it has mode {0:04o}: others could write to it")]
    Mode(u32),
    /// The directory has too many.
    #[error("there are more than {BUNDLES_MAX} bundles; the rest is not looked at")]
    TooMany,
    /// The file system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl DiscoverError {
    /// What could be done about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            DiscoverError::Bundle(error) => error.hint(),
            DiscoverError::Name(name) => Some(format!("rename it to {name}.{EXTENSION}")),
            DiscoverError::NotAFile => Some("copy the file itself here".to_owned()),
            DiscoverError::Owner(_) => Some("copy it as the user who runs the daemon".to_owned()),
            DiscoverError::Mode(_) => Some("chmod go-w it, if nobody changed it".to_owned()),
            DiscoverError::TooMany => Some("remove what is not used".to_owned()),
            DiscoverError::Io(_) => None,
        }
    }
}

/// A bundle that is not used.
#[derive(Debug)]
pub struct Broken {
    /// Its name, as far as it is known without its manifest.
    pub name: String,
    /// Where it is.
    pub origin: Origin,
    /// Why.
    pub error: DiscoverError,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.origin, self.error)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// One bundle a name, in the order of names.
    pub bundles: Vec<Bundle>,
    /// What is not used, and why.
    pub broken: Vec<Broken>,
}

/// Finds all capsules. `directory` takes the place of what is in the binary; `safe` means that only that counts.
#[must_use]
pub fn discover(home: &Home, embedded: &'static [Embedded], directory: Option<&Path>, safe: bool) -> Found {
    let mut search = Search {
        bundles: BTreeMap::new(),
        broken: Vec::new(),
    };
    match directory.filter(|_| !safe) {
        Some(directory) => search.directory(directory, Origin::Directory),
        None => embedded.iter().for_each(|capsule| search.embedded(capsule)),
    }
    if !safe {
        search.directory(&home.capsules_dir(), Origin::Home);
    }
    Found {
        bundles: search.bundles.into_values().collect(),
        broken: search.broken,
    }
}

struct Search {
    bundles: BTreeMap<String, Bundle>,
    broken: Vec<Broken>,
}

impl Search {
    fn embedded(&mut self, capsule: &Embedded) {
        let parsed = Bundle::parse(Bytes::from_static(capsule.bundle), Origin::Embedded);
        let bundle = parsed
            .map_err(DiscoverError::from)
            .map(|bundle| bundle.with_precompiled(capsule.precompiled));
        self.add(capsule.name, Origin::Embedded, bundle);
    }

    fn directory(&mut self, directory: &Path, origin: fn(PathBuf) -> Origin) {
        let report = |error| Broken {
            name: "capsules".to_owned(),
            origin: origin(directory.to_path_buf()),
            error,
        };
        let mut paths = Vec::new();
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => paths.push(entry.path()),
                        Err(error) => self.broken.push(report(error.into())),
                    }
                }
            }
            Err(error) => self.broken.push(report(error.into())),
        }
        paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        paths.sort();
        if paths.len() > BUNDLES_MAX {
            self.broken.push(report(DiscoverError::TooMany));
            paths.truncate(BUNDLES_MAX);
        }
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let origin = origin(path);
            let bundle = read(&origin).and_then(|bytes| Ok(Bundle::parse(bytes, origin.clone())?));
            self.add(&name, origin, bundle);
        }
    }

    /// Takes a bundle in place of any of its name that was found before.
    fn add(&mut self, name: &str, origin: Origin, bundle: Result<Bundle, DiscoverError>) {
        let named = bundle.and_then(|bundle| match bundle.name() {
            own if own == name => Ok(bundle),
            own => Err(DiscoverError::Name(own.to_owned())),
        });
        match named {
            Ok(bundle) => drop(self.bundles.insert(name.to_owned(), bundle)),
            Err(error) => self.broken.push(Broken {
                name: name.to_owned(),
                origin,
                error,
            }),
        }
    }
}

fn read(origin: &Origin) -> Result<Bytes, DiscoverError> {
    let (path, forbidden) = match origin {
        // In a developer's own tree, files are commonly writable by a group that is only the developer.
        Origin::Directory(path) => (path, 0o002),
        Origin::Home(path) => (path, 0o022),
        Origin::Embedded => return Err(DiscoverError::NotAFile),
    };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => DiscoverError::NotAFile,
        _ => DiscoverError::Io(error),
    })?;
    // The opened file is looked at, not its name: it is the one that is read.
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(DiscoverError::NotAFile);
    }
    if found.uid() != rustix::process::geteuid().as_raw() && found.uid() != 0 {
        return Err(DiscoverError::Owner(found.uid()));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(DiscoverError::Mode(mode));
    }
    let bytes = usize::try_from(found.len()).unwrap_or(usize::MAX);
    if bytes > BUNDLE_BYTES_MAX {
        return Err(BundleError::TooLarge { bytes }.into());
    }
    let mut content = Vec::with_capacity(bytes);
    // One byte more than there should be tells a file that grows meanwhile; the hash is of what was read.
    file.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::symlink;

    use super::super::bundle::assemble;
    use super::super::bundle::tests::{component, manifest};
    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        home: Home,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        Place { directory, home }
    }

    fn bytes(name: &str) -> Vec<u8> {
        assemble(&component(&[]), &manifest(name, ""), "{\"topics\": []}").unwrap()
    }

    fn write(path: &Path, bytes: &[u8], mode: u32) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn embedded(names: &[&'static str]) -> &'static [Embedded] {
        let capsules: Vec<Embedded> = names
            .iter()
            .map(|name| Embedded {
                name,
                bundle: bytes(name).leak(),
                precompiled: Some(b"code"),
            })
            .collect();
        capsules.leak()
    }

    fn names(found: &Found) -> Vec<(&str, String)> {
        let kind = |bundle: &Bundle| match bundle.origin {
            Origin::Embedded => "embedded",
            Origin::Directory(_) => "directory",
            Origin::Home(_) => "home",
        };
        found
            .bundles
            .iter()
            .map(|bundle| (bundle.name(), kind(bundle).to_owned()))
            .collect()
    }

    fn pairs(expected: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        expected
            .iter()
            .map(|(name, kind)| (*name, (*kind).to_owned()))
            .collect()
    }

    #[test]
    fn what_the_operator_put_there_replaces_what_is_built_in() {
        let place = place();
        let built_in = embedded(&["b", "a"]);
        write(&place.home.capsules_dir().join("b.capsule"), &bytes("b"), 0o600);
        write(&place.home.capsules_dir().join("c.capsule"), &bytes("c"), 0o644);
        write(&place.home.capsules_dir().join("notes.txt"), b"", 0o666);
        let found = discover(&place.home, built_in, None, false);
        assert_eq!(names(&found), pairs(&[("a", "embedded"), ("b", "home"), ("c", "home")]));
        assert!(found.broken.is_empty());
        // Code that came with the binary is for the bundle in the binary.
        assert_eq!(
            found
                .bundles
                .iter()
                .map(|b| b.precompiled.is_some())
                .collect::<Vec<_>>(),
            [true, false, false]
        );
        // Rescue: only what is in the binary, whatever else there is.
        let found = discover(&place.home, built_in, Some(place.directory.path()), true);
        assert_eq!(names(&found), pairs(&[("a", "embedded"), ("b", "embedded")]));
    }

    #[test]
    fn a_directory_takes_the_place_of_the_binary() {
        let place = place();
        let directory = place.directory.path().join("dev");
        fs::create_dir(&directory).unwrap();
        write(&directory.join("x.capsule"), &bytes("x"), 0o664);
        let found = discover(&place.home, embedded(&["a"]), Some(&directory), false);
        assert_eq!(names(&found), pairs(&[("x", "directory")]));
        let found = discover(&place.home, embedded(&["a"]), Some(&directory.join("none")), false);
        assert_eq!((found.bundles.len(), found.broken.len()), (0, 1));
    }

    #[test]
    fn a_broken_one_is_reported_and_leaves_the_built_in_one() {
        let place = place();
        let at = |name: &str| place.home.capsules_dir().join(name);
        write(&at("a.capsule"), b"garbage", 0o600);
        write(&at("other.capsule"), &bytes("b"), 0o600);
        write(&at("shared.capsule"), &bytes("shared"), 0o620);
        symlink("/etc/passwd", at("link.capsule")).unwrap();
        fs::create_dir(at("dir.capsule")).unwrap();
        assert!(
            std::process::Command::new("mkfifo")
                .arg(at("pipe.capsule"))
                .status()
                .unwrap()
                .success()
        );
        let found = discover(&place.home, embedded(&["a"]), None, false);
        assert_eq!(names(&found), pairs(&[("a", "embedded")]));
        let said: Vec<String> = found.broken.iter().map(ToString::to_string).collect();
        for (name, why) in [
            ("a", "not a WebAssembly component"),
            ("dir", "not a plain file"),
            ("link", "not a plain file"),
            ("other", "holds the capsule `b`"),
            ("pipe", "not a plain file"),
            ("shared", "mode 0620"),
        ] {
            assert!(
                said.iter().any(|line| line.starts_with(name) && line.contains(why)),
                "{name}: {said:?}"
            );
        }
        assert_eq!(said.len(), 6);
    }
}
