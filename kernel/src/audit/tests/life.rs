//! The life of a log: group commit, a disk that fails, a process that is killed, keys that change, segments that go.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;
use crate::audit::query::{Filter, export, show, stats, tail};

/// K13: one signature and one wait for the disk stand for many.
#[test]
fn many_share_a_seal() {
    let log = Log::new();
    let (audit, _) = log.open();
    block(async {
        let receipts: Vec<Receipt> = (0..2000).map(|n| audit.seal(entry(n))).collect();
        let numbers = futures_util::future::join_all(receipts).await;
        let numbers: Vec<u64> = numbers.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            numbers,
            (1..=2000).collect::<Vec<_>>(),
            "in the order in which they were said"
        );
        audit.stop().await;
        assert_eq!(audit.seal(entry(1)).await, Err(Refused::Closed));
        assert_eq!(audit.write(entry(1)), Err(Refused::Closed));
    });
    let report = log.verify();
    assert!(report.is_ok() && report.anchored);
    assert_eq!(
        (report.entries, report.first, report.last, report.unsealed_tail),
        (2000, Some(1), Some(2000), 0)
    );
    assert!(report.seals < 1000, "{}", report.seals);
}

/// What is sealed is on disk and signed when the receipt says so, whatever comes after.
#[test]
fn a_receipt_is_kept() {
    let log = Log::new();
    let (audit, _) = log.open();
    for n in 1..20 {
        assert_eq!(audit.seal(entry(n)).wait(), Ok(n));
        let report = log.verify();
        assert_eq!((report.last, report.unsealed_tail, report.is_ok()), (Some(n), 0, true));
    }
}

/// K13: routine repeats are one entry, with how many there were; different ones are bounded, for each who does them and for all.
#[test]
fn repeats_are_counted() {
    let log = Log::new();
    let (audit, _) = log.open();
    let owners = COUNTED_MAX as u64 / u64::from(COUNTED_OF_ONE_MAX) + 10;
    block(async {
        for n in 0..500 {
            audit.count("ada", "notes", "used", "rule");
            audit.count("ada", "notes", "used", &format!("other {n}\n"));
        }
        for owner in 0..owners {
            for n in 0..100 {
                audit.count(&format!("p{owner}"), "", "used", &format!("{n}"));
            }
        }
        audit.flush().await.unwrap();
        audit.stop().await;
    });
    let all = tail(&log.dir(), 10_000, &Filter::default()).unwrap();
    assert!(all.len() <= COUNTED_MAX + owners as usize + 1, "{}", all.len());
    let rule = all.iter().find(|entry| entry.detail == "rule").unwrap();
    assert_eq!((rule.kind, rule.outcome, rule.count), ("summary", "done", 500));
    let others = |name: &str| {
        let mut of = all.iter().filter(|e| e.principal == name);
        of.find(|e| e.detail.starts_with("others")).unwrap().count
    };
    assert_eq!(others("ada"), 500 - u64::from(COUNTED_OF_ONE_MAX) + 1);
    assert_eq!(
        others(&format!("p{}", owners - 1)),
        100,
        "no rows are left, and its name stays"
    );
    assert_eq!(all.iter().map(|entry| entry.count).sum::<u64>(), 1000 + owners * 100);
}

/// Fail closed: what cannot be recorded is refused with the reason, reads go on, and it heals by itself.
#[test]
fn a_directory_that_is_gone_is_waited_out() {
    let log = Log::new();
    // Every batch begins a segment, which needs the directory.
    let (audit, _) = log.open_with(1);
    let aside = log.home.root().join("aside");
    block(async {
        audit.seal(entry(1)).await.unwrap();
        fs::rename(log.dir(), &aside).unwrap();
        for n in 0..3 {
            assert_eq!(audit.seal(entry(n)).await, Err(Refused::Failing(Reason::Gone)));
        }
        assert_eq!(audit.failing(), Some(Reason::Gone));
        // What needs not be sealed first waits.
        audit.write(entry(7)).unwrap();
        assert_eq!(tail(&aside, 10, &Filter::default()).unwrap().len(), 1);
        fs::rename(&aside, log.dir()).unwrap();
        assert_eq!(audit.seal(entry(2)).await, Ok(3));
        assert_eq!(audit.failing(), None);
        audit.flush().await.unwrap();
        audit.stop().await;
    });
    assert!(log.verify().is_ok());
    let all = tail(&log.dir(), 10, &Filter::default()).unwrap();
    assert_eq!(all[1].detail, "n=7");
    let refused = all.iter().find(|entry| entry.action == "audit.refused").unwrap();
    assert_eq!(refused.count, 3);
}

