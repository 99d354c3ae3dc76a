//! A workspace as plain files, for machines where nothing can be mounted for a child: the merged view is copied into a directory, a child works
//! there, and what differs afterwards goes into the upper.
//!
//! A copy shares its blocks where the file system can. It is bounded by bytes; nobody else may use the workspace between [`make`] and [`import`],
//! or what they wrote would be taken for gone. The lower may change meanwhile: what the child has not touched is not taken over, and what is new
//! below is not taken for gone. Devices, fifos and sockets are neither copied nor taken over.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;

use super::layer::{self, Entry, Kind};
use super::review::changes::{names, same_content};
use super::review::{DEPTH_MAX, Layers, ReviewError, brief, joined, tree};

/// Where something waits for its place in the upper, beside it.
const ASIDE: &str = "aside";

/// The file that says what was copied, before it is complete.
const MADE_NEW: &str = "made.new";

/// A part of the time that the clock of file systems stands still.
const CLOCK_TICK: Duration = Duration::from_millis(1);

/// Bytes that stand for a path.
const PLACE_BYTES: usize = 16;

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// It would be larger than was allowed.
    #[error("the workspace has more than {0} bytes")]
    TooLarge(u64),
    /// It is not wanted any more.
    #[error("it was stopped before it was copied")]
    Over,
    /// The file systems'.
    #[error(transparent)]
    Review(#[from] ReviewError),
}

/// What a directory was when the workspace was copied into it, so that what a child did to it can be told from what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// Bytes of its files.
    pub bytes: u64,
    /// Its directories, by their inodes: the hashes of their paths.
    places: HashMap<u64, [u8; PLACE_BYTES]>,
}

impl Made {
    /// Writes it to a file, whose time is the one since when there are changes: later than that of anything that was copied.
    ///
    /// # Errors
    /// The file system's.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread of the pool waits for a clock that gives no sign"
    )]
    pub fn save(&self, directory: impl AsFd, name: &OsStr) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(self.places.len() * (8 + PLACE_BYTES));
        for (inode, place) in &self.places {
            bytes.extend(inode.to_le_bytes());
            bytes.extend(place);
        }
        let new = OsStr::new(MADE_NEW);
        if let Err(error) = rustix::fs::unlinkat(&directory, new, AtFlags::empty())
            && error != Errno::NOENT
        {
            return Err(error.into());
        }
        let mut file = layer::create_file(&directory, new)?;
        file.write_all(&bytes)?;
        let copied_ns = layer::look_at(&file)?.ctime_ns();
        while layer::look_at(&file)?.ctime_ns() <= copied_ns {
            // File systems tell times by a clock of a few milliseconds, which gives no sign.
            std::thread::sleep(CLOCK_TICK);
            layer::set_mtime(&file, copied_ns)?;
        }
        Ok(rustix::fs::renameat(&directory, new, &directory, name)?)
    }

    /// What was written to a file, and when.
    ///
    /// # Errors
    /// The file system's; of a file that is not one of ours as well.
    pub fn load(directory: impl AsFd, name: &OsStr) -> io::Result<(Self, i128)> {
        let mut file = layer::open_file(directory, name)?;
        let since_ns = layer::look_at(&file)?.ctime_ns();
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        let (rows, rest) = bytes.as_chunks::<{ 8 + PLACE_BYTES }>();
        if !rest.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut places = HashMap::with_capacity(rows.len());
        for row in rows {
            let (Some(inode), Some(place)) = (row.first_chunk(), row.last_chunk()) else {
                continue;
            };
            places.insert(u64::from_le_bytes(*inode), *place);
        }
        Ok((Self { bytes: 0, places }, since_ns))
    }

    /// Whether a directory was there, under that path.
    fn had(&self, directory: &Entry, path: &[u8]) -> bool {
        self.places.get(&directory.identity().1) == Some(&place(path))
    }
}

