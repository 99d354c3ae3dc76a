//! The queue in front of one receiver.
//!
//! One first-in-first-out queue, so that what one sender says arrives in the order it was said, with three limits on what may
//! enter it: places per subscription (a *lane*), bytes in all, and none for what somebody already paid for (answers to
//! asks this receiver made, events of ports under credit, lifecycle messages), which therefore always finds room.
//!
//! A place is *reserved* when a message is published inside a transaction and *filled* when that commits, so a commit cannot
//! fail on a full queue. A reservation that is dropped gives its place back.
//!
//! A *durable* lane's messages are rows in the store, written by the sender's commit. The queue holds the first of them as messages and
//! the rest as row numbers, which whoever receives reads from the store when their turn comes: a long queue costs a few bytes
//! a message. What is here is a copy: a receiver that ends, or a store that fails, loses nothing.

mod place;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use astrid_wire::manifest::Overflow;
use parking_lot::Mutex;

pub use self::place::NoPlace;
use super::message::{CommandId, Message, PortId};
use crate::ledger::{Account, Hold, Limit};
use crate::store::VALUE_BYTES_MAX;
use crate::store::table::Table;

/// Bytes of bodies waiting for one receiver at most; a larger backlog is a full queue. Two of the largest bodies.
pub const INBOX_BYTES_MAX: usize = 2 * super::message::BODY_BYTES_MAX;

/// Bytes of bodies that wait on disk for one receiver at most; a larger backlog is a full queue.
pub const DURABLE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of the body of a durable message at most: with what is said about it, it is one value of the store.
pub const DURABLE_BODY_BYTES_MAX: usize = VALUE_BYTES_MAX - (8 << 10);

/// Durable messages that are held in memory as well, of one receiver.
const LOADED_MAX: u32 = 256;

/// Bytes of those.
const LOADED_BYTES_MAX: usize = 4 << 20;

/// What a subscription allows to wait, and what happens beyond.
#[derive(Clone, Copy, Debug)]
pub struct LanePolicy {
    /// Messages waiting at most.
    pub capacity: u32,
    /// What gives way when that is reached.
    pub overflow: Overflow,
    /// How often a message whose handling failed is tried again.
    pub retry: u32,
    /// Whether messages are kept in the store until they are handled.
    pub durable: bool,
    /// Whether what one sender says later waits while an earlier message of it is tried again.
    pub ordered: bool,
}

/// What the store keeps of a delivery, until the commit of its handling removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A row of the receiver's inbox.
    Row(RowRef),
    /// A durable timer that fired.
    Timer(PortId),
    /// A durable ask of the receiver's that was settled.
    Ask(CommandId),
}

/// Names a row of an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowRef {
    /// Its number, which orders.
    pub row: u64,
    /// Bytes of its body.
    pub weight: u32,
}

/// Told, by being dropped, that a port's event was consumed (or given up): its port may deliver the next one.
pub trait Credit: Send + Sync {}

/// A message on its way into `handle`.
pub struct Delivery {
    /// What was said.
    pub message: Arc<Message>,
    /// Which subscription heard it; `None` for what needs no place.
    lane: Option<u16>,
    /// 1 at first, counting up.
    pub attempt: u32,
    /// Times that handling it ended in a fault.
    pub faults: u32,
    /// Messages dropped from this lane since the one before.
    pub lost: u32,
    /// Held until the message is done with.
    pub credit: Option<Box<dyn Credit>>,
    /// What the store keeps of it.
    pub kept: Option<Kept>,
    /// Of the queue, when this entered it: after a failure of the store it is void.
    era: u32,
}

impl Delivery {
    fn new(message: Arc<Message>, lane: Option<u16>) -> Self {
        Self {
            message,
            lane,
            attempt: 1,
            faults: 0,
            lost: 0,
            credit: None,
            kept: None,
            era: 0,
        }
    }

    /// A message that was read from the store, heard by that lane.
    pub fn read(message: Arc<Message>, lane: u16, row: RowRef) -> Self {
        Self {
            kept: Some(Kept::Row(row)),
            ..Self::new(message, Some(lane))
        }
    }

