//! The disk of a simulated machine: what was applied stays over crashes, and everything that can go wrong with a disk goes wrong on request.
//!
//! It looks at what is written, and knows what must never be: an effect twice, a message handled that does not wait, a sender's messages
//! out of order where order is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use astrid_kernel::capsule::durable::record::{DeadRecord, MessageRecord, read_inbox_key};
use astrid_kernel::store::engine::{Engine, EngineError, Later, Open, OpenError, Snapshot, Write};
use astrid_kernel::store::memory::Memory;
use astrid_kernel::store::table::{Kind, Table};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;

use crate::trace::{Chance, Trace};

/// Topics whose subscription keeps each sender's order.
const ORDERED: [&str; 2] = ["relay.v1.submit", "relay.v1.third"];

/// How the next seal goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Seal {
    #[default]
    Well,
    /// It fails, and nothing was written.
    Lost,
    /// It fails, and everything was written.
    Kept,
    /// There is no space for it.
    NoSpace,
}

/// A message that waits, as the disk knows it.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) record: MessageRecord,
}

/// Something that was given up.
#[derive(Clone, Debug)]
pub(crate) struct Dead {
    pub(crate) capsule: String,
    pub(crate) reason: String,
    pub(crate) message: MessageRecord,
}

#[derive(Default)]
pub(crate) struct State {
    /// Which life of the machine writes.
    pub(crate) life: u64,
    pub(crate) seal: Seal,
    /// Looks that the next seal takes.
    pub(crate) slow: u32,
    /// Reads that fail from now on.
    pub(crate) bad_reads: u32,
    /// How often in a thousand a read makes the guest that reads yield.
    pub(crate) yields: usize,
    /// What a seal is about to write.
    in_flight: Option<Vec<Write>>,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
    pub(crate) waiting: BTreeMap<(Table, u64), Waiting>,
    /// Messages that have been on disk.
    pub(crate) kept: BTreeSet<(u64, u64)>,
    pub(crate) dead: Vec<Dead>,
    /// When a timer's firings were written, by tag.
    pub(crate) fired: BTreeMap<String, Vec<u64>>,
    pub(crate) writes: u64,
}

#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) memory: Memory,
    pub(crate) state: Arc<Mutex<State>>,
    chance: Arc<Mutex<Chance>>,
    trace: Trace,
    engine: wasmtime::Engine,
    life: u64,
}

impl Disk {
    pub(crate) fn new(engine: wasmtime::Engine, trace: Trace, chance: Chance) -> Self {
        Self {
            memory: Memory::default(),
            state: Arc::default(),
            chance: Arc::new(Mutex::new(chance)),
            trace,
            engine,
            life: 0,
        }
    }

    /// The power goes: nothing of the life before is written any more, but what was under way may have been.
    pub(crate) fn next_life(&self, chance: &mut Chance) -> Self {
        let mut state = self.state.lock();
        state.life += 1;
        (state.seal, state.slow, state.bad_reads) = (Seal::Well, 0, 0);
        let in_flight = state.in_flight.take();
        let life = state.life;
        drop(state);
        if let Some(writes) = in_flight
            && chance.per_mille(500)
        {
            self.trace.line("what was under way was written".to_owned());
            self.write(writes);
        }
        Self { life, ..self.clone() }
    }

    fn read(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if state.bad_reads > 0 {
            state.bad_reads -= 1;
            self.trace.line("a read fails".to_owned());
            return Err(EngineError::Io("a simulated read error".into()));
        }
        if self.chance.lock().per_mille(state.yields) {
            self.engine.increment_epoch();
        }
        Ok(())
    }

    fn write(&self, writes: Vec<Write>) {
        let mut state = self.state.lock();
        for write in &writes {
            state.writes += 1;
            self.look_at(&mut state, write);
        }
        drop(state);
        self.memory.write(writes);
    }

    fn look_at(&self, state: &mut State, write: &Write) {
        let kind = write.table.as_bytes()[0];
        let value = write.value.as_ref().map_or(0, |v| blake(v));
        self.trace
            .line(format!("  {:?} {} {value:x}", write.table, write.key.escape_ascii()));
        match (kind, &write.value) {
            (b'i', Some(value)) => self.waits(state, write, value),
            (b'i', None) => self.done(state, write),
            (b'd', Some(value)) => self.dies(state, write, value),
            (b'k', Some(value)) => self.effect(state, write, value),
            _ => {}
        }
    }

    fn waits(&self, state: &mut State, write: &Write, value: &Bytes) {
        let (row, _) = read_inbox_key(&write.key).unwrap();
        let record = MessageRecord::read(value.clone()).unwrap();
        let place = (write.table.clone(), row);
        state.kept.insert((record.boot, record.sequence));
        if let Some(there) = state.waiting.get(&place) {
            let same = (there.record.boot, there.record.sequence) == (record.boot, record.sequence);
            if !same {
                self.trace.violated(format!(
                    "row {row} of {:?} is written over by another message",
                    write.table
                ));
            }
        }
        state.waiting.insert(place, Waiting { record });
    }

