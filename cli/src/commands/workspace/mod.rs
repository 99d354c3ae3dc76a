//! `astrid workspace ...`: directories of the host that principals change a copy of. Every command is a request to the kernel
//! (`astrid.v1.admin.workspace.*`); a diff is several, page by page.

mod attach;
mod commit;
mod detach;
mod diff;
mod list;
mod rollback;
mod snapshot;

use astrid_wire::control::workspace::{Counts, WorkspaceReport};
use clap::Subcommand;

use super::ask_slow;
use crate::cli::Context;

/// Let principals work on a copy of a directory, and look at what they did before it counts
///
/// What a principal and its programs write to its workspace goes to a copy, kept beside the daemon's own files. The directory itself stays as it
/// is until the differences are committed; they can be looked at, committed in part, kept as snapshots, or thrown away.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Attach(attach::Args),
    Detach(detach::Args),
    #[command(visible_alias = "ls")]
    List(list::Args),
    Diff(diff::Args),
    Commit(commit::Args),
    Rollback(rollback::Args),
    Snapshot(snapshot::Args),
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Attach(args) => attach::run(context, args),
        Command::Detach(args) => detach::run(context, args),
        Command::List(args) => list::run(context, args),
        Command::Diff(args) => diff::run(context, args),
        Command::Commit(args) => commit::run(context, args),
        Command::Rollback(args) => rollback::run(context, args),
        Command::Snapshot(args) => snapshot::run(context, args),
    }
}

/// `3 added, 1 modified`; `nothing` when there is nothing.
fn counted(counts: Counts) -> String {
    let all = [
        (counts.added, "added"),
        (counts.modified, "modified"),
        (counts.removed, "removed"),
    ];
    let said: Vec<String> = all
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if said.is_empty() {
        "nothing".to_owned()
    } else {
        said.join(", ")
    }
}

/// Says where somebody works.
fn attached(report: &WorkspaceReport) -> String {
    format!("{} works on a copy of {}", report.name, report.directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_in_words() {
        let counts = |added, modified, removed| {
            counted(Counts {
                added,
                modified,
                removed,
            })
        };
        assert_eq!(counts(0, 0, 0), "nothing");
        assert_eq!(counts(3, 0, 1), "3 added, 1 removed");
    }
}
