//! One file for each command: its arguments, whose documentation is the help text, and what it does.

mod capsule;
mod completions;
mod doctor;
pub(crate) mod internal;
mod logs;
mod process;
mod publish;
mod request;
mod restart;
mod start;
mod status;
mod stop;
mod watch;

use clap::Subcommand;

use crate::cli::Context;

/// Everything that can be typed after `astrid`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Status(status::Args),
    Logs(logs::Args),
    Process(process::Args),
    Capsule(capsule::Args),
    Publish(publish::Args),
    Request(request::Args),
    Watch(watch::Args),
    Completions(completions::Args),
    Doctor(doctor::Args),
}

impl Command {
    /// Whether it is a conversation with a running daemon, so that it makes sense to have one around it.
    pub(crate) fn talks_to_the_daemon(&self) -> bool {
        match self {
            Self::Status(_) | Self::Publish(_) | Self::Request(_) | Self::Watch(_) => true,
            Self::Capsule(args) => args.talks_to_the_daemon(),
            Self::Process(args) => args.talks_to_the_daemon(),
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Logs(_)
            | Self::Completions(_)
            | Self::Doctor(_) => false,
        }
    }
}

/// Runs one.
pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Start(args) => start::run(context, &args),
        Command::Stop(args) => stop::run(context, &args),
        Command::Restart(args) => restart::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Logs(args) => logs::run(context, &args),
        Command::Process(args) => process::run(context, args),
        Command::Capsule(args) => capsule::run(context, args),
        Command::Publish(args) => publish::run(context, args),
        Command::Request(args) => request::run(context, args),
        Command::Watch(args) => watch::run(context, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Doctor(args) => doctor::run(context, &args),
    }
}
