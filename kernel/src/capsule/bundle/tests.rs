//! What was assembled is read; whatever else is named for what it is.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// A component that imports these interfaces and exports what a capsule does, with types that no host would link.
pub(in crate::capsule) fn component(imports: &[&str]) -> Vec<u8> {
    let imports: String = imports
        .iter()
        .map(|name| format!(r#"(import "{name}" (instance))"#))
        .collect();
    wat::parse_str(format!(
        r#"(component
             {imports}
             (core module $m (func (export "f") nop))
             (core instance $i (instantiate $m))
             (func (export "handle") (canon lift (core func $i "f")))
             (func (export "describe") (canon lift (core func $i "f"))))"#
    ))
    .unwrap()
}

/// As [`component`], and it can be asked as a guard.
fn guarding() -> Vec<u8> {
    wat::parse_str(
        r#"(component
             (core module $m (func (export "f") nop))
             (core instance $i (instantiate $m))
             (func (export "handle") (canon lift (core func $i "f")))
             (func (export "describe") (canon lift (core func $i "f")))
             (func (export "guard") (canon lift (core func $i "f"))))"#,
    )
    .unwrap()
}

/// A manifest with that name and that below its `[package]`.
pub(in crate::capsule) fn manifest(name: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"1.2.3\"\ndescription = \"a test\"\nkernel = \">=0.1, <1\"\n{rest}"
    )
}

/// A bundle of these, as found in the binary.
pub(in crate::capsule) fn bundle(name: &str, rest: &str) -> Bundle {
    let bytes = assemble(&component(&[]), &manifest(name, rest), "{\"topics\": []}").unwrap();
    Bundle::parse(bytes.into(), Origin::Embedded).unwrap()
}

fn parse(bytes: Vec<u8>) -> Result<Bundle, BundleError> {
    Bundle::parse(bytes.into(), Origin::Embedded)
}

fn assembled(imports: &[&str], rest: &str) -> Result<Vec<u8>, BundleError> {
    assemble(&component(imports), &manifest("a", rest), "{\"topics\": []}")
}

#[test]
fn what_was_assembled_is_read() {
    let imports = ["astrid:kernel/bus@0.1.0", "astrid:kernel/types@0.1.0"];
    let bytes = assembled(&imports, "[exports]\nx = \"1.0\"\n").unwrap();
    let read = parse(bytes.clone()).unwrap();
    assert_eq!(
        (read.name(), read.manifest_text.as_str()),
        ("a", &*manifest("a", "[exports]\nx = \"1.0\"\n"))
    );
    assert_eq!(read.imports.into_iter().collect::<Vec<_>>(), imports);
    assert_eq!(read.hash, blake3::hash(&bytes));
    // A section longer than 127 bytes, so that lengths take two digits, is among them.
    assert!(read.component.len() > 200);
}

#[test]
fn what_is_no_bundle_is_named() {
    let empty_module = wat::parse_str("(module)").unwrap();
    assert!(matches!(parse(empty_module), Err(BundleError::NotAComponent)));
    assert!(matches!(
        parse(b"PK\x03\x04".to_vec()),
        Err(BundleError::Malformed { .. })
    ));
    assert!(matches!(parse(vec![]), Err(BundleError::Malformed { .. })));
    assert!(matches!(
        parse(component(&[])),
        Err(BundleError::Missing(MANIFEST_SECTION))
    ));
    assert!(matches!(
        parse(vec![0; BUNDLE_BYTES_MAX + 1]),
        Err(BundleError::TooLarge { .. })
    ));

    let once = assembled(&[], "").unwrap();
    assert!(matches!(
        assemble(&once, &manifest("b", ""), "{}"),
        Err(BundleError::Twice(MANIFEST_SECTION))
    ));
    let nothing = wat::parse_str("(component)").unwrap();
    assert!(matches!(
        assemble(&nothing, &manifest("a", ""), "{\"topics\": []}"),
        Err(BundleError::NoExport("describe"))
    ));
    let error = assemble(&component(&[]), "[package]\nnam = \"a\"\n", "{}").unwrap_err();
    assert!(
        error.to_string().starts_with("Capsule.toml:2:1: unknown key `nam`"),
        "{error}"
    );
    assert!(matches!(
        assemble(&component(&[]), &manifest("a", ""), "{"),
        Err(BundleError::Description { .. })
    ));
    let mut not_text = component(&[]);
    append_section(&mut not_text, MANIFEST_SECTION, b"\xff");
    assert!(matches!(parse(not_text), Err(BundleError::NotText)));
    let mut long = component(&[]);
    append_section(&mut long, MANIFEST_SECTION, &vec![b' '; DOCUMENT_BYTES_MAX + 1]);
    assert!(matches!(parse(long), Err(BundleError::TooMany { .. })));
}

