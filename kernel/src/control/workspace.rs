//! What operators ask about workspaces: directories of the host, of which principals change a copy.
//!
//! Which directory is whose is said in the profile, by who holds everything (K9). All else walks directories, on a thread that may wait.

use std::path::Path;
use std::sync::Arc;

use astrid_wire::authority::Profile;
use astrid_wire::control::workspace::{
    Attach, Commit, Committed, Counts, Detach, Diff, Differences, List, PATHS_MAX, Rollback, RolledBack, Snapshot,
    SnapshotReport, WorkspaceReport, Workspaces as Listed, escape, unescape,
};
use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};

use super::Control;
use super::admin::no_principal;
use crate::audit::{Audit, Entry, Kind};
use crate::vfs::review::changes;
use crate::vfs::review::commit::{self, Fault as Stop, How};
use crate::vfs::review::plan::{self, Plan, What};
use crate::vfs::review::{self, Choice, Layers, ReviewError, diff, rollback, snapshot};
use crate::vfs::workspaces::{Alone, Removed, Unusable, UseError, Workspace, Workspaces, directory};

/// Problem code of what cannot be done while somebody uses the workspace.
const BUSY: &str = "busy";

/// Changes that a list counts at most.
const COUNTED_MAX: u64 = 100_000;

/// Workspaces of one answer at most: each is walked.
const LISTED_MAX: usize = 20;

/// Entries that are recorded before they are waited for.
const RECORDED_AT_ONCE: u64 = 1000;

impl From<ReviewError> for Problem {
    fn from(error: ReviewError) -> Self {
        let code = match &error {
            ReviewError::Path(_) | ReviewError::Snapshot(_) => codes::INVALID,
            ReviewError::TooMany { .. } | ReviewError::TooDeep { .. } | ReviewError::TooManySteps => codes::TOO_MANY,
            ReviewError::Raced { .. } => codes::CONFLICT,
            ReviewError::Refused { .. } => "refused",
            ReviewError::NoChange(_) => codes::NOT_FOUND,
            _ => codes::UNAVAILABLE,
        };
        let problem = Problem::new(code, error.to_string());
        match error.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }
}

impl From<UseError> for Problem {
    fn from(error: UseError) -> Self {
        match error {
            UseError::Busy { .. } => Problem::new(BUSY, error.to_string())
                .with_hint("end the programs that run in it (`astrid process list`), and try again"),
            UseError::Taken => Problem::new(BUSY, error.to_string()).with_hint("try again when it is done"),
            UseError::Torn => Problem::new(codes::UNAVAILABLE, error.to_string()).with_hint(
                "repair what keeps it from being completed, and try again; or say `astrid workspace detach --force`",
            ),
            UseError::Broken(_) => Problem::new(codes::UNAVAILABLE, error.to_string())
                .with_hint("repair what it says, and try again: the commit goes on where it stopped"),
            UseError::Unsaved(_) => Problem::new(codes::UNAVAILABLE, error.to_string()).with_hint(
                "repair what it says, and try again; or drop what that program did: `astrid workspace rollback`",
            ),
            UseError::Review(error) => error.into(),
        }
    }
}

/// What becomes of what a program did to its copy of a workspace, where that could not be taken back.
#[derive(Clone, Copy)]
enum Left {
    TakenBack,
    /// It stays until what is done with the workspace drops it.
    Stays,
}

fn unusable(principal: &Principal, error: &Unusable) -> Problem {
    let text = format!("the workspace of {principal} cannot be used: {error}");
    let lost = format!("`astrid workspace detach --force {principal}`, which drops what was not committed");
    let hint = match error {
        Unusable::None => {
            let problem = Problem::new(codes::NOT_FOUND, format!("{principal} has no workspace"));
            return problem.with_hint(format!("`astrid workspace attach DIR {principal}`"));
        }
        Unusable::Directory(_) | Unusable::Moved(_) => format!("put it back, and try again; or {lost}"),
        Unusable::Earlier => "they end within seconds; try again".to_owned(),
        Unusable::Unfinished(_) => {
            format!("repair what it says, and try again: the commit goes on where it stopped; or {lost}")
        }
        Unusable::Overlay(_) => format!("repair what it says, and try again; or {lost}"),
    };
    Problem::new(codes::UNAVAILABLE, text).with_hint(hint)
}

