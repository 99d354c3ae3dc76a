//! Who may use a workspace, and when.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use super::super::checkout::CheckoutError;
use super::*;

struct Fixture {
    temporary: tempfile::TempDir,
    workspaces: Workspaces,
}

fn who(name: &str) -> Principal {
    Principal::stamped(name).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("lower")).unwrap();
        let workspaces = Self::again(temporary.path());
        Self { temporary, workspaces }
    }

    /// As a daemon that starts.
    fn again(root: &Path) -> Workspaces {
        let lower = root.join("lower");
        let resolver = move |principal: &Principal| Ok((principal.as_str() != "nobody").then(|| lower.clone()));
        Workspaces::new(root.join("overlays"), Box::new(resolver))
    }

    fn lower(&self) -> PathBuf {
        self.temporary.path().join("lower")
    }
}

/// Without a directory there is no workspace, and nothing is made for one.
#[test]
fn who_has_none_gets_none() {
    let fixture = Fixture::new();
    let nobody = who("nobody");
    assert_eq!(fixture.workspaces.of(&nobody).unwrap_err().fault(), Fault::NoWorkspace);
    assert_eq!(fixture.workspaces.stored_bytes(&nobody).unwrap(), 0);
    fixture.workspaces.remove(&nobody, false).unwrap();
    assert!(!fixture.temporary.path().join("overlays").exists());
}

/// The first use is remembered, also by another daemon; two users are one workspace; nobody commits meanwhile.
#[test]
fn users_are_counted() {
    let fixture = Fixture::new();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    assert!(Arc::ptr_eq(&workspace, &fixture.workspaces.of(&who("a")).unwrap()));
    assert_eq!(workspace.since_ns(), None);
    let one = workspace.enter().unwrap();
    let since = workspace.since_ns().unwrap();
    let other = workspace.enter().unwrap();
    assert_eq!(workspace.since_ns(), Some(since));
    drop(one);
    assert!(matches!(workspace.alone(), Err(UseError::Busy { users: 1 })));
    assert!(matches!(
        fixture.workspaces.remove(&who("a"), false),
        Err(UseError::Busy { users: 1 })
    ));
    drop(other);
    let alone = workspace.alone().unwrap();
    assert_eq!(workspace.enter().unwrap_err().fault, Fault::Busy);
    assert_eq!(workspace.tree().unwrap_err().fault, Fault::Busy);
    assert!(matches!(workspace.alone(), Err(UseError::Taken)));
    drop(alone);
    let tree = workspace.tree().unwrap();
    assert!(matches!(workspace.alone(), Err(UseError::Busy { users: 1 })));
    drop(tree);
    drop(workspace.alone().unwrap());
    let again = Fixture::again(fixture.temporary.path());
    assert_eq!(again.of(&who("a")).unwrap().since_ns(), Some(since));
    let alone = workspace.alone().unwrap();
    alone.set_since(None).unwrap();
    drop(alone);
    assert_eq!(workspace.since_ns(), None);
}

/// Another directory at the same place is another one.
#[test]
fn another_directory_is_not_taken_for_it() {
    let fixture = Fixture::new();
    fixture.workspaces.of(&who("a")).unwrap();
    fs::rename(fixture.lower(), fixture.temporary.path().join("moved")).unwrap();
    fs::create_dir(fixture.lower()).unwrap();
    let again = Fixture::again(fixture.temporary.path());
    assert!(matches!(again.of(&who("a")), Err(Unusable::Moved(_))));
    again.remove(&who("a"), false).unwrap();
    again.of(&who("a")).unwrap();
}

/// What was written is forgotten with the workspace, and whoever still has it finds it closed.
#[test]
fn a_workspace_is_forgotten() {
    let fixture = Fixture::new();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    fs::write(workspace.overlay().join("upper/x"), "x".repeat(100_000)).unwrap();
    assert!(fixture.workspaces.stored_bytes(&who("a")).unwrap() > 100_000);
    fixture.workspaces.remove(&who("a"), false).unwrap();
    assert_eq!(fixture.workspaces.stored_bytes(&who("a")).unwrap(), 0);
    assert!(!fixture.workspaces.is_kept(&who("a")));
    assert_eq!(workspace.enter().unwrap_err().fault, Fault::Busy);
    fixture.workspaces.of(&who("a")).unwrap().enter().unwrap();
}

