//! The home tree: where a daemon keeps what outlives it, and what its neighbours find it by (K2).
//!
//! ```text
//! $ASTRID_HOME  (default ~/.astrid)
//! ├── etc/       astrid.toml, groups.toml, profiles/{principal}.toml, documents of capsules
//! ├── var/       what the daemon must not lose: store/ and audit/ (0700), keeper, overlays/{principal} (0700); and tmp/{principal} (0700), which
//! │              is emptied when a daemon starts
//! ├── run/       0700: astrid.lock, operator.sock, session.sock, token, pid, ready, status.json
//! ├── keys/      0700: runtime.key, audit.key (0600, 32 raw bytes)
//! ├── capsules/  *.capsule that the operator added
//! ├── cache/     0700: compiled code; can be deleted at any time
//! ├── log/       astrid.log and what was rotated
//! └── home/      one directory a principal; the only part that a capsule can ever reach
//! ```
//!
//! Directories that are missing are made. A directory that somebody else could write, or look into where secrets are,
//! is an error and not repaired: what was in there may be known or changed already, and the operator has to know.
//!
//! Deliberately absent: what is in the files. Each has its own module; this one only says where.

#![allow(clippy::disallowed_methods, reason = "this module owns the home tree")]

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use astrid_wire::Principal;

mod document;
mod files;

pub use document::DocumentFault;
pub(crate) use files::{
    Durability, OPERATORS_FILE_BYTES_MAX, PRIVATE_FILE, read_operators_file, remove_file, replace_file, write_run_file,
};

/// Bytes of a socket's path that the kernel's `sockaddr_un` holds, without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The longest name of a socket in `run/`, with that directory.
const LONGEST_SOCKET: &str = "run/operator.sock";

/// Mode of directories that nobody else may look into.
const PRIVATE: u32 = 0o700;

/// Names a home by the environment.
pub const HOME_VARIABLE: &str = "ASTRID_HOME";

/// Where the store is.
const STORE: &str = "var/store";

/// Directories of the tree, and whether nobody else may even look into them.
const DIRECTORIES: [(&str, bool); 11] = [
    ("etc", false),
    ("etc/profiles", false),
    ("var", false),
    (STORE, true),
    ("var/audit", true),
    ("run", true),
    ("keys", true),
    ("capsules", false),
    ("cache", true),
    ("log", false),
    ("home", false),
];

/// Why a home cannot be used. All of it is the operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Neither an argument nor the environment says where it is.
    #[error("there is no home: neither {HOME_VARIABLE} nor HOME is set")]
    Nowhere,
    /// The path of a socket in it would not fit.
    #[error("the home {} is too long: its sockets would have paths of {length} bytes, {SOCKET_PATH_BYTES_MAX} fit", .home.display())]
    TooLong {
        /// The home.
        home: PathBuf,
        /// Bytes of the longest socket path.
        length: usize,
    },
    /// Something that is not a directory is where one belongs.
    #[error("{} is not a directory", .path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// The directory is somebody else's.
    #[error("{} belongs to user {owner}, not to user {user} who runs this", .path.display())]
    Owner {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// The mode lets others do what they may not.
    #[error("{} has mode {mode:04o}: {}", .path.display(), if *.private { "others could look into it" } else { "others could write to it" })]
    Mode {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Whether nobody else may even read.
        private: bool,
    },
    /// A file that people write is far larger than people write.
    #[error("{} is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl HomeError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            HomeError::Nowhere => format!("set {HOME_VARIABLE}, or give --home DIRECTORY"),
            HomeError::TooLong { .. } => format!("choose a shorter path with {HOME_VARIABLE} or --home"),
            HomeError::NotADirectory { path } if path.ends_with(STORE) => {
                format!(
                    "put the directory itself at {}; to keep it on another disk, move the whole home",
                    path.display()
                )
            }
            HomeError::NotADirectory { path } => format!("move {} away; it is made anew", path.display()),
            HomeError::Owner { .. } => format!("run this as that user, or choose another home with {HOME_VARIABLE}"),
            HomeError::Mode {
                path, private: true, ..
            } => {
                format!(
                    "chmod 0700 {}; what is in it may be known to others already",
                    path.display()
                )
            }
            HomeError::TooLarge { path, .. } => format!("is {} what it should be?", path.display()),
            HomeError::Mode { path, .. } => {
                format!(
                    "chmod go-w {}; what is in it may have been changed by others already",
                    path.display()
                )
            }
            HomeError::Io { path, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "make room on the disk".to_owned(),
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                    format!(
                        "make {} writable, or choose another home with {HOME_VARIABLE}",
                        path.display()
                    )
                }
                _ => format!("look at {}", path.display()),
            },
        }
    }
}

