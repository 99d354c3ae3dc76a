//! What a guest can call: one file for each interface of `wit/`.
//!
//! Every call passes here, whatever it does, so this is also the seam at which a recorder sits: a guest's run is a function
//! of the messages it was given and of what these functions returned.
//!
//! The shape is always the same. Take the arguments, check their limits, ask the gate, reserve what the effect needs, and
//! record a [`Command`](super::commands::Command). What cannot be recorded is a typed error, never a trap: a guest is
//! told what it did wrong.

mod actor;
mod aside;
mod blob;
pub(crate) mod bus;
mod child;
mod clock;
mod connection;
mod document;
pub(crate) mod fs;
pub(crate) mod kv;
pub(crate) mod log;
mod port;
mod random;
mod timer;

use wasmtime::component::{HasSelf, Linker};

use super::guest::Guest;

/// What `wit/` says, as Rust.
#[allow(missing_docs, unreachable_pub, reason = "generated; documented in wit/")]
#[allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "capsule",
        imports: {
            "astrid:kernel/bus.request": async,
            // These wait for guards, where there are any.
            "astrid:kernel/bus.publish": async,
            "astrid:kernel/bus.publish-once": async,
            "astrid:kernel/bus.ask": async,
            "astrid:kernel/bus.emit": async,
            // These wait for the disk, where it takes long.
            "astrid:kernel/fs": async,
            "astrid:kernel/blob": async,
            // What somebody stores is counted before the first of it is written, where that is limited.
            "astrid:kernel/kv.put": async,
            "astrid:kernel/kv.delete": async,
            "astrid:kernel/kv.compare-and-swap": async,
        },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        require_store_data_send: true,
    });

    pub use guarding::{GuardingPre, Verdict};

    /// The export of guards.
    mod guarding {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "guarding",
            with: { "astrid:kernel/types": super::astrid::kernel::types },
            exports: { default: async },
            ownership: Borrowing { duplicate_if_necessary: true },
            require_store_data_send: true,
        });
    }
}

/// Lets components import everything above. What a capsule may import is decided by its manifest, before this.
///
/// # Errors
/// Wasmtime's, when two functions have one name: a mistake in `wit/`.
pub fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    bindings::Capsule::add_to_linker::<_, HasSelf<_>>(linker, |guest| guest)
}

/// The guest-visible record of types that have no functions.
impl bindings::astrid::kernel::types::Host for Guest {}