fn choice(paths: &[String]) -> Result<Choice, Problem> {
    if paths.len() > PATHS_MAX {
        return Err(Problem::new(
            codes::TOO_MANY,
            format!("a request names at most {PATHS_MAX} paths"),
        ));
    }
    Ok(Choice::of(
        paths.iter().map(|path| of_text(path)).collect::<Result<_, _>>()?,
    )?)
}

fn of_text(path: &str) -> Result<Vec<u8>, Problem> {
    unescape(path).ok_or_else(|| {
        let text = format!("{path:?} is no path: a backslash is written twice, other bytes as \\xNN");
        Problem::new(codes::INVALID, text)
    })
}

impl Control {
    /// Runs something that waits for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Workspaces) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let workspaces = Arc::clone(&self.host.files.workspaces);
        match tokio::task::spawn_blocking(move || work(&workspaces)).await {
            Ok(result) => result,
            Err(_) => Err(Problem::new(codes::UNAVAILABLE, "the daemon stops")),
        }
    }

    async fn in_workspace<T: Send + 'static>(
        &self,
        name: Principal,
        left: Left,
        work: impl FnOnce(&Workspace) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let whose = name.clone();
        let done = self.on_disk(move |workspaces| {
            let workspace = workspaces.of(&name).map_err(|error| unusable(&name, &error))?;
            match left {
                Left::TakenBack => workspace.take_back_left()?,
                Left::Stays => {}
            }
            work(&workspace)
        });
        let done = done.await;
        // Something else than an actor may have changed what it takes.
        let files = Arc::clone(&self.host.files);
        drop(tokio::task::spawn_blocking(move || files.count_again(&whose)).await);
        done
    }

    pub(super) async fn workspace_attach(&self, actor: Principal, attach: Attach) -> Result<WorkspaceReport, Problem> {
        let _one = self.naming.lock().await;
        let (name, home) = (attach.name, self.home.root().to_owned());
        let had = self.profile(&name)?.workspace;
        let path = self
            .on_disk(move |_| {
                let resolved = directory::resolve(Path::new(&attach.directory), &home);
                let resolved = resolved.map_err(|error| Problem::new(codes::INVALID, error.to_string()))?;
                Ok(resolved.display().to_string())
            })
            .await?;
        if had.as_ref() != Some(&path) {
            // What was written over another directory means nothing over this one.
            let (whose, over) = (name.clone(), path.clone());
            let again = had.is_none()
                && self
                    .on_disk(move |workspaces| Ok(workspaces.is_over(&whose, Path::new(&over))))
                    .await?;
            if !again {
                self.not_written(&name).await?;
                self.drop_overlay(&name, false).await?;
                if had.is_some() {
                    self.set_workspace(&actor, &name, None).await?;
                    // Somebody may have come back to the old one meanwhile.
                    self.drop_overlay(&name, false).await?;
                }
            }
            self.set_workspace(&actor, &name, Some(path)).await?;
        }
        self.in_workspace(name.clone(), Left::TakenBack, move |workspace| {
            Ok(report(name, workspace))
        })
        .await
    }

    pub(super) async fn workspace_detach(&self, actor: Principal, detach: Detach) -> Result<WorkspaceReport, Problem> {
        let _one = self.naming.lock().await;
        let name = detach.name;
        let attached = self.profile(&name)?.workspace;
        let whose = name.clone();
        let kept = self.on_disk(move |workspaces| Ok(workspaces.is_kept(&whose))).await?;
        if attached.is_none() && !kept {
            return Err(unusable(&name, &Unusable::None));
        }
        if !detach.force {
            self.not_written(&name).await?;
        }
        let (whose, directory) = (name.clone(), attached.clone().unwrap_or_default());
        let mut was = self
            .on_disk(move |workspaces| Ok(report_of(workspaces, whose, directory)))
            .await?;
        if was.users > 0 {
            return Err(UseError::Busy { users: was.users }.into());
        }
        // First: what cannot be dropped stays attached.
        let removed = self.drop_overlay(&name, detach.force).await?;
        if attached.is_some() {
            self.set_workspace(&actor, &name, None).await?;
            // Somebody may have come back to it meanwhile.
            self.drop_overlay(&name, true).await?;
        }
        was.problem = told_of(&removed);
        Ok(was)
    }

    fn profile(&self, name: &Principal) -> Result<Profile, Problem> {
        let policy = self.authority().policy();
        policy.profile(name).cloned().ok_or_else(|| no_principal(name))
    }

    async fn set_workspace(&self, actor: &Principal, name: &Principal, path: Option<String>) -> Result<(), Problem> {
        self.change(actor.clone(), name.clone(), move |profile| {
            profile.workspace = path;
            Ok(())
        })
        .await
        .map(drop)
    }

    async fn drop_overlay(&self, name: &Principal, force: bool) -> Result<Removed, Problem> {
        let whose = name.clone();
        let removed = self
            .on_disk(move |workspaces| Ok(workspaces.remove(&whose, force)?))
            .await?;
        if let Some(told) = told_of(&removed) {
            tracing::warn!(principal = %name, "a workspace was dropped: {told}");
        }
        Ok(removed)
    }

    /// That nothing would be lost.
    async fn not_written(&self, name: &Principal) -> Result<(), Problem> {
        let name = name.clone();
        self.on_disk(move |workspaces| {
            if !workspaces.is_kept(&name) {
                return Ok(());
            }
            let lost = |text: String| Err(Problem::new("changed", text));
            let workspace = match workspaces.of(&name) {
                Ok(workspace) => workspace,
                Err(_) if !workspaces.has_something(&name) => return Ok(()),
                // What is in it cannot be told; that there is something can.
                Err(error) => {
                    let text = format!(
                        "the workspace of {name} has something in it that would be dropped, and cannot be looked at: {error}"
                    );
                    return lost(text).map_err(|problem| {
                        problem.with_hint(format!(
                            "put that right, and commit; or say `astrid workspace detach --force {name}`"
                        ))
                    });
                }
            };
            workspace.take_back_left()?;
            let layers = workspace.open_layers()?;
            if changes::count(&layers, &Choice::all(), 1)?.all() == 0 && snapshot::list(workspace.overlay())?.is_empty() {
                return Ok(());
            }
            let text = format!("the workspace of {name} has changes or snapshots that would be dropped");
            lost(text).map_err(|problem| problem.with_hint(format!(
                "`astrid workspace diff {name}` shows them; commit them, or say `astrid workspace detach --force {name}`"
            )))
        })
        .await
    }

    pub(super) async fn workspace_list(&self, list: List) -> Result<Listed, Problem> {
        let policy = self.authority().policy();
        let mut attached: Vec<(Principal, String)> = policy
            .principals()
            .filter(|(name, _)| list.name.as_ref().is_none_or(|only| only == *name))
            .filter(|(name, _)| list.after.as_deref().is_none_or(|after| name.as_str() > after))
            .filter_map(|(name, _)| Some((name.clone(), policy.profile(name)?.workspace.clone()?)))
            .collect();
        attached.sort_unstable();
        let more = attached.len() > LISTED_MAX;
        attached.truncate(LISTED_MAX);
        let next = attached.last().filter(|_| more).map(|(name, _)| name.to_string());
        self.on_disk(move |workspaces| {
            let report = |(name, directory)| report_of(workspaces, name, directory);
            Ok(Listed {
                workspaces: attached.into_iter().map(report).collect(),
                next,
            })
        })
        .await
    }

    pub(super) async fn workspace_diff(&self, asked: Diff) -> Result<Differences, Problem> {
        let choice = choice(&asked.paths)?;
        let after = asked.after.as_deref().map(of_text).transpose()?;
        let names_only = asked.names_only;
        self.in_workspace(asked.name, Left::TakenBack, move |workspace| {
            let _look = workspace.look();
            let asked = diff::Asked {
                choice,
                after,
                names_only,
            };
            Ok(diff::page(&workspace.open_layers()?, &asked)?)
        })
        .await
    }

    pub(super) async fn workspace_commit(&self, actor: Principal, asked: Commit) -> Result<Committed, Problem> {
        let choice = choice(&asked.paths)?;
        let record = Record {
            audit: self.host.audit.clone(),
            actor,
            whose: asked.name.clone(),
            runtime: tokio::runtime::Handle::current(),
            written: 0,
        };
        self.in_workspace(asked.name, Left::TakenBack, move |workspace| {
            let alone = workspace.alone()?;
            Ok(committed(&alone, &choice, asked.force, record)?)
        })
        .await
    }

    pub(super) async fn workspace_rollback(&self, asked: Rollback) -> Result<RolledBack, Problem> {
        let choice = choice(&asked.paths)?;
        if asked.to.is_some() && !choice.is_all() {
            return Err(Problem::new(codes::INVALID, "a snapshot is gone back to as a whole"));
        }
        let left = match (&asked.to, choice.is_all()) {
            (None, false) => Left::TakenBack,
            _ => Left::Stays,
        };
        self.in_workspace(asked.name, left, move |workspace| {
            let copy = matches!(left, Left::Stays) && workspace.drop_left()?;
            let alone = workspace.alone()?;
            let layers = workspace.open_layers()?;
            // What cannot be looked at can be thrown away.
            let changes = changes::count(&layers, &choice, u64::MAX).unwrap_or_default();
            let overlay = workspace.overlay();
            if let Some(to) = &asked.to {
                alone.set_since(snapshot::find(overlay, to)?.since_ns)?;
                snapshot::restore(overlay, to)?;
            } else if choice.is_all() {
                rollback::all(overlay, &layers)?;
                alone.set_since(None)?;
            } else {
                has_all(&layers, &choice)?;
                for path in choice.paths() {
                    rollback::path(overlay, &layers, path)?;
                }
            }
            Ok(RolledBack { changes, copy })
        })
        .await
    }

    pub(super) async fn workspace_snapshot(&self, asked: Snapshot) -> Result<SnapshotReport, Problem> {
        let now_ms = self.host.deadlines.clock().wall_ms();
        self.in_workspace(asked.name, Left::TakenBack, move |workspace| {
            let _alone = workspace.alone()?;
            let overlay = workspace.overlay();
            Ok(if asked.remove {
                snapshot::remove(overlay, &asked.snapshot)?
            } else {
                snapshot::make(overlay, &asked.snapshot, now_ms, workspace.since_ns())?
            })
        })
        .await
    }
}

