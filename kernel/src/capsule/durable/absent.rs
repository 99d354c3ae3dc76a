//! Durable subscriptions of capsules that are not there: their bundle is broken, was removed, or is not loaded in safe mode.
//!
//! A durable subscription is a promise to whoever publishes, so it does not end because its capsule cannot be loaded today: what a
//! capsule hears durably is a row in the store. At the start, whoever has such a row and does not run is stood in for: what is said
//! to it goes into the inbox that it will find. Only an operator ends that ([`forget`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use astrid_wire::control::{CapsuleReport, CapsuleState, Forgotten, Origin};
use astrid_wire::manifest::{Overflow, Scope};
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use prost::Message as _;

use super::directory::Owner;
use super::record::{LaneRecord, SubscriptionsRecord};
use super::recover;
use crate::bus::inbox::{Inbox, LanePolicy};
use crate::bus::{Heard, Role, Route, Subscribed};
use crate::capsule::Host;
use crate::capsule::actors::instance_of;
use crate::capsule::loaded::Capsule;
use crate::store::engine::{EngineError, Write};
use crate::store::table::{self, Table};
use crate::store::{Batch, Level, Refused, Store};

/// The only key of the table that says what a capsule hears durably.
const KEY: &[u8] = b"durable";

/// Rows that are deleted in one commit.
const DELETED_ROWS_MAX: usize = 10_000;

/// Who is stood in for, by name.
#[derive(Debug, Default)]
pub struct Absent(Mutex<BTreeMap<Arc<str>, StandIn>>);

/// One capsule that is not there.
#[derive(Debug)]
struct StandIn {
    record: SubscriptionsRecord,
    route: Arc<Kept>,
    /// What it hears, while this is here.
    _subscribed: Vec<Subscribed>,
}

/// The inboxes of a capsule that nobody reads.
struct Kept {
    name: Arc<str>,
    scope: Scope,
    instances: usize,
    lanes: Vec<LanePolicy>,
    inboxes: DashMap<table::Scope, Arc<Inbox>, ahash::RandomState>,
    store: Arc<Store>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kept {
    fn inbox(&self, scope: table::Scope) -> Arc<Inbox> {
        if let Some(inbox) = self.inboxes.get(&scope) {
            return Arc::clone(&inbox);
        }
        let table = Table::of(table::Kind::Inbox, &self.name, &scope);
        let entry = self.inboxes.entry(scope).or_insert_with(|| {
            // What cannot be read is not counted; nothing can be committed then either, and after that it is looked at again.
            let rows = recover::waiting_rows(&self.store, &table).unwrap_or_default();
            let inbox = Inbox::of_absent(
                format!("{} (which is not loaded: see `astrid capsule list`)", self.name).into(),
                &self.lanes,
                table,
            );
            inbox.restore(rows);
            inbox
        });
        Arc::clone(&entry)
    }

    fn waiting(&self) -> u64 {
        self.inboxes.iter().map(|inbox| inbox.len_durable() as u64).sum()
    }
}

impl Route for Kept {
    fn inboxes(&self, heard: &Heard<'_>, found: &mut dyn FnMut(Arc<Inbox>)) {
        let scope = match self.scope {
            Scope::System if self.instances > 1 => {
                table::Scope::Instance(u32::try_from(instance_of(heard, self.instances)).unwrap_or(0))
            }
            Scope::System => table::Scope::System,
            // As where it runs: what everybody may hear goes to those that are there.
            Scope::Principal if heard.public => return,
            Scope::Principal => table::Scope::Principal(heard.principal.clone()),
            Scope::Connection => return,
        };
        found(self.inbox(scope));
    }
}

impl StandIn {
    /// Hears for a capsule from now on, what it heard durably when it ran last.
    fn new(host: &Host, name: &str, record: SubscriptionsRecord) -> Self {
        let lanes = record.lanes.iter().map(|lane| LanePolicy {
            capacity: lane.capacity,
            overflow: Overflow::Reject,
            retry: 0,
            durable: true,
            ordered: false,
        });
        let route = Arc::new(Kept {
            name: name.into(),
            scope: record.scope(),
            instances: usize::try_from(record.instances).unwrap_or(1),
            lanes: lanes.collect(),
            inboxes: DashMap::default(),
            store: Arc::clone(&host.store),
        });
        let mut subscribed = Vec::new();
        for (lane, number) in record.lanes.iter().zip(0..) {
            match lane.pattern.parse() {
                Ok(pattern) => {
                    let (permit, route) = (host.gate.declared(pattern), Arc::clone(&route) as Arc<dyn Route>);
                    subscribed.push(host.bus.subscribe(permit, route, number, Role::Receiver));
                }
                Err(error) => {
                    tracing::error!(capsule = name, pattern = lane.pattern, %error, "a durable subscription cannot be kept");
                }
            }
        }
        Self {
            record,
            route,
            _subscribed: subscribed,
        }
    }

