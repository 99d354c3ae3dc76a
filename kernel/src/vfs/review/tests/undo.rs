//! Going back.

use super::super::{rollback, snapshot};
use super::*;

/// All of it goes.
#[test]
fn everything_is_rolled_back() {
    let fixture = Fixture::corpus();
    let lower = tree_of(&fixture.lower);
    rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
    assert_eq!(fixture.changes(), Vec::<String>::new());
    assert_eq!(tree_of(&fixture.lower), lower);
    assert_eq!(fs::read_dir(fixture.upper()).unwrap().count(), 0);
}

/// Each path alone: it and what is below it differs no more, and everything else as before.
#[test]
fn a_path_is_rolled_back() {
    let paths = Fixture::corpus().changes();
    for change in &paths {
        let fixture = Fixture::corpus();
        let path = astrid_wire::control::workspace::unescape(&change[2..]).unwrap();
        let rolled = rollback::path(&fixture.overlay, &fixture.layers(), &path);
        // A directory that became a file, or the other way, goes back as one.
        if change == "R directory-to-file/x" {
            assert!(matches!(rolled, Err(ReviewError::Path(_))));
            continue;
        }
        rolled.unwrap_or_else(|error| panic!("{change}: {error}"));
        let mine = |other: &&String| {
            let other = astrid_wire::control::workspace::unescape(&other[2..]).unwrap();
            // A directory that was gone is there again for what is in it.
            is_within(&other, &path) || is_within(&path, &other) && paths.contains(&format!("R {}", shown(&other)))
        };
        let rest: Vec<&String> = paths.iter().filter(|other| !mine(other)).collect();
        let now = fixture.changes();
        assert_eq!(now.iter().collect::<Vec<_>>(), rest, "{change}");
        let left: Vec<_> = fs::read_dir(&fixture.overlay)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["upper"]);
    }
}

/// A state is kept, found again, and gone back to, with whiteouts and what hides the lower.
#[test]
fn a_snapshot_is_gone_back_to() {
    let fixture = Fixture::corpus();
    let before = fixture.changes();
    // As the kernel writes it when it copies a file up.
    let edited = || fs::File::open(fixture.upper().join("edited")).unwrap();
    rustix::fs::fsetxattr(edited(), layer::ORIGIN, b"a handle", rustix::fs::XattrFlags::empty()).unwrap();
    let origin = layer::origin(edited()).unwrap();
    let made = snapshot::make(&fixture.overlay, "one", 7, Some(8)).unwrap();
    assert_eq!(snapshot::list(&fixture.overlay).unwrap(), [made]);
    assert_eq!(snapshot::find(&fixture.overlay, "one").unwrap().since_ns, Some(8));
    rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
    fixture.above("later", "later");
    snapshot::restore(&fixture.overlay, "one").unwrap();
    assert_eq!(fixture.changes(), before);
    assert_eq!(
        layer::origin(edited()).unwrap(),
        origin,
        "what it was copied from is known still"
    );
    snapshot::make(&fixture.overlay, "one", 7, None).unwrap_err();
    for name in ["..", ".new", "a/b", "", "A"] {
        snapshot::make(&fixture.overlay, name, 7, None).unwrap_err();
        snapshot::restore(&fixture.overlay, name).unwrap_err();
        snapshot::remove(&fixture.overlay, name).unwrap_err();
    }
    snapshot::remove(&fixture.overlay, "one").unwrap();
    assert_eq!(snapshot::list(&fixture.overlay).unwrap(), []);
    snapshot::restore(&fixture.overlay, "one").unwrap_err();
    assert_eq!(fixture.changes(), before);
}

/// Whatever programs made, however deep, goes.
#[test]
fn any_depth_is_rolled_back() {
    let fixture = Fixture::new();
    let script = "d=aaaa; i=0; while [ $i -lt 1500 ]; do mkdir $d && cd -P $d; i=$((i+1)); done; touch x";
    let made = std::process::Command::new("sh")
        .current_dir(fixture.upper())
        .args(["-c", script])
        .status()
        .unwrap();
    assert!(made.success());
    fixture.above("zz", "zz\n");
    // What is too deep is told and left out; everything else is committed.
    let plan = fixture.plan(&Choice::all(), None);
    assert_eq!((plan.left_out.len(), plan.remarks.len()), (1, 1));
    assert!(plan.remarks[0].why.contains("200 directories deep") && plan.remarks[0].path.len() < 200);
    let page = super::super::diff::page(&fixture.layers(), &super::super::diff::Asked::default()).unwrap();
    assert!(page.files.iter().any(|file| file.remark.is_some()));
    fixture.commit_some(&["zz"]);
    assert_eq!(fs::read(fixture.lower.join("zz")).unwrap(), b"zz\n");
    let error = snapshot::make(&fixture.overlay, "deep", 7, None).unwrap_err();
    assert!(error.to_string().len() < 300, "{error}");
    fs::remove_dir(fixture.overlay.join("snapshots")).unwrap();
    rollback::all(&fixture.overlay, &fixture.layers()).unwrap();
    assert_eq!(fixture.changes(), Vec::<String>::new());
    assert_eq!(fs::read_dir(&fixture.overlay).unwrap().count(), 1);
}

/// What is removed by a commit may be deeper than is removed at once, beside whatever is there, and have any number of names.
#[test]
fn any_depth_and_width_is_removed() {
    let fixture = Fixture::new();
    let deep = vec!["d"; 150].join("/");
    fixture.below(&format!("gone/{deep}/x"), "x\n");
    fixture.below(".astrid-new-0/mine", "mine\n");
    fixture.gone("gone");
    fixture.commit_some(&[]);
    assert_eq!(tree_of(&fixture.lower).len(), 2);
    fs::create_dir(fixture.upper().join("wide")).unwrap();
    for name in 0..70_000 {
        fs::File::create(fixture.upper().join(format!("wide/{name}"))).unwrap();
    }
    rollback::path(&fixture.overlay, &fixture.layers(), b"wide").unwrap();
    assert_eq!(fs::read_dir(fixture.upper()).unwrap().count(), 0);
}
