//! Streams that are really read, by the real thread.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

/// Long enough for any machine; reached only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

fn pipe() -> (OwnedFd, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (read, write.into())
}

fn nowhere() -> Sink {
    Sink {
        file: None,
        messages: None,
        secrets: Arc::new([]),
    }
}

fn to_file(path: &std::path::Path, secrets: &[&str]) -> Sink {
    Sink {
        file: Some(FileSink {
            path: path.to_owned(),
            rotation: Rotation::default(),
        }),
        secrets: secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect(),
        ..nowhere()
    }
}

/// Passes on what is told; `None` is the end.
struct Heard(mpsc::Sender<Option<(Bytes, SinkCredit)>>);

impl Told for Heard {
    fn output(&self, bytes: Bytes, credit: SinkCredit) {
        self.0.send(Some((bytes, credit))).ok();
    }

    fn ended(&self) {
        self.0.send(None).ok();
    }
}

type Hearing = mpsc::Receiver<Option<(Bytes, SinkCredit)>>;

fn to_owner() -> (Sink, Hearing) {
    let (heard, hearing) = mpsc::channel();
    let messages: Option<Box<dyn Told>> = Some(Box::new(Heard(heard)));
    (Sink { messages, ..nowhere() }, hearing)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

/// Until the stream, which has no other end, was read to its end: its reader's end is closed then.
fn closed(write: &File) {
    let mut events = [rustix::event::PollFd::new(write, rustix::event::PollFlags::empty())];
    assert_eq!(rustix::event::poll(&mut events, None).unwrap(), 1);
}

/// Until nobody can write to a pipe: a program that another test is just starting has a copy of each end until it runs.
fn hung_up(read: &OwnedFd) {
    let mut events = [rustix::event::PollFd::new(read, rustix::event::PollFlags::empty())];
    assert_eq!(rustix::event::poll(&mut events, None).unwrap(), 1);
}

/// A16: what was written before an exit is in the file, secrets blotted out, also in the middle of two writes.
#[test]
fn output_is_in_the_file_when_it_has_settled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log/out.log");
    let sinks = Sinks::new(Arc::default());
    let (read, mut write) = pipe();
    let same = read.try_clone().unwrap();
    let handle = sinks.attach(read, to_file(&path, &["hunter2"])).unwrap();
    wait(handle.settle());
    write.write_all(b"the password is hunt").unwrap();
    wait(handle.settle());
    assert_eq!(fs::read(&path).unwrap(), b"the password is ");
    write.write_all(b"er2\nbye hunter").unwrap();
    drop(write);
    hung_up(&same);
    wait(handle.settle());
    // The end has been seen, so what was held back is there too.
    assert_eq!(fs::read(&path).unwrap(), b"the password is ***\nbye hunter");
    assert!(matches!(wait(handle.detach()), Err(SinkError::Ended)));
}

/// Both streams of a child in one file: one writer, one rotation.
#[test]
fn streams_of_one_path_share_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.log");
    let sinks = Sinks::new(Arc::default());
    let sink = || {
        let mut sink = to_file(&path, &[]);
        sink.file.as_mut().unwrap().rotation = Rotation {
            bytes_max: 4_096,
            keep: 1_000,
            ..Rotation::default()
        };
        sink
    };
    let streams = [(); 2].map(|()| {
        let (read, write) = pipe();
        (sinks.attach(read, sink()).unwrap(), write)
    });
    for number in 0..2_000 {
        for (_, mut write) in streams.iter().map(|(handle, write)| (handle, write)) {
            writeln!(write, "line {number:>4}").unwrap();
        }
    }
    for (handle, _) in &streams {
        wait(handle.settle());
    }
    let files = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    assert!(files.iter().all(|file| file.len() <= 4_096));
    assert_eq!(files.iter().map(Vec::len).sum::<usize>(), 2 * 2_000 * 10);
    assert_eq!(sinks.files.lock().len(), 1);
}

