//! What somebody may do, compiled: a bit per action says most of it, and patterns are looked at only for the rest.

use std::sync::Arc;

use astrid_wire::authority::{Action, Capability, Profile, Resource, is_resource};
use astrid_wire::control::Verb;
use astrid_wire::{Pattern, Topic};

use crate::bus::KERNEL_DOMAIN;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Object<'a> {
    /// A topic: well-formed, so it is not checked again.
    Topic(&'a Topic),
    /// A name or a path that somebody wrote.
    Name(&'a str),
    /// All topics of a pattern.
    Pattern(&'a Pattern),
    /// All paths below one.
    Below(&'a Resource),
    /// Anything at all of the action.
    Some,
}

impl Object<'_> {
    /// In words.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Topic(topic) => topic.as_str(),
            Self::Name(name) => name,
            Self::Pattern(pattern) => pattern.as_str(),
            Self::Below(resource) => resource.as_str(),
            Self::Some => "anything",
        }
    }

    fn is_valid(&self) -> bool {
        match self {
            Self::Name(name) => is_resource(name),
            Self::Topic(_) | Self::Pattern(_) | Self::Below(_) | Self::Some => true,
        }
    }
}

/// A list of capabilities, compiled.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// Actions that are allowed on any resource.
    any: u16,
    /// Actions of which there is some rule.
    some: u16,
    /// `*` is in the list.
    everything: bool,
    /// Rules with a resource, by action.
    rules: Box<[(Action, Resource)]>,
}

const fn bit(action: Action) -> u16 {
    1 << action as u8
}

const _: () = assert!(Action::ALL.len() <= 16, "an action is a bit of a u16");

impl RuleSet {
    /// Compiles a list.
    pub fn compile(capabilities: &[Capability]) -> Self {
        let mut set = Self::default();
        let mut rules = Vec::new();
        for capability in capabilities {
            match capability {
                Capability::Everything => {
                    set.everything = true;
                    (set.any, set.some) = (u16::MAX, u16::MAX);
                }
                Capability::Of(action, None) => {
                    set.any |= bit(*action);
                    set.some |= bit(*action);
                }
                Capability::Of(action, Some(resource)) => {
                    set.some |= bit(*action);
                    rules.push((*action, resource.clone()));
                }
            }
        }
        rules.sort_unstable();
        rules.dedup();
        set.rules = rules.into();
        set
    }

    fn of(&self, action: Action) -> impl Iterator<Item = &Resource> {
        self.rules.iter().filter(move |(a, _)| *a == action).map(|(_, r)| r)
    }

    /// Whether it allows all of that. What a [`Object::Name`] says must have been checked.
    fn grants(&self, action: Action, object: Object<'_>) -> bool {
        if self.any & bit(action) != 0 {
            return true;
        }
        if self.some & bit(action) == 0 {
            return false;
        }
        match object {
            Object::Topic(topic) => self.of(action).any(|r| r.matches_valid(topic.as_str())),
            Object::Name(name) => self.of(action).any(|r| r.matches_valid(name)),
            Object::Pattern(pattern) => self.of(action).any(|r| r.covers_pattern(pattern)),
            Object::Below(resource) => self.of(action).any(|r| r.covers(resource)),
            Object::Some => true,
        }
    }

    /// Whether it is about any of that.
    fn touches(&self, action: Action, object: Object<'_>) -> bool {
        if self.any & bit(action) != 0 {
            return true;
        }
        if self.some & bit(action) == 0 {
            return false;
        }
        match object {
            Object::Topic(_) | Object::Name(_) => self.grants(action, object),
            Object::Pattern(pattern) => self.of(action).any(|r| r.overlaps_pattern(pattern)),
            Object::Below(resource) => self.of(action).any(|r| r.overlaps(resource)),
            // A rule about some of it does not take all of it.
            Object::Some => false,
        }
    }

    /// The rule that is about that, for people.
    fn rule(&self, action: Action, object: Object<'_>, touch: bool) -> Option<Capability> {
        if self.everything {
            return Some(Capability::Everything);
        }
        if self.any & bit(action) != 0 {
            return Some(Capability::Of(action, None));
        }
        let fits = |r: &&Resource| match object {
            Object::Topic(topic) => r.matches_valid(topic.as_str()),
            Object::Name(name) => r.matches(name),
            Object::Pattern(pattern) if touch => r.overlaps_pattern(pattern),
            Object::Pattern(pattern) => r.covers_pattern(pattern),
            Object::Below(resource) if touch => r.overlaps(resource),
            Object::Below(resource) => r.covers(resource),
            Object::Some => !touch,
        };
        let found = self.of(action).find(fits)?;
        Some(Capability::Of(action, Some(found.clone())))
    }

