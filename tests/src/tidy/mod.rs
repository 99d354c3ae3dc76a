//! The rules of the tree that no compiler holds: which part may use which, what a file looks like, and words that do not occur.
//!
//! Each rule reads source text and reports every place that breaks it. Rules that clippy can hold are in `clippy.toml` and in
//! the lints of the workspaces, not here.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod crates;
mod files;
mod kernel;
mod tokens;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A file of the tree.
struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

/// Folders that are not source.
const NOT_SOURCE: [&str; 4] = ["target", ".git", ".cargo", "documents"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files of the tree that are text and have one of the endings.
fn sources(endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if !NOT_SOURCE.contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push(Source {
                    path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                    text,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no file ends with any of {endings:?}");
    found
}

/// Rust that people wrote, in all folders that begin with the prefix.
fn rust_sources(prefix: &str) -> Vec<Source> {
    let mut found = sources(&[".rs"]);
    found.retain(|source| source.path.starts_with(prefix) && !source.path.ends_with("/generated.rs"));
    found
}

/// Fails with all places that break a rule, not only with the first.
fn report(rule: &str, places: &[String]) {
    let mut text = String::new();
    for place in places {
        let _ = write!(text, "\n  {place}");
    }
    assert!(places.is_empty(), "{rule}:{text}");
}
