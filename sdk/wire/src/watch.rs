//! Body of what a watch tells its owner.

use serde::{Deserialize, Serialize};

/// Something that is watched changed: [`Changed`].
pub const CHANGED: &str = "port.v1.watch.changed";

/// Names of one [`Changed`] at most.
pub const NAMES_MAX: usize = 256;

/// Body of [`CHANGED`]: what changed since the message before was consumed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What is watched, as its owner named it.
    pub path: String,
    /// Entries of the directory that came, went or were written, sorted; none when a file is watched.
    pub names: Vec<String>,
    /// More changed than is named here, or something that has no name in UTF-8: whoever wants to know looks again.
    pub more: bool,
    /// What is watched is not there any more by this name. Nothing else comes.
    pub gone: bool,
}
