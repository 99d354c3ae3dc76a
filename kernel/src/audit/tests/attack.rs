//! What somebody tries who can write to the log's directory, but not sign; and who can ask the daemon for what it refuses.

use std::fs;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::audit::entry::Place;
use crate::audit::query::{Filter, tail};
use crate::audit::segment::{self, AROUND_BYTES, HEADER_BYTES, RecordKind};
use crate::audit::verify::{Fault, segments};

/// Kind and end of each record of a segment.
fn records(bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut at = HEADER_BYTES;
    let mut all = Vec::new();
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let kind = bytes[at + 4];
        at += AROUND_BYTES + length;
        all.push((kind, at));
    }
    all
}

/// A correctly linked entry behind the last record of a file: everything but the signature.
fn forged(bytes: &[u8], entry: &Entry, sequence: u64, link: [u8; 32]) -> Vec<u8> {
    let mut with = bytes.to_vec();
    let place = Place { sequence, wall_ms: 1 };
    segment::append(&mut with, RecordKind::Entry, |to| entry.encode(&place, &link, to));
    with
}

pub(super) fn seed(log: &Log) -> AuditSeed {
    AuditSeed::open(&log.home).unwrap()
}

fn options(refuse_tampered: bool) -> AuditOptions {
    AuditOptions {
        segment_bytes: 1200,
        refuse_tampered,
        ..AuditOptions::default()
    }
}

