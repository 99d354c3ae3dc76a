//! `astrid capsule list`.

use std::fmt::Write as _;

use astrid_wire::control::{self, Capsules};
use serde_json::json;

use crate::cli::Context;
use crate::output::{Output, printable};

/// List the capsules that the daemon found
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let found: Capsules = context.talk(|client| client.ask(control::REQUEST_CAPSULES, &json!({})))?;
    if context.output.is_json() {
        return Output::json(&found);
    }
    let mut text = super::table(&found.capsules, Output::style());
    for report in &found.capsules {
        if let Some(reason) = &report.reason {
            let _ = writeln!(text, "{}: {}", printable(&report.name), printable(reason));
        }
    }
    Output::bytes(text.as_bytes())
}
