//! `etc/groups.toml` and `etc/profiles/NAME.toml`: read, checked, and written back so that a person's comments stay.

#![allow(
    clippy::disallowed_methods,
    reason = "this module owns the files of etc/ that say who may do what"
)]

use std::io;
use std::path::{Path, PathBuf};

use astrid_wire::Principal;
use astrid_wire::authority::{GroupsFile, Profile};
use astrid_wire::manifest::ManifestError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::policy::{PRINCIPALS_MAX, Wrong};
use crate::config::place;
use crate::home::{self, Durability, Home, HomeError, PRIVATE_FILE};

/// Most bytes of a profile that is read. The groups of all have a megabyte, as every file of `etc/`.
pub const PROFILE_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a profile that is written of whoever may act: what takes everything from it always has room.
pub(super) const PROFILE_BYTES_WRITTEN_MAX: usize = PROFILE_BYTES_MAX - (4 << 10);

/// What the `default` principal's profile says at first.
pub(super) const DEFAULT_PROFILE: &str = "\
# The principal of whoever runs this daemon. Written once; from then on this file is yours.
groups = [\"admin\"]
";

/// Why something about principals and groups cannot be read or written. The operator's to repair.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file cannot be read, or could be written by others.
    #[error(transparent)]
    File(#[from] HomeError),
    /// What is in it is wrong; says where.
    #[error("{}", place(.0))]
    Content(ManifestError),
    /// It would be larger than what is read.
    #[error("{} would have {bytes} bytes, the limit is {limit}", .path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It cannot be written, or a directory cannot be read.
    #[error("cannot use {}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody of that name is known.
    #[error("there is no principal {0}")]
    NoPrincipal(Principal),
    /// This daemon's policy has no files.
    #[error("this policy is not in files")]
    Fixed,
}

impl PolicyError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => Some(error.hint()),
            Self::Content(error) => error.hint().map(str::to_owned),
            Self::Io { path, .. } => Some(format!("see that {} can be read and written", path.display())),
            Self::TooLarge { .. } => {
                Some("take out what is not needed; whoever is disabled may have a larger file".to_owned())
            }
            Self::NoPrincipal(_) => Some("`astrid agent list` names those that there are".to_owned()),
            Self::Fixed => None,
        }
    }
}

/// Where a word of a wrong file is: as a string, or as a key or in a header.
fn find_word(text: &str, word: &str) -> Option<usize> {
    if word.is_empty() {
        return None;
    }
    let quoted = format!("\"{word}\"");
    let string = text.find(&quoted);
    string
        .or_else(|| text.find(&format!(".{word}]")).map(|at| at + 1))
        .or_else(|| text.find(word))
}

pub(super) fn wrong(text: &str, path: &Path, wrong: Wrong) -> PolicyError {
    let byte = wrong.word.as_deref().and_then(|word| find_word(text, word));
    let origin = path.display().to_string();
    PolicyError::Content(ManifestError::at(text, &origin, byte, wrong.what, wrong.hint))
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, PolicyError> {
    let origin = path.display().to_string();
    toml::from_str(text).map_err(|error| PolicyError::Content(ManifestError::from_toml(text, &origin, &error)))
}

/// A file and what it says.
pub(super) struct Read<T> {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) value: T,
}

pub(super) fn read_groups(home: &Home) -> Result<Read<GroupsFile>, PolicyError> {
    let path = home.groups_file();
    let text = home::read_operators_file(&path)?.unwrap_or_default();
    let value = parse(&text, &path)?;
    Ok(Read { path, text, value })
}

pub(super) fn profile_path(home: &Home, principal: &Principal) -> PathBuf {
    home.profiles_dir().join(format!("{principal}.toml"))
}

