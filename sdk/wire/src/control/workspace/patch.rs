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

/// A link's content, for git: its target, which no line ends.
fn link_hunks(old: Option<&str>, new: Option<&str>) -> String {
    let target = |text: &str| String::from_utf8_lossy(&unescape(text).unwrap_or_default()).into_owned();
    let side = |sign: char, text: Option<&str>| {
        let lines = text.map(|text| format!("{sign}{}\n\\ No newline at end of file\n", target(text)));
        lines.unwrap_or_default()
    };
    let range = |text: Option<&str>| if text.is_some() { "1" } else { "0,0" };
    format!(
        "@@ -{} +{} @@\n{}{}",
        range(old),
        range(new),
        side('-', old),
        side('+', new)
    )
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

    fn remarks(&self, text: &mut String) {
        let name = quoted("", &self.path);
        match (&self.before, &self.after) {
            (Some(old), Some(new))
                if old.kind == new.kind
                    && old.mode != new.mode
                    && (git_mode(old) == git_mode(new) || old.kind == EntryKind::Directory) =>
            {
                let _ = writeln!(text, "# mode {:04o} becomes {:04o}: {name}", old.mode, new.mode);
            }
            (Some(old), Some(new)) if old.kind != new.kind => {
                let _ = writeln!(text, "# {} becomes {}: {name}", word(old.kind), word(new.kind));
            }
            (Some(side), None) | (None, Some(side)) if !is_blob(&side) => {
                let how = if self.how == How::Added { "new" } else { "removed" };
                let _ = writeln!(text, "# {how} {}: {name}", word(side.kind));
            }
            _ => {}
        }
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
        let link = |side: Option<&Side>| side.is_some_and(|side| side.kind == EntryKind::Symlink);
        if link(old) || link(new) {
            let target = |side: Option<&Side>| side.and_then(|side| side.target.clone());
            let (old, new) = (target(old), target(new));
            return if old == new {
                String::new()
            } else {
                link_hunks(old.as_deref(), new.as_deref())
            };
        }
        if !self.binary {
            return self.hunks.clone().unwrap_or_default();
        }
        let told = |side: Option<&Side>| match side {
            Some(side) => {
                let hash = side.hash.as_deref().unwrap_or("unknown");
                format!("{} bytes, BLAKE3 {hash}", side.size.unwrap_or_default())
            }
            None => "nothing".to_owned(),
        };
        let (a, b) = (quoted("a/", &self.path), quoted("b/", &self.path));
        let from = old.map_or("/dev/null", |_| &*a);
        let to = new.map_or("/dev/null", |_| &*b);
        format!(
            "# {} becomes {}\nBinary files {from} and {to} differ\n",
            told(old),
            told(new)
        )
    }
}
