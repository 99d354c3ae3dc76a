//! Which crate may use which: `wire <- {kernel, cli, sdk}`, `sdk <- capsules`, `kernel <- cli`. And which crates of others stay out
//! of where.

use super::tokens::{Kind, code};
use super::{report, rust_sources, sources};

/// A folder, and the crates of this project that what is in it may use. The first that fits counts.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("sdk/wire/", &["astrid_wire"]),
    ("sdk/macros/", &["astrid_sdk_macros", "astrid_wire"]),
    ("sdk/rust/", &["astrid_sdk", "astrid_sdk_macros", "astrid_wire"]),
    ("capsules/", &["astrid_sdk", "astrid_wire"]),
    ("examples/", &["astrid_sdk", "astrid_wire"]),
    ("kernel/", &["astrid_kernel", "astrid_wire"]),
    ("cli/", &["astrid", "astrid_kernel", "astrid_wire"]),
    ("tests/guests/", &["astrid_sdk", "astrid_wire"]),
    ("tests/", &["astrid", "astrid_kernel", "astrid_tests", "astrid_wire"]),
];

/// A folder, and crates of others that do not belong there.
const STAYS_OUT: [(&str, &[&str]); 5] = [
    // Pure functions, also compiled for guests.
    ("sdk/wire/src/", &["tokio", "wasmtime", "rustix", "anyhow"]),
    // What runs in a guest has the kernel and nothing else.
    ("sdk/rust/src/", &["tokio", "wasmtime", "rustix", "anyhow"]),
    ("capsules/", &["tokio", "wasmtime", "rustix", "anyhow"]),
    // Typed errors: who is at fault is decided where it happens.
    ("kernel/src/", &["anyhow", "clap"]),
    // The engine is the kernel's.
    ("cli/src/", &["wasmtime"]),
];

fn allowed(path: &str) -> &'static [&'static str] {
    let found = MAY_USE.iter().find(|(folder, _)| path.starts_with(folder));
    found
        .unwrap_or_else(|| panic!("{path} is in no known folder; say in MAY_USE what it may use"))
        .1
}

#[test]
fn crates_use_only_what_is_below_them() {
    let mut places = Vec::new();
    for source in rust_sources("") {
        // A macro's output names the crate whose users it writes for.
        if source.path.starts_with("sdk/macros/") {
            continue;
        }
        let allowed = allowed(&source.path);
        for token in code(&source.text) {
            let ours = token.text.starts_with("astrid_") && CRATES.contains(&token.text);
            if token.kind == Kind::Word && ours && !allowed.contains(&token.text) {
                places.push(format!("{}:{}: {}", source.path, token.line, token.text));
            }
        }
    }
    for manifest in sources(&["Cargo.toml"]) {
        if !manifest.text.contains("[package]") {
            continue;
        }
        let allowed = allowed(&manifest.path);
        for (number, name) in dependencies(&manifest.text) {
            let name = name.replace('-', "_");
            if CRATES.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                places.push(format!("{}:{number}: {name}", manifest.path));
            }
        }
    }
    report(
        "dependencies run one way: wire <- {kernel, cli, sdk}, sdk <- capsules, kernel <- cli",
        &places,
    );
}

/// The crates of this project.
const CRATES: [&str; 6] = [
    "astrid",
    "astrid_kernel",
    "astrid_wire",
    "astrid_sdk",
    "astrid_sdk_macros",
    "astrid_tests",
];

#[test]
fn crates_of_others_stay_where_they_belong() {
    let mut places = Vec::new();
    for (folder, names) in STAYS_OUT {
        for source in rust_sources(folder) {
            let found = code(&source.text);
            for pair in found.windows(2) {
                if names.contains(&pair[0].text) && pair[1].text == "::" {
                    places.push(format!("{}:{}: {}", source.path, pair[0].line, pair[0].text));
                }
            }
        }
    }
    report("a crate is used where it does not belong (STAYS_OUT says why)", &places);
}

/// The names of all dependencies in a manifest, with their lines.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_table = false;
    for (number, line) in manifest.lines().enumerate() {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            in_table = header.ends_with("dependencies");
            // [dependencies.name]
            if let Some((table, name)) = header.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.push((number + 1, name));
            }
        } else if in_table && line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            found.push((number + 1, line.split(['.', ' ', '=']).next().unwrap_or(line)));
        }
    }
    found
}

#[test]
fn dependencies_are_read_in_all_their_spellings() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na = \"1\"\nb.workspace = true\n# c = 1\n\n\
                    [dependencies.d]\nversion = \"1\"\n[target.'cfg(unix)'.dev-dependencies]\ne = { path = \".\" }\n[lints]\nf = 1\n";
    assert_eq!(dependencies(manifest), [(4, "a"), (5, "b"), (8, "d"), (11, "e")]);
}
