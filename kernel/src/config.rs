//! `etc/astrid.toml`: what an operator may decide about the daemon. A missing file means all defaults; a key that is
//! unknown, or a value out of its bounds, is an error with its place, and the daemon does not start: guessing what
//! was meant is worse than saying it.
//!
//! Every key here is read by something. Which capsules run, and what they may do, is not configuration: that is in
//! bundles and manifests.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use astrid_wire::manifest::{ByteSize, ManifestError, Time};
use serde::Deserialize;
use serde::de::Error as _;

use crate::home::{Home, HomeError};

/// Most shards: more threads than cores only compete.
const SHARDS_MAX: usize = 64;

/// Most connections of a socket; each costs descriptors and an actor.
const CONNECTIONS_MAX: usize = 10_000;

/// Most live actors: each takes about six memory maps, and room is left of the 65,530 that a process has by default.
const LIVE_ACTORS_MAX: usize = 8_000;

/// Bytes of one blob at least, so that there is something to keep, and at most: the list of the parts of such a one has 1 MiB.
const BLOB_BYTES_MIN: u64 = 1 << 10;
const BLOB_BYTES_MAX: u64 = 32 << 30;

/// Bytes of all blobs at most. A size, not an allocation: no disk of today holds more.
const BLOBS_BYTES_MAX: u64 = 1 << 50;

/// Blobs at most: each is a row in memory, and up to three files of a backup.
pub const BLOBS_MAX: usize = 100_000;

/// Uploads of a principal at most: each holds two descriptors of the daemon.
const UPLOADS_MAX: usize = 256;

/// How long an upload may be kept that is not finished, in milliseconds: a minute to 30 days.
const UPLOAD_AGE_MS_MIN: u64 = 60_000;
const UPLOAD_AGE_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Why there is no configuration. The operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or could be written by others.
    #[error(transparent)]
    File(#[from] HomeError),
    /// What is in it is wrong; says where.
    #[error("{}", place(.0))]
    Content(ManifestError),
}

impl ConfigError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::File(error) => Some(error.hint()),
            ConfigError::Content(error) => error.hint().map(str::to_owned),
        }
    }
}

/// What is wrong and where, without the hint, which is shown in its own place.
pub(crate) fn place(error: &ManifestError) -> String {
    let text = error.to_string();
    text.split_once("\nhint: ")
        .map_or(text.clone(), |(what, _)| what.to_owned())
}

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is logged, and how.
    pub log: LogConfig,
    /// Whether metrics can be fetched.
    pub metrics: MetricsConfig,
    /// How the daemon works.
    pub daemon: DaemonConfig,
    /// Where capsules come from.
    pub capsules: CapsulesConfig,
    /// What the daemon may hold.
    pub limits: LimitsConfig,
    /// The audit log.
    pub audit: AuditConfig,
    /// The content store.
    pub blobs: BlobsConfig,
}

/// `[blobs]`: how much the content store keeps (A8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlobsConfig {
    /// Bytes of one blob.
    #[serde(deserialize_with = "bytes_within::<BLOB_BYTES_MIN, BLOB_BYTES_MAX, _>")]
    pub max_size: ByteSize,
    /// Bytes of all blobs, and of uploads as they were announced.
    #[serde(deserialize_with = "bytes_within::<BLOB_BYTES_MIN, BLOBS_BYTES_MAX, _>")]
    pub max_total: ByteSize,
    /// Blobs, counted for each principal that has one, and uploads.
    #[serde(deserialize_with = "within::<1, BLOBS_MAX, _>")]
    pub max_count: usize,
    /// Uploads that one principal has open.
    #[serde(deserialize_with = "within::<1, UPLOADS_MAX, _>")]
    pub max_uploads: usize,
    /// How long an upload is kept that is not finished.
    #[serde(deserialize_with = "upload_age")]
    pub upload_age: Time,
}

impl Default for BlobsConfig {
    fn default() -> BlobsConfig {
        BlobsConfig {
            max_size: ByteSize(100_000_000),
            max_total: ByteSize(10_000_000_000),
            max_count: BLOBS_MAX,
            max_uploads: 16,
            upload_age: Time(Duration::from_secs(24 * 3600)),
        }
    }
}

/// `[audit]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// What a start does when the log is not what was written.
    pub tampered: Tampered,
}

/// What becomes of a start that finds the audit log changed (K13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tampered {
    /// It goes on in a new segment, and says so until the evidence is moved away.
    #[default]
    Degrade,
    /// It is refused.
    Refuse,
}

/// `[log]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least that is logged.
    pub level: LogLevel,
    /// What a line looks like.
    pub format: LogFormat,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What happens.
    #[default]
    Info,
    /// For who looks for a mistake.
    Debug,
    /// Everything.
    Trace,
}

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Words and `key=value`.
    #[default]
    Human,
    /// An object.
    Json,
}

