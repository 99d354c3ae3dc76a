//! The Astrid kernel.

pub mod capsule;
pub mod home;
pub mod keys;
pub mod lock;
pub mod config;
pub mod groups;
pub mod notify;
pub mod status;
pub mod logging;
pub mod metrics;
