//! The conversation with the keeper, and what happens when it is lost.
//!
//! The keeper is started when the first child is wanted. When it is lost, the guard ends what it left; what even that could not
//! do comes to this process, or is found by its mark. Only then the owners are told, so that nobody starts a second one beside one that still lives.

use std::collections::HashSet;
use std::future::Future as _;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use astrid_wire::Problem;
use astrid_wire::child::{self as wire, Exit};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::held::{Child, Owner};
use super::launch::Notes;
use super::{Children, Ended, Request, Stream};
use crate::audit::{Outcome, Refused};
use crate::bus::message::Body;
use crate::keeper;
use crate::keeper::protocol::{
    ChildId, Connection, Failure, FromKeeper, ProtocolError, Reach, Stage, Streams, ToKeeper, VERSION,
};
use crate::port::sink::SinkHandle;

/// How long the guard may take to end what a lost keeper left.
const GUARD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a keeper that an earlier daemon left may take to end its children.
const EARLIER_TIME_MAX: Duration = Duration::from_secs(20);

/// An open conversation.
pub(super) struct Link {
    socket: AsyncFd<Socket>,
    /// The guard, when this daemon started it.
    guard: Option<std::process::Child>,
}

/// How long the start of a daemon waits for a keeper to offer the children of an earlier one: longer than it takes one to notice that its daemon is
/// gone, while it waits for the end of a program that was killed.
const RECLAIM_TIME_MAX: Duration = Duration::from_secs(2);

/// Between looks at a keeper that is about to end: the end of a process that is nobody's child here gives no sign.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// How long the end of a child waits for its output to be read.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a keeper may take to greet.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);

/// A child that an earlier daemon started.
struct Kept {
    id: ChildId,
    pid: i32,
    started_at_ms: u64,
    notes: String,
    streams: Streams,
    descriptors: Vec<OwnedFd>,
}

impl Children {
    /// Takes over what an earlier daemon left: adopted children, or what outlived a daemon that died together with its keeper.
    ///
    /// # Errors
    /// What the operating system says; nothing was taken over.
    pub async fn reclaim(self: &Arc<Self>) -> io::Result<()> {
        let until = Instant::now() + RECLAIM_TIME_MAX;
        while keeper::held(&self.home) {
            match keeper::reconnect(&self.home) {
                Ok(socket) => return self.take_all_over(socket).await,
                // It may not have noticed yet that its daemon is gone.
                Err(_) if Instant::now() < until => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
                Err(_) => {
                    tracing::info!("the keeper of an earlier daemon still ends its children");
                    return Ok(());
                }
            }
        }
        self.sweep("processes that a killed daemon and its keeper left were ended")
            .await
    }

    async fn take_all_over(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let link = Link::of(Connection::new(socket), None)?;
        let (pid, kept) = self.greet(&link).await?;
        tracing::info!(
            children = kept.len(),
            pid,
            "children of an earlier daemon are taken over"
        );
        self.table.lock().keeper = Some(pid.cast_unsigned());
        for kept in kept {
            self.take_over(kept);
        }
        *self.reclaimed.lock() = Some(link);
        self.wanted.notify_one();
        Ok(())
    }

    /// Ends what neither keeper nor guard could end any more.
    async fn sweep(&self, words: &str) -> io::Result<()> {
        let home = self.home.clone();
        let count = tokio::task::spawn_blocking(move || keeper::sweep(&home)).await;
        match count.map_err(io::Error::other)? {
            0 => {}
            count => tracing::warn!(count, "{words}"),
        }
        Ok(())
    }

