//! Which names a walk passes over: the globs of a request, and `.gitignore` files on the way, as git reads them.
//!
//! Deliberately absent: `.git/info/exclude`, ignore files of the user, and of other programs.

use astrid_sdk::fs::Fs;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::overrides::{Override, OverrideBuilder};

use crate::error::FilesError;
use crate::{limits, path};

/// The directory of git's own files, never walked through unless ignored files are.
const GIT: &str = ".git";

/// Globs of a request, as `rg -g` and a line of `.gitignore` have them: without a slash they match a name at any depth; those that begin
/// with `!` exclude.
///
/// # Errors
/// One cannot be understood, or there are too many.
pub(crate) fn globs(globs: &[String]) -> Result<Override, FilesError> {
    if globs.len() > limits::GLOBS {
        let (count, limit) = (globs.len(), limits::GLOBS);
        return Err(FilesError::Invalid(format!(
            "glob: {count} of them; at most {limit} are matched"
        )));
    }
    let mut builder = OverrideBuilder::new("");
    for (index, glob) in globs.iter().enumerate() {
        if glob.is_empty() || glob.len() > limits::GLOB_BYTES {
            let limit = limits::GLOB_BYTES;
            return Err(FilesError::Invalid(format!("glob[{index}] has 1 to {limit} bytes")));
        }
        builder
            .add(glob)
            .map_err(|error| FilesError::Invalid(format!("glob[{index}]: {error}")))?;
    }
    builder
        .build()
        .map_err(|error| FilesError::Invalid(format!("glob: {error}")))
}

/// A `.gitignore`, and where it lies.
#[derive(Debug)]
struct Ignore {
    /// The directory, beneath the root: empty for the root itself.
    directory: String,
    /// How many directories are above those that are walked now and have one.
    depth: usize,
    rules: Gitignore,
    count: usize,
}

/// The `.gitignore` files in force, outermost first.
#[derive(Debug, Default)]
pub(crate) struct Ignores {
    files: Vec<Ignore>,
    count: usize,
}

impl Ignores {
    /// A directory is gone into, `depth` deep. One that cannot be read, or is too large, ignores nothing.
    pub(crate) fn enter(&mut self, fs: &Fs<'_>, root: &str, directory: &str, depth: usize) {
        let file = path::join(&path::join(root, directory), ".gitignore");
        let Ok(bytes) = fs.read(&file, limits::IGNORE_BYTES) else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut builder = GitignoreBuilder::new("");
        let mut count = 0;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            count += 1;
            // git passes over a line that it does not understand, too.
            _ = builder.add_line(None, line);
        }
        if count == 0 || self.count + count > limits::IGNORE_RULES {
            return;
        }
        if let Ok(rules) = builder.build() {
            self.count += count;
            self.files.push(Ignore {
                directory: directory.to_owned(),
                depth,
                rules,
                count,
            });
        }
    }

    /// A directory that was so deep is left.
    pub(crate) fn leave(&mut self, depth: usize) {
        while self.files.last().is_some_and(|file| file.depth >= depth) {
            self.count -= self.files.pop().map_or(0, |file| file.count);
        }
    }

    /// Whether something is passed over, by its path beneath the root. The innermost file that says something decides.
    pub(crate) fn hides(&self, beneath: &str, is_directory: bool) -> bool {
        if beneath == GIT || beneath.ends_with("/.git") {
            return true;
        }
        for file in self.files.iter().rev() {
            let relative = match file.directory.as_str() {
                "" => beneath,
                directory => match beneath.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')) {
                    Some(relative) => relative,
                    None => continue,
                },
            };
            let matched = file.rules.matched(relative, is_directory);
            if !matched.is_none() {
                return matched.is_ignore();
            }
        }
        false
    }
}
