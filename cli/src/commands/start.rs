//! `astrid start`.

use std::time::Instant;

use astrid_wire::control::Mode;
use serde::Serialize;

use crate::cli::Context;
use crate::daemon::{self, Home};
use crate::launch::Launch;
use crate::output::Output;
use crate::time;

/// Start the daemon; returns when it is ready
///
/// There is one daemon for each home: a second start says who holds it, and exits 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Stay in the foreground, for service managers and containers
    #[arg(long)]
    foreground: bool,

    /// Run the built-in capsules only
    #[arg(long)]
    safe: bool,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Started {
    pid: u32,
    home: String,
    mode: Mode,
    ready_in_ms: u64,
    reasons: Vec<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    if args.foreground {
        return daemon::run(&home, Mode::Persistent, args.safe, None);
    }
    start(context, &home, Mode::Persistent, args.safe)
}

/// Starts a daemon in the background and says so.
pub(super) fn start(context: &Context, home: &Home, mode: Mode, safe: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    let child = Launch {
        home,
        mode,
        safe,
        ends_with_client: false,
    }
    .run()?;
    let took = began.elapsed();
    let reasons = daemon::saved_status(home)?
        .map(|status| status.reasons)
        .unwrap_or_default();
    if context.output.is_json() {
        return Output::json(&Started {
            pid: child.id(),
            home: home.root().display().to_string(),
            mode,
            ready_in_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reasons,
        });
    }
    context
        .output
        .say(&format!("ready (pid {}, {})", child.id(), time::human(took)));
    for reason in reasons {
        context.output.say(&format!("degraded: {reason}"));
    }
    Ok(())
}
