//! What administrators ask (K8): principals, groups, what each may do and use.
//!
//! That somebody may ask is decided by the gate before it comes here (`admin:<verb>`, on the operator socket); what somebody may make of
//! whom is decided by [`may_change`] and [`may_change_group`] under the lock of the one writer (K9). A change is on disk and in force
//! when it is answered.

use std::sync::Arc;
use std::time::Duration;

use astrid_wire::authority::{Capability, Group, GroupsFile, Profile};
use astrid_wire::control::admin::{
    Admin, AgentCreate, AgentModify, AgentReport, Agents, Change, Checked, GroupCreate, GroupModify, GroupReport,
    Groups, Named, NamedGroup, PAGE_MAX, Page, Question, QuotaReport, QuotaSet, REQUEST_ID, REQUEST_ID_BYTES_MAX,
    UsageGet,
};
use astrid_wire::control::audit::Nothing;
use astrid_wire::manifest::CapsuleName;
use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem, Quota};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Control;
use crate::authority::{
    Authority, Check, EditError, Forbidden, Policy, PolicyError, may_change, may_change_group, may_give,
};
use crate::bus::message::{Body, Message};
use crate::store::engine::EngineError;

/// Group of a principal when nothing was said.
const USUAL_GROUP: &str = "agent";

/// How long the handling of a question may take to be counted.
const USAGE_SETTLES: Duration = Duration::from_millis(50);

/// Rows of a page when nothing was said.
const PAGE: u32 = 100;

/// A body, and the id that its answer has again.
struct Asked {
    id: Option<Value>,
    body: Value,
}

impl Asked {
    fn read(message: &Message) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::new(codes::INVALID, format!("the body is not what is asked here: {why}"));
        let bytes: &[u8] = if message.body.bytes.is_empty() {
            b"{}"
        } else {
            &message.body.bytes
        };
        let mut body: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let id = body.remove(REQUEST_ID);
        match &id {
            None => {}
            Some(Value::String(id)) if id.len() <= REQUEST_ID_BYTES_MAX => {}
            Some(_) => {
                return Err(wrong(format!(
                    "`{REQUEST_ID}` is a text of at most {REQUEST_ID_BYTES_MAX} bytes"
                )));
            }
        }
        Ok(Self {
            id,
            body: Value::Object(body),
        })
    }

    fn parse<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let body = self.body.take();
        serde_json::from_value(body)
            .map_err(|error| Problem::new(codes::INVALID, format!("the body is not what is asked here: {error}")))
    }
}

fn answer(id: Option<Value>, what: &impl Serialize) -> Result<Body, Problem> {
    let mut value = serde_json::to_value(what).map_err(|error| Problem::new(codes::UNAVAILABLE, error.to_string()))?;
    if let (Value::Object(answer), Some(id)) = (&mut value, id) {
        answer.insert(REQUEST_ID.to_owned(), id);
    }
    Ok(Body::json(&value))
}

impl From<Forbidden> for Problem {
    fn from(forbidden: Forbidden) -> Self {
        Problem::new(codes::DENIED, forbidden.to_string())
            .with_hint("another administrator can, or whoever may edit the files under etc/")
    }
}

