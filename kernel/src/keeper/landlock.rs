//! Keeps a process to paths (Landlock).
//!
//! Landlock allows what is named and denies the rest, so to deny a few directories everything beside them is allowed: for each
//! directory that contains one of them all its other entries, as they are now. What comes into such a directory later is out of
//! reach, and nothing new can be made directly in it; nor is what is in one that cannot be listed. Links are not followed when entries are named: one could lead to what is to be
//! kept.
//!
//! A path that is given to read or to write is followed to where it leads, and split in the same way if it contains what is kept.
//!
//! Looking at files is not restricted, for hardly a program works without; nor are modes and owners, which Landlock does not know.
//! Listing directories is restricted where there is a list of what may be read. From Linux 6.12 on the process cannot signal anybody
//! but what it has started.

#![allow(
    clippy::disallowed_methods,
    reason = "directories are listed to allow what is in them"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::fs::{Access, FileType, Mode, OFlags, fstat, open};

use super::confine::{Confined, Network};
use super::own::{Opened, PLACES};
use super::system;

/// Entries that are allowed one by one: each costs two system calls and kernel memory.
const RULES_MAX: usize = 10_000;

/// The version that keeps a file from being cut.
const TRUNCATE: ABI = ABI::V3;

/// The newest version whose rights to files are known here: commands to devices.
const NEWEST: ABI = ABI::V5;

/// The version that knows signals and sockets without a path.
const SCOPES: ABI = ABI::V6;

/// Why a process could not be restricted.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("this system has no Landlock (Linux 5.13, enabled at boot); sandbox = \"none\" does without")]
    Missing,
    #[error("{} has too many entries to allow all others one by one (more than {RULES_MAX})", .0.display())]
    TooMany(PathBuf),
    #[error("cannot look into {}: {source}", .path.display())]
    Look { path: PathBuf, source: io::Error },
    #[error("{} is in the daemon's home, which is kept from every program", .0.display())]
    Kept(PathBuf),
    #[error("Landlock refused: {0}")]
    Landlock(#[from] RulesetError),
}

/// Which version of Landlock is here, as far as versions are known here; 0 is none. Restricts nobody.
pub(super) fn version() -> u8 {
    let hard = || Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    let files = |version| hard().handle_access(AccessFs::from_all(version));
    let versions = [ABI::V1, ABI::V2, ABI::V3, ABI::V4, NEWEST, SCOPES];
    let there = versions.iter().take_while(|version| {
        let asked = match version {
            ABI::V4 => hard().handle_access(AccessNet::from_all(ABI::V4)),
            ABI::V6 => hard().scope(Scope::from_all(SCOPES)),
            version => files(**version),
        };
        asked.and_then(Ruleset::create).is_ok()
    });
    there.last().map_or(0, |version| *version as u8)
}

/// What of it this system's Landlock is too old for.
pub(super) fn too_old_for(confined: &Confined) -> Vec<String> {
    let here = version();
    let mut lacking = Vec::new();
    let mut needs = |version: ABI, what: &str, linux: &str| {
        if here < version as u8 {
            let needed = version as u8;
            lacking.push(format!(
                "{what}: Landlock is of version {here} here, that needs {needed} (Linux {linux})"
            ));
        }
    };
    if confined.write.is_some() {
        needs(TRUNCATE, "files that it may not write are not cut", "6.2");
    }
    needs(SCOPES, "others of its user are not signalled", "6.12");
    if matches!(confined.network, Network::Full) {
        needs(SCOPES, "sockets without a path are not connected to", "6.12");
    }
    lacking
}

/// Keeps this process and all that it will start from these directories, which must exist, but for `given` in one of them.
pub(super) fn protect(directories: &[PathBuf], given: Option<&Path>) -> Result<(), SandboxError> {
    let rights = AccessFs::from_all(TRUNCATE) & !BitFlags::from(AccessFs::ReadDir);
    let mut rules = Rules::new((directories, given), rights, Scope::Signal.into())?;
    rules.allow(Path::new("/"), rights)?;
    rules.apply()
}

/// Its own `/tmp` and `/dev/shm`, with what of the given is in them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) given: &'a [Opened],
}

impl Own<'_> {
    /// Whether a path is in one of them; an error if it is, and nothing is there.
    fn has(&self, path: &Path) -> Result<bool, SandboxError> {
        let is_below = PLACES.iter().any(|own| path.starts_with(own));
        let is_there = PLACES.iter().any(|own| path == Path::new(own)) || self.given.iter().any(|one| one.path == path);
        match is_below && !is_there {
            true => Err(SandboxError::Look {
                path: path.to_owned(),
                source: io::ErrorKind::NotFound.into(),
            }),
            false => Ok(is_below),
        }
    }
}

