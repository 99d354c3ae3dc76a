//! `astrid restart`.

use astrid_wire::control::Mode;

use super::{start, stop};
use crate::cli::Context;
use crate::daemon;

/// Stop the daemon if it runs, and start it again in the background
///
/// An ephemeral daemon stays one. `--safe` is not carried over: restarting is how one leaves it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    let mode = match daemon::holder_pid(&home)? {
        Some(pid) => daemon::saved_status(&home)?
            .filter(|status| status.pid == pid)
            .map(|status| status.mode),
        None => None,
    };
    // What the next daemon would refuse is better said while this one runs.
    daemon::check_config(&home)?;
    stop::stop(context, &home)?;
    start::start(context, &home, mode.unwrap_or(Mode::Persistent), false)
}
