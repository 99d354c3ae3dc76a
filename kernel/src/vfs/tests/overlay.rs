//! What the upper layer looks like on disk after this and that, and what an overlay does at its edges.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::XattrFlags;

use super::super::beneath::{Beneath, ENTRY_BYTES, FileType};
use super::super::error::Fault;
use super::super::layer::{self, Kind};
use super::super::opened::Access;
use super::super::path::{Follow, Place};
use super::super::space::{self, Room};
use super::super::temporary::TEMPORARY;
use super::super::{Removal, Renaming, Tree};
use super::bed::{Bed, RENAMING, Use, also_as_user, fault, fingerprint, name_of, plain, view_of};

const ALL: Removal = Removal::Tree { entries_max: 1000 };

/// A small project.
fn bed() -> Bed {
    Bed::new(|lower| {
        fs::create_dir_all(lower.join("d/e")).unwrap();
        fs::write(lower.join("f"), b"lower").unwrap();
        fs::write(lower.join("d/f"), b"lower").unwrap();
        fs::write(lower.join("d/e/f"), vec![7; 10_000]).unwrap();
        symlink("d/f", lower.join("l")).unwrap();
        fs::set_permissions(lower.join("d"), fs::Permissions::from_mode(0o751)).unwrap();
    })
}

fn upper(bed: &Bed, path: &str) -> Option<Kind> {
    let path = bed.path("upper").join(path);
    let dir = layer::open_root(path.parent()?).ok()?;
    let entry = layer::look(&dir, path.file_name()?).unwrap()?;
    Some(entry.kind)
}

fn opaque(bed: &Bed, path: &str) -> bool {
    layer::is_opaque(layer::open_root(&bed.path("upper").join(path)).unwrap()).unwrap()
}

fn origin(bed: &Bed, path: &str) -> bool {
    layer::has_origin(fs::File::open(bed.path("upper").join(path)).unwrap()).unwrap()
}

fn is_written(tree: &Tree, path: &str) -> bool {
    tree.stat(&tree.at(path, Follow::No).unwrap()).unwrap().written
}

/// What is only read leaves nothing above.
#[test]
fn reading_copies_nothing() {
    let bed = bed();
    let tree = bed.overlay();
    assert_eq!(tree.read("l").unwrap(), b"lower");
    tree.view(true);
    assert_eq!(tree.view(true), view_of(&bed.path("lower"), true));
    assert!(tree.write("none", &Access::writing(), 0, b"x").is_err());
    assert!(tree.moved("none", "d/x").is_err());
    assert!(tree.dir("f").is_err() && tree.gone("d", Removal::Dir).is_err());
    assert_eq!(fs::read_dir(bed.path("upper")).unwrap().count(), 0);
    assert!(!is_written(&tree, "d/f") && tree.has_layers());
}

/// A write at a place copies the file up, with what it is, and the directories on the way; a whole new content does not need the old one.
#[test]
fn writing_copies_what_it_needs() {
    let bed = bed();
    let tree = bed.overlay();
    let lower = fs::metadata(bed.path("lower/d")).unwrap();
    tree.write("d/e/f", &Access::writing(), 5, b"xx").unwrap();
    assert!(origin(&bed, "d/e/f"));
    let raised = fs::metadata(bed.path("upper/d")).unwrap();
    assert_eq!(raised.permissions().mode(), lower.permissions().mode());
    assert_eq!(
        (raised.mtime(), raised.mtime_nsec()),
        (lower.mtime(), lower.mtime_nsec())
    );
    assert!(is_written(&tree, "d/e/f") && is_written(&tree, "d") && !is_written(&tree, "d/f"));
    let mut room = Room::of(4096 + ENTRY_BYTES);
    let mut replacing = tree
        .begin_replace(&tree.at("d/f", Follow::Yes).unwrap(), 0o600)
        .unwrap();
    replacing.write(b"new", &mut room).unwrap();
    replacing.sync().unwrap();
    tree.publish(replacing, &mut room).unwrap();
    assert!(origin(&bed, "d/f"), "what takes the place of a lower file says so");
    assert_eq!((room.grown(), room.left()), (5120, 0));
    assert_eq!(
        fs::metadata(bed.path("upper/d/f")).unwrap().mode() & 0o777,
        0o644,
        "it keeps its mode"
    );
    assert_eq!(fs::read(bed.path("lower/d/f")).unwrap(), b"lower");
}

