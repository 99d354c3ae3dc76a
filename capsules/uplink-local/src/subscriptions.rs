//! What a client hears: its subscriptions, by its ids.
//!
//! The kernel knows patterns and brings a message once, however many match; the client knows ids. Two ids may have the
//! same pattern, and the kernel is told of the first and the last of them.

use astrid_wire::problem::codes;
use astrid_wire::{Pattern, Problem};

/// Subscriptions of one connection at most (A8), as the kernel has it.
pub const SUBSCRIPTIONS_MAX: usize = 16;

/// The subscriptions of a connection.
#[derive(Debug, Default)]
pub struct Subscriptions {
    held: Vec<(u64, Pattern)>,
}

impl Subscriptions {
    /// Adds one; `subscribe` is called when its pattern is new.
    ///
    /// # Errors
    /// The id is in use, the limit is reached, it is not a pattern, or `subscribe` refused.
    pub fn add(
        &mut self,
        id: u64,
        pattern: &str,
        subscribe: impl FnOnce(&str) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        if self.held.iter().any(|(held, _)| *held == id) {
            return Err(Problem::new(codes::INVALID, format!("subscription {id} exists")));
        }
        if self.held.len() >= SUBSCRIPTIONS_MAX {
            return Err(Problem::new(
                codes::TOO_MANY,
                format!("{SUBSCRIPTIONS_MAX} subscriptions are held, the limit"),
            ));
        }
        let pattern: Pattern = pattern
            .parse()
            .map_err(|error| Problem::new(codes::INVALID, format!("not a pattern: {error}")))?;
        if !self.has(&pattern) {
            subscribe(pattern.as_str())?;
        }
        self.held.push((id, pattern));
        Ok(())
    }

    /// Removes one. Its pattern, when it was the last that had it.
    pub fn remove(&mut self, id: u64) -> Option<Pattern> {
        let place = self.held.iter().position(|(held, _)| *held == id)?;
        let (_, pattern) = self.held.remove(place);
        (!self.has(&pattern)).then_some(pattern)
    }

    /// The ids of those that a topic matches, oldest first.
    pub fn matching(&self, topic: &str) -> impl Iterator<Item = u64> {
        self.held
            .iter()
            .filter(move |(_, pattern)| pattern.matches_str(topic))
            .map(|(id, _)| *id)
    }

    fn has(&self, pattern: &Pattern) -> bool {
        self.held.iter().any(|(_, held)| held == pattern)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_kernel_hears_of_each_pattern_once() {
        let mut told = Vec::new();
        let mut subscriptions = Subscriptions::default();
        for (id, pattern) in [(1, "a.>"), (2, "a.*"), (3, "a.>")] {
            let tell = |pattern: &str| {
                told.push(pattern.to_owned());
                Ok(())
            };
            subscriptions.add(id, pattern, tell).unwrap();
        }
        assert_eq!(told, ["a.>", "a.*"]);
        assert_eq!(subscriptions.matching("a.b").collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(subscriptions.matching("a.b.c").collect::<Vec<_>>(), [1, 3]);
        assert_eq!(subscriptions.remove(1), None);
        assert_eq!(subscriptions.remove(3).unwrap(), "a.>");
        assert_eq!(subscriptions.remove(3), None);
        assert_eq!(subscriptions.matching("a.b.c").count(), 0);
    }

    /// A8: 16 a connection.
    #[test]
    fn refusals_leave_nothing_behind() {
        let mut subscriptions = Subscriptions::default();
        let denied = |_: &str| Err(Problem::new(codes::DENIED, "no"));
        assert_eq!(subscriptions.add(1, "a", denied).unwrap_err().code(), codes::DENIED);
        assert_eq!(subscriptions.add(1, "a..b", denied).unwrap_err().code(), codes::INVALID);
        assert_eq!(subscriptions.matching("a").count(), 0);
        for id in 0..16 {
            subscriptions.add(id, "a", |_| Ok(())).unwrap();
        }
        assert_eq!(subscriptions.add(3, "b", denied).unwrap_err().code(), codes::INVALID);
        assert_eq!(subscriptions.add(16, "b", denied).unwrap_err().code(), codes::TOO_MANY);
    }
}