/// `None` when there is no such file.
pub(super) fn read_profile(home: &Home, principal: &Principal) -> Result<Option<Read<Profile>>, PolicyError> {
    let path = profile_path(home, principal);
    let Some(text) = home::read_operators_file(&path)? else {
        return Ok(None);
    };
    if text.len() > PROFILE_BYTES_MAX {
        return Err(PolicyError::File(HomeError::TooLarge {
            path,
            limit: PROFILE_BYTES_MAX as u64,
        }));
    }
    let value = parse(&text, &path)?;
    Ok(Some(Read { path, text, value }))
}

/// Whose profile a file is by its name: `None` when it is none, as what an editor leaves there.
pub(super) fn owner_of(name: &str) -> Option<Result<Principal, String>> {
    let stem = name.strip_suffix(".toml").filter(|stem| !stem.starts_with('.'))?;
    Some(match stem.parse::<Principal>() {
        Ok(principal) if principal.is_anonymous() => Err("`anonymous` has no profile: it is nobody".to_owned()),
        Ok(principal) => Ok(principal),
        Err(error) => Err(error.to_string()),
    })
}

/// Everybody who has a profile, in order; and what is there besides and is no profile.
pub(super) fn owners(home: &Home) -> Result<(Vec<Principal>, Vec<String>), PolicyError> {
    let directory = home.profiles_dir();
    let io = |source| PolicyError::Io {
        path: directory.clone(),
        source,
    };
    let (mut owners, mut problems) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        match owner_of(&name.to_string_lossy()) {
            None => {}
            Some(Ok(_)) if owners.len() >= PRINCIPALS_MAX => {
                problems.push(format!(
                    "there are more than {PRINCIPALS_MAX} profiles: some are not read"
                ));
                break;
            }
            Some(Ok(principal)) => owners.push(principal),
            Some(Err(why)) => problems.push(format!("etc/profiles/{}: {why}", name.to_string_lossy().escape_debug())),
        }
    }
    owners.sort_unstable();
    Ok((owners, problems))
}

/// Writes the profile of `default` if that was never done. What an operator made of it, deleting included, stays (K3).
pub(super) fn seed(home: &Home) -> Result<(), PolicyError> {
    let directory = home.profiles_dir();
    let (profile, seeded) = (directory.join("default.toml"), directory.join(".seeded"));
    if seeded.symlink_metadata().is_ok() {
        return Ok(());
    }
    if profile.symlink_metadata().is_err() {
        write(&profile, DEFAULT_PROFILE, PROFILE_BYTES_MAX)?;
    }
    let done = "default.toml was written once and will not be again\n";
    write(&seeded, done, PROFILE_BYTES_MAX)
}

