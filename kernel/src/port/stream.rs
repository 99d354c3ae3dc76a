//! A stream: bytes to and from one peer.
//!
//! In: one chunk of at most 64 KiB is read, delivered, and the next one is read when the owner's commit consumed it. Out: a write
//! is tried at once on the caller's thread, which saves a trip through the runtime, and what the socket does not take waits in a
//! bounded buffer. Above [`DRAIN_BYTES`] the owner is not given more to handle ([`Stream::drained`]), so a slow reader
//! stops what is said to it and, through its full queue, who says it. One that takes nothing for [`STALL`] is closed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use astrid_wire::{Principal, Topic};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore};

use super::tell;
use crate::authority::Permit;
use crate::bus::inbox::{Credit, Inbox};
use crate::bus::message::{Body, ContentType, Ids, PortId};

/// Bytes of one read at most.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Bytes waiting for the peer at most: two of the largest frames.
pub const OUT_BYTES_MAX: usize = 34 << 20;

/// Bytes waiting above which the owner waits too.
const DRAIN_BYTES: usize = 1 << 20;

/// How long a peer may take nothing while bytes wait for it.
const STALL: Duration = Duration::from_secs(30);

thread_local! {
    /// Where a chunk is read into before its size is known: one for each thread, so that an idle stream holds no memory.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into_boxed_slice());
}

#[derive(Debug, Default)]
struct Out {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Promised to commands that have not been carried out.
    reserved: usize,
    /// No more is written; closes when empty.
    closing: bool,
    /// Ended, by whichever side.
    closed: bool,
}

/// What happened, as topics.
#[derive(Debug)]
pub struct StreamTopics {
    /// The first event.
    pub opened: Topic,
    /// Bytes came.
    pub data: Topic,
    /// The peer sends no more.
    pub closed: Topic,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    id: PortId,
    socket: UnixStream,
    out: Mutex<Out>,
    /// Something to write, or to close.
    wants_writing: Notify,
    /// Told when little enough waits.
    drained: Notify,
    credit: Arc<Semaphore>,
}

/// Lets the stream read on.
struct ReadOn(Arc<Semaphore>);

impl Credit for ReadOn {}

impl Drop for ReadOn {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// Bytes promised to a write that is recorded and not carried out; dropping it gives them back.
#[derive(Debug)]
pub struct WriteRoom {
    stream: Arc<Stream>,
    bytes: usize,
}

impl Drop for WriteRoom {
    fn drop(&mut self) {
        self.stream.out.lock().reserved -= self.bytes;
    }
}

impl Stream {
    /// Takes a connected socket as the port of this number.
    pub fn new(id: PortId, socket: UnixStream) -> Arc<Self> {
        Arc::new(Self {
            id,
            socket,
            out: Mutex::default(),
            wants_writing: Notify::new(),
            drained: Notify::new(),
            credit: Arc::new(Semaphore::new(1)),
        })
    }

    /// Its number.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Room for a write of that many bytes.
    ///
    /// # Errors
    /// How many bytes are free, when those are too few.
    pub fn room(self: &Arc<Self>, bytes: usize) -> Result<WriteRoom, usize> {
        let mut out = self.out.lock();
        let free = OUT_BYTES_MAX.saturating_sub(out.bytes + out.reserved);
        if bytes > free {
            return Err(free);
        }
        out.reserved += bytes;
        drop(out);
        Ok(WriteRoom {
            stream: Arc::clone(self),
            bytes,
        })
    }

    /// Whether it is closed, or will be once it is written out.
    pub fn is_closing(&self) -> bool {
        let out = self.out.lock();
        out.closing || out.closed
    }

    /// Writes, in the order of the calls. Bytes for a peer that has gone are dropped: its owner hears of that by the end of its
    /// inbox.
    pub fn write(permit: Permit<WriteRoom>, mut bytes: Bytes) {
        let room = permit.into_object();
        let stream = &room.stream;
        let mut out = stream.out.lock();
        if out.closing || out.closed {
            return;
        }
        if out.waiting.is_empty() {
            match stream.socket.try_write(&bytes) {
                Ok(written) => bytes.advance(written),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The driver meets the same error and ends the stream.
                Err(_) => {}
            }
        }
        if !bytes.is_empty() {
            out.bytes += bytes.len();
            out.waiting.push_back(bytes);
            drop(out);
            stream.wants_writing.notify_one();
        }
    }

