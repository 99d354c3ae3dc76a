//! `astrid stop`: a signal to whoever holds the home's lock, so that it works without any uplink. A principal that is named has no signal: it
//! asks, and may be denied.

use std::time::Duration;

use astrid_wire::control::Verb;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::daemon::{self, Home};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::process::Process;

/// How long a shutdown may take: the daemon's own bounds of 15 s for what runs and 5 s each for the store and, twice, the log; and some.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Stop the daemon; returns when it has ended
///
/// That nothing is running is not an error.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What `--format json` prints.
#[derive(Serialize)]
struct Stopped {
    stopped: bool,
    pid: Option<u32>,
}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let pid = stop(context, &context.home()?)?;
    if context.output.is_json() {
        return Output::json(&Stopped {
            stopped: pid.is_some(),
            pid,
        });
    }
    match pid {
        Some(pid) => context.output.say(&format!("stopped (pid {pid})")),
        None => context.output.say("nothing is running"),
    }
    Ok(())
}

/// Ends the daemon of this home, if there is one, and waits for its end. Whom it ended.
pub(super) fn stop(context: &Context, home: &Home) -> anyhow::Result<Option<u32>> {
    let Some(pid) = daemon::holder_pid(home)? else {
        return Ok(None);
    };
    let Some(process) = Process::open(pid)? else {
        return Ok(None);
    };
    // Between the two lines above the number could have passed to another process; the holder is asked again, now that this
    // one cannot be exchanged any more.
    if daemon::holder_pid(home)? != Some(pid) {
        return Ok(None);
    }
    match context.identity() {
        None => process.terminate()?,
        Some(_) => {
            let _: Value = context.talk(|client| client.ask(Verb::Shutdown.topic(), &json!({})))?;
        }
    }
    if !process.wait(TIMEOUT)? {
        let failure = Failure::new(
            Exit::Timeout,
            format!("pid {pid} has not ended after {} s", TIMEOUT.as_secs()),
        );
        return Err(failure
            .hint(format!("`kill -9 {pid}` ends it; the next start is clean all the same"))
            .into());
    }
    Ok(Some(pid))
}
