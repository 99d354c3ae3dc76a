//! `astrid process apply FILE`: definitions from a file.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, ask_and_wait};
use crate::body;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;

/// Most bytes of a file with definitions, of whatever format: hundreds of programs fit.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Define the programs of a file: new ones are started, changed ones restarted
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// TOML with a `[[processes]]` table for each program; `-` for stdin
    file: PathBuf,

    /// Stop and remove every program that is not in the file
    #[arg(long)]
    prune: bool,
}

/// What became of the programs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Applied {
    added: Vec<String>,
    changed: Vec<String>,
    unchanged: Vec<String>,
    removed: Vec<String>,
}

impl Applied {
    fn words(&self) -> String {
        let named = |what: &str, names: &[String]| match names {
            [] => None,
            names => Some(format!("{what} {}", names.join(", "))),
        };
        let parts: Vec<String> = [
            named("added", &self.added),
            named("changed", &self.changed),
            named("removed", &self.removed),
            (!self.unchanged.is_empty()).then(|| format!("{} unchanged", self.unchanged.len())),
        ]
        .into_iter()
        .flatten()
        .collect();
        match parts.as_slice() {
            [] => "nothing is defined there".to_owned(),
            parts => parts.join("; "),
        }
    }
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (text, origin) = read(&args.file)?;
    let answer = apply(context, &text, &origin, args.prune)?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    say(context, &answer.read);
    Ok(())
}

/// Has definitions applied.
pub(super) fn apply(context: &Context, text: &str, origin: &str, prune: bool) -> anyhow::Result<Answer<Applied>> {
    let body: Value = json!({ "text": text, "origin": origin, "prune": prune });
    ask_and_wait::<Applied>(context, "apply", &body)
}

/// Says what became of them.
pub(super) fn say(context: &Context, applied: &Applied) {
    context.output.say(&applied.words());
}

/// The text of a file, and what to call it where it is wrong.
pub(super) fn read(file: &std::path::Path) -> anyhow::Result<(String, String)> {
    let origin = match file.as_os_str().to_str() {
        Some("-") => "stdin".to_owned(),
        _ => file.display().to_string(),
    };
    let bytes = body::read_file(file, FILE_BYTES_MAX)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((text, origin)),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(Failure::failed(format!("{origin}:{line}: not UTF-8")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write as _;

    #[test]
    fn what_became_of_them() {
        let applied = |value| serde_json::from_value::<Applied>(value).unwrap().words();
        assert_eq!(
            applied(json!({ "added": ["a", "b"], "changed": [], "unchanged": ["c"], "removed": ["d"] })),
            "added a, b; removed d; 1 unchanged"
        );
        assert_eq!(applied(json!({})), "nothing is defined there");
    }

    /// Hostile files are refused with their place.
    #[test]
    fn files_that_are_no_text() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"a = 1\nb = \"\xff\"\n").unwrap();
        assert!(read(file.path()).unwrap_err().to_string().ends_with(":2: not UTF-8"));
        file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(
            read(file.path())
                .unwrap_err()
                .to_string()
                .contains("larger than 4194304 bytes")
        );
        assert!(
            read("/nonexistent".as_ref())
                .unwrap_err()
                .to_string()
                .contains("cannot open")
        );
        assert!(read("/".as_ref()).is_err());
    }
}
