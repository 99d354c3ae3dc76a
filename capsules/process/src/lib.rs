//! The capsule `process`: programs under supervision (interface `process@1`).
//!
//! Reading order: [`definition`] and [`rules`] (what a person writes), [`document`] and [`ledger`] (where it is kept), [`plan`] (what follows from it),
//! [`policy`], [`state`] and [`machine`] (one instance: all policy, pure), [`process`] and [`table`] (all of them), [`outbox`] (what the kernel is told to do), [`requests`] (what
//! can be asked), [`report`] and [`why`] (what is answered). Only this file, `outbox` and `ledger` know that it is a capsule.
//!
//! A principal has processes of its own. State lives as long as the actor: an actor that begins again finds its children by their tags, and
//! goes on with them; what was stopped by hand is then started again if its definition says `autostart`, and restarts are counted from
//! what the tags say. Deliberately absent: dependencies between processes, and schedules.

pub mod answers;
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
pub mod rules;
pub mod signals;
pub mod state;
pub mod table;
pub mod why;
pub mod words;

use std::time::Duration;

use astrid_sdk::child::{Begun, Exited, HeldPort, Started};
use astrid_sdk::prelude::*;

use ledger::Ledger;
use report::{ChangedEvent, CircuitEvent, ProcessList, ProcessView};
use requests::{Applied, Apply, Define, Listed, LogFiles, Named, Remove, SendSignal, Sent, Told, WhyAsked};
use state::Now;
use table::{Table, Which};
use why::Why;

/// The tag of the one timer.
const WAKE: &str = "wake";
/// When what is left of a message's effects is carried out.
const AT_ONCE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct ProcessCapsule {
    /// Whether this generation has begun.
    began: bool,
    table: Table,
    /// Children of an earlier generation that are attached once the document can be read.
    unclaimed: Vec<HeldPort>,
    /// Why it cannot be.
    problem: Option<Problem>,
    /// When the timer fires, in milliseconds since the daemon started, and its port.
    wake: Option<(u64, PortId)>,
}

/// The time of the message at hand.
fn now(ctx: &Context) -> Now {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Now {
        up_ms: ms(ctx.uptime()),
        wall_ms: ms(ctx.unix_time()),
        chance: ctx.random_number(),
    }
}

#[capsule(says("process.v1.event.changed" = ChangedEvent, "process.v1.event.circuit" = CircuitEvent))]
impl ProcessCapsule {
    #[on("lifecycle.v1.started", "lifecycle.v1.restarted")]
    fn begun(&mut self, ctx: &mut Context, begun: Begun) {
        self.begin(ctx, begun.ports);
        self.finish(ctx);
    }

    /// Merges definitions into the document, and makes what runs what they say.
    #[on("process.v1.request.apply")]
    fn apply(&mut self, ctx: &mut Context, request: Apply) -> Result<Applied, Problem> {
        self.answer(ctx, |this, ctx| this.do_apply(ctx, &request))
    }

    /// Adds one definition.
    #[on("process.v1.request.define")]
    fn define(&mut self, ctx: &mut Context, request: Define) -> Result<ProcessView, Problem> {
        self.answer(ctx, |this, ctx| this.do_define(ctx, &request))
    }

    /// All processes.
    #[on("process.v1.request.list")]
    fn list(&mut self, ctx: &mut Context, _: Listed) -> Result<ProcessList, Problem> {
        self.answer(ctx, Self::do_list)
    }

    /// One process.
    #[on("process.v1.request.status")]
    fn status(&mut self, ctx: &mut Context, request: Named) -> Result<ProcessView, Problem> {
        self.answer(ctx, |this, ctx| this.do_status(ctx, &request))
    }

    /// Starts what is down, with a clean record; answered when it runs.
    #[on("process.v1.request.start", reply = ProcessList)]
    fn start(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        Ok(self.answer(ctx, |this, ctx| this.do_start(ctx, &request))?)
    }

    /// Stops what runs; answered when it has ended.
    #[on("process.v1.request.stop", reply = ProcessList)]
    fn stop(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        Ok(self.answer(ctx, |this, ctx| this.do_stop(ctx, &request))?)
    }

    /// Stops and starts; answered when it runs again.
    #[on("process.v1.request.restart", reply = ProcessList)]
    fn restart(&mut self, ctx: &mut Context, request: Told) -> Result<()> {
        Ok(self.answer(ctx, |this, ctx| this.do_restart(ctx, &request))?)
    }

