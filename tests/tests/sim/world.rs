//! A world made of a seed: clients, a kernel, its disk, and whatever goes wrong with them. It is a loop that chooses what happens next.

mod ask;
mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use astrid_kernel::bus::asks::Outcome;
use astrid_kernel::bus::inbox::NoPlace;
use astrid_kernel::capsule::actor::ActorState;
use astrid_kernel::store::table::{Kind, Scope, Table};
use bytes::Bytes;
use serde_json::Value;

use crate::client::Stream;
use crate::disk::{Dead, Disk, Seal, poll};
use crate::kernel::{Kernel, Machine, Shape};
use crate::trace::{Chance, Trace};

/// Rounds in which a world has to come to rest.
const SETTLING_MAX: u32 = 20_000;

/// What can go wrong in a world.
#[derive(Clone, Copy, Debug)]
struct Weather {
    crashes: bool,
    bad_seals: bool,
    slow_seals: bool,
    bad_reads: bool,
    faults: bool,
    full: bool,
    yields: bool,
    evictions: bool,
    timers: bool,
    hangups: bool,
    resizes: bool,
}

impl Weather {
    fn of(chance: &mut Chance) -> Self {
        let mut maybe = || chance.per_mille(500);
        Self {
            crashes: maybe(),
            bad_seals: maybe(),
            slow_seals: maybe(),
            bad_reads: maybe() && maybe(),
            faults: maybe(),
            full: maybe() && maybe(),
            yields: maybe(),
            evictions: maybe(),
            timers: maybe(),
            hangups: maybe() && maybe(),
            resizes: maybe() && maybe(),
        }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) steps: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) accepted: u64,
    pub(crate) violation: Option<String>,
    pub(crate) last: Vec<String>,
}

enum Question {
    /// Adds one to a sum that nobody else writes.
    Add {
        key: String,
    },
    Timer {
        tag: String,
    },
    Cancel {
        tag: String,
    },
    Once,
}

type Asking = Pin<Box<dyn Future<Output = Result<Outcome, NoPlace>>>>;

#[derive(Debug)]
struct Timer {
    client: String,
    every_ms: Option<u64>,
    /// When it was asked for, and how long it waits.
    set_ms: u64,
    after_ms: u64,
    accepted: bool,
    cancelled: bool,
    /// Somebody tried to end it, and may not have heard that this was done.
    asked_to_end: bool,
    /// It was asked to end when nothing went wrong any more.
    ended: bool,
}

#[derive(Debug, Default)]
struct Sum {
    asked: u64,
    answered: u64,
}

pub(crate) struct World<'a> {
    machine: &'a Machine,
    chance: Chance,
    trace: Trace,
    weather: Weather,
    shape: Shape,
    disk: Disk,
    kernel: Option<Kernel>,
    boots: u64,
    streams: Vec<Stream>,
    questions: Vec<(Question, Asking)>,
    timers: BTreeMap<String, Timer>,
    sums: BTreeMap<String, Sum>,
    /// What was said that is said once, and by whom.
    said: BTreeSet<(String, String)>,
    report: Report,
}

fn kv(capsule: &str, scope: &Scope) -> Table {
    Table::of(Kind::Kv, capsule, scope)
}

fn number(bytes: Option<Bytes>) -> u64 {
    bytes.map_or(0, |bytes| serde_json::from_slice(&bytes).unwrap())
}

impl<'a> World<'a> {
    pub(crate) fn new(machine: &'a Machine, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let trace = Trace::default();
        let weather = Weather::of(&mut chance);
        let shape = Shape {
            queue: weather.full.then(|| 1 + u32::try_from(chance.below(4)).unwrap()),
            instances: [1, 2, 4][chance.below(3)],
        };
        trace.line(format!("seed {seed}: {weather:?} {shape:?}"));
        let mut streams = Vec::new();
        for client in ["c1", "c2", "c3"].into_iter().take(1 + chance.below(3)) {
            let count = 1 + chance.next() % 12;
            streams.push(Stream::relay(client, count, weather.faults, &mut chance));
            let count = chance.next() % 6;
            streams.push(Stream::ledger(client, count));
        }
        let disk = Disk::new(machine.engine.clone(), trace.clone(), Chance::new(seed ^ 0x5eed));
        disk.state.lock().yields = if weather.yields { 200 } else { 0 };
        let mut world = Self {
            machine,
            chance,
            trace,
            weather,
            shape,
            disk,
            kernel: None,
            boots: 0,
            streams,
            questions: Vec::new(),
            timers: BTreeMap::new(),
            sums: BTreeMap::new(),
            said: BTreeSet::new(),
            report: Report::default(),
        };
        world.boot(Duration::from_secs(1_700_000_000));
        world
    }