/// The queue is bounded while the disk takes nothing.
#[test]
fn what_waits_is_bounded() {
    let log = Log::new();
    let (audit, _) = log.open_with(1);
    block(async {
        audit.seal(entry(1)).await.unwrap();
        fs::rename(log.dir(), log.home.root().join("aside")).unwrap();
        audit.seal(entry(1)).await.unwrap_err();
        let taken = (0..2 * QUEUE_MAX as u64)
            .take_while(|n| audit.write(entry(*n)).is_ok())
            .count();
        assert!(taken <= QUEUE_MAX, "{taken}");
        assert!(matches!(audit.write(entry(1)), Err(Refused::Failing(_))));
        audit.stop().await;
    });
}

/// Says to this test's own program that it is to be the inner part of a test, and where.
const INNER: &str = "ASTRID_AUDIT_TEST_INNER";

fn inner() -> Option<PathBuf> {
    std::env::var_os(INNER).map(PathBuf::from)
}

fn open_at(root: &Path) -> (Audit, Report) {
    let home = Home::resolve(Some(root)).unwrap();
    home.create().unwrap();
    Audit::open(&home, AuditOptions::default()).unwrap()
}

/// A disk that is really full, in a mount namespace of its own; only root can make one.
#[test]
fn a_disk_that_is_really_full() {
    if let Some(root) = inner() {
        return fill(&root);
    }
    let home = tempfile::tempdir().unwrap();
    let mount = ["--mount", "mount", "-t", "tmpfs", "tmpfs"];
    let probe = Command::new("unshare").args(mount).arg(home.path()).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: this user cannot mount a file system");
        return;
    }
    let script = "mount -t tmpfs -o size=4m,mode=700 tmpfs \"$1\" && exec \"$0\" --exact --nocapture \"$2\"";
    let inner = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(home.path())
        .arg("audit::tests::life::a_disk_that_is_really_full")
        .env(INNER, home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
}

fn fill(root: &Path) {
    let (audit, _) = open_at(root);
    let directory = root.join("var/audit");
    let big = |n: u64| entry(n).detail(&"x".repeat(1000));
    let mut acknowledged = audit.seal(big(1)).wait().unwrap();
    let key = key_beside(&directory).unwrap();
    for ballast_bytes in [3 << 20, 3 << 19, 1 << 19] {
        // Others fill the disk too.
        fs::write(root.join("ballast"), vec![1; ballast_bytes]).unwrap();
        let refused = loop {
            match audit.seal(big(acknowledged)).wait() {
                Ok(sequence) => acknowledged = sequence,
                Err(refused) => break refused,
            }
            assert!(acknowledged < 100_000, "the disk does not get full");
        };
        assert_eq!(refused, Refused::Failing(Reason::Full));
        assert!(refused.to_string().contains("no space"));
        assert_eq!(show(&directory, acknowledged).unwrap().unwrap().sequence, acknowledged);
        let report = verify(&directory, Some(&key)).unwrap();
        assert!(
            report.is_ok() && report.last == Some(acknowledged),
            "{:?}",
            report.findings
        );
        // What makes room is written in the room that is kept; what waits meanwhile goes on waiting.
        let gone = block(audit.flush());
        assert_eq!(gone, Err(Refused::Failing(Reason::Full)));
        audit.write(big(0).detail("waits")).unwrap();
        acknowledged = audit.seal(big(0).makes_room()).wait().unwrap();
        assert_eq!(audit.failing(), Some(Reason::Full));
        // But for the rest of a page it is full for everybody else, and what is too much for the room that is kept is refused.
        assert!((0..20).any(|_| audit.seal(big(0)).wait().is_err()));
        let reserve = || fs::metadata(directory.join("reserve")).unwrap().len();
        let taken = (0..)
            .take_while(|_| audit.seal(big(0).makes_room()).wait().is_ok())
            .count();
        assert!((50..400).contains(&taken), "{taken}");
        assert!((64 << 10..96 << 10).contains(&reserve()), "{}", reserve());
        assert_eq!(show(&directory, acknowledged).unwrap().unwrap().sequence, acknowledged);
        fs::remove_file(root.join("ballast")).unwrap();
        audit.seal(big(1)).wait().unwrap();
        // After an answer it goes on to keep room.
        block(audit.flush()).unwrap();
        assert_eq!(reserve(), 256 << 10);
        acknowledged = audit.seal(big(1)).wait().unwrap();
    }
    block(audit.stop());
    assert!(verify(&directory, Some(&key)).unwrap().is_ok());
    let all = tail(&directory, 100_000, &Filter::default()).unwrap();
    assert_eq!(all.iter().filter(|entry| entry.detail == "waits").count(), 3);
    super::prune::prune_when_full(root, &directory, &key);
}

