//! Limits of a program and all that it starts together (control groups, version 2).
//!
//! A group that has processes cannot divide what it has, so what is in the daemon's own group moves into one below it before the first is
//! made beside that. Which groups may be made at all is whoever's decision who started the daemon: systemd gives a service one of
//! its own with `Delegate=yes`.
//!
//! Every path is given, so that this can be tried on plain files.

#![allow(clippy::disallowed_methods, reason = "control groups are directories and files")]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the system has its groups, and what it says of this process.
pub(super) const MOUNTED: &str = "/sys/fs/cgroup";
pub(super) const OWN: &str = "/proc/self/cgroup";

/// The group that takes what was in the daemon's, and what others are called.
const MAIN: &str = "astrid-main";
const PREFIX: &str = "astrid-child-";

/// Controllers that are needed.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How often what is in a group is moved before it is given up: processes may start others meanwhile.
const MOVES_MAX: usize = 8;

/// Why there is no such group.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    #[error("there are no control groups of version 2 at {}{}", .at.display(), hint(*.elsewhere))]
    Missing {
        at: PathBuf,
        /// Whether there are some nevertheless, as where both versions are in use.
        elsewhere: bool,
    },
    #[error("the control group {} lacks the controllers {lacking}", .group.display())]
    Controllers { group: PathBuf, lacking: String },
    #[error("cannot {doing} in the control group {}: {source}", .group.display())]
    System {
        doing: &'static str,
        group: PathBuf,
        source: io::Error,
    },
}

fn hint(elsewhere: bool) -> &'static str {
    match elsewhere {
        true => ", only elsewhere: its controllers are those of version 1 here",
        false => "",
    }
}

/// What a tree of processes may have together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TreeLimits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) processes: Option<u64>,
}

/// The group that others are made in.
#[derive(Debug)]
pub(super) struct Groups(PathBuf);

/// A group of a program. Gone when this is, if nothing is in it any more.
#[derive(Debug)]
pub(super) struct Group(PathBuf);

fn failed(doing: &'static str, group: &Path) -> impl FnOnce(io::Error) -> GroupError {
    let group = group.to_owned();
    move |source| GroupError::System { doing, group, source }
}

impl Groups {
    /// The one that this process is in, if it has what is needed.
    pub(super) fn find(mounted: &Path, own: &Path) -> Result<Self, GroupError> {
        let own = fs::read_to_string(own).unwrap_or_default();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let missing = || GroupError::Missing {
            at: mounted.to_owned(),
            elsewhere: own.is_some(),
        };
        let group = mounted.join(own.ok_or_else(missing)?);
        // What made this one before, in an earlier life of the daemon.
        let group = match group.file_name() {
            Some(name) if name == MAIN => group.parent().map(Path::to_owned).unwrap_or(group),
            _ => group,
        };
        let there = fs::read_to_string(group.join("cgroup.controllers")).map_err(|_| missing())?;
        let lacking = CONTROLLERS
            .iter()
            .filter(|name| !there.split_whitespace().any(|one| one == **name));
        let lacking: Vec<&str> = lacking.copied().collect();
        if !lacking.is_empty() {
            return Err(GroupError::Controllers {
                group,
                lacking: lacking.join(", "),
            });
        }
        rustix::fs::access(&group, rustix::fs::Access::WRITE_OK)
            .map_err(|error| failed("make others", &group)(error.into()))?;
        Ok(Self(group))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Lets its groups have limits.
    pub(super) fn divide(&self) -> Result<(), GroupError> {
        let group = &self.0;
        let main = group.join(MAIN);
        let wanted: Vec<String> = CONTROLLERS.iter().map(|name| format!("+{name}")).collect();
        make(&main).map_err(failed("make one", group))?;
        for _ in 0..MOVES_MAX {
            let inside = fs::read_to_string(group.join("cgroup.procs")).map_err(failed("look", group))?;
            for pid in inside.lines() {
                match fs::write(main.join("cgroup.procs"), pid) {
                    // It has ended.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    moved => moved.map_err(failed("move processes", group))?,
                }
            }
            match fs::write(group.join("cgroup.subtree_control"), wanted.join(" ")) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                done => return done.map_err(failed("share controllers", group)),
            }
        }
        Err(failed("share controllers", group)(io::Error::from_raw_os_error(
            libc::EBUSY,
        )))
    }

