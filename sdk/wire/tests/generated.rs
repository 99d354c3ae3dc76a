//! The committed Rust types of the envelope are what its `.proto` gives. Run with `ASTRID_BLESS=1` to write them anew.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "reads and writes the source tree")]

use std::path::Path;

#[test]
fn envelope_types_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([root.join("proto/envelope.proto")], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    let generated = std::fs::read_to_string(out.path().join("astrid.v1.rs")).unwrap();

    let committed = root.join("src/envelope/generated.rs");
    if std::env::var_os("ASTRID_BLESS").is_some() {
        std::fs::write(&committed, &generated).unwrap();
    }
    assert!(
        generated == std::fs::read_to_string(&committed).unwrap(),
        "src/envelope/generated.rs is not what proto/envelope.proto gives; run this test with ASTRID_BLESS=1"
    );
}