/// Removing leaves whiteouts, and nothing where nothing is below; what is made in the place of what was removed hides it.
#[test]
fn removing_leaves_whiteouts() {
    let bed = bed();
    let tree = bed.overlay();
    tree.gone("f", Removal::File).unwrap();
    assert_eq!(upper(&bed, "f"), Some(Kind::Whiteout));
    tree.put("f", b"again").unwrap();
    assert_eq!(upper(&bed, "f"), Some(Kind::File));
    tree.put("mine", b"").unwrap();
    tree.gone("mine", Removal::File).unwrap();
    assert_eq!(upper(&bed, "mine"), None);
    assert_eq!(fault(tree.gone("d", Removal::Dir)), Some(Fault::NotEmpty));
    tree.put("d/new", b"x").unwrap();
    tree.gone("d", ALL).unwrap();
    assert_eq!(upper(&bed, "d"), Some(Kind::Whiteout));
    assert_eq!(fault(tree.read("d/f")), Some(Fault::NotFound));
    tree.dir("d").unwrap();
    assert!(opaque(&bed, "d"));
    assert_eq!(tree.names("d").unwrap(), Vec::<String>::new());
    tree.gone("d", Removal::Dir).unwrap();
    assert_eq!(upper(&bed, "d"), Some(Kind::Whiteout));
    tree.link("d", "f").unwrap();
    assert_eq!(tree.read("d").unwrap(), b"again");
    assert_eq!(fs::read_dir(bed.path("work")).unwrap().count(), 0);
}

/// A directory of which every entry was removed is empty, and removed by a whiteout.
#[test]
fn a_merged_directory_can_be_emptied() {
    let bed = bed();
    let tree = bed.overlay();
    tree.gone("d/e/f", Removal::File).unwrap();
    tree.gone("d/e", Removal::Dir).unwrap();
    assert_eq!(upper(&bed, "d/e"), Some(Kind::Whiteout));
    tree.gone("d/f", Removal::File).unwrap();
    tree.gone("d", Removal::Dir).unwrap();
    assert_eq!(upper(&bed, "d"), Some(Kind::Whiteout));
}

/// Renames: a whiteout stays where something is below; a directory that has a part below is copied up, whole, and only if it is not too large.
#[test]
fn renaming_copies_directories() {
    let bed = bed();
    let tree = bed.overlay();
    tree.moved("f", "g").unwrap();
    assert_eq!(
        (upper(&bed, "f"), upper(&bed, "g")),
        (Some(Kind::Whiteout), Some(Kind::File))
    );
    assert!(!origin(&bed, "g"), "nothing is below its new place");
    let at = |path| tree.at(path, Follow::No).unwrap();
    let limited = |how: Renaming| fault(tree.rename(&at("d"), &at("x"), &how, &mut Room::unlimited()));
    assert_eq!(
        limited(Renaming {
            entries_max: 2,
            ..RENAMING
        }),
        Some(Fault::TooMany(2))
    );
    assert_eq!(
        limited(Renaming {
            bytes_max: 9000,
            ..RENAMING
        }),
        Some(Fault::TooLarge(9000))
    );
    let tight = fault(tree.rename(&at("d"), &at("x"), &RENAMING, &mut Room::of(10_000)));
    assert!(matches!(tight, Some(Fault::NoSpace { .. })));
    assert_eq!(upper(&bed, "d"), None, "nothing was copied");
    let same = Renaming {
        replace: false,
        ..RENAMING
    };
    assert_eq!(
        fault(tree.rename(&at("d"), &at("g"), &same, &mut Room::unlimited())),
        Some(Fault::Exists)
    );
    tree.gone("d/f", Removal::File).unwrap();
    tree.moved("d", "x").unwrap();
    assert_eq!(upper(&bed, "d"), Some(Kind::Whiteout));
    assert_eq!(upper(&bed, "x/f"), None, "whiteouts are not carried along");
    assert_eq!(tree.read("x/e/f").unwrap().len(), 10_000);
    tree.moved("x", "d").unwrap();
    assert_eq!((opaque(&bed, "d"), upper(&bed, "x")), (true, None));
    assert_eq!(tree.names("d").unwrap(), ["e"]);
}

