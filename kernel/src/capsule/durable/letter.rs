//! What a dead letter is called, and why there is no answer about one.

use std::fmt;
use std::str::FromStr;

use astrid_wire::control::dead::IDS_MAX;
use astrid_wire::problem::codes;

use crate::store::Refused;
use crate::store::engine::EngineError;

/// What a letter is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// Who was to handle it.
    pub capsule: String,
    /// The number of its row.
    pub row: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.capsule, self.row)
    }
}

impl FromStr for LetterId {
    type Err = DeadError;

    fn from_str(text: &str) -> Result<Self, DeadError> {
        let parts = text.split_once(':').filter(|(capsule, _)| !capsule.is_empty());
        // Only as it is written: a sign or leading zeros would be a second name.
        let row = parts.and_then(|(_, row)| row.parse().ok().filter(|n: &u64| n.to_string() == row));
        match (parts, row) {
            (Some((capsule, _)), Some(row)) => Ok(Self {
                capsule: capsule.to_owned(),
                row,
            }),
            _ => Err(DeadError::NotAnId(text.chars().take(80).collect())),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// It is no id.
    #[error("{0:?} is not the id of a dead letter")]
    NotAnId(String),
    /// There is none of this id, or no more.
    #[error("there is no dead letter {0}")]
    NotFound(LetterId),
    /// Nobody would handle it.
    #[error("{0} does not run here, so nobody would handle the message")]
    NoReceiver(String),
    /// The row is not what this program writes.
    #[error("the row of dead letter {0} cannot be read")]
    Unreadable(LetterId),
    /// A selection says both, or neither.
    #[error("either ids or all of them, not {0}")]
    Selection(&'static str),
    /// Too many ids at once.
    #[error("{0} ids at once; the limit is {IDS_MAX}")]
    TooMany(usize),
    /// It cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store takes nothing now.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl DeadError {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAnId(_) | Self::Selection(_) | Self::Unreadable(_) => codes::INVALID,
            Self::NotFound(_) => codes::NOT_FOUND,
            Self::TooMany(_) => codes::TOO_MANY,
            Self::NoReceiver(_) | Self::Engine(_) | Self::Refused(_) => codes::UNAVAILABLE,
        }
    }

    /// What could be done about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAnId(_) | Self::NotFound(_) => "`astrid dead list` shows those that there are",
            Self::NoReceiver(_) => "`astrid capsule list` says why",
            Self::Unreadable(_) => "`astrid dead drop` forgets it",
            Self::Selection(_) => r#"send {"ids": ["..."]} or {"all": true}"#,
            Self::TooMany(_) => "send them in parts",
            Self::Engine(_) | Self::Refused(_) => "`astrid status` says how the store is",
        }
    }
}
