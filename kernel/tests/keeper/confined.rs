//! What a confined program can do, and what it cannot (A18).

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use astrid_kernel::keeper::protocol::{
    Confined, FromKeeper, Layers, Network, Spec, Stage, ToKeeper, TreeLimit, Within,
};

use crate::act::ACT;
use crate::bed::{Daemon, Running, code, daemon, program, shell};

/// A program that tries these things, confined so.
pub fn trying(daemon: &Daemon, confined: Option<Confined>, words: &[&str]) -> Spec {
    let own = std::env::current_exe().unwrap();
    let mut spec = program(own.to_str().unwrap(), &[&[ACT], words].concat());
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.confined = confined;
    spec
}

#[track_caller]
pub fn tries(daemon: &mut Daemon, confined: Option<Confined>, attempts: &[(&str, &str)]) {
    let words: Vec<&str> = attempts.iter().map(|(word, _)| *word).collect();
    let spec = trying(daemon, confined, &words);
    let child = daemon.run(spec);
    let said = child.rest();
    let lines: Vec<&str> = said.lines().collect();
    let expected: Vec<&str> = attempts.iter().map(|(_, expected)| *expected).collect();
    for (n, (word, _)) in attempts.iter().enumerate() {
        // What is read-only says so before Landlock is asked.
        let read_only = (lines.get(n), expected.get(n)) == (Some(&"EROFS"), Some(&"EACCES"));
        assert!(
            read_only || lines.get(n) == expected.get(n),
            "{word} is not {:?}: {said}",
            expected.get(n)
        );
    }
    assert_eq!(daemon.exit(&child).0, code(0));
}

pub fn only(paths: &[&Path]) -> Option<Vec<PathBuf>> {
    Some(paths.iter().map(|path| path.to_path_buf()).collect())
}

pub fn said(word: &str, path: &Path) -> String {
    format!("{word} {}", path.display())
}

/// A directory that is open to all, with a file in it.
pub fn directory(mode: u32) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    fs::write(directory.path().join("file"), "text").unwrap();
    directory
}

/// It writes what it was given, and reads the rest.
pub fn writes_only_what_it_was_given() {
    let mut daemon = daemon();
    let (given, other) = (directory(0o700), directory(0o700));
    let (mine, others) = (given.path().join("file"), other.path().join("file"));
    let confined = Confined {
        write: only(&[given.path()]),
        ..Confined::default()
    };
    let etc = daemon.place.home.root().join("etc");
    let to = |word: &str, path: &Path| said(word, path);
    tries(
        &mut daemon,
        Some(confined),
        &[
            (&to("write", &mine), "ok"),
            (&to("read", &mine), "textx"),
            (&to("make", &given.path().join("new")), "ok"),
            (&to("device", &given.path().join("disk")), "EACCES"),
            (&to("read", &others), "text"),
            (&to("write", &others), "EACCES"),
            (&to("cut", &others), "EACCES"),
            (&to("make", &other.path().join("new")), "EACCES"),
            (&to("list", other.path()), "ok"),
            (&to("chmod", &others), "EROFS"),
            (&to("chmod", &mine), "ok"),
            ("write /etc/astrid-was-here", "EACCES"),
            ("write /dev/null", "ok"),
            (&to("list", &etc), "ok"),
            (&to("chmod", &etc), "EROFS"),
            (&to("write", &etc.join("x")), "EROFS"),
        ],
    );
    assert_eq!(fs::metadata(&etc).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(others).unwrap(), "text");
    daemon.end();
}

