//! The policy in force: read by anybody at any time without waiting, replaced by one writer at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use astrid_wire::Principal;
use astrid_wire::authority::{GroupsFile, Profile};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::files::{self, PolicyError};
use super::policy::{Known, Policy, in_json};
use super::standing::Standing;
use crate::home::{Home, OPERATORS_FILE_BYTES_MAX};

/// What is wrong with files, by file.
type Problems = BTreeMap<String, String>;

/// Problems that are shown at most; the rest are counted.
const PROBLEMS_SHOWN_MAX: usize = 16;

/// The policy in force, and its files.
///
/// Each change makes a new snapshot and moves the epoch, so whoever keeps what it found out (a standing, a permit) knows whether to look
/// again. A change is in force when the method that makes it returns.
#[derive(Debug)]
pub struct Authority {
    policy: ArcSwap<Policy>,
    epoch: AtomicU64,
    changed: watch::Sender<u64>,
    problems: Mutex<Problems>,
    /// Held by the one who writes.
    writer: Mutex<()>,
    home: Option<Home>,
}

/// Something that people changed by hand and that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The file, beneath the home.
    pub file: String,
    /// What it says now, as JSON; `None`: it is gone.
    pub now: Option<String>,
}

/// What is different in `after`.
fn edited(before: &Policy, after: &Policy) -> Vec<Edited> {
    let mut edited = Vec::new();
    if before.groups_file() != after.groups_file() {
        edited.push(Edited {
            file: "etc/groups.toml".to_owned(),
            now: Some(in_json(after.groups_file())),
        });
    }
    let mut all: Vec<&Principal> = before.principals().chain(after.principals()).map(|(p, _)| p).collect();
    all.sort_unstable();
    all.dedup();
    for principal in all {
        let now = after.profile(principal);
        if before.profile(principal) != now || before.knows(principal) != after.knows(principal) {
            edited.push(Edited {
                file: format!("etc/profiles/{principal}.toml"),
                now: now.map(in_json),
            });
        }
    }
    edited
}

