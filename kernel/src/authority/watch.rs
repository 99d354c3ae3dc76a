//! Edits by hand under a running daemon: the system tells of each (inotify), so nothing is looked at again and again (K19).
//!
//! Watched are directories, not files: most editors replace a file, and the watch of the old one would tell of nothing. Directories are
//! replaced as well, by whoever checks them out or copies them: so what they are in is watched for that.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use astrid_wire::Principal;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::files::owner_of;
use super::handle::{Authority, Edited};
use crate::home::Home;

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
    /// One of the directories is another one.
    moved: bool,
}

/// Watches `etc/` and `etc/profiles/`.
#[derive(Debug)]
pub struct Watch {
    events: AsyncFd<OwnedFd>,
    places: Places,
}

/// Watched directories. `None`: there is no such directory now.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    home: Option<i32>,
    etc: Option<i32>,
    profiles: Option<i32>,
}

impl Places {
    fn watch(descriptor: &OwnedFd, home: &Home) -> io::Result<Self> {
        let files = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let add =
            |path: &Path, flags: WatchFlags| match inotify::add_watch(descriptor, path, flags | WatchFlags::ONLYDIR) {
                Ok(place) => Ok(Some(place)),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(error) => Err(io::Error::from(error)),
            };
        let groups = home.groups_file();
        Ok(Self {
            home: add(home.root(), WatchFlags::CREATE | WatchFlags::MOVED_TO)?,
            etc: add(groups.parent().unwrap_or(home.root()), files | WatchFlags::CREATE)?,
            profiles: add(&home.profiles_dir(), files)?,
        })
    }
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
        let places = Places::watch(&descriptor, home)?;
        let events = readable(descriptor)?;
        Ok(Some(Watch { events, places }))
    }

    fn unwatched(&self, error: &io::Error) {
        tracing::error!(%error, "etc/ is not watched any more: edits by hand wait for the next daemon");
    }

    /// Takes what people change, for as long as the daemon lives, and has it recorded.
    pub async fn follow(self: Arc<Self>, mut watch: Watch, record: impl Fn(&Edited) + Send + 'static) {
        loop {
            let changed = match watch.next().await {
                Ok(changed) => changed,
                Err(error) => {
                    self.unwatched(&error);
                    return;
                }
            };
            // Before it is read: what changes meanwhile is told again.
            if changed.moved
                && let Err(error) = watch.again(&self)
            {
                self.unwatched(&error);
            }
            let authority = Arc::clone(&self);
            // Files are read, and a writer may be waiting for the disk.
            let read = tokio::task::spawn_blocking(move || authority.take(changed));
            match read.await {
                Ok(edited) => edited.iter().for_each(&record),
                Err(error) => tracing::error!(%error, "what changed in etc/ was not read"),
            }
        }
    }

    fn take(&self, changed: Changed) -> Vec<Edited> {
        if changed.everything || changed.moved || changed.profiles.len() > ONE_BY_ONE_MAX {
            return self.reload();
        }
        let mut edited = Vec::new();
        if changed.groups {
            edited.extend(self.reload_groups());
            if !self.problems().is_empty() {
                // A profile may have been wrong only because its group was not there.
                edited.extend(self.reload_profiles_with_problems());
            }
        }
        edited.extend(changed.profiles.iter().filter_map(|p| self.reload_profile(p)));
        edited
    }
}

/// Whether a file is as it is to be: one that was only created is not written yet.
fn is_whole(event: &inotify::Event<'_>) -> bool {
    !event.events().contains(ReadFlags::CREATE)
}

#[allow(
    deprecated,
    reason = "its successor is unsafe, because of descriptors that close while they are registered; this one owns its own"
)]
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)
}

impl Watch {
    /// Watches what is there now by the names of what was.
    fn again(&mut self, authority: &Authority) -> io::Result<()> {
        let Some(home) = authority.home() else { return Ok(()) };
        let descriptor = self.events.get_ref();
        let now = Places::watch(descriptor, home)?;
        for (old, new) in [(self.places.etc, now.etc), (self.places.profiles, now.profiles)] {
            if let Some(old) = old.filter(|old| Some(*old) != new) {
                // One that was removed is not watched any more anyway.
                let _ = inotify::remove_watch(descriptor, old);
            }
        }
        self.places = now;
        Ok(())
    }

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
            let at = Some(event.wd());
            match name.as_deref() {
                Some("etc") if at == self.places.home => changed.moved = true,
                Some("profiles") if at == self.places.etc => changed.moved = true,
                Some("groups.toml") if at == self.places.etc => changed.groups |= is_whole(&event),
                Some(name) if at == self.places.profiles => match owner_of(name) {
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
