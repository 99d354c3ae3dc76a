//! What is said between a daemon and its keeper, and between the keeper and a launcher: one JSON document a packet, with
//! descriptors beside it.
//!
//! The sockets are `SOCK_SEQPACKET`, so that a packet is a message and its length is known before it is read. Both sides say
//! their version first; a packet that is too long, cut, or not understood ends the conversation, for the other side is then another
//! program than this one knows.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use astrid_wire::child::Exit;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use super::confine::{Confined, Network, PATHS_MAX};
pub use super::namespaces::Layers;

/// What this program speaks.
pub const VERSION: u32 = 3;

/// Bytes of a packet: 96 KiB of arguments and environment, 16 KiB of paths, what they are wrapped in, and signs that JSON writes longer.
pub const PACKET_BYTES_MAX: usize = 144 << 10;

/// Bytes that a socket holds for a side that does not read at once: a few packets. The system may grant less.
const SOCKET_BYTES: usize = 512 << 10;

/// Descriptors beside a packet: input, output, errors; or input and two namespaces; or two namespaces and a directory.
const DESCRIPTORS_MAX: usize = 3;

/// Bytes of [`Spec::notes`].
pub const NOTES_BYTES_MAX: usize = 8 << 10;

/// Bytes of the secret by which a later daemon proves that it is of the same home.
pub const SECRET_BYTES: usize = 32;

/// A child. Chosen by the daemon, and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChildId {
    /// Which run of the daemon started it.
    pub boot: u64,
    /// The port that it is there.
    pub port: u64,
}

/// What the daemon says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToKeeper {
    /// First.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// [`SECRET_BYTES`] in hex. The first daemon sets it; one that connects later must know it.
        secret: String,
        /// Soft limit of open files that children are given, unless they have one of their own: the daemon has raised its own.
        nofile: u64,
    },
    /// Merges directories; answered by [`FromKeeper::Merged`].
    Mount {
        /// Which answer is this one's.
        id: u64,
        /// What to merge.
        layers: Layers,
    },
    /// Starts a program; answered by [`FromKeeper::Started`] or [`FromKeeper::Failed`]. With the namespaces that [`Spec::within`] says.
    Spawn {
        /// What it will be called.
        id: ChildId,
        /// What to start.
        spec: Box<Spec>,
    },
    /// Sends a signal. One that is gone is no error: that is told anyway.
    Signal {
        /// Whom.
        id: ChildId,
        /// Its number.
        signal: i32,
        /// How far.
        reach: Reach,
    },
    /// Closes what the keeper holds of the input of a child that is to be adopted, so that its end is seen when the daemon's is closed.
    CloseInput {
        /// Whose.
        id: ChildId,
    },
    /// Ends every child that is not to be adopted: asks it, and kills it after so many milliseconds. The socket is closed when none is left.
    End {
        /// How long they have.
        grace_ms: u64,
    },
}

impl std::fmt::Debug for ToKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            // The secret is nobody else's.
            Self::Hello { version, .. } => f
                .debug_struct("Hello")
                .field("version", version)
                .finish_non_exhaustive(),
            Self::Mount { id, layers } => f.debug_tuple("Mount").field(id).field(layers).finish(),
            Self::Spawn { id, spec } => f.debug_struct("Spawn").field("id", id).field("spec", spec).finish(),
            Self::Signal { id, signal, reach } => f.debug_tuple("Signal").field(id).field(signal).field(reach).finish(),
            Self::CloseInput { id } => f.debug_tuple("CloseInput").field(id).finish(),
            Self::End { grace_ms } => f.debug_tuple("End").field(grace_ms).finish(),
        }
    }
}

impl std::fmt::Debug for FromKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Hello { version, pid, kept } => f.debug_tuple("Hello").field(version).field(pid).field(kept).finish(),
            // The notes are the daemon's, with its secrets.
            Self::Kept { id, pid, .. } => f.debug_tuple("Kept").field(id).field(pid).finish_non_exhaustive(),
            Self::Started { id, pid, .. } => f.debug_tuple("Started").field(id).field(pid).finish_non_exhaustive(),
            Self::Merged { id, result } => f.debug_tuple("Merged").field(id).field(result).finish(),
            Self::Failed { id, failure } => f.debug_tuple("Failed").field(id).field(failure).finish(),
            Self::Exited { id, exit, .. } => f.debug_tuple("Exited").field(id).field(exit).finish_non_exhaustive(),
            Self::Refused { message } => f.debug_tuple("Refused").field(message).finish(),
        }
    }
}

