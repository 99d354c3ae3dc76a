//! `astrid capsule build`: from a crate to one file that a daemon loads.
//!
//! The steps are those that any author's tools could do: compile for `wasm32-unknown-unknown`, make the module a component, ask
//! it once to describe itself, and append manifest and description. Nothing is read from or told to a daemon.

#![allow(clippy::disallowed_methods, reason = "reads a crate and writes its bundle")]

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use astrid_wire::manifest::Manifest;
use serde::{Deserialize, Serialize};

use super::bytes;
use crate::cli::Context;
use crate::daemon;
use crate::failure::Failure;
use crate::output::Output;

/// What guests are compiled for.
const TARGET: &str = "wasm32-unknown-unknown";

/// A compiler that has the target, if the one on the path does not.
const COMPILER_VARIABLE: &str = "CAPSULE_RUSTC";

/// Where cargo puts what it makes for guests, if not where it does by default.
const TARGET_DIR_VARIABLE: &str = "ASTRID_GUEST_TARGET";

/// The fourth to eighth byte of a component; a core module has others.
const COMPONENT_VERSION: [u8; 4] = [0x0d, 0, 1, 0];

/// Build a capsule: compile it, make it a component, add its manifest and description
///
/// Writes NAME.capsule, which a daemon finds in the capsules directory of its home. The compiler is $CAPSULE_RUSTC, or the one
/// that cargo finds; it needs the target wasm32-unknown-unknown.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A crate with a Capsule.toml
    dir: PathBuf,

    /// Where the bundle goes
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,

    /// Take this module or component instead of compiling the crate
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,

    /// Also write NAME.cwasm: compiled for the least processor that is supported, to be embedded in a binary
    #[arg(long)]
    precompile: bool,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Built {
    name: String,
    version: String,
    bundle: PathBuf,
    bytes: u64,
    precompiled: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (manifest, text) = read_manifest(&args.dir.join("Capsule.toml"))?;
    let wasm = match &args.wasm {
        Some(file) => file.clone(),
        None => compile(&args.dir)?,
    };
    let wasm = fs::read(&wasm).with_context(|| format!("cannot read {}", wasm.display()))?;
    let component = componentize(wasm)?;
    let bundle = daemon::bundle(&component, &text)?;

    let path = args.out.join(format!("{}.capsule", manifest.name()));
    write_whole(&path, &bundle)?;
    let precompiled = match args.precompile {
        true => {
            let path = path.with_extension("cwasm");
            write_whole(&path, &daemon::precompile(&bundle)?)?;
            Some(path)
        }
        false => None,
    };
    let built = Built {
        name: manifest.name().to_owned(),
        version: manifest.package.version.to_string(),
        bytes: bundle.len() as u64,
        bundle: path,
        precompiled,
    };
    if context.output.is_json() {
        return Output::json(&built);
    }
    context
        .output
        .say(&format!("{} {}, {}", built.name, built.version, bytes(built.bytes)));
    Output::bytes(format!("{}\n", built.bundle.display()).as_bytes())
}

fn read_manifest(path: &Path) -> anyhow::Result<(Manifest, String)> {
    let text = fs::read_to_string(path).map_err(|error| {
        let failure = Failure::failed(format!("cannot read {}", path.display())).source(error);
        failure.hint("a capsule is a crate with a Capsule.toml beside its Cargo.toml")
    })?;
    match Manifest::parse(&text, &path.display().to_string()) {
        Ok(manifest) => Ok((manifest, text)),
        Err(error) => {
            let failure = Failure::failed(error.to_string());
            Err(match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
            .into())
        }
    }
}