/// What would not fit is refused before anything is written; what fits is counted as the disk counts it.
#[test]
fn nothing_is_written_that_does_not_fit() {
    let bed = bed();
    let tree = bed.overlay();
    let used = || space::usage(&Beneath::open(&bed.path("upper")).unwrap(), 1000).unwrap();
    let empty = used();
    let place = |path| tree.at(path, Follow::Yes).unwrap();
    let mut none = Room::of(4096);
    for answer in [
        fault(tree.open(&place("d/e/f"), &Access::writing(), &mut none)),
        fault(tree.set_mode(&place("d/e/f"), 0o600, &mut none)),
    ] {
        assert!(matches!(answer, Some(Fault::NoSpace { .. })), "{answer:?}");
    }
    assert_eq!(used(), empty);
    let mut room = Room::of(1 << 20);
    let file = tree.open(&place("d/e/f"), &Access::writing(), &mut room).unwrap();
    file.write_at(&[1; 100_000], 4096, &mut room).unwrap();
    tree.dir("d/e/new").unwrap();
    assert_eq!(room.grown() + 5120, i64::try_from(used().bytes - empty.bytes).unwrap());
    let before = used();
    let mut little = Room::of(8191);
    let refused = file.write_at(&[1; 8192], 1 << 20, &mut little);
    assert_eq!(
        fault(refused),
        Some(Fault::NoSpace {
            needed: 8192,
            left: 8191
        })
    );
    file.write_at(&[2; 8192], 0, &mut Room::of(0)).unwrap();
    assert_eq!(used(), before, "what is overwritten takes nothing");
    file.set_len(0, &mut little).unwrap();
    assert!(little.grown() < 0 && little.left() > 8191, "what is cut is given back");
    let over = file.write_at(b"x", u64::MAX, &mut Room::unlimited());
    assert!(matches!(fault(over), Some(Fault::TooLarge(_))));
    tree.gone("d", ALL).unwrap();
    let mut dropped = tree.begin_replace(&place("f"), 0o600).unwrap();
    dropped.write(&[0; 5000], &mut little).unwrap();
    little.gave_up(dropped.allocated().unwrap());
    drop(dropped);
    assert_eq!(
        fs::read_dir(bed.path("work")).unwrap().count(),
        0,
        "a content that was dropped is gone"
    );
    assert_eq!(
        used().bytes,
        empty.bytes,
        "and everything that was made is, but for a whiteout"
    );
}

/// What has no content takes something all the same, in both kinds of trees: nobody fills a disk with names.
#[test]
fn empty_files_are_not_free() {
    let bed = bed();
    let plain_root = tempfile::tempdir().unwrap();
    for (tree, root) in [
        (bed.overlay(), bed.path("upper")),
        (plain(plain_root.path()), plain_root.path().to_owned()),
    ] {
        let used = || space::usage(&Beneath::open(&root).unwrap(), 1000).unwrap().bytes;
        let before = used();
        let place = |path| tree.at(path, Follow::No).unwrap();
        let mut making = Access::writing();
        making.create = true;
        let mut room = Room::of(3 * ENTRY_BYTES);
        tree.open(&place("one"), &making, &mut room).unwrap();
        tree.make_link(&place("two"), "nowhere", &mut room).unwrap();
        let three = tree.begin_replace(&place("three"), 0o600).unwrap();
        tree.publish(three, &mut room).unwrap();
        assert_eq!((room.left(), used() - before), (0, 3 * ENTRY_BYTES));
        let four = tree.begin_replace(&place("four"), 0o600).unwrap();
        for refused in [
            fault(tree.open(&place("four"), &making, &mut room)),
            fault(tree.make_link(&place("four"), "nowhere", &mut room)),
            fault(tree.make_dir(&place("four"), 0o700, &mut room)),
            fault(tree.publish(four, &mut room)),
        ] {
            assert!(matches!(refused, Some(Fault::NoSpace { .. })), "{refused:?}");
        }
        tree.remove(&place("one"), Removal::File, &mut room).unwrap();
        assert_eq!(room.left(), ENTRY_BYTES);
        // What takes the place of another takes nothing more.
        let two = tree.begin_replace(&place("three"), 0o600).unwrap();
        tree.publish(two, &mut Room::of(0)).unwrap();
    }
}