    /// Which subscription of its receiver heard it.
    pub fn lane(&self) -> Option<usize> {
        self.lane.map(usize::from)
    }

    fn weight(&self) -> usize {
        self.message.body.bytes.len()
    }
}

/// What a receiver gets.
pub enum Next {
    /// A message.
    Message(Delivery),
    /// A message that is to be read from the store.
    Row(RowRef),
}

/// One or several that wait.
enum Entry {
    Message(Delivery),
    Rows(VecDeque<RowRef>),
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    policy: LanePolicy,
    /// Waiting and reserved.
    taken: u32,
    /// Dropped since the last delivery.
    lost: u32,
}

/// What waits on disk, with what is promised.
#[derive(Clone, Copy, Default)]
struct Disk {
    messages: u32,
    bytes: u64,
    /// Of those, promised.
    reserved: u32,
    reserved_bytes: u64,
    /// Of those, held in memory as well.
    loaded: u32,
    loaded_bytes: usize,
}

struct State {
    /// What of the disk's bytes is counted by a quota.
    held: Option<Hold>,
    queue: VecDeque<Entry>,
    lanes: Vec<Lane>,
    /// Bytes waiting and reserved, without those on disk.
    bytes: usize,
    disk: Disk,
    /// Places promised and not yet filled.
    reserved: u32,
    /// Messages that come back later.
    later: u32,
    era: u32,
    closed: bool,
    /// Wakes the receiver.
    receiver: Option<Waker>,
}

