//! Decisions.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use astrid_wire::authority::{Action, Resource};
use astrid_wire::control::{self, RESERVED_DOMAINS};
use astrid_wire::manifest::{DocumentName, FilePath, Files, Floor, Manifest, Program};
use astrid_wire::{Pattern, Principal, Topic};

use super::denied::{Denied, Reason, Refusal};
use super::handle::Authority;
use super::policy::Policy;
use super::rules::Object;
use super::standing::Standing;
use super::{FOR_EVER, Permit};
use crate::bus::KERNEL_DOMAIN;
use crate::bus::message::PortId;
use crate::home::Socket;

/// Permission to say something on a topic.
#[derive(Debug)]
pub struct Say {
    /// The topic.
    pub topic: Topic,
}

/// What a manifest allows, in the form in which it is looked up.
#[derive(Debug)]
pub struct Acl {
    /// Name of the capsule.
    pub capsule: Arc<str>,
    pub(super) publish: Vec<Pattern>,
    pub(super) subscribe: Vec<Pattern>,
    pub(super) subscribe_at_runtime: Vec<Pattern>,
    imports: Vec<Pattern>,
    pub(super) timer: bool,
    drain: bool,
    pub(super) programs: Vec<Program>,
    /// The loosest sandbox of those.
    sandbox: Floor,
    pub(super) documents: Vec<DocumentName>,
    pub(super) kv: bool,
    pub(super) pin: bool,
    pub(super) guards: Vec<Pattern>,
    pub(super) reads: Vec<Resource>,
    pub(super) writes: Vec<Resource>,
}

impl Acl {
    /// Takes the rules from a manifest; `imports` are the topics of the interfaces that the capsule imports.
    pub fn new(manifest: &Manifest, imports: Vec<Pattern>) -> Self {
        let capabilities = &manifest.capabilities;
        let subscribe = capabilities.subscribe.iter().flat_map(|c| &c.allow);
        let files = |which: fn(&Files) -> &BTreeSet<FilePath>| {
            let paths = capabilities.fs.iter().flat_map(which);
            paths.map(|path| path.resource().clone()).collect()
        };
        Self {
            capsule: manifest.package.name.as_str().into(),
            publish: manifest.publish.keys().cloned().collect(),
            subscribe: manifest.subscribe.keys().cloned().collect(),
            subscribe_at_runtime: subscribe.cloned().collect(),
            imports,
            timer: capabilities.timer.is_some(),
            drain: manifest.runtime.drain,
            programs: capabilities.child.iter().flat_map(|c| &c.allow).cloned().collect(),
            sandbox: capabilities.child.as_ref().map_or(Floor::None, |c| c.sandbox),
            documents: capabilities.document.iter().flat_map(|c| &c.allow).cloned().collect(),
            kv: capabilities.kv.is_some(),
            pin: capabilities.pin.is_some(),
            guards: capabilities.guard.iter().flat_map(|c| &c.allow).cloned().collect(),
            reads: files(|files| &files.read),
            writes: files(|files| &files.write),
        }
    }
}

