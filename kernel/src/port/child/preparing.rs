//! Children that cannot be started at once: somebody has to count what their principal stores, or to copy a workspace for them. And what becomes
//! of that copy when they have ended.
//!
//! Both take as long as they take, on a thread of the pool; a child that is stopped meanwhile is not started any more, and its end is told when
//! what it did is taken back.

use std::sync::Arc;

use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};
use rustix::process::Signal;

use super::held::Child;
use super::mount::{Checkout, Room, Seen, Taken};
use super::{Children, Request};
use crate::keeper::protocol::{ChildId, ToKeeper};

/// What has to be done before a child is started.
pub(super) struct Preparation {
    /// Whose storage has to be looked at.
    pub(super) pays: Option<Principal>,
    /// What has to be copied.
    pub(super) copy: Option<Arc<dyn Checkout>>,
}

impl Preparation {
    /// Whether there is nothing to do.
    pub(super) fn is_none(&self) -> bool {
        self.pays.is_none() && self.copy.is_none()
    }
}

/// Whether a signal ends a program that says nothing else: see signal(7).
fn ends_by_default(signal: i32) -> bool {
    let others = [
        Signal::CHILD,
        Signal::CONT,
        Signal::STOP,
        Signal::TSTP,
        Signal::TTIN,
        Signal::TTOU,
        Signal::URG,
        Signal::WINCH,
    ];
    signal != 0 && !others.iter().any(|other| other.as_raw() == signal)
}

impl Child {
    /// Whether it works on a copy.
    pub(super) fn has_copy(&self) -> bool {
        matches!(self.progress.lock().workspace, Some(Seen::Copied(_)))
    }
}

impl Children {
    /// Prepares a child that waits for it, and has it started then.
    pub(super) fn prepare(self: &Arc<Self>, id: ChildId, preparation: Preparation) {
        let children = Arc::clone(self);
        self.while_it_lasts(async move {
            let this = Arc::clone(&children);
            let done = tokio::task::spawn_blocking(move || this.prepare_now(preparation)).await;
            let done = done.unwrap_or_else(|error| Err(Problem::new("child.failed", error.to_string())));
            children.prepared(id, done);
        });
    }

    fn prepare_now(&self, preparation: Preparation) -> Result<(), Problem> {
        if let Some(principal) = preparation.pays
            && let Some(workspaces) = self.workspaces.get()
        {
            let room = workspaces.room(&principal, 0);
            let room =
                room.map_err(|why| Problem::new("child.failed", format!("what is stored cannot be counted: {why}")))?;
            if room != Room::Left {
                let text = format!("{principal} stores as much as it may, and programs write to its files");
                return Err(Problem::new(codes::QUOTA_EXCEEDED, text)
                    .with_hint("`astrid usage` says how much; remove files, or have the quota raised"));
            }
        }
        preparation.copy.map_or(Ok(()), |copy| copy.make())
    }

    fn prepared(self: &Arc<Self>, id: ChildId, done: Result<(), Problem>) {
        let mut table = self.table.lock();
        let request = table.preparing.extract_if(.., |request| request.is_spawn_of(id)).next();
        // Otherwise it was withdrawn.
        let Some(request) = request else { return };
        match done {
            Ok(()) => {
                self.enqueue(&mut table, request);
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

    /// A signal for a child that may be being prepared. It has no handlers yet: what ends a program that has none, ends this one; of the others
    /// nothing is kept. False when there is no such child.
    pub(super) fn signal_unprepared(self: &Arc<Self>, id: ChildId, signal: i32) -> bool {
        if ends_by_default(signal) {
            return self.withdraw(id);
        }
        let table = self.table.lock();
        table.preparing.iter().any(|request| request.is_spawn_of(id))
    }

    /// A child that is being prepared is not started. False when there is no such child.
    pub(super) fn withdraw(self: &Arc<Self>, id: ChildId) -> bool {
        let mut table = self.table.lock();
        let is_it = |request: &mut Request| request.is_spawn_of(id);
        if table.preparing.extract_if(.., is_it).next().is_none() {
            return false;
        }
        let child = table.rows.get(&id).cloned();
        drop(table);
        if let Some(child) = child {
            if let Some(Seen::Copied(copy)) = &child.progress.lock().workspace {
                copy.give_up();
            }
            let problem = Problem::new("child.withdrawn", "it was stopped before it could be started");
            self.failed(&child, &problem);
        }
        true
    }

    /// None of those that are prepared is started: the daemon stops.
    pub(super) fn withdraw_all(self: &Arc<Self>) {
        let preparing: Vec<ChildId> = {
            let table = self.table.lock();
            let spawns = table.preparing.iter().filter_map(|request| match &request.message {
                ToKeeper::Spawn { id, .. } => Some(*id),
                _ => None,
            });
            spawns.collect()
        };
        for id in preparing {
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

    /// A child was not started: that is told when its copy is removed, and the workspace free for the next.
    pub(super) fn failed_with_copy(self: &Arc<Self>, child: &Arc<Child>, problem: &Problem) {
        let (children, child, problem) = (Arc::clone(self), Arc::clone(child), problem.clone());
        self.while_it_lasts(async move {
            // Nobody worked on it: there is nothing to tell of it, but in the log.
            drop(children.take_back(&child).await);
            children.failed(&child, &problem);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As signal(7) has it.
    #[test]
    fn what_ends_a_program_that_handles_nothing() {
        for signal in [Signal::HUP, Signal::TERM, Signal::INT, Signal::KILL, Signal::USR1] {
            assert!(ends_by_default(signal.as_raw()), "{signal:?}");
        }
        assert!(ends_by_default(Signal::KILL.as_raw() + 30), "of real time");
        for signal in [Signal::CONT, Signal::STOP, Signal::WINCH, Signal::URG] {
            assert!(!ends_by_default(signal.as_raw()), "{signal:?}");
        }
        assert!(!ends_by_default(0));
    }
}
