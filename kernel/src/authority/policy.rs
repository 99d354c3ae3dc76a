//! The policy: who there is, and what each may do; compiled, immutable, replaced as a whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use astrid_wire::authority::{Action, BUILT_IN_GROUPS, Capability, GroupsFile, Profile, WEIGHT_MAX};
use astrid_wire::{Pattern, Principal};
use serde::Serialize;

use super::rules::{CompiledGroup, Entry, RuleSet};

/// Bytes of the path of a workspace at most: what the system takes.
const WORKSPACE_BYTES_MAX: usize = 4095;

/// Principals at most: each has a file that is read at boot (about 10 µs), and about a kilobyte of memory. A change copies a pointer of each.
pub const PRINCIPALS_MAX: usize = 100_000;

/// Groups of the operator at most: people keep them in their heads, or a program writes them.
pub const GROUPS_MAX: usize = 1_000;

/// Groups of one principal at most: each is looked at in a decision.
const GROUPS_OF_ONE_MAX: usize = 32;

/// Grants of one group or profile, and revokes of one profile, at most, for the same reason.
const CAPABILITIES_MAX: usize = 256;

/// Keys of one profile at most.
const KEYS_MAX: usize = 32;

/// Most bytes of a group's name.
const GROUP_NAME_BYTES_MAX: usize = 64;

/// A principal of the policy.
#[derive(Clone, Debug)]
pub enum Known {
    /// Its profile was understood.
    Entry(Arc<Entry>),
    /// Its profile cannot be understood: it may do nothing until that is repaired.
    Unreadable,
}

/// An immutable snapshot of principals and groups (K7).
#[derive(Debug, Default)]
pub struct Policy {
    principals: HashMap<Principal, Known, ahash::RandomState>,
    groups: BTreeMap<Arc<str>, Arc<CompiledGroup>>,
    /// What capsules may guard, by name.
    guards: Arc<Guards>,
    /// What both were made of.
    file: Arc<GroupsFile>,
    /// Whoever is not there may do everything.
    open: bool,
}

/// What capsules may guard, by name.
type Guards = BTreeMap<Arc<str>, Vec<Pattern>>;

/// Why a profile or the groups are refused: what is wrong, the word in the file that is, and what could be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub(super) what: String,
    pub(super) word: Option<String>,
    pub(super) hint: Option<String>,
}

impl Wrong {
    fn new(what: String, word: &str, hint: Option<String>) -> Self {
        Self {
            what,
            word: Some(word.to_owned()),
            hint,
        }
    }
}

impl Policy {
    /// Everybody may do everything that a manifest declares. For tests and benchmarks, which make principals without profiles; no
    /// daemon has it.
    pub fn open_to_all_for_tests() -> Self {
        Self {
            open: true,
            ..Self::default()
        }
    }

