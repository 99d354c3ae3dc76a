//! `astrid completions`.

use clap_complete::Shell;

use crate::cli;
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::command(), "astrid", &mut script);
    Output::bytes(&script)
}
