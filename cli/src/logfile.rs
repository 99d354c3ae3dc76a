//! Files that grow by lines: their last lines, and what is added, across rotation and truncation. Waits for the file system's
//! word, never polls; memory does not follow what was written.

#![allow(clippy::disallowed_methods, reason = "reads logs")]

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;

use crate::failure::Failure;
use crate::output::{Closed, Output};
use crate::process;

/// How much is read at once, from either end.
const BLOCK_BYTES: u64 = 64 * 1024;

/// A line longer than this is shown in parts: memory does not follow what was written.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The log file, read up to somewhere.
pub(crate) struct Log {
    file: File,
    inode: u64,
    position: u64,
    partial: Vec<u8>,
}

impl Log {
    /// Opens it at its start; none if there is none.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        // Who opens a pipe waits for somebody who writes to it.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => {
                let found = file.metadata()?;
                if !found.is_file() {
                    anyhow::bail!("{} is not a file", path.display());
                }
                Ok(Some(Self {
                    file,
                    inode: found.ino(),
                    position: 0,
                    partial: Vec::new(),
                }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        }
    }

    /// Whether it is still the file of that name.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Goes to where that many lines are left, reading backwards. How many lines were missing.
    pub(crate) fn skip_to_last(&mut self, lines: u64) -> anyhow::Result<u64> {
        let end = self.file.metadata()?.len();
        let mut start = end;
        let mut wanted = lines;
        let mut buffer = vec![0; usize::try_from(BLOCK_BYTES)?];
        self.position = if lines == 0 { end } else { 0 };
        while start > 0 && wanted > 0 {
            let length = start.min(BLOCK_BYTES);
            start -= length;
            let block = &mut buffer[..usize::try_from(length)?];
            self.file.seek(SeekFrom::Start(start))?;
            self.file
                .read_exact(block)
                .context("the log changed while it was read; try again")?;
            for (index, byte) in block.iter().enumerate().rev() {
                let after = start + index as u64 + 1;
                // The newline that ends the last line begins none.
                if *byte == b'\n' && after < end {
                    wanted -= 1;
                    if wanted == 0 {
                        self.position = after;
                        break;
                    }
                }
            }
        }
        // Nothing ends the line before the first one.
        let reached = wanted > 0 && end > 0;
        Ok(wanted - u64::from(reached))
    }

    /// Prints the whole lines from here to the end.
    pub(crate) fn print_added(&mut self, shown_as: impl Fn(&[u8]) -> String) -> anyhow::Result<()> {
        if self.file.metadata()?.len() < self.position {
            // It was truncated: what follows is new.
            self.position = 0;
            self.partial.clear();
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut buffer = vec![0; usize::try_from(BLOCK_BYTES)?];
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.position += read as u64;
            let mut shown = String::new();
            for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                self.partial.extend_from_slice(part);
                if part.ends_with(b"\n") || self.partial.len() > LINE_BYTES_MAX {
                    shown.push_str(&shown_as(&self.partial));
                    self.partial.clear();
                }
            }
            Output::bytes(shown.as_bytes())?;
        }
    }

    /// Prints the last line even if it was not ended.
    pub(crate) fn finish(&mut self, shown_as: impl Fn(&[u8]) -> String) -> anyhow::Result<()> {
        if self.partial.is_empty() {
            return Ok(());
        }
        Output::bytes(shown_as(&std::mem::take(&mut self.partial)).as_bytes())
    }
}

/// Tells when logs, or the directories they are in, change.
pub(crate) struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    /// Watches the directories of these files.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Self> {
        use inotify::{CreateFlags, WatchFlags};
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        // A directory that is watched twice is watched once.
        for path in paths {
            let directory = path.parent().unwrap_or(Path::new("/"));
            inotify::add_watch(&inotify, directory, changes).map_err(|error| {
                let failure = Failure::failed(format!("cannot follow {}", directory.display())).source(error);
                failure.hint("the daemon makes the directory when it starts")
            })?;
        }
        Ok(Self { inotify })
    }

    /// Waits for a change, or until nobody reads stdout any more.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        let stdout = std::io::stdout();
        let mut fds = [
            PollFd::new(&self.inotify, PollFlags::IN),
            PollFd::new(&stdout, PollFlags::empty()),
        ];
        process::wait(&mut fds, None)?;
        if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Closed.into());
        }
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error).context("cannot follow the log"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn last(text: &str, lines: u64) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let mut log = Log::open(file.path()).unwrap().unwrap();
        log.skip_to_last(lines).unwrap();
        text[usize::try_from(log.position).unwrap()..].to_owned()
    }

    #[test]
    fn what_is_no_file_is_told_and_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        for path in [&pipe, place.path()] {
            let refused = Log::open(path).err().unwrap();
            assert!(refused.to_string().ends_with("is not a file"));
        }
        assert!(Log::open(&place.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last("a\nb\nc", 2), "b\nc");
        assert_eq!(last("a\nb\n", 9), "a\nb\n");
        assert_eq!(last("a\nb\n", 0), "");
        assert_eq!(last("", 3), "");
        assert_eq!(last("\n\n\n", 1), "\n");
        let long = "x".repeat(200_000);
        assert_eq!(last(&format!("{long}\n{long}\ny\n"), 2), format!("{long}\ny\n"));
    }

    #[test]
    fn missing_lines_are_counted() {
        for (text, wanted, missing) in [
            ("a\nb\n", 2, 0),
            ("a\nb\n", 5, 3),
            ("a", 1, 0),
            ("", 3, 3),
            ("a\nb", 1, 0),
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            let mut log = Log::open(file.path()).unwrap().unwrap();
            assert_eq!(log.skip_to_last(wanted).unwrap(), missing, "{text:?} {wanted}");
        }
    }
}
