//! `astrid process start | stop | restart`.

use serde_json::json;

use super::view::{Process, Processes, State};
use super::{ask_and_wait, table};
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::time;

/// Which programs, and whether to wait.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The program
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,

    /// All that are defined
    #[arg(long)]
    all: bool,

    /// Only this instance, counted from 0
    #[arg(long, value_name = "I", conflicts_with = "all")]
    instance: Option<u32>,

    /// Return as soon as the order was taken
    #[arg(long)]
    no_wait: bool,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

pub(super) fn run(context: &Context, args: &Args, verb: Verb) -> anyhow::Result<()> {
    let body = json!({ "name": args.name, "instance": args.instance, "wait": !args.no_wait });
    let answer = ask_and_wait::<Processes>(context, verb.word(), &body)?;
    if context.output.is_json() {
        Output::json(&answer.raw)?;
    }
    let mut processes = answer.read.processes;
    if let Some(wanted) = args.instance {
        for process in &mut processes {
            process.instances.retain(|instance| instance.index == wanted);
        }
    }
    conclude(context, &processes, verb != Verb::Stop && !args.no_wait)
}

/// Says how each of them is now; an error if one should run and does not.
pub(super) fn conclude(context: &Context, processes: &[Process], should_run: bool) -> anyhow::Result<()> {
    let now_ms = time::now_ms();
    if processes.is_empty() {
        context.output.say("no programs are defined");
    }
    let mut failed = Vec::new();
    for process in processes {
        for instance in &process.instances {
            let mut words = format!(
                "{} is {}",
                process.label(instance.index),
                table::state(instance, now_ms)
            );
            if let Some(pid) = instance.pid {
                words.push_str(&format!(" (pid {pid})"));
            }
            let exit = instance.last_exit.as_ref();
            // A program that did what it had to and ended did not fail.
            let ended_well = instance.state == State::Stopped && exit.is_some_and(|exit| exit.code == Some(0));
            let up = matches!(instance.state, State::Starting | State::Running | State::Unhealthy);
            if should_run && !up && !ended_well {
                if let Some(exit) = exit {
                    words.push_str(&format!(": {}", exit.text));
                }
                failed.push((words, process.name.as_str()));
            } else {
                context.output.say(&words);
            }
        }
    }
    let Some(((first, name), others)) = failed.split_first() else {
        return Ok(());
    };
    let mut message = first.clone();
    if !others.is_empty() {
        message.push_str(&format!(", and {} more", others.len()));
    }
    Err(Failure::failed(message)
        .hint(format!("`astrid process why {name}` says more"))
        .into())
}