fn refused(error: PolicyError) -> Problem {
    let code = match &error {
        PolicyError::NoPrincipal(_) => codes::NOT_FOUND,
        PolicyError::Io { .. } => codes::UNAVAILABLE,
        _ => codes::INVALID,
    };
    let problem = Problem::new(code, error.to_string());
    match error.hint() {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

fn exists(what: &str) -> Problem {
    Problem::new("exists", format!("{what} exists already"))
}

fn missing(what: &str, hint: &str) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no {what}")).with_hint(hint)
}

pub(super) fn report(name: Principal, profile: &Profile) -> AgentReport {
    AgentReport {
        name,
        enabled: profile.enabled,
        groups: profile.groups.clone(),
        grants: profile.grants.clone(),
        revokes: profile.revokes.clone(),
        keys: profile.keys.clone(),
        weight: profile.weight,
        workspace: profile.workspace.clone(),
        quota: profile.quota,
    }
}

fn group_report(policy: &Policy, name: &str) -> GroupReport {
    let in_it = |profile: &Profile| profile.groups.iter().any(|group| group == name);
    let members = policy
        .principals()
        .filter(|(who, _)| policy.profile(who).is_some_and(in_it));
    GroupReport {
        name: name.to_owned(),
        built_in: astrid_wire::authority::BUILT_IN_GROUPS
            .iter()
            .any(|group| group.name == name),
        grants: policy.group(name).unwrap_or_default(),
        members: members.count() as u64,
    }
}

/// A page of names in order, and where the next begins.
fn page<'a, T>(all: impl Iterator<Item = (&'a str, T)>, asked: &Page) -> (Vec<(&'a str, T)>, Option<String>) {
    let max = asked.max.unwrap_or(PAGE).clamp(1, PAGE_MAX) as usize;
    let after = asked.after.as_deref();
    let mut rest: Vec<_> = all
        .filter(|(name, _)| after.is_none_or(|after| *name > after))
        .collect();
    rest.sort_unstable_by_key(|(name, _)| *name);
    let more = rest.len() > max;
    rest.truncate(max);
    let next = rest.last().filter(|_| more).map(|(name, _)| (*name).to_owned());
    (rest, next)
}

impl Control {
    pub(super) fn authority(&self) -> &Arc<Authority> {
        self.host.gate.authority()
    }

    /// Answers one. Waits for the disk where something changes.
    pub(super) async fn admin(&self, admin: Admin, message: &Message) -> Result<Body, Problem> {
        let mut asked = Asked::read(message)?;
        let id = asked.id.take();
        let actor = message.principal.clone();
        match admin {
            Admin::AgentCreate => answer(id, &self.create(actor, asked.parse()?).await?),
            Admin::AgentDelete => answer(id, &self.delete(actor, asked.parse()?).await?),
            Admin::AgentEnable => answer(id, &self.enable(actor, asked.parse()?, true).await?),
            Admin::AgentDisable => answer(id, &self.enable(actor, asked.parse()?, false).await?),
            Admin::AgentModify => answer(id, &self.modify(actor, asked.parse()?).await?),
            Admin::AgentList => answer(id, &self.agents(&asked.parse()?)),
            Admin::GroupCreate => answer(id, &self.create_group(actor, asked.parse()?).await?),
            Admin::GroupDelete => answer(id, &self.delete_group(actor, asked.parse()?).await?),
            Admin::GroupModify => answer(id, &self.modify_group(actor, asked.parse()?).await?),
            Admin::GroupList => answer(id, &self.groups(&asked.parse()?)),
            Admin::CapsGrant => answer(id, &self.grant(actor, asked.parse()?).await?),
            Admin::CapsRevoke => answer(id, &self.revoke(actor, asked.parse()?).await?),
            Admin::CapsCheck => {
                let allowed = self.explain(&asked.parse()?)?.allowed;
                answer(id, &Checked { allowed })
            }
            Admin::CapsExplain => answer(id, &self.explain(&asked.parse()?)?),
            Admin::QuotaGet => answer(id, &self.quota(&asked.parse()?)?),
            Admin::QuotaSet => answer(id, &self.set_quota(actor, asked.parse()?).await?),
            Admin::UsageGet => answer(id, &self.usage(asked.parse()?).await?),
            Admin::UsageWatch => answer(id, &{
                let nothing: Nothing = asked.parse()?;
                self.usage_changes(message).await;
                nothing
            }),
            Admin::AuditStats => answer(id, &{
                let Nothing {} = asked.parse()?;
                self.audit_stats().await?
            }),
            Admin::AuditVerify => answer(id, &{
                let Nothing {} = asked.parse()?;
                self.audit_verify().await?
            }),
            Admin::AuditPrune => answer(id, &self.audit_prune(asked.parse()?).await?),
            Admin::AuditRotate => answer(id, &{
                let Nothing {} = asked.parse()?;
                self.audit_rotate().await?
            }),
            Admin::WorkspaceAttach => answer(id, &self.workspace_attach(actor, asked.parse()?).await?),
            Admin::WorkspaceDetach => answer(id, &self.workspace_detach(actor, asked.parse()?).await?),
            Admin::WorkspaceList => answer(id, &self.workspace_list(asked.parse()?).await?),
            Admin::WorkspaceDiff => answer(id, &self.workspace_diff(asked.parse()?).await?),
            Admin::WorkspaceCommit => answer(id, &self.workspace_commit(actor, asked.parse()?).await?),
            Admin::WorkspaceRollback => answer(id, &self.workspace_rollback(asked.parse()?).await?),
            Admin::WorkspaceSnapshot => answer(id, &self.workspace_snapshot(asked.parse()?).await?),
        }
    }

    /// Makes of a profile what `change` says, if `actor` may; on disk and in force when this returns.
    pub(super) async fn edit(
        &self,
        actor: Principal,
        target: Principal,
        change: impl FnOnce(Option<Profile>) -> Result<Option<Profile>, Problem> + Send + 'static,
    ) -> Result<AgentReport, Problem> {
        let authority = Arc::clone(self.authority());
        let (by, whom) = (actor.clone(), target.clone());
        let edited = tokio::task::spawn_blocking(move || {
            let mut shown = Profile::default();
            let edited = authority.edit_profile(&target, |policy, old| {
                let new = change(old.clone())?;
                may_change(policy, &actor, &target, old.as_ref(), new.as_ref())?;
                if let Some(profile) = new.as_ref().or(old.as_ref()) {
                    shown.clone_from(profile);
                }
                Ok(new)
            });
            edited.map(|_| report(target.clone(), &shown))
        });
        let done = finished(edited.await)?;
        // Closed, stopped and limited when this is answered, and not a moment later.
        self.host.enforce();
        tracing::info!(principal = %by, target = %whom, "a profile is changed");
        Ok(done)
    }

    async fn create(&self, actor: Principal, create: AgentCreate) -> Result<AgentReport, Problem> {
        let name = create.name.clone();
        if name.is_anonymous() {
            let problem = Problem::new(codes::INVALID, "`anonymous` is whoever has not shown who they are");
            return Err(problem.with_hint("give it another name"));
        }
        let _one = self.naming.lock().await;
        self.begins_with_nothing(&name).await?;
        self.edit(actor, name, move |old| match old {
            Some(_) => Err(exists(&format!("the principal {}", create.name))),
            None => Ok(Some(Profile {
                groups: create.groups.unwrap_or_else(|| vec![USUAL_GROUP.to_owned()]),
                grants: create.grants,
                keys: create.keys,
                quota: create.quota,
                ..Profile::default()
            })),
        })
        .await
    }

    async fn enable(&self, actor: Principal, named: Named, enabled: bool) -> Result<AgentReport, Problem> {
        if !enabled {
            not_oneself(&actor, &named.name, "disable")?;
        }
        self.change(actor, named.name, move |profile| {
            profile.enabled = enabled;
            Ok(())
        })
        .await
    }

    /// As [`Control::edit`], of a profile that is there.
    pub(super) async fn change(
        &self,
        actor: Principal,
        target: Principal,
        change: impl FnOnce(&mut Profile) -> Result<(), Problem> + Send + 'static,
    ) -> Result<AgentReport, Problem> {
        let whom = target.clone();
        self.edit(actor, target, move |old| {
            let mut profile = old.ok_or_else(|| no_principal(&whom))?;
            change(&mut profile)?;
            Ok(Some(profile))
        })
        .await
    }

    async fn modify(&self, actor: Principal, modify: AgentModify) -> Result<AgentReport, Problem> {
        self.change(actor, modify.name, move |profile| {
            add(&mut profile.groups, modify.add_groups);
            take(&mut profile.groups, &modify.remove_groups, "it is not in the group")?;
            add(&mut profile.keys, modify.add_keys);
            take(&mut profile.keys, &modify.remove_keys, "it has not got the key")?;
            if let Some(weight) = modify.weight {
                profile.weight = weight;
            }
            Ok(())
        })
        .await
    }

    async fn grant(&self, actor: Principal, change: Change) -> Result<AgentReport, Problem> {
        if let Some(capsule) = change.name.as_capsule() {
            let capsule = capsule.to_owned();
            return self
                .change_capsule(actor, capsule, change.capabilities, Vec::new())
                .await;
        }
        self.change(actor, change.name, move |profile| {
            // What was revoked in just these words is not any more.
            profile.revokes.retain(|revoke| !change.capabilities.contains(revoke));
            add(&mut profile.grants, change.capabilities);
            Ok(())
        })
        .await
    }

    async fn revoke(&self, actor: Principal, change: Change) -> Result<AgentReport, Problem> {
        if let Some(capsule) = change.name.as_capsule() {
            let capsule = capsule.to_owned();
            return self
                .change_capsule(actor, capsule, Vec::new(), change.capabilities)
                .await;
        }
        self.change(actor, change.name, move |profile| {
            profile.grants.retain(|grant| !change.capabilities.contains(grant));
            add(&mut profile.revokes, change.capabilities);
            Ok(())
        })
        .await
    }

    /// Changes what a capsule itself may do, which is what it may guard.
    async fn change_capsule(
        &self,
        actor: Principal,
        name: String,
        granted: Vec<Capability>,
        taken: Vec<Capability>,
    ) -> Result<AgentReport, Problem> {
        let key: CapsuleName = name
            .parse()
            .map_err(|error| Problem::new(codes::INVALID, format!("{name} is not the name of a capsule: {error}")))?;
        let authority = Arc::clone(self.authority());
        let (by, shown) = (actor.clone(), key.clone());
        let edited = tokio::task::spawn_blocking(move || {
            let mut now = Vec::new();
            let edited = authority.edit_groups(|policy, groups| {
                may_give(policy, &actor, &granted)?;
                let capsule = groups.capsule.entry(key.clone()).or_default();
                add(&mut capsule.grants, granted);
                take(&mut capsule.grants, &taken, "it is not granted")?;
                now.clone_from(&capsule.grants);
                groups.capsule.retain(|_, capsule| !capsule.grants.is_empty());
                Ok(())
            });
            edited.map(|_| now)
        });
        let grants = finished(edited.await)?;
        self.host.enforce();
        tracing::info!(principal = %by, capsule = %shown, "what a capsule may guard is changed");
        let profile = Profile {
            grants,
            ..Profile::default()
        };
        Ok(report(Principal::capsule(shown.as_str()), &profile))
    }

    fn agents(&self, asked: &Page) -> Agents {
        let policy = self.authority().policy();
        let known = policy
            .principals()
            .filter_map(|(name, _)| Some((name.as_str(), policy.profile(name)?)));
        let (rows, next) = page(known, asked);
        let row = |(name, profile): (&str, &Profile)| Some(report(Principal::stamped(name).ok()?, profile));
        Agents {
            agents: rows.into_iter().filter_map(row).collect(),
            next,
        }
    }

    async fn edit_groups(
        &self,
        actor: Principal,
        name: String,
        change: impl FnOnce(&Policy, &mut GroupsFile) -> Result<(), Problem> + Send + 'static,
    ) -> Result<GroupReport, Problem> {
        let authority = Arc::clone(self.authority());
        let (by, group) = (actor.clone(), name.clone());
        let edited = tokio::task::spawn_blocking(move || {
            let mut before = None;
            let edited = authority.edit_groups(|policy, groups| {
                before = Some(group_report(policy, &name));
                let old = groups.group.get(&name).cloned();
                change(policy, groups)?;
                may_change_group(policy, &actor, &name, old.as_ref(), groups.group.get(&name))?;
                Ok(())
            });
            edited.map(|policy| match policy.group(&name) {
                Some(_) => Some(group_report(&policy, &name)),
                None => before,
            })
        });
        let done = finished(edited.await)?;
        self.host.enforce();
        tracing::info!(principal = %by, group, "a group is changed");
        done.ok_or_else(|| no_group(&group))
    }

    async fn create_group(&self, actor: Principal, create: GroupCreate) -> Result<GroupReport, Problem> {
        self.edit_groups(actor, create.name.clone(), move |policy, groups| {
            if policy.group(&create.name).is_some() {
                return Err(exists(&format!("the group {}", create.name)));
            }
            let group = Group {
                grants: create.grants,
                unsafe_admin: create.unsafe_admin,
            };
            groups.group.insert(create.name, group);
            Ok(())
        })
        .await
    }

    async fn delete_group(&self, actor: Principal, named: NamedGroup) -> Result<GroupReport, Problem> {
        self.edit_groups(actor, named.name.clone(), move |policy, groups| {
            let members = group_report(policy, &named.name).members;
            if members > 0 {
                let problem = Problem::new(codes::INVALID, format!("{members} principals are in {}", named.name));
                return Err(problem.with_hint("`astrid agent modify NAME --remove-group` takes them out"));
            }
            groups
                .group
                .remove(&named.name)
                .map(drop)
                .ok_or_else(|| own_group(policy, &named.name))
        })
        .await
    }

    async fn modify_group(&self, actor: Principal, modify: GroupModify) -> Result<GroupReport, Problem> {
        self.edit_groups(actor, modify.name.clone(), move |policy, groups| {
            let group = groups
                .group
                .get_mut(&modify.name)
                .ok_or_else(|| own_group(policy, &modify.name))?;
            add(&mut group.grants, modify.add_grants);
            take(&mut group.grants, &modify.remove_grants, "it does not grant")?;
            if let Some(unsafe_admin) = modify.unsafe_admin {
                group.unsafe_admin = unsafe_admin;
            }
            Ok(())
        })
        .await
    }

    fn groups(&self, asked: &Page) -> Groups {
        let policy = self.authority().policy();
        let (rows, next) = page(policy.groups(), asked);
        Groups {
            groups: rows.into_iter().map(|(name, _)| group_report(&policy, name)).collect(),
            next,
        }
    }

    fn explain(&self, question: &Question) -> Result<astrid_wire::authority::Explanation, Problem> {
        let capsule = match &question.capsule {
            None => None,
            Some(name) => {
                let actors = self.host.durable.directory.actors(name);
                let running = actors.ok_or_else(|| {
                    missing(
                        &format!("capsule named {name:?} that runs"),
                        "see `astrid capsule list`",
                    )
                })?;
                Some(Arc::clone(running.capsule()))
            }
        };
        Ok(self.host.gate.explain(&Check {
            principal: &question.principal,
            acl: capsule.as_deref().map(|capsule| &capsule.acl),
            action: question.action,
            resource: Some(&question.resource),
        }))
    }

    fn quota(&self, named: &Named) -> Result<QuotaReport, Problem> {
        let policy = self.authority().policy();
        let profile = policy.profile(&named.name).ok_or_else(|| no_principal(&named.name))?;
        Ok(QuotaReport {
            name: named.name.clone(),
            quota: profile.quota,
        })
    }

    async fn set_quota(&self, actor: Principal, set: QuotaSet) -> Result<QuotaReport, Problem> {
        let changed = self.change(actor, set.name, move |profile| {
            profile.quota = with_limits(profile.quota, set.limits)?;
            Ok(())
        });
        let report = changed.await?;
        Ok(QuotaReport {
            name: report.name,
            quota: report.quota,
        })
    }

    /// Returns when something is used, or nobody waits for that any more.
    async fn usage_changes(&self, message: &Message) {
        let used = async {
            // What the question itself uses is over then.
            tokio::time::sleep(USAGE_SETTLES).await;
            self.host.ledger.used().await;
        };
        match message.deadline {
            Some(deadline) => drop(tokio::time::timeout_at(deadline.into(), used).await),
            None => used.await,
        }
    }

    async fn usage(&self, asked: UsageGet) -> Result<astrid_wire::control::usage::Page, Problem> {
        match asked.name {
            Some(name) => {
                let known = self.authority().policy().knows(&name);
                let (host, whose) = (Arc::clone(&self.host), name.clone());
                // What is not counted is read now, and that may be much.
                let usage = tokio::task::spawn_blocking(move || {
                    let besides = || host.files.stored_bytes(&whose).unwrap_or_default();
                    let used = host.ledger.usage(&whose, besides)?;
                    Ok::<_, EngineError>(used.or_else(|| known.then(|| host.ledger.unused(&whose))))
                });
                let usage = usage
                    .await
                    .map_err(|_| Problem::new(codes::UNAVAILABLE, "the daemon stops"))?;
                let usage = usage.map_err(unreadable)?.filter(|_| known);
                Ok(astrid_wire::control::usage::Page {
                    principals: vec![usage.ok_or_else(|| no_principal(&name))?],
                    next: None,
                })
            }
            None => self
                .host
                .ledger
                .all(asked.after.as_deref(), PAGE as usize)
                .map_err(unreadable),
        }
    }
}

fn finished<T>(edited: Result<Result<T, EditError<Problem>>, tokio::task::JoinError>) -> Result<T, Problem> {
    match edited {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(EditError::Refused(problem))) => Err(problem),
        Ok(Err(EditError::Policy(error))) => Err(refused(error)),
        Err(_) => Err(Problem::new(codes::UNAVAILABLE, "the daemon stops")),
    }
}