/// One receiver's queue.
pub struct Inbox {
    name: Arc<str>,
    /// Where durable messages of this receiver are kept.
    table: Option<Table>,
    /// Nobody reads it: what the store keeps is counted, and nothing else is taken.
    absent: bool,
    /// Whose quota counts what waits on disk.
    payer: OnceLock<Arc<Account>>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Inbox {
    /// An empty queue. The name is what senders are told when it is full.
    pub fn new(name: Arc<str>, lanes: &[LanePolicy]) -> Arc<Self> {
        Self::with_table(name, lanes, None)
    }

    /// As [`Inbox::new`], for a receiver whose durable messages are kept in a table.
    pub fn with_table(name: Arc<str>, lanes: &[LanePolicy], table: Option<Table>) -> Arc<Self> {
        Self::make(name, lanes, table, false)
    }

    /// As [`Inbox::with_table`], for a receiver that is not there: what is kept waits for it, and nothing else is taken.
    pub fn of_absent(name: Arc<str>, lanes: &[LanePolicy], table: Table) -> Arc<Self> {
        Self::make(name, lanes, Some(table), true)
    }

    fn make(name: Arc<str>, lanes: &[LanePolicy], table: Option<Table>, absent: bool) -> Arc<Self> {
        let lanes = lanes
            .iter()
            .map(|&policy| Lane {
                policy,
                taken: 0,
                lost: 0,
            })
            .collect();
        Arc::new(Self {
            name,
            table,
            absent,
            payer: OnceLock::new(),
            state: Mutex::new(State {
                held: None,
                queue: VecDeque::new(),
                lanes,
                bytes: 0,
                disk: Disk::default(),
                reserved: 0,
                later: 0,
                era: 0,
                closed: false,
                receiver: None,
            }),
        })
    }

    /// Who receives.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What waits on disk is counted by that principal's quota from now on.
    pub fn charge_to(&self, account: &Arc<Account>) {
        let mut state = self.state.lock();
        if self.payer.set(Arc::clone(account)).is_ok() {
            state.held = Some(account.hold_anyway(Limit::Storage, 0));
            state.meter();
        }
    }

    /// Reserves a place in a lane for a body of that many bytes.
    ///
    /// # Errors
    /// [`NoPlace`], when it is full by its policy, too large for it, or closed.
    pub fn reserve(self: &Arc<Self>, lane: u16, bytes: usize) -> Result<Slot, NoPlace> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(NoPlace::Closed(Arc::clone(&self.name)));
        }
        let full = || NoPlace::Full(Arc::clone(&self.name));
        let policy = state.lanes.get(usize::from(lane)).ok_or_else(full)?.policy;
        let mut dropped = None;
        let durable = policy.durable && self.table.is_some();
        if durable {
            if bytes > DURABLE_BODY_BYTES_MAX {
                return Err(NoPlace::TooLarge(Arc::clone(&self.name)));
            }
            let disk = &mut state.disk;
            if disk.messages >= policy.capacity || disk.bytes + bytes as u64 > DURABLE_BYTES_MAX {
                return Err(full());
            }
            if let Some(held) = &mut state.held {
                held.grow_state(bytes as u64)
                    .map_err(|e| NoPlace::OverQuota(Box::new(e)))?;
            }
            let disk = &mut state.disk;
            disk.messages += 1;
            disk.reserved += 1;
            disk.bytes += bytes as u64;
            disk.reserved_bytes += bytes as u64;
        } else {
            dropped = state.make_room(lane, policy, bytes).map_err(|()| full())?;
            state.lanes[usize::from(lane)].taken += 1;
            state.bytes += bytes;
        }
        state.reserved += 1;
        drop(state);
        drop(dropped);
        Ok(Slot {
            inbox: Arc::clone(self),
            lane,
            bytes,
            durable,
            row: None,
            filled: false,
        })
    }

    /// Delivers what needs no place: an answer, a port's event, a lifecycle message. False when the receiver has ended.
    pub fn push(&self, message: Arc<Message>, credit: Option<Box<dyn Credit>>) -> bool {
        let delivery = Delivery {
            credit,
            ..Delivery::new(message, None)
        };
        self.enqueue(delivery, false)
    }

    /// As [`Inbox::push`], for something that the store keeps until it was handled.
    pub fn push_kept(&self, message: Arc<Message>, kept: Kept) -> bool {
        let delivery = Delivery {
            kept: Some(kept),
            ..Delivery::new(message, None)
        };
        self.enqueue(delivery, false)
    }

    /// As [`Inbox::push`], ahead of everything that waits.
    pub fn push_first(&self, message: Arc<Message>) -> bool {
        self.enqueue(Delivery::new(message, None), true)
    }

    /// Puts a message back that is to be tried again; it steps aside for what waits.
    pub fn retry(&self, mut delivery: Delivery) -> bool {
        delivery.attempt += 1;
        self.enqueue_again(delivery, false)
    }

    /// Puts a message back as it was, ahead of everything.
    pub fn put_back(&self, delivery: Delivery) -> bool {
        self.enqueue_again(delivery, true)
    }

    fn enqueue_again(&self, delivery: Delivery, first: bool) -> bool {
        let mut state = self.state.lock();
        if delivery.kept.is_some() && delivery.era != state.era {
            // It was read again from the store since.
            return false;
        }
        match (&delivery.kept, delivery.lane()) {
            (Some(Kept::Row(row)), _) => {
                state.disk.messages += 1;
                state.disk.bytes += u64::from(row.weight);
                state.disk.loaded += 1;
                state.disk.loaded_bytes += delivery.weight();
            }
            (_, Some(lane)) => state.lanes[lane].taken += 1,
            _ => {}
        }
        self.insert(state, delivery, first)
    }

    /// A delivery that was made of a row that was taken out: void after the next failure of the store.
    pub fn adopt(&self, delivery: &mut Delivery) {
        delivery.era = self.state.lock().era;
    }

    /// A message will come back by [`Inbox::retry`] or [`Inbox::put_back`] and is missed until [`Inbox::unhold`]: the queue is not idle.
    pub fn hold(&self) {
        self.state.lock().later += 1;
    }

    /// It came back, or will not.
    pub fn unhold(&self) {
        let mut state = self.state.lock();
        state.later = state.later.saturating_sub(1);
    }

    /// A row that was taken out waits elsewhere until it comes back by [`Inbox::put_rows_back`]; its place stays taken.
    pub fn park(&self, row: RowRef) {
        let mut state = self.state.lock();
        state.disk.messages += 1;
        state.disk.bytes += u64::from(row.weight);
        state.meter();
    }

    /// Rows that waited elsewhere, ahead of everything that waits, in their order.
    pub fn put_rows_back(&self, rows: Vec<RowRef>) {
        if rows.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        state.queue.push_front(Entry::Rows(rows.into()));
        wake(state);
    }

    /// A row that somebody else than a sender's commit put into the table.
    pub fn add_row(&self, row: RowRef) {
        let mut state = self.state.lock();
        state.disk.messages += 1;
        state.disk.bytes += u64::from(row.weight);
        state.push_row(row);
        wake(state);
    }

    /// Forgets everything that the store keeps, and takes these rows, which it has, in its place. What was taken out before is void.
    pub fn restore(&self, rows: VecDeque<RowRef>) {
        let mut state = self.state.lock();
        state.era += 1;
        let Disk {
            reserved,
            reserved_bytes,
            ..
        } = state.disk;
        let mut void = 0;
        state.queue.retain(|entry| match entry {
            Entry::Message(delivery) if delivery.kept.is_none() => true,
            // Rows were not counted among what is in memory.
            Entry::Message(delivery) if !matches!(delivery.kept, Some(Kept::Row(_))) => {
                void += delivery.weight();
                false
            }
            _ => false,
        });
        state.bytes = state.bytes.saturating_sub(void);
        state.disk = Disk {
            messages: reserved + u32::try_from(rows.len()).unwrap_or(u32::MAX),
            bytes: reserved_bytes + rows.iter().map(|r| u64::from(r.weight)).sum::<u64>(),
            reserved,
            reserved_bytes,
            ..Disk::default()
        };
        if !rows.is_empty() {
            state.queue.push_back(Entry::Rows(rows));
        }
        wake(state);
    }

    fn enqueue(&self, delivery: Delivery, first: bool) -> bool {
        self.insert(self.state.lock(), delivery, first)
    }

    fn insert(&self, mut state: parking_lot::MutexGuard<'_, State>, mut delivery: Delivery, first: bool) -> bool {
        if state.closed {
            return false;
        }
        delivery.era = state.era;
        if !matches!(delivery.kept, Some(Kept::Row(_))) {
            state.bytes += delivery.weight();
        }
        let entry = Entry::Message(delivery);
        if first {
            state.queue.push_front(entry);
        } else {
            state.queue.push_back(entry);
        }
        wake(state);
        true
    }

    /// What comes next; pending until there is something, `None` once closed. Where `kept` is false, what the store keeps is left
    /// where it is.
    pub fn poll_entry(&self, cx: &Context<'_>, kept: bool) -> Poll<Option<Next>> {
        let mut state = self.state.lock();
        if let Some(next) = state.take(kept) {
            return Poll::Ready(Some(next));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        match &mut state.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// As [`Inbox::poll_entry`], for receivers without durable lanes.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        match std::task::ready!(self.poll_entry(cx, false)) {
            Some(Next::Message(delivery)) => Poll::Ready(Some(delivery)),
            // Rows are left where they are.
            Some(Next::Row(_)) | None => Poll::Ready(None),
        }
    }

    /// Takes out what is chosen among the messages in memory that the store does not keep, wherever they wait, and is woken by what
    /// arrives next. Looks at everything that waits.
    pub fn poll_chosen(&self, cx: &Context<'_>, chosen: impl Fn(&Message) -> bool) -> Vec<Delivery> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        let queue = std::mem::take(&mut state.queue);
        for entry in queue {
            match entry {
                Entry::Message(delivery) if delivery.kept.is_none() && chosen(&delivery.message) => {
                    state.bytes -= delivery.weight();
                    if let Some(lane) = delivery.lane() {
                        state.lanes[lane].taken = state.lanes[lane].taken.saturating_sub(1);
                    }
                    taken.push(delivery);
                }
                other => state.queue.push_back(other),
            }
        }
        state.receiver = Some(cx.waker().clone());
        drop(state);
        taken
    }

    /// The next message, if there is one now.
    pub fn try_next(&self) -> Option<Delivery> {
        match self.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Ready(delivery) => delivery,
            Poll::Pending => None,
        }
    }

    /// Waits for the next message; `None` once closed.
    pub async fn next(&self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Ends the queue and returns what waited in memory. Later reservations fail, later fills return false.
    pub fn close(&self) -> Vec<Delivery> {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = 0;
        let left = std::mem::take(&mut state.queue);
        wake(state);
        let messages = left.into_iter().filter_map(|entry| match entry {
            Entry::Message(delivery) => Some(delivery),
            Entry::Rows(_) => None,
        });
        messages.collect()
    }

    /// Ends the queue if nothing waits and nothing is promised. False when something is.
    pub fn close_if_idle(&self) -> bool {
        let mut state = self.state.lock();
        if state.queue.is_empty() && state.reserved == 0 && state.later == 0 {
            state.closed = true;
        }
        state.closed
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether nobody reads it.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        let waiting = state.queue.iter().map(|entry| match entry {
            Entry::Message(_) => 1,
            Entry::Rows(rows) => rows.len(),
        });
        waiting.sum::<usize>() + state.later as usize
    }

    /// How many messages wait that the store keeps.
    pub fn len_durable(&self) -> usize {
        let state = self.state.lock();
        (state.disk.messages - state.disk.reserved) as usize + state.later as usize
    }

    /// Whether nothing waits, and every place and byte that was taken was given back.
    pub fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        let Disk {
            messages,
            bytes,
            loaded,
            ..
        } = state.disk;
        let taken = u64::from(messages) + bytes + u64::from(loaded) + (state.disk.loaded_bytes + state.bytes) as u64;
        let lanes = state.lanes.iter().map(|lane| lane.taken).sum::<u32>();
        state.queue.is_empty() && taken == 0 && lanes + state.reserved + state.later == 0
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.queue.is_empty() && state.later == 0
    }

    /// Wakes the receiver without a message, so that it looks at what else changed.
    pub fn nudge(&self) {
        wake(self.state.lock());
    }
}

