//! The queue in front of one receiver.
//!
//! One first-in-first-out queue, so that what one sender says arrives in the order it was said, with three limits on what may
//! enter it: places per subscription (a *lane*), bytes in all, and none for what somebody already paid for (answers to
//! asks this receiver made, events of ports under credit, lifecycle messages), which therefore always finds room.
//!
//! A place is *reserved* when a message is published inside a transaction and *filled* when that commits, so a commit cannot
//! fail on a full queue. A reservation that is dropped gives its place back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use astrid_wire::manifest::Overflow;
use parking_lot::Mutex;

use super::message::Message;

/// Bytes of bodies waiting for one receiver at most; a larger backlog is a full queue. Two of the largest bodies.
pub const INBOX_BYTES_MAX: usize = 2 * super::message::BODY_BYTES_MAX;

/// What a subscription allows to wait, and what happens beyond.
#[derive(Clone, Copy, Debug)]
pub struct LanePolicy {
    /// Messages waiting at most.
    pub capacity: u32,
    /// What gives way when that is reached.
    pub overflow: Overflow,
    /// How often a message whose handling failed is tried again.
    pub retry: u32,
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

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The queue is full and says so.
    #[error("the queue of {0} is full")]
    Full(Arc<str>),
    /// The receiver has ended.
    #[error("{0} has ended")]
    Closed(Arc<str>),
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    policy: LanePolicy,
    /// Waiting and reserved.
    taken: u32,
    /// Dropped since the last delivery.
    lost: u32,
}

struct State {
    queue: VecDeque<Delivery>,
    lanes: Vec<Lane>,
    /// Bytes waiting and reserved.
    bytes: usize,
    /// Places promised and not yet filled.
    reserved: u32,
    closed: bool,
    /// Wakes the receiver.
    receiver: Option<Waker>,
}

