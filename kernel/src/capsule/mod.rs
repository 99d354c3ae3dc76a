//! What a capsule is, where it comes from, and how it is made ready to run.

pub mod aot;
pub mod bundle;
pub mod discover;
pub mod engine;
pub mod graph;
