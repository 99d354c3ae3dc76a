//! `astrid process remove NAME`.

use serde_json::{Value, json};

use super::ask_and_wait;
use crate::cli::Context;
use crate::output::Output;

/// Stop a program if it runs, and forget its definition
///
/// Its logs stay.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program
    name: String,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let answer = ask_and_wait::<Value>(context, "remove", &json!({ "name": args.name, "wait": true }))?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    context.output.say(&format!("{} is removed", args.name));
    Ok(())
}