/// One receiver's queue.
pub struct Inbox {
    name: Arc<str>,
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
            state: Mutex::new(State {
                queue: VecDeque::new(),
                lanes,
                bytes: 0,
                reserved: 0,
                closed: false,
                receiver: None,
            }),
        })
    }

    /// Who receives.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Reserves a place in a lane for a body of that many bytes.
    ///
    /// # Errors
    /// [`NoPlace`], when it is full by its policy or closed.
    pub fn reserve(self: &Arc<Self>, lane: u16, bytes: usize) -> Result<Slot, NoPlace> {
        let mut dropped = None;
        let mut state = self.state.lock();
        if state.closed {
            return Err(NoPlace::Closed(Arc::clone(&self.name)));
        }
        let full = || NoPlace::Full(Arc::clone(&self.name));
        let Lane { policy, taken, .. } = *state.lanes.get(usize::from(lane)).ok_or_else(full)?;
        let over = |state: &State, taken: u32| taken >= policy.capacity || state.bytes + bytes > INBOX_BYTES_MAX;
        if over(&state, taken) {
            if policy.overflow == Overflow::Reject {
                return Err(full());
            }
            // The oldest of this lane gives way; what is only reserved cannot.
            let oldest = state.queue.iter().position(|d| d.lane == Some(lane)).ok_or_else(full)?;
            dropped = state.queue.remove(oldest);
            let weight = dropped.as_ref().map_or(0, Delivery::weight);
            state.bytes -= weight;
            let lane_state = &mut state.lanes[usize::from(lane)];
            lane_state.taken -= 1;
            lane_state.lost = lane_state.lost.saturating_add(1);
            let taken = lane_state.taken;
            if over(&state, taken) {
                return Err(full());
            }
        }
        state.lanes[usize::from(lane)].taken += 1;
        state.bytes += bytes;
        state.reserved += 1;
        drop(state);
        drop(dropped);
        Ok(Slot {
            inbox: Arc::clone(self),
            lane,
            bytes,
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

    /// As [`Inbox::push`], ahead of everything that waits.
    pub fn push_first(&self, message: Arc<Message>) -> bool {
        self.enqueue(Delivery::new(message, None), true)
    }

    /// Puts a message back that is to be tried again; it steps aside for what waits.
    pub fn retry(&self, mut delivery: Delivery) -> bool {
        delivery.attempt += 1;
        if let Some(lane) = delivery.lane() {
            self.state.lock().lanes[lane].taken += 1;
        }
        self.enqueue(delivery, false)
    }

    fn enqueue(&self, delivery: Delivery, first: bool) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.bytes += delivery.weight();
        if first {
            state.queue.push_front(delivery);
        } else {
            state.queue.push_back(delivery);
        }
        wake(state);
        true
    }

    /// The next message; pending until there is one, `None` once closed.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.state.lock();
        if let Some(mut delivery) = state.queue.pop_front() {
            state.bytes -= delivery.weight();
            if let Some(lane) = delivery.lane() {
                let lane = &mut state.lanes[lane];
                lane.taken -= 1;
                delivery.lost = std::mem::take(&mut lane.lost);
            }
            return Poll::Ready(Some(delivery));
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

    /// Takes out what is chosen, wherever it waits, and is woken by what arrives next. Looks at everything that waits.
    pub fn poll_chosen(&self, cx: &Context<'_>, chosen: impl Fn(&Message) -> bool) -> Vec<Delivery> {
        let mut state = self.state.lock();
        let (taken, left): (VecDeque<Delivery>, VecDeque<Delivery>) = std::mem::take(&mut state.queue)
            .into_iter()
            .partition(|d| chosen(&d.message));
        state.queue = left;
        for delivery in &taken {
            state.bytes -= delivery.weight();
            if let Some(lane) = delivery.lane() {
                state.lanes[lane].taken -= 1;
            }
        }
        state.receiver = Some(cx.waker().clone());
        drop(state);
        taken.into()
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

    /// Ends the queue and returns what waited. Later reservations fail, later fills return false.
    pub fn close(&self) -> VecDeque<Delivery> {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = 0;
        let left = std::mem::take(&mut state.queue);
        wake(state);
        left
    }

    /// Ends the queue if nothing waits and nothing is promised. False when something is.
    pub fn close_if_idle(&self) -> bool {
        let mut state = self.state.lock();
        if state.queue.is_empty() && state.reserved == 0 {
            state.closed = true;
        }
        state.closed
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Wakes the receiver without a message, so that it looks at what else changed.
    pub fn nudge(&self) {
        wake(self.state.lock());
    }
}

/// Unlocks, then wakes: the receiver may run at once on another thread.
fn wake(mut state: parking_lot::MutexGuard<'_, State>) {
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
    filled: bool,
}

impl Slot {
    /// Whose queue it is in.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Puts the message there. False when the receiver ended in between.
    pub fn fill(mut self, message: Arc<Message>) -> bool {
        self.filled = true;
        let mut state = self.inbox.state.lock();
        state.reserved -= 1;
        // The reservation is replaced by what the body really weighs.
        state.bytes = state.bytes.saturating_sub(self.bytes);
        if state.closed {
            return false;
        }
        let delivery = Delivery::new(message, Some(self.lane));
        state.bytes += delivery.weight();
        state.queue.push_back(delivery);
        wake(state);
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.filled {
            let mut state = self.inbox.state.lock();
            state.reserved -= 1;
            state.bytes = state.bytes.saturating_sub(self.bytes);
            state.lanes[usize::from(self.lane)].taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::message::{Body, ContentType, Kind, MessageId, Source};
    use super::*;

    fn message(n: u64, bytes: usize) -> Arc<Message> {
        Arc::new(Message {
            id: MessageId { boot: 0, sequence: n },
            kind: Kind::Event,
            topic: "a.v1.b".parse().unwrap(),
            principal: astrid_wire::Principal::default_owner(),
            source: Source::Kernel,
            body: Body {
                content_type: ContentType::BYTES,
                bytes: vec![0; bytes].into(),
            },
            deadline: None,
            public: false,
        })
    }

    fn inbox(capacity: u32, overflow: Overflow) -> Arc<Inbox> {
        Inbox::new(
            "r".into(),
            &[LanePolicy {
                capacity,
                overflow,
                retry: 0,
            }],
        )
    }

    fn sequences(inbox: &Inbox) -> Vec<u64> {
        std::iter::from_fn(|| inbox.try_next())
            .map(|d| d.message.id.sequence)
            .collect()
    }

    fn full() -> NoPlace {
        NoPlace::Full("r".into())
    }

    /// A promised place is counted, comes back when it is dropped, and is found when it is filled.
    #[test]
    fn reservations() {
        let inbox = inbox(2, Overflow::Reject);
        let (one, two) = (inbox.reserve(0, 10).unwrap(), inbox.reserve(0, 10).unwrap());
        assert_eq!(inbox.reserve(0, 10).unwrap_err(), full());
        drop(one);
        let three = inbox.reserve(0, 10).unwrap();
        assert!(!inbox.close_if_idle(), "a promise keeps it open");
        assert!(three.fill(message(3, 10)) && two.fill(message(2, 10)));
        assert_eq!(inbox.reserve(0, 10).unwrap_err(), full());
        assert!(inbox.push(message(4, 10), None), "what needs no place finds room");
        assert_eq!(sequences(&inbox), [3, 2, 4]);
        assert!(inbox.close_if_idle());
        assert_eq!(inbox.reserve(0, 1).unwrap_err(), NoPlace::Closed("r".into()));
    }

    /// The oldest gives way, is counted, and what is only promised does not give way.
    #[test]
    fn drop_oldest() {
        let inbox = inbox(2, Overflow::DropOldest);
        for n in 0..5 {
            assert!(inbox.reserve(0, 1).unwrap().fill(message(n, 1)));
        }
        let next = inbox.try_next().unwrap();
        assert_eq!((next.message.id.sequence, next.lost), (3, 3));
        assert_eq!(inbox.try_next().unwrap().lost, 0);
        let _promised = [inbox.reserve(0, 1).unwrap(), inbox.reserve(0, 1).unwrap()];
        assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
    }

    /// Bytes are limited as well as places, and every way out gives them back.
    #[test]
    fn bytes() {
        let inbox = inbox(1000, Overflow::Reject);
        let most = inbox.reserve(0, INBOX_BYTES_MAX).unwrap();
        assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
        assert!(most.fill(message(1, 5)), "weighs what it is, not what was promised");
        drop(inbox.reserve(0, INBOX_BYTES_MAX - 5).unwrap());
        assert_eq!(sequences(&inbox), [1]);
        assert!(inbox.reserve(0, INBOX_BYTES_MAX).is_ok());
    }

    /// A message that is tried again steps aside for what waits, keeps its place and knows its attempt.
    #[test]
    fn retries() {
        let inbox = inbox(2, Overflow::Reject);
        assert!(inbox.reserve(0, 1).unwrap().fill(message(1, 1)));
        let first = inbox.try_next().unwrap();
        assert!(inbox.reserve(0, 1).unwrap().fill(message(2, 1)));
        assert!(inbox.retry(first));
        assert_eq!(inbox.reserve(0, 1).unwrap_err(), full());
        assert_eq!(inbox.try_next().unwrap().attempt, 1);
        assert_eq!(inbox.try_next().unwrap().attempt, 2);
    }
}
