//! The contract of `wit/` as Rust types and functions: what `wit-bindgen` makes of it.
//!
//! Generated once, here, because the generator dominates the build time of a guest; capsule crates use what this crate
//! exports. On other targets than WebAssembly the types are the same and the functions are stand-ins that are never called:
//! [`crate::testing`] takes their place.

#![allow(
    unsafe_code,
    reason = "crossing the component boundary is memory handed over by address; generated"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the contract documents what needs a word"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "capsule",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "astrid_sdk::bindings",
    // A capsule keeps identities in its state, as keys and in what it writes.
    additional_derives: [PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize],
    additional_derives_ignore: [
        "message", "problem", "rollback", "answer", "publish-error", "reply-error", "request-error", "subscribe-error",
        "random-error", "timer-error", "port-error", "peer-error", "authenticate-error", "peer-info",
        "spawn-error", "child-error", "tail-error", "document-error", "fs-error", "blob-error", "kv-error", "page", "actor-error",
    ],
});

/// The export of guards. Only capsules that guard have it.
pub mod guarding {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "guarding",
        pub_export_macro: true,
        export_macro_name: "export_guard",
        default_bindings_module: "astrid_sdk::bindings::guarding",
        with: { "astrid:kernel/types@0.1.0": crate::bindings::astrid::kernel::types },
    });
}
