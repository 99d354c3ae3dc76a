//! What is kept comes back to life: at the start of the daemon, and after the store failed.
//!
//! Both do the same, because a failure of the store is to an actor what a crash of the daemon is: its memory may hold what never
//! happened. At the start there are no actors yet, and those that have something to do are made. After a failure those that
//! are there drop their instances, forget their copies of what is kept, and look at the store again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::absent;
use super::directory::Owner;
use super::record::{self, AskRecord};
use crate::authority::Subject;
use crate::bus::Saying;
use crate::bus::asks::{Outcome, Waiter};
use crate::bus::inbox::RowRef;
use crate::bus::message::{CommandId, Kind, MessageId, Source};
use crate::capsule::actor::Actor;
use crate::capsule::{Acting, Host};
use crate::ledger::Limit;
use crate::store::engine::{EngineError, Span, Write};
use crate::store::table::{self, Table};
use crate::store::{Batch, Level, Phase, Store};
use astrid_wire::Problem;
use astrid_wire::problem::codes;

/// Lets outputs leave when their commits are sealed, and brings everybody back after a failure; for as long as this is driven.
pub async fn run(host: Arc<Host>) {
    let phase = host.store.phase();
    let mut sealed = host.store.sealed();
    let mut failures = host.store.epoch();
    loop {
        // Not held while it is changed.
        let now = phase.borrow().clone();
        step(&host, &now);
        let so_far = host.store.sealed();
        host.metrics
            .store_commits
            .add(so_far.saturating_sub(std::mem::replace(&mut sealed, so_far)));
        let failed = host.store.epoch();
        host.metrics
            .store_failures
            .add(failed.saturating_sub(std::mem::replace(&mut failures, failed)));
        tokio::select! {
            () = host.store.progress() => {}
            () = host.durable.outbox.more() => {}
        }
    }
}

/// What is to be done now, in that phase of the store.
pub fn step(host: &Arc<Host>, phase: &Phase) {
    host.durable.outbox.release(host.store.sealed());
    match phase {
        Phase::Open | Phase::Closed => {}
        Phase::Failed(_) => {
            host.durable.outbox.forget(host.store.sealed());
            host.changed.notify_one();
        }
        Phase::Recovering => {
            host.durable.outbox.forget(host.store.sealed());
            match after_failure(host) {
                Ok(()) => {
                    host.store.recovered();
                    for actors in host.durable.directory.all() {
                        actors.present().iter().for_each(|actor| actor.hear_again());
                    }
                    if let Err(error) = absent::write_down(host) {
                        tracing::error!(%error, "what capsules hear durably is written down later");
                    }
                    if let Err(error) = inherit(host) {
                        tracing::error!(%error, "what is kept for former instances waits on");
                    }
                }
                // It fails again at the next commit, and that is tried again.
                Err(error) => {
                    tracing::error!(%error, "the store cannot be read after it was opened again");
                    host.store.fail_again(&error);
                }
            }
            host.changed.notify_one();
        }
    }
}

/// Everybody who holds state of a commit that may be forgotten drops it.
fn after_failure(host: &Arc<Host>) -> Result<(), EngineError> {
    host.durable
        .timers
        .load(&host.store, host.deadlines.clock().wall_ms())?;
    for actors in host.durable.directory.all() {
        for actor in actors.present() {
            actor.look_again()?;
        }
    }
    host.durable.absent.look_again();
    host.durable.timers.arm_all();
    ask_again(host)?;
    wake_up(host)
}

/// At the start, when the capsules run: whoever has something waiting is made, and everybody begins to act.
///
/// # Errors
/// The store cannot be read.
pub fn at_start(host: &Arc<Host>) -> Result<(), EngineError> {
    absent::settle(host)?;
    wake_up(host)?;
    ask_again(host)?;
    inherit(host)?;
    host.durable.timers.arm_all();
    host.acting.send_replace(Acting::Yes);
    Ok(())
}

