//! How far a program is confined, as it is asked for, and in which order that is done to it.
//!
//! Each means keeps what another cannot: Landlock knows paths but not modes, a mount namespace knows modes but not who asks, a filter of
//! system calls knows neither but every call. What cannot be had here is a failure that names it, or with
//! [`best_effort`](Confined::best_effort) it is left out and named in what the daemon is told; but who cannot be kept from the daemon's home
//! is not started.
//!
//! Deliberately absent: a namespace of processes. The main process has to be the keeper's own child, and its tree is ended by descent.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::protocol::{Failure, Stage};

/// Paths of each list at most: every one is a rule of Landlock.
pub const PATHS_MAX: usize = 256;

/// A program that sees and changes only what it is given (A18). The directories of [`super::protocol::Spec::protect`] are kept from it
/// in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confined {
    /// Whom it may speak to.
    pub network: Network,
    /// What it reads, besides what it writes and what any program needs of the system; not said: everything.
    pub read: Option<Vec<PathBuf>>,
    /// What it writes, besides a few devices; not said: everything.
    pub write: Option<Vec<PathBuf>>,
    /// A directory that stands at `/tmp` for it alone; it has a `/dev/shm` of its own then as well.
    pub tmp: Option<PathBuf>,
    /// Whether it is started although something of this cannot be had. Never without what keeps the daemon's home.
    pub best_effort: bool,
}

/// Whom a program may speak to over sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Nobody: it makes no socket but pairs, which are connected for ever.
    None,
    /// Sockets of this machine that have a path, such as the daemon's.
    Local,
    /// A network of its own, in which nobody else is. So it has no sockets with a path, which lead out of it, but pairs as with `None`.
    Loopback,
    /// Everybody, over the usual protocols.
    #[default]
    Full,
}

/// What was asked for and is not there, by name, with what would have it.
#[derive(Debug)]
pub(super) struct Lacking(Vec<String>);

impl Lacking {
    /// It cannot be had: a failure, unless that was said not to matter.
    pub(super) fn without(&mut self, best_effort: bool, errno: i32, what: String) -> Result<(), Failure> {
        if !best_effort {
            return Err(Failure {
                stage: Stage::Lacking,
                errno,
                message: what,
            });
        }
        self.0.push(what);
        Ok(())
    }

    /// With what is known already.
    pub(super) fn of(names: &[String]) -> Self {
        Self(names.to_vec())
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.0
    }
}
