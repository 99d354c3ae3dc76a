//! The functions of the contract.

use astrid_wire::authority::Action;

use super::super::host::{Command, Host};
use super::tree::{Content, Node, key_of, path_of, stays_inside};
use super::{MODE_MAX, Opened, PAGE_MAX, PART_BYTES_MAX, Reading, WATCHES_MAX, WHOLE_BYTES_MAX, hash, no_file};
use crate::bindings::astrid::kernel::fs::{Creation, Entry, Expected, FsError, Meta, OpenOptions};
use crate::bindings::astrid::kernel::types::PortId;

impl Host {
    pub(in crate::testing) fn fs_open(&mut self, path: &str, options: OpenOptions) -> Result<u64, FsError> {
        let makes = options.create != Creation::Never;
        if !options.write && (!options.read || makes || options.truncate) {
            return Err(FsError::Invalid(
                "options: a file is opened to read, or to write".to_owned(),
            ));
        }
        let key = match (options.read, options.write) {
            (true, true) => {
                self.permitted(Action::FsRead, path, true)?;
                self.permitted(Action::FsWrite, path, true)?
            }
            (true, _) => self.permitted(Action::FsRead, path, true)?,
            _ => self.permitted(Action::FsWrite, path, true)?,
        };
        let now = self.now_ms();
        let files = &mut self.files;
        match files.tree.get(&key).map(|node| &node.content) {
            Some(_) if options.create == Creation::MustBeNew => return Err(FsError::Exists),
            Some(Content::File(_)) => {
                if options.truncate
                    && let Some(node) = files.tree.change(&key)
                {
                    node.content = Content::File(Vec::new());
                    node.modified_ms = now;
                }
            }
            Some(other) => return Err(no_file(other)),
            None if !makes => return Err(FsError::NotFound),
            None => {
                files.check_parent(&key)?;
                files.check_space(0, 1)?;
                files.tree.insert(&key, Node::new(Content::File(Vec::new()), now));
            }
        }
        let id = files.handle()?;
        let OpenOptions { read, write, .. } = options;
        files.files.insert(id, Opened { key, read, write });
        Ok(id)
    }

    pub(in crate::testing) fn fs_read(&mut self, id: u64, offset: u64, length: u32) -> Result<Vec<u8>, FsError> {
        let opened = self.files.opened(id)?;
        if !opened.read {
            return Err(FsError::Invalid("the file is not open to be read".to_owned()));
        }
        if length as usize > PART_BYTES_MAX {
            return Err(FsError::TooLarge(PART_BYTES_MAX as u64));
        }
        let bytes = self.files.content(&opened.key)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = start.saturating_add(length as usize).min(bytes.len());
        let part = bytes[start..end].to_vec();
        self.files.read_bytes += part.len() as u64;
        Ok(part)
    }

    /// Changes the content of an open file.
    fn fs_change(&mut self, id: u64, change: impl FnOnce(&mut Vec<u8>), becomes: usize) -> Result<(), FsError> {
        let opened = self.files.opened(id)?;
        if !opened.write {
            return Err(FsError::Invalid("the file is not open to be written".to_owned()));
        }
        let key = opened.key.clone();
        let is = self.files.content(&key)?.len();
        self.files.check_space(is, becomes)?;
        let now = self.now_ms();
        if let Some(node) = self.files.tree.change(&key)
            && let Content::File(bytes) = &mut node.content
        {
            change(bytes);
            node.modified_ms = now;
        }
        Ok(())
    }

    pub(in crate::testing) fn fs_write(&mut self, id: u64, offset: u64, part: &[u8]) -> Result<(), FsError> {
        if part.len() > PART_BYTES_MAX {
            return Err(FsError::TooLarge(PART_BYTES_MAX as u64));
        }
        let start = usize::try_from(offset).map_err(|_| FsError::TooLarge(u64::from(u32::MAX)))?;
        let end = start.saturating_add(part.len());
        let write = |bytes: &mut Vec<u8>| {
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(part);
        };
        self.fs_change(id, write, end)
    }

    pub(in crate::testing) fn fs_set_length(&mut self, id: u64, length: u64) -> Result<(), FsError> {
        let length = usize::try_from(length).map_err(|_| FsError::TooLarge(u64::from(u32::MAX)))?;
        self.fs_change(id, |bytes| bytes.resize(length, 0), length)
    }

    pub(in crate::testing) fn fs_stat_open(&self, id: u64) -> Result<Meta, FsError> {
        let key = &self.files.opened(id)?.key;
        let node = self.files.tree.get(key).ok_or(FsError::NotFound)?;
        Ok(node.meta())
    }

    pub(in crate::testing) fn fs_sync(&self, id: u64) -> Result<(), FsError> {
        self.files.opened(id).map(drop)
    }

    /// A handle was dropped by the guest.
    pub(in crate::testing) fn fs_close(&mut self, id: u64) {
        self.files.files.remove(&id);
        self.files.dirs.remove(&id);
    }

