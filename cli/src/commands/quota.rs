//! `astrid quota ...`: how much a principal may use. Every command is one request to the kernel (`astrid.v1.admin.quota.*`).

use std::fmt::Write as _;

use astrid_wire::Principal;
use astrid_wire::control::admin::{Admin, Named, QuotaReport, QuotaSet};
use clap::Subcommand;
use serde_json::Value;

use super::ask_admin;
use crate::cli::Context;
use crate::output::{Output, printable};

/// See and set how much a principal may use
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a principal's limits
    Get {
        /// Whose
        name: Principal,
    },
    /// Set limits; those that are not named stay
    Set {
        /// Whose
        name: Principal,
        /// `LIMIT=AMOUNT`, such as `messages_per_second=100`, `storage=1GiB`, `timeout=30s`; `LIMIT=` takes one away
        #[arg(required = true, value_name = "LIMIT=AMOUNT", value_parser = limit)]
        limits: Vec<(String, Value)>,
    },
}

/// A limit as the kernel reads it: numbers as numbers, everything else as text.
fn limit(text: &str) -> Result<(String, Value), String> {
    let (name, amount) = text.split_once('=').ok_or("it is written LIMIT=AMOUNT")?;
    let value = match amount.replace('_', "").parse::<u64>() {
        _ if amount.is_empty() => Value::Null,
        Ok(number) => number.into(),
        Err(_) => amount.into(),
    };
    Ok((name.to_owned(), value))
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let report: QuotaReport = match args.command {
        Command::Get { name } => ask_admin(context, Admin::QuotaGet, &Named { name })?,
        Command::Set { name, limits } => {
            let limits = limits.into_iter().collect();
            ask_admin(context, Admin::QuotaSet, &QuotaSet { name, limits })?
        }
    };
    if context.output.is_json() {
        return Output::json(&report);
    }
    let mut text = String::new();
    match serde_json::to_value(report.quota)? {
        Value::Object(limits) if !limits.is_empty() => {
            for (name, value) in limits {
                let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                let _ = writeln!(text, "{name:<20} {}", printable(&value));
            }
        }
        _ => text = format!("nothing is limited for {}\n", report.name),
    }
    Output::bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn limits_are_numbers_words_or_nothing() {
        assert_eq!(limit("children=3").unwrap(), ("children".into(), 3.into()));
        assert_eq!(limit("fuel_total=1_000").unwrap().1, 1000);
        assert_eq!(limit("storage=1GiB").unwrap().1, "1GiB");
        assert_eq!(limit("storage=").unwrap().1, Value::Null);
        assert!(limit("storage").is_err());
    }
}