    /// What it is made of.
    pub fn capabilities(&self) -> Vec<Capability> {
        if self.everything {
            return vec![Capability::Everything];
        }
        let any = Action::ALL.into_iter().filter(|a| self.any & bit(*a) != 0);
        let some = self.rules.iter().map(|(a, r)| Capability::Of(*a, Some(r.clone())));
        any.map(|a| Capability::Of(a, None)).chain(some).collect()
    }
}

/// A group, compiled. Shared by its members.
#[derive(Debug)]
pub struct CompiledGroup {
    /// Its name.
    pub name: Arc<str>,
    /// What it grants.
    pub grants: RuleSet,
}

/// A principal, compiled.
#[derive(Debug)]
pub struct Entry {
    /// As it is written.
    pub profile: Profile,
    grants: RuleSet,
    revokes: RuleSet,
    groups: Box<[Arc<CompiledGroup>]>,
}

/// Which rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Granted by that capability: of that group, or its own.
    Granted(Capability, Option<Arc<str>>),
    /// Revoked by that capability.
    Revoked(Capability),
    /// Nothing grants it.
    NoGrant,
    /// It is nothing that could be granted.
    NoResource,
}

impl Entry {
    /// Compiles a profile whose groups were found.
    pub fn compile(profile: Profile, groups: Box<[Arc<CompiledGroup>]>) -> Self {
        Self {
            grants: RuleSet::compile(&profile.grants),
            revokes: RuleSet::compile(&profile.revokes),
            groups,
            profile,
        }
    }

    /// Whether it may do that: some grant, and no revoke. Whether it is enabled is not asked here.
    pub fn allows(&self, action: Action, object: Object<'_>) -> bool {
        object.is_valid()
            && !self.revokes.touches(action, object)
            && (self.grants.grants(action, object)
                || self.groups.iter().any(|g| g.grants.grants(action, object))
                || implying(action, object).is_some_and(|(action, object)| self.allows(action, object)))
    }

    /// As [`Entry::allows`], with the rule that decides.
    pub fn why(&self, action: Action, object: Object<'_>) -> Verdict {
        if !object.is_valid() {
            return Verdict::NoResource;
        }
        if let Some(rule) = self.revokes.rule(action, object, true) {
            return Verdict::Revoked(rule);
        }
        if let Some(rule) = self.grants.rule(action, object, false) {
            return Verdict::Granted(rule, None);
        }
        let of_group = |g: &Arc<CompiledGroup>| {
            let rule = g.grants.rule(action, object, false)?;
            Some(Verdict::Granted(rule, Some(Arc::clone(&g.name))))
        };
        match (self.groups.iter().find_map(of_group), implying(action, object)) {
            (Some(granted), _) => granted,
            (None, Some((action, object))) => self.why(action, object),
            (None, None) => Verdict::NoGrant,
        }
    }

    /// All that grants it something: its own and its groups'.
    pub fn granted(&self) -> Vec<Capability> {
        let groups = self.groups.iter().flat_map(|g| g.grants.capabilities());
        self.profile.grants.iter().cloned().chain(groups).collect()
    }

    /// Whether it holds all of that: what it may hand on.
    pub fn holds(&self, capability: &Capability) -> bool {
        self.profile.enabled
            && self.granted().iter().any(|mine| mine.covers(capability))
            && !self.profile.revokes.iter().any(|revoked| touches(revoked, capability))
    }

    /// Whether it may do less than `earlier` did.
    pub fn is_less_than(&self, earlier: &Self) -> bool {
        if earlier.profile.enabled && !self.profile.enabled {
            return true;
        }
        let (granted, revoked) = (self.granted(), &self.profile.revokes);
        let lost = |old: &Capability| !granted.iter().any(|new| new.covers(old));
        let taken = |new: &Capability| !earlier.profile.revokes.iter().any(|old| old.covers(new));
        earlier.granted().iter().any(lost) || revoked.iter().any(taken)
    }
}

/// What allows that as well: whoever has the capability for a request of operators may ask it.
fn implying(action: Action, object: Object<'_>) -> Option<(Action, Object<'static>)> {
    let Object::Topic(topic) = object else { return None };
    if action != Action::Publish || topic.domain() != KERNEL_DOMAIN {
        return None;
    }
    let verb = Verb::of(topic).filter(|verb| verb.operator_only())?;
    Some((Action::Admin, Object::Name(verb.name())))
}

fn touches(revoked: &Capability, capability: &Capability) -> bool {
    match (revoked, capability) {
        (Capability::Everything, _) | (_, Capability::Everything) => true,
        (Capability::Of(a, one), Capability::Of(b, other)) => {
            a == b
                && match (one, other) {
                    (Some(one), Some(other)) => one.overlaps(other),
                    _ => true,
                }
        }
    }
}
