//! Who may use a workspace, and when.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

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
        let resolver = move |principal: &Principal| (principal.as_str() != "nobody").then(|| lower.clone());
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
    assert_eq!(fixture.workspaces.of(&nobody).unwrap_err().fault, Fault::NoWorkspace);
    assert_eq!(fixture.workspaces.stored_bytes(&nobody).unwrap(), 0);
    fixture.workspaces.remove(&nobody).unwrap();
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
        fixture.workspaces.remove(&who("a")),
        Err(UseError::Busy { users: 1 })
    ));
    drop(other);
    let alone = workspace.alone().unwrap();
    assert_eq!(workspace.enter().unwrap_err().fault, Fault::Busy);
    assert_eq!(workspace.tree().unwrap_err().fault, Fault::Busy);
    assert!(matches!(workspace.alone(), Err(UseError::Busy { .. })));
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
    assert_eq!(again.of(&who("a")).unwrap_err().fault, Fault::Changed);
    again.remove(&who("a")).unwrap();
    again.of(&who("a")).unwrap();
}

/// What was written is forgotten with the workspace, and whoever still has it finds it closed.
#[test]
fn a_workspace_is_forgotten() {
    let fixture = Fixture::new();
    let workspace = fixture.workspaces.of(&who("a")).unwrap();
    fs::write(workspace.overlay().join("upper/x"), "x".repeat(100_000)).unwrap();
    assert!(fixture.workspaces.stored_bytes(&who("a")).unwrap() > 100_000);
    fixture.workspaces.remove(&who("a")).unwrap();
    assert_eq!(fixture.workspaces.stored_bytes(&who("a")).unwrap(), 0);
    assert!(!fixture.workspaces.is_kept(&who("a")));
    assert_eq!(workspace.enter().unwrap_err().fault, Fault::Busy);
    fixture.workspaces.of(&who("a")).unwrap().enter().unwrap();
}
