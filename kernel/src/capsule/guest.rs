//! The state of one instance: what host functions see and change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use astrid_wire::authority::Action;
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};

use super::Host;
use super::actor::Actor;
use super::commands::{Actions, Commands};
use super::host::fs::Handles;
use super::shard::TICK_FUEL;
use super::ticker::TICK;
use super::working::Working;
use crate::authority::{Denied, Standing, Subject};
use crate::bus::message::{Message, MessageId};
use crate::ledger::{Account, Exceeded, Hold, Limit, Pair};

/// Why a running guest is stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// It ran, or waited, longer than its manifest allows.
    #[error("ran longer than its timeout")]
    Time,
    /// Whoever waits for it has stopped waiting.
    #[error("its caller's deadline passed")]
    Deadline,
}

/// Time as the guest sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// Nanoseconds since the daemon started.
    pub monotonic_ns: u64,
}

/// What one handling has used.
#[derive(Debug)]
pub struct Meter {
    /// May run and wait this long.
    timeout: Duration,
    /// Ran and waited so far. Running is counted in ticks, so it is exact to one.
    used: Duration,
    /// Who waits for this handling stops doing so then.
    deadline: Option<Instant>,
}

impl Meter {
    /// How long this handling may still run and wait.
    pub fn time_left(&self) -> Duration {
        self.timeout.saturating_sub(self.used)
    }

    /// It waited for the host.
    pub fn waited(&mut self, time: Duration) {
        self.used += time;
    }
}

/// Counts what a guest's memories and tables take, and remembers that it refused some: inside the guest that looks like any
/// other trap.
#[derive(Debug)]
pub struct Limits {
    max: usize,
    used: usize,
    /// What its principal's quota counts of that.
    hold: Hold,
    /// It asked for more than it may have.
    pub refused: bool,
}

/// Bytes that a table's entry takes.
const TABLE_ENTRY_BYTES: usize = 16;

/// Core instances, memories and tables of a component at most: a capsule needs one main module and its adapters.
const PARTS_MAX: usize = 32;

impl Limits {
    /// Up to so many bytes, which that one's quota counts.
    pub fn new(max: usize, account: &Arc<Account>) -> Self {
        Self {
            max,
            used: 0,
            hold: account.hold_anyway(Limit::Memory, 0),
            refused: false,
        }
    }

    fn grow(&mut self, current: usize, desired: usize) -> Result<bool, Exceeded> {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        let allowed = total <= self.max;
        if allowed {
            self.hold.grow((total - self.used) as u64)?;
            self.used = total;
        } else {
            self.refused = true;
        }
        Ok(allowed)
    }

    /// Somebody else pays for it from now on.
    pub fn charge_to(&mut self, account: &Arc<Account>) {
        self.hold.move_to(account);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired)?)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |entries: usize| entries.saturating_mul(TABLE_ENTRY_BYTES);
        Ok(self.grow(bytes(current), bytes(desired))?)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}

/// Who pays for a handling, and what it said.
#[derive(Debug)]
pub struct Payer {
    /// Who.
    pub account: Arc<Account>,
    pair: Arc<Pair>,
    /// Messages said by the present handling, and their bytes.
    said: (u64, u64),
}

impl Payer {
    fn new(account: &Arc<Account>, capsule: &Arc<str>) -> Self {
        Self {
            account: Arc::clone(account),
            pair: account.pair(capsule),
            said: (0, 0),
        }
    }

    /// A message was recorded, to be said when the handling commits.
    pub fn says(&mut self, bytes: usize) {
        self.said.0 += 1;
        self.said.1 += bytes as u64;
    }
}

/// The data of one instance's store.
#[derive(Debug)]
pub struct Guest {
    /// Whose instance this is.
    pub actor: Arc<Actor>,
    /// On whose behalf the present message is handled.
    pub principal: Principal,
    /// What that one may do, as it was looked up last.
    standing: Standing,
    /// Where what that uses is counted.
    pub payer: Payer,
    /// What its quota refused to the present handling, lastly.
    pub exceeded: Option<Exceeded>,
    /// What the present handling writes more to its table than was there, and how much less elsewhere.
    pub(crate) stored: (Option<Hold>, u64),
    /// Effects to come.
    pub commands: Commands,
    /// What the present handling has used.
    pub meter: Meter,
    /// Memory.
    pub limits: Limits,
    /// The clocks.
    pub now: Now,
    /// Lines logged by the present handling.
    pub log_lines: u32,
    /// The actor's table, as the present handling sees it.
    pub(crate) working: Working,
    /// Whether the store keeps the present message, so that everything that comes of it is kept with it.
    pub durable: bool,
    /// Files that the present handling has open.
    pub handles: Handles,
    /// What was done at once, and stays so whatever becomes of the handling.
    pub at_once: Actions,
    /// Whether something that the present handling wanted to say found a full queue.
    pub found_full: bool,
    message: MessageId,
}

