//! `kill -9` of the daemon at random instants while clients submit numbered durable work through a chain of three capsules: every accepted
//! number has one effect at each stage, or is one dead letter, in its sender's order (K6, K22).
//!
//! Clients and checker are outside of the daemon, which is the built binary with a home on disk that lives through all rounds. Rounds and
//! seed come from `ASTRID_ROUNDS` and `ASTRID_SEED`. A run that fails leaves its home, and says where.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::print_stdout, reason = "what was killed in which round is read by people")]

mod books;
mod fate;
mod submitter;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_tests::bed::bundle_file;
use astrid_tests::chance::{Chance, from_environment};
use astrid_tests::daemon::Astrid;
use astrid_tests::herd::kill;
use astrid_tests::process::Running;
use astrid_tests::wire::{Connection, publish};
use astrid_wire::envelope::FromServer;
use rustix::process::Signal;
use serde_json::json;

use books::Books;
use fate::{Fate, STAGES};
use submitter::{Known, Lives, Submitter};

/// Rounds when nobody says otherwise.
const ROUNDS: u64 = 20;

/// A life of the daemon at most, once it is ready.
const LIFE_MAX: Duration = Duration::from_millis(400);

/// New numbers of a client in a life, at most: so that the last daemon finds a backlog that it can work off.
const FRESH_MAX: u64 = 300;

/// Longest wait for what was accepted to come to its end. Actors that trapped come back after two seconds, then four, ...
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// Pause between two looks at that.
const LOOK: Duration = Duration::from_millis(100);

/// For how long messages pile up: shorter than the two seconds after which an actor that trapped comes back.
const PILE_UP: Duration = Duration::from_millis(1700);

/// Bytes of the store for each number, at most, and beside that.
const STORE_BYTES_EACH: u64 = 8 << 10;
const STORE_BYTES: u64 = 64 << 20;

/// Errors that are logged because they are provoked: a guest that traps, and a keeper that is killed before its daemon.
const EXPECTED: [&str; 2] = ["on request", "the keeper is lost"];

/// The daemon with the chain in it, and a home that stays if the test fails.
struct Bench {
    astrid: Astrid,
}

impl Bench {
    fn new() -> Self {
        let astrid = Astrid::new();
        let folder = astrid.home().join("capsules");
        // The home is made by a daemon, as an operator would have it.
        let _ = astrid.run(&["start"]).ok();
        let _ = astrid.run(&["stop"]).ok();
        fs::create_dir_all(&folder).unwrap();
        for (_, capsule, _) in STAGES {
            fs::copy(bundle_file(capsule), folder.join(format!("{capsule}.capsule"))).unwrap();
        }
        Self { astrid }
    }

    fn home(&self) -> &Path {
        self.astrid.home()
    }

    /// Starts a daemon; returns when it is ready, and after how long.
    fn start(&self) -> (Running, Duration) {
        let began = Instant::now();
        let daemon = self.astrid.foreground(&["start", "--foreground"]);
        (daemon, began.elapsed())
    }

    fn connect(&self) -> Connection {
        Connection::open(self.home()).unwrap()
    }

    fn keeper(&self) -> Option<u32> {
        let status = self.astrid.run(&["status", "--format", "json"]).ok().json();
        u32::try_from(status["children"]["keeper_pid"].as_u64()?).ok()
    }

    /// Bytes of the store's files.
    fn store_bytes(&self) -> u64 {
        fn bytes(directory: &Path) -> u64 {
            let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
            entries
                .map(|entry| match entry.metadata().unwrap() {
                    found if found.is_dir() => bytes(&entry.path()),
                    found => found.len(),
                })
                .sum()
        }
        bytes(&self.home().join("var/store"))
    }