impl State {
    /// Tells the quota that counts it what waits on disk.
    fn meter(&mut self) {
        if let Some(held) = &mut self.held {
            held.set(self.disk.bytes);
        }
    }

    /// Room in a lane that is not durable; what gives way for it, if something does.
    fn make_room(&mut self, lane: u16, policy: LanePolicy, bytes: usize) -> Result<Option<Delivery>, ()> {
        let over = |state: &Self| {
            let taken = state.lanes[usize::from(lane)].taken;
            taken >= policy.capacity || state.bytes + bytes > INBOX_BYTES_MAX
        };
        if !over(self) {
            return Ok(None);
        }
        if policy.overflow == Overflow::Reject {
            return Err(());
        }
        // The oldest of this lane gives way; what is only reserved cannot.
        let of_lane = |e: &Entry| matches!(e, Entry::Message(d) if d.lane == Some(lane));
        let oldest = self.queue.iter().position(of_lane).ok_or(())?;
        let dropped = match self.queue.remove(oldest) {
            Some(Entry::Message(delivery)) => Some(delivery),
            _ => None,
        };
        self.bytes -= dropped.as_ref().map_or(0, Delivery::weight);
        let state = &mut self.lanes[usize::from(lane)];
        state.taken -= 1;
        state.lost = state.lost.saturating_add(1);
        if over(self) { Err(()) } else { Ok(dropped) }
    }

