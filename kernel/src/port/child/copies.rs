//! Children that work on copies of workspaces: each waits until its copy is made, and its end is told when what it did is taken back.
//!
//! Copying takes as long as it takes, on a thread of its own; a child that is stopped meanwhile is not started any more.

use std::sync::Arc;

use astrid_wire::Problem;

use super::Children;
use super::held::Child;
use super::mount::{Checkout, Seen, Taken};
use crate::keeper::protocol::{ChildId, ToKeeper};

impl Child {
    /// Whether it works on a copy.
    pub(super) fn has_copy(&self) -> bool {
        matches!(self.progress.lock().workspace, Some(Seen::Copied(_)))
    }
}

impl Children {
    /// Makes the copy of a child that waits for it, and has it started then.
    pub(super) fn copy(self: &Arc<Self>, id: ChildId, copy: Arc<dyn Checkout>) {
        let children = Arc::clone(self);
        self.while_it_lasts(async move {
            let made = tokio::task::spawn_blocking(move || copy.make()).await;
            let made = made.unwrap_or_else(|error| Err(Problem::new("child.failed", error.to_string())));
            children.copied(id, made);
        });
    }

    fn copied(&self, id: ChildId, made: Result<(), Problem>) {
        let mut table = self.table.lock();
        let mut waiting = table.waiting.extract_if(.., |request| request.is_spawn_of(id));
        // Otherwise it was withdrawn.
        let Some(request) = waiting.next() else { return };
        drop(waiting);
        match made {
            Ok(()) => {
                table.requests.push_back(request);
                drop(table);
                self.wanted.notify_one();
            }
            Err(problem) => {
                let child = table.rows.get(&id).cloned();
                drop(table);
                if let Some(child) = child {
                    self.failed(&child, &problem);
                }
            }
        }
    }

    /// A child that waits for its copy is not started. False when there is no such child.
    pub(super) fn withdraw(&self, id: ChildId) -> bool {
        let mut table = self.table.lock();
        let is_it = |request: &mut super::Request| request.mount.is_none() && request.is_spawn_of(id);
        if table.waiting.extract_if(.., is_it).next().is_none() {
            return false;
        }
        let child = table.rows.get(&id).cloned();
        drop(table);
        if let Some(child) = child {
            let problem = Problem::new(
                "child.withdrawn",
                "it was stopped before its copy of the workspace was made",
            );
            self.failed(&child, &problem);
        }
        true
    }

    /// None of those that wait is started: the daemon stops.
    pub(super) fn withdraw_all(&self) {
        let waiting: Vec<ChildId> = {
            let table = self.table.lock();
            let spawns = table.waiting.iter().filter_map(|request| match &request.message {
                ToKeeper::Spawn { id, .. } if request.mount.is_none() => Some(*id),
                _ => None,
            });
            spawns.collect()
        };
        for id in waiting {
            self.withdraw(id);
        }
    }

    /// Takes over what a child that has ended did to its copy; none when it had no copy.
    pub(super) async fn take_back(&self, child: &Child) -> Option<Result<Taken, String>> {
        let seen = child.progress.lock().workspace.take();
        let Some(Seen::Copied(copy)) = seen else { return None };
        let taken = tokio::task::spawn_blocking(move || copy.take_back()).await;
        let taken = taken.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(error) = &taken {
            tracing::error!(child = %child.tag, error, "what a child did to its copy of the workspace is not taken back");
        }
        Some(taken)
    }

    /// Removes the copy of a child that was not started.
    pub(super) fn put_back(&self, copy: Arc<dyn Checkout>) {
        self.while_it_lasts(async move {
            let put_back = tokio::task::spawn_blocking(move || copy.take_back()).await;
            if let Ok(Err(error)) = put_back {
                tracing::error!(error, "a copy of a workspace that nobody worked on is not removed");
            }
        });
    }
}
