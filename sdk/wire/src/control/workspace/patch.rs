//! A difference as text that `git apply` takes.
//!
//! What git cannot hold is said in lines that begin with `#`, which it skips: directories, modes other than 0644 and 0755, and contents that are
//! no text.

use std::fmt::Write as _;

use super::{EntryKind, FileDiff, How, Side, unescape};

/// A name as git writes it: in quotes, with escapes, when it has anything but printable ASCII in it.
fn quoted(prefix: &str, path: &str) -> String {
    let bytes = unescape(path).unwrap_or_else(|| path.as_bytes().to_vec());
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if bytes.iter().all(plain) {
        return format!("{prefix}{}", String::from_utf8_lossy(&bytes));
    }
    let mut text = format!("\"{prefix}");
    for byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text.push('"');
    text
}

/// After a name with a blank git wants a tab, or it takes what follows for a date.
fn ended(name: &str) -> &str {
    if name.contains(' ') && !name.starts_with('"') {
        "\t"
    } else {
        ""
    }
}

fn git_mode(side: &Side) -> &'static str {
    match side.kind {
        EntryKind::Symlink => "120000",
        _ if side.mode & 0o111 != 0 => "100755",
        _ => "100644",
    }
}

fn is_blob(side: &&Side) -> bool {
    matches!(side.kind, EntryKind::File | EntryKind::Symlink)
}

fn word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "link",
        EntryKind::Other => "special file",
    }
}

/// A link's content, for git: its target, which no line ends. A target may have line feeds in it: each of its lines is one of the patch, with
/// its sign, and is counted. `None` when it is no text.
fn link_hunks(old: Option<&str>, new: Option<&str>) -> Option<String> {
    let target = |text: Option<&str>| match text {
        None => Some(String::new()),
        Some(text) => String::from_utf8(unescape(text)?).ok(),
    };
    let (old, new) = (target(old)?, target(new)?);
    let side = |sign: char, text: &str| {
        let mut lines: String = text.split_inclusive('\n').map(|line| format!("{sign}{line}")).collect();
        if !text.is_empty() && !text.ends_with('\n') {
            lines.push_str("\n\\ No newline at end of file\n");
        }
        lines
    };
    let range = |text: &str| match text.split_inclusive('\n').count() {
        0 => "0,0".to_owned(),
        1 => "1".to_owned(),
        lines => format!("1,{lines}"),
    };
    Some(format!(
        "@@ -{} +{} @@\n{}{}",
        range(&old),
        range(&new),
        side('-', &old),
        side('+', &new)
    ))
}

/// What permission bits give that is worth a word.
fn bits(mode: u32, kind: EntryKind) -> Vec<&'static str> {
    let all = [
        (0o4000, "set-user-id"),
        (0o2000, "set-group-id"),
        (0o1000, "sticky"),
        (0o0002, "writable by everybody"),
    ];
    let has = |(bit, word): (u32, &'static str)| (mode & bit != 0).then_some(word);
    if kind == EntryKind::Symlink {
        return Vec::new();
    }
    all.into_iter().filter_map(has).collect()
}

/// ` (set-user-id)`, or nothing.
fn in_brackets(words: &[&str]) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(", "))
    }
}

impl FileDiff {
    /// The difference as a part of a patch.
    #[must_use]
    pub fn patch(&self) -> String {
        let mut text = String::new();
        self.remarks(&mut text);
        let (old, new) = (
            self.before.as_ref().filter(is_blob),
            self.after.as_ref().filter(is_blob),
        );
        match (old, new) {
            // To git a file that becomes a link is one that goes and one that comes.
            (Some(old), Some(new)) if old.kind != new.kind => {
                self.part(&mut text, Some(old), None);
                self.part(&mut text, None, Some(new));
            }
            (None, None) => {}
            (old, new) => self.part(&mut text, old, new),
        }
        text
    }

