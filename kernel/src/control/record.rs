//! What operators change is in the audit log before it happens (K13).
//!
//! Changes of authority wait until they are sealed on disk: one that cannot be recorded is refused. What makes room on a full disk (`prune`,
//! dropping letters, forgetting) or saves what is there (`backup`) happens also without that, or nobody could help a log that takes nothing.

use astrid_wire::Problem;
use astrid_wire::control::Verb;
use astrid_wire::control::admin::Admin;
use serde_json::Value;

use super::Control;
use crate::audit::{Entry, Kind, Outcome, Refused};
use crate::bus::message::{Body, Message};

/// Problem code of what cannot be recorded.
const FAILED: &str = "audit.failed";

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::new(FAILED, refused.to_string()).with_hint("`astrid status` says how the audit log is")
    }
}

/// How a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// It changes nothing.
    Not,
    /// As the next, but when the log takes nothing it happens all the same, and what came of it is recorded once it takes entries again.
    Written,
    /// On disk, signed, before it happens; and what came of it.
    Sealed,
}

fn level(verb: Verb) -> Level {
    match verb {
        Verb::Admin(Admin::AuditPrune) => Level::Written,
        Verb::Admin(admin) if admin.changes() => Level::Sealed,
        Verb::CapsuleForget | Verb::DeadRetry | Verb::DeadDrop | Verb::Backup => Level::Written,
        Verb::Admin(_)
        | Verb::Status
        | Verb::Capsules
        | Verb::Capsule
        | Verb::Who
        | Verb::Interfaces
        | Verb::DeadList
        | Verb::DeadShow
        // Is recorded where it is answered.
        | Verb::Shutdown => Level::Not,
    }
}

/// What was asked, by whom, about whom.
fn entry(verb: Verb, message: &Message) -> Entry {
    let body: Value = serde_json::from_slice(&message.body.bytes).unwrap_or_default();
    let named = ["name", "path"].into_iter().find_map(|field| body.get(field)?.as_str());
    Entry::new(
        Kind::Admin,
        message.principal.as_str(),
        &format!("admin:{}", verb.name()),
    )
    .resource(named.unwrap_or_default())
    .detail(&String::from_utf8_lossy(&message.body.bytes))
}

impl Control {
    /// A daemon whose log takes nothing can be stopped all the same.
    pub(super) fn record_shutdown(&self, message: &Message) {
        drop(self.host.audit.write(entry(Verb::Shutdown, message)));
    }

    /// Does what was asked once it is recorded, and records what came of it.
    pub(super) async fn recorded(
        &self,
        verb: Verb,
        message: &Message,
        work: impl Future<Output = Result<Body, Problem>>,
    ) -> Result<Body, Problem> {
        let audit = &self.host.audit;
        let intent = match level(verb) {
            Level::Not => return work.await,
            // Also without a place in the log: see above.
            Level::Written => audit.seal(entry(verb, message).intent()).await.ok(),
            Level::Sealed => Some(audit.seal(entry(verb, message).intent()).await?),
        };
        let result = work.await;
        let about = match intent {
            Some(intent) => {
                let action = format!("admin:{}", verb.name());
                Entry::outcome_of(intent, message.principal.as_str(), &action, Outcome::Done)
            }
            None => entry(verb, message),
        };
        // It has happened, or it has not: that this cannot be recorded leaves an intent whose outcome is told as unknown.
        drop(audit.write(match &result {
            Ok(_) => about,
            Err(problem) => about.outcome(Outcome::Failed).detail(problem.message()),
        }));
        result
    }
}
