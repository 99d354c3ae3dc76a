//! What a definition must keep to beyond its types: limits, and keys that contradict each other (A9).

use astrid_sdk::child;
use astrid_wire::manifest::Time;

use crate::definition::{
    Backoff, Confinement, Definition, Growth, Health, HealthKind, Log, Profile, Reachable, Restart, Stop,
};
use crate::signals;

/// Bytes of a name: it becomes part of tags and of names of files.
pub const NAME_BYTES_MAX: usize = 48;
/// Instances of a process.
pub const INSTANCES_MAX: u32 = 1000;
/// Instances of all processes together: with a check of each, they stay below the children that an actor may hold.
pub const INSTANCES_TOTAL_MAX: usize = 2000;
/// Definitions of a document.
pub const DEFINITIONS_MAX: usize = 1000;
/// Bytes of a path, as the kernel's `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of arguments and environment together, as the interface `child` says.
const ARGUMENTS_BYTES_MAX: usize = 96 * 1024;
/// The longest that anything waits, in seconds: a week. What waits longer is forgotten by those who wait for it.
const TIME_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Restarts within a window: their times are kept.
const RESTARTS_MAX: u32 = 1000;
/// Checks in a row; more would take longer than anybody waits.
const CHECKS_MAX: u32 = 100;
/// The shortest interval between two checks, in milliseconds: each starts a program.
const INTERVAL_MS_MIN: u64 = 100;
/// Bytes that an answer must contain, and of an address or URL: they are arguments of the check.
const TEXT_BYTES_MAX: usize = 2048;
/// Statuses that mean health.
const STATUSES_MAX: usize = 64;
/// Bytes of a log file before it is rotated, as the interface `child` says.
const LOG_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;
/// Rotated files that are kept, as the interface `child` says.
const LOG_KEEP_MAX: u32 = 1000;
/// Variables that the supervisor itself sets.
const RESERVED: [&str; 2] = ["ASTRID_INSTANCE", "ASTRID_CHILD"];

/// A rule that a definition breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The key, from the definition on: `["health", "url"]`.
    pub path: Vec<&'static str>,
    /// What is wrong.
    pub what: String,
    /// What could be done.
    pub hint: Option<String>,
}

type Checked = Result<(), Broken>;

