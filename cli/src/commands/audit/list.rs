//! `astrid audit tail` and `astrid audit show`.

use astrid_kernel::audit::query::{self, Filter, Recorded};
use serde_json::json;

use super::{Place, Which, line, unreadable};
use crate::cli::Context;
use crate::failure::Failure;
use crate::logfile::Watch;
use crate::output::{Output, printable};
use crate::time;

/// Show the last entries
///
/// Whether they are true is for `astrid audit verify` to say. What came of something is on disk within 50 ms: for a moment an entry that is
/// `pending` may be the last.
#[derive(Debug, clap::Args)]
pub(super) struct TailArgs {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    entries: u32,

    /// Go on as entries come, until interrupted
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    place: Place,
}

pub(super) fn tail(context: &Context, args: TailArgs) -> anyhow::Result<()> {
    let directory = args.place.directory(context)?;
    let filter = args.which.filter();
    // Before anything is read: what comes meanwhile is told.
    let watch = args
        .follow
        .then(|| Watch::new([&*directory.join("head")]))
        .transpose()?;
    let all = query::tail(&directory, 1, &Filter::default()).map_err(|error| unreadable(&error))?;
    let entries = query::tail(&directory, args.entries as usize, &filter);
    let entries = entries.map_err(|error| unreadable(&error))?;
    if let Some(watch) = watch {
        let last = all
            .last()
            .into_iter()
            .chain(entries.last())
            .map(|entry| entry.sequence)
            .max();
        let follower = query::Follower::after(&directory, last.unwrap_or_default());
        return follow(context, follower, &filter, (&watch, &entries));
    }
    if context.output.is_json() {
        return Output::json(&json!({ "entries": entries }));
    }
    let text: String = entries.iter().map(line).collect();
    Output::bytes(text.as_bytes())
}

/// Prints entries as they come; in JSON one a line.
fn follow(
    context: &Context,
    mut follower: query::Follower,
    filter: &Filter,
    (watch, entries): (&Watch, &[Recorded]),
) -> anyhow::Result<()> {
    let text = |entry: &Recorded| {
        if context.output.is_json() {
            serde_json::to_string(entry).unwrap_or_default() + "\n"
        } else {
            line(entry)
        }
    };
    Output::bytes(entries.iter().map(text).collect::<String>().as_bytes())?;
    loop {
        let mut fresh = String::new();
        let read = follower.read(filter, &mut |entry| fresh.push_str(&text(&entry)));
        read.map_err(|error| unreadable(&error))?;
        if !fresh.is_empty() {
            Output::bytes(fresh.as_bytes())?;
        }
        watch.wait()?;
    }
}

/// Show one entry
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// Its number
    sequence: u64,

    #[command(flatten)]
    place: Place,
}

pub(super) fn show(context: &Context, args: &ShowArgs) -> anyhow::Result<()> {
    let directory = args.place.directory(context)?;
    let found = query::show(&directory, args.sequence).map_err(|error| unreadable(&error))?;
    let Some(entry) = found else {
        let failure = Failure::failed(format!("there is no entry {}", args.sequence));
        return Err(failure.hint("`astrid audit stats` says which there are").into());
    };
    if context.output.is_json() {
        return Output::json(&entry);
    }
    let mut rows = vec![
        ("entry", entry.sequence.to_string()),
        ("time", time::utc(entry.wall_ms)),
        ("kind", format!("{} ({})", entry.kind, entry.stage)),
        ("outcome", entry.outcome.to_owned()),
        ("principal", entry.principal),
        ("capsule", entry.capsule),
        ("action", entry.action),
        ("resource", entry.resource),
        ("detail", entry.detail),
        ("count", entry.count.to_string()),
        ("hash", entry.hash),
        ("link", entry.link),
        ("place", format!("{}, byte {}", entry.file, entry.offset)),
    ];
    if let Some(intent) = entry.answers {
        rows.push(("answers", format!("entry {intent}")));
    }
    let rows = rows.iter().filter(|(_, value)| !value.is_empty());
    let text: String = rows
        .map(|(name, value)| format!("{name:<10} {}\n", printable(value)))
        .collect();
    Output::bytes(text.as_bytes())
}
