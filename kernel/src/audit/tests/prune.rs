//! Old segments go, and nothing else.

use std::fs;
use std::io::Write as _;

use super::attack::seed;
use super::*;
use crate::audit::query::{Filter, tail};
use crate::audit::segment::{HEADER_BYTES, Header};
use crate::audit::verify::{Fault, segments};

/// K13: prune leaves a receipt, and what is left can be verified; what is missing without one is found.
#[test]
fn a_log_is_pruned() {
    let log = filled(1200, 12);
    let before = log.verify();
    let (audit, _) = log.open_with(1200);
    let removed = block(async {
        assert_eq!(audit.prune(0).await, Ok(0), "nothing is that old");
        let removed = audit.prune(u64::MAX).await.unwrap();
        audit.seal(entry(1)).await.unwrap();
        audit.stop().await;
        removed
    });
    assert!(removed >= 3);
    let report = log.verify();
    assert!(report.is_ok(), "{:?}", report.findings);
    assert!(report.first > Some(1) && report.last > before.last);
    let receipts = Filter {
        kind: Some(Kind::Prune),
        ..Filter::default()
    };
    let receipts = tail(&log.dir(), 100, &receipts).unwrap();
    assert_eq!(receipts.len() as u64, removed);
    assert_eq!(receipts[0].resource, "00000001.seg");
    let (audit, report) = log.open_with(1200);
    assert!(report.is_ok());
    block(async {
        for n in 0..30 {
            audit.seal(entry(n)).await.unwrap();
        }
        audit.stop().await;
    });
    let (_, first) = verify::segments(&log.dir()).unwrap().remove(0);
    fs::remove_file(first).unwrap();
    assert_eq!(log.verify().findings[0].fault, Fault::NotPruned);
}

/// Each batch begins a segment, until there is no room for one: none is left that was begun in vain, and pruning makes room.
pub(super) fn prune_when_full(root: &Path, directory: &Path, key: &PublicKey) {
    let home = Home::resolve(Some(root)).unwrap();
    let options = AuditOptions {
        segment_bytes: 1,
        ..AuditOptions::default()
    };
    let (audit, _) = Audit::open(&home, options).unwrap();
    let filler = || entry(1).detail(&"x".repeat(1000));
    for _ in 0..20 {
        audit.seal(filler()).wait().unwrap();
    }
    // To the last page.
    let mut rest = fs::File::create(root.join("rest")).unwrap();
    while rest.write_all(&[1; 512]).is_ok() {}
    while audit.seal(filler()).wait().is_ok() {}
    assert_eq!(
        audit.seal(filler()).wait(),
        Err(Refused::Failing(Reason::Full)),
        "there is no room at all"
    );
    let all = verify::segments(directory).unwrap();
    for (_, path) in &all {
        assert!(
            fs::metadata(path).unwrap().len() >= segment::HEADER_BYTES as u64,
            "begun in vain: {path:?}"
        );
    }
    let removed = block(audit.prune(u64::MAX)).unwrap();
    assert!(removed >= 15 && removed == all.len() as u64 - 1, "{removed}");
    audit.seal(filler()).wait().unwrap();
    // What waits when a daemon ends on a full disk goes into what is kept.
    while rest.write_all(&[1; 512]).is_ok() {}
    while audit.seal(filler()).wait().is_ok() {}
    audit.write(entry(99)).unwrap();
    block(audit.stop());
    let report = verify(directory, Some(key)).unwrap();
    assert!(report.is_ok(), "{:?}", report.findings);
    let last = tail(directory, 2, &Filter::default()).unwrap();
    assert!(last.iter().any(|entry| entry.detail == "n=99"), "{last:?}");
}

/// Segments of a log with nothing in them, begun at these times.
fn begun_at(log: &Log, times: &[u64]) {
    let signer = key::Signer::new(seed(log).as_bytes());
    fs::create_dir_all(log.dir()).unwrap();
    let mut previous = [0; 32];
    for (number, wall_ms) in (1..).zip(times) {
        let header = Header {
            number,
            first: 1,
            wall_ms: *wall_ms,
            key: signer.public(),
            previous,
        };
        let bytes = header.encode(&signer);
        previous.copy_from_slice(&bytes[HEADER_BYTES - 32..]);
        fs::write(log.dir().join(segment::file_name(number)), bytes).unwrap();
    }
}

fn numbers(log: &Log) -> Vec<u64> {
    segments(&log.dir())
        .unwrap()
        .into_iter()
        .map(|(number, _)| number)
        .collect()
}

/// K13: after a jump of the clock only the beginning of the log goes, and what is left has no hole.
#[test]
fn only_the_beginning_is_pruned() {
    let log = Log::new();
    begun_at(&log, &[100, 100, 900, 110, 110]);
    let (audit, _) = log.open();
    assert_eq!(block(audit.prune(500)), Ok(1));
    block(audit.stop());
    assert_eq!(numbers(&log)[..4], [2, 3, 4, 5]);
    let report = log.verify();
    assert!(
        report.is_ok() || report.findings.iter().all(|f| f.fault == Fault::NoHead),
        "{:?}",
        report.findings
    );
}

/// K13: what is damaged can be pruned away, with what is before it and nothing else; then all is well again.
#[test]
fn what_is_damaged_is_pruned_away() {
    for missing in [false, true] {
        let log = filled(1200, 12);
        let second = log.dir().join("00000002.seg");
        if missing {
            fs::remove_file(&second).unwrap();
        } else {
            let mut bytes = fs::read(&second).unwrap();
            bytes[50] ^= 1;
            fs::write(&second, bytes).unwrap();
        }
        assert!(!log.verify().is_ok());
        let last = *numbers(&log).last().unwrap();
        for _ in 0..2 {
            // The checkpoint is behind the damage, so these find nothing, or all of it.
            let _ = fs::remove_file(log.dir().join("checkpoint"));
            let (audit, report) = log.open_with(1 << 20);
            assert!(!report.is_ok());
            block(audit.stop());
        }
        let (audit, _) = log.open_with(1 << 20);
        let removed = block(audit.prune(u64::MAX)).unwrap();
        block(audit.stop());
        assert_eq!(removed, last - 1 - u64::from(missing), "{:?}", numbers(&log));
        let report = log.verify();
        assert!(report.is_ok(), "{missing}: {:?}", report.findings);
        let (audit, report) = log.open();
        assert!(report.is_ok(), "{missing}: {:?}", report.findings);
        block(audit.stop());
    }
}

/// K13: looking at a log whose old segments go meanwhile.
#[test]
fn a_log_is_verified_while_it_is_pruned() {
    let log = filled(1, 60);
    let key = log.key();
    let (audit, _) = log.open_with(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            let mut looks = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) || looks == 0 {
                let report = verify(&log.dir(), Some(&key)).unwrap();
                assert!(report.is_ok(), "{:?}", report.findings);
                looks += 1;
            }
        });
        for n in 0..200 {
            block(audit.seal(entry(n))).unwrap();
            if n % 20 == 19 {
                block(audit.prune(u64::MAX)).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        look.join().unwrap();
    });
    block(audit.stop());
}
