//! Children and documents: what the fake kernel keeps of them, and how a test plays the machine that they run on.

use std::collections::BTreeMap;

use astrid_wire::Problem;
use astrid_wire::child::{EXITED, Exit, Exited, FAILED, OUTPUT, STARTED, Started};

use super::host::Host;
use super::{Handled, Harness, written};
use crate::bindings::astrid::kernel::child::{ChildError, Reach, Signal, SpawnError, Spec, TailError, Usage};
use crate::bindings::astrid::kernel::document::DocumentError;
use crate::bindings::astrid::kernel::types::{Kind, PortId, Source};
use crate::body::Body;
use crate::dispatch::Capsule;

/// Children that an actor may hold, as in the kernel.
const CHILDREN_MAX: u32 = 4096;

/// Bytes of a document, as in the kernel.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// The process id of the first child that a test starts.
const FIRST_PID: u32 = 1000;

/// A command about a child.
#[derive(Debug)]
pub(super) enum Command {
    Spawn(Box<Spec>),
    Signal(Signal, Reach),
    Write(Vec<u8>),
    CloseInput,
}

/// A child, as a test sees it.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its port.
    pub port: PortId,
    /// What was asked for.
    pub spec: Spec,
    /// Whether the test has started it.
    pub pid: Option<u32>,
    /// The signals that it was sent, first to last.
    pub signals: Vec<(Signal, Reach)>,
    /// What was written to its input.
    pub input: Vec<u8>,
    /// Whether its input was closed.
    pub input_closed: bool,
    /// What [`Context::measure`](crate::Context::measure) says of it.
    pub usage: Usage,
}

/// The children of the actor.
#[derive(Debug, Default)]
pub(super) struct Children {
    held: BTreeMap<PortId, Child>,
    /// Programs that the test has taken away.
    missing: BTreeMap<String, SpawnError>,
    /// What is in log files.
    logs: BTreeMap<String, Vec<u8>>,
}

impl Children {
    pub(super) fn carry_out(&mut self, port: PortId, command: Command) {
        if let Command::Spawn(spec) = command {
            self.hold(port, *spec, None);
            return;
        }
        let Some(child) = self.held.get_mut(&port) else { return };
        match command {
            Command::Spawn(_) => {}
            Command::Signal(signal, reach) => child.signals.push((signal, reach)),
            Command::Write(bytes) => child.input.extend(bytes),
            Command::CloseInput => child.input_closed = true,
        }
    }

    /// All are gone, as after a start of the daemon.
    pub(super) fn lose(&mut self) {
        self.held.clear();
    }

    fn hold(&mut self, port: PortId, spec: Spec, pid: Option<u32>) {
        let usage = Usage {
            processes: 1,
            cpu_ms: 0,
            memory_bytes: 0,
        };
        let child = Child {
            port,
            spec,
            pid,
            signals: Vec::new(),
            input: Vec::new(),
            input_closed: false,
            usage,
        };
        self.held.insert(port, child);
    }
}

/// The functions of the contract.
impl Host {
    pub(super) fn spawn(&mut self, spec: &Spec) -> Result<PortId, SpawnError> {
        if let Some(manifest) = &self.manifest
            && !manifest
                .capabilities
                .child
                .as_ref()
                .is_some_and(|asked| asked.allow.iter().any(|program| program.covers(&spec.program)))
        {
            return Err(SpawnError::Denied(format!(
                "run {}: [capabilities] child does not allow it",
                spec.program
            )));
        }
        if let Some(error) = self.children.missing.get(&spec.program) {
            return Err(error.clone());
        }
        if spec.tag.len() > 255 {
            return Err(SpawnError::Invalid("tag: longer than 255 bytes".to_owned()));
        }
        let spawns = self
            .recorded_children()
            .filter(|(_, command)| matches!(command, Command::Spawn(_)))
            .count();
        if self.children.held.len() + spawns >= CHILDREN_MAX as usize {
            return Err(SpawnError::TooMany(CHILDREN_MAX));
        }
        self.room().map_err(SpawnError::TooMany)?;
        let port = self.new_port();
        self.push_child(port, Command::Spawn(Box::new(spec.clone())));
        Ok(port)
    }

