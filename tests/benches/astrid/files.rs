//! Trees of files: what it costs that links are followed by us, and that there are two layers; against cap-std on the same directory.
//!
//! `ASTRID_BENCH_FILES` names a directory on another file system, for the large copy.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use astrid_kernel::vfs::Tree;
use astrid_kernel::vfs::beneath::Beneath;
use astrid_kernel::vfs::opened::Access;
use astrid_kernel::vfs::overlay::Overlay;
use astrid_kernel::vfs::path::{Follow, VirtualPath};
use astrid_kernel::vfs::plain::Plain;
use astrid_kernel::vfs::space::Room;
use cap_std::ambient_authority;
use cap_std::fs::Dir;

use crate::{line, pair, per_unit};

/// Times that each small thing is done in a round.
const TIMES: u64 = 2000;

/// Names in the directory that is listed.
const NAMES: usize = 10_000;

/// Bytes of the file that is copied up.
const LARGE_BYTES: u64 = 1 << 30;

/// A file, three directories down: what a path in a project is like.
const FILE: &str = "src/a/b/file";

struct Bed {
    base: tempfile::TempDir,
}

impl Bed {
    fn new(within: &Path) -> Self {
        let base = tempfile::tempdir_in(within).unwrap();
        for name in ["lower/src/a/b", "lower/many", "upper", "work"] {
            fs::create_dir_all(base.path().join(name)).unwrap();
        }
        fs::write(base.path().join("lower").join(FILE), [7; 4096]).unwrap();
        fs::write(base.path().join("lower/src/a/b/large"), vec![7; 1 << 20]).unwrap();
        Self { base }
    }

    fn open(&self, name: &str) -> Beneath {
        Beneath::open(&self.base.path().join(name)).unwrap()
    }

    fn plain(&self) -> Tree {
        Tree::Plain(Plain::new(self.open("lower")))
    }

    fn overlay(&self) -> Tree {
        Tree::Overlay(Overlay::new(self.open("lower"), self.open("upper"), self.open("work")).unwrap())
    }

    fn dir(&self) -> Dir {
        Dir::open_ambient_dir(self.base.path().join("lower"), ambient_authority()).unwrap()
    }
}

fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(&format!("workspace://{text}")).unwrap()
}

fn read(tree: &Tree, text: &str, bytes: &mut [u8]) {
    let place = tree.resolve(&path(text), Follow::Yes).unwrap();
    let file = tree.open(&place, &Access::reading(), &mut Room::of(0)).unwrap();
    assert_eq!(file.read_at(bytes, 0).unwrap(), bytes.len());
}

fn replace(tree: &Tree, text: &str, bytes: &[u8]) {
    let room = &mut Room::unlimited();
    let place = tree.resolve(&path(text), Follow::Yes).unwrap();
    let mut replacing = tree.begin_replace(&place, 0o644).unwrap();
    replacing.write(bytes, room).unwrap();
    tree.publish(replacing, room).unwrap();
}

pub fn run() {
    let bed = Bed::new(&std::env::temp_dir());
    let dir = bed.dir();
    for (name, tree) in [("plain", bed.plain()), ("overlay", bed.overlay())] {
        small(name, &tree, &dir, 4096, FILE);
        small(name, &tree, &dir, 1 << 20, "src/a/b/large");
    }
    listing(&bed);
    let within = std::env::var_os("ASTRID_BENCH_FILES").map_or_else(std::env::temp_dir, PathBuf::from);
    copy_up(&within);
}

