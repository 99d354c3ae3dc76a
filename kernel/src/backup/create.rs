//! Makes a backup.
//!
//! What others may be writing is copied first, so that what is packed is what was hashed: the store by its engine, the rest by reading
//! each file once. Then the pack is written beside its place, synced, and given its name: there is never half of one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use astrid_wire::control::backup::Written;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::blobs::{BLOBS, LeftOut, Shelf};
use super::{
    CONTENT_BYTES_MAX, COPY, DEPTH_MAX, Entry, FILES_MAX, FORMAT, MANIFEST, Manifest, PATH_BYTES_MAX, SAVED,
    remove_tree, sync_directory,
};
use crate::audit;
use crate::blob::Blobs;
use crate::home::{Home, PRIVATE_FILE, remove_file};
use crate::lock::{Lock, LockError};
use crate::store::engine::{Engine, EngineError};

/// Where the store's files come from.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A store in use.
    Online {
        /// What keeps its bytes.
        engine: &'a dyn Engine,
        /// The last commit that is on disk.
        sequence: u64,
        /// What keeps bytes by their hash.
        blobs: &'a Blobs,
    },
    /// Its directory. Nobody uses the store; who says so holds the lock.
    AtRest,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Online { .. } => "Online",
            Source::AtRest => "AtRest",
        })
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It does not say where.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// Something is there.
    #[error("{} exists", .0.display())]
    Exists(PathBuf),
    /// It would become part of the next backup, or be taken for a part of the home.
    #[error("{} is inside the home that it would be a backup of", .0.display())]
    Inside(PathBuf),
    /// There is nothing to save.
    #[error("there is no home in {}", .0.display())]
    Nothing(PathBuf),
    /// Something that is not a file.
    #[error("{} is neither a file nor a directory", .0.display())]
    Odd(PathBuf),
    /// A name that not every tar can hold.
    #[error("the name of {} is no text, longer than {PATH_BYTES_MAX} bytes or too deep", .0.display())]
    Name(PathBuf),
    /// More files than anybody has.
    #[error("there are more than {FILES_MAX} files")]
    TooMany,
    /// More bytes than anybody has.
    #[error("there are more than {CONTENT_BYTES_MAX} bytes")]
    TooLarge,
    /// Somebody writes what should be at rest.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// Another backup holds what is in the content store.
    #[error("a backup is being made already")]
    Busy,
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A daemon is running.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The home is half of another backup.
    #[error(transparent)]
    Unfinished(#[from] super::Unfinished),
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl BackupError {
    /// What could be done about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Relative(_) => "begin it with /".to_owned(),
            Self::Exists(_) => "choose another name, or replace it with --force".to_owned(),
            Self::Inside(_) => "choose a place outside, best on another disk".to_owned(),
            Self::Nothing(_) => "name the home with --home".to_owned(),
            Self::Odd(path) | Self::Name(path) => format!("move {} away", path.display()),
            Self::TooMany | Self::TooLarge => "something in the home is not what belongs there".to_owned(),
            Self::Changed(_) => "try again; is another program writing there?".to_owned(),
            Self::Busy => "wait until it is done".to_owned(),
            Self::Engine(_) => "`astrid status` says how the store is".to_owned(),
            Self::Lock(error) => error.hint(),
            Self::Unfinished(error) => error.hint(),
            Self::Io { path, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "make room on the disk, or choose another one".to_owned(),
                _ => format!("look at {}", path.display()),
            },
        }
    }
}

pub(super) fn io_at<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A file to be packed.
pub(super) struct Found {
    pub(super) entry: Entry,
    /// Where its content is.
    pub(super) at: PathBuf,
}

/// The copy, which goes with this.
struct Copied(PathBuf);

impl Copied {
    fn new(home: &Home) -> Result<Self, BackupError> {
        let path = home.root().join(COPY);
        remove_tree(&path).map_err(io_at("remove", &path))?;
        make_directory(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove the copy that a backup was made from");
        }
    }
}

