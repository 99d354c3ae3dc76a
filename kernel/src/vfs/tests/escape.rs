//! The escape corpus: whatever a tree holds and whatever a guest names, nothing outside the tree is read or written. Each test runs as who runs
//! it and, where that is root, once more as an ordinary user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType as Type, Mode, makedev};

use super::super::beneath::{Beneath, FileType};
use super::super::error::Fault;
use super::super::opened::Access;
use super::super::overlay::Overlay;
use super::super::path::{Follow, VirtualPath};
use super::super::plain::Plain;
use super::super::space::Room;
use super::super::{Removal, Tree};
use super::bed::{Use, also_as_user, fault, fingerprint, is_root, name_of};

/// Links that lead out, or nowhere, and whether what is tried through them goes one name on.
const LINKS: [(&str, &str); 16] = [
    ("absolute", "/etc/passwd"),
    ("root", "/"),
    ("shadow", "/etc/shadow"),
    ("up", ".."),
    ("upfile", "../outside/secret"),
    ("updir", "../outside"),
    ("upup", "sub/../../outside"),
    ("back", "../tree/../outside"),
    ("sub/up", "../../outside"),
    ("chain", "chain2"),
    ("chain2", "sub/../chain3"),
    ("chain3", "sub/up"),
    ("proc", "/proc/self/root"),
    ("fd", "/proc/self/fd/0"),
    ("loop", "loop2"),
    ("loop2", "./loop"),
];

