//! How a command fails: an exit code that scripts can rely on, the chain of causes, and at most one hint.
//!
//! Commands return `anyhow::Result`. Where the kind of failure or a hint is known, there is a [`Failure`] in the error's chain; the
//! outermost one decides. (In the chain, not a context: `anyhow` hides the type of those.) Everything else is [`Exit::Failed`].

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use astrid_wire::{envelope, problem};
use serde::{Deserialize, Serialize};

use crate::daemon::HELD;
use crate::output::{Closed, Format, Style, printable};

/// What kind of failure it was, as the process's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Exit {
    /// It was tried and did not work.
    Failed = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// No daemon answers.
    Unreachable = 3,
    /// It is not allowed.
    Denied = 4,
    /// No answer in time. The code that `timeout(1)` uses.
    Timeout = 124,
}

impl Exit {
    /// Of an error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
        failure.map_or(Self::Failed, |failure| failure.exit)
    }
}

/// An error that knows its exit code, and perhaps what can be done about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    problem: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            problem: None,
            source: None,
        }
    }

    /// [`Exit::Failed`].
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// [`Exit::Usage`].
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// [`Exit::Unreachable`], with the hint that goes with it.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
            .hint("start it with `astrid start`, or put `--ephemeral` before the command")
    }

    /// The causes of an error whose own words this failure has.
    pub(crate) fn caused_by(self, error: &dyn Error) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        if causes.is_empty() {
            self
        } else {
            self.source(causes.join(": "))
        }
    }

    /// What can be done about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// For programs: which failure it is, where there is a choice.
    pub(crate) fn coded(mut self, code: &str) -> Self {
        self.problem = Some(code.to_owned());
        self
    }

    /// What caused it.
    pub(crate) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A typed refusal by the daemon or a capsule. The code decides the exit code.
    pub(crate) fn problem(code: &str, message: &str, hint: &str) -> Self {
        use envelope::codes as protocol;
        let exit = match code {
            problem::codes::DENIED
            | problem::codes::GUARD_DENIED
            | problem::codes::GUARD_FAILED
            | protocol::PERMISSION_DENIED
            | protocol::SESSION_ERROR_PERMISSION_DENIED
            | protocol::SESSION_ERROR_INVALID
            | protocol::CREDENTIAL => Exit::Denied,
            problem::codes::TIMEOUT => Exit::Timeout,
            _ => Exit::Failed,
        };
        let mut failure = Self::new(exit, message);
        failure.problem = Some(code.to_owned());
        failure.hint = (!hint.is_empty()).then(|| hint.to_owned());
        failure
    }
}

/// A failure as data: what `--format json` prints, and what a daemon that could not start tells whoever started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The kind.
    pub(crate) kind: Exit,
    /// The exit code.
    pub(crate) exit: u8,
    /// What went wrong.
    pub(crate) message: String,
    /// Why, outermost first.
    pub(crate) causes: Vec<String>,
    /// What can be done about it.
    pub(crate) hint: Option<String>,
    /// For programs, where there is one: the code of a refusal by the daemon or a capsule, or `held`.
    pub(crate) problem: Option<String>,
}

/// What `--format json` prints on stderr.
#[derive(Serialize)]
struct Wrapped<'a> {
    error: &'a Report,
}

impl Report {
    /// Reads an error's chain.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
        let kind = Exit::of(error);
        let mut causes: Vec<String> = Vec::new();
        let mut last = error.to_string();
        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Many errors repeat their source in their own text.
            if !last.contains(&cause) {
                causes.push(cause.clone());
                last = cause;
            }
        }
        Self {
            kind,
            exit: kind as u8,
            message: error.to_string(),
            causes,
            hint: failure.and_then(|failure| failure.hint.clone()),
            problem: failure.and_then(|failure| failure.problem.clone()),
        }
    }

    /// The error that this reports, so that it can be reported again by another process.
    pub(crate) fn into_failure(self) -> Failure {
        let source = self.causes.into_iter().rev().fold(None, |source, message| {
            Some(Box::new(Failure {
                exit: self.kind,
                message,
                hint: None,
                problem: None,
                source,
            }) as Box<dyn Error + Send + Sync>)
        });
        Failure {
            exit: self.kind,
            message: self.message,
            hint: self.hint,
            problem: self.problem,
            source,
        }
    }

    /// Writes it to stderr. Nothing can be done if that fails.
    pub(crate) fn print(&self, format: Format) {
        let text = match format {
            Format::Json => serde_json::to_string(&Wrapped { error: self }).unwrap_or_default() + "\n",
            Format::Human => self.to_text(Style::of(&std::io::stderr())),
        };
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn to_text(&self, style: Style) -> String {
        let mut text = format!("{} {}", style.bad("error:"), printable(&self.message));
        if let Some(code) = self
            .problem
            .as_deref()
            .filter(|code| *code != HELD && !self.message.contains(*code))
        {
            let _ = write!(text, " ({})", printable(code));
        }
        text.push('\n');
        for cause in &self.causes {
            let _ = writeln!(text, "  because {}", printable(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "{} {}", style.faint("hint:"), printable(hint));
        }
        text
    }
}

/// The exit code of a command's result, after its error was printed. A reader of stdout that left early is no error.
pub(crate) fn conclude(result: anyhow::Result<()>, format: Format) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.chain().any(|cause| cause.is::<Closed>()) => ExitCode::SUCCESS,
        Err(error) => {
            let report = Report::of(&error);
            report.print(format);
            ExitCode::from(report.exit)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use super::*;
    use anyhow::Context as _;

    /// The exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not reachable, 4 denied, 124 timeout.
    #[test]
    fn problems_have_exit_codes() {
        for (code, exit) in [
            ("denied", 4),
            ("PERMISSION_DENIED", 4),
            ("SESSION_ERROR_INVALID", 4),
            ("timeout", 124),
            ("no-subscriber", 1),
            ("capsule.fault.time", 1),
            ("PROTOCOL", 1),
        ] {
            assert_eq!(
                Report::of(&Failure::problem(code, "no", "").into()).exit,
                exit,
                "{code}"
            );
        }
    }

    #[test]
    fn the_chain_survives_another_process() {
        let failure = Failure::new(Exit::Denied, "not allowed")
            .hint("ask")
            .source(std::io::Error::other("disk on fire"));
        let error = anyhow::Error::from(failure).context("starting");
        let report = Report::of(&error);
        assert_eq!((report.exit, report.message.as_str()), (4, "starting"));
        assert_eq!(report.causes, ["not allowed", "disk on fire"]);
        let line = serde_json::to_string(&report).unwrap();
        let again = Report::of(&serde_json::from_str::<Report>(&line).unwrap().into_failure().into());
        assert_eq!(serde_json::to_string(&again).unwrap(), line);
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let error = std::fs::read_to_string("/dev/null/x")
            .context("cannot read: Not a directory (os error 20)")
            .unwrap_err();
        assert!(Report::of(&error).causes.is_empty());
    }

    /// What a capsule says cannot steer the terminal.
    #[test]
    fn errors_are_printable() {
        let report = Report::of(&Failure::problem("x", "a\u{1b}[2Jb", "c\nd").into());
        assert_eq!(
            report.to_text(Style::PLAIN),
            "error: a\u{fffd}[2Jb (x)\nhint: c\u{fffd}d\n"
        );
    }
}