/// It reads what it was given, and what any program needs.
pub fn reads_only_what_it_was_given() {
    let mut daemon = daemon();
    let (given, other) = (directory(0o700), directory(0o700));
    let (mine, others) = (given.path().join("file"), other.path().join("file"));
    let confined = Confined {
        read: only(&[given.path()]),
        write: only(&[]),
        ..Confined::default()
    };
    let through = PathBuf::from(format!("/proc/{}/root{}", daemon.keeper, others.display()));
    let outside = PathBuf::from(format!("/proc/self/root{}", others.display()));
    tries(
        &mut daemon,
        Some(confined.clone()),
        &[
            (&said("read", &mine), "text"),
            (&said("write", &mine), "EACCES"),
            (&said("read", &others), "EACCES"),
            (&said("list", other.path()), "EACCES"),
            (&said("read", &through), "EACCES"),
            (&said("read", &outside), "EACCES"),
            ("read /etc/shadow", "EACCES"),
            ("list /root", "EACCES"),
            ("list /usr", "ok"),
            ("exists /etc/hosts", "ok"),
        ],
    );
    // What any program is made of is there: a shell finds and runs others.
    let mut spec = shell("ls / >/dev/null 2>&1 || grep -c . /etc/passwd >/dev/null && cat /dev/null && echo runs");
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.confined = Some(confined.clone());
    let child = daemon.run(spec);
    assert_eq!(child.rest(), "runs");
    daemon.exit(&child);
    // A script that is in nothing that it may read.
    let script = other.path().join("script");
    fs::write(&script, "#!/bin/sh\necho script").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = program(script.to_str().unwrap(), &[]);
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.confined = Some(confined);
    let child = daemon.run(spec);
    assert_eq!(child.rest(), "script");
    daemon.exit(&child);
    daemon.end();
}

/// Whom it may speak to.
pub fn speaks_only_with_whom_it_may() {
    let mut daemon = daemon();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = format!("tcp {}", listener.local_addr().unwrap());
    let place = directory(0o755);
    let path = place.path().join("socket");
    let _unix = UnixListener::bind(&path).unwrap();
    let unix = said("unix", &path);
    let letters = place.path().join("letters");
    let _letters = UnixDatagram::bind(&letters).unwrap();
    fs::set_permissions(&letters, fs::Permissions::from_mode(0o666)).unwrap();
    let gram = said("gram", &letters);
    let name = format!("astrid-test-{}", std::process::id());
    let _nameless = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let nameless = format!("abstract {name}");
    let families = [
        "socket 1",
        "socket 2",
        "socket 10",
        "socket 16",
        "socket 17",
        "socket 38",
        "socket 40",
    ];
    for (network, made, to_tcp, to_unix, itself) in [
        (Network::None, &[][..], "EACCES", "EACCES", "EACCES"),
        (Network::Local, &families[..1], "EACCES", "ok", "EACCES"),
        (Network::Loopback, &families[1..4], "ECONNREFUSED", "EACCES", "ok"),
        (Network::Full, &families[..4], "ok", "ok", "ok"),
    ] {
        let confined = Confined {
            network,
            ..Confined::default()
        };
        let abstractly = match network {
            Network::None | Network::Loopback => "EACCES",
            Network::Local | Network::Full => "EPERM",
        };
        let mut attempts: Vec<(&str, &str)> = families
            .iter()
            .map(|family| (*family, if made.contains(family) { "ok" } else { "EACCES" }))
            .collect();
        attempts.extend([
            ("pair", "ok"),
            (tcp.as_str(), to_tcp),
            (unix.as_str(), to_unix),
            (gram.as_str(), to_unix),
            ("itself", itself),
            (nameless.as_str(), abstractly),
        ]);
        let named = said("name", &place.path().join(format!("{network:?}")));
        if network == Network::None {
            attempts.push((named.as_str(), "EACCES"));
        }
        tries(&mut daemon, Some(confined.clone()), &attempts);
        let writes_little = Confined {
            write: only(&[Path::new("/tmp")]),
            ..confined
        };
        tries(&mut daemon, Some(writes_little), &attempts);
    }
    daemon.end();
}