fn make_directory(path: &Path) -> Result<(), BackupError> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(io_at("create", path))
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What is told to who asked for it.
    pub written: Written,
    /// Blobs that are spoilt, and not in it.
    pub left_out: Vec<LeftOut>,
}

/// Backs up a home whose daemon does not run: takes its lock meanwhile.
///
/// # Errors
/// [`BackupError::Lock`] when one runs; the others. There is no file then.
pub fn create_at_rest(home: &Home, file: &Path, force: bool) -> Result<Made, BackupError> {
    // Without its run/ there is nothing to lock, and there never was a daemon.
    if !home.run_dir().is_dir() {
        return Err(BackupError::Nothing(home.root().to_owned()));
    }
    let _lock = Lock::acquire(home)?;
    super::check(home)?;
    create(home, Source::AtRest, file, force)
}

/// Backs up a home into a file, 0600. `force`: also where one is.
///
/// # Errors
/// There is no file then, or the one that was there.
pub fn create(home: &Home, source: Source<'_>, file: &Path, force: bool) -> Result<Made, BackupError> {
    let place = Place::check(home, file, force)?;
    // Before the store's moment: what that knows of blobs is there.
    let pinned = match source {
        Source::Online { blobs, .. } => Some(blobs.pin().ok_or(BackupError::Busy)?),
        Source::AtRest => None,
    };
    let shelf = match &pinned {
        Some(pinned) => Shelf::Online(pinned),
        None => Shelf::AtRest(home.root().join(BLOBS)),
    };
    let copied = Copied::new(home)?;
    let mut told = (0, Vec::new());
    let mut gathered = Gathered {
        root: home.root(),
        copies: &copied.0,
        found: Vec::new(),
        bytes: 0,
    };
    for top in SAVED {
        let directory = home.root().join(top);
        match (top, source) {
            ("var/store", Source::Online { engine, .. }) => {
                let checkpoint = copied.0.join(top);
                make_directory(&copied.0.join("var"))?;
                engine.checkpoint(&checkpoint)?;
                gathered.walk(&checkpoint, top, false, 0)?;
            }
            ("var/audit", _) => {
                // Where the log ended first: what is written meanwhile is then only behind it.
                for name in audit::NOT_SEGMENTS
                    .into_iter()
                    .filter(|name| directory.join(name).exists())
                {
                    gathered.add(directory.join(name), format!("{top}/{name}"), true)?;
                }
                gathered.walk(&directory, top, true, 0)?;
            }
            (BLOBS, _) => told = gathered.blobs(&shelf)?,
            ("var/store", Source::AtRest) => gathered.walk(&directory, top, false, 0)?,
            _ => gathered.walk(&directory, top, true, 0)?,
        }
    }
    let (found, content_bytes) = (gathered.found, gathered.bytes);
    let sequence = match source {
        Source::Online { sequence, .. } => Some(sequence),
        Source::AtRest => None,
    };
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at_ms: now_ms(),
        sequence,
        files: found.iter().map(|f| f.entry.clone()).collect(),
    };
    let bytes = place.write(&manifest, &found)?;
    let (blobs, left_out) = told;
    let written = Written {
        path: file.display().to_string(),
        bytes,
        files: found.len() as u64,
        content_bytes,
        sequence,
        blobs,
        left_out: left_out.len() as u64,
    };
    Ok(Made { written, left_out })
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What was found to be packed.
pub(super) struct Gathered<'a> {
    pub(super) root: &'a Path,
    copies: &'a Path,
    found: Vec<Found>,
    bytes: u64,
}

