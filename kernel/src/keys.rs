//! Three secrets: the runtime key and the audit log's key, which outlive the daemon, and the boot token, which does not.
//!
//! The runtime key is 32 raw random bytes in `keys/runtime.key`. Nothing is encrypted or signed with it: each use
//! derives its own key from it under a context, so that one use says nothing about another. It is made once. A key
//! file of another length or mode is an error and never replaced, because a new key would silently disown everything
//! made under the old one (K2).
//!
//! The boot token is 256 random bits in `run/token`, fresh for each boot: who can read the file is this user (K14).
//!
//! The audit log has a key of its own, `keys/audit.key`, the seed of an ed25519 key.
//!
//! Deliberately absent: rotation of the runtime key.

#![allow(clippy::disallowed_methods, reason = "this module owns the key and token files")]

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::home::{self, Durability, Home, PRIVATE_FILE};

/// Bytes of every secret here.
pub(crate) const SECRET_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not a key.
    #[error("{} is not a key: it has {found} bytes, not {SECRET_BYTES}", .path.display())]
    Length {
        /// Where.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
    },
    /// Others can read it.
    #[error("{} has mode {mode:04o}: others could have read or changed it", .path.display())]
    Mode {
        /// Where.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is somebody else's, or not a file.
    #[error("{} is not a file of user {user} who runs this", .path.display())]
    NotOurs {
        /// Where.
        path: PathBuf,
        /// Who asks.
        user: u32,
    },
    /// The system gave no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
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

impl KeyError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            KeyError::Length { path, .. } => format!(
                "restore {} from a backup; if there is none, move it away: a new key is made, and what was made under the old one no longer counts",
                path.display()
            ),
            KeyError::Mode { path, .. } => {
                format!(
                    "chmod 0600 {}, if nobody else has seen it; else move it away, and a new key is made",
                    path.display()
                )
            }
            KeyError::NotOurs { path, .. } => {
                format!("look at {}, and run this as the user it belongs to", path.display())
            }
            KeyError::Random(_) => "look at the system's /dev/urandom".to_owned(),
            KeyError::Io { path, .. } => format!("see that {} can be read and its directory written", path.display()),
        }
    }
}

/// The key that other keys are derived from. Wiped from memory when dropped; never shown.
pub struct RuntimeKey(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for RuntimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RuntimeKey(..)")
    }
}

impl RuntimeKey {
    /// Reads the home's key, or makes it when there is none. Needs the lock: two that make one at once would disagree.
    ///
    /// # Errors
    ///
    /// A file of the wrong length, mode or owner, or what the system refused. Nothing is repaired.
    pub fn open(home: &Home) -> Result<RuntimeKey, KeyError> {
        read_or_make(&home.keys_dir().join("runtime.key")).map(RuntimeKey)
    }

    /// Whether the home's key can be used, if it has one. Makes none.
    ///
    /// # Errors
    ///
    /// As [`RuntimeKey::open`].
    pub fn check(home: &Home) -> Result<(), KeyError> {
        read_secret(&home.keys_dir().join("runtime.key")).map(drop)
    }

    /// A key for one purpose. `context` is a constant of this program, different for each purpose, as BLAKE3's key
    /// derivation wants it.
    #[must_use]
    pub fn derive(&self, context: &str) -> Zeroizing<[u8; SECRET_BYTES]> {
        Zeroizing::new(blake3::derive_key(context, &*self.0))
    }
}

/// The seed of the key that signs the audit log, in `keys/audit.key`. Not derived from the runtime key: each can be replaced alone (K22).
pub struct AuditSeed(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for AuditSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditSeed(..)")
    }
}

impl AuditSeed {
    /// Reads the home's seed, or makes it when there is none. Needs the lock.
    ///
    /// # Errors
    ///
    /// As for [`RuntimeKey::open`].
    pub fn open(home: &Home) -> Result<Self, KeyError> {
        read_or_make(&home.keys_dir().join("audit.key")).map(Self)
    }

    /// The seed that is to be next, in `keys/audit.key.next`: made when there is none.
    ///
    /// # Errors
    ///
    /// As for [`RuntimeKey::open`].
    pub fn make_next(home: &Home) -> Result<Self, KeyError> {
        read_or_make(&home.keys_dir().join("audit.key.next")).map(Self)
    }

    /// The seed that was to be next, if a rotation was begun and not ended.
    ///
    /// # Errors
    ///
    /// As for [`RuntimeKey::open`].
    pub fn next(home: &Home) -> Result<Option<Self>, KeyError> {
        Ok(read_secret(&home.keys_dir().join("audit.key.next"))?.map(Self))
    }

    /// The next one is the one from now on.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`].
    pub fn promote_next(home: &Home) -> Result<(), KeyError> {
        let (next, path) = (
            home.keys_dir().join("audit.key.next"),
            home.keys_dir().join("audit.key"),
        );
        let renamed = std::fs::rename(next, &path).and_then(|()| File::open(home.keys_dir())?.sync_all());
        renamed.map_err(|source| KeyError::Io {
            action: "write",
            path,
            source,
        })
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

/// The token of this boot: who presents it can read the daemon's `run/`. Wiped from memory when dropped; never shown.
pub struct BootToken(Zeroizing<[u8; SECRET_BYTES]>);

impl fmt::Debug for BootToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootToken(..)")
    }
}