/// It does not get out by way of namespaces, mounts, or others' memory, and signals nobody else.
pub fn does_not_get_out() {
    let mut daemon = daemon();
    let sibling = daemon.run(shell("echo; exec sleep 1000"));
    sibling.line();
    let of = |word: &str, pid: i32| format!("{word} {pid}");
    let home = daemon.place.home.root().to_owned();
    let (keeper, guard) = (daemon.keeper, daemon.guard.id().cast_signed());
    tries(
        &mut daemon,
        Some(Confined::default()),
        &[
            ("unshare", "EPERM"),
            ("setns /proc/self/ns/mnt", "EPERM"),
            ("mount", "EPERM"),
            (&said("umount", &home), "EPERM"),
            (&of("memory", sibling.pid), "EACCES"),
            (&format!("read /proc/{keeper}/environ"), "EACCES"),
            (&of("signal", sibling.pid), "EPERM"),
            (&of("kill", keeper), "EPERM"),
            (&of("kill", guard), "EPERM"),
            (&of("renice", guard), "EPERM"),
            ("deaf", "EPERM"),
            ("raise", "EPERM"),
        ],
    );
    // Who is merely kept from the home leaves the priority of others and its own place alone as well.
    tries(
        &mut daemon,
        None,
        &[(&of("renice", keeper), "EPERM"), ("renice 0", "ok"), ("deaf", "EPERM")],
    );
    kill(&daemon, &sibling);
    daemon.exit(&sibling);
    daemon.end();
}

fn kill(daemon: &Daemon, child: &Running) {
    use astrid_kernel::keeper::protocol::Reach;
    daemon.signal(child, rustix::process::Signal::KILL, Reach::Main);
}

/// `/tmp` is its own, and what is in it stays for the next.
pub fn a_tmp_of_its_own() {
    let mut daemon = daemon();
    let tmp = directory(0o700);
    let outside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let given = directory(0o700);
    let confined = Confined {
        write: only(&[given.path()]),
        tmp: Some(tmp.path().to_owned()),
        ..Confined::default()
    };
    tries(
        &mut daemon,
        Some(confined),
        &[
            ("read /tmp/file", "text"),
            ("write /tmp/new", "ok"),
            ("write /dev/shm/new", "ok"),
            (&said("read", &given.path().join("file")), "text"),
            (&said("write", &given.path().join("new")), "ok"),
            (&said("exists", outside.path()), "ENOENT"),
        ],
    );
    assert!(tmp.path().join("new").exists() && !Path::new("/dev/shm/new").exists());
    daemon.end();
}

/// What is not there, or is the daemon's, is not given.
pub fn what_cannot_be_given_is_named() {
    let mut daemon = daemon();
    let root = daemon.place.home.root().to_owned();
    for (path, part) in [
        (Path::new("/nonexistent"), "/nonexistent"),
        (&root.join("etc"), "daemon's home"),
    ] {
        let confined = Confined {
            write: only(&[path]),
            ..Confined::default()
        };
        let spec = trying(&daemon, Some(confined), &[]);
        let failure = daemon.failure(spec);
        assert!(
            failure.stage == Stage::Sandbox && failure.message.contains(part),
            "{failure}"
        );
    }
    let other = directory(0o700);
    // All of the system, but not what is the daemon's.
    let confined = Confined {
        write: only(&[Path::new("/")]),
        ..Confined::default()
    };
    let attempts = [
        (said("write", &root.join("etc/x")), "EROFS"),
        (said("write", &other.path().join("new")), "ok"),
    ];
    let attempts: Vec<(&str, &str)> = attempts.iter().map(|(word, told)| (word.as_str(), *told)).collect();
    tries(&mut daemon, Some(confined), &attempts);
    daemon.end();
}

/// Who is merely kept from the home cannot change its modes either, where root has mounts of its own.
pub fn modes_of_the_home_are_kept() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut daemon = daemon();
    let etc = daemon.place.home.root().join("etc");
    tries(&mut daemon, None, &[(&said("chmod", &etc), "EROFS")]);
    daemon.end();
}

/// A mount, until this is dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// What leads to the home by a second mount of what contains it, or of what is in it, is kept as well, by every path.
pub fn the_home_is_kept_wherever_it_is_mounted() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut daemon = daemon();
    let root = daemon.place.home.root().canonicalize().unwrap();
    let key = root.join("keys/secret");
    std::fs::write(&key, "secret").unwrap();
    let (around, inside) = (directory(0o755), directory(0o755));
    let bind = |from: &Path, at: &Path| {
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(from), at, None::<&str>, flags, None::<&str>).unwrap();
        Mounted(at.to_owned())
    };
    let _around = bind(root.parent().unwrap(), around.path());
    let _inside = bind(&root.join("keys"), inside.path());
    let other = around.path().join(root.file_name().unwrap());
    for confined in [None, Some(Confined::default())] {
        for path in [key.clone(), other.join("keys/secret"), inside.path().join("secret")] {
            tries(&mut daemon, confined.clone(), &[(&said("read", &path), "EACCES")]);
        }
        tries(
            &mut daemon,
            confined,
            &[
                (&said("write", &other.join("capsules/x")), "EROFS"),
                (&said("list", Path::new("/etc")), "ok"),
            ],
        );
    }
    daemon.end();
}

