//! `astrid audit export`.

use std::path::PathBuf;

use astrid_kernel::audit::query;
use serde_json::json;

use super::{Place, Which, unreadable};
use crate::cli::Context;
use crate::output::Output;

/// Print entries as JSON, one a line; or copy what a third party needs to verify them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Copy the log's files into this directory, which is made
    #[arg(long, value_name = "DIR", conflicts_with_all = ["principal", "kind", "since"])]
    to: Option<PathBuf>,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    place: Place,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let directory = args.place.directory(context)?;
    if let Some(to) = args.to {
        let segments = query::copy(&directory, &to).map_err(|error| unreadable(&error))?;
        if context.output.is_json() {
            return Output::json(&json!({ "segments": segments, "directory": to.display().to_string() }));
        }
        let things = if segments == 1 { "segment" } else { "segments" };
        context.output.say(&format!(
            "copied {segments} {things}; `astrid audit verify --dir {}`",
            to.display()
        ));
        return Ok(());
    }
    let mut written = Ok(());
    let read = query::export(&directory, &args.which.filter(), &mut |entry| {
        written = Output::json_line(&entry);
        written.is_ok()
    });
    read.map_err(|error| unreadable(&error))?;
    written
}
