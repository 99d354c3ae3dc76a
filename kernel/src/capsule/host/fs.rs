//! `astrid:kernel/fs`: files of the principal that a message is handled for.
//!
//! Each call is decided twice: on the path as it was said, so that who may not learns nothing, and on the place that it leads to. The second
//! decision is what the effect takes. What is quick is done where it is called; what may wait for the disk, or takes long, is done by a thread of
//! the runtime's pool, while other actors go on.
//!
//! Every change is in the audit log before it happens, with the hash of what is written where that is known then; an open file's when it is closed.

mod handles;
mod reach;
mod told;

use std::sync::Arc;

use astrid_wire::authority::Action;
use wasmtime::component::Resource;

pub(crate) use self::handles::Handles;
use self::handles::{Handle, Reading};
use self::reach::Extent;
use self::told::meta_in;
use super::bindings::astrid::kernel::fs::{Creation, Dir, Expected, File, FsError, Host, Meta, OpenOptions};
use crate::capsule::commands::Command;
use crate::capsule::files::Spending;
use crate::capsule::guest::Guest;
use crate::port::watch::{Places, WATCHES_PER_ACTOR_MAX, Watched};
use crate::vfs::beneath::{FileType, Moment};
use crate::vfs::error::Fault;
use crate::vfs::opened::{Access, OpenFile};
use crate::vfs::path::{Follow, Place, VirtualPath};
use crate::vfs::space::Room;
use crate::vfs::{Removal, Renaming, Tree};

/// Bytes of a file that is replaced, at most.
const WHOLE_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a file that is hashed, at most.
const HASHED_BYTES_MAX: u64 = 1 << 30;

/// Names below a directory that is removed or moved, at most.
const TREE_ENTRIES_MAX: u64 = 1_000_000;

/// Bytes that are hashed at once.
const HASH_CHUNK_BYTES: usize = 256 << 10;

/// Permission bits of a file, and of a directory, that nobody says anything about.
const NEW_FILE: u32 = 0o644;
const NEW_DIRECTORY: u32 = 0o755;

impl Guest {
    fn access(options: OpenOptions) -> Result<Access, FsError> {
        let wrong = |why: &str| Err(FsError::Invalid(why.to_owned()));
        if !options.read && !options.write {
            return wrong("options: neither read nor write");
        }
        if !options.write && (options.truncate || options.create != Creation::Never) {
            return wrong("options: create and truncate need write");
        }
        Ok(Access {
            read: options.read,
            write: options.write,
            append: false,
            truncate: options.truncate,
            create: options.create != Creation::Never,
            exclusive: options.create == Creation::MustBeNew,
            mode: NEW_FILE,
        })
    }

    async fn open_file(&mut self, path: &str, access: Access) -> Result<(Place, Arc<OpenFile>, Arc<Tree>), FsError> {
        self.handles.room()?;
        let mut place = None;
        for (wanted, action) in [(access.read, Action::FsRead), (access.write, Action::FsWrite)] {
            if wanted {
                place = Some(self.found(path, Follow::Yes, (action, Extent::One))?);
            }
        }
        let Some((place, reached)) = place else {
            return Err(FsError::Invalid("options: neither read nor write".to_owned()));
        };
        let at = place.object().clone();
        if access.read {
            self.count(Action::FsRead);
        }
        let tree = Arc::clone(&reached.tree);
        let file = if access.write {
            let open = move |tree: &Tree, place: &Place, spending: &mut Spending<'_>| {
                Ok(tree.open(place, &access, &mut spending.room)?)
            };
            self.change_elsewhere(("fs.open", "to be written"), place, &reached, open)
                .await?
        } else {
            tree.open(&place.into_object(), &access, &mut Room::of(0))?
        };
        Ok((at, Arc::new(file), tree))
    }
}

/// The hash of a file, if that is not larger than may be.
fn hash_of(file: &OpenFile) -> Result<blake3::Hash, FsError> {
    if file.len()? > HASHED_BYTES_MAX {
        return Err(FsError::TooLarge(HASHED_BYTES_MAX));
    }
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; HASH_CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut chunk, offset)?;
        hasher.update(&chunk[..read]);
        offset += read as u64;
        if read < chunk.len() {
            return Ok(hasher.finalize());
        }
        if offset > HASHED_BYTES_MAX {
            return Err(FsError::TooLarge(HASHED_BYTES_MAX));
        }
    }
}

