//! A `/tmp` and a `/dev/shm` that one program has for itself, and what of the system's own is still seen in them.
//!
//! What stands at `/tmp` was written by others of the same principal, also by some that may do less: nothing of it is followed,
//! emptied or trusted. Whatever is given below these directories is opened before they are covered, names are made beneath a descriptor and
//! through no link, and mounts go from descriptor to descriptor.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2};

use super::namespaces::{bind, remount_read_only};

/// What a program has for itself.
pub(super) const PLACES: [&str; 2] = ["/tmp", "/dev/shm"];

/// What is made to mount something on.
const POINT_MODE: Mode = Mode::from_raw_mode(0o700);

/// How a name in a directory that others write is gone to.
const NO_WAY_OUT: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Why there is no such directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum OwnError {
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
    #[error("{} is in the daemon's home, which is kept from every program", .0.display())]
    Kept(PathBuf),
    #[error("{} contains the daemon's home, and cannot be seen beside a /tmp of its own", .0.display())]
    Contains(PathBuf),
    #[error("{} cannot be seen in a {at} of its own: something else is there by one of these names ({source})", .path.display())]
    InTheWay {
        path: PathBuf,
        at: &'static str,
        source: io::Error,
    },
}

impl OwnError {
    /// What the system said, where it could be that this machine cannot.
    pub(super) fn machine(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => Some(source.raw_os_error().unwrap_or(0)),
            _ => None,
        }
    }
}

fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> OwnError {
    move |source| OwnError::System {
        doing: doing.into(),
        source: source.into(),
    }
}

/// What is given below one of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) path: &'a Path,
    /// Whether it may be changed there.
    pub(super) writable: bool,
}

/// The same, as it was before it was covered.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    file: OwnedFd,
    writable: bool,
    at: &'static str,
    /// Its name below that.
    name: PathBuf,
}

/// What is kept from the program (resolved), but for one directory.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    pub(super) directories: &'a [PathBuf],
    pub(super) but: Option<&'a Path>,
}

impl Kept<'_> {
    fn check(&self, path: &Path, real: &Path) -> Result<(), OwnError> {
        if self.but.is_some_and(|but| real.starts_with(but)) {
            return Ok(());
        }
        for kept in self.directories {
            if real.starts_with(kept) {
                return Err(OwnError::Kept(path.to_owned()));
            }
            if kept.starts_with(real) {
                return Err(OwnError::Contains(path.to_owned()));
            }
        }
        Ok(())
    }
}

/// Puts a directory in the place of `/tmp`, and new memory of so many bytes (a quarter of what there is if that is not said) in
/// that of `/dev/shm`. Of what was there only what is given is there afterwards, and what was not is nobody's error: who allows it says so.
/// Returned is what of it is there, as it was opened.
pub(super) fn own(
    tmp: &Path,
    shared_bytes: Option<u64>,
    given: &[Given<'_>],
    kept: &Kept<'_>,
) -> Result<Vec<Opened>, OwnError> {
    // By descriptors, for their paths lead elsewhere in a moment.
    let mut all = Vec::new();
    for given in given {
        all.extend(opened(given, kept)?);
    }
    // What contains another comes first, and where it is the same what may be changed.
    all.sort_by_key(|one: &Opened| (one.path.components().count(), !one.writable));
    bind(tmp, Path::new("/tmp")).map_err(namespace)?;
    shared_memory(shared_bytes)?;
    for (n, one) in all.iter().enumerate() {
        let around = all[..n].iter().rfind(|other| one.path.starts_with(&other.path));
        if around.is_none_or(|around| one.writable && !around.writable) {
            show(one, around.is_some())?;
        }
    }
    Ok(all)
}

fn namespace(error: super::namespaces::NamespaceError) -> OwnError {
    let source = io::Error::from_raw_os_error(error.errno());
    OwnError::System {
        doing: error.to_string(),
        source,
    }
}

fn opened(given: &Given<'_>, kept: &Kept<'_>) -> Result<Option<Opened>, OwnError> {
    let Some((at, name)) = PLACES
        .iter()
        .find_map(|at| Some((*at, given.path.strip_prefix(at).ok()?)))
    else {
        return Ok(None);
    };
    if name.as_os_str().is_empty() {
        return Ok(None);
    }
    let Ok(file) = open(given.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
        return Ok(None);
    };
    let real = fs::read_link(by_number(&file)).map_err(system(format!("cannot look at {}", given.path.display())))?;
    kept.check(given.path, &real)?;
    Ok(Some(Opened {
        path: given.path.to_owned(),
        file,
        writable: given.writable,
        at,
        name: name.to_owned(),
    }))
}

/// Mounts what is given where it was. What is in something that is there already needs no names.
fn show(one: &Opened, is_there: bool) -> Result<(), OwnError> {
    let way = |source: rustix::io::Errno| OwnError::InTheWay {
        path: one.path.clone(),
        at: one.at,
        source: source.into(),
    };
    let top = open(
        one.at,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(way)?;
    if !is_there {
        let stat = fstat(&one.file).map_err(way)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        make(&top, &one.name, is_directory).map_err(way)?;
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let named = || openat2(&top, &one.name, flags, Mode::empty(), NO_WAY_OUT).map_err(way);
    bind(&by_number(&one.file), &by_number(&named()?)).map_err(namespace)?;
    if !one.writable {
        // Its name leads to what was just mounted on it, if nobody gave it to something else.
        let seen = named()?;
        let identity = |file: &OwnedFd| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)).map_err(way);
        if identity(&seen)? != identity(&one.file)? {
            return Err(way(rustix::io::Errno::BUSY));
        }
        remount_read_only(&by_number(&seen)).map_err(namespace)?;
    }
    Ok(())
}

/// Makes what is not there of a name, and the last of it as a file or a directory; whatever is there stays as it is.
fn make(top: &OwnedFd, name: &Path, is_directory: bool) -> rustix::io::Result<()> {
    let mut at = openat(top, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut steps = name.components().peekable();
    while let Some(step) = steps.next() {
        let Component::Normal(step) = step else {
            return Err(rustix::io::Errno::XDEV);
        };
        let made = if steps.peek().is_some() || is_directory {
            mkdirat(&at, step, POINT_MODE)
        } else {
            // Exclusive: not what is there, and through no link.
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(&at, step, flags, POINT_MODE).map(drop)
        };
        match made {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        at = openat2(&at, step, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), NO_WAY_OUT)?;
    }
    Ok(())
}

fn by_number(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Shared memory of its own.
pub(super) fn shared_memory(bytes: Option<u64>) -> Result<(), OwnError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let size = bytes.map_or_else(|| "25%".to_owned(), |bytes| bytes.to_string());
    let options = format!("mode=1777,size={size}");
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(system("cannot mount /dev/shm"))
}
