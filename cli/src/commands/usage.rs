//! `astrid usage` and `astrid top`: what principals use.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use astrid_wire::Principal;
use astrid_wire::control::admin::{Admin, UsageGet};
use astrid_wire::control::audit::Nothing;
use astrid_wire::control::usage::{Page, Usage};
use rustix::event::PollFd;
use serde_json::json;

use super::capsule::{bytes, grouped};
use crate::cli::Context;
use crate::client::Client;
use crate::failure::Exit;
use crate::output::{Closed, Output, Style, Table};
use crate::process;

/// Rows of `top` at most: what fits a screen.
const TOP_ROWS: usize = 40;

/// How long one wait for a change is; it is asked for again then.
const WATCH_TIME: Duration = Duration::from_secs(60);

/// Puts the cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show what principals used, hold, and may
///
/// Totals are over restarts of the daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct UsageArgs {
    /// Only this principal, with its limits and what it used of each capsule
    name: Option<Principal>,
}

/// Show who uses how much now, until Ctrl-C
///
/// On a terminal the table is renewed; elsewhere it is printed once.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

fn ask(context: &Context, name: Option<&Principal>) -> anyhow::Result<Vec<Usage>> {
    context.talk(|client| pages(client, name))
}

fn pages(client: &mut Client, name: Option<&Principal>) -> anyhow::Result<Vec<Usage>> {
    let mut request = UsageGet {
        name: name.cloned(),
        after: None,
    };
    let mut all = Vec::new();
    loop {
        let page: Page = client.ask(Admin::UsageGet.topic(), &serde_json::to_value(&request)?)?;
        all.extend(page.principals);
        request.after = page.next;
        if request.after.is_none() {
            return Ok(all);
        }
    }
}

pub(super) fn usage(context: &Context, args: &UsageArgs) -> anyhow::Result<()> {
    let all = ask(context, args.name.as_ref())?;
    if context.output.is_json() {
        return Output::json(&json!({ "principals": all }));
    }
    if let (Some(_), [one]) = (&args.name, &all[..]) {
        return Output::bytes(in_full(one).as_bytes());
    }
    let headings = [
        "PRINCIPAL",
        "FUEL",
        "HANDLED",
        "SAID",
        "REFUSED",
        "MEMORY",
        "PROGRAMS",
        "CONNECTIONS",
        "STORED",
    ];
    let mut table = Table::new(&headings, &[1, 2, 3, 4, 5, 6, 7, 8]);
    for one in &all {
        table.row([
            one.principal.clone(),
            grouped(one.fuel),
            grouped(one.handled),
            grouped(one.published),
            grouped(one.refused),
            bytes(one.memory.now),
            one.children.now.to_string(),
            one.connections.now.to_string(),
            one.storage_bytes.map_or_else(|| "-".to_owned(), bytes),
        ]);
    }
    Output::bytes(table.render(|_, cell| cell.to_owned()).as_bytes())
}

/// Everything about one principal.
fn in_full(one: &Usage) -> String {
    let limits = &one.limits;
    let of = |limit: Option<u64>, show: fn(u64) -> String| limit.map_or_else(|| "-".to_owned(), show);
    let plain = |n: u64| n.to_string();
    let mut table = Table::new(&[one.principal.as_str(), "USED", "NOW", "MOST", "LIMIT"], &[1, 2, 3, 4]);
    let mut row = |name: &str, used: String, now: String, most: String, limit: String| {
        table.row([name.to_owned(), used, now, most, limit]);
    };
    let none = || "-".to_owned();
    row(
        "fuel",
        grouped(one.fuel),
        none(),
        none(),
        of(limits.fuel_total, grouped),
    );
    row(
        "fuel a second",
        none(),
        none(),
        none(),
        of(limits.fuel_per_second, grouped),
    );
    row("messages handled", grouped(one.handled), none(), none(), none());
    row("of those failed", grouped(one.faults), none(), none(), none());
    row("messages said", grouped(one.published), none(), none(), none());
    row(
        "messages a second",
        none(),
        none(),
        none(),
        of(limits.messages_per_second, plain),
    );
    row("bytes said", bytes(one.published_bytes), none(), none(), none());
    row(
        "bytes a second",
        none(),
        none(),
        none(),
        of(limits.bytes_per_second, bytes),
    );
    let held = |held: astrid_wire::control::usage::Held, show: fn(u64) -> String| (show(held.now), show(held.peak));
    let (now, most) = held(one.memory, bytes);
    row("memory", none(), now, most, of(limits.memory_bytes, bytes));
    let (now, most) = held(one.children, plain);
    row(
        "programs",
        one.children_started.to_string(),
        now,
        most,
        of(limits.children, plain),
    );
    let (now, most) = held(one.connections, plain);
    row("connections", none(), now, most, of(limits.connections, plain));
    let (now, most) = held(one.calls, plain);
    row("open calls", none(), now, most, of(limits.calls, plain));
    row(
        "stored",
        none(),
        one.storage_bytes.map_or_else(none, bytes),
        none(),
        of(limits.storage_bytes, bytes),
    );
    row("refused by quota", grouped(one.refused), none(), none(), none());
    let mut text = table.render(|_, cell| cell.to_owned());
    if !one.capsules.is_empty() {
        let mut table = Table::new(&["OF WHICH CAPSULE", "FUEL", "HANDLED"], &[1, 2]);
        for of in &one.capsules {
            table.row([of.capsule.clone(), grouped(of.fuel), grouped(of.handled)]);
        }
        text.push('\n');
        text.push_str(&table.render(|_, cell| cell.to_owned()));
    }
    text
}

