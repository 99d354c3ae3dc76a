//! The last lines of a log file, read from its end, and on into the files it was rotated to, compressed ones too.
//!
//! It reads a file that is being written and rotated. Each file is opened once and recognised by its identity, so that one which takes
//! another name meanwhile is not read twice.

#![allow(clippy::disallowed_methods, reason = "this module reads the log files of children")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::file::{FILES_KEPT_MAX, aside};

/// Lines of one tail at most.
pub const TAIL_LINES_MAX: usize = 10_000;

/// Bytes of one tail at most.
pub const TAIL_BYTES_MAX: usize = 1 << 20;

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 64 << 10;

/// Bytes that one compressed file is read up to. A larger one ends the tail: it would take seconds to get to its end.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;

/// Why there is no tail.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// There is no such file.
    #[error("there is no log file {}", .path.display())]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The last lines of this file, oldest first: at most `lines` and `bytes`, and never more than [`TAIL_LINES_MAX`] and
/// [`TAIL_BYTES_MAX`]. Whole lines, unless one alone is longer than that; then its end. What stands after the last line end counts as a line.
///
/// It reads files, so it belongs where waiting for a disk does no harm.
///
/// # Errors
/// [`TailError`]; a rotated file that cannot be read only ends the tail there.
pub fn tail(path: &Path, lines: usize, bytes: usize) -> Result<Vec<u8>, TailError> {
    let mut tail = Tail {
        lines: lines.min(TAIL_LINES_MAX),
        bytes: bytes.min(TAIL_BYTES_MAX),
        found: Vec::new(),
    };
    let (mut identity, mut complete) = (None, false);
    for number in 0..=FILES_KEPT_MAX {
        let result = if number == 0 {
            open(path)
        } else {
            open(&aside(path, number, false))
        };
        let result = result.and_then(|file| {
            let now = file.metadata()?;
            let now = (now.dev(), now.ino());
            if identity.replace(now) == Some(now) {
                Ok(false)
            } else {
                tail.add_file(&file)
            }
        });
        match result {
            Ok(done) => complete = done,
            Err(error) if number > 0 && error.kind() == io::ErrorKind::NotFound => {
                match open(&aside(path, number, true)).and_then(|file| tail.add_packed(file)) {
                    Ok(done) => complete = done,
                    Err(_) => break,
                }
            }
            // The writer is between two files.
            Err(error) if error.kind() == io::ErrorKind::NotFound && open(&aside(path, 1, false)).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(TailError::NotFound { path: path.to_owned() });
            }
            Err(source) if number == 0 => {
                return Err(TailError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
            Err(_) => break,
        }
        if complete {
            break;
        }
    }
    Ok(tail.finish())
}

fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// What was found so far, in blocks, the last one first.
struct Tail {
    lines: usize,
    bytes: usize,
    found: Vec<Vec<u8>>,
}

impl Tail {
    /// True when nothing before this is needed.
    fn complete(&self) -> bool {
        // One line end is that of the last line, and one more is where the first line begins.
        self.length() > self.bytes || self.line_ends() > self.lines || self.lines == 0
    }

    fn length(&self) -> usize {
        self.found.iter().map(Vec::len).sum()
    }

    fn line_ends(&self) -> usize {
        let unfinished = self
            .found
            .iter()
            .find_map(|block| block.last())
            .is_some_and(|last| *last != b'\n');
        let ends = |block: &Vec<u8>| block.iter().filter(|byte| **byte == b'\n').count();
        self.found.iter().map(ends).sum::<usize>() + usize::from(unfinished)
    }

    fn add_file(&mut self, file: &File) -> io::Result<bool> {
        let mut at = file.metadata()?.len();
        while at > 0 && !self.complete() {
            let size = at.min(BLOCK_BYTES as u64);
            at -= size;
            let mut block = vec![0; size as usize];
            match file.read_exact_at(&mut block, at) {
                Ok(()) => self.found.push(block),
                // It was emptied meanwhile.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.complete())
    }

    /// A compressed file can only be read forwards; its end is kept.
    fn add_packed(&mut self, file: File) -> io::Result<bool> {
        let mut unpacked = GzDecoder::new(file).take(UNPACKED_BYTES_MAX + 1);
        let (mut end, mut total) = (Vec::new(), 0);
        let mut buffer = vec![0; BLOCK_BYTES];
        loop {
            let read = unpacked.read(&mut buffer)?;
            total += read as u64;
            if read == 0 {
                break;
            }
            end.extend_from_slice(&buffer[..read]);
            if end.len() > 2 * TAIL_BYTES_MAX {
                end.drain(..end.len() - TAIL_BYTES_MAX - 1);
            }
        }
        if total > UNPACKED_BYTES_MAX {
            return Ok(true);
        }
        self.found.push(end);
        Ok(self.complete())
    }

    fn finish(mut self) -> Vec<u8> {
        self.found.reverse();
        let whole = self.found.concat();
        let ends: Vec<usize> = whole
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1)
            .collect();
        let unfinished = ends.last().copied().unwrap_or(0) < whole.len();
        // Where lines begin: at the start and after each line end but one that is the end of all.
        let mut begins = ends;
        begins.insert(0, 0);
        if !unfinished {
            begins.pop();
        }
        let first = begins.len().saturating_sub(self.lines);
        let earliest = whole.len().saturating_sub(self.bytes);
        let from = match begins[first..].iter().find(|begin| **begin >= earliest) {
            _ if self.lines == 0 => whole.len(),
            Some(begin) => *begin,
            None => earliest,
        };
        whole[from..].to_vec()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// What stands in these files, oldest first, as if it were one.
    fn expected(files: &[Vec<u8>], lines: usize, bytes: usize) -> Vec<u8> {
        let whole = files.concat();
        let mut all: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let last = all.split_off(all.len().saturating_sub(lines));
        let mut taken: Vec<u8> = Vec::new();
        for line in last.iter().rev() {
            if taken.len() + line.len() > bytes {
                if taken.is_empty() {
                    taken = line[line.len() - bytes..].to_vec();
                }
                break;
            }
            taken.splice(0..0, line.iter().copied());
        }
        taken
    }

    proptest! {
        /// A16: `logs -n` gives the last lines, wherever they were rotated to.
        #[test]
        fn a_tail_is_the_end_of_all_files(
            files in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'x')], 0..60), 1..5),
            packed in prop::collection::vec(any::<bool>(), 5),
            lines in 0..40_usize,
            bytes in 1..100_usize,
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("out.log");
            for (number, bytes) in files.iter().rev().enumerate() {
                let number = number as u32;
                if number == 0 {
                    fs::write(&path, bytes).unwrap();
                } else if packed[number as usize] {
                    let file = File::create(aside(&path, number, true)).unwrap();
                    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
                    encoder.write_all(bytes).unwrap();
                    encoder.finish().unwrap();
                } else {
                    fs::write(aside(&path, number, false), bytes).unwrap();
                }
            }
            prop_assert_eq!(tail(&path, lines, bytes).unwrap(), expected(&files, lines, bytes));
        }
    }

    #[test]
    fn a_tail_is_bounded_whatever_is_asked_and_whatever_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.log");
        fs::write(&path, "12345678\n".repeat(300_000)).unwrap();
        assert_eq!(tail(&path, usize::MAX, usize::MAX).unwrap().len(), 9 * TAIL_LINES_MAX);
        fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        assert_eq!(tail(&path, usize::MAX, usize::MAX).unwrap().len(), TAIL_BYTES_MAX);
    }

    #[test]
    fn what_is_not_a_log_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.log");
        assert!(matches!(tail(&path, 1, 1), Err(TailError::NotFound { .. })));
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(tail(&path, 1, 1), Err(TailError::Read { .. })));
        assert!(matches!(tail(directory.path(), 1, 1), Err(TailError::Read { .. })));
    }
}
