//! What programs leave that is in the way of those who look at it, and what a directory of the host does not let us do.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;

use super::super::{diff, rollback, snapshot};
use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

/// Does something as an ordinary user, who cannot pass over modes. Where the tests run as one anyhow, as that.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    use rustix::process::{Gid, Uid};
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            }
            act()
        });
        thread.join().unwrap()
    })
}

fn try_commit(fixture: &Fixture, force: bool) -> Result<Vec<String>, ReviewError> {
    let plan = fixture.plan(&Choice::all(), None);
    let how = How { whole: true, force };
    let mut told = Vec::new();
    let mut tell = |path: &[u8], _, _: Option<&blake3::Hash>| {
        told.push(shown(path));
        Ok(())
    };
    commit(
        &fixture.overlay,
        &fixture.layers(),
        &plan,
        how,
        &mut Fault::default(),
        &mut tell,
    )?;
    Ok(told)
}

/// Nothing was done, nothing is left, and this is why.
#[track_caller]
fn refused(fixture: &Fixture, before: &Tree, path: &str, why: &str) {
    let error = try_commit(fixture, true).unwrap_err();
    let ReviewError::Refused { paths, total } = &error else {
        panic!("{error}")
    };
    assert!(
        *total >= 1
            && paths
                .iter()
                .any(|refused| refused.path == path && refused.why.contains(why)),
        "{error}"
    );
    assert_eq!(&tree_of(&fixture.lower), before);
    assert!(!fixture.overlay.join("journal").exists());
}

/// Bits that make somebody else of who runs a file are told, and committed only where they were, or when it is forced; other modes are told.
#[test]
fn modes_are_told_and_special_ones_kept_back() {
    let make = || {
        let fixture = Fixture::new();
        write(&fixture.lower.join("had"), "1\n", 0o4755);
        write(&fixture.lower.join("plain"), "1\n", 0o755);
        write(&fixture.upper().join("had"), "2\n", 0o4755);
        write(&fixture.upper().join("plain"), "2\n", 0o6755);
        write(&fixture.upper().join("new"), "n\n", 0o4755);
        write(&fixture.upper().join("open"), "n\n", 0o777);
        fs::create_dir(fixture.upper().join("group")).unwrap();
        set_mode(&fixture.upper().join("group"), 0o2777);
        fixture
    };
    let fixture = make();
    let files = diff::page(&fixture.layers(), &diff::Asked::default()).unwrap().files;
    let patch: String = files
        .iter()
        .map(astrid_wire::control::workspace::FileDiff::patch)
        .collect();
    for line in [
        "# new directory: group\n# mode 2777 (set-group-id, writable by everybody): group\n",
        "# mode 4755 (set-user-id): new\n",
        "# mode 0777 (writable by everybody): open\n",
        "# mode 0755 becomes 6755 (set-user-id, set-group-id): plain\n",
    ] {
        assert!(patch.contains(line), "{line}{patch}");
    }
    assert_eq!(files[0].dangers(), ["set-group-id", "writable by everybody"]);
    let plan = fixture.plan(&Choice::all(), None);
    let remarks: Vec<&str> = plan.kept_back.iter().map(|remark| &*remark.path).collect();
    assert_eq!(remarks, ["group", "new", "plain"]);
    try_commit(&fixture, false).unwrap();
    let modes =
        |fixture: &Fixture| ["had", "plain", "new", "open", "group"].map(|name| mode(&fixture.lower.join(name)));
    assert_eq!(modes(&fixture), [0o4755, 0o755, 0o755, 0o777, 0o777]);
    assert_eq!(fs::read(fixture.lower.join("plain")).unwrap(), b"2\n");
    let forced = make();
    try_commit(&forced, true).unwrap();
    assert_eq!(modes(&forced), [0o4755, 0o6755, 0o4755, 0o777, 0o2777]);
}

