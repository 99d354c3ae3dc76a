//! That programs do not store more for their principal than that may.
//!
//! Nobody can be asked before a program writes to a file: the system has no such limit for a directory. So for a principal that has a limit, what is
//! stored is counted again from time to time while programs of it run that write to its workspace or its `/tmp`, and they are ended when it is
//! over. Counting looks at every file: it takes at most a fiftieth of a processor, and is left out while the file systems have as much free as they
//! had. Then the looks become rarer, and those for all principals are at the same moments, so that they do not wake the more the more there are.
//! Nothing of this wakes for anybody who has no limit.
//!
//! What a program made so that it cannot be counted is over the limit: otherwise it would only have to hide what it stores. Files that programs have
//! open and that have no name any more count as well, but for those that are only mapped, or are on their way to somebody, or that a program has
//! which does not let its user look at it.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use astrid_wire::Principal;

use super::Children;
use super::held::Child;
use super::mount::{Free, Room, Uncounted};
use crate::keeper;
use crate::keeper::protocol::{Reach, ToKeeper};

/// Between two looks, at least and at most.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(256);

/// Between two looks at most, while nothing is stored.
const QUIET_MAX: Duration = Duration::from_secs(16);

/// Looks in a row at which nothing is counted, at most.
const QUIET_LOOKS_MAX: u32 = 16;

/// Which part of the time is spent on looking, at most.
const SHARE: u32 = 50;

/// Looks are at whole multiples of their distance after this.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Why a program is ended for what it stores.
#[derive(Debug, thiserror::Error)]
enum TooMuch {
    #[error("its principal stores more than it may (quota storage)")]
    More,
    #[error("what its principal stores cannot be counted, and it has a limit (quota storage): {0}")]
    Uncountable(String),
}

/// Looks in a row at which nothing can be counted, at most: once may be a program that just moves things about.
const UNCOUNTED_MAX: u32 = 2;

/// When to look next, and whether to count then.
#[derive(Debug)]
struct Pace {
    wait: Duration,
    free: Option<Free>,
    /// Looks in a row at which nothing was stored.
    quiet: u32,
}

impl Pace {
    const fn new() -> Self {
        Self {
            wait: LOOK_AGAIN_MIN,
            free: None,
            quiet: 0,
        }
    }

    /// How long it is until the next look, so long after [`EPOCH`].
    fn until_next(&self, elapsed: Duration) -> Duration {
        let over = elapsed.as_nanos() % self.wait.as_nanos();
        let left = self.wait - Duration::from_nanos(u64::try_from(over).unwrap_or(0));
        // Not at once after the last one, which may have ended late.
        if left < self.wait / 2 { left + self.wait } else { left }
    }

    /// Whether nothing was stored since it was counted last. What cannot be told, or was not counted, counts as if something had been; and now and
    /// then it is looked at all the same, for limits change too.
    fn is_quiet(&mut self, free: Option<Free>) -> bool {
        let quiet = free.is_some() && free == self.free && self.quiet < QUIET_LOOKS_MAX;
        self.free = free;
        self.quiet = if quiet { self.quiet + 1 } else { 0 };
        if quiet {
            self.wait = (self.wait * 2).min(QUIET_MAX.max(self.wait));
        }
        quiet
    }

    /// Counting took so long. Distances are such that all looks fall together.
    fn counted(&mut self, took: Duration) {
        self.wait = LOOK_AGAIN_MIN;
        while self.wait < took * SHARE && self.wait < LOOK_AGAIN_MAX {
            self.wait *= 2;
        }
    }
}

