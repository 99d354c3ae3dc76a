//! A child as its owner holds it, and all children of one actor.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use astrid_wire::Principal;
use astrid_wire::child::HeldPort;
use parking_lot::Mutex;

use super::Stream;
use super::input::Input;
use super::launch::Output;
use super::mount::Seen;
use super::program::Program;
use crate::bus::inbox::Inbox;
use crate::bus::message::PortId;
use crate::keeper::protocol::{ChildId, TreeLimit};
use crate::ledger::{Account, Hold, Limit};
use crate::port::sink::SinkHandle;

/// Children of one actor at most: some descriptors and a process each.
pub const CHILDREN_PER_ACTOR_MAX: usize = 4096;

/// Whose a child is, over the restarts of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Which capsule's.
    pub capsule: Arc<str>,
    /// On whose behalf.
    pub principal: Principal,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) pid: Option<u32>,
    pub(super) started_at_ms: Option<u64>,
    pub(super) sinks: Vec<SinkHandle>,
    /// Output that nobody reads yet, because its owner is not here.
    pub(super) unread: Vec<(OwnedFd, Stream)>,
    /// Held until it runs, so that its file's number stays its own.
    pub(super) program: Option<Program>,
    /// The workspace that it sees, which is mounted, or copied, for as long.
    pub(super) workspace: Option<Seen>,
    /// Its place among the programs of its principal; given back with the child.
    pub(super) hold: Option<Hold>,
    /// The entry of the audit log that says that it is about to start, until it is known what became of that.
    pub(super) intent: Option<u64>,
}

/// A child.
pub struct Child {
    pub(super) id: PortId,
    /// As the keeper knows it: of the daemon that started it.
    pub(super) key: ChildId,
    pub(super) tag: Arc<str>,
    pub(super) owner: Owner,
    pub(super) input: Option<Arc<Input>>,
    /// Whether it has a standard input that can end: a terminal's does not.
    pub(super) input_closes: bool,
    /// Not kept from the daemon's home.
    pub(super) unprotected: bool,
    /// Whether what it stores counts for a limit of its principal.
    pub(super) pays: bool,
    /// It was ended for that: why.
    pub(super) stored_too_much: Mutex<Option<String>>,
    pub(super) adopt: bool,
    /// Its limit of processor time, if this daemon has set one.
    pub(super) cpu_seconds: Option<u64>,
    /// Of its limits those of its whole tree that it has exceeded, once it has ended.
    pub(super) exceeded: Mutex<Vec<TreeLimit>>,
    pub(super) stdout: Output,
    pub(super) stderr: Option<Output>,
    pub(super) secrets: Vec<String>,
    pub(super) progress: Mutex<Progress>,
    /// Its owner's end, once it has one in this daemon.
    pub(super) told: Mutex<Option<Told>>,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not its secrets.
        f.debug_struct("Child")
            .field("id", &self.id)
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}

/// Where the owner of a child hears of it, and holds it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) inbox: Arc<Inbox>,
    pub(super) held: Weak<Held>,
}

impl Child {
    /// Its port.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Its main process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.progress.lock().pid
    }

    /// Its standard input, if that can be written to.
    pub fn input(&self) -> Option<&Arc<Input>> {
        self.input.as_ref()
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.input.is_some() && !self.input_closes
    }

    /// Whether its standard input can be closed.
    pub fn input_closes(&self) -> bool {
        self.input_closes
    }
}

/// The children of one actor.
#[derive(Debug, Default)]
pub struct Held {
    rows: Mutex<BTreeMap<PortId, Arc<Child>>>,
}

impl Held {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one of that number.
    pub fn get(&self, id: PortId) -> Option<Arc<Child>> {
        self.rows.lock().get(&id).cloned()
    }

    /// What a generation is told of those that it did not start.
    pub fn ports(&self) -> Vec<HeldPort> {
        let rows = self.rows.lock();
        let told = rows.values().map(|child| {
            let progress = child.progress.lock();
            HeldPort {
                port: child.id,
                tag: child.tag.to_string(),
                pid: progress.pid,
                started_at_ms: progress.started_at_ms,
            }
        });
        told.collect()
    }

    /// Those that nobody paid for, because an earlier daemon started them, are counted among that principal's.
    pub fn charge_to(&self, account: &Arc<Account>) {
        for child in self.rows.lock().values() {
            let hold = &mut child.progress.lock().hold;
            hold.get_or_insert_with(|| account.hold_anyway(Limit::Children, 1));
        }
    }

    pub(super) fn insert(&self, child: Arc<Child>) {
        self.rows.lock().insert(child.id, child);
    }

    pub(super) fn remove(&self, id: PortId) -> bool {
        self.rows.lock().remove(&id).is_some()
    }

    pub(super) fn all(&self) -> Vec<Arc<Child>> {
        self.rows.lock().values().cloned().collect()
    }
}
