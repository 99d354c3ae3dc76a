//! `astrid dead list`.

use astrid_wire::control::dead::{Letter, ListRequest, PAGE_MAX, Page, REQUEST_LIST};
use serde_json::json;

use super::ask;
use crate::cli::Context;
use crate::commands::{capsule, process};
use crate::output::{Output, Style, Table, printable};
use crate::time;

/// Characters of a reason in the table.
const REASON_CHARACTERS_MAX: usize = 70;

/// The columns that are coloured.
const ID: usize = 0;
const REASON: usize = 6;

/// List messages that were given up, and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only those to this capsule
    #[arg(long)]
    capsule: Option<String>,

    /// Only those on behalf of this principal
    #[arg(long, value_name = "PRINCIPAL")]
    of: Option<String>,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let letters = all(context, args.capsule, args.of)?;
    if context.output.is_json() {
        return Output::json(&json!({ "letters": letters }));
    }
    if letters.is_empty() {
        context.output.say("there are no dead letters");
        return Ok(());
    }
    let style = Output::style();
    let table = table(&letters, time::now_ms(), style);
    let count = letters.len();
    let summary = format!("{count} dead letter{}", if count == 1 { "" } else { "s" });
    Output::bytes(format!("{table}\n{}\n", style.faint(&summary)).as_bytes())
}

/// All letters that there are, page by page.
pub(super) fn all(
    context: &Context,
    capsule: Option<String>,
    principal: Option<String>,
) -> anyhow::Result<Vec<Letter>> {
    let mut request = ListRequest {
        capsule,
        principal,
        after: None,
        max: Some(PAGE_MAX),
    };
    let mut letters = Vec::new();
    loop {
        let page: Page = ask(context, REQUEST_LIST, &request)?;
        letters.extend(page.letters);
        let Some(next) = page.next else { break };
        request.after = Some(next);
    }
    Ok(letters)
}

/// A line for each.
fn table(letters: &[Letter], now_ms: u64, style: Style) -> String {
    let headings = ["ID", "DIED", "TOPIC", "PRINCIPAL", "TRIES", "SIZE", "REASON"];
    let mut table = Table::new(&headings, &[4, 5]);
    for letter in letters {
        let or_none = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        table.row([
            letter.id.clone(),
            process::ago(letter.died_at_ms, now_ms),
            or_none(&letter.topic),
            or_none(&letter.principal),
            letter.attempts.to_string(),
            capsule::bytes(letter.body_bytes),
            reason(letter),
        ]);
    }
    table.render(|column, cell| match column {
        ID => style.bad(cell),
        REASON => style.faint(cell),
        _ => cell.to_owned(),
    })
}

/// Why, on a part of a line.
fn reason(letter: &Letter) -> String {
    let text = printable(&letter.reason);
    let mut short: String = text.chars().take(REASON_CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{}: {short}", letter.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(id: &str, reason: &str) -> Letter {
        Letter {
            id: id.into(),
            capsule: "notes".into(),
            actor: String::new(),
            topic: "notes.v1.add".into(),
            principal: "default".into(),
            source: "uplink-local".into(),
            message_id: "1-2".into(),
            content_type: "text/plain".into(),
            body_bytes: 2048,
            code: "capsule.failed".into(),
            reason: reason.into(),
            died_at_ms: 1_000,
            attempts: 5,
        }
    }

    /// What a capsule said as its reason cannot steer the terminal, nor fill it.
    #[test]
    fn the_table() {
        let letters = [
            letter("notes:7", "no\u{1b}[2J room"),
            letter("notes:19", &"x".repeat(500)),
        ];
        let expected = format!(
            "\
ID        DIED    TOPIC         PRINCIPAL  TRIES     SIZE  REASON
notes:7   4s ago  notes.v1.add  default        5  2.0 KiB  capsule.failed: no\u{fffd}[2J room
notes:19  4s ago  notes.v1.add  default        5  2.0 KiB  capsule.failed: {}…
",
            "x".repeat(70)
        );
        assert_eq!(table(&letters, 5_000, Style::PLAIN), expected);
    }
}
