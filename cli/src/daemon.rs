//! Every call into the kernel: what a home is, who holds it, how a daemon is run, how bundles are made.
//!
//! Nothing else in this crate names the kernel, so that what the command line needs of it can be read in one place.

#![allow(clippy::disallowed_methods, reason = "reads what the daemon wrote about itself")]

use std::fs::File;
use std::io::ErrorKind;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
pub(crate) use astrid_kernel::backup::Restored;
use astrid_kernel::backup::{self, Made};
use astrid_kernel::boot::{self, BootError, BootOptions};
use astrid_kernel::capsule::aot::{self, Compiler};
use astrid_kernel::capsule::discover::Embedded;
use astrid_kernel::capsule::{bundle, describe, engine};
use astrid_kernel::config::Config;
use astrid_kernel::home::{HomeError, Socket};
pub(crate) use astrid_kernel::keeper;
use astrid_kernel::keys::RuntimeKey;
use astrid_kernel::lock::{self, Lock, LockError};
use astrid_kernel::store::surreal::Disk;
use astrid_kernel::store::thread::StoreThread;
use astrid_wire::control::{Mode, Status};

use crate::failure::Failure;
use crate::launch::IDLE_VARIABLE;

/// How long an ephemeral daemon stays without clients (K5).
const EPHEMERAL_IDLE: Duration = Duration::from_secs(30);

// The table of what was built in: `EMBEDDED`.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// The code of a start that failed because a daemon has the home already.
pub(crate) const HELD: &str = "held";

/// Names a directory of capsules, for development.
const CAPSULES_VARIABLE: &str = "ASTRID_CAPSULES_DIR";

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
pub(crate) fn inspect(home: &Home) -> Vec<anyhow::Error> {
    home.inspect()
        .into_iter()
        .map(|error| hinted(&error.hint(), error))
        .collect()
}

/// Whether the configuration can be read.
pub(crate) fn check_config(home: &Home) -> anyhow::Result<()> {
    Config::load(home).map(drop).map_err(|error| match error.hint() {
        Some(hint) => hinted(&hint, error),
        None => error.into(),
    })
}

