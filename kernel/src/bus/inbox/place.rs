//! Why a message finds no place: what its sender is told.

use std::sync::Arc;

use super::DURABLE_BODY_BYTES_MAX;
use crate::ledger::Exceeded;

/// Why there is no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// The queue is full and says so.
    #[error("the queue of {0} is full")]
    Full(Arc<str>),
    /// The receiver has ended.
    #[error("{0} has ended")]
    Closed(Arc<str>),
    /// The receiver keeps its messages on disk, where this one is too large for.
    #[error("{0} keeps its messages on disk and takes bodies of at most {DURABLE_BODY_BYTES_MAX} bytes")]
    TooLarge(Arc<str>),
    /// The receiver's principal keeps as much in the store as it may.
    #[error("{0}")]
    OverQuota(Box<Exceeded>),
}
