//! `astrid restore FILE`.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::Context;
use crate::commands::capsule;
use crate::daemon;
use crate::output::{Output, printable};
use crate::time;

/// Put a backup back, into a home with nothing in it
///
/// All or nothing: everything is checked before any of it is put in place, and a home in which a restore was interrupted is not
/// started until a restore into it has succeeded.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `astrid backup` wrote
    file: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    let restored = daemon::restore(&args.file, &home)?;
    if context.output.is_json() {
        return Output::json(&json!({
            "home": home.root().display().to_string(),
            "files": restored.files,
            "content_bytes": restored.bytes,
            "made_at_ms": restored.made_at_ms,
            "version": restored.version,
            "sequence": restored.sequence,
        }));
    }
    context.output.say(&format!(
        "restored {} files ({}) of {} into {}",
        restored.files,
        capsule::bytes(restored.bytes),
        time::utc(restored.made_at_ms),
        home.root().display()
    ));
    if restored.version != env!("CARGO_PKG_VERSION") {
        context
            .output
            .say(&format!("they were saved by astrid {}", printable(&restored.version)));
    }
    Ok(())
}
