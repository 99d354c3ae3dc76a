//! `astrid agent ...`: principals, which are people and programs. Every command is one request to the kernel (`astrid.v1.admin.agent.*`).

use std::fmt::Write as _;

use astrid_wire::authority::{Capability, WEIGHT_MAX};
use astrid_wire::control::admin::{
    Admin, AgentCreate, AgentDeleted, AgentModify, AgentReport, Agents, Dropped, Named, PAGE_MAX, Page,
};
use astrid_wire::proof::PublicKey;
use astrid_wire::{Principal, Quota};
use clap::Subcommand;
use serde_json::json;

use super::{ask_admin, ask_slow};
use crate::cli::Context;
use crate::confirm::confirmed;
use crate::failure::Failure;
use crate::output::{Output, Table, printable};

/// Make principals, let them in, and shut them out
///
/// A principal is whom something is done for: a person, or a program that acts for one (an agent). It may do what its groups and its
/// own grants allow and nothing revokes. `default` owns the daemon. Its file, `etc/profiles/NAME.toml`, may be edited by hand as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List principals
    #[command(visible_alias = "ls")]
    List,
    Create(CreateArgs),
    Modify(ModifyArgs),
    /// Let a principal act again
    Enable(NameArgs),
    /// Deny a principal everything from now on, and close what it has open
    Disable(NameArgs),
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// Whom
    name: Principal,
}

/// Remove a principal, with everything that is kept for it
///
/// What it has open is closed, its programs are ended, and what the daemon keeps for it goes: its state in capsules, messages that wait, durable
/// timers, dead letters, what it used, its directory in `home/` and the output of its programs. Also where it has no profile any more:
/// removing that by hand deletes nothing else. A capsule may have written something about it where all share; that stays.
#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// Whom
    name: Principal,

    /// Do not ask first
    #[arg(long, short)]
    yes: bool,
}

/// Make a principal
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Its id: 1 to 64 of a-z, 0-9, `.`, `_` and `-`
    name: Principal,
    /// A group that it is in [default: agent]
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// In no group at all
    #[arg(long, conflicts_with = "groups")]
    no_group: bool,
    /// Something that it may do besides, such as `child.spawn:/usr/bin/git`
    #[arg(long = "grant", value_name = "CAPABILITY")]
    grants: Vec<Capability>,
    /// A key by which it proves itself, as `astrid keypair` prints it
    #[arg(long = "key-of", value_name = "KEY")]
    keys: Vec<PublicKey>,
}

/// Change a principal's groups, keys and weight
#[derive(Debug, clap::Args)]
struct ModifyArgs {
    /// Whom
    name: Principal,
    /// A group that it enters
    #[arg(long, value_name = "GROUP")]
    add_group: Vec<String>,
    /// A group that it leaves
    #[arg(long, value_name = "GROUP")]
    remove_group: Vec<String>,
    /// A key that proves it from now on
    #[arg(long, value_name = "KEY")]
    add_key: Vec<PublicKey>,
    /// A key that proves nothing any more
    #[arg(long, value_name = "KEY")]
    remove_key: Vec<PublicKey>,
    /// Its share beside others that are busy
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(WEIGHT_MAX)))]
    weight: Option<u32>,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let (admin, name) = match args.command {
        Command::List => return list(context),
        Command::Create(args) => return create(context, args),
        Command::Modify(args) => {
            let modify = AgentModify {
                name: args.name,
                add_groups: args.add_group,
                remove_groups: args.remove_group,
                add_keys: args.add_key,
                remove_keys: args.remove_key,
                weight: args.weight,
            };
            let report = ask_admin(context, Admin::AgentModify, &modify)?;
            return show(context, &report);
        }
        Command::Enable(args) => (Admin::AgentEnable, args.name),
        Command::Disable(args) => (Admin::AgentDisable, args.name),
        Command::Delete(args) => return delete(context, args),
    };
    let report: AgentReport = ask_admin(context, admin, &Named { name })?;
    show(context, &report)
}

