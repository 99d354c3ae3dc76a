//! Files of guests: what `workspace://`, `home://` and `tmp://` name, and nothing beside it.
//!
//! - [`beneath`]: an open directory, and the one place that opens what is below it;
//! - [`layer`]: one layer of an overlay on disk, in the format of the Linux overlay file system.

pub mod beneath;
pub mod layer;