impl Guest {
    /// The state of a new instance.
    pub fn new(actor: Arc<Actor>) -> Self {
        let runtime = &actor.capsule().manifest.runtime;
        let max = usize::try_from(runtime.memory.0).unwrap_or(usize::MAX);
        let meter = Meter {
            timeout: runtime.timeout.0,
            used: Duration::ZERO,
            deadline: None,
        };
        let own = actor.host().ledger.account(&actor.own_principal());
        Self {
            standing: actor.host().gate.authority().standing(own.principal()),
            principal: own.principal().clone(),
            payer: Payer::new(&own, actor.capsule_name()),
            exceeded: None,
            stored: (None, 0),
            commands: Commands::default(),
            meter,
            limits: Limits::new(max, &own),
            now: Now::default(),
            log_lines: 0,
            working: Working::default(),
            durable: false,
            handles: Handles::default(),
            at_once: Actions::default(),
            found_full: false,
            message: MessageId { boot: 0, sequence: 0 },
            actor,
        }
    }

    /// Begins handling a message.
    pub fn begin(&mut self, message: &Message, standing: &Standing, payer: &Arc<Account>, durable: bool) {
        self.act_for(standing.clone(), payer);
        self.payer.said = (0, 0);
        self.exceeded = None;
        self.stored = (None, 0);
        self.durable = durable;
        self.at_once = Actions::default();
        self.found_full = false;
        self.working.begin(self.actor.shares_table());
        self.message = message.id;
        self.meter.used = Duration::ZERO;
        self.meter.deadline = message.deadline;
        self.log_lines = 0;
        self.look_at_clocks();
    }

    /// From now on that principal acts, and pays.
    pub fn act_for(&mut self, standing: Standing, account: &Arc<Account>) {
        if !Arc::ptr_eq(&self.payer.account, account) {
            self.principal = account.principal().clone();
            self.payer = Payer::new(account, self.actor.capsule_name());
        }
        self.standing = standing;
    }

    /// What the present handling recorded.
    pub fn recorded(&self) -> Actions {
        let mut recorded = Actions::default();
        self.commands.add_actions(&mut recorded);
        if self.working.is_written() {
            recorded.add(Action::Kv);
        }
        recorded
    }

    /// Records how often what was allowed was done.
    pub fn tell_allowed(&self, actions: &Actions) {
        for (action, count) in actions.iter() {
            let (audit, capsule) = (&self.host().audit, self.actor.capsule_name());
            audit.allowed(
                self.standing.principal().as_str(),
                capsule,
                action.as_str(),
                count.into(),
            );
        }
    }

    /// Counts the end of a handling.
    pub fn account(&mut self, fuel: u64, memory: usize, committed: bool) {
        let Payer { account, pair, said } = &self.payer;
        account.handled(pair, fuel, memory, committed);
        let (more, less) = std::mem::take(&mut self.stored);
        if committed {
            if said.0 > 0 {
                account.published(said.0, said.1);
            }
            more.into_iter().for_each(Hold::keep);
            if less > 0 {
                account.stores_less(less);
            }
        }
    }

    /// Notes what a quota refused, so that what comes of it is told as that.
    pub fn over(&mut self, exceeded: Exceeded) -> Exceeded {
        self.exceeded = Some(exceeded.clone());
        self.host().over_quota(self.actor.capsule_name(), &exceeded, "");
        exceeded
    }

    /// Reads the clocks for the guest.
    pub fn look_at_clocks(&mut self) {
        let host = self.host();
        let clock = host.deadlines.clock();
        let uptime = clock.now().saturating_duration_since(host.started);
        self.now = Now {
            wall_ms: clock.wall_ms(),
            monotonic_ns: u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX),
        };
    }

    /// The kernel, as far as a guest reaches it.
    pub fn host(&self) -> &Arc<Host> {
        self.actor.host()
    }

    /// Who acts.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            acl: &self.actor.capsule().acl,
            standing: &self.standing,
            socket: self.actor.connection().map(|c| c.socket()),
        }
    }

    /// What whoever acts may do, as it was looked up last.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Records what it was refused.
    pub fn refused(&self, denied: Denied) -> Denied {
        let subject = self.subject();
        self.host()
            .refused(subject.standing.principal(), &subject.acl.capsule, &denied);
        denied
    }

    /// The message being handled.
    pub fn message_id(&self) -> MessageId {
        self.message
    }

    /// How long whoever waits for this handling still does.
    pub fn time_left_of_caller(&self) -> Duration {
        self.meter.deadline.map_or(Duration::MAX, |d| {
            d.saturating_duration_since(self.host().deadlines.now())
        })
    }

    /// Tells the shard what this turn cost: a tick that was used up, or what a handling that ended sooner used.
    pub fn charge(&mut self, fuel: u64) {
        self.actor.spent().fetch_add(fuel.min(TICK_FUEL), Ordering::Relaxed);
    }
}

/// What happens to a guest at the end of each tick that it ran: it yields, or is stopped.
///
/// # Errors
/// [`Stop`], as a trap.
pub fn at_tick(mut cx: StoreContextMut<'_, Guest>) -> wasmtime::Result<UpdateDeadline> {
    let guest = cx.data_mut();
    // The fuel left is in a register of the running guest and cannot be read here, so a tick has a price.
    guest.charge(TICK_FUEL);
    guest.meter.used += TICK;
    if guest.meter.used >= guest.meter.timeout {
        return Err(Stop::Time.into());
    }
    if guest
        .meter
        .deadline
        .is_some_and(|deadline| deadline <= guest.host().deadlines.now())
    {
        return Err(Stop::Deadline.into());
    }
    Ok(UpdateDeadline::Yield(1))
}
