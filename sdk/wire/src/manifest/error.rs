//! What is wrong with a manifest, and where.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rules::{Broken, shown};

/// What is wrong with a manifest: `origin:line:column: what`, and a hint on a line of its own where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    origin: String,
    /// Line and column, from 1; the column counts characters.
    place: Option<(usize, usize)>,
    what: String,
    hint: Option<String>,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

impl ManifestError {
    /// Line and column of the offending text, both from 1. None where it is the whole document.
    #[must_use]
    pub fn place(&self) -> Option<(usize, usize)> {
        self.place
    }

    /// What is wrong, without its place.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What could be done.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(super) fn whole(origin: &str, what: String) -> Self {
        Self {
            origin: origin.to_owned(),
            place: None,
            what,
            hint: None,
        }
    }

    /// What `toml` says about a document, in the words used for manifests. For the other files that people write.
    #[must_use]
    pub fn from_toml(text: &str, origin: &str, error: &toml::de::Error) -> Self {
        let message = error.message().replace('\n', ", ");
        let (what, hint) = reword(&message);
        let place = error.span().map(|span| place(text, span.start));
        Self {
            origin: origin.to_owned(),
            place,
            what,
            hint,
        }
    }

    /// What is wrong at that byte of a document, or with all of it. For the other files that people write.
    #[must_use]
    pub fn at(text: &str, origin: &str, byte: Option<usize>, what: String, hint: Option<String>) -> Self {
        Self {
            origin: origin.to_owned(),
            place: byte.map(|byte| place(text, byte)),
            what,
            hint,
        }
    }

    pub(super) fn from_rule(text: &str, origin: &str, broken: Broken) -> Self {
        let place = locate(text, &broken.path).map(|span| place(text, span.start));
        let what = format!("{}: {}", broken.path.join("."), broken.what);
        Self {
            origin: origin.to_owned(),
            place,
            what,
            hint: broken.hint,
        }
    }
}

fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// Where a value is; or the innermost of its tables that is written down, when it is a default.
fn locate(text: &str, path: &[String]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table: &DeTable<'_> = document.get_ref();
    let mut found = None;
    for key in path {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == key) else {
            break;
        };
        found = Some(Spanned::span(name));
        let DeValue::Table(inner) = value.get_ref() else {
            break;
        };
        table = inner;
    }
    found
}

/// serde's words for a key or value that does not exist, in ours, with the nearest one that does as the hint.
fn reword(message: &str) -> (String, Option<String>) {
    let unknown = [
        ("unknown field `", "unknown key"),
        ("unknown variant `", "unknown value"),
    ]
    .into_iter()
    .find_map(|(prefix, words)| message.strip_prefix(prefix).map(|rest| (words, rest)));
    let Some((words, (name, rest))) = unknown.and_then(|(words, rest)| Some((words, rest.split_once('`')?))) else {
        return (message.to_owned(), None);
    };
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let name = shown(name);
    let hint = match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "nothing can be set here".to_owned(),
        None => format!(
            "there is {}",
            known
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    (format!("{words} `{name}`"), Some(hint))
}

/// The known name that is at most a third of its letters away.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|near| (distance(name, near), *near))
        .filter(|(distance, near)| *distance <= near.len().div_ceil(3))
        .min()
        .map(|(_, near)| near)
}

/// Edits between two words: insert, delete, replace, or exchange of two neighbours. Both are short.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
