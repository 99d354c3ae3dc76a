//! Tells the service manager (`Type=notify`) how far the daemon is. Without one that listens (`NOTIFY_SOCKET`),
//! nothing happens.
//!
//! What could not be told is only logged: the daemon works all the same, and the manager has its own timeouts.

use std::time::Duration;

use astrid_wire::control::{CapsuleState, State, Status};
use sd_notify::NotifyState;

/// Boot is complete.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon is about to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line on how the daemon is.
pub fn status(status: &Status) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// How often the service manager wants to hear that the daemon is alive, if it does: half of the time after which it would act.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// The daemon is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

fn line(status: &Status) -> String {
    let state = match status.state {
        State::Starting => "starting",
        State::Ready => "ready",
        State::Degraded => "degraded",
        State::Stopping => "stopping",
    };
    let ready = status
        .capsules
        .iter()
        .filter(|capsule| capsule.state == CapsuleState::Ready)
        .count();
    format!(
        "{state}: {ready} of {} capsules ready, {} connections",
        status.capsules.len(),
        status.connections
    )
}
