//! What of an actor is kept: messages that wait for it, its timers, what it asked, what was given up.

pub mod dead;
mod letter;
pub mod record;
