//! A capsule that keeps state, asks another capsule, and uses a timer: it counts visits, has visitors greeted by `hello`, and reports
//! each minute in which somebody came.
//!
//! Each principal has a tally of its own. It lives as long as the actor: what must survive belongs into a store, which this
//! example does without.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use astrid_sdk::prelude::*;

/// How long visits are gathered for one report.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// How long a visitor waits to be greeted.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Visitors with a count of their own; each takes memory for as long as the actor lives.
const VISITORS_MAX: usize = 1_000;

/// Bytes of a visitor's name, for the same reason.
const NAME_BYTES_MAX: usize = 100;

#[derive(Default)]
struct Tally {
    /// How often each visitor came.
    visits: BTreeMap<String, u64>,
    /// Visitors who wait to be greeted: which ask of ours will say how, and where our answer goes.
    waiting: HashMap<CommandId, (String, ReplyTo)>,
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
    visitors: usize,
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
        if self.visits.len() >= VISITORS_MAX && !self.visits.contains_key(&name) {
            return Err(Problem::new(
                codes::TOO_MANY,
                format!("{VISITORS_MAX} visitors are all that are counted"),
            )
            .into());
        }
        if let Some(visitor) = ctx.reply_to() {
            let asked = ctx
                .ask("hello.v1.greet", Greet { name: name.clone() })
                .timeout(GREETING_TIMEOUT)
                .send()?;
            self.waiting.insert(asked, (name.clone(), visitor));
        }
        if self.unreported == 0 {
            ctx.timer(REPORT_AFTER).tag("report").set()?;
        }
        self.unreported += 1;
        *self.visits.entry(name).or_default() += 1;
        Ok(())
    }

    #[answer("hello.v1.greet")]
    fn greeted(&mut self, ctx: &mut Context, answer: Answer<Greeting>) {
        let Some((name, visitor)) = self.waiting.remove(&answer.id) else {
            return;
        };
        let visits = self.visits.get(&name).copied().unwrap_or_default();
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
    fn count(&self) -> Count {
        Count {
            visits: self.visits.clone(),
        }
    }

    #[timer("report")]
    fn report(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.publish(
            "tally.v1.report",
            Report {
                visits: self.unreported,
                visitors: self.visits.len(),
            },
        )?;
        self.unreported = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
