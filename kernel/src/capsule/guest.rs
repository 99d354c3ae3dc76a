//! The state of one instance: what host functions see and change.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};

use super::Host;
use super::actor::Actor;
use super::commands::Commands;
use super::shard::TICK_FUEL;
use super::ticker::TICK;
use super::working::Working;
use crate::authority::{Denied, Subject};
use crate::bus::message::{Message, MessageId};

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
    /// It asked for more than it may have.
    pub refused: bool,
}

/// Bytes that a table's entry takes.
const TABLE_ENTRY_BYTES: usize = 16;

/// Core instances, memories and tables of a component at most: a capsule needs one main module and its adapters.
const PARTS_MAX: usize = 32;

impl Limits {
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let total = self.used.saturating_add(desired.saturating_sub(current));
        let allowed = total <= self.max;
        if allowed {
            self.used = total;
        } else {
            self.refused = true;
        }
        allowed
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(current, desired))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = |entries: usize| entries.saturating_mul(TABLE_ENTRY_BYTES);
        Ok(self.grow(bytes(current), bytes(desired)))
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

/// The data of one instance's store.
#[derive(Debug)]
pub struct Guest {
    /// Whose instance this is.
    pub actor: Arc<Actor>,
    /// On whose behalf the present message is handled.
    pub principal: Principal,
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
        Self {
            principal: actor.own_principal(),
            commands: Commands::default(),
            meter,
            limits: Limits {
                max,
                used: 0,
                refused: false,
            },
            now: Now::default(),
            log_lines: 0,
            working: Working::default(),
            durable: false,
            found_full: false,
            message: MessageId { boot: 0, sequence: 0 },
            actor,
        }
    }

    /// Begins handling a message.
    pub fn begin(&mut self, message: &Message, principal: Principal, durable: bool) {
        self.principal = principal;
        self.durable = durable;
        self.found_full = false;
        self.working.begin(self.actor.shares_table());
        self.message = message.id;
        self.meter.used = Duration::ZERO;
        self.meter.deadline = message.deadline;
        self.log_lines = 0;
        self.look_at_clocks();
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
            principal: &self.principal,
            socket: self.actor.connection().map(|c| c.socket()),
        }
    }

    /// Counts what it was refused, for the audit log.
    pub fn refused(&self, denied: Denied) -> Denied {
        let subject = self.subject();
        let audit = &self.host().audit;
        audit.count(
            subject.principal.as_str(),
            &subject.acl.capsule,
            "denied",
            &denied.to_string(),
        );
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
