//! What is written to a child's standard input: a bounded queue and the driver that empties it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Bytes waiting for one child at most; more is refused until it has read some.
pub const INPUT_BYTES_MAX: usize = 4 << 20;

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Promised to commands that have not been carried out.
    reserved: usize,
    /// Nothing more will be written.
    closing: bool,
    /// The child reads no more.
    gone: bool,
}

/// A child's standard input.
#[derive(Debug, Default)]
pub struct Input {
    queue: Mutex<Queue>,
    /// Something to write, or to close.
    wanted: Notify,
}

/// Bytes promised to a write that is recorded and not carried out; dropping it gives them back.
#[derive(Debug)]
pub struct InputRoom {
    input: Arc<Input>,
    bytes: usize,
}

impl Drop for InputRoom {
    fn drop(&mut self) {
        self.input.queue.lock().reserved -= self.bytes;
    }
}

impl InputRoom {
    /// Writes, in the order of the calls. Bytes for a child that reads no more are dropped: its end is an event of its own.
    pub(super) fn fill(self, bytes: Bytes) {
        let mut queue = self.input.queue.lock();
        if queue.gone || queue.closing || bytes.is_empty() {
            return;
        }
        queue.bytes += bytes.len();
        queue.waiting.push_back(bytes);
        drop(queue);
        self.input.wanted.notify_one();
    }
}

impl Input {
    /// Room for that many bytes.
    ///
    /// # Errors
    /// How many are free, when those are too few.
    pub fn room(self: &Arc<Self>, bytes: usize) -> Result<InputRoom, usize> {
        let mut queue = self.queue.lock();
        let free = INPUT_BYTES_MAX.saturating_sub(queue.bytes + queue.reserved);
        if bytes > free {
            return Err(free);
        }
        queue.reserved += bytes;
        drop(queue);
        Ok(InputRoom {
            input: Arc::clone(self),
            bytes,
        })
    }

    /// Closes once everything is written.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.wanted.notify_one();
    }

    /// The child has ended: what waits is dropped.
    pub(super) fn end(&self) {
        let mut queue = self.queue.lock();
        queue.gone = true;
        queue.waiting.clear();
        queue.bytes = 0;
        drop(queue);
        self.wanted.notify_one();
    }

    fn front(&self) -> Next {
        let queue = self.queue.lock();
        match queue.waiting.front() {
            _ if queue.gone => Next::Over,
            Some(bytes) => Next::Write(bytes.clone()),
            None if queue.closing => Next::Over,
            None => Next::Wait,
        }
    }

    fn written(&self, count: usize) {
        let mut queue = self.queue.lock();
        let Some(front) = queue.waiting.front_mut() else { return };
        front.advance(count.min(front.len()));
        if front.is_empty() {
            queue.waiting.pop_front();
        }
        queue.bytes = queue.bytes.saturating_sub(count);
    }

    /// Moves bytes into the descriptor until it is closed, from whichever side.
    #[expect(
        deprecated,
        reason = "what it warns of is a descriptor that changes; this one is owned and does not"
    )]
    pub(super) async fn drive(self: Arc<Self>, descriptor: OwnedFd) {
        let descriptor = match AsyncFd::with_interest(descriptor, Interest::WRITABLE) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                tracing::warn!(%error, "a child's input cannot be written to");
                return self.end();
            }
        };
        loop {
            let wanted = self.wanted.notified();
            let bytes = match self.front() {
                Next::Over => return self.end(),
                Next::Wait => {
                    wanted.await;
                    continue;
                }
                Next::Write(bytes) => bytes,
            };
            let write = descriptor.async_io(Interest::WRITABLE, |fd| {
                rustix::io::write(fd, &bytes).map_err(io::Error::from)
            });
            tokio::select! {
                written = write => match written {
                    Ok(count) => self.written(count),
                    // It has closed its end: nothing that is written now would be read.
                    Err(_) => return self.end(),
                },
                // It may have ended while nobody reads the pipe.
                () = wanted => {}
            }
        }
    }
}

enum Next {
    Write(Bytes),
    Wait,
    Over,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn what_is_written_arrives_in_order_and_within_the_limit() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let input = Arc::new(Input::default());
        let half = vec![b'x'; INPUT_BYTES_MAX / 2];
        let first = input.room(half.len()).unwrap();
        let second = input.room(half.len()).unwrap();
        assert_eq!(input.room(1).unwrap_err(), 0);
        drop(second);
        first.fill(half.clone().into());
        input.room(3).unwrap().fill(Bytes::from_static(b"end"));
        input.close();
        let driver = tokio::spawn(Arc::clone(&input).drive(writer.into()));
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        driver.await.unwrap();
        let all = read.await.unwrap();
        assert_eq!((all.len(), &all[half.len()..]), (half.len() + 3, &b"end"[..]));
    }

    #[tokio::test]
    async fn a_child_that_reads_no_more_frees_the_queue() {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let input = Arc::new(Input::default());
        input
            .room(INPUT_BYTES_MAX)
            .unwrap()
            .fill(vec![0; INPUT_BYTES_MAX].into());
        let driver = tokio::spawn(Arc::clone(&input).drive(writer.into()));
        drop(reader);
        driver.await.unwrap();
        assert!(input.room(INPUT_BYTES_MAX).is_ok());
    }
}
