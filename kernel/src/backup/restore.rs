//! Puts a backup back.
//!
//! Everything is unpacked beside its place and compared with the list before any of it counts; then it is moved into place. From the
//! first byte on a marker stands in the home, and it goes when all is in place and on disk: a home with the marker is not started, and the
//! next restore begins anew. So a kill at any instant leaves nothing that could be taken for what was saved.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path};

use flate2::bufread::GzDecoder;

use super::blobs::Listed;
use super::create::{Hashing, now_ms};
pub use super::fault::{Fault, RestoreError};
use super::{
    CONTENT_BYTES_MAX, DEPTH_MAX, Entry, FILES_MAX, FORMAT, MANIFEST, MANIFEST_BYTES_MAX, MARKER, Manifest,
    PATH_BYTES_MAX, SAVED, STAGING, bad_name, is_saved, remove_tree, sync_directory,
};
use crate::audit;
use crate::blob::PART_BYTES;
use crate::blob::pin::are_parts;
use crate::home::{Durability, Home, PRIVATE_FILE, remove_file, replace_file};
use crate::lock::Lock;

/// Bytes after the last file at most: the zeros that end a tar, padded to a record.
const END_BYTES_MAX: u64 = 64 << 10;

/// Room that must be left on the disk beside what is unpacked.
const SPARE_BYTES: u64 = 16 << 20;

/// What the marker says to people.
const MARKER_TEXT: &[u8] =
    b"This home is being restored from a backup. While this file is here it is not complete, and not started.\n\
`astrid restore FILE` begins again.\n";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Files.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// When the backup was made, in milliseconds since 1970.
    pub made_at_ms: u64,
    /// By which version.
    pub version: String,
    /// The last commit of the store that is certainly in it, if it says.
    pub sequence: Option<u64>,
}

fn io_at<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> RestoreError + 'a {
    move |source| RestoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Restores a backup into a home with nothing in it, which is made if it is not there. Takes its lock meanwhile.
///
/// # Errors
/// The home is as it was, but for directories that were made; unless the disk refused while things were put in place: then it is half
/// restored, and neither started nor taken for restored ([`super::check`]).
pub fn restore(file: &Path, home: &Home) -> Result<Restored, RestoreError> {
    let source = File::open(file).map_err(io_at("open", file))?;
    home.create()?;
    let _lock = Lock::acquire(home)?;
    let marker = home.root().join(MARKER);
    let var = home.root().join("var");
    if fs::symlink_metadata(&marker).is_ok() {
        // All of it came from the restore that did not finish.
        for top in SAVED {
            clear(&home.root().join(top))?;
        }
    }
    for top in SAVED {
        check_empty(&home.root().join(top), top)?;
    }
    replace_file(&marker, &[MARKER_TEXT], PRIVATE_FILE, Durability::Synced).map_err(io_at("write", &marker))?;
    let staging = home.root().join(STAGING);
    let unpacked = unpack(source, file, &staging);
    let manifest = match unpacked {
        Ok(manifest) => manifest,
        Err(error) => {
            // In this order: without the marker there is nothing left of the attempt.
            remove_tree(&staging).map_err(io_at("remove", &staging))?;
            remove_file(&marker).map_err(io_at("remove", &marker))?;
            return Err(error);
        }
    };
    leave_word(file, &manifest, &staging)?;
    put_in_place(home, &staging)?;
    remove_tree(&staging).map_err(io_at("remove", &staging))?;
    sync_directory(&var).map_err(io_at("sync", &var))?;
    remove_file(&marker).map_err(io_at("remove", &marker))?;
    sync_directory(&var).map_err(io_at("sync", &var))?;
    Ok(Restored {
        files: manifest.files.len() as u64,
        bytes: manifest.files.iter().map(|f| f.bytes).sum(),
        made_at_ms: manifest.made_at_ms,
        version: manifest.version,
        sequence: manifest.sequence,
    })
}

/// Leaves word for the next daemon, which records in the audit log that what is there came from a backup, and when.
fn leave_word(file: &Path, manifest: &Manifest, staging: &Path) -> Result<(), RestoreError> {
    let directory = staging.join("var/audit");
    let made = DirBuilder::new().mode(0o700).recursive(true).create(&directory);
    made.map_err(io_at("create", &directory))?;
    let words = format!(
        "at_ms={} made_at_ms={} version={} from={}\n",
        now_ms(),
        manifest.made_at_ms,
        manifest.version,
        file.display()
    );
    let path = directory.join(audit::RESTORED);
    replace_file(&path, &[words.as_bytes()], PRIVATE_FILE, Durability::Synced).map_err(io_at("write", &path))
}

/// Removes what is in a directory.
fn clear(directory: &Path) -> Result<(), RestoreError> {
    let listed = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(io_at("list", directory))?,
    };
    for entry in listed {
        let entry = entry.map_err(io_at("list", directory))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(io_at("look at", &path))?;
        let removed = if kind.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(io_at("remove", &path))?;
    }
    Ok(())
}

