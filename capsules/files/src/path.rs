//! Paths in requests: `workspace://src`, `home://x`, `tmp://x`, or relative to the workspace.

use astrid_sdk::fs::parse;

use crate::error::FilesError;

/// The path with its root. `src/main.rs`, `./src/main.rs` and `workspace://src/main.rs` are the same, and so are the empty path, `.` and
/// `workspace://`.
///
/// # Errors
/// It is no path.
pub fn full(path: &str) -> Result<String, FilesError> {
    if path.starts_with('/') {
        return Err(FilesError::Invalid(format!(
            "path {:?}: a path of this machine is not known here; write it relative to the workspace, or with home:// or tmp://",
            shown(path)
        )));
    }
    let full = match path.split_once("://") {
        Some((root, rest)) => format!("{root}://{}", rest.strip_suffix('/').unwrap_or(rest)),
        None => {
            let mut rest = path;
            while let Some(shorter) = rest.strip_prefix("./") {
                rest = shorter;
            }
            let rest = if rest == "." { "" } else { rest };
            format!("workspace://{}", rest.strip_suffix('/').unwrap_or(rest))
        }
    };
    match parse(&full) {
        Ok(_) => Ok(full),
        Err(error) => Err(FilesError::Invalid(format!("path {:?}: {error}", shown(path)))),
    }
}

/// The path of something in a directory.
pub(crate) fn join(directory: &str, name: &str) -> String {
    match directory.is_empty() || directory.ends_with('/') {
        true => format!("{directory}{name}"),
        false => format!("{directory}/{name}"),
    }
}

/// The directory that something is in; none for a root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let (_, rest) = parse(path).ok()?;
    let start = path.len() - rest.len();
    match rest.rfind('/') {
        Some(end) => Some(&path[..start + end]),
        None if rest.is_empty() => None,
        None => Some(&path[..start]),
    }
}

fn shown(path: &str) -> &str {
    &path[..path.floor_char_boundary(128)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_are_made_full() {
        for (path, expected) in [
            ("", "workspace://"),
            (".", "workspace://"),
            ("./", "workspace://"),
            ("././a", "workspace://a"),
            ("src/main.rs", "workspace://src/main.rs"),
            ("src/", "workspace://src"),
            ("home://", "home://"),
            ("home://a/", "home://a"),
            ("a:b", "workspace://a:b"),
        ] {
            assert_eq!(full(path).unwrap(), expected, "{path:?}");
        }
        for path in [
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "http://x",
            "workspace:///etc",
            "a\0",
            "workspace://..",
        ] {
            assert!(matches!(full(path), Err(FilesError::Invalid(_))), "{path:?}");
        }
    }

    #[test]
    fn paths_are_joined_and_taken_apart() {
        assert_eq!(join("workspace://", "a"), "workspace://a");
        assert_eq!(join("workspace://a", "b"), "workspace://a/b");
        assert_eq!(join("", "b"), "b");
        assert_eq!(parent("workspace://a/b"), Some("workspace://a"));
        assert_eq!(parent("workspace://a"), Some("workspace://"));
        assert_eq!(parent("workspace://"), None);
    }
}