    fn done(&self, state: &mut State, write: &Write) {
        let (row, _) = read_inbox_key(&write.key).unwrap();
        let place = (write.table.clone(), row);
        let Some(Waiting { record, .. }) = state.waiting.remove(&place) else {
            self.trace
                .violated(format!("row {row} of {:?} was handled twice", write.table));
            return;
        };
        if !ORDERED.contains(&record.topic.as_str()) {
            return;
        }
        let sender = |r: &MessageRecord| (r.principal.clone(), r.capsule.clone(), r.topic.clone());
        let earlier = state.waiting.range((write.table.clone(), 0)..place);
        for ((_, other), waiting) in earlier {
            if sender(&waiting.record) == sender(&record) {
                let what = format!(
                    "row {row} of {:?} ({}) was handled before row {other} ({}) of the same sender",
                    write.table,
                    String::from_utf8_lossy(&record.body),
                    String::from_utf8_lossy(&waiting.record.body)
                );
                self.trace.violated(what);
                return;
            }
        }
    }

    fn dies(&self, state: &mut State, write: &Write, value: &Bytes) {
        let record = DeadRecord::decode(value.clone()).unwrap();
        let (capsule, _) = write.table.owner().unwrap();
        let id = |m: &MessageRecord| (m.boot, m.sequence);
        if state
            .dead
            .iter()
            .any(|d| d.capsule == capsule && id(&d.message) == id(&record.message))
        {
            self.trace
                .violated(format!("{capsule} gives up the same message twice"));
        }
        state.dead.push(Dead {
            capsule: capsule.to_owned(),
            reason: record.reason,
            message: record.message,
        });
    }

    fn effect(&self, state: &mut State, write: &Write, value: &Bytes) {
        let key = String::from_utf8_lossy(&write.key).into_owned();
        let number: Option<u64> = serde_json::from_slice(value).ok();
        if key.starts_with("effect/") && number != Some(1) {
            let value = String::from_utf8_lossy(value);
            self.trace
                .violated(format!("{key} of {:?} is {value}: doubled", write.table));
        }
        if let (Some(tag), Some(number)) = (key.strip_prefix("fired/"), number) {
            let now = state.now_ms;
            let firings = state.fired.entry(tag.to_owned()).or_default();
            firings.push(now);
            if firings.len() as u64 != number {
                let what = format!("firing {number} of {tag} is written as number {}", firings.len());
                self.trace.violated(what);
            }
        }
    }

    /// A value of a table, as it is on disk.
    pub(crate) fn value(&self, table: &Table, key: &str) -> Option<Bytes> {
        let snapshot = self.memory.snapshot(table).unwrap();
        snapshot.get(key.as_bytes()).unwrap()
    }
}

/// Enough of a hash to tell two values apart.
fn blake(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Engine for Disk {
    fn snapshot(&self, table: &Table) -> Result<Box<dyn Snapshot>, EngineError> {
        self.read()?;
        self.memory.snapshot(table)
    }

    fn tables(&self, kind: Kind) -> Result<Vec<Table>, EngineError> {
        self.read()?;
        self.memory.tables(kind)
    }

    fn apply(&self, writes: Vec<Write>) -> Later<'_, Result<(), EngineError>> {
        self.state.lock().in_flight = Some(writes);
        let mut left = None;
        Box::pin(std::future::poll_fn(move |_| {
            let mut state = self.state.lock();
            assert_eq!(state.life, self.life, "a dead kernel writes");
            let left = left.get_or_insert(std::mem::take(&mut state.slow));
            if *left > 0 {
                *left -= 1;
                return Poll::Pending;
            }
            let seal = std::mem::take(&mut state.seal);
            let writes = state.in_flight.take().unwrap_or_default();
            drop(state);
            self.trace.line(format!("seal {seal:?} {}", writes.len()));
            if matches!(seal, Seal::Well | Seal::Kept) {
                self.write(writes);
            }
            Poll::Ready(match seal {
                Seal::Well => Ok(()),
                Seal::NoSpace => Err(EngineError::NoSpace("a simulated full disk".into())),
                Seal::Lost | Seal::Kept => Err(EngineError::Io("a simulated write error".into())),
            })
        }))
    }

    fn checkpoint(&self, _: &Path) -> Result<(), EngineError> {
        Err(EngineError::Io("not simulated".into()))
    }

    fn close(&self) -> Later<'_, Result<(), EngineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn size(&self) -> u64 {
        self.memory.size()
    }
}

impl Open for Disk {
    fn is_worth_trying(&self) -> bool {
        true
    }

    fn open(&self) -> Later<'_, Result<Arc<dyn Engine>, OpenError>> {
        let engine: Arc<dyn Engine> = Arc::new(self.clone());
        Box::pin(std::future::ready(Ok(engine)))
    }

    fn place(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn sealed(&self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A future whose result is there at once.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match poll(future.as_mut()) {
        Some(value) => value,
        None => panic!("it waits"),
    }
}

/// Looks whether a future is done.
pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
