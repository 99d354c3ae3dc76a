//! Where the output of children goes: a rotated file, messages to an owner, both, or nowhere.
//!
//! One thread, `sinks`, reads the ends of pipes and terminals. Bulk bytes so never pass through a capsule or the thread that runs
//! capsules, and a disk that is slow holds up output only. It sleeps in the kernel until something is written; it has no timers,
//! and a thousand quiet children cost it nothing. It does not exist until something is attached.
//!
//! A child waits when its output does: the next chunk of a stream is read when the one before is written and, where it goes to an
//! owner as well, when that one's [`SinkCredit`] was dropped. Nothing is queued here, so a child that floods grows nothing. A disk that
//! takes nothing is different: bytes are dropped and counted, and the child goes on.
//!
//! Reading order: [`mod@file`] (rotation), `pack` (compression), [`redact`] (secrets), `thread` (the loop), [`mod@tail`].

pub mod file;
mod pack;
pub mod redact;
pub mod tail;
mod thread;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, OFlags};
use tokio::sync::oneshot;

use self::file::LogFile;
pub use self::file::{FileSink, Period, Rotation};
use self::pack::Packer;
use self::redact::Redactor;
pub use self::redact::SecretError;
pub use self::tail::{TailError, tail};
use crate::bus::inbox::Credit;
use crate::metrics::Metrics;

/// Streams that are read at once: two of each of 4,096 children.
pub const SOURCES_MAX: usize = 8_192;

/// Bytes of one chunk that an owner is told.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes of the thread's stack: its buffer is on the heap.
const STACK_BYTES: usize = 512 << 10;

/// Why output is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The path of a file is not one.
    #[error("{} is not an absolute path of a log file", .path.display())]
    Path {
        /// As it was given.
        path: PathBuf,
    },
    /// The limit of a file is out of range.
    #[error(
        "log files of {bytes_max} bytes: {} to {} are possible",
        file::FILE_BYTES_MIN,
        file::FILE_BYTES_MAX
    )]
    Bytes {
        /// As it was given.
        bytes_max: u64,
    },
    /// Too many files are to be kept.
    #[error("{keep} log files to keep: at most {} are possible", file::FILES_KEPT_MAX)]
    Keep {
        /// As it was given.
        keep: u32,
    },
    /// The file cannot be opened.
    #[error("cannot open the log file {}", .path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Secrets that cannot be blotted out.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The descriptor is not one that can be waited for.
    #[error("output comes from a pipe, a terminal or a socket, and this is something else")]
    NotAStream,
    /// Too many streams are read already.
    #[error("{SOURCES_MAX} streams are read already, and no more are possible")]
    Full,
    /// The system gives no thread or descriptor.
    #[error("the system does not let output be read")]
    System(#[source] io::Error),
    /// The stream has ended.
    #[error("the stream has ended")]
    Ended,
}

impl SinkError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            SinkError::Open { path, .. } => Some(format!("see that {} can be written", path.display())),
            SinkError::Path { .. } => Some("give a path that begins with / and ends in a name".to_owned()),
            SinkError::Secret(_) => Some("leave out of the secrets what is too short to be one".to_owned()),
            SinkError::Full => Some("send the output of children nowhere, or to one stream each".to_owned()),
            SinkError::System(_) => Some("raise the limits of open files and threads (ulimit -n, -u)".to_owned()),
            SinkError::Bytes { .. } | SinkError::Keep { .. } | SinkError::NotAStream | SinkError::Ended => None,
        }
    }
}

/// Hears what comes out of a stream, on the thread of the sinks: it must be short and must not block.
pub trait Told: Send {
    /// At most [`MESSAGE_BYTES_MAX`], as they were written. No more come before the credit is dropped.
    fn output(&self, bytes: Bytes, credit: SinkCredit);

    /// All was read and told; nothing comes after this.
    fn ended(&self);
}

/// Lets its stream be read on, by being dropped.
#[derive(Debug)]
pub struct SinkCredit {
    shared: Arc<Shared>,
    source: u64,
}

impl Credit for SinkCredit {}

impl Drop for SinkCredit {
    fn drop(&mut self) {
        self.shared.command(Command::ReadOn(self.source));
    }
}

/// What becomes of the bytes of one stream. Neither file nor messages: they are thrown away.
pub struct Sink {
    /// Appended to this file. Streams of one path share it.
    pub file: Option<FileSink>,
    /// Told to somebody, as they are.
    pub messages: Option<Box<dyn Told>>,
    /// Blotted out of the file: 4 bytes to 16 KiB each.
    pub secrets: Arc<[Vec<u8>]>,
}

/// What the thread is asked to do.
enum Command {
    Attach(u64, Box<thread::Source>),
    /// The credit of a stream came back.
    ReadOn(u64),
    /// Tell when what is there now was read.
    Settle(u64, oneshot::Sender<()>),
    Detach(u64, oneshot::Sender<OwnedFd>),
    End(u64),
    Stop,
}

