//! Processes that are killed, and files that are not what was written.

#![allow(clippy::print_stdout, reason = "a figure for whoever asks for more cases")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::*;
use crate::store::thread::StoreThread;

/// Says to this test's own program that it is to write, and where.
const WRITER: &str = "ASTRID_STORE_TEST_WRITER";

/// Commits that are in flight.
const IN_FLIGHT: u64 = 16;

/// Keys that are written again and again.
const RING: u64 = 300;

/// Commits that a row stays for.
const STAY: u64 = 500;

/// The commit of that number: it writes a ring, appends to a log, and removes what fell out of that.
fn nth(n: u64) -> Vec<Write> {
    let key = |n: u64| Bytes::copy_from_slice(&n.to_be_bytes());
    let mut writes = vec![
        Write::put(table("ring"), key(n % RING), content_of(n)),
        Write::put(table("log"), key(n), n.to_be_bytes().to_vec()),
    ];
    if n > STAY {
        writes.push(Write::delete(table("log"), key(n - STAY)));
    }
    writes
}

fn content_of(n: u64) -> Vec<u8> {
    let mut content = vec![n as u8; 100 + (n % 7 * 300) as usize];
    content[..8].copy_from_slice(&n.to_be_bytes());
    content
}

/// That an engine is what the first commits make, and how many.
fn check(engine: &dyn Engine) -> Result<u64, EngineError> {
    let (last, _) = crate::store::read_progress(engine)?;
    let mut log = Vec::new();
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    engine.snapshot(&table("log"))?.scan(Span::ALL, &mut |key, value| {
        assert_eq!(key, &value[..]);
        log.push(number(key));
        true
    })?;
    let first = last.saturating_sub(STAY) + 1;
    assert_eq!(
        log,
        (first..=last).collect::<Vec<_>>(),
        "all of the first {last} commits and nothing else"
    );
    let mut ring = Vec::new();
    engine.snapshot(&table("ring"))?.scan(Span::ALL, &mut |key, value| {
        ring.push((number(key), number(&value), value));
        true
    })?;
    assert_eq!(ring.len() as u64, last.min(RING));
    for (slot, n, value) in ring {
        assert!(n % RING == slot && n <= last && n + RING > last, "{slot} {n} {last}");
        assert_eq!(value, content_of(n));
    }
    Ok(last)
}

/// Commits without end, and tells what was acknowledged.
async fn write(directory: PathBuf) {
    let thread = StoreThread::start(Box::new(Disk::new(directory))).await.unwrap();
    let store = thread.store();
    let mut told = store.sealed();
    loop {
        let mut number = told;
        while number < told + IN_FLIGHT {
            number = store.sequence(batch(nth(number + 1))).unwrap().number;
        }
        while store.sealed() == told {
            store.progress().await;
        }
        told = store.sealed();
        while told < number {
            store.progress().await;
            told = store.sealed();
        }
        let mut out = std::io::stdout();
        writeln!(out, "acknowledged {told}").and_then(|()| out.flush()).unwrap();
    }
}

/// A process that commits for as long as it lives.
struct Writer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Writer {
    fn start(test: &str, directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                &format!("store::surreal::tests::damage::{test}"),
            ])
            .env(WRITER, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Reads what was acknowledged, that many times, or to the end.
    fn hear(&mut self, times: u64) -> Option<u64> {
        let (mut heard, mut last) = (0, None);
        let mut line = String::new();
        while heard < times {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                break;
            }
            if let Some(number) = line
                .strip_prefix("acknowledged ")
                .and_then(|n| n.trim_end().parse().ok())
            {
                heard += 1;
                last = Some(number);
            }
        }
        last
    }

    /// Returns when none of its threads runs.
    fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = Pid::from_child(&self.child);
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped());
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_writer() -> bool {
    let Some(directory) = std::env::var_os(WRITER) else {
        return false;
    };
    runtime().block_on(write(PathBuf::from(directory)));
    true
}

/// Whatever moment a process is killed at: what it acknowledged is there, and each commit whole or not at all.
#[test]
fn what_was_acknowledged_outlives_the_process() {
    if is_writer() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let mut random = SmallRng::seed_from_u64(22);
    let mut before = 0;
    for round in 0..20 {
        let mut writer = Writer::start("what_was_acknowledged_outlives_the_process", &directory);
        let heard = writer.hear(random.random_range(1..120)).unwrap();
        writer.signal(Signal::KILL);
        // What it said before it died counts.
        let acknowledged = writer.hear(u64::MAX).unwrap_or(heard);
        drop(writer);
        let found = runtime().block_on(async {
            let engine = Disk::new(directory.clone()).open().await.unwrap();
            let found = check(&*engine).unwrap();
            // Half of the time the next process finds what this one left.
            if round % 2 == 0 {
                engine.close().await.unwrap();
            }
            found
        });
        assert!(
            found >= acknowledged && acknowledged > before,
            "{found} {acknowledged} {before}"
        );
        before = found;
    }
}

