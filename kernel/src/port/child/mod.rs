//! Programs outside of the daemon, as their owners hold them: the daemon's side of the keeper.
//!
//! - [`program`]: which file a name stands for; [`launch`]: a spec, checked and made complete;
//! - [`held`]: a child, and the children of one actor;
//! - [`sandbox`]: what a child is kept from; [`mount`]: the workspaces that children see; [`preparing`]: what is done before one is started;
//!   [`stored`]: that they do not store too much;
//! - [`input`]: what is written to one; its output goes to the [sinks](super::sink);
//! - [`link`]: the conversation with the keeper, which is started when the first child is wanted.
//!
//! Nothing here decides when a program is started again, or how long it may take to end: that is its owner's.

pub mod held;
pub mod input;
pub mod launch;
mod link;
pub mod mount;
mod preparing;
pub mod program;
mod record;
pub mod sandbox;
mod stored;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use astrid_wire::child::{self as wire, Exit};
use astrid_wire::topic::TopicError;
use astrid_wire::{Principal, Problem, Topic};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::held::{Child, Held, Owner, Told};
use self::input::{Input, InputRoom};
pub use self::launch::Launch;
use self::launch::{BaseEnvironment, LaunchError};
use self::mount::{Mount, Mounts, Seen, Taken, Workspaces};
use self::preparing::Preparation;
use self::program::Program;
use self::sandbox::Sandbox;
use super::sink::{FileSink, Sink, SinkCredit, Sinks};
use super::tell;
use crate::audit::{Audit, Outcome, Receipt};
use crate::authority::Permit;
use crate::bus::inbox::{Credit, Inbox};
use crate::bus::message::{Body, ContentType, Ids, PortId};
use crate::home::Home;
use crate::keeper::protocol::{ChildId, Errors, Reach, Spec, ToKeeper};
use crate::keeper::{self, Usage};
use crate::metrics::Metrics;

/// Requests waiting for the keeper at most: two for each child that one actor may have. One that is stuck must not make the daemon grow.
pub const REQUESTS_MAX: usize = 8 << 10;

/// Topics on which children are told of.
#[derive(Debug)]
pub struct ChildTopics {
    started: Topic,
    failed: Topic,
    output: Topic,
    exited: Topic,
}

impl ChildTopics {
    /// Parses them.
    ///
    /// # Errors
    /// When a constant of ours is not a topic: a test holds that they are.
    pub fn new() -> Result<Self, TopicError> {
        Ok(Self {
            started: wire::STARTED.parse()?,
            failed: wire::FAILED.parse()?,
            output: wire::OUTPUT.parse()?,
            exited: wire::EXITED.parse()?,
        })
    }
}

/// How many children there are, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub all: usize,
    /// Not kept from the daemon's home.
    pub unprotected: usize,
    /// The keeper's process, while there is one.
    pub keeper: Option<u32>,
}

/// How a child ended.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// Processor time, in milliseconds.
    cpu_ms: u64,
    /// Processes that were ended with it.
    left_behind: u32,
}

/// Something that the keeper is to be told.
#[derive(Clone)]
struct Request {
    message: ToKeeper,
    /// The workspace whose namespaces go with it.
    mount: Option<Arc<Mount>>,
}

impl Request {
    /// Whether it starts that child.
    fn is_spawn_of(&self, child: ChildId) -> bool {
        matches!(self.message, ToKeeper::Spawn { id, .. } if id == child)
    }
}

impl From<ToKeeper> for Request {
    fn from(message: ToKeeper) -> Self {
        Self { message, mount: None }
    }
}

#[derive(Default)]
struct Table {
    rows: HashMap<ChildId, Arc<Child>>,
    /// Children of an earlier daemon whose owners are not here yet.
    unclaimed: HashMap<Owner, Vec<Arc<Child>>>,
    /// Log files that are written now: two writers would rotate each other's.
    files: HashSet<PathBuf>,
    /// What the keeper is to be told.
    requests: VecDeque<Request>,
    /// Programs whose workspaces are being mounted.
    waiting: Vec<Request>,
    /// Programs that are prepared otherwise.
    preparing: Vec<Request>,
    /// Whose programs are looked after for what they store.
    storing: HashSet<Principal>,
    /// What must be recorded before a program is started.
    intents: HashMap<ChildId, Receipt>,
    keeper: Option<u32>,
    /// The daemon stops: nothing more is started.
    ending: bool,
}

