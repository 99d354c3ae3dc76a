//! Against the kernel's own overlay, where this machine lets us mount one; and against a disk that is full.

use std::process::Command;

use super::*;

/// Runs a script in a mount namespace of its own. `None` when the machine has none for us, or no overlay.
fn apart(fixture: &Fixture, script: &str) -> Option<()> {
    let text = format!(
        "set -e; cd '{}'; mkdir -p work merged; mount -t overlay overlay -o lowerdir=lower,upperdir=overlay/upper,workdir=work,userxattr merged || exit 77; {script}",
        fixture.path("").display()
    );
    let ran = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &text])
        .output()
        .ok()?;
    let unable = ran.status.code() == Some(77) || String::from_utf8_lossy(&ran.stderr).contains("unshare");
    assert!(
        unable || ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    (!unable).then_some(())
}

/// What the kernel shows of the layers is what a commit makes of the lower.
#[test]
fn a_commit_makes_what_the_kernel_shows() {
    let fixture = Fixture::corpus();
    if apart(&fixture, "cp -a merged shown").is_none() {
        return;
    }
    fixture.commit_some(&[]);
    assert_eq!(tree_of(&fixture.lower), tree_of(&fixture.path("shown")));
}

/// A small generator: the same numbers each time.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn random_script(numbers: &mut Numbers) -> String {
    let mut script = String::from("cd merged; set +e; ");
    for step in 0..60 {
        let mut path = || {
            let depth = 1 + numbers.below(3);
            let names: Vec<String> = (0..depth).map(|_| format!("n{}", numbers.below(3))).collect();
            names.join("/")
        };
        let (one, other) = (path(), path());
        script += &match numbers.below(8) {
            0 | 1 => format!("echo {step} > {one}"),
            2 => format!("mkdir -p {one}"),
            3 => format!("rm -rf {one}"),
            4 => format!("mv -T {one} {other}"),
            5 => format!("ln -s x{step} {one}"),
            6 => format!("chmod 7{}0 {one}", numbers.below(8)),
            _ => format!("mkdir -p {one}; echo {step} > {one}/n1"),
        };
        script += " 2>/dev/null; ";
    }
    script + "true"
}

/// Whatever programs do in the kernel's overlay, the changes that are told are the difference, and committing makes of the lower what they saw.
#[test]
fn random_work_is_committed_as_it_was_seen() {
    let mut numbers = Numbers(7);
    for _ in 0..12 {
        let fixture = Fixture::new();
        let plain = random_script(&mut numbers).replace("cd merged;", "");
        let made = Command::new("sh")
            .current_dir(&fixture.lower)
            .args(["-c", &plain])
            .status()
            .unwrap();
        assert!(made.success());
        let script = random_script(&mut numbers) + "; cd ..; cp -a merged shown";
        if apart(&fixture, &script).is_none() {
            return;
        }
        let (lower, shown) = (tree_of(&fixture.lower), tree_of(&fixture.path("shown")));
        let differ = |path: &&String| lower.get(*path) != shown.get(*path);
        let mut paths: Vec<String> = lower.keys().chain(shown.keys()).filter(differ).cloned().collect();
        paths.sort_unstable();
        paths.dedup();
        let mut told: Vec<String> = fixture.changes().iter().map(|change| change[2..].to_owned()).collect();
        told.sort_unstable();
        assert_eq!(told, paths);
        fixture.commit_some(&[]);
        assert_eq!(tree_of(&fixture.lower), shown);
    }
}

fn conflicts(fixture: &Fixture, since: i128) -> Vec<String> {
    let plan = fixture.plan(&Choice::all(), Some(since));
    plan.conflicts.into_iter().map(|conflict| conflict.path).collect()
}

