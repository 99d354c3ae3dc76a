//! A log file that stays below its size, whatever is written to it.
//!
//! At the limit the file becomes `NAME.1`, that one `NAME.2`, and the oldest goes; a line is cut only when it is longer than what is
//! left of a fresh file. No file is ever larger than its limit. Besides by size a file is rotated when a write falls into another
//! hour or day (UTC) than the last one, which is the file's own time of change: that holds over restarts and needs no timer.
//!
//! Writing never fails for who writes: what the disk does not take is dropped, counted, and admitted to in the file when there
//! is room again. A file that somebody moved, deleted or emptied is noticed within a second of writing.
//!
//! Deliberately absent: syncing. A log survives the death of the daemon, not that of the machine.

#![allow(clippy::disallowed_methods, reason = "this module owns the log files of children")]

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::SinkError;
use super::pack::Packer;
use crate::home::PRIVATE_FILE;
use crate::metrics::Metrics;

/// Mode of a directory that is made for a log file.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Bytes of a file at least, so that rotating is rare beside writing.
pub const FILE_BYTES_MIN: u64 = 4 << 10;

/// Bytes of a file at most, so that compressing one stays a short job.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// Rotated files of one name at most.
pub const FILES_KEPT_MAX: u32 = 1_000;

/// How old the knowledge may be that the file is still where it was.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes of the line that admits to a loss: two numbers and what the system calls it.
const NOTE_BYTES_MAX: u64 = 256;

/// When a file is rotated besides by size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Period {
    /// In another hour (UTC).
    Hour,
    /// On another day (UTC).
    Day,
}

impl Period {
    fn seconds(self) -> u64 {
        match self {
            Period::Hour => 3_600,
            Period::Day => 86_400,
        }
    }
}

/// How a file is kept small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Bytes of one file at most: [`FILE_BYTES_MIN`] to [`FILE_BYTES_MAX`].
    pub bytes_max: u64,
    /// Files that are kept besides the one that is written, at most [`FILES_KEPT_MAX`]. With 0 the file is emptied.
    pub keep: u32,
    /// Rotated by time as well.
    pub every: Option<Period>,
    /// Whether the kept ones are compressed (gzip).
    pub compress: bool,
}

impl Default for Rotation {
    /// A16: 10 files of 10 MiB.
    fn default() -> Self {
        Self {
            bytes_max: 10 << 20,
            keep: 10,
            every: None,
            compress: false,
        }
    }
}

/// Where output is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSink {
    /// Absolute. Directories are made (0700), the file is 0600 and not a symbolic link.
    pub path: PathBuf,
    /// How it is kept small. Of several sinks of one path, that of the first counts.
    pub rotation: Rotation,
}

/// `NAME.number`, or with `.gz` behind it.
pub(super) fn aside(path: &Path, number: u32, packed: bool) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{}", if packed { ".gz" } else { "" }));
    name.into()
}

/// The two clocks, read once for a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Seconds since 1970, UTC.
    wall_seconds: u64,
    instant: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self {
            wall_seconds: seconds(SystemTime::now()),
            instant: Instant::now(),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What is known of the file that is written.
#[derive(Debug)]
struct Current {
    file: File,
    device: u64,
    inode: u64,
    length: u64,
    /// Whether a line begins at its end.
    line_begins: bool,
    /// Of the last write, in seconds since 1970.
    written_seconds: u64,
}

/// A file and those it was rotated to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    current: Option<Current>,
    looked: Instant,
    /// Bytes that were not written since the last ones that were, and why.
    lost: Option<(u64, io::Error)>,
    packer: Arc<Packer>,
    metrics: Arc<Metrics>,
}

impl LogFile {
    /// Opens it, or makes it; finishes what a rotation or compression left that was cut off.
    pub(super) fn open(sink: &FileSink, packer: Arc<Packer>, metrics: Arc<Metrics>) -> Result<Self, SinkError> {
        check(sink)?;
        let FileSink { path, rotation } = sink.clone();
        let unusable = |source| SinkError::Open {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(PRIVATE_DIRECTORY)
                .create(parent)
                .map_err(unusable)?;
        }
        let current = open(&path).map_err(unusable)?;
        for number in rotation.keep + 1..=FILES_KEPT_MAX {
            let removed = [false, true].map(|packed| fs::remove_file(aside(&path, number, packed)).is_ok());
            if removed == [false, false] {
                break;
            }
        }
        if rotation.compress {
            packer.pack(&path, rotation.keep);
        }
        Ok(Self {
            path,
            rotation,
            current: Some(current),
            looked: Instant::now(),
            lost: None,
            packer,
            metrics,
        })
    }

    /// Writes it all, or counts as lost what could not be written.
    pub(super) fn write(&mut self, bytes: &[u8], now: Now) {
        let mut left = bytes;
        if let Err(error) = self.try_write(&mut left, now) {
            let lost = left.len() as u64;
            self.metrics.child_output_lost.add(lost);
            if self.lost.is_none() {
                tracing::warn!(path = %self.path.display(), %error, "output of a program is lost until it can be written again");
            }
            let before = self.lost.take().map_or(0, |(before, _)| before);
            self.lost = Some((before + lost, error));
        }
    }

