//! A workspace as plain files, and back.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::super::checkout::{self, CheckoutError, Imported, Made};
use super::*;

/// What is copied is what a commit makes; taken over unchanged it changes nothing, and what was changed there is what the workspace shows.
#[test]
fn a_checkout_is_worked_on_and_taken_over() {
    let expected = {
        let fixture = Fixture::corpus();
        fixture.commit_some(&[]);
        tree_of(&fixture.lower)
    };
    let fixture = Fixture::corpus();
    let before = fixture.changes();
    let plain = fixture.path("plain");
    fs::create_dir(&plain).unwrap();
    let into = layer::open_root(&plain).unwrap();
    let copy = Copy::make(&fixture, &into);
    assert_eq!(tree_of(&plain), expected);
    let nothing = copy.import(&fixture, &into);
    assert_eq!(nothing, Imported::default());
    assert_eq!(fixture.changes(), before);
    let script = "rm -r dir new-dir link; mkdir -p gone/b removed; echo again > gone/b/c; echo x > removed/x; ln -s other link; \
        chmod 600 same; echo more >> edited; cp -p touched t; echo TOUCHED > touched; truncate -s 7 touched; touch -r t touched; rm t; rm directory-to-file; mkdir directory-to-file; echo n > directory-to-file/n; mkdir dir; echo d > dir/d";
    let ran = std::process::Command::new("sh")
        .current_dir(&plain)
        .args(["-ec", script])
        .status()
        .unwrap();
    assert!(ran.success());
    copy.import(&fixture, &into);
    // As after a crash at any moment.
    copy.import(&fixture, &into);
    fixture.commit_some(&[]);
    assert_eq!(tree_of(&fixture.lower), tree_of(&plain));
}

/// What was copied, and when.
struct Copy(Made, i128);

impl Copy {
    fn make(fixture: &Fixture, into: &OwnedFd) -> Self {
        let overlay = layer::open_root(&fixture.overlay).unwrap();
        let name = OsStr::new("made");
        let mut made = checkout::make(&fixture.layers(), into, 1 << 20, &AtomicBool::new(false)).unwrap();
        made.save(&overlay, name).unwrap();
        let (loaded, since_ns) = Made::load(&overlay, name).unwrap();
        made.bytes = 0;
        assert_eq!(made, loaded);
        Self(loaded, since_ns)
    }

    fn import(&self, fixture: &Fixture, from: &OwnedFd) -> Imported {
        checkout::import(&fixture.overlay, &fixture.layers(), from, (&self.0, self.1)).unwrap()
    }
}

/// What somebody else changes in the lower while a program works on a copy is theirs, what the program has not touched is not taken over, and
/// what cannot be copied is not taken for gone.
#[test]
fn what_changes_below_meanwhile_stays() {
    let fixture = Fixture::new();
    for name in ["theirs", "dir/theirs", "removed", "moved/a", "target/a", "both"] {
        fixture.below(name, "old");
    }
    let fifo = fixture.lower.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let plain = fixture.path("plain");
    fs::create_dir(&plain).unwrap();
    let into = layer::open_root(&plain).unwrap();
    let copy = Copy::make(&fixture, &into);
    for name in ["theirs", "dir/theirs", "new", "dir/new"] {
        fixture.below(name, "theirs");
    }
    fs::remove_file(fixture.lower.join("removed")).unwrap();
    fs::write(plain.join("dir/own"), "own").unwrap();
    fs::write(plain.join("both"), "own").unwrap();
    fs::write(plain.join("moved/a"), "own").unwrap();
    // What is in a directory that was moved has the times that it had.
    fs::remove_dir_all(plain.join("target")).unwrap();
    fs::rename(plain.join("moved"), plain.join("target")).unwrap();
    let imported = copy.import(&fixture, &into);
    assert_eq!(
        fixture.changes(),
        ["M both", "A dir/own", "R moved", "R moved/a", "M target/a"]
    );
    assert!(imported.written >= 3 && imported.removed == 1, "{imported:?}");
    let untouched = fixture.upper().join("theirs");
    assert!(!untouched.exists() && !fixture.upper().join("new").exists());
}

/// More than was allowed is none.
#[test]
fn a_checkout_is_bounded() {
    let fixture = Fixture::new();
    fixture.below("a", "0123456789");
    let plain = fixture.path("plain");
    fs::create_dir(&plain).unwrap();
    let into = layer::open_root(&plain).unwrap();
    let given_up = AtomicBool::new(false);
    let make = |bytes_max| checkout::make(&fixture.layers(), &into, bytes_max, &given_up);
    let error = make(9).unwrap_err();
    assert!(matches!(error, CheckoutError::TooLarge(9)), "{error}");
    assert_eq!(make(10).unwrap().bytes, 10);
    given_up.store(true, Ordering::Relaxed);
    assert!(
        matches!(make(10), Err(CheckoutError::Over)),
        "it ends when it is given up"
    );
}

/// What is too deep is left out and told; everything else is taken over.
#[test]
fn what_is_too_deep_is_left_out_of_what_is_taken_over() {
    let fixture = Fixture::new();
    fixture.below("a", "1\n");
    fixture.below("was/there", "1\n");
    let plain = fixture.path("plain");
    fs::create_dir(&plain).unwrap();
    let into = layer::open_root(&plain).unwrap();
    let copy = Copy::make(&fixture, &into);
    let deep = vec!["d"; 230].join("/");
    for top in ["new", "was"] {
        fs::create_dir_all(plain.join(top).join(&deep)).unwrap();
    }
    fs::write(plain.join("a"), "2\n").unwrap();
    let imported = copy.import(&fixture, &into);
    assert_eq!(imported.left_out, 2, "{imported:?}");
    assert_eq!(fs::read(fixture.upper().join("a")).unwrap(), b"2\n");
    assert!(fixture.upper().join("new").join(vec!["d"; 199].join("/")).exists());
}