fn small(name: &str, tree: &Tree, dir: &Dir, bytes: usize, file: &str) {
    let times = TIMES / (bytes as u64 / 4096).clamp(1, 20);
    let (mut buffer, mut other) = (vec![0; bytes], vec![0; bytes]);
    let (ours, limit) = pair(
        || per_unit(times, || (0..times).for_each(|_| read(tree, file, &mut buffer))),
        || {
            per_unit(times, || {
                (0..times).for_each(|_| dir.open(file).unwrap().read_exact(&mut other).unwrap())
            })
        },
    );
    line(
        &format!("{name}: open, read {bytes} B, close"),
        ours,
        "cap-std",
        limit,
        "",
    );
    let place = tree.resolve(&path(file), Follow::Yes).unwrap();
    let open = tree.open(&place, &Access::writing(), &mut Room::unlimited()).unwrap();
    let bare = dir
        .open_with(file, cap_std::fs::OpenOptions::new().read(true).write(true))
        .unwrap()
        .into_std();
    let (ours, limit) = pair(
        || {
            per_unit(times, || {
                (0..times).for_each(|_| assert_eq!(open.read_at(&mut buffer, 0).unwrap(), bytes))
            })
        },
        || {
            per_unit(times, || {
                (0..times).for_each(|_| bare.read_exact_at(&mut other, 0).unwrap())
            })
        },
    );
    line(
        &format!("{name}: read {bytes} B of an open file"),
        ours,
        "cap-std",
        limit,
        "",
    );
    let mut room = Room::unlimited();
    let (ours, limit) = pair(
        || {
            per_unit(times, || {
                (0..times).for_each(|_| open.write_at(&buffer, 0, &mut room).unwrap())
            })
        },
        || per_unit(times, || (0..times).for_each(|_| bare.write_all_at(&other, 0).unwrap())),
    );
    line(
        &format!("{name}: write {bytes} B of an open file"),
        ours,
        "cap-std",
        limit,
        "",
    );
    let (ours, limit) = pair(
        || per_unit(times, || (0..times).for_each(|_| replace(tree, file, &buffer))),
        || {
            per_unit(times, || {
                for _ in 0..times {
                    dir.create("src/a/b/new").unwrap().write_all(&other).unwrap();
                    dir.rename("src/a/b/new", dir, file).unwrap();
                }
            })
        },
    );
    line(
        &format!("{name}: replace a file by {bytes} B"),
        ours,
        "cap-std, write and rename",
        limit,
        "",
    );
}

/// One page after the other of a large directory, of which half is in each layer.
fn listing(bed: &Bed) {
    for number in 0..NAMES {
        fs::write(bed.base.path().join(format!("lower/many/name-{number}")), b"").unwrap();
    }
    let dir = bed.dir();
    let (plain, overlay) = (bed.plain(), bed.overlay());
    for number in (0..NAMES).step_by(2) {
        replace(&overlay, &format!("many/name-{number}"), b"");
    }
    for (name, tree, page) in [
        ("plain", &plain, NAMES),
        ("overlay", &overlay, NAMES),
        ("overlay", &overlay, 1000),
    ] {
        let list = || {
            let place = tree.resolve(&path("many"), Follow::Yes).unwrap();
            let (mut after, mut found) = (None, 0);
            loop {
                let page = tree.list(&place, after.as_deref(), page).unwrap();
                found += page.entries.len();
                after = page.entries.last().map(|entry| entry.name.clone());
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, NAMES);
        };
        let bare = || {
            let mut names: Vec<_> = dir
                .read_dir("many")
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            assert_eq!(names.len(), NAMES);
        };
        let (ours, limit) = pair(|| per_unit(1, list), || per_unit(1, bare));
        line(
            &format!("{name}: list {NAMES} names, {page} a page"),
            ours,
            "cap-std, sorted",
            limit,
            "",
        );
    }
}

/// What the first byte that is written costs: all of the file, unless the file system shares blocks.
fn copy_up(within: &Path) {
    let bed = Bed::new(within);
    let lower = bed.base.path().join("lower/huge");
    let mut huge = fs::File::create(&lower).unwrap();
    for _ in 0..LARGE_BYTES >> 20 {
        huge.write_all(&[7; 1 << 20]).unwrap();
    }
    huge.sync_all().unwrap();
    let tree = bed.overlay();
    let place = tree.resolve(&path("huge"), Follow::Yes).unwrap();
    let ours = || {
        let took = per_unit(1, || {
            let room = &mut Room::unlimited();
            tree.open(&place, &Access::writing(), room)
                .unwrap()
                .write_at(b"x", 0, room)
                .unwrap();
        });
        fs::remove_file(bed.base.path().join("upper/huge")).unwrap();
        took
    };
    let copy = bed.base.path().join("copy");
    let bare = || {
        let took = per_unit(1, || assert_eq!(fs::copy(&lower, &copy).unwrap(), LARGE_BYTES));
        fs::remove_file(&copy).unwrap();
        took
    };
    let (ours, limit) = pair(ours, bare);
    line(
        "overlay: the first write of a file of 1 GiB",
        ours,
        "std::fs::copy",
        limit,
        "",
    );
}