    /// The built-in groups and those of a file; nobody is in them yet.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn with_groups(file: &GroupsFile) -> Result<Self, Wrong> {
        Ok(Self {
            groups: compile_groups(file)?,
            guards: Arc::new(compile_guards(file)?),
            file: Arc::new(file.clone()),
            ..Self::default()
        })
    }

    /// With one more, or another, principal.
    ///
    /// # Errors
    /// What is wrong with the profile.
    pub fn insert(&mut self, principal: Principal, profile: Profile) -> Result<(), Wrong> {
        let entry = self.compile(profile)?;
        if !self.principals.contains_key(&principal) && self.principals.len() >= PRINCIPALS_MAX {
            let what = format!("there are {PRINCIPALS_MAX} principals already, which is the limit");
            return Err(Wrong::new(what, "", None));
        }
        self.principals.insert(principal, Known::Entry(Arc::new(entry)));
        Ok(())
    }

    pub(super) fn insert_unreadable(&mut self, principal: Principal) {
        if self.principals.len() < PRINCIPALS_MAX {
            self.principals.insert(principal, Known::Unreadable);
        }
    }

    pub(super) fn remove(&mut self, principal: &Principal) {
        self.principals.remove(principal);
    }

    /// The same, to be changed: everything in it is shared.
    pub(super) fn copy(&self) -> Self {
        Self {
            principals: self.principals.clone(),
            groups: self.groups.clone(),
            guards: Arc::clone(&self.guards),
            file: Arc::clone(&self.file),
            open: self.open,
        }
    }

    /// The same principals with other groups.
    ///
    /// # Errors
    /// What is wrong with the groups, or who is in one that is not there any more.
    pub(super) fn with_other_groups(&self, file: &GroupsFile) -> Result<Self, Wrong> {
        let mut new = Self::with_groups(file)?;
        for (principal, known) in &self.principals {
            match known {
                Known::Unreadable => new.insert_unreadable(principal.clone()),
                Known::Entry(entry) => {
                    let inserted = new.insert(principal.clone(), entry.profile.clone());
                    inserted.map_err(|wrong| Wrong {
                        what: format!("{principal} needs what is not there any more: {}", wrong.what),
                        word: None,
                        hint: Some("take the group from its members first".to_owned()),
                    })?;
                }
            }
        }
        Ok(new)
    }

    fn compile(&self, profile: Profile) -> Result<Entry, Wrong> {
        check_counts(&profile)?;
        let find = |name: &String| {
            self.groups.get(name.as_str()).cloned().ok_or_else(|| {
                let shown: String = name.chars().take(GROUP_NAME_BYTES_MAX).collect();
                let known: Vec<&str> = self.groups.keys().map(|k| &**k).take(10).collect();
                let hint = format!("there is {}", known.join(", "));
                Wrong::new(format!("there is no group {shown:?}"), name, Some(hint))
            })
        };
        let groups = profile.groups.iter().map(find).collect::<Result<_, _>>()?;
        Ok(Entry::compile(profile, groups))
    }

    /// Who that is here.
    pub fn find(&self, principal: &Principal) -> Option<&Known> {
        self.principals.get(principal)
    }

    /// The profile of a principal that has one.
    pub fn profile(&self, principal: &Principal) -> Option<&Profile> {
        match self.principals.get(principal)? {
            Known::Entry(entry) => Some(&entry.profile),
            Known::Unreadable => None,
        }
    }

    /// All principals, in no order.
    pub fn principals(&self) -> impl Iterator<Item = (&Principal, &Known)> {
        self.principals.iter()
    }

    /// All groups by name, with what they grant.
    pub fn groups(&self) -> impl Iterator<Item = (&str, Vec<Capability>)> {
        self.groups.iter().map(|(name, g)| (&**name, g.grants.capabilities()))
    }

    /// A group's grants.
    pub fn group(&self, name: &str) -> Option<Vec<Capability>> {
        self.groups.get(name).map(|g| g.grants.capabilities())
    }

    /// Capsules that may guard something, and what; in order.
    pub fn guards(&self) -> impl Iterator<Item = (&str, &[Pattern])> {
        self.guards.iter().map(|(capsule, patterns)| (&**capsule, &**patterns))
    }

    /// What lets a capsule guard all of that pattern.
    pub fn guard_grant(&self, capsule: &str, pattern: &Pattern) -> Option<&Pattern> {
        self.guards.get(capsule)?.iter().find(|granted| granted.covers(pattern))
    }

    /// Whether a capsule may guard all of that pattern.
    pub fn may_guard(&self, capsule: &str, pattern: &Pattern) -> bool {
        self.open || self.guard_grant(capsule, pattern).is_some()
    }

    /// The operator's groups, as they are written.
    pub fn groups_file(&self) -> &GroupsFile {
        &self.file
    }

    /// BLAKE3 over all of it: two policies that allow the same in the same words have the same. O(principals).
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut add = |name: &str, said: String| {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            hasher.update(&(said.len() as u64).to_le_bytes());
            hasher.update(said.as_bytes());
        };
        add("", in_json(&*self.file));
        let mut principals: Vec<_> = self.principals.iter().collect();
        principals.sort_unstable_by_key(|(principal, _)| *principal);
        for (principal, known) in principals {
            match known {
                Known::Entry(entry) => add(principal.as_str(), in_json(&entry.profile)),
                Known::Unreadable => add(principal.as_str(), String::new()),
            }
        }
        hasher.finalize()
    }

    /// How many principals there are.
    pub fn len(&self) -> usize {
        self.principals.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.principals.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Who may do less here than in `earlier`.
    pub fn less_than(&self, earlier: &Self) -> Vec<Principal> {
        let less = |(principal, old): (&Principal, &Known)| {
            let Known::Entry(old) = old else { return None };
            let lost = match self.principals.get(principal) {
                Some(Known::Entry(new)) => !Arc::ptr_eq(old, new) && new.is_less_than(old),
                Some(Known::Unreadable) | None => true,
            };
            lost.then(|| principal.clone())
        };
        earlier.principals.iter().filter_map(less).collect()
    }
}

/// A profile or the groups in one line, for the log.
pub(super) fn in_json(what: &impl Serialize) -> String {
    // Texts, numbers and lists of them: nothing that JSON has no form for.
    serde_json::to_string(what).unwrap_or_default()
}

/// Whether a group of that name is built in.
pub(super) fn is_built_in(name: &str) -> bool {
    BUILT_IN_GROUPS.iter().any(|group| group.name == name)
}

