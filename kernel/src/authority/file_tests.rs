//! Files that people write, by hand and badly, and what is written into them.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use astrid_wire::Quota;
use astrid_wire::authority::{Action, CapsuleGrants, Profile};
use parking_lot::Mutex;

use super::files::{PROFILE_BYTES_MAX, PROFILE_BYTES_WRITTEN_MAX};
use super::tests::{allows, capabilities, home, who, write};
use super::*;

fn edit(authority: &Authority, name: &str, change: impl FnOnce(&mut Profile)) -> Result<(), EditError<&'static str>> {
    let edit = |_: &Policy, old: Option<Profile>| {
        let mut profile = old.ok_or("nobody")?;
        change(&mut profile);
        Ok(Some(profile))
    };
    authority.edit_profile(&who(name), edit).map(drop)
}

/// Edits by hand: taken, or refused with the line and the old state kept, until they are repaired.
#[test]
fn edits_by_hand() {
    let (_directory, home) = home();
    write(&home, "ann", "groups = [\"agent\"]\n");
    let authority = Authority::open(&home).unwrap();
    write(&home, "ann", "groups = [\"agent\"]\nrevokes = [\"publish:a.>\"\n");
    authority.reload_profile(&who("ann"));
    assert!(allows(&authority, "ann", Action::Publish, "a.b"), "as it was");
    assert!(
        authority.problems()[0].contains("ann.toml:2:"),
        "{:?}",
        authority.problems()
    );
    write(&home, "ann", "groups = [\"agent\"]\nrevokes = [\"publish:a.>\"]\n");
    authority.reload_profile(&who("ann"));
    assert!(!allows(&authority, "ann", Action::Publish, "a.b"));
    assert!(authority.problems().is_empty());
    let epoch = authority.epoch();
    authority.reload_profile(&who("ann"));
    assert_eq!(authority.epoch(), epoch, "nothing changed");
    fs::write(home.groups_file(), "[group.ops]\ngrants = [\"what\"]\n").unwrap();
    authority.reload_groups();
    assert!(
        authority.problems()[0].contains("groups.toml:2:11"),
        "{:?}",
        authority.problems()
    );
    authority.reload();
    assert!(
        allows(&authority, "ann", Action::Publish, "b.b"),
        "wrong groups change nothing"
    );
    fs::remove_file(home.profiles_dir().join("ann.toml")).unwrap();
    authority.reload_profile(&who("ann"));
    assert_eq!(authority.standing(&who("ann")).check_active(), Err(Reason::Unknown));
}

/// The same by the system's telling: no clock is looked at.
#[test]
fn edits_by_hand_are_noticed() {
    let (_directory, home) = home();
    let authority = Authority::open(&home).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let watch = authority.watch().unwrap().unwrap();
        let following = tokio::spawn(Arc::clone(&authority).follow(watch, |_| {}));
        let mut changed = authority.changed();
        write(&home, "ann", "groups = [\"agent\"]\n");
        while !allows(&authority, "ann", Action::Publish, "a.b") {
            changed.changed().await.unwrap();
        }
        fs::write(home.groups_file(), "[group").unwrap();
        while authority.problems().is_empty() {
            changed.changed().await.unwrap();
        }
        // As editors do it.
        fs::write(
            home.groups_file().with_extension("new"),
            "[group.ops]\ngrants = [\"kv\"]\n",
        )
        .unwrap();
        fs::rename(home.groups_file().with_extension("new"), home.groups_file()).unwrap();
        while authority.policy().group("ops").is_none() || !authority.problems().is_empty() {
            changed.changed().await.unwrap();
        }
        fs::remove_file(home.profiles_dir().join("ann.toml")).unwrap();
        while authority.policy().knows(&who("ann")) {
            changed.changed().await.unwrap();
        }
        following.abort();
    });
}