fn content(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// K13: an entry that nobody signed is not counted, and no later seal ever covers it; what was there is kept beside the log.
#[test]
fn a_forged_entry_is_never_sealed() {
    let log = filled(1 << 20, 4);
    let path = log.dir().join("00000001.seg");
    let before = log.verify();
    let (original, last) = (fs::read(&path).unwrap(), before.last.unwrap());
    let evil = Entry::new(Kind::Admin, "mallory", "admin:caps.grant").detail("forged");
    let with = forged(&original, &evil, last + 1, [0; 32]);
    fs::write(&path, &with).unwrap();
    let report = log.verify();
    assert_eq!(
        (report.is_ok(), report.unsealed_tail),
        (true, 1),
        "{:?}",
        report.findings
    );
    assert_eq!(
        (report.entries, report.last, report.head),
        (before.entries, before.last, before.head)
    );
    let (audit, report) = log.open();
    assert_eq!(report.unsealed_tail, 1);
    block(async {
        audit.seal(entry(7)).await.unwrap();
        audit.stop().await;
    });
    let report = log.verify();
    assert!(report.is_ok() && report.unsealed_tail == 0, "{:?}", report.findings);
    let all = tail(&log.dir(), 100, &Filter::default()).unwrap();
    assert!(all.iter().all(|entry| entry.principal != "mallory"), "{all:?}");
    let told = all.iter().find(|entry| entry.action == "audit.unsealed").unwrap();
    assert_eq!((told.sequence, told.resource.as_str()), (last + 1, "00000001.seg"));
    let kept = fs::read(log.dir().join("00000001.seg.unsealed")).unwrap();
    assert_eq!(kept, with[original.len()..]);
    assert!(
        told.detail.contains(&blake3::hash(&kept).to_string()),
        "{}",
        told.detail
    );
}

/// K13: the last sealed batch replaced by a forged entry, and the head taken away: the checkpoint tells, and the log refuses to go on.
#[test]
fn a_forged_end_is_found() {
    let log = filled(1 << 20, 4);
    let path = log.dir().join("00000001.seg");
    let original = fs::read(&path).unwrap();
    let seals: Vec<usize> = records(&original).iter().filter(|r| r.0 == 2).map(|r| r.1).collect();
    let evil = Entry::new(Kind::Admin, "mallory", "admin:caps.grant");
    let with = forged(&original[..seals[seals.len() - 2]], &evil, 5, [0; 32]);
    fs::write(&path, with).unwrap();
    fs::remove_file(log.dir().join("head")).unwrap();
    assert!(!log.verify().is_ok());
    let refused = Audit::open_in(&log.dir(), &seed(&log), options(true)).unwrap_err();
    assert!(matches!(refused, AuditError::Tampered(..)), "{refused}");
    assert!(!log.dir().join("head").exists(), "nothing was written");
}

/// K13: a receipt for segments that were stolen, which nobody signed, is none.
#[test]
fn a_forged_receipt_is_none() {
    let log = filled(1200, 9);
    let all = segments(&log.dir()).unwrap();
    let header = query::header_of(&all[1].1).unwrap().unwrap();
    let (_, last) = all.last().unwrap();
    let detail = format!("head={} first=1 last=2", hex::encode(header.previous));
    let receipt = Entry::kernel(Kind::Prune, "audit.prune").detail(&detail);
    let sequence = log.verify().last.unwrap() + 1;
    let with = forged(&fs::read(last).unwrap(), &receipt, sequence, [0; 32]);
    fs::write(last, with).unwrap();
    fs::remove_file(&all[0].1).unwrap();
    let report = log.verify();
    assert!(
        report.findings.iter().any(|f| f.fault == Fault::NotPruned),
        "{:?}",
        report.findings
    );
}

/// K13: cut at any seal, with what is behind it and the head: found and located as long as the checkpoint is there; a daemon refuses it without
/// changing anything, and one that goes on never forgets it.
#[test]
fn a_cut_at_any_seal_is_found() {
    let log = filled(1200, 9);
    let seed = seed(&log);
    let all = segments(&log.dir()).unwrap();
    let whole = log.verify().last.unwrap();
    let mut cuts = 0;
    for (n, (number, path)) in all.iter().enumerate() {
        let original = fs::read(path).unwrap();
        let ends = records(&original).into_iter().filter(|(kind, _)| *kind == 2);
        for end in ends.map(|(_, end)| end).chain([HEADER_BYTES]) {
            if n + 1 == all.len() && end == original.len() {
                continue;
            }
            let copy = copy_of(&log.dir());
            let name = segment::file_name(*number);
            fs::write(copy.path().join(&name), &original[..end]).unwrap();
            for (later, _) in &all[n + 1..] {
                fs::remove_file(copy.path().join(segment::file_name(*later))).unwrap();
            }
            fs::remove_file(copy.path().join("head")).unwrap();
            let report = verify(copy.path(), Some(&log.key())).unwrap();
            let cut = report.findings.iter().find(|f| f.fault == Fault::CutOff(whole));
            let cut = cut.unwrap_or_else(|| panic!("{name} {end}: {:?}", report.findings));
            assert_eq!((&cut.file, cut.offset), (&name, end as u64));
            assert!(report.findings.iter().any(|f| f.fault == Fault::NoHead));
            let before = content(copy.path());
            let refused = Audit::open_in(copy.path(), &seed, options(true)).unwrap_err();
            assert!(matches!(refused, AuditError::Tampered(..)), "{refused}");
            assert_eq!(content(copy.path()), before, "evidence stays as it is");
            for boot in 0..2 {
                let (audit, report) = Audit::open_in(copy.path(), &seed, options(false)).unwrap();
                assert!(!report.is_ok(), "{name} {end}, boot {boot}");
                let next = block(audit.seal(entry(1))).unwrap();
                assert!(next > whole, "numbers of what is missing are not given again: {next}");
                block(audit.stop());
            }
            let report = verify(copy.path(), Some(&log.key())).unwrap();
            assert!(!report.is_ok(), "{name} {end}: it is not forgotten");
            assert_eq!(fs::metadata(copy.path().join(&name)).unwrap().len(), end as u64);
            cuts += 1;
        }
    }
    assert!(cuts > 10);
}

/// K13: every segment gone, and the head: the checkpoint, or the key that was published, says that there was a log.
#[test]
fn a_log_that_is_gone_is_found() {
    let log = filled(1200, 9);
    let (seed, whole) = (seed(&log), log.verify().last.unwrap());
    for (taken, fault) in [
        (vec!["head"], Fault::CutOff(whole)),
        (vec!["checkpoint"], Fault::CutOff(whole)),
        (vec!["head", "checkpoint"], Fault::Gone),
        (vec!["head", "key.pub"], Fault::CutOff(whole)),
    ] {
        let copy = copy_of(&log.dir());
        for (_, path) in segments(copy.path()).unwrap() {
            fs::remove_file(path).unwrap();
        }
        for name in &taken {
            fs::remove_file(copy.path().join(name)).unwrap();
        }
        let report = verify(copy.path(), None).unwrap();
        assert!(
            report.findings.iter().any(|f| f.fault == fault),
            "{taken:?}: {:?}",
            report.findings
        );
        assert!(Audit::open_in(copy.path(), &seed, options(true)).is_err(), "{taken:?}");
        let (audit, _) = Audit::open_in(copy.path(), &seed, options(false)).unwrap();
        let next = block(audit.seal(entry(1))).unwrap();
        assert!(next > 1, "at least that it was so is recorded first");
        block(audit.stop());
        if fault != Fault::Gone {
            assert!(next > whole && !verify(copy.path(), None).unwrap().is_ok(), "{taken:?}");
        }
    }
}

/// K13: a head that is missing, or somebody else's, or no head, is wrong.
#[test]
fn a_head_that_is_not_the_logs_is_found() {
    let (log, theirs) = (filled(1200, 5), filled(1200, 9));
    fs::remove_file(log.dir().join("checkpoint")).unwrap();
    let path = log.dir().join("head");
    let good = fs::read(&path).unwrap();
    let foreign = fs::read(theirs.dir().join("head")).unwrap();
    for (bytes, fault) in [
        (None, Fault::NoHead),
        (Some(foreign), Fault::Head),
        (Some(Vec::new()), Fault::Head),
        (Some(b"x".repeat(200)), Fault::Head),
    ] {
        let _ = fs::remove_file(&path);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let report = log.verify();
        assert_eq!(report.findings.len(), 1);
        assert_eq!((&*report.findings[0].file, &report.findings[0].fault), ("head", &fault));
    }
    fs::write(&path, good).unwrap();
    assert!(log.verify().is_ok());
    // What a third party is given has it.
    let to = log.home.root().join("copy");
    query::copy(&log.dir(), &to).unwrap();
    assert!(verify(&to, Some(&log.key())).unwrap().anchored);
}

/// K22: another key in the place of the log's own: a start that is refused changes nothing, not even the key beside the log.
#[test]
fn a_refused_start_changes_nothing() {
    let log = filled(1200, 5);
    let other = AuditSeed::open(&filled(1200, 1).home).unwrap();
    let before = content(&log.dir());
    let refused = Audit::open_in(&log.dir(), &other, options(true)).unwrap_err();
    assert!(matches!(refused, AuditError::Tampered(..)), "{refused}");
    assert_eq!(content(&log.dir()), before);
}

/// K13: pipes and devices where files belong do not stop whoever looks.
#[test]
fn what_is_no_file_stops_nobody() {
    let log = filled(1200, 9);
    let all = segments(&log.dir()).unwrap();
    let names = [
        segment::file_name(2),
        segment::file_name(all.len() as u64),
        "head".to_owned(),
        "checkpoint".to_owned(),
        "key.pub".to_owned(),
    ];
    for name in names {
        let copy = copy_of(&log.dir());
        let path = copy.path().join(&name);
        for device in [false, true] {
            fs::remove_file(&path).unwrap();
            if device {
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            } else {
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            }
            let report = verify(copy.path(), key_beside(copy.path()).as_ref()).unwrap();
            let is_evidence = name.ends_with(".seg") || name == "head";
            assert_eq!(report.is_ok(), !is_evidence, "{name}: {:?}", report.findings);
            tail(copy.path(), 10, &Filter::default()).unwrap();
            query::stats(copy.path()).unwrap();
        }
        let (audit, _) = Audit::open_in(copy.path(), &seed(&log), options(false)).unwrap();
        block(audit.seal(entry(1))).unwrap();
        block(audit.stop());
    }
}

/// K13: files that are taken away under a daemon that writes them: nothing more is acknowledged.
#[test]
fn a_log_that_is_removed_while_it_is_written_fails() {
    let gone = Err(Refused::Failing(Reason::Gone));
    let log = Log::new();
    let (audit, _) = log.open();
    block(audit.seal(entry(1))).unwrap();
    // After the first answer it goes on to keep room, in the same directory.
    block(audit.flush()).unwrap();
    fs::remove_dir_all(log.dir()).unwrap();
    assert_eq!(block(audit.seal(entry(2))), gone);
    assert_eq!(audit.failing(), Some(Reason::Gone));
    fs::create_dir(log.dir()).unwrap();
    assert_eq!(block(audit.seal(entry(2))), gone, "another one in its place");
    let log = Log::new();
    let (audit, _) = log.open();
    block(audit.seal(entry(1))).unwrap();
    let path = log.dir().join("00000001.seg");
    let copy = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, copy).unwrap();
    assert_eq!(block(audit.seal(entry(2))), gone, "a copy is not what is written");
}

