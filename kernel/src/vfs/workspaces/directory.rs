//! Which directories of the host can be worked on as a copy.

#![allow(clippy::disallowed_methods, reason = "looks at directories that an operator named")]

use std::io;
use std::path::{Path, PathBuf};

use super::super::beneath::is_systems_own;
use super::super::mountinfo;

/// Why a directory cannot be a workspace.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be looked at.
    #[error("{} cannot be used: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is not a directory", .0.display())]
    Not(PathBuf),
    /// It is not named by an absolute path without links.
    #[error("{} is {} by its own name", .path.display(), .resolved.display())]
    Unresolved {
        /// What was said.
        path: PathBuf,
        /// What it is.
        resolved: PathBuf,
    },
    /// All of the host.
    #[error("the root of the host is no workspace")]
    Root,
    /// What a principal wrote there would be read as the daemon's own.
    #[error("{} is in the daemon's home, or around it", .0.display())]
    Home(PathBuf),
    /// What is in it are not files, but processes and devices.
    #[error("{} is the system's own, and has no files to work on", .0.display())]
    System(PathBuf),
    /// Other programs could not be told of it.
    #[error("{} has a name that is not UTF-8", .0.display())]
    Name(PathBuf),
}

/// Where devices are. It has the same kind of file system as memory that holds files, so that its path has to tell.
const DEVICES: &str = "/dev";

/// Mounts below a directory that are named at most.
pub const MOUNTS_NAMED_MAX: usize = 5;

/// What is mounted below a directory, and so no part of a workspace of it; at most so many. Nothing where the system does not tell.
#[must_use]
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = mountinfo::all().unwrap_or_default();
    let points = mounts.into_iter().map(|mount| mount.point);
    points
        .filter(|point| point != directory && point.starts_with(directory))
        .take(MOUNTS_NAMED_MAX)
        .collect()
}

/// A directory by its own absolute name, if it can be a workspace beside this home.
///
/// # Errors
/// [`DirectoryError`].
pub fn check(path: &Path, home: &Path) -> Result<PathBuf, DirectoryError> {
    let resolved = resolve(path, home)?;
    if resolved != path {
        return Err(DirectoryError::Unresolved {
            path: path.to_owned(),
            resolved,
        });
    }
    Ok(resolved)
}

/// As [`check`], for a path with links in it.
///
/// # Errors
/// [`DirectoryError`].
pub fn resolve(path: &Path, home: &Path) -> Result<PathBuf, DirectoryError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| DirectoryError::Io { path, source }
    };
    if !path.is_absolute() {
        return Err(failed(path)(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not an absolute path",
        )));
    }
    let resolved = path.canonicalize().map_err(failed(path))?;
    let home = home.canonicalize().map_err(failed(home))?;
    if !resolved.metadata().map_err(failed(&resolved))?.is_dir() {
        return Err(DirectoryError::Not(resolved));
    }
    if resolved.parent().is_none() {
        return Err(DirectoryError::Root);
    }
    if resolved.starts_with(&home) || home.starts_with(&resolved) {
        return Err(DirectoryError::Home(resolved));
    }
    if resolved.starts_with(DEVICES) {
        return Err(DirectoryError::System(resolved));
    }
    let system = rustix::fs::statfs(&resolved).map_err(|error| failed(&resolved)(error.into()))?;
    if is_systems_own(&system) {
        return Err(DirectoryError::System(resolved));
    }
    let reads = rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(&resolved, reads).map_err(|error| failed(&resolved)(error.into()))?;
    if resolved.to_str().is_none() {
        return Err(DirectoryError::Name(resolved));
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// K9, A18: neither all of the host, nor anything of the daemon's own, nor by another name.
    #[test]
    fn some_directories_are_no_workspaces() {
        let elsewhere = tempfile::tempdir().unwrap();
        for path in ["/proc", "/proc/self/fd", "/sys", "/dev"] {
            let found = resolve(Path::new(path), elsewhere.path());
            assert!(matches!(found, Err(DirectoryError::System(_))), "{path}: {found:?}");
        }
        assert!(
            mounts_below(Path::new("/")).contains(&PathBuf::from("/proc"))
                || mounts_below(Path::new("/")).len() == MOUNTS_NAMED_MAX
        );
        assert!(mounts_below(elsewhere.path()).is_empty() && mounts_below(Path::new("/proc/self")).is_empty());
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        for name in ["project", "around/home/etc"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::write(root.join("file"), "").unwrap();
        symlink("project", root.join("link")).unwrap();
        symlink("around/home/etc", root.join("sly")).unwrap();
        let home = root.join("around/home");
        assert_eq!(check(&root.join("project"), &home).unwrap(), root.join("project"));
        assert_eq!(resolve(&root.join("link"), &home).unwrap(), root.join("project"));
        let refused = |name: &str| resolve(&root.join(name), &home).unwrap_err();
        assert!(matches!(
            check(&root.join("link"), &home),
            Err(DirectoryError::Unresolved { .. })
        ));
        assert!(matches!(
            check(&root.join("link/../project"), &home),
            Err(DirectoryError::Unresolved { .. })
        ));
        assert!(matches!(refused("/"), DirectoryError::Root));
        assert!(matches!(refused("file"), DirectoryError::Not(_)));
        assert!(matches!(refused("missing"), DirectoryError::Io { .. }));
        for inside in ["around", "around/home", "around/home/etc", "sly", "."] {
            assert!(matches!(refused(inside), DirectoryError::Home(_)), "{inside}");
        }
        assert!(matches!(
            resolve(Path::new("project"), &home),
            Err(DirectoryError::Io { .. })
        ));
    }
}