/// `kill -9` at any moment: what was acknowledged is there, the rest is whole, and the next daemon goes on.
#[test]
fn a_kill_loses_nothing_that_was_sealed() {
    if let Some(root) = inner() {
        let (audit, report) = open_at(&root);
        assert!(report.is_ok(), "{:?}", report.findings);
        for n in 0.. {
            audit.write(entry(n)).unwrap();
            let Ok(sequence) = audit.seal(entry(n).intent()).wait() else {
                return;
            };
            writeln!(std::io::stdout(), "sealed {sequence}").unwrap();
        }
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("var/audit");
    let mut last = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "audit::tests::life::a_kill_loses_nothing_that_was_sealed",
            ])
            .env(INNER, home.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut sealed = lines.filter_map(|line| line.strip_prefix("sealed ")?.parse::<u64>().ok());
        let acknowledged = sealed.by_ref().nth(round * 7).expect("it writes");
        child.kill().unwrap();
        let acknowledged = sealed.last().unwrap_or(acknowledged);
        child.wait().unwrap();
        let report = verify(&directory, key_beside(&directory).as_ref()).unwrap();
        assert!(report.is_ok(), "{round}: {:?}", report.findings);
        assert!(report.last.unwrap() >= acknowledged && acknowledged > last);
        last = acknowledged;
    }
    let (audit, report) = open_at(home.path());
    assert!(report.unknown_count > 0, "an intent of the one that was killed");
    block(audit.stop());
}

/// Killed in the middle of a write: cut at every byte of the last batch, the next one goes on behind the last seal. Nobody was promised more.
#[test]
fn a_torn_end_is_cut_off() {
    let log = Log::new();
    let (audit, _) = log.open();
    let path = log.dir().join("00000001.seg");
    block(audit.seal(entry(1))).unwrap();
    let sealed = fs::read(&path).unwrap().len();
    let head = fs::read(log.dir().join("head")).unwrap();
    block(async {
        audit.write(entry(2)).unwrap();
        audit.seal(entry(3)).await.unwrap();
        audit.stop().await;
    });
    let whole = fs::read(&path).unwrap();
    fs::remove_file(log.dir().join("checkpoint")).unwrap();
    let mut set_aside = 0;
    for end in sealed..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        fs::write(log.dir().join("head"), &head).unwrap();
        let report = log.verify();
        assert_eq!(
            (report.last, report.entries),
            (Some(1), 1),
            "what is not sealed is not counted"
        );
        let (audit, report) = log.open();
        assert!(report.is_ok(), "{end}: {:?}", report.findings);
        let tail_was = report.unsealed_tail;
        assert_eq!(block(audit.seal(entry(9))), Ok(2 + u64::from(tail_was > 0)), "{end}");
        let report = log.verify();
        assert!(
            report.is_ok() && report.unsealed_tail == 0 && report.torn_bytes == 0,
            "{end}"
        );
        block(audit.stop());
        let all = tail(&log.dir(), 10, &Filter::default()).unwrap();
        assert_eq!(
            all.iter().filter(|e| e.detail == "n=2").count(),
            0,
            "it was never promised"
        );
        if tail_was > 0 {
            assert_eq!(
                (all[1].kind, all[1].action.as_str(), all[1].count),
                ("integrity", "audit.unsealed", tail_was)
            );
            let kept = match set_aside {
                0 => "00000001.seg.unsealed".to_owned(),
                n => format!("00000001.seg.unsealed-{n}"),
            };
            if set_aside < 100 {
                assert!(all[1].detail.contains(&kept), "{}", all[1].detail);
                assert_eq!(fs::read(log.dir().join(kept)).unwrap(), whole[sealed..end]);
            } else {
                assert!(all[1].detail.contains("not kept"), "{}", all[1].detail);
            }
            set_aside += 1;
        }
        fs::remove_file(log.dir().join("checkpoint")).unwrap();
    }
    assert!(set_aside > 100);
}