    /// The spec of a child that this actor has: one that is only recorded cannot be acted on yet.
    fn child(&self, port: PortId) -> Result<&Spec, ChildError> {
        let held = self.children.held.get(&port);
        held.map(|child| &child.spec).ok_or(ChildError::Unknown)
    }

    pub(super) fn signal(&mut self, port: PortId, signal: Signal, reach: Reach) -> Result<u32, ChildError> {
        self.child(port)?;
        let ordinal = self.room().map_err(ChildError::TooMany)?;
        self.push_child(port, Command::Signal(signal, reach));
        Ok(ordinal)
    }

    pub(super) fn write_input(&mut self, port: PortId, bytes: &[u8]) -> Result<u32, ChildError> {
        let spec = self.child(port)?;
        if !spec.input && !spec.terminal {
            return Err(ChildError::NoInput);
        }
        let ordinal = self.room().map_err(ChildError::TooMany)?;
        self.push_child(port, Command::Write(bytes.to_owned()));
        Ok(ordinal)
    }

    pub(super) fn close_input(&mut self, port: PortId) -> Result<u32, ChildError> {
        if !self.child(port)?.input {
            return Err(ChildError::NoInput);
        }
        let ordinal = self.room().map_err(ChildError::TooMany)?;
        self.push_child(port, Command::CloseInput);
        Ok(ordinal)
    }

    pub(super) fn measure(&self, port: PortId) -> Result<Usage, ChildError> {
        let child = self.children.held.get(&port).ok_or(ChildError::Unknown)?;
        Ok(child.usage)
    }

    pub(super) fn tail(&self, name: &str, lines: u32) -> Result<Vec<u8>, TailError> {
        let text = self.children.logs.get(name).ok_or(TailError::NotFound)?;
        let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
        Ok(all[all.len().saturating_sub(lines as usize)..].concat())
    }

