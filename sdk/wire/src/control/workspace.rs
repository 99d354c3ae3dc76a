//! What operators ask about workspaces: directories of the host that principals work on as a copy, whose differences are looked at before they
//! count.
//!
//! Paths are relative to the workspace, with `/` between names. A name may be any bytes; [`escape`] makes text of them, and [`unescape`] bytes
//! again.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Principal;

mod patch;

/// Bytes of a name of a snapshot at most.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 64;

/// Paths that one request names at most.
pub const PATHS_MAX: usize = 1000;

/// Text of a path's bytes: `\\` for a backslash, `\xNN` for control characters and for what is no UTF-8, all else as it is.
#[must_use]
pub fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str(r"\\"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    hex(&mut text, c.encode_utf8(&mut bytes).as_bytes());
                }
                c => text.push(c),
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(r"\x");
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
}

/// The bytes of a path's text; `None` when it is not one of [`escape`]'s.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let digit = |nibble: &u8| char::from(*nibble).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Body of `workspace.attach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WorkspaceAttach")
)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Whose workspace it becomes.
    pub name: Principal,
    /// Absolute path of a directory of the host.
    pub directory: String,
}

/// Body of `workspace.detach`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WorkspaceDetach")
)]
#[serde(deny_unknown_fields)]
pub struct Detach {
    /// Whose.
    pub name: Principal,
    /// Also when there are changes that nobody committed: they are dropped.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// Body of `workspace.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "WorkspaceList"))]
#[serde(deny_unknown_fields, default)]
pub struct List {
    /// Only this principal's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Principal>,
    /// Names after this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Answer to `workspace.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Workspaces {
    /// By name.
    pub workspaces: Vec<WorkspaceReport>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkspaceReport {
    /// Whose.
    #[serde(deserialize_with = "of_anybody")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub name: Principal,
    /// The directory of the host that it is a copy of.
    pub directory: String,
    /// Since when it has been used, in milliseconds since 1970: what changed in the directory after that is a conflict. Absent while nothing
    /// was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// What there is to commit.
    pub changes: Counts,
    /// Bytes that the copy takes on disk.
    pub bytes: u64,
    /// How many use it now: open files, and programs that run in it.
    pub users: u64,
    /// Kept states.
    pub snapshots: Vec<SnapshotReport>,
    /// Why it cannot be used, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

fn of_anybody<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Principal, D::Error> {
    Principal::stamped(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Changes, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "ChangeCounts"))]
pub struct Counts {
    /// What is new.
    pub added: u64,
    /// What is different.
    pub modified: u64,
    /// What is gone.
    pub removed: u64,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub const fn all(self) -> u64 {
        self.added + self.modified + self.removed
    }
}

/// A kept state of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SnapshotReport {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub made_ms: u64,
    /// Bytes that it takes on disk; shared ones are counted too.
    pub bytes: u64,
}

/// Body of `workspace.diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "WorkspaceDiff"))]
#[serde(deny_unknown_fields)]
pub struct Diff {
    /// Whose.
    pub name: Principal,
    /// Only these and what is below them; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Paths after this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Without hashes and text: which paths differ, and how.
    #[serde(default, skip_serializing_if = "is_false")]
    pub names_only: bool,
}

/// Answer to `workspace.diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Differences {
    /// In the order of a walk: what is in a directory follows it.
    pub files: Vec<FileDiff>,
    /// Where the next page begins, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It is new.
    Added,
    /// It is different.
    Modified,
    /// It is gone.
    Removed,
}

/// What stands under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a fifo, a socket: never committed.
    Other,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Side {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// BLAKE3 of a file's content, in hexadecimal. Absent for what is large (64 MiB), or cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Where a link leads, escaped as paths are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileDiff {
    /// Which.
    pub path: String,
    /// What became of it.
    pub how: How,
    /// What the directory of the host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Side>,
    /// What the workspace has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Side>,
    /// Whether the content is not shown as text: it is none, or too long.
    #[serde(default, skip_serializing_if = "is_false")]
    pub binary: bool,
    /// Lines that are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_added: Option<u64>,
    /// Lines that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines_removed: Option<u64>,
    /// The hunks of a unified diff, with three lines around each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunks: Option<String>,
    /// Why not all of it is told, or what else is other: attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Body of `workspace.commit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WorkspaceCommit")
)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Whose.
    pub name: Principal,
    /// Only these and what is below them; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Also over what changed in the directory meanwhile.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// Answer to `workspace.commit`. With conflicts nothing is written, unless it was forced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Committed {
    /// Whether it was done.
    pub done: bool,
    /// What is in the directory of the host now.
    pub changes: Counts,
    /// Bytes that were written.
    pub bytes: u64,
    /// BLAKE3 over each path and its content, in hexadecimal.
    pub digest: String,
    /// What changed in the directory meanwhile; the first of them.
    pub conflicts: Vec<Conflict>,
    /// How many there are in all.
    pub conflicts_total: u64,
    /// Paths that stay in the workspace: devices, fifos, sockets, and what is too deep; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// What is not in the directory of the host as it is in the workspace, and why: what was left out, and set-id bits; the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<Conflict>,
}

/// A path that changed in the directory of the host while somebody worked on a copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Conflict {
    /// Which.
    pub path: String,
    /// What is the matter with it.
    pub why: String,
}

/// Body of `workspace.rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WorkspaceRollback")
)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Whose.
    pub name: Principal,
    /// Only these and what is below them; all when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The snapshot that it becomes again, instead of the directory of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Answer to `workspace.rollback`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RolledBack {
    /// What is gone.
    pub changes: Counts,
    /// Gone is also what a program did to a copy of its own, which could not be taken back.
    #[serde(default, skip_serializing_if = "is_false")]
    pub copy: bool,
}

/// Body of `workspace.snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "WorkspaceSnapshot")
)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// Whose.
    pub name: Principal,
    /// Its name: 1 to 64 of `[a-z0-9._-]`, not with a dot first.
    pub snapshot: String,
    /// It is removed, not made.
    #[serde(default, skip_serializing_if = "is_false")]
    pub remove: bool,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Any name is text, and the same name again.
        #[test]
        fn paths_survive_as_text(path in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = escape(&path);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text).unwrap(), path);
        }
    }

    #[test]
    fn what_is_no_escape_is_no_path() {
        assert_eq!(unescape(r"a\"), None);
        assert_eq!(unescape(r"a\xg0"), None);
        assert_eq!(unescape(r"a\n"), None);
        assert_eq!(escape("é\n\\".as_bytes()), r"é\x0a\\");
    }
}
