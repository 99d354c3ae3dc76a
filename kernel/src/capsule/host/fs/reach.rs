//! From what a guest says to what is done: two decisions, what is recorded, what is counted, and by which thread.

use std::sync::Arc;

use astrid_wire::authority::Action;

use super::super::bindings::astrid::kernel::fs::FsError;
use crate::audit::{self, Outcome};
use crate::authority::{FileScope, Permit};
use crate::capsule::files::{Files, Owned, Spending};
use crate::capsule::guest::Guest;
use crate::ledger::{Account, Limit};
use crate::vfs::Tree;
use crate::vfs::error::FsError as Failed;
use crate::vfs::path::{Follow, Place, VirtualPath};

/// Whose files, and which.
#[derive(Clone)]
pub(super) struct Reached {
    pub(super) tree: Arc<Tree>,
    pub(super) files: Arc<Files>,
    pub(super) owned: Arc<Owned>,
    pub(super) account: Arc<Account>,
}

impl Reached {
    pub(super) fn spend(&self) -> Result<Spending<'_>, Failed> {
        self.owned.spend(&self.files, &self.account)
    }
}

/// How much of a place is asked for, when it is known where it is.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    One,
    Names,
    All,
}

impl Extent {
    fn of<'a>(self, path: &'a str) -> FileScope<'a> {
        match self {
            Self::One => FileScope::One(path),
            Self::Names => FileScope::Names(path),
            Self::All => FileScope::All(path),
        }
    }
}

impl Guest {
    /// Does what may take long elsewhere, as long as this handling may last.
    pub(super) async fn elsewhere<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> Result<T, FsError> + Send + 'static,
    ) -> Result<T, FsError> {
        self.aside(work)
            .await
            .unwrap_or_else(|lost| Err(FsError::Failed(lost.to_string())))
    }

    pub(super) fn decide<T>(
        &self,
        action: Action,
        path: &VirtualPath,
        extent: Extent,
        found: T,
    ) -> Result<Permit<T>, FsError> {
        let resource = path.resource();
        let decided = self
            .host()
            .gate
            .file(self.subject(), action, &extent.of(&resource), found);
        Ok(decided.map_err(|denied| self.refused(denied))?)
    }

    /// The path, if this may be done there, and the tree that it is in.
    pub(super) fn reach(&self, path: &str, action: Action, extent: Extent) -> Result<(VirtualPath, Reached), FsError> {
        let path = VirtualPath::parse(path)?;
        self.decide(action, &path, extent, ())?.into_object();
        let files = &self.host().files;
        let tree = files.tree(&self.principal, path.scheme())?;
        Ok((path, self.reached(tree)))
    }

    /// Follows links, and decides again on where they lead.
    pub(super) fn place(
        &self,
        reached: &Reached,
        path: &VirtualPath,
        follow: Follow,
        (action, extent): (Action, Extent),
    ) -> Result<Permit<Place>, FsError> {
        let place = reached.tree.resolve(path, follow)?;
        if place.path() == path {
            // Decided already, on the same words.
            return self.decide(action, path, extent, place);
        }
        let path = place.path().clone();
        self.decide(action, &path, extent, place)
    }

    pub(super) fn found(
        &self,
        path: &str,
        follow: Follow,
        what: (Action, Extent),
    ) -> Result<(Permit<Place>, Reached), FsError> {
        let (path, reached) = self.reach(path, what.0, what.1)?;
        let place = self.place(&reached, &path, follow, what)?;
        Ok((place, reached))
    }

    /// Counts it among what this handling was allowed.
    pub(super) fn count(&mut self, action: Action) {
        self.at_once.add(action);
    }

    pub(super) fn entry(&self, action: &str, place: &Place) -> audit::Entry {
        audit::Entry::new(audit::Kind::FileWrite, self.principal.as_str(), action)
            .capsule(self.actor.capsule_name())
            .resource(&place.resource())
    }

    /// Records a change that is about to happen. What cannot be recorded does not happen.
    pub(super) fn record(&self, action: &str, place: &Place, detail: &str) -> Result<(), FsError> {
        Ok(self.host().audit.write(self.entry(action, place).detail(detail))?)
    }

    /// Tells what became of a change that was recorded, when it did not happen.
    pub(super) fn told<T>(&mut self, action: &str, place: &Place, result: Result<T, FsError>) -> Result<T, FsError> {
        if let Err(error) = &result {
            let entry = self.entry(action, place).outcome(Outcome::Failed);
            // It has not happened; that the log takes nothing, it says itself.
            drop(self.host().audit.write(entry.detail(&format!("not done: {error:?}"))));
        }
        result
    }

    /// A quota that refused is told as that, also to who asked for all of this.
    pub(super) fn over_storage(&mut self, failed: &FsError) {
        let account = &self.payer.account;
        // Without a limit it was the disk that was full.
        if !matches!(failed, FsError::NoSpace(_)) || !account.pays_for_storage() {
            return;
        }
        let more_than_there_is = account.storage_room().saturating_add(1);
        if let Err(exceeded) = account.hold(Limit::Storage, more_than_there_is) {
            self.over(exceeded);
        }
    }

    /// A change that is quick, made here.
    pub(super) fn change<T>(
        &mut self,
        (action, detail): (&str, &str),
        place: Permit<Place>,
        reached: &Reached,
        change: impl FnOnce(&Tree, &Place, &mut Spending<'_>) -> Result<T, Failed>,
    ) -> Result<T, FsError> {
        let place = place.into_object();
        self.record(action, &place, detail)?;
        self.count(Action::FsWrite);
        let done = reached
            .spend()
            .and_then(|mut spending| change(&reached.tree, &place, &mut spending));
        let done = done.map_err(FsError::from);
        if let Err(failed) = &done {
            self.over_storage(failed);
        }
        self.told(action, &place, done)
    }

    /// A change that may take long.
    pub(super) async fn change_elsewhere<T: Send + 'static>(
        &mut self,
        (action, detail): (&'static str, &str),
        place: Permit<Place>,
        reached: &Reached,
        change: impl FnOnce(&Tree, &Place, &mut Spending<'_>) -> Result<T, FsError> + Send + 'static,
    ) -> Result<T, FsError> {
        let place = place.into_object();
        self.record(action, &place, detail)?;
        self.count(Action::FsWrite);
        let (there, reached) = (place.clone(), reached.clone());
        let work = move || change(&reached.tree, &there, &mut reached.spend()?);
        let done = self.elsewhere(work).await;
        if let Err(failed) = &done {
            self.over_storage(failed);
        }
        self.told(action, &place, done)
    }

    pub(super) fn reached(&self, tree: Arc<Tree>) -> Reached {
        let files = &self.host().files;
        Reached {
            tree,
            files: Arc::clone(files),
            owned: files.of(&self.principal),
            account: Arc::clone(&self.payer.account),
        }
    }
}
