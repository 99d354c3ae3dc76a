//! Decisions.

use astrid_wire::control::{self, RESERVED_DOMAINS};
use astrid_wire::manifest::{DocumentName, Manifest, Program};
use astrid_wire::{Pattern, Principal, Topic};

use super::Permit;
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
    pub capsule: std::sync::Arc<str>,
    publish: Vec<Pattern>,
    subscribe_at_runtime: Vec<Pattern>,
    imports: Vec<Pattern>,
    timer: bool,
    drain: bool,
    programs: Vec<Program>,
    documents: Vec<DocumentName>,
    kv: bool,
    pin: bool,
}

impl Acl {
    /// Takes the rules from a manifest; `imports` are the topics of the interfaces that the capsule imports.
    pub fn new(manifest: &Manifest, imports: Vec<Pattern>) -> Self {
        let capabilities = &manifest.capabilities;
        let subscribe = capabilities.subscribe.iter().flat_map(|c| &c.allow);
        Self {
            capsule: manifest.package.name.as_str().into(),
            publish: manifest.publish.keys().cloned().collect(),
            subscribe_at_runtime: subscribe.cloned().collect(),
            imports,
            timer: capabilities.timer.is_some(),
            drain: manifest.runtime.drain,
            programs: capabilities.child.iter().flat_map(|c| &c.allow).cloned().collect(),
            documents: capabilities.document.iter().flat_map(|c| &c.allow).cloned().collect(),
            kv: capabilities.kv.is_some(),
            pin: capabilities.pin.is_some(),
        }
    }
}

/// Who acts.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Through which code.
    pub acl: &'a Acl,
    /// For whom.
    pub principal: &'a Principal,
    /// Over which socket, when a connection acts.
    pub socket: Option<Socket>,
}

/// A refusal, in words that name what is lacking.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The manifest does not declare it.
    #[error("capsule {capsule} may not {action} {object}: its manifest does not declare it ({section})")]
    Manifest {
        /// Which capsule.
        capsule: std::sync::Arc<str>,
        /// What it tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Where the manifest would have to say it.
        section: &'static str,
    },
    /// Only the kernel speaks there.
    #[error("{0} belongs to the kernel: nobody else publishes there")]
    Reserved(Topic),
    /// Needs the operator socket.
    #[error("{0} is for operators: it is refused on the session socket")]
    OperatorOnly(Topic),
    /// Only the daemon's owner may.
    #[error("{principal} may not {action} {object}: only the owner of the daemon may")]
    OwnerOnly {
        /// Who tried.
        principal: Principal,
        /// What.
        action: &'static str,
        /// On what.
        object: String,
    },
    /// An anonymous connection tried to act.
    #[error("an anonymous connection may not {action} {object}")]
    Anonymous {
        /// What it tried.
        action: &'static str,
        /// On what.
        object: String,
    },
}

/// Decides. Stateless today; it is a value so that what it will consult has an owner.
#[derive(Debug, Default)]
pub struct Gate(());