    /// Closes once everything is written.
    pub fn close(permit: Permit<Arc<Self>>) {
        permit.into_object().close_when_written();
    }

    /// As [`Stream::close`], by the kernel itself.
    pub fn close_when_written(&self) {
        self.out.lock().closing = true;
        self.wants_writing.notify_one();
    }

    /// Closes now; what waits is dropped.
    pub fn abort(&self) {
        let mut out = self.out.lock();
        out.closed = true;
        out.waiting.clear();
        out.bytes = 0;
        drop(out);
        self.wants_writing.notify_one();
        self.drained.notify_one();
    }

    /// Waits until the peer took enough for its owner to go on, or the stream ended.
    pub async fn drained(&self) {
        loop {
            let notified = self.drained.notified();
            {
                let out = self.out.lock();
                if out.bytes <= DRAIN_BYTES || out.closed {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Moves bytes until the stream ends, telling the owner; then closes the owner's inbox. Returns why it ended.
    pub async fn drive(self: Arc<Self>, inbox: Arc<Inbox>, ids: Arc<Ids>, topics: Arc<StreamTopics>) -> &'static str {
        let nobody = Principal::anonymous();
        let reason = if tell(&inbox, &ids, self.id, &topics.opened, nobody, Body::EMPTY, None) {
            tokio::select! {
                reason = self.read_all(&inbox, &ids, &topics) => reason,
                reason = self.write_all() => reason,
            }
        } else {
            "its owner ended"
        };
        self.abort();
        // What still waits in the inbox dies with the connection.
        drop(inbox.close());
        reason
    }

    async fn read_all(&self, inbox: &Inbox, ids: &Ids, topics: &StreamTopics) -> &'static str {
        let nobody = Principal::anonymous;
        loop {
            // A closed semaphore does not occur: nobody closes it.
            let Ok(credit) = self.credit.acquire().await else {
                return "its credit ended";
            };
            credit.forget();
            let bytes = match self.read_chunk().await {
                Ok(bytes) => bytes,
                Err(_) => return "reading failed",
            };
            let credit = Some(Box::new(ReadOn(Arc::clone(&self.credit))) as Box<dyn Credit>);
            if bytes.is_empty() {
                tell(
                    inbox,
                    ids,
                    self.id,
                    &topics.closed,
                    nobody(),
                    Body::text("the peer sends no more"),
                    credit,
                );
                // The owner may still have something to say; writing ends the stream.
                return std::future::pending().await;
            }
            let body = Body {
                content_type: ContentType::BYTES,
                bytes,
            };
            if !tell(inbox, ids, self.id, &topics.data, nobody(), body, credit) {
                return "its owner ended";
            }
        }
    }

    async fn read_chunk(&self) -> io::Result<Bytes> {
        loop {
            self.socket.readable().await?;
            let read = SCRATCH.with_borrow_mut(|scratch| {
                self.socket
                    .try_read(scratch)
                    .map(|n| Bytes::copy_from_slice(&scratch[..n]))
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    async fn write_all(&self) -> &'static str {
        loop {
            let wanted = self.wants_writing.notified();
            let step = {
                let mut out = self.out.lock();
                if out.closed {
                    return "closed";
                }
                match self.write_some(&mut out) {
                    Ok(step) => step,
                    Err(_) => return "the peer is gone",
                }
            };
            match step {
                Step::Empty { closing: true } => return "closed by its owner",
                Step::Empty { closing: false } => wanted.await,
                Step::Blocked => match tokio::time::timeout(STALL, self.socket.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return "the peer is gone",
                    Err(_) => return "the peer stalled",
                },
            }
        }
    }

    fn write_some(&self, out: &mut Out) -> io::Result<Step> {
        while let Some(front) = out.waiting.front_mut() {
            match self.socket.try_write(front) {
                Ok(n) => {
                    front.advance(n);
                    out.bytes -= n;
                    if out.waiting.front().is_some_and(Bytes::is_empty) {
                        out.waiting.pop_front();
                    }
                    if out.bytes <= DRAIN_BYTES {
                        self.drained.notify_one();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
                Err(e) => return Err(e),
            }
        }
        Ok(Step::Empty { closing: out.closing })
    }
}

enum Step {
    /// All is written.
    Empty {
        /// And nothing more will be.
        closing: bool,
    },
    /// The socket takes no more now.
    Blocked,
}
