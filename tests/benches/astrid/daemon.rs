//! The built binary: a client's round trip, start, stop, status, idling.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use astrid_tests::bed::bundle_file;
use astrid_tests::daemon::Astrid;
use astrid_wire::envelope::{self, FromClient, FromServer};
use astrid_wire::frame::FrameDecoder;

use crate::bare::EchoProcess;
use crate::kernel::status_kib;
use crate::{alone, line, median};

pub fn run() {
    start_and_stop();
    let astrid = Astrid::new();
    let capsules = astrid.home().join("capsules");
    let _ = astrid.run(&["start"]).ok();
    for name in ["hello", "probe"] {
        std::fs::copy(bundle_file(name), capsules.join(format!("{name}.capsule"))).unwrap();
    }
    let _ = astrid.run(&["restart"]).ok();
    round_trip(&astrid);
    idle(&astrid);
}

fn start_and_stop() {
    let astrid = Astrid::new();
    let mut figures: [Vec<f64>; 4] = Default::default();
    let mut bare = Vec::new();
    let first = timed(|| drop(astrid.run(&["start"]).ok()));
    let _ = astrid.run(&["stop"]).ok();
    for _ in 0..crate::ROUNDS {
        bare.push(timed(|| drop(astrid.run(&["--version"]).ok())));
        figures[0].push(timed(|| drop(astrid.run(&["start"]).ok())));
        figures[1].push(timed(|| drop(astrid.run(&["status"]).ok())));
        figures[2].push(timed(|| drop(astrid.run(&["stop"]).ok())));
        figures[3].push(timed(|| drop(astrid.run(&["stop"]).ok())));
    }
    let bare = median(bare);
    let [start, status, stop, nothing] = figures.map(median);
    line(
        "first start ever, all built-in capsules",
        first,
        "`astrid --version`",
        bare,
        "<= 2 s",
    );
    line("start to ready, warm", start, "`astrid --version`", bare, "<= 60 ms");
    line("status", status, "`astrid --version`", bare, "<= 10 ms");
    line("stop", stop, "`astrid --version`", bare, "<= 100 ms");
    line(
        "stop, nothing running",
        nothing,
        "`astrid --version`",
        bare,
        "<= 100 ms",
    );
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e9
}

/// A client with one request at a time.
struct Client {
    stream: UnixStream,
    decoder: FrameDecoder,
    next: u64,
}

impl Client {
    fn new(astrid: &Astrid) -> Self {
        let run = astrid.home().join("run");
        let token = std::fs::read_to_string(run.join("token")).unwrap();
        let stream = UnixStream::connect(run.join("operator.sock")).unwrap();
        let mut client = Self {
            stream,
            decoder: FrameDecoder::new(),
            next: 1,
        };
        let version = envelope::VERSION;
        let hello = envelope::Hello {
            major: version.major,
            minor: version.minor,
            credential: token.trim().as_bytes().to_vec().into(),
            client: "bench".into(),
            principal: None,
        };
        client.send(FromClient::Hello(hello).into_frame());
        let ack = envelope::decode_server(client.receive().unwrap()).unwrap();
        assert!(matches!(ack, FromServer::HelloAck(_)), "{ack:?}");
        client
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.stream.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Option<bytes::Bytes> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Some(frame);
            }
            let n = self.stream.read(&mut chunk).unwrap();
            if n == 0 {
                return None;
            }
            self.decoder.push(&chunk[..n]);
        }
    }

    fn request(&mut self, body: &[u8]) -> f64 {
        self.next += 1;
        let request = envelope::Request {
            id: self.next,
            topic: "probe.v1.do.echo".into(),
            content_type: "application/octet-stream".into(),
            content: Some(envelope::request::Content::Body(body.to_vec().into())),
            timeout_ms: 10_000,
        };
        let frame = FromClient::Request(request).into_frame();
        let began = Instant::now();
        self.send(frame);
        let answer = self.receive().unwrap();
        let took = began.elapsed().as_secs_f64() * 1e9;
        let answer = envelope::decode_server(answer).unwrap();
        assert!(matches!(answer, FromServer::Response(_)), "{answer:?}");
        took
    }
}

/// p50 of a client's request through socket, uplink and capsule, against a raw echo between two processes.
fn round_trip(astrid: &Astrid) {
    const UNITS: usize = 2_000;
    const SIZE: usize = 320;
    let mut client = Client::new(astrid);
    let mut echo = EchoProcess::start(SIZE);
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    let (body, mut frame) = ([7_u8; 256], [7_u8; SIZE]);
    for _ in 0..UNITS {
        ours.push(client.request(&body));
        let began = Instant::now();
        echo.stream.write_all(&frame).unwrap();
        echo.stream.read_exact(&mut frame).unwrap();
        raw.push(began.elapsed().as_secs_f64() * 1e9);
    }
    let (ours, raw) = (median(ours), median(raw));
    line(
        "client -> socket -> uplink -> capsule -> back, p50",
        ours,
        "a raw echo between two processes",
        raw,
        "<= 1.5x",
    );
}

/// Ten seconds of nothing.
fn idle(astrid: &Astrid) {
    let pid = std::fs::read_to_string(astrid.home().join("run/pid"))
        .unwrap()
        .trim()
        .to_owned();
    let switches = || -> BTreeMap<OsString, u64> {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let of = |path: std::path::PathBuf| -> u64 {
            let status = std::fs::read_to_string(path.join("status")).unwrap();
            let counts = status.lines().filter(|l| l.contains("ctxt_switches"));
            counts
                .map(|l| l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
                .sum()
        };
        threads
            .map(|t| t.unwrap())
            .map(|t| (t.file_name(), of(t.path())))
            .collect()
    };
    // The epoch thread parks 100 ms after the last guest ran; what is measured is what comes after.
    std::thread::park_timeout(Duration::from_secs(1));
    let before = switches();
    std::thread::park_timeout(Duration::from_secs(10));
    let after = switches();
    let of_thread = |(thread, count): (&OsString, &u64)| count - before.get(thread).unwrap_or(&0);
    let sum: u64 = after.iter().map(of_thread).sum();
    alone("idle daemon: context switches in 10 s", &sum.to_string(), "0");
    alone(
        "idle daemon: resident memory",
        &format!("{} MiB", status_kib(&pid) / 1024),
        "<= 60 MB",
    );
    let size = std::fs::metadata(astrid_tests::daemon::binary()).unwrap().len();
    alone(
        "binary, with debug information",
        &format!("{} MiB", size >> 20),
        "<= 45 MB stripped",
    );
}