    pub(in crate::testing) fn fs_open_dir(&mut self, path: &str, after: Option<&str>) -> Result<u64, FsError> {
        let key = self.permitted(Action::FsRead, path, true)?;
        match self.files.tree.get(&key).map(|node| &node.content) {
            Some(Content::Directory) => {}
            Some(_) => return Err(FsError::NotADirectory),
            None => return Err(FsError::NotFound),
        }
        let names = self.files.tree.children(&key);
        let wanted = names.filter(|(name, _)| after.is_none_or(|after| *name > after));
        let (shown, hidden): (Vec<_>, Vec<_>) = wanted.partition(|(name, _)| !name.chars().any(char::is_control));
        let entries: Vec<Entry> = shown
            .into_iter()
            .map(|(name, node)| Entry {
                name: name.to_owned(),
                meta: node.meta(),
            })
            .collect();
        let reading = Reading {
            rest: entries.into_iter(),
            passed_over: hidden.len() as u64,
        };
        let id = self.files.handle()?;
        self.files.dirs.insert(id, reading);
        Ok(id)
    }

    pub(in crate::testing) fn fs_next(&mut self, id: u64, max: u32) -> Result<Vec<Entry>, FsError> {
        let reading = self.files.dirs.get_mut(&id).ok_or(FsError::Closed)?;
        if max == 0 || max > PAGE_MAX {
            return Err(FsError::Invalid(format!("max: 1 to {PAGE_MAX}")));
        }
        Ok(reading.rest.by_ref().take(max as usize).collect())
    }

    pub(in crate::testing) fn fs_passed_over(&self, id: u64) -> u64 {
        self.files.dirs.get(&id).map_or(0, |reading| reading.passed_over)
    }

    pub(in crate::testing) fn fs_stat(&self, path: &str, follow: bool) -> Result<Meta, FsError> {
        let key = self.permitted(Action::FsRead, path, follow)?;
        let node = self.files.tree.get(&key).ok_or(FsError::NotFound)?;
        Ok(node.meta())
    }

    pub(in crate::testing) fn fs_hash(&self, path: &str) -> Result<String, FsError> {
        let key = self.permitted(Action::FsRead, path, true)?;
        Ok(hash(self.files.content(&key)?))
    }

    pub(in crate::testing) fn fs_replace(
        &mut self,
        path: &str,
        bytes: &[u8],
        expected: &Expected,
    ) -> Result<String, FsError> {
        if bytes.len() > WHOLE_BYTES_MAX {
            return Err(FsError::TooLarge(WHOLE_BYTES_MAX as u64));
        }
        if let Expected::Content(_) = expected {
            self.permitted(Action::FsRead, path, true)?;
        }
        let key = self.permitted(Action::FsWrite, path, true)?;
        let is = match self.files.tree.get(&key).map(|node| &node.content) {
            Some(_) if *expected == Expected::Absent => return Err(FsError::Exists),
            Some(Content::File(is)) => Some(is),
            Some(other) => return Err(no_file(other)),
            None => None,
        };
        if let Expected::Content(wanted) = expected
            && is.map(|is| hash(is)).as_ref() != Some(wanted)
        {
            return Err(FsError::Changed);
        }
        self.files.check_space(is.map_or(0, Vec::len), bytes.len())?;
        self.files.check_parent(&key)?;
        let mut node = Node::new(Content::File(bytes.to_owned()), self.now_ms());
        if let Some(was) = self.files.tree.get(&key) {
            node.mode = was.mode;
        }
        self.files.tree.insert(&key, node);
        Ok(hash(bytes))
    }

    pub(in crate::testing) fn fs_make_dir(&mut self, path: &str, parents: bool) -> Result<(), FsError> {
        let (root, rest) = self.parsed(path)?;
        let now = self.now_ms();
        if parents {
            let ends = rest.match_indices('/').map(|(end, _)| end).chain([rest.len()]);
            for end in ends {
                let above = path_of(&key_of(root, &rest[..end]));
                match self.fs_make_dir(&above, false) {
                    Err(FsError::Exists) => match self.files.tree.resolve(root, &rest[..end], true)? {
                        key if matches!(self.files.tree.get(&key).map(|n| &n.content), Some(Content::Directory)) => {}
                        _ => return Err(FsError::NotADirectory),
                    },
                    // Those above that are there need nobody's leave.
                    Err(FsError::Denied(_)) if end < rest.len() && self.files.is_directory(root, &rest[..end]) => {}
                    made => made?,
                }
            }
            return Ok(());
        }
        let key = self.permitted(Action::FsWrite, path, false)?;
        if self.files.tree.get(&key).is_some() {
            return Err(FsError::Exists);
        }
        self.files.check_space(0, 1)?;
        self.files.tree.insert(&key, Node::new(Content::Directory, now));
        Ok(())
    }

