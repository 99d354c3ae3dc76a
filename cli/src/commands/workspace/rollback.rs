//! `astrid workspace rollback`.

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Rollback, RolledBack};

use super::{ask_slow, counted};
use crate::cli::Context;
use crate::confirm::confirmed;
use crate::failure::Failure;
use crate::output::Output;

/// Throw away what a principal changed
///
/// The workspace then shows the directory as it is; or, with --to, what a snapshot has.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
    /// Only these and what is below them
    #[arg(value_name = "PATH", conflicts_with = "to")]
    paths: Vec<String>,
    /// Go back to this snapshot
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Do not ask first
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let question = format!("Throw away what {} changed?", args.name);
    if !args.yes && !confirmed(&question, "whether changes shall be thrown away")? {
        return Err(Failure::failed("nothing was rolled back").into());
    }
    let asked = Rollback {
        name: args.name,
        paths: args.paths,
        to: args.to,
    };
    let rolled: RolledBack = ask_slow(context, Admin::WorkspaceRollback, &asked)?;
    if context.output.is_json() {
        return Output::json(&rolled);
    }
    let copy = if rolled.copy {
        "; and what a program did to a copy that could not be taken back"
    } else {
        ""
    };
    context
        .output
        .say(&format!("rolled back: {}{copy}", counted(rolled.changes)));
    Ok(())
}
