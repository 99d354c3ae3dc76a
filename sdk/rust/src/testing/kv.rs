//! What outlives the instance: the actor's table, whether it is pinned, and the ids of what was published once; and how a test looks at
//! them and starts the daemon again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use astrid_wire::manifest::Manifest;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Harness;
use super::host::{Command, Host};
use crate::bindings::astrid::kernel::actor::ActorError;
use crate::bindings::astrid::kernel::kv::{Entry, KvError, Page};
use crate::dispatch::Capsule;

/// Limits of the contract: bytes of a key and of a value, entries and bytes of a page.
const KEY_BYTES_MAX: usize = 1_024;
const VALUE_BYTES_MAX: usize = 1 << 20;
const PAGE_ENTRIES_MAX: u32 = 1_000;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Keys and bytes that one `handle` may write, as in the kernel.
const WRITTEN_KEYS_MAX: usize = 10_000;
const WRITTEN_BYTES_MAX: usize = 8 << 20;

/// For how long, and how many for each principal, ids of what was published once are remembered.
const ONCE_FOR: Duration = Duration::from_secs(24 * 3600);
const ONCE_MAX: usize = 100_000;

/// The table of the actor. Writes are made at once, and what was there before is kept until the handler has returned.
#[derive(Debug, Default)]
pub(super) struct Table {
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the keys that this handler has written had before.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Bytes of keys and values that this handler has written.
    written: usize,
    /// Why it cannot be read now.
    unavailable: Option<String>,
}

impl Table {
    /// Keeps what was written.
    pub(super) fn commit(&mut self) {
        self.before.clear();
        self.written = 0;
    }

    /// Forgets what was written.
    pub(super) fn roll_back(&mut self) {
        for (key, value) in std::mem::take(&mut self.before) {
            match value {
                Some(value) => self.kept.insert(key, value),
                None => self.kept.remove(&key),
            };
        }
        self.written = 0;
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), KvError> {
        let bytes = value.map_or(0, <[u8]>::len);
        if bytes > VALUE_BYTES_MAX {
            return Err(KvError::TooLarge(VALUE_BYTES_MAX as u64));
        }
        if !self.before.contains_key(key) && self.before.len() >= WRITTEN_KEYS_MAX {
            return Err(KvError::TooMuch(WRITTEN_KEYS_MAX as u64));
        }
        if self.written + key.len() + bytes > WRITTEN_BYTES_MAX {
            return Err(KvError::TooMuch(WRITTEN_BYTES_MAX as u64));
        }
        self.written += key.len() + bytes;
        let before = match value {
            Some(value) => self.kept.insert(key.to_owned(), value.to_owned()),
            None => self.kept.remove(key),
        };
        self.before.entry(key.to_owned()).or_insert(before);
        Ok(())
    }

    fn page(&self, start: &[u8], end: Option<&[u8]>, limit: u32, backwards: bool) -> Page {
        if end.is_some_and(|end| end <= start) {
            return Page {
                entries: Vec::new(),
                next: None,
            };
        }
        let bounds = (Bound::Included(start), end.map_or(Bound::Unbounded, Bound::Excluded));
        let range = self.kept.range::<[u8], _>(bounds);
        let entries: &mut dyn Iterator<Item = _> = match backwards {
            false => &mut range.into_iter(),
            true => &mut range.rev(),
        };
        let (mut page, mut bytes) = (Vec::new(), 0);
        for (key, value) in entries {
            bytes += key.len() + value.len();
            let full = page.len() >= limit.min(PAGE_ENTRIES_MAX) as usize;
            if full || (bytes > PAGE_BYTES_MAX && !page.is_empty()) {
                // Forwards the next page begins with this key; backwards it ends before the one that follows this.
                let mut next = key.clone();
                next.extend(backwards.then_some(0));
                return Page {
                    entries: page,
                    next: Some(next),
                };
            }
            page.push(Entry {
                key: key.clone(),
                value: value.clone(),
            });
        }
        Page {
            entries: page,
            next: None,
        }
    }
}

/// The ids of what was published once, for each principal.
#[derive(Debug, Default)]
pub(super) struct Once(BTreeMap<String, Said>);

/// Ids, and when each was said, oldest first.
#[derive(Debug, Default)]
struct Said {
    ids: BTreeSet<String>,
    order: VecDeque<(Duration, String)>,
}

impl Said {
    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.ids.remove(&id);
        }
    }
}

impl Once {
    /// Remembers an id. False when it is remembered already.
    pub(super) fn is_first(&mut self, principal: &str, id: &str, now: Duration) -> bool {
        let said = self.0.entry(principal.to_owned()).or_default();
        let passed = |said: &Said| said.order.front().is_some_and(|(at, _)| now - *at >= ONCE_FOR);
        while passed(said) {
            said.forget_oldest();
        }
        if !said.ids.insert(id.to_owned()) {
            return false;
        }
        if said.order.len() >= ONCE_MAX {
            said.forget_oldest();
        }
        said.order.push_back((now, id.to_owned()));
        true
    }
}

fn check_key(key: &[u8]) -> Result<(), KvError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(KvError::InvalidKey(KEY_BYTES_MAX as u32));
    }
    Ok(())
}

