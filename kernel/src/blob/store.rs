//! [`Blobs`]: what is kept, who has it, and what is being written.
//!
//! Two locks. Who changes names on disk holds `changing`, also while the disk takes its time; `state` is held only to look and to note, so that
//! whoever asks what is there waits for no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use astrid_wire::Principal;

use super::disk::{self, Disk};
use super::error::BlobError;
use super::held::Held;
use super::object::{PARTS_SUFFIX, Place};
use super::parts::{Address, HASH_BYTES, part_count};
use super::pin::Pin;
use super::upload::{About, Progress, Upload, UploadId};

/// How much is kept (A8). An operator says it in `[blobs]` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobLimits {
    /// Bytes of one blob.
    pub blob_bytes_max: u64,
    /// Bytes of all, and of all uploads as they were announced.
    pub total_bytes_max: u64,
    /// Blobs, for each principal that has one, and uploads: each is a row in memory, and a file in a backup.
    pub count_max: usize,
    /// Uploads that a principal has open.
    pub uploads_max: usize,
    /// How long an upload is kept that is not finished, in milliseconds. Looked at when the daemon starts.
    pub upload_age_ms_max: u64,
}

/// A blob, as it was found.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) size: u64,
    pub(super) holders: BTreeSet<Principal>,
    /// What is wrong with it, if that was noticed.
    pub(super) wrong: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) kept: BTreeMap<Address, Kept>,
    pub(super) uploads: BTreeMap<UploadId, (Principal, u64, Arc<Mutex<Upload>>)>,
    /// The last identity that was given.
    last_upload: u64,
    /// What a backup needs, while one is made.
    pub(super) pin: Option<Pin>,
}

impl State {
    /// Bytes on the disk, and announced.
    fn total(&self) -> u64 {
        let kept: u64 = self.kept.values().map(|kept| kept.size).sum();
        let coming: u64 = self.uploads.values().map(|(_, size, _)| size).sum();
        let leaving = self.pin.as_ref().map_or(0, Pin::leaving_bytes);
        kept + coming + leaving
    }

    /// Rows: references, and uploads.
    fn count(&self) -> usize {
        let kept: usize = self.kept.values().map(|kept| kept.holders.len()).sum();
        kept + self.uploads.len() + self.pin.as_ref().map_or(0, Pin::given_up)
    }
}

/// The content store of a home. One of it at a time.
///
/// What is read and written is done on the caller's thread. Reading waits for nobody, writing for what is written to the same upload, and what makes
/// or removes names for each other.
#[derive(Debug)]
pub struct Blobs {
    pub(super) root: PathBuf,
    pub(super) limits: BlobLimits,
    pub(super) disk: Disk,
    /// Held by who changes what is there. Taken before `state`, and after an upload's own lock.
    pub(super) changing: Mutex<()>,
    /// Never held while the disk is waited for.
    pub(super) state: Mutex<State>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opening.
impl Blobs {
    /// Opens the store in that directory, which is made if it is not there; removes what crashes and uploads of long ago have left.
    ///
    /// # Errors
    /// The disk refused.
    pub fn open(root: PathBuf, limits: BlobLimits, now_ms: u64) -> Result<Self, BlobError> {
        let blobs = Self {
            root,
            limits,
            disk: Disk::default(),
            changing: Mutex::default(),
            state: Mutex::default(),
        };
        let opened = blobs.load(now_ms);
        opened.map_err(BlobError::file("opening the content store"))?;
        Ok(blobs)
    }

    fn load(&self, now_ms: u64) -> io::Result<()> {
        for directory in [self.objects(), self.references(), self.uploads()] {
            self.disk.make_dirs(&directory)?;
        }
        let mut state = State::default();
        for (directory, _) in disk::names(&self.objects())? {
            self.load_objects(&self.objects().join(directory), &mut state)?;
        }
        for (name, _) in disk::names(&self.references())? {
            let directory = self.references().join(&name);
            let Ok(principal) = Principal::stamped(&name) else {
                continue;
            };
            for (address, _) in disk::names(&directory)? {
                let kept = address
                    .parse()
                    .ok()
                    .and_then(|address: Address| state.kept.get_mut(&address));
                match kept {
                    Some(kept) => _ = kept.holders.insert(principal.clone()),
                    None => self.disk.remove(&directory.join(&address))?,
                }
            }
        }
        let nobodys: Vec<Address> = state
            .kept
            .iter()
            .filter(|(_, kept)| kept.holders.is_empty())
            .map(|(a, _)| *a)
            .collect();
        for address in nobodys {
            self.remove_object(address)?;
            state.kept.remove(&address);
        }
        for (name, _) in disk::names(&self.uploads())? {
            let directory = self.uploads().join(&name);
            let resumed = match name.parse::<UploadId>() {
                Ok(id) => Upload::resume(&self.disk, &directory, (now_ms, self.limits.upload_age_ms_max))
                    .ok()
                    .flatten()
                    .map(|upload| (id, upload)),
                Err(()) => None,
            };
            match resumed {
                Some((id, upload)) => {
                    state.last_upload = state.last_upload.max(id.0);
                    let (principal, size) = (upload.about.principal.clone(), upload.about.size);
                    state
                        .uploads
                        .insert(id, (principal, size, Arc::new(Mutex::new(upload))));
                }
                None => self.disk.remove_dir(&directory)?,
            }
        }
        *locked(&self.state) = state;
        Ok(())
    }

