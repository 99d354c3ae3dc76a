//! What a capsule asks for, checked and made complete: everything that can be refused is refused before it is recorded.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use astrid_wire::Principal;
use serde::{Deserialize, Serialize};

use super::held::Owner;
use super::mount::Seen;
use super::program::check_directory;
use super::sandbox::Sandbox;
use crate::keeper::protocol::{Limits, NOTES_BYTES_MAX};
use crate::ledger::Hold;
use crate::port::sink::Rotation;

/// Bytes of arguments and environment together at most. With the rest of the spec they fit a packet to the keeper.
pub const ARGUMENT_BYTES_MAX: usize = 96 << 10;

/// Arguments, and variables, at most each.
const STRINGS_MAX: usize = 4096;

/// Bytes of a tag at most.
pub const TAG_BYTES_MAX: usize = 255;

/// Bytes of the name of a log file at most: room is left for what rotation adds.
const LOG_NAME_BYTES_MAX: usize = 100;

/// Bytes of a log file: less would rotate at every line, more is no log.
const LOG_BYTES_MIN: u64 = 4 << 10;
const LOG_BYTES_MAX: u64 = 1 << 30;

/// Rotated files that are kept at most.
const LOG_KEEP_MAX: u32 = 1000;

/// Variables of the daemon that a child gets when nobody says otherwise.
const INHERITED: [&str; 7] = ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TZ", "USER"];

/// Where programs are looked for when the daemon has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Begins the names of variables that the kernel sets itself.
const RESERVED_VARIABLE: &str = "ASTRID_CHILD";

/// Bytes of a secret at least: a shorter one would blot out half of what is written.
const SECRET_BYTES_MIN: usize = 4;

/// The environment that every child begins with.
#[derive(Debug, Clone)]
pub struct BaseEnvironment(Vec<(String, String)>);

impl BaseEnvironment {
    /// From this process's own.
    #[must_use]
    pub fn of_this_process() -> Self {
        let said = |name: &str| std::env::var(name).ok().map(|value| (name.to_owned(), value));
        let mut all: Vec<(String, String)> = INHERITED.iter().filter_map(|name| said(name)).collect();
        if !all.iter().any(|(name, _)| name == "PATH") {
            all.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        Self(all)
    }

    /// With these in addition, or in their place.
    #[must_use]
    pub fn with(&self, own: &[(String, String)]) -> Vec<(String, String)> {
        let mut all = self.0.clone();
        for (name, value) in own {
            match all.iter_mut().find(|(present, _)| present == name) {
                Some((_, present)) => present.clone_from(value),
                None => all.push((name.clone(), value.clone())),
            }
        }
        all
    }
}

/// What is to be started: checked, and complete.
pub struct Launch {
    /// What its owner calls it.
    pub tag: String,
    /// Its arguments, without its name.
    pub args: Vec<String>,
    /// Its name, as it was asked for.
    pub name: String,
    /// All of its environment.
    pub env: Vec<(String, String)>,
    /// Values that must not be written to a file.
    pub secrets: Vec<String>,
    /// Where it works.
    pub cwd: PathBuf,
    /// Whether it has a standard input.
    pub input: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its standard output.
    pub stdout: Output,
    /// Its standard error, when that goes elsewhere.
    pub stderr: Option<Output>,
    /// What it may have.
    pub limits: Limits,
    /// What it is kept from.
    pub sandbox: Sandbox,
    /// The workspace that it sees.
    pub workspace: Option<Seen>,
    /// Whether what it stores counts for a limit of its principal.
    pub pays: bool,
    /// Whether it stays when the daemon goes.
    pub adopt: bool,
    /// Its place among the programs of its principal.
    pub hold: Hold,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and environment are where people put secrets.
        f.debug_struct("Launch").field("tag", &self.tag).finish_non_exhaustive()
    }
}

