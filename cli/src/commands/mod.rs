//! One file for each command: its arguments, whose documentation is the help text, and what it does.

mod agent;
mod audit;
mod backup;
mod caps;
mod capsule;
mod completions;
mod dead;
mod doctor;
mod group;
pub(crate) mod internal;
mod keypair;
mod logs;
mod process;
mod publish;
mod quota;
mod request;
mod restart;
mod restore;
mod start;
mod status;
mod stop;
mod usage;
mod watch;
mod who;
mod workspace;

use std::time::Duration;

use astrid_wire::control::admin::Admin;
use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
    Workspace(workspace::Args),
    Capsule(capsule::Args),
    Publish(publish::Args),
    Request(request::Args),
    Watch(watch::Args),
    Dead(dead::Args),
    Agent(agent::Args),
    Group(group::Args),
    Caps(caps::Args),
    Quota(quota::Args),
    Who(who::Args),
    Usage(usage::UsageArgs),
    Top(usage::TopArgs),
    Keypair(keypair::Args),
    Audit(audit::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Completions(completions::Args),
    Doctor(doctor::Args),
}

impl Command {
    /// Whether it is a conversation with a running daemon, so that it makes sense to have one around it.
    pub(crate) fn talks_to_the_daemon(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Publish(_)
            | Self::Request(_)
            | Self::Watch(_)
            | Self::Dead(_)
            | Self::Who(_)
            | Self::Agent(_)
            | Self::Group(_)
            | Self::Caps(_)
            | Self::Quota(_)
            | Self::Usage(_)
            | Self::Workspace(_)
            | Self::Top(_) => true,
            Self::Capsule(args) => args.talks_to_the_daemon(),
            Self::Process(args) => args.talks_to_the_daemon(),
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Logs(_)
            | Self::Keypair(_)
            | Self::Audit(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Completions(_)
            | Self::Doctor(_) => false,
        }
    }

    /// Whether it is done by whoever has the files and the process, and for nobody else.
    pub(crate) fn is_the_users_own(&self) -> bool {
        matches!(
            self,
            Self::Start(_)
                | Self::Logs(_)
                | Self::Keypair(_)
                | Self::Restore(_)
                | Self::Completions(_)
                | Self::Doctor(_)
        )
    }
}

/// Asks the kernel for what administrators ask.
fn ask_admin<T: DeserializeOwned>(context: &Context, admin: Admin, body: &impl Serialize) -> anyhow::Result<T> {
    let body = serde_json::to_value(body)?;
    context.talk(|client| client.ask(admin.topic(), &body))
}

/// The same, for what walks directories of any size.
fn ask_slow<T: DeserializeOwned>(context: &Context, admin: Admin, body: &impl Serialize) -> anyhow::Result<T> {
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);
    let body = serde_json::to_value(body)?;
    context.talk(|client| client.ask_within(admin.topic(), &body, TIMEOUT))
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
        Command::Workspace(args) => workspace::run(context, args),
        Command::Capsule(args) => capsule::run(context, args),
        Command::Publish(args) => publish::run(context, args),
        Command::Request(args) => request::run(context, args),
        Command::Watch(args) => watch::run(context, &args),
        Command::Dead(args) => dead::run(context, args),
        Command::Agent(args) => agent::run(context, args),
        Command::Group(args) => group::run(context, args),
        Command::Caps(args) => caps::run(context, args),
        Command::Quota(args) => quota::run(context, args),
        Command::Who(args) => who::run(context, &args),
        Command::Usage(args) => usage::usage(context, &args),
        Command::Top(args) => usage::top(context, &args),
        Command::Keypair(args) => keypair::run(context, &args),
        Command::Audit(args) => audit::run(context, args),
        Command::Backup(args) => backup::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Doctor(args) => doctor::run(context, &args),
    }
}
