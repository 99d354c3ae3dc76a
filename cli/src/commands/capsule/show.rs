//! `astrid capsule show`.

use std::fmt::Write as _;

use astrid_wire::control::{self, CapsuleDetail, CapsuleRequest, CapsuleState};
use astrid_wire::describe::Direction;

use super::{bytes, grouped, word};
use crate::cli::Context;
use crate::output::{Output, Style, printable};

/// Show one capsule: how it is, what it may do and why, its topics
///
/// With `--format json` also its whole manifest and the JSON Schemas of its topics.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which
    name: String,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let request = serde_json::to_value(CapsuleRequest {
        name: args.name.clone(),
    })?;
    let detail: CapsuleDetail = context.talk(|client| client.ask(control::REQUEST_CAPSULE, &request))?;
    if context.output.is_json() {
        Output::json(&detail)
    } else {
        Output::bytes(human(&detail, Output::style()).as_bytes())
    }
}

fn human(detail: &CapsuleDetail, style: Style) -> String {
    let report = &detail.report;
    let mut text = String::new();
    let state = super::paint_state(style, &word(&report.state));
    let _ = writeln!(
        text,
        "{} {} is {state}",
        printable(&report.name),
        printable(&report.version)
    );
    if !report.description.is_empty() {
        let _ = writeln!(text, "{}", printable(&report.description));
    }
    if let Some(reason) = &report.reason {
        // What is ready, but for something.
        let word = if report.state == CapsuleState::Ready {
            "but"
        } else {
            "because"
        };
        let _ = writeln!(text, "{} {}", style.bad(word), printable(reason));
    }
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {}", style.faint(&format!("{name:<12}")), printable(value));
    };
    line("scope", &report.scope);
    line("origin", &word(&report.origin));
    line(
        "actors",
        &format!(
            "{} live, {} made, {} faults",
            report.actors, report.generations, report.faults
        ),
    );
    line(
        "handled",
        &format!("{} messages, {} fuel", report.handled, grouped(report.fuel_used)),
    );
    line(
        "memory",
        &format!("{} at most in one actor", bytes(report.memory_peak_bytes)),
    );
    for (name, version) in &report.exports {
        line("exports", &format!("{name} {version}"));
    }
    for (name, version) in &report.imports {
        line("imports", &format!("{name} {version}"));
    }
    for pattern in &report.publish {
        line("may say", pattern);
    }
    for pattern in &report.subscribe {
        line("hears", pattern);
    }
    for (capability, reason) in &report.capabilities {
        line("may use", &format!("{capability}: {reason}"));
    }
    for topic in &detail.topics {
        let verb = match topic.direction {
            Direction::Hears => "hears",
            Direction::Says => "says",
        };
        let _ = write!(text, "\n{verb} {}", printable(topic.topic.as_str()));
        if !topic.content_types.is_empty() {
            let _ = write!(text, " ({})", printable(&topic.content_types.join(", ")));
        }
        text.push('\n');
        if !topic.summary.is_empty() {
            let _ = writeln!(text, "  {}", printable(&topic.summary));
        }
    }
    text
}