impl Launch {
    /// What the next daemon must know of it; nothing, when there will be none.
    pub(super) fn notes(&self, owner: &Owner) -> String {
        if !self.adopt {
            return String::new();
        }
        let notes = Notes {
            capsule: owner.capsule.to_string(),
            principal: owner.principal.clone(),
            tag: self.tag.clone(),
            secrets: self.secrets.clone(),
            stdout: self.stdout.clone(),
            stderr: self.stderr.clone(),
            terminal: self.terminal,
            unprotected: self.sandbox == Sandbox::None,
        };
        // Strings and numbers: it cannot fail.
        serde_json::to_string(&notes).unwrap_or_default()
    }

    /// Whether the keeper could keep what the next daemon must know of it.
    pub fn can_be_adopted(&self, owner: &Owner) -> bool {
        self.notes(owner).len() <= NOTES_BYTES_MAX
    }

    /// Whether its output goes to that file.
    pub fn writes_log(&self, path: &Path) -> bool {
        let outputs = std::iter::once(&self.stdout).chain(&self.stderr);
        outputs
            .filter_map(|output| output.file.as_ref())
            .any(|file| file.path == path)
    }
}

/// What the next daemon must know of an adopted child: kept by the keeper as it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Notes {
    pub(super) capsule: String,
    pub(super) principal: Principal,
    pub(super) tag: String,
    pub(super) secrets: Vec<String>,
    pub(super) stdout: Output,
    pub(super) stderr: Option<Output>,
    pub(super) terminal: bool,
    pub(super) unprotected: bool,
}

/// Where a stream of output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Appended to this file.
    pub file: Option<LogFile>,
    /// Told to the owner.
    pub messages: bool,
}

impl Output {
    /// Whether it goes anywhere.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.file.is_some() || self.messages
    }
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Where.
    pub path: PathBuf,
    /// When it is rotated, and what is kept.
    pub rotation: Rotation,
}

/// Whether that may be a log file's name: one segment of a path, and not hidden.
#[must_use]
pub fn is_log_name(name: &str) -> bool {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    plain && !name.is_empty() && !name.starts_with('.') && name.len() <= LOG_NAME_BYTES_MAX
}

/// That a log file is within the limits.
///
/// # Errors
/// Names what is not.
pub fn check_log(name: &str, rotation: &Rotation) -> Result<(), String> {
    if !is_log_name(name) {
        return Err(format!("log file `{}`: not a name of a log file", name.escape_debug()));
    }
    if !(LOG_BYTES_MIN..=LOG_BYTES_MAX).contains(&rotation.bytes_max) {
        return Err(format!(
            "log file {name}: bytes-max is {}, which is outside {LOG_BYTES_MIN} to {LOG_BYTES_MAX}",
            rotation.bytes_max
        ));
    }
    if rotation.keep > LOG_KEEP_MAX {
        return Err(format!("log file {name}: at most {LOG_KEEP_MAX} files are kept"));
    }
    Ok(())
}

/// Why a spec is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A part of it is not valid; names it.
    #[error("{0}")]
    Invalid(String),
    /// The working directory.
    #[error("{0}")]
    NoDirectory(String),
}

/// The strings of a spec, checked.
///
/// # Errors
/// [`LaunchError`] names the part.
pub fn check_strings(tag: &str, args: &[String], env: &[(String, String)]) -> Result<(), LaunchError> {
    let invalid = |what: String| Err(LaunchError::Invalid(what));
    if tag.len() > TAG_BYTES_MAX {
        return invalid(format!("tag: longer than {TAG_BYTES_MAX} bytes"));
    }
    if args.len() > STRINGS_MAX || env.len() > STRINGS_MAX {
        return invalid(format!("args and env: at most {STRINGS_MAX} of each"));
    }
    let bytes: usize =
        args.iter().map(|a| a.len() + 1).sum::<usize>() + env.iter().map(|(n, v)| n.len() + v.len() + 2).sum::<usize>();
    if bytes > ARGUMENT_BYTES_MAX {
        return invalid(format!(
            "args and env: {bytes} bytes, the limit is {ARGUMENT_BYTES_MAX} together"
        ));
    }
    if let Some(n) = args.iter().position(|arg| arg.contains('\0')) {
        return invalid(format!("args[{n}]: contains a zero byte"));
    }
    let mut names = BTreeSet::new();
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return invalid(format!("env: `{}` cannot be a variable", name.escape_debug()));
        }
        if name.starts_with(RESERVED_VARIABLE) {
            return invalid(format!("env: {name} is set by the daemon"));
        }
        if !names.insert(name) {
            return invalid(format!("env: {name} is there twice"));
        }
    }
    Ok(())
}

