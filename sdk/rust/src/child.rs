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

pub use crate::bindings::astrid::kernel::child::{Limits, LogFile, Period, Reach, Sandbox, Signal, Sink, Spec, Usage};

/// The daemon's own program, as a [`Spec::program`].
pub const OWN_PROGRAM: &str = "@astrid";

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