/// K13: an intent without an outcome is reported as unknown by the next boot, once, and stays so in the log.
#[test]
fn an_intent_without_outcome_is_unknown() {
    let log = Log::new();
    let (audit, _) = log.open();
    let intent = Entry::new(Kind::Spawn, "ada", "child.spawn").intent();
    let (lost, kept) = block(async {
        audit.write(Entry::kernel(Kind::Boot, "boot")).unwrap();
        let kept = audit.seal(intent.clone()).await.unwrap();
        let lost = audit.seal(intent).await.unwrap();
        audit
            .write(Entry::outcome_of(kept, "ada", "child.spawn", Outcome::Done))
            .unwrap();
        audit.stop().await;
        (lost, kept)
    });
    assert!(kept < lost);
    assert_eq!(log.verify().unknown_count, 0, "its daemon may still carry it out");
    let (audit, report) = log.open();
    assert_eq!((report.unknown_outcomes, report.unknown_count), (vec![lost], 1));
    block(audit.stop());
    let (audit, report) = log.open();
    assert_eq!(report.unknown_count, 0, "it was told");
    block(audit.stop());
    assert_eq!(log.verify().unknown_outcomes, [lost]);
}

/// K13: a boot verifies from the last checkpoint; one that somebody else made stands for nothing.
#[test]
fn a_boot_verifies_what_came_since() {
    let log = filled(2000, 20);
    let full = log.verify();
    let (audit, report) = log.open_with(2000);
    assert_eq!((report.trusted_before, report.entries), (full.last.unwrap(), 0));
    block(audit.seal(entry(1))).unwrap();
    block(audit.stop());
    assert!(log.verify().is_ok());
    let path = log.dir().join("checkpoint");
    for at in [0, 20, 60, fs::read(&path).unwrap().len() - 1] {
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        let (audit, report) = log.open_with(2000);
        assert_eq!((report.trusted_before, report.is_ok()), (0, true), "{at}");
        block(audit.stop());
    }
    // Older than the checkpoint: only a full verification sees it.
    let first = log.dir().join("00000001.seg");
    let mut bytes = fs::read(&first).unwrap();
    bytes[300] ^= 1;
    fs::write(&first, bytes).unwrap();
    let (audit, report) = log.open_with(2000);
    assert!(report.is_ok() && report.trusted_before > 0);
    block(audit.stop());
    assert_eq!(log.verify().findings_count, 1);
}

