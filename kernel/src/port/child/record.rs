//! What the audit log is told of children: that one is about to start, before the keeper is asked; what came of it; and how it ended.

use std::path::Path;

use astrid_wire::child::Exit;

use super::held::Child;
use crate::audit::{Audit, Entry, Kind, Outcome};

/// What is intended.
const SPAWN: &str = "child.spawn";

fn about(entry: Entry, child: &Child) -> Entry {
    entry.capsule(&child.owner.capsule)
}

/// It is about to start. Neither its arguments nor its environment: that is where people put secrets.
pub(super) fn intent(child: &Child, program: &Path) -> Entry {
    about(Entry::new(Kind::Spawn, child.owner.principal.as_str(), SPAWN), child)
        .resource(&program.display().to_string())
        .detail(&format!("tag={}", child.tag))
        .intent()
}

/// What came of it. That it cannot be recorded is known by then, and it has happened.
pub(super) fn outcome(audit: &Audit, child: &Child, intent: u64, outcome: Outcome, detail: &str) {
    let entry = Entry::outcome_of(intent, child.owner.principal.as_str(), SPAWN, outcome);
    drop(audit.write(about(entry, child).detail(detail)));
}

/// It ended.
pub(super) fn exited(audit: &Audit, child: &Child, exit: &Exit) {
    let pid = child.pid().map_or_else(String::new, |pid| format!(" pid={pid}"));
    let entry = Entry::new(Kind::ChildExit, child.owner.principal.as_str(), "child.exit");
    let detail = format!("tag={}{pid} {exit:?}", child.tag);
    drop(audit.write(about(entry, child).detail(&detail)));
}
