//! The new contents of a commit, as temporaries beside their places in the lower: with everything but their names.
//!
//! What replaces a file has its owner and its lists of who may do what (ACLs); what is new has, where the daemon is root, the owner of the
//! directory that it is put into. What the workspace says about owners and lists is not committed.

use std::ffi::OsStr;
use std::fs::File;

use rustix::fs::Mode;

use super::super::beneath::Beneath;
use super::super::layer::{self, Kind};
use super::super::reach;
use super::changes::fill;
use super::commit::{Done, SYNCED_ONE_BY_ONE_MAX, Work, bytes, failed};
use super::plan::{Step, What};
use super::{Layers, ReviewError, as_path, parted};

/// Bytes of holes in the files of a commit that are hashed, at most: a hole costs nothing on the disk, and time when it is read.
const HASHED_HOLES_MAX: u64 = 1 << 30;

/// Bytes that are hashed at once.
const CHUNK_BYTES: usize = 128 << 10;

impl Work<'_> {
    /// Makes every temporary, whole and on disk. Returns the hash of each step's file.
    pub(super) fn stage(&mut self, layers: &Layers) -> Result<(Done, Vec<Option<blake3::Hash>>), ReviewError> {
        self.open()?;
        let mut digest = blake3::Hasher::new();
        let mut hashes = Vec::with_capacity(self.steps.len());
        let (mut written, mut holes_left) = (0, HASHED_HOLES_MAX);
        let one_by_one = self.puts().count() <= SYNCED_ONE_BY_ONE_MAX;
        for (number, step) in self.steps.iter().enumerate() {
            let path = bytes(&step.path)?;
            let mut hash = None;
            if step.what == What::Put {
                self.fault.step()?;
                if let Some((file, length)) =
                    self.stage_one(&layers.upper, (step, &path), &self.head.temporary(number))?
                {
                    hash = hash_of(&file, &mut holes_left).map_err(ReviewError::io("read", &path))?;
                    if one_by_one {
                        file.sync_all().map_err(ReviewError::io("write", &path))?;
                    }
                    written += length;
                }
            }
            if step.what != What::Open {
                note(&mut digest, step, hash.as_ref());
            }
            hashes.push(hash);
        }
        if !one_by_one {
            // All of it is in one file system: where another is mounted, nothing is committed.
            rustix::fs::syncfs(self.lower).map_err(failed("write", b""))?;
        }
        let done = Done {
            bytes: written,
            digest: digest.finalize(),
        };
        Ok((done, hashes))
    }

    /// Makes a step's temporary under that name. Returns a file, and its length; of a link nothing.
    pub(super) fn stage_one(
        &self,
        upper: &Beneath,
        (step, path): (&Step, &[u8]),
        temporary: &str,
    ) -> Result<Option<(File, u64)>, ReviewError> {
        let (directory, name) = parted(path);
        let upper = reach::way(upper, directory, reach::READ).map_err(failed("open", directory))?;
        let beside = bytes(step.beside.as_deref().unwrap_or_default())?;
        let lower = self.lower.dir(as_path(&beside)).map_err(failed("open", &beside))?;
        let temporary = OsStr::new(temporary);
        let entry = layer::look(&upper, name).map_err(ReviewError::io("look at", path))?;
        if entry.is_some_and(|entry| entry.kind == Kind::Symlink) {
            layer::copy_symlink(&upper, name, &lower, temporary).map_err(ReviewError::io("stage", path))?;
            if let Some(owner) = step.owner {
                layer::give_link_to(&lower, temporary, owner);
            }
            return Ok(None);
        }
        let file = reach::file(&upper, name).map_err(ReviewError::io("open", path))?;
        let staged = layer::copy_file_with(&file, &lower, temporary, |to| self.dress(step, path, &file, to));
        Ok(Some(staged.map_err(ReviewError::io("stage", path))?))
    }

    /// Gives what is staged its attributes: the workspace's mode and time, and what else the lower's file has.
    fn dress(&self, step: &Step, path: &[u8], from: &File, to: &File) -> std::io::Result<()> {
        layer::copy_user_attributes(from, to)?;
        let mut mode = step.mode.unwrap_or(0o600);
        if let Some(owner) = step.owner {
            layer::give_to(to, owner)?;
            if layer::look_at(to)?.owner() != owner {
                // It would be somebody else that it makes of who runs it.
                mode &= 0o777;
            }
        }
        if self.head.force {
            mode |= step.bits;
        }
        let (directory, name) = parted(path);
        if step.before.is_some()
            && let Ok(directory) = self.lower.dir(as_path(directory))
            && layer::look(&directory, name)?.is_some_and(|entry| entry.kind == Kind::File)
        {
            // Of what we may not read we cannot ask for them.
            layer::copy_acls(layer::open_file(&directory, name)?, to)?;
        }
        rustix::fs::fchmod(to, Mode::from_raw_mode(mode))?;
        layer::set_mtime(to, layer::look_at(from)?.mtime_ns())
    }
}

/// The hash of a file; none of one that has more holes than may still be read.
fn hash_of(mut file: &File, holes_left: &mut u64) -> std::io::Result<Option<blake3::Hash>> {
    use std::io::Seek as _;
    let stat = layer::look_at(file)?.stat;
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    let holes = u64::try_from(stat.st_size).unwrap_or(0).saturating_sub(allocated);
    match holes_left.checked_sub(holes) {
        Some(left) => *holes_left = left,
        None => return Ok(None),
    }
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = fill(file, &mut chunk)?;
        hasher.update(&chunk[..length]);
        if length < CHUNK_BYTES {
            return Ok(Some(hasher.finalize()));
        }
    }
}

fn note(digest: &mut blake3::Hasher, step: &Step, hash: Option<&blake3::Hash>) {
    digest.update(&(step.path.len() as u64).to_le_bytes());
    digest.update(step.path.as_bytes());
    digest.update(&[match step.what {
        What::Put => 1,
        What::MakeDirectory => 2,
        What::SetMode => 3,
        What::Remove => 4,
        What::Open => 5,
    }]);
    digest.update(&step.mode.unwrap_or_default().to_le_bytes());
    if let Some(hash) = hash {
        digest.update(hash.as_bytes());
    }
}