    fn push_row(&mut self, row: RowRef) {
        match self.queue.back_mut() {
            Some(Entry::Rows(rows)) => rows.push_back(row),
            _ => self.queue.push_back(Entry::Rows([row].into())),
        }
    }

    fn take(&mut self, kept: bool) -> Option<Next> {
        let place = if kept {
            0
        } else {
            let free = |e: &Entry| matches!(e, Entry::Message(d) if d.kept.is_none());
            self.queue.iter().position(free)?
        };
        if let Entry::Rows(rows) = self.queue.get_mut(place)? {
            let row = rows.pop_front();
            if rows.is_empty() {
                self.queue.remove(place);
            }
            let row = row?;
            self.disk.messages -= 1;
            self.disk.bytes -= u64::from(row.weight);
            self.meter();
            return Some(Next::Row(row));
        }
        let Some(Entry::Message(mut delivery)) = self.queue.remove(place) else {
            return None;
        };
        if let Some(Kept::Row(row)) = delivery.kept {
            self.disk.messages -= 1;
            self.disk.bytes -= u64::from(row.weight);
            self.disk.loaded -= 1;
            self.disk.loaded_bytes -= delivery.weight();
            self.meter();
        } else {
            self.bytes = self.bytes.saturating_sub(delivery.weight());
            if let Some(lane) = delivery.lane() {
                let lane = &mut self.lanes[lane];
                lane.taken = lane.taken.saturating_sub(1);
                delivery.lost = std::mem::take(&mut lane.lost);
            }
        }
        Some(Next::Message(delivery))
    }
}