/// What is closed is counted as well, and has the mode that it had; what is too deep to be counted is an error.
#[test]
fn nothing_is_hidden_from_the_count() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path("closed/in")).unwrap();
    fs::write(path("closed/in/big"), vec![1; 100_000]).unwrap();
    for (name, mode) in [("closed/in", 0), ("closed", 0o300)] {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let used = || space::usage(&Beneath::open(root.path()).unwrap(), 5000);
    assert!(used().unwrap().bytes > 100_000);
    assert_eq!(fs::metadata(path("closed")).unwrap().mode() & 0o777, 0o300);
    fs::set_permissions(path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::metadata(path("closed/in")).unwrap().mode() & 0o777, 0);
    fs::set_permissions(path("closed/in"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut deep = root.path().to_owned();
    for _ in 0..600 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    assert!(matches!(used(), Err(Fault::Unsupported(_))));
    also_as_user("vfs::tests::overlay::nothing_is_hidden_from_the_count");
}

/// Pages follow each other by names, whatever is made meanwhile, and merge both layers.
#[test]
fn listing_goes_on_after_a_name() {
    let bed = Bed::new(|lower| {
        for number in (0..100).step_by(2) {
            fs::write(lower.join(format!("n{number:02}")), b"").unwrap();
        }
        fs::write(lower.join(OsStr::from_bytes(b"\xff")), b"").unwrap();
    });
    let tree = bed.overlay();
    for number in (1..100).step_by(2) {
        tree.put(&format!("n{number:02}"), b"").unwrap();
    }
    tree.gone("n50", Removal::File).unwrap();
    fs::write(bed.path("upper").join(format!("{TEMPORARY}1")), b"").unwrap();
    let root = tree.at("", Follow::Yes).unwrap();
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let page = tree.list(&root, after.as_deref(), 7).unwrap();
        assert!(page.entries.len() <= 7 && page.unnamed == 1);
        names.extend(page.entries.iter().map(|entry| (entry.name.clone(), entry.written)));
        after = page.entries.last().map(|entry| entry.name.clone());
        tree.put("n00+", b"made meanwhile, before the cursor").unwrap();
        if !page.more {
            break;
        }
    }
    let expected = (0..100).filter(|number| *number != 50);
    let expected: Vec<_> = expected
        .map(|number| (format!("n{number:02}"), number % 2 == 1))
        .collect();
    assert_eq!(names, expected);
    assert_eq!(
        fault(tree.list(&tree.child(&root, "n01").unwrap(), None, 7)),
        Some(Fault::NotADirectory)
    );
}

/// What a crash left in the work directory is removed, and nothing else.
#[test]
fn leftovers_are_removed() {
    let bed = bed();
    let work = bed.path("work");
    fs::create_dir_all(work.join(format!("{TEMPORARY}0/a/b"))).unwrap();
    fs::write(work.join(format!("{TEMPORARY}0/a/b/c")), b"x").unwrap();
    fs::write(work.join(format!("{TEMPORARY}1")), b"x").unwrap();
    fs::create_dir(work.join("work")).unwrap();
    bed.overlay();
    let left: Vec<_> = fs::read_dir(work)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["work"]);
}

/// Marks that another overlay made: whiteouts that are empty files, and `impure`, which says nothing to us.
#[test]
fn other_marks_are_read() {
    let bed = bed();
    let dir = bed.path("upper/d");
    fs::create_dir(&dir).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    fs::write(dir.join("f"), b"").unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    set(&dir.join("f"), "user.overlay.whiteout", b"y");
    set(&dir, "user.overlay.opaque", b"x");
    set(&bed.path("upper"), "user.overlay.impure", b"y");
    let tree = bed.overlay();
    assert_eq!(tree.names("d").unwrap(), ["e", "empty"]);
    assert_eq!(fault(tree.read("d/f")), Some(Fault::NotFound));
    assert_eq!(tree.read("d/empty").unwrap(), b"");
    tree.put("d/f", b"new").unwrap();
    assert_eq!(tree.read("d/f").unwrap(), b"new");
    tree.gone("d", ALL).unwrap();
    assert_eq!(tree.names("").unwrap(), ["f", "l"]);
}

/// Devices of the lower layer are seen, and neither copied nor moved; a directory with one is not moved either.
#[test]
fn what_cannot_be_copied_stays() {
    let bed = bed();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        bed.path("lower/d/p"),
        FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let tree = bed.overlay();
    let before = fingerprint(&bed.path("lower"));
    assert!(matches!(fault(tree.moved("d/p", "p")), Some(Fault::Unsupported(_))));
    assert!(matches!(fault(tree.moved("d", "x")), Some(Fault::Unsupported(_))));
    assert!(matches!(fault(tree.time("d/p", 7)), Some(Fault::Unsupported(_))));
    tree.gone("d/p", Removal::File).unwrap();
    tree.moved("d", "x").unwrap();
    assert_eq!(fingerprint(&bed.path("lower")), before);
}

