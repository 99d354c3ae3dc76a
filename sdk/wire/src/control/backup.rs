//! A backup, made by the daemon. Asked on the operator socket only.

use serde::{Deserialize, Serialize};

/// Request with a [`Request`]: the backup is written; a [`Written`] when it is on disk.
pub const REQUEST: &str = "astrid.v1.request.backup";

/// Body of [`REQUEST`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The file: an absolute path, outside of what is saved. It is written with the daemon's rights.
    pub path: String,
    /// Whether a file that is there may be replaced.
    #[serde(default)]
    pub force: bool,
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The file.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes of these, before they were compressed.
    pub content_bytes: u64,
    /// The last commit in it, where the store is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Blobs in it.
    #[serde(default)]
    pub blobs: u64,
    /// Blobs that are corrupted on disk, and so not in it; the daemon's log, and the audit log, name each.
    #[serde(default)]
    pub left_out: u64,
}
