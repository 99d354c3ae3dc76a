//! What is kept for a principal that is deleted goes: whoever is made under its name begins with nothing.
//!
//! That is every table of a principal-scope actor of its, of capsules that are not loaded as well; what waits for system actors on its
//! behalf; its dead letters; and the ids that its messages had. Deliberately not: what a capsule keeps about it in a table that all share,
//! which only that capsule can read, and its profile, which is the policy's.
//!
//! Whoever calls this has seen to it that the principal may not act. What was begun before that may still write, so each pass first ends its
//! actors and waits for handlings on its behalf; it is done when a pass finds nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use astrid_wire::control::admin::Dropped;
use bytes::Bytes;
use prost::Message as _;

use super::record::{AskRecord, DeadRecord, MessageRecord, TimerRecord, read_number_key};
use crate::capsule::Host;
use crate::capsule::actor::Actor;
use crate::store::engine::{EngineError, Span, Write};
use crate::store::table::{Kind, Scope, Table};
use crate::store::{Batch, Level, Refused, Store};

/// Rows that are deleted in one commit.
const DELETED_ROWS_MAX: usize = 10_000;

/// What principals have rows in.
const KINDS: [Kind; 7] = [
    Kind::Kv,
    Kind::Inbox,
    Kind::Timer,
    Kind::Ask,
    Kind::Pin,
    Kind::Dead,
    Kind::Once,
];

/// How long a handling that was begun may go on before it is waited for no longer: more than a guest's time.
const HANDLING_MAX: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Why not everything is gone.
#[derive(Debug, thiserror::Error)]
pub enum DepartError {
    /// Something was begun, and does not end.
    #[error("something is handled for {0} and does not end")]
    Busy(Principal),
    /// The store cannot be read.
    #[error(transparent)]
    Unreadable(#[from] EngineError),
    /// The store does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The daemon stops.
    #[error("the daemon stops")]
    Stopping,
}

/// A row of a principal's.
struct Row {
    kind: Kind,
    table: Table,
    key: Bytes,
}

/// On whose behalf the row is; `None` where that cannot be read.
fn whose(kind: Kind, value: Bytes) -> Option<String> {
    match kind {
        Kind::Inbox => Some(MessageRecord::decode(value).ok()?.principal),
        Kind::Timer => Some(TimerRecord::decode(value).ok()?.principal),
        Kind::Ask => Some(AskRecord::decode(value).ok()?.principal),
        Kind::Dead => Some(DeadRecord::decode(value).ok()?.message.principal),
        _ => None,
    }
}

/// Rows of a principal's, so many at most. Reads what waits for system actors, and all dead letters.
fn find(store: &Store, principal: &Principal, max: usize) -> Result<Vec<Row>, EngineError> {
    let mut rows = Vec::new();
    for kind in KINDS {
        for table in store.tables(kind)? {
            if rows.len() >= max {
                return Ok(rows);
            }
            let Some((_, scope)) = table.owner() else { continue };
            let mut add = |key: &[u8]| {
                let key = Bytes::copy_from_slice(key);
                let table = table.clone();
                rows.push(Row { kind, table, key });
                rows.len() < max
            };
            match scope {
                Scope::Principal(owner) if owner == *principal => store.view(&table)?.keys(&mut add)?,
                // Who acts there is who owns it.
                Scope::Principal(_) => {}
                Scope::System | Scope::Instance(_) if matches!(kind, Kind::Kv | Kind::Pin | Kind::Once) => {}
                Scope::System | Scope::Instance(_) => {
                    store
                        .view(&table)?
                        .scan(Span::ALL, &BTreeMap::new(), &mut |key, value| {
                            whose(kind, value).as_deref() != Some(principal.as_str()) || add(key)
                        })?;
                }
            }
        }
    }
    Ok(rows)
}

/// The same, on a thread that may wait.
async fn found(host: &Host, principal: &Principal, max: usize) -> Result<Vec<Row>, DepartError> {
    let (store, principal) = (Arc::clone(&host.store), principal.clone());
    let found = tokio::task::spawn_blocking(move || find(&store, &principal, max)).await;
    Ok(found.map_err(|_| DepartError::Stopping)??)
}

/// Whether something is kept for a principal.
///
/// # Errors
/// The store cannot be read.
pub async fn is_kept(host: &Host, principal: &Principal) -> Result<bool, DepartError> {
    Ok(!found(host, principal, 1).await?.is_empty())
}

/// Forgets everything that is kept for a principal that may not act: on disk when this returns.
///
/// # Errors
/// [`DepartError`]. What was forgotten until then stays so; it can be done again.
pub async fn forget(host: &Host, principal: &Principal) -> Result<Dropped, DepartError> {
    let mut dropped = Dropped::default();
    loop {
        end_actors(host, principal).await?;
        let rows = found(host, principal, DELETED_ROWS_MAX).await?;
        if rows.is_empty() {
            host.store.forget_ids();
            host.changed.notify_one();
            return Ok(dropped);
        }
        delete(host, &rows).await?;
        for row in &rows {
            *match row.kind {
                Kind::Kv => &mut dropped.keys,
                Kind::Inbox => &mut dropped.messages,
                Kind::Timer => &mut dropped.timers,
                Kind::Dead => &mut dropped.letters,
                _ => &mut dropped.others,
            } += 1;
        }
    }
}

/// Deletes rows, on disk when this returns.
async fn delete(host: &Host, rows: &[Row]) -> Result<(), DepartError> {
    host.store.room().await;
    let epoch = host.store.epoch();
    let writes = rows
        .iter()
        .map(|row| Write::delete(row.table.clone(), row.key.clone()))
        .collect();
    let sequenced = host.store.sequence(Batch {
        writes,
        once: Vec::new(),
        level: Level::Durable,
        shared: None,
        epoch,
        now_ms: host.deadlines.clock().wall_ms(),
    })?;
    host.store.settled(sequenced.number, epoch).await?;
    for row in rows.iter().filter(|row| row.kind == Kind::Timer) {
        if let Ok(id) = read_number_key(&row.key) {
            host.durable.timers.cancel(id);
        }
    }
    // What is counted as waiting for who is stood in for is what is there.
    host.durable.absent.look_again();
    Ok(())
}

/// Ends a principal's actors, and waits until nothing is handled on its behalf.
async fn end_actors(host: &Host, principal: &Principal) -> Result<(), DepartError> {
    let mut actors: Vec<Arc<Actor>> = Vec::new();
    for capsule in host.durable.directory.all() {
        actors.extend(capsule.end_of(principal));
        actors.extend(capsule.all());
    }
    // Its connections are closed; one of them that waits for its window goes on, and finds that.
    let theirs = |actor: &&Arc<Actor>| actor.connection().is_some_and(|c| c.principal() == *principal);
    actors.iter().filter(theirs).for_each(|actor| actor.end());
    let until = Instant::now() + HANDLING_MAX;
    loop {
        actors.retain(|actor| actor.handles_for(principal));
        if actors.is_empty() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(DepartError::Busy(principal.clone()));
        }
        host.deadlines.until(host.deadlines.now() + LOOK_EVERY).await;
    }
}
