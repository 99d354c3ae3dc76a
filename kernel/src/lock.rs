//! One daemon per home (K1).
//!
//! The lock is `flock` on an open file, so that it is held exactly as long as the daemon lives: the system frees it
//! whatever ended the process. `run/astrid.lock` is locked and says who holds it; the home directory is locked too,
//! because a lock file can be deleted under its holder, and whoever came next would lock a new one. (A file system
//! that cannot lock directories, as NFS, leaves the file alone to do it.)
//!
//! A pid is written with the process's start time, and believed only while both are true of a live process: what a
//! killed holder left names nobody.
//!
//! Deliberately absent: waiting for the lock. Who finds it held has somebody to talk to.

#![allow(
    clippy::disallowed_methods,
    reason = "this module owns the lock file; and nothing tells when a lock that cannot be waited for is free"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::home::{Home, PRIVATE_FILE};

/// How often a lock that is held is tried again before that is believed: somebody who only looks ([`holder`]) holds
/// it for an instant.
const TRIES: u32 = 5;

/// Between tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Bytes of a lock file that are read; two numbers need fewer.
const CONTENT_BYTES_MAX: u64 = 64;

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its process id. Nothing when it cannot be seen from here (another container), or its lock file was deleted.
    pub pid: Option<u32>,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon serves this home.
    #[error("a daemon runs already in this home{}", .0.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held(Holder),
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

impl LockError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            LockError::Held(_) => "`astrid status` asks it, `astrid stop` ends it".to_owned(),
            LockError::Io { path, .. } => format!(
                "see that {} can be written, on a file system that can lock",
                path.display()
            ),
        }
    }
}

/// The proof that this process is the home's one daemon; freed when dropped.
#[derive(Debug)]
pub struct Lock {
    /// `run/astrid.lock`.
    file: File,
    /// The home directory, where it can be locked.
    directory: Option<File>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing does not free it while a child that is just being made has a copy of the descriptor.
        for file in self.directory.iter().chain([&self.file]) {
            let _ = flock(file, FlockOperation::NonBlockingUnlock);
        }
    }
}

impl Lock {
    /// Takes the lock, and writes into its file who has it. Nothing of the home but the lock file may be written
    /// before.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] names who has it; [`LockError::Io`].
    pub fn acquire(home: &Home) -> Result<Lock, LockError> {
        let held = || LockError::Held(holder(home).unwrap_or(Holder { pid: None }));
        let directory = lock_directory(home, FlockOperation::NonBlockingLockExclusive)?;
        let directory = match directory {
            Taken::Yes(directory) => Some(directory),
            Taken::Impossible => None,
            Taken::Held => return Err(held()),
        };
        let path = home.lock_file();
        let io = |action| {
            move |source| LockError::Io {
                action,
                path: home.lock_file(),
                source,
            }
        };
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(PRIVATE_FILE)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(io("open"))?;
            match take(&file, FlockOperation::NonBlockingLockExclusive).map_err(io("lock"))? {
                Taken::Yes(()) => {}
                Taken::Held => return Err(held()),
                Taken::Impossible => return Err(io("lock")(io::ErrorKind::Unsupported.into())),
            }
            // The name may have been given to another file between opening and locking; then somebody else may hold
            // that one.
            if !is_at(&file, &path) {
                continue;
            }
            file.set_len(0).map_err(io("write"))?;
            file.write_all(this_process().as_bytes()).map_err(io("write"))?;
            return Ok(Lock { file, directory });
        }
    }
}

/// Who holds the home's lock, if anybody does, without taking it.
#[must_use]
pub fn holder(home: &Home) -> Option<Holder> {
    for again in (0..TRIES).rev() {
        let (held, content) = look(home);
        if !held {
            return None;
        }
        if let Some(pid) = content.as_deref().and_then(live) {
            return Some(Holder { pid: Some(pid) });
        }
        // It may have been taken just now, and not be written yet.
        if again > 0 {
            thread::sleep(TRY_AGAIN_AFTER);
        }
    }
    // The file is gone or says nothing: the operating system knows who locked the directory.
    Some(Holder {
        pid: locker_of_directory(home),
    })
}