/// Backpressure reaches the child: without a credit nothing more is read than one chunk.
#[test]
fn the_next_chunk_waits_for_the_credit_of_the_last() {
    let metrics = Arc::new(Metrics::default());
    let sinks = Sinks::new(Arc::clone(&metrics));
    let (sink, hearing) = to_owner();
    let (read, write) = pipe();
    let handle = sinks.attach(read, sink).unwrap();
    rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK).unwrap();
    let mut write = write;
    let fill = |write: &mut File| {
        let mut written = 0;
        while let Ok(some) = write.write(&[b'x'; 4_096]) {
            written += some;
        }
        written
    };
    fill(&mut write);
    let (first, credit) = hearing.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(!first.is_empty() && first.len() <= MESSAGE_BYTES_MAX);
    fill(&mut write);
    // It is full, and it stays so: the thread has done all that it was asked when it answers for another stream.
    let (other, _other_write) = pipe();
    let other = sinks.attach(other, nowhere()).unwrap();
    wait(other.settle());
    assert_eq!(fill(&mut write), 0);
    assert_eq!(metrics.child_output.get(), first.len() as u64);
    drop(credit);
    let (second, credit) = hearing.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(fill(&mut write) > 0 && !second.is_empty());
    // Settling waits for the owner too.
    let settled = handle.settle();
    drop(write);
    drop(credit);
    let mut rest = 0;
    let ended = loop {
        match hearing.recv_timeout(PATIENCE) {
            Ok(Some((bytes, _credit))) => rest += bytes.len(),
            end => break end,
        }
    };
    assert!(matches!(ended, Ok(None)));
    wait(settled);
    assert_eq!(metrics.child_output.get() as usize, first.len() + second.len() + rest);
}

/// With a file and an owner, the slower one decides; the file has secrets blotted out, the owner hears it as it is.
#[test]
fn a_file_and_an_owner_get_the_same_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.log");
    let sinks = Sinks::new(Arc::default());
    let (told, hearing) = to_owner();
    let sink = Sink {
        messages: told.messages,
        ..to_file(&path, &["hunter2"])
    };
    let (read, mut write) = pipe();
    let _handle = sinks.attach(read, sink).unwrap();
    write.write_all(b"it is hunter2\n").unwrap();
    let (bytes, _credit) = hearing.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(&bytes[..], b"it is hunter2\n");
    assert_eq!(fs::read(&path).unwrap(), b"it is ***\n");
}

/// A terminal's end is an error, and what was written before it is told.
#[test]
fn a_terminal_is_read_to_its_end() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let sinks = Sinks::new(Arc::default());
    // Programs that other tests start beside this one must not keep it open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let mut peer = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
    let (sink, hearing) = to_owner();
    let _handle = sinks.attach(master, sink).unwrap();
    peer.write_all(b"hello\n").unwrap();
    drop(peer);
    let mut said = Vec::new();
    while let Some((bytes, _credit)) = hearing.recv_timeout(PATIENCE).unwrap() {
        said.extend_from_slice(&bytes);
    }
    assert_eq!(said, b"hello\r\n");
}

#[test]
fn a_detached_stream_is_as_it_was() {
    let metrics = Arc::new(Metrics::default());
    let sinks = Sinks::new(Arc::clone(&metrics));
    let (read, mut write) = pipe();
    let handle = sinks.attach(read, nowhere()).unwrap();
    write.write_all(b"before").unwrap();
    wait(handle.settle());
    let read = wait(handle.detach()).unwrap();
    write.write_all(b"after").unwrap();
    drop(write);
    hung_up(&read);
    let mut rest = Vec::new();
    File::from(read).read_to_end(&mut rest).unwrap();
    assert_eq!((rest.as_slice(), metrics.child_output.get()), (&b"after"[..], 6));
}

/// Dropping a handle, and dropping everything, closes the stream: who writes to it hears of that.
#[test]
fn what_nobody_holds_is_closed() {
    let sinks = Sinks::new(Arc::default());
    let (first, first_write) = pipe();
    let (second, second_write) = pipe();
    let first = sinks.attach(first, nowhere()).unwrap();
    let second = sinks.attach(second, nowhere()).unwrap();
    drop(first);
    closed(&first_write);
    let shared = Arc::downgrade(&second.shared);
    drop(sinks);
    closed(&second_write);
    drop(second);
    assert!(shared.upgrade().is_none(), "the thread is there yet");
}

/// Context switches so far of the thread whose status this is.
fn switches(status: &mut File) -> u64 {
    let mut text = String::new();
    status.rewind().unwrap();
    status.read_to_string(&mut text).unwrap();
    // Those that somebody else forces on it say nothing: who is woken has waited before.
    let waits = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
    waits.unwrap().rsplit('\t').next().unwrap().parse().unwrap()
}