    /// What is worth a second look about what it gives: set-id and sticky bits, and that everybody may write; as far as the directory of the
    /// host does not have it already.
    #[must_use]
    pub fn dangers(&self) -> Vec<&'static str> {
        let Some(new) = &self.after else { return Vec::new() };
        let old = self.before.as_ref().filter(|old| old.kind == new.kind);
        let had = old.map_or(0, |old| old.mode);
        bits(new.mode & !had, new.kind)
    }

    fn remarks(&self, text: &mut String) {
        let name = quoted("", &self.path);
        if let Some(remark) = &self.remark {
            let remark: String = remark.chars().filter(|c| !c.is_control()).collect();
            let _ = writeln!(text, "# {remark}: {name}");
        }
        match (&self.before, &self.after) {
            (Some(old), Some(new)) if old.kind != new.kind => {
                let _ = writeln!(text, "# {} becomes {}: {name}", word(old.kind), word(new.kind));
            }
            (Some(side), None) | (None, Some(side)) if !is_blob(&side) => {
                let how = if self.how == How::Added { "new" } else { "removed" };
                let _ = writeln!(text, "# {how} {}: {name}", word(side.kind));
            }
            _ => {}
        }
        self.mode_remark(text, &name);
    }

    /// The mode, where git does not say it: all but 0644 and 0755 of files, and all but 0755 of directories.
    fn mode_remark(&self, text: &mut String, name: &str) {
        let Some(new) = &self.after else { return };
        let old = self.before.as_ref().filter(|old| old.kind == new.kind);
        let told = match new.kind {
            EntryKind::Symlink => true,
            EntryKind::Directory if old.is_none() => new.mode == 0o755,
            EntryKind::File if old.is_none() => matches!(new.mode, 0o644 | 0o755),
            EntryKind::File => {
                let exact = |side: &Side| matches!(side.mode, 0o644 | 0o755);
                exact(new) && old.is_some_and(exact)
            }
            EntryKind::Directory | EntryKind::Other => false,
        };
        if told || old.is_some_and(|old| old.mode == new.mode) {
            return;
        }
        let said = in_brackets(&bits(new.mode, new.kind));
        let _ = match old {
            Some(old) => writeln!(text, "# mode {:04o} becomes {:04o}{said}: {name}", old.mode, new.mode),
            None => writeln!(text, "# mode {:04o}{said}: {name}", new.mode),
        };
    }

    fn part(&self, text: &mut String, old: Option<&Side>, new: Option<&Side>) {
        let (a, b) = (quoted("a/", &self.path), quoted("b/", &self.path));
        let hunks = self.content(old, new);
        let modes = match (old, new) {
            (Some(old), Some(new)) if git_mode(old) != git_mode(new) => {
                format!("old mode {}\nnew mode {}\n", git_mode(old), git_mode(new))
            }
            (None, Some(new)) => format!("new file mode {}\n", git_mode(new)),
            (Some(old), None) => format!("deleted file mode {}\n", git_mode(old)),
            _ => String::new(),
        };
        if modes.is_empty() && hunks.is_empty() {
            return;
        }
        let _ = write!(text, "diff --git {a} {b}\n{modes}");
        if hunks.starts_with("@@") {
            let from = old.map_or("/dev/null", |_| &*a);
            let to = new.map_or("/dev/null", |_| &*b);
            let _ = write!(text, "--- {from}{}\n+++ {to}{}\n", ended(from), ended(to));
        }
        text.push_str(&hunks);
    }

    fn content(&self, old: Option<&Side>, new: Option<&Side>) -> String {
        let from_to = (old.is_some(), new.is_some());
        let link = |side: Option<&Side>| side.is_some_and(|side| side.kind == EntryKind::Symlink);
        if link(old) || link(new) {
            let target = |side: Option<&Side>| side.and_then(|side| side.target.clone());
            let (old, new) = (target(old), target(new));
            if old == new {
                return String::new();
            }
            if let Some(hunks) = link_hunks(old.as_deref(), new.as_deref()) {
                return hunks;
            }
            let told =
                |target: Option<String>| target.map_or("nothing".to_owned(), |target| format!("a link to {target}"));
            return self.in_words(from_to, &told(old), &told(new));
        }
        if !self.binary {
            return self.hunks.clone().unwrap_or_default();
        }
        let told = |side: Option<&Side>| match side {
            Some(side) => {
                let size = side.size.unwrap_or_default();
                let hash = side
                    .hash
                    .as_ref()
                    .map_or(String::new(), |hash| format!(", BLAKE3 {hash}"));
                format!("{size} bytes{hash}")
            }
            None => "nothing".to_owned(),
        };
        self.in_words(from_to, &told(old), &told(new))
    }

    /// What is no text. Git applies nothing of a patch that has such a line.
    fn in_words(&self, (old, new): (bool, bool), was: &str, is: &str) -> String {
        let (a, b) = (quoted("a/", &self.path), quoted("b/", &self.path));
        let from = if old { &*a } else { "/dev/null" };
        let to = if new { &*b } else { "/dev/null" };
        format!("# {was} becomes {is}\nBinary files {from} and {to} differ\n")
    }
}
