//! An overlay in a temporary directory, a view of a whole tree as text, and short ways to use a tree.

#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::super::beneath::{Beneath, FileType, Moment};
use super::super::error::{Fault, FsError};
use super::super::opened::Access;
use super::super::overlay::Overlay;
use super::super::path::{Follow, Place, VirtualPath};
use super::super::plain::Plain;
use super::super::space::Room;
use super::super::{Removal, Renaming, Tree};

/// Directories in which an overlay is.
pub(super) struct Bed {
    pub(super) base: tempfile::TempDir,
}

impl Bed {
    /// A lower tree that `prepare` fills, and an empty upper one.
    pub(super) fn new(prepare: impl FnOnce(&Path)) -> Self {
        let base = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work"] {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(base.path().join(name))
                .unwrap();
        }
        prepare(&base.path().join("lower"));
        Self { base }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    pub(super) fn overlay(&self) -> Tree {
        let open = |name: &str| Beneath::open(&self.path(name)).unwrap();
        Tree::Overlay(Overlay::new(open("lower"), open("upper"), open("work")).unwrap())
    }

    /// A copy of the lower tree, as a plain tree.
    pub(super) fn plain(&self) -> Tree {
        let to = self.path("plain");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(self.path("lower"))
            .arg(&to)
            .status();
        assert!(copied.unwrap().success());
        plain(&to)
    }
}

pub(super) fn plain(path: &Path) -> Tree {
    Tree::Plain(Plain::new(Beneath::open(path).unwrap()))
}

pub(super) fn path(text: &str) -> VirtualPath {
    VirtualPath::parse(&format!("workspace://{text}")).unwrap()
}

/// What tests do with trees, by paths, with all the room there is.
pub(super) trait Use {
    fn at(&self, text: &str, follow: Follow) -> Result<Place, FsError>;
    fn read(&self, text: &str) -> Result<Vec<u8>, FsError>;
    fn put(&self, text: &str, bytes: &[u8]) -> Result<(), FsError>;
    fn write(&self, text: &str, access: &Access, offset: u64, bytes: &[u8]) -> Result<(), FsError>;
    fn cut(&self, text: &str, length: u64) -> Result<(), FsError>;
    fn dir(&self, text: &str) -> Result<(), FsError>;
    fn gone(&self, text: &str, removal: Removal) -> Result<(), FsError>;
    fn moved(&self, from: &str, to: &str) -> Result<(), FsError>;
    fn link(&self, text: &str, target: &str) -> Result<(), FsError>;
    fn mode(&self, text: &str, mode: u32) -> Result<(), FsError>;
    fn time(&self, text: &str, seconds: i64) -> Result<(), FsError>;
    fn names(&self, text: &str) -> Result<Vec<String>, FsError>;
    fn view(&self, times: bool) -> String;
}

pub(super) const RENAMING: Renaming = Renaming {
    replace: true,
    bytes_max: 1 << 30,
    entries_max: 100_000,
};

thread_local! {
    /// What this thread's overlay grew by, as its operations say.
    static GROWN: Cell<i64> = const { Cell::new(0) };
}

/// What the overlay grew by since this was asked last.
pub(super) fn grown() -> i64 {
    GROWN.take()
}

fn spending<T>(tree: &Tree, act: impl FnOnce(&mut Room) -> Result<T, FsError>) -> Result<T, FsError> {
    let mut room = Room::unlimited();
    let done = act(&mut room);
    if tree.has_layers() {
        GROWN.set(GROWN.get() + room.grown());
    }
    done
}

impl Use for Tree {
    fn at(&self, text: &str, follow: Follow) -> Result<Place, FsError> {
        self.resolve(&path(text), follow)
    }

