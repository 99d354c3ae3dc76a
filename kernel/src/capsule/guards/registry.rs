//! Who stands where: what manifests declare and the operator has granted, looked up by topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use astrid_wire::manifest::Manifest;
use astrid_wire::{Pattern, Topic};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use crate::authority::Gate;
use crate::bus::KERNEL_DOMAIN;
use crate::bus::trie::Trie;

/// Guards that run at once: each takes memory maps and an instance's memory, and takes long only when it misbehaves. Others wait.
const AT_ONCE_MAX: usize = 64;

/// Guards that are not there, of which status speaks.
const MISSING_SHOWN_MAX: usize = 16;

/// The epoch of a set that was never made. No policy has it.
const NEVER: u64 = 0;

/// One pattern, and who guards it.
#[derive(Debug)]
pub(super) struct Post {
    /// In which order: that in which capsules are loaded. Who is not there comes last.
    order: usize,
    pub(super) capsule: Arc<str>,
    pub(super) pattern: Pattern,
}

/// Guards of one topic, in order.
pub(super) type Posts = SmallVec<[Arc<Post>; 2]>;

/// All of them, by the policy of one epoch.
#[derive(Debug)]
struct Set {
    epoch: u64,
    is_empty: bool,
    posts: Trie<Post>,
}

impl Default for Set {
    fn default() -> Self {
        Self {
            epoch: NEVER,
            is_empty: true,
            posts: Trie::default(),
        }
    }
}

/// What each capsule that the daemon knows wants to guard, in the order of loading; also what cannot be loaded.
type Declared = BTreeMap<Arc<str>, (usize, Vec<Pattern>)>;

/// Who stands before which topics.
#[derive(Debug)]
pub struct Guards {
    declared: Mutex<Declared>,
    /// Made anew when the policy or what is declared has changed, by who looks next.
    set: ArcSwap<Set>,
    /// Lets so many run at once.
    pub(super) at_once: Semaphore,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            declared: Mutex::default(),
            set: ArcSwap::default(),
            at_once: Semaphore::new(AT_ONCE_MAX),
        }
    }
}

impl Guards {
    /// These are the capsules there are, in the order of loading, whether they can be loaded or not. Where one that the operator trusts
    /// with a topic is not among them, nothing is said on that topic.
    pub fn declare<'a>(&self, capsules: impl Iterator<Item = &'a Manifest>) {
        let mut declared = self.declared.lock();
        declared.clear();
        for (order, manifest) in capsules.enumerate() {
            let patterns = manifest.capabilities.guard.iter().flat_map(|asked| &asked.allow);
            declared.insert(manifest.name().into(), (order, patterns.cloned().collect()));
        }
        self.set.store(Arc::default());
    }

    /// What is closed because the operator trusts a capsule with it that is not there, for status.
    pub fn missing(&self, gate: &Gate) -> Vec<String> {
        let policy = gate.authority().policy();
        let declared = self.declared.lock();
        let missing = policy.guards().filter(|(capsule, _)| !declared.contains_key(*capsule));
        let shown = missing.map(|(capsule, patterns)| {
            let patterns: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
            let patterns = patterns.join(", ");
            format!("nothing can be said on {patterns}: {capsule} guards that, by etc/groups.toml, and is not there")
        });
        shown.take(MISSING_SHOWN_MAX).collect()
    }

    /// Who guards a topic against what that capsule says.
    pub(super) fn posts(&self, gate: &Gate, topic: &Topic, speaker: &str) -> Posts {
        let mut posts = Posts::new();
        let epoch = gate.authority().epoch();
        let mut set = self.set.load();
        if set.epoch != epoch {
            self.renew(gate);
            set = self.set.load();
        }
        if set.is_empty || topic.domain() == KERNEL_DOMAIN {
            return posts;
        }
        set.posts.matches(topic, |post| {
            // Several patterns of one guard may match: it is asked once.
            if *post.capsule != *speaker && !posts.iter().any(|other| other.capsule == post.capsule) {
                posts.push(Arc::clone(post));
            }
        });
        posts.sort_by(|one, other| (one.order, &one.capsule).cmp(&(other.order, &other.capsule)));
        posts
    }

    #[cold]
    fn renew(&self, gate: &Gate) {
        let declared = self.declared.lock();
        // In this order: what is found is at least as new as its epoch says.
        let epoch = gate.authority().epoch();
        let policy = gate.authority().policy();
        let mut set = Set {
            epoch,
            ..Set::default()
        };
        for (capsule, (order, patterns)) in &*declared {
            for pattern in patterns {
                if let Ok(permit) = gate.guard(capsule, pattern) {
                    set.add(*order, capsule, permit.into_object());
                }
            }
        }
        for (capsule, patterns) in policy.guards() {
            if !declared.contains_key(capsule) {
                let capsule = capsule.into();
                for pattern in patterns {
                    set.add(usize::MAX, &capsule, pattern.clone());
                }
            }
        }
        self.set.store(Arc::new(set));
    }
}

