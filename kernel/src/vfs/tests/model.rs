//! Random operations on an overlay and on a plain copy of what is below it give equal views, and leave what is below as it was.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::fmt::Debug;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::super::beneath::Beneath;
use super::super::opened::Access;
use super::super::{Removal, space};
use super::bed::{Bed, Use, also_as_user, fault, fingerprint, grown, is_again, name_of, view_of};

/// A few names, so that operations meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Lower trees that are begun with: what is below is soon gone or copied, and then there is nothing to merge.
const TREES: u64 = 25;

/// Steps on each.
const STEPS: usize = 400;

/// Steps between two comparisons of everything.
const COMPARED_EVERY: usize = 40;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Put(String, Vec<u8>),
    Write(String, u64, Vec<u8>),
    Create(String, Vec<u8>),
    Append(String, Vec<u8>),
    Truncate(String),
    Cut(String, u64),
    Dir(String),
    Gone(String, Removal),
    Moved(String, String),
    Link(String, String),
    Mode(String, u32),
    Time(String, i64),
    Read(String),
    Names(String),
}

/// A path that was there a moment ago, or one in it, or any.
fn some_path(rng: &mut StdRng, known: &[String]) -> String {
    let found = known.get(rng.random_range(0..known.len().max(1)));
    match (rng.random_range(0..4), found) {
        (0..=1, Some(found)) => found.clone(),
        (2, Some(found)) => format!("{found}/{}", NAMES[rng.random_range(0..NAMES.len())]),
        _ => any_path(rng),
    }
}

fn any_path(rng: &mut StdRng) -> String {
    let depth = [1, 1, 2, 2, 2, 3, 3, 4][rng.random_range(0..8)];
    let names: Vec<&str> = (0..depth).map(|_| NAMES[rng.random_range(0..NAMES.len())]).collect();
    names.join("/")
}

fn any_bytes(rng: &mut StdRng) -> Vec<u8> {
    vec![rng.random::<u8>(); rng.random_range(0..9000)]
}

fn any_target(rng: &mut StdRng) -> String {
    match rng.random_range(0..8) {
        0 => "..".to_owned(),
        1 => format!("../{}", any_path(rng)),
        2 => format!("../../{}", any_path(rng)),
        3 => "/etc/hostname".to_owned(),
        4 => ".".to_owned(),
        _ => any_path(rng),
    }
}

pub(super) fn any_step(rng: &mut StdRng, known: &[String]) -> Step {
    let at = some_path(rng, known);
    match rng.random_range(0..100) {
        0..12 => Step::Put(at, any_bytes(rng)),
        12..22 => Step::Write(at, rng.random_range(0..20_000), any_bytes(rng)),
        22..30 => Step::Create(at, any_bytes(rng)),
        30..34 => Step::Append(at, any_bytes(rng)),
        34..37 => Step::Truncate(at),
        37..41 => Step::Cut(at, rng.random_range(0..20_000)),
        41..58 => Step::Dir(at),
        58..63 => Step::Gone(at, Removal::File),
        63..67 => Step::Gone(at, Removal::Dir),
        67..69 => Step::Gone(at, Removal::Tree { entries_max: 10_000 }),
        69..85 => Step::Moved(at, some_path(rng, known)),
        85..89 => Step::Link(at, any_target(rng)),
        89..92 => Step::Mode(at, [0o711, 0o744, 0o755, 0o700, 0o777][rng.random_range(0..5)]),
        92..95 => Step::Time(at, rng.random_range(1..1_000_000)),
        95..98 => Step::Read(at),
        _ => Step::Names(at),
    }
}

