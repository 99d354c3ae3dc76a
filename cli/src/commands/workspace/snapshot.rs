//! `astrid workspace snapshot`.

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Snapshot, SnapshotReport};

use super::ask_slow;
use crate::cli::Context;
use crate::output::Output;

/// Keep the state of a workspace, to go back to it with `rollback --to`
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_` and `-`, not with a dot first
    snapshot: String,
    /// Whose
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
    /// Remove it
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let asked = Snapshot {
        name: args.name,
        snapshot: args.snapshot,
        remove: args.remove,
    };
    let report: SnapshotReport = ask_slow(context, Admin::WorkspaceSnapshot, &asked)?;
    if context.output.is_json() {
        return Output::json(&report);
    }
    let what = if asked.remove { "removed" } else { "kept" };
    context.output.say(&format!("the snapshot {} is {what}", report.name));
    Ok(())
}