/// What a guest wrote does not run as somebody else.
#[test]
fn what_is_written_has_no_set_id() {
    let bed = bed();
    for name in ["f", "d/f"] {
        fs::set_permissions(bed.path("lower").join(name), fs::Permissions::from_mode(0o6755)).unwrap();
    }
    for tree in [bed.overlay(), bed.plain()] {
        tree.write("f", &Access::writing(), 0, b"x").unwrap();
        tree.put("d/f", b"x").unwrap();
        tree.mode("d/e/f", 0o7777).unwrap();
        let mode = |path| tree.stat(&tree.at(path, Follow::No).unwrap()).unwrap().stat.mode;
        assert_eq!((mode("f"), mode("d/f"), mode("d/e/f")), (0o755, 0o755, 0o777));
    }
}

/// A directory that may not be written in does not keep a file in it from being written, nor from being removed with it.
#[test]
fn closed_directories_are_copied() {
    let bed = bed();
    for name in ["lower/d/e", "lower/d"] {
        fs::set_permissions(bed.path(name), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let tree = bed.overlay();
    tree.write("d/e/f", &Access::writing(), 0, b"UP").unwrap();
    tree.put("d/f", b"new")
        .map_err(|error| error.fault)
        .or_else(|fault| if fault == Fault::Denied { Ok(()) } else { Err(fault) })
        .unwrap();
    assert_eq!(&tree.read("d/e/f").unwrap()[..3], b"UP\x07");
    assert_eq!(fs::metadata(bed.path("upper/d/e")).unwrap().mode() & 0o777, 0o555);
    tree.gone("d", ALL).unwrap();
    assert_eq!(fs::read_dir(bed.path("work")).unwrap().count(), 0);
    for name in ["lower/d", "lower/d/e"] {
        fs::set_permissions(bed.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    also_as_user(name_of(closed_directories_are_copied));
}

/// What is open stays what it was; what is watched is what both layers have.
#[test]
fn handles_are_of_what_was_there() {
    let bed = bed();
    let tree = bed.overlay();
    let place = |path| tree.at(path, Follow::Yes).unwrap();
    let old = tree.open(&place("d/f"), &Access::reading(), &mut Room::of(0)).unwrap();
    tree.write("d/f", &Access::writing(), 0, b"UP").unwrap();
    let mut bytes = [0; 5];
    old.read_at(&mut bytes, 0).unwrap();
    assert_eq!(
        (&bytes, tree.read("d/f").unwrap().as_slice()),
        (b"lower", b"UPwer".as_slice())
    );
    assert!(
        fault(old.write_at(b"x", 0, &mut Room::unlimited())).is_some(),
        "it was opened to be read"
    );
    let watched = |place: &Place| tree.watched(place).unwrap().len();
    assert_eq!(
        (watched(&place("d/f")), watched(&place("f")), watched(&place("d/e"))),
        (2, 1, 2)
    );
    assert_eq!(
        upper(&bed, "d/e"),
        Some(Kind::Directory),
        "a directory that is watched is there to be written"
    );
}

/// A tree can be used from several threads: writers take turns, and everybody's changes are there.
#[test]
fn writers_take_turns() {
    let bed = bed();
    let tree = bed.overlay();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let tree = &tree;
            scope.spawn(move || {
                for round in 0..50 {
                    tree.put(&format!("d/e/{thread}-{round}"), b"x").unwrap();
                    tree.write(
                        "d/f",
                        &Access {
                            append: true,
                            ..Access::writing()
                        },
                        0,
                        b"+",
                    )
                    .unwrap();
                    let (from, to) = (format!("d/e/{thread}-{round}"), format!("d/{thread}-{round}"));
                    tree.moved(&from, &to).unwrap();
                }
            });
        }
    });
    assert_eq!(tree.names("d").unwrap().len(), 202);
    assert_eq!(tree.names("d/e").unwrap(), ["f"]);
    assert_eq!(tree.read("d/f").unwrap().len(), 5 + 200);
}

fn is_shared<T: Send + Sync>() {}

#[test]
fn trees_are_shared() {
    is_shared::<Tree>();
    is_shared::<super::super::opened::OpenFile>();
    is_shared::<super::super::opened::Replacing>();
}