    /// A group for one program.
    pub(super) fn group(&self, name: &str, limits: TreeLimits) -> Result<Group, GroupError> {
        let path = self.0.join(format!("{PREFIX}{name}"));
        make(&path).map_err(failed("make one", &self.0))?;
        let group = Group(path);
        let given = [("memory.max", limits.memory_bytes), ("pids.max", limits.processes)];
        for (file, limit) in given {
            if let Some(limit) = limit {
                let path = group.0.join(file);
                fs::write(&path, limit.to_string()).map_err(failed("set a limit", &group.0))?;
            }
        }
        // What is put out to disk is not counted by the other limit. Without swap there is nothing to limit.
        if limits.memory_bytes.is_some() {
            let _ = fs::write(group.0.join("memory.swap.max"), "0");
        }
        Ok(group)
    }
}

impl Group {
    /// Where processes are put in.
    pub(super) fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Kills all that is in it, at once.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// How often something in it was ended because its memory was over.
    pub(super) fn killed_for_memory(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// How often it was refused another process.
    pub(super) fn refused_processes(&self) -> u64 {
        let events = fs::read_to_string(self.0.join("pids.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("max "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is still in it keeps it; nobody counts on its name.
        let _ = fs::remove_dir(&self.0);
    }
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A tree of files that looks like the system's.
    struct Fake {
        place: tempfile::TempDir,
        service: PathBuf,
    }

    impl Fake {
        fn new(controllers: &str) -> Self {
            let place = tempfile::tempdir().unwrap();
            let service = place.path().join("v2/service");
            fs::create_dir_all(&service).unwrap();
            fs::write(service.join("cgroup.controllers"), controllers).unwrap();
            fs::write(service.join("cgroup.procs"), "11\n12\n").unwrap();
            Self { place, service }
        }

        fn find(&self, own: &str) -> Result<Groups, GroupError> {
            let path = self.place.path().join("own");
            fs::write(&path, own).unwrap();
            Groups::find(&self.place.path().join("v2"), &path)
        }
    }

    /// A18: what a control group lacks is named.
    #[test]
    fn what_is_lacking_is_named() {
        let fake = Fake::new("cpu memory\n");
        let missing = |own: &str, expected: bool| {
            let error = fake.find(own).unwrap_err();
            assert!(
                matches!(&error, GroupError::Missing { elsewhere, .. } if *elsewhere == expected),
                "{error}"
            );
        };
        missing("4:memory:/x\n", false);
        missing("4:memory:/x\n0::/elsewhere\n", true);
        let lacking = fake.find("1:name=systemd:/\n0::/service\n").unwrap_err().to_string();
        assert!(lacking.ends_with("lacks the controllers pids"), "{lacking}");
    }

    /// A18: the daemon's processes make room, and a program's group has the limits that were said.
    #[test]
    fn a_group_has_its_limits() {
        let fake = Fake::new("cpu memory pids\n");
        let groups = fake.find("0::/service\n").unwrap();
        groups.divide().unwrap();
        let said = |file: &str| fs::read_to_string(fake.service.join(file)).unwrap();
        assert_eq!(said("cgroup.subtree_control"), "+memory +pids");
        assert_eq!(said("astrid-main/cgroup.procs"), "12");
        let limits = TreeLimits {
            memory_bytes: Some(1 << 20),
            processes: None,
        };
        let group = groups.group("7.1", limits).unwrap();
        assert_eq!(said("astrid-child-7.1/memory.max"), "1048576");
        assert!(!fake.service.join("astrid-child-7.1/pids.max").exists());
        assert_eq!((group.killed_for_memory(), group.refused_processes()), (0, 0));
        fs::write(
            fake.service.join("astrid-child-7.1/memory.events"),
            "oom 1\noom_kill 3\n",
        )
        .unwrap();
        fs::write(fake.service.join("astrid-child-7.1/pids.events"), "max 2\n").unwrap();
        assert_eq!((group.killed_for_memory(), group.refused_processes()), (3, 2));
        group.kill();
        assert_eq!(said("astrid-child-7.1/cgroup.kill"), "1");
        assert!(group.procs().ends_with("astrid-child-7.1/cgroup.procs"));
        // The next daemon is in the group that this one made.
        assert_eq!(fake.find("0::/service/astrid-main\n").unwrap().path(), fake.service);
    }
}
