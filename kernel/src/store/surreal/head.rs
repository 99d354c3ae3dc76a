//! The witness: how far the store was, written beside it.
//!
//! A log that lost its end looks like one that never had it. The number of the last commit that was sealed is therefore also kept in
//! a file of its own, and a store that ends before that is not taken for a whole one. It is written without a sync, after the store itself
//! is synced: it is never ahead, and outlives the process; after a power failure it may promise less than it could.
//!
//! Two slots are written in turn, so that whatever interrupts one leaves the other.

#![allow(clippy::disallowed_methods, reason = "this module owns the store's file `head`")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::home::PRIVATE_FILE;

const NAME: &str = "head";

/// A slot is alone in its sector.
const SLOT_BYTES: u64 = 512;

/// The number, and as much of a checksum.
const RECORD_BYTES: usize = 16;

type Record = [u8; RECORD_BYTES];

/// The open file.
#[derive(Debug)]
pub(super) struct Head {
    file: File,
    next_slot: u64,
}

/// What is in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Everything up to here was sealed; nothing was, or nobody knows: 0.
    Upto(u64),
    /// Something that nobody wrote.
    Unreadable,
}

fn record(sequence: u64) -> Record {
    let number = sequence.to_be_bytes();
    let sum = blake3::hash(&number);
    let mut record = Record::default();
    record[..8].copy_from_slice(&number);
    record[8..].copy_from_slice(&sum.as_bytes()[..8]);
    record
}

fn sequence(found: &Record) -> Option<u64> {
    let number = u64::from_be_bytes(found[..8].try_into().ok()?);
    (*found == record(number)).then_some(number)
}

impl Head {
    /// Opens the file of a directory, or makes it, and tells what it says.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Noted)> {
        let path = directory.join(NAME);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(path)?;
        let mut slots = [Record::default(); 2];
        for (n, slot) in slots.iter_mut().enumerate() {
            // What is not there yet stays zero.
            let mut read = 0;
            while read < RECORD_BYTES {
                match file.read_at(&mut slot[read..], n as u64 * SLOT_BYTES + read as u64)? {
                    0 => break,
                    bytes => read += bytes,
                }
            }
        }
        let found = slots.map(|slot| sequence(&slot));
        let blank = slots.iter().all(|slot| *slot == Record::default());
        let noted = match found.into_iter().flatten().max() {
            Some(sequence) => Noted::Upto(sequence),
            None if blank => Noted::Upto(0),
            None => Noted::Unreadable,
        };
        let next_slot = u64::from(found[0] >= found[1]);
        Ok((Self { file, next_slot }, noted))
    }

    /// Notes how far the store is.
    pub(super) fn note(&mut self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&record(sequence), self.next_slot * SLOT_BYTES)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }

    /// Waits until it is on disk: for copies, which nothing else vouches for.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Whatever one write leaves behind, the number before it is still known.
    #[test]
    fn one_slot_outlives_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let noted = || Head::open(directory.path()).unwrap().1;
        assert_eq!(noted(), Noted::Upto(0));
        for sequence in [1, 2, 3, 7] {
            let (mut head, _) = Head::open(directory.path()).unwrap();
            head.note(sequence).unwrap();
            assert_eq!(noted(), Noted::Upto(sequence));
        }
        let (mut head, _) = Head::open(directory.path()).unwrap();
        head.note(8).unwrap();
        head.note(9).unwrap();
        let file = OpenOptions::new()
            .write(true)
            .open(directory.path().join(NAME))
            .unwrap();
        let last = 1 - head.next_slot;
        file.write_all_at(&[0xff], last * SLOT_BYTES + 3).unwrap();
        assert_eq!(noted(), Noted::Upto(8));
        file.write_all_at(&[0xff], head.next_slot * SLOT_BYTES + 12).unwrap();
        assert_eq!(noted(), Noted::Unreadable);
        file.set_len(0).unwrap();
        assert_eq!(noted(), Noted::Upto(0));
    }
}