impl std::fmt::Debug for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Arguments and environment are where people put secrets.
        f.debug_struct("Spec")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

/// What the keeper says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromKeeper {
    /// First.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The keeper's process id: every child descends from it.
        pid: i32,
        /// How many [`FromKeeper::Kept`] follow.
        kept: u32,
    },
    /// A child that an earlier daemon started; with its streams.
    Kept {
        /// What it is called.
        id: ChildId,
        /// Its main process.
        pid: i32,
        /// Milliseconds since 1970.
        started_at_ms: u64,
        /// [`Spec::notes`].
        notes: String,
        /// Which descriptors are beside this packet.
        streams: Streams,
    },
    /// A child runs; with its streams, which do not block.
    Started {
        /// Which.
        id: ChildId,
        /// Its main process, which leads a session and a process group of its own.
        pid: i32,
        /// Milliseconds since 1970.
        started_at_ms: u64,
        /// Which descriptors are beside this packet.
        streams: Streams,
        /// What of its confinement could not be had, and it runs without.
        lacking: Vec<String>,
    },
    /// What became of [`ToKeeper::Mount`]. Beside it are the namespaces (of users, if it is said here that there is one; of mounts), and the
    /// merged directory.
    Merged {
        /// Of that request.
        id: u64,
        /// Whether there is a namespace of users; or why it failed.
        result: Result<bool, Failure>,
    },
    /// A child could not be started.
    Failed {
        /// Which.
        id: ChildId,
        /// Why.
        failure: Failure,
    },
    /// A child's main process has ended, and with it whatever it had left. Its output may still be in the pipes.
    Exited {
        /// Which.
        id: ChildId,
        /// How.
        exit: Exit,
        /// Processor time of the main process and of those it has waited for.
        cpu_ms: u64,
        /// Processes that were still there and have been killed.
        left_behind: u32,
        /// Of its limits those of its whole tree that something was ended or refused for.
        exceeded: Vec<TreeLimit>,
    },
    /// The keeper does not go on with this conversation.
    Refused {
        /// Why.
        message: String,
    },
}

/// Descriptors beside a packet, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// Where its standard input is written.
    pub input: bool,
    /// Where its standard output is read; of one with a terminal, that terminal, which is its input as well.
    pub output: bool,
    /// Where its standard error is read, if that is not where its output goes.
    pub errors: bool,
}

impl Streams {
    /// How many there are.
    #[must_use]
    pub fn count(self) -> usize {
        [self.input, self.output, self.errors]
            .iter()
            .filter(|there| **there)
            .count()
    }
}

/// Whom a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// The main process.
    Main,
    /// Its process group.
    Group,
    /// It and everything that it has started.
    Tree,
}

/// Where a child's standard error goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errors {
    /// Nowhere.
    Null,
    /// Into a pipe of its own.
    Pipe,
    /// Where standard output goes.
    Merge,
}

/// A program and all that it is given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Absolute, and resolved.
    pub program: PathBuf,
    /// Device that the program's file is on.
    pub device: u64,
    /// Its number there: another file by the same name is not run.
    pub inode: u64,
    /// The workspace that the program lies in, as it is seen: nobody has looked at its file, whose device and inode say nothing then.
    pub workspace: Option<PathBuf>,
    /// What the program is told that it is called.
    pub arg0: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// All of its environment, but the mark that the keeper adds.
    pub env: Vec<(String, String)>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// Whether its standard input can be written; else it is empty.
    pub input: bool,
    /// Whether all three streams are a terminal; `input`, `stdout` and `stderr` say nothing then.
    pub terminal: bool,
    /// Whether its standard output can be read; else it goes nowhere.
    pub stdout: bool,
    /// The same of its standard error.
    pub stderr: Errors,
    /// What it may have.
    pub limits: Limits,
    /// Directories that it must not reach (Landlock); not said: it is not restricted.
    pub protect: Option<Vec<PathBuf>>,
    /// A directory in one of those, which was made for it alone.
    pub given: Option<PathBuf>,
    /// What else it is kept from; only with `protect`.
    pub confined: Option<Confined>,
    /// Where a merged directory is mounted, when it starts there.
    pub within: Option<Within>,
    /// Whether it outlives the daemon.
    pub adopt: bool,
    /// What a later daemon has to know of it, at most [`NOTES_BYTES_MAX`].
    pub notes: String,
}

