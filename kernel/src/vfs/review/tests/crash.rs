//! A commit is whole or did not happen, and overwrites nothing that it does not know of.

use super::super::commit::{Recovered, recover};
use super::*;

fn recovered(fixture: &Fixture, fault: &mut Fault) -> Result<Recovered, ReviewError> {
    let mut emptied = false;
    let empty = || {
        emptied = true;
        Ok(())
    };
    let recovered = recover(&fixture.overlay, || root(&fixture.lower), empty, fault);
    // Who keeps since when the workspace is used hears that it is as new: else the commit itself would be a conflict.
    assert!(emptied || !matches!(recovered, Ok(Recovered::Completed)));
    assert!(!emptied || matches!(recovered, Ok(Recovered::Completed) | Err(ReviewError::Stopped)));
    recovered
}

/// What the workspace shows when nothing goes wrong.
fn committed() -> Tree {
    let fixture = Fixture::corpus();
    fixture.commit_some(&[]);
    assert_eq!(fixture.changes(), Vec::<String>::new());
    tree_of(&fixture.lower)
}

/// The lower becomes what the workspace showed, and the workspace is empty.
#[test]
fn a_commit_is_all_of_it() {
    let tree = committed();
    let names: Vec<&str> = tree.keys().map(String::as_str).collect();
    assert_eq!(
        names.join(" "),
        "dir dir/deep dir/edited dir/kept directory-mode directory-mode/x directory-to-file edited \
        file-to-directory file-to-directory/x file-to-link link link-to-file mode n\\xff\\x0a new new-dir new-dir/empty new-dir/sub \
        new-dir/sub/file with blank new-link replaced replaced/both replaced/fresh same touched"
    );
    assert_eq!(tree["mode"], ('f', 0o755, b"#!/bin/sh\n".to_vec()));
    assert_eq!(tree["directory-mode"].1, 0o700);
    assert_eq!(tree["replaced/both"].2, b"new\n");
    assert_eq!(tree["link"], ('l', 0, b"new".to_vec()));
}

/// Stopped before any step, and stopped again while that is mended, the lower is as it was or as it shall be; and nothing is left.
#[test]
fn a_crash_at_every_step_leaves_old_or_new() {
    let old = tree_of(&Fixture::corpus().lower);
    let new = committed();
    let (mut undone, mut completed) = (0, 0);
    for after in 0.. {
        let fixture = Fixture::corpus();
        let plan = fixture.plan(&Choice::all(), None);
        let mut fault = Fault::after(after);
        if fixture.commit_with(&plan, &mut fault).is_ok() {
            assert!(undone > 15 && completed > 30, "{undone} undone, {completed} completed");
            break;
        }
        // The daemon is killed again while it recovers, a little further each time.
        let mut again = 0;
        let what = loop {
            match recovered(&fixture, &mut Fault::after(again)) {
                Ok(what) => break what,
                Err(ReviewError::Stopped) => again += 1 + again / 4,
                Err(error) => panic!("after {after}, then {again}: {error}"),
            }
        };
        let now = tree_of(&fixture.lower);
        match what {
            Recovered::Completed => {
                completed += 1;
                assert_eq!(now, new, "after {after}");
                assert_eq!(fixture.changes(), Vec::<String>::new());
            }
            Recovered::Undone | Recovered::Nothing => {
                undone += 1;
                assert_eq!(now, old, "after {after}");
                assert!(fixture.changes().len() > 20);
            }
        }
        let left: Vec<_> = fs::read_dir(&fixture.overlay)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["upper"]);
        assert_eq!(recovered(&fixture, &mut Fault::default()).unwrap(), Recovered::Nothing);
    }
}

/// What waits for its place when a crash comes may be taken for rubbish by whom the directory belongs to: it is made again, and nothing is lost.
#[test]
fn what_was_tidied_away_is_made_again() {
    let new = committed();
    let mut tidied = 0;
    for after in 0.. {
        let fixture = Fixture::corpus();
        let plan = fixture.plan(&Choice::all(), None);
        if fixture.commit_with(&plan, &mut Fault::after(after)).is_ok() {
            break;
        }
        let committed = fixture.overlay.join("journal/committed").exists();
        let mut tidy = || {
            for name in tree_of(&fixture.lower)
                .keys()
                .filter(|name| name.contains(".astrid-commit-"))
            {
                fs::remove_file(fixture.lower.join(name)).unwrap();
                tidied += u64::from(committed);
            }
        };
        tidy();
        let mut again = 0;
        while matches!(recovered(&fixture, &mut Fault::after(again)), Err(ReviewError::Stopped)) {
            tidy();
            again += 1 + again / 2;
        }
        if committed {
            assert_eq!(tree_of(&fixture.lower), new, "after {after}");
            assert_eq!(fixture.changes(), Vec::<String>::new());
        }
    }
    assert!(tidied > 50, "{tidied}");
}