/// `[metrics]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address on which `/metrics` is served; nothing is when this is absent. Of this machine only: there is no
    /// authentication.
    #[serde(deserialize_with = "loopback")]
    pub listen: Option<SocketAddr>,
}

/// `[daemon]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DaemonConfig {
    /// Threads that run guests.
    #[serde(deserialize_with = "shards")]
    pub shards: NonZeroUsize,
    /// Connections of each socket (A3).
    #[serde(deserialize_with = "within::<1, CONNECTIONS_MAX, _>")]
    pub max_connections: usize,
    /// Connections of one user on each socket, unless it is the daemon's own.
    #[serde(deserialize_with = "within::<1, CONNECTIONS_MAX, _>")]
    pub max_connections_per_uid: usize,
    /// Connections of the operator socket that are kept for the owner (A3).
    #[serde(deserialize_with = "within::<0, CONNECTIONS_MAX, _>")]
    pub operator_reserve: usize,
}

impl Default for DaemonConfig {
    fn default() -> DaemonConfig {
        DaemonConfig {
            shards: NonZeroUsize::MIN,
            max_connections: 100,
            max_connections_per_uid: 64,
            operator_reserve: 8,
        }
    }
}

/// `[capsules]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CapsulesConfig {
    /// A directory whose `*.capsule` files take the place of those in the binary, for development.
    #[serde(deserialize_with = "absolute")]
    pub directory: Option<PathBuf>,
}

/// `[limits]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Actors with a live instance; one more evicts the least recently used.
    #[serde(deserialize_with = "within::<16, LIVE_ACTORS_MAX, _>")]
    pub live_actors: usize,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig { live_actors: 4_000 }
    }
}

impl Config {
    /// Reads the home's configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; never for a missing file.
    pub fn load(home: &Home) -> Result<Config, ConfigError> {
        let path = home.config_file();
        match crate::home::read_operators_file(&path)? {
            Some(text) => Config::parse(&text, &path.display().to_string()),
            None => Ok(Config::default()),
        }
    }

    /// Reads a configuration; `origin` names it in errors.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Content`].
    pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
        let wrong = |error: toml::de::Error| ConfigError::Content(ManifestError::from_toml(text, origin, &error));
        let config: Config = toml::from_str(text).map_err(wrong)?;
        let daemon = &config.daemon;
        if daemon.operator_reserve >= daemon.max_connections {
            return Err(wrong(toml::de::Error::custom(format!(
                "daemon.operator_reserve ({}) must be less than daemon.max_connections ({}), or nobody else could connect",
                daemon.operator_reserve, daemon.max_connections
            ))));
        }
        let blobs = &config.blobs;
        if blobs.max_size > blobs.max_total {
            return Err(wrong(toml::de::Error::custom(format!(
                "blobs.max_size ({}) must not be more than blobs.max_total ({}), or there would be no room for such a blob",
                blobs.max_size, blobs.max_total
            ))));
        }
        Ok(config)
    }
}

fn within<'de, const MIN: usize, const MAX: usize, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let number = i64::deserialize(from)?;
    usize::try_from(number)
        .ok()
        .filter(|number| (MIN..=MAX).contains(number))
        .ok_or_else(|| D::Error::custom(format!("{number} is not within {MIN} to {MAX}")))
}

fn bytes_within<'de, const MIN: u64, const MAX: u64, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(from)?;
    if !(MIN..=MAX).contains(&size.0) {
        let (min, max) = (ByteSize(MIN), ByteSize(MAX));
        return Err(D::Error::custom(format!("{size} is not within {min} to {max}")));
    }
    Ok(size)
}

fn upload_age<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
    let [min, max] = [UPLOAD_AGE_MS_MIN, UPLOAD_AGE_MS_MAX].map(|ms| Time(Duration::from_millis(ms)));
    let age = Time::deserialize(from)?;
    if !(min..=max).contains(&age) {
        return Err(D::Error::custom(format!("{age} is not within {min} to {max}")));
    }
    Ok(age)
}

fn shards<'de, D: serde::Deserializer<'de>>(from: D) -> Result<NonZeroUsize, D::Error> {
    within::<1, SHARDS_MAX, D>(from).map(|number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
}

fn loopback<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(from)?;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| D::Error::custom(format!("`{text}` is not an address and port, as in \"127.0.0.1:9464\"")))?;
    if !address.ip().is_loopback() {
        return Err(D::Error::custom(format!(
            "{address} is not of this machine only; metrics are served without authentication"
        )));
    }
    Ok(Some(address))
}

