//! `run/status.json`: how the daemon is, for who cannot reach its sockets. Rewritten on every change of state,
//! removed by a clean stop; one that a killed daemon left is told by its lock, which nobody holds.
//!
//! A reader sees a whole document, the old one or the new one. It is not synced: it says nothing about a machine that
//! was off.

use std::io;
use std::path::PathBuf;

use astrid_wire::control::Status;

use crate::home::{self, Home};

/// The file. One writer.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
}

impl StatusFile {
    /// The home's. Nothing is written yet.
    #[must_use]
    pub fn new(home: &Home) -> StatusFile {
        StatusFile {
            path: home.status_file(),
        }
    }

    /// Replaces what it says.
    ///
    /// # Errors
    ///
    /// What the file system says; the old document stays.
    pub fn write(&self, status: &Status) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(status).map_err(io::Error::other)?;
        text.push('\n');
        home::write_run_file(&self.path, &text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use astrid_wire::control::{Messages, Mode, Sockets, State};

    use super::*;

    #[test]
    fn what_is_written_is_read_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let mut status = Status {
            state: State::Starting,
            pid: 1,
            version: "0.1.0".to_owned(),
            mode: Mode::Persistent,
            home: "/h".to_owned(),
            started_at_ms: 2,
            uptime_ms: 3,
            sockets: Sockets::default(),
            connections: 4,
            messages: Messages::default(),
            fuel_used: 5,
            children: astrid_wire::control::ChildCount::default(),
            store: astrid_wire::control::StoreReport::default(),
            capsules: vec![],
            reasons: vec!["a".to_owned()],
        };
        let file = StatusFile::new(&home);
        for state in [State::Starting, State::Degraded] {
            status.state = state;
            file.write(&status).unwrap();
            let text = std::fs::read_to_string(home.status_file()).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
        }
        let mode = std::fs::metadata(home.status_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(home.run_dir()).unwrap().count(), 1);
    }
}
