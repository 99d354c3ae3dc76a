//! Programs outside of the daemon: what to start, and what is heard of it.
//!
//! ```
//! use astrid_sdk::child::{Exited, Reach, Signal, Spec, Started};
//! use astrid_sdk::prelude::*;
//!
//! #[derive(Default)]
//! struct Once;
//!
//! #[capsule]
//! impl Once {
//!     #[on("once.v1.run")]
//!     fn run(&mut self, ctx: &mut Context, program: String) -> Result<()> {
//!         let mut spec = Spec::new(&program);
//!         spec.tag = "once".to_owned();
//!         ctx.spawn(&spec)?;
//!         Ok(())
//!     }
//!
//!     #[on("port.v1.child.exited")]
//!     fn exited(&mut self, exited: Exited) {
//!         info!("it ended", tag = exited.tag);
//!     }
//! }
//! ```

pub use astrid_wire::child::{EXITED, Exit, Exited, FAILED, HeldPort, OUTPUT, STARTED, Started};

pub use crate::bindings::astrid::kernel::child::{
    Confinement, Limits, LogFile, Network, Period, Reach, Sandbox, Signal, Sink, Spec, Usage, Workspace,
};

/// The daemon's own program, as a [`Spec::program`].
pub const OWN_PROGRAM: &str = "@astrid";

/// Stands among the paths that a child writes for a `/tmp` of its own.
pub const TMP: &str = "tmp://";

/// Stands among the paths of a child for the workspace that it has.
pub const WORKSPACE: &str = "workspace://";

impl Sandbox {
    /// Writes one place, as its working directory or [`WORKSPACE`], and a `/tmp` of its own. Reads all but the daemon's home, and
    /// speaks to everybody.
    #[must_use]
    pub fn project(place: &str) -> Self {
        Self::Confined(Confinement {
            network: Network::Full,
            read: None,
            write: Some(vec![place.to_owned(), TMP.to_owned()]),
            best_effort: false,
        })
    }

    /// As [`project`](Self::project), and speaks to nobody.
    #[must_use]
    pub fn sealed(place: &str) -> Self {
        match Self::project(place) {
            Self::Confined(confinement) => Self::Confined(Confinement {
                network: Network::None,
                ..confinement
            }),
            other => other,
        }
    }
}

impl Spec {
    /// A program without arguments and without limits, whose output is thrown away, kept from the daemon's home.
    pub fn new(program: &str) -> Self {
        Self {
            tag: String::new(),
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            secrets: Vec::new(),
            cwd: None,
            input: false,
            terminal: false,
            stdout: Sink::default(),
            stderr: None,
            limits: Limits::default(),
            sandbox: Sandbox::Home,
            workspace: Workspace::None,
            adopt: false,
        }
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated")]
impl Default for Sink {
    fn default() -> Self {
        Self {
            file: None,
            messages: false,
        }
    }
}

#[allow(clippy::derivable_impls, reason = "the type is generated")]
impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            cpu_seconds: None,
            open_files: None,
            processes: None,
            file_bytes: None,
            core_bytes: None,
            tree_memory_bytes: None,
            tree_processes: None,
        }
    }
}

/// What an actor is told when it begins, or begins anew (`lifecycle.v1.started`, `lifecycle.v1.restarted`): the ports that it holds
/// already.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Begun {
    /// Children of an earlier generation, or of an earlier daemon.
    #[serde(default)]
    pub ports: Vec<HeldPort>,
}
