//! A tree of files in memory, and how a path is resolved in it: as the kernel does it, link by link, never out of a root.
//!
//! Keys are resolved paths without a leading separator (`workspace/src/main.rs`); each root is there from the beginning. Deliberately absent:
//! inodes. A file that is renamed or removed while it is open is gone for its handle, too.

use std::collections::{BTreeMap, VecDeque};

use astrid_wire::fs::Root;

use crate::bindings::astrid::kernel::fs::{FsError, Kind, Meta};

/// Links that one path may go through, as in the kernel.
const LINKS_MAX: usize = 40;

/// What a file, a directory and a link may be done with, when nothing was said.
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
const LINK_MODE: u32 = 0o777;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    File(Vec<u8>),
    Directory,
    Link(String),
    Other,
}

/// Something at a path.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u32,
    pub(super) modified_ms: i64,
    pub(super) changed: bool,
}

impl Node {
    pub(super) fn new(content: Content, now_ms: i64) -> Self {
        let mode = match content {
            Content::Directory => DIRECTORY_MODE,
            Content::Link(_) => LINK_MODE,
            Content::File(_) | Content::Other => FILE_MODE,
        };
        Self {
            content,
            mode,
            modified_ms: now_ms,
            changed: false,
        }
    }

    pub(super) fn meta(&self) -> Meta {
        let (kind, size) = match &self.content {
            Content::File(bytes) => (Kind::File, bytes.len() as u64),
            Content::Directory => (Kind::Directory, 0),
            Content::Link(target) => (Kind::Link, target.len() as u64),
            Content::Other => (Kind::Other, 0),
        };
        Meta {
            kind,
            size,
            modified_ms: self.modified_ms,
            mode: self.mode,
            changed: self.changed,
        }
    }
}

/// All roots.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        let root = |root: Root| (root.as_str().to_owned(), Node::new(Content::Directory, 0));
        Self {
            nodes: Root::ALL.into_iter().map(root).collect(),
        }
    }
}

/// The key of what a path names, if that were resolved.
pub(super) fn key_of(root: Root, rest: &str) -> String {
    match rest {
        "" => root.as_str().to_owned(),
        rest => format!("{}/{rest}", root.as_str()),
    }
}

/// The path that names a key.
pub(super) fn path_of(key: &str) -> String {
    let (root, rest) = key.split_once('/').unwrap_or((key, ""));
    format!("{root}://{rest}")
}

fn parent(key: &str) -> Option<&str> {
    key.rsplit_once('/').map(|(parent, _)| parent)
}

impl Tree {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.nodes.get(key)
    }

    /// The node of a key, which is about to change: it and the directories above it have changed then.
    pub(super) fn change(&mut self, key: &str) -> Option<&mut Node> {
        self.nodes.get(key)?;
        self.mark(key);
        self.nodes.get_mut(key)
    }

    /// Puts something there, marked as changed.
    pub(super) fn insert(&mut self, key: &str, node: Node) {
        self.nodes.insert(key.to_owned(), node);
        self.mark(key);
    }

    /// Puts something there that was there all along, with the directories above it.
    pub(super) fn plant(&mut self, key: &str, node: Node) {
        let mut above = parent(key);
        while let Some(key) = above {
            let directory = || Node::new(Content::Directory, node.modified_ms);
            self.nodes.entry(key.to_owned()).or_insert_with(directory);
            above = parent(key);
        }
        self.nodes.insert(key.to_owned(), node);
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.mark(key);
        let below = format!("{key}/");
        self.nodes.retain(|other, _| other != key && !other.starts_with(&below));
    }

    /// Everything below a directory, and not the directory.
    pub(super) fn below(&self, key: &str) -> impl Iterator<Item = (&str, &Node)> {
        let prefix = format!("{key}/");
        let from = self.nodes.range(prefix.clone()..);
        let below = from.take_while(move |(key, _)| key.starts_with(&prefix));
        below.map(|(key, node)| (key.as_str(), node))
    }

    /// What is directly in a directory, by name.
    pub(super) fn children(&self, key: &str) -> impl Iterator<Item = (&str, &Node)> {
        let skip = key.len() + 1;
        self.below(key)
            .map(move |(key, node)| (&key[skip..], node))
            .filter(|(name, _)| !name.contains('/'))
    }

    /// Moves something with all that is below it.
    pub(super) fn rename(&mut self, source: &str, target: &str) {
        let mut moved: Vec<(String, Node)> = self
            .below(source)
            .map(|(key, node)| (format!("{target}{}", &key[source.len()..]), node.clone()))
            .collect();
        moved.extend(self.nodes.get(source).map(|node| (target.to_owned(), node.clone())));
        self.remove(source);
        self.remove(target);
        for (key, node) in moved {
            self.insert(&key, node);
        }
    }

    /// Empties a root.
    pub(super) fn clear(&mut self, root: Root) {
        let prefix = format!("{}/", root.as_str());
        self.nodes.retain(|key, _| !key.starts_with(&prefix));
    }

    fn mark(&mut self, key: &str) {
        if !key.starts_with(Root::Workspace.as_str()) {
            return;
        }
        let mut marked = Some(key);
        while let Some(key) = marked {
            if let Some(node) = self.nodes.get_mut(key) {
                node.changed = true;
            }
            marked = parent(key);
        }
    }

    /// The key that a path leads to, which need not be there; the directory that it is in is. `follow`: the last part, too, if it is a link.
    pub(super) fn resolve(&self, root: Root, rest: &str, follow: bool) -> Result<String, FsError> {
        let mut at = root.as_str().to_owned();
        let mut pending: VecDeque<String> = rest
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let mut links = 0;
        while let Some(part) = pending.pop_front() {
            match part.as_str() {
                "." | "" => continue,
                ".." => {
                    at = parent(&at).ok_or(FsError::Escapes)?.to_owned();
                    continue;
                }
                _ => {}
            }
            let is_last = pending.is_empty();
            let next = format!("{at}/{part}");
            match self.nodes.get(&next).map(|node| &node.content) {
                Some(Content::Link(target)) if !is_last || follow => {
                    links += 1;
                    if links > LINKS_MAX || target.starts_with('/') {
                        return Err(FsError::Escapes);
                    }
                    for part in target.split('/').rev() {
                        pending.push_front(part.to_owned());
                    }
                }
                Some(Content::Directory) => at = next,
                Some(_) | None if is_last => at = next,
                Some(_) => return Err(FsError::NotADirectory),
                None => return Err(FsError::NotFound),
            }
        }
        Ok(at)
    }

    /// Every path that is there, roots left out.
    pub(super) fn paths(&self) -> Vec<String> {
        let keys = self.nodes.keys().filter(|key| key.contains('/'));
        keys.map(|key| path_of(key)).collect()
    }
}

/// Whether a link there stays in its root, by what it says alone.
pub(super) fn stays_inside(key: &str, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    // Directories between the root and the link.
    let mut depth = key.matches('/').count().saturating_sub(1);
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}
