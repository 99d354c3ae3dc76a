//! `astrid audit stats`.

use astrid_kernel::audit::query;

use super::{Place, unreadable};
use crate::cli::Context;
use crate::commands::capsule;
use crate::output::Output;
use crate::time;

/// Count what is in the log
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let directory = args.place.directory(context)?;
    let stats = query::stats(&directory).map_err(|error| unreadable(&error))?;
    if context.output.is_json() {
        return Output::json(&stats);
    }
    let mut text = format!(
        "segments    {} ({})\nentries     {}\nseals       {}\nprincipals  {}\n",
        stats.segments,
        capsule::bytes(stats.bytes),
        stats.entries,
        stats.seals,
        stats.principals
    );
    if let (Some(first), Some(last), Some(from), Some(to)) = (stats.first, stats.last, stats.first_ms, stats.last_ms) {
        text.push_str(&format!(
            "from        entry {first}, {}\nto          entry {last}, {}\n",
            time::utc(from),
            time::utc(to)
        ));
    }
    if let Some(key) = stats.key {
        text.push_str(&format!("key         {key}\n"));
    }
    for (kind, count) in stats.kinds {
        text.push_str(&format!("  {kind:<12} {count}\n"));
    }
    Output::bytes(text.as_bytes())
}