    pub(super) fn log_path(&self, name: &str) -> Result<String, TailError> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(TailError::InvalidName);
        }
        Ok(format!("/home/log/{name}"))
    }

    fn allows_document(&self, name: &str) -> Result<(), DocumentError> {
        let asked = |manifest: &astrid_wire::manifest::Manifest| {
            let asked = manifest.capabilities.document.as_ref();
            asked.is_some_and(|asked| asked.allow.iter().any(|allowed| allowed.as_str() == name))
        };
        match &self.manifest {
            Some(manifest) if !asked(manifest) => Err(DocumentError::Denied(format!(
                "{name}: [capabilities] document does not name it"
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn read_document(&self, name: &str) -> Result<Option<String>, DocumentError> {
        self.allows_document(name)?;
        Ok(self.documents.get(name).cloned())
    }

    pub(super) fn replace_document(&mut self, name: &str, was: Option<&str>, text: &str) -> Result<(), DocumentError> {
        self.allows_document(name)?;
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentError::TooLarge(DOCUMENT_BYTES_MAX as u64));
        }
        if self.documents.get(name).map(String::as_str) != was {
            return Err(DocumentError::Changed);
        }
        self.documents.insert(name.to_owned(), text.to_owned());
        Ok(())
    }
}

/// Children of the actor, and documents of the operator.
impl<C: Capsule> Harness<C> {
    /// The children that are held, first started first.
    pub fn children(&self) -> Vec<Child> {
        self.host.children.held.values().cloned().collect()
    }

    /// The only child of this tag.
    ///
    /// # Panics
    /// There is none, or more than one.
    #[track_caller]
    pub fn child(&self, tag: &str) -> Child {
        let found: Vec<Child> = self
            .children()
            .into_iter()
            .filter(|child| child.spec.tag == tag)
            .collect();
        match <[Child; 1]>::try_from(found) {
            Ok([child]) => child,
            Err(found) => panic!("{} children are called `{tag}`: {:?}", found.len(), self.children()),
        }
    }

    /// From now on a program cannot be started, for this reason.
    ///
    /// # Panics
    /// The reason is one that the contract does not have.
    pub fn refuse_program(&mut self, program: &str, error: crate::error::SpawnError) {
        use crate::error::SpawnError as Told;
        let error = match error {
            Told::Denied(why) => SpawnError::Denied(why),
            Told::NotFound(what) => SpawnError::NotFound(what),
            Told::NotExecutable(what) => SpawnError::NotExecutable(what),
            Told::NoDirectory(what) => SpawnError::NoDirectory(what),
            Told::Invalid(what) => SpawnError::Invalid(what),
            Told::Unsupported(what) => SpawnError::Unsupported(what),
            Told::TooMany(limit) => SpawnError::TooMany(limit),
        };
        self.host.children.missing.insert(program.to_owned(), error);
    }

    /// A program can be started again.
    pub fn allow_program(&mut self, program: &str) {
        self.host.children.missing.remove(program);
    }

    /// A child has started.
    ///
    /// # Panics
    /// There is no such child.
    #[track_caller]
    pub fn child_started(&mut self, port: PortId) -> Handled {
        let started_at_ms = self.host.wall_ms();
        let pid = FIRST_PID + u32::try_from(port).unwrap_or_default();
        let Some(child) = self.host.children.held.get_mut(&port) else {
            panic!("no child {port}")
        };
        child.pid = Some(pid);
        let tag = child.spec.tag.clone();
        let body = Started {
            tag,
            pid,
            started_at_ms,
            lacking: Vec::new(),
        };
        self.child_says(port, STARTED, written(body))
    }

    /// A child could not be started.
    ///
    /// # Panics
    /// There is no such child.
    #[track_caller]
    pub fn child_failed(&mut self, port: PortId, problem: &Problem) -> Handled {
        assert!(self.host.children.held.remove(&port).is_some(), "no child {port}");
        let body = Body::new(astrid_wire::problem::PROBLEM_CONTENT_TYPE, problem.to_json());
        self.child_says(port, FAILED, body)
    }

    /// A child has written something, to the stream that this content type says.
    #[track_caller]
    pub fn child_wrote(&mut self, port: PortId, content_type: &'static str, bytes: &[u8]) -> Handled {
        self.child_says(port, OUTPUT, Body::new(content_type, bytes))
    }

    /// A child has ended.
    ///
    /// # Panics
    /// There is no such child.
    #[track_caller]
    pub fn child_exited(&mut self, port: PortId, exit: Exit) -> Handled {
        let Some(child) = self.host.children.held.remove(&port) else {
            panic!("no child {port}")
        };
        let body = Exited {
            tag: child.spec.tag,
            exit,
            cpu_ms: child.usage.cpu_ms,
            left_behind: 0,
            violation: None,
            unsaved: None,
        };
        self.child_says(port, EXITED, written(body))
    }

    /// What a child uses, as it is measured from now on.
    pub fn child_uses(&mut self, port: PortId, usage: Usage) {
        if let Some(child) = self.host.children.held.get_mut(&port) {
            child.usage = usage;
        }
    }

    /// A child of an earlier generation, which the actor holds without having started it. It is told of by the body of
    /// `lifecycle.v1.started`, which the test sends.
    pub fn adopted_child(&mut self, spec: Spec) -> PortId {
        let port = self.host.new_port();
        let pid = FIRST_PID + u32::try_from(port).unwrap_or_default();
        self.host.children.hold(port, spec, Some(pid));
        port
    }

    /// What a log file holds.
    pub fn set_log(&mut self, name: &str, text: &str) {
        self.host
            .children
            .logs
            .insert(name.to_owned(), text.as_bytes().to_vec());
    }

    /// A person writes a document, or removes it.
    pub fn set_document(&mut self, name: &str, text: Option<&str>) {
        match text {
            Some(text) => self.host.documents.insert(name.to_owned(), text.to_owned()),
            None => self.host.documents.remove(name),
        };
    }

    /// A document, if there is one.
    pub fn document(&self, name: &str) -> Option<String> {
        self.host.documents.get(name).cloned()
    }

    #[track_caller]
    fn child_says(&mut self, port: PortId, topic: &str, body: Body) -> Handled {
        let mut message = self.message(Kind::Event, topic, body);
        message.source = Source::Port(port);
        self.deliver(message)
    }
}
