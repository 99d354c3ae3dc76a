//! Backups that are made, damaged and forged, and what a restore makes of them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod blobs;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::*;
use crate::blob::{BlobLimits, Blobs};
use crate::lock::Lock;
use crate::store::engine::{EngineError, Later, Snapshot, Write};
use crate::store::memory::Memory;
use crate::store::table::{Kind, Table};

/// Keeps nothing, and writes files as a checkpoint.
struct Files;

impl crate::store::engine::Engine for Files {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        Memory::default().snapshot(table)
    }

    fn tables(&self, _: Kind) -> Result<Vec<Table>, EngineError> {
        Ok(Vec::new())
    }

    fn apply(&self, _: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn checkpoint(&self, into: &Path) -> Result<(), EngineError> {
        let write = |name: &str, bytes: &[u8]| {
            let path = into.join(name);
            make(path.parent().unwrap());
            fs::write(path, bytes).unwrap();
        };
        write("manifest/1", b"levels");
        write("sstables/0001.sst", &vec![9; 300_000]);
        write("wal/empty", b"");
        Ok(())
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn size(&self) -> u64 {
        0
    }
}

/// A place for a test: a home with something in it, and room beside it.
struct Bed {
    directory: tempfile::TempDir,
    home: Home,
    blobs: Blobs,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let limits = BlobLimits {
            blob_bytes_max: 8 << 20,
            total_bytes_max: 32 << 20,
            count_max: 1000,
            uploads_max: 100,
            upload_age_ms_max: u64::MAX,
        };
        let blobs = Blobs::open(home.blobs_dir(), limits, 0).unwrap();
        let bed = Self { directory, home, blobs };
        bed.write("etc/astrid.toml", b"[log]\n", 0o644);
        bed.write("etc/profiles/default.toml", b"groups = []\n", 0o600);
        bed.write("keys/runtime.key", &[7; 32], 0o600);
        bed.write("capsules/notes.capsule", &[1; 70_000], 0o664);
        for not_saved in [
            "run/token",
            "cache/x",
            "log/astrid.log",
            "home/default",
            "var/keeper",
            "etc/.astrid.toml.tmp",
        ] {
            bed.write(not_saved, b"not saved", 0o600);
        }
        bed
    }

    fn online(&self) -> Source<'_> {
        Source::Online {
            engine: &Files,
            sequence: 42,
            blobs: &self.blobs,
        }
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) {
        let path = self.home.root().join(name);
        make(path.parent().unwrap());
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("backup.tar.gz")
    }

    fn backed_up() -> Self {
        let bed = Self::new();
        create(&bed.home, bed.online(), &bed.file(), false).unwrap();
        bed
    }

    /// Another home, not made yet.
    fn other(&self, name: &str) -> Home {
        Home::resolve(Some(&self.directory.path().join(name))).unwrap()
    }
}

/// A directory as a home has them.
fn make(path: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}

/// What a restore says to the next daemon.
const WORD: &str = "var/audit/restored";

/// Every file of what is saved, with its mode; but what each restore says of itself.
fn saved(home: &Home) -> BTreeMap<String, (u32, Vec<u8>)> {
    fn walk(path: &Path, name: &str, all: &mut BTreeMap<String, (u32, Vec<u8>)>) {
        for entry in fs::read_dir(path).into_iter().flatten() {
            let entry = entry.unwrap();
            let name = format!("{name}/{}", entry.file_name().to_str().unwrap());
            let found = fs::symlink_metadata(entry.path()).unwrap();
            if found.is_dir() {
                walk(&entry.path(), &name, all);
            } else {
                let mode = found.permissions().mode() & 0o777;
                all.insert(name, (mode, fs::read(entry.path()).unwrap()));
            }
        }
    }
    let mut all = BTreeMap::new();
    for top in SAVED {
        walk(&home.root().join(top), top, &mut all);
    }
    all.remove(WORD);
    all
}

fn is_untouched(home: &Home) {
    assert!(saved(home).is_empty(), "{:?}", saved(home).keys());
    assert!(check(home).is_ok());
    for left in [STAGING, COPY, MARKER] {
        assert!(!home.root().join(left).exists(), "{left}");
    }
}

