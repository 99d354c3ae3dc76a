//! Asks before something is gone for good.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// Bytes of an answer on a terminal that are read.
const ANSWER_BYTES_MAX: u64 = 64;

/// Asks a person; whoever is none has to say so with `--yes`. `what` ends the sentence *there is no terminal to ask on ...*.
pub(crate) fn confirmed(question: &str, what: &str) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        let failure = Failure::usage(format!("there is no terminal to ask on {what}"));
        return Err(failure.hint("say so with --yes").into());
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::Read::take(stdin.lock(), ANSWER_BYTES_MAX).read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
