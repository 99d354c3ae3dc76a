//! What is tested from outside of the crates it is about: the rules of the tree and the contract with guests here, the built
//! binary in `tests/`.

pub mod bed;
pub mod chance;
pub mod daemon;
pub mod herd;
pub mod process;
pub mod programs;
pub mod wire;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tidy;
