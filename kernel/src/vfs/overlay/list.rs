//! What is in a directory of the merged view.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::fd::AsFd;

use super::super::beneath::{FileType, names_in, stat_in};
use super::super::error::{At as _, Fault, FsError};
use super::super::layer::Kind;
use super::super::listing::{Gathering, Page, can_be_told};
use super::super::path::Place;
use super::{Level, Overlay};

/// Names that the upper layer may have in one directory, to be listed: those of the lower layer are compared with them.
const UPPER_NAMES_MAX: usize = 1 << 18;

impl Overlay {
    pub(in super::super) fn list(
        &self,
        place: &Place,
        after: Option<&str>,
        entries_max: usize,
    ) -> Result<Page, FsError> {
        let mut page = Gathering::new(after, entries_max);
        self.level(place.path())
            .and_then(|level| gather(&level, &mut page))
            .at(place.path())?;
        Ok(page.page())
    }
}

fn gather(level: &Level<'_>, page: &mut Gathering<'_>) -> Result<(), Fault> {
    let mut above = HashSet::new();
    if let Some(upper) = &level.upper {
        for entry in names_in(upper.as_fd())? {
            let (name, told) = entry?;
            if let Some(kind) = kind(level, &name, told, true)? {
                if page.wants(&name) {
                    page.add(&name, kind, true);
                } else if can_be_told(&name) {
                    // It is on another page; so is what is below it, which need not be compared with it.
                    continue;
                }
            }
            above.insert(name);
            if above.len() > UPPER_NAMES_MAX {
                return Err(Fault::TooMany(UPPER_NAMES_MAX as u64));
            }
        }
    }
    if let Some(lower) = &level.lower {
        for entry in names_in(lower.as_fd())? {
            let (name, told) = entry?;
            if above.contains(&name) {
                continue;
            }
            if let Some(kind) = kind(level, &name, told, false)?
                && page.wants(&name)
            {
                page.add(&name, kind, false);
            }
        }
    }
    Ok(())
}

/// What a layer has under a name that was read there; nothing for a whiteout.
fn kind(level: &Level<'_>, name: &OsString, told: FileType, upper: bool) -> Result<Option<FileType>, Fault> {
    let sure = match told {
        FileType::CharacterDevice | FileType::Unknown => false,
        FileType::RegularFile => !(upper && level.whiteout_files),
        _ => true,
    };
    if sure {
        return Ok(Some(told));
    }
    let dir = if upper { level.upper()? } else { level.lower()? };
    let seen = level.look(name)?;
    let entry = if upper { seen.upper } else { seen.lower };
    match entry {
        Some(entry) if entry.kind != Kind::Whiteout => Ok(stat_in(dir, name).ok().map(|stat| stat.kind)),
        _ => Ok(None),
    }
}

impl Level<'_> {
    /// All names of the merged view, and those of whiteouts.
    pub(super) fn all_names(&self) -> Result<Vec<OsString>, Fault> {
        let mut names = HashSet::new();
        for dir in [&self.upper, &self.lower].into_iter().flatten() {
            for entry in names_in(dir.as_fd())? {
                names.insert(entry?.0);
                if names.len() > UPPER_NAMES_MAX {
                    return Err(Fault::TooMany(UPPER_NAMES_MAX as u64));
                }
            }
        }
        Ok(names.into_iter().collect())
    }

    /// Whether nothing is shown in it.
    pub(super) fn is_empty(&self) -> Result<bool, Fault> {
        let mut hidden = HashSet::new();
        if let Some(upper) = &self.upper {
            for entry in names_in(upper.as_fd())? {
                let (name, told) = entry?;
                if kind(self, &name, told, true)?.is_some() {
                    return Ok(false);
                }
                hidden.insert(name);
            }
        }
        if let Some(lower) = &self.lower {
            for entry in names_in(lower.as_fd())? {
                let (name, told) = entry?;
                if !hidden.contains(&name) && kind(self, &name, told, false)?.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
