//! Clients that submit numbers, and know of each whether it was accepted.
//!
//! A client that does not know whether a number was accepted sends it again under the same id, in its place. A careless one does not: of
//! what it sent last nobody knows whether it was accepted.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use astrid_tests::wire::{Connection, Gone, publish};
use astrid_wire::envelope::FromServer;
use serde_json::{Value, json};

use super::fate::Fate;

/// Where the chain begins.
pub(crate) const SUBMIT: &str = "relay.v1.submit";

/// Pause between two looks whether a daemon that starts can be reached.
const KNOCK: Duration = Duration::from_millis(2);

/// What the clients may do now.
#[derive(Debug, Clone, Copy, Default)]
struct Now {
    /// The daemon's lives so far.
    life: u64,
    /// Whether it lives.
    lives: bool,
    /// Numbers that each client may send for the first time in it.
    fresh: u64,
    /// Clients that have nothing more to say in it.
    silent: usize,
    /// Nothing more is to be done.
    over: bool,
}

/// Tells the clients of the daemon's lives.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    now: Mutex<Now>,
    changed: Condvar,
}

impl Lives {
    fn change(&self, change: impl FnOnce(&mut Now)) {
        change(&mut self.now.lock().unwrap());
        self.changed.notify_all();
    }

    /// A daemon starts; each client may send so many new numbers.
    pub(crate) fn begin(&self, fresh: u64) {
        self.change(|now| {
            now.life += 1;
            now.lives = true;
            now.fresh = fresh;
            now.silent = 0;
        });
    }

    /// It ended.
    pub(crate) fn end(&self) {
        self.change(|now| now.lives = false);
    }

    /// Waits until that many clients have said everything in this life, and know that it was accepted. Whether they do.
    pub(crate) fn silence(&self, clients: usize, patience: Duration) -> bool {
        let now = self.now.lock().unwrap();
        let waits = |now: &mut Now| now.silent < clients;
        !self
            .changed
            .wait_timeout_while(now, patience, waits)
            .unwrap()
            .1
            .timed_out()
    }

    /// There will be no other.
    pub(crate) fn over(&self) {
        self.change(|now| now.over = true);
    }

    /// Waits for a life after this one.
    fn next(&self, after: u64) -> Option<Now> {
        let now = self.now.lock().unwrap();
        let waits = |now: &mut Now| !(now.over || now.lives && now.life > after);
        let now = self.changed.wait_while(now, waits).unwrap();
        (!now.over).then_some(*now)
    }

    /// Waits a moment. Whether this life goes on.
    fn moment(&self, life: u64) -> bool {
        let now = self.now.lock().unwrap();
        let (now, _) = self.changed.wait_timeout(now, KNOCK).unwrap();
        now.lives && now.life == life
    }
}

/// What a client knows of its numbers.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// The highest that was ever sent.
    pub(crate) sent: u64,
    /// Accepted: all up to here,
    pub(crate) through: u64,
    /// and these.
    pub(crate) beyond: BTreeSet<u64>,
    /// Refused at first, and why. They were accepted after others that were on their way behind them.
    pub(crate) late: BTreeSet<u64>,
    /// What was said to them.
    pub(crate) refusals: BTreeSet<String>,
}

impl Known {
    /// Whether a number was accepted.
    pub(crate) fn has(&self, number: u64) -> bool {
        number <= self.through || self.beyond.contains(&number)
    }

    /// How many were accepted.
    pub(crate) fn count(&self) -> u64 {
        self.through + self.beyond.len() as u64
    }

    fn accept(&mut self, number: u64) {
        self.beyond.insert(number);
        while self.beyond.remove(&(self.through + 1)) {
            self.through += 1;
        }
    }
}

/// A client.
#[derive(Debug, Clone)]
pub(crate) struct Submitter {
    /// Its name, which begins its ids.
    pub(crate) name: &'static str,
    /// The daemon's home.
    pub(crate) home: PathBuf,
    /// What is to become of its numbers.
    pub(crate) fate: Fate,
    /// Numbers on their way at most.
    pub(crate) window: usize,
    /// Does not send again what was not accepted.
    pub(crate) careless: bool,
}

impl Submitter {
    /// Submits for as long as there are daemons.
    pub(crate) fn run(&self, lives: &Arc<Lives>) -> Known {
        let mut known = Known::default();
        let mut life = 0;
        while let Some(now) = lives.next(life) {
            life = now.life;
            let last = known.sent + now.fresh;
            loop {
                if let Ok(connection) = Connection::open(&self.home) {
                    let Gone(_) = self.submit(connection, &mut known, last, lives);
                    break;
                }
                if !lives.moment(life) {
                    break;
                }
            }
        }
        known
    }

    fn message(&self, number: u64) -> Value {
        let mut message = json!({ "client": self.name, "number": number });
        if let Some(fault) = self.fate.of(self.name, number) {
            message["fault"] = json!(fault.kind);
            message["stage"] = json!(fault.stage);
            message["times"] = json!(fault.times);
        }
        message
    }

    /// Where it goes on.
    fn first(&self, known: &Known) -> u64 {
        1 + if self.careless { known.sent } else { known.through }
    }

    /// Submits up to that number, until the connection ends.
    fn submit(&self, mut connection: Connection, known: &mut Known, last: u64, lives: &Lives) -> Gone {
        let mut next = self.first(known);
        let mut on_their_way = 0;
        // Nothing overtakes what was refused more than what was behind it already.
        let mut refused = false;
        loop {
            if refused && on_their_way == 0 {
                (refused, next) = (false, self.first(known));
            }
            let mut frames = Vec::new();
            while !refused && on_their_way < self.window && next <= last {
                if !known.has(next) {
                    frames.extend(publish(
                        next,
                        SUBMIT,
                        &self.message(next),
                        format!("{}-{next}", self.name),
                    ));
                    on_their_way += 1;
                    known.sent = known.sent.max(next);
                }
                next += 1;
            }
            if on_their_way == 0 && !refused {
                lives.change(|now| now.silent += 1);
            }
            if let Err(gone) = connection.send(&frames) {
                return gone;
            }
            loop {
                match connection.receive() {
                    Ok(FromServer::Done(done)) => known.accept(done.id),
                    Ok(FromServer::Problem(problem)) if problem.id > 0 => {
                        known.late.insert(problem.id);
                        known.refusals.insert(format!("{}: {}", problem.code, problem.message));
                        refused = true;
                    }
                    Ok(other) => return Gone(format!("{other:?}")),
                    Err(gone) => return gone,
                }
                on_their_way -= 1;
                if !connection.has_more() {
                    break;
                }
            }
        }
    }
}
