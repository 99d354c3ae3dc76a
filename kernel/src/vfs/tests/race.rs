//! A directory becomes a link to outside, and a directory again, while it is used: nothing outside is read or written.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::super::beneath::Beneath;
use super::super::error::Fault;
use super::super::opened::Access;
use super::super::overlay::Overlay;
use super::super::path::Follow;
use super::super::plain::Plain;
use super::super::space::Room;
use super::super::{Removal, Tree};
use super::bed::{Use, fault, fingerprint};

/// Times that everything is tried on each kind of tree.
const ROUNDS: usize = 1000;

/// Who stops the other thread, however it goes.
pub(in super::super) struct Stop<'a>(pub(in super::super) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Uses what `swapped` is below `base` through a tree while it changes places with a link to `base/outside`.
fn race(name: &str, base: &Path, swapped: &str, tree: &Tree) {
    let outside = fingerprint(&base.join("outside"));
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut reached = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, base.join(swapped), CWD, base.join("link"), RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let _stop = Stop(&stop);
        let mut round = 0;
        while round < ROUNDS || swaps.load(Ordering::Relaxed) == 0 {
            // The place was found while it was a directory, and is used whatever it is now.
            let Ok(place) = tree.at("d/f", Follow::Yes) else {
                std::thread::yield_now();
                continue;
            };
            round += 1;
            let room = &mut Room::unlimited();
            if let Ok(file) = tree.open(&place, &Access::reading(), room) {
                let mut bytes = [0; 16];
                let length = file.read_at(&mut bytes, 0).unwrap();
                assert_ne!(&bytes[..length], b"outside", "{name}: read");
                reached += 1;
            }
            if let Ok(file) = tree.open(&place, &Access::creating(0o644), room) {
                file.write_at(b"inside!", 0, room).unwrap();
            }
            if let Ok(mut replacing) = tree.begin_replace(&place, 0o644) {
                replacing.write(b"inside", room).unwrap();
                tree.publish(replacing, room).ok();
            }
            tree.set_mode(&place, 0o640, room).ok();
            if let Ok(names) = tree.names("d") {
                assert!(!names.contains(&"secret".to_owned()), "{name}: list");
            }
            if round % 3 == 0 {
                tree.gone("d/f", Removal::File).ok();
                tree.dir("d/sub").ok();
                tree.moved("d/f", "d/g").ok();
                tree.gone("d/sub", Removal::Tree { entries_max: 100 }).ok();
            }
        }
    });
    assert!(
        swaps.into_inner() > 0 && reached > 0,
        "{name}: it was used, and it was swapped"
    );
    assert_eq!(fingerprint(&base.join("outside")), outside, "{name}");
}

fn world(swapped: &str) -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work", "outside/sub", swapped] {
        fs::create_dir_all(base.path().join(name)).unwrap();
    }
    for name in ["f", "g", "secret", "sub/f"] {
        fs::write(base.path().join("outside").join(name), b"outside").unwrap();
    }
    fs::write(base.path().join(swapped).join("f"), b"inside").unwrap();
    std::os::unix::fs::symlink(base.path().join("outside"), base.path().join("link")).unwrap();
    base
}

#[test]
fn a_swap_in_a_plain_tree() {
    for walks in [false, true] {
        let base = world("lower/d");
        let root = Beneath::open(&base.path().join("lower")).unwrap();
        let root = if walks { root.walking() } else { root };
        race("plain", base.path(), "lower/d", &Tree::Plain(Plain::new(root)));
    }
}

#[test]
fn a_swap_in_a_layer() {
    for layer in ["lower/d", "upper/d"] {
        let base = world(layer);
        let open = |name| Beneath::open(&base.path().join(name)).unwrap();
        let overlay = Overlay::new(open("lower"), open("upper"), open("work")).unwrap();
        race(layer, base.path(), layer, &Tree::Overlay(overlay));
    }
}

/// What a place was found for and what it is now are told apart.
#[test]
fn a_place_that_became_a_link_is_changed() {
    let base = world("lower/d");
    let tree = Tree::Plain(Plain::new(Beneath::open(&base.path().join("lower")).unwrap()));
    let place = tree.at("d/f", Follow::Yes).unwrap();
    renameat_with(
        CWD,
        base.path().join("lower/d"),
        CWD,
        base.path().join("link"),
        RenameFlags::EXCHANGE,
    )
    .unwrap();
    let answer = tree.open(&place, &Access::reading(), &mut Room::unlimited());
    assert_eq!(fault(answer), Some(Fault::Changed));
}
