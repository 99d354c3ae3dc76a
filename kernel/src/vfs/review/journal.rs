//! The plan of a commit on disk, and the point of no return.
//!
//! `journal/plan` is there before the first thing is made in the lower: a head, the steps, an end, each a line of JSON. `journal/committed` is
//! there once everything is staged: whoever finds only the plan undoes, whoever finds both completes. A plan without its end was never begun.

#![allow(clippy::disallowed_methods, reason = "files of the daemon's own, beside the upper")]

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ReviewError;
use super::plan::{STEPS_MAX, Step};

/// The directory, beside the upper.
pub const DIRECTORY: &str = "journal";

/// The plan in it.
const PLAN: &str = "plan";

/// Says that everything is staged.
const COMMITTED: &str = "committed";

/// Bytes of a line at most: two paths, escaped.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The form that is written.
const VERSION: u32 = 1;

/// The first line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The form of the lines.
    pub version: u32,
    /// Tells the temporaries of this commit from others.
    pub id: String,
    /// Device and inode of the lower's root.
    pub lower: (u64, u64),
    /// Whether nothing of the upper is left afterwards.
    pub whole: bool,
    /// Also over what changed meanwhile.
    pub force: bool,
}

impl Head {
    /// Of a new commit.
    #[must_use]
    pub fn new(id: String, lower: (u64, u64), whole: bool, force: bool) -> Self {
        Self {
            version: VERSION,
            id,
            lower,
            whole,
            force,
        }
    }

    /// The name of what waits for a step.
    #[must_use]
    pub fn temporary(&self, step: usize) -> String {
        format!(".astrid-commit-{}-{step}", self.id)
    }
}

#[derive(Serialize, Deserialize)]
struct End {
    end: usize,
}

/// A journal that is on disk.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
}

/// What a crash left of a commit.
#[derive(Debug)]
pub struct Found {
    /// The journal.
    pub journal: Journal,
    /// Its plan; `None` when the commit never began.
    pub plan: Option<(Head, Vec<Step>)>,
    /// Whether it must be completed.
    pub committed: bool,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ReviewError {
    let path = path.display().to_string();
    move |source| ReviewError::Io {
        action: "write",
        path,
        source,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl Journal {
    /// Writes a plan, in the directory of the overlay, and waits until it is on disk.
    ///
    /// # Errors
    /// The file system's. What was begun means nothing.
    pub fn begin(overlay: &Path, head: &Head, steps: &[Step]) -> Result<Self, ReviewError> {
        let directory = overlay.join(DIRECTORY);
        let write = || -> io::Result<()> {
            fs::create_dir(&directory)?;
            let mut file = BufWriter::new(File::create_new(directory.join(PLAN))?);
            let mut line = |json: serde_json::Result<String>| -> io::Result<()> {
                file.write_all(json?.as_bytes())?;
                file.write_all(b"\n")
            };
            line(serde_json::to_string(head))?;
            for step in steps {
                line(serde_json::to_string(step))?;
            }
            line(serde_json::to_string(&End { end: steps.len() }))?;
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            sync_directory(&directory)?;
            sync_directory(overlay)
        };
        write().map_err(io_error(&directory))?;
        Ok(Self { directory })
    }

    /// What is there of one.
    ///
    /// # Errors
    /// The file system's, and a plan that is not what was written.
    pub fn find(overlay: &Path) -> Result<Option<Found>, ReviewError> {
        let directory = overlay.join(DIRECTORY);
        if !directory.exists() {
            return Ok(None);
        }
        let committed = directory.join(COMMITTED).exists();
        let plan = read(&directory.join(PLAN))?;
        let journal = Self { directory };
        Ok(Some(Found {
            journal,
            plan,
            committed,
        }))
    }

    /// The point of no return.
    ///
    /// # Errors
    /// The file system's; then it is not passed.
    pub fn commit(&self, digest: &str) -> Result<(), ReviewError> {
        let path = self.directory.join(COMMITTED);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(digest.as_bytes())?;
            file.sync_all()?;
            sync_directory(&self.directory)
        };
        let written = write().map_err(io_error(&path));
        if written.is_err() {
            // Nobody may find half of it.
            fs::remove_file(&path).ok();
        }
        written
    }

    /// The commit is over. The plan goes first: a mark alone means nothing.
    ///
    /// # Errors
    /// The file system's.
    pub fn end(self) -> Result<(), ReviewError> {
        let end = || -> io::Result<()> {
            for name in [PLAN, COMMITTED] {
                match fs::remove_file(self.directory.join(name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                sync_directory(&self.directory)?;
            }
            fs::remove_dir(&self.directory)?;
            self.directory.parent().map_or(Ok(()), sync_directory)
        };
        end().map_err(io_error(&self.directory))
    }
}

/// A plan; `None` when it has no end.
fn read(path: &Path) -> Result<Option<(Head, Vec<Step>)>, ReviewError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(path)(error)),
    };
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    let mut next = || -> Result<Option<Vec<u8>>, ReviewError> {
        line.clear();
        lines
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .map_err(io_error(path))?;
        Ok(line.ends_with(b"\n").then(|| line.clone()))
    };
    let Some(first) = next()? else { return Ok(None) };
    let damaged = |what: &str| ReviewError::Journal(format!("{}: {what}", path.display()));
    let head: Head = serde_json::from_slice(&first).map_err(|_| damaged("its first line"))?;
    if head.version != VERSION {
        return Err(damaged("it was written by another version"));
    }
    let mut steps = Vec::new();
    while let Some(line) = next()? {
        if let Ok(End { end }) = serde_json::from_slice(&line) {
            return if end == steps.len() {
                Ok(Some((head, steps)))
            } else {
                Err(damaged("steps are missing"))
            };
        }
        if steps.len() >= STEPS_MAX {
            return Err(damaged("it has too many steps"));
        }
        steps.push(serde_json::from_slice(&line).map_err(|_| damaged("a step"))?);
    }
    Ok(None)
}