/// K22: what was saved is there again, with modes that a home takes, and nothing else.
#[test]
fn there_and_back() {
    let bed = Bed::new();
    let Made { written, .. } = create(&bed.home, bed.online(), &bed.file(), false).unwrap();
    assert_eq!((written.files, written.sequence), (7, Some(42)));
    assert_eq!(fs::metadata(bed.file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(written.bytes, fs::metadata(bed.file()).unwrap().len());
    assert!(!bed.home.root().join(COPY).exists());

    let other = bed.other("other");
    let restored = restore(&bed.file(), &other).unwrap();
    assert_eq!(
        (restored.files, restored.bytes, restored.sequence),
        (7, written.content_bytes, Some(42))
    );
    let files = saved(&other);
    let said = fs::read_to_string(other.root().join(WORD)).unwrap();
    assert!(
        said.contains(&format!("made_at_ms={} ", restored.made_at_ms)) && said.contains(bed.file().to_str().unwrap()),
        "the next daemon records it: {said}"
    );
    let modes: BTreeMap<_, _> = files.iter().map(|(name, (mode, _))| (name.as_str(), *mode)).collect();
    assert_eq!(modes["keys/runtime.key"], 0o600);
    assert_eq!(modes["etc/astrid.toml"], 0o644);
    assert_eq!(
        modes["capsules/notes.capsule"], 0o644,
        "others cannot write what is run"
    );
    let mut expected = saved(&bed.home);
    expected.remove("etc/.astrid.toml.tmp");
    for (name, (_, bytes)) in expected {
        assert_eq!(files[&name].1, bytes, "{name}");
    }
    assert_eq!(files["var/store/sstables/0001.sst"].1, vec![9; 300_000]);
    assert_eq!(files.len(), 7);
    other.create().unwrap();
    assert!(check(&other).is_ok());
    // And once more, at rest, from what was restored.
    let again = bed.directory.path().join("again");
    let Made { written, .. } = create_at_rest(&other, &again, false).unwrap();
    assert_eq!((written.files, written.sequence), (7, None));
    let third = bed.other("third");
    restore(&again, &third).unwrap();
    assert_eq!(saved(&third), files);
    let said = fs::read_to_string(third.root().join(WORD)).unwrap();
    assert!(said.contains(again.to_str().unwrap()), "{said}");
}

#[test]
fn a_file_that_is_there_is_not_replaced_unless_that_is_meant() {
    let bed = Bed::new();
    fs::write(bed.file(), "precious").unwrap();
    assert!(matches!(
        create(&bed.home, bed.online(), &bed.file(), false),
        Err(BackupError::Exists(_))
    ));
    assert_eq!(fs::read(bed.file()).unwrap(), b"precious");
    create(&bed.home, bed.online(), &bed.file(), true).unwrap();
    assert_ne!(fs::read(bed.file()).unwrap(), b"precious");
    let link = bed.directory.path().join("link");
    symlink(bed.file(), &link).unwrap();
    assert!(matches!(
        create(&bed.home, bed.online(), &link, true),
        Err(BackupError::Exists(_))
    ));
    let names = fs::read_dir(bed.directory.path()).unwrap().count();
    assert_eq!(names, 3, "nothing temporary is left");
}

#[test]
fn places_that_make_no_sense_are_refused() {
    let bed = Bed::new();
    let create_in = |path: &Path| create(&bed.home, bed.online(), path, false);
    assert!(matches!(
        create_in(Path::new("b.tar.gz")),
        Err(BackupError::Relative(_))
    ));
    assert!(matches!(create_in(Path::new("/")), Err(BackupError::Relative(_))));
    let inside = bed.home.root().join("etc/b.tar.gz");
    assert!(matches!(create_in(&inside), Err(BackupError::Inside(_))));
    let link = bed.directory.path().join("way");
    symlink(bed.home.root().join("etc"), &link).unwrap();
    assert!(matches!(create_in(&link.join("b.tar.gz")), Err(BackupError::Inside(_))));
    let nowhere = bed.directory.path().join("no/b.tar.gz");
    assert!(matches!(create_in(&nowhere), Err(BackupError::Io { .. })));
    let none = bed.other("none");
    assert!(matches!(
        create(&none, bed.online(), &bed.file(), false),
        Err(BackupError::Nothing(_))
    ));
    assert!(matches!(
        create_at_rest(&none, &bed.file(), false),
        Err(BackupError::Nothing(_))
    ));
    let _lock = Lock::acquire(&bed.home).unwrap();
    assert!(matches!(
        create_at_rest(&bed.home, &bed.file(), false),
        Err(BackupError::Lock(_))
    ));
}

/// A link of the operator's stands for its file; what is no file is said, and not waited for.
#[test]
fn links_and_pipes() {
    let bed = Bed::new();
    let elsewhere = bed.directory.path().join("elsewhere.toml");
    fs::write(&elsewhere, "x = 1\n").unwrap();
    symlink(&elsewhere, bed.home.root().join("etc/linked.toml")).unwrap();
    create(&bed.home, bed.online(), &bed.file(), false).unwrap();
    let other = bed.other("other");
    restore(&bed.file(), &other).unwrap();
    assert_eq!(saved(&other)["etc/linked.toml"].1, b"x = 1\n");

    symlink(&elsewhere, bed.home.root().join("keys/linked.key")).unwrap();
    let made = create(&bed.home, bed.online(), &bed.file(), true);
    assert!(matches!(made, Err(BackupError::Odd(path)) if path.ends_with("keys/linked.key")));
    fs::remove_file(bed.home.root().join("keys/linked.key")).unwrap();
    let pipe = bed.home.root().join("etc/pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(
        create(&bed.home, bed.online(), &bed.file(), true),
        Err(BackupError::Odd(_))
    ));
    assert!(!bed.home.root().join(COPY).exists());
}

#[test]
fn a_home_with_something_in_it_stays_as_it_is() {
    let bed = Bed::backed_up();
    for name in [
        "keys/runtime.key",
        "etc/astrid.toml",
        "etc/profiles/a.toml",
        "capsules/x.capsule",
        "var/store/x",
        "var/blobs/x",
    ] {
        let other = bed.other(&name.replace('/', "-"));
        other.create().unwrap();
        let path = other.root().join(name);
        make(path.parent().unwrap());
        fs::write(&path, "precious").unwrap();
        let error = restore(&bed.file(), &other).unwrap_err();
        assert!(matches!(error, RestoreError::NotEmpty(_)), "{name}: {error}");
        assert_eq!(saved(&other).len(), 1);
        assert!(check(&other).is_ok());
    }
    let locked = bed.other("locked");
    locked.create().unwrap();
    let _lock = Lock::acquire(&locked).unwrap();
    assert!(matches!(restore(&bed.file(), &locked), Err(RestoreError::Lock(_))));
}

/// K22: a restore that was killed anywhere is seen, and the next one begins anew.
#[test]
fn a_half_restored_home_is_not_whole() {
    let bed = Bed::backed_up();
    let other = bed.other("other");
    other.create().unwrap();
    fs::write(other.root().join(MARKER), MARKER).unwrap();
    // As left behind in the middle of putting things in place.
    make(&other.root().join("var/store/old"));
    fs::write(other.root().join("var/store/old/x"), "half").unwrap();
    fs::write(other.root().join("etc/astrid.toml"), "half").unwrap();
    make(&other.root().join(STAGING).join("keys"));
    fs::write(other.root().join(STAGING).join("keys/runtime.key"), "half").unwrap();
    let error = check(&other).unwrap_err();
    assert!(error.hint().contains("astrid restore"), "{error}");
    let file = bed.directory.path().join("of-half");
    assert!(matches!(
        create_at_rest(&other, &file, false),
        Err(BackupError::Unfinished(_))
    ));

    restore(&bed.file(), &other).unwrap();
    assert!(check(&other).is_ok());
    assert_eq!(saved(&other).len(), 7);
    assert!(!saved(&other).contains_key("var/store/old/x"));
    assert!(!other.root().join(STAGING).exists());
}

#[test]
fn what_a_killed_backup_left_goes() {
    let bed = Bed::new();
    bed.write("var/.backup/etc/x", b"x", 0o600);
    clear(&bed.home).unwrap();
    clear(&bed.home).unwrap();
    assert!(!bed.home.root().join(COPY).exists());
}

/// Any cut and any flipped byte is found, or changes nothing.
#[test]
fn damage_is_found() {
    let bed = Bed::backed_up();
    let whole = fs::read(bed.file()).unwrap();
    let other = bed.other("whole");
    restore(&bed.file(), &other).unwrap();
    let expected = saved(&other);
    let damaged = bed.directory.path().join("damaged");
    let step = (whole.len() / 60).max(1);
    let cuts = (0..whole.len())
        .step_by(step)
        .chain([whole.len() - 1])
        .map(|at| whole[..at].to_vec());
    for bytes in cuts {
        let length = bytes.len();
        fs::write(&damaged, bytes).unwrap();
        let other = bed.other("cut");
        let error = restore(&damaged, &other).unwrap_err();
        assert!(matches!(error, RestoreError::Backup { .. }), "cut to {length}: {error}");
        is_untouched(&other);
    }
    for (n, at) in (0..whole.len())
        .step_by(step)
        .chain(0..12)
        .chain([whole.len() - 8, whole.len() - 1])
        .enumerate()
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (n % 8);
        fs::write(&damaged, bytes).unwrap();
        let other = bed.other(&format!("flip-{n}"));
        match restore(&damaged, &other) {
            Ok(_) => assert_eq!(saved(&other), expected, "byte {at}"),
            Err(error) => {
                assert!(matches!(error, RestoreError::Backup { .. }), "byte {at}: {error}");
                is_untouched(&other);
            }
        }
    }
    let mut more = whole.clone();
    more.push(0);
    fs::write(&damaged, more).unwrap();
    let fault = fault(&bed, &damaged);
    assert!(matches!(fault, Fault::Trailing), "{fault}");
}

