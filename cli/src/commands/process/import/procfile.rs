//! The Procfile: a line for each kind of program, `name: command`, where the command is a shell's.

use std::path::Path;

use super::{Definition, Imported};
use crate::failure::Failure;

/// Runs the commands.
const SHELL: &str = "/bin/sh";

/// Reads one. Its directory is where the programs run.
pub(super) fn import(text: &str, origin: &str, directory: &Path) -> anyhow::Result<Imported> {
    let mut imported = Imported::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let number = number + 1;
        let wrong = |what: &str| {
            let failure = Failure::failed(format!("{origin}:{number}: {what}"));
            failure.hint("a line of a Procfile is `name: command`")
        };
        let (name, command) = line.split_once(':').ok_or_else(|| wrong("there is no `:`"))?;
        let (name, command) = (name.trim(), command.trim());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(wrong("what is before the `:` is no name").into());
        }
        if command.is_empty() || command.contains('\0') {
            return Err(wrong("what is after the `:` is no command").into());
        }
        remark(&mut imported, name, command, number);
        let definition = Definition {
            name: imported.name(name),
            command: SHELL.to_owned(),
            args: vec!["-c".to_owned(), command.to_owned()],
            cwd: directory.display().to_string(),
            restart: (name == "release").then_some("never"),
            ..Definition::default()
        };
        imported.add(definition)?;
    }
    Ok(imported)
}

/// Says what those who read Procfiles do besides.
fn remark(imported: &mut Imported, name: &str, command: &str, number: usize) {
    let line = format!("line {number}");
    if name == "release" {
        imported.remark(
            name,
            &line,
            "it runs once and is not restarted; the others do not wait for it",
        );
    }
    if command.contains("$PORT") || command.contains("${PORT") {
        imported.remark(name, &line, "nobody sets PORT here; give it in `env`");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_carried_over() {
        let text = "# all\r\nweb: bundle exec puma -p $PORT\r\n\nrelease: rake db:migrate\nWorker_1 :  ./work\n";
        let imported = import(text, "Procfile", Path::new("/app")).unwrap();
        let expected = r#"[[processes]]
name = "web"
command = "/bin/sh"
args = ["-c", "bundle exec puma -p $PORT"]
cwd = "/app"

[[processes]]
name = "release"
command = "/bin/sh"
args = ["-c", "rake db:migrate"]
cwd = "/app"
restart = "never"

[[processes]]
name = "worker_1"
command = "/bin/sh"
args = ["-c", "./work"]
cwd = "/app"
"#;
        assert_eq!(imported.to_toml().unwrap(), expected);
        let said: Vec<String> = imported
            .remarks
            .iter()
            .map(|remark| format!("{} {}", remark.program, remark.key))
            .collect();
        assert_eq!(said, ["web line 2", "release line 4", "Worker_1 name"]);
    }

    #[test]
    fn lines_that_are_none() {
        for (text, part) in [
            ("web: x\nnothing here\n", "Procfile:2: there is no `:`"),
            (": x", "Procfile:1: what is before"),
            ("a b: x", "Procfile:1: what is before"),
            ("web:   ", "Procfile:1: what is after"),
            ("web: a\0b", "Procfile:1: what is after"),
        ] {
            let error = import(text, "Procfile", Path::new("/")).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
