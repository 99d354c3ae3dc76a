//! `astrid workspace detach`.

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Detach, WorkspaceReport};

use super::ask_slow;
use crate::cli::Context;
use crate::output::Output;

/// Take a principal's workspace away
///
/// The directory stays as it is. What was written to the copy, and its snapshots, are dropped: that has to be said with --force.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
    /// Drop what was not committed
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let (name, force) = (args.name, args.force);
    let report: WorkspaceReport = ask_slow(context, Admin::WorkspaceDetach, &Detach { name, force })?;
    if context.output.is_json() {
        return Output::json(&report);
    }
    let text = format!("{} works on {} no more", report.name, report.directory);
    context.output.say(&text);
    if let Some(problem) = &report.problem {
        context.output.say(problem);
    }
    Ok(())
}