/// Copies all files.
fn copy(from: &Path, into: &Path) {
    fs::create_dir(into).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &into.join(name));
        } else {
            fs::copy(&path, into.join(name)).unwrap();
        }
    }
}

fn flip(path: &Path, random: &mut SmallRng) {
    let mut bytes = fs::read(path).unwrap();
    if bytes.is_empty() {
        return;
    }
    let place = random.random_range(0..bytes.len());
    bytes[place] ^= 1 << random.random_range(0..8u8);
    fs::write(path, bytes).unwrap();
}

fn truncate_log(directory: &Path, random: &mut SmallRng) {
    let logs = content(&directory.join("tree/wal"));
    let Some((path, bytes)) = logs.iter().rfind(|(_, bytes)| !bytes.is_empty()) else {
        return;
    };
    let length = random.random_range(0..bytes.len());
    fs::write(path, &bytes[..length]).unwrap();
}

/// What came of opening a copy.
#[derive(Debug, Default)]
struct Tally {
    whole: u32,
    earlier: u32,
    lost: u32,
    refused: u32,
}

/// Opens a copy, which must be an earlier state that lacks nothing of what was noted as acknowledged, or say what is wrong.
fn open_copy(directory: &Path, acknowledged: u64, tally: &mut Tally) -> String {
    let noted = head::Head::open(directory).unwrap().1;
    let opened = runtime().block_on(async {
        let engine = Disk::new(directory.to_path_buf()).open().await?;
        let found = check(&*engine);
        // What was read may be damaged, and then its end is, too.
        let _ = engine.close().await;
        Ok::<_, OpenError>(found?)
    });
    let what = format!("{opened:?}");
    match opened {
        Ok(found) if found >= acknowledged => tally.whole += 1,
        Ok(found) => {
            assert!(
                matches!(noted, head::Noted::Upto(sealed) if sealed <= found),
                "{found} {noted:?} {acknowledged}"
            );
            tally.earlier += 1;
        }
        Err(OpenError::Lost { found, sealed }) => {
            assert!(found < sealed);
            tally.lost += 1;
        }
        Err(_) => tally.refused += 1,
    }
    what
}

/// Cases for each moment, and moments; more of them by hand.
fn cases() -> (u32, u64) {
    let number = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    (
        number("ASTRID_STORE_TEST_MOMENTS", 12) as u32,
        number("ASTRID_STORE_TEST_SEED", 4),
    )
}

/// Whatever a copy of the directory of a running store lacks, or has changed in one bit: it is an earlier state, or is refused with a reason.
/// Nothing panics, and what was acknowledged is not missing in silence.
#[test]
fn damage_is_noticed() {
    if is_writer() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (directory, copied) = (home.path().join("store"), home.path().join("copied"));
    let (moments, seed) = cases();
    let mut random = SmallRng::seed_from_u64(seed);
    let mut writer = Writer::start("damage_is_noticed", &directory);
    let mut tally = Tally::default();
    let mut heard = 0;
    for _ in 0..moments {
        heard = writer.hear(random.random_range(1..60)).unwrap_or(heard);
        // Stopped, its files are what a crash would leave now.
        writer.stop();
        copy(&directory, &copied);
        writer.signal(Signal::CONT);
        for case in 0..18 {
            let damaged = home.path().join("damaged");
            copy(&copied, &damaged);
            let files: Vec<PathBuf> = content(&damaged).into_iter().map(|(path, _)| path).collect();
            match case {
                0 => {}
                1..6 => truncate_log(&damaged, &mut random),
                6..10 => flip(&files[random.random_range(0..files.len())], &mut random),
                _ => {
                    let logs: Vec<_> = files.iter().filter(|f| f.starts_with(damaged.join("tree"))).collect();
                    flip(logs[random.random_range(0..logs.len())], &mut random);
                }
            }
            let before = tally.whole;
            open_copy(&damaged, heard, &mut tally);
            assert!(
                case != 0 || tally.whole > before,
                "what is not damaged opens: {tally:?}"
            );
            fs::remove_dir_all(&damaged).unwrap();
        }
        fs::remove_dir_all(&copied).unwrap();
    }
    println!("{tally:?}");
    assert!(tally.whole > 0 && tally.lost > 0 && tally.refused > 0, "{tally:?}");
}