/// What a step gives, as text: the fault, or what was read.
pub(super) fn take(tree: &impl Use, step: &Step) -> String {
    fn told<T: Debug>(answer: Result<T, super::super::error::FsError>) -> String {
        match answer {
            Ok(value) => format!("{value:?}"),
            error => format!("{:?}", fault(error)),
        }
    }
    let writing = Access::writing();
    let append = Access {
        append: true,
        write: true,
        create: true,
        mode: 0o640,
        ..Access::default()
    };
    let truncate = Access {
        truncate: true,
        ..writing
    };
    match step {
        Step::Put(at, bytes) => told(tree.put(at, bytes)),
        Step::Write(at, offset, bytes) => told(tree.write(at, &writing, *offset, bytes)),
        Step::Create(at, bytes) => told(tree.write(at, &Access::creating(0o664), 3, bytes)),
        Step::Append(at, bytes) => told(tree.write(at, &append, 0, bytes)),
        Step::Truncate(at) => told(tree.write(at, &truncate, 0, b"cut")),
        Step::Cut(at, length) => told(tree.cut(at, *length)),
        Step::Dir(at) => told(tree.dir(at)),
        Step::Gone(at, removal) => told(tree.gone(at, *removal)),
        Step::Moved(from, to) => told(tree.moved(from, to)),
        Step::Link(at, target) => told(tree.link(at, target)),
        Step::Mode(at, mode) => told(tree.mode(at, *mode)),
        Step::Time(at, seconds) => told(tree.time(at, *seconds)),
        Step::Read(at) => told(tree.read(at)),
        Step::Names(at) => told(tree.names(at)),
    }
}

/// A lower tree with files, links and directories under the names that steps use.
pub(super) fn prepare(lower: &Path, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for one in NAMES {
        fs::create_dir(lower.join(one)).unwrap();
        for two in NAMES {
            let at = lower.join(one).join(two);
            match rng.random_range(0..6) {
                0 => symlink(any_target(&mut rng), at).unwrap(),
                1 => fs::write(&at, any_bytes(&mut rng)).unwrap(),
                2 => {}
                _ => {
                    fs::create_dir(&at).unwrap();
                    for three in NAMES {
                        fs::write(at.join(three), any_bytes(&mut rng)).unwrap();
                    }
                    fs::create_dir_all(at.join("f/a")).unwrap();
                    fs::write(at.join("f/a/b"), b"deep").unwrap();
                    fs::set_permissions(at.join("a"), fs::Permissions::from_mode(0o751)).unwrap();
                }
            }
        }
    }
}

fn paths(view: &str) -> Vec<String> {
    view.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Paths that are there.
pub(super) fn known(tree: &impl Use) -> Vec<String> {
    paths(&tree.view(false))
}

/// What the upper layer takes on the disk.
fn used(bed: &Bed) -> i64 {
    let upper = Beneath::open(&bed.path("upper")).unwrap();
    i64::try_from(space::usage(&upper, u64::MAX).unwrap().bytes).unwrap()
}

fn run(seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let bed = Bed::new(|lower| prepare(lower, seed));
    let (mut overlay, plain) = (bed.overlay(), bed.plain());
    let before = fingerprint(&bed.path("lower"));
    let (mut succeeded, mut known) = (0, Vec::new());
    grown();
    let mut taken = used(&bed);
    for number in 0..STEPS {
        if number % COMPARED_EVERY == 0 {
            let view = overlay.view(true);
            assert_eq!(view, plain.view(true), "seed {seed}, before step {number}");
            taken += grown();
            assert_eq!(
                taken,
                used(&bed),
                "seed {seed}, before step {number}: it takes what its operations said"
            );
            known = paths(&view);
        }
        let step = any_step(&mut rng, &known);
        let (ours, expected) = (take(&overlay, &step), take(&plain, &step));
        assert_eq!(ours, expected, "seed {seed}, step {number}: {step:?}");
        succeeded += usize::from(!ours.starts_with("Some("));
        if number % 100 == 99 {
            assert_eq!(
                plain.view(true),
                view_of(&bed.path("plain"), true),
                "seed {seed}: as the system shows it"
            );
            assert_eq!(
                fs::read_dir(bed.path("work")).unwrap().count(),
                0,
                "seed {seed}: nothing is left in the work directory"
            );
            overlay = bed.overlay();
        }
    }
    assert_eq!(
        fingerprint(&bed.path("lower")),
        before,
        "seed {seed}: the lower tree is untouched"
    );
    succeeded
}

/// The model test: equal answers at every step, equal views now and then, also after the overlay was opened anew, and the lower tree untouched.
/// `ASTRID_SEED` begins elsewhere.
#[test]
fn an_overlay_is_like_a_plain_tree() {
    let first = std::env::var("ASTRID_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1000_u64);
    let trees = if is_again() { TREES / 5 } else { TREES };
    let succeeded: usize = (first..first + trees).map(run).sum();
    assert!(
        succeeded > STEPS * trees as usize / 4,
        "the steps did something: {succeeded}"
    );
    also_as_user(name_of(an_overlay_is_like_a_plain_tree));
}