/// One of the two sockets. Privilege follows from which one accepted a connection (A2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Socket {
    /// For who runs the daemon.
    Operator,
    /// For who works with it.
    Session,
}

impl Socket {
    /// Its word in manifests, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Socket::Operator => "operator",
            Socket::Session => "session",
        }
    }
}

/// The home of one daemon: an absolute path whose sockets can be bound. Cheap to clone beside what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// Finds the home: the argument, else `$ASTRID_HOME`, else `~/.astrid`. Nothing is made or looked at, so that a
    /// client finds a daemon's sockets the same way.
    ///
    /// # Errors
    ///
    /// [`HomeError::Nowhere`], [`HomeError::TooLong`], or [`HomeError::Io`] when a relative path is given and the
    /// working directory is gone.
    pub fn resolve(argument: Option<&Path>) -> Result<Home, HomeError> {
        Home::resolve_from(argument, std::env::var_os(HOME_VARIABLE), std::env::var_os("HOME"))
    }

    fn resolve_from(argument: Option<&Path>, own: Option<OsString>, user: Option<OsString>) -> Result<Home, HomeError> {
        let said = |name: Option<OsString>| name.filter(|name| !name.is_empty()).map(PathBuf::from);
        let path = argument
            .map(Path::to_path_buf)
            .or_else(|| said(own))
            .or_else(|| said(user).map(|home| home.join(".astrid")))
            .ok_or(HomeError::Nowhere)?;
        let root = std::path::absolute(&path).map_err(|source| HomeError::Io {
            action: "resolve",
            path,
            source,
        })?;
        let length = root.join(LONGEST_SOCKET).as_os_str().as_bytes().len();
        if length > SOCKET_PATH_BYTES_MAX {
            return Err(HomeError::TooLong { home: root, length });
        }
        Ok(Home { root })
    }

    /// Makes what is missing of the tree and checks what is there.
    ///
    /// # Errors
    ///
    /// The first place that is wrong; everything but [`HomeError::Nowhere`] and [`HomeError::TooLong`].
    pub fn create(&self) -> Result<(), HomeError> {
        make(&self.root, true)?;
        check(&self.root, false)?;
        for (name, private) in DIRECTORIES {
            let path = self.root.join(name);
            // The store makes its own: that it is missing says something.
            if name == STORE && path.symlink_metadata().is_err() {
                continue;
            }
            make(&path, false)?;
            check(&path, private)?;
        }
        Ok(())
    }

    /// What is there of the tree and wrong. Makes nothing, and does not mind what is missing: for who looks without
    /// starting.
    #[must_use]
    pub fn inspect(&self) -> Vec<HomeError> {
        let tree = DIRECTORIES
            .iter()
            .map(|(name, private)| (self.root.join(name), *private));
        let found = std::iter::once((self.root.clone(), false)).chain(tree);
        let missing = |error: &HomeError| matches!(error, HomeError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
        found
            .filter_map(|(path, private)| check(&path, private).err())
            .filter(|error| !missing(error))
            .collect()
    }

    /// The home itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `etc/astrid.toml`: the configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.root.join("etc/astrid.toml")
    }

    /// `etc/groups.toml`: the operator's groups.
    #[must_use]
    pub fn groups_file(&self) -> PathBuf {
        self.root.join("etc/groups.toml")
    }

    /// `etc/profiles/`: a file for each principal.
    #[must_use]
    pub fn profiles_dir(&self) -> PathBuf {
        self.root.join("etc/profiles")
    }

    /// `run/`: what exists while a daemon does.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// `run/astrid.lock`: held by the daemon, and names it.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("run/astrid.lock")
    }

    /// `var/keeper.lock`: held for as long as somebody lives who may hold children of this home.
    #[must_use]
    pub fn keeper_lock_file(&self) -> PathBuf {
        self.root.join("var/keeper.lock")
    }

    /// `var/keeper`: the process ids of the keeper and its guard, until they have ended in order. Not in `run/`, which somebody may clear
    /// while an adopted child lives.
    #[must_use]
    pub fn keeper_file(&self) -> PathBuf {
        self.root.join("var/keeper")
    }

    /// `var/store/`: the state of capsules, and messages that wait.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.root.join(STORE)
    }

    /// `var/blobs/`: the content store.
    #[must_use]
    pub fn blobs_dir(&self) -> PathBuf {
        self.root.join("var/blobs")
    }

    /// `var/audit/`: what happened, and the proof.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.root.join("var/audit")
    }

    /// `run/keeper.sock`: where a daemon finds the keeper that an earlier one left.
    #[must_use]
    pub fn keeper_socket(&self) -> PathBuf {
        self.root.join("run/keeper.sock")
    }

    /// `run/operator.sock` or `run/session.sock`.
    #[must_use]
    pub fn socket(&self, socket: Socket) -> PathBuf {
        self.root.join(match socket {
            Socket::Operator => "run/operator.sock",
            Socket::Session => "run/session.sock",
        })
    }

    /// `run/token`: what a client of this user proves itself with.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.root.join("run/token")
    }

    /// `run/pid`: the daemon's process id, once it is ready.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root.join("run/pid")
    }

    /// `run/ready`: exists once boot is complete.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.root.join("run/ready")
    }

    /// `run/status.json`: how the daemon is, for who cannot reach its sockets.
    #[must_use]
    pub fn status_file(&self) -> PathBuf {
        self.root.join("run/status.json")
    }

    /// `keys/`.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// `capsules/`: capsules that the operator added.
    #[must_use]
    pub fn capsules_dir(&self) -> PathBuf {
        self.root.join("capsules")
    }

    /// `cache/`: what can be made again.
    #[must_use]
    pub fn cache_dir(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// `log/`.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// `log/children/`: what programs outside of the daemon write, a directory for each principal.
    #[must_use]
    pub fn child_log_dir(&self) -> PathBuf {
        self.root.join("log/children")
    }

    /// `home/{principal}`: what a principal's capsules and programs keep for it. May not be there.
    #[must_use]
    pub fn principal_dir(&self, principal: &Principal) -> PathBuf {
        self.root.join("home").join(principal.as_str())
    }

    /// `var/tmp/{principal}`: the same until the daemon starts again. May not be there.
    #[must_use]
    pub fn tmp_dir(&self, principal: &Principal) -> PathBuf {
        self.root.join("var/tmp").join(principal.as_str())
    }

    /// `var/overlays`: what principals changed of directories that are attached for them.
    #[must_use]
    pub fn overlays_dir(&self) -> PathBuf {
        self.root.join("var/overlays")
    }

    /// Makes the directory of a principal, and the one that is in, if they are missing. Nobody else looks into it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn make_principal_dir(&self, path: &Path) -> io::Result<PathBuf> {
        DirBuilder::new().mode(PRIVATE).recursive(true).create(path)?;
        Ok(path.to_owned())
    }

    /// Where the directories are that are temporary: `var/tmp/`.
    #[must_use]
    pub fn tmp_root(&self) -> PathBuf {
        self.root.join("var/tmp")
    }

    /// The names in it.
    #[must_use]
    pub fn tmp_names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(self.tmp_root()).into_iter().flatten();
        entries.flatten().map(|entry| entry.file_name()).collect()
    }

    /// What a principal has of directories, each as where it is and its name there: `home/{principal}`, `var/tmp/{principal}`, its overlay, the
    /// output of its programs and its documents. Not each has to be there.
    #[must_use]
    pub fn directories_of(&self, principal: &Principal) -> Vec<(PathBuf, OsString)> {
        let name = OsStr::new(principal.as_str());
        let parents = [
            self.root.join("home"),
            self.tmp_root(),
            self.overlays_dir(),
            self.child_log_dir(),
            self.documents_dir(),
        ];
        // A name of dots alone is no directory of anybody's.
        let is_directory = |parent: &PathBuf| {
            let path = parent.join(name);
            path.file_name() == Some(name) && path.parent() == Some(&**parent)
        };
        let mine = parents.into_iter().filter(is_directory);
        mine.map(|parent| (parent, name.to_owned())).collect()
    }

    /// What no child may reach: all of it. A capsule that a child put into `capsules/` would run with the next daemon, what it
    /// wrote into `log/` would be taken for somebody else's.
    #[must_use]
    pub fn private_dirs(&self) -> Vec<PathBuf> {
        vec![self.root.clone()]
    }

    /// `log/astrid.log`: the daemon's log; rotated ones have `.1` and up behind that.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.root.join("log/astrid.log")
    }
}

