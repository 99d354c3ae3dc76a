//! Files of the fake kernel: trees in memory behind the contract of `wit/fs.wit`, with its limits and its errors.
//!
//! All roots are there and everything may be read and written, until the test says otherwise ([`Harness::grant_files`],
//! [`Harness::detach_workspace`], [`Harness::fill_disk`], [`Harness::refuse_file`]); with a manifest only what that asks for.

use std::collections::BTreeMap;

use astrid_wire::authority::{Action, Capability, Resource};
use astrid_wire::fs::{CHANGED, Changed, ENDED, Root};

use super::host::{Command, Host};
use super::{Handled, Harness, written};
use crate::bindings::astrid::kernel::fs::{Creation, Entry, Expected, FsError, Meta, OpenOptions};
use crate::bindings::astrid::kernel::types::{Kind as MessageKind, PortId, Source};
use crate::body::Body;
use crate::dispatch::Capsule;

mod tree;

use tree::{Content, Node, Tree, key_of, path_of, stays_inside};

/// Limits of the contract: bytes of a part and of a whole file, names of a page, handles of a handling, watches of an actor.
const PART_BYTES_MAX: usize = 1 << 20;
const WHOLE_BYTES_MAX: usize = 32 << 20;
const PAGE_MAX: u32 = 1_000;
const HANDLES_MAX: usize = 64;
const WATCHES_MAX: usize = 16;

/// Permission bits that can be set.
const MODE_MAX: u32 = 0o777;

/// The trees, and what is open in them.
#[derive(Debug, Default)]
pub(super) struct Files {
    tree: Tree,
    /// What the principal may, if the test says so.
    grants: Option<Vec<Capability>>,
    detached: bool,
    full: bool,
    refused: BTreeMap<String, FsError>,
    handles: u64,
    files: BTreeMap<u64, Opened>,
    dirs: BTreeMap<u64, Reading>,
    pub(super) watches: BTreeMap<PortId, String>,
    read_bytes: u64,
}

#[derive(Debug)]
struct Opened {
    key: String,
    read: bool,
    write: bool,
}

#[derive(Debug)]
struct Reading {
    rest: std::vec::IntoIter<Entry>,
    passed_over: u64,
}

impl Files {
    /// What was opened is good until the handler returns.
    pub(super) fn close_all(&mut self) {
        self.files.clear();
        self.dirs.clear();
    }

    /// The daemon begins again.
    pub(super) fn restart(&mut self) {
        self.close_all();
        self.watches.clear();
        self.tree.clear(Root::Tmp);
    }

    fn opened(&self, id: u64) -> Result<&Opened, FsError> {
        self.files.get(&id).ok_or(FsError::Closed)
    }

    fn content(&self, key: &str) -> Result<&Vec<u8>, FsError> {
        match self.tree.get(key).map(|node| &node.content) {
            Some(Content::File(bytes)) => Ok(bytes),
            Some(other) => Err(no_file(other)),
            None => Err(FsError::NotFound),
        }
    }

    fn handle(&mut self) -> Result<u64, FsError> {
        if self.files.len() + self.dirs.len() >= HANDLES_MAX {
            return Err(FsError::TooMany(HANDLES_MAX as u32));
        }
        self.handles += 1;
        Ok(self.handles)
    }

    /// Whether the directory that something is to be in is there.
    fn check_parent(&self, key: &str) -> Result<(), FsError> {
        let parent = key.rsplit_once('/').map_or(key, |(parent, _)| parent);
        match self.tree.get(parent).map(|node| &node.content) {
            Some(Content::Directory) => Ok(()),
            Some(_) => Err(FsError::NotADirectory),
            None => Err(FsError::NotFound),
        }
    }

    fn check_space(&self, is: usize, becomes: usize) -> Result<(), FsError> {
        match self.full && becomes > is {
            true => Err(FsError::NoSpace("the disk is full".to_owned())),
            false => Ok(()),
        }
    }
}

