//! Following symbolic links, which the system never does here: name by name, inside the virtual root.
//!
//! A link leads on from the directory that it is in. `..` in it goes up one name of the way that was gone, and not above the root; an absolute
//! one leads out of the tree, whatever is there. What is found is a [`Place`]: names without links.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::error::{At as _, Fault, FsError};
use super::path::{Follow, NAMES_MAX, Place, VirtualPath};

/// Links that one path may lead through: as many as Linux follows. More lead in a circle, which is not in the tree either.
const LINKS_MAX: usize = 40;

/// What a directory has under a name.
pub(super) enum Step<D> {
    /// Nothing.
    Nothing,
    /// A directory, opened.
    Dir(D),
    /// A link, and where it says that it leads.
    Link(OsString),
    /// Anything else.
    Leaf,
}

/// A tree whose directories can be walked.
pub(super) trait Directories {
    /// A directory that is open.
    type Dir;

    fn root(&self) -> Result<Self::Dir, Fault>;
    fn step(&self, dir: &Self::Dir, name: &OsStr) -> Result<Step<Self::Dir>, Fault>;
}

/// The place that a path leads to. The last name need not be there.
pub(super) fn place<T: Directories>(tree: &T, path: &VirtualPath, follow: Follow) -> Result<Place, FsError> {
    walk(tree, path, follow).at(path).map(Place::new)
}

fn walk<T: Directories>(tree: &T, path: &VirtualPath, follow: Follow) -> Result<VirtualPath, Fault> {
    let mut way = vec![(OsString::new(), tree.root()?)];
    let mut ahead: Vec<OsString> = path.names().map(OsString::from).collect();
    ahead.reverse();
    let mut links = 0;
    let mut last = None;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            way.pop();
            if way.is_empty() {
                return Err(Fault::Escapes);
            }
            continue;
        }
        let Some((_, dir)) = way.last() else {
            return Err(Fault::Escapes);
        };
        match tree.step(dir, &name)? {
            Step::Dir(_) if way.len() > NAMES_MAX => {
                return Err(Fault::Invalid("it leads through more than 128 names"));
            }
            Step::Dir(below) => way.push((name, below)),
            Step::Link(target) if !ahead.is_empty() || follow == Follow::Yes => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Fault::Escapes);
                }
                if target.as_bytes().starts_with(b"/") {
                    return Err(Fault::Escapes);
                }
                let names = target.as_bytes().split(|byte| *byte == b'/').rev();
                let names = names.filter(|name| !matches!(name, [] | [b'.']));
                ahead.extend(names.map(|name| OsStr::from_bytes(name).to_owned()));
            }
            Step::Nothing if !ahead.is_empty() => return Err(Fault::NotFound),
            Step::Leaf if !ahead.is_empty() => return Err(Fault::NotADirectory),
            Step::Nothing | Step::Leaf | Step::Link(_) => last = Some(name),
        }
    }
    let way = way.iter().skip(1).map(|(name, _)| name.as_os_str());
    VirtualPath::of_names(path.scheme(), way.chain(last.as_deref()))
}

/// The directory that these names lead to, where none of them may be a link: they were followed before.
pub(super) fn directory<'n, T: Directories>(tree: &T, names: impl Iterator<Item = &'n str>) -> Result<T::Dir, Fault> {
    let mut dir = tree.root()?;
    for name in names {
        dir = match tree.step(&dir, OsStr::new(name))? {
            Step::Dir(below) => below,
            Step::Nothing => return Err(Fault::NotFound),
            Step::Link(_) => return Err(Fault::Changed),
            Step::Leaf => return Err(Fault::NotADirectory),
        };
    }
    Ok(dir)
}