/// A path, shortened: two of one workspace are not to have the same.
fn place(path: &[u8]) -> [u8; PLACE_BYTES] {
    let hash = blake3::hash(path);
    let mut place = [0; PLACE_BYTES];
    place.copy_from_slice(&hash.as_bytes()[..PLACE_BYTES]);
    place
}

/// What an import found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Paths that went into the upper.
    pub written: u64,
    /// Paths that are gone.
    pub removed: u64,
    /// Directories that are nested too deep, and were not taken over.
    pub left_out: u64,
}

fn failed(action: &'static str, path: &[u8]) -> impl Fn(io::Error) -> ReviewError {
    let path = brief(path);
    move |source| ReviewError::Io {
        action,
        path: path.clone(),
        source,
    }
}

/// A directory of the merged view: what each layer has of it.
struct Level {
    upper: Option<OwnedFd>,
    lower: Option<OwnedFd>,
}

impl Level {
    fn root(layers: &Layers) -> Result<Self, ReviewError> {
        let open = |layer: &super::beneath::Beneath| layer.dir(Path::new(""));
        let open = |layer| open(layer).map_err(|error| failed("open", b"")(error.into()));
        let (upper, lower) = (open(&layers.upper)?, open(&layers.lower)?);
        let fd = |layer: super::beneath::Beneath| layer.as_fd().try_clone_to_owned();
        Ok(Self {
            upper: Some(fd(upper).map_err(failed("open", b""))?),
            lower: Some(fd(lower).map_err(failed("open", b""))?),
        })
    }

    /// What is shown under a name, and in which layer it is.
    fn look(&self, name: &OsStr) -> io::Result<Option<(Entry, BorrowedFd<'_>)>> {
        if let Some(upper) = &self.upper
            && let Some(entry) = layer::look(upper, name)?
        {
            let gone = entry.kind == Kind::Whiteout
                || layer::has_whiteout_files(upper)? && layer::stands_for_whiteout(upper, name, &entry)?;
            return Ok((!gone).then(|| (entry, upper.as_fd())));
        }
        self.look_below(name)
    }

    /// What the lower shows under a name where nothing is above.
    fn look_below(&self, name: &OsStr) -> io::Result<Option<(Entry, BorrowedFd<'_>)>> {
        let Some(lower) = &self.lower else { return Ok(None) };
        Ok(layer::look(lower, name)?.map(|entry| (entry, lower.as_fd())))
    }

    fn names(&self, path: &[u8]) -> Result<Vec<OsString>, ReviewError> {
        let mut all = Vec::new();
        for layer in [&self.upper, &self.lower].into_iter().flatten() {
            all.extend(names(layer, path)?);
        }
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    /// The directory of that name. What an opaque one hides is not a part of it.
    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let open = |layer: &Option<OwnedFd>| match layer {
            Some(layer) if layer::look(layer, name)?.is_some_and(|entry| entry.kind == Kind::Directory) => {
                layer::open_directory(layer, name).map(Some)
            }
            _ => Ok(None),
        };
        let upper = open(&self.upper)?;
        let covered = match (&upper, &self.upper) {
            (Some(upper), _) => layer::is_opaque(upper)?,
            (None, Some(above)) => layer::look(above, name)?.is_some(),
            (None, None) => false,
        };
        let lower = if covered { None } else { open(&self.lower)? };
        Ok(Self { upper, lower })
    }
}

/// Copies what a workspace shows into an empty directory, until it is given up.
///
/// # Errors
/// [`CheckoutError::TooLarge`], [`CheckoutError::Over`], and the file systems'. Who calls removes what is there by then.
pub fn make(layers: &Layers, into: impl AsFd, bytes_max: u64, given_up: &AtomicBool) -> Result<Made, CheckoutError> {
    let level = Level::root(layers)?;
    let mut copying = Copying {
        left: bytes_max,
        made: Made::default(),
        given_up,
        left_out: None,
    };
    copying
        .fill(&level, into.as_fd(), &[], 0)
        .map_err(|error| match error {
            CheckoutError::TooLarge(_) => CheckoutError::TooLarge(bytes_max),
            error => error,
        })?;
    copying.made.bytes = bytes_max - copying.left;
    Ok(copying.made)
}