    pub(in crate::testing) fn fs_remove(&mut self, path: &str, recursive: bool) -> Result<(), FsError> {
        let key = self.permitted(Action::FsWrite, path, false)?;
        if !key.contains('/') {
            return Err(FsError::Invalid("path: a root is not removed".to_owned()));
        }
        let node = self.files.tree.get(&key).ok_or(FsError::NotFound)?;
        if node.content == Content::Directory && self.files.tree.below(&key).next().is_some() {
            if !recursive {
                return Err(FsError::NotEmpty);
            }
            self.check_below(Action::FsWrite, &key)?;
        }
        self.files.tree.remove(&key);
        Ok(())
    }

    pub(in crate::testing) fn fs_rename(&mut self, source: &str, target: &str, overwrite: bool) -> Result<(), FsError> {
        let from = self.permitted(Action::FsWrite, source, false)?;
        let to = self.permitted(Action::FsWrite, target, false)?;
        let root = |key: &str| key.split('/').next().unwrap_or_default().to_owned();
        if root(&from) != root(&to) {
            return Err(FsError::Unsupported(
                "source and target are in different roots".to_owned(),
            ));
        }
        let node = self.files.tree.get(&from).ok_or(FsError::NotFound)?;
        if !from.contains('/') || to.starts_with(&format!("{from}/")) {
            return Err(FsError::Invalid("target: it is within the source".to_owned()));
        }
        if from == to {
            return Ok(());
        }
        let is_directory = node.content == Content::Directory;
        match self.files.tree.get(&to).map(|node| &node.content) {
            Some(_) if !overwrite => return Err(FsError::Exists),
            Some(Content::Directory) if !is_directory => return Err(FsError::IsADirectory),
            Some(Content::Directory) if self.files.tree.below(&to).next().is_some() => return Err(FsError::NotEmpty),
            Some(Content::Directory) | None => {}
            Some(_) if is_directory => return Err(FsError::NotADirectory),
            Some(_) => {}
        }
        if is_directory && self.files.tree.below(&from).next().is_some() {
            self.check_below(Action::FsWrite, &from)?;
            self.check_below(Action::FsWrite, &to)?;
        }
        self.files.tree.rename(&from, &to);
        Ok(())
    }

    pub(in crate::testing) fn fs_read_link(&self, path: &str) -> Result<String, FsError> {
        let key = self.permitted(Action::FsRead, path, false)?;
        match self.files.tree.get(&key).map(|node| &node.content) {
            Some(Content::Link(target)) => Ok(target.clone()),
            Some(_) => Err(FsError::Invalid("path: it is no link".to_owned())),
            None => Err(FsError::NotFound),
        }
    }

    pub(in crate::testing) fn fs_make_link(&mut self, path: &str, target: &str) -> Result<(), FsError> {
        let key = self.permitted(Action::FsWrite, path, false)?;
        if target.is_empty() || target.len() > 4095 || target.chars().any(char::is_control) {
            return Err(FsError::Invalid(
                "target: it has 1 to 4095 bytes and no control characters".to_owned(),
            ));
        }
        if !stays_inside(&key, target) {
            return Err(FsError::Escapes);
        }
        if self.files.tree.get(&key).is_some() {
            return Err(FsError::Exists);
        }
        let node = Node::new(Content::Link(target.to_owned()), self.now_ms());
        self.files.tree.insert(&key, node);
        Ok(())
    }

    /// Changes what is known of a file.
    fn fs_mark(&mut self, path: &str, mark: impl FnOnce(&mut Node)) -> Result<(), FsError> {
        let key = self.permitted(Action::FsWrite, path, true)?;
        let node = self.files.tree.change(&key).ok_or(FsError::NotFound)?;
        mark(node);
        Ok(())
    }

    pub(in crate::testing) fn fs_set_modified(&mut self, path: &str, modified_ms: i64) -> Result<(), FsError> {
        self.fs_mark(path, |node| node.modified_ms = modified_ms)
    }

    pub(in crate::testing) fn fs_set_mode(&mut self, path: &str, mode: u32) -> Result<(), FsError> {
        if mode > MODE_MAX {
            return Err(FsError::Invalid(format!("mode: at most {MODE_MAX:#o}")));
        }
        self.fs_mark(path, |node| node.mode = mode)
    }

    pub(in crate::testing) fn fs_watch(&mut self, path: &str) -> Result<PortId, FsError> {
        let key = self.permitted(Action::FsRead, path, true)?;
        self.files.tree.get(&key).ok_or(FsError::NotFound)?;
        if self.files.watches.len() >= WATCHES_MAX {
            return Err(FsError::TooMany(WATCHES_MAX as u32));
        }
        self.room().map_err(FsError::TooMany)?;
        let port = self.new_port();
        self.record(Command::Watch(port, path.to_owned()));
        Ok(port)
    }

    pub(in crate::testing) fn fs_unwatch(&mut self, port: PortId) -> bool {
        let known = self.files.watches.contains_key(&port) && self.room().is_ok();
        if known {
            self.record(Command::EndWatch(port));
        }
        known
    }
}