/// All children of the daemon.
pub struct Children {
    home: Home,
    /// The daemon's own program: the keeper is the same.
    own_program: PathBuf,
    /// Shown to a keeper that an earlier daemon left.
    secret: [u8; 32],
    /// Soft limit of open files that children get back.
    open_files: u64,
    base: BaseEnvironment,
    /// Tells this daemon's children from another's.
    boot: u64,
    ids: Arc<Ids>,
    audit: Audit,
    topics: Arc<ChildTopics>,
    sinks: Sinks,
    mounts: Mounts,
    workspaces: OnceLock<Arc<dyn Workspaces>>,
    changed: Arc<Notify>,
    table: Mutex<Table>,
    /// There are requests, or an end is wanted.
    wanted: Notify,
    /// How many there are, for who waits for none.
    running: watch::Sender<usize>,
    /// Set once the keeper has ended for good.
    ended: watch::Sender<bool>,
    /// The keeper that an earlier daemon left.
    reclaimed: Mutex<Option<link::Link>>,
    /// What moves bytes into children, and copies workspaces for them.
    drivers: Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Children {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Children")
            .field("count", &self.count())
            .finish_non_exhaustive()
    }
}

/// What children are made with.
pub struct ChildrenOptions {
    /// Whose.
    pub home: Home,
    /// The daemon's own program.
    pub own_program: PathBuf,
    /// Derived from the runtime key: the same in the next daemon of this home.
    pub secret: [u8; 32],
    /// Soft limit of open files that children get back.
    pub open_files: u64,
    /// Where starts and ends are recorded.
    pub audit: Audit,
}

impl std::fmt::Debug for ChildrenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChildrenOptions")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

impl Children {
    /// None. The keeper is started with the first.
    ///
    /// # Errors
    /// When a constant of ours is not a topic: a test holds that they are.
    pub fn new(
        options: ChildrenOptions,
        boot: u64,
        ids: Arc<Ids>,
        metrics: &Arc<Metrics>,
        changed: Arc<Notify>,
    ) -> Result<Arc<Self>, TopicError> {
        let ChildrenOptions {
            home,
            own_program,
            secret,
            open_files,
            audit,
        } = options;
        Ok(Arc::new(Self {
            home,
            own_program,
            secret,
            open_files,
            base: BaseEnvironment::of_this_process(),
            boot,
            ids,
            audit,
            topics: Arc::new(ChildTopics::new()?),
            sinks: Sinks::new(Arc::clone(metrics)),
            mounts: Mounts::default(),
            workspaces: OnceLock::new(),
            changed,
            table: Mutex::default(),
            wanted: Notify::new(),
            running: watch::channel(0).0,
            ended: watch::channel(false).0,
            reclaimed: Mutex::default(),
            drivers: Mutex::default(),
        }))
    }

    /// The environment that every child begins with.
    pub fn base(&self) -> &BaseEnvironment {
        &self.base
    }

    /// Says where workspaces are; once. Until then nobody has one.
    pub fn set_workspaces(&self, workspaces: Arc<dyn Workspaces>) {
        let _ = self.workspaces.set(workspaces);
    }

    /// Workspaces that children see.
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// The workspace of a principal for one more child, to be mounted with it.
    ///
    /// # Errors
    /// Says why it has none.
    pub fn workspace_of(&self, principal: &Principal) -> Result<Seen, String> {
        let workspaces = self.workspaces.get().ok_or("this daemon has no workspaces")?;
        let layers = workspaces.layers(principal)?;
        let mount = self.mounts.hold(principal, &layers).ok_or_else(|| {
            "programs that still run see another workspace of this principal; it is free when they have ended"
                .to_owned()
        });
        Ok(Seen::Mounted(mount?))
    }