/// A limit of a whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TreeLimit {
    /// [`Limits::tree_memory_bytes`].
    Memory,
    /// [`Limits::tree_processes`].
    Processes,
}

/// Namespaces beside a packet, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Within {
    /// Whether there is one of users; one of mounts follows in any case.
    pub user: bool,
    /// Device of the merged directory, where the program begins in it or below: then that is seen to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
}

/// Resource limits; what is not said is as for the keeper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of private memory of each process, at least [`MEMORY_BYTES_MIN`].
    pub memory_bytes: Option<u64>,
    /// Seconds of processor time of each process.
    pub cpu_seconds: Option<u64>,
    /// Open files of each process.
    pub open_files: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
    /// Bytes of a file.
    pub file_bytes: Option<u64>,
    /// Bytes of a core file; none when not said.
    pub core_bytes: Option<u64>,
    /// Bytes of memory of it and all that it starts together.
    pub tree_memory_bytes: Option<u64>,
    /// Processes of it and all that it starts together.
    pub tree_processes: Option<u64>,
}

/// Least of [`Limits::memory_bytes`]: what the launcher itself has when it gives way to the program.
pub const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// Why a program does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    /// Where it went wrong.
    pub stage: Stage,
    /// What the system said, 0 if it was not asked.
    pub errno: i32,
    /// For people.
    pub message: String,
}

/// Where a start went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The program: not there, not executable, or not the file any more that it was.
    Program,
    /// The working directory.
    Directory,
    /// A limit, by its name in [`Limits`].
    Limit(String),
    /// What it must not reach, or what it was given of that.
    Sandbox,
    /// Something of its confinement that this machine cannot, which best effort would leave out.
    Lacking,
    /// What was asked for cannot be: a number that is used, notes that are too long.
    Request,
    /// The machine: no process, no descriptor, no memory.
    Machine,
}

/// From the keeper to a launcher: what it is to become or do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Order {
    Launch(Launch),
    /// To merge directories, and to end.
    Merge {
        keeper: i32,
        layers: Layers,
    },
}

/// A program; with the child's standard input, and the namespaces that it starts in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Launch {
    /// Whose child it must be when it starts the program.
    pub(super) keeper: i32,
    pub(super) nofile: u64,
    /// The file by which it enters its control group.
    pub(super) group: Option<PathBuf>,
    /// What could not be had already.
    pub(super) lacking: Vec<String>,
    pub(super) spec: Box<Spec>,
}

/// From a launcher to the keeper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Launched {
    /// The program is started next: if nothing follows, it was. What could not be had, and it goes without.
    Ready(Vec<String>),
    Failed(Failure),
    /// Directories are merged: the namespaces and the directory are beside this; whether one of users is among them.
    Merged(bool),
}

/// Why a conversation ends.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The other side is gone.
    #[error("the other side is gone")]
    Closed,
    /// It would be waiting: nothing is there, or there is no room.
    #[error("it would be waiting")]
    WouldBlock,
    /// A packet is longer than they may be.
    #[error("a packet has more than {PACKET_BYTES_MAX} bytes")]
    TooLarge,
    /// A packet is not understood.
    #[error("a packet is not understood: {0}")]
    NotUnderstood(String),
    /// The system failed.
    #[error(transparent)]
    Io(io::Error),
}

impl From<Errno> for ProtocolError {
    fn from(error: Errno) -> Self {
        match error {
            // Too many descriptors that nobody has taken yet are room that will come, like too many bytes.
            Errno::WOULDBLOCK | Errno::TOOMANYREFS | Errno::NOBUFS => ProtocolError::WouldBlock,
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => ProtocolError::Closed,
            Errno::MSGSIZE => ProtocolError::TooLarge,
            other => ProtocolError::Io(other.into()),
        }
    }
}

