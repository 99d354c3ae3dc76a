//! Compiled code: made once for a content, kept in a cache, mapped many times.
//!
//! Compiled code is believed like the daemon itself, so nothing is mapped without proof of who made it. There are
//! three proofs, the constructors of `Trusted`: it is part of this binary; it is a cache file with a valid
//! authenticator under a key that is derived from the runtime key, which no guest can read; or a compiler child of
//! ours has just written it into our pipe. A cache file that is truncated, damaged, renamed or from elsewhere has no
//! valid authenticator, and is made again.
//!
//! A cache entry is found by what it depends on: the component's BLAKE3, and the engine's configuration with the
//! processor's features. Another version of the engine is found out when it is mapped, and the entry is made again.
//!
//! Compiling happens in a child process ([`child`]): it takes seconds, much memory, and reads what a stranger wrote.
//! Two who want the same content wait for one compilation.
//!
//! Both `unsafe` blocks of this crate are here.
//!
//! Deliberately absent: mapping the file itself. The cache could be changed under a mapping; a copy whose
//! authenticator was checked cannot.

#![allow(clippy::disallowed_methods, reason = "this module owns the cache of compiled code")]

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::Engine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use super::bundle::Bundle;
use super::engine;
use crate::home::{self, Durability, Home, PRIVATE_FILE};
use crate::keys::RuntimeKey;

pub mod child;

pub use child::{CompileError, Compiler, compile_child};

/// What the cache's authenticators are keyed for. The number is the file format's.
const KEY_CONTEXT: &str = "astrid 1 authenticator of compiled code in the cache";

/// Bytes of an authenticator.
const MAC_BYTES: usize = 32;

/// Most bytes of compiled code; some four times what a component of the largest size compiles to.
pub(crate) const CODE_BYTES_MAX: u64 = 512 << 20;

/// Most files in the cache, and most bytes of all. What was not used for longest goes first.
const FILES_MAX: usize = 256;
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// A file's time of last use is written at most this often.
const USED_GRAIN: Duration = Duration::from_hours(24);

/// Compilations at once; each takes all cores for some of its time.
const COMPILATIONS_MAX: usize = 2;

/// Where a component's code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Compiled when this binary was built.
    Embedded,
    /// Compiled by an earlier load.
    Cache,
    /// Compiled now.
    Compiled,
}

impl Source {
    /// Its word in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Embedded => "embedded",
            Source::Cache => "cache",
            Source::Compiled => "compiled",
        }
    }
}

/// A component, ready to be instantiated.
#[derive(Clone)]
pub struct Loaded {
    /// Its code.
    pub component: Component,
    /// Where that came from.
    pub source: Source,
}

/// Identity of compiled code: what it was made from, for what engine and processor.
type Key = [u8; 32];

/// What a load comes to, for all who wait for it.
type Outcome = OnceCell<Result<Loaded, CompileError>>;

/// Makes components of bundles. One for a daemon.
pub struct Aot {
    cache: Arc<Cache>,
    compiler: Compiler,
    slots: Semaphore,
    /// Loads under way, so that those who want the same wait for one.
    under_way: Mutex<HashMap<Key, Weak<Outcome>>>,
}

impl Aot {
    /// The cache is `aot/` in the home's cache directory. Where that cannot be had, everything is compiled anew:
    /// slow, but it works.
    #[must_use]
    pub fn open(engine: Engine, home: &Home, key: &RuntimeKey, compiler: Compiler) -> Aot {
        let directory = home.cache_dir().join("aot");
        if let Err(error) = prepare(&directory) {
            tracing::warn!(path = %directory.display(), %error, "no cache for compiled code");
        }
        Aot {
            cache: Arc::new(Cache {
                engine,
                directory,
                mac_key: key.derive(KEY_CONTEXT),
            }),
            compiler,
            slots: Semaphore::new(COMPILATIONS_MAX),
            under_way: Mutex::new(HashMap::new()),
        }
    }

