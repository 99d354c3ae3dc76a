//! `astrid who`.

use std::time::Duration;

use astrid_wire::control::{self, Connections};
use serde_json::json;

use crate::cli::Context;
use crate::output::{Output, Table};
use crate::time;

/// List open connections: whom each acts as, over which socket, and which process is at its other end
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let (found, uptime_ms) = context.talk(|client| {
        let found: Connections = client.ask(control::REQUEST_WHO, &json!({}))?;
        let status: control::Status = client.ask(control::REQUEST_STATUS, &json!({}))?;
        Ok((found, status.uptime_ms))
    })?;
    if context.output.is_json() {
        return Output::json(&found);
    }
    let mut table = Table::new(&["PRINCIPAL", "SOCKET", "PID", "UID", "FOR", "HEARS"], &[2, 3]);
    for connection in &found.connections {
        let child = if connection.child {
            " (a program of this daemon)"
        } else {
            ""
        };
        table.row([
            connection.principal.clone(),
            format!("{}{child}", connection.socket),
            connection.pid.to_string(),
            connection.uid.to_string(),
            time::short(Duration::from_millis(uptime_ms.saturating_sub(connection.since_ms))),
            connection.subscriptions.join(" "),
        ]);
    }
    Output::bytes(table.render(|_, cell| cell.to_owned()).as_bytes())
}
