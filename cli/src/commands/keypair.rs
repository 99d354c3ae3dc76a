//! `astrid keypair`.

use std::path::PathBuf;

use astrid_kernel::identity::{KeyPair, key_file};
use astrid_wire::Principal;
use serde_json::json;

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;

/// Make the key by which a principal proves who it is, or show the public half of the one it has
///
/// The private half stays in a file that only you can read; `--principal NAME` uses it. The public half, which is printed, belongs into
/// the principal's profile: `keys = ["ed25519:..."]`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose
    name: Principal,
    /// Where the private half is [default: keys/principals/NAME.key in the home]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let path = match &args.file {
        Some(path) => path.clone(),
        None => {
            let home = context.home()?;
            home.create()?;
            key_file(&home, &args.name)
        }
    };
    let there = path.symlink_metadata().is_ok();
    let pair = if there {
        KeyPair::open(&path)
    } else {
        KeyPair::create(&path)
    };
    let pair = pair.map_err(|error| {
        let hint = error.hint();
        Failure::failed(format!("there is no key of {}", args.name))
            .source(error)
            .hint(hint)
    })?;
    if context.output.is_json() {
        return Output::json(&json!({
            "principal": args.name,
            "public_key": pair.public(),
            "file": path,
            "made": !there,
        }));
    }
    Output::bytes(format!("{}\n", pair.public()).as_bytes())
}
