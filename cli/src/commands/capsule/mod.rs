//! `astrid capsule`: what is there, what one is, and how one is made.

mod build;
mod forget;
mod list;
mod show;

use std::fmt::Write as _;

use astrid_wire::control::{CapsuleReport, CapsuleState};
use clap::Subcommand;

use crate::cli::Context;
use crate::output::{Style, Table};

/// List, show, forget and build capsules
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Forget(forget::Args),
    Build(build::Args),
}

impl Args {
    /// As [`super::Command::talks_to_the_daemon`].
    pub(super) fn talks_to_the_daemon(&self) -> bool {
        match self.command {
            Command::List(_) | Command::Show(_) | Command::Forget(_) => true,
            Command::Build(_) => false,
        }
    }
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List(args) => list::run(context, &args),
        Command::Show(args) => show::run(context, &args),
        Command::Forget(args) => forget::run(context, &args),
        Command::Build(args) => build::run(context, &args),
    }
}

/// A word as the wire has it: the name of a state or origin.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Capsules for people.
pub(super) fn table(capsules: &[CapsuleReport], style: Style) -> String {
    const STATE: usize = 1;
    let headings = [
        "CAPSULE", "STATE", "VERSION", "SCOPE", "ORIGIN", "ACTORS", "HANDLED", "FAULTS", "FUEL", "MEMORY",
    ];
    let mut table = Table::new(&headings, &[5, 6, 7, 8, 9]);
    for report in capsules {
        table.row([
            report.name.clone(),
            word(&report.state),
            report.version.clone(),
            report.scope.clone(),
            word(&report.origin),
            report.actors.to_string(),
            report.handled.to_string(),
            report.faults.to_string(),
            grouped(report.fuel_used),
            bytes(report.memory_peak_bytes),
        ]);
    }
    table.render(|column, cell| {
        if column == STATE {
            paint_state(style, cell)
        } else {
            cell.to_owned()
        }
    })
}

/// The state's word in its colour.
fn paint_state(style: Style, state: &str) -> String {
    let is = |other: CapsuleState| word(&other) == state;
    if is(CapsuleState::Ready) {
        style.good(state)
    } else if is(CapsuleState::Loading) || is(CapsuleState::Restarting) {
        style.warn(state)
    } else {
        style.bad(state)
    }
}

/// A large number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that leaves few digits.
pub(super) fn bytes(bytes: u64) -> String {
    let mut text = String::new();
    let (unit, name) = match bytes {
        0..1024 => (1, "B"),
        1024..0x10_0000 => (1024, "KiB"),
        0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
        _ => (0x4000_0000, "GiB"),
    };
    let (whole, tenth) = (bytes / unit, bytes % unit * 10 / unit);
    let _ = if unit == 1 || whole >= 10 {
        write!(text, "{whole} {name}")
    } else {
        write!(text, "{whole}.{tenth} {name}")
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(17 << 20), "17 MiB");
    }
}
