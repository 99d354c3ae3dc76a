//! The conversation with the keeper, and what happens when it is lost.
//!
//! The keeper is started when the first child is wanted. When it is lost, the guard ends what it left; what even that could not
//! do is found by its mark. Only then the owners are told, so that nobody starts a second one beside one that still lives.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use astrid_wire::Problem;
use astrid_wire::child::{self as wire, Exit};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::held::{Child, Owner};
use super::{Children, Notes, Stream};
use crate::bus::message::Body;
use crate::keeper::protocol::{self, ChildId, FromKeeper, Kept, Stage, ToKeeper};
use crate::keeper;

/// How long the guard may take to end what a lost keeper left.
const GUARD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a keeper that an earlier daemon left may take to end its children.
const EARLIER_TIME_MAX: Duration = Duration::from_secs(20);

/// An open conversation.
struct Link {
    socket: AsyncFd<OwnedFd>,
    /// The guard, when this daemon started it.
    guard: Option<std::process::Child>,
}

impl Children {
    /// Takes over what an earlier daemon left: adopted children, or leftovers of one that died together with its keeper.
    ///
    /// # Errors
    /// What the operating system says; nothing was taken over.
    pub async fn reclaim(self: &Arc<Self>) -> io::Result<()> {
        let (home, secret) = (self.home.clone(), self.secret);
        let earlier = tokio::task::spawn_blocking(move || keeper::earlier(&home, &secret));
        let earlier = earlier.await.map_err(io::Error::other)??;
        match earlier {
            keeper::Earlier::None => {}
            keeper::Earlier::Swept(0) => {}
            keeper::Earlier::Swept(count) => {
                tracing::warn!(count, "processes that a killed daemon and its keeper left were ended");
            }
            keeper::Earlier::Adopting(adopting) => {
                tracing::info!(children = adopting.children.len(), "children of an earlier daemon are taken over");
                let mut table = self.table.lock();
                table.keeper = Some(adopting.pid);
                drop(table);
                for (kept, descriptors) in adopting.children {
                    self.take_over(kept, descriptors);
                }
                *self.reclaimed.lock() = Some(adopting.socket);
                self.wanted.notify_one();
            }
            keeper::Earlier::Ending => {
                tracing::info!("the keeper of an earlier daemon still ends its children");
            }
        }
        Ok(())
    }

    fn take_over(&self, kept: Kept, descriptors: Vec<OwnedFd>) {
        let notes: Notes = match serde_json::from_str(&kept.notes) {
            Ok(notes) => notes,
            Err(error) => {
                tracing::error!(%error, pid = kept.pid, "a child of an earlier daemon cannot be understood; it is ended");
                self.request(kill(kept.id));
                return;
            }
        };
        let owner = Owner {
            capsule: notes.capsule.as_str().into(),
            principal: notes.principal,
        };
        let (input, outputs) = split(descriptors, kept.input, kept.terminal);
        let child = Arc::new(Child {
            id: self.ids.port(),
            key: kept.id,
            tag: notes.tag.as_str().into(),
            owner: owner.clone(),
            input: input.is_some().then(Arc::default),
            input_closes: notes.input_closes && !kept.terminal,
            unprotected: notes.unprotected,
            adopt: true,
            stdout: notes.stdout,
            stderr: notes.stderr,
            secrets: notes.secrets,
            progress: Mutex::default(),
            told: Mutex::default(),
        });
        {
            let mut progress = child.progress.lock();
            progress.pid = Some(kept.pid);
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
            let sink = self.attach(child, source, stream);
            child.progress.lock().sinks.push(sink);
        }
    }

