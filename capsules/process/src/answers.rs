//! Who waits until instances are settled.
//!
//! Each instance knows who waits for it, and each who waits knows for how many: an instance that is settled costs as much as there are askers
//! of it, however many instances there are.

use std::collections::BTreeMap;
use std::rc::Rc;

use astrid_sdk::{Problem, ReplyTo};

/// Askers that wait at the same time; an asker over that is refused.
pub const WAITERS_MAX: usize = 1024;

/// An asker.
pub type WaiterId = u64;

/// Somebody who waits.
#[derive(Debug)]
pub struct Waiter {
    /// Where the answer goes.
    pub to: ReplyTo,
    /// Of which processes it tells.
    pub names: Vec<Rc<str>>,
    /// The first thing that went wrong, which is the answer then.
    pub problem: Option<Problem>,
    left: usize,
}

impl Waiter {
    /// Somebody who is answered at once.
    pub fn now(to: ReplyTo, names: Vec<Rc<str>>) -> Self {
        Self {
            to,
            names,
            problem: None,
            left: 0,
        }
    }
}

/// Those who wait.
#[derive(Debug, Default)]
pub struct Answers {
    waiting: BTreeMap<WaiterId, Waiter>,
    last: WaiterId,
}

impl Answers {
    /// Whether another one may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITERS_MAX
    }

    /// Somebody waits for this many instances, at least one.
    pub fn wait(&mut self, to: ReplyTo, names: Vec<Rc<str>>, left: usize) -> WaiterId {
        self.last += 1;
        let waiter = Waiter {
            to,
            names,
            problem: None,
            left,
        };
        self.waiting.insert(self.last, waiter);
        self.last
    }

    /// One of the instances is settled; returns who waits no longer.
    pub fn settled(&mut self, id: WaiterId, problem: Option<Problem>) -> Option<Waiter> {
        let waiter = self.waiting.get_mut(&id)?;
        waiter.left = waiter.left.saturating_sub(1);
        if waiter.problem.is_none() {
            waiter.problem = problem;
        }
        if waiter.left == 0 {
            self.waiting.remove(&id)
        } else {
            None
        }
    }
}
