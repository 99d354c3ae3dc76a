//! What of an actor is kept: messages that wait for it, its timers, what it asked, what was given up.
//!
//! - [`record`]: the forms on disk; [`directory`]: whose they are;
//! - [`outbox`]: what is said while its commit is not on disk; [`timers`]: timers that outlive their owner;
//! - [`absent`]: who keeps for capsules that are not there;
//! - [`recover`]: what happens at the start, and after the store failed;
//! - [`dead`]: what operators do with what was given up; [`departed`]: how all of a principal's is forgotten.
//!
//! A message that is kept is one row in its receiver's inbox, written by the commit of who sent it and removed by the commit of its
//! handling. Both are single transactions of one store, so nothing needs to be compared to know what was done already: a message whose
//! row is there has had no effect, and one whose row is gone has had all of it.

pub mod absent;
pub mod dead;
pub mod departed;
pub mod directory;
mod letter;
pub mod outbox;
pub mod record;
pub mod recover;
pub mod timers;

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use self::directory::Directory;
pub use self::directory::Owner;
use self::outbox::Outbox;
use self::record::{AskRecord, DeadRecord, MessageRecord};
use self::timers::DurableTimers;
use super::Host;
use crate::authority::{Permit, Say};
use crate::bus::inbox::NoPlace;
use crate::bus::message::{CommandId, Ids, Kind, Message};
use crate::bus::{Saying, Slots};
use crate::deadlines::Deadlines;
use crate::store::engine::{EngineError, Write};
use crate::store::table;
use crate::store::{Batch, Level, Once, Refused, Store};

/// Bytes of an ask's key: the message that it came of, and its place.
const ASK_KEY_BYTES: usize = 20;

/// The parts that know what is kept.
#[derive(Debug)]
pub struct Durable {
    /// Who there is.
    pub directory: Arc<Directory>,
    /// What waits for its seal.
    pub outbox: Outbox,
    /// Timers.
    pub timers: Arc<DurableTimers>,
    /// Who is stood in for.
    pub absent: absent::Absent,
    /// How many messages were given up.
    pub letters: dead::Counts,
}

impl Durable {
    /// Nobody yet, nothing waiting. `fired` is the topic of timers.
    pub fn new(deadlines: &Arc<Deadlines>, ids: &Arc<Ids>, fired: astrid_wire::Topic) -> Self {
        let directory = Arc::new(Directory::default());
        Self {
            timers: DurableTimers::new(Arc::clone(&directory), Arc::clone(deadlines), Arc::clone(ids), fired),
            directory,
            outbox: Outbox::default(),
            absent: absent::Absent::default(),
            letters: dead::Counts::default(),
        }
    }
}

impl Durable {
    /// Messages in the store that wait for actors that are there, or are being handled. O(actors).
    pub fn waiting(&self) -> u64 {
        let all = self.directory.all();
        let actors = all.iter().flat_map(|actors| actors.present());
        actors.map(|actor| actor.waiting()).sum()
    }
}

/// The rows of a message, one for each receiver that keeps it. The places know theirs afterwards.
pub fn rows(store: &Store, message: &Message, slots: &mut Slots) -> Vec<Write> {
    let mut encoded = None;
    let kept = slots.kept();
    let rows = kept.filter_map(|slot| {
        let row = store.row();
        let table = slot.table()?.clone();
        slot.keep_as(row);
        let value: &Bytes = encoded.get_or_insert_with(|| MessageRecord::of(message).to_bytes());
        Some(Write::put(
            table,
            record::inbox_key(row, message.body.bytes.len()),
            value.clone(),
        ))
    });
    rows.collect()
}

/// The key of an ask that is kept.
pub fn ask_key(id: CommandId) -> Bytes {
    let mut key = BytesMut::with_capacity(ASK_KEY_BYTES);
    key.put_u64(id.cause.boot);
    key.put_u64(id.cause.sequence);
    key.put_u32(id.ordinal);
    key.freeze()
}

/// The row of an ask that is kept.
pub fn ask_row(owner: &Owner, id: CommandId, say: &Say, saying: &Saying, timeout: Duration) -> Write {
    let record = AskRecord {
        topic: say.topic.as_str().to_owned(),
        principal: saying.principal.as_str().to_owned(),
        content_type: saying.body.content_type.as_str().to_owned(),
        body: saying.body.bytes.clone(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    Write::put(owner.table(table::Kind::Ask), ask_key(id), record.encode_to_vec())
}

/// The only key of the table that says that an actor is pinned.
const PIN_KEY: &[u8] = b"pinned";

/// The row that says that an actor is never evicted, or its removal.
pub fn pin_row(owner: &Owner, pinned: bool) -> Write {
    Write {
        table: owner.table(table::Kind::Pin),
        key: Bytes::from_static(PIN_KEY),
        value: pinned.then(|| Bytes::from_static(b"1")),
    }
}

/// Whether an actor is pinned.
///
/// # Errors
/// The store cannot be read.
pub fn is_pinned(store: &Store, owner: &Owner) -> Result<bool, EngineError> {
    Ok(store.view(&owner.table(table::Kind::Pin))?.get(PIN_KEY)?.is_some())
}

/// The row of a message that is given up.
pub fn dead_row(store: &Store, owner: &Owner, message: MessageRecord, code: &str, reason: &str, now_ms: u64) -> Write {
    let record = DeadRecord {
        message,
        code: code.to_owned(),
        reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned(),
        died_at_ms: now_ms,
    };
    Write::put(
        owner.table(table::Kind::Dead),
        record::number_key(store.row()),
        record.encode_to_vec(),
    )
}

/// Bytes of the reason that is kept with a message that is given up.
const REASON_BYTES_MAX: usize = 1024;

/// Why the kernel could not say something that is kept.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// A receiver has no place.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] Refused),
}

/// Says something on behalf of nobody's handling, kept where its receivers keep: on disk when this returns, and delivered then.
/// `id`: only if no message of this principal had it.
///
/// # Errors
/// [`SubmitError`]; it was not said.
pub async fn submit(host: &Host, say: Permit<Say>, saying: Saying, id: Option<Bytes>) -> Result<bool, SubmitError> {
    let mut slots = host.bus.reserve(&say, &saying)?;
    let principal = saying.principal.clone();
    let message = host.bus.compose(say, saying, Kind::Event, None);
    let writes = rows(&host.store, &message, &mut slots);
    let (writes, once) = match id {
        None => (writes, Vec::new()),
        Some(id) => (Vec::new(), vec![Once { principal, id, writes }]),
    };
    let epoch = host.store.epoch();
    let sequenced = host.store.sequence(Batch {
        writes,
        once,
        level: Level::Durable,
        shared: None,
        epoch,
        now_ms: host.deadlines.clock().wall_ms(),
    })?;
    let new = sequenced.admitted != [false];
    if new {
        // It is heard also when whoever submitted it does not wait for that.
        host.durable
            .outbox
            .push_said(sequenced.number, host.store.sealed(), &host.bus, message, slots);
    }
    host.store.settled(sequenced.number, epoch).await?;
    Ok(new)
}