/// Root's programs do not set up the machine, which would start a program of theirs that nothing is kept from; and most of what root does
/// is left to those that are only kept from the home.
pub fn root_does_not_set_up_the_machine() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut daemon = daemon();
    let all = Confined {
        write: only(&[Path::new("/")]),
        ..Confined::default()
    };
    let place = directory(0o700);
    let disk = said("device", &place.path().join("disk"));
    for (confined, disks) in [
        (None, "EPERM"),
        (Some(Confined::default()), "EACCES"),
        (Some(all), "EACCES"),
    ] {
        tries(
            &mut daemon,
            confined,
            &[
                ("open /proc/sys/kernel/core_pattern", "EROFS"),
                ("open /sys/kernel/profiling", "EROFS"),
                ("read /proc/sys/kernel/ostype", "Linux"),
                (&disk, disks),
            ],
        );
    }
    let mut spec = shell(
        "f=$(mktemp) && chown 1:1 $f && setpriv --reuid 1 --regid 1 --clear-groups id -u && chroot / true && rm $f && echo done",
    );
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.env.push(("TMPDIR".to_owned(), place.path().display().to_string()));
    let child = daemon.run(spec);
    assert_eq!(child.rest(), "1\ndone");
    daemon.exit(&child);
    daemon.end();
}

/// Merges directories, and hands over where.
fn merged(daemon: &mut Daemon, layers: &Layers) -> (Within, Vec<OwnedFd>) {
    daemon.say(&ToKeeper::Mount {
        id: 5,
        layers: layers.clone(),
    });
    match daemon.hear() {
        (FromKeeper::Merged { id: 5, result }, descriptors) => (
            Within {
                user: result.unwrap(),
                device: None,
            },
            descriptors,
        ),
        other => panic!("{other:?}"),
    }
}

/// Programs and the daemon see one merged directory in the place of the lowest, and the lowest stays as it is.
pub fn a_merged_directory_is_shared() {
    let mut daemon = daemon();
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        // Signs that separate layers and options.
        let path = place.path().join(format!("{name},x:y"));
        fs::create_dir(&path).unwrap();
        path
    };
    let layers = Layers::of(path("lower"), path("upper"), path("work")).unwrap();
    fs::write(layers.lower.join("file"), "text").unwrap();
    fs::write(layers.lower.join("gone"), "").unwrap();
    let (within, mut descriptors) = merged(&mut daemon, &layers);
    let root = descriptors.pop().unwrap();
    let confined = Confined {
        write: only(&[&layers.lower]),
        ..Confined::default()
    };
    let in_lower = |name: &str| layers.lower.join(name);
    for (attempt, told) in [("write", "ok"), ("read", "textx")] {
        let mut spec = trying(&daemon, Some(confined.clone()), &[&said(attempt, &in_lower("file"))]);
        spec.within = Some(within);
        spec.cwd.clone_from(&layers.lower);
        daemon.beside = descriptors.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let child = daemon.run(spec);
        assert_eq!(child.rest(), told);
        daemon.exit(&child);
    }
    let mut spec = shell("rm gone; echo new >made; pwd");
    (spec.within, spec.cwd) = (Some(within), layers.lower.clone());
    daemon.beside = descriptors.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let child = daemon.run(spec);
    assert_eq!(child.rest(), layers.lower.display().to_string());
    daemon.exit(&child);
    // The lowest is what it was; the merged directory is what the daemon's descriptor leads to.
    assert_eq!(fs::read_to_string(in_lower("file")).unwrap(), "text");
    assert!(in_lower("gone").exists() && !in_lower("made").exists());
    let flags = rustix::fs::OFlags::RDONLY;
    let open = |name: &str| rustix::fs::openat(root.as_fd(), name, flags, rustix::fs::Mode::empty());
    assert_eq!(crate::bed::read(&open("file").unwrap(), |_| false), "textx");
    assert!(open("gone").is_err());
    assert_eq!(fs::read_to_string(layers.upper.join("made")).unwrap(), "new\n");
    daemon.end();
}

