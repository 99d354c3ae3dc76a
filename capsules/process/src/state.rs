//! The words of the machine: states (A10), what it wants done, how a child ended.

use astrid_sdk::child::{Exit, Reach, Signal};
use serde::{Deserialize, Serialize};

/// When something happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    /// Milliseconds since 1970 by a clock that never goes back while the actor's instance lives: it is set once, when that begins, and
    /// counts with the daemon's life from there. What is reckoned with goes by it, so that it still means something to the next instance.
    pub up_ms: u64,
    /// Milliseconds since 1970, for people.
    pub wall_ms: u64,
    /// Any number, for waits that are spread.
    pub chance: u64,
}

/// The states of A10.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was asked for and does not run yet.
    Starting,
    /// It runs.
    Running,
    /// It runs and does not work.
    Unhealthy,
    /// It was asked to end.
    Stopping,
    /// It ended as it should, or never began.
    Stopped(Option<i32>),
    /// It ended as it should not, or could not begin.
    Crashed(Option<i32>),
    /// It was killed, because it did not stop.
    Terminated,
}

impl Default for State {
    fn default() -> Self {
        Self::Stopped(None)
    }
}

impl State {
    /// As answers and events call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped(_) => "stopped",
            Self::Crashed(_) => "crashed",
            Self::Terminated => "terminated",
        }
    }

    /// The exit code that it ended with.
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Stopped(code) | Self::Crashed(code) => code,
            _ => None,
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start the program.
    Spawn,
    /// Send the child a signal.
    Signal(Signal, Reach),
    /// Start a check.
    Check,
    /// End the check that runs.
    EndCheck,
    /// Run what is run before a stop.
    BeforeStop,
    /// End that.
    EndBeforeStop,
    /// The state is another; says why.
    Changed(State, String),
    /// Something worth remembering.
    Note(String),
    /// The circuit has opened; says why.
    CircuitOpened(String),
}

/// What is known of health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It works.
    Healthy,
    /// It does not.
    Unhealthy,
}

/// How it ended last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// With this code.
    pub code: Option<i32>,
    /// By this signal.
    pub signal: Option<String>,
    /// For people.
    pub text: String,
}

impl LastExit {
    /// How it ended, told now.
    pub fn of(exit: &Exit, now: Now) -> Self {
        let (code, signal, text) = match exit {
            Exit::Code(code) => (Some(*code), None, format!("exit code {code}")),
            Exit::Signal { name, core, .. } => {
                let core = if *core { " (core dumped)" } else { "" };
                (None, Some(name.clone()), format!("killed by {name}{core}"))
            }
            Exit::Lost => (
                None,
                None,
                "ended with the daemon's keeper, nobody knows how".to_owned(),
            ),
        };
        Self {
            at_ms: now.wall_ms,
            code,
            signal,
            text,
        }
    }
}