    fn read(&self, text: &str) -> Result<Vec<u8>, FsError> {
        let file = self.open(&self.at(text, Follow::Yes)?, &Access::reading(), &mut Room::of(0))?;
        let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
        let length = file.read_at(&mut bytes, 0)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn put(&self, text: &str, bytes: &[u8]) -> Result<(), FsError> {
        let mut replacing = self.begin_replace(&self.at(text, Follow::Yes)?, 0o644)?;
        spending(self, |room| {
            replacing.write(bytes, room)?;
            let taken = replacing.allocated()?;
            let published = self.publish(replacing, room);
            if published.is_err() {
                room.gave_up(taken);
            }
            published
        })
    }

    fn write(&self, text: &str, access: &Access, offset: u64, bytes: &[u8]) -> Result<(), FsError> {
        let place = self.at(text, Follow::Yes)?;
        spending(self, |room| {
            self.open(&place, access, room)?.write_at(bytes, offset, room)
        })
    }

    fn cut(&self, text: &str, length: u64) -> Result<(), FsError> {
        let place = self.at(text, Follow::Yes)?;
        spending(self, |room| {
            self.open(&place, &Access::writing(), room)?.set_len(length, room)
        })
    }

    fn dir(&self, text: &str) -> Result<(), FsError> {
        let place = self.at(text, Follow::No)?;
        spending(self, |room| self.make_dir(&place, 0o755, room))
    }

    fn gone(&self, text: &str, removal: Removal) -> Result<(), FsError> {
        let place = self.at(text, Follow::No)?;
        spending(self, |room| self.remove(&place, removal, room))
    }

    fn moved(&self, from: &str, to: &str) -> Result<(), FsError> {
        let (from, to) = (self.at(from, Follow::No)?, self.at(to, Follow::No)?);
        spending(self, |room| self.rename(&from, &to, &RENAMING, room))
    }

    fn link(&self, text: &str, target: &str) -> Result<(), FsError> {
        let place = self.at(text, Follow::No)?;
        spending(self, |room| self.make_link(&place, target, room))
    }

    fn mode(&self, text: &str, mode: u32) -> Result<(), FsError> {
        let place = self.at(text, Follow::Yes)?;
        spending(self, |room| self.set_mode(&place, mode, room))
    }

    fn time(&self, text: &str, seconds: i64) -> Result<(), FsError> {
        let at = Moment {
            seconds,
            nanoseconds: 7,
        };
        let place = self.at(text, Follow::No)?;
        spending(self, |room| self.set_modified(&place, at, room))
    }

    fn names(&self, text: &str) -> Result<Vec<String>, FsError> {
        let page = self.list(&self.at(text, Follow::Yes)?, None, usize::MAX)?;
        Ok(page.entries.into_iter().map(|entry| entry.name).collect())
    }

    fn view(&self, times: bool) -> String {
        let mut view = String::new();
        look(self, "", times, &mut view);
        view
    }
}

/// A line for everything below a directory, by the tree's own operations: paths, kinds, modes, contents, and the times of files.
fn look(tree: &Tree, dir: &str, times: bool, view: &mut String) {
    let page = tree.list(&tree.at(dir, Follow::No).unwrap(), None, usize::MAX).unwrap();
    for entry in page.entries {
        let text = if dir.is_empty() {
            entry.name.clone()
        } else {
            format!("{dir}/{}", entry.name)
        };
        let place = tree.at(&text, Follow::No).unwrap();
        let stat = tree.stat(&place).unwrap().stat;
        assert_eq!(stat.kind, entry.kind, "{text}");
        let what = match stat.kind {
            FileType::Directory => "dir".to_owned(),
            FileType::Symlink => format!("-> {}", tree.read_link(&place).unwrap()),
            FileType::RegularFile => format!("{} {}", stat.size, blake3::hash(&tree.read(&text).unwrap()).to_hex()),
            kind => format!("{kind:?}"),
        };
        line(
            view,
            &text,
            stat.mode,
            &what,
            (stat.kind == FileType::RegularFile && times).then_some(stat.modified.seconds),
        );
        if stat.kind == FileType::Directory {
            look(tree, &text, times, view);
        }
    }
}

/// The same lines, as the system shows a directory.
pub(super) fn view_of(root: &Path, times: bool) -> String {
    let mut view = String::new();
    see(root, "", times, &mut view).unwrap();
    view
}

fn see(root: &Path, dir: &str, times: bool, view: &mut String) -> io::Result<()> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(root.join(dir))? {
        let entry = entry?;
        entries.insert(entry.file_name().as_bytes().to_vec(), entry);
    }
    for entry in entries.values() {
        let name = entry.file_name().into_string().unwrap();
        let text = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        let stat = fs::symlink_metadata(root.join(&text))?;
        let what = if stat.is_dir() {
            "dir".to_owned()
        } else if stat.is_symlink() {
            format!("-> {}", fs::read_link(root.join(&text))?.display())
        } else if stat.is_file() {
            format!("{} {}", stat.len(), blake3::hash(&fs::read(root.join(&text))?).to_hex())
        } else {
            format!("{:?}", FileType::from_raw_mode(stat.mode()))
        };
        line(
            view,
            &text,
            stat.mode() & 0o7777,
            &what,
            (stat.is_file() && times).then_some(stat.mtime()),
        );
        if stat.is_dir() {
            see(root, &text, times, view)?;
        }
    }
    Ok(())
}

/// Times are those that were set: long ago. What was written now is `now` everywhere.
fn line(view: &mut String, text: &str, mode: u32, what: &str, time: Option<i64>) {
    let mode = if what.starts_with("->") { 0o777 } else { mode };
    let time = match time {
        Some(seconds) if seconds < 1_500_000_000 => seconds.to_string(),
        Some(_) => "now".to_owned(),
        None => String::new(),
    };
    writeln!(view, "{text} {mode:o} {what} {time}").unwrap();
}

/// Everything about a directory that could be changed, but for the times of reading.
pub(super) fn fingerprint(root: &Path) -> String {
    let mut all = view_of(root, true);
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let numbers = (stat.ino(), stat.ctime(), stat.ctime_nsec(), stat.uid());
            writeln!(all, "{} {numbers:?}", path.display()).unwrap();
            if stat.is_dir() {
                pending.push(path);
            }
        }
    }
    blake3::hash(all.as_bytes()).to_hex().to_string()
}

pub(super) fn fault<T>(answer: Result<T, FsError>) -> Option<Fault> {
    answer.err().map(|error| error.fault)
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that a test is already run as another user.
const AS_USER: &str = "ASTRID_TEST_AS_USER";

/// Whether this is the second run.
pub(super) fn is_again() -> bool {
    std::env::var_os(AS_USER).is_some()
}

/// How the harness names a test.
pub(super) fn name_of<F>(_: F) -> &'static str {
    let name = std::any::type_name::<F>();
    name.split_once("::").unwrap().1
}

/// Runs this test once more as an ordinary user, where this is root.
pub(super) fn also_as_user(name: &str) {
    if !is_root() || is_again() {
        return;
    }
    let output = std::process::Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(AS_USER, "1")
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .output();
    match output {
        Err(error) => eprintln!("NOT TESTED as an ordinary user: there is no setpriv here: {error}"),
        // Who cannot even start the program says so with these.
        Ok(output) if matches!(output.status.code(), Some(126 | 127)) => {
            eprintln!(
                "NOT TESTED as an ordinary user: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "as an ordinary user: {said}");
            assert!(said.contains("1 passed"), "as an ordinary user: {said}");
            eprint!(
                "{}",
                said.lines()
                    .filter(|line| line.starts_with("NOT TESTED"))
                    .collect::<String>()
            );
        }
    }
}