fn delete(context: &Context, args: DeleteArgs) -> anyhow::Result<()> {
    let question = format!("Delete {}, with all that is kept for it?", args.name);
    if !args.yes && !confirmed(&question, "whether all of it shall be dropped for good")? {
        return Err(Failure::failed("nothing was deleted").into());
    }
    let deleted: AgentDeleted = ask_slow(context, Admin::AgentDelete, &Named { name: args.name })?;
    if context.output.is_json() {
        return Output::json(&deleted);
    }
    let Dropped {
        keys,
        messages,
        timers,
        letters,
        others: _,
    } = deleted.dropped;
    let counts = [
        (keys, "key"),
        (messages, "message"),
        (timers, "timer"),
        (letters, "dead letter"),
    ];
    let gone = counts.iter().filter(|(count, _)| *count > 0);
    let gone: Vec<String> = gone
        .map(|(count, what)| format!("{count} {what}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let with = if gone.is_empty() {
        String::new()
    } else {
        format!(", with {}", gone.join(", "))
    };
    context.output.say(&format!("{} is deleted{with}", deleted.agent.name));
    Ok(())
}

fn create(context: &Context, args: CreateArgs) -> anyhow::Result<()> {
    let groups = match (args.no_group, args.groups.is_empty()) {
        (true, _) => Some(Vec::new()),
        (false, true) => None,
        (false, false) => Some(args.groups),
    };
    let create = AgentCreate {
        name: args.name,
        groups,
        grants: args.grants,
        keys: args.keys,
        quota: Quota::default(),
    };
    let report = ask_admin(context, Admin::AgentCreate, &create)?;
    show(context, &report)
}

fn list(context: &Context) -> anyhow::Result<()> {
    let mut agents = Vec::new();
    let mut page = Page {
        after: None,
        max: Some(PAGE_MAX),
    };
    loop {
        let part: Agents = ask_admin(context, Admin::AgentList, &page)?;
        agents.extend(part.agents);
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    if context.output.is_json() {
        return Output::json(&json!({ "agents": agents }));
    }
    let style = Output::style();
    let mut table = Table::new(
        &["PRINCIPAL", "STATE", "GROUPS", "GRANTS", "REVOKES", "KEYS"],
        &[3, 4, 5],
    );
    for agent in &agents {
        table.row([
            agent.name.to_string(),
            if agent.enabled { "enabled" } else { "disabled" }.to_owned(),
            agent.groups.join(" "),
            agent.grants.len().to_string(),
            agent.revokes.len().to_string(),
            agent.keys.len().to_string(),
        ]);
    }
    let text = table.render(|_, cell| match cell {
        "enabled" => style.good(cell),
        "disabled" => style.bad(cell),
        _ => cell.to_owned(),
    });
    Output::bytes(text.as_bytes())
}

/// One principal, for people or programs.
pub(super) fn show(context: &Context, report: &AgentReport) -> anyhow::Result<()> {
    if context.output.is_json() {
        return Output::json(report);
    }
    let style = Output::style();
    let state = if report.enabled {
        style.good("enabled")
    } else {
        style.bad("disabled")
    };
    let mut text = format!("{} is {state}\n", report.name);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {}", style.faint(&format!("{name:<8}")), printable(value));
    };
    line(
        "groups",
        &if report.groups.is_empty() {
            "none".to_owned()
        } else {
            report.groups.join(" ")
        },
    );
    for grant in &report.grants {
        line("may", &grant.to_string());
    }
    for revoke in &report.revokes {
        line("may not", &revoke.to_string());
    }
    for key in &report.keys {
        line("key", &key.to_string());
    }
    if let Some(workspace) = &report.workspace {
        line("copy of", workspace);
    }
    if report.weight != 1 {
        line("weight", &report.weight.to_string());
    }
    Output::bytes(text.as_bytes())
}
