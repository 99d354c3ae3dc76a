//! What the types of a manifest cannot say: limits, and rules between fields.

use std::time::Duration;

use super::{ByteSize, Capabilities, Files, Manifest, Overflow, Runtime, Scope, Time};
use crate::control::RESERVED_DOMAINS;
use crate::text;
use crate::topic::{Pattern, Segment};

/// Most bytes of a manifest. People write them.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024;

/// Most entries of a table (exports, imports, publish, subscribe, a capability's `allow`).
pub const ENTRIES_MAX: usize = 256;

/// Most bytes of the description: a sentence.
pub const DESCRIPTION_BYTES_MAX: usize = 256;

/// Most bytes of a capability's reason: a sentence.
pub const REASON_BYTES_MAX: usize = 256;

/// Most actors that share a system capsule's work; more than the cores of any machine this is meant for.
pub const INSTANCES_MAX: u32 = 256;

/// Least memory of an actor: a stack and a page for data.
pub const MEMORY_MIN: ByteSize = ByteSize(128 << 10);

/// Most memory of an actor; a quarter of what 32-bit WebAssembly could address.
pub const MEMORY_MAX: ByteSize = ByteSize(1 << 30);

/// Most fuel for one message: some minutes of work.
pub const FUEL_MAX: u64 = 1_000_000_000_000;

/// Least time for one message: below it, a busy machine decides and not the capsule.
pub const TIMEOUT_MIN: Time = Time(Duration::from_millis(10));

/// Most time for one message. Longer work is many messages.
pub const TIMEOUT_MAX: Time = Time(Duration::from_mins(10));

/// Most time that an idle actor is kept; longer is forever, which is said by not saying it.
pub const IDLE_MAX: Time = Time(Duration::from_hours(24 * 7));

/// Most messages that wait for one actor on one subscription.
pub const QUEUE_MAX: u32 = 65_536;

/// Most messages that wait on disk for one actor on one durable subscription.
pub const QUEUE_DURABLE_MAX: u32 = 1_000_000;

/// Most retries of a message.
pub const RETRY_MAX: u32 = 100;

/// The domain of requests to the kernel: its operators' way in, so nobody stands before it.
const KERNEL_DOMAIN: &str = "astrid";

/// A rule that a manifest breaks.
#[derive(Debug)]
pub(super) struct Broken {
    /// Keys from the root to the offending value.
    pub(super) path: Vec<String>,
    /// What is wrong.
    pub(super) what: String,
    /// What could be done.
    pub(super) hint: Option<String>,
}