fn fault(bed: &Bed, file: &Path) -> Fault {
    let other = bed.other("hostile");
    match restore(file, &other).unwrap_err() {
        RestoreError::Backup { source, .. } => {
            is_untouched(&other);
            source
        }
        error => panic!("{error}"),
    }
}

/// A tar of somebody else's: a list, and entries as they are given.
struct Hostile(tar::Builder<GzEncoder<Vec<u8>>>);

impl Hostile {
    fn new() -> Self {
        Self(tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast())))
    }

    fn list(mut self, files: &[(&str, &[u8])]) -> Self {
        let entries = files.iter().map(|(path, content)| Entry {
            path: (*path).to_owned(),
            mode: 0o600,
            bytes: content.len() as u64,
            blake3: blake3::hash(content).to_hex().to_string(),
        });
        self.manifest(&Manifest {
            format: FORMAT,
            version: "0".into(),
            made_at_ms: 0,
            sequence: None,
            files: entries.collect(),
        });
        self
    }

    fn manifest(&mut self, manifest: &Manifest) {
        let text = serde_json::to_vec(manifest).unwrap();
        self.raw(MANIFEST, tar::EntryType::Regular, text.len() as u64, &text);
    }

    /// An entry whose header says anything.
    fn raw(&mut self, name: &str, kind: tar::EntryType, size: u64, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o600);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }

    fn with(mut self, name: &str, content: &[u8]) -> Self {
        self.raw(name, tar::EntryType::Regular, content.len() as u64, content);
        self
    }

    fn write(self, bed: &Bed) -> PathBuf {
        let path = bed.directory.path().join("hostile.tar.gz");
        fs::write(&path, self.0.into_inner().unwrap().finish().unwrap()).unwrap();
        path
    }
}