/// Makes a directory that is not there. All are made 0700: wider is the operator's decision.
fn make(path: &Path, parents: bool) -> Result<(), HomeError> {
    match DirBuilder::new().mode(PRIVATE).recursive(parents).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| HomeError::Io {
            action: "create",
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// That a directory is one, is ours, and is not open to others.
fn check(path: &Path, private: bool) -> Result<(), HomeError> {
    let io = |source| HomeError::Io {
        action: "look at",
        path: path.to_path_buf(),
        source,
    };
    // Where secrets are, a link could lead to a place that others control; elsewhere an operator may well want one.
    let found = if private {
        fs::symlink_metadata(path)
    } else {
        fs::metadata(path)
    }
    .map_err(io)?;
    if !found.is_dir() {
        return Err(HomeError::NotADirectory {
            path: path.to_path_buf(),
        });
    }
    check_owner(path, &found, if private { 0o077 } else { 0o022 }, private)
}

/// That something is this user's, and has none of these permission bits.
fn check_owner(path: &Path, found: &fs::Metadata, forbidden: u32, private: bool) -> Result<(), HomeError> {
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Err(HomeError::Owner {
            path: path.to_path_buf(),
            owner: found.uid(),
            user,
        });
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(HomeError::Mode {
            path: path.to_path_buf(),
            mode,
            private,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::symlink;

    use super::*;

    fn home_in(directory: &tempfile::TempDir) -> Home {
        Home::resolve(Some(&directory.path().join("h"))).unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_argument_wins_over_the_variable_and_that_over_the_users_home() {
        let resolve = |argument: Option<&str>, own: &str, user: &str| {
            let some = |text: &str| Some(OsString::from(text));
            Home::resolve_from(argument.map(Path::new), some(own), some(user)).map(|home| home.root)
        };
        assert_eq!(resolve(Some("/a"), "/b", "/c").unwrap(), Path::new("/a"));
        assert_eq!(resolve(None, "/b", "/c").unwrap(), Path::new("/b"));
        assert_eq!(resolve(None, "", "/c").unwrap(), Path::new("/c/.astrid"));
        assert!(matches!(resolve(None, "", ""), Err(HomeError::Nowhere)));
        assert!(resolve(Some("relative"), "", "").unwrap().is_absolute());
    }

    #[test]
    fn a_home_whose_sockets_would_not_fit_is_refused_before_anything_is_made() {
        let fits = "/".to_owned() + &"x".repeat(SOCKET_PATH_BYTES_MAX - 2 - LONGEST_SOCKET.len());
        let home = Home::resolve(Some(Path::new(&fits))).unwrap();
        assert_eq!(home.socket(Socket::Operator).as_os_str().len(), SOCKET_PATH_BYTES_MAX);
        let error = Home::resolve(Some(Path::new(&(fits + "x")))).unwrap_err();
        assert!(matches!(error, HomeError::TooLong { length: 108, .. }), "{error}");
    }

    /// K2: the tree, with its modes, from nothing; and again over itself.
    #[test]
    fn the_tree_is_made_with_its_modes() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_in(&directory);
        home.create().unwrap();
        home.create().unwrap();
        for (name, _) in DIRECTORIES {
            if name == STORE {
                assert!(!home.store_dir().exists(), "the store makes its own");
                continue;
            }
            let mode = fs::metadata(home.root().join(name)).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{name}");
        }
    }

    /// K2: wrong modes are said and left alone.
    #[test]
    fn places_open_to_others_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_in(&directory);
        home.create().unwrap();
        fs::create_dir(home.store_dir()).unwrap();
        chmod(&home.store_dir(), PRIVATE);
        for (name, private) in DIRECTORIES {
            let path = home.root().join(name);
            for (mode, wrong) in [
                (0o770, true),
                (0o702, true),
                (0o750, private),
                (0o755, private),
                (0o700, false),
            ] {
                chmod(&path, mode);
                match home.create() {
                    Ok(()) => assert!(!wrong, "{name} {mode:o}"),
                    Err(HomeError::Mode {
                        path: at, mode: found, ..
                    }) => {
                        assert!(wrong, "{name} {mode:o}");
                        assert_eq!((at, found), (path.clone(), mode));
                    }
                    Err(other) => panic!("{other}"),
                }
                assert_eq!(
                    fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
                    mode,
                    "it was repaired"
                );
            }
        }
    }

    #[test]
    fn a_link_is_not_followed_to_secrets_but_to_logs() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_in(&directory);
        home.create().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        chmod(&elsewhere, 0o700);
        for (name, follows) in [("log", true), ("keys", false)] {
            let path = home.root().join(name);
            fs::remove_dir(&path).unwrap();
            symlink(&elsewhere, &path).unwrap();
            assert_eq!(home.create().is_ok(), follows, "{name}");
        }
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let home = home_in(&directory);
        fs::write(home.root(), "").unwrap();
        let error = home.create().unwrap_err();
        assert!(
            error.to_string().contains(&home.root().display().to_string()),
            "{error}"
        );
    }
}
