//! The thread that writes: takes what waits, chains it, signs the end, and waits for the disk once for all of it.
//!
//! A batch is written or not: when something fails the file is cut back to where it was, what was to be sealed is refused with the reason,
//! and what was only to be written waits. The next batch tries again, so a disk that is full heals when there is room.
//!
//! A seal covers the entries that were written with it and no others: what lies behind the last seal when a daemon starts is cut off.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::entry::{Entry, Hash, Kind, Place, Stage};
use super::head::{self, Head};
use super::key::Signer;
use super::key::publish;
use super::queue::{Order, Pending, Reason, Refused, Shared};
use super::segment::{self, HEADER_BYTES, Header, RecordKind, Seal};
use super::verify::State;
use super::{RESTORED, checkpoint, reserve};
use crate::home::{Durability, PRIVATE_FILE, replace_file};

/// How long what failed waits until it is tried again without anybody asking.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What is given back of the room that is kept is a multiple of this.
const PAGE_BYTES: u64 = 4096;

/// Bytes at most that are written with entries, beside them.
const SEAL_BYTES_MAX: u64 = 512;

/// Writes the log.
pub(super) struct Writer {
    pub(super) directory: PathBuf,
    pub(super) signer: Signer,
    pub(super) state: State,
    /// Bytes of a segment, roughly, when the next one is begun.
    pub(super) segment_bytes: u64,
    /// What is at the end must not be continued: the next record begins a segment of this number.
    pub(super) next_segment: Option<u64>,
    /// Something before is wrong: no checkpoint hides that from the next boot.
    damaged: bool,
    /// `head` is signed by the key that signs. Without that a checkpoint by it would disown the head.
    pub(super) told: bool,
    /// A segment that was begun in vain and could not be removed: nothing is written before it is gone.
    leftover: Option<PathBuf>,
    /// Room is kept; if not, when that is tried again.
    reserved: bool,
    reserve_after: Instant,
    /// Nothing is written yet, so what a restore left is not recorded yet.
    fresh: bool,
    /// The segment that is written.
    pub(super) file: Option<File>,
    /// Bytes may lie behind the end.
    pub(super) dirty: bool,
    pub(super) head: Option<File>,
    pub(super) shared: Arc<Shared>,
    buffer: Vec<u8>,
}

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Tells who waits which numbers these have, behind that one.
fn tell(written: Vec<Pending>, before: u64) {
    for (pending, sequence) in written.into_iter().zip(before + 1..) {
        if let Some(answer) = pending.answer {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(sequence));
        }
    }
}

