//! What a program sees of its own and of the rest: mounts, a network and IPC, made for it in an order in which nothing takes away what comes
//! after it.

use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;

use super::confine::{Lacking, Network};
use super::launcher::not_kept;
use super::namespaces::{self, NamespaceError};
use super::own::{self, Given, Kept, Opened, OwnError};
use super::protocol::{Failure, Spec};

/// What was made of views of its own.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// What of the given is in its own `/tmp` and `/dev/shm`; none if it has none of its own.
    pub(super) own: Option<Vec<Opened>>,
}

/// Mounts, network and IPC of its own. `kept` is what of it is the daemon's, resolved.
pub(super) fn views(spec: &Spec, kept: &[PathBuf], lacking: &mut Lacking) -> Result<Views, Failure> {
    if spec.protect.is_none() {
        return Ok(Views::default());
    }
    let without = |lacking: &mut Lacking, errno: i32, message: &str, what: &str| {
        // To who is not confined this is more than was promised.
        let best_effort = spec.confined.as_ref().is_none_or(|confined| confined.best_effort);
        let hint = "`astrid doctor` says what this machine can do";
        lacking.without(best_effort, errno, format!("{what}: {message}; {hint}"))
    };
    let mut kinds = CloneFlags::CLONE_NEWNS;
    match &spec.confined {
        // It would be in a user namespace, where files of others seem to be nobody's: programs that look at that refuse them.
        None if !rustix::process::geteuid().is_root() => return Ok(Views::default()),
        None => {}
        Some(_) => kinds |= CloneFlags::CLONE_NEWIPC,
    }
    // First: to enter a user namespace needs files of /proc that may be read-only afterwards.
    if matches!(&spec.confined, Some(confined) if confined.network == Network::Loopback) {
        let network = namespaces::enter(CloneFlags::CLONE_NEWNET).and_then(|_| namespaces::loopback_up());
        network.or_else(|error| without(lacking, error.errno(), &error.to_string(), "a network of its own"))?;
    }
    let what = "mounts of its own, by which it has its own /tmp and leaves the modes of the daemon's files";
    let had_not =
        |lacking: &mut Lacking, error: NamespaceError| without(lacking, error.errno(), &error.to_string(), what);
    if let Err(error) = namespaces::enter(kinds).and_then(|_| namespaces::own_mounts()) {
        had_not(lacking, error)?;
        return Ok(Views::default());
    }
    let own = match own_places(spec, kept) {
        Ok(own) => own,
        Err(error) => match error.machine() {
            Some(errno) => without(lacking, errno, &error.to_string(), what).map(|()| None)?,
            // That is what was asked for, and not what this machine can.
            None => return Err(not_kept(error)),
        },
    };
    let views = Views { own };
    let narrowed = narrow(spec, &views).and_then(|()| {
        if rustix::process::geteuid().is_root() {
            namespaces::read_only_settings()?;
        }
        let seen = views.seen(kept);
        let seen: Vec<&Path> = seen.iter().map(PathBuf::as_path).collect();
        namespaces::read_only_around(&seen, spec.given.as_deref())
    });
    narrowed.or_else(|error| had_not(lacking, error))?;
    Ok(views)
}

impl Views {
    /// Whether a path leads to what only this program has.
    pub(super) fn hides(&self, path: &Path) -> bool {
        self.own.is_some() && own::PLACES.iter().any(|own| path.starts_with(own))
    }

    /// What of the daemon's is not hidden by that; also where another path leads to one of these places.
    pub(super) fn seen(&self, kept: &[PathBuf]) -> Vec<PathBuf> {
        let seen = kept.iter().filter(|path| !self.hides(path) && path.exists());
        seen.cloned().collect()
    }
}

/// Its own `/tmp` and `/dev/shm`, if it is to have them.
fn own_places(spec: &Spec, kept: &[PathBuf]) -> Result<Option<Vec<Opened>>, OwnError> {
    let Some(confined) = &spec.confined else {
        return Ok(None);
    };
    let Some(tmp) = &confined.tmp else { return Ok(None) };
    let lists = confined.read.iter().chain(&confined.write).flatten();
    let writes = |path: &Path| match &confined.write {
        Some(paths) => paths.iter().any(|given| path.starts_with(given)),
        None => true,
    };
    let given = lists.chain([&spec.cwd, &spec.program]).map(|path| Given {
        path,
        writable: writes(path),
    });
    let given: Vec<Given<'_>> = given.collect();
    let shared = [spec.limits.memory_bytes, spec.limits.tree_memory_bytes];
    let kept = Kept {
        directories: kept,
        but: spec.given.as_deref(),
    };
    own::own(tmp, shared.into_iter().flatten().min(), &given, &kept).map(Some)
}

/// Where it does not write, it changes no modes either, which Landlock does not know.
fn narrow(spec: &Spec, views: &Views) -> Result<(), NamespaceError> {
    let Some(confined) = &spec.confined else { return Ok(()) };
    let Some(write) = &confined.write else { return Ok(()) };
    let own = own::PLACES.iter().map(Path::new).filter(|_| views.own.is_some());
    let write = write.iter().map(PathBuf::as_path).filter(|path| !views.hides(path));
    let kept: Vec<&Path> = write.chain(own).collect();
    namespaces::read_only_but(&kept)
}
