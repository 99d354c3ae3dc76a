//! `astrid status`: from the daemon if it answers soon, else, for its owner, from what it wrote at its last change of state.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use astrid_wire::control::{self, State, Status};
use serde::Serialize;
use serde_json::json;

use super::capsule;
use crate::cli::Context;
use crate::client::{Client, SERVER_TIMEOUT};
use crate::daemon;
use crate::failure::Failure;
use crate::launch::mode_name;
use crate::output::{Output, Style, printable};
use crate::time;

/// How long the daemon may take to answer its owner: the file that it wrote says nearly the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// Show whether the daemon runs, how it is, and what its capsules cost
///
/// Works for its owner without any uplink; exits 3 when nothing is running.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// What `--format json` prints.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// Whether the daemon itself answered; otherwise counters are as old as its last change of state.
    live: bool,
}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    let Some(pid) = daemon::holder_pid(&home)? else {
        return Err(Failure::unreachable(format!("nothing is running in {}", home.root().display())).into());
    };
    let (status, live) = match ask(context)? {
        Some(status) => (status, true),
        None => match daemon::saved_status(&home)?.filter(|status| status.pid == pid) {
            Some(status) => (aged(status), false),
            None => {
                let failure = Failure::unreachable(format!("pid {pid} is starting or stopping and has not said more"));
                return Err(failure.hint("try again in a moment").into());
            }
        },
    };
    if context.output.is_json() {
        return Output::json(&Shown { status: &status, live });
    }
    Output::bytes(human(&status, live, Output::style()).as_bytes())
}

/// What the daemon says; none when it does not answer its owner in time. Anybody else may be refused, and is not told what the file says.
fn ask(context: &Context) -> anyhow::Result<Option<Status>> {
    let patience = match context.identity() {
        Some(_) => SERVER_TIMEOUT,
        None => PATIENCE,
    };
    let ask = |client: &mut Client| client.ask_within(control::REQUEST_STATUS, &json!({}), patience);
    match context.talk_within(patience, ask) {
        Ok(status) => Ok(Some(status)),
        Err(error) if context.identity().is_some() => Err(error),
        Err(_) => Ok(None),
    }
}

/// What was written a while ago, with the uptime of now.
fn aged(mut status: Status) -> Status {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    status.uptime_ms = status.uptime_ms.max(now.saturating_sub(status.started_at_ms));
    status
}

fn human(status: &Status, live: bool, style: Style) -> String {
    let mut text = String::new();
    let state = match status.state {
        State::Starting => style.warn("starting"),
        State::Ready => style.good("ready"),
        State::Degraded => style.bad("degraded"),
        State::Stopping => style.warn("stopping"),
    };
    let uptime = time::human(Duration::from_millis(status.uptime_ms));
    let mode = mode_name(status.mode);
    let _ = writeln!(
        text,
        "astrid {} is {state}: pid {}, {mode}, up {uptime}",
        printable(&status.version),
        status.pid
    );
    for reason in &status.reasons {
        let _ = writeln!(text, "  {} {}", style.bad("degraded:"), printable(reason));
    }
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{} {}", style.faint(&format!("{name:<9}")), printable(value));
    };
    line("home", &status.home);
    line("operators", &status.sockets.operator);
    line("sessions", &status.sockets.session);
    line("clients", &status.connections.to_string());
    let messages = status.messages;
    line(
        "messages",
        &format!(
            "{} published, {} delivered, {} refused",
            messages.published, messages.delivered, messages.refused
        ),
    );
    let children = status.children;
    if children.all > 0 {
        let unprotected = match children.unprotected {
            0 => String::new(),
            some => format!(", {some} without protection of this home"),
        };
        line("programs", &format!("{}{unprotected}", children.all));
    }
    let store = &status.store;
    let waiting = match store.waiting {
        0 => String::new(),
        some => format!(", {some} messages wait"),
    };
    line(
        "store",
        &format!("{} commits, {}{waiting}", store.commits, capsule::bytes(store.bytes)),
    );
    line("fuel", &format!("{} used", capsule::grouped(status.fuel_used)));
    if !live {
        line(
            "note",
            "the uplink does not answer; figures are from the last change of state",
        );
    }
    if !status.capsules.is_empty() {
        text.push('\n');
        text.push_str(&capsule::table(&status.capsules, style));
    }
    for report in &status.capsules {
        if let Some(reason) = &report.reason {
            let _ = writeln!(text, "{}: {}", printable(&report.name), printable(reason));
        }
    }
    text
}
