//! Places of requests whose answer takes a while: bounded in all, and for each who asks, so that nobody who may ask one narrow thing keeps
//! others from theirs.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use astrid_wire::Principal;
use parking_lot::Mutex;
use tokio::task::JoinSet;

/// Of all places, one in so many is what one principal may have at most.
const SHARE: usize = 4;

/// Who waits. The owner of the daemon may have every place; others a share each, and together all but one share.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: Arc<Mutex<HashMap<Principal, usize>>>,
    running: JoinSet<()>,
}

/// One place; given back by being dropped.
#[derive(Debug)]
struct Place {
    taken: Arc<Mutex<HashMap<Principal, usize>>>,
    whose: Principal,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}

impl Places {
    /// So many, all free.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            taken: Arc::default(),
            running: JoinSet::new(),
        }
    }

    /// Runs something in a place of that principal's, if one is left for it.
    pub(super) fn run(&mut self, whose: &Principal, work: impl Future<Output = ()> + Send + 'static) -> bool {
        while self.running.try_join_next().is_some() {}
        let Some(place) = self.take(whose) else { return false };
        self.running.spawn(async move {
            let _place = place;
            work.await;
        });
        true
    }

    fn take(&self, whose: &Principal) -> Option<Place> {
        let mut taken = self.taken.lock();
        let share = (self.max / SHARE).max(1);
        let all: usize = taken.values().sum();
        let owner = Principal::default_owner();
        let others = all - taken.get(&owner).copied().unwrap_or(0);
        let mine = taken.entry(whose.clone()).or_insert(0);
        let free = all < self.max && (*whose == owner || (*mine < share && others < self.max - share));
        if !free {
            if *mine == 0 {
                taken.remove(whose);
            }
            return None;
        }
        *mine += 1;
        drop(taken);
        Some(Place {
            taken: Arc::clone(&self.taken),
            whose: whose.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn who(name: &str) -> Principal {
        Principal::stamped(name).unwrap()
    }

    /// K8: one who asks has a quarter, all others together three, the owner what is left; and places come back.
    #[test]
    fn nobody_takes_them_all() {
        let places = Places::new(8);
        let take = |name: &str| places.take(&who(name));
        let mut held: Vec<_> = ["a", "a", "b", "b", "c", "c"].map(|name| take(name).unwrap()).into();
        assert!(take("a").is_none() && take("d").is_none());
        held.extend([take("default").unwrap(), take("default").unwrap()]);
        assert!(take("default").is_none(), "there are eight");
        held.remove(0);
        held.remove(1);
        assert!(take("b").is_some() && take("d").is_some());
        held.clear();
        assert!(places.taken.lock().is_empty());
    }
}
