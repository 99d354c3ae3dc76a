//! What differs, and how that is told.

use std::process::Command;

use astrid_wire::control::workspace::{FileDiff, unescape};

use super::super::diff::{self, Asked};
use super::*;

/// The whole diff, page by page.
fn whole(fixture: &Fixture) -> Vec<FileDiff> {
    let mut asked = Asked::default();
    let mut files = Vec::new();
    loop {
        let page = diff::page(&fixture.layers(), &asked).unwrap();
        files.extend(page.files);
        let Some(next) = page.next else { return files };
        asked.after = unescape(&next);
    }
}

fn git(directory: &Path, arguments: &[&str]) {
    let ran = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// People's attributes are committed with a file, and no patch has them: which are other is said.
#[test]
fn attributes_are_told() {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let fixture = Fixture::new();
    let (lower, upper) = (fixture.lower.join("a"), fixture.path("overlay/upper/a"));
    fs::write(&lower, "old\n").unwrap();
    fs::write(&upper, "new\n").unwrap();
    fs::write(fixture.path("overlay/upper/b"), "\0").unwrap();
    for (name, value) in [("user.same", b"1"), ("user.other", b"1"), ("user.gone", b"1")] {
        set(&lower, name, value);
    }
    for (name, value) in [("user.same", b"1"), ("user.other", b"2"), ("user.overlay.mine", b"1")] {
        set(&upper, name, value);
    }
    for n in 0..10 {
        set(&fixture.path("overlay/upper/b"), &format!("user.n{n}): x, "), b"");
    }
    let [a, b] = &whole(&fixture)[..] else { panic!() };
    assert!(
        a.patch().starts_with("# other attributes (user.gone, user.other): a\n"),
        "{}",
        a.patch()
    );
    let text = b.remark.clone().unwrap();
    assert!(
        text.starts_with(r"other attributes (user.n0\x29\x3a\x20x\x2c\x20, "),
        "{text}"
    );
    assert!(text.ends_with(r"user.n7\x29\x3a\x20x\x2c\x20, more)"), "{text}");
    fixture.commit_some(&[]);
    let told = |name: &str| rustix::fs::getxattr(&lower, name, Vec::new().spare_capacity_mut()).is_ok();
    assert!(told("user.other") && !told("user.gone") && !told("user.overlay.mine"));
}

/// Every kind of change is one, nothing else is, and they come in order.
#[test]
fn changes_are_what_differs() {
    let fixture = Fixture::corpus();
    let expected = [
        "M dir/edited",
        "R dir/deep/removed",
        "M directory-mode",
        "M directory-to-file",
        "R directory-to-file/x",
        "M edited",
        "M file-to-directory",
        "A file-to-directory/x",
        "M file-to-link",
        "R gone",
        "R gone/a",
        "R gone/b",
        "R gone/b/c",
        "M link",
        "M link-to-file",
        "M mode",
        r"A n\xff\x0a",
        "A new",
        "A new-dir",
        "A new-dir/empty",
        "A new-dir/sub",
        "A new-dir/sub/file with blank",
        "A new-link",
        "R removed",
        "M replaced/both",
        "A replaced/fresh",
        "R replaced/old",
        "R replaced/sub",
        "R replaced/sub/x",
    ];
    let mut sorted = expected.to_vec();
    sorted.sort_unstable_by(|a, b| order(&unescape(&a[2..]).unwrap(), &unescape(&b[2..]).unwrap()));
    assert_eq!(fixture.changes(), sorted);
    // From any of them on, the rest comes.
    for (at, after) in sorted.iter().enumerate() {
        let path = unescape(&after[2..]).unwrap();
        let which = Which {
            after: Some(&path),
            choice: Choice::all(),
        };
        assert_eq!(fixture.changes_of(&which), sorted[at + 1..]);
    }
    let which = Which {
        after: None,
        choice: choice(&["dir", "gone/b"]),
    };
    let chosen = ["R dir/deep/removed", "M dir/edited", "R gone/b", "R gone/b/c"];
    assert_eq!(fixture.changes_of(&which), chosen);
}

/// What names a path outside is no path.
#[test]
fn paths_stay_inside() {
    let of = |path: &str| Choice::of(vec![path.as_bytes().to_vec()]);
    for path in [
        "", "/", "/etc", "a/../b", "..", "../", "./..", "a//b", "a//", "a/.", "a\0",
    ] {
        of(path).unwrap_err();
    }
    // As people and shells write them.
    for path in ["a/", "./a", "./a/"] {
        assert_eq!(of(path).unwrap().paths(), [b"a"]);
    }
    assert!(of(".").unwrap().is_all() && of("./").unwrap().is_all());
}

/// `git apply` makes of the lower what the workspace shows.
#[test]
fn git_applies_the_diff() {
    let fixture = Fixture::corpus();
    for (path, content) in [
        ("no-newline", "a\nb"),
        ("gets-newline", "a\nb"),
        ("empty", ""),
        ("carriage", "a\rb\r\nc\n"),
    ] {
        fixture.below(path, content);
    }
    fixture.above("no-newline", "a\nc");
    fixture.above("gets-newline", "a\nb\n");
    fixture.above("empty", "not\n");
    fixture.above("carriage", "a\rB\r\nc\nd\u{2028}e\n");
    fixture.above("made-empty", "");
    fixture.above("quo\"te\\é\t", "x\n");
    let patch: String = whole(&fixture).iter().map(FileDiff::patch).collect();
    let copy = fixture.path("copy");
    let ran = Command::new("cp")
        .arg("-a")
        .arg(&fixture.lower)
        .arg(&copy)
        .status()
        .unwrap();
    assert!(ran.success());
    fs::write(fixture.path("patch"), &patch).unwrap();
    git(&copy, &["init", "-q"]);
    git(
        &copy,
        &["apply", "--whitespace=nowarn", fixture.path("patch").to_str().unwrap()],
    );
    fs::remove_dir_all(copy.join(".git")).unwrap();
    fixture.commit_some(&[]);
    let files = |root: &Path| -> Tree {
        let git_mode = |mode| if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let all = tree_of(root).into_iter().filter(|(_, (kind, ..))| *kind != 'd');
        all.map(|(path, (kind, mode, content))| (path, (kind, if kind == 'l' { 0 } else { git_mode(mode) }, content)))
            .collect()
    };
    assert_eq!(files(&copy), files(&fixture.lower), "{patch}");
}

/// Whatever names, targets and contents are, the patch changes what a commit changes, and no line of them is a line of a header.
#[test]
fn no_patch_is_forged() {
    let mut numbers = super::view::Numbers(3);
    let mut text = |newline: bool| -> String {
        const LINES: [&str; 12] = [
            "x",
            "",
            "\\ No newline at end of file",
            "diff --git a/Makefile b/Makefile",
            "--- a/Makefile",
            "+++ b/Makefile",
            "@@ -1 +1 @@",
            "-all:",
            "+evil:",
            "\r",
            "new file mode 120000",
            "Binary files a/x and b/x differ",
        ];
        let count = 1 + numbers.below(14);
        let pick = |_| LINES[usize::try_from(numbers.below(LINES.len() as u64)).unwrap()];
        let lines: Vec<&str> = (0..count).map(pick).collect();
        let text = lines.join("\n") + if newline && count.is_multiple_of(2) { "\n" } else { "" };
        if text.is_empty() { "x".to_owned() } else { text }
    };
    for round in 0..30 {
        let fixture = Fixture::new();
        fixture.below("Makefile", "all:\n");
        for (name, old) in [("changed", true), ("new", false), ("l1", true), ("l2", false)] {
            for (present, root) in [(old, fixture.lower.clone()), (true, fixture.upper())] {
                match present.then_some(name.starts_with('l')) {
                    Some(true) => symlink(text(true), root.join(name)).unwrap(),
                    Some(false) => fs::write(root.join(name), text(true)).unwrap(),
                    None => {}
                }
            }
        }
        let name = text(false).replace('/', "_");
        let name = if matches!(&*name, "." | "..") { "y" } else { &name };
        fs::write(fixture.upper().join(name.get(..200).unwrap_or(name)), "content\n").unwrap();
        let files = whole(&fixture);
        let heads = |text: &str| text.split('\n').filter(|line| line.starts_with("diff --git ")).count();
        assert!(files.iter().all(|file| heads(&file.patch()) == 1));
        let patch: String = files.iter().map(FileDiff::patch).collect();
        let copy = fixture.path("copy");
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(&fixture.lower)
                .arg(&copy)
                .status()
                .unwrap()
                .success()
        );
        fs::write(fixture.path("patch"), &patch).unwrap();
        let apply = ["apply", "--whitespace=nowarn", fixture.path("patch").to_str().unwrap()].map(str::to_owned);
        git(&copy, &apply.each_ref().map(|text| &**text));
        fixture.commit_some(&[]);
        assert_eq!(tree_of(&copy), tree_of(&fixture.lower), "round {round}\n{patch}");
        assert_eq!(fs::read(fixture.lower.join("Makefile")).unwrap(), b"all:\n");
    }
    // What is no text is told in words, escaped.
    let fixture = Fixture::new();
    symlink(OsStr::from_bytes(b"\xff\n+++ b/x"), fixture.upper().join("odd")).unwrap();
    let patch = whole(&fixture)[0].patch();
    assert!(
        patch.contains("# nothing becomes a link to \\xff\\x0a+++ b/x\nBinary files"),
        "{patch}"
    );
}