/// As long as programs have it, it is used, however long nobody else looks: what changes in the lower meanwhile is a conflict.
#[test]
fn programs_use_a_workspace() {
    let fixture = Fixture::new();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    workspace.lend().unwrap();
    let since = workspace.since_ns().unwrap();
    workspace.state.lock().left = Instant::now().checked_sub(FORGOTTEN_AFTER);
    let _guard = workspace.enter().unwrap();
    assert_eq!(workspace.since_ns(), Some(since));
}

/// A copy is its program's alone, and what was done to it is in the workspace afterwards.
#[test]
fn a_copy_is_worked_on_alone() {
    let fixture = Fixture::new();
    fs::write(fixture.lower().join("x"), "lower").unwrap();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    let copy = workspace.check_out(1 << 20).unwrap();
    assert!(workspace.since_ns().is_some());
    assert!(matches!(workspace.check_out(1), Err(UseError::Busy { .. })));
    assert!(matches!(workspace.lend(), Err(UseError::Busy { .. })));
    assert!(matches!(workspace.alone(), Err(UseError::Busy { .. })));
    assert_eq!(workspace.tree().unwrap_err().fault, Fault::Busy);
    copy.make().unwrap();
    fs::write(copy.place().join("x"), "changed").unwrap();
    let one = Imported {
        written: 1,
        ..Imported::default()
    };
    assert_eq!(copy.take_back().unwrap(), one);
    assert_eq!(copy.take_back().unwrap(), Imported::default());
    assert!(matches!(copy.make(), Err(CheckoutError::Over)));
    assert!(!copy.place().exists() && workspace.was_written_by_others());
    drop(copy);
    assert_eq!(fs::read(workspace.overlay().join("upper/x")).unwrap(), b"changed");
    // One that was never made, and one that is too large, leave nothing.
    drop(workspace.check_out(1 << 20).unwrap());
    let small = workspace.check_out(6).unwrap();
    assert!(matches!(small.make(), Err(CheckoutError::TooLarge(6))));
    assert!(!small.place().exists());
    drop(small);
    drop(workspace.alone().unwrap());
}

/// What a program did to a copy survives the daemon, and what cannot be taken back keeps the workspace closed until it can be, or is dropped.
#[test]
fn a_copy_outlives_its_daemon() {
    let fixture = Fixture::new();
    let leave = |name: &str, content: &str| {
        let workspaces = Fixture::again(fixture.temporary.path());
        let copy = workspaces.of(&who(name)).unwrap().check_out(1 << 20).unwrap();
        copy.make().unwrap();
        fs::write(copy.place().join("x"), content).unwrap();
        // As `kill -9` does it.
        std::mem::forget(copy);
    };
    let upper = |name: &str| fixture.temporary.path().join("overlays").join(name).join("upper/x");
    leave("a", "one");
    let again = Fixture::again(fixture.temporary.path());
    let taken = again.end_all();
    assert!(matches!(
        &*taken,
        [(
            _,
            Late::Copy(Ok(Imported {
                written: 1,
                removed: 0,
                ..
            }))
        )]
    ));
    assert_eq!(fs::read(upper("a")).unwrap(), b"one");
    assert!(again.end_all().is_empty());
    drop(again.of(&who("a")).unwrap().alone().unwrap());

    leave("b", "two");
    let overlay = fixture.temporary.path().join("overlays/b");
    let (checkout, away) = (overlay.join("checkout"), overlay.join("away"));
    fs::rename(&checkout, &away).unwrap();
    let again = Fixture::again(fixture.temporary.path());
    assert!(matches!(&*again.end_all(), [(_, Late::Copy(Err(_)))]));
    let workspace = again.of(&who("b")).unwrap();
    assert!(matches!(workspace.alone(), Err(UseError::Unsaved(_))));
    assert_eq!(workspace.tree().unwrap_err().fault, Fault::Busy);
    assert!(matches!(workspace.take_back_left(), Err(UseError::Unsaved(_))));
    fs::rename(&away, &checkout).unwrap();
    workspace.take_back_left().unwrap();
    assert_eq!(fs::read(upper("b")).unwrap(), b"two");
    drop(workspace.alone().unwrap());

    leave("c", "three");
    let workspace = Fixture::again(fixture.temporary.path()).of(&who("c")).unwrap();
    assert!(workspace.drop_left().unwrap() && !workspace.drop_left().unwrap());
    assert!(!upper("c").exists());
    drop(workspace.alone().unwrap());
}