/// Whether a link there leads to below the root, as far as its text says it: a link on its way may lead elsewhere, and is looked at when it is
/// followed.
fn stays_inside(link: &Place, target: &str) -> bool {
    let mut depth = link.path().names().count().saturating_sub(1);
    let inside = |part: &str| match part {
        "" | "." => true,
        ".." if depth == 0 => false,
        ".." => {
            depth -= 1;
            true
        }
        _ => {
            depth += 1;
            true
        }
    };
    !target.starts_with('/') && target.split('/').all(inside)
}

/// That what is there is what is expected.
fn check_expected(tree: &Tree, place: &Place, expected: &Expected) -> Result<(), FsError> {
    let present = || tree.open(place, &Access::reading(), &mut Room::of(0));
    match expected {
        Expected::Anything => Ok(()),
        Expected::Absent => match tree.stat(place) {
            Err(failed) if failed.fault == Fault::NotFound => Ok(()),
            Err(failed) => Err(failed.into()),
            Ok(_) => Err(FsError::Exists),
        },
        Expected::Content(wanted) => match present() {
            Ok(file) if hash_of(&file)?.to_hex().as_str() == wanted => Ok(()),
            Err(failed) if failed.fault != Fault::NotFound => Err(failed.into()),
            _ => Err(FsError::Changed),
        },
    }
}

impl Host for Guest {
    async fn open(&mut self, path: String, options: OpenOptions) -> Result<Resource<File>, FsError> {
        let access = Self::access(options)?;
        let (place, file, tree) = self.open_file(&path, access).await?;
        let number = self.handles.number();
        let handle = Handle {
            file,
            tree,
            place,
            read: access.read,
            write: access.write,
            written: None,
        };
        self.handles.files.insert(number, handle);
        Ok(Resource::new_own(number))
    }

    async fn open_dir(&mut self, path: String, after: Option<String>) -> Result<Resource<Dir>, FsError> {
        self.handles.room()?;
        let (place, reached) = self.found(&path, Follow::Yes, (Action::FsRead, Extent::Names))?;
        let place = place.into_object();
        if reached.tree.stat(&place)?.stat.kind != FileType::Directory {
            return Err(FsError::NotADirectory);
        }
        self.count(Action::FsRead);
        let number = self.handles.number();
        let reading = Reading {
            tree: reached.tree,
            place,
            after,
            done: false,
            passed_over: 0,
        };
        self.handles.dirs.insert(number, reading);
        Ok(Resource::new_own(number))
    }

    async fn stat(&mut self, path: String, follow: bool) -> Result<Meta, FsError> {
        let follow = if follow { Follow::Yes } else { Follow::No };
        // What is known of a directory may be known by who may read its names.
        let (place, reached) = self.found(&path, follow, (Action::FsRead, Extent::Names))?;
        self.count(Action::FsRead);
        Ok(meta_in(&reached.tree, &reached.tree.stat(&place.into_object())?))
    }

    async fn hash(&mut self, path: String) -> Result<String, FsError> {
        let (_, file, _) = self.open_file(&path, Access::reading()).await?;
        self.elsewhere(move || Ok(hash_of(&file)?.to_hex().to_string())).await
    }