    /// Says who this is, and hears whom the keeper keeps.
    async fn greet(&self, link: &Link) -> io::Result<(i32, Vec<Kept>)> {
        let hello = ToKeeper::Hello {
            version: VERSION,
            secret: hex::encode(self.secret),
            nofile: self.open_files,
        };
        let greeting = async {
            link.send(&hello).await?;
            let (pid, mut left) = match link.receive().await?.0 {
                FromKeeper::Hello { version, pid, kept } if version == VERSION => (pid, kept),
                other => return Err(unexpected(&other)),
            };
            let mut all = Vec::new();
            while left > 0 {
                match link.receive().await? {
                    (
                        FromKeeper::Kept {
                            id,
                            pid,
                            started_at_ms,
                            notes,
                            streams,
                        },
                        descriptors,
                    ) => all.push(Kept {
                        id,
                        pid,
                        started_at_ms,
                        notes,
                        streams,
                        descriptors,
                    }),
                    (other, _) => return Err(unexpected(&other)),
                }
                left -= 1;
            }
            Ok((pid, all))
        };
        let greeted = tokio::time::timeout(GREETING_TIME_MAX, greeting).await;
        greeted
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the keeper does not greet"))?
            .map_err(io::Error::other)
    }

    fn take_over(self: &Arc<Self>, kept: Kept) {
        let notes: Notes = match serde_json::from_str(&kept.notes) {
            Ok(notes) => notes,
            Err(error) => {
                tracing::error!(%error, kept.pid, "a child of an earlier daemon is not understood, and ended");
                self.request(kill(kept.id));
                return;
            }
        };
        let owner = Owner {
            capsule: notes.capsule.as_str().into(),
            principal: notes.principal,
        };
        let (input, outputs) = split(kept.descriptors, kept.streams, notes.terminal);
        let child = Arc::new(Child {
            id: self.ids.port(),
            key: kept.id,
            tag: notes.tag.as_str().into(),
            owner: owner.clone(),
            input: input.is_some().then(Arc::default),
            input_closes: input.is_some() && !notes.terminal,
            unprotected: notes.unprotected,
            pays: false,
            stored_too_much: Mutex::default(),
            adopt: true,
            cpu_seconds: None,
            exceeded: Mutex::default(),
            stdout: notes.stdout,
            stderr: notes.stderr,
            secrets: notes.secrets,
            progress: Mutex::default(),
            told: Mutex::default(),
        });
        {
            let mut progress = child.progress.lock();
            progress.pid = Some(kept.pid.cast_unsigned());
            progress.started_at_ms = Some(kept.started_at_ms);
            progress.unread = outputs;
        }
        if let (Some(input), Some(descriptor)) = (&child.input, input) {
            self.drive(input, descriptor);
        }
        let mut table = self.table.lock();
        table.files.extend(super::files(&child));
        table.rows.insert(child.key, Arc::clone(&child));
        self.running.send_replace(table.rows.len());
        table.unclaimed.entry(owner).or_default().push(child);
    }

    /// Reads the output of a child whose owner is here now.
    pub(super) fn resume(&self, child: &Arc<Child>) {
        let unread = std::mem::take(&mut child.progress.lock().unread);
        for (source, stream) in unread {
            self.attach(child, source, stream);
        }
    }

    /// Talks with the keeper until the daemon ends.
    pub async fn run(self: Arc<Self>) {
        while !self.is_over() {
            let reclaimed = self.reclaimed.lock().take();
            let link = match reclaimed {
                Some(link) => Ok(link),
                None if self.is_wanted() => self.start_keeper().await,
                None => {
                    self.wanted.notified().await;
                    continue;
                }
            };
            match link {
                Ok(link) => self.live(link).await,
                Err(error) => self.refuse_all(&error),
            }
        }
        self.ended.send_replace(true);
    }

    /// There is something that only a keeper can do.
    fn is_wanted(&self) -> bool {
        let mut table = self.table.lock();
        if table.rows.is_empty() {
            // What is left concerns children that have ended.
            table.requests.clear();
        }
        !table.requests.is_empty()
    }

    fn is_over(&self) -> bool {
        let table = self.table.lock();
        table.ending && table.keeper.is_none()
    }

    async fn start_keeper(&self) -> io::Result<Link> {
        let until = Instant::now() + EARLIER_TIME_MAX;
        while keeper::held(&self.home) && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        self.sweep("processes that an earlier keeper left were ended").await?;
        let (home, program) = (self.home.clone(), self.own_program.clone());
        let started = tokio::task::spawn_blocking(move || keeper::start(&home, &program));
        let (socket, guard) = started.await.map_err(io::Error::other)??;
        let link = Link::of(Connection::new(socket), Some(guard))?;
        let (pid, _) = self.greet(&link).await?;
        tracing::info!(pid, "the keeper runs");
        self.table.lock().keeper = Some(pid.cast_unsigned());
        self.changed.notify_one();
        Ok(link)
    }