impl Broken {
    fn new(path: &[&str], what: impl Into<String>) -> Self {
        Self {
            path: path.iter().map(|key| (*key).to_owned()).collect(),
            what: what.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(super) fn check(manifest: &Manifest) -> Result<(), Broken> {
    check_text(
        &["package", "description"],
        &manifest.package.description,
        DESCRIPTION_BYTES_MAX,
    )?;
    check_runtime(&manifest.runtime)?;
    check_capabilities(&manifest.capabilities, manifest.runtime.scope)?;
    for (table, entries) in [
        ("exports", manifest.exports.len()),
        ("imports", manifest.imports.len()),
        ("publish", manifest.publish.len()),
        ("subscribe", manifest.subscribe.len()),
    ] {
        if entries > ENTRIES_MAX {
            return Err(Broken::new(
                &[table],
                format!("{entries} entries, the limit is {ENTRIES_MAX}"),
            ));
        }
    }
    for name in manifest.imports.keys() {
        if manifest.exports.contains_key(name) {
            return Err(
                Broken::new(&["imports", name.as_str()], format!("it exports `{name}` itself"))
                    .hint("a capsule cannot wait for itself"),
            );
        }
    }
    for pattern in manifest.publish.keys() {
        if let Some(domain) = reserved_domain(pattern) {
            return Err(Broken::new(
                &["publish", pattern.as_str()],
                format!("only the kernel publishes on `{domain}.`"),
            )
            .hint("take this line out; replies need no entry"));
        }
    }
    for (pattern, options) in &manifest.subscribe {
        let path = |key| ["subscribe", pattern.as_str(), key];
        let queue_max = if options.durable { QUEUE_DURABLE_MAX } else { QUEUE_MAX };
        if options.queue == 0 || options.queue > queue_max {
            return Err(Broken::new(
                &path("queue"),
                format!("a queue holds 1 to {queue_max} messages"),
            ));
        }
        if options.durable && options.overflow == Overflow::DropOldest {
            return Err(
                Broken::new(&path("overflow"), "a durable subscription never drops a message")
                    .hint("take this line out: who sends to a full one is told"),
            );
        }
        if options.durable && manifest.runtime.scope == Scope::Connection {
            return Err(Broken::new(
                &path("durable"),
                "an actor of scope \"connection\" ends with its stream",
            )
            .hint("let an actor of scope \"principal\" or \"system\" hear this"));
        }
        if options.durable && pattern.as_str().starts_with("lifecycle.") {
            return Err(
                Broken::new(&path("durable"), "an actor hears of its own life while it lives").hint("take this out"),
            );
        }
        if options.ordered && !options.durable {
            return Err(
                Broken::new(&path("ordered"), "order over retries is for durable subscriptions")
                    .hint("add durable = true"),
            );
        }
        if options.retry > RETRY_MAX {
            return Err(Broken::new(
                &path("retry"),
                format!("a message is retried at most {RETRY_MAX} times"),
            ));
        }
    }
    Ok(())
}

/// The reserved domain that a pattern names by its first segment. A wildcard there names none: the kernel refuses reserved topics
/// one by one whatever the pattern.
fn reserved_domain(pattern: &Pattern) -> Option<&'static str> {
    match pattern.segments().next()? {
        Segment::Literal(name) => RESERVED_DOMAINS.into_iter().find(|domain| *domain == name),
        Segment::Any | Segment::Rest => None,
    }
}

fn check_text(path: &[&str], words: &str, limit: usize) -> Result<(), Broken> {
    if words.trim().is_empty() {
        return Err(Broken::new(path, "it is empty").hint("one sentence; people read it before they decide"));
    }
    if words.len() > limit {
        return Err(Broken::new(
            path,
            format!("it has {} bytes, the limit is {limit}", words.len()),
        ));
    }
    if let Some(control) = words.chars().find(|c| c.is_control()) {
        return Err(Broken::new(
            path,
            format!("it contains the control character {control:?}"),
        ));
    }
    Ok(())
}

fn check_runtime(runtime: &Runtime) -> Result<(), Broken> {
    let instances = runtime.instances.get();
    if instances > INSTANCES_MAX {
        return Err(Broken::new(
            &["runtime", "instances"],
            format!("at most {INSTANCES_MAX}"),
        ));
    }
    if instances != 1 && runtime.scope != Scope::System {
        let scope = runtime.scope;
        return Err(Broken::new(
            &["runtime", "instances"],
            format!("scope \"{scope}\" has one actor for each {scope}"),
        )
        .hint("`instances` is for scope = \"system\""));
    }
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&runtime.memory) {
        let what = format!("{} is outside {MEMORY_MIN} to {MEMORY_MAX}", runtime.memory);
        return Err(Broken::new(&["runtime", "memory"], what));
    }
    if runtime.fuel == 0 || runtime.fuel > FUEL_MAX {
        return Err(Broken::new(
            &["runtime", "fuel"],
            format!("{} is outside 1 to {FUEL_MAX}", runtime.fuel),
        ));
    }
    if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&runtime.timeout) {
        let what = format!("{} is outside {TIMEOUT_MIN} to {TIMEOUT_MAX}", runtime.timeout);
        return Err(Broken::new(&["runtime", "timeout"], what));
    }
    match runtime.idle {
        Some(_) if runtime.scope == Scope::Connection => Err(Broken::new(
            &["runtime", "idle"],
            "an actor of scope \"connection\" lives as long as its stream",
        )
        .hint("take this line out")),
        Some(idle) if idle > IDLE_MAX || idle.0.is_zero() => Err(Broken::new(
            &["runtime", "idle"],
            format!("{idle} is outside 1ms to {IDLE_MAX}"),
        )),
        _ => Ok(()),
    }
}

