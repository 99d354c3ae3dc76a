//! [`Blobs`]: bytes by the BLAKE3 hash of them, kept once, for the principal that a message is handled for.
//!
//! ```
//! use astrid_sdk::prelude::*;
//! use astrid_sdk::testing::Harness;
//!
//! #[derive(Default)]
//! struct Shelf;
//!
//! #[capsule]
//! impl Shelf {
//!     /// Keeps some bytes, and says how they are had again.
//!     #[on("shelf.v1.keep")]
//!     fn keep(&mut self, ctx: &mut Context, body: Body) -> Result<String> {
//!         Ok(ctx.blobs().put(&body.bytes)?)
//!     }
//!
//!     #[on("shelf.v1.give")]
//!     fn give(&mut self, ctx: &mut Context, address: String) -> Result<Body> {
//!         let bytes = ctx.blobs().get(&address, 1 << 20)?;
//!         Ok(Body::new("application/octet-stream", bytes))
//!     }
//! }
//!
//! let mut shelf = Harness::new::<Shelf>();
//! let address: String = shelf.ask("shelf.v1.keep", Body::text("hello")).read();
//! assert_eq!(address, "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f");
//! assert_eq!(shelf.ask("shelf.v1.give", &address).body().bytes, b"hello");
//! ```
//!
//! What is too large for one handling is written in parts, over several: [`Blobs::begin`], [`Blobs::append`], [`Blobs::finish`]. Everything acts at once,
//! whatever becomes of the handler. Needs `[capabilities] kv`.

use std::marker::PhantomData;

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use crate::bindings::astrid::kernel::blob;
pub use crate::bindings::astrid::kernel::blob::Progress;
use crate::sys;

/// Most bytes of one read or write.
pub const PART_BYTES_MAX: u32 = 1 << 20;

/// The content store; see the [module](self) and [`Context::blobs`](crate::Context::blobs).
#[derive(Debug)]
pub struct Blobs<'a> {
    context: PhantomData<&'a mut ()>,
}

impl Blobs<'_> {
    pub(crate) fn new() -> Self {
        Self { context: PhantomData }
    }

    /// Keeps these bytes. Returns their address.
    ///
    /// # Errors
    /// Refused.
    pub fn put(&mut self, bytes: &[u8]) -> Result<String, BlobError> {
        let upload = self.begin(bytes.len() as u64, None)?;
        let mut next = 0;
        for part in bytes.chunks(PART_BYTES_MAX as usize) {
            next = match self.append(upload, next, part) {
                Ok(next) => next,
                Err(error) => {
                    // Nobody knows of it, so nobody could go on with it.
                    _ = self.abort(upload);
                    return Err(error);
                }
            };
        }
        self.finish(upload)
    }

    /// A whole blob of at most so many bytes.
    ///
    /// # Errors
    /// Refused, or [`BlobError::TooLarge`] with `limit`.
    pub fn get(&self, address: &str, limit: u64) -> Result<Vec<u8>, BlobError> {
        let size = self.size(address)?;
        if size > limit {
            return Err(BlobError::TooLarge(limit));
        }
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let part = self.read(address, bytes.len() as u64, PART_BYTES_MAX)?;
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        Ok(bytes)
    }

    /// Announces a blob of that size, and its address if it is known. The upload is good for a day, over instances and starts of the daemon.
    ///
    /// # Errors
    /// Refused.
    pub fn begin(&mut self, size: u64, expected: Option<&str>) -> Result<u64, BlobError> {
        Ok(sys::blob::begin(size, expected)?)
    }

    /// Writes at most [`PART_BYTES_MAX`] where the last bytes ended. Returns the next offset.
    ///
    /// # Errors
    /// Refused; [`BlobError::WrongOffset`] says where to go on.
    pub fn append(&mut self, upload: u64, offset: u64, bytes: &[u8]) -> Result<u64, BlobError> {
        Ok(sys::blob::append(upload, offset, bytes)?)
    }

    /// How far an upload is.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn status(&self, upload: u64) -> Result<Progress, BlobError> {
        Ok(sys::blob::status(upload)?)
    }

    /// Makes a blob of an upload that has all its bytes. Returns its address.
    ///
    /// # Errors
    /// Refused.
    pub fn finish(&mut self, upload: u64) -> Result<String, BlobError> {
        Ok(sys::blob::finish(upload)?)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn abort(&mut self, upload: u64) -> Result<(), BlobError> {
        Ok(sys::blob::abort(upload)?)
    }

    /// Bytes of a blob.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn size(&self, address: &str) -> Result<u64, BlobError> {
        Ok(sys::blob::size(address)?)
    }

    /// Bytes of a blob from there on, at most `length`, which is at most [`PART_BYTES_MAX`].
    ///
    /// # Errors
    /// Refused.
    pub fn read(&self, address: &str, offset: u64, length: u32) -> Result<Vec<u8>, BlobError> {
        Ok(sys::blob::read(address, offset, length)?)
    }

    /// Gives a blob up. When nobody has it any more, it is removed.
    ///
    /// # Errors
    /// [`BlobError::NotFound`].
    pub fn release(&mut self, address: &str) -> Result<(), BlobError> {
        Ok(sys::blob::release(address)?)
    }
}