fn unreadable(error: EngineError) -> Problem {
    Problem::new(codes::UNAVAILABLE, error.to_string())
}

pub(super) fn not_oneself(actor: &Principal, target: &Principal, what: &str) -> Result<(), Problem> {
    if actor == target {
        let problem = Problem::new(codes::DENIED, format!("{actor} may not {what} itself"));
        return Err(problem.with_hint("another administrator can, or whoever may edit the files under etc/"));
    }
    Ok(())
}

pub(super) fn no_principal(name: &Principal) -> Problem {
    missing(&format!("principal named {name}"), "see `astrid agent list`")
}

fn no_group(name: &str) -> Problem {
    missing(&format!("group named {name:?}"), "see `astrid group list`")
}

/// Why a group is not among those that can be changed.
fn own_group(policy: &Policy, name: &str) -> Problem {
    match policy.group(name) {
        Some(_) => Problem::new(
            codes::DENIED,
            format!("the group {name} is built in and stays as it is"),
        )
        .with_hint("make one of your own: `astrid group create`"),
        None => no_group(name),
    }
}

fn add<T: PartialEq>(to: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !to.contains(&one) {
            to.push(one);
        }
    }
}

fn take<T: PartialEq + ToString>(from: &mut Vec<T>, these: &[T], missing: &str) -> Result<(), Problem> {
    for one in these {
        let Some(place) = from.iter().position(|held| held == one) else {
            return Err(Problem::new(codes::NOT_FOUND, format!("{missing} {}", one.to_string())));
        };
        from.remove(place);
    }
    Ok(())
}

