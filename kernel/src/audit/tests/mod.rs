//! Tests of the audit log: K13, and K22 as far as it is about its key.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attack;
mod bytes;
mod life;
mod prune;
mod tamper;

use std::path::{Path, PathBuf};

use super::verify::verify;
use super::*;

/// A log of its own.
pub(super) struct Log {
    _directory: tempfile::TempDir,
    pub(super) home: Home,
}

impl Log {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        Self {
            _directory: directory,
            home,
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.home.audit_dir()
    }

    pub(super) fn open_with(&self, segment_bytes: u64) -> (Audit, Report) {
        let options = AuditOptions {
            segment_bytes,
            ..AuditOptions::default()
        };
        Audit::open(&self.home, options).unwrap()
    }

    pub(super) fn open(&self) -> (Audit, Report) {
        self.open_with(SEGMENT_BYTES)
    }

    pub(super) fn key(&self) -> PublicKey {
        key_beside(&self.dir()).unwrap()
    }

    pub(super) fn verify(&self) -> Report {
        verify(&self.dir(), Some(&self.key())).unwrap()
    }
}

pub(super) fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(work)
}

pub(super) fn entry(n: u64) -> Entry {
    let principal = ["ada", "grace", "capsule:notes"][n as usize % 3];
    Entry::new(Kind::Decision, principal, "publish")
        .capsule("notes")
        .resource("notes.v1.add")
        .detail(&format!("n={n}"))
}

/// A log of several segments, each with several batches, closed in order.
pub(super) fn filled(segment_bytes: u64, batches: u64) -> Log {
    let log = Log::new();
    let (audit, report) = log.open_with(segment_bytes);
    assert!(report.is_ok());
    block(async {
        for batch in 0..batches {
            for n in 0..=batch % 3 {
                audit.write(entry(batch + n)).unwrap();
            }
            audit.seal(entry(batch)).await.unwrap();
        }
        audit.stop().await;
    });
    log
}

pub(super) fn copy_of(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}
