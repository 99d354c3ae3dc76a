//! `astrid process list`.

use serde_json::json;

use super::view::Processes;
use super::{ask, table};
use crate::cli::Context;
use crate::output::{Output, printable};
use crate::time;

/// List the programs that are defined, and how they are
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let answer = ask::<Processes>(context, "list", &json!({}))?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    if let Some(problem) = answer.read.problem {
        context
            .output
            .say(&format!("the definitions cannot be read: {}", problem.message));
        if let Some(hint) = problem.hint {
            context.output.say(&format!("hint: {hint}"));
        }
    }
    let processes = answer.read.processes;
    if processes.is_empty() {
        context
            .output
            .say("nothing is defined; `astrid process run NAME -- COMMAND` defines and starts a program");
        return Ok(());
    }
    let style = Output::style();
    let table = table::table(&processes, time::now_ms(), style);
    let summary = style.faint(&printable(&table::summary(&processes)));
    Output::bytes(format!("{table}\n{summary}\n").as_bytes())
}
