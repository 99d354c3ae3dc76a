//! Keeps a process from directories (Landlock).
//!
//! Landlock allows what is named and denies the rest, so to deny a few directories everything beside them is allowed: for each
//! directory that contains one of them all its other entries, as they are now. What comes into such a directory later is out of
//! reach, and nothing new can be made directly in it. Links are not followed when entries are named: one could lead to what is to be
//! kept.
//!
//! Listing directories and looking at files is not restricted, for hardly a program works without; nor are modes and owners, which
//! Landlock does not know. From Linux 6.12 on the process cannot signal anybody but what it has started.

#![allow(
    clippy::disallowed_methods,
    reason = "directories are listed to allow what is in them"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

/// Entries that are allowed one by one: each costs two system calls and kernel memory.
const RULES_MAX: usize = 10_000;

/// The newest version whose rights are known here: it can keep files from being cut, which is all that matters of the later ones.
const NEWEST: ABI = ABI::V3;

/// Why a process could not be restricted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("this system has no Landlock (Linux 5.13, enabled at boot); sandbox = \"none\" does without")]
    Missing,
    #[error("{} has too many entries to allow all others one by one (more than {RULES_MAX})", .0.display())]
    TooMany(PathBuf),
    #[error("cannot look into {}: {source}", .path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("Landlock refused: {0}")]
    Landlock(#[from] RulesetError),
}

/// Whether processes could be restricted here. Restricts nobody.
pub(super) fn is_there() -> bool {
    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1));
    asked.and_then(Ruleset::create).is_ok()
}

/// Keeps this process and all that it will start from these directories, which must exist.
pub(super) fn protect(directories: &[PathBuf]) -> Result<(), SandboxError> {
    let access = AccessFs::from_all(NEWEST) & !BitFlags::from(AccessFs::ReadDir);
    let first = AccessFs::from_all(ABI::V1) & !BitFlags::from(AccessFs::ReadDir);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(first)
        .map_err(|_| SandboxError::Missing)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(access)?
        .scope(Scope::Signal)?
        .create()?;
    let mut count = 0;
    for (directory, kept) in split(directories)? {
        rules = allow_beside(rules, &directory, &kept, access, &mut count)?;
    }
    match rules.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError::Missing),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// Directories that contain a protected one, each with the entries that must not be allowed as a whole.
fn split(directories: &[PathBuf]) -> Result<Vec<(PathBuf, BTreeSet<OsString>)>, SandboxError> {
    let mut found: Vec<(PathBuf, BTreeSet<OsString>)> = Vec::new();
    for path in directories {
        let look = |source| SandboxError::Look {
            path: path.clone(),
            source,
        };
        let real = fs::canonicalize(path).map_err(look)?;
        for step in real.ancestors() {
            let (Some(parent), Some(name)) = (step.parent(), step.file_name()) else {
                continue;
            };
            match found.iter_mut().find(|(directory, _)| directory == parent) {
                Some((_, kept)) => drop(kept.insert(name.to_owned())),
                None => found.push((parent.to_owned(), BTreeSet::from([name.to_owned()]))),
            }
        }
    }
    // A protected directory inside of a protected one is protected already, and nothing in it is allowed.
    let inside = |directory: &Path| {
        directories
            .iter()
            .any(|path| fs::canonicalize(path).is_ok_and(|path| directory.starts_with(path)))
    };
    found.retain(|(directory, _)| !inside(directory));
    Ok(found)
}

fn allow_beside(
    mut rules: RulesetCreated,
    directory: &Path,
    kept: &BTreeSet<OsString>,
    access: BitFlags<AccessFs>,
    count: &mut usize,
) -> Result<RulesetCreated, SandboxError> {
    let look = |source| SandboxError::Look {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(look)? {
        let entry = entry.map_err(look)?;
        if kept.contains(&entry.file_name()) {
            continue;
        }
        *count += 1;
        if *count > RULES_MAX {
            return Err(SandboxError::TooMany(directory.to_owned()));
        }
        if let Some((file, is_directory)) = opened(&entry.path()) {
            let of_file = AccessFs::from_file(NEWEST);
            let access = if is_directory { access } else { access & of_file };
            rules = rules.add_rule(PathBeneath::new(file, access))?;
        }
    }
    Ok(rules)
}

/// An entry as the name of a rule; none if it is a link, or is gone, or cannot be reached anyway.
fn opened(path: &Path) -> Option<(OwnedFd, bool)> {
    let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    match FileType::from_raw_mode(fstat(&file).ok()?.st_mode) {
        FileType::Symlink => None,
        kind => Some((file, kind == FileType::Directory)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A18: what contains a protected directory is opened up, and nothing of what is in one.
    #[test]
    fn every_way_down_is_split() {
        let place = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(place.path()).unwrap();
        for name in ["h/keys/inner", "h/run", "h/home"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("h"), root.join("link")).unwrap();
        let found = split(&[root.join("link/keys"), root.join("h/run"), root.join("h/keys/inner")]).unwrap();
        let of = |path: &Path| {
            found
                .iter()
                .find(|(directory, _)| directory == path)
                .map(|(_, kept)| kept)
        };
        assert_eq!(
            of(&root.join("h")).unwrap(),
            &BTreeSet::from(["keys".into(), "run".into()])
        );
        assert_eq!(of(&root).unwrap(), &BTreeSet::from(["h".into()]));
        assert!(of(Path::new("/")).is_some() && of(&root.join("h/keys")).is_none());
        assert!(matches!(split(&[root.join("none")]), Err(SandboxError::Look { .. })));
        assert!(opened(&root.join("link")).is_none());
    }
}
