//! The capsule `process`: programs under supervision (interface `process@1`).
//!
//! Reading order: [`definition`] and [`rules`] (what a person writes), [`document`] and [`ledger`] (where it is kept), [`plan`] (what follows from it),
//! [`policy`], [`state`] and [`machine`] (one instance: all policy, pure), [`process`] and [`table`] (all of them), [`rows`] (what is kept on disk), [`outbox`] (what the
//! kernel is told to do), [`requests`] (what can be asked), [`report`] and [`why`] (what is answered). Only this file, `rows`, `outbox` and `ledger` know that it is a capsule.
//!
//! A principal has processes of its own. What is known of them is in the actor's table: restarts that were counted, circuits that are open,
//! who was stopped by hand, and the ports of children. So an instance of the actor may begin at any message, and an actor that has no
//! child and waits for nothing may be evicted at any time. Pins are not used: an actor with children stays, and each daemon makes the
//! actors that have a document, which has to be so for one that a person wrote before the first start. Deliberately absent: dependencies
//! between processes, and schedules.

pub mod answers;
pub mod confined;
pub mod definition;
pub mod document;
pub mod ledger;
pub mod machine;
pub mod outbox;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod process;
pub mod report;
pub mod requests;
pub mod rows;
pub mod rules;
pub mod signals;
pub mod state;
pub mod table;
pub mod why;
pub mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use astrid_sdk::child::{Begun, Exited, HeldPort, Started};
use astrid_sdk::prelude::*;

use ledger::Ledger;
use report::{ChangedEvent, CircuitEvent, ProcessList, ProcessView};
use requests::{Applied, Apply, Define, Listed, LogFiles, Named, Remove, SendSignal, Sent, Told, WhyAsked};
use state::Now;
use table::{Beginning, Table, Which};
use why::Why;