/// As [`protect`], and to what it may read and write. `program` it may read and execute in any case. What it has for itself alone
/// it may change as a whole: what of it is only to be read is mounted so.
pub(super) fn confine(
    (directories, given): (&[PathBuf], Option<&Path>),
    confined: &Confined,
    own: Option<Own<'_>>,
    program: &File,
) -> Result<(), SandboxError> {
    // New devices are nothing that a file is.
    let all = AccessFs::from_all(NEWEST);
    let made = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let looked_at = if confined.read.is_some() {
        all
    } else {
        all & !BitFlags::from(AccessFs::ReadDir)
    };
    let reading = AccessFs::from_read(NEWEST) & looked_at;
    let scopes = Scope::AbstractUnixSocket | Scope::Signal;
    let mut rules = Rules::new((directories, given), looked_at, scopes)?;
    let allow = |rules: &mut Rules, paths: &[PathBuf], access| -> Result<(), SandboxError> {
        for path in paths {
            if !own.map_or(Ok(false), |own| own.has(path))? {
                rules.allow(path, access)?;
            }
        }
        Ok(())
    };
    match &confined.read {
        None => rules.allow(Path::new("/"), reading)?,
        Some(paths) => {
            allow(&mut rules, paths, reading)?;
            for path in system::READ {
                rules.allow_if_there(Path::new(path), reading)?;
            }
            rules.allow_program(program, reading)?;
        }
    }
    let writing = made & looked_at;
    match &confined.write {
        None => rules.allow(Path::new("/"), writing)?,
        Some(paths) => {
            allow(&mut rules, paths, writing)?;
            let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::Truncate;
            for path in system::DEVICES {
                rules.allow_if_there(Path::new(path), device | AccessFs::ReadDir)?;
            }
        }
    }
    if confined.tmp.is_some() {
        for path in PLACES {
            match own {
                // Made for it alone, also where it comes from the daemon's home.
                Some(_) => rules.allow_whatever(Path::new(path), writing)?,
                // Everybody's, and the daemon's home may be in it.
                None => rules.allow_if_there(Path::new(path), writing)?,
            }
        }
    }
    rules.apply()
}

/// Rules in the making.
struct Rules {
    /// What is kept, resolved.
    kept: Vec<PathBuf>,
    /// What of it is not, if it is allowed.
    given: Option<PathBuf>,
    rights: BitFlags<AccessFs>,
    made: Option<RulesetCreated>,
    count: usize,
}

impl Rules {
    fn new(
        (kept, given): (&[PathBuf], Option<&Path>),
        rights: BitFlags<AccessFs>,
        scopes: BitFlags<Scope>,
    ) -> Result<Self, SandboxError> {
        let kept = kept.iter().map(|path| {
            fs::canonicalize(path).map_err(|source| SandboxError::Look {
                path: path.clone(),
                source,
            })
        });
        let kept = kept.collect::<Result<_, _>>()?;
        let first = AccessFs::from_all(ABI::V1) & rights;
        let made = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(first)
            .map_err(|_| SandboxError::Missing)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(rights)?
            .scope(scopes)?
            .create()?;
        Ok(Self {
            kept,
            given: given.map(Path::to_owned),
            rights,
            made: Some(made),
            count: 0,
        })
    }

