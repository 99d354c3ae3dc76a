//! The whole command line reference, as one snapshot: what is typed is an interface, and a change to it is seen in review.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fmt::Write as _;
use std::path::Path;

use astrid_tests::daemon::Astrid;

/// Set to write the snapshot anew.
const UPDATE_VARIABLE: &str = "ASTRID_UPDATE_SNAPSHOTS";

#[test]
fn the_reference() {
    let astrid = Astrid::new();
    let mut reference = String::new();
    describe(&astrid, &[], &mut reference);

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/cli.txt");
    if std::env::var_os(UPDATE_VARIABLE).is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = expected
        .lines()
        .zip(reference.lines())
        .position(|(old, new)| old != new);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(reference.lines().count())) + 1;
    assert!(
        reference == expected,
        "the command line differs from {} at line {line}: `{}`\nif that is meant, run the test again with {UPDATE_VARIABLE}=1",
        path.display(),
        reference.lines().nth(line - 1).unwrap_or("(the end)")
    );
}

/// Appends the help of a command, and of all below it.
fn describe(astrid: &Astrid, command: &[String], reference: &mut String) {
    let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = astrid.run(&arguments).ok();
    assert!(help.stderr.is_empty(), "{help:?}");
    let _ = write!(reference, "$ astrid {}\n\n{}\n", arguments.join(" "), help.stdout);
    for name in subcommands(&help.stdout) {
        describe(astrid, &[command, &[name]].concat(), reference);
    }
}

/// The names under `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let section = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let names = section.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Help and version are data.
#[test]
fn version() {
    let outcome = Astrid::new().run(&["--version"]).ok();
    assert_eq!(outcome.stdout, format!("astrid {}\n", env!("CARGO_PKG_VERSION")));
}

/// Completions know the commands, and none that is not for people.
#[test]
fn completions() {
    let astrid = Astrid::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = astrid.run(&["completions", shell]).ok().stdout;
        assert!(script.contains("capsule") && script.contains("--ephemeral"), "{shell}");
        assert!(!script.contains("__compile") && !script.contains("__daemon"), "{shell}");
    }
}