fn check_capabilities(capabilities: &Capabilities, scope: Scope) -> Result<(), Broken> {
    let Capabilities {
        listen,
        timer,
        subscribe,
        child,
        document,
        fs,
        kv,
        pin,
        guard,
    } = capabilities;
    for (name, asked) in [
        (
            "listen",
            listen.as_ref().map(|asked| (asked.allow.len(), &asked.reason)),
        ),
        ("timer", timer.as_ref().map(|asked| (asked.allow.len(), &asked.reason))),
        (
            "subscribe",
            subscribe.as_ref().map(|asked| (asked.allow.len(), &asked.reason)),
        ),
        ("child", child.as_ref().map(|asked| (asked.allow.len(), &asked.reason))),
        (
            "document",
            document.as_ref().map(|asked| (asked.allow.len(), &asked.reason)),
        ),
        ("kv", kv.as_ref().map(|asked| (asked.allow.len(), &asked.reason))),
        ("pin", pin.as_ref().map(|asked| (asked.allow.len(), &asked.reason))),
        ("guard", guard.as_ref().map(|asked| (asked.allow.len(), &asked.reason))),
    ] {
        let Some((allowed, reason)) = asked else {
            continue;
        };
        check_text(&["capabilities", name, "reason"], reason, REASON_BYTES_MAX)?;
        if allowed == 0 || allowed > ENTRIES_MAX {
            let what = format!("{allowed} entries; 1 to {ENTRIES_MAX} make sense");
            return Err(Broken::new(&["capabilities", name, "allow"], what));
        }
    }
    fs.as_ref().map_or(Ok(()), check_files)?;
    check_guards(guard.iter().flat_map(|asked| &asked.allow), scope)?;
    match (listen.is_some(), scope == Scope::Connection) {
        (true, false) => Err(Broken::new(
            &["capabilities", "listen"],
            format!("scope \"{scope}\" serves no connections"),
        )
        .hint("set scope = \"connection\" under [runtime]")),
        (false, true) => Err(Broken::new(
            &["runtime", "scope"],
            "scope \"connection\" without anything to listen on",
        )
        .hint("add listen = { allow = [\"session\"], reason = \"...\" } under [capabilities]")),
        _ if scope == Scope::Connection && (kv.is_some() || pin.is_some()) => Err(Broken::new(
            &["capabilities", if kv.is_some() { "kv" } else { "pin" }],
            "nothing of scope \"connection\" outlives its stream",
        )
        .hint("keep it in an actor of scope \"principal\" or \"system\"")),
        _ if subscribe.is_some() && scope != Scope::Connection => Err(Broken::new(
            &["capabilities", "subscribe"],
            format!("scope \"{scope}\" does not subscribe while it runs"),
        )
        .hint("name the patterns under [subscribe]")),
        _ => Ok(()),
    }
}

/// Files that a capsule asks for.
fn check_files(asked: &Files) -> Result<(), Broken> {
    check_text(&["capabilities", "fs", "reason"], &asked.reason, REASON_BYTES_MAX)?;
    for (name, paths) in [("read", &asked.read), ("write", &asked.write)] {
        if paths.len() > ENTRIES_MAX {
            let what = format!("{} entries; at most {ENTRIES_MAX} make sense", paths.len());
            return Err(Broken::new(&["capabilities", "fs", name], what));
        }
    }
    if asked.read.is_empty() && asked.write.is_empty() {
        return Err(
            Broken::new(&["capabilities", "fs"], "neither `read` nor `write` names any files")
                .hint("write read = [\"/workspace/>\"] for everything in the workspace, or take this line out"),
        );
    }
    Ok(())
}

/// Patterns whose topics a capsule guards.
fn check_guards<'a>(mut guarded: impl Iterator<Item = &'a Pattern>, scope: Scope) -> Result<(), Broken> {
    let Some(first) = guarded.next() else { return Ok(()) };
    if scope != Scope::System {
        return Err(Broken::new(
            &["capabilities", "guard"],
            format!("a guard reads the one table of its capsule, and scope \"{scope}\" has one for each {scope}"),
        )
        .hint("set scope = \"system\" under [runtime], or guard from a capsule of its own"));
    }
    for pattern in std::iter::once(first).chain(guarded) {
        let domain = match pattern.segments().next() {
            Some(Segment::Literal(KERNEL_DOMAIN)) => Some(KERNEL_DOMAIN),
            _ => reserved_domain(pattern),
        };
        if let Some(domain) = domain {
            return Err(Broken::new(
                &["capabilities", "guard", "allow"],
                format!("`{pattern}` cannot be guarded: `{domain}.` is the kernel's"),
            )
            .hint("what is asked of the kernel is decided by grants and revokes"));
        }
    }
    Ok(())
}

/// For messages: text that came from a document, short enough to show.
pub(super) fn shown(words: &str) -> &str {
    text::cut(words, 128)
}
