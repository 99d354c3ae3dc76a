//! `astrid backup FILE`: by the daemon, if one runs; else here, while no daemon can start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use astrid_kernel::backup::LeftOut;
use astrid_wire::control::backup::{REQUEST, Request, Written};

use crate::cli::Context;
use crate::commands::capsule;
use crate::daemon;
use crate::failure::Failure;
use crate::output::Output;

/// How long it may take: the longest that the bus waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Save the store, blobs, the configuration, the keys and the capsules in one file
///
/// While the daemon runs as well, and then as of one moment. The file has the keys in it: it is readable for you alone, and not
/// encrypted. What can be made again (run/, cache/) is not in it, nor log/, uploads that are not finished, and what principals keep in home/.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file: a tar, compressed with gzip, outside of the home
    file: PathBuf,

    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let home = context.home()?;
    let path = std::path::absolute(&args.file)?;
    let written = match daemon::holder(&home) {
        Some(_) => {
            let written = ask(context, &path, args.force)?;
            if written.left_out > 0 {
                context.output.say(&format!(
                    "{} blobs are corrupted on disk and NOT in it; `astrid audit tail --kind integrity` names them",
                    written.left_out
                ));
            }
            written
        }
        None => {
            let made = daemon::backup_at_rest(&home, &path, args.force)?;
            for LeftOut { address, what } in made.left_out {
                let text = format!("the blob {address} is corrupted on disk and NOT in it: {what}");
                context.output.say(&text);
            }
            made.written
        }
    };
    if context.output.is_json() {
        return Output::json(&written);
    }
    context.output.say(&format!(
        "saved {} files ({}) in {} ({})",
        written.files,
        capsule::bytes(written.content_bytes),
        written.path,
        capsule::bytes(written.bytes)
    ));
    Ok(())
}

fn ask(context: &Context, path: &Path, force: bool) -> anyhow::Result<Written> {
    let text = path.to_str();
    let path = text.ok_or_else(|| Failure::usage(format!("{} is no text", path.display())))?;
    let request = Request {
        path: path.to_owned(),
        force,
    };
    let body = serde_json::to_value(&request)?;
    context.talk(|client| client.ask_within(REQUEST, &body, TIMEOUT))
}
