//! The thread that reads: one loop over what is ready, and what it was asked.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::event::epoll;
use rustix::io::Errno;
use tokio::sync::oneshot;

use super::file::{LogFile, Now};
use super::redact::Redactor;
use super::{Command, MESSAGE_BYTES_MAX, Shared, SinkCredit, Told};
use crate::metrics::Metrics;

/// Bytes of the buffer that all streams are read into; what a grown pipe holds is read in four.
const READ_BYTES_MAX: usize = 256 << 10;

/// Bytes of one stream in a round, so that a flood does not keep the others waiting.
const ROUND_BYTES_MAX: usize = 1 << 20;

/// Bytes of a read that is called full: what a pipe holds that was not grown.
const FULL_READ_BYTES: usize = 64 << 10;

/// Full reads in a row after which a pipe is grown.
const FULL_READS: u32 = 8;

/// What a pipe is grown to: what the system lets everybody have.
const PIPE_BYTES: usize = 1 << 20;

/// A shorter read has emptied the stream, most likely; then looking once more is left to the next round.
const READ_ON_BYTES: usize = 32 << 10;

/// Streams that are heard of at once.
const EVENTS_MAX: usize = 256;

/// Who may wait for one stream to settle.
const WAITERS_MAX: usize = 64;

/// What the wake-up is called among the sources, which are counted from 1.
const WAKE: u64 = 0;

/// One stream.
pub(super) struct Source {
    descriptor: OwnedFd,
    file: Option<Arc<Mutex<LogFile>>>,
    redactor: Option<Redactor>,
    messages: Option<Box<dyn Told>>,
    /// An owner has not given its credit back; it is not among what is waited for.
    withheld: bool,
    /// In a row. Counts no further once the pipe was grown.
    full_reads: u32,
    /// Who waits, and how many bytes were in the stream when that began, less those read since.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
}

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// There may be more.
    Ready,
    /// There is nothing now.
    Empty,
    /// There is nothing ever more.
    Ended,
}

impl Source {
    pub(super) fn new(
        descriptor: OwnedFd,
        file: Option<Arc<Mutex<LogFile>>>,
        redactor: Option<Redactor>,
        messages: Option<Box<dyn Told>>,
    ) -> Self {
        Self {
            descriptor,
            file,
            redactor,
            messages,
            withheld: false,
            full_reads: 0,
            waiters: Vec::new(),
        }
    }

    /// Counts a read, and gives a pipe more room whose reader is behind.
    fn count(&mut self, read: usize) {
        for (left, _) in &mut self.waiters {
            *left = left.saturating_sub(read as u64);
        }
        if self.full_reads < FULL_READS {
            self.full_reads = if read >= FULL_READ_BYTES {
                self.full_reads + 1
            } else {
                0
            };
            if self.full_reads == FULL_READS {
                // Refused for what is no pipe, and where a user has many grown ones: it works as it is.
                let _ = rustix::pipe::fcntl_setpipe_size(&self.descriptor, PIPE_BYTES);
            }
        }
    }

    fn write(&mut self, bytes: &[u8], clean: &mut Vec<u8>) {
        let Some(file) = &self.file else { return };
        match &mut self.redactor {
            None => file.lock().write(bytes, Now::read()),
            Some(redactor) => {
                clean.clear();
                redactor.push(bytes, clean);
                file.lock().write(clean, Now::read());
            }
        }
    }

    /// Lets go what was held back: nothing follows.
    fn finish(&mut self) {
        if let (Some(file), Some(redactor)) = (&self.file, &mut self.redactor) {
            let mut clean = Vec::new();
            redactor.finish(&mut clean);
            if !clean.is_empty() {
                file.lock().write(&clean, Now::read());
            }
        }
    }
}