/// Why an edit was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError<E> {
    /// Who edits does not want it after all, or may not.
    #[error("{0}")]
    Refused(E),
    /// What it would be is wrong, or cannot be written.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl Authority {
    /// A policy that is in no files.
    pub fn fixed(policy: Policy) -> Arc<Self> {
        Self::new(policy, None)
    }

    fn new(policy: Policy, home: Option<Home>) -> Arc<Self> {
        Arc::new(Self {
            policy: ArcSwap::from_pointee(policy),
            epoch: AtomicU64::new(1),
            changed: watch::channel(1).0,
            problems: Mutex::default(),
            writer: Mutex::default(),
            home,
        })
    }

    /// Reads the files of a home, and seeds the `default` principal once in its life (K3). A profile that cannot be understood denies its
    /// principal everything, and is a problem that status shows.
    ///
    /// # Errors
    /// [`PolicyError`], when the groups cannot be understood: with a part of them, it would decide wrongly. Never for a missing file.
    pub fn open(home: &Home) -> Result<Arc<Self>, PolicyError> {
        files::seed(home)?;
        let (policy, problems) = read_all(home, None)?;
        let authority = Self::new(policy, Some(home.clone()));
        for (file, problem) in &problems {
            tracing::error!(file, problem, "a profile cannot be used: its principal may do nothing");
        }
        *authority.problems.lock() = problems;
        Ok(authority)
    }

    /// The policy of this moment.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Moves with each change.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Tells of each change: the epoch.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Who that is now.
    pub fn standing(&self, principal: &Principal) -> Standing {
        // In this order: what is found is at least as new as its epoch says.
        let epoch = self.epoch();
        Standing::of(&self.policy.load(), principal, epoch)
    }

    /// What is wrong with the files, for status. Each stays until it is repaired.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.problems.lock();
        let mut shown: Vec<String> = problems.values().take(PROBLEMS_SHOWN_MAX).cloned().collect();
        if problems.len() > PROBLEMS_SHOWN_MAX {
            shown.push(format!(
                "and {} more profiles like that",
                problems.len() - PROBLEMS_SHOWN_MAX
            ));
        }
        shown
    }

    fn install(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.send_replace(epoch);
    }

    /// Another policy, in no files. For tests.
    pub fn replace(&self, policy: Policy) {
        let _writer = self.writer.lock();
        self.install(policy);
    }

    /// Reads all files again. What cannot be understood leaves what it was. Returns what is different.
    pub fn reload(&self) -> Vec<Edited> {
        let Some(home) = &self.home else { return Vec::new() };
        let _writer = self.writer.lock();
        let before = self.policy();
        match read_all(home, Some(&before)) {
            Ok((policy, problems)) => {
                let edited = edited(&before, &policy);
                self.install(policy);
                self.set_problems(problems);
                edited
            }
            Err(error) => {
                self.problem(&home.groups_file().display().to_string(), &error);
                Vec::new()
            }
        }
    }

    /// Reads the groups again, after somebody wrote them by hand. Returns what is different.
    pub fn reload_groups(&self) -> Option<Edited> {
        let home = self.home.as_ref()?;
        let _writer = self.writer.lock();
        let file = home.groups_file().display().to_string();
        let read = files::read_groups(home).and_then(|read| {
            let other = self.policy.load().with_other_groups(&read.value);
            other.map_err(|wrong| files::wrong(&read.text, &read.path, wrong))
        });
        match read {
            Ok(policy) => {
                self.repaired(&file);
                if policy.groups_file() == self.policy.load().groups_file() {
                    return None;
                }
                let now = Some(in_json(policy.groups_file()));
                self.install(policy);
                tracing::info!(file, "the groups were changed");
                let file = "etc/groups.toml".to_owned();
                Some(Edited { file, now })
            }
            Err(error) => {
                self.problem(&file, &error);
                None
            }
        }
    }

    /// Reads those profiles again that could not be used. Returns what is different.
    pub(super) fn reload_profiles_with_problems(&self) -> Vec<Edited> {
        let files: Vec<String> = self.problems.lock().keys().cloned().collect();
        let owners = files
            .iter()
            .filter_map(|file| file.rsplit('/').next().and_then(files::owner_of));
        owners
            .flatten()
            .filter_map(|principal| self.reload_profile(&principal))
            .collect()
    }

    /// Reads one profile again, after somebody wrote it by hand. Returns what is different.
    pub fn reload_profile(&self, principal: &Principal) -> Option<Edited> {
        let home = self.home.as_ref()?;
        let _writer = self.writer.lock();
        let file = files::profile_path(home, principal).display().to_string();
        match self.read_one(home, principal) {
            Ok(None) => {
                self.repaired(&file);
                None
            }
            Ok(Some(policy)) => {
                let now = policy.profile(principal).map(in_json);
                self.install(policy);
                self.repaired(&file);
                tracing::info!(%principal, "a profile was changed");
                let file = format!("etc/profiles/{principal}.toml");
                Some(Edited { file, now })
            }
            Err(error) => {
                self.problem(&file, &error);
                None
            }
        }
    }

    /// The policy with that profile as it is written; `None` when it is so already.
    fn read_one(&self, home: &Home, principal: &Principal) -> Result<Option<Policy>, PolicyError> {
        let present = self.policy.load();
        let Some(read) = files::read_profile(home, principal)? else {
            return Ok(present.find(principal).map(|_| {
                let mut policy = present.copy();
                policy.remove(principal);
                policy
            }));
        };
        if present.profile(principal) == Some(&read.value) {
            return Ok(None);
        }
        let mut policy = present.copy();
        let inserted = policy.insert(principal.clone(), read.value);
        inserted.map_err(|wrong| files::wrong(&read.text, &read.path, wrong))?;
        Ok(Some(policy))
    }

    fn set_problems(&self, problems: Problems) {
        for (file, problem) in &problems {
            tracing::error!(file, problem, "what was written is not taken: it stays as it was");
        }
        *self.problems.lock() = problems;
        self.changed.send_modify(|_| {});
    }

    fn problem(&self, file: &str, error: &PolicyError) {
        let problem = one_line(error);
        tracing::error!(file, problem, "what was written is not taken: it stays as it was");
        self.problems.lock().insert(file.to_owned(), problem);
        self.changed.send_modify(|_| {});
    }

    fn repaired(&self, file: &str) {
        if self.problems.lock().remove(file).is_some() {
            self.changed.send_modify(|_| {});
        }
    }

    /// Changes a profile, makes one (from `None`), or removes it (to `None`): on disk, and in force, when this returns. Waits for the disk.
    /// What is in the file counts, unless it cannot be used: then what is in force does, and the file is set aside. So nobody is kept from
    /// taking something from somebody by a file that was spoilt.
    ///
    /// # Errors
    /// [`EditError::Refused`] with what `edit` said; [`EditError::Policy`], and then nothing has changed.
    pub fn edit_profile<E>(
        &self,
        principal: &Principal,
        edit: impl FnOnce(&Policy, Option<Profile>) -> Result<Option<Profile>, E>,
    ) -> Result<Arc<Policy>, EditError<E>> {
        let home = self.home.as_ref().ok_or(PolicyError::Fixed)?;
        let _writer = self.writer.lock();
        let path = files::profile_path(home, principal);
        let present = self.policy();
        let (text, old, spoilt) = match (files::read_profile(home, principal), present.find(principal)) {
            (Ok(Some(read)), _) => (read.text, Some(read.value), false),
            (Ok(None), _) => (String::new(), None, false),
            (Err(_), Some(Known::Entry(entry))) => (String::new(), Some(entry.profile.clone()), true),
            (Err(_), Some(Known::Unreadable)) => (String::new(), Some(Profile::nobody()), true),
            (Err(error), None) => return Err(error.into()),
        };
        let existed = old.is_some();
        let mut policy = present.copy();
        match edit(&present, old).map_err(EditError::Refused)? {
            Some(new) => {
                let text = files::rewrite(&text, &new).map_err(|wrong| files::wrong("", &path, wrong))?;
                let limit = match new.enabled {
                    true => files::PROFILE_BYTES_WRITTEN_MAX,
                    false => files::PROFILE_BYTES_MAX,
                };
                let inserted = policy.insert(principal.clone(), new);
                inserted.map_err(|wrong| files::wrong(&text, &path, wrong))?;
                files::check_size(&path, &text, limit)?;
                if spoilt {
                    files::keep_aside(&path)?;
                }
                files::write(&path, &text, limit)?;
            }
            None if existed => {
                policy.remove(principal);
                if spoilt {
                    files::set_aside(&path)?;
                } else {
                    files::remove(&path)?;
                }
            }
            None => return Err(PolicyError::NoPrincipal(principal.clone()).into()),
        }
        self.install(policy);
        self.repaired(&path.display().to_string());
        Ok(self.policy())
    }

    /// Changes the groups, as [`Authority::edit_profile`] does a profile.
    ///
    /// # Errors
    /// As there.
    pub fn edit_groups<E>(
        &self,
        edit: impl FnOnce(&Policy, &mut GroupsFile) -> Result<(), E>,
    ) -> Result<Arc<Policy>, EditError<E>> {
        let home = self.home.as_ref().ok_or(PolicyError::Fixed)?;
        let _writer = self.writer.lock();
        let (present, path) = (self.policy(), home.groups_file());
        let (text, mut groups, spoilt) = match files::read_groups(home) {
            Ok(read) => (read.text, read.value, false),
            Err(_) => (String::new(), present.groups_file().clone(), true),
        };
        edit(&present, &mut groups).map_err(EditError::Refused)?;
        let text = files::rewrite(&text, &groups).map_err(|wrong| files::wrong("", &path, wrong))?;
        let policy = present.with_other_groups(&groups);
        let policy = policy.map_err(|wrong| files::wrong(&text, &path, wrong))?;
        files::check_size(&path, &text, OPERATORS_FILE_BYTES_MAX as usize)?;
        if spoilt {
            files::keep_aside(&path)?;
        }
        files::write(&path, &text, OPERATORS_FILE_BYTES_MAX as usize)?;
        self.install(policy);
        self.repaired(&path.display().to_string());
        Ok(self.policy())
    }

    pub(super) fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }
}