impl BootToken {
    /// Makes a token and writes it, as hexadecimal digits and a newline, to `run/token`, in place of the one before.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] and [`KeyError::Io`].
    pub fn create(home: &Home) -> Result<BootToken, KeyError> {
        let token = random()?;
        let text = Zeroizing::new(hex::encode(token.as_slice()) + "\n");
        let path = home.token_file();
        // A token dies with the machine, so nothing is lost when this is.
        home::replace_file(&path, &[text.as_bytes()], PRIVATE_FILE, Durability::Cached).map_err(|source| {
            KeyError::Io {
                action: "write",
                path,
                source,
            }
        })?;
        Ok(BootToken(token))
    }

    /// Whether these bytes are the token in hexadecimal digits, with or without its newline. Takes the same time for
    /// every wrong token of the right length.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        let digits = presented.strip_suffix(b"\n").unwrap_or(presented);
        let mut expected = hex::encode(self.0.as_slice());
        let equal = digits.ct_eq(expected.as_bytes()).into();
        expected.zeroize();
        equal
    }
}

pub(crate) fn random() -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

/// The secret in a file, made when there is none.
fn read_or_make(path: &Path) -> Result<Zeroizing<[u8; SECRET_BYTES]>, KeyError> {
    if let Some(key) = read_secret(path)? {
        return Ok(key);
    }
    let key = random()?;
    home::replace_file(path, &[&*key], PRIVATE_FILE, Durability::Synced).map_err(|source| KeyError::Io {
        action: "write",
        path: path.to_path_buf(),
        source,
    })?;
    Ok(key)
}

/// The secret in a file, or nothing when there is no file.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Zeroizing<[u8; SECRET_BYTES]>>, KeyError> {
    let io = |action| {
        move |source| KeyError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    };
    // Not through a link, and without waiting for the writer of a pipe that somebody put there.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let mut file: File = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open")(error)),
    };
    // The opened file is looked at, not the name: it is the one that is read.
    let found = file.metadata().map_err(io("look at"))?;
    let user = rustix::process::geteuid().as_raw();
    if !found.is_file() || found.uid() != user {
        return Err(KeyError::NotOurs {
            path: path.to_path_buf(),
            user,
        });
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode {
            path: path.to_path_buf(),
            mode,
        });
    }
    if found.len() != SECRET_BYTES as u64 {
        return Err(KeyError::Length {
            path: path.to_path_buf(),
            found: found.len(),
        });
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    file.read_exact(&mut *secret).map_err(io("read"))?;
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        (directory, home)
    }

    /// K2: made once, 0600, 32 raw bytes, and the same ever after.
    #[test]
    fn a_key_is_made_once() {
        let (_directory, home) = home();
        let first = RuntimeKey::open(&home).unwrap();
        let path = home.keys_dir().join("runtime.key");
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.len(), found.permissions().mode() & 0o7777), (32, 0o600));
        assert_eq!(fs::read(&path).unwrap(), *first.0);
        let second = RuntimeKey::open(&home).unwrap();
        assert_eq!(*first.derive("a"), *second.derive("a"));
        assert_ne!(*first.derive("a"), *first.derive("b"));
    }

    /// K2: a kill while the key is written leaves no half key, and the next start makes one.
    #[test]
    fn a_half_written_key_is_no_key() {
        let (_directory, home) = home();
        fs::write(home.keys_dir().join(".runtime.key.tmp"), [1; 7]).unwrap();
        RuntimeKey::open(&home).unwrap();
        assert_eq!(fs::read_dir(home.keys_dir()).unwrap().count(), 1);
    }

    /// K2: a bad key length or mode is a clear error, never a silent new key.
    #[test]
    fn a_wrong_key_is_an_error_and_stays() {
        let (_directory, home) = home();
        let path = home.keys_dir().join("runtime.key");
        for length in [0, 31, 33] {
            fs::write(&path, vec![7; length]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = RuntimeKey::open(&home).unwrap_err();
            assert!(
                matches!(error, KeyError::Length { found, .. } if found == length as u64),
                "{error}"
            );
            assert!(error.to_string().contains("runtime.key"));
            assert_eq!(fs::read(&path).unwrap(), vec![7; length]);
        }
        fs::write(&path, [7; 32]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            RuntimeKey::open(&home),
            Err(KeyError::Mode { mode: 0o640, .. })
        ));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(RuntimeKey::open(&home), Err(KeyError::NotOurs { .. })));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(RuntimeKey::open(&home).is_err());
    }

    /// K14: 256 bits, 0600, fresh per boot.
    #[test]
    fn a_token_is_fresh_and_matches_only_itself() {
        let (_directory, home) = home();
        let read = || fs::read_to_string(home.token_file()).unwrap();
        let first = BootToken::create(&home).unwrap();
        let text = read();
        assert_eq!(text.len(), 65);
        assert!(first.matches(text.as_bytes()) && first.matches(text.trim_end().as_bytes()));
        for wrong in [
            "",
            "\n",
            &text[1..],
            &text.to_uppercase().replace(|c: char| c.is_ascii_digit(), "0"),
            &"0".repeat(64),
        ] {
            assert!(!first.matches(wrong.as_bytes()), "{wrong:?}");
        }
        let second = BootToken::create(&home).unwrap();
        assert!(!second.matches(text.as_bytes()) && second.matches(read().as_bytes()));
        assert_eq!(
            fs::metadata(home.token_file()).unwrap().permissions().mode() & 0o7777,
            0o600
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        let (_directory, home) = home();
        let shown = format!(
            "{:?} {:?}",
            RuntimeKey::open(&home).unwrap(),
            BootToken::create(&home).unwrap()
        );
        assert_eq!(shown, "RuntimeKey(..) BootToken(..)");
    }
}
