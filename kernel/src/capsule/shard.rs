//! One thread's actors, and whose turn it is.
//!
//! A shard polls its actors itself from one ready queue, instead of leaving that to the runtime, because the queue is where
//! fairness lives: deficit round-robin over principals (Shreedhar and Varghese 1995), counted in fuel. A principal with a
//! hundred busy actors gets as much of the thread as one with a single actor; with a weight of ten, ten times as much. Within a principal it is first come,
//! first served. A turn ends when the actor waits, or when the epoch makes its guest yield; then it queues up again.
//!
//! The shard is one future of a current-thread runtime. It gives way to what else the runtime polls (sockets, deadlines)
//! after a burst, and before each turn of a guest that used up its last one; it sleeps when nothing is ready.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ticker::Ticker;
use crate::ledger::Account;

/// The price of a tick that a guest used up. The fuel that it really used is known only when it has ended.
pub(super) const TICK_FUEL: u64 = 1_000_000;

/// What a principal of weight 1 may spend before the next one's turn: a tick, so that the round goes on as often as guests yield.
const QUANTUM_FUEL: i64 = 1_000_000;

/// What a turn costs besides the guest's fuel, so that turns that spend none (waiting, queueing) are shared fairly too.
const TURN_FUEL: i64 = 1_000;

/// Turns in one burst at most, before sockets and deadlines are looked at.
const BURST_TURNS_MAX: u32 = 64;

/// Time of one burst at most, for the same reason.
const BURST_TIME_MAX: Duration = Duration::from_micros(500);

/// A principal's place in the round.
pub struct Flow {
    /// Whose, with its weight.
    payer: Arc<Account>,
    state: Mutex<FlowState>,
}

#[derive(Default)]
struct FlowState {
    ready: VecDeque<Arc<Strand>>,
    /// Fuel it may still spend in this round; negative after an expensive turn.
    deficit: i64,
    /// Whether it is in the round.
    active: bool,
}

type ActorFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An actor as its shard sees it: something to poll, and who pays.
pub struct Strand {
    shard: Arc<Shard>,
    flow: Mutex<Arc<Flow>>,
    queued: AtomicBool,
    future: Mutex<Option<ActorFuture>>,
    spent: Arc<AtomicU64>,
    /// Its last turn was a tick or more: so will the next one be.
    is_long: AtomicBool,
}

impl Strand {
    /// From now on somebody else pays: a connection showed who it is.
    pub fn charge_to(&self, payer: &Arc<Account>) {
        *self.flow.lock() = self.shard.flow(payer);
    }
}

impl Wake for Strand {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.shard.push(Arc::clone(self));
        }
    }
}

