//! What the audit log is told of children: that one is about to start, before the keeper is asked; what came of it; and how it ended.

use std::path::Path;

use astrid_wire::child::Exit;

use super::held::Child;
use super::mount::{Seen, Taken};
use super::sandbox::Sandbox;
use crate::audit::{Audit, Entry, Kind, Outcome};
use crate::keeper::protocol::TreeLimit;

/// What is intended.
const SPAWN: &str = "child.spawn";

fn about(entry: Entry, child: &Child) -> Entry {
    entry.capsule(&child.owner.capsule)
}

/// It is about to start. Neither its arguments nor its environment: that is where people put secrets.
pub(super) fn intent(child: &Child, program: &Path, sandbox: &Sandbox, workspace: Option<&Seen>) -> Entry {
    let workspace = workspace.map_or_else(String::new, |seen| format!(" workspace={seen}"));
    about(Entry::new(Kind::Spawn, child.owner.principal.as_str(), SPAWN), child)
        .resource(&program.display().to_string())
        .detail(&format!("tag={}{workspace} sandbox={sandbox}", child.tag))
        .intent()
}

/// What came of it. That it cannot be recorded is known by then, and it has happened.
pub(super) fn outcome(audit: &Audit, child: &Child, intent: u64, outcome: Outcome, detail: &str) {
    let entry = Entry::outcome_of(intent, child.owner.principal.as_str(), SPAWN, outcome);
    drop(audit.write(about(entry, child).detail(detail)));
}

/// It ended; and what was taken over from its copy of a workspace, if it had one.
pub(super) fn exited(
    audit: &Audit,
    child: &Child,
    exit: &Exit,
    violation: Option<&str>,
    taken: Option<&Result<Taken, String>>,
) {
    let pid = child.pid().map_or_else(String::new, |pid| format!(" pid={pid}"));
    let entry = Entry::new(Kind::ChildExit, child.owner.principal.as_str(), "child.exit");
    let violation = violation.map_or_else(String::new, |violation| format!(" violation={violation}"));
    let taken = match taken {
        None => String::new(),
        Some(Ok(taken)) => format!(" {taken}"),
        Some(Err(error)) => format!(" unsaved={error}"),
    };
    let detail = format!("tag={}{pid} {exit:?}{violation}{taken}", child.tag);
    drop(audit.write(about(entry, child).detail(&detail)));
}

/// What the system ended it for, as far as that can be told from how it ended.
pub(super) fn violation(exit: &Exit, cpu_ms: u64, child: &Child) -> Option<String> {
    if let Some(why) = &*child.stored_too_much.lock() {
        return Some(why.clone());
    }
    named(exit, cpu_ms, child.cpu_seconds, &child.exceeded.lock())
}

fn named(exit: &Exit, cpu_ms: u64, cpu_seconds: Option<u64>, exceeded: &[TreeLimit]) -> Option<String> {
    let of_tree = exceeded.first().map(|limit| match limit {
        TreeLimit::Memory => "the memory of its whole tree was over (limits.tree-memory-bytes)",
        TreeLimit::Processes => "its whole tree was refused another process (limits.tree-processes)",
    });
    if let Some(of_tree) = of_tree {
        return Some(of_tree.to_owned());
    }
    let Exit::Signal { name, .. } = exit else { return None };
    let over = cpu_seconds.is_some_and(|seconds| cpu_ms >= seconds.saturating_mul(1000));
    let what = match name.as_str() {
        "SIGSYS" => "a system call that the sandbox ends a program for",
        "SIGXCPU" => "its processor time was over (limits.cpu-seconds)",
        "SIGKILL" if over => "its processor time was over, and it went on (limits.cpu-seconds)",
        "SIGXFSZ" => "a file grew too large (limits.file-bytes)",
        _ => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A18: what a program did that it was ended for is named.
    #[test]
    fn violations_are_named() {
        let of = |name: &str, cpu_ms| {
            let exit = Exit::Signal {
                number: 0,
                name: name.to_owned(),
                core: false,
            };
            named(&exit, cpu_ms, Some(2), &[]).unwrap_or_default()
        };
        assert!(of("SIGSYS", 0).contains("system call") && of("SIGXFSZ", 0).contains("file"));
        assert!(of("SIGXCPU", 0).contains("cpu-seconds") && of("SIGKILL", 2000).contains("cpu-seconds"));
        assert_eq!(
            (of("SIGKILL", 1999), of("SIGTERM", 2000)),
            (String::new(), String::new())
        );
        assert_eq!(named(&Exit::Code(1), 9000, Some(1), &[]), None);
        let of_tree = named(&Exit::Code(1), 0, None, &[TreeLimit::Memory]).unwrap_or_default();
        assert!(of_tree.contains("tree-memory-bytes"), "{of_tree}");
    }
}
