//! What is given to a program beside a `/tmp` of its own, and what an older program of the same principal has left there (A18).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use astrid_kernel::keeper::protocol::{Confined, Network, Spec, Stage};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::bed::{Daemon, code, daemon, program};
use crate::confined::{directory, only, said, tries, trying};

/// With a `/tmp` of its own, in a directory that others have written, and with that to read besides.
fn beside(tmp: &Path, read: &[&Path]) -> Confined {
    Confined {
        network: Network::None,
        read: only(read),
        write: only(&[]),
        tmp: Some(tmp.to_owned()),
        best_effort: false,
    }
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn kept(daemon: &Daemon, mut spec: Spec, confined: Confined) -> Spec {
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.confined = Some(confined);
    spec
}

/// What is given below `/tmp` stays what it is, also where one thing is in another, and only what is to be written is written.
pub fn what_is_given_below_tmp_stays() {
    let mut daemon = daemon();
    let (tmp, given) = (directory(0o700), directory(0o755));
    let file = given.path().join("file");
    let out = given.path().join("out");
    fs::create_dir(&out).unwrap();
    let build = given.path().join("build.sh");
    script(
        &build,
        "cat file; echo; (echo x >file) 2>/dev/null || echo kept; (chmod 777 file) 2>/dev/null || echo kept; echo x >out/new && cat out/new",
    );
    let mut confined = beside(tmp.path(), &[given.path(), &file]);
    confined.write = only(&[&out]);
    let mut spec = program(build.to_str().unwrap(), &[]);
    spec.cwd = given.path().to_owned();
    let before = fs::read(&build).unwrap();
    for _ in 0..2 {
        let child = daemon.run(kept(&daemon, spec.clone(), confined.clone()));
        assert_eq!(child.rest(), "text\nkept\nkept\nx");
        assert_eq!(daemon.exit(&child).0, code(0));
    }
    assert_eq!(fs::read(&build).unwrap(), before);
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    // What is not there is said.
    let missing = beside(tmp.path(), &[&given.path().join("nothing")]);
    let failure = daemon.failure(trying(&daemon, Some(missing), &[]));
    assert!(
        failure.stage == Stage::Sandbox && failure.message.contains("nothing"),
        "{failure}"
    );
    daemon.end();
}

/// Links that were left in that directory lead nowhere: neither a file nor a directory on the way, and nothing is emptied or made there.
pub fn a_link_that_was_left_is_not_followed() {
    let mut daemon = daemon();
    let keys = daemon.place.home.root().join("keys");
    let key = keys.join("file");
    fs::write(&key, "secret").unwrap();
    let given = directory(0o755);
    let below = given.path().strip_prefix("/tmp").unwrap();
    let file = given.path().join("file");
    for as_directory in [false, true] {
        let tmp = directory(0o700);
        let planted = tmp.path().join(below);
        if as_directory {
            symlink(&keys, &planted).unwrap();
        } else {
            fs::create_dir(&planted).unwrap();
            symlink(&key, planted.join("file")).unwrap();
        }
        for best_effort in [false, true] {
            let mut confined = beside(tmp.path(), &[&file]);
            confined.best_effort = best_effort;
            let failure = daemon.failure(trying(&daemon, Some(confined), &[]));
            assert!(
                failure.stage == Stage::Sandbox && failure.message.contains("something else is there"),
                "{failure}"
            );
        }
        assert_eq!(fs::read_to_string(&key).unwrap(), "secret");
        assert_eq!(fs::read_dir(&keys).unwrap().count(), 1);
    }
    daemon.end();
}

/// Nobody is given the daemon's home by a name below `/tmp`: neither by a link, nor by a directory around it, nor as the place to start in.
pub fn the_home_is_not_given_by_another_name() {
    let mut daemon = daemon();
    let root = daemon.place.home.root().to_owned();
    fs::write(root.join("keys/file"), "secret").unwrap();
    let (tmp, other) = (directory(0o700), directory(0o755));
    let link = other.path().join("link");
    symlink(root.join("keys"), &link).unwrap();
    let parent = root.parent().unwrap();
    for (path, part) in [
        (link.as_path(), "is in the daemon's home"),
        (parent, "contains the daemon's home"),
    ] {
        let confined = beside(tmp.path(), &[path]);
        let failure = daemon.failure(trying(&daemon, Some(confined), &[&said("read", &path.join("file"))]));
        assert!(
            failure.stage == Stage::Sandbox && failure.message.contains(part),
            "{failure}"
        );
    }
    let mut spec = trying(&daemon, Some(beside(tmp.path(), &[])), &["read file"]);
    spec.cwd = root.join("keys");
    let failure = daemon.failure(spec);
    assert!(failure.message.contains("is in the daemon's home"), "{failure}");
    daemon.end();
}

/// Who has shared memory of its own sees in it what it was given of the system's, and has as much of it as memory.
pub fn shared_memory_of_its_own() {
    let mut daemon = daemon();
    let tmp = directory(0o700);
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let build = place.path().join("build.sh");
    script(&build, "pwd");
    let mut spec = program(build.to_str().unwrap(), &[]);
    spec.cwd = place.path().to_owned();
    let child = daemon.run(kept(&daemon, spec, beside(tmp.path(), &[])));
    assert_eq!(child.rest(), place.path().display().to_string());
    daemon.exit(&child);
    let mut spec = trying(&daemon, Some(beside(tmp.path(), &[])), &["room /dev/shm"]);
    spec.limits.memory_bytes = Some(64 << 20);
    let child = daemon.run(spec);
    assert_eq!(child.rest(), (64 << 20).to_string());
    daemon.exit(&child);
    daemon.end();
}

/// The word that makes this program a daemon for which there is no Landlock.
pub const WITHOUT_LANDLOCK: &str = "__without-landlock";

/// Best effort is for the rest: where the daemon's home cannot be kept, nothing is started.
pub fn best_effort_keeps_the_home() {
    let own = std::env::current_exe().unwrap();
    let tried = std::process::Command::new(own).arg(WITHOUT_LANDLOCK).output().unwrap();
    assert!(tried.status.success(), "{tried:?}");
}

/// What a daemon sees whose system has no Landlock.
pub fn without_landlock() {
    rustix::thread::set_no_new_privs(true).unwrap();
    let filter = SeccompFilter::new(
        [(libc::SYS_landlock_create_ruleset, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::NOSYS.raw_os_error().cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter(&filter).unwrap();
    let mut daemon = daemon();
    let confined = Confined {
        best_effort: true,
        ..Confined::default()
    };
    let failure = daemon.failure(trying(&daemon, Some(confined), &[]));
    assert!(
        failure.stage == Stage::Sandbox && failure.message.contains("no Landlock"),
        "{failure}"
    );
    daemon.end();
}

/// Where there are no mounts of its own, and it goes without, `/tmp` is everybody's: what of it is the daemon's is kept. For a daemon
/// that is denied namespaces.
pub fn everybodys_tmp_is_not_given_with_the_home_in_it() {
    let mut daemon = daemon();
    let key = daemon.place.home.root().join("keys/file");
    fs::write(&key, "secret").unwrap();
    let tmp = directory(0o700);
    let mut confined = beside(tmp.path(), &[]);
    (confined.read, confined.best_effort) = (None, true);
    let made = daemon.place.home.root().join("etc/new");
    let attempts = [
        (said("read", &key), "EACCES"),
        (said("write", &made), "EACCES"),
        (said("read", &tmp.path().join("file")), "text"),
    ];
    let attempts: Vec<(&str, &str)> = attempts.iter().map(|(word, told)| (word.as_str(), *told)).collect();
    tries(&mut daemon, Some(confined), &attempts);
    daemon.end();
}