/// That nothing of ours is there; directories that are made with every home, and are empty, do not count.
fn check_empty(directory: &Path, top: &str) -> Result<(), RestoreError> {
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // What is moved into place stays on its disk.
        Ok(found) if !found.is_dir() => return Err(RestoreError::NotEmpty(directory.to_owned())),
        other => {
            other.map_err(io_at("look at", directory))?;
        }
    }
    for entry in fs::read_dir(directory).map_err(io_at("list", directory))? {
        let path = entry.map_err(io_at("list", directory))?.path();
        let empty = top == "etc"
            && path.ends_with("etc/profiles")
            && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir())
            && fs::read_dir(&path).is_ok_and(|mut listed| listed.next().is_none());
        if !empty {
            return Err(RestoreError::NotEmpty(path));
        }
    }
    Ok(())
}

/// Unpacks into a directory of its own, everything compared with the list.
fn unpack(source: File, file: &Path, staging: &Path) -> Result<Manifest, RestoreError> {
    let wrong = |source| RestoreError::Backup {
        file: file.to_owned(),
        source,
    };
    remove_tree(staging).map_err(io_at("remove", staging))?;
    make_directory(staging)?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::with_capacity(1 << 16, source)));
    // Raw: what a tar says beside its files, such as names of any length, is not even read.
    let mut entries = archive.entries().map_err(|e| wrong(Fault::Pack(e)))?.raw(true);
    let first = entries.next().ok_or_else(|| wrong(Fault::NoList))?;
    let mut first = first.map_err(|e| wrong(Fault::Pack(e)))?;
    let (manifest, blobs) = read_manifest(&mut first).map_err(wrong)?;
    drop(first);
    check_room(&manifest, staging)?;
    for expected in &manifest.files {
        let missing = || Fault::Missing {
            expected: expected.path.clone(),
        };
        let found = entries.next().ok_or_else(|| wrong(missing()))?;
        let mut found = found.map_err(|e| wrong(Fault::Pack(e)))?;
        check_entry(&found, expected).map_err(wrong)?;
        let to = staging.join(&expected.path);
        write_file(&mut found, expected, &to, &wrong)?;
        check_parts(&blobs, expected, &to)?.map_err(wrong)?;
    }
    match entries.next() {
        None => {}
        Some(Ok(_)) => return Err(wrong(Fault::Trailing)),
        Some(Err(error)) => return Err(wrong(Fault::Pack(error))),
    }
    check_end(archive.into_inner()).map_err(wrong)?;
    // One call for all files and directories; there may be many thousands.
    let directory = File::open(staging).map_err(io_at("open", staging))?;
    rustix::fs::syncfs(&directory).map_err(|error| io_at("sync", staging)(error.into()))?;
    Ok(manifest)
}

