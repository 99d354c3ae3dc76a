//! The table of programs, and the words in it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::view::{Instance, Process, State};
use crate::commands::capsule;
use crate::output::{Style, Table};
use crate::time;

/// The columns that are coloured.
const STATE: usize = 1;
const LAST_EXIT: usize = 7;

/// The mark before a state, on a terminal with colours.
const DOT: &str = "● ";

/// All of them, a line for each instance.
pub(super) fn table(processes: &[Process], now_ms: u64, style: Style) -> String {
    let headings = [
        "NAME",
        "STATE",
        "PID",
        "UPTIME",
        "RESTARTS",
        "CPU",
        "MEMORY",
        "LAST EXIT",
    ];
    let mut table = Table::new(&headings, &[2, 3, 4, 5, 6]);
    let dot = if style.is_coloured() { DOT } else { "" };
    for process in processes {
        for instance in &process.instances {
            table.row(row(process, instance, now_ms, dot));
        }
    }
    table.render(|column, cell| match column {
        STATE => paint(style, cell),
        LAST_EXIT => style.faint(cell),
        _ => cell.to_owned(),
    })
}

fn row(process: &Process, instance: &Instance, now_ms: u64, dot: &str) -> [String; 8] {
    let none = || "-".to_owned();
    let uptime = instance
        .uptime_ms
        .filter(|_| instance.pid.is_some())
        .map(|millis| time::short(Duration::from_millis(millis)));
    [
        process.label(instance.index),
        format!("{dot}{}", state(instance, now_ms)),
        instance.pid.map_or_else(none, |pid| pid.to_string()),
        uptime.unwrap_or_else(none),
        instance.restarts.to_string(),
        instance
            .cpu_percent
            .map_or_else(none, |percent| format!("{percent:.1}%")),
        instance.memory_bytes.map_or_else(none, capsule::bytes),
        last_exit(instance, now_ms).unwrap_or_else(none),
    ]
}

/// The state, and what comes next where somebody would ask for it.
pub(super) fn state(instance: &Instance, now_ms: u64) -> String {
    let word = instance.state.word();
    if instance.circuit_open {
        return format!("{word}, given up");
    }
    match instance.restart_at_ms {
        Some(at_ms) => {
            // Rounded up: a restart in half a second is not now.
            let seconds = at_ms.saturating_sub(now_ms).div_ceil(1000);
            format!("{word}, restarts in {}", time::short(Duration::from_secs(seconds)))
        }
        None => word.to_owned(),
    }
}

/// How and when it ended the last time, if it did.
pub(super) fn last_exit(instance: &Instance, now_ms: u64) -> Option<String> {
    let exit = instance.last_exit.as_ref()?;
    Some(format!("{}, {}", exit.text, ago(exit.at_ms, now_ms)))
}

/// How long ago.
pub(in crate::commands) fn ago(at_ms: u64, now_ms: u64) -> String {
    format!(
        "{} ago",
        time::short(Duration::from_millis(now_ms.saturating_sub(at_ms)))
    )
}

/// The cell of a state in the colour of its word.
pub(super) fn paint(style: Style, cell: &str) -> String {
    let word = cell.strip_prefix(DOT).unwrap_or(cell);
    let word = word.split(',').next().unwrap_or_default().trim_end();
    match State::from(word.to_owned()) {
        State::Running => style.good(cell),
        State::Starting | State::Stopping => style.warn(cell),
        State::Unhealthy | State::Crashed | State::Terminated => style.bad(cell),
        State::Stopped => style.faint(cell),
        State::Other(_) => cell.to_owned(),
    }
}