/// A file that was moved in the workspace was not removed below, whatever else is made there; one that was removed below is a conflict.
#[test]
fn what_the_workspace_moved_was_not_removed() {
    let fixture = Fixture::new();
    for path in ["a", "c", "d/e"] {
        fixture.below(path, "1\n");
    }
    let since = fixture.now();
    fixture.later_than(since);
    if apart(
        &fixture,
        "cd merged; echo 2 >> c; sleep 0.1; echo 2 >> a; mv a b; mv d/e d/f; mv d/f f",
    )
    .is_none()
    {
        return;
    }
    fixture.below("unrelated", "theirs\n");
    fixture.below("d/unrelated", "theirs\n");
    assert_eq!(conflicts(&fixture, since), Vec::<String>::new());
    fs::remove_file(fixture.lower.join("c")).unwrap();
    assert_eq!(conflicts(&fixture, since), ["c"]);
}

/// Whoever replaces a directory below replaces what is in it, however old that is; and a mode that was set below is not set back.
#[test]
fn a_directory_that_was_replaced_is_a_conflict() {
    let fixture = Fixture::new();
    for path in ["d/x", "e/x", "m/x", "backup/x", "backup/y", "put/x"] {
        fixture.below(path, "1\n");
    }
    let old =
        |path: &str| layer::set_mtime(layer::open_root(&fixture.lower.join(path)).unwrap(), 1_000_000_000).unwrap();
    old("put");
    old("backup");
    let since = fixture.now();
    fixture.later_than(since);
    if apart(
        &fixture,
        "cd merged; echo 2 > d/x; echo 2 > e/x; echo b > m/b; mkdir new; echo 2 > new/x",
    )
    .is_none()
    {
        return;
    }
    fixture.below("e/unrelated", "theirs\n");
    fixture.below("m/unrelated", "theirs\n");
    assert_eq!(conflicts(&fixture, since), Vec::<String>::new());
    let moved = |from: &str, to: &str| fs::rename(fixture.lower.join(from), fixture.lower.join(to)).unwrap();
    moved("d", "d.old");
    moved("backup", "d");
    moved("put", "new");
    fs::set_permissions(fixture.lower.join("m"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(conflicts(&fixture, since), ["d/x", "m", "new/x"]);
}

/// A disk that is full while it is staged leaves the lower as it was, and says so.
#[test]
fn a_full_disk_changes_nothing() {
    let fixture = Fixture::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&fixture.lower)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    fixture.below("a", "a\n");
    fixture.above("a", "b\n");
    fixture.above("large", &"x".repeat(2 << 20));
    let plan = fixture.plan(&Choice::all(), None);
    let result = fixture.commit_with(&plan, &mut Fault::default());
    let tree = tree_of(&fixture.lower);
    assert!(
        Command::new("umount")
            .args(["-l"])
            .arg(&fixture.lower)
            .status()
            .unwrap()
            .success()
    );
    let error = result.unwrap_err();
    assert!(
        matches!(&error, ReviewError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
        "{error}"
    );
    assert_eq!(error.hint(), Some("make room on that disk"));
    assert_eq!(tree, Tree::from([("a".to_owned(), ('f', 0o644, b"a\n".to_vec()))]));
    assert!(!fixture.overlay.join("journal").exists());
    assert_eq!(fixture.changes(), ["A a", "A large"], "the lower is unmounted");
}

/// Where there is no room for even an empty directory, what was written can be thrown away, and that makes room.
#[test]
fn a_full_disk_is_rolled_back() {
    let fixture = Fixture::new();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "nr_inodes=20", "tmpfs"])
        .arg(&fixture.overlay)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    fs::create_dir(fixture.overlay.join("upper")).unwrap();
    let full = (0..).find_map(|n| fs::write(fixture.overlay.join(format!("upper/{n}")), "").err());
    let rolled = super::super::rollback::all(&fixture.overlay, &fixture.layers());
    let left = fs::read_dir(&fixture.overlay)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.collect();
    let changes = fixture.changes();
    assert!(
        Command::new("umount")
            .args(["-l"])
            .arg(&fixture.overlay)
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
    rolled.unwrap();
    assert_eq!(left, ["upper"]);
    assert_eq!(changes, Vec::<String>::new());
}
