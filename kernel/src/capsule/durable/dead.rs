//! Dead letters: messages that were given up, kept until somebody says what becomes of them.
//!
//! Whoever gives a message up writes the row; here is what operators do with rows, and the bound on how many there are. Everything is
//! by capsule and, within one, by age, whichever of its actors a letter was for: the number of a row is given once in the life of a
//! store, so `<capsule>:<row>` names a letter for good.
//!
//! Two of these functions must not run at once over one store: the control loop is where both are called.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use astrid_wire::control::dead::{Done, Failed, IDS_MAX, Letter, ListRequest, PAGE_MAX, Page, Selection, Shown};
use astrid_wire::problem::codes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use parking_lot::Mutex;

pub use super::letter::{DeadError, LetterId};
use super::record::{DeadRecord, Unreadable, inbox_key, number_key, read_number_key};
use crate::bus::message::MessageId;
use crate::store::engine::{EngineError, Write};
use crate::store::table::{Kind, Scope, Table};
use crate::store::{Batch, Level, Store};

/// Letters of a capsule at most: what one that fails on everything leaves must not fill the disk. The oldest go.
pub const LETTERS_MAX: usize = 10_000;

/// How many go at once: counting and sorting all of them is then rare, whatever the rate.
pub const EVICTED_AT_ONCE: usize = 100;

/// Letters of a page when nothing was said.
const PAGE: u32 = 100;

/// Letters that are looked at for one answer at most, also when few of them match.
const LOOKED_AT_MAX: usize = 2000;

/// Bytes of rows that are read for one answer at most; it ends with the first row beyond.
const READ_BYTES_MAX: usize = 8 << 20;

/// Bytes of a body that are shown at most: an answer must fit into a frame, in base64.
pub const SHOWN_BYTES_MAX: usize = 8 << 20;

/// A message that is in an inbox again: its actor does not know yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requeued {
    /// Whose.
    pub capsule: String,
    /// Which of its actors.
    pub scope: Scope,
    /// The number of its new row.
    pub row: u64,
    /// Bytes of its body.
    pub weight: u32,
}

/// What was sequenced. It counts once [`Changed::commit`] has settled.
#[derive(Debug, Default)]
pub struct Changed {
    /// What to tell who asked.
    pub done: Done,
    /// What to wait for: the last number, and the epoch of the store before the first.
    pub commit: Option<(u64, u64)>,
    /// Whom to tell then.
    pub requeued: Vec<Requeued>,
}

/// A letter's row, not read.
#[derive(Clone, Debug)]
struct Place {
    id: LetterId,
    scope: Scope,
    table: Table,
}

impl Place {
    fn key(&self) -> Bytes {
        number_key(self.id.row)
    }

    fn value(&self, store: &Store) -> Result<Bytes, DeadError> {
        let value = store.view(&self.table)?.get(&self.key())?;
        value.ok_or_else(|| DeadError::NotFound(self.id.clone()))
    }

    fn record(&self, value: Bytes) -> Result<DeadRecord, DeadError> {
        <DeadRecord as prost::Message>::decode(value).map_err(|_| DeadError::Unreadable(self.id.clone()))
    }

    fn actor(&self) -> String {
        match &self.scope {
            Scope::System => String::new(),
            Scope::Instance(n) => format!("#{n}"),
            Scope::Principal(principal) => principal.to_string(),
        }
    }

    /// Everything but the body.
    fn letter(&self, record: Option<&DeadRecord>) -> Letter {
        let empty = DeadRecord::default();
        let (code, reason) = match record {
            Some(record) => (record.code.clone(), record.reason.clone()),
            None => (codes::INVALID.to_owned(), Unreadable.to_string()),
        };
        let record = record.unwrap_or(&empty);
        let message = &record.message;
        let id = MessageId {
            boot: message.boot,
            sequence: message.sequence,
        };
        Letter {
            id: self.id.to_string(),
            capsule: self.id.capsule.clone(),
            actor: self.actor(),
            topic: message.topic.clone(),
            principal: message.principal.clone(),
            source: message.capsule.clone(),
            message_id: id.to_string(),
            content_type: message.content_type.clone(),
            body_bytes: message.body.len() as u64,
            code,
            reason,
            died_at_ms: record.died_at_ms,
            attempts: message.attempts,
        }
    }
}

/// The tables of dead letters, by capsule.
fn tables(store: &Store, only: Option<&str>) -> Result<BTreeMap<String, Vec<(Scope, Table)>>, EngineError> {
    let mut all: BTreeMap<String, Vec<(Scope, Table)>> = BTreeMap::new();
    for table in store.tables(Kind::Dead)? {
        // What this program did not write is not looked at.
        let Some((capsule, scope)) = table.owner() else {
            continue;
        };
        if only.is_none_or(|only| only == capsule) {
            let capsule = capsule.to_owned();
            all.entry(capsule).or_default().push((scope, table));
        }
    }
    Ok(all)
}