/// One line: how many there are in each state.
pub(super) fn summary(processes: &[Process]) -> String {
    /// In the order in which they are named.
    const ORDER: [&str; 7] = [
        "running",
        "starting",
        "unhealthy",
        "stopping",
        "crashed",
        "terminated",
        "stopped",
    ];
    let instances: Vec<&Instance> = processes.iter().flat_map(|process| &process.instances).collect();
    let mut counts: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for instance in &instances {
        let word = instance.state.word();
        let place = ORDER.iter().position(|other| *other == word).unwrap_or(ORDER.len());
        *counts.entry((place, word)).or_default() += 1;
    }
    let mut parts: Vec<String> = counts
        .iter()
        .map(|((_, word), count)| format!("{count} {word}"))
        .collect();
    let given_up = instances.iter().filter(|instance| instance.circuit_open).count();
    if given_up > 0 {
        parts.push(format!("{given_up} given up (`astrid process why NAME` says why)"));
    }
    let mut line = counted(processes.len(), "program");
    if instances.len() != processes.len() {
        line = format!("{line}, {}", counted(instances.len(), "instance"));
    }
    if !parts.is_empty() {
        line = format!("{line}: {}", parts.join(", "));
    }
    line
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::commands::process::view::Processes;

    /// The moment at which the tests look.
    pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

    /// An answer of the capsule with one of everything.
    pub(crate) fn answer() -> serde_json::Value {
        serde_json::json!({ "processes": [
            { "name": "web", "command": "python3", "args": ["-m", "http.server", "a b"], "cwd": "/srv",
              "env": { "PORT": "80", "API_TOKEN": "***" }, "restart": "on-failure", "instances_wanted": 2,
              "autostart": true, "sandbox": "home", "health_kind": "tcp", "instances": [
                { "index": 0, "state": "running", "pid": 4711, "since_ms": NOW_MS - 3_725_000, "uptime_ms": 3_725_000,
                  "restarts": 0, "restarts_in_window": 0, "circuit_open": false, "health": "healthy",
                  "cpu_percent": 0.34, "memory_bytes": 12_582_912, "processes": 1 },
                { "index": 1, "state": "unhealthy", "pid": 4712, "uptime_ms": 65_000, "restarts": 3, "circuit_open": false,
                  "health": "unhealthy", "health_detail": "127.0.0.1:80 does not accept", "cpu_percent": 12.0,
                  "memory_bytes": 1_048_576, "processes": 4,
                  "last_exit": { "at_ms": NOW_MS - 66_000, "code": null, "signal": "SIGSEGV",
                                 "text": "killed by SIGSEGV (core dumped)" } } ] },
            { "name": "flaky", "command": "/bin/false", "instances_wanted": 1, "instances": [
                { "index": 0, "state": "crashed", "restarts": 2, "circuit_open": false, "restart_at_ms": NOW_MS + 3_400,
                  "last_exit": { "at_ms": NOW_MS - 600, "code": 1, "text": "exit code 1" } } ] },
            { "name": "gone", "command": "nope", "instances_wanted": 1, "instances": [
                { "index": 0, "state": "crashed", "restarts": 5, "circuit_open": true, "last_exit":
                  { "at_ms": NOW_MS - 7_200_000, "text": "could not be started: no such program: nope" } } ] },
            { "name": "batch", "command": "/bin/true", "instances_wanted": 1, "instances": [
                { "index": 0, "state": "stopped", "code": 0, "restarts": 0, "last_exit":
                  { "at_ms": NOW_MS - 5_000, "code": 0, "text": "exit code 0" } } ] },
            { "name": "odd", "command": "x", "instances_wanted": 1, "instances": [{ "index": 0, "state": "frozen" }] }
        ] })
    }

    pub(crate) fn processes() -> Vec<Process> {
        serde_json::from_value::<Processes>(answer()).unwrap().processes
    }

    /// What people see; A10: a pid is shown iff it runs.
    #[test]
    fn the_table() {
        let expected = "\
NAME   STATE                     PID  UPTIME  RESTARTS    CPU   MEMORY  LAST EXIT
web-0  running                  4711   1h 2m         0   0.3%   12 MiB  -
web-1  unhealthy                4712   1m 5s         3  12.0%  1.0 MiB  killed by SIGSEGV (core dumped), 1m 6s ago
flaky  crashed, restarts in 4s     -       -         2      -        -  exit code 1, 0s ago
gone   crashed, given up           -       -         5      -        -  could not be started: no such program: nope, 2h 0m ago
batch  stopped                     -       -         0      -        -  exit code 0, 5s ago
odd    frozen                      -       -         0      -        -  -
";
        assert_eq!(table(&processes(), NOW_MS, Style::PLAIN), expected);
    }

    #[test]
    fn colours_follow_the_word() {
        let coloured = Style::COLOURED;
        assert_eq!(paint(coloured, "● running"), coloured.good("● running"));
        assert_eq!(
            paint(coloured, "● crashed, restarts in 4s"),
            coloured.bad("● crashed, restarts in 4s")
        );
        assert_eq!(paint(coloured, "● stopped   "), coloured.faint("● stopped   "));
        assert!(table(&processes(), NOW_MS, coloured).contains(DOT));
    }

    #[test]
    fn one_line_for_all() {
        assert_eq!(
            summary(&processes()),
            "5 programs, 6 instances: 1 running, 1 unhealthy, 2 crashed, 1 stopped, 1 frozen, \
             1 given up (`astrid process why NAME` says why)"
        );
        assert_eq!(summary(&[]), "0 programs");
        assert_eq!(summary(&processes()[3..4]), "1 program: 1 stopped");
    }

    /// What a program or its definition says cannot steer the terminal.
    #[test]
    fn control_characters() {
        let process = Process {
            name: "a\u{1b}[2J".into(),
            instances: vec![Instance::default()],
            ..Process::default()
        };
        assert!(!table(&[process], NOW_MS, Style::PLAIN).contains('\u{1b}'));
    }
}
