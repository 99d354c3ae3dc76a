//! Black-box tests

pub mod daemon;
pub mod process;