    /// Talks with the keeper until the daemon ends.
    pub async fn run(self: Arc<Self>) {
        while !self.is_over() {
            let reclaimed = self.reclaimed.lock().take();
            let link = match reclaimed {
                Some(socket) => Link::of(socket, None),
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
        let (home, program) = (self.home.clone(), self.own_program.clone());
        let (secret, open_files) = (self.secret, self.open_files);
        let started = tokio::task::spawn_blocking(move || {
            keeper::start(&home, &program, &secret, open_files, EARLIER_TIME_MAX)
        });
        let started = started.await.map_err(io::Error::other)??;
        tracing::info!(pid = started.pid, "the keeper runs");
        self.table.lock().keeper = Some(started.pid);
        self.changed.notify_one();
        Link::of(started.socket, Some(started.guard))
    }

    /// One conversation, to its end.
    async fn live(self: &Arc<Self>, mut link: Link) {
        let mut settling = JoinSet::new();
        let why = self.converse(&link, &mut settling).await;
        settling.join_all().await;
        if self.table.lock().ending {
            tracing::debug!(%why, "the keeper has ended");
        } else {
            tracing::error!(%why, "the keeper is lost; its children are ended");
        }
        let guard = link.guard.take();
        drop(link);
        self.clean_up(guard).await;
        let lost: Vec<Arc<Child>> = {
            let mut table = self.table.lock();
            table.keeper = None;
            table.requests.clear();
            table.rows.values().cloned().collect()
        };
        for child in lost {
            self.exited(&child, Exit::Lost, 0, 0);
        }
        self.changed.notify_one();
    }

    /// Waits until nothing of a keeper is left.
    async fn clean_up(&self, guard: Option<std::process::Child>) {
        let home = self.home.clone();
        let swept = tokio::task::spawn_blocking(move || {
            if let Some(guard) = guard {
                keeper::wait_for_guard(guard, GUARD_TIME_MAX)?;
            }
            keeper::sweep(&home)
        });
        match swept.await {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::warn!(count, "processes that the keeper left were ended"),
            Ok(Err(error)) => tracing::error!(%error, "cannot look for processes that the keeper left"),
            Err(error) => tracing::error!(%error, "looking for processes that the keeper left failed"),
        }
    }

    /// There is no keeper: what waits for one is refused.
    fn refuse_all(&self, error: &io::Error) {
        tracing::error!(%error, "the keeper cannot be started");
        let waiting: Vec<Arc<Child>> = {
            let mut table = self.table.lock();
            table.requests.clear();
            table.rows.values().cloned().collect()
        };
        for child in waiting {
            let text = format!("the keeper cannot be started: {error}");
            self.failed(&child, &Problem::new("child.no-keeper", text).with_hint("see `astrid logs`"));
        }
    }

    /// Ends all children but those that stay, and the keeper with them; they have that long.
    pub async fn end(&self, grace: Duration) {
        {
            let mut table = self.table.lock();
            table.ending = true;
            table.requests.push_back(ToKeeper::End {
                grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            });
        }
        self.wanted.notify_one();
        let mut ended = self.ended.subscribe();
        // An error would mean that this is gone.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Says and hears until the socket closes; returns why it did.
    async fn converse(self: &Arc<Self>, link: &Link, settling: &mut JoinSet<()>) -> io::Error {
        loop {
            let next = self.table.lock().requests.front().cloned();
            tokio::select! {
                sent = link.send(next.as_ref()), if next.is_some() => match sent {
                    Ok(()) => {
                        self.table.lock().requests.pop_front();
                    }
                    Err(error) => return error,
                },
                heard = link.receive() => match heard {
                    Ok((message, descriptors)) => self.hear(message, descriptors, settling),
                    Err(error) => return error,
                },
                () = self.wanted.notified(), if next.is_none() => {}
                Some(_) = settling.join_next(), if !settling.is_empty() => {}
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
            } => {
                if let Some(child) = self.row(id) {
                    self.started(&child, pid, started_at_ms, descriptors);
                }
            }
            FromKeeper::Failed { id, stage, message } => {
                if let Some(child) = self.row(id) {
                    self.failed(&child, &problem(&stage, &message));
                }
            }
            FromKeeper::Exited {
                id,
                exit,
                cpu_ms,
                left_behind,
            } => {
                let Some(child) = self.row(id) else { return };
                let sinks = std::mem::take(&mut child.progress.lock().sinks);
                if sinks.is_empty() {
                    return self.exited(&child, exit, cpu_ms, left_behind);
                }
                // What it has written before it ended is where it belongs when its owner hears of the end.
                let children = Arc::clone(self);
                settling.spawn(async move {
                    for sink in &sinks {
                        sink.settle().await;
                    }
                    children.exited(&child, exit, cpu_ms, left_behind);
                });
            }
            // Only said at the beginning.
            FromKeeper::Hello { .. } | FromKeeper::Kept(_) => {
                tracing::error!("the keeper greets in the middle of a conversation");
            }
        }
    }

    fn started(&self, child: &Arc<Child>, pid: u32, started_at_ms: u64, descriptors: Vec<OwnedFd>) {
        let terminal = child.input.is_some() && !child.input_closes;
        let (input, outputs) = split(descriptors, child.input_closes, terminal);
        if let (Some(input), Some(descriptor)) = (&child.input, input) {
            self.drive(input, descriptor);
        }
        {
            let mut progress = child.progress.lock();
            progress.pid = Some(pid);
            progress.started_at_ms = Some(started_at_ms);
            progress.program = None;
        }
        for (source, stream) in outputs {
            let sink = self.attach(child, source, stream);
            child.progress.lock().sinks.push(sink);
        }
        let started = wire::Started {
            tag: child.tag.to_string(),
            pid,
            started_at_ms,
        };
        self.tell(child, &self.topics.started, Body::json(&started));
    }
}

/// What a child's descriptors are, in the order in which the keeper sends them: input, output, errors.
fn split(descriptors: Vec<OwnedFd>, input: bool, terminal: bool) -> (Option<OwnedFd>, Vec<(OwnedFd, Stream)>) {
    let mut descriptors = descriptors.into_iter();
    let input = if terminal {
        // One descriptor for both directions.
        descriptors.as_slice().first().and_then(|fd| fd.try_clone().ok())
    } else if input {
        descriptors.next()
    } else {
        None
    };
    (input, descriptors.zip([Stream::Stdout, Stream::Stderr]).collect())
}

fn kill(id: ChildId) -> ToKeeper {
    ToKeeper::Signal {
        id,
        signal: rustix::process::Signal::KILL.as_raw(),
        reach: protocol::Reach::Tree,
    }
}

/// Why a child did not start, for its owner.
fn problem(stage: &Stage, message: &str) -> Problem {
    let (code, hint) = match stage {
        Stage::Program => ("child.not-executable", None),
        Stage::Directory => ("child.no-directory", None),
        Stage::Limit(_) => (
            "child.limit",
            Some("ask for less, or raise the hard limit of the daemon"),
        ),
        Stage::Sandbox => (
            "child.sandbox",
            Some("`sandbox = \"none\"` starts it without protection of the daemon's home"),
        ),
        Stage::Other => ("child.failed", None),
    };
    let problem = match stage {
        Stage::Limit(name) => Problem::new(code, format!("the limit {name} cannot be applied: {message}")),
        _ => Problem::new(code, message.to_owned()),
    };
    match hint {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

impl Link {
    fn of(socket: OwnedFd, guard: Option<std::process::Child>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket: AsyncFd::with_interest(socket, Interest::READABLE | Interest::WRITABLE)?,
            guard,
        })
    }

    async fn send(&self, message: Option<&ToKeeper>) -> io::Result<()> {
        let Some(message) = message else { return Ok(()) };
        self.socket
            .async_io(Interest::WRITABLE, |socket| protocol::send(socket.as_fd(), message, &[]))
            .await
    }

    async fn receive(&self) -> io::Result<(FromKeeper, Vec<OwnedFd>)> {
        self.socket
            .async_io(Interest::READABLE, |socket| protocol::receive(socket.as_fd()))
            .await
    }
}
