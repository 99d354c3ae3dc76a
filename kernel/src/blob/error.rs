//! Why bytes were not kept or not given.

use std::io;

use super::Address;

/// Why bytes were not kept or not given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The principal has no reference to a blob of that address. Whether others have is not told.
    #[error("there is no such blob")]
    NotFound,
    /// There is no upload of that identity, of this principal.
    #[error("there is no such upload")]
    NoUpload,
    /// What is on disk is not what was kept. It is not served; whoever writes it anew repairs it.
    #[error("the blob {address} is corrupted on disk: {what}")]
    Corrupted {
        /// Which.
        address: Address,
        /// What does not fit.
        what: String,
        /// Whether nobody had noticed before.
        first: bool,
    },
    /// A blob, or what is asked for at once, has more bytes than this.
    #[error("at most {0} bytes")]
    TooLarge(u64),
    /// So many bytes are free: of the store, or of what the principal may keep.
    #[error("{free} bytes are free {whose}")]
    NoSpace {
        /// Bytes.
        free: u64,
        /// `in the store` or `for PRINCIPAL`.
        whose: String,
    },
    /// The store keeps this many blobs, the limit.
    #[error("the store has {0} blobs, which is all that it keeps")]
    Full(usize),
    /// What should have been written down before this happened was not.
    #[error("it cannot be recorded: {0}")]
    Unrecorded(String),
    /// The next byte of the upload is this one.
    #[error("the upload goes on at byte {0}")]
    WrongOffset(u64),
    /// The upload is not complete: it has so many bytes of `size`.
    #[error("{has} of {size} bytes were written")]
    Incomplete {
        /// Bytes.
        has: u64,
        /// Bytes that were announced.
        size: u64,
    },
    /// What was written is not what was announced. The upload is over.
    #[error("what was written is {is}, and {expected} was expected")]
    Mismatch {
        /// What it is.
        is: Address,
        /// What was announced.
        expected: Address,
    },
    /// The principal has this many uploads open, the limit.
    #[error("more than {0} uploads")]
    TooMany(u32),
    /// The operating system refused.
    #[error("{what}: {source}")]
    File {
        /// What was done.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl BlobError {
    pub(super) fn file(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { what, source }
    }
}