pub(super) fn top(context: &Context, args: &TopArgs) -> anyhow::Result<()> {
    let every = Duration::from_secs(args.every);
    let lives = std::io::stdout().is_terminal() && !context.output.is_json();
    // One connection for all of it: another would be used, and shown.
    context.talk(|client| {
        let (mut before, mut looked) = (pages(client, None)?, Instant::now());
        loop {
            pause(every)?;
            let now = pages(client, None)?;
            let seconds = looked.elapsed().as_secs_f64();
            looked = Instant::now();
            let rows = rates(&before, &now, seconds);
            if context.output.is_json() {
                return Output::json(&json!({ "principals": rows.iter().map(Rate::json).collect::<Vec<_>>() }));
            }
            draw(&rows, lives)?;
            if !lives {
                return Ok(());
            }
            if !used_within(client, every)? {
                draw(&rates(&now, &now, seconds), lives)?;
                while !used_within(client, WATCH_TIME)? {
                    pause(Duration::ZERO)?;
                }
                looked = Instant::now();
            }
            before = now;
        }
    })
}

fn draw(rows: &[Rate<'_>], lives: bool) -> anyhow::Result<()> {
    let clear = if lives { CLEAR } else { "" };
    Output::bytes(format!("{clear}{}", render(rows, Output::style())).as_bytes())
}

/// Lets that time pass; a closed terminal ends it.
fn pause(time: Duration) -> anyhow::Result<()> {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, rustix::event::PollFlags::empty())];
    if process::wait(&mut fds, Some(Instant::now() + time))? > 0 {
        return Err(Closed.into());
    }
    Ok(())
}

/// Whether the daemon says within that time that something is used. Nobody asks for figures in between.
fn used_within(client: &mut Client, time: Duration) -> anyhow::Result<bool> {
    match client.ask_within::<Nothing>(Admin::UsageWatch.topic(), &json!({}), time) {
        Err(error) if Exit::of(&error) == Exit::Timeout => Ok(false),
        other => other.map(|_| true),
    }
}

/// What one principal uses now.
struct Rate<'a> {
    usage: &'a Usage,
    fuel: f64,
    handled: f64,
    said: f64,
}

impl Rate<'_> {
    fn json(&self) -> serde_json::Value {
        json!({
            "principal": self.usage.principal,
            "fuel_per_second": self.fuel,
            "handled_per_second": self.handled,
            "published_per_second": self.said,
            "memory_bytes": self.usage.memory.now,
            "children": self.usage.children.now,
            "connections": self.usage.connections.now,
        })
    }
}

#[allow(clippy::cast_precision_loss, reason = "rates for people")]
fn rates<'a>(before: &[Usage], now: &'a [Usage], seconds: f64) -> Vec<Rate<'a>> {
    let before: HashMap<&str, &Usage> = before.iter().map(|one| (one.principal.as_str(), one)).collect();
    let rate = |new: u64, old: Option<u64>| new.saturating_sub(old.unwrap_or(0)) as f64 / seconds.max(0.001);
    let mut rows: Vec<Rate<'_>> = now
        .iter()
        .map(|usage| {
            let old = before.get(usage.principal.as_str());
            Rate {
                usage,
                fuel: rate(usage.fuel, old.map(|old| old.fuel)),
                handled: rate(usage.handled, old.map(|old| old.handled)),
                said: rate(usage.published, old.map(|old| old.published)),
            }
        })
        .collect();
    rows.sort_by(|a, b| {
        b.fuel
            .total_cmp(&a.fuel)
            .then_with(|| a.usage.principal.cmp(&b.usage.principal))
    });
    rows.truncate(TOP_ROWS);
    rows
}

fn render(rows: &[Rate<'_>], style: Style) -> String {
    let headings = [
        "PRINCIPAL",
        "FUEL/S",
        "HANDLED/S",
        "SAID/S",
        "MEMORY",
        "PROGRAMS",
        "CONNECTIONS",
        "CALLS",
    ];
    let mut table = Table::new(&headings, &[1, 2, 3, 4, 5, 6, 7]);
    for row in rows {
        table.row([
            row.usage.principal.clone(),
            format!("{:.0}", row.fuel),
            format!("{:.1}", row.handled),
            format!("{:.1}", row.said),
            bytes(row.usage.memory.now),
            row.usage.children.now.to_string(),
            row.usage.connections.now.to_string(),
            row.usage.calls.now.to_string(),
        ]);
    }
    table.render(|column, cell| if column == 0 { style.good(cell) } else { cell.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences() {
        let usage = |principal: &str, fuel| Usage {
            principal: principal.to_owned(),
            fuel,
            ..Usage::default()
        };
        let before = [usage("ann", 100), usage("bob", 1000)];
        let now = [usage("ann", 300), usage("bob", 1000), usage("cid", 50)];
        let rows = rates(&before, &now, 2.0);
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.usage.principal.as_str(), row.fuel))
            .collect();
        assert_eq!(found, [("ann", 100.0), ("cid", 25.0), ("bob", 0.0)]);
    }
}
