//! `astrid doctor`: looks at what a daemon needs and leaves behind, and says what is wrong with it. Changes nothing
//! but what opening the store of a daemon that does not run puts in order.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use crate::cli::Context;
use crate::client;
use crate::daemon::{self, Home};
use crate::failure::{Failure, Report};
use crate::output::{Output, Style, printable};

/// How long a socket may take to accept.
const PATIENCE: Duration = Duration::from_secs(1);

/// Less room than this is worth a warning: a log and a compiled capsule still fit.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Look for what could keep the daemon from running; exits 1 if something does
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            hint: None,
        }
    }

    fn warning(name: &'static str, detail: impl Into<String>, hint: &str) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            detail: detail.into(),
            hint: Some(hint.to_owned()),
        }
    }

    fn bad(name: &'static str, error: &anyhow::Error) -> Self {
        let report = Report::of(error);
        let detail = std::iter::once(report.message)
            .chain(report.causes)
            .collect::<Vec<_>>()
            .join(": ");
        Self {
            name,
            verdict: Verdict::Bad,
            detail,
            hint: report.hint,
        }
    }
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Diagnosis {
    ok: bool,
    checks: Vec<Check>,
}

pub(super) fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    let mut checks = check_home(&home);
    checks.extend(check_machine(&home)?);
    if home.root().exists() && is_ours(&home) {
        checks.push(check_room(&home));
        checks.push(check_config(&home));
        checks.push(checked("keys", &home.keys_dir(), daemon::check_keys(&home)));
        checks.push(checked("store", &home.store_dir(), daemon::check_store(&home)));
        checks.extend(check_daemon(&home));
    }
    let ok = checks.iter().all(|check| check.verdict != Verdict::Bad);
    let diagnosis = Diagnosis { ok, checks };
    if context.output.is_json() {
        Output::json(&diagnosis)?;
    } else {
        Output::bytes(human(&diagnosis, Output::style()).as_bytes())?;
    }
    if ok {
        Ok(())
    } else {
        Err(Failure::failed("the daemon cannot run like this").into())
    }
}

/// Whether the user who asks is the one whose home it is. Of another one's nothing is opened: what is made meanwhile would be the wrong user's.
fn is_ours(home: &Home) -> bool {
    let found = std::fs::metadata(home.root());
    found.is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw())
}

fn check_home(home: &Home) -> Vec<Check> {
    const NAME: &str = "home";
    let root = home.root().display();
    match std::fs::symlink_metadata(home.root()) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            vec![Check::ok(NAME, format!("{root} is made when the daemon starts"))]
        }
        Err(error) => vec![Check::bad(
            NAME,
            &anyhow::Error::new(error).context(format!("cannot look at {root}")),
        )],
        Ok(found) if !is_ours(home) => {
            let failure = Failure::failed(format!("{root} is the home of user {}", found.uid()));
            vec![Check::bad(
                NAME,
                &failure
                    .hint("ask as that user; ASTRID_HOME chooses another home")
                    .into(),
            )]
        }
        Ok(_) => {
            let errors = daemon::inspect(home);
            if errors.is_empty() {
                return vec![Check::ok(NAME, root.to_string())];
            }
            errors.iter().map(|error| Check::bad(NAME, error)).collect()
        }
    }
}

fn check_room(home: &Home) -> Check {
    const NAME: &str = "room";
    match rustix::fs::statvfs(home.root()) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let detail = format!("{} free", super::capsule::bytes(free));
            if free < FREE_BYTES_MIN {
                return Check::warning(NAME, detail, "make room on the disk, or move the home");
            }
            Check::ok(NAME, detail)
        }
        Err(error) => Check::bad(
            NAME,
            &anyhow::Error::new(error).context("cannot see how much room there is"),
        ),
    }
}

/// What programs can be kept from here, and what workspaces need; found out by doing it.
fn check_machine(home: &Home) -> anyhow::Result<Vec<Check>> {
    let var = home.root().join("var");
    // What can be done with files depends on where they are.
    let place = if var.is_dir() { var } else { std::env::temp_dir() };
    let program = std::env::current_exe().context("this program cannot be found")?;
    let abilities = daemon::keeper::machine::abilities(&program, &place);
    let checks = abilities.into_iter().map(|ability| match ability.works {
        true => Check::ok(ability.name, ability.detail),
        false => Check::warning(ability.name, ability.detail, ability.without),
    });
    Ok(checks.collect())
}

fn check_config(home: &Home) -> Check {
    checked("config", &home.config_file(), daemon::check_config(home))
}

fn checked(name: &'static str, path: &Path, found: anyhow::Result<()>) -> Check {
    match found {
        Ok(()) => Check::ok(name, path.display().to_string()),
        Err(error) => Check::bad(name, &error),
    }
}

fn check_daemon(home: &Home) -> Vec<Check> {
    let holder = daemon::holder(home);
    let running = holder.is_some();
    let lock = match holder {
        None => Check::ok("lock", "nothing is running"),
        Some(holder) => match holder.pid {
            Some(pid) => Check::ok("lock", format!("held by pid {pid}")),
            None => Check::warning(
                "lock",
                "held by a process that cannot be seen from here",
                "is it in another container?",
            ),
        },
    };
    let mut checks = vec![
        lock,
        check_token(&home.token_file(), running),
        check_socket(home, running),
    ];
    if running && let Ok(Some(status)) = daemon::saved_status(home) {
        let reasons = status.reasons.into_iter();
        checks.extend(reasons.map(|reason| Check::warning("daemon", reason, "`astrid status` shows it in full")));
    }
    checks
}

fn check_token(path: &Path, running: bool) -> Check {
    const NAME: &str = "token";
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let mode = found.permissions().mode() & 0o7777;
            let failure = Failure::failed(format!("{} has mode {mode:04o}: others could read it", path.display()));
            Check::bad(NAME, &failure.hint("`astrid restart` makes a new one").into())
        }
        Ok(_) => Check::ok(NAME, path.display().to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound && !running => Check::ok(NAME, "none, as nothing is running"),
        Err(error) => Check::bad(
            NAME,
            &anyhow::Error::new(error).context(format!("cannot look at {}", path.display())),
        ),
    }
}

fn check_socket(home: &Home, running: bool) -> Check {
    const NAME: &str = "socket";
    let path = daemon::operator_socket(home);
    match (running, client::listens(home, PATIENCE)) {
        (_, Ok(())) => Check::ok(NAME, path.display().to_string()),
        (true, Err(error)) => Check::bad(NAME, &error),
        (false, Err(_)) if path.exists() => Check::warning(
            NAME,
            format!("{} is left over", path.display()),
            "the next start removes it",
        ),
        (false, Err(_)) => Check::ok(NAME, "none, as nothing is running"),
    }
}

fn human(diagnosis: &Diagnosis, style: Style) -> String {
    let mut text = String::new();
    for check in &diagnosis.checks {
        let mark = match check.verdict {
            Verdict::Ok => style.good("ok     "),
            Verdict::Warning => style.warn("warning"),
            Verdict::Bad => style.bad("bad    "),
        };
        text.push_str(&format!("{mark} {:<14} {}\n", check.name, printable(&check.detail)));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("{:22} {} {}\n", "", style.faint("hint:"), printable(hint)));
        }
    }
    text
}