/// How much of what is at a path something is about. Paths begin with the name of their root: `/workspace/src`.
#[derive(Clone, Copy, Debug)]
pub enum FileScope<'a> {
    /// What is there, and no more.
    One(&'a str),
    /// The names in a directory: who may do that to all that is directly in it may do it to them as well.
    Names(&'a str),
    /// It, and all that is below it.
    All(&'a str),
}

/// Who acts.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Through which code.
    pub acl: &'a Acl,
    /// For whom, as it was looked up last. The gate looks again when that is no longer so.
    pub standing: &'a Standing,
    /// Over which socket, when a connection acts.
    pub socket: Option<Socket>,
}

/// Decides, by the policy in force.
#[derive(Debug)]
pub struct Gate(Arc<Authority>);

/// A gate that knows nobody: what the kernel itself says passes, and nothing else.
impl Default for Gate {
    fn default() -> Self {
        Self(Authority::fixed(Policy::default()))
    }
}

impl Gate {
    /// A gate that decides by this.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self(authority)
    }

    /// What it decides by.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.0
    }

    /// The standing of somebody, looked up again if the policy has changed since.
    fn current<'a>(&self, standing: &'a Standing) -> Cow<'a, Standing> {
        if standing.epoch() == self.0.epoch() {
            return Cow::Borrowed(standing);
        }
        Cow::Owned(self.0.standing(standing.principal()))
    }

    /// Looks somebody up again if the policy has changed since.
    pub fn refresh(&self, standing: &mut Standing) {
        if standing.epoch() != self.0.epoch() {
            *standing = self.0.standing(standing.principal());
        }
    }

    /// Whether it was decided by the policy in force. If not, it is to be decided again.
    pub fn still<T>(&self, permit: &Permit<T>) -> bool {
        permit.epoch == FOR_EVER || permit.epoch == self.0.epoch()
    }

    /// Decides about a principal. The epoch of the policy that allowed it.
    fn principal(&self, subject: Subject<'_>, action: Action, object: Object<'_>) -> Result<u64, Denied> {
        let standing = self.current(subject.standing);
        if standing.allows(&subject.acl.capsule, action, object) {
            return Ok(standing.epoch());
        }
        Err(refused(&standing, subject, action, object))
    }

    /// May this subject say something there?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn say(&self, subject: Subject<'_>, topic: Topic) -> Result<Permit<Say>, Denied> {
        if RESERVED_DOMAINS.contains(&topic.domain()) {
            not_anonymous(subject, Action::Publish, &topic)?;
            return Err(Denied::Reserved(topic));
        }
        let kernels = topic.domain() == KERNEL_DOMAIN;
        if kernels {
            self.check_kernels(subject, &topic)?;
        }
        let drained = kernels && subject.acl.drain && topic.as_str() == control::SHUTDOWN_DONE;
        if !drained && !subject.acl.publish.iter().any(|p| p.matches(&topic)) {
            not_anonymous(subject, Action::Publish, &topic)?;
            return Err(undeclared(subject, "publish", topic.as_str(), "[publish]"));
        }
        let epoch = self.principal(subject, Action::Publish, Object::Topic(&topic))?;
        Ok(Permit {
            object: Say { topic },
            epoch,
        })
    }

    /// What is asked of the kernel: what operators ask for needs their socket and a capability.
    fn check_kernels(&self, subject: Subject<'_>, topic: &Topic) -> Result<(), Denied> {
        if subject.acl.drain && topic.as_str() == control::SHUTDOWN_DONE {
            return Ok(());
        }
        not_anonymous(subject, Action::Publish, topic)?;
        let Some(request) = control::Verb::of(topic) else {
            return Err(Denied::Reserved(topic.clone()));
        };
        if !request.operator_only() {
            return Ok(());
        }
        if subject.socket != Some(Socket::Operator) {
            return Err(Denied::OperatorOnly(topic.clone()));
        }
        self.principal(subject, Action::Admin, Object::Name(request.name()))?;
        Ok(())
    }

    /// May this subject wait for an answer from there, inside its transaction? Only towards what it imports: imports
    /// have no cycles, so such waiting cannot deadlock.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn request(&self, subject: Subject<'_>, topic: Topic) -> Result<Permit<Say>, Denied> {
        if !subject.acl.imports.iter().any(|p| p.matches(&topic)) {
            return Err(undeclared(subject, "request", topic.as_str(), "[imports]"));
        }
        self.say(subject, topic)
    }

    /// May this connection hear that pattern? Of what matches it hears what is its own or public, and of others' what it may observe.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn hear(&self, subject: Subject<'_>, pattern: Pattern) -> Result<Permit<Pattern>, Denied> {
        not_anonymous(subject, Action::Subscribe, &pattern)?;
        if !subject
            .acl
            .subscribe_at_runtime
            .iter()
            .any(|allowed| allowed.covers(&pattern))
        {
            return Err(undeclared(
                subject,
                "subscribe to",
                pattern.as_str(),
                "[capabilities] subscribe",
            ));
        }
        let epoch = self.principal(subject, Action::Subscribe, Object::Pattern(&pattern))?;
        Ok(Permit { object: pattern, epoch })
    }

    /// Whether somebody hears what `speaker` says on that topic, once it may subscribe there: its own and what is public; and others', if it
    /// may observe them.
    pub fn hears(&self, standing: &Standing, topic: &Topic, speaker: &Principal, public: bool) -> bool {
        let standing = self.current(standing);
        let hears = |action| standing.allows("", action, Object::Topic(topic));
        hears(Action::Subscribe) && (public || speaker == standing.principal() || hears(Action::Observe))
    }

    /// Whether a connection that hears a pattern may still.
    pub fn may_keep_hearing(&self, standing: &Standing, pattern: &Pattern) -> bool {
        self.current(standing)
            .allows("", Action::Subscribe, Object::Pattern(pattern))
    }

    /// May this subject set timers? A connection's end with it: they are its handler's, whoever the client is.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn timer(&self, subject: Subject<'_>, timer: PortId) -> Result<Permit<PortId>, Denied> {
        if !subject.acl.timer {
            return Err(undeclared(subject, "set", "a timer", "[capabilities] timer"));
        }
        self.through_capsule(subject, Action::Timer, timer)
    }

    /// May this subject read and write this table? An actor's own is the only one that it can name.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn table<T>(&self, subject: Subject<'_>, table: T) -> Result<Permit<T>, Denied> {
        if !subject.acl.kv {
            return Err(undeclared(subject, "use", "the store", "[capabilities] kv"));
        }
        self.through_capsule(subject, Action::Kv, table)
    }

    /// May this subject keep this actor from being evicted?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn pin<T>(&self, subject: Subject<'_>, actor: T) -> Result<Permit<T>, Denied> {
        if !subject.acl.pin {
            return Err(undeclared(subject, "pin", "its actor", "[capabilities] pin"));
        }
        self.through_capsule(subject, Action::Pin, actor)
    }

    /// What an actor does by itself and for itself: its resource is the capsule.
    fn through_capsule<T>(&self, subject: Subject<'_>, action: Action, object: T) -> Result<Permit<T>, Denied> {
        let epoch = match subject.socket {
            Some(_) => FOR_EVER,
            None => self.principal(subject, action, Object::Name(&subject.acl.capsule))?,
        };
        Ok(Permit { object, epoch })
    }

    /// May this subject read and replace that document? It must be asked for, and is the operator's.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn document(&self, subject: Subject<'_>, name: &str) -> Result<Permit<DocumentName>, Denied> {
        let Some(document) = subject.acl.documents.iter().find(|d| d.as_str() == name) else {
            return Err(undeclared(subject, "use the document", name, "[capabilities] document"));
        };
        let epoch = self.principal(subject, Action::Document, Object::Name(name))?;
        Ok(Permit {
            object: document.clone(),
            epoch,
        })
    }

    /// May this subject run programs at all? Asked before a program is looked for, so that who may not learns nothing.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn may_run(&self, subject: Subject<'_>, program: &str) -> Result<(), Denied> {
        if subject.acl.programs.is_empty() {
            return Err(undeclared(subject, "run", program, "[capabilities] child"));
        }
        self.principal(subject, Action::ChildSpawn, Object::Some)?;
        Ok(())
    }

    /// May this subject run that program? Decided on what was found, which the permit holds.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn run<T>(&self, subject: Subject<'_>, path: &str, found: T) -> Result<Permit<T>, Denied> {
        if !subject.acl.programs.iter().any(|p| p.covers(path)) {
            return Err(undeclared(subject, "run", path, "[capabilities] child"));
        }
        let epoch = self.principal(subject, Action::ChildSpawn, Object::Name(path))?;
        Ok(Permit { object: found, epoch })
    }

    /// May this subject do that to a file of this name? Asked of the name as it was said, before anything is looked for, so that who may
    /// not learns nothing; and again by [`Gate::file`] of what was found.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn may_touch(&self, subject: Subject<'_>, action: Action, path: &FileScope<'_>) -> Result<(), Denied> {
        self.file(subject, action, path, ()).map(drop)
    }

    /// May this subject do that to what was found at this path? Links are resolved in it, and `found` is what was opened there.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn file<T>(
        &self,
        subject: Subject<'_>,
        action: Action,
        path: &FileScope<'_>,
        found: T,
    ) -> Result<Permit<T>, Denied> {
        let decide = |object: Object<'_>| {
            if subject.acl.declares(action, object).is_err() {
                let word = if action == Action::FsWrite { "write" } else { "read" };
                return Err(undeclared(subject, word, object.text(), "[capabilities] fs"));
            }
            self.principal(subject, action, object)
        };
        let epoch = match *path {
            FileScope::One(path) => decide(Object::Name(path))?,
            FileScope::Names(path) => {
                let revoked = |decided: &Result<u64, Denied>| matches!(decided, Err(Denied::Principal(refusal)) if matches!(refusal.reason, Reason::Revoked(_)));
                let itself = decide(Object::Name(path));
                let names = decide(Object::Name(&format!("{path}/*")));
                match (itself, names) {
                    (itself, _) if revoked(&itself) => itself?,
                    (_, names) if revoked(&names) => names?,
                    (Err(_), Ok(epoch)) => epoch,
                    // The manifest may declare what is in it, and not the directory.
                    (Err(Denied::Manifest { .. }), Err(denied)) => return Err(denied),
                    (itself, _) => itself?,
                }
            }
            FileScope::All(path) => {
                let below = Resource::below(path);
                let below = below.as_ref().map_or(Object::Name("/"), Object::Below);
                decide(Object::Name(path))?;
                decide(below)?
            }
        };
        Ok(Permit { object: found, epoch })
    }

    /// May this subject run that program with a sandbox that is as strict as `sandbox` at best? `loose` is what of it is an
    /// [`Action::ChildSandbox`], if anything is.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn loosens(&self, subject: Subject<'_>, path: &str, sandbox: Floor, loose: Option<&str>) -> Result<(), Denied> {
        if sandbox < subject.acl.sandbox {
            return Err(undeclared(
                subject,
                "run with so loose a sandbox",
                path,
                "[capabilities] child.sandbox",
            ));
        }
        if let Some(loose) = loose {
            self.principal(subject, Action::ChildSandbox, Object::Name(loose))?;
        }
        Ok(())
    }

    /// May this subject act on a port? An actor holds only its own, which were given to it: the lookup was the decision, and
    /// this makes its proof. Ports of whoever is disabled are closed, so they are not decided again.
    pub fn own<T>(&self, _: Subject<'_>, held: T) -> Permit<T> {
        Permit {
            object: held,
            epoch: FOR_EVER,
        }
    }

    /// May this capsule stand before that pattern? Its manifest declares it, and that is not enough: a guard refuses what others say, so it
    /// needs the operator's grant besides.
    ///
    /// # Errors
    /// [`Denied`] names the grant.
    pub fn guard(&self, capsule: &Arc<str>, pattern: &Pattern) -> Result<Permit<Pattern>, Denied> {
        // In this order: what is found is at least as new as its epoch says.
        let epoch = self.0.epoch();
        if !self.0.policy().may_guard(capsule, pattern) {
            return Err(Denied::Guard {
                capsule: Arc::clone(capsule),
                pattern: pattern.clone(),
            });
        }
        Ok(Permit {
            object: pattern.clone(),
            epoch,
        })
    }

    /// What the kernel says itself.
    pub fn kernel_says(&self, topic: Topic) -> Permit<Say> {
        Permit {
            object: Say { topic },
            epoch: FOR_EVER,
        }
    }

    /// What a manifest or the kernel itself hears: declared and approved when the capsule was loaded.
    pub fn declared(&self, pattern: Pattern) -> Permit<Pattern> {
        Permit {
            object: pattern,
            epoch: FOR_EVER,
        }
    }
}