    fn report(&self) -> CapsuleReport {
        CapsuleReport {
            name: self.route.name.to_string(),
            version: self.record.version.clone(),
            description: String::new(),
            scope: self.route.scope.as_str().to_owned(),
            origin: Origin::Gone,
            state: CapsuleState::Absent,
            reason: Some(format!(
                "it is not loaded; {}; `astrid capsule forget {}` would drop that",
                self.keeps(),
                self.route.name
            )),
            actors: 0,
            generations: 0,
            faults: 0,
            handled: 0,
            fuel_used: 0,
            memory_peak_bytes: 0,
            exports: BTreeMap::new(),
            imports: BTreeMap::new(),
            publish: Vec::new(),
            subscribe: self.record.lanes.iter().map(|lane| lane.pattern.clone()).collect(),
            capabilities: BTreeMap::new(),
        }
    }

    fn keeps(&self) -> String {
        format!("what is said to it is kept ({} waiting)", self.route.waiting())
    }
}

impl SubscriptionsRecord {
    /// What a capsule hears durably; `None` when it hears nothing so.
    fn of(capsule: &Capsule) -> Option<Self> {
        let lanes = capsule.patterns().iter().zip(capsule.lanes());
        let durable = lanes
            .filter(|(_, policy)| policy.durable)
            .map(|(pattern, policy)| LaneRecord {
                pattern: pattern.as_str().to_owned(),
                capacity: policy.capacity,
            });
        let runtime = &capsule.manifest.runtime;
        let record = Self {
            version: capsule.manifest.package.version.to_string(),
            principal_scope: runtime.scope == Scope::Principal,
            instances: runtime.instances.get(),
            lanes: durable.collect(),
        };
        (!record.lanes.is_empty()).then_some(record)
    }

    fn scope(&self) -> Scope {
        if self.principal_scope {
            Scope::Principal
        } else {
            Scope::System
        }
    }
}

impl Absent {
    /// Whether somebody stands in for it.
    pub fn has(&self, capsule: &str) -> bool {
        self.0.lock().contains_key(capsule)
    }

    /// What is kept for a capsule that does not run, in words; `None` when nothing is.
    pub fn keeps(&self, capsule: &str) -> Option<String> {
        self.0.lock().get(capsule).map(StandIn::keeps)
    }

    /// Rows of those who are not among the capsules that were found.
    pub fn reports(&self, found: impl Fn(&str) -> bool) -> Vec<CapsuleReport> {
        let all = self.0.lock();
        let gone = all.iter().filter(|(name, _)| !found(name));
        gone.map(|(_, stand_in)| stand_in.report()).collect()
    }

