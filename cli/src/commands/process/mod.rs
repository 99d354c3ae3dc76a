//! `astrid process ...`: programs under supervision. Every command is one question to the capsule `process`
//! (`process.v1.request.*`); what it answers is shown, and with `--format json` passed on as it is.
//!
//! Deliberately absent: policy. When a program is restarted, healthy or given up is the capsule's decision; here are words and
//! tables. The only files that are read are those that were named on the command line, and logs, by the paths that the capsule
//! gives.

mod apply;
mod import;
mod list;
mod logs;
mod remove;
mod run;
mod signal;
mod size;
mod status;
mod switch;
mod table;
mod view;
mod why;

pub(super) use self::table::ago;

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::body::Body;
use crate::cli::Context;
use crate::client::REQUEST_TIMEOUT;
use astrid_wire::Topic;

/// How long something may take that waits for programs to start or to end: the longest that the bus waits. How long each
/// may take is in its definition.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Run programs, watch over them, and say what happened to them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Args>),
    #[command(visible_alias = "ls")]
    List(list::Args),
    Status(status::Args),
    /// Start a program that is defined, and wait until it runs
    ///
    /// Closes a circuit that opened because it crashed too often.
    Start(switch::Args),
    /// Stop a program; it stays defined
    Stop(switch::Args),
    /// Stop a program if it runs, and start it; its instances one after the other
    Restart(switch::Args),
    Remove(remove::Args),
    Logs(logs::Args),
    Why(why::Args),
    Apply(apply::Args),
    Import(import::Args),
    Signal(signal::Args),
}

impl Args {
    /// Whether it is a conversation with a running daemon.
    pub(super) fn talks_to_the_daemon(&self) -> bool {
        match &self.command {
            Command::Import(args) => args.talks_to_the_daemon(),
            _ => true,
        }
    }
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run(args) => run::run(context, *args),
        Command::List(args) => list::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Start(args) => switch::run(context, &args, switch::Verb::Start),
        Command::Stop(args) => switch::run(context, &args, switch::Verb::Stop),
        Command::Restart(args) => switch::run(context, &args, switch::Verb::Restart),
        Command::Remove(args) => remove::run(context, &args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Why(args) => why::run(context, &args),
        Command::Apply(args) => apply::run(context, &args),
        Command::Import(args) => import::run(context, &args),
        Command::Signal(args) => signal::run(context, &args),
    }
}

/// An answer: as it came, and read.
struct Answer<T> {
    raw: Value,
    read: T,
}

/// Asks the capsule for something that it knows.
fn ask<T: DeserializeOwned>(context: &Context, verb: &str, body: &Value) -> anyhow::Result<Answer<T>> {
    ask_within(context, verb, body, REQUEST_TIMEOUT)
}

/// Asks the capsule for something that takes as long as programs take.
fn ask_and_wait<T: DeserializeOwned>(context: &Context, verb: &str, body: &Value) -> anyhow::Result<Answer<T>> {
    ask_within(context, verb, body, WAIT_TIMEOUT)
}

fn ask_within<T: DeserializeOwned>(
    context: &Context,
    verb: &str,
    body: &Value,
    timeout: Duration,
) -> anyhow::Result<Answer<T>> {
    let topic: Topic = format!("process.v1.request.{verb}").parse()?;
    let answer = context.talk(|client| client.request(&topic, Body::json(body)?, timeout))?;
    let unexpected = || format!("the answer to `{topic}` is not what this version expects");
    let raw: Value = serde_json::from_slice(&answer.body).with_context(unexpected)?;
    let read = T::deserialize(&raw).with_context(unexpected)?;
    Ok(Answer { raw, read })
}