/// Reads timers before anything could set one. They do not fire yet.
///
/// # Errors
/// The store cannot be read.
pub fn before_start(host: &Host) -> Result<(), EngineError> {
    let (free, unreadable) = host
        .durable
        .timers
        .load(&host.store, host.deadlines.clock().wall_ms())?;
    host.bus.ids().skip_ports_before(free);
    if unreadable > 0 {
        tracing::error!(unreadable, "durable timers cannot be read and will not fire");
    }
    Ok(())
}

/// Makes the actors that are pinned or have messages waiting.
fn wake_up(host: &Host) -> Result<(), EngineError> {
    for kind in [table::Kind::Pin, table::Kind::Inbox] {
        for table in host.store.engine()?.tables(kind)? {
            let Some(owner) = Owner::of(&table) else { continue };
            if host.durable.directory.actor(&owner).is_none() && !host.durable.absent.has(&owner.capsule) {
                let capsule = &owner.capsule;
                tracing::warn!(%capsule, ?kind, "something is kept for an actor that is not there");
            }
        }
    }
    Ok(())
}

/// Gives what is kept for system actors that are not there any more, because their capsule runs with fewer or more of them, to
/// the first that is. What is kept for a capsule that does not run waits for it.
fn inherit(host: &Arc<Host>) -> Result<(), EngineError> {
    for kind in [table::Kind::Inbox, table::Kind::Timer, table::Kind::Ask] {
        for table in host.store.engine()?.tables(kind)? {
            let Some(owner) = Owner::of(&table) else { continue };
            if matches!(owner.scope, table::Scope::Principal(_)) {
                continue;
            }
            let Some(actors) = host.durable.directory.actors(&owner.capsule) else {
                continue;
            };
            if let (None, Some(heir)) = (actors.of_scope(&owner.scope), actors.heir(&owner.scope)) {
                bequeath(host, kind, &owner, heir)?;
            }
        }
    }
    Ok(())
}