/// Why something that is there is no file.
fn no_file(content: &Content) -> FsError {
    match content {
        Content::Directory => FsError::IsADirectory,
        Content::Link(_) => FsError::Escapes,
        Content::File(_) | Content::Other => FsError::Unsupported("it is a device, a fifo or a socket".to_owned()),
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// What the gate decides.
impl Host {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.wall_ms()).unwrap_or(i64::MAX)
    }

    /// The root and the rest of a path that can be used now.
    fn parsed<'a>(&self, path: &'a str) -> Result<(Root, &'a str), FsError> {
        let parsed = astrid_wire::fs::parse(path).map_err(|error| FsError::Invalid(format!("path: {error}")))?;
        match self.files.detached && parsed.0 == Root::Workspace {
            true => Err(FsError::NoWorkspace),
            false => Ok(parsed),
        }
    }

    /// The key of a path that may be read or written.
    fn permitted(&self, action: Action, path: &str, follow: bool) -> Result<String, FsError> {
        let (root, rest) = self.parsed(path)?;
        let resolved = self.files.tree.resolve(root, rest, follow);
        // Who may not look is not told what is there.
        let key = match &resolved {
            Ok(key) => key.clone(),
            Err(_) => key_of(root, rest),
        };
        self.check_fs(action, &key)?;
        match self.files.refused.get(&key) {
            Some(error) => Err(error.clone()),
            None => resolved,
        }
    }

    fn check_fs(&self, action: Action, key: &str) -> Result<(), FsError> {
        let resource = format!("/{key}");
        // A directory may be read also where all that is directly in it may.
        let inside = match action {
            Action::FsRead => format!("{resource}/*").parse::<Resource>().ok(),
            _ => None,
        };
        let within = |allowed: &Resource| {
            allowed.matches(&resource) || inside.as_ref().is_some_and(|inside| allowed.covers(inside))
        };
        self.check_by(action, &resource, &within)
    }

    /// Everything below a directory.
    fn check_below(&self, action: Action, key: &str) -> Result<(), FsError> {
        let below = format!("/{key}/>");
        let Ok(resource) = below.parse::<Resource>() else {
            return Err(FsError::Denied(format!("{action}:{below}: it is not well-formed")));
        };
        self.check_by(action, &below, &|allowed| allowed.covers(&resource))
    }

    fn check_by(&self, action: Action, shown: &str, within: &dyn Fn(&Resource) -> bool) -> Result<(), FsError> {
        if let Some(manifest) = &self.manifest {
            let asked = manifest.capabilities.fs.as_ref();
            let mut paths = asked.into_iter().flat_map(|asked| match action {
                Action::FsRead => &asked.read,
                _ => &asked.write,
            });
            if !paths.any(|path| within(path.resource())) {
                return Err(FsError::Denied(format!(
                    "{action}:{shown}: [capabilities] fs of the manifest does not ask for it"
                )));
            }
        }
        let holds = |capability: &Capability| match (capability.action(), capability.resource()) {
            (None, _) => true,
            (Some(granted), None) => granted == action,
            (Some(granted), Some(resource)) => granted == action && within(resource),
        };
        match &self.files.grants {
            Some(grants) if !grants.iter().any(holds) => {
                let who = self.principal();
                Err(FsError::Denied(format!(
                    "{who} may not {action}:{shown}: nothing grants it to {who}; it needs a grant: `astrid caps grant {who} {action}:{shown}`"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The functions of the contract.
impl Host {
    pub(super) fn fs_open(&mut self, path: &str, options: OpenOptions) -> Result<u64, FsError> {
        let makes = options.create != Creation::Never;
        if !options.read && !options.write || !options.write && (makes || options.truncate) {
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

    pub(super) fn fs_read(&mut self, id: u64, offset: u64, length: u32) -> Result<Vec<u8>, FsError> {
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

    pub(super) fn fs_write(&mut self, id: u64, offset: u64, part: &[u8]) -> Result<(), FsError> {
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

    pub(super) fn fs_set_length(&mut self, id: u64, length: u64) -> Result<(), FsError> {
        let length = usize::try_from(length).map_err(|_| FsError::TooLarge(u64::from(u32::MAX)))?;
        self.fs_change(id, |bytes| bytes.resize(length, 0), length)
    }

    pub(super) fn fs_stat_open(&self, id: u64) -> Result<Meta, FsError> {
        let key = &self.files.opened(id)?.key;
        let node = self.files.tree.get(key).ok_or(FsError::NotFound)?;
        Ok(node.meta())
    }

    pub(super) fn fs_sync(&self, id: u64) -> Result<(), FsError> {
        self.files.opened(id).map(drop)
    }

    /// A handle was dropped by the guest.
    pub(super) fn fs_close(&mut self, id: u64) {
        self.files.files.remove(&id);
        self.files.dirs.remove(&id);
    }

    pub(super) fn fs_open_dir(&mut self, path: &str, after: Option<&str>) -> Result<u64, FsError> {
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

    pub(super) fn fs_next(&mut self, id: u64, max: u32) -> Result<Vec<Entry>, FsError> {
        let reading = self.files.dirs.get_mut(&id).ok_or(FsError::Closed)?;
        if max == 0 || max > PAGE_MAX {
            return Err(FsError::Invalid(format!("max: 1 to {PAGE_MAX}")));
        }
        Ok(reading.rest.by_ref().take(max as usize).collect())
    }

    pub(super) fn fs_passed_over(&self, id: u64) -> u64 {
        self.files.dirs.get(&id).map_or(0, |reading| reading.passed_over)
    }

    pub(super) fn fs_stat(&self, path: &str, follow: bool) -> Result<Meta, FsError> {
        let key = self.permitted(Action::FsRead, path, follow)?;
        let node = self.files.tree.get(&key).ok_or(FsError::NotFound)?;
        Ok(node.meta())
    }

    pub(super) fn fs_hash(&self, path: &str) -> Result<String, FsError> {
        let key = self.permitted(Action::FsRead, path, true)?;
        Ok(hash(self.files.content(&key)?))
    }

    pub(super) fn fs_replace(&mut self, path: &str, bytes: &[u8], expected: &Expected) -> Result<String, FsError> {
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

    pub(super) fn fs_make_dir(&mut self, path: &str, parents: bool) -> Result<(), FsError> {
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

    pub(super) fn fs_remove(&mut self, path: &str, recursive: bool) -> Result<(), FsError> {
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

    pub(super) fn fs_rename(&mut self, source: &str, target: &str, overwrite: bool) -> Result<(), FsError> {
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

    pub(super) fn fs_read_link(&self, path: &str) -> Result<String, FsError> {
        let key = self.permitted(Action::FsRead, path, false)?;
        match self.files.tree.get(&key).map(|node| &node.content) {
            Some(Content::Link(target)) => Ok(target.clone()),
            Some(_) => Err(FsError::Invalid("path: it is no link".to_owned())),
            None => Err(FsError::NotFound),
        }
    }

    pub(super) fn fs_make_link(&mut self, path: &str, target: &str) -> Result<(), FsError> {
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

    pub(super) fn fs_set_modified(&mut self, path: &str, modified_ms: i64) -> Result<(), FsError> {
        self.fs_mark(path, |node| node.modified_ms = modified_ms)
    }

    pub(super) fn fs_set_mode(&mut self, path: &str, mode: u32) -> Result<(), FsError> {
        if mode > MODE_MAX {
            return Err(FsError::Invalid(format!("mode: at most {MODE_MAX:#o}")));
        }
        self.fs_mark(path, |node| node.mode = mode)
    }

    pub(super) fn fs_watch(&mut self, path: &str) -> Result<PortId, FsError> {
        let key = self.permitted(Action::FsRead, path, true)?;
        let node = self.files.tree.get(&key).ok_or(FsError::NotFound)?;
        if self.files.watches.len() >= WATCHES_MAX {
            return Err(FsError::TooMany(WATCHES_MAX as u32));
        }
        self.room().map_err(FsError::TooMany)?;
        let port = self.new_port();
        self.record(Command::Watch(port, path.to_owned()));
        Ok(port)
    }

    pub(super) fn fs_unwatch(&mut self, port: PortId) -> bool {
        let known = self.files.watches.contains_key(&port) && self.room().is_ok();
        if known {
            self.record(Command::EndWatch(port));
        }
        known
    }
}

impl Files {
    fn is_directory(&self, root: Root, rest: &str) -> bool {
        let key = self.tree.resolve(root, rest, true);
        let node = key.ok().and_then(|key| self.tree.get(&key));
        node.is_some_and(|node| node.content == Content::Directory)
    }
}

/// Files of the principal.
impl<C: Capsule> Harness<C> {
    /// Puts a file there that was there all along, with the directories above it.
    ///
    /// # Panics
    /// It is not a path.
    #[track_caller]
    pub fn put_file(&mut self, path: &str, bytes: impl AsRef<[u8]>) {
        self.plant(path, Content::File(bytes.as_ref().to_owned()));
    }

    /// Puts a directory there that was there all along.
    ///
    /// # Panics
    /// It is not a path.
    #[track_caller]
    pub fn put_directory(&mut self, path: &str) {
        self.plant(path, Content::Directory);
    }

    /// Puts a link there that was there all along; wherever it leads.
    ///
    /// # Panics
    /// It is not a path.
    #[track_caller]
    pub fn put_link(&mut self, path: &str, target: &str) {
        self.plant(path, Content::Link(target.to_owned()));
    }

    /// Puts something there that is neither a file nor a directory nor a link.
    ///
    /// # Panics
    /// It is not a path.
    #[track_caller]
    pub fn put_device(&mut self, path: &str) {
        self.plant(path, Content::Other);
    }

    #[track_caller]
    fn plant(&mut self, path: &str, content: Content) {
        // What others made may have names that no path can say; what must hold is the root.
        let parsed = astrid_wire::fs::parse(path.split_inclusive("://").next().unwrap_or(path));
        let (root, _) = parsed.unwrap_or_else(|error| panic!("`{path}` is not a path: {error}"));
        let rest = path.split_once("://").map_or("", |(_, rest)| rest);
        let node = Node::new(content, self.host.now_ms());
        self.host.files.tree.plant(&key_of(root, rest), node);
    }

    /// The content of a file, links followed, if there is one.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        let (root, rest) = astrid_wire::fs::parse(path).ok()?;
        let key = self.host.files.tree.resolve(root, rest, true).ok()?;
        self.host.files.content(&key).ok().cloned()
    }

    /// What is known of something, a link not followed, if it is there.
    pub fn file_meta(&self, path: &str) -> Option<Meta> {
        let (root, rest) = astrid_wire::fs::parse(path).ok()?;
        let key = self.host.files.tree.resolve(root, rest, false).ok()?;
        self.host.files.tree.get(&key).map(Node::meta)
    }

    /// The paths of everything that is there, in order.
    pub fn paths(&self) -> Vec<String> {
        self.host.files.tree.paths()
    }

    /// From now on the principal has these grants of files, and no others.
    ///
    /// # Panics
    /// One is not a capability.
    #[track_caller]
    pub fn grant_files(&mut self, capabilities: &[&str]) {
        let parse = |text: &&str| text.parse().unwrap_or_else(|error| panic!("`{text}`: {error}"));
        self.host.files.grants = Some(capabilities.iter().map(parse).collect());
    }

    /// From now on no directory is attached.
    pub fn detach_workspace(&mut self) {
        self.host.files.detached = true;
    }

    /// From now on nothing can grow, or again.
    pub fn fill_disk(&mut self, full: bool) {
        self.host.files.full = full;
    }

    /// From now on nothing can be done with what is there, for this reason.
    ///
    /// # Panics
    /// It is not a path, or not a reason of the kernel's.
    #[track_caller]
    pub fn refuse_file(&mut self, path: &str, error: crate::fs::FsError) {
        let (root, rest) = astrid_wire::fs::parse(path).unwrap_or_else(|error| panic!("`{path}`: {error}"));
        self.host.files.refused.insert(key_of(root, rest), error.into_kernel());
    }

    /// Bytes of files that were read since the harness was made.
    pub fn read_bytes(&self) -> u64 {
        self.host.files.read_bytes
    }

    /// What is watched.
    pub fn watches(&self) -> Vec<(PortId, String)> {
        let watches = &self.host.files.watches;
        watches.iter().map(|(port, path)| (*port, path.clone())).collect()
    }

    /// A watch tells what changed.
    ///
    /// # Panics
    /// There is no such watch.
    #[track_caller]
    pub fn files_changed(&mut self, port: PortId, changed: &Changed) -> Handled {
        assert!(self.host.files.watches.contains_key(&port), "no watch {port}");
        self.watch_says(port, CHANGED, written(changed))
    }

    /// A watch is over.
    ///
    /// # Panics
    /// There is no such watch.
    #[track_caller]
    pub fn watch_ended(&mut self, port: PortId, reason: &str) -> Handled {
        assert!(self.host.files.watches.remove(&port).is_some(), "no watch {port}");
        self.watch_says(port, ENDED, Body::text(reason))
    }

    #[track_caller]
    fn watch_says(&mut self, port: PortId, topic: &str, body: Body) -> Handled {
        self.check_heard(topic);
        let mut message = self.message(MessageKind::Event, topic, body);
        message.source = Source::Port(port);
        self.deliver(message)
    }
}