    /// The blobs of one directory; a list of parts without its blob is left over.
    fn load_objects(&self, directory: &Path, state: &mut State) -> io::Result<()> {
        let names = disk::names(directory)?;
        for (name, _) in &names {
            let path = directory.join(name);
            let address = name.strip_suffix(PARTS_SUFFIX).unwrap_or(name).parse::<Address>();
            let Ok(address) = address.map_err(drop) else {
                continue;
            };
            if *name != address.to_string() {
                let whole = names.iter().any(|(other, _)| *other == address.to_string());
                if !whole {
                    self.disk.remove(&path)?;
                }
                continue;
            }
            let size = disk::reading(&path)?.metadata()?.len();
            let kept = Kept {
                size,
                ..Kept::default()
            };
            state.kept.insert(address, kept);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(super) fn references(&self) -> PathBuf {
        self.root.join("references")
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn remove_object(&self, address: Address) -> io::Result<()> {
        let place = Place::of(&self.objects(), address);
        self.disk.remove(&place.object)?;
        self.disk.remove(&place.parts)
    }
}

/// Writing.
impl Blobs {
    /// Announces a blob of that size, and its address if that is known. `room`: bytes that the principal may still keep. The identity is good
    /// until it is finished or given up, over starts of the daemon, for a day.
    ///
    /// # Errors
    /// Too large, no space, too many blobs or uploads, or the disk refused.
    pub fn begin(
        &self,
        principal: &Principal,
        size: u64,
        expected: Option<Address>,
        room: u64,
        now_ms: u64,
    ) -> Result<UploadId, BlobError> {
        let _changing = locked(&self.changing);
        let id = self.admit(principal, size, room, now_ms)?;
        let about = About {
            principal: principal.clone(),
            size,
            expected,
            begun_ms: now_ms,
        };
        let directory = self.uploads().join(id.to_string());
        let upload = Upload::begin(&self.disk, directory, about)
            .map_err(|error| super::upload::wrote(error, "beginning an upload"))?;
        let row = (principal.clone(), size, Arc::new(Mutex::new(upload)));
        locked(&self.state).uploads.insert(id, row);
        Ok(id)
    }

    /// Whether there is room for an upload, and its identity.
    fn admit(&self, principal: &Principal, size: u64, room: u64, now_ms: u64) -> Result<UploadId, BlobError> {
        let limits = &self.limits;
        if size > limits.blob_bytes_max {
            return Err(BlobError::TooLarge(limits.blob_bytes_max));
        }
        let mut state = locked(&self.state);
        let free = limits.total_bytes_max.saturating_sub(state.total());
        for (free, whose) in [(room, format!("for {principal}")), (free, "in the store".to_owned())] {
            if size > free {
                return Err(BlobError::NoSpace { free, whose });
            }
        }
        if state.count() >= limits.count_max {
            return Err(BlobError::Full(limits.count_max));
        }
        let open = state.uploads.values().filter(|(whose, ..)| whose == principal).count();
        if open >= limits.uploads_max {
            return Err(BlobError::TooMany(
                u32::try_from(limits.uploads_max).unwrap_or(u32::MAX),
            ));
        }
        // By the clock, so that an identity of an upload that is over does not come back, with another daemon neither.
        state.last_upload = (now_ms << 16).max(state.last_upload + 1);
        Ok(UploadId(state.last_upload))
    }

    fn upload(&self, principal: &Principal, id: UploadId) -> Result<Arc<Mutex<Upload>>, BlobError> {
        let state = locked(&self.state);
        match state.uploads.get(&id) {
            Some((whose, _, upload)) if whose == principal => Ok(Arc::clone(upload)),
            _ => Err(BlobError::NoUpload),
        }
    }

    /// How far an upload is: where to go on after a crash, or a connection that broke.
    ///
    /// # Errors
    /// [`BlobError::NoUpload`].
    pub fn progress(&self, principal: &Principal, id: UploadId) -> Result<Progress, BlobError> {
        let upload = self.upload(principal, id)?;
        let progress = locked(&upload).progress();
        Ok(progress)
    }

    /// Writes at most [`PART_BYTES`](super::PART_BYTES) where the last ones ended. Returns the next offset.
    ///
    /// # Errors
    /// [`BlobError::WrongOffset`] with the right one, more than was announced, or the disk refused; the upload is as it was.
    pub fn append(&self, principal: &Principal, id: UploadId, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        let upload = self.upload(principal, id)?;
        let mut upload = locked(&upload);
        if upload.over {
            return Err(BlobError::NoUpload);
        }
        upload.append(&self.disk, offset, bytes)
    }

    /// Makes a blob of an upload, which the principal then has. It is on disk when this returns. `record` is called before that, when the address is
    /// known, and may refuse.
    ///
    /// # Errors
    /// Incomplete, or the disk or `record` refused: the upload is as it was, and can be finished later. Not what was expected: the upload is over.
    pub fn finish(
        &self,
        principal: &Principal,
        id: UploadId,
        record: impl FnOnce(Held) -> Result<(), String>,
    ) -> Result<Held, BlobError> {
        let shared = self.upload(principal, id)?;
        let mut upload = locked(&shared);
        if upload.over {
            return Err(BlobError::NoUpload);
        }
        let address = upload.complete(&self.disk)?;
        if let Some(expected) = upload.about.expected
            && expected != address
        {
            self.end(id, &mut upload)?;
            return Err(BlobError::Mismatch { is: address, expected });
        }
        let held = Held {
            address,
            size: upload.about.size,
        };
        record(held).map_err(BlobError::Unrecorded)?;
        let failed = |error| super::upload::wrote(error, "keeping a blob");
        // Others wait while the names are changed: a blob that its last holder gives up meanwhile is not lost for this one.
        let changing = locked(&self.changing);
        self.refer(principal, address).map_err(failed)?;
        let is_whole = |kept: &Kept| kept.wrong.is_none();
        let kept = locked(&self.state).kept.get(&address).is_some_and(is_whole);
        if !kept {
            self.place(&upload, held).map_err(failed)?;
        }
        let mut state = locked(&self.state);
        let kept = state.kept.entry(address).or_default();
        (kept.size, kept.wrong) = (held.size, None);
        kept.holders.insert(principal.clone());
        drop(state);
        drop(changing);
        // The blob is there: what is left of the upload is rubbish, of which the next start disposes if this cannot.
        _ = self.end(id, &mut upload);
        Ok(held)
    }

    /// Puts what was written into its place.
    fn place(&self, upload: &Upload, Held { address, size }: Held) -> io::Result<()> {
        let place = Place::of(&self.objects(), address);
        self.disk.make_dirs(&place.directory)?;
        self.disk.sync_dir(&self.objects())?;
        // The list first: a blob without it would be corrupted.
        if part_count(size) > 0 {
            self.copy_list(upload, &place, size)?;
        }
        self.disk.rename(&upload.data_path(), &place.object)?;
        self.disk.sync_dir(&place.directory)
    }

    /// The list is copied and not moved, so that an upload that is interrupted after this can be finished.
    fn copy_list(&self, upload: &Upload, place: &Place, size: u64) -> io::Result<()> {
        let bytes_max = usize::try_from(part_count(size)).unwrap_or(usize::MAX) * HASH_BYTES;
        let list = disk::small(&upload.list_path(), bytes_max)?;
        let temporary = upload.directory.join("parts.copy");
        self.disk.put(&temporary, &list)?;
        self.disk.rename(&temporary, &place.parts)
    }

    /// Writes down that a principal has a blob.
    pub(super) fn refer(&self, principal: &Principal, address: Address) -> io::Result<()> {
        let directory = self.references().join(principal.as_str());
        self.disk.make_dirs(&directory)?;
        self.disk.sync_dir(&self.references())?;
        self.disk.put(&directory.join(address.to_string()), b"")?;
        self.disk.sync_dir(&directory)
    }

    fn end(&self, id: UploadId, upload: &mut Upload) -> Result<(), BlobError> {
        upload.over = true;
        locked(&self.state).uploads.remove(&id);
        let removed = self.disk.remove_dir(&upload.directory);
        removed.map_err(BlobError::file("removing an upload"))
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// There is none, or the disk refused: then the next start removes it.
    pub fn abort(&self, principal: &Principal, id: UploadId) -> Result<(), BlobError> {
        let upload = self.upload(principal, id)?;
        let mut upload = locked(&upload);
        self.end(id, &mut upload)
    }
}