    /// The code of a bundle: what it came with, else what the cache has, else what a compiler child makes of it now.
    ///
    /// Dropping the future ends a compilation that nobody else waits for. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When it cannot be compiled; see [`CompileError`] for whose fault that is. An unusable cache is not an error.
    pub async fn load(&self, bundle: &Bundle) -> Result<Loaded, CompileError> {
        if let Some(component) = bundle
            .precompiled
            .and_then(|code| self.cache.map(&Trusted::embedded(code)).ok())
        {
            return Ok(Loaded {
                component,
                source: Source::Embedded,
            });
        }
        let key = self.cache.key(&bundle.hash);
        let job = {
            let mut under_way = self.under_way.lock();
            under_way.retain(|_, job| job.strong_count() > 0);
            match under_way.get(&key).and_then(Weak::upgrade) {
                Some(job) => job,
                None => {
                    let job = Arc::new(OnceCell::new());
                    under_way.insert(key, Arc::downgrade(&job));
                    job
                }
            }
        };
        job.get_or_init(|| self.find_or_compile(key, bundle)).await.clone()
    }

    async fn find_or_compile(&self, key: Key, bundle: &Bundle) -> Result<Loaded, CompileError> {
        let cache = Arc::clone(&self.cache);
        // Reading and checking some megabytes; other actors of this thread need not wait for it.
        if let Ok(Some(component)) = tokio::task::spawn_blocking(move || cache.get(&key)).await {
            return Ok(Loaded {
                component,
                source: Source::Cache,
            });
        }
        // The semaphore is never closed.
        let _slot = self.slots.acquire().await.ok();
        let code = Trusted::compiled(self.compiler.compile(&bundle.component).await?);
        let component = self
            .cache
            .map(&code)
            .map_err(|error| CompileError::Unusable(format!("{error:#}")))?;
        let cache = Arc::clone(&self.cache);
        let capsule = bundle.name().to_owned();
        // Without waiting: the component is usable, and a failed write is only a slower next start.
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = cache.put(&key, &code) {
                tracing::warn!(capsule, %error, "compiled code could not be kept");
            }
        }));
        Ok(Loaded {
            component,
            source: Source::Compiled,
        })
    }
}

/// Code whose maker is known to be this program. Only its constructors make one, and each says why.
struct Trusted<'a>(std::borrow::Cow<'a, [u8]>);

impl<'a> Trusted<'a> {
    /// Part of this binary: who could change it could change the daemon.
    fn embedded(code: &'static [u8]) -> Trusted<'a> {
        Trusted(code.into())
    }

    /// What our own compiler child wrote into our pipe.
    fn compiled(code: Vec<u8>) -> Trusted<'a> {
        Trusted(code.into())
    }

    /// A cache file's content, authenticator first, if that is valid for this key.
    fn authenticated(content: &'a [u8], cache: &Cache, key: &Key) -> Option<Trusted<'a>> {
        let (mac, code) = content.split_at_checked(MAC_BYTES)?;
        // Compares in constant time.
        (cache.mac(key, code) == *<&[u8; MAC_BYTES]>::try_from(mac).ok()?).then(|| Trusted(code.into()))
    }
}

/// Files of compiled code.
struct Cache {
    engine: Engine,
    directory: PathBuf,
    mac_key: Zeroizing<[u8; 32]>,
}

impl Cache {
    #[expect(
        unsafe_code,
        reason = "mapping compiled code cannot be checked; it is only done with proof of who compiled it"
    )]
    fn map(&self, code: &Trusted<'_>) -> wasmtime::Result<Component> {
        // SAFETY: the bytes must have been made by `Engine::precompile_component` and not be changed since. `Trusted`
        // is the proof: see its constructors. Code for another engine version, configuration or processor is refused
        // by the engine.
        unsafe { Component::deserialize(&self.engine, &*code.0) }
    }

    fn key(&self, content: &blake3::Hash) -> Key {
        /// Feeds what is hashed with the standard library's traits into a hash whose collisions nobody finds.
        struct Through(blake3::Hasher);
        impl Hasher for Through {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                0 // Not asked for; the whole hash is taken below.
            }
        }
        let mut through = Through(blake3::Hasher::new());
        through.0.update(content.as_bytes());
        // Configuration, and the features of the processor that code is generated for.
        self.engine.precompile_compatibility_hash().hash(&mut through);
        *through.0.finalize().as_bytes()
    }

    /// Authenticates the code together with what it was made from, so that no file can stand in for another.
    fn mac(&self, key: &Key, code: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.mac_key);
        mac.update(key);
        mac.update(code);
        mac.finalize()
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(hex::encode(key) + ".code")
    }

    /// The component in a valid file of that key; nothing when there is none.
    fn get(&self, key: &Key) -> Option<Component> {
        let path = self.path(key);
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .ok()?;
        let found = read_bounded(&mut file).ok().and_then(|content| {
            let code = Trusted::authenticated(&content, self, key)?;
            self.map(&code).ok()
        });
        match &found {
            Some(_) => mark_used(&file),
            // Replaced once it is compiled again.
            None => tracing::warn!(path = %path.display(), "a cached file is not valid; it is made again"),
        }
        found
    }

    fn put(&self, key: &Key, code: &Trusted<'_>) -> io::Result<()> {
        let mac = self.mac(key, &code.0);
        home::replace_file(
            &self.path(key),
            &[mac.as_bytes(), &code.0],
            PRIVATE_FILE,
            Durability::Cached,
        )?;
        prune(&self.directory, FILES_MAX, CACHE_BYTES_MAX)
    }
}

