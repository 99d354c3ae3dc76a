//! Signals by their names.

use astrid_sdk::child::Signal;

/// Those that can be sent.
const SIGNALS: [(&str, Signal); 10] = [
    ("SIGHUP", Signal::Hangup),
    ("SIGINT", Signal::Interrupt),
    ("SIGQUIT", Signal::Quit),
    ("SIGKILL", Signal::Kill),
    ("SIGUSR1", Signal::User1),
    ("SIGUSR2", Signal::User2),
    ("SIGTERM", Signal::Terminate),
    ("SIGCONT", Signal::Continue),
    ("SIGSTOP", Signal::Stop),
    ("SIGWINCH", Signal::WindowChange),
];

/// A signal by its name, with or without `SIG`.
pub fn by_name(name: &str) -> Option<Signal> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS
        .iter()
        .find(|(known, _)| known.strip_prefix("SIG") == Some(short))
        .map(|(_, signal)| *signal)
}

/// The name of a signal.
pub fn name(signal: Signal) -> &'static str {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == signal)
        .map_or("a signal", |(name, _)| name)
}

/// A sentence that names them all.
pub fn known() -> String {
    let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
    format!("there is {}", names.join(", "))
}
