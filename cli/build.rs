//! Embeds the built-in capsules: every `NAME.capsule` of a directory, with `NAME.cwasm` (its compiled form) if that is there.
//!
//! The directory is `target/capsules`, or what `ASTRID_EMBED_DIR` names. It is filled by `astrid capsule build`, that is by an
//! earlier build of this very crate; so it may be empty, and then nothing is embedded. Bundles are not read here: the
//! daemon checks them like any other.

// Build scripts talk to cargo by printing, and end by panicking.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a build script")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names the directory.
const VARIABLE: &str = "ASTRID_EMBED_DIR";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let directory = match env::var_os(VARIABLE).filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target/capsules"),
    };
    // Cargo runs this again and again while what it depends on is missing.
    fs::create_dir_all(&directory)?;
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut table = String::from("const EMBEDDED: &[Embedded] = &[\n");
    for name in names(&directory)? {
        let bundle = directory.join(format!("{name}.capsule"));
        let compiled = directory.join(format!("{name}.cwasm"));
        let precompiled = match compiled.is_file() {
            true => format!("Some(include_bytes!({:?}))", path(&compiled)?),
            false => "None".to_owned(),
        };
        writeln!(
            table,
            "    Embedded {{ name: {name:?}, bundle: include_bytes!({:?}), precompiled: {precompiled} }},",
            path(&bundle)?
        )?;
    }
    table.push_str("];\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("embedded.rs"), table)?;
    Ok(())
}

/// Names of the bundles there, in order.
fn names(directory: &Path) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "capsule") {
            let name = path
                .file_stem()
                .and_then(|name| name.to_str())
                .ok_or("the name of a bundle is not UTF-8")?;
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// The absolute path as a string, for the generated code.
fn path(path: &Path) -> Result<String, Box<dyn Error>> {
    let path = fs::canonicalize(path)?;
    Ok(path.to_str().ok_or("the path of a bundle is not UTF-8")?.to_owned())
}
