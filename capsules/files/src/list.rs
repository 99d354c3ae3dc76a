//! `list_dir`: names of a directory, or of a tree.

use astrid_sdk::body;
use astrid_sdk::fs::Fs;

use crate::error::{FilesError, within};
use crate::walk::{Plan, Step, Walk};
use crate::write::{What, is_executable};
use crate::{limits, path, rules};

/// A directory to list.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct ListDir {
    /// Which directory. Not said: the workspace.
    #[serde(default)]
    path: String,
    /// How many directories deep: 1 is the directory itself, at most 50. Not said: 1.
    #[serde(default)]
    depth: Option<u32>,
    /// What is listed, relative to the directory: `*.rs` anywhere, `src/**/*.rs`, and with `!` in front what is not. Not said: everything.
    #[serde(default)]
    glob: Vec<String>,
    /// Whether what `.gitignore` files name, and `.git`, is listed, too.
    #[serde(default)]
    ignored: bool,
    /// How many entries, 1 to 10,000. Not said: 1,000.
    #[serde(default)]
    limit: Option<u32>,
    /// The `cursor` of the answer to go on from.
    #[serde(default)]
    cursor: Option<String>,
}

/// What is in a directory, in the order of the names, each directory before what is in it.
#[body]
pub(crate) struct Listed {
    /// The directory, with its root.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) entries: Vec<ListedEntry>,
    /// Whether there is more.
    pub(crate) truncated: bool,
    /// Where it goes on, if there is more: for the next request, which is otherwise the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// Directories in it that the principal may not read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) denied: u32,
    /// Names that no path can say, and directories that are too deep, which are passed over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) passed_over: u32,
}

/// Something in a directory.
#[body]
pub(crate) struct ListedEntry {
    /// Its path, relative to the directory.
    pub(crate) path: String,
    /// What it is.
    pub(crate) kind: What,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// When its content last changed, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// Whether it may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) executable: bool,
    /// Whether it, or something in it, is not as in the directory that is attached as the workspace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) changed: bool,
}

pub(crate) fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Lists a directory.
pub(crate) fn list(fs: &Fs<'_>, request: &ListDir) -> Result<Listed, FilesError> {
    let directory = path::full(&request.path)?;
    let depth = within("depth", request.depth, 1, (1, limits::DEPTH_MAX))?;
    let limit = within("limit", request.limit, limits::ENTRIES, (1, limits::ENTRIES_MAX))?;
    let plan = Plan {
        directory: directory.clone(),
        depth: depth - 1,
        globs: rules::globs(&request.glob)?,
        ignoring: !request.ignored,
    };
    let mut walk = Walk::new(fs, plan, request.cursor.as_deref())?;
    let mut entries: Vec<ListedEntry> = Vec::new();
    let (mut bytes, mut cursor) = (0, None);
    loop {
        match walk.step()? {
            Step::Done => break,
            Step::Paused(at) => {
                cursor = Some(at);
                break;
            }
            // One more than is wanted was found.
            Step::Found(_) if entries.len() == limit as usize || bytes >= limits::LISTED_BYTES => {
                cursor = entries.last().map(|entry| entry.path.clone());
                break;
            }
            Step::Found(found) => {
                let meta = found.entry.meta;
                bytes += found.path.len();
                entries.push(ListedEntry {
                    path: found.path,
                    kind: meta.kind.into(),
                    size: meta.size,
                    modified_ms: meta.modified_ms,
                    executable: is_executable(&meta),
                    changed: meta.changed,
                });
            }
        }
    }
    Ok(Listed {
        path: directory,
        entries,
        truncated: cursor.is_some(),
        cursor,
        denied: walk.passed.denied,
        passed_over: u32::try_from(walk.passed.unnamed).unwrap_or(u32::MAX),
    })
}