/// Directories being copied.
struct Copying<'a> {
    left: u64,
    made: Made,
    given_up: &'a AtomicBool,
    /// How many directories were left out that are too deep; where that is an error, none.
    left_out: Option<u64>,
}

impl Copying<'_> {
    fn fill(&mut self, level: &Level, into: BorrowedFd<'_>, path: &[u8], depth: usize) -> Result<(), CheckoutError> {
        if depth > DEPTH_MAX {
            let left_out = self
                .left_out
                .as_mut()
                .ok_or_else(|| ReviewError::TooDeep { path: brief(path) })?;
            *left_out += 1;
            return Ok(());
        }
        let own = layer::look_at(into).map_err(failed("look at", path))?;
        self.made.places.insert(own.identity().1, place(path));
        for name in level.names(path)? {
            if self.given_up.load(Ordering::Relaxed) {
                return Err(CheckoutError::Over);
            }
            let path = joined(path, &name);
            let failed = failed("copy", &path);
            let Some((entry, from)) = level.look(&name).map_err(&failed)? else {
                continue;
            };
            match entry.kind {
                Kind::Whiteout | Kind::Other => {}
                Kind::Directory => {
                    let below = level.enter(&name).map_err(&failed)?;
                    let like = layer::open_directory(from, &name).map_err(&failed)?;
                    let made = layer::copy_directory(&like, into, &name).map_err(&failed)?;
                    self.fill(&below, made.as_fd(), &path, depth + 1)?;
                    layer::set_mtime(&made, entry.mtime_ns()).map_err(&failed)?;
                }
                Kind::File | Kind::Symlink => {
                    let left = self.left.checked_sub(entry.size());
                    self.left = left.ok_or(CheckoutError::TooLarge(0))?;
                    layer::copy_entry(from, &name, into, &name).map_err(&failed)?;
                }
            }
        }
        Ok(())
    }
}

/// Makes the upper show what was changed in a directory since it was [made](make). `since_ns` is when that was, in nanoseconds since 1970, as
/// its file system has it; `overlay` is the directory that the upper is in.
///
/// # Errors
/// The file systems', naming the path. What is taken over by then stays; doing it again takes over the rest.
pub fn import(
    overlay: &Path,
    layers: &Layers,
    from: impl AsFd,
    (made, since_ns): (&Made, i128),
) -> Result<Imported, ReviewError> {
    let aside = layer::open_root(overlay).map_err(failed("open", b""))?;
    tree::remove(&aside, OsStr::new(ASIDE), ASIDE.as_bytes())?;
    let mut import = Import {
        aside,
        made,
        since_ns,
        touched: HashSet::new(),
        done: Imported::default(),
    };
    import.note_touched(from.as_fd(), b"", 0, true)?;
    let level = Level::root(layers)?;
    import.directory(&level, from.as_fd(), &[], (0, true))?;
    Ok(import.done)
}

struct Import<'a> {
    aside: OwnedFd,
    made: &'a Made,
    since_ns: i128,
    /// Directories in which something was changed, at any depth.
    touched: HashSet<(u64, u64)>,
    done: Imported,
}

