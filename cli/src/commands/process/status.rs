//! `astrid process status NAME`.

use std::fmt::Write as _;

use serde_json::json;

use super::view::Process;
use super::{ask, table};
use crate::cli::Context;
use crate::output::{Output, Style, printable};
use crate::time;

/// Show how a program is, and how it is defined
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program
    name: String,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let answer = ask::<Process>(context, "status", &json!({ "name": args.name }))?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    Output::bytes(human(&answer.read, time::now_ms(), Output::style()).as_bytes())
}

fn human(process: &Process, now_ms: u64, style: Style) -> String {
    let mut text = table::table(std::slice::from_ref(process), now_ms, style);
    for instance in &process.instances {
        if let Some(health) = &instance.health {
            let detail = instance.health_detail.as_deref().unwrap_or_default();
            let separator = if detail.is_empty() { "" } else { ": " };
            let label = process.label(instance.index);
            let _ = writeln!(
                text,
                "{}",
                printable(&format!("{label} is {health}{separator}{detail}"))
            );
        }
        if let Some(processes) = instance.processes.filter(|processes| *processes > 1) {
            let label = printable(&process.label(instance.index));
            let _ = writeln!(text, "{label} is {processes} processes");
        }
    }
    for instance in &process.instances {
        for what in &instance.lacking {
            let label = process.label(instance.index);
            let _ = writeln!(text, "{}", printable(&format!("{label} runs without: {what}")));
        }
    }
    text.push('\n');
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{} {}", style.faint(&format!("{name:<9}")), printable(value));
        }
    };
    let words: Vec<String> = std::iter::once(&process.command)
        .chain(&process.args)
        .map(|word| quoted(word))
        .collect();
    line("command", &words.join(" "));
    line("cwd", &process.cwd);
    for (name, value) in &process.env {
        line("env", &format!("{name}={}", quoted(value)));
    }
    line("instances", &process.instances_wanted.to_string());
    line("restart", &process.restart);
    line("autostart", if process.autostart { "yes" } else { "no" });
    line("health", &process.health_kind);
    line("sandbox", &process.sandbox);
    text
}

/// A word as a shell would want it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,*".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::process::table::tests::{NOW_MS, processes};

    #[test]
    fn all_that_is_known_of_one() {
        let expected = "\
NAME   STATE       PID  UPTIME  RESTARTS    CPU   MEMORY  LAST EXIT
web-0  running    4711   1h 2m         0   0.3%   12 MiB  -
web-1  unhealthy  4712   1m 5s         3  12.0%  1.0 MiB  killed by SIGSEGV (core dumped), 1m 6s ago
web-0 is healthy
web-1 is unhealthy: 127.0.0.1:80 does not accept
web-1 is 4 processes

command   python3 -m http.server 'a b'
cwd       /srv
env       API_TOKEN=***
env       PORT=80
instances 2
restart   on-failure
autostart yes
health    tcp
sandbox   home
";
        assert_eq!(human(&processes()[0], NOW_MS, Style::PLAIN), expected);
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("--port=80"), "--port=80");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
