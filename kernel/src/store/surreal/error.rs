//! What SurrealKV's errors mean to the store.

use std::io::ErrorKind;

use surrealkv::Error;

use crate::store::engine::EngineError;

/// How a full disk is named where an error has become text on its way: by number, and by the kind's own words.
const NO_SPACE: [&str; 4] = ["(os error 28)", "(os error 122)", "no storage space", "quota exceeded"];

/// Says it in the store's words.
pub(super) fn translate(error: &Error) -> EngineError {
    let text = error.to_string();
    let words = text.as_str().into();
    if is_no_space(error, &text) {
        return EngineError::NoSpace(words);
    }
    match error.poisoned_by() {
        Error::CorruptedBlock(_)
        | Error::Decompression(_)
        | Error::KeyNotInOrder
        | Error::FilterBlockEmpty
        | Error::InvalidFilename(_)
        | Error::CorruptedTableMetadata(_)
        | Error::InvalidTableFormat
        | Error::LegacyFormat(_)
        | Error::MigrationFailed(_)
        | Error::TableMetadataNotFound
        | Error::TableNotFound(_)
        | Error::TableIDCollision(_)
        | Error::BlockNotFound
        | Error::InvalidBatchRecord
        | Error::LoadManifestFail(_)
        | Error::Corruption(_)
        | Error::ManifestCorruption(_)
        | Error::ManifestMissing(_)
        | Error::RestoreInterrupted(_)
        | Error::InvalidTag(_)
        | Error::WalCorruption { .. }
        | Error::SSTable(_)
        | Error::Encryption(_) => EngineError::Damaged(words),
        Error::Other(said) if said.contains("orrupt") => EngineError::Damaged(words),
        Error::Wal(said) if said.contains("orrupt") || said.contains("Unexpected") || said.contains("gap") => {
            EngineError::Damaged(words)
        }
        Error::Io(io) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            EngineError::Damaged(words)
        }
        Error::Io(_) | Error::Wal(_) | Error::FileDescriptorNotFound | Error::FilePoolExhausted => {
            EngineError::Io(words)
        }
        _ => EngineError::Stopped(words),
    }
}

fn is_no_space(error: &Error, text: &str) -> bool {
    let by_kind = matches!(
        error.poisoned_by(),
        Error::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
    );
    by_kind || NO_SPACE.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn errors_say_what_can_be_done() {
        let disk_full = || Error::Io(Arc::new(io::Error::from_raw_os_error(28)));
        for error in [
            disk_full(),
            Error::DatabasePoisoned(Box::new(disk_full())),
            Error::Wal(disk_full().to_string()),
            Error::Io(Arc::new(io::Error::from_raw_os_error(122))),
        ] {
            assert!(matches!(translate(&error), EngineError::NoSpace(_)), "{error:?}");
        }
        let damage = Error::Corruption("x".into());
        assert!(matches!(translate(&damage), EngineError::Damaged(_)));
        assert!(matches!(
            translate(&Error::DatabasePoisoned(Box::new(damage))),
            EngineError::Damaged(_)
        ));
        assert!(matches!(translate(&Error::PipelineStall), EngineError::Stopped(_)));
        let io = Error::Io(Arc::new(io::Error::from_raw_os_error(5)));
        assert!(matches!(translate(&io), EngineError::Io(_)));
    }
}
