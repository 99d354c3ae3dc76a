//! What a check has found (A12), and which failures to start would only come again.
//!
//! Checks are programs: `tcp` and `http` are the daemon's own, which says on one line what is wrong; a script may do the same.

use astrid_sdk::child::Exit;
use astrid_sdk::codes;

/// Bytes that are kept of what a check says: a line.
pub const SAID_BYTES_MAX: usize = 512;
/// Characters of it that are shown.
const SHOWN_CHARS_MAX: usize = 200;

/// What a check that ended has found: nothing wrong, or what.
///
/// # Errors
/// What is wrong, on one line.
pub fn found(exit: &Exit, said: &[u8]) -> Result<(), String> {
    if *exit == Exit::Code(0) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(said);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty());
    Err(match (line, exit) {
        (Some(line), _) => line.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect(),
        (None, Exit::Code(code)) => format!("the check ended with exit code {code}"),
        (None, Exit::Signal { name, .. }) => format!("the check was killed by {name}"),
        (None, Exit::Lost) => "the check was lost".to_owned(),
    })
}

/// Whether a failure to start, by its code, would be the same at another attempt.
pub fn is_lasting(code: &str) -> bool {
    matches!(
        code,
        codes::DENIED
            | codes::INVALID
            | "child.not-found"
            | "child.not-executable"
            | "child.no-directory"
            | "child.unsupported"
            | "child.limit"
            | "child.sandbox"
    )
}
