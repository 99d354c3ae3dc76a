//! What operators change is in the audit log before it happens (K13).
//!
//! Changes wait until they are sealed on disk: one that cannot be recorded is refused. What makes room is recorded on a full disk in the room that is
//! kept for that. Some of it (`prune`, dropping letters, forgetting; on a full disk, rolling a workspace back) happens also without that, as does what
//! saves what is there (`backup`): or nobody could help a log that takes nothing.

use astrid_wire::Problem;
use astrid_wire::control::Verb;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::dead::Done;
use astrid_wire::control::workspace::{Committed, RolledBack};
use astrid_wire::problem::codes;
use serde_json::Value;

use super::Control;
use crate::audit::{Audit, Entry, Kind, Outcome, Reason, Refused};
use crate::authority::Edited;
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

/// Whether it makes room on the disk, and may have room for its entries that is kept for that: not for long ones.
fn makes_room(verb: Verb, message: &Message, body: Option<&Value>) -> bool {
    let said = |field: &str| body.map_or(&Value::Null, |body| &body[field]);
    let makes = match verb {
        // What begins by writing a profile (`agent.delete`) needs room itself.
        Verb::CapsuleForget | Verb::DeadDrop | Verb::Admin(Admin::WorkspaceDetach) => true,
        // To go back to a snapshot, or at some paths, things are made.
        Verb::Admin(Admin::WorkspaceRollback) => {
            said("to").is_null() && said("paths").as_array().is_none_or(Vec::is_empty)
        }
        Verb::Admin(Admin::WorkspaceSnapshot) => *said("remove") == true,
        _ => false,
    };
    makes && message.body.bytes.len() <= MAKES_ROOM_BYTES_MAX
}

/// Bytes of the body of a change that is recorded in the room that is kept.
const MAKES_ROOM_BYTES_MAX: usize = 4 << 10;

/// Bytes of the body of a change at most. All of it is recorded, whatever its length; a profile has no more itself.
const CHANGE_BYTES_MAX: usize = 64 << 10;

/// What was asked, by whom, about whom; all that was said, as it was understood: one form of each body, without what means nothing; and whether it
/// makes room.
fn entry(verb: Verb, message: &Message) -> Result<(Entry, String, bool), Problem> {
    if message.body.bytes.len() > CHANGE_BYTES_MAX {
        let text = format!("a change is said in at most {CHANGE_BYTES_MAX} bytes");
        return Err(Problem::new(codes::TOO_LARGE, text).with_hint("make it several"));
    }
    let body: Option<Value> = serde_json::from_slice(&message.body.bytes).ok();
    let named = |field| body.as_ref()?.get(field)?.as_str();
    let entry = Entry::new(
        Kind::Admin,
        message.principal.as_str(),
        &format!("admin:{}", verb.name()),
    );
    let entry = entry.resource(named("name").or_else(|| named("path")).unwrap_or_default());
    let makes_room = makes_room(verb, message, body.as_ref());
    let said = match &body {
        Some(body) => body.to_string(),
        // It will be refused, in these words or others.
        None => String::from_utf8_lossy(&message.body.bytes).into_owned(),
    };
    Ok((entry, said, makes_room))
}

/// What came of a request about several things, which is answered also when nothing could be done with some of them.
fn of_several(verb: Verb, body: &Body) -> Option<(Outcome, String)> {
    match verb {
        Verb::Admin(Admin::WorkspaceCommit) => return of_commit(body),
        Verb::Admin(Admin::WorkspaceRollback) => return of_rollback(body),
        Verb::DeadRetry | Verb::DeadDrop => {}
        _ => return None,
    }
    let done: Done = serde_json::from_slice(&body.bytes).ok()?;
    let said = match done.failed.first() {
        Some(first) => format!(
            "{} done, {} failed, the first: {}: {}",
            done.ids.len(),
            done.failed.len(),
            first.id,
            first.message
        ),
        None => format!("{} done", done.ids.len()),
    };
    let none = done.ids.is_empty() && !done.failed.is_empty();
    Some((if none { Outcome::Failed } else { Outcome::Done }, said))
}

