//! One guard and one message: a fresh instance, so that nothing of one message is there for the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wasmtime::{Store, StoreContextMut, Trap, UpdateDeadline};

use super::watch::{NotForGuards, Watch};
use crate::bus::Saying;
use crate::bus::message::{BODY_BYTES_MAX, MessageId};
use crate::capsule::Host;
use crate::capsule::actor::Actor;
use crate::capsule::guest::Stop;
use crate::capsule::host::bindings::Verdict;
use crate::capsule::host::bindings::astrid::kernel::types::{self, Kind};
use crate::capsule::loaded::Capsule;
use crate::capsule::shard::TICK_FUEL;
use crate::capsule::ticker::TICK;
use crate::ledger::{Account, Exceeded};
use crate::store::engine::EngineError;

/// Fuel of one guard for one message, its start included: some milliseconds of work. Everybody who speaks there waits for it.
const FUEL: u64 = 10_000_000;

/// How long one guard may run for one message. Counted in ticks, so it is exact to one. What costs little fuel and long, as filling
/// memory does, ends here; it is so much longer than the fuel lasts that a slow machine gives the same answers as a fast one.
const TIME_MAX: Duration = Duration::from_millis(250);

/// Why a guard could not be asked, or gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("its capsule does not run")]
    Absent,
    #[error("its capsule failed and is not back yet")]
    Ill,
    #[error("it ran for more than {} ms", TIME_MAX.as_millis())]
    Time,
    #[error("it used more than {FUEL} units of fuel")]
    Fuel,
    #[error("it used more memory than its manifest says")]
    Memory,
    #[error("it made a body of {0} bytes, the limit is {BODY_BYTES_MAX}")]
    Size(usize),
    #[error(transparent)]
    Call(NotForGuards),
    #[error(transparent)]
    Quota(Exceeded),
    #[error("its table cannot be read: {0}")]
    Store(EngineError),
    #[error("it trapped: {0}")]
    Trap(String),
}

/// What a guard is shown besides what is said.
pub(super) struct Shown<'a> {
    /// Who speaks: its turn it is.
    pub(super) speaker: &'a Arc<Actor>,
    /// Who pays.
    pub(super) account: &'a Arc<Account>,
    /// The message whose handling says it.
    pub(super) id: MessageId,
    pub(super) topic: &'a astrid_wire::Topic,
    pub(super) kind: Kind,
}

/// Shows a guard what is to be said.
///
/// # Errors
/// [`Why`] it gave no answer.
pub(super) async fn ask(host: &Arc<Host>, guard: &str, shown: &Shown<'_>, saying: &Saying) -> Result<Verdict, Why> {
    let actors = host.durable.directory.actors(guard).ok_or(Why::Absent)?;
    let (_, restarting, down) = actors.count();
    if restarting + down > 0 {
        return Err(Why::Ill);
    }
    let capsule = Arc::clone(actors.capsule());
    // Nothing closes it; a guard holds its place only while it runs, and asks no other.
    let _place = host.guards.at_once.acquire().await.map_err(|_| Why::Absent)?;
    call(host, &capsule, shown, saying).await
}

async fn call(host: &Arc<Host>, capsule: &Arc<Capsule>, shown: &Shown<'_>, saying: &Saying) -> Result<Verdict, Why> {
    let ready = capsule.guard().ok_or(Why::Absent)?;
    let mut store = Store::new(&host.engine, Watch::new(host, capsule, shown, saying));
    store.limiter(|watch| &mut watch.limits);
    store.set_fuel(FUEL).map_err(trapped)?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(at_tick);
    let said = match ready.instantiate_async(&mut store).await {
        Ok(exports) => exports.call_guard(&mut store, message(shown, saying)).await,
        Err(error) => Err(error),
    };
    // A store that has fuel configured always tells it.
    let fuel = FUEL.saturating_sub(store.get_fuel().unwrap_or(0));
    let watch = store.data_mut();
    let memory = watch.limits.used();
    shown
        .account
        .handled(&shown.account.pair(&capsule.name), fuel, memory, false);
    capsule.usage.add(fuel, memory, false);
    host.metrics.capsule_fuel.add(fuel);
    shown.speaker.spent().fetch_add(fuel.min(TICK_FUEL), Ordering::Relaxed);
    match (said, watch.working.unreadable()) {
        // Whatever it said, it did not see what it goes by.
        (_, Some(error)) => Err(Why::Store(error)),
        (Ok(verdict), None) => Ok(verdict),
        (Err(error), None) => Err(classify(error, watch.limits.refused)),
    }
}

fn trapped(error: wasmtime::Error) -> Why {
    Why::Trap(error.root_cause().to_string())
}

fn classify(error: wasmtime::Error, memory_refused: bool) -> Why {
    if let Some(Stop::Time | Stop::Deadline) = error.downcast_ref() {
        return Why::Time;
    }
    if let Some(Trap::OutOfFuel) = error.downcast_ref() {
        return Why::Fuel;
    }
    if let Some(call) = error.downcast_ref::<NotForGuards>() {
        return Why::Call(call.clone());
    }
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return Why::Quota(exceeded.clone());
    }
    if memory_refused { Why::Memory } else { trapped(error) }
}

fn message<'a>(shown: &'a Shown<'a>, saying: &'a Saying) -> types::Message<'a> {
    types::Message {
        id: types::MessageId {
            boot: shown.id.boot,
            sequence: shown.id.sequence,
        },
        kind: shown.kind,
        topic: shown.topic.as_str(),
        principal: saying.principal.as_str(),
        source: types::Source::Capsule(shown.speaker.capsule_name()),
        content_type: saying.body.content_type.as_str(),
        body: &saying.body.bytes,
        reply_to: None,
        answers: None,
        time_left_ms: None,
        attempt: 1,
        lost: 0,
        durable: false,
    }
}

/// What happens to a guard at the end of each tick that it ran: who speaks pays for it, and it yields or is stopped.
fn at_tick(mut cx: StoreContextMut<'_, Watch>) -> wasmtime::Result<UpdateDeadline> {
    let watch = cx.data_mut();
    watch.speaker.spent().fetch_add(TICK_FUEL, Ordering::Relaxed);
    watch.ran += TICK;
    if watch.ran >= TIME_MAX {
        return Err(Stop::Time.into());
    }
    Ok(UpdateDeadline::Yield(1))
}
