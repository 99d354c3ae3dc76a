//! How a principal is deleted, with everything that is kept for it; and that one who is made begins with nothing.
//!
//! In an order in which no crash leaves a name that could be given to somebody else while something is kept under it: it is disabled first, on
//! disk; then everything is forgotten; its profile goes last. What was cut short is done by deleting it again. A profile that somebody removed
//! by hand has deleted nothing: no principal is made under that name until `agent.delete` has.

use std::sync::Arc;

use astrid_wire::authority::Profile;
use astrid_wire::control::admin::{AgentDeleted, Dropped, Named};
use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};

use super::Control;
use super::admin::{no_principal, not_oneself, report};
use crate::capsule::durable::departed::{self, DepartError};
use crate::store::Refused;

impl From<DepartError> for Problem {
    fn from(error: DepartError) -> Self {
        let hint = match &error {
            DepartError::Busy(_) => "try again; see `astrid status` for what keeps on failing",
            _ => "delete it again when the store works; `astrid status` says how it is",
        };
        Problem::new(codes::UNAVAILABLE, error.to_string()).with_hint(hint)
    }
}

impl Control {
    /// Deletes a principal, and whatever is kept under its name.
    pub(super) async fn delete(&self, actor: Principal, named: Named) -> Result<AgentDeleted, Problem> {
        let name = named.name;
        not_oneself(&actor, &name, "delete")?;
        let _one = self.naming.lock().await;
        let was = self.disable_for_good(&actor, &name).await?;
        let dropped = departed::forget(&self.host, &name).await?;
        if was.is_none() && dropped == Dropped::default() {
            return Err(no_principal(&name));
        }
        self.forget_usage(&name).await?;
        self.host.files.forget(&name);
        self.remove_directories(&name).await?;
        if was.is_some() {
            self.edit(actor.clone(), name.clone(), |_| Ok(None)).await?;
        }
        tracing::warn!(principal = %actor, target = %name, ?dropped, "a principal is deleted, with what was kept for it");
        let nobody = Profile {
            enabled: false,
            ..Profile::default()
        };
        Ok(AgentDeleted {
            agent: report(name, &was.unwrap_or(nobody)),
            dropped,
        })
    }

    /// From here on nobody acts as it, also after a crash. What its profile was, if it has one.
    async fn disable_for_good(&self, actor: &Principal, name: &Principal) -> Result<Option<Profile>, Problem> {
        let (found, was) = std::sync::mpsc::sync_channel(1);
        let whom = name.clone();
        let disabled = self.edit(actor.clone(), name.clone(), move |old| {
            let Some(old) = old else {
                return Err(no_principal(&whom));
            };
            // There is room for one.
            found.try_send(old.clone()).ok();
            Ok(Some(Profile { enabled: false, ..old }))
        });
        match disabled.await {
            Ok(_) => Ok(was.try_recv().ok()),
            Err(problem) if problem.code() == codes::NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// Whoever is made under that name has used nothing, and nothing is kept for it.
    pub(super) async fn begins_with_nothing(&self, name: &Principal) -> Result<(), Problem> {
        if self.authority().policy().knows(name) {
            // It is not made anew: that is told where its profile is read.
            return Ok(());
        }
        if departed::is_kept(&self.host, name).await? || self.host.blobs.usage(name) > 0 {
            let text =
                format!("something is kept for an earlier principal named {name}, and nobody else is given that");
            let hint = format!("`astrid agent delete {name}` drops it; or give the new one another name");
            return Err(Problem::new("exists", text).with_hint(hint));
        }
        self.forget_usage(name).await
    }

    async fn forget_usage(&self, name: &Principal) -> Result<(), Problem> {
        let epoch = self.host.store.epoch();
        let forgotten = async {
            let number = self.host.ledger.forget(name)?;
            self.host.store.settled(number, epoch).await?;
            Ok::<_, Refused>(())
        };
        Ok(forgotten.await.map_err(DepartError::from)?)
    }

    async fn remove_directories(&self, name: &Principal) -> Result<(), Problem> {
        let (whose, blobs) = (name.clone(), Arc::clone(&self.host.blobs));
        let files = Arc::clone(&self.host.files);
        let remove = move || {
            // What is open of them is nobody's afterwards, and counts for nobody.
            files.forget(&whose);
            blobs.release_all(&whose).map_err(std::io::Error::other)?;
            files.remove_directories(&whose)
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        let removed = removed.map_err(|_| DepartError::Stopping)?;
        removed.map_err(|error| {
            let text = format!("what {name} has in the home cannot be removed: {error}");
            Problem::new(codes::UNAVAILABLE, text).with_hint(
                "make home/, log/children/, var/overlays/, var/tmp/ and var/blobs/ writable, and delete it again",
            )
        })
    }
}
