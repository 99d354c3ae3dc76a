//! Documents: files in `etc/` that a person edits and a capsule reads and replaces. The owner's are there, those of everybody else in a directory
//! of their own below: what one principal writes is not done in the name of another.

#![allow(clippy::disallowed_methods, reason = "this module owns the documents")]

use std::path::PathBuf;

use astrid_wire::Principal;
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
    /// A document: the owner's in `etc/`, another principal's in `etc/documents/PRINCIPAL/`.
    #[must_use]
    pub fn document_file(&self, whose: &Principal, name: &DocumentName) -> PathBuf {
        if *whose == Principal::default_owner() {
            return self.root().join("etc").join(name.as_str());
        }
        self.documents_dir().join(whose.as_str()).join(name.as_str())
    }

    /// `etc/documents/`: of everybody but the owner.
    pub(super) fn documents_dir(&self) -> PathBuf {
        self.root().join("etc/documents")
    }

    /// Who has a document of that name.
    pub fn document_owners(&self, name: &DocumentName) -> Vec<Principal> {
        let others = std::fs::read_dir(self.documents_dir());
        let others = others.into_iter().flatten().flatten().filter_map(|entry| {
            let whose = Principal::stamped(entry.file_name().to_str()?).ok()?;
            Some(whose)
        });
        let all = others.chain([Principal::default_owner()]);
        all.filter(|whose| !matches!(self.read_document(whose, name), Ok(None)))
            .collect()
    }

    /// The text of a document; nothing when there is none.
    ///
    /// # Errors
    /// [`DocumentFault`], all but [`DocumentFault::Changed`].
    pub fn read_document(&self, whose: &Principal, name: &DocumentName) -> Result<Option<String>, DocumentFault> {
        read_operators_file(&self.document_file(whose, name)).map_err(|error| match error {
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
    pub fn replace_document(
        &self,
        whose: &Principal,
        name: &DocumentName,
        was: Option<&str>,
        text: &str,
    ) -> Result<(), DocumentFault> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(DocumentFault::TooLarge(DOCUMENT_BYTES_MAX as u64));
        }
        if self.read_document(whose, name)?.as_deref() != was {
            return Err(DocumentFault::Changed);
        }
        let path = self.document_file(whose, name);
        if let Some(directory) = path.parent() {
            super::make(directory, true).map_err(DocumentFault::File)?;
        }
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

    /// K9: what one principal writes is nobody else's.
    #[test]
    fn everybody_has_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let name: DocumentName = "notes.toml".parse().unwrap();
        let (owner, ann): (_, Principal) = (Principal::default_owner(), "ann".parse().unwrap());
        home.replace_document(&ann, &name, None, "ann's").unwrap();
        assert_eq!(home.read_document(&owner, &name).unwrap(), None);
        assert_eq!(home.document_owners(&name), std::slice::from_ref(&ann));
        home.replace_document(&owner, &name, None, "owner's").unwrap();
        assert_eq!(home.read_document(&ann, &name).unwrap().unwrap(), "ann's");
        assert_eq!(home.document_owners(&name), [ann.clone(), owner.clone()]);
        for (parent, name) in home.directories_of(&ann) {
            let _ = std::fs::remove_dir_all(parent.join(name));
        }
        assert_eq!(home.document_owners(&name), [owner]);
    }

    #[test]
    fn what_somebody_else_wrote_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
        home.create().unwrap();
        let name: DocumentName = "notes.toml".parse().unwrap();
        let owner = Principal::default_owner();
        assert_eq!(home.read_document(&owner, &name).unwrap(), None);
        home.replace_document(&owner, &name, None, "a = 1").unwrap();
        assert!(matches!(
            home.replace_document(&owner, &name, None, "b"),
            Err(DocumentFault::Changed)
        ));
        assert_eq!(home.read_document(&owner, &name).unwrap().as_deref(), Some("a = 1"));
        home.replace_document(&owner, &name, Some("a = 1"), "a = 2").unwrap();
        let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
        let refused = home.replace_document(&owner, &name, Some("a = 2"), &large);
        assert!(matches!(refused, Err(DocumentFault::TooLarge(_))));
        std::fs::write(home.document_file(&owner, &name), b"\xff").unwrap();
        assert!(matches!(home.read_document(&owner, &name), Err(DocumentFault::NotText)));
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
