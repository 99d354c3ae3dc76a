//! `astrid audit prune` and `astrid audit rotate`. Only one may write the log: a running daemon does it, and without one this command.

use std::time::Duration;

use astrid_kernel::audit::{Audit, AuditOptions};
use astrid_kernel::lock::Lock;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::audit::{Nothing, Prune, Pruned, Rotated};

use crate::cli::Context;
use crate::commands::{ask_admin, ask_slow};
use crate::daemon::{self, Home};
use crate::failure::Failure;
use crate::output::Output;
use crate::time;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Remove old segments; receipts stay, so that the rest can be verified
///
/// Only whole segments are removed, and never the last one: a log is at least as long as was asked for, and may be longer.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Those that are older than this many days
    #[arg(long, value_name = "DAYS")]
    older_than: u32,
}

pub(super) fn prune(context: &Context, args: &PruneArgs) -> anyhow::Result<()> {
    let pruned = if runs(context)? {
        let older_than_days = args.older_than;
        ask_slow(context, Admin::AuditPrune, &Prune { older_than_days })?
    } else {
        let before_ms = time::now_ms().saturating_sub(u64::from(args.older_than) * DAY_MS);
        let removed_segments = with_log(context, async |_, audit| {
            audit.prune(before_ms).await.map_err(|refused| {
                let failure = Failure::failed(refused.to_string());
                anyhow::Error::from(failure.hint("see that var/audit can be written; on a full disk make a little room first, or move large files away"))
            })
        })?;
        Pruned { removed_segments }
    };
    if context.output.is_json() {
        return Output::json(&pruned);
    }
    let things = match pruned.removed_segments {
        1 => "1 segment".to_owned(),
        count => format!("{count} segments"),
    };
    context.output.say(&format!("removed {things}"));
    Ok(())
}

/// Sign with a new key from here on
///
/// The old key signs the new one, so either shows that the whole log is genuine.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {}

pub(super) fn rotate(context: &Context, _: &RotateArgs) -> anyhow::Result<()> {
    let rotated = if runs(context)? {
        ask_admin(context, Admin::AuditRotate, &Nothing {})?
    } else {
        let key = with_log(context, async |home, audit| Ok(audit.rotate(home).await?))?;
        Rotated { key }
    };
    if context.output.is_json() {
        return Output::json(&rotated);
    }
    Output::bytes(format!("{}\n", rotated.key).as_bytes())
}

fn runs(context: &Context) -> anyhow::Result<bool> {
    Ok(daemon::holder_pid(&context.home()?)?.is_some())
}

/// Opens the log as a daemon would, and closes it.
fn with_log<T>(context: &Context, work: impl AsyncFnOnce(&Home, &Audit) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let home = &context.home()?;
    if !home.audit_dir().exists() {
        let failure = Failure::failed(format!("there is no audit log in {}", home.audit_dir().display()));
        return Err(failure.hint("a daemon makes it when it first starts").into());
    }
    let lock = Lock::acquire(home).map_err(|error| {
        let failure = Failure::failed(error.to_string()).caused_by(&error);
        failure.hint("`astrid stop` first: the daemon writes the log")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let result = runtime.block_on(async {
        let (audit, report) = Audit::open(home, AuditOptions::default())?;
        if !report.is_ok() {
            context
                .output
                .say("the audit log is not what was written; `astrid audit verify` tells what is wrong");
        }
        let result = work(home, &audit).await;
        tokio::time::timeout(Duration::from_secs(10), audit.stop()).await?;
        result
    });
    drop(lock);
    result
}