/// No name leads out of the home, or to a part of it that is not restored.
#[test]
fn hostile_names() {
    let bed = Bed::new();
    let long = format!("etc/{}", "x".repeat(PATH_BYTES_MAX));
    let deep = format!("etc/{}x", "d/".repeat(40));
    for name in [
        "../x",
        "etc/../../x",
        "/etc/x",
        "etc//x",
        "etc/./x",
        "./etc/x",
        "etc/",
        "etc",
        "",
        "x",
        "run/token",
        "var/keeper",
        "var/store",
        "var/restoring",
        "cache/x",
        "home/default/x",
        "log/x",
        "etc/x\0y",
        "etcetera/x",
        &long,
        &deep,
    ] {
        let file = Hostile::new().list(&[(name, b"x")]).write(&bed);
        let fault = fault(&bed, &file);
        assert!(matches!(fault, Fault::Name { .. }), "{name:?}: {fault}");
    }
    for names in [["etc/x", "etc/x"], ["etc/x", "etc/x/y"], ["etc/x/y", "etc/x"]] {
        let file = Hostile::new().list(&[(names[0], b"x"), (names[1], b"x")]).write(&bed);
        let fault = fault(&bed, &file);
        assert!(matches!(fault, Fault::Name { .. }), "{names:?}: {fault}");
    }
    assert!(!bed.directory.path().join("x").exists());
}