/// K13: who asks for very much that is refused hides nothing of what others are refused, and does not fill the log.
#[test]
fn nobody_hides_the_refusals_of_others() {
    let log = Log::new();
    let (audit, _) = log.open();
    block(async {
        for n in 0..5000 {
            let topic = format!("orders.v1.t{n}");
            audit.denied("mal", "uplink", &topic, &topic);
        }
        audit.denied("bob", "uplink", "rule", "bob may not");
        audit.denied("bob", "uplink", "rule", "bob may not");
        audit.flush().await.unwrap();
        audit.stop().await;
    });
    let denials = Filter {
        kind: Some(Kind::Denial),
        ..Filter::default()
    };
    let all = tail(&log.dir(), 10_000, &denials).unwrap();
    let of = |name: &str| all.iter().filter(|e| e.principal == name).collect::<Vec<_>>();
    let bobs = of("bob");
    assert_eq!(bobs.len(), 2);
    assert_eq!(
        (bobs[0].kind, bobs[0].detail.as_str(), bobs[0].count),
        ("denial", "bob may not", 1)
    );
    assert_eq!((bobs[1].kind, bobs[1].outcome, bobs[1].count), ("summary", "denied", 1));
    let mals = of("mal");
    let full = mals.iter().filter(|e| e.kind == "denial").count();
    assert_eq!(full, FULL_OF_ONE_MAX as usize);
    assert!(mals.len() <= COUNTED_OF_ONE_MAX as usize + 1, "{}", mals.len());
    assert_eq!(
        mals.iter().map(|e| e.count).sum::<u64>(),
        5000,
        "all of them are counted, under its name"
    );
    assert_eq!(of("").len(), 0);
}

