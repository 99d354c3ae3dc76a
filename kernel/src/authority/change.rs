//! Who may change what of whom (K9): nobody raises their own quota or widens what they may do, whatever they hold; and nobody gives
//! another what they do not hold themselves, or there would be a way around by a second principal.
//!
//! Pure functions. That somebody may ask for a change at all is the gate's (`admin:..`).

use astrid_wire::authority::{Capability, Group, Profile};
use astrid_wire::{Principal, Quota};

use super::policy::{Known, Policy};

/// A change that may not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// It is its own.
    #[error("{0} may not {1} itself: somebody else has to do that")]
    Own(Principal, String),
    /// It has not got that itself.
    #[error("{0} may not give `{1}`: it does not hold that itself")]
    NotHeld(Principal, Capability),
    /// It has a quota itself.
    #[error("{0} has a quota: it may not make or enable another, or give one a key, which would have as much again")]
    Twice(Principal),
    /// It does not hold everything, and would give a directory of the host away, or take one.
    #[error("{0} may not say which directory the workspace of {1} is: who does has to hold everything")]
    Directory(Principal, Principal),
    /// It does not hold everything, and the other does.
    #[error("{0} may not change {1}, who holds everything")]
    Above(Principal, Principal),
    /// Its own quota is smaller.
    #[error("{0} may not give more `{1}` than it has itself")]
    MoreThanOwn(Principal, &'static str),
}

/// May `actor` make of the profile of `target` what was `old` and shall be `new`? `None` where there is no profile.
///
/// # Errors
/// [`Forbidden`] names what is too much.
pub fn may_change(
    policy: &Policy,
    actor: &Principal,
    target: &Principal,
    old: Option<&Profile>,
    new: Option<&Profile>,
) -> Result<(), Forbidden> {
    let nothing = Profile::nobody();
    let rules = |who| match policy.find(who) {
        Some(Known::Entry(entry)) => entry.granted().contains(&Capability::Everything),
        Some(Known::Unreadable) => false,
        None => policy.is_open(),
    };
    if rules(target) && !rules(actor) {
        return Err(Forbidden::Above(actor.clone(), target.clone()));
    }
    // Without one there is nothing: no grants and, of whoever has none, no limits that could be raised.
    let Some(new) = new else { return Ok(()) };
    let (had, old) = (old.map(|old| &old.quota), old.unwrap_or(&nothing));
    // A directory of the host is nothing that whoever holds less can have.
    if new.workspace != old.workspace && !rules(actor) {
        return Err(Forbidden::Directory(actor.clone(), target.clone()));
    }
    if actor == target {
        let own = |what: String| Err(Forbidden::Own(actor.clone(), what));
        if let Some(limit) = new.quota.raised_from(&old.quota) {
            return own(format!("raise the quota {limit} of"));
        }
        if new.weight > old.weight {
            return own("raise the weight of".to_owned());
        }
        if new.enabled && !old.enabled {
            return own("enable".to_owned());
        }
        if let Some(group) = new.groups.iter().find(|group| !old.groups.contains(group)) {
            return own(format!("add the group {group} to"));
        }
        if let Some(grant) = new.grants.iter().find(|g| !old.grants.iter().any(|o| o.covers(g))) {
            return own(format!("grant {grant} to"));
        }
        if let Some(revoke) = old.revokes.iter().find(|r| !new.revokes.iter().any(|n| n.covers(r))) {
            return own(format!("take the revoke {revoke} from"));
        }
        return Ok(());
    }
    // Whoever puts a key into a profile can be that principal, and whoever enables one makes it somebody: then all of it is given.
    let anew = new.enabled && !old.enabled || new.keys.iter().any(|key| !old.keys.contains(key));
    let own = policy.profile(actor).unwrap_or(&nothing);
    if anew && !own.quota.is_unlimited() {
        return Err(Forbidden::Twice(actor.clone()));
    }
    if let Some(limit) = raised_above(&new.quota, had, &own.quota) {
        return Err(Forbidden::MoreThanOwn(actor.clone(), limit));
    }
    // Whoever may do everything rules who is heard first, and is not heard first itself.
    if new.weight > old.weight.max(own.weight) && !rules(actor) {
        return Err(Forbidden::MoreThanOwn(actor.clone(), "weight"));
    }
    let added = new.grants.iter().filter(|grant| anew || !old.grants.contains(grant));
    let joined = new.groups.iter().filter(|group| anew || !old.groups.contains(group));
    let of_groups = joined.filter_map(|group| policy.group(group)).flatten();
    // What was revoked and is not any more is given as well.
    let freed = old
        .revokes
        .iter()
        .filter(|r| !new.revokes.iter().any(|n| n.covers(r)))
        .cloned();
    holds_all(policy, actor, added.cloned().chain(of_groups).chain(freed))
}

/// The first limit that is higher than it was, and higher than the giver's own: or a second principal would be a way around that.
fn raised_above(new: &Quota, old: Option<&Quota>, own: &Quota) -> Option<&'static str> {
    let height = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let (old, own) = (old.map(Quota::limits), own.limits());
    let raised = |(n, (_, limit)): &(usize, (&str, Option<u64>))| {
        let before = old.as_ref().map_or(0, |old| height(old[*n].1));
        height(*limit) > before.max(height(own[*n].1))
    };
    let found = new.limits().into_iter().enumerate().find(raised);
    found.map(|(_, (name, _))| name)
}

/// May `actor` make of the group `name` what was `old` and shall be `new`?
///
/// # Errors
/// [`Forbidden`] names what is too much.
pub fn may_change_group(
    policy: &Policy,
    actor: &Principal,
    name: &str,
    old: Option<&Group>,
    new: Option<&Group>,
) -> Result<(), Forbidden> {
    let Some(new) = new else { return Ok(()) };
    let old: &[Capability] = old.map_or(&[], |group| &group.grants);
    let added: Vec<&Capability> = new.grants.iter().filter(|g| !old.iter().any(|o| o.covers(g))).collect();
    let member = policy
        .profile(actor)
        .is_some_and(|p| p.groups.iter().any(|g| g == name));
    match added.first() {
        Some(grant) if member => Err(Forbidden::Own(
            actor.clone(),
            format!("grant {grant}, by a group that it is in, to"),
        )),
        _ => holds_all(policy, actor, added.into_iter().cloned()),
    }
}

/// May `actor` give a capsule these capabilities?
///
/// # Errors
/// [`Forbidden`] names what is too much.
pub fn may_give(policy: &Policy, actor: &Principal, given: &[Capability]) -> Result<(), Forbidden> {
    holds_all(policy, actor, given.iter().cloned())
}

fn holds_all(policy: &Policy, actor: &Principal, given: impl Iterator<Item = Capability>) -> Result<(), Forbidden> {
    for capability in given {
        let held = match policy.find(actor) {
            Some(Known::Entry(entry)) => entry.holds(&capability),
            Some(Known::Unreadable) => false,
            None => policy.is_open(),
        };
        if !held {
            return Err(Forbidden::NotHeld(actor.clone(), capability));
        }
    }
    Ok(())
}