fn read_manifest<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<(Manifest, Listed), Fault> {
    if *entry.path_bytes() != *MANIFEST.as_bytes() || entry.header().entry_type() != tar::EntryType::Regular {
        return Err(Fault::NoList);
    }
    let claimed = entry.size();
    if claimed > MANIFEST_BYTES_MAX {
        return Err(Fault::NoList);
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(Fault::Pack)?;
    /// The number first: what follows may be anything.
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_slice(&text).map_err(Fault::List)?;
    if format != FORMAT {
        return Err(Fault::Newer { found: format });
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(Fault::List)?;
    let blobs = check_manifest(&manifest)?;
    Ok((manifest, blobs))
}

/// That a list is one that this program could have written.
fn check_manifest(manifest: &Manifest) -> Result<Listed, Fault> {
    let sum = manifest.files.iter().try_fold(0u64, |sum, f| sum.checked_add(f.bytes));
    let bytes = sum.unwrap_or(u64::MAX);
    if manifest.files.len() > FILES_MAX || bytes > CONTENT_BYTES_MAX {
        return Err(Fault::TooMuch {
            files: manifest.files.len(),
            bytes,
        });
    }
    let mut names = BTreeSet::new();
    let mut blobs = Listed::default();
    for entry in &manifest.files {
        check_name(&entry.path)?;
        blobs.add(entry)?;
        if !names.insert(entry.path.as_str()) {
            return Err(bad_name(&entry.path, "it is named twice"));
        }
    }
    for name in &names {
        let above = name.match_indices('/').map(|(at, _)| &name[..at]);
        if above.into_iter().any(|above| names.contains(above)) {
            return Err(bad_name(name, "it is below what is a file"));
        }
    }
    blobs.check()?;
    Ok(blobs)
}

/// That what was unpacked there is the list of the parts of its blob, if it is one.
fn check_parts(blobs: &Listed, expected: &Entry, at: &Path) -> Result<Result<(), Fault>, RestoreError> {
    let Some(held) = blobs.parts_of(&expected.path) else {
        return Ok(Ok(()));
    };
    // At most a part's bytes: as long as the list says, which fits the blob, or it is refused unread.
    if expected.bytes > PART_BYTES as u64 || !are_parts(&fs::read(at).map_err(io_at("read", at))?, held) {
        return Ok(Err(Fault::Content {
            path: expected.path.clone(),
        }));
    }
    Ok(Ok(()))
}

fn check_name(path: &str) -> Result<(), Fault> {
    let parts = || path.split('/');
    let why = if path.len() > PATH_BYTES_MAX {
        "it is too long"
    } else if parts().count() > DEPTH_MAX + 2 {
        "it is too deep"
    } else if path.contains('\0') {
        "it has a zero in it"
    } else if parts().any(|part| matches!(part, "" | "." | ".."))
        || Path::new(path).components().any(|c| !matches!(c, Component::Normal(_)))
    {
        "it is not a plain path below the home"
    } else if !is_saved(path) {
        "that is no part of a backup"
    } else {
        return Ok(());
    };
    Err(bad_name(path, why))
}

fn check_room(manifest: &Manifest, staging: &Path) -> Result<(), RestoreError> {
    let disk = rustix::fs::statvfs(staging).map_err(|error| io_at("look at", staging)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = manifest.files.iter().map(|f| f.bytes).sum::<u64>() + SPARE_BYTES;
    if needed > free {
        return Err(RestoreError::NoRoom { needed, free });
    }
    Ok(())
}

/// That what comes next in the tar is what the list says.
fn check_entry<R: Read>(found: &tar::Entry<'_, R>, expected: &Entry) -> Result<(), Fault> {
    let path = found.path_bytes();
    if *path != *expected.path.as_bytes() {
        return Err(Fault::Order {
            found: String::from_utf8_lossy(&path).chars().take(PATH_BYTES_MAX).collect(),
            expected: expected.path.clone(),
        });
    }
    if found.header().entry_type() != tar::EntryType::Regular {
        return Err(Fault::Kind {
            path: expected.path.clone(),
        });
    }
    if found.size() != expected.bytes {
        return Err(Fault::Content {
            path: expected.path.clone(),
        });
    }
    Ok(())
}

fn write_file(
    from: &mut impl Read,
    expected: &Entry,
    to: &Path,
    wrong: &dyn Fn(Fault) -> RestoreError,
) -> Result<(), RestoreError> {
    if let Some(directory) = to.parent() {
        make_directory(directory)?;
    }
    // Nobody else may write what the daemon trusts, whatever the backup says; and nobody else may read a key.
    let mode = if expected.path.starts_with("keys/") {
        PRIVATE_FILE
    } else {
        expected.mode & 0o755 | PRIVATE_FILE
    };
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(to);
    let mut out = made.map_err(io_at("create", to))?;
    let mut hasher = blake3::Hasher::new();
    let mut tee = Hashing {
        hasher: &mut hasher,
        to: Writing {
            to: &mut out,
            failed: None,
        },
    };
    let copied = io::copy(&mut from.take(expected.bytes), &mut tee);
    if let Some(error) = tee.to.failed.take() {
        return Err(io_at("write", to)(error));
    }
    let copied = copied.map_err(|error| wrong(Fault::Pack(error)))?;
    if copied != expected.bytes || hasher.finalize().to_hex().as_str() != expected.blake3 {
        return Err(wrong(Fault::Content {
            path: expected.path.clone(),
        }));
    }
    Ok(())
}

/// Tells an error of the disk from one of the pack.
struct Writing<'a> {
    to: &'a mut File,
    failed: Option<io::Error>,
}

impl io::Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failed = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That nothing follows but the zeros of a tar's end, and that the pack's own sum is right.
fn check_end(mut pack: GzDecoder<BufReader<File>>) -> Result<(), Fault> {
    let mut rest = Vec::new();
    Read::take(&mut pack, END_BYTES_MAX + 1)
        .read_to_end(&mut rest)
        .map_err(Fault::Pack)?;
    if rest.len() as u64 > END_BYTES_MAX || rest.iter().any(|byte| *byte != 0) {
        return Err(Fault::Trailing);
    }
    let after = pack.into_inner().read(&mut [0; 1]).map_err(Fault::Pack)?;
    if after == 0 { Ok(()) } else { Err(Fault::Trailing) }
}

fn make_directory(path: &Path) -> Result<(), RestoreError> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(io_at("create", path))
}

/// Moves what was unpacked to where it belongs.
fn put_in_place(home: &Home, staging: &Path) -> Result<(), RestoreError> {
    for top in SAVED {
        let (from, to) = (staging.join(top), home.root().join(top));
        if !from.is_dir() {
            continue;
        }
        make_directory(&to)?;
        for entry in fs::read_dir(&from).map_err(io_at("list", &from))? {
            let name = entry.map_err(io_at("list", &from))?.file_name();
            let target = to.join(&name);
            // A directory goes in the place of an empty one.
            fs::rename(from.join(&name), &target).map_err(io_at("create", &target))?;
        }
        sync_directory(&to).map_err(io_at("sync", &to))?;
    }
    Ok(())
}
