//! The uplink of local clients: what turns a stream of bytes into messages on the bus, and back.

pub mod session;
pub mod subscriptions;
pub mod uploads;
