//! Which file a name stands for: found, opened and looked at before the gate decides.
//!
//! The opened file is held until the child runs, so that its number cannot be given to another one; the launcher compares that
//! number with what the path leads to when it executes it. It executes the path and not the descriptor, or scripts would be
//! told a path of `/proc`, and a process list would show a number for a name.
//!
//! What lies in a workspace is looked at by the launcher, who sees it: nobody else has to be able to. It is run as it is then, if no link leads
//! to it.

#![allow(clippy::disallowed_methods, reason = "looks for programs, opens none for reading")]

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::mount::Seen;
use super::sandbox::WORKSPACE;

/// Names the daemon's own program.
pub const OWN_PROGRAM: &str = "@astrid";

/// Directories of a `PATH` that are looked at, at most.
const DIRECTORIES_MAX: usize = 256;

/// A program that was found.
#[derive(Debug)]
pub struct Program {
    /// Where.
    pub path: PathBuf,
    /// Number of its file system.
    pub device: u64,
    /// Number of its file.
    pub inode: u64,
    /// Keeps that number its own; none for one in a workspace.
    pub(super) _file: Option<OwnedFd>,
    /// The workspace that it lies in, as its child sees it: what is there when that starts is run.
    pub within: Option<PathBuf>,
}

/// Why a name stands for no program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Nothing is there.
    #[error("{0}")]
    NotFound(String),
    /// Something is there that may not be executed.
    #[error("{0}")]
    NotExecutable(String),
    /// Not a name of a program at all.
    #[error("program: {0}")]
    Invalid(String),
}

/// What is at a path.
enum Found {
    Program(Program),
    Nothing(Errno),
    Unfit(&'static str),
}

impl Program {
    /// Finds a program: `own` for [`OWN_PROGRAM`], an absolute path as it is, a name in the directories of `path`.
    ///
    /// # Errors
    /// [`ProgramError`] names where it was looked for.
    pub fn find(name: &str, path: &str, own: &Path) -> Result<Self, ProgramError> {
        if name.is_empty() || name.contains('\0') {
            return Err(ProgramError::Invalid("empty, or with a zero byte".to_owned()));
        }
        if name == OWN_PROGRAM {
            return Self::at(own).ok_or_missing(&own.display().to_string());
        }
        if name.starts_with('/') {
            return Self::at(Path::new(name)).ok_or_missing(name);
        }
        if name.contains('/') {
            return Err(ProgramError::Invalid(format!(
                "{name} is neither an absolute path nor a name without a slash"
            )));
        }
        let mut unfit = None;
        // A relative directory would depend on where the daemon is.
        let directories = path.split(':').filter(|d| d.starts_with('/'));
        for directory in directories.take(DIRECTORIES_MAX) {
            let candidate = Path::new(directory).join(name);
            match Self::at(&candidate) {
                Found::Program(program) => return Ok(program),
                Found::Unfit(why) => unfit = unfit.or(Some(format!("{}: {why}", candidate.display()))),
                Found::Nothing(_) => {}
            }
        }
        Err(match unfit {
            Some(why) => ProgramError::NotExecutable(why),
            None => ProgramError::NotFound(format!("{name} is in no directory of PATH ({path})")),
        })
    }

    /// One that lies in the workspace that its child sees, if the name is of such a one: `workspace://` and a path in it, or a path below the
    /// directory that the workspace is of. With it, by which name the gate decides: that of the directory.
    ///
    /// # Errors
    /// [`ProgramError::Invalid`]: it is no path within.
    pub fn in_workspace(name: &str, seen: &Seen) -> Result<Option<(Self, String)>, ProgramError> {
        let below = match name.strip_prefix(WORKSPACE) {
            Some(below) => Path::new(below),
            None => match Path::new(name).strip_prefix(seen.lower()) {
                Ok(below) => below,
                Err(_) => return Ok(None),
            },
        };
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || below.as_os_str().is_empty() || name.contains('\0') {
            return Err(ProgramError::Invalid(format!("{name} is no path within the workspace")));
        }
        let program = Self {
            path: seen.place().join(below),
            device: 0,
            inode: 0,
            _file: None,
            within: Some(seen.place().to_owned()),
        };
        Ok(Some((program, seen.lower().join(below).display().to_string())))
    }

    fn at(path: &Path) -> Found {
        let file = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(error) => return Found::Nothing(error),
        };
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(error) => return Found::Nothing(error),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Found::Unfit("it is not a file");
        }
        if rustix::fs::access(path, Access::EXEC_OK).is_err() {
            return Found::Unfit("it may not be executed");
        }
        Found::Program(Self {
            path: path.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
            _file: Some(file),
            within: None,
        })
    }
}

impl Found {
    fn ok_or_missing(self, name: &str) -> Result<Program, ProgramError> {
        match self {
            Self::Program(program) => Ok(program),
            Self::Unfit(why) => Err(ProgramError::NotExecutable(format!("{name}: {why}"))),
            Self::Nothing(Errno::ACCESS) => Err(ProgramError::NotExecutable(format!("{name}: it cannot be reached"))),
            Self::Nothing(Errno::NOENT | Errno::NOTDIR) => Err(ProgramError::NotFound(name.to_owned())),
            Self::Nothing(error) => Err(ProgramError::NotFound(format!("{name}: {error}"))),
        }
    }
}

/// That a path is a directory which can be entered.
///
/// # Errors
/// Names it, and says why not.
pub fn check_directory(path: &str) -> Result<(), String> {
    let directory = Path::new(path);
    if !directory.is_absolute() || directory.as_os_str().as_bytes().contains(&0) {
        return Err(format!("{path} is not an absolute path"));
    }
    match rustix::fs::stat(directory) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            Err(format!("{path} is not a directory"))
        }
        Ok(_) if rustix::fs::access(directory, Access::EXEC_OK).is_err() => Err(format!("{path} cannot be entered")),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_and_paths() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().to_str().unwrap();
        let own = Path::new("/bin/true");
        let put = |name: &str, mode: u32| {
            let path = directory.path().join(name);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put("runs", 0o755);
        put("does-not", 0o644);
        let path = format!("relative::{here}/nowhere:{here}:/bin");
        let found = |name: &str| Program::find(name, &path, own).map(|p| p.path);
        assert_eq!(found("runs").unwrap(), directory.path().join("runs"));
        assert_eq!(found("@astrid").unwrap(), own);
        assert_eq!(found("/bin/true").unwrap(), own);
        assert!(matches!(found("does-not"), Err(ProgramError::NotExecutable(_))));
        assert!(matches!(found(here), Err(ProgramError::NotExecutable(_))));
        for name in ["no-such-program", "/no/such/program", "/bin/true/x"] {
            assert!(matches!(found(name), Err(ProgramError::NotFound(_))), "{name}");
        }
        for name in ["", "./runs", "a\0b"] {
            assert!(matches!(found(name), Err(ProgramError::Invalid(_))), "{name:?}");
        }
        check_directory(here).unwrap();
        for path in ["", "relative", "/no/such", &format!("{here}/runs")] {
            assert!(check_directory(path).is_err(), "{path:?}");
        }
    }
}