/// Whether the store of a home can be used, by opening it; of one whose daemon runs, that daemon knows.
pub(crate) fn check_store(home: &Home) -> anyhow::Result<()> {
    let disk = Disk::new(home.store_dir());
    if !home.run_dir().is_dir() || disk.was_never_made() {
        return Ok(());
    }
    let _lock = match Lock::acquire(home) {
        Ok(lock) => lock,
        Err(LockError::Held(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let opened = StoreThread::start(Box::new(disk)).await;
        opened.map_err(|error| hinted(&error.hint(), error))?.stop().await;
        Ok(())
    })
}

/// Whether the keys of a home can be used; none is made.
pub(crate) fn check_keys(home: &Home) -> anyhow::Result<()> {
    RuntimeKey::check(home).map_err(|error| hinted(&error.hint(), error))
}

/// Runs the daemon until it is told to end. Tells `ready` when it serves.
pub(crate) fn run(home: &Home, mode: Mode, safe: bool, ready: Option<File>) -> anyhow::Result<()> {
    let options = BootOptions {
        home: home.clone(),
        mode,
        safe,
        // Who waits for the line is not who reads a log.
        foreground: ready.is_none(),
        embedded: EMBEDDED,
        capsules_dir: capsules_dir()?,
        idle_timeout: idle_timeout(mode)?,
        ready,
        compiler: Compiler::this_program(),
    };
    boot::run(options).map_err(|error| {
        let mut failure = Failure::failed(error.to_string()).caused_by(&error);
        if let Some(hint) = hint(&error) {
            failure = failure.hint(hint);
        }
        if matches!(error, BootError::Lock(LockError::Held(_))) {
            failure = failure.coded(HELD);
        }
        failure.into()
    })
}

/// What the operator could do about a daemon that did not start.
fn hint(error: &BootError) -> Option<String> {
    match error {
        BootError::Home(error) => Some(error.hint()),
        BootError::Audit(error) => error.hint(),
        BootError::Tampered(..) => Some(
            "`astrid audit verify` tells all; to go on, move var/audit away as evidence, or set tampered = \"degrade\""
                .to_owned(),
        ),
        BootError::Lock(error) => Some(error.hint()),
        BootError::Unfinished(error) => Some(error.hint()),
        BootError::Key(error) => Some(error.hint()),
        BootError::Metrics(error) => Some(error.hint()),
        BootError::Config(error) => error.hint(),
        BootError::Policy(error) => error.hint(),
        BootError::Logging(error) => error.hint(),
        BootError::Store(error) => Some(error.hint()),
        BootError::Unreadable(_) => {
            Some("see `var/store` of the home; a backup can be restored into an empty one".to_owned())
        }
        BootError::Blobs(_) => Some("make var/blobs of the home readable and writable for this user".to_owned()),
        BootError::Engine(_) | BootError::Io { .. } | BootError::Topic(_) => None,
    }
}

/// A directory that takes the place of the capsules in this binary, if the environment names one.
fn capsules_dir() -> anyhow::Result<Option<PathBuf>> {
    match std::env::var_os(CAPSULES_VARIABLE).filter(|directory| !directory.is_empty()) {
        Some(directory) => Ok(Some(std::path::absolute(directory)?)),
        None => Ok(None),
    }
}

/// How long the daemon stays without clients: as the environment says, else by its mode (K5).
fn idle_timeout(mode: Mode) -> anyhow::Result<Option<Duration>> {
    match std::env::var(IDLE_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            let seconds = text.parse().map_err(|error: ParseIntError| {
                Failure::usage(format!("{IDLE_VARIABLE} is `{text}`, which is no number of seconds")).source(error)
            })?;
            Ok(Some(Duration::from_secs(seconds)))
        }
        _ if mode == Mode::Persistent => Ok(None),
        _ => Ok(Some(EPHEMERAL_IDLE)),
    }
}

/// Saves a home whose daemon does not run, and keeps one from starting meanwhile.
pub(crate) fn backup_at_rest(home: &Home, file: &Path, force: bool) -> anyhow::Result<Made> {
    // What cannot be opened is no backup.
    check_store(home)?;
    backup::create_at_rest(home, file, force).map_err(|error| hinted(&error.hint(), error))
}

/// Puts a backup back.
pub(crate) fn restore(file: &Path, home: &Home) -> anyhow::Result<Restored> {
    backup::restore(file, home).map_err(|error| hinted(&error.hint(), error))
}

/// Makes a bundle of a component and its manifest: asks the component once to describe itself, and checks what it imports.
pub(crate) fn bundle(component: &[u8], manifest: &str) -> anyhow::Result<Vec<u8>> {
    let engine = engine::engine().map_err(|error| anyhow::anyhow!("the WebAssembly engine cannot start: {error:#}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("cannot start a runtime")?;
    let description = runtime.block_on(describe::describe(&engine, component))?;
    bundle::assemble(component, manifest, &description).map_err(|error| match error.hint() {
        Some(hint) => hinted(&hint, error),
        None => error.into(),
    })
}

/// Compiles a bundle for the least processor that is supported.
pub(crate) fn precompile(bundle: &[u8]) -> anyhow::Result<Vec<u8>> {
    Ok(aot::precompile(bundle)?)
}

/// The compiler child.
pub(crate) fn compile_child() -> anyhow::Result<()> {
    Ok(aot::compile_child(
        &mut std::io::stdin().lock(),
        &mut std::io::stdout().lock(),
    )?)
}

/// An error of the kernel's with what it says can be done about it.
fn hinted(hint: &str, error: impl std::error::Error) -> anyhow::Error {
    Failure::failed(error.to_string()).caused_by(&error).hint(hint).into()
}