/// Unlocks, then wakes: the receiver may run at once on another thread.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
    state.meter();
    let receiver = state.receiver.take();
    drop(state);
    if let Some(receiver) = receiver {
        receiver.wake();
    }
}

/// A promised place.
#[must_use = "dropping a slot gives the place back"]
#[derive(Debug)]
pub struct Slot {
    inbox: Arc<Inbox>,
    lane: u16,
    bytes: usize,
    durable: bool,
    row: Option<u64>,
    filled: bool,
}

impl Slot {
    /// Whose queue it is in.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Where the message is to be kept, if it is.
    pub fn table(&self) -> Option<&Table> {
        self.inbox.table.as_ref().filter(|_| self.durable)
    }

    /// The message will be this row of that table.
    pub fn keep_as(&mut self, row: u64) {
        self.row = Some(row);
    }

    fn give_back(&self, state: &mut State) {
        state.reserved -= 1;
        if self.durable {
            let disk = &mut state.disk;
            disk.reserved -= 1;
            disk.reserved_bytes -= self.bytes as u64;
            disk.messages -= 1;
            disk.bytes -= self.bytes as u64;
            state.meter();
        } else {
            // The reservation is replaced by what the body really weighs.
            state.bytes = state.bytes.saturating_sub(self.bytes);
        }
    }

    /// Puts the message there. False when the receiver ended in between.
    pub fn fill(mut self, message: Arc<Message>) -> bool {
        self.filled = true;
        let mut state = self.inbox.state.lock();
        self.give_back(&mut state);
        if state.closed || (self.inbox.absent && self.row.is_none()) {
            return false;
        }
        let mut delivery = Delivery::new(message, Some(self.lane));
        delivery.era = state.era;
        let weight = delivery.weight();
        match self.row {
            None => {
                if self.durable {
                    // Heard by a durable lane and not kept: it takes a place among the others from here on.
                    state.lanes[usize::from(self.lane)].taken += 1;
                }
                state.bytes += weight;
                state.queue.push_back(Entry::Message(delivery));
            }
            Some(row) => {
                let row = RowRef {
                    row,
                    weight: u32::try_from(weight).unwrap_or(u32::MAX),
                };
                let disk = &mut state.disk;
                disk.messages += 1;
                disk.bytes += u64::from(row.weight);
                let room = disk.loaded < LOADED_MAX && disk.loaded_bytes + weight <= LOADED_BYTES_MAX;
                if room && !self.inbox.absent {
                    disk.loaded += 1;
                    disk.loaded_bytes += weight;
                    delivery.kept = Some(Kept::Row(row));
                    state.queue.push_back(Entry::Message(delivery));
                } else {
                    state.push_row(row);
                }
            }
        }
        wake(state);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.filled {
            let mut state = self.inbox.state.lock();
            self.give_back(&mut state);
            if !self.durable {
                state.lanes[usize::from(self.lane)].taken -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