    /// A copy of the workspace of a principal, for one child, to be made with it.
    ///
    /// # Errors
    /// Says why there is none.
    pub fn checkout_of(&self, principal: &Principal, bytes_max: u64) -> Result<Seen, String> {
        let workspaces = self.workspaces.get().ok_or("this daemon has no workspaces")?;
        Ok(Seen::Copied(workspaces.check_out(principal, bytes_max)?))
    }

    /// The directory that stands at `/tmp` for programs of that principal; made if it is not there.
    ///
    /// # Errors
    /// [`LaunchError`] when it cannot be.
    pub fn tmp_of(&self, principal: &Principal) -> Result<PathBuf, LaunchError> {
        if !launch::is_log_name(principal.as_str()) {
            return Err(LaunchError::Invalid(format!(
                "sandbox: {principal} has no directory for /tmp"
            )));
        }
        let path = self.home.root().join("var/tmp").join(principal.as_str());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| LaunchError::NoDirectory(format!("{}: {error}", path.display())))?;
        Ok(path)
    }

    /// The daemon's own program.
    pub fn own_program(&self) -> &Path {
        &self.own_program
    }

    /// Where the log file of that name of that principal is; none when that is no name of a file.
    pub fn log_path(&self, principal: &Principal, name: &str) -> Option<PathBuf> {
        let plain = launch::is_log_name(name) && launch::is_log_name(principal.as_str());
        plain.then(|| self.home.child_log_dir().join(principal.as_str()).join(name))
    }

    /// Whether a child's output is written there now.
    pub fn writes(&self, path: &Path) -> bool {
        self.table.lock().files.contains(path)
    }

    /// Whether something may be started.
    pub fn may_start(&self) -> bool {
        !self.table.lock().ending && self.has_room()
    }

    /// Whether the keeper takes requests faster than they come.
    pub fn has_room(&self) -> bool {
        self.table.lock().requests.len() < REQUESTS_MAX
    }

    /// How many there are.
    pub fn count(&self) -> Count {
        let table = self.table.lock();
        Count {
            all: table.rows.len(),
            unprotected: table.rows.values().filter(|c| c.unprotected).count(),
            keeper: table.keeper,
        }
    }

    /// How many there are, as it changes.
    pub fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    /// Whether a process is a child, or was started by one: also one that an earlier daemon left. When that cannot be told any more, it
    /// counts as one.
    pub fn includes(&self, pid: u32) -> bool {
        keeper::includes(&self.home, pid)
    }

    /// Starts a program, for the actor that holds `held`; or tells that actor why it is not started after all.
    pub fn spawn(
        self: &Arc<Self>,
        permit: Permit<Program>,
        id: PortId,
        launch: Launch,
        owner: Owner,
        (held, inbox): (&Arc<Held>, &Arc<Inbox>),
        refused: Option<&Problem>,
    ) {
        let program = permit.into_object();
        launch.hold.count_start();
        let key = ChildId {
            boot: self.boot,
            port: id,
        };
        let notes = launch.notes(&owner);
        let child = Arc::new(Child {
            id,
            key,
            tag: launch.tag.as_str().into(),
            owner,
            input: (launch.input || launch.terminal).then(Arc::default),
            input_closes: launch.input && !launch.terminal,
            unprotected: launch.sandbox == Sandbox::None,
            pays: launch.pays && (launch.workspace.is_some() || launch.sandbox.has_tmp()),
            stored_too_much: Mutex::default(),
            adopt: launch.adopt,
            cpu_seconds: launch.limits.cpu_seconds,
            exceeded: Mutex::default(),
            stdout: launch.stdout,
            stderr: launch.stderr,
            secrets: launch.secrets,
            progress: Mutex::default(),
            told: Mutex::new(Some(Told {
                inbox: Arc::clone(inbox),
                held: Arc::downgrade(held),
            })),
        });
        let spec = Spec {
            program: program.path.clone(),
            device: program.device,
            inode: program.inode,
            workspace: program.within.clone(),
            arg0: launch.name,
            args: launch.args,
            env: launch.env,
            cwd: launch.cwd,
            input: launch.input,
            terminal: launch.terminal,
            stdout: child.stdout.is_wanted(),
            stderr: match &child.stderr {
                Some(output) if output.is_wanted() => Errors::Pipe,
                Some(_) => Errors::Null,
                None if child.stdout.is_wanted() => Errors::Merge,
                None => Errors::Null,
            },
            limits: launch.limits,
            protect: (launch.sandbox != Sandbox::None).then(|| self.home.private_dirs()),
            within: None,
            given: match &launch.workspace {
                Some(Seen::Copied(copy)) => Some(copy.place().to_owned()),
                _ => None,
            },
            confined: match &launch.sandbox {
                Sandbox::Confined(confined) => Some(confined.clone()),
                Sandbox::None | Sandbox::Home => None,
            },
            adopt: launch.adopt,
            notes,
        };
        // What is refused already is not about to happen.
        let intent = refused.is_none().then(|| {
            self.audit.seal(record::intent(
                &child,
                &program.path,
                &launch.sandbox,
                launch.workspace.as_ref(),
            ))
        });
        *child.progress.lock() = self::held::Progress {
            program: Some(program),
            hold: Some(launch.hold),
            workspace: launch.workspace.clone(),
            ..self::held::Progress::default()
        };
        held.insert(Arc::clone(&child));
        let mut table = self.table.lock();
        table.files.extend(files(&child));
        table.rows.insert(key, Arc::clone(&child));
        table.intents.extend(intent.map(|intent| (key, intent)));
        let first = table.rows.len() == 1;
        self.running.send_replace(table.rows.len());
        if let Some(problem) = refused {
            drop(table);
            return self.failed(&child, problem);
        }
        let mut request = Request::from(ToKeeper::Spawn {
            id: key,
            spec: Box::new(spec),
        });
        let mut preparation = Preparation {
            pays: child.pays.then(|| child.owner.principal.clone()),
            copy: None,
        };
        match launch.workspace {
            None => {}
            Some(Seen::Copied(copy)) => preparation.copy = Some(copy),
            Some(Seen::Mounted(mount)) => request.mount = Some(mount),
        }
        if preparation.is_none() {
            self.enqueue(&mut table, request);
        } else {
            table.preparing.push(request);
            self.prepare(key, preparation);
        }
        drop(table);
        self.wanted.notify_one();
        if first {
            self.changed.notify_one();
        }
    }

    /// Has a child started by the keeper, once its workspace is mounted.
    fn enqueue(&self, table: &mut Table, request: Request) {
        let Some(mount) = &request.mount else {
            return table.requests.push_back(request);
        };
        if mount.ask() {
            let layers = mount.layers().clone();
            table
                .requests
                .push_back(ToKeeper::Mount { id: mount.id, layers }.into());
        }
        if mount.is_there() {
            table.requests.push_back(request);
        } else {
            table.waiting.push(request);
        }
    }

    /// Sends a signal.
    pub fn signal(self: &Arc<Self>, permit: Permit<Arc<Child>>, signal: i32, reach: Reach) {
        let child = permit.into_object();
        self.request(ToKeeper::Signal {
            id: child.key,
            signal,
            reach,
        });
    }

    fn request(self: &Arc<Self>, request: ToKeeper) {
        if let ToKeeper::Signal { id, signal, .. } = request
            && self.signal_unprepared(id, signal)
        {
            return;
        }
        self.table.lock().requests.push_back(request.into());
        self.wanted.notify_one();
    }

    /// Writes to a child's standard input.
    pub fn write(permit: Permit<InputRoom>, bytes: Bytes) {
        permit.into_object().fill(bytes);
    }

    /// Closes a child's standard input once everything is written.
    pub fn close_input(self: &Arc<Self>, permit: Permit<Arc<Child>>) {
        let child = permit.into_object();
        let Some(input) = &child.input else { return };
        input.close();
        if child.adopt {
            // The keeper holds the other copy, for the next daemon.
            self.request(ToKeeper::CloseInput { id: child.key });
        }
    }

    /// What a child and everything below it use; none when it does not run.
    pub fn measure(child: &Child) -> Option<Usage> {
        Some(keeper::usage(child.pid()?.cast_signed()))
    }

    /// Gives an actor the children that an earlier daemon left to it.
    pub fn claim(&self, owner: &Owner, held: &Arc<Held>, inbox: &Arc<Inbox>) {
        let Some(children) = self.table.lock().unclaimed.remove(owner) else {
            return;
        };
        for child in children {
            *child.told.lock() = Some(Told {
                inbox: Arc::clone(inbox),
                held: Arc::downgrade(held),
            });
            held.insert(Arc::clone(&child));
            // Its output waited in the pipe until somebody would hear it.
            self.resume(&child);
        }
    }

    /// Owners of children of an earlier daemon, who do not know of them yet.
    pub fn owners_to_wake(&self) -> Vec<Owner> {
        self.table.lock().unclaimed.keys().cloned().collect()
    }

    /// Ends the children of an actor that ends for good, but those that stay.
    pub fn abandon(self: &Arc<Self>, held: &Held) {
        for child in held.all().into_iter().filter(|child| !child.adopt) {
            self.request(ToKeeper::Signal {
                id: child.key,
                signal: rustix::process::Signal::KILL.as_raw(),
                reach: Reach::Tree,
            });
        }
    }

    /// Ends the children of principals of whom that is true, at once, also those that would stay. How many.
    pub fn end_of(self: &Arc<Self>, whose: impl Fn(&Principal) -> bool) -> usize {
        let table = self.table.lock();
        let theirs = table.rows.values().filter(|child| whose(&child.owner.principal));
        let theirs: Vec<ChildId> = theirs.map(|child| child.key).collect();
        drop(table);
        for id in &theirs {
            self.request(ToKeeper::Signal {
                id: *id,
                signal: rustix::process::Signal::KILL.as_raw(),
                reach: Reach::Tree,
            });
        }
        theirs.len()
    }

    /// Tells a child's owner; false when there is none.
    fn tell(&self, child: &Child, topic: &Topic, body: Body) {
        let told = child.told.lock().clone();
        if let Some(told) = told {
            tell(
                &told.inbox,
                &self.ids,
                child.id,
                topic,
                child.owner.principal.clone(),
                body,
                None,
            );
        }
    }

    /// Forgets a child that has ended.
    fn forget(&self, child: &Child) {
        if let Some(input) = &child.input {
            input.end();
        }
        drop(std::mem::take(&mut child.progress.lock().sinks));
        drop(child.progress.lock().workspace.take());
        if let Some(held) = child.told.lock().as_ref().and_then(|told| told.held.upgrade()) {
            held.remove(child.id);
        }
        // Who hears of its end may start the next one in its place.
        drop(child.progress.lock().hold.take());
        let mut table = self.table.lock();
        table.rows.remove(&child.key);
        let intent = table.intents.remove(&child.key);
        for file in files(child) {
            table.files.remove(&file);
        }
        if let Some(unclaimed) = table.unclaimed.get_mut(&child.owner) {
            unclaimed.retain(|other| other.id != child.id);
        }
        let last = table.rows.is_empty();
        self.running.send_replace(table.rows.len());
        drop(table);
        // Recorded by now, unless nobody ever waited for it.
        if let Some(Some(Ok(sequence))) = intent.map(|mut intent| intent.now()) {
            child.progress.lock().intent = Some(sequence);
        }
        if last {
            self.changed.notify_one();
        }
    }

    fn failed(self: &Arc<Self>, child: &Arc<Child>, problem: &Problem) {
        if child.has_copy() {
            return self.failed_with_copy(child, problem);
        }
        self.forget(child);
        let intent = child.progress.lock().intent.take();
        if let Some(intent) = intent {
            record::outcome(&self.audit, child, intent, Outcome::Failed, &problem.to_string());
        }
        self.tell(child, &self.topics.failed, Body::problem(problem));
    }

    fn exited(&self, child: &Child, ended: Ended, taken: Option<Result<Taken, String>>) {
        self.forget(child);
        let Ended {
            exit,
            cpu_ms,
            left_behind,
        } = ended;
        let violation = record::violation(&exit, cpu_ms, child);
        record::exited(&self.audit, child, &exit, violation.as_deref(), taken.as_ref());
        let exited = wire::Exited {
            tag: child.tag.to_string(),
            exit,
            cpu_ms,
            left_behind,
            violation,
            unsaved: taken.and_then(unsaved),
        };
        self.tell(child, &self.topics.exited, Body::json(&exited));
    }

    /// Moves bytes into a child.
    fn drive(&self, input: &Arc<Input>, descriptor: OwnedFd) {
        self.while_it_lasts(Arc::clone(input).drive(descriptor));
    }

    /// Does something beside, for at most as long as this lasts.
    fn while_it_lasts(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut drivers = self.drivers.lock();
        while drivers.try_join_next().is_some() {}
        drivers.spawn(work);
    }

    /// Connects a stream of output with where it goes.
    fn attach(&self, child: &Arc<Child>, source: OwnedFd, stream: Stream) {
        let output = match (stream, &child.stderr) {
            (Stream::Stderr, Some(output)) => output,
            _ => &child.stdout,
        };
        let sink = |file: bool| Sink {
            file: output.file.as_ref().filter(|_| file).map(|file| FileSink {
                path: file.path.clone(),
                rotation: file.rotation,
            }),
            messages: output
                .messages
                .then(|| Box::new(self.messages(child, stream)) as Box<dyn super::sink::Told>),
            secrets: child.secrets.iter().map(|s| s.as_bytes().to_vec()).collect(),
        };
        // A copy, for a second attempt: without a reader the child would be killed by what it writes.
        let copy = source.try_clone();
        let attached = self.sinks.attach(source, sink(true)).or_else(|error| {
            tracing::error!(child = %child.tag, %error, "output cannot be written to its file, and is lost");
            let copy = copy.map_err(super::sink::SinkError::System)?;
            self.sinks.attach(copy, sink(false))
        });
        match attached {
            Ok(sink) => child.progress.lock().sinks.push(sink),
            Err(error) => tracing::error!(child = %child.tag, %error, "output cannot be read"),
        }
    }

    fn messages(&self, child: &Arc<Child>, stream: Stream) -> Messages {
        Messages {
            child: Arc::clone(child),
            ids: Arc::clone(&self.ids),
            topic: self.topics.output.clone(),
            content_type: match stream {
                Stream::Stdout => ContentType::Known(wire::STDOUT_CONTENT_TYPE),
                Stream::Stderr => ContentType::Known(wire::STDERR_CONTENT_TYPE),
            },
        }
    }
}