fn broken(path: &[&'static str], what: impl Into<String>) -> Broken {
    Broken {
        path: path.to_vec(),
        what: what.into(),
        hint: None,
    }
}

impl Broken {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether a text is a name of a process.
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// The first rule that a definition breaks.
///
/// # Errors
/// That rule.
pub fn check(definition: &Definition) -> Checked {
    if !is_name(&definition.name) {
        let what = format!(
            "a name has 1 to {NAME_BYTES_MAX} of a-z, 0-9, `.`, `_` and `-`, and begins with a letter or digit"
        );
        return Err(broken(&["name"], what));
    }
    program(&["command"], &definition.command)?;
    texts(&["args"], &definition.args)?;
    if let Some(cwd) = &definition.cwd {
        if !cwd.starts_with('/') {
            return Err(broken(&["cwd"], "it is not an absolute path").hint("begin it with `/`"));
        }
        path(&["cwd"], cwd)?;
    }
    confined(definition)?;
    environment(definition)?;
    range(&["instances"], definition.instances, 1, INSTANCES_MAX)?;
    restarts(definition)?;
    if let Some(health) = &definition.health {
        health_keys(health)?;
        health_values(health)?;
    }
    if let Some(stop) = &definition.stop {
        check_stop(stop)?;
    }
    limits(definition)?;
    match &definition.log {
        Some(log) => check_log(log, definition.terminal == Some(true)),
        None => Ok(()),
    }
}

/// That a sandbox gives what makes sense, and that the rest of the definition can be had in it.
fn confined(definition: &Definition) -> Checked {
    let (profile, given) = match &definition.sandbox {
        None => (None, None),
        Some(Confinement::Named(profile)) => (Some(*profile), None),
        Some(Confinement::Given(given)) => (given.profile, Some(given)),
    };
    let writes_place = matches!(profile, Some(Profile::Project | Profile::Sealed));
    if writes_place && definition.cwd.is_none() && definition.workspace.is_none() {
        return Err(
            broken(&["sandbox"], "it writes its working directory, and none is named")
                .hint("add `cwd`, or `workspace = \"overlay\"`"),
        );
    }
    if let Some(given) = given {
        if profile == Some(Profile::None) {
            return Err(broken(&["sandbox", "profile"], "`none` gives everything already"));
        }
        if let (Some(Profile::Sealed), Some(network)) = (profile, given.network)
            && network != Reachable::None
        {
            return Err(broken(
                &["sandbox", "network"],
                format!("`sealed` speaks to nobody, and `{}` is somebody", network.as_str()),
            )
            .hint("use profile = \"project\", which is the same but for the network"));
        }
        for (name, list) in [("read", &given.read), ("write", &given.write)] {
            for one in list.iter().flatten() {
                let known = one == astrid_sdk::child::WORKSPACE || (name == "write" && one == astrid_sdk::child::TMP);
                if !known && !one.starts_with('/') {
                    return Err(broken(&["sandbox", name], format!("`{one}` is not an absolute path"))
                        .hint("begin it with `/`"));
                }
                path(&["sandbox", name], one)?;
            }
        }
    }
    if definition.workspace.is_some() && definition.adopt == Some(true) {
        return Err(broken(&["workspace"], "it is not there while the daemon is not").hint("leave `adopt` out"));
    }
    let network = given.and_then(|given| given.network);
    let unreachable = match network {
        Some(network) => network != Reachable::Full,
        None => profile == Some(Profile::Sealed),
    };
    let kind = definition.health.as_ref().map(|health| health.kind).unwrap_or_default();
    if unreachable && matches!(kind, HealthKind::Tcp | HealthKind::Http) {
        return Err(broken(
            &["health", "kind"],
            format!("its sandbox lets nobody reach it over `{}`", kind.as_str()),
        )
        .hint("use `script`, which runs in the same sandbox, or network = \"full\""));
    }
    Ok(())
}

fn program(key: &[&'static str], command: &str) -> Checked {
    let in_workspace = command.starts_with(child::WORKSPACE);
    if command.contains('/') && !command.starts_with('/') && !in_workspace {
        return Err(broken(key, "it is neither an absolute path nor a name")
            .hint("begin it with `/`, or leave the directories out and have it looked for in PATH"));
    }
    path(key, command)
}

fn path(key: &[&'static str], path: &str) -> Checked {
    if path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0') {
        return Err(broken(
            key,
            format!("a path has 1 to {PATH_BYTES_MAX} bytes and no NUL"),
        ));
    }
    Ok(())
}

fn texts(key: &[&'static str], texts: &[String]) -> Checked {
    let bytes: usize = texts.iter().map(|text| text.len() + 1).sum();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(broken(
            key,
            format!("{bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}"),
        ));
    }
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(broken(key, "an argument cannot contain NUL"));
    }
    Ok(())
}

fn environment(definition: &Definition) -> Checked {
    let mut bytes: usize = definition.args.iter().map(|text| text.len() + 1).sum();
    for (name, value) in &definition.env {
        bytes += name.len() + value.len() + 2;
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(broken(
                &["env"],
                "a variable has a name without `=`, and there is no NUL in either",
            ));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(broken(&["env"], format!("{name} is set for each instance")).hint("choose another name"));
        }
    }
    if bytes > ARGUMENTS_BYTES_MAX {
        let what = format!("arguments and environment have {bytes} bytes, the limit is {ARGUMENTS_BYTES_MAX}");
        return Err(broken(&["env"], what));
    }
    match definition
        .secrets
        .iter()
        .find(|name| !definition.env.contains_key(*name))
    {
        Some(_) => Err(broken(&["secrets"], "it names a variable that is not in `env`")
            .hint("a secret is a variable of `env` whose value is not shown")),
        None => Ok(()),
    }
}

fn range(key: &[&'static str], value: Option<u32>, min: u32, max: u32) -> Checked {
    match value {
        Some(value) if !(min..=max).contains(&value) => Err(broken(key, format!("{value} is outside {min} to {max}"))),
        _ => Ok(()),
    }
}

fn time(key: &[&'static str], value: Option<Time>, min_ms: u64) -> Checked {
    match value {
        Some(Time(time)) if time.as_secs() > TIME_SECONDS_MAX => Err(broken(key, "it is longer than a week (168h)")),
        Some(Time(time)) if time.as_millis() < u128::from(min_ms) => {
            Err(broken(key, format!("it is shorter than {min_ms}ms")))
        }
        _ => Ok(()),
    }
}

fn restarts(definition: &Definition) -> Checked {
    range(&["max_restarts"], definition.max_restarts, 1, RESTARTS_MAX)?;
    time(&["window"], definition.window, 1)?;
    time(&["min_uptime"], definition.min_uptime, 0)?;
    if definition.restart == Some(Restart::Never) {
        let said = [
            ("max_restarts", definition.max_restarts.is_some()),
            ("window", definition.window.is_some()),
            ("min_uptime", definition.min_uptime.is_some()),
            ("backoff", definition.backoff.is_some()),
        ];
        if let Some((key, _)) = said.into_iter().find(|(_, said)| *said) {
            return Err(
                broken(&[key], "it says how to restart, and `restart = \"never\"` says not to")
                    .hint("leave one of them out"),
            );
        }
    }
    match &definition.backoff {
        Some(backoff) => check_backoff(backoff),
        None => Ok(()),
    }
}

fn check_backoff(backoff: &Backoff) -> Checked {
    time(&["backoff", "base"], backoff.base, 0)?;
    time(&["backoff", "cap"], backoff.cap, 0)?;
    range(&["backoff", "factor"], backoff.factor, 1, 100)?;
    let growth = backoff.policy.unwrap_or(Growth::Exponential);
    if backoff.factor.is_some() && growth != Growth::Exponential {
        return Err(broken(&["backoff", "factor"], "only an exponential wait has a factor"));
    }
    if backoff.cap.is_some() && growth == Growth::Fixed {
        return Err(broken(&["backoff", "cap"], "a fixed wait does not grow"));
    }
    if let (Some(base), Some(cap)) = (backoff.base, backoff.cap)
        && base > cap
    {
        return Err(broken(
            &["backoff", "base"],
            format!("{base} is longer than `cap`, {cap}"),
        ));
    }
    Ok(())
}

/// That what a kind of health check needs is there, and nothing that belongs to another.
fn health_keys(health: &Health) -> Checked {
    use HealthKind::{Http, Liveness, None as Not, Script, Tcp};
    let said: [(&'static str, bool, &[HealthKind]); 11] = [
        ("address", health.address.is_some(), &[Tcp]),
        ("url", health.url.is_some(), &[Http]),
        ("status", health.status.is_some(), &[Http]),
        ("body", health.body.is_some(), &[Http]),
        ("command", health.command.is_some(), &[Script]),
        ("args", !health.args.is_empty(), &[Script]),
        ("interval", health.interval.is_some(), &[Tcp, Http, Script]),
        ("timeout", health.timeout.is_some(), &[Tcp, Http, Script]),
        (
            "unhealthy_after",
            health.unhealthy_after.is_some(),
            &[Tcp, Http, Script],
        ),
        ("healthy_after", health.healthy_after.is_some(), &[Tcp, Http, Script]),
        ("start_period", health.start_period.is_some(), &[Tcp, Http, Script]),
    ];
    for (key, is_said, kinds) in said {
        if is_said && !kinds.contains(&health.kind) {
            let kinds: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.as_str())).collect();
            return Err(broken(
                &["health", key],
                format!("a check of kind `{}` does not use it", health.kind.as_str()),
            )
            .hint(format!("it belongs to kind = {}", kinds.join(" or "))));
        }
    }
    let needed = match health.kind {
        Tcp if health.address.is_none() => Some(("address", "\"127.0.0.1:8080\"")),
        Http if health.url.is_none() => Some(("url", "\"http://127.0.0.1:8080/health\"")),
        Script if health.command.is_none() => Some(("command", "\"/usr/bin/check\"")),
        Not | Liveness | Tcp | Http | Script => None,
    };
    match needed {
        Some((key, example)) => Err(broken(
            &["health", "kind"],
            format!("a check of kind `{}` needs `{key}`", health.kind.as_str()),
        )
        .hint(format!("add {key} = {example}"))),
        None => Ok(()),
    }
}

fn health_values(health: &Health) -> Checked {
    if let Some(address) = &health.address
        && !is_address(address)
    {
        return Err(
            broken(&["health", "address"], "it is not a host and a port").hint("write it as \"127.0.0.1:8080\"")
        );
    }
    if let Some(url) = &health.url
        && (!url.starts_with("http://") || url.len() > TEXT_BYTES_MAX || url.contains(char::is_whitespace))
    {
        return Err(broken(&["health", "url"], "it is not an `http://` address")
            .hint("checks speak plain HTTP; for anything else use kind = \"script\""));
    }
    if let Some(statuses) = &health.status {
        let all = statuses.all();
        if all.is_empty() || all.len() > STATUSES_MAX || all.iter().any(|status| !(100..=599).contains(status)) {
            return Err(broken(
                &["health", "status"],
                format!("1 to {STATUSES_MAX} statuses, each 100 to 599"),
            ));
        }
    }
    if let Some(body) = &health.body
        && (body.is_empty() || body.len() > TEXT_BYTES_MAX || body.contains('\0'))
    {
        return Err(broken(
            &["health", "body"],
            format!("1 to {TEXT_BYTES_MAX} bytes without NUL"),
        ));
    }
    if let Some(command) = &health.command {
        program(&["health", "command"], command)?;
    }
    texts(&["health", "args"], &health.args)?;
    time(&["health", "interval"], health.interval, INTERVAL_MS_MIN)?;
    time(&["health", "timeout"], health.timeout, 1)?;
    time(&["health", "start_period"], health.start_period, 0)?;
    range(&["health", "unhealthy_after"], health.unhealthy_after, 1, CHECKS_MAX)?;
    range(&["health", "healthy_after"], health.healthy_after, 1, CHECKS_MAX)
}

fn is_address(address: &str) -> bool {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    let host = |host: &str| {
        !host.is_empty()
            && !host.starts_with('-')
            && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    };
    address.len() <= TEXT_BYTES_MAX
        && address
            .rsplit_once(':')
            .is_some_and(|(name, number)| host(name) && port(number))
}

fn check_stop(stop: &Stop) -> Checked {
    if let Some(signal) = &stop.signal
        && signals::by_name(signal).is_none()
    {
        return Err(broken(&["stop", "signal"], "it is not a signal that can be sent").hint(signals::known()));
    }
    time(&["stop", "timeout"], stop.timeout, 0)?;
    match &stop.command {
        Some(command) => program(&["stop", "command"], command)?,
        None if !stop.args.is_empty() => {
            return Err(broken(&["stop", "args"], "arguments without a `command`"));
        }
        None => {}
    }
    texts(&["stop", "args"], &stop.args)
}

fn limits(definition: &Definition) -> Checked {
    let Some(limits) = &definition.limits else {
        return Ok(());
    };
    if let Some(Time(time)) = limits.cpu_time
        && (time.subsec_millis() != 0 || time.is_zero())
    {
        return Err(broken(&["limits", "cpu_time"], "it is counted in whole seconds"));
    }
    let zero = [
        ("memory", limits.memory.map(|size| size.0)),
        ("open_files", limits.open_files),
        ("processes", limits.processes),
    ];
    match zero.into_iter().find(|(_, value)| *value == Some(0)) {
        Some((key, _)) => Err(broken(&["limits", key], "nothing can run with none")),
        None => Ok(()),
    }
}

fn check_log(log: &Log, terminal: bool) -> Checked {
    if let Some(size) = log.size
        && !LOG_BYTES.contains(&size.0)
    {
        return Err(broken(&["log", "size"], format!("{size} is outside 4KiB to 1GiB")));
    }
    range(&["log", "keep"], log.keep, 0, LOG_KEEP_MAX)?;
    if log.merge == Some(false) && terminal {
        return Err(broken(&["log", "merge"], "on a terminal there is one stream only"));
    }
    Ok(())
}