/// What somebody changed after it was put in place, before the rest was, stays.
#[test]
fn what_is_in_place_is_not_made_again() {
    let fixture = Fixture::new();
    fixture.below("a", "1\n");
    fixture.above("a", "2\n");
    fixture.above("z", "2\n");
    for after in 0.. {
        let plan = fixture.plan(&Choice::all(), None);
        fixture.commit_with(&plan, &mut Fault::after(after)).unwrap_err();
        if fs::read(fixture.lower.join("a")).unwrap() == b"2\n" {
            break;
        }
        recovered(&fixture, &mut Fault::default()).unwrap();
        fixture.below("a", "1\n");
        fixture.above("a", "2\n");
        fixture.above("z", "2\n");
        fs::remove_file(fixture.lower.join("z")).ok();
    }
    assert!(!fixture.lower.join("z").exists());
    fs::remove_file(fixture.lower.join("a")).unwrap();
    fixture.below("a", "mine\n");
    assert_eq!(
        recovered(&fixture, &mut Fault::default()).unwrap(),
        Recovered::Completed
    );
    assert_eq!(fs::read(fixture.lower.join("a")).unwrap(), b"mine\n");
    assert_eq!(fs::read(fixture.lower.join("z")).unwrap(), b"2\n");
}

/// Some paths go, with the directories that they need; the rest stays as it was.
#[test]
fn some_paths_are_committed() {
    let fixture = Fixture::corpus();
    let before = fixture.changes();
    fixture.commit_some(&["new-dir/sub", "gone/b", "replaced/both", "file-to-directory/x"]);
    let now = tree_of(&fixture.lower);
    assert!(now.contains_key("new-dir/sub/file with blank") && !now.contains_key("new-dir/empty"));
    assert!(now.contains_key("gone/a") && !now.contains_key("gone/b"));
    assert_eq!(now["replaced/both"].2, b"new\n");
    assert!(now.contains_key("replaced/old"));
    assert_eq!(now["file-to-directory"].0, 'd');
    let done = [
        "A new-dir",
        "A new-dir/sub",
        "A new-dir/sub/file with blank",
        "R gone/b",
        "R gone/b/c",
        "M replaced/both",
        "M file-to-directory",
        "A file-to-directory/x",
    ];
    let rest: Vec<String> = before
        .into_iter()
        .filter(|change| !done.contains(&change.as_str()))
        .collect();
    assert_eq!(fixture.changes(), rest);
    fixture.commit_some(&[]);
    assert_eq!(tree_of(&fixture.lower), committed());
}

fn conflicts(fixture: &Fixture, since: i128) -> Vec<String> {
    let plan = fixture.plan(&Choice::all(), Some(since));
    assert_eq!(plan.conflicts.len() as u64, plan.conflicts_total);
    plan.conflicts.into_iter().map(|conflict| conflict.path).collect()
}

/// What changed in the lower meanwhile is named, all of it; what became the same is none.
#[test]
fn conflicts_are_named() {
    let fixture = Fixture::corpus();
    let since = fixture.now();
    assert_eq!(conflicts(&fixture, since), Vec::<String>::new());
    fixture.later_than(since);
    fixture.below("edited", "theirs\n");
    fixture.below("new", "theirs\n");
    fixture.below("new-dir/sub/file with blank", "x\n");
    fixture.below("gone/b/c", "theirs\n");
    fixture.below("replaced/theirs", "theirs\n");
    fixture.below("dir/unrelated", "theirs\n");
    fs::remove_file(fixture.lower.join("removed")).unwrap();
    fs::remove_file(fixture.lower.join("dir/edited")).unwrap();
    // Not in the moment in which something was removed: that is what moving looks like.
    fixture.later_than(fixture.now() + 100_000_000);
    layer::mark_origin(fs::File::open(fixture.upper().join("dir/edited")).unwrap()).unwrap();
    fs::remove_file(fixture.lower.join("mode")).unwrap();
    fs::create_dir(fixture.lower.join("mode")).unwrap();
    let named = ["dir/edited", "edited", "gone/b/c", "mode", "new", "replaced/theirs"];
    assert_eq!(conflicts(&fixture, since), named);
}