/// Moves the rows of one kind to an heir, and lets it have what they say.
fn bequeath(host: &Arc<Host>, kind: table::Kind, owner: &Owner, heir: &Arc<Actor>) -> Result<(), EngineError> {
    let Some(new) = heir.owner() else { return Ok(()) };
    let (from, to) = (owner.table(kind), new.table(kind));
    let mut rows = Vec::new();
    host.store
        .view(&from)?
        .scan(Span::ALL, &std::collections::BTreeMap::new(), &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), value));
            rows.len() < MOVED_ROWS_MAX
        })?;
    let moved = |(key, value): &(Bytes, Bytes)| {
        [
            Write::delete(from.clone(), key.clone()),
            Write::put(to.clone(), key.clone(), value.clone()),
        ]
    };
    let batch = Batch {
        writes: rows.iter().flat_map(moved).collect(),
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch: host.store.epoch(),
        now_ms: host.deadlines.clock().wall_ms(),
    };
    if let Err(error) = host.store.sequence(batch) {
        tracing::error!(%error, capsule = %owner.capsule, ?kind, "what is kept for a former instance waits on");
        return Ok(());
    }
    if kind == table::Kind::Timer {
        host.durable.timers.inherit(owner, new);
    }
    for (key, value) in rows {
        match kind {
            table::Kind::Inbox => {
                if let Ok((row, weight)) = record::read_inbox_key(&key) {
                    heir.inbox().add_row(RowRef { row, weight });
                }
            }
            table::Kind::Ask => {
                if let Some((id, ask)) = read_ask_key(&key).zip(AskRecord::decode(value).ok()) {
                    ask_one(host, heir, id, &ask);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rows of a former instance that are moved at one start; the rest follows at the next.
const MOVED_ROWS_MAX: usize = 10_000;

/// Asks once more what was asked and whose outcome was not handled.
fn ask_again(host: &Arc<Host>) -> Result<(), EngineError> {
    for table in host.store.engine()?.tables(table::Kind::Ask)? {
        let Some(owner) = Owner::of(&table) else { continue };
        let Some(actor) = host.durable.directory.actor(&owner) else {
            continue;
        };
        let mut asks = Vec::new();
        host.store
            .engine()?
            .snapshot(&table)?
            .scan(Span::ALL, &mut |key, value| {
                match read_ask_key(key).zip(AskRecord::decode(value).ok()) {
                    Some(ask) => asks.push(ask),
                    None => tracing::error!(capsule = %owner.capsule, "an ask that was kept cannot be read"),
                }
                true
            })?;
        for (id, ask) in asks {
            if !host.bus.asks().is_kept_open(id) {
                ask_one(host, &actor, id, &ask);
            }
        }
    }
    Ok(())
}

fn read_ask_key(key: &[u8]) -> Option<CommandId> {
    let number = |from: usize| key.get(from..from + 8)?.try_into().ok().map(u64::from_be_bytes);
    Some(CommandId {
        cause: MessageId {
            boot: number(0)?,
            sequence: number(8)?,
        },
        ordinal: key.get(16..20)?.try_into().ok().map(u32::from_be_bytes)?,
    })
}

fn ask_one(host: &Host, actor: &Arc<Actor>, command: CommandId, ask: &AskRecord) {
    let parts = || -> Result<_, record::Unreadable> {
        let topic = record::topic(&ask.topic)?;
        let saying = Saying {
            principal: record::principal(&ask.principal)?,
            source: Source::Capsule(Arc::clone(actor.capsule_name())),
            body: record::body(&ask.content_type, &ask.body)?,
            public: false,
        };
        Ok((topic, saying))
    };
    let Ok((topic, saying)) = parts() else {
        tracing::error!(capsule = %actor.capsule_name(), "an ask that was kept cannot be read");
        return;
    };
    let until = host.deadlines.now() + Duration::from_millis(ask.timeout_ms);
    let waiter = Waiter::Actor {
        inbox: Arc::clone(actor.inbox()),
        command,
        open: actor.open_asks().clone(),
        kept: true,
    };
    let hold = host.ledger.account(&saying.principal).hold_anyway(Limit::Calls, 1);
    let caller = (&saying.principal, Some(hold));
    let address = host.bus.asks().open(&topic, caller, until, waiter);
    // Whatever was allowed when it was asked first: it is decided by the policy of now.
    let standing = host.gate.authority().standing(&saying.principal);
    let subject = Subject {
        acl: &actor.capsule().acl,
        standing: &standing,
        socket: None,
    };
    let say = match host.gate.say(subject, topic) {
        Ok(say) => say,
        Err(denied) => {
            let problem = Problem::new(codes::DENIED, denied.to_string());
            let asks = host.bus.asks();
            asks.settle(address, Outcome::Refusal(problem), Source::Kernel);
            return;
        }
    };
    match host.bus.reserve(&say, &saying) {
        Ok(slots) => {
            host.bus.send(say, saying, Kind::Ask(address), Some(until), slots);
        }
        Err(no) => {
            let problem = Problem::new(codes::UNAVAILABLE, no.to_string());
            host.bus
                .asks()
                .settle(address, Outcome::Refusal(problem), Source::Kernel);
        }
    }
}

/// The rows that wait for an actor, in order.
///
/// # Errors
/// The store cannot be read.
pub fn waiting_rows(store: &Store, table: &Table) -> Result<VecDeque<RowRef>, EngineError> {
    let mut rows = VecDeque::new();
    store.view(table)?.keys(&mut |key| {
        match record::read_inbox_key(key) {
            Ok((row, weight)) => rows.push_back(RowRef { row, weight }),
            Err(error) => tracing::error!(%error, ?table, "a message that waits cannot be named"),
        }
        true
    })?;
    Ok(rows)
}
