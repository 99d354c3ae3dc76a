//! What a child is kept from, as it was asked for: checked, and made complete for the keeper.

use std::fmt;
use std::path::{Path, PathBuf};

use astrid_wire::authority::{SANDBOX_HOME, SANDBOX_NONE, SANDBOX_WRITE};
use astrid_wire::manifest::Floor;

use super::launch::LaunchError;
use crate::keeper::protocol::{Confined, Network, PATHS_MAX};

/// Stands for a `/tmp` of its own.
pub const TMP: &str = "tmp://";

/// Stands for the workspace that a child has.
pub const WORKSPACE: &str = "workspace://";

/// Bytes of all paths of a child together: they travel in one packet with its arguments.
const PATH_BYTES_MAX: usize = 16 << 10;

/// What a child is kept from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// Nothing.
    None,
    /// The daemon's home.
    Home,
    /// All that it is not given.
    Confined(Confined),
}

/// What is asked for, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Whom it speaks to.
    pub network: Network,
    /// What it reads.
    pub read: Option<Vec<String>>,
    /// What it writes.
    pub write: Option<Vec<String>>,
    /// Whether it is started although something cannot be had.
    pub best_effort: bool,
}

impl Asked {
    /// With what the names stand for: the workspace's place, if it has one, and the directory of its principal for `/tmp`.
    ///
    /// # Errors
    /// [`LaunchError::Invalid`] names the path.
    pub fn resolve(self, workspace: Option<&Path>, tmp: &Path) -> Result<Sandbox, LaunchError> {
        let lists = [("read", &self.read), ("write", &self.write)];
        let bytes: usize = lists
            .iter()
            .flat_map(|(_, list)| list.iter().flatten())
            .map(String::len)
            .sum();
        let count = lists.iter().map(|(_, list)| list.iter().flatten().count()).max();
        if bytes > PATH_BYTES_MAX || count > Some(PATHS_MAX) {
            return Err(LaunchError::Invalid(format!(
                "sandbox: at most {PATHS_MAX} paths to read and to write, and {PATH_BYTES_MAX} bytes of all"
            )));
        }
        let mut own_tmp = None;
        let mut paths = |name: &str, list: Option<Vec<String>>| {
            let Some(list) = list else { return Ok(None) };
            let mut paths = Vec::new();
            for text in list {
                match (text.as_str(), workspace) {
                    (TMP, _) if name == "write" => own_tmp = Some(tmp.to_owned()),
                    (WORKSPACE, Some(workspace)) => paths.push(workspace.to_owned()),
                    (WORKSPACE, None) => {
                        return Err(LaunchError::Invalid(format!(
                            "sandbox.{name}: {WORKSPACE} is for a child with a workspace"
                        )));
                    }
                    (path, _) if path.starts_with('/') && !path.contains('\0') => paths.push(PathBuf::from(path)),
                    (other, _) => {
                        return Err(LaunchError::Invalid(format!(
                            "sandbox.{name}: `{}` is not an absolute path",
                            other.escape_debug()
                        )));
                    }
                }
            }
            Ok(Some(paths))
        };
        Ok(Sandbox::Confined(Confined {
            network: self.network,
            read: paths("read", self.read)?,
            write: paths("write", self.write)?,
            tmp: own_tmp,
            best_effort: self.best_effort,
        }))
    }
}

impl Sandbox {
    /// Whether it has a `/tmp` of its own, which is its principal's.
    #[must_use]
    pub fn has_tmp(&self) -> bool {
        matches!(self, Self::Confined(confined) if confined.tmp.is_some())
    }

    /// What of it is granted to a principal, if it is looser than one in which a program writes the workspace and a `/tmp` of its own.
    #[must_use]
    pub fn loose(&self, workspace: Option<&Path>) -> Option<&'static str> {
        let confined = match self {
            Self::None => return Some(SANDBOX_NONE),
            Self::Home => return Some(SANDBOX_HOME),
            Self::Confined(confined) => confined,
        };
        match &confined.write {
            _ if confined.best_effort => Some(SANDBOX_HOME),
            None => Some(SANDBOX_HOME),
            Some(paths) if paths.iter().all(|path| Some(&**path) == workspace) => None,
            Some(_) => Some(SANDBOX_WRITE),
        }
    }

    /// What of a manifest's words it is as strict as.
    #[must_use]
    pub fn strictness(&self) -> Floor {
        match self {
            Self::None => Floor::None,
            Self::Home => Floor::Home,
            // What may be left out is not promised.
            Self::Confined(confined) if confined.best_effort || confined.write.is_none() => Floor::Home,
            Self::Confined(confined) if confined.network == Network::None => Floor::Sealed,
            Self::Confined(_) => Floor::Project,
        }
    }
}

