//! What this binary is besides a command line: the daemon (`astrid __daemon`), the compiler child (`astrid __compile`), what keeps programs (the
//! guard and the keeper, `astrid __keeper`, and what a program is before it is one, `astrid __child`), and the probe of a program's
//! health (`astrid __probe`).
//!
//! A command line of their own, so that neither help nor completions know of them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use astrid_wire::control::Mode;
use clap::{Parser, ValueEnum};

use crate::daemon::keeper;
use crate::failure::conclude;
use crate::output::{Format, Output};
use crate::{daemon, ephemeral, launch, probe};

/// The argument that makes this program a daemon.
pub(crate) const DAEMON: &str = "__daemon";

/// What all of them begin with; no command does.
const PREFIX: &str = "__";

#[derive(Debug, Parser)]
#[command(name = "astrid")]
enum Internal {
    /// The daemon, as `astrid start` runs it
    #[command(name = DAEMON)]
    Daemon {
        #[arg(long)]
        home: PathBuf,
        #[arg(long, value_enum)]
        mode: ModeName,
        #[arg(long)]
        safe: bool,
    },
    /// The compiler, as the daemon runs it: a component on stdin, its code on stdout
    #[command(name = "__compile")]
    Compile,
    /// The guard of the keeper, as the daemon runs it, or the keeper itself: the daemon's socket is stdin
    #[command(name = keeper::KEEPER_ARGUMENT)]
    Keeper {
        #[arg(long)]
        home: PathBuf,
        /// The guard's process id
        #[arg(long)]
        inner: Option<i32>,
    },
    /// One look at the health of a program, as whoever watches it runs it
    #[command(name = "__probe")]
    Probe(probe::Args),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeName {
    Persistent,
    Ephemeral,
    Private,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Persistent => Self::Persistent,
            ModeName::Ephemeral => Self::Ephemeral,
            ModeName::Private => Self::Private,
        }
    }
}

/// Does what this process was started for, if not as a command.
pub(crate) fn main() -> Option<ExitCode> {
    let first = std::env::args_os().nth(1)?;
    if !first.to_str()?.starts_with(PREFIX) {
        return None;
    }
    // Many are started at once, and this is all that they say.
    if first == keeper::LAUNCHER_ARGUMENT {
        // Whoever it answers to knows more than its exit code.
        let _ = keeper::launcher::run();
        return Some(ExitCode::FAILURE);
    }
    if first == keeper::machine::MACHINE_ARGUMENT {
        return Some(attempt());
    }
    Some(match Internal::try_parse() {
        Ok(Internal::Daemon { home, mode, safe }) => conclude(serve(&home, mode.into(), safe), Format::Human),
        Ok(Internal::Compile) => compile(),
        Ok(Internal::Keeper { home, inner }) => conclude(keep(&home, inner), Format::Human),
        Ok(Internal::Probe(args)) => probe::main(args),
        Err(error) => {
            let _ = error.print();
            ExitCode::FAILURE
        }
    })
}

/// Tries what this machine can do, and says why it cannot.
fn attempt() -> ExitCode {
    let mut words = std::env::args_os().skip(2);
    let what = words.next().unwrap_or_default();
    let place = std::path::PathBuf::from(words.next().unwrap_or_default());
    match keeper::machine::attempt(&what.to_string_lossy(), &place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = Output::bytes(why.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The daemon, detached from whoever started it, whom it tells how the start went.
fn serve(home: &std::path::Path, mode: Mode, safe: bool) -> anyhow::Result<()> {
    let mut status = launch::detach()?;
    let result = daemon::home(Some(home)).and_then(|home| {
        let result = daemon::run(&home, mode, safe, Some(status.try_clone()?));
        ephemeral::discard_private(&home, mode).and(result)
    });
    if let Err(error) = &result {
        launch::report(&mut status, error);
    }
    result
}

/// The guard, or the keeper of one.
fn keep(home: &std::path::Path, guard: Option<i32>) -> anyhow::Result<()> {
    let home = daemon::home(Some(home))?;
    match guard {
        Some(guard) => keeper::serve(home, guard)?,
        None => keeper::guard::run(&home)?,
    }
    Ok(())
}

/// The compiler. Its words on stderr are the daemon's to read: nothing is added to them.
fn compile() -> ExitCode {
    match daemon::compile_child() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "{error}");
            ExitCode::FAILURE
        }
    }
}
