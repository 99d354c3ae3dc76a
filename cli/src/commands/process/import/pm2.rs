//! pm2's ecosystem file in JSON: `{"apps": [...]}`, a list of apps, or one app.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Backoff, Definition, Imported, Log, Stop, words};
use crate::failure::Failure;

/// Most instances that are carried over, as definitions have it.
const INSTANCES_MAX: u64 = 1000;

/// The program that runs a script with this extension.
const INTERPRETERS: [(&str, &str); 9] = [
    ("js", "node"),
    ("cjs", "node"),
    ("mjs", "node"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("sh", "bash"),
    ("lua", "lua"),
];

/// Keys without a counterpart, and what to do instead.
const ABSENT: [(&str, &str); 22] = [
    (
        "cron_restart",
        "there are no restarts by the clock; have cron call `astrid process restart`",
    ),
    (
        "watch",
        "files are not watched; call `astrid process restart` when they change",
    ),
    ("ignore_watch", "files are not watched"),
    ("watch_delay", "files are not watched"),
    (
        "max_memory_restart",
        "nothing is restarted for its memory; `limits.memory` makes it fail instead",
    ),
    ("user", "programs run as the user of the daemon"),
    ("uid", "programs run as the user of the daemon"),
    ("gid", "programs run as the user of the daemon"),
    (
        "out_file",
        "logs have their own place; `astrid process logs` shows them",
    ),
    ("output", "logs have their own place; `astrid process logs` shows them"),
    (
        "error_file",
        "logs have their own place; `astrid process logs` shows them",
    ),
    ("error", "logs have their own place; `astrid process logs` shows them"),
    (
        "log_file",
        "logs have their own place; `astrid process logs` shows them",
    ),
    ("log", "logs have their own place; `astrid process logs` shows them"),
    ("pid_file", "there is none; `astrid process status` knows the pid"),
    ("log_date_format", "lines are written as they are"),
    ("time", "lines are written as they are"),
    ("wait_ready", "readiness is what `health` says"),
    ("listen_timeout", "readiness is what `health` says"),
    ("shutdown_with_message", "it is told to stop by a signal; see `stop`"),
    ("stop_exit_codes", "only exit code 0 is an end that is meant"),
    ("increment_var", "use ASTRID_INSTANCE, the number of the instance"),
];

/// Reads one. Its directory is where paths begin.
pub(super) fn import(text: &str, origin: &str, directory: &Path) -> anyhow::Result<Imported> {
    let document: Value = serde_json::from_str(text).map_err(|error| {
        let place = format!("{origin}:{}:{}: not JSON", error.line(), error.column());
        Failure::failed(place).source(error)
    })?;
    let mut imported = Imported::default();
    let apps = match document {
        Value::Array(apps) => apps,
        Value::Object(mut keys) => match keys.remove("apps") {
            Some(Value::Array(apps)) => {
                for key in keys.keys() {
                    imported.remark("all", key, "not carried over");
                }
                apps
            }
            Some(app @ Value::Object(_)) => vec![app],
            Some(_) => return Err(wrong(origin, "apps", "is neither a list nor an app")),
            None => vec![Value::Object(keys)],
        },
        _ => return Err(wrong(origin, "the document", "holds no apps")),
    };
    for (index, app) in apps.into_iter().enumerate() {
        let place = format!("apps[{index}]");
        let Value::Object(keys) = app else {
            return Err(wrong(origin, &place, "is not an object"));
        };
        let definition = App::new(&mut imported, keys, origin, &place)?.define(directory)?;
        imported.add(definition)?;
    }
    Ok(imported)
}

fn wrong(origin: &str, place: &str, what: &str) -> anyhow::Error {
    Failure::failed(format!("{origin}: {place} {what}")).into()
}

/// One app, from which key after key is taken.
struct App<'a> {
    imported: &'a mut Imported,
    keys: Map<String, Value>,
    origin: &'a str,
    place: &'a str,
    /// As it is called there.
    label: String,
}

impl<'a> App<'a> {
    fn new(
        imported: &'a mut Imported,
        keys: Map<String, Value>,
        origin: &'a str,
        place: &'a str,
    ) -> anyhow::Result<Self> {
        let mut app = Self {
            imported,
            keys,
            origin,
            place,
            label: String::new(),
        };
        app.label = match app.text("name")? {
            Some(name) => name,
            // pm2 names an app by its script, too.
            None => {
                let script = app.keys.get("script").and_then(Value::as_str).unwrap_or_default();
                let stem = Path::new(script).file_stem().and_then(|stem| stem.to_str());
                stem.unwrap_or(place).to_owned()
            }
        };
        Ok(app)
    }

