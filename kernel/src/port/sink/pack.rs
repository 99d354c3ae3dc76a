//! Compresses rotated files, one at a time, on a thread of low priority that exists only while there is something to do.
//!
//! A file is compressed under another name and then takes its place, so that a reader finds one or the other, whole, whatever
//! kills this process when; what a killed one left is overwritten by the next. What is to be done is seen from the names in the
//! directory, newest first: under a flood the oldest are deleted sooner than they could be compressed.

#![allow(clippy::disallowed_methods, reason = "this module owns the compressed log files")]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use super::file::aside;
use crate::home::PRIVATE_FILE;

/// Added to the niceness: compressing is for idle moments.
const NICENESS: i32 = 10;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes of the thread's stack; the compressor's state is on the heap.
const STACK_BYTES: usize = 256 << 10;

/// One log file whose rotated ones are to be compressed.
#[derive(Debug)]
struct Job {
    path: PathBuf,
    keep: u32,
}

#[derive(Debug, Default)]
struct State {
    /// At most one for each log file.
    jobs: VecDeque<Job>,
    /// The job that is worked on, and whether its file was rotated meanwhile.
    busy: Option<PathBuf>,
    again: bool,
    thread: Option<JoinHandle<()>>,
}

/// What is to be compressed, and the thread that does it.
#[derive(Debug, Default)]
pub(super) struct Packer {
    /// Held by whoever gives rotated files other names. One for all: it is held for some renames.
    pub(super) names: Mutex<()>,
    state: Mutex<State>,
    stopped: AtomicBool,
}

impl Packer {
    /// Has the rotated files of this one compressed, soon.
    pub(super) fn pack(self: &Arc<Self>, path: &Path, keep: u32) {
        let mut state = self.state.lock();
        if state.busy.as_deref() == Some(path) {
            state.again = true;
            return;
        }
        if self.stopped.load(Ordering::Relaxed) {
            return;
        }
        if state.jobs.iter().all(|job| job.path != path) {
            state.jobs.push_back(Job {
                path: path.to_owned(),
                keep,
            });
        }
        if state.busy.is_none() && state.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            let packer = Arc::clone(self);
            let builder = Builder::new().name("sinks-pack".to_owned()).stack_size(STACK_BYTES);
            // Without a thread the files stay as they are, and the next rotation tries again.
            state.thread = builder.spawn(move || packer.run()).ok();
        }
    }

    /// Ends the thread, and waits for it: at most for one piece of a file.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread {
            // Its panic is its own.
            let _ = thread.join();
        }
    }

    /// Waits until everything is compressed.
    #[cfg(test)]
    pub(super) fn idle(&self) {
        let thread = self.state.lock().thread.take();
        if let Some(thread) = thread {
            thread.join().ok();
        }
    }

    fn run(&self) {
        // Of this thread only. Where it is refused, compressing is as important as the rest.
        let _ = rustix::process::nice(NICENESS);
        let mut job: Option<Job> = None;
        loop {
            {
                let mut state = self.state.lock();
                if !std::mem::take(&mut state.again) {
                    job = state.jobs.pop_front();
                }
                state.busy = job.as_ref().map(|job| job.path.clone());
                if self.stopped.load(Ordering::Relaxed) {
                    state.busy = None;
                    job = None;
                }
                if job.is_none() {
                    // Under the lock: who comes after this starts another thread.
                    state.thread = None;
                    return;
                }
            }
            if let Some(job) = &job
                && let Err(error) = self.work(job)
            {
                tracing::warn!(path = %job.path.display(), %error, "a log file was not compressed");
            }
        }
    }

    fn work(&self, job: &Job) -> io::Result<()> {
        while !self.stopped.load(Ordering::Relaxed) {
            let guard = self.names.lock();
            let found = (1..=job.keep).map(|number| (number, aside(&job.path, number, false)));
            let Some((_, name)) = found
                .take_while(|(number, name)| taken(job, *number, name))
                .find(|(_, name)| name.exists())
            else {
                return Ok(());
            };
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(name)?;
            drop(guard);
            let temporary = temporary(&job.path);
            let packed = self.compress(&file, &temporary).and_then(|whole| {
                let _guard = self.names.lock();
                if whole {
                    replace(job, &file, &temporary)
                } else {
                    fs::remove_file(&temporary)
                }
            });
            if packed.is_err() {
                // What was written of it is of no use to anybody.
                let _ = fs::remove_file(&temporary);
            }
            packed?;
        }
        Ok(())
    }

    /// False when it was stopped on the way.
    fn compress(&self, mut file: &File, temporary: &Path) -> io::Result<bool> {
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PRIVATE_FILE)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(temporary)?;
        let mut encoder = GzEncoder::new(written, Compression::default());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return Ok(false);
            }
            match file.read(&mut buffer)? {
                0 => break,
                read => encoder.write_all(&buffer[..read])?,
            }
        }
        // On disk before the original goes.
        encoder.finish()?.sync_all()?;
        Ok(true)
    }
}

fn taken(job: &Job, number: u32, name: &Path) -> bool {
    name.exists() || aside(&job.path, number, true).exists()
}

/// `.NAME.packing`, one for each log file.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".packing");
    path.with_file_name(name)
}

/// Puts the compressed file in the place that the original has by now. One that has none any more was the oldest.
fn replace(job: &Job, file: &File, temporary: &Path) -> io::Result<()> {
    let original = file.metadata()?;
    for number in 1..=job.keep {
        let name = aside(&job.path, number, false);
        let same = |found: fs::Metadata| (found.dev(), found.ino()) == (original.dev(), original.ino());
        if fs::symlink_metadata(&name).is_ok_and(same) {
            fs::rename(temporary, aside(&job.path, number, true))?;
            return fs::remove_file(name);
        }
    }
    fs::remove_file(temporary)
}