/// A file that was spoilt, by its owner or by a program of the same user, keeps nobody from taking something from whom it is about; what it
/// said is kept.
#[test]
fn a_spoilt_file_protects_nobody() {
    let large = "#".repeat(PROFILE_BYTES_MAX + 1);
    for (spoilt, mode) in [
        ("weight = \"x", 0o600),
        (&large, 0o600),
        ("groups = [\"admin\"]\n", 0o666),
    ] {
        let (_directory, home) = home();
        write(&home, "ann", "groups = [\"agent\"]\ngrants = [\"child.spawn\"]\n");
        let authority = Authority::open(&home).unwrap();
        write(&home, "ann", spoilt);
        let path = home.profiles_dir().join("ann.toml");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        authority.reload_profile(&who("ann"));
        assert_eq!(authority.problems().len(), 1);

        // What is refused changes nothing, not even where that file is.
        let long: Vec<String> = (0..200).map(|n| format!("observe:n{n}.{}", "x".repeat(470))).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        edit(&authority, "ann", |profile| profile.revokes = capabilities(&long)).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), spoilt);

        edit(&authority, "ann", |profile| profile.enabled = false).unwrap();
        assert!(authority.problems().is_empty());
        let read: Profile = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!read.enabled && read.groups == ["agent"], "what was in force: {read:?}");
        let aside = path.with_extension("toml.wrong");
        assert_eq!(fs::read_to_string(aside).unwrap(), spoilt);
        // Of whoever could never be read there is nothing in force but that.
        write(&home, "bob", spoilt);
        fs::set_permissions(home.profiles_dir().join("bob.toml"), fs::Permissions::from_mode(mode)).unwrap();
        authority.reload();
        authority
            .edit_profile(&who("bob"), |_, _| Ok::<_, String>(None))
            .unwrap();
        assert!(!authority.policy().knows(&who("bob")));
    }
}

/// The same of groups.
#[test]
fn spoilt_groups_protect_nobody() {
    let (_directory, home) = home();
    fs::write(home.groups_file(), "[capsule.sentry]\ngrants = [\"guard:a.>\"]\n").unwrap();
    let authority = Authority::open(&home).unwrap();
    fs::write(home.groups_file(), "[group").unwrap();
    authority.reload_groups();
    let take_all = |_: &Policy, groups: &mut astrid_wire::authority::GroupsFile| {
        assert_eq!(groups.capsule.len(), 1);
        groups.capsule.clear();
        Ok::<_, String>(())
    };
    authority.edit_groups(take_all).unwrap();
    assert_eq!(authority.policy().guards().count(), 0);
    assert!(authority.problems().is_empty());
    assert_eq!(
        fs::read_to_string(home.groups_file().with_extension("toml.wrong")).unwrap(),
        "[group"
    );
}

