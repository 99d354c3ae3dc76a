//! `astrid process run NAME -- COMMAND`: defines a program and starts it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::view::{Process, Processes};
use super::{ask, ask_and_wait, size, switch};
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::Output;

/// Most instances of a program.
const INSTANCES_MAX: i64 = 1000;

/// Begins the name of a program that lies in the workspace.
const WORKSPACE: &str = "workspace://";

/// Define a program, start it, and keep it running
///
/// Returns when it runs, or says why it does not. It stays defined, also when it could not be started: it is started with the
/// daemon, until `remove`. The same definition again is no error.
///
/// It reaches nothing of the daemon's home. The price: it cannot make new files directly in a directory that contains that home, only in
/// the directories beside it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What it is called: a-z, 0-9, `.`, `_` and `-`
    name: String,

    /// When it is started again after it ended [default: on-failure]
    #[arg(long, value_enum, value_name = "WHEN", hide_default_value = true)]
    restart: Option<Restart>,

    /// How many run at once; each finds its number in $ASTRID_INSTANCE [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=INSTANCES_MAX))]
    instances: Option<i64>,

    /// A variable of its environment; NAME alone takes the value from here
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// The same, with a value that is kept out of what is shown and logged
    #[arg(long, value_name = "NAME=VALUE")]
    secret: Vec<String>,

    /// The directory it runs in [default: this one]
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// Most private memory that each of its processes may map, as in 512MiB; what it shares counts only in /dev/shm of its own
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<String>,

    /// Let it run on when the daemon ends
    #[arg(long)]
    adopt: bool,

    /// Let it reach the daemon's home, keys and sockets included
    #[arg(long, conflicts_with_all = ["sandbox", "network", "read", "write", "best_effort"])]
    no_sandbox: bool,

    /// What it is kept from; `project` lets it write only where it runs, `sealed` speak to nobody as well [default: home]
    #[arg(long, value_enum, value_name = "NAME", hide_default_value = true)]
    sandbox: Option<Profile>,

    /// Whom it speaks to over sockets
    #[arg(long, value_enum, value_name = "WHOM")]
    network: Option<Network>,

    /// What it reads, besides what it writes and what any program needs; may be repeated
    #[arg(long, value_name = "PATH")]
    read: Vec<PathBuf>,

    /// What it writes, besides what --sandbox says; may be repeated
    #[arg(long, value_name = "PATH")]
    write: Vec<PathBuf>,

    /// Start it although something of its sandbox cannot be had here, but not without keeping the daemon's home; `status` says what
    #[arg(long)]
    best_effort: bool,

    /// Let it work in the workspace, with what was changed there: overlay, or checkout=SIZE for a copy
    #[arg(long, value_name = "HOW", value_parser = workspace, conflicts_with = "adopt")]
    workspace: Option<Value>,

    /// How to see that it is well: tcp:HOST:PORT, http://..., or script:COMMAND
    #[arg(long, value_name = "CHECK", value_parser = health)]
    health: Option<Value>,

    /// Change a program of this name that is defined differently
    #[arg(long)]
    replace: bool,

    /// Return as soon as it is defined
    #[arg(long)]
    no_wait: bool,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Profile {
    Home,
    None,
    Project,
    Sealed,
}

