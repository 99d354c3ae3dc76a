//! What is kept of processes in the actor's table, so that it outlives the instance, the actor and the daemon (A11): one row for each
//! instance, at `i/NAME/INDEX`, and one for a process whose instances are being restarted one after the other, at `r/NAME`.
//!
//! What is kept of an instance is its whole state machine, the ports of its children with the daemon that they are of, and the events that
//! `why` tells. It is one row, because nearly every message about an instance changes all of that; it has about a kilobyte, and is written
//! once for each message that changed it. Definitions are not kept here: they are in the operator's document.
//!
//! # What is on disk when
//! Requests are durable: their rows are on disk before their answers leave, so who is told that something is stopped finds it stopped,
//! whatever is killed. What ports and the timer tell is not: it is on disk within 50 ms, as it is in memory at once. What is lost of those
//! 50 ms by a `kill -9` of the daemon is what its children did just before, and they end with it. The next daemon starts what was to run in
//! any case; at worst a crash of the last moment is not counted. Children that stay tell by their tags whose they are.
//!
//! Deliberately absent: durable timers. An actor is made at the start of each daemon, for its document, and finds here when it has to do
//! something; its timer would be one more thing to write for each wait, and to bring into agreement with this.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use astrid_sdk::error::KvError;
use astrid_sdk::prelude::*;
use astrid_sdk::serde_json;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::process::{Event, HISTORY_MAX, Instance, Key};
use crate::table::Table;

/// The form of rows. Those of another one are left alone by this code, and an instance begins as a new one.
const VERSION: u32 = 1;
/// Bytes of rows that are written at once, of the 8 MiB that a message may write; twice, before and after effects are carried out.
pub const ROW_BYTES_MAX: usize = 3 << 20;

/// What such a row counts for: a thousand numbers at most.
const ROLL_BYTES: usize = 4000;

const INSTANCES: &str = "i/";
const ROLLS: &str = "r/";

/// The row of an instance, as it is written.
#[derive(Serialize)]
struct Row<'a> {
    v: u32,
    /// The daemon whose ports these are.
    boot: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<PortId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<PortId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before_stop: Option<PortId>,
    machine: &'a Machine,
    events: &'a VecDeque<Event>,
}

/// The row of an instance, as it is read.
#[derive(Debug, Deserialize)]
pub struct Kept {
    v: u32,
    /// The daemon whose ports these are.
    pub boot: u64,
    /// Its child.
    pub port: Option<PortId>,
    /// The check that runs.
    pub probe: Option<PortId>,
    /// What runs before a stop.
    pub before_stop: Option<PortId>,
    /// Its state.
    pub machine: Machine,
    /// What happened.
    pub events: VecDeque<Event>,
}

/// All that was kept.
#[derive(Debug, Default)]
pub struct Memory {
    /// By process and index.
    pub instances: BTreeMap<(String, u32), Kept>,
    /// Instances that were still to be restarted, by process.
    pub rolls: BTreeMap<String, VecDeque<u32>>,
}

fn instance_key(key: &Key) -> String {
    format!("{INSTANCES}{}/{}", key.0, key.1)
}

fn fingerprint(row: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

impl Memory {
    /// Reads everything. What cannot be understood is left out, and said: an instance without a row begins as a new one.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn read(ctx: &mut Context) -> Result<Self, KvError> {
        let mut memory = Self::default();
        for entry in ctx.kv().prefix(INSTANCES) {
            let entry = entry?;
            let key = entry.key_after(INSTANCES)?;
            let place = key
                .rsplit_once('/')
                .and_then(|(name, index)| Some((name.to_owned(), index.parse().ok()?)));
            match (place, entry.read::<Kept>()) {
                (Some(place), Ok(mut kept)) if kept.v == VERSION => {
                    kept.events.truncate(HISTORY_MAX);
                    memory.instances.insert(place, kept);
                }
                (_, Ok(_)) => error!("a row is of another version, and left out", key = key),
                (_, Err(error)) => error!("a row cannot be read, and is left out", key = key, error = error),
            }
        }
        for entry in ctx.kv().prefix(ROLLS) {
            let entry = entry?;
            let name = entry.key_after(ROLLS)?.to_owned();
            match entry.read() {
                Ok(roll) => drop(memory.rolls.insert(name, roll)),
                Err(error) => error!("a row cannot be read, and is left out", key = name, error = error),
            }
        }
        Ok(memory)
    }
}

/// Writes what has changed since it was written last, up to about this many bytes; the rest stays to be written. This is the one place
/// that writes.
///
/// # Errors
/// It cannot be written; nothing of the message at hand happens then.
pub fn write(table: &mut Table, ctx: &mut Context, bytes_max: usize) -> Result<(), KvError> {
    let boot = ctx.id().boot;
    let mut written = 0;
    while written < bytes_max {
        let Some(key) = table.take_unwritten() else { break };
        written += write_roll(table, ctx, &key.0)?;
        let Some(instance) = table.looked_at(&key) else {
            ctx.kv().delete(instance_key(&key))?;
            continue;
        };
        let row = row(instance, boot)?;
        let print = Some(fingerprint(&row));
        if instance.kept != print {
            ctx.kv().put_bytes(instance_key(&key), &row)?;
            written += row.len();
            instance.kept = print;
        }
    }
    Ok(())
}

fn row(instance: &Instance, boot: u64) -> Result<Vec<u8>, KvError> {
    let row = Row {
        v: VERSION,
        boot,
        port: instance.port,
        probe: instance.probe,
        before_stop: instance.before_stop,
        machine: &instance.machine,
        events: &instance.history,
    };
    serde_json::to_vec(&row).map_err(|error| KvError::Unreadable {
        key: "the row of an instance".to_owned(),
        why: error.to_string(),
    })
}

/// The instances of a process that are still to be restarted: written when they are others than those on disk.
fn write_roll(table: &mut Table, ctx: &mut Context, name: &Rc<str>) -> Result<usize, KvError> {
    let roll = table.processes.get(name).map(|process| &process.roll);
    let roll = roll.filter(|roll| !roll.is_empty());
    if roll == table.kept_rolls.get(name) {
        return Ok(0);
    }
    let key = format!("{ROLLS}{name}");
    match roll.cloned() {
        Some(roll) => {
            ctx.kv().put(key, &roll)?;
            table.kept_rolls.insert(name.clone(), roll);
        }
        None => {
            ctx.kv().delete(key)?;
            table.kept_rolls.remove(name);
        }
    }
    Ok(ROLL_BYTES)
}
