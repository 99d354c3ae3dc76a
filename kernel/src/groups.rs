//! Who belongs where, as far as boot needs it (K3): `etc/groups.toml` is well-formed, and the `default` principal has
//! a profile.
//!
//! The built-in groups `admin`, `agent` and `restricted` cannot be redefined, and `*` is granted only by a group that
//! says `unsafe_admin`. A file that says otherwise, or that cannot be understood, keeps the daemon from starting:
//! with a part of the groups, it would decide wrongly.
//!
//! Deliberately absent: decisions. Nothing consults groups or profiles yet; what a capsule may do follows from its
//! manifest. The files are checked and seeded all the same, so that what an operator writes now is not found wrong
//! later.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use astrid_wire::manifest::ManifestError;
use serde::Deserialize;
use serde::de::Error as _;

use crate::config::place;
use crate::home::{self, Durability, Home, HomeError, PRIVATE_FILE};

/// Groups that always exist and are what they are.
const BUILT_IN: [&str; 3] = ["admin", "agent", "restricted"];

/// The grant of everything.
const EVERYTHING: &str = "*";

/// Most groups; people keep them in their heads.
const GROUPS_MAX: usize = 256;

/// Most bytes of a group's name, and of a grant.
const NAME_BYTES_MAX: usize = 64;
const GRANT_BYTES_MAX: usize = 255;

/// What the `default` principal's profile says at first.
const DEFAULT_PROFILE: &str = "\
# The principal of whoever runs this daemon. Written once; from then on this file is yours.
groups = [\"admin\"]
";

/// Why the daemon does not start. The operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// A file cannot be read, or could be written by others.
    #[error(transparent)]
    File(#[from] HomeError),
    /// What is in it is wrong; says where.
    #[error("{}", place(.0))]
    Content(ManifestError),
    /// The profile cannot be written.
    #[error("cannot write {}", .path.display())]
    Seed {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl GroupsError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            GroupsError::File(error) => Some(error.hint()),
            GroupsError::Content(error) => error.hint().map(str::to_owned),
            GroupsError::Seed { path, .. } => Some(format!("see that {} can be written", path.display())),
        }
    }
}

/// `etc/groups.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupsFile {
    /// `[group.NAME]`
    #[serde(default)]
    group: BTreeMap<String, Group>,
}

/// A group of the operator's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// What its members may do.
    grants: BTreeSet<String>,
    /// Said by who means it when `grants` has `*`.
    #[serde(default)]
    unsafe_admin: bool,
}

/// Checks the operator's groups, and seeds the `default` principal once in a home's life.
///
/// # Errors
///
/// [`GroupsError`]; never for a missing file.
pub fn prepare(home: &Home) -> Result<(), GroupsError> {
    let path = home.groups_file();
    if let Some(text) = home::read_operators_file(&path)? {
        check(&text, &path.display().to_string())?;
    }
    seed(home)
}

fn check(text: &str, origin: &str) -> Result<(), GroupsError> {
    let wrong = |error: toml::de::Error| GroupsError::Content(ManifestError::from_toml(text, origin, &error));
    let file: GroupsFile = toml::from_str(text).map_err(wrong)?;
    let refuse = |why: String| Err(wrong(toml::de::Error::custom(why)));
    if file.group.len() > GROUPS_MAX {
        return refuse(format!(
            "there are {} groups, the limit is {GROUPS_MAX}",
            file.group.len()
        ));
    }
    for (name, group) in &file.group {
        if BUILT_IN.contains(&name.as_str()) {
            return refuse(format!("the group `{name}` is built in and cannot be redefined"));
        }
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(plain) {
            return refuse(format!(
                "{name:?} is not the name of a group: 1 to {NAME_BYTES_MAX} of a-z, 0-9, `.`, `_` and `-`"
            ));
        }
        let visible = |c: char| c.is_ascii_graphic();
        if let Some(grant) = group
            .grants
            .iter()
            .find(|g| g.is_empty() || g.len() > GRANT_BYTES_MAX || !g.chars().all(visible))
        {
            return refuse(format!(
                "the group `{name}` grants {grant:?}, which is not a capability"
            ));
        }
        if group.grants.contains(EVERYTHING) != group.unsafe_admin {
            return refuse(format!(
                "the group `{name}`: `*` in grants and `unsafe_admin = true` go together, or not at all"
            ));
        }
    }
    Ok(())
}

/// Writes the profile of `default` if that was never done. What an operator made of it, deleting included, stays.
fn seed(home: &Home) -> Result<(), GroupsError> {
    let (profile, seeded) = (
        home.profiles_dir().join("default.toml"),
        home.profiles_dir().join(".seeded"),
    );
    if seeded.symlink_metadata().is_ok() {
        return Ok(());
    }
    let write = |path: PathBuf, text: &str| {
        home::replace_file(&path, &[text.as_bytes()], PRIVATE_FILE, Durability::Synced)
            .map_err(|source| GroupsError::Seed { path, source })
    };
    if profile.symlink_metadata().is_err() {
        write(profile, DEFAULT_PROFILE)?;
    }
    write(seeded, "default.toml was written once and will not be again\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use std::fs;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        (directory, home)
    }

    /// K3: seeded once, never touching operator edits.
    #[test]
    fn the_default_principal_is_seeded_once() {
        let (_directory, home) = home();
        let profile = home.profiles_dir().join("default.toml");
        prepare(&home).unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), DEFAULT_PROFILE);
        fs::write(&profile, "groups = []\n").unwrap();
        prepare(&home).unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), "groups = []\n");
        fs::remove_file(&profile).unwrap();
        prepare(&home).unwrap();
        assert!(!profile.exists(), "the operator took it away");
    }

    #[test]
    fn a_profile_that_was_there_before_the_first_boot_stays() {
        let (_directory, home) = home();
        let profile = home.profiles_dir().join("default.toml");
        fs::write(&profile, "").unwrap();
        prepare(&home).unwrap();
        assert_eq!(fs::read_to_string(&profile).unwrap(), "");
    }

    /// K3, K7: malformed, or redefining what is built in: refuse to boot.
    #[test]
    fn a_wrong_file_keeps_the_daemon_from_starting() {
        for (text, expected) in [
            ("[group.ops]\ngrants = [\"a:b\", \"c\"]\n", None),
            ("[group.root]\ngrants = [\"*\"]\nunsafe_admin = true\n", None),
            ("", None),
            ("[group.admin]\ngrants = []\n", Some("`admin` is built in")),
            ("[group.root]\ngrants = [\"*\"]\n", Some("go together")),
            (
                "[group.root]\ngrants = [\"a\"]\nunsafe_admin = true\n",
                Some("go together"),
            ),
            (
                "[group.ops]\ngrant = []\n",
                Some("groups.toml:2:1: unknown key `grant`"),
            ),
            (
                "[groups.ops]\ngrants = []\n",
                Some("groups.toml:1:2: unknown key `groups`"),
            ),
            ("[group.\"O P\"]\ngrants = []\n", Some("not the name of a group")),
            ("[group.ops]\ngrants = [\"a b\"]\n", Some("not a capability")),
            ("[group.ops]\n", Some("missing field `grants`")),
            ("[group", Some("groups.toml:1:")),
        ] {
            let (_directory, home) = home();
            fs::write(home.groups_file(), text).unwrap();
            match (prepare(&home), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{text:?}: {error}"),
                (outcome, _) => panic!("{text:?}: {outcome:?}"),
            }
        }
    }
}
