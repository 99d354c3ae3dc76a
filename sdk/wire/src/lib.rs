//! What the kernel, the command line and capsules agree on.
//!
//! Everything here is plain data and pure functions: no I/O, no clock, no engine. So the same code runs in the daemon, in the
//! command line and, compiled to WebAssembly, inside capsules, and can be tested without any of them.
//!
//! Reading order: [`topic`] (the one grammar and the one matcher), [`principal`], [`authority`] (what somebody may do), [`proof`] (how a
//! principal is proven), [`problem`], [`control`], [`child`] and [`describe`]; then, with the feature `envelope`, [`frame`] and [`envelope`]
//! (what travels through a socket); then, with the feature `manifest`, [`manifest`] (`Capsule.toml`) and [`quota`] (how much somebody may
//! use). The feature `schema` adds the JSON Schema of the manifest.
//!
//! Deliberately absent: anything that decides. What may be said is the kernel's gate, what a connection may do is the uplink's.

pub mod authority;
pub mod child;
pub mod control;
pub mod describe;
#[cfg(feature = "envelope")]
pub mod envelope;
#[cfg(feature = "envelope")]
pub mod frame;
pub mod fs;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod principal;
pub mod problem;
pub mod proof;
#[cfg(feature = "manifest")]
pub mod quota;
pub mod text;
pub mod topic;

pub use authority::{Action, Capability};
pub use principal::Principal;
pub use problem::Problem;
#[cfg(feature = "manifest")]
pub use quota::Quota;
pub use topic::{Pattern, Topic};