/// A directory that cannot be merged says why.
pub fn what_cannot_be_merged_is_named() {
    let mut daemon = daemon();
    let layers = Layers {
        lower: "/nonexistent".into(),
        identity: (0, 0),
        upper: "/nonexistent".into(),
        work: "/nonexistent".into(),
    };
    daemon.say(&ToKeeper::Mount { id: 6, layers });
    match daemon.hear().0 {
        FromKeeper::Merged {
            id: 6,
            result: Err(failure),
        } => assert!(failure.message.contains("/nonexistent"), "{failure}"),
        other => panic!("{other:?}"),
    }
    // Another directory is in its place by now, or a link.
    let place = tempfile::tempdir().unwrap();
    let root = place.path().canonicalize().unwrap();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| root.join(name));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory).unwrap();
    }
    let layers = Layers::of(lower.clone(), upper, work).unwrap();
    fs::rename(&lower, root.join("moved")).unwrap();
    for (id, told) in [(7, "is not the directory that was attached"), (8, "cannot open")] {
        if id == 7 {
            fs::create_dir(&lower).unwrap();
        } else {
            fs::remove_dir(&lower).unwrap();
            std::os::unix::fs::symlink(root.join("moved"), &lower).unwrap();
        }
        let layers = layers.clone();
        daemon.say(&ToKeeper::Mount { id, layers });
        match daemon.hear().0 {
            FromKeeper::Merged {
                result: Err(failure), ..
            } => assert!(failure.message.contains(told), "{failure}"),
            other => panic!("{other:?}"),
        }
    }
    daemon.end();
}

/// Where namespaces cannot be had, that is a failure which names them; with best effort it runs, and what it lacks is told. Such a place
/// is inside of a confined program.
pub fn what_this_machine_cannot_is_named() {
    let mut daemon = daemon();
    let own = std::env::current_exe().unwrap();
    let mut spec = program(own.to_str().unwrap(), &[WITHOUT_NAMESPACES]);
    // New entries are not made beside the home.
    let place = directory(0o700);
    spec.env.push(("TMPDIR".to_owned(), place.path().display().to_string()));
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    spec.confined = Some(Confined::default());
    let child = daemon.run(spec);
    assert_eq!(child.rest(), "done");
    assert_eq!(daemon.exit(&child).0, code(0));
    daemon.end();
}

/// The word that makes this program a daemon that is denied namespaces.
pub const WITHOUT_NAMESPACES: &str = "__without-namespaces";

/// What a daemon sees that is denied namespaces.
pub fn without_namespaces() {
    let mut daemon = daemon();
    let mut confined = Confined {
        network: Network::Loopback,
        write: only(&[Path::new("/tmp")]),
        ..Confined::default()
    };
    let spec = trying(&daemon, Some(confined.clone()), &[]);
    let failure = daemon.failure(spec);
    assert_eq!((&failure.stage, failure.errno), (&Stage::Lacking, 1));
    assert!(
        failure.message.contains("a network of its own") && failure.message.contains("astrid doctor"),
        "{failure}"
    );
    daemon.say(&ToKeeper::Mount {
        id: 7,
        layers: Layers::of("/usr".into(), "/tmp".into(), "/tmp".into()).unwrap(),
    });
    assert!(matches!(daemon.hear().0, FromKeeper::Merged { id: 7, result: Err(_) }));
    confined.best_effort = true;
    let spec = trying(&daemon, Some(confined), &["write /etc/astrid-was-here", "socket 17"]);
    let asked = daemon.ask(spec);
    let (child, lacking) = match daemon.hear() {
        (
            FromKeeper::Started {
                id,
                pid,
                streams,
                lacking,
                ..
            },
            descriptors,
        ) if id == asked => (Running::new(id, pid, streams, descriptors), lacking),
        other => panic!("{other:?}"),
    };
    assert!(
        lacking.len() == 2 && lacking[0].starts_with("a network") && lacking[1].starts_with("mounts"),
        "{lacking:?}"
    );
    // The rest holds.
    assert_eq!(child.rest(), "EACCES\nEACCES");
    daemon.exit(&child);
    daemon.end();
    crate::given::everybodys_tmp_is_not_given_with_the_home_in_it();
    println!("done");
}

