//! Edits by hand under a running daemon: the system tells of each (inotify), so nothing is looked at again and again (K19).
//!
//! Watched are the two directories, not the files: most editors replace a file, and the watch of the old one would tell of nothing.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use astrid_wire::Principal;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::files::owner_of;
use super::handle::Authority;

/// Bytes of events that are taken at once: some hundred.
const EVENTS_BYTES: usize = 16 << 10;

/// Profiles that are read one by one after one reading of events; for more than that all are read.
const ONE_BY_ONE_MAX: usize = 64;

/// What is to be read again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    groups: bool,
    profiles: Vec<Principal>,
    everything: bool,
}

/// Watches `etc/` and `etc/profiles/`.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<OwnedFd>,
    etc: i32,
    profiles: i32,
}

impl Authority {
    /// Watches the files from now on. [`Authority::follow`] takes what changes. `None` where there are no files. To be called where a
    /// runtime is.
    ///
    /// # Errors
    /// The system's: edits by hand are then taken by the next daemon only.
    pub fn watch(&self) -> io::Result<Option<Watch>> {
        let Some(home) = self.home() else { return Ok(None) };
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let groups = home.groups_file();
        let etc = groups.parent().unwrap_or(home.root());
        let etc = inotify::add_watch(&descriptor, etc, flags | WatchFlags::ONLYDIR)?;
        let profiles = inotify::add_watch(&descriptor, home.profiles_dir(), flags | WatchFlags::ONLYDIR)?;
        let events = readable(descriptor)?;
        Ok(Some(Watch { events, etc, profiles }))
    }

    /// Takes what people change, for as long as the daemon lives.
    pub async fn follow(self: Arc<Self>, watch: Watch) {
        loop {
            let changed = match watch.next().await {
                Ok(changed) => changed,
                Err(error) => {
                    tracing::error!(%error, "etc/ is not watched any more: edits by hand wait for the next daemon");
                    return;
                }
            };
            let authority = Arc::clone(&self);
            // Files are read, and a writer may be waiting for the disk.
            let read = tokio::task::spawn_blocking(move || authority.take(changed));
            if let Err(error) = read.await {
                tracing::error!(%error, "what changed in etc/ was not read");
            }
        }
    }

    fn take(&self, changed: Changed) {
        if changed.everything || changed.profiles.len() > ONE_BY_ONE_MAX {
            return self.reload();
        }
        if changed.groups {
            self.reload_groups();
            if !self.problems().is_empty() {
                // A profile may have been wrong only because its group was not there.
                self.reload_profiles_with_problems();
            }
        }
        for principal in &changed.profiles {
            self.reload_profile(principal);
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is unsafe, because of descriptors that close while they are registered; this one owns its own"
)]
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

impl Watch {
    /// What changed, once something did.
    async fn next(&self) -> io::Result<Changed> {
        loop {
            let mut ready = self.events.readable().await?;
            let mut changed = Changed::default();
            let read = ready.try_io(|descriptor| self.read(descriptor.get_ref(), &mut changed));
            if let Ok(result) = read {
                result?;
            }
            if changed != Changed::default() {
                return Ok(changed);
            }
        }
    }

    fn read(&self, descriptor: &OwnedFd, changed: &mut Changed) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(descriptor, &mut buffer);
        let mut any = false;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                // What came before this is told first; then it is waited for more.
                Err(rustix::io::Errno::AGAIN) if any => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            any = true;
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                changed.everything = true;
            }
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            match name.as_deref() {
                Some("groups.toml") if event.wd() == self.etc => changed.groups = true,
                Some(name) if event.wd() == self.profiles => match owner_of(name) {
                    Some(Ok(principal)) if !changed.profiles.contains(&principal) => changed.profiles.push(principal),
                    _ => {}
                },
                _ => {}
            }
            if reader.is_buffer_empty() && changed.profiles.len() > ONE_BY_ONE_MAX {
                return Ok(());
            }
        }
    }
}