/// An error for a line of status: with its hint, without line breaks of its own.
fn one_line(error: &PolicyError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    match error.hint() {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
    .replace('\n', "; ")
}

/// All files. What a profile was `before` stays when it cannot be understood now; without that it denies everything.
fn read_all(home: &Home, before: Option<&Policy>) -> Result<(Policy, Problems), PolicyError> {
    let groups = files::read_groups(home)?;
    let wrong = |wrong| files::wrong(&groups.text, &groups.path, wrong);
    let mut policy = Policy::with_groups(&groups.value).map_err(wrong)?;
    let (owners, strays) = files::owners(home)?;
    let mut problems: Problems = strays.into_iter().map(|p| (p.clone(), p)).collect();
    for principal in owners {
        let read = files::read_profile(home, &principal).and_then(|read| {
            let Some(read) = read else { return Ok(()) };
            let inserted = policy.insert(principal.clone(), read.value);
            inserted.map_err(|wrong| files::wrong(&read.text, &read.path, wrong))
        });
        if let Err(error) = read {
            let path = files::profile_path(home, &principal).display().to_string();
            problems.insert(path, one_line(&error));
            let kept = before.and_then(|b| b.profile(&principal)).cloned();
            let again = kept.map(|profile| policy.insert(principal.clone(), profile));
            if !matches!(again, Some(Ok(()))) {
                policy.insert_unreadable(principal);
            }
        }
    }
    Ok((policy, problems))
}

impl Policy {
    /// Whether that principal has a profile, readable or not.
    pub fn knows(&self, principal: &Principal) -> bool {
        matches!(self.find(principal), Some(Known::Entry(_) | Known::Unreadable))
    }
}