/// The values that must not be written to a file.
///
/// # Errors
/// A name that is not in `env`, or a value that is too short to be blotted out.
pub fn secret_values(secrets: &[String], env: &[(String, String)]) -> Result<Vec<String>, LaunchError> {
    secrets
        .iter()
        .map(|secret| match env.iter().find(|(name, _)| name == secret) {
            None => Err(LaunchError::Invalid(format!(
                "secrets: `{}` is not in env",
                secret.escape_debug()
            ))),
            Some((_, value)) if value.len() < SECRET_BYTES_MIN => Err(LaunchError::Invalid(format!(
                "secrets: the value of {secret} has fewer than {SECRET_BYTES_MIN} bytes"
            ))),
            Some((_, value)) => Ok(value.clone()),
        })
        .collect()
}

/// The working directory, checked; when none is said `place`, or `/`.
///
/// # Errors
/// [`LaunchError::NoDirectory`].
pub fn working_directory(cwd: Option<String>, place: Option<PathBuf>) -> Result<PathBuf, LaunchError> {
    let Some(cwd) = cwd else {
        return Ok(place.unwrap_or_else(|| PathBuf::from("/")));
    };
    check_directory(&cwd).map_err(LaunchError::NoDirectory)?;
    Ok(cwd.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_environment_is_what_was_said_on_top_of_little() {
        let base = BaseEnvironment(env(&[("PATH", "/bin"), ("HOME", "/root")]));
        let all = base.with(&env(&[("HOME", "/srv"), ("PORT", "80")]));
        assert_eq!(all, env(&[("PATH", "/bin"), ("HOME", "/srv"), ("PORT", "80")]));
    }

    #[test]
    fn hostile_strings_are_refused_by_name() {
        let refused = |args: &[&str], pairs: &[(&str, &str)]| {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            check_strings("t", &args, &env(pairs)).unwrap_err().to_string()
        };
        assert!(refused(&["a", "b\0"], &[]).starts_with("args[1]"));
        assert!(refused(&[], &[("A=B", "")]).contains("A=B"));
        assert!(refused(&[], &[("", "")]).contains("cannot be"));
        assert!(refused(&[], &[("ASTRID_CHILD", "x")]).contains("set by the daemon"));
        assert!(refused(&[], &[("A", "1"), ("A", "2")]).contains("twice"));
        assert!(refused(&[&"x".repeat(ARGUMENT_BYTES_MAX)], &[]).contains("bytes"));
        assert!(check_strings(&"t".repeat(256), &[], &[]).is_err());
        check_strings("t", &["-x".into()], &env(&[("A", "1")])).unwrap();
    }

    #[test]
    fn names_of_log_files_are_one_segment() {
        for name in ["web-0.out.log", "A_b"] {
            assert!(is_log_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "a\n", &"x".repeat(101)] {
            assert!(!is_log_name(name), "{name:?}");
        }
    }

    #[test]
    fn secrets_are_values_of_the_environment() {
        let pairs = env(&[("KEY", "hunter22"), ("PIN", "12")]);
        assert_eq!(secret_values(&["KEY".into()], &pairs).unwrap(), ["hunter22"]);
        assert!(secret_values(&["PIN".into()], &pairs).is_err());
        assert!(secret_values(&["NOPE".into()], &pairs).is_err());
    }
}