/// A second name of a file that was copied up, or a copy of it, is no file that somebody removed: the lower has it where it was.
#[test]
fn copies_in_the_workspace_are_no_conflicts() {
    let fixture = Fixture::new();
    fixture.below("d/f", "f\n");
    fixture.below("d/g", "gg\n");
    let since = fixture.now();
    fixture.later_than(since + 100_000_000);
    for name in ["f", "g"] {
        let lower = fixture.lower.join("d").join(name);
        fixture.above(&format!("d/{name}.bak"), &fs::read_to_string(&lower).unwrap());
        let copy = fs::File::open(fixture.upper().join(format!("d/{name}.bak"))).unwrap();
        layer::mark_origin(&copy).unwrap();
        copy.set_modified(fs::metadata(&lower).unwrap().modified().unwrap())
            .unwrap();
    }
    fixture.below("d/theirs", "t\n");
    assert_eq!(conflicts(&fixture, since), Vec::<String>::new());
    // One that somebody gave another name is not where it was.
    fs::rename(fixture.lower.join("d/g"), fixture.lower.join("d/h")).unwrap();
    assert_eq!(conflicts(&fixture, since), ["d/g.bak"]);
    fs::remove_file(fixture.lower.join("d/h")).unwrap();
    assert_eq!(conflicts(&fixture, since), ["d/g.bak"]);
}

/// A directory of the lower that became a link meanwhile is a conflict; it is never followed, also when the commit is forced.
#[test]
fn links_in_the_lower_are_not_followed() {
    let fixture = Fixture::new();
    fixture.below("d/x", "x\n");
    fixture.above("d/x", "mine\n");
    fixture.gone("d/y");
    let since = fixture.now();
    fixture.later_than(since);
    let outside = fixture.path("outside");
    write(&outside.join("x"), "theirs\n", 0o644);
    write(&outside.join("y"), "theirs\n", 0o644);
    fs::remove_dir_all(fixture.lower.join("d")).unwrap();
    symlink(&outside, fixture.lower.join("d")).unwrap();
    assert_eq!(conflicts(&fixture, since), ["d"]);
    let plan = fixture.plan(&Choice::all(), Some(since));
    let how = How {
        whole: true,
        force: true,
    };
    commit(
        &fixture.overlay,
        &fixture.layers(),
        &plan,
        how,
        &mut Fault::default(),
        &mut |_, _, _| Ok(()),
    )
    .unwrap();
    assert_eq!(fs::read(fixture.lower.join("d/x")).unwrap(), b"mine\n");
    assert!(!fixture.lower.join("d").is_symlink());
    let theirs = tree_of(&outside);
    assert!(theirs.values().all(|(.., content)| content == b"theirs\n") && theirs.len() == 2);
}

/// What changes between the plan and the mark stops the commit, and nothing of it is there.
#[test]
fn a_change_while_it_is_staged_stops_it() {
    let fixture = Fixture::corpus();
    let plan = fixture.plan(&Choice::all(), None);
    fixture.below("edited", "theirs\n");
    let before = tree_of(&fixture.lower);
    let error = fixture.commit_with(&plan, &mut Fault::default()).unwrap_err();
    assert!(
        matches!(&error, ReviewError::Raced { path } if path == "edited"),
        "{error}"
    );
    assert_eq!(tree_of(&fixture.lower), before);
    assert!(!fixture.overlay.join("journal").exists());
}

/// A directory that becomes a link after the plan was made is not gone through.
#[test]
fn a_swap_while_it_is_staged_stops_it() {
    let fixture = Fixture::new();
    fixture.below("d/x", "x\n");
    fixture.gone("d/x");
    fixture.above("other", "o\n");
    let plan = fixture.plan(&Choice::all(), None);
    let outside = fixture.path("outside");
    fs::rename(fixture.lower.join("d"), &outside).unwrap();
    symlink(&outside, fixture.lower.join("d")).unwrap();
    fixture.commit_with(&plan, &mut Fault::default()).unwrap_err();
    assert!(outside.join("x").exists() && !fixture.lower.join("other").exists());
}

/// Another directory at the same place is not committed to when a commit is completed.
#[test]
fn another_lower_is_not_touched() {
    let fixture = Fixture::corpus();
    let plan = fixture.plan(&Choice::all(), None);
    fixture.commit_with(&plan, &mut Fault::after(30)).unwrap_err();
    let moved = fixture.path("moved");
    fs::rename(&fixture.lower, &moved).unwrap();
    fs::create_dir(&fixture.lower).unwrap();
    assert!(matches!(
        recovered(&fixture, &mut Fault::default()),
        Err(ReviewError::Moved { .. })
    ));
    assert_eq!(tree_of(&fixture.lower), Tree::new());
    fs::remove_dir(&fixture.lower).unwrap();
    fs::rename(&moved, &fixture.lower).unwrap();
    recovered(&fixture, &mut Fault::default()).unwrap();
}