/// Hands over the status of the thread that it is told on.
struct Reveals(mpsc::Sender<File>);

impl Told for Reveals {
    fn output(&self, _: Bytes, _: SinkCredit) {
        self.0.send(File::open("/proc/thread-self/status").unwrap()).ok();
    }

    fn ended(&self) {}
}

/// Hundreds of quiet streams cost nothing: the thread parks.
#[test]
fn quiet_streams_wake_nobody() {
    const QUIET: usize = 400; // Two descriptors each, below the usual limit of 1,024.
    let sinks = Sinks::new(Arc::default());
    let attached = || {
        let (read, write) = pipe();
        (sinks.attach(read, nowhere()).unwrap(), write)
    };
    let streams: Vec<_> = (0..QUIET).map(|_| attached()).collect();
    let (reveal, revealed) = mpsc::channel();
    let (read, mut write) = pipe();
    let sink = Sink {
        messages: Some(Box::new(Reveals(reveal))),
        ..nowhere()
    };
    let handle = sinks.attach(read, sink).unwrap();
    write.write_all(b"x").unwrap();
    let mut status = revealed.recv_timeout(PATIENCE).unwrap();
    wait(handle.settle());
    wait(streams[0].0.settle());
    let before = switches(&mut status);
    assert!(before > 0);
    // Time must pass in which nothing happens: a pipe that nobody writes to is waited for.
    let (silent, _silent_write) = pipe();
    let quiet = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 300_000_000,
    };
    let mut events = [rustix::event::PollFd::new(&silent, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut events, Some(&quiet)).unwrap(), 0);
    // The one that it was about to make when it was first looked at.
    assert!(switches(&mut status) <= before + 1);
}

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Whether this process runs a test alone: others would count. Otherwise has that done, in a process of its own.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "ASTRID_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap());
    let inner = inner
        .args(["--exact", "--nocapture", test])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A16: a flooding child cannot grow the daemon, and does not keep the others waiting.
#[test]
fn a_flood_grows_nothing_and_starves_nobody() {
    const FLOOD_BYTES: u64 = 256 << 20;
    if !is_alone("port::sink::tests::a_flood_grows_nothing_and_starves_nobody") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let sinks = Sinks::new(Arc::clone(&metrics));
    let mut sink = to_file(&directory.path().join("out.log"), &["not in there"]);
    sink.file.as_mut().unwrap().rotation.keep = 1;
    let (read, mut write) = pipe();
    let flood = sinks.attach(read, sink).unwrap();
    let writing = std::thread::spawn(move || {
        let chunk: Vec<u8> = b"a line of a flood, nothing special\n".repeat(1_000);
        let mut written = 0;
        while written < FLOOD_BYTES && write.write_all(&chunk).is_ok() {
            written += chunk.len() as u64;
        }
        written
    });
    let (quiet, mut quiet_write) = pipe();
    let quiet = sinks.attach(quiet, nowhere()).unwrap();
    wait(quiet.settle());
    let before = resident_kib();
    let mut answered = 0;
    while !writing.is_finished() {
        quiet_write.write_all(b"x").unwrap();
        wait(quiet.settle());
        answered += 1;
    }
    let written = writing.join().unwrap();
    assert!(written >= FLOOD_BYTES && answered > 0);
    wait(flood.settle());
    assert_eq!(metrics.child_output.get(), written + answered);
    assert_eq!(metrics.child_output_lost.get(), 0);
    let files = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(files.sum::<u64>() <= 2 * (10 << 20));
    assert!(
        resident_kib() - before < 16 << 10,
        "{} KiB more",
        resident_kib() - before
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    let sinks = Sinks::new(Arc::default());
    let refused = sinks.attach(File::open("/etc/hostname").unwrap().into(), nowhere());
    assert!(matches!(refused, Err(SinkError::NotAStream)));
    let directory = tempfile::tempdir().unwrap();
    let short = to_file(&directory.path().join("out.log"), &["abc"]);
    assert!(matches!(
        sinks.attach(pipe().0, short),
        Err(SinkError::Secret(SecretError::Short { .. }))
    ));
    assert!(sinks.running.lock().is_none(), "there is a thread for nothing");
}