/// Directories with a tree, its traps, and something beside it that nobody may touch.
struct World {
    base: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        for name in ["outside/sub", "tree/sub", "other/sub", "work"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        fs::write(base.path().join("outside/secret"), b"secret").unwrap();
        fs::write(base.path().join("outside/sub/secret"), b"secret").unwrap();
        let world = Self { base };
        let tree = world.path("tree");
        for (name, target) in LINKS {
            symlink(target, tree.join(name)).unwrap();
        }
        symlink(world.path("outside"), tree.join("itself")).unwrap();
        symlink("self/x", tree.join("self")).unwrap();
        symlink(OsStr::from_bytes(b"n\xff"), tree.join("odd")).unwrap();
        fs::create_dir(tree.join(OsStr::from_bytes(b"n\xff"))).unwrap();
        fs::write(tree.join("control\n"), b"x").unwrap();
        fs::write(tree.join("sub/file"), b"inside").unwrap();
        fs::write(tree.join("Sub"), b"another").unwrap();
        fs::hard_link(world.path("outside/secret"), tree.join("hard")).unwrap();
        symlink("sub/../sub/./file", tree.join("inner")).unwrap();
        rustix::fs::mknodat(CWD, tree.join("fifo"), Type::Fifo, Mode::RWXU, 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap());
        if is_root() {
            for (name, kind, device) in [
                ("null", Type::CharacterDevice, makedev(1, 3)),
                ("disk", Type::BlockDevice, makedev(7, 0)),
            ] {
                rustix::fs::mknodat(CWD, tree.join(name), kind, Mode::RWXU, device).unwrap();
            }
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn open(&self, name: &str) -> Beneath {
        Beneath::open(&self.path(name)).unwrap()
    }

    /// The same traps, behind each kind of tree.
    fn trees(&self) -> Vec<(&'static str, Tree)> {
        let overlay = |lower, upper| {
            let overlay = Overlay::new(self.open(lower), self.open(upper), self.open("work"));
            Tree::Overlay(overlay.unwrap())
        };
        vec![
            ("plain", Tree::Plain(Plain::new(self.open("tree")))),
            ("plain, walking", Tree::Plain(Plain::new(self.open("tree").walking()))),
            ("lower", overlay("tree", "other")),
            ("upper", overlay("other", "tree")),
        ]
    }
}

/// Every operation, through one path: none may succeed.
fn nothing_works(name: &str, tree: &Tree, path: &str) {
    let fails = |what: &str, fault: Option<Fault>| {
        assert!(fault.is_some(), "{name}: {what} {path}");
    };
    fails("read", fault(tree.read(path)));
    fails("put", fault(tree.put(path, b"changed")));
    fails(
        "write",
        fault(tree.write(path, &Access::creating(0o666), 0, b"changed")),
    );
    fails("names", fault(tree.names(path)));
    fails("mode", fault(tree.mode(path, 0o777)));
    fails("cut", fault(tree.cut(path, 0)));
}

/// No link leads out: not by its last name, and not in the middle of a path.
#[test]
fn links_do_not_lead_out() {
    let world = World::new();
    let outside = fingerprint(&world.path("outside"));
    for (name, tree) in world.trees() {
        for link in LINKS.iter().map(|(link, _)| *link).chain(["itself", "self"]) {
            assert_eq!(
                fault(tree.at(link, Follow::Yes)),
                Some(Fault::Escapes),
                "{name}: {link}"
            );
            let below = format!("{link}/secret");
            assert_eq!(
                fault(tree.at(&below, Follow::No)),
                Some(Fault::Escapes),
                "{name}: {below}"
            );
            nothing_works(name, &tree, link);
            nothing_works(name, &tree, &below);
            for (what, answer) in [
                ("dir", tree.dir(&below)),
                ("remove", tree.gone(&below, Removal::Tree { entries_max: 100 })),
                ("rename", tree.moved(&below, "stolen")),
                ("rename to", tree.moved("sub/file", &below)),
                ("link", tree.link(&below, "x")),
                ("time", tree.time(&below, 7)),
            ] {
                assert_eq!(fault(answer), Some(Fault::Escapes), "{name}: {what} {below}");
            }
        }
        assert_eq!(
            tree.read("inner").unwrap(),
            b"inside",
            "{name}: those that stay inside are followed"
        );
        assert_eq!(
            fault(tree.at("odd/x", Follow::No)),
            Some(Fault::Invalid("a name in it is not UTF-8")),
            "{name}"
        );
    }
    assert_eq!(fingerprint(&world.path("outside")), outside);
    also_as_user(name_of(links_do_not_lead_out));
}

/// A place that was taken as the link it is gives nothing of what it leads to, even if that is inside.
#[test]
fn a_place_that_is_a_link_is_not_followed() {
    let world = World::new();
    for (name, tree) in world.trees() {
        for link in ["absolute", "upfile", "updir", "inner", "loop"] {
            let place = tree.at(link, Follow::No).unwrap();
            let room = &mut Room::unlimited();
            assert_eq!(
                tree.stat(&place).unwrap().stat.kind,
                FileType::Symlink,
                "{name}: {link}"
            );
            for access in [Access::reading(), Access::writing(), Access::creating(0o644)] {
                assert_eq!(
                    fault(tree.open(&place, &access, room)),
                    Some(Fault::Changed),
                    "{name}: {link}"
                );
            }
            let mut replacing = tree.begin_replace(&place, 0o644).unwrap();
            replacing.write(b"x", room).unwrap();
            assert_eq!(
                fault(tree.publish(replacing, room)),
                Some(Fault::Changed),
                "{name}: {link}"
            );
            assert_eq!(
                fault(tree.set_mode(&place, 0o777, room)),
                Some(Fault::Changed),
                "{name}: {link}"
            );
            assert!(tree.list(&place, None, 1).is_err(), "{name}: {link}");
        }
        let target = tree.read_link(&tree.at("absolute", Follow::No).unwrap()).unwrap();
        assert_eq!(target, "/etc/passwd", "{name}: its text may be read");
    }
    also_as_user(name_of(a_place_that_is_a_link_is_not_followed));
}

/// What is not a regular file, a directory or a link is seen, and can be removed, and nothing else; and nobody waits for it.
#[test]
fn devices_are_not_opened() {
    let world = World::new();
    for (name, tree) in world.trees() {
        let mut odd = vec!["fifo", "socket"];
        odd.extend(is_root().then_some(["null", "disk"]).into_iter().flatten());
        let names = tree.names("").unwrap();
        for path in odd {
            assert!(names.contains(&path.to_owned()), "{name}: {path}");
            for access in [Access::reading(), Access::writing(), Access::creating(0o644)] {
                let answer = tree.open(&tree.at(path, Follow::Yes).unwrap(), &access, &mut Room::unlimited());
                assert!(matches!(fault(answer), Some(Fault::Unsupported(_))), "{name}: {path}");
            }
            assert!(
                matches!(fault(tree.put(path, b"x")), Some(Fault::Unsupported(_))),
                "{name}: {path}"
            );
            assert!(
                matches!(fault(tree.mode(path, 0o777)), Some(Fault::Unsupported(_))),
                "{name}: {path}"
            );
        }
        let page = tree.list(&tree.at("", Follow::Yes).unwrap(), None, 1000).unwrap();
        assert_eq!(page.unnamed, 2, "{name}: names that cannot be told are counted");
        assert_eq!(
            tree.read("Sub").unwrap(),
            b"another",
            "{name}: names differ by their case"
        );
    }
    let overlay = &world.trees()[2].1;
    overlay.gone("fifo", Removal::File).unwrap();
    assert_eq!(
        fault(overlay.at("fifo", Follow::No).and_then(|place| overlay.stat(&place))),
        Some(Fault::NotFound)
    );
    assert!(world.path("tree/fifo").exists());
    also_as_user(name_of(devices_are_not_opened));
}

/// A file of the lower layer that has another name outside is read, as a file of the project; what is written never reaches it.
#[test]
fn hard_links_are_not_written_through() {
    let world = World::new();
    let outside = fingerprint(&world.path("outside/sub"));
    let lower = &world.trees()[2].1;
    assert_eq!(lower.read("hard").unwrap(), b"secret");
    lower.write("hard", &Access::writing(), 0, b"XX").unwrap();
    assert_eq!(lower.read("hard").unwrap(), b"XXcret");
    lower.put("hard", b"new").unwrap();
    lower.mode("hard", 0o777).unwrap();
    lower.moved("hard", "soft").unwrap();
    lower.gone("soft", Removal::File).unwrap();
    assert_eq!(fs::read(world.path("outside/secret")).unwrap(), b"secret");
    assert_eq!(fs::read(world.path("tree/hard")).unwrap(), b"secret");
    let plain = &world.trees()[0].1;
    plain.put("hard", b"new").unwrap();
    assert_eq!(fs::read(world.path("outside/secret")).unwrap(), b"secret");
    assert_eq!(fingerprint(&world.path("outside/sub")), outside);
    also_as_user(name_of(hard_links_are_not_written_through));
}

/// The root is itself: it is not removed, renamed, replaced or left.
#[test]
fn the_root_stays() {
    let world = World::new();
    for (name, tree) in world.trees() {
        let all = Removal::Tree { entries_max: 10_000 };
        assert_eq!(fault(tree.gone("", all)), Some(Fault::Busy), "{name}");
        assert_eq!(fault(tree.gone("", Removal::Dir)), Some(Fault::Busy), "{name}");
        assert_eq!(fault(tree.moved("", "sub/x")), Some(Fault::Busy), "{name}");
        assert_eq!(fault(tree.moved("sub", "")), Some(Fault::Busy), "{name}");
        assert_eq!(fault(tree.put("", b"x")), Some(Fault::IsADirectory), "{name}");
        assert_eq!(fault(tree.read("")), Some(Fault::IsADirectory), "{name}");
        assert_eq!(fault(tree.dir("")), Some(Fault::Exists), "{name}");
        assert_eq!(fault(tree.link("", "x")), Some(Fault::Exists), "{name}");
        tree.mode("", 0o755).unwrap();
    }
    also_as_user(name_of(the_root_stays));
}

/// Names that are as long as names may be, and one byte longer.
#[test]
fn long_names_are_names_or_errors() {
    let world = World::new();
    for (name, tree) in world.trees() {
        let longest = "n".repeat(255);
        tree.put(&longest, b"long").unwrap();
        assert_eq!(tree.read(&longest).unwrap(), b"long", "{name}");
        tree.gone(&longest, Removal::File).unwrap();
        let text = format!("workspace://{}", "n".repeat(4096));
        assert!(
            matches!(fault(VirtualPath::parse(&text)), Some(Fault::Invalid(_))),
            "{name}"
        );
        tree.link("toolong", &"l".repeat(256)).unwrap();
        assert!(matches!(fault(tree.read("toolong")), Some(Fault::Invalid(_))), "{name}");
        tree.gone("toolong", Removal::File).unwrap();
        let wide = "../".repeat(1300);
        tree.link("wide", &wide).unwrap();
        assert_eq!(fault(tree.read("wide")), Some(Fault::Escapes), "{name}");
        tree.gone("wide", Removal::File).unwrap();
        assert!(
            matches!(fault(tree.link("none", "a\0b")), Some(Fault::Invalid(_))),
            "{name}"
        );
        assert!(
            matches!(fault(tree.link("none", &"l".repeat(4096))), Some(Fault::Invalid(_))),
            "{name}"
        );
    }
    also_as_user(name_of(long_names_are_names_or_errors));
}

/// What the system is asked stays below, whoever asks: what no guest can say is refused too, both ways of opening.
#[test]
fn beneath_refuses_what_is_not_below() {
    let world = World::new();
    for dir in [world.open("tree"), world.open("tree").walking()] {
        for path in [
            "..",
            "../outside",
            "sub/..",
            "sub/../..",
            "/",
            "/etc",
            "sub//file",
            "./sub",
            "sub/",
            "a\0b",
        ] {
            let path = Path::new(path);
            dir.dir(path).unwrap_err();
            dir.handle(path).unwrap_err();
            dir.stat(path).unwrap_err();
            dir.remove(path).unwrap_err();
            dir.make_dir(path, 0o755).unwrap_err();
        }
        for (through, at) in [
            ("updir/secret", "updir"),
            ("itself/secret", "itself"),
            ("proc/etc/passwd", "proc"),
        ] {
            let error = dir.file(Path::new(through), rustix::fs::OFlags::RDONLY, 0).unwrap_err();
            assert_eq!(error, rustix::io::Errno::LOOP, "{through}");
            assert_eq!(dir.dir(Path::new(at)).unwrap_err(), rustix::io::Errno::LOOP, "{at}");
            assert_eq!(
                dir.set_mode(Path::new(at), 0o777).unwrap_err(),
                rustix::io::Errno::LOOP,
                "{at}"
            );
        }
    }
    also_as_user(name_of(beneath_refuses_what_is_not_below));
}

/// What is a view of the running system is not read, though it looks like a file: a root may have it mounted below.
#[test]
fn views_of_the_system_are_not_files() {
    let system = Beneath::open(Path::new("/proc")).unwrap();
    for name in ["version", "self/environ", "1/status"] {
        let opened = system.file(Path::new(name), rustix::fs::OFlags::RDONLY, 0);
        assert!(opened.is_err(), "{name}");
    }
    let version = system.file(Path::new("version"), rustix::fs::OFlags::RDONLY, 0);
    assert_eq!(version.unwrap_err(), rustix::io::Errno::NOTSUP);
}