/// As the audit log has it.
impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confined = match self {
            Self::None => return f.write_str("none"),
            Self::Home => return f.write_str("home"),
            Self::Confined(confined) => confined,
        };
        let network = match confined.network {
            Network::None => "none",
            Network::Local => "local",
            Network::Loopback => "loopback",
            Network::Full => "full",
        };
        write!(f, "confined network={network}")?;
        for (name, paths) in [("read", &confined.read), ("write", &confined.write)] {
            let Some(paths) = paths else { continue };
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            write!(f, " {name}={}", paths.join(":"))?;
        }
        if confined.tmp.is_some() {
            f.write_str(" own-tmp")?;
        }
        if confined.best_effort {
            f.write_str(" best-effort")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn asked(network: Network, read: Option<&[&str]>, write: Option<&[&str]>) -> Asked {
        let list = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
        Asked {
            network,
            read: read.map(list),
            write: write.map(list),
            best_effort: false,
        }
    }

    fn resolve(asked: Asked, workspace: Option<&str>) -> Result<Sandbox, LaunchError> {
        asked.resolve(workspace.map(Path::new), Path::new("/h/var/tmp/me"))
    }

    /// A18: names stand for places, and what is no path is refused by its place.
    #[test]
    fn names_stand_for_places() {
        let all = asked(Network::None, Some(&["/a"]), Some(&["tmp://", "workspace://", "/b"]));
        let shown = resolve(all.clone(), Some("/srv/w")).unwrap();
        assert_eq!(
            shown.to_string(),
            "confined network=none read=/a write=/srv/w:/b own-tmp"
        );
        let wrong = |asked, part: &str| {
            let error = resolve(asked, None).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        wrong(all, "sandbox.write: workspace://");
        wrong(asked(Network::Full, Some(&["tmp://"]), None), "sandbox.read: `tmp://`");
        wrong(asked(Network::Full, None, Some(&["../x"])), "sandbox.write: `../x`");
        wrong(asked(Network::Full, None, Some(&["/x\0"])), "sandbox.write");
        wrong(asked(Network::Full, None, Some(&["/x"; PATHS_MAX + 1])), "at most 256");
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        wrong(asked(Network::Full, Some(&[&long]), None), "bytes");
    }

    /// A18: a sandbox is as strict as what it is sure to keep.
    #[test]
    fn strictness_is_what_is_sure() {
        let of = |network, write: Option<&[&str]>, best_effort| {
            let mut asked = asked(network, None, write);
            asked.best_effort = best_effort;
            resolve(asked, None).unwrap().strictness()
        };
        assert!(Sandbox::None.strictness() < Sandbox::Home.strictness());
        assert_eq!(of(Network::None, None, false), Floor::Home);
        assert_eq!(of(Network::None, Some(&[]), true), Floor::Home);
        assert_eq!(of(Network::Local, Some(&[]), false), Floor::Project);
        assert_eq!(of(Network::None, Some(&[]), false), Floor::Sealed);
    }

    /// A18: what a principal needs a grant for is what reaches beyond its workspace.
    #[test]
    fn looseness_is_named() {
        let of = |write: Option<&[&str]>, workspace: Option<&str>| {
            let sandbox = resolve(asked(Network::None, None, write), workspace).unwrap();
            sandbox.loose(workspace.map(Path::new))
        };
        assert_eq!(
            (Sandbox::None.loose(None), Sandbox::Home.loose(None)),
            (Some("none"), Some("home"))
        );
        assert_eq!(of(None, None), Some("home"));
        assert_eq!(of(Some(&["tmp://"]), None), None);
        assert_eq!(of(Some(&["tmp://", "workspace://"]), Some("/srv/w")), None);
        assert_eq!(of(Some(&["workspace://", "/srv"]), Some("/srv/w")), Some("write"));
        assert_eq!(of(Some(&["/srv/w"]), None), Some("write"));
        let mut leaving_out = asked(Network::None, None, Some(&[]));
        leaving_out.best_effort = true;
        assert_eq!(resolve(leaving_out, None).unwrap().loose(None), Some("home"));
    }
}