/// Which process has locked the home's directory, by `/proc/locks` (proc(5)): lines of
/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`. None where that is not mounted, or the process is not of this namespace.
fn locker_of_directory(home: &Home) -> Option<u32> {
    let directory = fs::metadata(home.root()).ok()?;
    let (major, minor) = (rustix::fs::major(directory.dev()), rustix::fs::minor(directory.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", directory.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let exclusive = words.next() == Some("FLOCK") && words.next().is_some() && words.next() == Some("WRITE");
        let pid = words.next()?.parse().ok().filter(|pid| *pid != 0)?;
        (exclusive && words.next() == Some(&place)).then_some(pid)
    })
}

/// Whether somebody holds the lock, and what is written in its file.
fn look(home: &Home) -> (bool, Option<String>) {
    let mut content = String::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(home.lock_file());
    // A shared lock: two that look do not see each other, and a daemon that starts tries more than once.
    let mut held = false;
    if let Ok(file) = &file {
        held = matches!(
            flock(file, FlockOperation::NonBlockingLockShared),
            Err(Errno::WOULDBLOCK)
        );
        let _ = file.take(CONTENT_BYTES_MAX).read_to_string(&mut content);
    }
    drop(file); // Frees it.
    held = held
        || File::open(home.root()).is_ok_and(|home| {
            matches!(
                flock(home, FlockOperation::NonBlockingLockShared),
                Err(Errno::WOULDBLOCK)
            )
        });
    (held, Some(content).filter(|content| !content.is_empty()))
}

/// What came of trying to take a lock.
enum Taken<T> {
    Yes(T),
    Held,
    /// This file system cannot lock that.
    Impossible,
}

fn take(file: &File, operation: FlockOperation) -> io::Result<Taken<()>> {
    for again in (0..TRIES).rev() {
        match flock(file, operation) {
            Ok(()) => return Ok(Taken::Yes(())),
            Err(Errno::WOULDBLOCK) if again > 0 => thread::sleep(TRY_AGAIN_AFTER),
            Err(Errno::WOULDBLOCK) => break,
            Err(Errno::INTR) => {}
            Err(Errno::BADF | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOLCK | Errno::NOSYS) => {
                return Ok(Taken::Impossible);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Taken::Held)
}

fn lock_directory(home: &Home, operation: FlockOperation) -> Result<Taken<File>, LockError> {
    let io = |action| {
        move |source| LockError::Io {
            action,
            path: home.root().to_path_buf(),
            source,
        }
    };
    let directory = File::open(home.root()).map_err(io("open"))?;
    Ok(match take(&directory, operation).map_err(io("lock"))? {
        Taken::Yes(()) => Taken::Yes(directory),
        Taken::Held => Taken::Held,
        Taken::Impossible => Taken::Impossible,
    })
}

/// Whether that open file is the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(opened), Ok(named)) => (opened.dev(), opened.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// What this process writes: its pid and start time.
fn this_process() -> String {
    let pid = std::process::id();
    format!("{pid} {}\n", start_time(pid).unwrap_or(0))
}

/// The pid in a lock file, if the process it was written by is alive.
fn live(content: &str) -> Option<u32> {
    let (pid, started) = content.trim_end().split_once(' ')?;
    let pid = pid.parse().ok().filter(|pid| *pid != 0)?;
    let started: u64 = started.parse().ok()?;
    // Where /proc is not mounted no start time can be had, when writing as when reading.
    (start_time(pid).unwrap_or(0) == started).then_some(pid)
}

/// When a process started, in clock ticks since the machine did: with the pid, its identity.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything; the twenty-second is the start time.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::{Arc, Barrier};

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        (directory, home)
    }

    fn this() -> Holder {
        Holder {
            pid: Some(std::process::id()),
        }
    }

    /// K1: the second is told who holds it; dropped (as by a kill, the file closes) it is free.
    #[test]
    fn a_second_one_is_told_who_has_it() {
        let (_directory, home) = home();
        assert_eq!(holder(&home), None);
        let lock = Lock::acquire(&home).unwrap();
        assert_eq!(holder(&home), Some(this()));
        assert!(matches!(Lock::acquire(&home), Err(LockError::Held(by)) if by == this()));
        drop(lock);
        assert_eq!(holder(&home), None);
        Lock::acquire(&home).unwrap();
    }

    /// K1: whatever is unlinked under a live holder, there is no second one.
    /// K1: a file that is gone frees nothing, and the holder can still be named, so that it can be stopped.
    #[test]
    fn an_unlinked_file_frees_nothing() {
        let (_directory, home) = home();
        let _lock = Lock::acquire(&home).unwrap();
        fs::remove_file(home.lock_file()).unwrap();
        assert_eq!(holder(&home), Some(this()));
        assert!(matches!(Lock::acquire(&home), Err(LockError::Held(holder)) if holder == this()));
        fs::remove_dir_all(home.run_dir()).unwrap();
        home.create().unwrap();
        assert!(matches!(Lock::acquire(&home), Err(LockError::Held(_))));
    }

    #[test]
    fn what_a_killed_holder_left_names_nobody() {
        let (_directory, home) = home();
        // Process 1 lives, but did not start at that time.
        fs::write(home.lock_file(), "1 999999999999\n").unwrap();
        assert_eq!(holder(&home), None);
        let _lock = Lock::acquire(&home).unwrap();
        assert_eq!(holder(&home), Some(this()));
        for content in ["", "x", "0 0\n", "4294967295 1\n", "1 999999999999\n"] {
            assert_eq!(live(content), None, "{content:?}");
        }
    }

    /// K1: of many at once exactly one gets it, while others keep looking.
    #[test]
    fn of_many_at_once_one_gets_it() {
        let (_directory, home) = home();
        let (threads, home) = (8, Arc::new(home));
        for _ in 0..20 {
            let barrier = Arc::new(Barrier::new(threads));
            let tries: Vec<_> = (0..threads)
                .map(|_| {
                    let (home, barrier) = (Arc::clone(&home), Arc::clone(&barrier));
                    thread::spawn(move || {
                        barrier.wait();
                        let lock = Lock::acquire(&home);
                        let _ = holder(&home);
                        barrier.wait(); // Nobody lets go before everybody tried.
                        lock.is_ok()
                    })
                })
                .collect();
            let got = tries
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .filter(|got| *got)
                .count();
            assert_eq!(got, 1);
        }
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let (directory, home) = home();
        let target = directory.path().join("target");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, home.lock_file()).unwrap();
        assert!(matches!(Lock::acquire(&home), Err(LockError::Io { .. })));
        assert_eq!(fs::read_to_string(target).unwrap(), "precious");
    }
}
