//! Trees under test, and what a tree looks like from outside.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests make the trees that are looked at")]

mod bed;
mod escape;
mod model;
mod mount;
mod overlay;
pub(super) mod race;