/// All of this as an ordinary user, when these tests run as root.
pub fn as_an_ordinary_user() {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = directory(0o755);
    let own = place.path().join("keeper");
    fs::copy(std::env::current_exe().unwrap(), &own).unwrap();
    let mut all = std::process::Command::new(&own);
    all.args(ALL)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .stdout(std::process::Stdio::null());
    assert!(all.status().unwrap().success());
}

/// What is tried again as another user.
const ALL: [&str; 15] = [
    "the_home_is_out_of_reach",
    "writes_only_what_it_was_given",
    "reads_only_what_it_was_given",
    "speaks_only_with_whom_it_may",
    "does_not_get_out",
    "a_tmp_of_its_own",
    "what_is_given_below_tmp_stays",
    "a_link_that_was_left_is_not_followed",
    "the_home_is_not_given_by_another_name",
    "shared_memory_of_its_own",
    "best_effort_keeps_the_home",
    "a_merged_directory_is_shared",
    "what_cannot_be_merged_is_named",
    "what_this_machine_cannot_is_named",
    "only_its_own_is_merged_without_root",
];

/// Only what is the daemon's own can be merged without root, for nobody else is anybody in its namespace.
pub fn only_its_own_is_merged_without_root() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let mut daemon = daemon();
    let layers = Layers::of("/usr".into(), "/tmp".into(), "/tmp".into()).unwrap();
    daemon.say(&ToKeeper::Mount { id: 8, layers });
    match daemon.hear().0 {
        FromKeeper::Merged {
            result: Err(failure), ..
        } => assert!(failure.message.contains("/usr belongs to user"), "{failure}"),
        other => panic!("{other:?}"),
    }
    daemon.end();
}

/// What the machine can do is found out, and each thing has its consequence.
pub fn a_machine_is_looked_at() {
    let place = tempfile::tempdir().unwrap();
    let found = astrid_kernel::keeper::machine::abilities(&std::env::current_exe().unwrap(), place.path());
    for ability in &found {
        assert!(!ability.detail.is_empty() && !ability.without.is_empty(), "{ability:?}");
    }
    let works = |name: &str| found.iter().any(|ability| ability.name == name && ability.works);
    assert!(works("landlock") && works("seccomp") && works("openat2"), "{found:?}");
    // Nothing is left of it.
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

/// A limit of a whole tree binds where the daemon has a control group of its own, and is a failure that says what would give it one elsewhere.
pub fn a_tree_has_limits_or_it_is_said() {
    let mut daemon = daemon();
    let mut spec = shell("sleep 1000 & sleep 1000 & sleep 1000 & wait");
    spec.limits.tree_processes = Some(2);
    spec.protect = Some(vec![daemon.place.home.root().to_owned()]);
    let asked = daemon.ask(spec.clone());
    match daemon.hear() {
        (FromKeeper::Failed { id, failure }, _) if id == asked => {
            assert!(
                failure.stage == Stage::Limit("tree".to_owned()) && failure.message.contains("Delegate=yes"),
                "{failure}"
            );
            spec.args = vec!["-c".to_owned(), "exit 0".to_owned()];
            spec.confined = Some(Confined {
                best_effort: true,
                ..Confined::default()
            });
            let asked = daemon.ask(spec);
            match daemon.hear().0 {
                FromKeeper::Started { id, lacking, .. } if id == asked => {
                    assert!(lacking[0].contains("tree"), "{lacking:?}")
                }
                other => panic!("{other:?}"),
            }
            daemon.hear();
        }
        (FromKeeper::Started { id, .. }, _) if id == asked => match daemon.hear().0 {
            FromKeeper::Exited { exceeded, .. } => assert_eq!(exceeded, [TreeLimit::Processes]),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    daemon.end();
}