/// The functions of the contract.
impl Host {
    fn check_kv(&self) -> Result<(), KvError> {
        if self.connection.is_some() {
            return Err(KvError::Denied("kv: an actor of a connection has no table".to_owned()));
        }
        if self.lacks(|manifest| manifest.capabilities.kv.is_some()) {
            return Err(KvError::Denied("kv: [capabilities] kv is not asked for".to_owned()));
        }
        match &self.table.unavailable {
            Some(why) => Err(KvError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Whether there is a manifest, and it does not ask for this.
    pub(super) fn lacks(&self, asked: impl FnOnce(&Manifest) -> bool) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| !asked(manifest))
    }

    fn check_no_guard(&self) -> Result<(), KvError> {
        match self.guarding {
            true => Err(KvError::Denied("a guard only reads its table".to_owned())),
            false => Ok(()),
        }
    }

    pub(super) fn kv_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.check_kv()?;
        check_key(key)?;
        Ok(self.table.kept.get(key).cloned())
    }

    pub(super) fn kv_write(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), KvError> {
        self.check_kv()?;
        self.check_no_guard()?;
        check_key(key)?;
        self.table.write(key, value)
    }

    pub(super) fn kv_swap(
        &mut self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, KvError> {
        self.check_no_guard()?;
        let same = self.kv_get(key)?.as_deref() == expected;
        if same {
            self.table.write(key, value)?;
        }
        Ok(same)
    }

    pub(super) fn kv_scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: u32,
        backwards: bool,
    ) -> Result<Page, KvError> {
        self.check_kv()?;
        Ok(self.table.page(start, end, limit, backwards))
    }

    pub(super) fn pin(&mut self, pin: bool) -> Result<(), ActorError> {
        if self.connection.is_some() {
            return Err(ActorError::Connection);
        }
        if self.lacks(|manifest| manifest.capabilities.pin.is_some()) {
            return Err(ActorError::Denied(
                "pin: [capabilities] pin is not asked for".to_owned(),
            ));
        }
        self.room().map_err(ActorError::TooMany)?;
        self.record(Command::Pin(pin));
        Ok(())
    }

    /// The daemon begins again: what is only in memory is gone.
    fn restart(&mut self, down: Duration) {
        self.roll_back();
        self.boot += 1;
        self.now += down;
        self.booted_at = self.now;
        self.connection = None;
        self.children.lose();
        self.files.restart();
        self.asks.retain(|_, waiting| waiting.durable);
        self.replies.retain(|_, reply| reply.is_some());
        let timers = std::mem::take(&mut self.timers);
        for timer in timers.into_values().filter(|timer| timer.durable) {
            let port = self.new_port();
            self.timers.insert(port, timer);
        }
    }
}

/// What outlives the instance.
impl<C: Capsule> Harness<C> {
    /// The daemon ends and begins again. The instance, its timers, children and connection are gone, and nobody waits for its answers any
    /// more; its table, its durable timers (with new ports), its pin and its asks from durable subscriptions stay. What it then hears of (`lifecycle.v1.started`),
    /// and what it is said to hold ([`Harness::adopted_child`]), is the test's to say.
    pub fn restart(&mut self) {
        self.restart_after(Duration::ZERO);
    }

    /// As [`Harness::restart`], with this much time during which no daemon runs. A durable timer that was due meanwhile fires once, at
    /// the next [`Harness::advance`].
    pub fn restart_after(&mut self, down: Duration) {
        self.capsule = None;
        self.sequence = 0;
        self.host.restart(down);
    }

    /// The instance is gone, as after an eviction or a fault; all else stays.
    pub fn evict(&mut self) {
        self.capsule = None;
    }

    /// What is in the table, in order.
    pub fn kv(&self) -> Vec<Entry> {
        let entries = self.host.table.kept.iter();
        entries
            .map(|(key, value)| Entry {
                key: key.clone(),
                value: value.clone(),
            })
            .collect()
    }

    /// The value of a key, if it is there.
    ///
    /// # Panics
    /// It is something else than a `T`.
    #[track_caller]
    pub fn kv_value<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Option<T> {
        let (key, value) = self.host.table.kept.get_key_value(key.as_ref())?;
        let entry = Entry {
            key: key.clone(),
            value: value.clone(),
        };
        Some(entry.read().unwrap_or_else(|error| panic!("{error}")))
    }

    /// Gives a key a value, as an earlier instance would have.
    ///
    /// # Panics
    /// The value has no JSON form.
    #[track_caller]
    pub fn put_kv(&mut self, key: impl AsRef<[u8]>, value: &(impl Serialize + ?Sized)) {
        let value = serde_json::to_vec(value).unwrap_or_else(|error| panic!("it has no JSON form: {error}"));
        self.host.table.kept.insert(key.as_ref().to_owned(), value);
    }

    /// From now on the table cannot be read or written, for this reason; or can again.
    pub fn set_kv_unavailable(&mut self, why: Option<&str>) {
        self.host.table.unavailable = why.map(str::to_owned);
    }

    /// Whether the actor is pinned.
    pub fn pinned(&self) -> bool {
        self.host.pinned
    }
}