/// A quota with some limits changed; `null` takes one away.
fn with_limits(quota: Quota, limits: std::collections::BTreeMap<String, Value>) -> Result<Quota, Problem> {
    let wrong = |error: serde_json::Error| Problem::new(codes::INVALID, format!("this is no quota: {error}"));
    let Value::Object(mut all) = serde_json::to_value(quota).map_err(wrong)? else {
        return Ok(quota);
    };
    for (name, limit) in &limits {
        // One by one, so that it is said which is wrong.
        let alone = Value::Object(Map::from_iter([(name.clone(), limit.clone())]));
        serde_json::from_value::<Quota>(alone).map_err(|error| {
            Problem::new(codes::INVALID, format!("`{name}` cannot be {limit}: {error}"))
                .with_hint("sizes are written as \"100MiB\", times as \"30s\", everything else as whole numbers")
        })?;
    }
    all.extend(limits);
    all.retain(|_, limit| !limit.is_null());
    serde_json::from_value(Value::Object(all)).map_err(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_are_set_one_by_one() {
        let set = |quota: Quota, limits: Value| with_limits(quota, serde_json::from_value(limits).unwrap());
        let quota = set(Quota::default(), json!({ "children": 3, "storage": "1GiB" })).unwrap();
        assert_eq!((quota.children, quota.storage.unwrap().0), (Some(3), 1 << 30));
        let quota = set(quota, json!({ "children": null, "calls": 1 })).unwrap();
        assert_eq!(
            (quota.children, quota.calls, quota.storage.is_some()),
            (None, Some(1), true)
        );
        for bad in [
            json!({ "childs": 3 }),
            json!({ "children": -1 }),
            json!({ "storage": 7 }),
        ] {
            assert_eq!(set(quota, bad).unwrap_err().code(), codes::INVALID);
        }
    }

    #[test]
    fn pages_go_on_where_they_ended() {
        let names = ["c", "a", "b"];
        let all = || names.iter().map(|name| (*name, ()));
        let asked = |after: Option<&str>| Page {
            after: after.map(str::to_owned),
            max: Some(2),
        };
        let (rows, next) = page(all(), &asked(None));
        assert_eq!((rows, next.as_deref()), (vec![("a", ()), ("b", ())], Some("b")));
        let (rows, next) = page(all(), &asked(Some("b")));
        assert_eq!((rows, next), (vec![("c", ())], None));
    }
}