impl Set {
    fn add(&mut self, order: usize, capsule: &Arc<str>, pattern: Pattern) {
        self.is_empty = false;
        let post = Post {
            order,
            capsule: Arc::clone(capsule),
            pattern: pattern.clone(),
        };
        self.posts.insert(&pattern, Arc::new(post));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use astrid_wire::authority::GroupsFile;

    use super::*;
    use crate::authority::{Authority, Policy};

    fn policy(groups: &str) -> Policy {
        Policy::with_groups(&toml::from_str::<GroupsFile>(groups).unwrap()).unwrap()
    }

    fn manifest(name: &str, patterns: &str) -> Manifest {
        let text = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"d\"\nkernel = \"*\"\n
             [capabilities]\nguard = {{ allow = {patterns}, reason = \"r\" }}"
        );
        Manifest::parse(&text, "Capsule.toml").unwrap()
    }

    fn names(guards: &Guards, gate: &Gate, topic: &str, speaker: &str) -> Vec<String> {
        let posts = guards.posts(gate, &topic.parse().unwrap(), speaker);
        posts.iter().map(|post| post.capsule.to_string()).collect()
    }

    /// Granted and declared is a guard; either alone is none, but for one that is not there: its topics are closed.
    #[test]
    fn who_stands_where() {
        let authority = Authority::fixed(policy(
            r#"capsule.zed.grants = ["guard:files.v1.>"]
               capsule.abe.grants = ["guard:files.v1.read", "guard:files.v1.*"]
               capsule.gone.grants = ["guard:gone.v1.>"]"#,
        ));
        let gate = Gate::new(Arc::clone(&authority));
        let guards = Guards::default();
        let capsules = [
            manifest("zed", r#"["files.v1.>", "other.v1.>"]"#),
            manifest("abe", r#"["files.v1.read", "files.v1.*"]"#),
            manifest("eve", r#"[">"]"#),
        ];
        guards.declare(capsules.iter());
        // In the order of loading, each once; never against itself.
        assert_eq!(names(&guards, &gate, "files.v1.read", "x"), ["zed", "abe"]);
        assert_eq!(names(&guards, &gate, "files.v1.read", "zed"), ["abe"]);
        assert_eq!(names(&guards, &gate, "files.v1.a.b", "x"), ["zed"]);
        assert!(names(&guards, &gate, "other.v1.read", "x").is_empty(), "not granted");
        assert_eq!(names(&guards, &gate, "gone.v1.a", "x"), ["gone"]);
        // What is taken away is gone with the next message, and what is given is there.
        authority.replace(policy(r#"capsule.eve.grants = ["guard:>"]"#));
        assert_eq!(names(&guards, &gate, "files.v1.read", "x"), ["eve"]);
        assert!(names(&guards, &gate, "gone.v1.a", "eve").is_empty());
        assert!(names(&guards, &gate, "astrid.v1.request.status", "x").is_empty());
        authority.replace(policy(""));
        assert!(names(&guards, &gate, "files.v1.read", "x").is_empty());
    }
}