impl Gate {
    /// May this subject say something there?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn say(&self, subject: Subject<'_>, topic: Topic) -> Result<Permit<Say>, Denied> {
        known(subject, "publish", &topic)?;
        if RESERVED_DOMAINS.contains(&topic.domain()) {
            return Err(Denied::Reserved(topic));
        }
        if topic.domain() == KERNEL_DOMAIN {
            return self.say_to_kernel(subject, topic);
        }
        if subject.acl.publish.iter().any(|p| p.matches(&topic)) {
            return Ok(Permit { object: Say { topic } });
        }
        Err(undeclared(subject, "publish", topic.as_str(), "[publish]"))
    }

    fn say_to_kernel(&self, subject: Subject<'_>, topic: Topic) -> Result<Permit<Say>, Denied> {
        if subject.acl.drain && topic.as_str() == control::SHUTDOWN_DONE {
            return Ok(Permit { object: Say { topic } });
        }
        let Some(request) = control::Verb::of(&topic) else {
            return Err(Denied::Reserved(topic));
        };
        if request.operator_only() && subject.socket != Some(Socket::Operator) {
            return Err(Denied::OperatorOnly(topic));
        }
        if subject.acl.publish.iter().any(|p| p.matches(&topic)) {
            return Ok(Permit { object: Say { topic } });
        }
        Err(undeclared(subject, "publish", topic.as_str(), "[publish]"))
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

    /// May this connection hear that pattern?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn hear(&self, subject: Subject<'_>, pattern: Pattern) -> Result<Permit<Pattern>, Denied> {
        known(subject, "subscribe to", &pattern)?;
        if subject
            .acl
            .subscribe_at_runtime
            .iter()
            .any(|allowed| allowed.covers(&pattern))
        {
            return Ok(Permit { object: pattern });
        }
        Err(undeclared(
            subject,
            "subscribe to",
            pattern.as_str(),
            "[capabilities] subscribe",
        ))
    }

    /// May this subject set timers?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn timer(&self, subject: Subject<'_>, timer: PortId) -> Result<Permit<PortId>, Denied> {
        if subject.acl.timer {
            return Ok(Permit { object: timer });
        }
        Err(undeclared(subject, "set", "a timer", "[capabilities] timer"))
    }

    /// May this subject read and write this table? An actor's own is the only one that it can name.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn table<T>(&self, subject: Subject<'_>, table: T) -> Result<Permit<T>, Denied> {
        if subject.acl.kv {
            return Ok(Permit { object: table });
        }
        Err(undeclared(subject, "use", "the store", "[capabilities] kv"))
    }

    /// May this subject keep this actor from being evicted?
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn pin<T>(&self, subject: Subject<'_>, actor: T) -> Result<Permit<T>, Denied> {
        if subject.acl.pin {
            return Ok(Permit { object: actor });
        }
        Err(undeclared(subject, "pin", "its actor", "[capabilities] pin"))
    }

    /// May this subject read and replace that document? It must be asked for, and it is the owner's.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn document(&self, subject: Subject<'_>, name: &str) -> Result<Permit<DocumentName>, Denied> {
        let Some(document) = subject.acl.documents.iter().find(|d| d.as_str() == name) else {
            return Err(undeclared(subject, "use the document", name, "[capabilities] document"));
        };
        owner(subject, "use the document", name)?;
        Ok(Permit {
            object: document.clone(),
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
        owner(subject, "run", program)
    }

    /// May this subject run that program? Decided on what was found, which the permit holds.
    ///
    /// # Errors
    /// [`Denied`] names the rule.
    pub fn run<T>(&self, subject: Subject<'_>, path: &str, found: T) -> Result<Permit<T>, Denied> {
        self.may_run(subject, path)?;
        if subject.acl.programs.iter().any(|p| p.covers(path)) {
            return Ok(Permit { object: found });
        }
        Err(undeclared(subject, "run", path, "[capabilities] child"))
    }

    /// May this subject act on a port? An actor holds only its own, which were given to it: the lookup was the decision, and
    /// this makes its proof.
    pub fn own<T>(&self, _: Subject<'_>, held: T) -> Permit<T> {
        Permit { object: held }
    }

    /// What an actor asked, and was allowed to ask, before the daemon or the store ended under it.
    pub fn asked_before(&self, topic: Topic) -> Permit<Say> {
        Permit { object: Say { topic } }
    }

    /// What the kernel says itself.
    pub fn kernel_says(&self, topic: Topic) -> Permit<Say> {
        Permit { object: Say { topic } }
    }

    /// What a manifest or the kernel itself hears: declared and approved when the capsule was loaded.
    pub fn declared(&self, pattern: Pattern) -> Permit<Pattern> {
        Permit { object: pattern }
    }
}

/// An anonymous connection has shown no credential: until rules for it exist, it may do nothing on the bus.
fn known(subject: Subject<'_>, action: &'static str, object: &impl ToString) -> Result<(), Denied> {
    if subject.socket.is_some() && *subject.principal == Principal::anonymous() {
        return Err(Denied::Anonymous {
            action,
            object: object.to_string(),
        });
    }
    Ok(())
}

/// Until there are rules for others, what reaches outside of the bus is for the owner alone.
fn owner(subject: Subject<'_>, action: &'static str, object: &str) -> Result<(), Denied> {
    if *subject.principal == Principal::default_owner() {
        return Ok(());
    }
    Err(Denied::OwnerOnly {
        principal: subject.principal.clone(),
        action,
        object: object.to_owned(),
    })
}

fn undeclared(subject: Subject<'_>, action: &'static str, object: &str, section: &'static str) -> Denied {
    Denied::Manifest {
        capsule: subject.acl.capsule.clone(),
        action,
        object: object.to_owned(),
        section,
    }
}