    async fn replace(&mut self, path: String, bytes: Vec<u8>, expected: Expected) -> Result<String, FsError> {
        if bytes.len() as u64 > WHOLE_BYTES_MAX {
            return Err(FsError::TooLarge(WHOLE_BYTES_MAX));
        }
        if matches!(expected, Expected::Content(_)) {
            drop(self.found(&path, Follow::Yes, (Action::FsRead, Extent::One))?);
            self.count(Action::FsRead);
        }
        let (place, reached) = self.found(&path, Follow::Yes, (Action::FsWrite, Extent::One))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        let detail = format!("bytes={} blake3={hash}", bytes.len());
        let owned = Arc::clone(&reached.owned);
        let replace = move |tree: &Tree, place: &Place, spending: &mut Spending<'_>| {
            let _alone = owned.replace_alone();
            check_expected(tree, place, &expected)?;
            let mut replacing = tree.begin_replace(place, NEW_FILE)?;
            let room = &mut spending.room;
            let written = replacing.write(&bytes, room).and_then(|()| replacing.sync());
            let taken = replacing.allocated().unwrap_or(0);
            let done = written.and_then(|()| tree.publish(replacing, room));
            Ok(done.inspect_err(|_| room.gave_up(taken))?)
        };
        self.change_elsewhere(("fs.replace", &detail), place, &reached, replace)
            .await?;
        Ok(hash)
    }

    async fn make_dir(&mut self, path: String, parents: bool) -> Result<(), FsError> {
        if parents {
            return self.make_dirs(&path);
        }
        let (place, reached) = self.found(&path, Follow::No, (Action::FsWrite, Extent::One))?;
        self.change(("fs.make-dir", ""), place, &reached, |tree, place, spending| {
            tree.make_dir(place, NEW_DIRECTORY, &mut spending.room)
        })
    }

    async fn remove(&mut self, path: String, recursive: bool) -> Result<(), FsError> {
        let extent = if recursive { Extent::All } else { Extent::One };
        let (place, reached) = self.found(&path, Follow::No, (Action::FsWrite, extent))?;
        let removal = match (recursive, reached.tree.stat(place.object())?.stat.kind) {
            (true, _) => Removal::Tree {
                entries_max: TREE_ENTRIES_MAX,
            },
            (false, FileType::Directory) => Removal::Dir,
            (false, _) => Removal::File,
        };
        if !recursive {
            return self.change(("fs.remove", ""), place, &reached, |tree, place, spending| {
                tree.remove(place, removal, &mut spending.room)
            });
        }
        let remove = move |tree: &Tree, place: &Place, spending: &mut Spending<'_>| {
            Ok(tree.remove(place, removal, &mut spending.room)?)
        };
        self.change_elsewhere(("fs.remove", "recursive"), place, &reached, remove)
            .await
    }

    async fn rename(&mut self, source: String, target: String, overwrite: bool) -> Result<(), FsError> {
        let (from, reached) = self.found(&source, Follow::No, (Action::FsWrite, Extent::One))?;
        let extent = match reached.tree.stat(from.object())?.stat.kind {
            FileType::Directory => Extent::All,
            _ => Extent::One,
        };
        let (from, reached) = self.found(&source, Follow::No, (Action::FsWrite, extent))?;
        // Under its other name it may be readable: so it is asked whether it may be read under this one.
        drop(self.found(&source, Follow::No, (Action::FsRead, extent))?);
        let (to, other) = self.found(&target, Follow::No, (Action::FsWrite, extent))?;
        let to = to.into_object();
        if to.path().scheme() != from.object().path().scheme() {
            return Err(FsError::Unsupported(
                "rename: the two are in different roots; copy, and remove".to_owned(),
            ));
        }
        drop(other);
        let how = Renaming {
            replace: overwrite,
            bytes_max: u64::MAX,
            entries_max: TREE_ENTRIES_MAX,
        };
        let detail = format!("to {}", to.resource());
        let rename = move |tree: &Tree, from: &Place, spending: &mut Spending<'_>| {
            Ok(tree.rename(from, &to, &how, &mut spending.room)?)
        };
        self.change_elsewhere(("fs.rename", &detail), from, &reached, rename)
            .await
    }

    async fn read_link(&mut self, path: String) -> Result<String, FsError> {
        let (place, reached) = self.found(&path, Follow::No, (Action::FsRead, Extent::One))?;
        self.count(Action::FsRead);
        Ok(reached.tree.read_link(&place.into_object())?)
    }

    async fn make_link(&mut self, path: String, target: String) -> Result<(), FsError> {
        let (place, reached) = self.found(&path, Follow::No, (Action::FsWrite, Extent::One))?;
        if !stays_inside(place.object(), &target) {
            return Err(FsError::Escapes);
        }
        let detail = format!("to {target}");
        self.change(("fs.make-link", &detail), place, &reached, |tree, place, spending| {
            tree.make_link(place, &target, &mut spending.room)
        })
    }

    async fn set_modified(&mut self, path: String, modified_ms: i64) -> Result<(), FsError> {
        let (place, reached) = self.found(&path, Follow::Yes, (Action::FsWrite, Extent::One))?;
        let at = Moment {
            seconds: modified_ms.div_euclid(1000),
            nanoseconds: u32::try_from(modified_ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000,
        };
        let detail = format!("{modified_ms} ms");
        let set = move |tree: &Tree, place: &Place, spending: &mut Spending<'_>| {
            Ok(tree.set_modified(place, at, &mut spending.room)?)
        };
        self.change_elsewhere(("fs.set-modified", &detail), place, &reached, set)
            .await
    }

    async fn set_mode(&mut self, path: String, mode: u32) -> Result<(), FsError> {
        if mode > 0o777 {
            return Err(FsError::Invalid(format!("mode: 0o{mode:o} is more than 0o777")));
        }
        let (place, reached) = self.found(&path, Follow::Yes, (Action::FsWrite, Extent::One))?;
        let detail = format!("0o{mode:o}");
        let set = move |tree: &Tree, place: &Place, spending: &mut Spending<'_>| {
            Ok(tree.set_mode(place, mode, &mut spending.room)?)
        };
        self.change_elsewhere(("fs.set-mode", &detail), place, &reached, set)
            .await
    }

    async fn watch(&mut self, path: String) -> Result<u64, FsError> {
        let held = self.actor.watches().len() + self.commands.watches();
        if held >= WATCHES_PER_ACTOR_MAX || self.commands.room(0).is_err() {
            return Err(FsError::TooMany(
                u32::try_from(WATCHES_PER_ACTOR_MAX).unwrap_or(u32::MAX),
            ));
        }
        if self.actor.connection().is_some() {
            return Err(FsError::Unsupported(
                "watch: nothing of a connection outlives it".to_owned(),
            ));
        }
        let (place, reached) = self.found(&path, Follow::Yes, (Action::FsRead, Extent::Names))?;
        let directory = reached.tree.stat(place.object())?.stat.kind == FileType::Directory;
        let watched = Watched {
            path: place.object().path().to_string(),
            resource: (place.object().resource(), directory),
            of: self.principal.clone(),
        };
        let (at, files, principal) = (place.object().clone(), reached.files, self.principal.clone());
        // Found anew when the view moves.
        let places: Places = Box::new(move || {
            let tree = files
                .tree(&principal, at.path().scheme())
                .map_err(std::io::Error::other)?;
            tree.watched(&at).map_err(std::io::Error::other)
        });
        let watching = self.host().watches.watch(watched, places)?;
        let extent = if directory { Extent::Names } else { Extent::One };
        let path = place.into_object().path().clone();
        let watching = self.decide(Action::FsRead, &path, extent, watching)?;
        self.count(Action::FsRead);
        let id = self.host().bus.ids().port();
        self.commands.push(Command::Watch { watching, id }, 0);
        Ok(id)
    }

    async fn unwatch(&mut self, watch: u64) -> bool {
        let known = self.actor.watches().has(watch) || self.commands.begins_watch(watch);
        if !known || self.commands.room(0).is_err() {
            return false;
        }
        let watch = self.host().gate.own(self.subject(), watch);
        self.commands.push(Command::EndWatch(watch), 0);
        true
    }
}

impl Guest {
    /// Makes a directory and those above it that are missing.
    fn make_dirs(&mut self, path: &str) -> Result<(), FsError> {
        let (path, reached) = self.reach(path, Action::FsWrite, Extent::One)?;
        let mut way = VirtualPath::root(path.scheme());
        for name in path.names() {
            way = way.join(name)?;
            // Links on the way are followed, and where they lead is decided on as well.
            let place = reached.tree.resolve(&way, Follow::Yes)?;
            match reached.tree.stat(&place) {
                Ok(info) if info.stat.kind == FileType::Directory => continue,
                Ok(_) => return Err(FsError::NotADirectory),
                Err(failed) if failed.fault == Fault::NotFound => {}
                Err(failed) => return Err(failed.into()),
            }
            let to = place.path().clone();
            let place = self.decide(Action::FsWrite, &to, Extent::One, place)?;
            self.change(
                ("fs.make-dir", ""),
                place,
                &reached,
                |tree, place, spending| match tree.make_dir(place, NEW_DIRECTORY, &mut spending.room) {
                    Err(failed) if failed.fault == Fault::Exists => Ok(()),
                    done => done,
                },
            )?;
        }
        Ok(())
    }
}