/// A thread's ready queue.
pub struct Shard {
    round: Mutex<VecDeque<Arc<Flow>>>,
    flows: Mutex<HashMap<Principal, Weak<Flow>, ahash::RandomState>>,
    work: Notify,
    ticker: Arc<Ticker>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("principals_ready", &self.round.lock().len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard without actors; [`Shard::run`] is its thread's main future.
    pub fn new(ticker: Arc<Ticker>) -> Arc<Self> {
        Arc::new(Self {
            round: Mutex::default(),
            flows: Mutex::default(),
            work: Notify::new(),
            ticker,
        })
    }

    /// Takes an actor on. `spent` is where it counts the fuel of its turns.
    pub fn spawn(
        self: &Arc<Self>,
        payer: &Arc<Account>,
        spent: Arc<AtomicU64>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Arc<Strand> {
        let strand = Arc::new(Strand {
            shard: Arc::clone(self),
            flow: Mutex::new(self.flow(payer)),
            queued: AtomicBool::new(false),
            future: Mutex::new(Some(Box::pin(future))),
            spent,
            is_long: AtomicBool::new(false),
        });
        strand.wake_by_ref();
        strand
    }

    fn flow(&self, payer: &Arc<Account>) -> Arc<Flow> {
        let principal = payer.principal();
        let mut flows = self.flows.lock();
        if let Some(flow) = flows.get(principal).and_then(Weak::upgrade) {
            return flow;
        }
        // Forget principals without actors whenever the table would grow: amortised O(1).
        if flows.len() == flows.capacity() {
            flows.retain(|_, flow| flow.strong_count() > 0);
        }
        let flow = Arc::new(Flow {
            payer: Arc::clone(payer),
            state: Mutex::default(),
        });
        flows.insert(principal.clone(), Arc::downgrade(&flow));
        flow
    }

    fn push(&self, strand: Arc<Strand>) {
        let flow = Arc::clone(&strand.flow.lock());
        let mut state = flow.state.lock();
        state.ready.push_back(strand);
        let joins = !std::mem::replace(&mut state.active, true);
        if joins {
            // Whoever comes to the round has not had its part of it.
            state.deficit = QUANTUM_FUEL * i64::from(flow.payer.weight());
        }
        drop(state);
        if joins {
            self.round.lock().push_back(flow);
        }
        self.work.notify_one();
    }

    /// Whose turn it is. The lock order is round before flow, here only.
    fn next(&self) -> Option<(Arc<Flow>, Arc<Strand>)> {
        loop {
            let mut round = self.round.lock();
            let flow = round.pop_front()?;
            let mut state = flow.state.lock();
            if state.ready.is_empty() {
                // It leaves the round, and with it what it saved or owes.
                state.active = false;
                state.deficit = 0;
                continue;
            }
            if state.deficit <= 0 {
                state.deficit += QUANTUM_FUEL * i64::from(flow.payer.weight());
                round.push_back(Arc::clone(&flow));
                continue;
            }
            let Some(strand) = state.ready.pop_front() else {
                continue;
            };
            drop(state);
            round.push_front(Arc::clone(&flow));
            return Some((flow, strand));
        }
    }

    fn turn(&self, flow: &Flow, strand: &Arc<Strand>) {
        strand.queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(strand));
        let mut slot = strand.future.lock();
        if let Some(future) = slot.as_mut() {
            self.ticker.running();
            let mut cx = Context::from_waker(&waker);
            // A panic of ours in one actor's turn ends that actor, not the thread and everybody on it.
            match std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(())) => *slot = None,
                Err(_) => {
                    tracing::error!("an actor's turn panicked; the actor ends");
                    *slot = None;
                }
            }
        }
        drop(slot);
        let spent = strand.spent.swap(0, Ordering::Relaxed);
        strand.is_long.store(spent >= TICK_FUEL, Ordering::Relaxed);
        let spent = i64::try_from(spent).unwrap_or(i64::MAX);
        let mut state = flow.state.lock();
        state.deficit = state
            .deficit
            .saturating_sub(spent.saturating_add(TURN_FUEL))
            .max(-64 * QUANTUM_FUEL);
    }

    /// One turn, for who drives this by hand: `choose` is told how many actors are ready and says whose turn it is, in place of
    /// fairness. False when none is ready.
    pub fn step(&self, choose: impl FnOnce(usize) -> usize) -> bool {
        let round = self.round.lock();
        let ready: usize = round.iter().map(|flow| flow.state.lock().ready.len()).sum();
        let mut place = if ready == 0 {
            return false;
        } else {
            choose(ready) % ready
        };
        let mut chosen = None;
        for flow in round.iter() {
            let mut state = flow.state.lock();
            if let Some(strand) = state.ready.remove(place) {
                drop(state);
                chosen = Some((Arc::clone(flow), strand));
                break;
            }
            place -= state.ready.len();
        }
        drop(round);
        let Some((flow, strand)) = chosen else { return false };
        self.turn(&flow, &strand);
        true
    }

    /// Polls actors until this is dropped.
    pub async fn run(self: Arc<Self>) {
        loop {
            let burst = Instant::now();
            let mut turns = 0;
            while let Some((flow, strand)) = self.next() {
                if turns > 0 && strand.is_long.load(Ordering::Relaxed) {
                    // Whom the turns before have told something hears it first.
                    flow.state.lock().ready.push_front(strand);
                    break;
                }
                self.turn(&flow, &strand);
                turns += 1;
                if turns >= BURST_TURNS_MAX || burst.elapsed() >= BURST_TIME_MAX {
                    break;
                }
            }
            if turns == 0 {
                self.work.notified().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::AtomicU32;

    use futures_util::FutureExt as _;
    use wasmtime::Engine;

    use super::*;
    use crate::ledger::Ledger;
    use crate::store::Store;
    use crate::store::memory::Memory;

    /// Burns fuel in every turn and is always ready for the next.
    fn busy(shard: &Arc<Shard>, name: &str, fuel: u64, turns: &Arc<AtomicU32>) -> Arc<Strand> {
        busy_for(shard, &account(name, 1), fuel, turns)
    }

    fn account(name: &str, weight: u32) -> Arc<Account> {
        let store = Store::open(Box::new(Memory::default()))
            .now_or_never()
            .unwrap()
            .unwrap();
        let ledger = Ledger::new(store, Arc::default(), Arc::default());
        let principal = Principal::stamped(name).unwrap();
        ledger.set_weight(&principal, weight);
        ledger.account(&principal)
    }

    fn busy_for(shard: &Arc<Shard>, payer: &Arc<Account>, fuel: u64, turns: &Arc<AtomicU32>) -> Arc<Strand> {
        let (spent, turns) = (Arc::new(AtomicU64::new(0)), Arc::clone(turns));
        let count = Arc::clone(&spent);
        shard.spawn(payer, spent, async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                count.fetch_add(fuel, Ordering::Relaxed);
                let mut yielded = false;
                std::future::poll_fn(|cx| {
                    if std::mem::replace(&mut yielded, true) {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
            }
        })
    }

    fn shard() -> Arc<Shard> {
        Shard::new(Arc::new(Ticker::start(&Engine::default()).unwrap()))
    }

    fn turns(shard: &Shard, n: u32) {
        for _ in 0..n {
            let (flow, strand) = shard.next().unwrap();
            shard.turn(&flow, &strand);
        }
    }

    /// A principal with forty busy actors gets as much as one with a single actor, in fuel, whatever a turn costs.
    #[test]
    fn fair_between_principals() {
        let shard = shard();
        let (many, one) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let _many: Vec<_> = (0..40).map(|_| busy(&shard, "many", 500_000, &many)).collect();
        let _one = busy(&shard, "one", 2_000_000, &one);
        turns(&shard, 5_000);
        let (many, one) = (
            many.load(Ordering::Relaxed) * 500_000 / 1000,
            one.load(Ordering::Relaxed) * 2_000_000 / 1000,
        );
        let ratio = f64::from(many) / f64::from(one);
        assert!((0.9..1.1).contains(&ratio), "fuel of many / one = {ratio}");
    }

    /// A principal gets its weight's share of the thread, in fuel, however many actors it has.
    #[test]
    fn shares_are_by_weight() {
        let shard = shard();
        let count = || Arc::new(AtomicU32::new(0));
        let (light, heavy) = (count(), count());
        let payer = account("heavy", 10);
        let _light: Vec<_> = (0..20).map(|_| busy(&shard, "light", 1_000_000, &light)).collect();
        let _heavy = busy_for(&shard, &payer, 1_000_000, &heavy);
        turns(&shard, 11_000);
        let ratio = f64::from(heavy.load(Ordering::Relaxed)) / f64::from(light.load(Ordering::Relaxed));
        assert!((9.5..10.5).contains(&ratio), "fuel of heavy / light = {ratio}");
    }

    /// Who waited long gets no credit for it, and who was expensive does not owe for ever.
    #[test]
    fn idle_principals_save_nothing() {
        let shard = shard();
        let (a, b) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let _a = busy(&shard, "a", 1_000_000, &a);
        turns(&shard, 1_000);
        let _b = busy(&shard, "b", 1_000_000, &b);
        let before = a.load(Ordering::Relaxed);
        turns(&shard, 100);
        let (a, b) = (a.load(Ordering::Relaxed) - before, b.load(Ordering::Relaxed));
        assert!(a.abs_diff(b) <= 2, "a {a}, b {b}");
    }

    /// A panic ends one actor; the others go on.
    #[test]
    fn a_panic_ends_one_actor() {
        let shard = shard();
        let turned = Arc::new(AtomicU32::new(0));
        let bad = shard.spawn(&account("default", 1), Arc::default(), async {
            panic!("in a test, on purpose")
        });
        let _good = busy(&shard, "good", 1, &turned);
        turns(&shard, 5);
        assert!(bad.future.lock().is_none());
        assert!(turned.load(Ordering::Relaxed) >= 3);
    }
}
