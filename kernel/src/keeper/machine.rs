//! What this machine can do for programs that are kept from something, found out by doing it.
//!
//! What a process enters it does not leave, so each thing is tried by a process of its own: this program once more, which says
//! what went wrong and ends. What is told besides is what follows for whoever wants it.

#![allow(
    clippy::disallowed_methods,
    reason = "tries what is done with files, in a directory made for that"
)]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, mknodat, openat2};
use serde::Serialize;

use super::cgroup::{self, Groups};
use super::confine::Network;
use super::namespaces::{self, Layers};
use super::{landlock, own, seccomp};

/// The argument that makes this program one that tries something: what, and a directory for it.
pub const MACHINE_ARGUMENT: &str = "__machine";

/// What of Landlock came with which version, and what is not kept without it.
const LANDLOCK: [(u8, &str); 4] = [
    (2, "files are not moved from one directory to another"),
    (
        3,
        "sandboxes with `write` need best_effort: files could be cut (Linux 6.2)",
    ),
    (5, "commands to devices are not restricted (Linux 6.10)"),
    (
        6,
        "confined sandboxes need best_effort: others could be signalled, and sockets without a path reached (Linux 6.12)",
    ),
];

/// Where the system says why namespaces of users are not to be had.
const USER_NAMESPACES: [&str; 3] = [
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
];

/// Something that this machine can do, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ability {
    /// What.
    pub name: &'static str,
    /// Whether it can.
    pub works: bool,
    /// How, or why not.
    pub detail: String,
    /// What follows when it cannot.
    pub without: &'static str,
}

/// What is tried by a process of its own, and what follows when it fails.
const TRIED: [(&str, &str); 8] = [
    ("seccomp", "only sandbox = \"none\" starts programs"),
    (
        "user-namespace",
        "without root: confined sandboxes need best_effort, workspaces are not mounted",
    ),
    (
        "mounts",
        "confined sandboxes need best_effort: /tmp is everybody's, and modes of the daemon's files can be changed",
    ),
    (
        "network",
        "network = \"loopback\" needs best_effort, and is the machine's then, but for sockets with a path",
    ),
    ("overlay", "workspace = \"overlay\" is an error"),
    ("whiteout", "what is removed in a workspace cannot be marked so"),
    ("reflink", "files are copied byte by byte, and take their room twice"),
    ("openat2", "files of workspaces are not opened (Linux 5.6)"),
];

/// Everything, tried in a directory that is made in `place` and removed again. `program` is this one.
#[must_use]
pub fn abilities(program: &Path, place: &Path) -> Vec<Ability> {
    let mut all = vec![of_landlock()];
    let scratch = Scratch::new(place);
    all.extend(TRIED.iter().map(|(name, without)| {
        let tried = match &scratch {
            Ok(scratch) => in_a_process(program, name, &scratch.0),
            Err(error) => Err(format!("nothing can be made in {}: {error}", place.display())),
        };
        let detail = match (&tried, *name) {
            (Err(why), "user-namespace") => format!("{why}{}", settings()),
            (Err(why), _) => why.clone(),
            (Ok(()), _) => "works".to_owned(),
        };
        Ability {
            name,
            works: tried.is_ok(),
            detail,
            without,
        }
    }));
    all.push(of_cgroups(Path::new(cgroup::MOUNTED), Path::new(cgroup::OWN)));
    all
}

