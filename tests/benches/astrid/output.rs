//! Output of children, on its way into a log file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use astrid_kernel::metrics::Metrics;
use astrid_kernel::port::sink::{FileSink, Rotation, Sink, Sinks};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{line, pair, runtime};

/// Bytes of a round.
const BYTES: u64 = 256 << 20;

/// Lines into a pipe, through the sink, into rotated files; against a loop that reads them and writes them to one file.
pub fn run() {
    let runtime = &runtime();
    for (what, secrets) in [
        ("output of a child -> rotated log, 1 MB", Vec::new()),
        (
            "the same with two secrets blotted out",
            vec![b"hunter2-hunter2".to_vec(), b"0123456789abcdef".to_vec()],
        ),
    ] {
        let secrets: Arc<[Vec<u8>]> = secrets.into();
        let ours = || {
            let directory = tempfile::tempdir().unwrap();
            let sinks = Sinks::new(Arc::new(Metrics::default()));
            let sink = Sink {
                file: Some(FileSink {
                    path: directory.path().join("out.log"),
                    rotation: Rotation::default(),
                }),
                messages: None,
                secrets: Arc::clone(&secrets),
            };
            written(|read| {
                let handle = sinks.attach(read, sink).unwrap();
                move |writer: std::thread::JoinHandle<()>| {
                    writer.join().unwrap();
                    runtime.block_on(handle.settle());
                }
            })
        };
        let copy = || {
            let directory = tempfile::tempdir().unwrap();
            let mut file = File::create(directory.path().join("out.log")).unwrap();
            written(|read| {
                move |writer: std::thread::JoinHandle<()>| {
                    let (mut read, mut buffer) = (File::from(read), vec![0; 64 << 10]);
                    loop {
                        match read.read(&mut buffer).unwrap() {
                            0 => break,
                            some => file.write_all(&buffer[..some]).unwrap(),
                        }
                    }
                    writer.join().unwrap();
                }
            })
        };
        let (ours, limit) = pair(ours, copy);
        line(what, ours, "read and write, one file", limit, ">= 500 MB/s (2 ms)");
    }
}

/// Nanoseconds for a megabyte that a thread writes into a pipe, whose other end is taken by `take`; what that returns waits for the end.
fn written<F: FnOnce(std::thread::JoinHandle<()>)>(take: impl FnOnce(std::os::fd::OwnedFd) -> F) -> f64 {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut write = File::from(write);
    let finish = take(read);
    let began = std::time::Instant::now();
    let writer = std::thread::spawn(move || {
        let chunk = b"2026-01-01T00:00:00Z INFO a line as programs write them\n".repeat(1_170);
        let mut left = BYTES;
        while left > 0 {
            write.write_all(&chunk).unwrap();
            left = left.saturating_sub(chunk.len() as u64);
        }
    });
    finish(writer);
    began.elapsed().as_secs_f64() * 1e9 / (BYTES as f64 / 1e6)
}
