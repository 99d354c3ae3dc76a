//! Gives the guest a larger stack than guests have otherwise.

#![allow(clippy::print_stdout, reason = "it is how build scripts speak")]

/// Bytes. Regular expressions and globs are read by recursion, 100 to 250 deep; an overflow would be a fault of this capsule instead of an
/// answer.
const STACK_BYTES: usize = 512 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo::rustc-cdylib-link-arg=-zstack-size={STACK_BYTES}");
    }
}
