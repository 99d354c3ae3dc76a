//! Runs one target, the one that `ASTRID_FUZZ_TARGET` names, under libFuzzer.

#![no_main]
#![allow(clippy::disallowed_methods, reason = "the fuzzer's own code, by its macro")]

#[path = "../../tests/fuzz/wire.rs"]
mod wire;

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("ASTRID_FUZZ_TARGET").unwrap_or_default();
    match name.as_str() {
        "capability" => wire::capability,
        "profile" => wire::profile,
        "groups" => wire::groups,
        "admin" => wire::admin,
        "envelope" => wire::envelope,
        "manifest" => wire::manifest,
        _ => panic!("ASTRID_FUZZ_TARGET names no target: {name:?}"),
    }
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET(input));
