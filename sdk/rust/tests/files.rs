//! The fake kernel's files: what `wit/fs.wit` promises, with its errors.

#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::error::FsError;
use astrid_sdk::fs::{Changed, Expected, File, OpenOptions};
use astrid_sdk::prelude::*;
use astrid_sdk::testing::{Asked, Harness};

/// Does what it is told, and says what came of it.
#[derive(Default)]
struct Clerk {
    kept: Option<File>,
    heard: Vec<String>,
}

#[capsule]
impl Clerk {
    #[on("clerk.v1.do")]
    fn work(&mut self, ctx: &mut Context, (what, path, with): (String, String, String)) -> Result<Value> {
        let mut fs = ctx.fs();
        Ok(match what.as_str() {
            "read" => fs.read_to_string(&path, 1 << 20)?.into(),
            "read-few" => fs.read_to_string(&path, 4)?.into(),
            "write" => fs.write(&path, with)?.into(),
            "write-new" => fs.replace(&path, with, &Expected::Absent)?.into(),
            "edit" => fs.edit(&path, 1 << 20, |text| format!("{text}{with}"))?.into(),
            "list" => {
                let after = (!with.is_empty()).then_some(with.as_str());
                let names = match after {
                    Some(after) => fs.list_after(&path, after),
                    None => fs.list(&path),
                };
                let names: Result<Vec<String>, FsError> = names.map(|entry| Ok(entry?.name)).collect();
                names?.into()
            }
            "stat" => format!("{:?}", fs.stat(&path)?.kind).into(),
            "stat-link" => format!("{:?}", fs.stat_link(&path)?.kind).into(),
            "make-dir" => fs.make_dir(&path).map(Value::from)?,
            "make-dirs" => fs.make_dirs(&path).map(Value::from)?,
            "remove" => fs.remove(&path).map(Value::from)?,
            "remove-all" => fs.remove_all(&path).map(Value::from)?,
            "rename" => fs.rename(&path, with).map(Value::from)?,
            "rename-over" => fs.rename_over(&path, with).map(Value::from)?,
            "link" => fs.make_link(&path, &with).map(Value::from)?,
            "read-link" => fs.read_link(&path)?.into(),
            "keep" => {
                self.kept = Some(fs.open(&path, &OpenOptions::reading())?);
                Value::Null
            }
            "use-kept" => self.kept.as_ref().unwrap().read(0, 1)?.into(),
            "append" => {
                let mut file = fs.open(&path, &OpenOptions::writing())?;
                let end = file.stat()?.size;
                file.write(end, with.as_bytes())?;
                file.sync()?;
                Value::from(file.stat()?.size)
            }
            "hoard" => {
                let open = |_| fs.open(&path, &OpenOptions::reading());
                let all: Result<Vec<File>, FsError> = (0..65).map(open).collect();
                all?.len().into()
            }
            "watch" => fs.watch(&path)?.into(),
            "unwatch" => fs.unwatch(with.parse().unwrap()).into(),
            other => panic!("{other}"),
        })
    }

    #[on("port.v1.watch.changed")]
    fn changed(&mut self, changed: Changed) {
        self.heard.extend(changed.paths);
    }
}

fn clerk() -> Harness<Clerk> {
    let mut clerk = Harness::new::<Clerk>();
    clerk.put_file("workspace://src/main.rs", "fn main() {}\n");
    clerk.put_file("workspace://src/lib.rs", "");
    clerk.put_file("home://notes.txt", "milk");
    clerk
}

fn work(clerk: &mut Harness<Clerk>, what: &str, path: &str, with: &str) -> Asked {
    clerk.ask("clerk.v1.do", (what, path, with))
}

#[track_caller]
fn refused(clerk: &mut Harness<Clerk>, what: &str, path: &str, with: &str) -> String {
    work(clerk, what, path, with).refused().code().to_owned()
}