/// The tag of the one timer.
const WAKE: &str = "wake";
/// When what is left of a message's effects is carried out.
const AT_ONCE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct ProcessCapsule {
    /// Whether this instance of the actor has begun, and when the daemon did by its clock then, in milliseconds since 1970.
    began: Option<u64>,
    /// Whether it has what was kept: not before the document can be read.
    restored: bool,
    table: Table,
    /// Until then, children that it was told of or that started; whether it was told of all; and those that ended.
    unclaimed: Vec<HeldPort>,
    told: bool,
    ended: BTreeSet<PortId>,
    /// Why the document cannot be read.
    problem: Option<Problem>,
    /// When the timer fires, on the clock of [`Now::up_ms`], and its port. It is not durable; `rows` says why.
    wake: Option<(u64, PortId)>,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[capsule(says("process.v1.event.changed" = ChangedEvent, "process.v1.event.circuit" = CircuitEvent))]
impl ProcessCapsule {
    #[on("lifecycle.v1.started", "lifecycle.v1.restarted")]
    fn begun(&mut self, ctx: &mut Context, begun: Begun) -> Result<(), Rollback> {
        if self.restored {
            let now = self.now(ctx);
            self.table.hold(begun.ports, true, now);
        } else {
            self.told = true;
            self.unclaimed = begun.ports;
            self.begin(ctx)?;
        }
        self.finish(ctx)
    }

    /// Merges definitions into the document, and makes what runs what they say.
    #[on("process.v1.request.apply")]
    fn apply(&mut self, ctx: &mut Context, request: Apply) -> Result<Applied> {
        self.answer(ctx, |this, ctx| this.do_apply(ctx, &request))
    }

    /// Adds one definition.
    #[on("process.v1.request.define")]
    fn define(&mut self, ctx: &mut Context, request: Define) -> Result<ProcessView> {
        self.answer(ctx, |this, ctx| this.do_define(ctx, &request))
    }

    /// All processes.
    #[on("process.v1.request.list")]
    fn list(&mut self, ctx: &mut Context, _: Listed) -> Result<ProcessList> {
        self.answer(ctx, Self::do_list)
    }

    /// One process.
    #[on("process.v1.request.status")]
    fn status(&mut self, ctx: &mut Context, request: Named) -> Result<ProcessView> {
        self.answer(ctx, |this, ctx| this.do_status(ctx, &request))
    }

    /// Starts what is down, with a clean record; answered when it runs.
    #[on("process.v1.request.start", reply = ProcessList)]
    fn start(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        self.answer(ctx, |this, ctx| this.do_start(ctx, &request))
    }

    /// Stops what runs; answered when it has ended.
    #[on("process.v1.request.stop", reply = ProcessList)]
    fn stop(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        self.answer(ctx, |this, ctx| this.do_stop(ctx, &request))
    }

    /// Stops and starts; answered when it runs again.
    #[on("process.v1.request.restart", reply = ProcessList)]
    fn restart(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        self.answer(ctx, |this, ctx| this.do_restart(ctx, &request))
    }

    /// Stops a process and removes its definition.
    #[on("process.v1.request.remove", reply = requests::Done)]
    fn remove(&mut self, ctx: &mut Context, request: Remove) -> Result<()> {
        self.answer(ctx, |this, ctx| this.do_remove(ctx, &request))
    }

    /// Why a process is in its state.
    #[on("process.v1.request.why")]
    fn why(&mut self, ctx: &mut Context, request: WhyAsked) -> Result<Why> {
        self.answer(ctx, |this, ctx| this.do_why(ctx, &request))
    }

    /// Sends a signal.
    #[on("process.v1.request.signal")]
    fn signal(&mut self, ctx: &mut Context, request: SendSignal) -> Result<Sent> {
        self.answer(ctx, |this, ctx| this.do_signal(ctx, &request))
    }

    /// Where the logs of a process are.
    #[on("process.v1.request.logs")]
    fn logs(&mut self, ctx: &mut Context, request: Named) -> Result<LogFiles> {
        self.answer(ctx, |this, ctx| this.do_logs(ctx, &request))
    }

    #[on("port.v1.child.started")]
    fn child_started(&mut self, ctx: &mut Context, started: Started) -> Result<(), Rollback> {
        self.begin(ctx)?;
        if let Some(port) = ctx.port() {
            let held = HeldPort {
                port,
                tag: started.tag,
                pid: Some(started.pid),
                started_at_ms: Some(started.started_at_ms),
            };
            if self.restored {
                let now = self.now(ctx);
                self.table.hold(vec![held], false, now);
                self.table.lacks(port, started.lacking, now);
            } else {
                self.unclaimed.retain(|other| other.port != port);
                self.unclaimed.push(held);
            }
        }
        self.finish(ctx)
    }

    #[on("port.v1.child.failed")]
    fn child_failed(&mut self, ctx: &mut Context, problem: Body) -> Result<(), Rollback> {
        self.begin(ctx)?;
        let problem = Problem::from_json(&problem.bytes)
            .unwrap_or_else(|_| Problem::new(codes::CAPSULE_FAILED, "nobody said why it could not be started"));
        if let Some(port) = ctx.port() {
            let now = self.now(ctx);
            self.table.failed(port, problem, now);
            self.gone(port);
        }
        self.finish(ctx)
    }

    #[on("port.v1.child.output")]
    fn child_wrote(&mut self, ctx: &mut Context, output: Body) -> Result<(), Rollback> {
        self.begin(ctx)?;
        if let Some(port) = ctx.port() {
            self.table.probe_said(port, &output.bytes);
        }
        self.finish(ctx)
    }

    #[on("port.v1.child.exited")]
    fn child_exited(&mut self, ctx: &mut Context, exited: Exited) -> Result<(), Rollback> {
        self.begin(ctx)?;
        if let Some(port) = ctx.port() {
            let now = self.now(ctx);
            let held = HeldPort {
                port,
                tag: exited.tag,
                pid: None,
                started_at_ms: None,
            };
            self.table.left_behind(port, exited.left_behind, now);
            self.table.violated(port, exited.violation.as_deref(), now);
            self.table.unsaved(port, exited.unsaved.as_deref(), now);
            self.table.ended(&held, &exited.exit, now);
            self.gone(port);
        }
        self.finish(ctx)
    }

    #[timer("wake")]
    fn woken(&mut self, ctx: &mut Context) -> Result<(), Rollback> {
        self.begin(ctx)?;
        self.wake = None;
        let now = self.now(ctx);
        self.table.due(now);
        self.finish(ctx)
    }

    /// The daemon stops: everything that does not stay ends.
    #[on("astrid.v1.shutdown")]
    fn shutdown(&mut self, ctx: &mut Context, _: Body) -> Result<(), Rollback> {
        self.begin(ctx)?;
        let now = self.now(ctx);
        self.table.drain(now);
        self.finish(ctx)
    }
}

impl ProcessCapsule {
    /// The time of the message at hand.
    fn now(&self, ctx: &Context) -> Now {
        let (up_ms, wall_ms) = (ms(ctx.uptime()), ms(ctx.unix_time()));
        Now {
            up_ms: self.began.unwrap_or_default().saturating_add(up_ms),
            wall_ms,
            chance: ctx.random_number(),
        }
    }

    /// An instance of the actor begins, with the message at hand; nothing when it has begun.
    fn begin(&mut self, ctx: &mut Context) -> Result<(), Rollback> {
        if self.began.is_some() {
            return Ok(());
        }
        self.began = Some(ms(ctx.unix_time()).saturating_sub(ms(ctx.uptime())));
        // The instance before has set it; this one does not know for when.
        for armed in ctx.timers() {
            ctx.cancel(armed.timer);
        }
        match Ledger::read(ctx) {
            Ok(ledger) => Ok(self.take_over(ctx, &ledger)?),
            Err(problem) => {
                error!("the definitions cannot be read", problem = problem);
                self.problem = Some(problem);
                Ok(())
            }
        }
    }

    /// The document can be read. At the first time, what was kept and the children that there are find their definitions, before others
    /// are started.
    fn take_over(&mut self, ctx: &mut Context, ledger: &Ledger) -> Result<(), Problem> {
        let now = self.now(ctx);
        if self.restored {
            self.table.sync(ledger.plans(), Which::Everything, now);
        } else {
            let beginning = Beginning {
                memory: rows::Memory::read(ctx)?,
                boot: ctx.id().boot,
                held: std::mem::take(&mut self.unclaimed),
                told: self.told,
                ended: std::mem::take(&mut self.ended),
            };
            self.table.restore(ledger.plans(), beginning, now);
            self.restored = true;
        }
        self.problem = None;
        Ok(())
    }

    /// A child is gone.
    fn gone(&mut self, port: PortId) {
        if !self.restored {
            self.unclaimed.retain(|held| held.port != port);
            self.ended.insert(port);
        }
    }

    /// Answers a request, and carries out what came of it.
    fn answer<T>(
        &mut self,
        ctx: &mut Context,
        run: impl FnOnce(&mut Self, &mut Context) -> Result<T, Problem>,
    ) -> Result<T> {
        self.begin(ctx)?;
        let answer = run(self, ctx);
        self.finish(ctx)?;
        Ok(answer?)
    }

    /// Writes and carries out what came of the message at hand, and sees to it that there is another one when something is to be done next.
    fn finish(&mut self, ctx: &mut Context) -> Result<(), Rollback> {
        let now = self.now(ctx);
        rows::write(&mut self.table, ctx, rows::ROW_BYTES_MAX)?;
        // Nobody is answered before what the answer says is written, of which there may be more than one message can write.
        let mut left = !self.table.is_written();
        if !left {
            left = outbox::flush(&mut self.table, ctx, now);
            rows::write(&mut self.table, ctx, rows::ROW_BYTES_MAX)?;
            left |= !self.table.is_written();
        }
        self.set_wake(ctx, left, now);
        Ok(())
    }

    fn set_wake(&mut self, ctx: &mut Context, left: bool, now: Now) {
        let next = if left { Some(now.up_ms) } else { self.table.deadline() };
        let Some(at) = next else {
            if let Some((_, port)) = self.wake.take() {
                ctx.cancel(port);
            }
            return;
        };
        match self.wake {
            // One that fires too early finds nothing to do, which costs less than to set another.
            Some((wake, _)) if wake <= at => return,
            Some((_, port)) => {
                ctx.cancel(port);
            }
            None => {}
        }
        let after = Duration::from_millis(at.saturating_sub(now.up_ms)).max(AT_ONCE);
        match ctx.timer(after).tag(WAKE).set() {
            Ok(port) => self.wake = Some((at, port)),
            Err(error) => {
                self.wake = None;
                error!("no timer", error = error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
