//! `astrid group ...`: what principals may do together. Every command is one request to the kernel (`astrid.v1.admin.group.*`).

use astrid_wire::authority::Capability;
use astrid_wire::control::admin::{Admin, GroupCreate, GroupModify, GroupReport, Groups, NamedGroup, PAGE_MAX, Page};
use clap::Subcommand;
use serde_json::json;

use super::ask_admin;
use crate::cli::Context;
use crate::output::{Output, Table};

/// Make groups of principals, and say what their members may do
///
/// `admin`, `agent` and `restricted` are built in and stay as they are. `etc/groups.toml` may be edited by hand as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List groups
    #[command(visible_alias = "ls")]
    List,
    /// Make a group
    Create(CreateArgs),
    /// Change what the members of a group may do
    Modify(ModifyArgs),
    /// Remove a group that nobody is in
    Delete(NameArgs),
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// Which
    name: String,
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Its name: 1 to 64 of a-z, 0-9, `.`, `_` and `-`
    name: String,
    /// Something that its members may do, such as `publish:notes.>`
    #[arg(long = "grant", value_name = "CAPABILITY")]
    grants: Vec<Capability>,
    /// Said by who means it when `*` is granted
    #[arg(long)]
    unsafe_admin: bool,
}

#[derive(Debug, clap::Args)]
struct ModifyArgs {
    /// Which
    name: String,
    /// Something that its members may do from now on
    #[arg(long, value_name = "CAPABILITY")]
    add_grant: Vec<Capability>,
    /// Something that it grants no longer
    #[arg(long, value_name = "CAPABILITY")]
    remove_grant: Vec<Capability>,
    /// Said by who means it when `*` is granted
    #[arg(long)]
    unsafe_admin: Option<bool>,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let report = match args.command {
        Command::List => return list(context),
        Command::Create(args) => {
            let create = GroupCreate {
                name: args.name,
                grants: args.grants,
                unsafe_admin: args.unsafe_admin,
            };
            ask_admin(context, Admin::GroupCreate, &create)?
        }
        Command::Modify(args) => {
            let modify = GroupModify {
                name: args.name,
                add_grants: args.add_grant,
                remove_grants: args.remove_grant,
                unsafe_admin: args.unsafe_admin,
            };
            ask_admin(context, Admin::GroupModify, &modify)?
        }
        Command::Delete(args) => {
            let report: GroupReport = ask_admin(context, Admin::GroupDelete, &NamedGroup { name: args.name })?;
            if context.output.is_json() {
                return Output::json(&report);
            }
            context.output.say(&format!("the group {} is deleted", report.name));
            return Ok(());
        }
    };
    show(context, &[report])
}

fn list(context: &Context) -> anyhow::Result<()> {
    let mut groups = Vec::new();
    let mut page = Page {
        after: None,
        max: Some(PAGE_MAX),
    };
    loop {
        let part: Groups = ask_admin(context, Admin::GroupList, &page)?;
        groups.extend(part.groups);
        page.after = part.next;
        if page.after.is_none() {
            break;
        }
    }
    show(context, &groups)
}

fn show(context: &Context, groups: &[GroupReport]) -> anyhow::Result<()> {
    if context.output.is_json() {
        return Output::json(&json!({ "groups": groups }));
    }
    let mut table = Table::new(&["GROUP", "MEMBERS", "BUILT IN", "ITS MEMBERS MAY"], &[1]);
    for group in groups {
        let grants: Vec<String> = group.grants.iter().map(ToString::to_string).collect();
        table.row([
            group.name.clone(),
            group.members.to_string(),
            if group.built_in { "yes" } else { "" }.to_owned(),
            grants.join(" "),
        ]);
    }
    Output::bytes(table.render(|_, cell| cell.to_owned()).as_bytes())
}
