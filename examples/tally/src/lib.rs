//! A capsule that keeps state, asks another capsule, and uses a timer: it counts visits, has visitors greeted by `hello`, and reports
//! each minute in which somebody came.
//!
//! Each principal has a tally of its own. The counts are in its table, where they outlive the daemon, and so does the timer. Who waits to be
//! greeted is in memory: when the daemon ends, nobody waits any more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use astrid_sdk::prelude::*;

/// How long visits are gathered for one report.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// How long a visitor waits to be greeted.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Visitors with a count of their own; each takes a place in the table.
const VISITORS_MAX: u64 = 1_000;

/// Bytes of a visitor's name, for the same reason.
const NAME_BYTES_MAX: usize = 100;

#[derive(Default)]
struct Tally {
    /// Visitors who wait to be greeted: which ask of ours will say how, and where our answer goes.
    waiting: HashMap<CommandId, (u64, ReplyTo)>,
}

/// What is kept as `totals`; how often somebody came is kept as `visits/NAME`.
#[body]
#[derive(Default)]
struct Totals {
    visitors: u64,
    /// Visits since the last report. While there are any, the timer runs.
    unreported: u64,
}

/// Somebody comes.
#[body]
struct Visit {
    name: String,
}

/// A visitor is welcome.
#[body]
struct Welcome {
    greeting: String,
    /// How often they have come, this time included.
    visits: u64,
}

/// How often each visitor came.
#[body]
struct Count {
    visits: BTreeMap<String, u64>,
}

/// What happened since the last report.
#[body]
struct Report {
    visits: u64,
    /// Visitors so far.
    visitors: u64,
}

/// What `hello` is asked, and what it answers: its interface, as far as it is used here.
#[body]
struct Greet {
    name: String,
}

#[body]
struct Greeting {
    text: String,
}

#[capsule(says("hello.v1.greet" = Greet, "tally.v1.report" = Report))]
impl Tally {
    /// Counts a visit, and answers with a greeting as soon as there is one.
    #[on("tally.v1.visit", reply = Welcome)]
    fn visit(&mut self, ctx: &mut Context, Visit { name }: Visit) -> Result<()> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Problem::new(codes::TOO_LARGE, format!("a name has at most {NAME_BYTES_MAX} bytes")).into());
        }
        let key = format!("visits/{name}");
        let visits = ctx.kv().get(&key)?.unwrap_or(0_u64) + 1;
        let mut totals: Totals = ctx.kv().get("totals")?.unwrap_or_default();
        if visits == 1 && totals.visitors >= VISITORS_MAX {
            return Err(Problem::new(
                codes::TOO_MANY,
                format!("{VISITORS_MAX} visitors are all that are counted"),
            )
            .into());
        }
        if let Some(visitor) = ctx.reply_to() {
            let asked = ctx
                .ask("hello.v1.greet", Greet { name })
                .timeout(GREETING_TIMEOUT)
                .send()?;
            self.waiting.insert(asked, (visits, visitor));
        }
        if totals.unreported == 0 {
            ctx.timer(REPORT_AFTER).tag("report").durable().set()?;
        }
        totals.unreported += 1;
        totals.visitors += u64::from(visits == 1);
        ctx.kv().put("totals", &totals)?;
        Ok(ctx.kv().put(key, &visits)?)
    }

    #[answer("hello.v1.greet")]
    fn greeted(&mut self, ctx: &mut Context, answer: Answer<Greeting>) {
        let Some((visits, visitor)) = self.waiting.remove(&answer.id) else {
            return;
        };
        let answered = match answer.into_result() {
            Ok(greeting) => ctx.reply(
                visitor,
                Welcome {
                    greeting: greeting.text,
                    visits,
                },
            ),
            Err(problem) => ctx.refuse(visitor, &problem),
        };
        if let Err(error) = answered {
            debug!("a visitor did not wait", error = error);
        }
    }

    /// Says how often each visitor came.
    #[on("tally.v1.count")]
    fn count(&mut self, ctx: &mut Context) -> Result<Count> {
        let mut visits = BTreeMap::new();
        for entry in ctx.kv().prefix("visits/") {
            let entry = entry?;
            visits.insert(entry.key_after("visits/")?.to_owned(), entry.read()?);
        }
        Ok(Count { visits })
    }

    #[timer("report")]
    fn report(&mut self, ctx: &mut Context) -> Result<()> {
        let mut totals: Totals = ctx.kv().get("totals")?.unwrap_or_default();
        let report = Report {
            visits: std::mem::take(&mut totals.unreported),
            visitors: totals.visitors,
        };
        ctx.publish("tally.v1.report", report)?;
        Ok(ctx.kv().put("totals", &totals)?)
    }
}

#[cfg(test)]
mod tests;