/// One end of a conversation.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// Takes a `SOCK_SEQPACKET` socket. Whether it blocks is as it is set.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Connection {
        // Less room than wished for is no failure.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BYTES);
        Connection { socket }
    }

    /// Two ends, which block.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn pair() -> io::Result<(Connection, Connection)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Connection::new(one), Connection::new(other)))
    }

    /// The socket, which is no conversation any more.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`]; after [`ProtocolError::WouldBlock`] nothing was sent.
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        self.send_packet(&encode(message)?, descriptors)
    }

    pub(super) fn send_packet(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ProtocolError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(ProtocolError::NotUnderstood("too many descriptors".to_owned()));
        }
        loop {
            match sendmsg(&self.socket, &[IoSlice::new(packet)], &mut beside, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message and what is beside it. `buffer` is memory to work in, kept by the caller.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`].
    pub fn receive<T: DeserializeOwned>(&self, buffer: &mut Vec<u8>) -> Result<(T, Vec<OwnedFd>), ProtocolError> {
        buffer.resize(PACKET_BYTES_MAX, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(buffer)],
                &mut beside,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let mut descriptors = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.bytes == 0 {
            return Err(ProtocolError::Closed);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ProtocolError::TooLarge);
        }
        let message = serde_json::from_slice(&buffer[..received.bytes.min(PACKET_BYTES_MAX)])
            .map_err(|error| ProtocolError::NotUnderstood(error.to_string()))?;
        Ok((message, descriptors))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The packet that a message is.
pub(super) fn encode(message: &impl Serialize) -> Result<Vec<u8>, ProtocolError> {
    let packet = serde_json::to_vec(message).map_err(|error| ProtocolError::NotUnderstood(error.to_string()))?;
    if packet.len() > PACKET_BYTES_MAX {
        return Err(ProtocolError::TooLarge);
    }
    Ok(packet)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What is too long, cut or not understood is told apart, and never allocated for.
    #[test]
    fn hostile_packets_are_refused() {
        let (one, other) = Connection::pair().unwrap();
        let mut buffer = Vec::new();
        let long = ToKeeper::Hello {
            version: VERSION,
            secret: "x".repeat(PACKET_BYTES_MAX),
            nofile: 0,
        };
        assert!(matches!(one.send(&long, &[]), Err(ProtocolError::TooLarge)));
        one.send_packet(&vec![b' '; PACKET_BYTES_MAX + 1], &[]).unwrap();
        assert!(matches!(
            other.receive::<ToKeeper>(&mut buffer),
            Err(ProtocolError::TooLarge)
        ));
        for garbage in [
            &b"\xff\0"[..],
            b"{\"hello\":{}}",
            b"{\"dance\":1}",
            b"{\"end\":{\"grace_ms\":1,\"x\":2}}",
        ] {
            one.send_packet(garbage, &[]).unwrap();
            assert!(matches!(
                other.receive::<ToKeeper>(&mut buffer),
                Err(ProtocolError::NotUnderstood(_))
            ));
        }
        drop(one);
        assert!(matches!(
            other.receive::<ToKeeper>(&mut buffer),
            Err(ProtocolError::Closed)
        ));
    }

    /// What people put secrets into, and the keeper's own, is not shown.
    #[test]
    fn secrets_are_not_in_debug() {
        let spec = Spec {
            program: "/bin/x".into(),
            device: 0,
            inode: 0,
            workspace: None,
            arg0: "x".into(),
            args: vec!["--password=hunter22".into()],
            env: vec![("KEY".into(), "hunter22".into())],
            cwd: "/".into(),
            input: false,
            terminal: false,
            stdout: false,
            stderr: Errors::Null,
            limits: Limits::default(),
            protect: None,
            given: None,
            confined: None,
            within: None,
            adopt: true,
            notes: "hunter22".into(),
        };
        let hello = ToKeeper::Hello {
            version: VERSION,
            secret: "hunter22".into(),
            nofile: 0,
        };
        let id = ChildId { boot: 1, port: 2 };
        let spawn = ToKeeper::Spawn {
            id,
            spec: Box::new(spec),
        };
        let kept = FromKeeper::Kept {
            id,
            pid: 3,
            started_at_ms: 4,
            notes: "hunter22".into(),
            streams: Streams::default(),
        };
        let shown = format!("{hello:?} {spawn:?} {kept:?}");
        assert!(!shown.contains("hunter22") && shown.contains("/bin/x"), "{shown}");
    }

    /// Descriptors arrive beside their packet, closed on exec.
    #[test]
    fn descriptors_travel() {
        let (one, other) = Connection::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        one.send(&Reach::Main, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (message, mut beside) = other.receive::<Reach>(&mut Vec::new()).unwrap();
        assert_eq!((message, beside.len()), (Reach::Main, 1));
        assert!(
            rustix::io::fcntl_getfd(&beside[0])
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
        rustix::io::write(beside.pop().unwrap(), b"x").unwrap();
        assert_eq!(rustix::io::read(reader, &mut [0; 4][..]).unwrap(), 1);
    }
}
