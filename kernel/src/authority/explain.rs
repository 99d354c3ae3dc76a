//! Why somebody may or may not do something: what the gate decides, with the rule and what would have to change.

use astrid_wire::authority::{Action, Explanation, Resource, is_resource};
use astrid_wire::control::Verb;
use astrid_wire::{Pattern, Principal, Topic};

use super::denied;
use super::gate::{Acl, Gate};
use super::rules::Object;

/// What is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// Through which capsule; none: whatever a manifest says.
    pub acl: Option<&'a Acl>,
    /// What.
    pub action: Action,
    /// On what: a topic or a pattern, a name, a path. None: anything of it.
    pub resource: Option<&'a str>,
}

impl Gate {
    /// Decides, and says which rule did and what would have to change.
    #[must_use]
    pub fn explain(&self, check: &Check<'_>) -> Explanation {
        let Check {
            principal,
            acl,
            action,
            resource,
        } = *check;
        let standing = self.authority().standing(principal);
        let (topic, pattern) = parse(action, resource);
        let object = match (&topic, &pattern, resource) {
            (Some(topic), _, _) => Object::Topic(topic),
            (None, Some(pattern), _) => Object::Pattern(pattern),
            (None, None, Some(name)) => Object::Name(name),
            (None, None, None) => Object::Some,
        };
        let capsule = acl.map_or("*", |acl| &acl.capsule);
        let declared = acl.map_or(Ok(()), |acl| acl.declares(action, object));
        let answer = |allowed, rule: String, change: String| Explanation {
            allowed,
            principal: principal.to_string(),
            capsule: capsule.to_owned(),
            action,
            resource: resource.map(str::to_owned),
            rule,
            change,
        };
        let what = match resource {
            Some(resource) if is_resource(resource) || pattern.is_some() => format!("{action}:{resource}"),
            _ => action.to_string(),
        };
        if let (Ok(()), Action::Guard, Some(name)) = (&declared, action, principal.as_capsule()) {
            let policy = self.authority().policy();
            let granted = pattern.as_ref().and_then(|p| policy.guard_grant(name, p));
            return match granted {
                Some(grant) => answer(
                    true,
                    format!("it is granted guard:{grant}"),
                    format!("`astrid caps revoke {principal} guard:{grant}`"),
                ),
                None => answer(
                    false,
                    format!("nothing grants it to {principal}"),
                    denied::guard_grant(name, &resource.unwrap_or("PATTERN")),
                ),
            };
        }
        match (declared, standing.why(capsule, action, object)) {
            (Err(section), _) => {
                let rule = format!("the manifest of {capsule} does not declare it");
                let change = format!("{section} in its Capsule.toml, and its installation anew");
                answer(false, rule, change)
            }
            (Ok(()), Err(reason)) => answer(false, reason.rule(principal), reason.change(principal, &what)),
            (Ok(()), Ok(rule)) => {
                let change = format!("a revoke: `astrid caps revoke {principal} {what}`");
                answer(true, rule, change)
            }
        }
    }

    /// Only the decision of [`Gate::explain`].
    #[must_use]
    pub fn check(&self, check: &Check<'_>) -> bool {
        self.explain(check).allowed
    }
}

fn parse(action: Action, resource: Option<&str>) -> (Option<Topic>, Option<Pattern>) {
    match (action, resource) {
        (Action::Publish | Action::Subscribe | Action::Observe | Action::Guard, Some(text)) => {
            (text.parse().ok(), text.parse().ok())
        }
        _ => (None, None),
    }
}

impl Acl {
    /// Whether the manifest declares it; otherwise the section that would have to.
    pub(super) fn declares(&self, action: Action, object: Object<'_>) -> Result<(), &'static str> {
        let covered = |patterns: &[Pattern]| match object {
            Object::Topic(topic) => patterns.iter().any(|p| p.matches(topic)),
            Object::Pattern(pattern) => patterns.iter().any(|p| p.covers(pattern)),
            Object::Name(_) | Object::Below(_) => false,
            Object::Some => !patterns.is_empty(),
        };
        let files = |paths: &[Resource]| match object {
            Object::Name(path) => paths.iter().any(|p| p.matches(path)),
            Object::Below(paths_asked) => paths.iter().any(|p| p.covers(paths_asked)),
            _ => !paths.is_empty(),
        };
        let (declared, section) = match action {
            Action::Publish => (covered(&self.publish), "[publish]"),
            Action::Subscribe | Action::Observe => (
                covered(&self.subscribe) || covered(&self.subscribe_at_runtime),
                "[subscribe], or [capabilities] subscribe,",
            ),
            Action::Kv => (self.kv, "[capabilities] kv"),
            Action::Timer => (self.timer, "[capabilities] timer"),
            Action::Pin => (self.pin, "[capabilities] pin"),
            Action::Document => (
                match object {
                    Object::Name(name) => self.documents.iter().any(|d| d.as_str() == name),
                    _ => !self.documents.is_empty(),
                },
                "[capabilities] document",
            ),
            Action::ChildSpawn => (
                match object {
                    Object::Name(path) => self.programs.iter().any(|p| p.covers(path)),
                    _ => !self.programs.is_empty(),
                },
                "[capabilities] child",
            ),
            Action::ChildSandbox => (!self.programs.is_empty(), "[capabilities] child"),
            Action::Admin => (
                match object {
                    Object::Name(name) => Verb::all()
                        .filter(|verb| verb.name() == name)
                        .any(|verb| self.publish.iter().any(|p| p.matches_str(verb.topic()))),
                    _ => !self.publish.is_empty(),
                },
                "[publish]",
            ),
            Action::Guard => (covered(&self.guards), "[capabilities] guard"),
            Action::FsRead => (files(&self.reads), "[capabilities] fs"),
            Action::FsWrite => (files(&self.writes), "[capabilities] fs"),
            Action::ActAs | Action::NetConnect | Action::Secret => (false, "something that no capsule can declare yet"),
        };
        if declared { Ok(()) } else { Err(section) }
    }
}