impl Children {
    /// Looks after what the programs of a principal store, for as long as there are any.
    pub(super) fn watch_storage(self: &Arc<Self>, principal: Principal) {
        if !self.table.lock().storing.insert(principal.clone()) {
            return;
        }
        let children = Arc::clone(self);
        self.while_it_lasts(async move {
            let mut pace = Pace::new();
            let mut uncounted = 0;
            loop {
                tokio::time::sleep(pace.until_next(EPOCH.elapsed())).await;
                if children.nobody_stores(&principal) {
                    return;
                }
                let Some(workspaces) = children.workspaces.get().cloned() else {
                    return;
                };
                let whose = principal.clone();
                let pids = children
                    .storing(&principal)
                    .iter()
                    .filter_map(|child| child.pid())
                    .collect::<Vec<_>>();
                let looked = tokio::task::spawn_blocking(move || {
                    // Before it is counted: what is stored meanwhile is seen the next time.
                    let quiet = pace.is_quiet(workspaces.free(&whose));
                    let began = Instant::now();
                    let room = (!quiet).then(|| workspaces.room(&whose, keeper::unnamed_bytes(&pids)));
                    if !quiet {
                        pace.counted(began.elapsed());
                    }
                    (pace, room)
                });
                let room = match looked.await {
                    Ok((then, None)) => {
                        pace = then;
                        continue;
                    }
                    Ok((then, Some(room))) => {
                        pace = then;
                        Ok(room)
                    }
                    Err(error) => {
                        pace = Pace::new();
                        Err(error)
                    }
                };
                match room {
                    Ok(Ok(Room::Over)) => children.end_storing(&principal, &TooMuch::More),
                    Ok(Ok(Room::Left | Room::None)) => uncounted = 0,
                    Ok(Err(Uncounted::Hidden(why))) => {
                        uncounted += 1;
                        pace.free = None;
                        tracing::warn!(%principal, why, "what its programs store cannot be counted");
                        if uncounted >= UNCOUNTED_MAX {
                            children.end_storing(&principal, &TooMuch::Uncountable(why));
                        }
                    }
                    Ok(Err(Uncounted::Failed(why))) => {
                        tracing::warn!(%principal, why, "what its programs store was not counted");
                    }
                    Err(error) => tracing::warn!(%principal, %error, "what its programs store was not counted"),
                }
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

    fn storing(&self, principal: &Principal) -> Vec<Arc<Child>> {
        let table = self.table.lock();
        let storing = table.rows.values().filter(|child| child.stores(principal));
        storing.cloned().collect()
    }

    fn end_storing(self: &Arc<Self>, principal: &Principal, why: &TooMuch) {
        for child in self.storing(principal) {
            tracing::warn!(child = %child.tag, %principal, %why, "it is ended for what it stores");
            *child.stored_too_much.lock() = Some(why.to_string());
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The more seldom the longer nothing is stored, at once again when something is, and everybody's looks at the same moments.
    #[test]
    fn looks_become_rarer_while_nothing_is_stored() {
        let seconds = Duration::from_secs;
        let free = |blocks| Some(vec![(blocks, 7)]);
        let mut pace = Pace::new();
        assert_eq!(pace.until_next(Duration::ZERO), seconds(2));
        assert!(!pace.is_quiet(free(1)), "nothing is known yet");
        pace.counted(Duration::from_millis(1));
        for next in [4, 8, 16, 16] {
            assert!(pace.is_quiet(free(1)));
            assert_eq!(pace.wait, seconds(next));
        }
        assert_eq!(pace.until_next(seconds(1000)), seconds(8));
        assert_eq!(
            pace.until_next(seconds(1001)),
            seconds(7 + 16),
            "not soon after one that was late"
        );
        assert_eq!(pace.until_next(seconds(1008)), seconds(16));
        assert!(!pace.is_quiet(free(2)));
        pace.counted(Duration::from_millis(1));
        assert_eq!(pace.wait, LOOK_AGAIN_MIN);
        assert!(
            !pace.is_quiet(None) && !pace.is_quiet(None),
            "what cannot be told is looked at"
        );
        pace.counted(seconds(1));
        assert_eq!(pace.wait, seconds(64), "a fiftieth of the time, at most");
        assert!(!pace.is_quiet(free(2)) && pace.is_quiet(free(2)));
        assert_eq!(pace.wait, seconds(64));
        let quiet = (0..100).take_while(|_| pace.is_quiet(free(2))).count();
        assert_eq!(quiet, 15, "a limit may be another one meanwhile");
    }
}