/// K13: what is wrong is kept as it is; the log goes on behind it, in one new segment, and each boot says it again.
#[test]
fn a_damaged_log_goes_on() {
    let log = filled(1 << 20, 5);
    let path = log.dir().join("00000001.seg");
    fs::remove_file(log.dir().join("checkpoint")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[400] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for n in 1..4 {
        let (audit, report) = log.open();
        assert_eq!(report.findings_count, 1, "{:?}", report.findings);
        block(audit.seal(entry(1))).unwrap();
        block(audit.stop());
        assert_eq!(fs::read(&path).unwrap(), bytes, "evidence");
        assert_eq!(
            verify::segments(&log.dir()).unwrap().len(),
            2,
            "one more, and not one a boot"
        );
        let told = Filter {
            kind: Some(Kind::Integrity),
            ..Filter::default()
        };
        assert_eq!(tail(&log.dir(), 10, &told).unwrap().len(), n, "each boot records it");
    }
    assert_eq!(log.verify().findings_count, 1);
}

/// K22: the chain stays verifiable with either key when another one signs, and the key that signed before signs no more.
#[test]
fn a_key_is_rotated() {
    let log = filled(1 << 20, 3);
    let old = log.key();
    let (audit, _) = log.open();
    let new = block(async {
        let new = audit.rotate(&log.home).await.unwrap();
        audit.seal(entry(1)).await.unwrap();
        audit.stop().await;
        new
    });
    assert_eq!(log.key(), new);
    assert_ne!(old, new);
    for key in [old, new] {
        let report = verify(&log.dir(), Some(&key)).unwrap();
        assert!(report.is_ok(), "{:?}", report.findings);
        assert_eq!(report.key, Some(new));
    }
    assert!(!log.home.keys_dir().join("audit.key.next").exists());
    let (audit, report) = log.open();
    assert!(report.is_ok() && report.trusted_before > 0);
    block(audit.stop());
    // Cut short when the segment was begun, and the key not yet in its place.
    fs::rename(
        log.home.keys_dir().join("audit.key"),
        log.home.keys_dir().join("audit.key.next"),
    )
    .unwrap();
    let (audit, report) = log.open();
    assert!(report.is_ok(), "{:?}", report.findings);
    block(audit.stop());
    assert_eq!(log.key(), new);
}

/// Entries can be found by their number, their end, who and what.
#[test]
fn a_log_is_read() {
    let log = filled(1200, 12);
    let all = tail(&log.dir(), 10_000, &Filter::default()).unwrap();
    let last = log.verify().last.unwrap();
    assert_eq!(
        all.iter().map(|e| e.sequence).collect::<Vec<_>>(),
        (1..=last).collect::<Vec<_>>()
    );
    assert_eq!(tail(&log.dir(), 3, &Filter::default()).unwrap(), all[all.len() - 3..]);
    for entry in &all {
        assert_eq!(show(&log.dir(), entry.sequence).unwrap().as_ref(), Some(entry));
    }
    assert_eq!(show(&log.dir(), last + 1).unwrap(), None);
    let adas = Filter {
        principal: Some("ada".to_owned()),
        ..Filter::default()
    };
    let mut previous = hex::encode([0; 32]);
    let mut count = 0;
    export(&log.dir(), &adas, &mut |entry| {
        assert_eq!(
            (entry.principal.as_str(), &entry.link),
            ("ada", &previous),
            "a chain of its own"
        );
        previous = entry.hash;
        count += 1;
        true
    })
    .unwrap();
    assert!(count > 3);
    let stats = stats(&log.dir()).unwrap();
    assert_eq!((stats.entries, stats.principals, stats.last), (last, 3, Some(last)));
    assert_eq!(stats.kinds["decision"], last);
    // What a third party is given.
    let to = log.home.root().join("copy");
    query::copy(&log.dir(), &to).unwrap();
    assert!(verify(&to, key_beside(&to).as_ref()).unwrap().is_ok());
}

/// K2: the log and its key are nobody else's to read.
#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = filled(1200, 5);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&log.dir()), 0o700);
    assert_eq!(mode(&log.home.keys_dir().join("audit.key")), 0o600);
    for file in fs::read_dir(log.dir()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

/// The twin of a home that is thrown away behaves the same, as far as anybody sees.
#[test]
fn in_memory() {
    let audit = Audit::memory();
    assert_eq!(block(audit.seal(entry(1))), Ok(1));
    audit.write(entry(2)).unwrap();
    let all = audit.recorded();
    assert_eq!((all.len(), all[1].sequence, all[1].detail.as_str()), (2, 2, "n=2"));
    block(audit.stop());
}
