//! `astrid capsule`: what is there, and how one is made.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{Outcome, run};

const MANIFEST: &str =
    "[package]\nname = \"probe\"\nversion = \"1.0.0\"\ndescription = \"Probes\"\nkernel = \">=0.1, <1\"\n";

/// A directory that looks like a capsule's crate.
fn crate_with(astrid: &Astrid, manifest: &str) -> PathBuf {
    let dir = astrid.scratch().join("probe");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Capsule.toml"), manifest).unwrap();
    fs::write(
        dir.join("Cargo.toml"),
        "[package]\nname = \"probe\"\nversion = \"1.0.0\"\nedition = \"2024\"\n",
    )
    .unwrap();
    dir
}

/// Builds it with a compiler that is this script.
fn build_with(astrid: &Astrid, dir: &std::path::Path, compiler: &str) -> Outcome {
    let rustc = astrid.scratch().join("rustc");
    fs::write(&rustc, format!("#!/bin/sh\n{compiler}\n")).unwrap();
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
    run(
        astrid
            .command(&["capsule", "build", dir.to_str().unwrap()])
            .env("CAPSULE_RUSTC", rustc),
        b"",
    )
}

#[test]
fn what_is_there() {
    let astrid = Astrid::started();
    let list = astrid.run(&["capsule", "list"]).ok();
    assert!(list.stdout.starts_with("CAPSULE"), "{list:?}");
    for name in ["uplink-local", "text"] {
        assert!(list.stdout.contains(name), "{list:?}");
        let show = astrid.run(&["capsule", "show", name]).ok();
        assert!(
            show.stdout.starts_with(name) && show.stdout.contains("is ready"),
            "{show:?}"
        );
    }
    let text = astrid.run(&["capsule", "show", "text"]).ok();
    assert!(text.stdout.contains("tool.v1.text.markdown"), "{text:?}");
}

#[test]
fn a_directory_without_a_manifest() {
    let astrid = Astrid::new();
    let outcome = astrid.run(&["capsule", "build", "nonexistent"]);
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome.stderr.contains("Capsule.toml") && outcome.stderr.contains("hint: "),
        "{outcome:?}"
    );
}

/// Unknown keys are errors with line and hint.
#[test]
fn a_wrong_manifest() {
    let astrid = Astrid::new();
    let dir = crate_with(&astrid, &MANIFEST.replace("description", "descripton"));
    let outcome = astrid.run(&["capsule", "build", dir.to_str().unwrap()]);
    assert_eq!(outcome.code(), 1);
    assert!(
        outcome.stderr.contains("Capsule.toml:4") && outcome.stderr.contains("description"),
        "{outcome:?}"
    );
}

/// A compiler without the target is said in one sentence, with what to do about it.
#[test]
fn a_missing_toolchain() {
    let astrid = Astrid::new();
    let dir = crate_with(&astrid, MANIFEST);
    for compiler in ["echo /nonexistent/lib", "echo 'error: unknown target' >&2; exit 1"] {
        let outcome = build_with(&astrid, &dir, compiler);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains("wasm32-unknown-unknown"), "{outcome:?}");
        assert!(
            outcome.stderr.contains("hint: ") && outcome.stderr.contains("CAPSULE_RUSTC"),
            "{outcome:?}"
        );
    }
    let mut command = astrid.command(&["capsule", "build", dir.to_str().unwrap()]);
    let outcome = run(command.env("CAPSULE_RUSTC", "/nonexistent/rustc"), b"");
    assert!(outcome.stderr.contains("cannot run /nonexistent/rustc"), "{outcome:?}");
}

/// What is no capsule is refused, and nothing is written.
#[test]
fn what_is_no_capsule() {
    let astrid = Astrid::new();
    let dir = crate_with(&astrid, MANIFEST);
    // Not WebAssembly; a module that exports nothing; a component that exports nothing.
    let components: [&[u8]; 3] = [b"hello", b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"];
    for bytes in components {
        let wasm = astrid.scratch().join("guest.wasm");
        fs::write(&wasm, bytes).unwrap();
        let line = [
            "capsule",
            "build",
            dir.to_str().unwrap(),
            "--wasm",
            wasm.to_str().unwrap(),
            "--out",
            "out",
        ];
        let outcome = astrid.run(&line);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        assert!(
            outcome.stdout.is_empty() && outcome.stderr.starts_with("error: "),
            "{outcome:?}"
        );
        assert!(!astrid.scratch().join("out").exists());
    }
}