/// That there is a change at each path that was named, or below it. Of what cannot be looked at, nothing is said.
fn has_all(layers: &Layers, choice: &Choice) -> Result<(), ReviewError> {
    for path in choice.paths() {
        let only = Choice::of(vec![path.clone()])?;
        if changes::count(layers, &only, 1).is_ok_and(|counts| counts.all() == 0) {
            return Err(ReviewError::NoChange(review::brief(path)));
        }
    }
    Ok(())
}

/// What is to be said of a workspace that was dropped.
fn told_of(removed: &Removed) -> Option<String> {
    let torn = removed
        .torn
        .then(|| "a commit was half done: the directory has a part of it, and keeps just that".to_owned());
    let left = removed.left.as_ref().map(|error| {
        format!("what was written is still on the disk ({error}); the daemon tries again when it starts next")
    });
    let told: Vec<_> = torn.into_iter().chain(left).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// A workspace, as it is told; also when it cannot be used.
fn report_of(workspaces: &Workspaces, name: Principal, directory: String) -> WorkspaceReport {
    match workspaces.of(&name) {
        Ok(workspace) => report(name, &workspace),
        Err(error) => {
            let why = unusable(&name, &error);
            WorkspaceReport {
                bytes: workspaces.stored_bytes(&name).unwrap_or_default(),
                ..unlooked(name, directory, why.message())
            }
        }
    }
}

/// A workspace that is not looked into, and why.
fn unlooked(name: Principal, directory: String, why: &str) -> WorkspaceReport {
    WorkspaceReport {
        problem: Some(why.to_owned()),
        bytes: 0,
        name,
        directory,
        since_ms: None,
        changes: Counts::default(),
        users: 0,
        snapshots: Vec::new(),
    }
}

fn report(name: Principal, workspace: &Workspace) -> WorkspaceReport {
    let Some(_look) = workspace.look_now() else {
        return unlooked(
            name,
            workspace.lower().display().to_string(),
            "somebody works on it as a whole now: a commit, a rollback, a snapshot",
        );
    };
    let mut problem = workspace
        .unsaved()
        .map(|why| format!("what a program did to its copy is not taken back: {why}"));
    let mut told = |error: String| problem = Some(error);
    let counted = workspace
        .open_layers()
        .and_then(|layers| changes::count(&layers, &Choice::all(), COUNTED_MAX));
    let changes = counted.map_err(|error| told(error.to_string())).unwrap_or_default();
    let snapshots = snapshot::list(workspace.overlay()).map_err(|error| told(error.to_string()));
    let bytes = workspace.stored_bytes().map_err(|error| told(error.to_string()));
    let mounts = directory::mounts_below(workspace.lower());
    if !mounts.is_empty() && problem.is_none() {
        let named: Vec<_> = mounts.iter().map(|path| path.display().to_string()).collect();
        let more = if named.len() == directory::MOUNTS_NAMED_MAX {
            ", .."
        } else {
            ""
        };
        problem = Some(format!(
            "what is mounted below it is no part of the workspace: {}{more}",
            named.join(", ")
        ));
    }
    WorkspaceReport {
        directory: workspace.lower().display().to_string(),
        since_ms: workspace
            .since_ns()
            .and_then(|since| u64::try_from(since / 1_000_000).ok()),
        changes,
        bytes: bytes.unwrap_or_default(),
        users: workspace.users(),
        snapshots: snapshots.unwrap_or_default(),
        problem,
        name,
    }
}

/// Writes what a commit does into the log, before any of it is done.
struct Record {
    audit: Audit,
    actor: Principal,
    whose: Principal,
    runtime: tokio::runtime::Handle,
    written: u64,
}

impl Record {
    fn note(&mut self, path: &[u8], what: What, hash: Option<&blake3::Hash>) -> Result<(), ReviewError> {
        let done = match (what, hash) {
            (What::Put, Some(hash)) => format!("BLAKE3 {hash}"),
            (What::Put, None) => "a link, or a file that is mostly holes".to_owned(),
            (What::MakeDirectory, _) => "a directory is made".to_owned(),
            (What::SetMode | What::Open, _) => "a directory gets another mode".to_owned(),
            (What::Remove, _) => "it is removed".to_owned(),
        };
        let entry = Entry::new(Kind::FileWrite, self.actor.as_str(), "workspace.commit");
        let entry = entry
            .resource(&format!("{}: {}", self.whose, escape(path)))
            .detail(&done);
        let refused = |error: crate::audit::Refused| ReviewError::NotRecorded(error.to_string());
        self.audit.write(entry).map_err(refused)?;
        self.written += 1;
        if self.written.is_multiple_of(RECORDED_AT_ONCE) {
            // The queue of the log is bounded, and others write to it as well.
            drop(self.runtime.block_on(self.audit.flush()));
        }
        Ok(())
    }
}

fn committed(alone: &Alone<'_>, choice: &Choice, force: bool, mut record: Record) -> Result<Committed, UseError> {
    let workspace = alone.workspace();
    let layers = workspace.open_layers()?;
    let since_ns = workspace.since_ns();
    let plan = plan::make(&layers, choice, since_ns)?;
    let mut answer = Committed {
        done: false,
        changes: plan.changes,
        bytes: 0,
        digest: String::new(),
        conflicts: plan.conflicts.clone(),
        conflicts_total: plan.conflicts_total,
        left_out: plan.left_out.clone(),
        remarks: plan.remarks.clone(),
    };
    if !force {
        answer.remarks.extend(plan.kept_back.iter().cloned());
    }
    plan.has_all(choice)?;
    if plan.conflicts_total > 0 && !force {
        return Ok(answer);
    }
    let whole = choice.is_all() && plan.left_out.is_empty();
    // What else was in the way before is told apart from what this commit will change itself.
    let rest = if whole {
        Plan::default()
    } else {
        plan::make(&layers, &Choice::all(), since_ns)?
    };
    let how = How { whole, force };
    let before_ns = workspace.now_ns().map_err(|source| unwritable(workspace, source))?;
    let done = commit::commit(
        workspace.overlay(),
        &layers,
        &plan,
        how,
        &mut Stop::default(),
        &mut |path, what, hash| record.note(path, what, hash),
    )
    .inspect_err(|error| alone.must_recover(error))?;
    answer.done = true;
    answer.bytes = done.bytes;
    answer.digest = done.digest.to_hex().to_string();
    if whole {
        alone.set_since(None)?;
    } else if rest.conflicts_total == plan.conflicts_total {
        renew(alone, before_ns)?;
    }
    Ok(answer)
}

fn unwritable(workspace: &Workspace, source: std::io::Error) -> ReviewError {
    ReviewError::Io {
        action: "write",
        path: workspace.overlay().display().to_string(),
        source,
    }
}

/// After a part was committed, and nothing else was in the way: what this commit changed in the lower itself is no conflict with the rest.
fn renew(alone: &Alone<'_>, before_ns: i128) -> Result<(), UseError> {
    let workspace = alone.workspace();
    let now = workspace.now_ns().map_err(|source| unwritable(workspace, source))?;
    let plan = plan::make(&workspace.open_layers()?, &Choice::all(), Some(before_ns))?;
    let ours = plan
        .conflicts
        .iter()
        .filter(|conflict| conflict.why == plan::IN_DIRECTORY)
        .count() as u64;
    if ours == plan.conflicts_total {
        alone.set_since(Some(now))?;
    }
    Ok(())
}
