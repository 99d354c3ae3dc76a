//! `astrid capsule forget`.

use astrid_wire::control::{self, CapsuleRequest, Forgotten};

use crate::cli::Context;
use crate::confirm::confirmed;
use crate::failure::Failure;
use crate::output::{Output, printable};

/// Forget what is kept for a capsule that is not there any more
///
/// What is said to a capsule's durable topics is kept for it also while it cannot be loaded or is not installed. This ends that, and
/// drops the messages and durable timers that wait for it. Its own state and its dead letters stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which
    name: String,

    /// Do not ask first
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let question = format!("Drop everything that waits for {}?", printable(&args.name));
    if !args.yes && !confirmed(&question, "whether what waits shall be dropped for good")? {
        return Err(Failure::failed("nothing was forgotten").into());
    }
    let request = serde_json::to_value(CapsuleRequest {
        name: args.name.clone(),
    })?;
    let forgotten: Forgotten = context.talk(|client| client.ask(control::REQUEST_CAPSULE_FORGET, &request))?;
    if context.output.is_json() {
        return Output::json(&forgotten);
    }
    let count = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let text = format!(
        "{} is forgotten, with {} and {} that waited for it\n",
        printable(&args.name),
        count(forgotten.messages, "message"),
        count(forgotten.timers, "timer")
    );
    Output::bytes(text.as_bytes())
}
