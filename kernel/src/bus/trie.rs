//! Which subscriptions hear a topic: a trie of pattern segments, read as snapshots.
//!
//! A publish loads the present snapshot without waiting for anybody and walks it: O(segments + matches), whatever the
//! number of patterns. A writer copies the nodes on the path it changes (`Arc::make_mut`) and shares the rest, so a
//! change costs O(segments x width of those nodes) and readers of the old snapshot go on undisturbed.
//!
//! Deliberately absent: a cache of matches. It would have to be emptied by every change, and a walk is about as dear as
//! a lookup by topic.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use astrid_wire::topic::Segment;
use astrid_wire::{Pattern, Topic};
use parking_lot::Mutex;

/// What hears a pattern; `T` is the subscription.
#[derive(Debug)]
struct Node<T> {
    literal: HashMap<Box<str>, Arc<Node<T>>, ahash::RandomState>,
    any: Option<Arc<Node<T>>>,
    /// Subscriptions whose pattern ends here.
    here: Vec<Entry<T>>,
    /// Subscriptions whose pattern ends here in `>`.
    rest: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    id: u64,
    value: Arc<T>,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            value: Arc::clone(&self.value),
        }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self {
            literal: HashMap::default(),
            any: None,
            here: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        Self {
            literal: self.literal.clone(),
            any: self.any.clone(),
            here: self.here.clone(),
            rest: self.rest.clone(),
        }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn insert(&mut self, mut path: impl Iterator<Item = Step>, entry: Entry<T>) {
        match path.next() {
            None => self.here.push(entry),
            Some(Step::Rest) => self.rest.push(entry),
            Some(Step::Any) => Arc::make_mut(self.any.get_or_insert_default()).insert(path, entry),
            Some(Step::Literal(name)) => Arc::make_mut(self.literal.entry(name).or_default()).insert(path, entry),
        }
    }

    /// Removes the entry of this id on this path, and the nodes that it leaves empty.
    fn remove(&mut self, mut path: impl Iterator<Item = Step>, id: u64) {
        match path.next() {
            None => self.here.retain(|e| e.id != id),
            Some(Step::Rest) => self.rest.retain(|e| e.id != id),
            Some(Step::Any) => {
                if let Some(node) = &mut self.any {
                    let node = Arc::make_mut(node);
                    node.remove(path, id);
                    if node.is_empty() {
                        self.any = None;
                    }
                }
            }
            Some(Step::Literal(name)) => {
                if let Some(node) = self.literal.get_mut(&name) {
                    let node = Arc::make_mut(node);
                    node.remove(path, id);
                    if node.is_empty() {
                        self.literal.remove(&name);
                    }
                }
            }
        }
    }

    fn visit<'a>(&'a self, topic: &str, found: &mut impl FnMut(&'a Arc<T>)) {
        // `topic` has at least one segment left.
        for entry in &self.rest {
            found(&entry.value);
        }
        let (segment, tail) = match topic.split_once('.') {
            Some((segment, tail)) => (segment, Some(tail)),
            None => (topic, None),
        };
        for node in [self.literal.get(segment), self.any.as_ref()].into_iter().flatten() {
            match tail {
                Some(tail) => node.visit(tail, found),
                None => node.here.iter().for_each(|e| found(&e.value)),
            }
        }
    }
}

/// A pattern's segment, owned by the path that is inserted.
enum Step {
    Literal(Box<str>),
    Any,
    Rest,
}

fn steps(pattern: &Pattern) -> impl Iterator<Item = Step> {
    pattern.segments().map(|segment| match segment {
        Segment::Literal(name) => Step::Literal(name.into()),
        Segment::Any => Step::Any,
        Segment::Rest => Step::Rest,
    })
}

/// Patterns and what hears them.
#[derive(Debug)]
pub struct Trie<T> {
    snapshot: ArcSwap<Node<T>>,
    /// Serialises writers; holds the next entry's id.
    writer: Mutex<u64>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(Node::default()),
            writer: Mutex::new(0),
        }
    }
}

impl<T> Trie<T> {
    /// Adds a subscription; the number it returns removes it again.
    pub fn insert(&self, pattern: &Pattern, value: Arc<T>) -> u64 {
        let mut next = self.writer.lock();
        let id = *next;
        *next += 1;
        let mut root = Node::clone(&self.snapshot.load());
        root.insert(steps(pattern), Entry { id, value });
        self.snapshot.store(Arc::new(root));
        id
    }

    /// Removes the subscription that [`Trie::insert`] added to this pattern under this number.
    pub fn remove(&self, pattern: &Pattern, id: u64) {
        let _writer = self.writer.lock();
        let mut root = Node::clone(&self.snapshot.load());
        root.remove(steps(pattern), id);
        self.snapshot.store(Arc::new(root));
    }

    /// Calls `found` for every subscription that hears the topic.
    pub fn matches(&self, topic: &Topic, mut found: impl FnMut(&Arc<T>)) {
        self.snapshot.load().visit(topic.as_str(), &mut found);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn pattern() -> impl Strategy<Value = Pattern> {
        (
            proptest::collection::vec(prop_oneof!["[abc]", Just("*".to_owned())], 1..5),
            any::<bool>(),
        )
            .prop_map(|(mut segments, rest)| {
                if rest {
                    segments.push(">".into());
                }
                segments.join(".").parse().unwrap()
            })
    }

    proptest! {
        /// The trie hears exactly what each pattern by itself matches, also after removals.
        #[test]
        fn agrees_with_the_matcher(
            patterns in proptest::collection::vec((pattern(), any::<bool>()), 0..40),
            topics in proptest::collection::vec("[abc](\\.[abc]){0,5}", 1..20),
        ) {
            let trie = Trie::default();
            let ids: Vec<u64> =
                patterns.iter().enumerate().map(|(n, (p, _))| trie.insert(p, Arc::new(n))).collect();
            for ((p, keep), id) in patterns.iter().zip(&ids) {
                if !keep {
                    trie.remove(p, *id);
                }
            }
            for topic in topics {
                let topic: Topic = topic.parse().unwrap();
                let mut found = Vec::new();
                trie.matches(&topic, |n| found.push(**n));
                found.sort_unstable();
                let expected: Vec<usize> = (0..patterns.len())
                    .filter(|&n| patterns[n].1 && patterns[n].0.matches(&topic))
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }

        /// Removing everything leaves nothing behind.
        #[test]
        fn removal_prunes(patterns in proptest::collection::vec(pattern(), 0..40)) {
            let trie = Trie::default();
            let ids: Vec<u64> = patterns.iter().map(|p| trie.insert(p, Arc::new(()))).collect();
            for (p, id) in patterns.iter().zip(ids) {
                trie.remove(p, id);
            }
            prop_assert!(trie.snapshot.load().is_empty());
        }
    }
}
