//! Going through a tree of files, name by name in their order, each directory before what is in it; and going on after any name.
//!
//! Links are seen and not followed, so there are no circles. A walk ends by itself before it has cost too much.

use astrid_sdk::error::FsError;
use astrid_sdk::fs::{Entry, Fs, Kind, List, parse};
use ignore::overrides::Override;

use crate::error::FilesError;
use crate::rules::Ignores;
use crate::{limits, path};

/// What is walked through, and how.
pub(crate) struct Plan {
    /// The directory, with its root.
    pub(crate) directory: String,
    /// Directories below it that are gone into.
    pub(crate) depth: u32,
    /// What is shown.
    pub(crate) globs: Override,
    /// Whether what `.gitignore` files name is passed over.
    pub(crate) ignoring: bool,
}

/// A name that was found.
pub(crate) struct Found {
    /// Its path, relative to the directory.
    pub(crate) path: String,
    pub(crate) entry: Entry,
}

/// How it goes on.
pub(crate) enum Step {
    /// This was found.
    Found(Found),
    /// This was looked at and is not shown, and enough was looked at for one request.
    Paused(String),
    /// That was all.
    Done,
}

/// What could not be gone into.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Passed {
    /// Directories that may not or cannot be read.
    pub(crate) denied: u32,
    /// Directories that are too deep, and names that no path can say.
    pub(crate) unnamed: u64,
}

/// A directory that is being read.
struct Frame {
    /// Its path, relative to the one that is walked.
    path: String,
    list: List,
}

/// A walk.
pub(crate) struct Walk<'a> {
    fs: &'a Fs<'a>,
    plan: Plan,
    /// `workspace://`, and the walked directory beneath it.
    root: String,
    beneath: String,
    ignores: Ignores,
    stack: Vec<Frame>,
    names: u32,
    directories: u32,
    pub(crate) passed: Passed,
}

impl<'a> Walk<'a> {
    /// Begins, or goes on after the name of this path.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn new(fs: &'a Fs<'a>, plan: Plan, after: Option<&str>) -> Result<Self, FilesError> {
        let (_, beneath) = parse(&plan.directory).map_err(|error| FilesError::Invalid(format!("path: {error}")))?;
        let (root, beneath) = (
            plan.directory[..plan.directory.len() - beneath.len()].to_owned(),
            beneath.to_owned(),
        );
        let mut walk = Self {
            fs,
            plan,
            root,
            beneath,
            ignores: Ignores::default(),
            stack: Vec::new(),
            names: 0,
            directories: 0,
            passed: Passed::default(),
        };
        walk.enter_above();
        let after = after.filter(|after| !after.is_empty());
        let mut parts = after.iter().flat_map(|after| after.split('/'));
        walk.push(String::new(), parts.next());
        let Some(after) = after else { return Ok(walk) };
        // Into each directory on the way, on from the next part; and into the last one, from its beginning.
        let ends = after.match_indices('/').map(|(end, _)| end).chain([after.len()]);
        for end in ends {
            let directory = &after[..end];
            let meta = fs.stat_link(walk.full(directory));
            let may = walk.stack.len() as u32 <= walk.plan.depth && !walk.hides(directory, true);
            if !may || meta.map_or(true, |meta| meta.kind != Kind::Directory) {
                break;
            }
            walk.push(directory.to_owned(), parts.next());
        }
        Ok(walk)
    }

    fn full(&self, relative: &str) -> String {
        match relative {
            "" => self.plan.directory.clone(),
            relative => path::join(&self.plan.directory, relative),
        }
    }

    /// The path beneath the root, as `.gitignore` files see it.
    fn beneath(&self, relative: &str) -> String {
        match relative {
            "" => self.beneath.clone(),
            relative => path::join(&self.beneath, relative),
        }
    }

    /// What the directories above the walked one ignore.
    fn enter_above(&mut self) {
        if !self.plan.ignoring || self.beneath.is_empty() {
            return;
        }
        self.ignores.enter(self.fs, &self.root, "", 0);
        let beneath = self.beneath.clone();
        for (end, _) in beneath.match_indices('/') {
            self.ignores.enter(self.fs, &self.root, &beneath[..end], 0);
        }
    }

    /// Whether something is passed over, and all that is in it.
    fn hides(&self, relative: &str, is_directory: bool) -> bool {
        let ignored = self.plan.ignoring && self.ignores.hides(&self.beneath(relative), is_directory);
        ignored || self.plan.globs.matched(relative, is_directory).is_ignore() && is_directory
    }

    fn push(&mut self, directory: String, after: Option<&str>) {
        self.directories += 1;
        let full = self.full(&directory);
        let list = match after {
            Some(after) => self.fs.list_after(full, after),
            None => self.fs.list(full),
        };
        if self.plan.ignoring {
            let beneath = self.beneath(&directory);
            self.ignores.enter(self.fs, &self.root, &beneath, self.stack.len() + 1);
        }
        self.stack.push(Frame { path: directory, list });
    }

    fn pop(&mut self) {
        self.ignores.leave(self.stack.len());
        if let Some(frame) = self.stack.pop() {
            self.passed.unnamed += frame.list.passed_over();
        }
    }

    /// The next name.
    ///
    /// # Errors
    /// The directory that is walked cannot be read, or the disk not.
    pub(crate) fn step(&mut self) -> Result<Step, FilesError> {
        while let Some(frame) = self.stack.last_mut() {
            let entry = match frame.list.next() {
                None => {
                    self.pop();
                    continue;
                }
                Some(Ok(entry)) => entry,
                Some(Err(error)) => {
                    self.leave_unread(error)?;
                    continue;
                }
            };
            let found = path::join(&frame.path, &entry.name);
            self.names += 1;
            let is_directory = entry.is_directory();
            let enough = self.names >= limits::NAMES_VISITED || self.directories >= limits::DIRECTORIES_VISITED;
            if self.hides(&found, is_directory) {
                if enough {
                    return Ok(Step::Paused(found));
                }
                continue;
            }
            // A directory is gone into for what is in it, and shown if a glob names it.
            let matched = self.plan.globs.matched(&found, is_directory);
            let shown = match self.plan.globs.num_whitelists() {
                0 => !matched.is_ignore(),
                _ => matched.is_whitelist(),
            };
            // What is looked at is not gone into before the next request, which goes on with what is in it.
            if is_directory && (shown || !enough) {
                self.go_into(&found);
            }
            if shown {
                return Ok(Step::Found(Found { path: found, entry }));
            }
            if enough {
                return Ok(Step::Paused(found));
            }
        }
        Ok(Step::Done)
    }

    fn go_into(&mut self, directory: &str) {
        let depth = self.stack.len() as u32;
        if depth > self.plan.depth {
            self.passed.unnamed += u64::from(depth > limits::DEPTH_MAX);
            return;
        }
        self.push(directory.to_owned(), None);
    }

    /// A directory could not be read. That is told where it is the one that was asked for; one below it is passed over.
    fn leave_unread(&mut self, error: FsError) -> Result<(), FilesError> {
        let is_first = self.stack.len() == 1;
        let path = self
            .stack
            .last()
            .map(|frame| self.full(&frame.path))
            .unwrap_or_default();
        match error {
            // By the gate, or by the system, which has files that are not the daemon's.
            FsError::Denied(_) | FsError::Failed(_) if !is_first => self.passed.denied += 1,
            // It went away meanwhile, or became something else.
            FsError::NotFound | FsError::NotADirectory if !is_first => {}
            error => return Err(FilesError::reading(&path)(error)),
        }
        self.pop();
        Ok(())
    }
}