/// Owners are those of the directory of the host, whatever the workspace says; and so are the lists of who may do what.
#[test]
fn owners_and_lists_stay() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let chown = |path: &Path, owner| std::os::unix::fs::lchown(path, Some(owner), Some(owner)).unwrap();
    fixture.below("d/old", "1\n");
    fixture.below("listed", "1\n");
    chown(&fixture.lower.join("d"), 1234);
    chown(&fixture.lower.join("d/old"), 4321);
    set_mode(&fixture.lower.join("listed"), 0o640);
    // user::rw-, user:1234:rw-, group::---, mask::rw-, other::---
    let entries = [
        (1u16, 6u16, u32::MAX),
        (2, 6, 1234),
        (4, 0, u32::MAX),
        (16, 6, u32::MAX),
        (32, 0, u32::MAX),
    ];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        list.extend([&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    let name = "system.posix_acl_access";
    let listed = fs::File::open(fixture.lower.join("listed")).unwrap();
    let has_lists = rustix::fs::fsetxattr(&listed, name, &list, XattrFlags::empty()).is_ok();
    for path in ["d/old", "d/new", "e/new", "listed"] {
        fixture.above(path, "2\n");
        chown(&fixture.upper().join(path), 99);
    }
    set_mode(&fixture.upper().join("listed"), 0o660);
    symlink("old", fixture.upper().join("d/link")).unwrap();
    try_commit(&fixture, false).unwrap();
    let owner = |path: &str| {
        let stat = fixture.lower.join(path).symlink_metadata().unwrap();
        (stat.uid(), stat.gid())
    };
    assert_eq!(
        (owner("d/old"), owner("d/new"), owner("d/link")),
        ((4321, 4321), (1234, 1234), (1234, 1234))
    );
    assert_eq!((owner("e"), owner("e/new")), (owner(""), owner("")));
    if has_lists {
        let mut now = vec![0; 256];
        let file = fs::File::open(fixture.lower.join("listed")).unwrap();
        let length = rustix::fs::fgetxattr(&file, name, &mut now[..]).unwrap();
        assert_eq!(now[..length], list);
        // A copy that is made for a change has the list too.
        let root = layer::open_root(&fixture.lower).unwrap();
        layer::copy_entry(&root, OsStr::new("listed"), &root, OsStr::new("copy")).unwrap();
        let copy = fs::File::open(fixture.lower.join("copy")).unwrap();
        assert_eq!(rustix::fs::fgetxattr(&copy, name, &mut now[..]).unwrap(), length);
    }
}

/// What cannot be changed is found before anything is.
#[test]
fn what_is_fixed_stops_a_commit_before_it_begins() {
    let fixture = Fixture::new();
    fixture.below("a", "1\n");
    fixture.below("d/fixed", "1\n");
    fixture.below("e/x", "1\n");
    fixture.above("a", "2\n");
    fixture.above("d/fixed", "2\n");
    fixture.gone("e");
    let before = tree_of(&fixture.lower);
    let chattr = |how: &str, path: &str| {
        let ran = Command::new("chattr").arg(how).arg(fixture.lower.join(path)).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    for (path, named) in [("d/fixed", "d/fixed"), ("d", "d"), ("e/x", "e/x"), ("e", "e")] {
        if !chattr("+i", path) {
            return;
        }
        let result = std::panic::catch_unwind(|| refused(&fixture, &before, named, "may not be changed"));
        assert!(chattr("-i", path));
        result.unwrap();
    }
    try_commit(&fixture, false).unwrap();
}

/// What is mounted in the directory is not removed with it, nor written to; and a file system that is read-only is said to be.
#[test]
fn what_is_mounted_stays() {
    let fixture = Fixture::new();
    for name in ["mt/x", "deep/mt/x", "ro/x"] {
        fixture.below(name, "below\n");
    }
    let mount = |arguments: &[&str], path: &str| {
        let ran = Command::new("mount")
            .args(arguments)
            .arg(fixture.lower.join(path))
            .output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    if !mount(&["-t", "tmpfs", "tmpfs"], "mt") {
        return;
    }
    assert!(mount(&["-t", "tmpfs", "tmpfs"], "deep/mt"));
    fixture.below("mt/precious", "precious\n");
    fixture.below("deep/mt/precious", "precious\n");
    let before = tree_of(&fixture.lower);
    let result = std::panic::catch_unwind(|| {
        fixture.above("a", "2\n");
        fixture.gone("mt");
        refused(&fixture, &before, "mt", "mounted");
        let root = layer::open_root(&fixture.lower).unwrap();
        tree::remove(&root, OsStr::new("mt"), b"mt").unwrap_err();
        tree::remove(&root, OsStr::new("deep"), b"deep").unwrap_err();
        assert_eq!(tree_of(&fixture.lower), before);
        rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
        fixture.gone("deep");
        refused(&fixture, &before, "deep/mt", "mounted");
        rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
        fixture.above("mt/inner", "2\n");
        refused(&fixture, &before, "mt", "mounted");
    });
    for path in ["mt", "deep/mt"] {
        assert!(
            Command::new("umount")
                .arg(fixture.lower.join(path))
                .status()
                .unwrap()
                .success()
        );
    }
    result.unwrap();
    // The whole of it is read-only.
    rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
    fixture.above("a", "2\n");
    let before = tree_of(&fixture.lower);
    assert!(mount(&["--bind", fixture.lower.to_str().unwrap()], "") && mount(&["-o", "remount,bind,ro"], ""));
    let result = std::panic::catch_unwind(|| refused(&fixture, &before, ".", "read-only"));
    assert!(
        Command::new("umount")
            .args(["-l"])
            .arg(&fixture.lower)
            .status()
            .unwrap()
            .success()
    );
    result.unwrap();
    try_commit(&fixture, false).unwrap();
}

/// A file system that becomes read-only while a commit is staged leaves nothing that has to be undone.
#[test]
fn nothing_is_undone_where_nothing_is() {
    let fixture = Fixture::new();
    fixture.above("a", "2\n");
    let plan = fixture.plan(&Choice::all(), None);
    fixture.commit_with(&plan, &mut Fault::after(1)).unwrap_err();
    assert!(fixture.overlay.join("journal").exists());
    let mount = |arguments: &[&str]| {
        let ran = Command::new("mount").args(arguments).arg(&fixture.lower).output();
        ran.is_ok_and(|ran| ran.status.success())
    };
    if !mount(&["--bind", fixture.lower.to_str().unwrap()]) {
        return;
    }
    assert!(mount(&["-o", "remount,bind,ro"]));
    let lower = || root(&fixture.lower);
    let recovered = super::super::commit::recover(&fixture.overlay, lower, || Ok(()), &mut Fault::default());
    assert!(
        Command::new("umount")
            .args(["-l"])
            .arg(&fixture.lower)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(recovered.unwrap(), super::super::commit::Recovered::Undone);
}

/// Directories of an ordinary user that are closed to that user are opened for a commit, and are closed again; also when it is cut short.
#[test]
fn closed_directories_of_ours_are_committed_to() {
    let make = || {
        let fixture = Fixture::new();
        for name in ["gone/f", "kept/a", "kept/b", "kept/sub/c", "open/x"] {
            fixture.below(name, "1\n");
        }
        fixture.above("a", "2\n");
        fixture.above("kept/a", "2\n");
        fixture.above("kept/new", "n\n");
        fixture.gone("kept/sub");
        fixture.gone("gone");
        for name in ["gone", "kept/sub", "kept"] {
            set_mode(&fixture.lower.join(name), 0o555);
        }
        set_mode(&fixture.upper().join("kept"), 0o555);
        fixture
    };
    let fixtures = as_nobody(|| {
        let old = tree_of(&make().lower);
        let mut fixtures = Vec::new();
        for after in 0.. {
            let fixture = make();
            let plan = fixture.plan(&Choice::all(), None);
            let done = fixture.commit_with(&plan, &mut Fault::after(after));
            let lower = || root(&fixture.lower);
            super::super::commit::recover(&fixture.overlay, lower, || Ok(()), &mut Fault::default()).unwrap();
            let now = tree_of(&fixture.lower);
            if now != old {
                assert_eq!(
                    now.keys().map(|key| &**key).collect::<Vec<_>>().join(" "),
                    "a kept kept/a kept/b kept/new open open/x"
                );
                assert_eq!((now["kept"].1, &*now["kept/a"].2), (0o555, &b"2\n"[..]));
            }
            fixtures.push(fixture);
            if done.is_ok() {
                assert!(now != old);
                break;
            }
        }
        fixtures
    });
    // Whoever may remove them does.
    drop(fixtures);
}

/// What a program closed to everybody is looked at, kept, rolled back and committed; it stays closed.
#[test]
fn what_programs_closed_is_in_nobodys_way() {
    let make = || {
        let fixture = Fixture::new();
        fixture.below("a", "1\n");
        fixture.below("closed/x", "1\n");
        fixture.above("a", "2\n");
        fixture.above("ro/f", "f\n");
        fixture.above("none/sub/f", "f\n");
        fixture.above("closed/x", "2\n");
        fixture.above("secret", "s\n");
        for (name, mode) in [
            ("ro", 0o555),
            ("none/sub", 0),
            ("none", 0),
            ("closed/x", 0),
            ("secret", 0),
        ] {
            set_mode(&fixture.upper().join(name), mode);
        }
        fixture
    };
    let all = [
        "M a",
        "M closed/x",
        "A none",
        "A none/sub",
        "A none/sub/f",
        "A ro",
        "A ro/f",
        "A secret",
    ];
    let fixtures = as_nobody(|| {
        let fixture = make();
        assert_eq!(fixture.changes(), all);
        let files = diff::page(&fixture.layers(), &diff::Asked::default()).unwrap().files;
        assert_eq!(files.iter().filter(|file| file.hunks.is_some()).count(), 5);
        assert_eq!(
            (
                mode(&fixture.upper().join("none")),
                mode(&fixture.upper().join("secret"))
            ),
            (0, 0)
        );
        snapshot::make(&fixture.overlay, "one", 7, None).unwrap();
        for path in ["none/sub/f", "none", "ro/f", "ro", "secret"] {
            rollback::path(&fixture.overlay, &fixture.layers(), path.as_bytes()).unwrap();
        }
        assert_eq!(fixture.changes(), ["M a", "M closed/x"]);
        rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
        snapshot::restore(&fixture.overlay, "one").unwrap();
        assert_eq!(fixture.changes(), all);
        fixture.commit_some(&["ro/f", "none"]);
        assert_eq!(mode(&fixture.lower.join("none")), 0);
        assert_eq!(fixture.changes(), ["M a", "M closed/x", "A secret"]);
        let mut fixtures = vec![fixture];
        for after in 0.. {
            let other = make();
            let plan = other.plan(&Choice::all(), None);
            let done = other.commit_with(&plan, &mut Fault::after(after));
            let lower = || root(&other.lower);
            let recovered =
                super::super::commit::recover(&other.overlay, lower, || Ok(()), &mut Fault::default()).unwrap();
            if done.is_ok() || recovered == super::super::commit::Recovered::Completed {
                let modes = ["none", "ro", "secret"].map(|name| mode(&other.lower.join(name)));
                assert_eq!(modes, [0, 0o555, 0]);
                assert_eq!(fs::read(other.lower.join("ro/f")).unwrap(), b"f\n");
                assert_eq!(fs::read_dir(other.upper()).unwrap().count(), 0);
            }
            fixtures.push(other);
            if done.is_ok() {
                break;
            }
        }
        fixtures
    });
    drop(fixtures);
}

/// Holes are neither read nor written: a file of a TiB that takes nothing on the disk costs nothing.
#[test]
fn holes_cost_nothing() {
    const SIZE: u64 = 1 << 40;
    let fixture = Fixture::new();
    for path in [
        fixture.lower.join("same"),
        fixture.upper().join("same"),
        fixture.upper().join("new"),
    ] {
        if fs::File::create(&path).unwrap().set_len(SIZE).is_err() {
            return;
        }
    }
    let begun = Instant::now();
    let file = fs::File::options()
        .write(true)
        .open(fixture.upper().join("new"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", SIZE / 2).unwrap();
    assert_eq!(fixture.changes(), ["A new"]);
    let files = diff::page(&fixture.layers(), &diff::Asked::default()).unwrap().files;
    assert!(
        files[0].binary && files[0].patch().contains("1099511627776 bytes\nBinary"),
        "{}",
        files[0].patch()
    );
    try_commit(&fixture, false).unwrap();
    let stat = fs::metadata(fixture.lower.join("new")).unwrap();
    assert!(stat.len() == SIZE && stat.blocks() < 1000);
    let file = fs::File::options().write(true).open(fixture.lower.join("new")).unwrap();
    let other = fs::File::create(fixture.path("other")).unwrap();
    other.set_len(SIZE).unwrap();
    let same = || {
        let open = |path| fs::File::open(path).unwrap();
        super::super::changes::same_content(&open(fixture.lower.join("new")), &open(fixture.path("other"))).unwrap()
    };
    assert!(!same());
    std::os::unix::fs::FileExt::write_all_at(&other, b"middle", SIZE / 2).unwrap();
    assert!(same());
    std::os::unix::fs::FileExt::write_all_at(&file, b"\0", 7).unwrap();
    assert!(same());
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 7).unwrap();
    assert!(!same());
    assert!(begun.elapsed() < Duration::from_secs(600));
}

/// What is made in a directory that is being removed stops the commit; and of one that is stopped nothing is said to have been done.
#[test]
fn what_is_made_in_a_removed_directory_stops_a_commit() {
    let fixture = Fixture::new();
    fixture.below("gone/sub/x", "1\n");
    fixture.above("a", "2\n");
    fixture.gone("gone");
    let plan = fixture.plan(&Choice::all(), None);
    fixture.below("gone/sub/precious", "precious\n");
    let before = tree_of(&fixture.lower);
    let mut told = 0;
    let mut tell = |_: &[u8], _, _: Option<&blake3::Hash>| {
        told += 1;
        Ok(())
    };
    let how = How {
        whole: true,
        force: false,
    };
    let error = commit(
        &fixture.overlay,
        &fixture.layers(),
        &plan,
        how,
        &mut Fault::default(),
        &mut tell,
    )
    .unwrap_err();
    assert!(
        matches!(&error, ReviewError::Raced { path } if path == "gone"),
        "{error}"
    );
    assert_eq!((tree_of(&fixture.lower), told), (before, 0));
}