/// Moves a file that cannot be used out of the way of one that can, and loses nothing of it.
pub(super) fn set_aside(path: &Path) -> Result<(), PolicyError> {
    let aside = path.with_extension("toml.wrong");
    tracing::warn!(file = %path.display(), aside = %aside.display(), "a file that cannot be used is set aside");
    match std::fs::rename(path, aside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(PolicyError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Whether it could be read again.
pub(super) fn check_size(path: &Path, text: &str, limit: usize) -> Result<(), PolicyError> {
    if text.len() > limit {
        return Err(PolicyError::TooLarge {
            path: path.to_owned(),
            bytes: text.len(),
            limit,
        });
    }
    Ok(())
}

/// Keeps what a file says beside it, where it is about to be replaced: it is there itself until that has happened.
pub(super) fn keep_aside(path: &Path) -> Result<(), PolicyError> {
    let aside = path.with_extension("toml.wrong");
    let io = |source| PolicyError::Io {
        path: aside.clone(),
        source,
    };
    home::remove_file(&aside).map_err(io)?;
    match std::fs::hard_link(path, &aside) {
        Ok(()) => {
            tracing::warn!(file = %path.display(), aside = %aside.display(), "a file that cannot be used is replaced, and kept aside");
            Ok(())
        }
        // A directory, or a file system without links.
        Err(_) => set_aside(path),
    }
}

/// Replaces a file in one step; it is on disk when this returns. Never by one that would not be read again.
pub(super) fn write(path: &Path, text: &str, limit: usize) -> Result<(), PolicyError> {
    check_size(path, text, limit)?;
    home::replace_file(path, &[text.as_bytes()], PRIVATE_FILE, Durability::Synced).map_err(|source| PolicyError::Io {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn remove(path: &Path) -> Result<(), PolicyError> {
    let io = |source| PolicyError::Io {
        path: path.to_owned(),
        source,
    };
    home::remove_file(path).map_err(io)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(directory).and_then(|d| d.sync_all()).map_err(io)
}

/// The text of a file that says `new`, as much like `text` as can be: its comments stay where its values are replaced one by one, and
/// those at its beginning stay in any case. What it says when it is read again is `new` and nothing else.
pub(super) fn rewrite<T: Serialize + DeserializeOwned + PartialEq>(text: &str, new: &T) -> Result<String, Wrong> {
    let wanted = toml::Table::try_from(new).map_err(|error| Wrong {
        what: format!("this cannot be written: {error}"),
        word: None,
        hint: Some(format!("numbers are at most {}", i64::MAX)),
    })?;
    let says_it = |text: &String| toml::from_str::<T>(text).is_ok_and(|found| found == *new);
    if let Some(patched) = patch(text, &wanted).filter(says_it) {
        return Ok(patched);
    }
    let comments: String = text
        .lines()
        .take_while(|l| l.starts_with('#'))
        .flat_map(|l| [l, "\n"])
        .collect();
    let whole = comments + &wanted.to_string();
    if says_it(&whole) {
        return Ok(whole);
    }
    Err(Wrong {
        what: "this cannot be written so that it is read as the same".to_owned(),
        word: None,
        hint: None,
    })
}

/// One range of a text and what comes in its place.
type Edit = (std::ops::Range<usize>, String);

/// Replaces, adds and removes values, each where it is written. `None` when that needs another table than there are.
fn patch(text: &str, wanted: &toml::Table) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut edits: Vec<Edit> = Vec::new();
    let first_table = line_starts(text).find(|at| text[*at..].trim_start_matches([' ', '\t']).starts_with('['));
    patch_table(
        text,
        document.get_ref(),
        wanted,
        first_table.unwrap_or(text.len()),
        &mut edits,
    )?;
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut patched = text.to_owned();
    for (range, new) in edits {
        patched.replace_range(range, &new);
    }
    Some(patched)
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1))
}

/// `end` is where a value that is added goes: the end of what is directly in this table.
fn patch_table(
    text: &str,
    present: &DeTable<'_>,
    wanted: &toml::Table,
    end: usize,
    edits: &mut Vec<Edit>,
) -> Option<()> {
    for (key, value) in present.iter() {
        match (wanted.get(&**key.get_ref()), value.get_ref()) {
            (Some(toml::Value::Table(wanted)), DeValue::Table(inner)) => {
                let last = inner.iter().map(|(_, v)| v.span().end).max()?;
                let end = text[last..].find('\n').map_or(text.len(), |at| last + at + 1);
                patch_table(text, inner, wanted, end, edits)?;
            }
            (_, DeValue::Table(_)) => return None,
            (Some(new), _)
                if toml::from_str::<toml::Table>(&format!("v = {}", &text[value.span()]))
                    .is_ok_and(|old| old.get("v") == Some(new)) => {}
            (Some(new), _) => edits.push((value.span(), new.to_string())),
            (None, _) => {
                let start = text[..key.span().start].rfind('\n').map_or(0, |at| at + 1);
                let end = value.span().end;
                let end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
                edits.push((start..end, String::new()));
            }
        }
    }
    let mut add = String::new();
    for (key, value) in wanted
        .iter()
        .filter(|(key, _)| !present.iter().any(|(name, _)| **name.get_ref() == ***key))
    {
        if value.is_table() {
            return None;
        }
        add.push_str(&format!("{key} = {value}\n"));
    }
    if !add.is_empty() {
        let gap = if end > 0 && !text[..end].ends_with('\n') {
            "\n"
        } else {
            ""
        };
        edits.push((end..end, format!("{gap}{add}")));
    }
    Some(())
}
