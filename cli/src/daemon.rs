//! Every call into the kernel: what a home is, who holds it, how a daemon is run, how bundles are made.
//!
//! Nothing else in this crate names the kernel, so that what the command line needs of it can be read in one place.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use astrid_kernel::home::{HomeError, Socket};
use astrid_kernel::lock;
use astrid_wire::control::{Mode, Status};

use crate::failure::Failure;

pub(crate) use astrid_kernel::home::Home;
pub(crate) use astrid_kernel::lock::Holder;

/// The home to use: what was named, else `$ASTRID_HOME`, else `~/.astrid`. It need not exist.
pub(crate) fn home(named: Option<&Path>) -> anyhow::Result<Home> {
    Home::resolve(named).map_err(|error| {
        let failure = match error {
            HomeError::Nowhere | HomeError::TooLong { .. } => Failure::usage(error.to_string()),
            _ => Failure::failed(error.to_string()),
        };
        failure.hint(error.hint()).into()
    })
}

/// Who holds the home, if anybody does.
pub(crate) fn holder(home: &Home) -> Option<Holder> {
    lock::holder(home)
}

/// The process that holds the home, if any does.
pub(crate) fn holder_pid(home: &Home) -> anyhow::Result<Option<u32>> {
    match holder(home) {
        None => Ok(None),
        Some(Holder { pid: Some(pid) }) => Ok(Some(pid)),
        Some(Holder { pid: None }) => {
            let failure = Failure::failed("a daemon holds this home, but its process cannot be seen from here");
            Err(failure.hint("stop it where it runs: another container, perhaps").into())
        }
    }
}

/// Where operators connect.
pub(crate) fn operator_socket(home: &Home) -> PathBuf {
    home.socket(Socket::Operator)
}

/// What the daemon wrote about itself at its last change of state. May be what a killed one left.
pub(crate) fn saved_status(home: &Home) -> anyhow::Result<Option<Status>> {
    let path = home.status_file();
    match std::fs::read(&path) {
        Ok(text) => {
            let status = serde_json::from_slice(&text).with_context(|| format!("{} is not valid", path.display()))?;
            Ok(Some(status))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// What is wrong with the directories of a home that exists.
pub(crate) fn inspect(_home: &Home) -> Vec<anyhow::Error> {
    Vec::new()
}

/// Whether the configuration can be read.
pub(crate) fn check_config(_home: &Home) -> anyhow::Result<()> {
    Ok(())
}

/// Runs the daemon until it is told to end. Tells `ready` when it serves.
pub(crate) fn run(home: &Home, mode: Mode, safe: bool, ready: Option<File>) -> anyhow::Result<()> {
    let _ = (home, mode, safe, ready);
    anyhow::bail!("stub")
}

/// Makes a bundle of a component and its manifest.
pub(crate) fn bundle(component: &[u8], manifest: &str) -> anyhow::Result<Vec<u8>> {
    let _ = (component, manifest);
    anyhow::bail!("stub")
}

/// Compiles a bundle for the least processor that is supported.
pub(crate) fn precompile(bundle: &[u8]) -> anyhow::Result<Vec<u8>> {
    let _ = bundle;
    anyhow::bail!("stub")
}

/// The compiler child.
pub(crate) fn compile_child() -> anyhow::Result<()> {
    anyhow::bail!("stub")
}