fn absolute<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(from)?;
    if !path.is_absolute() {
        return Err(D::Error::custom(format!(
            "`{}` is not an absolute path; a daemon has no working directory",
            path.display()
        )));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn nothing_said_is_all_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(directory.path())).unwrap();
        assert_eq!(Config::load(&home).unwrap(), Config::default());
        assert_eq!(Config::parse("[log]\n[daemon]\n", "c").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [log]
            level = "debug"
            format = "json"
            [metrics]
            listen = "[::1]:9464"
            [daemon]
            shards = 2
            max_connections = 10
            max_connections_per_uid = 5
            operator_reserve = 2
            [capsules]
            directory = "/somewhere"
            [limits]
            live_actors = 100
            [blobs]
            max_size = "32MiB"
            max_total = "1GiB"
            max_count = 7
            max_uploads = 3
            upload_age = "90m"
        "#;
        let config = Config::parse(text, "c").unwrap();
        assert_eq!(
            config.log,
            LogConfig {
                level: LogLevel::Debug,
                format: LogFormat::Json
            }
        );
        assert_eq!(config.metrics.listen, Some("[::1]:9464".parse().unwrap()));
        let daemon = DaemonConfig {
            shards: NonZeroUsize::new(2).unwrap(),
            max_connections: 10,
            max_connections_per_uid: 5,
            operator_reserve: 2,
        };
        assert_eq!(config.daemon, daemon);
        assert_eq!(config.capsules.directory, Some("/somewhere".into()));
        assert_eq!(config.limits.live_actors, 100);
        let blobs = BlobsConfig {
            max_size: ByteSize(32 << 20),
            max_total: ByteSize(1 << 30),
            max_count: 7,
            max_uploads: 3,
            upload_age: Time(Duration::from_secs(5400)),
        };
        assert_eq!(config.blobs, blobs);
    }

    /// What stands behind a `#` in the file that documents it are the defaults, and every key of `[blobs]` is there.
    #[test]
    fn what_is_documented_are_the_defaults() {
        let text = include_str!("../../etc/astrid.toml");
        let (_, blobs) = text.split_once("[blobs]").unwrap();
        let said = blobs.lines().filter_map(|line| line.strip_prefix('#'));
        let keys: Vec<&str> = said
            .filter(|line| line.contains(" = ") && !line.starts_with(' '))
            .collect();
        assert_eq!(keys.len(), 5, "{keys:?}");
        let config = Config::parse(&format!("[blobs]\n{}\n", keys.join("\n")), "c").unwrap();
        assert_eq!(config.blobs, BlobsConfig::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("[lug]\n", "c:1:2: unknown key `lug`"),
            ("[log]\nlevl = \"info\"\n", "c:2:1: unknown key `levl`"),
            ("[log]\nlevel = \"loud\"\n", "c:2:9: unknown value `loud`"),
            ("[daemon]\n\nshards = 0\n", "c:3:10: 0 is not within 1 to 64"),
            ("[daemon]\nshards = -1\n", "c:2:10: -1 is not within 1 to 64"),
            (
                "[metrics]\nlisten = \"0.0.0.0:9\"\n",
                "c:2:10: 0.0.0.0:9 is not of this machine only",
            ),
            (
                "[metrics]\nlisten = \"localhost\"\n",
                "c:2:10: `localhost` is not an address and port",
            ),
            (
                "[capsules]\ndirectory = \"here\"\n",
                "c:2:13: `here` is not an absolute path",
            ),
            (
                "[daemon]\nmax_connections = 8\n",
                "c: daemon.operator_reserve (8) must be less than",
            ),
            ("[blobs]\nmax_sise = \"1MiB\"\n", "c:2:1: unknown key `max_sise`"),
            (
                "[blobs]\nmax_size = \"33GiB\"\n",
                "c:2:12: 33GiB is not within 1KiB to 32GiB",
            ),
            ("[blobs]\nmax_size = 100\n", "c:2:12: "),
            ("[blobs]\nmax_total = \"1GB\"\n", "c:2:13: `1GB` has no known unit"),
            (
                "[blobs]\nmax_count = 100001\n",
                "c:2:13: 100001 is not within 1 to 100000",
            ),
            ("[blobs]\nmax_uploads = 0\n", "c:2:15: 0 is not within 1 to 256"),
            ("[blobs]\nupload_age = \"1s\"\n", "c:2:14: 1s is not within 1m to 720h"),
            (
                "[blobs]\nmax_total = \"1MiB\"\n",
                "c: blobs.max_size (100000000B) must not be more than blobs.max_total (1MiB)",
            ),
            ("[log\n", "c:1:5: "),
        ] {
            let error = Config::parse(text, "c").unwrap_err();
            assert!(error.to_string().starts_with(expected), "{text:?}: {error}");
        }
        let error = Config::parse("[log]\nlevl = \"info\"\n", "c").unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean `level`?"));
        assert!(!error.to_string().contains('\n'));
    }
}