    fn define(mut self, directory: &Path) -> anyhow::Result<Definition> {
        let cwd = match self.text("cwd")? {
            Some(cwd) => directory.join(cwd),
            None => directory.to_owned(),
        };
        let label = self.label.clone();
        let (command, args) = self.command(&cwd)?;
        let definition = Definition {
            name: self.imported.name(&label),
            command,
            args,
            cwd: cwd.display().to_string(),
            instances: self.instances()?,
            autostart: self.flag("autostart")?.filter(|autostart| !autostart),
            // By default pm2 starts again whatever ended.
            restart: match self.flag("autorestart")? {
                Some(false) => Some("never"),
                _ => Some("always"),
            },
            max_restarts: self.number("max_restarts")?,
            min_uptime: self.duration("min_uptime")?,
            env: self.environment()?,
            backoff: self.backoff()?,
            stop: self.duration("kill_timeout")?.map(|timeout| Stop { timeout }),
            log: self.merged_log()?,
        };
        self.say_the_rest();
        Ok(definition)
    }

    /// What is executed, with its arguments.
    fn command(&mut self, cwd: &Path) -> anyhow::Result<(String, Vec<String>)> {
        let script = match self.text("script")? {
            Some(script) if !script.trim().is_empty() => script,
            _ => return Err(self.wrong("script", "is missing")),
        };
        let interpreter = match self.text("exec_interpreter")? {
            Some(interpreter) => Some(interpreter),
            None => self.text("interpreter")?,
        };
        let mut before = self.list("interpreter_args")?;
        before.extend(self.list("node_args")?);
        let arguments = self.list("args")?;
        let extension = Path::new(&script).extension().and_then(|extension| extension.to_str());
        let by_extension = INTERPRETERS.iter().find(|(name, _)| Some(*name) == extension);
        let said_none = interpreter.as_deref() == Some("none");
        let interpreter = match interpreter.as_deref() {
            Some("none") => None,
            Some(name) => Some(name.to_owned()),
            None => by_extension.map(|(_, program)| (*program).to_owned()),
        };
        // A bare word without an extension is a program in PATH, like `npm`; the rest is a file.
        let file = |script: &str| {
            cwd.join(script.strip_prefix("./").unwrap_or(script))
                .display()
                .to_string()
        };
        let bare = !script.contains('/') && extension.is_none();
        Ok(match interpreter {
            Some(program) => {
                before.push(file(&script));
                before.extend(arguments);
                (program, before)
            }
            None => {
                if extension.is_some() && !said_none {
                    self.remark(
                        "script",
                        "it is executed as it is: no interpreter is known for its name",
                    );
                }
                if !before.is_empty() {
                    self.remark("interpreter_args", "there is no interpreter that would take them");
                }
                (if bare { script } else { file(&script) }, arguments)
            }
        })
    }