/// A capsule's letters after a row, the oldest first. Reads keys only.
fn places(
    store: &Store,
    capsule: &str,
    tables: Vec<(Scope, Table)>,
    after: Option<u64>,
) -> Result<Vec<Place>, EngineError> {
    let mut places = Vec::new();
    for (scope, table) in tables {
        store.view(&table)?.keys(&mut |key| {
            if let Ok(row) = read_number_key(key)
                && after.is_none_or(|after| row > after)
            {
                places.push(Place {
                    id: LetterId {
                        capsule: capsule.to_owned(),
                        row,
                    },
                    scope: scope.clone(),
                    table: table.clone(),
                });
            }
            true
        })?;
    }
    places.sort_by_key(|place| place.id.row);
    Ok(places)
}

/// What became of one letter on a walk.
enum Step {
    /// Go on; so many bytes were read.
    Read(usize),
    /// This was the last that the answer has room for.
    Full,
}

/// Goes over letters in their order. Returns where to go on, if that was not all.
fn walk(
    store: &Store,
    capsule: Option<&str>,
    after: Option<&str>,
    mut each: impl FnMut(&Place) -> Result<Step, DeadError>,
) -> Result<Option<String>, DeadError> {
    let after = after.map(str::parse::<LetterId>).transpose()?;
    let (mut looked_at, mut read) = (0, 0);
    for (name, tables) in tables(store, capsule)? {
        let after_row = match &after {
            Some(after) if after.capsule > name => continue,
            Some(after) if after.capsule == name => Some(after.row),
            _ => None,
        };
        for place in places(store, &name, tables, after_row)? {
            let step = each(&place)?;
            looked_at += 1;
            if let Step::Read(bytes) = step {
                read += bytes;
            }
            if matches!(step, Step::Full) || looked_at >= LOOKED_AT_MAX || read >= READ_BYTES_MAX {
                return Ok(Some(place.id.to_string()));
            }
        }
    }
    Ok(None)
}

/// Letters, by capsule and age.
///
/// # Errors
/// The id to go on from is none, or the store cannot be read.
pub fn list(store: &Store, request: &ListRequest) -> Result<Page, DeadError> {
    let max = request.max.unwrap_or(PAGE).clamp(1, PAGE_MAX) as usize;
    let mut letters = Vec::new();
    let next = walk(store, request.capsule.as_deref(), request.after.as_deref(), |place| {
        let value = match place.value(store) {
            Err(DeadError::NotFound(_)) => return Ok(Step::Read(0)),
            other => other?,
        };
        let bytes = value.len();
        let letter = place.letter(place.record(value).ok().as_ref());
        if request.principal.as_ref().is_none_or(|p| *p == letter.principal) {
            letters.push(letter);
        }
        Ok(if letters.len() >= max {
            Step::Full
        } else {
            Step::Read(bytes)
        })
    })?;
    Ok(Page { letters, next })
}

/// Finds a letter by its id.
fn find(store: &Store, id: &str) -> Result<Place, DeadError> {
    let id: LetterId = id.parse()?;
    let key = number_key(id.row);
    for (scope, table) in tables(store, Some(&id.capsule))?.into_values().flatten() {
        if store.view(&table)?.get(&key)?.is_some() {
            return Ok(Place { id, scope, table });
        }
    }
    Err(DeadError::NotFound(id))
}

/// A letter with its body.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn show(store: &Store, id: &str) -> Result<Shown, DeadError> {
    let place = find(store, id)?;
    let record = place.record(place.value(store)?)?;
    let body = &record.message.body;
    Ok(Shown {
        letter: place.letter(Some(&record)),
        body_base64: BASE64.encode(&body[..body.len().min(SHOWN_BYTES_MAX)]),
    })
}