impl Import<'_> {
    /// Notes the directories from one down in which something was changed; whether it is one. A file that was moved has the time of that; what is
    /// in a directory that was moved, or is new, is all taken for changed. `in_place`: the directory above is not such a one.
    fn note_touched(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        depth: usize,
        in_place: bool,
    ) -> Result<bool, ReviewError> {
        if depth > DEPTH_MAX {
            return Ok(true);
        }
        let own = layer::look_at(directory).map_err(failed("look at", path))?;
        let in_place = in_place && self.made.had(&own, path);
        let mut is = !in_place || own.ctime_ns() >= self.since_ns;
        for name in names(directory, path)? {
            let path = joined(path, &name);
            let failed = failed("look at", &path);
            let Some(entry) = layer::look(directory, &name).map_err(&failed)? else {
                continue;
            };
            is |= match entry.kind {
                Kind::Directory => {
                    let below = layer::open_directory(directory, &name).map_err(&failed)?;
                    self.note_touched(below.as_fd(), &path, depth + 1, in_place)?
                }
                _ => entry.ctime_ns() >= self.since_ns,
            };
        }
        if is {
            self.touched.insert(own.identity());
        }
        Ok(is)
    }

    fn directory(
        &mut self,
        level: &Level,
        from: BorrowedFd<'_>,
        path: &[u8],
        (depth, in_place): (usize, bool),
    ) -> Result<(), ReviewError> {
        if depth > DEPTH_MAX {
            self.done.left_out += 1;
            return Ok(());
        }
        let Some(upper) = &level.upper else { return Ok(()) };
        let own = layer::look_at(from).map_err(failed("look at", path))?;
        let in_place = in_place && self.made.had(&own, path);
        let mut all = level.names(path)?;
        all.extend(names(from, path)?);
        all.sort_unstable();
        all.dedup();
        for name in all {
            let path = joined(path, &name);
            let failed = failed("take over", &path);
            let new = layer::look(from, &name).map_err(&failed)?;
            let new = new.filter(|entry| matches!(entry.kind, Kind::File | Kind::Directory | Kind::Symlink));
            let old = level.look(&name).map_err(&failed)?;
            match (old, new) {
                (None, None) => {}
                // It was not copied, or is not what was copied.
                (Some((old, _)), None) if old.kind == Kind::Other || old.changed_after(self.since_ns - 1) => {}
                (Some(_), None) => self.remove(level, upper.as_fd(), &name, &path)?,
                (_, Some(new)) if in_place && !self.is_touched(&new) => {}
                (Some((old, _)), Some(new)) if old.kind == Kind::Directory && new.kind == Kind::Directory => {
                    let below = self.shared(level, upper.as_fd(), &name, (from, &new), &path)?;
                    let from = layer::open_directory(from, &name).map_err(&failed)?;
                    self.directory(&below, from.as_fd(), &path, (depth + 1, in_place))?;
                }
                (Some((old, at)), Some(new)) if is_same(&old, at, &new, from, &name).map_err(&failed)? => {}
                (_, Some(new)) => self.put(level, upper.as_fd(), &name, (from, &new), &path, depth)?,
            }
        }
        Ok(())
    }

    /// Whether anything of it was changed after it was copied.
    fn is_touched(&self, new: &Entry) -> bool {
        match new.kind {
            Kind::Directory => self.touched.contains(&new.identity()),
            _ => new.ctime_ns() >= self.since_ns,
        }
    }

    /// A directory that both have: in the upper as well, with the mode that it has now.
    fn shared(
        &mut self,
        level: &Level,
        upper: BorrowedFd<'_>,
        name: &OsStr,
        (from, new): (BorrowedFd<'_>, &Entry),
        path: &[u8],
    ) -> Result<Level, ReviewError> {
        let failed = failed("take over", path);
        let below = level.enter(name).map_err(&failed)?;
        let had = below
            .upper
            .as_ref()
            .or(below.lower.as_ref())
            .map(layer::look_at)
            .transpose()
            .map_err(&failed)?;
        if below.upper.is_none() {
            let like = layer::open_directory(from, name).map_err(&failed)?;
            layer::copy_directory(like, upper, name).map_err(&failed)?;
        }
        let now = level.enter(name).map_err(&failed)?;
        if let Some(made) = &now.upper {
            rustix::fs::fchmod(made, Mode::from_raw_mode(new.mode())).map_err(|error| failed(error.into()))?;
        }
        self.done.written += u64::from(had.is_some_and(|had| had.mode() != new.mode()));
        Ok(now)
    }

    /// What was there is gone: a whiteout, if the lower has something there.
    fn remove(&mut self, level: &Level, upper: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<(), ReviewError> {
        let failed = failed("take over", path);
        let aside = OsStr::new(ASIDE);
        if level.look_below(name).map_err(&failed)?.is_some() {
            layer::make_whiteout(&self.aside, aside).map_err(&failed)?;
        }
        self.done.removed += 1;
        self.place(upper, name, path)
    }

    /// Something new, or something else than there was.
    fn put(
        &mut self,
        level: &Level,
        upper: BorrowedFd<'_>,
        name: &OsStr,
        (from, new): (BorrowedFd<'_>, &Entry),
        path: &[u8],
        depth: usize,
    ) -> Result<(), ReviewError> {
        let failed = failed("take over", path);
        let aside = OsStr::new(ASIDE);
        let below = level.look_below(name).map_err(&failed)?;
        match new.kind {
            Kind::Directory => {
                let like = layer::open_directory(from, name).map_err(&failed)?;
                let made = layer::copy_directory(&like, &self.aside, aside).map_err(&failed)?;
                let mut copying = Copying {
                    left: u64::MAX,
                    made: Made::default(),
                    given_up: &AtomicBool::new(false),
                    left_out: Some(0),
                };
                let all = Level {
                    upper: None,
                    lower: Some(like),
                };
                copying
                    .fill(&all, made.as_fd(), path, depth + 1)
                    .map_err(|error| match error {
                        CheckoutError::Review(error) => error,
                        _ => ReviewError::TooDeep { path: brief(path) },
                    })?;
                self.done.left_out += copying.left_out.unwrap_or(0);
                layer::set_mtime(&made, new.mtime_ns()).map_err(&failed)?;
                if below.is_some_and(|(entry, _)| entry.kind == Kind::Directory) {
                    layer::make_opaque(&made).map_err(&failed)?;
                }
            }
            Kind::File => {
                let file = layer::open_file(from, name).map_err(&failed)?;
                let (copy, _) = layer::copy_file(&file, &self.aside, aside).map_err(&failed)?;
                if below.is_some_and(|(entry, _)| entry.kind == Kind::File) {
                    layer::mark_origin(copy).map_err(&failed)?;
                }
            }
            _ => drop(layer::copy_entry(from, name, &self.aside, aside).map_err(&failed)?),
        }
        self.done.written += 1;
        self.place(upper, name, path)
    }

    /// What waits, or nothing, takes the place of what the upper has.
    fn place(&self, upper: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<(), ReviewError> {
        let failed = failed("take over", path);
        let aside = OsStr::new(ASIDE);
        let there = layer::look(&self.aside, aside).map_err(&failed)?.is_some();
        let here = layer::look(upper, name).map_err(&failed)?.is_some();
        match (there, here) {
            (true, true) => rustix::fs::renameat_with(&self.aside, aside, upper, name, RenameFlags::EXCHANGE),
            (true, false) => rustix::fs::renameat(&self.aside, aside, upper, name),
            (false, true) => rustix::fs::renameat(upper, name, &self.aside, aside),
            (false, false) => Ok(()),
        }
        .map_err(|error| failed(error.into()))?;
        tree::remove(&self.aside, aside, ASIDE.as_bytes())
    }
}

/// Whether a file or link is what it was. Its time says nothing: whoever may write to a file may set that.
fn is_same(old: &Entry, at: BorrowedFd<'_>, new: &Entry, from: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    if old.kind != new.kind {
        return Ok(false);
    }
    if new.kind == Kind::Symlink {
        let target = |layer| rustix::fs::readlinkat(layer, name, Vec::new());
        return Ok(target(at)? == target(from)?);
    }
    if old.mode() != new.mode() || old.size() != new.size() {
        return Ok(false);
    }
    same_content(&layer::open_file(at, name)?, &layer::open_file(from, name)?)
}