/// A segment that was begun in vain and left: the one before it is still the last.
#[test]
fn a_segment_that_was_begun_in_vain_changes_nothing() {
    let log = filled(1 << 20, 3);
    let path = log.dir().join("00000001.seg");
    let sealed = fs::read(&path).unwrap();
    let torn = forged(&sealed, &entry(1), 1, [0; 32]);
    fs::write(&path, &torn[..torn.len() - 7]).unwrap();
    for bytes in [&b""[..], &sealed[..100]] {
        fs::write(log.dir().join("00000002.seg"), bytes).unwrap();
        let report = log.verify();
        assert!(report.is_ok() && report.torn_bytes > 0, "{:?}", report.findings);
    }
    let (audit, report) = log.open_with(1);
    assert!(report.is_ok());
    // The second begins the next one.
    block(audit.seal(entry(1))).unwrap();
    block(audit.seal(entry(2))).unwrap();
    block(audit.stop());
    let report = log.verify();
    assert!(report.is_ok() && report.torn_bytes == 0, "{:?}", report.findings);
}

/// K13: what a restore left is recorded by the next daemon, once.
#[test]
fn a_restore_is_recorded() {
    let log = filled(1200, 3);
    fs::write(log.dir().join(RESTORED), "at_ms=5 from=/backup\n").unwrap();
    for _ in 0..2 {
        let (audit, report) = log.open();
        assert!(report.is_ok());
        block(audit.seal(entry(1))).unwrap();
        block(audit.stop());
    }
    let all = tail(&log.dir(), 100, &Filter::default()).unwrap();
    let told: Vec<_> = all.iter().filter(|entry| entry.action == "backup.restore").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].kind, told[0].detail.as_str()),
        ("integrity", "at_ms=5 from=/backup")
    );
}
