//! The audit log: bytes of its files that somebody else made or changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use astrid_kernel::audit::query::{self, Filter};
use astrid_kernel::audit::verify::{FINDINGS_MAX, UNKNOWN_MAX};
use astrid_kernel::audit::{Audit, AuditOptions, Entry, Kind, Outcome, PublicKey, Report, key_beside, verify};
use astrid_kernel::home::Home;
use tempfile::TempDir;

/// Bytes of a segment, so that a small log has several.
const SEGMENT_BYTES: u64 = 900;

/// A log whose daemon has ended, and a copy of it that is changed.
pub(crate) struct Log {
    _root: TempDir,
    copy: PathBuf,
    key: PublicKey,
    /// Names and contents.
    files: Vec<(String, Vec<u8>)>,
}

fn read(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap());
    let mut files: Vec<_> = files
        .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Of segments and the head: what a third party is given.
fn is_evidence(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "seg") || name == "head"
}

impl Log {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&root.path().join("h"))).unwrap();
        home.create().unwrap();
        let options = AuditOptions {
            segment_bytes: SEGMENT_BYTES,
            ..AuditOptions::default()
        };
        let (audit, _) = Audit::open(&home, options).unwrap();
        for n in 0..4 {
            let say = |kind| Entry::new(kind, ["ada", "grace"][n % 2], "child.spawn").resource("/bin/true");
            audit.write(say(Kind::Decision)).unwrap();
            let intent = audit.seal(say(Kind::Spawn).intent()).wait().unwrap();
            if n > 0 {
                let outcome = Entry::outcome_of(intent, "ada", "child.spawn", Outcome::Done);
                let _ = audit.seal(outcome).wait().unwrap();
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(audit.stop());
        let key = key_beside(&home.audit_dir()).unwrap();
        let copy = root.path().join("copy");
        query::copy(&home.audit_dir(), &copy).unwrap();
        let mut files = read(&copy);
        files.retain(|(name, _)| is_evidence(name));
        let log = Self {
            _root: root,
            copy,
            key,
            files,
        };
        let report = log.verify();
        assert!(
            report.is_ok() && report.segments >= 3 && report.torn_bytes == 0,
            "{report:?}"
        );
        log
    }

    fn verify(&self) -> Report {
        let report = verify::verify(&self.copy, Some(&self.key)).unwrap();
        assert!(report.findings.len() <= FINDINGS_MAX && report.unknown_outcomes.len() <= UNKNOWN_MAX);
        for finding in &report.findings {
            let said = finding.to_string();
            assert!(said.len() < 1000 && !said.chars().any(char::is_control), "{said:?}");
        }
        report
    }

    /// Everything that reads a log, while one file has these bytes.
    fn with(&self, file: usize, bytes: &[u8], readers: bool) -> Report {
        let (name, original) = &self.files[file];
        fs::write(self.copy.join(name), bytes).unwrap();
        let report = self.verify();
        if readers {
            self.readers();
        }
        fs::write(self.copy.join(name), original).unwrap();
        report
    }

    fn readers(&self) {
        // That a file cannot be understood is an answer too.
        let all = Filter::default();
        drop(query::tail(&self.copy, 1000, &all));
        drop(query::show(&self.copy, 5));
        drop(query::stats(&self.copy));
        let mut count = 0_u64;
        let exported = query::export(&self.copy, &all, &mut |entry| {
            let texts = [
                entry.principal,
                entry.capsule,
                entry.action,
                entry.resource,
                entry.detail,
            ];
            assert!(texts.iter().all(|text| !text.chars().any(char::is_control)));
            count += 1;
            true
        });
        drop(exported);
        assert!(count < 10_000);
    }
}

/// One for the target, which is run by one thread.
pub(crate) fn log() -> MutexGuard<'static, Log> {
    static LOG: OnceLock<Mutex<Log>> = OnceLock::new();
    let log = LOG.get_or_init(|| Mutex::new(Log::new()));
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a change was told, one way or another: bytes after the last seal are told as a torn end, which a crash leaves too.
fn told(report: &Report) -> bool {
    !report.is_ok() || report.torn_bytes > 0 || report.unsealed_tail > 0
}

/// Input: a file, what to do with it, and changes; or a whole file.
pub(crate) fn any(input: &[u8]) {
    let log = log();
    let [file, what, rest @ ..] = input else { return };
    let file = usize::from(*file) % log.files.len();
    let original = &log.files[file].1;
    let mut bytes = original.clone();
    match what % 4 {
        // Anything at all, or behind what is right.
        0 => bytes = rest.to_vec(),
        1 => bytes.extend_from_slice(rest),
        // Any bytes elsewhere.
        2 => {
            for change in rest.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
                bytes[at] ^= change[2];
            }
        }
        // Any cut and paste.
        _ => {
            for cut in rest.chunks_exact(6) {
                let place = |n: usize| usize::from(u16::from_le_bytes([cut[n], cut[n + 1]])) % (bytes.len() + 1);
                let (from, to, at) = (place(0), place(2), place(4));
                let taken = bytes[from.min(to)..from.max(to)].to_vec();
                if cut[0] & 1 == 0 {
                    bytes.drain(from.min(to)..from.max(to));
                }
                let at = at.min(bytes.len());
                bytes.splice(at..at, taken);
                bytes.truncate(64 << 10);
            }
        }
    }
    let report = log.with(file, &bytes, true);
    let name = &log.files[file].0;
    assert_eq!(told(&report), bytes != *original, "{name}: {report:?}");
}

/// Every third byte of each file: changed, gone, one more before it, and the end cut off there. What the kernel's own tests leave out: bytes
/// that come and go, and the file `head`.
pub(crate) fn each_place() {
    let log = Log::new();
    for (file, (name, original)) in log.files.iter().enumerate() {
        for at in (0..original.len()).step_by(3) {
            let mut changed = original.clone();
            changed[at] ^= 0x81;
            let (before, after) = original.split_at(at);
            let gone = [before, &after[1..]].concat();
            let more = [before, &[original[at] ^ 1], after].concat();
            for (what, bytes) in [
                ("changed", &changed[..]),
                ("gone", &gone),
                ("more", &more),
                ("cut", before),
            ] {
                let report = log.with(file, bytes, false);
                assert!(!report.is_ok(), "{name}, byte {at} {what}: {report:?}");
            }
        }
    }
}