impl Writer {
    pub(super) fn new(
        directory: PathBuf,
        signer: Signer,
        (state, next_segment, damaged): (State, Option<u64>, bool),
        segment_bytes: u64,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            directory,
            signer,
            state,
            segment_bytes,
            damaged,
            next_segment,
            told: true,
            leftover: None,
            reserved: false,
            reserve_after: Instant::now(),
            fresh: true,
            file: None,
            // What was torn when the last daemon ended is behind the end.
            dirty: true,
            head: None,
            shared,
            buffer: Vec::new(),
        }
    }

    /// Writes until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            let (batch, orders) = self.shared.take(TRY_AGAIN_AFTER);
            let any = !batch.is_empty();
            if any {
                self.write(batch);
            }
            for order in orders {
                match order {
                    // Everything before it was in the batch.
                    Order::Flush(done) => drop(done.send(self.shared.failing())),
                    Order::Prune(before_ms, done) => drop(done.send(self.prune(before_ms))),
                    Order::Rotate(seed, done) => drop(done.send(self.rotate(Signer::new(&seed)))),
                    Order::Stop(done) => {
                        self.last_try();
                        self.checkpoint();
                        self.shared.close();
                        // Whoever asked may have gone.
                        let _ = done.send(());
                        return;
                    }
                }
            }
            // Once nobody waits for it.
            if any && self.shared.failing().is_none() {
                self.reserve();
            }
        }
    }

    /// What waits because the disk takes nothing is tried once more, in the room that is kept for this.
    fn last_try(&mut self) {
        let left = self.shared.left();
        if !left.is_empty() {
            reserve::release(&self.directory);
            self.write(left);
        }
    }

    /// Keeps room, when there is none kept.
    pub(super) fn reserve(&mut self) {
        let now = Instant::now();
        if self.reserved || now < self.reserve_after {
            return;
        }
        self.reserve_after = now + TRY_AGAIN_AFTER;
        match reserve::make(&self.directory) {
            Ok(()) => self.reserved = true,
            Err(error) => tracing::debug!(%error, "no room is kept for the audit log"),
        }
    }

    /// Gives up what is kept. Whether there was anything.
    pub(super) fn release(&mut self) -> bool {
        (self.reserved, self.reserve_after) = (false, Instant::now());
        reserve::release(&self.directory)
    }

    /// Writes a batch, and tells everybody in it.
    fn write(&mut self, batch: Vec<Pending>) {
        let before = self.state.sequence;
        match self.append(&batch) {
            Ok(()) => {
                // First, as when it fails: who is told that it worked finds it working.
                self.shared.worked(self.state.sequence - before);
                if std::mem::take(&mut self.fresh) {
                    // It was the first of what was written.
                    let _ = fs::remove_file(self.directory.join(RESTORED));
                }
                tell(batch, before);
            }
            Err(error) => {
                let reason = Reason::of(&error);
                let (written, others) = self.in_kept_room(batch, &reason);
                let (refused, kept): (Vec<_>, Vec<_>) = others.into_iter().partition(|other| other.answer.is_some());
                // First: who is refused finds that it fails.
                self.shared.failed(reason.clone(), kept, refused.len() as u64);
                for answer in refused.into_iter().filter_map(|pending| pending.answer) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(Refused::Failing(reason.clone())));
                }
                tell(written, before);
            }
        }
    }

    /// What of a batch that could not be written is written all the same, since it makes room on a disk that is full; and the others.
    fn in_kept_room(&mut self, batch: Vec<Pending>, reason: &Reason) -> (Vec<Pending>, Vec<Pending>) {
        let makes_room = |pending: &Pending| pending.entry.makes_room;
        if *reason != Reason::Full || !batch.iter().any(makes_room) {
            return (Vec::new(), batch);
        }
        let (first, mut others): (Vec<_>, Vec<_>) = batch.into_iter().partition(makes_room);
        let mut written = Vec::new();
        for mut pending in first {
            if self.append_in_kept_room(std::slice::from_ref(&pending)) {
                self.shared.written(1);
                written.push(pending);
            } else {
                // It waits as the others do, and keeps nobody from what is left.
                pending.entry.makes_room = false;
                others.push(pending);
            }
        }
        (written, others)
    }

    /// Whether it is written: where there is a little room, or in what is kept, which is made again once there is room.
    fn append_in_kept_room(&mut self, pending: &[Pending]) -> bool {
        let bytes: usize = pending.iter().map(|pending| pending.entry.bytes_max()).sum();
        let pages = (bytes as u64 + SEAL_BYTES_MAX).div_ceil(PAGE_BYTES);
        // A segment may begin with it, or somebody be faster to take the room.
        for pages in [0, pages, pages + 4] {
            if pages > 0 {
                (self.reserved, self.reserve_after) = (false, Instant::now());
                if !reserve::spend(&self.directory, pages * PAGE_BYTES) {
                    return false;
                }
            }
            match self.append(pending) {
                Ok(()) => return true,
                Err(error) if Reason::of(&error) == Reason::Full => {}
                Err(_) => return false,
            }
        }
        false
    }

    /// Entries of the log's own, and nobody waits for them.
    pub(super) fn append_own(&mut self, batch: &[Pending]) -> Result<(), Refused> {
        match self.append(batch) {
            Ok(()) => {
                self.shared.worked(batch.len() as u64);
                Ok(())
            }
            Err(error) => {
                let reason = Reason::of(&error);
                self.shared.failed(reason.clone(), Vec::new(), batch.len() as u64);
                Err(Refused::Failing(reason))
            }
        }
    }

    /// Chains entries, seals them, and has them on disk. After an error the log is as it was.
    pub(super) fn append(&mut self, batch: &[Pending]) -> io::Result<()> {
        self.open()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let now_ms = wall_ms();
        let mut fresh: HashMap<&str, Hash, ahash::RandomState> = HashMap::default();
        buffer.extend_from_slice(&self.state.head);
        let mut head = self.state.head;
        for (pending, sequence) in batch.iter().zip(self.state.sequence + 1..) {
            let entry = &pending.entry;
            let known = fresh.get(&*entry.principal).copied();
            let link = known.unwrap_or_else(|| self.state.links.of(&entry.principal));
            let place = Place {
                sequence,
                wall_ms: pending.wall_ms,
            };
            head = segment::append(&mut buffer, RecordKind::Entry, |to| entry.encode(&place, &link, to));
            fresh.insert(&entry.principal, head);
        }
        let last = self.state.sequence + batch.len() as u64;
        // These and no others: what nobody signed is never covered by a later signature.
        let seal = Seal::new(&self.signer, &head, last, batch.len() as u64, now_ms);
        let sealed = segment::append(&mut buffer, RecordKind::Seal, |to| seal.encode(to));
        let written = self.put(&buffer[32..]);
        let length = (buffer.len() - 32) as u64;
        buffer.shrink_to(1 << 20);
        self.buffer = buffer;
        written?;
        for (principal, hash) in fresh {
            self.state.links.set(principal, &hash);
        }
        for (pending, sequence) in batch.iter().zip(self.state.sequence + 1..) {
            self.follow(&pending.entry, sequence);
        }
        self.state.sequence = last;
        self.state.head = sealed;
        self.state.offset += length;
        self.tell_head(&Head::new(self.signer.public(), head, seal));
        Ok(())
    }

    fn follow(&mut self, entry: &Entry, sequence: u64) {
        if entry.kind == Kind::Boot {
            self.state.boot = sequence;
        }
        match entry.stage {
            Stage::Event => {}
            Stage::Intent => {
                self.state.open.insert(sequence);
                if self.state.open.len() > super::verify::OPEN_INTENTS_MAX {
                    self.state.open.pop_first();
                }
            }
            Stage::Answers(intent) => drop(self.state.open.remove(&intent)),
        }
    }

    /// Bytes behind the end, on disk.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.dirty {
            file.set_len(self.state.offset)?;
        }
        self.dirty = true;
        let written = file
            .write_all_at(bytes, self.state.offset)
            .and_then(|()| file.sync_data());
        if let Err(error) = written {
            // If that fails too it is done before anything else is written.
            self.dirty = file.set_len(self.state.offset).is_err();
            return Err(error);
        }
        self.dirty = false;
        Ok(())
    }

    /// The segment to write to, begun if it must be.
    fn open(&mut self) -> io::Result<()> {
        if let Some(path) = &self.leftover {
            crate::home::remove_file(path)?;
            self.leftover = None;
        }
        self.still_there()?;
        if self.file.is_some() && self.state.offset >= self.segment_bytes {
            self.next_segment = Some(self.state.segment + 1);
        }
        if self.state.segment == 0 && self.next_segment.is_none() {
            self.next_segment = Some(1);
        }
        match self.next_segment {
            Some(number) => {
                self.begin(number)?;
                if number > 1 {
                    self.checkpoint();
                }
                Ok(())
            }
            None if self.file.is_none() => {
                let path = self.directory.join(segment::file_name(self.state.segment));
                self.file = Some(OpenOptions::new().write(true).open(path)?);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// That what is written to is still what is found under its name: a file that was removed takes everything, and keeps nothing.
    fn still_there(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let (open, named) = (
            file.metadata()?,
            fs::symlink_metadata(self.directory.join(segment::file_name(self.state.segment)))?,
        );
        if open.nlink() == 0 || (open.dev(), open.ino()) != (named.dev(), named.ino()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    /// Begins a segment. After an error there is none.
    pub(super) fn begin(&mut self, number: u64) -> io::Result<()> {
        self.make_head()?;
        let path = self.directory.join(segment::file_name(number));
        let header = Header {
            number,
            first: self.state.sequence + 1,
            wall_ms: wall_ms(),
            key: self.signer.public(),
            previous: self.state.head,
        };
        let bytes = header.encode(&self.signer);
        let file = match self.make_segment(&path, &bytes) {
            Ok(file) => file,
            Err(error) => {
                // Whole or not: the log goes on in the segment before it, and nothing may be behind that.
                let removed = crate::home::remove_file(&path);
                self.leftover = removed.is_err().then_some(path);
                return Err(error);
            }
        };
        let mut head = [0; 32];
        head.copy_from_slice(&bytes[HEADER_BYTES - 32..]);
        (self.state.segment, self.state.offset, self.state.head) = (number, HEADER_BYTES as u64, head);
        self.state.unsealed = 0;
        self.state.key = Some(header.key);
        (self.file, self.dirty, self.next_segment) = (Some(file), false, None);
        publish(&self.directory, &header.key);
        Ok(())
    }

    fn make_segment(&self, path: &Path, header: &[u8]) -> io::Result<File> {
        // One that is there is shorter than a header: the daemon ended, or the disk was full, when it was begun.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(PRIVATE_FILE)
            .open(path)?;
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        Ok(file)
    }

    /// A head from before the first segment on, so that one that is missing was taken away.
    fn make_head(&self) -> io::Result<()> {
        let path = self.directory.join(head::FILE);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == head::BYTES as u64) {
            return Ok(());
        }
        let seal = Seal::new(&self.signer, &self.state.head, self.state.sequence, 0, wall_ms());
        let head = Head::new(self.signer.public(), self.state.head, seal);
        replace_file(&path, &[&head.encode()], PRIVATE_FILE, Durability::Synced)
    }

    fn open_head(&self) -> io::Result<File> {
        self.make_head()?;
        OpenOptions::new().write(true).open(self.directory.join(head::FILE))
    }

    /// Says where the log ends. That it cannot be said is no reason not to go on.
    fn tell_head(&mut self, last: &Head) {
        let written = match &self.head {
            Some(file) => last.write(file),
            None => self.open_head().and_then(|file| {
                last.write(&file)?;
                file.sync_all()?;
                self.head = Some(file);
                Ok(())
            }),
        };
        self.told = written.is_ok();
        if let Err(error) = written {
            self.head = None;
            tracing::warn!(%error, "cannot write the head of the audit log");
        }
    }

    /// Leaves a checkpoint. Whether there is one of what is written now.
    pub(super) fn checkpoint(&self) -> bool {
        if self.damaged || !self.told || self.state.segment == 0 {
            return false;
        }
        let written = checkpoint::write(&self.directory, &self.state, &self.signer);
        if let Err(error) = &written {
            tracing::warn!(%error, "cannot write a checkpoint of the audit log: the next boot verifies more of it");
        }
        written.is_ok()
    }
}

impl Shared {
    /// Waits for something to do: entries, and what is wanted once those are written.
    fn take(&self, try_again_after: Duration) -> (Vec<Pending>, Vec<Order>) {
        let mut queue = self.queue.lock();
        loop {
            let (now, due) = (Instant::now(), queue.due(try_again_after));
            if queue.is_urgent() || due.is_some_and(|due| due <= now) {
                return queue.take(now);
            }
            match due {
                Some(due) => drop(self.wake.wait_until(&mut queue, due)),
                None => self.wake.wait(&mut queue),
            }
        }
    }
}