/// Does something with each letter of a selection, a durable commit for each.
fn change(
    store: &Store,
    selection: &Selection,
    now_ms: u64,
    mut writes: impl FnMut(&Place, &mut Changed) -> Result<(Vec<Write>, usize), DeadError>,
) -> Result<Changed, DeadError> {
    match (selection.all, selection.ids.len()) {
        (true, 1..) => return Err(DeadError::Selection("both")),
        (false, 0) => return Err(DeadError::Selection("neither")),
        (_, count) if count > IDS_MAX => return Err(DeadError::TooMany(count)),
        _ => {}
    }
    let mut changed = Changed::default();
    let epoch = store.epoch();
    let mut one = |place: &Place, changed: &mut Changed| -> Result<usize, DeadError> {
        let requeued = changed.requeued.len();
        let (writes, read) = writes(place, changed)?;
        let batch = Batch {
            writes,
            once: Vec::new(),
            level: Level::Durable,
            shared: None,
            epoch,
            now_ms,
        };
        let sequenced = store
            .sequence(batch)
            .inspect_err(|_| changed.requeued.truncate(requeued))?;
        changed.commit = Some((sequenced.number, epoch));
        changed.done.ids.push(place.id.to_string());
        Ok(read)
    };
    let fail = |id: &str, error: &DeadError| Failed {
        id: id.to_owned(),
        code: error.code().to_owned(),
        message: error.to_string(),
    };
    if selection.all {
        let mut stopped = false;
        let next = walk(
            store,
            selection.capsule.as_deref(),
            selection.after.as_deref(),
            |place| {
                let read = match one(place, &mut changed) {
                    Ok(read) => read,
                    Err(DeadError::NotFound(_)) => 0,
                    Err(error @ (DeadError::Unreadable(_) | DeadError::NoReceiver(_))) => {
                        changed.done.failed.push(fail(&place.id.to_string(), &error));
                        0
                    }
                    // What was sequenced before stays, and is told; whoever goes on hears the error then.
                    Err(_) if !changed.done.ids.is_empty() => {
                        stopped = true;
                        return Ok(Step::Full);
                    }
                    Err(error) => return Err(error),
                };
                Ok(if changed.done.ids.len() >= IDS_MAX {
                    Step::Full
                } else {
                    Step::Read(read)
                })
            },
        )?;
        changed.done.next = if stopped {
            changed.done.ids.last().cloned()
        } else {
            next
        };
    } else {
        for id in &selection.ids {
            if let Err(error) = find(store, id).and_then(|place| one(&place, &mut changed)) {
                changed.done.failed.push(fail(id, &error));
            }
        }
    }
    Ok(changed)
}

/// Forgets letters.
///
/// # Errors
/// Nothing happened. What is wrong with a single id is told in the answer.
pub fn drop_letters(store: &Store, selection: &Selection, now_ms: u64) -> Result<Changed, DeadError> {
    change(store, selection, now_ms, |place, _| {
        Ok((vec![Write::delete(place.table.clone(), place.key())], 0))
    })
}

/// Puts letters back into the inboxes that they came from, as if they had never been tried. In one commit with the end of the letter:
/// there is never both, and never neither. `running` says which capsules handle messages; letters of others stay.
///
/// # Errors
/// Nothing happened. What is wrong with a single id is told in the answer.
pub fn retry(
    store: &Store,
    selection: &Selection,
    now_ms: u64,
    running: &dyn Fn(&str) -> bool,
) -> Result<Changed, DeadError> {
    change(store, selection, now_ms, |place, changed| {
        if !running(&place.id.capsule) {
            return Err(DeadError::NoReceiver(place.id.capsule.clone()));
        }
        let value = place.value(store)?;
        let read = value.len();
        let mut message = place.record(value)?.message;
        (message.attempts, message.faults) = (0, 0);
        let row = store.row();
        let bytes = message.body.len();
        changed.requeued.push(Requeued {
            capsule: place.id.capsule.clone(),
            scope: place.scope.clone(),
            row,
            weight: u32::try_from(bytes).unwrap_or(u32::MAX),
        });
        let inbox = Table::of(Kind::Inbox, &place.id.capsule, &place.scope);
        let writes = vec![
            Write::delete(place.table.clone(), place.key()),
            Write::put(inbox, inbox_key(row, bytes), message.to_bytes()),
        ];
        Ok((writes, read))
    })
}

/// How many letters capsules have, never too few: so that making room need not count each time.
#[derive(Debug, Default)]
pub struct Counts(Mutex<HashMap<Arc<str>, usize, ahash::RandomState>>);

/// What must go so that a capsule can have one more letter: the oldest. Usually nothing; the writes belong into the commit that adds the
/// letter. Counts the new one.
///
/// # Errors
/// The store cannot be read; then the letter may be added all the same.
pub fn make_room(store: &Store, counts: &Counts, capsule: &Arc<str>) -> Result<Vec<Write>, EngineError> {
    let mut counts = counts.0.lock();
    if let Some(count) = counts.get_mut(capsule)
        && *count < LETTERS_MAX
    {
        *count += 1;
        return Ok(Vec::new());
    }
    // Unknown, or perhaps at the limit: what was dropped or retried is not subtracted.
    let tables = tables(store, Some(capsule))?.remove(&**capsule).unwrap_or_default();
    let places = places(store, capsule, tables, None)?;
    let over = (places.len() + 1).saturating_sub(LETTERS_MAX);
    let leaving = if over == 0 { 0 } else { over + EVICTED_AT_ONCE - 1 };
    let leaving = leaving.min(places.len());
    counts.insert(Arc::clone(capsule), places.len() - leaving + 1);
    if leaving > 0 {
        tracing::error!(
            %capsule,
            letters = leaving,
            "dead letters are lost: there are too many, and the oldest go"
        );
    }
    let writes = places.iter().take(leaving);
    Ok(writes
        .map(|place| Write::delete(place.table.clone(), place.key()))
        .collect())
}

#[cfg(test)]
#[path = "dead_tests.rs"]
mod tests;
