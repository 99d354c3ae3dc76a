//! Documents of the operator: files in `etc/` that a person edits and a capsule reads and replaces.

use astrid_wire::manifest::DocumentName;

use super::{Durability, Home, HomeError, PRIVATE_FILE, read_operators_file, replace_file};

/// Most bytes of a document: people write them.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

/// Why a document was not read or replaced.
#[derive(Debug, thiserror::Error)]
pub enum DocumentFault {
    /// It has more bytes than this.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// It is not UTF-8.
    #[error("it is not text in UTF-8")]
    NotText,
    /// It is not what the caller had read.
    #[error("it was changed meanwhile")]
    Changed,
    /// The file is not ours alone to write, or the operating system refused.
    #[error("{}", chain(.0))]
    File(HomeError),
}

/// An error with its cause, in one line.
fn chain(error: &HomeError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Home {
    /// The text of a document; nothing when there is none.
    ///
    /// # Errors
    /// [`DocumentFault`], all but [`DocumentFault::Changed`].
    pub fn read_document(&self, name: &DocumentName) -> Result<Option<String>, DocumentFault> {
        read_operators_file(&self.document_file(name)).map_err(|error| match error {
            HomeError::TooLarge { limit, .. } => DocumentFault::TooLarge(limit),
            HomeError::Io { ref source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                DocumentFault::NotText
            }
            other => DocumentFault::File(other),
        })
    }

    /// Replaces a document, whole and durably, if it still is what the caller had read. (Between that look and the replacement there
    /// are microseconds in which an editor's save could be lost; nothing on a file system compares and swaps.)
    ///
    /// # Errors
    /// [`DocumentFault`]; the document is as it was.
    pub fn replace_document(&self, name: &DocumentName, was: Option<&str>, text: &str) -> Result<(), DocumentFault> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentFault::TooLarge(DOCUMENT_BYTES_MAX as u64));
        }
        if self.read_document(name)?.as_deref() != was {
            return Err(DocumentFault::Changed);
        }
        let path = self.document_file(name);
        replace_file(&path, &[text.as_bytes()], PRIVATE_FILE, Durability::Synced).map_err(|source| {
            DocumentFault::File(HomeError::Io {
                action: "write",
                path,
                source,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use super::*;

    #[test]
    fn what_somebody_else_wrote_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let name: DocumentName = "notes.toml".parse().unwrap();
        assert_eq!(home.read_document(&name).unwrap(), None);
        home.replace_document(&name, None, "a = 1").unwrap();
        assert!(matches!(
            home.replace_document(&name, None, "b"),
            Err(DocumentFault::Changed)
        ));
        assert_eq!(home.read_document(&name).unwrap().as_deref(), Some("a = 1"));
        home.replace_document(&name, Some("a = 1"), "a = 2").unwrap();
        let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
        let refused = home.replace_document(&name, Some("a = 2"), &large);
        assert!(matches!(refused, Err(DocumentFault::TooLarge(_))));
        std::fs::write(home.document_file(&name), b"\xff").unwrap();
        assert!(matches!(home.read_document(&name), Err(DocumentFault::NotText)));
        for hostile in [
            "../x.toml",
            "astrid.toml",
            "groups.toml",
            "x",
            ".toml",
            "a/b.toml",
            "A.toml",
        ] {
            assert!(hostile.parse::<DocumentName>().is_err(), "{hostile}");
        }
    }
}