    fn kernel(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    /// Starts the machine, as often as it takes.
    fn boot(&mut self, wall: Duration) {
        for _ in 0..100 {
            self.boots += 1;
            let disk = self.disk.next_life(&mut self.chance);
            self.disk = disk.clone();
            match Kernel::boot(self.machine, disk, self.boots, wall, self.shape) {
                Ok(kernel) => {
                    self.trace.line(format!("boot {}", self.boots));
                    self.kernel = Some(kernel);
                    return;
                }
                Err(error) => self.trace.line(format!("boot {} fails: {error}", self.boots)),
            }
        }
        panic!("the machine does not start");
    }

    /// The power goes, and comes back.
    fn crash(&mut self) {
        if self.weather.resizes {
            self.shape.instances = [1, 2, 4][self.chance.below(3)];
            self.trace.line(format!("{} instances", self.shape.instances));
        }
        let down = Duration::from_millis([0, 10, 1_000, 100_000][self.chance.below(4)]);
        self.trace.line(format!("crash, {down:?}"));
        self.report.crashes += 1;
        let kernel = self.kernel.take().unwrap();
        let wall = Duration::from_millis(kernel.wall_ms()) + down;
        for stream in &mut self.streams {
            stream.disconnected();
        }
        self.questions.clear();
        kernel.bury();
        self.boot(wall);
    }

    /// Runs until nothing is left to happen, and looks whether all is as it must be.
    pub(crate) fn run(mut self) -> Report {
        let steps = 100 + self.chance.below(500);
        for _ in 0..steps {
            self.step();
            if self.trace.violation().is_some() {
                break;
            }
        }
        if self.trace.violation().is_none() {
            self.trace.line("settle".to_owned());
            self.settle();
        }
        if self.trace.violation().is_none() {
            self.check();
        }
        if self.trace.violation().is_none() {
            self.check_restart();
        }
        if let Some(kernel) = self.kernel.take() {
            self.streams.clear();
            self.questions.clear();
            kernel.bury();
        }
        Report {
            hash: self.trace.hash(),
            violation: self.trace.violation(),
            last: self.trace.last(),
            ..self.report
        }
    }

    fn step(&mut self) {
        self.report.steps += 1;
        match self.chance.below(1000) {
            0..350 => {
                let chance = &mut self.chance;
                let kernel = self.kernel.as_ref().unwrap();
                let mut place = 0;
                let ran = kernel.shard.step(|ready| {
                    place = chance.below(ready);
                    place
                });
                if ran {
                    self.trace.line(format!("turn {place}"));
                }
            }
            350..500 => {
                self.clock_of_disk();
                if self.kernel().seal() {
                    let sealed = self.kernel().host.store.sealed();
                    self.trace.line(format!("sealed {sealed}"));
                }
            }
            500..620 => self.kernel().release(),
            620..780 => {
                let chosen = self.chance.below(self.streams.len());
                let kernel = self.kernel.as_ref().unwrap();
                self.streams[chosen].step(kernel, &self.trace);
            }
            780..850 => {
                let most = Duration::from_millis([1, 100, 5_000][self.chance.below(3)]);
                let (by, fired) = self.kernel().advance(most);
                self.trace.line(format!("time {by:?}, {fired} fire"));
            }
            850..880 if self.kernel().reopen() => self.trace.line("reopened".to_owned()),
            880.. => self.mishap(),
            _ => {}
        }
        self.hear();
    }

    /// Something that clients and machines do to a kernel, if this world's weather has it.
    fn mishap(&mut self) {
        let weather = self.weather;
        match 880 + self.chance.below(120) {
            880..905 if weather.timers => self.ask(),
            905..910 if weather.hangups => {
                let chosen = self.chance.below(self.streams.len());
                self.trace.line(format!("stream {chosen} hangs up"));
                self.streams[chosen].disconnected();
            }
            910..925 if weather.crashes => self.crash(),
            925..950 if weather.bad_seals => {
                self.report.faults += 1;
                let seal = [Seal::Lost, Seal::Kept, Seal::NoSpace][self.chance.below(3)];
                self.disk.state.lock().seal = seal;
            }
            950..970 if weather.slow_seals => {
                self.report.faults += 1;
                self.disk.state.lock().slow = u32::try_from(self.chance.below(20)).unwrap();
            }
            970..980 if weather.bad_reads => {
                self.report.faults += 1;
                self.disk.state.lock().bad_reads = u32::try_from(1 + self.chance.below(3)).unwrap();
            }
            980..1000 if weather.evictions => self.evict(),
            _ => {}
        }
    }

    fn clock_of_disk(&mut self) {
        let now = self.kernel().wall_ms();
        self.disk.state.lock().now_ms = now;
    }

    fn evict(&mut self) {
        let mut actors = self.kernel().actors();
        actors.retain(|actor| actor.capsule().idle().is_some() && actor.idle_since().is_some());
        if actors.is_empty() {
            return;
        }
        let actor = &actors[self.chance.below(actors.len())];
        self.trace.line(format!("evict {actor:?}"));
        actor.evict();
    }

    /// What reached the outside must be on disk by then.
    fn hear(&mut self) {
        let mut questions = std::mem::take(&mut self.questions);
        questions.retain_mut(|(question, asking)| match poll(asking.as_mut()) {
            None => true,
            Some(outcome) => {
                self.answered(question, outcome);
                false
            }
        });
        self.questions = questions;
        let ears = std::sync::Arc::clone(&self.kernel().ears.0);
        while let Some(heard) = ears.try_next() {
            let message = &heard.message;
            let topic = message.topic.as_str();
            let body = String::from_utf8_lossy(&message.body.bytes);
            self.trace.line(format!("heard {topic} {} {body}", message.id));
            if topic.starts_with("relay.") {
                let id = (message.id.boot, message.id.sequence);
                if !self.disk.state.lock().kept.contains(&id) {
                    self.trace
                        .violated(format!("{topic} {body} was heard before it was sealed"));
                }
            } else if topic == "ledger.v1.event.fired" {
                let fired: Value = serde_json::from_str(&body).unwrap();
                let key = format!("fired/{}", fired["tag"].as_str().unwrap());
                let on_disk = number(self.disk.value(&kv("ledger", &Scope::System), &key));
                if on_disk < fired["fired"].as_u64().unwrap() {
                    self.trace.violated(format!("{body} was heard before it was sealed"));
                }
            } else if topic == "ledger.v1.event.said" {
                let said = (message.principal.to_string(), body.into_owned());
                if !self.said.insert(said) {
                    self.trace
                        .violated(format!("{} says twice what is said once", message.principal));
                }
            } else if topic.starts_with("dead.") {
                let dead: Value = serde_json::from_str(&body).unwrap();
                let id = dead["message_id"].as_str().unwrap();
                let named = |d: &Dead| format!("{:016x}-{:x}", d.message.boot, d.message.sequence) == id;
                if !self.disk.state.lock().dead.iter().any(named) {
                    self.trace.violated(format!("{body} was heard before it was sealed"));
                }
            }
        }
    }

    fn answered(&mut self, question: &Question, outcome: Result<Outcome, NoPlace>) {
        self.trace.line(format!("answer: {outcome:?}"));
        let Ok(Outcome::Answer(body)) = outcome else { return };
        let answer: Value = serde_json::from_slice(&body.bytes).unwrap();
        match question {
            Question::Add { key } => {
                self.sums.get_mut(key).unwrap().answered += 1;
                let on_disk = number(self.disk.value(&kv("ledger", &Scope::System), &format!("sum/{key}")));
                if on_disk < answer["sum"].as_u64().unwrap() {
                    self.trace
                        .violated(format!("{key} is {on_disk} on disk when {answer} is answered"));
                }
            }
            Question::Once => {}
            Question::Timer { tag } => self.timers.get_mut(tag).unwrap().accepted = true,
            Question::Cancel { tag } => self.timers.get_mut(tag).unwrap().cancelled |= answer != 0,
        }
    }

    /// Nothing goes wrong any more: everything comes to an end.
    fn settle(&mut self) {
        {
            let mut state = self.disk.state.lock();
            (state.seal, state.slow, state.bad_reads) = (Seal::Well, 0, 0);
        }
        if std::mem::take(&mut self.weather.resizes) {
            // Whoever asks for the end of a timer is heard by whoever has it.
            self.shape.instances = 1;
            self.crash();
        }
        for _ in 0..SETTLING_MAX {
            if self.trace.violation().is_some() {
                return;
            }
            self.clock_of_disk();
            self.kernel().release();
            let mut moved = false;
            while self.kernel().shard.step(|_| 0) {
                moved = true;
            }
            while self.kernel().seal() {
                moved = true;
            }
            moved |= self.kernel().reopen();
            let kernel = self.kernel.as_ref().unwrap();
            for stream in &mut self.streams {
                moved |= stream.step(kernel, &self.trace);
            }
            self.hear();
            if moved {
                continue;
            }
            if self.kernel().anybody_is(ActorState::Down) {
                self.trace.line("somebody is down: restart".to_owned());
                self.crash();
                continue;
            }
            if self.questions.is_empty() && self.cancel_periodic() {
                continue;
            }
            let (by, fired) = self.kernel().advance(Duration::from_secs(1_000_000));
            if fired == 0 {
                return;
            }
            self.trace.line(format!("time {by:?}, {fired} fire"));
        }
        self.trace.violated("it does not come to rest".to_owned());
    }

    fn cancel_periodic(&mut self) -> bool {
        let left = |timer: &Timer| timer.every_ms.is_some() && !timer.ended;
        let Some((tag, timer)) = self.timers.iter_mut().find(|(_, t)| left(t)) else {
            return false;
        };
        timer.ended = true;
        let tag = tag.clone();
        self.cancel(tag);
        true
    }

    fn violated(&self, what: String) {
        self.trace.violated(what);
    }
}