    /// A path and all below it, but what is kept.
    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        if let Some(given) = self.given.clone()
            && given.starts_with(path)
        {
            self.allow_whatever(&given, access)?;
            if given == path {
                return Ok(());
            }
        }
        let look = |source: io::Error| SandboxError::Look {
            path: path.to_owned(),
            source,
        };
        let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|error| look(error.into()))?;
        // Where it has led, which nobody can change any more.
        let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(look)?;
        if self.kept.iter().any(|kept| real.starts_with(kept)) {
            return Err(SandboxError::Kept(path.to_owned()));
        }
        let splits = split(&self.kept, &real);
        if splits.is_empty() {
            return self.add(file, access, path);
        }
        for (directory, kept) in splits {
            self.allow_beside(&directory, &kept, access)?;
        }
        Ok(())
    }

    /// A program, and what runs it if it is a script; neither is a directory, and neither is looked for twice.
    fn allow_program(&mut self, program: &File, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        let interpreter = system::interpreter(program);
        let interpreter = interpreter.and_then(|path| open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok());
        let files = program.as_fd().try_clone_to_owned().into_iter().chain(interpreter);
        for file in files {
            let number = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            let is_file = fstat(&file).is_ok_and(|stat| is(stat.st_mode, FileType::RegularFile));
            let runs = rustix::fs::access(&number, Access::EXEC_OK).is_ok();
            let is_kept =
                fs::read_link(&number).map_or(true, |real| self.kept.iter().any(|kept| real.starts_with(kept)));
            if is_file && runs && !is_kept {
                self.add(file, access, &number)?;
            }
        }
        Ok(())
    }

    fn allow_if_there(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        match self.allow(path, access) {
            Err(SandboxError::Look { .. } | SandboxError::Kept(_)) => Ok(()),
            done => done,
        }
    }

    /// A path, also if it is in what is kept.
    fn allow_whatever(&mut self, path: &Path, access: BitFlags<AccessFs>) -> Result<(), SandboxError> {
        match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => self.add(file, access, path),
            Err(_) => Ok(()),
        }
    }

    fn allow_beside(
        &mut self,
        directory: &Path,
        kept: &BTreeSet<OsString>,
        access: BitFlags<AccessFs>,
    ) -> Result<(), SandboxError> {
        let look = |source| SandboxError::Look {
            path: directory.to_owned(),
            source,
        };
        let entries = match fs::read_dir(directory) {
            // What is in it cannot be named, and is out of reach.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            entries => entries.map_err(look)?,
        };
        for entry in entries {
            let entry = entry.map_err(look)?;
            if kept.contains(&entry.file_name()) {
                continue;
            }
            if let Some(file) = opened(&entry.path()) {
                self.add(file, access, directory)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, file: OwnedFd, access: BitFlags<AccessFs>, of: &Path) -> Result<(), SandboxError> {
        self.count += 1;
        if self.count > RULES_MAX {
            return Err(SandboxError::TooMany(of.to_owned()));
        }
        let is_directory = fstat(&file).is_ok_and(|stat| is(stat.st_mode, FileType::Directory));
        let of_file = AccessFs::from_file(NEWEST);
        let access = if is_directory { access } else { access & of_file };
        if let Some(made) = self.made.take() {
            self.made = Some(made.add_rule(PathBeneath::new(file, access & self.rights))?);
        }
        Ok(())
    }

    fn apply(self) -> Result<(), SandboxError> {
        let status = self.made.ok_or(SandboxError::Missing)?.restrict_self()?.ruleset;
        match status {
            RulesetStatus::NotEnforced => Err(SandboxError::Missing),
            RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
        }
    }
}

fn is(mode: u32, kind: FileType) -> bool {
    FileType::from_raw_mode(mode) == kind
}

/// Directories from `below` down that contain one that is kept, each with the entries that must not be allowed as a whole.
fn split(kept: &[PathBuf], below: &Path) -> Vec<(PathBuf, BTreeSet<OsString>)> {
    let mut found: Vec<(PathBuf, BTreeSet<OsString>)> = Vec::new();
    for real in kept {
        for step in real.ancestors() {
            let (Some(parent), Some(name)) = (step.parent(), step.file_name()) else {
                continue;
            };
            // What is in a directory that is kept is kept with it.
            if !parent.starts_with(below) || kept.iter().any(|kept| parent.starts_with(kept)) {
                continue;
            }
            match found.iter_mut().find(|(directory, _)| directory == parent) {
                Some((_, names)) => drop(names.insert(name.to_owned())),
                None => found.push((parent.to_owned(), BTreeSet::from([name.to_owned()]))),
            }
        }
    }
    found
}

/// An entry as the name of a rule; none if it is a link, or is gone, or cannot be reached anyway.
fn opened(path: &Path) -> Option<OwnedFd> {
    let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let link = is(fstat(&file).ok()?.st_mode, FileType::Symlink);
    (!link).then_some(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A18: what contains a protected directory is opened up, and nothing of what is in one.
    #[test]
    fn every_way_down_is_split() {
        let kept: Vec<PathBuf> = ["/r/h/keys", "/r/h/run", "/r/h/keys/inner"].map(PathBuf::from).into();
        let of = |below: &str, path: &str| {
            let found = split(&kept, Path::new(below));
            let mut found = found.into_iter().filter(|(directory, _)| directory == Path::new(path));
            found.next().map(|(_, kept)| kept)
        };
        assert_eq!(of("/", "/r/h").unwrap(), BTreeSet::from(["keys".into(), "run".into()]));
        assert_eq!(of("/", "/r").unwrap(), BTreeSet::from(["h".into()]));
        assert!(of("/", "/").is_some() && of("/", "/r/h/keys").is_none());
        assert!(of("/r/h", "/r/h").is_some() && of("/r/h", "/r").is_none());
        assert!(split(&kept, Path::new("/r/other")).is_empty());
    }

    /// A18: a script brings what runs it, if that is a program; not a directory, nor what is kept.
    #[test]
    fn a_line_of_a_script_gives_no_directory() {
        let place = tempfile::tempdir().unwrap();
        let kept = place.path().join("kept");
        let script = place.path().join("script");
        fs::create_dir(&kept).unwrap();
        fs::copy("/bin/sh", kept.join("sh")).unwrap();
        let rights = AccessFs::from_read(ABI::V1);
        for (line, count) in [
            ("#!/bin/sh".to_owned(), 2),
            ("#!/usr".to_owned(), 1),
            ("#!/etc/passwd".to_owned(), 1),
            (format!("#!{}", kept.join("sh").display()), 1),
            ("#!/nonexistent".to_owned(), 1),
        ] {
            fs::write(&script, &line).unwrap();
            fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let mut rules = Rules::new((std::slice::from_ref(&kept), None), rights, Scope::Signal.into()).unwrap();
            rules.allow_program(&File::open(&script).unwrap(), rights).unwrap();
            assert_eq!(rules.count, count, "{line}");
        }
    }

    /// A18: what is asked of an older system than it needs is named, with the version that has it.
    #[test]
    fn an_old_landlock_is_named() {
        let lacking = too_old_for(&Confined::default());
        assert_eq!(lacking.is_empty(), version() >= SCOPES as u8, "{lacking:?}");
        let place = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(place.path(), place.path().join("link")).unwrap();
        assert!(opened(&place.path().join("link")).is_none());
    }
}