/// An anonymous connection has shown no credential: it may do nothing on the bus, and is told nothing about who might.
fn not_anonymous(subject: Subject<'_>, action: Action, object: &impl ToString) -> Result<(), Denied> {
    if subject.standing.is_anonymous() {
        return Err(Denied::Anonymous {
            action,
            object: object.to_string(),
        });
    }
    Ok(())
}

#[cold]
fn refused(standing: &Standing, subject: Subject<'_>, action: Action, object: Object<'_>) -> Denied {
    let text = match object {
        Object::Some => String::new(),
        object => object.text().to_owned(),
    };
    if standing.is_anonymous() {
        return Denied::Anonymous { action, object: text };
    }
    let reason = standing.why(&subject.acl.capsule, action, object).err();
    Denied::Principal(Box::new(Refusal {
        principal: standing.principal().clone(),
        action,
        object: text,
        // Both ask the same; a difference would be a mistake of ours, and is a refusal all the same.
        reason: reason.unwrap_or(super::denied::Reason::NoGrant),
    }))
}

fn undeclared(subject: Subject<'_>, action: &'static str, object: &str, section: &'static str) -> Denied {
    Denied::Manifest {
        capsule: subject.acl.capsule.clone(),
        action,
        object: object.to_owned(),
        section,
    }
}
