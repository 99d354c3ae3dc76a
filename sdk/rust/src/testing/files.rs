//! Files of the fake kernel: trees in memory behind the contract of `wit/fs.wit`, with its limits and its errors.
//!
//! All roots are there and everything may be read and written, until the test says otherwise ([`Harness::grant_files`],
//! [`Harness::detach_workspace`], [`Harness::fill_disk`], [`Harness::refuse_file`]); with a manifest only what that asks for.

use std::collections::BTreeMap;

use astrid_wire::authority::{Action, Capability, Resource};
use astrid_wire::fs::{CHANGED, Changed, ENDED, Root};

use super::host::Host;
use super::{Handled, Harness, written};
use crate::bindings::astrid::kernel::fs::{Entry, FsError, Meta};
use crate::bindings::astrid::kernel::types::{Kind as MessageKind, PortId, Source};
use crate::body::Body;
use crate::dispatch::Capsule;

mod functions;
mod tree;

use tree::{Content, Node, Tree, key_of};

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
