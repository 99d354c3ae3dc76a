//! `astrid workspace attach`.

use std::path::PathBuf;

use anyhow::Context as _;
use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Attach, WorkspaceReport};

use super::{ask_slow, attached};
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;

/// Give a principal a directory to work on, as a copy
///
/// Only who may do everything may say which: a directory of the host is given away. It stays in the principal's profile.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// To whom
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let path =
        std::path::absolute(&args.directory).with_context(|| format!("cannot resolve {}", args.directory.display()))?;
    let Some(directory) = path.to_str().map(str::to_owned) else {
        return Err(Failure::failed(format!("{} has a name that is not UTF-8", path.display())).into());
    };
    let name = args.name;
    let report: WorkspaceReport = ask_slow(context, Admin::WorkspaceAttach, &Attach { name, directory })?;
    if context.output.is_json() {
        return Output::json(&report);
    }
    context.output.say(&attached(&report));
    if let Some(problem) = &report.problem {
        context.output.say(problem);
    }
    Ok(())
}