/// Who guards by its manifest has something to be asked, and the other way round; who does neither needs neither.
#[test]
fn a_guard_is_declared_and_exported_or_neither() {
    let declared = "[capabilities]\nguard = { allow = [\"notes.v1.>\"], reason = \"r\" }\n";
    let assemble = |component: &[u8], rest| assemble(component, &manifest("a", rest), "{\"topics\": []}");
    assert!(assemble(&guarding(), declared).is_ok());
    assert!(assemble(&component(&[]), "").is_ok());
    let error = assemble(&component(&[]), declared).unwrap_err();
    assert!(matches!(error, BundleError::NoGuard), "{error}");
    assert!(error.hint().unwrap().contains("#[guard]"));
    let error = assemble(&guarding(), "").unwrap_err();
    assert!(matches!(error, BundleError::GuardNotAsked), "{error}");
    assert!(error.hint().unwrap().contains("guard = {"));
}

#[test]
fn a_section_inside_a_nested_module_says_nothing() {
    let nested = r#"(component (core module (@custom "astrid:manifest" "x")))"#;
    assert!(matches!(
        parse(wat::parse_str(nested).unwrap()),
        Err(BundleError::Missing(MANIFEST_SECTION))
    ));
}

#[test]
fn imports_are_covered_by_the_manifest() {
    let timer = "[capabilities.timer]\nallow = [\"*\"]\nreason = \"r\"\n";
    let listen = "[runtime]\nscope = \"connection\"\n[capabilities.listen]\nallow = [\"session\"]\nreason = \"r\"\n";
    let fs = "[capabilities.fs]\nread = [\"/workspace/>\"]\nreason = \"r\"\n";
    for name in ["types", "bus", "log", "clock", "random"] {
        assembled(&[&format!("astrid:kernel/{name}@0.1.0")], "").unwrap();
    }
    for (name, capability, rest) in [
        ("timer", "timer", timer),
        ("fs", "fs", fs),
        ("port", "listen", listen),
        ("connection", "listen", listen),
    ] {
        let name = format!("astrid:kernel/{name}@0.1.0");
        assembled(&[&name], rest).unwrap();
        let error = assembled(&[&name], "").unwrap_err();
        assert!(
            matches!(&error, BundleError::NotAsked { name: n, capability: c } if *n == name && *c == capability),
            "{error}"
        );
    }
    for name in [
        "wasi:cli/stdout@0.2.0",
        "astrid:kernel/bus@0.2.0",
        "astrid:kernel/bus@0.1.1",
        "astrid:kernel/bus@1.0.0",
        "astrid:kernel/vfs@0.1.0",
        "astrid:kernel/bus",
        "other:kernel/bus@0.1.0",
    ] {
        let error = assembled(&[name], "").unwrap_err();
        assert!(
            matches!(&error, BundleError::UnknownImport { name: n } if n == name),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = assembled(&["astrid:kernel/bus@0.1.0"], "").unwrap();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = parse(bytes);
    }
}
