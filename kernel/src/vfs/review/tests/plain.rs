//! A workspace as plain files, and back.

use super::super::super::checkout::{self, CheckoutError};
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
    checkout::make(&fixture.layers(), &into, 1 << 20).unwrap();
    assert_eq!(tree_of(&plain), expected);
    let nothing = checkout::import(&fixture.overlay, &fixture.layers(), &into).unwrap();
    assert_eq!(nothing, checkout::Imported::default());
    assert_eq!(fixture.changes(), before);
    let script = "rm -r dir new-dir link; mkdir -p gone/b removed; echo again > gone/b/c; echo x > removed/x; ln -s other link; \
        chmod 600 same; echo more >> edited; rm directory-to-file; mkdir directory-to-file; echo n > directory-to-file/n; mkdir dir; echo d > dir/d";
    let ran = std::process::Command::new("sh")
        .current_dir(&plain)
        .args(["-ec", script])
        .status()
        .unwrap();
    assert!(ran.success());
    checkout::import(&fixture.overlay, &fixture.layers(), &into).unwrap();
    fixture.commit_some(&[]);
    assert_eq!(tree_of(&fixture.lower), tree_of(&plain));
}

/// More than was allowed is none.
#[test]
fn a_checkout_is_bounded() {
    let fixture = Fixture::new();
    fixture.below("a", "0123456789");
    let plain = fixture.path("plain");
    fs::create_dir(&plain).unwrap();
    let into = layer::open_root(&plain).unwrap();
    let error = checkout::make(&fixture.layers(), &into, 9).unwrap_err();
    assert!(matches!(error, CheckoutError::TooLarge(9)), "{error}");
    assert_eq!(checkout::make(&fixture.layers(), &into, 10).unwrap(), 10);
}
