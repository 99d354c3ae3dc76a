//! What is open while one message is handled.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::Resource;

use super::super::bindings::astrid::kernel::fs::{Dir, Entry, File, FsError, HostDir, HostFile, Meta};
use super::told::{meta, meta_in};
use crate::capsule::guest::Guest;
use crate::vfs::Tree;
use crate::vfs::error::Fault;
use crate::vfs::opened::OpenFile;
use crate::vfs::path::Place;

/// Files and directories that are open in one handling, at most.
const HANDLES_MAX: u32 = 64;

/// Bytes of one read or write by offset, at most.
const PART_BYTES_MAX: u32 = 1 << 20;

/// Names that are given at once, at most.
const NAMES_MAX: u32 = 1000;

/// Bytes that are read or written where they are asked for, at most: copying them takes less than going to another thread and back.
const QUICK_BYTES_MAX: usize = 64 << 10;

/// What is open in one handling.
#[derive(Debug, Default)]
pub struct Handles {
    /// Numbers are not given twice: what an earlier handling opened names nothing.
    last: u32,
    pub(super) files: HashMap<u32, Handle>,
    pub(super) dirs: HashMap<u32, Reading>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) file: Arc<OpenFile>,
    pub(super) tree: Arc<Tree>,
    pub(super) place: Place,
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) written: Option<Written>,
}

/// What was written to an open file: the hash of each write's place, length and bytes, in order.
#[derive(Debug, Default)]
pub(super) struct Written {
    hasher: blake3::Hasher,
    writes: u64,
    bytes: u64,
}

impl Written {
    fn note(&mut self, offset: u64, bytes: &[u8]) {
        self.hasher.update(&offset.to_le_bytes());
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
        self.writes += 1;
        self.bytes += bytes.len() as u64;
    }
}

/// A directory that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) tree: Arc<Tree>,
    pub(super) place: Place,
    pub(super) after: Option<String>,
    pub(super) done: bool,
    pub(super) passed_over: u64,
}

impl Handles {
    pub(super) fn room(&self) -> Result<(), FsError> {
        if self.files.len() + self.dirs.len() >= HANDLES_MAX as usize {
            return Err(FsError::TooMany(HANDLES_MAX));
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }
}

impl Guest {
    /// Closes what this handling opened, and records what was written.
    pub fn close_files(&mut self) {
        let handles = std::mem::take(&mut self.handles.files);
        self.handles.dirs.clear();
        handles.values().for_each(|handle| self.record_written(handle));
    }

    fn record_written(&self, handle: &Handle) {
        if let Some(written) = &handle.written {
            let (bytes, hash) = (written.bytes, written.hasher.finalize().to_hex());
            let detail = format!("writes={} bytes={bytes} blake3-of-writes={hash}", written.writes);
            // That it was opened to be written is in the log already.
            drop(
                self.host()
                    .audit
                    .write(self.entry("fs.written", &handle.place).detail(&detail)),
            );
        }
    }

    fn handle(&self, file: &Resource<File>) -> Result<&Handle, FsError> {
        self.handles.files.get(&file.rep()).ok_or(FsError::Closed)
    }
}

impl HostFile for Guest {
    async fn read(&mut self, this: Resource<File>, offset: u64, length: u32) -> Result<Vec<u8>, FsError> {
        let handle = self.handle(&this)?;
        if !handle.read {
            return Err(FsError::Denied("it was not opened to be read".to_owned()));
        }
        if length > PART_BYTES_MAX {
            return Err(FsError::TooLarge(PART_BYTES_MAX.into()));
        }
        let file = Arc::clone(&handle.file);
        let left = file.len()?.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length as usize);
        let read = move || {
            let mut bytes = vec![0; length];
            let read = file.read_at(&mut bytes, offset)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        if length <= QUICK_BYTES_MAX {
            return read();
        }
        self.elsewhere(read).await
    }

