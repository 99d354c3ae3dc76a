//! That programs do not store more for their principal than that may.
//!
//! Nobody can be asked before a program writes to a file: the system has no such limit for a directory. So for a principal that has a limit, what is
//! stored is counted again from time to time while programs of it run that write to its workspace or its `/tmp`, and they are ended when it is
//! over. Counting looks at every file: it takes at most a fiftieth of a processor. Nothing of this wakes for anybody who has no limit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use astrid_wire::Principal;

use super::Children;
use super::held::Child;
use super::mount::Room;
use crate::keeper::protocol::{Reach, ToKeeper};

/// Between two looks, at least and at most.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(300);

/// Which part of the time is spent on looking, at most.
const SHARE: u32 = 50;

impl Children {
    /// Looks after what the programs of a principal store, for as long as there are any.
    pub(super) fn watch_storage(self: &Arc<Self>, principal: Principal) {
        if !self.table.lock().storing.insert(principal.clone()) {
            return;
        }
        let children = Arc::clone(self);
        self.while_it_lasts(async move {
            let mut wait = LOOK_AGAIN_MIN;
            loop {
                tokio::time::sleep(wait).await;
                if children.nobody_stores(&principal) {
                    return;
                }
                let Some(workspaces) = children.workspaces.get().cloned() else {
                    return;
                };
                let whose = principal.clone();
                let began = Instant::now();
                let room = tokio::task::spawn_blocking(move || workspaces.room(&whose)).await;
                match room {
                    Ok(Ok(Room::Over)) => children.end_storing(&principal),
                    Ok(Ok(Room::Left | Room::None)) => {}
                    Ok(Err(error)) => tracing::warn!(%principal, error, "what its programs store cannot be counted"),
                    Err(error) => tracing::warn!(%principal, %error, "what its programs store cannot be counted"),
                }
                wait = (began.elapsed() * SHARE).clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX);
            }
        });
    }

    /// Whether no program of that principal stores any more: then nobody looks after it.
    fn nobody_stores(&self, principal: &Principal) -> bool {
        let mut table = self.table.lock();
        let nobody = !table.rows.values().any(|child| child.stores(principal));
        if nobody {
            table.storing.remove(principal);
        }
        nobody
    }

    fn end_storing(self: &Arc<Self>, principal: &Principal) {
        let storing: Vec<Arc<Child>> = {
            let table = self.table.lock();
            let storing = table.rows.values().filter(|child| child.stores(principal));
            storing.cloned().collect()
        };
        for child in storing {
            tracing::warn!(child = %child.tag, %principal, "it is ended: its principal stores more than it may");
            child.stored_too_much.store(true, Ordering::Relaxed);
            self.request(ToKeeper::Signal {
                id: child.key,
                signal: rustix::process::Signal::KILL.as_raw(),
                reach: Reach::Tree,
            });
        }
    }
}

impl Child {
    fn stores(&self, principal: &Principal) -> bool {
        self.pays && self.owner.principal == *principal
    }
}