    /// Stops a process and removes its definition.
    #[on("process.v1.request.remove", reply = requests::Done)]
    fn remove(&mut self, ctx: &mut Context, request: Remove) -> Result<()> {
        Ok(self.answer(ctx, |this, ctx| this.do_remove(ctx, &request))?)
    }

    /// Why a process is in its state.
    #[on("process.v1.request.why")]
    fn why(&mut self, ctx: &mut Context, request: WhyAsked) -> Result<Why, Problem> {
        self.answer(ctx, |this, ctx| this.do_why(ctx, &request))
    }

    /// Sends a signal.
    #[on("process.v1.request.signal")]
    fn signal(&mut self, ctx: &mut Context, request: SendSignal) -> Result<Sent, Problem> {
        self.answer(ctx, |this, ctx| this.do_signal(ctx, &request))
    }

    /// Where the logs of a process are.
    #[on("process.v1.request.logs")]
    fn logs(&mut self, ctx: &mut Context, request: Named) -> Result<LogFiles, Problem> {
        self.answer(ctx, |this, ctx| this.do_logs(ctx, &request))
    }

    #[on("port.v1.child.started")]
    fn child_started(&mut self, ctx: &mut Context, started: Started) {
        if let Some(port) = ctx.port() {
            self.table.started(port, started.pid, now(ctx));
        }
        self.finish(ctx);
    }

    #[on("port.v1.child.failed")]
    fn child_failed(&mut self, ctx: &mut Context, problem: Body) {
        let problem = Problem::from_json(&problem.bytes)
            .unwrap_or_else(|_| Problem::new(codes::CAPSULE_FAILED, "nobody said why it could not be started"));
        if let Some(port) = ctx.port() {
            self.table.failed(port, problem, now(ctx));
            self.unclaimed.retain(|held| held.port != port);
        }
        self.finish(ctx);
    }

    #[on("port.v1.child.output")]
    fn child_wrote(&mut self, ctx: &mut Context, output: Body) {
        if let Some(port) = ctx.port() {
            self.table.probe_said(port, &output.bytes);
        }
    }

    #[on("port.v1.child.exited")]
    fn child_exited(&mut self, ctx: &mut Context, exited: Exited) {
        if let Some(port) = ctx.port() {
            self.table.left_behind(port, exited.left_behind, now(ctx));
            self.table.exited(port, &exited.exit, now(ctx));
            self.unclaimed.retain(|held| held.port != port);
        }
        self.finish(ctx);
    }

    #[timer("wake")]
    fn woken(&mut self, ctx: &mut Context) {
        self.wake = None;
        self.table.due(now(ctx));
        self.finish(ctx);
    }

    /// The daemon stops: everything that does not stay ends.
    #[on("astrid.v1.shutdown")]
    fn shutdown(&mut self, ctx: &mut Context, _: Body) {
        self.table.drain(now(ctx));
        self.finish(ctx);
    }
}

impl ProcessCapsule {
    /// A generation begins, with what it holds already.
    fn begin(&mut self, ctx: &mut Context, held: Vec<HeldPort>) {
        self.began = true;
        self.unclaimed.extend(held);
        match Ledger::read(ctx) {
            Ok(ledger) => {
                self.take_over(ctx, &ledger);
            }
            Err(problem) => {
                error!("the definitions cannot be read", problem = problem);
                self.problem = Some(problem);
            }
        }
    }

    /// The document can be read: children of an earlier generation find their instances, before others are started.
    fn take_over(&mut self, ctx: &Context, ledger: &Ledger) {
        self.problem = None;
        let now = now(ctx);
        let first = std::mem::take(&mut self.unclaimed);
        self.table.sync(ledger.plans(), first, Which::Everything, now);
    }

    /// Answers a request, after a generation that was not told that it begins has begun, and carries out what came of it.
    fn answer<T>(
        &mut self,
        ctx: &mut Context,
        run: impl FnOnce(&mut Self, &mut Context) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if !self.began {
            self.begin(ctx, Vec::new());
        }
        let answer = run(self, ctx);
        self.finish(ctx);
        answer
    }

    /// Carries out what was queued, and sees to it that there is a message when something is to be done next.
    fn finish(&mut self, ctx: &mut Context) {
        let now = now(ctx);
        let left = outbox::flush(&mut self.table, ctx, now);
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
