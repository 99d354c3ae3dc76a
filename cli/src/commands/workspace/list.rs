//! `astrid workspace list`.

use std::fmt::Write as _;

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{List, WorkspaceReport, Workspaces};
use serde_json::json;

use super::{ask_slow, counted};
use crate::cli::Context;
use crate::output::{Output, Table, printable};
use crate::time;

/// List workspaces, what there is to commit, and snapshots
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this principal's
    #[arg(value_name = "PRINCIPAL")]
    name: Option<Principal>,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let mut workspaces = Vec::new();
    let mut asked = List {
        name: args.name,
        after: None,
    };
    loop {
        let page: Workspaces = ask_slow(context, Admin::WorkspaceList, &asked)?;
        workspaces.extend(page.workspaces);
        asked.after = page.next;
        if asked.after.is_none() {
            break;
        }
    }
    if context.output.is_json() {
        return Output::json(&json!({ "workspaces": workspaces }));
    }
    Output::bytes(text(&workspaces).as_bytes())
}

fn text(workspaces: &[WorkspaceReport]) -> String {
    let mut table = Table::new(
        &["PRINCIPAL", "DIRECTORY", "CHANGES", "DISK", "USERS", "SINCE"],
        &[3, 4],
    );
    for workspace in workspaces {
        table.row([
            workspace.name.to_string(),
            workspace.directory.clone(),
            counted(workspace.changes),
            format!("{} KiB", workspace.bytes.div_ceil(1024)),
            workspace.users.to_string(),
            workspace.since_ms.map(time::utc).unwrap_or_default(),
        ]);
    }
    let mut text = table.render(|_, cell| cell.to_owned());
    for workspace in workspaces {
        for snapshot in &workspace.snapshots {
            let _ = writeln!(
                text,
                "snapshot of {}: {}, made {}",
                workspace.name,
                printable(&snapshot.name),
                time::utc(snapshot.made_ms)
            );
        }
        if let Some(problem) = &workspace.problem {
            let _ = writeln!(text, "problem of {}: {}", workspace.name, printable(problem));
        }
    }
    text
}
