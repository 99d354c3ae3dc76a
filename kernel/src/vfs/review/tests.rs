//! A small overlay on disk, made by hand; and what all tests of the review ask of it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::changes::{Which, walk};
use super::commit::{Done, Fault, How, commit};
use super::plan::{self, Plan};
use super::*;
use crate::vfs::layer;

mod crash;
mod hostile;
mod look;
mod plain;
mod undo;
mod view;

/// A lower, and the directory of an overlay over it.
pub(super) struct Fixture {
    temporary: tempfile::TempDir,
    pub(super) lower: PathBuf,
    pub(super) overlay: PathBuf,
}

/// What a tree is: kind, mode, and content or target, by path.
pub(super) type Tree = BTreeMap<String, (char, u32, Vec<u8>)>;

pub(super) fn tree_of(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let name = escape(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
            let what = if stat.is_dir() {
                waiting.push(path);
                ('d', stat.mode() & 0o7777, Vec::new())
            } else if stat.is_symlink() {
                ('l', 0, fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
            } else {
                ('f', stat.mode() & 0o7777, fs::read(&path).unwrap())
            };
            tree.insert(name, what);
        }
    }
    tree
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Fixture {
    pub(super) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (lower, overlay) = (temporary.path().join("lower"), temporary.path().join("overlay"));
        for directory in [&lower, &overlay, &overlay.join("upper")] {
            fs::create_dir(directory).unwrap();
        }
        Self {
            temporary,
            lower,
            overlay,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    pub(super) fn below(&self, path: &str, content: &str) {
        write(&self.lower.join(path), content, 0o644);
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.overlay.join("upper")
    }

    /// A file that is written over the lower, or beside it.
    pub(super) fn above(&self, path: &str, content: &str) {
        write(&self.upper().join(path), content, 0o644);
    }

    pub(super) fn gone(&self, path: &str) {
        let path = self.upper().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let directory = layer::open_root(path.parent().unwrap()).unwrap();
        layer::make_whiteout(directory, path.file_name().unwrap()).unwrap();
    }

    pub(super) fn opaque(&self, path: &str) {
        fs::create_dir_all(self.upper().join(path)).unwrap();
        layer::make_opaque(layer::open_root(&self.upper().join(path)).unwrap()).unwrap();
    }

    pub(super) fn layers(&self) -> Layers {
        Layers::open(&self.lower, &self.overlay).unwrap()
    }

    /// `A path`, `M path`, `R path`, in the order of the walk.
    pub(super) fn changes(&self) -> Vec<String> {
        self.changes_of(&Which::default())
    }

    pub(super) fn changes_of(&self, which: &Which<'_>) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.layers(), which, &mut |change| {
            let how = &format!("{:?}", change.how)[..1];
            found.push(format!("{how} {}", shown(&change.path)));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        found
    }

    pub(super) fn plan(&self, choice: &Choice, since_ns: Option<i128>) -> Plan {
        plan::make(&self.layers(), choice, since_ns).unwrap()
    }

    pub(super) fn commit_with(&self, plan: &Plan, fault: &mut Fault) -> Result<Done, ReviewError> {
        let how = How {
            whole: true,
            force: false,
        };
        commit(&self.overlay, &self.layers(), plan, how, fault, &mut |_, _, _| Ok(()))
    }

    pub(super) fn commit_some(&self, paths: &[&str]) {
        let choice = choice(paths);
        let how = How {
            whole: choice.is_all(),
            force: false,
        };
        let plan = self.plan(&choice, None);
        commit(
            &self.overlay,
            &self.layers(),
            &plan,
            how,
            &mut Fault::default(),
            &mut |_, _, _| Ok(()),
        )
        .unwrap();
    }

    /// The present moment, as file systems have it.
    pub(super) fn now(&self) -> i128 {
        let path = self.path("clock");
        fs::write(&path, b"").unwrap();
        let stat = fs::metadata(&path).unwrap();
        fs::remove_file(path).unwrap();
        i128::from(stat.ctime()) * 1_000_000_000 + i128::from(stat.ctime_nsec())
    }

    /// Waits until a file that is written now is later than `since`.
    pub(super) fn later_than(&self, since: i128) {
        while self.now() <= since {}
    }

    /// Everything that can be different, once.
    pub(super) fn corpus() -> Self {
        let fixture = Self::new();
        for (path, content) in [
            ("same", "same"),
            ("touched", "touched"),
            ("edited", "one\ntwo\nthree\n"),
            ("removed", "bye\n"),
            ("mode", "#!/bin/sh\n"),
            ("file-to-directory", "f\n"),
            ("file-to-link", "f\n"),
            ("dir/kept", "kept\n"),
            ("dir/edited", "old\n"),
            ("dir/deep/removed", "r\n"),
            ("gone/a", "a\n"),
            ("gone/b/c", "c\n"),
            ("replaced/old", "old\n"),
            ("replaced/both", "old\n"),
            ("replaced/sub/x", "x\n"),
            ("directory-to-file/x", "x\n"),
            ("directory-mode/x", "x\n"),
        ] {
            fixture.below(path, content);
        }
        symlink("same", fixture.lower.join("link")).unwrap();
        symlink("same", fixture.lower.join("link-to-file")).unwrap();
        fixture.above("touched", "touched");
        fixture.above("edited", "one\n2\nthree\n");
        fixture.above("new", "new\n");
        fixture.above("new-dir/sub/file with blank", "x\n");
        fs::create_dir(fixture.upper().join("new-dir/empty")).unwrap();
        fixture.gone("removed");
        write(&fixture.upper().join("mode"), "#!/bin/sh\n", 0o755);
        fixture.above("file-to-directory/x", "x\n");
        symlink("new", fixture.upper().join("file-to-link")).unwrap();
        symlink("new", fixture.upper().join("link")).unwrap();
        symlink("dangling", fixture.upper().join("new-link")).unwrap();
        fixture.above("link-to-file", "a file now");
        fixture.above("dir/edited", "new\n");
        fixture.gone("dir/deep/removed");
        fixture.gone("gone");
        fixture.gone("never-was");
        fixture.opaque("replaced");
        fixture.above("replaced/both", "new\n");
        fixture.above("replaced/fresh", "fresh\n");
        fixture.above("directory-to-file", "file\n");
        fs::create_dir(fixture.upper().join("directory-mode")).unwrap();
        fs::set_permissions(
            fixture.upper().join("directory-mode"),
            fs::Permissions::from_mode(0o700),
        )
        .unwrap();
        write(&fixture.upper().join(OsStr::from_bytes(b"n\xff\n")), "odd\n", 0o600);
        fixture
    }
}

pub(super) fn choice(paths: &[&str]) -> Choice {
    Choice::of(paths.iter().map(|path| path.as_bytes().to_vec()).collect()).unwrap()
}
