//! Targets that need the kernel: the policy that files make, and bundles.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use astrid_kernel::authority::{Known, Object, Policy};
use astrid_kernel::capsule::bundle::{Bundle, Origin};
use astrid_tests::bed::bundle_file;
use astrid_wire::Principal;
use astrid_wire::authority::{Action, GroupsFile, Profile};

/// Input: groups, a line `---`, a profile, a line `---`, a resource. What compiles decides as its rules say one by one.
pub(crate) fn policy(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("---\n");
    let mut part = || parts.next().unwrap_or_default();
    let (groups, profile, asked) = (part(), part(), part().trim_end());
    let Ok(groups) = toml::from_str::<GroupsFile>(groups) else {
        return;
    };
    let Ok(mut policy) = Policy::with_groups(&groups) else {
        return;
    };
    let Ok(profile) = toml::from_str::<Profile>(profile) else {
        return;
    };
    let who = Principal::stamped("ann").unwrap();
    if policy.insert(who.clone(), profile.clone()).is_err() {
        assert!(policy.find(&who).is_none());
        return;
    }
    let Some(Known::Entry(entry)) = policy.find(&who) else {
        panic!("it is not there")
    };
    let granted = entry.granted();
    for action in Action::ALL {
        let grant = granted.iter().any(|grant| grant.allows(action, Some(asked)));
        let revoke = profile.revokes.iter().any(|revoke| revoke.allows(action, Some(asked)));
        let object = Object::Name(asked);
        assert_eq!(entry.allows(action, object), grant && !revoke, "{action} {asked:?}");
    }
    for capability in &granted {
        let revoked = profile.revokes.iter().any(|revoke| revoke.covers(capability));
        assert!(!(entry.holds(capability) && revoked), "{capability}");
    }
}

/// A bundle that is one.
pub(crate) fn example() -> &'static [u8] {
    static EXAMPLE: OnceLock<Vec<u8>> = OnceLock::new();
    EXAMPLE.get_or_init(|| fs::read(bundle_file("hello")).unwrap())
}

/// Input: changes of a bundle that is one; and a bundle itself.
pub(crate) fn bundle(bytes: &[u8]) {
    let parse = |bytes: Vec<u8>| Bundle::parse(bytes.into(), Origin::Directory(PathBuf::from("x")));
    let wrong = |error: astrid_kernel::capsule::bundle::BundleError| assert!(!error.to_string().is_empty());
    if let Err(error) = parse(bytes.to_vec()) {
        wrong(error);
    }
    let mut changed = example().to_vec();
    for place in bytes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]]));
        // What is at its end is the manifest.
        let at = if place[2] & 1 == 0 {
            at
        } else {
            changed.len().wrapping_sub(at + 1)
        };
        if let Some(byte) = changed.get_mut(at) {
            *byte = place[3];
        }
    }
    match parse(changed) {
        Ok(bundle) => assert!(!bundle.name().is_empty()),
        Err(error) => wrong(error),
    }
}