    /// The store was opened again: what waits is counted anew. Waiting messages of one that cannot be read are counted when they can.
    pub fn look_again(&self) {
        for stand_in in self.0.lock().values() {
            for inbox in &stand_in.route.inboxes {
                let table = Table::of(table::Kind::Inbox, &stand_in.route.name, inbox.key());
                if let Ok(rows) = recover::waiting_rows(&stand_in.route.store, &table) {
                    inbox.restore(rows);
                }
            }
        }
    }
}

/// At the start, when the capsules run that can: writes down what they hear durably, and stands in for those that do not run.
///
/// # Errors
/// The store cannot be read.
pub fn settle(host: &Host) -> Result<(), EngineError> {
    let missing = write_down(host)?;
    let inboxes = host.store.tables(table::Kind::Inbox)?;
    let mut absent = host.durable.absent.0.lock();
    for (name, record) in missing {
        let stand_in = StandIn::new(host, &name, record);
        for owner in inboxes
            .iter()
            .filter_map(Owner::of)
            .filter(|owner| *owner.capsule == *name)
        {
            stand_in.route.inbox(owner.scope);
        }
        tracing::warn!(
            capsule = name,
            keeps = stand_in.keeps(),
            "a capsule with durable subscriptions does not run"
        );
        absent.insert(name.into(), stand_in);
    }
    Ok(())
}

/// Writes down what the capsules that run hear durably, where that is not what is written. Returns what those heard that do not run.
/// Also called when the store was opened again: it may have forgotten that.
///
/// # Errors
/// The store cannot be read.
pub fn write_down(host: &Host) -> Result<BTreeMap<String, SubscriptionsRecord>, EngineError> {
    let mut known: BTreeMap<String, SubscriptionsRecord> = BTreeMap::new();
    for table in host.store.tables(table::Kind::Subscriptions)? {
        let Some((capsule, _)) = table.owner() else { continue };
        let Some(row) = host.store.view(&table)?.get(KEY)? else {
            continue;
        };
        match SubscriptionsRecord::decode(row) {
            Ok(record) => drop(known.insert(capsule.to_owned(), record)),
            Err(_) => tracing::error!(capsule, "what it hears durably cannot be read; it is not stood in for"),
        }
    }
    let mut writes = Vec::new();
    for actors in host.durable.directory.all() {
        let name = &actors.capsule().name;
        let (now, before) = (SubscriptionsRecord::of(actors.capsule()), known.remove(&**name));
        if now != before {
            writes.push(Write {
                table: table_of(name),
                key: Bytes::from_static(KEY),
                value: now.map(|record| record.encode_to_vec().into()),
            });
        }
    }
    if !writes.is_empty()
        && let Err(error) = host.store.sequence(batch(host, writes))
    {
        tracing::error!(%error, "what capsules hear durably is written down when the store takes it");
    }
    Ok(known)
}

fn table_of(capsule: &str) -> Table {
    Table::of(table::Kind::Subscriptions, capsule, &table::Scope::System)
}

fn batch(host: &Host, writes: Vec<Write>) -> Batch {
    Batch {
        writes,
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch: host.store.epoch(),
        now_ms: host.deadlines.clock().wall_ms(),
    }
}

/// Why a capsule is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It runs.
    #[error("{0} runs")]
    Runs(String),
    /// Nothing is kept for it.
    #[error("nothing is kept for a capsule named {0:?}")]
    Nothing(String),
    /// The store cannot be read.
    #[error(transparent)]
    Unreadable(#[from] EngineError),
    /// The store does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Ends the durable subscriptions of a capsule that does not run, and forgets what waits for it: messages, timers, asks, pins. Its
/// own state and its dead letters stay.
///
/// That it hears durably is forgotten last: until then, whatever ends this, it is stood in for.
///
/// # Errors
/// [`ForgetError`]. What was forgotten until then stays so.
pub async fn forget(host: &Host, capsule: &str) -> Result<Forgotten, ForgetError> {
    if host.durable.directory.actors(capsule).is_some() {
        return Err(ForgetError::Runs(capsule.to_owned()));
    }
    let mut forgotten = Forgotten::default();
    for kind in [
        table::Kind::Inbox,
        table::Kind::Timer,
        table::Kind::Ask,
        table::Kind::Pin,
    ] {
        forget_kind(host, capsule, kind, &mut forgotten).await?;
    }
    forgotten.subscriptions = delete_all(host, &table_of(capsule)).await? > 0;
    // Nobody adds to it from here on; what was said meanwhile goes as well.
    let stood_in = host.durable.absent.0.lock().remove(capsule);
    if stood_in.is_none() && forgotten == Forgotten::default() {
        return Err(ForgetError::Nothing(capsule.to_owned()));
    }
    forget_kind(host, capsule, table::Kind::Inbox, &mut forgotten).await?;
    host.changed.notify_one();
    Ok(forgotten)
}

async fn forget_kind(
    host: &Host,
    capsule: &str,
    kind: table::Kind,
    forgotten: &mut Forgotten,
) -> Result<(), ForgetError> {
    for table in host.store.tables(kind)? {
        let Some(owner) = Owner::of(&table).filter(|owner| *owner.capsule == *capsule) else {
            continue;
        };
        let rows = delete_all(host, &table).await?;
        match kind {
            table::Kind::Inbox => forgotten.messages += rows,
            table::Kind::Timer => {
                forgotten.timers += rows;
                host.durable.timers.forget(&owner);
            }
            _ => forgotten.others += rows,
        }
    }
    // What it counts as waiting is what is there.
    host.durable.absent.look_again();
    Ok(())
}

/// Deletes all rows of a table, on disk when this returns, and says how many there were.
async fn delete_all(host: &Host, table: &Table) -> Result<u64, ForgetError> {
    let mut deleted = 0;
    loop {
        host.store.room().await;
        let mut keys = VecDeque::new();
        host.store.view(table)?.keys(&mut |key| {
            keys.push_back(Bytes::copy_from_slice(key));
            keys.len() < DELETED_ROWS_MAX
        })?;
        if keys.is_empty() {
            return Ok(deleted);
        }
        deleted += keys.len() as u64;
        let writes = keys.into_iter().map(|key| Write::delete(table.clone(), key)).collect();
        let epoch = host.store.epoch();
        let number = host.store.sequence(batch(host, writes))?.number;
        host.store.settled(number, epoch).await?;
    }
}