    /// One conversation, to its end.
    async fn live(self: &Arc<Self>, mut link: Link) {
        let mut settling = JoinSet::new();
        let why = self.converse(&link, &mut settling).await;
        settling.join_all().await;
        let left: Vec<Arc<Child>> = self.table.lock().rows.values().cloned().collect();
        if self.table.lock().ending && left.iter().all(|child| child.adopt) {
            tracing::debug!(%why, adopted = left.len(), "the keeper goes on without this daemon, or has ended");
            if left.is_empty() {
                self.clean_up(link.guard.take()).await;
            }
            self.table.lock().keeper = None;
            return;
        }
        tracing::error!(%why, "the keeper is lost; its children are ended");
        let guard = link.guard.take();
        drop(link);
        drop(left);
        self.clean_up(guard).await;
        for child in self.lost() {
            let taken = self.take_back(&child).await;
            let lost = Ended {
                exit: Exit::Lost,
                cpu_ms: 0,
                left_behind: 0,
            };
            self.exited(&child, lost, taken);
        }
        self.changed.notify_one();
    }

    /// The children that a lost keeper had; what was asked for meanwhile is for the next one.
    fn lost(&self) -> Vec<Arc<Child>> {
        let mut table = self.table.lock();
        table.keeper = None;
        let waiting: HashSet<ChildId> = table
            .requests
            .iter()
            .chain(&table.preparing)
            .filter_map(|request| match &request.message {
                ToKeeper::Spawn { id, .. } => Some(*id),
                _ => None,
            })
            .collect();
        // Nobody mounts what they wait for.
        table.waiting.clear();
        self.mounts.ask_again();
        table.requests.retain(|request| match &request.message {
            ToKeeper::Spawn { id, .. } | ToKeeper::Signal { id, .. } | ToKeeper::CloseInput { id } => {
                waiting.contains(id)
            }
            ToKeeper::Hello { .. } | ToKeeper::Mount { .. } | ToKeeper::End { .. } => false,
        });
        let lost = table.rows.values().filter(|child| !waiting.contains(&child.key));
        lost.cloned().collect()
    }

    /// Waits until nothing of a keeper is left.
    async fn clean_up(&self, guard: Option<std::process::Child>) {
        let number = guard.as_ref().map(std::process::Child::id);
        if let Some(mut guard) = guard {
            let waited = tokio::task::spawn_blocking(move || guard.wait());
            if tokio::time::timeout(GUARD_TIME_MAX, waited).await.is_err() {
                tracing::error!("the guard does not end");
            }
        }
        // The guard may have been killed before the keeper, which then ends everything itself.
        let until = Instant::now() + GUARD_TIME_MAX;
        while keeper::held(&self.home) && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        // Nobody is told of an end before it is one; who ends itself cannot wait for it.
        loop {
            let left = tokio::task::spawn_blocking(move || keeper::end_inherited(number)).await;
            match left {
                Ok(0) => break,
                Ok(left) => tracing::error!(left, "processes that the keeper left are killed, and do not end"),
                Err(ref error) => tracing::error!(%error, "cannot look for processes that the keeper left"),
            }
            if left.is_err() || self.table.lock().ending {
                break;
            }
        }
        if let Err(error) = self.sweep("processes that the keeper left were ended").await {
            tracing::error!(%error, "cannot look for processes that the keeper left");
        }
    }

    /// There is no keeper: what waits for one is refused.
    fn refuse_all(self: &Arc<Self>, error: &io::Error) {
        tracing::error!(%error, "the keeper cannot be started");
        let waiting: Vec<Arc<Child>> = {
            let mut table = self.table.lock();
            table.requests.clear();
            table.waiting.clear();
            table.preparing.clear();
            self.mounts.ask_again();
            table.rows.values().cloned().collect()
        };
        for child in waiting {
            let text = format!("the keeper cannot be started: {error}");
            self.failed(
                &child,
                &Problem::new("child.no-keeper", text).with_hint("see `astrid logs`"),
            );
        }
    }