    async fn write(&mut self, this: Resource<File>, offset: u64, bytes: Vec<u8>) -> Result<(), FsError> {
        if bytes.len() > PART_BYTES_MAX as usize {
            return Err(FsError::TooLarge(PART_BYTES_MAX.into()));
        }
        let handle = self.handle(&this)?;
        if !handle.write {
            return Err(FsError::Denied("it was not opened to be written".to_owned()));
        }
        let (file, tree) = (Arc::clone(&handle.file), Arc::clone(&handle.tree));
        let reached = self.reached(tree);
        let quick = bytes.len() <= QUICK_BYTES_MAX;
        if let Some(handle) = self.handles.files.get_mut(&this.rep()) {
            handle.written.get_or_insert_default().note(offset, &bytes);
        }
        let write = move || Ok(file.write_at(&bytes, offset, &mut reached.spend()?.room)?);
        let done = if quick { write() } else { self.elsewhere(write).await };
        done.inspect_err(|failed| self.over_storage(failed))
    }

    async fn stat(&mut self, this: Resource<File>) -> Result<Meta, FsError> {
        let handle = self.handle(&this)?;
        let stat = handle.file.stat()?;
        // What is open to be written is in the layer that is written.
        let changed = handle.tree.has_layers() && (handle.write || handle.tree.stat(&handle.place)?.written);
        Ok(meta(&stat, changed))
    }

    async fn set_length(&mut self, this: Resource<File>, length: u64) -> Result<(), FsError> {
        let handle = self.handle(&this)?;
        if !handle.write {
            return Err(FsError::Denied("it was not opened to be written".to_owned()));
        }
        let (file, tree) = (Arc::clone(&handle.file), Arc::clone(&handle.tree));
        if let Some(handle) = self.handles.files.get_mut(&this.rep()) {
            handle.written.get_or_insert_default().note(length, &[]);
        }
        let reached = self.reached(tree);
        let cut = move || Ok(file.set_len(length, &mut reached.spend()?.room)?);
        self.elsewhere(cut).await
    }

    async fn sync(&mut self, this: Resource<File>) -> Result<(), FsError> {
        let file = Arc::clone(&self.handle(&this)?.file);
        self.elsewhere(move || Ok(file.sync()?)).await
    }

    async fn drop(&mut self, this: Resource<File>) -> wasmtime::Result<()> {
        if let Some(handle) = self.handles.files.remove(&this.rep()) {
            self.record_written(&handle);
        }
        Ok(())
    }
}

impl HostDir for Guest {
    async fn next(&mut self, this: Resource<Dir>, max: u32) -> Result<Vec<Entry>, FsError> {
        if !(1..=NAMES_MAX).contains(&max) {
            return Err(FsError::Invalid(format!("max is {max}, which is not 1 to {NAMES_MAX}")));
        }
        let reading = self.handles.dirs.get(&this.rep()).ok_or(FsError::Closed)?;
        if reading.done {
            return Ok(Vec::new());
        }
        let (tree, place, after) = (Arc::clone(&reading.tree), reading.place.clone(), reading.after.clone());
        let (entries, more, passed_over) = self
            .elsewhere(move || {
                let page = tree.list(&place, after.as_deref(), max as usize)?;
                let mut entries = Vec::with_capacity(page.entries.len());
                for listed in &page.entries {
                    match tree.stat(&tree.child(&place, &listed.name)?) {
                        Ok(info) => entries.push(Entry {
                            name: listed.name.clone(),
                            meta: meta_in(&tree, &info),
                        }),
                        // It went after its name was read.
                        Err(failed) if failed.fault == Fault::NotFound => {}
                        Err(failed) => return Err(failed.into()),
                    }
                }
                let last = page.entries.last().map(|listed| listed.name.clone());
                Ok((entries, page.more.then_some(last).flatten(), page.unnamed))
            })
            .await?;
        if let Some(reading) = self.handles.dirs.get_mut(&this.rep()) {
            (reading.done, reading.passed_over) = (more.is_none(), passed_over);
            reading.after = more.or(reading.after.take());
        }
        Ok(entries)
    }

    async fn passed_over(&mut self, this: Resource<Dir>) -> u64 {
        self.handles
            .dirs
            .get(&this.rep())
            .map_or(0, |reading| reading.passed_over)
    }

    async fn drop(&mut self, this: Resource<Dir>) -> wasmtime::Result<()> {
        self.handles.dirs.remove(&this.rep());
        Ok(())
    }
}
