//! The audit log: how fast entries are signed and on disk, and how fast a log is verified.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use astrid_kernel::audit::verify::verify;
use astrid_kernel::audit::{Audit, AuditOptions, Entry, Kind, key_beside};
use astrid_kernel::home::Home;
use futures_util::StreamExt as _;

use crate::{alone, line, pair, runtime};

/// Entries of a round.
const ENTRIES: u64 = 50_000;

/// Entries that wait for their seal at once.
const IN_FLIGHT: usize = 1024;

fn entry(n: u64) -> Entry {
    let principal = ["ada", "grace", "capsule:notes", "default"][n as usize % 4];
    Entry::new(Kind::Decision, principal, "publish")
        .capsule("notes")
        .resource("notes.v1.add")
        .detail("rule=publish:notes.>")
}

async fn sealed(audit: &Audit, entries: u64, in_flight: usize) {
    let mut receipts =
        futures_util::stream::iter((0..entries).map(|n| audit.seal(entry(n)))).buffer_unordered(in_flight);
    while let Some(sealed) = receipts.next().await {
        sealed.unwrap();
    }
}

/// Sealed entries a second, beside a program that writes the same bytes in as many pieces and waits for the disk as often; and the time to
/// verify many. `ASTRID_BENCH_AUDIT` says how many.
pub fn run() {
    for in_flight in [64, IN_FLIGHT] {
        let written = std::cell::Cell::new((1, 1));
        let mut ours = || {
            let directory = tempfile::tempdir().unwrap();
            let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
            home.create().unwrap();
            let (audit, _) = Audit::open(&home, AuditOptions::default()).unwrap();
            let took = runtime().block_on(async {
                let began = Instant::now();
                sealed(&audit, ENTRIES, in_flight).await;
                let took = began.elapsed();
                audit.stop().await;
                took
            });
            let bytes = std::fs::metadata(home.audit_dir().join("00000001.seg")).unwrap().len();
            written.set((bytes, verify(&home.audit_dir(), None).unwrap().seals));
            took.as_secs_f64() * 1e9 / ENTRIES as f64
        };
        // As many bytes and waits as the first round had.
        ours();
        let (bytes, pieces) = written.get();
        let piece = (bytes / pieces) as usize;
        let plain = || {
            let directory = tempfile::tempdir().unwrap();
            let mut file = File::create(directory.path().join("plain")).unwrap();
            let content = vec![7; piece];
            let began = Instant::now();
            for _ in 0..pieces {
                file.write_all(&content).unwrap();
                file.sync_data().unwrap();
            }
            began.elapsed().as_secs_f64() * 1e9 / ENTRIES as f64
        };
        let (ours, limit) = pair(&mut ours, plain);
        let what = format!("audit: an entry sealed and synced, {in_flight} in flight");
        line(&what, ours, "the same bytes, write and fsync", limit, ">= 150,000/s");
        alone(
            "  entries a second",
            &format!("{:.0}", 1e9 / ours),
            &format!("{} a seal", ENTRIES / pieces),
        );
    }
    verified();
}

fn verified() {
    let count = std::env::var("ASTRID_BENCH_AUDIT").ok().and_then(|n| n.parse().ok());
    let count: u64 = count.unwrap_or(200_000);
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    let (audit, _) = Audit::open(&home, AuditOptions::default()).unwrap();
    runtime().block_on(async {
        sealed(&audit, count, IN_FLIGHT).await;
        audit.stop().await;
    });
    let key = key_beside(&home.audit_dir());
    let began = Instant::now();
    let report = verify(&home.audit_dir(), key.as_ref()).unwrap();
    let took = began.elapsed();
    assert!(report.is_ok() && report.entries == count);
    alone(
        &format!("audit: {count} entries verified"),
        &crate::time(took.as_secs_f64() * 1e9),
        &format!("1 M in <= 2 s: {:.2} s", took.as_secs_f64() * 1e6 / count as f64),
    );
    let began = Instant::now();
    let (audit, report) = Audit::open(&home, AuditOptions::default()).unwrap();
    alone(
        "  opened again, from the checkpoint",
        &crate::time(began.elapsed().as_secs_f64() * 1e9),
        &format!("{} entries looked at", report.entries),
    );
    runtime().block_on(audit.stop());
}