/// What the thread holds.
pub(super) struct Reader {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    /// Read into; pages that nothing was read into take no memory.
    buffer: Vec<u8>,
    /// What a redactor let through; grows to the buffer's size at most.
    clean: Vec<u8>,
    metrics: Arc<Metrics>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &shared.wake,
            epoll::EventData::new_u64(WAKE),
            epoll::EventFlags::IN,
        )?;
        Ok(Self {
            shared,
            epoll,
            sources: HashMap::new(),
            buffer: vec![0; READ_BYTES_MAX],
            clean: Vec::new(),
            metrics,
        })
    }

    /// Until it is told to stop. Streams that are still read are let go of.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "output of children cannot be waited for");
                    break;
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        if !self.asked() {
                            return self.close();
                        }
                    }
                    id => self.pump(id),
                }
            }
        }
        self.close();
    }

    fn close(mut self) {
        for (_, mut source) in self.sources.drain() {
            source.finish();
        }
    }

    /// Does what was asked. False: stop.
    fn asked(&mut self) -> bool {
        let mut count = [0; 8];
        // There was one, or another round has taken it.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        let commands = std::mem::take(&mut *self.shared.commands.lock());
        for command in commands {
            match command {
                Command::Attach(id, source) => {
                    self.sources.insert(id, *source);
                    self.listen(id);
                }
                Command::ReadOn(id) => {
                    if let Some(source) = self.sources.get_mut(&id) {
                        source.withheld = false;
                        self.listen(id);
                    }
                }
                Command::Settle(id, answer) => self.settle(id, answer),
                Command::Detach(id, answer) => {
                    if let Some(mut source) = self.remove(id) {
                        source.finish();
                        // Who asked and went away has the descriptor closed.
                        let _ = answer.send(source.descriptor);
                    }
                }
                Command::End(id) => {
                    if let Some(mut source) = self.remove(id) {
                        source.finish();
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    /// Waits for a stream to be readable, or to end.
    fn listen(&mut self, id: u64) {
        let Some(source) = self.sources.get(&id) else { return };
        let added = epoll::add(
            &self.epoll,
            &source.descriptor,
            epoll::EventData::new_u64(id),
            epoll::EventFlags::IN,
        );
        if let Err(error) = added {
            tracing::error!(%error, "output of a child is not read");
            self.end(id);
        }
    }

    fn remove(&mut self, id: u64) -> Option<Source> {
        let source = self.sources.remove(&id)?;
        if !source.withheld {
            // It is there.
            let _ = epoll::delete(&self.epoll, &source.descriptor);
        }
        self.shared.sources.fetch_sub(1, Ordering::Relaxed);
        Some(source)
    }

    fn end(&mut self, id: u64) {
        if let Some(mut source) = self.remove(id) {
            source.finish();
            if let Some(messages) = &source.messages {
                messages.ended();
            }
        }
    }

    fn settle(&mut self, id: u64, answer: oneshot::Sender<()>) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let there = rustix::io::ioctl_fionread(&source.descriptor).unwrap_or(0);
        if source.waiters.len() < WAITERS_MAX && (there > 0 || !source.withheld) {
            // At least one, so that a stream which is empty by now is looked at, and its end is told first.
            source.waiters.push((there.max(1), answer));
            self.pump(id);
        }
    }

    /// Reads what a stream has, at most a round's share.
    fn pump(&mut self, id: u64) {
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        let mut share = ROUND_BYTES_MAX;
        while share > 0 && !source.withheld {
            match source.read(&mut self.buffer, &mut self.clean, &self.metrics, (&self.shared, id)) {
                (Outcome::Ready, read) => {
                    share = share.saturating_sub(read);
                    if read < READ_ON_BYTES && source.waiters.is_empty() {
                        break;
                    }
                }
                (Outcome::Empty, _) => {
                    source.waiters.clear();
                    break;
                }
                (Outcome::Ended, _) => return self.end(id),
            }
        }
        // Dropping the sender tells. Not before what was read is handed on, and what follows was looked at: it may be the end.
        source.waiters.retain(|(left, _)| *left > 0);
        if source.withheld {
            // It is there; an end would be reported again and again.
            let _ = epoll::delete(&self.epoll, &source.descriptor);
        }
    }
}

impl Source {
    /// Reads once, and hands on what came.
    fn read(
        &mut self,
        buffer: &mut [u8],
        clean: &mut Vec<u8>,
        metrics: &Metrics,
        (shared, id): (&Arc<Shared>, u64),
    ) -> (Outcome, usize) {
        let most = if self.messages.is_some() {
            MESSAGE_BYTES_MAX
        } else {
            buffer.len()
        };
        let read = match rustix::io::read(&self.descriptor, &mut buffer[..most]) {
            Ok(0) => return (Outcome::Ended, 0),
            Ok(read) => read,
            Err(Errno::AGAIN) => return (Outcome::Empty, 0),
            Err(Errno::INTR) => return (Outcome::Ready, 0),
            // A terminal that nobody has open any more says EIO.
            Err(_) => return (Outcome::Ended, 0),
        };
        let bytes = &buffer[..read];
        metrics.child_output.add(read as u64);
        self.write(bytes, clean);
        if let Some(messages) = &self.messages {
            self.withheld = true;
            let credit = SinkCredit {
                shared: Arc::clone(shared),
                source: id,
            };
            messages.output(Bytes::copy_from_slice(bytes), credit);
        }
        self.count(read);
        (Outcome::Ready, read)
    }
}