impl Gathered<'_> {
    /// Finds the files below a directory, in the order of their names. `copy`: others may be writing them.
    fn walk(&mut self, directory: &Path, name: &str, copy: bool, depth: usize) -> Result<(), BackupError> {
        if depth >= DEPTH_MAX {
            return Err(BackupError::Name(directory.to_owned()));
        }
        let listed = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_at("list", directory))?,
        };
        let mut names = Vec::new();
        for entry in listed {
            names.push(entry.map_err(io_at("list", directory))?.file_name());
            if self.found.len() + names.len() > FILES_MAX {
                return Err(BackupError::TooMany);
            }
        }
        names.sort();
        for file_name in names {
            let path = directory.join(&file_name);
            let text = file_name.to_str().ok_or_else(|| BackupError::Name(path.clone()))?;
            // Which is found already.
            if name == "var/audit" && audit::NOT_SEGMENTS.contains(&text) {
                continue;
            }
            if name == "var/audit" && audit::NOT_SAVED.contains(&text) {
                continue;
            }
            // What is being written in the place of another file.
            if copy && text.starts_with('.') && text.ends_with(".tmp") {
                continue;
            }
            let name = format!("{name}/{text}");
            if name.len() > PATH_BYTES_MAX {
                return Err(BackupError::Name(path));
            }
            // A link that an operator made in etc/ stands for what it leads to; among keys, and in a store, there is none.
            let links = copy && !name.starts_with("keys/");
            let looked = if links {
                fs::metadata(&path)
            } else {
                fs::symlink_metadata(&path)
            };
            let kind = match looked {
                // It went meanwhile.
                Err(error) if copy && error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io_at("look at", &path))?.file_type(),
            };
            if kind.is_dir() {
                self.walk(&path, &name, copy, depth + 1)?;
            } else if kind.is_file() {
                self.add(path, name, copy)?;
            } else {
                return Err(BackupError::Odd(path));
            }
        }
        Ok(())
    }

    pub(super) fn push(&mut self, found: Found) -> Result<(), BackupError> {
        self.bytes = self.bytes.saturating_add(found.entry.bytes);
        if self.bytes > CONTENT_BYTES_MAX {
            return Err(BackupError::TooLarge);
        }
        if self.found.len() >= FILES_MAX {
            return Err(BackupError::TooMany);
        }
        self.found.push(found);
        Ok(())
    }

    pub(super) fn add(&mut self, path: PathBuf, name: String, copy: bool) -> Result<(), BackupError> {
        // A file may have become a pipe since it was looked at.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Err(error) if copy && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_at("open", &path))?,
        };
        let found = file.metadata().map_err(io_at("look at", &path))?;
        if !found.is_file() {
            return Err(BackupError::Odd(path));
        }
        let mut hasher = blake3::Hasher::new();
        // Never more than it had: a file that grows has no end.
        let mut limited = Read::take(&mut file, found.len());
        let (read, at) = if copy {
            let at = self.copies.join(&name);
            make_directory(at.parent().unwrap_or(self.root))?;
            let mut options = OpenOptions::new();
            let made = options.write(true).create_new(true).mode(PRIVATE_FILE).open(&at);
            let mut tee = Hashing {
                hasher: &mut hasher,
                to: made.map_err(io_at("create", &at))?,
            };
            let read = io::copy(&mut limited, &mut tee).map_err(io_at("copy", &path))?;
            (read, at)
        } else {
            let mut tee = Hashing {
                hasher: &mut hasher,
                to: io::sink(),
            };
            (
                io::copy(&mut limited, &mut tee).map_err(io_at("read", &path))?,
                path.clone(),
            )
        };
        if read != found.len() {
            return Err(BackupError::Changed(path));
        }
        self.push(Found {
            entry: Entry {
                path: name,
                mode: found.permissions().mode() & 0o777,
                bytes: read,
                blake3: hasher.finalize().to_hex().to_string(),
            },
            at,
        })
    }
}

/// Passes on what it hashes.
pub(super) struct Hashing<'a, W> {
    pub(super) hasher: &'a mut blake3::Hasher,
    pub(super) to: W,
}

impl<W: io::Write> io::Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the file comes.
struct Place<'a> {
    file: &'a Path,
    directory: &'a Path,
    force: bool,
}

