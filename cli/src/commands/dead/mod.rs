//! `astrid dead ...`: messages that were given up. Every command is one question to the kernel (`astrid.v1.request.dead.*`).

mod change;
mod list;
mod show;

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cli::Context;

/// Look at messages that were given up, and say what becomes of them
///
/// A message that its receiver fails on is tried again as its subscription says; then it is put aside, with the reason, so that the
/// messages behind it go on. There it stays until it is tried again or dropped, or 10,000 later ones of the same capsule push it out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(visible_alias = "ls")]
    List(list::Args),
    Show(show::Args),
    /// Put letters back to where they were to be handled, as if they had never been tried
    ///
    /// Repair what made them fail first. A letter that fails again comes back with another id.
    Retry(change::Args),
    /// Forget letters
    Drop(change::DropArgs),
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(context, args),
        Command::Show(args) => show::run(context, &args),
        Command::Retry(args) => change::retry(context, &args),
        Command::Drop(args) => change::drop_letters(context, &args),
    }
}

/// Asks the kernel.
fn ask<T: DeserializeOwned>(context: &Context, topic: &str, body: &impl Serialize) -> anyhow::Result<T> {
    let body = serde_json::to_value(body)?;
    context.talk(|client| client.ask(topic, &body))
}
