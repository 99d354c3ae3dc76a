//! What comes of an ask.

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use crate::bindings::astrid::kernel::types::CommandId;

/// The outcome of an ask of this capsule, as its `#[answer]` handler gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// Which ask: what `send` returned.
    pub id: CommandId,
    /// What came of it.
    pub outcome: Outcome<T>,
}

/// What came of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was answered.
    Ok(T),
    /// It was refused, or the answer does not fit its type (code [`UNREADABLE`]).
    Refused(Problem),
    /// No answer in time.
    TimedOut,
}

/// Code of a refusal that this crate makes from an answer that does not fit its type.
pub const UNREADABLE: &str = "unreadable-answer";

/// Code of the refusal of an ask that no handler of this capsule takes.
pub const UNHANDLED: &str = "unhandled";

impl<T> Answer<T> {
    /// The answer, or the refusal of `code` `timeout` for none in time.
    ///
    /// # Errors
    /// Refused, or timed out.
    pub fn into_result(self) -> Result<T, Problem> {
        match self.outcome {
            Outcome::Ok(value) => Ok(value),
            Outcome::Refused(problem) => Err(problem),
            Outcome::TimedOut => Err(Problem::new(codes::TIMEOUT, "no answer in time")),
        }
    }
}
