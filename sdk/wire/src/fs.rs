//! Paths of files as guests name them, and bodies of what a watch tells its owner.

use serde::{Deserialize, Serialize};

/// Something changed: [`Changed`].
pub const CHANGED: &str = "port.v1.watch.changed";
/// The watch is over, and its port gone: the reason, as text.
pub const ENDED: &str = "port.v1.watch.ended";

/// Paths that one [`Changed`] names, at most. More than that, and looking again is cheaper than being told.
pub const CHANGED_PATHS_MAX: usize = 256;

/// Most bytes of a path, its scheme included.
pub const PATH_BYTES_MAX: usize = 4096;

/// Most bytes of one segment of a path: what Linux takes.
pub const SEGMENT_BYTES_MAX: usize = 255;

/// Body of [`CHANGED`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What was made, written, renamed or removed, each once, as `workspace://src/main.rs`. Whether it is there now, `stat` says.
    pub paths: Vec<String>,
    /// Whether more has changed than is named here: everything that is watched is to be looked at again.
    pub more: bool,
}

/// A tree of files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Root {
    /// `workspace://`: an attached directory with the principal's changes laid over it.
    Workspace,
    /// `home://`: the principal's own.
    Home,
    /// `tmp://`: the principal's own, emptied when the daemon starts.
    Tmp,
}

impl Root {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Workspace, Self::Home, Self::Tmp];

    /// Its name: the scheme of its paths, and the first segment of what the gate is asked.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Home => "home",
            Self::Tmp => "tmp",
        }
    }
}

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No known scheme before `://`.
    #[error("a path begins with workspace://, home:// or tmp://")]
    Root,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("it has {0} bytes, a path has at most {PATH_BYTES_MAX}")]
    TooLong(usize),
    /// Nothing between two separators, before the first or after the last.
    #[error("segment {0} is empty")]
    Empty(usize),
    /// `.` or `..`.
    #[error("segment {0} is `.` or `..`: paths are written without them")]
    Dots(usize),
    /// Longer than [`SEGMENT_BYTES_MAX`].
    #[error("segment {0} has more than {SEGMENT_BYTES_MAX} bytes")]
    LongSegment(usize),
    /// A control character.
    #[error("segment {0} contains a control character")]
    Control(usize),
}

/// Reads `workspace://src/main.rs` into the root and what is beneath it (`src/main.rs`, nothing for the root itself). The one rule for what
/// is a path, for the kernel, the SDK and its fake kernel.
///
/// # Errors
/// It is none; the segment is counted from 1.
pub fn parse(path: &str) -> Result<(Root, &str), PathError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong(path.len()));
    }
    let (scheme, rest) = path.split_once("://").ok_or(PathError::Root)?;
    let root = Root::ALL.into_iter().find(|root| root.as_str() == scheme);
    let root = root.ok_or(PathError::Root)?;
    if rest.is_empty() {
        return Ok((root, rest));
    }
    for (index, segment) in rest.split('/').enumerate() {
        let place = index + 1;
        match segment {
            "" => return Err(PathError::Empty(place)),
            "." | ".." => return Err(PathError::Dots(place)),
            _ if segment.len() > SEGMENT_BYTES_MAX => return Err(PathError::LongSegment(place)),
            _ if segment.chars().any(char::is_control) => return Err(PathError::Control(place)),
            _ => {}
        }
    }
    Ok((root, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(parse("workspace://"), Ok((Root::Workspace, "")));
        assert_eq!(parse("home://a/b c.txt"), Ok((Root::Home, "a/b c.txt")));
        assert_eq!(parse("tmp://..."), Ok((Root::Tmp, "...")));
        for (path, error) in [
            ("", PathError::Root),
            ("/etc/passwd", PathError::Root),
            ("file://a", PathError::Root),
            ("Workspace://a", PathError::Root),
            ("workspace:///etc", PathError::Empty(1)),
            ("workspace://a//b", PathError::Empty(2)),
            ("workspace://a/", PathError::Empty(2)),
            ("workspace://..", PathError::Dots(1)),
            ("workspace://a/../b", PathError::Dots(2)),
            ("workspace://./a", PathError::Dots(1)),
            ("workspace://a\0b", PathError::Control(1)),
            ("workspace://a/\u{85}", PathError::Control(2)),
        ] {
            assert_eq!(parse(path), Err(error), "{path:?}");
        }
        let long = format!("tmp://{}", "a".repeat(256));
        assert_eq!(parse(&long), Err(PathError::LongSegment(1)));
        let deep = format!("tmp://{}a", "a/".repeat(2046));
        assert_eq!(parse(&deep), Err(PathError::TooLong(4099)));
    }
}