impl Profile {
    fn word(self) -> &'static str {
        match self {
            Self::Home => "home",
            Self::None => "none",
            Self::Project => "project",
            Self::Sealed => "sealed",
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Network {
    /// Nobody
    None,
    /// Sockets of this machine that have a path
    Local,
    /// A network of its own, in which nobody else is; no sockets with a path
    Loopback,
    /// Everybody
    Full,
}

impl Network {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Loopback => "loopback",
            Self::Full => "full",
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Restart {
    OnFailure,
    Always,
    Never,
}

impl Restart {
    fn word(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// What `--workspace` says, as a definition has it.
fn workspace(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        None if text == "overlay" => Ok(json!("overlay")),
        Some(("checkout", size)) => Ok(json!({ "checkout": size::parse(size)? })),
        _ => Err("write overlay or checkout=SIZE".to_owned()),
    }
}

/// What it is kept from; none when nothing was said of that.
fn sandbox(args: &Args, here: &Path) -> anyhow::Result<Option<Value>> {
    if args.no_sandbox {
        return Ok(Some(json!("none")));
    }
    let said = args.network.is_some() || args.best_effort || !args.read.is_empty() || !args.write.is_empty();
    let profile = args.sandbox.map(Profile::word);
    if !said {
        return Ok(profile.map(|profile| json!(profile)));
    }
    let paths = |paths: &[PathBuf]| {
        let paths = paths.iter().map(|path| match path.to_str() {
            // Names that stand for places are no paths from here.
            Some(text) if text.contains("://") => Ok(text.to_owned()),
            _ => utf8(&std::path::absolute(here.join(path)).context("a path cannot be found from here")?),
        });
        paths.collect::<anyhow::Result<Vec<_>>>()
    };
    let mut given = Map::new();
    if let Some(profile) = profile {
        given.insert("profile".to_owned(), json!(profile));
    }
    if let Some(network) = args.network {
        given.insert("network".to_owned(), json!(network.word()));
    }
    for (name, list) in [("read", &args.read), ("write", &args.write)] {
        if !list.is_empty() {
            given.insert(name.to_owned(), json!(paths(list)?));
        }
    }
    if args.best_effort {
        given.insert("best_effort".to_owned(), json!(true));
    }
    Ok(Some(Value::Object(given)))
}

/// The check of `--health`, as a definition has it.
fn health(text: &str) -> Result<Value, String> {
    const FORMS: &str = "write tcp:HOST:PORT, http://HOST:PORT/PATH or script:COMMAND";
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("https:") || lower.starts_with("http:https:") {
        return Err("https is not supported; use script: with a program that speaks it".to_owned());
    }
    if lower.starts_with("http://") {
        return Ok(json!({ "kind": "http", "url": text }));
    }
    match text.split_once(':') {
        Some(("tcp", address)) => {
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            match port {
                Some(Ok(1..)) => Ok(json!({ "kind": "tcp", "address": address })),
                _ => Err(format!("`{address}` has no port; write tcp:HOST:PORT")),
            }
        }
        Some(("http", url)) if url.to_ascii_lowercase().starts_with("http://") => {
            Ok(json!({ "kind": "http", "url": url }))
        }
        Some(("script", script)) if !script.trim().is_empty() => {
            Ok(json!({ "kind": "script", "command": "/bin/sh", "args": ["-c", script] }))
        }
        _ => Err(FORMS.to_owned()),
    }
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("this directory cannot be named; is it still there?")?;
    let definition = definition(&args, &here, |name| std::env::var(name).ok())?;
    let body = json!({ "process": definition, "replace": args.replace });
    ask::<Process>(context, "define", &body)?;
    let body = json!({ "name": args.name, "instance": null, "wait": !args.no_wait });
    let answer = ask_and_wait::<Processes>(context, "start", &body)?;
    if context.output.is_json() {
        Output::json(&answer.raw)?;
    }
    switch::conclude(context, &answer.read.processes, !args.no_wait)
}

/// The definition. What was not said is left to the defaults of definitions.
fn definition(args: &Args, here: &Path, look_up: impl Fn(&str) -> Option<String>) -> anyhow::Result<Value> {
    let (command, arguments) = args.command.split_first().context("a command is missing")?;
    let mut definition = Map::new();
    let mut set = |key: &str, value: Value| definition.insert(key.to_owned(), value);
    set("name", json!(args.name));
    set("command", json!(program(command, here)?));
    set("args", json!(arguments));
    match (&args.cwd, &args.workspace) {
        (Some(cwd), _) => drop(set("cwd", json!(utf8(&here.join(cwd))?))),
        // It works in the workspace, wherever that is.
        (None, Some(_)) => {}
        (None, None) => drop(set("cwd", json!(utf8(here)?))),
    }
    let (env, secrets) = environment(&args.env, &args.secret, look_up)?;
    if !env.is_empty() {
        set("env", json!(env));
    }
    if !secrets.is_empty() {
        set("secrets", json!(secrets));
    }
    if let Some(restart) = args.restart {
        set("restart", json!(restart.word()));
    }
    if let Some(instances) = args.instances {
        set("instances", json!(instances));
    }
    if let Some(memory) = &args.memory {
        set("limits", json!({ "memory": memory }));
    }
    if args.adopt {
        set("adopt", json!(true));
    }
    if let Some(sandbox) = sandbox(args, here)? {
        set("sandbox", sandbox);
    }
    if let Some(workspace) = &args.workspace {
        set("workspace", workspace.clone());
    }
    if let Some(health) = &args.health {
        set("health", health.clone());
    }
    Ok(Value::Object(definition))
}

/// A program with a slash is a file, seen from here; the rest is looked for in PATH, where it is started.
fn program(command: &str, here: &Path) -> anyhow::Result<String> {
    if command.is_empty() {
        return Err(Failure::usage("the command is empty").into());
    }
    // What is in a workspace is where that is.
    if command.contains('/') && !command.starts_with(WORKSPACE) {
        // Also without `.`: as a person would write it.
        let path = std::path::absolute(here.join(command)).context("the command cannot be found from here")?;
        return utf8(&path);
    }
    Ok(command.to_owned())
}

fn utf8(path: &Path) -> anyhow::Result<String> {
    let Some(text) = path.to_str() else {
        let failure = Failure::failed(format!("{} is not UTF-8, and a definition is", path.display()));
        return Err(failure.hint("name another directory with --cwd").into());
    };
    Ok(text.to_owned())
}

/// The variables of `--env` and `--secret`, and the names of the secret ones.
fn environment(
    plain: &[String],
    secret: &[String],
    look_up: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(BTreeMap<String, String>, Vec<String>)> {
    let mut env = BTreeMap::new();
    let mut secrets = Vec::new();
    let said = plain.iter().map(|text| (text, "--env", false));
    for (text, option, is_secret) in said.chain(secret.iter().map(|text| (text, "--secret", true))) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), look_up(text)),
        };
        // What was typed may be a secret, so only the name is repeated.
        if name.is_empty() {
            return Err(Failure::usage(format!("{option} needs a name before the `=`")).into());
        }
        let Some(value) = value else {
            let failure = Failure::usage(format!("{option} {name}: there is no such variable here"));
            return Err(failure.hint(format!("write {option} {name}=VALUE")).into());
        };
        if env.insert(name.to_owned(), value).is_some() {
            return Err(Failure::usage(format!("{name} is given twice")).into());
        }
        if is_secret {
            secrets.push(name.to_owned());
        }
    }
    Ok((env, secrets))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn define(line: &[&str]) -> anyhow::Result<Value> {
        let line = Line::try_parse_from([&["run"], line].concat())?;
        definition(&line.args, Path::new("/home/me"), |name| {
            (name == "HERE").then(|| "yes".to_owned())
        })
    }

    #[test]
    fn the_least_that_can_be_said() {
        assert_eq!(
            define(&["web", "--", "python3", "-m", "http.server", "--x"]).unwrap(),
            json!({ "name": "web", "command": "python3", "args": ["-m", "http.server", "--x"], "cwd": "/home/me" })
        );
    }

    #[test]
    fn the_most_that_can_be_said() {
        let line = [
            "web",
            "--restart",
            "always",
            "--instances",
            "3",
            "--env",
            "A=1=2",
            "--env",
            "HERE",
            "--secret",
            "K=s",
            "--cwd",
            "srv",
            "--memory",
            "512M",
            "--adopt",
            "--no-sandbox",
            "--health",
            "tcp:localhost:80",
            "--replace",
            "--",
            "./serve",
        ];
        assert_eq!(
            define(&line).unwrap(),
            json!({ "name": "web", "command": "/home/me/serve", "args": [], "cwd": "/home/me/srv",
                    "env": { "A": "1=2", "HERE": "yes", "K": "s" }, "secrets": ["K"], "restart": "always", "instances": 3,
                    "limits": { "memory": "512MiB" }, "adopt": true, "sandbox": "none",
                    "health": { "kind": "tcp", "address": "localhost:80" } })
        );
    }

    /// A18.
    #[test]
    fn sandboxes() {
        let of = |line: &[&str]| {
            let defined = define(&[&["web"], line, &["--", "x"]].concat()).unwrap();
            (
                defined["sandbox"].clone(),
                defined["cwd"].clone(),
                defined["workspace"].clone(),
            )
        };
        let (me, nothing) = (json!("/home/me"), Value::Null);
        assert_eq!(
            of(&["--sandbox", "sealed"]),
            (json!("sealed"), me.clone(), nothing.clone())
        );
        let line = [
            "--network",
            "none",
            "--read",
            "src",
            "--write",
            "/tmp",
            "--write",
            "tmp://",
            "--best-effort",
        ];
        let given =
            json!({ "network": "none", "read": ["/home/me/src"], "write": ["/tmp", "tmp://"], "best_effort": true });
        assert_eq!(of(&line), (given, me, nothing.clone()));
        assert_eq!(
            of(&["--workspace", "overlay"]),
            (nothing.clone(), nothing.clone(), json!("overlay"))
        );
        let copy = of(&["--workspace", "checkout=2G", "--cwd", "/srv"]);
        assert_eq!(copy, (nothing, json!("/srv"), json!({ "checkout": "2GiB" })));
    }

    #[test]
    fn what_makes_no_sense() {
        for (line, part) in [
            (&["web"][..], "COMMAND"),
            (&["web", "--", ""], "the command is empty"),
            (&["web", "--instances", "0", "--", "x"], "0 is not in 1..=1000"),
            (&["web", "--env", "=1", "--", "x"], "--env needs a name"),
            (
                &["web", "--secret", "GONE", "--", "x"],
                "--secret GONE: there is no such variable",
            ),
            (
                &["web", "--env", "A=1", "--secret", "A=2", "--", "x"],
                "A is given twice",
            ),
            (&["web", "--memory", "lots", "--", "x"], "64MiB"),
            (&["web", "--restart", "often", "--", "x"], "on-failure"),
            (&["web", "--workspace", "copy", "--", "x"], "checkout=SIZE"),
            (&["web", "--no-sandbox", "--network", "none", "--", "x"], "--no-sandbox"),
        ] {
            let error = define(line).unwrap_err().to_string();
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }

    /// A12.
    #[test]
    fn checks_of_health() {
        assert_eq!(
            health("tcp:[::1]:80").unwrap(),
            json!({ "kind": "tcp", "address": "[::1]:80" })
        );
        for url in ["http://localhost/x", "http:http://localhost/x"] {
            assert_eq!(
                health(url).unwrap(),
                json!({ "kind": "http", "url": "http://localhost/x" })
            );
        }
        assert_eq!(
            health("script:test -e a:b").unwrap(),
            json!({ "kind": "script", "command": "/bin/sh", "args": ["-c", "test -e a:b"] })
        );
        for (bad, part) in [
            ("https://x", "https"),
            ("tcp:localhost", "no port"),
            ("tcp:h:0", "no port"),
            ("tcp:h:99999", "no port"),
            ("script: ", "write"),
            ("", "write"),
            ("ping", "write"),
        ] {
            assert!(health(bad).unwrap_err().contains(part), "{bad}");
        }
    }
}