/// Between those who ask and the thread.
struct Shared {
    /// One credit and one end for each source, and what its handle asks.
    commands: Mutex<VecDeque<Command>>,
    wake: OwnedFd,
    sources: AtomicUsize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn command(&self, command: Command) {
        let mut commands = self.commands.lock();
        let first = commands.is_empty();
        commands.push_back(command);
        drop(commands);
        if first {
            // It can only fail by being full of wakes.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }
}

/// The thread, once there is one.
struct Running {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// All sinks of a daemon. Dropping it ends the thread; what children write from then on waits in their pipes.
pub struct Sinks {
    running: Mutex<Option<Running>>,
    /// Files that are written, by path.
    files: Mutex<HashMap<PathBuf, Weak<Mutex<LogFile>>>>,
    packer: Arc<Packer>,
    next: AtomicU64,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sinks")
            .field("files", &self.files.lock().len())
            .finish_non_exhaustive()
    }
}

impl Sinks {
    /// None yet, and no thread.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            running: Mutex::default(),
            files: Mutex::default(),
            packer: Arc::default(),
            next: AtomicU64::new(1),
            metrics,
        }
    }

    /// Reads this stream from now on. The descriptor is made non-blocking.
    ///
    /// # Errors
    /// [`SinkError`]; the descriptor is closed then.
    pub fn attach(&self, descriptor: OwnedFd, sink: Sink) -> Result<SinkHandle, SinkError> {
        let found = rustix::fs::fstat(&descriptor).map_err(|error| SinkError::System(error.into()))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if !matches!(kind, FileType::Fifo | FileType::CharacterDevice | FileType::Socket) {
            return Err(SinkError::NotAStream);
        }
        let redactor = match &sink.file {
            Some(_) => Redactor::new(&sink.secrets)?,
            None => None,
        };
        let file = sink.file.as_ref().map(|file| self.file(file)).transpose()?;
        let nonblocking = rustix::fs::fcntl_getfl(&descriptor)
            .and_then(|flags| rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK));
        nonblocking.map_err(|error| SinkError::System(error.into()))?;
        let shared = self.shared()?;
        if shared.sources.fetch_add(1, Ordering::Relaxed) >= SOURCES_MAX {
            shared.sources.fetch_sub(1, Ordering::Relaxed);
            return Err(SinkError::Full);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let source = thread::Source::new(descriptor, file, redactor, sink.messages);
        shared.command(Command::Attach(id, Box::new(source)));
        Ok(SinkHandle { shared, source: id })
    }

    /// The thread's side, which is started when there is none.
    fn shared(&self) -> Result<Arc<Shared>, SinkError> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            return Ok(Arc::clone(&running.shared));
        }
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            wake: wake.map_err(|error| SinkError::System(error.into()))?,
            sources: AtomicUsize::new(0),
        });
        let reader = thread::Reader::new(Arc::clone(&shared), Arc::clone(&self.metrics)).map_err(SinkError::System)?;
        let builder = Builder::new().name("sinks".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || reader.run()).map_err(SinkError::System)?;
        *running = Some(Running {
            shared: Arc::clone(&shared),
            thread,
        });
        Ok(shared)
    }

    /// The file of that path, opened if nobody writes it yet.
    fn file(&self, sink: &FileSink) -> Result<Arc<Mutex<LogFile>>, SinkError> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(&sink.path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        files.retain(|_, file| file.strong_count() > 0);
        let file = LogFile::open(sink, Arc::clone(&self.packer), Arc::clone(&self.metrics))?;
        let file = Arc::new(Mutex::new(file));
        files.insert(sink.path.clone(), Arc::downgrade(&file));
        Ok(file)
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        if let Some(Running { shared, thread }) = self.running.get_mut().take() {
            shared.command(Command::Stop);
            // On the thread itself (an owner that drops the last of everything) it ends after this.
            if thread.thread().id() != std::thread::current().id() {
                // Its panic is its own.
                let _ = thread.join();
            }
        }
        self.packer.stop();
    }
}

/// A stream that is read. Dropping it ends that: the descriptor is closed, and nothing is told any more.
#[derive(Debug)]
pub struct SinkHandle {
    shared: Arc<Shared>,
    source: u64,
}

impl SinkHandle {
    /// Stops reading and gives the descriptor back, with what is still in it. Asked at once, whether the result is awaited or not.
    ///
    /// # Errors
    /// [`SinkError::Ended`] when the stream has ended.
    pub fn detach(self) -> impl Future<Output = Result<OwnedFd, SinkError>> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        self.shared.command(Command::Detach(self.source, answer));
        async move { answered.await.map_err(|_| SinkError::Ended) }
    }

    /// Done when all that is in the stream now was read and written, or the stream has ended. As long as an owner keeps its
    /// credit, it is not done. Asked at once, whether it is awaited or not.
    ///
    /// A terminal hands on what was written to it a moment later; only its end is certain.
    pub fn settle(&self) -> impl Future<Output = ()> + Send + 'static {
        let (answer, answered) = oneshot::channel();
        self.shared.command(Command::Settle(self.source, answer));
        // Given up means ended.
        async move { drop(answered.await) }
    }
}

impl Drop for SinkHandle {
    fn drop(&mut self) {
        self.shared.command(Command::End(self.source));
    }
}

#[cfg(test)]
mod tests;
