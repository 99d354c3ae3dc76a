//! `astrid audit ...`: what happened, and the proof. All of it reads the log's files, so it works with a daemon and without one. What changes
//! them (`prune`, `rotate`) a running daemon does, and without one the command itself.

mod change;
mod export;
mod list;
mod stats;
mod verify;

use std::path::PathBuf;

use astrid_kernel::audit::query::{Filter, Recorded};
use astrid_kernel::audit::verify::VerifyError;
use clap::Subcommand;

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::printable;
use crate::time;

/// Look at the signed record of what happened, and verify it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tail(list::TailArgs),
    Show(list::ShowArgs),
    Verify(verify::Args),
    Export(export::Args),
    Stats(stats::Args),
    Prune(change::PruneArgs),
    Rotate(change::RotateArgs),
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Tail(args) => list::tail(context, args),
        Command::Show(args) => list::show(context, &args),
        Command::Verify(args) => verify::run(context, &args),
        Command::Export(args) => export::run(context, args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Prune(args) => change::prune(context, &args),
        Command::Rotate(args) => change::rotate(context, &args),
    }
}

/// Where the log is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The directory of the log [default: var/audit of the home]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn directory(&self, context: &Context) -> anyhow::Result<PathBuf> {
        match &self.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(context.home()?.audit_dir()),
        }
    }
}

/// Which entries.
#[derive(Debug, clap::Args)]
struct Which {
    /// Only those of this principal
    #[arg(long, value_name = "NAME")]
    of: Option<String>,

    /// Only those of this kind: boot, load, denial, spawn, child-exit, connection, integrity, ...; with `denial` also how often it was repeated
    #[arg(long, value_name = "KIND")]
    kind: Option<astrid_kernel::audit::Kind>,

    /// Only those of the last while, as 10m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<std::time::Duration>,
}

impl Which {
    fn filter(self) -> Filter {
        let since_ms = self
            .since
            .map(|since| time::now_ms().saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        Filter {
            principal: self.of,
            kind: self.kind,
            since_ms,
            before_ms: None,
        }
    }
}

/// A log that cannot be read.
fn unreadable(error: &VerifyError) -> anyhow::Error {
    use std::io::ErrorKind::{AlreadyExists, PermissionDenied, QuotaExceeded, StorageFull};
    let hint = match error {
        VerifyError::Io { source, .. } => match source.kind() {
            AlreadyExists => "name a directory that is not there yet: it is made",
            StorageFull | QuotaExceeded => "make room on that disk",
            PermissionDenied => "the log is its owner's alone to read: run this as that user",
            _ => "a daemon makes the log when it first starts; --dir names another directory",
        },
        VerifyError::TooMany(_) => "--dir names the directory of one log",
    };
    Failure::failed(error.to_string()).caused_by(error).hint(hint).into()
}

/// An entry on a line.
fn line(entry: &Recorded) -> String {
    let mut text = format!(
        "{:>8}  {}  {:<10} {:<8} {:<13}",
        entry.sequence,
        time::utc(entry.wall_ms),
        entry.kind,
        entry.outcome,
        match entry.principal.as_str() {
            "" => "-".to_owned(),
            principal => printable(principal),
        }
    );
    if let Some(intent) = entry.answers {
        text.push_str(&format!("  of {intent}"));
    }
    if entry.count != 1 {
        text.push_str(&format!("  {} times", entry.count));
    }
    for part in [&entry.capsule, &entry.action, &entry.resource, &entry.detail] {
        if !part.is_empty() {
            text.push_str("  ");
            text.push_str(&printable(part));
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
