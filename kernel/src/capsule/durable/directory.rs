//! Finds actors by what is on disk about them: the name of their capsule, and which of its actors they are.

use std::sync::{Arc, Weak};

use dashmap::DashMap;

use crate::capsule::actor::Actor;
use crate::capsule::actors::Actors;
use crate::store::table::{Kind, Scope, Table};

/// Whose something is, over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The capsule.
    pub capsule: Arc<str>,
    /// Which of its actors.
    pub scope: Scope,
}

impl Owner {
    /// Whose table that is.
    pub fn of(table: &Table) -> Option<Self> {
        let (capsule, scope) = table.owner()?;
        Some(Self {
            capsule: capsule.into(),
            scope,
        })
    }

    /// Its table of that kind.
    pub fn table(&self, kind: Kind) -> Table {
        Table::of(kind, &self.capsule, &self.scope)
    }
}

/// The capsules that run, by name.
#[derive(Default)]
pub struct Directory(DashMap<Arc<str>, Weak<Actors>, ahash::RandomState>);

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory").field("capsules", &self.0.len()).finish()
    }
}

impl Directory {
    /// A capsule runs.
    pub fn add(&self, actors: &Arc<Actors>) {
        self.0
            .insert(Arc::clone(&actors.capsule().name), Arc::downgrade(actors));
    }

    /// A capsule does not run any more.
    pub fn remove(&self, actors: &Actors) {
        let name = &actors.capsule().name;
        self.0
            .remove_if(name, |_, present| std::ptr::eq(present.as_ptr(), actors));
    }

    /// The actors of a capsule that runs.
    pub fn actors(&self, capsule: &str) -> Option<Arc<Actors>> {
        self.0.get(capsule)?.upgrade()
    }

    /// All capsules that run, by name.
    pub fn all(&self) -> Vec<Arc<Actors>> {
        let mut all: Vec<_> = self.0.iter().filter_map(|actors| actors.upgrade()).collect();
        all.sort_unstable_by(|a, b| a.capsule().name.cmp(&b.capsule().name));
        all
    }

    /// An actor, activated if it is not there. `None` when its capsule does not run, or has no such actor any more.
    pub fn actor(&self, owner: &Owner) -> Option<Arc<Actor>> {
        self.actors(&owner.capsule)?.of_scope(&owner.scope)
    }
}
