//! `astrid process import FILE`: definitions from the files of others: pm2's ecosystem file (JSON) and the Procfile.
//!
//! What has no counterpart here is not guessed: each such key is named, with what could be done instead. The result is the same
//! TOML that `apply` takes, so that it can be printed, read and kept.

mod pm2;
mod procfile;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use super::apply;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;

/// Most programs of one file.
const PROGRAMS_MAX: usize = 1000;

/// Most bytes of a program's name, as definitions have it.
const NAME_BYTES_MAX: usize = 48;

/// Most remarks that are printed; the rest is counted.
const REMARKS_MAX: usize = 200;

/// Take over programs from pm2 (ecosystem file in JSON) or from a Procfile
///
/// What cannot be carried over is said on stderr, key by key. The programs are started, unless --print.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; `-` for stdin
    file: PathBuf,

    /// Only print the definitions, for a file that `apply` takes
    #[arg(long)]
    print: bool,
}

impl Args {
    pub(super) fn talks_to_the_daemon(&self) -> bool {
        !self.print
    }
}

/// A definition, as far as others' files fill it. Tables come last, as in TOML.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Definition {
    name: String,
    command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    cwd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    instances: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    autostart: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_restarts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_uptime: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<Backoff>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<Stop>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Backoff {
    policy: &'static str,
    base: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Stop {
    timeout: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Log {
    merge: bool,
}

/// What `apply` takes.
#[derive(Debug, Serialize)]
struct Document<'a> {
    processes: &'a [Definition],
}

/// What was read, and what is to be said about it.
#[derive(Debug, Default)]
struct Imported {
    processes: Vec<Definition>,
    remarks: Vec<Remark>,
    names: BTreeSet<String>,
}

/// Something that is not as it was.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Remark {
    /// The program, as it is called there.
    program: String,
    /// The key or line that is meant.
    key: String,
    /// What became of it.
    text: String,
}

/// What `--format json` prints with `--print`.
#[derive(Serialize)]
struct Printed<'a> {
    toml: &'a str,
    remarks: &'a [Remark],
}

impl Imported {
    fn remark(&mut self, program: &str, key: &str, text: impl Into<String>) {
        self.remarks.push(Remark {
            program: program.to_owned(),
            key: key.to_owned(),
            text: text.into(),
        });
    }

    /// The name that a program has here: what a name may hold, not too long, and not twice.
    fn name(&mut self, wanted: &str) -> String {
        let clean: String = wanted
            .to_lowercase()
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .take(NAME_BYTES_MAX)
            .collect();
        let clean = if clean.is_empty() { "program".to_owned() } else { clean };
        let mut name = clean.clone();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            let suffix = format!("-{number}");
            name = clean.chars().take(NAME_BYTES_MAX - suffix.len()).collect::<String>() + &suffix;
        }
        if name != wanted {
            self.remark(wanted, "name", format!("it is called {name} here"));
        }
        name
    }

    fn add(&mut self, definition: Definition) -> anyhow::Result<()> {
        if self.processes.len() >= PROGRAMS_MAX {
            return Err(Failure::failed(format!("more than {PROGRAMS_MAX} programs")).into());
        }
        self.processes.push(definition);
        Ok(())
    }

    fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&Document {
            processes: &self.processes,
        })?)
    }
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (text, origin) = apply::read(&args.file)?;
    let here = std::env::current_dir()?;
    let directory = here.join(&args.file);
    let directory = directory.parent().unwrap_or(&here);
    let imported = import(&text, &origin, &args.file, directory)?;
    let toml = imported.to_toml()?;
    for remark in imported.remarks.iter().take(REMARKS_MAX) {
        context
            .output
            .say(&format!("{}: {}: {}", remark.program, remark.key, remark.text));
    }
    if imported.remarks.len() > REMARKS_MAX {
        let more = imported.remarks.len() - REMARKS_MAX;
        context.output.say(&format!("and {more} more like these"));
    }
    let remarks = &imported.remarks;
    if args.print {
        if context.output.is_json() {
            return Output::json(&Printed { toml: &toml, remarks });
        }
        return Output::bytes(toml.as_bytes());
    }
    let answer = apply::apply(context, &toml, &origin, false)?;
    if context.output.is_json() {
        return Output::json(&json!({ "applied": answer.raw, "toml": toml, "remarks": remarks }));
    }
    apply::say(context, &answer.read);
    Ok(())
}

