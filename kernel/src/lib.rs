//! The Astrid kernel.

pub mod capsule;
pub mod home;
pub mod keys;
pub mod lock;
