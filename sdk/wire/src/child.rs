//! Bodies of what a child port tells its owner, and of what an actor is told about ports that it holds already.

use serde::{Deserialize, Serialize};

/// The child runs: [`Started`].
pub const STARTED: &str = "port.v1.child.started";
/// The child could not be started: a problem document.
pub const FAILED: &str = "port.v1.child.failed";
/// The child wrote something: the bytes, with the stream as a parameter of the content type.
pub const OUTPUT: &str = "port.v1.child.output";
/// The child ended: [`Exited`].
pub const EXITED: &str = "port.v1.child.exited";

/// Content type of output from standard output (and of a terminal).
pub const STDOUT_CONTENT_TYPE: &str = "application/octet-stream; stream=stdout";
/// Content type of output from standard error.
pub const STDERR_CONTENT_TYPE: &str = "application/octet-stream; stream=stderr";

/// Environment variable that marks a child and everything that it starts: the home's mark, a slash, the child.
pub const MARK_VARIABLE: &str = "ASTRID_CHILD";

/// Body of [`STARTED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What its owner calls it.
    pub tag: String,
    /// Process id of its main process, which is also its session and process group.
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started_at_ms: u64,
    /// What of its sandbox could not be had, when it said that it may be started without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// Body of [`EXITED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// What its owner calls it.
    pub tag: String,
    /// How it ended.
    pub exit: Exit,
    /// Processor time of its main process and of what that had waited for, in milliseconds.
    pub cpu_ms: u64,
    /// Processes that it had started and left, and that were ended with it.
    pub left_behind: u32,
    /// What it did that the system ended it for, if the system said so: a limit, or a system call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violation: Option<String>,
    /// Why what it did to its copy of the workspace is not in the workspace yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number.
        number: i32,
        /// Its name, as `SIGTERM`.
        name: String,
        /// Whether it left a core file.
        core: bool,
    },
    /// The keeper is gone, and the child with it; nobody knows how it ended.
    Lost,
}

/// A port that an actor holds already: in the body of `lifecycle.v1.started` and `lifecycle.v1.restarted`, as `ports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    /// Its number.
    pub port: u64,
    /// What its owner calls it.
    pub tag: String,
    /// Process id, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Milliseconds since 1970, once it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
}