/// What of a copy is not in the workspace, and why.
fn unsaved(taken: Result<Taken, String>) -> Option<String> {
    match taken {
        Ok(Taken { left_out: 0, .. }) => None,
        Ok(Taken { left_out, .. }) => Some(format!("{left_out} directories are nested too deep, and were left out")),
        Err(error) => Some(error),
    }
}

/// Log files that a child's output goes to.
fn files(child: &Child) -> Vec<PathBuf> {
    let outputs = std::iter::once(&child.stdout).chain(&child.stderr);
    outputs
        .filter_map(|output| Some(output.file.as_ref()?.path.clone()))
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// Tells the owner of a child what that wrote. Called on the sinks' thread.
struct Messages {
    child: Arc<Child>,
    ids: Arc<Ids>,
    topic: Topic,
    content_type: ContentType,
}

impl Messages {
    fn say(&self, bytes: Bytes, credit: Option<Box<dyn Credit>>) {
        let told = self.child.told.lock().clone();
        let Some(told) = told else { return };
        let body = Body {
            content_type: self.content_type.clone(),
            bytes,
        };
        let principal = self.child.owner.principal.clone();
        tell(
            &told.inbox,
            &self.ids,
            self.child.id,
            &self.topic,
            principal,
            body,
            credit,
        );
    }
}

impl super::sink::Told for Messages {
    fn output(&self, bytes: Bytes, credit: SinkCredit) {
        self.say(bytes, Some(Box::new(credit)));
    }

    fn ended(&self) {
        self.say(Bytes::new(), None);
    }
}
