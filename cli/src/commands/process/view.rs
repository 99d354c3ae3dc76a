//! What the capsule `process` answers, read with patience: fields that are missing or new are no error, and a state that this
//! version does not know is shown as it is.

use std::collections::BTreeMap;

use serde::Deserialize;

/// All that are defined, or those that something was done to.
#[derive(Debug, Deserialize)]
pub(super) struct Processes {
    pub(super) processes: Vec<Process>,
    /// Why the definitions cannot be read, if so: what runs is what they said before.
    #[serde(default)]
    pub(super) problem: Option<Problem>,
}

/// Something that is wrong.
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    pub(super) message: String,
    #[serde(default)]
    pub(super) hint: Option<String>,
}

/// A program under supervision.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) cwd: String,
    /// Secret values are `***`.
    pub(super) env: BTreeMap<String, String>,
    pub(super) restart: String,
    pub(super) instances_wanted: u32,
    pub(super) autostart: bool,
    pub(super) sandbox: String,
    pub(super) health_kind: String,
    pub(super) instances: Vec<Instance>,
}

impl Process {
    /// What one of its instances is called.
    pub(super) fn label(&self, index: u32) -> String {
        if self.instances.len() > 1 {
            format!("{}-{index}", self.name)
        } else {
            self.name.clone()
        }
    }
}

/// One running copy of a program, or the place of one (A10).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Instance {
    pub(super) index: u32,
    pub(super) state: State,
    /// Present iff it runs.
    pub(super) pid: Option<u32>,
    pub(super) uptime_ms: Option<u64>,
    pub(super) restarts: u64,
    pub(super) circuit_open: bool,
    /// Unix milliseconds, while it waits to be restarted.
    pub(super) restart_at_ms: Option<u64>,
    pub(super) health: Option<String>,
    pub(super) health_detail: Option<String>,
    pub(super) last_exit: Option<LastExit>,
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) processes: Option<u64>,
    /// What of its sandbox could not be had.
    pub(super) lacking: Vec<String>,
}

/// How it ended the last time.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastExit {
    /// Unix milliseconds.
    pub(super) at_ms: u64,
    pub(super) code: Option<i64>,
    /// For people.
    pub(super) text: String,
}

/// Where an instance is in its life (A10).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) enum State {
    Starting,
    Running,
    Unhealthy,
    Stopping,
    #[default]
    Stopped,
    Crashed,
    Terminated,
    Other(String),
}

impl From<String> for State {
    fn from(word: String) -> Self {
        match word.as_str() {
            "starting" => Self::Starting,
            "running" => Self::Running,
            "unhealthy" => Self::Unhealthy,
            "stopping" => Self::Stopping,
            "stopped" => Self::Stopped,
            "crashed" => Self::Crashed,
            "terminated" => Self::Terminated,
            _ => Self::Other(word),
        }
    }
}

impl State {
    pub(super) fn word(&self) -> &str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
            Self::Terminated => "terminated",
            Self::Other(word) => word,
        }
    }
}