#[test]
fn files_are_read_and_written_at_once() {
    let mut clerk = clerk();
    assert_eq!(
        work(&mut clerk, "read", "workspace://src/main.rs", "").json(),
        "fn main() {}\n"
    );
    assert_eq!(
        refused(&mut clerk, "read-few", "workspace://src/main.rs", ""),
        "too-large"
    );
    let hash = work(&mut clerk, "write", "workspace://new.txt", "abc").json();
    assert_eq!(hash, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    assert_eq!(
        refused(&mut clerk, "write-new", "workspace://new.txt", "x"),
        "fs.exists"
    );
    assert_eq!(work(&mut clerk, "append", "workspace://new.txt", "def").json(), 6);
    work(&mut clerk, "edit", "workspace://new.txt", "!").json();
    assert_eq!(clerk.file("workspace://new.txt").unwrap(), b"abcdef!");
    assert!(clerk.file_meta("workspace://").unwrap().changed);
    assert!(!clerk.file_meta("workspace://src").unwrap().changed);
    clerk.put_file("tmp://bad", [0xff]);
    assert_eq!(refused(&mut clerk, "read", "tmp://bad", ""), "fs.not-text");
}

#[test]
fn directories_are_listed_in_order_and_on_from_a_name() {
    let mut clerk = clerk();
    for index in 0..1_500 {
        clerk.put_file(&format!("tmp://many/{index:04}"), "");
    }
    let names = work(&mut clerk, "list", "tmp://many", "").json();
    assert_eq!(names.as_array().unwrap().len(), 1_500);
    assert_eq!((&names[0], &names[1_499]), (&json!("0000"), &json!("1499")));
    assert_eq!(
        work(&mut clerk, "list", "tmp://many", "1497").json(),
        json!(["1498", "1499"])
    );
    assert_eq!(work(&mut clerk, "list", "workspace://", "").json(), json!(["src"]));
    assert_eq!(
        refused(&mut clerk, "list", "workspace://src/main.rs", ""),
        "fs.not-a-directory"
    );
    assert_eq!(refused(&mut clerk, "list", "workspace://nothing", ""), "fs.not-found");
}

#[test]
fn links_are_followed_inside_their_root_only() {
    let mut clerk = clerk();
    clerk.put_link("workspace://src/link", "../src/./main.rs");
    clerk.put_link("workspace://out", "../../etc/passwd");
    clerk.put_link("workspace://abs", "/etc/passwd");
    clerk.put_link("workspace://loop", "loop");
    assert_eq!(
        work(&mut clerk, "read", "workspace://src/link", "").json(),
        "fn main() {}\n"
    );
    assert_eq!(
        work(&mut clerk, "stat-link", "workspace://src/link", "").json(),
        "Kind::Link"
    );
    for path in [
        "workspace://out",
        "workspace://abs",
        "workspace://loop",
        "workspace://loop/a",
    ] {
        assert_eq!(refused(&mut clerk, "read", path, ""), "fs.escapes", "{path}");
        assert_eq!(refused(&mut clerk, "write", path, ""), "fs.escapes", "{path}");
    }
    assert_eq!(
        refused(&mut clerk, "link", "workspace://src/l", "../../x"),
        "fs.escapes"
    );
    assert_eq!(refused(&mut clerk, "link", "workspace://src/l", "/x"), "fs.escapes");
    work(&mut clerk, "link", "workspace://src/l", "../src/lib.rs").json();
    assert_eq!(
        work(&mut clerk, "read-link", "workspace://src/l", "").json(),
        "../src/lib.rs"
    );
    clerk.put_device("workspace://tty");
    assert_eq!(refused(&mut clerk, "read", "workspace://tty", ""), "unsupported");
}

#[test]
fn names_are_made_moved_and_removed() {
    let mut clerk = clerk();
    assert_eq!(refused(&mut clerk, "make-dir", "workspace://a/b", ""), "fs.not-found");
    assert_eq!(refused(&mut clerk, "write", "workspace://a/b", ""), "fs.not-found");
    work(&mut clerk, "make-dirs", "workspace://a/b", "").json();
    work(&mut clerk, "make-dirs", "workspace://a/b", "").json();
    assert_eq!(refused(&mut clerk, "make-dir", "workspace://a/b", ""), "fs.exists");
    assert_eq!(
        refused(&mut clerk, "make-dirs", "workspace://src/main.rs/x", ""),
        "fs.not-a-directory"
    );
    assert_eq!(refused(&mut clerk, "remove", "workspace://a", ""), "fs.not-empty");
    work(&mut clerk, "rename", "workspace://src", "workspace://a/b/src").json();
    assert!(clerk.file("workspace://a/b/src/main.rs").is_some());
    assert_eq!(
        refused(&mut clerk, "rename", "workspace://a", "workspace://a/b/c"),
        "invalid"
    );
    assert_eq!(
        refused(&mut clerk, "rename", "workspace://a", "home://a"),
        "unsupported"
    );
    work(&mut clerk, "write", "workspace://x", "x").json();
    assert_eq!(
        refused(&mut clerk, "rename", "workspace://x", "workspace://a/b/src/main.rs"),
        "fs.exists"
    );
    assert_eq!(
        refused(&mut clerk, "rename-over", "workspace://x", "workspace://a"),
        "fs.is-a-directory"
    );
    work(
        &mut clerk,
        "rename-over",
        "workspace://x",
        "workspace://a/b/src/main.rs",
    )
    .json();
    assert_eq!(clerk.file("workspace://a/b/src/main.rs").unwrap(), b"x");
    work(&mut clerk, "remove-all", "workspace://a", "").json();
    assert_eq!(clerk.paths(), ["home://notes.txt"]);
    assert_eq!(refused(&mut clerk, "remove-all", "workspace://", ""), "invalid");
}

#[test]
fn grants_and_the_manifest_decide_on_the_resolved_path() {
    let mut clerk = clerk();
    clerk.put_link("workspace://docs", "src");
    clerk.grant_files(&["fs.read:/workspace/src/>", "fs.write:/workspace/src/lib.rs"]);
    work(&mut clerk, "read", "workspace://docs/main.rs", "").json();
    work(&mut clerk, "list", "workspace://src", "").json();
    work(&mut clerk, "write", "workspace://docs/lib.rs", "x").json();
    for (what, path) in [
        ("write", "workspace://src/main.rs"),
        ("list", "workspace://"),
        ("read", "home://notes.txt"),
        ("read", "home://nothing"),
        ("remove-all", "workspace://src"),
    ] {
        assert_eq!(refused(&mut clerk, what, path, ""), "denied", "{what} {path}");
    }
    let problem = work(&mut clerk, "read", "home://notes.txt", "").refused();
    assert!(
        problem
            .message()
            .contains("astrid caps grant default fs.read:/home/notes.txt"),
        "{problem}"
    );
    clerk.detach_workspace();
    assert_eq!(
        refused(&mut clerk, "read", "workspace://src/main.rs", ""),
        "fs.no-workspace"
    );
}

#[test]
fn the_manifest_is_the_first_gate() {
    let manifest = r#"
        [package]
        name = "clerk"
        version = "1.0.0"
        description = "d"
        kernel = ">=0.1"
        [subscribe]
        "clerk.v1.do" = {}
        "port.v1.watch.changed" = {}
        [capabilities.fs]
        read = ["/workspace/>"]
        reason = "r"
    "#;
    let mut clerk = Harness::new::<Clerk>().with_manifest(manifest);
    clerk.put_file("workspace://a", "a");
    clerk.put_file("home://a", "a");
    work(&mut clerk, "read", "workspace://a", "").json();
    work(&mut clerk, "list", "workspace://", "").json();
    assert_eq!(refused(&mut clerk, "write", "workspace://a", ""), "denied");
    assert_eq!(refused(&mut clerk, "read", "home://a", ""), "denied");
}

#[test]
fn handles_end_with_the_handling_and_are_few() {
    let mut clerk = clerk();
    work(&mut clerk, "keep", "home://notes.txt", "").json();
    assert_eq!(refused(&mut clerk, "use-kept", "", ""), "capsule.failed");
    assert_eq!(refused(&mut clerk, "hoard", "home://notes.txt", ""), "too-many");
}

#[test]
fn what_fails_is_told() {
    let mut clerk = clerk();
    clerk.fill_disk(true);
    assert_eq!(
        refused(&mut clerk, "write", "home://notes.txt", "longer"),
        "fs.no-space"
    );
    work(&mut clerk, "write", "home://notes.txt", "").json();
    clerk.refuse_file("home://notes.txt", FsError::Busy);
    assert_eq!(refused(&mut clerk, "read", "home://notes.txt", ""), "fs.busy");
    for path in [
        "",
        "notes.txt",
        "home://../x",
        "home://a//b",
        "workspace:///etc/passwd",
        "home://a\0",
    ] {
        assert_eq!(refused(&mut clerk, "read", path, ""), "invalid", "{path:?}");
    }
}

#[test]
fn a_watch_tells_until_it_is_closed() {
    let mut clerk = clerk();
    let port: u64 = work(&mut clerk, "watch", "workspace://src", "").read();
    assert_eq!(clerk.watches(), [(port, "workspace://src".to_owned())]);
    let changed = Changed {
        paths: vec!["workspace://src/main.rs".to_owned()],
        more: false,
    };
    clerk.files_changed(port, &changed).committed();
    assert_eq!(clerk.capsule().unwrap().heard, changed.paths);
    work(&mut clerk, "unwatch", "", &port.to_string()).json();
    assert_eq!(clerk.watches(), []);
}

#[test]
fn tmp_is_emptied_when_the_daemon_starts() {
    let mut clerk = clerk();
    work(&mut clerk, "write", "tmp://x", "x").json();
    clerk.restart();
    assert!(clerk.file("tmp://x").is_none());
    assert!(clerk.file("home://notes.txt").is_some());
}