fn read_bounded(file: &mut File) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    if !found.is_file() || found.len() > CODE_BYTES_MAX + MAC_BYTES as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut content = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    file.take(found.len()).read_to_end(&mut content)?;
    Ok(content)
}

/// Notes that a file was used. That it could not be noted only makes it go earlier.
fn mark_used(file: &File) {
    let now = SystemTime::now();
    let noted = file.metadata().and_then(|found| found.modified()).ok();
    if noted.is_none_or(|noted| now.duration_since(noted).is_ok_and(|age| age > USED_GRAIN)) {
        let _ = file.set_modified(now);
    }
}

/// Makes the directory, and removes what a killed process was writing; one daemon per home, so nobody is writing now.
fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            home::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes what was not used for longest until both limits are kept.
fn prune(directory: &Path, files_max: usize, bytes_max: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.is_file() && entry.path().extension().is_some_and(|extension| extension == "code") {
            files.push((found.modified()?, found.len(), entry.path()));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    let mut count = files.len();
    for (_, length, path) in files {
        if count <= files_max && bytes <= bytes_max {
            break;
        }
        home::remove_file(&path)?;
        count -= 1;
        bytes -= length;
    }
    Ok(())
}

/// The engine that compiles what travels in the binary: for the least processor of this architecture that is
/// supported, x86-64-v2 (any since about 2009) or the architecture's base. Its code loads into [`engine::engine`] on
/// any of them.
///
/// # Errors
///
/// When the engine was built without support for this architecture.
pub fn baseline_engine() -> wasmtime::Result<Engine> {
    let mut config = engine::config();
    // Naming a target, even this machine's, keeps the features of this machine's processor out.
    config.target(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH))?;
    if cfg!(target_arch = "x86_64") {
        #[expect(
            unsafe_code,
            reason = "compiler flags are unchecked; this one names instructions, and who loads the code checks for them"
        )]
        // SAFETY: the flag must be meant for users, not change the code's assumptions. It is one of the published
        // processor levels, and the engine refuses to load the code where one of its instructions is missing.
        unsafe {
            config.cranelift_flag_enable("x86-64-v2");
        }
    }
    Engine::new(&config)
}

/// Compiles a component for what travels in the binary beside it. For the build, not for a daemon.
///
/// # Errors
///
/// When it is not a valid component, or uses what the engine refuses.
pub fn precompile(component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let failed = |error: wasmtime::Error| CompileError::Refused(format!("{error:#}"));
    baseline_engine()
        .map_err(failed)?
        .precompile_component(component)
        .map_err(failed)
}

#[cfg(test)]
mod tests;
