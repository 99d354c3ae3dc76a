//! `astrid process why NAME`.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::json;

use super::view::State;
use super::{ask, table};
use crate::cli::Context;
use crate::output::{Output, Style, printable, printable_lines};
use crate::time;

/// Say why a program is in the state it is in: what happened, and its last words
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program
    name: String,

    /// Only this instance, counted from 0
    #[arg(long, value_name = "I")]
    instance: Option<u32>,

    /// How many of the last lines on its stderr to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u32,
}

/// The answer.
#[derive(Debug, Deserialize)]
struct Why {
    name: String,
    instances: Vec<Reasons>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reasons {
    index: u32,
    state: State,
    sentences: Vec<String>,
    events: Vec<Event>,
    stderr_tail: String,
}

#[derive(Debug, Deserialize)]
struct Event {
    at_ms: u64,
    what: String,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let body = json!({ "name": args.name, "instance": args.instance, "lines": args.lines });
    let answer = ask::<Why>(context, "why", &body)?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    Output::bytes(human(&answer.read, time::now_ms(), Output::style()).as_bytes())
}

fn human(why: &Why, now_ms: u64, style: Style) -> String {
    let mut text = String::new();
    for (place, reasons) in why.instances.iter().enumerate() {
        if place > 0 {
            text.push('\n');
        }
        let name = match why.instances.len() {
            1 => why.name.clone(),
            _ => format!("{}-{}", why.name, reasons.index),
        };
        let state = table::paint(style, &printable(reasons.state.word()));
        let _ = writeln!(text, "{} is {state}", printable(&name));
        for sentence in &reasons.sentences {
            let _ = writeln!(text, "{}", printable(sentence));
        }
        if !reasons.events.is_empty() {
            text.push_str("\nWhat happened:\n");
        }
        for event in &reasons.events {
            let ago = table::ago(event.at_ms, now_ms);
            let when = format!("{}  {ago:>12}", time::utc(event.at_ms));
            let _ = writeln!(text, "  {}  {}", style.faint(&when), printable(&event.what));
        }
        if !reasons.stderr_tail.trim().is_empty() {
            text.push_str("\nIts last words on stderr:\n");
            for line in reasons.stderr_tail.lines() {
                let _ = writeln!(text, "  {}", style.faint(&printable_lines(line)));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A21: why it is in its state.
    #[test]
    fn reasons_are_told() {
        let why: Why = serde_json::from_value(json!({ "name": "flaky", "instances": [{
            "index": 0, "state": "crashed",
            "sentences": ["It ended 5 times within 60 s, and is not started again until somebody says so.", "Last: exit code 3."],
            "events": [{ "at_ms": 1_799_999_990_000_u64, "what": "started (pid 7)" },
                       { "at_ms": 1_799_999_995_000_u64, "what": "ended: exit code 3" }],
            "stderr_tail": "cannot bind\n\u{1b}[2Jbye\n" }] }))
        .unwrap();
        let expected = "\
flaky is crashed
It ended 5 times within 60 s, and is not started again until somebody says so.
Last: exit code 3.

What happened:
  2027-01-15 07:59:50 UTC       10s ago  started (pid 7)
  2027-01-15 07:59:55 UTC        5s ago  ended: exit code 3

Its last words on stderr:
  cannot bind
  \u{fffd}[2Jbye
";
        assert_eq!(human(&why, 1_800_000_000_000, Style::PLAIN), expected);
    }

    #[test]
    fn instances_are_told_apart() {
        let why: Why = serde_json::from_value(
            json!({ "name": "w", "instances": [{ "index": 0, "state": "running" }, { "index": 1 }] }),
        )
        .unwrap();
        assert_eq!(human(&why, 0, Style::PLAIN), "w-0 is running\n\nw-1 is stopped\n");
    }
}