/// What is no text is told with its sizes and hashes.
#[test]
fn binaries_are_told() {
    let fixture = Fixture::new();
    fixture.below("nul", "a\0b");
    fixture.above("nul", "a\0c");
    fixture.below("long", "x");
    fixture.above("long", &"line\n".repeat(200_000));
    let files = whole(&fixture);
    let hash = |text: &str| Some(blake3::hash(text.as_bytes()).to_hex().to_string());
    let side = |file: &FileDiff| (file.before.clone().unwrap(), file.after.clone().unwrap());
    for (file, old, new) in [
        (&files[0], "x", "line\n".repeat(200_000)),
        (&files[1], "a\0b", "a\0c".to_owned()),
    ] {
        assert!(file.binary && file.hunks.is_none());
        let (before, after) = side(file);
        assert_eq!((before.hash, after.hash), (hash(old), hash(&new)));
        assert_eq!(
            (before.size, after.size),
            (Some(old.len() as u64), Some(new.len() as u64))
        );
        assert!(file.patch().contains("Binary files a/"));
    }
}

/// Pages are bounded, and together they are all of it.
#[test]
fn a_long_diff_comes_in_pages() {
    let fixture = Fixture::new();
    let text = "0123456789abcde\n".repeat(8 << 10);
    for number in 0..40 {
        fixture.above(&format!("d{}/{number:02}", number % 3), &text);
    }
    let first = diff::page(&fixture.layers(), &Asked::default()).unwrap();
    assert!(first.files.len() < 20 && first.next.is_some());
    assert!(serde_json::to_vec(&first).unwrap().len() < 4 << 20);
    let all: Vec<String> = whole(&fixture).into_iter().map(|file| file.path).collect();
    assert_eq!(all.len(), 43);
    let paths: Vec<String> = fixture.changes().iter().map(|change| change[2..].to_owned()).collect();
    assert_eq!(all, paths);
}

/// The largest text that is shown, all of it in escapes, is an answer.
#[test]
fn the_worst_diff_is_less_than_a_frame() {
    let fixture = Fixture::new();
    let size = usize::try_from(diff::TEXT_BYTES_MAX).unwrap();
    fixture.below("worst", &"\u{1}".repeat(size));
    fixture.above("worst", &"\u{2}\n".repeat(size / 2));
    let page = diff::page(&fixture.layers(), &Asked::default()).unwrap();
    assert!(page.files[0].hunks.is_some());
    assert!(serde_json::to_vec(&page).unwrap().len() < 15 << 20);
}
