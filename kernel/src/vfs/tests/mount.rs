//! The kernel's own overlay of the same layers shows the same tree, and what is done through it is shown by ours.

#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::beneath::Beneath;
use super::super::error::{Fault, FsError};
use super::super::opened::Access;
use super::super::overlay::Overlay;
use super::super::{Removal, Tree};
use super::bed::{Bed, Use, also_as_user, fingerprint, is_root, name_of, plain, view_of};
use super::model::{any_step, known, prepare, take};

/// Steps on our side, and as many on the kernel's.
const STEPS: usize = 200;

/// Trees that are begun with.
const TREES: u64 = 6;

/// How the part of a test that runs inside the mount is told the directory of its bed.
const INSIDE: &str = "ASTRID_TEST_MOUNTED";

/// Runs this test again where the overlay is mounted at `merged`. Says `false` where that cannot be.
fn mounted(bed: &Bed) -> bool {
    let base = bed.base.path();
    for name in ["merged", "kernelwork"] {
        fs::create_dir_all(base.join(name)).unwrap();
    }
    let options = |name: &str| base.join(name).display().to_string();
    let script = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={},workdir={},userxattr {}",
        options("lower"),
        options("upper"),
        options("kernelwork"),
        options("merged"),
    );
    again(base, &script, name_of(the_kernels_mount_shows_the_same))
}

/// Runs that test again where this was mounted. Says `false` where that cannot be.
fn again(base: &Path, mount: &str, name: &str) -> bool {
    let script = format!("{mount} || exit 77; exec \"$0\" \"$@\"");
    let output = Command::new("unshare")
        .args([if is_root() { "-m" } else { "-Urm" }, "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, base)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("NOT TESTED: there is no unshare here: {error}");
            return false;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => {
            assert!(base.join("done").exists(), "the part inside ran: {said}");
            true
        }
        Some(77 | 1) if !base.join("begun").exists() => {
            eprintln!("NOT TESTED: the kernel's overlay cannot be mounted here: {said}");
            false
        }
        status => panic!("inside the mount: {status:?}: {said}"),
    }
}

/// What happens inside the mount: the view is what it was outside, and then it is changed.
fn inside(base: &Path) {
    fs::write(base.join("begun"), b"").unwrap();
    let expected = fs::read_to_string(base.join("view")).unwrap();
    assert_eq!(
        view_of(&base.join("merged"), true),
        expected,
        "the kernel shows what we show"
    );
    let tree = plain(&base.join("merged"));
    let mut rng = StdRng::seed_from_u64(99);
    let mut paths = Vec::new();
    for number in 0..STEPS {
        if number % 20 == 0 {
            paths = known(&tree);
        }
        take(&tree, &any_step(&mut rng, &paths));
    }
    fs::write(base.join("done"), tree.view(true)).unwrap();
}

/// Ours, the kernel's, ours again.
#[test]
fn the_kernels_mount_shows_the_same() {
    if let Some(base) = std::env::var_os(INSIDE) {
        return inside(Path::new(&base));
    }
    for seed in 0..TREES {
        let bed = Bed::new(|lower| prepare(lower, seed));
        let before = fingerprint(&bed.path("lower"));
        let overlay = bed.overlay();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut paths = Vec::new();
        for number in 0..STEPS {
            if number % 20 == 0 {
                paths = known(&overlay);
            }
            take(&overlay, &any_step(&mut rng, &paths));
        }
        fs::write(bed.path("view"), overlay.view(true)).unwrap();
        if !mounted(&bed) {
            return;
        }
        let done = fs::read_to_string(bed.path("done")).unwrap();
        assert_eq!(
            bed.overlay().view(true),
            done,
            "seed {seed}: we show what the kernel showed"
        );
        assert_eq!(
            fingerprint(&bed.path("lower")),
            before,
            "seed {seed}: the lower tree is untouched"
        );
        // And on: what the kernel left is a tree like any other.
        let overlay = bed.overlay();
        for _ in 0..STEPS {
            take(&overlay, &any_step(&mut rng, &paths));
        }
        overlay.view(true);
        assert_eq!(
            fingerprint(&bed.path("lower")),
            before,
            "seed {seed}: the lower tree is untouched"
        );
    }
    also_as_user(name_of(the_kernels_mount_shows_the_same));
}

/// What is mounted below the directory that was attached is no part of it, for us as for the kernel's overlay: nothing of it is shown, read, copied
/// or written, by whatever way.
#[test]
fn what_is_mounted_below_is_no_part() {
    let Some(base) = std::env::var_os(INSIDE) else {
        let bed = Bed::new(|lower| {
            fs::create_dir_all(lower.join("way/m")).unwrap();
            fs::write(lower.join("file"), "").unwrap();
        });
        fs::create_dir_all(bed.path("secret/deep")).unwrap();
        fs::write(bed.path("secret/key"), "hidden").unwrap();
        fs::write(bed.path("secret/deep/key"), "hidden").unwrap();
        let path = |name: &str| bed.path(name).display().to_string();
        let bind = |from: &str, to: &str| format!("mount --bind {} {}", path(from), path(to));
        let mount = format!(
            "{} && {}",
            bind("secret", "lower/way/m"),
            bind("secret/key", "lower/file")
        );
        if again(bed.base.path(), &mount, name_of(what_is_mounted_below_is_no_part)) {
            assert_eq!(fs::read(bed.path("secret/key")).unwrap(), b"hidden");
        }
        return;
    };
    let base = Path::new(&base);
    fs::write(base.join("begun"), b"").unwrap();
    let open = |name: &str| Beneath::open(&base.join(name)).unwrap();
    assert_eq!(fs::read(base.join("lower/way/m/key")).unwrap(), b"hidden");
    let tree = Tree::Overlay(Overlay::new(open("lower"), open("upper"), open("work")).unwrap());
    let refused = |done: Result<(), FsError>| assert!(matches!(done.unwrap_err().fault, Fault::Unsupported(_)));
    for _ in 0..2 {
        assert_eq!(tree.names("way").unwrap(), ["m"]);
        assert!(tree.names("way/m").unwrap().is_empty());
        for gone in ["way/m/key", "way/m/deep/key"] {
            assert_eq!(tree.read(gone).unwrap_err().fault, Fault::NotFound, "{gone}");
        }
        refused(tree.read("file").map(drop));
        refused(tree.put("way/m/new", b"x"));
        refused(tree.dir("way/m/new"));
        refused(tree.gone("way/m", Removal::Dir));
        refused(tree.write("file", &Access::writing(), 0, b"x"));
        refused(tree.moved("way", "other"));
        // Also where the way to it has an upper part.
        tree.put("way/x", b"x").unwrap();
        tree.gone("way/x", Removal::File).unwrap();
    }
    fs::write(base.join("done"), b"").unwrap();
}