/// What is done to the place of the directory while the daemon runs is noticed by whoever opens it: neither a link nor another directory is taken
/// for it, also not by what opens it without asking who has it first.
#[test]
fn what_is_put_in_its_place_is_not_used() {
    let fixture = Fixture::new();
    let root = fixture.temporary.path();
    let (lower, moved) = (fixture.lower(), root.join("moved"));
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    let copy = workspace.check_out(1 << 20).unwrap();
    let others = |what: &str| {
        assert!(
            matches!(workspace.open_layers(), Err(ReviewError::Moved { .. })),
            "{what}"
        );
        assert!(
            matches!(fixture.workspaces.of(&who("a")), Err(Unusable::Moved(_))),
            "{what}"
        );
        assert!(
            matches!(copy.make(), Err(CheckoutError::Review(ReviewError::Moved { .. }))),
            "{what}"
        );
    };
    fs::rename(&lower, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &lower).unwrap();
    others("a link to itself");
    fs::remove_file(&lower).unwrap();
    fs::create_dir(&lower).unwrap();
    others("another directory");
    fs::remove_dir(&lower).unwrap();
    assert!(matches!(fixture.workspaces.of(&who("a")), Err(Unusable::Directory(_))));
    fs::rename(&moved, &lower).unwrap();
    copy.make().unwrap();
    copy.take_back().unwrap();
    drop(copy);
    drop(workspace.alone().unwrap());
    // Neither does anything else stand for the upper.
    let upper = workspace.overlay().join("upper");
    fs::rename(&upper, root.join("upper")).unwrap();
    std::os::unix::fs::symlink(root.join("upper"), &upper).unwrap();
    assert!(workspace.open_layers().is_err() && workspace.tree().is_err());
}

/// The same in a race, as whoever may write in the directory above can have it.
#[test]
fn a_race_for_its_place_is_not_won() {
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::tests::race::Stop;

    let fixture = Fixture::new();
    let (lower, evil) = (fixture.lower(), fixture.temporary.path().join("evil"));
    std::os::unix::fs::symlink("/etc", &evil).unwrap();
    let attached = fs::metadata(&lower).unwrap().ino();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = Stop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let swap = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &lower, rustix::fs::CWD, &evil, swap).unwrap();
            }
        });
        let opened = (0..5000).filter_map(|_| workspace.open_layers().ok());
        for layers in opened {
            assert_eq!(rustix::fs::fstat(&layers.lower).unwrap().st_ino, attached);
        }
    });
}

/// What would be lost is known also where the directory is gone; what is left of another one's is no hindrance.
#[test]
fn what_would_be_lost_is_known() {
    let fixture = Fixture::new();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    let (all, a) = (&fixture.workspaces, who("a"));
    assert!(!all.has_something(&a) && all.is_over(&a, &fixture.lower()) && !all.has_something(&who("b")));
    fs::write(workspace.overlay().join("upper/x"), "x").unwrap();
    fs::remove_dir(fixture.lower()).unwrap();
    assert!(all.of(&a).is_err() && all.has_something(&a));
    fs::remove_file(workspace.overlay().join("upper/x")).unwrap();
    let journal = workspace.overlay().join("journal");
    fs::create_dir(&journal).unwrap();
    assert!(all.has_something(&a));
    fs::write(journal.join("committed"), "").unwrap();
    assert!(matches!(all.remove(&a, false), Err(UseError::Torn)));
    assert!(all.is_kept(&a) && all.remove(&a, true).unwrap().torn && !all.is_kept(&a));
    assert!(!all.remove(&a, false).unwrap().torn);
}

/// What cannot be removed is out of the way, and gone when the daemon starts again.
#[test]
fn what_is_dropped_is_out_of_the_way() {
    let fixture = Fixture::new();
    let overlays = fixture.temporary.path().join("overlays");
    fs::create_dir_all(overlays.join(".removed-1/upper")).unwrap();
    fs::create_dir(overlays.join("a")).unwrap();
    fixture.workspaces.end_all();
    let left = fs::read_dir(&overlays).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["a"]);
}

/// Who waits for the workspace of one principal does not wait for another's.
#[test]
fn principals_do_not_wait_for_each_other() {
    let fixture = Fixture::new();
    let slot = fixture.workspaces.slot(&who("a"));
    let _removing = slot.lock();
    fixture.workspaces.of(&who("b")).unwrap();
}