    /// Ends all children but those that stay, and the keeper with them; they have that long.
    pub async fn end(self: &Arc<Self>, grace: Duration) {
        {
            let mut table = self.table.lock();
            table.ending = true;
            table.requests.push_back(
                ToKeeper::End {
                    grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
                }
                .into(),
            );
        }
        self.withdraw_all();
        self.wanted.notify_one();
        let mut ended = self.ended.subscribe();
        // An error would mean that this is gone.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Says and hears until the socket closes; returns why it did.
    async fn converse(self: &Arc<Self>, link: &Link, settling: &mut JoinSet<()>) -> ProtocolError {
        loop {
            let next = self.table.lock().requests.front().cloned();
            // Nothing is started that is not recorded.
            let unrecorded = next.as_ref().and_then(|next| self.unrecorded(&next.message));
            let next = next.filter(|_| unrecorded.is_none());
            tokio::select! {
                sent = link.send_some(next.as_ref()), if next.is_some() => match sent {
                    Ok(()) => drop(self.table.lock().requests.pop_front()),
                    Err(error) => return error,
                },
                heard = link.receive() => match heard {
                    Ok((message, descriptors)) => self.hear(message, descriptors, settling),
                    Err(error) => return error,
                },
                () = self.wanted.notified(), if next.is_none() && unrecorded.is_none() => {}
                answer = self.recorded(unrecorded), if unrecorded.is_some() => self.intended(unrecorded, answer),
                Some(_) = settling.join_next(), if !settling.is_empty() => {}
            }
        }
    }

    /// The child that a request would start, and that is not recorded yet.
    fn unrecorded(&self, request: &ToKeeper) -> Option<ChildId> {
        match request {
            ToKeeper::Spawn { id, .. } => self.table.lock().intents.contains_key(id).then_some(*id),
            _ => None,
        }
    }

    /// Waits until it is. What waits stays in the table, for another conversation.
    async fn recorded(&self, id: Option<ChildId>) -> Result<u64, Refused> {
        std::future::poll_fn(|cx| {
            let mut table = self.table.lock();
            match id.and_then(|id| table.intents.get_mut(&id)) {
                Some(intent) => std::pin::Pin::new(intent).poll(cx),
                None => Poll::Ready(Err(Refused::Closed)),
            }
        })
        .await
    }

    /// It is recorded that a child is to start, or it does not.
    fn intended(self: &Arc<Self>, id: Option<ChildId>, answer: Result<u64, Refused>) {
        let Some(id) = id else { return };
        let Some(child) = self.row(id) else { return };
        self.table.lock().intents.remove(&id);
        match answer {
            Ok(sequence) => child.progress.lock().intent = Some(sequence),
            Err(refused) => {
                self.table.lock().requests.pop_front();
                let problem = Problem::new("audit.failed", refused.to_string());
                self.failed(&child, &problem.with_hint("`astrid status` says how the audit log is"));
            }
        }
    }

    fn row(&self, id: ChildId) -> Option<Arc<Child>> {
        self.table.lock().rows.get(&id).cloned()
    }

    fn hear(self: &Arc<Self>, message: FromKeeper, descriptors: Vec<OwnedFd>, settling: &mut JoinSet<()>) {
        match message {
            FromKeeper::Started {
                id,
                pid,
                started_at_ms,
                streams,
                lacking,
            } => {
                if let Some(child) = self.row(id) {
                    if descriptors.len() < streams.count() {
                        tracing::error!(child = %child.tag, "no descriptor is free: some of what it writes is lost");
                    }
                    let started = wire::Started {
                        tag: child.tag.to_string(),
                        pid: pid.cast_unsigned(),
                        started_at_ms,
                        lacking,
                    };
                    self.started(&child, &started, split(descriptors, streams, child.is_terminal()));
                }
            }
            FromKeeper::Merged { id, result } => self.merged(id, result, descriptors),
            FromKeeper::Failed { id, failure } => {
                if let Some(child) = self.row(id) {
                    self.failed(&child, &problem(&failure));
                }
            }
            FromKeeper::Exited {
                id,
                exit,
                cpu_ms,
                left_behind,
                exceeded,
            } => {
                let Some(child) = self.row(id) else { return };
                *child.exceeded.lock() = exceeded;
                let ended = Ended {
                    exit,
                    cpu_ms,
                    left_behind,
                };
                let sinks = std::mem::take(&mut child.progress.lock().sinks);
                if sinks.is_empty() && !child.has_copy() {
                    return self.exited(&child, ended, None);
                }
                // What it has written before it ended is where it belongs when its owner hears of the end.
                let children = Arc::clone(self);
                settling.spawn(async move {
                    let settled = futures_util::future::join_all(sinks.iter().map(SinkHandle::settle));
                    // An owner that does not handle, or a disk that hangs, must not keep an end from being told.
                    if tokio::time::timeout(SETTLE_TIME_MAX, settled).await.is_err() {
                        tracing::warn!(child = %child.tag, "an end is told before all output was read");
                    }
                    drop(sinks);
                    let taken = children.take_back(&child).await;
                    children.exited(&child, ended, taken);
                });
            }
            FromKeeper::Refused { message } => tracing::error!(message, "the keeper refuses to go on"),
            // Only said at the beginning.
            FromKeeper::Hello { .. } | FromKeeper::Kept { .. } => {
                tracing::error!("the keeper greets in the middle of a conversation");
            }
        }
    }

    fn started(self: &Arc<Self>, child: &Arc<Child>, started: &wire::Started, (input, outputs): Ends) {
        if let (Some(input), Some(descriptor)) = (&child.input, input) {
            self.drive(input, descriptor);
        }
        {
            let mut progress = child.progress.lock();
            progress.pid = Some(started.pid);
            progress.started_at_ms = Some(started.started_at_ms);
            progress.program = None;
            if let Some(intent) = progress.intent.take() {
                let lacking = match started.lacking.is_empty() {
                    true => String::new(),
                    false => format!(" lacking={}", started.lacking.join("; ")),
                };
                let detail = format!("tag={} pid={}{lacking}", child.tag, started.pid);
                super::record::outcome(&self.audit, child, intent, Outcome::Done, &detail);
            }
        }
        for (source, stream) in outputs {
            self.attach(child, source, stream);
        }
        if child.pays {
            self.watch_storage(child.owner.principal.clone());
        }
        self.tell(child, &self.topics.started, Body::json(started));
    }

    /// A workspace is mounted, or cannot be: who waits for it is started, or told.
    fn merged(self: &Arc<Self>, id: u64, result: Result<bool, Failure>, descriptors: Vec<OwnedFd>) {
        let mut waiting: Vec<Request> = {
            let mut table = self.table.lock();
            let is_of = |request: &mut Request| request.mount.as_ref().is_some_and(|mount| mount.id == id);
            table.waiting.extract_if(.., is_of).collect()
        };
        let mount = self.mounts.numbered(id);
        let failure = match (mount, result) {
            (Some(mount), Ok(user)) if mount.mounted(user, descriptors) => {
                self.table.lock().requests.extend(waiting.drain(..));
                return;
            }
            (_, Err(failure)) => failure,
            (_, Ok(_)) => Failure {
                stage: Stage::Machine,
                errno: 0,
                message: "the workspace was mounted for nobody".to_owned(),
            },
        };
        self.mounts.ask_again();
        for request in waiting {
            if let ToKeeper::Spawn { id, .. } = request.message
                && let Some(child) = self.row(id)
            {
                self.failed(&child, &problem(&failure));
            }
        }
    }
}

/// The daemon's ends of a child's streams: its input, and its outputs.
type Ends = (Option<OwnedFd>, Vec<(OwnedFd, Stream)>);

/// What the descriptors beside a packet are.
fn split(descriptors: Vec<OwnedFd>, streams: Streams, terminal: bool) -> Ends {
    let mut descriptors = descriptors.into_iter();
    let mut input = if streams.input { descriptors.next() } else { None };
    let stdout = if streams.output { descriptors.next() } else { None };
    let stderr = if streams.errors { descriptors.next() } else { None };
    if terminal {
        // One descriptor for both directions.
        input = stdout.as_ref().and_then(|fd| fd.try_clone().ok());
    }
    let outputs = [(stdout, Stream::Stdout), (stderr, Stream::Stderr)];
    let outputs = outputs.into_iter().filter_map(|(fd, stream)| Some((fd?, stream)));
    (input, outputs.collect())
}

fn kill(id: ChildId) -> ToKeeper {
    ToKeeper::Signal {
        id,
        signal: rustix::process::Signal::KILL.as_raw(),
        reach: Reach::Tree,
    }
}

/// Why a child did not start, for its owner.
fn problem(failure: &Failure) -> Problem {
    let (code, hint) = match failure.stage {
        Stage::Program => ("child.not-executable", None),
        Stage::Directory => ("child.no-directory", None),
        Stage::Limit(_) => (
            "child.limit",
            Some("it has to lie between what any program needs and the hard limit of the daemon"),
        ),
        // What is wrong with what was asked for is said; what the machine cannot, or not safely, is another matter.
        Stage::Lacking => (
            "child.sandbox",
            Some("`astrid doctor` says what this machine can do; best_effort = true goes without what it cannot"),
        ),
        Stage::Sandbox => ("child.sandbox", None),
        Stage::Request => ("invalid", None),
        Stage::Machine => ("child.failed", None),
    };
    let problem = Problem::new(code, failure.message.clone());
    match hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

fn unexpected(message: &FromKeeper) -> ProtocolError {
    match message {
        FromKeeper::Refused { message } => ProtocolError::NotUnderstood(message.clone()),
        FromKeeper::Hello { version, .. } => {
            ProtocolError::NotUnderstood(format!("it speaks version {version}, this daemon {VERSION}"))
        }
        _ => ProtocolError::NotUnderstood("it does not greet".to_owned()),
    }
}

/// A conversation as the runtime watches it.
struct Socket(Connection);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Link {
    #[expect(
        deprecated,
        reason = "what it warns of is a descriptor that changes; a connection keeps its own for its life"
    )]
    fn of(connection: Connection, guard: Option<std::process::Child>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&connection, true)?;
        let socket = Socket(connection);
        Ok(Self {
            socket: AsyncFd::with_interest(socket, Interest::READABLE | Interest::WRITABLE)?,
            guard,
        })
    }

    async fn send_some(&self, request: Option<&Request>) -> Result<(), ProtocolError> {
        match request {
            Some(request) => self.send_request(request).await,
            None => Ok(()),
        }
    }

    async fn send_request(&self, request: &Request) -> Result<(), ProtocolError> {
        let (ToKeeper::Spawn { id, spec }, Some(mount)) = (&request.message, &request.mount) else {
            return self.send(&request.message).await;
        };
        let Some((within, descriptors)) = mount.within(&spec.cwd) else {
            return self.send(&request.message).await;
        };
        let mut spec = spec.clone();
        spec.within = Some(within);
        self.send_with(&ToKeeper::Spawn { id: *id, spec }, &descriptors).await
    }

    async fn send(&self, message: &ToKeeper) -> Result<(), ProtocolError> {
        self.send_with(message, &[]).await
    }

    async fn send_with(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        loop {
            let mut ready = self.socket.writable().await.map_err(ProtocolError::Io)?;
            match ready.get_inner().0.send(message, descriptors) {
                Err(ProtocolError::WouldBlock) => ready.clear_ready(),
                done => return done,
            }
        }
    }

    async fn receive(&self) -> Result<(FromKeeper, Vec<OwnedFd>), ProtocolError> {
        let mut buffer = Vec::new();
        loop {
            let mut ready = self.socket.readable().await.map_err(ProtocolError::Io)?;
            match ready.get_inner().0.receive(&mut buffer) {
                Err(ProtocolError::WouldBlock) => ready.clear_ready(),
                done => return done,
            }
        }
    }
}
