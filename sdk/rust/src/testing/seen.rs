//! What a test sees: outcomes, and what the capsule said.

use std::time::Duration;

use astrid_wire::Problem;
use serde_json::Value;

use crate::bindings::astrid::kernel::log::Level;
use crate::bindings::astrid::kernel::types::{CommandId, ReplyTo};
use crate::body::{Body, FromBody};
use crate::error::Rollback;

/// What became of one `handle`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "whether it was committed"]
pub enum Handled {
    /// Its commands happened.
    Committed,
    /// Its commands were dropped, and the instance with its state.
    RolledBack(Rollback),
}

impl Handled {
    /// Asserts that it was committed.
    #[track_caller]
    pub fn committed(self) {
        assert_eq!(self, Self::Committed, "the handler gave up");
    }

    /// Asserts that it was rolled back, and says why.
    #[track_caller]
    pub fn rolled_back(self) -> Rollback {
        match self {
            Self::RolledBack(rollback) => rollback,
            Self::Committed => panic!("the handler did not give up"),
        }
    }
}

/// What came of an ask that the test made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the answer"]
pub struct Asked {
    /// What became of the `handle`.
    pub handled: Handled,
    /// Where the answer goes: for [`Harness::reply`](super::Harness::reply) when there is none yet.
    pub to: ReplyTo,
    /// The answer or refusal, if there is one now.
    pub reply: Option<Result<Body, Problem>>,
}

impl Asked {
    /// The body of the answer. Panics when there is none.
    #[track_caller]
    pub fn body(self) -> Body {
        match self.reply {
            Some(Ok(body)) => body,
            Some(Err(problem)) => panic!(
                "the ask was refused: {problem}; {}",
                problem.hint().unwrap_or("no hint")
            ),
            None => panic!("the ask is not answered yet ({:?})", self.handled),
        }
    }

    /// The answer as a value of its type. Panics when there is none, or another.
    #[track_caller]
    pub fn read<T: FromBody>(self) -> T {
        read(self.body())
    }

    /// The answer as JSON. Panics when there is none, or another.
    #[track_caller]
    pub fn json(self) -> Value {
        self.read()
    }

    /// The refusal. Panics when there is none.
    #[track_caller]
    pub fn refused(self) -> Problem {
        match self.reply {
            Some(Err(problem)) => problem,
            Some(Ok(body)) => panic!("the ask was answered with {}", shown(&body)),
            None => panic!("the ask is not answered yet ({:?})", self.handled),
        }
    }

    /// Whether there is no answer yet.
    pub fn is_pending(&self) -> bool {
        self.reply.is_none()
    }
}

/// A message that the capsule published or emitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where.
    pub topic: String,
    /// What.
    pub body: Body,
}

impl Said {
    /// The body as a value of its type. Panics when it is another.
    #[track_caller]
    pub fn read<T: FromBody>(&self) -> T {
        read(self.body.clone())
    }

    /// The body as JSON. Panics when it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.read()
    }
}

/// An ask of the capsule that waits for the test's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which: for [`Harness::answer`](super::Harness::answer).
    pub id: CommandId,
    /// Where and what.
    pub said: Said,
    /// How long it waits.
    pub timeout: Duration,
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: Level,
    /// The constant part.
    pub message: String,
    /// The varying parts.
    pub fields: Vec<(String, String)>,
}

#[track_caller]
fn read<T: FromBody>(body: Body) -> T {
    let shown = shown(&body);
    T::from_body(body).unwrap_or_else(|problem| panic!("{problem}: {shown}"))
}

fn shown(body: &Body) -> String {
    format!("{} {:?}", body.content_type, String::from_utf8_lossy(&body.bytes))
}