/// Compiles the crate. Where the module is.
fn compile(dir: &Path) -> anyhow::Result<PathBuf> {
    let rustc = std::env::var_os(COMPILER_VARIABLE).filter(|rustc| !rustc.is_empty());
    check_target(dir, rustc.as_ref())?;
    let crate_manifest = dir.join("Cargo.toml");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--release",
        "--target",
        TARGET,
        "--message-format",
        "json-render-diagnostics",
    ]);
    // From the crate's directory, so that its own cargo configuration and toolchain file count.
    cargo.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(rustc) = rustc {
        cargo.env("RUSTC", rustc);
    }
    if let Some(target_dir) = std::env::var_os(TARGET_DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        cargo.arg("--target-dir").arg(std::path::absolute(target_dir)?);
    }
    let output = cargo
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|error| {
            Failure::failed("cannot run cargo")
                .source(error)
                .hint("install Rust, or give a module with --wasm FILE")
        })?;
    if !output.status.success() {
        return Err(Failure::failed(format!("cargo could not build {}", dir.display())).into());
    }
    let crate_manifest =
        fs::canonicalize(&crate_manifest).with_context(|| format!("cannot find {}", crate_manifest.display()))?;
    module_of(&output.stdout, &crate_manifest).ok_or_else(|| {
        let failure = Failure::failed(format!("{} makes no WebAssembly module", dir.display()));
        failure
            .hint("its Cargo.toml needs `[lib] crate-type = [\"cdylib\"]`")
            .into()
    })
}

/// What is read of a line that cargo prints about what it made.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The module among what cargo made of that crate.
fn module_of(messages: &[u8], crate_manifest: &Path) -> Option<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n');
    lines
        .filter_map(|line| serde_json::from_slice::<Artifact>(line).ok())
        .filter(|artifact| artifact.reason == "compiler-artifact" && artifact.manifest_path == crate_manifest)
        .flat_map(|artifact| artifact.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
}

/// That the compiler has the target. Cargo's own words about it are long, and do not say what to do here.
fn check_target(dir: &Path, rustc: Option<&OsString>) -> anyhow::Result<()> {
    let named = rustc
        .cloned()
        .or_else(|| std::env::var_os("RUSTC"))
        .unwrap_or_else(|| "rustc".into());
    let mut compiler = Command::new(&named);
    compiler
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(dir)
        .stdin(Stdio::null());
    let name = named.to_string_lossy().into_owned();
    let hint = format!(
        "`rustup target add {TARGET}`, or set {COMPILER_VARIABLE} to a compiler that has it, or give a module with --wasm FILE"
    );
    let output = compiler.output().map_err(|error| {
        Failure::failed(format!("cannot run {name}"))
            .source(error)
            .hint(hint.as_str())
    })?;
    let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if !output.status.success() || !libraries.is_dir() {
        return Err(Failure::failed(format!("{name} cannot compile for {TARGET}"))
            .hint(hint)
            .into());
    }
    Ok(())
}

/// Makes a module a component, by the types that its bindings left in it. A component is one already.
fn componentize(wasm: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if wasm.get(4..8) == Some(&COMPONENT_VERSION) {
        return Ok(wasm);
    }
    let encode = || {
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(&wasm)?
            .encode()
    };
    encode().map_err(|error| {
        let failure = Failure::failed("cannot make the module a component").source(error.into_boxed_dyn_error());
        failure
            .hint("a guest is built with the SDK, or with bindings of its own from wit/")
            .into()
    })
}

/// Writes a file that is either there as a whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let directory = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let write = || -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let mut file = tempfile::Builder::new().prefix(".astrid-").tempfile_in(directory)?;
        file.write_all(content)?;
        // As a file that was made without a detour: readable by whoever may, so that another user's daemon can load it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_module_is_the_crates_own() {
        let messages = br#"{"reason":"compiler-artifact","manifest_path":"/dep/Cargo.toml","filenames":["/t/dep.wasm"]}
not json
{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/liba.rlib","/t/a.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            module_of(messages, Path::new("/a/Cargo.toml")),
            Some("/t/a.wasm".into())
        );
        assert_eq!(module_of(messages, Path::new("/b/Cargo.toml")), None);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        assert!(componentize(b"hello".to_vec()).is_err());
        let component = [b"\0asm".as_slice(), &COMPONENT_VERSION].concat();
        assert_eq!(componentize(component.clone()).unwrap(), component);
    }

    #[test]
    fn files_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.capsule");
        write_whole(&path, b"1").unwrap();
        write_whole(&path, b"22").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"22");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