    /// Takes from `left` what it has written.
    fn try_write(&mut self, left: &mut &[u8], now: Now) -> io::Result<()> {
        self.look(now)?;
        if let (Some(period), Some(current)) = (self.rotation.every, &self.current)
            && current.length > 0
            && now.wall_seconds / period.seconds() > current.written_seconds / period.seconds()
        {
            self.rotate()?;
        }
        let full = |current: &Current| current.length + NOTE_BYTES_MAX > self.rotation.bytes_max;
        if self.lost.is_some() && self.current.as_ref().is_some_and(full) {
            self.rotate()?;
        }
        if let Some((bytes, why)) = &self.lost {
            let fresh_line = self.current.as_ref().is_none_or(|current| current.line_begins);
            let why = why.to_string();
            let why = why.split(" (os error").next().unwrap_or_default();
            let note = format!(
                "{}[astrid: {bytes} bytes were lost: {why}]\n",
                if fresh_line { "" } else { "\n" }
            );
            self.append(&mut note.as_bytes(), now)?;
            self.lost = None;
        }
        self.append(left, now)
    }

    fn append(&mut self, left: &mut &[u8], now: Now) -> io::Result<()> {
        while !left.is_empty() {
            let current = match &mut self.current {
                Some(current) => current,
                none => none.insert(open(&self.path)?),
            };
            let room = self.rotation.bytes_max.saturating_sub(current.length);
            let mut piece = &left[..current.cut(left, room)];
            while !piece.is_empty() {
                match current.file.write(piece) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        current.length += written as u64;
                        current.line_begins = piece[written - 1] == b'\n';
                        current.written_seconds = now.wall_seconds;
                        piece = &piece[written..];
                        *left = &left[written..];
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if !left.is_empty() {
                self.rotate()?;
            }
        }
        Ok(())
    }

    /// Sees that the file which is written is the one that has its name, at most once a second.
    fn look(&mut self, now: Now) -> io::Result<()> {
        if now.instant.saturating_duration_since(self.looked) >= LOOK_AGAIN {
            self.looked = now.instant;
            let found = fs::symlink_metadata(&self.path);
            match (&mut self.current, found) {
                (Some(current), Ok(found)) if (found.dev(), found.ino()) == (current.device, current.inode) => {
                    // Somebody may have emptied it.
                    current.length = found.len();
                }
                (current, _) => *current = None,
            }
        }
        if self.current.is_none() {
            self.current = Some(open(&self.path)?);
        }
        Ok(())
    }

    /// Puts the file aside and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        if self.rotation.keep == 0 {
            if let Some(current) = &mut self.current {
                current.file.set_len(0)?;
                current.length = 0;
                current.line_begins = true;
            }
        } else {
            let names = self.packer.names.lock();
            shift(&self.path, self.rotation.keep);
            match fs::rename(&self.path, aside(&self.path, 1, false)) {
                // Somebody else put it aside.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            drop(names);
            self.current = None;
            self.current = Some(open(&self.path)?);
        }
        self.metrics.child_log_rotations.increment();
        if self.rotation.compress && self.rotation.keep > 0 {
            self.packer.pack(&self.path, self.rotation.keep);
        }
        Ok(())
    }
}

impl Current {
    /// How many of these bytes go into this file, of which `room` are left: all, or up to the last line end, or none when the
    /// line that begins here can begin the next file, or what fits of a line that is longer than a file.
    fn cut(&self, bytes: &[u8], room: u64) -> usize {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let Some(head) = bytes.get(..room).filter(|_| room < bytes.len()) else {
            return bytes.len();
        };
        match head.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.line_begins && self.length > 0 => 0,
            None => room,
        }
    }
}

fn check(sink: &FileSink) -> Result<(), SinkError> {
    let Rotation { bytes_max, keep, .. } = sink.rotation;
    if !sink.path.is_absolute() || sink.path.file_name().is_none() {
        return Err(SinkError::Path {
            path: sink.path.clone(),
        });
    }
    if !(FILE_BYTES_MIN..=FILE_BYTES_MAX).contains(&bytes_max) {
        return Err(SinkError::Bytes { bytes_max });
    }
    if keep > FILES_KEPT_MAX {
        return Err(SinkError::Keep { keep });
    }
    Ok(())
}

/// Moves each rotated file one further, up to the first number that is free; the oldest goes.
fn shift(path: &Path, keep: u32) {
    let both = |number| [false, true].map(|packed| (aside(path, number, packed), packed));
    let taken = |number: &u32| both(*number).iter().any(|(name, _)| fs::symlink_metadata(name).is_ok());
    let mut number = (1..=keep).take_while(taken).count() as u32;
    if number == keep {
        for (name, _) in both(number) {
            // One of the two is there.
            let _ = fs::remove_file(name);
        }
        number -= 1;
    }
    for number in (1..=number).rev() {
        for (name, packed) in both(number) {
            // One that cannot be moved is overwritten by the next.
            let _ = fs::rename(name, aside(path, number + 1, packed));
        }
    }
}

fn open(path: &Path) -> io::Result<Current> {
    // Not blocking, for a name that is a pipe; that is refused below.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(PRIVATE_FILE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut last = [b'\n'];
    if let Some(end) = found.len().checked_sub(1) {
        file.read_at(&mut last, end)?;
    }
    Ok(Current {
        device: found.dev(),
        inode: found.ino(),
        length: found.len(),
        line_begins: last == [b'\n'],
        written_seconds: found.modified().map_or(0, seconds),
        file,
    })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