/// A file that is not finished, which goes with this.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone, if it was given its name.
        let _ = fs::remove_file(&self.0);
    }
}

impl<'a> Place<'a> {
    fn check(home: &Home, file: &'a Path, force: bool) -> Result<Self, BackupError> {
        let (Some(directory), true) = (file.parent(), file.is_absolute() && file.file_name().is_some()) else {
            return Err(BackupError::Relative(file.to_owned()));
        };
        let real = |path: &Path| path.canonicalize().map_err(io_at("look at", path));
        let root = match fs::metadata(home.root()) {
            Ok(_) => real(home.root())?,
            Err(_) => return Err(BackupError::Nothing(home.root().to_owned())),
        };
        if real(directory)?.starts_with(&root) {
            return Err(BackupError::Inside(file.to_owned()));
        }
        match fs::symlink_metadata(file) {
            Ok(found) if !force || !found.is_file() => Err(BackupError::Exists(file.to_owned())),
            _ => Ok(Self { file, directory, force }),
        }
    }

    /// Packs, and gives the pack its name. Its size.
    fn write(&self, manifest: &Manifest, found: &[Found]) -> Result<u64, BackupError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.file.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let path = self.directory.join(name);
        // Left by a process of this number that was killed.
        remove_file(&path).map_err(io_at("remove", &path))?;
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(&path);
        let out = made.map_err(io_at("create", &path))?;
        let temporary = Temporary(path);
        let writing = io_at("write", &temporary.0);
        let packed = pack(BufWriter::with_capacity(1 << 18, out), manifest, found, &temporary.0)?;
        let out = packed.into_inner().map_err(|error| writing(error.into_error()))?;
        out.sync_all().map_err(&writing)?;
        let bytes = out.metadata().map_err(&writing)?.len();
        self.name(&temporary.0)?;
        sync_directory(self.directory).map_err(io_at("sync", self.directory))?;
        Ok(bytes)
    }

    fn name(&self, temporary: &Path) -> Result<(), BackupError> {
        if !self.force {
            // In one step: somebody may have put a file there meanwhile.
            match rustix::fs::renameat_with(CWD, temporary, CWD, self.file, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(BackupError::Exists(self.file.to_owned())),
                // Not every file system can; all of those that cannot have no links either.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    if rustix::fs::statat(CWD, self.file, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                        return Err(BackupError::Exists(self.file.to_owned()));
                    }
                }
                Err(error) => return Err(io_at("create", self.file)(error.into())),
            }
        }
        fs::rename(temporary, self.file).map_err(io_at("create", self.file))
    }
}

/// Writes the pack.
fn pack<W: io::Write>(to: W, manifest: &Manifest, found: &[Found], place: &Path) -> Result<W, BackupError> {
    let writing = io_at("write", place);
    let mut tar = tar::Builder::new(GzEncoder::new(to, Compression::fast()));
    let list = serde_json::to_vec(manifest).map_err(|error| writing(error.into()))?;
    let seconds = manifest.made_at_ms / 1000;
    tar.append(
        &header(MANIFEST, 0o600, list.len() as u64, seconds).map_err(&writing)?,
        &list[..],
    )
    .map_err(&writing)?;
    for Found { entry, at } in found {
        let file = File::open(at).map_err(io_at("open", at))?;
        let mut counted = Counted {
            from: file.take(entry.bytes),
            count: 0,
        };
        let header =
            header(&entry.path, entry.mode, entry.bytes, seconds).map_err(|_| BackupError::Name(at.clone()))?;
        tar.append(&header, &mut counted).map_err(&writing)?;
        if counted.count != entry.bytes {
            return Err(BackupError::Changed(at.clone()));
        }
    }
    let mut to = tar.into_inner().and_then(GzEncoder::finish).map_err(&writing)?;
    to.flush().map_err(&writing)?;
    Ok(to)
}

fn header(path: &str, mode: u32, bytes: u64, seconds: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(seconds);
    header.set_cksum();
    Ok(header)
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}