    fn instances(&mut self) -> anyhow::Result<Option<u32>> {
        let cluster = self.text("exec_mode")?.is_some_and(|mode| mode.starts_with("cluster"));
        let wanted = match self.keys.remove("instances") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text == "max" => Some(0),
            Some(Value::String(text)) => Some(text.parse().map_err(|_| self.wrong("instances", "is no number"))?),
            Some(Value::Number(number)) => Some(
                number
                    .as_i64()
                    .ok_or_else(|| self.wrong("instances", "is no whole number"))?,
            ),
            Some(_) => return Err(self.wrong("instances", "is no number")),
        };
        let Some(wanted) = wanted else { return Ok(None) };
        let count = if wanted > 0 {
            wanted.unsigned_abs()
        } else {
            // None or "max" is a core each, and less than none leaves cores free.
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
            let count = cores.saturating_sub(wanted.unsigned_abs()).max(1);
            self.remark("instances", &format!("{count}, as this machine has {cores} cores now"));
            count
        };
        if count > INSTANCES_MAX {
            return Err(self.wrong("instances", "is more than 1000"));
        }
        let variable = self
            .text("instance_var")?
            .unwrap_or_else(|| "NODE_APP_INSTANCE".to_owned());
        if count > 1 {
            self.remark(
                "instance_var",
                &format!("the number of an instance is in ASTRID_INSTANCE, not in {variable}"),
            );
        }
        if count > 1 && cluster {
            self.remark(
                "exec_mode",
                "instances are processes of their own and do not share a port",
            );
        }
        Ok(Some(u32::try_from(count)?).filter(|count| *count > 1))
    }

    fn environment(&mut self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut env = BTreeMap::new();
        match self.keys.remove("env") {
            None | Some(Value::Null) => {}
            Some(Value::Object(variables)) => {
                for (name, value) in variables {
                    if name.is_empty() || name.contains(['=', '\0']) {
                        return Err(self.wrong("env", "holds a name that no variable can have"));
                    }
                    let value = match value {
                        Value::String(text) => text,
                        Value::Number(_) | Value::Bool(_) => value.to_string(),
                        Value::Null => continue,
                        _ => {
                            self.remark(
                                &format!("env.{name}"),
                                "not carried over: it is neither text nor a number",
                            );
                            continue;
                        }
                    };
                    env.insert(name, value);
                }
            }
            Some(_) => return Err(self.wrong("env", "is not an object")),
        }
        let others: Vec<String> = self
            .keys
            .keys()
            .filter(|key| key.starts_with("env_"))
            .cloned()
            .collect();
        for key in others {
            self.keys.remove(&key);
            let name = key.trim_start_matches("env_").to_owned();
            self.remark(
                &key,
                &format!("there is one environment; to have that of `{name}`, put it into `env`"),
            );
        }
        Ok(env)
    }

    fn backoff(&mut self) -> anyhow::Result<Option<Backoff>> {
        let fixed = self.duration("restart_delay")?;
        let growing = self.duration("exp_backoff_restart_delay")?;
        Ok(match (growing, fixed) {
            (Some(base), _) => Some(Backoff {
                policy: "exponential",
                base,
            }),
            (None, Some(base)) => Some(Backoff { policy: "fixed", base }),
            (None, None) => None,
        })
    }

    fn merged_log(&mut self) -> anyhow::Result<Option<Log>> {
        let merged = match self.flag("merge_logs")? {
            Some(merged) => Some(merged),
            None => self.flag("combine_logs")?,
        };
        if merged == Some(true) {
            self.remark(
                "merge_logs",
                "each instance keeps its own file; `astrid process logs` shows them together",
            );
        }
        let both = |name: &str| self.keys.get(name).and_then(Value::as_str);
        let out = both("out_file").or_else(|| both("output"));
        let same = out.is_some() && out == both("error_file").or_else(|| both("error"));
        Ok(same.then_some(Log { merge: true }))
    }

    /// Whatever is left has no counterpart.
    fn say_the_rest(&mut self) {
        for (key, value) in std::mem::take(&mut self.keys) {
            // Switched off, it is as here.
            if matches!(value, Value::Null | Value::Bool(false)) {
                continue;
            }
            let instead = ABSENT.iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
            match instead {
                Some(text) => self.remark(&key, &format!("not carried over: {text}")),
                None => self.remark(&key, "not carried over: it has no counterpart"),
            }
        }
    }

    fn text(&mut self, key: &str) -> anyhow::Result<Option<String>> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.contains('\0') => Err(self.wrong(key, "holds a NUL")),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "is no text")),
        }
    }

    fn flag(&mut self, key: &str) -> anyhow::Result<Option<bool>> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(key, "is neither true nor false")),
        }
    }

    fn number(&mut self, key: &str) -> anyhow::Result<Option<u32>> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "is no whole number that is small enough")),
            },
        }
    }

    /// Milliseconds, or text like `10s` and `1h`.
    fn duration(&mut self, key: &str) -> anyhow::Result<Option<String>> {
        let (number, unit) = match self.keys.remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => (number.as_u64(), "ms".to_owned()),
            Some(Value::String(text)) => {
                let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let unit = if digits.len() == text.len() {
                    "ms"
                } else {
                    &text[digits.len()..]
                };
                (digits.parse().ok(), unit.to_owned())
            }
            Some(_) => (None, String::new()),
        };
        let factor = match unit.as_str() {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let millis = number
            .zip(factor)
            .and_then(|(number, factor): (u64, u64)| number.checked_mul(factor));
        match millis {
            Some(0) => Ok(None),
            Some(millis) if millis % 1000 == 0 => Ok(Some(format!("{}s", millis / 1000))),
            Some(millis) => Ok(Some(format!("{millis}ms"))),
            None => Err(self.wrong(key, "is no length of time")),
        }
    }

    /// A list of texts, or one text that a shell would part.
    fn list(&mut self, key: &str) -> anyhow::Result<Vec<String>> {
        match self.keys.remove(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) => words(&text).map_err(|what| self.wrong(key, &format!("has {what}"))),
            Some(Value::Array(items)) => {
                let texts = items.into_iter().map(|item| match item {
                    Value::String(text) => Some(text),
                    Value::Number(_) | Value::Bool(_) => Some(item.to_string()),
                    _ => None,
                });
                let texts: Option<Vec<String>> = texts.collect();
                texts.ok_or_else(|| self.wrong(key, "holds something that is no text"))
            }
            Some(_) => Err(self.wrong(key, "is no list")),
        }
    }

    fn remark(&mut self, key: &str, text: &str) {
        self.imported.remark(&self.label, key, text);
    }

    fn wrong(&self, key: &str, what: &str) -> anyhow::Error {
        wrong(self.origin, &format!("{}.{key}", self.place), what)
    }
}

#[cfg(test)]
mod tests;