    /// What the daemons logged as errors and nobody asked for, each once.
    fn errors(&self) -> BTreeSet<String> {
        let logs = fs::read_dir(self.home().join("log"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let texts = logs
            .filter(|path| path.is_file())
            .map(|path| fs::read_to_string(path).unwrap());
        let text = texts.collect::<String>();
        // Without the time.
        let errors = text
            .lines()
            .filter_map(|line| Some(line.split_once(" ERROR ")?.1.to_owned()));
        errors
            .filter(|error| !EXPECTED.iter().any(|expected| error.contains(expected)))
            .collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.astrid.keep();
            println!("the home is left at {}", self.home().display());
        }
    }
}

/// How a round ended, for people.
fn end_of_round(bench: &Bench, chance: &mut Chance, lives: &Lives) -> (&'static str, Duration) {
    let fresh = chance.below(FRESH_MAX);
    let life = LIFE_MAX.mul_f64(chance.below(1000) as f64 / 1000.0);
    let how = chance.below(16);
    lives.begin(fresh);
    let ended = match how {
        // While it starts.
        0..3 => {
            let daemon = bench.astrid.spawn(&["start", "--foreground"]);
            std::thread::sleep(life.mul_f64(0.5));
            daemon.signal(Signal::KILL);
            let _ = daemon.wait();
            ("killed while it started", life.mul_f64(0.5))
        }
        // In good order, which loses as little.
        3..5 => {
            let (daemon, _) = bench.start();
            std::thread::sleep(life);
            daemon.signal(Signal::TERM);
            assert!(daemon.wait().success(), "an orderly stop fails");
            ("stopped", life)
        }
        5..7 => {
            let (daemon, _) = bench.start();
            let keeper = bench.keeper();
            std::thread::sleep(life);
            keeper.into_iter().for_each(kill);
            daemon.signal(Signal::KILL);
            let _ = daemon.wait();
            ("killed with its keeper", life)
        }
        _ => {
            let (daemon, _) = bench.start();
            std::thread::sleep(life);
            daemon.signal(Signal::KILL);
            let _ = daemon.wait();
            ("killed", life)
        }
    };
    lives.end();
    ended
}

/// Waits until what was accepted has come to its end.
fn settle(bench: &Bench, known: &BTreeMap<&str, Known>, fate: Fate) -> Books {
    let until = Instant::now() + SETTLED_WITHIN;
    let mut connection = bench.connect();
    loop {
        let books = Books::read(&bench.astrid, &mut connection);
        let settled = books.are_settled(known) && books.check(known, fate).lost.is_empty();
        if settled || Instant::now() > until {
            return books;
        }
        std::thread::sleep(LOOK);
    }
}

/// The sentence that this is about, by a daemon that is killed again and again.
#[test]
fn every_accepted_number_has_one_effect() {
    let seed = from_environment("ASTRID_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = from_environment("ASTRID_ROUNDS").unwrap_or(ROUNDS);
    println!("ASTRID_SEED={seed}");
    let bench = Bench::new();
    let fate = Fate(seed);
    let lives = Arc::new(Lives::default());
    let clients = [("ada", 64, false), ("bob", 64, false), ("careless", 4, true)].map(|(name, window, careless)| {
        let client = Submitter {
            name,
            home: bench.home().to_owned(),
            fate,
            window,
            careless,
        };
        let lives = Arc::clone(&lives);
        (name, std::thread::spawn(move || client.run(&lives)))
    });
    let mut chance = Chance(seed);
    {
        // So that there is a keeper.
        let (daemon, _) = bench.start();
        let _ = bench
            .astrid
            .run(&["process", "run", "sleeper", "--", "sleep", "1000000"])
            .ok();
        daemon.signal(Signal::KILL);
        let _ = daemon.wait();
    }
    for round in 0..rounds {
        let (how, life) = end_of_round(&bench, &mut chance, &lives);
        println!(
            "round {round}: {how} after {life:.0?}; {} KiB in the store",
            bench.store_bytes() >> 10
        );
    }
    // The last one is left in peace; what the clients could not say is said now.
    lives.begin(10);
    let (daemon, ready) = bench.start();
    assert!(
        lives.silence(clients.len(), SETTLED_WITHIN),
        "the clients are not done: ASTRID_SEED={seed}"
    );
    lives.over();
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
    lives.end();
    let known: BTreeMap<&str, Known> = clients.map(|(name, client)| (name, client.join().unwrap())).into();

    let (daemon, _) = bench.start();
    let began = Instant::now();
    let books = settle(&bench, &known, fate);
    let settled = began.elapsed();
    daemon.signal(Signal::KILL);
    let _ = daemon.wait();
    // And nothing of it happens again.
    let (daemon, _) = bench.start();
    let again = Books::read(&bench.astrid, &mut bench.connect());
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());

    let verdict = books.check(&known, fate);
    for (name, known) in &known {
        let (sent, accepted, late) = (known.sent, known.count(), known.late.len());
        println!(
            "{name}: sent {sent}, accepted {accepted}, refused at first {late} {:?}",
            known.refusals
        );
    }
    let (store, letters) = (bench.store_bytes(), verdict.dead);
    println!(
        "dead letters {letters}; ready in {ready:.0?}, settled in {settled:.0?}; {} KiB in the store",
        store >> 10
    );
    let accepted = verdict.accepted;
    let (lost, doubled) = (verdict.lost.len(), verdict.doubled.len());
    println!("rounds {rounds}, accepted {accepted}, lost {lost}, doubled {doubled}");
    assert!(
        lost == 0 && doubled == 0 && verdict.wrong.is_empty(),
        "ASTRID_SEED={seed}: {verdict:#?}"
    );
    assert!(
        books == again,
        "ASTRID_SEED={seed}: a start changed what became of the numbers"
    );
    assert!(
        accepted > rounds,
        "ASTRID_SEED={seed}: the clients hardly said anything"
    );
    let errors = bench.errors();
    assert!(errors.is_empty(), "ASTRID_SEED={seed}: {errors:#?}");
    assert!(
        store < STORE_BYTES + accepted * STORE_BYTES_EACH,
        "the store has {store} bytes"
    );
}

/// A client that comes while capsules are still compiled is let in when all of them hear: what is accepted is handled.
#[test]
fn who_comes_early_waits() {
    // Nothing is compiled in this home yet, but for what travels in the binary, as the uplink does.
    let bench = Bench::new();
    let daemon = bench.astrid.spawn(&["start", "--foreground"]);
    let until = Instant::now() + SETTLED_WITHIN;
    let mut connection = loop {
        match Connection::open(bench.home()) {
            Ok(connection) => break connection,
            Err(gone) => assert!(Instant::now() < until, "{gone:?}"),
        }
    };
    let body = json!({ "client": "c", "number": 1 });
    connection
        .send(&publish(1, submitter::SUBMIT, &body, "c-1".into()))
        .unwrap();
    assert!(matches!(connection.receive(), Ok(FromServer::Done(_))));
    for (_, _, topic) in STAGES {
        let count = || connection_count(&mut bench.connect(), topic);
        while count() != Some(1) {
            assert!(Instant::now() < until, "what was accepted is lost before {topic}");
        }
    }
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}

fn connection_count(connection: &mut Connection, topic: &str) -> Option<u64> {
    connection.ask(topic, &json!({})).unwrap()["clients"]["c"]["count"].as_u64()
}

/// Many messages that wait when a daemon dies are no burden to the next: it is ready as soon, and works them off in order.
#[test]
fn many_that_wait() {
    let bench = Bench::new();
    let (daemon, usual) = bench.start();
    let mut connection = bench.connect();
    // The first stage is down while they come.
    let body = |number: u64| match number {
        1 => json!({ "client": "c", "number": 1, "fault": "trap", "stage": "a" }),
        _ => json!({ "client": "c", "number": number }),
    };
    let (mut sent, mut accepted) = (0_u64, 0_u64);
    let began = Instant::now();
    while began.elapsed() < PILE_UP || accepted < sent {
        let mut frames = Vec::new();
        while began.elapsed() < PILE_UP && sent < accepted + 64 {
            sent += 1;
            frames.extend(publish(sent, submitter::SUBMIT, &body(sent), format!("c-{sent}")));
        }
        connection.send(&frames).unwrap();
        while accepted < sent {
            let heard = connection.receive().unwrap();
            assert!(
                matches!(&heard, FromServer::Done(done) if done.id == accepted + 1),
                "{heard:?}"
            );
            accepted += 1;
            if !connection.has_more() {
                break;
            }
        }
    }
    daemon.signal(Signal::KILL);
    let _ = daemon.wait();
    let (daemon, ready) = bench.start();
    let began = Instant::now();
    let mut connection = bench.connect();
    let wanted = json!({ "last": sent, "count": sent, "doubled": [], "missing": [], "out_of_order": [] });
    loop {
        let reports = STAGES.map(|(_, _, topic)| connection.ask(topic, &json!({})).unwrap()["clients"]["c"].clone());
        if reports.iter().all(|report| *report == wanted) {
            break;
        }
        assert!(began.elapsed() < SETTLED_WITHIN, "{reports:#?}");
        std::thread::sleep(LOOK);
    }
    println!(
        "pending {sent}: ready in {ready:.0?} (without any {usual:.0?}), settled {:.0?} later; {} KiB in the store",
        began.elapsed(),
        bench.store_bytes() >> 10
    );
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}