/// What stands in the tar is what the list says, in that order, and nothing but regular files.
#[test]
fn hostile_entries() {
    let bed = Bed::new();
    let listed = || Hostile::new().list(&[("etc/a", b"aa"), ("etc/b", b"bb")]);
    let of = |hostile: Hostile| fault(&bed, &hostile.write(&bed));
    assert!(matches!(of(listed().with("etc/a", b"aa")), Fault::Missing { expected } if expected == "etc/b"));
    assert!(matches!(
        of(listed().with("etc/b", b"bb").with("etc/a", b"aa")),
        Fault::Order { .. }
    ));
    assert!(
        matches!(
            of(listed().with("etc/a", b"aa").with("etc/a", b"aa")),
            Fault::Order { .. }
        ),
        "twice"
    );
    assert!(matches!(of(listed().with("../../a", b"aa")), Fault::Order { .. }));
    assert!(matches!(of(listed().with("etc/a", b"ax")), Fault::Content { .. }));
    assert!(matches!(of(listed().with("etc/a", b"aaa")), Fault::Content { .. }));
    let more = listed().with("etc/a", b"aa").with("etc/b", b"bb").with("etc/c", b"cc");
    assert!(matches!(of(more), Fault::Trailing));
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Block,
        tar::EntryType::Fifo,
        tar::EntryType::Directory,
        tar::EntryType::Continuous,
        tar::EntryType::GNUSparse,
    ] {
        let mut hostile = listed();
        hostile.raw("etc/a", kind, 2, b"aa");
        let fault = of(hostile);
        assert!(matches!(fault, Fault::Kind { .. }), "{kind:?}: {fault}");
    }
    // Names and sizes that an entry before the file would give it are not looked at.
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::XHeader,
        tar::EntryType::XGlobalHeader,
    ] {
        let mut hostile = listed();
        hostile.raw("etc/x", kind, 2, b"aa");
        assert!(
            matches!(of(hostile.with("etc/a", b"aa")), Fault::Order { .. }),
            "{kind:?}"
        );
    }
}

/// What is claimed is not believed, and not made room for.
#[test]
fn hostile_claims() {
    let bed = Bed::new();
    let of = |hostile: Hostile| fault(&bed, &hostile.write(&bed));
    assert!(matches!(of(Hostile::new()), Fault::NoList));
    assert!(matches!(of(Hostile::new().with("etc/a", b"")), Fault::NoList));
    assert!(matches!(of(Hostile::new().with(MANIFEST, b"[]")), Fault::List(_)));
    assert!(matches!(
        of(Hostile::new().with(MANIFEST, br#"{"format": 2, "x": 1}"#)),
        Fault::Newer { found: 2 }
    ));
    let mut claims = Hostile::new();
    claims.raw(MANIFEST, tar::EntryType::Regular, MANIFEST_BYTES_MAX + 1, b"{}");
    assert!(matches!(of(claims), Fault::NoList));
    // The list claims more than any disk has; or more than the entry has.
    let entry = |bytes| Entry {
        path: "etc/a".into(),
        mode: 0o600,
        bytes,
        blake3: String::new(),
    };
    for bytes in [u64::MAX, CONTENT_BYTES_MAX + 1] {
        let mut hostile = Hostile::new();
        hostile.manifest(&Manifest {
            format: FORMAT,
            version: String::new(),
            made_at_ms: 0,
            sequence: None,
            files: vec![entry(bytes)],
        });
        assert!(matches!(of(hostile), Fault::TooMuch { .. }));
    }
    let mut hostile = Hostile::new();
    hostile.manifest(&Manifest {
        format: FORMAT,
        version: String::new(),
        made_at_ms: 0,
        sequence: None,
        files: vec![entry(CONTENT_BYTES_MAX)],
    });
    let other = bed.other("large");
    let error = restore(&hostile.write(&bed), &other).unwrap_err();
    assert!(matches!(error, RestoreError::NoRoom { .. }), "{error}");
    is_untouched(&other);
    // A name of any length that precedes the list is not read into memory.
    let mut hostile = Hostile::new();
    hostile.raw("x", tar::EntryType::GNULongName, 1 << 40, b"");
    assert!(matches!(of(hostile), Fault::NoList));
}

/// What unpacks to far more than the list says is not unpacked.
#[test]
fn a_bomb_does_not_go_off() {
    let bed = Bed::new();
    let listed = Hostile::new().list(&[("etc/a", b"aa")]).with("etc/a", b"aa");
    let mut pack = listed.0.into_inner().unwrap();
    for _ in 0..64 {
        pack.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let path = bed.directory.path().join("bomb");
    fs::write(&path, pack.finish().unwrap()).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    assert!(matches!(fault(&bed, &path), Fault::Trailing));
    for not_one in [&b""[..], b"hello", b"\x1f\x8b\x08\x00"] {
        fs::write(&path, not_one).unwrap();
        fault(&bed, &path);
    }
}

/// Anybody can look into a backup with programs that exist already.
#[test]
fn it_is_a_plain_tar() {
    let bed = Bed::backed_up();
    let mut text = Vec::new();
    GzDecoder::new(fs::File::open(bed.file()).unwrap())
        .read_to_end(&mut text)
        .unwrap();
    let mut archive = tar::Archive::new(&text[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "backup.json",
            "capsules/notes.capsule",
            "etc/astrid.toml",
            "etc/profiles/default.toml",
            "keys/runtime.key",
            "var/store/manifest/1",
            "var/store/sstables/0001.sst",
            "var/store/wal/empty",
        ]
    );
}