/// Tries one of them; for a process that ends then.
///
/// # Errors
/// Why this machine cannot.
pub fn attempt(what: &str, place: &Path) -> Result<(), String> {
    let mounts = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    let tried: io::Result<()> = match what {
        "seccomp" => rustix::thread::set_no_new_privs(true)
            .map_err(io::Error::from)
            .and_then(|()| seccomp::confine(Network::None).map_err(io::Error::other)),
        "user-namespace" => namespaces::enter_user().map_err(io::Error::other),
        "mounts" => namespaces::enter(mounts)
            .and_then(|_| namespaces::own_mounts())
            .and_then(|()| namespaces::read_only_around(&[place], None))
            .map_err(io::Error::other)
            .and_then(|()| own::shared_memory(None).map_err(io::Error::other)),
        "network" => namespaces::enter(CloneFlags::CLONE_NEWNET)
            .and_then(|_| namespaces::loopback_up())
            .map_err(io::Error::other),
        "overlay" => overlay(place),
        "whiteout" => {
            mknodat(CWD, place.join("whiteout"), FileType::CharacterDevice, Mode::empty(), 0).map_err(io::Error::from)
        }
        "reflink" => reflink(place),
        "openat2" => openat2(CWD, place, OFlags::PATH, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .map(drop)
            .map_err(io::Error::from),
        other => Err(io::Error::other(format!("`{other}` is nothing that is tried"))),
    };
    tried.map_err(|error| error.to_string())
}

fn in_a_process(program: &Path, what: &str, place: &Path) -> Result<(), String> {
    let tried = Command::new(program)
        .args([OsStr::new(MACHINE_ARGUMENT), OsStr::new(what), place.as_os_str()])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("it cannot be tried: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stdout).trim().to_owned();
    Err(if said.is_empty() {
        tried.status.to_string()
    } else {
        said
    })
}

/// A directory that is gone again afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(place: &Path) -> io::Result<Self> {
        let path = place.join(format!(".doctor-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The system makes this one, and lets nobody in.
        let _ = fs::set_permissions(self.0.join("work/work"), fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn of_landlock() -> Ability {
    let version = landlock::version();
    let lacking: Vec<&str> = LANDLOCK
        .iter()
        .filter(|(needed, _)| version < *needed)
        .map(|(_, without)| *without)
        .collect();
    let detail = match version {
        0 => "there is none".to_owned(),
        _ if lacking.is_empty() => format!("version {version} or newer"),
        _ => format!("version {version}: {}", lacking.join("; ")),
    };
    Ability {
        name: "landlock",
        works: version > 0,
        detail,
        without: "only sandbox = \"none\" starts programs; Linux 5.13 has it, enabled at boot (lsm=landlock,...)",
    }
}

/// What the system was told about namespaces of users.
fn settings() -> String {
    let said = USER_NAMESPACES.iter().filter_map(|path| {
        let value = fs::read_to_string(path).ok()?;
        let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
        Some(format!("; {name} = {}", value.trim()))
    });
    said.collect()
}

/// Merges directories, changes and removes what is in the lowest, and looks at what came of it.
fn overlay(place: &Path) -> io::Result<()> {
    // By its own name: on its way there are no links.
    let place = place.canonicalize()?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.join(name));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory)?;
    }
    let layers = Layers::of(lower, upper, work)?;
    fs::write(layers.lower.join("changed"), "before")?;
    fs::write(layers.lower.join("removed"), "")?;
    let merged = namespaces::merge(&layers).map_err(io::Error::other)?;
    OpenOptions::new()
        .append(true)
        .open(layers.lower.join("changed"))
        .and_then(|mut file| io::Write::write_all(&mut file, b", after"))?;
    fs::remove_file(layers.lower.join("removed"))?;
    drop(merged);
    let mark = fs::symlink_metadata(layers.upper.join("removed"))?;
    if !mark.file_type().is_char_device() || mark.rdev() != 0 {
        return Err(io::Error::other("what is removed is not marked by a device 0:0"));
    }
    match fs::read_to_string(layers.upper.join("changed"))?.as_str() {
        "before, after" => Ok(()),
        _ => Err(io::Error::other("what is changed is not copied")),
    }
}

fn reflink(place: &Path) -> io::Result<()> {
    fs::write(place.join("from"), [1; 4096])?;
    let (from, to) = (File::open(place.join("from"))?, File::create(place.join("to"))?);
    rustix::fs::ioctl_ficlone(&to, &from).map_err(Into::into)
}

/// Whether this process's control group has what limits of a tree need, and could be divided by it.
fn of_cgroups(mounted: &Path, own: &Path) -> Ability {
    let found = Groups::find(mounted, own);
    Ability {
        name: "cgroup",
        works: found.is_ok(),
        detail: found.map_or_else(|error| error.to_string(), |groups| groups.path().display().to_string()),
        without: "limits.tree_memory and tree_processes are an error; Delegate=yes in the unit of a service gives it its own group",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What is no attempt is none, and what every Linux of these years can is there.
    #[test]
    fn attempts_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        assert!(attempt("dance", place.path()).is_err());
        attempt("openat2", place.path()).unwrap();
        attempt("whiteout", place.path()).unwrap();
        let scratch = Scratch::new(place.path()).unwrap();
        fs::write(scratch.0.join("file"), "").unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