/// Why bytes were not kept or not given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The gate refused; names what is lacking. Often `[capabilities] kv` in the manifest.
    #[error("denied: {0}")]
    Denied(String),
    /// The principal has no such blob, or no such upload.
    #[error("there is no such blob or upload")]
    NotFound,
    /// What is on disk is not what was kept; says what is wrong.
    #[error("{0}")]
    Corrupted(String),
    /// An address or another argument is not valid; names it.
    #[error("not valid: {0}")]
    Invalid(String),
    /// More bytes than this, the limit.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// The store, the disk, or what the principal may store is full; says which.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The upload goes on at this byte.
    #[error("the upload goes on at byte {0}")]
    WrongOffset(u64),
    /// The upload has only so many bytes of those that were announced.
    #[error("the upload has only {0} bytes of those that were announced")]
    Incomplete(u64),
    /// What was written has another address than was announced: this one.
    #[error("what was written has the address {0}, which is not the one that was announced")]
    Mismatch(String),
    /// The principal has this many uploads open, the limit.
    #[error("more than {0} uploads")]
    TooMany(u32),
    /// The operating system refused; says why.
    #[error("{0}")]
    Failed(String),
}

impl From<blob::BlobError> for BlobError {
    fn from(error: blob::BlobError) -> Self {
        match error {
            blob::BlobError::Denied(why) => Self::Denied(why),
            blob::BlobError::NotFound => Self::NotFound,
            blob::BlobError::Corrupted(what) => Self::Corrupted(what),
            blob::BlobError::Invalid(what) => Self::Invalid(what),
            blob::BlobError::TooLarge(limit) => Self::TooLarge(limit),
            blob::BlobError::NoSpace(which) => Self::NoSpace(which),
            blob::BlobError::WrongOffset(next) => Self::WrongOffset(next),
            blob::BlobError::Incomplete(has) => Self::Incomplete(has),
            blob::BlobError::Mismatch(is) => Self::Mismatch(is),
            blob::BlobError::TooMany(limit) => Self::TooMany(limit),
            blob::BlobError::Failed(why) => Self::Failed(why),
        }
    }
}

impl BlobError {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => codes::DENIED,
            Self::NotFound => "blob.not-found",
            Self::Corrupted(_) => "blob.corrupted",
            Self::Invalid(_) => codes::INVALID,
            Self::TooLarge(_) => codes::TOO_LARGE,
            Self::NoSpace(_) => "blob.no-space",
            Self::WrongOffset(_) => "blob.wrong-offset",
            Self::Incomplete(_) => "blob.incomplete",
            Self::Mismatch(_) => "blob.mismatch",
            Self::TooMany(_) => codes::TOO_MANY,
            Self::Failed(_) => codes::UNAVAILABLE,
        }
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