/// What is gone with a rollback, in numbers.
fn of_rollback(body: &Body) -> Option<(Outcome, String)> {
    let RolledBack { changes, copy } = serde_json::from_slice(&body.bytes).ok()?;
    let said = format!(
        "dropped: {} added, {} modified, {} removed{}",
        changes.added,
        changes.modified,
        changes.removed,
        if copy {
            ", and a copy that was not taken back"
        } else {
            ""
        }
    );
    Some((Outcome::Done, said))
}

/// What a commit did, in numbers and as a digest over all of it; or what was in its way.
fn of_commit(body: &Body) -> Option<(Outcome, String)> {
    let Committed {
        done,
        changes,
        bytes,
        digest,
        conflicts,
        conflicts_total,
        left_out,
        remarks: _,
    } = serde_json::from_slice(&body.bytes).ok()?;
    if !done {
        let first = conflicts.first().map(|conflict| &*conflict.path).unwrap_or_default();
        return Some((
            Outcome::Failed,
            format!("{conflicts_total} conflicts, the first: {first}"),
        ));
    }
    let said = format!(
        "{} added, {} modified, {} removed, {bytes} bytes, {conflicts_total} conflicts written over, {} left out; BLAKE3 {digest}",
        changes.added,
        changes.modified,
        changes.removed,
        left_out.len()
    );
    Some((Outcome::Done, said))
}

/// Records what somebody changed in `etc/` by hand. It is in force already: a log that takes nothing says so itself.
pub(crate) fn record_edit(audit: &Audit, edited: &Edited) {
    let entry = Entry::kernel(Kind::Admin, "edited").resource(&edited.file);
    let now = edited.now.as_deref().unwrap_or("removed");
    drop(audit.write_whole(&entry, now));
}

impl Control {
    /// A daemon whose log takes nothing can be stopped all the same.
    pub(super) fn record_shutdown(&self, message: &Message) {
        if let Ok((entry, said, _)) = entry(Verb::Shutdown, message) {
            drop(self.host.audit.write(entry.detail(&said)));
        }
    }

    /// Does what was asked once it is recorded, and records what came of it.
    pub(super) async fn recorded(
        &self,
        verb: Verb,
        message: &Message,
        work: impl Future<Output = Result<Body, Problem>>,
    ) -> Result<Body, Problem> {
        let audit = &self.host.audit;
        let level = level(verb);
        if level == Level::Not {
            return work.await;
        }
        let rolls_back = verb == Verb::Admin(Admin::WorkspaceRollback);
        let (entry, said, makes_room) = entry(verb, message)?;
        let marked = |entry: Entry| if makes_room { entry.makes_room() } else { entry };
        let intent = match audit.seal_whole(&marked(entry.clone().intent()), &said).await {
            Ok(intent) => Some(intent),
            // Also without a place in the log: see above.
            Err(_) if level == Level::Written => None,
            Err(Refused::Failing(Reason::Full)) if makes_room && rolls_back => None,
            Err(refused) => return Err(refused.into()),
        };
        let result = work.await;
        let (how, came) = match &result {
            Ok(body) => of_several(verb, body).unwrap_or((Outcome::Done, String::new())),
            Err(problem) => (Outcome::Failed, problem.message().to_owned()),
        };
        // It has happened, or it has not: that this cannot be recorded leaves an intent whose outcome is told as unknown.
        drop(match intent {
            Some(intent) => {
                let action = format!("admin:{}", verb.name());
                let outcome = Entry::outcome_of(intent, message.principal.as_str(), &action, how);
                audit.write(marked(outcome.detail(&came)))
            }
            None => audit.write_whole(&marked(entry.outcome(how)), &format!("{said} {came}")),
        });
        result
    }
}
