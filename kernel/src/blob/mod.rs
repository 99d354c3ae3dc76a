//! The content store: bytes by their BLAKE3 hash, kept once, for as long as some principal has a reference.
//!
//! ```text
//! $ASTRID_HOME/var/blobs/objects/ab/ab12...          a blob
//! $ASTRID_HOME/var/blobs/objects/ab/ab12....parts    hashes of its parts (1 MiB each), if it has more than one
//! $ASTRID_HOME/var/blobs/references/PRINCIPAL/ab12...  an empty file: this principal has it
//! $ASTRID_HOME/var/blobs/uploads/ID/{about,data,parts}  what is being written
//! ```
//!
//! The hash of a part is the chaining value of its subtree of the BLAKE3 tree, and those of all parts merge to the address. So a range is
//! verified against the address by the parts that it touches and the list, which is 32 bytes for each MiB: nothing else has to be read, and
//! nothing beside the address has to be trusted. What does not verify is never served ([`BlobError::Corrupted`]).
//!
//! An upload is resumed after a crash of either side from the last whole part that verifies. An object is seen only when it is whole, verified and
//! on disk: the reference comes first, then the object is renamed into its place, so that a crash between any two steps leaves either an upload
//! that can be finished or the finished blob; what is left over otherwise is removed at the next start.
//!
//! Deliberately absent: who may (the gate's), what a principal's quota leaves (its caller's, as `room`), and names of any other kind than the address.

mod disk;
mod error;
mod held;
mod object;
mod parts;
pub mod pin;
mod store;
mod upload;

#[cfg(test)]
mod tests;

pub use error::BlobError;
pub use held::Held;
pub use parts::{Address, AddressError, PART_BYTES};
pub use store::{BlobLimits, Blobs};
pub use upload::{Progress, UploadId};
