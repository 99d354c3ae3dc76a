//! `astrid workspace commit`.

use std::fmt::Write as _;

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Commit, Committed};
use astrid_wire::problem::codes;

use super::{ask_slow, counted};
use crate::cli::Context;
use crate::confirm::confirmed;
use crate::failure::Failure;
use crate::output::{Output, printable};

/// Write what a principal changed into the directory itself
///
/// All of it or nothing, also when the machine fails meanwhile. What changed in the directory since the principal began to work is a conflict:
/// then nothing is written, and every conflict is named. A file with several names (hard links) is replaced under this one only.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
    /// Only these and what is below them; the rest stays in the workspace
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Write over what changed meanwhile, and set-id bits as well
    #[arg(long)]
    force: bool,
    /// Do not ask first
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let question = format!("Write what {} changed into the directory itself?", args.name);
    if !args.yes && !confirmed(&question, "whether the directory shall be changed")? {
        return Err(Failure::failed("nothing was committed").into());
    }
    let asked = Commit {
        name: args.name,
        paths: args.paths,
        force: args.force,
    };
    let committed: Committed = ask_slow(context, Admin::WorkspaceCommit, &asked)?;
    if context.output.is_json() {
        Output::json(&committed)?;
    }
    if !committed.done {
        return Err(conflicts(context, &committed));
    }
    if !context.output.is_json() {
        for remark in &committed.remarks {
            context.output.say(&format!("{}: {}", remark.path, remark.why));
        }
        context
            .output
            .say(&format!("committed: {}", counted(committed.changes)));
    }
    Ok(())
}

/// All of them on stdout, and what to do about them.
fn conflicts(context: &Context, committed: &Committed) -> anyhow::Error {
    let mut text = String::new();
    for conflict in &committed.conflicts {
        let _ = writeln!(text, "{}: {}", printable(&conflict.path), conflict.why);
    }
    let more = committed
        .conflicts_total
        .saturating_sub(committed.conflicts.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    if !context.output.is_json()
        && let Err(error) = Output::bytes(text.as_bytes())
    {
        return error;
    }
    let things = if committed.conflicts_total == 1 {
        "path"
    } else {
        "paths"
    };
    let failure = Failure::failed(format!(
        "{} {things} changed in the directory meanwhile; nothing was committed",
        committed.conflicts_total
    ));
    failure
        .coded(codes::CONFLICT)
        .hint("look at them with `astrid workspace diff`, then commit other paths, roll these back, or say --force")
        .into()
}