/// Nothing is written that would not be read again: what has no form in the file, and what is longer than is read. Whoever may do nothing
/// has room left for that.
#[test]
fn what_is_written_can_be_read() {
    let (_directory, home) = home();
    write(&home, "ann", "# hers\ngroups = [\"agent\"]\n");
    let authority = Authority::open(&home).unwrap();
    let path = home.profiles_dir().join("ann.toml");
    let before = fs::read_to_string(&path).unwrap();
    for number in [u64::MAX, i64::MAX as u64 + 1] {
        let refused = edit(&authority, "ann", |profile| profile.quota.fuel_total = Some(number));
        let EditError::Policy(error) = refused.unwrap_err() else {
            panic!()
        };
        assert!(error.hint().unwrap().contains("9223372036854775807"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert_eq!(authority.policy().profile(&who("ann")).unwrap().quota, Quota::default());
    }
    edit(&authority, "ann", |profile| {
        profile.quota.fuel_total = Some(i64::MAX as u64)
    })
    .unwrap();

    let long = |n: usize| format!("publish:n{n}.{}", "x".repeat(470));
    let mut last = Ok(());
    for n in 0..250 {
        last = edit(&authority, "ann", |profile| {
            profile.revokes.extend(capabilities(&[&long(n)]))
        });
        if last.is_err() {
            break;
        }
    }
    assert!(
        matches!(last, Err(EditError::Policy(PolicyError::TooLarge { .. }))),
        "{last:?}"
    );
    assert!(fs::read_to_string(&path).unwrap().len() > PROFILE_BYTES_WRITTEN_MAX - 1000);
    edit(&authority, "ann", |profile| profile.enabled = false).unwrap();
    let again = Authority::open(&home).unwrap();
    assert!(again.problems().is_empty() && !again.policy().profile(&who("ann")).unwrap().enabled);

    // Groups, which keep a daemon from starting when they cannot be read.
    let grow = |n: usize| {
        authority.edit_groups(|_, groups| {
            let grants = capabilities(
                &(0..250)
                    .map(|m| format!("guard:n{n}.m{m}.{}", "x".repeat(230)))
                    .collect::<Vec<_>>()
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>(),
            );
            groups
                .capsule
                .insert(format!("c{n}").parse().unwrap(), CapsuleGrants { grants });
            Ok::<_, String>(())
        })
    };
    let refused = (0..100).find_map(|n| grow(n).err()).unwrap();
    assert!(
        matches!(refused, EditError::Policy(PolicyError::TooLarge { .. })),
        "{refused:?}"
    );
    Authority::open(&home).unwrap();
}

/// Directories are replaced as files are; what people changed is told, once, and what the daemon itself writes is not.
#[test]
fn replaced_directories_are_noticed() {
    let (_directory, home) = home();
    write(&home, "ann", "groups = [\"agent\"]\n");
    let authority = Authority::open(&home).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    runtime.block_on(async {
        let watch = authority.watch().unwrap().unwrap();
        let record = {
            let told = Arc::clone(&told);
            move |edited: &Edited| told.lock().push(edited.clone())
        };
        let following = tokio::spawn(Arc::clone(&authority).follow(watch, record));
        let mut changed = authority.changed();
        edit(&authority, "ann", |profile| profile.weight = 2).unwrap();

        let (profiles, aside) = (home.profiles_dir(), home.root().join("profiles.old"));
        fs::rename(&profiles, &aside).unwrap();
        fs::create_dir(&profiles).unwrap();
        write(&home, "ann", "enabled = false\n");
        while authority.standing(&who("ann")).check_active().is_ok() {
            changed.changed().await.unwrap();
        }
        // The new one is watched, and so is what comes after it.
        write(&home, "bob", "groups = [\"agent\"]\n");
        while !allows(&authority, "bob", Action::Publish, "a.b") {
            changed.changed().await.unwrap();
        }
        let etc = home.groups_file().parent().unwrap().to_owned();
        fs::rename(&etc, home.root().join("etc.old")).unwrap();
        fs::create_dir_all(&profiles).unwrap();
        fs::write(home.groups_file(), "[group.ops]\ngrants = [\"kv\"]\n").unwrap();
        while authority.policy().group("ops").is_none() || authority.policy().knows(&who("bob")) {
            changed.changed().await.unwrap();
        }
        write(&home, "eve", "groups = [\"ops\"]\n");
        while !allows(&authority, "eve", Action::Kv, "x") {
            changed.changed().await.unwrap();
        }
        following.abort();
    });
    let told = told.lock();
    let said = |file: &str, now: Option<&str>| {
        let found = |edited: &&Edited| edited.file == file && edited.now.as_deref().is_some() == now.is_some();
        let edited = told.iter().find(found).unwrap_or_else(|| panic!("{file}: {told:?}"));
        assert!(
            now.is_none_or(|now| edited.now.as_deref().unwrap().contains(now)),
            "{edited:?}"
        );
    };
    said("etc/profiles/ann.toml", Some("\"enabled\":false"));
    said("etc/profiles/bob.toml", None);
    said("etc/groups.toml", Some("ops"));
    assert!(
        !format!("{told:?}").contains("\\\"weight\\\":2"),
        "its own writing is not theirs: {told:?}"
    );
}

/// Two policies are told apart by what anybody may do.
#[test]
fn a_policy_has_a_digest() {
    let (_directory, home) = home();
    let authority = Authority::open(&home).unwrap();
    let first = authority.policy().digest();
    assert_eq!(Authority::open(&home).unwrap().policy().digest(), first);
    write(&home, "ann", "");
    authority.reload();
    let second = authority.policy().digest();
    edit(&authority, "ann", |profile| profile.grants = capabilities(&["kv"])).unwrap();
    let third = authority.policy().digest();
    assert!(first != second && second != third && first != third);
}
