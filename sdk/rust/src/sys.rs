//! The functions of the kernel: imports of the component in WebAssembly, a fake elsewhere.
//!
//! Both sides have the same signatures, so nothing above this module knows which one it talks to, and the choice costs
//! nothing at run time.

#[cfg(target_arch = "wasm32")]
pub(crate) use crate::bindings::astrid::kernel::{
    actor, blob, bus, child, clock, connection, document, fs, kv, log, port, random, timer,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use crate::testing::sys::{
    actor, blob, bus, child, clock, connection, document, fs, kv, log, port, random, timer,
};