fn compile_groups(file: &GroupsFile) -> Result<BTreeMap<Arc<str>, Arc<CompiledGroup>>, Wrong> {
    if file.group.len() > GROUPS_MAX {
        let what = format!("there are {} groups, the limit is {GROUPS_MAX}", file.group.len());
        return Err(Wrong::new(what, "", None));
    }
    let mut compiled = BTreeMap::new();
    let mut add = |name: &str, grants: &[Capability]| {
        let name: Arc<str> = name.into();
        let grants = RuleSet::compile(grants);
        compiled.insert(Arc::clone(&name), Arc::new(CompiledGroup { name, grants }));
    };
    for group in BUILT_IN_GROUPS {
        let parsed: Result<Vec<Capability>, _> = group.grants.iter().map(|g| g.parse()).collect();
        let parsed = parsed.map_err(|error| Wrong::new(format!("{}: {error}", group.name), "", None))?;
        add(group.name, &parsed);
    }
    for (name, group) in &file.group {
        check_group(name, group)?;
        add(name, &group.grants);
    }
    Ok(compiled)
}

fn compile_guards(file: &GroupsFile) -> Result<Guards, Wrong> {
    if file.capsule.len() > GROUPS_MAX {
        let what = format!("there are {} capsules, the limit is {GROUPS_MAX}", file.capsule.len());
        return Err(Wrong::new(what, "", None));
    }
    let mut compiled = Guards::new();
    for (name, capsule) in &file.capsule {
        let name = name.as_str();
        if capsule.grants.len() > CAPABILITIES_MAX {
            let what = format!(
                "the capsule `{name}` has {} grants, the limit is {CAPABILITIES_MAX}",
                capsule.grants.len()
            );
            return Err(Wrong::new(what, name, None));
        }
        let pattern = |grant: &Capability| match grant {
            Capability::Of(Action::Guard, Some(resource)) => resource.as_str().parse().ok(),
            _ => None,
        };
        let patterns = capsule.grants.iter().map(|grant| {
            pattern(grant).ok_or_else(|| {
                let what = format!("`{grant}` is granted to no capsule: only guards are, as `guard:files.v1.>`");
                let hint = "what else it does is in its manifest, which was approved when it was installed";
                Wrong::new(what, &grant.to_string(), Some(hint.to_owned()))
            })
        });
        compiled.insert(name.into(), patterns.collect::<Result<_, _>>()?);
    }
    Ok(compiled)
}

/// Whether a group of that name may be, and be so.
pub(super) fn check_group(name: &str, group: &astrid_wire::authority::Group) -> Result<(), Wrong> {
    let wrong = |what: String, hint: Option<&str>| Err(Wrong::new(what, name, hint.map(str::to_owned)));
    if is_built_in(name) {
        let hint = Some("give yours another name");
        return wrong(format!("the group `{name}` is built in and cannot be redefined"), hint);
    }
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
    let hidden = name.starts_with(['.', '-']);
    if name.is_empty() || name.len() > GROUP_NAME_BYTES_MAX || hidden || !name.chars().all(plain) {
        let shown: String = name.chars().take(GROUP_NAME_BYTES_MAX).collect();
        let what = format!(
            "{shown:?} is not the name of a group: 1 to {GROUP_NAME_BYTES_MAX} of a-z, 0-9, `_`, and not at its beginning `.` and `-`"
        );
        return wrong(what, None);
    }
    if group.grants.len() > CAPABILITIES_MAX {
        let what = format!(
            "the group `{name}` has {} grants, the limit is {CAPABILITIES_MAX}",
            group.grants.len()
        );
        return wrong(what, None);
    }
    if group.grants.contains(&Capability::Everything) != group.unsafe_admin {
        let what = format!("the group `{name}`: `*` in grants and `unsafe_admin = true` go together, or not at all");
        return wrong(what, Some("who is in a group with `*` can do everything that you can"));
    }
    Ok(())
}

fn check_counts(profile: &Profile) -> Result<(), Wrong> {
    for (key, count, max) in [
        ("groups", profile.groups.len(), GROUPS_OF_ONE_MAX),
        ("grants", profile.grants.len(), CAPABILITIES_MAX),
        ("revokes", profile.revokes.len(), CAPABILITIES_MAX),
        ("keys", profile.keys.len(), KEYS_MAX),
    ] {
        if count > max {
            let what = format!("there are {count} {key}, the limit is {max}");
            return Err(Wrong::new(what, key, None));
        }
    }
    if profile.grants.contains(&Capability::Everything) {
        let hint = Some("put it into a group that has it, such as `admin`".to_owned());
        return Err(Wrong::new("`*` is granted by a group only".to_owned(), "*", hint));
    }
    if let Some(workspace) = &profile.workspace
        && (!workspace.starts_with('/') || workspace.len() > WORKSPACE_BYTES_MAX)
    {
        let what = format!("workspace is an absolute path of at most {WORKSPACE_BYTES_MAX} bytes");
        return Err(Wrong::new(what, "workspace", None));
    }
    if !(1..=WEIGHT_MAX).contains(&profile.weight) {
        let what = format!("weight is {}; it is 1 to {WEIGHT_MAX}", profile.weight);
        return Err(Wrong::new(what, "weight", None));
    }
    Ok(())
}