/// Reads whichever of the formats it is.
fn import(text: &str, origin: &str, file: &Path, directory: &Path) -> anyhow::Result<Imported> {
    let extension = file.extension().and_then(|extension| extension.to_str());
    if matches!(extension, Some("js" | "cjs" | "mjs" | "ts")) {
        let failure = Failure::failed(format!("{origin} is a program, and is not run to see what it says"));
        return Err(failure
            .hint("node -p 'JSON.stringify(require(\"./FILE\"))' | astrid process import -")
            .into());
    }
    let is_json = extension == Some("json") || text.trim_start().starts_with(['{', '[']);
    let imported = if is_json {
        pm2::import(text, origin, directory)?
    } else {
        procfile::import(text, origin, directory)?
    };
    if imported.processes.is_empty() {
        return Err(Failure::failed(format!("{origin} defines no program")).into());
    }
    Ok(imported)
}

/// The words of a command as a shell would see them: blanks part, quotes and backslashes keep together. Nothing is expanded.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or("nothing after the last backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a {open} without its counterpart"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn failure(text: &str, file: &str) -> String {
        let error = import(text, file, Path::new(file), Path::new("/app")).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn formats_are_told_apart() {
        let count = |text: &str, file: &str| {
            let imported = import(text, file, Path::new(file), Path::new("/app")).unwrap();
            imported.processes.len()
        };
        assert_eq!(count(r#" {"apps": [{"script": "a.js"}]}"#, "-"), 1);
        assert_eq!(count(r#"[{"script": "a.js"}, {"script": "b.js"}]"#, "x.json"), 2);
        assert_eq!(count("web: x\nworker: y\n", "Procfile"), 2);
        assert!(failure("module.exports = {}", "ecosystem.config.js").contains("is a program"));
        assert!(failure("", "Procfile").contains("defines no program"));
        assert!(failure("{\"apps\": []}", "-").contains("defines no program"));
    }

    /// Hostile files: a typed refusal with its place, and no panic.
    #[test]
    fn hostile_files() {
        let deep = "[".repeat(100_000);
        assert!(
            failure(&deep, "x.json").contains("x.json:1:128"),
            "{}",
            failure(&deep, "x.json")
        );
        assert!(failure("{\"apps\": [\n{\"script\": }]}", "x.json").contains("x.json:2:12"));
        assert!(failure("\0\0", "x").contains("x:1"));
        let many = format!("[{}]", vec![r#"{"script":"a"}"#; PROGRAMS_MAX + 1].join(","));
        assert!(failure(&many, "x.json").contains("more than 1000 programs"));
        let many: String = (0..=PROGRAMS_MAX).map(|n| format!("p{n}: x\n")).collect();
        assert!(failure(&many, "Procfile").contains("more than 1000 programs"));
    }

    #[test]
    fn names() {
        let mut imported = Imported::default();
        assert_eq!(imported.name("web"), "web");
        assert_eq!(imported.name("web"), "web-2");
        assert_eq!(imported.name("Web App!"), "web-app-");
        assert_eq!(imported.name(""), "program");
        let long = "x".repeat(100);
        assert_eq!(imported.name(&long).len(), NAME_BYTES_MAX);
        assert_eq!(imported.name(&long).len(), NAME_BYTES_MAX);
        assert_eq!(imported.remarks.len(), 5);
    }

    #[test]
    fn shell_words() {
        let read = |text| words(text).unwrap();
        assert_eq!(
            read(r#" a  'b c' "d \" e" f\ g '' "#),
            ["a", "b c", "d \" e", "f g", ""]
        );
        assert!(read("  ").is_empty());
        assert!(words("it's").unwrap_err().contains('\''));
        assert!(words("a\\").is_err());
    }
}
